//! The thread that completes, scrubs and sends what waits in the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use backstop_protocol::Event;

use super::limits::{self, Limits};
use super::loss::{Losses, Reason, Taken};
use super::queue::Queue;
use super::transport::Transport;
use super::{CaughtElsewhere, Options, envelope, now};

/// How often an event is sent to a tracker that answers with a fault of its own.
const ATTEMPTS_MAX: u32 = 4;

/// The pauses before the second, third, … attempt grow from the first to the second of these.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// An event that waits to be sent, or what it takes to make it.
pub(crate) enum Waiting {
    Event(Box<Event>),
    Recipe(Box<dyn FnOnce() -> Event + Send>),
}

/// What the client and its thread share.
pub(crate) struct Shared {
    pub(crate) queue: Queue<Waiting>,
    pub(crate) losses: Losses,
    pub(crate) options: Options,
    pub(crate) transport: Transport,
}

/// Runs until the queue is closed.
pub(crate) fn run(shared: &Arc<Shared>) {
    let _end = End(shared);
    // A panic in code of others on this thread is counted; reporting it would panic again.
    let _caught = CaughtElsewhere::enter();
    let mut sender = Sender {
        shared,
        limits: Limits::default(),
        unreachable: 0,
    };
    while let Some(waiting) = shared.queue.next() {
        sender.take(waiting);
    }
    sender.last_report();
}

/// Tells waiting callers that nobody works any more, even after a panic.
struct End<'s>(&'s Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.queue.end();
    }
}

struct Sender<'s> {
    shared: &'s Shared,
    limits: Limits,
    /// How often in a row the tracker could not be reached.
    unreachable: u32,
}

impl Sender<'_> {
    fn take(&mut self, waiting: Waiting) {
        // Before the event is made: resolving a stack costs more than everything else.
        if self.limits.active(Instant::now()) {
            return self.lose(Reason::RateLimited);
        }
        // The recipe and `before_send` are code of others, which may panic.
        let prepared = catch_unwind(AssertUnwindSafe(|| prepare(waiting, &self.shared.options)));
        match prepared {
            Ok(Some(event)) => self.send(&event),
            Ok(None) => self.lose(Reason::BeforeSend),
            Err(_) => self.lose(Reason::Internal),
        }
    }

    fn send(&mut self, event: &Event) {
        let mut attempts = 0;
        let mut reset_before = false;
        loop {
            let losses = self.shared.losses.take();
            let report = losses.as_ref().map(|losses| losses.report(now()));
            let bytes = envelope::write(Some(event), report.as_ref(), now());
            match self.shared.transport.send(&bytes) {
                Ok(answer) => {
                    self.unreachable = 0;
                    self.limits
                        .update(&answer, Instant::now(), SystemTime::now());
                    if limits::is_success(answer.status) {
                        return;
                    }
                    self.restore(losses);
                    attempts += 1;
                    // A tracker that is busy or broken may take the same event later.
                    let worth_waiting = answer.status >= 500 && attempts < ATTEMPTS_MAX;
                    if !worth_waiting {
                        let detail = answer.detail.as_deref().unwrap_or("no reason given");
                        tracing::warn!(target: "backstop::report", status = answer.status, detail, "the tracker did not take an event");
                        let limited = answer.status == 429;
                        return self.lose(if limited {
                            Reason::RateLimited
                        } else {
                            Reason::SendError
                        });
                    }
                    let asked = limits::retry_after(&answer, SystemTime::now());
                    self.pause(asked.unwrap_or_else(|| growing_pause(attempts)));
                }
                Err(unreachable) => {
                    self.restore(losses);
                    // A kept connection that the tracker has closed meanwhile: try a new one.
                    if unreachable.reset && !reset_before {
                        reset_before = true;
                        continue;
                    }
                    if self.unreachable == 0 {
                        tracing::warn!(target: "backstop::report", reason = unreachable.reason, "the tracker cannot be reached; events wait");
                    }
                    self.unreachable = self.unreachable.saturating_add(1);
                    // Events wait as long as there is room for them, a tracker's restart is short.
                    if self.pause(growing_pause(self.unreachable)) {
                        return self.lose(Reason::NetworkError);
                    }
                    reset_before = false;
                }
            }
        }
    }

    /// Waits, and says whether the client is being closed, so that there is no time to wait.
    fn pause(&self, duration: Duration) -> bool {
        self.shared.queue.pause(duration.min(PAUSE_LONGEST))
    }

    fn lose(&self, reason: Reason) {
        self.shared.losses.count(reason, 1);
    }

    fn restore(&self, losses: Option<Taken>) {
        if let Some(losses) = losses {
            self.shared.losses.restore(losses);
        }
    }

    /// Losses that no later event can carry.
    fn last_report(&self) {
        let Some(losses) = self.shared.losses.take() else {
            return;
        };
        let bytes = envelope::write(None, Some(&losses.report(now())), now());
        let sent = self.unreachable == 0
            && self
                .shared
                .transport
                .send(&bytes)
                .is_ok_and(|answer| limits::is_success(answer.status));
        if !sent {
            self.restore(Some(losses));
        }
    }
}

/// 0.5 s, 1 s, 2 s, … up to a minute.
fn growing_pause(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    PAUSE_FIRST
        .saturating_mul(1 << doublings)
        .min(PAUSE_LONGEST)
}

/// Makes the event and takes out what must not leave.
fn prepare(waiting: Waiting, options: &Options) -> Option<Event> {
    let mut event = match waiting {
        Waiting::Event(event) => *event,
        Waiting::Recipe(make) => make(),
    };
    complete(&mut event, options);
    options.scrubber.event(&mut event);
    match &options.before_send {
        Some(decide) => decide(event),
        None => Some(event),
    }
}

fn complete(event: &mut Event, options: &Options) {
    let fill = |field: &mut Option<String>, value: &Option<String>| {
        if field.is_none() {
            field.clone_from(value);
        }
    };
    fill(&mut event.environment, &options.environment);
    fill(&mut event.release, &options.release);
    fill(&mut event.dist, &options.dist);
    fill(&mut event.server_name, &options.server_name);
    for (name, value) in &options.tags {
        if !event.tags.contains_key(name) {
            event.tags.insert(name.clone(), value.clone());
        }
    }
    crate::event::complete(event, options);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds: Vec<f64> = [1, 2, 3, 8, 1000]
            .map(|attempts| growing_pause(attempts).as_secs_f64())
            .into();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 60.0, 60.0]);
    }
}
