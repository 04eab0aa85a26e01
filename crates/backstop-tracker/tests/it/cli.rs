//! The command line as scripts use it.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Server, backstop, says};

#[test]
fn a_project_keeps_the_dsn_that_its_clients_have() {
    let data = TempDir::new().unwrap();
    let key = "0123456789abcdef0123456789abcdef";
    let dsn = says(
        &[
            "project",
            "create",
            "Shop",
            "--id",
            "4505123412341234",
            "--key",
            key,
        ],
        data.path(),
    );
    assert_eq!(dsn, format!("http://{key}@127.0.0.1:9000/4505123412341234"));

    let list = says(&["project", "list", "--json"], data.path());
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["slug"], "shop");
    assert_eq!(list[0]["org"], "main");
    assert_eq!(list[0]["dsn"], dsn);
}

#[test]
fn what_is_taken_is_refused_with_the_reason() {
    let data = TempDir::new().unwrap();
    says(&["project", "create", "shop", "--id", "7"], data.path());
    for again in [
        ["project", "create", "other", "--id", "7"],
        ["project", "create", "shop", "--id", "8"],
    ] {
        let output = backstop(&again, data.path());
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.starts_with("backstop: cannot make the project"),
            "{error}"
        );
    }
    let output = backstop(&["project", "create", "x", "--key", "123"], data.path());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("32 hex digits"), "{error}");
}

#[test]
fn an_unknown_command_is_an_error_of_its_own_kind() {
    let data = TempDir::new().unwrap();
    assert_eq!(backstop(&["sevre"], data.path()).status.code(), Some(2));
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["project", "--help"],
        &["project", "create", "--help"],
        &["project", "list", "--help"],
        &["project", "settings", "--help"],
        &["outcomes", "--help"],
        &["token", "--help"],
        &["token", "create", "--help"],
        &["user", "--help"],
        &["user", "create", "--help"],
        &["user", "sign-in", "--help"],
        &["check", "--help"],
        &["backup", "--help"],
        &["restore", "--help"],
        &["group", "--help"],
    ] {
        let help = says(command, data.path());
        assert!(help.contains("Usage:"), "{help}");
        assert!(help.contains("Example"), "no example: {help}");
    }
}

#[test]
fn sigterm_ends_a_server_with_0_and_the_store_goes_on() {
    let server = Server::start();
    let project = server.project("shop");
    assert_eq!(
        server.send(&project, &json!({ "message": "hello" })).status,
        200
    );
    let (code, data) = server.terminate();
    assert_eq!(code, Some(0));

    let server = Server::start_in(data, &[]);
    let issues = server
        .api("/api/0/projects/acme/shop/issues/", &server.token())
        .json();
    assert_eq!(issues[0]["title"], "hello");
    assert_eq!(issues[0]["count"], "1");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let server = Server::start();
    let output = backstop(&["serve", "--listen", "127.0.0.1:0"], server.data.path());
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("another backstop is serving"), "{error}");
}

#[test]
fn a_printed_dsn_has_the_address_of_the_server() {
    let server = Server::start();
    let dsn = server.project("shop")["dsn"].as_str().unwrap().to_owned();
    let host = server.url.trim_start_matches("http://");
    assert!(dsn.contains(&format!("@{host}/")), "{dsn} {host}");
}

#[test]
fn a_restored_store_prints_the_same_dsn() {
    let server = Server::start_with(&["--public-url", "https://errors.example.com"]);
    let data = server.data.path();
    server.project("shop");
    let elsewhere = TempDir::new().unwrap();
    let (copy, back) = (elsewhere.path().join("copy"), elsewhere.path().join("back"));
    let run = |command: &str, from: &std::path::Path, to: &std::path::Path| {
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_backstop"))
            .args([command, from, to])
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{command}");
    };
    run("backup", data, &copy);
    run("restore", &copy, &back);
    let before = says(&["project", "list"], data);
    assert!(before.contains("@errors.example.com/"), "{before}");
    assert_eq!(says(&["project", "list"], &back), before);
}

#[test]
fn every_event_has_an_outcome_and_the_totals_add_up() {
    let server = Server::start();
    let project = server.project("shop");
    let event = json!({ "event_id": "11112222333344445555666677778888", "message": "hello" });
    for _ in 0..3 {
        assert_eq!(server.send(&project, &event).status, 200);
    }
    let garbage = [(
        "X-Sentry-Auth",
        "Sentry sentry_version=7, sentry_key=".to_owned() + project["key"].as_str().unwrap(),
    )];
    let path = format!("/api/{}/store/", project["id"].as_str().unwrap());
    assert_eq!(
        server
            .post(&path, &[(garbage[0].0, &garbage[0].1)], b"\0\xff")
            .status,
        400
    );
    let (_, data) = server.terminate();

    let lines = says(
        &["outcomes", "shop", "--json", "--org", "acme"],
        data.path(),
    );
    let lines: Value = serde_json::from_str(&lines).unwrap();
    let count = |reason: &str| -> u64 {
        let lines = lines.as_array().unwrap().iter();
        let of_reason = lines.filter(|line| line["reason"].as_str().unwrap().starts_with(reason));
        of_reason
            .map(|line| line["quantity"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(
        (count("accepted"), count("duplicate"), count("invalid")),
        (1, 2, 1),
        "{lines}"
    );
}

#[test]
fn measures_say_what_became_of_events() {
    let server = Server::start();
    let project = server.project("shop");
    let event = json!({ "event_id": "11112222333344445555666677778888", "message": "hello" });
    for _ in 0..2 {
        assert_eq!(server.send(&project, &event).status, 200);
    }
    assert_eq!(server.send(&project, &json!([])).status, 400);
    assert_eq!(server.get("/health", &[]).json()["status"], "ok");
    let measures = server.get("/metrics", &[]).text();
    for line in [
        "backstop_events_total{outcome=\"stored\"} 1",
        "backstop_events_total{outcome=\"duplicate\"} 1",
        "backstop_new_issues_total 1",
        "backstop_commit_duration_seconds_count 2",
        "backstop_commit_events_sum 2",
        "backstop_queue_events 0",
        "backstop_queue_bytes 0",
    ] {
        assert!(
            measures.lines().any(|own| own == line),
            "{line} in {measures}"
        );
    }
    let invalid = "backstop_ingest_outcomes_total{outcome=\"invalid\",";
    assert!(
        measures.lines().any(|line| line.starts_with(invalid)),
        "{measures}"
    );
    let size = |name: &str| -> u64 {
        let line = measures.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|size| size.trim().parse().ok()).unwrap_or(0)
    };
    for name in [
        "backstop_store_bytes ",
        "backstop_store_log_bytes ",
        "backstop_store_bodies_bytes ",
    ] {
        assert!(size(name) > 0, "{name} in {measures}");
    }
}

#[test]
fn events_are_grouped_offline() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let mut child = Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["group", "--explain"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let events = r#"{"event_id":"11112222333344445555666677778888","message":"user 1 is gone"}
{"event_id":"21112222333344445555666677778888","message":"user 27 is gone"}
{"event_id":"31112222333344445555666677778888","message":"disk is full"}
"#;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(events.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let groups: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(groups[0]["group"], groups[1]["group"]);
    assert_ne!(groups[0]["group"], groups[2]["group"]);
    assert!(groups[0]["reason"].is_string());
}

#[test]
fn grouping_rules_are_settings_and_a_bad_one_is_told_with_its_place() {
    let data = TempDir::new().unwrap();
    says(&["project", "create", "shop"], data.path());
    let set = |grouping: Value| {
        let settings = json!({ "grouping": grouping }).to_string();
        let arguments = ["project", "settings", "shop", "--set", settings.as_str()];
        backstop(&arguments, data.path())
    };
    let rules = "type:KeyError -> keys\npath:**/orders/** -> orders {{ default }}";
    let output = set(json!({"fingerprint_rules": rules}));
    assert!(output.status.success());
    let shown = says(&["project", "settings", "shop"], data.path());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["grouping"]["fingerprint_rules"], rules);

    for (grouping, expected) in [
        (
            json!({"fingerprint_rules": "type:KeyError -> keys\ntype:KeyError"}),
            "fingerprint rules, line 2, column 14: expected \"->\"",
        ),
        (
            json!({"stack_rules": "function:f -apple"}),
            "stack rules, line 1, column 12: unknown action \"-apple\"",
        ),
        (json!({"version": 77}), "no grouping version 77"),
        (json!({"stack_rule": ""}), "unknown field `stack_rule`"),
    ] {
        let output = set(grouping);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(expected), "{error}");
    }
    let kept = says(&["project", "settings", "shop"], data.path());
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), shown);
}

#[test]
fn a_store_that_cannot_be_opened_is_damage_and_not_a_failure_of_the_check() {
    let data = TempDir::new().unwrap();
    says(&["project", "create", "shop"], data.path());
    std::fs::write(data.path().join("backstop.db"), [0xa5; 8192]).unwrap();
    let output = backstop(&["check", "--json"], data.path());
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["clean"], false);
    let finding = report["findings"][0].as_str().unwrap();
    assert!(finding.contains("restore a backup"), "{finding}");
}

#[test]
fn a_command_that_only_looks_makes_no_store() {
    let data = TempDir::new().unwrap();
    let missing = data.path().join("misspelt");
    for command in [
        &["outcomes"][..],
        &["project", "list"],
        &["project", "settings", "shop"],
        &["check"],
        &["group", "--project", "shop"],
        &["user", "sign-in", "ann@example.com"],
        &["alert", "list", "shop"],
    ] {
        let output = backstop(command, &missing);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.contains("there is no store in"),
            "{command:?}: {error}"
        );
        assert!(!missing.exists(), "{command:?}");
    }
}

#[test]
fn a_threshold_of_our_own_counts_in_a_running_server() {
    let server = Server::start();
    let project = server.project("shop");
    let data = server.data.path();
    let org = ["--org", "acme"];
    let alert = |words: &[&str]| says(&[&["alert"], words, &org].concat(), data);
    let list = alert(&["list", "shop"]);
    assert!(
        list.contains("100 events of an issue within 60 minutes"),
        "{list}"
    );

    let added = alert(&["add", "shop", "--events", "3", "--minutes", "5", "--json"]);
    let added: Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added["kind"], "frequency");
    for line in list.lines() {
        let (number, _) = line.split_once('\t').unwrap();
        alert(&["remove", "shop", number]);
    }
    let list: Value = serde_json::from_str(&alert(&["list", "shop", "--json"])).unwrap();
    assert_eq!(list, json!([added]));

    // A new rule never takes the number of an old one, whose alerts it would take for its own.
    let first = added["id"].to_string();
    alert(&["remove", "shop", &first]);
    let added = alert(&["add", "shop", "--regression", "--json"]);
    let regression: Value = serde_json::from_str(&added).unwrap();
    alert(&["remove", "acme/shop", &regression["id"].to_string()]);
    alert(&["add", "acme/shop", "--events", "3", "--minutes", "5"]);

    for _ in 0..3 {
        let sent = server.send(&project, &json!({ "message": "again and again" }));
        assert_eq!(sent.status, 200);
    }
    let mails = data.join("mail");
    let (status, data) = server.terminate();
    assert_eq!(status, Some(0));
    let mails: Vec<_> = std::fs::read_dir(mails).unwrap().collect();
    assert_eq!(
        mails.len(),
        1,
        "one mail at the threshold, none of a new issue"
    );
    let mail = std::fs::read_to_string(mails[0].as_ref().unwrap().path()).unwrap();
    assert!(mail.contains("at least 3 events within 5 min"), "{mail}");

    for (wrong, word) in [
        (
            &["add", "shop", "--events", "3", "--minutes", "5"][..],
            "already",
        ),
        (
            &["add", "shop", "--events", "3", "--minutes", "9999"],
            "1440",
        ),
        (
            &["add", "shop", "--events", "0", "--minutes", "5"],
            "at least 1 event",
        ),
        (&["remove", "shop", "999"], "backstop alert list shop"),
        (&["list", "shpo"], "backstop project list"),
    ] {
        let output = backstop(&[&["alert"], wrong, &org].concat(), data.path());
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(word), "{wrong:?}: {error}");
    }
    let half = backstop(&["alert", "add", "shop", "--events", "3"], data.path());
    assert_eq!(half.status.code(), Some(2));
}

#[test]
fn a_scope_that_nobody_knows_makes_no_token() {
    let data = TempDir::new().unwrap();
    says(&["project", "create", "shop"], data.path());
    let output = backstop(&["token", "create", "--scope", "evnt:read"], data.path());
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("event:read"), "{error}");
}
