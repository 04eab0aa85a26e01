//! The families of `std::io::Error`, to catch by: `ConnectionRefused` is a `ConnectionError` is
//! an `io::Error`.
//!
//! `io::Error` is one type for many errors; these names stand for its kinds and for groups of
//! them, as Python's `OSError` tree has them:
//! <https://docs.python.org/3/library/exceptions.html#os-exceptions>.
//! They are used only as `Caught<backstop::io::ConnectionError>`; there are no values.

use std::fmt;
use std::io::ErrorKind;

use crate::kind::Key;

macro_rules! families {
    ($($(#[doc = $doc:literal])* $name:ident)*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl fmt::Display for $name {
                fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                    match *self {}
                }
            }

            impl std::error::Error for $name {}
        )*

        /// Tells whether a key stands for a family, of which there are no values.
        pub(crate) fn is_family(key: Key) -> bool {
            [$(Key::of::<$name>()),*].contains(&key)
        }
    };
}

families! {
    /// The other side could not be reached, or the connection to it was lost.
    ConnectionError
    /// The other side refused the connection.
    ConnectionRefused
    /// The other side reset the connection.
    ConnectionReset
    /// The connection was aborted.
    ConnectionAborted
    /// The other side no longer reads.
    BrokenPipe
    /// There is no such file or directory.
    FileNotFound
    /// The file exists already.
    FileExists
    /// The operation is not permitted.
    PermissionError
    /// The operation did not finish in time.
    TimeoutError
    /// The disk is full.
    StorageFull
    /// The operation was interrupted.
    Interrupted
    /// The data ended too early.
    UnexpectedEof
}

/// The keys of an `io::Error` of this kind, nearest first, without `io::Error` itself.
pub(crate) fn families_of(kind: ErrorKind) -> &'static [Key] {
    const CONNECTION: Key = Key::of::<ConnectionError>();
    match kind {
        ErrorKind::ConnectionRefused => const { &[Key::of::<ConnectionRefused>(), CONNECTION] },
        ErrorKind::ConnectionReset => const { &[Key::of::<ConnectionReset>(), CONNECTION] },
        ErrorKind::ConnectionAborted => const { &[Key::of::<ConnectionAborted>(), CONNECTION] },
        ErrorKind::BrokenPipe => const { &[Key::of::<BrokenPipe>(), CONNECTION] },
        ErrorKind::NotConnected
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => const { &[CONNECTION] },
        ErrorKind::NotFound => const { &[Key::of::<FileNotFound>()] },
        ErrorKind::AlreadyExists => const { &[Key::of::<FileExists>()] },
        ErrorKind::PermissionDenied => const { &[Key::of::<PermissionError>()] },
        ErrorKind::TimedOut => const { &[Key::of::<TimeoutError>()] },
        ErrorKind::StorageFull => const { &[Key::of::<StorageFull>()] },
        ErrorKind::Interrupted => const { &[Key::of::<Interrupted>()] },
        ErrorKind::UnexpectedEof => const { &[Key::of::<UnexpectedEof>()] },
        _ => &[],
    }
}
