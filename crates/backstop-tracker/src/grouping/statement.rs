//! What the failing source line says about a message.
//!
//! Source lines are never part of a group's identity: they are reformatted and moved.
//! But they are a witness: a word of the message that stands in the line as a literal was
//! written by a programmer, any other word is data of this one occurrence.

use std::borrow::Cow;

use backstop_protocol::Frame;

/// A statement that is spread over more lines is a table.
const LINES_MAX: usize = 6;
/// Longer lines are minified code.
const LINE_BYTES_MAX: usize = 300;
/// The first words of a message are what programmers wrote to tell it from others.
const WORDS_MAX: usize = 12;

/// The statement at which a frame stands.
pub(super) struct Statement<'a> {
    text: Cow<'a, str>,
}

impl<'a> Statement<'a> {
    /// Reads the statement of a frame, if its source is known and was written by a person.
    pub(super) fn of(frame: &'a Frame) -> Option<Statement<'a>> {
        let line = frame.context_line.as_deref()?.trim();
        if line.is_empty() || line.len() > LINE_BYTES_MAX || line.contains("{snip}") {
            return None;
        }
        let mut open = open_brackets(line);
        if open <= 0 {
            return Some(Statement {
                text: Cow::Borrowed(line),
            });
        }
        let mut text = line.to_owned();
        for line in frame.post_context.iter().take(LINES_MAX) {
            text.push(' ');
            text.push_str(super::value::cut(line.trim(), LINE_BYTES_MAX));
            open += open_brackets(line);
            if open <= 0 {
                break;
            }
        }
        Some(Statement {
            text: Cow::Owned(text),
        })
    }

    /// Says whether the statement raises an error on purpose.
    pub(super) fn raises(&self) -> bool {
        const VERBS: &[&str] = &[
            "raise", "throw", "panic", "assert", "abort", "bail", "ensure", "reject", "fatal",
        ];
        split_words(&self.text).any(|word| VERBS.contains(&word))
    }

    /// Says whether the statement makes an error: where the stack is taken then, a function that
    /// makes errors for others to throw is where they seem to be raised.
    pub(super) fn makes_error(&self, ty: &str) -> bool {
        self.has_word("new") && (self.text.contains("Error(") || self.has_word(ty))
    }

    /// Says whether a Python statement names the cause: `raise … from …`.
    pub(super) fn names_cause(&self) -> bool {
        self.has_word("raise") && self.text.contains(" from ") && !self.text.contains(" from None")
    }

    /// Says whether `name` stands in the statement.
    pub(super) fn has_word(&self, name: &str) -> bool {
        // The searcher of the standard library takes longer to set up than short names to find.
        if !name.is_empty() && name.bytes().all(is_word_byte) {
            return split_words(&self.text).any(|word| word == name);
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        !name.is_empty()
            && self.text.match_indices(name).any(|(at, _)| {
                !self.text[..at].ends_with(is_word)
                    && !self.text[at + name.len()..].starts_with(is_word)
            })
    }

    /// Returns the words of `message` that the statement's literals contain, in order.
    pub(super) fn literal_words(&self, message: &str) -> String {
        let literals = literals(&self.text);
        let known: Vec<&str> = words(&literals).collect();
        let mut out = String::new();
        for word in words(message)
            .filter(|word| known.contains(word))
            .take(WORDS_MAX)
        {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
        }
        out
    }
}

/// A source line without what a formatter changes: white space, kinds of quotes, trailing
/// separators and comments. `None` where too little is left to tell lines apart.
pub(super) fn plain_line(frame: &Frame) -> Option<String> {
    const LETTERS_MIN: usize = 10;
    let line = frame.context_line.as_deref()?;
    if line.len() > LINE_BYTES_MAX || line.contains("{snip}") {
        return None;
    }
    let mut out = String::with_capacity(line.len());
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if quote == Some(c) => {
                quote = None;
                out.push('"');
            }
            '"' | '\'' | '`' if quote.is_none() => {
                quote = Some(c);
                out.push('"');
            }
            '#' if quote.is_none() => break,
            '/' if quote.is_none() && chars.peek() == Some(&'/') => break,
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end_matches([';', ',']).len());
    (out.chars().filter(|c| c.is_alphanumeric()).count() >= LETTERS_MIN).then_some(out)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The words of a statement; letters beyond ASCII belong to words as well.
fn split_words(text: &str) -> impl Iterator<Item = &str> {
    let is_ascii = text.is_ascii();
    text.split(move |c: char| {
        if is_ascii {
            !is_word_byte(c as u8)
        } else {
            !(c.is_alphanumeric() || c == '_')
        }
    })
}

fn open_brackets(line: &str) -> i32 {
    line.bytes().fold(0, |open, byte| match byte {
        b'(' | b'[' | b'{' => open + 1,
        b')' | b']' | b'}' => open - 1,
        _ => open,
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|word| word.chars().nth(1).is_some())
}

/// The contents of a statement's string literals, without interpolated expressions.
fn literals(text: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut depth = 0usize;
    for c in text.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => {
                quote = None;
                out.push(' ');
            }
            ('{', Some(_)) => depth += 1,
            ('}', Some(_)) => depth = depth.saturating_sub(1),
            (c, Some(_)) if depth == 0 => out.push(c),
            ('"' | '\'' | '`', None) => {
                quote = Some(c);
                depth = 0;
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(line: &str, after: &[&str]) -> Frame {
        Frame {
            context_line: Some(line.into()),
            post_context: after.iter().map(|&line| line.into()).collect(),
            ..Frame::default()
        }
    }

    #[test]
    fn words_that_a_programmer_wrote() {
        let check = |line: &str, after: &[&str], message: &str, expected: &str| {
            let frame = frame(line, after);
            let statement = Statement::of(&frame).unwrap();
            assert_eq!(statement.literal_words(message), expected, "{line}");
        };
        check(
            "raise LookupError(f\"no price list for {sku}\")",
            &[],
            "no price list for cedar",
            "no price list for",
        );
        check(
            "raise E(TEXTS[lang] % amount)",
            &[],
            "amount is invalid",
            "",
        );
        check(
            "raise E(",
            &["    'bad colour %s'", "    % c)", "x = 'red'"],
            "bad colour red",
            "bad colour",
        );
        check(
            "throw new Error(`mirror ${i} is down`);",
            &[],
            "mirror i is down",
            "mirror is down",
        );
    }

    #[test]
    fn what_a_statement_does() {
        let check = |line: &str, raises, names_cause| {
            let frame = frame(line, &[]);
            let statement = Statement::of(&frame).unwrap();
            assert_eq!(
                (statement.raises(), statement.names_cause()),
                (raises, names_cause),
                "{line}"
            );
        };
        check("raise BackendError('x') from exc", true, true);
        check("raise BackendError('x') from None", true, false);
        check("if (!ok) throw new Error('x')", true, false);
        check("return raised[0]", false, false);
    }

    #[test]
    fn lines_survive_a_formatter() {
        let plain = |line: &str| plain_line(&frame(line, &[]));
        assert_eq!(
            plain("throw new Error('a // b');  // why"),
            plain("throw new Error( \"a // b\" )")
        );
        assert_eq!(plain("});"), None);
    }
}
