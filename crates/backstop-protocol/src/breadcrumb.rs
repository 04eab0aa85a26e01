//! What happened before an event.

use serde::Serialize;
use serde_json::Value;

use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;
use crate::{Lazy, Object, Timestamp};

/// A note of something that happened before an event.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/breadcrumbs/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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
    pub data: Option<Lazy<Value>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

impl Breadcrumb {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Breadcrumb, Syntax> {
        let mut crumb = Breadcrumb::default();
        reader.object(|reader, key| match key {
            "timestamp" => reader.time(&mut crumb.timestamp),
            "type" => reader.text(&mut crumb.ty),
            "category" => reader.text(&mut crumb.category),
            "message" => reader.text_of_any(&mut crumb.message),
            "level" => reader.text(&mut crumb.level),
            "data" => reader.lazy_any(&mut crumb.data),
            _ => reader.member(key, &mut crumb.other),
        })?;
        Ok(crumb)
    }
}

deserialize_leniently!(Breadcrumb);
