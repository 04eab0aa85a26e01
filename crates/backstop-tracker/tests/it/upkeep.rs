//! What a store does beside taking events: budget, roll-up, dictionaries, check, backup, migrations.

use backstop_protocol::{Event, EventId, Timestamp};
use backstop_tracker::digest::{Digest, Incoming};
use backstop_tracker::model::{IssueQuery, ProjectId};
use backstop_tracker::store::{ErrorKind, Remedy, Store, StoreOptions, restore};
use serde_json::json;

use crate::bench::{Bench, START, wait};
use crate::scratch::Scratch;

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

/// Returns the size of all packed bodies.
fn body_bytes(bench: &Bench) -> u64 {
    let metrics = bench.digest.metrics();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("backstop_store_bodies_bytes "))
        .unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_storm_among_hundreds_of_issues_is_packed_as_one_reference() {
    let mut bench = Bench::new();
    // Nobody else has this, and it cannot be packed by itself.
    let own: String = (1..400_u64)
        .map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let storm = |bench: &mut Bench, events: usize| {
        for _ in 0..events {
            let mut event = bench.event("StormError");
            event.extra.get_mut().insert("trail".to_owned(), json!(own));
            bench.submit(&[event]);
        }
    };
    storm(&mut bench, 30);
    let events: Vec<Event> = (0..320_u32)
        .map(|number| {
            let letter = |part: u32| char::from(b'a' + (part % 26) as u8);
            bench.event(&format!(
                "Quiet{}{}Error",
                letter(number / 26),
                letter(number)
            ))
        })
        .collect();
    bench.submit(&events);
    bench.pass_minutes(1);
    storm(&mut bench, 1);
    bench.digest.maintain(bench.now).unwrap();
    let before = body_bytes(&bench);
    storm(&mut bench, 10);
    let each = (body_bytes(&bench) - before) / 10;
    assert!(each < 200, "{each} bytes of {}", own.len());
}

#[test]
fn a_trained_dictionary_shrinks_bodies_and_old_ones_stay_readable() {
    let mut bench = Bench::new();
    let first = bench.send("PaymentError");
    for _ in 0..250 {
        bench.send("PaymentError");
    }
    let before = body_bytes(&bench);
    bench.digest.maintain(bench.now).unwrap();
    let mut bench = bench.restart();
    let later: Vec<_> = (0..251)
        .map(|_| bench.send("PaymentError").event_id)
        .collect();
    assert!(
        (body_bytes(&bench) - before) * 2 < before,
        "{before} {}",
        body_bytes(&bench)
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
