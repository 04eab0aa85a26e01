//! What is kept of a request while the view consumes it.
//!
//! Every request is copied, and hardly any copy is ever looked at.
//! So it is one text, in memory that the thread's next request uses again, and what somebody asks
//! for is made of it then.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::body::HttpBody;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use http::header::ACCEPT;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use crate::web::page::{Format, format_of};

/// What is kept of a request while the view consumes it.
#[derive(Default)]
pub(crate) struct RequestFacts {
    method: Method,
    version: Version,
    /// The route, the address and the headers, one after the other.
    text: SecretText,
    /// Where the route ends in the text, if one matched.
    route: Option<usize>,
    /// Where the address ends in the text.
    address: usize,
    /// Where each header ends in the text, in their order.
    lines: Vec<Line>,
    /// There only if a handler or hook has extractors: they are costly to copy.
    extensions: Option<Extensions>,
    client_address: Option<IpAddr>,
    /// Whether the log has it that the client left, for whoever reads the body.
    departure: Option<Departure>,
    /// Of most requests nobody asks for any of it.
    asked: OnceLock<Box<Asked>>,
}

/// What is made of the copy once somebody asks.
#[derive(Default)]
struct Asked {
    /// The address as such.
    uri: OnceLock<Uri>,
    /// The headers as a map.
    headers: OnceLock<HeaderMap>,
    id: OnceLock<String>,
    /// That the client left has been logged.
    abandoned: AtomicBool,
}

impl Asked {
    #[cold]
    fn of_address(uri: &Uri) -> Box<Self> {
        Box::new(Self {
            uri: OnceLock::from(uri.clone()),
            ..Self::default()
        })
    }
}

/// Text with headers in it: cookies, tokens. Its name hides it from captured variables.
#[derive(Default)]
struct SecretText(Vec<u8>);

impl Deref for SecretText {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for SecretText {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

/// Whether the log has it that a client left while it sent its request: in the extensions of a
/// request whose body is still to come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Departure(Arc<AtomicBool>);

impl Departure {
    /// Notes that the client left.
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A header in the text.
struct Line {
    name_end: usize,
    value_end: usize,
    is_sensitive: bool,
}

impl RequestFacts {
    /// Copies what is needed later.
    pub(crate) fn of(request: &Request, with_extensions: bool) -> Arc<Self> {
        let mut facts = spare();
        if let Some(facts) = Arc::get_mut(&mut facts) {
            facts.fill(request, with_extensions);
        }
        facts
    }

    /// What is left of an earlier request is replaced.
    fn fill(&mut self, request: &Request, with_extensions: bool) {
        self.text.clear();
        self.lines.clear();
        self.route = None;
        let extensions = request.extensions();
        // Nearly all requests have the method of the one before.
        if self.method != *request.method() {
            self.take_method(request.method());
        }
        self.version = request.version();
        if let Some(route) = extensions.get::<MatchedPath>() {
            self.text.extend_from_slice(route.as_str().as_bytes());
            self.route = Some(self.text.len());
        }
        match origin_form(request.uri()) {
            Some(address) => self.text.extend_from_slice(address.as_bytes()),
            None => self.asked = OnceLock::from(Asked::of_address(request.uri())),
        }
        self.address = self.text.len();
        self.lines.reserve(request.headers().len());
        for (name, value) in request.headers() {
            self.text.extend_from_slice(name.as_str().as_bytes());
            let name_end = self.text.len();
            self.text.extend_from_slice(value.as_bytes());
            self.lines.push(Line {
                name_end,
                value_end: self.text.len(),
                is_sensitive: value.is_sensitive(),
            });
        }
        self.client_address = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|ConnectInfo(address)| address.ip());
        if !request.body().is_end_stream() {
            self.take_departure(request);
        }
        if with_extensions {
            self.extensions = Some(extensions.clone());
        }
    }

    #[inline(never)]
    fn take_method(&mut self, method: &Method) {
        self.method = method.clone();
    }

    #[inline(never)]
    fn take_departure(&mut self, request: &Request) {
        self.departure = request.extensions().get::<Departure>().cloned();
    }

    /// Keeps the memory for a later request, unless somebody still looks at this one.
    pub(crate) fn recycle(mut self: Arc<Self>) {
        if Arc::strong_count(&self) != 1
            || self.text.capacity() > SPARE_BYTES_MAX
            || self.lines.capacity() > SPARE_HEADERS_MAX
        {
            return;
        }
        if self.extensions.is_some() || self.departure.is_some() || self.asked.get().is_some() {
            let Some(facts) = Arc::get_mut(&mut self) else {
                return;
            };
            facts.release();
        }
        // While the thread ends nothing is kept.
        let _kept = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARE_MAX
            {
                spare.push(self);
            }
        });
    }

    /// Gives up what is more than memory for a text.
    #[inline(never)]
    fn release(&mut self) {
        self.extensions = None;
        self.departure = None;
        self.asked.take();
    }

    fn asked(&self) -> &Asked {
        self.asked.get_or_init(Box::default)
    }

    /// The same request as one whose address was not even looked up.
    pub(crate) fn unrouted(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(facts) = Arc::get_mut(&mut self) {
            let end = facts.route.take().unwrap_or_default();
            facts.text.drain(..end);
            facts.address -= end;
            for line in &mut facts.lines {
                line.name_end -= end;
                line.value_end -= end;
            }
        }
        self
    }

    /// Notes that the client left; tells whether that is news.
    pub(crate) fn abandon(&self) -> bool {
        let departed = self.departure.as_ref();
        !departed.is_some_and(|departure| departure.0.load(Ordering::Relaxed))
            && !self.asked().abandoned.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_routed(&self) -> bool {
        self.route.is_some()
    }

    /// The route that matched, as it was registered.
    pub(crate) fn route(&self) -> Option<&str> {
        std::str::from_utf8(&self.text[..self.route?]).ok()
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn uri(&self) -> &Uri {
        self.asked().uri.get_or_init(|| {
            let address = &self.text[self.route.unwrap_or_default()..self.address];
            // It was one before.
            Uri::try_from(address).unwrap_or_default()
        })
    }

    pub(crate) fn client_address(&self) -> Option<IpAddr> {
        self.client_address
    }

    /// The request without its body, for extractors.
    pub(crate) fn parts(&self) -> Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = self.uri().clone();
        parts.version = self.version;
        parts.headers = self.headers().clone();
        parts.extensions = self.extensions.clone().unwrap_or_default();
        parts
    }

    /// The request's headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.asked().headers.get_or_init(|| {
            let mut map = HeaderMap::with_capacity(self.lines.len());
            for (name, value, is_sensitive) in self.lines() {
                // They were such before.
                if let (Ok(name), Ok(mut value)) =
                    (HeaderName::try_from(name), HeaderValue::try_from(value))
                {
                    value.set_sensitive(is_sensitive);
                    map.append(name, value);
                }
            }
            map
        })
    }

    /// Names and values, and whether the value is sensitive.
    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        let mut start = self.address;
        self.lines.iter().map(move |line| {
            let name = &self.text[start..line.name_end];
            start = line.value_end;
            let value = &self.text[line.name_end..line.value_end];
            (name, value, line.is_sensitive)
        })
    }

    /// The values of a header.
    fn header(&self, wanted: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let wanted = wanted.as_str().as_bytes();
        self.lines()
            .filter_map(move |(name, value, _)| (name == wanted).then_some(value))
    }

    /// The form of an error page: what the client likes best, or HTML.
    pub(crate) fn format_of_page(&self, negotiates: bool) -> Format {
        let mut accept = self.header(&ACCEPT);
        match (accept.next(), accept.next()) {
            // As programs say it that are no browsers, and as it is said by saying nothing.
            (Some(b"*/*") | None, None) => Format::Html,
            _ if negotiates => format_of(self.header(&ACCEPT)),
            _ => Format::Html,
        }
    }

    /// The request's id: the one that came with it, else a new one.
    pub(crate) fn id(&self) -> &str {
        self.asked().id.get_or_init(|| {
            self.header(&REQUEST_ID)
                .next()
                .and_then(|value| std::str::from_utf8(value).ok())
                .filter(|id| is_request_id(id))
                .map_or_else(new_request_id, str::to_owned)
        })
    }
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts")
            .field("method", &self.method)
            .field("uri", self.uri())
            .field("route", &self.route())
            .field("headers", self.headers())
            .field("client_address", &self.client_address)
            .finish_non_exhaustive()
    }
}

/// The address as nearly all requests have it: a path, perhaps with a query.
fn origin_form(uri: &Uri) -> Option<&str> {
    if uri.scheme().is_some() || uri.authority().is_some() {
        return None;
    }
    let address = uri.path_and_query()?.as_str();
    address.starts_with('/').then_some(address)
}

/// The most facts that a thread keeps ready. More requests than this that end on one thread before
/// the next begins are a burst, which may allocate.
const SPARE_MAX: usize = 64;

/// Room for longer texts is not kept: the headers of nearly all clients have less than 4 KiB.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Room for more headers than this is not kept: few clients send more than 20.
const SPARE_HEADERS_MAX: usize = 128;

thread_local! {
    /// Facts of requests that have ended: their text is replaced by the next one's.
    static SPARE: RefCell<Vec<Arc<RequestFacts>>> = const { RefCell::new(Vec::new()) };
}

/// Facts of which nobody else knows.
fn spare() -> Arc<RequestFacts> {
    // While the thread ends there are none.
    SPARE
        .try_with(|spare| spare.try_borrow_mut().ok()?.pop())
        .ok()
        .flatten()
        .unwrap_or_else(fresh)
}

#[cold]
#[inline(never)]
fn fresh() -> Arc<RequestFacts> {
    Arc::default()
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

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn headers_are_kept_with_all_their_values() {
        let mut secret = HeaderValue::from_static("Basic Zm9v");
        secret.set_sensitive(true);
        let request = Request::get("/a%20b?q=1")
            .header("accept", "text/html")
            .header("x-many", "1")
            .header("accept", "text/plain")
            .header("authorization", secret)
            .header("x-latin", HeaderValue::from_bytes(b"gr\xfc\xdfe").unwrap())
            .header("x-many", "2")
            .body(Body::empty());
        let request = request.unwrap();
        let facts = RequestFacts::of(&request, false);
        assert_eq!(facts.headers(), request.headers());
        assert!(facts.headers()["authorization"].is_sensitive());
        assert_eq!(facts.parts().headers, *request.headers());
        assert_eq!(facts.uri(), request.uri());
        assert_eq!(facts.route(), None);
    }

    #[test]
    fn headers_are_hidden_from_captured_variables() {
        let hidden = backstop_capture::Redaction::default();
        assert!(hidden.hides_type(std::any::type_name::<SecretText>()));
    }

    #[test]
    fn addresses_of_every_form_are_kept() {
        for address in ["/", "/a?b", "*", "http://h:1/a?b", "h:443", "/gr\u{fc}n"] {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = address.parse().unwrap();
            assert_eq!(RequestFacts::of(&request, false).uri(), request.uri());
        }
    }

    #[test]
    fn nothing_of_a_request_is_left_for_the_next() {
        let first = Request::post("/first")
            .header("x-request-id", "r1")
            .extension(1_u8)
            .body(Body::empty());
        let facts = RequestFacts::of(&first.unwrap(), true);
        assert_eq!((facts.id(), facts.abandon()), ("r1", true));
        assert_eq!(facts.headers().len(), 1);
        facts.recycle();
        let facts = RequestFacts::of(&Request::new(Body::empty()), false);
        assert_eq!((facts.method(), facts.uri().path()), (&Method::GET, "/"));
        assert!(facts.headers().is_empty() && facts.parts().extensions.is_empty());
        assert_ne!(facts.id(), "r1");
        assert!(facts.abandon());
    }

    #[test]
    fn a_client_that_left_while_it_sent_is_not_told_of_again() {
        let departure = Departure::default();
        let request = || {
            let request = Request::post("/").extension(departure.clone());
            request.body(Body::from("the first half")).unwrap()
        };
        assert!(RequestFacts::of(&request(), false).abandon());
        let facts = RequestFacts::of(&request(), false);
        departure.note();
        assert!(!facts.abandon());
    }

    #[test]
    fn what_somebody_looks_at_is_not_used_again() {
        let request = Request::get("/kept").body(Body::empty()).unwrap();
        let facts = RequestFacts::of(&request, false);
        Arc::clone(&facts).recycle();
        let other = RequestFacts::of(&Request::new(Body::empty()), false);
        assert_eq!(facts.uri().path(), "/kept");
        assert_eq!(other.uri().path(), "/");
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
