//! Exceptions and threads.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Object, Stacktrace};

/// One exception of a chain.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/exception/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exception {
    /// The type's name; missing for a message that carries a stack.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
    /// The text of the exception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The module in which the type is defined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The stack when it was raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacktrace: Option<Stacktrace>,
    /// The stack before names were recovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_stacktrace: Option<Stacktrace>,
    /// The thread that raised it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<Value>,
    /// How the client came to know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

/// How the client came to know of an exception, and its place in a group of exceptions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mechanism {
    /// For example `flask`, `panic`, `onunhandledrejection`, `chained`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
    /// Whether user code handled the exception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled: Option<bool>,
    /// The exception was made only to carry a stack; its type says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<bool>,
    /// Where in the parent this exception was found: `__cause__`, `__context__`, `errors[1]`, `cause`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// This exception's number in the tree; the root is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception_id: Option<i64>,
    /// The parent's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<i64>,
    /// This exception only groups its children.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_exception_group: Option<bool>,
    /// More about the mechanism.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Fields that this version does not know (`meta`, `description`, `help_link`, …).
    #[serde(flatten)]
    pub other: Object,
}

/// One thread of the process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// Number or text, as the sender's runtime has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// The thread's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The thread failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crashed: Option<bool>,
    /// The thread made the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// Its stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacktrace: Option<Stacktrace>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}
