//! Events of a wanted size, made from recorded ones, as gzip bodies whose id can be changed.

use std::io::Write;
use std::path::PathBuf;

use flate2::Crc;
use flate2::write::DeflateEncoder;
use serde_json::{Value, json};

/// The key of the project that events are sent to.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";
/// Its number.
pub(crate) const PROJECT: u64 = 42;

/// An envelope with one event, compressed except for the part with the event's id.
///
/// A client compresses every event anew; the generator must not, or it would need more of the
/// machine than the server. The id stands in a stored block, the rest is compressed once.
pub(crate) struct Body {
    rest: Vec<u8>,
    rest_sum: Crc,
    rest_len: usize,
    event_len: usize,
}

impl Body {
    fn new(event: &Value) -> Body {
        let mut text = serde_json::to_vec(event).expect("a value is JSON");
        // The id is written before the other fields.
        text[0] = b',';
        let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(&text).expect("a vector takes every byte");
        let mut rest_sum = Crc::new();
        rest_sum.update(&text);
        Body {
            rest: encoder.finish().expect("a vector takes every byte"),
            rest_sum,
            rest_len: text.len(),
            event_len: text.len() + ID_FIELD_LEN,
        }
    }

    /// Writes the whole HTTP request for an id of 32 hex digits.
    pub(crate) fn request(&self, id: &str, request: &mut Vec<u8>) {
        let first = format!(
            "{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\",\"length\":{}}}\n{{\"event_id\":\"{id}\"",
            self.event_len
        );
        let len = first.len() as u16;
        let body_len = 10 + 5 + first.len() + self.rest.len() + 8;
        request.clear();
        write!(
            request,
            "POST /api/{PROJECT}/envelope/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-sentry-envelope\r\n\
             Content-Encoding: gzip\r\nContent-Length: {body_len}\r\n\
             X-Sentry-Auth: Sentry sentry_version=7, sentry_client=sentry.python/2.75.0, sentry_key={KEY}\r\n\r\n"
        )
        .expect("a vector takes every byte");
        request.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        // A stored block that is not the last, RFC 1951, section 3.2.4.
        request.push(0);
        request.extend(len.to_le_bytes());
        request.extend((!len).to_le_bytes());
        request.extend(first.as_bytes());
        request.extend(&self.rest);
        let mut sum = Crc::new();
        sum.update(first.as_bytes());
        sum.combine(&self.rest_sum);
        request.extend(sum.sum().to_le_bytes());
        request.extend(((first.len() + self.rest_len) as u32).to_le_bytes());
    }

    /// Returns the size of the event's JSON text.
    pub(crate) fn event_bytes(&self) -> usize {
        self.event_len
    }

    /// Returns the size of the compressed body.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.rest.len() + 160
    }
}

/// Fewer frames are no stack.
const FRAMES_MIN: usize = 3;

const ID_FIELD_LEN: usize = r#"{"event_id":"0123456789abcdef0123456789abcdef""#.len();

/// Makes bodies of about `bytes` each, over so many issues, `per_issue` different ones of each.
pub(crate) fn bodies(bytes: usize, issues: usize, per_issue: usize) -> Vec<Body> {
    let recorded = recorded();
    let mut bodies = Vec::new();
    for issue in 0..issues {
        for variant in 0..per_issue {
            bodies.push(Body::new(&event(&recorded, bytes, issue, variant)));
        }
    }
    bodies
}

/// Makes one event as JSON.
pub(crate) fn event(recorded: &[Value], bytes: usize, issue: usize, variant: usize) -> Value {
    let mut event = recorded[issue % recorded.len()].clone();
    let fields = event.as_object_mut().expect("an event is an object");
    fields.remove("event_id");
    fields.insert(
        "release".to_owned(),
        json!(format!("shop@1.{}", variant % 3)),
    );
    fields.insert(
        "server_name".to_owned(),
        json!(format!("web-{}", variant % 4)),
    );
    fields.insert("environment".to_owned(), json!("production"));
    fields.insert(
        "user".to_owned(),
        json!({"id": (issue * 7 + variant) % 500}),
    );
    let exceptions = event["exception"]["values"].as_array_mut();
    let exception = exceptions
        .and_then(|values| values.last_mut())
        .expect("a recorded error");
    exception["value"] = json!(format!("order {} could not be paid", issue * 31 + variant));
    let frames = exception["stacktrace"]["frames"]
        .as_array_mut()
        .expect("a recorded stack");
    if let Some(frame) = frames.last_mut() {
        // Each issue has a function of its own.
        frame["function"] = json!(format!("charge_card_{}", letters(issue)));
        frame["module"] = json!("shop.payment");
        frame["filename"] = json!("shop/payment.py");
        frame["in_app"] = json!(true);
        frame["vars"]["order_id"] = json!((issue * 131 + variant * 17).to_string());
    }
    let mut size = event.to_string().len();
    // An event that is too long loses frames from its beginning, one that is too short gets more.
    while size > bytes {
        let frames = event["exception"]["values"]
            .as_array_mut()
            .and_then(|values| values.last_mut())
            .and_then(|exception| exception["stacktrace"]["frames"].as_array_mut())
            .filter(|frames| frames.len() > FRAMES_MIN);
        let Some(frames) = frames else { break };
        size -= frames.remove(0).to_string().len() + 1;
    }
    let mut donor = issue * 3 + 1;
    while size < bytes {
        let frame = donor_frame(recorded, donor);
        donor += 1;
        size += frame.to_string().len() + 1;
        let frames = event["exception"]["values"]
            .as_array_mut()
            .and_then(|values| values.last_mut());
        let frames = frames.and_then(|exception| exception["stacktrace"]["frames"].as_array_mut());
        frames.expect("a recorded stack").insert(0, frame);
    }
    event
}

/// A frame of another recorded event, as a library's.
fn donor_frame(recorded: &[Value], number: usize) -> Value {
    let donor = &recorded[number % recorded.len()];
    let frames = &donor["exception"]["values"][0]["stacktrace"]["frames"];
    let count = frames.as_array().map_or(0, Vec::len).max(1);
    let mut frame = frames[(number / recorded.len()) % count].clone();
    frame["in_app"] = json!(false);
    frame["module"] = json!(format!("library.part_{}", number % 97));
    frame
}

/// A name that no grouping takes for a counter.
fn letters(mut number: usize) -> String {
    let mut letters = String::new();
    loop {
        letters.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return letters;
        }
    }
}

/// Reads the recorded Python errors that have a stack.
pub(crate) fn recorded() -> Vec<Value> {
    let path = std::env::var_os("BACKSTOP_GROUPING_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/grouping"),
        PathBuf::from,
    );
    let path = path.join("events.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "cannot read {}: {error}; set BACKSTOP_GROUPING_CORPUS to the directory of recorded events",
            path.display()
        )
    });
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| {
            let values = event["exception"]["values"].as_array();
            event["platform"] == "python"
                && values.is_some_and(|values| {
                    values.iter().all(|value| {
                        value["stacktrace"]["frames"]
                            .as_array()
                            .is_some_and(|frames| frames.len() > 2)
                    })
                })
        })
        .take(60)
        .collect()
}

/// Ids that no other run has.
pub(crate) fn id(run: u64, number: u64) -> String {
    format!(
        "{run:016x}{:016x}",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}
