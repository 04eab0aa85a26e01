//! How often values are taken at one place.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::Limits;

/// Places that are counted apart; two that share a slot share its allowance.
const SLOTS: usize = 1024;
/// Bits of a slot that hold the count; the others hold the second.
const COUNT_BITS: u32 = 24;

static TAKEN: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// Whether values may be taken once more in this second by a stack of these addresses.
pub(crate) fn allows(addresses: impl Iterator<Item = u64>, limits: &Limits) -> bool {
    static START: OnceLock<Instant> = OnceLock::new();
    let mut hasher = DefaultHasher::new();
    addresses.for_each(|address| address.hash(&mut hasher));
    let slot = hasher.finish() as usize % SLOTS;
    let second = START.get_or_init(Instant::now).elapsed().as_secs();
    count(&TAKEN[slot], second) <= u64::from(limits.per_place_per_second)
}

/// Counts once more in a second and returns the count.
fn count(slot: &AtomicU64, second: u64) -> u64 {
    let next = |state: u64| {
        let taken = if state >> COUNT_BITS == second {
            state & ((1 << COUNT_BITS) - 1)
        } else {
            0
        };
        let taken = (taken + 1).min((1 << COUNT_BITS) - 1);
        Some(second << COUNT_BITS | taken)
    };
    // The update never refuses; both results are the state before it.
    let (Ok(before) | Err(before)) = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    next(before).map_or(0, |state| state & ((1 << COUNT_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_own_count() {
        let slot = AtomicU64::new(0);
        assert_eq!(
            [count(&slot, 0), count(&slot, 0), count(&slot, 0)],
            [1, 2, 3]
        );
        assert_eq!([count(&slot, 7), count(&slot, 7)], [1, 2]);
    }

    #[test]
    fn places_are_limited() {
        let limits = Limits {
            per_place_per_second: 0,
            ..Limits::default()
        };
        assert!(!allows([1, 2].into_iter(), &limits));
        assert!(allows([3, 4].into_iter(), &Limits::default()));
    }
}
