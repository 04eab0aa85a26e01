//! Turns events into rows: the one place where events and issues are written.
//!
//! [`Digest::prepare`] does what needs no database (normalise, group, pack) on the caller's
//! thread; [`Digest::submit`] hands the result to the one writer and waits. The writer takes
//! everything that waits into one transaction, so that a commit is paid once for many events.
//! `Ok` means that the events are on the disk. A full queue and a disk that refuses are errors
//! that say when to come again; nothing is answered from memory.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backstop_protocol::{Event, EventId, Level, Timestamp};
use tokio::sync::{Notify, oneshot};

use crate::codec::{Codec, Packed};
use crate::grouping::hint::Sketch;
use crate::grouping::{GroupHash, GroupKey, Grouper, Grouping};
use crate::log::{Answer, Block, Log};
use crate::metrics::{Gauge, Metrics, add};
use crate::model::{IssueId, Key, ProjectId};
use crate::recent::Recent;
use crate::store::apply::Applied;
use crate::store::{Error, ErrorKind, Store, Words, search_words};
use crate::tags::{Tags, cut};

/// Events after which the log is merged into the file: some 10 to 20 MB of log.
const MERGE_EVENTS: usize = 1000;
/// When the disk is tried again after it refused; until then every event is refused at once.
const REFUSED_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Projects whose grouping and dictionary are in memory: a megabyte each if they are busy.
/// An event of another project costs a few reads, and what was learned is written down before.
const PROJECTS_KNOWN_MAX: usize = 64;

/// Steps of maintenance in one call, each one small transaction.
const MAINTAIN_STEPS_MAX: usize = 200;

/// Frames and texts whose words are indexed.
const SEARCH_FRAMES_MAX: usize = 20;
const SEARCH_TEXT_CHARS_MAX: usize = 300;
const TITLE_CHARS_MAX: usize = 250;

/// The digest of one store.
///
/// Dropping it writes what waits and ends its thread.
#[derive(Debug)]
pub struct Digest {
    shared: Arc<Shared>,
    store: Store,
    codec: Codec,
    groupers: RwLock<Recent<ProjectId, Arc<Grouper>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Where an event came from.
#[derive(Debug, Clone, Copy)]
pub struct Incoming {
    /// The project that its key opened.
    pub project: ProjectId,
    /// The key, for the account of outcomes.
    pub key: Option<Key>,
    /// When it arrived, by the server's clock.
    pub received: Timestamp,
}

/// An event that is ready to be written.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) project: ProjectId,
    pub(crate) key: Option<Key>,
    pub(crate) event_id: EventId,
    pub(crate) received: Timestamp,
    pub(crate) timestamp: Timestamp,
    pub(crate) level: Level,
    pub(crate) platform: Option<String>,
    pub(crate) release: Option<String>,
    pub(crate) version: u16,
    pub(crate) keys: Vec<GroupKey>,
    pub(crate) title: String,
    pub(crate) culprit: String,
    pub(crate) reason: String,
    pub(crate) tags: Tags,
    pub(crate) words: Words,
    /// What an issue that this event makes looks like; only where one of its hashes is new.
    pub(crate) sketch: Option<Sketch>,
    pub(crate) body: Packed,
}

impl Prepared {
    /// The hash that stands for the event's group.
    pub(crate) fn primary(&self) -> GroupHash {
        self.keys
            .first()
            .map_or(GroupHash::from_bytes([0; 16]), |key| key.hash)
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The event.
    pub event_id: EventId,
    /// Its issue.
    pub issue: IssueId,
    /// Its issue was not there before.
    pub new_issue: bool,
    /// An event with this id was stored before; this one was not counted.
    pub duplicate: bool,
}

/// Why events were not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// More events wait than the writer can take in a second.
    Full {
        /// When to come again.
        retry_after: Duration,
    },
    /// The store refuses for now: the disk is full, read-only or failing.
    Unavailable {
        /// When to come again.
        retry_after: Duration,
        /// Why, in words for the log.
        reason: String,
    },
    /// The event itself cannot be stored.
    Refused {
        /// Why, in words for the log.
        reason: String,
    },
    /// The server is ending.
    Stopped,
}

impl Digest {
    /// Starts the writer of a store.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(store: Store) -> std::io::Result<Digest> {
        Digest::start_with(store, REFUSED_RETRY_AFTER)
    }

    /// Starts the writer of a store that tries a disk that refused again after `refused_for`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start_with(store: Store, refused_for: Duration) -> std::io::Result<Digest> {
        let shared = Arc::new(Shared {
            refused_for,
            ..Shared::default()
        });
        let writer = {
            let (shared, store) = (Arc::clone(&shared), store.clone());
            std::thread::Builder::new()
                .name("digest".to_owned())
                .spawn(move || write_until_stopped(&shared, &store))?
        };
        Ok(Digest {
            shared,
            store,
            codec: Codec::default(),
            groupers: RwLock::new(Recent::new(PROJECTS_KNOWN_MAX)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Does for an event all that needs no writing: about a tenth of a millisecond of work.
    ///
    /// Scrub the event before.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Unavailable`] if what was learned about a project cannot be read, which
    /// happens once per project.
    pub fn prepare(&self, incoming: Incoming, mut event: Event) -> Result<Prepared, SubmitError> {
        let grouper = self.grouper(incoming.project, incoming.received)?;
        grouper.normalise(&mut event);
        let grouping = grouper.group_for_store(&event);
        Ok(prepare(&self.codec, incoming, &event, grouping))
    }

    fn grouper(&self, project: ProjectId, now: Timestamp) -> Result<Arc<Grouper>, SubmitError> {
        let known = self.groupers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(grouper) = known.get(&project) {
            return Ok(Arc::clone(grouper));
        }
        drop(known);
        let learned = self
            .store
            .learned(project)
            .map_err(|error| unavailable(&error))?;
        let grouper = match self.store.project(project) {
            Ok(known) => Grouper::restore(&learned)
                .with_settings(&known.settings, now)
                .unwrap_or_else(|reason| {
                    tracing::error!(%project, reason, "the default grouping is used");
                    Grouper::restore(&learned).despite_settings(&known.settings)
                }),
            Err(_) => Grouper::restore(&learned),
        };
        let dictionary = match self.store.latest_dictionary(project) {
            Ok(dictionary) => dictionary,
            // Bodies are packed without it and take more room; `check` reports the damage.
            Err(error) => {
                tracing::error!(%project, error = format!("{error:#}"), "no dictionary");
                None
            }
        };
        let mut known = self
            .groupers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Another request may have come first; everybody must learn in the same one.
        if let Some(grouper) = known.get(&project) {
            return Ok(Arc::clone(grouper));
        }
        let grouper = Arc::new(grouper);
        if let Some(dictionary) = dictionary {
            self.codec.set_dictionary(project, dictionary);
        }
        if let Some((gone, grouper)) = known.insert(project, Arc::clone(&grouper)) {
            // Still under the lock: whoever needs it again must read what is written here.
            self.codec.forget(gone);
            if let Err(error) = self.keep(gone, &grouper) {
                tracing::warn!(project = %gone, error = format!("{error:#}"), "what grouping learned is lost");
            }
        }
        Ok(grouper)
    }

    /// Does what is due beside the events: thins out bodies over the budget, rolls up counts,
    /// drops ids past the window, trains dictionaries, writes down what grouping has learned.
    ///
    /// Call it every few seconds from a thread that may block; a call may take a second.
    ///
    /// # Errors
    ///
    /// If the store cannot be written; nothing is lost by that, and the next call goes on.
    pub fn maintain(&self, now: Timestamp) -> Result<(), Error> {
        self.keep_learned()?;
        self.follow_settings(now)?;
        // A call ends even if events come faster than bodies can be thinned out.
        for _ in 0..MAINTAIN_STEPS_MAX {
            if self.shared.log.is_stopping() || !self.store.maintain(now)? {
                break;
            }
        }
        if let Some((project, dictionary)) = self.store.train(now)? {
            let known = self.groupers.read().unwrap_or_else(PoisonError::into_inner);
            // A project that is not in memory reads it with its next event.
            if known.get(&project).is_some() {
                self.codec.set_dictionary(project, dictionary);
            }
        }
        Ok(())
    }

    /// Settings may be changed by any process, and a transition in them ends by itself.
    fn follow_settings(&self, now: Timestamp) -> Result<(), Error> {
        for (project, grouper) in self.groupers() {
            let settings = self.store.project(project)?.settings;
            if !grouper.follows(&settings, now) {
                self.reload_grouping(project)?;
            }
        }
        Ok(())
    }

    /// Reads a project's settings of grouping again before its next event.
    ///
    /// # Errors
    ///
    /// If what was learned cannot be written down.
    fn reload_grouping(&self, project: ProjectId) -> Result<(), Error> {
        self.keep_learned()?;
        let mut known = self
            .groupers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(known.remove(&project));
        self.codec.forget(project);
        Ok(())
    }

    fn keep_learned(&self) -> Result<(), Error> {
        for (project, grouper) in self.groupers() {
            self.keep(project, &grouper)?;
        }
        Ok(())
    }

    fn groupers(&self) -> Vec<(ProjectId, Arc<Grouper>)> {
        let known = self.groupers.read().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .map(|(id, grouper)| (*id, Arc::clone(grouper)))
            .collect()
    }

    /// Writes down what a grouper has learned since it was last asked.
    fn keep(&self, project: ProjectId, grouper: &Grouper) -> Result<(), Error> {
        match grouper.learned() {
            Some(learned) => self.store.set_learned(project, &learned),
            None => Ok(()),
        }
    }

    /// Says whether events are taken now.
    ///
    /// # Errors
    ///
    /// The error with which [`Digest::submit`] would refuse.
    pub fn health(&self) -> Result<(), SubmitError> {
        self.shared.log.admits()
    }

    /// Returns the digest's measures in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let (events, bytes) = self.shared.log.waiting();
        let mut gauges = vec![
            Gauge {
                name: "backstop_queue_events",
                help: "Events that wait for the writer.",
                value: events as u64,
            },
            Gauge {
                name: "backstop_queue_bytes",
                help: "Their packed bodies.",
                value: bytes as u64,
            },
        ];
        gauges.extend(self.store.gauges());
        self.shared.metrics.render(&gauges)
    }

    /// Stores events; `Ok` means that they are on the disk, in the order in which they were given.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; then none of them was stored, or they will count as duplicates
    /// when they are sent again.
    pub async fn submit(&self, events: Vec<Prepared>) -> Result<Vec<Stored>, SubmitError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        let count = events.len();
        self.shared
            .log
            .append(Block { events, answer })
            .inspect_err(|error| self.shared.metrics.refused(error, count))?;
        answered.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// Waits until alerts became due; one call may stand for many alerts.
    pub async fn alerts_due(&self) {
        self.shared.alerts.notified().await;
    }

    /// Writes what waits, and ends; later submissions are refused.
    pub fn stop(&self) {
        self.shared.log.stop();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // A panic of the writer was printed when it happened.
            let _ = writer.join();
            if let Err(error) = self.keep_learned() {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "what grouping learned is lost"
                );
            }
        }
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug, Default)]
struct Shared {
    log: Log,
    alerts: Notify,
    metrics: Metrics,
    refused_for: Duration,
}

fn write_until_stopped(shared: &Shared, store: &Store) {
    let (merge, merges) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        if store.merges_log_aside() {
            let merging = std::thread::Builder::new()
                .name("merge".to_owned())
                .spawn_scoped(scope, move || merge_log_when_told(store, &merges));
            if let Err(error) = merging {
                // Then the writer merges the log itself, at a larger size.
                tracing::warn!(%error, "the log is merged between commits");
            }
        }
        // A server that is killed again and again before this many events would let it grow.
        let _ = merge.try_send(());
        let mut events = 0;
        while let Some(batch) = shared.log.take() {
            events += batch.iter().map(|one| one.events.len()).sum::<usize>();
            let written = catch_unwind(AssertUnwindSafe(|| write(shared, store, batch)));
            let full = written.unwrap_or_else(|_| {
                // It was printed. Its answers are gone, so its senders are told to come again, and
                // its transaction is rolled back.
                tracing::error!("writing a batch panicked; the events after it go on");
                false
            });
            if full || events >= MERGE_EVENTS {
                events = 0;
                // If it is still merging, it will be told again soon.
                let _ = merge.try_send(());
            }
        }
        drop(merge);
    });
}

/// Moves the log into the file beside the writer, so that no commit waits for it.
fn merge_log_when_told(store: &Store, merges: &mpsc::Receiver<()>) {
    if let Err(error) = store.keep_reserve() {
        tracing::warn!(error = format!("{error:#}"), "there is no reserve");
    }
    for () in merges {
        // A log that was merged may still have the room that the reserve needs.
        let merged = store.merge_log().and_then(|()| store.keep_reserve());
        let merged = match merged {
            Err(error) if is_full(&error) => store.merge_log_with_reserve(),
            merged => merged,
        };
        if let Err(error) = merged {
            tracing::warn!(error = format!("{error:#}"), "the log was not merged");
        }
    }
}

/// SQLite calls a used-up quota an error of the disk.
fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Full | ErrorKind::Io)
}

/// Writes a batch and answers it; says whether the disk is full.
fn write(shared: &Shared, store: &Store, batch: Vec<Block>) -> bool {
    let mut events = Vec::new();
    let mut answers = Vec::new();
    for block in batch {
        answers.push((block.events.len(), block.answer));
        events.extend(block.events);
    }
    let started = Instant::now();
    let result = store.keep_reserve().and_then(|()| store.apply(&events));
    shared.metrics.committed(events.len(), started.elapsed());
    let full = result.as_ref().is_err_and(is_full);
    match result {
        Ok(applied) => {
            shared.log.admit_again();
            shared.metrics.applied(&applied);
            let mut stored = applied.stored.into_iter();
            for (count, answer) in answers {
                // A client that has left finds its events as duplicates when it comes again.
                let _ = answer.send(Ok(stored.by_ref().take(count).collect()));
            }
            if applied.alerts > 0 {
                shared.alerts.notify_one();
            }
        }
        Err(error) if error.is_passing() => refuse(shared, answers, &error),
        Err(error) => write_apart(shared, store, &events, answers, &error),
    }
    full
}

fn unavailable(error: &Error) -> SubmitError {
    SubmitError::Unavailable {
        retry_after: REFUSED_RETRY_AFTER,
        reason: format!("{error:#}"),
    }
}

impl Metrics {
    fn refused(&self, error: &SubmitError, events: usize) {
        match error {
            SubmitError::Full { .. } => add(&self.refused_full, events),
            SubmitError::Refused { .. } => add(&self.refused_event, events),
            SubmitError::Unavailable { .. } | SubmitError::Stopped => {
                add(&self.refused_unavailable, events);
            }
        }
    }

    fn applied(&self, applied: &Applied) {
        let stored = &applied.stored;
        let duplicates = stored.iter().filter(|event| event.duplicate).count();
        add(&self.stored, stored.len() - duplicates);
        add(&self.duplicates, duplicates);
        add(
            &self.new_issues,
            stored.iter().filter(|event| event.new_issue).count(),
        );
        add(&self.alerts, applied.alerts);
    }
}

/// The surroundings are at fault: everybody is sent away for a while.
fn refuse(shared: &Shared, answers: Vec<(usize, Answer)>, error: &Error) {
    let reason = format!("{error:#}");
    add(&shared.metrics.failed_commits, 1);
    let refused = answers.iter().map(|(count, _)| count).sum();
    add(&shared.metrics.refused_unavailable, refused);
    tracing::error!(
        reason,
        "events are refused until the store can be written again"
    );
    shared.log.refuse(shared.refused_for, reason.clone());
    for (_, answer) in answers {
        let _ = answer.send(Err(SubmitError::Unavailable {
            retry_after: shared.refused_for,
            reason: reason.clone(),
        }));
    }
}

/// One of the submissions is at fault; apart, it fails alone.
fn write_apart(
    shared: &Shared,
    store: &Store,
    events: &[Prepared],
    answers: Vec<(usize, Answer)>,
    error: &Error,
) {
    let alone = answers.len() == 1;
    let mut rest = events;
    let mut answers = answers.into_iter();
    while let Some((count, answer)) = answers.next() {
        let (own, others) = rest.split_at(count);
        rest = others;
        let again = (!alone).then(|| store.apply(own));
        let result = match again.as_ref().map_or(Err(error), Result::as_ref) {
            // By now the surroundings are at fault, and nobody's event.
            Err(error) if error.is_passing() => {
                let everybody = std::iter::once((count, answer)).chain(answers).collect();
                return refuse(shared, everybody, error);
            }
            Ok(applied) => {
                shared.metrics.applied(applied);
                if applied.alerts > 0 {
                    shared.alerts.notify_one();
                }
                Ok(applied.stored.clone())
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(reason, events = count, "events cannot be stored");
                add(&shared.metrics.refused_event, count);
                Err(match error.kind() {
                    // Other pages may be sound, so the next event is tried at once.
                    ErrorKind::Corrupt => SubmitError::Unavailable {
                        retry_after: shared.refused_for,
                        reason,
                    },
                    _ => SubmitError::Refused { reason },
                })
            }
        };
        let _ = answer.send(result);
    }
}

/// The part of the digest that needs no database.
fn prepare(codec: &Codec, incoming: Incoming, event: &Event, grouping: Grouping) -> Prepared {
    let tags = Tags::of(event);
    let words = words(event, &grouping, &tags);
    let is_new = grouping.keys.iter().any(|key| !key.made_of.is_empty());
    Prepared {
        project: incoming.project,
        key: incoming.key,
        event_id: event.event_id,
        received: incoming.received,
        timestamp: event.timestamp.unwrap_or(incoming.received),
        level: event.level,
        platform: event.platform.clone(),
        release: event.release.clone(),
        version: grouping.version,
        sketch: is_new.then(|| Sketch::of(event)).flatten(),
        keys: grouping.keys,
        title: cut(&grouping.title, TITLE_CHARS_MAX).to_owned(),
        culprit: cut(&grouping.culprit, TITLE_CHARS_MAX).to_owned(),
        reason: grouping.reason,
        tags,
        words,
        body: codec.pack(incoming.project, event),
    }
}

/// The words of the short document: what people remember of an error.
pub(crate) fn words(event: &Event, grouping: &Grouping, tags: &Tags) -> Words {
    let mut texts = vec![grouping.title.as_str(), grouping.culprit.as_str()];
    for exception in &event.exception {
        texts.extend(exception.ty.as_deref());
        texts.extend(exception.value.as_deref());
        let frames = exception
            .stacktrace
            .iter()
            .flat_map(|trace| trace.frames.iter().rev());
        for frame in frames
            .filter(|frame| frame.in_app == Some(true))
            .take(SEARCH_FRAMES_MAX)
        {
            texts.extend(frame.function.as_deref());
            texts.extend(frame.module.as_deref().or(frame.filename.as_deref()));
        }
    }
    if let Some(message) = &event.message {
        texts.extend(message.formatted.as_deref().or(message.message.as_deref()));
    }
    texts.extend(tags.iter().map(|(_, value)| value));
    if let Some(user) = &event.user {
        texts.extend(user.username.as_deref());
        texts.extend(user.email.as_deref());
    }
    let mut words = search_words(texts.iter().map(|text| cut(text, SEARCH_TEXT_CHARS_MAX)));
    for (key, value) in tags.iter() {
        words.push_tag(key, value);
    }
    words
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Full { .. } => f.write_str("too many events are waiting"),
            SubmitError::Unavailable { reason, .. } => {
                write!(f, "the store cannot be written now: {reason}")
            }
            SubmitError::Refused { reason } => write!(f, "the event cannot be stored: {reason}"),
            SubmitError::Stopped => f.write_str("the server is ending"),
        }
    }
}

impl std::error::Error for SubmitError {}
