//! What browsers report by themselves: violations of a Content-Security-Policy and their kin.
//!
//! Forms: `report-uri` of <https://www.w3.org/TR/CSP2/#violation-reports>, and the list of
//! <https://www.w3.org/TR/reporting-1/>.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use backstop_protocol::{Event, EventType, Level, Message, Request as HttpRequest, query_pairs};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::Ingest;
use super::body;
use super::caller::{Caller, project_of_path, split, text_of};
use super::envelope::decode;
use super::event::{Batch, EVENT_BYTES_MAX};
use super::normalise::Arrival;
use super::outcome::Fate;
use super::refusal::Refusal;

/// Reports in one list; browsers gather them for a minute.
const REPORTS_MAX: usize = 100;

pub(super) async fn security(
    State(ingest): State<Arc<Ingest>>,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let project = project_of_path(&project)?;
    let caller = ingest.caller_of_head(&head, Some(project), None).await?;
    let content_type = text_of(&head.headers, header::CONTENT_TYPE);
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let known = essence.is_empty()
        || essence.ends_with("json")
        || essence.ends_with("-report")
        || essence == "text/plain";
    if !known {
        let refusal = Refusal::unsupported("unsupported media type of a security report");
        return Err(ingest.count_refusal(Some(&caller), refusal));
    }
    let held = async {
        let held = body::read(&head.headers, body, &ingest.memory).await?;
        decode(&head, held).await
    };
    let held = held
        .await
        .map_err(|refusal| ingest.count_refusal(Some(&caller), refusal))?;
    let mut batch = Batch::default();
    let mut template = Event::default();
    for (name, value) in query_pairs(head.uri.query().unwrap_or_default()) {
        match &*name {
            "sentry_release" => template.release = Some(value.into_owned()),
            "sentry_environment" => template.environment = Some(value.into_owned()),
            _ => {}
        }
    }
    ingest.add_reports(
        &mut batch,
        &caller,
        &caller.arrival(),
        &held.bytes,
        &template,
    );
    ingest.finish(&caller, batch).await?;
    Ok((StatusCode::CREATED, ()).into_response())
}

impl Ingest {
    /// Adds a security report that came as an envelope's item.
    pub(super) fn add_security_report(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        arrival: &Arrival<'_>,
        bytes: &[u8],
    ) {
        self.add_reports(batch, caller, arrival, bytes, &Event::default());
    }

    fn add_reports(
        &self,
        batch: &mut Batch,
        caller: &Caller,
        arrival: &Arrival<'_>,
        bytes: &[u8],
        template: &Event,
    ) {
        if bytes.len() > EVENT_BYTES_MAX {
            self.count(caller, &Fate::TooLarge("security"), 1);
            batch.invalid = Some(Refusal::too_large("the report is larger than 1 MiB"));
            return;
        }
        let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
            self.count(caller, &Fate::Invalid("security"), 1);
            batch.invalid = Some(Refusal::bad("invalid security report: not JSON"));
            return;
        };
        let reports = match body {
            Value::Array(reports) => reports,
            report => vec![report],
        };
        let mut added = 0;
        for report in reports.iter().take(REPORTS_MAX) {
            if let Some(event) = event_of(report, caller, template) {
                added += 1;
                self.add_event(batch, caller, arrival, event, Some(EventType::Csp));
            }
        }
        if added == 0 {
            self.count(caller, &Fate::Invalid("security"), 1);
            batch.invalid = Some(Refusal::bad("invalid security report: of no known kind"));
        }
    }
}

/// A report as an event; `None` if it is of no known kind.
fn event_of(report: &Value, caller: &Caller, template: &Event) -> Option<Event> {
    let (kind, body) = kind_of(report)?;
    let field = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| body.get(*name))
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let mut event = template.clone();
    event.level = Level::Error;
    event.logger = Some(kind.to_owned());
    event.platform = Some("javascript".to_owned());
    let page = field(&["document-uri", "documentURL", "documentURI"]);
    let page = page.or_else(|| report.get("url").and_then(Value::as_str));
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            event.tags.insert(name.to_owned(), Value::from(value));
        }
    };
    if kind == "csp" {
        let effective = field(&["effective-directive", "effectiveDirective"]);
        let violated = field(&["violated-directive", "violatedDirective"]);
        let directive = effective.or(violated).unwrap_or("default-src");
        let directive = directive.split(' ').next().unwrap_or(directive);
        let blocked = field(&["blocked-uri", "blockedURL", "blockedURI"]).unwrap_or("self");
        put("effective-directive", Some(directive));
        put("blocked-uri", Some(blocked));
        // One policy is one problem per directive and source, whatever page it happens on.
        event.fingerprint = ["csp", directive, host_of(blocked)]
            .map(str::to_owned)
            .to_vec();
        event.message = Some(message(format!(
            "Blocked '{}' from '{}'",
            subject_of(directive),
            host_of(blocked)
        )));
        event.culprit = violated.or(effective).map(str::to_owned);
    } else {
        let host = field(&["hostname"])
            .or(page.map(host_of))
            .unwrap_or("an unknown host");
        event.message = Some(message(format!("{kind} report for '{host}'")));
    }
    let mut headers = serde_json::Map::new();
    headers.insert("User-Agent".to_owned(), json!(caller.agent));
    if let Some(referrer) = field(&["referrer"]) {
        headers.insert("Referer".to_owned(), json!(referrer));
    }
    event.request = Some(HttpRequest {
        url: page.map(str::to_owned),
        headers: Some(Value::Object(headers)),
        ..HttpRequest::default()
    });
    event.user.get_or_insert_default().ip_address = Some("{{auto}}".to_owned());
    event.other.insert(kind.to_owned(), body.clone());
    Some(event)
}

/// Returns which kind of report it is, under the name of its place in an event, and its fields.
fn kind_of(report: &Value) -> Option<(&'static str, &Value)> {
    for (name, kind) in [
        ("csp-report", "csp"),
        ("expect-ct-report", "expectct"),
        ("expect-staple-report", "expectstaple"),
    ] {
        if let Some(body) = report.get(name).filter(|body| body.is_object()) {
            return Some((kind, body));
        }
    }
    if report.get("known-pins").is_some() {
        return Some(("hpkp", report));
    }
    let body = report.get("body").filter(|body| body.is_object())?;
    match report.get("type").and_then(Value::as_str)? {
        "csp-violation" | "csp" => Some(("csp", body)),
        "network-error" => Some(("nel", body)),
        "deprecation" => Some(("deprecation", body)),
        "intervention" => Some(("intervention", body)),
        "crash" => Some(("crash", body)),
        _ => None,
    }
}

fn message(text: String) -> Message {
    Message {
        formatted: Some(text),
        ..Message::default()
    }
}

/// What a directive is about: `script` for `script-src-elem`.
fn subject_of(directive: &str) -> &str {
    let stem = directive.split("-src").next().unwrap_or(directive);
    match stem {
        "img" => "image",
        "frame" | "child" => "frame",
        other => other,
    }
}

fn host_of(url: &str) -> &str {
    match url.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or(rest),
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let check = |report: Value, expected: Option<&str>| {
            assert_eq!(kind_of(&report).map(|(kind, _)| kind), expected, "{report}");
        };
        check(json!({"csp-report": {}}), Some("csp"));
        check(json!({"type": "csp-violation", "body": {}}), Some("csp"));
        check(json!({"type": "network-error", "body": {}}), Some("nel"));
        check(json!({"hostname": "h", "known-pins": []}), Some("hpkp"));
        check(json!({"csp-report": 1}), None);
        check(json!({}), None);
    }

    #[test]
    fn words() {
        assert_eq!(subject_of("script-src-elem"), "script");
        assert_eq!(subject_of("img-src"), "image");
        assert_eq!(host_of("http://127.0.0.1:1/x.png"), "127.0.0.1:1");
        assert_eq!(host_of("inline"), "inline");
    }
}
