//! Version 1 of the algorithm.
//!
//! 1. A fingerprint that does not ask for the default decides alone.
//! 2. An exception with the user's own code in its stack: the types of the chain and the
//!    function that raised the innermost exception; for runtime errors which operation failed;
//!    for others the words of the message that stand in the raising statement.
//! 3. An exception without: the framework's frame, the message's template, the transaction.
//! 4. An exception without a stack: types and the message's template.
//! 5. A message: its template.

mod facts;
mod keys;
mod said;
mod text;
mod throw;

use std::sync::Mutex;

use backstop_protocol::{Event, Exception, Stacktrace, Thread};
use serde_json::Value;

use super::chain::{Chain, types};
use super::fingerprint::{Fingerprint, fingerprint};
use super::learn::Learned;
use super::name::Family;
use super::site;
use super::{Grouping, Part, Wish};
use facts::{facts, frames};
use keys::Keys;
use said::{Said, asked_by};

const VERSION: u16 = 1;

/// Groups one event.
pub(super) fn group(event: &Event, wish: &Wish<'_>) -> Grouping {
    let learned = wish.learned;
    let fingerprint = fingerprint(event, wish.rules);
    let mut keys = Keys {
        explains: wish.explains,
        ..Keys::default()
    };
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
        let texts = [("checksum", checksum)];
        keys.add(Part::Fingerprint, true, true, "checksum", texts);
        return Said::new(
            event,
            None,
            "events with the checksum that the sender gave".into(),
        );
    }
    if !chain.line.is_empty() && !is_message(&chain) {
        return exception(family, event, &chain, learned, keys);
    }
    if let Some(said) = text::report(event, keys) {
        return said;
    }
    if text::message_text(event).1.is_empty()
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
    text::message(event, learned, keys)
}

/// A fingerprint without the default decides alone.
fn explicit(event: &Event, fingerprint: &Fingerprint<'_>, keys: &mut Keys) -> Said {
    let values = fingerprint.values.iter();
    let values = values.map(|value| ("fingerprint", &**value));
    keys.add(Part::Fingerprint, true, true, "fingerprint", values);
    Said::new(event, None, asked_by(fingerprint.rule, &fingerprint.values))
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

/// A message that carries a stack arrives as an exception without a type of its own.
fn is_message(chain: &Chain<'_>) -> bool {
    chain.line.iter().all(|exception| {
        let is_synthetic = exception.mechanism.as_ref().and_then(|m| m.synthetic) == Some(true);
        is_synthetic || exception.ty.as_deref().unwrap_or_default().is_empty()
    })
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
            let members_texts = members.iter().flatten();
            let texts = types.iter().map(|ty| ("types", ty.as_str()));
            let texts = texts.chain(members_texts.map(|text| ("member", text.as_str())));
            keys.add(Part::Members, true, true, "members", texts);
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
        Some(site) if site.is_named => {
            throw::named_site(family, event, &facts, site, learned, keys)
        }
        Some(site) => throw::nameless_site(event, &facts, site, learned, keys),
        None => text::no_site(family, event, &line, &facts, learned, keys),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grouping::Grouper;
    use crate::grouping::command::Issues;

    /// Groups events one after the other and returns their issues.
    fn issues_of(events: &[Value]) -> Vec<String> {
        let (grouper, mut issues) = (Grouper::new(), Issues::default());
        let issue = |event: &Value| {
            let mut event = Event::decode(event.to_string().as_bytes()).unwrap();
            grouper.normalise(&mut event);
            issues.assign(&grouper.group(&event)).to_string()
        };
        events.iter().map(issue).collect()
    }

    fn frame(file: &str, function: &str, line: u64, text: &str) -> Value {
        json!({"filename": file, "function": function, "lineno": line, "context_line": text,
            "in_app": true})
    }

    fn error(platform: &str, value: &str, frames: &[Value]) -> Value {
        json!({"platform": platform,
            "exception": [{"type": "Error", "value": value, "stacktrace": {"frames": frames}}]})
    }

    #[test]
    fn a_function_that_raises_for_two_callers_of_its_own_module() {
        let raised = |caller: &str| {
            let call = frame("shop.py", caller, 9, "price = find(sku)");
            let raise = frame("shop.py", "find", 3, "raise LookupError(f\"no {sku}\")");
            error("python", "no x1", &[call, raise])
        };
        let [sell, buy] = ["sell", "buy"].map(raised);
        let issues = issues_of(&[sell.clone(), buy.clone(), sell, buy]);
        assert_eq!(issues[0], issues[2]);
        assert_eq!(issues[1], issues[3]);
        assert_ne!(issues[0], issues[1]);
    }

    #[test]
    fn a_function_that_fails_by_itself_is_one_bug_whoever_calls() {
        let failed = |caller: &str| {
            let call = frame("shop.py", caller, 9, "price = find(sku)");
            let fail = frame("shop.py", "find", 3, "return PRICES[sku][\"net\"] / 0");
            error("python", "broken", &[call, fail])
        };
        let issues = issues_of(&["sell", "buy", "list"].map(failed));
        assert_eq!(issues[0], issues[1]);
        assert_eq!(issues[0], issues[2]);
    }

    #[test]
    fn what_one_event_proves_holds_for_events_that_cannot() {
        let with_stack = |word: &str| {
            let line = "log.error(\"no signal from \" + name)";
            json!({"platform": "node", "message": format!("no signal from {word}"),
                "stacktrace": {"frames": [frame("/srv/a.js", "watch", 3, line)]}})
        };
        let without =
            |word: &str| json!({"platform": "node", "message": format!("no signal from {word}")});
        let issues = issues_of(&[with_stack("amber"), without("birch"), without("cedar")]);
        assert_eq!(issues[0], issues[1]);
        assert_eq!(issues[0], issues[2]);
        // In the other order the first one waits for the proof.
        let issues = issues_of(&[without("amber"), with_stack("birch"), without("cedar")]);
        assert_eq!(issues[0], issues[1]);
        assert_eq!(issues[0], issues[2]);
    }

    #[test]
    fn a_closure_whose_name_a_source_map_takes_from_its_parameter() {
        let line = "return lines.map((line) => line.amount.toFixed(2));";
        let failed = |function: &str| {
            let outer = frame("/srv/bill.js", "sum", 4, line);
            let inner = frame("/srv/bill.js", function, 4, line);
            let value = "Cannot read properties of undefined (reading 'toFixed')";
            let mut event = error("node", value, &[outer, inner]);
            event["exception"][0]["type"] = json!("TypeError");
            event
        };
        let issues = issues_of(&["?", "line", "e"].map(failed));
        assert_eq!(issues[0], issues[1]);
        assert_eq!(issues[0], issues[2]);
    }

    #[test]
    fn a_raw_path_in_the_transaction_is_no_part_of_the_bug() {
        let expired = |name: &str, text: &str| {
            let value = format!("licence of {name} expired");
            let mut event = error("node", &value, &[frame("/srv/d.js", "?", 41, text)]);
            event["transaction"] = json!(format!("GET /licence/{name}"));
            event
        };
        let issues = issues_of(&[
            expired("abel", "throw new Error(`licence of ${id} expired`);"),
            expired("bela", "throw new Error(`licence of ${id} expired`, {});"),
        ]);
        assert_eq!(issues[0], issues[1]);
    }
}
