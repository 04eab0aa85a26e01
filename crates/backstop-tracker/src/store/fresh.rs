//! The ids of the latest events, before they move to the table of their generation.
//!
//! Ids are random, so each one that is put into a table changes a page of its own. The latest are
//! written in the order of arrival, the ids of a batch in one row, and are in memory in their own
//! order. Once there are many, neighbours move to the table together, in rounds through all ids.

use std::collections::BTreeMap;

use backstop_protocol::EventId;
use rusqlite::{OptionalExtension, Transaction};

use super::error::Fault;
use super::generation::Found;
use super::{project_from_sql, project_to_sql};
use crate::model::{IssueId, ProjectId};

/// Ids that move with a batch beyond as many as it brings, so that a surplus goes away.
const MOVED_EXTRA: usize = 32;

/// Bytes of an id with what was found by it.
const ENTRY: usize = 40;

type Key = (EventId, ProjectId);

/// The latest ids, in memory.
#[derive(Debug)]
pub(super) struct Fresh {
    ids: BTreeMap<Key, Found>,
    /// Those of this batch, which have no row yet.
    new: Vec<(EventId, Found)>,
    /// How many ids each row still has here, by the first event of the row.
    rows: BTreeMap<i64, usize>,
    /// Where the round goes on.
    next: Key,
}

impl Fresh {
    /// Reads the ids that have not moved; a few that have may be among them.
    pub(super) fn read(tx: &Transaction<'_>) -> Result<Fresh, Fault> {
        let mut fresh = Fresh {
            ids: BTreeMap::new(),
            new: Vec::new(),
            rows: BTreeMap::new(),
            next: (EventId::default(), ProjectId(0)),
        };
        let mut statement = tx.prepare_cached("SELECT seq, ids FROM event_id_fresh")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entries = entries(row.get_ref(1)?.as_blob().unwrap_or_default());
            let mut count = 0;
            for (id, found) in entries {
                let before = fresh.ids.insert((id, found.project), found);
                count += usize::from(before.is_none());
            }
            fresh.rows.insert(row.get(0)?, count);
        }
        Ok(fresh)
    }

    pub(super) fn find(&self, project: ProjectId, id: EventId) -> Option<Found> {
        self.ids.get(&(id, project)).copied()
    }

    /// Notes an id that is nowhere yet; [`Fresh::write`] must follow.
    pub(super) fn insert(&mut self, id: EventId, found: Found) {
        self.ids.insert((id, found.project), found);
        self.new.push((id, found));
    }

    /// Writes the ids of a batch, and moves some out of memory if there are too many.
    pub(super) fn write(
        &mut self,
        tx: &Transaction<'_>,
        ids_max: usize,
        to_generation: impl Fn(EventId, Found) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some((_, first)) = self.new.first() else {
            return Ok(());
        };
        let seq = first.seq;
        let bytes: Vec<u8> = self
            .new
            .iter()
            .flat_map(|(id, found)| entry(*id, found))
            .collect();
        tx.prepare_cached("INSERT INTO event_id_fresh (seq, ids) VALUES (?, ?)")?
            .execute((seq, bytes))?;
        self.rows.insert(seq, self.new.len());
        let surplus = self.ids.len().saturating_sub(ids_max);
        let moved = surplus.min(self.new.len() + MOVED_EXTRA);
        self.new.clear();
        for _ in 0..moved {
            let next = self
                .ids
                .range(self.next..)
                .next()
                .or_else(|| self.ids.iter().next());
            let Some((&key, &found)) = next else {
                break;
            };
            self.ids.remove(&key);
            self.next = key;
            to_generation(key.0, found)?;
            self.leave_row(tx, found.seq)?;
        }
        Ok(())
    }

    /// Moves all ids, because their generation ends.
    pub(super) fn move_all(
        &mut self,
        tx: &Transaction<'_>,
        to_generation: impl Fn(EventId, Found) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for ((id, _), found) in std::mem::take(&mut self.ids) {
            to_generation(id, found)?;
        }
        self.rows.clear();
        tx.execute("DELETE FROM event_id_fresh", [])?;
        Ok(())
    }

    /// Deletes the row of an event once none of its ids is here.
    fn leave_row(&mut self, tx: &Transaction<'_>, event: i64) -> Result<(), Fault> {
        let Some((&seq, left)) = self.rows.range_mut(..=event).next_back() else {
            return Ok(());
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.rows.remove(&seq);
            tx.prepare_cached("DELETE FROM event_id_fresh WHERE seq = ?")?
                .execute([seq])?;
        }
        Ok(())
    }
}

/// Finds an id in the rows, of any project if none is given; the latest events come first.
pub(super) fn find(
    tx: &Transaction<'_>,
    project: Option<ProjectId>,
    id: EventId,
) -> Result<Option<Found>, Fault> {
    let mut statement = tx.prepare_cached("SELECT ids FROM event_id_fresh ORDER BY seq DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let entries = entries(row.get_ref(0)?.as_blob().unwrap_or_default());
        let found = entries
            .filter(|(other, found)| *other == id && project.is_none_or(|p| p == found.project))
            .map(|(_, found)| found)
            .next();
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Notes in its row that an event is in another issue now; [`Fresh`] must be read again.
pub(super) fn move_to(
    tx: &Transaction<'_>,
    id: EventId,
    event: i64,
    issue: IssueId,
) -> Result<(), Fault> {
    let row = tx
        .prepare_cached(
            "SELECT seq, ids FROM event_id_fresh WHERE seq <= ? ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([event], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    let Some((seq, bytes)) = row else {
        return Ok(());
    };
    if !entries(&bytes).any(|(other, found)| other == id && found.seq == event) {
        return Ok(());
    }
    let moved: Vec<u8> = entries(&bytes)
        .flat_map(|(other, mut found)| {
            if other == id && found.seq == event {
                found.issue = issue;
            }
            entry(other, &found)
        })
        .collect();
    tx.prepare_cached("UPDATE event_id_fresh SET ids = ? WHERE seq = ?")?
        .execute((moved, seq))?;
    Ok(())
}

fn entry(id: EventId, found: &Found) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    let numbers = [project_to_sql(found.project), found.issue.0, found.seq];
    let (start, rest) = bytes.split_at_mut(16);
    start.copy_from_slice(id.as_bytes());
    for (place, number) in rest.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = (EventId, Found)> {
    let (entries, _) = bytes.as_chunks::<ENTRY>();
    entries.iter().map(|entry| {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&entry[at..at + 8]);
            i64::from_be_bytes(number)
        };
        let mut id = [0; 16];
        id.copy_from_slice(&entry[..16]);
        let found = Found {
            project: project_from_sql(number(16)),
            issue: IssueId(number(24)),
            seq: number(32),
        };
        (EventId::from_bytes(id), found)
    })
}
