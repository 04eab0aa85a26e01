//! The words by which issues are found.
//!
//! An issue is found by the words of any of its events, but a word is indexed once per issue:
//! the hundred thousandth repetition of an error adds nothing.
//! A row of the index is one event's new words; its row id holds the issue and a counter.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use rusqlite::Transaction;

use super::error::Fault;
use crate::model::{IssueId, IssueQuery};

/// A longer run of letters is data, not a word.
const WORD_CHARS_MAX: usize = 40;
/// The short document has about forty words; more is somebody's text.
pub(crate) const WORDS_MAX: usize = 256;
/// An issue whose events all differ keeps the words of so many of them; older ones are overwritten.
const DOCS_BITS: u32 = 16;
/// A common word finds every issue; a list shows the first page of them anyway.
const FOUND_MAX: usize = 20_000;
/// Words remembered over all issues, four bytes each.
const KNOWN_WORDS_MAX: usize = 1_000_000;

/// The words of one event or of a search, each once.
///
/// They lie in one text, and their hashes beside it: the writer's thread asks of each word only
/// whether its issue has it, and would otherwise free sixty strings per event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    text: String,
    words: Vec<Word>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    end: u32,
    hash: u32,
}

impl Words {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.with_hashes().map(|(word, _)| word)
    }

    fn with_hashes(&self) -> impl Iterator<Item = (&str, u32)> {
        let mut from = 0;
        self.words.iter().map(move |word| {
            let to = word.end as usize;
            (&self.text[std::mem::replace(&mut from, to)..to], word.hash)
        })
    }

    /// Adds the word that stands for a tag with its value.
    pub(crate) fn push_tag(&mut self, key: &str, value: &str) {
        let word = tag_letters(key, value);
        self.text.extend(word.map(char::from));
        self.end_word(hash(word.into_iter()));
    }

    /// What was added to the text since the last word is a word.
    fn end_word(&mut self, hash: u64) {
        self.words.push(Word {
            // Sixty words of forty letters.
            end: self.text.len() as u32,
            // Both halves count; FNV mixes the upper one better.
            hash: (hash ^ hash >> 32) as u32,
        });
    }
}

/// Splits text into the words of the index and of a search, lower case, each once.
///
/// `ConnectionRefusedError` is also `connection`, `refused` and `error`.
pub(crate) fn words<'a>(texts: impl IntoIterator<Item = &'a str>) -> Words {
    let mut gathered = Gathered::default();
    for text in texts {
        if text.is_ascii() {
            // Bytes are looked at faster than characters.
            let runs = text.as_bytes().split(|byte| !byte.is_ascii_alphanumeric());
            for run in runs {
                gathered.add_run(str::from_utf8(run).unwrap_or_default());
            }
        } else {
            for run in text.split(|letter: char| !letter.is_alphanumeric()) {
                gathered.add_run(run);
            }
        }
    }
    gathered.words
}

/// The words that were found so far.
#[derive(Default)]
struct Gathered {
    words: Words,
    seen: HashSet<u64, BuildHasherDefault<Same>>,
}

impl Gathered {
    /// Adds a run of letters and digits, and its parts.
    fn add_run(&mut self, run: &str) {
        if !run.is_empty() {
            self.add(run);
            humps(run, |part| self.add(part));
        }
    }

    /// Adds a word unless it is there. Most words of an event come more than once; only new ones
    /// are kept as text.
    fn add(&mut self, word: &str) {
        let Words { text, words } = &mut self.words;
        if words.len() >= WORDS_MAX {
            return;
        }
        if word.is_ascii() {
            let letters = &word[..word.len().min(WORD_CHARS_MAX)];
            let hash = hash(letters.bytes().map(|byte| byte.to_ascii_lowercase()));
            if self.seen.insert(hash) {
                text.extend(letters.chars().map(|letter| letter.to_ascii_lowercase()));
                self.words.end_word(hash);
            }
            return;
        }
        let begin = text.len();
        let letters = word.chars().take(WORD_CHARS_MAX);
        text.extend(letters.flat_map(char::to_lowercase));
        let hash = hash(text[begin..].bytes());
        if self.seen.insert(hash) {
            self.words.end_word(hash);
        } else {
            text.truncate(begin);
        }
    }
}

/// Finds the parts of `camelCase` and `HTTPError`; nothing where there is only one.
fn humps<'t>(run: &'t str, mut found: impl FnMut(&'t str)) {
    // Most words are small letters throughout.
    if run.is_ascii() && !run.bytes().skip(1).any(|byte| byte.is_ascii_uppercase()) {
        return;
    }
    let mut start = 0;
    let mut before = None;
    let mut letters = run.char_indices().peekable();
    while let Some((at, this)) = letters.next() {
        let after = letters.peek().map(|(_, letter)| *letter);
        let begins = before.is_some_and(|before: char| {
            this.is_uppercase() && (!before.is_uppercase() || after.is_some_and(char::is_lowercase))
        });
        if begins {
            found(&run[start..at]);
            start = at;
        }
        before = Some(this);
    }
    if start > 0 {
        found(&run[start..]);
    }
}

/// The word that stands for a tag with its value.
pub(crate) fn tag_word(key: &str, value: &str) -> String {
    tag_letters(key, value).map(char::from).iter().collect()
}

/// A `t`, and sixteen hex digits.
fn tag_letters(key: &str, value: &str) -> [u8; 17] {
    let hash = hash(key.bytes().chain([0]).chain(value.bytes()));
    std::array::from_fn(|place| match place {
        0 => b't',
        _ => b"0123456789abcdef"[(hash >> (64 - 4 * place) & 15) as usize],
    })
}

/// FNV-1a, spelled out because it is part of the file format.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Which words each issue has in the index already, as far as remembered.
#[derive(Debug, Default)]
pub(super) struct KnownWords {
    words: HashMap<IssueId, HashSet<u32, BuildHasherDefault<Same>>>,
    total: usize,
}

/// The words are hashed already.
#[derive(Debug, Default)]
struct Same(u64);

impl std::hash::Hasher for Same {
    fn finish(&self) -> u64 {
        // The map's control bytes come from the high bits.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl KnownWords {
    /// Returns those words of an event that its issue did not have, separated by spaces.
    fn news(&mut self, issue: IssueId, words: &Words) -> String {
        if self.total > KNOWN_WORDS_MAX {
            *self = KnownWords::default();
        }
        let known = self.words.entry(issue).or_default();
        let mut news = String::new();
        for (word, hash) in words.with_hashes() {
            if known.insert(hash) {
                self.total += 1;
                if !news.is_empty() {
                    news.push(' ');
                }
                news.push_str(word);
            }
        }
        news
    }
}

/// Adds the new words of an event; `docs` counts the issue's rows.
pub(super) fn index(
    tx: &Transaction<'_>,
    known: &mut KnownWords,
    issue: IssueId,
    docs: &mut i64,
    words: &Words,
) -> Result<(), Fault> {
    let news = known.news(issue, words);
    if news.is_empty() {
        return Ok(());
    }
    insert(tx, issue, docs, &news)
}

/// Adds a row of words to an issue.
pub(super) fn insert(
    tx: &Transaction<'_>,
    issue: IssueId,
    docs: &mut i64,
    words: &str,
) -> Result<(), Fault> {
    let row = row_id(issue, *docs);
    if *docs >= 1 << DOCS_BITS {
        tx.prepare_cached("DELETE FROM search WHERE rowid = ?")?
            .execute([row])?;
    }
    tx.prepare_cached("INSERT INTO search (rowid, words) VALUES (?, ?)")?
        .execute((row, words))?;
    *docs += 1;
    Ok(())
}

/// Removes all rows of an issue.
pub(super) fn forget(tx: &Transaction<'_>, issue: IssueId) -> Result<(), Fault> {
    let rows = (row_id(issue, 0), row_id(issue, (1 << DOCS_BITS) - 1));
    tx.prepare_cached("DELETE FROM search WHERE rowid BETWEEN ? AND ?")?
        .execute(rows)?;
    Ok(())
}

fn row_id(issue: IssueId, docs: i64) -> i64 {
    issue.0 << DOCS_BITS | docs & ((1 << DOCS_BITS) - 1)
}

/// Finds the issues that have every word and tag of a search; `None` if it has none.
pub(super) fn find(
    tx: &Transaction<'_>,
    query: &IssueQuery,
) -> Result<Option<HashSet<i64>>, Fault> {
    let whole = words([query.text.as_str()]);
    let prefixes = whole.iter().map(|word| format!("\"{word}\" *"));
    let tags = query
        .tags
        .iter()
        .map(|(key, value)| format!("\"{}\"", tag_word(key, value)));
    let mut found: Option<HashSet<i64>> = None;
    let merged = merged(tx)?;
    // Each term alone: the words of an issue may lie in different rows.
    for term in prefixes.chain(tags) {
        let issues = issues_with(tx, &term, &merged)?;
        found = Some(match found {
            Some(before) => before.intersection(&issues).copied().collect(),
            None => issues,
        });
    }
    Ok(found)
}

/// Issues that were merged keep their rows of the index, which cannot be moved.
fn merged(tx: &Transaction<'_>) -> Result<HashMap<i64, i64>, Fault> {
    let mut statement = tx.prepare_cached("SELECT id, into_issue FROM issue_merged")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn issues_with(
    tx: &Transaction<'_>,
    term: &str,
    merged: &HashMap<i64, i64>,
) -> Result<HashSet<i64>, Fault> {
    let mut statement =
        tx.prepare_cached("SELECT rowid FROM search WHERE search MATCH ? ORDER BY rowid DESC")?;
    let mut rows = statement.query([term])?;
    let mut issues = HashSet::new();
    while let Some(row) = rows.next()? {
        let issue = row.get::<_, i64>(0)? >> DOCS_BITS;
        issues.insert(merged.get(&issue).copied().unwrap_or(issue));
        if issues.len() >= FOUND_MAX {
            break;
        }
    }
    Ok(issues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_parts() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(words([text]).iter().collect::<Vec<_>>(), expected, "{text}");
        };
        check(
            "ConnectionRefusedError: [Errno 111]",
            &[
                "connectionrefusederror",
                "connection",
                "refused",
                "error",
                "errno",
                "111",
            ],
        );
        check("HTTPError", &["httperror", "http", "error"]);
        check(
            "load_order ÄrgerÜber",
            &["load", "order", "ärgerüber", "ärger", "über"],
        );
        check("x x X", &["x"]);
    }

    #[test]
    fn a_word_is_news_once_per_issue() {
        let mut known = KnownWords::default();
        let words = words(["connection refused"]);
        assert_eq!(known.news(IssueId(1), &words), "connection refused");
        assert_eq!(known.news(IssueId(1), &words), "");
        assert_eq!(known.news(IssueId(2), &words), "connection refused");
    }

    #[test]
    fn the_word_of_a_tag_never_changes() {
        assert_eq!(tag_word("environment", "production"), "tf89b81b1ec60becd");
        assert_ne!(tag_word("a", "bc"), tag_word("ab", "c"));
    }
}
