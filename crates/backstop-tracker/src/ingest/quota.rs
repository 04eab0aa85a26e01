//! How many events a project and its keys may send.
//!
//! Windows are the minutes of the clock and the months of the calendar, in UTC.
//! Time comes in as an argument; the counts of the month so far come from the store, once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use backstop_protocol::Timestamp;

use super::settings::Settings;
use crate::model::{Key, ProjectId};

/// Projects and keys whose windows are kept; only those with quotas have one.
const WINDOWS_MAX: usize = 100_000;
/// A client that is over a monthly quota asks again after this time, because quotas can be raised.
const MONTH_RETRY_MAX_S: u64 = 3_600;

/// A quota is used up: which, and when to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) quota: &'static str,
    pub(super) scope: &'static str,
    pub(super) retry_after_s: u64,
}

/// The events that were counted against quotas.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<HashMap<Owner, Windows>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Project(ProjectId),
    Key(Key),
}

#[derive(Debug, Clone, Copy, Default)]
struct Windows {
    minute: i64,
    in_minute: u64,
    month: i64,
    in_month: u64,
    new_issues: u64,
}

impl Quotas {
    /// Says whether the month's counts must be read from the store first.
    pub(super) fn is_unknown(
        &self,
        project: ProjectId,
        key: Key,
        settings: &Settings,
        now: Timestamp,
    ) -> bool {
        if settings.quota.per_month.is_none() && settings.key_quota.per_month.is_none() {
            return false;
        }
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |owner| {
            windows
                .get(&owner)
                .is_some_and(|windows: &Windows| windows.month == month_of(now))
        };
        !(known(Owner::Project(project)) && known(Owner::Key(key)))
    }

    /// Takes over the month's counts so far.
    pub(super) fn learn(
        &self,
        project: ProjectId,
        key: Key,
        now: Timestamp,
        of_project: u64,
        of_key: u64,
    ) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (owner, count) in [
            (Owner::Project(project), of_project),
            (Owner::Key(key), of_key),
        ] {
            let window = windows.entry(owner).or_default();
            if window.month != month_of(now) {
                window.month = month_of(now);
                window.in_month = count;
            }
        }
    }

    /// Counts an event, unless a quota is used up.
    pub(super) fn take(
        &self,
        project: ProjectId,
        key: Key,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<(), Exceeded> {
        let owners = [
            (Owner::Key(key), settings.key_quota, "key"),
            (Owner::Project(project), settings.quota, "project"),
        ];
        if owners
            .iter()
            .all(|(_, quota, _)| *quota == super::settings::Quota::default())
        {
            return Ok(());
        }
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() > WINDOWS_MAX {
            windows.clear();
        }
        for (owner, quota, scope) in owners {
            let window = windows.entry(owner).or_default();
            window.turn(now);
            let full = |used: u64, quota: Option<u64>| quota.is_some_and(|quota| used >= quota);
            if full(window.in_month, quota.per_month) {
                let quota = if scope == "key" {
                    "key_month"
                } else {
                    "project_month"
                };
                let retry_after_s = MONTH_RETRY_MAX_S.min(seconds_to_next_month(now));
                return Err(Exceeded {
                    quota,
                    scope,
                    retry_after_s,
                });
            }
            if full(window.in_minute, quota.per_minute) {
                let quota = if scope == "key" {
                    "key_minute"
                } else {
                    "project_minute"
                };
                let retry_after_s = 60 - now.seconds().rem_euclid(60) as u64;
                return Err(Exceeded {
                    quota,
                    scope,
                    retry_after_s,
                });
            }
        }
        for (owner, ..) in owners {
            let window = windows.entry(owner).or_default();
            window.in_minute += 1;
            window.in_month += 1;
        }
        Ok(())
    }

    /// Says whether one more first event of a new issue may pass a quota that is used up.
    pub(super) fn may_be_new(
        &self,
        project: ProjectId,
        settings: &Settings,
        now: Timestamp,
    ) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(Owner::Project(project)).or_default();
        window.turn(now);
        window.new_issues < settings.new_issues_per_minute.0
    }

    /// Counts such an event.
    pub(super) fn take_new(&self, project: ProjectId, now: Timestamp) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(Owner::Project(project)).or_default();
        window.turn(now);
        window.new_issues += 1;
        window.in_month += 1;
    }
}

impl Windows {
    /// Begins new windows where the old ones are over. A month that is not known yet starts at 0,
    /// until it is learnt.
    fn turn(&mut self, now: Timestamp) {
        let minute = now.seconds().div_euclid(60);
        if self.minute != minute {
            self.minute = minute;
            self.in_minute = 0;
            self.new_issues = 0;
        }
        if self.month != month_of(now) {
            self.month = month_of(now);
            self.in_month = 0;
        }
    }
}

/// Returns a number that is the same for all times of a month: the text `2026-11` as a number.
fn month_of(now: Timestamp) -> i64 {
    let text = now.to_string();
    let digits = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    digits(0..4).unwrap_or(0) * 12 + digits(5..7).unwrap_or(0)
}

/// Returns when the month of a time began.
pub(super) fn month_start(now: Timestamp) -> Timestamp {
    let text = now.to_string();
    let first = format!("{}-01", &text[..7]);
    first.parse().unwrap_or(now)
}

fn seconds_to_next_month(now: Timestamp) -> u64 {
    let mut later = month_start(now);
    // The 1st plus 31 days is in the next month, whatever this one's length.
    later = month_start(Timestamp::from_micros(later.micros() + 31 * 86_400_000_000));
    u64::try_from(later.seconds() - now.seconds())
        .unwrap_or(0)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: ProjectId = ProjectId(1);
    const KEY: Key = Key([1; 16]);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn settings(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    #[test]
    fn minutes() {
        let quotas = Quotas::default();
        let settings = settings(r#"{"quota": {"per_minute": 2}}"#);
        let take = |now: &str| quotas.take(PROJECT, KEY, &settings, at(now));
        assert_eq!(take("2026-11-22T10:00:10Z"), Ok(()));
        assert_eq!(take("2026-11-22T10:00:20Z"), Ok(()));
        let exceeded = take("2026-11-22T10:00:45Z").unwrap_err();
        assert_eq!(
            (exceeded.quota, exceeded.retry_after_s),
            ("project_minute", 15)
        );
        assert_eq!(take("2026-11-22T10:01:00Z"), Ok(()));
    }

    #[test]
    fn months_and_keys() {
        let quotas = Quotas::default();
        let settings = settings(r#"{"quota": {"per_month": 5}, "key_quota": {"per_month": 2}}"#);
        let now = at("2026-12-31T23:59:00Z");
        assert!(quotas.is_unknown(PROJECT, KEY, &settings, now));
        quotas.learn(PROJECT, KEY, now, 1, 1);
        assert!(!quotas.is_unknown(PROJECT, KEY, &settings, now));
        assert_eq!(quotas.take(PROJECT, KEY, &settings, now), Ok(()));
        let exceeded = quotas.take(PROJECT, KEY, &settings, now).unwrap_err();
        assert_eq!(
            (exceeded.quota, exceeded.scope, exceeded.retry_after_s),
            ("key_month", "key", 60)
        );
        let other = Key([2; 16]);
        for _ in 0..2 {
            assert_eq!(quotas.take(PROJECT, other, &settings, now), Ok(()));
        }
        assert_eq!(
            quotas.take(PROJECT, KEY, &settings, at("2027-01-01T00:00:00Z")),
            Ok(())
        );
    }

    #[test]
    fn new_issues_pass() {
        let quotas = Quotas::default();
        let settings = settings(r#"{"quota": {"per_minute": 0}, "new_issues_per_minute": 1}"#);
        let now = at("2026-11-22T10:00:10Z");
        assert!(quotas.take(PROJECT, KEY, &settings, now).is_err());
        assert!(quotas.may_be_new(PROJECT, &settings, now));
        quotas.take_new(PROJECT, now);
        assert!(!quotas.may_be_new(PROJECT, &settings, now));
        assert!(quotas.may_be_new(PROJECT, &settings, at("2026-11-22T10:01:10Z")));
    }

    #[test]
    fn calendar() {
        assert_eq!(month_start(at("2026-02-28T10:00:00Z")), at("2026-02-01"));
        assert_eq!(seconds_to_next_month(at("2026-02-28T23:59:59Z")), 1);
        assert_eq!(
            seconds_to_next_month(at("2026-01-01T00:00:00Z")),
            31 * 86_400
        );
    }
}
