//! The one place through which every request goes: [`respond`] decides what happens to an error.
//!
//! A route is wrapped once, with the list of its scopes, so that one function knows everything
//! that it needs.
//! An error travels from the view to here in the extensions of a bare response.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderValue, StatusCode};
use tower::{Layer, Service};

use crate::config::{Config, ConfigError};
use crate::panic::{self, Catching};
use crate::report::{Bound, Client, Scope};
use crate::web::caught::PassedOn;
use crate::web::failure::{Failure, REQUEST_ID, RequestFacts};
use crate::web::function::Erased;
use crate::web::handlers::{Table, find};
use crate::web::page::{Format, Page, format_for};
use crate::web::template::Templates;
use crate::{Error, HttpError, Kind, log};

/// An error on its way from the view to the layer.
#[derive(Clone)]
struct Record(Error);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.status();
        response.extensions_mut().insert(Record(self));
        response
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        Error::from(self).into_response()
    }
}

impl From<Response> for HttpError {
    /// Makes an error that is answered with this response, whatever handlers there are.
    fn from(response: Response) -> Self {
        Self::ready(Box::new(response))
    }
}

impl HttpError {
    /// Answers with this response, its status included, unless a handler answers.
    #[must_use]
    pub fn response(self, response: Response) -> Self {
        self.with_response(Box::new(response))
    }

    /// The default page of this error as a response of its own: no handler is asked.
    pub fn into_page(self) -> Response {
        if let Some(response) = ready_response(&self) {
            return response;
        }
        let mut response = Response::default();
        *response.status_mut() = self.status();
        response
            .extensions_mut()
            .insert(PassedOn(Error::from(self)));
        response
    }
}

/// The ready response of an error. The error keeps one too: whoever only looks at a page must not
/// use it up.
pub(crate) fn ready_response(error: &HttpError) -> Option<Response> {
    error.share_response(|ready| {
        let response = *ready.downcast::<Response>().ok()?;
        let (response, kept) = super::stream::share(response);
        Some((Box::new(kept) as _, response))
    })
}

/// Attaches an error to a response that stands for it, so that handlers see it.
///
/// For error types that have their own `IntoResponse`: the response is what the client gets if
/// no handler takes the error.
/// If its status is 500 or above, the error is then logged and reported as one that nobody
/// handled.
///
/// # Example
///
/// ```
/// use axum::http::StatusCode;
/// use axum::response::{IntoResponse, Response};
///
/// #[derive(Debug, Clone)]
/// struct OutOfStock;
/// # impl std::fmt::Display for OutOfStock {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("out of stock") }
/// # }
/// # impl std::error::Error for OutOfStock {}
///
/// impl IntoResponse for OutOfStock {
///     fn into_response(self) -> Response {
///         let response = (StatusCode::CONFLICT, "out of stock").into_response();
///         backstop::attach(response, self)
///     }
/// }
/// # let _ = OutOfStock.into_response();
/// ```
#[track_caller]
pub fn attach(response: Response, error: impl Into<Error>) -> Response {
    let mut response = response;
    response.extensions_mut().insert(Attached(error.into()));
    response
}

/// An error whose own response is the fallback.
#[derive(Clone)]
struct Attached(Error);

/// The error in a response that stands for one; the response itself as an error otherwise.
pub(crate) fn error_of(mut response: Response) -> Error {
    match response.extensions_mut().remove::<Record>() {
        Some(Record(error)) => error,
        None => {
            Error::from(HttpError::of(Kind::of_code(response.status().as_u16())).response(response))
        }
    }
}

/// Marks the response of an error that left the application: errors propagate, or the handler for
/// 500 failed itself.
///
/// Whatever surrounds the application finds it in the response's extensions: a test, or a
/// debugger.
#[derive(Debug, Clone)]
pub struct Propagated(Failure);

impl Propagated {
    /// The error and its request.
    pub fn failure(&self) -> &Failure {
        &self.0
    }
}

pub(crate) type ErrorFunction = Erased<(), Failure, Response>;
pub(crate) type BeforeFunction = Erased<(), (), Result<Option<Response>, Error>>;
pub(crate) type AfterFunction = Erased<(), Response, Result<Response, Error>>;
pub(crate) type TeardownFunction = Arc<dyn Fn(Option<&Failure>) -> Result<(), Error> + Send + Sync>;
pub(crate) type Listener = Arc<dyn Fn(&Failure) + Send + Sync>;

/// A registered handler with what it says about itself.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) function: ErrorFunction,
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
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("switches", &self.switches)
            .finish_non_exhaustive()
    }
}

/// How the app treats errors, read from its settings once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switches {
    pub(crate) debug: bool,
    pub(crate) propagates: bool,
    trap_http_exceptions: bool,
    trap_bad_request_errors: Option<bool>,
    trusted_hosts: Option<Vec<String>>,
    pub(crate) content_length_max: Option<usize>,
    bare_status: BareStatus,
    report_server_errors: bool,
    negotiates: bool,
}

impl Switches {
    /// Reads the settings; a value of the wrong type is an error with the key's name.
    pub(crate) fn of(config: &Config) -> Result<Self, ConfigError> {
        let debug = config.debug();
        let given = |key: &str| config.get(key).map(|_| config.flag(key));
        let bare_status = match config.get_as::<String>("BARE_STATUS")?.as_deref() {
            None | Some("empty") => BareStatus::EmptyOnly,
            Some("replace") => BareStatus::Replace,
            Some("leave") => BareStatus::Leave,
            Some(other) => {
                return Err(ConfigError::of_value(format!(
                    "BARE_STATUS must be empty, replace or leave, but is {other:?}"
                )));
            }
        };
        Ok(Self {
            debug,
            propagates: given("PROPAGATE_EXCEPTIONS")
                .unwrap_or_else(|| debug || config.flag("TESTING")),
            trap_http_exceptions: config.flag("TRAP_HTTP_EXCEPTIONS"),
            trap_bad_request_errors: given("TRAP_BAD_REQUEST_ERRORS"),
            trusted_hosts: config.get_as("TRUSTED_HOSTS")?,
            content_length_max: config.get_as("MAX_CONTENT_LENGTH")?,
            bare_status,
            report_server_errors: given("REPORT_SERVER_ERRORS").unwrap_or(true),
            negotiates: given("NEGOTIATE_ERROR_PAGES").unwrap_or(true),
        })
    }

    /// Tells whether a host may be answered for; a name with a leading dot takes all below it.
    fn trusts(&self, headers: &http::HeaderMap) -> Result<(), Error> {
        let Some(trusted) = &self.trusted_hosts else {
            return Ok(());
        };
        let host = headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |(name, _)| name)
            .to_ascii_lowercase();
        let is_trusted = trusted
            .iter()
            .any(|trusted| match trusted.strip_prefix('.') {
                Some(parent) => name == parent || name.ends_with(trusted.as_str()),
                None => name == *trusted,
            });
        if is_trusted {
            return Ok(());
        }
        let error = HttpError::of(Kind::of::<crate::errors::SecurityError>())
            .description(format!("Host '{host}' is not trusted."));
        Err(Error::from(error))
    }
}

/// What is done with error responses that carry no error, as axum's own 404.
///
/// The setting `BARE_STATUS`: `empty`, `replace` or `leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BareStatus {
    /// Those without a body are HTTP errors: axum's 404 and 405, and a bare `StatusCode`.
    #[default]
    EmptyOnly,
    /// Those with a plain text as well: the rejections of axum's own extractors.
    Replace,
    /// None.
    Leave,
}

/// The routes of one scope: its handlers and hooks together with those of the scopes around it.
pub(crate) struct Place {
    pub(crate) core: Arc<Core>,
    /// The dotted name of the blueprint.
    pub(crate) blueprint: Option<Arc<str>>,
    /// Innermost blueprint first, the app last.
    pub(crate) tables: Vec<Arc<Table<Handler>>>,
    /// In the order in which they run.
    pub(crate) before: Vec<BeforeFunction>,
    pub(crate) after: Vec<AfterFunction>,
    pub(crate) teardown: Vec<TeardownFunction>,
    /// The app around a blueprint.
    pub(crate) app: Option<Arc<Place>>,
}

impl Place {
    /// The place of a request that was refused before any route was looked up.
    fn unrouted(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self.app.as_ref().unwrap_or(self))
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

    fn layer(&self, inner: Route) -> PlaceService {
        PlaceService {
            inner,
            place: Arc::clone(&self.0),
        }
    }
}

#[derive(Clone)]
pub(crate) struct PlaceService {
    inner: Route,
    place: Arc<Place>,
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
        Scope::of_request(self.place.core.client.as_ref()).bind(self.start(request))
    }
}

impl PlaceService {
    fn start(&mut self, request: Request) -> PlaceFuture {
        let facts = RequestFacts::of(&request, self.place.core.wants_extensions);
        if let Err(error) = self.place.core.switches.trusts(request.headers()) {
            // As an unknown address: the app's own hooks run around the refusal.
            let run = run(self.place.unrouted(), Err(error), facts.unrouted());
            return PlaceFuture::Slow(Box::pin(run));
        }
        if self.place.has_hooks() {
            let view = Ok((self.inner.clone(), request));
            return PlaceFuture::Slow(Box::pin(run(Arc::clone(&self.place), view, facts)));
        }
        let place = Arc::clone(&self.place);
        match panic::catch(|| self.inner.call(request)) {
            Ok(view) => PlaceFuture::Fast(Catching(view), Some((place, facts))),
            Err(error) => {
                let settle =
                    async move { respond(&place, &Arc::new(facts), Err(error)).await.response };
                PlaceFuture::Slow(Box::pin(settle))
            }
        }
    }
}

/// A request on its way: in the view, or in everything that surrounds it.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one; a box would cost every request"
)]
pub(crate) enum PlaceFuture {
    /// No hooks: straight to the view. Most requests end here, at no further cost.
    Fast(
        Catching<axum::routing::future::RouteFuture<Infallible>>,
        Option<(Arc<Place>, RequestFacts)>,
    ),
    /// Hooks, or an error.
    Slow(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Future for PlaceFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Fast(view, context) => {
                    let Poll::Ready(outcome) = Pin::new(view).poll(cx) else {
                        return Poll::Pending;
                    };
                    let outcome = outcome.map(|Ok(response)| response);
                    match outcome {
                        Ok(response) if is_good(&response) => {
                            *context = None;
                            return Poll::Ready(Ok(response));
                        }
                        outcome => {
                            let (place, facts) = context
                                .take()
                                .expect("a finished future is not polled again");
                            let settle = async move {
                                respond(&place, &Arc::new(facts), outcome).await.response
                            };
                            *self = Self::Slow(Box::pin(settle));
                        }
                    }
                }
                Self::Slow(run) => return run.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

impl Drop for PlaceFuture {
    /// A request that is dropped before its answer: the client left, or a layer around the router
    /// gave up.
    fn drop(&mut self) {
        if let Self::Fast(_, Some((_, facts))) = self {
            log::abandoned(facts);
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
        && response.body().size_hint().exact().is_some()
}

/// The way through hooks and view, in Flask's order. `view` is an error if the request was refused
/// before there could be one.
async fn run(
    place: Arc<Place>,
    view: Result<(Route, Request), Error>,
    facts: RequestFacts,
) -> Response {
    let facts = Arc::new(facts);
    let mut ending = Ending {
        place: Arc::clone(&place),
        facts: Arc::clone(&facts),
        unhandled: None,
        answered: false,
    };
    let outcome = match (before(&place, &facts).await, view) {
        (Ok(None), Ok((mut view, request))) => match panic::catch(|| view.call(request)) {
            Ok(view) => Catching(view).await.map(|Ok(response)| response),
            Err(error) => Err(error),
        },
        (Ok(None), Err(error)) | (Err(error), _) => Err(error),
        (Ok(Some(response)), _) => Ok(response),
    };
    let mut settled = respond(&place, &facts, outcome).await;
    ending.unhandled.clone_from(&settled.unhandled);
    if !settled.propagated {
        settled = after(&place, &facts, settled).await;
        ending.unhandled.clone_from(&settled.unhandled);
    }
    ending.answered = true;
    settled.response
}

async fn before(place: &Place, facts: &RequestFacts) -> Result<Option<Response>, Error> {
    for hook in &place.before {
        let answer = Catching(hook.call((), &facts.parts)).await??;
        if answer.is_some() {
            return Ok(answer);
        }
    }
    Ok(None)
}

/// Runs the after hooks; if one fails, that error is unhandled and all run again on its answer.
async fn after(place: &Place, facts: &Arc<RequestFacts>, mut settled: Settled) -> Settled {
    let mut response = std::mem::take(&mut settled.response);
    for hook in &place.after {
        response = match Catching(hook.call(response, &facts.parts)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) | Err(error) => return after_failed(place, facts, error).await,
        };
    }
    settled.response = response;
    settled
}

async fn after_failed(place: &Place, facts: &Arc<RequestFacts>, error: Error) -> Settled {
    let mut settled = unhandled(place, failure(place, facts, error)).await;
    if settled.propagated {
        return settled;
    }
    let mut response = std::mem::take(&mut settled.response);
    for hook in &place.after {
        // A hook that fails takes its response with it, so a copy is kept for this case.
        let (sent, kept) = copy(response).await;
        response = match Catching(hook.call(sent, &facts.parts)).await {
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

/// Doubles a response; of a body that is streamed only the first has it.
async fn copy(response: Response) -> (Response, Response) {
    let (parts, body) = response.into_parts();
    if body.size_hint().exact().is_none() {
        let copy = Response::from_parts(parts.clone(), Body::empty());
        return (Response::from_parts(parts, body), copy);
    }
    // A body of known length that cannot be read is empty in both.
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    (
        Response::from_parts(parts.clone(), Body::from(bytes.clone())),
        Response::from_parts(parts, Body::from(bytes)),
    )
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

/// A response, and what it took to get there.
struct Settled {
    response: Response,
    unhandled: Option<Failure>,
    propagated: bool,
}

impl Settled {
    fn answered(response: Response) -> Self {
        Self {
            response,
            unhandled: None,
            propagated: false,
        }
    }
}

fn failure(place: &Place, facts: &Arc<RequestFacts>, error: Error) -> Failure {
    Failure {
        error,
        request: Arc::clone(facts),
        blueprint: if facts.is_routed() {
            place.blueprint.clone()
        } else {
            None
        },
        core: Arc::clone(&place.core),
    }
}

/// Decides what happens with the outcome of a view: handled, default page, or unhandled.
///
/// 1. No error: the response goes out.
/// 2. A handler was found: its answer goes out; an error in it is unhandled.
/// 3. An HTTP error without a handler: its default page.
/// 4. Anything else is unhandled: log, report, and a 500.
async fn respond(
    place: &Place,
    facts: &Arc<RequestFacts>,
    outcome: Result<Response, Error>,
) -> Settled {
    let mut routing = !facts.is_routed();
    let mut own = None;
    let error = match outcome {
        Ok(mut response) => {
            let extensions = response.extensions_mut();
            if let Some(Record(error)) = extensions.remove::<Record>() {
                error
            } else if let Some(PassedOn(error)) = extensions.remove::<PassedOn>() {
                return pass_on(place, &failure(place, facts, error)).await;
            } else if let Some(Attached(error)) = extensions.remove::<Attached>() {
                own = Some(response);
                error
            } else {
                let status = response.status();
                match bare_error(place, response).await {
                    Ok(error) => {
                        routing |= status == StatusCode::METHOD_NOT_ALLOWED;
                        error
                    }
                    Err(response) => return finish(place, facts, response).await,
                }
            }
        }
        Err(error) => error,
    };
    let mut failure = failure(place, facts, error);
    if routing {
        // Routing failed before a blueprint was known.
        failure.blueprint = None;
    }
    if let Some(error) = failure.error.downcast_ref::<HttpError>()
        && error.status_code().is_none()
        && let Some(response) = ready_response(error)
    {
        return Settled::answered(response);
    }
    let tables = if routing {
        app_only(place)
    } else {
        &place.tables[..]
    };
    if failure
        .error
        .kind()
        .is_some_and(|kind| kind.is_a(&Kind::of::<crate::errors::ClientDisconnected>()))
    {
        log::abandoned(facts);
    }
    match answer(tables, &failure).await {
        Some(Answer::Response(mut response)) => {
            if note_server_error(&failure) {
                name_request(&mut response, &failure);
            }
            Settled::answered(response)
        }
        Some(Answer::PassedOn(error)) => pass_on(place, &failure.with_error(error)).await,
        Some(Answer::Failed(error)) => {
            let error = error.in_context_of(failure.error.clone());
            unhandled(place, failure.with_error(error)).await
        }
        None => match own {
            Some(response) => own_answer(place, failure, response),
            None if is_plain(place, &failure.error) => unhandled(place, failure).await,
            None => default_page(&failure),
        },
    }
}

/// The response that an error brought along. One of 500 and above tells of a failure: its error
/// is unhandled, or a server error, but what the client gets stays.
fn own_answer(place: &Place, failure: Failure, mut response: Response) -> Settled {
    if !response.status().is_server_error() {
        return Settled::answered(response);
    }
    if !is_plain(place, &failure.error) {
        if note_server_error(&failure) {
            name_request(&mut response, &failure);
        }
        return Settled::answered(response);
    }
    name_request(&mut response, &failure);
    notify(&place.core, &failure);
    if place.core.switches.propagates {
        return propagated(failure, response);
    }
    log::unhandled(&failure);
    Settled {
        response,
        unhandled: Some(failure),
        propagated: false,
    }
}

/// Tells whether an error without a handler is unhandled, rather than an answer of its own.
fn is_plain(place: &Place, error: &Error) -> bool {
    error.code().is_none() || is_trapped(place, error)
}

/// Sends a good response. A streamed body that fails at once is answered by a 500; handlers are
/// not asked, as for a failure further on.
async fn finish(place: &Place, facts: &Arc<RequestFacts>, response: Response) -> Settled {
    match super::stream::guard(response, place, facts).await {
        Ok(response) => Settled::answered(response),
        Err(error) => {
            let failure = failure(place, facts, error);
            call(&place.core.reporters, &failure);
            log::escaped(&failure);
            let error = Error::from(HttpError::internal(failure.error.clone()));
            Settled {
                response: page(&failure.with_error(error), true),
                unhandled: Some(failure),
                propagated: false,
            }
        }
    }
}

/// The default page of an error that a handler passed on; one without a code is unhandled.
async fn pass_on(place: &Place, failure: &Failure) -> Settled {
    if failure.error.code().is_some() {
        default_page(failure)
    } else {
        unhandled(place, failure.clone()).await
    }
}

fn default_page(failure: &Failure) -> Settled {
    let noted = note_server_error(failure);
    Settled::answered(page(failure, noted))
}

/// The default page of an error as a handler may ask for it; a 500's for an error without a code.
pub(crate) fn default_response(failure: &Failure) -> Response {
    if failure.error.code().is_none() {
        return page(&failure.with_error(Error::from(HttpError::new(500))), false);
    }
    page(
        failure,
        is_server_error(failure) || failure.error.original().is_some(),
    )
}

/// The scopes of an error that has no blueprint.
fn app_only(place: &Place) -> &[Arc<Table<Handler>>] {
    &place.tables[place.tables.len() - 1..]
}

/// Tells whether an HTTP error without a handler counts as unhandled.
fn is_trapped(place: &Place, error: &Error) -> bool {
    let switches = &place.core.switches;
    if switches.trap_http_exceptions {
        return true;
    }
    let trapped = match switches.trap_bad_request_errors {
        Some(true) => Kind::of_code(400),
        None if switches.debug => Kind::of::<crate::errors::BadRequestKeyError>(),
        Some(false) | None => return false,
    };
    error.kind().is_some_and(|kind| kind.is_a(&trapped))
}

/// A response without an error that counts as one; any other is given back.
async fn bare_error(place: &Place, response: Response) -> Result<Error, Response> {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return Err(response);
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let length = response.body().size_hint().exact();
    let is_empty = length == Some(0) && content_type.is_none();
    let is_text = content_type.is_some_and(|value| value == "text/plain; charset=utf-8")
        && length.is_some_and(|length| length <= BARE_TEXT_BYTES_MAX);
    let counts = match place.core.switches.bare_status {
        BareStatus::EmptyOnly => is_empty,
        BareStatus::Replace => is_empty || is_text,
        BareStatus::Leave => false,
    };
    if !counts {
        return Err(response);
    }
    let mut error = HttpError::new(status.as_u16());
    let (parts, body) = response.into_parts();
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            error = error.header(name.clone(), value.clone());
        }
    }
    if is_text && let Ok(text) = axum::body::to_bytes(body, usize::MAX).await {
        error = error.detail(String::from_utf8_lossy(&text));
    }
    Ok(Error::from(error))
}

/// The texts of axum's rejections are short; a longer one was written by somebody.
const BARE_TEXT_BYTES_MAX: u64 = 4096;

/// What a handler made of an error.
enum Answer {
    Response(Response),
    /// It wants the default page of this error.
    PassedOn(Error),
    /// It failed itself.
    Failed(Error),
}

/// Asks the handler for this error, if there is one.
async fn answer(tables: &[Arc<Table<Handler>>], failure: &Failure) -> Option<Answer> {
    let found = find(tables, &failure.error)?;
    log::answering(failure, &found.handler.on);
    let parts = &failure.request.parts;
    let call = panic::catch(|| found.handler.function.call(failure.clone(), parts));
    let outcome = match call {
        Ok(call) => Catching(call).await,
        Err(error) => Err(error),
    };
    Some(match outcome {
        Ok(mut response) => {
            let extensions = response.extensions_mut();
            if let Some(Record(error)) = extensions.remove::<Record>() {
                Answer::Failed(error)
            } else if let Some(PassedOn(error)) = extensions.remove::<PassedOn>() {
                Answer::PassedOn(error)
            } else {
                extensions.remove::<Attached>();
                Answer::Response(response)
            }
        }
        Err(error) => Answer::Failed(error),
    })
}

/// Logs and reports an error that nobody handled, and answers with a 500.
async fn unhandled(place: &Place, failure: Failure) -> Settled {
    notify(&place.core, &failure);
    let wrapped = failure.with_error(Error::from(HttpError::internal(failure.error.clone())));
    if place.core.switches.propagates {
        let response = page(&wrapped, true);
        return propagated(failure, response);
    }
    log::unhandled(&failure);
    let tables = if failure.blueprint.is_some() || place.blueprint.is_none() {
        &place.tables[..]
    } else {
        app_only(place)
    };
    let response = match answer(tables, &wrapped).await {
        Some(Answer::Response(mut response)) => {
            name_request(&mut response, &failure);
            response
        }
        Some(Answer::Failed(error)) => {
            let escaped = failure.with_error(error.in_context_of(wrapped.error.clone()));
            log::escaped(&escaped);
            let mut response = page(&wrapped, true);
            response.extensions_mut().insert(Propagated(escaped));
            response
        }
        Some(Answer::PassedOn(_)) | None => page(&wrapped, true),
    };
    Settled {
        response,
        unhandled: Some(failure),
        propagated: false,
    }
}

/// Lets an error leave the application, in the response that is sent if nothing takes it out.
fn propagated(failure: Failure, mut response: Response) -> Settled {
    log::escaped(&failure);
    response
        .extensions_mut()
        .insert(Propagated(failure.clone()));
    Settled {
        response,
        unhandled: Some(failure),
        propagated: true,
    }
}

/// Tells the listeners of an unhandled error, and then those who report it.
fn notify(core: &Core, failure: &Failure) {
    call(&core.listeners, failure);
    call(&core.reporters, failure);
}

/// Calls each listener. One that fails changes nothing.
fn call(listeners: &[Listener], failure: &Failure) {
    for listener in listeners {
        if let Err(error) = panic::catch(|| listener(failure)) {
            log::failed("a listener for unhandled errors failed", &error);
        }
    }
}

/// Logs and reports an HTTP error of 500 and above that was not trapped; tells whether it did.
fn note_server_error(failure: &Failure) -> bool {
    if !is_server_error(failure) {
        return false;
    }
    call(&failure.core.reporters, failure);
    log::unhandled(failure);
    true
}

/// Tells whether an HTTP error is one that is logged and reported.
fn is_server_error(failure: &Failure) -> bool {
    failure.error.code().is_some_and(|code| code >= 500)
        && failure.core.switches.report_server_errors
}

/// The default page of an HTTP error.
fn page(failure: &Failure, noted: bool) -> Response {
    let core = &failure.core;
    let made;
    let error = match failure.error.downcast_ref::<HttpError>() {
        Some(error) => error,
        None => match failure.error.as_http() {
            Some(error) => {
                made = error;
                &made
            }
            None => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
    };
    let mut response = ready_response(error).unwrap_or_else(|| {
        let page = Page {
            error,
            format: if core.switches.negotiates {
                format_for(failure.headers())
            } else {
                Format::Html
            },
            request_id: noted.then(|| failure.request_id()),
            with_detail: core.switches.debug,
        };
        let own = match &core.templates {
            Some(templates) if page.format == Format::Html => templates.response(&page, failure),
            _ => None,
        };
        let mut response = own.unwrap_or_else(|| page.response());
        if core.switches.negotiates {
            // A cache must not give the page of one client to another.
            let accept = HeaderValue::from_static("accept");
            response.headers_mut().append(VARY, accept);
        }
        response
    });
    if noted {
        name_request(&mut response, failure);
    }
    response
}

/// Tells the client the id under which its request is found in log and reports, unless the
/// response has one.
fn name_request(response: &mut Response, failure: &Failure) {
    if let Ok(id) = failure.request_id().parse() {
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
    }
}

/// Logs and reports an error in a body of which a part has been sent.
pub(crate) fn stream_failed(core: &Core, failure: &Failure, bytes_sent: u64) {
    call(&core.reporters, failure);
    log::stream_failed(failure, bytes_sent);
}
