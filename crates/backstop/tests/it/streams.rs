//! Bodies that are streamed, whoever sends them: the log tells how each ended.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backstop::{App, Caught, HttpError, Result, abort, log};
use http::{Method, Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tracing::subscriber::DefaultGuard;

use crate::web::{app_that, refused};

/// What a body does when it is asked for its next piece.
#[derive(Clone, Copy)]
enum Step {
    Piece,
    Fail,
    Panic,
    Wait,
}

use Step::{Fail, Panic, Piece, Wait};

struct Steps {
    steps: VecDeque<Step>,
    length: Option<u64>,
}

fn steps(steps: impl IntoIterator<Item = Step>) -> Body {
    let steps = steps.into_iter().collect();
    Body::new(Steps {
        steps,
        length: None,
    })
}

impl http_body::Body for Steps {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"piece"))))),
            Some(Fail) => Poll::Ready(Some(Err(io::Error::other("disk")))),
            Some(Panic) => panic!("in the stream"),
            Some(Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The log of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen() -> (Self, DefaultGuard) {
        crate::listen_on_this_thread();
        let log = Self::default();
        let written = log.clone();
        let subscriber = log::text_subscriber(tracing::Level::INFO, move || written.clone());
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The first lines of its records.
    fn records(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix('[')?.split_once("] "))
            .map(|(_, record)| record.to_owned())
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LEFT: &str = "INFO in backstop::client: the client left before it had its answer";
const BROKEN: &str = "ERROR in backstop::server: Error while streaming a response:";
const EXCEPTION: &str = "ERROR in backstop: Exception on /x [GET]";

async fn ask(app: App, method: Method) -> Response {
    let request = Request::builder().method(method).uri("/x");
    let request = request.body(Body::empty()).unwrap();
    let router = app.into_router().unwrap();
    router.oneshot(request).await.unwrap()
}

/// The ways in which a stream gets out, each with what is logged before it does.
fn ways(steps: &'static [Step]) -> Vec<(&'static str, App, Vec<&'static str>)> {
    let stream = move || self::steps(steps.iter().copied());
    let ready = move || (StatusCode::IM_A_TEAPOT, stream()).into_response();
    let failing = || app_that(refused);
    let plain = || App::new(Router::new().route("/x", get(|| async { "plain" })));
    vec![
        (
            "view",
            App::new(Router::new().route("/x", get(move || async move { stream() }))),
            vec![],
        ),
        (
            "handler",
            failing().error_handler_for(move |_: Caught| stream()),
            vec![],
        ),
        (
            "handler of the 500",
            failing().error_handler(500, move |_: Caught| stream()),
            vec![EXCEPTION],
        ),
        (
            "abort with a response",
            App::new(Router::new().route(
                "/x",
                get(move || async move { abort::<()>(HttpError::from(ready())) }),
            )),
            vec![],
        ),
        (
            "response of an error",
            App::new(Router::new().route(
                "/x",
                get(move || async move { abort::<()>(HttpError::new(404).response(ready())) }),
            )),
            vec![],
        ),
        (
            "attached error",
            App::new(Router::new().route(
                "/x",
                get(move || async move { backstop::attach(ready(), io::Error::other("x")) }),
            )),
            vec![],
        ),
        (
            "before hook",
            plain().before_request(move || Some(ready())),
            vec![],
        ),
        (
            "after hook",
            plain().after_request(move |_: Response| ready()),
            vec![],
        ),
        (
            "after hook around a stream",
            failing()
                .error_handler_for(move |_: Caught| stream())
                .after_request(|response: Response| response.map(Body::new)),
            vec![],
        ),
    ]
}

#[tokio::test]
async fn a_stream_that_breaks_is_told_once_whoever_sent_it() {
    let (log, _listening) = Log::listen();
    for steps in [&[Piece, Fail][..], &[Piece, Wait, Panic], &[Wait, Fail]] {
        for (what, app, mut told) in ways(steps) {
            let response = ask(app, Method::GET).await;
            assert!(response.into_body().collect().await.is_err(), "{what}");
            told.push(BROKEN);
            assert_eq!(log.records(), told, "{what}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_told_once_whoever_sent_it() {
    let (log, _listening) = Log::listen();
    for (what, app, mut told) in ways(&[Piece, Wait, Piece]) {
        let mut body = ask(app, Method::GET).await.into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "piece", "{what}");
        drop(body);
        told.push(LEFT);
        assert_eq!(log.records(), told, "{what}");
    }
}

#[tokio::test]
async fn a_stream_that_fails_at_once_is_a_500_whoever_sent_it() {
    let (log, _listening) = Log::listen();
    for (what, app, mut told) in ways(&[Fail, Piece]) {
        assert_eq!(ask(app, Method::GET).await.status(), 500, "{what}");
        told.push("ERROR in backstop::server: Error on request:");
        assert_eq!(log.records(), told, "{what}");
    }
}

#[tokio::test]
async fn a_whole_stream_is_not_mentioned() {
    let (log, _listening) = Log::listen();
    for (what, app, told) in ways(&[Piece, Wait, Piece]) {
        let body = ask(app, Method::GET).await.into_body();
        assert_eq!(
            body.collect().await.unwrap().to_bytes(),
            "piecepiece",
            "{what}"
        );
        assert_eq!(log.records(), told, "{what}");
    }
}

#[tokio::test]
async fn a_body_that_is_never_sent_is_not_missed() {
    let (log, _listening) = Log::listen();
    for (what, app, told) in ways(&[Piece, Wait, Fail]) {
        let told: Vec<_> = told
            .iter()
            .map(|line| line.replace("GET", "HEAD"))
            .collect();
        drop(ask(app, Method::HEAD).await);
        assert_eq!(log.records(), told, "{what}");
    }
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let view = move || async move { (status, steps([Piece, Wait])) };
        let app = App::new(Router::new().route("/x", get(view)));
        drop(ask(app, Method::GET).await);
        assert!(log.records().is_empty(), "{status}");
    }
}

/// An app whose page for everything has this body, and whose last hook fails.
fn spoilt(page: fn() -> Body) -> App {
    app_that(refused)
        .error_handler(500, move |_: Caught| page())
        .after_request(|_: Response| -> Result<Response> { Err(io::Error::other("hook"))? })
}

#[tokio::test]
async fn a_page_survives_a_hook_that_fails() {
    async fn text(page: fn() -> Body) -> String {
        let body = ask(spoilt(page), Method::GET).await.into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
    assert_eq!(text(|| Body::from("short")).await, "short");
    assert_eq!(text(|| steps([Piece, Wait, Piece])).await, "piecepiece");
    let slow = || sized_body([Wait, Piece, Piece], 10);
    assert_eq!(text(slow).await, "piecepiece");
    let in_pieces = || sized_body([Piece, Wait, Piece], 10);
    assert_eq!(text(in_pieces).await, "piecepiece");
}

fn sized_body(steps: impl IntoIterator<Item = Step>, length: u64) -> Body {
    Body::new(Steps {
        steps: steps.into_iter().collect(),
        length: Some(length),
    })
}

#[tokio::test]
async fn a_page_is_not_read_for_a_hook_that_may_fail() {
    // Of a length that no memory holds, and always ready.
    let endless = || sized_body(std::iter::repeat_n(Piece, 1000), u64::MAX);
    let mut body = ask(spoilt(endless), Method::GET).await.into_body();
    assert_eq!(body.size_hint().exact(), Some(u64::MAX));
    assert!(body.frame().await.unwrap().is_ok());

    // One that panics at the first look: the built-in page stands in.
    let (log, _listening) = Log::listen();
    let broken = || sized_body([Panic], 5);
    let response = ask(spoilt(broken), Method::GET).await;
    let page = response.into_body().collect().await.unwrap().to_bytes();
    assert!(page.starts_with(b"<!doctype html>"));
    let hook = "ERROR in backstop: Request finalizing failed with an error while handling an error";
    let body = "ERROR in backstop: an answer's body failed";
    assert_eq!(log.records(), [EXCEPTION, body, hook]);
}
