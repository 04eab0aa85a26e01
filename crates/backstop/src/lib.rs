//! Error handling for axum services: handlers by code and type, pages, debugger, mail, reports.
#![forbid(unsafe_code)]

pub mod mail;
