//! A blueprint with handlers of its own, inside an app with others.
//!
//! Run it with `cargo run -p backstop --example blueprint`, then:
//!
//! - `curl localhost:8000/admin/users` is answered by the blueprint's 403.
//! - `curl localhost:8000/private` is answered by the app's 403.
//! - `curl localhost:8000/admin/nothing` is answered by the app: no blueprint was known.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use backstop::{App, Blueprint, Caught, Result, abort};

async fn secret() -> Result<String> {
    abort(403)
}

fn admin() -> Blueprint {
    Blueprint::new("admin", Router::new().route("/users", get(secret)))
        .error_handler(403, |e: Caught| (e.status(), "administrators only\n"))
        .error_handler(404, |e: Caught| {
            (e.status(), "never for an unknown address\n")
        })
}

async fn denied(e: Caught) -> (StatusCode, String) {
    (e.status(), format!("{}\n", e.description()))
}

async fn not_found(e: Caught) -> (StatusCode, String) {
    (e.status(), format!("the app: nothing at {}\n", e.path()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let app: App = App::new(Router::new().route("/private", get(secret)))
        .register(admin(), "/admin")
        .error_handler(403, denied)
        .error_handler(404, not_found);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    backstop::serve(listener, app.into_router()?).await?;
    Ok(())
}
