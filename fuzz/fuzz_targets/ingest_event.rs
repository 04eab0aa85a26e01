//! What ingest does to any event: form, filters, scrubbing; secrets are gone the second time too.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| backstop_tracker::ingest::fuzz::event(bytes));
