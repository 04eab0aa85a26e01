//! The envelope: the framed message that carries events and everything else.
//!
//! A header line in JSON, then items; an item is a header line, a payload, a newline.
//! Reading borrows from the bytes and copies no payload.
//! Form: <https://develop.sentry.dev/sdk/data-model/envelopes/>.

use std::fmt;

use serde::Serialize;

use crate::json::{Reader, Syntax};
use crate::{EventId, Object, Sdk, Timestamp};

/// Headers carry ids and a trace context; a longer line is no header.
const HEADER_BYTES_MAX: usize = 256 * 1024;

/// An envelope whose header has been read and whose items are read one by one.
///
/// # Example
///
/// ```
/// use backstop_protocol::Envelope;
///
/// let bytes = b"{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n\
///     {\"type\":\"attachment\",\"length\":3,\"filename\":\"a.bin\"}\na\nb\n\
///     {\"type\":\"event\"}\n{\"message\":\"no length\"}";
/// let envelope = Envelope::read(bytes).unwrap();
/// let items: Vec<_> = envelope.items.map(Result::unwrap).collect();
/// assert_eq!(items[0].payload, b"a\nb");
/// assert_eq!(items[1].header.ty, "event");
/// assert_eq!(items[1].payload, b"{\"message\":\"no length\"}");
/// ```
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// What holds for all items.
    pub header: EnvelopeHeader,
    /// The items, in the order in which they were sent.
    pub items: Items<'a>,
}

/// The first line of an envelope.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct EnvelopeHeader {
    /// The event that the items belong to; it beats an id in the event's payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// The DSN as text; for tunnels it is the only authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dsn: Option<String>,
    /// When the client sent this, by its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<Sdk>,
    /// Fields that this version does not know (`trace`, …).
    #[serde(flatten)]
    pub other: Object,
}

/// One item of an envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Item<'a> {
    /// What the payload is.
    pub header: ItemHeader,
    /// The bytes.
    pub payload: &'a [u8],
}

/// The line before an item's payload.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ItemHeader {
    /// `event`, `attachment`, `session`, …; empty if the client sent none.
    #[serde(rename = "type")]
    pub ty: String,
    /// How many bytes the payload has; without it, it ends at the next newline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// An attachment's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The payload's media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `event.attachment`, `event.minidump`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachment_type: Option<String>,
    /// How many records a container holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_count: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

/// Reads the items of an envelope.
///
/// After an error there are no more items: where the next one would begin is unknown.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    rest: &'a [u8],
    offset: usize,
}

/// Bytes are not an envelope: what is wrong, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeError {
    kind: EnvelopeErrorKind,
    offset: usize,
}

/// What is wrong with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeErrorKind {
    /// The first line is no JSON object.
    Header,
    /// An item's first line is no JSON object.
    ItemHeader,
    /// A header line is too long.
    HeaderTooLong,
    /// An item ends before the length that its header gives.
    Length,
    /// After an item of the given length there is neither newline nor end.
    Newline,
}

impl<'a> Envelope<'a> {
    /// Reads the header line.
    ///
    /// # Errors
    ///
    /// If the first line is not a JSON object, or longer than 256 KiB.
    pub fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, EnvelopeError> {
        let error = |kind| EnvelopeError { kind, offset: 0 };
        let (line, rest) = split_line(bytes);
        if line.len() > HEADER_BYTES_MAX {
            return Err(error(EnvelopeErrorKind::HeaderTooLong));
        }
        let text = String::from_utf8_lossy(line);
        let mut reader = Reader::new(text.trim_start_matches('\u{feff}'));
        let header = EnvelopeHeader::read(&mut reader)
            .and_then(|header| reader.end().map(|()| header))
            .map_err(|_| error(EnvelopeErrorKind::Header))?;
        let offset = bytes.len() - rest.len();
        Ok(Envelope {
            header,
            items: Items { rest, offset },
        })
    }

    /// Writes an envelope. Every item gets its payload's length.
    ///
    /// # Example
    ///
    /// ```
    /// use backstop_protocol::{Envelope, EnvelopeHeader, Item, ItemHeader};
    ///
    /// let header = ItemHeader { ty: "event".to_owned(), ..ItemHeader::default() };
    /// let item = Item { header, payload: b"{}" };
    /// let bytes = Envelope::write(&EnvelopeHeader::default(), &[item]);
    /// assert_eq!(bytes, b"{}\n{\"type\":\"event\",\"length\":2}\n{}\n");
    /// ```
    pub fn write(header: &EnvelopeHeader, items: &[Item<'_>]) -> Vec<u8> {
        let payload_bytes: usize = items.iter().map(|item| item.payload.len() + 128).sum();
        let mut bytes = Vec::with_capacity(payload_bytes + 512);
        write_line(&mut bytes, header);
        for item in items {
            let header = ItemHeader {
                length: Some(item.payload.len() as u64),
                ..item.header.clone()
            };
            write_line(&mut bytes, &header);
            bytes.extend_from_slice(item.payload);
            bytes.push(b'\n');
        }
        bytes
    }
}

fn write_line(bytes: &mut Vec<u8>, header: &impl Serialize) {
    // Text keys and no I/O: the only ways in which writing JSON can fail.
    serde_json::to_writer(&mut *bytes, header).expect("headers have text keys only");
    bytes.push(b'\n');
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, EnvelopeError>;

    fn next(&mut self) -> Option<Result<Item<'a>, EnvelopeError>> {
        // Some writers end an item with more than one newline.
        while let [b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
            self.offset += 1;
        }
        if self.rest.is_empty() {
            return None;
        }
        let item = self.item();
        match &item {
            Ok((_, rest)) => {
                self.offset += self.rest.len() - rest.len();
                self.rest = rest;
            }
            Err(_) => self.rest = &[],
        }
        Some(item.map(|(item, _)| item))
    }
}

impl<'a> Items<'a> {
    fn item(&self) -> Result<(Item<'a>, &'a [u8]), EnvelopeError> {
        let (line, rest) = split_line(self.rest);
        if line.len() > HEADER_BYTES_MAX {
            return Err(self.error(EnvelopeErrorKind::HeaderTooLong));
        }
        let text = String::from_utf8_lossy(line);
        let mut reader = Reader::new(&text);
        let header = ItemHeader::read(&mut reader)
            .and_then(|header| reader.end().map(|()| header))
            .map_err(|_| self.error(EnvelopeErrorKind::ItemHeader))?;
        if reader.notes.iter().any(|note| note.path == ["length"]) {
            return Err(self.error(EnvelopeErrorKind::ItemHeader));
        }
        let Some(length) = header.length else {
            let (payload, rest) = split_line(rest);
            return Ok((Item { header, payload }, rest));
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return Err(self.error(EnvelopeErrorKind::Length));
        };
        let rest = match rest {
            [] => rest,
            [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => rest,
            _ => return Err(self.error(EnvelopeErrorKind::Newline)),
        };
        Ok((Item { header, payload }, rest))
    }

    fn error(&self, kind: EnvelopeErrorKind) -> EnvelopeError {
        EnvelopeError {
            kind,
            offset: self.offset,
        }
    }
}

impl EnvelopeHeader {
    fn read(reader: &mut Reader<'_>) -> Result<EnvelopeHeader, Syntax> {
        let mut header = EnvelopeHeader::default();
        let mut event_id = None;
        reader.object(|reader, key| match key {
            "event_id" => reader.text(&mut event_id),
            "dsn" => reader.text(&mut header.dsn),
            "sent_at" => reader.time(&mut header.sent_at),
            "sdk" => reader.one(&mut header.sdk, Sdk::read),
            _ => reader.member(key, &mut header.other),
        })?;
        header.event_id = event_id.and_then(|text| text.parse().ok());
        Ok(header)
    }
}

impl ItemHeader {
    fn read(reader: &mut Reader<'_>) -> Result<ItemHeader, Syntax> {
        let mut header = ItemHeader::default();
        let mut ty = None;
        reader.object(|reader, key| match key {
            "type" => reader.text(&mut ty),
            "length" => reader.count(&mut header.length),
            "filename" => reader.text(&mut header.filename),
            "content_type" => reader.text(&mut header.content_type),
            "attachment_type" => reader.text(&mut header.attachment_type),
            "item_count" => reader.count(&mut header.item_count),
            _ => reader.member(key, &mut header.other),
        })?;
        header.ty = ty.unwrap_or_default();
        Ok(header)
    }
}

/// Splits at the first newline, which belongs to neither part.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match newline(bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// Returns the place of the first newline.
///
/// Payloads are long lines, so many bytes are compared at once: without a way out inside a chunk
/// the compiler uses vectors.
fn newline(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks::<64>();
    for (index, chunk) in chunks.iter().enumerate() {
        let found = chunk
            .iter()
            .fold(0, |found, byte| found | u8::from(*byte == b'\n'));
        if found != 0 {
            let place = chunk.iter().position(|byte| *byte == b'\n')?;
            return Some(index * 64 + place);
        }
    }
    let place = rest.iter().position(|byte| *byte == b'\n')?;
    Some(chunks.len() * 64 + place)
}

impl EnvelopeError {
    /// Returns what is wrong.
    pub fn kind(&self) -> EnvelopeErrorKind {
        self.kind
    }

    /// Returns the byte at which the faulty item begins, counted from 0.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            EnvelopeErrorKind::Header => "the envelope's header is no JSON object",
            EnvelopeErrorKind::ItemHeader => "an item's header is no JSON object",
            EnvelopeErrorKind::HeaderTooLong => "a header line is longer than 256 KiB",
            EnvelopeErrorKind::Length => "an item is shorter than its length says",
            EnvelopeErrorKind::Newline => "no newline after an item",
        };
        write!(f, "{what} (at byte {})", self.offset)
    }
}

impl std::error::Error for EnvelopeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (EnvelopeHeader, Vec<Result<Item<'_>, EnvelopeError>>) {
        let envelope = Envelope::read(bytes).unwrap();
        (envelope.header, envelope.items.collect())
    }

    #[test]
    fn payloads_end_where_their_header_says() {
        let check = |bytes: &[u8], payloads: &[&[u8]]| {
            let (_, items) = read(bytes);
            let read: Vec<_> = items
                .into_iter()
                .map(|item| item.unwrap().payload)
                .collect();
            assert_eq!(read, payloads, "{}", String::from_utf8_lossy(bytes));
        };
        check(b"{}", &[]);
        check(b"{}\n", &[]);
        check(b"{}\n\n\n", &[]);
        check(b"{}\n{\"type\":\"session\"}\n{}", &[b"{}"]);
        check(b"{}\n{\"type\":\"session\"}\n{}\n", &[b"{}"]);
        check(b"{}\n{\"type\":\"session\"}\n", &[b""]);
        check(b"{}\r\n{\"type\":\"session\"}\r\n{}\r\n", &[b"{}\r"]);
        check(b"{}\n{\"type\":\"attachment\",\"length\":0}\n", &[b""]);
        check(b"{}\n{\"type\":\"attachment\",\"length\":0}", &[b""]);
        check(
            b"{}\n{\"type\":\"attachment\",\"length\":0}\n\n{\"type\":\"x\"}\ny",
            &[b"", b"y"],
        );
        check(
            b"{}\n{\"type\":\"attachment\",\"length\":4}\na\n\n\n\n{\"type\":\"x\"}\ny\n",
            &[b"a\n\n\n", b"y"],
        );
        check(b"{}\n{\"length\":\"2\"}\n{}\n{}\nz", &[b"{}", b"z"]);
    }

    #[test]
    fn newlines_are_found_at_every_place() {
        for len in 0..200 {
            for place in 0..len {
                let mut bytes = vec![0x8A; len];
                bytes[place] = b'\n';
                assert_eq!(newline(&bytes), Some(place));
            }
            assert_eq!(newline(&vec![b'\r'; len]), None);
        }
    }

    #[test]
    fn what_is_wrong_and_where() {
        let check = |bytes: &[u8], before: usize, kind, offset| {
            let (_, items) = read(bytes);
            assert_eq!(items.len(), before + 1);
            let error = items.into_iter().next_back().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.offset()), (kind, offset));
        };
        check(b"{}\nnothing\n", 0, EnvelopeErrorKind::ItemHeader, 3);
        check(
            b"{}\n{\"length\":-1}\n",
            0,
            EnvelopeErrorKind::ItemHeader,
            3,
        );
        check(b"{}\n{\"length\":3}\n{}", 0, EnvelopeErrorKind::Length, 3);
        check(
            b"{}\n{}\nabc\n{\"length\":18446744073709551615}\n",
            1,
            EnvelopeErrorKind::Length,
            10,
        );
        check(b"{}\n{\"length\":1}\n{}", 0, EnvelopeErrorKind::Newline, 3);
        let long = format!("{{}}\n{{\"a\":\"{}\"}}\n", "x".repeat(HEADER_BYTES_MAX));
        check(long.as_bytes(), 0, EnvelopeErrorKind::HeaderTooLong, 3);
        for bytes in [&b""[..], b"\n{}", b"[]", b"{} {}", b"\xff"] {
            let error = Envelope::read(bytes).unwrap_err();
            assert_eq!(error.kind(), EnvelopeErrorKind::Header);
        }
    }

    #[test]
    fn headers_are_lenient() {
        let (header, _) = read(
            b"{\"event_id\":\"9ec79c33-ec99-42ab-8353-589fcb2e04dc\",\"sent_at\":\"?\",\"sdk\":7,\
              \"dsn\":\"http://k@h/1\",\"trace\":{\"trace_id\":\"t\"}}",
        );
        assert!(header.event_id.is_some());
        assert_eq!((header.sent_at, header.sdk), (None, None));
        assert_eq!(header.dsn.unwrap(), "http://k@h/1");
        assert_eq!(header.other["trace"]["trace_id"], "t");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let header = EnvelopeHeader {
            event_id: Some(EventId::from_bytes([7; 16])),
            sent_at: Some(Timestamp::from_micros(1_795_338_000_250_000)),
            ..EnvelopeHeader::default()
        };
        let attachment = ItemHeader {
            ty: "attachment".to_owned(),
            filename: Some("räport.json".to_owned()),
            length: Some(5),
            ..ItemHeader::default()
        };
        let item = Item {
            header: attachment,
            payload: b"\n\n{}\n",
        };
        let bytes = Envelope::write(&header, std::slice::from_ref(&item));
        let (read_header, items) = read(&bytes);
        assert_eq!(read_header, header);
        assert_eq!(items, [Ok(item)]);
    }
}
