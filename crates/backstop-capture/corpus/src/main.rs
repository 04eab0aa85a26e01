//! Programs that fail in known ways and print what is captured.
//!
//! `corpus NAME` runs one program; it prints `FRAME` and `VAR` lines, and with the feature
//! `witness` a `TRUTH` line with each variable's own `{:?}`.

#[macro_use]
mod witness;

mod asyncs;
mod channels;
mod client;
mod collections;
mod crates;
mod ffi;
mod graph;
mod moved;
mod parser;
mod plain;
mod shop;
mod threads;
mod zoo;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, program)) = PROGRAMS.iter().find(|(known, _)| *known == name) else {
        for (name, _) in PROGRAMS {
            println!("{name}");
        }
        return;
    };
    witness::install();
    program();
}

const PROGRAMS: [(&str, fn()); 21] = [
    ("zoo", zoo::run),
    ("collections", collections::run),
    ("users", plain::users),
    ("generics", plain::generics),
    ("closures", plain::closures),
    ("iterators", plain::iterators),
    ("recursion", plain::recursion),
    ("traits", plain::traits),
    ("big", plain::big),
    ("errors", plain::errors),
    ("moved", moved::run),
    ("ffi", ffi::run),
    ("threads", threads::run),
    ("awaits", asyncs::awaits),
    ("tasks", asyncs::tasks),
    ("shop", shop::run),
    ("client", client::run),
    ("channels", channels::run),
    ("parser", parser::run),
    ("graph", graph::run),
    ("crates", crates::run),
];
