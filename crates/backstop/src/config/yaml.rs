//! YAML as Flask's users write it: one document, with the words of YAML 1.1.
//!
//! `yes`, `no`, `on` and `off` are flags, `010` is eight, `1_000` a thousand, `1:30` ninety (of base
//! sixty), `1e3` and `0o17` are text, `<<` merges mappings: what PyYAML's `safe_load` makes of plain
//! scalars.
//! What a settings value cannot hold stays the text as it was written: dates, `.inf` and `.nan`.
//! Keys are text, whatever they look like.
//! Unknown tags and keys that are no scalars are refused, as there; so are keys that stand twice, of
//! which PyYAML takes the last.

use std::borrow::Cow;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

/// How deep lists and mappings may be nested; nobody nests settings deeper by hand.
const DEPTH_MAX: usize = 64;
/// How many values a document may have, those that aliases repeat counted each time, so that a
/// small file cannot become a large one.
const VALUES_MAX: usize = 100_000;

/// Why a document was refused, and where.
#[derive(Debug)]
pub(super) struct YamlError {
    message: String,
    line: usize,
    column: usize,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            message,
            line,
            column,
        } = self;
        write!(f, "{message} (line {line}, column {column})")
    }
}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        let mark = error.marker();
        Self {
            message: error.info().to_owned(),
            line: mark.line(),
            column: mark.col() + 1,
        }
    }
}

/// Reads one document; an empty one is null.
pub(super) fn read(text: &str) -> Result<Value, YamlError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: Vec::new(),
        values: 0,
    };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or(Value::Null)),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(refusal("only one document is allowed", span));
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => document = Some(reader.value(event, span, 0)?),
        }
    }
}

fn refusal(message: impl Into<String>, span: Span) -> YamlError {
    YamlError {
        message: message.into(),
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    /// What the anchors stand for, by number, with how many values each is.
    anchors: Vec<Option<(Value, usize)>>,
    values: usize,
}

impl<'text> Reader<'text> {
    fn next(&mut self) -> Result<(Event<'text>, Span), YamlError> {
        match self.parser.next_event() {
            Some(event) => Ok(event?),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn count(&mut self, values: usize, span: Span) -> Result<(), YamlError> {
        self.values += values;
        if self.values > VALUES_MAX {
            return Err(refusal(format!("more than {VALUES_MAX} values"), span));
        }
        Ok(())
    }

    fn value(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<Value, YamlError> {
        if depth > DEPTH_MAX {
            return Err(refusal(
                format!("nested deeper than {DEPTH_MAX} levels"),
                span,
            ));
        }
        let before = self.values;
        self.count(1, span)?;
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref())
                    .map_err(|message| refusal(message, span))?;
                (anchor, value)
            }
            Event::SequenceStart(anchor, tag) => {
                collection(tag.as_deref(), "seq").map_err(|message| refusal(message, span))?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                collection(tag.as_deref(), "map").map_err(|message| refusal(message, span))?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(refusal("a value was expected", span)),
        };
        if anchor > 0 {
            if self.anchors.len() <= anchor {
                self.anchors.resize(anchor + 1, None);
            }
            self.anchors[anchor] = Some((value.clone(), self.values - before));
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Value, YamlError> {
        match self.anchors.get(anchor).cloned().flatten() {
            Some((value, size)) => {
                self.count(size, span)?;
                Ok(value)
            }
            None => Err(refusal("an alias inside of what it stands for", span)),
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.value(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut own = Map::new();
        let mut merged = Map::new();
        loop {
            let (event, span) = self.next()?;
            let (key, is_merge) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, None) => {
                    let is_merge = text == "<<" && style == ScalarStyle::Plain;
                    (text.into_owned(), is_merge)
                }
                Event::Scalar(text, ..) => (text.into_owned(), false),
                _ => return Err(refusal("a key must be a scalar", span)),
            };
            let (event, value_span) = self.next()?;
            let value = self.value(event, value_span, depth + 1)?;
            if is_merge {
                merge(&mut merged, value).map_err(|message| refusal(message, value_span))?;
            } else if own.contains_key(&key) {
                return Err(refusal(format!("the key {key} stands twice"), span));
            } else {
                own.insert(key, value);
            }
        }
        for (key, value) in merged {
            own.entry(key).or_insert(value);
        }
        Ok(Value::Object(own))
    }
}

/// Adds what `<<` names; of several mappings the first that has a key counts.
fn merge(merged: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    const PROBLEM: &str = "<< takes a mapping or a list of mappings";
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                merged.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => {
            for item in items {
                let Value::Object(_) = item else {
                    return Err(PROBLEM);
                };
                merge(merged, item)?;
            }
            Ok(())
        }
        _ => Err(PROBLEM),
    }
}

/// Accepts no tag and the one that says what is there anyway.
fn collection(tag: Option<&Tag>, suffix: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == suffix) => {
            Err(format!("the tag {tag} is not supported"))
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(match style {
            ScalarStyle::Plain => plain(text),
            _ => Value::String(text.to_owned()),
        });
    };
    let suffix = if tag.is_yaml_core_schema() {
        tag.suffix.as_str()
    } else if tag.handle.is_empty() && tag.suffix == "!" {
        "str"
    } else {
        return Err(format!("the tag {tag} is not supported"));
    };
    let value = match suffix {
        // Dates stay text, with and without their tag.
        "str" | "timestamp" => Some(Value::String(text.to_owned())),
        "null" => Some(Value::Null),
        "bool" => flag(&text.to_ascii_lowercase()).map(Value::Bool),
        "int" => integer(text).map(Value::Number),
        "float" => float_of_tag(text).map(Value::Number),
        _ => return Err(format!("the tag {tag} is not supported")),
    };
    value.ok_or_else(|| format!("{text:?} is not a value of the tag {tag}"))
}

/// What an unquoted scalar means: PyYAML's list of patterns, in its order.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    match float(text).or_else(|| integer(text)) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

fn flag(word: &str) -> Option<bool> {
    match word {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn without_underscores(digits: &str) -> Cow<'_, str> {
    if digits.contains('_') {
        Cow::Owned(digits.replace('_', ""))
    } else {
        Cow::Borrowed(digits)
    }
}

/// `0b101`, `0x1F`, `017` (of base eight), `1_000`, `1:30` (of base sixty), each with a sign.
fn integer(text: &str) -> Option<Number> {
    let (is_negative, digits) = split_sign(text);
    if digits.contains(':') {
        return sexagesimal(digits)
            .filter(|_| !digits.starts_with('0'))
            .and_then(|size| signed(is_negative, size));
    }
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, digits),
        [b'0'..=b'9', ..] => (10, digits),
        _ => return None,
    };
    let digits = without_underscores(digits);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    match u64::from_str_radix(&digits, radix) {
        Ok(size) => signed(is_negative, size),
        // Larger than any integer here: as near as a float comes.
        Err(_) => {
            let size = digits.chars().filter_map(|digit| digit.to_digit(radix));
            let size = size.fold(0.0, |size, digit| {
                size * f64::from(radix) + f64::from(digit)
            });
            Number::from_f64(if is_negative { -size } else { size })
        }
    }
}

fn signed(is_negative: bool, size: u64) -> Option<Number> {
    if !is_negative {
        return Some(size.into());
    }
    match 0i64.checked_sub_unsigned(size) {
        Some(number) => Some(number.into()),
        None => Number::from_f64(-(size as f64)),
    }
}

/// A number such as `190:20:30`: the first part of any size, the others below sixty.
fn sexagesimal(digits: &str) -> Option<u64> {
    let mut parts = digits.split(':');
    let first = parts.next()?;
    if !first.starts_with(|c: char| c.is_ascii_digit()) || !is_digits(first) {
        return None;
    }
    let mut number: u64 = without_underscores(first).parse().ok()?;
    for part in parts {
        let part = match part.as_bytes() {
            [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'] => part.parse::<u64>().ok()?,
            _ => return None,
        };
        number = number.checked_mul(60)?.checked_add(part)?;
    }
    Some(number)
}

/// Digits and underscores.
fn is_digits(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '_')
}

/// `1.5`, `5.`, `1.5e+3` (the exponent has a sign), `.5` (without one), `1:30.5`.
fn float(text: &str) -> Option<Number> {
    let (is_negative, digits) = split_sign(text);
    let (whole, rest) = digits.split_once('.')?;
    if whole.contains(':') {
        let minutes = sexagesimal(whole)?;
        let part = without_underscores(rest);
        if !is_digits(rest) {
            return None;
        }
        let part: f64 = format!("0.{part}0").parse().ok()?;
        let size = minutes as f64 + part;
        return Number::from_f64(if is_negative { -size } else { size });
    }
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (rest, None),
    };
    let starts_well = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    let is_float = if whole.is_empty() {
        starts_well(fraction) && digits.len() == text.len()
    } else {
        starts_well(whole)
    };
    let has_exponent = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['+', '-'])
            .is_some_and(|power| starts_well(power) && power.bytes().all(|b| b.is_ascii_digit()))
    });
    if !(is_float && is_digits(whole) && is_digits(fraction) && has_exponent) {
        return None;
    }
    let number = without_underscores(text).parse().ok();
    number.and_then(Number::from_f64)
}

/// What the tag `!!float` makes a number of, `1` and `1e3` included.
fn float_of_tag(text: &str) -> Option<Number> {
    let plain = without_underscores(text);
    let has_digits = plain.bytes().any(|byte| byte.is_ascii_digit());
    let number = plain.parse().ok().filter(|_| has_digits);
    number.and_then(Number::from_f64).or_else(|| {
        let sexagesimal = float(text).or_else(|| integer(text))?;
        Number::from_f64(sexagesimal.as_f64()?)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_mean_what_pyyaml_makes_of_them() {
        let cases = [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("~", json!(null)),
            ("010", json!(8)),
            ("0", json!(0)),
            ("08", json!("08")),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("-1_000", json!(-1000)),
            ("+12", json!(12)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("-.5", json!("-.5")),
            ("1e3", json!("1e3")),
            ("1.5e3", json!("1.5e3")),
            ("1.5e+3", json!(1500.0)),
            ("0o17", json!("0o17")),
            ("0x", json!("0x")),
            ("0_7", json!(7)),
            ("-0", json!(0)),
            ("5.", json!(5.0)),
            (".5_0", json!(0.5)),
            ("685.230_15e+03", json!(685_230.15)),
            ("0xFFFFFFFFFFFFFFFFF", json!(295_147_905_179_352_830_000.0)),
            (".", json!(".")),
            ("_1", json!("_1")),
            ("--1", json!("--1")),
            ("127.0.0.1", json!("127.0.0.1")),
            ("2024-01-02", json!("2024-01-02")),
            ("1:30", json!(90)),
            ("-1:05", json!(-65)),
            ("190:20:30", json!(685_230)),
            ("1:30.5", json!(90.5)),
            ("1:99", json!("1:99")),
            ("0:30", json!("0:30")),
            ("1:", json!("1:")),
            (".inf", json!(".inf")),
            ("9223372036854775808", json!(9_223_372_036_854_775_808_u64)),
        ];
        for (text, value) in cases {
            assert_eq!(plain(text), value, "{text}");
        }
    }

    #[test]
    fn a_document_with_anchors_merges_and_tags() {
        let text = "
base: &base {host: db, port: 5432}
shop:
  <<: *base
  port: 6543
names: [\"1\", 'yes', !!str 7]
tagged: [!!float 1, !!float 1e3, !!int '3', !!bool 'Yes', !!null x, !!timestamp 2001-01-01]
text: |
  two
  lines
";
        assert_eq!(
            read(text).unwrap(),
            json!({
                "base": {"host": "db", "port": 5432},
                "shop": {"host": "db", "port": 6543},
                "names": ["1", "yes", "7"],
                "tagged": [1.0, 1000.0, 3, true, null, "2001-01-01"],
                "text": "two\nlines\n",
            })
        );
        assert_eq!(read("# nothing\n").unwrap(), json!(null));
    }

    #[test]
    fn refusals_say_where() {
        let cases = [
            ("A: 1\nA: 2\n", "the key A stands twice (line 2, column 1)"),
            ("A: !!python/object x", "is not supported"),
            ("A: !!int x", "is not a value of the tag"),
            ("? [1]\n: 2\n", "a key must be a scalar"),
            ("A: 1\n---\nB: 2\n", "only one document is allowed"),
            ("<<: 3\n", "<< takes a mapping or a list of mappings"),
            ("A: &x [*x]\n", "an alias inside of what it stands for"),
        ];
        for (text, message) in cases {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(read("A: [1, 2\nB: 3\n").is_err());
    }

    #[test]
    fn small_files_stay_small() {
        let deep = "[".repeat(DEPTH_MAX + 2) + &"]".repeat(DEPTH_MAX + 2);
        let error = read(&deep).unwrap_err().to_string();
        assert!(error.contains("nested deeper"), "{error}");

        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let error = read(&laughs).unwrap_err().to_string();
        assert!(error.contains("more than 100000 values"), "{error}");
    }
}
