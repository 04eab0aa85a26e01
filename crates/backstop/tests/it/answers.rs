//! What is sent for an error, who is told of it, and what runs at the end.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backstop::{App, Blueprint, Caught, Failure, HttpError, Result, abort};
use http::{HeaderMap, Request, StatusCode};
use tower::ServiceExt;

use crate::web::{app_that, fetch, fetch_as, refused, send};

/// What hooks and listeners noted, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Notes whom an app tells of an error.
    fn watch(&self, app: App) -> App {
        let (unhandled, reported, ended) = (self.clone(), self.clone(), self.clone());
        app.on_unhandled(move |failure| unhandled.add(format!("unhandled: {}", failure.error())))
            .on_report(move |failure| reported.add(format!("reported: {}", failure.error())))
            .teardown_request(move |failure: Option<&Failure>| {
                let error = failure.map(|failure| failure.error().to_string());
                ended.add(format!("teardown: {}", error.as_deref().unwrap_or("-")));
            })
    }
}

/// An app whose view answers for its own error with this status.
fn attached(status: StatusCode) -> App {
    let answer = move || async move {
        backstop::attach(
            (status, "own words").into_response(),
            io::Error::other("disk"),
        )
    };
    App::new(Router::new().route("/x", get(answer)))
}

#[tokio::test]
async fn an_own_answer_of_500_is_an_unhandled_error() {
    let notes = Notes::default();
    let app = notes.watch(attached(StatusCode::INTERNAL_SERVER_ERROR));
    let answer = fetch(app, "/x").await;
    assert_eq!((answer.status, answer.body.as_str()), (500, "own words"));
    assert!(answer.response.headers.contains_key("x-request-id"));
    let told = ["unhandled: disk", "reported: disk", "teardown: disk"];
    assert_eq!(notes.take(), told);

    let app = notes.watch(attached(StatusCode::CONFLICT));
    let answer = fetch(app, "/x").await;
    assert_eq!((answer.status, answer.body.as_str()), (409, "own words"));
    assert_eq!(notes.take(), ["teardown: -"]);

    let app = notes.watch(attached(StatusCode::BAD_GATEWAY));
    let app = app.error_handler_for(|_: Caught<io::Error>| "handled");
    assert_eq!(fetch(app, "/x").await.body, "handled");
    assert_eq!(notes.take(), ["teardown: -"]);
}

#[tokio::test]
async fn an_own_answer_of_500_leaves_the_app_where_errors_do() {
    let app =
        attached(StatusCode::INTERNAL_SERVER_ERROR).configure(|config| config.set("TESTING", true));
    let answer = fetch(app, "/x").await;
    assert_eq!(answer.body, "own words");
    let propagated = answer.response.extensions.get::<backstop::Propagated>();
    assert!(propagated.unwrap().failure().error().is::<io::Error>());
}

/// Begins a request and leaves before there is an answer.
async fn leave(app: App) {
    let router = app.into_router().unwrap();
    let request = Request::get("/x").body(Body::empty()).unwrap();
    let mut answer = Box::pin(router.oneshot(request));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(answer.as_mut().poll(&mut cx), Poll::Pending));
}

#[tokio::test]
async fn teardown_runs_when_the_client_leaves() {
    let notes = Notes::default();
    let waiting = || {
        App::new(Router::new().route("/x", get(std::future::pending::<()>)))
            .teardown_request(|_: Option<&Failure>| -> () { panic!("changes nothing") })
    };
    leave(notes.watch(waiting())).await;
    assert_eq!(notes.take(), ["teardown: -"]);

    // The error is known by then, and the client leaves during an after hook.
    let failed = app_that(refused).after_request(|_: Response| std::future::pending::<Response>());
    leave(notes.watch(failed)).await;
    assert_eq!(notes.take().last().unwrap(), "teardown: connection refused");
}

#[tokio::test]
async fn a_teardown_after_an_early_end_reports_to_the_apps_client() {
    use backstop::report::{self, Client, Collector, Level};
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    let app: App = App::new(Router::new().route("/x", get(std::future::pending::<()>)))
        .client(client.clone())
        .teardown_request(|_: Option<&Failure>| {
            report::capture_message("rolled back");
        });
    leave(app).await;
    client.flush(std::time::Duration::from_secs(10));
    let events = collector.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].level, Level::Info);
}

#[tokio::test]
async fn an_untrusted_host_is_refused_like_an_unknown_address() {
    let notes = Notes::default();
    let (before, after, inner) = (notes.clone(), notes.clone(), notes.clone());
    let shop = Blueprint::new("shop", Router::new().route("/x", get(|| async { "shop" })))
        .before_request(move || inner.add("blueprint"))
        .error_handler(400, |_: Caught| "of the blueprint");
    let app = |shop| {
        let (before, after) = (before.clone(), after.clone());
        let app = App::new(Router::new())
            .register(shop, "/shop")
            .before_request(move || before.add("before"))
            .after_request(move |response: Response| {
                after.add(format!("after {}", response.status()));
                response
            })
            .configure(|config| config.set("TRUSTED_HOSTS", vec!["example.com"]));
        notes.watch(app)
    };
    let ask = |host: &str| {
        let request = Request::get("/shop/x").header("host", host);
        request.body(Body::empty()).unwrap()
    };
    let router = app(shop.clone()).into_router().unwrap();
    let answer = send(router.clone(), ask("evil.example")).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .body
            .contains("Host &#39;evil.example&#39; is not trusted.")
    );
    let ran = ["before", "after 400 Bad Request", "teardown: -"];
    assert_eq!(notes.take(), ran);

    assert_eq!(send(router, ask("example.com")).await.body, "shop");
    assert_eq!(notes.take()[..2], ["before", "blueprint"]);

    // A hook of the app may answer instead.
    let app = app(shop).before_request(|| Some("moved"));
    let answer = send(app.into_router().unwrap(), ask("evil.example")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "moved"));
}

#[tokio::test]
async fn the_page_that_a_handler_asks_for_is_the_one_that_would_be_sent() {
    fn missing() -> Result<String> {
        abort(
            HttpError::new(404)
                .description("No such user.")
                .detail("id 5"),
        )
    }
    let changes: [fn(App) -> App; 4] = [
        |app| app,
        |app| app.configure(|config| config.set("NEGOTIATE_ERROR_PAGES", false)),
        |app| app.configure(|config| config.set("DEBUG", true)),
        |app| app.error_template("404.html", "own page of {{ path }}"),
    ];
    for change in changes {
        for accept in ["text/html", "application/json", "text/plain"] {
            let plain = fetch_as(change(app_that(missing)), "/x", accept).await;
            let asked =
                change(app_that(missing)).error_handler(404, |e: Caught| e.default_response());
            let asked = fetch_as(asked, "/x", accept).await;
            assert_eq!(asked.status, plain.status);
            assert_eq!(asked.body, plain.body);
            assert_eq!(asked.response.headers, plain.response.headers);
        }
    }
}

#[tokio::test]
async fn looking_at_a_ready_response_does_not_use_it_up() {
    fn ready() -> Result<String> {
        abort(HttpError::new(404).response((StatusCode::GONE, "ready").into_response()))
    }
    let looks = |e: Caught| {
        assert_eq!(e.default_response().status(), 410);
        e
    };
    let answer = fetch(app_that(ready).error_handler(404, looks), "/x").await;
    assert_eq!((answer.status, answer.body.as_str()), (410, "ready"));
    let sends = |e: Caught| e.default_response();
    let answer = fetch(app_that(ready).error_handler(404, sends), "/x").await;
    assert_eq!((answer.status, answer.body.as_str()), (410, "ready"));
}

#[tokio::test]
async fn whatever_is_logged_has_the_request_id_in_its_answer() {
    fn unavailable() -> Result<String> {
        abort(503)
    }
    let id = |headers: &HeaderMap| headers.get("x-request-id").cloned();
    let own_500 = app_that(refused).error_handler(500, |_: Caught| "sorry");
    let answer = fetch(own_500, "/x").await;
    assert_eq!(answer.body, "sorry");
    assert!(id(&answer.response.headers).is_some());

    let own_503 = || app_that(unavailable).error_handler(503, |_: Caught| "later");
    assert!(id(&fetch(own_503(), "/x").await.response.headers).is_some());
    let quiet = own_503().configure(|config| config.set("REPORT_SERVER_ERRORS", false));
    assert!(id(&fetch(quiet, "/x").await.response.headers).is_none());

    let named = app_that(refused).error_handler(500, |_: Caught| [("x-request-id", "mine")]);
    assert_eq!(
        id(&fetch(named, "/x").await.response.headers).unwrap(),
        "mine"
    );
    let handled = app_that(refused).error_handler_for(|_: Caught<io::Error>| "handled");
    assert!(id(&fetch(handled, "/x").await.response.headers).is_none());
}

#[tokio::test]
async fn a_negotiated_page_says_what_it_depends_on() {
    let app = || App::new(Router::new());
    let answer = fetch(app(), "/nope").await;
    assert_eq!(answer.response.headers["vary"], "accept");
    let html = app().configure(|config| config.set("NEGOTIATE_ERROR_PAGES", false));
    assert!(
        !fetch(html, "/nope")
            .await
            .response
            .headers
            .contains_key("vary")
    );
}

#[tokio::test]
async fn mail_depends_on_how_the_app_is_built() {
    use backstop::mail::{Admins, Mailer};
    use std::time::Duration;
    for debug in [true, false] {
        let mailer = Mailer::memory();
        let admins = Admins::new(mailer.clone(), "shop@example.com", ["ada@example.com"]);
        let app = app_that(refused)
            .configure(|config| config.set("DEBUG", !debug))
            .init(&admins)
            .configure(|config| config.set("DEBUG", debug));
        assert_eq!(fetch(app, "/x").await.status, 500);
        assert!(admins.flush(Duration::from_secs(60)));
        assert_eq!(mailer.sent().is_empty(), debug);
    }
}

#[tokio::test]
async fn a_routing_error_has_the_same_page_with_and_without_handlers_about() {
    // A handler that passes the error on keeps the app from sending the page that it has ready.
    let plain = || App::new(Router::new().route("/x", axum::routing::post(|| async {})));
    let asked = || {
        plain()
            .error_handler(404, |e: Caught| e)
            .error_handler(405, |e: Caught| e)
    };
    let changes: [fn(App) -> App; 3] = [
        |app| app,
        |app| app.configure(|config| config.set("NEGOTIATE_ERROR_PAGES", false)),
        |app| app.configure(|config| config.set("BARE_STATUS", "leave")),
    ];
    for change in changes {
        for (path, status) in [("/nope", 404), ("/x", 405)] {
            for accept in ["*/*", "application/json", "text/plain"] {
                let ready = fetch_as(change(plain()), path, accept).await;
                let made = fetch_as(change(asked()), path, accept).await;
                assert_eq!((ready.status, made.status), (status, status));
                assert_eq!(ready.body, made.body, "{path} {accept}");
                assert_eq!(ready.response.headers, made.response.headers);
            }
        }
    }
}
