//! Reporting panics: one hook, chained before the one that was there.

use std::any::Any;
use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::Once;

use backstop_protocol::{Event, Level};

use crate::event::Draft;
use crate::panic::Previous;

thread_local! {
    /// A report of a panic must not report its own panic.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
    /// How many functions that report panics themselves run on this thread.
    static CAUGHT: Cell<usize> = const { Cell::new(0) };
}

/// Installs the hook that reports panics; calling it again does nothing.
///
/// The hook that was there before runs afterwards, so the usual message stays; in an application it
/// is left out where the panic of a view becomes a record of the log.
/// A library that installs its own hook later should chain as well.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        Previous::take().replace(|before, panic| {
            report(panic);
            before.call(panic);
        });
    });
}

fn report(panic: &PanicHookInfo<'_>) {
    let elsewhere = CAUGHT.try_with(Cell::get).unwrap_or(0) > 0 || crate::panic::is_caught_here();
    let again = REPORTING
        .try_with(|reporting| reporting.replace(true))
        .unwrap_or(true);
    if elsewhere || again {
        return;
    }
    if let Some(client) = super::current_client() {
        let draft = Draft::of_panic(text_of(panic.payload()), panic.location());
        let event = Event {
            level: Level::Fatal,
            ..Event::default()
        };
        client.capture_later(event, move |event| draft.finish(event));
    }
    // The thread may be about to end, and thread-locals with it.
    let _ended = REPORTING.try_with(|reporting| reporting.set(false));
}

/// Stands for the message of a panic that has none.
pub(crate) const NO_TEXT: &str = "panic with a payload that is no text";

/// Returns the text of a panic, as far as there is one.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        NO_TEXT
    }
}

/// Tells the hook that panics of this thread are caught and reported by the caller, until dropped.
#[derive(Debug)]
#[must_use = "the hook reports again when this is dropped"]
pub struct CaughtElsewhere(());

impl CaughtElsewhere {
    /// Begins.
    pub fn enter() -> CaughtElsewhere {
        let _ended = CAUGHT.try_with(|caught| caught.set(caught.get() + 1));
        CaughtElsewhere(())
    }
}

impl Drop for CaughtElsewhere {
    fn drop(&mut self) {
        let _ended = CAUGHT.try_with(|caught| caught.set(caught.get().saturating_sub(1)));
    }
}
