//! An error tracker in one process and one file that any Sentry SDK can send to.

#![forbid(unsafe_code)]

pub mod digest;
pub mod grouping;
pub mod model;
pub mod store;

mod alert;
mod codec;
mod retention;
