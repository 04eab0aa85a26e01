//! Where separate debug information lies, besides the places that everybody uses.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Directories that are searched; each costs one look for each module without debug information.
const DIRECTORIES_MAX: usize = 16;

/// Adding one allocates nothing under the lock: an allocator that captures may need the lock.
static OWN: Mutex<[Option<PathBuf>; DIRECTORIES_MAX]> =
    Mutex::new([const { None }; DIRECTORIES_MAX]);

/// Adds a directory of separate debug files: `<directory>/.build-id/ab/cdef….debug`.
///
/// For shared libraries nothing but names is read of the debug files in `/usr/lib/debug`, unless
/// that is added here. Up to 16 can be added; more are ignored. It is searched before `/usr/lib/debug`. Call it at start, before anything is captured:
/// what was looked for and not found is not looked for again.
///
/// # Example
///
/// ```
/// backstop_capture::debug_directory("/srv/shop/debug");
/// backstop_capture::warm_up();
/// ```
pub fn debug_directory(directory: impl Into<PathBuf>) {
    let directory = directory.into();
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(free) = own.iter_mut().find(|own| own.is_none()) {
        *free = Some(directory);
    }
}

/// The directories that were added; asked for inside a capture only, where none begins anew.
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    expect(dead_code, reason = "debug information is read on x86-64 Linux only")
)]
pub(crate) fn own() -> Vec<PathBuf> {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    own.iter().flatten().cloned().collect()
}
