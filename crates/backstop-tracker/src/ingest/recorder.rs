//! Writes what is no event: many requests share one transaction.
//!
//! Records wait in a bounded queue for one task, which writes all that wait at once and then
//! answers; outcomes go along, and about once a second without records.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::outcome::Outcomes;
use super::refusal::Refusal;
use crate::record::Record;
use crate::store::{Error, Store};

/// Requests that wait; about a second of work.
const QUEUE_MAX: usize = 1024;
/// Requests in one transaction.
const BATCH_MAX: usize = 256;
const OUTCOMES_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Recorder {
    queue: mpsc::Sender<Work>,
}

#[derive(Debug)]
struct Work {
    records: Vec<Record>,
    answer: oneshot::Sender<bool>,
}

impl Recorder {
    pub(super) fn start(store: Store, outcomes: Arc<Outcomes>) -> Recorder {
        let (queue, work) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_all(store, outcomes, work));
        Recorder { queue }
    }

    /// Writes records; `Ok` means that they are on the disk.
    pub(super) async fn record(&self, records: Vec<Record>) -> Result<(), Refusal> {
        if records.is_empty() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        self.queue
            .try_send(Work { records, answer })
            .map_err(|_| Refusal::busy("too many requests are waiting"))?;
        match answered.await {
            Ok(true) => Ok(()),
            _ => Err(Refusal::busy("the store cannot be written now")),
        }
    }

    /// Waits until everything that was counted so far is written.
    pub(super) async fn flush(&self) {
        let (answer, answered) = oneshot::channel();
        let work = Work {
            records: Vec::new(),
            answer,
        };
        if self.queue.send(work).await.is_ok() {
            // The answer says nothing more than that it is done, or that the server ends.
            let _ = answered.await;
        }
    }
}

async fn write_all(store: Store, outcomes: Arc<Outcomes>, mut queue: mpsc::Receiver<Work>) {
    let mut ticks = tokio::time::interval(OUTCOMES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        let ended = tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH_MAX) => taken == 0,
            _ = ticks.tick() => false,
        };
        write(&store, &outcomes, std::mem::take(&mut batch)).await;
        if ended {
            return;
        }
    }
}

async fn write(store: &Store, outcomes: &Arc<Outcomes>, batch: Vec<Work>) {
    let (mut records, mut answers) = (Vec::new(), Vec::new());
    for work in batch {
        answers.push((work.records.len(), work.answer));
        records.extend(work.records);
    }
    let (store, outcomes) = (store.clone(), Arc::clone(outcomes));
    let counts = answers.iter().map(|(count, _)| *count).collect::<Vec<_>>();
    let written = tokio::task::spawn_blocking(move || {
        write_outcomes(&store, &outcomes);
        write_records(&store, &records, &counts)
    });
    let written = written.await.unwrap_or_default();
    let results = written.into_iter().chain(std::iter::repeat(false));
    for ((_, answer), result) in answers.into_iter().zip(results) {
        // Whoever has left sends again.
        let _ = answer.send(result);
    }
}

fn write_outcomes(store: &Store, outcomes: &Outcomes) {
    let counts = outcomes.take();
    if counts.is_empty() {
        return;
    }
    if let Err(error) = store.count_outcomes(&counts) {
        say(&error);
        outcomes.put_back(counts);
    }
}

/// Writes all records at once, or, if one of them is at fault, request by request.
fn write_records(store: &Store, records: &[Record], counts: &[usize]) -> Vec<bool> {
    if records.is_empty() {
        return vec![true; counts.len()];
    }
    match store.record(records) {
        Ok(()) => return vec![true; counts.len()],
        Err(error) if error.is_passing() || counts.len() == 1 => {
            say(&error);
            return vec![false; counts.len()];
        }
        Err(_) => {}
    }
    let mut rest = records;
    counts
        .iter()
        .map(|count| {
            let (own, others) = rest.split_at(*count);
            rest = others;
            store.record(own).inspect_err(say).is_ok()
        })
        .collect()
}

fn say(error: &Error) {
    tracing::error!(error = format!("{error:#}"), "records cannot be written");
}
