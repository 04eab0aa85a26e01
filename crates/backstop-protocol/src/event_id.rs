//! Event ids: UUIDs, written without dashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encode::{serialize_ascii, write_ascii};

/// Identifies an event: 16 bytes, written as 32 lower-case hex digits.
///
/// # Example
///
/// ```
/// use backstop_protocol::EventId;
///
/// let id: EventId = "9ec79c33-ec99-42ab-8353-589fcb2e04dc".parse().unwrap();
/// assert_eq!(id.to_string(), "9ec79c33ec9942ab8353589fcb2e04dc");
/// assert!("9ec79c33".parse::<EventId>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EventId([u8; 16]);

/// An event id was not 32 hex digits (dashes are ignored).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseEventIdError(());

impl EventId {
    /// Makes an id of 16 bytes; the caller provides the randomness.
    pub const fn from_bytes(bytes: [u8; 16]) -> EventId {
        EventId(bytes)
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Says whether this is the id of no event: all zeros.
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Returns the 32 digits as ASCII; every event is written with its id, and answered with it.
    pub(crate) fn digits(&self) -> [u8; 32] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 32];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        }
        digits
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ascii(&self.digits(), f)
    }
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<EventId, ParseEventIdError> {
        let mut bytes = [0; 16];
        let mut digits = 0;
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            let digit = char::from(byte).to_digit(16).ok_or(ParseEventIdError(()))?;
            let slot: &mut u8 = bytes.get_mut(digits / 2).ok_or(ParseEventIdError(()))?;
            *slot = (*slot << 4) | digit as u8;
            digits += 1;
        }
        if digits == 32 {
            Ok(EventId(bytes))
        } else {
            Err(ParseEventIdError(()))
        }
    }
}

impl fmt::Display for ParseEventIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event id has 32 hex digits")
    }
}

impl std::error::Error for ParseEventIdError {}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_ascii(&self.digits(), serializer)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EventId, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
