//! A reader for JSON as clients really write it.
//!
//! Text goes in; strings, numbers, objects and lists come out in the order they stand there.
//! The grammar is RFC 8259 (<https://www.rfc-editor.org/rfc/rfc8259>) with the deviations that
//! recorded clients need, each with a defined answer:
//!
//! - `NaN`, `Infinity` and `-Infinity` become text of that name,
//! - a number that neither 64 bits nor a finite float can hold becomes its digits as text,
//! - half of a surrogate pair becomes U+FFFD, an unknown escape its own letter,
//! - control characters may stand in strings as they are.
//!
//! Recursion is bounded by [`DEPTH_MAX`]; what lies deeper is skipped without recursion.

use std::borrow::Cow;

use serde_json::{Number, Value};

use crate::Object;

/// Deeper values are cut; clients themselves cut at 3 to 10 levels.
pub(crate) const DEPTH_MAX: usize = 64;

/// A text is not JSON: what was expected, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) expected: &'static str,
    pub(crate) offset: usize,
}

/// One step on the way from the root to the value that is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A key as it stands in the text, between its quotes.
    Key { from: usize, to: usize },
    /// A key that the text does not have, because it uses an old or shorter form.
    Name(&'static str),
    /// A place in a list.
    Index(usize),
}

/// A value that was changed or refused.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) path: Vec<Cow<'static, str>>,
    pub(crate) reason: &'static str,
    pub(crate) original: Option<Value>,
}

/// Reads one JSON text from front to back.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    path: Vec<Step>,
    pub(crate) notes: Vec<Note>,
    /// Members and elements whose end has not been reached: objects and lists are made when their
    /// size is known, because growing them costs more than reading them.
    members: Vec<(String, Value)>,
    elements: Vec<Value>,
}

/// More notes than this say nothing new about an event.
const NOTES_MAX: usize = 100;
/// A refused value is kept beside the data up to this many bytes of its text.
const ORIGINAL_BYTES_MAX: usize = 500;

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Reader<'a> {
        Reader {
            text,
            at: 0,
            path: Vec::with_capacity(16),
            notes: Vec::new(),
            members: Vec::new(),
            elements: Vec::new(),
        }
    }

    /// Returns a second reader at the same place, for looking ahead.
    pub(crate) fn fork(&self) -> Reader<'a> {
        Reader {
            text: self.text,
            at: self.at,
            path: Vec::new(),
            notes: Vec::new(),
            members: Vec::new(),
            elements: Vec::new(),
        }
    }

    /// Returns the first key of the object that comes next.
    pub(crate) fn first_key(mut self) -> Option<Cow<'a, str>> {
        self.take(b'{', "an object").ok()?;
        self.string().ok()
    }

    /// Returns the next byte that is no white space, without taking it; 0 at the end.
    pub(crate) fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return *byte,
            }
        }
        0
    }

    /// Fails unless nothing but white space (and NUL, as padding) is left.
    pub(crate) fn end(&mut self) -> Result<(), Syntax> {
        let rest = self.text[self.at..].trim_end_matches('\0').trim();
        if rest.is_empty() {
            Ok(())
        } else {
            self.peek();
            Err(self.syntax("the end"))
        }
    }

    /// Calls `each` for every member; `each` must take the member's value.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Reader<'a>, &str) -> Result<(), Syntax>,
    ) -> Result<(), Syntax> {
        self.take(b'{', "an object")?;
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != b'"' {
                return Err(self.syntax("a key"));
            }
            let from = self.at + 1;
            let key = self.string()?;
            let to = self.at - 1;
            self.take(b':', "a colon")?;
            self.path.push(Step::Key { from, to });
            each(self, &key)?;
            self.path.pop();
            match self.peek() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.syntax("a comma or the end of the object")),
            }
        }
    }

    /// Calls `each` for every element; `each` must take the element.
    pub(crate) fn list(
        &mut self,
        mut each: impl FnMut(&mut Reader<'a>) -> Result<(), Syntax>,
    ) -> Result<(), Syntax> {
        self.take(b'[', "a list")?;
        if self.peek() == b']' {
            self.at += 1;
            return Ok(());
        }
        for index in 0.. {
            self.path.push(Step::Index(index));
            each(self)?;
            self.path.pop();
            match self.peek() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    break;
                }
                _ => return Err(self.syntax("a comma or the end of the list")),
            }
        }
        Ok(())
    }

    /// Reads on as if the text had the key `name` here.
    pub(crate) fn below<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> T,
    ) -> T {
        self.path.push(Step::Name(name));
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reads on as if the current member's key were `name`.
    pub(crate) fn renamed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> T,
    ) -> T {
        let step = self.path.pop();
        let result = self.below(name, read);
        self.path.extend(step);
        result
    }

    /// Reads any value.
    pub(crate) fn value(&mut self) -> Result<Value, Syntax> {
        match self.peek() {
            b'"' => Ok(Value::String(self.string()?.into_owned())),
            b'{' if self.path.len() < DEPTH_MAX => Ok(Value::Object(self.members()?)),
            b'[' if self.path.len() < DEPTH_MAX => {
                let start = self.elements.len();
                self.list(|reader| {
                    let value = reader.value()?;
                    reader.elements.push(value);
                    Ok(())
                })?;
                Ok(Value::Array(self.elements.drain(start..).collect()))
            }
            b'{' | b'[' => {
                self.skip()?;
                self.note("nested too deeply", None);
                Ok(Value::Null)
            }
            _ => self.scalar(),
        }
    }

    /// Reads an object whose members may be anything; of equal keys the last one wins.
    pub(crate) fn members(&mut self) -> Result<Object, Syntax> {
        let start = self.members.len();
        self.object(|reader, key| {
            let key = key.to_owned();
            let value = reader.value()?;
            reader.members.push((key, value));
            Ok(())
        })?;
        let mut object = Object::with_capacity(self.members.len() - start);
        object.extend(self.members.drain(start..));
        Ok(object)
    }

    /// Reads a value into `object`; of equal keys the last one wins.
    pub(crate) fn member(&mut self, key: &str, object: &mut Object) -> Result<(), Syntax> {
        let value = self.value()?;
        object.insert(key.to_owned(), value);
        Ok(())
    }

    /// Takes the next value without looking into it and returns its text.
    ///
    /// Brackets are counted, not matched by kind.
    pub(crate) fn skip(&mut self) -> Result<&'a str, Syntax> {
        self.peek();
        let from = self.at;
        let mut open = 0_usize;
        loop {
            match self.peek() {
                b'{' | b'[' => {
                    open += 1;
                    self.at += 1;
                }
                b'}' | b']' if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                b'"' => self.skip_string()?,
                b',' | b':' if open > 0 => self.at += 1,
                _ => {
                    self.word()?;
                }
            }
            if open == 0 {
                return Ok(&self.text[from..self.at]);
            }
        }
    }

    /// Takes the object or list that comes next if it is plain, and returns its text.
    ///
    /// Plain is what has the same meaning for every reader of JSON: no form that only clients
    /// know, no number that a float cannot hold exactly, no depth that would be cut. Such text can
    /// be kept and read later, because reading it changes and notes nothing.
    pub(crate) fn plain(&mut self) -> Option<&'a str> {
        self.peek();
        let depth_max = DEPTH_MAX.saturating_sub(self.path.len());
        let end = walk(self.text, self.at, depth_max, &mut |_, _| true)?;
        let plain = &self.text[self.at..end];
        self.at = end;
        Some(plain)
    }

    /// Like [`Reader::plain`], for an object that is not empty.
    pub(crate) fn plain_members(&mut self) -> Option<&'a str> {
        self.peek();
        let mut inside = self.at + 1;
        match skip_space(self.text.as_bytes(), &mut inside) {
            b'"' => self.plain(),
            _ => None,
        }
    }

    /// Like [`Reader::plain`], for a list of texts that is not empty.
    pub(crate) fn plain_lines(&mut self) -> Option<&'a str> {
        self.peek();
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        let mut next = b'[';
        loop {
            if skip_space(bytes, &mut at) != next {
                return None;
            }
            at += 1;
            if skip_space(bytes, &mut at) != b'"' {
                return None;
            }
            at = plain_string(self.text, at + 1)?.0;
            if skip_space(bytes, &mut at) == b']' {
                let plain = &self.text[self.at..=at];
                self.at = at + 1;
                return Some(plain);
            }
            next = b',';
        }
    }

    /// Says whether `found` says yes to a name or text of the plain value that comes next.
    pub(crate) fn any_piece(
        &mut self,
        texts: bool,
        found: &mut impl FnMut(Piece<'_>) -> bool,
    ) -> bool {
        let mut any = false;
        let text = self.text;
        walk(
            text,
            self.at,
            usize::BITS as usize,
            &mut |piece, escaped| {
                any = match piece {
                    Piece::Text(_) if !texts => false,
                    _ if !escaped => found(piece),
                    Piece::Name(text) => found(Piece::Name(&unescaped(text))),
                    Piece::Text(text) => found(Piece::Text(&unescaped(text))),
                };
                !any
            },
        );
        any
    }

    /// Takes a value that is of no use and notes it beside the data.
    pub(crate) fn refuse(&mut self, reason: &'static str) -> Result<(), Syntax> {
        let text = self.skip()?;
        let original = (text.len() <= ORIGINAL_BYTES_MAX)
            .then(|| Reader::new(text).value().ok())
            .flatten();
        self.note(reason, original);
        Ok(())
    }

    /// Notes something beside the value that is being read.
    pub(crate) fn note(&mut self, reason: &'static str, original: Option<Value>) {
        if self.notes.len() < NOTES_MAX {
            let path = self.path.iter().map(|step| self.name_of(*step)).collect();
            self.notes.push(Note {
                path,
                reason,
                original,
            });
        }
    }

    fn name_of(&self, step: Step) -> Cow<'static, str> {
        match step {
            Step::Key { from, to } => {
                // One more byte on each side: the quotes.
                let quoted = self.text.get(from - 1..=to).unwrap_or_default();
                match Reader::new(quoted).string() {
                    Ok(key) => Cow::Owned(key.into_owned()),
                    Err(_) => Cow::Borrowed(""),
                }
            }
            Step::Name(name) => Cow::Borrowed(name),
            Step::Index(index) => Cow::Owned(index.to_string()),
        }
    }

    /// Reads a string; borrowed where it has no escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Syntax> {
        self.take(b'"', "a string")?;
        let from = self.at;
        self.run()?;
        let plain = &self.text[from..self.at];
        if self.text.as_bytes()[self.at] == b'"' {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut string = String::with_capacity(plain.len() + 32);
        string.push_str(plain);
        loop {
            // `run` stopped at a quote or a backslash.
            if self.text.as_bytes()[self.at] == b'"' {
                self.at += 1;
                return Ok(Cow::Owned(string));
            }
            string.push(self.escape()?);
            let from = self.at;
            self.run()?;
            string.push_str(&self.text[from..self.at]);
        }
    }

    fn skip_string(&mut self) -> Result<(), Syntax> {
        self.at += 1;
        loop {
            self.run()?;
            if self.text.as_bytes()[self.at] == b'"' {
                self.at += 1;
                return Ok(());
            }
            // The byte after a backslash is never the end, and never inside a longer character's
            // middle that matters: continuation bytes are neither quotes nor backslashes.
            self.at += 2;
        }
    }

    /// Goes to the next quote or backslash.
    fn run(&mut self) -> Result<(), Syntax> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        match special_byte(rest) {
            Some(len) => {
                self.at += len;
                Ok(())
            }
            None => {
                self.at = self.text.len();
                Err(self.syntax("the end of a string"))
            }
        }
    }

    /// Reads an escape; stands on the backslash.
    fn escape(&mut self) -> Result<char, Syntax> {
        self.at += 1;
        let rest = &self.text[self.at..];
        let Some(letter) = rest.chars().next() else {
            return Err(self.syntax("an escape"));
        };
        self.at += letter.len_utf8();
        Ok(match letter {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => self.unicode_escape(),
            other => other,
        })
    }

    fn unicode_escape(&mut self) -> char {
        let Some(unit) = hex4(self.text.as_bytes(), self.at) else {
            return char::REPLACEMENT_CHARACTER;
        };
        self.at += 4;
        if (0xD800..0xDC00).contains(&unit)
            && self.text[self.at..].starts_with("\\u")
            && let Some(low @ 0xDC00..0xE000) = hex4(self.text.as_bytes(), self.at + 2)
        {
            self.at += 6;
            let code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
            return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        // Half of a surrogate pair is no character.
        char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// Reads anything but strings, objects and lists.
    fn scalar(&mut self) -> Result<Value, Syntax> {
        let from = self.at;
        let word = self.word()?;
        Ok(match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "NaN" | "Infinity" | "-Infinity" => Value::String(word.to_owned()),
            number => match number_of(number) {
                Some(value) => value,
                None => {
                    self.at = from;
                    return Err(self.syntax("a value"));
                }
            },
        })
    }

    /// Takes letters, digits and signs: a number or a name, checked by the caller where it matters.
    pub(crate) fn word(&mut self) -> Result<&'a str, Syntax> {
        self.peek();
        let rest = &self.text.as_bytes()[self.at..];
        let len = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
            .count();
        if len == 0 {
            return Err(self.syntax("a value"));
        }
        self.at += len;
        Ok(&self.text[self.at - len..self.at])
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Syntax> {
        if self.peek() == byte {
            self.at += 1;
            Ok(())
        } else {
            Err(self.syntax(expected))
        }
    }

    fn syntax(&self, expected: &'static str) -> Syntax {
        Syntax {
            expected,
            offset: self.at,
        }
    }
}

/// A name or text inside a value, as [`crate::Lazy::any_piece`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The key of a member. The first text of a list is shown as a name and as a text, because a
    /// list may be a pair of name and value.
    Name(&'a str),
    /// A text.
    Text(&'a str),
}

/// Goes through the plain value that begins at `at`, without recursion, and returns where it ends;
/// `None` if it is not plain or `each` said that this is enough.
///
/// `each` gets names and texts as they stand between their quotes, and whether escapes are in them.
fn walk<'a>(
    text: &'a str,
    mut at: usize,
    depth_max: usize,
    each: &mut impl FnMut(Piece<'a>, bool) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    // One bit for each open object or list, the innermost lowest: 1 is an object.
    let mut objects = 0_u64;
    let mut first = false;
    loop {
        let opened = skip_space(bytes, &mut at);
        match opened {
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max.min(64) {
                    return None;
                }
                objects = objects << 1 | u64::from(opened == b'{');
                at += 1;
                // `{` and `}` and also `[` and `]` are two apart in ASCII.
                if skip_space(bytes, &mut at) == opened + 2 {
                    at += 1;
                    depth -= 1;
                    objects >>= 1;
                } else if opened == b'{' {
                    at = walk_key(text, at, each)?;
                    first = false;
                    continue;
                } else {
                    first = true;
                    continue;
                }
            }
            b'"' => {
                let from = at + 1;
                let (end, escaped) = plain_string(text, from)?;
                let string = &text[from..end - 1];
                if first && !each(Piece::Name(string), escaped) {
                    return None;
                }
                if !each(Piece::Text(string), escaped) {
                    return None;
                }
                at = end;
            }
            _ => at = plain_word(bytes, at)?,
        }
        first = false;
        loop {
            if depth == 0 {
                return Some(at);
            }
            let in_object = objects & 1 == 1;
            match skip_space(bytes, &mut at) {
                b',' => {
                    at += 1;
                    if in_object {
                        at = walk_key(text, at, each)?;
                    }
                    break;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ => return None,
            }
            at += 1;
            depth -= 1;
            objects >>= 1;
        }
    }
}

/// Goes over a key and its colon.
fn walk_key<'a>(
    text: &'a str,
    mut at: usize,
    each: &mut impl FnMut(Piece<'a>, bool) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    if skip_space(bytes, &mut at) != b'"' {
        return None;
    }
    let from = at + 1;
    let (end, escaped) = plain_string(text, from)?;
    if !each(Piece::Name(&text[from..end - 1]), escaped) {
        return None;
    }
    at = end;
    (skip_space(bytes, &mut at) == b':').then_some(at + 1)
}

/// Returns the next byte that is no white space, 0 at the end.
fn skip_space(bytes: &[u8], at: &mut usize) -> u8 {
    while let Some(byte) = bytes.get(*at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => *at += 1,
            byte => return *byte,
        }
    }
    0
}

/// Goes over a string, which begins after its quote, and says whether it has escapes.
fn plain_string(text: &str, mut at: usize) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    let mut escaped = false;
    loop {
        at += special_byte(bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((at + 1, escaped));
        }
        escaped = true;
        at += match bytes.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => match hex4(bytes, at + 2)? {
                0xD800..0xDC00 => {
                    let low = bytes.get(at + 6..at + 8)? == b"\\u"
                        && matches!(hex4(bytes, at + 8)?, 0xDC00..0xE000);
                    low.then_some(12)?
                }
                0xDC00..0xE000 => return None,
                _ => 6,
            },
            _ => return None,
        };
    }
}

/// Whole numbers of so many digits fit into 64 bits.
const WHOLE_DIGITS_MAX: usize = 18;
/// Numbers with a point whose digits are below this are read alike by exact and by quick readers.
const EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;

/// Goes over a number or name.
fn plain_word(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    for name in [&b"null"[..], b"true", b"false"] {
        if rest.starts_with(name) {
            return Some(at + name.len());
        }
    }
    let from = usize::from(rest.first() == Some(&b'-'));
    let (mut value, mut digits) = (0_u64, 0);
    let mut point = None;
    let mut len = from;
    for byte in &rest[from..] {
        match byte {
            b'0'..=b'9' if digits < WHOLE_DIGITS_MAX => {
                value = value * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(digits),
            // An exponent, too many digits, or nothing that JSON knows.
            b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' => return None,
            _ => break,
        }
        len += 1;
    }
    let whole = point.unwrap_or(digits);
    let exact = point.is_none_or(|point| point < digits && value < EXACT_MAX);
    // Zeros in front are no JSON, and minus nothing is not zero for everybody.
    let odd_zero = rest.get(from) == Some(&b'0') && (whole > 1 || from == 1);
    (whole > 0 && exact && !odd_zero).then_some(at + len)
}

/// Returns the string that stands between its quotes with its escapes undone.
fn unescaped(string: &str) -> String {
    let quoted = format!("\"{string}\"");
    match Reader::new(&quoted).string() {
        Ok(string) => string.into_owned(),
        // Only strings that were looked through come here.
        Err(_) => string.to_owned(),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit * 16 + char::from(*digit).to_digit(16)?)
    })
}

/// Returns the value of a number's text; `None` if it is no number.
fn number_of(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(if let Ok(number) = text.parse::<i64>() {
            Value::from(number)
        } else if let Ok(number) = text.parse::<u64>() {
            Value::from(number)
        } else {
            Value::String(text.to_owned())
        });
    }
    // Rust's grammar of floats has names beside numbers; they do not begin with a digit.
    let number: f64 = text.parse().ok()?;
    Some(match Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    })
}

/// Returns the place of the first quote or backslash.
fn special_byte(bytes: &[u8]) -> Option<usize> {
    first_of(b'"', b'\\', bytes)
}

/// Returns the place of the first byte that cannot stand in a string: a quote, a backslash or a
/// control character.
pub(crate) fn first_to_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslashes = below(word ^ (ONES * u64::from(b'\\')), 1);
        let hits = quotes | backslashes | below(word, u64::from(b' '));
        if hits != 0 {
            return Some(index * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    Some(words.len() * 8 + rest.iter().position(special)?)
}

/// Returns the place of the first of two bytes.
///
/// Eight bytes at a time: strings are most of an event.
pub(crate) fn first_of(one: u8, other: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest marked byte is exact; higher ones may be marked wrongly by the borrow.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zeros(word ^ (ONES * u64::from(one))) | zeros(word ^ (ONES * u64::from(other)));
        if hits != 0 {
            return Some(index * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let place = rest
        .iter()
        .position(|byte| *byte == one || *byte == other)?;
    Some(words.len() * 8 + place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Result<Value, Syntax> {
        let mut reader = Reader::new(text);
        let value = reader.value()?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn what_json_is() {
        let check = |text: &str, expected: Value| assert_eq!(value(text), Ok(expected), "{text}");
        check("null", Value::Null);
        check(
            " [1, -2.5e3 ,true,[],{}] ",
            json!([1, -2500.0, true, [], {}]),
        );
        check(
            r#"{"a":{"b":"c"},"a\n":"\u00e9\ud83d\udca9\"\\\/"}"#,
            json!({"a": {"b": "c"}, "a\n": "é💩\"\\/"}),
        );
        check("18446744073709551615", json!(u64::MAX));
        check("-9223372036854775808", json!(i64::MIN));
        check(r#"{"k":1,"k":2}"#, json!({"k": 2}));
        check("\"\"\0\0", json!(""));
    }

    #[test]
    fn what_json_is_not_but_clients_send() {
        let check = |text: &str, expected: Value| assert_eq!(value(text), Ok(expected), "{text}");
        check(
            "[NaN,Infinity,-Infinity]",
            json!(["NaN", "Infinity", "-Infinity"]),
        );
        let digits = "9".repeat(60);
        check(&digits, json!(digits));
        check("1e999", json!("1e999"));
        check(r#""\u0000""#, json!("\0"));
        check(
            r#""a\ud83d-\udca9\ud83d\u0041""#,
            json!("a\u{fffd}-\u{fffd}\u{fffd}A"),
        );
        check(r#""\q\u12""#, json!("q\u{fffd}12"));
        check("\"a\nb\tc\"", json!("a\nb\tc"));
    }

    #[test]
    fn what_is_refused_with_its_place() {
        let check = |text: &str, expected: &'static str, offset: usize| {
            assert_eq!(value(text), Err(Syntax { expected, offset }), "{text}");
        };
        check("", "a value", 0);
        check("{\"a\" 1}", "a colon", 5);
        check("[1 2]", "a comma or the end of the list", 3);
        check("[1,]", "a value", 3);
        check("{\"a\":\"b", "the end of a string", 7);
        check("\"\\", "an escape", 2);
        check("nul", "a value", 0);
        check("+1", "a value", 0);
        check("1 2", "the end", 2);
        check("-", "a value", 0);
        check("{\"a\":1,}", "a key", 7);
    }

    #[test]
    fn a_tower_of_brackets_is_cut_without_recursion() {
        let text = format!("[\"kept\",{}1{}]", "[".repeat(500_000), "]".repeat(500_000));
        let mut reader = Reader::new(&text);
        let value = reader.value().unwrap();
        reader.end().unwrap();
        assert_eq!(value[0], "kept");
        assert_eq!(reader.notes.len(), 1);
        let mut depth = 0;
        let mut inner = &value[1];
        while let Some(next) = inner.get(0) {
            inner = next;
            depth += 1;
        }
        assert_eq!((depth, inner), (DEPTH_MAX - 1, &Value::Null));
    }

    #[test]
    fn a_refused_value_is_noted_with_its_path() {
        let mut reader = Reader::new(r#"{"a\"b":[0,{"c":[1]}]}"#);
        reader
            .object(|reader, _| {
                reader.list(|reader| match reader.peek() {
                    b'{' => reader.object(|reader, _| reader.refuse("expected text")),
                    _ => reader.skip().map(|_| ()),
                })
            })
            .unwrap();
        let note = &reader.notes[0];
        assert_eq!(note.path, ["a\"b", "1", "c"]);
        assert_eq!(note.original, Some(json!([1])));
    }

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for len in 0..40 {
            for place in 0..len {
                for special in [b'"', b'\\'] {
                    let mut bytes = vec![0xFF_u8; len];
                    bytes[place] = special;
                    assert_eq!(special_byte(&bytes), Some(place));
                }
            }
            assert_eq!(special_byte(&vec![b'!'; len]), None);
        }
    }
}
