//! Axum's extractors with rejections that reach the error handlers, typed.
//!
//! Change the import and nothing else: a request that does not fit is then an error like any
//! other, with its status code, its type and its place in the chain.
//!
//! # Example
//!
//! ```
//! use axum::{Router, extract::rejection::JsonRejection, http::StatusCode, routing::post};
//! use backstop::{App, Caught, extract::Json};
//!
//! async fn add(Json(numbers): Json<Vec<u32>>) -> String {
//!     numbers.iter().sum::<u32>().to_string()
//! }
//!
//! async fn no_json(e: Caught<JsonRejection>) -> (StatusCode, &'static str) {
//!     (e.status(), "send a list of numbers")
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> backstop::Result<()> {
//! let app = App::new(Router::new().route("/add", post(add))).error_handler_for(no_json);
//! # use tower::ServiceExt;
//! # let request = axum::http::Request::post("/add").header("content-type", "application/json");
//! # let response = app.into_router()?.oneshot(request.body(axum::body::Body::from("[1, true]"))?).await?;
//! # assert_eq!(response.status(), 422);
//! # let body = axum::body::to_bytes(response.into_body(), 1000).await?;
//! # assert_eq!(body, "send a list of numbers");
//! # Ok(()) }
//! ```

use std::error::Error as StdError;
use std::io;

use axum::extract::rejection::{
    BytesRejection, ExtensionRejection, FormRejection, JsonRejection, MatchedPathRejection,
    PathRejection, QueryRejection, RawFormRejection, RawPathParamsRejection, StringRejection,
};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::errors::{BadRequestKeyError, ClientDisconnected};
use crate::{Error, Kind, error_kind};

/// As [`axum::Json`], also as a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

/// As [`axum::Form`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Form<T>(pub T);

/// As [`axum::extract::Query`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

/// As [`axum::extract::Path`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

/// The whole body, as axum's `Bytes` extractor.
#[derive(Debug, Clone, Default)]
pub struct Bytes(pub axum::body::Bytes);

/// The whole body as text, as axum's `String` extractor.
#[derive(Debug, Clone, Default)]
pub struct Text(pub String);

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

macro_rules! from_request {
    ($($name:ident [$($generic:ident)?] $inner:ty, $take:expr;)*) => {
        $(
            impl<$($generic,)? S> FromRequest<S> for $name$(<$generic>)?
            where
                $($generic: DeserializeOwned,)?
                S: Send + Sync,
            {
                type Rejection = Error;

                async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
                    <$inner>::from_request(request, state)
                        .await
                        .map($take)
                        .map_err(rejected)
                }
            }
        )*
    };
}

from_request! {
    Json[T] axum::Json<T>, |axum::Json(value)| Self(value);
    Form[T] axum::Form<T>, |axum::Form(value)| Self(value);
    Bytes[] axum::body::Bytes, Self;
    Text[] String, Self;
}

macro_rules! from_parts {
    ($($name:ident: $($bound:ident)+;)*) => {
        $(
            impl<T, S> FromRequestParts<S> for $name<T>
            where
                T: $($bound +)+,
                S: Send + Sync,
            {
                type Rejection = Error;

                async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
                    axum::extract::$name::<T>::from_request_parts(parts, state)
                        .await
                        .map(|axum::extract::$name(value)| Self(value))
                        .map_err(rejected)
                }
            }
        )*
    };
}

from_parts! {
    Query: DeserializeOwned;
    Path: DeserializeOwned Send;
}

/// A rejection of axum's, with the status that it would answer with.
trait Rejection: StdError + Send + Sync + 'static {
    fn code(&self) -> u16;
}

macro_rules! rejections {
    ($($name:ident)*) => {
        $(
            error_kind!($name; code = |rejection: &$name| rejection.status().as_u16());

            impl Rejection for $name {
                fn code(&self) -> u16 {
                    self.status().as_u16()
                }
            }
        )*
    };
}

rejections! {
    BytesRejection ExtensionRejection FormRejection JsonRejection MatchedPathRejection
    PathRejection QueryRejection RawFormRejection RawPathParamsRejection StringRejection
}

/// Makes an error of a rejection: it keeps its type and is of the kind of its code, or of a
/// nearer one that its cause shows.
fn rejected(rejection: impl Rejection) -> Error {
    let kind = if is_disconnect(&rejection) {
        Kind::of::<ClientDisconnected>()
    } else if is_missing_key(&rejection) {
        Kind::of::<BadRequestKeyError>()
    } else {
        Kind::of_code(rejection.code())
    };
    Error::of_kind(&kind, rejection)
}

/// The body ended before its announced length: the client left.
///
/// Only what the connection says counts: a layer that decodes the body has ends of its own.
pub(crate) fn is_disconnect(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| crate::error::source_of(*error))
        .take(crate::error::CHAIN_MAX)
        .skip_while(|error| !error.is::<hyper::Error>())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            )
        })
}

/// A form field or query argument that the view needs is missing. Only serde's text tells.
fn is_missing_key(error: &(dyn StdError + 'static)) -> bool {
    let is_form = error.is::<QueryRejection>() || error.is::<FormRejection>();
    is_form
        && std::iter::successors(Some(error), |error| (*error).source())
            .take(crate::error::CHAIN_MAX)
            .any(|error| error.to_string().contains("missing field"))
}
