//! A case's set-up as a real app.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use backstop::{App, Blueprint, Caught, Error, Failure, HttpError, extract};
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::capture::Notes;
use super::errors::{Classes, PlainError, list, pairs, text};

/// What every function of the app needs.
pub(crate) struct World {
    pub(crate) notes: Notes,
    pub(crate) classes: Classes,
}

/// Makes the app of a set-up.
pub(crate) fn app(world: &Arc<World>, setup: &Value) -> App {
    let mut app = App::new(routes(world, setup, "app"));
    for blueprint in list(&setup["blueprints"]) {
        if blueprint["parent"].is_string() {
            continue;
        }
        let built = build_blueprint(world, setup, blueprint);
        let prefix = text(&blueprint["prefix"]);
        match blueprint["register"].as_array() {
            Some(registrations) => {
                for registration in registrations {
                    let prefix = registration["prefix"].as_str().unwrap_or(prefix);
                    let name = registration["as"]
                        .as_str()
                        .unwrap_or(text(&blueprint["name"]));
                    app = app.register_as(built.clone(), name, prefix);
                }
            }
            None => app = app.register(built, prefix),
        }
    }
    for handler in list(&setup["handlers"]) {
        if text(&handler["scope"]) == "app" {
            let function = handler_function(world, handler);
            app = match &handler["on"] {
                Value::Number(code) => app.error_handler(code_of(code), function),
                name if text(name) == "Exception" => app.error_handler_for(function),
                name => app.error_handler_for_kind(world.classes.kind(text(name)), function),
            };
        }
    }
    for hook in hooks(setup, "app") {
        app = match text(&hook["when"]) {
            "before_request" => app.before_request(before_function(world, hook)),
            "after_request" => app.after_request(after_function(world, hook)),
            "teardown_request" => app.teardown_request(teardown_function(world, hook)),
            other => panic!("no hook {other}"),
        };
    }
    let notes = world.notes.clone();
    let app = app.on_unhandled(move |failure| notes.signal(failure.error().kind_name()));
    configure(app, &setup["config"])
}

/// Flask's settings, and those of ours that bring Flask's way back.
pub(crate) fn configure(app: App, config: &Value) -> App {
    app.configure(|settings| {
        settings.set("REPORT_SERVER_ERRORS", false);
        settings.set("NEGOTIATE_ERROR_PAGES", false);
        for (key, value) in config.as_object().into_iter().flatten() {
            settings.set(key.clone(), value.clone());
        }
    })
}

fn code_of(code: &serde_json::Number) -> u16 {
    u16::try_from(code.as_u64().expect("codes are numbers")).expect("codes are small")
}

fn hooks<'a>(setup: &'a Value, scope: &'a str) -> impl Iterator<Item = &'a Value> {
    list(&setup["hooks"])
        .iter()
        .filter(move |hook| text(&hook["scope"]) == scope)
}

fn build_blueprint(world: &Arc<World>, setup: &Value, blueprint: &Value) -> Blueprint {
    let name = text(&blueprint["name"]);
    let scope = match blueprint["parent"].as_str() {
        Some(parent) => format!("{parent}.{name}"),
        None => name.to_owned(),
    };
    let mut built = Blueprint::new(name, routes(world, setup, &scope));
    for handler in list(&setup["handlers"]) {
        if text(&handler["scope"]) != scope {
            continue;
        }
        let function = handler_function(world, handler);
        let is_wide = text(&handler["how"]) == "app_errorhandler";
        built = match (&handler["on"], is_wide) {
            (Value::Number(code), false) => built.error_handler(code_of(code), function),
            (Value::Number(code), true) => built.app_error_handler(code_of(code), function),
            (class, false) if text(class) == "Exception" => built.error_handler_for(function),
            (class, true) if text(class) == "Exception" => built.app_error_handler_for(function),
            (class, false) => {
                built.error_handler_for_kind(world.classes.kind(text(class)), function)
            }
            (class, true) => {
                built.app_error_handler_for_kind(world.classes.kind(text(class)), function)
            }
        };
    }
    for hook in hooks(setup, &scope) {
        built = match text(&hook["when"]) {
            "before_request" => built.before_request(before_function(world, hook)),
            "after_request" => built.after_request(after_function(world, hook)),
            "teardown_request" => built.teardown_request(teardown_function(world, hook)),
            other => panic!("no hook {other}"),
        };
    }
    for child in list(&setup["blueprints"]) {
        if child["parent"].as_str() == Some(scope.as_str()) {
            let prefix = text(&child["prefix"]).to_owned();
            built = built.register(build_blueprint(world, setup, child), prefix);
        }
    }
    built
}

/// The routes of a scope. Flask's own OPTIONS answers and slash redirects are routes here, as a
/// user of axum would write them.
fn routes(world: &Arc<World>, setup: &Value, scope: &str) -> Router {
    let mut methods: HashMap<&str, (MethodRouter, Vec<&str>)> = HashMap::new();
    for route in list(&setup["routes"]) {
        if text(&route["scope"]) != scope {
            continue;
        }
        let rule = text(&route["rule"]);
        let entry = methods.entry(rule).or_default();
        let route_methods = match route["methods"].as_array() {
            Some(methods) => methods.iter().filter_map(Value::as_str).collect(),
            None => vec!["GET"],
        };
        for method in route_methods {
            entry.1.push(method);
            let filter = MethodFilter::try_from(method.parse::<Method>().expect("a method"))
                .expect("a usual method");
            entry.0 = std::mem::take(&mut entry.0).on(filter, view(world, route));
        }
    }
    let mut router = Router::new();
    for (rule, (mut method_router, mut allowed)) in methods {
        if !allowed.contains(&"OPTIONS") {
            if allowed.contains(&"GET") {
                allowed.push("HEAD");
            }
            allowed.push("OPTIONS");
            let allow = HeaderValue::from_str(&allowed.join(", ")).expect("methods are plain");
            method_router = method_router.merge(on(MethodFilter::OPTIONS, move || async move {
                ([(ALLOW, allow)], html(String::new()))
            }));
        }
        if let Some(bare) = rule.strip_suffix('/')
            && !bare.is_empty()
        {
            router = router.route(&encode(bare), axum::routing::any(slash_redirect));
        }
        router = router.route(&encode(rule), method_router);
    }
    if scope == "app" {
        router = router.fallback(|request: Request| async move {
            if request.uri().path().contains("//") {
                return slash_redirect(request).await;
            }
            StatusCode::NOT_FOUND.into_response()
        });
    }
    router
}

/// Redirects as Flask does: to the path with its slash, or without doubled ones.
async fn slash_redirect(request: Request) -> Response {
    let mut path = request.uri().path().to_owned();
    if path.contains("//") {
        while path.contains("//") {
            path = path.replace("//", "/");
        }
    } else {
        path.push('/');
    }
    if let Some(query) = request.uri().query() {
        path = format!("{path}?{query}");
    }
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let target = format!("http://{host}{path}");
    let body = format!(
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n\
         <p>You should be redirected automatically to the target URL: <a href=\"{target}\">{target}</a>. \
         If not, click the link.\n"
    );
    (
        StatusCode::PERMANENT_REDIRECT,
        [(LOCATION, target)],
        html(body),
    )
        .into_response()
}

/// Axum matches paths as they were sent.
fn encode(rule: &str) -> String {
    let mut encoded = String::new();
    for byte in rule.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn view(
    world: &Arc<World>,
    route: &Value,
) -> impl Fn(Request) -> Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>
+ Clone
+ Send
+ Sync
+ 'static {
    let world = Arc::clone(world);
    let rule = text(&route["rule"]).to_owned();
    let action = Arc::new(route["do"].clone());
    move |request| {
        let world = Arc::clone(&world);
        let rule = rule.clone();
        let action = Arc::clone(&action);
        Box::pin(async move {
            world.notes.event(format!("view:{rule}"));
            act(&world, &action, request).await
        })
    }
}

/// Does what a view is told to.
async fn act(world: &World, action: &Value, request: Request) -> Result<Response, Error> {
    let mut action = action;
    while let Some(log) = action.get("log") {
        let message = text(&log["message"]);
        match text(&log["level"]) {
            "DEBUG" => tracing::debug!(target: "case", "{message}"),
            "INFO" => tracing::info!(target: "case", "{message}"),
            "WARNING" => tracing::warn!(target: "case", "{message}"),
            _ => tracing::error!(target: "case", "{message}"),
        }
        action = &action["then"];
    }
    if action.get("raise").is_some() {
        return Err(world.classes.raise(action));
    }
    if action.get("abort").is_some() {
        return Err(world.classes.abort(action));
    }
    if let Some(response) = action.get("abort_response") {
        return backstop::abort(ready_response(response));
    }
    if let Some(name) = action["return_error"].as_str() {
        return Ok(world.classes.http_error(name, action).into_page());
    }
    if let Some(chunks) = action["stream"].as_array() {
        let chunks = chunks.iter().map(|chunk| text(chunk).to_owned()).collect();
        let end = match action.get("then") {
            Some(then) if then.get("raise").is_some() => Some(world.classes.raise(then)),
            Some(then) if then.get("abort").is_some() => Some(world.classes.abort(then)),
            _ => None,
        };
        let body = Body::new(Chunks { chunks, end });
        return Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response());
    }
    if let Some(key) = action["read_form"].as_str() {
        let form = extract::Form::<HashMap<String, String>>::from_request(request, &()).await?;
        return match form.0.get(key) {
            Some(value) => Ok(html(value.clone())),
            None => Err(missing_key(world, key)),
        };
    }
    if let Some(key) = action["read_query"].as_str() {
        let query = axum::extract::Query::<HashMap<String, String>>::try_from_uri(request.uri())?;
        return match query.0.get(key) {
            Some(value) => Ok(html(value.clone())),
            None => Err(missing_key(world, key)),
        };
    }
    if let Some(key) = action["read_file"].as_str() {
        return Err(missing_key(world, key));
    }
    if action.get("read_json").is_some() {
        let json = extract::Json::<Value>::from_request(request, &()).await?;
        return Ok(axum::Json(json!({"got": json.0})).into_response());
    }
    if action.get("read_body").is_some() {
        let body = extract::Bytes::from_request(request, &()).await?;
        return Ok(html(body.0.len().to_string()));
    }
    Ok(reply(action, |template| template.to_owned()))
}

fn missing_key(world: &World, key: &str) -> Error {
    let kind = world.classes.kind("BadRequestKeyError").clone();
    Error::from(HttpError::of(kind).detail(format!("KeyError: '{key}'")))
}

/// An answer as the action words it.
fn reply(action: &Value, fill: impl Fn(&str) -> String) -> Response {
    let mut response = if let Some(template) = action["reply"].as_str() {
        html(fill(template))
    } else if let Some(value) = action.get("reply_json").or(action.get("reply_value")) {
        axum::Json(fill_value(value, &fill)).into_response()
    } else {
        panic!("no answer in {action}")
    };
    if let Some(status) = action["status"].as_u64() {
        *response.status_mut() = status_of(status);
    }
    add_headers(&mut response, action);
    response
}

fn fill_value(value: &Value, fill: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(template) => Value::String(fill(template)),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), fill_value(value, fill)))
            .collect(),
        Value::Array(values) => values.iter().map(|value| fill_value(value, fill)).collect(),
        other => other.clone(),
    }
}

pub(crate) fn ready_response(response: &Value) -> Response {
    let mut ready = html(text(&response["text"]).to_owned());
    if let Some(status) = response["status"].as_u64() {
        *ready.status_mut() = status_of(status);
    }
    add_headers(&mut ready, response);
    ready
}

fn status_of(status: u64) -> StatusCode {
    u16::try_from(status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .expect("a status")
}

fn add_headers(response: &mut Response, action: &Value) {
    for (name, value) in pairs(&action["headers"]) {
        let name: HeaderName = name.parse().expect("a header's name");
        let value = HeaderValue::from_str(&value).expect("a header's value");
        response.headers_mut().insert(name, value);
    }
}

fn html(text: String) -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
}

pub(crate) fn handler_function(
    world: &Arc<World>,
    handler: &Value,
) -> impl Fn(Caught) -> Result<Response, Error> + Clone + Send + Sync + 'static {
    let world = Arc::clone(world);
    let name = match handler["label"].as_str() {
        Some(label) => label.to_owned(),
        None => {
            let on = match &handler["on"] {
                Value::String(class) => class.clone(),
                code => code.to_string(),
            };
            format!("{}:{on}", text(&handler["scope"]))
        }
    };
    let action = Arc::new(handler["do"].clone());
    move |e: Caught| {
        world
            .notes
            .event(format!("handler:{name}:{}", e.kind_name()));
        handle(&world, &action, e)
    }
}

fn handle(world: &World, action: &Value, e: Caught) -> Result<Response, Error> {
    if action.get("raise").is_some() {
        return Err(world.classes.raise(action));
    }
    if action.get("abort").is_some() {
        return Err(world.classes.abort(action));
    }
    if action.get("pass_through").is_some() {
        return Ok(e.into_response());
    }
    if let Some(change) = action.get("response_from_error") {
        let response = e.default_response();
        let (mut parts, _) = response.into_parts();
        let value = fill_value(&change["json"], &|template: &str| fill(&e, template));
        parts
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(Response::from_parts(parts, Body::from(value.to_string())));
    }
    let mut response = reply(action, |template| fill(&e, template));
    if let Some(field) = action["status_from_error"].as_str() {
        let status = field_of(&e, field).as_u64().expect("the field is a status");
        *response.status_mut() = status_of(status);
    }
    Ok(response)
}

fn field_of(e: &Caught, name: &str) -> Value {
    e.downcast_ref::<PlainError>()
        .and_then(|error| error.fields.get(name).cloned())
        .unwrap_or_default()
}

/// Fills a template with what the handler sees of the error and the request.
pub(crate) fn fill(e: &Caught, template: &str) -> String {
    let is_http = e.code().is_some() || e.is::<HttpError>();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let replacements = [
        ("{class}", e.kind_name().to_owned()),
        (
            "{code}",
            e.code().map_or("None".to_owned(), |code| code.to_string()),
        ),
        ("{name}", or_none(is_http.then(|| e.name().to_owned()))),
        (
            "{description}",
            if is_http {
                e.description().to_owned()
            } else {
                "None".to_owned()
            },
        ),
        ("{message}", e.to_string()),
        (
            "{original}",
            or_none(e.original().map(|error| error.kind_name().to_owned())),
        ),
        (
            "{original_message}",
            or_none(e.original().map(ToString::to_string)),
        ),
        ("{path}", e.path()),
        ("{method}", e.method().to_string()),
        ("{blueprint}", or_none(e.blueprint().map(str::to_owned))),
        (
            "{endpoint_known}",
            if e.route().is_some() { "yes" } else { "no" }.to_owned(),
        ),
    ];
    let mut filled = template.to_owned();
    for (placeholder, value) in replacements {
        filled = filled.replace(placeholder, &value);
    }
    while let Some((before, rest)) = filled.split_once("{field:") {
        let (name, after) = rest.split_once('}').expect("a placeholder ends");
        let value = match field_of(e, name) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        filled = format!("{before}{value}{after}");
    }
    filled
}

fn before_function(
    world: &Arc<World>,
    hook: &Value,
) -> impl Fn() -> Result<Option<Response>, Error> + Clone + Send + Sync + 'static {
    let world = Arc::clone(world);
    let hook = Arc::new(hook.clone());
    move || {
        world
            .notes
            .event(format!("before:{}", text(&hook["label"])));
        fail(&world, &hook["do"])?;
        Ok(hook["do"]
            .get("reply")
            .map(|_| reply(&hook["do"], |template| template.to_owned())))
    }
}

fn after_function(
    world: &Arc<World>,
    hook: &Value,
) -> impl Fn(Response) -> Result<Response, Error> + Clone + Send + Sync + 'static {
    let world = Arc::clone(world);
    let hook = Arc::new(hook.clone());
    let ran = Arc::new(AtomicBool::new(false));
    move |mut response: Response| {
        let status = response.status().as_u16();
        world
            .notes
            .event(format!("after:{}:{status}", text(&hook["label"])));
        let action = &hook["do"];
        if let Some(failure) = action.get("fail_first")
            && !ran.swap(true, Ordering::Relaxed)
        {
            fail(&world, failure)?;
        }
        fail(&world, action)?;
        if let Some(header) = action.get("header") {
            let name: HeaderName = text(&header[0]).parse().expect("a header's name");
            let value = HeaderValue::from_str(text(&header[1])).expect("a header's value");
            response.headers_mut().append(name, value);
        }
        Ok(response)
    }
}

fn teardown_function(
    world: &Arc<World>,
    hook: &Value,
) -> impl Fn(Option<&Failure>) -> Result<(), Error> + Send + Sync + 'static {
    let world = Arc::clone(world);
    let hook = Arc::new(hook.clone());
    move |failure: Option<&Failure>| {
        let class = failure.map_or("none", |failure| failure.error().kind_name());
        world
            .notes
            .event(format!("teardown:{}:{class}", text(&hook["label"])));
        fail(&world, &hook["do"])
    }
}

fn fail(world: &World, action: &Value) -> Result<(), Error> {
    if action.get("raise").is_some() {
        return Err(world.classes.raise(action));
    }
    if action.get("abort").is_some() {
        return Err(world.classes.abort(action));
    }
    Ok(())
}

/// A body that is sent in pieces and may fail.
struct Chunks {
    chunks: std::collections::VecDeque<String>,
    end: Option<Error>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(chunk.into()))));
        }
        Poll::Ready(self.end.take().map(|error| Err(error.into_boxed())))
    }
}
