//! What people are told, and when.

use backstop_tracker::model::{AlertKind, Decision, Status};
use backstop_tracker::store::{ErrorKind, Store};

use crate::bench::Bench;

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
fn what_another_process_decides_counts_for_the_next_event() {
    let mut bench = Bench::new();
    let issue = bench.send("PaymentError").issue;
    bench.send("PaymentError");
    // A second store on the same directory is what the command line is.
    let other = Store::open(bench.scratch.path()).unwrap();
    let status = |bench: &Bench| bench.store.issue(issue).unwrap().status;
    for regressions in 1..=2 {
        other.decide(issue, Decision::Resolve).unwrap();
        assert_eq!(status(&bench), Status::Resolved);
        bench.send("PaymentError");
        assert_eq!(status(&bench), Status::Unresolved);
        let due = bench.store.due_alerts(bench.now, 10).unwrap();
        let told = due.iter().filter(|due| due.kind == AlertKind::Regression);
        assert_eq!(told.count(), regressions);
    }
    assert_eq!(bench.store.issue(issue).unwrap().count, 4);
}
