//! How long a tracker does not want to hear from us.
//!
//! The rules are those of Sentry's SDKs: <https://develop.sentry.dev/sdk/expected-features/rate-limiting/>.

use std::time::{Duration, Instant, SystemTime};

use super::Answer;
use super::transport::until;

/// A 429 that does not say how long it lasts.
const DEFAULT: Duration = Duration::from_secs(60);

/// A longer pause is a mistake of the tracker's clock or configuration.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The pauses that a tracker asked for.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    errors_until: Option<Instant>,
}

impl Limits {
    /// Says whether errors are unwelcome now.
    pub(crate) fn active(&self, now: Instant) -> bool {
        self.errors_until.is_some_and(|until| now < until)
    }

    /// Takes over what an answer says.
    pub(crate) fn update(&mut self, answer: &Answer, now: Instant, wall_clock: SystemTime) {
        let asked = match &answer.rate_limits {
            Some(header) => header.split(',').filter_map(errors_limit).max(),
            None if answer.status == 429 => {
                Some(retry_after(answer, wall_clock).unwrap_or(DEFAULT))
            }
            None => None,
        };
        if let Some(pause) = asked {
            let until = now + pause.min(LONGEST);
            self.errors_until = self.errors_until.max(Some(until));
        }
    }
}

pub(crate) fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// One limit: `60:error;transaction:organization:reason`; no categories means all.
fn errors_limit(limit: &str) -> Option<Duration> {
    let mut parts = limit.trim().split(':');
    let seconds = seconds(parts.next()?)?;
    let categories = parts.next().unwrap_or_default();
    let concerns_errors = categories.is_empty()
        || categories
            .split(';')
            .any(|category| matches!(category.trim(), "error" | "default"));
    concerns_errors.then_some(seconds)
}

/// Reads `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(answer: &Answer, now: SystemTime) -> Option<Duration> {
    let text = answer.retry_after.as_deref()?.trim();
    seconds(text).or_else(|| Some(until(http_date(text)?, now)))
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds.ceil()).ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that senders may use (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, date) = text.split_once(", ")?;
    let mut parts = date.split(' ');
    let day: u8 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year: u16 = parts.next()?.parse().ok()?;
    let time = parts.next()?;
    let date: backstop_protocol::Timestamp = format!("{year:04}-{month:02}-{day:02}T{time}Z")
        .parse()
        .ok()?;
    let seconds = u64::try_from(date.seconds()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(answer: &Answer) -> Option<u64> {
        let now = Instant::now();
        let mut limits = Limits::default();
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        limits.update(answer, now, clock);
        Some((limits.errors_until? - now).as_secs())
    }

    #[test]
    fn pauses() {
        let check = |status, retry_after: Option<&str>, rate_limits: Option<&str>, expected| {
            let answer = Answer {
                status,
                retry_after: retry_after.map(str::to_owned),
                rate_limits: rate_limits.map(str::to_owned),
                detail: None,
            };
            assert_eq!(pause(&answer), expected, "{answer:?}");
        };
        check(429, Some("7"), None, Some(7));
        check(429, Some("Sun, 06 Nov 1994 08:49:37 GMT"), None, Some(30));
        check(429, Some("nonsense"), None, Some(60));
        check(429, None, None, Some(60));
        check(429, Some("99999999999"), None, Some(24 * 3600));
        check(200, None, Some("5:error:org"), Some(5));
        check(200, None, Some("5:transaction:org, 9::org"), Some(9));
        check(429, Some("3"), Some("60:replay;span:key"), None);
        check(200, Some("3"), None, None);
        check(503, Some("3"), None, None);
    }
}
