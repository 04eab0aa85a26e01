//! Taking and naming a stack.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Frame, InApp, Policy, Values, VarsMissing};
use crate::{platform, rate};

/// A stack as it was when it was taken, with the values that policy asked for.
///
/// Names and lines are found by [`resolve`](Self::resolve), later and on any thread.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    raws: Vec<platform::Raw>,
    /// What policy said; an empty snapshot has none and allocates nothing, because it may be
    /// taken inside the allocator.
    policy: Option<(Values, InApp)>,
}

thread_local! {
    /// A capture is running on this thread; a failure inside it must not start another.
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread as capturing while it lives.
struct Guard;

impl Guard {
    /// `None` when a capture is running on this thread, or the thread is ending.
    fn enter() -> Option<Guard> {
        let free = CAPTURING.try_with(|capturing| !capturing.replace(true));
        // Not `then_some`: a mark that was made and dropped would end the running capture's.
        free.unwrap_or(false).then(|| Guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A thread that is ending has no mark to take away.
        let _ = CAPTURING.try_with(|capturing| capturing.set(false));
    }
}

/// Takes the stack of the calling thread, as policy says.
///
/// The innermost frame is the caller's. Return addresses are always taken unless policy
/// says [`Values::Off`]; variables of the frames that policy asks for are read now, because
/// memory changes afterwards. Never panics; a capture inside a capture is empty.
#[inline(never)]
pub fn snapshot(policy: &Policy) -> Snapshot {
    if policy.values == Values::Off {
        return Snapshot::default();
    }
    let registers = platform::Registers::here();
    let Some(_guard) = Guard::enter() else {
        return Snapshot::default();
    };
    let mut stack = platform::walk(registers, &policy.limits);
    if policy.values >= Values::InApp {
        if !rate::allows(stack.addresses(), &policy.limits) {
            stack.drop_variables(VarsMissing::RateLimit);
        } else if !contained(|| platform::read_variables(&mut stack, policy)) {
            // A failure among the values costs the values, not the stack.
            stack.drop_variables(VarsMissing::Failed);
        }
    }
    let raws = stack.into_frames().skip(OWN_FRAMES).collect();
    Snapshot {
        raws,
        policy: Some((policy.values, policy.in_app.clone())),
    }
}

/// Runs what uses the debug information outside of a capture; `None` when it panics, or when it
/// is called from inside a capture, whose locks the thread has.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    let _guard = Guard::enter()?;
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Runs what may panic, and says whether it did not.
fn contained(work: impl FnOnce() + Send) -> bool {
    let caught = || catch_unwind(AssertUnwindSafe(work)).is_ok();
    if !std::thread::panicking() {
        return caught();
    }
    // A second panic on a panicking thread ends the process whatever catches it,
    // so the work is done by a thread that is not panicking while this one waits.
    std::thread::scope(|scope| {
        let guarded = || Guard::enter().is_some_and(|_guard| caught());
        let helper = std::thread::Builder::new().name("backstop-capture".to_owned());
        let helper = helper.spawn_scoped(scope, guarded);
        helper.is_ok_and(|helper| helper.join().unwrap_or(false))
    })
}

/// `snapshot` itself is on the stack it takes.
const OWN_FRAMES: usize = 1;

impl Snapshot {
    /// Return addresses, innermost first.
    pub fn addresses(&self) -> Vec<u64> {
        self.raws.iter().map(|raw| raw.address).collect()
    }

    /// Says whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.raws.is_empty()
    }

    /// Names the frames, innermost first, inlined calls included.
    ///
    /// Opens debug information on first use, which can take a tenth of a second:
    /// call [`warm_up`](crate::warm_up) at start and this on a thread that may wait.
    pub fn resolve(&self) -> Vec<Frame> {
        let Some((values, in_app)) = &self.policy else {
            return Vec::new();
        };
        guarded(|| platform::resolve(&self.raws, *values, in_app)).unwrap_or_default()
    }
}
