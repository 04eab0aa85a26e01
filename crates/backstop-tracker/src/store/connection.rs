//! One writer, a few readers, and how each is opened.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::apply::Caches;
use super::error::{Error, ErrorKind, Fault};

/// The command line writes at the same time as the server; both wait for each other this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages are queried by people, a few at a time; more connections only cost memory.
const READERS_MAX: usize = 4;

/// Statements are few and all are known, so each is prepared once per connection.
const STATEMENTS_CACHED_MAX: usize = 128;

/// Holds the hot pages of counters and indexes of some ten thousand issues.
const WRITER_CACHE_KIB: i64 = 24 * 1024;
const READER_CACHE_KIB: i64 = 2 * 1024;

/// How a file is opened, apart from its path.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) path: PathBuf,
    /// The name of an SQLite VFS, for tests over a faulty disk.
    pub(super) vfs: Option<String>,
    pub(super) log_pages_max: u32,
}

impl Opening {
    pub(super) fn writer(&self) -> Result<Connection, Fault> {
        let connection = self.connect()?;
        // Must come before the first table; an existing file keeps its own.
        connection.pragma_update(None, "page_size", 4096)?;
        // The answer comes before the change is committed: only the end of the statement tells
        // whether it was.
        let modes = connection
            .prepare("PRAGMA journal_mode = wal")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        if modes != ["wal"] {
            // SQLite goes on without a word, and readers and the writer would wait for each other.
            return Err(Error::new(
                ErrorKind::Io,
                "the store cannot have a write-ahead log: the disk failed, or is of a kind that cannot share memory",
            )
            .into());
        }
        // Every commit reaches the disk before it is answered.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", self.log_pages_max)?;
        Ok(connection)
    }

    pub(super) fn reader(&self) -> Result<Connection, Fault> {
        let connection = self.connect()?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.path, flags, vfs.as_str())?,
            None => Connection::open_with_flags(&self.path, flags)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED_MAX);
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // A damaged page becomes an error instead of a wrong answer.
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    }
}

/// The one connection that writes, and what it remembers between transactions.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    caches: Caches,
    data_version: i64,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Writer {
        Writer {
            connection,
            caches: Caches::default(),
            data_version: 0,
        }
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Runs one transaction; whatever `work` did is on the disk when this returns `Ok`.
    ///
    /// The caches are dropped where they could be wrong: after a failure, and when another
    /// process has written.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut Caches) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let result = self.try_transaction(work);
        if result.is_err() {
            self.caches = Caches::default();
        }
        result
    }

    fn try_transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut Caches) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let data_version = transaction
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if data_version != self.data_version {
            self.caches = Caches::default();
            self.data_version = data_version;
        }
        let value = work(&transaction, &mut self.caches)?;
        transaction.commit()?;
        Ok(value)
    }
}

/// The writer behind a lock that lets a waiting caller in before the digest takes it again.
#[derive(Debug)]
pub(super) struct WriterLock {
    /// Held only while waiting for `writer`, so that two callers in turn alternate.
    gate: Mutex<()>,
    writer: Mutex<Writer>,
}

impl WriterLock {
    pub(super) fn new(writer: Writer) -> WriterLock {
        WriterLock {
            gate: Mutex::new(()),
            writer: Mutex::new(writer),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Writer> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic while the lock was held rolled its transaction back; the connection is sound.
        self.writer.lock().unwrap_or_else(|poisoned| {
            let mut writer = poisoned.into_inner();
            writer.caches = Caches::default();
            self.writer.clear_poison();
            writer
        })
    }
}

/// A few connections that only read.
#[derive(Debug)]
pub(super) struct Readers {
    opening: Opening,
    idle: Mutex<Idle>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Connection>,
    open: usize,
}

impl Readers {
    pub(super) fn new(opening: Opening) -> Readers {
        Readers {
            opening,
            idle: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs `work` on one unchanging state of the store.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let mut lease = self.lease();
        let connection = lease.connection.take();
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.opening.reader()?,
        };
        let result = connection
            .transaction()
            .map_err(Fault::from)
            .and_then(|transaction| work(&transaction));
        // A connection that failed is not kept: the file may have been replaced or mended.
        if !matches!(result, Err(Fault::Sqlite(_))) {
            lease.connection = Some(connection);
        }
        Ok(result?)
    }

    fn lease(&self) -> Lease<'_> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while idle.connections.is_empty() && idle.open >= READERS_MAX {
            idle = self
                .returned
                .wait(idle)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let connection = idle.connections.pop();
        idle.open += usize::from(connection.is_none());
        Lease {
            readers: self,
            connection,
        }
    }
}

/// The right to use one connection; gives it back, also when a caller panics.
struct Lease<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let idle = &self.readers.idle;
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        match self.connection.take() {
            Some(connection) => idle.connections.push(connection),
            None => idle.open -= 1,
        }
        self.readers.returned.notify_one();
    }
}
