//! Copies of the store, made while it is in use, and the way back.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::error::{Error, ErrorKind, Fault};
use super::{FILE, Store, lock_file, make_directory, make_private, sync_directory};

impl Store {
    /// Copies the store into `target`, a directory that has none yet, while others write.
    ///
    /// The copy is the state at one moment, is on the disk when this returns, and can be served
    /// as it is or brought back with [`restore`].
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Conflict`] if there is a store in `target`.
    /// - If the store cannot be read or the target not be written.
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<(), Error> {
        let target = target.as_ref();
        make_directory(target)?;
        refuse_existing(target)?;
        let partial = target.join("backstop.db.partial");
        let copied = self.copy_into(&partial);
        if copied.is_err() {
            // What is half there must not look like a backup; it has no other use.
            let _ = fs::remove_file(&partial);
        }
        copied?;
        put_in_place(&partial, target)
    }

    fn copy_into(&self, file: &Path) -> Result<(), Error> {
        if file.exists() {
            fs::remove_file(file)
                .map_err(|error| Error::io(format!("cannot replace {}", file.display()), error))?;
        }
        make_private(file);
        let mut target = Connection::open(file).map_err(Fault::from)?;
        let source = self.0.opening.reader()?;
        // In one step, because a write between two steps would start the copy anew.
        let backup = Backup::new(&source, &mut target).map_err(Fault::from)?;
        backup.step(-1).map_err(Fault::from)?;
        Ok(())
    }
}

/// Brings a backup back: copies it into `directory`, which has no store yet.
///
/// # Errors
///
/// - [`ErrorKind::NotFound`] if `backup` has no store.
/// - [`ErrorKind::Conflict`] if `directory` has one; move it away first.
pub fn restore(backup: impl AsRef<Path>, directory: impl AsRef<Path>) -> Result<(), Error> {
    let (backup, directory) = (backup.as_ref(), directory.as_ref());
    let source = backup.join(FILE);
    if !source.is_file() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no {FILE} in {}", backup.display()),
        ));
    }
    // A backup that was served since has its last changes in its log; opening it merges them.
    drop(Store::open(backup)?);
    make_directory(directory)?;
    let lock = lock_file(directory, "open.lock")?;
    lock.lock()
        .map_err(|error| Error::io("cannot lock the data directory", error))?;
    refuse_existing(directory)?;
    let partial = directory.join("backstop.db.partial");
    fs::copy(&source, &partial)
        .map_err(|error| Error::io(format!("cannot copy {}", source.display()), error))?;
    put_in_place(&partial, directory)
}

fn refuse_existing(directory: &Path) -> Result<(), Error> {
    match directory.join(FILE).exists() {
        true => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "there is already a store in {}; choose another directory or move it away",
                directory.display()
            ),
        )),
        false => Ok(()),
    }
}

fn put_in_place(partial: &Path, directory: &Path) -> Result<(), Error> {
    File::open(partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(partial, directory.join(FILE)))
        .map_err(|error| Error::io(format!("cannot write {}", directory.display()), error))?;
    sync_directory(directory)
}
