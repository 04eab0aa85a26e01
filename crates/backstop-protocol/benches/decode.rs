//! Decoding against the fastest typed parser there is, in one run, as ratios.
//!
//! `cargo bench -p backstop-protocol --bench decode` prints for each step the best time of many
//! rounds and its ratio to `sonic-rs` reading a partial struct. The tracker's bench `normalise` has
//! what ingest does after it.
//! The event is like that of a Flask application: 18 frames with source lines and variables, 27 KB.

use std::hint::black_box;
use std::time::{Duration, Instant};

use backstop_protocol::{Envelope, Event};
use serde_json::{Value, json};

#[path = "support/partial.rs"]
mod partial;
#[path = "support/event.rs"]
mod sample;

use partial::Partial;

const ROUNDS: usize = 200;
const RUNS_PER_ROUND: u32 = 20;

fn main() {
    let event = sample::event();
    let mut envelope = format!(
        "{}\n{{\"type\":\"event\"}}\n",
        json!({"event_id": "0".repeat(32)})
    )
    .into_bytes();
    envelope.extend(&event);
    println!("event of {} bytes; best of {ROUNDS} rounds", event.len());
    let partial = measure(|| drop(black_box(sonic_rs::from_slice::<Partial>(&event).unwrap())));
    let rows: [(&str, &dyn Fn()); 5] = [
        ("sonic-rs, partial struct", &|| {
            drop(black_box(sonic_rs::from_slice::<Partial>(&event).unwrap()));
        }),
        ("serde_json, partial struct", &|| {
            drop(black_box(
                serde_json::from_slice::<Partial>(&event).unwrap(),
            ));
        }),
        ("serde_json, Value", &|| {
            drop(black_box(serde_json::from_slice::<Value>(&event).unwrap()));
        }),
        ("Event::decode, everything", &|| {
            drop(black_box(Event::decode(&event).unwrap()));
        }),
        ("Envelope::read and its items", &|| {
            let envelope = Envelope::read(&envelope).unwrap();
            black_box(
                envelope
                    .items
                    .map(|item| item.unwrap().payload.len())
                    .sum::<usize>(),
            );
        }),
    ];
    // A word of a row's name measures only that one, for a profiler.
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    for (name, run) in rows {
        if only
            .as_ref()
            .is_some_and(|word| !name.contains(word.as_str()))
        {
            continue;
        }
        let best = measure(run);
        println!(
            "{name:<30} {:>8.1} us  {:>5.2} x",
            best.as_secs_f64() * 1e6,
            best.as_secs_f64() / partial.as_secs_f64(),
        );
    }
}

/// Returns the best time of one run.
fn measure(run: impl Fn()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..RUNS_PER_ROUND {
                run();
            }
            start.elapsed() / RUNS_PER_ROUND
        })
        .min()
        .unwrap_or_default()
}
