//! Running a case: in process, over a socket, as registration calls, as a factory, as settings.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use backstop::{App, Blueprint, Caught, Extension, Propagated, SetupError};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;

use super::build::{self, World};
use super::capture::{Notes, Recorder};
use super::compare;
use super::errors::{Classes, list, pairs, text};

/// Runs a case and says what differs.
pub(crate) fn run(case: &Value, about: &Value) -> Result<(), String> {
    if text(&case["capture"]) == "stderr" {
        return captured(case, about);
    }
    if text(&case["mode"]) == "mail" {
        return super::mail::run(case, about);
    }
    let notes = Notes::default();
    let subscriber = tracing_subscriber::registry().with(Recorder(notes.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    crate::listen_on_this_thread();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            match text(&case["mode"]) {
                "app" => app(case, about, notes).await,
                "server" => server(case, about, notes).await,
                "setup" => setup(case).await,
                "factory" => factory(case, about, notes).await,
                "run" => super::plan::run(case),
                "config" => config(case),
                other => Err(format!("no way to run the mode {other}")),
            }
        })
    })
}

/// A case whose log is compared as text.
fn captured(case: &Value, about: &Value) -> Result<(), String> {
    let written = Written::default();
    let level = if case["setup"]["config"]["DEBUG"] == true {
        tracing::Level::DEBUG
    } else {
        tracing::Level::WARN
    };
    let subscriber = backstop::log::text_subscriber(level, written.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime starts");
    crate::listen_on_this_thread();
    let outcome = tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(app(case, about, Notes::default()))
    });
    outcome?;
    let bytes = written.0.lock().expect("nothing panics here").clone();
    let text: String = String::from_utf8_lossy(&bytes).into_owned();
    // Records of the library for developers are no part of the case.
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("DEBUG in backstop"))
        .collect();
    compare::stderr(&case["expected"], &lines.join("\n"))
}

/// A writer that keeps what is written.
#[derive(Clone, Default)]
struct Written(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nothing panics here").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn world(case: &Value, about: &Value, notes: &Notes) -> Arc<World> {
    Arc::new(World {
        notes: notes.clone(),
        classes: Classes::new(about, &case["setup"]),
    })
}

async fn app(case: &Value, about: &Value, notes: Notes) -> Result<(), String> {
    let world = world(case, about, &notes);
    let app = build::app(&world, &case["setup"]);
    let router = app.into_router().map_err(|error| error.to_string())?;
    let request = request(&case["request"]);
    let method = request.method().clone();
    let answer = Answer::of(send(router, request).await).await;
    compare::outcome(&case["expected"], &answer, &notes.take(), &method)
}

pub(crate) fn request(description: &Value) -> Request<Body> {
    let mut request = Request::builder()
        .method(text(&description["method"]))
        .uri(text(&description["path"]));
    let headers = pairs(&description["headers"]);
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request = request.header("Host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
        .body(Body::from(text(&description["body"]).to_owned()))
        .expect("a request")
}

pub(crate) async fn send(router: Router, request: Request<Body>) -> Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Class and text of the error that left the application.
    pub(crate) propagated: Option<(String, String)>,
    /// Whether the body arrived whole.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let propagated = parts.extensions.get::<Propagated>().map(|propagated| {
            let error = propagated.failure().error();
            (error.kind_name().to_owned(), error.to_string())
        });
        let collected = body.collect().await;
        let complete = collected.is_ok();
        let bytes = collected.map(|body| body.to_bytes()).unwrap_or_default();
        Self {
            status: parts.status.as_u16(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.as_str().to_owned(), value)
                })
                .collect(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
            propagated,
            complete,
        }
    }

    /// Reads what a server wrote.
    fn parse(raw: &[u8]) -> Result<Self, String> {
        let end = raw
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .ok_or("the server sent no complete head")?;
        let head = String::from_utf8_lossy(&raw[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok())
            .ok_or("the server sent no status")?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let rest = &raw[end + 4..];
        let is_chunked = headers
            .iter()
            .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let (body, complete) = if is_chunked {
            unchunk(rest)
        } else {
            (rest.to_vec(), true)
        };
        Ok(Self {
            status,
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            propagated: None,
            complete,
        })
    }
}

/// Takes a chunked body apart; without its last chunk it is not complete.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
            return (body, false);
        };
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else {
            return (body, false);
        };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else {
            return (body, false);
        };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
}

async fn server(case: &Value, about: &Value, notes: Notes) -> Result<(), String> {
    let world = world(case, about, &notes);
    let app = build::app(&world, &case["setup"]);
    let router = app.into_router().map_err(|error| error.to_string())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let serving = tokio::spawn(backstop::serve_until(
        listener,
        router,
        std::future::pending(),
    ));
    let raw = exchange(address, &case["request"])
        .await
        .map_err(|error| error.to_string())?;
    serving.abort();
    let mut answer = Answer::parse(&raw)?;
    answer
        .headers
        .retain(|(name, _)| !matches!(name.as_str(), "date" | "connection"));
    let method = text(&case["request"]["method"]).parse().expect("a method");
    compare::outcome(&case["expected"], &answer, &notes.take(), &method)
}

async fn exchange(address: std::net::SocketAddr, request: &Value) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let body = text(&request["body"]);
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
        text(&request["method"]),
        text(&request["path"])
    );
    for (name, value) in pairs(&request["headers"]) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = request["claim_length"]
        .as_u64()
        .unwrap_or(body.len() as u64);
    if length > 0 {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    stream
        .write_all(format!("{head}\r\n{body}").as_bytes())
        .await?;
    if request.get("claim_length").is_some() {
        // The client ends its request early; it still reads the answer.
        stream.shutdown().await?;
    }
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    Ok(raw)
}

/// Registration calls, one after the other.
async fn setup(case: &Value) -> Result<(), String> {
    let root = Router::new().route("/", axum::routing::get(|| async { "root" }));
    let mut app = App::new(root);
    let route = Router::new().route("/x", axum::routing::get(|| async { "x" }));
    let mut blueprint = Blueprint::new("bp", route);
    let expected = list(&case["expected"]["ops"]);
    for (op, expected) in list(&case["ops"]).iter().zip(expected) {
        let outcome = operate(&mut app, &mut blueprint, op).await;
        let result = match outcome {
            Ok(None) => json!({"ok": true}),
            Ok(Some((status, body))) => json!({"ok": true, "status": status, "body": body}),
            Err(refusal) => json!({"ok": false, "error_class": python_class(&refusal)}),
        };
        let mut expected = expected.clone();
        // Refusals are in our own words.
        if let Some(fields) = expected.as_object_mut() {
            fields.remove("message");
        }
        if result != expected {
            return Err(format!("{op}: {result} instead of {expected}"));
        }
    }
    Ok(())
}

fn python_class(refusal: &SetupError) -> &'static str {
    match refusal {
        SetupError::AlreadyBuilt(_) => "AssertionError",
        _ => "ValueError",
    }
}

async fn operate(
    app: &mut App,
    blueprint: &mut Blueprint,
    op: &Value,
) -> Result<Option<(u16, String)>, SetupError> {
    let handler = |e: Caught| async move { e };
    let on = op["on"].as_u64().and_then(|code| u16::try_from(code).ok());
    match text(&op["op"]) {
        "request" => {
            let request = request(&json!({"method": "GET", "path": op["path"]}));
            let answer = Answer::of(send(app.build()?, request).await).await;
            return Ok(Some((answer.status, answer.body)));
        }
        "register" => {
            let code = on.expect("a registration names a code");
            match text(&op["scope"]) {
                "app" => app.register_error_handler(code, handler)?,
                _ if text(&op["how"]) == "app_errorhandler" => {
                    *blueprint = blueprint.clone().app_error_handler(code, handler);
                }
                _ => blueprint.register_error_handler(code, handler)?,
            }
        }
        "register_blueprint" => {
            let prefix = op["prefix"].as_str().unwrap_or("/bp");
            let mut registered = blueprint.clone();
            if let Some(name) = op["name"].as_str().or(op["as"].as_str()) {
                registered = renamed(registered, name);
            }
            app.register_blueprint(registered, prefix)?;
        }
        "new_blueprint" => {
            let fresh: Blueprint = Blueprint::new(text(&op["name"]), Router::new());
            App::new(Router::new()).register_blueprint(fresh, "/fresh")?;
        }
        "add_route" => {
            let late = Router::new().route(text(&op["path"]), axum::routing::get(|| async {}));
            app.register_blueprint(Blueprint::new("late", late), "")?;
        }
        "add_hook" => match text(&op["when"]) {
            "before_request" => app.register_before_request(|| ())?,
            "after_request" => app.register_after_request(|response: Response| response)?,
            _ => app.register_teardown_request(|_| ())?,
        },
        other => panic!("no operation {other}"),
    }
    Ok(None)
}

fn renamed(blueprint: Blueprint, name: &str) -> Blueprint {
    blueprint.named(name)
}

/// One extension object for several apps of a factory.
struct Guard {
    description: Value,
    reported: Arc<std::sync::Mutex<Vec<String>>>,
    world: Arc<World>,
}

impl Extension for Guard {
    fn init_app<S: Clone + Send + Sync + 'static>(&self, app: App<S>) -> App<S> {
        let handler = &self.description["handler"];
        let kind = self.world.classes.kind(text(&handler["on"])).clone();
        let template = text(&handler["reply"]).to_owned();
        let key = text(&handler["status_key"]);
        let default = self.description["config_default"][key].as_u64();
        let status = app.config().get(key).and_then(Value::as_u64).or(default);
        let status = status
            .and_then(|status| u16::try_from(status).ok())
            .and_then(|status| StatusCode::from_u16(status).ok())
            .expect("a status");
        let reported = Arc::clone(&self.reported);
        let fails = self.description["listener_fails"] == true;
        app.error_handler_for_kind(&kind, move |e: Caught| {
            (status, axum::response::Html(build::fill(&e, &template)))
        })
        .on_unhandled(move |failure| {
            let class = failure.error().kind_name().to_owned();
            reported.lock().expect("nothing panics here").push(class);
            assert!(!fails, "listener broke");
        })
    }
}

async fn factory(case: &Value, about: &Value, notes: Notes) -> Result<(), String> {
    let world = world(case, about, &notes);
    let mut routers = Vec::new();
    let mut reported = Vec::new();
    for config in list(&case["apps"]) {
        let app = build::configure(build::app(&world, &case["setup"]), config);
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let guard = Guard {
            description: case["extension"].clone(),
            reported: Arc::clone(&seen),
            world: Arc::clone(&world),
        };
        let app = if config["skip_extension"] == true {
            app
        } else {
            app.init(&guard)
        };
        routers.push(app.into_router().map_err(|error| error.to_string())?);
        reported.push(seen);
    }
    let responses = list(&case["expected"]["responses"]);
    for (wanted, expected) in list(&case["requests"]).iter().zip(responses) {
        let index = usize::try_from(wanted[0].as_u64().unwrap_or_default()).unwrap_or_default();
        let (method, path) = text(&wanted[1]).split_once(' ').expect("method and path");
        let request = request(&json!({"method": method, "path": path}));
        let answer = Answer::of(send(routers[index].clone(), request).await).await;
        compare::answer_of_factory(expected, &answer, &notes.take())
            .map_err(|why| format!("{path}: {why}"))?;
    }
    // An app without the extension has no list of its own.
    let reported: Vec<Vec<String>> = reported
        .iter()
        .map(|seen| seen.lock().expect("nothing panics here").clone())
        .collect();
    let expected = &case["expected"]["reported"];
    let expected: Vec<Vec<String>> = serde_json::from_value(expected.clone()).unwrap_or_default();
    compare::equal("reported", &reported, &expected)
}

fn config(case: &Value) -> Result<(), String> {
    super::config::run(case)
}
