//! Stack traces and frames.

use serde_json::Value;

use crate::encode::{Encode, Members, serialize_encoded};
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;
use crate::{Lazy, Object};

/// The calls that were active, oldest (outermost) first.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/stacktrace/>.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stacktrace {
    /// Outermost first; the failing call is last.
    pub frames: Vec<Frame>,
    /// Values of the processor's registers.
    pub registers: Option<Value>,
    /// Fields that this version does not know.
    pub other: Object,
}

/// One call on the stack, possibly inlined.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frame {
    /// The function's name.
    pub function: Option<String>,
    /// The name before it was shortened or demangled.
    pub raw_function: Option<String>,
    /// The module or namespace.
    pub module: Option<String>,
    /// The package, library or binary.
    pub package: Option<String>,
    /// The source file, relative to the project where possible.
    pub filename: Option<String>,
    /// The source file with its full path.
    pub abs_path: Option<String>,
    /// The line in the source file, starting at 1.
    pub lineno: Option<u64>,
    /// The column, starting at 1.
    pub colno: Option<u64>,
    /// The source lines before `context_line`.
    pub pre_context: Lazy<Vec<String>>,
    /// The source line at `lineno`.
    pub context_line: Option<String>,
    /// The source lines after `context_line`.
    pub post_context: Lazy<Vec<String>>,
    /// The frame is the user's own code.
    pub in_app: Option<bool>,
    /// Local variables by name, as sent.
    pub vars: Lazy<Object>,
    /// The address of the instruction, as hex text.
    pub instruction_addr: Option<String>,
    /// What people and rules noted beside the frame (`orig_in_app`, …).
    pub data: Option<Value>,
    /// Fields that this version does not know.
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

impl Encode for Stacktrace {
    fn encode(&self, out: &mut Vec<u8>) {
        let Stacktrace {
            frames,
            registers,
            other,
        } = self;
        Members::new(out)
            .always("frames", frames)
            .member("registers", registers)
            .all(other)
            .end();
    }
}

impl Encode for Frame {
    fn encode(&self, out: &mut Vec<u8>) {
        let Frame {
            function,
            raw_function,
            module,
            package,
            filename,
            abs_path,
            lineno,
            colno,
            pre_context,
            context_line,
            post_context,
            in_app,
            vars,
            instruction_addr,
            data,
            other,
        } = self;
        Members::new(out)
            .member("function", function)
            .member("raw_function", raw_function)
            .member("module", module)
            .member("package", package)
            .member("filename", filename)
            .member("abs_path", abs_path)
            .member("lineno", lineno)
            .member("colno", colno)
            .member("pre_context", pre_context)
            .member("context_line", context_line)
            .member("post_context", post_context)
            .member("in_app", in_app)
            .member("vars", vars)
            .member("instruction_addr", instruction_addr)
            .member("data", data)
            .all(other)
            .end();
    }
}

serialize_encoded!(Stacktrace, Frame);
deserialize_leniently!(Stacktrace, Frame);
