//! Integration tests, a module per subject.

mod grouping;
mod scratch;
mod store;
