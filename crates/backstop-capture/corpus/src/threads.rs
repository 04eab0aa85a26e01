//! Panics on threads, caught and not.

use std::hint::black_box;
use std::sync::{Arc, Mutex, mpsc};

pub fn run() {
    let jobs = Arc::new(Mutex::new(vec!["a", "b"]));
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::clone(&jobs);
    let worker = std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            let job = receiver.recv().unwrap_or("none");
            work(job, &shared, 3)
        });
    sender.send("job").expect("the worker waits");
    let joined = worker.expect("a thread can start").join();
    black_box(joined.is_err());
    let caught = std::panic::catch_unwind(|| divide(10, black_box(0)));
    black_box(caught.is_err());
    let sum: u32 = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..2_u32).map(|n| scope.spawn(move || square(n))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or(0))
            .sum()
    });
    black_box(sum);
}

#[inline(never)]
fn work(job: &str, shared: &Mutex<Vec<&str>>, retries: u8) -> usize {
    let attempt = retries - 1;
    let queue = vec![job; 2];
    let held = shared.lock().expect("nobody panicked before").len();
    truth!("work": job, retries, attempt, queue, held);
    let index = held + 5;
    let picked = queue[index];
    black_box((picked, attempt));
    picked.len()
}

#[inline(never)]
fn divide(total: u32, parts: u32) -> u32 {
    let label = format!("{total}/{parts}");
    truth!("divide": total, parts, label);
    let result = total / parts;
    black_box((&label, result));
    result
}

#[inline(never)]
fn square(n: u32) -> u32 {
    let base = u64::from(n) + 1;
    let result = base * base;
    if n == 1 {
        truth!("square": n, base, result);
        panic!("square of {n}");
    }
    black_box(result) as u32
}
