//! Removing secrets from events before they are stored.
//!
//! An event goes in and is changed in place: a value whose name is that of a secret is replaced
//! whole, and inside texts card numbers, bearer tokens, passwords in URLs and private keys are
//! replaced (and, where a project wants it, e-mail addresses and IP addresses).
//! Every replacement is marked beside the data, in Sentry's form: `_meta` holds
//! `"rem": [["@password:filter", "s"]]` at the same path.

use std::borrow::Cow;

use backstop_protocol::secret::{self, FILTERED, Form, Wanted};
use backstop_protocol::{Event, Lazy, Object, Piece, Stacktrace, Unread};
use serde_json::{Value, json};

use super::settings::Scrubbing;

/// More marks than this say nothing new about an event; replacing goes on without them.
const MARKS_MAX: usize = 200;

/// Why something was replaced: by its name, or by its form inside a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Name,
    Form(Form),
}

impl Rule {
    /// The names that Sentry's rules have.
    fn id(self) -> &'static str {
        match self {
            Rule::Form(Form::Card) => "@creditcard:filter",
            Rule::Form(Form::Bearer) => "@bearer:filter",
            Rule::Form(Form::UrlAuth) => "@urlauth:filter",
            Rule::Form(Form::PrivateKey) => "@pemkey:filter",
            Rule::Form(Form::Email) => "@email:filter",
            Rule::Form(Form::Ip) => "@ip:filter",
            _ => "@password:filter",
        }
    }
}

/// Removes secrets from an event.
pub(super) fn scrub(event: &mut Event, settings: &Scrubbing) {
    if !settings.enabled && !settings.ip_addresses {
        return;
    }
    let mut scrubber = Scrubber {
        settings,
        wanted: Wanted {
            secrets: settings.enabled,
            emails: settings.enabled && settings.emails,
            ip_addresses: settings.ip_addresses,
        },
        path: Vec::with_capacity(16),
        marks: Vec::new(),
    };
    scrubber.event(event);
    for mark in scrubber.marks {
        mark.write(&mut event.meta);
    }
}

/// One step of a path; text is owned only where a mark is written.
#[derive(Clone, Copy)]
enum Step {
    Name(&'static str),
    Index(usize),
}

struct Mark {
    path: Vec<String>,
    rule: Rule,
}

struct Scrubber<'s> {
    settings: &'s Scrubbing,
    wanted: Wanted,
    path: Vec<Step>,
    marks: Vec<Mark>,
}

/// The keys below the typed part of an event, innermost first.
struct Below<'p> {
    key: Cow<'p, str>,
    above: Option<&'p Below<'p>>,
}

impl Scrubber<'_> {
    fn event(&mut self, event: &mut Event) {
        if let Some(message) = &mut event.message {
            self.at("logentry", |scrubber| {
                scrubber.option("message", &mut message.message);
                scrubber.option("formatted", &mut message.formatted);
                scrubber.any("params", &mut message.params);
            });
        }
        self.at("exception", |scrubber| {
            scrubber.each("values", &mut event.exception, |scrubber, exception| {
                scrubber.option("value", &mut exception.value);
                scrubber.stacktrace("stacktrace", &mut exception.stacktrace);
                scrubber.stacktrace("raw_stacktrace", &mut exception.raw_stacktrace);
                scrubber.object(&mut exception.other, None);
                if let Some(mechanism) = &mut exception.mechanism {
                    scrubber.at("mechanism", |scrubber| {
                        scrubber.any("data", &mut mechanism.data);
                    });
                }
            });
        });
        self.at("threads", |scrubber| {
            scrubber.each("values", &mut event.threads, |scrubber, thread| {
                scrubber.stacktrace("stacktrace", &mut thread.stacktrace);
            });
        });
        self.stacktrace("stacktrace", &mut event.stacktrace);
        self.at("breadcrumbs", |scrubber| {
            scrubber.each("values", &mut event.breadcrumbs, |scrubber, crumb| {
                scrubber.option("message", &mut crumb.message);
                if let Some(data) = &mut crumb.data {
                    scrubber.at("data", |scrubber| {
                        let names = scrubber.may_find_name(data);
                        scrubber.unread(data, names, |scrubber, data| scrubber.value(data, None));
                    });
                }
                scrubber.object(&mut crumb.other, None);
            });
        });
        self.request(event);
        self.user(event);
        self.at("tags", |scrubber| scrubber.object(&mut event.tags, None));
        self.members("extra", &mut event.extra);
        self.members("contexts", &mut event.contexts);
        self.object(&mut event.other, None);
    }

    fn request(&mut self, event: &mut Event) {
        let Some(request) = &mut event.request else {
            return;
        };
        self.at("request", |scrubber| {
            scrubber.option("url", &mut request.url);
            scrubber.pairs("query_string", &mut request.query_string, '&');
            scrubber.pairs("cookies", &mut request.cookies, ';');
            scrubber.pairs("data", &mut request.data, '&');
            scrubber.any("headers", &mut request.headers);
            scrubber.any("env", &mut request.env);
            scrubber.object(&mut request.other, None);
        });
    }

    fn user(&mut self, event: &mut Event) {
        let Some(user) = &mut event.user else { return };
        self.at("user", |scrubber| {
            if scrubber.settings.ip_addresses && user.ip_address.take().is_some() {
                scrubber.at("ip_address", |scrubber| {
                    scrubber.mark(Rule::Form(Form::Ip), None);
                });
            }
            if scrubber.settings.emails {
                scrubber.option("email", &mut user.email);
                scrubber.option("username", &mut user.username);
            }
            scrubber.object(&mut user.other, None);
        });
    }

    fn stacktrace(&mut self, name: &'static str, stacktrace: &mut Option<Stacktrace>) {
        let Some(stacktrace) = stacktrace else { return };
        self.at(name, |scrubber| {
            scrubber.each("frames", &mut stacktrace.frames, |scrubber, frame| {
                scrubber.members("vars", &mut frame.vars);
                // Source is not data: only what nobody should have written there goes.
                scrubber.option("context_line", &mut frame.context_line);
                scrubber.lines("pre_context", &mut frame.pre_context);
                scrubber.lines("post_context", &mut frame.post_context);
            });
        });
    }

    fn at(&mut self, name: &'static str, work: impl FnOnce(&mut Self)) {
        self.path.push(Step::Name(name));
        work(self);
        self.path.pop();
    }

    fn each<T>(
        &mut self,
        name: &'static str,
        items: &mut [T],
        mut work: impl FnMut(&mut Self, &mut T),
    ) {
        self.path.push(Step::Name(name));
        for (index, item) in items.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            work(self, item);
            self.path.pop();
        }
        self.path.pop();
    }

    fn option(&mut self, name: &'static str, text: &mut Option<String>) {
        if let Some(text) = text {
            self.at(name, |scrubber| scrubber.text(text, None));
        }
    }

    fn lines(&mut self, name: &'static str, lines: &mut Lazy<Vec<String>>) {
        self.unread(lines, false, |scrubber, lines| {
            scrubber.each(name, lines, |scrubber, line| scrubber.text(line, None));
        });
    }

    fn members(&mut self, name: &'static str, object: &mut Lazy<Object>) {
        self.at(name, |scrubber| {
            let names = scrubber.may_find_name(object);
            scrubber.unread(object, names, |scrubber, object| {
                scrubber.object(object, None);
            });
        });
    }

    /// A quick look, which says yes too often.
    fn may_find_name<T>(&self, part: &Lazy<T>) -> bool {
        let own_names = !self.settings.secret_names.is_empty();
        self.settings.enabled && (own_names || part.may_name_secret())
    }

    /// Leaves a part unread if there is nothing to find in it, as nearly always.
    fn unread<T: Unread>(
        &mut self,
        part: &mut Lazy<T>,
        names: bool,
        work: impl FnOnce(&mut Self, &mut T),
    ) {
        if let Some(text) = part.text() {
            let texts = secret::may_be_in(text, self.wanted);
            let found = (names || texts)
                && part.any_piece(texts, |piece| match piece {
                    Piece::Name(name) => names && self.is_secret(name),
                    Piece::Text(text) => !secret::find(text, self.wanted).is_empty(),
                }) == Some(true);
            if !found {
                return;
            }
        }
        work(self, part.get_mut());
    }

    fn any(&mut self, name: &'static str, value: &mut Option<Value>) {
        if let Some(value) = value {
            self.at(name, |scrubber| scrubber.value(value, None));
        }
    }

    /// Text of the form `name=value&name=value`, or `name=value; name=value` for cookies.
    fn pairs(&mut self, name: &'static str, value: &mut Option<Value>, separator: char) {
        match value {
            Some(Value::String(text)) if self.settings.enabled && text.contains('=') => {
                self.at(name, |scrubber| {
                    if let Some(clean) = scrubber.without_secrets(text, separator) {
                        *text = clean;
                        scrubber.mark(Rule::Name, None);
                    }
                    scrubber.text(text, None);
                });
            }
            _ => self.any(name, value),
        }
    }

    fn without_secrets(&self, text: &str, separator: char) -> Option<String> {
        let mut found = false;
        let pairs: Vec<Cow<'_, str>> = text
            .split(separator)
            .map(|pair| match pair.split_once('=') {
                Some((name, value))
                    if !value.replace(FILTERED, "").is_empty() && self.is_secret(name) =>
                {
                    found = true;
                    Cow::Owned(format!("{name}={FILTERED}"))
                }
                _ => Cow::Borrowed(pair),
            })
            .collect();
        let mut separator_text = [0; 4];
        found.then(|| pairs.join(separator.encode_utf8(&mut separator_text)))
    }

    fn object(&mut self, object: &mut Object, above: Option<&Below<'_>>) {
        for (key, value) in object.iter_mut() {
            let below = Below {
                key: Cow::Borrowed(key),
                above,
            };
            if self.settings.enabled && self.is_secret(key) {
                self.filter(value, &below);
            } else {
                self.value(value, Some(&below));
            }
        }
    }

    fn value(&mut self, value: &mut Value, above: Option<&Below<'_>>) {
        match value {
            Value::String(text) => self.text(text, above),
            Value::Object(object) => self.object(object, above),
            Value::Array(list) => {
                // A pair of name and value, as headers and cookies may be sent.
                let secret_pair = match list.as_slice() {
                    [Value::String(name), _] => self.settings.enabled && self.is_secret(name),
                    _ => false,
                };
                for (index, element) in list.iter_mut().enumerate() {
                    let below = Below {
                        key: Cow::Owned(index.to_string()),
                        above,
                    };
                    if secret_pair && index == 1 {
                        self.filter(element, &below);
                    } else {
                        self.value(element, Some(&below));
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn filter(&mut self, value: &mut Value, below: &Below<'_>) {
        let nothing_there = match value {
            Value::Null | Value::Bool(_) => true,
            Value::String(text) => text.is_empty() || is_filtered(text),
            _ => false,
        };
        if !nothing_there {
            *value = Value::from(FILTERED);
            self.mark(Rule::Name, Some(below));
        }
    }

    fn text(&mut self, text: &mut String, below: Option<&Below<'_>>) {
        let spans = secret::find(text, self.wanted);
        let Some(form) = spans.first().and_then(|span| span.form) else {
            return;
        };
        *text = secret::replace(text, spans);
        self.mark(Rule::Form(form), below);
    }

    fn mark(&mut self, rule: Rule, below: Option<&Below<'_>>) {
        if self.marks.len() >= MARKS_MAX {
            return;
        }
        let mut path: Vec<String> = Vec::new();
        let mut next = below;
        while let Some(step) = next {
            path.push(step.key.to_string());
            next = step.above;
        }
        path.extend(self.path.iter().rev().map(|step| match step {
            Step::Name(name) => (*name).to_owned(),
            Step::Index(index) => index.to_string(),
        }));
        path.reverse();
        self.marks.push(Mark { path, rule });
    }

    fn is_secret(&self, name: &str) -> bool {
        if self.settings.safe_names.iter().any(|safe| safe == name) {
            return false;
        }
        secret::is_name(name)
            || self
                .settings
                .secret_names
                .iter()
                .any(|secret| secret.eq_ignore_ascii_case(name))
    }
}

impl Mark {
    fn write(self, meta: &mut Object) {
        let mut place = meta;
        for step in self.path {
            let child = place.entry(step).or_insert_with(|| json!({}));
            if !child.is_object() {
                *child = json!({});
            }
            let Value::Object(object) = child else { return };
            place = object;
        }
        let said = place.entry("").or_insert_with(|| json!({}));
        let Value::Object(said) = said else { return };
        let rule = json!([self.rule.id(), "s"]);
        match said.get_mut("rem") {
            Some(Value::Array(rules)) => rules.push(rule),
            _ => drop(said.insert("rem".to_owned(), json!([rule]))),
        }
    }
}

/// What clients write where they removed something themselves.
fn is_filtered(text: &str) -> bool {
    let text = text.trim_matches(['\'', '"']);
    text == FILTERED || (!text.is_empty() && text.bytes().all(|byte| byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(wire: &Value, settings: &Scrubbing) -> (Event, Value) {
        let mut event = Event::decode(wire.to_string().as_bytes()).unwrap();
        scrub(&mut event, settings);
        let value = serde_json::to_value(&event).unwrap();
        (event, value)
    }

    #[test]
    fn an_event_is_scrubbed_and_says_where() {
        let wire = json!({
            "request": {
                "url": "http://host/?token=abc",
                "query_string": "a=1&password=hunter2",
                "cookies": "theme=dark; sessionid=abc",
                "headers": [["Authorization", "Basic dXNlcjpwYXNz"], ["Accept", "text/html"]],
                "data": {"card": "4111111111111111", "user": {"passwd": "x"}},
            },
            "exception": [{"value": "cannot reach redis://u:geheim@cache", "stacktrace": {"frames": [
                {"vars": {"db_password": "'hunter2'", "n": 1, "rows": [["secret", "s"]]}}]}}],
            "extra": {"api_key": "********", "token": null, "auth": {"a": 1}},
            "user": {"ip_address": "10.0.0.1", "email": "ann@example.test"},
        });
        let (event, value) = scrubbed(&wire, &Scrubbing::default());
        let text = value.to_string();
        for secret in [
            "hunter2",
            "sessionid=abc",
            "dXNl",
            "4111",
            "geheim",
            "passwd\":\"x",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert_eq!(value["request"]["url"], "http://host/?token=abc");
        assert_eq!(
            value["request"]["cookies"],
            "theme=dark; sessionid=[Filtered]"
        );
        assert_eq!(
            value["extra"],
            json!({"api_key": "********", "token": null, "auth": FILTERED})
        );
        assert_eq!(value["user"]["ip_address"], "10.0.0.1");
        let meta = Value::Object(event.meta);
        for path in [
            "/request/query_string",
            "/request/headers/0/1",
            "/request/data/user/passwd",
            "/exception/values/0/stacktrace/frames/0/vars/db_password",
            "/exception/values/0/stacktrace/frames/0/vars/rows/0/1",
            "/extra/auth",
        ] {
            let rule = meta.pointer(&format!("{path}//rem/0/0"));
            assert_eq!(rule, Some(&json!("@password:filter")), "{path} in {meta}");
        }
        let url = meta.pointer("/exception/values/0/value//rem/0/0");
        assert_eq!(url, Some(&json!("@urlauth:filter")));
    }

    #[test]
    fn a_name_hides_its_value_however_it_is_written() {
        for name in [
            r#"{"pass\u0077ord": "geheim"}"#,
            r#"{"\u0050ASSWORD": ["geheim"]}"#,
            r#"{"a": [{"b": {"x-api-key": "geheim"}}]}"#,
            r#"{"rows": [["plain", "1"], ["password", "geheim"]]}"#,
        ] {
            let wire =
                format!(r#"{{"extra": {{"data": {name}}}, "contexts": {{"shop": {name}}}}}"#);
            let mut event = Event::decode(wire.as_bytes()).unwrap();
            scrub(&mut event, &Scrubbing::default());
            let text = serde_json::to_string(&event).unwrap();
            assert!(!text.contains("geheim"), "{name}: {text}");
        }
    }

    #[test]
    fn what_a_project_wants_otherwise() {
        let wire = json!({
            "user": {"ip_address": "10.0.0.1"},
            "extra": {"loyalty": "7", "token": "kept", "note": "☃ from 10.0.0.1:80"},
        });
        let settings = Scrubbing {
            ip_addresses: true,
            secret_names: vec!["Loyalty".to_owned()],
            safe_names: vec!["token".to_owned()],
            ..Scrubbing::default()
        };
        let (_, value) = scrubbed(&wire, &settings);
        assert_eq!(value["user"], json!({}));
        assert_eq!(
            value["extra"],
            json!({"loyalty": FILTERED, "token": "kept", "note": "☃ from [Filtered]:80"})
        );
        let off = Scrubbing {
            enabled: false,
            ..Scrubbing::default()
        };
        let (event, value) = scrubbed(&json!({"extra": {"password": "x"}}), &off);
        assert_eq!(value["extra"]["password"], "x");
        assert!(event.meta.is_empty());
    }
}
