//! A store with a digest, on a real file, for tests that look at both.

use backstop_protocol::{Event, EventId, Timestamp};
use backstop_tracker::digest::{Digest, Incoming, Stored};
use backstop_tracker::model::{IssueQuery, NewProject, Project};
use backstop_tracker::store::{Store, StoreOptions};
use serde_json::json;

use crate::scratch::Scratch;

/// A store with one project, a digest, and a clock that stands until it is moved.
pub(crate) struct Bench {
    pub(crate) scratch: Scratch,
    pub(crate) store: Store,
    pub(crate) digest: Digest,
    pub(crate) project: Project,
    pub(crate) now: Timestamp,
    pub(crate) next_id: u128,
}

/// 2026-11-22T10:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_795_341_600_000_000);

impl Bench {
    pub(crate) fn new() -> Bench {
        let scratch = Scratch::new();
        let store = Store::open(scratch.path()).unwrap();
        let wish = NewProject {
            name: "Shop".to_owned(),
            ..NewProject::default()
        };
        let project = store.create_project(&wish, START).unwrap();
        let digest = Digest::start(store.clone()).unwrap();
        Bench {
            scratch,
            store,
            digest,
            project,
            now: START,
            next_id: 1,
        }
    }

    pub(crate) fn with_budget(body_bytes_max: u64) -> Bench {
        Bench::new().restart_with(&StoreOptions {
            body_bytes_max,
            ..StoreOptions::default()
        })
    }

    /// The same directory after the process has ended and started again.
    pub(crate) fn restart(self) -> Bench {
        self.restart_with(&StoreOptions::default())
    }

    pub(crate) fn restart_with(mut self, options: &StoreOptions) -> Bench {
        self.digest.stop();
        self.store = Store::open_with(self.scratch.path(), options).unwrap();
        self.digest = Digest::start(self.store.clone()).unwrap();
        self
    }

    pub(crate) fn event(&mut self, ty: &str) -> Event {
        let id = EventId::from_bytes(self.next_id.to_be_bytes());
        self.next_id += 1;
        let mut event: Event = serde_json::from_value(json!({
            "event_id": id,
            "platform": "python",
            "environment": "production",
            "user": {"id": self.next_id % 3},
            "exception": {"values": [{
                "type": ty,
                "value": format!("order {} failed", self.next_id),
                "stacktrace": {"frames": [
                    {"module": "shop", "function": "checkout", "in_app": true, "vars": {"total": 42}}
                ]}
            }]}
        }))
        .unwrap();
        event.timestamp = Some(self.now);
        event
    }

    pub(crate) fn submit(&mut self, events: &[Event]) -> Vec<Stored> {
        let incoming = Incoming {
            project: self.project.id,
            key: Some(self.project.keys[0].public),
            received: self.now,
        };
        let prepared = events
            .iter()
            .map(|event| self.digest.prepare(incoming, event.clone()).unwrap())
            .collect();
        wait(self.digest.submit(prepared)).unwrap()
    }

    pub(crate) fn send(&mut self, ty: &str) -> Stored {
        let event = self.event(ty);
        self.submit(&[event])[0]
    }

    pub(crate) fn pass_minutes(&mut self, minutes: i64) {
        self.now = Timestamp::from_micros(self.now.micros() + minutes * 60_000_000);
    }

    pub(crate) fn titles(&self, text: &str) -> Vec<String> {
        let page = self.store.issues(&IssueQuery::parse(text)).unwrap();
        page.issues.into_iter().map(|issue| issue.title).collect()
    }
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
