//! Stack-trace rules: whose code a frame is, and whether it counts for grouping.
//!
//! A rule is a line `path:**/vendor/** -app`, in Sentry's syntax:
//! matchers, then what happens to the frames that meet them. `^` before an action means all
//! frames nearer to the failure, `v` all frames nearer to the entry.
//! `max-frames`, `min-frames` and `invert-stacktrace` are read and have no effect, because
//! groups are not made of lists of frames.

use std::sync::LazyLock;

use backstop_protocol::{Event, Exception, Frame, Stacktrace};
use serde_json::{Value, json};

use super::matcher::{Matchers, Misread, parse_matchers};
use super::name::Family;
use super::{RuleError, set_in_app};

/// A line of stack-trace rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StackRule {
    matchers: Matchers,
    actions: Vec<Action>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// Sets whether frames are the user's own or count for grouping.
    Flag {
        range: Range,
        flag: Flag,
        to: bool,
    },
    Category(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Itself,
    Newer,
    Older,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    App,
    Group,
}

/// Applies the shipped rules and then the project's to all stacks of an event; later rules win.
pub(super) fn apply(event: &mut Event, rules: &[StackRule]) {
    let family = Family::of(event.platform.as_deref());
    let of_event: Vec<&StackRule> = SHIPPED
        .iter()
        .chain(rules)
        .filter(|rule| rule.matchers.meet_event(event))
        .collect();
    for exception in &mut event.exception {
        let Some(mut stack) = exception.stacktrace.take() else {
            continue;
        };
        apply_to_stack(family, &mut stack, Some(exception), &of_event);
        exception.stacktrace = Some(stack);
    }
    let of_threads = event
        .threads
        .iter_mut()
        .filter_map(|thread| thread.stacktrace.as_mut());
    for stack in of_threads.chain(event.stacktrace.as_mut()) {
        apply_to_stack(family, stack, None, &of_event);
    }
}

/// Says whether a rule took a frame out of grouping.
pub(super) fn is_ignored(frame: &Frame) -> bool {
    frame.data.as_ref().and_then(|data| data.get("grouping")) == Some(&Value::Bool(false))
}

/// Reads stack-trace rules, one a line; `#` begins a comment line.
pub(super) fn parse(text: &str) -> Result<Vec<StackRule>, RuleError> {
    super::rules::parse_lines(text, parse_line)
}

static SHIPPED: LazyLock<Vec<StackRule>> = LazyLock::new(|| {
    parse(include_str!("data/stack_rules.txt")).expect("a test reads the shipped rules")
});

fn parse_line(line: &str) -> Result<StackRule, Misread> {
    let (matchers, rest) = parse_matchers(line)?;
    let mut rest = rest.trim_start();
    let mut actions = Vec::new();
    if rest.is_empty() || rest.starts_with('#') {
        return Err(Misread::at(rest, "expected an action such as -app"));
    }
    while !rest.is_empty() && !rest.starts_with('#') {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let action = parse_action(&rest[..end]).map_err(|text| Misread::at(rest, text))?;
        actions.extend(action);
        rest = rest[end..].trim_start();
    }
    Ok(StackRule { matchers, actions })
}

fn parse_action(word: &str) -> Result<Option<Action>, String> {
    let unknown = || format!("unknown action {word:?}");
    if let Some((name, value)) = word.split_once('=') {
        return match name {
            "category" => Ok(Some(Action::Category(value.to_owned()))),
            "max-frames" | "min-frames" | "invert-stacktrace" => Ok(None),
            _ => Err(unknown()),
        };
    }
    let (range, rest) = match word.split_at_checked(1) {
        Some(("^", rest)) => (Range::Newer, rest),
        Some(("v", rest)) => (Range::Older, rest),
        _ => (Range::Itself, word),
    };
    let (to, name) = match rest.split_at_checked(1) {
        Some(("+", name)) => (true, name),
        Some(("-", name)) => (false, name),
        _ => return Err(unknown()),
    };
    let flag = match name {
        "app" => Flag::App,
        "group" => Flag::Group,
        _ => return Err(unknown()),
    };
    Ok(Some(Action::Flag { range, flag, to }))
}

fn apply_to_stack(
    family: Family,
    stack: &mut Stacktrace,
    exception: Option<&Exception>,
    rules: &[&StackRule],
) {
    let is_mixed = stack
        .frames
        .iter()
        .any(|frame| frame.other.contains_key("platform"));
    for rule in rules {
        if !is_mixed && !rule.matchers.can_meet(family) {
            continue;
        }
        if exception.is_some_and(|exception| !rule.matchers.meet_exception(exception)) {
            continue;
        }
        let met: Vec<usize> = (0..stack.frames.len())
            .filter(|index| rule.matchers.meet_frame(family, &stack.frames, *index))
            .collect();
        for action in &rule.actions {
            run(action, &met, &mut stack.frames);
        }
    }
}

/// Runs an action for the frames that met a rule. Ranges of several frames overlap, so the
/// outermost of them decides for all.
fn run(action: &Action, met: &[usize], frames: &mut [Frame]) {
    let (Some(first), Some(last)) = (met.first(), met.last()) else {
        return;
    };
    match action {
        Action::Category(name) => {
            for index in met {
                note(&mut frames[*index], "category", json!(name));
            }
        }
        Action::Flag {
            range: Range::Itself,
            flag,
            to,
        } => {
            for index in met {
                set(&mut frames[*index], *flag, *to);
            }
        }
        Action::Flag {
            range: Range::Newer,
            flag,
            to,
        } => {
            frames[first + 1..]
                .iter_mut()
                .for_each(|frame| set(frame, *flag, *to));
        }
        Action::Flag {
            range: Range::Older,
            flag,
            to,
        } => {
            frames[..*last]
                .iter_mut()
                .for_each(|frame| set(frame, *flag, *to));
        }
    }
}

fn set(frame: &mut Frame, flag: Flag, to: bool) {
    match flag {
        Flag::App => set_in_app(frame, to),
        Flag::Group if !to || is_ignored(frame) => note(frame, "grouping", json!(to)),
        Flag::Group => {}
    }
}

/// Writes a note beside a frame.
fn note(frame: &mut Frame, key: &str, value: Value) {
    let data = frame.data.get_or_insert_with(|| json!({}));
    if let Value::Object(data) = data {
        data.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &str, expected: &str) {
        let event = json!({"platform": "python", "exception": [{
            "type": "E",
            "stacktrace": {"frames": [
                {"function": "main", "in_app": true},
                {"function": "call", "in_app": true},
                {"function": "raise_it", "in_app": false},
            ]},
        }]});
        let mut event = Event::decode(event.to_string().as_bytes()).unwrap();
        apply(&mut event, &parse(rules).unwrap());
        let frames = &event.exception[0].stacktrace.as_ref().unwrap().frames;
        let marks: Vec<String> = frames
            .iter()
            .map(|frame| {
                let app = if frame.in_app == Some(true) {
                    "app"
                } else {
                    "-"
                };
                format!("{app}{}", if is_ignored(frame) { "!" } else { "" })
            })
            .collect();
        assert_eq!(marks.join(" "), expected, "{rules}");
    }

    #[test]
    fn rules_in_the_known_syntax() {
        check("function:call -app", "app - -");
        check("function:raise_it +app -group", "app app app!");
        check("function:call ^+app v-group", "app! app app");
        check("function:call -group\nfunction:call +group", "app app -");
        check("type:X function:call -app", "app app -");
        check("[ function:main ] | function:* -app", "app - -");
        check(
            "function:* | [ function:raise_it ] -app max-frames=3",
            "app - -",
        );
        check("function:call category=x\ncategory:x -group", "app app! -");
        check("family:native function:call -app", "app app -");
    }

    #[test]
    fn errors_name_line_and_column() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            error("\nfunction:f"),
            "line 2, column 11: expected an action such as -app"
        );
        assert_eq!(
            error("function:f -apple"),
            "line 1, column 12: unknown action \"-apple\""
        );
        assert!(!SHIPPED.is_empty());
    }
}
