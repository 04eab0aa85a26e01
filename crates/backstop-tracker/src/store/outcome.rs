//! The account of what became of every event.

use backstop_protocol::Timestamp;
use rusqlite::Transaction;

use super::error::{Error, Fault};
use super::{Store, project_from_sql};
use crate::model::{Key, Outcome, ProjectId};
use crate::retention::day_of;

impl Store {
    /// Adds to the account; `accepted` and `duplicate` are counted by the digest itself.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn count_outcomes(&self, outcomes: &[Outcome]) -> Result<(), Error> {
        self.write(|tx| {
            for outcome in outcomes {
                count(
                    tx,
                    outcome.project,
                    outcome.key,
                    outcome.day,
                    &outcome.reason,
                    outcome.count,
                )?;
            }
            Ok(())
        })
    }

    /// Returns the account of a project, or of all, from a day on; newest day first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn outcomes(
        &self,
        project: Option<ProjectId>,
        since: Timestamp,
    ) -> Result<Vec<Outcome>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT project, key, day, reason, n FROM outcome
                     WHERE day >= ?1 AND (?2 IS NULL OR project = ?2)
                     ORDER BY day DESC, project, reason, key",
                )?
                .query_map((day_of(since), project), |row| {
                    let key: Vec<u8> = row.get(1)?;
                    Ok(Outcome {
                        project: project_from_sql(row.get(0)?),
                        key: key.try_into().ok().map(Key),
                        day: row.get(2)?,
                        reason: row.get(3)?,
                        count: row.get(4)?,
                    })
                })?
                .collect::<Result<_, _>>()?)
        })
    }
}

pub(super) fn count(
    tx: &Transaction<'_>,
    project: ProjectId,
    key: Option<Key>,
    day: i64,
    reason: &str,
    n: u64,
) -> Result<(), Fault> {
    let key: &[u8] = key.as_ref().map_or(&[], |key| &key.0);
    tx.prepare_cached(
        "INSERT INTO outcome (project, key, day, reason, n) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET n = n + excluded.n",
    )?
    .execute((project, key, day, reason, n as i64))?;
    Ok(())
}
