//! The bounded queue between the program and the thread that sends.
//!
//! Putting something in never waits: a full queue refuses it, and the caller counts the loss.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bounded queue with one reader.
pub(crate) struct Queue<T> {
    items_max: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// The reader has come for its first item.
    begun: bool,
    /// The reader works on something that it took out.
    busy: bool,
    /// Nothing is accepted any more; the reader ends when it is empty or the time is over.
    closed_until: Option<Instant>,
    /// The reader has ended, or could not begin.
    ended: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(items_max: usize) -> Queue<T> {
        Queue {
            items_max: items_max.max(1),
            state: Mutex::new(State {
                items: VecDeque::new(),
                begun: false,
                busy: false,
                closed_until: None,
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Puts an item in, or gives it back if the queue is full or closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.items.len() >= self.items_max || state.closed_until.is_some() {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for the next item; `None` when the reader has to end.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = self.lock();
        state.begun = true;
        state.busy = false;
        self.changed.notify_all();
        loop {
            let time_over = state
                .closed_until
                .is_some_and(|until| Instant::now() >= until);
            if time_over {
                return None;
            }
            if let Some(item) = state.items.pop_front() {
                state.busy = true;
                return Some(item);
            }
            if state.closed_until.is_some() {
                return None;
            }
            state = self.wait(state, None);
        }
    }

    /// Lets the reader pause; ends early when the queue is closed, and says whether it is.
    pub(crate) fn pause(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let mut state = self.lock();
        while state.closed_until.is_none() && Instant::now() < until {
            state = self.wait(state, Some(until));
        }
        state.closed_until.is_some()
    }

    /// Waits until everything that was put in is done, and says whether it is.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while !state.ended && (state.busy || !state.items.is_empty()) {
            if Instant::now() >= until {
                return false;
            }
            state = self.wait(state, Some(until));
        }
        state.items.is_empty()
    }

    /// Refuses more, gives the reader so much time for the rest, and returns what is left.
    pub(crate) fn close(&self, timeout: Duration) -> usize {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        state.closed_until.get_or_insert(until);
        self.changed.notify_all();
        while !state.ended && (state.begun || !state.items.is_empty()) && Instant::now() < until {
            state = self.wait(state, Some(until));
        }
        let left = state.items.len();
        state.items.clear();
        left
    }

    /// Tells that the reader has ended.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.busy = false;
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of others runs under the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State<T>>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State<T>> {
        match until {
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_too() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(3));
        assert_eq!(queue.next(), Some(1));
        assert_eq!(queue.close(Duration::ZERO), 1);
        assert_eq!(queue.push(4), Err(4));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn flush_waits_for_what_is_being_worked_on() {
        let queue = Queue::new(2);
        queue.push(1).unwrap();
        assert_eq!(queue.next(), Some(1));
        assert!(!queue.flush(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            scope.spawn(|| queue.next());
            assert!(queue.flush(Duration::from_secs(60)));
            queue.close(Duration::ZERO);
        });
    }

    #[test]
    fn closing_ends_a_pause() {
        let queue = Queue::<()>::new(1);
        std::thread::scope(|scope| {
            let paused = scope.spawn(|| queue.pause(Duration::from_secs(3600)));
            queue.close(Duration::ZERO);
            assert!(paused.join().unwrap());
        });
    }
}
