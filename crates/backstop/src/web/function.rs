//! Functions that can be registered: error handlers and hooks, sync or async, with extractors.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};

use crate::Error;
use crate::web::caught::{FromFailure, Select};
use crate::web::facts::RequestFacts;
use crate::web::failure::Failure;

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a called error handler is: done, where nothing in it waits. Opaque.
#[doc(hidden)]
pub enum Called {
    #[doc(hidden)]
    Ready(Response),
    #[doc(hidden)]
    Waits(Pin<Box<dyn Future<Output = Response> + Send>>),
}

/// A function that answers an error.
///
/// Its first argument is [`Caught`](crate::Caught) or [`Exact`](crate::Exact) and says what it
/// takes; extractors that do not need the body follow, `State` among them.
/// It may be `async` or not and may return anything that is a response: text, a status and text,
/// `Json`, a `Result`, or the caught error itself, which means its default page.
/// The status is not set from the code that the handler is registered for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error handler",
    note = "an error handler is a function whose first argument is `Caught<T>` or `Exact<T>`, followed by extractors that do not need the body, and which returns a response"
)]
pub trait ErrorHandler<M, S>: Clone + Send + Sync + 'static {
    #[doc(hidden)]
    const EXTRACTS: bool;

    #[doc(hidden)]
    fn selector() -> Select;

    #[doc(hidden)]
    fn call(self, failure: Failure, head: Head<'_>, state: S) -> Called;
}

/// A function that runs before each request.
///
/// Takes extractors that do not need the body, `State` among them.
/// Returns nothing, or a [`BeforeOutcome`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a before hook",
    note = "a before hook is a function of extractors that do not need the body, which returns `()`, `Option<Response>`, or a `Result` of one of them"
)]
pub trait BeforeHook<M, S>: Clone + Send + Sync + 'static {
    #[doc(hidden)]
    const EXTRACTS: bool;

    #[doc(hidden)]
    fn call(self, head: Head<'_>, state: S) -> Boxed<Result<Option<Response>, Error>>;
}

/// What a before hook may return: nothing, an answer instead of the view's, or an error.
pub trait BeforeOutcome {
    #[doc(hidden)]
    fn outcome(self) -> Result<Option<Response>, Error>;
}

impl BeforeOutcome for () {
    fn outcome(self) -> Result<Option<Response>, Error> {
        Ok(None)
    }
}

impl<R: IntoResponse> BeforeOutcome for Option<R> {
    fn outcome(self) -> Result<Option<Response>, Error> {
        Ok(self.map(IntoResponse::into_response))
    }
}

impl<T: BeforeOutcome> BeforeOutcome for Result<T, Error> {
    fn outcome(self) -> Result<Option<Response>, Error> {
        self?.outcome()
    }
}

/// A function that changes each response.
///
/// Takes the response, then extractors that do not need the body; returns the response, or a
/// `Result` of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an after hook",
    note = "an after hook is a function whose first argument is the `Response`, followed by extractors that do not need the body, and which returns a response or `backstop::Result` of one"
)]
pub trait AfterHook<M, S>: Clone + Send + Sync + 'static {
    #[doc(hidden)]
    const EXTRACTS: bool;

    #[doc(hidden)]
    fn call(self, response: Response, head: Head<'_>, state: S) -> Boxed<Result<Response, Error>>;
}

/// What an after hook may return: a response, or an error.
pub trait AfterOutcome {
    #[doc(hidden)]
    fn outcome(self) -> Result<Response, Error>;
}

impl AfterOutcome for Response {
    fn outcome(self) -> Result<Response, Error> {
        Ok(self)
    }
}

impl AfterOutcome for Result<Response, Error> {
    fn outcome(self) -> Result<Response, Error> {
        self
    }
}

/// The request without its body, for extractors. Opaque.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Head<'a>(&'a RequestFacts);

/// Marks asynchronous functions, so that they and synchronous ones can both be registered.
#[derive(Debug)]
pub struct Async;

/// Marks synchronous functions.
#[derive(Debug)]
pub struct Sync_;

/// An extractor failed: what its rejection says, as an error.
fn rejected(rejection: impl IntoResponse) -> Error {
    super::carried::error_of(rejection.into_response())
}

macro_rules! functions {
    ($($name:ident),*) => {
        impl<F, Fut, R, C, S, $($name,)*> ErrorHandler<(Async, C, $($name,)*), S> for F
        where
            F: FnOnce(C, $($name,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoResponse,
            C: FromFailure,
            S: Send + Sync + 'static,
            $($name: FromRequestParts<S> + Send,)*
        {
            const EXTRACTS: bool = functions!(@any $($name)*);

            fn selector() -> Select {
                C::selector()
            }

            #[allow(non_snake_case, unused_mut, unused_variables, clippy::let_unit_value, reason = "no extractors is a case as well")]
            fn call(self, failure: Failure, head: Head<'_>, state: S) -> Called {
                let mut parts = functions!(@parts head $($name)*);
                Called::Waits(Box::pin(async move {
                    $(
                        let $name = match $name::from_request_parts(&mut parts, &state).await {
                            Ok(value) => value,
                            Err(rejection) => return rejected(rejection).into_response(),
                        };
                    )*
                    self(C::from_failure(failure), $($name,)*).await.into_response()
                }))
            }
        }

        impl<F, R, C, S, $($name,)*> ErrorHandler<(Sync_, C, $($name,)*), S> for F
        where
            F: FnOnce(C, $($name,)*) -> R + Clone + Send + Sync + 'static,
            R: IntoResponse,
            C: FromFailure,
            S: Send + Sync + 'static,
            $($name: FromRequestParts<S> + Send,)*
        {
            const EXTRACTS: bool = functions!(@any $($name)*);

            fn selector() -> Select {
                C::selector()
            }

            #[allow(non_snake_case, unused_mut, unused_variables, clippy::let_unit_value, reason = "no extractors is a case as well")]
            fn call(self, failure: Failure, head: Head<'_>, state: S) -> Called {
                functions!(@sync self, failure, head, state, C $($name)*)
            }
        }

        impl<F, Fut, S, $($name,)*> BeforeHook<(Async, $($name,)*), S> for F
        where
            F: FnOnce($($name,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send,
            Fut::Output: BeforeOutcome,
            S: Send + Sync + 'static,
            $($name: FromRequestParts<S> + Send,)*
        {
            const EXTRACTS: bool = functions!(@any $($name)*);

            #[allow(non_snake_case, unused_mut, unused_variables, clippy::let_unit_value, reason = "no extractors is a case as well")]
            fn call(self, head: Head<'_>, state: S) -> Boxed<Result<Option<Response>, Error>> {
                let mut parts = functions!(@parts head $($name)*);
                Box::pin(async move {
                    $(
                        let $name = $name::from_request_parts(&mut parts, &state).await.map_err(rejected)?;
                    )*
                    self($($name,)*).await.outcome()
                })
            }
        }

        impl<F, R, S, $($name,)*> BeforeHook<(Sync_, $($name,)*), S> for F
        where
            F: FnOnce($($name,)*) -> R + Clone + Send + Sync + 'static,
            R: BeforeOutcome,
            S: Send + Sync + 'static,
            $($name: FromRequestParts<S> + Send,)*
        {
            const EXTRACTS: bool = functions!(@any $($name)*);

            #[allow(non_snake_case, unused_mut, unused_variables, clippy::let_unit_value, reason = "no extractors is a case as well")]
            fn call(self, head: Head<'_>, state: S) -> Boxed<Result<Option<Response>, Error>> {
                let mut parts = functions!(@parts head $($name)*);
                Box::pin(async move {
                    $(
                        let $name = $name::from_request_parts(&mut parts, &state).await.map_err(rejected)?;
                    )*
                    self($($name,)*).outcome()
                })
            }
        }

        impl<F, Fut, S, $($name,)*> AfterHook<(Async, $($name,)*), S> for F
        where
            F: FnOnce(Response, $($name,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send,
            Fut::Output: AfterOutcome,
            S: Send + Sync + 'static,
            $($name: FromRequestParts<S> + Send,)*
        {
            const EXTRACTS: bool = functions!(@any $($name)*);

            #[allow(non_snake_case, unused_mut, unused_variables, clippy::let_unit_value, reason = "no extractors is a case as well")]
            fn call(self, response: Response, head: Head<'_>, state: S) -> Boxed<Result<Response, Error>> {
                let mut parts = functions!(@parts head $($name)*);
                Box::pin(async move {
                    $(
                        let $name = $name::from_request_parts(&mut parts, &state).await.map_err(rejected)?;
                    )*
                    self(response, $($name,)*).await.outcome()
                })
            }
        }

        impl<F, R, S, $($name,)*> AfterHook<(Sync_, $($name,)*), S> for F
        where
            F: FnOnce(Response, $($name,)*) -> R + Clone + Send + Sync + 'static,
            R: AfterOutcome,
            S: Send + Sync + 'static,
            $($name: FromRequestParts<S> + Send,)*
        {
            const EXTRACTS: bool = functions!(@any $($name)*);

            #[allow(non_snake_case, unused_mut, unused_variables, clippy::let_unit_value, reason = "no extractors is a case as well")]
            fn call(self, response: Response, head: Head<'_>, state: S) -> Boxed<Result<Response, Error>> {
                let mut parts = functions!(@parts head $($name)*);
                Box::pin(async move {
                    $(
                        let $name = $name::from_request_parts(&mut parts, &state).await.map_err(rejected)?;
                    )*
                    self(response, $($name,)*).outcome()
                })
            }
        }
    };
    (@sync $self:ident, $failure:ident, $head:ident, $state:ident, $caught:ident) => {
        Called::Ready($self($caught::from_failure($failure)).into_response())
    };
    (@sync $self:ident, $failure:ident, $head:ident, $state:ident, $caught:ident $($name:ident)+) => {{
        let mut parts = $head.0.parts();
        // Extractors are asynchronous.
        Called::Waits(Box::pin(async move {
            $(
                let $name = match $name::from_request_parts(&mut parts, &$state).await {
                    Ok(value) => value,
                    Err(rejection) => return rejected(rejection).into_response(),
                };
            )+
            $self($caught::from_failure($failure), $($name,)+).into_response()
        }))
    }};
    (@parts $head:ident) => { () };
    (@parts $head:ident $($name:ident)+) => { $head.0.parts() };
    (@any) => { false };
    (@any $($name:ident)+) => { true };
}

functions!();
functions!(T1);
functions!(T1, T2);
functions!(T1, T2, T3);
functions!(T1, T2, T3, T4);
functions!(T1, T2, T3, T4, T5);
functions!(T1, T2, T3, T4, T5, T6);

/// A registered function with its types erased, except the state that it still waits for.
pub(crate) struct Erased<S, A, R> {
    call: Call<S, A, R>,
}

/// An error handler, a before hook and an after hook that still wait for their state.
pub(crate) type ErrorFunction<S> = Erased<S, Failure, Called>;
pub(crate) type BeforeFunction<S> = Erased<S, (), Boxed<Result<Option<Response>, Error>>>;
pub(crate) type AfterFunction<S> = Erased<S, Response, Boxed<Result<Response, Error>>>;

type Call<S, A, R> = Arc<dyn Fn(A, Head<'_>, S) -> R + Send + Sync>;

impl<S, A, R> Clone for Erased<S, A, R> {
    fn clone(&self) -> Self {
        Self {
            call: Arc::clone(&self.call),
        }
    }
}

impl<S: Clone + Send + Sync + 'static, A: 'static, R: 'static> Erased<S, A, R> {
    pub(crate) fn new(call: impl Fn(A, Head<'_>, S) -> R + Send + Sync + 'static) -> Self {
        Self {
            call: Arc::new(call),
        }
    }

    /// Gives the function its state; it then waits for another one, which it ignores.
    pub(crate) fn with_state<T: 'static>(&self, state: &S) -> Erased<T, A, R> {
        let call = Arc::clone(&self.call);
        let state = state.clone();
        Erased {
            call: Arc::new(move |argument, head, _| call(argument, head, state.clone())),
        }
    }
}

impl<A, R> Erased<(), A, R> {
    /// Calls the function; the request is copied only for one that has extractors.
    pub(crate) fn call(&self, argument: A, request: &RequestFacts) -> R {
        (self.call)(argument, Head(request), ())
    }
}
