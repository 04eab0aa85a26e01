//! The pages for people and the web API for programs, rendered from the store on the server.
//!
//! Every page works without JavaScript and loads nothing from elsewhere.
//! A person is known by a session cookie, a program by a bearer token; nobody else sees anything.

mod account;
mod alerts;
mod api;
mod format;
mod groups;
mod issue;
mod issues;
mod projects;
mod records;
mod releases;
mod session;

use std::path::Path;

pub(crate) use self::format::{count, exact};
pub(crate) use self::projects::dsn;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Json, Redirect, Response};
use axum::routing::{get, post};
use minijinja::{Environment, Value, context};
use serde_json::json;

use crate::app::Tracker;
use crate::model::User;
use crate::{refused, store};

const TEMPLATES: &[(&str, &str)] = &[
    ("account.html", include_str!("templates/account.html")),
    ("groups.html", include_str!("templates/groups.html")),
    ("issue.html", include_str!("templates/issue.html")),
    ("issues.html", include_str!("templates/issues.html")),
    ("layout.html", include_str!("templates/layout.html")),
    ("mail.html", include_str!("templates/mail.html")),
    ("mail_list.html", include_str!("templates/mail_list.html")),
    (
        "mail_layout.html",
        include_str!("templates/mail_layout.html"),
    ),
    ("message.html", include_str!("templates/message.html")),
    ("projects.html", include_str!("templates/projects.html")),
    ("settings.html", include_str!("templates/settings.html")),
    ("sign_in.html", include_str!("templates/sign_in.html")),
    (
        "sign_in_link.html",
        include_str!("templates/sign_in_link.html"),
    ),
];

const CSS: &str = include_str!("static/backstop.css");
const ICON: &str = include_str!("static/icon.svg");

/// The mark in the bar; it takes the colour of its surroundings.
const LOGO: &str = "<svg width=\"22\" height=\"22\" viewBox=\"0 0 24 24\" aria-hidden=\"true\">\
<path d=\"M3 4h18v7.2c0 5-3.7 8.3-9 9.8-5.3-1.5-9-4.8-9-9.8z\" fill=\"currentColor\"/>\
<path d=\"M7 9.5h10M7 13.5h7\" stroke=\"var(--card)\" stroke-width=\"2.2\" stroke-linecap=\"round\"/></svg>";

/// Nothing from elsewhere, no scripts, no framing: the pages show what strangers have sent.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self' 'unsafe-inline'; \
img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Returns the routes of the pages and of the web API.
pub(crate) fn router(tracker: Tracker) -> Router {
    let pages = Router::new()
        .route("/", get(issues::all))
        .route("/projects/", get(projects::list).post(projects::create))
        .route("/account/", get(account::show).post(account::set_password))
        .route("/sign-out/", post(session::sign_out))
        .route("/issues/{issue}/", get(issue::latest))
        .route("/issues/{issue}/status/", post(issue::decide))
        .route("/issues/merge/", post(groups::merge_picked))
        .route("/issues/{issue}/groups/", get(groups::show))
        .route("/issues/{issue}/merge/", post(groups::merge))
        .route("/issues/{issue}/split/", post(groups::split))
        .route("/issues/{issue}/events/{event}/", get(issue::event))
        .route("/issues/{issue}/events/{event}/json/", get(issue::json))
        .route("/{org}/{project}/", get(issues::of_project))
        .route("/{org}/{project}/settings/", get(projects::settings))
        .route("/{org}/{project}/alerts/", post(alerts::add))
        .route("/{org}/{project}/alerts/remove/", post(alerts::remove))
        .route_layer(from_fn_with_state(tracker.clone(), session::require));
    let open = Router::new()
        .route("/sign-in/", get(session::form).post(session::sign_in))
        .route(
            "/sign-in/{secret}/",
            get(session::link).post(session::use_link),
        )
        // Mail programs lose the last slash of a link.
        .route(
            "/sign-in/{secret}",
            get(session::link).post(session::use_link),
        )
        .route("/static/backstop.css", get(css))
        .route("/static/icon.svg", get(icon));
    pages
        .merge(open)
        .layer(from_fn(name_refusal))
        .layer(from_fn_with_state(tracker.clone(), refuse_other_sites))
        .layer(from_fn_with_state(tracker.clone(), page_of_failure))
        .merge(api::router(tracker.clone()).layer(from_fn(name_refusal)))
        .with_state(tracker)
}

/// Reads the templates: the embedded ones, or the user's file of the same name.
///
/// # Errors
///
/// A file cannot be read, or is not a template.
pub(crate) fn templates(directory: &Path) -> Result<Environment<'static>> {
    let mut env = Environment::new();
    env.add_function("logo", || Value::from_safe_string(LOGO.to_owned()));
    for (name, text) in TEMPLATES {
        let path = directory.join(name);
        if path.exists() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            env.add_template_owned(*name, text)
        } else {
            env.add_template(name, text)
        }
        .with_context(|| format!("{} is not a template", path.display()))?;
    }
    Ok(env)
}

/// Why a page or an answer of the API cannot be given.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    status: StatusCode,
    detail: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Failure {
        Failure {
            status,
            detail: detail.into(),
        }
    }

    pub(crate) fn not_found(what: &str) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, format!("there is no such {what}"))
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        use store::ErrorKind;
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            _ if error.is_passing() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(
                error = format!("{error:#}"),
                "the store could not answer a page"
            );
            return Failure::new(status, "the store cannot answer; the log says why");
        }
        Failure::new(status, error.to_string())
    }
}

/// As JSON; a page for people is made of it by [`page_of_failure`].
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "detail": self.detail }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Answers what no route knows: JSON for programs, a page for people, and for a page without its
/// last slash the way to it, as Flask does.
pub(crate) async fn no_such_path(State(tracker): State<Tracker>, req: Request) -> Response {
    let path = req.uri().path();
    let detail = format!("there is nothing at {path}");
    let accept = req
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let is_for_people =
        !path.starts_with("/api/") && accept.is_some_and(|accept| accept.contains("text/html"));
    if is_for_people && !path.ends_with('/') && !path.starts_with("//") && req.method().is_safe() {
        let query = req.uri().query();
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        return Redirect::permanent(&format!("{}{path}/{query}", tracker.0.root)).into_response();
    }
    refused::note(
        req.method(),
        req.uri(),
        StatusCode::NOT_FOUND,
        "there is no such path",
    );
    if !is_for_people {
        return Failure::new(StatusCode::NOT_FOUND, detail).into_response();
    }
    match tracker.render(
        "message.html",
        context! { title => "Not Found", text => sentence(&detail) },
    ) {
        Ok(page) => (StatusCode::NOT_FOUND, page).into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// Gives what axum itself refuses the form of every other refusal: an address or a body that does
/// not read (a plain text), and a method that is not there (nothing at all).
async fn name_refusal(req: Request, next: Next) -> Response {
    const TEXT_BYTES_MAX: usize = 4_096;
    let method = req.method().clone();
    let response = next.run(req).await;
    let status = response.status();
    let is_plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let is_wrong_method = status == StatusCode::METHOD_NOT_ALLOWED;
    if response.extensions().get::<Failure>().is_some()
        || !(is_wrong_method || status.is_client_error() && is_plain)
    {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let detail = match is_wrong_method {
        true => format!("this address does not take {method}"),
        false => match axum::body::to_bytes(response.into_body(), TEXT_BYTES_MAX).await {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(_) => "the request does not read".to_owned(),
        },
    };
    let mut named = Failure::new(status, detail).into_response();
    if let Some(allow) = allow {
        named.headers_mut().insert(header::ALLOW, allow);
    }
    named
}

async fn page_of_failure(State(tracker): State<Tracker>, req: Request, next: Next) -> Response {
    if req.uri().path().starts_with("/api/") {
        // `/api/…` is never an organization.
        return no_such_path(State(tracker), req).await;
    }
    let mut response = next.run(req).await;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    let Some(failure) = response.extensions().get::<Failure>().cloned() else {
        return response;
    };
    let title = failure.status.canonical_reason().unwrap_or("Error");
    let page = tracker.render(
        "message.html",
        context! { title, text => sentence(&failure.detail) },
    );
    match page {
        Ok(page) => (failure.status, page).into_response(),
        Err(failure) => failure.into_response(),
    }
}

fn sentence(detail: &str) -> String {
    let mut letters = detail.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().collect::<String>());
    let end = if detail.ends_with('.') { "" } else { "." };
    format!("{}{}{end}", first.unwrap_or_default(), letters.as_str())
}

/// A form of another site must not act in the name of who is signed in here.
/// A proxy in front may have changed the host, so the public URL is this site as well.
async fn refuse_other_sites(State(tracker): State<Tracker>, req: Request, next: Next) -> Response {
    let origin = req
        .headers()
        .get(header::ORIGIN)
        .and_then(|value| value.to_str().ok());
    let host = req
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let foreign = origin.is_some_and(|origin| !is_this_site(origin, host, &tracker.0.public_url));
    if foreign && !req.method().is_safe() {
        return Failure::new(StatusCode::FORBIDDEN, "this form came from another site")
            .into_response();
    }
    next.run(req).await
}

fn is_this_site(origin: &str, host: Option<&str>, public_url: &str) -> bool {
    let named = origin.split_once("://").map(|(_, host)| host);
    let public: Vec<&str> = public_url.split('/').take(3).collect();
    (named.is_some() && named == host) || origin == public.join("/")
}

impl Tracker {
    /// Renders a template for somebody who may not be signed in.
    fn render(&self, name: &str, context: Value) -> std::result::Result<Html<String>, Failure> {
        let css = format!("backstop.css?{:x}", version_of_css());
        let shared = context! { root => &self.0.root, css };
        let rendered = self
            .0
            .templates
            .get_template(name)
            .and_then(|template| template.render(context! { ..context, ..shared }));
        rendered.map(Html).map_err(|error| {
            tracing::error!(
                template = name,
                error = format!("{error:#}"),
                "a template failed"
            );
            Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a template of this server is broken",
            )
        })
    }

    /// Renders a template for who is signed in.
    fn page(
        &self,
        user: &User,
        here: &str,
        name: &str,
        context: Value,
    ) -> std::result::Result<Html<String>, Failure> {
        let user = context! { email => &user.email };
        self.render(name, context! { ..context, ..context! { user, here } })
    }

    /// Returns a redirection to a path of this server.
    fn to(&self, path: &str) -> Redirect {
        Redirect::to(&format!("{}{path}", self.0.root))
    }

    /// Runs something that waits for the store, away from the threads that serve.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&store::Store) -> std::result::Result<T, store::Error> + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        let store = self.0.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => Ok(result?),
            Err(error) => {
                tracing::error!(error = error.to_string(), "a query of the store panicked");
                Err(Failure::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the store cannot answer",
                ))
            }
        }
    }
}

/// Changes with every change of the sheet, so that browsers may keep it for ever.
fn version_of_css() -> u64 {
    CSS.bytes()
        .chain(backstop::stacktrace::CSS.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

const FOR_EVER: (header::HeaderName, &str) =
    (header::CACHE_CONTROL, "public, max-age=31536000, immutable");

async fn css() -> impl IntoResponse {
    let sheet = [CSS, backstop::stacktrace::CSS].concat();
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), FOR_EVER],
        sheet,
    )
}

async fn icon() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/svg+xml"), FOR_EVER], ICON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_proxy_the_public_address_is_this_site() {
        let check = |origin: &str, expected: bool| {
            let url = "https://errors.example.com/sub";
            let got = is_this_site(origin, Some("127.0.0.1:9000"), url);
            assert_eq!(got, expected, "{origin}");
        };
        check("https://errors.example.com", true);
        check("http://127.0.0.1:9000", true);
        check("http://errors.example.com", false);
        check("https://errors.example.com.evil.example", false);
        check("null", false);
    }
}
