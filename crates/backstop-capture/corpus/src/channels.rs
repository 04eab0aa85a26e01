//! Futures that talk to each other: channels, locks, sets of tasks, blocking work.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, RwLock, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::witness::capture;

#[derive(Debug, Clone, PartialEq)]
enum Job {
    Resize { width: u16, height: u16, name: String },
    Mail(String, Vec<String>),
    Stop,
}

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can start");
    runtime.block_on(async {
        pipeline(3).await;
        let asked = question("depth", 5).await;
        black_box(asked);
        let ledger = Arc::new(Mutex::new(BTreeMap::new()));
        deposit(&ledger, "ann", 40).await;
        deposit(&ledger, "bob", 2).await;
        let crowd = crowd(vec![5, 6, 7]).await;
        black_box(crowd);
        let heavy = blocking(String::from("report"), 12).await;
        black_box(heavy);
        let shared = settings(2).await;
        black_box(shared);
        let retried = retry("flaky", 3).await;
        black_box(retried.is_err());
    });
}

async fn pipeline(count: u16) -> usize {
    let (sender, mut receiver) = mpsc::channel(2);
    let producer = tokio::spawn(async move {
        for number in 0..count {
            let job = Job::Resize {
                width: number * 10,
                height: 5,
                name: format!("picture {number}"),
            };
            if sender.send(job).await.is_err() {
                return;
            }
        }
        let mail = Job::Mail(String::from("ann"), vec![String::from("bob"); 2]);
        let sent = sender.send(mail).await;
        black_box((sent.is_ok(), sender.send(Job::Stop).await.is_ok()));
    });
    let mut handled = Vec::new();
    let mut seen = 0_usize;
    while let Some(job) = receiver.recv().await {
        seen += 1;
        truth!("pipeline": handled, seen);
        let label = handle(&job, seen).await;
        handled.push(label);
        if job == Job::Stop {
            break;
        }
    }
    truth!("pipeline": count, handled, seen);
    tokio::time::sleep(Duration::from_millis(1)).await;
    capture();
    black_box((producer.is_finished(), &handled, count));
    seen
}

async fn handle(job: &Job, number: usize) -> String {
    let kind = match job {
        Job::Resize { .. } => "resize",
        Job::Mail(..) => "mail",
        Job::Stop => "stop",
    };
    tokio::time::sleep(Duration::from_millis(1)).await;
    let label = format!("{number}: {kind}");
    if kind == "mail" {
        truth!("handle": job, number, kind, label);
        capture();
    }
    black_box((kind, number, job));
    label
}

async fn question(topic: &str, level: u8) -> u32 {
    let (answer, asked) = oneshot::channel::<u32>();
    let subject = format!("{topic}?");
    let asker = tokio::spawn(async move {
        let weight = u32::from(level) * 11;
        tokio::time::sleep(Duration::from_millis(1)).await;
        black_box(answer.send(weight).is_ok());
    });
    let received = asked.await.unwrap_or(0);
    truth!("question": topic, level, subject, received);
    capture();
    black_box((asker.is_finished(), &subject, level));
    received
}

async fn deposit(ledger: &Mutex<BTreeMap<String, i64>>, owner: &str, amount: i64) {
    let mut held = ledger.lock().await;
    let before = held.get(owner).copied();
    tokio::time::sleep(Duration::from_millis(1)).await;
    held.insert(owner.to_owned(), before.unwrap_or(0) + amount);
    let total: i64 = held.values().sum();
    if owner == "bob" {
        truth!("deposit": owner, amount, before, total);
        capture();
    }
    black_box((before, total));
}

async fn crowd(sizes: Vec<u64>) -> u64 {
    let gate = Arc::new(Semaphore::new(2));
    let mut tasks = JoinSet::new();
    for (index, size) in sizes.iter().copied().enumerate() {
        let gate = Arc::clone(&gate);
        tasks.spawn(async move {
            let permit = gate.acquire().await.expect("nobody closes it");
            let doubled = size * 2;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let tag = (index, doubled);
            if index == 2 {
                truth!("crowd::{async_block#0}": index, size, doubled, tag);
                capture();
            }
            black_box((&permit, tag));
            doubled
        });
    }
    let mut sum = 0;
    let mut finished = 0_u32;
    while let Some(result) = tasks.join_next().await {
        sum += result.unwrap_or(0);
        finished += 1;
    }
    truth!("crowd": sizes, sum, finished);
    capture();
    black_box((&sizes, finished));
    sum
}

async fn blocking(name: String, rounds: u32) -> u64 {
    let copy = name.clone();
    let result = tokio::task::spawn_blocking(move || grind(&copy, rounds)).await;
    let failed = result.is_err();
    let shown = result.unwrap_or(1);
    truth!("blocking": name, rounds, failed, shown);
    tokio::time::sleep(Duration::from_millis(1)).await;
    capture();
    black_box((&name, rounds, failed));
    shown
}

#[inline(never)]
fn grind(name: &str, rounds: u32) -> u64 {
    let mut state = 1_u64;
    let history: Vec<u64> = (0..u64::from(rounds)).map(|n| n * n).collect();
    for (round, value) in history.iter().enumerate() {
        state = state.wrapping_mul(31).wrapping_add(*value);
        if round == 4 {
            truth!("grind": name, rounds, state, history, round, value);
            panic!("ground to a halt");
        }
    }
    black_box((state, name));
    state
}

async fn settings(version: u8) -> usize {
    let (publish, mut changed) = watch::channel(String::from("none"));
    let table = RwLock::new(vec![("a", 1_u8), ("b", 2)]);
    let task = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        black_box(publish.send(format!("version {version}")).is_ok());
    });
    let arrived = changed.changed().await.is_ok();
    let current = changed.borrow().clone();
    let entries = table.read().await.len();
    truth!("settings": version, arrived, current, entries);
    capture();
    black_box((&current, entries, arrived, task.is_finished()));
    entries
}

async fn retry(name: &str, attempts: u8) -> Result<u8, String> {
    let mut errors = Vec::new();
    for attempt in 0..attempts {
        let delay = Duration::from_millis(1 << attempt);
        match flaky(name, attempt).await {
            Ok(value) => return Ok(value),
            Err(error) => errors.push(error),
        }
        tokio::time::sleep(delay).await;
        if attempt == 1 {
            truth!("retry": name, attempts, errors, attempt, delay);
            capture();
        }
        black_box(delay);
    }
    black_box(&errors);
    Err(errors.join(", "))
}

async fn flaky(name: &str, attempt: u8) -> Result<u8, String> {
    let limit = 9_u8;
    tokio::time::sleep(Duration::from_millis(1)).await;
    if attempt < limit {
        return Err(format!("{name} failed {attempt}"));
    }
    Ok(black_box(limit))
}
