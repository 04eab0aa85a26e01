//! What a capture costs in an axum service, next to the standard library's `Backtrace` and
//! to the `sentry` crate.
//!
//! `cost KIND` measures one thing in a fresh process: a request is answered by an async
//! handler, which calls down six functions, and the innermost one measures. `cost` alone
//! runs every kind several times and prints the medians and the ratios that matter.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use backstop_capture::{Policy, Values, snapshot};

/// Fresh processes of each kind; the median counts.
const PROCESSES: usize = 5;
/// Captures after the first one in a process.
const ROUNDS: usize = 300;
/// Captures between two looks at the clock, where one takes microseconds.
const BATCH: usize = 20;

fn main() {
    match std::env::args().nth(1) {
        Some(kind) => serve(kind),
        None => compare(),
    }
}

/// Runs everything and prints the tables.
fn compare() {
    let kinds = ["capture", "std", "sentry", "addresses", "warm"];
    let runs: BTreeMap<&str, Run> = kinds.map(|kind| (kind, Run::of(kind))).into();
    let of = |kind: &str, name: &str| runs[kind].median(name);
    println!("| first in a fresh process | CPU, ms | anonymous memory, KiB |");
    println!("| --- | --- | --- |");
    for (kind, label) in [
        ("capture", "stack with in-app values, named"),
        ("std", "`std::backtrace`, captured and written"),
        ("sentry", "`sentry` event with `attach_stacktrace`"),
    ] {
        let (first, memory) = (of(kind, "first"), of(kind, "memory"));
        println!("| {label} | {first:.1} | {memory:.0} |");
    }
    println!("\n| later ones | median CPU, ms | most, ms |");
    println!("| --- | --- | --- |");
    for (kind, label) in [
        ("capture", "stack with in-app values, named"),
        ("std", "`std::backtrace`, captured and written"),
        ("sentry", "`sentry` event with `attach_stacktrace`"),
    ] {
        let (later, most) = (of(kind, "later"), of(kind, "most"));
        println!("| {label} | {later:.3} | {most:.2} |");
    }
    println!("\n| addresses only | median CPU, us |");
    println!("| --- | --- |");
    let (own, force) = (of("addresses", "own"), of("addresses", "force"));
    println!("| `snapshot` with `Values::Addresses` | {own:.2} |");
    println!("| `Backtrace::force_capture` | {force:.2} |");
    println!("\n| | measured | at most |");
    println!("| --- | --- | --- |");
    let ratio = |name, left, right| of(left, name) / of(right, name);
    let rows = [
        ("first capture: CPU, share of std's", ratio("first", "capture", "std"), 0.4),
        ("first capture: anonymous memory, share of std's", ratio("memory", "capture", "std"), 0.15),
        ("later captures: CPU, ms", of("capture", "later"), 1.0),
        ("later captures: CPU, share of sentry's", ratio("later", "capture", "sentry"), 0.5),
        ("addresses only: CPU, share of `force_capture`", own / force, 1.2),
        ("after `warm_up`: the slowest capture, ms by the clock", runs["warm"].most("most"), 50.0),
    ];
    for (label, measured, limit) in rows {
        println!("| {label} | {measured:.3} | {limit} |");
    }
    println!(
        "\n{} frames with {} values; after `warm_up` the first capture took {:.2} ms by the clock.",
        of("capture", "frames"),
        of("capture", "values"),
        of("warm", "first"),
    );
}

/// What the processes of one kind printed: each number by its name.
struct Run(Vec<BTreeMap<String, f64>>);

impl Run {
    fn of(kind: &str) -> Run {
        let this = std::env::current_exe().expect("this program has a path");
        let one = |_| {
            let output = Command::new(&this).arg(kind).output();
            let output = output.expect("the program can be run again");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let number = |line: &str| {
                let (name, value) = line.split_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            };
            text.lines().filter_map(number).collect()
        };
        Run((0..PROCESSES).map(one).collect())
    }

    fn median(&self, name: &str) -> f64 {
        let values = self.0.iter().filter_map(|run| run.get(name).copied());
        median(values.collect())
    }

    fn most(&self, name: &str) -> f64 {
        let values = self.0.iter().filter_map(|run| run.get(name).copied());
        values.fold(0.0, f64::max)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Answers one request, in which the kind is measured.
fn serve(kind: String) {
    if kind == "warm" {
        backstop_capture::warm_up();
    }
    let _client = (kind == "sentry").then(|| {
        let mut options = sentry::ClientOptions::default();
        options.dsn = "http://public@127.0.0.1:9/1".parse().ok();
        options.attach_stacktrace = true;
        options.transport = Some(Arc::new(Nowhere));
        // The event is whole by then; it need not be sent.
        options.before_send = Some(Arc::new(|event| {
            black_box(event);
            None
        }));
        sentry::init(options)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can start");
    runtime.block_on(async {
        let shop = Arc::new(Shop {
            region: "eu".to_owned(),
            rates: vec![("eu".to_owned(), 19), ("us".to_owned(), 8)],
            kind,
        });
        let router = Router::new()
            .route("/checkout/{id}", get(checkout))
            .with_state(shop);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = reqwest::Client::builder().no_proxy().build();
        let client = client.expect("a client can be made");
        let url = format!("http://{address}/checkout/7");
        let answer = client.get(url).send().await.expect("it answers");
        assert!(answer.status().is_success());
    });
}

/// Sends nothing.
struct Nowhere;

impl sentry::Transport for Nowhere {
    fn send_envelope(&self, envelope: sentry::Envelope) {
        black_box(envelope);
    }
}

impl sentry::TransportFactory for Nowhere {
    fn create_transport(&self, _: &sentry::ClientOptions) -> Arc<dyn sentry::Transport> {
        Arc::new(Nowhere)
    }
}

#[derive(Debug)]
struct Shop {
    region: String,
    rates: Vec<(String, u32)>,
    kind: String,
}

#[derive(Debug)]
struct Cart {
    id: u64,
    items: Vec<(String, u32)>,
    note: Option<String>,
}

#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

async fn checkout(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> String {
    let cart = lookup(&shop, id).await;
    let request_id = format!("r-{id}");
    let total = total(&shop, &cart, &request_id);
    black_box(&cart);
    format!("{request_id} {total}")
}

async fn lookup(shop: &Shop, id: u64) -> Cart {
    tokio::task::yield_now().await;
    let items = vec![("lamp".to_owned(), 3), ("desk".to_owned(), 1)];
    black_box(&shop.region);
    Cart { id, items, note: None }
}

#[inline(never)]
fn total(shop: &Shop, cart: &Cart, request: &str) -> u32 {
    let mut sum = 0;
    for (name, count) in &cart.items {
        let price = priced(shop, name, *count);
        sum += price;
        if sum > 1000 {
            break;
        }
    }
    black_box((sum, request, cart.id, &cart.note)).0
}

#[inline(never)]
fn priced(shop: &Shop, name: &str, count: u32) -> u32 {
    let label = format!("{count} x {name}");
    let rate = rate(shop, &label);
    black_box(&label).len() as u32 * rate * 100
}

#[inline(never)]
fn rate(shop: &Shop, label: &str) -> u32 {
    let region = shop.region.as_str();
    let found = shop.rates.iter().find(|(known, _)| known == region);
    let percent = found.map_or(0, |(_, percent)| *percent);
    let margin = percent / 2;
    refuse(shop, label, percent) + black_box(margin)
}

#[inline(never)]
fn refuse(shop: &Shop, label: &str, percent: u32) -> u32 {
    let reason = Refused(format!("no {label} at {percent} %"));
    measure(&shop.kind, &reason);
    black_box((&reason, percent)).1
}

#[inline(never)]
fn measure(kind: &str, reason: &Refused) {
    let mut policy = Policy::default();
    policy.limits.per_place_per_second = u32::MAX;
    match kind {
        "capture" => {
            report(|| snapshot_and_name(&policy).0);
            let frames = snapshot_and_name(&policy);
            println!("frames {}\nvalues {}", frames.0, frames.1);
        }
        "warm" => report(|| snapshot_and_name(&policy).0),
        "std" => report(|| Backtrace::force_capture().to_string().len()),
        "sentry" => report(|| sentry::capture_error(reason).to_string().len()),
        "addresses" => addresses(),
        other => panic!("{other} is no kind"),
    }
}

fn snapshot_and_name(policy: &Policy) -> (usize, usize) {
    let frames = snapshot(policy).resolve();
    (frames.len(), frames.iter().map(|frame| frame.vars.len()).sum())
}

/// The first, and then many more.
fn report(once: impl Fn() -> usize) {
    let before = anonymous_kib();
    let (first, first_wall) = timed(&once);
    let after = anonymous_kib();
    let later: Vec<(f64, f64)> = (0..ROUNDS).map(|_| timed(&once)).collect();
    let most = later.iter().map(|(_, wall)| *wall).fold(first_wall, f64::max);
    println!("first {first}\nmemory {}", after.saturating_sub(before));
    println!("later {}\nmost {most}", median(later.into_iter().map(|(cpu, _)| cpu).collect()));
}

/// Both in turn, so that neither has a better time.
fn addresses() {
    let policy = Policy {
        values: Values::Addresses,
        ..Policy::default()
    };
    let batch = |once: &dyn Fn()| timed(|| (0..BATCH).map(|_| once()).count()).0 * 1e3 / BATCH as f64;
    let (mut own, mut force) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(batch(&|| drop(black_box(snapshot(&policy)))));
        force.push(batch(&|| drop(black_box(Backtrace::force_capture()))));
    }
    println!("own {}\nforce {}", median(own), median(force));
}

/// CPU time of the process and time by the clock, in ms.
fn timed(work: impl Fn() -> usize) -> (f64, f64) {
    let (cpu, wall) = (cpu_ms(), Instant::now());
    black_box(work());
    (cpu_ms() - cpu, wall.elapsed().as_secs_f64() * 1e3)
}

fn cpu_ms() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` has room for what the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(0)
}
