//! Behaviour of the library as its users see it.

mod flask_cases;
mod report;
mod web;
