//! What clients send: accepted, authenticated, limited, decoded, and handed to the digest.
//!
//! One request goes through here like this:
//!
//! 1. `auth` finds the key, `caller` the project that it opens and what that project wants;
//! 2. `body` reads and decodes the bytes under its limits;
//! 3. `envelope` (or `store`, `security`, `minidump`, `monitor`) splits them into items, and
//!    decodes each leniently;
//! 4. for each event: `normalise` → `filter` → `quota` → `symbolicate` → `scrub` →
//!    [`Digest::prepare`];
//! 5. [`Digest::submit`] and the `recorder` write, and the client is answered.
//!
//! **200 means committed.** Everything that was not stored has an outcome that says why.
//!
//! The endpoints are Sentry's: <https://develop.sentry.dev/sdk/overview/> and
//! <https://develop.sentry.dev/sdk/data-model/envelopes/>.

mod auth;
mod body;
mod caller;
pub(crate) mod command;
mod envelope;
mod event;
mod filter;
#[doc(hidden)]
pub mod fuzz;
mod minidump;
mod monitor;
mod normalise;
mod outcome;
mod quota;
mod recorder;
mod refusal;
mod scrub;
mod security;
mod settings;
mod store;
mod symbolicate;
mod unreal;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use backstop_protocol::{EventId, Timestamp};
use http::Uri;
use tower::ServiceExt as _;

use crate::digest::Digest;
use crate::model::Key;
use crate::store::Store;
use body::Memory;
use caller::Keys;
use outcome::Outcomes;
use quota::Quotas;
use recorder::Recorder;
use symbolicate::Symbolicator;

pub use settings::{Filters, NewIssues, Quota, Scrubbing, Settings};

/// Takes what clients send.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    digest: Arc<Digest>,
    memory: Memory,
    keys: Keys,
    quotas: Quotas,
    outcomes: Arc<Outcomes>,
    recorder: Recorder,
    symbolicator: Symbolicator,
}

impl Ingest {
    /// Makes the ingest of a store; must be called inside a Tokio runtime.
    pub fn start(store: Store, digest: Arc<Digest>) -> Arc<Ingest> {
        let outcomes = Arc::new(Outcomes::default());
        Arc::new(Ingest {
            recorder: Recorder::start(store.clone(), Arc::clone(&outcomes)),
            store,
            digest,
            memory: Memory::default(),
            keys: Keys::default(),
            quotas: Quotas::default(),
            outcomes,
            symbolicator: Symbolicator::default(),
        })
    }

    /// Writes ingest's measures in the text format of Prometheus.
    pub(crate) fn render_metrics(&self, text: &mut String) {
        self.outcomes.render(text);
    }

    /// Writes the outcomes that were counted so far; call it before the server ends, and before
    /// they are shown.
    pub async fn flush(&self) {
        self.recorder.flush().await;
    }
}

/// Returns the routes that clients send to, each with and without its last slash.
pub fn router(ingest: Arc<Ingest>) -> Router {
    let routes = [
        ("/api/{project}/envelope", post(envelope::envelope)),
        (
            "/api/{project}/store",
            post(store::store).get(store::store_of_query),
        ),
        ("/api/store", post(store::store_without_project)),
        ("/api/{project}/security", post(security::security)),
        ("/api/{project}/csp-report", post(security::security)),
        ("/api/{project}/nel", post(security::security)),
        ("/api/{project}/minidump", post(minidump::minidump)),
        ("/api/{project}/unreal/{key}", post(unreal::unreal)),
        (
            "/api/{project}/events/{event}/attachments",
            post(minidump::attachments),
        ),
        (
            "/api/{project}/cron/{monitor}",
            get(monitor::cron).post(monitor::cron),
        ),
        (
            "/api/{project}/cron/{monitor}/{key}",
            get(monitor::cron_with_key).post(monitor::cron_with_key),
        ),
        (
            "/api/{project}/integration/otlp/v1/{signal}",
            post(envelope::otlp),
        ),
        ("/tunnel", post(envelope::tunnel)),
    ];
    let mut router = Router::new();
    for (path, methods) in routes {
        let methods = methods.options(async || {});
        let methods = methods.fallback(refusal::wrong_method);
        router = router
            .route(path, methods.clone())
            .route(&format!("{path}/"), methods);
    }
    router
        // `body` has its own limits, which hold while decoding as well.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(refusal::cors))
        .with_state(ingest)
}

/// Returns a router that sends everybody away for a while: there is no store to write to.
pub(crate) fn closed(detail: String, retry_after_s: u64) -> Router {
    let refuse = async move || refusal::Refusal::busy_for(detail.clone(), retry_after_s);
    Router::new()
        .fallback(refuse)
        .layer(middleware::from_fn(refusal::cors))
}

/// Serves a request whose path has a prefix before `/api/`: a DSN may have one, for a proxy that
/// serves several things under one name and does not take it off. Anything else goes to `otherwise`.
pub(crate) async fn route_prefixed<F: Future<Output = Response>>(
    router: Router,
    mut request: Request,
    otherwise: impl FnOnce(Request) -> F,
) -> Response {
    let Some(uri) = without_prefix(request.uri()) else {
        return otherwise(request).await;
    };
    *request.uri_mut() = uri;
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn without_prefix(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    // The last one counts: a prefix may itself have an `/api/`.
    let at = path.rfind("/api/").filter(|at| *at > 0)?;
    let project = path[at + 5..].split('/').next()?;
    let is_project = !project.is_empty() && project.bytes().all(|byte| byte.is_ascii_digit());
    if !is_project && project != "store" {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}"));
    format!("{}{}", &path[at..], query.unwrap_or_default())
        .parse()
        .ok()
}

/// Reads the clock: the one place in ingest that does.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

fn new_event_id() -> EventId {
    EventId::from_bytes(Key::random().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let check = |path: &str, expected: Option<&str>| {
            let uri = without_prefix(&path.parse().unwrap());
            assert_eq!(
                uri.map(|uri| uri.to_string()).as_deref(),
                expected,
                "{path}"
            );
        };
        check("/api/1/envelope/", None);
        check(
            "/sentry/api/1/envelope/?sentry_key=a",
            Some("/api/1/envelope/?sentry_key=a"),
        );
        check("/a/api/b/api/42/store/", Some("/api/42/store/"));
        check("/a/api/store/", Some("/api/store/"));
        check("/a/api/0x/envelope/", None);
        check("/a", None);
    }
}
