//! The log: one record for each unhandled error.
//!
//! Records go through `tracing`, with the target `backstop`.

use crate::web::Failure;

/// Records an error that nobody handled.
pub(crate) fn unhandled(failure: &Failure) {
    let error = failure.error();
    tracing::error!(
        target: "backstop",
        method = %failure.method(),
        path = %escape_controls(&failure.path()),
        route = failure.route(),
        blueprint = failure.blueprint(),
        request_id = failure.request_id(),
        error_kind = error.kind_name(),
        error_chain = %Chain(error),
        error_place = %error.location(),
        error_context = error.context().map(|first| tracing::field::display(Chain(first))),
        "Exception on {} [{}]",
        escape_controls(&failure.path()),
        failure.method(),
    );
}

/// Records an error that left the application: a 500 handler failed, or errors propagate.
pub(crate) fn escaped(failure: &Failure) {
    let error = failure.error();
    tracing::error!(
        target: "backstop::server",
        method = %failure.method(),
        path = %escape_controls(&failure.path()),
        request_id = failure.request_id(),
        error_kind = error.kind_name(),
        error_chain = %Chain(error),
        error_place = %error.location(),
        "Error on request:",
    );
}

/// Records, for developers, which handler is asked.
pub(crate) fn answering(failure: &Failure, on: &str) {
    tracing::debug!(
        target: "backstop",
        error_kind = failure.error().kind_name(),
        handler = on,
        "an error handler answers",
    );
}

/// Records an error in a body of which a part has been sent.
pub(crate) fn stream_failed(failure: &Failure, bytes_sent: u64) {
    let error = failure.error();
    tracing::error!(
        target: "backstop::server",
        method = %failure.method(),
        path = %escape_controls(&failure.path()),
        route = failure.route(),
        request_id = failure.request_id(),
        bytes_sent,
        error_kind = error.kind_name(),
        error_chain = %Chain(error),
        error_place = %error.location(),
        "Error while streaming a response:",
    );
}

/// Records that something around a request failed, which changes no answer.
pub(crate) fn failed(what: &'static str, error: &crate::Error) {
    tracing::error!(
        target: "backstop",
        error_kind = error.kind_name(),
        error_chain = %Chain(error),
        error_place = %error.location(),
        "{what}",
    );
}

/// Text from a request, safe for a line of a log: control characters are escaped.
pub(crate) fn escape_controls(text: &str) -> String {
    if !text.contains(is_control) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_control(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Control characters, and those that change the direction or the lines of a text.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// An error and its causes in one line.
struct Chain<'a>(&'a crate::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (depth, error) in self.0.chain().enumerate() {
            if depth > 0 {
                f.write_str(": ")?;
            }
            f.write_str(&escape_controls(&error.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_controls("/a\nb"), "/a\\nb");
        assert_eq!(escape_controls("/größe"), "/größe");
        assert_eq!(
            escape_controls("\u{1b}[31m\u{202e}"),
            "\\u{1b}[31m\\u{202e}"
        );
    }
}
