//! Doors for the fuzz targets and benches; not for use otherwise.

use backstop_protocol::{Event, EventId, Timestamp};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::body::{self, Held, Memory};
use super::normalise::{Arrival, normalise};
use super::settings::{Filters, Scrubbing, Settings};
use super::{filter, minidump, scrub};

/// Sniffs a body of the store endpoint.
pub fn store_body(bytes: &[u8]) {
    let memory = Memory::default();
    if let Ok(held) = body::sniff(Held::new(bytes.to_vec(), &memory)) {
        let _ = Event::decode(&held.bytes);
    }
}

/// Undoes each content encoding.
pub fn content_encoding(bytes: &[u8]) {
    let memory = Memory::default();
    for encoding in ["gzip", "deflate", "br", "zstd", "deflate, gzip"] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        let _ = body::decode(&headers, Held::new(bytes.to_vec(), &memory));
    }
}

/// Normalises, filters and scrubs an event; scrubbing what was scrubbed changes nothing.
pub fn event(bytes: &[u8]) {
    let Ok(mut event) = Event::decode(bytes) else {
        return;
    };
    give_form(&mut event);
    let everything = || vec!["*a*".to_owned()];
    let settings = Settings {
        filter: Filters {
            releases: everything(),
            environments: everything(),
            errors: everything(),
            browser_extensions: true,
            crawlers: true,
            localhost: true,
        },
        scrub: Scrubbing {
            emails: true,
            ip_addresses: true,
            ..Scrubbing::default()
        },
        ..Settings::default()
    };
    let _ = filter::filtered_by(&event, &settings, "fuzz");
    scrub::scrub(&mut event, &settings.scrub);
    let mut again = event.clone();
    scrub::scrub(&mut again, &settings.scrub);
    again.meta = event.meta.clone();
    assert_eq!(again, event);
}

/// Does what is done to an event before it is grouped.
pub fn prepared(bytes: &[u8], scrubbing: bool) -> Option<Event> {
    let mut event = Event::decode(bytes).ok()?;
    give_form(&mut event);
    if scrubbing {
        scrub::scrub(&mut event, &Scrubbing::default());
    }
    Some(event)
}

fn give_form(event: &mut Event) {
    let arrival = Arrival {
        received: Timestamp::from_micros(1_795_338_000_000_000),
        sent_at: event.timestamp,
        event_id: None,
        sdk: None,
        client: Some("fuzz/1"),
        agent: "fuzz/1",
        peer: None,
    };
    normalise(event, &arrival, None, || EventId::from_bytes([1; 16]));
}

/// Reads the event of a crash, as MessagePack and as parts of a form.
pub fn crash(bytes: &[u8]) {
    minidump::read_any(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use std::io::Write as _;

    /// Rounds of each test; the fuzz targets go on where these end.
    const ROUNDS: usize = 2_000;

    const EVENT: &str = r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","level":"error",
        "timestamp":"2026-11-22T09:00:00Z","logentry":{"message":"%s {} %(a)s","params":["x",1]},
        "exception":[{"type":"E","value":"redis://u:p@h Bearer abcDEF123 4111 1111 1111 1111",
        "stacktrace":{"frames":[{"function":"f","lineno":1,"vars":{"password":"x","a":[["token","y"]]}}]}}],
        "request":{"url":"http://[::1]:80/?a=1","cookies":"sessionid=a; b=c","headers":[["Cookie","a"]],
        "query_string":"token=1&b=2","data":"a=b@c.example"},"user":{"ip_address":"{{auto}}"},
        "extra":{"key":"-----BEGIN PRIVATE KEY-----\nabc","at":"10.0.0.1"},"tags":[["a","b"]]}"#;

    /// Numbers that look random and are the same every time (xorshift).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }

        fn mutate(&mut self, bytes: &mut Vec<u8>) {
            const TOKENS: [&[u8]; 14] = [
                b"{",
                b"}",
                b"[",
                b"]",
                b"\"",
                b"\\u0000",
                b"\\ud800",
                b"null",
                b"1e999",
                b"@",
                b"://",
                b"%s",
                b"\xff\xfe",
                b"-----BEGIN ",
            ];
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len() + 1);
                match self.below(5) {
                    0 => {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= 1 << self.below(8);
                        }
                    }
                    1 => drop(bytes.splice(at..at, TOKENS[self.below(14)].iter().copied())),
                    2 => {
                        let end = (at + self.below(16)).min(bytes.len());
                        drop(bytes.drain(at..end));
                    }
                    3 => {
                        let end = (at + self.below(64)).min(bytes.len());
                        let copy = bytes[at..end].to_vec();
                        drop(bytes.splice(at..at, copy));
                    }
                    _ => bytes.truncate(at),
                }
            }
        }
    }

    fn check(seeds: &[Vec<u8>], target: fn(&[u8])) {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for round in 0..ROUNDS {
            let mut bytes = seeds[round % seeds.len()].clone();
            dice.mutate(&mut bytes);
            target(&bytes);
        }
    }

    fn gzip() -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(EVENT.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib() -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(EVENT.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn events() {
        check(&[EVENT.as_bytes().to_vec()], event);
    }

    #[test]
    fn store_bodies() {
        let base64 = base64::engine::general_purpose::STANDARD.encode(zlib());
        check(
            &[
                base64.into_bytes(),
                zlib(),
                gzip(),
                EVENT.as_bytes().to_vec(),
            ],
            store_body,
        );
    }

    #[test]
    fn content_encodings() {
        let zstd = zstd::encode_all(EVENT.as_bytes(), 1).unwrap();
        check(
            &[gzip(), zlib(), zstd, b"\x1b\x10\x00\xf8".to_vec()],
            content_encoding,
        );
    }

    #[test]
    fn crashes() {
        let value: serde_json::Value = serde_json::from_str(EVENT).unwrap();
        check(
            &[
                rmp_serde::to_vec(&value).unwrap(),
                EVENT.as_bytes().to_vec(),
            ],
            crash,
        );
    }
}
