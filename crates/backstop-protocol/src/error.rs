//! What is wrong with bytes that cannot be decoded at all.

use std::fmt;

use crate::json::Syntax;

/// Bytes were not the JSON that was needed.
///
/// # Example
///
/// ```
/// let error = backstop_protocol::Event::decode(b"{\"level\": }").unwrap_err();
/// assert_eq!(error.to_string(), "expected a value at byte 10");
/// assert_eq!(error.offset(), 10);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(Syntax);

impl DecodeError {
    /// Returns the byte at which reading ended, counted from 0.
    pub fn offset(&self) -> usize {
        self.0.offset
    }
}

impl From<Syntax> for DecodeError {
    fn from(syntax: Syntax) -> DecodeError {
        DecodeError(syntax)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.0.expected, self.0.offset)
    }
}

impl std::error::Error for DecodeError {}
