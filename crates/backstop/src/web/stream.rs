//! Bodies that are streamed: an error or a panic in one is logged, and the connection breaks
//! visibly, because the status has already been sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};

use crate::Error;
use crate::panic;
use crate::web::facts::RequestFacts;
use crate::web::failure::Failure;
use crate::web::layer::Place;

/// Wraps a body that is streamed; a body of known length cannot fail.
///
/// A response that is sent without its body is left alone: nobody reads the body, and that it is
/// dropped does not mean that the client left.
///
/// # Errors
///
/// The body failed before its first piece, so there is time for another answer.
pub(crate) fn guard(
    response: Response,
    place: &Place,
    facts: &Arc<RequestFacts>,
    cx: &mut Context<'_>,
) -> Result<Response, Error> {
    if is_whole(&response) || is_sent_bare(facts.method(), response.status()) {
        return Ok(response);
    }
    let (parts, mut body) = response.into_parts();
    // One look, without waiting: a stream that takes its time keeps its headers going out first.
    let first = match panic::catch(|| Pin::new(&mut body).poll_frame(cx))? {
        Poll::Ready(Some(Err(error))) => return Err(Error::from(error.into_inner())),
        Poll::Ready(Some(Ok(frame))) => Some(frame),
        Poll::Ready(None) => return Ok(Response::from_parts(parts, Body::empty())),
        Poll::Pending => None,
    };
    let guarded = Guarded {
        body,
        first,
        failed: None,
        ended: false,
        bytes_sent: 0,
        request: Arc::clone(facts),
        blueprint: place.blueprint_of(facts),
        core: Arc::clone(&place.core),
    };
    Ok(Response::from_parts(parts, Body::new(guarded)))
}

/// Tells whether the body of a response is there already.
pub(crate) fn is_whole(response: &Response) -> bool {
    response.body().size_hint().exact().is_some()
}

/// Tells whether the body of a response is never sent: RFC 9110, section 6.4.1.
fn is_sent_bare(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Longer bodies are not doubled; error pages have a few hundred bytes.
const DOUBLED_BYTES_MAX: u64 = 256 * 1024;

/// Doubles a response for somebody who may lose it. Of one whose body is long or still to come,
/// the first that is read has the body.
pub(crate) fn double(response: Response, cx: &mut Context<'_>) -> (Response, Response) {
    let length = response.body().size_hint().exact();
    if length.is_none_or(|length| length > DOUBLED_BYTES_MAX) {
        return share(response);
    }
    let (parts, mut body) = response.into_parts();
    let first = match panic::catch(|| Pin::new(&mut body).poll_frame(cx)) {
        Ok(Poll::Ready(first)) => first,
        Ok(Poll::Pending) => return share(Response::from_parts(parts, body)),
        Err(error) => {
            crate::log::failed("an answer's body failed", &error);
            Some(Err(axum::Error::new(StreamFailed)))
        }
    };
    let bytes = match first {
        None => Bytes::new(),
        Some(Ok(frame)) if frame.is_data() && body.is_end_stream() => {
            frame.into_data().unwrap_or_default()
        }
        first => {
            let body = Body::new(Peeked { first, body });
            return share(Response::from_parts(parts, body));
        }
    };
    (
        Response::from_parts(parts.clone(), Body::from(bytes.clone())),
        Response::from_parts(parts, Body::from(bytes)),
    )
}

/// A body whose first piece has been taken out.
struct Peeked {
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    body: Body,
}

impl HttpBody for Peeked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.first {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

/// Makes two responses of one; the first that is read has the body.
pub(crate) fn share(response: Response) -> (Response, Response) {
    let (parts, body) = response.into_parts();
    let body = Shared(Arc::new(Mutex::new(body)));
    let other = Shared(Arc::clone(&body.0));
    (
        Response::from_parts(parts.clone(), Body::new(body)),
        Response::from_parts(parts, Body::new(other)),
    )
}

/// A body that two responses have, until one of them is sent.
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

struct Guarded {
    body: Body,
    /// What was seen when it was looked at.
    first: Option<Frame<Bytes>>,
    /// The body has failed, and the connection will be told with the next poll.
    failed: Option<axum::Error>,
    /// It has ended, one way or the other.
    ended: bool,
    bytes_sent: u64,
    request: Arc<RequestFacts>,
    blueprint: Option<Arc<str>>,
    core: Arc<super::layer::Core>,
}

impl Guarded {
    /// Logs a failure and postpones it: what was written before is flushed only if the body
    /// pauses, and the client shall see how far it went.
    fn fail(&mut self, error: Error, cx: &Context<'_>) {
        // A hook may have put a body around one that is guarded already.
        if !is_known(&error) {
            let failure = Failure {
                error,
                request: Arc::clone(&self.request),
                blueprint: self.blueprint.clone(),
                core: Arc::clone(&self.core),
            };
            super::respond::stream_failed(&self.core, &failure, self.bytes_sent);
        }
        self.failed = Some(axum::Error::new(StreamFailed));
        self.ended = true;
        cx.waker().wake_by_ref();
    }

    fn sent(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.bytes_sent = self.bytes_sent.saturating_add(bytes as u64);
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            crate::log::abandoned(&self.request);
        }
    }
}

/// What the connection is told: only that it must not end the body as if it were complete.
#[derive(Debug)]
struct StreamFailed;

impl std::fmt::Display for StreamFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body failed while it was streamed")
    }
}

impl std::error::Error for StreamFailed {}

/// Tells whether an error says only that a body failed, which has been logged.
pub(crate) fn is_known(error: &Error) -> bool {
    error.find::<StreamFailed>().is_some()
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Some(Err(failed)));
        }
        if let Some(frame) = self.first.take() {
            return self.sent(frame);
        }
        match panic::catch(|| Pin::new(&mut self.body).poll_frame(cx)) {
            Ok(Poll::Ready(Some(Ok(frame)))) => self.sent(frame),
            Ok(Poll::Ready(Some(Err(error)))) => {
                self.fail(Error::from(error.into_inner()), cx);
                Poll::Pending
            }
            Ok(poll) => {
                self.ended |= poll.is_ready();
                poll
            }
            Err(error) => {
                self.fail(error, cx);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Frames that were seen already are not in the inner hint any more.
        SizeHint::default()
    }
}
