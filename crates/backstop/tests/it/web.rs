//! Errors of an app, from the view to the answer.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use backstop::errors::{Forbidden, NotFound};
use backstop::extract::{Form, Json, Query};
use backstop::{
    App, Blueprint, Caught, Error, Exact, Failure, HttpError, Propagated, Result, SetupError,
    abort, http_error,
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tower::ServiceExt;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
    pub(crate) response: http::response::Parts,
}

pub(crate) async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        content_type: parts
            .headers
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body: String::from_utf8(bytes.to_vec()).unwrap(),
        response: parts,
    }
}

pub(crate) async fn fetch(app: App, path: &str) -> Answer {
    let request = Request::get(path).body(Body::empty()).unwrap();
    send(app.into_router().unwrap(), request).await
}

pub(crate) async fn fetch_as(app: App, path: &str, accept: &str) -> Answer {
    let request = Request::get(path).header("accept", accept);
    let request = request.body(Body::empty()).unwrap();
    send(app.into_router().unwrap(), request).await
}

pub(crate) fn app_that<T: IntoResponse + 'static>(fail: fn() -> Result<T>) -> App {
    App::new(Router::new().route("/x", get(move || async move { fail() })))
}

pub(crate) fn refused() -> Result<String> {
    Err(io::Error::from(ErrorKind::ConnectionRefused))?
}

#[tokio::test]
async fn the_nearest_family_of_an_io_error_answers() {
    let app = || {
        app_that(refused)
            .error_handler_for(|_: Caught<backstop::io::ConnectionError>| "connection")
            .error_handler_for(|_: Caught<io::Error>| "io")
    };
    assert_eq!(fetch(app(), "/x").await.body, "connection");
    let nearer = app().error_handler_for(|_: Caught<backstop::io::ConnectionRefused>| "refused");
    assert_eq!(fetch(nearer, "/x").await.body, "refused");
}

#[derive(Debug)]
struct Outer(io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot load the order")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn outer() -> Result<String> {
    Err(Outer(io::Error::from(ErrorKind::ConnectionReset)))?
}

#[tokio::test]
async fn what_an_error_was_caused_by_is_asked_last() {
    let app = || {
        app_that(outer)
            .error_handler_for(|e: Caught<backstop::io::ConnectionError>| format!("cause of: {e}"))
    };
    assert_eq!(
        fetch(app(), "/x").await.body,
        "cause of: cannot load the order"
    );
    let direct = app().error_handler_for(|_: Caught<Outer>| "direct");
    assert_eq!(fetch(direct, "/x").await.body, "direct");
    let exact = app_that(outer).error_handler_for(|_: Exact<io::Error>| "exact");
    assert_eq!(fetch(exact, "/x").await.status, 500);
}

#[tokio::test]
async fn an_error_in_a_box_is_found_by_its_type() {
    fn boxed() -> Result<String> {
        let error: Box<dyn std::error::Error + Send + Sync> =
            Box::new(Outer(io::Error::other("x")));
        Err(error)?
    }
    let app = app_that(boxed).error_handler_for(|_: Caught<Outer>| "found");
    assert_eq!(fetch(app, "/x").await.body, "found");
    fn other() -> Result<String> {
        Err(io::Error::other(NotFound))?
    }
    let app = app_that(other).error_handler_for(|_: Caught<NotFound>| "inside io::Error::other");
    assert_eq!(fetch(app, "/x").await.body, "inside io::Error::other");
}

http_error!(
    pub struct QuotaUsedUp {
        left: u32,
    },
    (429, "Your quota is used up.")
);
http_error!(pub struct Banned: Forbidden = "You are banned.");

#[tokio::test]
async fn an_exact_handler_reads_the_error() {
    fn used_up() -> Result<String> {
        Err(QuotaUsedUp { left: 3 })?
    }
    let app = app_that(used_up).error_handler_for(|e: Exact<QuotaUsedUp>| {
        (e.caught().status(), format!("{} left", e.left))
    });
    let answer = fetch(app, "/x").await;
    assert_eq!((answer.status, answer.body.as_str()), (429, "3 left"));
}

#[tokio::test]
async fn a_child_is_caught_by_the_code_of_its_parent() {
    fn banned() -> Result<String> {
        Err(Banned)?
    }
    let app = app_that(banned).error_handler(403, |e: Caught<Forbidden>| {
        format!("{} {:?}: {}", e.kind_name(), e.code(), e.description())
    });
    assert_eq!(
        fetch(app, "/x").await.body,
        "Banned Some(403): You are banned."
    );
}

#[tokio::test]
async fn handlers_take_state_and_extractors() {
    async fn handler(
        e: Caught<NotFound>,
        State(name): State<&'static str>,
        method: http::Method,
        headers: http::HeaderMap,
    ) -> (StatusCode, String) {
        (e.status(), format!("{name} {method} {}", headers.len()))
    }
    let app: App = App::new(Router::new())
        .error_handler_for(handler)
        .with_state("shop");
    let answer = fetch_as(app, "/nope", "*/*").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "shop GET 1"));
}

#[tokio::test]
async fn a_handler_is_registered_for_a_status_or_on_a_blueprint_without_the_chain() {
    let routes = |status: StatusCode| Router::new().route("/x", get(move || async move { status }));
    let mut shop = Blueprint::new("shop", routes(StatusCode::GONE));
    shop.register_error_handler(StatusCode::GONE, |_: Caught| "no more")
        .unwrap();
    shop.register_error_handler_for(|_: Caught<Forbidden>| "not for you");
    let mut staff = Blueprint::new("staff", routes(StatusCode::FORBIDDEN));
    staff.register_error_handler_for(|_: Caught<Forbidden>| "not even for you");
    let app = || -> App {
        App::new(routes(StatusCode::CONFLICT))
            .error_handler(StatusCode::CONFLICT, |_: Caught| "twice")
            .register(shop.clone(), "/shop")
            .register(staff.clone(), "/staff")
    };
    assert_eq!(fetch(app(), "/x").await.body, "twice");
    assert_eq!(fetch(app(), "/shop/x").await.body, "no more");
    assert_eq!(fetch(app(), "/staff/x").await.body, "not even for you");
    let redirect = StatusCode::FOUND;
    let app = app().error_handler(redirect, |_: Caught| "");
    assert_eq!(
        app.into_router().unwrap_err(),
        SetupError::NotAnErrorCode(302)
    );
}

#[tokio::test]
async fn a_handler_that_waits_answers_like_one_that_does_not() {
    async fn pause(waits: bool) {
        if waits {
            tokio::task::yield_now().await;
        }
    }
    for waits in [false, true] {
        let answers = move |_: Caught| async move {
            pause(waits).await;
            (StatusCode::BAD_GATEWAY, "away")
        };
        let answer = fetch(app_that(refused).error_handler_for(answers), "/x").await;
        assert_eq!((answer.status, answer.body.as_str()), (502, "away"));
        let passes_on = move |e: Caught<NotFound>| async move {
            pause(waits).await;
            e
        };
        let missing = || -> Result<String> { Err(NotFound)? };
        let answer = fetch(app_that(missing).error_handler_for(passes_on), "/x").await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("<h1>Not Found</h1>"));
        let panics = move |_: Caught| async move {
            pause(waits).await;
            let words: Vec<&'static str> = Vec::new();
            words[0]
        };
        let last = move |e: Caught<HttpError>| async move {
            pause(waits).await;
            format!("{}", e.original().is_some())
        };
        let app = app_that(refused)
            .error_handler_for(panics)
            .error_handler(500, last);
        assert_eq!(fetch(app, "/x").await.body, "true");
    }
}

#[tokio::test]
async fn a_failing_extractor_of_a_handler_is_an_error_in_it() {
    async fn handler(_: Caught, _: axum::Extension<u8>) -> &'static str {
        "never"
    }
    let app = app_that(refused).error_handler_for(handler);
    assert_eq!(fetch(app, "/x").await.status, 500);
}

#[tokio::test]
async fn panics_are_errors() {
    async fn panics() -> String {
        let empty: Vec<u8> = Vec::new();
        format!("{}", empty[0])
    }
    let seen = Arc::new(Mutex::new(String::new()));
    let note = Arc::clone(&seen);
    let app = || App::new(Router::new().route("/x", get(panics)));
    let noted = app().on_unhandled(move |failure: &Failure| {
        *note.lock().unwrap() = failure.error().to_string();
    });
    let answer = fetch(noted, "/x").await;
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains("index out of bounds"));
    let text = seen.lock().unwrap().clone();
    assert!(
        text.contains("index out of bounds") && text.contains("web.rs:"),
        "{text}"
    );
    let handled = app().error_handler_for(|e: Caught<backstop::Panic>| {
        e.get()
            .map(|panic| panic.message().to_owned())
            .unwrap_or_default()
    });
    assert!(
        fetch(handled, "/x")
            .await
            .body
            .starts_with("index out of bounds")
    );
}

/// A state that cannot be cloned any more once it is told so.
#[derive(Debug)]
struct Fragile(Arc<AtomicBool>);

impl Clone for Fragile {
    fn clone(&self) -> Fragile {
        assert!(!self.0.load(Ordering::Relaxed), "too fragile to be cloned");
        Fragile(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_state_whose_clone_panics_is_a_500() {
    let breaks = Arc::new(AtomicBool::new(false));
    let routes = Router::new()
        .route("/x", get(|_: State<Fragile>| async { "whole" }))
        .with_state(Fragile(Arc::clone(&breaks)));
    let router = App::new(routes).into_router().unwrap();
    for (broken, status) in [(false, 200), (true, 500), (true, 500), (false, 200)] {
        breaks.store(broken, Ordering::Relaxed);
        let request = Request::get("/x").body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_or_a_hook_is_a_500() {
    let app = app_that(refused).error_handler_for(|_: Caught| -> String { panic!("handler") });
    assert_eq!(fetch(app, "/x").await.status, 500);
    let app = app_that(refused).before_request(|| -> () { panic!("hook") });
    assert_eq!(fetch(app, "/x").await.status, 500);
}

#[tokio::test]
async fn pages_are_negotiated_and_keep_the_errors_headers() {
    fn limited() -> Result<String> {
        let pause = Duration::from_secs(20);
        abort(
            HttpError::new(429)
                .retry_after(pause)
                .description("Slow <down>."),
        )
    }
    let answer = fetch_as(app_that(limited), "/x", "application/json").await;
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(answer.response.headers["retry-after"], "20");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "about:blank",
            "title": "Too Many Requests",
            "status": 429,
            "detail": "Slow <down>.",
        })
    );
    let answer = fetch_as(app_that(limited), "/x", "text/plain").await;
    assert_eq!(answer.body, "429 Too Many Requests\nSlow <down>.\n");
    let answer = fetch_as(app_that(limited), "/x", "text/html").await;
    assert!(answer.body.contains("<p>Slow &lt;down&gt;.</p>"));
}

#[tokio::test]
async fn the_request_id_is_in_header_and_page() {
    let request = Request::get("/x").header("x-request-id", "abc-1");
    let request = request.body(Body::empty()).unwrap();
    let answer = send(app_that(refused).into_router().unwrap(), request).await;
    assert_eq!(answer.response.headers["x-request-id"], "abc-1");
    assert!(answer.body.contains("Request abc-1"));
    let request = Request::get("/x").header("x-request-id", "<script>");
    let request = request.body(Body::empty()).unwrap();
    let answer = send(app_that(refused).into_router().unwrap(), request).await;
    assert_ne!(answer.response.headers["x-request-id"], "<script>");
}

#[tokio::test]
async fn every_server_error_is_reported_once() {
    fn unavailable() -> Result<String> {
        abort(503)
    }
    let reports = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&reports);
    let app = |note: Arc<Mutex<Vec<String>>>| {
        app_that(unavailable).on_report(move |failure| {
            note.lock()
                .unwrap()
                .push(failure.error().kind_name().to_owned());
        })
    };
    fetch(app(Arc::clone(&note)), "/x").await;
    assert_eq!(*reports.lock().unwrap(), ["ServiceUnavailable"]);
    let quiet = app(note).configure(|config| config.set("REPORT_SERVER_ERRORS", false));
    fetch(quiet, "/x").await;
    assert_eq!(reports.lock().unwrap().len(), 1);
}

#[derive(Debug, Deserialize)]
struct Item {
    #[expect(dead_code, reason = "only its presence matters")]
    name: String,
}

fn shop() -> App {
    async fn add(_: Json<Item>) {}
    async fn find(_: Query<Item>) {}
    async fn order(_: Form<Item>) {}
    let routes = Router::new()
        .route("/add", post(add))
        .route("/find", get(find))
        .route("/order", post(order));
    App::new(routes)
}

#[tokio::test]
async fn rejections_reach_handlers_by_code_and_by_type() {
    use axum::extract::rejection::JsonRejection;
    let json = |body: &'static str| {
        Request::post("/add")
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    let bare = shop().into_router().unwrap();
    assert_eq!(send(bare.clone(), json("{")).await.status, 400);
    assert_eq!(send(bare.clone(), json("{}")).await.status, 422);
    let no_type = Request::post("/add").body(Body::empty()).unwrap();
    assert_eq!(send(bare.clone(), no_type).await.status, 415);
    let answer = send(bare, json("{}")).await;
    assert!(
        !answer.body.contains("missing field"),
        "details are for developers"
    );
    let app = shop()
        .error_handler_for(|e: Caught<JsonRejection>| (e.status(), "typed"))
        .into_router()
        .unwrap();
    assert_eq!(send(app, json("{}")).await.body, "typed");
    let app = shop()
        .error_handler(422, |e: Caught| (e.status(), e.kind_name().to_owned()))
        .into_router()
        .unwrap();
    assert_eq!(send(app, json("{}")).await.body, "UnprocessableEntity");
}

#[tokio::test]
async fn a_timeout_inside_of_the_app_is_an_error_with_a_code() {
    async fn in_time(request: Request<Body>, next: Next) -> Response {
        // Nothing is in time here.
        match tokio::time::timeout(Duration::ZERO, next.run(request)).await {
            Ok(response) => response,
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    }
    let app = || -> App {
        let routes = Router::new().route("/x", get(std::future::pending::<()>));
        App::new(routes.layer(axum::middleware::from_fn(in_time)))
    };
    let answer = fetch(app(), "/x").await;
    assert_eq!(answer.status, 408);
    assert!(answer.body.contains("<h1>Request Timeout</h1>"));
    let handled = app().error_handler(408, |_: Caught| (StatusCode::REQUEST_TIMEOUT, "too slow"));
    assert_eq!(fetch(handled, "/x").await.body, "too slow");
}

#[tokio::test]
async fn a_body_over_the_limit_is_an_error_with_a_code() {
    async fn take(Json(text): Json<String>) -> String {
        text
    }
    let app = || -> App {
        App::new(Router::new().route("/x", post(take)))
            .configure(|config| config.set("MAX_CONTENT_LENGTH", 8))
    };
    let put = async |app: App, body: &'static str| {
        let request = Request::post("/x").header("content-type", "application/json");
        let request = request.body(Body::from(body)).unwrap();
        send(app.into_router().unwrap(), request).await
    };
    assert_eq!(put(app(), r#""small""#).await.body, "small");
    let answer = put(app(), r#""too large""#).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("<h1>Request Entity Too Large</h1>"));
    let handled = app().error_handler(413, |_: Caught| "less, please");
    assert_eq!(put(handled, r#""too large""#).await.body, "less, please");
}

#[tokio::test]
async fn only_the_connection_tells_that_a_client_left() {
    use std::io::Write;
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let app = |kinds: Arc<Mutex<Vec<String>>>| {
        shop().error_handler(400, move |e: Caught| {
            kinds.lock().unwrap().push(e.kind_name().to_owned());
            e
        })
    };
    // As from a layer that decompresses: the data ended, the client is still there.
    let truncated = io::Error::from(ErrorKind::UnexpectedEof);
    let request = Request::post("/add")
        .header("content-type", "application/json")
        .body(Body::new(Broken(Some(truncated))))
        .unwrap();
    let router = app(Arc::clone(&kinds)).into_router().unwrap();
    assert_eq!(send(router.clone(), request).await.status, 400);
    assert_eq!(*kinds.lock().unwrap(), ["BadRequest"]);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let left = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = "POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        write!(stream, "{head}Content-Length: 10\r\n\r\n[").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The end of the connection comes after the view.
        io::Read::read_to_end(&mut stream, &mut Vec::new())
    });
    let _ended = left.await.unwrap();
    server.abort();
    assert_eq!(*kinds.lock().unwrap(), ["BadRequest", "ClientDisconnected"]);
}

#[tokio::test]
async fn a_missing_field_is_a_kind_of_its_own() {
    let app = shop().error_handler_for(|e: Caught<backstop::errors::BadRequestKeyError>| {
        e.kind_name().to_owned()
    });
    assert_eq!(fetch(app, "/find?other=1").await.body, "BadRequestKeyError");
    let answer = fetch(shop(), "/find?other=1").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn in_debug_mode_a_rejection_is_explained() {
    let app = shop().configure(|config| {
        config.set("DEBUG", true);
        config.set("TRAP_BAD_REQUEST_ERRORS", false);
    });
    let answer = fetch(app, "/find?other=1").await;
    assert!(answer.body.contains("missing field"), "{}", answer.body);
}

#[tokio::test]
async fn bare_answers_follow_the_switch() {
    async fn bare() -> StatusCode {
        StatusCode::BAD_GATEWAY
    }
    async fn worded() -> (StatusCode, &'static str) {
        (StatusCode::CONFLICT, "my own words")
    }
    let app = |way: &str| {
        let routes = Router::new()
            .route("/bare", get(bare))
            .route("/worded", get(worded));
        App::new(routes).configure(|config| config.set("BARE_STATUS", way))
    };
    assert!(
        fetch(app("empty"), "/bare")
            .await
            .body
            .contains("<h1>Bad Gateway</h1>")
    );
    assert_eq!(fetch(app("empty"), "/worded").await.body, "my own words");
    assert!(
        fetch(app("replace"), "/worded")
            .await
            .body
            .contains("<h1>Conflict</h1>")
    );
    assert_eq!(fetch(app("leave"), "/bare").await.body, "");
}

#[tokio::test]
async fn own_error_types_with_their_own_answers_keep_working() {
    #[derive(Debug)]
    enum ShopError {
        Empty,
    }
    impl std::fmt::Display for ShopError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("empty")
        }
    }
    impl std::error::Error for ShopError {}
    impl IntoResponse for ShopError {
        fn into_response(self) -> Response {
            backstop::attach((StatusCode::CONFLICT, "own answer").into_response(), self)
        }
    }
    async fn cart() -> Result<String, ShopError> {
        Err(ShopError::Empty)
    }
    let app = || App::new(Router::new().route("/cart", get(cart)));
    let answer = fetch(app(), "/cart").await;
    assert_eq!((answer.status, answer.body.as_str()), (409, "own answer"));
    let app = app().error_handler_for(|_: Caught<ShopError>| "handled");
    assert_eq!(fetch(app, "/cart").await.body, "handled");
}

#[tokio::test]
async fn a_405_keeps_allow_and_has_no_blueprint() {
    let shop = Blueprint::new("shop", Router::new().route("/k", get(|| async {})))
        .error_handler(405, |_: Caught| "blueprint");
    let app = App::new(Router::new())
        .register(shop, "/shop")
        .error_handler(405, |e: Caught| (e.status(), "app"));
    let request = Request::post("/shop/k").body(Body::empty()).unwrap();
    let answer = send(app.into_router().unwrap(), request).await;
    assert_eq!(answer.body, "app");
    assert_eq!(answer.response.headers["allow"], "GET,HEAD");
}

#[tokio::test]
async fn the_hooks_of_a_blueprint_have_no_part_in_a_405() {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let ran = Arc::clone(&ran);
        move || ran.lock().unwrap().push(what)
    };
    let (before, after, teardown) = (note("before"), note("after"), note("teardown"));
    let cors = axum::middleware::from_fn(async |request: Request<Body>, next: Next| {
        if request.method() == http::Method::OPTIONS {
            return "preflight".into_response();
        }
        next.run(request).await
    });
    let own = axum::routing::patch(|| async { "patched" }).fallback(|| async { "own fallback" });
    let routes = Router::new()
        .route("/k", get(|| async { "k" }))
        .route("/own", own)
        .layer(cors);
    let inner = Blueprint::new("inner", routes);
    let shop = Blueprint::new("shop", Router::new())
        .before_request(before)
        .after_request(move |response: Response| {
            after();
            response
        })
        .teardown_request(move |_: Option<&Failure>| teardown())
        .register(inner, "/inner");
    let app = App::new(Router::new())
        .register(shop, "/shop/{id}")
        .before_request(note("app"));
    let router = app.into_router().unwrap();
    let all = ["app", "before", "after", "teardown"];
    let cases = [
        ("GET", "/shop/7/inner/k", 200, &all[..]),
        ("HEAD", "/shop/7/inner/k", 200, &all),
        ("POST", "/shop/7/inner/k", 405, &all[..1]),
        // What the user's own layers and fallbacks answer is no 405.
        ("OPTIONS", "/shop/7/inner/k", 200, &all),
        ("POST", "/shop/7/inner/own", 200, &all),
    ];
    for (method, path, status, expected) in cases {
        let request = Request::builder().method(method).uri(path);
        let answer = send(router.clone(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let ran = std::mem::take(&mut *ran.lock().unwrap());
        assert_eq!(ran, expected, "{method} {path}");
        if status == 405 {
            assert_eq!(answer.response.headers["allow"], "GET,HEAD");
        }
    }
    // Nested in another router, the addresses are those below it.
    let outer = Router::new().nest("/api", router);
    let request = Request::post("/api/shop/7/inner/k").body(Body::empty());
    assert_eq!(send(outer, request.unwrap()).await.status, 405);
    assert_eq!(*ran.lock().unwrap(), ["app"]);
}

#[tokio::test]
async fn an_error_in_a_handler_keeps_the_first_one() {
    let contexts = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&contexts);
    let app = app_that(refused)
        .error_handler_for(|_: Caught<io::Error>| -> Result<String> { outer() })
        .on_unhandled(move |failure| {
            let context = failure.error().context().map(ToString::to_string);
            note.lock().unwrap().push(context);
        });
    assert_eq!(fetch(app, "/x").await.status, 500);
    assert_eq!(
        *contexts.lock().unwrap(),
        [Some("connection refused".to_owned())]
    );
}

#[tokio::test]
async fn propagated_errors_are_found_in_the_response() {
    let app = app_that(refused).configure(|config| config.set("TESTING", true));
    let answer = fetch(app, "/x").await;
    let propagated = answer.response.extensions.get::<Propagated>().unwrap();
    assert!(propagated.failure().error().is::<io::Error>());
}

#[tokio::test]
async fn a_stream_that_fails_at_once_is_a_500() {
    async fn broken() -> Body {
        Body::new(Broken(Some(io::Error::other("disk"))))
    }
    let app = App::new(Router::new().route("/x", get(broken)));
    let answer = fetch(app, "/x").await;
    assert_eq!(answer.status, 500);
}

/// A body that fails with its first piece.
struct Broken(Option<io::Error>);

impl http_body::Body for Broken {
    type Data = axum::body::Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<http_body::Frame<Self::Data>>>> {
        std::task::Poll::Ready(self.0.take().map(Err))
    }
}

#[test]
fn refusals_are_errors() {
    let app: App = App::new(Router::new()).error_handler(302, |_: Caught| "");
    assert_eq!(
        app.into_router().unwrap_err(),
        SetupError::NotAnErrorCode(302)
    );
    let blueprint = || Blueprint::new("shop", Router::new());
    let app: App = App::new(Router::new())
        .register(blueprint(), "/a")
        .register(blueprint(), "/b");
    assert_eq!(
        app.into_router().unwrap_err().to_string(),
        "a blueprint \"shop\" is registered already; use register_as to give this one another name"
    );
    let twice = || Blueprint::new("twice", Router::new().route("/x", get(|| async {})));
    let app: App =
        App::new(Router::new())
            .register(twice(), "/a")
            .register_as(twice(), "again", "/a");
    assert_eq!(
        app.into_router().unwrap_err(),
        SetupError::Routes(
            "Overlapping method route. Handler for `GET /a/x` already exists".to_owned()
        )
    );
    let mut app: App = App::new(Router::new());
    let _router = app.build().unwrap();
    assert_eq!(
        app.register_error_handler(404, |_: Caught| "").unwrap_err(),
        SetupError::AlreadyBuilt("an error handler")
    );
    let app: App =
        App::new(Router::new()).configure(|config| config.set("BARE_STATUS", "replaced"));
    assert_eq!(
        app.into_router().unwrap_err(),
        SetupError::Setting(
            "BARE_STATUS must be empty, replace or leave, but is \"replaced\"".to_owned()
        )
    );
}

#[test]
fn nothing_can_be_added_to_an_app_that_was_built() {
    use backstop::report::{Client, Collector};
    type Addition = fn(App) -> App;
    let additions: [(&str, Addition); 6] = [
        ("a listener", |app| app.on_unhandled(|_| ())),
        ("a reporter", |app| app.on_report(|_| ())),
        ("a client", |app| {
            app.client(Client::collecting(&Collector::new()))
        }),
        ("a setting", |app| {
            app.configure(|config| config.set("TESTING", true))
        }),
        ("an error page", |app| app.error_template("404.html", "")),
        ("an error handler", |app| {
            app.error_handler_for_kind(&backstop::Kind::of::<NotFound>(), |_: Caught| "")
        }),
    ];
    for (what, add) in additions {
        let mut app: App = App::new(Router::new());
        let _router = app.build().unwrap();
        let refusal = add(app).into_router().unwrap_err();
        assert_eq!(refusal, SetupError::AlreadyBuilt(what));
    }
}

#[tokio::test]
async fn the_later_of_a_code_and_its_type_also_takes_causes() {
    fn caused() -> Result<String> {
        Err(io::Error::other(NotFound))?
    }
    let app = || app_that(caused).error_handler_for(|_: Caught<NotFound>| "by type");
    assert_eq!(fetch(app(), "/x").await.body, "by type");
    // A code takes what has it, not what was caused by it: so does the slot from now on.
    let later = app().error_handler(404, |_: Caught| "by code");
    assert_eq!(fetch(later, "/x").await.status, 500);
    let wide = Blueprint::new("wide", Router::new()).app_error_handler(404, |_: Caught| "wide");
    assert_eq!(fetch(app().register(wide, ""), "/x").await.status, 500);
}

#[tokio::test]
async fn the_last_registration_for_the_whole_app_wins() {
    let shop = || {
        Blueprint::new("shop", Router::new().route("/s", get(|| async {})))
            .app_error_handler(404, |_: Caught| "shop's")
    };
    let app = || App::new(Router::new());
    let by_app = |app: App| app.error_handler(404, |_: Caught| "app's");
    assert_eq!(
        fetch(by_app(app()).register(shop(), ""), "/x").await.body,
        "shop's"
    );
    assert_eq!(
        fetch(by_app(app().register(shop(), "")), "/x").await.body,
        "app's"
    );

    let replaced = ["of two handlers for 404 in app the first never runs"];
    assert_eq!(by_app(app()).register(shop(), "").warnings(), replaced);
    let shop = shop();
    let twice = app()
        .register(shop.clone(), "/a")
        .register_as(shop, "again", "/b");
    assert!(twice.warnings().is_empty(), "{:?}", twice.warnings());
}

#[test]
fn handlers_that_can_never_run_are_named() {
    let idle = Blueprint::new("idle", Router::new()).error_handler(404, |_: Caught| "");
    let app: App = App::new(Router::new())
        .error_handler(404, |_: Caught| "")
        .error_handler_for(|_: Caught<NotFound>| "")
        .error_handler_for(|_: Exact<backstop::io::ConnectionError>| "")
        .register(idle, "/idle");
    assert_eq!(
        app.warnings(),
        [
            "of two handlers for 404 in app the first never runs",
            "the handler for exactly ConnectionError in app never runs: ConnectionError has no values",
            "the handlers of idle never run: it has no routes (app_error_handler is for the whole app)",
        ]
    );
}

#[test]
fn explanations_tell_what_was_looked_for() {
    let shop = Blueprint::new("shop", Router::new())
        .error_handler_for(|_: Caught<backstop::io::ConnectionError>| "");
    let app: App = App::new(Router::new())
        .register(shop, "/shop")
        .error_handler(503, |_: Caught| "");
    let refused = || Error::from(io::Error::from(ErrorKind::ConnectionRefused));
    let error = io::Error::from(ErrorKind::ConnectionRefused);
    let found = app.explain(error, "/shop/cart");
    assert_eq!(found.scope(), Some("shop"));
    assert_eq!(found.handler(), Some("ConnectionError"));
    let found = app.explain(refused(), "/shopping");
    assert_eq!(
        found.to_string(),
        "std::io::error::Error in app: none\nno handler runs: the error is unhandled: it is logged and answered as a 500"
    );
    let found = app.explain(HttpError::new(404), "/shop/cart");
    assert!(
        found
            .to_string()
            .ends_with("no handler runs: the default page of 404 is shown")
    );
}

#[test]
fn explanations_name_the_blueprint_that_owns_the_path() {
    let named = |name: &str| {
        Blueprint::new(name, Router::new()).error_handler_for(|_: Caught<HttpError>| "")
    };
    let app: App = App::new(Router::new())
        .register(named("plain"), "")
        .register(
            named("user").register(named("posts"), "/posts"),
            "/users/{id}",
        )
        .register(named("me"), "/users/me/")
        .error_handler_for(|_: Caught| "");
    let scope = |path: &str| {
        let found = app.explain(HttpError::new(404), path);
        found.scope().map(str::to_owned).unwrap()
    };
    assert_eq!(scope("/users/5/x"), "user");
    assert_eq!(scope("/users/5/posts/1"), "user.posts");
    assert_eq!(scope("/users/me/x"), "me");
    assert_eq!(scope("/users//x"), "app");
    assert_eq!(scope("/users"), "app");
    assert_eq!(scope("/about"), "app");
}

#[test]
fn explanations_know_handlers_for_the_whole_app_and_for_the_500() {
    let wide = Blueprint::new("wide", Router::new()).app_error_handler(500, |_: Caught| "");
    let app: App = App::new(Router::new()).register(wide, "/wide");
    let refused = || Error::from(io::Error::from(ErrorKind::ConnectionRefused));
    let found = app.explain(refused(), "/x");
    assert_eq!((found.handler(), found.scope()), (Some("500"), Some("app")));
    assert_eq!(
        found.to_string(),
        "std::io::error::Error in app: none\n\
         the error is unhandled: it is logged and becomes a 500\n\
         the handler for 500 in app runs: it is registered for the error's code"
    );
    let app = app.configure(|config| config.set("TESTING", true));
    let found = app.explain(refused(), "/x").to_string();
    assert!(
        found.contains("leaves the app; where errors do not propagate"),
        "{found}"
    );
}

#[tokio::test]
async fn own_pages_by_name() {
    let app = || {
        App::new(Router::new())
            .error_template("404.html", "missing {{ path }}")
            .error_template("error.html", "error {{ code }}")
    };
    assert_eq!(fetch(app(), "/nope").await.body, "missing &#x2f;nope");
    let app: App = App::new(Router::new()).error_template("404.html", "{{ broken");
    assert!(matches!(
        app.into_router().unwrap_err(),
        SetupError::Template(_)
    ));
    let app: App = App::new(Router::new()).error_template("404.html", "{{ 1 / 0 }}");
    assert!(
        fetch(app, "/nope")
            .await
            .body
            .contains("<h1>Not Found</h1>")
    );
}
