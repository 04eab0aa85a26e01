//! Matchers of rules: `type:KeyError path:**/vendor/** !app:yes`.
//!
//! The syntax is Sentry's, so that rules written for it can be brought along:
//! <https://docs.sentry.io/concepts/data-management/event-grouping/fingerprint-rules/>.

use backstop_protocol::{Event, Exception, Frame, Stacktrace};
use serde_json::Value;

use super::name::Family;

/// Longer patterns are pasted by mistake.
const PATTERN_BYTES_MAX: usize = 1024;
/// Longer texts are matched by their beginning.
const TEXT_BYTES_MAX: usize = 2048;

/// Why a line is no rule, and how many bytes of it were left where that was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misread {
    pub(super) left: usize,
    pub(super) message: String,
}

impl Misread {
    /// The failure to understand the line from `rest` on.
    pub(super) fn at(rest: &str, message: impl Into<String>) -> Misread {
        Misread {
            left: rest.len(),
            message: message.into(),
        }
    }
}

/// One condition: a key and what its value must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matcher {
    is_negated: bool,
    key: Key,
    /// As it was written, apart from paths.
    text: String,
    pattern: Pattern,
    /// The families that the text names, for a matcher of families.
    families: u8,
}

/// A pattern, taken apart once: nearly all of them need a single comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `*`.
    Any,
    /// `total`.
    Whole(String),
    /// `total*`.
    Start(String),
    /// `*total`.
    End(String),
    /// `*total*`.
    Inside(String),
    /// Anything else.
    Glob(String),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Pattern {
        let inner = text.trim_matches('*');
        let has_more = inner.contains(['*', '?']);
        let (start, end) = (text.starts_with('*'), text.ends_with('*'));
        match (start, end) {
            _ if inner.is_empty() && start => Pattern::Any,
            (false, false) if !has_more => Pattern::Whole(inner.into()),
            (false, true) if !has_more => Pattern::Start(inner.into()),
            (true, false) if !has_more => Pattern::End(inner.into()),
            (true, true) if !has_more => Pattern::Inside(inner.into()),
            _ => Pattern::Glob(text.into()),
        }
    }

    pub(super) fn covers(&self, text: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Whole(whole) => text == whole,
            Pattern::Start(start) => text.starts_with(start.as_str()),
            Pattern::End(end) => text.ends_with(end.as_str()),
            Pattern::Inside(inner) => text.contains(inner.as_str()),
            Pattern::Glob(pattern) => glob(pattern, text),
        }
    }
}

/// What a matcher looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Type,
    Value,
    Mechanism,
    Message,
    Logger,
    Level,
    Release,
    Environment,
    Transaction,
    Sdk,
    Tag(String),
    ThreadId,
    ThreadName,
    ThreadState,
    ThreadCrashed,
    ThreadCurrent,
    Family,
    Path,
    Module,
    Function,
    Package,
    App,
    Category,
}

impl Key {
    fn parse(name: &str) -> Option<Key> {
        Some(match name {
            "type" | "error.type" => Key::Type,
            "value" | "error.value" => Key::Value,
            "mechanism" | "error.mechanism" => Key::Mechanism,
            "message" => Key::Message,
            "logger" => Key::Logger,
            "level" => Key::Level,
            "release" => Key::Release,
            "environment" => Key::Environment,
            "transaction" => Key::Transaction,
            "sdk" => Key::Sdk,
            "thread.id" => Key::ThreadId,
            "thread.name" => Key::ThreadName,
            "thread.state" => Key::ThreadState,
            "thread.crashed" => Key::ThreadCrashed,
            "thread.current" => Key::ThreadCurrent,
            "family" => Key::Family,
            "path" | "stack.abs_path" => Key::Path,
            "module" | "stack.module" => Key::Module,
            "function" | "stack.function" => Key::Function,
            "package" | "stack.package" => Key::Package,
            "app" => Key::App,
            "category" => Key::Category,
            _ => Key::Tag(name.strip_prefix("tags.")?.to_owned()),
        })
    }

    fn scope(&self) -> Scope {
        match self {
            Key::Type | Key::Value | Key::Mechanism => Scope::Exception,
            Key::Family
            | Key::Path
            | Key::Module
            | Key::Function
            | Key::Package
            | Key::App
            | Key::Category => Scope::Frame,
            _ => Scope::Event,
        }
    }

    /// Paths are compared as one writes them, whatever the system: lower case, `/`, absolute.
    fn is_path(&self) -> bool {
        matches!(self, Key::Path | Key::Package)
    }
}

/// What has to satisfy a matcher together with the others of the same scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Event,
    Exception,
    Frame,
}

impl Matcher {
    /// Reads a matcher such as `!module:foo.*`.
    pub(super) fn parse(key: &str, pattern: &str) -> Result<Matcher, String> {
        let (is_negated, name) = match key.strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, key),
        };
        let key = Key::parse(name).ok_or_else(|| format!("unknown matcher {name:?}"))?;
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "the pattern of {name:?} is longer than {PATTERN_BYTES_MAX} bytes"
            ));
        }
        let pattern = if key.is_path() {
            plain_path(pattern)
        } else {
            pattern.to_owned()
        };
        let names = pattern.split(',').map(str::trim);
        Ok(Matcher {
            is_negated,
            key,
            pattern: Pattern::new(&pattern),
            families: names.fold(0, |families, name| families | families_of(name)),
            text: pattern,
        })
    }

    pub(super) fn scope(&self) -> Scope {
        self.key.scope()
    }

    fn is_met(&self, met: bool) -> bool {
        met != self.is_negated
    }

    /// Says whether an event satisfies a matcher of the scope of events.
    fn meets_event(&self, event: &Event) -> bool {
        let text = |text: Option<&str>| text.is_some_and(|text| self.covers(text));
        self.is_met(match &self.key {
            Key::Message => messages(event).any(|message| self.covers(message)),
            Key::Logger => text(event.logger.as_deref()),
            Key::Level => self.text.eq_ignore_ascii_case(event.level.as_str()),
            Key::Release => text(event.release.as_deref()),
            Key::Environment => text(event.environment.as_deref()),
            Key::Transaction => text(event.transaction.as_deref()),
            Key::Sdk => text(event.sdk.as_ref().and_then(|sdk| sdk.name.as_deref())),
            Key::Tag(name) => text(event.tags.get(name).and_then(Value::as_str)),
            Key::ThreadId => event.threads.iter().any(|thread| match &thread.id {
                Some(Value::String(id)) => self.covers(id),
                Some(id) => self.covers(&id.to_string()),
                None => false,
            }),
            Key::ThreadName => event
                .threads
                .iter()
                .any(|thread| text(thread.name.as_deref())),
            Key::ThreadState => event
                .threads
                .iter()
                .any(|thread| text(thread.other.get("state").and_then(Value::as_str))),
            Key::ThreadCrashed => event
                .threads
                .iter()
                .any(|thread| thread.crashed == Some(self.means_yes())),
            Key::ThreadCurrent => event
                .threads
                .iter()
                .any(|thread| thread.current == Some(self.means_yes())),
            _ => false,
        })
    }

    fn meets_exception(&self, exception: &Exception) -> bool {
        let mechanism = exception.mechanism.as_ref().and_then(|m| m.ty.as_deref());
        let text = match self.key {
            Key::Type => exception.ty.as_deref(),
            Key::Value => exception.value.as_deref(),
            _ => mechanism,
        };
        self.is_met(text.is_some_and(|text| self.covers(text)))
    }

    /// Says whether a frame satisfies a matcher of the scope of frames.
    pub(super) fn meets_frame(&self, family: Family, frame: &Frame) -> bool {
        let text = |text: Option<&str>| text.is_some_and(|text| self.covers(text));
        self.is_met(match self.key {
            Key::Path => {
                let path = frame.abs_path.as_deref().or(frame.filename.as_deref());
                path.is_some_and(|path| self.covers_path(path))
            }
            Key::Package => frame
                .package
                .as_deref()
                .is_some_and(|path| self.covers_path(path)),
            Key::Module => text(frame.module.as_deref()),
            Key::Function => text(frame.function.as_deref()),
            Key::App => frame.in_app.unwrap_or_default() == self.means_yes(),
            Key::Family => self.families & bit_of(family.of_frame(frame)) != 0,
            _ => text(
                frame
                    .data
                    .as_ref()
                    .and_then(|data| data.get("category"))
                    .and_then(Value::as_str),
            ),
        })
    }

    fn means_yes(&self) -> bool {
        matches!(
            self.text.to_ascii_lowercase().as_str(),
            "1" | "yes" | "true"
        )
    }

    fn covers_path(&self, path: &str) -> bool {
        path_glob(
            &self.text,
            super::value::cut(&plain_path(path), TEXT_BYTES_MAX),
        )
    }

    fn covers(&self, text: &str) -> bool {
        self.pattern.covers(super::value::cut(text, TEXT_BYTES_MAX))
    }
}

/// Matchers that must all be met, each scope by one and the same exception or frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Matchers {
    /// What the frame that called must look like.
    pub(super) caller: Vec<Matcher>,
    /// The matchers themselves.
    pub(super) own: Vec<Matcher>,
    /// What the frame that was called must look like.
    pub(super) callee: Vec<Matcher>,
}

impl Matchers {
    /// Says whether an event meets all matchers.
    pub(super) fn meet(&self, event: &Event) -> bool {
        self.meet_event(event)
            && self.meet_any_exception(event)
            && (!self.asks_for_frames()
                || stacks(event).any(|stack| {
                    let family = Family::of(event.platform.as_deref());
                    (0..stack.frames.len())
                        .any(|index| self.meet_frame(family, &stack.frames, index))
                }))
    }

    /// Says whether the event as a whole meets the matchers of its scope.
    pub(super) fn meet_event(&self, event: &Event) -> bool {
        self.of_scope(Scope::Event)
            .all(|matcher| matcher.meets_event(event))
    }

    /// Says whether one exception of the event meets the matchers of that scope.
    pub(super) fn meet_any_exception(&self, event: &Event) -> bool {
        self.of_scope(Scope::Exception).next().is_none()
            || event
                .exception
                .iter()
                .any(|exception| self.meet_exception(exception))
    }

    /// Says whether an exception meets the matchers of that scope.
    pub(super) fn meet_exception(&self, exception: &Exception) -> bool {
        self.of_scope(Scope::Exception)
            .all(|matcher| matcher.meets_exception(exception))
    }

    /// Says whether a frame and its neighbours meet the matchers of that scope.
    pub(super) fn meet_frame(&self, family: Family, frames: &[Frame], index: usize) -> bool {
        let neighbour = |matchers: &[Matcher], at: Option<usize>| {
            matchers.is_empty()
                || at.and_then(|at| frames.get(at)).is_some_and(|frame| {
                    matchers
                        .iter()
                        .all(|matcher| matcher.meets_frame(family, frame))
                })
        };
        self.of_scope(Scope::Frame)
            .all(|matcher| matcher.meets_frame(family, &frames[index]))
            && neighbour(&self.caller, index.checked_sub(1))
            && neighbour(&self.callee, Some(index + 1))
    }

    /// Says whether a frame of this family can meet the matchers at all.
    pub(super) fn can_meet(&self, family: Family) -> bool {
        let families = self.own.iter().filter(|matcher| matcher.key == Key::Family);
        families
            .into_iter()
            .all(|matcher| matcher.is_met(matcher.families & bit_of(family) != 0))
    }

    fn asks_for_frames(&self) -> bool {
        self.of_scope(Scope::Frame).next().is_some()
            || !self.caller.is_empty()
            || !self.callee.is_empty()
    }

    fn of_scope(&self, scope: Scope) -> impl Iterator<Item = &Matcher> {
        self.own
            .iter()
            .filter(move |matcher| matcher.scope() == scope)
    }
}

/// Reads `[caller] | matcher… | [callee]` from the start of a line and returns what follows.
pub(super) fn parse_matchers(line: &str) -> Result<(Matchers, &str), Misread> {
    let mut matchers = Matchers::default();
    let mut rest = line.trim_start();
    if rest.starts_with('[') {
        (matchers.caller, rest) = parse_bracket(rest)?;
        rest = rest.trim_start();
        rest = rest
            .strip_prefix('|')
            .ok_or_else(|| Misread::at(rest, "expected \"|\" after the caller"))?;
    }
    loop {
        rest = rest.trim_start();
        let Some((matcher, after)) = parse_matcher(rest)? else {
            break;
        };
        matchers.own.push(matcher);
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('|') {
        (matchers.callee, rest) = parse_bracket(after.trim_start())?;
    }
    if matchers == Matchers::default() {
        return Err(Misread::at(
            rest,
            "expected a matcher such as type:KeyError",
        ));
    }
    Ok((matchers, rest))
}

fn parse_bracket(text: &str) -> Result<(Vec<Matcher>, &str), Misread> {
    let mut matchers = Vec::new();
    let mut rest = text
        .strip_prefix('[')
        .ok_or_else(|| Misread::at(text, "expected \"[\""))?;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(']') {
            return Ok((matchers, after));
        }
        let Some((matcher, after)) = parse_matcher(rest)? else {
            return Err(Misread::at(rest, "expected a matcher or \"]\""));
        };
        if matcher.scope() != Scope::Frame {
            return Err(Misread::at(rest, "only frames have callers and callees"));
        }
        matchers.push(matcher);
        rest = after;
    }
}

fn parse_matcher(text: &str) -> Result<Option<(Matcher, &str)>, Misread> {
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '!');
    let key_len = text.find(|c: char| !is_key(c)).unwrap_or(text.len());
    let Some(after) = text[key_len..].strip_prefix(':').filter(|_| key_len > 0) else {
        return Ok(None);
    };
    let (pattern, rest) = match after.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = after
                .find(|c: char| c.is_whitespace() || c == ']')
                .unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        }
    };
    let matcher = Matcher::parse(&text[..key_len], &pattern);
    let matcher = matcher.map_err(|message| Misread::at(text, message))?;
    Ok(Some((matcher, rest)))
}

/// Reads up to the closing quote; a backslash takes the next character as it is.
pub(super) fn unquote(text: &str) -> Result<(String, &str), Misread> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    Err(Misread {
        left: text.len() + '"'.len_utf8(),
        message: "a quote is not closed".into(),
    })
}

/// All texts that an event says: its message and the values of its exceptions.
pub(super) fn messages(event: &Event) -> impl Iterator<Item = &str> {
    let message = event.message.iter();
    let texts = message
        .flat_map(|m| [m.formatted.as_deref(), m.message.as_deref()])
        .flatten();
    texts.chain(
        event
            .exception
            .iter()
            .filter_map(|exception| exception.value.as_deref()),
    )
}

/// All stacks of an event, those of exceptions first.
pub(super) fn stacks(event: &Event) -> impl Iterator<Item = &Stacktrace> {
    let of_exceptions = event.exception.iter().filter_map(|e| e.stacktrace.as_ref());
    let of_threads = event
        .threads
        .iter()
        .filter_map(|thread| thread.stacktrace.as_ref());
    of_exceptions
        .chain(of_threads)
        .chain(event.stacktrace.as_ref())
}

const JAVASCRIPT: u8 = 1;
const NATIVE: u8 = 2;
const OTHER: u8 = 4;
const JAVA: u8 = 8;

/// The families that a name in a rule stands for.
fn families_of(name: &str) -> u8 {
    match name {
        "javascript" => JAVASCRIPT,
        "native" => NATIVE,
        "other" => OTHER | JAVA,
        // Beyond Sentry's families, for the shipped rules.
        "java" => JAVA,
        "all" => JAVASCRIPT | NATIVE | OTHER | JAVA,
        _ => 0,
    }
}

fn bit_of(family: Family) -> u8 {
    match family {
        Family::Js => JAVASCRIPT,
        Family::Rust => NATIVE,
        Family::Java => JAVA,
        _ => OTHER,
    }
}

fn plain_path(path: &str) -> String {
    let plain = path.replace('\\', "/").to_lowercase();
    let is_anchored = plain.starts_with(['/', '*']) || plain.contains("://") || plain.is_empty();
    if is_anchored {
        plain
    } else {
        format!("/{plain}")
    }
}

/// Matches a text against a pattern in which `*` is any text and `?` any character.
/// Linear in the text: each piece between stars is looked for once, at its first place.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut at) = starts_with(text, first) else {
        return false;
    };
    let Some(mut piece) = pieces.next() else {
        return at == text.len();
    };
    for next in pieces {
        match find(&text[at..], piece) {
            Some(end) => at += end,
            None => return false,
        }
        piece = next;
    }
    ends_with(&text[at..], piece)
}

/// Matches a path against a pattern in which `**` is any text, and `*` and `?` stay within a
/// segment of the path. The time is at most the product of both lengths, whatever they hold.
fn path_glob(pattern: &str, path: &str) -> bool {
    if !pattern.replace("**", "").contains(['*', '?']) {
        return glob(pattern, path);
    }
    let pattern: Vec<char> = pattern.chars().collect();
    // The places in the pattern that the path so far can have led to.
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    skip_stars(&pattern, &mut places);
    let mut next = vec![false; pattern.len() + 1];
    for c in path.chars() {
        next.fill(false);
        for (at, wanted) in pattern.iter().enumerate().filter(|(at, _)| places[*at]) {
            match wanted {
                '*' => next[at] |= c != '/' || is_double_star(&pattern, at),
                '?' => next[at + 1] |= c != '/',
                wanted => next[at + 1] |= *wanted == c,
            }
        }
        std::mem::swap(&mut places, &mut next);
        skip_stars(&pattern, &mut places);
    }
    places[pattern.len()]
}

fn is_double_star(pattern: &[char], at: usize) -> bool {
    pattern.get(at + 1) == Some(&'*') || at.checked_sub(1).is_some_and(|at| pattern[at] == '*')
}

/// A star may stand for nothing.
fn skip_stars(pattern: &[char], places: &mut [bool]) {
    for (at, wanted) in pattern.iter().enumerate() {
        places[at + 1] |= places[at] && *wanted == '*';
    }
}

/// The length of `text`'s beginning that `piece` covers.
fn starts_with(text: &str, piece: &str) -> Option<usize> {
    if !piece.contains('?') {
        return text.starts_with(piece).then_some(piece.len());
    }
    let mut chars = text.char_indices();
    for wanted in piece.chars() {
        let (_, c) = chars.next()?;
        if wanted != '?' && wanted != c {
            return None;
        }
    }
    Some(chars.next().map_or(text.len(), |(at, _)| at))
}

/// Where the first part of `text` that `piece` covers ends.
fn find(text: &str, piece: &str) -> Option<usize> {
    if !piece.contains('?') {
        return text.find(piece).map(|at| at + piece.len());
    }
    let mut starts = text.char_indices().map(|(at, _)| at);
    starts.find_map(|at| starts_with(&text[at..], piece).map(|len| at + len))
}

fn ends_with(text: &str, piece: &str) -> bool {
    if !piece.contains('?') {
        return text.ends_with(piece);
    }
    let len = piece.chars().count();
    let start = text.char_indices().rev().nth(len.saturating_sub(1));
    start.is_some_and(|(at, _)| starts_with(&text[at..], piece).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("abc", "abcd", false),
            ("a*a", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b?", "abc", true),
            ("*?b*d", "xabcd", true),
            ("**/vendor/**", "/srv/vendor/x.rb", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
            let compiled = Pattern::new(pattern);
            assert_eq!(compiled.covers(text), expected, "{compiled:?} {text}");
        }
    }

    #[test]
    fn a_star_stays_within_a_segment_of_a_path() {
        for (pattern, path, expected) in [
            ("**/vendor/foo/*.c", "/srv/vendor/foo/a.c", true),
            ("**/vendor/foo/*.c", "/srv/vendor/foo/gen/a.c", false),
            ("**/project/**.c", "/srv/project/gen/a.c", true),
            ("**/foo.*.c", "/srv/a/foo.gen.c", true),
            ("**/foo.?.c", "/srv/a/foo./.c", false),
            ("/srv/*/a.c", "/srv/x/a.c", true),
            ("/srv/*/a.c", "/srv/x/y/a.c", false),
            ("**/a*b/**", "/aab/aXb/c", true),
            ("*", "/a", false),
            ("**", "/a/b", true),
        ] {
            assert_eq!(path_glob(pattern, path), expected, "{pattern} {path}");
        }
        // Patterns that would go back and forth take no longer than others.
        let path = "/aaaaaaaa".repeat(200);
        assert!(!path_glob(&"**a*a".repeat(50), &format!("{path}/b")));
    }

    #[test]
    fn what_is_no_matcher() {
        for (line, expected) in [
            ("colour:red", "unknown matcher \"colour\""),
            ("type:\"a b", "a quote is not closed"),
            ("-> x", "expected a matcher such as type:KeyError"),
            (
                "[ function:f ] function:g",
                "expected \"|\" after the caller",
            ),
            (
                "[ type:f ] | function:g",
                "only frames have callers and callees",
            ),
        ] {
            let misread = parse_matchers(line).unwrap_err();
            assert_eq!(misread.message, expected, "{line}");
        }
    }
}
