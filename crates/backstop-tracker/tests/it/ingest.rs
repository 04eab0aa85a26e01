//! Every endpoint, answer, limit and account of ingest, on a real socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::server::{Answer, Server, says};

/// A server with one project.
struct Ingest {
    server: Server,
    project: Value,
    token: String,
}

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

impl Ingest {
    fn start() -> Ingest {
        let server = Server::start();
        let project = server.project("shop");
        let token = server.token();
        Ingest {
            server,
            project,
            token,
        }
    }

    fn key(&self) -> &str {
        self.project["key"].as_str().expect("a key")
    }

    fn path(&self, endpoint: &str) -> String {
        format!(
            "/api/{}/{endpoint}",
            self.project["id"].as_str().expect("an id")
        )
    }

    fn auth(&self) -> String {
        format!(
            "Sentry sentry_version=7, sentry_key={}, sentry_client=test/1",
            self.key()
        )
    }

    fn post(&self, endpoint: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let auth = self.auth();
        let mut all = vec![("X-Sentry-Auth", auth.as_str())];
        all.extend(headers);
        self.server.post(&self.path(endpoint), &all, body)
    }

    fn envelope(&self, items: &[(Value, &[u8])]) -> Answer {
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

    fn settings(&self, settings: &Value) {
        let arguments = ["project", "settings", "shop", "--org", "acme", "--set"];
        let text = settings.to_string();
        let mut arguments = arguments.to_vec();
        arguments.push(&text);
        says(&arguments, self.server.data.path());
    }

    fn api(&self, path: &str) -> Value {
        let path = format!("/api/0/projects/acme/shop/{path}");
        let answer = self.server.api(&path, &self.token);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    fn event(&self, id: &str) -> Value {
        self.api(&format!("events/{id}/json/"))
    }

    /// Returns outcomes as `reason=count`, sorted.
    fn outcomes(&self) -> Vec<String> {
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

/// A form as crash reporters send it.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, bytes) in parts {
        body.extend(
            format!("--cut\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").bytes(),
        );
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--cut--\r\n");
    body
}

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=cut");

#[test]
fn a_minidump_is_a_crash_with_a_file() {
    let ingest = Ingest::start();
    let event = json!({"event_id": ID, "release": "native@1", "tags": {"a": "b"}});
    let crumbs = [
        json!({"message": "second", "timestamp": "2026-11-22T10:00:02Z"}),
        json!({"message": "first", "timestamp": "2026-11-22T10:00:01Z"}),
    ];
    let pack = |value: &Value| rmp_serde::to_vec(value).unwrap();
    let (event, crumb1, crumb2) = (pack(&event), pack(&crumbs[0]), pack(&crumbs[1]));
    let body = form(&[
        ("name=\"guid\"", b"abc"),
        (
            "name=\"upload_file_minidump\"; filename=\"a.dmp\"",
            b"MDMP\x93\xa7\0\0",
        ),
        (
            "name=\"__sentry-event\"; filename=\"__sentry-event\"",
            &event,
        ),
        (
            "name=\"__sentry-breadcrumb1\"; filename=\"__sentry-breadcrumb1\"",
            &crumb1,
        ),
        (
            "name=\"__sentry-breadcrumb2\"; filename=\"__sentry-breadcrumb2\"",
            &crumb2,
        ),
    ]);
    let path = format!("{}?sentry_key={}", ingest.path("minidump/"), ingest.key());
    let answer = ingest.server.post(&path, &[FORM], &body);
    assert_eq!(
        (answer.status, answer.text()),
        (200, "9ec79c33-ec99-42ab-8353-589fcb2e04dc".to_owned())
    );
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let stored = ingest.event(ID);
    assert_eq!(stored["level"], "fatal");
    assert_eq!(
        stored["exception"]["values"][0]["mechanism"]["type"],
        "minidump"
    );
    assert_eq!(stored["breadcrumbs"]["values"][0]["message"], "first");
    assert_eq!(stored["extra"]["guid"], "abc");
    assert_eq!(stored["release"], "native@1");
    let more = form(&[("name=\"log\"; filename=\"x.log\"", b"line\r\n")]);
    let path = ingest.path(&format!("events/{ID}/attachments/"));
    let path = format!("{path}?sentry_key={}", ingest.key());
    assert_eq!(ingest.server.post(&path, &[FORM], &more).status, 201);
    let files = ingest.api(&format!("events/{ID}/attachments/"));
    let files: Vec<_> = files
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (&file["name"], &file["type"], &file["size"]))
        .collect();
    assert_eq!(
        files,
        [
            (&json!("a.dmp"), &json!("event.minidump"), &json!(8)),
            (&json!("x.log"), &json!("event.attachment"), &json!(6))
        ]
    );
    let none = ingest.post("minidump/", &[FORM], &form(&[("name=\"a\"", b"b")]));
    assert_eq!(
        (none.status, none.json()["detail"].as_str()),
        (400, Some("missing minidump"))
    );
    assert_eq!(ingest.post("minidump/", &[], b"MDMP").status, 415);
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

/// Opens a connection and sends the head of an envelope that announces a body.
fn begin(ingest: &Ingest, length: usize) -> TcpStream {
    let mut socket = TcpStream::connect(ingest.server.url.trim_start_matches("http://")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        socket,
        "POST {} HTTP/1.1\r\nHost: x\r\nX-Sentry-Auth: {}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
        ingest.path("envelope/"),
        ingest.auth()
    )
    .unwrap();
    socket
}

fn status_of(socket: &mut TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_sender_that_stops_in_the_middle_leaves_nothing_behind() {
    let ingest = Ingest::start();
    let mut socket = begin(&ingest, 1000);
    socket
        .write_all(b"{}\n{\"type\":\"event\"}\n{\"message\":")
        .unwrap();
    socket.shutdown(Shutdown::Both).unwrap();
    // Many that only begin do not keep others from sending.
    let idle: Vec<TcpStream> = (0..200).map(|_| begin(&ingest, 1000)).collect();
    assert_eq!(
        ingest.post("store/", &[], b"{\"message\":\"m\"}").status,
        200
    );
    drop(idle);
    assert_eq!(ingest.api("issues/").as_array().unwrap().len(), 1);
}

#[test]
fn too_much_is_refused_before_it_is_read() {
    let ingest = Ingest::start();
    let mut socket = begin(&ingest, 10_000_000_000);
    assert_eq!(status_of(&mut socket), "413");
    assert_eq!(
        ingest.post("store/", &[], b"{\"message\":\"m\"}").status,
        200
    );
    assert_eq!(ingest.outcomes(), ["accepted=1", "too_large:request=1"]);
}

/// Zeros that a bomb's repeated part becomes.
const STEP_BYTES: usize = 1 << 20;
/// So many parts are more than ten gigabytes.
const STEPS: usize = 10 * 1024;

/// Bodies of ten gigabytes of zeros, by the endpoint and the content encoding.
fn bombs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let zeros = vec![0_u8; STEP_BYTES];
    // A flush ends at a whole byte, so that the part after the first one can be repeated.
    let repeat = |bytes: &[u8], first: usize| {
        let mut bomb = bytes[..first].to_vec();
        bomb.extend(bytes[first..].repeat(STEPS));
        bomb
    };
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&zeros).unwrap();
    zlib.flush().unwrap();
    let first = zlib.get_ref().len();
    zlib.write_all(&zeros).unwrap();
    zlib.flush().unwrap();
    let zlib = repeat(zlib.get_ref(), first);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let gzip = gzip.finish().unwrap().repeat(STEPS);
    let zstd = zstd::encode_all(&zeros[..], 1).unwrap().repeat(STEPS);
    // Made by the reference encoder: the first part and every other one, of 16 MiB each.
    let mut brotli = b"\xcb\xff\xff\x3f\x00\x24\x00\xe2\xb1\x40\x72\xef\xff\xf8\xff\xff\x07\x80\x04\x40\x1c\x16\x80\xee\xfd\x9f\x01".to_vec();
    brotli.extend(
        b"\xfc\xff\xff\x03\x40\x02\x20\x0e\x0b\x40\xf7\xfe\x8f\xff\xff\x7f\x00\x48\x00\xc4\x61\x01\xe8\xde\xff\x19"
            .repeat(STEPS / 16),
    );
    let base64 = base64::engine::general_purpose::STANDARD.encode(&zlib);
    // Without the two bytes of its header, zlib is raw deflate.
    let raw = zlib[2..].to_vec();
    vec![
        ("envelope/", "gzip", gzip.clone()),
        ("envelope/", "deflate", zlib.clone()),
        ("envelope/", "deflate", raw),
        ("envelope/", "br", brotli),
        ("envelope/", "zstd", zstd),
        // Without a header that says which.
        ("envelope/", "", gzip),
        ("store/", "", zlib),
        ("store/", "", base64.into_bytes()),
    ]
}

#[test]
fn bombs_cost_no_more_than_their_limit_and_others_are_served() {
    let ingest = Ingest::start();
    let event = || ingest.post("store/", &[], b"{\"message\":\"m\"}").status;
    assert_eq!(event(), 200);
    let before = ingest.server.memory_peak();
    let done = AtomicBool::new(false);
    let others = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut sent = 1;
            loop {
                // One more after the last bomb, so that there is one in any case.
                let last = done.load(Ordering::Relaxed);
                assert_eq!(event(), 200);
                sent += 1;
                if last {
                    return sent;
                }
            }
        });
        for (endpoint, encoding, body) in bombs() {
            let answer = ingest.post(endpoint, &[("Content-Encoding", encoding)], &body);
            assert!(body.len() < 20_000_000, "{encoding}: {}", body.len());
            let detail = answer.text();
            assert_eq!(answer.status, 413, "{endpoint} {encoding}: {detail}");
        }
        let items = "{\"type\":\"event\",\"length\":2}\n{}\n".repeat(1_000_000);
        let answer = ingest.post("envelope/", &[], format!("{{}}\n{items}").as_bytes());
        assert_eq!(answer.status, 413);
        assert_eq!(
            answer.json()["detail"],
            "the envelope has more than 1000 items"
        );
        done.store(true, Ordering::Relaxed);
        others.join().unwrap()
    });
    let peak = ingest.server.memory_peak();
    println!(
        "memory: {} MiB before, {} MiB at most",
        before >> 20,
        peak >> 20
    );
    // One body as it came and as it was decoded, and what the allocator makes of that.
    assert!(peak < 400 << 20, "{peak}");
    let outcomes = [
        format!("accepted={others}"),
        "too_large:request=9".to_owned(),
    ];
    assert_eq!(ingest.outcomes(), outcomes);
}

#[test]
fn chunked_bodies_need_no_length() {
    let ingest = Ingest::start();
    let mut socket = TcpStream::connect(ingest.server.url.trim_start_matches("http://")).unwrap();
    write!(
        socket,
        "POST {}?sentry_key={} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        ingest.path("store/"),
        ingest.key()
    )
    .unwrap();
    for piece in ["{\"mess", "age\":\"m\"", "}"] {
        write!(socket, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
    }
    socket.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(status_of(&mut socket), "200");
}

/// A crash as Unreal Engine's reporter sends it: names in 260 bytes, all of it in one zlib stream.
fn unreal_crash(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut crash = Vec::new();
    let text = |crash: &mut Vec<u8>, text: &str| {
        crash.extend(260_u32.to_le_bytes());
        crash.extend(text.bytes());
        crash.resize(crash.len() + 260 - text.len(), 0);
    };
    let header = |crash: &mut Vec<u8>, count: usize| {
        text(crash, "UE4CC-Windows-1");
        text(crash, "UE4CC-Windows-1.ue4crash");
        crash.extend(0_u32.to_le_bytes());
        crash.extend(u32::try_from(count).unwrap().to_le_bytes());
    };
    header(&mut crash, 0);
    for (number, (name, content)) in (0_u32..).zip(files) {
        crash.extend(number.to_le_bytes());
        text(&mut crash, name);
        crash.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        crash.extend(*content);
    }
    header(&mut crash, files.len());
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&crash).unwrap();
    zlib.finish().unwrap()
}

#[test]
fn a_crash_of_unreal_engine_is_an_event_with_files() {
    let ingest = Ingest::start();
    let context = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<FGenericCrashContext><RuntimeProperties>\
         <UserName>bruno</UserName><GameName>UE4-&lt;Yet&gt;</GameName>\
         <ErrorMessage>Access violation &amp; more</ErrorMessage></RuntimeProperties>\
         <EngineData><RHI.RHIName>D3D11</RHI.RHIName></EngineData>\
         <GameData><level>seven</level><__sentry>{{\"event_id\":\"{ID}\",\"release\":\"game@1\"}}</__sentry></GameData>\
         </FGenericCrashContext>"
    );
    let crash = unreal_crash(&[
        ("CrashContext.runtime-xml", context.as_bytes()),
        ("Game.log", b"LogInit: started"),
        ("UE4Minidump.dmp", b"MDMP\x93\xa7\0\0"),
    ]);
    let path = ingest.path(&format!("unreal/{}/", ingest.key()));
    let from = format!("{path}?AppID=CrashReporter&UserID=login%7Cepic%7Cmachine");
    let answer = ingest.server.post(&from, &[], &crash);
    assert_eq!(
        (answer.status, answer.text()),
        (200, "9ec79c33-ec99-42ab-8353-589fcb2e04dc".to_owned())
    );
    let stored = ingest.event(ID);
    assert_eq!(stored["level"], "fatal");
    assert_eq!(stored["release"], "game@1");
    assert_eq!(stored["user"]["id"], "login");
    assert_eq!(stored["user"]["username"], "bruno");
    assert_eq!(stored["contexts"]["unreal"]["GameName"], "UE4-<Yet>");
    assert_eq!(stored["contexts"]["game"], json!({"level": "seven"}));
    assert_eq!(stored["contexts"]["engine"]["RHI.RHIName"], "D3D11");
    assert_eq!(stored["tags"]["machine_id"], "machine");
    let files = ingest.api(&format!("events/{ID}/attachments/"));
    let mut files: Vec<_> = files
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            (
                file["name"].as_str().unwrap(),
                file["type"].as_str().unwrap(),
            )
        })
        .collect();
    files.sort_unstable();
    assert_eq!(
        files,
        [
            ("CrashContext.runtime-xml", "event.attachment"),
            ("Game.log", "event.attachment"),
            ("UE4Minidump.dmp", "event.minidump"),
        ]
    );
    let exception = &stored["exception"]["values"][0];
    assert_eq!(exception["value"], "Access violation & more");

    // Newer engines write `CR1`, one header and the files.
    let mut newer = b"CR1".to_vec();
    for text in ["UECC-Windows-1", "UECC-Windows-1.uecrash"] {
        newer.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        newer.extend(text.bytes());
    }
    newer.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    newer.extend([8, 0, 0, 0]);
    newer.extend(b"Game.log");
    newer.extend([2, 0, 0, 0]);
    newer.extend(b"ok");
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&newer).unwrap();
    let answer = ingest.server.post(&path, &[], &zlib.finish().unwrap());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let files = ingest.api(&format!(
        "events/{}/attachments/",
        answer.text().replace('-', "")
    ));
    assert_eq!(files[0]["name"], "Game.log");

    for (wrong, status) in [(&b"nonsense"[..], 400), (&crash[..crash.len() / 2], 400)] {
        let refused = ingest.server.post(&path, &[], wrong);
        assert_eq!(refused.status, status);
        assert!(refused.json()["detail"].is_string(), "{}", refused.text());
    }
    let elsewhere = ingest.path("unreal/0123456789abcdef0123456789abcdef/");
    assert_eq!(ingest.server.post(&elsewhere, &[], &crash).status, 403);
}

#[test]
fn a_method_that_an_endpoint_does_not_have_is_refused_with_a_reason() {
    let ingest = Ingest::start();
    let answer = ingest.server.get(&ingest.path("envelope/"), &[]);
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST,OPTIONS"));
    assert_eq!(answer.json()["detail"], "this endpoint does not take GET");
}
