//! The open exam: traffic of real clients, replayed byte for byte, with the facts that must be
//! found afterwards.
//!
//! The corpus lies in `BACKSTOP_SDK_CORPUS`, else beside the repository in `shared/sdk_corpus`.
//! Every recording is sent to the real program on a real socket, and everything is compared through
//! the web API.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::server::{Server, says};

/// Where the corpus is; `None` (said out loud) where it is not, outside CI.
fn corpus() -> Option<PathBuf> {
    let directory = match std::env::var_os("BACKSTOP_SDK_CORPUS") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/sdk_corpus"),
    };
    if directory.join("index.json").exists() {
        return Some(directory);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "the corpus of recordings is missing: {}",
        directory.display()
    );
    println!(
        "no corpus at {}; set BACKSTOP_SDK_CORPUS",
        directory.display()
    );
    None
}

fn read(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn every_recording_is_understood() {
    let Some(directory) = corpus() else { return };
    let index = read(&directory.join("index.json"));
    let mut recordings: Vec<_> = list(&index["recordings"])
        .iter()
        .map(|recording| {
            let file = recording["file"].as_str().expect("a file");
            (recording, read(&directory.join(file)))
        })
        .collect();
    // Source maps were uploaded before the events that need them.
    recordings.sort_by_key(|(_, traffic)| !is_upload(traffic));
    let mut exam = Exam::new(&index, None);
    exam.uploaded = recordings
        .iter()
        .flat_map(|(_, traffic)| pieces(traffic))
        .collect();
    let (mut passed, mut failed) = (0, 0);
    for (recording, traffic) in &recordings {
        let mut faults = exam.run(recording, traffic);
        if list(&recording["expect"]["events"])
            .iter()
            .any(|event| event["answered_429"] == true)
        {
            // The same again, with the quota that the client met.
            let used_up = r#"{"quota": {"per_minute": 0}, "new_issues_per_minute": 0}"#;
            faults.extend(Exam::new(&index, Some(used_up)).run_limited(recording, traffic));
        }
        if faults.is_empty() {
            passed += 1;
            continue;
        }
        failed += 1;
        println!("FAILED {}", recording["id"].as_str().unwrap_or_default());
        for fault in faults {
            println!("    {fault}");
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    assert_eq!(failed, 0);
}

fn is_upload(traffic: &Value) -> bool {
    list(&traffic["requests"]).iter().any(|request| {
        let target = request["target"].as_str().unwrap_or_default();
        target.starts_with("/api/0/") && target.contains("assemble")
    })
}

/// The pieces of files that a recording uploads.
fn pieces(traffic: &Value) -> Vec<Vec<u8>> {
    const GZIP: &[u8] = b"\x1f\x8b\x08";
    let uploads = list(&traffic["requests"]).iter().filter(|request| {
        let target = request["target"].as_str().unwrap_or_default();
        request["method"] == "POST" && target.contains("chunk-upload")
    });
    let mut pieces = Vec::new();
    for request in uploads {
        let form = body_of(request);
        for at in memchr::memmem::find_iter(&form, GZIP) {
            let mut piece = Vec::new();
            // What only looks like a piece ends in an error.
            if flate2::read::GzDecoder::new(&form[at..])
                .read_to_end(&mut piece)
                .is_ok()
            {
                pieces.push(piece);
            }
        }
    }
    pieces
}

fn body_of(request: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(request["body_b64"].as_str().unwrap_or_default())
        .expect("base64")
}

/// A server that owns the recorded key.
struct Exam {
    server: Server,
    token: String,
    /// All that any recording uploads.
    uploaded: Vec<Vec<u8>>,
}

/// Counts before a recording was sent, or after.
struct Counts {
    outcomes: BTreeMap<String, i64>,
    sessions: BTreeMap<String, [i64; 5]>,
}

const PROJECT: &str = "/api/0/projects/acme/web";

impl Exam {
    fn new(index: &Value, settings: Option<&str>) -> Exam {
        let server = Server::start();
        let text = |name: &str| index[name].as_str().expect("text").to_owned();
        let (id, key, secret) = (text("project_id"), text("public_key"), text("secret_key"));
        let arguments = [
            "project", "create", "web", "--org", "acme", "--id", &id, "--key", &key, "--secret",
            &secret,
        ];
        says(&arguments, server.data.path());
        if let Some(settings) = settings {
            says(
                &[
                    "project", "settings", "web", "--org", "acme", "--set", settings,
                ],
                server.data.path(),
            );
        }
        let token = server.token();
        Exam {
            server,
            token,
            uploaded: Vec::new(),
        }
    }

    /// Says whether any recording uploads the source map of a file.
    fn has_map(&self, url: &str) -> bool {
        let name = format!("{}.map", url.rsplit('/').next().unwrap_or(url));
        // The names of files stand in a zip as they are.
        let has = |piece: &Vec<u8>| memchr::memmem::find(piece, name.as_bytes()).is_some();
        self.uploaded.iter().any(has)
    }

    /// Sends a recording to a project whose quota is used up: what was answered 429 is answered so
    /// again, counted, and not stored.
    fn run_limited(&self, recording: &Value, traffic: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let before = self.counts();
        let events = list(&recording["expect"]["events"]);
        for (number, request) in list(&traffic["requests"]).iter().enumerate() {
            let (status, head, _) = self.exchange(request);
            let limited = events
                .iter()
                .any(|event| event["request_index"] == number && event["answered_429"] == true);
            // What counts nothing is taken whatever the quota.
            if status != if limited { 429 } else { 200 } {
                faults.push(format!("over the quota, request {number}: {status}"));
            }
            let head = head.to_ascii_lowercase();
            for name in ["\r\nretry-after: ", "\r\nx-sentry-rate-limits: "] {
                if limited && !head.contains(name) {
                    faults.push(format!(
                        "over the quota, the answer has no{}",
                        name.trim_end()
                    ));
                }
            }
        }
        let after = self.counts();
        for event in events {
            let path = format!(
                "{PROJECT}/events/{}/json/",
                event["event_id"].as_str().unwrap()
            );
            if self.server.api(&path, &self.token).status != 404 {
                faults.push("over the quota, the event is there".to_owned());
            }
        }
        let limited = count(&after, "rate_limited") - count(&before, "rate_limited");
        if limited != events.len() as i64 {
            faults.push(format!("over the quota, {limited} events are counted"));
        }
        self.check_other_items(&recording["expect"], &before, &after, &mut faults);
        faults
    }

    fn api(&self, path: &str) -> Result<Value, String> {
        let answer = self.server.api(path, &self.token);
        if answer.status != 200 {
            return Err(format!("{path}: {} {}", answer.status, answer.text()));
        }
        Ok(answer.json())
    }

    fn counts(&self) -> Counts {
        let mut outcomes = BTreeMap::new();
        for outcome in list(&self.api(&format!("{PROJECT}/outcomes/")).expect("outcomes")) {
            let reason = outcome["reason"].as_str().unwrap_or_default().to_owned();
            *outcomes.entry(reason).or_default() += outcome["quantity"].as_i64().unwrap_or(0);
        }
        let mut sessions: BTreeMap<String, [i64; 5]> = BTreeMap::new();
        for health in list(&self.api(&format!("{PROJECT}/sessions/")).expect("sessions")) {
            let release = health["release"].as_str().unwrap_or_default().to_owned();
            let counts = sessions.entry(release).or_default();
            let names = ["sessions", "errored", "unhandled", "abnormal", "crashed"];
            for (count, name) in counts.iter_mut().zip(names) {
                *count += health[name].as_i64().unwrap_or(0);
            }
        }
        Counts { outcomes, sessions }
    }

    /// Sends a recording and returns everything that is not as it should be.
    fn run(&self, recording: &Value, traffic: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let before = self.counts();
        let mut answers = Vec::new();
        for request in list(&traffic["requests"]) {
            let answer = self.send(request);
            self.check_answer(request, &answer, &mut faults);
            answers.push(answer);
        }
        let after = self.counts();
        let expect = &recording["expect"];
        for expected in list(&expect["events"]) {
            self.check_event(expected, &mut faults);
        }
        for expected in list(&expect["attachments"]) {
            self.check_attachment(expected, &mut faults);
        }
        self.check_other_items(expect, &before, &after, &mut faults);
        check_intent(self, expect, &mut faults);
        check_accounts(expect, traffic, &before, &after, &mut faults);
        faults
    }

    /// Sends a request with the bytes that were recorded.
    fn send(&self, request: &Value) -> (u16, Value) {
        let (status, _, body) = self.exchange(request);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Sends a request and returns status, head and body of the answer.
    fn exchange(&self, request: &Value) -> (u16, String, Vec<u8>) {
        let body = body_of(request);
        let address = self.server.url.trim_start_matches("http://");
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
            request["method"].as_str().expect("a method"),
            request["target"].as_str().expect("a target"),
            body.len()
        );
        for header in list(&request["headers"]) {
            let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
            let lower = name.to_ascii_lowercase();
            match lower.as_str() {
                "host" | "content-length" | "transfer-encoding" | "connection" | "expect" => {}
                "authorization" if value.starts_with("Bearer") => {
                    head.push_str(&format!("{name}: Bearer {}\r\n", self.token));
                }
                _ => head.push_str(&format!("{name}: {value}\r\n")),
            }
        }
        head.push_str("\r\n");
        let mut socket = TcpStream::connect(address).expect("the server listens");
        socket.write_all(head.as_bytes()).expect("the server reads");
        socket.write_all(&body).expect("the server reads");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("the server answers");
        let end = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = answer.split_off(end + 4);
        (status.expect("a status"), head, body)
    }

    /// The answer need not be that of the recording's stand-in, but good enough for the client.
    fn check_answer(
        &self,
        request: &Value,
        (status, body): &(u16, Value),
        faults: &mut Vec<String>,
    ) {
        let target = request["target"].as_str().unwrap_or_default();
        let recorded = &request["answer"];
        let fine = (200..300).contains(status);
        if !fine {
            faults.push(format!("{target}: {status} {body}"));
            return;
        }
        if !target.starts_with("/api/0/") {
            return;
        }
        let shape: Value = serde_json::from_str(recorded["body"].as_str().unwrap_or_default())
            .unwrap_or(Value::Null);
        if shape["state"] == "ok" && body["state"] != "ok" {
            faults.push(format!("{target}: {body}"));
        }
        let missing = missing_fields(&shape, body);
        if !missing.is_empty() {
            faults.push(format!("{target}: the answer lacks {missing:?}"));
        }
    }

    fn check_event(&self, expected: &Value, faults: &mut Vec<String>) {
        let id = expected["event_id"].as_str().expect("an id");
        let mut fault = |what: &str, expected: &Value, found: &Value| {
            faults.push(format!(
                "event {id}: {what}: expected {expected}, found {found}"
            ));
        };
        let event = match self.api(&format!("{PROJECT}/events/{id}/json/")) {
            Ok(event) => event,
            Err(error) => return faults.push(format!("event {id}: {error}")),
        };
        let is_transaction = expected["type"] == "transaction";
        if !is_transaction
            && let Err(error) = self.api(&format!("/api/0/organizations/acme/eventids/{id}/"))
        {
            fault("its issue", &json!("an issue"), &json!(error));
        }
        for field in [
            "type",
            "platform",
            "level",
            "logger",
            "transaction",
            "culprit",
            "release",
            "dist",
            "environment",
            "server_name",
            "fingerprint",
        ] {
            if let Some(expected) = expected.get(field)
                && *expected != event[field]
            {
                fault(field, expected, &event[field]);
            }
        }
        check_message(expected, &event, &mut fault);
        check_exceptions(expected, &event, &mut fault);
        check_stacktrace(expected, &event, &mut fault);
        self.check_source_map(expected, &event, &mut fault);
        check_parts(expected, &event, &mut fault);
    }

    /// The innermost frame is where the uploaded source map says; where nobody uploaded one, the
    /// event says that.
    fn check_source_map(&self, expected: &Value, event: &Value, fault: &mut Fault<'_>) {
        let Some(place) = expected.get("innermost_frame_after_source_map") else {
            return;
        };
        let what = "innermost_frame_after_source_map";
        let sent = &expected["innermost_frame"]["filename"];
        let frame = shown_frames(event, "stacktrace")
            .last()
            .unwrap_or(&Value::Null);
        if !self.has_map(sent.as_str().expect("a file")) {
            let missing = |error: &Value| error["type"] == "js_no_source" && error["url"] == *sent;
            if !list(&event["errors"]).iter().any(missing) {
                fault(what, &json!({"js_no_source": sent}), &event["errors"]);
            }
            return;
        }
        for (field, name) in [
            ("filename", "source"),
            ("lineno", "lineno"),
            ("colno", "colno"),
        ] {
            if frame[field] != place[name] {
                fault(&format!("{what}.{name}"), &place[name], &frame[field]);
            }
        }
        let line = frame["context_line"].as_str().unwrap_or_default();
        if line.trim().is_empty() || frame["data"]["symbolicated"] != true {
            fault(what, &json!("the line of the source"), frame);
        }
        let raw = shown_frames(event, "raw_stacktrace").len();
        if json!(raw) != expected["frames_of_shown_stacktrace"] {
            fault(
                "raw_stacktrace",
                &expected["frames_of_shown_stacktrace"],
                &json!(raw),
            );
        }
    }

    fn check_attachment(&self, expected: &Value, faults: &mut Vec<String>) {
        let id = expected["event_id"].as_str().expect("an id");
        let found = match self.api(&format!("{PROJECT}/events/{id}/attachments/")) {
            Ok(found) => found,
            Err(error) => return faults.push(error),
        };
        let same = |found: &&Value| {
            found["name"] == expected["filename"] && found["sha1"] == expected["sha1"]
        };
        let Some(attachment) = list(&found).iter().find(same) else {
            return faults.push(format!("attachment {expected}: found {found}"));
        };
        if attachment["size"] != expected["size"] {
            faults.push(format!(
                "attachment {expected}: size {}",
                attachment["size"]
            ));
        }
        let number = attachment["id"].as_str().expect("an id");
        let path = format!("{PROJECT}/events/{id}/attachments/{number}/?download=1");
        let bytes = self.server.api(&path, &self.token).body;
        if json!(bytes.len()) != expected["size"] {
            faults.push(format!("attachment {expected}: {} bytes", bytes.len()));
        }
    }

    fn check_other_items(
        &self,
        expect: &Value,
        before: &Counts,
        after: &Counts,
        faults: &mut Vec<String>,
    ) {
        let items = list(&expect["other_items"]);
        let grown = |reason: &str| {
            let count = |counts: &Counts| counts.outcomes.get(reason).copied().unwrap_or(0);
            count(after) - count(before)
        };
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        let mut reports = Vec::new();
        for item in items {
            let count = item["count"].as_i64().unwrap_or(1);
            match item["item"].as_str().expect("a type") {
                ty @ ("session" | "sessions" | "check_in" | "feedback") => {
                    *expected.entry(format!("item:{ty}")).or_default() += 1;
                }
                "log" => *expected.entry("dropped:log".to_owned()).or_default() += count,
                "span" => *expected.entry("dropped:span".to_owned()).or_default() += count,
                "trace_metric" => {
                    *expected.entry("dropped:metric".to_owned()).or_default() += count;
                }
                "replay_event" | "replay_recording" => {
                    *expected.entry("dropped:replay".to_owned()).or_default() += 1;
                }
                "client_report" => {
                    for event in list(&item["discarded_events"]) {
                        let text = |name: &str| event[name].as_str().unwrap_or_default();
                        let reason = format!("client:{}:{}", text("category"), text("reason"));
                        *expected.entry(reason).or_default() += event["quantity"].as_i64().unwrap();
                    }
                }
                "security" => reports.push(&item["payload"]["csp-report"]),
                _ => {
                    *expected
                        .entry("dropped:unknown_item".to_owned())
                        .or_default() += 1;
                }
            }
        }
        for (reason, count) in expected {
            if grown(&reason) != count {
                faults.push(format!(
                    "outcome {reason}: expected {count}, found {}",
                    grown(&reason)
                ));
            }
        }
        check_sessions(items, before, after, faults);
        self.check_check_ins(items, faults);
        self.check_feedback(items, faults);
        self.check_reports(&reports, grown("accepted"), faults);
    }

    fn check_check_ins(&self, items: &[Value], faults: &mut Vec<String>) {
        let mut last: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
        for item in items.iter().filter(|item| item["item"] == "check_in") {
            let text = |name: &str| item[name].as_str().expect("text");
            last.insert((text("monitor_slug"), text("check_in_id")), item);
            if item["monitor_config"].is_object() {
                let monitors = self.api(&format!("{PROJECT}/monitors/")).expect("monitors");
                let slug = text("monitor_slug");
                let known = list(&monitors).iter().any(|monitor| {
                    monitor["slug"] == slug && monitor["config"] == item["monitor_config"]
                });
                // Several recordings use the name; only the last one's schedule can be there.
                if !known {
                    faults.push(format!("monitor {slug}: {monitors}"));
                }
            }
        }
        for ((monitor, id), item) in last {
            let path = format!("{PROJECT}/monitors/{monitor}/checkins/");
            let runs = self.api(&path).expect("check-ins");
            let Some(run) = list(&runs).iter().find(|run| run["id"] == id) else {
                faults.push(format!("check-in {id} of {monitor}: not found"));
                continue;
            };
            let expected = item["duration"]
                .as_f64()
                .map(|seconds| (seconds * 1000.0).round());
            if run["status"] != item["status"] || run["duration"].as_f64() != expected {
                faults.push(format!("check-in {id}: expected {item}, found {run}"));
            }
        }
    }

    fn check_feedback(&self, items: &[Value], faults: &mut Vec<String>) {
        for item in items.iter().filter(|item| item["item"] == "feedback") {
            let expected = &item["payload"]["feedback"];
            let event = expected["associated_event_id"].as_str().expect("an id");
            let path = format!("{PROJECT}/user-feedback/?event={event}");
            let found = self.api(&path).expect("feedback");
            let same = list(&found).iter().any(|found| {
                found["comments"] == expected["message"]
                    && found["name"] == expected["name"]
                    && found["email"] == expected["contact_email"]
                    && found["id"] == item["payload"]["event_id"]
                    && found["issue"]["id"].is_string()
            });
            if !same {
                faults.push(format!("feedback {item}: found {found}"));
            }
        }
    }

    /// Reports have no id of their own; their content must be in the issues' latest events.
    fn check_reports(&self, reports: &[&Value], accepted: i64, faults: &mut Vec<String>) {
        if reports.is_empty() {
            return;
        }
        if accepted != reports.len() as i64 {
            faults.push(format!("{accepted} of {} reports accepted", reports.len()));
        }
        let issues = self
            .api(&format!("{PROJECT}/issues/?limit=250"))
            .expect("issues");
        let found: Vec<Value> = list(&issues)
            .iter()
            .map(|issue| issue["id"].as_str().expect("an id"))
            .filter_map(|id| self.api(&format!("/api/0/issues/{id}/events/latest/")).ok())
            .map(|event| event["event"]["csp"].clone())
            .collect();
        let kinds = |report: &Value| report["effective-directive"].as_str().map(str::to_owned);
        let expected: BTreeSet<_> = reports.iter().map(|report| kinds(report)).collect();
        let kept: BTreeSet<_> = reports
            .iter()
            .filter(|report| found.contains(report))
            .map(|report| kinds(report))
            .collect();
        if expected != kept {
            faults.push(format!("reports: expected {expected:?}, found {kept:?}"));
        }
    }
}

type Fault<'a> = dyn FnMut(&str, &Value, &Value) + 'a;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Interfaces are lists below `values`.
fn values<'e>(event: &'e Value, name: &str) -> &'e [Value] {
    list(&event[name]["values"])
}

fn check_message(expected: &Value, event: &Value, fault: &mut Fault<'_>) {
    let entry = &event["logentry"];
    if let Some(prefix) = expected.get("message_prefix") {
        let text = entry["formatted"].as_str().unwrap_or_default();
        if !text.starts_with(prefix.as_str().unwrap_or_default()) {
            fault("message_prefix", prefix, &entry["formatted"]);
        }
    }
    for (name, field) in [
        ("message_template", "message"),
        ("message_params", "params"),
    ] {
        if let Some(expected) = expected.get(name)
            && *expected != entry[field]
        {
            fault(name, expected, &entry[field]);
        }
    }
}

fn check_exceptions(expected: &Value, event: &Value, fault: &mut Fault<'_>) {
    let found = values(event, "exception");
    let expected = list(&expected["exceptions"]);
    if expected.len() != found.len() {
        return fault("exceptions", &json!(expected.len()), &json!(found.len()));
    }
    for (expected, found) in expected.iter().zip(found) {
        for field in ["type", "module"] {
            if expected
                .get(field)
                .is_some_and(|value| *value != found[field])
            {
                fault(field, &expected[field], &found[field]);
            }
        }
        let value = found["value"].as_str().unwrap_or_default();
        let prefix = expected["value_prefix"].as_str().unwrap_or_default();
        if !value.starts_with(prefix) || json!(value.chars().count()) != expected["value_len"] {
            fault("value", &expected["value_prefix"], &found["value"]);
        }
        let frames = list(&found["stacktrace"]["frames"]).len();
        if expected
            .get("frames")
            .is_some_and(|count| *count != json!(frames))
        {
            fault("frames", &expected["frames"], &json!(frames));
        }
        let mechanism = &found["mechanism"];
        if expected
            .get("handled")
            .is_some_and(|handled| *handled != mechanism["handled"])
        {
            fault("handled", &expected["handled"], mechanism);
        }
        if expected
            .get("mechanism")
            .is_some_and(|ty| *ty != mechanism["type"])
        {
            fault("mechanism", &expected["mechanism"], mechanism);
        }
    }
}

/// The frames that are shown: of the last exception that has some, else of the event, else of a
/// thread; `kind` is `stacktrace`, or `raw_stacktrace` for what was there before source maps.
fn shown_frames<'e>(event: &'e Value, kind: &str) -> &'e [Value] {
    let of = |owner: &'_ Value| !list(&owner[kind]["frames"]).is_empty();
    let exception = values(event, "exception")
        .iter()
        .rev()
        .find(|owner| of(owner));
    let own = Some(event).filter(|event| of(event));
    let thread = values(event, "threads").iter().find(|owner| of(owner));
    let owner = exception.or(own).or(thread);
    owner.map_or(&[], |owner| list(&owner[kind]["frames"]))
}

/// What the client said, which is kept beside what was computed anew.
fn in_app_of_client(frame: &Value) -> Value {
    let kept = &frame["data"]["orig_in_app"];
    match kept.as_i64() {
        _ if kept.is_null() => frame["in_app"].clone(),
        Some(-1) => Value::Null,
        Some(flag) => json!(flag == 1),
        None => kept.clone(),
    }
}

fn check_stacktrace(expected: &Value, event: &Value, fault: &mut Fault<'_>) {
    let frames = shown_frames(event, "stacktrace");
    // The client's words are about the frames that it sent.
    let sent = match shown_frames(event, "raw_stacktrace") {
        [] => frames,
        raw => raw,
    };
    let Some(count) = expected.get("frames_of_shown_stacktrace") else {
        return;
    };
    if *count != json!(frames.len()) {
        return fault("frames_of_shown_stacktrace", count, &json!(frames.len()));
    }
    if let Some(frame) = expected.get("innermost_frame") {
        check_frame("innermost_frame", frame, sent.last(), fault);
    }
    if let Some(frame) = expected.get("innermost_in_app_frame") {
        let in_app = |frame: &&Value| in_app_of_client(frame) == true;
        let found = sent.iter().rev().find(in_app);
        check_frame("innermost_in_app_frame", frame, found, fault);
    }
    let has_locals = |frame: &&Value| {
        frame["vars"]
            .as_object()
            .is_some_and(|vars| !vars.is_empty())
    };
    let with_locals = frames.iter().filter(has_locals).count();
    if expected["frames_with_locals"] != json!(with_locals) {
        fault(
            "frames_with_locals",
            &expected["frames_with_locals"],
            &json!(with_locals),
        );
    }
    let locals = &expected["locals"];
    if locals.is_null() {
        return;
    }
    let same = |frame: &&Value| {
        let vars = &frame["vars"];
        let sample = locals["sample"].as_object().expect("a sample");
        frame["function"] == locals["function"]
            && json!(vars.as_object().map_or(0, serde_json::Map::len)) == locals["count"]
            && sample
                .iter()
                .all(|(name, value)| vars.get(name) == Some(value))
    };
    if !frames.iter().any(|frame| same(&frame)) {
        let found = frames.iter().rev().find(has_locals);
        fault(
            "locals",
            locals,
            found.map_or(&Value::Null, |frame| &frame["vars"]),
        );
    }
}

fn check_frame(what: &str, expected: &Value, found: Option<&Value>, fault: &mut Fault<'_>) {
    let Some(expected) = expected.as_object() else {
        if let Some(found) = found {
            fault(what, &Value::Null, found);
        }
        return;
    };
    let found = found.unwrap_or(&Value::Null);
    for (field, value) in expected {
        let same = match field.as_str() {
            "in_app" => in_app_of_client(found) == *value,
            _ => found[field] == *value,
        };
        if !same {
            fault(&format!("{what}.{field}"), value, &found[field]);
        }
    }
}

fn check_parts(expected: &Value, event: &Value, fault: &mut Fault<'_>) {
    let as_text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (name, value) in expected["user"].as_object().into_iter().flatten() {
        let value = match as_text(value).as_str() {
            "{{auto}}" => "127.0.0.1".to_owned(),
            text => text.to_owned(),
        };
        if as_text(&event["user"][name]) != value {
            fault(&format!("user.{name}"), &json!(value), &event["user"]);
        }
    }
    for (name, value) in expected["tags"].as_object().into_iter().flatten() {
        if event["tags"][name] != *value {
            fault(&format!("tags.{name}"), value, &event["tags"]);
        }
    }
    for (name, value) in expected["request"].as_object().into_iter().flatten() {
        if event["request"][name] != *value {
            fault(&format!("request.{name}"), value, &event["request"]);
        }
    }
    for name in list(&expected["contexts"]) {
        if event["contexts"]
            .get(name.as_str().unwrap_or_default())
            .is_none()
        {
            fault("contexts", name, &event["contexts"]);
        }
    }
    for (name, found) in [
        ("breadcrumbs", values(event, "breadcrumbs").len()),
        ("threads", values(event, "threads").len()),
        ("spans", list(&event["spans"]).len()),
        ("debug_images", list(&event["debug_meta"]["images"]).len()),
    ] {
        if expected
            .get(name)
            .is_some_and(|count| *count != json!(found))
        {
            fault(name, &expected[name], &json!(found));
        }
    }
    for field in ["name", "version"] {
        if expected["sdk"]
            .get(field)
            .is_some_and(|value| *value != event["sdk"][field])
        {
            fault(
                &format!("sdk.{field}"),
                &expected["sdk"][field],
                &event["sdk"],
            );
        }
    }
    if expected["has_meta"] == true && event["_meta"].is_null() {
        fault("has_meta", &json!(true), &Value::Null);
    }
    if event["timestamp"].is_null() {
        fault("timestamp", &json!("a time"), &Value::Null);
    }
}

/// How a session counts: one of errored, unhandled, abnormal, crashed, or none of them.
fn class_of(status: &str, errors: i64) -> usize {
    match status {
        "crashed" => 4,
        "abnormal" => 3,
        "unhandled" => 2,
        "errored" => 1,
        _ => usize::from(errors > 0),
    }
}

fn check_sessions(items: &[Value], before: &Counts, after: &Counts, faults: &mut Vec<String>) {
    let mut classes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut expected: BTreeMap<&str, [i64; 5]> = BTreeMap::new();
    for item in items {
        let release = item["attrs"]["release"].as_str().unwrap_or_default();
        if item["item"] == "session" && !release.is_empty() {
            let status = item["status"].as_str().unwrap_or("ok");
            let class = class_of(status, item["errors"].as_i64().unwrap_or(0));
            let sid = item["sid"].as_str().unwrap_or_default();
            let worst = classes.entry((release, sid)).or_default();
            *worst = class.max(*worst);
        }
        for counts in list(&item["aggregates"]) {
            let count = |name: &str| counts[name].as_i64().unwrap_or(0);
            let of_release = expected.entry(release).or_default();
            for (class, name) in ["exited", "errored", "unhandled", "abnormal", "crashed"]
                .into_iter()
                .enumerate()
            {
                of_release[0] += count(name);
                if class > 0 {
                    of_release[class] += count(name);
                }
            }
        }
    }
    for ((release, _), class) in classes {
        let of_release = expected.entry(release).or_default();
        of_release[0] += 1;
        if class > 0 {
            of_release[class] += 1;
        }
    }
    for (release, expected) in expected {
        let counts = |counts: &Counts| counts.sessions.get(release).copied().unwrap_or_default();
        let (before, after) = (counts(before), counts(after));
        let grown: Vec<i64> = before
            .iter()
            .zip(after)
            .map(|(before, after)| after - before)
            .collect();
        if grown != expected {
            faults.push(format!(
                "sessions of {release}: expected {expected:?}, found {grown:?}"
            ));
        }
    }
}

/// One of the exceptions must be what the application really raised.
fn check_intent(exam: &Exam, expect: &Value, faults: &mut Vec<String>) {
    let Some(ty) = expect["intent"]["exception_type"].as_str() else {
        return;
    };
    let found = list(&expect["events"]).iter().any(|event| {
        let id = event["event_id"].as_str().unwrap_or_default();
        let event = exam.api(&format!("{PROJECT}/events/{id}/json/"));
        let event = event.unwrap_or_default();
        values(&event, "exception")
            .iter()
            .any(|exception| exception["type"] == ty)
    });
    if !found {
        faults.push(format!("intent: no exception is a {ty}"));
    }
}

/// How many outcomes have a reason that begins so.
fn count(counts: &Counts, prefix: &str) -> i64 {
    let of = counts
        .outcomes
        .iter()
        .filter(|(reason, _)| reason.starts_with(prefix));
    of.map(|(_, count)| *count).sum()
}

/// Every event that was sent has an outcome, and nothing was called invalid.
fn check_accounts(
    expect: &Value,
    traffic: &Value,
    before: &Counts,
    after: &Counts,
    faults: &mut Vec<String>,
) {
    let events = list(&expect["events"]);
    let sent = events
        .iter()
        .filter(|event| event["type"] != "transaction")
        .count();
    let grown = |prefix: &str| count(after, prefix) - count(before, prefix);
    let stored = grown("accepted") + grown("duplicate");
    let security = list(&expect["other_items"])
        .iter()
        .filter(|item| item["item"] == "security");
    let expected = (sent + security.count()) as i64;
    // A recording may have the same event several times: its client sent it again.
    if stored < expected || stored > list(&traffic["requests"]).len() as i64 {
        faults.push(format!(
            "{expected} events were sent, {stored} have an outcome"
        ));
    }
    for prefix in [
        "invalid",
        "too_large",
        "unavailable",
        "rate_limited",
        "filtered",
    ] {
        if grown(prefix) != 0 {
            faults.push(format!("{} outcomes {prefix}", grown(prefix)));
        }
    }
}

/// Names the fields of a recorded answer that are missing in ours, looking into objects and the
/// first element of lists. What the client does not read is left out.
fn missing_fields(shape: &Value, answer: &Value) -> Vec<String> {
    const UNREAD: [&str; 21] = [
        "avatar",
        "links",
        "statusDetails",
        "team",
        "teams",
        "features",
        "isBookmarked",
        "isMember",
        "hasAccess",
        "firstEvent",
        "platforms",
        "organization",
        "versionInfo",
        "owner",
        "currentProjectMeta",
        "userAgent",
        "platform",
        "status",
        "missingChunks",
        "dif",
        "user",
    ];
    match (shape, answer) {
        (Value::Object(shape), Value::Object(answer)) => shape
            .iter()
            .filter(|(name, _)| !UNREAD.contains(&name.as_str()) && !is_checksum(name))
            .flat_map(|(name, shape)| match answer.get(name) {
                None => vec![name.clone()],
                Some(answer) => missing_fields(shape, answer)
                    .into_iter()
                    .map(|field| format!("{name}.{field}"))
                    .collect(),
            })
            .filter(|field| !field.ends_with("newGroups") && !field.ends_with("hasHealthData"))
            .collect(),
        (Value::Array(shape), Value::Array(answer)) => match (shape.first(), answer.first()) {
            (Some(shape), Some(answer)) => missing_fields(shape, answer),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn is_checksum(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
