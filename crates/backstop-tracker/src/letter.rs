//! What a mail about issues says: found once, written as text and as HTML.
//!
//! Both forms say the same; the HTML is for eyes, loads nothing from elsewhere and follows the
//! reader's light or dark mode where the mail program does.

use std::fmt::Write as _;

use backstop::stacktrace::preview;
use backstop_protocol::{Event, Exception, Frame};
use minijinja::Environment;
use serde::Serialize;

use crate::model::{Alert, AlertKind};
use crate::web::exact;

/// The template of a mail about one issue.
const ONE: &str = "mail.html";

/// The template of a mail about many issues.
const MANY: &str = "mail_list.html";

/// Frames shown of each exception; the page has all.
const FRAMES_MAX: usize = 8;

/// Exceptions shown of a chain; the page has all.
const EXCEPTIONS_MAX: usize = 6;

/// Variables shown where it failed; the page has all.
const VARIABLES_MAX: usize = 20;

/// Characters of a variable shown in a mail.
const VALUE_CHARS_MAX: usize = 120;

/// Characters of a name, a file or an address shown in a mail.
const NAME_CHARS_MAX: usize = 200;

/// Characters of a message shown in a mail; some clients send whole pages as one.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// A mail about one issue.
#[derive(Debug, Serialize)]
pub(crate) struct Letter {
    title: String,
    culprit: String,
    project: String,
    short_id: String,
    level: &'static str,
    /// Why it is sent.
    reason: String,
    url: String,
    request: Option<String>,
    /// The raised error first, then what caused it.
    chain: Vec<Link>,
    /// Names and values about the program and the issue.
    facts: Vec<(&'static str, String)>,
}

/// One exception of the chain.
#[derive(Debug, Serialize)]
struct Link {
    ty: String,
    value: String,
    /// Innermost first.
    frames: Vec<Place>,
}

/// One frame.
#[derive(Debug, Serialize)]
struct Place {
    file: String,
    function: String,
    source: Option<String>,
    /// Of the frame that failed only.
    variables: Vec<(String, String)>,
}

impl Letter {
    /// Finds what there is to say of alerts about one issue; `event` is one of its events, if any
    /// is kept.
    pub(crate) fn new(alerts: &[Alert], event: Option<&Event>, public_url: &str) -> Letter {
        let issue = &alerts[0].issue;
        let words: Vec<String> = alerts.iter().map(|alert| words_for(alert.kind)).collect();
        let mut facts = Vec::new();
        if let Some(event) = event {
            facts.extend(
                [
                    ("Release", &event.release),
                    ("Environment", &event.environment),
                    ("Host", &event.server_name),
                ]
                .into_iter()
                .filter_map(|(name, value)| Some((name, name_of(value.as_deref()?)))),
            );
        }
        facts.push(("Events", crate::web::count(issue.count)));
        facts.push(("First seen", exact(issue.first_seen)));
        facts.push(("Last seen", exact(issue.last_seen)));
        Letter {
            title: issue.title.clone(),
            culprit: issue.culprit.clone(),
            project: issue.project_slug.clone(),
            short_id: issue.short_id.clone(),
            level: issue.level.as_str(),
            reason: words.join("; "),
            url: format!("{public_url}/issues/{}/", issue.id),
            request: event.and_then(request_of),
            chain: event.map(chain_of).unwrap_or_default(),
            facts,
        }
    }

    /// Writes the letter as plain text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        if !self.culprit.is_empty() {
            // Writing into a String cannot fail, here and below.
            let _ = writeln!(text, "in {}", self.culprit);
        }
        let _ = writeln!(text, "\n{}: {}\n{}\n", self.project, self.reason, self.url);
        if let Some(request) = &self.request {
            let _ = writeln!(text, "{request}\n");
        }
        for (index, link) in self.chain.iter().enumerate() {
            let cause = if index == 0 { "" } else { "caused by " };
            let _ = writeln!(text, "{cause}{}: {}", link.ty, link.value);
            for place in &link.frames {
                let _ = writeln!(text, "  {} in {}", place.file, place.function);
                if let Some(source) = &place.source {
                    let _ = writeln!(text, "    {source}");
                }
                for (name, value) in &place.variables {
                    let _ = writeln!(text, "      {name} = {value}");
                }
            }
            text.push('\n');
        }
        for (name, value) in &self.facts {
            let _ = writeln!(text, "{name}: {value}");
        }
        text
    }

    /// Writes the letter as HTML; `None` if the user's own template fails, which the log says.
    pub(crate) fn html(&self, templates: &Environment<'_>) -> Option<String> {
        render(templates, ONE, self)
    }
}

/// A mail about many issues at once.
#[derive(Debug, Serialize)]
pub(crate) struct List {
    title: String,
    issues: Vec<Line>,
}

/// One issue of a list.
#[derive(Debug, Serialize)]
struct Line {
    short_id: String,
    title: String,
    reason: String,
    project: String,
    url: String,
}

impl List {
    /// Lists the issues of alerts.
    pub(crate) fn new(alerts: &[Alert], public_url: &str) -> List {
        let line = |alert: &Alert| Line {
            short_id: alert.issue.short_id.clone(),
            title: alert.issue.title.clone(),
            reason: words_for(alert.kind),
            project: alert.issue.project_slug.clone(),
            url: format!("{public_url}/issues/{}/", alert.issue.id),
        };
        List {
            title: format!("{} more issues need a look", alerts.len()),
            issues: alerts.iter().map(line).collect(),
        }
    }

    /// Writes the list as plain text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}:\n\n", self.title);
        for issue in &self.issues {
            let _ = writeln!(
                text,
                "[{}] {}\n    {} ({})\n    {}\n",
                issue.short_id, issue.title, issue.reason, issue.project, issue.url
            );
        }
        text
    }

    /// As [`Letter::html`].
    pub(crate) fn html(&self, templates: &Environment<'_>) -> Option<String> {
        render(templates, MANY, self)
    }
}

/// The text alone is a whole mail: a template of the user's that fails keeps nobody in the dark.
fn render(templates: &Environment<'_>, name: &str, letter: &impl Serialize) -> Option<String> {
    let rendered = templates
        .get_template(name)
        .and_then(|template| template.render(minijinja::value::Serde(letter)));
    rendered
        .inspect_err(|error| {
            tracing::error!(
                template = name,
                error = format!("{error:#}"),
                "the HTML part of a mail is left out"
            );
        })
        .ok()
}

/// Says in words why an alert is sent.
fn words_for(kind: AlertKind) -> String {
    match kind {
        AlertKind::NewIssue => "a new issue".into(),
        AlertKind::Regression => "it came back after it was resolved".into(),
        // The rule was removed while the mail waited.
        AlertKind::Frequency { events: 0, .. } => "many events in a short time".into(),
        AlertKind::Frequency { events, minutes } => {
            format!("at least {events} events within {minutes} min")
        }
    }
}

fn request_of(event: &Event) -> Option<String> {
    let request = event.request.as_ref()?;
    let method = request.method.as_deref().unwrap_or("GET");
    Some(name_of(&format!("{method} {}", request.url.as_deref()?)))
}

fn chain_of(event: &Event) -> Vec<Link> {
    let raised_first = event.exception.iter().rev();
    raised_first.take(EXCEPTIONS_MAX).map(link).collect()
}

fn link(exception: &Exception) -> Link {
    let frames = exception.stacktrace.iter().flat_map(|stack| &stack.frames);
    let frames: Vec<&Frame> = frames.collect();
    let mut shown: Vec<&Frame> = frames
        .iter()
        .copied()
        .filter(|frame| frame.in_app == Some(true))
        .collect();
    if shown.is_empty() {
        shown = frames;
    }
    let innermost_first = shown.into_iter().rev().take(FRAMES_MAX);
    Link {
        ty: name_of(exception.ty.as_deref().unwrap_or("Error")),
        value: cut(
            exception.value.as_deref().unwrap_or_default(),
            MESSAGE_CHARS_MAX,
        ),
        frames: innermost_first
            .enumerate()
            .map(|(depth, frame)| place(frame, depth == 0))
            .collect(),
    }
}

fn place(frame: &Frame, with_variables: bool) -> Place {
    let file = frame.filename.as_deref().or(frame.abs_path.as_deref());
    let line = frame.lineno.map(|line| format!(":{line}"));
    let variables = frame.vars.iter().take(match with_variables {
        true => VARIABLES_MAX,
        false => 0,
    });
    Place {
        file: name_of(file.unwrap_or("?")) + &line.unwrap_or_default(),
        function: name_of(frame.function.as_deref().unwrap_or("?")),
        source: frame
            .context_line
            .as_ref()
            .map(|line| cut(line.trim(), VALUE_CHARS_MAX * 2)),
        variables: variables
            .map(|(name, value)| (name_of(name), value_of(value)))
            .collect(),
    }
}

fn value_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => cut(text, VALUE_CHARS_MAX).replace('\n', " "),
        value => preview(value),
    }
}

fn name_of(text: &str) -> String {
    cut(text, NAME_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
