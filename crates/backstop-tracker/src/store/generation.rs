//! Event ids, in generations of about a day.
//!
//! The latest ids of the current generation are in [`super::fresh`].
//! An id counts as a duplicate while its generation is there, and afterwards while its body is.
//! A generation lasts a day of the server's clock; a clock that jumps opens at most one new
//! generation, so that it cannot shorten the window by more than a day.

use backstop_protocol::{EventId, Timestamp};
use rusqlite::{OptionalExtension, Transaction};

use super::error::Fault;
use super::fresh::{self, Fresh};
use super::project_from_sql;
use crate::model::{IssueId, ProjectId};

/// The window for duplicates: so many whole days before the current generation.
pub(super) const WINDOW: i64 = 8;

/// One more slot than generations in use: the last one is emptied during the day.
const SLOTS: i64 = 10;

const DAY_MICROS: i64 = 86_400_000_000;

/// Survivors moved, or rows dropped, in one transaction; keeps it to a few milliseconds.
const MOVED_MAX: usize = 2000;

/// The generations in use, latest first.
#[derive(Debug, Clone)]
pub(super) struct Generations {
    numbers: Vec<i64>,
    opened: i64,
    /// Whether ids were kept beyond their generation; a young store has none.
    has_kept: bool,
}

/// Where an id was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) project: ProjectId,
    pub(super) issue: IssueId,
    pub(super) seq: i64,
}

impl Generations {
    pub(super) fn read(tx: &Transaction<'_>) -> Result<Generations, Fault> {
        let rows = tx
            .prepare_cached("SELECT number, opened FROM generation ORDER BY number DESC")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<(i64, i64)>, _>>()?;
        let has_kept = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM event_id_kept)")?
            .query_row([], |row| row.get(0))?;
        Ok(Generations {
            has_kept,
            opened: rows.first().map_or(i64::MIN, |row| row.1),
            numbers: rows.into_iter().map(|row| row.0).collect(),
        })
    }

    /// Opens a new generation if it is time for one and a slot is free.
    pub(super) fn turn(
        &mut self,
        tx: &Transaction<'_>,
        fresh: &mut Fresh,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let now = now.micros();
        let current = self.numbers.first().copied();
        let in_time = (self.opened.saturating_sub(DAY_MICROS)
            ..self.opened.saturating_add(DAY_MICROS))
            .contains(&now);
        if current.is_some() && (in_time || self.numbers.len() as i64 >= SLOTS) {
            return Ok(());
        }
        fresh.move_all(tx, |id, found| self.insert(tx, id, found))?;
        let number = current.map_or(0, |number| number + 1);
        tx.execute(
            "UPDATE generation SET closed = ? WHERE closed IS NULL",
            [now],
        )?;
        tx.execute(
            "INSERT INTO generation (number, opened) VALUES (?, ?)",
            (number, now),
        )?;
        self.numbers.insert(0, number);
        self.opened = now;
        Ok(())
    }

    /// Finds an id that was stored before.
    pub(super) fn find(
        &self,
        tx: &Transaction<'_>,
        project: ProjectId,
        id: EventId,
    ) -> Result<Option<Found>, Fault> {
        for number in &self.numbers {
            let found = look(tx, find_sql(*number), project, id)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        match self.has_kept {
            true => look(tx, FIND_KEPT, project, id),
            false => Ok(None),
        }
    }

    /// Notes an id, unless it is there.
    pub(super) fn insert(
        &self,
        tx: &Transaction<'_>,
        id: EventId,
        found: Found,
    ) -> Result<(), Fault> {
        let number = self.numbers.first().copied().unwrap_or_default();
        tx.prepare_cached(INSERT[slot(number)])?.execute((
            id.as_bytes(),
            found.project,
            found.issue,
            found.seq,
        ))?;
        Ok(())
    }
}

impl Generations {
    /// Notes that an event is in another issue now.
    pub(super) fn move_to(
        &self,
        tx: &Transaction<'_>,
        id: EventId,
        seq: i64,
        issue: IssueId,
    ) -> Result<(), Fault> {
        // An id that has moved may still be in its row.
        fresh::move_to(tx, id, seq, issue)?;
        let tables = self.numbers.iter().map(|number| MOVE[slot(*number)]);
        for sql in tables.chain([MOVE_KEPT]) {
            let moved = tx
                .prepare_cached(sql)?
                .execute((issue, id.as_bytes(), seq))?;
            if moved > 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Finds an id of a project.
pub(super) fn find(
    tx: &Transaction<'_>,
    project: ProjectId,
    id: EventId,
) -> Result<Option<Found>, Fault> {
    match Generations::read(tx)?.find(tx, project, id)? {
        Some(found) => Ok(Some(found)),
        None => fresh::find(tx, Some(project), id),
    }
}

/// Finds an id of any project.
pub(super) fn find_anywhere(tx: &Transaction<'_>, id: EventId) -> Result<Option<Found>, Fault> {
    let generations = Generations::read(tx)?;
    let tables = generations.numbers.iter().map(|number| find_sql(*number));
    for sql in tables.chain([FIND_KEPT]) {
        let found = tx
            .prepare_cached(&sql.replace("AND project = ?", "LIMIT 1"))?
            .query_row([id.as_bytes()], found_of_row)
            .optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    fresh::find(tx, None, id)
}

/// Moves a part of the oldest generation out of the way, if it is past the window.
///
/// Ids whose bodies are still there are kept. Returns whether there is more to do.
pub(super) fn shrink(tx: &Transaction<'_>) -> Result<bool, Fault> {
    let generations = Generations::read(tx)?;
    let Some(oldest) = generations
        .numbers
        .get(WINDOW as usize + 1..)
        .and_then(<[i64]>::last)
    else {
        return Ok(false);
    };
    let slot = slot(*oldest);
    tx.prepare_cached(KEEP[slot])?.execute([MOVED_MAX])?;
    let dropped = tx.prepare_cached(DROP[slot])?.execute([MOVED_MAX])?;
    if dropped < MOVED_MAX {
        tx.execute("DELETE FROM generation WHERE number = ?", [oldest])?;
    }
    Ok(true)
}

fn slot(number: i64) -> usize {
    number.rem_euclid(SLOTS) as usize
}

fn find_sql(number: i64) -> &'static str {
    FIND[slot(number)]
}

fn look(
    tx: &Transaction<'_>,
    sql: &str,
    project: ProjectId,
    id: EventId,
) -> Result<Option<Found>, Fault> {
    Ok(tx
        .prepare_cached(sql)?
        .query_row((id.as_bytes(), project), found_of_row)
        .optional()?)
}

fn found_of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        project: project_from_sql(row.get(0)?),
        issue: IssueId(row.get(1)?),
        seq: row.get(2)?,
    })
}

/// Writes the same statement for each slot, because a table's name cannot be a parameter.
macro_rules! per_slot {
    ($before:literal, $after:literal) => {
        [
            concat!($before, "event_id_0", $after),
            concat!($before, "event_id_1", $after),
            concat!($before, "event_id_2", $after),
            concat!($before, "event_id_3", $after),
            concat!($before, "event_id_4", $after),
            concat!($before, "event_id_5", $after),
            concat!($before, "event_id_6", $after),
            concat!($before, "event_id_7", $after),
            concat!($before, "event_id_8", $after),
            concat!($before, "event_id_9", $after),
        ]
    };
}

/// Deletes the first rows in key order, so that whole pages become free.
macro_rules! drop_sql {
    ($table:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE (id, project) IN (SELECT id, project FROM ",
            $table,
            " ORDER BY id, project LIMIT ?)"
        )
    };
}

const FIND: [&str; SLOTS as usize] = per_slot!(
    "SELECT project, issue, seq FROM ",
    " WHERE id = ? AND project = ?"
);
const FIND_KEPT: &str =
    "SELECT project, issue, seq FROM event_id_kept WHERE id = ? AND project = ?";
const MOVE: [&str; SLOTS as usize] =
    per_slot!("UPDATE ", " SET issue = ? WHERE id = ? AND seq = ?");
const MOVE_KEPT: &str = "UPDATE event_id_kept SET issue = ? WHERE id = ? AND seq = ?";
const INSERT: [&str; SLOTS as usize] = per_slot!(
    "INSERT OR IGNORE INTO ",
    " (id, project, issue, seq) VALUES (?, ?, ?, ?)"
);
const KEEP: [&str; SLOTS as usize] = per_slot!(
    "INSERT OR IGNORE INTO event_id_kept (id, project, issue, seq)
     SELECT g.id, g.project, g.issue, g.seq FROM (SELECT * FROM ",
    " ORDER BY id, project LIMIT ?) g JOIN event e ON e.seq = g.seq"
);
const DROP: [&str; SLOTS as usize] = [
    drop_sql!("event_id_0"),
    drop_sql!("event_id_1"),
    drop_sql!("event_id_2"),
    drop_sql!("event_id_3"),
    drop_sql!("event_id_4"),
    drop_sql!("event_id_5"),
    drop_sql!("event_id_6"),
    drop_sql!("event_id_7"),
    drop_sql!("event_id_8"),
    drop_sql!("event_id_9"),
];
