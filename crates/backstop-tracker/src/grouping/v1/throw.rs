//! Hashes of an exception that the user's own code raised.

use std::sync::{Mutex, MutexGuard, PoisonError};

use backstop_protocol::Event;

use super::super::learn::{Learned, number};
use super::super::name::Family;
use super::super::site::{Function, Site};
use super::super::statement::{Statement, plain_line};
use super::super::value::literal_words;
use super::super::{Part, rules};
use super::facts::Facts;
use super::keys::Keys;
use super::said::{Said, article, site_reason};
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
    let with_caller = |caller| base(receiver).chain([("caller", caller)]);
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
    add_text(
        Part::Words,
        &scope,
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
    let types = ("types", facts.all_types.as_str());
    let Function { place, name, .. } = &site.function;
    let place = ("module or file", &**place);
    let line = site_line(site);
    if let (Some(line), Some((caller_place, caller_line))) = (&line, caller_line(site)) {
        let is_caller_named = site
            .caller
            .as_ref()
            .is_some_and(|caller| !caller.name.is_empty());
        let texts = [
            types,
            place,
            ("source line", line),
            ("caller's module or file", caller_place),
            ("caller's source line", &caller_line),
        ];
        let is_named = site.is_named && is_caller_named;
        keys.add_meeting(Part::Line, is_named, "called line", &texts);
    }
    if is_helper {
        return;
    }
    let is_named = site.is_named;
    if let Some(line) = &line {
        let texts = [types, place, ("source line", line)];
        keys.add_meeting(Part::Line, is_named, "line", &texts);
    }
    let is_own_text = facts.operation.is_empty();
    let template = if is_own_text {
        facts.template.as_str()
    } else {
        ""
    };
    let [operation, subject, template] = [
        ("operation", facts.operation),
        ("name in it", facts.subject),
        ("message", template),
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
