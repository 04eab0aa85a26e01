//! The tracker through its public doors.

mod api;
mod cli;
mod grouping;
mod pages;
mod scratch;
mod server;
mod store;
