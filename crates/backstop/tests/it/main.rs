//! Behaviour of the library as its users see it.

/// A server that ends asks all senders of mail in the process; who counts mails wants to be alone.
pub(crate) static MAILS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

mod answers;
mod debugger;
mod flask_cases;
mod program;
mod reload;
mod report;
mod serve;
mod stacktrace;
mod web;
