//! The one place through which every request goes: hooks, view, and what [`respond`] decides.
//!
//! A route is wrapped once, with the list of its scopes, so that one function knows everything
//! that it needs.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use axum::routing::Route;
use axum::routing::future::RouteFuture;
use tower::{Layer, Service};

use crate::panic::{self, Catching};
use crate::report::{Bound, Client, Scope};
use crate::web::facts::RequestFacts;
use crate::web::failure::Failure;
use crate::web::function::{AfterFunction, BeforeFunction, Boxed, ErrorFunction};
use crate::web::handlers::{Prepared, Table};
use crate::web::methods::Methods;
use crate::web::respond::{
    Question, Settled, Step, answered, at_once, failure, respond, respond_to, settle, settle_from,
    unhandled,
};
use crate::web::stream::{double, is_whole};
use crate::web::switches::Switches;
use crate::web::template::Templates;
use crate::{Error, log};

pub(crate) type TeardownFunction = Arc<dyn Fn(Option<&Failure>) -> Result<(), Error> + Send + Sync>;
pub(crate) type Listener = Arc<dyn Fn(&Failure) + Send + Sync>;

/// A registered handler with what it says about itself.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) function: ErrorFunction<()>,
    pub(crate) on: Arc<str>,
}

/// What the whole app has in common.
pub(crate) struct Core {
    pub(crate) switches: Switches,
    /// Called for each unhandled error, in order.
    pub(crate) listeners: Vec<Listener>,
    /// Called for everything that is worth a report.
    pub(crate) reporters: Vec<Listener>,
    /// Where views report to.
    pub(crate) client: Option<Client>,
    /// Some function has extractors.
    pub(crate) wants_extensions: bool,
    /// The user's own error pages.
    pub(crate) templates: Option<Templates>,
    /// The codes of routing errors that get their default page in any case.
    pub(crate) ready_codes: Vec<u16>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("switches", &self.switches)
            .finish_non_exhaustive()
    }
}

/// The routes of one scope: its handlers and hooks together with those of the scopes around it.
pub(crate) struct Place {
    pub(crate) core: Arc<Core>,
    /// The dotted name of the blueprint.
    pub(crate) blueprint: Option<Arc<str>>,
    /// Innermost blueprint first, the app last.
    pub(crate) tables: Vec<Arc<Table<Handler>>>,
    /// What is found there for most errors that have a handler.
    pub(crate) prepared: Prepared<Handler>,
    /// In the order in which they run.
    pub(crate) before: Vec<BeforeFunction<()>>,
    pub(crate) after: Vec<AfterFunction<()>>,
    pub(crate) teardown: Vec<TeardownFunction>,
    /// The app around a blueprint.
    pub(crate) app: Option<Arc<Place>>,
    /// What the routes of a blueprint answer, if it has hooks that must not run for anything else.
    pub(crate) methods: Option<Methods>,
}

impl Place {
    /// The place of a request that belongs to no blueprint.
    fn unrouted(self: &Arc<Self>) -> &Arc<Self> {
        self.app.as_ref().unwrap_or(self)
    }

    /// The blueprint of a request; one to an unknown address has none.
    pub(crate) fn blueprint_of(&self, facts: &RequestFacts) -> Option<Arc<str>> {
        self.blueprint.clone().filter(|_| facts.is_routed())
    }

    fn has_hooks(&self) -> bool {
        !(self.before.is_empty() && self.after.is_empty() && self.teardown.is_empty())
    }
}

/// Wraps each route of a scope.
#[derive(Clone)]
pub(crate) struct PlaceLayer(pub(crate) Arc<Place>);

impl Layer<Route> for PlaceLayer {
    type Service = PlaceService;

    fn layer(&self, route: Route) -> PlaceService {
        PlaceService(Arc::new(Wrapped {
            place: Arc::clone(&self.0),
            ready: Mutex::new(route.clone()),
            spare: route,
        }))
    }
}

/// A wrapped route. axum clones it for each request.
#[derive(Clone)]
pub(crate) struct PlaceService(Arc<Wrapped>);

pub(crate) struct Wrapped {
    place: Arc<Place>,
    /// To call a route, axum clones everything that it consists of; here that is done once for a
    /// request, and not for the clone of this service as well.
    ready: Mutex<Route>,
    /// For whoever finds the other one taken, by a thread that clones it at this moment.
    spare: Route,
}

impl Wrapped {
    /// Makes the future of a view. Of the user's code only `Clone` runs.
    fn call(&self, request: &mut Option<Request>) -> RouteFuture<Infallible> {
        let request = request.take().expect(POLLED_AGAIN);
        match self.ready.try_lock() {
            Ok(mut route) => route.call(request),
            Err(_) => self.spare.clone().call(request),
        }
    }
}

impl Service<Request> for PlaceService {
    type Response = Response;
    type Error = Infallible;
    type Future = Bound<PlaceFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Bound<PlaceFuture> {
        // What a view says about its work must not reach the next request of the thread.
        Scope::of_request(self.0.place.core.client.as_ref()).bind(PlaceFuture {
            wrapped: Arc::clone(&self.0),
            state: State::Arrived(Some(request)),
        })
    }
}

/// A request on its way: in the view, in an error handler, or in everything that surrounds them.
pub(crate) struct PlaceFuture {
    wrapped: Arc<Wrapped>,
    state: State,
}

/// How far it is.
enum State {
    /// Nobody has looked at it.
    Arrived(Option<Request>),
    /// No hooks: straight to the view, which waits for something.
    View(Catching<RouteFuture<Infallible>>, Option<Arc<RequestFacts>>),
    /// The view has failed, and a handler was asked.
    Asking(Catching<Boxed<Response>>, Option<Question>),
    /// Hooks.
    Surrounded(Boxed<Response>),
}

/// What is known after a poll.
enum Turn {
    Pending,
    /// A good answer, as most are.
    Answered(Response),
    /// Something was decided.
    Decided(Step, Arc<RequestFacts>),
}

impl PlaceFuture {
    /// Looks at a request and asks the view, at once: most views do not wait, and most errors are
    /// answered as soon.
    ///
    /// Apart from everything else, so that the processor has little to read for a request.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Infallible>> {
        let State::Arrived(arrived) = &mut self.state else {
            return self.go_on(cx);
        };
        let place = &*self.wrapped.place;
        let request = arrived.as_ref().expect(POLLED_AGAIN);
        if place.has_hooks() || place.core.switches.trusts(request.headers()).is_err() {
            self.surround();
            return self.go_on(cx);
        }
        let facts = RequestFacts::of(request, place.core.wants_extensions);
        // Beside the view's own code, a state or a layer of the user's is cloned here.
        let mut view = None;
        let mut polled = Poll::Pending;
        let ended = panic::catch(|| {
            polled = Pin::new(view.insert(self.wrapped.call(arrived))).poll(cx);
        });
        if let Err(panicked) = ended {
            let step = respond(place, &facts, Err(panicked), cx);
            return self.follow(step, facts, cx);
        }
        let Poll::Ready(Ok(response)) = &mut polled else {
            if let Some(view) = view {
                self.state = State::View(Catching(view), Some(facts));
            }
            return Poll::Pending;
        };
        if !is_good(response)
            && let Some(step) = respond_to(place, &facts, response, cx)
        {
            return self.follow(step, facts, cx);
        }
        facts.recycle();
        polled
    }

    /// Looks at a request with hooks, or to a host that may not be trusted.
    #[inline(never)]
    fn surround(&mut self) {
        let State::Arrived(arrived) = &mut self.state else {
            return;
        };
        let request = arrived.as_ref().expect(POLLED_AGAIN);
        let mut place = &self.wrapped.place;
        let facts = RequestFacts::of(request, place.core.wants_extensions);
        if let Err(error) = place.core.switches.trusts(request.headers()) {
            // As an unknown address: the app's own hooks run around the refusal.
            self.state = surrounded(place.unrouted(), Err(error), facts.unrouted());
            return;
        }
        if let Some(methods) = &place.methods
            && methods.refuse(request)
        {
            place = place.unrouted();
        }
        let view = panic::catch(|| self.wrapped.call(arrived));
        self.state = surrounded(place, view, facts);
    }

    /// Goes on with a request that had to wait.
    #[inline(never)]
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Infallible>> {
        match self.turn(cx) {
            Turn::Pending => Poll::Pending,
            Turn::Answered(response) => Poll::Ready(Ok(response)),
            Turn::Decided(step, facts) => self.follow(step, facts, cx),
        }
    }

    /// Does what was decided.
    #[inline(never)]
    fn follow(
        &mut self,
        step: Step,
        facts: Arc<RequestFacts>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response, Infallible>> {
        facts.recycle();
        match step {
            Step::Send(settled) => Poll::Ready(Ok(settled.response)),
            Step::Ask(call, question) => {
                self.state = State::Asking(Catching(call), Some(question));
                self.go_on(cx)
            }
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let place = &self.wrapped.place;
        match &mut self.state {
            State::Arrived(_) => Turn::Pending,
            State::View(view, facts) => {
                let Poll::Ready(outcome) = Pin::new(view).poll(cx) else {
                    return Turn::Pending;
                };
                let facts = facts.take().expect(POLLED_AGAIN);
                match outcome {
                    Ok(Ok(response)) if is_good(&response) => {
                        facts.recycle();
                        Turn::Answered(response)
                    }
                    outcome => {
                        let outcome = outcome.map(|Ok(response)| response);
                        Turn::Decided(respond(place, &facts, outcome, cx), facts)
                    }
                }
            }
            State::Asking(call, question) => {
                let Poll::Ready(outcome) = Pin::new(call).poll(cx) else {
                    return Turn::Pending;
                };
                let question = question.take().expect(POLLED_AGAIN);
                let facts = Arc::clone(&question.failure().request);
                Turn::Decided(answered(place, question, outcome, cx), facts)
            }
            State::Surrounded(run) => match run.as_mut().poll(cx) {
                Poll::Ready(response) => Turn::Answered(response),
                Poll::Pending => Turn::Pending,
            },
        }
    }
}

/// A request with hooks.
fn surrounded(
    place: &Arc<Place>,
    view: Result<RouteFuture<Infallible>, Error>,
    facts: Arc<RequestFacts>,
) -> State {
    State::Surrounded(Box::pin(run(Arc::clone(place), view, facts)))
}

/// Why the parts of a request on its way are there.
const POLLED_AGAIN: &str = "a finished future is not polled again";

impl Future for PlaceFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.begin(cx)
    }
}

impl Drop for PlaceFuture {
    /// A request that is dropped before its answer: the client left, or a layer around the router
    /// gave up.
    fn drop(&mut self) {
        if !matches!(self.state, State::Arrived(None)) {
            self.leave();
        }
    }
}

impl PlaceFuture {
    #[cold]
    #[inline(never)]
    fn leave(&self) {
        match &self.state {
            State::Arrived(Some(request)) => log::abandoned(&RequestFacts::of(request, false)),
            State::View(_, Some(facts)) => log::abandoned(facts),
            // That the client left is no news while this very error is dealt with.
            State::Asking(_, Some(question)) if !question.failure().is_disconnect() => {
                log::abandoned(&question.failure().request);
            }
            _ => {}
        }
    }
}

/// The end of a request with hooks, which comes when this is dropped: after the answer, or too
/// early because the client left. The teardown hooks run either way.
struct Ending {
    place: Arc<Place>,
    facts: Arc<RequestFacts>,
    unhandled: Option<Failure>,
    answered: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.answered {
            return teardown(&self.place, self.unhandled.as_ref());
        }
        log::abandoned(&self.facts);
        // A future is dropped outside of its scope.
        Scope::of_request(self.place.core.client.as_ref())
            .run(|| teardown(&self.place, self.unhandled.as_ref()));
    }
}

/// Tells whether a response can go out as it is.
fn is_good(response: &Response) -> bool {
    let status = response.status();
    !status.is_client_error()
        && !status.is_server_error()
        && response.extensions().is_empty()
        && is_whole(response)
}

/// The way through hooks and view, in Flask's order. `view` is an error if the request was refused
/// before there could be one.
async fn run(
    place: Arc<Place>,
    view: Result<RouteFuture<Infallible>, Error>,
    facts: Arc<RequestFacts>,
) -> Response {
    let mut ending = Ending {
        place: Arc::clone(&place),
        facts: Arc::clone(&facts),
        unhandled: None,
        answered: false,
    };
    let outcome = match (before(&place, &facts).await, view) {
        (Ok(None), Ok(view)) => Catching(view).await.map(|Ok(response)| response),
        (Ok(None), Err(error)) | (Err(error), _) => Err(error),
        (Ok(Some(response)), _) => Ok(response),
    };
    let mut settled = settle(&place, &facts, outcome).await;
    ending.unhandled.clone_from(&settled.unhandled);
    if !settled.propagated {
        settled = after(&place, &facts, settled).await;
        ending.unhandled.clone_from(&settled.unhandled);
    }
    if !place.after.is_empty() && !is_whole(&settled.response) {
        // A hook may have sent another stream on its way.
        settled = at_once(|cx| settled.guarded(&place, &facts, cx)).await;
        ending.unhandled.clone_from(&settled.unhandled);
    }
    ending.answered = true;
    settled.response
}

async fn before(place: &Place, facts: &RequestFacts) -> Result<Option<Response>, Error> {
    for hook in &place.before {
        let answer = Catching(hook.call((), facts)).await??;
        if answer.is_some() {
            return Ok(answer);
        }
    }
    Ok(None)
}

/// Runs the after hooks. If one fails on a good answer, that error is unhandled and all run again on
/// its answer; on the answer to an unhandled error the failure is logged and ends them.
async fn after(place: &Place, facts: &Arc<RequestFacts>, mut settled: Settled) -> Settled {
    if settled.unhandled.is_some() {
        return after_unhandled(place, facts, settled).await;
    }
    let mut response = std::mem::take(&mut settled.response);
    for hook in &place.after {
        response = match Catching(hook.call(response, facts)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) | Err(error) => {
                let failure = failure(place, facts, error);
                let step = at_once(|cx| unhandled(place, failure, cx)).await;
                let settled = settle_from(place, step).await;
                if settled.propagated {
                    return settled;
                }
                return after_unhandled(place, facts, settled).await;
            }
        };
    }
    settled.response = response;
    settled
}

async fn after_unhandled(
    place: &Place,
    facts: &Arc<RequestFacts>,
    mut settled: Settled,
) -> Settled {
    let mut response = std::mem::take(&mut settled.response);
    for hook in &place.after {
        // A hook that fails takes its response with it, so a copy is kept for this case.
        let (sent, kept) = at_once(|cx| double(response, cx)).await;
        response = match Catching(hook.call(sent, facts)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) | Err(error) => {
                log::failed(
                    "Request finalizing failed with an error while handling an error",
                    &error,
                );
                settled.response = kept;
                return settled;
            }
        };
    }
    settled.response = response;
    settled
}

/// Runs every teardown hook. One that fails changes nothing: the failure is logged.
fn teardown(place: &Place, unhandled: Option<&Failure>) {
    for hook in &place.teardown {
        let outcome = panic::catch(|| hook(unhandled)).and_then(|outcome| outcome);
        if let Err(error) = outcome {
            log::failed("teardown hook failed", &error);
        }
    }
}
