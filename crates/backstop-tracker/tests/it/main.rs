//! The tracker through its public doors.

mod accounts;
mod alerts;
mod api;
mod bench;
mod cli;
mod crashes;
mod damage;
mod faults;
mod grouping;
mod ids;
mod ingest;
mod kill;
mod limits;
mod merge;
mod pages;
mod power_loss;
mod scratch;
mod sdk_corpus;
mod server;
mod store;
mod tags;
mod upkeep;
