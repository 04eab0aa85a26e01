//! Removing secrets from events, before they leave the process.
//!
//! A value goes when its name sounds like a secret (`db_password`, `apiKey`, `Authorization`),
//! and a part of a text goes when it looks like one: a password in a URL, a private key, a
//! bearer token, a well-known token format, a card number, `password=…`.
//! What is removed reads [`FILTERED`]; nothing else is changed.

use std::borrow::Cow;
use std::ops::Range;

use backstop_protocol::secret::{self, Span, Wanted};
use backstop_protocol::{Event, Exception, Frame, Object, Stacktrace};
use serde_json::Value;

pub use backstop_protocol::secret::FILTERED;

/// Longer names are no names; judging them would cost more than it protects.
const NAME_BYTES_MAX: usize = 256;

/// Deeper values are cut: nobody reads them, and the walk is recursive.
const DEPTH_MAX: usize = 64;

/// A name that has one of these words is a secret's as well. A program says more about itself than
/// it says to a tracker that serves others, so the client is more careful than
/// [`secret::is_name`] is.
const WORDS: [&str; 4] = ["cookies", "dsn", "pass", "pin"];

/// A name that contains one of these, written together, is a secret's.
const PARTS: [&str; 8] = [
    "authkey",
    "cardnumber",
    "creditcard",
    "encryptionkey",
    "masterkey",
    "passphrase",
    "securitycode",
    "signingkey",
];

/// Names that are secrets only as a whole: `session` is a cookie's name, but also a word.
const WHOLE: [&str; 2] = ["session", "sid"];

/// Request headers that tell who somebody is.
const PERSONAL_HEADERS: [&str; 8] = [
    "cookie",
    "set-cookie",
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
    "remote-addr",
];

/// Formats of well-known tokens: how they begin and how many characters follow at least.
const TOKEN_FORMATS: [(&str, usize); 16] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("sk_live_", 10),
    ("sk_test_", 10),
    ("rk_live_", 10),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("eyJ", 20),
];

/// Decides what is a secret, and removes it.
///
/// # Example
///
/// ```
/// use backstop::report::Scrubber;
///
/// let scrubber = Scrubber::default().deny("loyalty_number").allow("token_count");
/// assert!(scrubber.is_secret("X-Api-Key"));
/// assert!(scrubber.is_secret("loyaltyNumber"));
/// assert!(!scrubber.is_secret("token_count"));
/// assert_eq!(
///     scrubber.text("connect to postgres://shop:hunter2@db/shop failed"),
///     "connect to postgres://shop:[Filtered]@db/shop failed",
/// );
/// ```
#[derive(Debug, Clone, Default)]
pub struct Scrubber {
    denied: Vec<String>,
    allowed: Vec<String>,
    personal: bool,
}

/// What a text is, which decides how eagerly `name = value` counts as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message, a URL, a value.
    Prose,
    /// A source line, where `password: String` is a type and only literals are secrets.
    Source,
}

impl Scrubber {
    /// Also treats this name as a secret's.
    #[must_use]
    pub fn deny(mut self, name: &str) -> Scrubber {
        self.denied.push(together(name));
        self
    }

    /// Never treats this name as a secret's.
    #[must_use]
    pub fn allow(mut self, name: &str) -> Scrubber {
        self.allowed.push(together(name));
        self
    }

    /// Keeps what tells who the user was: cookies' names, addresses.
    ///
    /// Secrets go all the same.
    #[must_use]
    pub fn keep_personal(mut self, keep: bool) -> Scrubber {
        self.personal = keep;
        self
    }

    /// Says whether a value of this name is a secret.
    pub fn is_secret(&self, name: &str) -> bool {
        if name.len() > NAME_BYTES_MAX {
            return false;
        }
        let joined = together(name);
        if self.allowed.contains(&joined) {
            return false;
        }
        self.denied.contains(&joined)
            || secret::is_name(name)
            || WHOLE.contains(&joined.as_str())
            || PARTS.iter().any(|part| joined.contains(part))
            || words(name).any(|word| WORDS.contains(&word.as_str()))
    }

    /// Removes secrets from a text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.clean(text, Kind::Prose)
    }

    /// Removes secrets from a line of source: literals only, so that the code stays readable.
    pub fn source<'t>(&self, line: &'t str) -> Cow<'t, str> {
        self.clean(line, Kind::Source)
    }

    /// Removes secrets from a value: by the names of its fields, and in its texts.
    pub fn value(&self, value: &mut Value) {
        self.value_at(value, 0);
    }

    /// Removes secrets from every part of an event that can hold one.
    pub fn event(&self, event: &mut Event) {
        self.request(event);
        if let Some(message) = &mut event.message {
            self.option(&mut message.message);
            self.option(&mut message.formatted);
            if let Some(params) = &mut message.params {
                self.value(params);
            }
        }
        for exception in &mut event.exception {
            self.exception(exception);
        }
        for thread in &mut event.threads {
            if let Some(stacktrace) = &mut thread.stacktrace {
                self.stacktrace(stacktrace);
            }
        }
        if let Some(stacktrace) = &mut event.stacktrace {
            self.stacktrace(stacktrace);
        }
        for breadcrumb in &mut event.breadcrumbs {
            self.option(&mut breadcrumb.message);
            if let Some(data) = &mut breadcrumb.data {
                self.value(data);
            }
            self.object(&mut breadcrumb.other);
        }
        if let Some(user) = &mut event.user {
            if !self.personal {
                user.ip_address = None;
            }
            self.object(&mut user.other);
        }
        self.object(&mut event.tags);
        self.object(&mut event.extra);
        self.object(&mut event.contexts);
        self.object(&mut event.other);
    }

    fn request(&self, event: &mut Event) {
        let Some(request) = &mut event.request else {
            return;
        };
        self.option(&mut request.url);
        if let Some(query) = &mut request.query_string {
            self.value(query);
        }
        if let Some(headers) = &mut request.headers {
            self.headers(headers);
            self.value(headers);
        }
        if let Some(cookies) = &mut request.cookies {
            hide_leaves(cookies);
        }
        if let Some(data) = &mut request.data {
            self.value(data);
        }
        if let Some(env) = &mut request.env {
            self.value(env);
            self.headers(env);
        }
        self.object(&mut request.other);
    }

    /// Headers as an object or as pairs.
    fn headers(&self, headers: &mut Value) {
        let hide = |name: &str, value: &mut Value| {
            let name = name.to_ascii_lowercase().replace('_', "-");
            let name = name.strip_prefix("http-").unwrap_or(&name);
            if !self.personal && PERSONAL_HEADERS.contains(&name) {
                *value = filtered();
            }
        };
        match headers {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    hide(name, value);
                }
            }
            Value::Array(pairs) => {
                for pair in pairs {
                    if let Some([Value::String(name), value]) =
                        pair.as_array_mut().map(Vec::as_mut_slice)
                    {
                        hide(name, value);
                    }
                }
            }
            _ => {}
        }
    }

    fn exception(&self, exception: &mut Exception) {
        self.option(&mut exception.value);
        if let Some(stacktrace) = &mut exception.stacktrace {
            self.stacktrace(stacktrace);
        }
        if let Some(stacktrace) = &mut exception.raw_stacktrace {
            self.stacktrace(stacktrace);
        }
        if let Some(data) = exception
            .mechanism
            .as_mut()
            .and_then(|mechanism| mechanism.data.as_mut())
        {
            self.value(data);
        }
        self.object(&mut exception.other);
    }

    fn stacktrace(&self, stacktrace: &mut Stacktrace) {
        for frame in &mut stacktrace.frames {
            self.frame(frame);
        }
    }

    fn frame(&self, frame: &mut Frame) {
        self.object(&mut frame.vars);
        let lines = frame
            .pre_context
            .iter_mut()
            .chain(&mut frame.context_line)
            .chain(&mut frame.post_context);
        for line in lines {
            if let Cow::Owned(clean) = self.source(line) {
                *line = clean;
            }
        }
        if let Some(data) = &mut frame.data {
            self.value(data);
        }
    }

    fn option(&self, text: &mut Option<String>) {
        if let Some(text) = text
            && let Cow::Owned(clean) = self.text(text)
        {
            *text = clean;
        }
    }

    fn object(&self, object: &mut Object) {
        self.object_at(object, 0);
    }

    fn object_at(&self, object: &mut Object, depth: usize) {
        for (name, value) in object.iter_mut() {
            if self.is_secret(name) {
                hide(value);
            } else {
                self.value_at(value, depth + 1);
            }
        }
    }

    fn value_at(&self, value: &mut Value, depth: usize) {
        if depth > DEPTH_MAX {
            *value = filtered();
            return;
        }
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.text(text) {
                    *text = clean;
                }
            }
            Value::Array(items) => {
                // A pair of name and value, as headers and queries are often sent.
                if let [Value::String(name), second] = items.as_mut_slice()
                    && self.is_secret(name)
                {
                    hide(second);
                    return;
                }
                for item in items {
                    self.value_at(item, depth + 1);
                }
            }
            Value::Object(fields) => self.object_at(fields, depth),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn clean<'t>(&self, text: &'t str, kind: Kind) -> Cow<'t, str> {
        let wanted = Wanted {
            secrets: true,
            ..Wanted::default()
        };
        let mut spans = secret::find(text, wanted);
        tokens(text, &mut spans);
        self.assignments(text, kind, &mut spans);
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(secret::replace(text, spans))
    }

    /// `password=hunter2`, `"password": "hunter2"`, `password = "hunter2"`.
    fn assignments(&self, text: &str, kind: Kind, spans: &mut Vec<Span>) {
        let bytes = text.as_bytes();
        for at in memchr_iter(bytes, |byte| byte == b'=' || byte == b':') {
            // `==`, `::`, `:=` and `=>` assign nothing to the name before them.
            let next = bytes.get(at + 1);
            if matches!(next, Some(b'=' | b':' | b'>')) {
                continue;
            }
            let Some(name) = name_before(text, at) else {
                continue;
            };
            if !self.is_secret(name) {
                continue;
            }
            let after = at + 1;
            let blanks = bytes[after..]
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace())
                .count();
            let start = after + blanks;
            // "unexpected token: '}'" is prose; dictionaries quote the name, Rust quotes with ".
            let bare = bytes[at] == b':' && !matches!(bytes[at - 1], b'"' | b'\'' | b' ' | b'\t');
            let quote_fits = kind == Kind::Source || !bare || bytes.get(start) != Some(&b'\'');
            if let Some(span) = literal_at(text, start).filter(|_| quote_fits) {
                spans.push(Span::from(span));
            } else if kind == Kind::Prose && bytes[at] == b'=' && blanks == 0 {
                let length = bytes[start..]
                    .iter()
                    .take_while(|byte| !byte.is_ascii_whitespace() && !b"&;,)}]\"'".contains(byte))
                    .count();
                if length > 0 {
                    spans.push(Span::from(start..start + length));
                }
            }
        }
    }
}

fn filtered() -> Value {
    Value::String(FILTERED.to_owned())
}

/// Empty values tell nothing and stay: "was it set at all?" is often the question.
fn hide(value: &mut Value) {
    let empty = match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) => false,
    };
    if !empty {
        *value = filtered();
    }
}

/// Hides the values and keeps the names, so that one sees which cookies came.
fn hide_leaves(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (_, value) in fields.iter_mut() {
                *value = filtered();
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                match pair.as_array_mut().map(Vec::as_mut_slice) {
                    Some([_, value]) => *value = filtered(),
                    _ => *pair = filtered(),
                }
            }
        }
        other => *other = filtered(),
    }
}

/// `X-Api-Key`, `api_key` and `apiKey` are one name.
fn together(name: &str) -> String {
    name.chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// The words of `snake_case`, `kebab-case` and `camelCase` names, in lower case.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for character in name.chars() {
        let new_word = !character.is_alphanumeric() || (character.is_uppercase() && lower_before);
        if new_word {
            words.push(String::new());
        }
        if let (true, Some(word)) = (character.is_alphanumeric(), words.last_mut()) {
            word.extend(character.to_lowercase());
        }
        lower_before = character.is_lowercase();
    }
    words.into_iter()
}

fn memchr_iter(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> impl Iterator<Item = usize> {
    bytes
        .iter()
        .enumerate()
        .filter_map(move |(at, byte)| wanted(*byte).then_some(at))
}

/// The name that ends before `at`, without quotes and blanks around it.
fn name_before(text: &str, at: usize) -> Option<&str> {
    let before = text[..at].trim_end();
    let before = before.strip_suffix(['"', '\'', '\\']).unwrap_or(before);
    let before = before.strip_suffix('\\').unwrap_or(before);
    let start = before
        .bytes()
        .rev()
        .take(NAME_BYTES_MAX)
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        .count();
    (start > 0).then(|| &before[before.len() - start..])
}

/// The inside of the string literal that starts at `at`.
fn literal_at(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = at;
    // Prefixes of literals: b"…", r"…", f"…", and \" inside JSON inside JSON.
    while at < bytes.len() && matches!(bytes[at], b'b' | b'r' | b'f' | b'u' | b'\\' | b'#') {
        at += 1;
    }
    let quote = *bytes.get(at).filter(|byte| b"\"'".contains(byte))?;
    let start = at + 1;
    let mut end = start;
    // Inside JSON inside JSON the closing quote has a backslash, too.
    let nested = at > 0 && bytes[at - 1] == b'\\';
    while end < bytes.len() && bytes[end] != quote {
        let escapes = bytes[end] == b'\\' && (!nested || bytes.get(end + 1) != Some(&quote));
        end += if escapes { 2 } else { 1 };
    }
    let mut end = end.min(bytes.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    (end > start).then_some(start..end)
}

fn tokens(text: &str, spans: &mut Vec<Span>) {
    for (prefix, rest_min) in TOKEN_FORMATS {
        for (at, _) in text.match_indices(prefix) {
            let inside_word = at > 0 && is_token_byte(text.as_bytes()[at - 1]);
            let start = at + prefix.len();
            let length = run_length(text, start, |byte| is_token_byte(byte) || byte == b'.');
            if !inside_word && length >= rest_min {
                spans.push(Span::from(at..start + length));
            }
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn run_length(text: &str, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    text.as_bytes()[from..]
        .iter()
        .take_while(|byte| wanted(**byte))
        .count()
}

#[cfg(test)]
mod tests {
    use backstop_protocol::Request;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_are_secrets() {
        let scrubber = Scrubber::default();
        for name in [
            "password",
            "DB_PASSWORD",
            "userPassword",
            "passwd",
            "mysql_pwd",
            "apiKey",
            "X-Api-Key",
            "api_key",
            "client_secret",
            "clientsecret",
            "access_token",
            "refreshToken",
            "Authorization",
            "Cookie",
            "set-cookie",
            "csrf_token",
            "sessionid",
            "PHPSESSID",
            "private_key",
            "credit_card",
            "cardNumber",
            "session",
            "SECRET_KEY",
            "SENTRY_DSN",
        ] {
            assert!(scrubber.is_secret(name), "{name}");
        }
        for name in [
            "user",
            "passenger",
            "author",
            "authority",
            "tokenizer",
            "compass",
            "bypassed",
            "session_count",
            "key",
            "primary_key",
            "spinner",
            "path",
            "order_id",
            "",
        ] {
            assert!(!scrubber.is_secret(name), "{name}");
        }
    }

    #[test]
    fn texts() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Scrubber::default().text(text), expected, "{text}");
        };
        check(
            "redis://:s3cret@cache:6379/0 and https://u:p@ss@h/",
            "redis://:[Filtered]@cache:6379/0 and https://u:[Filtered]@h/",
        );
        check("https://shop.example/a:b@c", "https://shop.example/a:b@c");
        check("?q=1&token=abc&x=2", "?q=1&token=[Filtered]&x=2");
        check(
            r#"{"password": "hunter2", "n": 1}"#,
            r#"{"password": "[Filtered]", "n": 1}"#,
        );
        check(
            r"{'api_key': 'abc\'def', 'n': 1}",
            "{'api_key': '[Filtered]', 'n': 1}",
        );
        check("password=", "password=");
        check(
            "unexpected token: `}` at line 3",
            "unexpected token: `}` at line 3",
        );
        check(
            "unexpected token: '}' at line 3",
            "unexpected token: '}' at line 3",
        );
        check(
            "User { password: \"hunter2\" }",
            "User { password: \"[Filtered]\" }",
        );
        check(
            "invalid token: expected a name",
            "invalid token: expected a name",
        );
        check("if token == other", "if token == other");
        check(
            "Authorization: Bearer abcDEF123456",
            "Authorization: Bearer [Filtered]",
        );
        check("Basic authentication failed", "Basic authentication failed");
        check("key AKIAIOSFODNN7EXAMPLE!", "key [Filtered]!");
        check("ghp_0123456789abcdefghijklmn", "[Filtered]");
        check(
            "card 4111 1111 1111 1111 declined",
            "card [Filtered] declined",
        );
        check("order 4111111111111112", "order 4111111111111112");
        check("2026-11-22 10:00:00", "2026-11-22 10:00:00");
        check(
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nrest",
            "-----BEGIN RSA PRIVATE KEY-----[Filtered]-----END RSA PRIVATE KEY-----\nrest",
        );
        check("Straße €5 — nothing here", "Straße €5 — nothing here");
        check(
            "password=\"geheim€\" und mehr",
            "password=\"[Filtered]\" und mehr",
        );
    }

    #[test]
    fn source_stays_readable() {
        let check = |line: &str, expected: &str| {
            assert_eq!(Scrubber::default().source(line), expected, "{line}");
        };
        check(
            "    let password = \"hunter2\";",
            "    let password = \"[Filtered]\";",
        );
        check("    password: String,", "    password: String,");
        check("token=next_token()", "token=next_token()");
    }

    #[test]
    fn an_event_with_secrets_everywhere() {
        let mut event = Event {
            request: Some(Request {
                url: Some("https://u:hunter2@shop.example/?token=hunter2".to_owned()),
                query_string: Some(json!([["q", "1"], ["password", "hunter2"]])),
                headers: Some(json!([["Accept", "*/*"], ["Cookie", "a=hunter2"]])),
                cookies: Some(json!({"a": "hunter2"})),
                data: Some(json!({"card": {"pin": "hunter2"}, "list": [{"secret": "hunter2"}]})),
                env: Some(json!({"HTTP_COOKIE": "a=hunter2"})),
                ..Request::default()
            }),
            exception: vec![Exception {
                value: Some("login with password='hunter2' failed".to_owned()),
                stacktrace: Some(Stacktrace {
                    frames: vec![Frame {
                        vars:
                            json!({"password": "hunter2", "form": "{'token': 'hunter2'}", "n": 1})
                                .as_object()
                                .unwrap()
                                .clone()
                                .into(),
                        context_line: Some("login(password=\"hunter2\")".to_owned()),
                        ..Frame::default()
                    }],
                    ..Stacktrace::default()
                }),
                ..Exception::default()
            }],
            ..Event::default()
        };
        event
            .extra
            .insert("db".to_owned(), json!("pg://a:hunter2@b"));
        Scrubber::default().event(&mut event);
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("\"n\":1") && text.contains("\"*/*\""),
            "{text}"
        );
    }
}
