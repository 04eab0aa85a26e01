//! The tracker through its public doors.

mod api;
mod cli;
mod grouping;
mod ingest;
mod pages;
mod scratch;
mod sdk_corpus;
mod server;
mod store;
