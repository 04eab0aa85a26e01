//! Version 1 of the algorithm.
//!
//! 1. A fingerprint that does not ask for the default decides alone.
//! 2. An exception with the user's own code in its stack: the types of the chain and the
//!    function that raised the innermost exception; for runtime errors which operation failed;
//!    for others the words of the message that stand in the raising statement.
//! 3. An exception without: the framework's frame, the message's template, the transaction.
//! 4. An exception without a stack: types and the message's template.
//! 5. A message: its template.

use std::borrow::Cow;
use std::sync::Mutex;

use backstop_protocol::{Event, Exception, Frame};

use super::chain::{Chain, types};
use super::kind::kind;
use super::learn::{self, Learned};
use super::name::Family;
use super::site::{self, Function, Site};
use super::statement::{Statement, plain_line};
use super::value::{cut, literal_words, template};
use super::{GroupHash, GroupKey, Grouping, Part};

const VERSION: u16 = 1;

/// Titles are headlines.
const TITLE_BYTES_MAX: usize = 200;

/// Groups one event.
pub(super) fn group(event: &Event, learned: &Mutex<Learned>) -> Grouping {
    let family = Family::of(event.platform.as_deref());
    let mut keys = Keys::default();
    let said = match Chain::of(family, event) {
        _ if fingerprint(event).is_some() => {
            keys.add(
                Part::Fingerprint,
                true,
                true,
                fingerprint(event).into_iter().flatten(),
            );
            Said::new(
                event,
                None,
                "events with the fingerprint that the sender gave".into(),
            )
        }
        chain if !chain.line.is_empty() && !is_message(&chain) => {
            exception(family, event, &chain, learned, &mut keys)
        }
        _ => message(event, &mut keys),
    };
    Grouping {
        version: VERSION,
        keys: keys.0,
        title: said.title,
        culprit: said.culprit,
        reason: said.reason,
    }
}

/// The sender's fingerprint, unless it asks for the default.
fn fingerprint(event: &Event) -> Option<impl Iterator<Item = &str>> {
    let given = &event.fingerprint;
    let is_default = given.iter().any(|value| {
        let inner = value
            .trim()
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"));
        inner.is_some_and(|inner| inner.trim() == "default")
    });
    (!given.is_empty() && !is_default).then(|| given.iter().map(String::as_str))
}

/// A message that carries a stack arrives as an exception without a type of its own.
fn is_message(chain: &Chain<'_>) -> bool {
    chain.line.iter().all(|exception| {
        let is_synthetic = exception.mechanism.as_ref().and_then(|m| m.synthetic) == Some(true);
        is_synthetic || exception.ty.as_deref().unwrap_or_default().is_empty()
    })
}

/// The hashes of an event, in the order in which they were added.
#[derive(Default)]
struct Keys(Vec<GroupKey>);

impl Keys {
    fn add<'t>(
        &mut self,
        part: Part,
        find: bool,
        keep: bool,
        texts: impl IntoIterator<Item = &'t str>,
    ) {
        let hash = GroupHash::of(VERSION, texts);
        match self.0.iter_mut().find(|key| key.hash == hash) {
            Some(key) => {
                key.find |= find;
                key.keep |= keep;
            }
            None => self.0.push(GroupKey {
                hash,
                part,
                find,
                keep,
            }),
        }
    }
}

/// What people read about a group.
struct Said {
    title: String,
    culprit: String,
    reason: String,
}

impl Said {
    fn new(event: &Event, function: Option<&Function<'_>>, reason: String) -> Said {
        let culprit = match function {
            Some(function) if function.place.is_empty() => function.name.to_string(),
            Some(function) => format!("{} in {}", function.name, function.place),
            None => event
                .transaction
                .clone()
                .or(event.culprit.clone())
                .unwrap_or_default(),
        };
        Said {
            title: title(event),
            culprit,
            reason,
        }
    }
}

fn title(event: &Event) -> String {
    let first_line =
        |text: &str| cut(text.lines().next().unwrap_or_default(), TITLE_BYTES_MAX).to_owned();
    match event.exception.last() {
        Some(Exception {
            ty: Some(ty),
            value,
            ..
        }) => match value.as_deref() {
            None | Some("") => first_line(ty),
            Some(value) => first_line(&format!("{ty}: {value}")),
        },
        _ => first_line(message_text(event).1),
    }
}

/// What an exception says besides its type, and where it says it.
struct Facts<'a> {
    types: Vec<String>,
    /// Which operation failed, and the name it failed on; for errors of the runtime.
    operation: &'static str,
    subject: &'a str,
    /// The words of the message that the raising statement holds.
    words: String,
    /// Whether the statement could be asked at all.
    has_witness: bool,
    /// The message's template.
    template: String,
    site: Option<Site<'a>>,
    /// The innermost exception.
    cause: &'a Exception,
}

fn facts<'a>(family: Family, line: &[&'a Exception]) -> Facts<'a> {
    let cause = line[line.len() - 1];
    let value = cause.value.as_deref().unwrap_or_default();
    let kind = kind(cause.ty.as_deref().unwrap_or_default(), value);
    let site = line
        .iter()
        .rev()
        .find_map(|exception| site::site(family, frames(exception)));
    let operation = kind.as_ref().map_or("", |kind| kind.operation);
    let site_statement = site.as_ref().and_then(|site| Statement::of(site.frame));
    let subject = kind.and_then(|kind| kind.name);
    let subject = subject.filter(|name| is_in_source(family, site_statement.as_ref(), name));
    let is_raised_here = site.as_ref().is_some_and(|site| site.is_innermost);
    let (words, has_witness) = match &site_statement {
        Some(statement) if operation.is_empty() && is_raised_here && statement.raises() => {
            (statement.literal_words(value), true)
        }
        _ => (String::new(), false),
    };
    Facts {
        types: types(line),
        operation,
        subject: subject.unwrap_or_default(),
        words,
        has_witness: has_witness || !operation.is_empty(),
        template: template(value),
        site,
        cause,
    }
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

fn frames(exception: &Exception) -> &[Frame] {
    exception
        .stacktrace
        .as_ref()
        .map(|stack| stack.frames.as_slice())
        .unwrap_or_default()
}

fn exception(
    family: Family,
    event: &Event,
    chain: &Chain<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let mut line = chain.line.clone();
    if !chain.members.is_empty() {
        let members = distinct_members(family, chain);
        if members.len() > 1 {
            let types = types(&line);
            let texts = types
                .iter()
                .chain(members.iter().flatten())
                .map(String::as_str);
            keys.add(
                Part::Members,
                true,
                true,
                ["members"].into_iter().chain(texts),
            );
            return Said::new(
                event,
                None,
                format!(
                    "events with an {} of the same {} different exceptions",
                    types.join(" of "),
                    members.len()
                ),
            );
        }
        line.extend(&chain.members[0]);
    }
    let mut facts = facts(family, &line);
    if facts.operation == "too deep"
        && let Some(function) = site::recursive(family, frames(facts.cause))
        && let Some(site) = &mut facts.site
    {
        site.function = function;
        site.is_named = true;
    }
    match &facts.site {
        Some(site) if site.is_named => named_site(event, &facts, site, learned, keys),
        Some(site) => nameless_site(event, &facts, site, keys),
        None => no_site(family, event, &line, &facts, keys),
    }
}

/// What identifies each member of a group of exceptions, without repetitions and order.
fn distinct_members(family: Family, chain: &Chain<'_>) -> Vec<Vec<String>> {
    let mut members: Vec<Vec<String>> = chain
        .members
        .iter()
        .map(|line| {
            let facts = facts(family, line);
            let mut texts = facts.types;
            texts.extend([facts.operation.into(), facts.subject.into(), facts.words]);
            match facts.site {
                Some(site) => texts.extend([
                    site.function.place.into_owned(),
                    site.function.name.into_owned(),
                ]),
                None => texts.push(facts.template),
            }
            texts
        })
        .collect();
    members.sort();
    members.dedup();
    members
}

/// The function that raised can be named: the usual case.
fn named_site(
    event: &Event,
    facts: &Facts<'_>,
    site: &Site<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let types = facts.types.join("\n");
    let Function { place, name } = &site.function;
    let base = [
        &types,
        facts.operation,
        facts.subject,
        &facts.words,
        place,
        name,
    ];
    let caller = site
        .caller
        .as_ref()
        .map(|caller| caller_identity(event, site, caller));
    let with_caller = |caller| ["caller"].into_iter().chain(base).chain([caller]);
    let is_helper = caller
        .as_deref()
        .is_some_and(|caller| is_helper(facts, site, caller, learned));
    if let Some(caller) = caller.as_deref().filter(|_| is_helper) {
        keys.add(Part::Caller, true, true, with_caller(caller));
    } else {
        keys.add(Part::Site, true, true, ["site"].into_iter().chain(base));
        if let Some(caller) = &caller {
            keys.add(Part::Caller, false, true, with_caller(caller));
        }
        // Where no statement told which words are written, any group of the function will do.
        let bare = ["bare", &types, facts.operation, facts.subject, place, name];
        keys.add(Part::BareSite, !facts.has_witness, true, bare);
        secondary(event, facts, site, true, keys);
    }
    let caller = site.caller.as_ref().filter(|_| is_helper);
    Said::new(
        event,
        Some(&site.function),
        site_reason(facts, &site.function, caller),
    )
}

/// A caller counts for a function that was written to raise for others.
fn is_helper(facts: &Facts<'_>, site: &Site<'_>, caller: &str, learned: &Mutex<Learned>) -> bool {
    /// Two callers in other modules are a helper's, three in the same module.
    const FOREIGN_CALLERS_MIN: usize = 2;
    const OWN_CALLERS_MIN: usize = 3;
    let raises = match Statement::of(site.frame) {
        Some(statement) => statement.raises(),
        None => facts.operation.is_empty(),
    };
    if !raises || !site.is_innermost {
        return false;
    }
    let is_own = site
        .caller
        .as_ref()
        .is_some_and(|caller| caller.place == site.function.place);
    let callers_min = if is_own {
        OWN_CALLERS_MIN
    } else {
        FOREIGN_CALLERS_MIN
    };
    let Function { place, name } = &site.function;
    let site = short(["site", &facts.types.join("\n"), place, name]);
    learn::note(learned, site, short([caller]), callers_min)
}

/// The caller's name; for a nameless caller its source line, else the transaction.
fn caller_identity(event: &Event, site: &Site<'_>, caller: &Function<'_>) -> String {
    if !caller.name.is_empty() {
        return format!("{}\n{}", caller.place, caller.name);
    }
    let line = site.caller_frame.and_then(plain_line);
    line.unwrap_or_else(|| transaction(event).into_owned())
}

fn short<'t>(texts: impl IntoIterator<Item = &'t str>) -> u64 {
    let GroupHash(bytes) = GroupHash::of(VERSION, texts);
    u64::from_le_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

/// A closure at top level, or a name that a minifier invented.
fn nameless_site(event: &Event, facts: &Facts<'_>, site: &Site<'_>, keys: &mut Keys) -> Said {
    let types = facts.types.join("\n");
    let transaction = transaction(event);
    let Function { place, name } = &site.function;
    keys.add(
        Part::Words,
        true,
        true,
        [
            "nameless",
            &types,
            facts.operation,
            facts.subject,
            place,
            name,
            &facts.template,
            &transaction,
        ],
    );
    secondary(event, facts, site, false, keys);
    Said::new(
        event,
        None,
        format!(
            "{} raised in a function without a name{}, with this message and transaction",
            article(&facts.types),
            if place.is_empty() {
                String::new()
            } else {
                format!(" in {place}")
            },
        ),
    )
}

/// Hashes by which an event whose function has no stable name meets the others.
///
/// A named function keeps them for nameless ones and looks only for what nameless ones kept:
/// two named functions never meet here.
fn secondary(event: &Event, facts: &Facts<'_>, site: &Site<'_>, is_named: bool, keys: &mut Keys) {
    let types = facts.types.join("\n");
    let transaction = transaction(event);
    let Function { place, name } = &site.function;
    let mut add = |part, texts: &[&str]| {
        keys.add(
            part,
            !is_named,
            is_named,
            ["of named"].into_iter().chain(texts.iter().copied()),
        );
        keys.add(
            part,
            true,
            !is_named,
            ["of nameless"].into_iter().chain(texts.iter().copied()),
        );
    };
    if let Some(line) = plain_line(site.frame).filter(|_| !place.is_empty()) {
        add(Part::Line, &["line", &types, place, &line]);
    }
    if !name.is_empty() {
        add(
            Part::Name,
            &["name", &types, facts.operation, facts.subject, name],
        );
    }
    let is_telling = facts.operation.is_empty() && literal_words(&facts.template) >= 2;
    if !transaction.is_empty() || is_telling {
        let template = if facts.operation.is_empty() {
            &facts.template
        } else {
            ""
        };
        add(
            Part::Words,
            &[
                "words",
                &types,
                facts.operation,
                facts.subject,
                template,
                &transaction,
            ],
        );
    }
}

/// None of the user's code is in the stack, or there is no stack.
fn no_site(
    family: Family,
    event: &Event,
    line: &[&Exception],
    facts: &Facts<'_>,
    keys: &mut Keys,
) -> Said {
    let types = facts.types.join("\n");
    let frame = line
        .iter()
        .rev()
        .find_map(|exception| site::framework_frame(family, frames(exception)));
    let what = article(&facts.types);
    let Some(frame) = frame else {
        let outer = line[0]
            .value
            .as_deref()
            .filter(|_| line.len() > 1 && is_generic(&facts.types[0]));
        let outer = outer.map(template).unwrap_or_default();
        keys.add(
            Part::Message,
            true,
            true,
            ["value", &types, &facts.template, &outer],
        );
        return Said::new(
            event,
            None,
            format!(
                "{what} without a stack trace, with the message “{}”",
                facts.template
            ),
        );
    };
    let transaction = transaction(event);
    let package = frame
        .place
        .split(['.', '/', ':'])
        .next()
        .unwrap_or_default();
    keys.add(
        Part::Framework,
        true,
        true,
        [
            "framework",
            &types,
            facts.operation,
            &facts.template,
            package,
            &transaction,
        ],
    );
    let reason = format!(
        "{what} raised by {package} with none of your code on the stack, with this message and transaction"
    );
    Said::new(
        event,
        Some(&frame).filter(|_| transaction.is_empty()),
        reason,
    )
}

/// Types that say nothing about the failure.
fn is_generic(ty: &str) -> bool {
    matches!(ty, "" | "Error" | "Exception" | "RuntimeError" | "panic")
}

/// The transaction without the ids in its path.
fn transaction(event: &Event) -> Cow<'_, str> {
    let name = event.transaction.as_deref().unwrap_or_default();
    let name = name.split('?').next().unwrap_or_default();
    if !name.contains(|c: char| c.is_ascii_digit()) {
        return Cow::Borrowed(name);
    }
    let parts: Vec<&str> = name
        .split('/')
        .map(|part| {
            if part.contains(|c: char| c.is_ascii_digit()) {
                "*"
            } else {
                part
            }
        })
        .collect();
    Cow::Owned(parts.join("/"))
}

/// A message without an exception.
fn message(event: &Event, keys: &mut Keys) -> Said {
    let (has_template, text) = message_text(event);
    let template = if has_template {
        text.to_owned()
    } else {
        template(text)
    };
    let logger = event.logger.as_deref().unwrap_or_default();
    if template.is_empty() {
        keys.add(Part::Nothing, true, true, ["nothing", logger]);
        return Said::new(
            event,
            None,
            "events that carry neither an exception nor a message".into(),
        );
    }
    keys.add(Part::Message, true, true, ["message", logger, &template]);
    Said::new(
        event,
        None,
        format!("events with the message “{template}”, whatever the values in it"),
    )
}

/// The message's template if the sender gave one, else its text.
fn message_text(event: &Event) -> (bool, &str) {
    let legacy = event.other.get("message").and_then(|value| value.as_str());
    let synthetic = event
        .exception
        .last()
        .and_then(|exception| exception.value.as_deref());
    match &event.message {
        Some(message) => {
            let raw = message.message.as_deref();
            let formatted = message.formatted.as_deref();
            let is_template = raw.is_some() && formatted.is_some() && raw != formatted;
            (is_template, raw.or(formatted).unwrap_or_default())
        }
        None => (false, legacy.or(synthetic).unwrap_or_default()),
    }
}

fn article(types: &[String]) -> String {
    match types {
        [] => "errors".into(),
        [one] if one.is_empty() => "errors".into(),
        [one] => format!("every {one}"),
        [outer, inner @ ..] => format!("every {outer} caused by {}", inner.join(" caused by ")),
    }
}

fn site_reason(
    facts: &Facts<'_>,
    function: &Function<'_>,
    caller: Option<&Function<'_>>,
) -> String {
    let mut reason = article(&facts.types);
    if !facts.operation.is_empty() {
        reason.push_str(&format!(" ({}", facts.operation));
        if !facts.subject.is_empty() {
            reason.push_str(&format!(" “{}”", facts.subject));
        }
        reason.push(')');
    }
    reason.push_str(&format!(" raised in {}", function.name));
    if !function.place.is_empty() {
        reason.push_str(&format!(" ({})", function.place));
    }
    if !facts.words.is_empty() {
        reason.push_str(&format!(" with the words “{}”", facts.words));
    }
    if let Some(caller) = caller {
        reason.push_str(&format!(
            " when called by {}, because that function raises for several callers",
            if caller.name.is_empty() {
                "a function without a name"
            } else {
                &caller.name
            }
        ));
    }
    reason
}
