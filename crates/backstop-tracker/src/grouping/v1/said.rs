//! What people read about a group.

use backstop_protocol::{Event, Exception};

use super::super::site::Function;
use super::super::value::cut;
use super::facts::Facts;
use super::text::message_text;

/// Titles are headlines.
const TITLE_BYTES_MAX: usize = 200;

/// What people read about a group.
pub(super) struct Said {
    pub(super) title: String,
    pub(super) culprit: String,
    pub(super) reason: String,
}

impl Said {
    pub(super) fn new(event: &Event, function: Option<&Function<'_>>, reason: String) -> Said {
        let culprit = match function {
            Some(function) if function.place.is_empty() => function.name.to_string(),
            Some(function) => format!("{} in {}", function.name, function.place),
            None => event
                .transaction
                .clone()
                .or(event.culprit.clone())
                .unwrap_or_default(),
        };
        Said {
            title: title(event),
            culprit,
            reason,
        }
    }
}

fn title(event: &Event) -> String {
    let first_line =
        |text: &str| cut(text.lines().next().unwrap_or_default(), TITLE_BYTES_MAX).to_owned();
    match event.exception.last() {
        Some(Exception {
            ty: Some(ty),
            value,
            ..
        }) => match value.as_deref() {
            None | Some("") => first_line(ty),
            Some(value) => first_line(&format!("{ty}: {value}")),
        },
        _ => match first_line(message_text(event).1) {
            // As Sentry calls it; a headline has to be something to click on.
            text if text.is_empty() => "<unlabeled event>".to_owned(),
            text => text,
        },
    }
}

pub(super) fn article(types: &[String]) -> String {
    match types {
        [] => "errors".into(),
        [one] if one.is_empty() => "errors".into(),
        [one] => format!("every {one}"),
        [outer, inner @ ..] => format!("every {outer} caused by {}", inner.join(" caused by ")),
    }
}

/// The failed operation and the name it failed on, for people: hashes are made of the short names.
fn failure(operation: &str, subject: &str) -> String {
    let quoted = if subject.is_empty() {
        String::new()
    } else {
        format!(" “{subject}”")
    };
    match operation {
        "property of nothing" => format!("reading{quoted} from nothing"),
        "set on nothing" => format!("setting{quoted} on nothing"),
        "not defined" | "not assigned" if !subject.is_empty() => format!("“{subject}” {operation}"),
        "too early" if !subject.is_empty() => format!("“{subject}” used too early"),
        "too early" => "used too early".into(),
        "too deep" => "calls nested too deep".into(),
        "unwrap on none" => "unwrap of a None".into(),
        "unwrap on error" => "unwrap of an error".into(),
        "unwrap on ok" => "unwrap of an error that was none".into(),
        operation => format!("{operation}{quoted}"),
    }
}

/// The message and, if there is one, the transaction, for people.
pub(super) fn said_where(message: &str, transaction: &str) -> String {
    let mut text = String::new();
    if !message.is_empty() {
        text.push_str(&format!(
            " with the message “{}”",
            cut(message, TITLE_BYTES_MAX)
        ));
    }
    if !transaction.is_empty() {
        let and = if message.is_empty() { "" } else { "," };
        text.push_str(&format!("{and} in the transaction “{transaction}”"));
    }
    text
}

pub(super) fn site_reason(
    facts: &Facts<'_>,
    function: &Function<'_>,
    caller: Option<&Function<'_>>,
) -> String {
    let mut reason = article(&facts.types);
    if !facts.operation.is_empty() {
        reason.push_str(&format!(" ({})", failure(facts.operation, facts.subject)));
    }
    reason.push_str(&format!(" raised in {}", function.name));
    if !function.place.is_empty() {
        reason.push_str(&format!(" ({})", function.place));
    }
    if !facts.words.is_empty() {
        reason.push_str(&format!(" with the words “{}”", facts.words));
    }
    if let Some(caller) = caller {
        reason.push_str(&format!(
            " when called by {}, because that function raises for several callers",
            if caller.name.is_empty() {
                "a function without a name"
            } else {
                &caller.name
            }
        ));
    }
    reason
}

pub(super) fn asked_by<T: AsRef<str>>(rule: Option<&str>, values: &[T]) -> String {
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    let values = values.join(", ");
    match rule {
        Some(rule) => format!("events with the fingerprint “{values}”, given by the rule “{rule}”"),
        None => format!("events with the fingerprint “{values}” that the sender gave"),
    }
}
