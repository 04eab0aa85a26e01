//! Panics become errors: a hook notes where, the layer catches them and goes on as with `Err`.
//!
//! The hook is chained: one of the program's own that was there before still runs.
//! The standard one, which only prints, is left out where the panic becomes a record of the log: a
//! panic is told once.
//! With `panic = "abort"` nothing can be caught.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::{Context, Poll};

use backstop_capture::Snapshot;

use crate::event::Place;
use crate::report::{NO_TEXT, text_of};
use crate::{Error, capture};

/// A panic, as an error.
#[derive(Debug)]
pub struct Panic {
    message: String,
    place: Option<Place>,
    snapshot: Option<Arc<Snapshot>>,
}

impl Panic {
    /// The message that `panic!` was given.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The file and line of the `panic!`, where known.
    pub fn place(&self) -> Option<(&str, u32)> {
        self.place
            .as_ref()
            .map(|place| (place.file.as_str(), place.line))
    }

    pub(crate) fn full_place(&self) -> Option<Place> {
        self.place.clone()
    }

    /// The stack of the panic, if it was taken.
    pub(crate) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.message)?;
        match &self.place {
            Some(place) => write!(f, " (at {place})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Panic {}

/// A panic of this thread that nobody has taken yet.
struct Last {
    place: Place,
    stack: Option<Arc<Snapshot>>,
    /// The message, if nothing was printed.
    untold: Option<String>,
}

impl Drop for Last {
    /// Tells what nobody else will tell: another panic has come, which perhaps ends the process, or
    /// the thread or the process ends while the panic unwinds.
    fn drop(&mut self) {
        if let Some(message) = self.untold.take() {
            // `eprintln!` would panic, and so abort, where standard error is closed.
            let _ = writeln!(std::io::stderr(), "panicked at {}:\n{message}", self.place);
        }
    }
}

thread_local! {
    /// The last panic of this thread, until the layer takes it.
    static LAST: RefCell<Option<Box<Last>>> = const { RefCell::new(None) };
    /// Whether there is one: it is asked for every future that is polled, and there hardly ever is.
    static IS_KNOWN: Cell<bool> = const { Cell::new(false) };
    /// How many calls of [`catch`] this thread is in.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
    /// The panic at hand becomes a record.
    static RECORDED: Cell<bool> = const { Cell::new(false) };
}

/// Exchanges what is known of the last panic of this thread.
fn exchange(last: Option<Box<Last>>) -> Option<Box<Last>> {
    // While the thread ends nothing is known.
    LAST.try_with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        IS_KNOWN.set(last.is_some());
        std::mem::replace(&mut *known, last)
    })
    .ok()
    .flatten()
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// The hook that was there before one of ours.
pub(crate) struct Previous {
    hook: Hook,
    /// It is the standard one, which prints to standard error.
    is_standard: bool,
    /// It is the standard one, or one of ours in front of that.
    only_prints: bool,
}

/// Where our hooks are that have nothing but the standard one behind them.
static OVER_STANDARD: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn address_of(hook: &Hook) -> usize {
    (&raw const **hook).addr()
}

impl Previous {
    /// Takes it out of its place; the next hook has to be [set](Previous::replace) at once.
    pub(crate) fn take() -> Self {
        let hook = std::panic::take_hook();
        // What is there now is the standard one: so it is known how that looks.
        let standard = std::panic::take_hook();
        // If they seem to differ although they do not, a panic is told twice.
        let is_standard = std::ptr::eq(&raw const *hook, &raw const *standard);
        let ours = OVER_STANDARD.lock().unwrap_or_else(PoisonError::into_inner);
        let only_prints = is_standard || ours.contains(&address_of(&hook));
        Self {
            hook,
            is_standard,
            only_prints,
        }
    }

    /// Puts one of ours in its place, which calls it.
    pub(crate) fn replace(self, hook: impl Fn(&Self, &PanicHookInfo<'_>) + Send + Sync + 'static) {
        let only_prints = self.only_prints;
        let ours: Hook = Box::new(move |panic| hook(&self, panic));
        if only_prints {
            let mut all = OVER_STANDARD.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(address_of(&ours));
        }
        std::panic::set_hook(ours);
    }

    /// Calls it, unless all it would do is to print what is told elsewhere.
    pub(crate) fn call(&self, panic: &PanicHookInfo<'_>) {
        let is_told = self.is_standard && RECORDED.try_with(Cell::get).unwrap_or(false);
        if !is_told {
            (self.hook)(panic);
        }
    }
}

/// Tells whether a panic that happens now on this thread is caught by [`catch`].
pub(crate) fn is_caught_here() -> bool {
    CATCHING.try_with(Cell::get).unwrap_or(0) > 0
}

/// Tells whether a panic that happens now ends in a record that somebody reads.
fn is_recorded() -> bool {
    #[cfg(feature = "web")]
    let is_recorded = !cfg!(panic = "abort") && is_caught_here() && crate::log::is_listening();
    // Without applications nothing catches panics and logs them.
    #[cfg(not(feature = "web"))]
    let is_recorded = false;
    is_recorded
}

/// Puts the hook in front of the one that is there. Does nothing the second time.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if cfg!(panic = "abort") {
            tracing::warn!(
                target: "backstop::setup",
                "this program is built with panic = \"abort\": a panic ends it, and its client gets no page"
            );
        }
        // A backtrace that somebody asked for is printed by the standard hook alone.
        let wants_backtrace =
            std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0" && !value.is_empty());
        Previous::take().replace(move |previous, panic| {
            let last = panic.location().map(|location| {
                Box::new(Last {
                    place: Place::from(location),
                    stack: capture::is_wanted().then(|| Arc::new(capture::take(location))),
                    untold: (!wants_backtrace && previous.only_prints && is_recorded())
                        .then(|| text_of(panic.payload()).to_owned()),
                })
            });
            let mut is_recorded = last.as_ref().is_some_and(|last| last.untold.is_some());
            if exchange(last).is_some_and(|before| before.untold.is_some()) {
                // Nobody has taken the one before: perhaps nobody will, because this one ends
                // the process.
                is_recorded = false;
            }
            let _ended = RECORDED.try_with(|recorded| recorded.set(is_recorded));
            previous.call(panic);
        });
    });
}

/// Makes an error of what `catch_unwind` caught on this thread.
#[cold]
#[inline(never)]
fn caught(payload: &(dyn Any + Send)) -> Error {
    let message = match text_of(payload) {
        NO_TEXT => "with a value that is no text",
        text => text,
    };
    let mut last = exchange(None);
    if let Some(last) = &mut last {
        last.untold = None;
    }
    let snapshot = last.as_mut().and_then(|last| last.stack.take());
    Error::from(Panic {
        message: message.to_owned(),
        place: last.map(|last| last.place.clone()),
        snapshot,
    })
}

/// Counts a call of [`catch`].
struct Caught(());

impl Caught {
    fn begin() -> Self {
        let _ended = CATCHING.try_with(|calls| calls.set(calls.get() + 1));
        Self(())
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let _ended = CATCHING.try_with(|calls| calls.set(calls.get().saturating_sub(1)));
    }
}

/// Runs a function; a panic is an error.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Error> {
    let _counted = Caught::begin();
    // A panic that is resumed runs no hook: it must not get the place of an earlier one. While
    // another panic unwinds through here, its place is kept for whoever catches that.
    let outer = IS_KNOWN.get().then(|| exchange(None)).flatten();
    let outcome = catch_unwind(AssertUnwindSafe(run)).map_err(|payload| caught(&*payload));
    if outer.is_some() || IS_KNOWN.get() {
        leave(exchange(outer));
    }
    outcome
}

/// Tells of a panic that nobody has taken from a function that has ended well.
#[cold]
#[inline(never)]
fn leave(left: Option<Box<Last>>) {
    #[cfg(feature = "web")]
    if let Some(mut left) = left
        && let Some(message) = left.untold.take()
    {
        crate::log::panic_kept(&message, &left.place);
    }
    #[cfg(not(feature = "web"))]
    drop(left);
}

/// A future whose panics are errors.
pub(crate) struct Catching<F>(pub(crate) F);

impl<F: Future + Unpin> Future for Catching<F> {
    type Output = Result<F::Output, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // After a panic the future is dropped and never polled again.
        match catch(|| Pin::new(&mut self.0).poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    fn place_of(error: &Error) -> Option<u32> {
        let panic = error.downcast_ref::<Panic>().unwrap();
        panic.place().map(|(_, line)| line)
    }

    #[test]
    fn a_resumed_panic_has_no_place_of_another() {
        install_hook();
        let earlier = catch_unwind(|| panic!("nobody asks where"));
        assert!(earlier.is_err());
        let error = catch(|| resume_unwind(Box::new("from a task"))).unwrap_err();
        assert_eq!(error.to_string(), "panicked: from a task");
        assert_eq!(place_of(&error), None);
    }

    #[test]
    fn a_panic_keeps_its_place_while_it_unwinds() {
        struct Cleanup;
        impl Drop for Cleanup {
            fn drop(&mut self) {
                let inner = catch(|| panic!("in the cleanup")).unwrap_err();
                assert_eq!(place_of(&inner), Some(line!() - 1));
            }
        }
        install_hook();
        let line = line!() + 3;
        let outer = catch(|| {
            let _cleanup = Cleanup;
            panic!("outer");
        });
        assert_eq!(place_of(&outer.unwrap_err()), Some(line));
    }
}
