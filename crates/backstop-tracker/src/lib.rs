//! backstop-tracker.
