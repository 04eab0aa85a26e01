//! The client: a DSN and one line, and failures are reported to a tracker.
//!
//! What goes in are errors, messages and panics; what comes out are envelopes as any
//! Sentry-compatible tracker takes them.
//! Reporting never blocks the caller, never panics, and loses events only with a count that the
//! next envelope carries.
//!
//! In a web service:
//!
//! ```
//! use backstop::report::Tracker;
//!
//! static TRACKER: Tracker = Tracker::from_static("https://0123456789abcdef@errors.example.com/1");
//! // fn create_app() -> App { App::new(routes).init(&TRACKER) }
//! assert!(TRACKER.client().is_ok());
//! ```
//!
//! In any other program:
//!
//! ```no_run
//! let _guard = backstop::report::init("https://0123456789abcdef@errors.example.com/1")?;
//! if let Err(error) = std::fs::read("/etc/shop.toml") {
//!     backstop::report::capture_error(&error);
//! }
//! # Ok::<(), backstop::report::ParseDsnError>(())
//! ```

mod client;
mod envelope;
mod limits;
mod loss;
mod options;
mod panic;
mod queue;
mod scope;
pub mod scrub;
mod sender;
mod tracker;
mod transport;

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use backstop_protocol::{
    Breadcrumb, Dsn, Event, EventId, Level, ParseDsnError, Timestamp, User,
};

pub use self::client::Client;
pub(crate) use self::client::new_event_id;
pub use self::options::Options;
pub use self::panic::{CaughtElsewhere, install_panic_hook};
pub(crate) use self::panic::{NO_TEXT, text_of};
pub use self::scope::{Bound, Scope, configure_scope, with_scope};
pub use self::scrub::Scrubber;
pub use self::tracker::Tracker;
pub use self::transport::{Answer, Collector, Http, InProcess, Transport};

pub(crate) const CLIENT_NAME: &str = "backstop.rust";
pub(crate) const CLIENT_VERSION: &str = env!("CARGO_PKG_VERSION");
pub(crate) const CLIENT_NAME_AND_VERSION: &str =
    concat!("backstop.rust/", env!("CARGO_PKG_VERSION"));

/// How long a program that ends waits for its last reports.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The client of the program, for reports outside of any scope with its own.
static CURRENT: RwLock<Option<Client>> = RwLock::new(None);

/// Starts reporting: errors that the program captures, and panics.
///
/// Keep the guard until the end of `main`: when it is dropped, the last reports are sent.
///
/// # Errors
///
/// The text is not a DSN.
pub fn init(dsn: &str) -> Result<Guard, ParseDsnError> {
    init_with(dsn, Options::default())
}

/// Starts reporting, with options.
///
/// # Errors
///
/// The text is not a DSN.
pub fn init_with(dsn: &str, options: Options) -> Result<Guard, ParseDsnError> {
    let client = Client::new(&dsn.parse()?, options);
    install_panic_hook();
    set_client(Some(client.clone()));
    Ok(Guard { client })
}

/// Sends the last reports when it is dropped.
#[derive(Debug)]
#[must_use = "reporting ends when the guard is dropped"]
pub struct Guard {
    client: Client,
}

impl Guard {
    /// Returns the client.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.client.close(SHUTDOWN_TIMEOUT);
    }
}

/// Reports an error and everything that caused it, and returns the event's id.
///
/// `None` if there is no client or the event was not wanted.
#[track_caller]
pub fn capture_error(error: &(dyn std::error::Error + 'static)) -> Option<EventId> {
    current_client()?.capture_error(error)
}

/// Reports an error that `?` converted, with the stack of where it was made, and returns the
/// event's id.
///
/// `None` if there is no client or the event was not wanted.
///
/// # Example
///
/// ```
/// use backstop::report::{self, Client, Collector, Scope};
///
/// fn load() -> backstop::Result<u16> {
///     Ok("x".parse::<u16>()?)
/// }
///
/// let collector = Collector::new();
/// let client = Client::collecting(&collector);
/// Scope::new().client(client.clone()).run(|| {
///     if let Err(error) = load() {
///         report::capture(&error);
///     }
/// });
/// client.flush(std::time::Duration::from_secs(5));
/// assert_eq!(collector.events()[0].exception[0].ty.as_deref(), Some("ParseIntError"));
/// ```
pub fn capture(error: &crate::Error) -> Option<EventId> {
    current_client()?.capture(error)
}

/// Reports a message, and returns the event's id.
///
/// `None` if there is no client or the event was not wanted.
#[track_caller]
pub fn capture_message(text: impl Into<String>) -> Option<EventId> {
    current_client()?.capture_message(text, Level::Info)
}

/// Reports an event as it is, completed by the current scope, and returns its id.
///
/// `None` if there is no client or the event was not wanted.
pub fn capture_event(event: Event) -> Option<EventId> {
    current_client()?.capture_event(event)
}

/// Notes what happened; the last notes go with the next event of this thread or task.
pub fn add_breadcrumb(breadcrumb: Breadcrumb) {
    configure_scope(|scope| scope.add_breadcrumb(breadcrumb));
}

/// Waits until everything that the program has reported is sent, and says whether it is.
///
/// [`serve`](crate::serve) and [`Guard`] do this at their end.
pub fn flush(timeout: Duration) -> bool {
    client::flush_all(timeout)
}

/// Adds a tag to the events of this thread or task.
pub fn set_tag(name: impl Into<String>, value: impl Into<String>) {
    configure_scope(|scope| scope.set_tag(name, value));
}

/// Names the user of the work at hand.
pub fn set_user(user: Option<User>) {
    configure_scope(|scope| scope.set_user(user));
}

/// Makes a client the program's, or ends that.
pub fn set_client(client: Option<Client>) {
    *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = client;
}

/// Returns the client of the current scope, or else the program's.
pub fn current_client() -> Option<Client> {
    Scope::current().own_client().cloned().or_else(|| {
        CURRENT
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    })
}

/// The present time; a clock before 1970 reads as 1970.
pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}
