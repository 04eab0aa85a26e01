//! What is done beside the events: thinning bodies, rolling up counts, dropping old ids.
//!
//! Each step is one small transaction of the same writer, so that events never wait long.

use std::sync::Arc;

use backstop_protocol::{EventId, Timestamp};
use rusqlite::{OptionalExtension, Transaction};

use super::error::{Error, Fault};
use super::{FILE, Store, generation, project_from_sql};
use crate::codec::Dictionary;
use crate::metrics::Gauge;
use crate::model::{IssueId, ProjectId};
use crate::retention::{ENDS_KEPT, Ends, HOURS_KEPT, MINUTES_KEPT, day_of, evict, minute_of};
use crate::training::Samples;

/// Bodies looked at in one transaction; about five milliseconds.
const THINNED_MAX: usize = 500;
/// Issues whose counts are rolled up in one transaction.
const ROLLED_MAX: i64 = 100;
/// Sent alerts are kept for a month, to answer "was I told?".
const ALERTS_KEPT_MICROS: i64 = 30 * 86_400_000_000;
const ALERTS_DROPPED_MAX: i64 = 500;

/// A dictionary from fewer events knows too little.
const TRAINING_EVENTS_MIN: i64 = 200;
/// A project has outgrown its dictionary when it has this many times the events.
const TRAINING_GROWTH: i64 = 10;
/// More samples take longer than they gain; memory for training is about three times this.
const TRAINING_BYTES_MAX: usize = 8 << 20;
const TRAINING_ISSUES_MAX: usize = 300;
/// Bodies of an issue, if there are few issues; more of the same say nothing new.
const TRAINING_PER_ISSUE_MAX: usize = 30;
/// An issue with so many times the events of others is a storm.
const STORM: i64 = 8;
/// So many bodies of it are taken at least, because what one body has alone is of no use.
const STORM_BODIES_MIN: usize = 6;
/// Of so many bodies the last is put aside to judge by.
const PUT_ASIDE: usize = 6;
/// Larger bodies would leave no room for others.
const SAMPLE_BYTES_MAX: usize = TRAINING_BYTES_MAX / 8;
/// Half as much again saves three hundredths of bodies of 12 kB and a fifth of those of 27 kB, and
/// takes as much more memory of each project.
const DICTIONARY_BYTES_MAX: usize = 128 << 10;

const MINUTE: i64 = 1;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

impl Store {
    /// Does one step of whatever is due; returns whether there is more to do.
    ///
    /// # Errors
    ///
    /// If the store cannot be written; nothing is lost by that, and the next call tries again.
    pub(crate) fn maintain(&self, now: Timestamp) -> Result<bool, Error> {
        let thinned = self.thin()?;
        let shrunk = self.shrink_ids()?;
        let rolled = self.roll_up(now)?;
        let dropped = self.drop_sent_alerts(now)?;
        Ok(thinned || shrunk || rolled || dropped)
    }

    /// Drops some ids past the window.
    fn shrink_ids(&self) -> Result<bool, Error> {
        let mut writer = self.0.writer.lock();
        Ok(writer.transaction(|tx, caches| {
            let shrunk = generation::shrink(tx)?;
            if shrunk {
                // The slot that became free is needed for the next day.
                caches.forget_generations();
            }
            Ok(shrunk)
        })?)
    }

    /// Says whether the log may be merged beside the writer.
    pub(crate) fn merges_log_aside(&self) -> bool {
        self.0.merge_log_aside
    }

    /// Moves what nobody reads any more from the log into the file, while others write.
    pub(crate) fn merge_log(&self) -> Result<(), Error> {
        let connection = self.0.opening.reader()?;
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(Fault::from)?;
        Ok(())
    }

    /// Deletes some bodies if they exceed the budget.
    fn thin(&self) -> Result<bool, Error> {
        let body_bytes_max = self.0.body_bytes_max;
        let victim = self.read(|tx| {
            let bytes: u64 = statistic(tx, "body_bytes")?.max(0) as u64;
            if bytes <= body_bytes_max {
                return Ok(None);
            }
            for ends in ENDS_KEPT {
                if let Some(issue) = fullest_issue(tx, ends)? {
                    return Ok(Some((issue, ends)));
                }
            }
            Ok(None)
        })?;
        let Some((issue, ends)) = victim else {
            return Ok(false);
        };
        self.write(|tx| thin_issue(tx, issue, ends))?;
        Ok(true)
    }

    /// Merges the counts of some issues into coarser buckets, once a day.
    fn roll_up(&self, now: Timestamp) -> Result<bool, Error> {
        let today = day_of(now);
        let is_due = self.read(|tx| Ok(statistic(tx, "rolled_day")? != today))?;
        if !is_due {
            return Ok(false);
        }
        self.write(|tx| {
            let from = statistic(tx, "rolled_issue")?;
            let to = from + ROLLED_MAX;
            for (width, kept) in [(HOUR, MINUTES_KEPT), (DAY, HOURS_KEPT)] {
                let before = (minute_of(now) - kept).div_euclid(width) * width;
                roll_issues(tx, from, to, width, before)?;
            }
            let last: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM issue", [], |row| {
                row.get(0)
            })?;
            if to <= last {
                set_statistic(tx, "rolled_issue", to)?;
                return Ok(());
            }
            for (width, kept) in [(HOUR, MINUTES_KEPT), (DAY, HOURS_KEPT)] {
                let before = (minute_of(now) - kept).div_euclid(width) * width;
                roll_projects(tx, width, before)?;
            }
            set_statistic(tx, "rolled_issue", 0)?;
            set_statistic(tx, "rolled_day", today)
        })?;
        Ok(true)
    }

    fn drop_sent_alerts(&self, now: Timestamp) -> Result<bool, Error> {
        const OLD: &str = "state <> 0 AND created < ?";
        let before = now.micros() - ALERTS_KEPT_MICROS;
        let some = self.read(|tx| {
            Ok(tx
                .prepare_cached(&format!("SELECT 1 FROM outbox WHERE {OLD}"))?
                .exists([before])?)
        })?;
        if !some {
            return Ok(false);
        }
        self.write(|tx| {
            tx.prepare_cached(&format!(
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE {OLD} LIMIT {ALERTS_DROPPED_MAX})"
            ))?
            .execute([before])?;
            Ok(())
        })?;
        Ok(true)
    }

    /// Reads the dictionary with which new bodies of a project are packed.
    pub(crate) fn latest_dictionary(
        &self,
        project: ProjectId,
    ) -> Result<Option<Arc<Dictionary>>, Error> {
        let id = self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT max(id) FROM dictionary WHERE project = ? AND length(bytes) > 0",
                )?
                .query_row([project], |row| row.get::<_, Option<u32>>(0))?)
        })?;
        id.map(|id| self.dictionary(id)).transpose()
    }

    /// Returns the sizes of the store, as far as they can be read now.
    pub(crate) fn gauges(&self) -> Vec<Gauge> {
        let file = |name: &str| {
            let path = self.0.directory.join(name);
            std::fs::metadata(path).map_or(0, |metadata| metadata.len())
        };
        let body_bytes = self
            .read(|tx| statistic(tx, "body_bytes"))
            .unwrap_or_default();
        vec![
            Gauge {
                name: "backstop_store_bytes",
                help: "Size of the file of the store.",
                value: file(FILE),
            },
            Gauge {
                name: "backstop_store_log_bytes",
                help: "Size of the write-ahead log.",
                value: file("backstop.db-wal"),
            },
            Gauge {
                name: "backstop_store_bodies_bytes",
                help: "Size of all packed bodies.",
                value: body_bytes.max(0) as u64,
            },
            Gauge {
                name: "backstop_store_bodies_budget_bytes",
                help: "Above this size bodies are thinned out.",
                value: self.0.body_bytes_max,
            },
        ]
    }

    /// Trains a dictionary for a project that needs one; takes about a second of one core.
    pub(crate) fn train(
        &self,
        now: Timestamp,
    ) -> Result<Option<(ProjectId, Arc<Dictionary>)>, Error> {
        let Some((project, events)) = self.read(project_to_train)? else {
            return Ok(None);
        };
        // Bodies that have nothing in common give no dictionary; an empty one says "tried".
        let bytes = self
            .samples(project)?
            .train(DICTIONARY_BYTES_MAX)
            .filter(|bytes| Dictionary::new(0, bytes.clone()).is_some());
        let bytes = bytes.unwrap_or_default();
        let mut sum = flate2::Crc::new();
        sum.update(&bytes);
        let id: u32 = self.write(|tx| {
            tx.execute(
                "INSERT INTO dictionary (project, created, events, sum, bytes) VALUES (?, ?, ?, ?, ?)",
                (project, now.micros(), events, sum.sum(), &bytes),
            )?;
            Ok(tx.last_insert_rowid() as u32)
        })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some((project, self.dictionary(id)?)))
    }

    /// Gathers bodies of a project's latest issues, the same number of each but for storms, as long as
    /// there is room.
    fn samples(&self, project: ProjectId) -> Result<Samples, Error> {
        let issues = self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT id, events FROM issue INDEXED BY issue_list WHERE project = ? AND status = 0
                     ORDER BY last_seen DESC LIMIT ?",
                )?
                .query_map((project, TRAINING_ISSUES_MAX as i64), |row| {
                    Ok((IssueId(row.get(0)?), row.get::<_, i64>(1)?))
                })?
                .collect::<Result<Vec<_>, _>>()?)
        })?;
        let (mut samples, mut number) = (Samples::default(), 0);
        let all: i64 = issues.iter().map(|(_, events)| events).sum();
        let average = all / issues.len().max(1) as i64;
        let usual = (TRAINING_ISSUES_MAX / issues.len().max(1)).min(TRAINING_PER_ISSUE_MAX);
        for (issue, events) in issues {
            let wanted = match events > STORM * average {
                true => usual.max(STORM_BODIES_MIN),
                false => usual,
            };
            let lines = self.issue_events(issue, None, wanted)?;
            let each = events / lines.len().max(1) as i64;
            // Among issues with few events the one with most is so by chance.
            let weight = u32::try_from(each.max(1).isqrt()).unwrap_or(u32::MAX);
            for line in lines {
                // A body that was evicted meanwhile or is damaged is no sample, nor is a giant.
                let event = self.event(project, line.id);
                let Some(event) = event
                    .ok()
                    .filter(|event| event.json.len() <= SAMPLE_BYTES_MAX)
                else {
                    continue;
                };
                if samples.bytes() + event.json.len() > TRAINING_BYTES_MAX {
                    return Ok(samples);
                }
                number += 1;
                match number % PUT_ASIDE {
                    0 => samples.put_aside(&event.json, weight),
                    _ => samples.learn(&event.json, weight),
                }
            }
        }
        Ok(samples)
    }
}

pub(super) fn statistic(tx: &Transaction<'_>, name: &str) -> Result<i64, Fault> {
    let value = tx
        .prepare_cached("SELECT value FROM statistic WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or_default())
}

pub(super) fn set_statistic(tx: &Transaction<'_>, name: &str, value: i64) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO statistic (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
    )?
    .execute((name, value))?;
    Ok(())
}

/// The issue to thin: the one with most bodies, or the one that was quiet longest once all are small.
fn fullest_issue(tx: &Transaction<'_>, ends: Ends) -> Result<Option<IssueId>, Fault> {
    let sql = if ends == ENDS_KEPT[0] {
        "SELECT id FROM issue WHERE kept > ? ORDER BY kept DESC LIMIT 1"
    } else {
        "SELECT id FROM issue WHERE kept > ? ORDER BY last_seen LIMIT 1"
    };
    let issue = tx
        .prepare_cached(sql)?
        .query_row([ends.sum()], |row| row.get(0).map(IssueId))
        .optional()?;
    Ok(issue)
}

/// Looks at some bodies of an issue and deletes those that the level under way evicts.
fn thin_issue(tx: &Transaction<'_>, issue: IssueId, ends: Ends) -> Result<(), Fault> {
    let under_way = tx
        .prepare_cached("SELECT thin_level, thin_seq FROM issue WHERE id = ?")?
        .query_row([issue], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    // Between choosing and thinning the issue may have been merged into another.
    let Some((level, after)) = under_way else {
        return Ok(());
    };
    // Only the ends are left to give: every body between them goes.
    let level = if ends == ENDS_KEPT[0] {
        level + 1
    } else {
        u32::MAX
    };
    let after = if ends == ENDS_KEPT[0] { after } else { 0 };
    let latest: i64 = tx
        .prepare_cached("SELECT seq FROM event WHERE issue = ? ORDER BY seq DESC LIMIT 1 OFFSET ?")?
        .query_row((issue, ends.latest), |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let rows = tx
        .prepare_cached(
            "SELECT seq, number, length(body), id, project FROM event
             WHERE issue = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        )?
        .query_map((issue, after, latest, THINNED_MAX as i64), |row| {
            Ok(Body {
                seq: row.get(0)?,
                number: row.get(1)?,
                bytes: row.get(2)?,
                id: EventId::from_bytes(row.get(3)?),
                project: project_from_sql(row.get(4)?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let (mut deleted, mut bytes) = (0, 0);
    for body in rows.iter().filter(|body| evict(body.number, level, ends)) {
        delete_body(tx, body)?;
        deleted += 1;
        bytes += body.bytes;
    }
    let done = rows.len() < THINNED_MAX;
    let reached = if done { 0 } else { rows[THINNED_MAX - 1].seq };
    tx.prepare_cached(
        "UPDATE issue SET kept = kept - ?, thin_level = thin_level + ?, thin_seq = ? WHERE id = ?",
    )?
    .execute((
        deleted,
        i64::from(done && ends == ENDS_KEPT[0]),
        reached,
        issue,
    ))?;
    tx.prepare_cached("UPDATE statistic SET value = value - ? WHERE name = 'body_bytes'")?
        .execute([bytes])?;
    Ok(())
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) seq: i64,
    pub(super) number: i64,
    pub(super) bytes: i64,
    pub(super) id: EventId,
    pub(super) project: ProjectId,
}

pub(super) fn delete_body(tx: &Transaction<'_>, body: &Body) -> Result<(), Fault> {
    tx.prepare_cached("DELETE FROM event WHERE seq = ?")?
        .execute([body.seq])?;
    tx.prepare_cached("DELETE FROM event_id_kept WHERE id = ? AND project = ?")?
        .execute((body.id.as_bytes(), body.project))?;
    // The number of a deleted event is never given again.
    tx.prepare_cached("UPDATE statistic SET value = max(value, ?) WHERE name = 'seq_evicted'")?
        .execute([body.seq])?;
    Ok(())
}

fn roll_issues(
    tx: &Transaction<'_>,
    from: i64,
    to: i64,
    width: i64,
    before: i64,
) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO bucket (issue, start, n)
         SELECT issue, start / ?3 * ?3, sum(n) FROM bucket
         WHERE issue > ?1 AND issue <= ?2 AND start < ?4 AND start % ?3 <> 0
         GROUP BY issue, start / ?3
         ON CONFLICT DO UPDATE SET n = n + excluded.n",
    )?
    .execute((from, to, width, before))?;
    tx.prepare_cached(
        "DELETE FROM bucket WHERE issue > ?1 AND issue <= ?2 AND start < ?4 AND start % ?3 <> 0",
    )?
    .execute((from, to, width, before))?;
    Ok(())
}

fn roll_projects(tx: &Transaction<'_>, width: i64, before: i64) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO project_bucket (project, start, n)
         SELECT project, start / ?1 * ?1, sum(n) FROM project_bucket
         WHERE start < ?2 AND start % ?1 <> 0 GROUP BY project, start / ?1
         ON CONFLICT DO UPDATE SET n = n + excluded.n",
    )?
    .execute((width, before))?;
    tx.prepare_cached("DELETE FROM project_bucket WHERE start < ?2 AND start % ?1 <> 0")?
        .execute((width, before))?;
    Ok(())
}

/// A project that has enough events for its first dictionary, or has outgrown its latest.
fn project_to_train(tx: &Transaction<'_>) -> Result<Option<(ProjectId, i64)>, Fault> {
    Ok(tx
        .prepare_cached(
            "SELECT c.project, c.events FROM project_count c
             WHERE c.events >= ?1 AND c.events >= ?2 * coalesce(
                 (SELECT max(d.events) FROM dictionary d WHERE d.project = c.project), 0)
             LIMIT 1",
        )?
        .query_row((TRAINING_EVENTS_MIN, TRAINING_GROWTH), |row| {
            Ok((project_from_sql(row.get(0)?), row.get(1)?))
        })
        .optional()?)
}
