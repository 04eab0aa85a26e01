//! CPU per request against plain axum in the same run, through a real socket.
//!
//! `cargo bench -p backstop --bench requests`
//!
//! Clients and servers share one thread, so that nobody waits for the scheduler: the clients write
//! a request on each connection, the servers' runtime runs until all are answered, and then the
//! clients read.
//! Only the middle is measured: what the thread spends in the server, the kernel's share of its
//! reading and writing included.
//! Both servers are served by the same few lines, as `axum::serve` does it.
//!
//! The servers take turns in short blocks of which the median counts, each round begins with the
//! other one, and what is printed is the median of the rounds' ratios, with the quartiles beside it.
//!
//! A row "against itself" has plain axum on both sides: it says how exact the others are.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backstop::report::{Client, Collector, Tracker};
use backstop::{App, Caught, Error, HttpError, Kind, Result, http_error};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;

/// Connections of each server, each with a request in every batch.
const CONNECTIONS: usize = 8;
/// Batches that one server answers before it is the other one's turn.
const BATCHES: usize = 41;
const ROUNDS: usize = 201;

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

/// A server with a few clients.
struct Server {
    clients: Vec<TcpStream>,
    /// Requests that reached the router.
    served: Arc<AtomicUsize>,
}

impl Server {
    fn start(runtime: &Runtime, router: Router) -> io::Result<Self> {
        let served = Arc::new(AtomicUsize::new(0));
        // As `axum::serve` does it: once, and not for every request.
        let router = router.with_state(());
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(listener.local_addr()?)?;
            client.set_nodelay(true)?;
            clients.push(client);
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let routes = TowerToHyperService::new(router.clone());
            let counter = Arc::clone(&served);
            let service = service_fn(move |request| {
                counter.fetch_add(1, Ordering::Relaxed);
                routes.call(request)
            });
            runtime.spawn(async move {
                let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
                let served = http1::Builder::new().serve_connection(stream, service);
                served.with_upgrades().await.map_err(io::Error::other)
            });
        }
        Ok(Self { clients, served })
    }

    /// Lets each connection answer a request, and returns the nanoseconds for each.
    fn batch(&mut self, runtime: &Runtime, path: &str, buffer: &mut [u8]) -> io::Result<u64> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
        );
        for client in &mut self.clients {
            client.write_all(request.as_bytes())?;
        }
        let wanted = self.served.load(Ordering::Relaxed) + CONNECTIONS;
        let start = Instant::now();
        runtime.block_on(async {
            while self.served.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        });
        let spent = start.elapsed().as_nanos() as u64;
        for client in &mut self.clients {
            read_response(client, buffer)?;
        }
        Ok(spent / CONNECTIONS as u64)
    }

    /// The median of some batches.
    fn block(&mut self, runtime: &Runtime, path: &str) -> io::Result<u64> {
        let mut buffer = vec![0; 64 * 1024];
        let batches = (0..BATCHES).map(|_| self.batch(runtime, path, &mut buffer));
        Ok(median(batches.collect::<io::Result<_>>()?))
    }
}

/// Reads one response with a `Content-Length`.
fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
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
            return Ok(());
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
    runtime: &Runtime,
    (plain, plain_path): (&mut Server, &str),
    (ours, our_path): (&mut Server, &str),
    target: Option<f64>,
) -> io::Result<()> {
    let mut pairs = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let plain_first = round % 2 == 0;
        if plain_first {
            pairs.0.push(plain.block(runtime, plain_path)?);
        }
        pairs.1.push(ours.block(runtime, our_path)?);
        if !plain_first {
            pairs.0.push(plain.block(runtime, plain_path)?);
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
    let runtime = &tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let axum = &mut Server::start(runtime, plain())?;
    let again = &mut Server::start(runtime, plain())?;
    let page = &mut Server::start(runtime, plain_with_page())?;
    let ours = &mut Server::start(runtime, with_backstop())?;
    println!(
        "{:<40} {:>10} {:>10}",
        "CPU of the server per request", "axum", "backstop"
    );
    compare(
        "200, plain axum against itself",
        runtime,
        (axum, "/"),
        (again, "/"),
        None,
    )?;
    compare("200", runtime, (axum, "/"), (ours, "/"), Some(1.03))?;
    compare(
        "404, default page: empty in axum",
        runtime,
        (axum, "/none"),
        (ours, "/none"),
        Some(1.10),
    )?;
    compare(
        "404, default page: the same in axum",
        runtime,
        (page, "/none"),
        (ours, "/none"),
        Some(1.10),
    )?;
    compare(
        "handled typed error",
        runtime,
        (axum, "/full"),
        (ours, "/full"),
        Some(1.10),
    )?;
    let broken = (0..ROUNDS / 4)
        .map(|_| ours.block(runtime, "/broken"))
        .collect::<io::Result<Vec<u64>>>()?;
    println!(
        "{:<40} {:>10} {:>7.2} µs   (target 60)",
        "unhandled, report queued",
        "",
        median(broken) as f64 / 1000.0
    );
    Ok(())
}
