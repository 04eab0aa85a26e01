//! The debug page, as a browser, curl and an attacker see it.

use crate::program::{Answer, Folder, Program, command};

fn start() -> (Program, Folder, String) {
    let folder = Folder::new(&format!("debugger-{:?}", std::thread::current().id()));
    let mut program = Program::start(&mut command("debug", &folder.0));
    let pin = program.pin();
    // The PIN is printed before the server accepts; connections wait until then.
    (program, folder, pin)
}

const HTML: &str = "Accept: text/html,application/xhtml+xml";

fn error_id(page: &Answer) -> String {
    let field = page.body.split("name=\"error\" value=\"").nth(1).unwrap();
    field.split('"').next().unwrap().to_owned()
}

#[test]
fn the_page_shows_source_and_hides_values_until_the_pin_is_given() {
    let (program, _folder, pin) = start();
    let page = program.ask("/broken", &[HTML]);
    assert_eq!(page.status, 500);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
    for expected in [
        "ParseIntError",
        "invalid digit found in string",
        "<b>count</b>",
        "GET /broken",
        "failing line",
        "hidden until the PIN is given",
        "ParseIntError in app: none",
    ] {
        assert!(page.body.contains(expected), "{expected}");
    }
    assert!(!page.body.contains("[1, 2, 5]") && !page.body.contains("<script>"));
    assert!(!page.body.contains(&pin));

    let id = error_id(&page);
    let unlocked = program.post(
        "/_backstop/debugger/unlock",
        &["Origin: http://localhost"],
        &format!("error={id}&pin={pin}"),
    );
    assert_eq!(unlocked.status, 303);
    assert_eq!(
        unlocked.header("location"),
        format!("/_backstop/debugger/errors/{id}")
    );
    let cookie = unlocked.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );

    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    let again = program.ask(unlocked.header("location"), &[HTML, &cookie]);
    assert_eq!(again.status, 200);
    assert!(
        again
            .body
            .contains("Drawer { label: &quot;&lt;script&gt;&quot;"),
        "{}",
        again.body
    );
    assert!(!again.body.contains("<script>"));
    let forged = "Cookie: backstop_debugger=00000000000000000000000000000000";
    let locked = program.ask(unlocked.header("location"), &[HTML, forged]);
    assert!(locked.body.contains("hidden until the PIN is given"));
}

#[test]
fn curl_gets_text_and_programs_get_json() {
    let (program, _folder, _pin) = start();
    let text = program.ask("/broken", &["Accept: */*"]);
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert!(
        text.body
            .starts_with("500 Internal Server Error — GET /broken\nmade at ")
    );
    assert!(
        text.body
            .contains("let coins: usize = drawer.label.parse()?;"),
        "{}",
        text.body
    );

    let json = program.ask("/broken", &["Accept: application/json"]);
    assert_eq!(json.header("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!(problem["status"], 500);
    assert_eq!(problem["errors"][0]["type"], "ParseIntError");
    let frame = &problem["errors"][0]["frames"][0];
    assert!(frame["function"].as_str().unwrap().ends_with("count"));
    assert_eq!(frame.get("variables"), None);
}

#[test]
fn handled_errors_and_good_answers_are_left_alone() {
    let (program, _folder, _pin) = start();
    let handled = program.ask("/handled", &[HTML]);
    assert_eq!((handled.status, handled.body.as_str()), (507, "handled"));
    assert_eq!(program.ask("/", &[HTML]).status, 200);
    assert_eq!(program.ask("/nowhere", &[HTML]).status, 404);
}

#[test]
fn a_name_that_is_not_ours_sees_nothing() {
    let (program, _folder, pin) = start();
    let evil = "Host: evil.example:5000";
    let page = program.ask("/broken", &[HTML, evil]);
    assert_eq!(page.status, 500);
    assert!(!page.body.contains("ParseIntError"));
    let unlock = program.post(
        "/_backstop/debugger/unlock",
        &[evil],
        &format!("error=x&pin={pin}"),
    );
    assert_eq!(unlock.status, 404);
    let foreign = program.post(
        "/_backstop/debugger/unlock",
        &["Origin: http://evil.example"],
        &format!("error=x&pin={pin}"),
    );
    assert_eq!(foreign.status, 403);
}

#[test]
fn ten_wrong_pins_lock_the_debugger() {
    let (program, _folder, pin) = start();
    for _ in 0..10 {
        let answer = program.post("/_backstop/debugger/unlock", &[], "pin=000000000");
        assert_eq!(answer.status, 403);
    }
    let right = program.post("/_backstop/debugger/unlock", &[], &format!("pin={pin}"));
    assert_eq!(right.status, 429);
}
