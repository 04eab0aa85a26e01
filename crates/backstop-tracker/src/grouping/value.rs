//! Message templates: a text with its variable parts recognised.
//!
//! `Cache node 10.57.76.182:36905 unreachable after 2322ms` becomes
//! `Cache node <num> unreachable after <num>`, so that every occurrence of one message has one
//! template. Instead of a list of formats there are a few shapes: whatever holds a digit, is
//! quoted, is a list, a path, an address or the value of `key=`, is data. One pass, no
//! backtracking.

/// Longer messages carry dumps; what they are about is said in the beginning.
const MESSAGE_BYTES_MAX: usize = 400;
/// SQL errors and validation reports name the failure and its object in the first two lines.
const MESSAGE_LINES_MAX: usize = 2;

/// Returns the template of a message.
pub(super) fn template(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MESSAGE_BYTES_MAX));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.take(MESSAGE_LINES_MAX) {
        if !out.is_empty() {
            out.push('\n');
        }
        Scanner {
            rest: cut(line, MESSAGE_BYTES_MAX),
            out: &mut out,
        }
        .run();
    }
    out
}

/// Counts the words of a template that are no placeholders: how much it says.
pub(super) fn literal_words(template: &str) -> usize {
    template
        .split(|c: char| !c.is_alphanumeric() && c != '<')
        .filter(|word| !word.starts_with('<') && word.chars().nth(2).is_some())
        .count()
}

/// Cuts a text to at most `bytes` bytes at a character boundary.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

struct Scanner<'a, 'o> {
    rest: &'a str,
    out: &'o mut String,
}

impl Scanner<'_, '_> {
    fn run(mut self) {
        while let Some(first) = self.rest.chars().next() {
            match first {
                c if c.is_whitespace() => {
                    self.rest = self.rest.trim_start();
                    self.out.push(' ');
                }
                '\'' | '"' | '`' | '‘' | '“' | '«' => self.quoted(first),
                '[' | '{' | '(' => self.bracketed(first),
                c if is_separator(c) => self.literal(c),
                _ => self.token(),
            }
        }
    }

    fn literal(&mut self, c: char) {
        self.out.push(c);
        self.rest = &self.rest[c.len_utf8()..];
    }

    /// A quoted text is data; an apostrophe inside a word is not a quote.
    fn quoted(&mut self, open: char) {
        let close = match open {
            '‘' => '’',
            '“' => '”',
            '«' => '»',
            other => other,
        };
        let in_word = self.out.ends_with(char::is_alphanumeric);
        let inner = &self.rest[open.len_utf8()..];
        let end = inner.match_indices(close).find(|(at, _)| {
            !inner[at + close.len_utf8()..].starts_with(|c: char| c.is_alphanumeric())
        });
        match end {
            Some((at, _)) if !in_word => {
                self.out.push_str("<str>");
                self.rest = &inner[at + close.len_utf8()..];
            }
            _ => self.literal(open),
        }
    }

    /// A bracketed list of values is data; a remark in parentheses is text.
    fn bracketed(&mut self, open: char) {
        let close = match open {
            '[' => ']',
            '{' => '}',
            _ => ')',
        };
        let mut depth = 0usize;
        let mut data = false;
        let mut end = None;
        for (at, c) in self.rest.char_indices() {
            if c == open {
                depth += 1;
            } else if c == close {
                depth -= 1;
                if depth == 0 {
                    end = Some(at + c.len_utf8());
                    break;
                }
            }
            data |= c.is_numeric() || matches!(c, '\'' | '"' | ',' | '=');
        }
        match end {
            Some(end) if data => {
                self.out.push_str("<list>");
                self.rest = &self.rest[end..];
            }
            // Without a partner it may be a cut list: everything after it is data as well.
            None if data && open != '(' => {
                self.out.push_str("<list>");
                self.rest = "";
            }
            _ => self.literal(open),
        }
    }

    fn token(&mut self) {
        let is_end = |c: char| c.is_whitespace() || is_separator(c) || matches!(c, '"' | '`');
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let whole = &self.rest[..end];
        let token = whole.trim_end_matches(['.', ':', '!', '?', '\'']);
        // Punctuation alone is text.
        let token = if token.is_empty() { whole } else { token };
        let is_value = self.out.ends_with('=');
        match class(token) {
            Some(_) if is_status(self.out, token) => self.out.push_str(token),
            Some(name) => self.out.push_str(name),
            None if is_value => self.out.push_str("<val>"),
            None => self.out.push_str(token),
        }
        self.rest = &self.rest[token.len()..];
    }
}

fn is_separator(c: char) -> bool {
    matches!(
        c,
        ',' | ';' | '|' | '=' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>'
    )
}

/// The placeholder for a token that is data.
fn class(token: &str) -> Option<&'static str> {
    let separators = token.matches(['/', '\\']).count();
    if token.contains("://") {
        Some("<url>")
    } else if token
        .find('@')
        .is_some_and(|at| at > 0 && at + 1 < token.len())
    {
        Some("<email>")
    } else if separators > 1
        || (separators == 1 && token.len() > 1 && token.starts_with(['/', '\\', '.', '~']))
    {
        Some("<path>")
    } else if token.contains(char::is_numeric) {
        Some("<num>")
    } else if is_host(token) {
        Some("<host>")
    } else {
        None
    }
}

/// The status of an HTTP answer says what went wrong, other numbers say to whom.
fn is_status(before: &str, token: &str) -> bool {
    let status = matches!(token.as_bytes(), [b'4' | b'5', tens, ones]
        if tens.is_ascii_digit() && ones.is_ascii_digit());
    let before = before.trim_end_matches([' ', ':', '=']);
    status
        && ["http", "status", "status code"].iter().any(|word| {
            before
                .len()
                .checked_sub(word.len())
                .and_then(|at| before.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(word))
        })
}

const HOST_ENDS: &[&str] = &[
    "app",
    "cloud",
    "co",
    "com",
    "dev",
    "de",
    "edu",
    "eu",
    "example",
    "fr",
    "gov",
    "info",
    "internal",
    "io",
    "lan",
    "local",
    "localdomain",
    "net",
    "org",
    "test",
    "uk",
    "us",
];

fn is_host(token: &str) -> bool {
    token.rsplit_once('.').is_some_and(|(labels, end)| {
        HOST_ENDS.contains(&end)
            && labels
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
            && !labels.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_parts_are_recognised() {
        let check = |text: &str, expected: &str| assert_eq!(template(text), expected, "{text}");
        check(
            "Cache node 10.57.76.182:36905 unreachable after 2322ms",
            "Cache node <num> unreachable after <num>",
        );
        check("unknown tags {'a', 'b'}", "unknown tags <list>");
        check("no price list for sku370", "no price list for <num>");
        check("can't open 'a b', giving up", "can't open <str>, giving up");
        check("user=bob id=7 ok", "user=<val> id=<num> ok");
        check(
            "GET https://a.b/c failed: timeout.",
            "GET <url> failed: timeout.",
        );
        check("no such table: sales_2024_01", "no such table: <num>");
        check("mail to x@y.example bounced", "mail to <email> bounced");
        check("open /etc/shop.json: denied", "open <path>: denied");
        check("HTTP 503 from api.example.com", "HTTP 503 from <host>");
        check("code 503", "code <num>");
        check("٣٤ items", "<num> items");
        check(
            "[SQL: SELECT x]\n\n[parameters: (1,)]\nmore",
            "[SQL: SELECT x]\n<list>",
        );
        check("cut [1, 2, 3", "cut <list>");
        check("(see the log)", "(see the log)");
        check("'' and 'unclosed", "<str> and 'unclosed");
        check("", "");
        check("...", "...");
    }

    #[test]
    fn words_that_say_something() {
        assert_eq!(literal_words("contacts page <num> is empty"), 3);
        assert_eq!(literal_words("<str>"), 0);
    }
}
