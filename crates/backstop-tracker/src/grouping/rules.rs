//! The shipped rules: which frames are a framework's entry, which exceptions are wrappers.

use std::sync::LazyLock;

use backstop_protocol::Frame;

use super::RuleError;
use super::matcher::{Misread, Pattern};
use super::name::Family;

/// Says whether a frame hands a request or a job to the user's code.
pub(super) fn is_entry(family: Family, frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    let module = frame
        .module
        .as_deref()
        .or(frame.filename.as_deref())
        .unwrap_or_default();
    ENTRIES[family as usize]
        .iter()
        .any(|entry| entry.module.covers(module) && entry.function.covers(function))
}

/// Says whether an exception only carries another one.
pub(super) fn is_wrapper(ty: &str) -> bool {
    let short = ty.rsplit(['.', '\\', ':']).next().unwrap_or_default();
    WRAPPERS.iter().any(|name| *name == ty || *name == short)
}

/// Reads rules, one a line, without blank and comment lines.
pub(super) fn parse_lines<T>(
    text: &str,
    parse_line: impl Fn(&str) -> Result<T, Misread>,
) -> Result<Vec<T>, RuleError> {
    let lines = text.lines().map(str::trim_end).enumerate();
    let rules = lines.filter(|(_, line)| is_content(line.trim_start()));
    rules
        .map(|(index, line)| {
            parse_line(line).map_err(|misread| RuleError {
                line: index + 1,
                column: line[..line.len() - misread.left].chars().count() + 1,
                message: misread.message,
            })
        })
        .collect()
}

fn is_content(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

/// Says whether a function of this name exists only to raise for its callers.
pub(super) fn is_helper(name: &str) -> bool {
    HELPERS.contains(&name)
}

struct Entry {
    module: Pattern,
    function: Pattern,
}

/// The entries of each family.
static ENTRIES: LazyLock<[Vec<Entry>; Family::COUNT]> = LazyLock::new(|| {
    let mut entries = std::array::from_fn(|_| Vec::new());
    for line in lines(include_str!("data/entries.txt")) {
        let mut columns = line.split('|').map(str::trim);
        let family = match columns.next().unwrap_or_default() {
            "js" => Family::Js,
            "dotnet" => Family::DotNet,
            platform => Family::of(Some(platform)),
        };
        let mut pattern = || Pattern::new(columns.next().unwrap_or_default());
        entries[family as usize].push(Entry {
            module: pattern(),
            function: pattern(),
        });
    }
    entries
});

static WRAPPERS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| lines(include_str!("data/wrappers.txt")).collect());

static HELPERS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| lines(include_str!("data/helpers.txt")).collect());

fn lines(data: &'static str) -> impl Iterator<Item = &'static str> {
    data.lines().map(str::trim).filter(|line| is_content(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_rules() {
        let frame = Frame {
            module: Some("flask.app".into()),
            function: Some("dispatch_request".into()),
            ..Frame::default()
        };
        assert!(is_entry(Family::Python, &frame));
        assert!(!is_entry(Family::Js, &frame));
        assert!(is_wrapper("java.util.concurrent.ExecutionException"));
        assert!(is_wrapper("ActionView::Template::Error"));
        assert!(!is_wrapper("KeyError"));
    }
}
