//! The one stack-trace view: of the debug page and of the tracker's issue page.
//!
//! An [`Event`] of any client goes in, HTML (or plain text) comes out: the chain of errors from
//! the raised one to its root, each with its frames, newest first.
//! The user's own frames are open with their source lines and variables; runs of library frames
//! are one line.
//! The HTML is one `<section class="bs-trace">`, needs [`CSS`] and no script, and holds nothing of
//! the event unescaped.

mod frames;
mod highlight;
mod html;
mod library;
mod place;
mod text;
mod value;

use backstop_protocol::{Event, Exception, Mechanism, Stacktrace};

use self::frames::Writer;
pub(crate) use self::html::Html;

pub use self::text::text;
pub use self::value::preview;

/// The style sheet of [`render`]'s HTML.
///
/// Its colours follow the page's custom properties `--ink`, `--card`, `--line`, … where they are
/// set, and the reader's light or dark scheme.
pub const CSS: &str = include_str!("stacktrace/stacktrace.css");

/// A chain is rarely longer than five; a group of hundreds of errors says the same thing again.
const EXCEPTIONS_MAX: usize = 50;

/// What is shown of an event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many of an error's own frames are open at first.
    pub frames_open: usize,
    /// The address that opens an editor, with `{path}`, `{line}` and `{column}`:
    /// `vscode://file/{path}:{line}`.
    pub editor: Option<String>,
    /// Why the variables are hidden, in words, if they are.
    pub variables_hidden: Option<String>,
    /// The level of the headings of errors, 2 to 6.
    pub heading_level: u8,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            frames_open: 8,
            editor: None,
            variables_hidden: None,
            heading_level: 3,
        }
    }
}

/// Renders the errors of an event with their frames.
///
/// # Example
///
/// ```
/// use backstop::report::Event;
/// use backstop::stacktrace::{Options, render};
///
/// let event: Event = serde_json::from_str(
///     r#"{"exception": [{"type": "KeyError", "value": "<price>"}]}"#,
/// )?;
/// let html = render(&event, &Options::default());
/// assert!(html.contains("KeyError") && html.contains("&lt;price&gt;"));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn render(event: &Event, options: &Options) -> String {
    let mut writer = Writer {
        html: Html::new(),
        options,
        platform: event.platform.as_deref(),
        opened: 0,
    };
    writer.html.raw("<section class=\"bs-trace\">");
    let errors = Ordered::of(&event.exception);
    ladder(&mut writer.html, &errors);
    for (position, error) in errors.list.iter().enumerate() {
        one_error(&mut writer, error, position, options.heading_level);
    }
    if errors.left_out > 0 {
        writer.html.raw("<p class=\"bs-relation\">");
        writer
            .html
            .text(&format!("{} more errors are not shown", errors.left_out));
        writer.html.raw("</p>");
    }
    if let Some(stacktrace) = &event.stacktrace {
        writer.html.raw("<article class=\"bs-error\">");
        writer.frames(&stacktrace.frames);
        writer.html.raw("</article>");
    }
    threads(&mut writer, event);
    writer.html.raw("</section>");
    writer.html.finish()
}

fn one_error(writer: &mut Writer<'_>, error: &Ranked<'_>, position: usize, level: u8) {
    let html = &mut writer.html;
    if let Some(relation) = &error.relation {
        html.raw("<p class=\"bs-relation\">");
        html.text(relation);
        html.raw("</p>");
    }
    html.raw(&format!(
        "<article class=\"bs-error\" id=\"bs-error-{position}\">"
    ));
    let level = level.clamp(2, 6);
    html.raw(&format!("<header><h{level} class=\"bs-type\">"));
    html.text(title(error.exception));
    html.raw(&format!("</h{level}>"));
    if let Some(module) = module(error.exception) {
        html.raw("<span class=\"bs-module\">in ");
        html.text(module);
        html.raw("</span>");
    }
    // The errors behind it never had a chance to be handled; the badge says nothing there.
    if position == 0 {
        badges(html, error.exception.mechanism.as_ref());
    }
    html.raw("</header>");
    if let Some(value) = message(error.exception) {
        html.raw("<p class=\"bs-message\">");
        html.text(value);
        html.raw("</p>");
    }
    match frames_of(error.exception) {
        Some(stacktrace) => writer.frames(&stacktrace.frames),
        // A source in a chain of Rust errors has no stack of its own, and nobody expects one.
        None if position > 0 => {}
        None => writer
            .html
            .raw("<p class=\"bs-none\">No stack trace was sent with this error.</p>"),
    }
    writer.html.raw("</article>");
}

/// The chain on one screen: each error and what it says, linked to its frames.
fn ladder(html: &mut Html, errors: &Ordered<'_>) {
    if errors.list.len() < 2 {
        return;
    }
    html.raw("<ol class=\"bs-ladder\" aria-label=\"Errors, from the raised one to its causes\">");
    for (position, error) in errors.list.iter().enumerate() {
        html.raw(&format!("<li><a href=\"#bs-error-{position}\">"));
        html.text(title(error.exception));
        html.raw("</a>");
        if let Some(value) = message(error.exception) {
            html.raw(" <span>");
            html.text(value.lines().next().unwrap_or_default());
            html.raw("</span>");
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
}

fn badges(html: &mut Html, mechanism: Option<&Mechanism>) {
    if mechanism.and_then(|mechanism| mechanism.handled) == Some(false) {
        html.raw("<span class=\"bs-badge\">unhandled</span>");
    }
}

fn threads(writer: &mut Writer<'_>, event: &Event) {
    let mut threads: Vec<_> = event
        .threads
        .iter()
        .filter_map(|thread| Some((thread, thread.stacktrace.as_ref()?)))
        .filter(|(_, stacktrace)| !stacktrace.frames.is_empty())
        .take(EXCEPTIONS_MAX)
        .collect();
    threads.sort_by_key(|(thread, _)| (thread.crashed != Some(true), thread.current != Some(true)));
    for (position, (thread, stacktrace)) in threads.into_iter().enumerate() {
        // Beside an exception, threads are background; alone, the first one is the subject.
        let open = position == 0 && event.exception.is_empty();
        let open = if open { " open" } else { "" };
        writer.html.raw(&format!(
            "<details class=\"bs-thread\"{open}><summary>Thread "
        ));
        let id = thread.id.as_ref().map(value::plain).unwrap_or_default();
        writer.html.text(thread.name.as_deref().unwrap_or(&id));
        for (is, word) in [(thread.crashed, "crashed"), (thread.current, "reporting")] {
            if is == Some(true) {
                writer.html.raw("<span class=\"bs-badge\">");
                writer.html.text(word);
                writer.html.raw("</span>");
            }
        }
        writer.html.raw("</summary>");
        writer.frames(&stacktrace.frames);
        writer.html.raw("</details>");
    }
}

/// An exception without a type is a message that carries a stack.
fn title(exception: &Exception) -> &str {
    let synthetic = exception
        .mechanism
        .as_ref()
        .and_then(|mechanism| mechanism.synthetic)
        == Some(true);
    match exception.ty.as_deref().filter(|ty| !ty.is_empty()) {
        Some(ty) if !synthetic => ty,
        _ => exception
            .value
            .as_deref()
            .filter(|value| !value.is_empty())
            .or(exception.ty.as_deref())
            .unwrap_or("Error"),
    }
}

fn message(exception: &Exception) -> Option<&str> {
    let value = exception.value.as_deref()?.trim_end();
    (!value.is_empty() && value != title(exception)).then_some(value)
}

/// `builtins` and the like say nothing.
fn module(exception: &Exception) -> Option<&str> {
    let module = exception.module.as_deref()?;
    let nothing = ["", "builtins", "exceptions", "__main__"].contains(&module);
    (!nothing).then_some(module)
}

fn frames_of(exception: &Exception) -> Option<&Stacktrace> {
    exception
        .stacktrace
        .as_ref()
        .filter(|stacktrace| !stacktrace.frames.is_empty())
}

/// The exceptions as people read them: the raised one first, then why.
struct Ordered<'e> {
    list: Vec<Ranked<'e>>,
    left_out: usize,
}

struct Ranked<'e> {
    exception: &'e Exception,
    /// How it belongs to those before, in words; none for the first.
    relation: Option<String>,
}

impl<'e> Ordered<'e> {
    fn of(wire: &'e [Exception]) -> Ordered<'e> {
        let list = wire
            .iter()
            .rev()
            .take(EXCEPTIONS_MAX)
            .enumerate()
            .map(|(position, exception)| Ranked {
                exception,
                relation: (position > 0).then(|| relation(wire, exception)),
            })
            .collect();
        Ordered {
            list,
            left_out: wire.len().saturating_sub(EXCEPTIONS_MAX),
        }
    }
}

/// Says how an exception belongs to its parent.
fn relation(wire: &[Exception], exception: &Exception) -> String {
    let mechanism = exception.mechanism.as_ref();
    let parent_id = mechanism.and_then(|mechanism| mechanism.parent_id);
    let parent = wire.iter().find(|other| {
        let id = other
            .mechanism
            .as_ref()
            .and_then(|mechanism| mechanism.exception_id);
        parent_id.is_some() && id == parent_id
    });
    // Where the tree is only a chain, "it" is the error just above.
    let it = match parent {
        Some(parent) if is_group(parent) => format!("“{}”", title(parent)),
        _ => "It".to_owned(),
    };
    match mechanism.and_then(|mechanism| mechanism.source.as_deref()) {
        Some("__context__") => format!("{it} happened while this error was being handled"),
        Some("__cause__") => format!("{it} was raised because of this error"),
        Some(source) if source.contains('[') => format!("{it} holds this error, as {source}"),
        _ => format!("{it} was caused by"),
    }
}

fn is_group(exception: &Exception) -> bool {
    exception
        .mechanism
        .as_ref()
        .and_then(|mechanism| mechanism.is_exception_group)
        == Some(true)
}
