//! backstop-tracker.

#![forbid(unsafe_code)]

pub mod grouping;
