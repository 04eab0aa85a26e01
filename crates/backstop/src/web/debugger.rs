//! The debug page: what failed, where, with what values, and who was asked to handle it.
//!
//! It stands around the app and answers for errors that left it, in debug mode only.
//! Source and stack are shown to whom [`allowed`] allows; the values of variables only after the
//! PIN, which is random for each start and printed in the terminal.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use backstop_protocol::Event;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN,
    SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::report::{Options, Scrubber};
use crate::stacktrace::{self, Html};
use crate::web::app::App;
use crate::web::carried::Propagated;
use crate::web::page::{Format, format_for};
use crate::web::{Failure, report};
use crate::{event, name_of};

/// The addresses of the debugger's own forms begin like this.
const OWN_PATH: &str = "/_backstop/debugger";

/// Errors whose page can be opened again after the PIN; older ones make room.
const KEPT_MAX: usize = 20;

/// Wrong PINs until the debugger is locked for good; nine digits cannot be guessed in ten tries.
const FAILURES_MAX: u32 = 10;

/// A wrong PIN takes so long.
const FAILURE_DELAY: Duration = Duration::from_millis(500);

/// A PIN and an error's id; a longer form is something else.
const FORM_BYTES_MAX: usize = 1024;

/// The cookie that remembers the PIN.
const COOKIE_NAME: &str = "backstop_debugger";

/// Text that closes the door again if it is embedded in another page, or loads anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// The debugger of one start of one app.
pub(crate) struct Debugger {
    app: App,
    pin: Pin,
    /// What the cookie holds once the PIN was right.
    secret: String,
    failures: AtomicU32,
    kept: Mutex<VecDeque<Arc<Kept>>>,
    hosts: Hosts,
    editor: Option<String>,
}

enum Pin {
    Digits(String),
    /// Switched off by `BACKSTOP_DEBUG_PIN=off`: variables are shown at once.
    Off,
}

/// One error and what the page says about it.
struct Kept {
    id: String,
    event: Event,
    headline: Headline,
}

struct Headline {
    status: StatusCode,
    method: String,
    path: String,
    route: Option<String>,
    blueprint: Option<String>,
    request_id: String,
    place: String,
    explanation: String,
    curl: String,
}

/// Which names in `Host` belong to this server.
struct Hosts {
    /// Others than this machine may ask.
    public: bool,
    names: Vec<String>,
}

impl Debugger {
    pub(crate) fn new(app: App, address: SocketAddr, host: &str) -> Arc<Debugger> {
        let config = app.config();
        let mut names = vec![host.to_ascii_lowercase(), address.ip().to_string()];
        names.extend(
            config
                .text("SERVER_NAME")
                .map(|name| without_port(name).to_owned()),
        );
        let trusted: Option<Vec<String>> = config.get_as("TRUSTED_HOSTS").ok().flatten();
        names.extend(trusted.unwrap_or_default());
        let hosts = Hosts {
            public: config.flag("DEBUG_ON_PUBLIC_ADDRESS"),
            names,
        };
        let pin = Pin::choose(std::env::var("BACKSTOP_DEBUG_PIN").ok().as_deref(), &hosts);
        Arc::new(Debugger {
            app,
            pin,
            secret: random_text(),
            failures: AtomicU32::new(0),
            kept: Mutex::default(),
            hosts,
            editor: editor(std::env::var("BACKSTOP_EDITOR").ok().as_deref()),
        })
    }

    /// Prints the PIN where only the developer sees it.
    pub(crate) fn announce(&self) {
        match &self.pin {
            Pin::Digits(pin) => eprintln!(" * Debugger PIN: {pin}"),
            Pin::Off => eprintln!(" * The debugger shows variables without a PIN."),
        }
    }

    /// Puts the debugger around an app.
    pub(crate) fn around(self: Arc<Self>, app: Router) -> Router {
        // Around the whole router: also an unknown address must reach the debugger's own ones.
        Router::new()
            .fallback_service(app)
            .layer(middleware::from_fn(move |request: Request, next: Next| {
                let debugger = Arc::clone(&self);
                async move { debugger.handle(request, next).await }
            }))
    }

    async fn handle(self: Arc<Self>, request: Request, next: Next) -> Response {
        let peer = request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map(|ConnectInfo(peer)| peer.ip());
        if !allowed(&self.hosts, peer, request.headers()) {
            return next.run(request).await;
        }
        if let Some(own) = request.uri().path().strip_prefix(OWN_PATH) {
            let own = own.to_owned();
            return self.own(&own, request).await;
        }
        let headers = request.headers().clone();
        let mut response = next.run(request).await;
        let Some(propagated) = response.extensions_mut().remove::<Propagated>() else {
            return response;
        };
        let status = response.status();
        let failure = propagated.failure().clone();
        let debugger = Arc::clone(&self);
        let kept = tokio::task::spawn_blocking(move || debugger.keep(status, &failure)).await;
        match kept {
            Ok(kept) => self.page(&kept, &headers, format_for_debug(&headers)),
            // Only if making the page panicked: the app's own answer is still there.
            Err(_) => response,
        }
    }

    /// Makes the event of a failure and keeps it, so that the PIN can be given afterwards.
    fn keep(&self, status: StatusCode, failure: &Failure) -> Arc<Kept> {
        let mut event = report::event_of(failure);
        event::complete(&mut event, &Options::default());
        Scrubber::default().event(&mut event);
        let path = failure.path();
        let explanation = self.app.explain_failure(failure);
        let kept = Arc::new(Kept {
            id: random_text(),
            headline: Headline {
                status,
                method: failure.method().to_string(),
                route: failure.route().map(str::to_owned),
                blueprint: failure.blueprint().map(str::to_owned),
                request_id: failure.request_id().to_owned(),
                place: failure.error().location().to_string(),
                explanation: explanation.to_string(),
                curl: curl(&event),
                path,
            },
            event,
        });
        let mut all = self.lock();
        if all.len() == KEPT_MAX {
            all.pop_front();
        }
        all.push_back(Arc::clone(&kept));
        kept
    }

    /// The debugger's own addresses: a kept error, and the PIN.
    async fn own(&self, path: &str, request: Request) -> Response {
        let headers = request.headers().clone();
        match (request.method(), path.strip_prefix("/errors/")) {
            (&Method::GET | &Method::HEAD, Some(id)) => match self.find(id) {
                Some(kept) => {
                    let mut response = self.page(&kept, &headers, Format::Html);
                    // The error itself is past; this page about it is fine.
                    *response.status_mut() = StatusCode::OK;
                    response
                }
                None => plain(StatusCode::NOT_FOUND, "This error is no longer kept.\n"),
            },
            (&Method::POST, None) if path == "/unlock" => {
                if !same_origin(&headers) {
                    return plain(
                        StatusCode::FORBIDDEN,
                        "This form belongs to another site.\n",
                    );
                }
                let body = to_bytes(request.into_body(), FORM_BYTES_MAX).await;
                self.unlock(&body.unwrap_or_default()).await
            }
            _ => plain(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        }
    }

    async fn unlock(&self, form: &[u8]) -> Response {
        let form = String::from_utf8_lossy(form);
        let field = |name: &str| {
            form.split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .unwrap_or_default()
        };
        // Counted before it is compared, so that guesses side by side count as well.
        let tries = self.failures.fetch_add(1, Ordering::SeqCst);
        if tries >= FAILURES_MAX {
            self.failures.store(FAILURES_MAX, Ordering::SeqCst);
            return plain(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong PINs: the debugger is locked until the program starts again.\n",
            );
        }
        if !self.pin.is(&field("pin")) {
            tokio::time::sleep(FAILURE_DELAY).await;
            return plain(
                StatusCode::FORBIDDEN,
                "This is not the PIN. It is printed in the terminal where the program runs.\n",
            );
        }
        self.failures.store(0, Ordering::SeqCst);
        let id = field("error");
        let id = if self.find(&id).is_some() {
            id
        } else {
            String::new()
        };
        let mut response = plain(StatusCode::SEE_OTHER, "");
        let headers = response.headers_mut();
        let cookie = format!(
            "{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict",
            self.secret
        );
        for (name, value) in [
            (LOCATION, format!("{OWN_PATH}/errors/{id}")),
            (SET_COOKIE, cookie),
        ] {
            // Both are made of hex digits and constants.
            headers.extend(
                HeaderValue::from_str(&value)
                    .ok()
                    .map(|value| (name, value)),
            );
        }
        response
    }

    fn is_unlocked(&self, headers: &HeaderMap) -> bool {
        // Once the PIN was tried too often, an earlier right one counts no more either.
        let locked = self.failures.load(Ordering::SeqCst) >= FAILURES_MAX;
        matches!(self.pin, Pin::Off)
            || !locked
                && headers
                    .get_all(COOKIE)
                    .iter()
                    .filter_map(|value| value.to_str().ok())
                    .flat_map(|value| value.split(';'))
                    .filter_map(|pair| pair.trim().split_once('='))
                    .any(|(name, value)| name == COOKIE_NAME && equal(value, &self.secret))
    }

    fn find(&self, id: &str) -> Option<Arc<Kept>> {
        self.lock().iter().find(|kept| equal(&kept.id, id)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, kept: &Kept, headers: &HeaderMap, format: Format) -> Response {
        let unlocked = self.is_unlocked(headers);
        let mut options = stacktrace::Options::default();
        options.editor.clone_from(&self.editor);
        options.variables_hidden = (!unlocked).then(|| "hidden until the PIN is given".to_owned());
        let (content_type, body) = match format {
            Format::Html => ("text/html; charset=utf-8", html(kept, &options, unlocked)),
            Format::Problem => (
                "application/problem+json",
                problem(kept, unlocked).to_string(),
            ),
            Format::Text => ("text/plain; charset=utf-8", text(kept, &options)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = kept.headline.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        if let Ok(id) = HeaderValue::from_str(&kept.headline.request_id) {
            headers.insert("x-request-id", id);
        }
        response
    }
}

impl Pin {
    /// Takes the PIN of the environment, or else a random one.
    fn choose(given: Option<&str>, hosts: &Hosts) -> Pin {
        let digits = |text: &str| {
            text.chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
        };
        match given {
            // Without a PIN everybody who gets the page sees the values: this machine only.
            Some("off") if !hosts.public => Pin::Off,
            Some(text) if digits(text).len() >= 6 => Pin::Digits(text.to_owned()),
            _ => {
                let number = getrandom::u32().unwrap_or(0) % 1_000_000_000;
                // Without randomness there is no PIN that could be right.
                let text = format!("{number:09}");
                Pin::Digits(match getrandom::u32() {
                    Ok(_) => format!("{}-{}-{}", &text[..3], &text[3..6], &text[6..]),
                    Err(_) => random_text(),
                })
            }
        }
    }

    /// Blanks and dashes are for reading only.
    fn is(&self, given: &str) -> bool {
        let plain = |text: &str| text.replace(['-', ' ', '+'], "").replace("%20", "");
        match self {
            Pin::Digits(pin) => equal(&plain(pin), &plain(given)),
            Pin::Off => true,
        }
    }
}

/// Decides who may see the debugger: this machine; others only by the second explicit setting.
///
/// The name in `Host` has to be ours as well, or a page of another site could have its own name
/// point to this machine and read the answers (DNS rebinding).
fn allowed(hosts: &Hosts, peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let near = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = without_port(host.unwrap_or_default()).to_ascii_lowercase();
    let bare = host.trim_matches(['[', ']']);
    let is_address = bare.parse::<IpAddr>().is_ok();
    let is_local = host == "localhost" || host.ends_with(".localhost");
    let is_named = hosts.names.contains(&host);
    (near || hosts.public) && (is_address || is_local || is_named)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// A form of another site says so in `Origin` or `Sec-Fetch-Site`.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let site_fits = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let origin_fits = text(ORIGIN.as_str()).is_none_or(|origin| {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        text(HOST.as_str()) == Some(host)
    });
    site_fits && origin_fits
}

/// Compares in a time that does not tell where the difference is.
fn equal(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one
            .bytes()
            .zip(other.bytes())
            .fold(0, |different, (a, b)| different | (a ^ b))
            == 0
}

/// 128 random bits as hex.
fn random_text() -> String {
    crate::report::new_event_id().to_string()
}

/// The editor's address, by name or as a template.
fn editor(given: Option<&str>) -> Option<String> {
    let template = match given? {
        "" | "off" => return None,
        "vscode" | "code" => "vscode://file/{path}:{line}:{column}",
        "idea" | "rustrover" | "clion" => "idea://open?file={path}&line={line}",
        "zed" => "zed://file/{path}:{line}:{column}",
        "sublime" => "subl://open?url=file://{path}&line={line}",
        other if other.contains("{path}") => other,
        _ => return None,
    };
    Some(template.to_owned())
}

/// People who look with curl, which accepts anything, read text better.
fn format_for_debug(headers: &HeaderMap) -> Format {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    match accept {
        None | Some("*/*") => Format::Text,
        _ => format_for(headers),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The request again, without what was secret in it.
fn curl(event: &Event) -> String {
    let Some(request) = &event.request else {
        return String::new();
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut url = request.url.clone().unwrap_or_default();
    if let Some(Value::String(query)) = &request.query_string {
        let query = Scrubber::default().text(query).into_owned();
        url.push('?');
        url.push_str(&query);
    }
    let method = request.method.as_deref().unwrap_or("GET");
    let mut command = format!("curl -i -X {method} {}", quoted(&url));
    for name in ["Accept", "Content-Type"] {
        if let Some(Value::String(value)) = request.headers.as_ref().and_then(|h| h.get(name)) {
            command.push_str(&format!(" -H {}", quoted(&format!("{name}: {value}"))));
        }
    }
    command
}

fn title(kept: &Kept) -> (&str, &str) {
    let raised = kept.event.exception.last();
    let ty = raised.and_then(|raised| raised.ty.as_deref());
    let value = raised.and_then(|raised| raised.value.as_deref());
    (ty.unwrap_or("Error"), value.unwrap_or_default())
}

fn html(kept: &Kept, options: &stacktrace::Options, unlocked: bool) -> String {
    let Headline {
        status,
        method,
        path,
        request_id,
        ..
    } = &kept.headline;
    let (ty, message) = title(kept);
    let mut html = Html::new();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    html.text(&format!("{ty}: {message}"));
    html.raw("</title><style>");
    html.raw(include_str!("debugger.css"));
    html.raw(stacktrace::CSS);
    html.raw("</style></head><body><header class=\"top\"><div class=\"in\"><p class=\"what\"><b>");
    let code = status.as_u16();
    html.text(&format!("{code} {}", name_of(code)));
    html.raw("</b> <code>");
    html.text(&format!("{method} {path}"));
    html.raw("</code></p><h1>");
    html.text(ty);
    html.raw("</h1>");
    if !message.is_empty() {
        html.raw("<p class=\"message\">");
        html.text(message);
        html.raw("</p>");
    }
    facts(&mut html, kept);
    html.raw("</div></header><main class=\"in\">");
    if !unlocked {
        unlock_form(&mut html, kept);
    }
    html.raw(&stacktrace::render(&kept.event, options));
    html.raw("<section class=\"more\"><h2>Who was asked to handle it</h2><ol class=\"asked\">");
    for line in kept.headline.explanation.lines() {
        html.raw("<li>");
        html.text(line);
        html.raw("</li>");
    }
    html.raw("</ol></section>");
    request(&mut html, kept);
    html.raw("<section class=\"more\"><h2>To pass on</h2><details><summary>The request, for a terminal</summary><pre>");
    html.text(&kept.headline.curl);
    html.raw("</pre></details><details><summary>Everything as text, for an issue</summary><pre>");
    html.text(&text(kept, options));
    html.raw("</pre></details></section></main><footer class=\"in\"><p>Request ");
    html.text(request_id);
    html.raw(
        " · Debug mode shows this page; production shows a plain one.</p></footer></body></html>",
    );
    html.finish()
}

/// Where it was made, which route, which build: answered before any scrolling.
fn facts(html: &mut Html, kept: &Kept) {
    let headline = &kept.headline;
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let facts = [
        ("Made at", Some(headline.place.as_str())),
        ("Route", headline.route.as_deref()),
        ("Blueprint", headline.blueprint.as_deref()),
        ("Build", Some(profile)),
    ];
    html.raw("<dl class=\"facts\">");
    for (name, value) in facts {
        let Some(value) = value else { continue };
        html.raw("<div><dt>");
        html.text(name);
        html.raw("</dt><dd>");
        html.text(value);
        html.raw("</dd></div>");
    }
    html.raw("</dl>");
}

fn unlock_form(html: &mut Html, kept: &Kept) {
    html.raw("<form class=\"unlock\" method=\"post\" action=\"");
    html.text(OWN_PATH);
    html.raw("/unlock\"><label for=\"pin\">Variables are hidden. The PIN is printed in the terminal where the program runs.</label><input type=\"hidden\" name=\"error\" value=\"");
    html.text(&kept.id);
    html.raw("\"><span><input id=\"pin\" name=\"pin\" inputmode=\"numeric\" autocomplete=\"off\" placeholder=\"123-456-789\" required><button>Show variables</button></span></form>");
}

fn request(html: &mut Html, kept: &Kept) {
    let Some(request) = &kept.event.request else {
        return;
    };
    html.raw("<section class=\"more\"><h2>Request</h2><table><tbody>");
    let mut row = |name: &str, value: &str| {
        html.raw("<tr><th scope=\"row\">");
        html.text(name);
        html.raw("</th><td><code>");
        html.text(value);
        html.raw("</code></td></tr>");
    };
    row("URL", request.url.as_deref().unwrap_or_default());
    if let Some(Value::String(query)) = &request.query_string {
        row("Query", query);
    }
    let object = |value: &Option<Value>| match value {
        Some(Value::Object(fields)) => fields.clone(),
        _ => backstop_protocol::Object::new(),
    };
    for (name, value) in object(&request.headers) {
        row(&name, value.as_str().unwrap_or_default());
    }
    for (name, value) in object(&request.cookies) {
        row(
            &format!("Cookie {name}"),
            value.as_str().unwrap_or_default(),
        );
    }
    html.raw("</tbody></table></section>");
}

fn text(kept: &Kept, options: &stacktrace::Options) -> String {
    let headline = &kept.headline;
    let code = headline.status.as_u16();
    let path = crate::log::escape_controls(&headline.path);
    let mut text = format!(
        "{code} {} — {} {path}\nmade at {}\n\n",
        name_of(code),
        headline.method,
        headline.place,
    );
    text.push_str(&stacktrace::text(&kept.event, options));
    text.push_str("\nWho was asked to handle it:\n");
    for line in headline.explanation.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&format!("\nRequest {}\n", headline.request_id));
    text
}

/// RFC 9457, with the chain and the frames as extension members.
fn problem(kept: &Kept, unlocked: bool) -> Value {
    let code = kept.headline.status.as_u16();
    let (_, message) = title(kept);
    let exceptions: Vec<Value> = kept
        .event
        .exception
        .iter()
        .rev()
        .map(|exception| {
            let frames: Vec<Value> = exception
                .stacktrace
                .iter()
                .flat_map(|stacktrace| stacktrace.frames.iter().rev())
                .filter(|frame| frame.in_app == Some(true))
                .map(|frame| {
                    let mut shown = json!({
                        "function": frame.function,
                        "file": frame.filename,
                        "line": frame.lineno,
                        "source": frame.context_line.as_deref().map(str::trim),
                    });
                    if unlocked && !frame.vars.is_empty() {
                        shown["variables"] = Value::Object(frame.vars.get_ref().clone());
                    }
                    shown
                })
                .collect();
            json!({"type": exception.ty, "message": exception.value, "frames": frames})
        })
        .collect();
    json!({
        "type": "about:blank",
        "title": name_of(code),
        "status": code,
        "detail": message,
        "made_at": kept.headline.place,
        "errors": exceptions,
        "asked": kept.headline.explanation.lines().collect::<Vec<_>>(),
        "request_id": kept.headline.request_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn who_may_see_it() {
        let check = |public: bool, peer: &str, host: &'static str, expected: bool| {
            let hosts = Hosts {
                public,
                names: vec!["shop.test".to_owned()],
            };
            let headers = headers(&[("host", host)]);
            let peer = peer.parse().ok();
            assert_eq!(allowed(&hosts, peer, &headers), expected, "{peer:?} {host}");
        };
        check(false, "127.0.0.1", "localhost:5000", true);
        check(false, "127.0.0.1", "127.0.0.1:5000", true);
        check(false, "::1", "[::1]:5000", true);
        check(false, "::ffff:127.0.0.1", "app.localhost", true);
        check(false, "127.0.0.1", "shop.test", true);
        // A name of somebody else that points here, and somebody else's machine.
        check(false, "127.0.0.1", "evil.example:5000", false);
        check(false, "127.0.0.1", "localhost.evil.example", false);
        check(false, "10.0.0.7", "localhost:5000", false);
        check(false, "", "localhost:5000", false);
        check(true, "10.0.0.7", "10.0.0.1:5000", true);
        check(true, "10.0.0.7", "evil.example", false);
    }

    #[test]
    fn forms_of_other_sites() {
        let check = |pairs: &[(&'static str, &'static str)], expected: bool| {
            assert_eq!(same_origin(&headers(pairs)), expected, "{pairs:?}");
        };
        check(&[("host", "localhost:5000")], true);
        check(
            &[
                ("host", "localhost:5000"),
                ("origin", "http://localhost:5000"),
            ],
            true,
        );
        check(
            &[
                ("host", "localhost:5000"),
                ("origin", "http://localhost:6000"),
            ],
            false,
        );
        check(&[("host", "localhost:5000"), ("origin", "null")], false);
        check(&[("host", "a"), ("sec-fetch-site", "cross-site")], false);
    }

    #[test]
    fn pins() {
        let near = Hosts {
            public: false,
            names: Vec::new(),
        };
        let public = Hosts {
            public: true,
            names: Vec::new(),
        };
        let pin = Pin::choose(Some("123-456"), &near);
        assert!(pin.is("123456") && pin.is("123 456") && !pin.is("123457") && !pin.is(""));
        assert!(matches!(Pin::choose(Some("off"), &near), Pin::Off));
        assert!(matches!(Pin::choose(Some("off"), &public), Pin::Digits(_)));
        let Pin::Digits(random) = Pin::choose(Some("1"), &near) else {
            panic!("too short a PIN is not taken");
        };
        assert_eq!(random.len(), 11);
    }
}
