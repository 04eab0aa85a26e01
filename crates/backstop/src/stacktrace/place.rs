//! Names of functions and files, as short as they can be understood.

use backstop_protocol::Frame;

/// A function's name: what it is in, and what it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) path: String,
    pub(super) last: String,
}

/// Longer names are generics that nobody reads.
const NAME_CHARS_MAX: usize = 120;

/// Returns the name of a frame's function.
pub(super) fn function(platform: Option<&str>, frame: &Frame) -> Name {
    let function = frame.function.as_deref().filter(|name| !name.is_empty());
    let Some(function) = function else {
        let address = frame.instruction_addr.as_deref();
        return Name {
            path: String::new(),
            last: address.unwrap_or("<unknown>").to_owned(),
        };
    };
    match platform {
        Some("rust" | "native") if function.contains("::") => rust(function),
        Some("java" | "kotlin" | "scala" | "csharp" | "go" | "php" | "python") => Name {
            path: match frame.module.as_deref() {
                Some(module) if !module.is_empty() && module != "__main__" => format!("{module}."),
                _ => String::new(),
            },
            last: cut(function),
        },
        _ => Name {
            path: String::new(),
            last: cut(function),
        },
    }
}

/// `<shop::Cart as shop::Price>::total::{{closure}}::h0123456789abcdef` → `shop::Cart::total`.
fn rust(function: &str) -> Name {
    let mut name = without_hash(function);
    let mut closure = false;
    while let Some((rest, last)) = split_last(name) {
        let shim = last.starts_with('{') && last.ends_with('}');
        if !shim {
            break;
        }
        closure |= last.contains("closure");
        name = rest;
    }
    let name = readable(name);
    let (path, last) = match split_last(&name) {
        Some((path, last)) => (format!("{path}::"), last.to_owned()),
        None => (String::new(), name.clone()),
    };
    let last = match closure {
        true => format!("{last} {{…}}"),
        false => last,
    };
    Name {
        path: cut(&path),
        last: cut(&last),
    }
}

/// `<A as B>::c` is `A::c` to people, and generics are noise.
fn readable(name: &str) -> String {
    let name = match name.strip_prefix('<').and_then(|rest| {
        let end = matching_end(rest)?;
        let ty = rest[..end].split(" as ").next()?;
        Some(format!("{ty}{}", &rest[end + 1..]))
    }) {
        Some(name) => name,
        None => name.to_owned(),
    };
    let mut depth = 0_usize;
    let mut plain = String::new();
    let mut before = ' ';
    for character in name.chars() {
        match character {
            '<' => depth += 1,
            // The arrow of a function type is no bracket.
            '>' if before != '-' => depth = depth.saturating_sub(1),
            other if depth == 0 => plain.push(other),
            _ => {}
        }
        before = character;
    }
    plain
        .replace("::::", "::")
        .trim_end_matches("::")
        .to_owned()
}

/// Where the bracket that is open at the start ends.
fn matching_end(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, character) in text.char_indices() {
        match character {
            '<' => depth += 1,
            '>' if !text[..at].ends_with('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Splits at the last `::` that is not inside brackets.
fn split_last(name: &str) -> Option<(&str, &str)> {
    let bytes = name.as_bytes();
    let mut depth = 0_isize;
    for at in (1..bytes.len()).rev() {
        match bytes[at] {
            b'>' if bytes[at - 1] != b'-' => depth += 1,
            b'<' => depth -= 1,
            b':' if depth == 0 && bytes[at - 1] == b':' => {
                return Some((&name[..at - 1], &name[at + 1..]));
            }
            _ => {}
        }
    }
    None
}

fn without_hash(function: &str) -> &str {
    match function.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name
        }
        _ => function,
    }
}

/// Returns the file of a frame, as its sender shortened it or as we can.
pub(super) fn file(frame: &Frame) -> Option<String> {
    let path = frame
        .filename
        .as_deref()
        .or(frame.abs_path.as_deref())
        .or(frame.package.as_deref())
        .filter(|path| !path.is_empty())?;
    let path = path.replace('\\', "/");
    // Below a package folder the rest is what one knows it by.
    for folder in [
        "/registry/src/",
        "/site-packages/",
        "/node_modules/",
        "/pkg/mod/",
        "/gems/",
    ] {
        if let Some(at) = path.rfind(folder) {
            let rest = &path[at + folder.len()..];
            return Some(match folder {
                "/registry/src/" => rest
                    .split_once('/')
                    .map_or(rest, |(_, rest)| rest)
                    .to_owned(),
                _ => rest.to_owned(),
            });
        }
    }
    if let Some(rest) = path.strip_prefix("/rustc/") {
        return Some(
            rest.split_once('/')
                .map_or(rest, |(_, rest)| rest)
                .to_owned(),
        );
    }
    Some(path)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_names() {
        let check = |function: &str, path: &str, last: &str| {
            let found = rust(function);
            assert_eq!(
                (found.path.as_str(), found.last.as_str()),
                (path, last),
                "{function}"
            );
        };
        check(
            "shop::cart::total::h0123456789abcdef",
            "shop::cart::",
            "total",
        );
        check("shop::upload::{{closure}}", "shop::", "upload {…}");
        check(
            "shop::upload::{async_fn#0}::{closure#1}",
            "shop::",
            "upload {…}",
        );
        check(
            "<shop::Cart as shop::Price>::total",
            "shop::Cart::",
            "total",
        );
        check(
            "<alloc::vec::Vec<T,A> as Index<I>>::index",
            "alloc::vec::Vec::",
            "index",
        );
        check(
            "core::ops::function::FnOnce::call_once::<fn() -> u8>",
            "core::ops::function::FnOnce::",
            "call_once",
        );
        check("main", "", "main");
    }

    #[test]
    fn files() {
        let check = |path: &str, expected: &str| {
            let frame = Frame {
                filename: Some(path.to_owned()),
                ..Frame::default()
            };
            assert_eq!(file(&frame).as_deref(), Some(expected));
        };
        check("src/disk.rs", "src/disk.rs");
        check(
            "/root/.cargo/registry/src/index-1/axum-0.8.9/src/a.rs",
            "axum-0.8.9/src/a.rs",
        );
        check("/rustc/0123/library/core/src/a.rs", "library/core/src/a.rs");
        check("/v/site-packages/flask/app.py", "flask/app.py");
        check("C:\\shop\\app.py", "C:/shop/app.py");
    }
}
