//! What becomes of the outcome of a view: [`respond`] decides it.
//!
//! Deciding never waits.
//! A handler is asked at once; if it waits for something, the decision is its call, and
//! [`answered`] goes on with what it made of the error.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderValue, StatusCode};

use crate::errors::ClientDisconnected;
use crate::panic::{self, Catching};
use crate::web::carried::{Carried, Propagated, ready_response};
use crate::web::facts::{REQUEST_ID, RequestFacts};
use crate::web::failure::Failure;
use crate::web::function::{Boxed, Called};
use crate::web::handlers::{Found, Prepared, Table, find, prepare};
use crate::web::layer::{Core, Handler, Listener, Place};
use crate::web::page::{Format, Page, ROUTING_CODES, dress};
use crate::web::serve::ClientLeft;
use crate::web::stream::{self, is_whole};
use crate::web::switches::{BareStatus, Switches};
use crate::{Error, HttpError, Kind, log};

/// The handlers of errors whose answer is all that is made of them.
pub(crate) fn prepared(tables: &[Arc<Table<Handler>>]) -> Prepared<Handler> {
    let left = Kind::of::<ClientDisconnected>();
    prepare(tables, |known, code| {
        // What is told of although a handler answers takes the long way.
        code.is_none_or(|code| code < 500) && !known.is_some_and(|known| known.kind().is_a(&left))
    })
}

/// What is to be done next.
pub(crate) enum Step {
    /// Send this.
    Send(Settled),
    /// Wait for a handler, and go on with [`answered`].
    Ask(Boxed<Response>, Question),
}

/// A response, and what it took to get there.
pub(crate) struct Settled {
    pub(crate) response: Response,
    pub(crate) unhandled: Option<Failure>,
    pub(crate) propagated: bool,
}

impl Settled {
    pub(crate) fn answered(response: Response) -> Self {
        Self {
            response,
            unhandled: None,
            propagated: false,
        }
    }

    /// The same with a body that is watched while it is streamed. Apart from what most responses
    /// go through.
    #[inline(never)]
    pub(crate) fn guarded(
        mut self,
        place: &Place,
        facts: &Arc<RequestFacts>,
        cx: &mut Context<'_>,
    ) -> Self {
        self.response = match stream::guard(self.response, place, facts, cx) {
            Ok(response) => response,
            Err(error) => {
                let failure = failure(place, facts, error);
                if !stream::is_known(&failure.error) {
                    call(&place.core.reporters, &failure);
                    log::escaped(&failure);
                }
                let error = Error::from(HttpError::internal(failure.error.clone()));
                let page = page(&failure.with_error(error), true);
                self.unhandled.get_or_insert(failure);
                page
            }
        };
        self
    }
}

/// What a handler was asked.
pub(crate) struct Question {
    failure: Failure,
    /// The 500 that was made of an unhandled error, if the handler was asked about that.
    wrapped: Option<Failure>,
}

impl Question {
    /// The error that nobody has answered yet.
    pub(crate) fn failure(&self) -> &Failure {
        &self.failure
    }
}

/// Decides what happens with the outcome of a view: handled, default page, or unhandled.
///
/// 1. No error: the response goes out.
/// 2. A handler was found: its answer goes out; an error in it is unhandled.
/// 3. An HTTP error without a handler: its default page.
/// 4. Anything else is unhandled: log, report, and a 500.
pub(crate) fn respond(
    place: &Place,
    facts: &Arc<RequestFacts>,
    outcome: Result<Response, Error>,
    cx: &mut Context<'_>,
) -> Step {
    match outcome {
        Ok(mut response) => match respond_to(place, facts, &mut response, cx) {
            None => Step::Send(Settled::answered(response)),
            Some(step) => step,
        },
        Err(error) => {
            let raised = Some(Carried::Raised(error));
            decide(place, facts, Response::default(), raised, cx)
        }
    }
}

/// The same for a view that has not panicked: what is sent replaces its response, unless there is
/// more to do.
///
/// Here is what most errors come to. It is kept short and apart from everything else, because the
/// processor has to read it anew for each of them.
pub(crate) fn respond_to(
    place: &Place,
    facts: &Arc<RequestFacts>,
    response: &mut Response,
    cx: &mut Context<'_>,
) -> Option<Step> {
    match Carried::take(response) {
        Some(Carried::Raised(error))
            if facts.is_routed()
                && let Some(id) = error.plain_type()
                && let Some(handler) = place.prepared.get(&id) =>
        {
            let asked = failure(place, facts, error.clone());
            match ask(handler, asked, facts, response, cx) {
                Asked::Answered if response.extensions().is_empty() && is_whole(response) => None,
                asked => Some(wait_prepared(place, facts, error, response, asked, cx)),
            }
        }
        None if is_ready_page(place, facts, response) => {
            let negotiates = place.core.switches.negotiates;
            dress(response, facts.format_of_page(negotiates), negotiates);
            None
        }
        carried => {
            let response = std::mem::take(response);
            Some(decide(place, facts, response, carried, cx))
        }
    }
}

/// Waits for the handler of an error, or looks at what it answered.
#[cold]
#[inline(never)]
fn wait_prepared(
    place: &Place,
    facts: &Arc<RequestFacts>,
    error: Error,
    response: &mut Response,
    asked: Asked,
    cx: &mut Context<'_>,
) -> Step {
    let failure = failure(place, facts, error);
    let step = wait(place, failure, None, response, asked, cx);
    guarded(step, place, facts, cx)
}

/// Decides about the response of a view, and the error that was in it.
#[inline(never)]
fn decide(
    place: &Place,
    facts: &Arc<RequestFacts>,
    response: Response,
    carried: Option<Carried>,
    cx: &mut Context<'_>,
) -> Step {
    let step = decide_unguarded(place, facts, response, carried, cx);
    guarded(step, place, facts, cx)
}

fn decide_unguarded(
    place: &Place,
    facts: &Arc<RequestFacts>,
    mut response: Response,
    carried: Option<Carried>,
    cx: &mut Context<'_>,
) -> Step {
    let mut routing = !facts.is_routed();
    let mut own = None;
    let error = match carried {
        Some(Carried::Raised(error)) => error,
        Some(Carried::PassedOn(error)) => {
            return pass_on(place, failure(place, facts, error), cx);
        }
        Some(Carried::Attached(error)) => {
            own = Some(std::mem::take(&mut response));
            error
        }
        None => {
            let status = response.status();
            match bare_error(place, std::mem::take(&mut response), cx) {
                Ok(error) => {
                    routing |= status == StatusCode::METHOD_NOT_ALLOWED;
                    error
                }
                Err(response) => return Step::Send(Settled::answered(response)),
            }
        }
    };
    let failure_of = |error| {
        let mut failure = failure(place, facts, error);
        if routing {
            // Routing failed before a blueprint was known.
            failure.blueprint = None;
        }
        failure
    };
    let failure = failure_of(error);
    if let Some(error) = failure.error.http()
        && error.status_code().is_none()
        && let Some(response) = ready_response(error)
        // A redirect is never trapped.
        && (response.status().is_redirection() || !place.core.switches.traps(&failure.error))
    {
        return Step::Send(Settled::answered(response));
    }
    if failure.is_disconnect() && failure.error.find::<ClientLeft>().is_none() {
        log::abandoned(facts);
    }
    let tables = if routing {
        app_only(place)
    } else {
        &place.tables[..]
    };
    let Some(Found { handler, .. }) = find(tables, &failure.error) else {
        return match own {
            Some(response) => Step::Send(own_answer(place, failure, response)),
            None if is_plain(place, &failure.error) => unhandled(place, failure, cx),
            None => default_page(&failure),
        };
    };
    let asked = ask(handler, failure.clone(), facts, &mut response, cx);
    wait(place, failure, None, &mut response, asked, cx)
}

/// Goes on with what a handler made of an error after it had to wait.
pub(crate) fn answered(
    place: &Place,
    question: Question,
    outcome: Result<Response, Error>,
    cx: &mut Context<'_>,
) -> Step {
    let facts = Arc::clone(&question.failure.request);
    guarded(conclude(place, question, outcome, cx), place, &facts, cx)
}

fn conclude(
    place: &Place,
    question: Question,
    outcome: Result<Response, Error>,
    cx: &mut Context<'_>,
) -> Step {
    let Question { failure, wrapped } = question;
    match (Answer::of(outcome), wrapped) {
        (Answer::Response(mut response), None) => {
            log::panic_answered(&failure);
            if note_server_error(&failure) {
                name_request(&mut response, &failure);
            }
            Step::Send(Settled::answered(response))
        }
        (Answer::PassedOn(error), None) => pass_on(place, failure.with_error(error), cx),
        (Answer::Failed(error), None) => {
            let error = error.in_context_of(failure.error.clone());
            unhandled(place, failure.with_error(error), cx)
        }
        (Answer::Response(mut response), Some(_)) => {
            name_request(&mut response, &failure);
            sent_500(response, failure)
        }
        (Answer::PassedOn(_), Some(wrapped)) => sent_500(page(&wrapped, true), failure),
        (Answer::Failed(error), Some(wrapped)) => {
            let escaped = failure.with_error(error.in_context_of(wrapped.error.clone()));
            // It leaves the application; teardown hooks are told of the first error all the same.
            let mut settled = propagated(escaped, page(&wrapped, true));
            settled.unhandled = Some(failure);
            Step::Send(settled)
        }
    }
}

/// Decides and waits for handlers, until there is a response.
pub(crate) async fn settle(
    place: &Place,
    facts: &Arc<RequestFacts>,
    outcome: Result<Response, Error>,
) -> Settled {
    let step = at_once(|cx| respond(place, facts, outcome, cx)).await;
    settle_from(place, step).await
}

/// Waits for handlers, until there is a response.
pub(crate) async fn settle_from(place: &Place, mut step: Step) -> Settled {
    loop {
        match step {
            Step::Send(settled) => return settled,
            Step::Ask(call, question) => {
                let outcome = Catching(call).await;
                step = at_once(|cx| answered(place, question, outcome, cx)).await;
            }
        }
    }
}

/// Runs what does not wait with the context of the task, for what may have to.
pub(crate) async fn at_once<T>(run: impl FnOnce(&mut Context<'_>) -> T) -> T {
    let mut run = Some(run);
    poll_fn(|cx| {
        let run = run.take().expect("it is ready at once");
        Poll::Ready(run(cx))
    })
    .await
}

#[inline]
pub(crate) fn failure(place: &Place, facts: &Arc<RequestFacts>, error: Error) -> Failure {
    Failure {
        error,
        request: Arc::clone(facts),
        blueprint: place.blueprint_of(facts),
        core: Arc::clone(&place.core),
    }
}

/// What came of asking a handler.
enum Asked {
    /// It was ready at once, as most are.
    Answered,
    Panicked(Error),
    Waits(Boxed<Response>),
}

/// Asks a handler. Its answer takes the place of `answer`.
fn ask(
    handler: &Handler,
    failure: Failure,
    facts: &RequestFacts,
    answer: &mut Response,
    cx: &mut Context<'_>,
) -> Asked {
    log::answering(&failure, &handler.on);
    let polled = panic::catch(|| {
        *answer = match handler.function.call(failure, facts) {
            Called::Ready(response) => response,
            Called::Waits(mut call) => match call.as_mut().poll(cx) {
                Poll::Ready(response) => response,
                Poll::Pending => return Some(call),
            },
        };
        None
    });
    match polled {
        Ok(None) => Asked::Answered,
        Ok(Some(call)) => Asked::Waits(call),
        Err(error) => Asked::Panicked(error),
    }
}

/// Waits for a handler, unless it has answered.
fn wait(
    place: &Place,
    failure: Failure,
    wrapped: Option<Failure>,
    answer: &mut Response,
    asked: Asked,
    cx: &mut Context<'_>,
) -> Step {
    let question = Question { failure, wrapped };
    match asked {
        Asked::Answered => conclude(place, question, Ok(std::mem::take(answer)), cx),
        Asked::Panicked(error) => conclude(place, question, Err(error), cx),
        Asked::Waits(call) => Step::Ask(call, question),
    }
}

/// What a handler made of an error.
enum Answer {
    Response(Response),
    /// It wants the default page of this error.
    PassedOn(Error),
    /// It failed itself.
    Failed(Error),
}

impl Answer {
    fn of(outcome: Result<Response, Error>) -> Self {
        match outcome {
            Ok(mut response) => match Carried::take(&mut response) {
                Some(Carried::Raised(error)) => Self::Failed(error),
                Some(Carried::PassedOn(error)) => Self::PassedOn(error),
                // A handler's response is an answer, whatever error it stands for.
                Some(Carried::Attached(_)) | None => Self::Response(response),
            },
            Err(error) => Self::Failed(error),
        }
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
    error.code().is_none() || place.core.switches.traps(error)
}

/// Watches over a body that is streamed, whoever made it. One that fails at once is answered by a
/// 500; handlers are not asked, as for a failure further on.
#[inline]
fn guarded(step: Step, place: &Place, facts: &Arc<RequestFacts>, cx: &mut Context<'_>) -> Step {
    match step {
        Step::Send(settled) if !is_whole(&settled.response) => {
            Step::Send(settled.guarded(place, facts, cx))
        }
        step => step,
    }
}

/// The default page of an error that a handler passed on; one without a code is unhandled.
fn pass_on(place: &Place, failure: Failure, cx: &mut Context<'_>) -> Step {
    if failure.error.code().is_some() {
        default_page(&failure)
    } else {
        unhandled(place, failure, cx)
    }
}

fn default_page(failure: &Failure) -> Step {
    let noted = note_server_error(failure);
    Step::Send(Settled::answered(page(failure, noted)))
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

/// Tells whether a response is a routing error that gets the default page in any case: no handler
/// can take it, nothing traps it, and no template replaces the page.
fn is_ready_page(place: &Place, facts: &RequestFacts, response: &Response) -> bool {
    let status = response.status();
    let is_of_app =
        !facts.is_routed() || status == StatusCode::METHOD_NOT_ALLOWED || place.blueprint.is_none();
    is_of_app
        && place.core.ready_codes.contains(&status.as_u16())
        && response.body().size_hint().exact() == Some(0)
        && !response.headers().contains_key(CONTENT_TYPE)
}

/// A cache must not give the page of one client to another.
fn vary(response: &mut Response) {
    let accept = HeaderValue::from_static("accept");
    response.headers_mut().append(VARY, accept);
}

/// The codes of routing errors that get the default page in any case.
pub(crate) fn ready_codes(
    switches: &Switches,
    templates: bool,
    app: &Arc<Table<Handler>>,
) -> Vec<u16> {
    if templates || switches.bare_status == BareStatus::Leave {
        return Vec::new();
    }
    let is_ready = |code: &u16| {
        let error = Error::from(HttpError::new(*code));
        !switches.traps(&error) && find(std::slice::from_ref(app), &error).is_none()
    };
    ROUTING_CODES.into_iter().filter(is_ready).collect()
}

/// A response without an error that counts as one; any other is given back.
#[expect(
    clippy::result_large_err,
    reason = "the response that is given back is the usual outcome"
)]
fn bare_error(place: &Place, response: Response, cx: &mut Context<'_>) -> Result<Error, Response> {
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
    if is_text {
        error = error.detail(String::from_utf8_lossy(&read_now(body, cx)));
    }
    Ok(Error::from(error))
}

/// The texts of axum's rejections are short; a longer one was written by somebody.
const BARE_TEXT_BYTES_MAX: u64 = 4096;

/// What can be read of a body without waiting: all of one that was made of a text.
fn read_now(mut body: Body, cx: &mut Context<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        match panic::catch(|| Pin::new(&mut body).poll_frame(cx)) {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                text.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
            }
            Ok(_) => return text,
            Err(panicked) => {
                log::failed("the text of an answer failed", &panicked);
                return text;
            }
        }
    }
}

/// Logs and reports an error that nobody handled, and answers with a 500.
pub(crate) fn unhandled(place: &Place, failure: Failure, cx: &mut Context<'_>) -> Step {
    notify(&place.core, &failure);
    let wrapped = failure.with_error(Error::from(HttpError::internal(failure.error.clone())));
    if place.core.switches.propagates {
        let response = page(&wrapped, true);
        return Step::Send(propagated(failure, response));
    }
    log::unhandled(&failure);
    let tables = if failure.blueprint.is_some() || place.blueprint.is_none() {
        &place.tables[..]
    } else {
        app_only(place)
    };
    match find(tables, &wrapped.error) {
        Some(Found { handler, .. }) => {
            let mut answer = Response::default();
            let asked = ask(handler, wrapped.clone(), &failure.request, &mut answer, cx);
            wait(place, failure, Some(wrapped), &mut answer, asked, cx)
        }
        None => sent_500(page(&wrapped, true), failure),
    }
}

/// The answer to an error that nobody handled.
fn sent_500(response: Response, unhandled: Failure) -> Step {
    Step::Send(Settled {
        response,
        unhandled: Some(unhandled),
        propagated: false,
    })
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
    let error = match failure.error.http() {
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
            format: failure.request.format_of_page(core.switches.negotiates),
            request_id: noted.then(|| failure.request_id()),
            with_detail: core.switches.debug,
        };
        let own = match &core.templates {
            Some(templates) if page.format == Format::Html => templates.response(&page, failure),
            _ => None,
        };
        let mut response = own.unwrap_or_else(|| page.response());
        if core.switches.negotiates {
            vary(&mut response);
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
