//! Who was affected by an event.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Object;

/// Who was affected by an event.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/user/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// The application's own id; text or number on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// The e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The address of the client; never the literal `{{auto}}` once decoded by the tracker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}
