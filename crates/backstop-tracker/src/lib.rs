//! An error tracker in one process and one file that any Sentry SDK can send to.
//!
//! Events come in through [`ingest`], are grouped by [`grouping`], become rows in [`digest`], and
//! are shown by [`web`]; [`outbox`] tells people. [`app::Tracker`] is all of it as one value whose
//! router an axum application can mount; the binary `backstop` is the same, alone.
#![forbid(unsafe_code)]

mod alert;
pub mod app;
pub mod cli;
mod codec;
pub mod command;
pub mod config;
mod demo;
pub mod digest;
pub mod grouping;
pub mod ingest;
mod log;
pub mod model;
pub mod outbox;
pub mod record;
mod retention;
pub mod serve;
pub mod store;
mod web;
