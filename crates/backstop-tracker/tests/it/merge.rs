//! Merging issues, taking them apart, and grouping stored events again.

use backstop_protocol::{Event, EventId, Timestamp};
use backstop_tracker::digest::{Digest, Incoming, Stored};
use backstop_tracker::grouping::command::{Options, replay};
use backstop_tracker::grouping::{Part, Rules};
use backstop_tracker::model::{IssueId, IssueQuery, NewProject, Project, Which};
use backstop_tracker::store::{ErrorKind, Store};
use serde_json::json;

use crate::bench::{self, START, wait};
use crate::scratch::Scratch;

struct Bench {
    _scratch: Scratch,
    store: Store,
    digest: Digest,
    project: Project,
    events: u128,
}

impl Bench {
    fn new() -> Bench {
        let bench::Bench {
            scratch,
            store,
            digest,
            project,
            ..
        } = bench::Bench::new();
        Bench {
            _scratch: scratch,
            store,
            digest,
            project,
            events: 0,
        }
    }

    /// Sends an error that a function raised for a user.
    fn send(&mut self, function: &str, user: u32) -> Stored {
        self.events += 1;
        let event = json!({
            "event_id": EventId::from_bytes(self.events.to_be_bytes()),
            "platform": "python",
            "user": {"id": user},
            "exception": [{"type": "ShopError", "value": "no luck", "stacktrace": {"frames": [
                {"module": "shop", "function": function, "in_app": true}
            ]}}],
        });
        let mut event = Event::decode(event.to_string().as_bytes()).unwrap();
        event.timestamp = Some(START);
        let incoming = Incoming {
            project: self.project.id,
            key: Some(self.project.keys[0].public),
            received: START,
        };
        let prepared = self.digest.prepare(incoming, event).unwrap();
        wait(self.digest.submit(vec![prepared])).unwrap()[0]
    }

    fn counts(&self, issue: IssueId) -> (u64, u64) {
        let issue = self.store.issue(issue).unwrap();
        (issue.count, issue.users)
    }

    fn found(&self, text: &str) -> Vec<IssueId> {
        let page = self.store.issues(&IssueQuery::parse(text)).unwrap();
        page.issues.iter().map(|issue| issue.id).collect()
    }

    fn is_clean(&self) {
        let report = self.store.check(false).unwrap();
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, Vec::<String>::new());
    }
}

#[test]
fn a_merged_issue_lives_on_in_the_other_and_can_be_taken_out_again() {
    let mut bench = Bench::new();
    let total = bench.send("total", 1).issue;
    bench.send("total", 2);
    let weight = bench.send("weight", 2).issue;
    let kept = bench.store.merge(total, &[weight]).unwrap();
    assert_eq!((kept.id, kept.count, kept.users), (total, 3, 2));
    assert!(
        kept.reason.contains("; merged by hand with "),
        "{}",
        kept.reason
    );
    // The old id, later events and the words of both lead to it.
    assert_eq!(bench.store.issue(weight).unwrap().id, total);
    assert_eq!(bench.send("weight", 3).issue, total);
    assert_eq!(bench.found("weight"), [total]);
    bench.is_clean();

    let groups = bench.store.issue_groups(total).unwrap();
    let sizes: Vec<u64> = groups.iter().map(|group| group.events).collect();
    assert_eq!(sizes, [2, 2]);
    let of_weight = groups
        .iter()
        .find(|group| group.reason.contains("weight"))
        .unwrap();
    let new = bench.store.split(total, &[of_weight.hash]).unwrap();
    assert_ne!(new.id, total);
    assert_eq!((new.count, new.users), (2, 2));
    assert_eq!(bench.counts(total), (2, 2));
    assert_eq!(bench.send("weight", 3).issue, new.id);
    assert_eq!(bench.send("total", 1).issue, total);
    let latest = bench.store.issue_event(new.id, Which::Latest).unwrap();
    assert_eq!(latest.issue, new.id);
    // Neither finds the words or the reason of the other any more.
    assert_eq!(bench.found("weight"), [new.id]);
    assert_eq!(bench.found("total"), [total]);
    let kept = bench.store.issue(total).unwrap();
    assert!(!kept.reason.contains("weight"), "{}", kept.reason);
    assert!(kept.culprit.contains("total"), "{}", kept.culprit);
    bench.is_clean();
}

/// The numbers that a person sees of an issue.
fn seen(store: &Store, issue: IssueId) -> (u64, u64, Vec<(String, u64, u64)>, u64) {
    let found = store.issue(issue).unwrap();
    let tags = store.tags(found.id, 100).unwrap();
    let tags = tags
        .into_iter()
        .map(|tag| (tag.key, tag.total, tag.values.len() as u64))
        .collect();
    let hour = Timestamp::from_micros(START.micros() - 3_600_000_000);
    let buckets = store.buckets(found.id, hour, START, 1).unwrap();
    (found.count, found.users, tags, buckets.iter().sum())
}

#[test]
fn taking_out_what_was_merged_gives_back_the_same_numbers() {
    let mut bench = Bench::new();
    let total = bench.send("total", 1).issue;
    for user in 0..30 {
        bench.send("total", user % 7);
        bench.send("weight", user % 5);
    }
    let weight = bench.send("weight", 1).issue;
    let price = bench.send("price", 3).issue;
    let before = [total, weight, price].map(|issue| seen(&bench.store, issue));
    let merged = bench.store.merge(total, &[weight, price]).unwrap();
    assert_eq!((merged.count, merged.users), (31 + 31 + 1, 7));
    bench.is_clean();
    let groups = bench.store.issue_groups(total).unwrap();
    assert_eq!(groups.len(), 3);
    let of = |function: &str| {
        let mut found = groups
            .iter()
            .filter(|group| group.reason.contains(function));
        found.next().unwrap().hash
    };
    let weight = bench.store.split(total, &[of("weight")]).unwrap().id;
    let price = bench.store.split(total, &[of("price")]).unwrap().id;
    bench.is_clean();
    let after = [total, weight, price].map(|issue| seen(&bench.store, issue));
    assert_eq!(before, after);
}

#[test]
fn an_event_is_found_where_a_split_has_put_it() {
    let mut bench = Bench::new();
    let total = bench.send("total", 1).issue;
    let weight = bench.send("weight", 2);
    bench.store.merge(total, &[weight.issue]).unwrap();
    assert_eq!(
        bench.store.event_place(weight.event_id).unwrap().issue,
        total
    );
    // A client that sends it again is told where it is now.
    bench.events = 1;
    let again = bench.send("weight", 2);
    assert_eq!((again.duplicate, again.issue), (true, total));
    let groups = bench.store.issue_groups(total).unwrap();
    let of_weight = groups.iter().find(|g| g.reason.contains("weight")).unwrap();
    let new = bench.store.split(total, &[of_weight.hash]).unwrap().id;
    assert_eq!(bench.store.event_place(weight.event_id).unwrap().issue, new);
    bench.events = 1;
    let again = bench.send("weight", 2);
    assert_eq!((again.duplicate, again.issue), (true, new));
    bench.is_clean();
}

#[test]
fn what_cannot_be_merged_or_split() {
    let mut bench = Bench::new();
    let total = bench.send("total", 1).issue;
    let wish = NewProject {
        name: "Other".to_owned(),
        ..NewProject::default()
    };
    bench.project = bench.store.create_project(&wish, START).unwrap();
    let other = bench.send("total", 1).issue;
    let refused = |result: Result<_, backstop_tracker::store::Error>| result.unwrap_err().kind();
    assert_eq!(
        refused(bench.store.merge(total, &[other])),
        ErrorKind::Invalid
    );
    assert_eq!(
        refused(bench.store.merge(total, &[IssueId(99)])),
        ErrorKind::NotFound
    );
    let all = bench.store.issue_groups(total).unwrap()[0].hash;
    assert_eq!(
        refused(bench.store.split(total, &[all])),
        ErrorKind::Invalid
    );
    assert_eq!(refused(bench.store.split(total, &[])), ErrorKind::Invalid);
    // An issue merged into itself stays as it is.
    assert_eq!(bench.store.merge(total, &[total]).unwrap().count, 1);
}

#[test]
fn a_change_of_rules_is_shown_before_it_is_made() {
    let mut bench = Bench::new();
    bench.send("total", 1);
    bench.send("weight", 1);
    let options = |fingerprints: &str| Options {
        rules: Rules::parse(fingerprints, "").unwrap(),
        ..Options::default()
    };
    let unchanged = replay(&bench.store, bench.project.id, options("")).unwrap();
    assert_eq!(
        (unchanged.events, unchanged.issues, unchanged.groups),
        (2, 2, 2)
    );
    assert_eq!((unchanged.merges.len(), unchanged.splits.len()), (0, 0));
    let merged = replay(
        &bench.store,
        bench.project.id,
        options("type:ShopError -> shop"),
    )
    .unwrap();
    assert_eq!(merged.merges[0].issues.len(), 2);
    assert_eq!(merged.groups, 1);
}

#[test]
fn settings_that_change_are_followed() {
    let mut bench = Bench::new();
    let total = bench.send("total", 1).issue;
    let settings = json!({"grouping": {"fingerprint_rules": "type:ShopError -> shop"}});
    bench
        .store
        .set_project_settings(bench.project.id, &settings.to_string())
        .unwrap();
    bench.digest.maintain(START).unwrap();
    let shop = bench.send("total", 1).issue;
    assert_ne!(shop, total);
    assert_eq!(bench.send("weight", 1).issue, shop);
    // Settings that cannot be understood group as if there were none.
    bench
        .store
        .set_project_settings(bench.project.id, r#"{"grouping": {"version": 77}}"#)
        .unwrap();
    bench.digest.maintain(START).unwrap();
    assert_eq!(bench.send("total", 1).issue, total);
}

#[test]
fn every_hash_says_what_it_was_made_of() {
    let mut bench = Bench::new();
    let total = bench.send("total", 1).issue;
    let hashes = bench.store.issue_hashes(total).unwrap();
    let first = &hashes[0];
    assert_eq!((first.part, first.is_primary), (Some(Part::Site), true));
    assert_eq!(hashes.iter().filter(|hash| hash.is_primary).count(), 1);
    let made_of: Vec<(&str, &str)> = first
        .made_of
        .iter()
        .map(|ingredient| (&*ingredient.name, &*ingredient.value))
        .collect();
    assert_eq!(
        made_of,
        [
            ("types", "ShopError"),
            ("module or file", "shop"),
            ("function", "total")
        ]
    );
    assert!(hashes.iter().all(|hash| !hash.made_of.is_empty()));
    // It is told once: later events of the group change nothing.
    bench.send("total", 2);
    assert_eq!(bench.store.issue_hashes(total).unwrap(), hashes);
}

/// Sends an error that a helper raised for a caller.
fn send_for(bench: &mut Bench, caller: &str) -> IssueId {
    bench.events += 1;
    let event = json!({
        "event_id": EventId::from_bytes(bench.events.to_be_bytes()),
        "platform": "python",
        "exception": [{"type": "CheckError", "value": "not positive", "stacktrace": {"frames": [
            {"module": format!("shop.{caller}"), "function": caller, "in_app": true},
            {"module": "shop.checks", "function": "positive", "in_app": true,
             "context_line": "raise CheckError('not positive')"}
        ]}}],
    });
    let event = Event::decode(event.to_string().as_bytes()).unwrap();
    let incoming = Incoming {
        project: bench.project.id,
        key: Some(bench.project.keys[0].public),
        received: START,
    };
    let prepared = bench.digest.prepare(incoming, event).unwrap();
    wait(bench.digest.submit(vec![prepared])).unwrap()[0].issue
}

#[test]
fn the_first_caller_of_a_helper_keeps_its_group() {
    let mut bench = Bench::new();
    let total = send_for(&mut bench, "total");
    assert_eq!(send_for(&mut bench, "total"), total);
    // The second caller shows that the function raises for everybody.
    let weight = send_for(&mut bench, "weight");
    assert_ne!(weight, total);
    assert_eq!(send_for(&mut bench, "total"), total);
    assert_eq!(send_for(&mut bench, "weight"), weight);
    let price = send_for(&mut bench, "price");
    assert!(price != weight && price != total);
    // What was learned outlives the process.
    bench.digest.maintain(START).unwrap();
    bench.digest.stop();
    bench.digest = Digest::start(bench.store.clone()).unwrap();
    for (caller, issue) in [("total", total), ("weight", weight), ("price", price)] {
        assert_eq!(send_for(&mut bench, caller), issue, "{caller}");
    }
    assert_eq!(bench.store.issue(total).unwrap().count, 4);
    bench.is_clean();
}

/// Sends an error that came through the same functions as others, but was raised elsewhere.
fn send_through(bench: &mut Bench, raised_in: &str, ty: &str) -> IssueId {
    bench.events += 1;
    let frame = |module: &str, function: &str| json!({"module": module, "function": function, "in_app": true});
    let event = json!({
        "event_id": EventId::from_bytes(bench.events.to_be_bytes()),
        "platform": "python",
        "exception": [{"type": ty, "value": "no luck", "stacktrace": {"frames": [
            frame("shop.main", "main"), frame("shop.cart", "checkout"),
            frame("shop.cart", "add_up"), frame("shop.cart", raised_in),
        ]}}],
    });
    let event = Event::decode(event.to_string().as_bytes()).unwrap();
    let incoming = Incoming {
        project: bench.project.id,
        key: Some(bench.project.keys[0].public),
        received: START,
    };
    let prepared = bench.digest.prepare(incoming, event).unwrap();
    wait(bench.digest.submit(vec![prepared])).unwrap()[0].issue
}

#[test]
fn an_issue_that_looks_like_another_one_hints_at_it() {
    let mut bench = Bench::new();
    for other in 0..20 {
        bench.send(&format!("other_{other}"), 1);
    }
    let total = send_through(&mut bench, "total", "PriceError");
    assert_eq!(bench.store.issue_hints(total).unwrap(), []);
    // The same place with another type: perhaps the exception was given a better name.
    let renamed = send_through(&mut bench, "total", "CurrencyError");
    let hints = bench.store.issue_hints(renamed).unwrap();
    assert_eq!(hints.len(), 1);
    assert_eq!(hints[0].issue.id, total);
    assert!(
        hints[0].reason.contains("total (shop.cart)"),
        "{}",
        hints[0].reason
    );
    assert_eq!(bench.store.issue_hints(total).unwrap()[0].issue.id, renamed);
    // Whoever takes issues apart wants no hint to merge them again.
    bench.store.merge(total, &[renamed]).unwrap();
    assert_eq!(bench.store.issue_hints(total).unwrap(), []);
    let groups = bench.store.issue_groups(total).unwrap();
    let of_renamed = groups
        .iter()
        .find(|g| g.title.contains("Currency"))
        .unwrap();
    let new = bench.store.split(total, &[of_renamed.hash]).unwrap().id;
    assert_eq!(bench.store.issue_hints(new).unwrap(), []);
    assert_eq!(bench.store.issue_hints(total).unwrap(), []);
    bench.is_clean();
}
