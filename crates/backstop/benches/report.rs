//! What a report costs the request that fails: everything until it is in the queue.
//!
//! ```text
//! cargo bench -p backstop --bench report
//! ```

use std::time::{Duration, Instant};

use backstop::report::{Answer, Client, InProcess, Options, Scope};

const ROUNDS: usize = 40;
const EVENTS: u32 = 100;

#[inline(never)]
fn fail(depth: usize) -> backstop::Result<u32> {
    // Some frames between the error and the executor, as in a real program.
    if depth > 0 {
        return fail(depth - 1).map(|number| number + 1);
    }
    Ok("x".parse::<u32>()?)
}

/// Returns the best time of one call in microseconds, and the median of the rounds.
fn measure(mut call: impl FnMut(), mut between: impl FnMut()) -> (f64, f64) {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..EVENTS {
            call();
        }
        rounds.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(EVENTS));
        between();
    }
    rounds.sort_by(f64::total_cmp);
    (rounds[0], rounds[ROUNDS / 2])
}

fn main() {
    // A tracker that takes no time: what is measured is the caller's side.
    let tracker = InProcess::new(|_| Answer::stored());
    let options = Options::default().queue_events_max(EVENTS as usize * 2);
    let client = Client::in_process(tracker, options);
    let scope = Scope::new()
        .client(client.clone())
        .tag("route", "/checkout");
    let flush = || {
        client.flush(Duration::from_secs(60));
    };
    backstop_capture::warm_up();
    scope.run(|| {
        let error = fail(15).expect_err("x is no number");
        let show = |what: &str, (best, median): (f64, f64)| {
            println!("{what:<44} best {best:>7.2} µs   median {median:>7.2} µs");
        };
        show(
            "an error is made, 15 frames deep",
            measure(|| drop(std::hint::black_box(fail(15))), || {}),
        );
        show(
            "an error is queued",
            measure(
                || {
                    std::hint::black_box(client.capture(&error));
                },
                flush,
            ),
        );
        show(
            "both (target 60)",
            measure(
                || {
                    if let Err(error) = fail(15) {
                        std::hint::black_box(client.capture(&error));
                    }
                },
                flush,
            ),
        );
    });
}
