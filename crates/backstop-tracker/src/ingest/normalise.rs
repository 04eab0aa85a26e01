//! Giving every event the same form, whoever sent it.
//!
//! An event goes in as its client wrote it, with what the request says about it; afterwards its id,
//! type, time, client and message are what every other part of the tracker may rely on.
//! Nothing that the client sent is lost: what is overruled is noted in `_meta`.

use std::net::IpAddr;

use backstop_protocol::{Event, EventId, EventType, Level, Message, Object, Sdk, Timestamp, User};
use serde_json::{Value, json};

/// Below this, a difference of clocks cannot be told from a slow network or a queue.
const DRIFT_MIN_MICROS: i64 = 55 * 60 * 1_000_000;
/// Older events are from a clock that is wrong, or useless.
const AGE_MAX_MICROS: i64 = 30 * 86_400 * 1_000_000;
/// Clocks differ by seconds; an event from further ahead has a wrong time.
const FUTURE_MAX_MICROS: i64 = 60 * 1_000_000;
/// A formatted message beyond this is cut; it bounds what `%s%s%s…` can make of its parameters.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Releases, environments and names are keys of tables; longer ones are faults.
const NAME_CHARS_MAX: usize = 200;

/// What a request says about the events in it.
#[derive(Debug, Clone)]
pub(super) struct Arrival<'a> {
    /// When it arrived, by the server's clock.
    pub(super) received: Timestamp,
    /// When it was sent, by the client's clock.
    pub(super) sent_at: Option<Timestamp>,
    /// The envelope's event id.
    pub(super) event_id: Option<EventId>,
    /// The client, by the envelope.
    pub(super) sdk: Option<&'a Sdk>,
    /// The client, by the authentication: `name/version`.
    pub(super) client: Option<&'a str>,
    /// The client's HTTP library.
    pub(super) agent: &'a str,
    /// Where the request came from; `None` if the project does not want to know.
    pub(super) peer: Option<IpAddr>,
}

/// Gives an event the form that the rest of the tracker relies on.
///
/// `spare_id` gives the id of an event that has none, and `ty` its type where the item says so.
pub(super) fn normalise(
    event: &mut Event,
    arrival: &Arrival<'_>,
    ty: Option<EventType>,
    spare_id: impl FnOnce() -> EventId,
) {
    set_id(event, arrival, spare_id);
    set_time(event, arrival);
    set_sdk(event, arrival);
    set_user(event, arrival);
    set_legacy(event);
    for field in [
        &mut event.release,
        &mut event.dist,
        &mut event.environment,
        &mut event.transaction,
        &mut event.culprit,
        &mut event.logger,
        &mut event.server_name,
        &mut event.platform,
    ] {
        tidy(field);
    }
    if let Some(message) = &mut event.message {
        format_message(message);
    }
    event.ty = Some(type_of(event, ty));
    // A level that is missing means an error, but a transaction is none.
    if event.ty == Some(EventType::Transaction) && event.level == Level::Error {
        event.level = Level::Info;
    }
}

/// The envelope's id beats the payload's: clients answer with it.
fn set_id(event: &mut Event, arrival: &Arrival<'_>, spare_id: impl FnOnce() -> EventId) {
    match arrival.event_id {
        Some(id) if !id.is_nil() => event.event_id = id,
        _ if event.event_id.is_nil() => event.event_id = spare_id(),
        _ => {}
    }
}

fn type_of(event: &Event, ty: Option<EventType>) -> EventType {
    match (ty, event.ty) {
        (Some(ty), _) => ty,
        (None, Some(EventType::Transaction)) => EventType::Transaction,
        (None, Some(EventType::Csp)) => EventType::Csp,
        (None, Some(EventType::Feedback)) => EventType::Feedback,
        _ if event.exception.is_empty() => EventType::Default,
        _ => EventType::Error,
    }
}

/// Moves the event's times by the client's clock drift, and overrules times that cannot be.
fn set_time(event: &mut Event, arrival: &Arrival<'_>) {
    let received = arrival.received.micros();
    let drift = arrival
        .sent_at
        .map_or(0, |sent_at| received - sent_at.micros());
    if drift.abs() >= DRIFT_MIN_MICROS {
        shift(event, drift);
        let sent_at = arrival.sent_at.unwrap_or_default().to_string();
        let times = json!({"sdk_time": sent_at, "server_time": arrival.received.to_string()});
        note(&mut event.meta, "timestamp", "clock_drift", &times);
    }
    let Some(time) = event.timestamp else {
        event.timestamp = Some(arrival.received);
        return;
    };
    let age = received - time.micros();
    let fault = if age > AGE_MAX_MICROS {
        "past_timestamp"
    } else if age < -FUTURE_MAX_MICROS {
        "future_timestamp"
    } else {
        return;
    };
    shift(event, age);
    let times = json!({"sdk_time": time.to_string(), "server_time": arrival.received.to_string()});
    note(&mut event.meta, "timestamp", fault, &times);
}

fn shift(event: &mut Event, micros: i64) {
    let moved = |time: Timestamp| Timestamp::from_micros(time.micros().saturating_add(micros));
    event.timestamp = event.timestamp.map(moved);
    for crumb in &mut event.breadcrumbs {
        crumb.timestamp = crumb.timestamp.map(moved);
    }
    if let Some(start) = event.other.get_mut("start_timestamp") {
        shift_value(start, micros);
    }
    if let Some(Value::Array(spans)) = event.other.get_mut("spans") {
        for span in spans {
            for field in ["timestamp", "start_timestamp"] {
                if let Some(time) = span.get_mut(field) {
                    shift_value(time, micros);
                }
            }
        }
    }
}

fn shift_value(value: &mut Value, micros: i64) {
    let time = match value {
        Value::String(text) => text.parse::<Timestamp>().ok(),
        Value::Number(number) => number.as_f64().and_then(Timestamp::from_seconds),
        _ => None,
    };
    if let Some(time) = time {
        let moved = Timestamp::from_micros(time.micros().saturating_add(micros));
        *value = Value::from(moved.to_string());
    }
}

/// The client is named in the payload, else in the envelope, else in the authentication, else by
/// its HTTP library.
fn set_sdk(event: &mut Event, arrival: &Arrival<'_>) {
    let named = |sdk: &&Sdk| sdk.name.as_deref().is_some_and(|name| !name.is_empty());
    if event.sdk.as_ref().filter(named).is_some() {
        return;
    }
    let other = event.sdk.take().map(|sdk| sdk.other).unwrap_or_default();
    let found = arrival.sdk.filter(named).cloned().or_else(|| {
        let agent = arrival.agent.split(' ').next().unwrap_or_default();
        let text = arrival.client.unwrap_or(agent).trim();
        let (name, version) = match text.split_once(['/', ' ']) {
            Some((name, version)) => (name, Some(version.trim().to_owned())),
            None => (text, None),
        };
        (!name.is_empty()).then(|| Sdk {
            name: Some(name.to_owned()),
            version: version.filter(|version| !version.is_empty()),
            other: Object::new(),
        })
    });
    event.sdk = match found {
        None if other.is_empty() => None,
        found => {
            let mut sdk = found.unwrap_or_default();
            for (key, value) in other {
                sdk.other.entry(key).or_insert(value);
            }
            Some(sdk)
        }
    };
}

/// `{{auto}}` means the address that the request came from, and so does `infer_ip`, by which newer
/// clients ask for it.
fn set_user(event: &mut Event, arrival: &Arrival<'_>) {
    let peer = arrival.peer.map(|peer| peer.to_canonical().to_string());
    let infer = event.sdk.as_ref().and_then(|sdk| {
        let settings = sdk.other.get("settings")?;
        settings.get("infer_ip")?.as_str()
    });
    let asked = infer == Some("auto")
        && event
            .user
            .as_ref()
            .is_none_or(|user| user.ip_address.is_none());
    if asked && peer.is_some() {
        event.user.get_or_insert_default().ip_address = Some("{{auto}}".to_owned());
    }
    let Some(user) = &mut event.user else { return };
    if user.ip_address.as_deref() == Some("{{auto}}") {
        user.ip_address = peer;
    }
    if let Some(Value::Number(id)) = &user.id {
        user.id = Some(Value::from(id.to_string()));
    }
    if *user == User::default() {
        event.user = None;
    }
}

/// Fields of old clients that have a place of their own today.
fn set_legacy(event: &mut Event) {
    if let Some(Value::String(site)) = event.other.get("site") {
        let site = Value::from(site.clone());
        event.tags.entry("site").or_insert(site);
    }
    if let Some(Value::String(checksum)) = event.other.get("checksum")
        && event.fingerprint.is_empty()
        && !checksum.is_empty()
    {
        event.fingerprint.push(checksum.clone());
    }
    if event.environment.is_none()
        && let Some(Value::String(environment)) = event.tags.get("environment")
    {
        event.environment = Some(environment.clone());
    }
    if event.release.is_none()
        && let Some(Value::String(release)) = event.tags.get("release")
    {
        event.release = Some(release.clone());
    }
    if event.platform.is_none() {
        event.platform = Some("other".to_owned());
    }
}

fn tidy(field: &mut Option<String>) {
    let Some(text) = field else { return };
    let trimmed = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    let end = trimmed
        .char_indices()
        .nth(NAME_CHARS_MAX)
        .map_or(trimmed.len(), |(end, _)| end);
    if trimmed.is_empty() {
        *field = None;
    } else if end < text.len() {
        *field = Some(trimmed[..end].to_owned());
    }
}

/// Fills a message's parameters into its template where the client did not.
fn format_message(message: &mut Message) {
    if message
        .formatted
        .as_deref()
        .is_some_and(|text| !text.is_empty())
    {
        return;
    }
    let Some(template) = &message.message else {
        return;
    };
    message.formatted = Some(match &message.params {
        Some(Value::Array(params)) => filled(template, &mut params.iter(), &Object::new()),
        Some(Value::Object(params)) => filled(template, &mut params.values(), params),
        _ => template.clone(),
    });
}

/// Fills in `%s`, `%d`, `%(name)s`, `{}`, `{0}` and `{name}`; what has no parameter stays.
fn filled<'p>(
    template: &str,
    params: &mut dyn Iterator<Item = &'p Value>,
    named: &'p Object,
) -> String {
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(at) = rest.find(['%', '{']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if text.len() > MESSAGE_BYTES_MAX {
            return text;
        }
        let (len, value) = placeholder(rest, params, named);
        match value {
            Some(Value::String(value)) => text.push_str(value),
            Some(value) => text.push_str(&value.to_string()),
            None if rest.starts_with("%%") => text.push('%'),
            None => text.push_str(&rest[..len]),
        }
        rest = &rest[len..];
    }
    text.push_str(rest);
    text
}

/// Returns how long the placeholder at the beginning of the text is, and its parameter.
fn placeholder<'p>(
    text: &str,
    params: &mut dyn Iterator<Item = &'p Value>,
    named: &'p Object,
) -> (usize, Option<&'p Value>) {
    if text.starts_with("%%") {
        return (2, None);
    }
    if let Some(inner) = text.strip_prefix("%(") {
        return match inner.split_once(')') {
            Some((name, after)) if after.starts_with(|kind: char| kind.is_ascii_alphabetic()) => {
                (name.len() + 4, named.get(name))
            }
            _ => (1, None),
        };
    }
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.split_once('}') {
            Some((name, _))
                if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                (name.len() + 2, params.next())
            }
            Some((name, _)) if named.contains_key(name) => (name.len() + 2, named.get(name)),
            _ => (1, None),
        };
    }
    match text.as_bytes().get(1) {
        Some(b's' | b'd' | b'i' | b'r' | b'f' | b'o' | b'j' | b'O') => (2, params.next()),
        _ => (1, None),
    }
}

/// Notes in Sentry's form that a field was overruled.
pub(super) fn note(meta: &mut Object, field: &str, error: &str, details: &Value) {
    let place = meta.entry(field).or_insert_with(|| json!({}));
    if !place.is_object() {
        *place = json!({});
    }
    let said = &mut place[""];
    if !said.is_object() {
        *said = json!({});
    }
    match &mut said["err"] {
        Value::Array(errors) => errors.push(json!([error, details])),
        errors => *errors = json!([[error, details]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_795_338_000_000_000);
    const SPARE: EventId = EventId::from_bytes([9; 16]);

    fn arrival() -> Arrival<'static> {
        Arrival {
            received: NOW,
            sent_at: None,
            event_id: None,
            sdk: None,
            client: None,
            agent: "",
            peer: Some("192.0.2.7".parse().unwrap()),
        }
    }

    fn normalised(wire: &Value, arrival: &Arrival<'_>) -> Event {
        let mut event = Event::decode(wire.to_string().as_bytes()).unwrap();
        normalise(&mut event, arrival, None, || SPARE);
        event
    }

    #[test]
    fn ids() {
        let id = EventId::from_bytes([1; 16]);
        let sent = json!({"event_id": id});
        assert_eq!(normalised(&json!({}), &arrival()).event_id, SPARE);
        assert_eq!(normalised(&sent, &arrival()).event_id, id);
        let header = EventId::from_bytes([2; 16]);
        let enveloped = Arrival {
            event_id: Some(header),
            ..arrival()
        };
        assert_eq!(normalised(&sent, &enveloped).event_id, header);
    }

    #[test]
    fn types() {
        let check =
            |wire: Value, ty| assert_eq!(normalised(&wire, &arrival()).ty, Some(ty), "{wire}");
        check(json!({"message": "m"}), EventType::Default);
        check(
            json!({"exception": [{"type": "E"}], "message": "m"}),
            EventType::Error,
        );
        check(json!({"exception": [{"value": "v"}]}), EventType::Error);
        check(json!({"type": "transaction"}), EventType::Transaction);
        check(
            json!({"type": "default", "exception": [{"type": "E"}]}),
            EventType::Error,
        );
    }

    #[test]
    fn times() {
        let time = |event: &Event| event.timestamp.unwrap().micros() - NOW.micros();
        let day = 86_400 * 1_000_000;
        let at = |micros: i64| json!({"timestamp": Timestamp::from_micros(NOW.micros() + micros).to_string()});
        assert_eq!(time(&normalised(&json!({}), &arrival())), 0);
        assert_eq!(time(&normalised(&at(-5 * day), &arrival())), -5 * day);
        let old = normalised(&at(-31 * day), &arrival());
        assert_eq!(time(&old), 0);
        assert_eq!(old.meta["timestamp"][""]["err"][0][0], "past_timestamp");
        let future = normalised(&at(day), &arrival());
        assert_eq!(
            (time(&future), &future.meta["timestamp"][""]["err"][0][0]),
            (0, &json!("future_timestamp"))
        );
        let sent = |micros: i64| Arrival {
            sent_at: Some(Timestamp::from_micros(NOW.micros() + micros)),
            ..arrival()
        };
        let hour = 3_600 * 1_000_000;
        assert_eq!(time(&normalised(&at(-2 * hour), &sent(-hour))), -hour);
        assert_eq!(
            time(&normalised(&at(-hour / 2), &sent(-hour / 2))),
            -hour / 2
        );
        let drifted = normalised(&at(-40 * day), &sent(-40 * day));
        assert_eq!(time(&drifted), 0);
        assert_eq!(drifted.meta["timestamp"][""]["err"][0][0], "clock_drift");
    }

    #[test]
    fn clients() {
        let name = |wire: &Value, arrival: &Arrival<'_>| {
            let sdk = normalised(wire, arrival).sdk;
            sdk.map(|sdk| {
                (
                    sdk.name.unwrap_or_default(),
                    sdk.version.unwrap_or_default(),
                )
            })
        };
        let of = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        let agent = Arrival {
            agent: "raven-go/1.0 (linux)",
            ..arrival()
        };
        assert_eq!(name(&json!({}), &arrival()), None);
        assert_eq!(name(&json!({}), &agent), of("raven-go", "1.0"));
        let client = Arrival {
            client: Some("raven-python/6.10.0"),
            ..agent
        };
        assert_eq!(name(&json!({}), &client), of("raven-python", "6.10.0"));
        let header = Sdk {
            name: Some("sentry.native".to_owned()),
            ..Sdk::default()
        };
        let envelope = Arrival {
            sdk: Some(&header),
            ..client
        };
        assert_eq!(
            name(&json!({"sdk": {}}), &envelope),
            of("sentry.native", "")
        );
        let wire = json!({"sdk": {"name": "sentry.python.flask", "version": "2.75.0"}});
        assert_eq!(name(&wire, &envelope), of("sentry.python.flask", "2.75.0"));
    }

    #[test]
    fn addresses() {
        let address = |wire: Value, arrival: &Arrival<'_>| {
            normalised(&wire, arrival)
                .user
                .and_then(|user| user.ip_address)
        };
        let auto = json!({"user": {"ip_address": "{{auto}}"}});
        assert_eq!(
            address(auto.clone(), &arrival()).as_deref(),
            Some("192.0.2.7")
        );
        let unknown = Arrival {
            peer: None,
            ..arrival()
        };
        assert_eq!(address(auto, &unknown), None);
        assert_eq!(address(json!({"user": {}}), &arrival()), None);
        let infer = json!({"sdk": {"name": "s", "settings": {"infer_ip": "auto"}}});
        assert_eq!(address(infer, &arrival()).as_deref(), Some("192.0.2.7"));
        let never = json!({"sdk": {"name": "s", "settings": {"infer_ip": "never"}}});
        assert_eq!(address(never, &arrival()), None);
    }

    #[test]
    fn messages() {
        let check = |template: &str, params: Value, expected: &str| {
            let wire = json!({"logentry": {"message": template, "params": params}});
            let message = normalised(&wire, &arrival()).message.unwrap();
            assert_eq!(message.formatted.unwrap(), expected);
        };
        check(
            "order %s paid: %d%%",
            json!(["1234", 7]),
            "order 1234 paid: 7%",
        );
        check("order {} of {}", json!([1]), "order 1 of {}");
        check(
            "%(who)s did {what}",
            json!({"who": "ann", "what": "it"}),
            "ann did it",
        );
        check("100% {json: 1} %", json!([1]), "100% {json: 1} %");
        check("%s", json!(null), "%s");
        check("%s", json!([{"a": 1}]), "{\"a\":1}");
        let huge = "%s".repeat(100_000);
        let wire = json!({"logentry": {"message": huge, "params": vec!["x".repeat(1000); 1000]}});
        let text = normalised(&wire, &arrival())
            .message
            .unwrap()
            .formatted
            .unwrap();
        assert!(text.len() < MESSAGE_BYTES_MAX + 2000);
    }

    #[test]
    fn old_fields_and_tidy_names() {
        let event = normalised(
            &json!({"site": "eu", "checksum": "abc", "tags": {"environment": "qa"}, "release": " \u{0}",
                "transaction": " /x ", "server_name": "y".repeat(300), "user": {"id": 42}}),
            &arrival(),
        );
        assert_eq!(event.tags["site"], "eu");
        assert_eq!(event.fingerprint, ["abc"]);
        assert_eq!(event.environment.as_deref(), Some("qa"));
        assert_eq!(event.release, None);
        assert_eq!(event.transaction.as_deref(), Some("/x"));
        assert_eq!(event.server_name.unwrap().len(), 200);
        assert_eq!(event.user.unwrap().id, Some(json!("42")));
        assert_eq!(event.platform.as_deref(), Some("other"));
    }
}
