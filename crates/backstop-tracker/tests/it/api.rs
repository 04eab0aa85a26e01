//! The web API as programs use it.

use serde_json::json;

use crate::server::{Server, says};

#[test]
fn every_call_needs_a_token_and_says_so() {
    let server = Server::start();
    for headers in [
        &[][..],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Basic eA==")],
    ] {
        let answer = server.get("/api/0/projects/acme/shop/issues/", headers);
        assert_eq!(answer.status, 401);
        assert!(answer.json()["detail"].is_string());
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
}

#[test]
fn every_refusal_has_the_same_form() {
    let server = Server::start();
    server.project("shop");
    let token = server.token();
    let bearer = format!("Bearer {token}");
    let json = ("Content-Type", "application/json");
    let put = |headers: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("Authorization", bearer.as_str())], headers].concat();
        server.post("/api/0/projects/acme/shop/issues/", &headers, body)
    };
    let wrong_number = server.api("/api/0/issues/abc/", &token);
    assert_eq!(wrong_number.status, 400);
    let wrong_method = put(&[json], b"{}");
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.header("allow").is_some());
    for answer in [wrong_number, wrong_method] {
        let detail = answer.json()["detail"].clone();
        assert!(
            detail.as_str().is_some_and(|text| !text.is_empty()),
            "{detail}"
        );
    }
}

#[test]
fn a_reading_token_cannot_write() {
    let server = Server::start();
    let project = server.project("shop");
    server.send(&project, &json!({ "message": "hello" }));
    let token = says(
        &["token", "create", "--scope", "event:read"],
        server.data.path(),
    );
    assert_eq!(server.api("/api/0/issues/1/", &token).status, 200);
    let resolved = json!({ "status": "resolved" });
    let refused = server.put("/api/0/issues/1/", &token, &resolved);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("event:read"), "{}", refused.text());
    let status = || server.api("/api/0/issues/1/", &token).json()["status"].clone();
    assert_eq!(status(), "unresolved");
    let writing = says(
        &["token", "create", "--scope", "event:write"],
        server.data.path(),
    );
    let done = server.put("/api/0/issues/1/", &writing, &resolved);
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(status(), "resolved");
}

#[test]
fn what_is_not_understood_changes_no_issue() {
    let server = Server::start();
    let project = server.project("shop");
    for message in ["one", "two", "three"] {
        server.send(&project, &json!({ "message": message }));
    }
    let token = server.token();
    let path = "/api/0/projects/acme/shop/issues/";
    let resolved = json!({ "status": "resolved" });
    let open = || {
        let open = server.api(&format!("{path}?query=is:unresolved"), &token);
        open.json().as_array().unwrap().len()
    };
    for wrong in [
        "?status=unresolvd",
        "?status=",
        "?stauts=unresolved",
        "?id=x",
    ] {
        let answer = server.put(&format!("{path}{wrong}"), &token, &resolved);
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
        assert!(answer.json()["detail"].is_string(), "{wrong}");
    }
    assert_eq!(open(), 3);
    let answer = server.put(&format!("{path}?query=two"), &token, &resolved);
    assert_eq!((answer.status, open()), (200, 2), "{}", answer.text());
    let answer = server.put(&format!("{path}?status=unresolved"), &token, &resolved);
    assert_eq!((answer.status, open()), (200, 0), "{}", answer.text());

    for wrong in ["?cursor=nonsense", "?limit=0", "?limit=1000000"] {
        let answer = server.api(&format!("{path}{wrong}"), &token);
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
}

#[test]
fn the_link_to_the_next_page_leads_there() {
    let server = Server::start();
    let project = server.project("shop");
    for message in ["one", "two", "three"] {
        server.send(&project, &json!({ "message": message }));
    }
    let token = server.token();
    let mut path = "/api/0/projects/acme/shop/issues/?limit=1&query=is:unresolved".to_owned();
    let mut seen = Vec::new();
    for page in 1..=3 {
        let answer = server.api(&path, &token);
        seen.push(answer.json()[0]["title"].as_str().unwrap().to_owned());
        let link = answer.header("link").expect("a link");
        assert_eq!(link.contains("results=\"true\""), page < 3, "{link}");
        let url = link.trim_start_matches('<').split('>').next().unwrap();
        path = url.strip_prefix(&server.url).expect(link).to_owned();
    }
    assert_eq!(seen, ["three", "two", "one"]);
}

#[test]
fn issues_are_merged_and_taken_apart_with_sentrys_calls() {
    let server = Server::start();
    let project = server.project("shop");
    for (function, count) in [("total", 1), ("weight", 2)] {
        for _ in 0..count {
            let event = json!({
                "platform": "python",
                "exception": { "values": [{ "type": "ShopError", "value": "no luck", "stacktrace": {
                    "frames": [{ "module": "shop", "function": function, "in_app": true }],
                }}]},
            });
            assert_eq!(server.send(&project, &event).status, 200);
        }
    }
    let token = server.token();
    let issues = "/api/0/projects/acme/shop/issues/";
    let answer = server.put(&format!("{issues}?id=1&id=2"), &token, &json!({"merge": 1}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The one with the most events takes the other in.
    assert_eq!(
        answer.json()["merge"],
        json!({"parent": "2", "children": ["1"]})
    );
    assert_eq!(server.api("/api/0/issues/1/", &token).json()["id"], "2");
    assert_eq!(server.api("/api/0/issues/2/", &token).json()["count"], "3");
    let answer = server.put(&format!("{issues}?id=2"), &token, &json!({"merge": 1}));
    assert_eq!(answer.status, 400, "one issue alone cannot be merged");

    let path = "/api/0/issues/2/hashes/";
    let groups = server.api(path, &token).json();
    let hashes: Vec<&str> = groups
        .as_array()
        .expect("a list")
        .iter()
        .map(|group| group["id"].as_str().expect("a hash"))
        .collect();
    assert_eq!(hashes.len(), 2, "{groups}");
    let new = server.put(&format!("{path}?id={}", hashes[1]), &token, &json!({}));
    assert_eq!(new.status, 200, "{}", new.text());
    let new = new.json();
    assert_eq!((&new["id"], &new["count"]), (&json!("3"), &json!("1")));
    assert_eq!(server.api("/api/0/issues/2/", &token).json()["count"], "2");
    let answer = server.put(&format!("{path}?id=nonsense"), &token, &json!({}));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["detail"], "a group hash has 32 hex digits");
}

#[test]
fn an_event_is_found_by_its_id() {
    let server = Server::start();
    let project = server.project("shop");
    let id = "11112222333344445555666677778888";
    let event =
        json!({ "event_id": id, "message": "hello", "level": "warning", "extra": { "n": 1 } });
    assert_eq!(server.send(&project, &event).json()["id"], id);
    let token = server.token();

    let stored = server
        .api(
            &format!("/api/0/projects/acme/shop/events/{id}/json/"),
            &token,
        )
        .json();
    assert_eq!(stored["event_id"], id);
    assert_eq!(stored["level"], "warning");
    assert_eq!(stored["extra"]["n"], 1);

    let place = server
        .api(&format!("/api/0/organizations/acme/eventids/{id}/"), &token)
        .json();
    let issues = server
        .api("/api/0/projects/acme/shop/issues/", &token)
        .json();
    assert_eq!(place["groupId"], issues[0]["id"]);
    for field in [
        "id",
        "shortId",
        "title",
        "culprit",
        "count",
        "firstSeen",
        "lastSeen",
        "status",
        "level",
    ] {
        assert!(issues[0][field].is_string(), "{field}: {}", issues[0]);
    }
    let unknown = "00000000000000000000000000000001";
    for path in [
        format!("/api/0/projects/acme/shop/events/{unknown}/json/"),
        format!("/api/0/organizations/other/eventids/{id}/"),
        "/api/0/projects/acme/none/issues/".to_owned(),
        "/api/0/nothing/".to_owned(),
    ] {
        let answer = server.api(&path, &token);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["detail"].is_string(), "{path}");
    }
    assert_eq!(
        server
            .api("/api/0/projects/acme/shop/events/xyz/json/", &token)
            .status,
        400
    );
}
