//! HTTP errors: a status code, a name, a description that clients may read, and headers.
//!
//! [`abort`] makes one and stops the view; [`http_error!`](crate::http_error!) declares a type of
//! your own; [`errors`](crate::errors) has a type for each standard one.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{ALLOW, CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{Error, Kind, Result};

/// An error with a status code, a name, a description and headers.
///
/// The description, unlike the text of other errors, is shown to clients.
///
/// # Example
///
/// ```
/// use backstop::HttpError;
///
/// let error = HttpError::new(404).description("No such user.");
/// assert_eq!(error.name(), "Not Found");
/// assert_eq!(error.to_string(), "404 Not Found: No such user.");
/// ```
///
/// Follows Werkzeug's `HTTPException`:
/// <https://werkzeug.palletsprojects.com/en/stable/exceptions/>.
pub struct HttpError(Box<Inner>);

struct Inner {
    kind: Kind,
    code: Option<u16>,
    description: Option<Cow<'static, str>>,
    detail: Option<String>,
    headers: HeaderMap,
    response: Option<Response>,
    original: Option<Error>,
}

/// A ready response, taken when it is sent. The web module knows its type.
type Response = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

impl HttpError {
    /// Makes an HTTP error with the name, description and headers of its code.
    ///
    /// The code is taken as it is; [`abort`] refuses those that are no errors.
    pub fn new(code: u16) -> Self {
        Self::of(Kind::of_code(code))
    }

    /// Makes an HTTP error of a kind: its code, description and headers.
    pub fn of(kind: Kind) -> Self {
        Self(Box::new(Inner {
            code: kind.status_code(),
            description: None,
            detail: None,
            headers: HeaderMap::new(),
            response: None,
            original: None,
            kind,
        }))
    }

    /// Wraps an error that nobody handled: 500, with the original behind [`HttpError::original`].
    pub(crate) fn internal(original: Error) -> Self {
        let mut error = Self::new(500);
        error.0.original = Some(original);
        error
    }

    /// Makes an error that is answered with a ready response, whatever handlers there are.
    pub(crate) fn ready(response: Box<dyn Any + Send>) -> Self {
        let mut error = Self::of(Kind::of::<Self>());
        error.0.response = Some(Arc::new(Mutex::new(Some(response))));
        error
    }

    /// Sends this status code, while handlers are still chosen by the kind's code.
    #[must_use]
    pub fn code(mut self, code: u16) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Replaces the description: the sentence that clients may read.
    #[must_use]
    pub fn description(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.0.description = Some(text.into());
        self
    }

    /// Adds what only developers may read: shown in debug mode and in the log.
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.0.detail = Some(text.into());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// Names the methods that are allowed (`Allow`), for 405.
    #[must_use]
    pub fn allow(self, methods: &[&str]) -> Self {
        self.text_header(ALLOW, &methods.join(", "))
    }

    /// Adds a challenge (`WWW-Authenticate`), for 401; each call adds one line.
    #[must_use]
    pub fn www_authenticate(self, challenge: &str) -> Self {
        self.text_header(WWW_AUTHENTICATE, challenge)
    }

    /// Says after which time to try again (`Retry-After`), in whole seconds.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        self.text_header(RETRY_AFTER, &delay.as_secs().to_string())
    }

    /// Says when to try again (`Retry-After`), as a date.
    #[must_use]
    pub fn retry_at(self, time: SystemTime) -> Self {
        self.text_header(RETRY_AFTER, &httpdate::fmt_http_date(time))
    }

    /// Says how long the thing is of which a range was wanted (`Content-Range`), for 416.
    #[must_use]
    pub fn content_range(self, unit: &str, length: u64) -> Self {
        self.text_header(CONTENT_RANGE, &format!("{unit} */{length}"))
    }

    /// Adds a header unless its text cannot be sent; such text comes from a request and is no
    /// reason to lose the error.
    fn text_header(mut self, name: HeaderName, text: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(text) {
            self.0.headers.append(name, value);
        }
        self
    }

    /// The status code; none for an error that is only a ready response.
    pub fn status_code(&self) -> Option<u16> {
        self.0.code
    }

    /// The status to answer with; 500 where the code is none that can be sent.
    pub fn status(&self) -> StatusCode {
        self.0
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The name that belongs to the code.
    pub fn name(&self) -> &'static str {
        self.0.code.map_or(UNKNOWN, name_of)
    }

    /// The description that clients may read.
    pub fn public_description(&self) -> &str {
        self.0
            .description
            .as_deref()
            .or_else(|| self.0.kind.default_description())
            .unwrap_or_default()
    }

    /// What only developers may read.
    pub fn private_detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The headers of the kind, then the error's own.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = self.0.kind.headers().clone();
        for (name, value) in &self.0.headers {
            headers.append(name, value.clone());
        }
        headers
    }

    /// The error that nobody handled, when this is the 500 made of it.
    pub fn original(&self) -> Option<&Error> {
        self.0.original.as_ref()
    }

    /// The kind, by which handlers are chosen.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Gives the ready response to a function that makes two of it: one stays here.
    pub(crate) fn share_response<R>(
        &self,
        share: impl FnOnce(Box<dyn Any + Send>) -> Option<(Box<dyn Any + Send>, R)>,
    ) -> Option<R> {
        let response = self.0.response.as_ref()?;
        let mut slot = response.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, shared) = share(slot.take()?)?;
        *slot = Some(kept);
        Some(shared)
    }

    pub(crate) fn with_response(mut self, response: Box<dyn Any + Send>) -> Self {
        self.0.response = Some(Arc::new(Mutex::new(Some(response))));
        self
    }

    /// The same error once more, for a page; the ready response stays with the first.
    pub(crate) fn describe(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind.clone(),
            code: self.0.code,
            description: self.0.description.clone(),
            detail: self.0.detail.clone(),
            headers: self.0.headers.clone(),
            response: self.0.response.clone(),
            original: self.0.original.clone(),
        }))
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.code {
            Some(code) => write!(f, "{code} {}", self.name())?,
            None => f.write_str("ready response")?,
        }
        match self.public_description() {
            "" => {}
            description => write!(f, ": {description}")?,
        }
        match &self.0.detail {
            Some(detail) => write!(f, "\n{detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("kind", &self.0.kind.name())
            .field("code", &self.0.code)
            .field("description", &self.public_description())
            .field("detail", &self.0.detail)
            .field("original", &self.0.original)
            .finish_non_exhaustive()
    }
}

impl StdError for HttpError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .original
            .as_ref()
            .map(|original| original.as_dyn() as &(dyn StdError + 'static))
    }
}

crate::error_kind!(HttpError);

impl From<u16> for HttpError {
    fn from(code: u16) -> Self {
        Self::new(code)
    }
}

impl From<StatusCode> for HttpError {
    fn from(status: StatusCode) -> Self {
        Self::new(status.as_u16())
    }
}

impl<T: Into<Cow<'static, str>>> From<(u16, T)> for HttpError {
    fn from((code, description): (u16, T)) -> Self {
        Self::new(code).description(description)
    }
}

impl<T: Into<Cow<'static, str>>> From<(StatusCode, T)> for HttpError {
    fn from((status, description): (StatusCode, T)) -> Self {
        Self::new(status.as_u16()).description(description)
    }
}

/// The first status code that is an error.
pub(crate) const CODE_MIN: u16 = 400;
/// The last status code that is an error.
pub(crate) const CODE_MAX: u16 = 599;

/// Stops a view with an HTTP error: by code, with a description of its own, or with a response.
///
/// # Errors
///
/// Always: with the HTTP error, or with [`UnknownCode`] when the code is not 400 to 599.
///
/// # Example
///
/// ```
/// use backstop::{HttpError, Result, abort};
///
/// fn show(id: u32) -> Result<String> {
///     if id == 0 {
///         abort(404)?;
///     }
///     if id == 1 {
///         return abort((403, "That one is private."));
///     }
///     if id == 2 {
///         return abort(HttpError::new(429).retry_after(std::time::Duration::from_secs(20)));
///     }
///     Ok(format!("user {id}"))
/// }
///
/// assert_eq!(show(0).unwrap_err().code(), Some(404));
/// assert_eq!(show(1).unwrap_err().description(), "That one is private.");
/// assert_eq!(show(2).unwrap_err().headers()["retry-after"], "20");
/// assert_eq!(show(3).unwrap(), "user 3");
/// ```
#[track_caller]
pub fn abort<T>(error: impl Into<HttpError>) -> Result<T> {
    let error = error.into();
    match error.status_code() {
        Some(code) if !(CODE_MIN..=CODE_MAX).contains(&code) => Err(Error::from(UnknownCode(code))),
        _ => Err(Error::from(error)),
    }
}

/// There is no HTTP error with this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCode(pub u16);

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no HTTP error has the code {}", self.0)
    }
}

impl StdError for UnknownCode {}

/// The name of a code that is in no list.
const UNKNOWN: &str = "Unknown Error";

/// The name of a status code, as in Flask.
///
/// Where the newer RFC 9110 renamed one (413, 414, 416), the name that Flask shows is kept.
pub fn name_of(code: u16) -> &'static str {
    match code {
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        416 => "Requested Range Not Satisfiable",
        418 => "I'm a teapot",
        449 => "Retry With",
        511 => "Network Authentication Failed",
        _ => StatusCode::from_u16(code)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or(UNKNOWN),
    }
}

/// Declares an HTTP error of your own: a type with a status code and a description.
///
/// The type is an ordinary `std::error::Error`, so it may also travel through functions that
/// return other errors.
/// Parents come after a colon; then a code and a description, or a description and the parent's
/// code.
/// Fields come in braces before the code.
///
/// # Example
///
/// ```
/// use backstop::{Result, http_error};
///
/// http_error!(pub struct InsufficientStorage(507, "Not enough storage space."));
/// http_error!(pub struct NoSuchUser: backstop::errors::NotFound = "There is no such user.");
/// http_error!(pub struct QuotaUsedUp { pub left: u32 } (429, "Your quota is used up."));
///
/// fn store() -> Result<()> {
///     Err(InsufficientStorage)?
/// }
///
/// let error = store().unwrap_err();
/// assert_eq!(error.code(), Some(507));
/// assert_eq!(error.description(), "Not enough storage space.");
/// assert_eq!(backstop::Error::from(NoSuchUser).code(), Some(404));
/// assert_eq!(backstop::Error::from(QuotaUsedUp { left: 0 }).code(), Some(429));
/// ```
#[macro_export]
macro_rules! http_error {
    ($(#[$meta:meta])* $vis:vis struct $name:ident ($code:expr, $description:expr $(,)?) $(;)?) => {
        #[doc = ::std::concat!("HTTP error: ", ::std::stringify!($description))]
        ///
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        $vis struct $name;
        $crate::__http_error_impl!($name, [], ::std::option::Option::Some($code), $description);
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* } $(,)? ($code:expr, $description:expr $(,)?) $(;)?) => {
        #[doc = ::std::concat!("HTTP error: ", ::std::stringify!($description))]
        ///
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name { $($fields)* }
        $crate::__http_error_impl!($name, [], ::std::option::Option::Some($code), $description);
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident : $($parent:ty),+ = $description:literal $(;)?) => {
        #[doc = ::std::concat!("HTTP error: ", ::std::stringify!($description))]
        ///
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        $vis struct $name;
        $crate::__http_error_impl!($name, [$($parent),+], ::std::option::Option::None, $description);
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident : $($parent:ty),+ = ($code:expr, $description:expr $(,)?) $(;)?) => {
        #[doc = ::std::concat!("HTTP error: ", ::std::stringify!($description))]
        ///
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        $vis struct $name;
        $crate::__http_error_impl!($name, [$($parent),+], ::std::option::Option::Some($code), $description);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __http_error_impl {
    ($name:ident, [$($parent:ty),*], $code:expr, $description:expr) => {
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let kind = $crate::Kind::of::<Self>();
                let code = kind.status_code().unwrap_or_default();
                ::std::write!(f, "{code} {}: {}", $crate::name_of(code), $description)
            }
        }

        impl ::std::error::Error for $name {}

        $crate::__private::inventory::submit! {
            $crate::__private::Declared {
                of: ::std::any::TypeId::of::<$name>,
                is: |error| error.is::<$name>(),
                name: ::std::stringify!($name),
                code: $code,
                code_of: ::std::option::Option::None,
                description: ::std::option::Option::Some($description),
                parents: &[$(::std::any::TypeId::of::<$parent>,)* ::std::any::TypeId::of::<$crate::HttpError>],
            }
        }
    };
}

macro_rules! standard {
    ($($name:ident $code:literal $description:literal)*) => {
        $(
            #[doc = concat!("HTTP ", stringify!($code), ": \"", $description, "\"")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            pub struct $name;
            crate::__http_error_impl!($name, [], Some($code), $description);

            impl From<$name> for super::HttpError {
                fn from(_: $name) -> Self {
                    Self::of(crate::Kind::of::<$name>())
                }
            }
        )*

        pub(super) const STANDARD: &[fn() -> std::any::TypeId] =
            &[$(std::any::TypeId::of::<$name>),*];
    };
}

pub(crate) const STANDARD: &[fn() -> TypeId] = errors::STANDARD;

/// The standard HTTP errors as types, named as in Werkzeug.
///
/// # Example
///
/// ```
/// use backstop::{HttpError, Result, errors::NotFound};
///
/// fn find() -> Result<()> {
///     Err(NotFound)?
/// }
///
/// let error = find().unwrap_err();
/// assert_eq!(error.code(), Some(404));
///
/// let error = HttpError::from(NotFound).description("No such user.");
/// assert_eq!(error.to_string(), "404 Not Found: No such user.");
/// ```
pub mod errors {
    standard! {
        BadRequest 400 "The server could not make sense of this request."
        Unauthorized 401 "This address needs a login. Either none was sent, or it was not accepted."
        Forbidden 403 "You are not allowed to see or do this."
        NotFound 404 "There is nothing at this address. Check it for typing mistakes."
        MethodNotAllowed 405 "This address does not take this method."
        NotAcceptable 406 "This address has no answer in a form that your client accepts."
        RequestTimeout 408 "The request did not arrive in time, so the server closed the connection."
        Conflict 409 "Someone else seems to have changed this at the same time. Load it again and retry."
        Gone 410 "This was here once and has been removed for good."
        LengthRequired 411 "This address needs to know the length of the request: send a Content-Length header."
        PreconditionFailed 412 "A condition in the request's headers is not met."
        RequestEntityTooLarge 413 "The request carries more data than this address takes."
        RequestURITooLarge 414 "The address is longer than this server takes."
        UnsupportedMediaType 415 "This address does not take data of this type."
        RequestedRangeNotSatisfiable 416 "The wanted range lies outside of what there is."
        ExpectationFailed 417 "The server cannot do what the Expect header asks for."
        ImATeapot 418 "This is a teapot. It does not brew coffee."
        MisdirectedRequest 421 "This server does not answer for that address."
        UnprocessableEntity 422 "The request could be read, but its content makes no sense here."
        Locked 423 "This is locked at the moment."
        FailedDependency 424 "This depends on something else, and that failed."
        PreconditionRequired 428 "This must be asked for with a condition, such as If-Match."
        TooManyRequests 429 "Too many requests in a short time. Wait a little and try again."
        RequestHeaderFieldsTooLarge 431 "The headers of the request are larger than this server takes."
        UnavailableForLegalReasons 451 "This may not be shown, for legal reasons."
        InternalServerError 500 "Something went wrong on the server. The fault is not yours; it has been noted."
        NotImplemented 501 "The server does not know how to do this."
        BadGateway 502 "Another server, on which this one depends, sent an answer that makes no sense."
        ServiceUnavailable 503 "The server is busy or under maintenance. Try again later."
        GatewayTimeout 504 "Another server, on which this one depends, did not answer in time."
        HTTPVersionNotSupported 505 "The server does not speak this version of HTTP."
    }

    crate::http_error! {
        /// A form field or query argument that the view needs is missing; a kind of 400.
        pub struct BadRequestKeyError: BadRequest = "The server could not make sense of this request."
    }
    crate::http_error! {
        /// The client left before it had sent its whole request; a kind of 400.
        pub struct ClientDisconnected: BadRequest = "The request ended before it was complete."
    }
    crate::http_error! {
        /// The request names its host in a way that cannot be read; a kind of 400.
        ///
        /// For applications that choose by host; nothing here raises it.
        pub struct BadHost: BadRequest = "The request names no host that can be read."
    }
    crate::http_error! {
        /// The request's host is none that this application answers for; a kind of 400.
        pub struct SecurityError: BadRequest = "The server does not answer for this host."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_error_has_code_name_and_description() {
        assert_eq!(STANDARD.len(), 31);
        for of in STANDARD {
            let kind = crate::kind::declared(of()).expect("declared above");
            let code = kind.status_code().expect("declared with a code");
            assert_ne!(name_of(code), UNKNOWN, "{code}");
            assert!(!kind.default_description().unwrap_or_default().is_empty());
            assert!(kind.is_a(&Kind::of::<HttpError>()));
        }
    }

    #[test]
    fn headers() {
        let error = HttpError::new(416).content_range("bytes", 0);
        assert_eq!(error.headers()["content-range"], "bytes */0");
        let error = HttpError::new(405).allow(&["GET", "HEAD"]);
        assert_eq!(error.headers()["allow"], "GET, HEAD");
        let error = HttpError::new(503).retry_at(SystemTime::UNIX_EPOCH);
        assert_eq!(
            error.headers()["retry-after"],
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
        let error = HttpError::new(401)
            .www_authenticate("Basic realm=a")
            .www_authenticate("Bearer");
        assert_eq!(
            error.headers().get_all("www-authenticate").iter().count(),
            2
        );
    }

    #[test]
    fn abort_refuses_codes_that_are_no_errors() {
        let error = abort::<()>(301).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&UnknownCode(301)));
    }
}
