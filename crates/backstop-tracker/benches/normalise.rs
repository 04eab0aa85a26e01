//! What an event costs before it is grouped, in one run, as ratios.
//!
//! `cargo bench -p backstop-tracker --bench normalise` prints for each step the best time of many
//! rounds and its ratio to `sonic-rs` reading a partial struct of the same event.

use std::hint::black_box;
use std::time::{Duration, Instant};

use backstop_protocol::{Envelope, Event};
use backstop_tracker::ingest::fuzz;

#[path = "../../backstop-protocol/benches/support/partial.rs"]
mod partial;
#[path = "../../backstop-protocol/benches/support/event.rs"]
mod sample;

use partial::Partial;

const ROUNDS: usize = 200;
const RUNS_PER_ROUND: u32 = 20;

fn main() {
    let event = sample::event();
    let mut envelope = b"{}\n{\"type\":\"event\"}\n".to_vec();
    envelope.extend(&event);
    let sonic = || drop(black_box(sonic_rs::from_slice::<Partial>(&event).unwrap()));
    println!("event of {} bytes; best of {ROUNDS} rounds", event.len());
    let rows: [(&str, &dyn Fn()); 5] = [
        ("sonic-rs, partial struct", &sonic),
        ("envelope", &|| {
            let items = Envelope::read(&envelope).unwrap().items;
            black_box(items.map(|item| item.unwrap().payload.len()).sum::<usize>());
        }),
        ("decode", &|| {
            drop(black_box(Event::decode(&event).unwrap()));
        }),
        ("decode, normalise", &|| {
            drop(black_box(fuzz::prepared(&event, false).unwrap()));
        }),
        ("decode, normalise, scrub", &|| {
            drop(black_box(fuzz::prepared(&event, true).unwrap()));
        }),
    ];
    let base = measure(&sonic);
    for (name, run) in rows {
        let best = measure(run);
        println!(
            "{name:<26} {:>7.2} us {:>5.2} x",
            best.as_secs_f64() * 1e6,
            best.as_secs_f64() / base.as_secs_f64()
        );
    }
}

/// Returns the best time of one run.
fn measure(run: &dyn Fn()) -> Duration {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..RUNS_PER_ROUND {
            run();
        }
        start.elapsed() / RUNS_PER_ROUND
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}
