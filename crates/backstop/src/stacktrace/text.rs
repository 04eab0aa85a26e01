//! The stack trace as plain text: for terminals, mails and issues.

use std::fmt::Write as _;

use backstop_protocol::{Event, Exception, Frame};

use super::frames::{Row, arrange, libraries_line};
use super::{Options, Ordered, frames_of, message, place, title, value};

/// Of a value one line is shown.
const VALUE_CHARS_MAX: usize = 120;

/// Of a message so many lines are shown.
const MESSAGE_LINES_MAX: usize = 20;

/// Renders the errors of an event with their frames as plain text.
///
/// # Example
///
/// ```
/// use backstop::report::Event;
/// use backstop::stacktrace::{Options, text};
///
/// let event: Event = serde_json::from_str(
///     r#"{"platform": "python", "exception": [{"type": "KeyError", "value": "'price'",
///         "stacktrace": {"frames": [{"function": "total", "filename": "cart.py", "lineno": 7,
///         "context_line": "  return item['price']", "in_app": true}]}}]}"#,
/// )?;
/// assert_eq!(
///     text(&event, &Options::default()),
///     "KeyError: 'price'\n\n  total  cart.py:7\n      return item['price']\n",
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn text(event: &Event, options: &Options) -> String {
    let mut out = String::new();
    let errors = Ordered::of(&event.exception);
    for (position, error) in errors.list.iter().enumerate() {
        if position > 0 {
            out.push('\n');
        }
        if let Some(relation) = &error.relation {
            line(&mut out, "", &format!("{relation}:"));
        }
        headline(&mut out, error.exception);
        if let Some(stacktrace) = frames_of(error.exception) {
            out.push('\n');
            frames(
                &mut out,
                event.platform.as_deref(),
                &stacktrace.frames,
                options,
            );
        }
    }
    if let Some(stacktrace) = &event.stacktrace {
        frames(
            &mut out,
            event.platform.as_deref(),
            &stacktrace.frames,
            options,
        );
    }
    out
}

fn headline(out: &mut String, exception: &Exception) {
    match message(exception) {
        None => line(out, "", title(exception)),
        Some(value) => {
            let mut lines = value.lines().take(MESSAGE_LINES_MAX);
            let first = lines.next().unwrap_or_default();
            line(out, "", &format!("{}: {first}", title(exception)));
            for rest in lines {
                line(out, "  ", rest);
            }
        }
    }
}

fn frames(out: &mut String, platform: Option<&str>, wire: &[Frame], options: &Options) {
    let frames: Vec<&Frame> = wire.iter().rev().collect();
    for row in arrange(platform, &frames) {
        match row {
            Row::Frame(at, own) => frame(out, platform, frames[at], own, options),
            Row::Libraries(from, to) => {
                let libraries = libraries_line(platform, &frames[from..to]);
                line(out, "  ", &format!("… {libraries}"));
            }
            Row::Repeats { frames, times } => {
                line(
                    out,
                    "  ",
                    &format!("… the last {frames} repeat {times} more times"),
                );
            }
            Row::LeftOut(frames) => line(out, "  ", &format!("… {frames} older frames")),
        }
    }
}

fn frame(out: &mut String, platform: Option<&str>, frame: &Frame, own: bool, options: &Options) {
    let name = place::function(platform, frame);
    let mut head = format!("{}{}", name.path, name.last);
    if let Some(file) = place::file(frame) {
        head.push_str("  ");
        head.push_str(&file);
        if let Some(line) = frame.lineno {
            // Writing to a string cannot fail.
            let _written = write!(head, ":{line}");
        }
    }
    line(out, "  ", &head);
    if !own {
        return;
    }
    if let Some(source) = &frame.context_line {
        line(out, "      ", source.trim());
    }
    if options.variables_hidden.is_none() {
        for (name, shown) in &frame.vars {
            let shown: String = value::preview(shown)
                .chars()
                .take(VALUE_CHARS_MAX)
                .collect();
            line(out, "        ", &format!("{name} = {shown}"));
        }
    }
}

/// Writes a line in which nothing can move a terminal's cursor.
fn line(out: &mut String, indent: &str, text: &str) {
    out.push_str(indent);
    out.extend(text.chars().map(|c| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }));
    out.push('\n');
}
