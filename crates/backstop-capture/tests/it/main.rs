//! Tests through the public door.

mod forms;
mod seccomp;
mod stack;
mod variables;
