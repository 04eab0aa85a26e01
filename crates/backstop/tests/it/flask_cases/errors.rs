//! The error classes of a case as run-time kinds, and raising them.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::{Duration, SystemTime};

use backstop::{Error, HttpError, Kind, errors};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// A plain Python error: its text, its own fields, and what caused it.
#[derive(Debug)]
pub(crate) struct PlainError {
    pub(crate) message: String,
    pub(crate) fields: Map<String, Value>,
    cause: Option<Box<PlainError>>,
}

impl fmt::Display for PlainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for PlainError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| cause as &dyn StdError)
    }
}

/// The classes that a case knows.
pub(crate) struct Classes {
    kinds: HashMap<String, Kind>,
    headers: HashMap<String, Vec<(String, String)>>,
    fields: HashMap<String, Map<String, Value>>,
    aborts: HashMap<u16, String>,
}

impl Classes {
    pub(crate) fn new(about: &Value, setup: &Value) -> Self {
        let mut classes = Self {
            kinds: HashMap::new(),
            headers: HashMap::new(),
            fields: HashMap::new(),
            aborts: HashMap::new(),
        };
        classes.add("HTTPException", Kind::of::<HttpError>());
        for code in 400..600 {
            let kind = Kind::of_code(code);
            if kind.name() != "HttpError" {
                classes.add(kind.name().to_owned().as_str(), kind);
            }
        }
        classes.add(
            "ClientDisconnected",
            Kind::of::<errors::ClientDisconnected>(),
        );
        classes.add("SecurityError", Kind::of::<errors::SecurityError>());
        // In Python it is a `KeyError` as well.
        classes.make("LookupError", &["Exception"]);
        classes.make("KeyError", &["LookupError"]);
        classes.add("MissingKey", Kind::of::<errors::BadRequestKeyError>());
        classes.make("BadRequestKeyError", &["MissingKey", "KeyError"]);
        for (name, parents) in about["builtin_errors"].as_object().into_iter().flatten() {
            if !classes.kinds.contains_key(name) {
                let parents: Vec<&str> = list(parents).iter().filter_map(Value::as_str).collect();
                classes.make(name, &parents);
            }
        }
        for class in list(&setup["errors"]) {
            classes.declare(class);
        }
        for (code, class) in setup["abort_mapping"].as_object().into_iter().flatten() {
            let code = code.parse().expect("an abort mapping has codes");
            classes.aborts.insert(code, text(class).to_owned());
        }
        classes
    }

    fn add(&mut self, name: &str, kind: Kind) {
        self.kinds.insert(name.to_owned(), kind);
    }

    fn make(&mut self, name: &str, parents: &[&str]) {
        let parents: Vec<Kind> = parents
            .iter()
            .filter(|parent| **parent != "Exception")
            .map(|parent| self.kind(parent).clone())
            .collect();
        let parents: Vec<&Kind> = parents.iter().collect();
        let kind = Kind::new(name.to_owned(), &parents).expect("Python accepts these parents");
        self.add(name, kind);
    }

    fn declare(&mut self, class: &Value) {
        let name = text(&class["name"]);
        let parents: Vec<&str> = list(&class["parents"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        self.make(name, &parents);
        let mut kind = self.kind(name).clone();
        if let Some(code) = class["code"].as_u64() {
            kind = kind.code(u16::try_from(code).expect("codes are small"));
        }
        if let Some(description) = class["description"].as_str() {
            kind = kind.description(description.to_owned());
        }
        self.add(name, kind);
        let mut fields = Map::new();
        let mut headers = Vec::new();
        for parent in parents.iter().rev() {
            fields.extend(self.fields.get(*parent).cloned().unwrap_or_default());
            headers.extend(self.headers.get(*parent).cloned().unwrap_or_default());
        }
        fields.extend(class["fields"].as_object().cloned().unwrap_or_default());
        headers.extend(pairs(&class["headers"]));
        self.fields.insert(name.to_owned(), fields);
        self.headers.insert(name.to_owned(), headers);
    }

    pub(crate) fn kind(&self, name: &str) -> &Kind {
        self.kinds
            .get(name)
            .unwrap_or_else(|| panic!("no class {name}"))
    }

    /// Raises an error as the case says.
    pub(crate) fn raise(&self, action: &Value) -> Error {
        let name = text(&action["raise"]);
        let kind = self.kind(name);
        if kind.status_code().is_some() || kind.is_a(&Kind::of::<HttpError>()) {
            return Error::from(self.http_error(name, action));
        }
        Error::of_kind(kind, self.plain(action))
    }

    fn plain(&self, action: &Value) -> PlainError {
        let name = text(&action["raise"]);
        let message = action["message"].as_str().unwrap_or_default().to_owned();
        let is_key_error = self.kind(name).is_a(self.kind("KeyError"));
        let mut fields = self.fields.get(name).cloned().unwrap_or_default();
        fields.extend(action["fields"].as_object().cloned().unwrap_or_default());
        fields.extend(action["set"].as_object().cloned().unwrap_or_default());
        let cause = [&action["because"], &action["during"]]
            .into_iter()
            .find(|cause| cause.is_object())
            .map(|cause| Box::new(self.plain(cause)));
        PlainError {
            // Python shows the key as it would be written.
            message: if is_key_error {
                format!("'{message}'")
            } else {
                message
            },
            fields,
            cause,
        }
    }

    pub(crate) fn http_error(&self, name: &str, action: &Value) -> HttpError {
        let mut error = HttpError::of(self.kind(name).clone());
        if let Some(description) = action["description"].as_str() {
            error = error.description(description.to_owned());
        }
        if let Some(code) = action["set"]["code"].as_u64() {
            error = error.code(u16::try_from(code).expect("codes are small"));
        }
        if let Some(methods) = action["valid_methods"].as_array() {
            let methods: Vec<&str> = methods.iter().filter_map(Value::as_str).collect();
            error = error.allow(&methods);
        }
        for challenge in list(&action["www_authenticate"]) {
            error = error.www_authenticate(&challenge_text(challenge));
        }
        match &action["retry_after"] {
            Value::Number(seconds) => {
                let seconds = seconds.as_u64().expect("seconds are not negative");
                error = error.retry_after(Duration::from_secs(seconds));
            }
            Value::Object(date) => error = error.retry_at(date_of(text(&date["datetime"]))),
            _ => {}
        }
        if let Some(length) = action["length"].as_u64() {
            error = error.content_range(action["units"].as_str().unwrap_or("bytes"), length);
        }
        for (name, value) in self.headers.get(name).into_iter().flatten() {
            let name: HeaderName = name.parse().expect("a header's name");
            error = error.header(
                name,
                HeaderValue::from_str(value).expect("a header's value"),
            );
        }
        error
    }

    /// `abort` with a code: the case's own mapping, then the library's.
    pub(crate) fn abort(&self, action: &Value) -> Error {
        let code = u16::try_from(action["abort"].as_u64().expect("abort has a code"))
            .expect("codes are small");
        let name = match self.aborts.get(&code) {
            Some(name) => name.clone(),
            None => match backstop::abort::<()>(code) {
                Err(error) if error.is::<backstop::UnknownCode>() => {
                    // Its twin in Python is a `LookupError`.
                    let unknown = PlainError {
                        message: format!("no exception for {code}"),
                        fields: Map::new(),
                        cause: None,
                    };
                    return Error::of_kind(self.kind("LookupError"), unknown);
                }
                Err(error) => error.kind_name().to_owned(),
                Ok(()) => unreachable!("abort never returns a value"),
            },
        };
        if name == "HttpError" {
            return Error::from(HttpError::new(code));
        }
        let mut error = self.http_error(&name, action);
        if let Some(response) = action.get("response") {
            error = error.response(super::build::ready_response(response));
        }
        Error::from(error)
    }
}

/// Quotes a parameter's value where Werkzeug does: for digest always, else only where it must be.
fn challenge_text(challenge: &Value) -> String {
    let scheme = text(&challenge["scheme"]);
    let mut name = scheme.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let params: Vec<String> = challenge["params"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let value = text(value);
            let is_token = value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if is_token && !scheme.eq_ignore_ascii_case("digest") {
                format!("{key}={value}")
            } else {
                format!("{key}=\"{value}\"")
            }
        })
        .collect();
    match challenge["token"].as_str() {
        Some(token) => format!("{name} {token}"),
        None if params.is_empty() => name,
        None => format!("{name} {}", params.join(", ")),
    }
}

fn date_of(text: &str) -> SystemTime {
    let timestamp: backstop::report::Timestamp = text.parse().expect("an ISO date");
    let micros = u64::try_from(timestamp.micros()).expect("dates after 1970");
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn pairs(value: &Value) -> Vec<(String, String)> {
    list(value)
        .iter()
        .map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned()))
        .collect()
}
