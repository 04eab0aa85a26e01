//! The fields of a crash reporter's form, MessagePack included.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| backstop_tracker::ingest::fuzz::crash(bytes));
