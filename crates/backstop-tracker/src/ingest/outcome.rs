//! What became of every event: counted per project, key, day and reason, so that the totals add up.
//!
//! `accepted` and `duplicate` are counted by the digest in the transaction that stores the event;
//! everything else is added up here and written about once a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::Timestamp;

use crate::metrics;
use crate::model::{Key, Outcome, ProjectId};

/// Reasons of clients are theirs to invent; more than this in a second are counted as `other`.
const REASONS_MAX: usize = 10_000;
const CLIENT_REASON_BYTES_MAX: usize = 40;

/// What became of an event (or an item) that was not simply stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// An inbound filter of the project: which.
    Filtered(&'static str),
    /// A quota: which.
    RateLimited(&'static str),
    /// It made no sense: why.
    Invalid(&'static str),
    /// It was larger than what is taken: what.
    TooLarge(&'static str),
    /// The server could not store it and told the client to come again.
    Unavailable,
    /// The client dropped it before it was sent: its reason and category.
    Client { reason: String, category: String },
    /// Another item than an event was stored: its type.
    Item(&'static str),
    /// An item that the tracker takes and does not keep: its type.
    Dropped(&'static str),
}

impl Fate {
    fn reason(&self) -> String {
        match self {
            Fate::Filtered(rule) => format!("filtered:{rule}"),
            Fate::RateLimited(quota) => format!("rate_limited:{quota}"),
            Fate::Invalid(why) => format!("invalid:{why}"),
            Fate::TooLarge(what) => format!("too_large:{what}"),
            Fate::Unavailable => "unavailable".to_owned(),
            Fate::Client { reason, category } => {
                format!("client:{}:{}", plain(category), plain(reason))
            }
            Fate::Item(ty) => format!("item:{ty}"),
            Fate::Dropped(ty) => format!("dropped:{ty}"),
        }
    }

    /// What and why in words of this program, for the measures; clients' words are left out.
    fn label(&self) -> (&'static str, &'static str) {
        match self {
            Fate::Filtered(rule) => ("filtered", rule),
            Fate::RateLimited(quota) => ("rate_limited", quota),
            Fate::Invalid(why) => ("invalid", why),
            Fate::TooLarge(what) => ("too_large", what),
            Fate::Unavailable => ("unavailable", ""),
            Fate::Client { .. } => ("dropped_by_client", ""),
            Fate::Item(ty) => ("item_stored", ty),
            Fate::Dropped(ty) => ("item_dropped", ty),
        }
    }
}

type Place = (ProjectId, Key, i64, String);

/// Counts that are not written yet, and the sums since the start.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    unwritten: Mutex<HashMap<Place, u64>>,
    totals: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Outcomes {
    pub(super) fn count(
        &self,
        (project, key): (ProjectId, Key),
        now: Timestamp,
        fate: &Fate,
        n: u64,
    ) {
        {
            let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            *totals.entry(fate.label()).or_default() += n;
        }
        let mut counts = self.unwritten();
        let reason = match counts.len() {
            0..REASONS_MAX => fate.reason(),
            _ => "other".to_owned(),
        };
        let day = now.seconds().div_euclid(86_400);
        let count = counts.entry((project, key, day, reason)).or_default();
        *count = count.saturating_add(n);
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<Place, u64>> {
        // The map is whole at every unlock, also when a thread panicked.
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the sums since the start in the text format of Prometheus.
    pub(super) fn render(&self, text: &mut String) {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::render_counts(
            text,
            "backstop_ingest_outcomes_total",
            "Events and items that were not simply stored as events, by what became of them.",
            totals
                .iter()
                .map(|((outcome, reason), count)| (*outcome, *reason, *count)),
        );
    }

    /// Takes what is to be written.
    pub(super) fn take(&self) -> Vec<Outcome> {
        let mut counts = self.unwritten();
        counts
            .drain()
            .map(|((project, key, day, reason), count)| Outcome {
                project,
                key: Some(key),
                day,
                reason,
                count,
            })
            .collect()
    }

    /// Gives back what could not be written.
    pub(super) fn put_back(&self, outcomes: Vec<Outcome>) {
        let mut counts = self.unwritten();
        for outcome in outcomes {
            if let Some(key) = outcome.key {
                let place = (outcome.project, key, outcome.day, outcome.reason);
                *counts.entry(place).or_default() += outcome.count;
            }
        }
    }
}

/// A client's word, as far as it is one.
fn plain(text: &str) -> String {
    let word: String = text
        .chars()
        .take(CLIENT_REASON_BYTES_MAX)
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
        .collect();
    if word.is_empty() {
        "unknown".to_owned()
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_given_back_whole() {
        let outcomes = Outcomes::default();
        let place = (ProjectId(1), Key([1; 16]));
        let now = Timestamp::from_micros(86_400_000_000 * 3);
        let fate = Fate::Client {
            reason: "queue\noverflow".to_owned(),
            category: "error".to_owned(),
        };
        outcomes.count(place, now, &fate, 2);
        outcomes.count(place, now, &fate, 3);
        outcomes.count(place, now, &Fate::Filtered("release"), 1);
        let mut text = String::new();
        outcomes.render(&mut text);
        for line in [
            "backstop_ingest_outcomes_total{outcome=\"dropped_by_client\",reason=\"\"} 5",
            "backstop_ingest_outcomes_total{outcome=\"filtered\",reason=\"release\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
        let mut taken = outcomes.take();
        taken.sort_by(|one, other| one.reason.cmp(&other.reason));
        let reasons: Vec<_> = taken
            .iter()
            .map(|outcome| (outcome.reason.as_str(), outcome.count, outcome.day))
            .collect();
        assert_eq!(
            reasons,
            [
                ("client:error:queueoverflow", 5, 3),
                ("filtered:release", 1, 3)
            ]
        );
        assert!(outcomes.take().is_empty());
        outcomes.put_back(taken);
        assert_eq!(outcomes.take().len(), 2);
    }
}
