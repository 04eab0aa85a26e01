//! What a secret looks like: by the name of its value, and by its form inside a text.
//!
//! The reporting client and the tracker decide by this what they take out of an event. What they
//! do with it differs: the client knows its own source, the tracker the project's settings.

use std::ops::Range;

use crate::scan::first_of;

/// What stands where a secret was.
pub const FILTERED: &str = "[Filtered]";

/// Longer names are no names.
const NAME_BYTES_MAX: usize = 128;

/// The form by which something in a text was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Form {
    /// The number of a card, with a valid check digit.
    Card,
    /// The token behind `Bearer` or `Basic`.
    Bearer,
    /// The password in a URL.
    UrlAuth,
    /// The inside of a PEM private key.
    PrivateKey,
    /// An e-mail address.
    Email,
    /// An IPv4 address.
    Ip,
}

/// Which forms are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Cards, tokens, passwords and keys.
    pub secrets: bool,
    /// E-mail addresses.
    pub emails: bool,
    /// IPv4 addresses.
    pub ip_addresses: bool,
}

/// Where something was recognised, in bytes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Where it begins.
    pub from: usize,
    /// Where it ends.
    pub to: usize,
    /// By which form, if it was recognised by its form.
    pub form: Option<Form>,
}

impl Span {
    fn new(from: usize, to: usize, form: Form) -> Span {
        let form = Some(form);
        Span { from, to, form }
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Span {
        Span {
            from: range.start,
            to: range.end,
            form: None,
        }
    }
}

/// Finds what is secret in a text by its form, in no order.
///
/// # Example
///
/// ```
/// use backstop_protocol::secret::{self, Wanted};
///
/// let text = "cannot reach redis://shop:hunter2@cache";
/// let wanted = Wanted { secrets: true, ..Wanted::default() };
/// let spans = secret::find(text, wanted);
/// assert_eq!(secret::replace(text, spans), "cannot reach redis://shop:[Filtered]@cache");
/// ```
pub fn find(text: &str, wanted: Wanted) -> Vec<Span> {
    let signs = Signs::of(text.as_bytes());
    let mut spans = Vec::new();
    if wanted.secrets {
        if signs.at && text.contains("://") {
            url_passwords(text, &mut spans);
        }
        if signs.hyphens >= KEY_HYPHENS_MIN {
            private_keys(text, &mut spans);
        }
        if signs.card {
            cards(text, &mut spans);
        }
        if signs.bearer {
            bearers(text, &mut spans);
        }
    }
    if wanted.emails && signs.at {
        emails(text, &mut spans);
    }
    if wanted.ip_addresses && signs.digit {
        ip_addresses(text, &mut spans);
    }
    spans
}

/// Says whether [`find`] can find something in a text of `json`; a quick look at the whole, which
/// is wrong only by saying yes too often.
pub fn may_be_in(json: &str, wanted: Wanted) -> bool {
    let signs = Signs::of(json.as_bytes());
    // Some encoders escape slashes.
    let has_url = || json.contains(":/") || json.contains(":\\/");
    let may_be_secret =
        signs.bearer || signs.hyphens >= KEY_HYPHENS_MIN || signs.card || signs.at && has_url();
    (wanted.secrets && may_be_secret)
        || (wanted.emails && signs.at)
        || (wanted.ip_addresses && signs.digit && json.contains('.'))
        // An escape may hide any of the signs.
        || (signs.backslash && json.contains("\\u00"))
}

/// Returns the text with [`FILTERED`] in the place of each span; spans may overlap.
pub fn replace(text: &str, mut spans: Vec<Span>) -> String {
    spans.sort_unstable();
    let mut clean = String::with_capacity(text.len());
    let mut end = 0;
    for span in spans {
        if span.from >= end {
            clean.push_str(&text[end..span.from]);
            clean.push_str(FILTERED);
        }
        end = end.max(span.to);
    }
    clean.push_str(&text[end..]);
    clean
}

/// Words that make a name that of a secret; a name is split at signs and at capitals.
const WORDS: [&str; 27] = [
    "auth",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "csrf",
    "csrftoken",
    "cvc",
    "cvv",
    "jwt",
    "otp",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "pwd",
    "secret",
    "secrets",
    "sessid",
    "sessionid",
    "ssn",
    "token",
    "tokens",
    "xsrf",
    "apikey",
    "cookie",
    "phpsessid",
];

/// Two words that only together are a secret's name, and their form without a sign between.
const PAIRS: [(&str, &str); 9] = [
    ("access", "key"),
    ("api", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("signing", "key"),
    ("encryption", "key"),
    ("master", "key"),
    ("session", "key"),
    ("card", "number"),
];

/// Long words that are a secret's name inside other words as well.
const PARTS: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "apikey",
    "privatekey",
    "accesskey",
    "accesstoken",
    "sessionid",
];

/// Says whether a value of this name is a secret.
///
/// # Example
///
/// ```
/// use backstop_protocol::secret;
///
/// assert!(secret::is_name("X-Api-Key"));
/// assert!(!secret::is_name("author"));
/// ```
pub fn is_name(name: &str) -> bool {
    if name.len() > NAME_BYTES_MAX || name.len() < 3 {
        return false;
    }
    if !has_hint(name.as_bytes()) {
        return false;
    }
    // Only ASCII letters decide; the rest separates words.
    let mut lower = [0_u8; NAME_BYTES_MAX];
    for (small, byte) in lower.iter_mut().zip(name.bytes()) {
        *small = byte.to_ascii_lowercase();
    }
    let Ok(lower) = std::str::from_utf8(&lower[..name.len()]) else {
        return false;
    };
    if PARTS.iter().any(|part| lower.contains(part)) {
        return true;
    }
    let mut before = "";
    for word in words(name) {
        let word = &lower[word];
        if WORDS.contains(&word) || PAIRS.contains(&(before, word)) {
            return true;
        }
        before = word;
    }
    false
}

/// Every word above has one of these in it.
const HINTS: [&str; 18] = [
    "auth", "bearer", "cookie", "cred", "csrf", "cvc", "cvv", "jwt", "key", "number", "otp",
    "pass", "pwd", "secret", "sess", "ssn", "token", "xsrf",
];

/// The pairs of letters with which the hints begin: a bit for the second in the place of the first.
const BEGINNINGS: [u32; 32] = {
    let mut seconds = [0; 32];
    let mut at = 0;
    while at < HINTS.len() {
        let hint = HINTS[at].as_bytes();
        seconds[(hint[0] & 31) as usize] |= 1 << (hint[1] & 31);
        at += 1;
    }
    seconds
};

/// Says whether [`is_name`] can say yes; a quick look, which is wrong only by saying yes too often.
pub(crate) fn may_be_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && has_hint(name.as_bytes())
}

/// Five bits of each of the three letters with which a hint begins.
const fn head(letters: &[u8]) -> u16 {
    (letters[0] as u16 & 31) << 10 | (letters[1] as u16 & 31) << 5 | letters[2] as u16 & 31
}

const HEADS: [u16; HINTS.len()] = {
    let mut heads = [0; HINTS.len()];
    let mut at = 0;
    while at < HINTS.len() {
        heads[at] = head(HINTS[at].as_bytes());
        at += 1;
    }
    heads
};

fn has_hint(name: &[u8]) -> bool {
    // Letters of both cases have the same five bits; that other signs have them as well does no harm.
    let begins = |pair: &[u8]| BEGINNINGS[usize::from(pair[0] & 31)] >> (pair[1] & 31) & 1 == 1;
    (0..name.len().saturating_sub(2))
        .filter(|at| begins(&name[*at..]) && HEADS.contains(&head(&name[*at..])))
        .any(|at| {
            let rest = &name[at..];
            HINTS.iter().any(|hint| {
                rest.get(..hint.len())
                    .is_some_and(|word| word.eq_ignore_ascii_case(hint.as_bytes()))
            })
        })
}

/// Returns where the words of a name are: `userPassword`, `user_password`, `'user-password'`.
fn words(name: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = name.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !bytes[at].is_ascii_alphabetic() {
            at += 1;
        }
        let from = at;
        while at < bytes.len() && bytes[at].is_ascii_alphabetic() {
            let capital_after_small =
                at > from && bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase();
            if capital_after_small {
                break;
            }
            at += 1;
        }
        (from < at).then_some(from..at)
    })
}

/// Which signs a text has, so that most texts are looked through once only.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signs {
    /// Digits that are enough for a card and may be parts of one.
    card: bool,
    hyphens: usize,
    at: bool,
    digit: bool,
    backslash: bool,
    /// A `b` with the end of `bearer ` or `basic ` in the right distance.
    bearer: bool,
}

/// Nothing that is found is shorter.
const FOUND_BYTES_MIN: usize = 5;
/// The longer of the two words of [`bearers`].
const BEARER_BYTES: usize = "bearer ".len();
/// The hyphens of one line of [`private_keys`].
const KEY_HYPHENS_MIN: usize = 10;

impl Signs {
    fn of(bytes: &[u8]) -> Signs {
        if bytes.len() < FOUND_BYTES_MIN {
            return Signs::default();
        }
        let signs = sign::in_any(bytes);
        let has = |sign: u8| signs & sign != 0;
        let is_digit = |byte: &u8| byte.is_ascii_digit();
        let digits = has(sign::DIGIT) && sign::count(bytes, is_digit) >= CARD_DIGITS_MIN;
        Signs {
            card: digits && may_have_card(bytes),
            hyphens: match has(sign::HYPHEN) {
                true => sign::count(bytes, |byte| *byte == b'-'),
                false => 0,
            },
            at: has(sign::AT),
            digit: has(sign::DIGIT),
            backslash: has(sign::BACKSLASH),
            bearer: has(sign::B) && bytes.len() > BEARER_BYTES && may_have_bearer(bytes),
        }
    }
}

/// The signs as bits of a byte, so that all are looked for at once.
mod sign {
    pub(super) const AT: u8 = 1;
    pub(super) const BACKSLASH: u8 = 2;
    pub(super) const B: u8 = 4;
    pub(super) const HYPHEN: u8 = 8;
    pub(super) const DIGIT: u8 = 16;

    /// So many bytes fit into the vectors that every processor has.
    const LANES: usize = 16;
    /// Counts of so many bytes fit into a byte.
    const COUNTED: usize = 128;

    const fn of(byte: u8) -> u8 {
        (byte == b'@') as u8 * AT
            + (byte == b'\\') as u8 * BACKSLASH
            + (byte | 32 == b'b') as u8 * B
            + (byte == b'-') as u8 * HYPHEN
            + byte.is_ascii_digit() as u8 * DIGIT
    }

    const TABLE: [u8; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = of(byte as u8);
            byte += 1;
        }
        table
    };

    /// Returns the signs that stand anywhere in a text.
    pub(super) fn in_any(bytes: &[u8]) -> u8 {
        let (blocks, rest) = bytes.as_chunks::<LANES>();
        let mut lanes = [0; LANES];
        for block in blocks {
            // One lane for each byte: the compiler makes vectors of this.
            for (lane, byte) in lanes.iter_mut().zip(block) {
                *lane |= of(*byte);
            }
        }
        let signs = match blocks.is_empty() {
            true => 0,
            false => lanes.iter().fold(0, |all, lane| all | lane),
        };
        // Most texts are names, shorter than a block.
        let rest = rest.iter().map(|byte| TABLE[usize::from(*byte)]);
        rest.fold(signs, |all, signs| all | signs)
    }

    /// Counts bytes.
    pub(super) fn count(bytes: &[u8], counts: impl Fn(&u8) -> bool) -> usize {
        let parts = bytes.chunks(COUNTED);
        parts
            .map(|part| usize::from(part.iter().map(|byte| u8::from(counts(byte))).sum::<u8>()))
            .sum()
    }
}

/// Says whether so many digits as a card has follow each other, without gaps or in groups as
/// [`cards`] takes them.
fn may_have_card(bytes: &[u8]) -> bool {
    let (mut before, mut group) = (0, 0);
    for byte in bytes {
        if byte.is_ascii_digit() {
            group += 1;
            if before + group >= CARD_DIGITS_MIN {
                return true;
            }
        } else {
            let goes_on = group >= CARD_GROUP_MIN && matches!(byte, b' ' | b'-');
            before = if goes_on { before + group } else { 0 };
            group = 0;
        }
    }
    false
}

/// Says whether a `b` has the end of `bearer ` or `basic ` in the right distance.
fn may_have_bearer(bytes: &[u8]) -> bool {
    let from = |at: usize| bytes.get(at..).unwrap_or_default();
    let mut found = 0;
    // Without a branch, so that the compiler makes vectors of it.
    let ends = from(4).iter().zip(from(5)).zip(from(6));
    for (first, ((four, five), six)) in bytes.iter().zip(ends) {
        let basic = (*four | 32 == b'c') & (*five == b' ');
        let bearer = (*five | 32 == b'r') & (*six == b' ');
        found |= u8::from((*first | 32 == b'b') & (basic | bearer));
    }
    found != 0
}

/// `scheme://user:password@host`: the password.
fn url_passwords(text: &str, spans: &mut Vec<Span>) {
    for (scheme_end, _) in text.match_indices("://") {
        let from = scheme_end + 3;
        let rest = &text[from..];
        let end = rest
            .find(|letter: char| {
                letter.is_whitespace() || matches!(letter, '/' | '?' | '#' | '"' | '\'' | '<' | '>')
            })
            .unwrap_or(rest.len());
        let Some(at) = rest[..end].rfind('@') else {
            continue;
        };
        if let Some(colon) = rest[..at].find(':')
            && colon + 1 < at
            && &rest[colon + 1..at] != FILTERED
        {
            spans.push(Span::new(from + colon + 1, from + at, Form::UrlAuth));
        }
    }
}

/// Everything between the lines of a PEM file that holds a private key.
fn private_keys(text: &str, spans: &mut Vec<Span>) {
    const END: &str = "PRIVATE KEY-----";
    let mut from = 0;
    while let Some(begin) = text[from..].find("-----BEGIN ") {
        let begin = from + begin;
        let Some(head) = text[begin..].find(END) else {
            return;
        };
        let body = begin + head + END.len();
        if text[begin + 11..begin + head].len() > 20 {
            from = begin + 11;
            continue;
        }
        // A key that was cut off is still a key.
        let end = text[body..]
            .find("-----END ")
            .map_or(text.len(), |end| body + end);
        if body < end {
            spans.push(Span::new(body, end, Form::PrivateKey));
        }
        from = end.max(body);
    }
}

/// Card numbers have 13 to 19 digits (ISO/IEC 7812), of which the last one is a check.
const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;

/// Cards are written without gaps or in groups of at least this many digits.
const CARD_GROUP_MIN: usize = 3;

/// Digits, in groups with single spaces or hyphens between, that are a card's by form and check.
///
/// A card may stand between other numbers, so every run of groups is tried.
fn cards(text: &str, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    let digit_at = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let joins =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut at = 0;
    while at < bytes.len() {
        if !digit_at(at) {
            at += 1;
            continue;
        }
        let before = at.checked_sub(1).and_then(|place| bytes.get(place));
        let mut groups = Vec::new();
        loop {
            let from = at;
            while digit_at(at) {
                at += 1;
            }
            groups.push((from, at));
            match bytes.get(at) {
                Some(b' ' | b'-') if digit_at(at + 1) => at += 1,
                _ => break,
            }
        }
        // Inside a word or a decimal fraction, digits are something else.
        let fraction = bytes.get(at) == Some(&b'.') && digit_at(at + 1);
        let first = usize::from(joins(before) || before == Some(&b'.'));
        let last = groups.len() - usize::from(joins(bytes.get(at)) || fraction);
        if let Some(groups) = groups.get(first..last) {
            cards_of_groups(bytes, groups, spans);
        }
    }
}

fn cards_of_groups(bytes: &[u8], groups: &[(usize, usize)], spans: &mut Vec<Span>) {
    let mut start = 0;
    while start < groups.len() {
        let mut digits = Vec::with_capacity(CARD_DIGITS_MAX);
        let mut found = None;
        for (place, (from, to)) in groups.iter().enumerate().skip(start) {
            let short = |place: usize| groups[place].1 - groups[place].0 < CARD_GROUP_MIN;
            let in_groups = place > start && (short(start) || short(place));
            if in_groups || digits.len() + (to - from) > CARD_DIGITS_MAX {
                break;
            }
            digits.extend(bytes[*from..*to].iter().map(|digit| digit - b'0'));
            if digits.len() >= CARD_DIGITS_MIN && is_card(&digits) {
                found = Some((place, *to));
            }
        }
        start = match found {
            Some((place, to)) => {
                spans.push(Span::new(groups[start].0, to, Form::Card));
                place + 1
            }
            None => start + 1,
        };
    }
}

/// The issuers' first digits, the lengths that go with them, and the check of Luhn.
fn is_card(digits: &[u8]) -> bool {
    let plausible = match digits {
        [4, ..] => matches!(digits.len(), 13 | 16 | 19),
        [5, 1..=5, ..] | [2, 2..=7, ..] | [3, 5, ..] => digits.len() == 16,
        [3, 4 | 7, ..] => digits.len() == 15,
        [3, 0 | 6 | 8 | 9, ..] => digits.len() == 14,
        [6, ..] | [5, 0 | 6..=9, ..] => (16..=CARD_DIGITS_MAX).contains(&digits.len()),
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, double) => double / 2,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    plausible && sum.is_multiple_of(10)
}

/// `Bearer abc.def` and `Basic dXNlcjpwYXNz`: what follows the word.
fn bearers(text: &str, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    for word in ["bearer ", "basic "] {
        let mut from = 0;
        while let Some(found) = find_ignoring_case(&bytes[from..], word.as_bytes()) {
            let start = from + found + word.len();
            let len = bytes[start..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte))
                .count();
            let token = &text[start..start + len];
            // "bearer of good news", "basic example": a token is long and no word.
            let is_token = len >= 8 && token.bytes().any(|byte| !byte.is_ascii_lowercase());
            if is_token {
                spans.push(Span::new(start, start + len, Form::Bearer));
            }
            from = start + len;
        }
    }
}

fn find_ignoring_case(bytes: &[u8], word: &[u8]) -> Option<usize> {
    let first = word[0];
    let mut from = 0;
    while let Some(found) = first_of(first, first.to_ascii_uppercase(), &bytes[from..]) {
        let at = from + found;
        let candidate = bytes.get(at..at + word.len())?;
        if candidate.eq_ignore_ascii_case(word) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn emails(text: &str, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('@') {
        // Without `/`, `?` and `#`, which are more often a URL before the address than part of it;
        // taking them away would join what they keep apart.
        let local = |byte: &u8| byte.is_ascii_alphanumeric() || b".!$%&*+=^_{|}~-".contains(byte);
        let domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
        let from = at
            - bytes[..at]
                .iter()
                .rev()
                .take_while(|byte| local(byte))
                .count();
        let end = at
            + 1
            + bytes[at + 1..]
                .iter()
                .take_while(|byte| domain(byte))
                .count();
        if from < at && bytes[at + 1..end].contains(&b'.') {
            spans.push(Span::new(from, end, Form::Email));
        }
    }
}

fn ip_addresses(text: &str, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    let part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let mut at = 0;
    while at < bytes.len() {
        let len = bytes[at..].iter().take_while(|byte| part(byte)).count();
        // Only where digits were found is this place the beginning of a character.
        let word = if len > 0 {
            text[at..at + len].trim_end_matches('.')
        } else {
            ""
        };
        if word.parse::<std::net::Ipv4Addr>().is_ok() {
            spans.push(Span::new(at, at + word.len(), Form::Ip));
        }
        at += len.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_found_wherever_they_stand() {
        for sign in [
            "", "@", "\\", "b", "-", "7", "bearer x", "Basic x", "123-456",
        ] {
            for before in [0, 1, 7, 15, 16, 17, 31, 127, 128, 130, 300] {
                for after in [5, 16, 40] {
                    let text = format!("{}{sign}{}", "x".repeat(before), "x".repeat(after));
                    let signs = Signs::of(text.as_bytes());
                    assert_eq!(signs.at, sign.contains('@'), "{text}");
                    assert_eq!(signs.backslash, sign.contains('\\'), "{text}");
                    assert_eq!(signs.digit, sign.contains(char::is_numeric), "{text}");
                    assert_eq!(signs.hyphens, sign.matches('-').count(), "{text}");
                    assert_eq!(signs.bearer, sign.ends_with(" x"), "{text}");
                    assert!(!signs.card, "{text}");
                }
            }
        }
    }

    #[test]
    fn digits_that_may_be_a_card() {
        let check = |text: &str, card: bool| {
            for before in [0, 1, 15, 16, 120, 300] {
                let text = format!("{}{text} x", "x".repeat(before));
                assert_eq!(Signs::of(text.as_bytes()).card, card, "{text}");
            }
        };
        check("1234567890123", true);
        check("123456789012", false);
        check("123-456-789-0123", true);
        check("12 4111 1111-1111 1111", true);
        check("1234-12-1234 1234 123", false);
        check("1234  5678 9012 345", false);
        check("2026-11-22T15:59:28.477495Z", false);
        check("4c79f60c11214eb38604f4ae0781bfb2", false);
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "password",
            "userPassword",
            "PASSWORD_HASH",
            "'api_key'",
            "X-Api-Key",
            "apiKey",
            "Authorization",
            "auth",
            "client_secret",
            "SECRET_KEY",
            "csrftoken",
            "accessToken",
            "Cookie",
            "sessionid",
            "private-key",
            "my_passwd",
            "jwt",
            "token",
            "cardNumber",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "author",
            "key",
            "keyboard",
            "session",
            "compass",
            "passenger",
            "monkey",
            "id",
            "tokenizer",
            "number",
            "cv",
            "basic",
            "ü",
            "primary_key",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn no_word_escapes_the_quick_look() {
        let pairs = PAIRS.iter().map(|(one, other)| format!("{one}_{other}"));
        let words = WORDS.iter().chain(&PARTS).map(|word| (*word).to_owned());
        for name in words.chain(pairs) {
            assert!(is_name(&name), "{name}");
            assert!(is_name(&name.to_ascii_uppercase()), "{name}");
        }
    }

    #[test]
    fn a_quick_look_lets_usual_texts_pass() {
        let wanted = Wanted {
            secrets: true,
            ..Wanted::default()
        };
        let usual = r#"["result_12 = self.process(order, 12)  # back - to 100", "number: 7.5\n"]"#;
        assert!(!may_be_in(usual, wanted));
        assert!(may_be_in(r#"["ann\u0040example.test"]"#, wanted));
    }

    #[test]
    fn patterns_in_texts() {
        let wanted = Wanted {
            secrets: true,
            emails: true,
            ip_addresses: false,
        };
        let check = |text: &str, expected: &str| {
            assert_eq!(replace(text, find(text, wanted)), expected);
            assert_eq!(replace(expected, find(expected, wanted)), expected, "again");
            let found = text != expected;
            let long = format!("{}{text}{}", "x ".repeat(100), " y".repeat(100));
            let json = serde_json::to_string(&[&long, text]).unwrap();
            assert!(!found || may_be_in(&json, wanted), "{text}");
        };
        check("paid with 4111 1111 1111 1111.", "paid with [Filtered].");
        check("card 378282246310005", "card [Filtered]");
        check("card 4111111111111112", "card 4111111111111112"); // wrong check digit
        check(
            "order 1234567890123456789012",
            "order 1234567890123456789012",
        );
        check("at 1795338000250000 us", "at 1795338000250000 us");
        check(
            "0.4111111111111111 4111111111111111.5",
            "0.4111111111111111 4111111111111111.5",
        );
        // Found by fuzzing: other numbers before and after a card hid it.
        check(
            "order 123 4111 1111 1111 1111 99 7",
            "order 123 [Filtered] 99 7",
        );
        check("abc123 4111 1111 1111 1111", "abc123 [Filtered]");
        check(
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        );
        check("x4111111111111111", "x4111111111111111");
        check("Bearer abc.DEF-123", "Bearer [Filtered]");
        check("the bearer of good news", "the bearer of good news");
        check("basic understanding", "basic understanding");
        check("Basic dXNlcjpwYXNz", "Basic [Filtered]");
        check(
            "postgres://shop:hunter2@db/shop",
            "postgres://shop:[Filtered]@db/shop",
        );
        check("see http://host:80/a@b", "see http://host:80/a@b");
        check(
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----[Filtered]-----END RSA PRIVATE KEY-----",
        );
        check(
            "-----BEGIN PRIVATE KEY-----\nMIIB",
            "-----BEGIN PRIVATE KEY-----[Filtered]",
        );
        check(
            "-----BEGIN CERTIFICATE-----\nMIIB",
            "-----BEGIN CERTIFICATE-----\nMIIB",
        );
        check("write to ann@example.test!", "write to [Filtered]!");
        check("mailto:?to=/ann@example.test", "mailto:?to=/[Filtered]");
        // Found by fuzzing: without the address's slashes the first URL went on to the last `@`.
        check("a://0:0@b://00@.c@d", "a://0:[Filtered]@b://[Filtered]@d");
        check(
            "5555555555554444 und Bearer AAAABBBB1",
            "[Filtered] und Bearer [Filtered]",
        );
    }
}
