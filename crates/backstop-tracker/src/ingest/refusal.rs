//! The answer to a request that is not taken, and the headers of every answer.

use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::refused;

/// How long a client waits when the server is busy, in seconds.
const BUSY_RETRY_S: u64 = 5;

const RATE_LIMITS: HeaderName = HeaderName::from_static("x-sentry-rate-limits");
const SENTRY_ERROR: HeaderName = HeaderName::from_static("x-sentry-error");

/// Why a request is not taken, as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    detail: String,
    retry_after_s: Option<u64>,
    rate_limits: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> Refusal {
        Refusal {
            status,
            detail: detail.into(),
            retry_after_s: None,
            rate_limits: None,
        }
    }

    /// The request makes no sense.
    pub(super) fn bad(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The request names no key.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// The key does not open the project.
    pub(super) fn forbidden(reason: &str) -> Refusal {
        let detail = format!("event submission rejected with_reason: {reason}");
        Refusal::new(StatusCode::FORBIDDEN, detail)
    }

    /// The body is larger than what is read.
    pub(super) fn too_large(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// The body is of a kind that is not known.
    pub(super) fn unsupported(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// The sender was too slow.
    pub(super) fn timeout(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// The server has too much to do; the client may come again.
    pub(super) fn busy(detail: impl Into<String>) -> Refusal {
        Refusal {
            retry_after_s: Some(BUSY_RETRY_S),
            ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    /// Like [`Refusal::busy`], for as long as is known.
    pub(super) fn busy_for(detail: impl Into<String>, retry_after_s: u64) -> Refusal {
        Refusal {
            retry_after_s: Some(retry_after_s),
            ..Refusal::busy(detail)
        }
    }

    /// More arrives than can be written; the client may come again soon.
    pub(super) fn full(detail: impl Into<String>, retry_after_s: u64) -> Refusal {
        Refusal {
            retry_after_s: Some(retry_after_s),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// A quota is used up; `limits` is the value of `X-Sentry-Rate-Limits`.
    pub(super) fn rate_limited(retry_after_s: u64, limits: String) -> Refusal {
        Refusal {
            retry_after_s: Some(retry_after_s),
            rate_limits: Some(limits),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "quota exceeded")
        }
    }

    /// Returns the answer's status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

/// Answers a method that an endpoint does not have; the router adds `Allow`.
pub(super) async fn wrong_method(method: Method) -> Refusal {
    let detail = format!("this endpoint does not take {method}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (
            self.status,
            Json(json!({"detail": self.detail, "causes": []})),
        )
            .into_response();
        let headers = response.headers_mut();
        if let Ok(detail) = HeaderValue::from_str(&self.detail) {
            headers.insert(SENTRY_ERROR, detail);
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        add_rate_limits(headers, self.rate_limits.as_deref());
        response
    }
}

/// Tells a client which categories to hold back, which may come with any status.
pub(super) fn add_rate_limits(headers: &mut HeaderMap, limits: Option<&str>) {
    if let Some(limits) = limits.and_then(|limits| HeaderValue::from_str(limits).ok()) {
        headers.insert(RATE_LIMITS, limits);
    }
}

/// Lets browsers of any origin send, and read the answer's limits; answers their preflights.
pub(super) async fn cors(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = match method {
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => next.run(request).await,
    };
    if !response.status().is_success() {
        let detail = response.headers().get(SENTRY_ERROR);
        let detail = detail
            .and_then(|detail| detail.to_str().ok())
            .unwrap_or_default();
        refused::note(&method, &uri, response.status(), detail);
    }
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS");
    set(header::ACCESS_CONTROL_MAX_AGE, "3600");
    set(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "x-sentry-auth, x-requested-with, x-forwarded-for, origin, referer, accept, content-type, \
         authentication, authorization, content-encoding, transfer-encoding",
    );
    set(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "x-sentry-error, x-sentry-rate-limits, retry-after",
    );
    response
}
