//! Who was affected by an event.

use serde::Serialize;
use serde_json::Value;

use crate::Object;
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;

/// Who was affected by an event.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/user/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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

impl User {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<User, Syntax> {
        let mut user = User::default();
        reader.object(|reader, key| match key {
            "id" => reader.any(&mut user.id),
            "email" => reader.text(&mut user.email),
            "username" => reader.text(&mut user.username),
            "ip_address" => reader.text(&mut user.ip_address),
            _ => reader.member(key, &mut user.other),
        })?;
        Ok(user)
    }
}

deserialize_leniently!(User);
