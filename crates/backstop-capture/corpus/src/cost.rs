//! What a capture costs, next to the standard library's `Backtrace`.
//!
//! `cost capture`, `cost std`, `cost addresses` and `cost force` each measure one thing in a
//! fresh process, in CPU time of the thread; `cost` alone runs all of them.

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::process::Command;

use backstop_capture::{Policy, Values, snapshot};

const KINDS: [&str; 4] = ["capture", "std", "addresses", "force"];
const ROUNDS: usize = 200;

fn main() {
    let kind = std::env::args().nth(1);
    if let Some(kind) = kind {
        nest(20, &kind, "a text", &[1, 2, 3]);
        return;
    }
    let this = std::env::current_exe().expect("this program has a path");
    println!(
        "| measured | first, CPU ms | later, CPU ms (median) | anonymous memory after the first, KiB |"
    );
    println!("| --- | --- | --- | --- |");
    for kind in KINDS {
        let output = Command::new(&this)
            .arg(kind)
            .output()
            .expect("the program can be run again");
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[derive(Debug)]
struct State {
    name: String,
    list: Vec<u64>,
}

#[inline(never)]
fn nest(depth: u32, kind: &str, text: &str, slice: &[u64]) -> usize {
    let state = State {
        name: format!("{text} {depth}"),
        list: slice.to_vec(),
    };
    let len = if depth == 0 {
        measure(kind)
    } else {
        nest(depth - 1, kind, &state.name, &state.list)
    };
    black_box((&state, len)).1
}

#[inline(never)]
fn measure(kind: &str) -> usize {
    let policy = Policy::default();
    let addresses = Policy {
        values: Values::Addresses,
        ..Policy::default()
    };
    let mut unlimited = policy.clone();
    unlimited.limits.per_place_per_second = u32::MAX;
    let once = || match kind {
        "capture" => snapshot(&unlimited).resolve().len(),
        "std" => Backtrace::force_capture().to_string().len(),
        "addresses" => snapshot(&addresses).addresses().len(),
        _ => {
            black_box(Backtrace::force_capture());
            1
        }
    };
    let before = anonymous_kib();
    let (first, len) = timed(once);
    let after = anonymous_kib();
    let mut later: Vec<f64> = (0..ROUNDS).map(|_| timed(once).0).collect();
    later.sort_by(f64::total_cmp);
    let name = match kind {
        "capture" => "stack with in-app values, named",
        "std" => "`std::backtrace`, captured and written",
        "addresses" => "addresses only",
        _ => "`Backtrace::force_capture`, not written",
    };
    println!(
        "| {name} | {first:.2} | {:.3} | {} |",
        later[ROUNDS / 2],
        after.saturating_sub(before)
    );
    len
}

fn timed(work: impl Fn() -> usize) -> (f64, usize) {
    let start = cpu_ms();
    let len = work();
    (cpu_ms() - start, len)
}

fn cpu_ms() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` has room for what the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
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
