//! How often the values of each tag occurred.

use std::collections::BTreeMap;

use backstop_protocol::{Event, Timestamp};
use backstop_tracker::model::{IssueId, IssueQuery};
use backstop_tracker::store::Store;
use serde_json::json;

use crate::bench::{Bench, START};

#[test]
fn a_value_of_a_tag_is_kept_in_one_place() {
    let mut bench = Bench::new();
    let mut expected = BTreeMap::new();
    // Other tags leave room for short values of this one, but not for its most frequent value.
    let values: Vec<_> = std::iter::repeat_n("x".repeat(200), 3)
        .chain((1..10).map(|number| format!("v{number}")))
        .collect();
    let mut send = |bench: &mut Bench, value: &str| {
        let mut event = bench.event("A");
        for filler in 0..9 {
            event
                .tags
                .insert(format!("f{filler}"), "y".repeat(200).into());
        }
        event.tags.insert("b".to_owned(), value.into());
        *expected.entry(value.to_owned()).or_insert(0) += 1;
        let counts = expected.clone();
        (bench.submit(&[event])[0].issue, counts)
    };
    for value in &values {
        send(&mut bench, value);
    }
    let other = bench.send("B").issue;
    let (issue, _) = send(&mut bench, "v1");
    bench.store.merge(issue, &[other]).unwrap();
    for value in &values {
        let (_, counts) = send(&mut bench, value);
        let mut tags = bench.store.tags(issue, 100).unwrap().into_iter();
        let tag = tags.find(|tag| tag.key == "b").unwrap();
        assert_eq!(tag.values.len(), counts.len(), "after {value}");
        for value in tag.values {
            assert_eq!(value.count, counts[&value.value], "{}", value.value);
        }
    }
    assert_eq!(bench.store.check(false).unwrap().findings, []);
}

#[test]
fn each_value_of_a_tag_says_when_it_was_last_seen() {
    let mut bench = Bench::new();
    let send = |bench: &mut Bench, user: u32, minutes: i64| {
        let mut event = bench.event("A");
        event.user.as_mut().unwrap().id = Some(user.into());
        let seen = START.micros() + minutes * 60_000_000;
        event.timestamp = Some(Timestamp::from_micros(seen));
        bench.submit(&[event])[0].issue
    };
    bench.pass_minutes(30);
    for (user, minutes) in [(1, 0), (2, 5), (3, 9), (1, 3), (2, 4)] {
        send(&mut bench, user, minutes);
    }
    let issue = send(&mut bench, 4, 7);
    let tags = bench.store.tags(issue, 10).unwrap();
    let mut seen: Vec<_> = tags
        .iter()
        .filter(|tag| tag.key == "user" || tag.key == "level")
        .flat_map(|tag| &tag.values)
        .map(|value| {
            let minutes = (value.last_seen.micros() - START.micros()) / 60_000_000;
            (value.value.as_str(), minutes)
        })
        .collect();
    seen.sort_unstable();
    let expected = [
        ("error", 9),
        ("id:1", 3),
        ("id:2", 5),
        ("id:3", 9),
        ("id:4", 7),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_pack_of_tags_in_another_form_is_found() {
    let mut bench = Bench::new();
    let issue = bench.send("PaymentError").issue;
    let damage = rusqlite::Connection::open(bench.scratch.path().join("backstop.db")).unwrap();
    for body in [
        "{}",
        "[1]",
        "[\"x\"]",
        "[[\"level\", \"error\", \"1\", 0]]",
        "[[\"level\"]]",
        "x",
    ] {
        damage
            .execute("UPDATE tag_pack SET body = ?", [body])
            .unwrap();
        let found = bench.store.check(false).unwrap();
        let whats: Vec<_> = found.findings.iter().map(ToString::to_string).collect();
        assert!(
            whats
                .iter()
                .any(|what| what.contains("tags cannot be read")),
            "{body}: {whats:?}"
        );
    }
    assert!(bench.store.check(true).unwrap().is_clean());
    bench.send("PaymentError");
    assert_eq!(bench.store.tags(issue, 10).unwrap()[1].key, "level");
    assert_eq!(bench.store.check(false).unwrap().findings, []);
}

#[test]
fn counts_buckets_and_tags_agree_over_many_batches() {
    let mut bench = Bench::new();
    for round in 0..20 {
        let events: Vec<_> = (0..10)
            .map(|number| bench.event(["A", "B", "C"][number % 3]))
            .collect();
        bench.submit(&events);
        bench.pass_minutes(round);
    }
    let issues = bench.store.issues(&IssueQuery::default()).unwrap().issues;
    let counts: Vec<_> = issues.iter().map(|issue| issue.count).collect();
    assert_eq!(counts.iter().sum::<u64>(), 200);
    for issue in issues {
        let buckets = bench.store.buckets(issue.id, START, bench.now, 5).unwrap();
        assert_eq!(buckets.iter().sum::<u64>(), issue.count);
        for tag in bench.store.tags(issue.id, 10).unwrap() {
            assert_eq!(tag.total, issue.count, "{}", tag.key);
        }
        assert_eq!(issue.users, 3);
    }
    let buckets = bench
        .store
        .project_buckets(bench.project.id, START, bench.now, 60)
        .unwrap();
    assert_eq!(buckets, [120, 40, 40, 0]);
}

/// The values of every tag of an issue with their counts.
fn tag_counts(store: &Store, issue: IssueId) -> BTreeMap<(String, String), u64> {
    let tags = store.tags(issue, 10_000).unwrap().into_iter();
    tags.flat_map(|tag| {
        let values = tag.values.into_iter();
        values.map(move |value| ((tag.key.clone(), value.value), value.count))
    })
    .collect()
}

#[test]
fn every_value_of_every_tag_is_counted() {
    let mut bench = Bench::new();
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    let mut issues = [IssueId(0); 2];
    for round in 0_u64..40 {
        let mut events = Vec::new();
        for number in 0..6 {
            let which = (round + number) % 2;
            let mut event = bench.event(["A", "B"][which as usize]);
            // Some tags have few values, some many, some long ones; no two rounds are alike.
            for key in 0..12 {
                let value = (round * 31 + number * 7 + key) * 2_654_435_761 % (1 + key * 3);
                let long = if key == 5 {
                    "x".repeat(150)
                } else {
                    String::new()
                };
                let (key, value) = (format!("tag{key}"), format!("\"{value}\"\u{e9}{long}"));
                event.tags.insert(key, value.into());
            }
            for (key, value) in &event.tags {
                let key = (key.clone(), value.as_str().unwrap().to_owned());
                *expected[which as usize].entry(key).or_insert(0) += 1;
            }
            events.push(event);
        }
        let stored = bench.submit(&events);
        issues[(round % 2) as usize] = stored[0].issue;
        issues[((round + 1) % 2) as usize] = stored[1].issue;
        bench.pass_minutes(1);
        if round == 20 {
            bench = bench.restart();
        }
    }
    let seen = |bench: &Bench, issue| {
        let mut counts = tag_counts(&bench.store, issue);
        counts.retain(|(key, _), _| key.starts_with("tag"));
        counts
    };
    assert_eq!(seen(&bench, issues[0]), expected[0]);
    assert_eq!(seen(&bench, issues[1]), expected[1]);
    assert!(bench.store.check(false).unwrap().findings.is_empty());

    let merged = bench.store.merge(issues[0], &[issues[1]]).unwrap().id;
    let [mut sum, other] = expected;
    for (key, n) in other {
        *sum.entry(key).or_insert(0) += n;
    }
    assert_eq!(seen(&bench, merged), sum);
    let mut event = bench.event("A");
    let (key, value) = sum.keys().next().cloned().unwrap();
    event.tags.insert(key.clone(), value.as_str().into());
    bench.submit(&[event]);
    *sum.get_mut(&(key, value)).unwrap() += 1;
    assert_eq!(seen(&bench, merged), sum);
    assert!(bench.store.check(false).unwrap().findings.is_empty());
}

#[test]
fn an_issue_has_so_many_tags_and_values_and_counts_the_rest() {
    let mut bench = Bench::new();
    let mut issue = IssueId(0);
    for round in 0..21 {
        let events: Vec<_> = (0..50)
            .map(|number| {
                let mut event = bench.event("A");
                event.user.as_mut().unwrap().id = Some((round * 50 + number).into());
                if number == 0 {
                    for key in 0..12 {
                        event.tags.insert(format!("tag-{round}-{key}"), "1".into());
                    }
                }
                event
            })
            .collect();
        issue = bench.submit(&events)[0].issue;
    }
    assert_eq!(bench.store.issue(issue).unwrap().users, 1000);
    let tags = bench.store.tags(issue, 10_000).unwrap();
    assert_eq!(tags.len(), 200);
    let user = tags.iter().find(|tag| tag.key == "user").unwrap();
    assert_eq!(
        (user.total, user.other, user.values.len()),
        (1050, 50, 1000)
    );
    assert!(bench.store.check(false).unwrap().findings.is_empty());
}

#[test]
fn a_tag_named_like_a_field_is_counted_once_with_the_fields_value() {
    let mut bench = Bench::new();
    let mut event = bench.event("PaymentError");
    for (key, value) in [
        ("environment", "mine"),
        ("runtime", "mine"),
        (" own ", " mine "),
    ] {
        event.tags.insert(key.to_owned(), json!(value));
    }
    let contexts =
        json!({"runtime": {"name": "CPython", "version": "3.13"}, "gpu": {"name": "none"}});
    event.contexts = contexts.as_object().unwrap().clone().into();
    let decoded = Event::decode(&event.encode()).unwrap();
    assert!(decoded.contexts.is_unread());
    let issue = bench.submit(&[decoded])[0].issue;
    let counts = tag_counts(&bench.store, issue);
    let of_key = |key: &str| {
        let values = counts.iter().filter(|((other, _), _)| other == key);
        let values: Vec<(&str, u64)> = values.map(|((_, value), n)| (&**value, *n)).collect();
        values
    };
    assert_eq!(of_key("environment"), [("production", 1)]);
    assert_eq!(of_key("runtime"), [("CPython 3.13", 1)]);
    assert_eq!(of_key("own"), [("mine", 1)]);
    assert_eq!(of_key("gpu"), []);
}
