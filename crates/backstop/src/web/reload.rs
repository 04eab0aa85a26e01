//! The reloader: rebuild and restart on a change.
//!
//! The process that the developer starts becomes the *supervisor*: it opens the socket, starts
//! the program again as its child, and watches files.
//! The child gets the socket as its standard input and keeps a control connection to the
//! supervisor; so connections wait in the socket while one child makes room for the next.
//! While a build is broken, the last good one goes on, and browsers are shown the compiler's words.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child as Process, Command};
use tokio::sync::watch;

use crate::stacktrace::Html;
use crate::web::serve::asked_to_end;

/// Tells a child where its supervisor listens, and the word by which it is known.
const VARIABLE: &str = "BACKSTOP_RELOADER";

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(500);

/// A child that does not end in this time after it was told to is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A project with more files than this has something in it that is no source.
const FILES_MAX: usize = 50_000;

/// A deeper tree is a loop of links.
const DEPTH_MAX: usize = 32;

/// Of the compiler's words the first are the cause of the others.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;

/// A longer line on the control connection is not from our supervisor.
const CONTROL_LINE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Files that make a difference to a program; data that it writes itself must not restart it.
const EXTENSIONS: [&str; 10] = [
    "rs", "toml", "html", "jinja", "j2", "css", "js", "sql", "yaml", "yml",
];

/// The reloader's own addresses begin like this.
const OWN_PATH: &str = "/_backstop/reloader/continue";

/// The cookie that says which broken build one does not want to read of again.
const COOKIE_NAME: &str = "backstop_last_good";

/// What is watched beside the project, and how it is built.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    pub(crate) extra: Vec<PathBuf>,
    pub(crate) excluded: Vec<String>,
    pub(crate) command: Option<Vec<String>>,
}

/// Serves through children until one ends by itself, or the process is asked to end.
pub(crate) async fn supervise(listener: StdListener, watching: Watching) -> io::Result<i32> {
    let project = Project::find(watching)?;
    let mut supervisor = Supervisor::start(listener, project).await?;
    let asked = asked_to_end()?;
    let outcome = tokio::select! {
        outcome = supervisor.watch() => outcome,
        () = asked => Ok(0),
    };
    supervisor.stop_child().await;
    supervisor.project.forget_last_good();
    outcome
}

struct Supervisor {
    listener: StdListener,
    control: TcpListener,
    word: String,
    project: Project,
    seen: Files,
    child: Process,
    /// The connection to the child, once it serves.
    connection: Option<TcpStream>,
    /// The child runs the build before the newest.
    is_last_good: bool,
    /// Why the newest build does not run.
    broken: Option<String>,
}

impl Supervisor {
    async fn start(listener: StdListener, project: Project) -> io::Result<Supervisor> {
        let control = TcpListener::bind("127.0.0.1:0").await?;
        let word = crate::report::new_event_id().to_string();
        let seen = project.files();
        project.remember_good();
        eprintln!(" * Reloading on changes below {}", project.root.display());
        let child = spawn(&project.program, &listener, &control, &word)?;
        Ok(Supervisor {
            listener,
            control,
            word,
            project,
            seen,
            child,
            connection: None,
            is_last_good: false,
            broken: None,
        })
    }

    /// Returns the code with which the program has ended by itself.
    async fn watch(&mut self) -> io::Result<i32> {
        loop {
            tokio::select! {
                ended = self.child.wait() => {
                    let code = ended?.code().unwrap_or(1);
                    if self.connection.is_some() || !self.fall_back(code)? {
                        return Ok(code);
                    }
                }
                accepted = self.control.accept() => {
                    if let Ok((stream, _)) = accepted {
                        self.greet(stream).await;
                    }
                }
                () = tokio::time::sleep(INTERVAL) => self.look().await?,
            }
        }
    }

    /// Rebuilds and restarts if a file has changed.
    async fn look(&mut self) -> io::Result<()> {
        let now = self.project.files();
        let Some(changed) = self.seen.first_difference(&now) else {
            return Ok(());
        };
        eprintln!(" * Detected change in '{}', reloading", changed.display());
        self.seen = now;
        match self.project.build().await {
            Ok(()) => {
                self.broken = None;
                self.restart().await
            }
            Err(words) => {
                eprint!("{words}");
                eprintln!(" * The build is broken; the last good one goes on");
                self.broken = Some(words);
                self.tell().await;
                Ok(())
            }
        }
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.stop_child().await;
        self.is_last_good = false;
        self.child = self.spawn(&self.project.program)?;
        Ok(())
    }

    /// A new build that ends before it serves makes room for the last good one.
    fn fall_back(&mut self, code: i32) -> io::Result<bool> {
        let last_good = self.project.last_good();
        if self.is_last_good || self.broken.is_some() || !last_good.is_file() {
            return Ok(false);
        }
        // The first start has no earlier build to fall back to.
        if !self.project.has_rebuilt {
            return Ok(false);
        }
        eprintln!(
            " * The new build ended with code {code} before it served; the last good one goes on"
        );
        self.broken = Some(format!(
            "The program was built, but ended with code {code} before it served.\n\
             What it said is in the terminal.\n"
        ));
        self.is_last_good = true;
        self.child = self.spawn(&last_good)?;
        Ok(true)
    }

    fn spawn(&self, program: &Path) -> io::Result<Process> {
        spawn(program, &self.listener, &self.control, &self.word)
    }

    /// Takes the control connection of the child, which now serves.
    async fn greet(&mut self, stream: TcpStream) {
        let mut stream = stream;
        let mut word = vec![0; self.word.len() + 1];
        let read = tokio::time::timeout(STOP_TIMEOUT, stream.read_exact(&mut word)).await;
        // Anybody on this machine can connect; only the child knows the word.
        if matches!(read, Ok(Ok(_))) && word.strip_suffix(b"\n") == Some(self.word.as_bytes()) {
            self.connection = Some(stream);
            if !self.is_last_good {
                self.project.remember_good();
            }
            self.tell().await;
        }
    }

    async fn tell(&mut self) {
        let broken = self.broken.clone();
        self.send(&json!({ "broken": broken })).await;
    }

    async fn send(&mut self, message: &Value) {
        if let Some(connection) = &mut self.connection {
            // A child that does not listen has ended, which `wait` tells.
            let _sent = connection
                .write_all(format!("{message}\n").as_bytes())
                .await;
        }
    }

    async fn stop_child(&mut self) {
        self.send(&json!({"stop": true})).await;
        let ready = self.connection.take().is_some();
        let patience = if ready { STOP_TIMEOUT } else { Duration::ZERO };
        if tokio::time::timeout(patience, self.child.wait())
            .await
            .is_err()
        {
            // One that has ended meanwhile cannot be killed, which is fine.
            let _killed = self.child.kill().await;
        }
    }
}

fn spawn(
    program: &Path,
    listener: &StdListener,
    control: &TcpListener,
    word: &str,
) -> io::Result<Process> {
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, format!("{} {word}", control.local_addr()?))
        .stdin(inherited(listener)?)
        .kill_on_drop(true);
    #[cfg(unix)]
    command.arg0(
        std::env::args_os()
            .next()
            .unwrap_or_else(|| OsString::from(program)),
    );
    command.spawn()
}

#[cfg(unix)]
fn inherited(listener: &StdListener) -> io::Result<Stdio> {
    Ok(Stdio::from(std::os::fd::OwnedFd::from(
        listener.try_clone()?,
    )))
}

#[cfg(not(unix))]
fn inherited(_: &StdListener) -> io::Result<Stdio> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "the reloader hands sockets on, which works on Unix only; use use_reloader(false)",
    ))
}

#[cfg(unix)]
fn inherited_listener() -> io::Result<StdListener> {
    use std::os::fd::AsFd;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(StdListener::from(socket))
}

#[cfg(not(unix))]
fn inherited_listener() -> io::Result<StdListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What is built and watched.
struct Project {
    /// The program as it was started; a build puts the new one there.
    program: PathBuf,
    root: PathBuf,
    /// `None`: nothing is built, a change only restarts.
    command: Option<Vec<OsString>>,
    extra: Vec<PathBuf>,
    excluded: Vec<String>,
    has_rebuilt: bool,
}

impl Project {
    fn find(watching: Watching) -> io::Result<Project> {
        let program = std::env::current_exe()?;
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let here = std::env::current_dir()?;
        let package = manifest.or_else(|| outermost_or_nearest(&here, false));
        let root = package
            .as_deref()
            .and_then(|package| outermost_or_nearest(package, true))
            .or_else(|| package.clone())
            .unwrap_or(here);
        let command = match watching.command {
            Some(words) => Some(words.into_iter().map(OsString::from).collect()),
            None => package.and_then(|package| cargo_build(&package, &program)),
        };
        Ok(Project {
            program,
            root,
            command,
            extra: watching.extra,
            excluded: watching.excluded,
            has_rebuilt: false,
        })
    }

    async fn build(&mut self) -> Result<(), String> {
        let Some((program, arguments)) = self.command.as_ref().and_then(|c| c.split_first()) else {
            return Ok(());
        };
        let mut command = Command::new(program);
        // What `cargo run` tells the program about itself must not reach the next build: build
        // scripts that read it would run again, and what depends on them.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_cargo_run(name)) {
            command.env_remove(name);
        }
        let spawned = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut build = spawned
            .map_err(|error| format!("cannot run {}: {error}\n", program.to_string_lossy()))?;
        let mut words = Vec::new();
        if let Some(mut said) = build.stderr.take() {
            // What cannot be read of it is missing from the page, nothing else.
            let _read = (&mut said)
                .take(OUTPUT_BYTES_MAX)
                .read_to_end(&mut words)
                .await;
            // The rest has to go somewhere, or the compiler waits for ever.
            let _rest = tokio::io::copy(&mut said, &mut tokio::io::sink()).await;
        }
        let succeeded = build.wait().await.is_ok_and(|status| status.success());
        if succeeded {
            self.has_rebuilt = true;
            return Ok(());
        }
        Err(String::from_utf8_lossy(&words).into_owned())
    }

    /// Keeps the program's file under another name: a build replaces it.
    fn remember_good(&self) {
        self.forget_last_good();
        // Without the link there is nothing to fall back to, which is told when it matters.
        let _linked = fs::hard_link(&self.program, self.last_good());
    }

    fn forget_last_good(&self) {
        // It may never have been there.
        let _removed = fs::remove_file(self.last_good());
    }

    fn last_good(&self) -> PathBuf {
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let name = format!(".{name}.last-good-{}", std::process::id());
        self.program.with_file_name(name)
    }

    fn files(&self) -> Files {
        let mut files = Files::default();
        self.walk(&self.root, 0, true, &mut files);
        for extra in &self.extra {
            if extra.is_dir() {
                self.walk(extra, 0, false, &mut files);
            } else if !self.is_excluded(extra) {
                files.add(extra);
            }
        }
        files
    }

    fn walk(&self, folder: &Path, depth: usize, only_sources: bool, files: &mut Files) {
        // A folder that cannot be read has nothing that could be built.
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let uninteresting = name.starts_with('.') || name == "target" || name == "node_modules";
            if kind.is_dir() && !uninteresting && depth < DEPTH_MAX {
                self.walk(&path, depth + 1, only_sources, files);
            } else if kind.is_file()
                && (!only_sources || is_source(&path))
                && !self.is_excluded(&path)
            {
                files.add(&path);
            }
        }
    }

    fn is_excluded(&self, path: &Path) -> bool {
        let whole = path.to_string_lossy();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.excluded
            .iter()
            .any(|pattern| matches(pattern, &whole) || matches(pattern, &name))
    }
}

fn is_of_cargo_run(name: &OsStr) -> bool {
    let starts = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
    ];
    let name = name.to_string_lossy();
    name == "CARGO" || starts.iter().any(|start| name.starts_with(start))
}

fn is_source(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// The folder with the nearest manifest, or with the workspace's.
fn outermost_or_nearest(from: &Path, workspace: bool) -> Option<PathBuf> {
    from.ancestors()
        .find(
            |folder| match fs::read_to_string(folder.join("Cargo.toml")) {
                Ok(manifest) => {
                    !workspace || manifest.lines().any(|line| line.trim() == "[workspace]")
                }
                Err(_) => false,
            },
        )
        .map(Path::to_owned)
}

/// The command that builds the running program again, as its place tells.
fn cargo_build(package: &Path, program: &Path) -> Option<Vec<OsString>> {
    let name = program.file_stem()?.to_owned();
    let folder = program.parent()?;
    let is_example = folder.file_name()? == "examples";
    let profile = if is_example { folder.parent()? } else { folder };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command: Vec<OsString> = vec![cargo, "build".into(), "--color=never".into()];
    command.push("--manifest-path".into());
    command.push(package.join("Cargo.toml").into());
    command.push(if is_example {
        "--example".into()
    } else {
        "--bin".into()
    });
    command.push(name);
    match profile.file_name()?.to_str()? {
        "debug" => {}
        "release" => command.push("--release".into()),
        other => command.extend(["--profile".into(), OsString::from(other)]),
    }
    Some(command)
}

/// Says whether a text matches a pattern of plain characters, `*` and `?`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            // The last star takes one character more.
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Files, with what changes when they do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Files {
    fn add(&mut self, path: &Path) {
        if self.0.len() < FILES_MAX
            && let Ok(metadata) = fs::metadata(path)
        {
            let state = (metadata.modified().ok(), metadata.len());
            self.0.insert(path.to_owned(), state);
        }
    }

    /// The first file that is new, changed or gone.
    fn first_difference(&self, now: &Files) -> Option<PathBuf> {
        let changed = now
            .0
            .iter()
            .find(|(path, state)| self.0.get(*path) != Some(*state));
        let gone = || self.0.keys().find(|path| !now.0.contains_key(*path));
        changed.map(|(path, _)| path).or_else(gone).cloned()
    }
}

/// This process as the child of a supervisor.
pub(crate) struct Child {
    supervisor: SocketAddr,
    word: String,
}

impl Child {
    pub(crate) fn of_this_process() -> Option<Child> {
        Child::read(&std::env::var(VARIABLE).ok()?)
    }

    fn read(text: &str) -> Option<Child> {
        let (address, word) = text.split_once(' ')?;
        Some(Child {
            supervisor: address.parse().ok()?,
            word: word.to_owned(),
        })
    }

    /// The socket that the supervisor has opened.
    pub(crate) fn listener(&self) -> io::Result<TcpListener> {
        let listener = inherited_listener()?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Tells the supervisor that this process serves; returns the router with what browsers are
    /// shown while a build is broken, and a future that ends when this process has to.
    pub(crate) async fn around(
        self,
        app: Router,
    ) -> io::Result<(Router, impl Future<Output = ()>)> {
        let mut stream = TcpStream::connect(self.supervisor).await?;
        stream
            .write_all(format!("{}\n", self.word).as_bytes())
            .await?;
        let broken = Arc::new(RwLock::new(None));
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(listen(stream, Arc::clone(&broken), stop));
        let app = Router::new()
            .fallback_service(app)
            .layer(middleware::from_fn(move |request: Request, next: Next| {
                let broken = Arc::clone(&broken);
                async move { answer(&broken, request, next).await }
            }));
        let told_to_end = async move {
            // Without a sender the supervisor is gone, and the child should be, too.
            let _told = stopped.wait_for(|stop| *stop).await;
        };
        Ok((app, told_to_end))
    }
}

type Broken = RwLock<Option<Arc<str>>>;

async fn listen(stream: TcpStream, broken: Arc<Broken>, stop: watch::Sender<bool>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = (&mut reader)
            .take(CONTROL_LINE_BYTES_MAX)
            .read_line(&mut line)
            .await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        if message["stop"] == true {
            break;
        }
        let words = message["broken"].as_str().map(Arc::from);
        *broken.write().unwrap_or_else(PoisonError::into_inner) = words;
    }
    // Nobody waits any more if the server has ended by itself.
    let _told = stop.send(true);
}

async fn answer(broken: &Broken, request: Request, next: Next) -> Response {
    let words = broken
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let Some(words) = words else {
        return next.run(request).await;
    };
    let near = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let number = number_of(&words);
    if near && request.uri().path() == OWN_PATH {
        return go_on(request.uri().query().unwrap_or_default(), &number);
    }
    let is_page = request.method() == Method::GET && wants_a_page(request.headers());
    if !near || !is_page || is_known(request.headers(), &number) {
        return next.run(request).await;
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    page(&words, path)
}

/// A browser that opens an address, not a picture or a script of a page.
fn wants_a_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let accepts = text(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/html"));
    accepts && text("sec-fetch-dest").is_none_or(|dest| dest == "document")
}

/// Has the reader chosen to go on with the last good build, for this very error?
fn is_known(headers: &HeaderMap, number: &str) -> bool {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .any(|(name, value)| name == COOKIE_NAME && value == number)
}

fn number_of(words: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn go_on(query: &str, number: &str) -> Response {
    let path = query.strip_prefix("to=").unwrap_or("/");
    // Only a path of this server: `//host` and `/\host` would leave it.
    let stays = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let cookie = format!("{COOKIE_NAME}={number}; Path=/; HttpOnly; SameSite=Strict");
    let location = if stays { path } else { "/" };
    for (name, value) in [(LOCATION, location), (SET_COOKIE, cookie.as_str())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn page(words: &str, path: &str) -> Response {
    let mut html = Html::new();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"refresh\" content=\"2\"><title>The build is broken</title><style>");
    html.raw(include_str!("debugger.css"));
    html.raw("</style></head><body><header class=\"top\"><div class=\"in\"><p class=\"what\"><b>Reloader</b></p><h1>The build is broken</h1><p class=\"message\">The last good build goes on. This page looks again every two seconds.</p></div></header><main class=\"in\"><section class=\"more built\"><pre>");
    html.text(words);
    html.raw("</pre></section><p><a href=\"");
    html.text(&format!("{OWN_PATH}?to={path}"));
    html.raw("\">Go on with the last good build</a></p></main></body></html>");
    let mut response = Response::new(Body::from(html.finish()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*.snap", "/a/b.snap", true),
            ("*.snap", "/a/b.snap.new", false),
            ("/a/*/c?.rs", "/a/x/y/c1.rs", true),
            ("settings.yaml", "settings.yaml", true),
            ("", "", true),
            ("", "x", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_build_command_follows_from_the_program() {
        let check = |program: &str, expected: &str| {
            let command = cargo_build(Path::new("/p"), Path::new(program)).unwrap();
            let words: Vec<_> = command[1..]
                .iter()
                .map(|word| word.to_str().unwrap())
                .collect();
            let expected = format!("build --color=never --manifest-path /p/Cargo.toml {expected}");
            assert_eq!(words.join(" "), expected);
        };
        check("/t/debug/shop", "--bin shop");
        check("/t/release/shop", "--bin shop --release");
        check("/t/debug/examples/hello", "--example hello");
        check("/t/profiling/shop", "--bin shop --profile profiling");
    }

    #[test]
    fn going_on_never_leaves_the_server() {
        let to = |query: &str| {
            let response = go_on(query, "1");
            response.headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(to("to=/cart?x=1"), "/cart?x=1");
        assert_eq!(to("to=//evil.example"), "/");
        assert_eq!(to("to=/\\evil.example"), "/");
        assert_eq!(to("to=https://evil.example"), "/");
    }

    #[test]
    fn changes_and_deletions_are_seen() {
        let file = |time: u64| (Some(SystemTime::UNIX_EPOCH + Duration::from_secs(time)), 1);
        let before = Files(BTreeMap::from([
            ("a".into(), file(1)),
            ("b".into(), file(1)),
        ]));
        let changed = Files(BTreeMap::from([
            ("a".into(), file(1)),
            ("b".into(), file(2)),
        ]));
        let gone = Files(BTreeMap::from([("a".into(), file(1))]));
        assert_eq!(before.first_difference(&before), None);
        assert_eq!(before.first_difference(&changed), Some("b".into()));
        assert_eq!(before.first_difference(&gone), Some("b".into()));
        assert_eq!(gone.first_difference(&before), Some("b".into()));
    }
}
