//! What happened before an event.

use serde_json::Value;

use crate::encode::{Encode, Members, serialize_encoded};
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;
use crate::{Lazy, Object, Timestamp};

/// A note of something that happened before an event.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/breadcrumbs/>.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Breadcrumb {
    /// When, by the sender's clock.
    pub timestamp: Option<Timestamp>,
    /// `default`, `http`, `navigation`, `query`, …
    pub ty: Option<String>,
    /// For example the logger's name.
    pub category: Option<String>,
    /// The text.
    pub message: Option<String>,
    /// How important; kept as sent because clients invent levels here.
    pub level: Option<String>,
    /// Details.
    pub data: Option<Lazy<Value>>,
    /// Fields that this version does not know.
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

impl Encode for Breadcrumb {
    fn encode(&self, out: &mut Vec<u8>) {
        let Breadcrumb {
            timestamp,
            ty,
            category,
            message,
            level,
            data,
            other,
        } = self;
        Members::new(out)
            .member("timestamp", timestamp)
            .member("type", ty)
            .member("category", category)
            .member("message", message)
            .member("level", level)
            .member("data", data)
            .all(other)
            .end();
    }
}

serialize_encoded!(Breadcrumb);
deserialize_leniently!(Breadcrumb);
