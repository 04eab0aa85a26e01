//! Error handling for axum services: handlers by code and type, pages, debugger, mail, reports.
//!
//! ```
//! use axum::{Router, http::StatusCode, routing::get};
//! use backstop::{App, Caught, HttpError, Result, http_error};
//!
//! http_error!(pub struct InsufficientStorage(507, "Not enough storage space."));
//!
//! async fn upload() -> Result<String> {
//!     std::fs::metadata("/no/such/disk")?; // any error type; the line of this `?` is kept
//!     Err(InsufficientStorage)?
//! }
//!
//! async fn full(e: Caught<InsufficientStorage>) -> (StatusCode, String) {
//!     (e.status(), format!("507: {}", e.description()))
//! }
//!
//! async fn missing(e: Caught<backstop::io::FileNotFound>) -> (StatusCode, String) {
//!     (StatusCode::NOT_FOUND, format!("no disk: {e}"))
//! }
//!
//! # fn main() -> Result<()> {
//! let app: Router = App::new(Router::new().route("/upload", get(upload)))
//!     .error_handler_for(full)
//!     .error_handler_for(missing)
//!     .into_router()?;
//! # let _ = app; Ok(()) }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "web"),
    expect(
        dead_code,
        unused_imports,
        reason = "what only the web module uses of its neighbours"
    )
)]

mod capture;
pub mod config;
mod error;
mod event;
mod http_error;
pub mod io;
mod kind;
#[cfg(feature = "web")]
pub mod log;
pub mod mail;
mod panic;
pub mod report;
pub mod stacktrace;
#[cfg(feature = "web")]
mod web;

pub use error::{Error, Result};
pub use http_error::{HttpError, UnknownCode, abort, errors, name_of};
pub use kind::{InvalidParents, Kind};
pub use panic::Panic;
#[cfg(feature = "web")]
pub use web::{
    Address, AfterHook, AfterOutcome, App, BareStatus, BeforeHook, BeforeOutcome, Blueprint, Catch,
    Caught, Code, ErrorHandler, Exact, Explanation, Extension, Failure, Format, FromFailure, Plan,
    Propagated, Run, RunError, SetupError, TeardownOutcome, attach, extract, format_for, init_app,
    serve, serve_until, testing,
};

/// Guides for people who come from somewhere.
pub mod guide {
    #[doc = include_str!("../docs/from_flask.md")]
    pub mod from_flask {}

    #[doc = include_str!("../docs/from_axum.md")]
    pub mod from_axum {}
}

/// What the macros write. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::kind::{Declared, last_segment};
    #[cfg(feature = "web")]
    pub use crate::web::Lookup;

    /// The first of its arguments.
    #[doc(hidden)]
    #[macro_export]
    macro_rules! __first {
        ($first:expr $(, $rest:expr)* $(,)?) => {
            $first
        };
    }
    pub use crate::__first as first;
}
