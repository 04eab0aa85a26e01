//! A program that fails in two ways and reports it with the `sentry` crate: `DSN` says where to.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use anyhow::Context as _;

fn connect(backend: &str, attempts: u32) -> anyhow::Result<()> {
    let refused = io::Error::new(io::ErrorKind::TimedOut, "no answer in 3 s");
    Err(refused).with_context(|| format!("{backend} refuses to reserve after {attempts} attempts"))
}

#[inline(never)]
fn reserve() {
    if let Err(error) = connect("inventory-7", black_box(3)) {
        sentry::integrations::anyhow::capture_anyhow(&error);
    }
}

#[inline(never)]
fn split_bill(total_cents: u64, guests: u64) -> u64 {
    total_cents / guests
}

fn main() {
    let options = sentry::ClientOptions {
        dsn: std::env::var("DSN").expect("DSN is set").parse().ok(),
        release: sentry::release_name!(),
        attach_stacktrace: true,
        ..Default::default()
    };
    let _client = sentry::init(options);
    reserve();
    let split = std::thread::spawn(|| split_bill(4200, black_box(0)));
    assert!(split.join().is_err(), "nobody can pay");
    reserve();
    let client = sentry::Hub::current().client().expect("a client");
    assert!(client.flush(Some(Duration::from_secs(20))), "everything is sent");
}
