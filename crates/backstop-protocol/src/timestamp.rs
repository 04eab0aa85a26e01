//! Points in time, as the wire writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encode::{serialize_ascii, write_ascii};

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
///
/// The wire has RFC 3339 text with or without zone and with any number of fraction digits,
/// or seconds as a number. Written as RFC 3339 in UTC with microseconds.
///
/// # Example
///
/// ```
/// use backstop_protocol::Timestamp;
///
/// let time: Timestamp = "2026-11-22T10:00:00.25+01:00".parse().unwrap();
/// assert_eq!(time.to_string(), "2026-11-22T09:00:00.250000Z");
/// assert_eq!("2026-11-22T09:00:00.25".parse(), Ok(time)); // no zone: UTC
/// assert_eq!(Timestamp::from_seconds(1_795_338_000.25), Some(time));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

/// A text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseTimestampError(());

/// The years 0001 to 9999, which RFC 3339 can write.
const MICROS_MIN: i64 = -62_135_596_800_000_000;
const MICROS_MAX: i64 = 253_402_300_799_999_999;

impl Timestamp {
    /// Makes a point in time of microseconds since 1970, cut to the years 0001 to 9999.
    pub const fn from_micros(micros: i64) -> Timestamp {
        if micros < MICROS_MIN {
            Timestamp(MICROS_MIN)
        } else if micros > MICROS_MAX {
            Timestamp(MICROS_MAX)
        } else {
            Timestamp(micros)
        }
    }

    /// Makes a point in time of seconds since 1970; `None` outside the years 0001 to 9999.
    pub fn from_seconds(seconds: f64) -> Option<Timestamp> {
        let micros = (seconds * 1e6).round();
        ((MICROS_MIN as f64)..(MICROS_MAX as f64))
            .contains(&micros)
            .then_some(Timestamp(micros as i64))
    }

    /// Returns microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns the time as it is written, in ASCII; every event has one or more.
    pub(crate) fn text(self) -> [u8; 27] {
        let seconds = self.seconds();
        let (year, month, day) = date_of_days(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (place, number) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, second / 3600),
            (14..16, second / 60 % 60),
            (17..19, second % 60),
            (20..26, self.0.rem_euclid(1_000_000)),
        ] {
            let mut rest = number;
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ascii(&self.text(), f)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Timestamp, ParseTimestampError> {
        parse(text.trim().as_bytes()).ok_or(ParseTimestampError(()))
    }
}

/// RFC 3339, section 5.6, with what clients really send: no zone, a space instead of `T`,
/// any number of fraction digits, a date alone, or seconds since 1970 as text.
fn parse(text: &[u8]) -> Option<Timestamp> {
    if text.get(4) != Some(&b'-') {
        return std::str::from_utf8(text)
            .ok()?
            .parse()
            .ok()
            .and_then(Timestamp::from_seconds);
    }
    let (year, month, day) = (
        number(text, 0, 4)?,
        number(text, 5, 7)?,
        number(text, 8, 10)?,
    );
    let days = days_of_date(year, month, day)?;
    if text.len() == 10 {
        return Some(Timestamp::from_micros(days * 86_400_000_000));
    }
    let well_formed = matches!(text[10], b'T' | b't' | b' ')
        && text.get(7) == Some(&b'-')
        && text.get(13) == Some(&b':')
        && text.get(16) == Some(&b':');
    let (hour, minute, second) = (
        number(text, 11, 13)?,
        number(text, 14, 16)?,
        number(text, 17, 19)?,
    );
    if !well_formed || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction_micros(&text[19..])?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
    Some(Timestamp::from_micros(seconds * 1_000_000 + fraction))
}

fn number(text: &[u8], from: usize, to: usize) -> Option<i64> {
    text.get(from..to)?.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Splits `.123456789Z` into microseconds and the rest.
fn fraction_micros(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let len = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let micros = (0..6).fold(0, |micros, place| {
        let digit = if place < len { digits[place] - b'0' } else { 0 };
        micros * 10 + i64::from(digit)
    });
    (len > 0).then_some((micros, &digits[len..]))
}

fn offset_seconds(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [] | b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let minutes_at = if zone.get(3) == Some(&b':') { 4 } else { 3 };
    let (hours, minutes) = (
        number(zone, 1, 3)?,
        number(zone, minutes_at, minutes_at + 2)?,
    );
    (zone.len() == minutes_at + 2 && hours < 24 && minutes < 60)
        .then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970 of a date in the Gregorian calendar, with years that begin in March.
fn days_of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day > length {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The inverse of [`days_of_date`].
fn date_of_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for ParseTimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time is RFC 3339 text or seconds since 1970")
    }
}

impl std::error::Error for ParseTimestampError {}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_ascii(&self.text(), serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Seconds(f64),
            Text(String),
        }
        let time = match Wire::deserialize(deserializer)? {
            Wire::Seconds(seconds) => Timestamp::from_seconds(seconds),
            Wire::Text(text) => text.parse().ok(),
        };
        time.ok_or_else(|| serde::de::Error::custom(ParseTimestampError(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_survives_a_round_trip() {
        for days in -200_000..200_000 {
            let (year, month, day) = date_of_days(days);
            assert_eq!(days_of_date(year, month, day), Some(days));
        }
    }

    #[test]
    fn what_clients_send() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                text.parse::<Timestamp>().unwrap().to_string(),
                expected,
                "{text}"
            );
        };
        check(
            "2026-11-22T09:00:00.123456789Z",
            "2026-11-22T09:00:00.123456Z",
        );
        check("2026-11-22T09:00:00", "2026-11-22T09:00:00.000000Z");
        check("2024-02-29 23:59:60.5-0130", "2024-03-01T01:30:00.500000Z");
        check("1795338000.5", "2026-11-22T09:00:00.500000Z");
        check("0001-01-01", "0001-01-01T00:00:00.000000Z");
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "now",
            "2023-02-29",
            "2023-13-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00+1",
            "1e300",
            "NaN",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
