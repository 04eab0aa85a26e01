//! One error together with the request in which it happened.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};

use crate::errors::ClientDisconnected;
use crate::web::facts::RequestFacts;
use crate::web::layer::Core;
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
        self.request.route()
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
        self.request.client_address()
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
}
