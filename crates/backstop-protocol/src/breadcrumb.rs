//! What happened before an event.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Object, Timestamp};

/// A note of something that happened before an event.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/breadcrumbs/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Breadcrumb {
    /// When, by the sender's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// `default`, `http`, `navigation`, `query`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
    /// For example the logger's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How important; kept as sent because clients invent levels here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}
