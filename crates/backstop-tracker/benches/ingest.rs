//! What an event costs, from the socket to the disk.
//!
//! `cargo bench -p backstop-tracker --bench ingest` measures three servers in one run, each a
//! process of its own, with the generator beside it on the same machine:
//! (a) reads and discards; (b) gunzip, typed parse and compress, no store; (c) Backstop,
//! answered after COMMIT. A fourth says where the difference comes from: (b') is (b) with what must
//! be known of an event before it can be stored, its group, words and tags, without its secrets.
//! They take turns of a second, so that whatever else the machine does hits
//! all alike, and each ratio is the median of the rounds' ratios.
//!
//! Options: `--seconds N` (of each server), `--connections N`, `--bytes N`, `--against PROGRAM`
//! (another build of `backstop`, as one server more), `--alone` (only (c), without turns, for
//! profiling), `--growth N` (fill up to N events and look at 10,000, 100,000, …), `--data DIR`
//! (where; it is kept, and a later run goes on with it).

mod support;

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use backstop_protocol::Timestamp;
use backstop_tracker::digest::{Digest, Incoming};
use backstop_tracker::ingest::fuzz;
use backstop_tracker::model::{IssueQuery, NewProject};
use backstop_tracker::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::event::{self, Body};
use support::server::{Server, create_project, create_project_by, directory, size_of};

/// The same allocator as in the program, or (b) would be slower for no fault of its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ISSUES: usize = 2000;

fn main() {
    let options = Options::read();
    match options.server.as_deref() {
        Some("read") => serve(Router::new().route("/api/{project}/envelope/", post(read))),
        Some("decode") => serve(Router::new().route("/api/{project}/envelope/", post(decode))),
        Some("prepare") => serve(preparing(options.data.as_deref().expect("--data"))),
        Some(other) => panic!("no server {other}"),
        None if options.growth > 0 => growth(&options),
        None => compare(&options),
    }
}

struct Options {
    server: Option<String>,
    seconds: u64,
    connections: usize,
    bytes: usize,
    alone: bool,
    against: Option<PathBuf>,
    growth: u64,
    data: Option<PathBuf>,
}

impl Options {
    fn read() -> Options {
        let arguments: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name, default| value(name).map_or(default, |text| text.parse().expect(name));
        Options {
            server: value("--server"),
            seconds: number("--seconds", 6).max(1),
            connections: number("--connections", 64) as usize,
            bytes: number("--bytes", 27_000) as usize,
            alone: arguments.iter().any(|argument| argument == "--alone"),
            against: value("--against").map(PathBuf::from),
            growth: number("--growth", 0),
            data: value("--data").map(PathBuf::from),
        }
    }
}

/// Server (a): the body is read and dropped.
async fn read(_body: Bytes) -> &'static str {
    "{}"
}

thread_local! {
    // Making one anew for every event would flatter the comparison.
    static PACKING: RefCell<zstd::bulk::Compressor<'static>> =
        RefCell::new(zstd::bulk::Compressor::new(1).expect("memory"));
    static INFLATING: RefCell<libdeflater::Decompressor> =
        RefCell::new(libdeflater::Decompressor::new());
}

fn inflate(body: &[u8]) -> Vec<u8> {
    let size = body.last_chunk().expect("gzip ends with the size");
    let mut text = vec![0; u32::from_le_bytes(*size) as usize];
    INFLATING
        .with_borrow_mut(|inflating| inflating.gzip_decompress(body, &mut text))
        .expect("the generator sends gzip");
    text
}

/// The event of an envelope.
fn item_of(text: &[u8]) -> &[u8] {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.nth(2).expect("an envelope")
}

/// Server (b): what every tracker must do, without keeping anything.
async fn decode(body: Bytes) -> &'static str {
    let text = inflate(&body);
    let item = item_of(&text);
    let event = backstop_protocol::Event::decode(item).expect("an event");
    let packed = PACKING.with_borrow_mut(|packing| packing.compress(item).expect("memory"));
    // Both results must be made although nobody wants them.
    std::hint::black_box((event.exception.len(), packed.len()));
    "{}"
}

/// Server (b'): the same for what a store needs, and the event goes nowhere.
fn preparing(data: &Path) -> Router {
    let store = Store::open(data).expect("the store opens");
    let wish = NewProject {
        name: "shop".to_owned(),
        ..NewProject::default()
    };
    let project = store.create_project(&wish, Timestamp::default());
    let project = project.expect("a project").id;
    let digest = Arc::new(Digest::start(store).expect("a thread"));
    let prepare = async move |body: Bytes| {
        let text = inflate(&body);
        let event = fuzz::prepared(item_of(&text), true).expect("an event");
        let incoming = Incoming {
            project,
            key: None,
            received: Timestamp::default(),
        };
        std::hint::black_box(digest.prepare(incoming, event).expect("a project"));
        "{}"
    };
    Router::new().route("/api/{project}/envelope/", post(prepare))
}

fn serve(app: Router) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        println!(
            "listening on http://{}",
            listener.local_addr().expect("bound")
        );
        axum::serve(listener, app).await.expect("it serves");
    });
}

/// What a run of the generator measured.
#[derive(Default)]
struct Measured {
    answered: u64,
    refused: u64,
    seconds: f64,
    cpu_micros: f64,
    latencies: Vec<u32>,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    fn millis(&mut self, part: f64) -> f64 {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() as f64 * part) as usize;
        let micros = self
            .latencies
            .get(at.min(self.latencies.len().saturating_sub(1)));
        f64::from(micros.copied().unwrap_or(0)) / 1000.0
    }

    fn print(&mut self, name: &str) {
        let (p50, p99) = (self.millis(0.5), self.millis(0.99));
        println!(
            "{name:<34} {:>8.0} ev/s {:>7.1} us CPU/ev  p50 {p50:>6.1} ms  p99 {p99:>6.1} ms  refused {}",
            self.rate(),
            self.cpu_micros,
            self.refused
        );
    }
}

fn compare(options: &Options) {
    print_machine();
    let disk = directory("ingest");
    print_fdatasync(&disk);
    let varied = Arc::new(event::bodies(options.bytes, ISSUES, 2));
    let repeated = Arc::new(event::bodies(options.bytes, 1, 1));
    let mean = |bodies: &[Body], size: fn(&Body) -> usize| {
        bodies.iter().map(size).sum::<usize>() / bodies.len()
    };
    println!(
        "events of {} bytes, {} on the wire; {} connections; {} s each\n",
        mean(&varied, Body::event_bytes),
        mean(&varied, Body::wire_bytes),
        options.connections,
        options.seconds
    );
    for (name, bodies) in [
        ("varied, 2,000 issues", &varied),
        ("one repeated body", &repeated),
    ] {
        println!("{name}");
        let data = disk.join(name.split(',').next().unwrap_or(name).replace(' ', "-"));
        if options.alone {
            full(&data, options, bodies).print("  (c) Backstop, after COMMIT");
        } else {
            in_turn(&data, options, bodies);
        }
    }
    // The figures are printed; what is left on the disk is of no use.
    let _ = std::fs::remove_dir_all(&disk);
}

/// One of the servers that take turns.
struct Contender {
    name: String,
    server: Server,
    /// One for each round.
    turns: Vec<Measured>,
    /// The processor time up to the last turn.
    cpu_micros: u64,
    memory: u64,
}

impl Contender {
    fn start(name: impl Into<String>, server: Server) -> Contender {
        let memory = server.pss_bytes();
        Contender {
            name: name.into(),
            server,
            turns: Vec::new(),
            cpu_micros: 0,
            memory,
        }
    }

    /// A build of this bench as a server that keeps nothing.
    fn baseline(name: &str, kind: &str, data: &Path) -> Contender {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--server", kind, "--data"]).arg(data);
        Contender::start(name, Server::start(command))
    }

    fn turn(&mut self, options: &Options, bodies: &Arc<Vec<Body>>) {
        let second = Stop::After(Duration::from_secs(1));
        let mut turn = load(&self.server, options.connections, second, bodies);
        // What it does during the turns of the others is part of the price.
        let before = std::mem::replace(&mut self.cpu_micros, self.server.cpu_micros());
        turn.cpu_micros = (self.cpu_micros - before) as f64 / turn.answered.max(1) as f64;
        self.turns.push(turn);
        self.memory = self.memory.max(self.server.pss_bytes());
    }

    fn print(&self) {
        let mut all = Measured::default();
        for turn in &self.turns {
            all.answered += turn.answered;
            all.refused += turn.refused;
            all.seconds += turn.seconds;
            all.cpu_micros += turn.cpu_micros * turn.answered as f64;
            all.latencies.extend(&turn.latencies);
        }
        all.cpu_micros /= all.answered.max(1) as f64;
        all.print(&self.name);
    }

    /// Prints which part of another server's cost and rate this one has reached.
    fn print_ratio(&self, other: &Contender) {
        let ratios = |ratio: fn(&Measured, &Measured) -> f64| {
            let rounds = self.turns.iter().zip(&other.turns);
            let mut ratios: Vec<f64> = rounds.map(|(own, others)| ratio(own, others)).collect();
            ratios.sort_by(f64::total_cmp);
            let quartile = |number: usize| 100.0 * ratios[(ratios.len() - 1) * number / 4];
            format!(
                "{:.0} % ({:.0} to {:.0})",
                quartile(2),
                quartile(1),
                quartile(3)
            )
        };
        let short = self.name.trim().split(' ').next().unwrap_or_default();
        println!(
            "  {short} of {:<32} {} by CPU, {} by wall",
            other.name.trim(),
            ratios(|own, others| others.cpu_micros / own.cpu_micros),
            ratios(|own, others| own.rate() / others.rate()),
        );
    }
}

fn in_turn(data: &Path, options: &Options, bodies: &Arc<Vec<Body>>) {
    std::fs::create_dir_all(data).expect("the directory can be made");
    create_project(data);
    let aside = data.with_extension("aside");
    let mut contenders = vec![
        Contender::start("  (c) Backstop, after COMMIT", Server::backstop(data)),
        Contender::baseline("  (a) read and discard", "read", &aside),
        Contender::baseline("  (b) gunzip, parse, compress", "decode", &aside),
        Contender::baseline("  (b') and scrub, group, words", "prepare", &aside),
    ];
    if let Some(other) = &options.against {
        let data = data.with_extension("other");
        std::fs::create_dir_all(&data).expect("the directory can be made");
        create_project_by(other, &data);
        let server = Server::backstop_by(other, &data);
        contenders.push(Contender::start("  (d) the other build", server));
    }
    let idle = contenders[0].memory;
    for contender in &mut contenders {
        // Long enough for the first dictionaries to be trained.
        let time = Stop::After(Duration::from_secs(5));
        load(&contender.server, options.connections, time, bodies);
        contender.cpu_micros = contender.server.cpu_micros();
    }
    let disk_before = size_of(data);
    for round in 0..options.seconds as usize {
        for place in 0..contenders.len() {
            // What one leaves to be written hits the next, so nobody always comes after the same.
            let turn = (round / 2 + place) % contenders.len();
            let turn = match round % 2 {
                0 => turn,
                _ => contenders.len() - 1 - turn,
            };
            contenders[turn].turn(options, bodies);
        }
    }
    let stored: u64 = contenders[0].turns.iter().map(|turn| turn.answered).sum();
    println!(
        "  memory {:.1} MB idle, {:.1} MB at most; {:.2} kB of disk per event",
        idle as f64 / 1e6,
        contenders[0].memory as f64 / 1e6,
        (size_of(data) - disk_before) as f64 / 1e3 / stored.max(1) as f64
    );
    for contender in &contenders {
        contender.print();
    }
    for other in &contenders[1..] {
        contenders[0].print_ratio(other);
    }
    contenders[3].print_ratio(&contenders[2]);
    println!();
}

fn full(data: &Path, options: &Options, bodies: &Arc<Vec<Body>>) -> Measured {
    std::fs::create_dir_all(data).expect("the directory can be made");
    create_project(data);
    let server = Server::backstop(data);
    let idle = server.pss_bytes();
    // Long enough for the first dictionaries to be trained.
    let warm = load(
        &server,
        options.connections,
        Stop::After(Duration::from_secs(5)),
        bodies,
    );
    let before = size_of(data);
    let ended = AtomicBool::new(false);
    let (measured, most) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = server.pss_bytes().max(most);
                std::thread::sleep(Duration::from_millis(250));
            }
            most
        });
        let time = Stop::After(Duration::from_secs(options.seconds));
        let measured = load(&server, options.connections, time, bodies);
        ended.store(true, Ordering::Relaxed);
        (measured, watching.join().expect("it only reads"))
    });
    println!(
        "  memory {:.1} MB idle, {:.1} MB at most, {:.1} MB after {} events; {:.2} kB of disk per event",
        idle as f64 / 1e6,
        most as f64 / 1e6,
        server.pss_bytes() as f64 / 1e6,
        warm.answered + measured.answered,
        (size_of(data) - before) as f64 / 1e3 / measured.answered.max(1) as f64
    );
    measured
}

/// When the generator ends.
#[derive(Clone, Copy)]
enum Stop {
    After(Duration),
    Events(u64),
}

/// Sends from so many connections, each waiting for its answer, on one thread.
fn load(server: &Server, connections: usize, stop: Stop, bodies: &Arc<Vec<Body>>) -> Measured {
    let run = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64);
    let next = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cpu_before = server.cpu_micros();
    let started = Instant::now();
    let parts = runtime.block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let (bodies, next, ended) =
                    (Arc::clone(bodies), Arc::clone(&next), Arc::clone(&ended));
                tokio::spawn(connection(
                    server.address.clone(),
                    run,
                    bodies,
                    next,
                    ended,
                    stop,
                ))
            })
            .collect();
        if let Stop::After(time) = stop {
            tokio::time::sleep(time).await;
            ended.store(true, Ordering::Relaxed);
        }
        let mut parts = Vec::new();
        for task in tasks {
            parts.push(task.await.expect("a connection does not panic"));
        }
        parts
    });
    let mut measured = Measured {
        seconds: started.elapsed().as_secs_f64(),
        ..Measured::default()
    };
    for part in parts {
        measured.answered += part.answered;
        measured.refused += part.refused;
        measured.latencies.extend(part.latencies);
    }
    measured.cpu_micros =
        (server.cpu_micros() - cpu_before) as f64 / measured.answered.max(1) as f64;
    measured
}

async fn connection(
    address: String,
    run: u64,
    bodies: Arc<Vec<Body>>,
    next: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    stop: Stop,
) -> Measured {
    let mut measured = Measured::default();
    let mut stream = TcpStream::connect(&address)
        .await
        .expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut request, mut answer) = (Vec::new(), vec![0; 4096]);
    while !ended.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if matches!(stop, Stop::Events(events) if number >= events) {
            break;
        }
        // A multiplier that is prime to the count visits every body.
        let body = &bodies[(number as usize).wrapping_mul(1_000_003) % bodies.len()];
        body.request(&event::id(run, number), &mut request);
        let sent = Instant::now();
        stream.write_all(&request).await.expect("the server reads");
        let status = answered(&mut stream, &mut answer).await;
        if status == 200 {
            measured.answered += 1;
            measured
                .latencies
                .push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        } else {
            measured.refused += 1;
            assert!(matches!(status, 429 | 503), "status {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    measured
}

/// Reads one answer, which always has a length and fits the buffer.
async fn answered(stream: &mut TcpStream, answer: &mut [u8]) -> u16 {
    let mut len = 0;
    loop {
        let read = stream
            .read(&mut answer[len..])
            .await
            .expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        len += read;
        let text = String::from_utf8_lossy(&answer[..len]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(str::to_owned)
            })
            .and_then(|length| length.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0);
        }
    }
}

/// Fills a store and looks at the cost of an event, a list, a page and a start on the way.
fn growth(options: &Options) {
    print_machine();
    let data = options.data.clone().unwrap_or_else(|| directory("growth"));
    std::fs::create_dir_all(&data).expect("the directory can be made");
    if !data.join("backstop.db").exists() {
        create_project(&data);
    }
    let bodies = Arc::new(event::bodies(options.bytes, ISSUES * 10, 1));
    let mut stored = events_in(&data);
    let mut mark = 10_000;
    while mark <= stored {
        mark *= 10;
    }
    let mut server = Server::backstop(&data);
    while stored < options.growth {
        // The last tenth before each mark is what is measured.
        let quiet = (mark - mark / 10)
            .min(options.growth)
            .saturating_sub(stored);
        stored += load(&server, options.connections, Stop::Events(quiet), &bodies).answered;
        if stored >= options.growth {
            break;
        }
        let mut measured = load(
            &server,
            options.connections,
            Stop::Events(mark - stored),
            &bodies,
        );
        stored += measured.answered;
        measured.print(&format!("  at {stored} events"));
        println!(
            "  memory {:.1} MB, disk {:.2} kB per event",
            server.pss_bytes() as f64 / 1e6,
            size_of(&data) as f64 / 1e3 / stored as f64
        );
        server.kill();
        print_reads(&data);
        let started = Instant::now();
        server = Server::backstop(&data);
        println!(
            "  start after a kill: {:.0} ms",
            started.elapsed().as_secs_f64() * 1000.0
        );
        print_pages(&server, &data);
        mark *= 10;
    }
    server.kill();
    if options.data.is_none() {
        // The figures are printed; what is left on the disk is of no use.
        let _ = std::fs::remove_dir_all(&data);
    }
}

/// Returns how many events were stored in a directory before.
fn events_in(data: &Path) -> u64 {
    let store = Store::open(data).expect("the store opens");
    let outcomes = store.outcomes(None, Timestamp::default());
    let accepted = outcomes.expect("a table").into_iter();
    accepted
        .filter(|outcome| outcome.reason == "accepted")
        .map(|outcome| outcome.count)
        .sum()
}

/// Measures what pages ask of the store.
fn print_reads(data: &Path) {
    let store = Store::open(data).expect("the store opens");
    let median = |mut work: Box<dyn FnMut() + '_>| {
        let mut micros: Vec<_> = (0..21)
            .map(|_| {
                let started = Instant::now();
                work();
                started.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        micros[10] as f64 / 1000.0
    };
    let page = store.issues(&IssueQuery::default()).expect("a list");
    let issue = page.issues[0].clone();
    let list = median(Box::new(|| drop(store.issues(&IssueQuery::default()))));
    let search = median(Box::new(|| {
        drop(store.issues(&IssueQuery::parse("is:unresolved payment charge")));
    }));
    let rare = median(Box::new(|| {
        drop(store.issues(&IssueQuery::parse("charge_card_abc")));
    }));
    let one = median(Box::new(|| {
        drop(store.issue(issue.id));
        drop(store.issue_event(issue.id, backstop_tracker::model::Which::Latest));
        drop(store.tags(issue.id, 10));
    }));
    println!(
        "  list {list:.1} ms, search of a common word {search:.1} ms, of a rare one {rare:.1} ms, issue with event and tags {one:.1} ms"
    );
}

/// Measures pages as a browser gets them.
fn print_pages(server: &Server, data: &Path) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let at = |seconds| Timestamp::from_micros(seconds as i64 * 1_000_000);
    let store = Store::open(data).expect("the store opens");
    let email = format!("{now}@example.com");
    let user = store.create_user(&email, "Bench", at(now)).expect("a user");
    let session = store.create_session(user.id, at(now), at(now + 3600));
    let session = session.expect("a session");
    let page = store.issues(&IssueQuery::default()).expect("a list");
    let issue = page.issues[page.issues.len() / 2].id;
    for (name, path) in [
        ("issue list", "/".to_owned()),
        ("issue page", format!("/issues/{issue}/")),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: backstop_session={}\r\n\r\n",
            session.expose()
        );
        let mut length = 0;
        let mut micros: Vec<_> = (0..51)
            .map(|_| {
                let started = Instant::now();
                let mut stream = std::net::TcpStream::connect(&server.address).expect("it listens");
                stream.write_all(request.as_bytes()).expect("it reads");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).expect("it answers");
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{path} is not shown");
                length = answer.len();
                started.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        println!(
            "  {name}: p50 {:.1} ms, p96 {:.1} ms, {:.0} kB",
            micros[25] as f64 / 1000.0,
            micros[49] as f64 / 1000.0,
            length as f64 / 1000.0
        );
    }
}

/// How quiet the machine is decides what the figures are worth.
fn print_machine() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load average {}", load.trim());
}

/// The floor of every commit: appending 32 KiB to a file that is there, and syncing it.
fn print_fdatasync(directory: &Path) {
    let path = directory.join("fdatasync");
    let mut file = File::create(&path).expect("a file can be made");
    file.write_all(&vec![0; 32 << 20])
        .and_then(|()| file.sync_all())
        .expect("32 MB of room");
    let block = vec![7; 32 << 10];
    let mut micros: Vec<_> = (0..300_u64)
        .map(|number| {
            let started = Instant::now();
            file.write_all_at(&block, number * (64 << 10))
                .and_then(|()| file.sync_data())
                .expect("the disk works");
            started.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    println!(
        "fdatasync of 32 KiB: p50 {:.2} ms, p99 {:.2} ms",
        micros[150] as f64 / 1000.0,
        micros[297] as f64 / 1000.0
    );
    // It is in the way of measuring sizes.
    let _ = std::fs::remove_file(path);
}
