//! Integration tests, a module per subject.

mod grouping;
