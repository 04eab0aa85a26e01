//! The body of the store endpoint in any form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| backstop_tracker::ingest::fuzz::store_body(bytes));
