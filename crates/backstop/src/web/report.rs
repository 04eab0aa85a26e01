//! Reporting what nobody handled: the tracker as an extension of the app.

use backstop_protocol::{Event, Object, Request};
use http::HeaderMap;
use http::header::{COOKIE, HOST};
use serde_json::{Value, json};

use crate::event::Draft;
use crate::report::{Client, Tracker};
use crate::web::app::{App, Extension};
use crate::web::failure::Failure;

/// More headers than this are an attack; the first ones say what the client was.
const HEADERS_MAX: usize = 64;

/// Longer values of headers and addresses are cut.
const VALUE_CHARS_MAX: usize = 2048;

impl Tracker {
    /// Reports the errors of an app that nobody handles.
    ///
    /// With a DSN that cannot be read the app runs all the same, and the log says so.
    ///
    /// # Example
    ///
    /// The factory form of Flask's page:
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use backstop::App;
    /// use backstop::report::Tracker;
    ///
    /// static TRACKER: Tracker = Tracker::from_static("http://a1b2@127.0.0.1:9000/1");
    ///
    /// fn create_app() -> App {
    ///     let app = App::new(Router::new().route("/", get(|| async { "hello" })));
    ///     TRACKER.init_app(app)
    /// }
    /// # create_app().into_router().unwrap();
    /// ```
    pub fn init_app<S: Clone + Send + Sync + 'static>(&self, app: App<S>) -> App<S> {
        Extension::init_app(self, app)
    }
}

impl Extension for Tracker {
    fn init_app<S: Clone + Send + Sync + 'static>(&self, app: App<S>) -> App<S> {
        match self.client_for(app.config()) {
            Ok(Some(client)) => {
                let reporting = client.clone();
                app.client(client)
                    .on_report(move |failure| capture(&reporting, failure))
            }

            Ok(None) => {
                tracing::info!(target: "backstop::report", "no DSN: errors are not reported");
                app
            }
            Err(error) => {
                tracing::error!(target: "backstop::report", %error, "errors are not reported");
                app
            }
        }
    }
}

/// Puts a failure into the client's queue; what is expensive happens on the client's thread.
fn capture(client: &Client, failure: &Failure) {
    let failure = failure.clone();
    let event = Event {
        transaction: failure.route().map(str::to_owned),
        ..Event::default()
    };
    client.capture_later(event, move |event| complete(event, &failure));
}

/// Makes the event of a failure, as it is reported and as the debug page shows it.
///
/// Opens debug information; never called on a request's path.
pub(crate) fn event_of(failure: &Failure) -> Event {
    complete(Event::default(), failure)
}

fn complete(mut event: Event, failure: &Failure) -> Event {
    event.request.get_or_insert_with(|| request_of(failure));
    if event.transaction.is_none() {
        event.transaction = failure.route().map(str::to_owned);
    }
    let mut tag = |name: &str, value: Option<&str>| {
        if let Some(value) = value
            && !event.tags.contains_key(name)
        {
            event.tags.insert(name.to_owned(), json!(value));
        }
    };
    tag("request_id", Some(failure.request_id()));
    tag("blueprint", failure.blueprint());
    Draft::of_unhandled(failure.error()).finish(event)
}

fn request_of(failure: &Failure) -> Request {
    let headers = failure.headers();
    let uri = failure.uri();
    // HTTP does not tell whether TLS was used before us; a proxy does.
    let scheme = match text(headers, "x-forwarded-proto").as_deref() {
        Some("https") => "https",
        _ => "http",
    };
    let host = text(headers, HOST.as_str()).or_else(|| uri.host().map(str::to_owned));
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    Request {
        method: Some(failure.method().to_string()),
        url: Some(cut(&format!("{scheme}://{host}{}", uri.path()))),
        query_string: uri.query().map(|query| Value::String(cut(query))),
        headers: Some(Value::Object(headers_of(headers))),
        cookies: cookies_of(headers),
        ..Request::default()
    }
}

fn headers_of(headers: &HeaderMap) -> Object {
    headers
        .iter()
        .filter(|(name, _)| *name != COOKIE)
        .take(HEADERS_MAX)
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (title_case(name.as_str()), Value::String(cut(&value)))
        })
        .collect()
}

/// Cookies by name; which ones came is often the question, what was in them is nobody's business.
fn cookies_of(headers: &HeaderMap) -> Option<Value> {
    let cookies: Object = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .take(HEADERS_MAX)
        .map(|(name, _)| (cut(name.trim()), json!(crate::report::scrub::FILTERED)))
        .collect();
    (!cookies.is_empty()).then_some(Value::Object(cookies))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// `content-type` is `Content-Type`, as every other client sends it.
fn title_case(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|c| {
            let shown = if upper { c.to_ascii_uppercase() } else { c };
            upper = c == '-';
            shown
        })
        .collect()
}

fn cut(text: &str) -> String {
    text.chars().take(VALUE_CHARS_MAX).collect()
}
