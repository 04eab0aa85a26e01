//! Counting the events that were lost, and telling the tracker with the next envelope.
//!
//! The form is the `client_report` item: <https://develop.sentry.dev/sdk/telemetry/client-reports/>.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::Timestamp;
use serde_json::{Value, json};

/// Why an event was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Too many events were waiting.
    QueueOverflow,
    /// The tracker asked for a pause.
    RateLimited,
    /// The tracker could not be reached.
    NetworkError,
    /// The tracker refused the event.
    SendError,
    /// Chance decided against the event.
    SampleRate,
    /// The program's own function decided against the event.
    BeforeSend,
    /// Making the event failed.
    Internal,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::QueueOverflow => "queue_overflow",
            Reason::RateLimited => "ratelimit_backoff",
            Reason::NetworkError => "network_error",
            Reason::SendError => "send_error",
            Reason::SampleRate => "sample_rate",
            Reason::BeforeSend => "before_send",
            Reason::Internal => "internal_sdk_error",
        }
    }

    /// Sampled and refused events are missing on purpose.
    fn is_failure(self) -> bool {
        !matches!(self, Reason::SampleRate | Reason::BeforeSend)
    }
}

/// How many events were lost since the last report, by reason.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<BTreeMap<Reason, u64>>);

/// Losses on their way to the tracker.
#[derive(Debug)]
pub(crate) struct Taken(BTreeMap<Reason, u64>);

impl Losses {
    pub(crate) fn count(&self, reason: Reason, events: u64) {
        let mut counts = self.lock();
        let count = counts.entry(reason).or_default();
        *count = count.saturating_add(events);
    }

    /// Takes the counts out, if there are any.
    pub(crate) fn take(&self) -> Option<Taken> {
        let counts = std::mem::take(&mut *self.lock());
        (!counts.is_empty()).then_some(Taken(counts))
    }

    /// Puts counts back that did not arrive.
    pub(crate) fn restore(&self, taken: Taken) {
        for (reason, events) in taken.0 {
            self.count(reason, events);
        }
    }

    /// Returns how many events were lost that somebody would have wanted.
    pub(crate) fn failures(&self) -> u64 {
        let counts = self.lock();
        counts
            .iter()
            .filter(|(reason, _)| reason.is_failure())
            .map(|(_, events)| *events)
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Reason, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Writes the payload of a `client_report` item.
    pub(crate) fn report(&self, now: Timestamp) -> Value {
        let discarded: Vec<Value> = self
            .0
            .iter()
            .map(|(reason, events)| {
                json!({"reason": reason.as_str(), "category": "error", "quantity": events})
            })
            .collect();
        json!({"timestamp": now, "discarded_events": discarded})
    }
}
