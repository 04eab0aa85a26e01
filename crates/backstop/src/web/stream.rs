//! Bodies that are streamed: an error or a panic in one is logged, and the connection breaks
//! visibly, because the status has already been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};

use crate::Error;
use crate::web::failure::{Failure, RequestFacts};
use crate::web::layer::Place;
use crate::web::panic;

/// Wraps a body that is streamed; a body of known length cannot fail.
pub(crate) fn guard(response: Response, place: &Place, facts: &Arc<RequestFacts>) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let failure = Failure {
        error: Error::from("nothing happened yet"),
        request: Arc::clone(facts),
        blueprint: place.blueprint.clone(),
    };
    let core = Arc::clone(&place.core);
    response.map(|body| {
        Body::new(Guarded {
            body,
            bytes_sent: 0,
            failure,
            core,
        })
    })
}

struct Guarded {
    body: Body,
    bytes_sent: u64,
    failure: Failure,
    core: Arc<super::layer::Core>,
}

impl Guarded {
    fn failed(&self, error: Error) -> axum::Error {
        let failure = self.failure.with_error(error);
        super::layer::stream_failed(&self.core, &failure, self.bytes_sent);
        axum::Error::new(StreamFailed)
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

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match panic::catch(|| Pin::new(&mut self.body).poll_frame(cx)) {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.bytes_sent = self.bytes_sent.saturating_add(bytes as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(Some(Err(error)))) => {
                Poll::Ready(Some(Err(self.failed(Error::from(error.into_inner())))))
            }
            Ok(poll) => poll,
            Err(error) => Poll::Ready(Some(Err(self.failed(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
