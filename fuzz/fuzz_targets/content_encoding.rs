//! Every content encoding, of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| backstop_tracker::ingest::fuzz::content_encoding(bytes));
