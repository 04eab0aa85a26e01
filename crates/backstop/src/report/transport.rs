//! The last step of a client: handing an envelope over.

use std::fmt;
use std::io;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use backstop_protocol::{Dsn, Envelope, Event};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::limits;

/// A tracker that accepts the connection at all does so quickly.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From the first byte to the last; a slower tracker is as good as none.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Of an answer only the beginning is of use: `{"detail": …}`.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Small bodies do not get smaller.
const GZIP_BYTES_MIN: usize = 1024;

/// Where envelopes go.
#[derive(Clone)]
#[non_exhaustive]
pub enum Transport {
    /// To a tracker over HTTP.
    Http(Http),
    /// Into memory, for tests.
    Collecting(Collector),
    /// To a tracker in the same process.
    InProcess(InProcess),
}

/// What came of an envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, as sent.
    pub retry_after: Option<String>,
    /// The header `X-Sentry-Rate-Limits`, as sent.
    pub rate_limits: Option<String>,
    /// Why, in the tracker's words.
    pub detail: Option<String>,
}

/// An envelope did not arrive.
#[derive(Debug)]
pub(crate) struct Unreachable {
    /// The connection was cut while it was used: the next one may well hold.
    pub(crate) reset: bool,
    /// Why.
    pub(crate) reason: String,
}

impl Transport {
    pub(crate) fn send(&self, envelope: &[u8]) -> Result<Answer, Unreachable> {
        match self {
            Transport::Http(http) => http.send(envelope),
            Transport::Collecting(collector) => Ok(collector.store(envelope)),
            Transport::InProcess(tracker) => Ok((tracker.0)(envelope)),
        }
    }
}

/// Tells the kind only.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Http(_) => "Http",
            Transport::Collecting(_) => "Collecting",
            Transport::InProcess(_) => "InProcess",
        })
    }
}

impl Answer {
    /// The answer of a tracker that has stored the envelope.
    pub fn stored() -> Answer {
        Answer {
            status: 200,
            ..Answer::default()
        }
    }
}

/// Sends envelopes to a tracker over HTTP.
#[derive(Clone)]
pub struct Http {
    agent: ureq::Agent,
    url: String,
    auth: String,
}

impl Http {
    /// Makes a transport to the tracker that the DSN names.
    ///
    /// Proxies are taken from the usual environment variables (`HTTPS_PROXY`, `NO_PROXY`, …).
    pub fn new(dsn: &Dsn) -> Http {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(super::CLIENT_NAME_AND_VERSION)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(SEND_TIMEOUT))
            .build()
            .new_agent();
        let auth = format!(
            "Sentry sentry_version=7, sentry_client={}, sentry_key={}",
            super::CLIENT_NAME_AND_VERSION,
            dsn.public_key()
        );
        Http {
            agent,
            url: dsn.envelope_url(),
            auth,
        }
    }

    fn send(&self, envelope: &[u8]) -> Result<Answer, Unreachable> {
        let request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/x-sentry-envelope")
            .header("X-Sentry-Auth", &self.auth);
        let sent = match gzip(envelope) {
            Some(body) => request.header("Content-Encoding", "gzip").send(&body[..]),
            None => request.send(envelope),
        };
        let mut response = sent.map_err(|error| unreachable(&error))?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let retry_after = header("retry-after");
        let rate_limits = header("x-sentry-rate-limits");
        // A tracker that answers has the envelope; what it says beyond that may get lost.
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .unwrap_or_default();
        Ok(Answer {
            status: response.status().as_u16(),
            retry_after,
            rate_limits,
            detail: detail(&body),
        })
    }
}

/// Hides the keys.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < GZIP_BYTES_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

fn unreachable(error: &ureq::Error) -> Unreachable {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let reset = match error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
        ),
        _ => false,
    };
    Unreachable {
        reset,
        reason: error.to_string(),
    }
}

/// The tracker's words, fit for a log line.
fn detail(body: &str) -> Option<String> {
    const DETAIL_CHARS_MAX: usize = 200;
    let body: Value = serde_json::from_str(body).ok()?;
    let detail = body.get("detail")?.as_str()?;
    let fit = detail.chars().filter(|c| !c.is_control());
    Some(fit.take(DETAIL_CHARS_MAX).collect())
}

/// Hands envelopes to a function, which stores them before it answers.
#[derive(Clone)]
pub struct InProcess(Arc<Store>);

type Store = dyn Fn(&[u8]) -> Answer + Send + Sync;

impl InProcess {
    /// Makes a transport of a function that gets an envelope as it would come over the wire.
    ///
    /// It is called on the client's own thread.
    pub fn new(store: impl Fn(&[u8]) -> Answer + Send + Sync + 'static) -> InProcess {
        InProcess(Arc::new(store))
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

/// Collects what a client would send, for tests.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use backstop::report::{Client, Collector};
///
/// let collector = Collector::new();
/// let client = Client::collecting(&collector);
/// client.capture_error(&"x".parse::<u8>().unwrap_err());
/// assert!(client.flush(Duration::from_secs(5)));
/// let events = collector.events();
/// assert_eq!(events[0].exception[0].value.as_deref(), Some("invalid digit found in string"));
/// ```
#[derive(Clone, Default)]
pub struct Collector {
    collected: Arc<Mutex<Collected>>,
}

#[derive(Default)]
struct Collected {
    events: Vec<Event>,
    reports: Vec<Value>,
    answer: Option<Answer>,
}

impl Collector {
    /// Makes an empty collector that accepts everything.
    pub fn new() -> Collector {
        Collector::default()
    }

    /// Returns the events that arrived, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Returns the reports of lost events (`client_report` items) that arrived.
    pub fn client_reports(&self) -> Vec<Value> {
        self.lock().reports.clone()
    }

    /// Answers like this from now on; an answer that is no success stores nothing.
    pub fn answer_with(&self, answer: Answer) {
        self.lock().answer = Some(answer);
    }

    /// Takes an envelope as it comes over the wire.
    pub fn store(&self, envelope: &[u8]) -> Answer {
        let mut collected = self.lock();
        let answer = collected.answer.clone().unwrap_or_else(Answer::stored);
        if limits::is_success(answer.status) {
            let items = Envelope::read(envelope).map(|envelope| envelope.items);
            for item in items.into_iter().flatten().flatten() {
                match item.header.ty.as_str() {
                    "event" => collected
                        .events
                        .extend(serde_json::from_slice(item.payload)),
                    "client_report" => collected
                        .reports
                        .extend(serde_json::from_slice(item.payload)),
                    _ => {}
                }
            }
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collected = self.lock();
        f.debug_struct("Collector")
            .field("events", &collected.events.len())
            .field("client_reports", &collected.reports.len())
            .finish()
    }
}

/// The time until a moment that an answer names, at least nothing.
pub(crate) fn until(moment: SystemTime, now: SystemTime) -> Duration {
    moment.duration_since(now).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trackers_words_are_fit_for_a_log_line() {
        let body = r#"{"detail": "no\nsuch project", "causes": []}"#;
        assert_eq!(detail(body).as_deref(), Some("nosuch project"));
        assert_eq!(detail("<html>"), None);
        assert_eq!(detail(r#"{"detail": 3}"#), None);
    }
}
