//! A server whose store cannot be opened: it says so to everybody and tries again.
//!
//! A disk that is full, a directory that may not be written or a damaged file would otherwise end
//! the process, and a process manager would start it again and again while clients see a
//! connection that is refused and drop their events.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::config::Config;
use crate::ingest;
use crate::store::{Error, ErrorKind, Store};

/// When the store is tried again, and when clients may come again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Opens the store, or returns why it is worth waiting for it.
///
/// # Errors
///
/// There is no store to wait for, or waiting would not help.
pub(crate) async fn open(config: &Config) -> Result<Result<Store, Error>> {
    match try_open(config).await {
        Err(error) if !is_worth_waiting(config, &error) => Err(cannot_open(config, error)),
        opened => Ok(opened),
    }
}

/// Answers 503 on `listener` until the store can be opened; cancel it at any await.
///
/// # Errors
///
/// As [`open`], or the listener fails.
pub(crate) async fn refuse_until_open(
    config: &Config,
    listener: &std::net::TcpListener,
    mut error: Error,
) -> Result<Store> {
    loop {
        let detail = error.to_string();
        tracing::error!(
            reason = format!("{error:#}"),
            data = %config.data.display(),
            "the store cannot be opened; everything is refused until it can"
        );
        let (opened, until) = watch::channel(false);
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let refusing = tokio::spawn(refuse(listener, detail, until));
        let result = loop {
            tokio::time::sleep(RETRY_AFTER).await;
            match try_open(config).await {
                // The same again is no news.
                Err(again) if again.to_string() == error.to_string() => {}
                result => break result,
            }
        };
        // The task may have ended by itself, then nobody listens.
        let _ = opened.send(true);
        refusing
            .await
            .context("refusing panicked")?
            .context("the listener failed")?;
        match result {
            Ok(store) => {
                tracing::info!("the store could be opened");
                return Ok(store);
            }
            Err(other) if is_worth_waiting(config, &other) => error = other,
            Err(other) => return Err(cannot_open(config, other)),
        }
    }
}

async fn try_open(config: &Config) -> Result<Store, Error> {
    let directory = config.data.clone();
    tokio::task::spawn_blocking(move || Store::open(directory))
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "opening the store panicked",
            ))
        })
}

/// A directory without a store is a mistake on the command line rather than an accident.
fn is_worth_waiting(config: &Config, error: &Error) -> bool {
    let may_pass = error.is_passing() || error.kind() == ErrorKind::Corrupt;
    may_pass && Store::may_be_in(&config.data)
}

fn cannot_open(config: &Config, error: Error) -> anyhow::Error {
    let directory = config.data.display();
    anyhow::Error::new(error).context(format!("cannot open the store in {directory}"))
}

async fn refuse(
    listener: tokio::net::TcpListener,
    detail: String,
    mut opened: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let until = async move {
        // An error means that the waiting was cancelled, which is an end as well.
        let _ = opened.wait_for(|opened| *opened).await;
    };
    let router = ingest::closed(detail, RETRY_AFTER.as_secs());
    backstop::serve_until(listener, router, until).await
}
