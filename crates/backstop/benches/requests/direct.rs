//! The same applications without sockets: what a request takes between the server and the view.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tower::Service;

use crate::{Wanted, apps};

const REQUESTS: u32 = 2_000;
const ROUNDS: usize = 201;
const PROFILED: u32 = 100;

/// Answers some requests, and returns the nanoseconds for each.
fn block(router: &mut Router, path: &'static str) -> f64 {
    let start = Instant::now();
    for _ in 0..REQUESTS {
        black_box(answer(router, path));
    }
    start.elapsed().as_nanos() as f64 / f64::from(REQUESTS)
}

fn answer(router: &mut Router, path: &'static str) -> Response {
    let request = Request::get(path)
        .header("host", "localhost")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .body(Body::empty())
        .expect("it is a request");
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(router.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("no view waits"),
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|number| values[values.len() * number / 4])
}

/// Compares all applications that are wanted; of a single one, answers a few requests, so that a
/// profiler sees nothing else.
pub(crate) fn all(wanted: &Wanted) -> io::Result<()> {
    for path in ["/", "/none", "/full", "/full/now"] {
        let mut routers = vec![
            ("axum", apps::plain()),
            ("axum again", apps::plain()),
            ("fixed page", apps::plain_with_fixed_page()),
            ("page by hand", apps::plain_with_page()),
            ("empty layer", apps::in_a_layer()),
            ("layer with head", apps::in_a_layer_with_the_head()),
            ("backstop", apps::with_backstop()),
        ];
        routers.retain(|(name, _)| wanted.has(path, &[name]));
        // As `axum::serve` does it: once, and not for every request.
        for (_, router) in &mut routers {
            *router = std::mem::take(router).with_state(());
        }
        match &mut routers[..] {
            [(_, router)] => {
                block(router, path);
                profiled(router, path);
            }
            routers => compare(path, routers),
        }
    }
    Ok(())
}

/// Requests after the first ones, which are not like all others.
#[inline(never)]
fn profiled(router: &mut Router, path: &'static str) {
    for _ in 0..PROFILED {
        black_box(answer(router, path));
    }
}

/// Rounds in turn; prints what each takes, and how much more than the first.
fn compare(path: &'static str, routers: &mut [(&'static str, Router)]) {
    let mut all = vec![Vec::new(); routers.len()];
    for round in 0..ROUNDS {
        for number in 0..routers.len() {
            let number = (number + round) % routers.len();
            all[number].push(block(&mut routers[number].1, path));
        }
    }
    for (number, (name, _)) in routers.iter().enumerate() {
        let more = all[number]
            .iter()
            .zip(&all[0])
            .map(|(this, first)| this - first);
        let [lower, median, upper] = quartiles(more.collect());
        let [_, spent, _] = quartiles(all[number].clone());
        println!(
            "{path:<9} {name:<16} {spent:>7.1} ns   {median:>+7.1} ns ({lower:+.1} to {upper:+.1})"
        );
    }
}
