//! A map that keeps what was used lately, up to so many entries.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

/// A map with room for so many entries; the one that was not used for longest makes room.
///
/// Looking something up needs no exclusive access, so that many threads can share it for reading.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: HashMap<K, Entry<V>>,
    entries_max: usize,
    uses: AtomicU64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: AtomicU64,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub(crate) fn new(entries_max: usize) -> Recent<K, V> {
        Recent {
            entries: HashMap::new(),
            entries_max,
            uses: AtomicU64::new(0),
        }
    }

    /// Returns an entry, which counts as used now.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let entry = self.entries.get(key)?;
        entry.used.store(self.tick(), Ordering::Relaxed);
        Some(&entry.value)
    }

    /// Puts an entry in; returns the one that had to make room for it.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let is_full = self.entries.len() >= self.entries_max && !self.entries.contains_key(&key);
        let gone = if is_full { self.take_oldest() } else { None };
        let used = AtomicU64::new(self.tick());
        self.entries.insert(key, Entry { value, used });
        gone
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|entry| entry.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// Looks at every entry: there are tens of them, and this happens once per new one.
    fn take_oldest(&mut self) -> Option<(K, V)> {
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
            .map(|(key, _)| *key)?;
        let entry = self.entries.remove(&oldest)?;
        Some((oldest, entry.value))
    }

    fn tick(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.insert(1, "one"), None);
        assert_eq!(recent.insert(2, "two"), None);
        assert_eq!(recent.get(&1), Some(&"one"));
        assert_eq!(recent.insert(3, "three"), Some((2, "two")));
        assert_eq!(recent.get(&2), None);
        assert_eq!(recent.insert(3, "drei"), None);
        assert_eq!(recent.get(&3), Some(&"drei"));
        assert_eq!(recent.remove(&1), Some("one"));
        assert_eq!(recent.iter().count(), 1);
    }
}
