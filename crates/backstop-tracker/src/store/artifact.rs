//! Releases, and the files that belong to them.

use std::sync::atomic::Ordering;

use backstop_protocol::Timestamp;
use rusqlite::{OptionalExtension, Transaction};
use sha1::{Digest as _, Sha1};

use super::error::{Error, ErrorKind, Fault};
use super::{Store, source_file};
use crate::record::{Assembly, NewArtifact, Release};
use crate::sourcemap::bundle;

/// Pieces that nobody asked for again are forgotten.
const CHUNK_AGE_MAX_MICROS: i64 = 86_400 * 1_000_000;
/// All pieces at one moment.
const CHUNK_BYTES_MAX: i64 = 2 << 30;
/// All files; beyond it the oldest go.
const ARTIFACT_BYTES_MAX: i64 = 8 << 30;
const RELEASES_MAX: i64 = 1_000;
/// One file that is put together; it is in memory for a moment.
pub const ASSEMBLED_BYTES_MAX: usize = 256 << 20;

impl Store {
    /// Keeps pieces of files until they are put together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] if too many pieces wait already.
    pub fn add_chunks(&self, chunks: &[Vec<u8>], now: Timestamp) -> Result<(), Error> {
        self.write(|tx| {
            tx.execute(
                "DELETE FROM chunk WHERE created < ?",
                [now.micros() - CHUNK_AGE_MAX_MICROS],
            )?;
            for chunk in chunks {
                let sha1: [u8; 20] = Sha1::digest(chunk).into();
                tx.execute(
                    "INSERT INTO chunk (sha1, created, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (sha1, now.micros(), chunk),
                )?;
            }
            let bytes: i64 = tx.query_row(
                "SELECT coalesce(sum(length(body)), 0) FROM chunk",
                [],
                |row| row.get(0),
            )?;
            if bytes > CHUNK_BYTES_MAX {
                return Err(Error::new(ErrorKind::Full, "too many pieces of files wait").into());
            }
            Ok(())
        })
    }

    /// Puts a file together, or says which pieces are missing.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn assemble(&self, wish: &NewArtifact) -> Result<Assembly, Error> {
        let assembly = self.write(|tx| {
            if is_there(tx, wish)? {
                return Ok(Assembly::Done);
            }
            let (mut body, mut missing) = (Vec::new(), Vec::new());
            for sha1 in &wish.chunks {
                let chunk: Option<Vec<u8>> = tx
                    .prepare_cached("SELECT body FROM chunk WHERE sha1 = ?")?
                    .query_row([sha1], |row| row.get(0))
                    .optional()?;
                match chunk {
                    Some(chunk) if body.len() + chunk.len() > ASSEMBLED_BYTES_MAX => {
                        return Ok(Assembly::Refused("the file is too large"));
                    }
                    Some(chunk) => body.extend(chunk),
                    None => missing.push(*sha1),
                }
            }
            if !missing.is_empty() || wish.chunks.is_empty() {
                return Ok(Assembly::Missing(missing));
            }
            if <[u8; 20]>::from(Sha1::digest(&body)) != wish.sha1 {
                let why = "the checksum of the whole is not that of its pieces";
                return Ok(Assembly::Refused(why));
            }
            if wish.kind == "bundle" {
                let bundle = match bundle::read(&body) {
                    Ok(bundle) => bundle,
                    Err(why) => return Ok(Assembly::Refused(why)),
                };
                // The files are kept each by itself.
                let artifact = insert(tx, wish, body.len(), &[])?;
                source_file::insert(tx, artifact, wish, &bundle)?;
            } else {
                insert(tx, wish, body.len(), &body)?;
            }
            for sha1 in &wish.chunks {
                tx.execute("DELETE FROM chunk WHERE sha1 = ?", [sha1])?;
            }
            Ok(Assembly::Done)
        })?;
        self.0.uploads.fetch_add(1, Ordering::Release);
        Ok(assembly)
    }

    /// Keeps what a client said of a release; says whether it is new.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn put_release(&self, organization: &str, release: &Release) -> Result<bool, Error> {
        self.write(|tx| {
            let known = one_release(tx, organization, &release.version)?.is_some();
            tx.execute(
                "INSERT INTO release (organization, version, created, body) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET body = excluded.body",
                (
                    organization,
                    &release.version,
                    release.created.micros(),
                    &release.body,
                ),
            )?;
            Ok(!known)
        })
    }

    /// Returns one release.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn release(&self, organization: &str, version: &str) -> Result<Option<Release>, Error> {
        self.read(|tx| one_release(tx, organization, version))
    }

    /// Returns the releases of an organization, newest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn releases(&self, organization: &str) -> Result<Vec<Release>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT version, created, body FROM release WHERE organization = ?
                     ORDER BY created DESC LIMIT ?",
                )?
                .query_map((organization, RELEASES_MAX), |row| {
                    Ok(Release {
                        version: row.get(0)?,
                        created: Timestamp::from_micros(row.get(1)?),
                        body: row.get(2)?,
                    })
                })?
                .collect::<Result<_, _>>()?)
        })
    }

    /// Forgets a release and its files; says whether there was one.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn delete_release(&self, organization: &str, version: &str) -> Result<bool, Error> {
        let deleted = self.write(|tx| {
            tx.execute(
                "DELETE FROM artifact WHERE organization = ? AND release = ?",
                (organization, version),
            )?;
            let deleted = tx.execute(
                "DELETE FROM release WHERE organization = ? AND version = ?",
                (organization, version),
            )?;
            Ok(deleted > 0)
        })?;
        self.0.uploads.fetch_add(1, Ordering::Release);
        Ok(deleted)
    }
}

fn is_there(tx: &Transaction<'_>, wish: &NewArtifact) -> Result<bool, Fault> {
    let found = tx
        .prepare_cached("SELECT 1 FROM artifact WHERE organization = ? AND sha1 = ? AND kind = ?")?
        .query_row((&wish.organization, wish.sha1, wish.kind), |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

fn insert(
    tx: &Transaction<'_>,
    wish: &NewArtifact,
    size: usize,
    body: &[u8],
) -> Result<i64, Fault> {
    tx.execute(
        "INSERT INTO artifact
           (organization, sha1, kind, name, debug_id, release, dist, size, created, body)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            &wish.organization,
            wish.sha1,
            wish.kind,
            &wish.name,
            &wish.debug_id,
            &wish.release,
            &wish.dist,
            size as i64,
            wish.created.micros(),
            body,
        ),
    )?;
    let id = tx.last_insert_rowid();
    let mut total: i64 = tx.query_row("SELECT sum(size) FROM artifact", [], |row| row.get(0))?;
    while total > ARTIFACT_BYTES_MAX {
        total -= tx.query_row(
            "DELETE FROM artifact WHERE id = (SELECT min(id) FROM artifact) RETURNING size",
            [],
            |row| row.get::<_, i64>(0),
        )?;
    }
    Ok(id)
}

fn one_release(
    tx: &Transaction<'_>,
    organization: &str,
    version: &str,
) -> Result<Option<Release>, Fault> {
    Ok(tx
        .prepare_cached(
            "SELECT version, created, body FROM release WHERE organization = ? AND version = ?",
        )?
        .query_row((organization, version), |row| {
            Ok(Release {
                version: row.get(0)?,
                created: Timestamp::from_micros(row.get(1)?),
                body: row.get(2)?,
            })
        })
        .optional()?)
}
