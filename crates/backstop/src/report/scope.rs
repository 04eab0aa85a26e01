//! What is known about the work at hand and is added to every event that it reports.
//!
//! Each thread has a current scope, and [`Scope::bind`] gives a future its own, which follows it
//! from thread to thread.
//! A new thread or task starts with an empty scope: hand it `Scope::current()`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use backstop_protocol::{Breadcrumb, Event, Level, Object, Request, User};
use pin_project_lite::pin_project;
use serde_json::Value;

use super::Client;

/// Older breadcrumbs make room: the last steps before an error explain it.
const BREADCRUMBS_MAX: usize = 100;

/// A scope with more tags than this is a leak in the program.
const TAGS_MAX: usize = 200;

thread_local! {
    static CURRENT: RefCell<Scope> = RefCell::default();
}

/// What is known about the work at hand.
///
/// A scope is cheap to clone, and a clone changes alone.
///
/// # Example
///
/// ```
/// use backstop::report::{Client, Collector, Scope};
///
/// let collector = Collector::new();
/// let client = Client::collecting(&collector);
/// let scope = Scope::new().client(client.clone()).tag("job", "nightly");
/// scope.run(|| backstop::report::capture_message("started"));
/// client.flush(std::time::Duration::from_secs(5));
/// assert_eq!(collector.events()[0].tags["job"], "nightly");
/// ```
#[derive(Clone, Default)]
pub struct Scope {
    client: Option<Client>,
    /// Nothing is known at first, and most scopes end so.
    facts: Option<Arc<Facts>>,
}

#[derive(Clone, Default)]
struct Facts {
    level: Option<Level>,
    transaction: Option<String>,
    fingerprint: Vec<String>,
    user: Option<User>,
    request: Option<Arc<Request>>,
    tags: Object,
    extra: Object,
    contexts: Object,
    breadcrumbs: VecDeque<Breadcrumb>,
}

impl Scope {
    /// Makes an empty scope.
    pub fn new() -> Scope {
        Scope::default()
    }

    /// Makes the scope of a request.
    #[cfg(feature = "web")]
    pub(crate) fn of_request(client: Option<&Client>) -> Scope {
        Scope {
            client: client.cloned(),
            facts: None,
        }
    }

    /// Returns a copy of the scope of this thread or task.
    pub fn current() -> Scope {
        CURRENT
            .try_with(|current| current.borrow().clone())
            .unwrap_or_default()
    }

    /// Sends reports of this scope through this client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Scope {
        self.client = Some(client);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Scope {
        self.set_tag(name, value);
        self
    }

    /// Names the user.
    #[must_use]
    pub fn user(mut self, user: User) -> Scope {
        self.set_user(Some(user));
        self
    }

    /// Tells the request.
    #[must_use]
    pub fn request(mut self, request: Request) -> Scope {
        self.set_request(Some(request));
        self
    }

    /// Tells the route or task.
    #[must_use]
    pub fn transaction(mut self, name: impl Into<String>) -> Scope {
        self.set_transaction(Some(name.into()));
        self
    }

    /// Adds a tag; at most 200 different ones are kept.
    pub fn set_tag(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        let facts = self.facts_mut();
        if facts.tags.len() < TAGS_MAX || facts.tags.contains_key(&name) {
            facts.tags.insert(name, Value::String(value.into()));
        }
    }

    /// Names the user, or forgets them.
    pub fn set_user(&mut self, user: Option<User>) {
        self.facts_mut().user = user;
    }

    /// Tells the request, or forgets it.
    pub fn set_request(&mut self, request: Option<Request>) {
        self.facts_mut().request = request.map(Arc::new);
    }

    /// Tells the route or task, or forgets it.
    pub fn set_transaction(&mut self, name: Option<String>) {
        self.facts_mut().transaction = name;
    }

    /// Gives every event of this scope a level.
    pub fn set_level(&mut self, level: Option<Level>) {
        self.facts_mut().level = level;
    }

    /// Gives every event of this scope its grouping; empty means the default.
    pub fn set_fingerprint(&mut self, fingerprint: Vec<String>) {
        self.facts_mut().fingerprint = fingerprint;
    }

    /// Adds anything else.
    pub fn set_extra(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.facts_mut().extra.insert(name.into(), value.into());
    }

    /// Adds a named structured context.
    pub fn set_context(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.facts_mut().contexts.insert(name.into(), value.into());
    }

    /// Notes what happened; the last 100 notes go with an event.
    ///
    /// A breadcrumb without a time gets the present one.
    pub fn add_breadcrumb(&mut self, mut breadcrumb: Breadcrumb) {
        breadcrumb.timestamp.get_or_insert_with(super::now);
        let breadcrumbs = &mut self.facts_mut().breadcrumbs;
        if breadcrumbs.len() == BREADCRUMBS_MAX {
            breadcrumbs.pop_front();
        }
        breadcrumbs.push_back(breadcrumb);
    }

    /// Runs a function in this scope; what it changes ends with it.
    pub fn run<R>(self, body: impl FnOnce() -> R) -> R {
        let mut scope = self;
        let _entered = Entered::new(&mut scope);
        body()
    }

    /// Makes a future that runs in this scope, on whatever thread it is polled.
    pub fn bind<F: Future>(self, future: F) -> Bound<F> {
        Bound {
            scope: self,
            future,
        }
    }

    fn facts_mut(&mut self) -> &mut Facts {
        Arc::make_mut(self.facts.get_or_insert_default())
    }

    /// Returns the client of this scope, if it has its own.
    pub(crate) fn own_client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Adds what is known to an event; what the event says itself wins.
    pub(crate) fn apply(&self, event: &mut Event) {
        let Some(facts) = &self.facts else {
            return;
        };
        if let Some(level) = facts.level {
            event.level = level;
        }
        if event.transaction.is_none() {
            event.transaction.clone_from(&facts.transaction);
        }
        if event.fingerprint.is_empty() {
            event.fingerprint.clone_from(&facts.fingerprint);
        }
        if event.user.is_none() {
            event.user.clone_from(&facts.user);
        }
        if event.request.is_none() {
            event.request = facts.request.as_deref().cloned();
        }
        fill(&mut event.tags, &facts.tags);
        fill(&mut event.extra, &facts.extra);
        fill(&mut event.contexts, &facts.contexts);
        if !facts.breadcrumbs.is_empty() {
            let own = std::mem::take(&mut event.breadcrumbs);
            event.breadcrumbs = facts.breadcrumbs.iter().cloned().chain(own).collect();
        }
    }
}

/// Names the facts, which may hold personal data, without showing them.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |of: fn(&Facts) -> usize| self.facts.as_deref().map_or(0, of);
        f.debug_struct("Scope")
            .field("client", &self.client.is_some())
            .field("tags", &count(|facts| facts.tags.len()))
            .field("breadcrumbs", &count(|facts| facts.breadcrumbs.len()))
            .finish_non_exhaustive()
    }
}

fn fill(target: &mut Object, source: &Object) {
    for (name, value) in source {
        if !target.contains_key(name) {
            target.insert(name.clone(), value.clone());
        }
    }
}

/// Changes the scope of this thread or task.
pub fn configure_scope<R>(change: impl FnOnce(&mut Scope) -> R) -> Option<R> {
    CURRENT
        .try_with(|current| {
            current
                .try_borrow_mut()
                .ok()
                .map(|mut scope| change(&mut scope))
        })
        .ok()
        .flatten()
}

/// Runs a function in a copy of the current scope, changed first.
pub fn with_scope<R>(change: impl FnOnce(&mut Scope), body: impl FnOnce() -> R) -> R {
    let mut scope = Scope::current();
    change(&mut scope);
    scope.run(body)
}

/// Exchanges a scope with the thread's current one, and back when dropped, panics included.
struct Entered<'s>(&'s mut Scope);

impl<'s> Entered<'s> {
    fn new(scope: &'s mut Scope) -> Entered<'s> {
        exchange(scope);
        Entered(scope)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        exchange(self.0);
    }
}

fn exchange(scope: &mut Scope) {
    // Inside `configure_scope`, or while the thread ends, the scope stays as it is.
    let _exchanged = CURRENT.try_with(|current| {
        if let Ok(mut current) = current.try_borrow_mut() {
            std::mem::swap(&mut *current, scope);
        }
    });
}

pin_project! {
    /// A future with its own scope, made by [`Scope::bind`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Bound<F> {
        scope: Scope,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Bound<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::new(this.scope);
        this.future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Vec<String> {
        let mut event = Event::default();
        Scope::current().apply(&mut event);
        event.tags.keys().cloned().collect()
    }

    #[test]
    fn scopes_nest_and_end() {
        configure_scope(|scope| scope.set_tag("outer", "1"));
        with_scope(
            |scope| scope.set_tag("inner", "1"),
            || assert_eq!(tags(), ["outer", "inner"]),
        );
        assert_eq!(tags(), ["outer"]);
        let panicked = std::panic::catch_unwind(|| {
            Scope::new().tag("lost", "1").run(|| panic!("on purpose"));
        });
        assert!(panicked.is_err());
        assert_eq!(tags(), ["outer"]);
    }

    #[test]
    fn a_future_keeps_its_scope_between_polls() {
        let mut future = Box::pin(Scope::new().tag("a", "1").bind(async {
            configure_scope(|scope| scope.set_tag("b", "2"));
            let mut polled = false;
            std::future::poll_fn(|_| {
                let ready = std::mem::replace(&mut polled, true);
                if ready {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            tags()
        }));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(tags().is_empty());
        let Poll::Ready(tags) = future.as_mut().poll(&mut cx) else {
            panic!("ready at the second poll");
        };
        assert_eq!(tags, ["a", "b"]);
    }

    #[test]
    fn the_last_breadcrumbs_stay() {
        let mut scope = Scope::new();
        for number in 0..150 {
            scope.add_breadcrumb(Breadcrumb {
                message: Some(number.to_string()),
                ..Breadcrumb::default()
            });
        }
        let mut event = Event::default();
        scope.apply(&mut event);
        assert_eq!(event.breadcrumbs.len(), BREADCRUMBS_MAX);
        assert_eq!(event.breadcrumbs[0].message.as_deref(), Some("50"));
        assert!(event.breadcrumbs[0].timestamp.is_some());
    }
}
