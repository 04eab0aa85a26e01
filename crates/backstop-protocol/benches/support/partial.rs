//! The least that is to be read of an event, for comparing.

use serde::Deserialize;

/// What a tracker needs at the very least: ids, types, and where it happened.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what matters is that it is read")]
pub(crate) struct Partial {
    event_id: String,
    level: Option<String>,
    platform: Option<String>,
    release: Option<String>,
    environment: Option<String>,
    transaction: Option<String>,
    exception: PartialExceptions,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what matters is that it is read")]
struct PartialExceptions {
    values: Vec<PartialException>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what matters is that it is read")]
struct PartialException {
    #[serde(rename = "type")]
    ty: Option<String>,
    value: Option<String>,
    stacktrace: Option<PartialStacktrace>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what matters is that it is read")]
struct PartialStacktrace {
    frames: Vec<PartialFrame>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "what matters is that it is read")]
struct PartialFrame {
    function: Option<String>,
    module: Option<String>,
    filename: Option<String>,
    lineno: Option<u64>,
    in_app: Option<bool>,
}
