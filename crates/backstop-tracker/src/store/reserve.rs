//! Room on the disk that is kept back for merging the log.
//!
//! The log gives its room back only after it was merged, and merging makes the file larger. A
//! store that had written the last byte of its disk could therefore never go on by itself. So a
//! serving store keeps a file without content beside it, gives it up when the log cannot be
//! merged, and takes no events until there is room for it again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use super::error::{Error, ErrorKind, Fault};
use super::{Store, lock_file};

/// The file's name in the data directory.
const FILE: &str = "backstop.reserve";
/// Merging a log of usual size, a thousand events, makes the file a few megabytes larger.
const BYTES: u64 = 16 << 20;
/// What must be left beside it: room for the log to begin anew.
const MARGIN_BYTES: u64 = 4 << 20;

/// What is known of the reserve; locked while it is given up or taken.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// The disk is of a kind that cannot promise room.
    cannot_be_had: bool,
}

impl Store {
    /// Sees to it that the reserve is there, unless it cannot be had on such a disk; waits while
    /// it is used for merging, because nothing can be written then anyway.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] if there is no room for it.
    pub(crate) fn keep_reserve(&self) -> Result<(), Error> {
        // A disk of a test has no room that could be asked for, and nobody gives a reserve up
        // where the writer merges the log itself.
        if self.0.opening.vfs.is_some() || !self.0.merge_log_aside {
            return Ok(());
        }
        self.take(&mut self.reserve())
    }

    fn reserve(&self) -> MutexGuard<'_, Reserve> {
        let reserve = self.0.reserve.lock();
        reserve.unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges the whole log with the room of the reserve, and takes the reserve again if there
    /// is room for it.
    ///
    /// # Errors
    ///
    /// The log cannot be merged even so.
    pub(crate) fn merge_log_with_reserve(&self) -> Result<(), Error> {
        let mut reserve = self.reserve();
        match fs::remove_file(self.reserve_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("cannot give up the reserve", error));
            }
            _ => {}
        }
        let connection = self.0.opening.reader()?;
        // Ends the log's file as well, which is where the room comes back from.
        let in_the_way: bool = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(Fault::from)?;
        // Whoever writes next is told if there is none.
        let _ = self.take(&mut reserve);
        match in_the_way {
            // It says so as a result, and not as an error.
            true => Err(Error::new(
                ErrorKind::Busy,
                "somebody reads from the log; it is merged as soon as they have ended",
            )),
            false => Ok(()),
        }
    }

    fn reserve_path(&self) -> PathBuf {
        self.0.directory.join(FILE)
    }

    fn take(&self, reserve: &mut Reserve) -> Result<(), Error> {
        let path = self.reserve_path();
        if reserve.cannot_be_had || fs::metadata(&path).is_ok_and(|file| is_whole(&file)) {
            return Ok(());
        }
        let file = lock_file(&self.0.directory, FILE)?;
        let allocated = allocate(&file);
        let room = room(&self.0.directory);
        if allocated.is_ok() && room.is_none_or(|room| room >= MARGIN_BYTES) {
            return Ok(());
        }
        // What is left of it must not pass for a reserve.
        drop(file);
        let _ = fs::remove_file(&path);
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        match allocated {
            Err(error) if !full.contains(&error.kind()) => {
                tracing::warn!(
                    %error,
                    "no room can be kept back on this disk; a store that fills it will need more before it goes on"
                );
                reserve.cannot_be_had = true;
                Ok(())
            }
            _ => Err(no_room()),
        }
    }
}

/// A file that was copied without its empty parts has the length, and keeps no room back.
fn is_whole(file: &fs::Metadata) -> bool {
    #[cfg(unix)]
    let allocated = std::os::unix::fs::MetadataExt::blocks(file) * 512;
    #[cfg(not(unix))]
    let allocated = BYTES;
    file.len() == BYTES && allocated >= BYTES
}

fn no_room() -> Error {
    let megabytes = (BYTES + MARGIN_BYTES) >> 20;
    Error::new(
        ErrorKind::Full,
        format!("the disk has less than {megabytes} MB left; make room"),
    )
}

/// Returns how many bytes may still be written; `None` where the system does not tell.
fn room(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(target_os = "linux")]
fn allocate(file: &File) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::empty();
    Ok(rustix::io::retry_on_intr(|| {
        fallocate(file, flags, 0, BYTES)
    })?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backstop_protocol::{Event, Timestamp};

    use super::*;
    use crate::digest::{Digest, Incoming};
    use crate::model::NewProject;

    #[test]
    fn the_reserve_is_kept_given_up_and_taken_again() {
        let data = tempfile::TempDir::new().unwrap();
        let store = Store::open(data.path()).unwrap();
        let path = data.path().join(FILE);
        assert!(!path.exists(), "only a server needs it");
        store.keep_reserve().unwrap();
        // The disk may be of a kind that cannot promise room.
        let kept = fs::metadata(&path).map(|file| file.len()).ok();
        assert!(kept.is_none_or(|bytes| bytes == BYTES));
        store.merge_log_with_reserve().unwrap();
        assert_eq!(fs::metadata(&path).map(|file| file.len()).ok(), kept);
        let log = data.path().join("backstop.db-wal");
        assert_eq!(fs::metadata(log).map_or(0, |file| file.len()), 0);
    }

    #[test]
    fn events_wait_while_the_reserve_is_used() {
        let data = tempfile::TempDir::new().unwrap();
        let store = Store::open(data.path()).unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let wish = NewProject {
            name: "shop".into(),
            ..NewProject::default()
        };
        let project = store.create_project(&wish, now).unwrap();
        let digest = Digest::start(store.clone()).unwrap();
        let incoming = Incoming {
            project: project.id,
            key: None,
            received: now,
        };
        let prepared = digest.prepare(incoming, Event::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut submitted = Box::pin(digest.submit(vec![prepared]));
        let reserve = store.reserve();
        let waits = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(20), &mut submitted).await
        });
        assert!(waits.is_err());
        drop(reserve);
        let stored = runtime.block_on(submitted);
        assert_eq!(stored.map(|stored| stored.len()), Ok(1));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_keeps_no_room_back_is_made_anew() {
        let data = tempfile::TempDir::new().unwrap();
        let store = Store::open(data.path()).unwrap();
        let path = data.path().join(FILE);
        File::create(&path).unwrap().set_len(BYTES).unwrap();
        store.keep_reserve().unwrap();
        // On a disk that cannot promise room there is none.
        let kept = fs::metadata(&path).map(|file| std::os::unix::fs::MetadataExt::blocks(&file));
        assert!(kept.is_ok_and(|blocks| blocks * 512 >= BYTES) || !path.exists());
    }

    #[test]
    fn a_reserve_that_was_cut_off_is_made_anew() {
        let data = tempfile::TempDir::new().unwrap();
        let store = Store::open(data.path()).unwrap();
        fs::write(data.path().join(FILE), "half").unwrap();
        store.keep_reserve().unwrap();
        let kept = fs::metadata(data.path().join(FILE)).map(|file| file.len());
        assert_ne!(kept.ok(), Some(4));
    }
}
