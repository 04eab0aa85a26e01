//! Why the store could not do something.

use std::fmt;

use rusqlite::ErrorCode;

/// Why the store could not do something.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for does not exist.
    NotFound,
    /// What was to be made exists already.
    Conflict,
    /// The wish itself makes no sense.
    Invalid,
    /// Another process holds the store for longer than we wait.
    Busy,
    /// The disk is full.
    Full,
    /// The directory or file may not be written.
    ReadOnly,
    /// The file is damaged.
    Corrupt,
    /// The disk failed.
    Io,
    /// The file was written by a newer version of the program.
    Newer,
    /// Something that should not happen.
    Internal,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            text: text.into(),
            source: None,
        }))
    }

    pub(crate) fn io(text: impl Into<String>, source: std::io::Error) -> Error {
        let kind = match source.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::ReadOnly
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Io,
        };
        Error(Box::new(Inner {
            kind,
            text: text.into(),
            source: Some(Box::new(source)),
        }))
    }

    fn sqlite(source: rusqlite::Error) -> Error {
        let (kind, text) = match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                (ErrorKind::Busy, "another process is using the store")
            }
            Some(ErrorCode::DiskFull) => (ErrorKind::Full, "the disk is full"),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                (ErrorKind::ReadOnly, "the store may not be written")
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                ErrorKind::Corrupt,
                "the store is damaged; run `backstop check`",
            ),
            Some(ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed) => {
                (ErrorKind::Io, "the disk failed")
            }
            Some(ErrorCode::CannotOpen) => (
                ErrorKind::Io,
                "the store's file cannot be opened; check that it exists and its permissions",
            ),
            Some(ErrorCode::ConstraintViolation) => {
                (ErrorKind::Conflict, "the store has such an entry already")
            }
            _ => (ErrorKind::Internal, "the database refused"),
        };
        Error(Box::new(Inner {
            kind,
            text: text.to_owned(),
            source: Some(Box::new(source)),
        }))
    }

    /// Returns what kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Says whether the cause lies in the surroundings and may go away by itself.
    pub fn is_passing(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Busy | ErrorKind::Full | ErrorKind::ReadOnly | ErrorKind::Io
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        match &self.0.source {
            Some(source) if f.alternate() => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

/// A failure inside the store, before it is told to the world.
///
/// It lets `?` take the driver's errors without making the driver part of the public interface.
#[derive(Debug)]
pub(super) enum Fault {
    Said(Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(source: rusqlite::Error) -> Fault {
        Fault::Sqlite(source)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Said(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Said(error) => error,
            Fault::Sqlite(source) => Error::sqlite(source),
        }
    }
}
