//! Exceptions and threads.

use serde::Serialize;
use serde_json::Value;

use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;
use crate::{Object, Stacktrace};

/// One exception of a chain.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/exception/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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

impl Exception {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Exception, Syntax> {
        let mut exception = Exception::default();
        reader.object(|reader, key| match key {
            "type" => reader.text_of_any(&mut exception.ty),
            "value" => reader.text_of_any(&mut exception.value),
            "module" => reader.text(&mut exception.module),
            "stacktrace" => Stacktrace::read_into(reader, &mut exception.stacktrace),
            "raw_stacktrace" => Stacktrace::read_into(reader, &mut exception.raw_stacktrace),
            "thread_id" => reader.any(&mut exception.thread_id),
            "mechanism" => Mechanism::read_into(reader, &mut exception.mechanism),
            _ => reader.member(key, &mut exception.other),
        })?;
        Ok(exception)
    }
}

impl Mechanism {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Mechanism, Syntax> {
        let mut mechanism = Mechanism::default();
        reader.object(|reader, key| match key {
            "type" => reader.text(&mut mechanism.ty),
            "handled" => reader.truth(&mut mechanism.handled),
            "synthetic" => reader.truth(&mut mechanism.synthetic),
            "source" => reader.text(&mut mechanism.source),
            "exception_id" => reader.number(&mut mechanism.exception_id),
            "parent_id" => reader.number(&mut mechanism.parent_id),
            "is_exception_group" => reader.truth(&mut mechanism.is_exception_group),
            "data" => reader.any(&mut mechanism.data),
            _ => reader.member(key, &mut mechanism.other),
        })?;
        Ok(mechanism)
    }

    /// Old clients send the mechanism's type alone.
    fn read_into(reader: &mut Reader<'_>, field: &mut Option<Mechanism>) -> Result<(), Syntax> {
        if reader.peek() != b'"' {
            return reader.one(field, Mechanism::read);
        }
        let mut mechanism = Mechanism::default();
        reader.text(&mut mechanism.ty)?;
        *field = Some(mechanism);
        Ok(())
    }
}

impl Thread {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Thread, Syntax> {
        let mut thread = Thread::default();
        reader.object(|reader, key| match key {
            "id" => reader.any(&mut thread.id),
            "name" => reader.text(&mut thread.name),
            "crashed" => reader.truth(&mut thread.crashed),
            "current" => reader.truth(&mut thread.current),
            "stacktrace" => Stacktrace::read_into(reader, &mut thread.stacktrace),
            _ => reader.member(key, &mut thread.other),
        })?;
        Ok(thread)
    }
}

deserialize_leniently!(Exception, Mechanism, Thread);
