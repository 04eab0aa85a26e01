//! Where separate debug information lies, besides the places that everybody uses.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Directories that are searched; each costs one look for each module without debug information.
const DIRECTORIES_MAX: usize = 16;

static OWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Adds a directory of separate debug files: `<directory>/.build-id/ab/cdef….debug`.
///
/// It is searched before `/usr/lib/debug`. Call it at start, before anything is captured:
/// what was looked for and not found is not looked for again.
///
/// # Example
///
/// ```
/// backstop_capture::debug_directory("/srv/shop/debug");
/// backstop_capture::warm_up();
/// ```
pub fn debug_directory(directory: impl Into<PathBuf>) {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if own.len() < DIRECTORIES_MAX {
        own.push(directory.into());
    }
}

/// The directories that were added.
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    expect(dead_code, reason = "debug information is read on x86-64 Linux only")
)]
pub(crate) fn own() -> Vec<PathBuf> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
