//! Stored events.

use std::sync::{Arc, Mutex, PoisonError};

use backstop_protocol::{EventId, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::error::{Error, ErrorKind, Fault};
use super::generation;
use super::issue::resolve_merged;
use super::{Store, project_from_sql};
use crate::codec::{Codec, Dictionary};
use crate::model::{EventLine, EventPlace, IssueId, ProjectId, StoredEvent, Which};
use crate::recent::Recent;

pub(super) const EVENT_COLUMNS: &str = "SELECT e.id, e.project, e.issue, e.timestamp, e.received, e.dictionary, e.size, e.sum, e.body, e.seq FROM event e";

impl Store {
    /// Returns an event of a project with its body.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if it never was or its body was evicted,
    /// [`ErrorKind::Corrupt`] if its body is damaged.
    pub fn event(&self, project: ProjectId, id: EventId) -> Result<StoredEvent, Error> {
        let row = self.read(|tx| {
            let found = generation::find(tx, project, id)?.ok_or_else(no_event)?;
            one_event(tx, "WHERE e.seq = ?", [found.seq])
        })?;
        self.unpack(&row)
    }

    /// Returns an event of an issue with its body, and where it stands between the others.
    ///
    /// # Errors
    ///
    /// As [`Store::event`].
    pub fn issue_event(&self, issue: IssueId, which: Which) -> Result<StoredEvent, Error> {
        let row = self.read(|tx| {
            let issue = resolve_merged(tx, issue)?;
            match which {
                Which::First => {
                    one_event(tx, "WHERE e.issue = ? ORDER BY e.seq LIMIT 1", [issue.0])
                }
                Which::Latest => one_event(
                    tx,
                    "WHERE e.issue = ? ORDER BY e.seq DESC LIMIT 1",
                    [issue.0],
                ),
                Which::After(id) => one_event(
                    tx,
                    "WHERE e.issue = ? AND e.seq > ? ORDER BY e.seq LIMIT 1",
                    [issue.0, seq_in_issue(tx, issue, id)?],
                ),
                Which::Before(id) => one_event(
                    tx,
                    "WHERE e.issue = ? AND e.seq < ? ORDER BY e.seq DESC LIMIT 1",
                    [issue.0, seq_in_issue(tx, issue, id)?],
                ),
                Which::Id(id) => one_event(
                    tx,
                    "WHERE e.issue = ? AND e.seq = ?",
                    [issue.0, seq_in_issue(tx, issue, id)?],
                ),
            }
        })?;
        self.unpack(&row)
    }

    /// Lists events of an issue whose bodies are kept, latest first, those before `before`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn issue_events(
        &self,
        issue: IssueId,
        before: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<EventLine>, Error> {
        const LIMIT_MAX: usize = 1000;
        self.read(|tx| {
            let issue = resolve_merged(tx, issue)?;
            let before = match before {
                Some(id) => seq_in_issue(tx, issue, id)?,
                None => i64::MAX,
            };
            Ok(tx
                .prepare_cached(
                    "SELECT id, timestamp, received FROM event WHERE issue = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                )?
                .query_map((issue, before, limit.min(LIMIT_MAX) as i64), |row| {
                    Ok(EventLine {
                        id: EventId::from_bytes(row.get(0)?),
                        timestamp: Timestamp::from_micros(row.get(1)?),
                        received: Timestamp::from_micros(row.get(2)?),
                    })
                })?
                .collect::<Result<_, _>>()?)
        })
    }

    /// Finds where an event is, over all projects; also when its body is not kept any more,
    /// as long as its id is known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn event_place(&self, id: EventId) -> Result<EventPlace, Error> {
        self.read(|tx| {
            let found = generation::find_anywhere(tx, id)?.ok_or_else(no_event)?;
            Ok(EventPlace {
                project: found.project,
                issue: resolve_merged(tx, found.issue)?,
            })
        })
    }

    pub(super) fn unpack(&self, row: &EventRow) -> Result<StoredEvent, Error> {
        let dictionary = row.dictionary.map(|id| self.dictionary(id)).transpose()?;
        let damaged = || {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the body of event {} is damaged; run `backstop check`",
                    row.id
                ),
            )
        };
        if Codec::sum(row.id, &row.body) != row.sum {
            return Err(damaged());
        }
        let json = Codec::unpack(&row.body, dictionary.as_deref(), row.size).ok_or_else(damaged)?;
        Ok(StoredEvent {
            id: row.id,
            project: row.project,
            issue: row.issue,
            timestamp: row.timestamp,
            received: row.received,
            json,
        })
    }

    pub(super) fn dictionary(&self, id: u32) -> Result<Arc<Dictionary>, Error> {
        if let Some(dictionary) = self.0.dictionaries.get(id) {
            return Ok(dictionary);
        }
        let (bytes, sum) = self.read(|tx| {
            tx.prepare_cached("SELECT bytes, sum FROM dictionary WHERE id = ?")?
                .query_row([id], |row| {
                    Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, u32>(1)?))
                })
                .optional()?
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::Corrupt,
                        format!("the dictionary {id} is missing"),
                    )
                    .into()
                })
        })?;
        let dictionary = Dictionary::new(id, bytes)
            .filter(|dictionary| dictionary.sum() == sum)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("the dictionary {id} is damaged"),
                )
            })?;
        let dictionary = Arc::new(dictionary);
        self.0.dictionaries.put(Arc::clone(&dictionary));
        Ok(dictionary)
    }
}

/// Dictionaries that were read lately; each is up to 128 KiB, three to four times that once prepared.
#[derive(Debug)]
pub(super) struct Dictionaries(Mutex<Recent<u32, Arc<Dictionary>>>);

/// People look at a few projects at a time.
const DICTIONARIES_KNOWN_MAX: usize = 32;

impl Default for Dictionaries {
    fn default() -> Dictionaries {
        Dictionaries(Mutex::new(Recent::new(DICTIONARIES_KNOWN_MAX)))
    }
}

impl Dictionaries {
    fn get(&self, id: u32) -> Option<Arc<Dictionary>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&id).cloned()
    }

    fn put(&self, dictionary: Arc<Dictionary>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever still unpacks with the one that makes room holds it.
        drop(known.insert(dictionary.id(), dictionary));
    }
}

/// A row before its body is unpacked, which needs no transaction.
pub(super) struct EventRow {
    pub(super) id: EventId,
    project: ProjectId,
    pub(super) issue: IssueId,
    pub(super) timestamp: Timestamp,
    received: Timestamp,
    dictionary: Option<u32>,
    size: usize,
    sum: u32,
    body: Vec<u8>,
}

fn no_event() -> Error {
    Error::new(ErrorKind::NotFound, "no such event")
}

fn one_event<const N: usize>(
    tx: &Transaction<'_>,
    condition: &'static str,
    values: [i64; N],
) -> Result<EventRow, Fault> {
    let row = tx
        .prepare_cached(&format!("{EVENT_COLUMNS} {condition}"))?
        .query_row(rusqlite::params_from_iter(values), event_of_row)
        .optional()?;
    row.ok_or_else(|| no_event().into())
}

pub(super) fn event_of_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: EventId::from_bytes(row.get(0)?),
        project: project_from_sql(row.get(1)?),
        issue: IssueId(row.get(2)?),
        timestamp: Timestamp::from_micros(row.get(3)?),
        received: Timestamp::from_micros(row.get(4)?),
        dictionary: row.get(5)?,
        size: row.get(6)?,
        sum: row.get(7)?,
        body: row.get(8)?,
    })
}

fn seq_in_issue(tx: &Transaction<'_>, issue: IssueId, id: EventId) -> Result<i64, Fault> {
    let project = tx
        .prepare_cached("SELECT project FROM issue WHERE id = ?")?
        .query_row([issue], |row| row.get(0).map(project_from_sql))
        .optional()?
        .ok_or_else(no_event)?;
    let found = generation::find(tx, project, id)?.ok_or_else(no_event)?;
    Ok(found.seq)
}
