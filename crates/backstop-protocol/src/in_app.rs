//! Whether a frame is the user's own code.
//!
//! Clients guess this from paths, and some guess badly: the Rust client calls runtime, panic hook
//! and inlined library frames the user's own. This one function gives the answer that names and
//! paths prove, for the tracker (which trusts no client) and for the reporting library alike.

use crate::Frame;

/// Says whether `frame` is the user's own code, as far as its names and paths prove it.
///
/// `None` means that they prove nothing and the sender's flag counts. For `rust` and `native`
/// a frame with a source file or a crate path always gets an answer.
/// `platform` is the event's; a frame's own `platform` wins.
///
/// # Example
///
/// ```
/// use backstop_protocol::{Frame, in_app};
///
/// let mut frame = Frame::default();
/// frame.function = Some("<alloc::vec::Vec<T> as Drop>::drop".into());
/// assert_eq!(in_app(Some("rust"), &frame), Some(false));
/// frame.function = Some("ledger::batch::apply::{closure#0}".into());
/// assert_eq!(in_app(Some("rust"), &frame), Some(true));
/// frame.abs_path = Some("/app/.venv/lib/python3.12/site-packages/flask/app.py".into());
/// assert_eq!(in_app(Some("python"), &frame), Some(false));
/// ```
pub fn in_app(platform: Option<&str>, frame: &Frame) -> Option<bool> {
    let own = frame.other.get("platform").and_then(|value| value.as_str());
    let path = frame.abs_path.as_deref().or(frame.filename.as_deref());
    let path = path.unwrap_or_default();
    let function = frame.function.as_deref().unwrap_or_default();
    let module = frame.module.as_deref().unwrap_or_default();
    let foreign = match own.or(platform).unwrap_or_default() {
        "rust" | "native" | "c" => return rust_in_app(function, path),
        "python" => contains_any(path, PYTHON_PATHS) || path.starts_with("<frozen "),
        "node" | "javascript" => {
            contains_any(path, JS_PATHS)
                || JS_STARTS.iter().any(|start| path.starts_with(start))
                || (!path.contains(['/', '.', '\\']) && frame.lineno.is_none() && !path.is_empty())
        }
        "java" | "kotlin" | "scala" => in_namespaces(module, JAVA_NAMESPACES),
        "csharp" | "dotnet" => in_namespaces(module, DOTNET_NAMESPACES),
        "go" => contains_any(path, GO_PATHS),
        "ruby" => contains_any(path, RUBY_PATHS) || path.starts_with("<internal:"),
        "php" => path.contains("/vendor/"),
        _ => false,
    };
    foreign.then_some(false)
}

const PYTHON_PATHS: &[&str] = &["/site-packages/", "/dist-packages/", "/lib/python"];
const JS_PATHS: &[&str] = &["/node_modules/", "webpack/bootstrap", "webpack/runtime"];
const JS_STARTS: &[&str] = &[
    "node:",
    "internal/",
    "<anonymous>",
    "[native code]",
    "native",
    "chrome-extension://",
    "moz-extension://",
    "safari-extension://",
    "safari-web-extension://",
];
const GO_PATHS: &[&str] = &[
    "/pkg/mod/",
    "/go/src/runtime/",
    "/usr/local/go/",
    "/usr/lib/go",
];
const RUBY_PATHS: &[&str] = &["/gems/", "/lib/ruby/", "/vendor/bundle/"];
const JAVA_NAMESPACES: &[&str] = &[
    "akka",
    "android",
    "androidx",
    "ch.qos.logback",
    "com.fasterxml",
    "com.sun",
    "com.zaxxer",
    "groovy",
    "io.grpc",
    "io.micronaut",
    "io.netty",
    "io.quarkus",
    "io.reactivex",
    "io.sentry",
    "io.undertow",
    "io.vertx",
    "jakarta",
    "java",
    "javax",
    "jdk",
    "kotlin",
    "kotlinx",
    "net.bytebuddy",
    "okhttp3",
    "org.apache",
    "org.eclipse.jetty",
    "org.hibernate",
    "org.jboss",
    "org.postgresql",
    "org.slf4j",
    "org.springframework",
    "play",
    "reactor",
    "scala",
    "sun",
];
const DOTNET_NAMESPACES: &[&str] = &[
    "Dapper",
    "MediatR",
    "Microsoft",
    "MySql",
    "Newtonsoft",
    "Npgsql",
    "NuGet",
    "Polly",
    "Sentry",
    "Serilog",
    "System",
];

fn contains_any(path: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| path.contains(part))
}

fn in_namespaces(module: &str, namespaces: &[&str]) -> bool {
    namespaces.iter().any(|namespace| {
        module
            .strip_prefix(namespace)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Where the toolchain, the registry and the C library have their sources.
const RUST_PATHS: &[&str] = &[
    "/rustc/",
    "/cargo/registry/",
    "/.cargo/registry/",
    "/cargo/git/",
    "/.cargo/git/",
    "/library/std/src/",
    "/library/core/src/",
    "/library/alloc/src/",
    "/sysdeps/",
    "/glibc",
];
const RUST_STARTS: &[&str] = &["/usr/", "./csu/", "./nptl/", "./misc/", "./stdlib/"];

/// Crates that are never the user's own: the standard library, runtimes, frameworks, error and
/// reporting libraries. A name that ends in `*` covers a family.
const RUST_CRATES: &[&str] = &[
    "actix*",
    "addr2line",
    "alloc",
    "anyhow",
    "async_std",
    "axum*",
    "backstop",
    "backstop_capture",
    "backtrace*",
    "bytes",
    "color_eyre",
    "core",
    "crossbeam*",
    "eyre",
    "futures*",
    "gimli",
    "h2",
    "http",
    "hyper*",
    "matchit",
    "mio",
    "object",
    "once_cell",
    "panic_abort",
    "panic_unwind",
    "parking_lot*",
    "poem",
    "proc_macro",
    "rayon*",
    "reqwest",
    "rocket",
    "rustls",
    "sentry*",
    "serde*",
    "smol",
    "sqlx*",
    "std",
    "test",
    "tokio*",
    "tonic",
    "tower*",
    "tracing*",
    "warp",
];

fn rust_in_app(function: &str, path: &str) -> Option<bool> {
    // Some clients parse printed backtraces and take the `at …` line for a function.
    if function.starts_with("at /") || function == "<unknown>" || function.starts_with("__rust") {
        return Some(false);
    }
    if contains_any(path, RUST_PATHS) || RUST_STARTS.iter().any(|start| path.starts_with(start)) {
        return Some(false);
    }
    if let Some(name) = rust_crate(function) {
        return Some(
            !RUST_CRATES
                .iter()
                .any(|known| match known.strip_suffix('*') {
                    Some(family) => name.starts_with(family),
                    None => name == *known,
                }),
        );
    }
    // A name without a crate: inlined functions have a file, symbols of the C library have none.
    if path.is_empty() {
        return (!function.is_empty()).then_some(false);
    }
    Some(true)
}

/// The crate in which a demangled function is defined; `None` for names without a path.
/// `<T as Trait>::m` belongs to the crate of `T`, or of `Trait` where `T` is a parameter.
fn rust_crate(function: &str) -> Option<&str> {
    let mut rest = function.trim_start_matches('_');
    loop {
        rest = rest.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let word_len = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_len);
        if after.starts_with("::") && !word.is_empty() {
            return Some(word);
        }
        rest = match word {
            "mut" | "const" | "dyn" | "impl" | "for" => after,
            _ => {
                after
                    .split_once(" as ")
                    .or_else(|| after.split_once("> "))?
                    .1
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, path: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            abs_path: (!path.is_empty()).then(|| path.into()),
            ..Frame::default()
        }
    }

    #[test]
    fn rust_frames() {
        let check = |function: &str, path: &str, expected| {
            let got = in_app(Some("rust"), &frame(function, path));
            assert_eq!(got, expected, "{function} {path}");
        };
        check(
            "ledger::batch::checked",
            "/srv/ledger/src/batch.rs",
            Some(true),
        );
        check(
            "checked<ledger::main::{closure_env#0}>",
            "/srv/src/batch.rs",
            Some(true),
        );
        check("{closure#0}", "/srv/ledger/src/batch.rs", Some(true));
        check(
            "call_once<fn(), ()>",
            "/rustc/5980/library/core/src/ops/function.rs",
            Some(false),
        );
        check("<unknown>", "", Some(false));
        check("main", "", Some(false));
        check("main", "/srv/ledger/src/main.rs", Some(true));
        check(
            "__libc_start_main_impl",
            "./csu/../csu/libc-start.c",
            Some(false),
        );
        check(
            "at /rustc/5980/library/std/src/panic.rs:359:14",
            "",
            Some(false),
        );
        check("sentry_panic::panic_handler", "", Some(false));
        check("<ledger::Rate as core::fmt::Display>::fmt", "", Some(true));
        check("<F as core::ops::FnOnce<()>>::call_once", "", Some(false));
        check("<&mut F as ledger::Step>::run", "", Some(true));
        check("<dyn ledger::Step>::run", "", Some(true));
        check("__rustc::rust_begin_unwind", "", Some(false));
        check(
            "from<serde_json::Error>",
            "/usr/local/cargo/registry/src/x/anyhow-1/src/lib.rs",
            Some(false),
        );
        check("", "", None);
        check("<", "", Some(false));
    }

    #[test]
    fn other_platforms() {
        let check = |platform: &str, module: &str, path: &str, expected| {
            let mut frame = frame("f", path);
            frame.module = Some(module.into());
            assert_eq!(
                in_app(Some(platform), &frame),
                expected,
                "{platform} {module} {path}"
            );
        };
        check("python", "shop", "/srv/shop/app.py", None);
        check(
            "python",
            "json",
            "/usr/local/lib/python3.12/json/decoder.py",
            Some(false),
        );
        check(
            "node",
            "router",
            "/srv/node_modules/router/index.js",
            Some(false),
        );
        check("node", "index 1", "index 1", Some(false));
        check("node", "carts", "/srv/api/carts.js", None);
        check("java", "java.util.ArrayList", "ArrayList.java", Some(false));
        check("java", "javafoo.Cart", "Cart.java", None);
        check("csharp", "System.Linq.Enumerable", "", Some(false));
        check(
            "go",
            "net/http",
            "/usr/local/go/src/net/http/server.go",
            Some(false),
        );
        check(
            "ruby",
            "",
            "/usr/lib/ruby/gems/3.3.0/gems/rack-3/lib/rack.rb",
            Some(false),
        );
        check("cobol", "", "/site-packages/", None);
    }
}
