//! The development server over a real socket.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::program::{Answer, Folder, Program, command, request};

fn start(name: &str) -> (Program, Folder) {
    let folder = Folder::new(&format!("serve-{name}-{:?}", std::thread::current().id()));
    (Program::start(&mut command(name, &folder.0)), folder)
}

#[test]
fn a_running_request_is_finished_before_the_end() {
    let (mut program, _folder) = start("plain");
    let mut stream = program.connect();
    stream
        .write_all(request("GET", "/slow", &[], "").as_bytes())
        .unwrap();
    // The first answer proves that the server runs, and so that the slow request is under way.
    assert_eq!(program.ask("/", &[]).status, 200);
    program.signal("TERM");
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.status, answer.body.as_str()), (200, "at last"));
    assert_eq!(program.process.wait().unwrap().code(), Some(0));
}

#[test]
fn an_idle_connection_does_not_keep_the_server() {
    let (mut program, _folder) = start("plain");
    let idle = program.connect();
    assert_eq!(program.ask("/", &[]).status, 200);
    program.signal("INT");
    assert_eq!(program.process.wait().unwrap().code(), Some(0));
    drop(idle);
}

#[test]
fn a_request_on_its_way_is_answered_before_the_end() {
    // The server waits a second for it; a machine that is too busy to send it by then proves
    // nothing, and is asked again.
    const IN_TIME: Duration = Duration::from_secs(1);
    const ROUNDS: usize = 30;
    for _ in 0..ROUNDS {
        let (mut program, _folder) = start("plain");
        let mut stream = program.connect();
        // The answer proves that the connection before it was accepted, too.
        let mut idle = program.connect();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let read = idle.read(&mut [0; 1024]).unwrap();
        assert!(read > 0, "the server closed a connection that it may keep");
        let asked = Instant::now();
        program.signal("TERM");
        // That the connection which waits for its next request is closed proves that the server
        // is ending.
        idle.read_to_end(&mut Vec::new()).unwrap();
        stream
            .write_all(request("GET", "/", &[], "").as_bytes())
            .unwrap();
        let was_in_time = asked.elapsed() < IN_TIME;
        let answer = Answer::read(&mut stream);
        assert_eq!(program.process.wait().unwrap().code(), Some(0));
        if was_in_time {
            return assert_eq!(answer.status, 200);
        }
    }
    panic!("the machine never sent the request within {IN_TIME:?}");
}

/// What a program prints from now on, until it has ended.
fn rest_of(program: &mut Program) -> String {
    program.signal("TERM");
    assert!(program.process.wait().unwrap().success());
    program.rest()
}

#[test]
fn a_panic_is_told_once() {
    // Where there is a log, by it; with the place, and without the standard hook's message, even
    // if reports were set up before the app.
    for name in ["logs", "reports"] {
        let (mut program, _folder) = start(name);
        assert_eq!(program.ask("/panics", &[]).status, 500);
        let text = rest_of(&mut program);
        assert_eq!(text.matches("in the view").count(), 1, "{text}");
        assert!(text.contains("ERROR in backstop: Exception on /panics [GET]"));
        assert!(text.contains("Panic: panicked: in the view (at "), "{text}");
        assert!(text.contains("program.rs:"), "{text}");
    }

    // Where there is none, by the standard hook.
    let (mut program, _folder) = start("plain");
    assert_eq!(program.ask("/panics", &[]).status, 500);
    let text = rest_of(&mut program);
    assert_eq!(text.matches("in the view").count(), 1, "{text}");
    assert!(text.contains("panicked at "), "{text}");
}

#[test]
fn a_panic_is_told_when_the_program_ends_while_it_unwinds() {
    let (mut program, _folder) = start("logs");
    let mut stream = program.connect();
    write!(stream, "GET /panics/exit HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(program.process.wait().unwrap().code(), Some(4));
    let text = program.rest();
    assert_eq!(text.matches("on the way out").count(), 1, "{text}");
}

#[test]
fn a_client_that_leaves_while_it_sends_is_told_once() {
    // By whatever extractor the view reads: axum's, and ours, whose error says so as well.
    for path in ["/upload", "/json"] {
        let (mut program, _folder) = start("logs");
        let mut stream = program.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: 10\r\n\r\n[1").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The connection ends after the view.
        Answer::read(&mut stream);
        let text = rest_of(&mut program);
        let left = "INFO in backstop::client: the client left before its request was complete";
        assert_eq!(text.matches(left).count(), 1, "{text}");
        assert_eq!(text.matches("client left").count(), 1, "{text}");
        assert!(text.contains(&format!("path={path}")), "{text}");
    }
}

#[test]
fn a_panic_that_no_request_fails_of_is_told_all_the_same() {
    let (mut program, _folder) = start("logs");
    assert_eq!(program.ask("/panics/caught", &[]).body, "went on");
    assert_eq!(program.ask("/panics/task", &[]).body, "true");
    let text = rest_of(&mut program);
    let record = "WARNING in backstop: a panic was caught by the program itself";
    assert!(text.contains(record), "{text}");
    assert_eq!(text.matches("in a library").count(), 1, "{text}");
    assert_eq!(text.matches("in a task").count(), 1, "{text}");
}

#[test]
fn mail_to_administrators_leaves_before_the_end() {
    let (mut program, folder) = start("mails");
    for _ in 0..3 {
        assert_eq!(program.ask("/broken", &[]).status, 500);
    }
    program.signal("TERM");
    assert_eq!(program.process.wait().unwrap().code(), Some(0));
    let mut mails: Vec<String> = std::fs::read_dir(folder.0.join("mails"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    mails.sort_by_key(|mail| mail.contains("more errors"));
    assert_eq!(mails.len(), 2, "{mails:#?}");
    assert!(mails[0].contains("Subject: Application Error\r\n"));
    assert!(mails[1].contains("Subject: Application Error: 2 more errors, one problem\r\n"));
}

#[test]
fn mail_that_never_left_is_said_in_the_log() {
    let (mut program, _folder) = start("mails-to-nobody");
    assert_eq!(program.ask("/broken", &[]).status, 500);
    program.signal("TERM");
    assert_eq!(program.process.wait().unwrap().code(), Some(0));
    while !program.said.iter().any(|line| line.contains("mails=1")) {
        program.wait_for("");
    }
    assert!(
        program
            .said
            .iter()
            .any(|line| line.ends_with("mails to administrators were never sent"))
    );
}

#[test]
fn what_is_no_http_is_answered_and_the_server_goes_on() {
    let (program, _folder) = start("plain");
    assert_eq!(program.send("nonsense\r\n\r\n").status, 400);
    let long = "x".repeat(1 << 20);
    let huge = request("GET", "/", &[&format!("X-Long: {long}")], "");
    assert_eq!(program.send(&huge).status, 431);
    assert_eq!(program.ask("/", &[]).status, 200);
}

#[test]
fn without_debug_mode_nothing_of_it_is_there() {
    let (mut program, _folder) = start("plain");
    let answer = program.ask("/broken", &["Accept: text/html"]);
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains("ParseIntError") && !answer.body.contains("Drawer"));
    let own = program.ask("/_backstop/debugger/errors/x", &[]);
    assert_eq!(own.status, 404);
    program.signal("TERM");
    program.process.wait().unwrap();
    assert!(
        program.said.iter().any(|line| line == " * Debug mode: off"),
        "{:?}",
        program.said
    );
    assert!(!program.said.iter().any(|line| line.contains("PIN")));
}

#[test]
fn debug_mode_refuses_a_public_address() {
    let folder = Folder::new("public");
    let output = command("public", &folder.0).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3));
    assert!(said.contains("set DEBUG_ON_PUBLIC_ADDRESS"), "{said}");
}

#[test]
fn an_external_debugger_gets_plain_pages() {
    let (program, _folder) = start("external");
    let answer = program.ask("/broken", &["Accept: text/html"]);
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains("bs-trace"));
}
