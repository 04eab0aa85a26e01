//! Source maps: from a place in minified JavaScript to the place that a person wrote.
//!
//! [`bundle`] takes apart what `sentry-cli` uploads, [`map`] reads one source map, [`name`] finds
//! the original name of a function; nothing here does I/O. What is read comes from outside, so
//! every size has a limit and nothing panics.

pub(crate) mod bundle;
pub(crate) mod map;
mod name;

pub(crate) use map::{Place, SourceMap};
pub(crate) use name::Minified;

/// Resolves a reference against the address of the file that has it, as a browser does.
///
/// `~/` stands for any host, as in the addresses of uploaded files.
pub(crate) fn resolve(base: &str, reference: &str) -> String {
    let (root, path) = split_root(base);
    if split_root(reference).0.len() > usize::from(reference.starts_with('/')) {
        return reference.to_owned();
    }
    let joined = match reference.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let directory = path.rfind('/').map_or("", |at| &path[..=at]);
            format!("{directory}{reference}")
        }
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("{root}{}", parts.join("/"))
}

/// Splits an address after the slash that begins its path: `http://host/`, `webpack://shop/`,
/// `~/`, `/`.
fn split_root(url: &str) -> (&str, &str) {
    let at = match url.find("://") {
        Some(scheme) if !url[..scheme].contains('/') => {
            let host = scheme + 3;
            url[host..].find('/').map_or(url.len(), |at| host + at + 1)
        }
        _ if url.starts_with("~/") => 2,
        _ => usize::from(url.starts_with('/')),
    };
    url.split_at(at)
}

/// The addresses under which a file may have been uploaded, the most exact first.
pub(crate) fn candidates(url: &str) -> Vec<String> {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let mut candidates = vec![url.to_owned()];
    let (root, path) = split_root(plain);
    for candidate in [plain.to_owned(), format!("~/{path}")] {
        if root.len() > 1 && !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |base: &str, reference: &str, expected: &str| {
            assert_eq!(resolve(base, reference), expected, "{base} + {reference}");
        };
        check("http://h:1/a/b.js", "b.js.map", "http://h:1/a/b.js.map");
        check("http://h/b.js?v=/1", "../src/x.js", "http://h/src/x.js");
        check("http://h/a/b.js", "/x.js", "http://h/x.js");
        check("http://h/b.js", "webpack:///./x.js", "webpack:///./x.js");
        check("~/static/b.js", "./b.js.map", "~/static/b.js.map");
        check("/srv/dist/b.js", "../src/x.ts", "/srv/src/x.ts");
        check("b.js", "x.js", "x.js");
        check("http://h", "x.js", "http://hx.js");
    }

    #[test]
    fn where_a_file_may_be() {
        assert_eq!(
            candidates("https://h/a.js?v=1"),
            ["https://h/a.js?v=1", "https://h/a.js", "~/a.js"]
        );
        assert_eq!(candidates("app:///a.js"), ["app:///a.js", "~/a.js"]);
        assert_eq!(candidates("/srv/a.js"), ["/srv/a.js"]);
    }
}
