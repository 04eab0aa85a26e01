//! The applications that are compared: in plain axum, with Backstop, and with the least that any
//! layer does.
//!
//! A layer of axum surrounds each route with a service of its own, which axum boxes for every
//! request and whose future it boxes again.
//! [`Nothing`] and [`Head`] show what that costs without anything of Backstop.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use axum::routing::{Route, get};
use backstop::report::{Client, Collector, Tracker};
use backstop::{App, Caught, Result, http_error};
use tower::{Layer, Service};

// Below 500: from there on errors are also logged and reported, which is measured for itself.
http_error!(pub struct OutOfStock(409, "Out of stock."));
http_error!(pub struct OutOfStockNow(409, "Out of stock."));

#[derive(Debug)]
pub(crate) struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the disk is full")
    }
}

impl std::error::Error for Full {}

impl IntoResponse for Full {
    fn into_response(self) -> Response {
        (StatusCode::CONFLICT, "409: Out of stock.").into_response()
    }
}

/// The same answer, with the error in its extensions, so that a layer can see it.
struct SeenFull;

impl IntoResponse for SeenFull {
    fn into_response(self) -> Response {
        let mut response = Full.into_response();
        response.extensions_mut().insert(Seen(Arc::new(Full)));
        response
    }
}

#[derive(Clone)]
struct Seen(#[expect(dead_code, reason = "nobody looks")] Arc<dyn std::error::Error + Send + Sync>);

pub(crate) fn plain() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/full", get(|| async { Err::<&str, Full>(Full) }))
        .route("/full/now", get(|| async { Err::<&str, Full>(Full) }))
}

/// The least that an answer with our page takes: nobody looks at the request, and everything is
/// there before.
pub(crate) fn plain_with_fixed_page() -> Router {
    async fn page() -> Response {
        let mut response = Response::new(Body::from(Bytes::from_static(PAGE.as_bytes())));
        *response.status_mut() = StatusCode::NOT_FOUND;
        let headers = response.headers_mut();
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, html);
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }
    plain().fallback(page)
}

/// What a user of plain axum writes for the same 404: a page by `Accept`, which caches keep apart.
pub(crate) fn plain_with_page() -> Router {
    async fn page(headers: HeaderMap) -> Response {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let (content_type, body) = if accept.contains("json") {
            ("application/problem+json", PROBLEM)
        } else {
            ("text/html; charset=utf-8", PAGE)
        };
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::VARY, "accept"),
        ];
        (StatusCode::NOT_FOUND, headers, body).into_response()
    }
    plain().fallback(page)
}

/// Our default page, byte for byte.
const PAGE: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>There is nothing at this address. Check it for typing mistakes.</p>\n";
const PROBLEM: &str = r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"There is nothing at this address. Check it for typing mistakes."}"#;

/// Plain axum in a layer that does nothing.
pub(crate) fn in_a_layer() -> Router {
    plain().layer(Nothing)
}

/// Plain axum in a layer that keeps the head of a request until the answer is there, and takes out
/// of it the error that it stands for.
pub(crate) fn in_a_layer_with_the_head() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/full", get(|| async { Err::<&str, SeenFull>(SeenFull) }))
        .layer(Head)
}

pub(crate) fn with_backstop() -> Router {
    async fn full() -> Result<&'static str> {
        Err(OutOfStock)?
    }
    async fn full_now() -> Result<&'static str> {
        Err(OutOfStockNow)?
    }
    async fn broken() -> Result<&'static str> {
        Err(Full)?
    }
    let collector = Collector::default();
    let tracker = Tracker::of_client(Client::collecting(&collector));
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/full", get(full))
        .route("/full/now", get(full_now))
        .route("/broken", get(broken));
    App::new(router)
        // The answer of the hand-written one, so that only the way to it differs.
        .error_handler_for(|_: Caught<OutOfStock>| async {
            (StatusCode::CONFLICT, "409: Out of stock.")
        })
        // The same without a future.
        .error_handler_for(|_: Caught<OutOfStockNow>| (StatusCode::CONFLICT, "409: Out of stock."))
        .init(&tracker)
        .into_router()
        .expect("nothing is refused")
}

/// A layer that does nothing.
#[derive(Clone)]
struct Nothing;

impl Layer<Route> for Nothing {
    type Service = NothingService;

    fn layer(&self, route: Route) -> NothingService {
        NothingService(Shared::new(route))
    }
}

#[derive(Clone)]
struct NothingService(Shared);

impl Service<Request> for NothingService {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> RouteFuture<Infallible> {
        self.0.call(request)
    }
}

/// A layer that can tell which request failed, and with what error.
#[derive(Clone)]
struct Head;

impl Layer<Route> for Head {
    type Service = HeadService;

    fn layer(&self, route: Route) -> HeadService {
        HeadService(Shared::new(route))
    }
}

#[derive(Clone)]
struct HeadService(Shared);

impl Service<Request> for HeadService {
    type Response = Response;
    type Error = Infallible;
    type Future = HeadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> HeadFuture {
        HeadFuture {
            _method: request.method().clone(),
            _uri: request.uri().clone(),
            _headers: request.headers().clone(),
            view: self.0.call(request),
        }
    }
}

/// The view consumes the request, so whoever wants to name it later keeps a copy.
struct HeadFuture {
    view: RouteFuture<Infallible>,
    _method: Method,
    _uri: Uri,
    _headers: HeaderMap,
}

impl Future for HeadFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut outcome = Pin::new(&mut self.view).poll(cx);
        if let Poll::Ready(Ok(response)) = &mut outcome
            && response.status().is_client_error()
        {
            drop(response.extensions_mut().remove::<Seen>());
        }
        outcome
    }
}

/// A route as it is called with the fewest clones: axum clones it once for each call.
#[derive(Clone)]
struct Shared(Arc<(Mutex<Route>, Route)>);

impl Shared {
    fn new(route: Route) -> Self {
        Self(Arc::new((Mutex::new(route.clone()), route)))
    }

    fn call(&self, request: Request) -> RouteFuture<Infallible> {
        match self.0.0.try_lock() {
            Ok(mut route) => route.call(request),
            Err(_) => self.0.1.clone().call(request),
        }
    }
}
