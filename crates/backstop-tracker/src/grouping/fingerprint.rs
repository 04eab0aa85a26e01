//! Fingerprints: groups that the sender or the project's rules ask for.
//!
//! A rule is a line `type:DatabaseError path:**/billing/** -> billing-database {{ transaction }}`,
//! in Sentry's syntax. Rules of the project win over the sender's fingerprint, which wins over
//! the shipped rules.

use std::borrow::Cow;
use std::sync::LazyLock;

use backstop_protocol::{Event, Frame};
use serde_json::Value;

use super::RuleError;
use super::matcher::{Matchers, Misread, messages, parse_matchers, stacks, unquote};

/// Values of a fingerprint; more are a mistake.
const VALUES_MAX: usize = 32;

/// A line of fingerprint rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FingerprintRule {
    matchers: Matchers,
    values: Vec<String>,
    title: Option<String>,
    /// The line as it was written, for people.
    text: String,
}

/// The fingerprint of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint<'a> {
    /// The values with their variables filled in; without the default's place.
    pub(super) values: Vec<Cow<'a, str>>,
    /// Whether the default grouping counts as well.
    pub(super) has_default: bool,
    /// The headline that a rule gives.
    pub(super) title: Option<String>,
    /// The rule, if it was one.
    pub(super) rule: Option<&'a str>,
}

/// Returns the fingerprint of an event, unless it has the default grouping only.
pub(super) fn fingerprint<'a>(
    event: &'a Event,
    rules: &'a [FingerprintRule],
) -> Option<Fingerprint<'a>> {
    let given = || (!event.fingerprint.is_empty()).then(|| fill_in(event, &event.fingerprint));
    let of_rule = |rules: &'a [FingerprintRule]| {
        let rule = rules.iter().find(|rule| rule.matchers.meet(event))?;
        let mut fingerprint = fill_in(event, &rule.values);
        fingerprint.title = rule
            .title
            .as_deref()
            .map(|title| substitute(event, title).into_owned());
        fingerprint.rule = Some(&rule.text);
        Some(fingerprint)
    };
    let fingerprint = of_rule(rules)
        .or_else(given)
        .or_else(|| of_rule(&SHIPPED))?;
    (!fingerprint.values.is_empty() || fingerprint.title.is_some()).then_some(fingerprint)
}

/// Reads fingerprint rules, one a line; `#` begins a comment line.
pub(super) fn parse(text: &str) -> Result<Vec<FingerprintRule>, RuleError> {
    super::rules::parse_lines(text, parse_line)
}

static SHIPPED: LazyLock<Vec<FingerprintRule>> = LazyLock::new(|| {
    parse(include_str!("data/fingerprint_rules.txt")).expect("a test reads the shipped rules")
});

fn parse_line(line: &str) -> Result<FingerprintRule, Misread> {
    let (matchers, rest) = parse_matchers(line)?;
    let rest = rest.trim_start();
    let mut rest = rest
        .strip_prefix("->")
        .ok_or_else(|| Misread::at(rest, "expected \"->\""))?;
    let mut rule = FingerprintRule {
        matchers,
        values: Vec::new(),
        title: None,
        text: line.trim().to_owned(),
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if rest.is_empty() {
            break;
        }
        if let Some(quoted) = rest.strip_prefix("title=\"") {
            let (title, after) = unquote(quoted)?;
            rule.title = Some(title);
            rest = after;
            continue;
        }
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => bare_value(rest)?,
        };
        rule.values.push(value);
        rest = after;
    }
    match rule.values.len() {
        0 => Err(Misread::at(rest, "expected a fingerprint after \"->\"")),
        1..=VALUES_MAX => Ok(rule),
        _ => Err(Misread::at(
            rest,
            format!("a fingerprint has at most {VALUES_MAX} values"),
        )),
    }
}

/// A value up to white space or a comma; inside of `{{ }}` both belong to it.
fn bare_value(text: &str) -> Result<(String, &str), Misread> {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with("{{") {
            let end = text[at..]
                .find("}}")
                .ok_or_else(|| Misread::at(&text[at..], "\"{{\" is not closed"))?;
            at += end + 2;
        } else if c.is_whitespace() || c == ',' {
            break;
        } else {
            at += c.len_utf8();
        }
    }
    Ok((text[..at].to_owned(), &text[at..]))
}

fn fill_in<'a>(event: &'a Event, values: &'a [String]) -> Fingerprint<'a> {
    let mut fingerprint = Fingerprint {
        values: Vec::new(),
        has_default: false,
        title: None,
        rule: None,
    };
    for value in values.iter().take(VALUES_MAX) {
        if variable(value.trim()).is_some_and(|name| name == "default") {
            fingerprint.has_default = true;
        } else {
            fingerprint.values.push(substitute(event, value));
        }
    }
    fingerprint
}

/// The name in `{{ name }}`, if that is all of the text.
fn variable(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{")).then(|| inner.trim())
}

/// Fills in the variables of a text; unknown ones stay as they are written.
fn substitute<'a>(event: &'a Event, text: &'a str) -> Cow<'a, str> {
    if let Some(name) = variable(text.trim()) {
        return resolve(event, name).unwrap_or(Cow::Borrowed(text));
    }
    if !text.contains("{{") {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        match resolve(event, name.trim()) {
            Some(value) => out.push_str(&value),
            None => out.extend(["{{", name, "}}"]),
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The value of a variable; `<no-…>` where the event has none, `None` for unknown variables.
fn resolve<'a>(event: &'a Event, name: &str) -> Option<Cow<'a, str>> {
    let exception = event.exception.last();
    let frame = || failing_frame(event);
    let (value, missing) = match name {
        "type" | "error.type" => (exception.and_then(|e| e.ty.as_deref()), "<no-type>"),
        "value" | "error.value" => (exception.and_then(|e| e.value.as_deref()), "<no-value>"),
        "function" | "stack.function" => (
            frame().and_then(|frame| frame.function.as_deref()),
            "<no-function>",
        ),
        "module" | "stack.module" => (
            frame().and_then(|frame| frame.module.as_deref()),
            "<no-module>",
        ),
        "package" | "stack.package" => {
            let package = frame().and_then(|frame| frame.package.as_deref());
            let last = package.and_then(|package| package.rsplit(['/', '\\']).next());
            (last, "<no-package>")
        }
        "path" | "abs_path" | "stack.abs_path" => (
            frame().and_then(|frame| frame.abs_path.as_deref()),
            "<no-abs-path>",
        ),
        "filename" | "stack.filename" => (
            frame().and_then(|frame| frame.filename.as_deref()),
            "<no-filename>",
        ),
        "transaction" => (event.transaction.as_deref(), "<no-transaction>"),
        "message" => (messages(event).next(), "<no-message>"),
        "level" => (Some(event.level.as_str()), ""),
        "logger" => (event.logger.as_deref(), "<no-logger>"),
        "release" => (event.release.as_deref(), "<no-release>"),
        "environment" => (event.environment.as_deref(), "<no-environment>"),
        name => {
            let tag = name.strip_prefix("tags.")?;
            let value = event.tags.get(tag).and_then(Value::as_str);
            let missing = || Cow::Owned(format!("<no-value-for-tag-{tag}>"));
            return Some(value.map_or_else(missing, Cow::Borrowed));
        }
    };
    Some(Cow::Borrowed(value.unwrap_or(missing)))
}

/// The user's innermost frame, else the innermost frame.
fn failing_frame(event: &Event) -> Option<&Frame> {
    let of_exceptions = event
        .exception
        .last()
        .and_then(|exception| exception.stacktrace.as_ref());
    let frames = &of_exceptions.or_else(|| stacks(event).next())?.frames;
    frames
        .iter()
        .rev()
        .find(|frame| frame.in_app == Some(true))
        .or(frames.last())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        let event = json!({
            "platform": "python",
            "transaction": "orders.show",
            "tags": {"shard": "7"},
            "exception": [{
                "type": "DatabaseError",
                "value": "server closed the connection",
                "stacktrace": {"frames": [
                    {"function": "show", "module": "shop.orders", "in_app": true,
                     "abs_path": "/srv/shop/orders.py"},
                    {"function": "execute", "module": "db.pool", "in_app": false,
                     "abs_path": "/srv/site-packages/db/pool.py"},
                ]},
            }],
        });
        Event::decode(event.to_string().as_bytes()).unwrap()
    }

    fn check(rule: &str, expected: Option<&[&str]>) {
        let event = event();
        let rules = parse(rule).unwrap();
        let got = fingerprint(&event, &rules).map(|fingerprint| fingerprint.values);
        let expected = expected.map(|values| values.iter().map(|v| Cow::Borrowed(*v)).collect());
        assert_eq!(got, expected, "{rule}");
    }

    #[test]
    fn rules_in_the_known_syntax() {
        check("type:DatabaseError -> db", Some(&["db"]));
        check(
            "error.type:*Error -> db, {{ transaction }}",
            Some(&["db", "orders.show"]),
        );
        check(
            "message:\"server closed*\" -> gone-{{tags.shard}}",
            Some(&["gone-7"]),
        );
        check("!type:KeyError -> \"a b\" {{ default }}", Some(&["a b"]));
        check(
            "path:**/SITE-packages/** function:execute -> {{ module }}",
            Some(&["shop.orders"]),
        );
        check("path:**/site-packages/** function:show -> x", None);
        check("[ function:show ] | function:execute -> x", Some(&["x"]));
        check("function:show | [ app:no ] -> x", Some(&["x"]));
        check("function:execute | [ app:no ] -> x", None);
        check(
            "family:native,other tags.shard:7 -> {{ logger }}",
            Some(&["<no-logger>"]),
        );
        check(
            "type:DatabaseError -> {{ colour }}",
            Some(&["{{ colour }}"]),
        );
        check("# a comment\n\ntype:X -> y", None);
        check(
            "  !logger:* path:/srv/*/orders.py -> {{ stack.function }} {{error.type}}",
            Some(&["show", "DatabaseError"]),
        );
        check("path:/srv/*.py -> not-below", None);
        check("path:/srv/**.py -> below", Some(&["below"]));
        check("path:orders.py -> relative", None);
        check("stack.module:shop.* app:yes -> a,b", Some(&["a", "b"]));
    }

    #[test]
    fn the_project_wins_over_the_sender() {
        let mut event = event();
        event.fingerprint = vec!["{{ default }}".into(), "mine".into()];
        let given = fingerprint(&event, &[]).unwrap();
        assert_eq!(
            (given.values, given.has_default),
            (vec!["mine".into()], true)
        );
        let rules = parse("type:* -> ours title=\"{{ type }} at {{ transaction }}\"").unwrap();
        let ours = fingerprint(&event, &rules).unwrap();
        assert_eq!(
            (ours.values, ours.has_default),
            (vec!["ours".into()], false)
        );
        assert_eq!(ours.title.unwrap(), "DatabaseError at orders.show");
        event.fingerprint = vec!["{{ default }}".into()];
        assert_eq!(fingerprint(&event, &[]), None);
    }

    #[test]
    fn errors_name_line_and_column() {
        for (rules, expected) in [
            ("type:a -> b\n  type:a", "line 2, column 9: expected \"->\""),
            (
                "type:a ->",
                "line 1, column 10: expected a fingerprint after \"->\"",
            ),
            (
                "type:ä -> b {{ x",
                "line 1, column 13: \"{{\" is not closed",
            ),
            (
                "type:a title:b -> c",
                "line 1, column 8: unknown matcher \"title\"",
            ),
            (
                "type:a -> c title=\"b",
                "line 1, column 19: a quote is not closed",
            ),
        ] {
            assert_eq!(parse(rules).unwrap_err().to_string(), expected, "{rules}");
        }
        assert!(!SHIPPED.is_empty());
    }
}
