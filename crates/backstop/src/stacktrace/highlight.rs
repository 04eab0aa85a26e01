//! Colouring one source line: comments, strings, numbers, keywords; enough to read by.
//!
//! A line is seen alone, so the inside of a text or comment that began on an earlier line is
//! coloured as code.

use super::html::Html;

/// What a piece of a line is; the name of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Plain,
    Comment,
    Text,
    Number,
    Keyword,
}

impl Piece {
    fn class(self) -> &'static str {
        match self {
            Piece::Plain => "",
            Piece::Comment => "bs-c",
            Piece::Text => "bs-s",
            Piece::Number => "bs-n",
            Piece::Keyword => "bs-k",
        }
    }
}

/// Keywords of the languages that clients are written in; one list, for few words mean
/// something else in another language.
const KEYWORDS: &[&str] = &[
    "and",
    "as",
    "assert",
    "async",
    "await",
    "begin",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "crate",
    "def",
    "default",
    "defer",
    "del",
    "do",
    "elif",
    "else",
    "elsif",
    "end",
    "ensure",
    "enum",
    "except",
    "export",
    "extends",
    "extern",
    "false",
    "False",
    "final",
    "finally",
    "fn",
    "for",
    "foreach",
    "from",
    "func",
    "function",
    "global",
    "go",
    "goto",
    "if",
    "impl",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "is",
    "lambda",
    "let",
    "loop",
    "match",
    "mod",
    "module",
    "move",
    "mut",
    "namespace",
    "new",
    "nil",
    "None",
    "nonlocal",
    "not",
    "null",
    "or",
    "package",
    "pass",
    "private",
    "protected",
    "pub",
    "public",
    "raise",
    "ref",
    "require",
    "rescue",
    "return",
    "select",
    "self",
    "Self",
    "static",
    "struct",
    "super",
    "switch",
    "this",
    "throw",
    "throws",
    "trait",
    "true",
    "True",
    "try",
    "type",
    "typeof",
    "undefined",
    "unless",
    "unsafe",
    "use",
    "using",
    "var",
    "void",
    "where",
    "while",
    "with",
    "yield",
];

/// Writes a line; `column` (from 1) is where it failed.
pub(super) fn line(html: &mut Html, platform: Option<&str>, line: &str, column: Option<usize>) {
    let mark = column.and_then(|column| marked(line, column));
    let mut at = 0;
    for (piece, text) in pieces(line, platform) {
        let (from, to) = (at, at + text.len());
        at = to;
        // The marked word may begin inside a piece; it never spans two, pieces end at words.
        match mark.filter(|(start, end)| *start >= from && *end <= to) {
            Some((start, end)) => {
                write(html, piece, &line[from..start]);
                html.raw("<mark>");
                write(html, piece, &line[start..end]);
                html.raw("</mark>");
                write(html, piece, &line[end..to]);
            }
            None => write(html, piece, text),
        }
    }
}

fn write(html: &mut Html, piece: Piece, text: &str) {
    if text.is_empty() {
        return;
    }
    match piece {
        Piece::Plain => html.text(text),
        piece => html.span(piece.class(), text),
    }
}

/// The word, or else the character, at a column.
fn marked(line: &str, column: usize) -> Option<(usize, usize)> {
    let (start, first) = line.char_indices().nth(column.checked_sub(1)?)?;
    let rest = &line[start..];
    let word = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    (!first.is_whitespace()).then_some((start, start + word.max(first.len_utf8())))
}

fn pieces<'l>(line: &'l str, platform: Option<&str>) -> Vec<(Piece, &'l str)> {
    let hash_comments = matches!(
        platform,
        Some("python" | "ruby" | "perl" | "php" | "elixir")
    );
    let rust = matches!(platform, Some("rust" | "native"));
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        let (piece, length) = match first {
            '#' if hash_comments => (Piece::Comment, rest.len()),
            '/' if after.starts_with('/') && !hash_comments => (Piece::Comment, rest.len()),
            '/' if after.starts_with('*') => (
                Piece::Comment,
                rest.find("*/").map_or(rest.len(), |end| end + 2),
            ),
            '\'' if rust => rust_quote(rest),
            '"' | '`' | '\'' => (Piece::Text, text_length(rest, first)),
            digit if digit.is_ascii_digit() => (Piece::Number, number_length(rest)),
            letter if letter.is_alphabetic() || letter == '_' => {
                let length = word_length(rest);
                let keyword = KEYWORDS.contains(&&rest[..length]);
                (
                    if keyword {
                        Piece::Keyword
                    } else {
                        Piece::Plain
                    },
                    length,
                )
            }
            other => (Piece::Plain, other.len_utf8()),
        };
        pieces.push((piece, &rest[..length]));
        rest = &rest[length..];
    }
    pieces
}

fn word_length(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len())
}

fn number_length(rest: &str) -> usize {
    let mut length = word_length(rest);
    // `1.5` is one number, `1..5` and `1.max(2)` are not.
    let fraction = rest[length..]
        .strip_prefix('.')
        .filter(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    if let Some(fraction) = fraction {
        length += 1 + word_length(fraction);
    }
    length
}

/// From the opening quote to the closing one, or to the end of the line.
fn text_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            end if end == quote => return at + end.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// A character (`'a'`, `'\n'`) or the name of a lifetime.
fn rust_quote(rest: &str) -> (Piece, usize) {
    let closing = rest[1..].find('\'').map(|at| at + 1);
    let is_character =
        rest[1..].starts_with('\\') || closing.is_some_and(|at| rest[1..at].chars().count() == 1);
    match closing {
        Some(at) if is_character => (Piece::Text, at + 1),
        _ => (Piece::Plain, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(platform: &str, text: &str, column: Option<usize>) -> String {
        let mut html = Html::new();
        line(&mut html, Some(platform), text, column);
        html.finish()
    }

    #[test]
    fn lines() {
        assert_eq!(
            shown("rust", "let x: &'a str = \"a\\\"b\"; // why", Some(5)),
            "<span class=\"bs-k\">let</span> <mark>x</mark>: &amp;&#39;a str = \
             <span class=\"bs-s\">&quot;a\\&quot;b&quot;</span>; <span class=\"bs-c\">// why</span>"
        );
        assert_eq!(
            shown("python", "total = 7 // 2  # half", None),
            "total = <span class=\"bs-n\">7</span> // <span class=\"bs-n\">2</span>  \
             <span class=\"bs-c\"># half</span>"
        );
        assert_eq!(
            shown("node", "`open", Some(99)),
            "<span class=\"bs-s\">`open</span>"
        );
        assert_eq!(shown("rust", "é", Some(1)), "<mark>é</mark>");
        assert_eq!(
            shown("rust", "'\\u{1F600}'", Some(2))
                .matches("<mark>")
                .count(),
            1
        );
    }
}
