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
        _ => first_line(message_text(event).1),
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

pub(super) fn site_reason(
    facts: &Facts<'_>,
    function: &Function<'_>,
    caller: Option<&Function<'_>>,
) -> String {
    let mut reason = article(&facts.types);
    if !facts.operation.is_empty() {
        reason.push_str(&format!(" ({}", facts.operation));
        if !facts.subject.is_empty() {
            reason.push_str(&format!(" “{}”", facts.subject));
        }
        reason.push(')');
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
