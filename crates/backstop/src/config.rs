//! The settings of an application: upper-case keys with plain values.
//!
//! Values come from files (YAML, JSON, TOML), from environment variables with a prefix, from any
//! serialisable value and from pairs; what is loaded later wins, as in Flask.
//! Only keys in upper case are taken, and what was left out is remembered in
//! [`Config::warnings`], so a misspelt setting does not vanish silently.
//! A block `FLASK:` or `BACKSTOP:` at the top of a file is unwrapped.

mod error;
mod file;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::error::{ConfigError, ConfigErrorKind};
pub use self::file::{Format, value_of_yaml};
use self::file::{describe, parse, read, top_level};
use crate::report::scrub;

/// A JSON object whose keys keep their order.
pub type Object = serde_json::Map<String, Value>;

/// Blocks of a file whose content belongs to the top level.
const BLOCKS: [&str; 2] = ["FLASK", "BACKSTOP"];

/// Deeper nesting by `__` in a variable's name is a mistake.
const NESTING_MAX: usize = 16;

/// What a text has to be so that a flag is off.
const OFF: [&str; 7] = ["", "0", "false", "off", "no", "n", "f"];

/// What a text can be so that a flag is on without a doubt.
const ON: [&str; 6] = ["1", "true", "on", "yes", "y", "t"];

/// The settings that Backstop itself reads, with their defaults.
fn known() -> [(&'static str, Value); 24] {
    [
        ("DEBUG", Value::Bool(false)),
        ("TESTING", Value::Bool(false)),
        ("PROPAGATE_EXCEPTIONS", Value::Null),
        ("TRAP_HTTP_EXCEPTIONS", Value::Bool(false)),
        ("TRAP_BAD_REQUEST_ERRORS", Value::Null),
        ("MAX_CONTENT_LENGTH", Value::Null),
        ("SERVER_NAME", Value::Null),
        ("TRUSTED_HOSTS", Value::Null),
        ("BARE_STATUS", Value::Null),
        ("REPORT_SERVER_ERRORS", Value::Bool(true)),
        ("NEGOTIATE_ERROR_PAGES", Value::Bool(true)),
        ("ERROR_TEMPLATES", Value::Null),
        ("SECRET_KEY", Value::Null),
        ("DSN", Value::Null),
        ("ENVIRONMENT", Value::Null),
        ("RELEASE", Value::Null),
        ("DEBUG_ON_PUBLIC_ADDRESS", Value::Bool(false)),
        ("MAIL_SERVER", Value::Null),
        ("MAIL_PORT", Value::Null),
        ("MAIL_USERNAME", Value::Null),
        ("MAIL_PASSWORD", Value::Null),
        ("MAIL_FROM", Value::Null),
        ("MAIL_ADMINS", Value::Null),
        ("MAIL_SUBJECT", Value::Null),
    ]
}

/// The settings of an application.
///
/// # Example
///
/// The configuration of Flask's page, read and asked:
///
/// ```
/// use backstop::config::{Config, Format};
///
/// let mut config = Config::new();
/// config.load_str("FLASK:\n  DEBUG: True\n  DEBUG_WITH_LLDB: True\n", Format::Yaml)?;
/// assert!(config.debug());
/// let use_debugger = config.debug() && !config.flag("DEBUG_WITH_LLDB");
/// assert!(!use_debugger);
/// # Ok::<(), backstop::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    values: Object,
    warnings: Vec<String>,
}

/// How [`Config::namespace_with`] names what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    /// Return the keys in lower case.
    pub lower_case: bool,
    /// Return the keys without the prefix.
    pub trim: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

impl Config {
    /// Makes the settings with their defaults; the environment is not read.
    pub fn new() -> Config {
        let values = known()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Config {
            values,
            warnings: Vec::new(),
        }
    }

    /// Makes the settings with which an application starts: the defaults, and `DEBUG` from the
    /// variable `BACKSTOP_DEBUG`, or else `FLASK_DEBUG`.
    ///
    /// # Example
    ///
    /// ```
    /// use backstop::config::Config;
    ///
    /// let vars = |name: &str| (name == "FLASK_DEBUG").then(|| "off".to_owned());
    /// assert!(!Config::at_start(vars).debug()); // Flask takes "off" for on
    /// ```
    pub fn at_start(vars: impl Fn(&str) -> Option<String>) -> Config {
        let mut config = Config::new();
        let text = vars("BACKSTOP_DEBUG").or_else(|| vars("FLASK_DEBUG"));
        if let Some(text) = text {
            config.set("DEBUG", is_on(&Value::String(text)));
        }
        config
    }

    /// Says whether debug mode is on.
    pub fn debug(&self) -> bool {
        self.flag("DEBUG")
    }

    /// Returns the value of a key, if there is one that is not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Returns the value of a key that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Says whether a flag is on.
    ///
    /// Off are: a missing key, null, false, 0, empty values, and the texts `off`, `false`, `0`,
    /// `no`, `n` and `f` in any case.
    /// Everything else is on.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(is_on)
    }

    /// Returns a value as the type that is asked for; a missing key or null is `None`.
    ///
    /// # Errors
    ///
    /// The value is there but cannot be read as a `T`.
    /// The message names the key and what was found, never the value, which may be a secret.
    ///
    /// # Example
    ///
    /// ```
    /// # use backstop::config::Config;
    /// let mut config = Config::new();
    /// config.set("PORT", "eighty");
    /// let error = config.get_as::<u16>("PORT").unwrap_err();
    /// assert_eq!(error.to_string(), "PORT must be a u16, but is text");
    /// ```
    pub fn get_as<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match T::deserialize(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ConfigError::new(
                ConfigErrorKind::Value,
                format!(
                    "{key} must be a {}, but is {}",
                    short_type_name(std::any::type_name::<T>()),
                    describe(value)
                ),
            )),
        }
    }

    /// Sets one value.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.values.insert(key.into(), value.into());
    }

    /// Lists all keys and values in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Lists what looked wrong while loading: keys that were ignored or are probably misspelt.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Loads a file; its extension (`yaml`, `yml`, `json`, `toml`) tells the language.
    ///
    /// # Errors
    ///
    /// - The file is missing, unreadable or larger than 4 MiB.
    /// - The extension is none of the above.
    /// - The text is malformed, or its top level is no mapping; nothing is loaded then.
    #[doc(alias = "from_file")]
    pub fn load_file(&mut self, path: impl AsRef<Path>) -> Result<(), ConfigError> {
        let path = path.as_ref();
        let format = Format::of(path)?;
        let text = read(path)?;
        self.load_str(&text, format)
            .map_err(|error| error.within(path))
    }

    /// Loads a file if it exists and says whether it did (Flask's `silent=True`).
    ///
    /// # Errors
    ///
    /// As [`Config::load_file`], except that a missing file is none.
    pub fn load_file_if_exists(&mut self, path: impl AsRef<Path>) -> Result<bool, ConfigError> {
        match self.load_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ConfigErrorKind::Missing => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Loads the file that an environment variable names.
    ///
    /// # Errors
    ///
    /// The variable is not set, or as [`Config::load_file`].
    #[doc(alias = "from_envvar")]
    pub fn load_envvar(&mut self, variable: &str) -> Result<(), ConfigError> {
        match std::env::var_os(variable).filter(|path| !path.is_empty()) {
            Some(path) => self.load_file(PathBuf::from(path)),
            None => Err(ConfigError::new(
                ConfigErrorKind::Variable,
                format!("the environment variable {variable} is not set"),
            )
            .hint("let it name a configuration file")),
        }
    }

    /// Loads settings from text.
    ///
    /// # Errors
    ///
    /// The text is malformed, or its top level is no mapping; nothing is loaded then.
    pub fn load_str(&mut self, text: &str, format: Format) -> Result<(), ConfigError> {
        let Some(object) = top_level(parse(text, format)?)? else {
            return Ok(());
        };
        let (blocks, plain): (Vec<_>, Vec<_>) = object
            .into_iter()
            .partition(|(key, _)| BLOCKS.contains(&key.as_str()));
        for (key, value) in &blocks {
            if !value.is_object() && !value.is_null() {
                return Err(ConfigError::new(
                    ConfigErrorKind::Shape,
                    format!(
                        "the block {key} must be a mapping, but is {}",
                        describe(value)
                    ),
                )
                .hint("write the settings below it, indented by two spaces"));
            }
        }
        self.take(plain);
        for (key, value) in blocks {
            if let Value::Object(block) = &value {
                self.take(block.clone());
            }
            self.values.insert(key, value);
        }
        Ok(())
    }

    /// Takes the upper-case fields of any value that serialises as a map or struct.
    ///
    /// # Errors
    ///
    /// The value serialises as something else.
    #[doc(alias = "from_object")]
    pub fn load_object(&mut self, object: &impl Serialize) -> Result<(), ConfigError> {
        let value = serde_json::to_value(object).map_err(|error| {
            ConfigError::new(ConfigErrorKind::Shape, format!("not an object: {error}"))
        })?;
        if let Some(object) = top_level(value)? {
            self.take(object);
        }
        Ok(())
    }

    /// Takes the upper-case keys of pairs.
    #[doc(alias = "from_mapping")]
    pub fn load_mapping<K: Into<String>, V: Into<Value>>(
        &mut self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) {
        self.take(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into())),
        );
    }

    /// Takes the environment variables of the process whose name starts with `PREFIX_`.
    ///
    /// See [`Config::load_vars`] for how they are read.
    #[doc(alias = "from_prefixed_env")]
    pub fn load_env(&mut self, prefix: &str) {
        // A name or value that is not Unicode cannot be a setting.
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        self.load_vars(prefix, vars);
    }

    /// Takes variables whose name starts with `PREFIX_`, in the order of their names.
    ///
    /// A value is read as JSON where it is JSON, as the words `True` and `False` are not, and
    /// otherwise as text; `__` in a name descends into a mapping.
    ///
    /// # Example
    ///
    /// ```
    /// # use backstop::config::Config;
    /// let mut config = Config::new();
    /// config.load_vars("SHOP", [("SHOP_DB__PORT", "5432"), ("SHOP_NAME", "corner")]);
    /// assert_eq!(config.get("DB").unwrap()["PORT"], 5432);
    /// assert_eq!(config.text("NAME"), Some("corner"));
    /// ```
    pub fn load_vars<K: AsRef<str>, V: AsRef<str>>(
        &mut self,
        prefix: &str,
        vars: impl IntoIterator<Item = (K, V)>,
    ) {
        let prefix = format!("{prefix}_");
        let mut found: Vec<(String, String)> = vars
            .into_iter()
            .filter_map(|(name, value)| {
                let key = name.as_ref().strip_prefix(&prefix)?;
                Some((key.to_owned(), value.as_ref().to_owned()))
            })
            .collect();
        found.sort();
        for (key, text) in found {
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            let path: Vec<&str> = key.splitn(NESTING_MAX, "__").collect();
            if insert_at(&mut self.values, &path, value) {
                self.warnings.push(format!(
                    "{prefix}{key} sets a part of what is no mapping, and took its place"
                ));
            }
        }
    }

    /// Returns the settings whose key starts with the prefix, trimmed and in lower case.
    ///
    /// # Example
    ///
    /// ```
    /// # use backstop::config::Config;
    /// let mut config = Config::new();
    /// config.load_mapping([("IMAGE_PATH", "/var/images"), ("IMAGE_TYPE", "png")]);
    /// let image = config.namespace("IMAGE_");
    /// assert_eq!(image["path"], "/var/images");
    /// ```
    #[doc(alias = "get_namespace")]
    pub fn namespace(&self, prefix: &str) -> Object {
        self.namespace_with(
            prefix,
            Namespace {
                lower_case: true,
                trim: true,
            },
        )
    }

    /// Returns the settings whose key starts with the prefix; those of Backstop that are null are
    /// left out.
    pub fn namespace_with(&self, prefix: &str, form: Namespace) -> Object {
        let is_ours = |key: &str| known().iter().any(|(name, _)| *name == key);
        let mut found = Object::new();
        for (key, value) in &self.values {
            let Some(rest) = key
                .strip_prefix(prefix)
                .filter(|_| !(value.is_null() && is_ours(key)))
            else {
                continue;
            };
            let name = if form.trim { rest } else { key };
            let name = match form.lower_case {
                true => name.to_lowercase(),
                false => name.to_owned(),
            };
            found.insert(name, value.clone());
        }
        found
    }

    fn take(&mut self, pairs: impl IntoIterator<Item = (String, Value)>) {
        for (key, value) in pairs {
            if is_upper_case(&key) {
                if let Some(known) = misspelt(&key) {
                    self.warnings.push(format!(
                        "{key} is not a setting of Backstop; did you mean {known}?"
                    ));
                }
                let is_flag = matches!(self.values.get(&key), Some(Value::Bool(_)));
                if let (true, Value::String(text)) = (is_flag, &value)
                    && !is_clear_flag(text)
                {
                    self.warnings
                        .push(format!("{key} is a flag; write true or false"));
                }
                self.values.insert(key, value);
            } else {
                self.warnings.push(format!(
                    "{key} was ignored: settings are written in upper case, as {}",
                    key.to_uppercase()
                ));
            }
        }
    }
}

/// Shows the keys and, where a key does not sound like a secret, the values.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = Value::Object(self.values.clone());
        scrub::Scrubber::default().value(&mut values);
        f.debug_struct("Config").field("values", &values).finish()
    }
}

/// Flask takes a key if it equals its upper case and has at least one letter.
fn is_upper_case(key: &str) -> bool {
    key.chars().any(char::is_uppercase) && !key.chars().any(char::is_lowercase)
}

/// Says whether the text of a variable turns a flag on.
pub(crate) fn is_on_text(text: &str) -> bool {
    !OFF.contains(&text.trim().to_ascii_lowercase().as_str())
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => is_on_text(text),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Says whether a text is clearly on or off; anything else deserves a warning.
fn is_clear_flag(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    OFF.contains(&text.as_str()) || ON.contains(&text.as_str())
}

/// Sets what a path leads to; tells whether something that is no mapping was in the way.
fn insert_at(object: &mut Object, path: &[&str], value: Value) -> bool {
    let [key, rest @ ..] = path else {
        return false;
    };
    if rest.is_empty() {
        object.insert((*key).to_owned(), value);
        return false;
    }
    let child = object
        .entry((*key).to_owned())
        .or_insert_with(|| Value::Object(Object::new()));
    if let Value::Object(child) = child {
        return insert_at(child, rest, value);
    }
    let mut mapping = Object::new();
    insert_at(&mut mapping, rest, value);
    *child = Value::Object(mapping);
    true
}

/// `alloc::string::String` reads as `String`, also inside `Vec<…>`.
fn short_type_name(name: &str) -> String {
    name.split_inclusive(['<', '>', ',', ' ', '(', ')'])
        .map(|part| part.rsplit("::").next().unwrap_or(part))
        .collect()
}

/// Returns the known setting that differs from the key by one slip of the fingers.
fn misspelt(key: &str) -> Option<&'static str> {
    let known = known().map(|(name, _)| name);
    if known.contains(&key) {
        return None;
    }
    // Short names are one slip away from too many honest ones.
    known
        .into_iter()
        .find(|name| name.len() >= 5 && one_slip_apart(key.as_bytes(), name.as_bytes()))
}

/// One letter missing, added or replaced, or two neighbours swapped.
fn one_slip_apart(left: &[u8], right: &[u8]) -> bool {
    let same_start = left
        .iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count();
    let (left, right) = (&left[same_start..], &right[same_start..]);
    match left.len().abs_diff(right.len()) {
        0 => {
            let swapped = matches!((left, right), ([a, b, ..], [c, d, ..]) if a == d && b == c);
            left.get(1..) == right.get(1..) || (swapped && left[2..] == right[2..])
        }
        1 if left.len() > right.len() => left[1..] == *right,
        1 => right[1..] == *left,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Config {
        let mut config = Config::new();
        config.load_str(text, Format::Yaml).unwrap();
        config
    }

    #[test]
    fn words_of_yaml_1_1() {
        let config = yaml("A: yes\nB: off\nC: 'yes'\nD: 010\nE: 1_000\nF: 2024-01-02\nG: ~\n");
        let expected = [
            ("A", json!(true)),
            ("B", json!(false)),
            ("C", json!("yes")),
            ("D", json!(8)),
            ("E", json!(1000)),
            ("F", json!("2024-01-02")),
        ];
        for (key, value) in expected {
            assert_eq!(config.get(key), Some(&value), "{key}");
        }
        assert_eq!(config.get("G"), None);
    }

    #[test]
    fn the_block_of_the_page_is_unwrapped() {
        let config = yaml("DEBUG: false\nFLASK:\n  DEBUG: True\n  DEBUG_WITH_APTANA: True\n");
        assert!(config.debug());
        assert!(config.flag("DEBUG_WITH_APTANA"));
        assert_eq!(config.get("FLASK").unwrap()["DEBUG"], true);
    }

    #[test]
    fn what_was_ignored_is_told() {
        let config = yaml("mail_host: x\nDEBGU: true\nTESTING: 'on'\nDEBUG: maybe\n");
        assert_eq!(
            config.warnings(),
            [
                "mail_host was ignored: settings are written in upper case, as MAIL_HOST",
                "DEBGU is not a setting of Backstop; did you mean DEBUG?",
                "DEBUG is a flag; write true or false",
            ]
        );
    }

    #[test]
    fn refusals() {
        let check = |text: &str, format, kind, message: &str| {
            let mut config = Config::new();
            let error = config.load_str(text, format).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.to_string().contains(message), "{error}");
        };
        use ConfigErrorKind::{Shape, Syntax};
        check("A: [1, 2\nB: 3\n", Format::Yaml, Syntax, "malformed YAML");
        check("{\"A\": 1", Format::Json, Syntax, "line 1");
        check("A = ", Format::Toml, Syntax, "malformed TOML");
        check("- 1\n- 2\n", Format::Yaml, Shape, "but is a list");
        check("FLASK: 3\n", Format::Yaml, Shape, "the block FLASK");
        check("A: 1\nA: 2\n", Format::Yaml, Syntax, "malformed YAML");
    }

    #[test]
    fn flags() {
        let on = |value: Value| is_on(&value);
        for value in [
            json!("off"),
            json!("No"),
            json!(" 0 "),
            json!(""),
            json!(0),
            json!(false),
            json!(null),
            json!([]),
        ] {
            assert!(!on(value.clone()), "{value}");
        }
        for value in [
            json!("on"),
            json!("2"),
            json!("anything"),
            json!(1),
            json!([0]),
        ] {
            assert!(on(value.clone()), "{value}");
        }
    }

    #[test]
    fn variables_nest_and_win_in_order_of_their_names() {
        let mut config = Config::new();
        config.load_vars(
            "FLASK",
            [
                ("FLASK_B__C", "true"),
                ("FLASK_A", "1"),
                ("FLASK_B", "x"),
                ("FLASK_low", "[1,2]"),
                ("FLASKA", "2"),
                ("FLASK_T", "True"),
            ],
        );
        assert_eq!(config.get("A"), Some(&json!(1)));
        assert_eq!(config.get("B"), Some(&json!({"C": true})));
        assert_eq!(config.get("low"), Some(&json!([1, 2])));
        assert_eq!(config.get("T"), Some(&json!("True")));
        assert_eq!(
            config.warnings(),
            ["FLASK_B__C sets a part of what is no mapping, and took its place"]
        );
    }

    #[test]
    fn a_namespace_has_what_was_set_to_null() {
        let mut config = Config::new();
        config.load_mapping([("MAIL_FOLDER", Value::Null), ("MAIL_PORT", json!(25))]);
        let expected = json!({"folder": null, "port": 25});
        assert_eq!(Value::Object(config.namespace("MAIL_")), expected);
    }

    #[test]
    fn toml_and_its_dates() {
        let mut config = Config::new();
        let text = "TESTING = true\nsmall = 1\nDAY = 2024-01-02\nLIMIT = -inf\nNOTHING = nan\n[DB]\nurl = \"x\"\n";
        config.load_str(text, Format::Toml).unwrap();
        assert_eq!(config.get("DAY"), Some(&json!("2024-01-02")));
        assert_eq!(config.get("LIMIT"), Some(&json!("-inf")));
        assert_eq!(config.get("NOTHING"), Some(&json!("nan")));
        assert_eq!(config.get("DB"), Some(&json!({"url": "x"})));
        assert_eq!(config.get("small"), None);
    }

    #[test]
    fn secrets_do_not_show() {
        let mut config = Config::new();
        config.set("SECRET_KEY", "hunter2");
        config.set("DATABASE", "postgres://shop:hunter2@db/shop");
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = config.get_as::<Vec<u16>>("SECRET_KEY").unwrap_err();
        assert_eq!(
            error.to_string(),
            "SECRET_KEY must be a Vec<u16>, but is text"
        );
    }

    #[test]
    fn a_missing_file() {
        let mut config = Config::new();
        let error = config.load_file("/nonexistent/config.yaml").unwrap_err();
        assert_eq!(error.kind(), ConfigErrorKind::Missing);
        let text = error.to_string();
        assert!(
            text.starts_with("cannot read /nonexistent/config.yaml: "),
            "{text}"
        );
        assert!(
            !config
                .load_file_if_exists("/nonexistent/config.yaml")
                .unwrap()
        );
        let error = config.load_file("config.ini").unwrap_err();
        assert_eq!(error.kind(), ConfigErrorKind::Format);
    }
}
