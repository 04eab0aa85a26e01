//! Behaviour of the library as its users see it.

mod answers;
mod debugger;
mod flask_cases;
mod program;
mod reload;
mod report;
mod serve;
mod stacktrace;
mod web;
