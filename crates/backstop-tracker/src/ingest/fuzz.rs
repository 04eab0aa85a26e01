//! Doors for the fuzz targets; not for use otherwise.

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
    let arrival = Arrival {
        received: Timestamp::from_micros(1_795_338_000_000_000),
        sent_at: event.timestamp,
        event_id: None,
        sdk: None,
        client: Some("fuzz/1"),
        agent: "fuzz/1",
        peer: None,
    };
    normalise(&mut event, &arrival, None, EventId::from_bytes([1; 16]));
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

/// Reads the event of a crash, as MessagePack and as parts of a form.
pub fn crash(bytes: &[u8]) {
    minidump::read_any(bytes);
}
