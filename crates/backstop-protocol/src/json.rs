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
use crate::plain::{Plain, end_of_lines, end_of_value, hex4};
use crate::scan::{skip_space, special_byte};

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
/// So many digits fit into 64 bits, with one more.
const SMALL_DIGITS_MAX: usize = 18;
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
        skip_space(self.text.as_bytes(), &mut self.at)
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
            let key = self.quoted()?;
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
            b'"' => Ok(Value::String(self.quoted()?.into_owned())),
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

    /// Reads some members of an object and skips the others; of equal keys the last one wins.
    pub(crate) fn pick<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[Option<Value>; N], Syntax> {
        let mut picked = [const { None }; N];
        self.object(|reader, key| {
            match names.iter().position(|name| *name == key) {
                Some(place) => picked[place] = Some(reader.value()?),
                None => drop(reader.skip()?),
            }
            Ok(())
        })?;
        Ok(picked)
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

    /// Takes the object or list that comes next if it is plain (see [`crate::plain`]), and returns
    /// its text. It can be kept and read later, because reading it changes and notes nothing.
    pub(crate) fn plain(&mut self) -> Option<Plain<'a>> {
        self.peek();
        let depth_max = DEPTH_MAX.saturating_sub(self.path.len());
        let (end, may_name_secret) = end_of_value(self.text, self.at, depth_max)?;
        Some(Plain {
            text: self.take_until(end),
            may_name_secret,
        })
    }

    /// Like [`Reader::plain`], for an object that is not empty.
    pub(crate) fn plain_members(&mut self) -> Option<Plain<'a>> {
        self.peek();
        let mut inside = self.at + 1;
        match skip_space(self.text.as_bytes(), &mut inside) {
            b'"' => self.plain(),
            _ => None,
        }
    }

    /// Like [`Reader::plain`], for a list of texts that is not empty.
    pub(crate) fn plain_lines(&mut self) -> Option<Plain<'a>> {
        self.peek();
        let end = end_of_lines(self.text, self.at)?;
        Some(Plain {
            text: self.take_until(end),
            may_name_secret: false,
        })
    }

    fn take_until(&mut self, end: usize) -> &'a str {
        let from = std::mem::replace(&mut self.at, end);
        &self.text[from..end]
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
        match self.peek() {
            b'"' => self.quoted(),
            _ => Err(self.syntax("a string")),
        }
    }

    /// Like [`Reader::string`], where [`Reader::peek`] has shown the quote.
    pub(crate) fn quoted(&mut self) -> Result<Cow<'a, str>, Syntax> {
        self.at += 1;
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

    /// Takes a whole number of a few digits, if that is what comes next: nearly every number.
    pub(crate) fn small_number(&mut self) -> Option<u64> {
        let rest = &self.text.as_bytes()[self.at..];
        let mut number = 0;
        for (len, byte) in rest.iter().enumerate().take(SMALL_DIGITS_MAX + 1) {
            match byte {
                b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
                b',' | b'}' | b']' if len > 0 => {
                    self.at += len;
                    return Some(number);
                }
                _ => return None,
            }
        }
        None
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
}
