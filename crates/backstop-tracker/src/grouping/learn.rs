//! What was learned about one project, because no single event shows it.
//!
//! - Functions that raise for everybody: a `require` or `check_status` raises the same error for
//!   many callers, and each caller is a different bug.
//! - Words of messages that are data: `feed amber is stale`, `feed birch is stale`, …
//! - Packages that were renamed: the new name never appears in a release of the old one.

use std::collections::{HashMap, VecDeque};
use std::mem;

use serde::{Deserialize, Serialize};

/// Entries per generation of each kind; two generations are kept: a few megabytes at most.
const ENTRIES_MAX: usize = 8192;
/// Top level packages of a project; more of them are not told apart from renamed ones.
const PACKAGES_MAX: usize = 16;
/// Releases that are remembered for a package.
const RELEASES_MAX: usize = 64;
const PACKAGE_BYTES_MAX: usize = 80;

/// What is known about one project.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Learned {
    /// The callers of throw sites.
    callers: Seen,
    /// The words at one position of a message.
    words: Seen,
    packages: Vec<Package>,
    #[serde(skip)]
    changed: bool,
}

/// Different values of many keys. Old keys make room for new ones.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Seen {
    young: HashMap<u64, Values>,
    old: HashMap<u64, Values>,
}

/// The values of a key, until there are enough of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Values {
    seen: Vec<u64>,
    /// How many of them are other names for one of the rest.
    aliases: usize,
    enough: bool,
}

/// A top level package and the releases that it was seen in.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Package {
    name: String,
    releases: VecDeque<u64>,
}

impl Seen {
    /// Notes a value and says whether it is new, and whether there have been `enough` values.
    fn note(&mut self, key: u64, value: u64, enough: usize) -> (bool, bool) {
        self.make_young(key);
        let values = self.young.entry(key).or_default();
        let is_new = !values.enough && !values.seen.contains(&value);
        if is_new {
            values.seen.push(value);
        }
        values.enough |= values.seen.len().saturating_sub(values.aliases) >= enough;
        (is_new, values.enough)
    }

    fn make_young(&mut self, key: u64) {
        if self.young.contains_key(&key) {
            return;
        }
        let known = self.old.remove(&key).unwrap_or_default();
        if self.young.len() >= ENTRIES_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, known);
    }

    /// Notes that values stand for each other, so that they count once.
    fn note_aliases(&mut self, key: u64, value: u64, others: &[u64]) -> bool {
        const ALIASES_MAX: usize = 8;
        let values = self.young.entry(key).or_default();
        let of_group = || [value].into_iter().chain(others.iter().copied());
        let mut is_known = of_group().any(|one| values.seen.contains(&one));
        let mut is_new = false;
        for one in of_group() {
            if values.enough || values.aliases >= ALIASES_MAX || values.seen.contains(&one) {
                continue;
            }
            // The first one counts, if none of them did before.
            values.aliases += usize::from(is_known);
            values.seen.push(one);
            (is_known, is_new) = (true, true);
        }
        is_new
    }
}

impl Learned {
    /// Notes that `caller` led to `site` and says whether the site is a helper by now:
    /// whether it has raised for `callers_min` different callers.
    ///
    /// `cycle` are the other functions of a recursion that the caller began: how deep it went
    /// decides which of them is met first, so all of them are one caller.
    pub(super) fn note_caller(
        &mut self,
        site: u64,
        caller: u64,
        cycle: &[u64],
        callers_min: usize,
    ) -> bool {
        if !cycle.is_empty() {
            self.callers.make_young(site);
            self.changed |= self.callers.note_aliases(site, caller, cycle);
        }
        let (is_new, enough) = self.callers.note(site, caller, callers_min);
        self.changed |= is_new;
        enough
    }

    /// Notes a word at a position of an otherwise equal message, and says whether the position
    /// is data by now.
    pub(super) fn note_word(&mut self, position: u64, word: u64) -> bool {
        const WORDS_MIN: usize = 3;
        let (is_new, enough) = self.words.note(position, word, WORDS_MIN);
        self.changed |= is_new;
        enough
    }

    /// Notes that a position of a message is data: somebody proved it.
    pub(super) fn note_data(&mut self, position: u64) {
        const ENOUGH: usize = 1;
        let (is_new, _) = self.words.note(position, 0, ENOUGH);
        self.changed |= is_new;
    }

    /// Notes a top level package of a release and returns the name that it had before, if all
    /// speaks for a renaming: another package, and no release has both.
    pub(super) fn note_package(&mut self, name: &str, release: u64) -> Option<&str> {
        if name.len() > PACKAGE_BYTES_MAX {
            return None;
        }
        let at = self
            .packages
            .iter()
            .position(|package| package.name == name);
        let at = match at {
            Some(at) => at,
            None if self.packages.len() >= PACKAGES_MAX => return None,
            None => {
                self.packages.push(Package {
                    name: name.to_owned(),
                    releases: VecDeque::new(),
                });
                self.changed = true;
                self.packages.len() - 1
            }
        };
        let releases = &mut self.packages[at].releases;
        if !releases.contains(&release) {
            if releases.len() >= RELEASES_MAX {
                releases.pop_front();
            }
            releases.push_back(release);
            self.changed = true;
        }
        let shared = self.packages.iter().enumerate().any(|(other, package)| {
            let own = &self.packages[at].releases;
            other != at && package.releases.iter().any(|release| own.contains(release))
        });
        let former = self.packages[..at].first().filter(|_| !shared);
        former.map(|package| package.name.as_str())
    }

    /// Says whether something was learned since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.changed)
    }
}

/// A number for a list of texts, for what is only compared here (FNV-1a).
pub(super) fn number<'t>(texts: impl IntoIterator<Item = &'t str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_caller_makes_a_helper_and_it_stays_one() {
        let mut learned = Learned::default();
        assert!(!learned.note_caller(1, 10, &[], 2));
        assert!(!learned.note_caller(1, 10, &[], 2));
        assert!(learned.note_caller(1, 11, &[], 2));
        assert!(learned.note_caller(1, 10, &[], 2));
        assert!(!learned.note_caller(2, 10, &[], 2));
        let text = serde_json::to_vec(&learned).unwrap();
        let mut again: Learned = serde_json::from_slice(&text).unwrap();
        assert!(again.note_caller(1, 12, &[], 2));
    }

    #[test]
    fn what_an_older_version_learned_is_kept() {
        let old = r#"{"callers": {"young": {"1": {"seen": [10], "enough": false}}}}"#;
        let mut learned: Learned = serde_json::from_str(old).unwrap();
        assert!(learned.note_caller(1, 11, &[], 2));
        let damaged = r#"{"callers": {"young": {"1": {"seen": [], "aliases": 9}}}}"#;
        let mut learned: Learned = serde_json::from_str(damaged).unwrap();
        assert!(!learned.note_caller(1, 11, &[], 2));
    }

    #[test]
    fn the_functions_of_a_recursion_are_one_caller() {
        // Deep first, then so shallow that the recursion does not show, and the other way round.
        let mut learned = Learned::default();
        assert!(!learned.note_caller(1, 10, &[20], 2));
        assert!(!learned.note_caller(1, 20, &[], 2));
        assert!(learned.note_caller(1, 30, &[40], 2));
        let mut learned = Learned::default();
        assert!(!learned.note_caller(1, 20, &[], 2));
        assert!(!learned.note_caller(1, 10, &[20], 2));
        assert!(learned.note_caller(1, 30, &[], 2));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut seen = Seen::default();
        seen.note(0, 1, 2);
        seen.note(0, 2, 2);
        for key in 1..10 * ENTRIES_MAX as u64 {
            seen.note(key, 1, 2);
            if key % 1000 == 0 {
                assert!(seen.note(0, 3, 2).1, "{key}");
            }
        }
        assert!(seen.young.len() + seen.old.len() <= 2 * ENTRIES_MAX);
    }

    #[test]
    fn a_package_that_shares_no_release_is_the_old_one_renamed() {
        let mut learned = Learned::default();
        assert_eq!(learned.note_package("shop", 1), None);
        assert_eq!(learned.note_package("shop", 2), None);
        assert_eq!(learned.note_package("store", 3), Some("shop"));
        assert_eq!(learned.note_package("lib", 2), None);
        // Both in one release: two packages after all.
        assert_eq!(learned.note_package("shop", 3), None);
        assert_eq!(learned.note_package("store", 3), None);
    }
}
