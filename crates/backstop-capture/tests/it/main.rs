//! Tests through the public door.

mod stack;
mod variables;
