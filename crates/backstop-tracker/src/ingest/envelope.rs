//! The envelope endpoint, and what becomes of each kind of item.
//!
//! Item types: <https://develop.sentry.dev/sdk/data-model/envelope-items/>.
//! An item that is not known is skipped and the rest is kept.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use backstop_protocol::{
    Envelope, EnvelopeHeader, Event, EventId, EventType, Item, ItemHeader, Timestamp,
};
use http::StatusCode;
use http::request::Parts;
use serde_json::Value;

use super::body::{self, Held};
use super::caller::{Caller, project_of_path, split};
use super::event::{Batch, EVENT_BYTES_MAX};
use super::normalise::Arrival;
use super::outcome::Fate;
use super::refusal::Refusal;
use super::symbolicate::may_need_maps;
use super::{Ingest, auth, monitor, new_event_id};
use crate::record::{Feedback, NewAttachment, Record, SessionCounts, SessionStatus, SessionUpdate};

/// Items of one envelope; clients send fewer than ten, and collectors in between fewer than this.
const ITEMS_MAX: usize = 1_000;
/// Items that are small records as JSON text.
const RECORD_BYTES_MAX: usize = 100 * 1024;
/// Sessions that a client counted itself.
const SESSIONS_BYTES_MAX: usize = 10 * 1024 * 1024;
const SESSIONS_MAX: usize = 1_000;
/// Reasons in one client report.
const DISCARDED_MAX: usize = 500;
const FILENAME_CHARS_MAX: usize = 255;
/// Larger requests are decoded on a thread of their own, so that they do not hold up others.
const INLINE_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn envelope(
    State(ingest): State<Arc<Ingest>>,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let project = project_of_path(&project)?;
    receive(ingest, request, Some(project)).await
}

/// An envelope that a user's own server passes on: the DSN inside it is all there is.
pub(super) async fn tunnel(
    State(ingest): State<Arc<Ingest>>,
    request: Request,
) -> Result<Response, Refusal> {
    receive(ingest, request, None).await
}

/// Traces and logs of OpenTelemetry: counted, not kept.
pub(super) async fn otlp(
    State(ingest): State<Arc<Ingest>>,
    Path((project, _signal)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, _) = split(request);
    let project = project_of_path(&project)?;
    let caller = ingest.caller_of_head(&head, Some(project), None).await?;
    ingest.count(&caller, &Fate::Dropped("otlp"), 1);
    Ok(StatusCode::OK.into_response())
}

async fn receive(
    ingest: Arc<Ingest>,
    request: Request,
    project: Option<u64>,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let query = head.uri.query().unwrap_or_default();
    let sender = auth::sender_of_head(&head.headers, query, None)?;
    let known = match sender.clone() {
        Some(sender) => Some(ingest.caller(&head, sender, project).await?),
        None => None,
    };
    let held = match body::read(&head.headers, body, &ingest.memory).await {
        Ok(held) => held,
        Err(refusal) => return Err(ingest.count_refusal(known.as_ref(), refusal)),
    };
    let decoded = decode(&head, held).await;
    let held = decoded.map_err(|refusal| ingest.count_refusal(known.as_ref(), refusal))?;
    let header = match Envelope::read(&held.bytes) {
        Ok(envelope) => envelope.header,
        Err(error) => {
            let refusal = Refusal::bad(format!("invalid envelope: {error}"));
            return Err(ingest.count_refusal(known.as_ref(), refusal));
        }
    };
    let (sender, dsn_project) = auth::sender_of_envelope(sender, header.dsn.as_deref())?;
    let caller = match known {
        // A DSN in the header may have been rewritten by a proxy's path; the key decides.
        Some(caller) => caller,
        None => {
            ingest
                .caller(&head, sender, project.or(dsn_project))
                .await?
        }
    };
    let batch = if held.bytes.len() <= INLINE_BYTES_MAX && !may_need_maps(&held.bytes) {
        let batch = ingest.read_items(&caller, &header, &held)?;
        body::reuse(held);
        batch
    } else {
        let (ingest, caller) = (Arc::clone(&ingest), caller.clone());
        let work = move || ingest.read_items(&caller, &header, &held);
        blocking(work).await??
    };
    ingest.finish(&caller, batch).await
}

/// Undoes the content encoding; of a large body on a thread of its own.
pub(super) async fn decode(head: &Parts, held: Held) -> Result<Held, Refusal> {
    if held.bytes.len() <= INLINE_BYTES_MAX / 4 {
        return body::decode(&head.headers, held);
    }
    let headers = head.headers.clone();
    blocking(move || body::decode(&headers, held)).await?
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refusal::busy("the server is ending"))
}

impl Ingest {
    /// A request that was refused before its items were seen counts as one.
    pub(super) fn count_refusal(&self, caller: Option<&Caller>, refusal: Refusal) -> Refusal {
        if let Some(caller) = caller {
            let fate = match refusal.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Fate::TooLarge("request"),
                StatusCode::SERVICE_UNAVAILABLE => Fate::Unavailable,
                StatusCode::REQUEST_TIMEOUT => Fate::Invalid("timeout"),
                StatusCode::UNSUPPORTED_MEDIA_TYPE => Fate::Invalid("content_encoding"),
                _ => Fate::Invalid("envelope"),
            };
            self.count(caller, &fate, 1);
        }
        refusal
    }

    /// Looks at every item; what is to be written comes back.
    fn read_items(
        &self,
        caller: &Caller,
        header: &EnvelopeHeader,
        held: &Held,
    ) -> Result<Batch, Refusal> {
        let envelope = Envelope::read(&held.bytes)
            .map_err(|error| Refusal::bad(format!("invalid envelope: {error}")))?;
        let items: Vec<_> = envelope.items.take(ITEMS_MAX + 1).collect();
        // The whole envelope is refused or none of it, so the items are counted first.
        if items.len() > ITEMS_MAX {
            let refusal = Refusal::too_large("the envelope has more than 1000 items");
            return Err(self.count_refusal(Some(caller), refusal));
        }
        let mut batch = Batch {
            id: header.event_id,
            ..Batch::default()
        };
        let has = |wanted: fn(&ItemHeader) -> bool| {
            let mut sound = items.iter().flatten();
            sound.any(|item| wanted(&item.header))
        };
        batch.crash = has(|header| header.attachment_type.as_deref() == Some("event.minidump"));
        let has_event = has(|header| matches!(&*header.ty, "event" | "transaction"));
        let mut arrival = caller.arrival();
        arrival.event_id = header.event_id;
        arrival.sent_at = header.sent_at;
        arrival.sdk = header.sdk.as_ref();
        for item in items {
            match item {
                Ok(item) => self.read_item(&mut batch, caller, &mut arrival, &item),
                Err(error) => {
                    self.count(caller, &Fate::Invalid("envelope"), 1);
                    batch.invalid = Some(Refusal::bad(format!("invalid envelope: {error}")));
                }
            }
        }
        if batch.crash && !has_event {
            self.add_event(&mut batch, caller, &arrival, Event::default(), None);
        }
        self.keep_attachments_of_event(&mut batch, header.event_id);
        Ok(batch)
    }

    fn read_item(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        arrival: &mut Arrival<'_>,
        item: &Item<'_>,
    ) {
        let payload = item.payload;
        match item.header.ty.as_str() {
            "event" => {
                self.add_event_bytes(batch, caller, arrival, payload, None);
                // Only one event can have the envelope's id.
                arrival.event_id = None;
            }
            "transaction" => {
                let ty = Some(EventType::Transaction);
                self.add_event_bytes(batch, caller, arrival, payload, ty);
                arrival.event_id = None;
            }
            "security" | "raw_security" => {
                self.add_security_report(batch, caller, arrival, payload);
            }
            "attachment" => self.add_attachment(batch, caller, item),
            "session" | "sessions" | "check_in" | "feedback" | "user_report" | "client_report" => {
                self.add_record(batch, caller, arrival, item);
            }
            "log" | "otel_log" => self.drop_item(batch, caller, "log", &item.header),
            "span" | "otel_span" => self.drop_item(batch, caller, "span", &item.header),
            "trace_metric" | "metric" | "statsd" | "metric_meta" => {
                self.drop_item(batch, caller, "metric", &item.header);
            }
            "replay_event" | "replay_recording" | "replay_video" => {
                self.drop_item(batch, caller, "replay", &item.header);
            }
            "profile" | "profile_chunk" => self.drop_item(batch, caller, "profile", &item.header),
            _ => self.drop_item(batch, caller, "unknown_item", &item.header),
        }
    }

    fn drop_item(&self, batch: &mut Batch, caller: &Caller, ty: &'static str, header: &ItemHeader) {
        batch.taken = true;
        let n = header.item_count.unwrap_or(1).clamp(1, 1_000_000);
        self.count(caller, &Fate::Dropped(ty), n);
    }

    /// Adds an item that is one small record of JSON.
    fn add_record(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        arrival: &Arrival<'_>,
        item: &Item<'_>,
    ) {
        let (ty, bytes_max) = match item.header.ty.as_str() {
            "session" => ("session", RECORD_BYTES_MAX),
            "sessions" => ("sessions", SESSIONS_BYTES_MAX),
            "check_in" => ("check_in", RECORD_BYTES_MAX),
            "feedback" => ("feedback", EVENT_BYTES_MAX),
            "user_report" => ("user_report", RECORD_BYTES_MAX),
            _ => ("client_report", RECORD_BYTES_MAX),
        };
        if item.payload.len() > bytes_max {
            self.count(caller, &Fate::TooLarge(ty), 1);
            let detail = format!("envelope exceeded size limits for type '{ty}'");
            batch.invalid = Some(Refusal::bad(detail));
            return;
        }
        let Ok(payload) = serde_json::from_slice::<Value>(item.payload) else {
            self.count(caller, &Fate::Invalid(ty), 1);
            batch.invalid = Some(Refusal::bad(format!("invalid {ty}: not JSON")));
            return;
        };
        let records = match ty {
            "session" => session_of(caller, &payload).into_iter().collect(),
            "sessions" => sessions_of(caller, &payload),
            "check_in" => monitor::check_in_of(caller, &payload).into_iter().collect(),
            "feedback" => feedback_of(caller, arrival, &payload).into_iter().collect(),
            "user_report" => user_report_of(caller, arrival, &payload)
                .into_iter()
                .collect(),
            _ => {
                batch.taken = true;
                self.count_client_report(caller, &payload);
                return;
            }
        };
        if Vec::is_empty(&records) {
            self.count(caller, &Fate::Invalid(ty), 1);
            batch.invalid = Some(Refusal::bad(format!(
                "invalid {ty}: a required field is missing"
            )));
            return;
        }
        self.count(caller, &Fate::Item(ty), 1);
        batch.records.extend(records);
    }

    /// What the client dropped itself is counted here, so that the totals add up.
    fn count_client_report(&self, caller: &Caller, report: &Value) {
        for list in [
            "discarded_events",
            "rate_limited_events",
            "filtered_events",
            "filtered_sampling_events",
        ] {
            let events = report.get(list).and_then(Value::as_array);
            for event in events.into_iter().flatten().take(DISCARDED_MAX) {
                let text = |field: &str| {
                    let text = event.get(field).and_then(Value::as_str);
                    text.unwrap_or_default().to_owned()
                };
                let fate = Fate::Client {
                    reason: text("reason"),
                    category: text("category"),
                };
                let quantity = event.get("quantity").and_then(Value::as_u64);
                self.count(caller, &fate, quantity.unwrap_or(0));
            }
        }
    }

    fn add_attachment(&self, batch: &mut Batch, caller: &Caller, item: &Item<'_>) {
        self.count(caller, &Fate::Item("attachment"), 1);
        let header = &item.header;
        batch.records.push(Record::Attachment(NewAttachment {
            project: caller.project,
            event: EventId::default(),
            filename: filename_of(header.filename.as_deref()),
            content_type: header.content_type.clone(),
            attachment_type: header.attachment_type.clone(),
            received: caller.received,
            bytes: item.payload.to_vec(),
        }));
    }

    /// Attachments may stand before their event, and a crash may be known by its minidump alone.
    fn keep_attachments_of_event(&self, batch: &mut Batch, event_id: Option<EventId>) {
        let id = event_id.or(batch.id).unwrap_or_else(new_event_id);
        for record in &mut batch.records {
            if let Record::Attachment(attachment) = record
                && attachment.event.is_nil()
            {
                attachment.event = id;
            }
        }
    }
}

impl Caller {
    /// Returns what the request's head says about its events.
    pub(super) fn arrival(&self) -> Arrival<'_> {
        Arrival {
            received: self.received,
            sent_at: None,
            event_id: None,
            sdk: None,
            client: self.client.as_deref(),
            agent: &self.agent,
            peer: self.peer,
        }
    }
}

/// Returns a file's name without a path and without control characters.
pub(super) fn filename_of(name: Option<&str>) -> String {
    let name = name
        .unwrap_or_default()
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|letter| !letter.is_control())
        .take(FILENAME_CHARS_MAX)
        .collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

fn text_at(value: &Value, path: &str) -> Option<String> {
    let text = value.pointer(path)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.chars().take(4096).collect())
}

fn time_at(value: &Value, path: &str) -> Option<Timestamp> {
    match value.pointer(path)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => Timestamp::from_seconds(number.as_f64()?),
        _ => None,
    }
}

fn count_at(value: &Value, path: &str) -> u64 {
    value
        .pointer(path)
        .and_then(Value::as_u64)
        .unwrap_or(0)
        .min(u64::from(u32::MAX))
}

/// Sessions without a release count for none, and nobody could find them.
fn attributes(payload: &Value) -> Option<(String, String)> {
    let release = text_at(payload, "/attrs/release")?;
    let environment = text_at(payload, "/attrs/environment");
    let environment = environment.unwrap_or_else(|| "production".to_owned());
    Some((
        release.chars().take(200).collect(),
        environment.chars().take(64).collect(),
    ))
}

fn session_of(caller: &Caller, payload: &Value) -> Option<Record> {
    let (release, environment) = attributes(payload)?;
    let status = match payload.get("status").and_then(Value::as_str) {
        None | Some("ok") => SessionStatus::Ok,
        Some("exited") => SessionStatus::Exited,
        Some("errored") => SessionStatus::Errored,
        Some("unhandled") => SessionStatus::Unhandled,
        Some("abnormal") => SessionStatus::Abnormal,
        Some("crashed") => SessionStatus::Crashed,
        Some(_) => return None,
    };
    let sid = text_at(payload, "/sid").and_then(|sid| sid.parse().ok());
    Some(Record::Session(SessionUpdate {
        project: caller.project,
        sid: sid.unwrap_or_else(new_event_id),
        release,
        environment,
        status,
        errors: count_at(payload, "/errors"),
        started: plausible(caller, time_at(payload, "/started")),
        received: caller.received,
    }))
}

fn sessions_of(caller: &Caller, payload: &Value) -> Vec<Record> {
    let Some((release, environment)) = attributes(payload) else {
        return Vec::new();
    };
    let aggregates = payload.get("aggregates").and_then(Value::as_array);
    aggregates
        .into_iter()
        .flatten()
        .take(SESSIONS_MAX)
        .map(|counts| {
            Record::Sessions(SessionCounts {
                project: caller.project,
                release: release.clone(),
                environment: environment.clone(),
                started: plausible(caller, time_at(counts, "/started")),
                exited: count_at(counts, "/exited"),
                errored: count_at(counts, "/errored"),
                unhandled: count_at(counts, "/unhandled"),
                abnormal: count_at(counts, "/abnormal"),
                crashed: count_at(counts, "/crashed"),
            })
        })
        .collect()
}

/// A session that began long ago or has yet to begin began now, by a clock that is right.
fn plausible(caller: &Caller, started: Option<Timestamp>) -> Timestamp {
    const AGE_MAX_S: i64 = 5 * 86_400;
    let now = caller.received;
    started
        .filter(|time| (-60..AGE_MAX_S).contains(&(now.seconds() - time.seconds())))
        .unwrap_or(now)
}

/// Feedback comes as an event whose context `feedback` has the text.
fn feedback_of(caller: &Caller, arrival: &Arrival<'_>, payload: &Value) -> Option<Record> {
    let at = |field: &str| text_at(payload, &format!("/contexts/feedback/{field}"));
    let id = text_at(payload, "/event_id").and_then(|id| id.parse().ok());
    Some(Record::Feedback(Feedback {
        project: caller.project,
        id: arrival.event_id.or(id).unwrap_or_else(new_event_id),
        event: at("associated_event_id").and_then(|id| id.parse().ok()),
        name: at("name"),
        email: at("contact_email"),
        message: at("message")?,
        url: at("url"),
        received: caller.received,
    }))
}

/// The older form: name, address and comments about an event that may arrive later.
fn user_report_of(caller: &Caller, arrival: &Arrival<'_>, payload: &Value) -> Option<Record> {
    let event = text_at(payload, "/event_id").and_then(|id| id.parse().ok());
    let event: EventId = event.or(arrival.event_id)?;
    Some(Record::Feedback(Feedback {
        project: caller.project,
        // One report for each event: sent again, it replaces the first.
        id: event,
        event: Some(event),
        name: text_at(payload, "/name"),
        email: text_at(payload, "/email"),
        message: text_at(payload, "/comments")?,
        url: None,
        received: caller.received,
    }))
}
