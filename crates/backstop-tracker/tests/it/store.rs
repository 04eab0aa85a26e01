//! The store and the digest through their public methods, on a real file.

use std::collections::BTreeMap;

use backstop_protocol::{Event, EventId, Level, Timestamp};
use backstop_tracker::digest::{Digest, Incoming, Stored};
use backstop_tracker::model::{
    AlertKind, Decision, IssueId, IssueQuery, Key, NewProject, Project, ProjectId, Sort, Status,
    Which,
};
use backstop_tracker::store::{ErrorKind, Remedy, Store, StoreOptions, restore};
use serde_json::json;

use crate::scratch::Scratch;

/// A store with one project, a digest, and a clock that stands until it is moved.
struct Bench {
    scratch: Scratch,
    store: Store,
    digest: Digest,
    project: Project,
    now: Timestamp,
    next_id: u128,
}

/// 2026-11-22T10:00:00Z.
const START: Timestamp = Timestamp::from_micros(1_795_341_600_000_000);

impl Bench {
    fn new() -> Bench {
        let scratch = Scratch::new();
        let store = Store::open(scratch.path()).unwrap();
        let wish = NewProject {
            name: "Shop".to_owned(),
            ..NewProject::default()
        };
        let project = store.create_project(&wish, START).unwrap();
        let digest = Digest::start(store.clone()).unwrap();
        Bench {
            scratch,
            store,
            digest,
            project,
            now: START,
            next_id: 1,
        }
    }

    fn with_budget(body_bytes_max: u64) -> Bench {
        Bench::new().restart_with(&StoreOptions {
            body_bytes_max,
            ..StoreOptions::default()
        })
    }

    /// The same directory after the process has ended and started again.
    fn restart(self) -> Bench {
        self.restart_with(&StoreOptions::default())
    }

    fn restart_with(mut self, options: &StoreOptions) -> Bench {
        self.digest.stop();
        self.store = Store::open_with(self.scratch.path(), options).unwrap();
        self.digest = Digest::start(self.store.clone()).unwrap();
        self
    }

    fn event(&mut self, ty: &str) -> Event {
        let id = EventId::from_bytes(self.next_id.to_be_bytes());
        self.next_id += 1;
        let mut event: Event = serde_json::from_value(json!({
            "event_id": id,
            "platform": "python",
            "environment": "production",
            "user": {"id": self.next_id % 3},
            "exception": {"values": [{
                "type": ty,
                "value": format!("order {} failed", self.next_id),
                "stacktrace": {"frames": [
                    {"module": "shop", "function": "checkout", "in_app": true, "vars": {"total": 42}}
                ]}
            }]}
        }))
        .unwrap();
        event.timestamp = Some(self.now);
        event
    }

    fn submit(&mut self, events: &[Event]) -> Vec<Stored> {
        let incoming = Incoming {
            project: self.project.id,
            key: Some(self.project.keys[0].public),
            received: self.now,
        };
        let prepared = events
            .iter()
            .map(|event| self.digest.prepare(incoming, event.clone()).unwrap())
            .collect();
        wait(self.digest.submit(prepared)).unwrap()
    }

    fn send(&mut self, ty: &str) -> Stored {
        let event = self.event(ty);
        self.submit(&[event])[0]
    }

    fn pass_minutes(&mut self, minutes: i64) {
        self.now = Timestamp::from_micros(self.now.micros() + minutes * 60_000_000);
    }

    fn titles(&self, text: &str) -> Vec<String> {
        let page = self.store.issues(&IssueQuery::parse(text)).unwrap();
        page.issues.into_iter().map(|issue| issue.title).collect()
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn an_event_becomes_an_issue_that_can_be_read_in_every_way() {
    let mut bench = Bench::new();
    let mut event = bench.event("PaymentError");
    event.level = Level::Fatal;
    let stored = bench.submit(std::slice::from_ref(&event))[0];
    assert!(stored.new_issue && !stored.duplicate);
    let issue = bench.store.issue(stored.issue).unwrap();
    assert_eq!(issue.title, "PaymentError: order 2 failed");
    assert_eq!(issue.short_id, "SHOP-1");
    assert_eq!((issue.count, issue.users), (1, 1));
    assert_eq!(issue.level, Level::Fatal);
    assert_eq!(issue.status, Status::Unresolved);
    assert_eq!((issue.first_seen, issue.last_seen), (START, START));
    assert_eq!(bench.store.issue_by_short_id("shop-1").unwrap(), issue);
    let read = bench.store.event(bench.project.id, event.event_id).unwrap();
    assert_eq!(read.event().unwrap(), event);
    let place = bench.store.event_place(event.event_id).unwrap();
    assert_eq!(
        (place.project, place.issue),
        (bench.project.id, stored.issue)
    );
    let other = bench.store.event(ProjectId(99), event.event_id);
    assert_eq!(other.unwrap_err().kind(), ErrorKind::NotFound);
    let tags = bench.store.tags(stored.issue, 10).unwrap();
    let tags: Vec<_> = tags
        .iter()
        .map(|tag| (tag.key.as_str(), tag.values[0].value.as_str(), tag.total))
        .collect();
    assert_eq!(
        tags,
        [
            ("environment", "production", 1),
            ("level", "fatal", 1),
            ("user", "id:2", 1),
        ]
    );
}

#[test]
fn an_id_counts_once_whatever_the_batch_the_restart_and_the_sender() {
    let mut bench = Bench::new();
    let event = bench.event("PaymentError");
    let twice = bench.submit(&[event.clone(), event.clone()]);
    assert_eq!(
        twice
            .iter()
            .map(|stored| stored.duplicate)
            .collect::<Vec<_>>(),
        [false, true]
    );
    assert!(bench.submit(std::slice::from_ref(&event))[0].duplicate);
    let mut bench = bench.restart();
    bench.pass_minutes(8 * 24 * 60 - 1);
    let again = bench.submit(std::slice::from_ref(&event))[0];
    assert!(again.duplicate);
    assert_eq!(bench.store.issue(again.issue).unwrap().count, 1);
    let outcomes = bench.store.outcomes(Some(bench.project.id), START).unwrap();
    let counted: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.reason.as_str(), outcome.count))
        .collect();
    assert_eq!(
        counted,
        [("duplicate", 1), ("accepted", 1), ("duplicate", 2)]
    );
}

#[test]
fn an_id_is_found_wherever_it_has_moved() {
    let options = StoreOptions {
        fresh_ids_max: 10,
        ..StoreOptions::default()
    };
    let mut bench = Bench::new().restart_with(&options);
    let mut events = Vec::new();
    for round in 0..30_usize {
        let batch: Vec<_> = (0..1 + round % 7)
            .map(|number| {
                let mut event = bench.event("PaymentError");
                // As random as the ids of clients, and the same in every run.
                let random = (round * 7 + number + 1) as u128;
                let id = random.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
                event.event_id = EventId::from_bytes(id.to_be_bytes());
                event
            })
            .collect();
        assert!(bench.submit(&batch).iter().all(|stored| !stored.duplicate));
        events.extend(batch);
        for event in &events {
            bench.store.event_place(event.event_id).unwrap();
        }
        match round {
            9 => bench = bench.restart_with(&options),
            19 => bench.pass_minutes(25 * 60),
            _ => {}
        }
    }
    assert!(bench.submit(&events).iter().all(|stored| stored.duplicate));
    let mut bench = bench.restart();
    assert!(bench.submit(&events).iter().all(|stored| stored.duplicate));
    assert_eq!(bench.store.check(false).unwrap().findings, []);
    let connection = rusqlite::Connection::open(bench.scratch.path().join("backstop.db")).unwrap();
    let count = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, usize>(0))
            .unwrap()
    };
    // Those of the first day have all moved, those of the second but for some.
    let first_day = count("SELECT count(*) FROM event_id_0");
    assert_eq!(first_day, (0..20).map(|round| 1 + round % 7).sum::<usize>());
    assert!(count("SELECT count(*) FROM event_id_1") > 0);
    assert!(count("SELECT count(*) FROM event_id_fresh") > 0);

    // A row that is damaged is told, and its ids are known again.
    connection
        .execute("UPDATE event_id_fresh SET ids = x'00'", [])
        .unwrap();
    drop(connection);
    assert!(!bench.store.check(false).unwrap().is_clean());
    assert!(bench.store.check(true).unwrap().is_clean());
    assert_eq!(bench.store.check(false).unwrap().findings, []);
    assert!(bench.submit(&events).iter().all(|stored| stored.duplicate));
}

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
fn ids_go_on_moving_while_people_decide() {
    let mut bench = Bench::new().restart_with(&StoreOptions {
        fresh_ids_max: 10,
        ..StoreOptions::default()
    });
    for round in 0..60_u128 {
        let batch: Vec<_> = (0..5_u128)
            .map(|number| {
                let mut event = bench.event("PaymentError");
                let random = (round * 5 + number + 1)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
                event.event_id = EventId::from_bytes(random.to_be_bytes());
                event
            })
            .collect();
        let issue = bench.submit(&batch)[0].issue;
        bench.store.decide(issue, Decision::Resolve).unwrap();
    }
    let connection = rusqlite::Connection::open(bench.scratch.path().join("backstop.db")).unwrap();
    let rows: usize = connection
        .query_row("SELECT count(*) FROM event_id_fresh", [], |row| row.get(0))
        .unwrap();
    assert!(rows <= 10, "{rows} rows for ten ids");
    assert_eq!(bench.store.check(false).unwrap().findings, []);
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
fn events_of_an_issue_are_walked_in_both_directions() {
    let mut bench = Bench::new();
    let stored: Vec<_> = (0..5).map(|_| bench.send("PaymentError")).collect();
    bench.send("OtherError");
    let issue = stored[0].issue;
    let id = |which| bench.store.issue_event(issue, which).map(|event| event.id);
    assert_eq!(id(Which::First).unwrap(), stored[0].event_id);
    assert_eq!(id(Which::Latest).unwrap(), stored[4].event_id);
    assert_eq!(
        id(Which::After(stored[1].event_id)).unwrap(),
        stored[2].event_id
    );
    assert_eq!(
        id(Which::Before(stored[1].event_id)).unwrap(),
        stored[0].event_id
    );
    assert_eq!(
        id(Which::Id(stored[3].event_id)).unwrap(),
        stored[3].event_id
    );
    let past_end = id(Which::After(stored[4].event_id));
    assert_eq!(past_end.unwrap_err().kind(), ErrorKind::NotFound);
    let lines = bench
        .store
        .issue_events(issue, Some(stored[4].event_id), 3)
        .unwrap();
    let lines: Vec<_> = lines.iter().map(|line| line.id).collect();
    assert_eq!(
        lines,
        [stored[3].event_id, stored[2].event_id, stored[1].event_id]
    );
}

#[test]
fn a_list_is_paged_in_each_order() {
    let mut bench = Bench::new();
    for number in 0..7_usize {
        for _ in 0..=number {
            bench.send(&format!("Error{number}"));
        }
        bench.pass_minutes(1);
    }
    for sort in [Sort::LastSeen, Sort::FirstSeen, Sort::Count] {
        let mut query = IssueQuery {
            sort,
            limit: 3,
            ..IssueQuery::default()
        };
        let mut counts = Vec::new();
        loop {
            let page = bench.store.issues(&query).unwrap();
            counts.extend(page.issues.iter().map(|issue| issue.count));
            query.after = page.next.map(|cursor| cursor.to_string().parse().unwrap());
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(counts, [7, 6, 5, 4, 3, 2, 1], "{sort:?}");
    }
}

#[test]
fn issues_are_found_by_words_tags_level_and_status() {
    let mut bench = Bench::new();
    let mut refused = bench.event("ConnectionRefusedError");
    refused.level = Level::Warning;
    refused
        .tags
        .insert("region".to_owned(), json!("north east"));
    let refused = bench.submit(&[refused])[0];
    bench.send("ZeroDivisionError");
    let title = "ConnectionRefusedError: order 2 failed";
    for text in [
        "refused",
        "connectionref",
        "Refused checkout",
        "level:warning",
        "region:\"north east\"",
        "region:\"north east\" environment:production refus",
        "is:unresolved conn",
    ] {
        assert_eq!(bench.titles(text), [title], "{text}");
    }
    for text in [
        "region:north",
        "is:resolved",
        "refused division",
        "level:info \"*",
    ] {
        assert_eq!(bench.titles(text), [""; 0], "{text}");
    }
    assert_eq!(bench.titles("order checkout").len(), 2);
    bench
        .store
        .decide(refused.issue, Decision::Resolve)
        .unwrap();
    assert_eq!(bench.titles("is:resolved"), [title]);
    // The second event of an issue is found by words that the first did not have.
    let mut event = bench.event("ZeroDivisionError");
    event.transaction = Some("/basket/total".to_owned());
    bench.submit(&[event]);
    assert_eq!(bench.titles("basket").len(), 1);
}

#[test]
fn alerts_are_due_once_survive_a_restart_and_are_sent_once() {
    let mut bench = Bench::new();
    let stored = bench.send("PaymentError");
    bench.send("PaymentError");
    let due = bench.store.due_alerts(bench.now, 10).unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].kind, AlertKind::NewIssue);
    assert_eq!(due[0].issue.id, stored.issue);
    assert_eq!(due[0].event, stored.event_id);
    bench
        .store
        .alerts_failed(&[due[0].id], "no route", bench.now)
        .unwrap();
    assert_eq!(bench.store.due_alerts(bench.now, 10).unwrap(), []);
    let mut bench = bench.restart();
    bench.pass_minutes(1);
    let again = bench.store.due_alerts(bench.now, 10).unwrap();
    assert_eq!((again[0].id, again[0].attempts), (due[0].id, 1));
    bench.store.alerts_sent(&[again[0].id]).unwrap();
    assert_eq!(bench.store.next_alert_at().unwrap(), None);
    bench.store.decide(stored.issue, Decision::Resolve).unwrap();
    bench.send("PaymentError");
    let due = bench.store.due_alerts(bench.now, 10).unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].kind, AlertKind::Regression);
    assert_eq!(due[0].issue.status, Status::Unresolved);
}

#[test]
fn a_threshold_is_told_once_in_its_time() {
    let mut bench = Bench::new();
    for rule in bench.store.alert_rules(bench.project.id).unwrap() {
        bench
            .store
            .delete_alert_rule(rule.project, rule.id)
            .unwrap();
    }
    let kind = AlertKind::Frequency {
        events: 5,
        minutes: 10,
    };
    bench.store.add_alert_rule(bench.project.id, kind).unwrap();
    let mut told = Vec::new();
    for minute in 0..60 {
        // Three in ten minutes at first, then one every minute.
        if minute % 3 == 0 || minute >= 30 {
            bench.send("PaymentError");
        }
        let due = bench.store.due_alerts(bench.now, 10).unwrap();
        if !due.is_empty() {
            told.push(minute);
            bench.store.alerts_sent(&[due[0].id]).unwrap();
        }
        bench.pass_minutes(1);
    }
    assert_eq!(told, [32, 42, 52]);
}

#[test]
fn a_threshold_in_the_place_of_another_is_not_silenced_by_it() {
    let mut bench = Bench::new();
    let usual = bench.store.alert_rules(bench.project.id).unwrap();
    let often = |events, minutes| AlertKind::Frequency { events, minutes };
    let first = bench.store.add_alert_rule(bench.project.id, often(2, 5));
    let first = first.unwrap();
    bench.send("PaymentError");
    bench.send("PaymentError");
    let due = bench.store.due_alerts(bench.now, 10).unwrap();
    let kinds: Vec<_> = due.iter().map(|alert| alert.kind).collect();
    assert_eq!(kinds, [AlertKind::NewIssue, often(2, 5)]);

    bench
        .store
        .delete_alert_rule(first.project, first.id)
        .unwrap();
    let again = bench.store.delete_alert_rule(first.project, first.id);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
    let second = bench
        .store
        .add_alert_rule(bench.project.id, often(3, 1_440));
    assert!(second.unwrap().id > first.id);
    bench.send("PaymentError");
    let due = bench.store.due_alerts(bench.now, 10).unwrap();
    assert_eq!(due.len(), 3, "the new threshold tells at once");
    assert_eq!(due[2].kind, often(3, 1_440));
    let waiting = AlertKind::Frequency {
        events: 0,
        minutes: 0,
    };
    assert_eq!(due[1].kind, waiting, "an old alert is not the new rule's");

    for (kind, wrong) in [
        (often(3, 1_440), ErrorKind::Conflict),
        (usual[0].kind, ErrorKind::Conflict),
        (often(0, 1), ErrorKind::Invalid),
        (often(1, 1_441), ErrorKind::Invalid),
    ] {
        let refused = bench.store.add_alert_rule(bench.project.id, kind);
        assert_eq!(refused.unwrap_err().kind(), wrong, "{kind}");
    }
    let added = (1..99).take_while(|n| {
        let rule = bench.store.add_alert_rule(bench.project.id, often(1, *n));
        rule.is_ok()
    });
    assert_eq!(added.count() + 4, 20, "every event asks every rule");
}

#[test]
fn a_mute_is_silent_until_its_time_or_count() {
    let mut bench = Bench::new();
    let stored = bench.send("PaymentError");
    let first = bench.store.due_alerts(bench.now, 10).unwrap();
    bench.store.alerts_sent(&[first[0].id]).unwrap();
    let mute = Decision::Mute {
        until: None,
        events: Some(2),
    };
    bench.store.decide(stored.issue, mute).unwrap();
    bench.send("PaymentError");
    assert_eq!(
        bench.store.issue(stored.issue).unwrap().status,
        Status::Muted
    );
    bench.send("PaymentError");
    let due = bench.store.due_alerts(bench.now, 10).unwrap();
    assert_eq!(due[0].kind, AlertKind::Regression);
    assert_eq!(due[0].issue.status, Status::Unresolved);
}

#[test]
fn a_project_brings_its_dsn_and_is_seen_by_a_running_server() {
    let bench = Bench::new();
    // A second store on the same directory is what the command line is.
    let other = Store::open(bench.scratch.path()).unwrap();
    let wish = NewProject {
        name: "Moved".to_owned(),
        organization: Some("Acme".to_owned()),
        id: Some(ProjectId(u64::MAX)),
        key: Some(Key([7; 16])),
        secret: Some(Key([8; 16])),
        ..NewProject::default()
    };
    assert_eq!(bench.store.key_owner(Key([7; 16])).unwrap(), None);
    let project = other.create_project(&wish, START).unwrap();
    let owner = bench.store.key_owner(Key([7; 16])).unwrap().unwrap();
    assert_eq!(owner.project, ProjectId(u64::MAX));
    assert_eq!(owner.key.secret, Some(Key([8; 16])));
    assert_eq!(
        bench.store.project_by_slug("acme", "moved").unwrap(),
        project
    );
    let by_number = bench.store.project_by_slug("acme", &u64::MAX.to_string());
    assert_eq!(by_number.unwrap(), project);
    let again = other.create_project(&wish, START).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(bench.store.projects().unwrap().len(), 2);
    // The next number is not pushed behind the huge one.
    let wish = NewProject {
        name: "Next".to_owned(),
        ..NewProject::default()
    };
    assert_eq!(other.create_project(&wish, START).unwrap().id, ProjectId(2));
}

#[test]
fn one_server_serves_a_directory() {
    let bench = Bench::new();
    let lock = bench.store.lock_for_serving().unwrap();
    let other = Store::open(bench.scratch.path()).unwrap();
    let refused = other.lock_for_serving().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    drop(lock);
    other.lock_for_serving().unwrap();
}

#[test]
fn people_sign_in_with_a_link_once_and_with_a_password() {
    let bench = Bench::new();
    let hour = |hours: i64| Timestamp::from_micros(START.micros() + hours * 3_600_000_000);
    let store = &bench.store;
    let user = store.create_user("ada@example.org", "Ada", START).unwrap();
    assert_eq!(
        store.create_user("ADA@example.org", "", START).unwrap(),
        user
    );
    let nobody = store.create_user("ada", "Ada", START).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Invalid);
    let link = store.create_sign_in_link(user.id, hour(1)).unwrap();
    let used = store
        .use_sign_in_link(link.expose(), START, hour(10))
        .unwrap();
    let (signed_in, session) = used.unwrap();
    assert_eq!(signed_in, user);
    let twice = store.use_sign_in_link(link.expose(), START, hour(10));
    assert_eq!(twice.unwrap(), None);
    let late = store.create_sign_in_link(user.id, hour(1)).unwrap();
    assert_eq!(
        store
            .use_sign_in_link(late.expose(), hour(1), hour(9))
            .unwrap(),
        None
    );
    let whose = |at| store.session_user(session.expose(), at).unwrap();
    assert_eq!(whose(hour(9)), Some(user.clone()));
    assert_eq!(whose(hour(10)), None);
    store.end_session(session.expose()).unwrap();
    assert_eq!(whose(hour(9)), None);
    assert_eq!(store.check_password("ada@example.org", "").unwrap(), None);
    store
        .set_password(user.id, "", "correct horse", None)
        .unwrap();
    let known = store
        .check_password("Ada@example.org", "correct horse")
        .unwrap();
    assert_eq!(known.map(|user| user.id), Some(user.id));
    assert_eq!(
        store.check_password("ada@example.org", "wrong").unwrap(),
        None
    );
    assert_eq!(
        store.check_password("bob@example.org", "wrong").unwrap(),
        None
    );
}

#[test]
fn a_token_is_known_by_its_secret_until_it_is_taken_back() {
    let bench = Bench::new();
    let scopes = ["event:read".to_owned(), "project:read".to_owned()];
    let secret = bench.store.create_token("ci", &scopes, START).unwrap();
    let token = bench.store.token(secret.expose()).unwrap().unwrap();
    assert_eq!(token.scopes, scopes);
    assert_eq!(bench.store.token("guess").unwrap(), None);
    bench.store.delete_token(token.id).unwrap();
    assert_eq!(bench.store.token(secret.expose()).unwrap(), None);
    assert_eq!(bench.store.tokens().unwrap(), []);
}

#[test]
fn bodies_stay_under_their_budget_and_counts_do_not_change() {
    let mut bench = Bench::with_budget(40_000);
    let quiet = bench.send("QuietError");
    let mut loud = Vec::new();
    for _ in 0..400 {
        loud.push(bench.send("LoudError").event_id);
    }
    let issue = bench.store.event_place(loud[0]).unwrap().issue;
    for _ in 0..20 {
        bench.digest.maintain(bench.now).unwrap();
    }
    assert_eq!(bench.store.issue(issue).unwrap().count, 400);
    let kept: Vec<_> = bench
        .store
        .issue_events(issue, None, 1000)
        .unwrap()
        .iter()
        .map(|line| line.id)
        .collect();
    assert!(kept.len() < 200, "{}", kept.len());
    for id in loud[..10].iter().chain(&loud[380..]) {
        assert!(kept.contains(id), "the ends survive");
    }
    assert!(kept.len() > 30, "and a sample between them");
    bench.store.event(bench.project.id, quiet.event_id).unwrap();
    let evicted = loud.iter().find(|id| !kept.contains(id)).unwrap();
    let gone = bench.store.event(bench.project.id, *evicted).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(bench.store.event_place(*evicted).unwrap().issue, issue);
    assert_eq!(bench.store.check(false).unwrap().findings, []);
    // An id counts as a duplicate although its body is gone.
    let mut event = bench.event("LoudError");
    event.event_id = *evicted;
    assert!(bench.submit(&[event])[0].duplicate);
}

#[test]
fn counts_get_coarser_with_age_and_keep_their_sums() {
    let mut bench = Bench::new();
    let issue = bench.send("PaymentError").issue;
    bench.pass_minutes(61);
    bench.send("PaymentError");
    bench.pass_minutes(7);
    bench.send("PaymentError");
    bench.pass_minutes(3 * 24 * 60);
    bench.send("PaymentError");
    bench.digest.maintain(bench.now).unwrap();
    let per_hour = |bench: &Bench| bench.store.buckets(issue, START, bench.now, 60).unwrap();
    assert_eq!(per_hour(&bench)[..2], [1, 2]);
    assert_eq!(bench.store.check(false).unwrap().findings, []);
    let per_minute = bench.store.buckets(issue, START, bench.now, 1).unwrap();
    assert_eq!((per_minute[0], per_minute[60]), (1, 2));
    bench.pass_minutes(100 * 24 * 60);
    bench.digest.maintain(bench.now).unwrap();
    let start_of_day = Timestamp::from_micros(START.micros() / 86_400_000_000 * 86_400_000_000);
    let per_hour = bench
        .store
        .buckets(issue, start_of_day, bench.now, 60)
        .unwrap();
    assert_eq!((per_hour[0], per_hour[72]), (3, 1));
    assert_eq!(bench.store.check(false).unwrap().findings, []);
}

#[test]
fn ids_are_dropped_after_the_window_unless_the_body_is_kept() {
    let mut bench = Bench::new();
    let first = bench.event("PaymentError");
    bench.submit(std::slice::from_ref(&first));
    for _ in 0..30 {
        bench.pass_minutes(24 * 60);
        bench.send("PaymentError");
        bench.digest.maintain(bench.now).unwrap();
    }
    assert!(bench.submit(std::slice::from_ref(&first))[0].duplicate);
    bench.store.event(bench.project.id, first.event_id).unwrap();
    assert_eq!(bench.store.check(false).unwrap().findings, []);
    // Each day had a generation of its own, and old ones went.
    let connection = rusqlite::Connection::open(bench.scratch.path().join("backstop.db")).unwrap();
    let generations: (i64, i64) = connection
        .query_row("SELECT max(number), count(*) FROM generation", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(generations, (30, 9));
    drop(connection);
    // A clock that jumps back and forth neither loses ids nor numbers.
    let event = bench.event("PaymentError");
    bench.submit(std::slice::from_ref(&event));
    for days in [-400, 900, -500, 1] {
        bench.pass_minutes(days * 24 * 60);
        assert!(bench.submit(std::slice::from_ref(&event))[0].duplicate);
        bench.send("PaymentError");
        bench.digest.maintain(bench.now).unwrap();
    }
    assert_eq!(bench.store.check(false).unwrap().findings, []);
}

#[test]
fn a_trained_dictionary_shrinks_bodies_and_old_ones_stay_readable() {
    let mut bench = Bench::new();
    let first = bench.send("PaymentError");
    for _ in 0..250 {
        bench.send("PaymentError");
    }
    let bytes = |bench: &Bench| {
        let metrics = bench.digest.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("backstop_store_bodies_bytes "))
            .unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    let before = bytes(&bench);
    bench.digest.maintain(bench.now).unwrap();
    let mut bench = bench.restart();
    let later: Vec<_> = (0..251)
        .map(|_| bench.send("PaymentError").event_id)
        .collect();
    assert!(
        (bytes(&bench) - before) * 2 < before,
        "{before} {}",
        bytes(&bench)
    );
    for id in later.iter().chain([&first.event_id]) {
        let event = bench.store.event(bench.project.id, *id).unwrap();
        assert_eq!(event.event().unwrap().event_id, *id);
    }
    assert_eq!(bench.store.check(false).unwrap().findings, []);
}

#[test]
fn a_check_finds_and_mends_what_disagrees() {
    let mut bench = Bench::new().restart_with(&StoreOptions {
        // Every id is in its generation at once.
        fresh_ids_max: 0,
        ..StoreOptions::default()
    });
    let events: Vec<_> = (0..10).map(|_| bench.send("PaymentError")).collect();
    assert!(bench.store.check(false).unwrap().is_clean());
    let damage = rusqlite::Connection::open(bench.scratch.path().join("backstop.db")).unwrap();
    for statement in [
        "UPDATE bucket SET n = n - 3",
        "UPDATE issue SET kept = 1",
        "UPDATE event SET body = x'00' WHERE seq = 4",
        "DELETE FROM event_id_0 WHERE seq = 5",
        "UPDATE tag_pack SET body = '[[\"level\",'",
        "INSERT INTO bucket VALUES (99, 1, 1)",
    ] {
        assert_eq!(damage.execute(statement, []).unwrap(), 1, "{statement}");
    }
    let found = bench.store.check(false).unwrap();
    let whats: Vec<_> = found
        .findings
        .iter()
        .map(|finding| finding.to_string())
        .collect();
    for expected in [
        "1 buckets of no issue",
        "sum of their buckets",
        "number of kept bodies",
        "1 issues whose tags cannot be read",
        &format!("the body of event {}", events[3].event_id),
        &format!("event {} is not found", events[4].event_id),
    ] {
        assert!(
            whats.iter().any(|what| what.contains(expected)),
            "{expected}: {whats:?}"
        );
    }
    assert!(!found.is_clean());
    let mended = bench.store.check(true).unwrap();
    assert!(
        mended
            .findings
            .iter()
            .all(|finding| finding.remedy == Remedy::Mended)
    );
    let again = bench.store.check(false).unwrap();
    assert_eq!(again.findings, []);
    assert_eq!((again.events, again.bodies, again.issues), (10, 9, 1));
    assert_eq!(bench.store.issue(events[0].issue).unwrap().count, 10);
}

#[test]
fn a_backup_of_a_store_in_use_comes_back_whole() {
    let mut bench = Bench::new();
    let stored = bench.send("PaymentError");
    let target = Scratch::new();
    bench.store.backup(target.path()).unwrap();
    let twice = bench.store.backup(target.path()).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    bench.send("PaymentError");
    let elsewhere = Scratch::new();
    restore(target.path(), elsewhere.path()).unwrap();
    let twice = restore(target.path(), elsewhere.path()).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    let nothing = restore(Scratch::new().path(), Scratch::new().path()).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NotFound);
    let restored = Store::open(elsewhere.path()).unwrap();
    let report = restored.check(false).unwrap();
    assert_eq!((report.findings, report.events), (Vec::new(), 1));
    restored.event(bench.project.id, stored.event_id).unwrap();
}

#[test]
fn a_store_of_every_earlier_schema_is_brought_forward() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
    let mut steps: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    steps.sort();
    for version in 1..=steps.len() {
        let scratch = Scratch::new();
        let old = rusqlite::Connection::open(scratch.path().join("backstop.db")).unwrap();
        for step in &steps[..version] {
            let step = std::fs::read_to_string(step).unwrap();
            old.execute_batch(&step).unwrap();
        }
        old.pragma_update(None, "user_version", version).unwrap();
        old.execute_batch(
            "INSERT INTO organization VALUES (1, 'main', 'main', 0);
             INSERT INTO project (id, organization, slug, name, created) VALUES (7, 1, 'shop', 'Shop', 0);
             INSERT INTO project_count (project) VALUES (7);",
        )
        .unwrap();
        drop(old);
        let store = Store::open(scratch.path()).unwrap();
        assert_eq!(store.project(ProjectId(7)).unwrap().slug, "shop");
        assert_eq!(store.check(false).unwrap().findings, []);
    }
    let scratch = Scratch::new();
    let newer = rusqlite::Connection::open(scratch.path().join("backstop.db")).unwrap();
    newer
        .pragma_update(None, "user_version", steps.len() + 1)
        .unwrap();
    drop(newer);
    assert_eq!(
        Store::open(scratch.path()).unwrap_err().kind(),
        ErrorKind::Newer
    );
}

/// A file that a server with schema 3 left behind: 24 events, three issues, three mails sent.
#[test]
fn a_store_that_an_earlier_version_has_filled_goes_on() {
    let packed = include_bytes!("../fixtures/store/schema_3.db.zst");
    let scratch = Scratch::new();
    let file = zstd::decode_all(&packed[..]).unwrap();
    std::fs::write(scratch.path().join("backstop.db"), file).unwrap();
    let store = Store::open(scratch.path()).unwrap();
    let report = store.check(false).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.events, report.bodies, report.issues), (24, 24, 3));
    let far = Timestamp::from_micros(i64::MAX);
    assert!(store.due_alerts(far, 10).unwrap().is_empty());
    assert_eq!(store.users().unwrap()[0].email, "ada@example.com");
    let page = store.issues(&IssueQuery::parse("checkout_k")).unwrap();
    assert_eq!(page.issues.len(), 1);
    let issue = page.issues[0].id;

    let digest = Digest::start(store.clone()).unwrap();
    let again = |id: u128, line: u32| {
        let event: Event = serde_json::from_value(json!({
            "event_id": EventId::from_bytes(id.to_be_bytes()),
            "platform": "python",
            "exception": {"values": [{"type": "KeyError", "value": "order 99 failed", "stacktrace": {"frames": [
                {"module": "shop", "filename": "shop.py", "function": "checkout_k", "lineno": line, "in_app": true}
            ]}}]}
        }))
        .unwrap();
        let incoming = Incoming {
            project: ProjectId(7),
            key: None,
            received: page.issues[0].last_seen,
        };
        let prepared = digest.prepare(incoming, event).unwrap();
        wait(digest.submit(vec![prepared])).unwrap()[0]
    };
    for id in 1..=24 {
        let event = store.event(ProjectId(7), EventId::from_bytes(u128::to_be_bytes(id)));
        assert_eq!(event.unwrap().event().unwrap().exception.len(), 1);
        assert!(again(id, 1).duplicate);
    }
    let stored = again(99, 1);
    assert_eq!((stored.issue, stored.new_issue), (issue, false));
    assert!(store.due_alerts(far, 10).unwrap().is_empty());
    assert_eq!(store.check(false).unwrap().events, 25);
}

#[test]
fn a_clock_that_goes_back_and_forth_loses_and_doubles_nothing() {
    let mut bench = Bench::new();
    let first = bench.event("PaymentError");
    bench.submit(std::slice::from_ref(&first));
    let mut events = 1;
    // A day, a month and fifty years back, each way, and a little step at last.
    for minutes in [-1440, 1440, -43_200, 43_200, -26_280_000, 26_280_000, -1] {
        bench.pass_minutes(minutes);
        assert!(!bench.send("PaymentError").new_issue);
        events += 1;
        bench.digest.maintain(bench.now).unwrap();
        assert!(bench.submit(std::slice::from_ref(&first))[0].duplicate);
        let report = bench.store.check(false).unwrap();
        assert_eq!((report.findings, report.events), (Vec::new(), events));
    }
    let issues = bench.store.issues(&IssueQuery::default()).unwrap().issues;
    assert_eq!(issues.len(), 1);
    assert_eq!(issues[0].count, events);
    let mut bench = bench.restart();
    assert!(bench.submit(std::slice::from_ref(&first))[0].duplicate);
}
