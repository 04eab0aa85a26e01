//! Crash reports as forms: a minidump with an event beside it, and files for an event.
//!
//! The form is that of Crashpad and Breakpad: `multipart/form-data` with the dump in
//! `upload_file_minidump`, and the event as JSON in `sentry` (also in parts, `sentry[release]`) or
//! as MessagePack in `__sentry-event`. The dump is kept as an attachment; its stacks are not walked.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use backstop_protocol::{Event, EventId, Exception, Level, Mechanism};
use http::request::Parts;
use http::{StatusCode, header};
use http_body_util::{BodyDataStream, Full};
use serde_json::{Map, Value, json};

use super::body::{self, Held, Share};
use super::caller::{Caller, project_of_path, split, text_of};
use super::envelope::{decode, filename_of};
use super::event::{Batch, EVENT_BYTES_MAX};
use super::outcome::Fate;
use super::refusal::Refusal;
use super::{Ingest, new_event_id};
use crate::record::{NewAttachment, Record};

/// Fields of a form; Crashpad sends about ten.
const FIELDS_MAX: usize = 200;
/// MessagePack nests without end in few bytes.
const NESTING_MAX: usize = 64;
const BREADCRUMBS_MAX: usize = 1_000;

pub(super) struct Field {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) bytes: Vec<u8>,
}

pub(super) async fn minidump(
    State(ingest): State<Arc<Ingest>>,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let project = project_of_path(&project)?;
    let caller = ingest.caller_of_head(&head, Some(project), None).await?;
    let form = read_form(&ingest, &head, body).await;
    let (form, _share) = form.map_err(|refusal| ingest.count_refusal(Some(&caller), refusal))?;
    let dump = form
        .iter()
        .any(|field| field.name == "upload_file_minidump" && is_dump(&field.bytes));
    if !dump {
        ingest.count(&caller, &Fate::Invalid("minidump"), 1);
        return Err(Refusal::bad("missing minidump"));
    }
    let event = match event_of(&form) {
        Ok(event) => event,
        Err(refusal) => {
            ingest.count(&caller, &Fate::Invalid("minidump"), 1);
            return Err(refusal);
        }
    };
    ingest.take_crash(&caller, event, form).await
}

/// Adds files to an event that was sent before, or will be.
pub(super) async fn attachments(
    State(ingest): State<Arc<Ingest>>,
    Path((project, event)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let project = project_of_path(&project)?;
    let caller = ingest.caller_of_head(&head, Some(project), None).await?;
    let event: EventId = event
        .parse()
        .map_err(|_| Refusal::bad("invalid event id in the path"))?;
    let form = read_form(&ingest, &head, body).await;
    let (form, _share) = form.map_err(|refusal| ingest.count_refusal(Some(&caller), refusal))?;
    let mut batch = Batch::default();
    ingest.add_files(&mut batch, &caller, event, form);
    if batch.records.is_empty() {
        return Err(Refusal::bad("the form has no file"));
    }
    ingest.finish(&caller, batch).await?;
    Ok(StatusCode::CREATED.into_response())
}

impl Ingest {
    /// Stores a crash with its files, unless a rule keeps it out, and answers with its id.
    pub(super) async fn take_crash(
        &self,
        caller: &Caller,
        mut event: Event,
        files: Vec<Field>,
    ) -> Result<Response, Refusal> {
        if event.event_id.is_nil() {
            event.event_id = new_event_id();
        }
        let id = event.event_id;
        let mut batch = Batch::default();
        self.add_event(&mut batch, caller, &caller.arrival(), event, None);
        if !batch.events.is_empty() {
            self.add_files(&mut batch, caller, id, files);
        }
        self.finish(caller, batch).await?;
        Ok(dashed(id).into_response())
    }

    fn add_files(&self, batch: &mut Batch, caller: &Caller, event: EventId, form: Vec<Field>) {
        for field in form {
            if field.filename.is_none() || field.name.starts_with("__sentry-") {
                continue;
            }
            let is_dump = field.name == "upload_file_minidump";
            self.count(caller, &Fate::Item("attachment"), 1);
            batch.records.push(Record::Attachment(NewAttachment {
                project: caller.project,
                event,
                filename: filename_of(field.filename.as_deref()),
                content_type: field.content_type,
                attachment_type: Some(
                    if is_dump {
                        "event.minidump"
                    } else {
                        "event.attachment"
                    }
                    .to_owned(),
                ),
                received: caller.received,
                bytes: field.bytes,
            }));
        }
    }
}

async fn read_form(
    ingest: &Ingest,
    head: &Parts,
    body: axum::body::Body,
) -> Result<(Vec<Field>, Share), Refusal> {
    let content_type = text_of(&head.headers, header::CONTENT_TYPE);
    let boundary = multer::parse_boundary(content_type)
        .map_err(|_| Refusal::unsupported("expected multipart/form-data"))?;
    let held = body::read(&head.headers, body, &ingest.memory).await?;
    let held = decode(head, held).await?;
    fields_of(held, &boundary).await
}

/// The fields, with the share of memory that is kept as long as they are.
async fn fields_of(held: Held, boundary: &str) -> Result<(Vec<Field>, Share), Refusal> {
    let broken = |_| Refusal::bad("the form is broken");
    // The body is in memory and bounded already; the reader only cuts it.
    let (bytes, share) = held.into_parts();
    let bytes = axum::body::Bytes::from(bytes);
    let stream = BodyDataStream::new(Full::new(bytes));
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        if fields.len() == FIELDS_MAX {
            return Err(Refusal::too_large("the form has more than 200 fields"));
        }
        fields.push(Field {
            name: part.name().unwrap_or_default().to_owned(),
            filename: part.file_name().map(str::to_owned),
            content_type: part.content_type().map(ToString::to_string),
            bytes: part.bytes().await.map_err(broken)?.to_vec(),
        });
    }
    Ok((fields, share))
}

/// Minidumps begin with `MDMP` in either byte order.
pub(super) fn is_dump(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MDMP") || bytes.starts_with(b"PMDM")
}

/// Makes the event of a crash: what the client says, and that it is one.
pub(super) fn event_of(form: &[Field]) -> Result<Event, Refusal> {
    let mut wire = Map::new();
    for field in form {
        if field.bytes.len() > EVENT_BYTES_MAX {
            continue;
        }
        let name = field.name.as_str();
        if name == "__sentry-event" {
            merge(&mut wire, message_pack(&field.bytes).unwrap_or_default());
        } else if name == "sentry" {
            merge(
                &mut wire,
                serde_json::from_slice(&field.bytes).unwrap_or_default(),
            );
        } else if let Some(path) = name.strip_prefix("sentry[") {
            insert(&mut wire, path, &String::from_utf8_lossy(&field.bytes));
        }
    }
    let crumbs = breadcrumbs(form);
    if !crumbs.is_empty() {
        wire.insert("breadcrumbs".to_owned(), json!({"values": crumbs}));
    }
    let extra: Map<String, Value> = form
        .iter()
        .filter(|field| field.filename.is_none() && !is_ours(&field.name))
        .map(|field| {
            let text = String::from_utf8_lossy(&field.bytes).into_owned();
            (field.name.clone(), Value::from(text))
        })
        .collect();
    let mut event = Event::decode(Value::Object(wire).to_string().as_bytes())
        .map_err(|error| Refusal::bad(format!("invalid event: {error}")))?;
    for (key, value) in extra {
        event.extra.entry(key).or_insert(value);
    }
    mark_crash(&mut event);
    Ok(event)
}

fn is_ours(name: &str) -> bool {
    name == "sentry" || name.starts_with("sentry[") || name.starts_with("__sentry-")
}

/// What a crash is called until its stacks are walked.
pub(super) fn mark_crash(event: &mut Event) {
    event.level = Level::Fatal;
    event.platform.get_or_insert_with(|| "native".to_owned());
    if event.exception.is_empty() {
        event.exception.push(Exception {
            ty: Some("Minidump".to_owned()),
            value: Some("Fatal error".to_owned()),
            mechanism: Some(Mechanism {
                ty: Some("minidump".to_owned()),
                handled: Some(false),
                synthetic: Some(true),
                ..Mechanism::default()
            }),
            ..Exception::default()
        });
    }
}

/// Crashpad keeps breadcrumbs in two files that it fills in turn.
fn breadcrumbs(form: &[Field]) -> Vec<Value> {
    let mut crumbs: Vec<Value> = form
        .iter()
        .filter(|field| field.name.starts_with("__sentry-breadcrumb"))
        .filter(|field| field.bytes.len() <= EVENT_BYTES_MAX)
        .flat_map(|field| message_packs(&field.bytes))
        .collect();
    let time = |crumb: &Value| {
        let time = crumb.get("timestamp").and_then(Value::as_str);
        time.unwrap_or_default().to_owned()
    };
    crumbs.sort_by_key(time);
    crumbs.truncate(BREADCRUMBS_MAX);
    crumbs
}

fn message_pack(bytes: &[u8]) -> Option<Value> {
    message_packs(bytes).into_iter().next()
}

/// Reads values that stand one after the other; what does not read ends the list.
fn message_packs(bytes: &[u8]) -> Vec<Value> {
    let mut rest = bytes;
    let mut values = Vec::new();
    while !rest.is_empty() && values.len() < BREADCRUMBS_MAX {
        let mut reader = rmp_serde::Deserializer::new(&mut rest);
        reader.set_max_depth(NESTING_MAX);
        match serde::Deserialize::deserialize(&mut reader) {
            Ok(Value::Array(list)) => values.extend(list),
            Ok(value) => values.push(value),
            Err(_) => break,
        }
    }
    values
}

fn merge(wire: &mut Map<String, Value>, value: Value) {
    if let Value::Object(fields) = value {
        wire.extend(fields);
    }
}

/// Puts `release]` or `tags][key]` of `sentry[tags][key]` where it belongs.
fn insert(wire: &mut Map<String, Value>, path: &str, text: &str) {
    let keys: Vec<&str> = path.trim_end_matches(']').split("][").collect();
    let Some((last, above)) = keys.split_last() else {
        return;
    };
    let mut place = wire;
    for key in above.iter().take(NESTING_MAX) {
        let child = place.entry((*key).to_owned()).or_insert_with(|| json!({}));
        match child {
            Value::Object(object) => place = object,
            _ => return,
        }
    }
    place.insert((*last).to_owned(), Value::from(text));
}

/// Reads any bytes as each kind of field, for the fuzz target.
pub(super) fn read_any(bytes: &[u8]) {
    let names = [
        "__sentry-event",
        "__sentry-breadcrumb1",
        "sentry",
        "sentry[tags][a]",
        "other",
    ];
    let form: Vec<Field> = names
        .iter()
        .map(|name| Field {
            name: (*name).to_owned(),
            filename: None,
            content_type: None,
            bytes: bytes.to_vec(),
        })
        .collect();
    if let Ok(event) = event_of(&form) {
        let written = event.encode();
        assert!(Event::decode(&written).is_ok());
    }
    super::unreal::read_any(bytes);
}

fn dashed(id: EventId) -> String {
    let hex = id.to_string();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| hex[part].to_owned()).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_parts() {
        let mut wire = Map::new();
        insert(&mut wire, "release]", "1.0");
        insert(&mut wire, "tags][a b]", "c");
        insert(&mut wire, "release][x]", "lost");
        assert_eq!(
            Value::Object(wire),
            json!({"release": "1.0", "tags": {"a b": "c"}})
        );
    }

    #[test]
    fn message_packs_of_any_bytes() {
        let packed = rmp_serde::to_vec(&json!({"a": [1, null, "x"]})).unwrap();
        assert_eq!(message_pack(&packed), Some(json!({"a": [1, null, "x"]})));
        assert_eq!(message_packs(&[packed.clone(), packed].concat()).len(), 2);
        assert_eq!(message_pack(&[0x91; 100_000]), None);
        assert_eq!(message_pack(&[0xdd, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(message_pack(&[0xc1]), None);
    }

    #[test]
    fn ids_with_dashes() {
        let id: EventId = "9ec79c33ec9942ab8353589fcb2e04dc".parse().unwrap();
        assert_eq!(dashed(id), "9ec79c33-ec99-42ab-8353-589fcb2e04dc");
    }
}
