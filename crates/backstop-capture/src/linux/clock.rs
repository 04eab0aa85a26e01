//! The time a capture has worked.

use std::time::{Duration, Instant};

/// Counts the CPU time of the thread: a busy machine that lets it wait costs no variables.
pub(crate) struct Clock {
    cpu: Duration,
    wall: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock {
            cpu: now(),
            wall: Instant::now(),
        }
    }

    /// Whether more time than this was worked for.
    pub(crate) fn has_passed(&self, limit: Duration) -> bool {
        // No thread works longer than time goes by, and the kernel need not be asked for that.
        self.wall.elapsed() > limit && self.elapsed() > limit
    }

    pub(crate) fn elapsed(&self) -> Duration {
        now().saturating_sub(self.cpu)
    }
}

fn now() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` has room for what the call writes; on failure it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
