//! Everything that touches the database.
//!
//! A [`Store`] is one SQLite file in a directory; its methods are use cases, each with its
//! transaction inside, and all of them block: call them from `spawn_blocking`.
//! Time is an argument wherever it matters; nothing here reads a clock.
//! Events come in through [`crate::digest`] alone.

mod account;
mod alert;
pub(crate) mod apply;
mod artifact;
mod backup;
mod check;
mod connection;
mod error;
mod event;
mod fresh;
mod generation;
mod hint;
mod issue;
mod known;
mod maintain;
mod merge;
mod outcome;
mod project;
mod record;
mod replay;
mod reserve;
mod schema;
mod search;
mod source_file;
mod tag;
mod wal;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use rusqlite::Transaction;
use rusqlite::types::ToSql;

pub(crate) use account::PASSWORD_CHARS_MIN;
pub use artifact::ASSEMBLED_BYTES_MAX;
pub use backup::restore;
pub use check::{CheckReport, Finding, Remedy};
pub use error::{Error, ErrorKind};
pub use hint::IssueHint;
pub use merge::{IssueGroup, IssueHash};
pub(crate) use search::{Words, words as search_words};

use crate::model::{IssueId, ProjectId, Status};
use crate::retention::BODY_BYTES_DEFAULT;
use apply::Caches;
use connection::{Opening, Readers, Writer, WriterLock};
use error::Fault;
use event::Dictionaries;
use project::KnownKeys;
use reserve::Reserve;

/// The file's name in the data directory.
const FILE: &str = "backstop.db";

/// Projects, issues, events and people, in one file.
///
/// Clones share the same file and connections.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    repaired: Option<String>,
    /// Held shared as long as the store is open.
    _in_use: File,
    opening: Opening,
    body_bytes_max: u64,
    merge_log_aside: bool,
    fresh_ids_max: usize,
    writer: WriterLock,
    readers: Readers,
    known_keys: KnownKeys,
    /// Counts the changes of uploaded files.
    uploads: AtomicU64,
    dictionaries: Dictionaries,
    reserve: Mutex<Reserve>,
}

/// What may be chosen when a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The name of a registered SQLite VFS; `None` means the operating system's files.
    pub vfs: Option<String>,
    /// Bodies of events are thinned out above this; counts are not touched.
    pub body_bytes_max: u64,
    /// The write-ahead log is merged into the file when it has so many pages.
    pub log_pages_max: u32,
    /// The log is also merged beside the writer, before it becomes that large.
    pub merge_log_aside: bool,
    /// The latest event ids that are held in memory to be written together, at 100 bytes each.
    pub fresh_ids_max: usize,
}

/// Some three megabytes. The more there are, the more of them share a page when they are moved.
const FRESH_IDS_DEFAULT: usize = 32_768;

/// 64 MB: reached only when merging aside cannot keep up, and a start reads the log once.
const LOG_PAGES_DEFAULT: u32 = 16_000;

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            vfs: None,
            body_bytes_max: BODY_BYTES_DEFAULT,
            log_pages_max: LOG_PAGES_DEFAULT,
            merge_log_aside: true,
            fresh_ids_max: FRESH_IDS_DEFAULT,
        }
    }
}

/// Keeps a second server away from a data directory while it lives.
#[derive(Debug)]
pub struct ServeLock {
    _file: File,
}

/// Turns "there is no such thing" into `None`.
///
/// # Errors
///
/// Every other error.
pub fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Store {
    /// Opens the store in `directory`; makes both if they are not there.
    ///
    /// Any number of processes may have it open; see [`Store::lock_for_serving`].
    ///
    /// # Errors
    ///
    /// - The directory cannot be made or written.
    /// - The file is damaged, or was written by a newer version.
    pub fn open(directory: impl AsRef<Path>) -> Result<Store, Error> {
        Store::open_with(directory, &StoreOptions::default())
    }

    /// Opens the store with options.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_with(directory: impl AsRef<Path>, options: &StoreOptions) -> Result<Store, Error> {
        let directory = directory.as_ref();
        make_directory(directory)?;
        let opening = Opening {
            path: directory.join(FILE),
            vfs: options.vfs.clone(),
            log_pages_max: options.log_pages_max,
        };
        // Two processes that make the same file at the same moment would meet half a file.
        let lock = lock_file(directory, "open.lock")?;
        lock.lock()
            .map_err(|error| Error::io("cannot lock the data directory", error))?;
        // The log of a store in use is never at rest, so only the first to open it looks.
        let in_use = lock_file(directory, "use.lock")?;
        let is_first = in_use.try_lock().is_ok();
        let repaired = match options.vfs {
            None if is_first => wal::inspect(&opening.path)?,
            _ => None,
        };
        in_use
            .unlock()
            .and_then(|()| in_use.lock_shared())
            .map_err(|error| Error::io("cannot lock the data directory", error))?;
        if options.vfs.is_none() {
            make_private(&opening.path);
        }
        let mut writer = opening.writer()?;
        schema::migrate(&mut writer)?;
        sync_directory(directory)?;
        drop(lock);
        Ok(Store(Arc::new(Inner {
            directory: directory.to_owned(),
            repaired,
            _in_use: in_use,
            body_bytes_max: options.body_bytes_max,
            merge_log_aside: options.merge_log_aside,
            fresh_ids_max: options.fresh_ids_max,
            writer: WriterLock::new(Writer::new(writer)),
            readers: Readers::new(opening.clone()),
            opening,
            known_keys: KnownKeys::default(),
            uploads: AtomicU64::new(0),
            dictionaries: Dictionaries::default(),
            reserve: Mutex::default(),
        })))
    }

    /// Says whether there is a store in a directory, or might be one that cannot be seen.
    pub(crate) fn may_be_in(directory: &Path) -> bool {
        match fs::metadata(directory.join(FILE)) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }

    /// Takes the right to serve from this directory; the command line does not need it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] if another server has it.
    pub fn lock_for_serving(&self) -> Result<ServeLock, Error> {
        let file = lock_file(&self.0.directory, "serve.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(ServeLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "another backstop is serving from {}; stop it first or choose another directory",
                    self.0.directory.display()
                ),
            )),
            Err(fs::TryLockError::Error(error)) => {
                Err(Error::io("cannot lock the data directory", error))
            }
        }
    }

    /// Says what was found and mended when the store was opened after a crash, if anything.
    pub fn repaired(&self) -> Option<&str> {
        self.0.repaired.as_deref()
    }

    /// Returns the data directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        self.0.readers.read(work)
    }

    /// Writes something that no cache of the digest knows.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let mut writer = self.0.writer.lock();
        Ok(writer.transaction(|transaction, _| work(transaction))?)
    }

    /// Writes something that the caches of the digest may know: rules, issues, projects.
    fn write_known<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.write_forgetting(Caches::forget_all_but_ids, work)
    }

    /// Writes something that also moves events to another issue.
    fn write_moving<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.write_forgetting(|caches| *caches = Caches::default(), work)
    }

    fn write_forgetting<T>(
        &self,
        forget: impl FnOnce(&mut Caches),
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.0.known_keys.forget();
        let mut writer = self.0.writer.lock();
        Ok(writer.transaction(|transaction, caches| {
            forget(caches);
            work(transaction)
        })?)
    }
}

fn make_directory(directory: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        // Events hold what applications were doing; other users of the machine need not see it.
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    }
    builder.create(directory).map_err(|error| {
        let text = format!("cannot make the data directory {}", directory.display());
        Error::io(text, error)
    })
}

/// Makes a file that only its owner can read, whoever may look into the directory; SQLite gives its
/// log the same rights. One that is there keeps its own.
fn make_private(path: &Path) {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // SQLite says better why a file cannot be made.
    let _ = options.open(path);
}

fn lock_file(directory: &Path, name: &str) -> Result<File, Error> {
    let path = directory.join(name);
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    opened.map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

/// A new file is there after a power cut only once its directory is on the disk.
fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io("cannot write the data directory", error))
}

/// SQLite's numbers are signed; a project's number keeps its 64 bits.
fn project_to_sql(id: ProjectId) -> i64 {
    id.0 as i64
}

fn project_from_sql(number: i64) -> ProjectId {
    ProjectId(number as u64)
}

impl ToSql for ProjectId {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(project_to_sql(*self).into())
    }
}

impl ToSql for IssueId {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl Status {
    fn to_number(self) -> i64 {
        match self {
            Status::Unresolved => 0,
            Status::Resolved => 1,
            Status::Muted => 2,
        }
    }

    fn from_number(number: i64) -> Status {
        match number {
            1 => Status::Resolved,
            2 => Status::Muted,
            _ => Status::Unresolved,
        }
    }
}
