//! Every endpoint, answer and account of ingest, on a real socket.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::server::{Answer, Server, says};

/// A server with one project.
pub(crate) struct Ingest {
    pub(crate) server: Server,
    pub(crate) project: Value,
    pub(crate) token: String,
}

/// The id of an event.
pub(crate) const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

impl Ingest {
    pub(crate) fn start() -> Ingest {
        let server = Server::start();
        let project = server.project("shop");
        let token = server.token();
        Ingest {
            server,
            project,
            token,
        }
    }

    pub(crate) fn key(&self) -> &str {
        self.project["key"].as_str().expect("a key")
    }

    pub(crate) fn path(&self, endpoint: &str) -> String {
        format!(
            "/api/{}/{endpoint}",
            self.project["id"].as_str().expect("an id")
        )
    }

    pub(crate) fn auth(&self) -> String {
        format!(
            "Sentry sentry_version=7, sentry_key={}, sentry_client=test/1",
            self.key()
        )
    }

    pub(crate) fn post(&self, endpoint: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let auth = self.auth();
        let mut all = vec![("X-Sentry-Auth", auth.as_str())];
        all.extend(headers);
        self.server.post(&self.path(endpoint), &all, body)
    }

    pub(crate) fn envelope(&self, items: &[(Value, &[u8])]) -> Answer {
        let mut body = format!("{}\n", json!({"event_id": ID})).into_bytes();
        for (header, payload) in items {
            let mut header = header.clone();
            header["length"] = json!(payload.len());
            body.extend(format!("{header}\n").bytes());
            body.extend(*payload);
            body.push(b'\n');
        }
        self.post("envelope/", &[], &body)
    }

    pub(crate) fn settings(&self, settings: &Value) {
        let arguments = ["project", "settings", "shop", "--org", "acme", "--set"];
        let text = settings.to_string();
        let mut arguments = arguments.to_vec();
        arguments.push(&text);
        says(&arguments, self.server.data.path());
    }

    pub(crate) fn api(&self, path: &str) -> Value {
        let path = format!("/api/0/projects/acme/shop/{path}");
        let answer = self.server.api(&path, &self.token);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(crate) fn event(&self, id: &str) -> Value {
        self.api(&format!("events/{id}/json/"))
    }

    /// Returns outcomes as `reason=count`, sorted.
    pub(crate) fn outcomes(&self) -> Vec<String> {
        let outcomes = self.api("outcomes/");
        let mut lines: Vec<String> = outcomes
            .as_array()
            .expect("a list")
            .iter()
            .map(|outcome| {
                format!(
                    "{}={}",
                    outcome["reason"].as_str().unwrap(),
                    outcome["quantity"]
                )
            })
            .collect();
        lines.sort();
        lines
    }
}

fn id_of(number: u32) -> String {
    format!("{number:032x}")
}

#[test]
fn who_may_send() {
    let ingest = Ingest::start();
    let server = &ingest.server;
    let event = json!({"message": "m"}).to_string();
    let check = |path: &str, headers: &[(&str, &str)], status: u16, detail: &str| {
        let answer = server.post(path, headers, event.as_bytes());
        let found = (
            answer.status,
            answer.json()["detail"].as_str().unwrap_or("").to_owned(),
        );
        assert_eq!(found, (status, detail.to_owned()), "{path} {headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    };
    let (store, key) = (ingest.path("store/"), ingest.key());
    let sentry = ingest.auth();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{key}:"));
    let basic = format!("Basic {basic}");
    check(&store, &[("X-Sentry-Auth", &sentry)], 200, "");
    check(&store, &[("Authorization", &sentry)], 200, "");
    check(&store, &[("Authorization", &basic)], 200, "");
    check(
        &format!("{store}?sentry_key={key}&sentry_version=7"),
        &[],
        200,
        "",
    );
    check(
        store.trim_end_matches('/'),
        &[("X-Sentry-Auth", &sentry)],
        200,
        "",
    );
    check("/api/store/", &[("X-Sentry-Auth", &sentry)], 200, "");
    check(
        &format!("/behind/a/proxy{store}"),
        &[("X-Sentry-Auth", &sentry)],
        200,
        "",
    );
    check(&store, &[], 401, "missing authorization information");
    check(
        &format!("{store}?sentry_key=x"),
        &[],
        400,
        "bad sentry DSN public key",
    );
    let unknown = "Sentry sentry_key=00000000000000000000000000000000";
    let rejected = |reason: &str| format!("event submission rejected with_reason: {reason}");
    check(
        &store,
        &[("X-Sentry-Auth", unknown)],
        403,
        &rejected("no project has this key"),
    );
    let other = rejected("the key belongs to another project");
    check(
        "/api/4711/store/",
        &[("X-Sentry-Auth", &sentry)],
        403,
        &other,
    );
    check(
        "/api/shop/store/",
        &[("X-Sentry-Auth", &sentry)],
        400,
        "invalid project path parameter",
    );
    let newer = format!("Sentry sentry_version=99, sentry_key={key}");
    check(
        &store,
        &[("X-Sentry-Auth", &newer)],
        400,
        "unsupported protocol version",
    );
}

#[test]
fn a_project_made_by_another_process_is_known_at_once() {
    let ingest = Ingest::start();
    let later = ingest.server.project("later");
    let answer = ingest
        .server
        .send(&later, &json!({"event_id": ID, "message": "m"}));
    assert_eq!((answer.status, answer.json()), (200, json!({"id": ID})));
}

#[test]
fn browsers_may_send_and_read_the_answer() {
    let ingest = Ingest::start();
    let mut socket = TcpStream::connect(ingest.server.url.trim_start_matches("http://")).unwrap();
    let path = ingest.path("envelope/");
    write!(socket, "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let answer = answer.to_ascii_lowercase();
    for expected in [
        "http/1.1 200",
        "access-control-allow-origin: *",
        "access-control-allow-headers: x-sentry-auth",
        "access-control-expose-headers: x-sentry-error, x-sentry-rate-limits, retry-after",
        "access-control-max-age: 3600",
    ] {
        assert!(answer.contains(expected), "{expected} in {answer}");
    }
}

#[test]
fn the_oldest_browsers_send_by_an_image() {
    let ingest = Ingest::start();
    let event = json!({"event_id": ID, "message": "m"}).to_string();
    let data = base64::engine::general_purpose::STANDARD.encode(event);
    let data = data
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let path = format!(
        "{}?sentry_key={}&sentry_data={data}",
        ingest.path("store/"),
        ingest.key()
    );
    let answer = ingest.server.get(&path, &[]);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("image/gif"))
    );
    assert!(answer.body.starts_with(b"GIF89a"));
    assert_eq!(ingest.event(ID)["logentry"]["formatted"], "m");
}

#[test]
fn a_tunnel_needs_nothing_but_the_dsn_inside() {
    let ingest = Ingest::start();
    let dsn = ingest.project["dsn"].as_str().unwrap();
    let body = format!(
        "{}\n{{\"type\":\"event\"}}\n{{\"message\":\"m\"}}",
        json!({"dsn": dsn, "event_id": ID})
    );
    let answer = ingest.server.post("/tunnel", &[], body.as_bytes());
    assert_eq!((answer.status, answer.json()), (200, json!({"id": ID})));
    let other = body.replace(ingest.key(), &"0".repeat(32));
    assert_eq!(
        ingest.server.post("/tunnel", &[], other.as_bytes()).status,
        403
    );
    assert_eq!(ingest.server.post("/tunnel", &[], b"{}\n").status, 401);
    // The key of the request and the key inside must agree.
    assert_eq!(ingest.post("envelope/", &[], other.as_bytes()).status, 401);
}

#[test]
fn the_envelopes_id_wins_and_unknown_items_do_no_harm() {
    let ingest = Ingest::start();
    let event = json!({"event_id": id_of(1), "message": "m"}).to_string();
    let answer = ingest.envelope(&[
        (
            json!({"type": "attachment", "filename": "../a\nb.txt"}),
            b"\n\n",
        ),
        (json!({"type": "of_the_future"}), b"?"),
        (json!({"type": "event"}), event.as_bytes()),
        (json!({"type": "log", "item_count": 3}), b"{\"items\":[]}"),
        (json!({"type": "replay_recording"}), b"{}\n\x78\x9c"),
    ]);
    assert_eq!((answer.status, answer.json()), (200, json!({"id": ID})));
    assert_eq!(ingest.event(ID)["event_id"], ID);
    let attachments = ingest.api(&format!("events/{ID}/attachments/"));
    assert_eq!(attachments[0]["name"], "ab.txt");
    assert_eq!(attachments[0]["size"], 2);
    assert_eq!(
        ingest.outcomes(),
        [
            "accepted=1",
            "dropped:log=3",
            "dropped:replay=1",
            "dropped:unknown_item=1",
            "item:attachment=1"
        ]
    );
    let answer = ingest.post(
        "envelope/",
        &[],
        b"{}\n{\"type\":\"session\"}\n{\"attrs\":{\"release\":\"1\"}}",
    );
    assert_eq!((answer.status, answer.json()), (200, json!({})));
}

#[test]
fn bodies_one_after_another_have_nothing_of_each_other() {
    let ingest = Ingest::start();
    let headers = [("Content-Encoding", "gzip")];
    let gzip = |text: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    };
    let body = |id: &str, text: &str| {
        let item = json!({"event_id": id, "message": text}).to_string();
        let length = item.len();
        let text = format!("{{}}\n{{\"type\":\"event\",\"length\":{length}}}\n{item}\n");
        gzip(text.as_bytes())
    };
    // Long and short in turn, and broken ones between, on every thread of the server.
    let sent: Vec<(String, String)> = (0..60)
        .map(|n| {
            let letter = char::from(b'a' + n % 26).to_string();
            (
                format!("{:032x}", n + 1),
                letter.repeat(1 + usize::from(n % 7) * 900),
            )
        })
        .collect();
    for (id, text) in &sent {
        let mut broken = body(id, &"secret ".repeat(500));
        let middle = broken.len() / 2;
        broken[middle] ^= 0x55;
        broken.truncate(broken.len() - 9);
        assert_eq!(ingest.post("envelope/", &headers, &broken).status, 400);
        assert_eq!(
            ingest.post("envelope/", &headers, &body(id, text)).status,
            200
        );
    }
    for (id, text) in &sent {
        assert_eq!(ingest.event(id)["logentry"]["formatted"], *text);
    }
    // A body that is one JSON text shows whatever else would be behind it.
    for n in 1..=20_u8 {
        let id = format!("{:032x}", 1000 + u32::from(n));
        let long = body(&id, &"long ".repeat(900));
        assert_eq!(ingest.post("envelope/", &headers, &long).status, 200);
        let short = gzip(br#"{"message":"short"}"#);
        assert_eq!(ingest.post("store/", &headers, &short).status, 200);
    }
    assert_eq!(
        ingest.outcomes(),
        ["accepted=100", "invalid:envelope=60"],
        "nothing but what was sent"
    );
}

#[test]
fn nonsense_gets_a_clear_answer_and_an_outcome() {
    let ingest = Ingest::start();
    let check =
        |endpoint: &str, headers: &[(&str, &str)], body: &[u8], status: u16, detail: &str| {
            let answer = ingest.post(endpoint, headers, body);
            let found = answer.json()["detail"].as_str().unwrap_or("").to_owned();
            assert_eq!((answer.status, found.as_str()), (status, detail));
            assert_eq!(answer.header("x-sentry-error"), Some(detail));
        };
    check(
        "store/",
        &[],
        b"",
        400,
        "invalid event: expected an object at byte 0",
    );
    check(
        "store/",
        &[],
        b"{\"a\":",
        400,
        "invalid event: expected a value at byte 5",
    );
    check(
        "store/",
        &[],
        b"?",
        400,
        "the body is neither JSON nor base64 of compressed JSON",
    );
    // Letters alone are base64 of something.
    check(
        "store/",
        &[],
        b"garbage",
        400,
        "the body is neither JSON nor base64 of compressed JSON",
    );
    check(
        "store/",
        &[],
        b"[]",
        400,
        "invalid event: expected an object at byte 0",
    );
    check(
        "envelope/",
        &[],
        b"nonsense",
        400,
        "invalid envelope: the envelope's header is no JSON object (at byte 0)",
    );
    check(
        "envelope/",
        &[],
        b"{}\n{\"type\":\"event\",\"length\":99}\n{}",
        400,
        "invalid envelope: an item is shorter than its length says (at byte 3)",
    );
    let gzip = [("Content-Encoding", "gzip")];
    check(
        "envelope/",
        &gzip,
        b"nonsense",
        400,
        "the body does not decode: its content encoding is broken",
    );
    let large = format!("{{\"extra\":{{\"a\":\"{}\"}}}}", "x".repeat(1024 * 1024));
    check(
        "store/",
        &[],
        large.as_bytes(),
        413,
        "the event is larger than 1 MiB after decoding",
    );
    assert_eq!(
        ingest.post("store/", &[], b"{\"message\":\"m\"}").status,
        200
    );
    assert_eq!(
        ingest.outcomes(),
        [
            "accepted=1",
            "invalid:envelope=5",
            "invalid:json=3",
            "too_large:event=1"
        ]
    );
}

#[test]
fn a_bad_field_does_not_lose_the_event() {
    let ingest = Ingest::start();
    let event = br#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","message":"kept\u0000\ud800","user":"?",
        "timestamp":"yesterday","level":"awful","extra":{"nan":NaN,"big":123456789012345678901234567890}}"#;
    assert_eq!(ingest.post("store/", &[], event).status, 200);
    let stored = ingest.event(ID);
    assert_eq!(stored["logentry"]["formatted"], "kept\0\u{fffd}");
    assert_eq!(
        stored["extra"],
        json!({"nan": "NaN", "big": "123456789012345678901234567890"})
    );
    for (field, value) in [
        ("user", "?"),
        ("timestamp", "yesterday"),
        ("level", "awful"),
    ] {
        assert_eq!(stored["_meta"][field][""]["val"], value);
    }
}

#[test]
fn an_event_that_was_sent_twice_counts_once() {
    let ingest = Ingest::start();
    for _ in 0..3 {
        let body = json!({"event_id": ID, "message": "m"}).to_string();
        assert_eq!(ingest.post("store/", &[], body.as_bytes()).status, 200);
    }
    assert_eq!(ingest.outcomes(), ["accepted=1", "duplicate=2"]);
    assert_eq!(ingest.api("issues/")[0]["count"], "1");
}

#[test]
fn secrets_do_not_reach_the_store() {
    let ingest = Ingest::start();
    let event = json!({
        "event_id": ID,
        "exception": [{"type": "E", "value": "no route to redis://u:geheim@cache", "stacktrace": {"frames": [
            {"function": "pay", "vars": {"card": "4111 1111 1111 1111", "db_password": "hunter2"}}]}}],
        "request": {"headers": {"Authorization": "Bearer abcDEF123"}, "data": "a=1&token=s3cr3t"},
    });
    assert_eq!(
        ingest
            .post("store/", &[], event.to_string().as_bytes())
            .status,
        200
    );
    let stored = ingest.event(ID);
    let text = stored.to_string();
    for secret in ["geheim", "4111", "hunter2", "abcDEF123", "s3cr3t"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let vars = "/_meta/exception/values/0/stacktrace/frames/0/vars/db_password//rem/0/0";
    assert_eq!(stored.pointer(vars), Some(&json!("@password:filter")));
}

#[test]
fn filters_are_counted_by_rule_and_answered_with_200() {
    let ingest = Ingest::start();
    ingest.settings(&json!({"filter": {
        "releases": ["shop@0.*"], "environments": ["test"], "errors": ["Ignored*"], "localhost": true,
    }}));
    for event in [
        json!({"release": "shop@0.1", "message": "m"}),
        json!({"environment": "test", "message": "m"}),
        json!({"exception": [{"type": "IgnoredError"}]}),
        json!({"message": "m", "request": {"url": "http://localhost:8000/"}}),
        json!({"message": "kept", "release": "shop@1.0"}),
    ] {
        assert_eq!(
            ingest
                .post("store/", &[], event.to_string().as_bytes())
                .status,
            200
        );
    }
    assert_eq!(
        ingest.outcomes(),
        [
            "accepted=1",
            "filtered:environment=1",
            "filtered:error_message=1",
            "filtered:localhost=1",
            "filtered:release=1"
        ]
    );
}

#[test]
fn a_quota_ends_and_new_issues_still_pass() {
    let ingest = Ingest::start();
    ingest.settings(&json!({"quota": {"per_month": 2}, "new_issues_per_minute": 1}));
    let send = |number: u32, ty: &str| {
        let event = json!({"event_id": id_of(number), "exception": [{"type": ty, "value": "v"}]});
        ingest.post("store/", &[], event.to_string().as_bytes())
    };
    assert_eq!(send(1, "StormError").status, 200);
    assert_eq!(send(2, "StormError").status, 200);
    let limited = send(3, "StormError");
    assert_eq!(limited.status, 429);
    let seconds: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&seconds));
    let limits = limited.header("x-sentry-rate-limits").unwrap();
    assert_eq!(
        limits,
        format!("{seconds}:default;error;security;transaction:project:project_month")
    );
    assert_eq!(
        send(4, "OtherError").status,
        200,
        "the first event of a new issue"
    );
    assert_eq!(send(5, "OtherError").status, 429);
    // Reports of what was dropped are taken all the same.
    let report =
        br#"{"discarded_events":[{"reason":"ratelimit_backoff","category":"error","quantity":7}]}"#;
    let answer = ingest.envelope(&[(json!({"type": "client_report"}), report)]);
    assert_eq!(answer.status, 200);
    assert_eq!(
        ingest.outcomes(),
        [
            "accepted=3",
            "client:error:ratelimit_backoff=7",
            "rate_limited:project_month=2"
        ]
    );
    let line = says(
        &["outcomes", "shop", "--org", "acme", "--json"],
        ingest.server.data.path(),
    );
    let total: u64 = serde_json::from_str::<Vec<Value>>(&line)
        .unwrap()
        .iter()
        .map(|outcome| outcome["quantity"].as_u64().unwrap())
        .sum();
    assert_eq!(total, 12);
}

#[test]
fn a_month_is_counted_across_a_restart() {
    let ingest = Ingest::start();
    ingest.settings(&json!({"key_quota": {"per_month": 1}, "new_issues_per_minute": 0}));
    assert_eq!(
        ingest.post("store/", &[], b"{\"message\":\"m\"}").status,
        200
    );
    let (auth, path) = (ingest.auth(), ingest.path("store/"));
    let (_, data) = ingest.server.terminate();
    let server = Server::start_in(data, &[]);
    let answer = server.post(&path, &[("X-Sentry-Auth", &auth)], b"{\"message\":\"m\"}");
    assert_eq!(answer.status, 429);
    assert!(
        answer
            .header("x-sentry-rate-limits")
            .unwrap()
            .ends_with(":key:key_month")
    );
}

#[test]
fn feedback_and_sessions_may_come_before_their_event() {
    let ingest = Ingest::start();
    let report = json!({"event_id": ID, "name": "Ann", "email": "ann@example.test", "comments": "It broke ☃"});
    let answer = ingest.envelope(&[(
        json!({"type": "user_report"}),
        report.to_string().as_bytes(),
    )]);
    assert_eq!(answer.status, 200);
    let waiting = ingest.api("user-feedback/");
    assert_eq!(
        (&waiting[0]["comments"], &waiting[0]["issue"]),
        (&json!("It broke ☃"), &Value::Null)
    );
    for status in ["crashed", "ok"] {
        let session =
            json!({"sid": id_of(7), "status": status, "errors": 1, "attrs": {"release": "shop@1"}});
        ingest.envelope(&[(json!({"type": "session"}), session.to_string().as_bytes())]);
    }
    for (sid, status) in [(8, "exited"), (9, "exited"), (10, "unhandled")] {
        let session = json!({"sid": id_of(sid), "status": status, "attrs": {"release": "shop@1"}});
        ingest.envelope(&[(json!({"type": "session"}), session.to_string().as_bytes())]);
    }
    let event = json!({"event_id": ID, "message": "m"}).to_string();
    assert_eq!(ingest.post("store/", &[], event.as_bytes()).status, 200);
    assert!(ingest.api(&format!("user-feedback/?event={ID}"))[0]["issue"]["id"].is_string());
    let health = &ingest.api("sessions/")[0];
    assert_eq!(
        (
            &health["sessions"],
            &health["crashed"],
            &health["unhandled"],
            &health["crashFreeRate"]
        ),
        (&json!(4), &json!(1), &json!(1), &json!(0.75))
    );
}

#[test]
fn jobs_give_signs_of_life_by_plain_http() {
    let ingest = Ingest::start();
    let path = ingest.path(&format!("cron/nightly-import/{}/", ingest.key()));
    let answer = ingest
        .server
        .get(&format!("{path}?status=in_progress"), &[]);
    assert_eq!(answer.status, 202);
    assert_eq!(
        ingest
            .server
            .get(&format!("{path}?status=ok&duration=1.5"), &[])
            .status,
        202
    );
    let body = json!({"status": "error", "check_in_id": ID, "monitor_config": {"schedule": {"type": "interval"}}});
    assert_eq!(
        ingest
            .server
            .post(&path, &[], body.to_string().as_bytes())
            .status,
        202
    );
    assert_eq!(
        ingest
            .server
            .get(&format!("{path}?status=done"), &[])
            .status,
        400
    );
    let runs = ingest.api("monitors/nightly-import/checkins/");
    let runs: Vec<_> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (&run["status"], &run["duration"]))
        .collect();
    assert_eq!(
        runs,
        [
            (&json!("error"), &Value::Null),
            (&json!("ok"), &json!(1500.0))
        ]
    );
    assert_eq!(
        ingest.api("monitors/")[0]["config"]["schedule"]["type"],
        "interval"
    );
}

#[test]
fn security_reports_of_both_forms() {
    let ingest = Ingest::start();
    let path = format!(
        "{}?sentry_key={}&sentry_release=web%401",
        ingest.path("security/"),
        ingest.key()
    );
    let send = |content_type: &str, body: &Value| {
        ingest
            .server
            .post(
                &path,
                &[("Content-Type", content_type)],
                body.to_string().as_bytes(),
            )
            .status
    };
    let old = json!({"csp-report": {"document-uri": "https://shop.example/", "effective-directive": "img-src",
        "blocked-uri": "https://ads.example/x.png"}});
    assert_eq!(send("application/csp-report", &old), 201);
    let new = json!([{"type": "csp-violation", "url": "https://shop.example/", "body": {
        "effectiveDirective": "script-src-elem", "blockedURL": "inline"}}]);
    assert_eq!(send("application/reports+json", &new), 201);
    assert_eq!(send("image/png", &old), 415);
    assert_eq!(send("application/csp-report", &json!({"x": 1})), 400);
    let issues = ingest.api("issues/");
    let mut titles: Vec<_> = issues
        .as_array()
        .unwrap()
        .iter()
        .map(|issue| issue["title"].as_str().unwrap())
        .collect();
    titles.sort_unstable();
    assert_eq!(
        titles,
        [
            "Blocked 'image' from 'ads.example'",
            "Blocked 'script' from 'inline'"
        ]
    );
}

#[test]
fn a_method_that_an_endpoint_does_not_have_is_refused_with_a_reason() {
    let ingest = Ingest::start();
    let answer = ingest.server.get(&ingest.path("envelope/"), &[]);
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST,OPTIONS"));
    assert_eq!(answer.json()["detail"], "this endpoint does not take GET");
}
