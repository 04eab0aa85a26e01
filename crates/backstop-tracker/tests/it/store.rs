//! The store and the digest through their public methods, on a real file.

use backstop_protocol::{Level, Timestamp};
use backstop_tracker::model::{
    Decision, IssueQuery, Key, NewProject, ProjectId, Sort, Status, Which,
};
use backstop_tracker::store::{ErrorKind, Store};
use serde_json::json;

use crate::bench::{Bench, START};

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
