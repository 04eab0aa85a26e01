//! How long grouping takes, next to decoding the same events.
//!
//! `cargo bench -p backstop-tracker --bench grouping`; `BACKSTOP_GROUPING` names the directory
//! with `events.jsonl`.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstop_protocol::Event;
use backstop_tracker::grouping::Grouper;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 20;
/// The size of an event with source context and local variables.
const FULL_BYTES: usize = 27_000;

fn main() {
    let dir = std::env::var_os("BACKSTOP_GROUPING").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/grouping"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(dir.join("events.jsonl")) else {
        println!(
            "no events.jsonl in {}; set BACKSTOP_GROUPING",
            dir.display()
        );
        return;
    };
    let lines: Vec<&str> = text.lines().collect();
    measure("events as they are", &lines);
    let full: Vec<String> = lines.iter().map(|line| fill_up(line)).collect();
    let full: Vec<&str> = full.iter().map(String::as_str).collect();
    measure("filled up to 27 KB", &full);
}

/// Adds what else events carry: breadcrumbs.
fn fill_up(line: &str) -> String {
    let mut event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let crumb = serde_json::json!({
        "timestamp": 1_795_364_899.2, "category": "query", "type": "default", "level": "info",
        "message": "SELECT orders.id, orders.total FROM orders WHERE orders.customer = ?",
        "data": {"duration": 0.4, "rows": 12},
    });
    let missing = FULL_BYTES.saturating_sub(line.len()) / crumb.to_string().len();
    event["breadcrumbs"] = serde_json::json!({ "values": vec![crumb; missing] });
    event.to_string()
}

/// The time of each event is its best of all rounds, so that other work on the machine and
/// interrupted rounds do not count.
fn measure(name: &str, lines: &[&str]) {
    let mut decode = vec![Duration::MAX; lines.len()];
    let mut normalise = decode.clone();
    let mut group = decode.clone();
    for _ in 0..ROUNDS {
        let grouper = Grouper::new();
        for (index, line) in lines.iter().enumerate() {
            let start = Instant::now();
            let Ok(mut event) = Event::decode(line.as_bytes()) else {
                continue;
            };
            let decoded = Instant::now();
            grouper.normalise(&mut event);
            let normalised = Instant::now();
            black_box(grouper.group(&event));
            let grouped = Instant::now();
            decode[index] = decode[index].min(decoded - start);
            normalise[index] = normalise[index].min(normalised - decoded);
            group[index] = group[index].min(grouped - normalised);
        }
    }
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let micros = |times: &[Duration]| {
        times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len().max(1) as f64
    };
    println!(
        "{name}: {} events of {} bytes\n  decode {:.1} µs, normalise {:.1} µs, group {:.1} µs; both are {:.2} of decoding",
        lines.len(),
        bytes / lines.len().max(1),
        micros(&decode),
        micros(&normalise),
        micros(&group),
        (micros(&normalise) + micros(&group)) / micros(&decode),
    );
}
