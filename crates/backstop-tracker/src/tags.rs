//! The tags of an event: what the sender gave, and what people ask for as if it were one.

use std::fmt::Write;

use backstop_protocol::Event;
use serde_json::Value;

/// Tags of one event that are counted; the body keeps all.
const TAGS_MAX: usize = 50;
const KEY_CHARS_MAX: usize = 64;
const VALUE_CHARS_MAX: usize = 200;

/// The contexts whose name and version are a tag.
const CONTEXTS: [&str; 4] = ["browser", "runtime", "os", "device"];

/// The tags of one event, each key once.
///
/// They lie in one text: an event has a dozen, and whoever counts them runs on another thread than
/// who gathered them, so that two strings for each would cost more than the counting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    text: String,
    tags: Vec<Tag>,
}

/// Where a key and its value end in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    key: u32,
    value: u32,
}

impl Tags {
    /// Gathers the tags of an event.
    pub(crate) fn of(event: &Event) -> Tags {
        let mut tags = Tags::default();
        let mut scratch = String::new();
        tags.put("level", event.level.as_str());
        let fields = [
            ("environment", &event.environment),
            ("release", &event.release),
            ("dist", &event.dist),
            ("server_name", &event.server_name),
            ("logger", &event.logger),
            ("transaction", &event.transaction),
        ];
        for (key, value) in fields {
            tags.put(key, value.as_deref().unwrap_or_default());
        }
        user(event, &mut scratch);
        tags.put("user", &scratch);
        let request = event.request.as_ref();
        if let Some(url) = request.and_then(|request| request.url.as_deref()) {
            // The query string is of no use as a tag, and may hold secrets.
            tags.put("url", url.split(['?', '#']).next().unwrap_or_default());
        }
        let contexts = event.contexts.pick(CONTEXTS);
        for (name, context) in CONTEXTS.iter().zip(&contexts) {
            if let Some(context) = context {
                name_and_version(context, &mut scratch);
                tags.put(name, &scratch);
            }
        }
        let last = event.exception.last();
        if let Some(mechanism) = last.and_then(|last| last.mechanism.as_ref()) {
            tags.put("mechanism", mechanism.ty.as_deref().unwrap_or_default());
            if let Some(handled) = mechanism.handled {
                tags.put("handled", if handled { "yes" } else { "no" });
            }
        }
        for (key, value) in &event.tags {
            match value {
                Value::String(value) => tags.put(key, value),
                Value::Number(value) => tags.put(key, &value.to_string()),
                Value::Bool(value) => tags.put(key, if *value { "true" } else { "false" }),
                Value::Null | Value::Array(_) | Value::Object(_) => {}
            }
        }
        tags
    }

    /// Goes through the keys with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut from = 0;
        self.tags.iter().map(move |tag| {
            let (key, value) = (tag.key as usize, tag.value as usize);
            let start = std::mem::replace(&mut from, value);
            (&self.text[start..key], &self.text[key..value])
        })
    }

    /// Adds a tag, unless there is one with this key, nothing in it, or no room.
    fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (
            cut(key.trim(), KEY_CHARS_MAX),
            cut(value.trim(), VALUE_CHARS_MAX),
        );
        let room = self.tags.len() < TAGS_MAX && self.iter().all(|(other, _)| other != key);
        if !room || key.is_empty() || value.is_empty() {
            return;
        }
        self.text.push_str(key);
        let end = self.text.len();
        self.text.push_str(value);
        // Fifty tags of 264 characters.
        self.tags.push(Tag {
            key: end as u32,
            value: self.text.len() as u32,
        });
    }
}

/// Who met the error: the first of id, user name, address and network address.
fn user(event: &Event, out: &mut String) {
    out.clear();
    let Some(user) = &event.user else { return };
    // Writing to a string cannot fail.
    let _ = match &user.id {
        Some(Value::String(id)) if !id.is_empty() => write!(out, "id:{id}"),
        Some(Value::Number(id)) => write!(out, "id:{id}"),
        _ => {
            let named = [
                ("username", &user.username),
                ("email", &user.email),
                ("ip", &user.ip_address),
            ];
            let mut named = named.into_iter().filter_map(|(kind, value)| {
                let value = value.as_deref().filter(|value| !value.is_empty())?;
                Some((kind, value))
            });
            match named.next() {
                Some((kind, value)) => write!(out, "{kind}:{value}"),
                None => Ok(()),
            }
        }
    };
}

fn name_and_version(context: &Value, out: &mut String) {
    out.clear();
    let text = |key| context.get(key).and_then(Value::as_str);
    let Some(name) = text("name").or_else(|| text("model")) else {
        return;
    };
    out.push_str(name);
    if let Some(version) = text("version") {
        out.push(' ');
        out.push_str(version);
    }
}

/// Returns the first characters of a text.
pub(crate) fn cut(text: &str, chars_max: usize) -> &str {
    // A character has at least one byte.
    if text.len() <= chars_max {
        return text;
    }
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
