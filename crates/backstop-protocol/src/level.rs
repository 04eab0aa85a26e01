//! How bad an event is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How bad an event is, worst last.
///
/// # Example
///
/// ```
/// use backstop_protocol::Level;
///
/// assert_eq!("critical".parse(), Ok(Level::Fatal));
/// assert_eq!("40".parse(), Ok(Level::Error)); // Python's number
/// assert!(Level::Warning < Level::Error);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Level {
    /// Details for developers.
    Debug,
    /// Something happened as planned.
    Info,
    /// Something may become an error.
    Warning,
    /// Something failed; the default.
    #[default]
    Error,
    /// The program could not go on.
    Fatal,
}

/// A text names no level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseLevelError(());

impl Level {
    /// Returns the level's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = ParseLevelError;

    fn from_str(text: &str) -> Result<Level, ParseLevelError> {
        match text.to_ascii_lowercase().as_str() {
            "debug" | "trace" | "10" => Ok(Level::Debug),
            "info" | "log" | "20" => Ok(Level::Info),
            "warning" | "warn" | "30" => Ok(Level::Warning),
            "error" | "40" => Ok(Level::Error),
            "fatal" | "critical" | "50" => Ok(Level::Fatal),
            _ => Err(ParseLevelError(())),
        }
    }
}

impl fmt::Display for ParseLevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a level is fatal, error, warning, info or debug")
    }
}

impl std::error::Error for ParseLevelError {}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
