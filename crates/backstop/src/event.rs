//! Making the event of an error: its chain, its place, its frames with source lines.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backstop_protocol::{Event, Exception, Frame, Mechanism, Sdk, Stacktrace};
use serde_json::{Value, json};

use crate::report::Options;

/// The longest chain of sources that is followed; a chain that is longer is a loop.
const CHAIN_MAX: usize = 32;

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

/// Makes the event of an error that a program reports at `place`.
pub(crate) fn of_error(
    error: &(dyn StdError + 'static),
    place: &'static Location<'static>,
) -> Event {
    let mut exceptions = chain(error);
    if let Some(outermost) = exceptions.last_mut() {
        outermost.stacktrace = Some(stacktrace_of(place));
        outermost.mechanism = Some(Mechanism {
            ty: Some("generic".to_owned()),
            handled: Some(true),
            ..Mechanism::default()
        });
    }
    Event {
        exception: exceptions,
        ..Event::default()
    }
}

/// Makes the event of a panic.
pub(crate) fn of_panic(message: &str, place: Option<&Location<'_>>) -> Event {
    Event {
        level: backstop_protocol::Level::Fatal,
        exception: vec![Exception {
            ty: Some("panic".to_owned()),
            value: Some(cut(message.to_owned())),
            stacktrace: place.map(stacktrace_of),
            mechanism: Some(Mechanism {
                ty: Some("panic".to_owned()),
                handled: Some(false),
                ..Mechanism::default()
            }),
            ..Exception::default()
        }],
        ..Event::default()
    }
}

/// Makes the exceptions of an error and its sources, in wire order: innermost cause first.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> Vec<Exception> {
    let mut exceptions: Vec<Exception> =
        std::iter::successors(Some(error), |error| source_of(*error))
            .take(CHAIN_MAX)
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

/// Returns what an error was caused by.
fn source_of<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    // `io::Error` skips the error inside it and names that one's source.
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Returns module and name of an error's type, as far as a `dyn Error` tells.
///
/// The type's name cannot be had of a `dyn Error`; derived `Debug` begins with it, or with the
/// variant's, which says even more.
fn type_of(error: &(dyn StdError + 'static)) -> (Option<String>, String) {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return (Some("std::io".to_owned()), format!("{:?}", error.kind()));
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
fn stacktrace_of(place: &Location<'_>) -> Stacktrace {
    let frame = Frame {
        filename: Some(place.file().to_owned()),
        lineno: Some(place.line().into()),
        colno: Some(place.column().into()),
        in_app: Some(true),
        ..Frame::default()
    };
    Stacktrace {
        frames: vec![frame],
        ..Stacktrace::default()
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
        frame.pre_context = lines[index.saturating_sub(CONTEXT_LINES)..index].to_vec();
        frame.context_line = Some(lines[index].clone());
        frame.post_context = lines[index + 1..end].to_vec();
    }
}

fn read_lines(path: &str) -> Option<Vec<String>> {
    let path = find_source(path)?;
    if fs::metadata(&path).ok()?.len() > SOURCE_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let cut = |line: &str| line.chars().take(LINE_CHARS_MAX).collect();
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
        assert_eq!(types(&exceptions), ["Error", "Other", "Outer", "Other"]);
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
        assert_eq!(chain(&Loop).len(), CHAIN_MAX);
    }

    #[test]
    fn the_place_shows_its_source() {
        let error = Outer(io::Error::other("x"));
        let mut event = of_error(&error, Location::caller());
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
}
