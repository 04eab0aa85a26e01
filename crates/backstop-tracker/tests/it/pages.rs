//! The pages as a browser without scripts sees them.

use serde_json::{Value, json};

use crate::server::{Answer, Server, says};

/// Signs a new user in and returns the cookie.
fn sign_in(server: &Server) -> String {
    let link = says(&["user", "create", "ada@example.com"], server.data.path());
    let path = link
        .strip_prefix(&server.url)
        .expect("a link to this server")
        .to_owned();
    assert_eq!(
        server.get(&path, &[]).status,
        200,
        "opening a link does not use it up"
    );
    let answer = server.post(&path, &[], b"");
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    assert_eq!(
        server.post(&path, &[], b"").status,
        410,
        "a link works once"
    );
    cookie.split(';').next().unwrap().to_owned()
}

fn page(server: &Server, path: &str, cookie: &str) -> Answer {
    server.get(path, &[("Cookie", cookie)])
}

fn failing_event() -> Value {
    json!({
        "event_id": "11112222333344445555666677778888",
        "platform": "python",
        "exception": { "values": [{
            "type": "ZeroDivisionError",
            "value": "integer division or modulo by <zero>",
            "stacktrace": { "frames": [{
                "filename": "shop.py", "function": "split_bill", "lineno": 7, "in_app": true,
                "pre_context": ["def split_bill(cents, guests):"],
                "context_line": "    return cents // guests",
                "vars": { "cents": "4200", "guests": "0", "password": "hunter2" },
            }]},
        }]},
        "tags": { "region": "eu" },
        "request": { "url": "http://shop/split", "method": "GET" },
    })
}

#[test]
fn strangers_are_asked_to_sign_in_and_see_nothing() {
    let server = Server::start();
    let project = server.project("shop");
    server.send(&project, &failing_event());
    for path in [
        "/",
        "/issues/1/",
        "/projects/",
        "/acme/shop/",
        "/acme/shop/settings/",
        "/account/",
    ] {
        let answer = server.get(path, &[]);
        assert_eq!(answer.status, 303, "{path}");
        assert!(
            answer
                .header("location")
                .unwrap()
                .starts_with("/sign-in/?next="),
            "{path}"
        );
        assert!(!answer.text().contains("ZeroDivision"), "{path}");
    }
    assert_eq!(
        server
            .post("/issues/1/status/", &[], b"status=resolved")
            .status,
        401
    );
}

#[test]
fn an_issue_page_shows_the_failing_line_and_the_variables() {
    let server = Server::start();
    let project = server.project("shop");
    assert_eq!(server.send(&project, &failing_event()).status, 200);
    let cookie = sign_in(&server);

    let list = page(&server, "/", &cookie).text();
    assert!(list.contains("ZeroDivisionError"), "{list}");
    assert!(
        list.contains("integer division or modulo by &lt;zero&gt;"),
        "{list}"
    );

    let issue = page(&server, "/issues/1/", &cookie).text();
    for shown in [
        "cents // guests",
        "4200",
        "split_bill",
        "region",
        "Why these events are one issue",
        "Where it was raised",
        "by version 1 of the rules",
    ] {
        assert!(issue.contains(shown), "{shown} is not in {issue}");
    }
    assert!(!issue.contains("hunter2"), "a password is never shown");
    assert!(!issue.contains("<script"), "no scripts");
    assert!(!issue.contains("<zero>"), "what clients send is escaped");
}

#[test]
fn a_decision_moves_an_issue_to_another_list() {
    let server = Server::start();
    let project = server.project("shop");
    server.send(&project, &failing_event());
    let cookie = sign_in(&server);
    let form = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    assert_eq!(
        server
            .post("/issues/1/status/", &form, b"status=resolved")
            .status,
        303
    );
    assert!(
        !page(&server, "/", &cookie)
            .text()
            .contains("ZeroDivisionError")
    );
    assert!(
        page(&server, "/?status=resolved", &cookie)
            .text()
            .contains("ZeroDivisionError")
    );

    // Another event is a regression: it is back among the open ones.
    let mut event = failing_event();
    event["event_id"] = "aaaabbbbccccddddeeeeffff00001111".into();
    server.send(&project, &event);
    let list = page(&server, "/", &cookie).text();
    assert!(list.contains("Regressed"), "{list}");
}

#[test]
fn a_form_of_another_site_is_refused() {
    let server = Server::start();
    let project = server.project("shop");
    server.send(&project, &failing_event());
    let cookie = sign_in(&server);
    let form = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Origin", "https://evil.example.com"),
    ];
    assert_eq!(
        server
            .post("/issues/1/status/", &form, b"status=resolved")
            .status,
        403
    );
}

#[test]
fn a_project_made_in_the_browser_has_a_dsn_and_how_to_use_it() {
    let server = Server::start();
    let cookie = sign_in(&server);
    let form = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let made = server.post("/projects/", &form, b"name=Web+shop&org=acme");
    assert_eq!(made.header("location"), Some("/acme/web-shop/settings/"));
    let settings = page(&server, "/acme/web-shop/settings/", &cookie).text();
    assert!(settings.contains("raven.contrib.flask"), "{settings}");
    assert!(settings.contains("@127.0.0.1:"), "{settings}");
    let again = server.post("/projects/", &form, b"name=Web+shop&org=acme");
    assert_eq!(again.status, 409);
    assert!(
        page(&server, "/", &cookie)
            .text()
            .contains("No event has arrived yet")
    );
}

#[test]
fn what_mails_are_sent_about_is_changed_in_the_browser() {
    let server = Server::start();
    let project = server.project("shop");
    let cookie = sign_in(&server);
    let form = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let settings = || page(&server, "/acme/shop/settings/", &cookie).text();
    assert!(settings().contains("100 events of an issue within 60 minutes"));
    let path = "/acme/shop/alerts/";
    let added = server.post(path, &form, b"about=frequency&events=7&minutes=2");
    assert_eq!(added.header("location"), Some("/acme/shop/settings/"));
    assert!(settings().contains("7 events of an issue within 2 minutes"));

    for (wrong, status, word) in [
        (&b"about=frequency&events=7&minutes=2"[..], 409, "already"),
        (b"about=frequency&events=x&minutes=2", 400, "not a number"),
        (b"about=frequency&events=7&minutes=2000", 400, "1440"),
    ] {
        let refused = server.post(path, &form, wrong);
        assert_eq!(refused.status, status);
        let text = refused.text();
        assert!(text.contains(word), "{text}");
        assert!(text.contains("One more mail"), "the form is still there");
    }
    let unknown = server.post(path, &form, b"about=bogus");
    assert_eq!(unknown.status, 422);
    assert!(unknown.text().contains("<html"), "{}", unknown.text());

    let list = ["alert", "list", "shop", "--org", "acme", "--json"];
    let list: Value = serde_json::from_str(&says(&list, server.data.path())).unwrap();
    let id = list[3]["id"].as_i64().unwrap();
    let remove = "/acme/shop/alerts/remove/";
    let removed = server.post(remove, &form, format!("id={id}").as_bytes());
    assert_eq!(removed.header("location"), Some("/acme/shop/settings/"));
    assert!(!settings().contains("7 events of an issue"));
    let again = server.post(remove, &form, format!("id={id}").as_bytes());
    assert_eq!(again.status, 404);
    assert_eq!(project["slug"], "shop");
}

#[test]
fn a_password_can_be_set_and_used() {
    let server = Server::start();
    let cookie = sign_in(&server);
    let form = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let short = server.post("/account/", &form, b"password=short");
    assert_eq!(short.status, 400, "{}", short.text());
    assert_eq!(
        server
            .post("/account/", &form, b"password=correct+horse+battery")
            .status,
        200
    );

    let again = b"password=another+horse+battery";
    let answer = server.post("/account/", &form, again);
    assert_eq!(answer.status, 400, "the old password is missing");
    assert!(answer.text().contains("The old password is not right."));
    let plain = [("Content-Type", "application/x-www-form-urlencoded")];
    let wrong = server.post(
        "/sign-in/",
        &plain,
        b"email=ada@example.com&password=wrong+horse+battery",
    );
    assert_eq!(wrong.status, 401);
    let right = b"email=ada@example.com&password=correct+horse+battery&next=//evil.example.com";
    let right = server.post("/sign-in/", &plain, right);
    assert_eq!((right.status, right.header("location")), (303, Some("/")));
    let left = server.post("/sign-out/", &[("Cookie", &cookie)], b"");
    assert_eq!(left.status, 303);
    assert_eq!(
        page(&server, "/", &cookie).status,
        303,
        "the session has ended"
    );
}

#[test]
fn a_new_password_ends_every_other_session_and_link() {
    let server = Server::start();
    let here = sign_in(&server);
    let link = |arguments: &[&str]| {
        let link = says(arguments, server.data.path());
        link.strip_prefix(&server.url).unwrap().to_owned()
    };
    let lost = link(&["user", "sign-in", "ada@example.com"]);
    let other = server.post(&lost, &[], b"");
    let other = other.header("set-cookie").unwrap();
    let other = other.split(';').next().unwrap();
    let unused = link(&["user", "sign-in", "ada@example.com"]);
    let account = page(&server, "/account/", &here).text();
    assert!(account.contains("minlength=\"8\""), "{account}");
    assert!(!account.contains("name=\"old\""), "there is none yet");

    let form = |cookie| {
        [
            ("Cookie", cookie),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ]
    };
    let set = server.post("/account/", &form(&here), b"password=correct+horse");
    assert_eq!(set.status, 200, "{}", set.text());
    assert!(set.text().contains("name=\"old\""), "{}", set.text());
    assert_eq!(page(&server, "/account/", &here).status, 200);
    assert_eq!(page(&server, "/account/", other).status, 303);
    assert_eq!(server.post(&unused, &[], b"").status, 410);
    let changed = server.post(
        "/account/",
        &form(&here),
        b"old=correct+horse&password=another+horse",
    );
    assert_eq!(changed.status, 200, "{}", changed.text());

    // Who has forgotten it starts again.
    let fresh = link(&["user", "sign-in", "--forget-password", "ada@example.com"]);
    assert_eq!(page(&server, "/account/", &here).status, 303);
    let fresh = server.post(&fresh, &[], b"");
    let fresh = fresh.header("set-cookie").unwrap();
    let fresh = fresh.split(';').next().unwrap();
    let set = server.post("/account/", &form(fresh), b"password=third+horse");
    assert_eq!(set.status, 200, "{}", set.text());
}

#[test]
fn the_secret_of_a_link_is_not_logged_and_a_lost_slash_does_not_matter() {
    let server = Server::start();
    let link = says(&["user", "create", "ada@example.com"], server.data.path());
    let path = link
        .strip_prefix(&server.url)
        .unwrap()
        .trim_end_matches('/');
    let browser = [("Accept", "text/html")];
    assert_eq!(server.get(path, &browser).status, 200);
    assert_eq!(server.get(&format!("{path}/more"), &browser).status, 308);
    assert_eq!(server.get(&format!("{path}/more/"), &browser).status, 404);
    assert_eq!(server.post(path, &[], b"").status, 303);
    assert_eq!(
        server.get("/projects?page=2", &browser).header("location"),
        Some("/projects/?page=2")
    );
    let log = server.log_at_end();
    let secret = path.trim_start_matches("/sign-in/");
    assert!(!log.contains(secret), "{log}");
    assert!(log.contains("/sign-in/…"), "{log}");
    assert_eq!(log.matches("status=404").count(), 1, "{log}");
}

#[test]
fn pages_load_nothing_from_elsewhere() {
    let server = Server::start();
    let answer = server.get("/sign-in/", &[]);
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = answer.text();
    let css = page
        .split("href=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let sheet = server.get(css, &[]);
    assert_eq!(sheet.status, 200);
    assert!(sheet.header("cache-control").unwrap().contains("immutable"));
    assert!(!sheet.text().contains("url("), "the sheet loads nothing");
}

fn event_of(function: &str) -> Value {
    json!({
        "platform": "python",
        "exception": { "values": [{ "type": "ShopError", "value": "no luck", "stacktrace": {
            "frames": [{ "module": "shop", "function": function, "in_app": true }],
        }}]},
    })
}

#[test]
fn issues_are_merged_in_the_list_and_taken_apart_on_their_page() {
    let server = Server::start();
    let project = server.project("shop");
    for function in ["total", "weight", "price"] {
        server.send(&project, &event_of(function));
    }
    let cookie = sign_in(&server);
    let form = [
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let list = page(&server, "/", &cookie).text();
    assert!(list.contains("form=\"merge\""), "{list}");
    let changed = event_of("total")
        .to_string()
        .replace("ShopError", "PriceError");
    let changed = serde_json::from_str(&changed).expect("JSON");
    server.send(&project, &changed);
    let hinting = page(&server, "/issues/4/", &cookie).text();
    assert!(hinting.contains("May be the same as"), "{hinting}");
    assert!(
        hinting.contains("ShopError instead of PriceError"),
        "{hinting}"
    );
    let foreign = [form[0], form[1], ("Origin", "http://elsewhere.example")];
    let answer = server.post("/issues/merge/", &foreign, b"issue=1&issue=2");
    assert_eq!(answer.status, 403, "a form of another site");
    let answer = server.post("/issues/merge/", &form, b"issue=1");
    assert_eq!(answer.status, 400, "one issue alone");
    let answer = server.post("/issues/merge/", &form, b"issue=1&issue=2");
    assert_eq!(answer.header("location"), Some("/issues/1/"));
    let answer = server.post("/issues/1/merge/", &form, b"issue=shop-3");
    assert_eq!(answer.header("location"), Some("/issues/1/"));
    let answer = server.post("/issues/1/merge/", &form, b"issue=none-3");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("No such issue."));

    assert!(
        page(&server, "/issues/1/", &cookie)
            .text()
            .contains("/issues/1/groups/")
    );
    let groups = page(&server, "/issues/1/groups/", &cookie).text();
    let hashes: Vec<&str> = groups
        .split("name=\"hash\" value=\"")
        .skip(1)
        .map(|rest| &rest[..32])
        .collect();
    assert_eq!(hashes.len(), 3, "{groups}");
    let answer = server.post("/issues/1/split/", &form, b"");
    assert_eq!(answer.status, 400, "nothing was picked");
    let body = format!("hash={}&hash={}", hashes[0], hashes[1]);
    let answer = server.post("/issues/1/split/", &form, body.as_bytes());
    assert_eq!(answer.header("location"), Some("/issues/5/"));
    let rest = page(&server, "/issues/1/groups/", &cookie).text();
    assert!(rest.contains("nothing to take apart"), "{rest}");
}
