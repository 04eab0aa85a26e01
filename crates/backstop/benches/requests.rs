//! CPU per request against plain axum in the same run, through a real socket.
//!
//! `cargo bench -p backstop --bench requests`
//!
//! Each server runs on a thread of its own, and the time is that thread's own (scheduler
//! accounting, the kernel's share included), so other work on the machine disturbs little.
//! The servers take turns in short rounds, each round begins with the other one, and what is
//! printed is the median of the rounds' ratios, with the quartiles beside it.
//!
//! A row "against itself" has plain axum on both sides: it says how exact the others are.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backstop::report::{Client, Collector, Tracker};
use backstop::{App, Caught, Error, HttpError, Kind, Result, http_error};

/// Connections that are kept busy at once.
const CONNECTIONS: usize = 8;
/// Requests of one round on each connection.
const REQUESTS: usize = 200;
const ROUNDS: usize = 61;

// Below 500: from there on errors are also logged and reported, which is measured for itself.
http_error!(pub struct OutOfStock(409, "Out of stock."));

#[derive(Debug)]
struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the disk is full")
    }
}

impl std::error::Error for Full {}

impl IntoResponse for Full {
    fn into_response(self) -> Response {
        (StatusCode::CONFLICT, "409: Out of stock.").into_response()
    }
}

fn plain() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/full", get(|| async { Err::<&str, Full>(Full) }))
}

/// What a user of plain axum writes for the same 404: a page by `Accept`, which caches keep apart.
fn plain_with_page() -> Router {
    async fn page(headers: HeaderMap) -> Response {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let (content_type, body) = if accept.contains("json") {
            ("application/problem+json", PROBLEM)
        } else {
            ("text/html; charset=utf-8", PAGE)
        };
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::VARY, "accept"),
        ];
        (StatusCode::NOT_FOUND, headers, body).into_response()
    }
    plain().fallback(page)
}

/// Our default page, byte for byte.
const PAGE: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>There is nothing at this address. Check it for typing mistakes.</p>\n";
const PROBLEM: &str = r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"There is nothing at this address. Check it for typing mistakes."}"#;

fn with_backstop() -> Router {
    async fn full() -> Result<&'static str> {
        Err(OutOfStock)?
    }
    async fn broken() -> Result<&'static str> {
        Err(Full)?
    }
    let collector = Collector::default();
    let tracker = Tracker::of_client(Client::collecting(&collector));
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/full", get(full))
        .route("/broken", get(broken));
    App::new(router)
        // The answer of the hand-written one, so that only the way to it differs.
        .error_handler_for(|_: Caught<OutOfStock>| async {
            (StatusCode::CONFLICT, "409: Out of stock.")
        })
        .init(&tracker)
        .into_router()
        .expect("nothing is refused")
}

/// A server on a thread of its own.
struct Server {
    address: SocketAddr,
    /// Where the kernel tells how long the thread ran.
    schedstat: PathBuf,
}

impl Server {
    fn start(router: Router) -> io::Result<Self> {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a free port");
                let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
                let address = listener.local_addr().expect("an address");
                tell.send((address, thread)).expect("the bench waits");
                axum::serve(listener, router)
                    .await
                    .expect("the server runs");
            });
        });
        let (address, thread) = told.recv().map_err(io::Error::other)?;
        Ok(Self {
            address,
            schedstat: PathBuf::from("/proc").join(thread).join("schedstat"),
        })
    }

    fn cpu_ns(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(&self.schedstat)?;
        let first = text.split(' ').next().unwrap_or_default();
        first.trim().parse().map_err(io::Error::other)
    }

    /// Sends the requests of one round and returns the thread's nanoseconds per request.
    fn round(&self, path: &str) -> io::Result<u64> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        );
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut length = 0;
        for stream in &mut streams {
            stream.write_all(request.as_bytes())?;
            length = response_length(stream, &mut buffer)?;
        }
        let before = self.cpu_ns()?;
        for _ in 0..REQUESTS {
            for stream in &mut streams {
                stream.write_all(request.as_bytes())?;
            }
            for stream in &mut streams {
                stream.read_exact(&mut buffer[..length])?;
            }
        }
        let spent = self.cpu_ns()? - before;
        Ok(spent / (CONNECTIONS * REQUESTS) as u64)
    }
}

/// Reads one response with a `Content-Length` and returns its length. All responses to one request
/// are of one length, so that a round need not look into them: a slow client would let the server
/// sleep and wake up more often, and that would be measured.
fn response_length(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
        let text = &buffer[..length];
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let body: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or_default();
        if length >= end + 4 + body {
            return Ok(length);
        }
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Rounds in turn, so that whatever else the machine does hits both alike.
fn compare(
    what: &str,
    plain: (&Server, &str),
    ours: (&Server, &str),
    target: Option<f64>,
) -> io::Result<()> {
    let mut pairs = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let plain_first = round % 2 == 0;
        if plain_first {
            pairs.0.push(plain.0.round(plain.1)?);
        }
        pairs.1.push(ours.0.round(ours.1)?);
        if !plain_first {
            pairs.0.push(plain.0.round(plain.1)?);
        }
    }
    let mut ratios: Vec<f64> = pairs
        .0
        .iter()
        .zip(&pairs.1)
        .map(|(plain, ours)| *ours as f64 / *plain as f64)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let quartile = |number: usize| ratios[ratios.len() * number / 4];
    let target = target.map_or_else(String::new, |target| format!(", target {target:.2}"));
    println!(
        "{what:<40} {:>7.2} µs {:>7.2} µs   ratio {:.3} ({:.3} to {:.3}{target})",
        median(pairs.0) as f64 / 1000.0,
        median(pairs.1) as f64 / 1000.0,
        quartile(2),
        quartile(1),
        quartile(3),
    );
    Ok(())
}

/// Which handler answers, among a hundred handlers in five scopes, without a request around it.
fn lookup() {
    let kinds: Vec<Kind> = (0..100)
        .map(|number| Kind::new(format!("Error{number}"), &[]).expect("no parents"))
        .collect();
    let lookup = backstop::__private::Lookup::new(&kinds, 5);
    let child = Kind::new("Child", &[&kinds[99]]).expect("one parent");
    let own = Error::of_kind(&kinds[99], Full);
    let inherited = Error::of_kind(&child, Full);
    let coded = Error::from(HttpError::new(418));
    let cases = [
        ("own kind", &own),
        ("parent", &inherited),
        ("code, no handler", &coded),
    ];
    for (what, error) in cases {
        let mut best = f64::MAX;
        for _ in 0..20 {
            const TIMES: u32 = 10_000;
            let start = Instant::now();
            for _ in 0..TIMES {
                std::hint::black_box(lookup.find(std::hint::black_box(error)));
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(TIMES));
        }
        println!("look-up, 100 handlers, 5 scopes: {what:<17} {best:>6.1} ns (target 100)");
    }
}

fn main() -> io::Result<()> {
    lookup();
    let axum = Server::start(plain())?;
    let again = Server::start(plain())?;
    let page = Server::start(plain_with_page())?;
    let ours = Server::start(with_backstop())?;
    println!(
        "{:<40} {:>10} {:>10}",
        "CPU of the server per request", "axum", "backstop"
    );
    compare(
        "200, plain axum against itself",
        (&axum, "/"),
        (&again, "/"),
        None,
    )?;
    compare("200", (&axum, "/"), (&ours, "/"), Some(1.03))?;
    compare(
        "404, default page: empty in axum",
        (&axum, "/none"),
        (&ours, "/none"),
        Some(1.10),
    )?;
    compare(
        "404, default page: the same in axum",
        (&page, "/none"),
        (&ours, "/none"),
        None,
    )?;
    compare(
        "handled typed error",
        (&axum, "/full"),
        (&ours, "/full"),
        Some(1.10),
    )?;
    let broken = (0..ROUNDS / 4)
        .map(|_| ours.round("/broken"))
        .collect::<io::Result<Vec<u64>>>()?;
    println!(
        "{:<40} {:>10} {:>7.2} µs   (target 60)",
        "unhandled, report queued",
        "",
        median(broken) as f64 / 1000.0
    );
    Ok(())
}
