//! Error handling for axum services: handlers by code and type, pages, debugger, mail, reports.
#![forbid(unsafe_code)]

pub mod config;
mod event;
pub mod mail;
pub mod report;
pub mod stacktrace;
