//! backstop-capture.
