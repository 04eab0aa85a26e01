//! Behaviour of the library as its users see it.

mod debugger;
mod flask_cases;
mod program;
mod reload;
mod report;
mod serve;
mod stacktrace;
mod web;
