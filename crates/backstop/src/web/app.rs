//! The app: routes, blueprints, handlers and hooks, put together into an axum router.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;

use crate::config::Config;
use crate::panic;
use crate::report::Client;
use crate::web::blueprint::Blueprint;
use crate::web::explain::{self, Explanation};
use crate::web::failure::Failure;
use crate::web::function::{AfterHook, BeforeHook, ErrorHandler};
use crate::web::handlers::Table;
use crate::web::layer::{Core, Handler, Listener, Place, PlaceLayer};
use crate::web::methods::Methods;
use crate::web::respond::{prepared, ready_codes};
use crate::web::scope::{Code, Hooks, Pending, Scope, SetupError, TeardownOutcome};
use crate::web::switches::Switches;
use crate::web::template::Templates;
use crate::{Error, Kind};

/// An application: an axum router, with error handlers, hooks and blueprints.
///
/// Registering takes and returns the app; what is refused is told by [`App::into_router`].
///
/// # Example
///
/// ```
/// use axum::{Router, http::StatusCode, routing::get};
/// use backstop::{App, Caught, HttpError, Result, abort};
///
/// async fn user() -> Result<String> {
///     abort((404, "No such user."))
/// }
///
/// async fn not_found(e: Caught<HttpError>) -> (StatusCode, String) {
///     (e.status(), format!("nothing here: {}", e.description()))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let app = App::new(Router::new().route("/user", get(user))).error_handler(404, not_found);
///
/// let router: Router = app.into_router()?;
/// # use tower::ServiceExt;
/// # let request = axum::http::Request::get("/user").body(axum::body::Body::empty())?;
/// # let response = router.oneshot(request).await?;
/// # assert_eq!(response.status(), 404);
/// # let body = axum::body::to_bytes(response.into_body(), 1000).await?;
/// # assert_eq!(body, "nothing here: No such user.");
/// # Ok(()) }
/// ```
#[must_use = "an app does nothing until it is built"]
pub struct App<S = ()> {
    router: Router<S>,
    scope: Scope<S>,
    blueprints: Vec<(Blueprint<S>, String)>,
    listeners: Vec<Listener>,
    reporters: Vec<Listener>,
    client: Option<Client>,
    config: Config,
    templates: Option<Templates>,
    refusals: Vec<SetupError>,
    built: bool,
}

/// Gives an axum router Backstop's error handling, with default pages and no handlers.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
///
/// async fn broken() -> backstop::Result<String> {
///     Ok(std::fs::read_to_string("/no/such/file")?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> backstop::Result<()> {
/// let app: Router = backstop::init_app(Router::new().route("/", get(broken)));
/// # use tower::ServiceExt;
/// # let request = axum::http::Request::get("/").body(axum::body::Body::empty())?;
/// # let response = app.oneshot(request).await?;
/// # assert_eq!(response.status(), 500);
/// # assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
/// # Ok(()) }
/// ```
pub fn init_app(router: Router) -> Router {
    let mut app = App::new(router);
    let router = app.router.clone();
    // Without blueprints and handlers nothing can be refused.
    app.build().unwrap_or(router)
}

/// Something that can be added to any number of apps: `tracker.init_app(app)`.
///
/// One object may serve many apps, so it keeps nothing about any of them.
pub trait Extension {
    /// Adds itself to an app: registers handlers, hooks and listeners.
    fn init_app<S: Clone + Send + Sync + 'static>(&self, app: App<S>) -> App<S>;
}

impl<S: Clone + Send + Sync + 'static> App<S> {
    /// Makes an app of a router, which keeps its routes, extractors, layers and state.
    pub fn new(router: Router<S>) -> Self {
        Self {
            router,
            scope: Scope::new(),
            blueprints: Vec::new(),
            listeners: Vec::new(),
            reporters: Vec::new(),
            client: None,
            config: Config::at_start(|name| std::env::var(name).ok()),
            templates: None,
            refusals: Vec::new(),
            built: false,
        }
    }

    /// Registers a handler for a status code from 400 to 599, a number or a `StatusCode`.
    ///
    /// The code and its standard type, such as 404 and
    /// [`errors::NotFound`](crate::errors::NotFound), are one slot; the later registration wins.
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
    /// - The code is not 400 to 599.
    /// - The app has been built.
    pub fn register_error_handler<M, H: ErrorHandler<M, S>>(
        &mut self,
        code: impl Into<Code>,
        handler: H,
    ) -> Result<(), SetupError> {
        self.open("an error handler")?;
        self.scope.by_code(code.into(), handler)
    }

    /// Registers a handler for what its first argument says: [`Caught<T>`](crate::Caught) or
    /// [`Exact<T>`](crate::Exact).
    pub fn error_handler_for<M, H: ErrorHandler<M, S>>(mut self, handler: H) -> Self {
        let outcome = self.register_error_handler_for(handler);
        self.refusals.extend(outcome.err());
        self
    }

    /// Registers a handler for what its first argument says.
    ///
    /// # Errors
    ///
    /// The app has been built.
    pub fn register_error_handler_for<M, H: ErrorHandler<M, S>>(
        &mut self,
        handler: H,
    ) -> Result<(), SetupError> {
        self.open("an error handler")?;
        self.scope.by_argument(handler);
        Ok(())
    }

    /// Registers a handler for a kind that was made at run time.
    pub fn error_handler_for_kind<M, H: ErrorHandler<M, S>>(
        mut self,
        kind: &Kind,
        handler: H,
    ) -> Self {
        if self.admits("an error handler") {
            self.scope.by_kind(kind, handler);
        }
        self
    }

    /// Runs a function before each request; the first registered runs first.
    ///
    /// If it answers, the view does not run.
    /// It also runs before an unknown address is refused.
    pub fn before_request<M, H: BeforeHook<M, S>>(mut self, hook: H) -> Self {
        let outcome = self.register_before_request(hook);
        self.refusals.extend(outcome.err());
        self
    }

    /// Runs a function before each request.
    ///
    /// # Errors
    ///
    /// The app has been built.
    pub fn register_before_request<M, H: BeforeHook<M, S>>(
        &mut self,
        hook: H,
    ) -> Result<(), SetupError> {
        self.open("a before hook")?;
        self.scope.before(hook);
        Ok(())
    }

    /// Runs a function on each response, error pages included; the last registered runs first.
    ///
    /// If it fails, its error is unhandled and all after hooks run again on the answer to that.
    pub fn after_request<M, H: AfterHook<M, S>>(mut self, hook: H) -> Self {
        let outcome = self.register_after_request(hook);
        self.refusals.extend(outcome.err());
        self
    }

    /// Runs a function on each response.
    ///
    /// # Errors
    ///
    /// The app has been built.
    pub fn register_after_request<M, H: AfterHook<M, S>>(
        &mut self,
        hook: H,
    ) -> Result<(), SetupError> {
        self.open("an after hook")?;
        self.scope.after(hook);
        Ok(())
    }

    /// Runs a function at the end of each request, whatever happened; it is told of an unhandled
    /// error. The last registered runs first.
    ///
    /// If it fails, that is logged; the response stays, and the other hooks run.
    pub fn teardown_request<R: TeardownOutcome>(
        mut self,
        hook: impl Fn(Option<&Failure>) -> R + Send + Sync + 'static,
    ) -> Self {
        let outcome = self.register_teardown_request(hook);
        self.refusals.extend(outcome.err());
        self
    }

    /// Runs a function at the end of each request.
    ///
    /// # Errors
    ///
    /// The app has been built.
    pub fn register_teardown_request<R: TeardownOutcome>(
        &mut self,
        hook: impl Fn(Option<&Failure>) -> R + Send + Sync + 'static,
    ) -> Result<(), SetupError> {
        self.open("a teardown hook")?;
        self.scope.teardown(hook);
        Ok(())
    }

    /// Calls a function for each unhandled error, on the request's own task: it must be quick.
    ///
    /// Flask's `got_request_exception` signal. If it panics, that is logged and nothing else
    /// changes.
    #[doc(alias = "got_request_exception")]
    pub fn on_unhandled(mut self, listener: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        if self.admits("a listener") {
            self.listeners.push(Arc::new(listener));
        }
        self
    }

    /// Calls a function for everything that is worth a report, on the request's own task: it must
    /// be quick.
    ///
    /// These are unhandled errors, HTTP errors of 500 and above, and bodies that failed while
    /// they were streamed; each once.
    pub fn on_report(mut self, reporter: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        if self.admits("a reporter") {
            self.reporters.push(Arc::new(reporter));
        }
        self
    }

    /// Lets views, handlers and hooks report through this client: `report::capture` and the like.
    ///
    /// [`Tracker::init_app`](crate::report::Tracker::init_app) does this and reports what nobody
    /// handles.
    pub fn client(mut self, client: Client) -> Self {
        if self.admits("a client") {
            self.client = Some(client);
        }
        self
    }

    /// Registers a blueprint below a prefix; `""` means none.
    pub fn register(mut self, blueprint: Blueprint<S>, prefix: impl Into<String>) -> Self {
        let outcome = self.register_blueprint(blueprint, prefix);
        self.refusals.extend(outcome.err());
        self
    }

    /// Registers a blueprint under another name; so one blueprint can be registered several times.
    pub fn register_as(
        self,
        mut blueprint: Blueprint<S>,
        name: impl Into<String>,
        prefix: impl Into<String>,
    ) -> Self {
        blueprint.name = name.into();
        self.register(blueprint, prefix)
    }

    /// Registers a blueprint below a prefix.
    ///
    /// # Errors
    ///
    /// - Its name is empty or has a dot, or is taken.
    /// - It was told to register a handler for a code that is no error.
    /// - The app has been built.
    pub fn register_blueprint(
        &mut self,
        blueprint: Blueprint<S>,
        prefix: impl Into<String>,
    ) -> Result<(), SetupError> {
        self.open("a blueprint")?;
        check_blueprint(&blueprint)?;
        if self
            .blueprints
            .iter()
            .any(|(other, _)| other.name == blueprint.name)
        {
            return Err(SetupError::DuplicateBlueprint(blueprint.name));
        }
        take_app_wide(&blueprint, &mut self.scope);
        self.blueprints.push((blueprint, prefix.into()));
        Ok(())
    }

    /// Adds an extension.
    pub fn init(self, extension: &impl Extension) -> Self {
        extension.init_app(self)
    }

    /// Tells which handler would run for an error at a path, and why.
    ///
    /// The path chooses the blueprint by its prefix; whether there is a route is not checked, so a
    /// blueprint without a prefix is not found.
    /// For an error without a code and without a handler, the handler of the 500 that is made of
    /// it is told.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::Router;
    /// use backstop::{App, Blueprint, Caught, HttpError};
    ///
    /// let shop = Blueprint::new("shop", Router::new())
    ///     .error_handler_for(|e: Caught<HttpError>| async move { e });
    /// let app: App = App::new(Router::new())
    ///     .register(shop, "/shop")
    ///     .error_handler(404, |e: Caught| async move { e });
    ///
    /// let found = app.explain(HttpError::new(404), "/shop/cart");
    /// assert_eq!(found.scope(), Some("app"));
    /// assert_eq!(
    ///     found.to_string(),
    ///     "404 in shop: none\nthe handler for 404 in app runs: it is registered for the error's code",
    /// );
    /// ```
    #[track_caller]
    pub fn explain(&self, error: impl Into<Error>, path: &str) -> Explanation {
        let mut owner: Option<((usize, usize), Chain<'_, S>)> = None;
        for chain in self.chains() {
            let Some(fit) = fit(&chain.prefix, path) else {
                continue;
            };
            // Of equals the outermost and first: what is inside has the same prefix and more.
            if fit.0 > 0 && owner.as_ref().is_none_or(|(best, _)| fit > *best) {
                owner = Some((fit, chain));
            }
        }
        self.explain_in(owner.map(|(_, chain)| chain), &error.into())
    }

    /// Tells which handler was asked for a failure, whose blueprint is known.
    pub(crate) fn explain_failure(&self, failure: &Failure) -> Explanation {
        let chain = failure.blueprint().and_then(|blueprint| {
            self.chains()
                .into_iter()
                .find(|chain| chain.name() == blueprint)
        });
        self.explain_in(chain, failure.error())
    }

    fn explain_in(&self, chain: Option<Chain<'_, S>>, error: &Error) -> Explanation {
        let inner = chain.map(|chain| chain.scopes).unwrap_or_default();
        let mut scopes: Vec<(&str, &Table<Pending<S>>)> = inner
            .iter()
            .rev()
            .map(|(name, table)| (name.as_str(), *table))
            .collect();
        scopes.push(("app", &self.scope.table));
        let propagates = Switches::of(&self.config).is_ok_and(|switches| switches.propagates);
        explain::explain(&scopes, error, propagates, |pending| pending.on.to_string())
    }

    fn chains(&self) -> Vec<Chain<'_, S>> {
        let mut all = Vec::new();
        let app = Chain {
            prefix: String::new(),
            scopes: Vec::new(),
        };
        chains_inside(&self.blueprints, &app, &mut all);
        all
    }

    /// Changes the settings.
    ///
    /// Read when the app is built: `DEBUG`, `TESTING`, `PROPAGATE_EXCEPTIONS`,
    /// `TRAP_HTTP_EXCEPTIONS`, `TRAP_BAD_REQUEST_ERRORS`, `MAX_CONTENT_LENGTH`, `TRUSTED_HOSTS` as
    /// in Flask, and of our own `BARE_STATUS` (see [`BareStatus`](crate::BareStatus)),
    /// `REPORT_SERVER_ERRORS` (off: HTTP errors of 500 and above are not logged and reported) and
    /// `NEGOTIATE_ERROR_PAGES` (off: error pages are always HTML).
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        if self.admits("a setting") {
            change(&mut self.config);
        }
        self
    }

    /// Replaces the HTML of a default page: `404.html` for one code, `error.html` for all others.
    ///
    /// The setting `ERROR_TEMPLATES` names a directory with such files.
    /// A template (minijinja) sees `code`, `name`, `description`, `request_id`, `detail`,
    /// `method` and `path`.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::Router;
    /// use backstop::App;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> backstop::Result<()> {
    /// let app: App = App::new(Router::new())
    ///     .error_template("error.html", "<h1>{{ name }}</h1> {{ path }}");
    /// # use tower::ServiceExt;
    /// # let request = axum::http::Request::get("/a&b").body(axum::body::Body::empty())?;
    /// # let response = app.into_router()?.oneshot(request).await?;
    /// # assert_eq!(response.status(), 404);
    /// # let body = axum::body::to_bytes(response.into_body(), 1000).await?;
    /// # assert_eq!(body, "<h1>Not Found</h1> &#x2f;a&amp;b");
    /// # Ok(()) }
    /// ```
    pub fn error_template(mut self, name: impl Into<String>, source: impl Into<String>) -> Self {
        if self.admits("an error page") {
            let templates = self.templates.get_or_insert_with(Templates::new);
            let outcome = templates.add(name.into(), source.into());
            self.refusals.extend(outcome.err());
        }
        self
    }

    /// What was registered but can never run, in words; also logged when the app is built.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = warnings_of(&self.scope, "app");
        for (blueprint, _) in &self.blueprints {
            warnings_in(blueprint, "", &mut warnings);
        }
        warnings
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings, to load files or set values.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Provides the state, as `Router::with_state`; handlers and hooks get it too.
    pub fn with_state<T: Clone + Send + Sync + 'static>(self, state: S) -> App<T> {
        App {
            scope: self.scope.with_state(&state),
            blueprints: self
                .blueprints
                .into_iter()
                .map(|(blueprint, prefix)| (blueprint.with_state(&state), prefix))
                .collect(),
            router: self.router.with_state(state),
            listeners: self.listeners,
            reporters: self.reporters,
            client: self.client,
            config: self.config,
            templates: self.templates,
            refusals: self.refusals,
            built: self.built,
        }
    }

    fn open(&self, what: &'static str) -> Result<(), SetupError> {
        if self.built {
            Err(SetupError::AlreadyBuilt(what))
        } else {
            Ok(())
        }
    }

    /// Tells whether something can still be registered; the refusal is told by the next build.
    fn admits(&mut self, what: &'static str) -> bool {
        let outcome = self.open(what);
        let admitted = outcome.is_ok();
        self.refusals.extend(outcome.err());
        admitted
    }
}

impl App {
    /// Puts everything together into an axum router.
    ///
    /// # Errors
    ///
    /// The first registration that was refused, or routes that contradict each other.
    pub fn into_router(mut self) -> Result<Router, SetupError> {
        self.build()
    }

    /// Puts everything together and keeps the app, which from now on refuses registrations.
    ///
    /// # Errors
    ///
    /// As [`App::into_router`].
    pub fn build(&mut self) -> Result<Router, SetupError> {
        if let Some(refusal) = self.refusals.first() {
            return Err(refusal.clone());
        }
        let switches =
            Switches::of(&self.config).map_err(|error| SetupError::Setting(error.to_string()))?;
        for warning in self.warnings() {
            tracing::warn!(target: "backstop::setup", "{warning}");
        }
        let mut templates = self.templates.clone();
        if let Some(directory) = self.config.text("ERROR_TEMPLATES") {
            let templates = templates.get_or_insert_with(Templates::new);
            templates.add_directory(directory.as_ref())?;
        }
        self.built = true;
        panic::install_hook();
        if !self.reporters.is_empty() {
            crate::capture::warm_up();
        }
        let app_scope = self.scope.clone();
        let wants_extensions =
            app_scope.extracts || self.blueprints.iter().any(|(child, _)| extracts(child));
        let app_table = Arc::new(finish(app_scope.table));
        let core = Arc::new(Core {
            ready_codes: ready_codes(&switches, templates.is_some(), &app_table),
            switches,
            listeners: self.listeners.clone(),
            reporters: self.reporters.clone(),
            client: self.client.clone(),
            wants_extensions,
            templates,
        });
        let mut app = Around {
            core,
            name: None,
            tables: vec![app_table],
            hooks: vec![app_scope.hooks],
            app: None,
        };
        let place = Arc::new(app.place());
        app.app = Some(Arc::clone(&place));
        let mut router = self.router.clone().layer(PlaceLayer(place));
        let content_length_max = app.core.switches.content_length_max;
        for (blueprint, prefix) in &self.blueprints {
            router = mount(router, blueprint, "", prefix, &app)?;
        }
        if let Some(bytes_max) = content_length_max {
            router = router.layer(DefaultBodyLimit::max(bytes_max));
        }
        // Handlers become routes now, and not for every request.
        Ok(router.with_state(()))
    }
}

impl<S> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("blueprints", &self.blueprints)
            .field("config", &self.config)
            .field("refusals", &self.refusals)
            .field("built", &self.built)
            .finish_non_exhaustive()
    }
}

/// A blueprint with those around it.
#[derive(Clone)]
struct Chain<'a, S> {
    prefix: String,
    /// Dotted names and handlers, outermost first.
    scopes: Vec<(String, &'a Table<Pending<S>>)>,
}

impl<S> Chain<'_, S> {
    /// The dotted name of the innermost blueprint.
    fn name(&self) -> &str {
        self.scopes.last().map_or("", |(name, _)| name.as_str())
    }
}

/// Lists blueprints and all inside them, each before its children.
fn chains_inside<'a, S: Clone>(
    blueprints: &'a [(Blueprint<S>, String)],
    outer: &Chain<'a, S>,
    all: &mut Vec<Chain<'a, S>>,
) {
    for (blueprint, prefix) in blueprints {
        let mut chain = outer.clone();
        chain.prefix.push_str(prefix.trim_end_matches('/'));
        let name = match outer.name() {
            "" => blueprint.name.clone(),
            outer => format!("{outer}.{}", blueprint.name),
        };
        chain.scopes.push((name, &blueprint.scope.table));
        all.push(chain.clone());
        chains_inside(&blueprint.children, &chain, all);
    }
}

/// How well a prefix fits a path: how many segments it has, and how many of them are no
/// `{captures}`. `None` if it does not fit.
fn fit(prefix: &str, path: &str) -> Option<(usize, usize)> {
    let mut segments = path.split('/').skip(1);
    let mut fit = (0, 0);
    for wanted in prefix.split('/').skip(1) {
        let segment = segments.next()?;
        let is_capture = wanted.starts_with('{') && !wanted.starts_with("{{");
        if is_capture {
            (!segment.is_empty()).then_some(())?;
        } else {
            (segment == wanted).then_some(())?;
            fit.1 += 1;
        }
        fit.0 += 1;
    }
    Some(fit)
}

/// Refuses a blueprint that was named or set up wrongly, or that has such a child.
fn check_blueprint<S>(blueprint: &Blueprint<S>) -> Result<(), SetupError> {
    if blueprint.name.is_empty() || blueprint.name.contains('.') {
        return Err(SetupError::BlueprintName(blueprint.name.clone()));
    }
    if let Some(refusal) = blueprint.refusals.first() {
        return Err(refusal.clone());
    }
    let mut names = HashSet::new();
    for (child, _) in &blueprint.children {
        check_blueprint(child)?;
        if !names.insert(&child.name) {
            return Err(SetupError::DuplicateBlueprint(child.name.clone()));
        }
    }
    Ok(())
}

/// The handlers of a scope that can never run.
fn warnings_of<S>(scope: &Scope<S>, name: &str) -> Vec<String> {
    scope
        .replaced
        .iter()
        .map(|on| format!("of two handlers for {on} in {name} the first never runs"))
        .chain(scope.unreachable.iter().map(|on| {
            format!("the handler for exactly {on} in {name} never runs: {on} has no values")
        }))
        .collect()
}

/// Tells whether a blueprint or one inside it has routes.
fn has_routes<S: Clone + Send + Sync + 'static>(blueprint: &Blueprint<S>) -> bool {
    blueprint.router.has_routes()
        || blueprint
            .children
            .iter()
            .any(|(child, _)| has_routes(child))
}

fn warnings_in<S: Clone + Send + Sync + 'static>(
    blueprint: &Blueprint<S>,
    outer: &str,
    warnings: &mut Vec<String>,
) {
    let name = format!("{outer}{}", blueprint.name);
    warnings.extend(warnings_of(&blueprint.scope, &name));
    warnings.extend(warnings_of(&blueprint.app_wide, &name));
    if !has_routes(blueprint) && blueprint.scope.has_handlers() {
        warnings.push(format!(
            "the handlers of {name} never run: it has no routes (app_error_handler is for the whole app)"
        ));
    }
    for (child, _) in &blueprint.children {
        warnings_in(child, &format!("{name}."), warnings);
    }
}

/// Gives the app what blueprints registered for the whole of it.
fn take_app_wide<S: Clone + Send + Sync + 'static>(blueprint: &Blueprint<S>, app: &mut Scope<S>) {
    app.absorb(&blueprint.app_wide);
    for (child, _) in &blueprint.children {
        take_app_wide(child, app);
    }
}

fn extracts(blueprint: &Blueprint) -> bool {
    blueprint.scope.extracts || blueprint.children.iter().any(|(child, _)| extracts(child))
}

fn finish(table: Table<Pending<()>>) -> Table<Handler> {
    table.map(|pending| Handler {
        function: pending.function,
        on: pending.on,
    })
}

/// A scope with those around it.
struct Around {
    core: Arc<Core>,
    name: Option<String>,
    /// Innermost first, the app last.
    tables: Vec<Arc<Table<Handler>>>,
    /// The app first, innermost last.
    hooks: Vec<Hooks<()>>,
    /// The place of the app, once it is made.
    app: Option<Arc<Place>>,
}

impl Around {
    fn inside(&self, blueprint: &Blueprint) -> Self {
        let name = match &self.name {
            Some(name) => format!("{name}.{}", blueprint.name),
            None => blueprint.name.clone(),
        };
        let table = Arc::new(finish(blueprint.scope.table.clone()));
        let mut tables = vec![table];
        tables.extend(self.tables.iter().cloned());
        let mut hooks = self.hooks.clone();
        hooks.push(blueprint.scope.hooks.clone());
        Self {
            core: Arc::clone(&self.core),
            name: Some(name),
            tables,
            hooks,
            app: self.app.clone(),
        }
    }

    /// Tells whether a blueprint has hooks.
    fn has_own_hooks(&self) -> bool {
        self.hooks.iter().skip(1).any(|hooks| !hooks.is_empty())
    }

    /// The functions in the order in which they run: before hooks from the app inwards, after
    /// and teardown hooks from the innermost blueprint outwards, each last registered first.
    fn place(&self) -> Place {
        let outwards = || self.hooks.iter().rev();
        Place {
            core: Arc::clone(&self.core),
            blueprint: self.name.as_deref().map(Arc::from),
            tables: self.tables.clone(),
            prepared: prepared(&self.tables),
            before: self.hooks.iter().flat_map(|h| h.before.clone()).collect(),
            after: outwards()
                .flat_map(|h| h.after.iter().rev().cloned())
                .collect(),
            teardown: outwards()
                .flat_map(|h| h.teardown.iter().rev().cloned())
                .collect(),
            app: self.app.clone(),
            methods: None,
        }
    }
}

/// What a panic said; where it was does not help whoever wrote the routes.
fn words_of(error: &Error) -> String {
    match error.panic() {
        Some(panic) => panic.message().to_owned(),
        None => error.to_string(),
    }
}

/// Adds a blueprint's routes, and those of the blueprints inside it, to a router.
fn mount(
    router: Router,
    blueprint: &Blueprint,
    outer_prefix: &str,
    prefix: &str,
    around: &Around,
) -> Result<Router, SetupError> {
    let around = around.inside(blueprint);
    let prefix = format!("{outer_prefix}{}", prefix.trim_end_matches('/'));
    let mut place = around.place();
    let routes = blueprint.router.clone();
    // The layer is outside of the nesting, which hides the prefix from what is inside.
    // axum refuses contradicting routes and malformed prefixes by panicking.
    let combine = || {
        let routes = match prefix.as_str() {
            "" => routes,
            prefix => Router::new().nest(prefix, routes),
        };
        if around.has_own_hooks() {
            place.methods = Some(Methods::of(routes.clone()));
        }
        router.merge(routes.layer(PlaceLayer(Arc::new(place))))
    };
    let mut router = panic::catch(combine).map_err(|error| SetupError::Routes(words_of(&error)))?;
    for (child, child_prefix) in &blueprint.children {
        router = mount(router, child, &prefix, child_prefix, &around)?;
    }
    Ok(router)
}
