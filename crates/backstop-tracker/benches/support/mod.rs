//! What the load bench and the kill test share: events from recordings, servers, and measures.

#![allow(dead_code, reason = "each program uses its part")]

pub(crate) mod event;
pub(crate) mod server;
