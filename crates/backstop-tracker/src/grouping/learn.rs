//! What was learned about one project: functions that raise for everybody.
//!
//! A `require` or `check_status` raises the same error for many callers, and each caller is a
//! different bug. Nothing in a single event shows that, but the project's events do.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Sites per generation; two generations are kept, so memory stays below a megabyte.
const SITES_MAX: usize = 8192;

/// What is known about throw sites. Old knowledge makes room for new.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Learned {
    young: HashMap<u64, Callers>,
    old: HashMap<u64, Callers>,
    #[serde(skip)]
    changed: bool,
}

/// The callers of a throw site, until there are enough of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Callers {
    seen: Vec<u64>,
    is_helper: bool,
}

impl Learned {
    /// Notes that `caller` led to `site` and says whether the site is a helper by now:
    /// whether it has raised for `callers_min` different callers.
    pub(super) fn note(&mut self, site: u64, caller: u64, callers_min: usize) -> bool {
        if !self.young.contains_key(&site) {
            let known = self.old.remove(&site).unwrap_or_default();
            if self.young.len() >= SITES_MAX {
                self.old = mem::take(&mut self.young);
            }
            self.young.insert(site, known);
        }
        let callers = self.young.entry(site).or_default();
        if !callers.is_helper && !callers.seen.contains(&caller) {
            callers.seen.push(caller);
            callers.is_helper = callers.seen.len() >= callers_min;
            self.changed = true;
        }
        callers.is_helper
    }

    /// Says whether something was learned since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.changed)
    }
}

/// [`Learned::note`] behind a lock; a thread that panicked leaves nothing half done here.
pub(super) fn note(learned: &Mutex<Learned>, site: u64, caller: u64, callers_min: usize) -> bool {
    learned
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .note(site, caller, callers_min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_caller_makes_a_helper_and_it_stays_one() {
        let mut learned = Learned::default();
        assert!(!learned.note(1, 10, 2));
        assert!(!learned.note(1, 10, 2));
        assert!(learned.note(1, 11, 2));
        assert!(learned.note(1, 10, 2));
        assert!(!learned.note(2, 10, 2));
        let text = serde_json::to_vec(&learned).unwrap();
        let mut again: Learned = serde_json::from_slice(&text).unwrap();
        assert!(again.note(1, 12, 2));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut learned = Learned::default();
        learned.note(0, 1, 2);
        learned.note(0, 2, 2);
        for site in 1..10 * SITES_MAX as u64 {
            learned.note(site, 1, 2);
            if site % 1000 == 0 {
                assert!(learned.note(0, 3, 2), "{site}");
            }
        }
        assert!(learned.young.len() + learned.old.len() <= 2 * SITES_MAX);
    }
}
