//! What happens to each event of a request, in order: form, filters, quota, original places,
//! secrets, groups.
//!
//! Everything here is synchronous and costs about a fifth of a millisecond for a usual event; only
//! the first event that needs a source map waits until it is read. What comes out is ready to be
//! written.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use backstop_protocol::{Event, EventId, EventType};
use http::header::CONTENT_TYPE;

use super::caller::Caller;
use super::minidump::mark_crash;
use super::normalise::{Arrival, normalise};
use super::outcome::Fate;
use super::quota::{Exceeded, month_start};
use super::refusal::{Refusal, add_rate_limits};
use super::{Ingest, filter, new_event_id, scrub};
use crate::digest::{Incoming, Prepared, SubmitError};
use crate::record::{Record, TransactionRecord};

/// An event as JSON text; Sentry's own limit, twice what any recorded client sent.
pub(super) const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// The categories that the quotas are about, in the words of `X-Sentry-Rate-Limits`.
const CATEGORIES: &str = "default;error;security;transaction";

/// What a request turned into: to be written, then to be answered.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The id that the client is told.
    pub(super) id: Option<EventId>,
    pub(super) events: Vec<Prepared>,
    pub(super) records: Vec<Record>,
    /// Something was taken, even if it was not kept.
    pub(super) taken: bool,
    /// A minidump is among the items, so the event is a crash.
    pub(super) crash: bool,
    /// A quota that is used up.
    pub(super) limited: Option<Exceeded>,
    /// Why an event or the frame around it made no sense.
    pub(super) invalid: Option<Refusal>,
}

impl Ingest {
    /// Decodes an event and adds it to the batch; counts it if it is not to be stored.
    pub(super) fn add_event_bytes(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        arrival: &Arrival<'_>,
        bytes: &[u8],
        ty: Option<EventType>,
    ) {
        if bytes.len() > EVENT_BYTES_MAX {
            self.count(caller, &Fate::TooLarge("event"), 1);
            batch.invalid = Some(Refusal::too_large(
                "the event is larger than 1 MiB after decoding",
            ));
            return;
        }
        match Event::decode(bytes) {
            Ok(event) => self.add_event(batch, caller, arrival, event, ty),
            Err(error) => {
                self.count(caller, &Fate::Invalid("json"), 1);
                batch.invalid = Some(Refusal::bad(format!("invalid event: {error}")));
            }
        }
    }

    /// Adds an event to the batch; counts it if it is not to be stored.
    pub(super) fn add_event(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        arrival: &Arrival<'_>,
        mut event: Event,
        ty: Option<EventType>,
    ) {
        if batch.crash && ty.is_none() {
            mark_crash(&mut event);
        }
        normalise(&mut event, arrival, ty, new_event_id);
        batch.id.get_or_insert(event.event_id);
        if let Some(rule) = filter::filtered_by(&event, &caller.settings, arrival.agent) {
            self.count(caller, &Fate::Filtered(rule), 1);
            // Sending it again would not help, so the client is told that all is well.
            batch.taken = true;
            return;
        }
        let exceeded = self.exceeded(caller);
        if let Some(exceeded) = exceeded
            && !self.may_be_new(caller, &event)
        {
            return self.limit(batch, caller, exceeded);
        }
        self.symbolicator
            .apply(&self.store, caller.project, &mut event);
        scrub::scrub(&mut event, &caller.settings.scrub);
        if event.ty == Some(EventType::Transaction) {
            batch.records.push(transaction_of(caller, &event));
            self.count(caller, &Fate::Item("transaction"), 1);
            return;
        }
        let incoming = Incoming {
            project: caller.project,
            key: Some(caller.key),
            received: caller.received,
        };
        match (self.digest.prepare(incoming, event), exceeded) {
            (Ok(prepared), None) => batch.events.push(prepared),
            (Ok(prepared), Some(exceeded)) => {
                self.add_if_new(batch, caller, exceeded, prepared);
            }
            (Err(error), _) => {
                self.count(caller, &Fate::Unavailable, 1);
                batch.invalid = Some(refusal_of(&error));
            }
        }
    }

    /// Counts an event against the quotas and says which of them is used up.
    fn exceeded(&self, caller: &Caller) -> Option<Exceeded> {
        let (project, key, settings, now) = (
            caller.project,
            caller.key,
            &caller.settings,
            caller.received,
        );
        if self.quotas.is_unknown(project, key, settings, now) {
            // Read once a month and start: a quota that cannot be read does not stop events.
            let outcomes = self.store.outcomes(Some(project), month_start(now));
            let accepted: Vec<_> = outcomes
                .unwrap_or_default()
                .into_iter()
                .filter(|outcome| outcome.reason == "accepted")
                .collect();
            let of_project = accepted.iter().map(|outcome| outcome.count).sum();
            let of_key = accepted
                .iter()
                .filter(|outcome| outcome.key == Some(key))
                .map(|outcome| outcome.count)
                .sum();
            self.quotas.learn(project, key, now, of_project, of_key);
        }
        self.quotas.take(project, key, settings, now).err()
    }

    /// Spike protection: over a quota, only what may be the first event of an issue is looked at.
    fn may_be_new(&self, caller: &Caller, event: &Event) -> bool {
        event.ty != Some(EventType::Transaction)
            && self
                .quotas
                .may_be_new(caller.project, &caller.settings, caller.received)
    }

    fn add_if_new(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        exceeded: Exceeded,
        prepared: Prepared,
    ) {
        // A store that cannot be asked will not take the event either.
        if self.store.knows_issue(&prepared).unwrap_or(true) {
            return self.limit(batch, caller, exceeded);
        }
        self.quotas.take_new(caller.project, caller.received);
        batch.events.push(prepared);
    }

    fn limit(&self, batch: &mut Batch, caller: &Caller, exceeded: Exceeded) {
        self.count(caller, &Fate::RateLimited(exceeded.quota), 1);
        batch.limited = Some(exceeded);
    }

    /// Writes a batch and answers: 200 only when it is on the disk.
    pub(super) async fn finish(&self, caller: &Caller, batch: Batch) -> Result<Response, Refusal> {
        let stored = !batch.events.is_empty() || !batch.records.is_empty();
        let events = batch.events.len() as u64;
        if let Err(error) = self.digest.submit(batch.events).await {
            self.count(caller, &Fate::Unavailable, events);
            return Err(refusal_of(&error));
        }
        self.recorder.record(batch.records).await?;
        let limits = batch.limited.map(limits_of);
        if !stored && !batch.taken {
            if let (Some(exceeded), Some(limits)) = (batch.limited, &limits) {
                return Err(Refusal::rate_limited(
                    exceeded.retry_after_s,
                    limits.clone(),
                ));
            }
            if let Some(refusal) = batch.invalid {
                return Err(refusal);
            }
        }
        let body = match batch.id {
            Some(id) => format!(r#"{{"id":"{id}"}}"#),
            None => "{}".to_owned(),
        };
        let mut response = ([(CONTENT_TYPE, "application/json")], body).into_response();
        add_rate_limits(response.headers_mut(), limits.as_deref());
        Ok(response)
    }
}

fn transaction_of(caller: &Caller, event: &Event) -> Record {
    Record::Transaction(TransactionRecord {
        project: caller.project,
        event: event.event_id,
        name: event.transaction.clone().unwrap_or_default(),
        received: caller.received,
        json: event.encode(),
    })
}

/// The value of `X-Sentry-Rate-Limits`:
/// <https://develop.sentry.dev/sdk/expected-features/rate-limiting/>.
fn limits_of(exceeded: Exceeded) -> String {
    format!(
        "{}:{CATEGORIES}:{}:{}",
        exceeded.retry_after_s, exceeded.scope, exceeded.quota
    )
}

fn refusal_of(error: &SubmitError) -> Refusal {
    let seconds = |after: Duration| after.as_secs().max(1);
    match error {
        SubmitError::Full { retry_after } => {
            Refusal::full("too many events are waiting", seconds(*retry_after))
        }
        SubmitError::Unavailable { retry_after, .. } => {
            Refusal::busy_for("the store cannot be written now", seconds(*retry_after))
        }
        SubmitError::Stopped => Refusal::busy("the server is ending"),
        _ => Refusal::bad("the event cannot be stored"),
    }
}
