//! A client for tests: requests to an app without a socket.
//!
//! # Example
//!
//! ```
//! use axum::{Router, routing::get};
//! use backstop::{App, Result, abort, testing::TestClient};
//!
//! async fn show() -> Result<String> {
//!     abort((404, "No such user."))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let client = TestClient::new(App::new(Router::new().route("/user", get(show))))?;
//! let answer = client.get("/user").await;
//! assert_eq!(answer.status(), 404);
//! assert!(answer.text().contains("No such user."));
//! # Ok(()) }
//! ```

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::web::app::App;
use crate::web::carried::Propagated;
use crate::web::failure::Failure;
use crate::web::scope::SetupError;

/// Sends requests to an app without a socket.
#[derive(Debug, Clone)]
pub struct TestClient(Router);

impl TestClient {
    /// Builds an app.
    ///
    /// # Errors
    ///
    /// As [`App::into_router`].
    pub fn new(app: App) -> Result<Self, SetupError> {
        app.into_router().map(Self)
    }

    /// Uses a router as it is, for example one from [`init_app`](crate::init_app).
    pub fn of_router(router: Router) -> Self {
        Self(router)
    }

    /// Gets a path.
    ///
    /// # Panics
    ///
    /// The path is no address.
    pub async fn get(&self, path: &str) -> TestAnswer {
        let request = Request::get(path).body(Body::empty());
        self.send(request.expect("the path is an address")).await
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, request: Request) -> TestAnswer {
        let response = match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body) = response.into_parts();
        let collected = body.collect().await;
        let is_complete = collected.is_ok();
        TestAnswer {
            parts,
            // A body that broke off is what it is; `is_complete` tells.
            body: collected
                .map(|body| body.to_bytes().to_vec())
                .unwrap_or_default(),
            is_complete,
        }
    }
}

/// The answer to a request of a [`TestClient`].
#[derive(Debug)]
pub struct TestAnswer {
    parts: Parts,
    body: Vec<u8>,
    is_complete: bool,
}

impl TestAnswer {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Tells whether the body arrived whole.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The error that left the app, with `TESTING` or `PROPAGATE_EXCEPTIONS` on.
    pub fn propagated(&self) -> Option<&Failure> {
        self.parts
            .extensions
            .get::<Propagated>()
            .map(Propagated::failure)
    }
}
