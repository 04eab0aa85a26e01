//! Which library a frame belongs to, in the word its users know.

use backstop_protocol::Frame;

/// Returns the short name of a frame's library: `tokio`, `flask`, `express`, `std`.
pub(super) fn name(platform: Option<&str>, frame: &Frame) -> Option<String> {
    let path = frame.abs_path.as_deref().or(frame.filename.as_deref());
    let path = path.unwrap_or_default().replace('\\', "/");
    by_path(&path)
        .or_else(|| by_language(platform, frame, &path))
        .filter(|name| !name.is_empty())
}

fn by_path(path: &str) -> Option<String> {
    // Cargo: …/registry/src/index.crates.io-…/tokio-1.54.1/src/….
    if let Some(rest) = after(path, "/registry/src/") {
        let package = rest.split('/').nth(1)?;
        return Some(without_version(package).to_owned());
    }
    if let Some(rest) = after(path, "/git/checkouts/") {
        let package = rest.split('/').next()?;
        return Some(
            package
                .rsplit_once('-')
                .map_or(package, |(name, _)| name)
                .to_owned(),
        );
    }
    if path.starts_with("/rustc/") || path.contains("/rustlib/src/rust/") {
        let after_library = after(path, "/library/")?;
        return after_library.split('/').next().map(str::to_owned);
    }
    for folder in ["/site-packages/", "/dist-packages/"] {
        if let Some(rest) = after(path, folder) {
            return rest
                .split('/')
                .next()
                .map(|name| name.trim_end_matches(".py").to_owned());
        }
    }
    if let Some(rest) = after(path, "/node_modules/") {
        let mut parts = rest.split('/');
        let first = parts.next()?;
        return match first.starts_with('@') {
            true => Some(format!("{first}/{}", parts.next()?)),
            false => Some(first.to_owned()),
        };
    }
    if let Some(rest) = after(path, "/pkg/mod/") {
        let module = rest.split('@').next()?;
        return module.rsplit('/').next().map(str::to_owned);
    }
    if let Some(rest) = after(path, "/gems/") {
        let gem = rest.split('/').next()?;
        return Some(without_version(gem).to_owned());
    }
    if path.contains("/lib/python") || path.starts_with("<frozen ") {
        return Some("Python".to_owned());
    }
    if path.starts_with("node:") || path.starts_with("internal/") {
        return Some("Node".to_owned());
    }
    None
}

fn by_language(platform: Option<&str>, frame: &Frame, path: &str) -> Option<String> {
    let function = frame.function.as_deref().unwrap_or_default();
    let module = frame.module.as_deref().unwrap_or_default();
    match platform.unwrap_or_default() {
        "rust" | "native" => {
            let path = function.trim_start_matches(['<', '&', '*', ' ']);
            let (root, _) = path.split_once("::")?;
            let root = root.rsplit(' ').next()?;
            let plain =
                !root.is_empty() && root.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            plain.then(|| root.to_owned())
        }
        "java" | "kotlin" | "scala" => {
            let parts: Vec<&str> = module.split('.').take(3).collect();
            let known_root = ["java", "javax", "jdk", "sun", "kotlin"].contains(&parts[0]);
            Some(match known_root {
                true => parts[0].to_owned(),
                false => parts.join("."),
            })
        }
        "ruby" if path.contains("/lib/ruby/") => Some("Ruby".to_owned()),
        "go" => frame
            .module
            .as_deref()
            .map(|module| module.rsplit('/').next().unwrap_or(module).to_owned()),
        _ => module
            .split(['.', ':', '/', '\\'])
            .next()
            .map(str::to_owned),
    }
}

fn after<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    path.rfind(folder).map(|at| &path[at + folder.len()..])
}

/// `hyper-util-0.1.21` is `hyper-util`.
fn without_version(package: &str) -> &str {
    let is_version = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    package
        .match_indices('-')
        .find(|(at, _)| is_version(&package[at + 1..]))
        .map_or(package, |(at, _)| &package[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_many_languages() {
        let check = |platform: &str, path: &str, function: &str, module: &str, expected: &str| {
            let frame = Frame {
                abs_path: (!path.is_empty()).then(|| path.to_owned()),
                function: Some(function.to_owned()),
                module: Some(module.to_owned()),
                ..Frame::default()
            };
            let found = name(Some(platform), &frame).unwrap_or_default();
            assert_eq!(found, expected, "{path} {function} {module}");
        };
        let cargo = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        check(
            "rust",
            &format!("{cargo}/hyper-util-0.1.21/src/a.rs"),
            "",
            "",
            "hyper-util",
        );
        check(
            "rust",
            "/rustc/abc/library/core/src/ops/function.rs",
            "",
            "",
            "core",
        );
        check(
            "rust",
            "",
            "<tokio::runtime::Runtime as core::Future>::poll",
            "",
            "tokio",
        );
        check(
            "python",
            "/v/lib/python3.11/site-packages/flask/app.py",
            "f",
            "flask.app",
            "flask",
        );
        check(
            "python",
            "/usr/lib/python3.11/json/decoder.py",
            "f",
            "json",
            "Python",
        );
        check(
            "node",
            "/app/node_modules/@nestjs/core/router.js",
            "f",
            "",
            "@nestjs/core",
        );
        check("node", "node:internal/process/task_queues", "f", "", "Node");
        check(
            "java",
            "",
            "run",
            "org.springframework.web.Servlet",
            "org.springframework.web",
        );
        check(
            "go",
            "/root/go/pkg/mod/github.com/gin-gonic/gin@v1.9.1/context.go",
            "Next",
            "",
            "gin",
        );
        check(
            "ruby",
            "/gems/activerecord-7.0.1/lib/a.rb",
            "find",
            "",
            "activerecord",
        );
        check("other", "", "", "", "");
    }
}
