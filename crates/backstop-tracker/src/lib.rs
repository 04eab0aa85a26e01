//! An error tracker in one process and one file that any Sentry SDK can send to.
//!
//! Events come in through `ingest`, are grouped by [`grouping`], become rows in [`digest`], and
//! are shown by `web`; `outbox` tells people. [`Tracker`] is all of it as one value whose
//! router an axum application can mount; the binary `backstop` is the same, alone.
#![forbid(unsafe_code)]

mod alert;
pub mod app;
mod cli;
mod closed;
mod codec;
mod command;
mod config;
mod demo;
pub mod digest;
pub mod grouping;
pub mod ingest;
mod letter;
mod log;
mod metrics;
pub mod model;
mod outbox;
mod recent;
pub mod record;
mod refused;
mod retention;
mod serve;
mod sourcemap;
pub mod store;
mod tags;
mod training;
mod web;

use std::process::ExitCode;

use clap::Parser;

pub use app::Tracker;

/// Runs the program `backstop`: reads the command line, does what it says, and returns a code that
/// says how it went.
pub fn main() -> ExitCode {
    match command::run(cli::Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("backstop: {error:#}");
            ExitCode::FAILURE
        }
    }
}
