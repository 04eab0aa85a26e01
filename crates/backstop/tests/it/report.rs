//! The reporting client against a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use backstop::report::{
    self, Answer, Breadcrumb, Client, Collector, Event, InProcess, Level, Options, Scope, Tracker,
    Transport, User,
};
use flate2::read::GzDecoder;
use serde_json::Value;

/// Long enough for the slowest machine; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Never to be seen; in two parts, for events carry lines of this file.
const SECRET: &str = concat!("hunt", "er2");

/// What arrived at the fake tracker.
struct Received {
    path: String,
    headers: Vec<(String, String)>,
    envelope: Vec<Value>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }
}

/// What the fake tracker does with its connections, one after the other; the last repeats.
#[derive(Clone, Copy)]
enum Act {
    Answer(&'static str),
    Reset,
}

const OK: Act = Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");

fn tracker(acts: &'static [Act]) -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("http://a1b2@{}/7", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut acts = acts.iter().copied();
        let mut act = acts.next().unwrap();
        for connection in listener.incoming() {
            let mut reader = BufReader::new(connection.unwrap());
            while let Some(received) = receive(&mut reader) {
                let current = act;
                act = acts.next().unwrap_or(act);
                match current {
                    Act::Reset => break,
                    Act::Answer(answer) => {
                        reader.get_mut().write_all(answer.as_bytes()).unwrap();
                        if sender.send(received).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    });
    (dsn, receiver)
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut received = Received {
        path,
        headers,
        envelope: Vec::new(),
    };
    let length = received.header("content-length").parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if received.header("content-encoding") == "gzip" {
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).ok()?;
        body = plain;
    }
    received.envelope = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    Some(received)
}

fn client(dsn: &str) -> Client {
    Client::new(&dsn.parse().unwrap(), Options::default())
}

#[test]
fn an_error_arrives_with_its_chain() {
    let (dsn, received) = tracker(&[OK]);
    let guard = report::init_with(&dsn, Options::default().release("shop@1.2.3")).unwrap();
    let error = std::io::Error::other("x".parse::<u8>().unwrap_err());
    let id = guard.client().capture_error(&error).unwrap();

    let received = received.recv_timeout(PATIENCE).unwrap();
    assert_eq!(received.path, "/api/7/envelope/");
    let auth = received.header("x-sentry-auth");
    assert!(
        auth.contains("sentry_key=a1b2") && auth.contains("sentry_version=7"),
        "{auth}"
    );
    assert_eq!(received.header("content-encoding"), "gzip");
    let [header, item, event] = &received.envelope[..] else {
        panic!("one item");
    };
    assert_eq!(header["event_id"], id.to_string());
    assert_eq!(item["type"], "event");
    assert_eq!(event["release"], "shop@1.2.3");
    assert_eq!(event["platform"], "rust");
    let values = event["exception"]["values"].as_array().unwrap();
    assert_eq!(values[0]["type"], "ParseIntError");
    assert_eq!(values[1]["type"], "Error");
    let frame = values[1]["stacktrace"]["frames"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert!(
        frame["filename"].as_str().unwrap().ends_with("report.rs"),
        "{frame}"
    );
    assert!(
        frame["context_line"]
            .as_str()
            .unwrap()
            .contains("capture_error"),
        "{frame}"
    );
}

#[test]
fn a_kept_connection_that_was_closed_is_tried_once_more() {
    let (dsn, received) = tracker(&[OK, Act::Reset, OK]);
    let client = client(&dsn);
    client.capture_message("first", Level::Info);
    received.recv_timeout(PATIENCE).unwrap();
    client.capture_message("second", Level::Info);
    let second = received.recv_timeout(PATIENCE).unwrap();
    assert_eq!(second.envelope[2]["logentry"]["formatted"], "second");
    assert!(client.flush(PATIENCE));
}

#[test]
fn a_busy_tracker_gets_the_same_event_again() {
    const BUSY: Act =
        Act::Answer("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
    let (dsn, received) = tracker(&[BUSY, OK]);
    let client = client(&dsn);
    let id = client.capture_message("kept", Level::Info).unwrap();
    for _ in 0..2 {
        let attempt = received.recv_timeout(PATIENCE).unwrap();
        assert_eq!(attempt.envelope[0]["event_id"], id.to_string());
    }
    assert!(client.flush(PATIENCE));
}

#[test]
fn a_refused_event_is_counted_and_the_next_envelope_tells() {
    const REFUSED: Act =
        Act::Answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 18\r\n\r\n{\"detail\":\"sorry\"}");
    let (dsn, received) = tracker(&[REFUSED, OK]);
    let client = client(&dsn);
    client.capture_message("refused", Level::Info);
    client.capture_message("taken", Level::Info);
    received.recv_timeout(PATIENCE).unwrap();
    let second = received.recv_timeout(PATIENCE).unwrap();
    assert_eq!(second.envelope[2]["logentry"]["formatted"], "taken");
    assert_eq!(second.envelope[3]["type"], "client_report");
    let lost = &second.envelope[4]["discarded_events"][0];
    assert_eq!(lost["reason"], "send_error");
    assert_eq!(lost["quantity"], 1);
}

#[test]
fn a_tracker_that_asks_for_a_pause_gets_it() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    collector.answer_with(Answer {
        status: 429,
        retry_after: Some("3600".to_owned()),
        ..Answer::default()
    });
    client.capture_message("limited", Level::Info);
    assert!(client.flush(PATIENCE));
    // Now the tracker would take it, but the hour is not over.
    collector.answer_with(Answer::stored());
    client.capture_message("held back", Level::Info);
    assert!(client.flush(PATIENCE));
    assert!(collector.events().is_empty());
    client.close(PATIENCE);
    let report = &collector.client_reports()[0]["discarded_events"][0];
    assert_eq!(report["reason"], "ratelimit_backoff");
    assert_eq!(report["quantity"], 2);
}

#[test]
fn a_limit_for_something_else_does_not_concern_errors() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    collector.answer_with(Answer {
        status: 200,
        rate_limits: Some("3600:transaction;span:organization".to_owned()),
        ..Answer::default()
    });
    for text in ["one", "two"] {
        client.capture_message(text, Level::Info);
        assert!(client.flush(PATIENCE));
    }
    assert_eq!(collector.events().len(), 2);
}

#[test]
fn a_full_queue_loses_with_a_count_and_never_waits() {
    let collector = Collector::new();
    let entered = Arc::new(Barrier::new(2));
    let leave = Arc::new(Barrier::new(2));
    let calls = Arc::new(AtomicUsize::new(0));
    let transport = {
        let (entered, leave, collector) = (entered.clone(), leave.clone(), collector.clone());
        InProcess::new(move |envelope| {
            if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                entered.wait();
                leave.wait();
            }
            collector.store(envelope)
        })
    };
    let client = Client::in_process(transport, Options::default().queue_events_max(2));
    client.capture_message("being sent", Level::Info);
    entered.wait();
    let accepted = (0..5)
        .filter(|number| {
            client
                .capture_message(format!("{number}"), Level::Info)
                .is_some()
        })
        .count();
    assert_eq!(accepted, 2);
    leave.wait();
    assert!(client.flush(PATIENCE));
    assert_eq!(collector.events().len(), 3);
    let lost = &collector.client_reports()[0]["discarded_events"][0];
    assert_eq!(lost["reason"], "queue_overflow");
    assert_eq!(lost["quantity"], 3);
}

#[test]
fn the_last_word_is_the_programs_own() {
    let collector = Collector::new();
    let options = Options::default().before_send(|mut event| {
        match event.message.as_ref()?.formatted.as_deref()? {
            "panic" => panic!("on purpose"),
            "drop" => None,
            _ => {
                event.release = Some("changed".to_owned());
                Some(event)
            }
        }
    });
    let client = Client::with_transport(Transport::Collecting(collector.clone()), options);
    for text in ["panic", "drop", "keep"] {
        client.capture_message(text, Level::Info);
    }
    assert!(client.flush(PATIENCE));
    let events = collector.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].release.as_deref(), Some("changed"));
    let reasons: Vec<_> = collector.client_reports()[0]["discarded_events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lost| lost["reason"].clone())
        .collect();
    assert_eq!(reasons, ["before_send", "internal_sdk_error"]);
}

#[test]
fn nothing_is_sampled_at_rate_nought() {
    let collector = Collector::new();
    let client = Client::with_transport(
        Transport::Collecting(collector.clone()),
        Options::default().sample_rate(0.0),
    );
    assert_eq!(client.capture_message("no", Level::Info), None);
    client.close(PATIENCE);
    assert!(collector.events().is_empty());
}

#[test]
fn what_is_known_of_the_work_goes_along() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    let scope = Scope::new()
        .client(client.clone())
        .tag("route", "/checkout")
        .user(User {
            username: Some("ada".to_owned()),
            ip_address: Some("203.0.113.9".to_owned()),
            ..User::default()
        });
    scope.run(|| {
        report::add_breadcrumb(Breadcrumb {
            message: Some("GET /cart?token=hunter2".to_owned()),
            ..Breadcrumb::default()
        });
        report::capture_message("stuck");
    });
    assert!(client.flush(PATIENCE));
    let event = &collector.events()[0];
    assert_eq!(event.tags["route"], "/checkout");
    assert_eq!(
        event.user.as_ref().unwrap().username.as_deref(),
        Some("ada")
    );
    assert_eq!(event.user.as_ref().unwrap().ip_address, None);
    let breadcrumb = event.breadcrumbs[0].message.as_deref();
    assert_eq!(breadcrumb, Some("GET /cart?token=[Filtered]"));
}

#[test]
fn a_panic_is_reported_once() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    report::install_panic_hook();
    let scope = Scope::new().client(client.clone());
    let panicked = std::thread::spawn(move || scope.run(|| panic!("no drawer {}", 7))).join();
    assert!(panicked.is_err());
    assert!(client.flush(PATIENCE));
    let events = collector.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].level, Level::Fatal);
    let exception = &events[0].exception[0];
    assert_eq!(exception.value.as_deref(), Some("no drawer 7"));
    assert_eq!(exception.mechanism.as_ref().unwrap().handled, Some(false));
    let frames = &exception.stacktrace.as_ref().unwrap().frames;
    assert!(
        frames
            .last()
            .unwrap()
            .context_line
            .as_ref()
            .unwrap()
            .contains("no drawer")
    );
}

#[test]
fn the_expensive_part_is_made_on_the_clients_thread() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    let here = std::thread::current().id();
    let id = client.capture_later(Event::default(), move |mut event| {
        assert_ne!(std::thread::current().id(), here);
        event.logger = Some("later".to_owned());
        event
    });
    assert!(client.flush(PATIENCE));
    assert_eq!(collector.events()[0].logger.as_deref(), Some("later"));
    assert_eq!(Some(collector.events()[0].event_id), id);
}

#[test]
fn a_closed_port_costs_the_program_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = client(&format!("http://a1b2@{closed}/7"));
    assert!(client.capture_message("lost", Level::Info).is_some());
    client.close(Duration::ZERO);
    assert_eq!(client.capture_message("too late", Level::Info), None);
}

#[test]
fn the_trackers_dsn_is_checked() {
    assert!(Tracker::new("not a dsn").is_err());
    assert!(Tracker::from_static("http://host/").client().is_err());
    let tracker = Tracker::new("http://k:hush@host/1").unwrap();
    assert!(!format!("{tracker:?}").contains("hush"));
}

/// A view that fails three calls deep, with something to see in each.
mod shop {
    use backstop::Result;

    #[derive(Debug)]
    pub(crate) struct Order {
        pub(crate) id: u32,
        pub(crate) note: &'static str,
    }

    #[inline(never)]
    pub(crate) fn price(order: &Order) -> Result<u32> {
        let cents: u32 = order.note.parse()?;
        Ok(cents + order.id)
    }

    /// Fails at a place of its own: variables of one place are read once in a while only.
    pub(crate) async fn tagged() -> Result<String> {
        backstop::report::set_tag("order", "7");
        Err("no order")?
    }

    pub(crate) async fn broken() -> String {
        panic!("empty drawer")
    }

    pub(crate) async fn view() -> Result<String> {
        let order = Order { id: 7, note: "n/a" };
        let price = price(&order)?;
        Ok(format!("{} {price}", order.note))
    }
}

fn app(client: &Client) -> axum::Router {
    use axum::routing::get;
    let routes = axum::Router::new()
        .route("/price/{id}", get(shop::view))
        .route("/tagged", get(shop::tagged))
        .route("/gone", get(|| async { backstop::abort::<()>(410) }))
        .route(
            "/told",
            get(|| async { report::capture_message("from a view").map(drop).unwrap() }),
        )
        .route("/panic", get(shop::broken));
    let tracker = Tracker::of_client(client.clone());
    tracker
        .init_app(backstop::App::new(routes))
        .into_router()
        .unwrap()
}

async fn ask(router: axum::Router, path: &str) -> u16 {
    use tower::ServiceExt;
    let request = http::Request::get(path)
        .header("Host", "shop.example")
        .header("Cookie", format!("session={SECRET}"))
        .body(axum::body::Body::empty())
        .unwrap();
    router.oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn an_unhandled_error_of_a_view_is_one_event() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    let router = app(&client);
    let path = format!("/price/7?token={SECRET}&q=1");
    assert_eq!(ask(router.clone(), &path).await, 500);
    assert_eq!(ask(router, "/gone").await, 410);
    assert!(client.flush(PATIENCE));

    let events = collector.events();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(event.transaction.as_deref(), Some("/price/{id}"));
    let request = event.request.as_ref().unwrap();
    assert_eq!(request.url.as_deref(), Some("http://shop.example/price/7"));
    assert_eq!(
        request.query_string.as_ref().unwrap(),
        "token=[Filtered]&q=1"
    );
    assert!(!serde_json::to_string(event).unwrap().contains(SECRET));
    assert!(event.tags.contains_key("request_id"));

    let exception = event.exception.last().unwrap();
    assert_eq!(exception.ty.as_deref(), Some("ParseIntError"));
    let frames = &exception.stacktrace.as_ref().unwrap().frames;
    let newest = frames.last().unwrap();
    assert!(
        newest.function.as_ref().unwrap().ends_with("shop::price"),
        "{newest:?}"
    );
    assert!(
        newest
            .context_line
            .as_ref()
            .unwrap()
            .contains("order.note.parse()?")
    );
    assert_eq!(newest.in_app, Some(true));
    let order = newest.vars["order"].to_string();
    assert!(order.contains("n/a") && order.contains('7'), "{order}");
    let view = frames.iter().rev().find(|frame| {
        frame
            .function
            .as_ref()
            .is_some_and(|name| name.contains("shop::view"))
    });
    assert!(view.is_some_and(|frame| frame.in_app == Some(true)));
}

#[tokio::test]
async fn a_panic_of_a_view_is_one_event_with_its_place() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    report::install_panic_hook();
    let router = app(&client);
    let scope = Scope::new().client(client.clone());
    assert_eq!(scope.bind(ask(router, "/panic")).await, 500);
    assert!(client.flush(PATIENCE));
    let events = collector.events();
    assert_eq!(events.len(), 1);
    let exception = events[0].exception.last().unwrap();
    assert!(exception.value.as_ref().unwrap().contains("empty drawer"));
    let newest = exception
        .stacktrace
        .as_ref()
        .unwrap()
        .frames
        .last()
        .unwrap();
    assert!(
        newest
            .context_line
            .as_ref()
            .unwrap()
            .contains("empty drawer"),
        "{newest:?}"
    );
}

#[tokio::test]
async fn what_a_view_says_ends_with_its_request() {
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    let router = app(&client);
    // On one thread, so that a leak would show.
    assert_eq!(ask(router.clone(), "/tagged").await, 500);
    assert_eq!(ask(router.clone(), "/panic").await, 500);
    assert_eq!(ask(router, "/told").await, 200);
    assert!(client.flush(PATIENCE));
    let events = collector.events();
    let has_tag: Vec<bool> = events
        .iter()
        .map(|event| event.tags.contains_key("order"))
        .collect();
    assert_eq!(has_tag, [true, false, false]);
    let told = events[2].message.as_ref().unwrap().formatted.as_deref();
    assert_eq!(told, Some("from a view"));
}

#[tokio::test]
async fn a_server_that_ends_sends_its_last_reports() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _alone = crate::MAILS.lock().await;
    // A static tracker is never dropped, so nothing else would wait for it.
    let collector = Collector::new();
    let client = Client::collecting(&collector);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(backstop::serve_until(listener, app(&client), async {
        ended.await.unwrap();
    }));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /tagged HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    end.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert_eq!(collector.events().len(), 1);
}
