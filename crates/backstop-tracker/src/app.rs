//! The tracker as one value: what its parts share, and the router that serves them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use backstop_protocol::Timestamp;
use minijinja::Environment;
use serde_json::json;

use crate::config::host_of;
use crate::digest::Digest;
use crate::ingest::{self, Ingest};
use crate::store::Store;

/// A tracker: the store, the settings and the templates; cloning is cheap.
#[derive(Clone)]
pub struct Tracker(pub(crate) Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) digest: Arc<Digest>,
    pub(crate) templates: Environment<'static>,
    /// The address under which people and clients reach the server, without a slash at the end.
    pub(crate) public_url: String,
    /// The path of the public address, for links: empty or `/prefix`.
    pub(crate) root: String,
}

/// Reads the clock; every decision below takes its result as an argument.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Tracker {
    /// Puts a tracker together, for a public address without a slash at the end.
    ///
    /// # Errors
    ///
    /// A template in `templates` of the data directory cannot be read or understood.
    pub fn new(store: Store, digest: Arc<Digest>, public_url: &str) -> Result<Tracker> {
        let templates = crate::web::templates(&store.directory().join("templates"))
            .context("cannot load the templates")?;
        let host = host_of(public_url).unwrap_or_default();
        let root = public_url
            .split_once(host)
            .map(|(_, path)| path)
            .unwrap_or_default();
        Ok(Tracker(Arc::new(Parts {
            ingest: Ingest::start(store.clone(), Arc::clone(&digest)),
            digest,
            store,
            templates,
            public_url: public_url.to_owned(),
            root: root.trim_end_matches('/').to_owned(),
        })))
    }

    /// Returns the routes of the tracker: ingest, pages and web API.
    pub fn router(&self) -> Router {
        let ingest = ingest::router(Arc::clone(&self.0.ingest));
        let prefixed = ingest.clone();
        let watched = Router::new()
            .route("/metrics", get(metrics))
            .route("/health", get(health))
            .with_state(self.clone());
        let tracker = self.clone();
        let otherwise = move |request| crate::web::no_such_path(State(tracker), request);
        crate::web::router(self.clone())
            .merge(watched)
            .merge(ingest)
            .fallback(move |request| ingest::route_prefixed(prefixed, request, otherwise))
    }
}

/// The measures of digest, ingest and process, for Prometheus.
async fn metrics(State(tracker): State<Tracker>) -> Response {
    // Reading sizes touches the disk.
    let text = tokio::task::spawn_blocking(move || {
        let mut text = tracker.0.digest.metrics();
        tracker.0.ingest.render_metrics(&mut text);
        crate::metrics::render_process(&mut text);
        text
    })
    .await;
    match text {
        Ok(text) => (
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Says whether events are taken now; for load balancers and process managers.
async fn health(State(tracker): State<Tracker>) -> Response {
    match tracker.0.digest.health() {
        Ok(()) => Json(json!({ "status": "ok" })).into_response(),
        Err(error) => {
            let body = json!({ "status": "refusing", "detail": error.to_string() });
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("2"));
            response
        }
    }
}
