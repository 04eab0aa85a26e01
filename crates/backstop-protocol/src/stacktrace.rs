//! Stack traces and frames.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Object;

/// The calls that were active, oldest (outermost) first.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/stacktrace/>.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_context: Vec<String>,
    /// The source line at `lineno`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_line: Option<String>,
    /// The source lines after `context_line`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_context: Vec<String>,
    /// The frame is the user's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_app: Option<bool>,
    /// Local variables by name, as sent.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub vars: Object,
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
