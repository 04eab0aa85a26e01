//! Grouping: which events are the same problem.
//!
//! An event goes in, its group hashes come out: first the *primary* hash, which is made of what
//! identifies a bug (the types of its exceptions and the function that raised it), then further
//! hashes by which later events of the same bug are found when that function cannot be named.
//! Nothing here does I/O; [`Grouper`] owns what was learned about one project, bounded.
//!
//! A caller asks the store for the first hash to [`Grouping::find`] that belongs to an issue,
//! makes a new issue if none does, and keeps the hashes to [`Grouping::keep`] with that issue.
//!
//! A released version never changes: `v1` is frozen once it has been released, a better idea
//! becomes `v2`, and every stored hash carries the version that made it.

mod chain;
pub mod command;
mod fingerprint;
pub mod hint;
mod kind;
mod learn;
mod matcher;
mod message;
mod name;
mod part;
pub mod replay;
mod rules;
mod settings;
mod site;
mod stack_rules;
mod statement;
mod v1;
mod value;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use backstop_protocol::{Event, Frame, Stacktrace, Timestamp, in_app};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use fingerprint::FingerprintRule;
use learn::Learned;
pub use part::{Ingredient, Part};
pub use settings::GroupingSettings;
use stack_rules::StackRule;

/// The version of the algorithm that new hashes are made with.
pub const VERSION: u16 = 1;

/// Hashes of a project that are known to be explained: some 400 KB. Beyond it they are explained
/// once more, which costs as much as grouping.
const EXPLAINED_MAX: usize = 16_384;

type Algorithm = fn(&Event, &Wish<'_>) -> Grouping;

/// What an algorithm is given beside the event.
struct Wish<'w> {
    rules: &'w [FingerprintRule],
    learned: &'w Mutex<Learned>,
    /// Whether to write down what each hash was made from.
    explains: bool,
}

/// Every version that was ever released, so that stored hashes keep their meaning.
const ALGORITHMS: &[(u16, Algorithm)] = &[
    #[cfg(test)]
    (0, tests::by_title),
    (1, v1::group),
];

fn algorithm(version: u16) -> Result<Algorithm, UnknownVersion> {
    let known = ALGORITHMS.iter().find(|(known, _)| *known == version);
    known
        .map(|(_, algorithm)| *algorithm)
        .ok_or(UnknownVersion(version))
}

/// There is no such version of the algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVersion(u16);

/// The digest of what identifies a group, under one version of the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupHash([u8; 16]);

/// A group hash was not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseGroupHashError(());

/// One hash of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKey {
    /// The version of the algorithm that made the hash.
    pub version: u16,
    /// The hash.
    pub hash: GroupHash,
    /// What it was made from.
    pub part: Part,
    /// Whether an issue that owns the hash is this event's issue.
    pub find: bool,
    /// Whether the event's issue owns the hash from now on, unless another one does.
    pub keep: bool,
    /// What it was made from, if that was asked for; see [`Grouper::explain`].
    pub made_of: Vec<Ingredient>,
}

/// The group of an event and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// The version of the algorithm.
    pub version: u16,
    /// The hashes, in the order in which an issue is looked for; the primary one first.
    pub keys: Vec<GroupKey>,
    /// The headline: type and first line of the message.
    pub title: String,
    /// Where it failed: a function, else the transaction; may be empty.
    pub culprit: String,
    /// Why events are in this group, in a sentence for people.
    pub reason: String,
}

impl Grouping {
    /// Returns the hash that stands for the group.
    pub fn primary(&self) -> GroupHash {
        self.keys.first().map_or(GroupHash([0; 16]), |key| key.hash)
    }

    /// Returns the hashes by which the event's issue is looked for, best first.
    pub fn find(&self) -> impl Iterator<Item = GroupHash> {
        self.keys.iter().filter(|key| key.find).map(|key| key.hash)
    }

    /// Returns the hashes that the event's issue owns from now on.
    pub fn keep(&self) -> impl Iterator<Item = GroupHash> {
        self.keys.iter().filter(|key| key.keep).map(|key| key.hash)
    }
}

/// What a project's owners ordered about grouping, in Sentry's syntax.
///
/// # Example
///
/// ```
/// use backstop_tracker::grouping::Rules;
///
/// let rules = Rules::parse(
///     "type:DatabaseError message:\"*too many connections*\" -> database-full",
///     "path:**/vendor/** -app",
/// );
/// assert!(rules.is_ok());
/// let error = Rules::parse("type:DatabaseError", "").unwrap_err();
/// assert_eq!(error.to_string(), "line 1, column 19: expected \"->\"");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    fingerprints: Vec<FingerprintRule>,
    stacks: Vec<StackRule>,
}

/// A line of rules cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The line, from 1.
    pub line: usize,
    /// The character of the line at which it stops to be a rule, from 1.
    pub column: usize,
    message: String,
}

impl Rules {
    /// Reads fingerprint rules and stack-trace rules, one a line.
    ///
    /// # Errors
    ///
    /// The first line that is no rule, with what was expected there.
    pub fn parse(fingerprints: &str, stacks: &str) -> Result<Rules, RuleError> {
        Ok(Rules {
            fingerprints: fingerprint::parse(fingerprints)?,
            stacks: stack_rules::parse(stacks)?,
        })
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleError {
            line,
            column,
            message,
        } = self;
        write!(f, "line {line}, column {column}: {message}")
    }
}

impl std::error::Error for RuleError {}

/// Groups the events of one project.
///
/// Shared between threads; what it learns (functions that raise for everybody) is bounded and
/// can be stored with [`Grouper::learned`] and [`Grouper::restore`].
#[derive(Debug)]
pub struct Grouper {
    algorithm: Algorithm,
    previous: Option<Algorithm>,
    rules: Rules,
    learned: Mutex<Learned>,
    explained: Mutex<HashSet<GroupHash>>,
    /// The settings that this grouper was made by, and when a transition in them ends.
    settings: String,
    until: Option<Timestamp>,
}

impl Default for Grouper {
    fn default() -> Grouper {
        Grouper {
            algorithm: v1::group,
            previous: None,
            rules: Rules::default(),
            learned: Mutex::default(),
            explained: Mutex::default(),
            settings: String::new(),
            until: None,
        }
    }
}

impl Grouper {
    /// Makes a grouper that has learned nothing yet.
    pub fn new() -> Grouper {
        Grouper::default()
    }

    /// Makes a grouper of what [`Grouper::learned`] returned.
    /// Anything else counts as nothing learned: that costs accuracy for a while, never an event.
    pub fn restore(learned: &[u8]) -> Grouper {
        let learned = serde_json::from_slice(learned).unwrap_or_else(|error| {
            if !learned.is_empty() {
                tracing::error!(%error, "what grouping had learned cannot be read and is learned anew");
            }
            Default::default()
        });
        Grouper {
            learned: Mutex::new(learned),
            ..Grouper::default()
        }
    }

    /// Returns what was learned, to be stored; `None` if nothing was since the last call.
    pub fn learned(&self) -> Option<Vec<u8>> {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned
            .take_changed()
            .then(|| serde_json::to_vec(&*learned).unwrap_or_default())
    }

    /// Groups with another version of the algorithm than [`VERSION`].
    ///
    /// # Errors
    ///
    /// If there is no such version.
    pub fn with_version(mut self, version: u16) -> Result<Grouper, UnknownVersion> {
        self.algorithm = algorithm(version)?;
        Ok(self)
    }

    /// Looks for issues by the hashes of an older version as well, after its own.
    ///
    /// This is the transition after a change of the version: an issue that was made under the
    /// old one takes the new hashes when its next event comes, instead of being made again.
    ///
    /// # Errors
    ///
    /// If there is no such version.
    pub fn with_previous(mut self, version: u16) -> Result<Grouper, UnknownVersion> {
        self.previous = Some(algorithm(version)?);
        Ok(self)
    }

    /// Replaces the project's rules.
    pub fn with_rules(mut self, rules: Rules) -> Grouper {
        self.rules = rules;
        self
    }

    /// Decides for every frame whether it is the user's own code, as [`normalise`] does, and
    /// applies the project's stack-trace rules.
    pub fn normalise(&self, event: &mut Event) {
        recompute_in_app(event);
        stack_rules::apply(event, &self.rules.stacks);
    }

    /// Returns the group of an event that was normalised.
    pub fn group(&self, event: &Event) -> Grouping {
        self.run(event, false)
    }

    /// Returns the group of an event that was normalised, and what each hash was made from.
    pub fn explain(&self, event: &Event) -> Grouping {
        self.run(event, true)
    }

    /// Returns the group of an event that was normalised; what hashes were made from is told only
    /// where one of them is new, because the store writes it down once.
    pub fn group_for_store(&self, event: &Event) -> Grouping {
        let grouping = self.group(event);
        let mut explained = self
            .explained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if grouping.keep().all(|hash| explained.contains(&hash)) {
            return grouping;
        }
        if explained.len() >= EXPLAINED_MAX {
            explained.clear();
        }
        explained.extend(grouping.keep());
        drop(explained);
        self.explain(event)
    }

    fn run(&self, event: &Event, explains: bool) -> Grouping {
        let wish = Wish {
            rules: &self.rules.fingerprints,
            learned: &self.learned,
            explains,
        };
        let run = |algorithm: Algorithm| algorithm(event, &wish);
        let mut grouping = run(self.algorithm);
        if let Some(previous) = self.previous {
            let older = run(previous).keys.into_iter().filter(|key| key.find);
            grouping
                .keys
                .extend(older.map(|key| GroupKey { keep: false, ..key }));
        }
        grouping
    }
}

/// Decides for every frame whether it is the user's own code, before an event is stored.
///
/// What the sender said is kept as `orig_in_app` in the frame's `data` where it differs
/// (1, 0, or -1 for nothing, as Sentry writes it).
pub fn normalise(event: &mut Event) {
    recompute_in_app(event);
    stack_rules::apply(event, &[]);
}

fn recompute_in_app(event: &mut Event) {
    let platform = event.platform.take();
    let stacks = event
        .exception
        .iter_mut()
        .filter_map(|exception| exception.stacktrace.as_mut())
        .chain(
            event
                .threads
                .iter_mut()
                .filter_map(|thread| thread.stacktrace.as_mut()),
        )
        .chain(event.stacktrace.as_mut());
    for stack in stacks {
        normalise_stack(platform.as_deref(), stack);
    }
    event.platform = platform;
}

fn normalise_stack(platform: Option<&str>, stack: &mut Stacktrace) {
    stack.frames.iter_mut().for_each(take_back);
    let says_own = stack.frames.iter().any(|frame| frame.in_app == Some(true));
    for frame in &mut stack.frames {
        let verdict = match in_app(platform, frame) {
            Some(verdict) => verdict,
            None if says_own => frame.in_app.unwrap_or(false),
            // A sender that calls nothing its own does not know (raven and programs run as a script).
            None => true,
        };
        set_in_app(frame, verdict);
    }
}

/// Sets the flag and notes beside the frame what the sender said.
fn set_in_app(frame: &mut Frame, verdict: bool) {
    if frame.in_app == Some(verdict) {
        return;
    }
    let before = frame.in_app.map_or(-1, i32::from);
    frame.in_app = Some(verdict);
    // A second change must not overwrite what the sender said.
    match &mut frame.data {
        Some(Value::Object(data)) => {
            data.entry("orig_in_app").or_insert_with(|| json!(before));
        }
        Some(_) => {}
        None => frame.data = Some(json!({ "orig_in_app": before })),
    }
}

/// Takes back what an earlier pass decided, so that a stored event can be grouped anew.
fn take_back(frame: &mut Frame) {
    let Some(Value::Object(data)) = &mut frame.data else {
        return;
    };
    data.remove("grouping");
    data.remove("category");
    if let Some(before) = data.remove("orig_in_app") {
        frame.in_app = match before.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        };
    }
    if data.is_empty() {
        frame.data = None;
    }
}

impl GroupHash {
    /// Makes a hash of its bytes, as stored.
    pub const fn from_bytes(bytes: [u8; 16]) -> GroupHash {
        GroupHash(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The hash of the same texts in another role: it costs less than hashing them again.
    fn twin(mut self) -> GroupHash {
        self.0[15] ^= 1;
        self
    }

    /// Hashes a fingerprint and a list of texts; no two lists give the same input.
    fn of<'t>(
        version: u16,
        fingerprint: &[String],
        texts: impl IntoIterator<Item = &'t str>,
    ) -> GroupHash {
        // In one piece: many small pieces cost more than the copy.
        let mut whole = Vec::with_capacity(512);
        let mut add = |text: &str| {
            whole.extend_from_slice(&(text.len() as u64).to_le_bytes());
            whole.extend_from_slice(text.as_bytes());
        };
        fingerprint.iter().for_each(|value| add(value));
        texts.into_iter().for_each(add);
        whole.extend_from_slice(&version.to_le_bytes());
        let digest = Sha256::digest(&whole);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        GroupHash(bytes)
    }
}

impl fmt::Display for GroupHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for GroupHash {
    type Err = ParseGroupHashError;

    fn from_str(text: &str) -> Result<GroupHash, ParseGroupHashError> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseGroupHashError(()));
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16)
                .map_err(|_| ParseGroupHashError(()))?;
        }
        Ok(GroupHash(bytes))
    }
}

impl fmt::Display for ParseGroupHashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group hash has 32 hex digits")
    }
}

impl std::error::Error for ParseGroupHashError {}

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<String> = ALGORITHMS
            .iter()
            .map(|(known, _)| known.to_string())
            .collect();
        write!(
            f,
            "no grouping version {}; there is {}",
            self.0,
            known.join(", ")
        )
    }
}

impl std::error::Error for UnknownVersion {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the simplest trackers do, as the older version in a transition.
    pub(super) fn by_title(event: &Event, _: &Wish<'_>) -> Grouping {
        let ty = event
            .exception
            .last()
            .and_then(|exception| exception.ty.as_deref());
        let key = GroupKey {
            version: 0,
            hash: GroupHash::of(0, &[], [ty.unwrap_or_default()]),
            part: Part::Message,
            find: true,
            keep: true,
            made_of: Vec::new(),
        };
        Grouping {
            version: 0,
            keys: vec![key],
            title: ty.unwrap_or_default().to_owned(),
            culprit: String::new(),
            reason: "every event of this type".to_owned(),
        }
    }

    fn event(function: &str) -> Event {
        let event = json!({"platform": "python", "exception": [{"type": "KeyError", "stacktrace": {
            "frames": [
                {"module": "shop", "function": function},
                {"module": "json", "function": "loads", "filename": "/usr/lib/python3/json.py"},
            ],
        }}]});
        Event::decode(event.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn flags_are_noted_and_taken_back() {
        let mut event = event("total");
        normalise(&mut event);
        let once = event.clone();
        normalise(&mut event);
        assert_eq!(event, once);
        let frames = &event.exception[0].stacktrace.as_ref().unwrap().frames;
        assert_eq!(
            (frames[0].in_app, frames[1].in_app),
            (Some(true), Some(false))
        );
        assert_eq!(frames[1].data, Some(json!({"orig_in_app": -1})));
        let rules = Rules::parse("", "function:loads +app").unwrap();
        Grouper::new().with_rules(rules).normalise(&mut event);
        let frames = &event.exception[0].stacktrace.as_ref().unwrap().frames;
        assert_eq!(frames[1].in_app, Some(true));
    }

    #[test]
    fn an_old_issue_takes_the_new_hashes() {
        let mut issues = command::Issues::default();
        let old = Grouper::new().with_version(0).unwrap();
        let issue = issues.assign(&old.group(&event("total")));
        let transition = Grouper::new().with_previous(0).unwrap();
        let mut event = event("total");
        normalise(&mut event);
        let grouping = transition.group(&event);
        assert_eq!(issues.assign(&grouping), issue);
        // The transition is over, and the issue is found by its new hashes.
        assert_eq!(issues.assign(&Grouper::new().group(&event)), issue);
        let error = Grouper::new().with_version(7).unwrap_err();
        assert_eq!(error.to_string(), "no grouping version 7; there is 0, 1");
    }

    #[test]
    fn what_was_learned_survives_a_restart() {
        let grouper = Grouper::new();
        assert_eq!(grouper.learned(), None);
        let mut event = event("total");
        event.release = Some("1".into());
        event.exception[0].stacktrace.as_mut().unwrap().frames[0].module = Some("a.b".into());
        normalise(&mut event);
        let before = grouper.group(&event);
        let learned = grouper.learned().unwrap();
        assert_eq!(Grouper::restore(&learned).group(&event), before);
        assert_eq!(Grouper::restore(b"nonsense").group(&event), before);
    }
}
