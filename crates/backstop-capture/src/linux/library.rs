//! Values of everyday types outside of collections: times, addresses, JSON, bytes.

use super::location::Place;
use super::printers::Part;
use super::render::{LEN_MAX, Renderer, Result};
use super::ty::{Kind, Type, Variants};
use crate::{State, Value};

/// Days from the first of March of the year 0 to the first of January 1970.
const EPOCH_DAYS: i64 = 719_468;

impl Renderer<'_> {
    /// Renders a library's type that is known by its path; `None` for all others.
    pub(super) fn known_library(&mut self, part: &Part) -> Option<Result<Value>> {
        match part.ty.base.as_str() {
            "core::num::wrapping::Wrapping" | "core::num::saturating::Saturating" => {
                let inner = part.innermost();
                Some(self.transparent(inner.ty, &inner.place))
            }
            "core::net::socket_addr::SocketAddrV4" => self.socket_address(part, ["", ""]),
            "core::net::socket_addr::SocketAddrV6" => self.socket_address(part, ["[", "]"]),
            "std::time::Instant" | "std::time::SystemTime" => self.clock(part),
            "serde_json::number::Number" => {
                let number = part.field("n")?;
                let Kind::Enum(_, variants) = &number.ty.kind else {
                    return None;
                };
                self.content(&number, variants)
            }
            "serde_json::map::Map" => {
                let map = part.field("map")?;
                Some(self.transparent(map.ty, &map.place))
            }
            "tokio::sync::mutex::Mutex" | "tokio::sync::rwlock::RwLock" => {
                let data = part.field("c")?;
                let data = self.value(data.ty, &data.place);
                Some(Ok(Value::Struct {
                    name: part.ty.short().to_owned(),
                    fields: vec![("data".to_owned(), data)],
                }))
            }
            "smallvec::SmallVec" => self.small_vec(part),
            "http::status::StatusCode" => {
                let code = part.innermost();
                Some(
                    code.place
                        .uint(self.memory, 2)
                        .map(|code| Value::Formatted(code.to_string())),
                )
            }
            "http::method::Method" => self.method(part),
            "bytes::bytes::Bytes" | "bytes::bytes_mut::BytesMut" => self.bytes_of(part),
            "indexmap::map::IndexMap" => self.index_map(part),
            "indexmap::set::IndexSet" => self.index_set(part),
            "chrono::naive::date::NaiveDate" => Some(
                self.chrono_date(part)
                    .map(|date| Value::Formatted(date.to_string())),
            ),
            "chrono::naive::time::NaiveTime" => Some(
                self.chrono_time(part)
                    .map(|time| Value::Formatted(time.text())),
            ),
            "chrono::naive::datetime::NaiveDateTime" => Some(self.chrono_moment(part, 0, "")),
            "chrono::datetime::DateTime" => {
                let (moment, offset) = (part.field("datetime")?, part.field("offset")?);
                Some(match offset.ty.size {
                    0 => self.chrono_moment(&moment, 0, "Z"),
                    _ => self.number(&offset, "local_minus_utc").and_then(|seconds| {
                        self.chrono_moment(&moment, seconds, &offset_text(seconds)?)
                    }),
                })
            }
            "chrono::offset::fixed::FixedOffset" => Some(
                self.number(part, "local_minus_utc")
                    .and_then(offset_text)
                    .map(Value::Formatted),
            ),
            "chrono::offset::utc::Utc" => Some(Ok(Value::Formatted("Z".to_owned()))),
            "jiff::tz::offset::Offset" => Some(self.number(part, "span").and_then(|seconds| {
                let sign = if seconds < 0 { "-" } else { "" };
                let [hours, minutes, seconds] = clock_parts(seconds.unsigned_abs())?;
                Ok(Value::Formatted(format!(
                    "{sign}{hours:02}:{minutes:02}:{seconds:02}"
                )))
            })),
            "uuid::Uuid" => self.bytes_text(part, uuid),
            "url::Url" => {
                let text = part.field("serialization")?;
                Some(self.transparent(text.ty, &text.place))
            }
            // Its time zone may have a name, which only `jiff` can tell.
            "jiff::zoned::Zoned" => {
                let (local, offset) = (part.find("datetime")?, part.find("offset")?);
                let text = || {
                    let (date, time) = (local.field("date"), local.field("time"));
                    let (date, time) = date.zip(time).ok_or(State::Unsupported)?;
                    let offset = offset_text(self.number(&offset, "span")?)?;
                    Ok(format!(
                        "{}T{}{offset}",
                        self.date(&date)?,
                        self.time(&time)?
                    ))
                };
                Some(text().map(Value::Formatted))
            }
            "jiff::timestamp::Timestamp" => self.timestamp(part),
            "jiff::civil::date::Date" => Some(self.date(part).map(Value::Formatted)),
            "jiff::civil::time::Time" => Some(self.time(part).map(Value::Formatted)),
            "jiff::civil::datetime::DateTime" => {
                let (date, time) = (part.field("date")?, part.field("time")?);
                let text = || Ok(format!("{}T{}", self.date(&date)?, self.time(&time)?));
                Some(text().map(Value::Formatted))
            }
            _ => None,
        }
    }

    /// Renders an enum whose text is that of its content; `None` for all others.
    pub(super) fn known_enum(
        &mut self,
        part: &Part,
        variants: &'static Variants,
    ) -> Option<Result<Value>> {
        match part.ty.base.as_str() {
            "core::net::ip_addr::IpAddr"
            | "core::net::socket_addr::SocketAddr"
            | "alloc::borrow::Cow" => self.content(part, variants),
            "serde_json::value::Value" => self.json(part, variants),
            _ => None,
        }
    }

    /// The only field of the variant a value is in.
    fn content(&mut self, part: &Part, variants: &'static Variants) -> Option<Result<Value>> {
        let variant = match self.active(variants, &part.place) {
            Ok(variant) => variant,
            Err(state) => return Some(Err(state)),
        };
        let content = part.of(&variant.field)?.field("__0")?;
        Some(self.transparent(content.ty, &content.place))
    }

    /// JSON as JSON shows it, without the names of the variants.
    fn json(&mut self, part: &Part, variants: &'static Variants) -> Option<Result<Value>> {
        match self.active(variants, &part.place) {
            Ok(variant) if variant.field.name == "Null" => {
                Some(Ok(Value::Symbol("null".to_owned())))
            }
            Ok(_) => self.content(part, variants),
            Err(state) => Some(Err(state)),
        }
    }

    fn number(&self, part: &Part, name: &str) -> Result<i64> {
        let number = part.field(name).ok_or(State::Unsupported)?.innermost();
        let bits = number.place.uint(self.memory, number.ty.size.min(8))?;
        let unused = 64 - number.ty.size.clamp(1, 8) * 8;
        Ok(match number.ty.kind {
            Kind::Signed => ((bits as u64) << unused) as i64 >> unused,
            _ => bits as i64,
        })
    }

    fn socket_address(&mut self, part: &Part, [open, close]: [&str; 2]) -> Option<Result<Value>> {
        let ip = part.field("ip")?;
        let port = match self.number(part, "port") {
            Ok(port) => port,
            Err(state) => return Some(Err(state)),
        };
        Some(
            self.try_value(ip.ty, &ip.place)
                .map(|ip| Value::Formatted(format!("{open}{ip}{close}:{port}"))),
        )
    }

    fn clock(&mut self, part: &Part) -> Option<Result<Value>> {
        let (seconds, nanos) = (
            part.find("tv_sec")?.innermost(),
            part.find("tv_nsec")?.innermost(),
        );
        let seconds = self.value(seconds.ty, &seconds.place);
        let nanos = self.value(nanos.ty, &nanos.place);
        let fields = vec![
            ("tv_sec".to_owned(), seconds),
            ("tv_nsec".to_owned(), nanos),
        ];
        Some(Ok(Value::Struct {
            name: part.ty.short().to_owned(),
            fields,
        }))
    }

    fn small_vec(&mut self, part: &Part) -> Option<Result<Value>> {
        let array = part.ty.parameter("A")?;
        let Kind::Array(Some(element), inline) = &array.kind else {
            return None;
        };
        let element = element.ty();
        let data = part.field("data")?;
        let capacity = match self.number(part, "capacity") {
            Ok(capacity) => capacity as u64,
            Err(state) => return Some(Err(state)),
        };
        // While the items are inside, the capacity is their number.
        let inside = capacity <= *inline;
        let (Kind::Enum(_, variants), place) = (&data.ty.kind, &data.place) else {
            return None;
        };
        let variant = match self.active(variants, place) {
            Ok(variant) => variant,
            Err(state) => return Some(Err(state)),
        };
        let content = data.of(&variant.field)?;
        if inside != (variant.field.name == "Inline") {
            return Some(Err(State::Invalid));
        }
        if inside {
            let items = content.field("__0")?.place;
            let items = self.elements(element, capacity, |at| {
                items.add(at.saturating_mul(element.size))
            });
            return Some(Ok(Value::List {
                items,
                len: capacity,
            }));
        }
        let (pointer, len) = (content.field("ptr")?.pointer()?, content.field("len")?);
        let read = || {
            let address = pointer.place.uint(self.memory, 8)? as u64;
            let len = len.place.uint(self.memory, 8)? as u64;
            if len > capacity {
                Err(State::Invalid)
            } else {
                Ok((address, len))
            }
        };
        Some(read().and_then(|(address, len)| self.list_at(element, address, len)))
    }

    fn method(&mut self, part: &Part) -> Option<Result<Value>> {
        let inner = part.field("__0")?;
        let Kind::Enum(_, variants) = &inner.ty.kind else {
            return None;
        };
        let variant = match self.active(variants, &inner.place) {
            Ok(variant) => variant,
            Err(state) => return Some(Err(state)),
        };
        if variant.field.name.starts_with("Extension") {
            return None;
        }
        Some(Ok(Value::Formatted(variant.field.name.to_uppercase())))
    }

    fn bytes_of(&mut self, part: &Part) -> Option<Result<Value>> {
        let (pointer, len) = (part.field("ptr")?.pointer()?, part.field("len")?);
        let read = || {
            let address = pointer.place.uint(self.memory, 8)? as u64;
            let len = len.place.uint(self.memory, 8)? as u64;
            if address == 0 || len > LEN_MAX {
                Err(State::Invalid)
            } else {
                Ok((address, len))
            }
        };
        Some(read().and_then(|(address, len)| {
            let bytes = self.text_bytes(address, len)?;
            // The same words of a text are hidden in bytes.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.shown_text(text, len)?;
            Ok(Value::Formatted(format!("b\"{}\"", bytes.escape_ascii())))
        }))
    }

    fn index_map(&mut self, part: &Part) -> Option<Result<Value>> {
        let entries = part.field("core")?.field("entries")?;
        let bucket: &'static Type = entries.ty.parameter("T")?;
        let (address, len) = match self.vec_place(&entries)? {
            Ok(place) => place,
            Err(state) => return Some(Err(state)),
        };
        let mut shown = Vec::new();
        for at in 0..len.min(self.limits.items as u64) {
            let place = Place::Memory(address.wrapping_add(at.wrapping_mul(bucket.size)));
            let bucket = Part { ty: bucket, place };
            let (key, value) = (bucket.field("key")?, bucket.field("value")?);
            shown.push(self.entry(&(key.ty, key.place), &(value.ty, value.place)));
        }
        if (shown.len() as u64) < len {
            self.cut();
        }
        Some(Ok(Value::Map {
            entries: shown,
            len,
        }))
    }

    fn index_set(&mut self, part: &Part) -> Option<Result<Value>> {
        let map = self.index_map(&part.field("map")?)?;
        Some(map.map(|map| match map {
            Value::Map { entries, len } => Value::Set {
                items: entries.into_iter().map(|(key, _)| key).collect(),
                len,
            },
            other => other,
        }))
    }

    /// The year and the day of the year, in the bits of one number.
    fn chrono_date(&self, part: &Part) -> Result<Date> {
        let bits = self.number(part, "yof")?;
        Date::of_day(bits >> 13, bits >> 4 & 0x1ff).ok_or(State::Invalid)
    }

    fn chrono_time(&self, part: &Part) -> Result<ChronoTime> {
        let (seconds, nanos) = (self.number(part, "secs")?, self.number(part, "frac")?);
        // A leap second has more than a thousand million nanoseconds.
        if (0..86_400).contains(&seconds) && (0..2_000_000_000).contains(&nanos) {
            Ok(ChronoTime { seconds, nanos })
        } else {
            Err(State::Invalid)
        }
    }

    fn chrono_moment(&self, part: &Part, offset: i64, zone: &str) -> Result<Value> {
        let field = |name| part.field(name).ok_or(State::Unsupported);
        let date = self.chrono_date(&field("date")?)?;
        let mut time = self.chrono_time(&field("time")?)?;
        let local = time.seconds + offset;
        time.seconds = local.rem_euclid(86_400);
        let date = date.plus(local.div_euclid(86_400)).ok_or(State::Invalid)?;
        Ok(Value::Formatted(format!("{date}T{}{zone}", time.text())))
    }

    fn timestamp(&mut self, part: &Part) -> Option<Result<Value>> {
        let since = part.field("dur")?;
        let read = || {
            let (seconds, nanos) = (self.number(&since, "secs")?, self.number(&since, "nanos")?);
            // Before 1970 both parts are negative.
            let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            let seconds =
                i64::try_from(total.div_euclid(1_000_000_000)).map_err(|_| State::Invalid)?;
            let nanos = total.rem_euclid(1_000_000_000) as i64;
            let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
            let (year, month, day) = civil(days).ok_or(State::Invalid)?;
            let time = time_text(second / 3600, second / 60 % 60, second % 60, nanos);
            Ok(Value::Formatted(format!(
                "{year:04}-{month:02}-{day:02}T{time}Z"
            )))
        };
        Some(read())
    }

    fn date(&self, part: &Part) -> Result<String> {
        let number = |name| self.number(part, name);
        let (year, month, day) = (number("year")?, number("month")?, number("day")?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(State::Invalid);
        }
        Ok(format!("{year:04}-{month:02}-{day:02}"))
    }

    fn time(&self, part: &Part) -> Result<String> {
        let number = |name| self.number(part, name);
        let (hour, minute, second) = (number("hour")?, number("minute")?, number("second")?);
        let nanos = number("subsec_nanosecond")?;
        if hour > 23
            || minute > 59
            || second > 59
            || nanos > 999_999_999
            || hour.min(minute).min(second).min(nanos) < 0
        {
            return Err(State::Invalid);
        }
        Ok(time_text(hour, minute, second, nanos))
    }
}

fn time_text(hour: i64, minute: i64, second: i64, nanos: i64) -> String {
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if nanos > 0 {
        let fraction = format!(".{nanos:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text
}

/// A time of day as `chrono` keeps it.
struct ChronoTime {
    seconds: i64,
    nanos: i64,
}

impl ChronoTime {
    fn text(&self) -> String {
        let leap = self.nanos / 1_000_000_000;
        let nanos = self.nanos % 1_000_000_000;
        let (hour, minute) = (self.seconds / 3600, self.seconds / 60 % 60);
        let second = self.seconds % 60 + leap;
        let clock = format!("{hour:02}:{minute:02}:{second:02}");
        match nanos {
            0 => clock,
            nanos if nanos % 1_000_000 == 0 => format!("{clock}.{:03}", nanos / 1_000_000),
            nanos if nanos % 1000 == 0 => format!("{clock}.{:06}", nanos / 1000),
            nanos => format!("{clock}.{nanos:09}"),
        }
    }
}

/// A day of the calendar.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    /// Counted from 1970.
    days: i64,
}

impl Date {
    /// A day of a year, counted from 1.
    fn of_day(year: i64, day: i64) -> Option<Date> {
        const YEARS_MAX: i64 = 9_999;
        let before = year.checked_sub(1).filter(|_| year.abs() <= YEARS_MAX)?;
        // Days up to the end of the year before, less those up to the end of 1969.
        let days = before * 365 + before.div_euclid(4) - before.div_euclid(100)
            + before.div_euclid(400)
            - 719_162;
        (1..=366).contains(&day).then_some(Date {
            days: days + day - 1,
        })
    }

    fn plus(&self, days: i64) -> Option<Date> {
        let days = self.days.checked_add(days)?;
        Some(Date { days })
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = civil(self.days).ok_or(std::fmt::Error)?;
        match year {
            0..=9999 => write!(f, "{year:04}-{month:02}-{day:02}"),
            year => write!(f, "{year:+05}-{month:02}-{day:02}"),
        }
    }
}

/// `+05:30`, with seconds where there are any.
fn offset_text(seconds: i64) -> Result<String> {
    let sign = if seconds < 0 { '-' } else { '+' };
    let [hours, minutes, seconds] = clock_parts(seconds.unsigned_abs())?;
    Ok(match seconds {
        0 => format!("{sign}{hours:02}:{minutes:02}"),
        seconds => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    })
}

/// Hours, minutes and seconds of an offset, which is less than two days.
fn clock_parts(seconds: u64) -> Result<[u64; 3]> {
    if seconds >= 2 * 86_400 {
        return Err(State::Invalid);
    }
    Ok([seconds / 3600, seconds / 60 % 60, seconds % 60])
}

/// Year, month and day of a day counted from 1970; within some ten thousand years.
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    const YEARS_MAX: i64 = 12_500;
    if days.abs() > YEARS_MAX * 366 {
        return None;
    }
    // Years are counted from March here, so that a leap day is the last of its year.
    let days = days + EPOCH_DAYS;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_january = i64::from(month >= 10);
    let civil_month = if month < 10 { month + 3 } else { month - 9 };
    Some((
        era * 400 + year + in_january,
        civil_month,
        day - (153 * month + 2) / 5 + 1,
    ))
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(civil(0), Some((1970, 1, 1)));
        assert_eq!(civil(-1), Some((1969, 12, 31)));
        assert_eq!(civil(11_016), Some((2000, 2, 29)));
        assert_eq!(civil(19_675), Some((2023, 11, 14)));
        assert_eq!(civil(i64::MAX), None);
        assert_eq!(time_text(1, 2, 3, 40_000_000), "01:02:03.04");
        let day = |year, day| Date::of_day(year, day).map(|date| date.to_string());
        assert_eq!(day(1970, 1).as_deref(), Some("1970-01-01"));
        assert_eq!(day(2024, 366).as_deref(), Some("2024-12-31"));
        assert_eq!(day(1969, 59).as_deref(), Some("1969-02-28"));
        assert_eq!(day(0, 60).as_deref(), Some("0000-02-29"));
        assert_eq!(day(-1, 1).as_deref(), Some("-0001-01-01"));
        assert_eq!(
            (day(2024, 0), day(2024, 367), day(100_000, 1)),
            (None, None, None)
        );
        assert_eq!(offset_text(19_800), Ok("+05:30".to_owned()));
        assert_eq!(offset_text(-3_601), Ok("-01:00:01".to_owned()));
        let time = ChronoTime {
            seconds: 86_399,
            nanos: 1_250_000_000,
        };
        assert_eq!(time.text(), "23:59:60.250");
        assert_eq!(uuid([0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}
