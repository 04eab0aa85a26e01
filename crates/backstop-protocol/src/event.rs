//! The event: one occurrence of an error or message, as sent on the wire.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Breadcrumb, EventId, Exception, Level, Object, Request, Stacktrace, Thread, Timestamp, User,
    values,
};

/// One occurrence of an error or message.
///
/// The schema is Sentry's event payload: <https://develop.sentry.dev/sdk/event-payloads/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Identifies the event.
    pub event_id: EventId,
    /// What kind of record this is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub ty: Option<EventType>,
    /// How bad it is; missing on the wire means `error`.
    pub level: Level,
    /// When it happened, by the sender's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The language of the sender: `python`, `javascript`, `node`, `native`, `rust`, `other`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The logger that recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logger: Option<String>,
    /// The route or task during which it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// The old name of `transaction`: where the sender says that the fault is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub culprit: Option<String>,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The version of the user's program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The build of the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dist: Option<String>,
    /// Where the program runs: `production`, `staging`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The message, for events that are not (only) an exception.
    #[serde(rename = "logentry", skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// The exceptions in wire order: innermost cause first, the one that was raised last.
    #[serde(with = "values", skip_serializing_if = "Vec::is_empty")]
    pub exception: Vec<Exception>,
    /// The threads that were running.
    #[serde(with = "values", skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<Thread>,
    /// A stack without an exception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacktrace: Option<Stacktrace>,
    /// The template that failed (`filename`, `lineno`, `context_line`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Object>,
    /// The HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Who was affected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Indexed key/value pairs; every value is text once decoded.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub tags: Object,
    /// Anything else that the sender wanted to tell.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub extra: Object,
    /// Named structured contexts (`os`, `runtime`, `trace`, …).
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub contexts: Object,
    /// What happened before, oldest first.
    #[serde(with = "values", skip_serializing_if = "Vec::is_empty")]
    pub breadcrumbs: Vec<Breadcrumb>,
    /// The sender's own grouping; empty means the default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprint: Vec<String>,
    /// Installed packages and their versions.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub modules: Object,
    /// The client that sent the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<Sdk>,
    /// Images for later symbolication (`images`, `sdk_info`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_meta: Option<Value>,
    /// What was changed, cut or refused, as a tree beside the data.
    #[serde(rename = "_meta", skip_serializing_if = "Object::is_empty")]
    pub meta: Object,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

/// What kind of record an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventType {
    /// An event with exceptions.
    Error,
    /// An event with a message only.
    Default,
    /// A performance record.
    Transaction,
    /// A browser's report of a Content-Security-Policy violation.
    Csp,
    /// Feedback of a user.
    Feedback,
}

/// A message and how it was made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// The template, before parameters were filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The text that people read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formatted: Option<String>,
    /// The parameters, as sent (list or object).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

/// The client that sent an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sdk {
    /// For example `sentry.python.flask`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For example `2.75.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}
