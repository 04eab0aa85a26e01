//! Signing in and out: one-time links, passwords and the session cookie.

use axum::extract::{Form, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use backstop_protocol::Timestamp;
use minijinja::context;
use serde::Deserialize;

use super::Failure;
use crate::app::{Tracker, now};
use crate::model::Secret;

const COOKIE: &str = "backstop_session";

/// Long enough not to annoy, short enough that a lost laptop is no catastrophe for ever.
const SESSION_SECONDS: i64 = 30 * 86_400;

/// Passwords checked at the same time; each costs 20 MB and a tenth of a second on purpose.
static CHECKS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

/// Lets only people who are signed in through, and tells handlers who they are.
pub(super) async fn require(
    State(tracker): State<Tracker>,
    mut req: Request,
    next: Next,
) -> Response {
    let user = match cookie(req.headers()) {
        Some(secret) => {
            tracker
                .with_store(move |store| store.session_user(&secret, now()))
                .await
        }
        None => Ok(None),
    };
    match user {
        Ok(Some(user)) => {
            req.extensions_mut().insert(user);
            let mut response = next.run(req).await;
            // What was shown to one person must not come back from a cache to another.
            let private = header::HeaderValue::from_static("no-store");
            response
                .headers_mut()
                .entry(header::CACHE_CONTROL)
                .or_insert(private);
            response
        }
        Ok(None) if req.method().is_safe() => {
            let wanted = req
                .uri()
                .path_and_query()
                .map_or("/", |wanted| wanted.as_str());
            tracker
                .to(&format!("/sign-in/?next={}", escape(wanted)))
                .into_response()
        }
        Ok(None) => Failure::new(StatusCode::UNAUTHORIZED, "sign in first").into_response(),
        Err(failure) => failure.into_response(),
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
}

/// Shows the form for e-mail and password.
pub(super) async fn form(
    State(tracker): State<Tracker>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let page = tracker.render(
        "sign_in.html",
        context! { next => &wanted.next, email => "" },
    )?;
    Ok(page.into_response())
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// Checks e-mail and password and starts a session.
pub(super) async fn sign_in(
    State(tracker): State<Tracker>,
    Form(credentials): Form<Credentials>,
) -> Result<Response, Failure> {
    let Credentials {
        email,
        password,
        next,
    } = credentials;
    let permit = CHECKS
        .acquire()
        .await
        .expect("the semaphore is never closed");
    let tried = email.clone();
    let now = now();
    let session = tracker
        .with_store(move |store| {
            let Some(user) = store.check_password(&tried, &password)? else {
                return Ok(None);
            };
            store.create_session(user.id, now, expiry(now)).map(Some)
        })
        .await?;
    drop(permit);
    match session {
        Some(session) => Ok(tracker.signed_in(&session, &next)),
        None => {
            tracing::warn!("somebody failed to sign in");
            let problem = "No user has this e-mail address and password.";
            let page = tracker.render("sign_in.html", context! { next, email, problem })?;
            Ok((StatusCode::UNAUTHORIZED, page).into_response())
        }
    }
}

/// Shows what a one-time link does; mail scanners open links, so opening it must not use it up.
pub(super) async fn link(State(tracker): State<Tracker>) -> Result<Response, Failure> {
    Ok(tracker
        .render("sign_in_link.html", context! {})?
        .into_response())
}

/// Uses a one-time link up and starts a session.
pub(super) async fn use_link(
    State(tracker): State<Tracker>,
    Path(secret): Path<String>,
) -> Result<Response, Failure> {
    let now = now();
    let used = tracker
        .with_store(move |store| store.use_sign_in_link(&secret, now, expiry(now)))
        .await?;
    match used {
        Some((_, session)) => Ok(tracker.signed_in(&session, "/")),
        None => {
            let problem =
                "This link was used or is too old. `backstop user sign-in` makes a new one.";
            let page = tracker.render(
                "sign_in.html",
                context! { next => "", email => "", problem },
            )?;
            Ok((StatusCode::GONE, page).into_response())
        }
    }
}

/// Ends the session.
pub(super) async fn sign_out(
    State(tracker): State<Tracker>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if let Some(secret) = cookie(&headers) {
        tracker
            .with_store(move |store| store.end_session(&secret))
            .await?;
    }
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    Ok(([(header::SET_COOKIE, gone)], tracker.to("/sign-in/")).into_response())
}

impl Tracker {
    fn signed_in(&self, session: &Secret, wanted: &str) -> Response {
        let secure = if self.0.public_url.starts_with("https:") {
            "; Secure"
        } else {
            ""
        };
        let cookie = format!(
            "{COOKIE}={}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax{secure}",
            session.expose()
        );
        // Only paths of this server: `//host` would lead elsewhere.
        let inside = wanted.starts_with('/') && !wanted.starts_with("//") && !wanted.contains('\\');
        let to = if inside && !wanted.chars().any(char::is_control) {
            Redirect::to(wanted)
        } else {
            self.to("/")
        };
        ([(header::SET_COOKIE, cookie)], to).into_response()
    }
}

fn expiry(now: Timestamp) -> Timestamp {
    Timestamp::from_micros(now.micros() + SESSION_SECONDS * 1_000_000)
}

pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    let values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, secret)| secret.to_owned())
}

/// Percent-encodes a path so that it can be a query parameter.
pub(super) fn escape(path: &str) -> String {
    path.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}
