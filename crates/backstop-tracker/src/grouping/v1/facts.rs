//! What an exception says besides its type, and where it says it.

use backstop_protocol::{Event, Exception, Frame};

use super::super::chain::types;
use super::super::kind::kind;
use super::super::message::proven_template;
use super::super::name::Family;
use super::super::site::{self, Site};
use super::super::statement::Statement;

/// What an exception says besides its type, and where it says it.
pub(super) struct Facts<'a> {
    pub(super) types: Vec<String>,
    /// The types as one text.
    pub(super) all_types: String,
    /// Which operation failed, and the name it failed on; for errors of the runtime.
    pub(super) operation: &'static str,
    pub(super) subject: &'a str,
    /// The words of the message that the raising statement holds.
    pub(super) words: String,
    /// The statement at which the site stands, if its source is known.
    pub(super) statement: Option<Statement<'a>>,
    /// Whether it raises an error on purpose.
    pub(super) raises: bool,
    /// Whether the statement could be asked at all.
    pub(super) has_witness: bool,
    /// The message's template.
    pub(super) template: String,
    pub(super) site: Option<Site<'a>>,
    /// The innermost exception.
    pub(super) cause: &'a Exception,
}

pub(super) fn facts<'a>(family: Family, event: &Event, line: &[&'a Exception]) -> Facts<'a> {
    let cause = line[line.len() - 1];
    let value = cause.value.as_deref().unwrap_or_default();
    let ty = cause.ty.as_deref().unwrap_or_default();
    let kind = kind(ty, value);
    let site = line
        .iter()
        .rev()
        .find_map(|exception| site::site(family, frames(exception)));
    let operation = kind.as_ref().map_or("", |kind| kind.operation);
    let site_statement = site.as_ref().and_then(|site| Statement::of(site.frame));
    let subject = kind.and_then(|kind| kind.name);
    let subject = subject
        .filter(|name| is_in_source(family, site_statement.as_ref(), name))
        .or_else(|| concrete_class(cause, site.as_ref()?));
    let is_raised_here = site.as_ref().is_some_and(|site| site.is_innermost);
    let raising = site_statement.as_ref().filter(|_| is_raised_here);
    let raises = site_statement.as_ref().is_some_and(|statement| {
        statement.raises() || (family == Family::Js && statement.makes_error(ty))
    });
    let literals = raising.map(|statement| statement.literal_words(value));
    let template = proven_template(event, value, literals.as_deref());
    let (words, has_witness) = match literals {
        Some(literals) if operation.is_empty() && raises => (literals, true),
        _ => (String::new(), false),
    };
    let types = types(line);
    Facts {
        all_types: types.join("\n"),
        types,
        operation,
        subject: subject.unwrap_or_default(),
        words,
        has_witness: has_witness || !operation.is_empty(),
        template,
        statement: site_statement,
        raises,
        site,
        cause,
    }
}

/// A method that is not implemented is missing in the object's class, not where it was raised.
fn concrete_class<'a>(exception: &Exception, site: &Site<'a>) -> Option<&'a str> {
    if exception.ty.as_deref() != Some("NotImplementedError") {
        return None;
    }
    // Python's client sends objects as `<shop.export.Csv object at 0x7f…>`.
    let object = site.frame.vars.get("self")?.as_str()?.strip_prefix('<')?;
    object.split_once(" object at ").map(|(class, _)| class)
}

/// Says whether a name in a runtime's message is a name in the source or data.
fn is_in_source(family: Family, statement: Option<&Statement<'_>>, name: &str) -> bool {
    match (family, statement) {
        // Properties are nearly always written out, and lines of source maps are off by one.
        (Family::Js, _) => !name.contains(|c: char| c.is_ascii_digit() || c.is_whitespace()),
        (_, Some(statement)) => statement.has_word(name),
        (_, None) => false,
    }
}

pub(super) fn frames(exception: &Exception) -> &[Frame] {
    exception
        .stacktrace
        .as_ref()
        .map(|stack| stack.frames.as_slice())
        .unwrap_or_default()
}
