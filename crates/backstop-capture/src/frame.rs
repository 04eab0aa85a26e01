//! Frames and their variables.

use crate::{State, Value};

/// One call on the stack; an inlined call is a frame of its own.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Frame {
    /// Where execution continues in this frame, as an address of this process.
    pub address: u64,
    /// The function's readable path: `shop::cart::price`.
    ///
    /// The compiler's `{async_fn#0}` is left out; [`is_async`](Self::is_async) tells.
    /// Missing when neither debug information nor a symbol names it.
    pub function: Option<String>,
    /// The function's name in the symbol table, as the linker knows it.
    pub symbol: Option<String>,
    /// The path of the module that holds the function: `shop::cart`.
    pub module: Option<String>,
    /// The crate of the function: `shop`.
    pub crate_name: Option<String>,
    /// The package the source file came from, where its path tells: `axum`, `0.8.9`.
    pub package: Option<Package>,
    /// The source file, absolute where the debug information says so.
    pub file: Option<String>,
    /// The line, counted from 1.
    pub line: Option<u32>,
    /// The column, counted from 1.
    pub column: Option<u32>,
    /// The line on which the function begins.
    pub function_line: Option<u32>,
    /// The call was inlined into the next frame.
    pub inlined: bool,
    /// The body of an `async fn` or `async` block.
    pub is_async: bool,
    /// What the frame is there for.
    pub role: Role,
    /// The policy's word on whether this is the user's code.
    pub in_app: bool,
    /// The object file that holds the code.
    pub image: Option<String>,
    /// The variables, in the order of their declaration.
    pub vars: Vec<Variable>,
    /// Why there are no variables where policy asked for them.
    pub vars_missing: Option<VarsMissing>,
}

/// A package and its version, as told by a registry path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Package {
    /// For example `axum`.
    pub name: String,
    /// For example `0.8.9`.
    pub version: String,
}

/// What a frame is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Role {
    /// User code or a library.
    #[default]
    Plain,
    /// The machinery of a panic or of an error conversion, innermost on the stack.
    Failure,
    /// An async runtime or a thread's start: polls, queues, `catch_unwind`, `main`'s caller.
    Runtime,
}

/// Why a frame shows no variables although policy asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VarsMissing {
    /// The unit was built without variables in its debug information.
    NoDebugInfo,
    /// A limit was reached before this frame.
    Limit,
    /// The capture failed, or no thread could be made to take it.
    Failed,
    /// This stack was captured too often within a second.
    RateLimit,
    /// This platform has no reader for variables.
    Platform,
}

/// A named local, argument or captured value of a frame.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Variable {
    /// The name in the source.
    pub name: String,
    /// What kind of variable.
    pub kind: Kind,
    /// The type's path; empty when unknown.
    pub type_name: String,
    /// The line of its declaration.
    pub line: Option<u32>,
    /// Where the value was found.
    pub origin: Origin,
    /// How far the value can be trusted.
    pub state: State,
    /// A later declaration of the same name hides this one.
    pub shadowed: bool,
    /// The value; [`Value::Missing`] with the state where there is none.
    pub value: Value,
    /// The value's first bytes, where [`Limits::raw_bytes`](crate::Limits::raw_bytes) asks for them.
    /// Bytes that were optimised out are 0.
    pub raw: Vec<u8>,
}

/// What kind of variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A parameter of the function.
    Argument,
    /// A `let`, or a binding of a pattern.
    Local,
    /// A value of the environment of a closure.
    Capture,
}

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// In memory at a place the debug information names.
    Memory,
    /// In a register, or partly.
    Register,
    /// Computed from debug information alone.
    Constant,
    /// In the state of a future.
    Coroutine,
    /// Recovered from the instructions before a call, the frame's own or its caller's.
    Caller,
    /// Nowhere.
    None,
}
