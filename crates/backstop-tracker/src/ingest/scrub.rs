//! Removing secrets from events before they are stored.
//!
//! An event goes in and is changed in place: a value whose name is that of a secret is replaced
//! whole, and inside texts card numbers, bearer tokens, passwords in URLs and private keys are
//! replaced (and, where a project wants it, e-mail addresses and IP addresses).
//! Every replacement is marked beside the data, in Sentry's form: `_meta` holds
//! `"rem": [["@password:filter", "s"]]` at the same path.

use std::borrow::Cow;

use backstop_protocol::{Event, Lazy, Object, Piece, Stacktrace, Unread};
use serde_json::{Value, json};

use super::settings::Scrubbing;

/// What stands where a secret was.
pub(super) const FILTERED: &str = "[Filtered]";

/// More marks than this say nothing new about an event; replacing goes on without them.
const MARKS_MAX: usize = 200;

/// Longer names are no names.
const NAME_BYTES_MAX: usize = 128;

/// Why something was replaced, by the names that Sentry's rules have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Password,
    Card,
    Bearer,
    UrlAuth,
    PrivateKey,
    Email,
    Ip,
}

impl Rule {
    fn id(self) -> &'static str {
        match self {
            Rule::Password => "@password:filter",
            Rule::Card => "@creditcard:filter",
            Rule::Bearer => "@bearer:filter",
            Rule::UrlAuth => "@urlauth:filter",
            Rule::PrivateKey => "@pemkey:filter",
            Rule::Email => "@email:filter",
            Rule::Ip => "@ip:filter",
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
                        scrubber.unread(data, |scrubber, data| scrubber.value(data, None));
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
                scrubber.at("ip_address", |scrubber| scrubber.mark(Rule::Ip, None));
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
        self.unread(lines, |scrubber, lines| {
            scrubber.each(name, lines, |scrubber, line| scrubber.text(line, None));
        });
    }

    fn members(&mut self, name: &'static str, object: &mut Lazy<Object>) {
        self.at(name, |scrubber| {
            scrubber.unread(object, |scrubber, object| scrubber.object(object, None));
        });
    }

    /// Leaves a part unread if there is nothing to find in it, as nearly always.
    fn unread<T: Unread>(&mut self, part: &mut Lazy<T>, work: impl FnOnce(&mut Self, &mut T)) {
        let found = part.any_piece(|piece| match piece {
            Piece::Name(name) => self.settings.enabled && self.is_secret(name),
            Piece::Text(text) => clean(text, self.settings).is_some(),
        });
        if found != Some(false) {
            work(self, part.get_mut());
        }
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
                        scrubber.mark(Rule::Password, None);
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
            self.mark(Rule::Password, Some(below));
        }
    }

    fn text(&mut self, text: &mut String, below: Option<&Below<'_>>) {
        let Some((clean, rule)) = clean(text, self.settings) else {
            return;
        };
        *text = clean;
        self.mark(rule, below);
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
        is_secret(name)
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

/// Words that make a name that of a secret; a name is split at signs and at capitals.
const WORDS: [&str; 27] = [
    "auth",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "csrf",
    "csrftoken",
    "cvc",
    "cvv",
    "jwt",
    "otp",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "pwd",
    "secret",
    "secrets",
    "sessid",
    "sessionid",
    "ssn",
    "token",
    "tokens",
    "xsrf",
    "apikey",
    "cookie",
    "phpsessid",
];

/// Two words that only together are a secret's name, and their form without a sign between.
const PAIRS: [(&str, &str); 9] = [
    ("access", "key"),
    ("api", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("signing", "key"),
    ("encryption", "key"),
    ("master", "key"),
    ("session", "key"),
    ("card", "number"),
];

/// Long words that are a secret's name inside other words as well.
const PARTS: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "apikey",
    "privatekey",
    "accesskey",
    "accesstoken",
    "sessionid",
];

/// Says whether a value of this name is a secret.
fn is_secret(name: &str) -> bool {
    if name.len() > NAME_BYTES_MAX || name.len() < 3 {
        return false;
    }
    // Only ASCII letters decide; the rest separates words.
    let mut lower = [0_u8; NAME_BYTES_MAX];
    for (small, byte) in lower.iter_mut().zip(name.bytes()) {
        *small = byte.to_ascii_lowercase();
    }
    let Ok(lower) = std::str::from_utf8(&lower[..name.len()]) else {
        return false;
    };
    if !may_be_secret(lower) {
        return false;
    }
    if PARTS.iter().any(|part| lower.contains(part)) {
        return true;
    }
    let mut before = "";
    for word in words(name) {
        let word = &lower[word];
        if WORDS.contains(&word) || PAIRS.contains(&(before, word)) {
            return true;
        }
        before = word;
    }
    false
}

/// A quick look that lets most names pass: every word above has one of these in it.
fn may_be_secret(lower: &str) -> bool {
    const HINTS: [&str; 14] = [
        "pass", "pwd", "secret", "key", "auth", "token", "cred", "cookie", "csrf", "xsrf", "sess",
        "cv", "jwt", "bearer",
    ];
    HINTS.iter().any(|hint| lower.contains(hint))
        || ["otp", "ssn", "number"]
            .iter()
            .any(|hint| lower.contains(hint))
}

/// Returns where the words of a name are: `userPassword`, `user_password`, `'user-password'`.
fn words(name: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let bytes = name.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !bytes[at].is_ascii_alphabetic() {
            at += 1;
        }
        let from = at;
        while at < bytes.len() && bytes[at].is_ascii_alphabetic() {
            let capital_after_small =
                at > from && bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase();
            if capital_after_small {
                break;
            }
            at += 1;
        }
        (from < at).then_some(from..at)
    })
}

/// Returns the text without what is secret in it, and the first rule that found something.
fn clean(text: &str, settings: &Scrubbing) -> Option<(String, Rule)> {
    let signs = Signs::of(text.as_bytes());
    let mut spans: Vec<(usize, usize, Rule)> = Vec::new();
    if settings.enabled {
        if signs.at && text.contains("://") {
            url_passwords(text, &mut spans);
        }
        if signs.hyphens >= 10 {
            private_keys(text, &mut spans);
        }
        if signs.digits >= CARD_DIGITS_MIN {
            cards(text, &mut spans);
        }
        if signs.b && signs.space {
            bearers(text, &mut spans);
        }
        if signs.at && settings.emails {
            emails(text, &mut spans);
        }
    }
    if settings.ip_addresses && signs.digits >= 4 && signs.dot {
        ip_addresses(text, &mut spans);
    }
    let rule = spans.first()?.2;
    spans.sort_unstable();
    let mut clean = String::with_capacity(text.len());
    let mut end = 0;
    for (from, to, _) in spans {
        if from >= end {
            clean.push_str(&text[end..from]);
            clean.push_str(FILTERED);
        }
        end = end.max(to);
    }
    clean.push_str(&text[end..]);
    Some((clean, rule))
}

/// Which signs a text has, so that most texts are looked through once only.
#[derive(Default)]
struct Signs {
    digits: usize,
    hyphens: usize,
    at: bool,
    b: bool,
    space: bool,
    dot: bool,
}

impl Signs {
    fn of(bytes: &[u8]) -> Signs {
        let mut signs = Signs::default();
        // Short runs of bytes are counted in bytes, which the compiler turns into vectors.
        for chunk in bytes.chunks(128) {
            let (mut digits, mut hyphens) = (0_u8, 0_u8);
            let (mut at, mut b, mut space, mut dot) = (0_u8, 0_u8, 0_u8, 0_u8);
            for byte in chunk {
                digits += u8::from(byte.is_ascii_digit());
                hyphens += u8::from(*byte == b'-');
                at |= u8::from(*byte == b'@');
                b |= u8::from(*byte | 32 == b'b');
                space |= u8::from(*byte == b' ');
                dot |= u8::from(*byte == b'.');
            }
            signs.digits += usize::from(digits);
            signs.hyphens += usize::from(hyphens);
            signs.at |= at != 0;
            signs.b |= b != 0;
            signs.space |= space != 0;
            signs.dot |= dot != 0;
        }
        signs
    }
}

type Spans = Vec<(usize, usize, Rule)>;

/// `scheme://user:password@host`: the password.
fn url_passwords(text: &str, spans: &mut Spans) {
    for (scheme_end, _) in text.match_indices("://") {
        let from = scheme_end + 3;
        let rest = &text[from..];
        let end = rest
            .find(|letter: char| {
                letter.is_whitespace() || matches!(letter, '/' | '?' | '#' | '"' | '\'' | '<' | '>')
            })
            .unwrap_or(rest.len());
        let Some(at) = rest[..end].rfind('@') else {
            continue;
        };
        if let Some(colon) = rest[..at].find(':')
            && colon + 1 < at
            && &rest[colon + 1..at] != FILTERED
        {
            spans.push((from + colon + 1, from + at, Rule::UrlAuth));
        }
    }
}

/// Everything between the lines of a PEM file that holds a private key.
fn private_keys(text: &str, spans: &mut Spans) {
    const END: &str = "PRIVATE KEY-----";
    let mut from = 0;
    while let Some(begin) = text[from..].find("-----BEGIN ") {
        let begin = from + begin;
        let Some(head) = text[begin..].find(END) else {
            return;
        };
        let body = begin + head + END.len();
        if text[begin + 11..begin + head].len() > 20 {
            from = begin + 11;
            continue;
        }
        // A key that was cut off is still a key.
        let end = text[body..]
            .find("-----END ")
            .map_or(text.len(), |end| body + end);
        if body < end {
            spans.push((body, end, Rule::PrivateKey));
        }
        from = end.max(body);
    }
}

/// Card numbers have 13 to 19 digits (ISO/IEC 7812), of which the last one is a check.
const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;

/// Cards are written without gaps or in groups of at least this many digits.
const CARD_GROUP_MIN: usize = 3;

/// Digits, in groups with single spaces or hyphens between, that are a card's by form and check.
///
/// A card may stand between other numbers, so every run of groups is tried.
fn cards(text: &str, spans: &mut Spans) {
    let bytes = text.as_bytes();
    let digit_at = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let joins =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut at = 0;
    while at < bytes.len() {
        if !digit_at(at) {
            at += 1;
            continue;
        }
        let before = at.checked_sub(1).and_then(|place| bytes.get(place));
        let mut groups = Vec::new();
        loop {
            let from = at;
            while digit_at(at) {
                at += 1;
            }
            groups.push((from, at));
            match bytes.get(at) {
                Some(b' ' | b'-') if digit_at(at + 1) => at += 1,
                _ => break,
            }
        }
        // Inside a word or a decimal fraction, digits are something else.
        let fraction = bytes.get(at) == Some(&b'.') && digit_at(at + 1);
        let first = usize::from(joins(before) || before == Some(&b'.'));
        let last = groups.len() - usize::from(joins(bytes.get(at)) || fraction);
        if let Some(groups) = groups.get(first..last) {
            cards_of_groups(bytes, groups, spans);
        }
    }
}

fn cards_of_groups(bytes: &[u8], groups: &[(usize, usize)], spans: &mut Spans) {
    let mut start = 0;
    while start < groups.len() {
        let mut digits = Vec::with_capacity(CARD_DIGITS_MAX);
        let mut found = None;
        for (place, (from, to)) in groups.iter().enumerate().skip(start) {
            let short = |place: usize| groups[place].1 - groups[place].0 < CARD_GROUP_MIN;
            let in_groups = place > start && (short(start) || short(place));
            if in_groups || digits.len() + (to - from) > CARD_DIGITS_MAX {
                break;
            }
            digits.extend(bytes[*from..*to].iter().map(|digit| digit - b'0'));
            if digits.len() >= CARD_DIGITS_MIN && is_card(&digits) {
                found = Some((place, *to));
            }
        }
        start = match found {
            Some((place, to)) => {
                spans.push((groups[start].0, to, Rule::Card));
                place + 1
            }
            None => start + 1,
        };
    }
}

/// The issuers' first digits, the lengths that go with them, and the check of Luhn.
fn is_card(digits: &[u8]) -> bool {
    let plausible = match digits {
        [4, ..] => matches!(digits.len(), 13 | 16 | 19),
        [5, 1..=5, ..] | [2, 2..=7, ..] | [3, 5, ..] => digits.len() == 16,
        [3, 4 | 7, ..] => digits.len() == 15,
        [3, 0 | 6 | 8 | 9, ..] => digits.len() == 14,
        [6, ..] | [5, 0 | 6..=9, ..] => (16..=CARD_DIGITS_MAX).contains(&digits.len()),
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, double) => double / 2,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    plausible && sum.is_multiple_of(10)
}

/// `Bearer abc.def` and `Basic dXNlcjpwYXNz`: what follows the word.
fn bearers(text: &str, spans: &mut Spans) {
    let bytes = text.as_bytes();
    for word in ["bearer ", "basic "] {
        let mut from = 0;
        while let Some(found) = find_ignoring_case(&bytes[from..], word.as_bytes()) {
            let start = from + found + word.len();
            let len = bytes[start..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte))
                .count();
            let token = &text[start..start + len];
            // "bearer of good news", "basic example": a token is long and no word.
            let is_token = len >= 8 && token.bytes().any(|byte| !byte.is_ascii_lowercase());
            if is_token {
                spans.push((start, start + len, Rule::Bearer));
            }
            from = start + len;
        }
    }
}

fn find_ignoring_case(bytes: &[u8], word: &[u8]) -> Option<usize> {
    let first = word[0];
    let mut from = 0;
    while let Some(found) = memchr::memchr2(first, first.to_ascii_uppercase(), &bytes[from..]) {
        let at = from + found;
        let candidate = bytes.get(at..at + word.len())?;
        if candidate.eq_ignore_ascii_case(word) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn emails(text: &str, spans: &mut Spans) {
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'@', bytes) {
        let local =
            |byte: &u8| byte.is_ascii_alphanumeric() || b".!#$%&*+/=?^_{|}~-".contains(byte);
        let domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
        let from = at
            - bytes[..at]
                .iter()
                .rev()
                .take_while(|byte| local(byte))
                .count();
        let end = at
            + 1
            + bytes[at + 1..]
                .iter()
                .take_while(|byte| domain(byte))
                .count();
        if from < at && bytes[at + 1..end].contains(&b'.') {
            spans.push((from, end, Rule::Email));
        }
    }
}

fn ip_addresses(text: &str, spans: &mut Spans) {
    let bytes = text.as_bytes();
    let part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let mut at = 0;
    while at < bytes.len() {
        let len = bytes[at..].iter().take_while(|byte| part(byte)).count();
        // Only where digits were found is this place the beginning of a character.
        let word = if len > 0 {
            text[at..at + len].trim_end_matches('.')
        } else {
            ""
        };
        if word.parse::<std::net::Ipv4Addr>().is_ok() {
            spans.push((at, at + word.len(), Rule::Ip));
        }
        at += len.max(1);
    }
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
    fn names_of_secrets() {
        for name in [
            "password",
            "userPassword",
            "PASSWORD_HASH",
            "'api_key'",
            "X-Api-Key",
            "apiKey",
            "Authorization",
            "auth",
            "client_secret",
            "SECRET_KEY",
            "csrftoken",
            "accessToken",
            "Cookie",
            "sessionid",
            "private-key",
            "my_passwd",
            "jwt",
            "token",
            "cardNumber",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "author",
            "key",
            "keyboard",
            "session",
            "compass",
            "passenger",
            "monkey",
            "id",
            "tokenizer",
            "number",
            "cv",
            "basic",
            "ü",
            "primary_key",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn patterns_in_texts() {
        let settings = Scrubbing {
            emails: true,
            ..Scrubbing::default()
        };
        let check = |text: &str, expected: &str| {
            let clean = clean(text, &settings).map(|(clean, _)| clean);
            assert_eq!(clean.as_deref().unwrap_or(text), expected);
        };
        check("paid with 4111 1111 1111 1111.", "paid with [Filtered].");
        check("card 378282246310005", "card [Filtered]");
        check("card 4111111111111112", "card 4111111111111112"); // wrong check digit
        check(
            "order 1234567890123456789012",
            "order 1234567890123456789012",
        );
        check("at 1795338000250000 us", "at 1795338000250000 us");
        check(
            "0.4111111111111111 4111111111111111.5",
            "0.4111111111111111 4111111111111111.5",
        );
        // Found by fuzzing: other numbers before and after a card hid it.
        check(
            "order 123 4111 1111 1111 1111 99 7",
            "order 123 [Filtered] 99 7",
        );
        check("abc123 4111 1111 1111 1111", "abc123 [Filtered]");
        check(
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        );
        check("x4111111111111111", "x4111111111111111");
        check("Bearer abc.DEF-123", "Bearer [Filtered]");
        check("the bearer of good news", "the bearer of good news");
        check("basic understanding", "basic understanding");
        check("Basic dXNlcjpwYXNz", "Basic [Filtered]");
        check(
            "postgres://shop:hunter2@db/shop",
            "postgres://shop:[Filtered]@db/shop",
        );
        check("see http://host:80/a@b", "see http://host:80/a@b");
        check(
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----[Filtered]-----END RSA PRIVATE KEY-----",
        );
        check(
            "-----BEGIN PRIVATE KEY-----\nMIIB",
            "-----BEGIN PRIVATE KEY-----[Filtered]",
        );
        check(
            "-----BEGIN CERTIFICATE-----\nMIIB",
            "-----BEGIN CERTIFICATE-----\nMIIB",
        );
        check("write to ann@example.test!", "write to [Filtered]!");
        check(
            "5555555555554444 und Bearer AAAABBBB1",
            "[Filtered] und Bearer [Filtered]",
        );
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
