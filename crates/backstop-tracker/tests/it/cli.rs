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
        &["project", "create", "--help"],
    ] {
        let help = says(command, data.path());
        assert!(help.contains("Usage:"), "{help}");
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
