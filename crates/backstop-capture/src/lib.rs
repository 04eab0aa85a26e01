//! The stack of a running Rust program with its local variables, in process, from DWARF.
//!
//! [`snapshot`] is called where something fails, [`Snapshot::resolve`] afterwards where there is time.
//! What comes out is plain data: frames, and variables whose values are trees.
//! No value is guessed: each variable has a [`State`] that says how far it can be trusted.
//!
//! # Example
//!
//! ```
//! use backstop_capture::{Policy, snapshot};
//!
//! let answer = 42;
//! let frames = snapshot(&Policy::default()).resolve();
//! for frame in &frames {
//!     println!("{:?} {:?}:{:?}", frame.function, frame.file, frame.line);
//!     for variable in &frame.vars {
//!         println!("    {} = {}", variable.name, variable.value);
//!     }
//! }
//! # let _ = answer;
//! ```
//!
//! # Reading order
//!
//! [`Policy`] and [`Limits`] say what is taken, [`Redaction`] what is never copied,
//! [`Frame`] and [`Variable`] what comes out, [`Value`] and [`State`] what a value is.
//! [`doctor`] says at start what this build can show; [`warm_up`] makes the first capture fast.
//!
//! # What it can and cannot do
//!
//! | | dev build | release with `debug = "full"` |
//! | --- | --- | --- |
//! | functions, files, lines, inlined calls | yes | yes; a call can lose its line where the optimiser merged several exits of a function |
//! | frames of crates without debug information, libraries of the distribution | names | names |
//! | variables of plain functions | all in scope | those the optimiser left somewhere; the others say "optimised out" |
//! | variables of async functions that live across an `.await` | yes | yes, from the future itself |
//! | arguments and values whose register a callee overwrote | recovered where the code before the call proves them, else said so | the same |
//! | arguments of inlined calls that were optimised out | | no |
//! | moved or dropped owning values | marked, by what unwinding would drop | marked; more than need be |
//! | variables that the compiler describes wrongly | | shown as described, as a debugger does; see below |
//! | stack slots of an earlier poll of a future | marked as stale | marked as stale |
//! | anything with `panic = "abort"` | owning values are all marked | owning values are all marked |
//! | values of the standard library, `bytes`, `chrono`, `http`, `indexmap`, `jiff`, `serde_json`, `smallvec`, `tokio`'s locks, `url`, `uuid` | as `{:?}` writes them, JSON as JSON; spans and signed durations of `jiff` by their fields, its zoned times without the zone's name | the same |
//! | values of other types | by their fields, whatever their `Debug` writes | by their fields |
//! | trait objects of types without debug information | no | no |
//! | secrets, by name, type and content | hidden | hidden |
//!
//! Optimised code can be described wrongly: a register that already has the next value, a
//! store that was put off until after the call, or one instance of a generic function that was
//! merged with another one. Nothing in the debug information tells, so such
//! a value looks like any other. `docs/capture.md` of the repository counts them on a corpus of
//! programs, build by build, and says what a capture costs.
//!
//! The debug information may be in the program, in a `.dwp` package beside it, behind a
//! `.gnu_debuglink`, or in a build-id directory ([`debug_directory`]); DWARF 4 or 5, compressed
//! or not. With line tables only there are names and
//! lines, with a symbol table only names, else addresses.
//!
//! Source lines come from the program itself ([`embed_sources`]) or from the files, and
//! [`is_stale`] tells, with DWARF 5, that a file is not what was compiled.
//!
//! Variables are read on x86-64 Linux. Elsewhere the stack is taken without variables, and
//! each frame that should have had some says so.
//!
//! In a dev build the crates `backstop-capture`, `gimli` and `object` are worth
//! `opt-level = 3` under `[profile.dev.package.…]`: the first capture then takes much less time.

mod directories;
mod doctor;
mod embed;
mod frame;
mod limits;
mod md5;
mod policy;
mod rate;
mod redaction;
mod snapshot;
mod source;
mod value;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "linux/mod.rs"]
mod platform;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "other.rs"]
mod platform;

pub use directories::debug_directory;
pub use doctor::{Ability, Doctor};
pub use embed::{embed_sources, source_text, use_sources};
pub use frame::{Frame, Kind, Origin, Package, Role, Variable, VarsMissing};
pub use limits::Limits;
pub use policy::{InApp, Policy, Values};
pub use redaction::Redaction;
pub use snapshot::{Snapshot, snapshot};
pub use source::{Source, is_stale, source};
pub use value::{State, Value};

/// Opens the program's debug information, so that the first capture does not have to.
///
/// Takes up to a tenth of a second; call it once, on a thread of its own, at start.
pub fn warm_up() {
    snapshot::guarded(platform::warm_up);
}

/// Says what this build can show, and what to change to see more.
pub fn doctor() -> Doctor {
    let busy = || Doctor::new(Ability::Addresses, "asked from inside a capture");
    snapshot::guarded(platform::doctor).unwrap_or_else(busy)
}
