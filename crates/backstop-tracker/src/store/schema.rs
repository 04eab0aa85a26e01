//! The versions of the schema, and the way from each to the next.

use rusqlite::{Connection, TransactionBehavior};

use super::error::{Error, ErrorKind, Fault};

/// Marks the file as ours for tools such as `file`: "BkSt".
const APPLICATION_ID: i32 = 0x426b_5374;

/// One step per version; a released step never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_first.sql"),
    include_str!("../../migrations/sqlite/0002_records.sql"),
    include_str!("../../migrations/sqlite/0003_artifacts.sql"),
    include_str!("../../migrations/sqlite/0004_groups.sql"),
    include_str!("../../migrations/sqlite/0005_source_files.sql"),
    include_str!("../../migrations/sqlite/0006_mails.sql"),
    include_str!("../../migrations/sqlite/0007_sketches.sql"),
    include_str!("../../migrations/sqlite/0008_delivery.sql"),
    include_str!("../../migrations/sqlite/0009_tag_packs.sql"),
    include_str!("../../migrations/sqlite/0010_fresh_ids.sql"),
];

/// Brings a file of any earlier version to this one; each step is one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    loop {
        // The version is read inside the transaction: another process may migrate at the same time.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: usize =
            transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > MIGRATIONS.len() {
            return Err(Error::new(
                ErrorKind::Newer,
                format!(
                    "the store has schema {version}, and this program knows up to {}; use a newer backstop",
                    MIGRATIONS.len()
                ),
            )
            .into());
        }
        let Some(step) = MIGRATIONS.get(version) else {
            return Ok(());
        };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
}
