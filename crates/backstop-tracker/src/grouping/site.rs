//! Where in the user's code an error was raised, and who called that.

use std::borrow::Cow;

use backstop_protocol::Frame;

use super::name::{Family, Name, Receiver, function_name, place, receiver};
use super::{rules, stack_rules};

/// Frames beyond this many from the failing end are recursion or start-up code.
const FRAMES_MAX: usize = 250;

/// A function in a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Function<'a> {
    /// The module, class or file; empty where a bundle hides it.
    pub(super) place: Cow<'a, str>,
    /// The type whose method it is, where the language names it apart.
    pub(super) receiver: &'a str,
    /// The name; empty for a function without one.
    pub(super) name: Cow<'a, str>,
}

/// The function of the user's code in which an error was raised.
#[derive(Debug)]
pub(super) struct Site<'a> {
    /// The function.
    pub(super) function: Function<'a>,
    /// Whether the name would be the same in another build of the same source.
    pub(super) is_named: bool,
    /// Whether the function may be a method whose type the name does not tell.
    pub(super) lacks_receiver: bool,
    /// The frame itself.
    pub(super) frame: &'a Frame,
    /// Whether the user's own code raised the error, and not a library that it called.
    pub(super) is_innermost: bool,
    /// The nearest caller that is not part of a recursion through the function.
    pub(super) caller: Option<Function<'a>>,
    /// The caller's frame.
    pub(super) caller_frame: Option<&'a Frame>,
    /// The other functions of a recursion through the function.
    pub(super) cycle: Vec<Function<'a>>,
}

/// Finds the throw site in frames that are listed oldest first; `None` where the user's code
/// has no part in what happened since the framework took over.
pub(super) fn site<'a>(family: Family, frames: &'a [Frame]) -> Option<Site<'a>> {
    let frames = failing_end(family, frames);
    let mut generated = None;
    let mut is_innermost = true;
    for (index, frame) in frames.iter().enumerate().rev() {
        let family = family.of_frame(frame);
        if !is_own(frame) {
            if rules::is_entry(family, frame) {
                break;
            }
            is_innermost &= stack_rules::is_ignored(frame);
        } else if is_generated(frame) {
            generated = generated.or(Some((index, is_innermost)));
        } else {
            return Some(make(family, frames, index, is_innermost));
        }
    }
    generated.map(|(index, is_innermost)| make(family, frames, index, is_innermost))
}

/// The user's functions with their places, the one nearest to the failure first; recursion folds.
pub(super) fn own_functions<'a>(
    family: Family,
    frames: &'a [Frame],
) -> impl Iterator<Item = String> + 'a {
    let frames = failing_end(family, frames);
    let own = (0..frames.len())
        .rev()
        .filter(|index| is_own(&frames[*index]) && !is_generated(&frames[*index]));
    own.filter_map(move |index| {
        let (Function { place, name, .. }, _) = function(family, frames, index);
        match (name.is_empty(), place.is_empty()) {
            (true, _) => None,
            (false, true) => Some(name.into_owned()),
            (false, false) => Some(format!("{name} ({place})")),
        }
    })
}

/// The function through which a stack overflowed: of those that repeat, the first by name,
/// because the overflow can hit any of them.
pub(super) fn recursive<'a>(family: Family, frames: &'a [Frame]) -> Option<Function<'a>> {
    const REPEATS_MIN: usize = 3;
    let mut functions: Vec<Function<'a>> = frames
        .iter()
        .rev()
        .take(FRAMES_MAX)
        .filter(|frame| is_own(frame))
        .filter_map(|frame| match function_name(family.of_frame(frame), frame) {
            Name::Written(name) => Some(Function {
                place: place_of(family, frame),
                receiver: "",
                name,
            }),
            _ => None,
        })
        .collect();
    functions.sort();
    functions
        .chunk_by(|a, b| a == b)
        .find(|run| run.len() >= REPEATS_MIN)
        .map(|run| run[0].clone())
}

/// The innermost frame of a library or framework that is not the bare runtime.
pub(super) fn framework_frame<'a>(family: Family, frames: &'a [Frame]) -> Option<Function<'a>> {
    failing_end(family, frames).iter().rev().find_map(|frame| {
        let family = family.of_frame(frame);
        let place = place(family, frame);
        match function_name(family, frame) {
            Name::Written(name) if !place.is_empty() => Some(Function {
                place,
                receiver: "",
                name,
            }),
            _ => None,
        }
    })
}

/// Cuts what the runtime ran after the error was raised: panic machinery and hooks.
fn failing_end(family: Family, frames: &[Frame]) -> &[Frame] {
    let frames = &frames[frames.len().saturating_sub(FRAMES_MAX)..];
    if family != Family::Rust {
        return frames;
    }
    let raised = frames.iter().position(|frame| {
        let function = frame.function.as_deref().unwrap_or_default();
        PANIC_STARTS.iter().any(|start| function.starts_with(start))
    });
    &frames[..raised.unwrap_or(frames.len())]
}

/// Functions of the standard library that begin a panic.
const PANIC_STARTS: &[&str] = &[
    "__rustc::rust_begin_unwind",
    "core::option::expect_failed",
    "core::option::unwrap_failed",
    "core::panicking::",
    "core::result::unwrap_failed",
    "rust_begin_unwind",
    "std::panicking::begin_panic",
    "std::panicking::panic_handler",
    "std::panicking::panic_with_hook",
    "std::panicking::rust_panic",
];

fn make<'a>(family: Family, frames: &'a [Frame], index: usize, is_innermost: bool) -> Site<'a> {
    let frame = &frames[index];
    let (function, is_named) = function(family, frames, index);
    let (caller, caller_frame, cycle) = caller(family, frames, index, &function);
    let lacks_receiver = receiver(family.of_frame(frame), frame) == Receiver::Unknown;
    Site {
        function,
        is_named,
        lacks_receiver,
        frame,
        is_innermost,
        caller,
        caller_frame,
        cycle,
    }
}

/// The function of a frame; closures fold into the function around them.
fn function<'a>(family: Family, frames: &'a [Frame], index: usize) -> (Function<'a>, bool) {
    let frame = &frames[index];
    let family = family.of_frame(frame);
    let place = place_of(family, frame);
    let receiver = match receiver(family, frame) {
        Receiver::Type(ty) => ty,
        Receiver::Free | Receiver::Unknown => "",
    };
    let name = match function_name(family, frame) {
        Name::Written(name) => Some(name),
        // With a source map the line is right even where the name is not.
        Name::Minified | Name::Anonymous => parent(family, frames, index, &place),
    };
    // In a bundle a name alone says too little: many modules have a `get`.
    let is_named = name.is_some() && !place.is_empty();
    (
        Function {
            place,
            receiver,
            name: name.unwrap_or_default(),
        },
        is_named,
    )
}

/// The named function around a closure: one that is active in the same file, and the one whose
/// line is nearest. A function far from the closure only calls it.
fn parent<'a>(
    family: Family,
    frames: &'a [Frame],
    index: usize,
    place: &str,
) -> Option<Cow<'a, str>> {
    const DISTANCE_MAX: u64 = 10;
    if place.is_empty() {
        return None;
    }
    // Without source there is nothing better than the nearest one.
    let distance_max = if family == Family::Rust {
        u64::MAX
    } else {
        DISTANCE_MAX
    };
    let line = frames[index].lineno.unwrap_or_default();
    let mut best: Option<(u64, Cow<'a, str>)> = None;
    for frame in frames[..index].iter().rev().filter(|frame| is_own(frame)) {
        if place_of(family, frame) != place {
            continue;
        }
        if let Name::Written(name) = function_name(family, frame) {
            let distance = frame.lineno.unwrap_or_default().abs_diff(line);
            if distance <= distance_max
                && (family != Family::Js || may_enclose(frame, &name, line))
                && best.as_ref().is_none_or(|(nearest, _)| distance < *nearest)
            {
                best = Some((distance, name));
            }
        }
    }
    best.map(|(_, name)| name)
}

/// Says whether a function may enclose the line, by the source around its own line: a function
/// that only calls the closure ends before it or begins after it.
fn may_enclose(frame: &Frame, name: &str, line: u64) -> bool {
    let (Some(own), Some(at)) = (frame.context_line.as_deref(), frame.lineno) else {
        return true;
    };
    // How many blocks are open after each line between the two, and the least of it.
    let least = |lines: &mut dyn Iterator<Item = &str>| {
        let (mut open, mut least) = (0i32, 0i32);
        for byte in lines.flat_map(str::bytes) {
            match byte {
                b'{' => open += 1,
                b'}' => open -= 1,
                _ => {}
            }
            least = least.min(open);
        }
        least
    };
    let distance = usize::try_from(at.abs_diff(line)).unwrap_or(usize::MAX);
    if line >= at {
        let between = frame.post_context.iter().map(|line| &**line);
        let mut lines = [own].into_iter().chain(between).take(distance);
        return distance <= frame.post_context.len() && least(&mut lines) >= 0;
    }
    let Some(from) = frame.pre_context.len().checked_sub(distance) else {
        return false;
    };
    let between = &frame.pre_context[from..];
    let begins = |line: &str| {
        let is_name = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
        (line.trim_end().ends_with('{') || line.contains("=>"))
            && is_name.into_iter().any(|word| word == name)
    };
    // The closure ends before the call, the function around it does not.
    !between.iter().any(|line| begins(line)) && least(&mut between.iter().map(|line| &**line)) >= -1
}

/// Walks outward over the recursion through `function` to the first other caller.
fn caller<'a>(
    family: Family,
    frames: &'a [Frame],
    index: usize,
    own: &Function<'a>,
) -> (Option<Function<'a>>, Option<&'a Frame>, Vec<Function<'a>>) {
    let outer = frames[..index]
        .iter()
        .enumerate()
        .rev()
        .take_while(|(_, frame)| is_own(frame) || !rules::is_entry(family.of_frame(frame), frame))
        .filter(|(_, frame)| is_own(frame) && !is_generated(frame))
        .map(|(at, frame)| (function(family, frames, at).0, frame));
    let mut cycle: Vec<Function<'a>> = Vec::new();
    let mut since: Vec<(Function<'a>, &Frame)> = Vec::new();
    for (function, frame) in outer {
        // Functions without a name are the same only at the same line.
        let is_same = if function.name.is_empty() {
            function == *own && frame.lineno == frames[index].lineno
        } else {
            function == *own || cycle.contains(&function)
        };
        if is_same {
            cycle.extend(since.drain(..).map(|(function, _)| function));
        } else {
            since.push((function, frame));
        }
    }
    match since.into_iter().next() {
        Some((function, frame)) => (Some(function), Some(frame), cycle),
        None => (None, None, cycle),
    }
}

/// The place of a frame, unless a bundler put many modules into one file.
fn place_of<'a>(family: Family, frame: &'a Frame) -> Cow<'a, str> {
    if is_bundled(frame) {
        "".into()
    } else {
        place(family.of_frame(frame), frame)
    }
}

/// Says whether a frame stands in a minified file: one long line holds everything.
pub(super) fn is_bundled(frame: &Frame) -> bool {
    const LINE_MAX: u64 = 20;
    const COLUMN_MIN: u64 = 300;
    frame.lineno.is_some_and(|line| line <= LINE_MAX)
        && frame.colno.is_some_and(|column| column >= COLUMN_MIN)
}

/// Says whether a frame is the user's own code and no rule took it out of grouping.
fn is_own(frame: &Frame) -> bool {
    frame.in_app == Some(true) && !stack_rules::is_ignored(frame)
}

/// Says whether a frame's code was made at run time: `<string>`, `<rule-12>`, `(eval at …)`.
fn is_generated(frame: &Frame) -> bool {
    let path = frame
        .filename
        .as_deref()
        .or(frame.abs_path.as_deref())
        .unwrap_or_default();
    (path.starts_with('<') && path.ends_with('>')) || path.starts_with("(eval")
}
