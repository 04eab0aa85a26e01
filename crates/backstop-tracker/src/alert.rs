//! Who is told of what an event did to an issue.
//!
//! [`due`] decides; the digest calls it inside the transaction that counts the events and
//! writes what is due beside them, so that an alert is neither lost nor doubled.
//! Sending, merging and retrying is the business of whoever drains the outbox.

use backstop_protocol::Timestamp;

use crate::model::{AlertKind, AlertRule, Status};

/// What a batch of events did to one issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The issue was not there before.
    pub(crate) created: bool,
    /// The issue was resolved before.
    pub(crate) regressed: bool,
    /// The status after the batch.
    pub(crate) status: Status,
    /// When the latest event of the batch arrived.
    pub(crate) now: Timestamp,
}

/// What is known about the past of an issue; asked only where a rule needs it.
pub(crate) trait History {
    /// What can go wrong while asking.
    type Error;

    /// Says whether there were at least so many events in the last so many minutes.
    fn reaches(&mut self, events: u32, minutes: u32) -> Result<bool, Self::Error>;

    /// Returns when this rule last told about the issue.
    fn last_told(&mut self, rule: &AlertRule) -> Result<Option<Timestamp>, Self::Error>;
}

/// Returns the rules by which people are told now.
///
/// A muted issue is silent. A frequency rule tells once, and again after its time has passed
/// if there are still as many events.
pub(crate) fn due<H: History>(
    rules: &[AlertRule],
    change: Change,
    history: &mut H,
) -> Result<Vec<AlertRule>, H::Error> {
    let mut due = Vec::new();
    if change.status == Status::Muted {
        return Ok(due);
    }
    for rule in rules.iter().filter(|rule| rule.active) {
        let tells = match rule.kind {
            AlertKind::NewIssue => change.created,
            AlertKind::Regression => change.regressed,
            AlertKind::Frequency { events, minutes } => {
                let quiet_until = minutes_before(change.now, minutes);
                let told = history.last_told(rule)?;
                told.is_none_or(|told| told.micros() <= quiet_until)
                    && history.reaches(events, minutes)?
            }
        };
        if tells {
            due.push(*rule);
        }
    }
    Ok(due)
}

fn minutes_before(now: Timestamp, minutes: u32) -> i64 {
    now.micros() - i64::from(minutes) * 60_000_000
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::model::ProjectId;

    struct Past {
        events: u64,
        told_minute: Option<i64>,
    }

    impl History for Past {
        type Error = Infallible;

        fn reaches(&mut self, events: u32, _minutes: u32) -> Result<bool, Infallible> {
            Ok(self.events >= u64::from(events))
        }

        fn last_told(&mut self, _rule: &AlertRule) -> Result<Option<Timestamp>, Infallible> {
            Ok(self.told_minute.map(minute))
        }
    }

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_micros(minute * 60_000_000)
    }

    fn check(change: Change, mut past: Past, expected: &[i64]) {
        let kinds = [
            AlertKind::NewIssue,
            AlertKind::Regression,
            AlertKind::Frequency {
                events: 10,
                minutes: 5,
            },
        ];
        let rules: Vec<_> = (1..)
            .zip(kinds)
            .map(|(id, kind)| AlertRule {
                id,
                project: ProjectId(1),
                kind,
                active: true,
            })
            .collect();
        let Ok(due) = due(&rules, change, &mut past);
        let ids: Vec<_> = due.iter().map(|rule| rule.id).collect();
        assert_eq!(ids, expected);
    }

    const QUIET: Change = Change {
        created: false,
        regressed: false,
        status: Status::Unresolved,
        now: Timestamp::from_micros(100 * 60_000_000),
    };

    fn past(events: u64, told_minute: Option<i64>) -> Past {
        Past {
            events,
            told_minute,
        }
    }

    #[test]
    fn each_rule_tells_of_its_own_kind() {
        check(QUIET, past(1, None), &[]);
        let created = Change {
            created: true,
            ..QUIET
        };
        check(created, past(1, None), &[1]);
        let regressed = Change {
            regressed: true,
            ..QUIET
        };
        check(regressed, past(9, None), &[2]);
        check(created, past(10, None), &[1, 3]);
    }

    #[test]
    fn a_threshold_tells_once_per_its_time() {
        check(QUIET, past(10, None), &[3]);
        check(QUIET, past(10, Some(96)), &[]);
        check(QUIET, past(10, Some(95)), &[3]);
        check(QUIET, past(9, Some(1)), &[]);
    }

    #[test]
    fn a_muted_issue_is_silent() {
        let muted = Change {
            status: Status::Muted,
            regressed: true,
            ..QUIET
        };
        check(muted, past(99, None), &[]);
    }
}
