//! Handlers by code, by type and by parent; the nearest one answers.
//!
//! Run it with `cargo run -p backstop --example error_handlers`, then:
//!
//! - `curl -i localhost:8000/refused` answers 503: registered for exactly this kind.
//! - `curl -i localhost:8000/reset` answers 502: its parent is registered.
//! - `curl -i localhost:8000/user` answers by code.
//! - `curl -i localhost:8000/odd` answers a 500 from the handler for any HTTP error.

use std::io::ErrorKind;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use backstop::io::{ConnectionError, ConnectionRefused};
use backstop::{App, Caught, HttpError, Result, abort};

async fn refused() -> Result<String> {
    Err(std::io::Error::from(ErrorKind::ConnectionRefused))?
}

async fn reset() -> Result<String> {
    Err(std::io::Error::from(ErrorKind::ConnectionReset))?
}

async fn user() -> Result<String> {
    abort((404, "No such user."))
}

async fn odd() -> Result<String> {
    Err("something odd")?
}

async fn network(e: Caught<ConnectionError>) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, format!("the network: {e}\n"))
}

async fn database(_: Caught<ConnectionRefused>) -> (StatusCode, &'static str) {
    (StatusCode::SERVICE_UNAVAILABLE, "the database is down\n")
}

async fn not_found(e: Caught) -> (StatusCode, String) {
    (e.status(), format!("{} ({})\n", e.description(), e.path()))
}

/// Takes what no other handler takes; the text of an unhandled error is not in its description.
async fn any_http(e: Caught<HttpError>) -> (StatusCode, String) {
    let hidden = e
        .original()
        .map_or("nothing", |original| original.kind_name());
    (
        e.status(),
        format!("{}; hidden: {hidden}\n", e.description()),
    )
}

#[tokio::main]
async fn main() -> Result<()> {
    backstop::log::init(backstop::log::Form::Text);
    let routes = Router::new()
        .route("/refused", get(refused))
        .route("/reset", get(reset))
        .route("/user", get(user))
        .route("/odd", get(odd));
    let app: App = App::new(routes)
        .error_handler(404, not_found)
        .error_handler_for(network)
        .error_handler_for(database)
        .error_handler_for(any_http);
    println!(
        "{}",
        app.explain(std::io::Error::from(ErrorKind::ConnectionReset), "/reset")
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    backstop::serve(listener, app.into_router()?).await?;
    Ok(())
}
