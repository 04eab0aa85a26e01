//! Alert rules, and the alerts that are due.

use std::collections::BTreeSet;

use backstop_protocol::{EventId, Timestamp};
use rusqlite::{OptionalExtension, Transaction};

use super::error::{Error, ErrorKind, Fault};
use super::issue::one_issue;
use super::project::found;
use super::{Store, project_from_sql};
use crate::model::{Alert, AlertKind, AlertRule, IssueId, ProjectId};

/// A mail server that is away for three days comes back; after that somebody has to look.
const ATTEMPTS_MAX: u32 = 40;
/// Every event of a project asks every rule.
const RULES_MAX: usize = 20;
/// The first retry comes soon, the later ones every two hours.
const RETRY_FIRST_SECONDS: i64 = 10;
const RETRY_LAST_SECONDS: i64 = 7200;

const STATE_SENT: i64 = 1;
const STATE_GIVEN_UP: i64 = 2;

impl Store {
    /// Lists the alert rules of a project.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn alert_rules(&self, project: ProjectId) -> Result<Vec<AlertRule>, Error> {
        self.read(|tx| rules(tx, project))
    }

    /// Adds an alert rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a threshold of nothing or over more than a day and for more than
    /// 20 rules, [`ErrorKind::Conflict`] if the project has this rule,
    /// [`ErrorKind::NotFound`] for an unknown project.
    pub fn add_alert_rule(&self, project: ProjectId, kind: AlertKind) -> Result<AlertRule, Error> {
        // Counts per minute are kept for two days, so a day is always known exactly.
        const MINUTES_MAX: u32 = 24 * 60;
        if let AlertKind::Frequency { events, minutes } = kind
            && (events == 0 || !(1..=MINUTES_MAX).contains(&minutes))
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a threshold is at least 1 event in 1 to {MINUTES_MAX} minutes"),
            ));
        }
        self.write_known(|tx| {
            let exists = tx
                .prepare_cached("SELECT 1 FROM project WHERE id = ?")?
                .exists([project])?;
            found(usize::from(exists), "no such project")?;
            let rules = rules(tx, project)?;
            if rules.iter().any(|rule| rule.kind == kind) {
                let text = "the project has this alert already";
                return Err(Error::new(ErrorKind::Conflict, text).into());
            }
            if rules.len() >= RULES_MAX {
                let text = format!("a project has at most {RULES_MAX} alerts");
                return Err(Error::new(ErrorKind::Invalid, text).into());
            }
            Ok(AlertRule {
                id: insert_rule(tx, project, kind)?,
                project,
                kind,
                active: true,
            })
        })
    }

    /// Switches an alert rule on or off.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn set_alert_rule_active(&self, id: i64, active: bool) -> Result<(), Error> {
        self.write_known(|tx| {
            let changed = tx.execute(
                "UPDATE alert_rule SET active = ? WHERE id = ?",
                (active, id),
            )?;
            found(changed, "no such alert rule")
        })
    }

    /// Removes an alert rule of a project; mails that are waiting because of it are still sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn delete_alert_rule(&self, project: ProjectId, id: i64) -> Result<(), Error> {
        self.write_known(|tx| {
            let changed = tx.execute(
                "DELETE FROM alert_rule WHERE id = ? AND project = ?",
                (id, project),
            )?;
            found(changed, "no such alert rule")
        })
    }

    /// Returns alerts that are to be sent now, oldest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn due_alerts(&self, now: Timestamp, limit: usize) -> Result<Vec<Alert>, Error> {
        self.read(|tx| alerts(tx, DUE_ALERTS, (now.micros(), limit as i64)))
    }

    /// Returns the alerts of a mail that was planned and is not noted as sent.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn alerts_of_mail(&self, message_id: &str) -> Result<Vec<Alert>, Error> {
        self.read(|tx| alerts(tx, ALERTS_OF_MAIL, [message_id]))
    }

    /// Notes which alerts each mail is about, before any of them is sent: a mail that was sent and
    /// could not be noted as sent is sent again as it was, under the same Message-ID.
    ///
    /// # Errors
    ///
    /// If the store cannot be written; then nothing may be sent.
    pub fn plan_mails(&self, mails: &[(String, Vec<i64>)]) -> Result<(), Error> {
        if mails.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for (message_id, alerts) in mails {
                for alert in alerts {
                    tx.prepare_cached("UPDATE outbox SET mail = ? WHERE id = ? AND mail IS NULL")?
                        .execute((message_id, alert))?;
                }
            }
            Ok(())
        })
    }

    /// Returns when the next alert is due, if one is waiting.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn next_alert_at(&self) -> Result<Option<Timestamp>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached("SELECT min(next_attempt) FROM outbox WHERE state = 0")?
                .query_row([], |row| row.get::<_, Option<i64>>(0))?
                .map(Timestamp::from_micros))
        })
    }

    /// Notes that alerts were sent, so that they are never sent again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written; then they will be sent again with the same number.
    pub fn alerts_sent(&self, ids: &[i64]) -> Result<(), Error> {
        self.write(|tx| {
            for id in ids {
                tx.prepare_cached(
                    "UPDATE outbox SET state = ?, attempts = attempts + 1, error = NULL WHERE id = ?",
                )?
                .execute((STATE_SENT, id))?;
                forget_deliveries(tx, *id)?;
            }
            Ok(())
        })
    }

    /// Notes that one receiver has the mail about these alerts, while others still wait for it.
    ///
    /// # Errors
    ///
    /// If the store cannot be written; then the receiver gets the same mail again.
    pub fn alerts_delivered(&self, ids: &[i64], receiver: &str) -> Result<(), Error> {
        self.write(|tx| {
            for id in ids {
                tx.prepare_cached(
                    "INSERT INTO delivery (alert, receiver) VALUES (?, ?) ON CONFLICT DO NOTHING",
                )?
                .execute((id, receiver))?;
            }
            Ok(())
        })
    }

    /// Returns who has the mail about an alert that others still wait for.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn alert_receivers(&self, id: i64) -> Result<BTreeSet<String>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached("SELECT receiver FROM delivery WHERE alert = ?")?
                .query_map([id], |row| row.get(0))?
                .collect::<Result<_, _>>()?)
        })
    }

    /// Notes that sending failed, and when to try again; returns those that are given up.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn alerts_failed(
        &self,
        ids: &[i64],
        error: &str,
        now: Timestamp,
    ) -> Result<Vec<i64>, Error> {
        self.write(|tx| {
            let mut given_up = Vec::new();
            for id in ids {
                let attempts: Option<u32> = tx
                    .prepare_cached(
                        "UPDATE outbox SET attempts = attempts + 1, error = ? WHERE id = ? RETURNING attempts",
                    )?
                    .query_row((error, id), |row| row.get(0))
                    .optional()?;
                let Some(attempts) = attempts else { continue };
                let state = if attempts >= ATTEMPTS_MAX {
                    forget_deliveries(tx, *id)?;
                    given_up.push(*id);
                    STATE_GIVEN_UP
                } else {
                    0
                };
                tx.prepare_cached("UPDATE outbox SET state = ?, next_attempt = ? WHERE id = ?")?
                    .execute((state, now.micros() + retry_after_seconds(attempts) * 1_000_000, id))?;
            }
            Ok(given_up)
        })
    }
}

const DUE_ALERTS: &str =
    "SELECT o.id, o.kind, coalesce(r.events, 0), coalesce(r.minutes, 0), o.issue,
            o.event, o.events, o.created, o.attempts, o.mail
     FROM outbox o LEFT JOIN alert_rule r ON r.id = o.rule
     WHERE o.state = 0 AND o.next_attempt <= ? ORDER BY o.next_attempt, o.id LIMIT ?";
const ALERTS_OF_MAIL: &str =
    "SELECT o.id, o.kind, coalesce(r.events, 0), coalesce(r.minutes, 0), o.issue,
            o.event, o.events, o.created, o.attempts, o.mail
     FROM outbox o LEFT JOIN alert_rule r ON r.id = o.rule
     WHERE o.state = 0 AND o.mail = ? ORDER BY o.id";

fn alerts(
    tx: &Transaction<'_>,
    sql: &'static str,
    values: impl rusqlite::Params,
) -> Result<Vec<Alert>, Fault> {
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut alerts = Vec::new();
    while let Some(row) = rows.next()? {
        alerts.push(Alert {
            id: row.get(0)?,
            kind: kind_of_columns(row.get(1)?, row.get(2)?, row.get(3)?),
            issue: one_issue(tx, IssueId(row.get(4)?))?,
            event: EventId::from_bytes(row.get(5)?),
            count: row.get(6)?,
            created: Timestamp::from_micros(row.get(7)?),
            attempts: row.get(8)?,
            mail: row.get(9)?,
        });
    }
    Ok(alerts)
}

fn forget_deliveries(tx: &Transaction<'_>, alert: i64) -> Result<(), Fault> {
    tx.prepare_cached("DELETE FROM delivery WHERE alert = ?")?
        .execute([alert])?;
    Ok(())
}

/// Doubles from ten seconds to two hours.
fn retry_after_seconds(attempts: u32) -> i64 {
    (RETRY_FIRST_SECONDS << attempts.saturating_sub(1).min(20)).min(RETRY_LAST_SECONDS)
}

pub(super) fn rules(tx: &Transaction<'_>, project: ProjectId) -> Result<Vec<AlertRule>, Fault> {
    Ok(tx
        .prepare_cached(
            "SELECT id, project, kind, coalesce(events, 0), coalesce(minutes, 0), active
             FROM alert_rule WHERE project = ? ORDER BY id",
        )?
        .query_map([project], |row| {
            Ok(AlertRule {
                id: row.get(0)?,
                project: project_from_sql(row.get(1)?),
                kind: kind_of_columns(row.get(2)?, row.get(3)?, row.get(4)?),
                active: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

pub(super) fn insert_rule(
    tx: &Transaction<'_>,
    project: ProjectId,
    kind: AlertKind,
) -> Result<i64, Fault> {
    let (events, minutes) = match kind {
        AlertKind::Frequency { events, minutes } => (Some(events), Some(minutes)),
        AlertKind::NewIssue | AlertKind::Regression => (None, None),
    };
    // The number of a rule that was removed is still that of its alerts.
    tx.execute(
        "INSERT INTO alert_rule (id, project, kind, events, minutes)
         SELECT 1 + max(coalesce((SELECT max(id) FROM alert_rule), 0),
                        coalesce((SELECT max(rule) FROM outbox), 0)), ?, ?, ?, ?",
        (project, kind_number(kind), events, minutes),
    )?;
    Ok(tx.last_insert_rowid())
}

pub(super) fn kind_number(kind: AlertKind) -> i64 {
    match kind {
        AlertKind::NewIssue => 0,
        AlertKind::Regression => 1,
        AlertKind::Frequency { .. } => 2,
    }
}

fn kind_of_columns(kind: i64, events: u32, minutes: u32) -> AlertKind {
    match kind {
        0 => AlertKind::NewIssue,
        1 => AlertKind::Regression,
        _ => AlertKind::Frequency { events, minutes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down() {
        let waits: Vec<_> = (1..=12).map(retry_after_seconds).collect();
        assert_eq!(
            waits,
            [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 7200, 7200]
        );
        let days = (1..ATTEMPTS_MAX).map(retry_after_seconds).sum::<i64>() as f64 / 86_400.0;
        assert!((2.0..4.0).contains(&days), "{days}");
    }
}
