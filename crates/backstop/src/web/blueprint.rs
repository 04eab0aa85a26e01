//! Blueprints: named groups of routes with their own handlers and hooks.

use axum::Router;

use crate::Kind;
use crate::web::failure::Failure;
use crate::web::function::{AfterHook, BeforeHook, ErrorHandler};
use crate::web::scope::{Code, Scope, SetupError, TeardownOutcome};

/// A named group of routes with its own error handlers and hooks.
///
/// Its handlers beat the app's for errors of its own routes.
/// They do not see an unknown address below its prefix: no blueprint was known then.
///
/// # Example
///
/// ```
/// use axum::{Router, http::StatusCode, routing::get};
/// use backstop::{App, Blueprint, Caught, HttpError, Result, abort};
///
/// async fn users() -> Result<String> {
///     abort(403)
/// }
///
/// async fn denied(_: Caught<HttpError>) -> (StatusCode, &'static str) {
///     (StatusCode::FORBIDDEN, "administrators only")
/// }
///
/// let admin = Blueprint::new("admin", Router::new().route("/users", get(users)))
///     .error_handler(403, denied);
/// let app = App::new(Router::new()).register(admin, "/admin");
/// # let router = app.into_router().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # use tower::ServiceExt;
/// # let request = axum::http::Request::get("/admin/users").body(axum::body::Body::empty()).unwrap();
/// # let response = router.oneshot(request).await.unwrap();
/// # assert_eq!(response.status(), 403);
/// # let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
/// # assert_eq!(body, "administrators only");
/// # });
/// ```
#[must_use = "a blueprint does nothing until it is registered"]
pub struct Blueprint<S = ()> {
    pub(crate) name: String,
    pub(crate) router: Router<S>,
    pub(crate) scope: Scope<S>,
    /// Handlers and hooks for the whole app.
    pub(crate) app_wide: Scope<S>,
    pub(crate) children: Vec<(Blueprint<S>, String)>,
    pub(crate) refusals: Vec<SetupError>,
}

impl<S: Clone + Send + Sync + 'static> Blueprint<S> {
    /// Makes a blueprint of routes.
    pub fn new(name: impl Into<String>, router: Router<S>) -> Self {
        Self {
            name: name.into(),
            router,
            scope: Scope::new(),
            app_wide: Scope::new(),
            children: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// Gives the blueprint another name, so that it can be registered once more.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Registers a handler for a status code, for errors of this blueprint's routes.
    #[doc(alias = "errorhandler")]
    pub fn error_handler<M, H: ErrorHandler<M, S>>(
        mut self,
        code: impl Into<Code>,
        handler: H,
    ) -> Self {
        let outcome = self.register_error_handler(code, handler);
        self.refusals.extend(outcome.err());
        self
    }

    /// Registers a handler for a status code.
    ///
    /// # Errors
    ///
    /// The code is not 400 to 599.
    pub fn register_error_handler<M, H: ErrorHandler<M, S>>(
        &mut self,
        code: impl Into<Code>,
        handler: H,
    ) -> Result<(), SetupError> {
        self.scope.by_code(code.into(), handler)
    }

    /// Registers a handler for what its first argument says.
    pub fn error_handler_for<M, H: ErrorHandler<M, S>>(mut self, handler: H) -> Self {
        self.scope.by_argument(handler);
        self
    }

    /// Registers a handler for what its first argument says, without the chain.
    pub fn register_error_handler_for<M, H: ErrorHandler<M, S>>(&mut self, handler: H) {
        self.scope.by_argument(handler);
    }

    /// Registers a handler for a kind that was made at run time.
    pub fn error_handler_for_kind<M, H: ErrorHandler<M, S>>(
        mut self,
        kind: &Kind,
        handler: H,
    ) -> Self {
        self.scope.by_kind(kind, handler);
        self
    }

    /// Registers a handler for a status code for the whole app, with the rank of an app's handler.
    #[doc(alias = "app_errorhandler")]
    pub fn app_error_handler<M, H: ErrorHandler<M, S>>(
        mut self,
        code: impl Into<Code>,
        handler: H,
    ) -> Self {
        let outcome = self.app_wide.by_code(code.into(), handler);
        self.refusals.extend(outcome.err());
        self
    }

    /// Registers a handler for the whole app, for what its first argument says.
    pub fn app_error_handler_for<M, H: ErrorHandler<M, S>>(mut self, handler: H) -> Self {
        self.app_wide.by_argument(handler);
        self
    }

    /// Registers a handler for the whole app, for a kind that was made at run time.
    pub fn app_error_handler_for_kind<M, H: ErrorHandler<M, S>>(
        mut self,
        kind: &Kind,
        handler: H,
    ) -> Self {
        self.app_wide.by_kind(kind, handler);
        self
    }

    /// Runs a function before each request of this blueprint, after the app's.
    pub fn before_request<M, H: BeforeHook<M, S>>(mut self, hook: H) -> Self {
        self.scope.before(hook);
        self
    }

    /// Runs a function on each response of this blueprint, before the app's; the last registered
    /// runs first.
    pub fn after_request<M, H: AfterHook<M, S>>(mut self, hook: H) -> Self {
        self.scope.after(hook);
        self
    }

    /// Runs a function at the end of each request of this blueprint, whatever happened; it is
    /// told of an unhandled error. The last registered runs first.
    pub fn teardown_request<R: TeardownOutcome>(
        mut self,
        hook: impl Fn(Option<&Failure>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.scope.teardown(hook);
        self
    }

    /// Puts another blueprint inside this one, below a prefix.
    pub fn register(mut self, blueprint: Self, prefix: impl Into<String>) -> Self {
        self.children.push((blueprint, prefix.into()));
        self
    }

    /// Puts another blueprint inside this one under another name.
    pub fn register_as(
        self,
        mut blueprint: Self,
        name: impl Into<String>,
        prefix: impl Into<String>,
    ) -> Self {
        blueprint.name = name.into();
        self.register(blueprint, prefix)
    }

    pub(crate) fn with_state<T: Clone + Send + Sync + 'static>(self, state: &S) -> Blueprint<T> {
        Blueprint {
            name: self.name,
            router: self.router.with_state(state.clone()),
            scope: self.scope.with_state(state),
            app_wide: self.app_wide.with_state(state),
            children: self
                .children
                .into_iter()
                .map(|(child, prefix)| (child.with_state(state), prefix))
                .collect(),
            refusals: self.refusals,
        }
    }
}

impl<S: Clone> Clone for Blueprint<S> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            router: self.router.clone(),
            scope: self.scope.clone(),
            app_wide: self.app_wide.clone(),
            children: self.children.clone(),
            refusals: self.refusals.clone(),
        }
    }
}

impl<S> std::fmt::Debug for Blueprint<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blueprint")
            .field("name", &self.name)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}
