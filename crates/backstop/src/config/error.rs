//! Why a configuration could not be loaded or read.

use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration could not be loaded or read.
#[derive(Debug)]
pub struct ConfigError(Box<Repr>);

#[derive(Debug)]
struct Repr {
    kind: ConfigErrorKind,
    file: Option<PathBuf>,
    message: String,
    hint: Option<&'static str>,
}

/// Why a configuration could not be loaded or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// The file does not exist.
    Missing,
    /// The file cannot be read.
    Unreadable,
    /// The file's name does not tell its language.
    Format,
    /// The text is malformed.
    Syntax,
    /// The text is well formed but is no mapping where it has to be one.
    Shape,
    /// A value is not of the type that was asked for.
    Value,
    /// The environment variable that should name a file is not set.
    Variable,
}

impl ConfigError {
    /// A value that cannot be used, in words.
    #[cfg(feature = "web")]
    pub(crate) fn of_value(message: String) -> Self {
        Self::new(ConfigErrorKind::Value, message)
    }

    pub(super) fn new(kind: ConfigErrorKind, message: String) -> ConfigError {
        ConfigError(Box::new(Repr {
            kind,
            file: None,
            message,
            hint: None,
        }))
    }

    pub(super) fn hint(mut self, hint: &'static str) -> ConfigError {
        self.0.hint = Some(hint);
        self
    }

    pub(super) fn within(mut self, file: &Path) -> ConfigError {
        self.0.file = Some(file.to_owned());
        self
    }

    /// Returns why it failed.
    pub fn kind(&self) -> ConfigErrorKind {
        self.0.kind
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(&self.0.message)?;
        match self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}
