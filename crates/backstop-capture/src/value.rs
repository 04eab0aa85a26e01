//! Values as trees, and how far they can be trusted.

use std::fmt::{self, Write as _};

/// How far a value can be trusted, and why not further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// The value is what the program sees.
    Ok,
    /// A limit cut the value; what is shown is right.
    Truncated,
    /// Parts of the value were optimised out; what is shown is right.
    Partial,
    /// The bytes are as shown, but an owning value may have been moved or dropped since.
    MaybeMoved,
    /// The place belongs to an earlier use, for example before the last `.await`.
    Stale,
    /// The bytes are no value of the type: not yet initialised, moved or freed.
    Invalid,
    /// The compiler left no trace of the value.
    OptimizedOut,
    /// The value was in a register that a callee did not keep.
    RegisterLost,
    /// The memory could not be read.
    Unreadable,
    /// Hidden on purpose.
    Redacted,
    /// The debug information describes the value in a way that is not understood.
    Unsupported,
}

impl State {
    /// Returns a few words that explain the state to a person.
    pub fn text(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Truncated => "truncated",
            State::Partial => "partly optimised out",
            State::MaybeMoved => "may have been moved",
            State::Stale => "stale",
            State::Invalid => "not a valid value (uninitialised, moved or freed)",
            State::OptimizedOut => "optimised out",
            State::RegisterLost => "register not recoverable",
            State::Unreadable => "unreadable memory",
            State::Redacted => "redacted",
            State::Unsupported => "not understood",
        }
    }
}

/// A value, read from memory and registers.
///
/// [`Display`](fmt::Display) writes it the way `{:?}` would.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `()`.
    Unit,
    /// A truth value.
    Bool(bool),
    /// A signed integer of any width.
    Signed(i128),
    /// An unsigned integer of any width.
    Unsigned(u128),
    /// A single-precision number.
    F32(f32),
    /// A double-precision number.
    F64(f64),
    /// A character.
    Char(char),
    /// A text; `bytes` is its whole length, of which `text` may be a part.
    Text {
        /// What is shown.
        text: String,
        /// The length of the whole text.
        bytes: u64,
    },
    /// A list; `len` is its whole length, of which `items` may be a part.
    List {
        /// What is shown.
        items: Vec<Value>,
        /// How many there are.
        len: u64,
    },
    /// A set; as a list, in the order of the memory.
    Set {
        /// What is shown.
        items: Vec<Value>,
        /// How many there are.
        len: u64,
    },
    /// A map; `len` is its whole length, of which `entries` may be a part.
    Map {
        /// What is shown.
        entries: Vec<(Value, Value)>,
        /// How many there are.
        len: u64,
    },
    /// A struct or a variant with named fields.
    Struct {
        /// The last part of the type's path, or the variant.
        name: String,
        /// The fields in the order of their declaration in the debug information.
        fields: Vec<(String, Value)>,
    },
    /// A tuple (without a name), a tuple struct or a variant with positional fields.
    Tuple {
        /// The last part of the type's path, or the variant; empty for a tuple.
        name: String,
        /// The fields.
        items: Vec<Value>,
    },
    /// A unit struct, a variant without fields, a function, or an enumeration.
    Symbol(String),
    /// A raw pointer, or a reference that was not followed.
    Pointer(u64),
    /// A type whose own text says more than its fields: a time, an address, a range.
    Formatted(String),
    /// No value, and why.
    Missing(State),
}

impl Value {
    /// Writes the value with only the outermost levels.
    ///
    /// Useful where space is short; the tree itself keeps everything.
    pub fn summary(&self, chars: usize) -> String {
        let mut text = String::new();
        let mut out = Bounded {
            out: &mut text,
            left: chars,
        };
        // Only `Bounded` fails, when it is full; what was written so far is the summary.
        if write!(out, "{self}").is_err() {
            text.push('…');
        }
        text
    }
}

struct Bounded<'a> {
    out: &'a mut String,
    left: usize,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.out.push(c);
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unit => f.write_str("()"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Signed(value) => write!(f, "{value}"),
            Value::Unsigned(value) => write!(f, "{value}"),
            Value::F32(value) => write!(f, "{value:?}"),
            Value::F64(value) => write!(f, "{value:?}"),
            Value::Char(value) => write!(f, "{value:?}"),
            Value::Text { text, bytes } => {
                write!(f, "{text:?}")?;
                if *bytes > text.len() as u64 {
                    f.write_str("…")
                } else {
                    Ok(())
                }
            }
            Value::List { items, len } => sequence(f, "[", items, *len, "]"),
            Value::Set { items, len } => sequence(f, "{", items, *len, "}"),
            Value::Map { entries, len } => {
                f.write_char('{')?;
                for (at, (key, value)) in entries.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}: {value}")?;
                }
                rest(f, entries.len(), *len)?;
                f.write_char('}')
            }
            Value::Struct { name, fields } => {
                write!(f, "{name} {{ ")?;
                for (at, (field, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{field}: {value}")?;
                }
                f.write_str(" }")
            }
            Value::Tuple { name, items } => {
                f.write_str(name)?;
                let one = if name.is_empty() && items.len() == 1 {
                    ",)"
                } else {
                    ")"
                };
                sequence(f, "(", items, items.len() as u64, one)
            }
            Value::Symbol(name) => f.write_str(name),
            Value::Pointer(address) => write!(f, "{address:#x}"),
            Value::Formatted(text) => f.write_str(text),
            Value::Missing(state) => write!(f, "<{}>", state.text()),
        }
    }
}

fn sequence(
    f: &mut fmt::Formatter<'_>,
    open: &str,
    items: &[Value],
    len: u64,
    close: &str,
) -> fmt::Result {
    f.write_str(open)?;
    for (at, item) in items.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    rest(f, items.len(), len)?;
    f.write_str(close)
}

fn rest(f: &mut fmt::Formatter<'_>, shown: usize, len: u64) -> fmt::Result {
    match len.saturating_sub(shown as u64) {
        0 => Ok(()),
        more => write!(f, "{}…{more} more", if shown > 0 { ", " } else { "" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_like_debug() {
        let value = Value::Struct {
            name: "Cart".to_owned(),
            fields: vec![
                (
                    "note".to_owned(),
                    Value::Tuple {
                        name: "Some".to_owned(),
                        items: vec![Value::Text {
                            text: "hi\n".to_owned(),
                            bytes: 3,
                        }],
                    },
                ),
                (
                    "items".to_owned(),
                    Value::List {
                        items: vec![Value::Unsigned(1), Value::Signed(-2)],
                        len: 5,
                    },
                ),
                (
                    "pair".to_owned(),
                    Value::Tuple {
                        name: String::new(),
                        items: vec![Value::F64(1.0)],
                    },
                ),
                ("gone".to_owned(), Value::Missing(State::OptimizedOut)),
            ],
        };
        assert_eq!(
            value.to_string(),
            "Cart { note: Some(\"hi\\n\"), items: [1, -2, …3 more], pair: (1.0,), gone: <optimised out> }"
        );
        assert_eq!(value.summary(10), "Cart { not…");
    }
}
