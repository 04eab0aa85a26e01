//! What apps and blueprints have in common: handlers and hooks, registered by scope.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::http_error::{CODE_MAX, CODE_MIN};
use crate::io::is_family;
use crate::web::failure::Failure;
use crate::web::function::{
    AfterFunction, AfterHook, BeforeFunction, BeforeHook, Erased, ErrorFunction, ErrorHandler, Head,
};
use crate::web::handlers::{On, Table};
use crate::web::layer::TeardownFunction;
use crate::{Error, Kind};

/// The handlers and hooks of one scope, still waiting for the state.
pub(crate) struct Scope<S> {
    pub(crate) table: Table<Pending<S>>,
    pub(crate) hooks: Hooks<S>,
    /// Some function has extractors.
    pub(crate) extracts: bool,
    /// Registered for the same thing as an earlier handler, which therefore never runs.
    pub(crate) replaced: Vec<String>,
    /// Registered for exactly something that has no values.
    pub(crate) unreachable: Vec<String>,
}

pub(crate) struct Hooks<S> {
    pub(crate) before: Vec<BeforeFunction<S>>,
    pub(crate) after: Vec<AfterFunction<S>>,
    pub(crate) teardown: Vec<TeardownFunction>,
}

/// A registered handler, still waiting for the state.
pub(crate) struct Pending<S> {
    pub(crate) function: ErrorFunction<S>,
    pub(crate) on: Arc<str>,
}

impl<S> Clone for Pending<S> {
    fn clone(&self) -> Self {
        Self {
            function: self.function.clone(),
            on: Arc::clone(&self.on),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Scope<S> {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::default(),
            hooks: Hooks {
                before: Vec::new(),
                after: Vec::new(),
                teardown: Vec::new(),
            },
            extracts: false,
            replaced: Vec::new(),
            unreachable: Vec::new(),
        }
    }

    pub(crate) fn by_code<M, H: ErrorHandler<M, S>>(
        &mut self,
        Code(code): Code,
        handler: H,
    ) -> Result<(), SetupError> {
        check_code(code)?;
        self.insert(On::Code(code), code.to_string(), handler);
        Ok(())
    }

    pub(crate) fn by_argument<M, H: ErrorHandler<M, S>>(&mut self, handler: H) {
        let selector = H::selector().0;
        let name = selector.name.clone();
        if selector.exact && is_family(selector.key) {
            self.unreachable.push(name.clone());
        }
        self.insert(On::Kind(selector), name, handler);
    }

    pub(crate) fn by_kind<M, H: ErrorHandler<M, S>>(&mut self, kind: &Kind, handler: H) {
        self.insert(On::kind(kind), kind.name().to_owned(), handler);
    }

    pub(crate) fn has_handlers(&self) -> bool {
        !self.table.is_empty()
    }

    fn insert<M, H: ErrorHandler<M, S>>(&mut self, on: On, name: String, handler: H) {
        self.extracts |= H::EXTRACTS;
        let function = Erased::new(move |failure, head: Head<'_>, state| {
            handler.clone().call(failure, head, state)
        });
        let pending = Pending {
            function,
            on: name.into(),
        };
        if let Some(replaced) = self.table.insert(on, pending) {
            self.replaced.push(replaced.on.to_string());
        }
    }

    pub(crate) fn before<M, H: BeforeHook<M, S>>(&mut self, hook: H) {
        self.extracts |= H::EXTRACTS;
        self.hooks
            .before
            .push(Erased::new(move |(), head: Head<'_>, state| {
                hook.clone().call(head, state)
            }));
    }

    pub(crate) fn after<M, H: AfterHook<M, S>>(&mut self, hook: H) {
        self.extracts |= H::EXTRACTS;
        self.hooks
            .after
            .push(Erased::new(move |response, head: Head<'_>, state| {
                hook.clone().call(response, head, state)
            }));
    }

    pub(crate) fn teardown<R: TeardownOutcome>(
        &mut self,
        hook: impl Fn(Option<&Failure>) -> R + Send + Sync + 'static,
    ) {
        self.hooks
            .teardown
            .push(Arc::new(move |failure| hook(failure).outcome()));
    }

    /// Adds what another scope has, after what is here.
    pub(crate) fn absorb(&mut self, other: &Self) {
        let replaced = self.table.absorb(&other.table);
        // A blueprint that is registered twice replaces its own handlers with the same ones.
        let others = replaced
            .iter()
            .filter(|(earlier, later)| !Arc::ptr_eq(&earlier.on, &later.on));
        self.replaced
            .extend(others.map(|(earlier, _)| earlier.on.to_string()));
        self.hooks.before.extend(other.hooks.before.iter().cloned());
        self.hooks.after.extend(other.hooks.after.iter().cloned());
        self.hooks
            .teardown
            .extend(other.hooks.teardown.iter().cloned());
        self.extracts |= other.extracts;
    }

    /// Gives every function its state.
    pub(crate) fn with_state<T: Clone + Send + Sync + 'static>(self, state: &S) -> Scope<T> {
        Scope {
            table: self.table.map(|pending| Pending {
                function: pending.function.with_state(state),
                on: pending.on,
            }),
            hooks: Hooks {
                before: self
                    .hooks
                    .before
                    .iter()
                    .map(|hook| hook.with_state(state))
                    .collect(),
                after: self
                    .hooks
                    .after
                    .iter()
                    .map(|hook| hook.with_state(state))
                    .collect(),
                teardown: self.hooks.teardown,
            },
            extracts: self.extracts,
            replaced: self.replaced,
            unreachable: self.unreachable,
        }
    }
}

impl<S> Hooks<S> {
    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && self.teardown.is_empty()
    }
}

impl<S> Clone for Hooks<S> {
    fn clone(&self) -> Self {
        Self {
            before: self.before.clone(),
            after: self.after.clone(),
            teardown: self.teardown.clone(),
        }
    }
}

impl<S> Clone for Scope<S> {
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            hooks: self.hooks.clone(),
            extracts: self.extracts,
            replaced: self.replaced.clone(),
            unreachable: self.unreachable.clone(),
        }
    }
}

/// What a teardown hook may return: nothing, or a result; an error in it is logged.
pub trait TeardownOutcome {
    #[doc(hidden)]
    fn outcome(self) -> Result<(), Error>;
}

impl TeardownOutcome for () {
    fn outcome(self) -> Result<(), Error> {
        Ok(())
    }
}

impl TeardownOutcome for Result<(), Error> {
    fn outcome(self) -> Result<(), Error> {
        self
    }
}

pub(crate) fn check_code(code: u16) -> Result<(), SetupError> {
    if (CODE_MIN..=CODE_MAX).contains(&code) {
        Ok(())
    } else {
        Err(SetupError::NotAnErrorCode(code))
    }
}

/// The status code that a handler is registered for: a number, or axum's `StatusCode`.
///
/// # Example
///
/// ```
/// use axum::{Router, http::StatusCode};
/// use backstop::{App, Caught};
///
/// let app: App = App::new(Router::new())
///     .error_handler(404, |_: Caught| "nothing here")
///     .error_handler(StatusCode::GONE, |_: Caught| "no more");
/// # app.into_router().unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(u16);

impl From<u16> for Code {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<StatusCode> for Code {
    fn from(status: StatusCode) -> Self {
        Self(status.as_u16())
    }
}

/// A registration that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupError {
    /// A handler can be registered for the codes 400 to 599; this is none of them.
    NotAnErrorCode(u16),
    /// A blueprint's name is empty or has a dot, which separates nested names.
    BlueprintName(String),
    /// Two blueprints have this name.
    DuplicateBlueprint(String),
    /// The app has been built; what is named here comes too late.
    AlreadyBuilt(&'static str),
    /// A setting has a value of the wrong type.
    Setting(String),
    /// An error page's template cannot be read or parsed.
    Template(String),
    /// Routes contradict each other, or a prefix is none; in axum's words.
    Routes(String),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnErrorCode(code) => write!(
                f,
                "cannot register a handler for {code}: error codes are {CODE_MIN} to {CODE_MAX}"
            ),
            Self::BlueprintName(name) if name.is_empty() => {
                f.write_str("a blueprint's name may not be empty")
            }
            Self::BlueprintName(name) => {
                write!(f, "the blueprint name \"{name}\" may not contain a dot")
            }
            Self::DuplicateBlueprint(name) => write!(
                f,
                "a blueprint \"{name}\" is registered already; use register_as to give this one another name"
            ),
            Self::AlreadyBuilt(what) => write!(
                f,
                "cannot register {what}: the app has been built, and its router would not see it"
            ),
            Self::Setting(text) | Self::Template(text) => f.write_str(text),
            Self::Routes(text) => write!(f, "the routes cannot be combined: {text}"),
        }
    }
}

impl std::error::Error for SetupError {}
