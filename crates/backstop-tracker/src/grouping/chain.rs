//! Which exceptions of an event tell what happened.
//!
//! A cause that was given on purpose (`raise … from`, `cause`, `source()`) tells where it began;
//! an exception that merely happened to be handled at the time does not.

use backstop_protocol::{Event, Exception};

use super::name::{Family, without_digits};
use super::rules;
use super::statement::Statement;

/// Deeper chains are loops or retries; both ends are looked at first.
const EXCEPTIONS_MAX: usize = 50;

/// The exceptions of an event in the order in which they are read.
#[derive(Debug, Default)]
pub(super) struct Chain<'a> {
    /// From the outermost to the innermost on purpose given cause.
    pub(super) line: Vec<&'a Exception>,
    /// The members of a group of exceptions, each with its own causes; empty if there is none
    /// or one.
    pub(super) members: Vec<Vec<&'a Exception>>,
}

impl<'a> Chain<'a> {
    /// Reads the exceptions of an event; messages that carry a stack are none.
    pub(super) fn of(family: Family, event: &'a Event) -> Chain<'a> {
        let exceptions = &event.exception[event.exception.len().saturating_sub(EXCEPTIONS_MAX)..];
        match root(exceptions) {
            Some(root) => Chain::of_tree(exceptions, root),
            None => Chain {
                line: flat(family, exceptions),
                members: Vec::new(),
            },
        }
    }

    /// Numbered exceptions form a tree. Every one is visited once, whatever the numbers say.
    fn of_tree(exceptions: &'a [Exception], root: &'a Exception) -> Chain<'a> {
        let mut left: Vec<&Exception> = exceptions
            .iter()
            .filter(|e| !std::ptr::eq(*e, root))
            .collect();
        let mut chain = Chain {
            line: vec![root],
            members: Vec::new(),
        };
        let mut last = root;
        loop {
            let mut children = take_children(&mut left, last);
            if !is_group(last) {
                // Numbered lists are newest first: the child with the smallest number is the cause.
                children.truncate(1);
            }
            match children.as_slice() {
                [] => return chain,
                [child] => {
                    chain.line.push(child);
                    last = child;
                }
                _ => {
                    chain.members = children
                        .into_iter()
                        .map(|child| descend(&mut left, child))
                        .collect();
                    return chain;
                }
            }
        }
    }
}

/// The name of an exception's type without what is made at run time.
pub(super) fn type_name(exception: &Exception) -> String {
    let is_synthetic = exception.mechanism.as_ref().and_then(|m| m.synthetic) == Some(true);
    let ty = exception.ty.as_deref().unwrap_or_default();
    if is_synthetic {
        return String::new();
    }
    // The anonymous class of PHP carries its path, of Java a number.
    let ty = ty.split(['\0', '<']).next().unwrap_or_default();
    let ty = ty.split("@anonymous").next().unwrap_or_default();
    without_serial(&without_digits(ty.trim()))
}

/// Takes serial parts out of a name in camel case: `ChatY6Error` is a `ChatError`.
fn without_serial(ty: &str) -> String {
    if !ty.contains(|c: char| c.is_ascii_digit()) {
        return ty.to_owned();
    }
    let mut out = String::with_capacity(ty.len());
    let mut part = String::new();
    for c in ty.chars().chain(['A']) {
        let ends = c.is_uppercase() || (!c.is_alphanumeric() && c != '#');
        if ends {
            let is_serial = part.chars().filter(|c| c.is_alphabetic()).count() <= 1
                && part.chars().any(|c| c.is_ascii_digit() || c == '#');
            if !is_serial {
                out.push_str(&part);
            }
            part.clear();
        }
        part.push(c);
    }
    out
}

/// Lists exceptions without numbers from the outermost inward, as far as causes were given.
fn flat(family: Family, exceptions: &[Exception]) -> Vec<&Exception> {
    let mut line: Vec<&Exception> = Vec::new();
    for exception in exceptions.iter().rev() {
        if line
            .last()
            .is_some_and(|outer| !leads_to_cause(family, outer))
        {
            break;
        }
        line.push(exception);
    }
    line
}

/// Says whether the exception inside of `outer` was given as its cause.
fn leads_to_cause(family: Family, outer: &Exception) -> bool {
    if family != Family::Python {
        return true;
    }
    // Python's client sends causes and contexts alike; the `raise` statement tells them apart.
    let Some(stacktrace) = &outer.stacktrace else {
        return true;
    };
    let mut statements = stacktrace.frames.iter().rev().map(Statement::of);
    match statements.next() {
        Some(Some(newest)) if !newest.names_cause() => {
            statements.any(|statement| statement.is_some_and(|statement| statement.names_cause()))
        }
        _ => true,
    }
}

fn root(exceptions: &[Exception]) -> Option<&Exception> {
    let id = |e: &Exception| e.mechanism.as_ref().and_then(|m| m.exception_id);
    let parent = |e: &Exception| e.mechanism.as_ref().and_then(|m| m.parent_id);
    exceptions
        .iter()
        .rev()
        .find(|e| id(e).is_some() && parent(e).is_none())
}

fn is_group(exception: &Exception) -> bool {
    let mechanism = exception.mechanism.as_ref();
    mechanism.and_then(|m| m.is_exception_group) == Some(true)
}

/// Takes the direct causes and members of `parent` out of `left`; contexts are none.
fn take_children<'a>(left: &mut Vec<&'a Exception>, parent: &Exception) -> Vec<&'a Exception> {
    let id = parent.mechanism.as_ref().and_then(|m| m.exception_id);
    let mut children = Vec::new();
    left.retain(|exception| {
        let mechanism = exception.mechanism.as_ref();
        let is_child = id.is_some() && mechanism.and_then(|m| m.parent_id) == id;
        let is_context = mechanism.and_then(|m| m.source.as_deref()) == Some("__context__");
        if is_child && !is_context {
            children.push(*exception);
        }
        !is_child
    });
    children.reverse();
    children
}

/// The line of causes below a member of a group. Groups in groups keep their first member.
fn descend<'a>(left: &mut Vec<&'a Exception>, member: &'a Exception) -> Vec<&'a Exception> {
    let mut line = vec![member];
    let mut last = member;
    while let Some(child) = take_children(left, last).first().copied() {
        line.push(child);
        last = child;
    }
    line
}

/// The types of a line from the outermost inward: no wrappers, no repetitions.
pub(super) fn types(line: &[&Exception]) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    for (index, exception) in line.iter().enumerate() {
        let ty = type_name(exception);
        let is_last = index + 1 == line.len();
        if (is_last || !rules::is_wrapper(&ty)) && types.last() != Some(&ty) {
            types.push(ty);
        }
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_made_at_run_time() {
        for (ty, expected) in [
            ("ChatY6Error", "ChatError"),
            ("KeyError", "KeyError"),
            ("Http404", "Http#"),
            ("Utf8Error", "Utf8Error"),
            ("App\\Foo@anonymous\0/srv/x.php:3$0", "App\\Foo"),
        ] {
            let exception = Exception {
                ty: Some(ty.into()),
                ..Exception::default()
            };
            assert_eq!(type_name(&exception), expected);
        }
    }
}
