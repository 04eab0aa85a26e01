//! The log: where events wait between those who prepare them and the one who applies them.
//!
//! A block is appended and answered later, when it is on the disk; the applier takes all blocks
//! that wait, in their order. Embedded, the log is a bounded queue in memory, so a block that was
//! not applied was never answered, and nothing has to be read again after a crash. A broker would
//! stand behind the same calls, with the position of what was applied in the store's transaction.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::digest::{Prepared, Stored, SubmitError};

/// Events that may wait for the writer: about a second of work, so that the wait stays short
/// and a client that is sent away can come again soon.
const QUEUE_EVENTS_MAX: usize = 4096;
/// Their packed bodies; bounds memory whatever the size of events.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Events in one transaction; beyond this a commit costs nothing anyway and answers come late.
const BATCH_EVENTS_MAX: usize = 1024;
/// How long a batch may wait to become half as large as the one before; people do not notice it.
const GATHER_MAX: Duration = Duration::from_millis(4);
/// When a client that found a full queue may come again.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Blocks that wait to be applied.
#[derive(Debug, Default)]
pub(crate) struct Log {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Block>,
    events: usize,
    bytes: usize,
    refusing: Option<Refusing>,
    stopping: bool,
    /// Events of the batch before.
    last_batch: usize,
    /// The writer sleeps until so many events wait; `None` while it works.
    writer_wants: Option<usize>,
}

/// The store refused; until the time has passed nobody is let in.
#[derive(Debug)]
struct Refusing {
    until: Instant,
    reason: String,
}

/// Events that are applied together and answered together.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) events: Vec<Prepared>,
    pub(crate) answer: Answer,
}

pub(crate) type Answer = oneshot::Sender<Result<Vec<Stored>, SubmitError>>;

impl Log {
    /// Appends a block, which is answered when it was applied.
    ///
    /// # Errors
    ///
    /// Too much waits, the store refuses for now, or the server is ending.
    pub(crate) fn append(&self, block: Block) -> Result<(), SubmitError> {
        let mut queue = self.lock();
        queue.admit()?;
        queue.events += block.events.len();
        queue.bytes += block.bytes();
        queue.waiting.push_back(block);
        let events = queue.events;
        let woken = queue.writer_wants.take_if(|wanted| events >= *wanted);
        drop(queue);
        // Waking a thread costs two switches of a core, so each event alone must not.
        if woken.is_some() {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for blocks and takes those that wait; nothing once everything was taken after a stop.
    pub(crate) fn take(&self) -> Option<Vec<Block>> {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            if queue.stopping {
                return None;
            }
            queue.writer_wants = Some(1);
            queue = self
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // Those who were answered last time are about to send again: without this wait the writer
        // would commit for the first of them alone, and a commit costs as much as ten events. It
        // does not wait for all of them: while it writes the one half, the other is prepared.
        let deadline = Instant::now() + GATHER_MAX;
        let wanted = queue.last_batch / 2;
        while queue.events < wanted && !queue.stopping {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            queue.writer_wants = Some(wanted);
            let waited = self.filled.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.writer_wants = None;
        Some(queue.take())
    }

    /// Says whether a block would be taken now.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub(crate) fn admits(&self) -> Result<(), SubmitError> {
        self.lock().admit()
    }

    /// Lets nobody in for a while.
    pub(crate) fn refuse(&self, time: Duration, reason: String) {
        self.lock().refusing = Some(Refusing {
            until: Instant::now() + time,
            reason,
        });
    }

    /// Lets everybody in again.
    pub(crate) fn admit_again(&self) {
        self.lock().refusing = None;
    }

    /// Takes no more blocks; those that wait are still given out.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.filled.notify_all();
    }

    /// Says whether it was stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Returns how many events wait, and the bytes of their packed bodies.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.events, queue.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole at every unlock, also when a thread panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn admit(&self) -> Result<(), SubmitError> {
        if self.stopping {
            return Err(SubmitError::Stopped);
        }
        if let Some(refusing) = &self.refusing
            && let Some(retry_after) = refusing.until.checked_duration_since(Instant::now())
        {
            return Err(SubmitError::Unavailable {
                retry_after,
                reason: refusing.reason.clone(),
            });
        }
        if self.events >= QUEUE_EVENTS_MAX || self.bytes >= QUEUE_BYTES_MAX {
            return Err(SubmitError::Full {
                retry_after: FULL_RETRY_AFTER,
            });
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<Block> {
        let mut batch = Vec::new();
        let mut events = 0;
        while let Some(block) = self.waiting.pop_front() {
            events += block.events.len();
            self.events -= block.events.len();
            self.bytes -= block.bytes();
            batch.push(block);
            if events >= BATCH_EVENTS_MAX {
                break;
            }
        }
        self.last_batch = events;
        batch
    }
}

impl Block {
    fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.body.bytes.len()).sum()
    }
}
