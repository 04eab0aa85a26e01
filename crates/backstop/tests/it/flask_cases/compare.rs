//! Comparing what happened with what Flask did.

use http::Method;
use serde_json::{Value, json};

use super::capture::{Inner, Record};
use super::errors::{list, text};
use super::run::Answer;
use super::texts;

/// Compares a whole case of the modes `app` and `server`.
pub(crate) fn outcome(
    expected: &Value,
    answer: &Answer,
    happened: &Inner,
    method: &Method,
) -> Result<(), String> {
    let expected = &texts::ours(expected);
    if let Some(propagated) = expected.get("propagated") {
        let wanted = (
            text(&propagated["class"]).to_owned(),
            text(&propagated["message"]).to_owned(),
        );
        equal("propagated", &answer.propagated, &Some(wanted))?;
    } else {
        response(expected, answer, method)?;
    }
    if let Some(complete) = expected["complete"].as_bool() {
        equal("complete", &answer.complete, &complete)?;
    }
    logs(expected, happened)?;
    if let Some(signals) = expected.get("signals") {
        equal("signals", &json!(happened.signals), signals)?;
    }
    if let Some(events) = expected.get("events") {
        let mut happened = happened.events.clone();
        if expected.get("stderr_lines").is_some() {
            // Recorded without the events of the logger.
            happened.retain(|event| !event.starts_with("log:"));
        }
        equal("events", &json!(happened), events)?;
    }
    Ok(())
}

/// Compares one answer of a factory's app.
pub(crate) fn answer_of_factory(
    expected: &Value,
    answer: &Answer,
    happened: &Inner,
) -> Result<(), String> {
    let expected = &texts::ours(expected);
    if let Some(propagated) = expected.get("propagated") {
        let wanted = (
            text(&propagated["class"]).to_owned(),
            text(&propagated["message"]).to_owned(),
        );
        equal("propagated", &answer.propagated, &Some(wanted))?;
    } else {
        status_and_body(expected, answer)?;
    }
    logs(expected, happened)
}

/// Compares one answer of a list of requests.
pub(crate) fn response_of_list(expected: &Value, answer: &Answer) -> Result<(), String> {
    status_and_body(&texts::ours(expected), answer)
}

fn status_and_body(expected: &Value, answer: &Answer) -> Result<(), String> {
    equal("status", &json!(answer.status), &expected["status"])?;
    let body = texts::without_request_id(&answer.body);
    equal("body", &json!(body), &expected["body"])
}

fn response(expected: &Value, answer: &Answer, method: &Method) -> Result<(), String> {
    equal("status", &json!(answer.status), &expected["status"])?;
    let body = texts::without_request_id(&answer.body);
    if let Some(json) = expected.get("body_json") {
        let ours: Value =
            serde_json::from_str(&answer.body).map_err(|error| format!("no JSON: {error}"))?;
        equal("body_json", &ours, json)?;
    } else {
        equal("body", &json!(body), &expected["body"])?;
    }
    let expected_headers = headers(&expected["headers"]);
    let mut ours: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| name != "x-request-id")
        .cloned()
        .collect();
    let is_json = expected.get("body_json").is_some();
    ours.retain(|(name, _)| !(is_json && name == "content-length"));
    for (name, value) in &mut ours {
        match name.as_str() {
            "allow" => {
                let mut methods: Vec<&str> = value.split(',').map(str::trim).collect();
                methods.sort_unstable();
                *value = methods.join(",");
            }
            // The request id has a line of its own, which Flask's page has not.
            "content-length" if method != Method::HEAD => *value = body.len().to_string(),
            _ => {}
        }
    }
    ours.sort();
    let mut wanted = Vec::new();
    for (name, value) in expected_headers {
        let value = match name.as_str() {
            // Our texts have other lengths than the recorded ones.
            "content-length" if method == Method::HEAD => texts::our_length(expected, &value),
            "content-length" => body.len().to_string(),
            _ => value,
        };
        wanted.push((name, value));
    }
    wanted.sort();
    equal("headers", &ours, &wanted)
}

/// The recorded headers as pairs; a list of methods is one value, other lists are several lines.
fn headers(recorded: &Value) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in recorded.as_object().into_iter().flatten() {
        match value {
            Value::Array(values) if name == "allow" => {
                let methods: Vec<&str> = values.iter().map(text).collect();
                pairs.push((name.clone(), methods.join(",")));
            }
            Value::Array(values) => {
                pairs.extend(
                    values
                        .iter()
                        .map(|value| (name.clone(), text(value).to_owned())),
                );
            }
            value => pairs.push((name.clone(), text(value).to_owned())),
        }
    }
    pairs
}

fn logs(expected: &Value, happened: &Inner) -> Result<(), String> {
    let Some(recorded) = expected.get("logs") else {
        return Ok(());
    };
    let has_server = list(recorded).iter().any(|log| log["logger"] == "server")
        || expected.get("complete").is_some();
    let ours: Vec<Value> = happened
        .logs
        .iter()
        .filter(|record| record.logger == "app" || has_server)
        .map(ours)
        .collect();
    let wanted: Vec<Value> = list(recorded).iter().map(theirs).collect();
    equal("logs", &ours, &wanted)
}

/// A record of ours in the recorded form.
fn ours(record: &Record) -> Value {
    if record.logger == "server" {
        let last_line = record
            .error
            .as_ref()
            .map(|(class, message)| format!("{class}: {message}"));
        return json!({"logger": "server", "level": record.level, "last_line": last_line});
    }
    let error = record
        .error
        .as_ref()
        .map(|(class, message)| json!({"class": class, "message": message}));
    let level = if record.level == "WARN" {
        "WARNING"
    } else {
        &record.level
    };
    json!({
        "logger": "app",
        "level": level,
        "message": record.message,
        "exception": error,
    })
}

/// A recorded record without what only a traceback of Python has.
fn theirs(log: &Value) -> Value {
    if log["logger"] == "server" {
        let line = text(&log["last_line"]);
        let line = line
            .rsplit_once("werkzeug.exceptions.")
            .map_or(line, |(_, line)| line);
        return json!({"logger": "server", "level": log["level"], "last_line": texts::logged(line)});
    }
    let mut log = log.clone();
    if let Some(message) = log["exception"].get_mut("message") {
        *message = json!(texts::logged(text(message)));
    }
    log
}

/// The text form of the log, without its indented lines; a traceback's first line is Python's.
pub(crate) fn stderr(expected: &Value, written: &str) -> Result<(), String> {
    let wanted: Vec<String> = list(&expected["stderr_lines"])
        .iter()
        .map(|line| text(line).to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with("Traceback "))
        .collect();
    let ours: Vec<String> = written
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(without_time_and_target)
        .collect();
    equal("stderr_lines", &ours, &wanted)
}

/// `[<time>] ERROR in app: …`, as recorded: Flask names the module, we name the target.
fn without_time_and_target(line: &str) -> String {
    let parts = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .and_then(|(_, rest)| rest.split_once(" in "))
        .and_then(|(level, rest)| Some((level, rest.split_once(": ")?.1)));
    match parts {
        Some((level, message)) => format!("[<time>] {level} in app: {message}"),
        None => line.to_owned(),
    }
}

pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    ours: &T,
    expected: &T,
) -> Result<(), String> {
    if ours == expected {
        Ok(())
    } else {
        Err(format!("{what} is {ours:?} instead of {expected:?}"))
    }
}
