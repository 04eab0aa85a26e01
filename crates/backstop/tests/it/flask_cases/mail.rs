//! Mails to administrators: what was sent for a list of requests.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use backstop::mail::{AdminOptions, Admins, Mailer};
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use super::build::{self, World};
use super::capture::Notes;
use super::compare::{equal, response_of_list};
use super::errors::{Classes, list, text};
use super::run::{Answer, request, send};

pub(crate) fn run(case: &Value, about: &Value) -> Result<(), String> {
    let _alone = crate::MAILS.blocking_lock();
    let described = &case["mail"];
    let memory = Mailer::memory();
    let mailer = match described["server"].as_str() {
        Some("down") => closed_port()?,
        _ => memory.clone(),
    };
    let options = AdminOptions {
        subject: text(&described["subject"]).to_owned(),
        ..AdminOptions::default()
    };
    let to: Vec<&str> = list(&described["to"]).iter().map(text).collect();
    let admins = Admins::with_options(mailer, text(&described["from"]), to.clone(), options);
    let world = Arc::new(World {
        notes: Notes::default(),
        classes: Classes::new(about, &case["setup"]),
    });
    let app = build::app(&world, &case["setup"]).init(&admins);
    let router = app.into_router().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime starts");
    let subscriber = tracing_subscriber::registry().with(admins.log_layer());
    let answers = tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let mut answers = Vec::new();
            for wanted in list(&case["requests"]) {
                let (method, path) = text(wanted).split_once(' ').expect("method and path");
                let mut request = request(&json!({"method": method, "path": path}));
                let client = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
                request.extensions_mut().insert(ConnectInfo(client));
                answers.push(Answer::of(send(router.clone(), request).await).await);
            }
            answers
        })
    });
    for (expected, answer) in list(&case["expected"]["responses"]).iter().zip(&answers) {
        response_of_list(expected, answer)?;
    }
    admins.flush(Duration::from_secs(10));
    let sent = memory.sent();
    let expected = list(&case["expected"]["mails"]);
    equal("number of mails", &sent.len(), &expected.len())?;
    for (mail, expected) in sent.iter().zip(expected) {
        compare(mail, expected)?;
    }
    Ok(())
}

/// A server that refuses connections: a port that was free a moment ago.
fn closed_port() -> Result<Mailer, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let port = listener
        .local_addr()
        .map_err(|error| error.to_string())?
        .port();
    drop(listener);
    Mailer::smtp(&format!("smtp://127.0.0.1:{port}")).map_err(|error| error.to_string())
}

fn compare(mail: &str, expected: &Value) -> Result<(), String> {
    let (head, body) = mail.split_once("\r\n\r\n").ok_or("a mail has no body")?;
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .unwrap_or_default()
            .to_owned()
    };
    equal(
        "From",
        &header("From").as_str(),
        &text(&expected["header_from"]),
    )?;
    let to = header("To").replace(' ', "");
    equal("To", &to.as_str(), &text(&expected["header_to"]))?;
    equal(
        "Subject",
        &header("Subject").as_str(),
        &text(&expected["subject"]),
    )?;
    equal(
        "has a date",
        &!header("Date").is_empty(),
        &(expected["has_date"] == true),
    )?;
    let body = if header("Content-Transfer-Encoding") == "quoted-printable" {
        unquote(body)
    } else {
        body.to_owned()
    };
    // Ours has one form: what happened, who asked for what, then the errors, outermost first.
    for line in list(&expected["body_first_lines"]) {
        let line = text(line).trim_start_matches("[<time>] ");
        if line.starts_with("Traceback") {
            continue;
        }
        let line = line.replace(" in app: ", " in backstop: ");
        if !body.lines().any(|ours| ours.ends_with(&line)) {
            return Err(format!("no line {line:?} in {body:?}"));
        }
    }
    if let Some(last) = expected["body_last_line"].as_str()
        && !body.lines().any(|ours| ours.ends_with(last))
    {
        return Err(format!("no line {last:?} in {body:?}"));
    }
    Ok(())
}

/// Undoes quoted-printable.
fn unquote(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    let mut bytes = Vec::with_capacity(joined.len());
    let mut rest = joined.as_bytes();
    while let [first, tail @ ..] = rest {
        let encoded = tail
            .get(..2)
            .filter(|_| *first == b'=')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match encoded {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
