//! Writing the envelope of an event.

use backstop_protocol::{Event, Timestamp};
use serde_json::{Value, json};

/// Writes an envelope with one event, a report of losses, or both.
pub(crate) fn write(event: Option<&Event>, report: Option<&Value>, now: Timestamp) -> Vec<u8> {
    let mut header = json!({
        "sent_at": now,
        "sdk": {"name": super::CLIENT_NAME, "version": super::CLIENT_VERSION},
    });
    if let Some(event) = event {
        header["event_id"] = json!(event.event_id);
    }
    let mut bytes = header.to_string().into_bytes();
    bytes.push(b'\n');
    if let Some(event) = event {
        // Keys are text and numbers are finite, so an event always has a JSON form.
        if let Ok(payload) = serde_json::to_vec(event) {
            item(&mut bytes, "event", &payload);
        }
    }
    if let Some(report) = report {
        item(&mut bytes, "client_report", report.to_string().as_bytes());
    }
    bytes
}

fn item(bytes: &mut Vec<u8>, ty: &str, payload: &[u8]) {
    let header = json!({"type": ty, "length": payload.len(), "content_type": "application/json"});
    bytes.extend_from_slice(header.to_string().as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(payload);
    bytes.push(b'\n');
}
