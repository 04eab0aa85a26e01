//! What is kept, for how long, and how finely.

use backstop_protocol::Timestamp;

const MINUTE_MICROS: i64 = 60_000_000;
const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

/// Counts are kept per minute for this long, then per hour.
pub(crate) const MINUTES_KEPT: i64 = 2 * DAY;
/// Counts are kept per hour for this long, then per day for ever.
pub(crate) const HOURS_KEPT: i64 = 90 * DAY;

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
