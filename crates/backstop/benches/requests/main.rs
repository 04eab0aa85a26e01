//! CPU per request against plain axum in the same run, through a real socket.
//!
//! `cargo bench -p backstop --bench requests`
//!
//! Paths and names of servers (with dashes for spaces) choose rows: `-- /full axum backstop`.
//! With `--direct` there are no sockets: the applications are called as services.
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
//! Rows with a layer of a few lines instead of Backstop say what is left of an aim to whatever
//! is a layer of axum.

mod apps;
mod direct;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use backstop::{Error, HttpError, Kind};
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

/// A server with a few clients.
struct Server {
    name: &'static str,
    clients: Vec<TcpStream>,
    /// Requests that reached the router.
    served: Arc<AtomicUsize>,
}

impl Server {
    fn start(runtime: &Runtime, name: &'static str, router: Router) -> io::Result<Self> {
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
        Ok(Self {
            name,
            clients,
            served,
        })
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
    runtime: &Runtime,
    path: &str,
    first: &mut Server,
    second: &mut Server,
    target: Option<f64>,
) -> io::Result<()> {
    let mut pairs = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let in_order = round % 2 == 0;
        if in_order {
            pairs.0.push(first.block(runtime, path)?);
        }
        pairs.1.push(second.block(runtime, path)?);
        if !in_order {
            pairs.0.push(first.block(runtime, path)?);
        }
    }
    let mut ratios: Vec<f64> = pairs
        .0
        .iter()
        .zip(&pairs.1)
        .map(|(first, second)| *second as f64 / *first as f64)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let quartile = |number: usize| ratios[ratios.len() * number / 4];
    let target = target.map_or_else(String::new, |target| format!(", target {target:.2}"));
    println!(
        "{path:<9} {:<15} {:>6.2} µs   {:<15} {:>6.2} µs   ratio {:.3} ({:.3} to {:.3}{target})",
        first.name,
        median(pairs.0) as f64 / 1000.0,
        second.name,
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
    let own = Error::of_kind(&kinds[99], apps::Full);
    let inherited = Error::of_kind(&child, apps::Full);
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

/// Which rows somebody wants to see.
struct Wanted {
    is_direct: bool,
    paths: Vec<String>,
    names: Vec<String>,
}

impl Wanted {
    /// Reads arguments: `--direct`, paths, and names of servers with a dash for each space.
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let (flags, words): (Vec<String>, Vec<String>) =
            arguments.partition(|argument| argument.starts_with("--"));
        let (paths, names) = words.into_iter().partition(|word| word.starts_with('/'));
        Self {
            is_direct: flags.iter().any(|flag| flag == "--direct"),
            paths,
            names,
        }
    }

    fn is_everything(&self) -> bool {
        self.paths.is_empty() && self.names.is_empty()
    }

    fn has(&self, path: &str, names: &[&str]) -> bool {
        let knows = |wanted: &[String], word: &str| {
            wanted.is_empty()
                || wanted
                    .iter()
                    .any(|wanted| *wanted == word.replace(' ', "-"))
        };
        knows(&self.paths, path) && names.iter().all(|name| knows(&self.names, name))
    }
}

fn main() -> io::Result<()> {
    let wanted = &Wanted::of(std::env::args().skip(1));
    if wanted.is_direct {
        return direct::all(wanted);
    }
    if wanted.is_everything() {
        lookup();
    }
    let runtime = &tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let start = |name, router| Server::start(runtime, name, router);
    let axum = &mut start("axum", apps::plain())?;
    let again = &mut start("axum again", apps::plain())?;
    let fixed = &mut start("fixed page", apps::plain_with_fixed_page())?;
    let page = &mut start("page by hand", apps::plain_with_page())?;
    let layer = &mut start("empty layer", apps::in_a_layer())?;
    let head = &mut start("layer with head", apps::in_a_layer_with_the_head())?;
    let ours = &mut start("backstop", apps::with_backstop())?;
    println!("CPU of the server per request");
    let row = |path, first: &mut Server, second: &mut Server, target| {
        if wanted.has(path, &[first.name, second.name]) {
            compare(runtime, path, first, second, target)?;
        }
        Ok::<_, io::Error>(())
    };
    row("/", axum, again, None)?;
    row("/", axum, layer, None)?;
    row("/", axum, head, None)?;
    row("/", axum, ours, Some(1.03))?;
    row("/", head, ours, None)?;
    row("/none", axum, fixed, None)?;
    row("/none", axum, page, None)?;
    row("/none", axum, ours, Some(1.10))?;
    row("/none", page, ours, Some(1.10))?;
    row("/full", axum, head, None)?;
    row("/full", axum, ours, Some(1.10))?;
    row("/full", head, ours, None)?;
    row("/full/now", axum, ours, Some(1.10))?;
    if !wanted.has("/broken", &[ours.name]) {
        return Ok(());
    }
    let broken = (0..ROUNDS / 4)
        .map(|_| ours.block(runtime, "/broken"))
        .collect::<io::Result<Vec<u64>>>()?;
    println!(
        "unhandled, report queued: {:.2} µs (target 60)",
        median(broken) as f64 / 1000.0
    );
    Ok(())
}
