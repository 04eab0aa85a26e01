//! Writing JSON: the one encoder of events.
//!
//! Most of an event is text that was read from JSON just before and is still there as it was sent.
//! It is copied, and names are written without being looked at.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::scan::first_to_escape;
use crate::{EventId, EventType, Lazy, Level, Object, Timestamp, Unread};

/// A value of an event as JSON.
pub(crate) trait Encode {
    /// Writes the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Says whether a member with this value is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// Writes the members of an object.
pub(crate) struct Members<'o> {
    out: &'o mut Vec<u8>,
    next: u8,
}

impl<'o> Members<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Members<'o> {
        Members { out, next: b'{' }
    }

    /// Writes a member unless it is absent; its name is one of ours and needs no escapes.
    pub(crate) fn member(self, name: &'static str, value: &impl Encode) -> Members<'o> {
        if value.is_absent() {
            return self;
        }
        self.always(name, value)
    }

    /// Writes a member, also an empty list.
    pub(crate) fn always(mut self, name: &'static str, value: &impl Encode) -> Members<'o> {
        self.name(name);
        value.encode(self.out);
        self
    }

    /// Writes a list in the form `{"values": […]}`, unless it is empty.
    pub(crate) fn values<T: Encode>(mut self, name: &'static str, values: &[T]) -> Members<'o> {
        if !values.is_empty() {
            self.name(name);
            Members::new(self.out).always("values", &values).end();
        }
        self
    }

    /// Writes all members of an object.
    pub(crate) fn all(mut self, object: &Object) -> Members<'o> {
        for (name, value) in object {
            self.separate();
            name.encode(self.out);
            self.out.push(b':');
            value.encode(self.out);
        }
        self
    }

    pub(crate) fn end(mut self) {
        if self.next == b'{' {
            self.separate();
        }
        self.out.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        let next = std::mem::replace(&mut self.next, b',');
        self.out.extend_from_slice(&[next, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        self.out.push(std::mem::replace(&mut self.next, b','));
    }
}

impl Encode for str {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        let mut rest = self.as_bytes();
        while let Some(place) = first_to_escape(rest) {
            out.extend_from_slice(&rest[..place]);
            escape(rest[place], out);
            rest = &rest[place + 1..];
        }
        out.extend_from_slice(rest);
        out.push(b'"');
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend([b'\\', short]);
}

impl Encode for String {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_str().encode(out);
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.encode(out),
            None => out.extend_from_slice(b"null"),
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Encode> Encode for &[T] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, element) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            element.encode(out);
        }
        out.push(b']');
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_slice().encode(out);
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Encode for Object {
    fn encode(&self, out: &mut Vec<u8>) {
        Members::new(out).all(self).end();
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Encode for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::String(text) => text.encode(out),
            Value::Object(object) => object.encode(out),
            Value::Array(list) => list.encode(out),
            Value::Null | Value::Bool(_) | Value::Number(_) => plain(self, out),
        }
    }
}

impl<T: Unread + Encode> Encode for Lazy<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self.text() {
            // Control characters in strings are forgiven when reading, but are not written.
            Some(text) if text.bytes().fold(u8::MAX, u8::min) >= b' ' => {
                out.extend_from_slice(text.as_bytes());
            }
            _ => self.get_ref().encode(out),
        }
    }

    fn is_absent(&self) -> bool {
        // Text is only kept where there is something in it.
        self.text().is_none() && self.get_ref().is_absent()
    }
}

/// What is written by serde: small things.
fn plain(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("neither text keys nor I/O, which could fail");
}

macro_rules! encode_plainly {
    ($($ty:ty),*) => {$(
        impl Encode for $ty {
            fn encode(&self, out: &mut Vec<u8>) {
                plain(self, out);
            }
        }
    )*};
}
encode_plainly!(u64, i64, EventType, Level);

impl Encode for EventId {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_ascii(&self.digits(), out);
    }
}

impl Encode for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_ascii(&self.text(), out);
    }
}

/// Writes text that needs no escapes.
fn encode_ascii(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Shows ASCII text.
pub(crate) fn write_ascii(text: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(str::from_utf8(text).map_err(|_| fmt::Error)?)
}

/// Serializes ASCII text.
pub(crate) fn serialize_ascii<S: Serializer>(
    text: &[u8],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(str::from_utf8(text).map_err(serde::ser::Error::custom)?)
}

/// Implements `Serialize` through the encoder, so that there is one.
///
/// It goes through a [`Value`]; events for the wire and the disk are written with
/// [`crate::Event::encode`].
macro_rules! serialize_encoded {
    ($($ty:ty),* $(,)?) => {$(
        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut json = Vec::new();
                $crate::encode::Encode::encode(self, &mut json);
                let value: serde_json::Value =
                    serde_json::from_slice(&json).map_err(serde::ser::Error::custom)?;
                value.serialize(serializer)
            }
        }
    )*};
}
pub(crate) use serialize_encoded;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_serde_writes_them() {
        for value in [
            json!(null),
            json!([]),
            json!({}),
            json!([1, -2, 1.5, 1e300, true, null, "a", [], {"a\"b": {"ü": ["☃"]}}]),
        ] {
            let mut out = Vec::new();
            value.encode(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn every_byte_is_escaped_as_serde_escapes_it() {
        for byte in 0..=127_u8 {
            for len in [0, 1, 7, 8, 9, 20] {
                let text = format!("{}{}é", "x".repeat(len), char::from(byte));
                let mut out = Vec::new();
                text.encode(&mut out);
                let expected = serde_json::to_string(&text).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }

    #[test]
    fn unread_text_is_copied_unless_it_has_control_characters() {
        let encoded = |wire: &str| {
            let event = crate::Event::decode(wire.as_bytes()).unwrap();
            String::from_utf8(event.encode()).unwrap()
        };
        assert!(encoded(r#"{"extra": {"a" :  1}}"#).contains(r#""extra":{"a" :  1}"#));
        assert!(encoded("{\"extra\": {\"a\": \"1\n2\"}}").contains(r#""extra":{"a":"1\n2"}"#));
        assert!(encoded("{\"extra\": {\n\"a\": 1}}").contains(r#""extra":{"a":1}"#));
    }
}
