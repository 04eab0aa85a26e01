//! Any bytes are an envelope or are refused, and what was read is written and read again unchanged.
#![no_main]

use backstop_protocol::{Envelope, Item};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::read(bytes) else { return };
    let items: Vec<Item<'_>> = envelope.items.flatten().collect();
    let total: usize = items.iter().map(|item| item.payload.len()).sum();
    assert!(total <= bytes.len());
    let written = Envelope::write(&envelope.header, &items);
    let again = Envelope::read(&written).expect("what was written can be read");
    assert_eq!(again.header, envelope.header);
    let payloads = |items: &[Item<'_>]| items.iter().map(|item| item.payload.to_vec()).collect::<Vec<_>>();
    let read: Vec<Item<'_>> = again.items.map(|item| item.expect("an item")).collect();
    assert_eq!(payloads(&read), payloads(&items));
});
