//! What malformed input is forgiven, and how: the one place that decides it.
//!
//! Every method takes one value from a [`Reader`] and puts what it means into a field.
//! A value that means nothing there is taken, noted (see [`Reader::refuse`]) and the field is left
//! as it was; only text that is not JSON at all is an error. `null` means that a field is missing.

use std::borrow::Cow;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::json::{Note, Reader, Syntax};
use crate::{Lazy, Level, Object, Timestamp};

/// More frames, exceptions, threads or breadcrumbs than this are cut. Python's recursion errors
/// have 1,000 frames; anything far above is a fault of the client.
const VALUES_MAX: usize = 5_000;

/// Frames and exceptions are large, so a list of them is not moved while it is short.
const ELEMENTS_RESERVED: usize = 8;
/// A longer list gets room for so many times its elements, so that it is not moved twice.
const ELEMENTS_GROWTH: usize = 3;

impl Reader<'_> {
    /// Takes text; numbers and booleans become theirs.
    pub(crate) fn text(&mut self, field: &mut Option<String>) -> Result<(), Syntax> {
        match self.peek() {
            b'"' => *field = Some(self.quoted()?.into_owned()),
            b'{' | b'[' => self.refuse("expected text")?,
            _ => match self.value()? {
                Value::Null => {}
                Value::String(text) => *field = Some(text),
                other => *field = Some(other.to_string()),
            },
        }
        Ok(())
    }

    /// Takes text; anything else becomes its JSON.
    pub(crate) fn text_of_any(&mut self, field: &mut Option<String>) -> Result<(), Syntax> {
        match self.peek() {
            b'{' | b'[' => *field = Some(self.value()?.to_string()),
            _ => self.text(field)?,
        }
        Ok(())
    }

    /// Takes a whole number that is not negative, also as text or as a float without fraction.
    pub(crate) fn count(&mut self, field: &mut Option<u64>) -> Result<(), Syntax> {
        const EXPECTED: &str = "expected a whole number that is not negative";
        if matches!(self.peek(), b'{' | b'[') {
            return self.refuse(EXPECTED);
        }
        if let Some(number) = self.small_number() {
            *field = Some(number);
            return Ok(());
        }
        let value = self.value()?;
        let number = value
            .as_u64()
            .or_else(|| u64::try_from(whole_number(&value)?).ok());
        match number {
            Some(number) => *field = Some(number),
            None if value.is_null() => {}
            None => self.note(EXPECTED, Some(value)),
        }
        Ok(())
    }

    /// Takes a whole number, also as text or as a float without fraction.
    pub(crate) fn number(&mut self, field: &mut Option<i64>) -> Result<(), Syntax> {
        const EXPECTED: &str = "expected a whole number";
        if matches!(self.peek(), b'{' | b'[') {
            return self.refuse(EXPECTED);
        }
        let value = self.value()?;
        match whole_number(&value) {
            Some(number) => *field = Some(number),
            None if value.is_null() => {}
            None => self.note(EXPECTED, Some(value)),
        }
        Ok(())
    }

    /// Takes a truth value, also as text or number.
    pub(crate) fn truth(&mut self, field: &mut Option<bool>) -> Result<(), Syntax> {
        const EXPECTED: &str = "expected true or false";
        if matches!(self.peek(), b'{' | b'[') {
            return self.refuse(EXPECTED);
        }
        let value = self.value()?;
        match &value {
            Value::Bool(truth) => *field = Some(*truth),
            Value::Number(number) => *field = Some(number.as_f64() != Some(0.0)),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => *field = Some(true),
                "false" | "no" | "0" => *field = Some(false),
                _ => self.note(EXPECTED, Some(value)),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
        Ok(())
    }

    /// Takes a level's name or Python's number.
    pub(crate) fn level(&mut self, field: &mut Level) -> Result<(), Syntax> {
        if let Some(level) = self.parsed("expected a level")? {
            *field = level;
        }
        Ok(())
    }

    /// Takes RFC 3339 text or seconds since 1970.
    pub(crate) fn time(&mut self, field: &mut Option<Timestamp>) -> Result<(), Syntax> {
        if let Some(time) = self.parsed("expected a time")? {
            *field = Some(time);
        }
        Ok(())
    }

    /// Takes what is written as text or number and has a form of its own.
    pub(crate) fn parsed<T: FromStr>(
        &mut self,
        expected: &'static str,
    ) -> Result<Option<T>, Syntax> {
        let text = match self.peek() {
            b'"' => self.quoted()?,
            _ => {
                let mut text = None;
                self.text(&mut text)?;
                match text {
                    Some(text) => Cow::Owned(text),
                    None => return Ok(None),
                }
            }
        };
        let value = text.parse().ok();
        if value.is_none() {
            self.note(expected, Some(Value::String(text.into_owned())));
        }
        Ok(value)
    }

    /// Takes any value but `null`.
    pub(crate) fn any(&mut self, field: &mut Option<Value>) -> Result<(), Syntax> {
        let value = self.value()?;
        if !value.is_null() {
            *field = Some(value);
        }
        Ok(())
    }

    /// Takes an object; a list of pairs becomes one, any other list has its places as keys.
    pub(crate) fn map(&mut self, field: &mut Object) -> Result<(), Syntax> {
        match self.peek() {
            b'{' if field.is_empty() => {
                *field = self.members()?;
                Ok(())
            }
            b'{' => self.object(|reader, key| reader.member(key, field)),
            b'[' => {
                let mut place = 0_usize;
                self.list(|reader| {
                    let (key, value) = match pair_of(reader.value()?) {
                        Ok(pair) => pair,
                        Err(element) => (place.to_string(), element),
                    };
                    place += 1;
                    field.insert(key, value);
                    Ok(())
                })
            }
            b'n' => self.value().map(|_| ()),
            _ => self.refuse("expected an object"),
        }
    }

    /// Takes an object like [`Reader::map`], unread if it can be.
    pub(crate) fn lazy_map(&mut self, field: &mut Lazy<Object>) -> Result<(), Syntax> {
        if self.peek() == b'{'
            && field.is_empty()
            && let Some(plain) = self.plain_members()
        {
            *field = Lazy::unread(plain);
            return Ok(());
        }
        self.map(field)
    }

    /// Takes any value but `null`, unread if it can be.
    pub(crate) fn lazy_any(&mut self, field: &mut Option<Lazy<Value>>) -> Result<(), Syntax> {
        if matches!(self.peek(), b'{' | b'[')
            && let Some(plain) = self.plain()
        {
            *field = Some(Lazy::unread(plain));
            return Ok(());
        }
        let mut value = None;
        self.any(&mut value)?;
        if let Some(value) = value {
            *field = Some(Lazy::from(value));
        }
        Ok(())
    }

    /// Takes source lines like [`Reader::lines`], unread if they can be.
    pub(crate) fn lazy_lines(&mut self, field: &mut Lazy<Vec<String>>) -> Result<(), Syntax> {
        if let Some(plain) = self.plain_lines() {
            *field = Lazy::unread(plain);
            return Ok(());
        }
        self.lines(field)
    }

    /// Takes an optional object.
    pub(crate) fn some_map(&mut self, field: &mut Option<Object>) -> Result<(), Syntax> {
        let mut object = Object::new();
        self.map(&mut object)?;
        if !object.is_empty() {
            *field = Some(object);
        }
        Ok(())
    }

    /// Takes tags: like [`Reader::map`], with every value as text and `null` left out.
    pub(crate) fn tags(&mut self, field: &mut Object) -> Result<(), Syntax> {
        let mut tags = Object::new();
        self.map(&mut tags)?;
        for (key, value) in tags {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                other => other.to_string(),
            };
            field.insert(key, Value::String(text));
        }
        Ok(())
    }

    /// Takes a list of texts, or one text; `null` elements are left out.
    pub(crate) fn texts(&mut self, field: &mut Vec<String>) -> Result<(), Syntax> {
        match self.peek() {
            b'[' => {
                let mut texts = Vec::new();
                self.list(|reader| {
                    let mut text = None;
                    reader.text_of_any(&mut text)?;
                    texts.extend(text);
                    Ok(())
                })?;
                *field = texts;
            }
            b'{' => self.refuse("expected a list of texts")?,
            _ => {
                let mut text = None;
                self.text(&mut text)?;
                field.extend(text);
            }
        }
        Ok(())
    }

    /// Takes source lines; a `null` among them is an empty line, so that their numbers stay right.
    pub(crate) fn lines(&mut self, field: &mut Vec<String>) -> Result<(), Syntax> {
        if self.peek() != b'[' {
            return self.texts(field);
        }
        let mut lines = Vec::new();
        self.list(|reader| {
            let mut line = None;
            reader.text_of_any(&mut line)?;
            lines.push(line.unwrap_or_default());
            Ok(())
        })?;
        *field = lines;
        Ok(())
    }

    /// Takes `{"values": [..]}`, a bare list, or a single object; elements that are no objects are
    /// noted and left out.
    pub(crate) fn values<T>(
        &mut self,
        field: &mut Vec<T>,
        read: fn(&mut Reader<'_>) -> Result<T, Syntax>,
    ) -> Result<(), Syntax> {
        match self.peek() {
            b'{' if self.wraps_values()? => self.object(|reader, key| match key {
                "values" => reader.elements(field, read),
                _ => reader.skip().map(|_| ()),
            }),
            b'{' => {
                let value = self.below("values", |reader| reader.below("0", read))?;
                field.push(value);
                Ok(())
            }
            b'[' => self.below("values", |reader| reader.elements(field, read)),
            b'n' => self.value().map(|_| ()),
            _ => self.refuse("expected a list"),
        }
    }

    /// Looks ahead whether an object has the key `values`, or no key at all.
    ///
    /// It usually is the first one; only a single bare object is looked through to its end.
    fn wraps_values(&mut self) -> Result<bool, Syntax> {
        if self.fork().first_key().as_deref() == Some("values") {
            return Ok(true);
        }
        let mut keys = 0;
        let mut wraps = false;
        self.fork().object(|reader, key| {
            keys += 1;
            wraps |= key == "values";
            reader.skip().map(|_| ())
        })?;
        Ok(wraps || keys == 0)
    }

    /// Takes a list of objects.
    pub(crate) fn elements<T>(
        &mut self,
        field: &mut Vec<T>,
        read: fn(&mut Reader<'_>) -> Result<T, Syntax>,
    ) -> Result<(), Syntax> {
        match self.peek() {
            b'[' => {
                let mut seen = 0_usize;
                field.reserve(ELEMENTS_RESERVED);
                self.list(|reader| {
                    seen += 1;
                    if seen > VALUES_MAX {
                        return reader.skip().map(|_| ());
                    }
                    match reader.peek() {
                        b'{' => {
                            if field.len() == field.capacity() {
                                field.reserve(ELEMENTS_GROWTH * field.len());
                            }
                            field.push(read(reader)?);
                        }
                        b'n' => drop(reader.value()?),
                        _ => reader.refuse("expected an object")?,
                    }
                    Ok(())
                })?;
                if seen > VALUES_MAX {
                    self.note("too many elements; the rest was cut", Some(json!(seen)));
                }
                Ok(())
            }
            b'n' => self.value().map(|_| ()),
            _ => self.refuse("expected a list"),
        }
    }

    /// Takes an object of a known shape.
    pub(crate) fn one<T>(
        &mut self,
        field: &mut Option<T>,
        read: fn(&mut Reader<'_>) -> Result<T, Syntax>,
    ) -> Result<(), Syntax> {
        match self.peek() {
            b'{' => *field = Some(read(self)?),
            b'n' => drop(self.value()?),
            _ => self.refuse("expected an object")?,
        }
        Ok(())
    }
}

/// Puts notes beside the data, in the form of Sentry's `_meta`: a tree of the same keys, in which
/// `""` holds what is to be said of that place.
pub(crate) fn attach_notes(meta: &mut Object, notes: Vec<Note>) {
    for note in notes {
        let mut place = &mut *meta;
        for step in note.path.into_iter().map(Cow::into_owned) {
            let child = place.entry(step).or_insert_with(|| json!({}));
            if !child.is_object() {
                // A client's own `_meta` may be nonsense as well.
                *child = json!({});
            }
            place = match child {
                Value::Object(object) => object,
                _ => return,
            };
        }
        let said = place.entry("").or_insert_with(|| json!({}));
        if !said.is_object() {
            *said = json!({});
        }
        let Value::Object(said) = said else { return };
        let error = json!(["invalid_data", {"reason": note.reason}]);
        match said.get_mut("err") {
            Some(Value::Array(errors)) => errors.push(error),
            _ => drop(said.insert("err".to_owned(), json!([error]))),
        }
        if let Some(original) = note.original {
            said.insert("val".to_owned(), original);
        }
    }
}

fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            let whole = float.fract() == 0.0 && float.abs() < 9e15; // exact in a float
            whole.then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Returns `[key, value]` or `{"key":…, "value":…}` as a pair.
fn pair_of(element: Value) -> Result<(String, Value), Value> {
    match element {
        Value::Array(mut pair) if pair.len() == 2 && is_key(&pair[0]) => {
            let value = pair.pop().unwrap_or_default();
            let key = pair.pop().unwrap_or_default();
            Ok((key_of(key), value))
        }
        Value::Object(mut pair) if pair.len() == 2 && pair.get("key").is_some_and(is_key) => {
            match (pair.remove("key"), pair.remove("value")) {
                (Some(key), Some(value)) => Ok((key_of(key), value)),
                (key, _) => {
                    pair.insert("key".to_owned(), key.unwrap_or_default());
                    Err(Value::Object(pair))
                }
            }
        }
        other => Err(other),
    }
}

fn is_key(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

fn key_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Implements `Deserialize` through the lenient reader, so that there is one decoder.
///
/// It goes through a [`Value`] and is for fixtures and small inputs; events from the wire are
/// decoded with [`crate::Event::decode`].
macro_rules! deserialize_leniently {
    ($($ty:ty),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$ty, D::Error> {
                let text = serde_json::Value::deserialize(deserializer)?.to_string();
                <$ty>::read(&mut $crate::json::Reader::new(&text))
                    .map_err(|syntax| serde::de::Error::custom(format_args!("expected {}", syntax.expected)))
            }
        }
    )*};
}
pub(crate) use deserialize_leniently;
