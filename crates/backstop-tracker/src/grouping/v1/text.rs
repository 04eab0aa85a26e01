//! Hashes of what has none of the user's code on its stack, or no stack: by package, message,
//! transaction and policy.

use std::borrow::Cow;
use std::sync::Mutex;

use backstop_protocol::{Event, Exception, Frame};
use serde_json::Value;

use super::super::Part;
use super::super::learn::{Learned, number};
use super::super::message::{
    has_one_word, learned_template, open_templates, position, proven_template,
};
use super::super::name::Family;
use super::super::site;
use super::super::statement::Statement;
use super::super::value::cut;
use super::facts::{Facts, frames};
use super::keys::{Keys, Named};
use super::said::{Said, article, said_where};
use super::throw::lock;

/// The beginning of a message that is compared with the transaction.
const MESSAGE_BYTES_MAX: usize = 400;

/// None of the user's code is in the stack, or there is no stack.
pub(super) fn no_site(
    family: Family,
    event: &Event,
    line: &[&Exception],
    facts: &Facts<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let frame = line
        .iter()
        .rev()
        .find_map(|exception| site::framework_frame(family, frames(exception)));
    let what = article(&facts.types);
    let Some(frame) = frame else {
        let outer = line[0]
            .value
            .as_deref()
            .filter(|_| line.len() > 1 && is_generic(&facts.types[0]));
        let outer = outer
            .map(|text| proven_template(event, text, None))
            .unwrap_or_default();
        let scope = Scope {
            role: "value",
            texts: [
                ("types", &facts.all_types),
                ("operation", facts.operation),
                ("outer message", &outer),
            ],
        };
        let shown = add_text(Part::Message, &scope, &facts.template, false, learned, keys);
        let reason = format!("{what} without a stack trace, with the message “{shown}”");
        return Said::new(event, None, reason);
    };
    let transaction = transaction(event);
    let package = frame
        .place
        .split(['.', '/', ':'])
        .next()
        .unwrap_or_default();
    keys.add(
        Part::Framework,
        true,
        true,
        "framework",
        [
            ("types", facts.all_types.as_str()),
            ("operation", facts.operation),
            ("message", &facts.template),
            ("package", package),
            ("transaction", &transaction),
        ],
    );
    let said = said_where(&facts.template, &transaction);
    let comma = if said.is_empty() { "" } else { "," };
    let reason =
        format!("{what} raised by {package} with none of your code on the stack{comma}{said}");
    Said::new(
        event,
        Some(&frame).filter(|_| transaction.is_empty()),
        reason,
    )
}

/// Types that say nothing about the failure.
fn is_generic(ty: &str) -> bool {
    matches!(ty, "" | "Error" | "Exception" | "RuntimeError" | "panic")
}

/// A message without an exception.
pub(super) fn message(event: &Event, learned: &Mutex<Learned>, keys: &mut Keys) -> Said {
    let (has_template, text) = message_text(event);
    let logger = event.logger.as_deref().unwrap_or_default();
    if text.is_empty() {
        keys.add(Part::Nothing, true, true, "nothing", [("logger", logger)]);
        return Said::new(
            event,
            None,
            "events that carry neither an exception nor a message".into(),
        );
    }
    let template = if has_template {
        text.to_owned()
    } else {
        let statement = logging_frame(event).and_then(Statement::of);
        let literals = statement.map(|statement| statement.literal_words(text));
        proven_template(event, text, literals.as_deref())
    };
    let scope = Scope {
        role: "message",
        texts: [("logger", logger)],
    };
    let shown = add_text(
        Part::Message,
        &scope,
        &template,
        has_template,
        learned,
        keys,
    );
    Said::new(
        event,
        None,
        format!("events with the message “{shown}”, whatever the values in it"),
    )
}

/// What a text stands beside.
pub(super) struct Scope<'t, const N: usize> {
    pub(super) role: &'static str,
    pub(super) texts: [Named<'t>; N],
}

/// Adds the hashes of a text that stands alone, and returns the template that decides.
pub(super) fn add_text<const N: usize>(
    part: Part,
    scope: &Scope<'_, N>,
    template: &str,
    is_certain: bool,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> String {
    let with = |name, text| scope.texts.into_iter().chain([(name, text)]);
    keys.add(part, true, true, scope.role, with("message", template));
    if is_certain {
        return template.to_owned();
    }
    let open = open_templates(template);
    let texts = scope.texts.iter().map(|(_, text)| *text);
    let scope_number = number([scope.role].into_iter().chain(texts));
    if has_one_word(template) {
        // What proves the word here may be missing in other events of the same message.
        lock(learned).note_data(position(scope_number, template));
        let texts = with("message", template).chain([("", "open")]);
        keys.add(part, true, true, scope.role, texts);
    }
    let found = learned_template(&mut lock(learned), scope_number, &open);
    for (index, (open, _)) in open.iter().enumerate() {
        let texts = with("message", open).chain([("", "open")]);
        keys.add(part, found == Some(index), true, scope.role, texts);
    }
    found.map_or_else(|| template.to_owned(), |index| open[index].0.clone())
}

/// The frame that logged a message with a stack: the user's innermost one.
fn logging_frame(event: &Event) -> Option<&Frame> {
    let stack = event
        .exception
        .last()
        .and_then(|exception| exception.stacktrace.as_ref());
    let stack = stack.or(event.stacktrace.as_ref())?;
    stack
        .frames
        .iter()
        .rev()
        .find(|frame| frame.in_app == Some(true))
}

/// The message's template if the sender gave one, else its text.
pub(super) fn message_text(event: &Event) -> (bool, &str) {
    let legacy = event.other.get("message").and_then(|value| value.as_str());
    let synthetic = event
        .exception
        .last()
        .and_then(|exception| exception.value.as_deref());
    match &event.message {
        Some(message) => {
            let raw = message.message.as_deref();
            let formatted = message.formatted.as_deref();
            let has_params = match &message.params {
                Some(Value::Array(params)) => !params.is_empty(),
                Some(Value::Object(params)) => !params.is_empty(),
                _ => false,
            };
            let is_filled_in = formatted.is_some() && raw != formatted;
            let is_template = raw.is_some() && (is_filled_in || has_params);
            (is_template, raw.or(formatted).unwrap_or_default())
        }
        None => (false, legacy.or(synthetic).unwrap_or_default()),
    }
}

/// The transaction, if the sender says that it is a route or a name and not a path with values.
pub(super) fn reliable_transaction(event: &Event) -> Option<&str> {
    let source = event
        .other
        .get("transaction_info")
        .and_then(|info| info.get("source"));
    let source = source.and_then(|source| source.as_str());
    let is_reliable = matches!(
        source,
        Some("route" | "component" | "view" | "task" | "custom")
    );
    event.transaction.as_deref().filter(|_| is_reliable)
}

/// The transaction without the ids and the words of the message in its path.
pub(super) fn transaction(event: &Event) -> Cow<'_, str> {
    let name = event.transaction.as_deref().unwrap_or_default();
    let name = name.split('?').next().unwrap_or_default();
    let said = match event.exception.last() {
        Some(exception) => exception.value.as_deref().unwrap_or_default(),
        None => message_text(event).1,
    };
    // A client that does not know the route sends the path, and what a message repeats of it is
    // likely to be data of this one request.
    let is_raw = name.contains('/') && reliable_transaction(event).is_none();
    let is_data = |part: &str| {
        part.contains(|c: char| c.is_ascii_digit()) || (is_raw && has_word(said, part))
    };
    if !name.split('/').any(is_data) {
        return Cow::Borrowed(name);
    }
    let parts = name
        .split('/')
        .map(|part| if is_data(part) { "*" } else { part });
    Cow::Owned(parts.collect::<Vec<_>>().join("/"))
}

/// Says whether a text holds a word of at least three bytes.
fn has_word(text: &str, word: &str) -> bool {
    const WORD_BYTES_MIN: usize = 3;
    let text = cut(text, MESSAGE_BYTES_MAX);
    word.len() >= WORD_BYTES_MIN
        && text.match_indices(word).any(|(at, _)| {
            !text[..at].ends_with(char::is_alphanumeric)
                && !text[at + word.len()..].starts_with(char::is_alphanumeric)
        })
}

/// Reports that are neither an exception nor a message: a browser's policy report, a template.
pub(super) fn report(event: &Event, keys: &mut Keys) -> Option<Said> {
    if let Some(csp) = event.other.get("csp") {
        let text = |key: &str| csp.get(key).and_then(Value::as_str).unwrap_or_default();
        let directive = match text("effective_directive") {
            "" => text("violated_directive")
                .split(' ')
                .next()
                .unwrap_or_default(),
            directive => directive,
        };
        let blocked = blocked_origin(text("blocked_uri"));
        let texts = [("directive", directive), ("blocked", blocked)];
        keys.add(Part::Report, true, true, "csp", texts);
        let reason = format!("policy reports about {directive} and {blocked}");
        return Some(Said::new(event, None, reason));
    }
    let template = event.template.as_ref()?;
    let text = |key: &str| {
        template
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let file = if text("filename").is_empty() {
        text("abs_path")
    } else {
        text("filename")
    };
    keys.add(Part::Report, true, true, "template", [("template", file)]);
    Some(Said::new(
        event,
        None,
        format!("failures of the template {file}"),
    ))
}

/// The host that a policy blocked; without one the keyword (`inline`, `eval`, `data`).
fn blocked_origin(uri: &str) -> &str {
    match uri.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', ':']).next().unwrap_or_default(),
        None => uri.split(':').next().unwrap_or_default(),
    }
}
