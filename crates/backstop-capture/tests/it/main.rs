//! Tests through the public door.

mod seccomp;
mod stack;
mod variables;
