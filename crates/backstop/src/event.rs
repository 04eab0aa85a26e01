//! Making the event of an error: its chain, its place, its frames with source lines.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backstop_capture::{Role, Snapshot, State, Variable};
use backstop_protocol::{Event, Exception, Frame, Mechanism, Object, Sdk, Stacktrace};
use serde_json::{Value, json};

use crate::report::Options;
use crate::{Error, capture};

/// Longer texts of errors are cut: the beginning says what it is.
const TEXT_CHARS_MAX: usize = 8192;

/// How many source lines are shown before and after the failing one.
const CONTEXT_LINES: usize = 5;

/// Longer source lines are minified code.
const LINE_CHARS_MAX: usize = 256;

/// A larger file is no source that somebody wrote.
const SOURCE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Of a type's `Debug` text only the beginning, its name, is of use.
const DEBUG_BYTES_MAX: usize = 128;

/// What is known of an error at once, without opening files or debug information.
pub(crate) struct Draft {
    exceptions: Vec<Exception>,
    place: Option<Place>,
    snapshot: Option<Arc<Snapshot>>,
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl From<&Location<'_>> for Place {
    fn from(location: &Location<'_>) -> Place {
        Place {
            file: location.file().to_owned(),
            line: location.line(),
            column: location.column(),
        }
    }
}

impl Draft {
    /// Drafts an error that a program reports at `place`, with the stack of the caller.
    pub(crate) fn of_reported(
        error: &(dyn StdError + 'static),
        place: &'static Location<'static>,
    ) -> Draft {
        let draft = Draft {
            exceptions: chain(error),
            place: Some(place.into()),
            snapshot: Some(Arc::new(capture::take(place))),
        };
        draft.with_mechanism("generic", true)
    }

    /// Drafts an error that nobody handled.
    pub(crate) fn of_unhandled(error: &Error) -> Draft {
        let panicked = error.panic().is_some();
        Draft::of(error).with_mechanism(if panicked { "panic" } else { "backstop" }, false)
    }

    /// Drafts an error that the program has caught.
    pub(crate) fn of_caught(error: &Error) -> Draft {
        Draft::of(error).with_mechanism("generic", true)
    }

    /// The error, its causes, and what was being dealt with.
    fn of(error: &Error) -> Draft {
        let mut exceptions = Vec::new();
        // Of an error in a handler, the first error is what was being dealt with.
        if let Some(first) = error.context() {
            exceptions.extend(chain_of(first));
            if let Some(first) = exceptions.last_mut() {
                let mechanism = first.mechanism.get_or_insert_default();
                mechanism.ty = Some("chained".to_owned());
                mechanism.source = Some("__context__".to_owned());
            }
        }
        exceptions.extend(chain_of(error));
        let (place, snapshot) = match error.panic() {
            Some(panic) => (panic.full_place(), panic.snapshot()),
            None => (Some(error.location().into()), error.snapshot()),
        };
        Draft {
            exceptions,
            place,
            snapshot: snapshot.cloned(),
        }
    }

    /// Drafts a panic, with the stack of the caller, which is the hook.
    pub(crate) fn of_panic(message: &str, location: Option<&Location<'_>>) -> Draft {
        let exception = Exception {
            ty: Some("panic".to_owned()),
            value: Some(cut(message.to_owned())),
            ..Exception::default()
        };
        let draft = Draft {
            exceptions: vec![exception],
            place: location.map(Place::from),
            snapshot: location.map(|location| Arc::new(capture::take(location))),
        };
        draft.with_mechanism("panic", false)
    }

    fn with_mechanism(mut self, ty: &str, handled: bool) -> Draft {
        if let Some(outermost) = self.exceptions.last_mut() {
            let mechanism = outermost.mechanism.get_or_insert_default();
            mechanism.ty = Some(ty.to_owned());
            mechanism.handled = Some(handled);
        }
        self
    }

    /// Adds the errors and their frames to an event.
    ///
    /// Opens debug information; never called on a request's path.
    pub(crate) fn finish(self, mut event: Event) -> Event {
        let mut exceptions = self.exceptions;
        if let Some(outermost) = exceptions.last_mut() {
            outermost.stacktrace = self
                .snapshot
                .and_then(|snapshot| stacktrace_of(&snapshot))
                .or_else(|| self.place.as_ref().map(one_frame));
            if let (Some(stacktrace), Some(place)) = (&mut outermost.stacktrace, &self.place) {
                restore_line(&mut stacktrace.frames, place);
            }
        }
        event.exception = exceptions;
        event
    }
}

/// The exceptions of an error, whose outermost type is known by its name.
fn chain_of(error: &Error) -> Vec<Exception> {
    let mut exceptions = chain(error.as_dyn());
    if let Some(outermost) = exceptions.last_mut() {
        let (module, ty) = split_type_name(error.type_name());
        let hidden = ["Box", "String", "str", "Error", "Report", "Cow"];
        let short = ty.split('<').next().unwrap_or(ty);
        if let Some(panic) = error.panic() {
            // The place is in the frames.
            outermost.ty = Some("panic".to_owned());
            outermost.value = Some(cut(panic.message().to_owned()));
        } else if let Some(kind) = error.kind() {
            outermost.ty = Some(kind.name().to_owned());
        } else if error.as_dyn().is::<io::Error>()
            || hidden.contains(&short.trim_start_matches('&'))
        {
            // The type inside says more: it stays.
        } else {
            outermost.ty = Some(ty.to_owned());
            outermost.module = module.map(str::to_owned);
        }
    }
    exceptions
}

/// Splits a type's full name: `shop::disk::Full<T>` is `Full<T>` in `shop::disk`.
fn split_type_name(name: &str) -> (Option<&str>, &str) {
    let generics = name.find('<').unwrap_or(name.len());
    match name[..generics].rfind("::") {
        Some(at) => (Some(&name[..at]), &name[at + 2..]),
        None => (None, name),
    }
}

/// Makes the exceptions of an error and its sources, in wire order: innermost cause first.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> Vec<Exception> {
    let mut exceptions: Vec<Exception> =
        std::iter::successors(Some(error), |error| crate::error::source_of(*error))
            .take(crate::error::CHAIN_MAX)
            .map(|error| {
                let (module, ty) = type_of(error);
                Exception {
                    ty: Some(ty),
                    module,
                    value: Some(cut(error.to_string())),
                    ..Exception::default()
                }
            })
            .collect();
    for (id, exception) in exceptions.iter_mut().enumerate().skip(1) {
        let number = |id: usize| i64::try_from(id).ok();
        exception.mechanism = Some(Mechanism {
            ty: Some("chained".to_owned()),
            source: Some("source".to_owned()),
            exception_id: number(id),
            parent_id: number(id - 1),
            ..Mechanism::default()
        });
    }
    exceptions.reverse();
    exceptions
}

/// Returns module and name of an error's type, as far as a `dyn Error` tells.
///
/// The type's name cannot be had of a `dyn Error`; derived `Debug` begins with it, or with the
/// variant's, which says even more.
fn type_of(error: &(dyn StdError + 'static)) -> (Option<String>, String) {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // `Uncategorized` and `Other` are names for having no name.
        let kind = match format!("{:?}", error.kind()) {
            kind if kind == "Uncategorized" || kind == "Other" => "Error".to_owned(),
            kind => kind,
        };
        return (Some("std::io".to_owned()), kind);
    }
    let mut debug = Bounded(String::new());
    // Only `Bounded` fails, when it is full; the name is at the beginning.
    let _full = write!(debug, "{error:?}");
    let name: String = debug
        .0
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
        .collect();
    if name.starts_with(|c: char| c.is_uppercase()) {
        (None, name)
    } else {
        (None, "Error".to_owned())
    }
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        match self.0.len() > DEBUG_BYTES_MAX {
            true => Err(fmt::Error),
            false => Ok(()),
        }
    }
}

/// A stack of one frame: the place that is known without walking the stack.
fn one_frame(place: &Place) -> Stacktrace {
    let frame = Frame {
        filename: Some(place.file.clone()),
        lineno: Some(place.line.into()),
        colno: Some(place.column.into()),
        in_app: Some(true),
        ..Frame::default()
    };
    Stacktrace {
        frames: vec![frame],
        ..Stacktrace::default()
    }
}

/// Gives the innermost call the line of the error's place, if the optimiser took the line away.
///
/// It does where several `?` of a function share one way out. The place is where that function made
/// the error, unless the function passes its caller's place on (`#[track_caller]`): then the line is
/// that of another call in the stack, and nothing is changed.
fn restore_line(frames: &mut [Frame], place: &Place) {
    let line = u64::from(place.line);
    let is_here = |frame: &Frame| {
        let path = frame.abs_path.as_deref().or(frame.filename.as_deref());
        path.is_some_and(|path| Path::new(path).ends_with(&place.file))
    };
    let is_another_call = frames
        .iter()
        .any(|frame| frame.lineno == Some(line) && is_here(frame));
    if let Some(innermost) = frames.last_mut()
        && innermost.lineno.unwrap_or_default() == 0
        && !is_another_call
        && is_here(innermost)
    {
        innermost.lineno = Some(line);
        innermost.colno = Some(place.column.into());
    }
}

/// Names a stack and puts it in wire order: outermost call first.
fn stacktrace_of(snapshot: &Snapshot) -> Option<Stacktrace> {
    let mut frames: Vec<Frame> = snapshot
        .resolve()
        .into_iter()
        // What made the error and the hook of the panic explain nothing.
        .skip_while(|frame| frame.role == Role::Failure || is_ours(frame))
        .map(frame_of)
        .collect();
    frames.reverse();
    (!frames.is_empty()).then(|| Stacktrace {
        frames,
        ..Stacktrace::default()
    })
}

fn is_ours(frame: &backstop_capture::Frame) -> bool {
    matches!(
        frame.crate_name.as_deref(),
        Some("backstop" | "backstop_capture" | "core" | "std" | "alloc")
    )
}

fn frame_of(frame: backstop_capture::Frame) -> Frame {
    let mut notes = Object::new();
    let mut vars = Object::new();
    for variable in &frame.vars {
        // A later one of the same name hides the earlier; the last one is what the line sees.
        vars.insert(variable.name.clone(), value_of(&variable.value, 0));
        notes.insert(variable.name.clone(), notes_of(variable));
    }
    let mut data = Object::new();
    if !notes.is_empty() {
        data.insert("vars".to_owned(), Value::Object(notes));
    }
    if let Some(missing) = frame.vars_missing {
        data.insert(
            "vars_missing".to_owned(),
            Value::String(why_missing(missing).to_owned()),
        );
    }
    Frame {
        function: frame.function,
        raw_function: frame.symbol,
        module: frame.module,
        package: frame.package.map(|package| package.name),
        filename: frame.file.as_deref().map(short_file),
        abs_path: frame.file,
        lineno: frame.line.map(u64::from),
        colno: frame.column.map(u64::from),
        in_app: Some(frame.in_app),
        vars: vars.into(),
        instruction_addr: Some(format!("{:#x}", frame.address)),
        data: (!data.is_empty()).then_some(Value::Object(data)),
        ..Frame::default()
    }
}

fn notes_of(variable: &Variable) -> Value {
    let mut notes = json!({"type": short_type(&variable.type_name)});
    if variable.state != State::Ok {
        notes["state"] = json!(variable.state.text());
    }
    notes
}

/// The last part of each path: `alloc::vec::Vec<shop::Item>` is `Vec<Item>`.
fn short_type(name: &str) -> String {
    const TYPE_CHARS_MAX: usize = 120;
    let separators = ['<', '>', ',', ' ', '(', ')', '&', '[', ']', ';', '*'];
    let short: String = name
        .split_inclusive(separators)
        .map(|part| part.rsplit("::").next().unwrap_or(part))
        .collect();
    match short.char_indices().nth(TYPE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &short[..at]),
        None => short,
    }
}

fn why_missing(missing: backstop_capture::VarsMissing) -> &'static str {
    use backstop_capture::VarsMissing;
    match missing {
        VarsMissing::NoDebugInfo => {
            "this code was built without them; set `debug = \"full\"` in the profile"
        }
        VarsMissing::Limit => "a limit was reached before this frame",
        VarsMissing::Failed => "the capture failed",
        VarsMissing::RateLimit => "this stack was captured too often within a second",
        VarsMissing::Platform => "this platform has no reader for them",
        _ => "not captured",
    }
}

/// Values of a captured variable as JSON: short ones as Rust writes them, others as trees.
fn value_of(value: &backstop_capture::Value, depth: usize) -> Value {
    use backstop_capture::Value as Captured;
    const SHORT_CHARS: usize = 60;
    const DEPTH_MAX: usize = 16;
    match value {
        Captured::Bool(flag) => return Value::Bool(*flag),
        Captured::Signed(number) => {
            if let Ok(number) = i64::try_from(*number) {
                return number.into();
            }
        }
        Captured::Unsigned(number) => {
            if let Ok(number) = u64::try_from(*number) {
                return number.into();
            }
        }
        _ => {}
    }
    let short = value.summary(SHORT_CHARS);
    if !short.ends_with('…') || depth >= DEPTH_MAX {
        return Value::String(short);
    }
    let items = |items: &[Captured], len: u64| {
        let mut list: Vec<Value> = items.iter().map(|item| value_of(item, depth + 1)).collect();
        let more = len.saturating_sub(items.len() as u64);
        if more > 0 {
            list.push(Value::String(format!("…{more} more")));
        }
        Value::Array(list)
    };
    match value {
        Captured::List { items: list, len } | Captured::Set { items: list, len } => {
            items(list, *len)
        }
        Captured::Map { entries, len } => {
            let mut map: Object = entries
                .iter()
                .map(|(key, value)| (key.to_string(), value_of(value, depth + 1)))
                .collect();
            let more = len.saturating_sub(entries.len() as u64);
            if more > 0 {
                map.insert("…".to_owned(), Value::String(format!("{more} more")));
            }
            Value::Object(map)
        }
        Captured::Struct { fields, .. } => fields
            .iter()
            .map(|(name, value)| (name.clone(), value_of(value, depth + 1)))
            .collect(),
        Captured::Tuple { name, items: list } if name.is_empty() => items(list, list.len() as u64),
        Captured::Tuple { name, items: list } => {
            let inside = match list.as_slice() {
                [one] => value_of(one, depth + 1),
                list => items(list, list.len() as u64),
            };
            Value::Object(Object::from_iter([(name.clone(), inside)]))
        }
        other => Value::String(cut(other.to_string())),
    }
}

/// The path as the project knows it: from its `src`, `tests`, `examples` or `benches` folder.
fn short_file(path: &str) -> String {
    let folders = ["/src/", "/tests/", "/examples/", "/benches/"];
    let start = folders
        .iter()
        .filter_map(|folder| path.find(folder))
        .min()
        .filter(|_| !path.contains("/registry/src/") && !path.starts_with("/rustc/"));
    match start {
        Some(at) => path[at + 1..].to_owned(),
        None => path.to_owned(),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Adds to an event what only the reporting process knows: platform, machine, source lines.
///
/// Reads files; never called on a request's path.
pub(crate) fn complete(event: &mut Event, options: &Options) {
    event.platform.get_or_insert_with(|| "rust".to_owned());
    event.sdk.get_or_insert_with(|| Sdk {
        name: Some(crate::report::CLIENT_NAME.to_owned()),
        version: Some(crate::report::CLIENT_VERSION.to_owned()),
        ..Sdk::default()
    });
    for (name, context) in [("os", os_context()), ("runtime", runtime_context())] {
        if !event.contexts.contains_key(name) {
            event.contexts.insert(name.to_owned(), context);
        }
    }
    let platform = event.platform.clone();
    let mut sources = Sources::default();
    for frame in frames_mut(event) {
        decide_in_app(frame, platform.as_deref(), options);
        if options.source_context && frame.in_app == Some(true) {
            sources.add_context(frame);
        }
    }
}

pub(crate) fn frames_mut(event: &mut Event) -> impl Iterator<Item = &mut Frame> {
    event
        .exception
        .iter_mut()
        .filter_map(|exception| exception.stacktrace.as_mut())
        .chain(
            event
                .threads
                .iter_mut()
                .filter_map(|thread| thread.stacktrace.as_mut()),
        )
        .chain(&mut event.stacktrace)
        .flat_map(|stacktrace| &mut stacktrace.frames)
}

/// The program's own word first, then what names and paths prove, then the sender's flag.
fn decide_in_app(frame: &mut Frame, platform: Option<&str>, options: &Options) {
    let function = frame
        .function
        .as_deref()
        .or(frame.module.as_deref())
        .unwrap_or_default();
    let named = |list: &[String]| {
        list.iter()
            .any(|start| function.starts_with(start.as_str()))
    };
    if named(&options.in_app) {
        frame.in_app = Some(true);
    } else if named(&options.not_in_app) {
        frame.in_app = Some(false);
    } else if let Some(proven) = backstop_protocol::in_app(platform, frame) {
        frame.in_app = Some(proven);
    }
}

fn os_context() -> Value {
    static CONTEXT: OnceLock<Value> = OnceLock::new();
    let make = || {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        json!({"name": std::env::consts::OS, "kernel_version": kernel.trim()})
    };
    CONTEXT.get_or_init(make).clone()
}

fn runtime_context() -> Value {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    json!({"name": "rust", "build": profile, "arch": std::env::consts::ARCH})
}

/// Reads source files, each once.
#[derive(Default)]
pub(crate) struct Sources {
    files: HashMap<String, Option<Arc<[String]>>>,
}

impl Sources {
    /// Adds the lines around a frame's line, if its file is here.
    pub(crate) fn add_context(&mut self, frame: &mut Frame) {
        let path = frame.abs_path.as_ref().or(frame.filename.as_ref());
        let (Some(path), Some(line), None) = (path, frame.lineno, &frame.context_line) else {
            return;
        };
        let lines = self
            .files
            .entry(path.clone())
            .or_insert_with(|| read_lines(path).map(Into::into));
        let (Some(lines), Ok(line)) = (lines.as_ref(), usize::try_from(line)) else {
            return;
        };
        let Some(index) = line.checked_sub(1).filter(|index| *index < lines.len()) else {
            return;
        };
        let end = lines.len().min(index + 1 + CONTEXT_LINES);
        frame.pre_context = lines[index.saturating_sub(CONTEXT_LINES)..index]
            .to_vec()
            .into();
        frame.context_line = Some(lines[index].clone());
        frame.post_context = lines[index + 1..end].to_vec().into();
    }
}

fn read_lines(path: &str) -> Option<Vec<String>> {
    let cut = |line: &str| line.chars().take(LINE_CHARS_MAX).collect();
    // What is embedded is what was compiled.
    if let Some(text) = backstop_capture::source_text(path) {
        return Some(text.lines().map(cut).collect());
    }
    let file = find_source(path)?;
    if fs::metadata(&file).ok()?.len() > SOURCE_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    // Lines of another version would point at the wrong code.
    if backstop_capture::is_stale(path, text.as_bytes()) {
        return None;
    }
    Some(text.lines().map(cut).collect())
}

/// The compiler writes paths relative to where it ran: the workspace, often above where we run.
fn find_source(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let is_source = |path: &Path| path.is_file();
    if path.is_absolute() {
        return is_source(path).then(|| path.to_owned());
    }
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .take(4)
        .map(|directory| directory.join(path))
        .find(|path| is_source(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot load the order")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn types(exceptions: &[Exception]) -> Vec<&str> {
        exceptions
            .iter()
            .map(|exception| exception.ty.as_deref().unwrap())
            .collect()
    }

    #[test]
    fn the_chain_is_in_wire_order_and_numbered() {
        let error = Outer(io::Error::from(io::ErrorKind::ConnectionRefused));
        let exceptions = chain(&error);
        assert_eq!(types(&exceptions), ["ConnectionRefused", "Outer"]);
        let mechanism = exceptions[0].mechanism.as_ref().unwrap();
        assert_eq!(
            (mechanism.exception_id, mechanism.parent_id),
            (Some(1), Some(0))
        );
    }

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let error = io::Error::other(Outer(io::Error::other("disk on fire")));
        let exceptions = chain(&error);
        assert_eq!(types(&exceptions), ["Error", "Error", "Outer", "Error"]);
        assert_eq!(exceptions[0].value.as_deref(), Some("disk on fire"));
    }

    #[test]
    fn an_endless_chain_ends() {
        #[derive(Debug)]
        struct Loop;
        impl fmt::Display for Loop {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("again")
            }
        }
        impl StdError for Loop {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self)
            }
        }
        assert_eq!(chain(&Loop).len(), crate::error::CHAIN_MAX);
    }

    #[test]
    fn the_place_shows_its_source() {
        let error = Outer(io::Error::other("x"));
        let mut draft = Draft::of_reported(&error, Location::caller());
        draft.snapshot = None; // this crate's own frames are left out of stacks
        let mut event = draft.finish(Event::default());
        complete(&mut event, &Options::default());
        let frame = &event
            .exception
            .last()
            .unwrap()
            .stacktrace
            .as_ref()
            .unwrap()
            .frames[0];
        assert!(
            frame
                .context_line
                .as_ref()
                .unwrap()
                .contains("Location::caller()")
        );
        assert_eq!(frame.pre_context.len(), CONTEXT_LINES);
        assert_eq!(frame.in_app, Some(true));
    }

    #[test]
    fn a_line_that_the_optimiser_took_is_that_of_the_place() {
        let frame = |file: &str, line: Option<u64>| Frame {
            abs_path: Some(file.to_owned()),
            lineno: line,
            ..Frame::default()
        };
        let place = Place {
            file: "src/cart.rs".to_owned(),
            line: 7,
            column: 5,
        };
        let restored = |frames: [Frame; 2]| {
            let mut frames = frames;
            restore_line(&mut frames, &place);
            (frames[0].lineno, frames[1].lineno)
        };
        let lost = || frame("/home/me/shop/src/cart.rs", None);
        assert_eq!(
            restored([frame("/home/me/shop/src/main.rs", Some(3)), lost()]),
            (Some(3), Some(7))
        );
        // Another file's, a line that is known, and one that belongs to the caller stay.
        let other = frame("/home/me/shop/src/smart-cart.rs", None);
        assert_eq!(restored([lost(), other]), (None, None));
        let known = frame("/home/me/shop/src/cart.rs", Some(9));
        assert_eq!(restored([lost(), known]), (None, Some(9)));
        let caller = frame("/home/me/shop/src/cart.rs", Some(7));
        assert_eq!(restored([caller, lost()]), (Some(7), None));
    }
}
