//! Signs of life of jobs: as items of envelopes, and over plain HTTP for what `curl` can do.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use backstop_protocol::{EventId, query_pairs};
use http::StatusCode;
use serde_json::Value;

use super::Ingest;
use super::body;
use super::caller::{Caller, project_of_path, split};
use super::envelope::decode;
use super::outcome::Fate;
use super::refusal::Refusal;
use crate::record::{CheckIn, Record};

const SLUG_CHARS_MAX: usize = 50;
const BODY_BYTES_MAX: usize = 100 * 1024;

/// Reads a check-in; `None` if it has no monitor or no known status.
pub(super) fn check_in_of(caller: &Caller, payload: &Value) -> Option<Record> {
    let text = |name: &str| payload.get(name).and_then(Value::as_str);
    let monitor = slug_of(text("monitor_slug")?)?;
    let status = text("status").unwrap_or("ok");
    let id = text("check_in_id").or_else(|| text("guid"));
    let id: Option<EventId> = id.and_then(|id| id.parse().ok());
    let config = payload
        .get("monitor_config")
        .filter(|config| config.is_object());
    Some(Record::CheckIn(CheckIn {
        project: caller.project,
        monitor,
        id: id.unwrap_or_default(),
        status: status_of(status)?,
        duration: payload
            .get("duration")
            .and_then(Value::as_f64)
            .filter(|s| *s >= 0.0),
        environment: text("environment").map(|name| name.chars().take(64).collect()),
        config: config.map(Value::to_string),
        received: caller.received,
    }))
}

fn status_of(text: &str) -> Option<String> {
    let known = matches!(text, "ok" | "error" | "in_progress" | "missed" | "timeout");
    known.then(|| text.to_owned())
}

/// The same job is one monitor, however its name is written.
fn slug_of(text: &str) -> Option<String> {
    let slug: String = text
        .trim()
        .chars()
        .take(SLUG_CHARS_MAX)
        .map(|letter| match letter {
            letter if letter.is_alphanumeric() || matches!(letter, '-' | '_') => {
                letter.to_ascii_lowercase()
            }
            _ => '-',
        })
        .collect();
    (!slug.is_empty()).then_some(slug)
}

pub(super) async fn cron(
    State(ingest): State<Arc<Ingest>>,
    Path((project, monitor)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    receive(&ingest, request, &project, &monitor, None).await
}

pub(super) async fn cron_with_key(
    State(ingest): State<Arc<Ingest>>,
    Path((project, monitor, key)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    receive(&ingest, request, &project, &monitor, Some(&key)).await
}

/// Fields may stand in the query, in a JSON body, or in both.
async fn receive(
    ingest: &Ingest,
    request: Request,
    project: &str,
    monitor: &str,
    key: Option<&str>,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let project = project_of_path(project)?;
    let caller = ingest.caller_of_head(&head, Some(project), key).await?;
    let held = body::read(&head.headers, body, &ingest.memory).await?;
    let held = decode(&head, held).await?;
    let mut fields = match held.bytes.as_slice() {
        [] => serde_json::Map::new(),
        bytes if bytes.len() > BODY_BYTES_MAX => {
            ingest.count(&caller, &Fate::TooLarge("check_in"), 1);
            return Err(Refusal::too_large("the check-in is larger than 100 KiB"));
        }
        bytes => serde_json::from_slice(bytes).map_err(|_| {
            ingest.count(&caller, &Fate::Invalid("check_in"), 1);
            Refusal::bad("invalid check-in: not a JSON object")
        })?,
    };
    for (name, value) in query_pairs(head.uri.query().unwrap_or_default()) {
        let value = match (&*name, value.parse::<f64>()) {
            ("duration", Ok(seconds)) => Value::from(seconds),
            _ => Value::from(value.into_owned()),
        };
        fields.insert(name.into_owned(), value);
    }
    fields.insert("monitor_slug".to_owned(), Value::from(monitor));
    let Some(record) = check_in_of(&caller, &Value::Object(fields)) else {
        ingest.count(&caller, &Fate::Invalid("check_in"), 1);
        return Err(Refusal::bad("invalid check-in: unknown status"));
    };
    ingest.count(&caller, &Fate::Item("check_in"), 1);
    ingest.recorder.record(vec![record]).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_monitors() {
        assert_eq!(
            slug_of(" Nightly Import ").as_deref(),
            Some("nightly-import")
        );
        assert_eq!(slug_of("a/b\n").as_deref(), Some("a-b"));
        assert_eq!(slug_of(" "), None);
        assert_eq!(status_of("done"), None);
    }
}
