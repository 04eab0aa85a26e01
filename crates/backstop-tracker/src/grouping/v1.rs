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
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::{Event, Exception, Frame, Stacktrace, Thread};
use serde_json::Value;

use super::chain::{Chain, types};
use super::fingerprint::{Fingerprint, FingerprintRule, fingerprint};
use super::kind::kind;
use super::learn::{Learned, number};
use super::message::{learned_template, open_templates, proven_template};
use super::name::Family;
use super::rules;
use super::site::{self, Function, Site};
use super::statement::{Statement, plain_line};
use super::value::{cut, literal_words};
use super::{GroupHash, GroupKey, Grouping, Part};

const VERSION: u16 = 1;

/// Titles are headlines.
const TITLE_BYTES_MAX: usize = 200;

/// Groups one event.
pub(super) fn group(
    event: &Event,
    rules: &[FingerprintRule],
    learned: &Mutex<Learned>,
) -> Grouping {
    let fingerprint = fingerprint(event, rules);
    let mut keys = Keys::default();
    let mut said = match &fingerprint {
        Some(fingerprint) if !fingerprint.has_default => explicit(event, fingerprint, &mut keys),
        _ => {
            let values = fingerprint
                .iter()
                .flat_map(|fingerprint| &fingerprint.values);
            keys.salt = values.map(|value| value.to_string()).collect();
            default(event, learned, &mut keys)
        }
    };
    if let Some(fingerprint) = fingerprint {
        said.title = fingerprint.title.unwrap_or(said.title);
        if fingerprint.has_default {
            said.reason
                .push_str(&format!("; {}", asked_by(fingerprint.rule, &keys.salt)));
        }
    }
    Grouping {
        version: VERSION,
        keys: keys.keys,
        title: said.title,
        culprit: said.culprit,
        reason: said.reason,
    }
}

/// The grouping that holds unless somebody asked for another one.
fn default(event: &Event, learned: &Mutex<Learned>, keys: &mut Keys) -> Said {
    let family = Family::of(event.platform.as_deref());
    let chain = Chain::of(family, event);
    if let Some(checksum) = event.other.get("checksum").and_then(Value::as_str) {
        keys.add(Part::Fingerprint, true, true, ["checksum", checksum]);
        return Said::new(
            event,
            None,
            "events with the checksum that the sender gave".into(),
        );
    }
    if !chain.line.is_empty() && !is_message(&chain) {
        return exception(family, event, &chain, learned, keys);
    }
    if let Some(said) = report(event, keys) {
        return said;
    }
    if message_text(event).1.is_empty()
        && let Some(stack) = bare_stack(event)
    {
        let pseudo = Exception {
            stacktrace: Some(stack.clone()),
            ..Exception::default()
        };
        let chain = Chain {
            line: vec![&pseudo],
            members: Vec::new(),
        };
        return exception(family, event, &chain, learned, keys);
    }
    message(event, learned, keys)
}

/// A fingerprint without the default decides alone.
fn explicit(event: &Event, fingerprint: &Fingerprint<'_>, keys: &mut Keys) -> Said {
    let values = fingerprint.values.iter().map(|value| &**value);
    keys.add(
        Part::Fingerprint,
        true,
        true,
        ["fingerprint"].into_iter().chain(values),
    );
    Said::new(event, None, asked_by(fingerprint.rule, &fingerprint.values))
}

fn asked_by<T: AsRef<str>>(rule: Option<&str>, values: &[T]) -> String {
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    let values = values.join(", ");
    match rule {
        Some(rule) => format!("events with the fingerprint “{values}”, given by the rule “{rule}”"),
        None => format!("events with the fingerprint “{values}” that the sender gave"),
    }
}

/// A stack without an exception: the event's own, or that of the thread that failed or reported.
fn bare_stack(event: &Event) -> Option<&Stacktrace> {
    let thread = |is_wanted: fn(&Thread) -> bool| {
        let mut wanted = event.threads.iter().filter(|thread| is_wanted(thread));
        wanted.next().filter(|_| wanted.next().is_none())
    };
    let thread = thread(|thread| thread.crashed == Some(true))
        .or_else(|| thread(|thread| thread.current == Some(true)))
        .or_else(|| thread(|_| true));
    event
        .stacktrace
        .as_ref()
        .or_else(|| thread.and_then(|thread| thread.stacktrace.as_ref()))
}

/// Reports that are neither an exception nor a message: a browser's policy report, a template.
fn report(event: &Event, keys: &mut Keys) -> Option<Said> {
    if let Some(csp) = event.other.get("csp") {
        let text = |key: &str| csp.get(key).and_then(Value::as_str).unwrap_or_default();
        let directive = match text("effective_directive") {
            "" => text("violated_directive")
                .split(' ')
                .next()
                .unwrap_or_default(),
            directive => directive,
        };
        let blocked = blocked_origin(text("blocked_uri"));
        keys.add(Part::Report, true, true, ["csp", directive, blocked]);
        let reason = format!("policy reports about {directive} and {blocked}");
        return Some(Said::new(event, None, reason));
    }
    let template = event.template.as_ref()?;
    let text = |key: &str| {
        template
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let file = if text("filename").is_empty() {
        text("abs_path")
    } else {
        text("filename")
    };
    keys.add(Part::Report, true, true, ["template", file]);
    Some(Said::new(
        event,
        None,
        format!("failures of the template {file}"),
    ))
}

/// The host that a policy blocked; without one the keyword (`inline`, `eval`, `data`).
fn blocked_origin(uri: &str) -> &str {
    match uri.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', ':']).next().unwrap_or_default(),
        None => uri.split(':').next().unwrap_or_default(),
    }
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
struct Keys {
    /// What a fingerprint adds to every hash.
    salt: Vec<String>,
    keys: Vec<GroupKey>,
}

impl Keys {
    fn add<'t>(
        &mut self,
        part: Part,
        find: bool,
        keep: bool,
        texts: impl IntoIterator<Item = &'t str>,
    ) {
        let hash = GroupHash::of(VERSION, &self.salt, texts);
        self.add_hash(part, find, keep, hash);
    }

    fn add_hash(&mut self, part: Part, find: bool, keep: bool, hash: GroupHash) {
        match self.keys.iter_mut().find(|key| key.hash == hash) {
            Some(key) => {
                key.find |= find;
                key.keep |= keep;
            }
            None => self.keys.push(GroupKey {
                version: VERSION,
                hash,
                part,
                find,
                keep,
            }),
        }
    }
}

impl Keys {
    /// Adds a hash under which nameless functions meet each other and the named ones that keep
    /// it for them.
    fn add_meeting(&mut self, part: Part, is_named: bool, texts: &[&str]) {
        let of_named = GroupHash::of(VERSION, &self.salt, texts.iter().copied());
        self.add_hash(part, !is_named, is_named, of_named);
        self.add_hash(part, true, !is_named, of_named.twin());
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

fn facts<'a>(family: Family, event: &Event, line: &[&'a Exception]) -> Facts<'a> {
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
    let subject = subject
        .filter(|name| is_in_source(family, site_statement.as_ref(), name))
        .or_else(|| concrete_class(cause, site.as_ref()?));
    let is_raised_here = site.as_ref().is_some_and(|site| site.is_innermost);
    let raising = site
        .as_ref()
        .filter(|_| is_raised_here)
        .map(|site| site.frame);
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
        template: proven_template(event, value, raising),
        site,
        cause,
    }
}

/// A method that is not implemented is missing in the object's class, not where it was raised.
fn concrete_class<'a>(exception: &Exception, site: &Site<'a>) -> Option<&'a str> {
    if exception.ty.as_deref() != Some("NotImplementedError") {
        return None;
    }
    // Python's client sends objects as `<shop.export.Csv object at 0x7f…>`.
    let object = site.frame.vars.get("self")?.as_str()?.strip_prefix('<')?;
    object.split_once(" object at ").map(|(class, _)| class)
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
        let members = distinct_members(family, event, chain);
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
    let mut facts = facts(family, event, &line);
    if facts.operation == "too deep"
        && let Some(function) = site::recursive(family, frames(facts.cause))
        && let Some(site) = &mut facts.site
    {
        site.function = function;
        site.is_named = true;
    }
    match &facts.site {
        Some(site) if site.is_named => named_site(family, event, &facts, site, learned, keys),
        Some(site) => nameless_site(event, &facts, site, learned, keys),
        None => no_site(family, event, &line, &facts, learned, keys),
    }
}

/// What identifies each member of a group of exceptions, without repetitions and order.
fn distinct_members(family: Family, event: &Event, chain: &Chain<'_>) -> Vec<Vec<String>> {
    let mut members: Vec<Vec<String>> = chain
        .members
        .iter()
        .map(|line| {
            let facts = facts(family, event, line);
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
    family: Family,
    event: &Event,
    facts: &Facts<'_>,
    site: &Site<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let mut learned = lock(learned);
    let former = former_place(family, event, &site.function.place, &mut learned);
    let caller = site.caller.as_ref();
    let mut is_helper = false;
    // A renamed package is the same place: its hashes go under both names.
    for place in former.as_deref().into_iter().chain([&*site.function.place]) {
        let caller = caller.map(|caller| {
            let former = former.as_ref().filter(|_| place != site.function.place);
            let caller_place =
                former.and_then(|_| former_place(family, event, &caller.place, &mut learned));
            caller_identity(event, site, caller, caller_place.as_deref())
        });
        is_helper |= caller
            .as_deref()
            .is_some_and(|caller| is_helper_of(facts, site, place, caller, &mut learned));
        add_site(facts, site, place, caller.as_deref(), is_helper, keys);
    }
    // The same about the source lines, for builds in which the function has no name.
    is_helper_by_line(facts, site, &mut learned);
    drop(learned);
    secondary(event, facts, site, is_helper, keys);
    let caller = site.caller.as_ref().filter(|_| is_helper);
    Said::new(
        event,
        Some(&site.function),
        site_reason(facts, &site.function, caller),
    )
}

/// Adds the hashes of a function that has a name.
fn add_site(
    facts: &Facts<'_>,
    site: &Site<'_>,
    place: &str,
    caller: Option<&str>,
    is_helper: bool,
    keys: &mut Keys,
) {
    let types = facts.types.join("\n");
    let Function { receiver, name, .. } = &site.function;
    let base = |receiver| {
        [
            &types,
            facts.operation,
            facts.subject,
            &facts.words,
            place,
            receiver,
            name,
        ]
    };
    let with_caller = |caller| ["caller"].into_iter().chain(base(receiver)).chain([caller]);
    if let Some(caller) = caller.filter(|_| is_helper) {
        keys.add(Part::Caller, true, true, with_caller(caller));
        return;
    }
    keys.add(
        Part::Site,
        true,
        true,
        ["site"].into_iter().chain(base(receiver)),
    );
    if let Some(caller) = caller {
        keys.add(Part::Caller, false, true, with_caller(caller));
    }
    // An inlined function does not tell its type and meets whatever method has its name.
    if !receiver.is_empty() {
        keys.add(
            Part::Site,
            true,
            false,
            ["site"].into_iter().chain(base("")),
        );
    }
    if !receiver.is_empty() || site.lacks_receiver {
        let method = ["method"].into_iter().chain(base(""));
        keys.add(
            Part::BareSite,
            site.lacks_receiver,
            !receiver.is_empty(),
            method,
        );
    }
    // Where no statement told which words are written, any group of the function will do.
    let bare = [
        "bare",
        &types,
        facts.operation,
        facts.subject,
        place,
        receiver,
        name,
    ];
    keys.add(Part::BareSite, !facts.has_witness, true, bare);
}

/// The place as it was called before its top level package was renamed.
fn former_place(
    family: Family,
    event: &Event,
    place: &str,
    learned: &mut Learned,
) -> Option<String> {
    let release = event
        .release
        .as_deref()
        .filter(|release| !release.is_empty())?;
    if matches!(
        family,
        Family::Rust | Family::Js | Family::Ruby | Family::Other
    ) {
        return None;
    }
    let (top, rest) = place.split_once(['.', '\\'])?;
    let former = learned.note_package(top, number([release]))?;
    Some(format!(
        "{former}{}{rest}",
        &place[top.len()..top.len() + 1]
    ))
}

/// A caller counts for a function that was written to raise for others.
fn is_helper_of(
    facts: &Facts<'_>,
    site: &Site<'_>,
    place: &str,
    caller: &str,
    learned: &mut Learned,
) -> bool {
    if caller.is_empty() {
        return false;
    }
    let Function { receiver, name, .. } = &site.function;
    let types = facts.types.iter().map(String::as_str);
    let key = number(types.chain([&*facts.words, place, receiver, name]));
    callers_min(facts, site).is_some_and(|callers_min| {
        rules::is_helper(name) || learned.note_caller(key, number([caller]), callers_min)
    })
}

/// How many callers show that a function raises for everybody; `None` if it cannot be one,
/// because it failed by itself.
fn callers_min(facts: &Facts<'_>, site: &Site<'_>) -> Option<usize> {
    /// Callers in other modules, if the function raises on purpose before our eyes.
    const PROVEN_CALLERS_MIN: usize = 2;
    /// Without the source, or in one module, it takes more.
    const CALLERS_MIN: usize = 3;
    let statement = Statement::of(site.frame);
    let raises = match &statement {
        Some(statement) => statement.raises(),
        None => facts.operation.is_empty(),
    };
    if !raises || !site.is_innermost {
        return None;
    }
    let is_own = site
        .caller
        .as_ref()
        .is_some_and(|caller| caller.place == site.function.place);
    let is_proven = statement.is_some() && !is_own;
    Some(if is_proven {
        PROVEN_CALLERS_MIN
    } else {
        CALLERS_MIN
    })
}

/// The caller's name; for a nameless caller its source line, else nothing.
fn caller_identity(
    event: &Event,
    site: &Site<'_>,
    caller: &Function<'_>,
    place: Option<&str>,
) -> String {
    let place = place.unwrap_or(&caller.place);
    if !caller.name.is_empty() && !place.is_empty() {
        return format!("{place}\n{}\n{}", caller.receiver, caller.name);
    }
    let line = site.caller_frame.and_then(plain_line);
    line.or_else(|| reliable_transaction(event).map(str::to_owned))
        .unwrap_or_default()
}

fn lock(learned: &Mutex<Learned>) -> MutexGuard<'_, Learned> {
    // A thread that panicked leaves nothing half done in there.
    learned.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A closure at top level, or a name that a minifier invented.
fn nameless_site(
    event: &Event,
    facts: &Facts<'_>,
    site: &Site<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let types = facts.types.join("\n");
    let transaction = transaction(event);
    let Function { place, name, .. } = &site.function;
    let failure = [
        &types,
        facts.operation,
        facts.subject,
        place,
        name,
        &transaction,
    ]
    .join("\n");
    let scope = ["nameless", &failure];
    let is_certain = !facts.operation.is_empty();
    add_text(
        Part::Words,
        scope,
        &facts.template,
        is_certain,
        learned,
        keys,
    );
    let is_helper = is_helper_by_line(facts, site, &mut lock(learned));
    secondary(event, facts, site, is_helper, keys);
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

/// Hashes by which an event whose function or caller has no stable name meets the others.
///
/// A named function keeps them for nameless ones and looks only for what nameless ones kept:
/// two named functions never meet here.
fn secondary(event: &Event, facts: &Facts<'_>, site: &Site<'_>, is_helper: bool, keys: &mut Keys) {
    let types = facts.types.join("\n");
    let Function { place, name, .. } = &site.function;
    let line = site_line(site);
    if let (Some(line), Some((caller_place, caller_line))) = (&line, caller_line(site)) {
        let is_caller_named = site
            .caller
            .as_ref()
            .is_some_and(|caller| !caller.name.is_empty());
        let texts = [
            "called line",
            &types,
            place,
            line,
            caller_place,
            &caller_line,
        ];
        keys.add_meeting(Part::Line, site.is_named && is_caller_named, &texts);
    }
    if is_helper {
        return;
    }
    let is_named = site.is_named;
    if let Some(line) = &line {
        keys.add_meeting(Part::Line, is_named, &["line", &types, place, line]);
    }
    let is_own_text = facts.operation.is_empty();
    let template = if is_own_text {
        facts.template.as_str()
    } else {
        ""
    };
    let failure = [&types, facts.operation, facts.subject, template];
    if !name.is_empty() {
        let [types, operation, subject, template] = failure;
        keys.add_meeting(
            Part::Name,
            is_named,
            &["name", types, operation, subject, template, name],
        );
    }
    let transaction = transaction(event);
    let is_telling = is_own_text && literal_words(template) >= 2;
    if !transaction.is_empty() || is_telling {
        let [types, operation, subject, template] = failure;
        let texts = ["words", types, operation, subject, template, &transaction];
        keys.add_meeting(Part::Words, is_named, &texts);
    }
}

/// The raising source line, if it and its file can be told.
fn site_line(site: &Site<'_>) -> Option<String> {
    plain_line(site.frame).filter(|_| !site.function.place.is_empty())
}

/// The calling source line and its file, if they can be told.
fn caller_line<'s>(site: &'s Site<'_>) -> Option<(&'s str, String)> {
    let place = &*site.caller.as_ref()?.place;
    let line = plain_line(site.caller_frame?).filter(|_| !place.is_empty())?;
    Some((place, line))
}

/// [`is_helper_of`] by source lines.
fn is_helper_by_line(facts: &Facts<'_>, site: &Site<'_>, learned: &mut Learned) -> bool {
    let (Some(line), Some((caller_place, caller_line))) = (site_line(site), caller_line(site))
    else {
        return false;
    };
    let types = facts.types.iter().map(String::as_str);
    let key = number(types.chain(["line", &*site.function.place, &line]));
    callers_min(facts, site).is_some_and(|callers_min| {
        learned.note_caller(key, number([caller_place, &caller_line]), callers_min)
    })
}

/// None of the user's code is in the stack, or there is no stack.
fn no_site(
    family: Family,
    event: &Event,
    line: &[&Exception],
    facts: &Facts<'_>,
    learned: &Mutex<Learned>,
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
        let outer = outer
            .map(|text| proven_template(event, text, None))
            .unwrap_or_default();
        let scope = ["value", &format!("{types}\n{}\n{outer}", facts.operation)];
        let shown = add_text(Part::Message, scope, &facts.template, false, learned, keys);
        let reason = format!("{what} without a stack trace, with the message “{shown}”");
        return Said::new(event, None, reason);
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

/// The transaction, if the sender says that it is a route or a name and not a path with values.
fn reliable_transaction(event: &Event) -> Option<&str> {
    let source = event
        .other
        .get("transaction_info")
        .and_then(|info| info.get("source"));
    let source = source.and_then(|source| source.as_str());
    let is_reliable = matches!(
        source,
        Some("route" | "component" | "view" | "task" | "custom")
    );
    event.transaction.as_deref().filter(|_| is_reliable)
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
fn message(event: &Event, learned: &Mutex<Learned>, keys: &mut Keys) -> Said {
    let (has_template, text) = message_text(event);
    let logger = event.logger.as_deref().unwrap_or_default();
    if text.is_empty() {
        keys.add(Part::Nothing, true, true, ["nothing", logger]);
        return Said::new(
            event,
            None,
            "events that carry neither an exception nor a message".into(),
        );
    }
    let template = if has_template {
        text.to_owned()
    } else {
        proven_template(event, text, logging_frame(event))
    };
    let shown = add_text(
        Part::Message,
        ["message", logger],
        &template,
        has_template,
        learned,
        keys,
    );
    Said::new(
        event,
        None,
        format!("events with the message “{shown}”, whatever the values in it"),
    )
}

/// Adds the hashes of a text that stands alone, and returns the template that decides.
fn add_text(
    part: Part,
    scope: [&str; 2],
    template: &str,
    is_certain: bool,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> String {
    keys.add(part, true, true, scope.into_iter().chain([template]));
    if is_certain {
        return template.to_owned();
    }
    let open = open_templates(template);
    let found = learned_template(&mut lock(learned), &scope.join("\n"), &open);
    for (index, (open, _)) in open.iter().enumerate() {
        let texts = scope.into_iter().chain(["open", open]);
        keys.add(part, found == Some(index), true, texts);
    }
    found.map_or_else(|| template.to_owned(), |index| open[index].0.clone())
}

/// The frame that logged a message with a stack: the user's innermost one.
fn logging_frame(event: &Event) -> Option<&Frame> {
    let stack = event
        .exception
        .last()
        .and_then(|exception| exception.stacktrace.as_ref());
    let stack = stack.or(event.stacktrace.as_ref())?;
    stack
        .frames
        .iter()
        .rev()
        .find(|frame| frame.in_app == Some(true))
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
            let has_params = match &message.params {
                Some(Value::Array(params)) => !params.is_empty(),
                Some(Value::Object(params)) => !params.is_empty(),
                _ => false,
            };
            let is_filled_in = formatted.is_some() && raw != formatted;
            let is_template = raw.is_some() && (is_filled_in || has_params);
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
