//! Printing captures, and the truth to compare them with.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use backstop_capture::{Limits, Policy, Redaction, snapshot};

static OUTPUT: Mutex<()> = Mutex::new(());
static CAPTURES: AtomicU32 = AtomicU32::new(0);

/// Captures on every panic.
pub fn install() {
    backstop_capture::warm_up();
    std::panic::set_hook(Box::new(|_| capture()));
}

/// Where the debugger stops; `extern` and not mangled so that it is found by name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn corpus_mark() {
    std::hint::black_box(());
}

/// Takes the stack here and prints it.
#[inline(never)]
pub fn capture() {
    corpus_mark();
    let policy = Policy {
        redaction: Redaction::none(),
        limits: Limits {
            raw_bytes: 64,
            depth: 12,
            items: 64,
            nodes: 4000,
            per_place_per_second: 1000,
            time: std::time::Duration::from_secs(60),
            ..Limits::default()
        },
        ..Policy::default()
    };
    let taken = snapshot(&policy);
    let _output = OUTPUT
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let number = CAPTURES.fetch_add(1, Ordering::Relaxed);
    for (at, frame) in taken.resolve().iter().enumerate() {
        println!(
            "FRAME\t{number}\t{at}\t{}\t{}\t{}\t{}\t{}",
            frame.function.as_deref().unwrap_or("?"),
            frame.line.unwrap_or(0),
            frame.in_app,
            frame.inlined,
            frame.is_async,
        );
        for variable in &frame.vars {
            let raw: String = variable
                .raw
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            println!(
                "VAR\t{number}\t{at}\t{}\t{}\t{}\t{:?}\t{:?}\t{raw}\t{}",
                variable.name,
                variable.line.unwrap_or(0),
                variable.shadowed,
                variable.state,
                variable.origin,
                variable.value.to_string().replace('\n', "\\n"),
            );
        }
    }
}

/// Notes the text of variables of the function it stands in.
#[cfg(feature = "witness")]
#[macro_export]
macro_rules! truth {
    ($function:literal: $($name:ident),* $(,)?) => {
        $( println!("TRUTH\t{}\t{}\t{}", $function, stringify!($name), format!("{:?}", $name).replace('\n', "\\n")); )*
    };
}

/// Notes the text of variables that are shown otherwise than by `{:?}` on purpose.
#[cfg(feature = "witness")]
#[macro_export]
macro_rules! truth_as {
    ($function:literal: $($name:ident = $text:expr),* $(,)?) => {
        $( println!("TRUTH\t{}\t{}\t{}", $function, stringify!($name), $text); )*
    };
}

/// Notes nothing.
#[cfg(not(feature = "witness"))]
#[macro_export]
macro_rules! truth_as {
    ($function:literal: $($name:ident = $text:expr),* $(,)?) => {};
}

/// JSON with the spaces that `{:?}` writes between the parts of a value.
#[cfg(feature = "witness")]
pub fn json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", join(items.iter().map(json).collect())),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key:?}: {}", json(value)));
            format!("{{{}}}", join(entries.collect()))
        }
        other => other.to_string(),
    }
}

/// Notes nothing: the variables are as the program leaves them.
#[cfg(not(feature = "witness"))]
#[macro_export]
macro_rules! truth {
    ($function:literal: $($name:ident),* $(,)?) => {};
}

/// Notes that variables have no value any more.
#[macro_export]
macro_rules! gone {
    ($function:literal: $($name:ident),* $(,)?) => {
        if cfg!(feature = "witness") {
            $( println!("GONE\t{}\t{}", $function, stringify!($name)); )*
        }
    };
}
