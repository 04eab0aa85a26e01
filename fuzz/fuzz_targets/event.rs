//! Any bytes decode or are refused, and what was decoded is written and read again unchanged.
#![no_main]

use backstop_protocol::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = Event::decode(bytes) else { return };
    let written = event.encode();
    let again = Event::decode(&written).expect("what was written can be read");
    assert_eq!(again, event, "{}", String::from_utf8_lossy(&written));
});
