//! Tests through the public door.

mod allocator;
mod forms;
mod seccomp;
mod stack;
mod variables;
