//! Panics become errors: a hook notes where, the layer catches them and goes on as with `Err`.
//!
//! The hook is chained: the one that was there before still runs.
//! With `panic = "abort"` nothing can be caught.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use backstop_capture::Snapshot;

use crate::event::Place;
use crate::report::CaughtElsewhere;
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
            Some(Place { file, line, column }) => write!(f, " (at {file}:{line}:{column})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Panic {}

/// Where a panic happened, and its stack if it was taken.
type Last = Option<(Place, Option<Arc<Snapshot>>)>;

thread_local! {
    /// The last panic of this thread, until the layer takes it.
    static LAST: RefCell<Last> = const { RefCell::new(None) };
}

/// Exchanges what is known of the last panic of this thread.
fn exchange(last: Last) -> Last {
    // While the thread ends nothing is known.
    LAST.try_with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        std::mem::replace(&mut *known, last)
    })
    .ok()
    .flatten()
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
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(|location| {
                let stack = capture::is_wanted().then(|| Arc::new(capture::take(location)));
                (Place::from(location), stack)
            });
            exchange(place);
            previous(panic);
        }));
    });
}

/// Makes an error of what `catch_unwind` caught on this thread.
fn caught(payload: &(dyn Any + Send)) -> Error {
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is no text".to_owned());
    let (place, stack) = exchange(None).unzip();
    Error::from(Panic {
        message,
        place,
        snapshot: stack.flatten(),
    })
}

/// Runs a function; a panic is an error.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Error> {
    let _caught = CaughtElsewhere::enter();
    // A panic that is resumed runs no hook: it must not get the place of an earlier one. While
    // another panic unwinds through here, its place is kept for whoever catches that.
    let outer = exchange(None);
    let outcome = catch_unwind(AssertUnwindSafe(run)).map_err(|payload| caught(&*payload));
    exchange(outer);
    outcome
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
