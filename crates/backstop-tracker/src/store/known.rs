//! Whether an event would be the first of its issue.

use rusqlite::OptionalExtension;

use super::Store;
use super::error::Error;
use crate::digest::Prepared;

impl Store {
    /// Says whether an event belongs to an issue that is there.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub(crate) fn knows_issue(&self, event: &Prepared) -> Result<bool, Error> {
        self.read(|tx| {
            let mut query = tx.prepare_cached(
                "SELECT 1 FROM issue_hash WHERE project = ? AND version = ? AND hash = ?",
            )?;
            for key in event.keys.iter().filter(|key| key.find) {
                let place = (event.project, event.version, key.hash.as_bytes());
                if query.query_row(place, |_| Ok(())).optional()?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}
