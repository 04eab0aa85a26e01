//! An event counts once, by its id.

use backstop_protocol::EventId;
use backstop_tracker::model::{Decision, IssueQuery};
use backstop_tracker::store::StoreOptions;

use crate::bench::{Bench, START};

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
