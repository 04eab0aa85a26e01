//! One error together with the request in which it happened.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use http::header::ACCEPT;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use crate::errors::ClientDisconnected;
use crate::web::layer::Core;
use crate::web::page::{Format, format_of};
use crate::{Error, Kind};

/// One error and the request in which it happened: what handlers, hooks, logs and reports see.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Failure {
    pub(crate) error: Error,
    pub(crate) request: Arc<RequestFacts>,
    pub(crate) blueprint: Option<Arc<str>>,
    pub(crate) core: Arc<Core>,
}

impl Failure {
    /// The error.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The request's address as it was sent.
    pub fn uri(&self) -> &Uri {
        self.request.uri()
    }

    /// The request's path, percent-decoded where that gives text.
    pub fn path(&self) -> String {
        decode_path(self.uri().path())
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The route that matched, as it was registered; `None` for an unknown address.
    pub fn route(&self) -> Option<&str> {
        self.request.route.as_ref().map(MatchedPath::as_str)
    }

    /// The dotted name of the blueprint whose route matched.
    pub fn blueprint(&self) -> Option<&str> {
        self.blueprint.as_deref()
    }

    /// The request's id: the one that came in `X-Request-Id`, else a new one.
    pub fn request_id(&self) -> &str {
        self.request.id()
    }

    /// The client's address, if the server passes it on as axum's `ConnectInfo`.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.request.client_address
    }

    /// Tells whether the app is in debug mode.
    pub(crate) fn is_for_developers(&self) -> bool {
        self.core.switches.debug
    }

    /// Tells whether the error is that the client left before its request was complete.
    pub(crate) fn is_disconnect(&self) -> bool {
        // Most errors have another code, which is known without looking for a kind.
        self.error.kind().is_some_and(|kind| {
            kind.status_code() == Some(400) && kind.is_a(&Kind::of::<ClientDisconnected>())
        })
    }

    pub(crate) fn with_error(&self, error: Error) -> Self {
        Self {
            error,
            ..self.clone()
        }
    }
}

/// What is kept of a request while the view consumes it.
#[derive(Debug)]
pub(crate) struct RequestFacts {
    method: Method,
    uri: Uri,
    version: Version,
    /// In their order. A map costs three allocations, and most requests need none.
    header_list: Box<[(HeaderName, HeaderValue)]>,
    /// The same as a map, once somebody asks.
    headers: OnceLock<Box<HeaderMap>>,
    /// There only if a handler or hook has extractors: they are costly to copy.
    extensions: Option<Extensions>,
    route: Option<MatchedPath>,
    client_address: Option<IpAddr>,
    id: OnceLock<String>,
    /// That the client left has been logged.
    abandoned: AtomicBool,
}

impl RequestFacts {
    /// Copies what is needed later.
    pub(crate) fn of(request: &Request, with_extensions: bool) -> Self {
        let extensions = request.extensions();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            header_list: list_of(request.headers()),
            headers: OnceLock::new(),
            extensions: with_extensions.then(|| extensions.clone()),
            route: extensions.get::<MatchedPath>().cloned(),
            client_address: extensions
                .get::<ConnectInfo<SocketAddr>>()
                .map(|ConnectInfo(address)| address.ip()),
            id: OnceLock::new(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// The same request as one whose address was not even looked up.
    pub(crate) fn unrouted(mut self) -> Self {
        self.route = None;
        self
    }

    /// Notes that the client left; tells whether that is news.
    pub(crate) fn abandon(&self) -> bool {
        !self.abandoned.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_routed(&self) -> bool {
        self.route.is_some()
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The request without its body, for extractors.
    pub(crate) fn parts(&self) -> Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = self.uri.clone();
        parts.version = self.version;
        parts.headers = self.headers().clone();
        parts.extensions = self.extensions.clone().unwrap_or_default();
        parts
    }

    /// The request's headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| {
            let mut map = HeaderMap::with_capacity(self.header_list.len());
            for (name, value) in &self.header_list {
                map.append(name.clone(), value.clone());
            }
            Box::new(map)
        })
    }

    /// The values of a header.
    fn header(&self, wanted: HeaderName) -> impl Iterator<Item = &HeaderValue> {
        let list = self.header_list.iter();
        list.filter_map(move |(name, value)| (*name == wanted).then_some(value))
    }

    /// The form of an error page that the client likes best.
    pub(crate) fn format(&self) -> Format {
        format_of(self.header(ACCEPT))
    }

    pub(crate) fn id(&self) -> &str {
        self.id.get_or_init(|| {
            self.header(REQUEST_ID)
                .next()
                .and_then(|value| value.to_str().ok())
                .filter(|id| is_request_id(id))
                .map_or_else(new_request_id, str::to_owned)
        })
    }
}

fn list_of(headers: &HeaderMap) -> Box<[(HeaderName, HeaderValue)]> {
    let mut list = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        list.push((name.clone(), value.clone()));
    }
    list.into_boxed_slice()
}

/// The header that carries the id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over: a UUID with some prefix fits.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Ids from outside end up in logs and pages: only plain ones are taken over.
fn is_request_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= REQUEST_ID_BYTES_MAX
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A request id: unique in this process by its counter, among processes by its random part.
fn new_request_id() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let process = *PROCESS.get_or_init(|| {
        // Without randomness the counter still tells requests of this process apart.
        getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
    });
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Mixed, so that ids do not tell how many requests there were.
    let mixed = (number ^ process).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{:08x}{mixed:016x}", process >> 32)
}

/// Decodes percent signs; a path that is no text then stays as it was sent.
fn decode_path(path: &str) -> String {
    if !path.contains('%') {
        return path.to_owned();
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        if let ([b'%', high, low, ..], Some(high_digit), Some(low_digit)) =
            (rest, digit(rest.get(1)), digit(rest.get(2)))
        {
            let _ = (high, low);
            bytes.push(high_digit << 4 | low_digit);
            rest = &rest[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    let digit = char::from(*byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_where_that_gives_text() {
        assert_eq!(decode_path("/gr%C3%B6%C3%9Fe"), "/größe");
        assert_eq!(decode_path("/a%0Ab"), "/a\nb");
        assert_eq!(decode_path("/50%"), "/50%");
        assert_eq!(decode_path("/%zz%4"), "/%zz%4");
        assert_eq!(decode_path("/%ff"), "/%ff");
    }

    #[test]
    fn headers_are_kept_with_all_their_values() {
        let request = Request::get("/")
            .header("accept", "text/html")
            .header("x-many", "1")
            .header("accept", "text/plain")
            .header("x-many", "2")
            .body(axum::body::Body::empty());
        let request = request.unwrap();
        let facts = RequestFacts::of(&request, false);
        assert_eq!(facts.headers(), request.headers());
        assert_eq!(facts.parts().headers, *request.headers());
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(new_request_id(), new_request_id());
        assert_eq!(new_request_id().len(), 24);
    }

    #[test]
    fn only_plain_ids_are_taken_over() {
        assert!(is_request_id("0f8fad5b-d9cb-469f-a165-70867728950e"));
        assert!(!is_request_id(""));
        assert!(!is_request_id("a b"));
        assert!(!is_request_id("<script>"));
        assert!(!is_request_id(&"a".repeat(65)));
    }
}
