//! What became of everything that was sent: the web API and the command line say the same, and the
//! sums are what was sent.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::server::{Server, says};

/// Outcomes by day, key and reason.
type Account = BTreeMap<(String, String, String), i64>;

fn account(list: &Value) -> Account {
    let mut account = Account::new();
    for outcome in list.as_array().expect("a list") {
        let text = |name: &str| outcome[name].as_str().expect("text").to_owned();
        let place = (text("date"), text("key"), text("reason"));
        let before = account.insert(place, outcome["quantity"].as_i64().expect("a number"));
        assert_eq!(before, None, "a place has one line: {outcome}");
    }
    account
}

/// A project, and how much was sent to it.
struct Sender<'s> {
    server: &'s Server,
    project: Value,
    sent: i64,
}

impl Sender<'_> {
    fn post(&mut self, endpoint: &str, body: &[u8], counts: i64) -> u16 {
        let text = |name: &str| self.project[name].as_str().expect("text");
        let auth = format!("Sentry sentry_version=7, sentry_key={}", text("key"));
        let path = format!("/api/{}/{endpoint}/", text("id"));
        self.sent += counts;
        let answer = self.server.post(&path, &[("X-Sentry-Auth", &auth)], body);
        answer.status
    }

    fn event(&mut self, number: u32, message: &str) -> u16 {
        let event = json!({"event_id": format!("{number:032x}"), "message": message});
        self.post("store", event.to_string().as_bytes(), 1)
    }

    fn in_api(&self, token: &str) -> Account {
        let slug = self.project["slug"].as_str().expect("a name");
        let path = format!("/api/0/projects/acme/{slug}/outcomes/");
        account(&self.server.api(&path, token).json())
    }

    fn in_command(&self) -> (Account, String) {
        let slug = self.project["slug"].as_str().expect("a name");
        let data = self.server.data.path();
        let list = says(&["outcomes", slug, "--org", "acme", "--json"], data);
        let table = says(&["outcomes", slug, "--org", "acme"], data);
        (account(&serde_json::from_str(&list).expect("JSON")), table)
    }
}

#[test]
fn the_totals_add_up_everywhere() {
    let server = Server::start();
    let token = server.token();
    let mut senders = ["shop", "blog"].map(|name| Sender {
        server: &server,
        project: server.project(name),
        sent: 0,
    });
    let settings = json!({
        "quota": {"per_month": 4}, "new_issues_per_minute": 0,
        "filter": {"errors": ["Boring*"]},
    });
    let arguments = ["project", "settings", "shop", "--org", "acme", "--set"];
    let settings = settings.to_string();
    says(
        &[&arguments[..], &[settings.as_str()]].concat(),
        server.data.path(),
    );

    let [shop, blog] = &mut senders;
    assert_eq!(shop.event(1, "one"), 200);
    assert_eq!(shop.event(2, "two"), 200);
    assert_eq!(shop.event(1, "one"), 200, "a duplicate is no fault");
    let boring = br#"{"exception": [{"type": "BoringError", "value": "x"}]}"#;
    assert_eq!(shop.post("store", boring, 1), 200);
    assert_eq!(shop.post("store", b"no event", 1), 400);
    let large = json!({"message": "m", "extra": {"x": "y".repeat(1_100_000)}}).to_string();
    assert_eq!(shop.post("store", large.as_bytes(), 1), 413);
    let report = json!({"discarded_events": [
        {"reason": "sample_rate", "category": "error", "quantity": 5},
        {"reason": "queue_overflow", "category": "transaction", "quantity": 2},
    ]});
    let envelope = format!("{{}}\n{{\"type\":\"client_report\"}}\n{report}\n");
    assert_eq!(shop.post("envelope", envelope.as_bytes(), 7), 200);
    assert_eq!(shop.event(3, "three"), 200);
    assert_eq!(shop.event(4, "four"), 429);
    assert_eq!(shop.event(5, "one"), 429);
    assert_eq!(blog.event(1, "the same id elsewhere"), 200);

    let reasons = |account: &Account| {
        let of =
            |((_, _, reason), count): (&(String, String, String), &i64)| (reason.clone(), *count);
        account.iter().map(of).collect::<Vec<_>>()
    };
    let expected = [
        ("accepted", 3),
        ("client:error:sample_rate", 5),
        ("client:transaction:queue_overflow", 2),
        ("duplicate", 1),
        ("filtered:error_message", 1),
        ("invalid:envelope", 1),
        ("rate_limited:project_month", 2),
        ("too_large:event", 1),
    ];
    let expected = expected.map(|(reason, count)| (reason.to_owned(), count));
    // The API is asked first: it has what was counted in the last second written down.
    let api = [shop.in_api(&token), blog.in_api(&token)];
    assert_eq!(reasons(&api[0]), expected);
    assert_eq!(reasons(&api[1]), [("accepted".to_owned(), 1)]);
    for (sender, api) in [&*shop, &*blog].into_iter().zip(&api) {
        let (command, table) = sender.in_command();
        assert_eq!(&command, api);
        let total: i64 = api.values().sum();
        assert_eq!(total, sender.sent);
        let last = table.lines().last().expect("a total");
        assert_eq!(
            last.split_whitespace().collect::<Vec<_>>(),
            ["total", &total.to_string()]
        );
        let key = sender.project["key"].as_str().expect("a key");
        assert!(api.keys().all(|(_, of, _)| of == key), "{api:?}");
    }
    // All projects in one: a line for each project, and the sum of all.
    let all = says(&["outcomes"], server.data.path());
    let last = all.lines().last().expect("a total");
    let sent = (shop.sent + blog.sent).to_string();
    assert!(last.ends_with(&format!(" {sent}")), "{all}");
}
