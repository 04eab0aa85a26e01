//! The client: decides whether an event is wanted and hands it to the thread that sends.

use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use backstop_protocol::{Dsn, Event, EventId, Level, Message};

use super::loss::{Losses, Reason};
use super::queue::Queue;
use super::sender::{self, Shared, Waiting};
use super::transport::{Collector, Http, InProcess, Transport};
use super::{Options, SHUTDOWN_TIMEOUT, Scope, now};
use crate::capture;
use crate::event::Draft;

/// Reports to one project of one tracker.
///
/// Clones are the same client; the last one to go sends what still waits.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

/// The clients that have something to send, or had: a program that ends asks them all.
///
/// A tracker is mostly a static, which is never dropped.
static STARTED: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Waits until all clients of the program have sent what they have, and says whether they did.
pub(super) fn flush_all(timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    let clients: Vec<Arc<Shared>> = started().iter().filter_map(Weak::upgrade).collect();
    clients.iter().fold(true, |all, shared| {
        let left = until.saturating_duration_since(Instant::now());
        shared.queue.flush(left) && all
    })
}

fn started() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Handle {
    shared: Arc<Shared>,
    started: Once,
    dsn: Option<Dsn>,
}

impl Client {
    /// Makes a client that sends to the tracker that the DSN names.
    pub fn new(dsn: &Dsn, options: Options) -> Client {
        let mut client = Handle::new(Transport::Http(Http::new(dsn)), options);
        client.dsn = Some(dsn.clone());
        Client(Arc::new(client))
    }

    /// Makes a client whose events are collected, for tests.
    pub fn collecting(collector: &Collector) -> Client {
        Client::with_transport(Transport::Collecting(collector.clone()), Options::default())
    }

    /// Makes a client of a tracker in the same process.
    pub fn in_process(tracker: InProcess, options: Options) -> Client {
        Client::with_transport(Transport::InProcess(tracker), options)
    }

    /// Makes a client with any transport.
    pub fn with_transport(transport: Transport, options: Options) -> Client {
        Client(Arc::new(Handle::new(transport, options)))
    }

    /// Returns where the client sends to, if it does so over HTTP.
    pub fn dsn(&self) -> Option<&Dsn> {
        self.0.dsn.as_ref()
    }

    /// Returns the options.
    pub fn options(&self) -> &Options {
        &self.0.shared.options
    }

    /// Reports an error and everything that caused it.
    #[track_caller]
    pub fn capture_error(&self, error: &(dyn Error + 'static)) -> Option<EventId> {
        let draft = Draft::of_reported(error, Location::caller());
        self.capture_later(Event::default(), move |event| draft.finish(event))
    }

    /// Reports an error that `?` converted, with the stack of where it was made.
    pub fn capture(&self, error: &crate::Error) -> Option<EventId> {
        let draft = Draft::of_caught(error);
        self.capture_later(Event::default(), move |event| draft.finish(event))
    }

    /// Reports a message.
    pub fn capture_message(&self, text: impl Into<String>, level: Level) -> Option<EventId> {
        let message = Message {
            formatted: Some(text.into()),
            ..Message::default()
        };
        self.capture_event(Event {
            level,
            message: Some(message),
            ..Event::default()
        })
    }

    /// Reports an event, completed by the current scope, and returns its id.
    ///
    /// `None` if the event was not wanted, or lost because too many are waiting.
    pub fn capture_event(&self, mut event: Event) -> Option<EventId> {
        let id = self.accept(&mut event)?;
        self.enqueue(Waiting::Event(Box::new(event))).then_some(id)
    }

    /// Reports an event of which the expensive part is made later, on the client's own thread.
    ///
    /// `event` holds what is known now and is completed by the current scope; `finish` gets it.
    pub fn capture_later(
        &self,
        mut event: Event,
        finish: impl FnOnce(Event) -> Event + Send + 'static,
    ) -> Option<EventId> {
        let id = self.accept(&mut event)?;
        let recipe = Box::new(move || finish(event));
        self.enqueue(Waiting::Recipe(recipe)).then_some(id)
    }

    /// Decides whether an event is sampled, and gives it its id and time and the scope's facts.
    fn accept(&self, event: &mut Event) -> Option<EventId> {
        let rate = self.options().sample_rate;
        if rate < 1.0 && random_fraction() >= rate {
            self.0.shared.losses.count(Reason::SampleRate, 1);
            return None;
        }
        if event.event_id.is_nil() {
            event.event_id = new_event_id();
        }
        event.timestamp.get_or_insert_with(now);
        Scope::current().apply(event);
        Some(event.event_id)
    }

    fn enqueue(&self, waiting: Waiting) -> bool {
        self.0.start();
        let shared = &self.0.shared;
        let accepted = shared.queue.push(waiting).is_ok();
        if !accepted {
            shared.losses.count(Reason::QueueOverflow, 1);
        }
        accepted
    }

    /// Waits until everything that was reported is sent, and says whether it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.shared.queue.flush(timeout)
    }

    /// Sends what waits, for at most this long, and accepts nothing more.
    pub fn close(&self, timeout: Duration) {
        self.0.close(timeout);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("dsn", &self.0.dsn)
            .field("transport", &self.0.shared.transport)
            .finish_non_exhaustive()
    }
}

impl Handle {
    fn new(transport: Transport, options: Options) -> Handle {
        capture::warm_up();
        Handle {
            shared: Arc::new(Shared {
                queue: Queue::new(options.queue_events_max),
                losses: Losses::default(),
                options,
                transport,
            }),
            started: Once::new(),
            dsn: None,
        }
    }

    /// The thread starts with the first event: most programs never fail.
    fn start(&self) {
        self.started.call_once(|| {
            let mut clients = started();
            clients.retain(|client| client.strong_count() > 0);
            clients.push(Arc::downgrade(&self.shared));
            drop(clients);
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name("backstop-report".to_owned())
                .spawn(move || sender::run(&shared));
            if let Err(error) = thread {
                tracing::warn!(target: "backstop::report", %error, "cannot start the thread that reports; events are lost");
                self.shared.queue.end();
                self.shared.queue.close(Duration::ZERO);
            }
        });
    }

    fn close(&self, timeout: Duration) {
        let left = self.shared.queue.close(timeout);
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        if left > 0 {
            self.shared.losses.count(Reason::NetworkError, left);
        }
        let lost = self.shared.losses.failures();
        if lost > 0 {
            tracing::warn!(target: "backstop::report", lost, "events were lost");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.started.is_completed() {
            self.close(SHUTDOWN_TIMEOUT);
        }
    }
}

/// A random UUID, version 4.
pub(crate) fn new_event_id() -> EventId {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Without randomness an id is still unlike the others of this process and its past.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        bytes[..8].copy_from_slice(&now().micros().to_be_bytes());
        bytes[8..].copy_from_slice(&count.to_be_bytes());
    }
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    EventId::from_bytes(bytes)
}

/// At least 0 and less than 1; without randomness 0, so that nothing is lost.
fn random_fraction() -> f64 {
    let bits = getrandom::u32().unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}
