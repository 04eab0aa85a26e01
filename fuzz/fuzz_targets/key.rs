//! DSNs, authentication and times of any text; what is written is read again.
#![no_main]

use backstop_protocol::{Auth, Dsn, EventId, Timestamp, query_pairs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(dsn) = text.parse::<Dsn>() {
        assert_eq!(dsn.to_string().parse(), Ok(dsn));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
    if let Ok(id) = text.parse::<EventId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let _ = Auth::from_header(text);
    let _ = Auth::from_query(text);
    let _ = query_pairs(text).count();
});
