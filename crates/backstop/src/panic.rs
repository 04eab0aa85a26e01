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

thread_local! {
    /// Place and stack of the last panic of this thread, until the layer takes it.
    static LAST: RefCell<Option<(Place, Option<Arc<Snapshot>>)>> = const { RefCell::new(None) };
}

/// Puts the hook in front of the one that is there. Does nothing the second time.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(|location| {
                let stack = capture::is_wanted().then(|| Arc::new(capture::take(location)));
                (Place::from(location), stack)
            });
            LAST.with(|last| {
                // A panic while another unwinds keeps the place of the first borrow.
                if let Ok(mut last) = last.try_borrow_mut() {
                    *last = place;
                }
            });
            previous(panic);
        }));
    });
}

/// Makes an error of what `catch_unwind` caught on this thread.
pub(crate) fn caught(payload: &(dyn Any + Send)) -> Error {
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is no text".to_owned());
    let last = LAST.with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.take()));
    let (place, stack) = last.unzip();
    Error::from(Panic {
        message,
        place,
        snapshot: stack.flatten(),
    })
}

/// Runs a function; a panic is an error.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Error> {
    let _caught = CaughtElsewhere::enter();
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| caught(&*payload))
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
