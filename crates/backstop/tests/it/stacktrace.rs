//! The stack-trace view of events as clients of several languages send them.

use backstop::report::Event;
use backstop::stacktrace::{Options, render, text};
use serde_json::{Value, json};

fn event(value: &Value) -> Event {
    serde_json::from_value(value.clone()).unwrap()
}

fn html(value: &Value) -> String {
    render(&event(value), &Options::default())
}

/// A Flask app whose database refuses the connection, as the Python client sends it.
fn flask() -> Value {
    let frame = |function: &str, path: &str, line: u32, in_app: bool| {
        json!({
            "function": function, "module": "shop", "filename": path.rsplit('/').next(),
            "abs_path": path, "lineno": line, "in_app": in_app,
            "pre_context": ["def backend():", "    try:"],
            "context_line": "        connect(host, 'a<b')  # twice",
            "post_context": ["    except OSError as e:"],
            "vars": {"host": "'10.0.0.1'", "order": {"'id'": "7", "'lines'": ["'tea'", "'cake'"]}, "nothing": "None"},
        })
    };
    let flask = "/v/lib/python3.11/site-packages/flask/app.py";
    json!({
        "platform": "python",
        "exception": {"values": [
            {"type": "ConnectionRefusedError", "value": "[Errno 111] <refused>", "module": "builtins",
             "mechanism": {"type": "chained", "handled": false, "source": "__cause__", "exception_id": 1, "parent_id": 0},
             "stacktrace": {"frames": [
                 frame("backend", "/srv/shop/app.py", 63, true),
                 frame("create_connection", "/usr/lib/python3.11/socket.py", 851, false),
             ]}},
            {"type": "BackendDown", "value": "payment backend is down", "module": "shop.errors",
             "mechanism": {"type": "flask", "handled": false, "exception_id": 0},
             "stacktrace": {"frames": [
                 frame("wsgi_app", flask, 1511, false),
                 frame("full_dispatch_request", flask, 919, false),
                 frame("dispatch_request", flask, 902, false),
                 frame("backend", "/srv/shop/app.py", 65, true),
             ]}},
        ]},
    })
}

/// The pieces have to occur in this order.
#[track_caller]
fn in_order(text: &str, pieces: &[&str]) {
    let mut rest = text;
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            panic!("{piece:?} is missing, or comes too early, in {text}");
        };
        rest = &rest[at + piece.len()..];
    }
}

#[test]
fn the_raised_error_comes_first_and_its_own_frames_are_open() {
    in_order(
        &html(&flask()),
        &[
            "bs-ladder",
            "BackendDown",
            "ConnectionRefusedError",
            "id=\"bs-error-0\"",
            "BackendDown</h3>",
            "in shop.errors",
            "unhandled",
            "<details open>",
            "<b>backend</b>",
            "app.py",
            "<b>65</b>",
            "failing line",
            "3 frames of flask",
            "It was raised because of this error",
            "ConnectionRefusedError</h3>",
            "[Errno 111] &lt;refused&gt;",
            "create_connection",
            "<b>backend</b>",
        ],
    );
}

#[test]
fn nothing_of_an_event_is_markup() {
    let evil = "</code><script>alert(1)</script><!-- \" onload='x";
    let html = html(&json!({
        "platform": evil,
        "exception": [{
            "type": evil, "value": evil, "module": evil,
            "mechanism": {"source": evil, "type": evil},
            "stacktrace": {"frames": [{
                "function": evil, "module": evil, "filename": evil, "abs_path": evil, "lineno": 1,
                "package": evil, "context_line": evil, "pre_context": [evil], "in_app": true,
                "vars": {evil: {evil: [evil, {evil: evil}]}},
                "data": {"vars": {evil: {"type": evil, "state": evil}}},
            }]},
        }],
        "threads": [{"id": evil, "name": evil, "stacktrace": {"frames": [{"function": evil}]}}],
    }));
    assert!(
        !html.contains("<script") && !html.contains("onload='"),
        "{html}"
    );
    // Every tag is one of ours.
    for tag in html.split('<').skip(1) {
        let name = tag.trim_start_matches('/');
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(name.len());
        let ours = [
            "section", "ol", "li", "a", "span", "article", "header", "h3", "p", "details",
            "summary", "div", "b", "wbr", "code", "table", "caption", "tr", "th", "td", "mark",
        ];
        assert!(ours.contains(&&name[..end]), "<{tag}");
    }
}

#[test]
fn the_same_as_text() {
    assert_eq!(
        text(&event(&flask()), &Options::default()),
        "\
BackendDown: payment backend is down

  shop.backend  app.py:65
      connect(host, 'a<b')  # twice
        host = '10.0.0.1'
        order = {id: 7, lines: ['tea', 'cake']}
        nothing = None
  … 3 frames of flask

It was raised because of this error:
ConnectionRefusedError: [Errno 111] <refused>

  shop.create_connection  socket.py:851
  shop.backend  app.py:63
      connect(host, 'a<b')  # twice
        host = '10.0.0.1'
        order = {id: 7, lines: ['tea', 'cake']}
        nothing = None
"
    );
}

#[test]
fn a_client_that_marks_nothing_as_own_gets_what_is_no_librarys() {
    let mut event = flask();
    for error in event["exception"]["values"].as_array_mut().unwrap() {
        for frame in error["stacktrace"]["frames"].as_array_mut().unwrap() {
            frame["in_app"] = json!(false);
        }
    }
    in_order(&html(&event), &["bs-own", "<b>65</b>", "3 frames of flask"]);
}

#[test]
fn events_without_exceptions() {
    let stack = json!({"frames": [{"function": "handler", "filename": "a.js", "lineno": 3}]});
    in_order(
        &html(&json!({"stacktrace": stack})),
        &["<b>handler</b>", "a.js"],
    );
    let threads = json!({"threads": {"values": [
        {"id": 2, "name": "idle", "stacktrace": stack},
        {"id": 1, "crashed": true, "stacktrace": stack},
    ]}});
    in_order(&html(&threads), &["Thread 1", "crashed", "Thread idle"]);
    let message = json!({"exception": [{"value": "Only a message", "mechanism": {"synthetic": true},
        "stacktrace": stack}]});
    in_order(&html(&message), &["Only a message</h3>", "<b>handler</b>"]);
    assert!(html(&json!({})).starts_with("<section class=\"bs-trace\">"));
    let bare = html(&json!({"exception": [{"type": "Error"}]}));
    assert!(bare.contains("No stack trace was sent"));
}

#[test]
fn hidden_variables_are_counted_and_not_sent() {
    let mut options = Options::default();
    options.variables_hidden = Some("hidden until the PIN is given".to_owned());
    let html = render(&event(&flask()), &options);
    assert!(html.contains("3 variables: hidden until the PIN is given"));
    assert!(!html.contains("10.0.0.1") && !html.contains("cake"));
    assert!(!text(&event(&flask()), &options).contains("10.0.0.1"));
}

#[test]
fn frames_can_be_opened_in_an_editor() {
    let mut options = Options::default();
    options.editor = Some("vscode://file/{path}:{line}:{column}".to_owned());
    let html = render(&event(&flask()), &options);
    assert!(
        html.contains("href=\"vscode://file//srv/shop/app.py:65:1\""),
        "{html}"
    );
}

#[test]
fn a_thousand_frames_are_a_page_that_one_can_read() {
    let frame = |number: usize| {
        json!({"function": format!("f{number}"), "lineno": number, "in_app": true,
            "context_line": "x".repeat(1000),
            "pre_context": vec!["y".repeat(1000); 5], "vars": {"big": "z".repeat(9_000)}})
    };
    let frames: Vec<Value> = (0..1000).map(frame).collect();
    let html = html(&json!({"exception": [{"type": "E", "stacktrace": {"frames": frames}}]}));
    assert!(html.contains("750 older frames are not shown"));
    assert!(html.len() < 2 * 1024 * 1024, "{}", html.len());
    let recursion: Vec<Value> = (0..1000).map(|_| frame(1)).collect();
    let html =
        self::html(&json!({"exception": [{"type": "E", "stacktrace": {"frames": recursion}}]}));
    assert!(html.contains("the frame above repeats 999 more times"));
}
