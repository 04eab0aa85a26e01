//! The log: one record for each unhandled error, and a ready set-up for programs that have none.
//!
//! Records go through `tracing`.
//! Unhandled errors have the target `backstop`, errors that left the application or broke a stream
//! `backstop::server`, clients that left `backstop::client`, warnings when the app is built
//! `backstop::setup`.
//! Each has the fields `method`, `path`, `route`, `request_id`, `error` (its text), `error_kind`,
//! `caused_by` and `error_place` (the line of the `?`); control characters are escaped, so that a
//! request cannot write lines of its own.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use backstop_protocol::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::Error;
use crate::web::{Failure, RequestFacts};

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Form {
    /// For people: `[time] ERROR in backstop: Exception on /x [GET]`, then indented details.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Sends the program's log to standard error, unless it has a subscriber already; says whether it
/// did.
///
/// What is shown follows `RUST_LOG`, a list such as `info,sqlx=warn,my_shop::cart=debug`; without it
/// everything from `INFO` up.
/// A list that cannot be read is said on standard error and replaced by `info`.
/// Filters by span or field, which `tracing_subscriber::EnvFilter` knows, are not understood: set up
/// a subscriber of your own for them.
///
/// # Example
///
/// ```
/// use backstop::log::{Form, init};
///
/// assert!(init(Form::Text));
/// assert!(!init(Form::Json)); // there is one already
/// ```
pub fn init(form: Form) -> bool {
    let list = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = filter_of(&list).unwrap_or_else(|problem| {
        eprintln!("RUST_LOG is not understood, info is used: {problem}");
        Targets::new().with_default(tracing::Level::INFO)
    });
    let base = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr);
    match form {
        Form::Text => {
            let subscriber = base.event_format(TextForm).finish().with(filter);
            tracing::subscriber::set_global_default(subscriber).is_ok()
        }
        Form::Json => {
            let subscriber = base.json().flatten_event(true).finish().with(filter);
            tracing::subscriber::set_global_default(subscriber).is_ok()
        }
    }
}

/// What a list as in `RUST_LOG` shows: `INFO` and up for an empty one; targets that a list does not
/// name show errors.
fn filter_of(list: &str) -> Result<Targets, tracing_subscriber::filter::ParseError> {
    let list = list.trim();
    if list.is_empty() {
        return Ok(Targets::new().with_default(tracing::Level::INFO));
    }
    let targets: Targets = list.parse()?;
    Ok(match targets.default_level() {
        Some(_) => targets,
        None => targets.with_default(tracing::Level::ERROR),
    })
}

/// A subscriber that writes everything from `level` up in the text form, for a program that puts
/// its log together itself.
pub fn text_subscriber<W>(level: tracing::Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        .event_format(TextForm)
        .finish()
}

/// The text form, as an event format for `tracing_subscriber`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextForm;

impl<S, N> FormatEvent<S, N> for TextForm
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing::Level::WARN => "WARNING",
            level => level.as_str(),
        };
        let target = metadata.target();
        let text = text_of(event);
        writeln!(writer, "[{}] {level} in {target}: {text}", now())
    }
}

/// A record as text: its message, then its fields on an indented line, then its error.
pub(crate) fn text_of(event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut text = fields.message;
    if !fields.others.is_empty() {
        text.push_str("\n    ");
        text.push_str(&fields.others.join(" "));
    }
    if let Some(error) = fields.error {
        let kind = fields.kind.as_deref().unwrap_or("Error");
        text.push_str(&format!("\n{kind}: {error}"));
        if let Some(place) = fields.place {
            text.push_str(&format!("\n    at {place}"));
        }
        if let Some(causes) = fields.causes {
            text.push_str(&format!("\n    caused by: {causes}"));
        }
    }
    text
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[derive(Default)]
struct Fields {
    message: String,
    error: Option<String>,
    kind: Option<String>,
    place: Option<String>,
    causes: Option<String>,
    others: Vec<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = escape_controls(&format!("{value:?}"));
        match field.name() {
            "message" => self.message = text,
            "error" => self.error = Some(text),
            "error_kind" => self.kind = Some(text),
            "error_place" => self.place = Some(text),
            "caused_by" => self.causes = Some(text),
            name => self.others.push(format!("{name}={text}")),
        }
    }
}

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
        error = %escape_controls(&error.to_string()),
        error_kind = error.kind_name(),
        caused_by = Causes::of(error),
        error_place = error.place(),
        error_context = error
            .context()
            .map(|first| tracing::field::display(escape_controls(&first.to_string()))),
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
        error = %escape_controls(&error.to_string()),
        error_kind = error.kind_name(),
        caused_by = Causes::of(error),
        error_place = error.place(),
        "Error on request:",
    );
}

/// Records, for developers, which handler is asked.
#[inline]
pub(crate) fn answering(failure: &Failure, on: &str) {
    if tracing::Level::DEBUG <= tracing::level_filters::LevelFilter::current() {
        record_answering(failure, on);
    }
}

#[cold]
#[inline(never)]
fn record_answering(failure: &Failure, on: &str) {
    tracing::debug!(
        target: "backstop",
        error_kind = failure.error().kind_name(),
        handler = on,
        "an error handler answers",
    );
}

/// Records a panic that a handler answers: handled or not, the program has a mistake.
pub(crate) fn panic_answered(failure: &Failure) {
    let error = failure.error();
    if error.panic().is_none() {
        return;
    }
    tracing::warn!(
        target: "backstop",
        method = %failure.method(),
        path = %escape_controls(&failure.path()),
        route = failure.route(),
        request_id = failure.request_id(),
        error = %escape_controls(&error.to_string()),
        error_kind = error.kind_name(),
        "a panic was answered by an error handler",
    );
}

/// Records a panic that the user's own code caught, so that nobody else tells of it.
pub(crate) fn panic_kept(message: &str, place: &crate::event::Place) {
    tracing::warn!(
        target: "backstop",
        error = %escape_controls(message),
        error_kind = "Panic",
        error_place = %place,
        "a panic was caught by the program itself",
    );
}

/// Tells whether anybody listens to every record that a panic can become: one that is answered or
/// kept is a warning.
pub(crate) fn is_listening() -> bool {
    tracing::enabled!(target: "backstop", tracing::Level::WARN)
}

/// Records that nobody waits for an answer any more, once for a request. That is no error of ours.
pub(crate) fn abandoned(request: &RequestFacts) {
    if !request.abandon() {
        return;
    }
    tracing::info!(
        target: "backstop::client",
        method = %request.method(),
        path = %escape_controls(request.uri().path()),
        request_id = request.id(),
        status = 499,
        "the client left before it had its answer",
    );
}

/// Records that a client left while it sent its request.
pub(crate) fn left_early(method: &http::Method, uri: &http::Uri) {
    tracing::info!(
        target: "backstop::client",
        %method,
        path = %escape_controls(uri.path()),
        status = 499,
        "the client left before its request was complete",
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
        error = %escape_controls(&error.to_string()),
        error_kind = error.kind_name(),
        caused_by = Causes::of(error),
        error_place = error.place(),
        "Error while streaming a response:",
    );
}

/// Records that something around a request failed, which changes no answer.
pub(crate) fn failed(what: &'static str, error: &Error) {
    tracing::error!(
        target: "backstop",
        error = %escape_controls(&error.to_string()),
        error_kind = error.kind_name(),
        caused_by = Causes::of(error),
        error_place = error.place(),
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

/// What an error was caused by, in one line.
struct Causes<'a>(&'a Error);

impl<'a> Causes<'a> {
    fn of(error: &'a Error) -> Option<tracing::field::DisplayValue<Self>> {
        let has_cause = error.chain().nth(1).is_some();
        has_cause.then(|| tracing::field::display(Self(error)))
    }
}

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, cause) in self.0.chain().skip(1).enumerate() {
            if depth > 0 {
                f.write_str(": ")?;
            }
            f.write_str(&escape_controls(&cause.to_string()))?;
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

    #[test]
    fn a_filter_list_is_read_as_in_rust_log() {
        use tracing::Level;

        let empty = filter_of(" ").unwrap();
        assert!(empty.would_enable("shop", &Level::INFO));
        assert!(!empty.would_enable("shop", &Level::DEBUG));
        let list = filter_of("warn,shop=debug").unwrap();
        assert!(list.would_enable("shop::cart", &Level::DEBUG));
        assert!(!list.would_enable("sqlx", &Level::INFO));
        let named = filter_of("shop=info").unwrap();
        assert!(named.would_enable("sqlx", &Level::ERROR));
        assert!(!named.would_enable("sqlx", &Level::WARN));
        assert!(filter_of("shop=loud").is_err());
    }
}
