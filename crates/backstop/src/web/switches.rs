//! How an app treats errors: its settings, read once when it is built.

use crate::config::{Config, ConfigError};
use crate::{Error, HttpError, Kind};

/// How the app treats errors, read from its settings once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switches {
    pub(crate) debug: bool,
    pub(crate) propagates: bool,
    trap_http_exceptions: bool,
    trap_bad_request_errors: Option<bool>,
    trusted_hosts: Option<Vec<String>>,
    pub(crate) content_length_max: Option<usize>,
    pub(crate) bare_status: BareStatus,
    pub(crate) report_server_errors: bool,
    pub(crate) negotiates: bool,
}

impl Switches {
    /// Reads the settings; a value of the wrong type is an error with the key's name.
    pub(crate) fn of(config: &Config) -> Result<Self, ConfigError> {
        let debug = config.debug();
        let given = |key: &str| config.get(key).map(|_| config.flag(key));
        let bare_status = match config.get_as::<String>("BARE_STATUS")?.as_deref() {
            None | Some("empty") => BareStatus::EmptyOnly,
            Some("replace") => BareStatus::Replace,
            Some("leave") => BareStatus::Leave,
            Some(other) => {
                return Err(ConfigError::of_value(format!(
                    "BARE_STATUS must be empty, replace or leave, but is {other:?}"
                )));
            }
        };
        Ok(Self {
            debug,
            propagates: given("PROPAGATE_EXCEPTIONS")
                .unwrap_or_else(|| debug || config.flag("TESTING")),
            trap_http_exceptions: config.flag("TRAP_HTTP_EXCEPTIONS"),
            trap_bad_request_errors: given("TRAP_BAD_REQUEST_ERRORS"),
            trusted_hosts: config.get_as("TRUSTED_HOSTS")?,
            content_length_max: config.get_as("MAX_CONTENT_LENGTH")?,
            bare_status,
            report_server_errors: given("REPORT_SERVER_ERRORS").unwrap_or(true),
            negotiates: given("NEGOTIATE_ERROR_PAGES").unwrap_or(true),
        })
    }

    /// Tells whether a host may be answered for; a name with a leading dot takes all below it.
    pub(crate) fn trusts(&self, headers: &http::HeaderMap) -> Result<(), Error> {
        match &self.trusted_hosts {
            Some(trusted) => is_trusted(trusted, headers),
            None => Ok(()),
        }
    }

    /// Tells whether an HTTP error without a handler counts as unhandled.
    pub(crate) fn traps(&self, error: &Error) -> bool {
        if self.trap_http_exceptions {
            return true;
        }
        let trapped = match self.trap_bad_request_errors {
            Some(true) => Kind::of_code(400),
            None if self.debug => Kind::of::<crate::errors::BadRequestKeyError>(),
            Some(false) | None => return false,
        };
        error.kind().is_some_and(|kind| kind.is_a(&trapped))
    }
}

/// Refuses a host that is not one of these.
#[inline(never)]
fn is_trusted(trusted: &[String], headers: &http::HeaderMap) -> Result<(), Error> {
    let host = headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(name, _)| name)
        .to_ascii_lowercase();
    let is_trusted = trusted
        .iter()
        .any(|trusted| match trusted.strip_prefix('.') {
            Some(parent) => name == parent || name.ends_with(trusted.as_str()),
            None => name == *trusted,
        });
    if is_trusted {
        return Ok(());
    }
    let error = HttpError::of(Kind::of::<crate::errors::SecurityError>())
        .description(format!("Host '{host}' is not trusted."));
    Err(Error::from(error))
}

/// What is done with error responses that carry no error, as axum's own 404.
///
/// The setting `BARE_STATUS`: `empty`, `replace` or `leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BareStatus {
    /// Those without a body are HTTP errors: axum's 404 and 405, and a bare `StatusCode`.
    #[default]
    EmptyOnly,
    /// Those with a plain text as well: the rejections of axum's own extractors.
    Replace,
    /// None.
    Leave,
}
