//! Hashes of an exception that the user's own code raised.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::Event;

use super::super::learn::{Learned, number};
use super::super::message::{has_one_word, learned_template, open_templates, position};
use super::super::name::Family;
use super::super::site::{Function, Site};
use super::super::statement::{Statement, plain_line};
use super::super::value::literal_words;
use super::super::{Part, rules};
use super::facts::Facts;
use super::keys::Keys;
use super::said::{Said, article, said_where, site_reason};
use super::text::{Scope, add_text, reliable_transaction, transaction};

/// The function that raised can be named: the usual case.
pub(super) fn named_site(
    family: Family,
    event: &Event,
    facts: &Facts<'_>,
    site: &Site<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let mut learned = lock(learned);
    let former = former_place(family, event, &site.function.place, &mut learned);
    let callers_min = callers_min(facts, site);
    // Who calls a function that fails by itself never counts.
    let caller = site.caller.as_ref().filter(|_| callers_min.is_some());
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
    let lines = Lines::of(site);
    // The same about the source lines, for builds in which the function has no name.
    is_helper_by_line(facts, site, &lines, &mut learned);
    secondary(event, facts, site, &lines, is_helper, &mut learned, keys);
    drop(learned);
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
    let Function { receiver, name, .. } = &site.function;
    let failure = [
        ("types", facts.all_types.as_str()),
        ("operation", facts.operation),
        ("name in it", facts.subject),
    ];
    let function = |receiver| {
        [
            ("module or file", place),
            ("method of", receiver),
            ("function", name),
        ]
    };
    let words = [("words it raised", facts.words.as_str())];
    let base = |receiver| {
        let failure = failure.into_iter().chain(words);
        failure.chain(function(receiver))
    };
    // A function that raises what it is told is told by its caller's statement.
    let told = match site.caller_frame.and_then(Statement::of) {
        Some(statement) if facts.operation.is_empty() => {
            statement.literal_words(facts.cause.value.as_deref().unwrap_or_default())
        }
        _ => String::new(),
    };
    let with_caller = |caller| {
        let caller = [("caller", caller), ("words of the caller", told.as_str())];
        base(receiver).chain(caller)
    };
    if let Some(caller) = caller.filter(|_| is_helper) {
        keys.add(Part::Caller, true, true, "caller", with_caller(caller));
        return;
    }
    keys.add(Part::Site, true, true, "site", base(receiver));
    if let Some(caller) = caller {
        keys.add(Part::Caller, false, true, "caller", with_caller(caller));
    }
    // An inlined function does not tell its type and meets whatever method has its name.
    if !receiver.is_empty() {
        keys.add(Part::Site, true, false, "site", base(""));
    }
    if !receiver.is_empty() || site.lacks_receiver {
        keys.add(
            Part::BareSite,
            site.lacks_receiver,
            !receiver.is_empty(),
            "method",
            base(""),
        );
    }
    // Where no statement told which words are written, any group of the function will do.
    let bare = failure.into_iter().chain(function(receiver));
    keys.add(Part::BareSite, !facts.has_witness, true, "bare", bare);
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
        let cycle = |function: &Function<'_>| number([&*identity_of(function, None)]);
        let cycle: Vec<u64> = site.cycle.iter().map(cycle).collect();
        rules::is_helper(name) || learned.note_caller(key, number([caller]), &cycle, callers_min)
    })
}

/// How many callers show that a function raises for everybody; `None` if it cannot be one,
/// because it failed by itself.
fn callers_min(facts: &Facts<'_>, site: &Site<'_>) -> Option<usize> {
    /// Callers of a function that raises on purpose before our eyes.
    const PROVEN_CALLERS_MIN: usize = 2;
    /// Without the source it takes more.
    const CALLERS_MIN: usize = 3;
    if !site.is_innermost {
        return None;
    }
    match facts.statement {
        Some(_) => facts.raises.then_some(PROVEN_CALLERS_MIN),
        None => facts.operation.is_empty().then_some(CALLERS_MIN),
    }
}

/// The caller's name; for a nameless caller its source line, else nothing.
fn caller_identity(
    event: &Event,
    site: &Site<'_>,
    caller: &Function<'_>,
    place: Option<&str>,
) -> String {
    if !caller.name.is_empty() && !place.unwrap_or(&caller.place).is_empty() {
        return identity_of(caller, place);
    }
    let line = site.caller_frame.and_then(plain_line);
    line.or_else(|| reliable_transaction(event).map(str::to_owned))
        .unwrap_or_default()
}

/// A function by its names; `place` is where it stood before its package was renamed.
fn identity_of(function: &Function<'_>, place: Option<&str>) -> String {
    let Function { receiver, name, .. } = function;
    let place = place.unwrap_or(&function.place);
    format!("{place}\n{receiver}\n{name}")
}

pub(super) fn lock(learned: &Mutex<Learned>) -> MutexGuard<'_, Learned> {
    // A thread that panicked leaves nothing half done in there.
    learned.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A closure at top level, or a name that a minifier invented.
pub(super) fn nameless_site(
    event: &Event,
    facts: &Facts<'_>,
    site: &Site<'_>,
    learned: &Mutex<Learned>,
    keys: &mut Keys,
) -> Said {
    let transaction = transaction(event);
    let Function { place, name, .. } = &site.function;
    let scope = Scope {
        role: "nameless",
        texts: [
            ("types", &facts.all_types),
            ("operation", facts.operation),
            ("name in it", facts.subject),
            ("module or file", place),
            ("function", name),
            ("transaction", &transaction),
        ],
    };
    let is_certain = !facts.operation.is_empty();
    let shown = add_text(
        Part::Words,
        &scope,
        &facts.template,
        is_certain,
        learned,
        keys,
    );
    let lines = Lines::of(site);
    let mut learned = lock(learned);
    let is_helper = is_helper_by_line(facts, site, &lines, &mut learned);
    secondary(event, facts, site, &lines, is_helper, &mut learned, keys);
    drop(learned);
    Said::new(
        event,
        None,
        format!(
            "{} raised in a function without a name{}{}",
            article(&facts.types),
            if place.is_empty() {
                String::new()
            } else {
                format!(" in {place}")
            },
            said_where(&shown, &transaction),
        ),
    )
}

/// Hashes by which an event whose function or caller has no stable name meets the others.
///
/// A named function keeps them for nameless ones and looks only for what nameless ones kept:
/// two named functions never meet here.
fn secondary(
    event: &Event,
    facts: &Facts<'_>,
    site: &Site<'_>,
    lines: &Lines<'_>,
    is_helper: bool,
    learned: &mut Learned,
    keys: &mut Keys,
) {
    let types = ("types", facts.all_types.as_str());
    let Function { place, name, .. } = &site.function;
    let place = ("module or file", &**place);
    let line = &lines.own;
    if let (Some(line), Some((caller_place, caller_line))) = (line, &lines.caller) {
        let is_caller_named = site
            .caller
            .as_ref()
            .is_some_and(|caller| !caller.name.is_empty());
        let texts = [
            types,
            place,
            ("source line", line),
            ("caller's module or file", caller_place),
            ("caller's source line", caller_line),
        ];
        let is_named = site.is_named && is_caller_named;
        keys.add_meeting(Part::Line, is_named, "called line", &texts);
    }
    if is_helper {
        return;
    }
    let is_named = site.is_named;
    if let Some(line) = line {
        let texts = [types, place, ("source line", line)];
        keys.add_meeting(Part::Line, is_named, "line", &texts);
    }
    let is_own_text = facts.operation.is_empty();
    let template = if is_own_text {
        template_for_meeting(facts, is_named, learned)
    } else {
        Cow::Borrowed("")
    };
    let [operation, subject, template] = [
        ("operation", facts.operation),
        ("name in it", facts.subject),
        ("message", &*template),
    ];
    if !name.is_empty() {
        let texts = [types, operation, subject, template, ("function", name)];
        keys.add_meeting(Part::Name, is_named, "name", &texts);
    }
    let transaction = transaction(event);
    let is_telling = is_own_text && literal_words(template.1) >= 2;
    if !transaction.is_empty() || is_telling {
        let transaction = ("transaction", &*transaction);
        let texts = [types, operation, subject, template, transaction];
        keys.add_meeting(Part::Words, is_named, "words", &texts);
    }
}

/// The message's template, with a word left open that another event of the project proved to be
/// data: a minified statement proves nothing.
fn template_for_meeting<'f>(
    facts: &'f Facts<'_>,
    is_named: bool,
    learned: &mut Learned,
) -> Cow<'f, str> {
    let scope = number(["meeting", facts.all_types.as_str()]);
    let template = facts.template.as_str();
    if has_one_word(template) {
        learned.note_data(position(scope, template));
    } else if !is_named {
        let open = open_templates(template);
        if let Some(index) = learned_template(learned, scope, &open) {
            return Cow::Owned(open[index].0.clone());
        }
    }
    Cow::Borrowed(template)
}

/// The raising and the calling source line, where they and their files can be told.
struct Lines<'s> {
    own: Option<String>,
    /// With the place of the caller.
    caller: Option<(&'s str, String)>,
}

impl<'s> Lines<'s> {
    fn of(site: &'s Site<'_>) -> Lines<'s> {
        let own = || plain_line(site.frame);
        let caller = || {
            let place = site.caller.as_ref().map(|caller| &*caller.place)?;
            let frame = site.caller_frame.filter(|_| !place.is_empty())?;
            Some((place, plain_line(frame)?))
        };
        let is_known = !site.function.place.is_empty();
        Lines {
            own: is_known.then(own).flatten(),
            caller: caller(),
        }
    }
}

/// [`is_helper_of`] by source lines.
fn is_helper_by_line(
    facts: &Facts<'_>,
    site: &Site<'_>,
    lines: &Lines<'_>,
    learned: &mut Learned,
) -> bool {
    let (Some(line), Some((caller_place, caller_line))) = (&lines.own, &lines.caller) else {
        return false;
    };
    let types = facts.types.iter().map(String::as_str);
    let key = number(types.chain(["line", &*site.function.place, line]));
    callers_min(facts, site).is_some_and(|callers_min| {
        learned.note_caller(key, number([*caller_place, caller_line]), &[], callers_min)
    })
}
