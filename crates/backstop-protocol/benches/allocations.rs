//! How often decoding asks for memory. It is a program of its own, because counting costs time.

use std::hint::black_box;

use backstop_protocol::{Envelope, Event};
use serde_json::Value;

#[path = "support/event.rs"]
mod sample;

fn main() {
    let event = sample::event();
    let mut envelope = b"{}\n{\"type\":\"event\"}\n".to_vec();
    envelope.extend(&event);
    println!("event of {} bytes", event.len());
    count("serde_json, Value", || {
        drop(black_box(serde_json::from_slice::<Value>(&event).unwrap()));
    });
    count("Event::decode, everything", || {
        drop(black_box(Event::decode(&event).unwrap()));
    });
    count("Envelope::read and its items", || {
        let envelope = Envelope::read(&envelope).unwrap();
        black_box(envelope.items.count());
    });
}

fn count(name: &str, run: impl Fn()) {
    let measured = allocation_counter::measure(run);
    println!(
        "{name:<30} {:>6} allocations  {:>8} bytes at once",
        measured.count_total, measured.bytes_max
    );
}
