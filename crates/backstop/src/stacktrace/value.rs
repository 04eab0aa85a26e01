//! Values of variables: short ones in a line, nested ones to unfold, states said in words.

use serde_json::Value;

use super::html::Html;

/// Deeper values are written as one text.
const DEPTH_MAX: usize = 8;

/// More items of one value are counted, not shown.
const ITEMS_MAX: usize = 50;

/// Longer texts are folded, and cut at the second.
const TEXT_CHARS: usize = 160;
const TEXT_CHARS_MAX: usize = 8192;

/// A value of which a preview this long says everything needs no unfolding.
const PREVIEW_CHARS: usize = 72;

/// Small values at the top are unfolded at once.
const OPEN_ITEMS_MAX: usize = 6;

/// What clients write in place of a value, and what it means.
const STATES: [(&str, &str); 13] = [
    ("[Filtered]", "removed, for it may be a secret"),
    ("[redacted]", "removed, for it may be a secret"),
    ("<redacted>", "removed, for it may be a secret"),
    ("********", "removed, for it may be a secret"),
    ("<optimised out>", "the compiler left no trace of the value"),
    ("<optimized out>", "the compiler left no trace of the value"),
    (
        "<register not recoverable>",
        "a called function has overwritten it",
    ),
    ("<stale>", "the place belongs to an earlier use"),
    ("<unreadable memory>", "the memory could not be read"),
    (
        "<not understood>",
        "the debug information says it in a way that is not understood",
    ),
    ("<cyclic>", "the value holds itself"),
    ("<...>", "cut by the client"),
    ("[Circular]", "the value holds itself"),
];

/// Writes a value.
pub(super) fn write(html: &mut Html, value: &Value) {
    write_at(html, value, 0);
}

fn write_at(html: &mut Html, value: &Value, depth: usize) {
    match value {
        Value::String(text) => write_text(html, text),
        Value::Array(items) if !items.is_empty() => {
            let rows = items
                .iter()
                .enumerate()
                .map(|(at, item)| (at.to_string(), item));
            nested(html, value, rows, items.len(), depth);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let rows = fields
                .iter()
                .map(|(name, value)| (unquoted(name).to_owned(), value));
            nested(html, value, rows, fields.len(), depth);
        }
        Value::Bool(_) | Value::Null => code(html, "bs-k", &plain(value)),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            code(html, "bs-n", &plain(value));
        }
    }
}

fn nested<'v>(
    html: &mut Html,
    value: &Value,
    rows: impl Iterator<Item = (String, &'v Value)>,
    count: usize,
    depth: usize,
) {
    let preview = preview(value);
    let folded_says_all = preview.chars().count() < PREVIEW_CHARS && is_flat(value);
    if folded_says_all || depth >= DEPTH_MAX || html.is_full() {
        return code(html, "", &preview);
    }
    let open = depth == 0 && count <= OPEN_ITEMS_MAX;
    html.raw(if open {
        "<details class=\"bs-tree\" open>"
    } else {
        "<details class=\"bs-tree\">"
    });
    html.raw("<summary><code>");
    html.text(&preview);
    html.raw("</code></summary><table>");
    for (name, value) in rows.take(ITEMS_MAX) {
        html.raw("<tr><th scope=\"row\">");
        html.text(&name);
        html.raw("</th><td>");
        write_at(html, value, depth + 1);
        html.raw("</td></tr>");
    }
    html.raw("</table>");
    if count > ITEMS_MAX {
        html.span("bs-state", &format!("{} more", count - ITEMS_MAX));
    }
    html.raw("</details>");
}

fn write_text(html: &mut Html, text: &str) {
    if let Some((_, meaning)) = STATES.iter().find(|(state, _)| *state == text) {
        html.raw("<span class=\"bs-state\" title=\"");
        html.text(meaning);
        html.raw("\">");
        html.text(text.trim_matches(['<', '>', '[', ']']));
        html.raw("</span>");
        return;
    }
    let class = class_of(text);
    if text.chars().count() <= TEXT_CHARS && text.lines().count() <= 4 {
        return code(html, class, text);
    }
    let first: String = text.chars().take(TEXT_CHARS / 2).collect();
    html.raw("<details class=\"bs-long\"><summary><code>");
    html.text(first.lines().next().unwrap_or_default());
    html.raw("…</code></summary><pre>");
    let cut = text
        .char_indices()
        .nth(TEXT_CHARS_MAX)
        .map_or(text.len(), |(at, _)| at);
    html.text(&text[..cut]);
    html.raw("</pre>");
    if cut < text.len() {
        html.span("bs-state", &format!("{} more bytes", text.len() - cut));
    }
    html.raw("</details>");
}

fn code(html: &mut Html, class: &str, text: &str) {
    html.raw("<code class=\"");
    html.raw(class);
    html.raw("\">");
    if text.is_empty() {
        html.raw("<span class=\"bs-state\">empty text</span>");
    }
    html.text(text);
    html.raw("</code>");
}

/// Clients write values as their language does, so the beginning tells what it is.
fn class_of(text: &str) -> &'static str {
    let quoted = text.starts_with(['"', '\'']) || text.starts_with("b'") || text.starts_with("u'");
    match text {
        "None" | "True" | "False" | "true" | "false" | "null" | "nil" | "undefined" => "bs-k",
        _ if quoted => "bs-s",
        _ if text.parse::<f64>().is_ok() => "bs-n",
        _ => "",
    }
}

/// Python clients write the keys of mappings as Python does.
fn unquoted(name: &str) -> &str {
    let inner = name
        .strip_prefix('\'')
        .and_then(|name| name.strip_suffix('\''));
    inner
        .filter(|inner| !inner.contains(['\'', '\\']))
        .unwrap_or(name)
}

fn is_flat(value: &Value) -> bool {
    let leaf = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => true,
    };
    match value {
        Value::Array(items) => items.iter().all(leaf),
        Value::Object(fields) => fields.values().all(leaf),
        _ => true,
    }
}

/// Returns a variable's value in one line of at most 72 characters and an ellipsis.
///
/// Values of nested shape are written as a program would: `{number: 42, items: [1, 2]}`.
///
/// # Example
///
/// ```
/// use backstop::stacktrace::preview;
/// use serde_json::json;
///
/// assert_eq!(preview(&json!({"number": 42, "items": [1, 2]})), "{number: 42, items: [1, 2]}");
/// assert_eq!(preview(&json!("x".repeat(100))).chars().count(), 73);
/// ```
pub fn preview(value: &Value) -> String {
    let mut out = String::new();
    // Twice the length is looked at, so that the cut falls at the end.
    preview_into(&mut out, value, PREVIEW_CHARS * 2);
    match out.char_indices().nth(PREVIEW_CHARS) {
        Some((at, _)) => format!("{}…", &out[..at]),
        None => out,
    }
}

fn preview_into(out: &mut String, value: &Value, budget: usize) {
    if out.len() > budget {
        return;
    }
    match value {
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().take(ITEMS_MAX).enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                preview_into(out, item, budget);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().take(ITEMS_MAX).enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                out.push_str(unquoted(name));
                out.push_str(": ");
                preview_into(out, value, budget);
            }
            out.push('}');
        }
        Value::String(text) => {
            out.extend(
                text.chars()
                    .take(PREVIEW_CHARS + 1)
                    .map(|c| if c == '\n' { ' ' } else { c }),
            );
        }
        leaf => out.push_str(&plain(leaf)),
    }
}

/// Returns a leaf's text.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: &Value) -> String {
        let mut html = Html::new();
        write(&mut html, value);
        html.finish()
    }

    #[test]
    fn short_values_are_one_line() {
        assert_eq!(
            shown(&json!("'<b>'")),
            "<code class=\"bs-s\">&#39;&lt;b&gt;&#39;</code>"
        );
        assert_eq!(shown(&json!(3)), "<code class=\"bs-n\">3</code>");
        assert_eq!(shown(&json!("None")), "<code class=\"bs-k\">None</code>");
        assert_eq!(
            shown(&json!({"'id'": "7", "'n'": null})),
            "<code class=\"\">{id: 7, n: null}</code>"
        );
        assert_eq!(shown(&json!([])), "<code class=\"bs-n\">[]</code>");
    }

    #[test]
    fn states_are_words() {
        let html = shown(&json!("<optimised out>"));
        assert!(
            html.contains(">optimised out<") && html.contains("title="),
            "{html}"
        );
        assert!(shown(&json!("")).contains("empty text"));
    }

    #[test]
    fn nested_values_unfold() {
        let html = shown(&json!({"cart": {"items": [1, 2]}, "user": "ada"}));
        assert!(html.contains("<th scope=\"row\">cart</th>"), "{html}");
        assert!(html.starts_with("<details class=\"bs-tree\" open>"));
    }

    #[test]
    fn endless_values_end() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(shown(&deep).len() < 20_000);
        let wide = shown(&json!(vec!["x".repeat(20); 1000]));
        assert!(wide.contains("950 more"), "{}", wide.len());
        let long = shown(&json!("x".repeat(1_000_000)));
        assert!(long.contains("991808 more bytes"));
    }
}
