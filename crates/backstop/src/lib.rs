//! backstop.
