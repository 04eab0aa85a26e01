//! Errors on their way through axum: in the extensions of a response that stands for them.
//!
//! axum turns what a view returns into a response at once.
//! So an error becomes a bare response that carries it, and the layer takes it out again.

use std::cell::Cell;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Extensions;

use crate::web::failure::Failure;
use crate::{Error, HttpError, Kind};

thread_local! {
    /// Extensions with nothing but an empty [`Slot`], which keep their memory from one error to
    /// the next.
    static SPARE: Cell<Option<Extensions>> = const { Cell::new(None) };
}

/// The error that a response stands for, and how.
#[derive(Clone)]
pub(crate) enum Carried {
    /// A view or a handler failed; the response itself says nothing.
    Raised(Error),
    /// A handler wants the default page of this error.
    PassedOn(Error),
    /// The response is the answer if no handler takes the error.
    Attached(Error),
}

/// Where extensions have what a response carries. In a response it is never empty.
#[derive(Clone, Default)]
struct Slot(Option<Carried>);

impl Slot {
    /// Not inlined: every error comes here twice, and the processor has it at hand for the second
    /// time.
    #[inline(never)]
    fn of(extensions: &mut Extensions) -> Option<&mut Self> {
        extensions.get_mut()
    }
}

impl Carried {
    /// Takes out what a response carries.
    #[inline]
    pub(crate) fn take(response: &mut Response) -> Option<Self> {
        let extensions = response.extensions_mut();
        if extensions.is_empty() {
            return None;
        }
        let carried = Slot::of(extensions)?.0.take();
        if extensions.len() == 1 {
            let emptied = std::mem::take(extensions);
            // While the thread ends nothing is kept.
            let _kept = SPARE.try_with(|spare| spare.set(Some(emptied)));
        } else {
            extensions.remove::<Slot>();
        }
        carried
    }

    /// A bare response that carries an error.
    pub(crate) fn into_response(self) -> Response {
        let mut extensions = SPARE
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        let status = self.error().status();
        match Slot::of(&mut extensions) {
            Some(slot) => slot.0 = Some(self),
            None => _ = extensions.insert(Slot(Some(self))),
        }
        let (mut head, body) = Response::<Body>::default().into_parts();
        head.status = status;
        head.extensions = extensions;
        Response::from_parts(head, body)
    }

    fn error(&self) -> &Error {
        match self {
            Self::Raised(error) | Self::PassedOn(error) | Self::Attached(error) => error,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Carried::Raised(self).into_response()
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        Error::from(self).into_response()
    }
}

impl From<Response> for HttpError {
    /// Makes an error that is answered with this response, whatever handlers there are.
    fn from(response: Response) -> Self {
        Self::ready(Box::new(response))
    }
}

impl HttpError {
    /// Answers with this response, its status included, unless a handler answers.
    #[must_use]
    pub fn response(self, response: Response) -> Self {
        self.with_response(Box::new(response))
    }

    /// The default page of this error as a response of its own: no handler is asked.
    pub fn into_page(self) -> Response {
        ready_response(&self)
            .unwrap_or_else(|| Carried::PassedOn(Error::from(self)).into_response())
    }
}

/// The ready response of an error. The error keeps one too: whoever only looks at a page must not
/// use it up.
pub(crate) fn ready_response(error: &HttpError) -> Option<Response> {
    error.share_response(|ready| {
        let response = *ready.downcast::<Response>().ok()?;
        let (response, kept) = super::stream::share(response);
        Some((Box::new(kept) as _, response))
    })
}

/// Attaches an error to a response that stands for it, so that handlers see it.
///
/// For error types that have their own `IntoResponse`: the response is what the client gets if
/// no handler takes the error.
/// If its status is 500 or above, the error is then logged and reported as one that nobody
/// handled.
/// A response that was made of a [`backstop::Error`](crate::Error) keeps that one.
///
/// # Example
///
/// ```
/// use axum::http::StatusCode;
/// use axum::response::{IntoResponse, Response};
///
/// #[derive(Debug, Clone)]
/// struct OutOfStock;
/// # impl std::fmt::Display for OutOfStock {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("out of stock") }
/// # }
/// # impl std::error::Error for OutOfStock {}
///
/// impl IntoResponse for OutOfStock {
///     fn into_response(self) -> Response {
///         let response = (StatusCode::CONFLICT, "out of stock").into_response();
///         backstop::attach(response, self)
///     }
/// }
/// # let _ = OutOfStock.into_response();
/// ```
#[track_caller]
pub fn attach(response: Response, error: impl Into<Error>) -> Response {
    let mut response = response;
    let error = error.into();
    let slot = response.extensions_mut().get_or_insert_default::<Slot>();
    slot.0.get_or_insert(Carried::Attached(error));
    response
}

/// The error in a response that stands for one; the response itself as an error otherwise.
pub(crate) fn error_of(mut response: Response) -> Error {
    match Carried::take(&mut response) {
        Some(Carried::Raised(error)) => error,
        _ => {
            Error::from(HttpError::of(Kind::of_code(response.status().as_u16())).response(response))
        }
    }
}

/// Marks the response of an error that left the application: errors propagate, or the handler for
/// 500 failed itself.
///
/// Whatever surrounds the application finds it in the response's extensions: a test, or a
/// debugger.
#[derive(Debug, Clone)]
pub struct Propagated(pub(crate) Failure);

impl Propagated {
    /// The error and its request.
    pub fn failure(&self) -> &Failure {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(carried: Option<Carried>) -> Option<String> {
        carried.map(|carried| carried.error().to_string())
    }

    #[test]
    fn an_error_is_taken_once_and_leaves_what_others_put_beside_it() {
        for round in ["first", "second"] {
            let mut response = Error::from(round).into_response();
            response.extensions_mut().insert(1_u8);
            assert_eq!(text(Carried::take(&mut response)).as_deref(), Some(round));
            assert_eq!(text(Carried::take(&mut response)), None);
            assert_eq!(response.extensions().get(), Some(&1_u8));
            assert_eq!(response.extensions().len(), 1);
        }
    }

    #[test]
    fn memory_that_is_used_again_carries_nothing_of_the_error_before() {
        for text_of_error in ["first", "second"] {
            let mut response = Error::from(text_of_error).into_response();
            let taken = text(Carried::take(&mut response));
            assert_eq!(taken.as_deref(), Some(text_of_error));
            assert!(response.extensions().is_empty());
        }
        let mut response = attach(Response::default(), "attached");
        response = attach(response, "later");
        assert_eq!(
            text(Carried::take(&mut response)).as_deref(),
            Some("attached")
        );
    }
}
