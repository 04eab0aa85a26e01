//! Stack traces and frames.

use serde::Serialize;
use serde_json::Value;

use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;
use crate::{Lazy, Object};

/// The calls that were active, oldest (outermost) first.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/stacktrace/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Stacktrace {
    /// Outermost first; the failing call is last.
    pub frames: Vec<Frame>,
    /// Values of the processor's registers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

/// One call on the stack, possibly inlined.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Frame {
    /// The function's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The name before it was shortened or demangled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_function: Option<String>,
    /// The module or namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The package, library or binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The source file, relative to the project where possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The source file with its full path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abs_path: Option<String>,
    /// The line in the source file, starting at 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineno: Option<u64>,
    /// The column, starting at 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colno: Option<u64>,
    /// The source lines before `context_line`.
    #[serde(skip_serializing_if = "Lazy::<Vec<String>>::is_empty")]
    pub pre_context: Lazy<Vec<String>>,
    /// The source line at `lineno`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_line: Option<String>,
    /// The source lines after `context_line`.
    #[serde(skip_serializing_if = "Lazy::<Vec<String>>::is_empty")]
    pub post_context: Lazy<Vec<String>>,
    /// The frame is the user's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_app: Option<bool>,
    /// Local variables by name, as sent.
    #[serde(skip_serializing_if = "Lazy::<Object>::is_empty")]
    pub vars: Lazy<Object>,
    /// The address of the instruction, as hex text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction_addr: Option<String>,
    /// What people and rules noted beside the frame (`orig_in_app`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Object,
}

impl Stacktrace {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Stacktrace, Syntax> {
        let mut stacktrace = Stacktrace::default();
        reader.object(|reader, key| match key {
            "frames" => reader.elements(&mut stacktrace.frames, Frame::read),
            "registers" => reader.any(&mut stacktrace.registers),
            _ => reader.member(key, &mut stacktrace.other),
        })?;
        Ok(stacktrace)
    }

    /// Takes a stack trace, also as the bare list of its frames.
    pub(crate) fn read_into(
        reader: &mut Reader<'_>,
        field: &mut Option<Stacktrace>,
    ) -> Result<(), Syntax> {
        if reader.peek() != b'[' {
            return reader.one(field, Stacktrace::read);
        }
        let mut stacktrace = Stacktrace::default();
        reader.below("frames", |reader| {
            reader.elements(&mut stacktrace.frames, Frame::read)
        })?;
        *field = Some(stacktrace);
        Ok(())
    }
}

impl Frame {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Frame, Syntax> {
        let mut frame = Frame::default();
        reader.object(|reader, key| match key {
            "function" => reader.text(&mut frame.function),
            "raw_function" => reader.text(&mut frame.raw_function),
            "module" => reader.text(&mut frame.module),
            "package" => reader.text(&mut frame.package),
            "filename" => reader.text(&mut frame.filename),
            "abs_path" => reader.text(&mut frame.abs_path),
            "lineno" => reader.count(&mut frame.lineno),
            "colno" => reader.count(&mut frame.colno),
            "pre_context" => reader.lazy_lines(&mut frame.pre_context),
            "context_line" => reader.text(&mut frame.context_line),
            "post_context" => reader.lazy_lines(&mut frame.post_context),
            "in_app" => reader.truth(&mut frame.in_app),
            "vars" => reader.lazy_map(&mut frame.vars),
            "instruction_addr" => reader.text(&mut frame.instruction_addr),
            "data" => reader.any(&mut frame.data),
            _ => reader.member(key, &mut frame.other),
        })?;
        Ok(frame)
    }
}

deserialize_leniently!(Stacktrace, Frame);
