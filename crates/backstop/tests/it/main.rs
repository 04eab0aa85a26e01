//! Behaviour of the library as its users see it.

mod report;
