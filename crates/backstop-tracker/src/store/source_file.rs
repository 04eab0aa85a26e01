//! Minified files and their source maps, found by debug id or by release and address.

use std::sync::atomic::Ordering;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::Store;
use super::error::{Error, Fault};
use crate::model::ProjectId;
use crate::record::{BundleFile, FileKind, NewArtifact, Packing};
use crate::sourcemap::bundle::Bundle;

/// Builds of one release that have a file of one address.
const DISTS_MAX: i64 = 100;

const COLUMNS: &str = "kind, url, debug_id, map_url, packing, body";
const ORGANIZATION: &str = "organization = (SELECT organization.slug FROM project
       JOIN organization ON organization.id = project.organization WHERE project.id = ?)";

impl Store {
    /// Counts the changes of uploaded files; what was read before the last one may be old.
    pub fn uploads(&self) -> u64 {
        self.0.uploads.load(Ordering::Acquire)
    }

    /// Returns the newest file that a debug id names.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn file_of_debug_id(
        &self,
        project: ProjectId,
        debug_id: &str,
        kind: FileKind,
    ) -> Result<Option<BundleFile>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM source_file WHERE {ORGANIZATION} AND debug_id = ? AND kind = ?
             ORDER BY id DESC LIMIT 1"
        );
        self.read(|tx| {
            let found = tx
                .prepare_cached(&sql)?
                .query_row((project.0, debug_id, kind), file)
                .optional()?;
            Ok(found)
        })
    }

    /// Returns the newest file that a release has under an address: of the same build, else of a
    /// release without builds, else of the one build that there is.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn file_of_release(
        &self,
        project: ProjectId,
        release: &str,
        dist: Option<&str>,
        url: &str,
    ) -> Result<Option<BundleFile>, Error> {
        let builds = format!(
            "SELECT max(id), dist FROM source_file WHERE {ORGANIZATION} AND release = ? AND url = ?
             GROUP BY dist LIMIT {DISTS_MAX}"
        );
        let file_sql = format!("SELECT {COLUMNS} FROM source_file WHERE id = ?");
        self.read(|tx| {
            let builds: Vec<(i64, Option<String>)> = tx
                .prepare_cached(&builds)?
                .query_map((project.0, release, url), |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect::<Result<_, _>>()?;
            let of = |wanted: Option<&str>| {
                let found = builds.iter().find(|(_, dist)| dist.as_deref() == wanted);
                found.map(|(id, _)| *id)
            };
            let only = match (&builds[..], dist) {
                ([(id, _)], None) => Some(*id),
                _ => None,
            };
            let Some(id) = of(dist).or_else(|| of(None)).or(only) else {
                return Ok(None);
            };
            Ok(Some(tx.prepare_cached(&file_sql)?.query_row([id], file)?))
        })
    }
}

pub(super) fn insert(
    tx: &Transaction<'_>,
    artifact: i64,
    wish: &NewArtifact,
    bundle: &Bundle,
) -> Result<(), Fault> {
    let release = wish.release.as_ref().or(bundle.release.as_ref());
    let dist = wish.dist.as_ref().or(bundle.dist.as_ref());
    let mut insert = tx.prepare_cached(
        "INSERT INTO source_file
           (artifact, organization, release, dist, kind, url, debug_id, map_url, packing, body)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for file in &bundle.files {
        insert.execute((
            artifact,
            &wish.organization,
            release,
            dist,
            file.kind,
            &file.url,
            &file.debug_id,
            &file.map_url,
            file.packing,
            &file.body,
        ))?;
    }
    Ok(())
}

fn file(row: &Row<'_>) -> rusqlite::Result<BundleFile> {
    Ok(BundleFile {
        kind: row.get(0)?,
        url: row.get(1)?,
        debug_id: row.get(2)?,
        map_url: row.get(3)?,
        packing: row.get(4)?,
        body: row.get(5)?,
    })
}

impl ToSql for FileKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            FileKind::Source => "source",
            FileKind::Map => "map",
        }
        .into())
    }
}

impl FromSql for FileKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<FileKind> {
        match value.as_str()? {
            "source" => Ok(FileKind::Source),
            "map" => Ok(FileKind::Map),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Packing {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Packing::Stored => 0,
            Packing::Deflate => 8,
            Packing::Zstd => 93,
        }
        .into())
    }
}

impl FromSql for Packing {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Packing> {
        match value.as_i64()? {
            0 => Ok(Packing::Stored),
            8 => Ok(Packing::Deflate),
            93 => Ok(Packing::Zstd),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}
