//! Behaviour of the library as its users see it.

/// A server that ends asks all senders of mail in the process; who counts mails wants to be alone.
pub(crate) static MAILS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Lets a subscriber of one thread hear what other threads have logged before.
///
/// While there is only one, `tracing` asks the subscriber of the thread that comes first to a
/// record, which may have none, and remembers the answer for all threads. So there are always more.
pub(crate) fn listen_on_this_thread() {
    static OTHERS: std::sync::OnceLock<[tracing::Dispatch; 2]> = std::sync::OnceLock::new();
    OTHERS.get_or_init(|| [(); 2].map(|()| tracing::Dispatch::new(tracing_subscriber::registry())));
}

mod answers;
mod debugger;
mod flask_cases;
mod program;
mod reload;
mod report;
mod serve;
mod stacktrace;
mod streams;
mod web;
