//! Futures: chains of awaits, first and later polls, tasks, select, boxed futures.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::time::Duration;

use crate::witness::capture;

#[derive(Debug, Clone)]
#[allow(dead_code)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    customer: String,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
struct Line {
    sku: &'static str,
    amount: u32,
}

fn order(id: u64) -> Order {
    Order {
        id,
        lines: vec![
            Line {
                sku: "x",
                amount: 2,
            },
            Line {
                sku: "y",
                amount: 1,
            },
        ],
        customer: format!("customer {id}"),
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can start");
    runtime.block_on(future)
}

pub fn awaits() {
    block_on(async {
        let result = checkout(order(7), "eu").await;
        black_box(result);
        let first = first_poll(order(8), 3).await;
        black_box(first);
        let boxed = boxed_chain(4).await;
        black_box(boxed);
        let looped = looped(vec![1, 2, 3]).await;
        black_box(looped);
        let branch = branches(true, 5).await;
        black_box(branch);
        let parsed = convert("12", "z").await;
        black_box(parsed.is_err());
    });
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn checkout(order: Order, region: &str) -> u64 {
    let subtotal = subtotal(&order);
    let rate = rate(region, subtotal).await;
    let total = subtotal * rate;
    truth!("checkout": order, region, subtotal);
    black_box(total)
}

fn subtotal(order: &Order) -> u64 {
    order
        .lines
        .iter()
        .map(|line| u64::from(line.amount) * 100)
        .sum()
}

async fn rate(region: &str, amount: u64) -> u64 {
    let key = format!("rate/{region}");
    let before = amount + 1;
    pause().await;
    let found = lookup(&key, amount);
    truth!("rate": region, amount, key, before);
    black_box((found, before)).0
}

#[inline(never)]
fn lookup(key: &str, amount: u64) -> u64 {
    let len = key.len();
    truth!("lookup": key, amount, len);
    capture();
    black_box(len) as u64 + amount
}

async fn first_poll(order: Order, factor: u32) -> u64 {
    let id = order.id;
    let scaled = id * u64::from(factor);
    let inner = inner_first(&order, scaled).await;
    truth!("first_poll": order, factor, id, scaled);
    pause().await;
    black_box((&order, inner, id, scaled)).1
}

async fn inner_first(order: &Order, scaled: u64) -> u64 {
    let lines = order.lines.len();
    let note = String::from("note");
    truth!("inner_first": order, scaled, lines, note);
    capture();
    pause().await;
    black_box((order, &note, lines)).2 as u64 + scaled
}

fn boxed_chain(depth: u32) -> Pin<Box<dyn Future<Output = u32> + Send>> {
    Box::pin(async move {
        let label = format!("depth {depth}");
        truth!("boxed_chain": depth, label);
        let below = if depth == 0 {
            pause().await;
            capture();
            0
        } else {
            boxed_chain(depth - 1).await
        };
        black_box((&label, below)).1 + 1
    })
}

async fn looped(numbers: Vec<u32>) -> u32 {
    let mut sum = 0;
    for (index, number) in numbers.iter().enumerate() {
        let doubled = number * 2;
        pause().await;
        sum += doubled;
        if index == 2 {
            let average = sum / 3;
            truth!("looped": numbers, sum, index, number, doubled, average);
            capture();
            black_box(average);
        }
    }
    black_box((&numbers, sum)).1
}

async fn branches(deep: bool, seed: u64) -> u64 {
    let short_lived = seed * 7;
    black_box(short_lived);
    let kept = seed + 1;
    if deep {
        let local = format!("local {seed}");
        pause().await;
        let after = kept * 2;
        truth!("branches": deep, seed, kept, local, after);
        gone!("branches": short_lived);
        capture();
        black_box((&local, after));
    }
    pause().await;
    black_box(kept)
}

#[derive(Debug)]
struct AppError;

impl<E: std::error::Error> From<E> for AppError {
    #[track_caller]
    fn from(_: E) -> AppError {
        capture();
        AppError
    }
}

async fn convert(good: &str, bad: &str) -> Result<u64, AppError> {
    let first: u64 = good.parse()?;
    let context = vec![first; 2];
    pause().await;
    truth!("convert": good, bad, first, context);
    let second: u64 = bad.parse()?;
    black_box((&context, second));
    Ok(first + second)
}

pub fn tasks() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can start");
    runtime.block_on(async {
        let task = tokio::spawn(work(order(1), 5));
        black_box(task.await.is_err());
        let selected = select(9, "right").await;
        black_box(selected);
        let joined = tokio::join!(side(1, "one"), side(2, "two"));
        black_box(joined);
        let timed = tokio::time::timeout(Duration::from_secs(5), side(3, "three")).await;
        black_box(timed.is_ok());
    });
}

async fn work(order: Order, limit: u32) -> u64 {
    let started = order.id * 10;
    let steps = prepare(&order, limit).await;
    truth!("work": order, limit, started);
    black_box((started, steps)).1
}

async fn prepare(order: &Order, limit: u32) -> u64 {
    let names: Vec<&str> = order.lines.iter().map(|line| line.sku).collect();
    pause().await;
    let checked = check(&names, limit as usize).await;
    truth!("prepare": order, limit, names);
    black_box((&names, checked)).1
}

async fn check(names: &[&str], index: usize) -> u64 {
    let count = names.len();
    pause().await;
    truth!("check": names, index, count);
    let name = names[index];
    black_box((count, name)).0 as u64
}

async fn select(left: u64, right: &str) -> u64 {
    let before = left + 1;
    let winner = tokio::select! {
        value = side(left, right) => value,
        () = tokio::time::sleep(Duration::from_secs(5)) => 0,
    };
    black_box((before, winner)).1
}

async fn side(number: u64, name: &str) -> u64 {
    let label = format!("{name} {number}");
    pause().await;
    let len = label.len() as u64;
    truth!("side": number, name, label, len);
    capture();
    black_box((&label, len)).1
}
