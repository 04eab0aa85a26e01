//! Exceptions and threads.

use serde_json::Value;

use crate::encode::{Encode, Members, serialize_encoded};
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;
use crate::{Object, Stacktrace};

/// One exception of a chain.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/exception/>.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exception {
    /// The type's name; missing for a message that carries a stack.
    pub ty: Option<String>,
    /// The text of the exception.
    pub value: Option<String>,
    /// The module in which the type is defined.
    pub module: Option<String>,
    /// The stack when it was raised.
    pub stacktrace: Option<Stacktrace>,
    /// The stack before names were recovered.
    pub raw_stacktrace: Option<Stacktrace>,
    /// The thread that raised it.
    pub thread_id: Option<Value>,
    /// How the client came to know of it.
    pub mechanism: Option<Mechanism>,
    /// Fields that this version does not know.
    pub other: Object,
}

/// How the client came to know of an exception, and its place in a group of exceptions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mechanism {
    /// For example `flask`, `panic`, `onunhandledrejection`, `chained`.
    pub ty: Option<String>,
    /// Whether user code handled the exception.
    pub handled: Option<bool>,
    /// The exception was made only to carry a stack; its type says nothing.
    pub synthetic: Option<bool>,
    /// Where in the parent this exception was found: `__cause__`, `__context__`, `errors[1]`, `cause`.
    pub source: Option<String>,
    /// This exception's number in the tree; the root is 0.
    pub exception_id: Option<i64>,
    /// The parent's number.
    pub parent_id: Option<i64>,
    /// This exception only groups its children.
    pub is_exception_group: Option<bool>,
    /// More about the mechanism.
    pub data: Option<Value>,
    /// Fields that this version does not know (`meta`, `description`, `help_link`, …).
    pub other: Object,
}

/// One thread of the process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thread {
    /// Number or text, as the sender's runtime has it.
    pub id: Option<Value>,
    /// The thread's name.
    pub name: Option<String>,
    /// The thread failed.
    pub crashed: Option<bool>,
    /// The thread made the report.
    pub current: Option<bool>,
    /// Its stack.
    pub stacktrace: Option<Stacktrace>,
    /// Fields that this version does not know.
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

impl Encode for Exception {
    fn encode(&self, out: &mut Vec<u8>) {
        let Exception {
            ty,
            value,
            module,
            stacktrace,
            raw_stacktrace,
            thread_id,
            mechanism,
            other,
        } = self;
        Members::new(out)
            .member("type", ty)
            .member("value", value)
            .member("module", module)
            .member("stacktrace", stacktrace)
            .member("raw_stacktrace", raw_stacktrace)
            .member("thread_id", thread_id)
            .member("mechanism", mechanism)
            .all(other)
            .end();
    }
}

impl Encode for Mechanism {
    fn encode(&self, out: &mut Vec<u8>) {
        let Mechanism {
            ty,
            handled,
            synthetic,
            source,
            exception_id,
            parent_id,
            is_exception_group,
            data,
            other,
        } = self;
        Members::new(out)
            .member("type", ty)
            .member("handled", handled)
            .member("synthetic", synthetic)
            .member("source", source)
            .member("exception_id", exception_id)
            .member("parent_id", parent_id)
            .member("is_exception_group", is_exception_group)
            .member("data", data)
            .all(other)
            .end();
    }
}

impl Encode for Thread {
    fn encode(&self, out: &mut Vec<u8>) {
        let Thread {
            id,
            name,
            crashed,
            current,
            stacktrace,
            other,
        } = self;
        Members::new(out)
            .member("id", id)
            .member("name", name)
            .member("crashed", crashed)
            .member("current", current)
            .member("stacktrace", stacktrace)
            .all(other)
            .end();
    }
}

serialize_encoded!(Exception, Mechanism, Thread);
deserialize_leniently!(Exception, Mechanism, Thread);
