//! Reading all stored events of a project, to group them again.

use backstop_protocol::Event;

use super::event::{EVENT_COLUMNS, EventRow, event_of_row};
use super::{Error, Store};
use crate::model::{IssueId, ProjectId};

/// Rows that are read in one transaction, so that a long replay never holds one open.
const PAGE_ROWS: i64 = 500;

impl Store {
    /// Calls `use_event` with every event of a project whose body is kept, in the order of their
    /// arrival. A damaged body is passed over; `backstop check` reports it.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn each_event(
        &self,
        project: ProjectId,
        mut use_event: impl FnMut(IssueId, Event),
    ) -> Result<(), Error> {
        let mut after = 0_i64;
        loop {
            let rows: Vec<(i64, EventRow)> = self.read(|tx| {
                let sql = format!(
                    "{EVENT_COLUMNS} WHERE e.seq > ? AND e.project = ? ORDER BY e.seq LIMIT ?"
                );
                let mut statement = tx.prepare_cached(&sql)?;
                let rows = statement.query_map((after, project, PAGE_ROWS), |row| {
                    Ok((row.get(9)?, event_of_row(row)?))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            after = *last;
            for (_, row) in &rows {
                let Ok(stored) = self.unpack(row) else {
                    continue;
                };
                if let Ok(event) = Event::decode(&stored.json) {
                    use_event(row.issue, event);
                }
            }
        }
    }
}
