//! The program's own log: to standard error, for people.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts the log; `BACKSTOP_LOG` says how much, for example `debug` or `backstop_tracker=trace`.
pub(crate) fn init() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("BACKSTOP_LOG")
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    // An application that mounts the tracker may have started its own.
    let _ = log.try_init();
}
