//! What a hash was made from, for the store and for people.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What a hash was made from, from what decides to what only finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// The fingerprint that the sender or a rule gave.
    Fingerprint,
    /// The types of the exceptions and the function that raised the innermost one.
    Site,
    /// The same with the function that called it, for functions that raise for everybody.
    Caller,
    /// The types and the function, without the words of the raising statement.
    BareSite,
    /// The types, the module and the raising source line, to recognise a function whose name
    /// a build tool changed.
    Line,
    /// The types, the function's name and the message, to recognise a module that a bundler hid.
    Name,
    /// The types, the message's template and the transaction.
    Words,
    /// A framework's frame, the message's template and the transaction.
    Framework,
    /// The message's template.
    Message,
    /// A browser's policy report or a failing template.
    Report,
    /// Several different exceptions of one group.
    Members,
    /// Nothing in the event says anything.
    Nothing,
}

/// One text that a hash was made from, with its name for people: `function`, `total`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingredient {
    /// What it is.
    pub name: Cow<'static, str>,
    /// The text; long ones are cut.
    pub value: String,
}

impl Part {
    const ALL: [Part; 12] = [
        Part::Fingerprint,
        Part::Site,
        Part::Caller,
        Part::BareSite,
        Part::Line,
        Part::Name,
        Part::Words,
        Part::Framework,
        Part::Message,
        Part::Report,
        Part::Members,
        Part::Nothing,
    ];

    /// Returns the name under which the store and the command line know the part.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Fingerprint => "fingerprint",
            Part::Site => "site",
            Part::Caller => "caller",
            Part::BareSite => "bare_site",
            Part::Line => "line",
            Part::Name => "name",
            Part::Words => "words",
            Part::Framework => "framework",
            Part::Message => "message",
            Part::Report => "report",
            Part::Members => "members",
            Part::Nothing => "nothing",
        }
    }

    /// Finds a part by its name.
    pub fn of_name(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.as_str() == name)
    }

    /// Returns a heading for people.
    pub fn title(self) -> &'static str {
        match self {
            Part::Fingerprint => "Fingerprint",
            Part::Site => "Where it was raised",
            Part::Caller => "Where it was raised, and by whom called",
            Part::BareSite => "Where it was raised, whatever the words",
            Part::Line => "The source line",
            Part::Name => "The function's name and the message",
            Part::Words => "The message and the transaction",
            Part::Framework => "The framework's package, the message and the transaction",
            Part::Message => "The message",
            Part::Report => "The report",
            Part::Members => "The exceptions of the group",
            Part::Nothing => "Nothing",
        }
    }

    /// Says in a sentence which events a hash of this part brings together.
    pub fn purpose(self) -> &'static str {
        match self {
            Part::Fingerprint => "Brings together what the sender or a rule wants together.",
            Part::Site => "Brings together every event that this function raised in this way.",
            Part::Caller => {
                "Counts once this function turns out to raise for several callers; then each caller is an issue."
            }
            Part::BareSite => "Finds events that came without the source of the raising statement.",
            Part::Line => "Finds events of builds in which the function has no stable name.",
            Part::Name => "Finds events of bundles that hide the function's module.",
            Part::Words => "Finds events of builds that hide both module and name.",
            Part::Framework => {
                "Brings together failures with none of your code on the stack, apart by what they say and where."
            }
            Part::Message => "Brings together equal messages, whatever the values in them.",
            Part::Report => "Brings together reports about the same thing.",
            Part::Members => "Brings together groups of the same exceptions.",
            Part::Nothing => {
                "Brings together events that carry neither an exception nor a message."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_by_the_name_that_serde_writes() {
        for part in Part::ALL {
            assert_eq!(Part::of_name(part.as_str()), Some(part));
            assert_eq!(serde_json::to_value(part).unwrap(), part.as_str());
        }
    }
}
