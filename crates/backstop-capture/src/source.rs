//! Lines of source text around a place.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use crate::embed::source_text;
use crate::md5::md5;

/// Files beyond this are generated, and reading them would cost more than the lines are worth.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Lines beyond this are cut; minified text is no context.
const LINE_CHARS_MAX: usize = 400;
/// Files whose digest is remembered; a stack has few, a program a few thousand.
const DIGESTS_MAX: usize = 1 << 14;

/// The digests of files as they were compiled, from line tables that have them.
static DIGESTS: Mutex<Option<HashMap<String, [u8; 16]>>> = Mutex::new(None);

/// Remembers what a file was when it was compiled.
#[cfg_attr(
    not(any(test, all(target_os = "linux", target_arch = "x86_64"))),
    expect(dead_code, reason = "line tables are read on x86-64 Linux only")
)]
pub(crate) fn note_digest(file: &str, digest: [u8; 16]) {
    let mut digests = DIGESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let digests = digests.get_or_insert_default();
    if digests.len() < DIGESTS_MAX && !digests.contains_key(file) {
        digests.insert(file.to_owned(), digest);
    }
}

/// Says whether the text of a source file is another one than was compiled.
///
/// It is known for files of frames that were resolved, where the line tables have the digest
/// of the file: with `-Cdwarf-version=5`. Where nothing is known the answer is no.
pub fn is_stale(file: &str, text: &[u8]) -> bool {
    let digests = DIGESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = digests
        .as_ref()
        .and_then(|digests| digests.get(file).copied());
    drop(digests);
    known.is_some_and(|digest| digest != md5(text))
}

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
    /// The file was changed since the program was built, so the lines may be others.
    pub stale: bool,
}

/// Reads a line of a source file with `context` lines before and after.
///
/// Sources that are embedded in the program come first, because they are what was compiled;
/// then the file itself, marked as stale where it is known to have changed ([`is_stale`]).
/// Returns `None` when there is neither, or no such line.
pub fn source(file: &str, line: u32, context: u32) -> Option<Source> {
    if line == 0 {
        return None;
    }
    if let Some(text) = source_text(file) {
        return lines(&text, line, context, false);
    }
    let opened = File::open(file).ok()?;
    if !opened.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let stale = is_stale(file, &bytes);
    lines(&String::from_utf8_lossy(&bytes), line, context, stale)
}

fn lines(text: &str, line: u32, context: u32, stale: bool) -> Option<Source> {
    let first_line = line.saturating_sub(context).max(1);
    let last_line = line.saturating_add(context);
    let mut source = Source {
        first_line,
        stale,
        ..Source::default()
    };
    let mut found = false;
    for (number, text) in (1..=last_line).zip(text.split('\n')) {
        if number < first_line {
            continue;
        }
        let text = text
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
        let source = source(file, 4, 5).expect("this file is there");
        assert_eq!(
            (source.first_line, source.before.len(), source.after.len()),
            (1, 3, 5)
        );
        assert_eq!(source.line, "use std::fs::File;");
        assert_eq!(super::source(file, 0, 5), None);
        assert_eq!(super::source(file, 1_000_000, 5), None);
        assert_eq!(super::source("/no/such/file.rs", 1, 5), None);
    }

    #[test]
    fn a_file_that_was_changed_is_stale() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rate.rs");
        let text = include_bytes!("rate.rs");
        assert!(!is_stale(file, text), "nothing is known yet");
        note_digest(file, md5(text));
        assert!(!is_stale(file, text));
        assert!(is_stale(file, b"fn another() {}"));
        let other = concat!(env!("CARGO_MANIFEST_DIR"), "/src/frame.rs");
        note_digest(other, [7; 16]);
        assert!(is_stale(other, include_bytes!("frame.rs")));
    }
}
