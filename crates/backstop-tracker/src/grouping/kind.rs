//! Which operation of the language failed.
//!
//! Errors raised by a runtime itself have texts of a short list (`data/runtime_messages.txt`).
//! The text then says which operation failed, which is as good as a type:
//! one function can divide by zero in one place and miss a key in another.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::value::cut;

/// Runtime messages are short, apart from the data in them.
const VALUE_BYTES_MAX: usize = 400;
/// Names of attributes, keys and variables.
const NAME_BYTES_MAX: usize = 80;

/// A recognised runtime message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind<'v> {
    /// Which operation failed.
    pub(super) operation: &'static str,
    /// The key, attribute or variable that the message names.
    pub(super) name: Option<&'v str>,
}

/// Recognises the text of an exception that the runtime raised by itself.
pub(super) fn kind<'v>(ty: &str, value: &'v str) -> Option<Kind<'v>> {
    let value = cut(value, VALUE_BYTES_MAX);
    let table = &*TABLE;
    let of_type = table.of_type.get(ty).map(Vec::as_slice).unwrap_or_default();
    of_type
        .iter()
        .chain(&table.of_any_type)
        .find_map(|text| text.matches(value))
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::parse(include_str!("data/runtime_messages.txt")));

struct Table {
    of_type: HashMap<&'static str, Vec<Text>>,
    of_any_type: Vec<Text>,
}

/// A text with gaps; the gap before piece `name_at` is a name.
#[derive(Clone)]
struct Text {
    operation: &'static str,
    pieces: Vec<&'static str>,
    name_at: Option<usize>,
}

impl Table {
    fn parse(data: &'static str) -> Table {
        let mut table = Table {
            of_type: HashMap::new(),
            of_any_type: Vec::new(),
        };
        for line in data.lines() {
            let mut columns = line.splitn(3, '|').map(str::trim);
            let (Some(operation), Some(types), Some(text)) =
                (columns.next(), columns.next(), columns.next())
            else {
                continue;
            };
            if operation.starts_with('#') {
                continue;
            }
            let text = Text::parse(operation, text);
            for ty in types.split(',').map(str::trim) {
                match ty {
                    "*" => table.of_any_type.push(text.clone()),
                    ty => table.of_type.entry(ty).or_default().push(text.clone()),
                }
            }
        }
        table
    }
}

impl Text {
    fn parse(operation: &'static str, text: &'static str) -> Text {
        let mut pieces = Vec::new();
        let mut name_at = None;
        let mut rest = text;
        while let Some(at) = rest.find(['*', '{']) {
            pieces.push(&rest[..at]);
            let is_name = rest[at..].starts_with("{}");
            if is_name {
                name_at = Some(pieces.len());
            }
            rest = &rest[at + if is_name { 2 } else { 1 }..];
        }
        pieces.push(rest);
        Text {
            operation,
            pieces,
            name_at,
        }
    }

    /// Finds the pieces one after the other, each at its first place: linear in the value.
    fn matches<'v>(&self, value: &'v str) -> Option<Kind<'v>> {
        let (first, others) = self.pieces.split_first()?;
        let mut rest = value.strip_prefix(first)?;
        let mut name = None;
        for (index, piece) in others.iter().enumerate() {
            let is_last = index + 1 == others.len();
            let at = if is_last {
                rest.len()
                    .checked_sub(piece.len())
                    .filter(|_| rest.ends_with(piece))?
            } else {
                rest.find(piece)?
            };
            if self.name_at == Some(index + 1) {
                name = Some(&rest[..at]);
            }
            rest = &rest[at + piece.len()..];
        }
        if others.is_empty() && !rest.is_empty() {
            return None;
        }
        // Safari names the whole expression, the other browsers the property.
        let name = match self.operation {
            "property of nothing" => name.and_then(|name| name.rsplit('.').next()),
            _ => name,
        };
        let name = name.filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
        Some(Kind {
            operation: self.operation,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ty: &str, value: &str, expected: Option<(&'static str, Option<&str>)>) {
        let expected = expected.map(|(operation, name)| Kind { operation, name });
        assert_eq!(kind(ty, value), expected, "{ty}: {value}");
    }

    #[test]
    fn wordings_of_one_failure_share_a_kind() {
        let expected = Some(("property of nothing", Some("address")));
        check(
            "TypeError",
            "Cannot read properties of undefined (reading 'address')",
            expected,
        );
        check(
            "TypeError",
            "Cannot read property 'address' of null",
            expected,
        );
        check(
            "TypeError",
            "can't access property \"address\", user is undefined",
            expected,
        );
        check(
            "TypeError",
            "undefined is not an object (evaluating 'shop.user.address')",
            expected,
        );
    }

    #[test]
    fn kinds_of_runtimes() {
        check("KeyError", "'vat'", Some(("missing key", Some("vat"))));
        check("KeyError", "12", Some(("missing key", None)));
        check(
            "TypeError",
            "'int' object is not subscriptable",
            Some(("not subscriptable", None)),
        );
        check(
            "panic",
            "called `Option::unwrap()` on a `None` value",
            Some(("unwrap on none", None)),
        );
        check(
            "runtime.Error",
            "runtime error: integer divide by zero",
            Some(("division by zero", None)),
        );
        check("ValueError", "bad colour", None);
        check("TypeError", "", None);
    }
}
