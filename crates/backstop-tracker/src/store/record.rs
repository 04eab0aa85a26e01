//! Sessions, check-ins, attachments, feedback and transactions.

use backstop_protocol::{EventId, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction};
use sha1::{Digest as _, Sha1};

use super::error::{Error, Fault};
use super::{Store, project_from_sql};
use crate::model::ProjectId;
use crate::record::{
    Attachment, CheckIn, Feedback, Monitor, NewAttachment, Record, ReleaseHealth, Run,
    SessionCounts, SessionStatus, SessionUpdate, TransactionRecord,
};

/// A session that was silent for so long is over.
const SESSION_SILENT_MAX_MICROS: i64 = 5 * 86_400 * 1_000_000;
/// Old sessions that one batch removes; more come in per batch than this only in tests.
const SESSIONS_REMOVED_MAX: i64 = 200;
/// All attachments; beyond it the oldest go.
const ATTACHMENT_BYTES_MAX: i64 = 2 << 30;
/// Performance records of a project; beyond it the oldest go.
const TRANSACTIONS_MAX: i64 = 10_000;
/// Runs of a monitor; beyond it the oldest go.
const RUNS_MAX: i64 = 1_000;
/// Rows that a page shows.
const ROWS_MAX: usize = 1_000;
const ZSTD_LEVEL: i32 = 1;
/// No record is larger than a request.
const TRANSACTION_BYTES_MAX: usize = 128 << 20;

impl Store {
    /// Writes records, all or none.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn record(&self, records: &[Record]) -> Result<(), Error> {
        self.write(|tx| {
            for record in records {
                match record {
                    Record::Session(update) => update_session(tx, update)?,
                    Record::Sessions(counts) => count_sessions(tx, counts)?,
                    Record::CheckIn(check_in) => insert_check_in(tx, check_in)?,
                    Record::Attachment(attachment) => insert_attachment(tx, attachment)?,
                    Record::Feedback(feedback) => insert_feedback(tx, feedback)?,
                    Record::Transaction(transaction) => insert_transaction(tx, transaction)?,
                }
            }
            Ok(())
        })
    }

    /// Returns how the sessions of a project's releases went, from a day on; newest day first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn release_health(
        &self,
        project: ProjectId,
        since: Timestamp,
    ) -> Result<Vec<ReleaseHealth>, Error> {
        self.read(|tx| {
            let rows = tx
                .prepare_cached(
                    "SELECT release, environment, day, sessions, errored, unhandled, abnormal, crashed
                     FROM release_health WHERE project = ? AND day >= ?
                     ORDER BY day DESC, release, environment LIMIT ?",
                )?
                .query_map((project, day_of(since), ROWS_MAX as i64), |row| {
                    Ok(ReleaseHealth {
                        release: row.get(0)?,
                        environment: row.get(1)?,
                        day: row.get(2)?,
                        sessions: count(row, 3)?,
                        errored: count(row, 4)?,
                        unhandled: count(row, 5)?,
                        abnormal: count(row, 6)?,
                        crashed: count(row, 7)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Returns the monitors of a project, or of all.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn monitors(&self, project: Option<ProjectId>) -> Result<Vec<Monitor>, Error> {
        self.read(|tx| {
            let rows = tx
                .prepare_cached(
                    "SELECT project, slug, config, status, created, updated FROM monitor
                     WHERE ?1 IS NULL OR project = ?1 ORDER BY slug, project LIMIT ?2",
                )?
                .query_map((project, ROWS_MAX as i64), |row| {
                    Ok(Monitor {
                        project: project_from_sql(row.get(0)?),
                        slug: row.get(1)?,
                        config: row.get(2)?,
                        status: row.get(3)?,
                        created: time(row, 4)?,
                        updated: time(row, 5)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Returns the runs of a monitor, latest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn runs(&self, project: ProjectId, monitor: &str) -> Result<Vec<Run>, Error> {
        self.read(|tx| {
            let rows = tx
                .prepare_cached(
                    "SELECT id, status, duration, environment, started, updated FROM check_in
                     WHERE project = ? AND monitor = ? ORDER BY started DESC LIMIT ?",
                )?
                .query_map((project, monitor, ROWS_MAX as i64), |row| {
                    Ok(Run {
                        id: EventId::from_bytes(row.get(0)?),
                        status: row.get(1)?,
                        duration: row.get(2)?,
                        environment: row.get(3)?,
                        started: time(row, 4)?,
                        updated: time(row, 5)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Returns the files of an event, without their content.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn attachments(
        &self,
        project: ProjectId,
        event: EventId,
    ) -> Result<Vec<Attachment>, Error> {
        self.read(|tx| {
            let rows = tx
                .prepare_cached(
                    "SELECT id, event, filename, content_type, attachment_type, sha1, size, created
                     FROM attachment WHERE project = ? AND event = ? ORDER BY id LIMIT ?",
                )?
                .query_map(
                    (project, event.as_bytes(), ROWS_MAX as i64),
                    attachment_of_row,
                )?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Returns a file with its content.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn attachment(
        &self,
        project: ProjectId,
        event: EventId,
        id: i64,
    ) -> Result<Option<(Attachment, Vec<u8>)>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT id, event, filename, content_type, attachment_type, sha1, size, created, body
                     FROM attachment WHERE project = ? AND event = ? AND id = ?",
                )?
                .query_row((project, event.as_bytes(), id), |row| {
                    Ok((attachment_of_row(row)?, row.get(8)?))
                })
                .optional()?)
        })
    }

    /// Returns what users wrote: about one event, or at all; latest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn feedback(
        &self,
        project: ProjectId,
        event: Option<EventId>,
    ) -> Result<Vec<Feedback>, Error> {
        let event = event.map(|event| *event.as_bytes());
        self.read(|tx| {
            let rows = tx
                .prepare_cached(
                    "SELECT id, event, name, email, message, url, created FROM feedback
                     WHERE project = ?1 AND (?2 IS NULL OR event = ?2)
                     ORDER BY created DESC LIMIT ?3",
                )?
                .query_map((project, event, ROWS_MAX as i64), |row| {
                    Ok(Feedback {
                        project,
                        id: EventId::from_bytes(row.get(0)?),
                        event: row.get::<_, Option<[u8; 16]>>(1)?.map(EventId::from_bytes),
                        name: row.get(2)?,
                        email: row.get(3)?,
                        message: row.get(4)?,
                        url: row.get(5)?,
                        received: time(row, 6)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Returns a performance record as JSON text.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn transaction_record(
        &self,
        project: ProjectId,
        event: EventId,
    ) -> Result<Option<Vec<u8>>, Error> {
        let body: Option<Vec<u8>> = self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT body FROM transaction_record WHERE project = ? AND event = ?",
                )?
                .query_row((project, event.as_bytes()), |row| row.get(0))
                .optional()?)
        })?;
        body.map(|body| {
            zstd::bulk::decompress(&body, TRANSACTION_BYTES_MAX)
                .map_err(|error| Error::io("a performance record is damaged", error))
        })
        .transpose()
    }
}

fn update_session(tx: &Transaction<'_>, update: &SessionUpdate) -> Result<(), Fault> {
    let old: Option<(i64, i64, i64, String, String)> = tx
        .prepare_cached(
            "SELECT status, errors, day, release, environment FROM session
             WHERE project = ? AND sid = ?",
        )?
        .query_row((update.project, update.sid.as_bytes()), |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .optional()?;
    // News may come in any order, so the worst of them counts.
    let status = number_of(update.status).max(old.as_ref().map_or(0, |old| old.0));
    let errors = (update.errors as i64).max(old.as_ref().map_or(0, |old| old.1));
    let (day, release, environment) = match &old {
        Some((_, _, day, release, environment)) => (*day, release.as_str(), environment.as_str()),
        None => (
            day_of(update.started),
            update.release.as_str(),
            update.environment.as_str(),
        ),
    };
    tx.prepare_cached(
        "INSERT INTO session (project, sid, release, environment, day, status, errors, updated)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET status = excluded.status, errors = excluded.errors,
           updated = excluded.updated",
    )?
    .execute((
        update.project,
        update.sid.as_bytes(),
        release,
        environment,
        day,
        status,
        errors,
        update.received.micros(),
    ))?;
    let mut change = class_of(status, errors);
    if let Some(old) = &old {
        let before = class_of(old.0, old.1);
        for (now, before) in change.iter_mut().zip(before) {
            *now -= before;
        }
    } else {
        let silent = update.received.micros() - SESSION_SILENT_MAX_MICROS;
        tx.prepare_cached(
            "DELETE FROM session WHERE (project, sid) IN
               (SELECT project, sid FROM session WHERE updated < ? LIMIT ?)",
        )?
        .execute((silent, SESSIONS_REMOVED_MAX))?;
    }
    let place = (update.project, release, environment, day);
    add_health(tx, place, i64::from(old.is_none()), change)
}

fn count_sessions(tx: &Transaction<'_>, counts: &SessionCounts) -> Result<(), Fault> {
    let [errored, unhandled, abnormal, crashed] = [
        counts.errored,
        counts.unhandled,
        counts.abnormal,
        counts.crashed,
    ]
    .map(|n| n as i64);
    let sessions = counts.exited as i64 + errored + unhandled + abnormal + crashed;
    let place = (
        counts.project,
        counts.release.as_str(),
        counts.environment.as_str(),
        day_of(counts.started),
    );
    add_health(tx, place, sessions, [errored, unhandled, abnormal, crashed])
}

/// Returns which of errored, unhandled, abnormal and crashed a session counts as.
fn class_of(status: i64, errors: i64) -> [i64; 4] {
    match status {
        5 => [0, 0, 0, 1],
        4 => [0, 0, 1, 0],
        3 => [0, 1, 0, 0],
        2 => [1, 0, 0, 0],
        _ => [i64::from(errors > 0), 0, 0, 0],
    }
}

fn add_health(
    tx: &Transaction<'_>,
    (project, release, environment, day): (ProjectId, &str, &str, i64),
    sessions: i64,
    [errored, unhandled, abnormal, crashed]: [i64; 4],
) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO release_health
           (project, release, environment, day, sessions, errored, unhandled, abnormal, crashed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions,
           errored = errored + excluded.errored, unhandled = unhandled + excluded.unhandled,
           abnormal = abnormal + excluded.abnormal, crashed = crashed + excluded.crashed",
    )?
    .execute((
        project,
        release,
        environment,
        day,
        sessions,
        errored,
        unhandled,
        abnormal,
        crashed,
    ))?;
    Ok(())
}

fn insert_check_in(tx: &Transaction<'_>, check_in: &CheckIn) -> Result<(), Fault> {
    let received = check_in.received.micros();
    tx.prepare_cached(
        "INSERT INTO monitor (project, slug, config, status, created, updated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT DO UPDATE SET config = coalesce(excluded.config, config),
           status = excluded.status, updated = excluded.updated",
    )?
    .execute((
        check_in.project,
        &check_in.monitor,
        &check_in.config,
        &check_in.status,
        received,
    ))?;
    let id = match check_in.id.is_nil() {
        false => *check_in.id.as_bytes(),
        true => latest_run(tx, check_in)?,
    };
    tx.prepare_cached(
        "INSERT INTO check_in (project, monitor, id, status, duration, environment, started, updated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
         ON CONFLICT DO UPDATE SET status = excluded.status, updated = excluded.updated,
           duration = coalesce(excluded.duration, duration),
           environment = coalesce(excluded.environment, environment)",
    )?
    .execute((
        check_in.project,
        &check_in.monitor,
        id,
        &check_in.status,
        check_in.duration,
        &check_in.environment,
        received,
    ))?;
    tx.prepare_cached(
        "DELETE FROM check_in WHERE project = ?1 AND monitor = ?2 AND started <
           (SELECT started FROM check_in WHERE project = ?1 AND monitor = ?2
            ORDER BY started DESC LIMIT 1 OFFSET ?3)",
    )?
    .execute((check_in.project, &check_in.monitor, RUNS_MAX))?;
    Ok(())
}

/// Returns the run in progress that a check-in without an id means, or a new id.
fn latest_run(tx: &Transaction<'_>, check_in: &CheckIn) -> Result<[u8; 16], Fault> {
    let open: Option<[u8; 16]> = tx
        .prepare_cached(
            "SELECT id FROM check_in WHERE project = ? AND monitor = ? AND status = 'in_progress'
             ORDER BY started DESC LIMIT 1",
        )?
        .query_row((check_in.project, &check_in.monitor), |row| row.get(0))
        .optional()?;
    match open {
        Some(id) if check_in.status != "in_progress" => Ok(id),
        _ => Ok(crate::model::Key::random().0),
    }
}

fn insert_attachment(tx: &Transaction<'_>, attachment: &NewAttachment) -> Result<(), Fault> {
    let sha1: [u8; 20] = Sha1::digest(&attachment.bytes).into();
    let size = attachment.bytes.len() as i64;
    let inserted = tx
        .prepare_cached(
            "INSERT INTO attachment
               (project, event, filename, content_type, attachment_type, sha1, size, created, body)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute((
            attachment.project,
            attachment.event.as_bytes(),
            &attachment.filename,
            &attachment.content_type,
            &attachment.attachment_type,
            sha1,
            size,
            attachment.received.micros(),
            &attachment.bytes,
        ))?;
    if inserted == 0 {
        return Ok(());
    }
    let mut total: i64 = tx
        .prepare_cached(
            "UPDATE statistic SET value = value + ? WHERE name = 'attachment_bytes' RETURNING value",
        )?
        .query_row([size], |row| row.get(0))?;
    while total > ATTACHMENT_BYTES_MAX {
        let removed: i64 = tx
            .prepare_cached(
                "DELETE FROM attachment WHERE id = (SELECT min(id) FROM attachment) RETURNING size",
            )?
            .query_row([], |row| row.get(0))?;
        total -= removed;
        tx.prepare_cached("UPDATE statistic SET value = ? WHERE name = 'attachment_bytes'")?
            .execute([total])?;
    }
    Ok(())
}

fn insert_feedback(tx: &Transaction<'_>, feedback: &Feedback) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO feedback (project, id, event, name, email, message, url, created)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET message = excluded.message, name = excluded.name,
           email = excluded.email",
    )?
    .execute((
        feedback.project,
        feedback.id.as_bytes(),
        feedback.event.map(|event| *event.as_bytes()),
        &feedback.name,
        &feedback.email,
        &feedback.message,
        &feedback.url,
        feedback.received.micros(),
    ))?;
    Ok(())
}

fn insert_transaction(tx: &Transaction<'_>, record: &TransactionRecord) -> Result<(), Fault> {
    let body = zstd::bulk::compress(&record.json, ZSTD_LEVEL)
        .map_err(|error| Error::io("a performance record cannot be packed", error))?;
    tx.prepare_cached(
        "INSERT INTO transaction_record (project, event, name, received, body)
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?
    .execute((
        record.project,
        record.event.as_bytes(),
        &record.name,
        record.received.micros(),
        body,
    ))?;
    // One in, one out: the table keeps its size.
    tx.prepare_cached(
        "DELETE FROM transaction_record WHERE project = ?1 AND received <
           (SELECT received FROM transaction_record WHERE project = ?1
            ORDER BY received DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute((record.project, TRANSACTIONS_MAX))?;
    Ok(())
}

fn attachment_of_row(row: &Row<'_>) -> rusqlite::Result<Attachment> {
    let sha1: [u8; 20] = row.get(5)?;
    Ok(Attachment {
        id: row.get(0)?,
        event: EventId::from_bytes(row.get(1)?),
        filename: row.get(2)?,
        content_type: row.get(3)?,
        attachment_type: row.get(4)?,
        sha1: sha1.iter().map(|byte| format!("{byte:02x}")).collect(),
        size: count(row, 6)?,
        created: time(row, 7)?,
    })
}

fn number_of(status: SessionStatus) -> i64 {
    match status {
        SessionStatus::Ok => 0,
        SessionStatus::Exited => 1,
        SessionStatus::Errored => 2,
        SessionStatus::Unhandled => 3,
        SessionStatus::Abnormal => 4,
        SessionStatus::Crashed => 5,
    }
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let n: i64 = row.get(column)?;
    Ok(n.max(0) as u64)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

fn day_of(time: Timestamp) -> i64 {
    time.seconds().div_euclid(86_400)
}
