//! The first argument of an error handler: the error that it caught, and what it may catch.

use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method};

use crate::kind::{self, Key};
use crate::web::carried::Carried;
use crate::web::failure::Failure;
use crate::web::handlers::Selector;
use crate::{Error, Kind};

/// The error that a handler caught; `T` says which errors it takes.
///
/// - a type of your own: that type and the types that were declared as its children;
/// - [`HttpError`](crate::HttpError): every error with a status code;
/// - a family such as [`io::ConnectionError`](crate::io::ConnectionError): those `io::Error`s;
/// - [`Error`], the default: every error.
///
/// An error that was *caused by* a `T` is taken too, if nothing nearer is registered.
///
/// Returned from the handler it means: pass the error on to its default page.
///
/// # Example
///
/// ```
/// use backstop::{Caught, HttpError};
/// use axum::http::StatusCode;
///
/// async fn not_found(e: Caught<HttpError>) -> (StatusCode, String) {
///     (e.status(), format!("{}: nothing at {}", e.name(), e.path()))
/// }
/// # let _ = not_found;
/// ```
pub struct Caught<T: ?Sized = Error> {
    failure: Failure,
    selects: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> Caught<T> {
    pub(crate) fn new(failure: Failure) -> Self {
        Self {
            failure,
            selects: PhantomData,
        }
    }

    /// The error together with its request.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        self.failure.method()
    }

    /// The request's path, percent-decoded.
    pub fn path(&self) -> String {
        self.failure.path()
    }

    /// The request's headers.
    pub fn request_headers(&self) -> &HeaderMap {
        self.failure.headers()
    }

    /// The route that matched; `None` for an unknown address.
    pub fn route(&self) -> Option<&str> {
        self.failure.route()
    }

    /// The dotted name of the blueprint whose route matched.
    pub fn blueprint(&self) -> Option<&str> {
        self.failure.blueprint()
    }

    /// The request's id.
    pub fn request_id(&self) -> &str {
        self.failure.request_id()
    }

    /// The default page of this error, to be changed and sent: what the client would get if no
    /// handler were there.
    ///
    /// An error without a status code has the page of a 500.
    /// Of an error with a ready response this is that response; its body can be sent once.
    pub fn default_response(&self) -> Response {
        super::respond::default_response(&self.failure)
    }
}

impl<T: StdError + Send + Sync + 'static> Caught<T> {
    /// The `T` itself; `None` when a child of it was caught, or a family.
    pub fn get(&self) -> Option<&T> {
        self.failure.error().find::<T>()
    }
}

impl<T: ?Sized> Deref for Caught<T> {
    type Target = Error;

    fn deref(&self) -> &Error {
        self.failure.error()
    }
}

impl<T: ?Sized> fmt::Display for Caught<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.error().fmt(f)
    }
}

impl<T: ?Sized> fmt::Debug for Caught<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.failure.error(), f)
    }
}

impl<T: ?Sized> IntoResponse for Caught<T> {
    fn into_response(self) -> Response {
        Carried::PassedOn(self.failure.error).into_response()
    }
}

/// The error that a handler caught, and nothing but that: neither children of `T` nor errors
/// that were caused by one.
///
/// So it can be read as a `T`.
///
/// # Example
///
/// ```
/// use backstop::{Exact, http_error};
///
/// http_error!(pub struct QuotaUsedUp { pub left: u32 } (429, "Your quota is used up."));
///
/// async fn quota(e: Exact<QuotaUsedUp>) -> String {
///     format!("{} left", e.left)
/// }
/// # let _ = quota;
/// ```
pub struct Exact<T> {
    caught: Caught<T>,
}

impl<T> Exact<T> {
    /// The error with its request.
    pub fn caught(&self) -> &Caught<T> {
        &self.caught
    }
}

impl<T: StdError + Send + Sync + 'static> Deref for Exact<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.caught
            .downcast_ref::<T>()
            .expect("an exact handler is called only for its type")
    }
}

impl<T> fmt::Debug for Exact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.caught.fmt(f)
    }
}

impl<T> IntoResponse for Exact<T> {
    fn into_response(self) -> Response {
        self.caught.into_response()
    }
}

/// What a handler can be registered for by its first argument.
///
/// Implemented for every error type, for the families in [`io`](crate::io) and for [`Error`].
pub trait Catch: 'static {
    #[doc(hidden)]
    fn selector() -> Select;
}

/// What a [`Catch`] selects. Opaque.
#[doc(hidden)]
#[derive(Debug)]
pub struct Select(pub(crate) Selector);

impl<T: StdError + Send + Sync + 'static> Catch for T {
    fn selector() -> Select {
        let kind = kind::declared(std::any::TypeId::of::<T>());
        Select(Selector {
            key: Key::of::<T>(),
            name: kind.map_or_else(
                || kind::short_name(std::any::type_name::<T>()).into_owned(),
                |kind| kind.name().to_owned(),
            ),
            code: kind.and_then(Kind::status_code),
            is: Some(|error| error.is::<T>()),
            exact: false,
        })
    }
}

impl Catch for Error {
    fn selector() -> Select {
        Select(Selector {
            key: Key::ANY,
            name: "Error".to_owned(),
            code: None,
            is: None,
            exact: false,
        })
    }
}

/// The first argument of an error handler: [`Caught`] or [`Exact`].
pub trait FromFailure: Send + 'static {
    #[doc(hidden)]
    fn selector() -> Select;

    #[doc(hidden)]
    fn from_failure(failure: Failure) -> Self;
}

impl<T: Catch> FromFailure for Caught<T> {
    fn selector() -> Select {
        T::selector()
    }

    fn from_failure(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl<T: StdError + Send + Sync + 'static> FromFailure for Exact<T> {
    fn selector() -> Select {
        let mut select = <T as Catch>::selector();
        select.0.exact = true;
        select
    }

    fn from_failure(failure: Failure) -> Self {
        Self {
            caught: Caught::new(failure),
        }
    }
}
