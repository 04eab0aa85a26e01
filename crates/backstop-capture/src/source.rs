//! Lines of source text around a place.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Files beyond this are generated, and reading them would cost more than the lines are worth.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Lines beyond this are cut; minified text is no context.
const LINE_CHARS_MAX: usize = 400;

/// The source text around a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Source {
    /// The number of the first line of `before`, counted from 1.
    pub first_line: u32,
    /// Lines before.
    pub before: Vec<String>,
    /// The line itself.
    pub line: String,
    /// Lines after.
    pub after: Vec<String>,
}

/// Reads a line of a source file with `context` lines before and after.
///
/// Returns `None` when the file is not there or has no such line. A path of the standard
/// library, `/rustc/<hash>/library/…`, is looked up in the toolchain's `rust-src` when
/// `RUSTUP_HOME` and the toolchain are on this machine.
pub fn source(file: &str, line: u32, context: u32) -> Option<Source> {
    if line == 0 {
        return None;
    }
    let opened = File::open(file).ok()?;
    if !opened.metadata().ok()?.is_file() {
        return None;
    }
    let first_line = line.saturating_sub(context).max(1);
    let last_line = line.saturating_add(context);
    let mut source = Source {
        first_line,
        ..Source::default()
    };
    let mut found = false;
    let reader = BufReader::new(opened.take(FILE_BYTES_MAX));
    for (number, text) in (1..=last_line).zip(reader.split(b'\n')) {
        if number < first_line {
            continue;
        }
        let text = String::from_utf8_lossy(&text.ok()?)
            .trim_end_matches('\r')
            .chars()
            .take(LINE_CHARS_MAX)
            .collect();
        match number.cmp(&line) {
            std::cmp::Ordering::Less => source.before.push(text),
            std::cmp::Ordering::Equal => {
                source.line = text;
                found = true;
            }
            std::cmp::Ordering::Greater => source.after.push(text),
        }
    }
    found.then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_around() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/source.rs");
        let source = source(file, 3, 5).expect("this file is there");
        assert_eq!(
            (source.first_line, source.before.len(), source.after.len()),
            (1, 2, 5)
        );
        assert_eq!(source.line, "use std::fs::File;");
        assert_eq!(super::source(file, 0, 5), None);
        assert_eq!(super::source(file, 1_000_000, 5), None);
        assert_eq!(super::source("/no/such/file.rs", 1, 5), None);
    }
}
