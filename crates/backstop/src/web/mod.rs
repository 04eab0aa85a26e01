//! Flask's error handling for axum.
//!
//! Reading order: `app` and `blueprint` (registering), `caught` and `function` (what a handler
//! is), `handlers` (which one answers), `layer` (the way of a request), `facts` (what is kept of it),
//! `respond` (what happens to an error), `page`.

mod app;
mod blueprint;
mod carried;
mod caught;
mod debugger;
mod explain;
pub mod extract;
mod facts;
mod failure;
mod function;
mod handlers;
mod layer;
mod methods;
mod page;
mod reload;
mod report;
mod respond;
mod scope;
mod serve;
mod stream;
mod switches;
mod template;
pub mod testing;

pub use app::{App, Extension, init_app};
pub use blueprint::Blueprint;
pub use carried::{Propagated, attach};
pub use caught::{Catch, Caught, Exact, FromFailure};
pub use explain::Explanation;
pub(crate) use facts::RequestFacts;
pub use failure::Failure;
pub use function::{AfterHook, AfterOutcome, BeforeHook, BeforeOutcome, ErrorHandler};
#[doc(hidden)]
pub use handlers::Lookup;
pub use page::{Format, format_for};
pub(crate) use report::event_of;
pub use scope::{Code, SetupError, TeardownOutcome};
pub use serve::{Address, Plan, Run, RunError, serve, serve_until};
pub use switches::BareStatus;
