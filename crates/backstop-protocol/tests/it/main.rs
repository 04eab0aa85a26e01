//! The wire format through its public door.

mod round_trip;
