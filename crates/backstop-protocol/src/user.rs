//! Who was affected by an event.

use serde_json::Value;

use crate::Object;
use crate::encode::{Encode, Members, serialize_encoded};
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;

/// Who was affected by an event.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/user/>.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct User {
    /// The application's own id; text or number on the wire.
    pub id: Option<Value>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The user name.
    pub username: Option<String>,
    /// The address of the client; never the literal `{{auto}}` once decoded by the tracker.
    pub ip_address: Option<String>,
    /// Fields that this version does not know.
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

impl Encode for User {
    fn encode(&self, out: &mut Vec<u8>) {
        let User {
            id,
            email,
            username,
            ip_address,
            other,
        } = self;
        Members::new(out)
            .member("id", id)
            .member("email", email)
            .member("username", username)
            .member("ip_address", ip_address)
            .all(other)
            .end();
    }
}

serialize_encoded!(User);
deserialize_leniently!(User);
