//! Serving: the accept loop, and `run`, the development server of Flask's page.
//!
//! The loop is our own because axum's swallows what fails below the application: requests that
//! are no HTTP, headers that are too large or too slow, clients that leave.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::{BoxError, Router};
use http::{Method, Request, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::web::app::App;
use crate::web::debugger::Debugger;
use crate::web::extract::is_disconnect;
use crate::web::facts::Departure;
use crate::web::reload::{self, Watching};
use crate::web::scope::SetupError;
use crate::{capture, log, mail, report};

/// A client that needs longer for its headers does not want an answer.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests that are running may go on once the server has to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that has just connected is about to send its request: at the end it is waited for.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are taken from the system's queue at the end; it is 1,024 long.
const BACKLOG_MAX: usize = 1024;

/// How long the last reports may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last mails may take: a mail server answers each in several steps.
const MAIL_TIMEOUT: Duration = Duration::from_secs(5);

/// When no connection can be accepted (no free file descriptors), trying at once is of no use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port of Flask's development server.
const DEFAULT_PORT: u16 = 5000;

/// Serves a router until the process is asked to end (SIGTERM, or Ctrl-C).
///
/// In place of `axum::serve`: what fails before the application sees it is logged, headers have
/// a time limit, and running requests are finished at the end.
/// Views can extract the client's address with `ConnectInfo<SocketAddr>`.
///
/// # Errors
///
/// The listener cannot be read, or signals cannot be waited for.
///
/// # Example
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let app = backstop::init_app(axum::Router::new());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
/// backstop::serve(listener, app).await
/// # }
/// ```
pub async fn serve(listener: TcpListener, app: Router) -> io::Result<()> {
    let asked = asked_to_end()?;
    serve_until(listener, app, asked).await
}

/// Serves a router until a future ends, then finishes the requests that are running.
///
/// # Errors
///
/// The listener has no address.
pub async fn serve_until(
    listener: TcpListener,
    app: Router,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.local_addr()?;
    let (ending, ends) = watch::channel(false);
    // Every connection holds a sender; when all are gone, the receiver ends.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let serve_one = |(stream, peer)| {
        let connection = connection(stream, peer, app.clone(), ends.clone());
        let alive = alive.clone();
        tokio::spawn(async move {
            connection.await;
            drop(alive);
        });
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => serve_one(accepted),
                Err(error) => {
                    tracing::warn!(target: "backstop::server", %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut end => break,
        }
    }
    // Those who were connected by the system already may have sent their request.
    for _ in 0..BACKLOG_MAX {
        match poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
            Poll::Ready(Ok(accepted)) => serve_one(accepted),
            Poll::Ready(Err(_)) | Poll::Pending => break,
        }
    }
    drop(listener);
    drop(alive);
    // Without receivers there is nobody to tell, and nothing to wait for.
    let _told = ending.send(true);
    if tokio::time::timeout(DRAIN_TIMEOUT, all_gone.recv())
        .await
        .is_err()
    {
        tracing::warn!(target: "backstop::server", "requests were still running and are cut off");
    }
    // What failed last is often why the program ends; a failing wait is no reason not to end.
    let reports = tokio::task::spawn_blocking(|| report::flush(FLUSH_TIMEOUT));
    let mails = tokio::task::spawn_blocking(|| mail::finish(MAIL_TIMEOUT));
    let _sent = tokio::join!(reports, mails);
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    mut ends: watch::Receiver<bool>,
) {
    // Small answers should not wait for more; a connection that is gone fails later anyway.
    let _set = stream.set_nodelay(true);
    if !sends(&stream, peer, &mut ends).await {
        return;
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let request = match request.body().is_end_stream() {
            true => request.map(|_| Body::empty()),
            false => watched(request),
        };
        app.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut told = false;
    loop {
        tokio::select! {
            // First, so that a request that has arrived is read before the connection is told.
            biased;
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    failed(&error, peer);
                }
                return;
            }
            _ = ends.wait_for(|ended| *ended), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Lets the log say it if the client leaves before its request is complete, whoever reads it: the
/// extractors of axum only see a body that cannot be read.
fn watched(request: Request<Incoming>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let departure = Departure::default();
    parts.extensions.insert(departure.clone());
    let body = Watched {
        body,
        departure,
        method: parts.method.clone(),
        uri: parts.uri.clone(),
    };
    Request::from_parts(parts, Body::new(body))
}

struct Watched {
    body: Incoming,
    departure: Departure,
    method: Method,
    uri: Uri,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| -> BoxError {
                if !is_disconnect(&error) {
                    return error.into();
                }
                self.departure.note();
                log::left_early(&self.method, &self.uri);
                ClientLeft(error).into()
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The client left before its request was complete, and the log has it.
#[derive(Debug)]
pub(crate) struct ClientLeft(hyper::Error);

impl fmt::Display for ClientLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client left before its request was complete")
    }
}

impl std::error::Error for ClientLeft {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Waits for the first bytes; false if there is nobody to serve.
///
/// A connection on which nothing was read is closed by hyper as soon as it is told of the end,
/// although its request may be on the way.
async fn sends(stream: &TcpStream, peer: SocketAddr, ends: &mut watch::Receiver<bool>) -> bool {
    let mut byte = [0];
    let ended = async {
        // An error is that nobody is left to tell of the end, so it has come.
        drop(ends.wait_for(|ended| *ended).await);
        tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        // That the socket is said to be readable is no proof; a byte is.
        peeked = stream.peek(&mut byte) => peeked.is_ok_and(|bytes| bytes > 0),
        () = ended => false,
        () = tokio::time::sleep(HEADERS_TIMEOUT) => {
            let client = peer.ip();
            tracing::info!(target: "backstop::server", %client, "a client was too slow with its headers");
            false
        }
    }
}

/// Logs what ended a connection; none of it has reached the application.
fn failed(error: &hyper::Error, peer: SocketAddr) {
    let client = peer.ip();
    if error.is_parse_too_large() {
        tracing::warn!(target: "backstop::server", %client, status = 431, "headers are too large");
    } else if error.is_parse() {
        tracing::warn!(target: "backstop::server", %client, status = 400, %error, "a request is no HTTP");
    } else if error.is_timeout() {
        tracing::info!(target: "backstop::server", %client, "a client was too slow with its headers");
    } else if error.is_user() {
        // The body of a response failed, which the layer has logged with its route.
        tracing::debug!(target: "backstop::server", %client, %error, "a response broke off");
    } else {
        tracing::debug!(target: "backstop::server", %client, %error, "a connection ended early");
    }
}

/// Ends when the process is asked to end.
pub(crate) fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())?
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        // Without the signal the server simply cannot be asked this way.
        let _asked = tokio::signal::ctrl_c().await;
    })
}

/// Where to serve: as much of host and port as is known.
///
/// Made of a port, a host, both, or nothing.
///
/// # Example
///
/// ```
/// use backstop::Address;
///
/// assert_eq!(Address::from("localhost:8080"), Address::from(("localhost", 8080)));
/// assert_eq!(Address::from(([0, 0, 0, 0], 5000)).host.as_deref(), Some("0.0.0.0"));
/// assert_eq!(Address::from(()), Address::default());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: Option<String>,
    /// The port; 0 is any free one.
    pub port: Option<u16>,
}

impl From<()> for Address {
    fn from((): ()) -> Address {
        Address::default()
    }
}

impl From<u16> for Address {
    fn from(port: u16) -> Address {
        Address {
            host: None,
            port: Some(port),
        }
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Address {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Address::from(address);
        }
        // An IPv6 address alone has colons of its own.
        let split = text
            .rsplit_once(':')
            .filter(|_| text.parse::<IpAddr>().is_err());
        match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
            Some((host, port)) => Address::from((host, port)),
            None => Address {
                host: (!text.is_empty()).then(|| text.to_owned()),
                port: None,
            },
        }
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Address {
        Address {
            host: (!host.is_empty()).then(|| host.to_owned()),
            port: Some(port),
        }
    }
}

impl From<([u8; 4], u16)> for Address {
    fn from((host, port): ([u8; 4], u16)) -> Address {
        Address::from(SocketAddr::from((host, port)))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address {
            host: Some(address.ip().to_string()),
            port: Some(address.port()),
        }
    }
}

/// The development server, being set up; `.await` starts it.
///
/// # Example
///
/// The entry point of Flask's page:
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use backstop::App;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut app = App::new(Router::new().route("/", get(|| async { "hello" })));
/// app.config_mut().load_file("config.yaml")?;
/// let debug = app.config().debug();
/// // Disable the built-in debugger if an external one is requested.
/// let use_debugger = debug && !app.config().flag("DEBUG_WITH_LLDB");
/// app.run(())
///     .debug(debug)
///     .use_debugger(use_debugger)
///     .use_reloader(use_debugger)
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until it is awaited"]
pub struct Run {
    app: App,
    address: Address,
    debug: Option<bool>,
    use_debugger: Option<bool>,
    use_reloader: Option<bool>,
    watching: Watching,
}

/// What a [`Run`] comes to, once arguments, environment and settings are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The name or address to listen on.
    pub host: String,
    /// The port; 0 is any free one.
    pub port: u16,
    /// Debug mode.
    pub debug: bool,
    /// The debug page for unhandled errors; never without debug mode.
    pub use_debugger: bool,
    /// Rebuild and restart on a change; never without debug mode.
    pub use_reloader: bool,
}

impl App {
    /// Serves the app for development, until the process is asked to end.
    ///
    /// The address can be a port, a host, both, or `()` for those of `SERVER_NAME`, else
    /// `127.0.0.1:5000`.
    pub fn run(self, address: impl Into<Address>) -> Run {
        Run {
            app: self,
            address: address.into(),
            debug: None,
            use_debugger: None,
            use_reloader: None,
            watching: Watching::default(),
        }
    }
}

impl Run {
    /// Turns debug mode on or off; without this the environment and then the settings decide.
    pub fn debug(mut self, on: bool) -> Run {
        self.debug = Some(on);
        self
    }

    /// Shows the debug page for unhandled errors; by default in debug mode, and never without.
    pub fn use_debugger(mut self, on: bool) -> Run {
        self.use_debugger = Some(on);
        self
    }

    /// Rebuilds and restarts the program when a file changes; by default in debug mode, and
    /// never without.
    pub fn use_reloader(mut self, on: bool) -> Run {
        self.use_reloader = Some(on);
        self
    }

    /// Also restarts when one of these files changes; of a directory, all files in it count.
    pub fn extra_files<P: Into<std::path::PathBuf>>(
        mut self,
        files: impl IntoIterator<Item = P>,
    ) -> Run {
        self.watching
            .extra
            .extend(files.into_iter().map(Into::into));
        self
    }

    /// Leaves out files whose path or name matches one of these patterns (`*`, `?`).
    pub fn exclude_patterns<P: Into<String>>(
        mut self,
        patterns: impl IntoIterator<Item = P>,
    ) -> Run {
        self.watching
            .excluded
            .extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Rebuilds with this command instead of `cargo build`, for example to choose features.
    pub fn build_command<P: Into<String>>(mut self, words: impl IntoIterator<Item = P>) -> Run {
        self.watching.command = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Puts together arguments, environment and settings, in this order.
    ///
    /// `env` gives a variable's value; `BACKSTOP_DEBUG` and `FLASK_DEBUG` are asked for.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::Router;
    /// use backstop::App;
    ///
    /// let app = App::new(Router::new());
    /// let plan = app.run("0.0.0.0").use_debugger(true).plan(|_| None);
    /// assert_eq!((plan.host.as_str(), plan.port), ("0.0.0.0", 5000));
    /// assert!(!plan.debug && !plan.use_debugger); // nothing of it without debug mode
    /// ```
    pub fn plan(&self, env: impl Fn(&str) -> Option<String>) -> Plan {
        let config = self.app.config();
        let from_env = env("BACKSTOP_DEBUG")
            .or_else(|| env("FLASK_DEBUG"))
            .filter(|text| !text.is_empty())
            .map(|text| crate::config::is_on_text(&text));
        let debug = self.debug.or(from_env).unwrap_or_else(|| config.debug());
        let named = Address::from(config.text("SERVER_NAME").unwrap_or_default());
        let host = self.address.host.clone().or(named.host);
        Plan {
            host: host.unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string()),
            port: self.address.port.or(named.port).unwrap_or(DEFAULT_PORT),
            debug,
            use_debugger: debug && self.use_debugger.unwrap_or(debug),
            use_reloader: debug && self.use_reloader.unwrap_or(debug),
        }
    }

    async fn start(self) -> Result<(), RunError> {
        let plan = self.plan(|name| std::env::var(name).ok());
        let mut app = self.app;
        app.config_mut().set("DEBUG", plan.debug);
        for warning in app.config().warnings() {
            eprintln!(" * {warning}");
        }
        let child = reload::Child::of_this_process();
        if plan.use_reloader && child.is_none() {
            let listener = bind(&plan).await?;
            check_exposure(&plan, &app, listener.local_addr()?)?;
            announce(&plan, listener.local_addr()?);
            let code = reload::supervise(listener.into_std()?, self.watching).await?;
            // The program's code after `run` belongs to the child, which has run it.
            std::process::exit(code);
        }
        let listener = match &child {
            Some(child) => child.listener()?,
            None => bind(&plan).await?,
        };
        let address = listener.local_addr()?;
        check_exposure(&plan, &app, address)?;
        if child.is_none() {
            announce(&plan, address);
        }
        capture::warm_up();
        let mut router = app.build()?;
        if plan.use_debugger {
            capture::always_read_variables();
            let debugger = Debugger::new(app, address, &plan.host);
            debugger.announce();
            router = debugger.around(router);
        }
        let Some(child) = child else {
            return Ok(serve(listener, router).await?);
        };
        let (router, told_to_end) = child.around(router).await?;
        let asked = asked_to_end()?;
        let end = async move {
            tokio::select! {
                () = asked => {}
                () = told_to_end => {}
            }
        };
        Ok(serve_until(listener, router, end).await?)
    }
}

impl IntoFuture for Run {
    type Output = Result<(), RunError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

async fn bind(plan: &Plan) -> Result<TcpListener, RunError> {
    TcpListener::bind((plan.host.as_str(), plan.port))
        .await
        .map_err(|error| RunError::Bind {
            host: plan.host.clone(),
            port: plan.port,
            error,
        })
}

/// Debug mode shows source and variables: not to the whole network by accident.
fn check_exposure(plan: &Plan, app: &App, address: SocketAddr) -> Result<(), RunError> {
    let allowed =
        !plan.debug || address.ip().is_loopback() || app.config().flag("DEBUG_ON_PUBLIC_ADDRESS");
    match allowed {
        true => Ok(()),
        false => Err(RunError::PublicDebug(address)),
    }
}

fn announce(plan: &Plan, address: SocketAddr) {
    let mode = if plan.debug { "on" } else { "off" };
    eprintln!(" * Debug mode: {mode}");
    if plan.debug {
        eprintln!(" * {}", backstop_capture::doctor());
        eprintln!(" * This is a development server; do not expose it.");
    }
    eprintln!(" * Running on http://{address} (Ctrl-C ends)");
}

/// A server could not be started, or not go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The app was set up wrongly.
    Setup(SetupError),
    /// The address cannot be listened on.
    Bind {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// Debug mode on an address that others can reach, without the setting that allows it.
    PublicDebug(SocketAddr),
    /// Something of the system failed.
    Io(io::Error),
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        RunError::Io(error)
    }
}

impl From<SetupError> for RunError {
    fn from(error: SetupError) -> RunError {
        RunError::Setup(error)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Setup(error) => write!(f, "the app is set up wrongly: {error}"),
            RunError::Bind { host, port, error } => {
                write!(f, "cannot listen on {host}:{port}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        f.write_str("; end the other program, or choose another port")
                    }
                    _ => Ok(()),
                }
            }
            RunError::PublicDebug(address) => write!(
                f,
                "debug mode on {address} would show source and variables to everybody who reaches \
                 it; listen on 127.0.0.1, or set DEBUG_ON_PUBLIC_ADDRESS in the configuration"
            ),
            RunError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}
