//! The wire format of Sentry-compatible error tracking: DSN, authentication, envelope and event.
//!
//! Bytes go in, plain data comes out, and the other way round.
//! Reading is lenient (nonsense in one field never loses the event), writing is canonical.
//! Nothing here does I/O, reads a clock, or panics on any input, and fields that are not known
//! are kept in `other`.
//!
//! The format is the one of Sentry's SDKs: <https://develop.sentry.dev/sdk/>.

#![forbid(unsafe_code)]

mod auth;
mod breadcrumb;
mod dsn;
mod encode;
mod envelope;
mod error;
mod event;
mod event_id;
mod exception;
mod in_app;
mod json;
mod lazy;
mod lenient;
mod level;
mod plain;
mod request;
mod scan;
pub mod secret;
mod stacktrace;
mod timestamp;
mod user;

pub use auth::{Auth, ParseAuthError, query_pairs};
pub use breadcrumb::Breadcrumb;
pub use dsn::{Dsn, ParseDsnError};
pub use envelope::{
    Envelope, EnvelopeError, EnvelopeErrorKind, EnvelopeHeader, Item, ItemHeader, Items,
};
pub use error::DecodeError;
pub use event::{Event, EventType, Message, Sdk};
pub use event_id::{EventId, ParseEventIdError};
pub use exception::{Exception, Mechanism, Thread};
pub use in_app::in_app;
pub use lazy::{Lazy, Unread};
pub use level::{Level, ParseLevelError};
pub use plain::Piece;
pub use request::Request;
pub use stacktrace::{Frame, Stacktrace};
pub use timestamp::{ParseTimestampError, Timestamp};
pub use user::User;

/// A JSON object whose keys keep the order in which they were sent.
pub type Object = serde_json::Map<String, serde_json::Value>;
