//! The tracker as an application sees it: a DSN that may be written before there is an app.

use std::fmt;
use std::sync::OnceLock;

use backstop_protocol::{Dsn, ParseDsnError};

use super::{Client, Options};
use crate::config::Config;

/// Where failures are reported to, in the two forms of Flask's page.
///
/// `Tracker::new(dsn)?.init_app(app)` where the DSN is read at start, and a static for factories:
///
/// ```
/// use backstop::report::Tracker;
///
/// static TRACKER: Tracker = Tracker::from_static("https://0123456789abcdef@errors.example.com/1");
/// assert_eq!(TRACKER.client().unwrap().dsn().unwrap().project(), 1);
/// ```
pub struct Tracker {
    /// `None`: each app's settings tell.
    dsn: Option<&'static str>,
    client: OnceLock<Result<Client, ParseDsnError>>,
}

impl Tracker {
    /// Makes a tracker of a DSN.
    ///
    /// # Errors
    ///
    /// The text is not a DSN.
    pub fn new(dsn: &str) -> Result<Tracker, ParseDsnError> {
        Tracker::with_options(dsn, Options::default())
    }

    /// Makes a tracker of a DSN, with options.
    ///
    /// # Errors
    ///
    /// The text is not a DSN.
    pub fn with_options(dsn: &str, options: Options) -> Result<Tracker, ParseDsnError> {
        let dsn: Dsn = dsn.parse()?;
        Ok(Tracker::of_client(Client::new(&dsn, options)))
    }

    /// Makes a tracker of a client, for example one that collects.
    pub fn of_client(client: Client) -> Tracker {
        Tracker {
            dsn: None,
            client: OnceLock::from(Ok(client)),
        }
    }

    /// Makes a tracker whose DSN is the setting `DSN` of each app that it is added to, together
    /// with `ENVIRONMENT` and `RELEASE`.
    ///
    /// An app without the setting is not reported.
    pub const fn from_settings() -> Tracker {
        Tracker {
            dsn: None,
            client: OnceLock::new(),
        }
    }

    /// Makes a tracker of a DSN that is known when the program is compiled; it is read at first use.
    pub const fn from_static(dsn: &'static str) -> Tracker {
        Tracker {
            dsn: Some(dsn),
            client: OnceLock::new(),
        }
    }

    /// Returns the client.
    ///
    /// # Errors
    ///
    /// The text given to [`Tracker::from_static`] is not a DSN, or each app has its own.
    pub fn client(&self) -> Result<&Client, ParseDsnError> {
        self.client
            .get_or_init(|| {
                let dsn = self.dsn.unwrap_or_default();
                Ok(Client::new(&dsn.parse()?, Options::default()))
            })
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Returns the client for an app with these settings; `None` if they name no tracker.
    ///
    /// # Errors
    ///
    /// What should be a DSN is none.
    pub fn client_for(&self, config: &Config) -> Result<Option<Client>, ParseDsnError> {
        if self.dsn.is_some() || self.client.get().is_some() {
            return self.client().cloned().map(Some);
        }
        let Some(dsn) = config.text("DSN").filter(|dsn| !dsn.is_empty()) else {
            return Ok(None);
        };
        let mut options = Options::default();
        if let Some(name) = config.text("ENVIRONMENT") {
            options = options.environment(name);
        }
        if let Some(version) = config.text("RELEASE") {
            options = options.release(version);
        }
        Ok(Some(Client::new(&dsn.parse()?, options)))
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("client", &self.client.get())
            .finish_non_exhaustive()
    }
}
