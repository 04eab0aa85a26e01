//! Configuration files: their languages, and how each becomes a plain value.

use std::path::Path;

use serde_json::Value;

use super::{ConfigError, ConfigErrorKind, Object, yaml};

/// Larger files are no settings: reading one would only fill the memory.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The languages of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// YAML, with the words of YAML 1.1 (`yes`, `off`, …) as flags.
    Yaml,
    /// JSON.
    Json,
    /// TOML.
    Toml,
}

impl Format {
    pub(super) fn of(path: &Path) -> Result<Format, ConfigError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("yaml" | "yml") => Ok(Format::Yaml),
            Some("json") => Ok(Format::Json),
            Some("toml") => Ok(Format::Toml),
            _ => Err(ConfigError::new(
                ConfigErrorKind::Format,
                format!("cannot tell the language of {}", path.display()),
            )
            .hint("name it .yaml, .json or .toml, or read it yourself and call load_str")),
        }
    }
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ConfigErrorKind::Missing,
            _ => ConfigErrorKind::Unreadable,
        };
        ConfigError::new(kind, format!("cannot read {}: {error}", path.display()))
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        let message = format!(
            "{} has {length} bytes, more than the {FILE_BYTES_MAX} that a configuration may have",
            path.display()
        );
        return Err(ConfigError::new(ConfigErrorKind::Unreadable, message));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Reads one YAML document by the rules of configuration files, as a value.
///
/// The words and numbers are those of YAML 1.1, as PyYAML's `safe_load` reads them (`1:30` is
/// ninety), except that dates, `.inf` and `.nan` stay text.
///
/// # Errors
///
/// [`ConfigErrorKind::Syntax`], with line and column: malformed YAML, a second document, a key that
/// stands twice, a tag that is no plain type, too many values.
///
/// # Example
///
/// ```
/// let value = backstop::config::value_of_yaml("listen: 127.0.0.1:9000\nquiet: yes\n")?;
/// assert_eq!(value, serde_json::json!({"listen": "127.0.0.1:9000", "quiet": true}));
/// # Ok::<(), backstop::config::ConfigError>(())
/// ```
pub fn value_of_yaml(text: &str) -> Result<Value, ConfigError> {
    parse(text, Format::Yaml)
}

pub(super) fn parse(text: &str, format: Format) -> Result<Value, ConfigError> {
    let syntax = |message: String| ConfigError::new(ConfigErrorKind::Syntax, message);
    match format {
        Format::Yaml => {
            yaml::read(text).map_err(|error| syntax(format!("malformed YAML: {error}")))
        }
        Format::Json => {
            serde_json::from_str(text).map_err(|error| syntax(format!("malformed JSON: {error}")))
        }
        Format::Toml => text
            .parse::<toml::Table>()
            .map(|table| from_toml(toml::Value::Table(table)))
            .map_err(|error| syntax(format!("malformed TOML: {}", error.message()))),
    }
}

/// TOML has dates and `inf` and `nan`, which become text, and otherwise what JSON has.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) if number.is_nan() => Value::String("nan".to_owned()),
        toml::Value::Float(number) if number.is_infinite() => Value::String(number.to_string()),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(on) => Value::Bool(on),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => items.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(key, value)| (key, from_toml(value)))
            .collect(),
    }
}

pub(super) fn top_level(value: Value) -> Result<Option<Object>, ConfigError> {
    match value {
        Value::Object(object) => Ok(Some(object)),
        Value::Null => Ok(None),
        other => Err(ConfigError::new(
            ConfigErrorKind::Shape,
            format!(
                "the top level must be a mapping, but is {}",
                describe(&other)
            ),
        )
        .hint("write settings as KEY: value")),
    }
}

pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
