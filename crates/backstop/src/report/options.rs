//! The options of a client.

use std::fmt;
use std::sync::Arc;

use backstop_protocol::{Event, Object};
use serde_json::Value;

use super::Scrubber;

/// Errors come in bursts; more waiting events than this say the same thing again.
const QUEUE_EVENTS: usize = 128;

type BeforeSend = Arc<dyn Fn(Event) -> Option<Event> + Send + Sync>;

/// The options of a client; the defaults suit most programs.
///
/// # Example
///
/// ```
/// use backstop::report::Options;
///
/// let options = Options::default()
///     .release(concat!(env!("CARGO_PKG_NAME"), "@", env!("CARGO_PKG_VERSION")))
///     .environment("staging")
///     .tag("region", "eu")
///     .before_send(|event| (event.logger.as_deref() != Some("noise")).then_some(event));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Options {
    pub(crate) environment: Option<String>,
    pub(crate) release: Option<String>,
    pub(crate) dist: Option<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) tags: Object,
    pub(crate) sample_rate: f64,
    pub(crate) queue_events_max: usize,
    pub(crate) scrubber: Scrubber,
    pub(crate) before_send: Option<BeforeSend>,
    pub(crate) in_app: Vec<String>,
    pub(crate) not_in_app: Vec<String>,
    pub(crate) source_context: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            environment: None,
            release: None,
            dist: None,
            server_name: host_name(),
            tags: Object::new(),
            sample_rate: 1.0,
            queue_events_max: QUEUE_EVENTS,
            scrubber: Scrubber::default(),
            before_send: None,
            in_app: Vec::new(),
            not_in_app: Vec::new(),
            source_context: true,
        }
    }
}

impl Options {
    /// Says where the program runs: `production`, `staging`, …
    pub fn environment(mut self, name: impl Into<String>) -> Options {
        self.environment = Some(name.into());
        self
    }

    /// Says which version of the program runs.
    pub fn release(mut self, version: impl Into<String>) -> Options {
        self.release = Some(version.into());
        self
    }

    /// Says which build of the release runs.
    pub fn dist(mut self, build: impl Into<String>) -> Options {
        self.dist = Some(build.into());
        self
    }

    /// Names the host; by default its own name.
    pub fn server_name(mut self, name: impl Into<String>) -> Options {
        self.server_name = Some(name.into());
        self
    }

    /// Gives every event a tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Options {
        self.tags.insert(name.into(), Value::String(value.into()));
        self
    }

    /// Sends only this part of the events, chosen by chance: 1 is all, 0 is none.
    pub fn sample_rate(mut self, rate: f64) -> Options {
        self.sample_rate = if rate.is_nan() {
            1.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        self
    }

    /// Lets so many events wait at most; more are lost, and counted.
    pub fn queue_events_max(mut self, events: usize) -> Options {
        self.queue_events_max = events;
        self
    }

    /// Decides what is a secret.
    pub fn scrubber(mut self, scrubber: Scrubber) -> Options {
        self.scrubber = scrubber;
        self
    }

    /// Looks at every event last, and changes or refuses it.
    ///
    /// The function gets the event after secrets were removed and runs on the client's own thread.
    /// If it panics, the event is lost and counted.
    pub fn before_send(
        mut self,
        decide: impl Fn(Event) -> Option<Event> + Send + Sync + 'static,
    ) -> Options {
        self.before_send = Some(Arc::new(decide));
        self
    }

    /// Counts functions whose path begins like this as the program's own code.
    pub fn in_app(mut self, module: impl Into<String>) -> Options {
        self.in_app.push(module.into());
        self
    }

    /// Counts functions whose path begins like this as library code.
    pub fn not_in_app(mut self, module: impl Into<String>) -> Options {
        self.not_in_app.push(module.into());
        self
    }

    /// Reads the source lines around each frame from disk, where they are there; on by default.
    pub fn source_context(mut self, read: bool) -> Options {
        self.source_context = read;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("environment", &self.environment)
            .field("release", &self.release)
            .field("sample_rate", &self.sample_rate)
            .field("queue_events_max", &self.queue_events_max)
            .finish_non_exhaustive()
    }
}

/// The kernel's word where there is one, else the shell's.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
