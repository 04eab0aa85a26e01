//! What is kept, for how long, and how finely.
//!
//! Counts are kept for ever and get coarser with age. Bodies live under a budget of bytes:
//! when it is exceeded, the issue with the most bodies is thinned out, so that a storm in one
//! issue never costs another issue its only example.

use backstop_protocol::Timestamp;

const MINUTE_MICROS: i64 = 60_000_000;
const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

/// Counts are kept per minute for this long, then per hour.
pub(crate) const MINUTES_KEPT: i64 = 2 * DAY;
/// Counts are kept per hour for this long, then per day for ever.
pub(crate) const HOURS_KEPT: i64 = 90 * DAY;

/// The budget of bodies where nothing else was said: it fits the smallest rented machine.
pub(crate) const BODY_BYTES_DEFAULT: u64 = 10 << 30;

/// The bodies at both ends of an issue that thinning leaves alone, most generous first.
///
/// The later pairs apply only when every issue is as small as the pair before allows.
pub(crate) const ENDS_KEPT: [Ends; 4] = [
    Ends {
        first: 10,
        latest: 20,
    },
    Ends {
        first: 2,
        latest: 3,
    },
    Ends {
        first: 0,
        latest: 1,
    },
    Ends {
        first: 0,
        latest: 0,
    },
];

/// How many bodies at both ends of an issue survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) first: i64,
    pub(crate) latest: i64,
}

impl Ends {
    /// Returns how many bodies an issue may have without being touched.
    pub(crate) fn sum(self) -> i64 {
        self.first + self.latest
    }
}

/// Says whether thinning an issue for the `level`th time deletes the body of its `number`th
/// event, which lies before the latest ones.
///
/// Every level deletes every other body that is left: what survives is every second, fourth,
/// eighth event, so that the sample stays even over the life of the issue.
pub(crate) fn evict(number: i64, level: u32, ends: Ends) -> bool {
    number > ends.first && number.trailing_zeros() < level
}

/// Returns the minute since 1970 at which the bucket of an event begins.
///
/// An event older than the fine buckets goes straight into a coarse one.
pub(crate) fn bucket_start(time: Timestamp, now: Timestamp) -> i64 {
    let minute = minute_of(time);
    let age = minute_of(now) - minute;
    let width = match age {
        ..MINUTES_KEPT => 1,
        MINUTES_KEPT..HOURS_KEPT => HOUR,
        _ => DAY,
    };
    minute.div_euclid(width) * width
}

/// Returns the minute since 1970.
pub(crate) fn minute_of(time: Timestamp) -> i64 {
    time.micros().div_euclid(MINUTE_MICROS)
}

/// Returns the day since 1970.
pub(crate) fn day_of(time: Timestamp) -> i64 {
    minute_of(time).div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_halves_what_lies_between() {
        let kept = |level| -> Vec<i64> {
            (1..=32)
                .filter(|number| {
                    !evict(
                        *number,
                        level,
                        Ends {
                            first: 3,
                            latest: 0,
                        },
                    )
                })
                .collect()
        };
        assert_eq!(kept(0).len(), 32);
        assert_eq!(kept(2), [1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32]);
        assert_eq!(kept(4), [1, 2, 3, 16, 32]);
    }

    #[test]
    fn older_events_go_into_coarser_buckets() {
        let at = |minute: i64| Timestamp::from_micros(minute * MINUTE_MICROS + 1);
        let now = at(1_000_000);
        assert_eq!(bucket_start(now, now), 1_000_000);
        assert_eq!(bucket_start(at(1_000_005), now), 1_000_005);
        assert_eq!(bucket_start(at(1_000_000 - MINUTES_KEPT), now), 997_080);
        assert_eq!(bucket_start(at(1_000_000 - HOURS_KEPT), now), 869_760);
        assert_eq!(869_760 % DAY, 0);
    }
}
