//! The event: one occurrence of an error or message, as sent on the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encode::{Encode, Members, serialize_encoded};
use crate::json::{Reader, Syntax};
use crate::lenient::{attach_notes, deserialize_leniently};
use crate::{
    Breadcrumb, DecodeError, EventId, Exception, Lazy, Level, Object, Request, Stacktrace, Thread,
    Timestamp, User,
};

/// One occurrence of an error or message.
///
/// The schema is Sentry's event payload: <https://develop.sentry.dev/sdk/event-payloads/>.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// Identifies the event.
    pub event_id: EventId,
    /// What kind of record this is.
    pub ty: Option<EventType>,
    /// How bad it is; missing on the wire means `error`.
    pub level: Level,
    /// When it happened, by the sender's clock.
    pub timestamp: Option<Timestamp>,
    /// The language of the sender: `python`, `javascript`, `node`, `native`, `rust`, `other`, …
    pub platform: Option<String>,
    /// The logger that recorded it.
    pub logger: Option<String>,
    /// The route or task during which it happened.
    pub transaction: Option<String>,
    /// The old name of `transaction`: where the sender says that the fault is.
    pub culprit: Option<String>,
    /// The host.
    pub server_name: Option<String>,
    /// The version of the user's program.
    pub release: Option<String>,
    /// The build of the release.
    pub dist: Option<String>,
    /// Where the program runs: `production`, `staging`, …
    pub environment: Option<String>,
    /// The message, for events that are not (only) an exception.
    pub message: Option<Message>,
    /// The exceptions in wire order: innermost cause first, the one that was raised last.
    pub exception: Vec<Exception>,
    /// The threads that were running.
    pub threads: Vec<Thread>,
    /// A stack without an exception.
    pub stacktrace: Option<Stacktrace>,
    /// The template that failed (`filename`, `lineno`, `context_line`, …).
    pub template: Option<Object>,
    /// The HTTP request.
    pub request: Option<Request>,
    /// Who was affected.
    pub user: Option<User>,
    /// Indexed key/value pairs; every value is text once decoded.
    pub tags: Object,
    /// Anything else that the sender wanted to tell.
    pub extra: Lazy<Object>,
    /// Named structured contexts (`os`, `runtime`, `trace`, …).
    pub contexts: Lazy<Object>,
    /// What happened before, oldest first.
    pub breadcrumbs: Vec<Breadcrumb>,
    /// The sender's own grouping; empty means the default.
    pub fingerprint: Vec<String>,
    /// Installed packages and their versions.
    pub modules: Lazy<Object>,
    /// The client that sent the event.
    pub sdk: Option<Sdk>,
    /// Images for later symbolication (`images`, `sdk_info`).
    pub debug_meta: Option<Lazy<Value>>,
    /// What was changed, cut or refused, as a tree beside the data.
    pub meta: Object,
    /// Fields that this version does not know.
    pub other: Object,
}

/// What kind of record an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventType {
    /// An event with exceptions.
    Error,
    /// An event with a message only.
    Default,
    /// A performance record.
    Transaction,
    /// A browser's report of a Content-Security-Policy violation.
    Csp,
    /// Feedback of a user.
    Feedback,
}

/// A message and how it was made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The template, before parameters were filled in.
    pub message: Option<String>,
    /// The text that people read.
    pub formatted: Option<String>,
    /// The parameters, as sent (list or object).
    pub params: Option<Value>,
    /// Fields that this version does not know.
    pub other: Object,
}

/// The client that sent an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sdk {
    /// For example `sentry.python.flask`.
    pub name: Option<String>,
    /// For example `2.75.0`.
    pub version: Option<String>,
    /// Fields that this version does not know.
    pub other: Object,
}

impl Event {
    /// Decodes an event as clients really send it.
    ///
    /// Old and new forms of every field are understood, and become one.
    /// A field whose value makes no sense there is left out, and `meta` says what was wrong with
    /// it, at the same path; the rest of the event is kept.
    /// Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    ///
    /// Only if the bytes are not a JSON object.
    ///
    /// # Example
    ///
    /// ```
    /// use backstop_protocol::{Event, Level};
    ///
    /// let wire = br#"{"level": 40, "message": "Disk full", "tags": [["host", 7]], "user": "?"}"#;
    /// let event = Event::decode(wire).unwrap();
    /// assert_eq!(event.level, Level::Error);
    /// assert_eq!(event.message.unwrap().formatted.unwrap(), "Disk full");
    /// assert_eq!(event.tags["host"], "7");
    /// assert_eq!(event.meta["user"][""]["val"], "?");
    /// assert!(Event::decode(b"{").is_err());
    /// ```
    pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(bytes),
        };
        let mut reader = Reader::new(&text);
        let event = Event::read(&mut reader)?;
        reader.end()?;
        Ok(event)
    }

    /// Encodes the event in its canonical form, which [`Event::decode`] reads back unchanged.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = Vec::new();
        self.encode_into(&mut json);
        json
    }

    /// Appends the event in its canonical form to a buffer, which may be used again.
    pub fn encode_into(&self, json: &mut Vec<u8>) {
        Encode::encode(self, json);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Event, Syntax> {
        let mut event = Event::default();
        let mut text = None;
        reader.object(|reader, key| event.read_field(reader, key, &mut text))?;
        event.add_message_text(text);
        attach_notes(&mut event.meta, std::mem::take(&mut reader.notes));
        Ok(event)
    }

    fn read_field(
        &mut self,
        reader: &mut Reader<'_>,
        key: &str,
        text: &mut Option<Message>,
    ) -> Result<(), Syntax> {
        match key {
            "event_id" => self.read_event_id(reader),
            "type" => EventType::read_into(reader, &mut self.ty),
            "level" => reader.level(&mut self.level),
            "timestamp" => reader.time(&mut self.timestamp),
            "platform" => reader.text(&mut self.platform),
            "logger" => reader.text(&mut self.logger),
            "transaction" => reader.text(&mut self.transaction),
            "culprit" => reader.text(&mut self.culprit),
            "server_name" => reader.text(&mut self.server_name),
            "release" => reader.text(&mut self.release),
            "dist" => reader.text(&mut self.dist),
            "environment" => reader.text(&mut self.environment),
            "message" => Message::read_into(reader, text),
            "logentry" | "sentry.interfaces.Message" => reader.renamed("logentry", |reader| {
                Message::read_into(reader, &mut self.message)
            }),
            "exception" | "sentry.interfaces.Exception" => reader.renamed("exception", |reader| {
                reader.values(&mut self.exception, Exception::read)
            }),
            "threads" => reader.values(&mut self.threads, Thread::read),
            "stacktrace" | "sentry.interfaces.Stacktrace" => reader
                .renamed("stacktrace", |reader| {
                    Stacktrace::read_into(reader, &mut self.stacktrace)
                }),
            "template" | "sentry.interfaces.Template" => {
                reader.renamed("template", |reader| reader.some_map(&mut self.template))
            }
            "request" | "sentry.interfaces.Http" => reader.renamed("request", |reader| {
                reader.one(&mut self.request, Request::read)
            }),
            "user" | "sentry.interfaces.User" => {
                reader.renamed("user", |reader| reader.one(&mut self.user, User::read))
            }
            "tags" => reader.tags(&mut self.tags),
            "extra" => reader.lazy_map(&mut self.extra),
            "contexts" | "sentry.interfaces.Contexts" => {
                reader.renamed("contexts", |reader| reader.lazy_map(&mut self.contexts))
            }
            "breadcrumbs" | "sentry.interfaces.Breadcrumbs" => reader
                .renamed("breadcrumbs", |reader| {
                    reader.values(&mut self.breadcrumbs, Breadcrumb::read)
                }),
            "fingerprint" => reader.texts(&mut self.fingerprint),
            "modules" => reader.lazy_map(&mut self.modules),
            "sdk" => reader.one(&mut self.sdk, Sdk::read),
            "debug_meta" => reader.lazy_any(&mut self.debug_meta),
            "_meta" => reader.map(&mut self.meta),
            "sentry.interfaces.Query" => reader.member("query", &mut self.other),
            "sentry.interfaces.Csp" => reader.member("csp", &mut self.other),
            _ => reader.member(key, &mut self.other),
        }
    }

    fn read_event_id(&mut self, reader: &mut Reader<'_>) -> Result<(), Syntax> {
        if let Some(id) = reader.parsed("expected 32 hex digits")? {
            self.event_id = id;
        }
        Ok(())
    }

    /// The field `message` is the older one; beside a `logentry` it only fills in the text.
    fn add_message_text(&mut self, text: Option<Message>) {
        let Some(text) = text else { return };
        let message = self.message.get_or_insert_default();
        if message.message.is_none() && message.formatted.is_none() {
            *message = text;
        } else if message.formatted.is_none() {
            message.formatted = text.formatted;
        }
    }
}

impl EventType {
    fn read_into(reader: &mut Reader<'_>, field: &mut Option<EventType>) -> Result<(), Syntax> {
        let mut name = None;
        reader.text(&mut name)?;
        match name.as_deref() {
            None => {}
            Some("error") => *field = Some(EventType::Error),
            Some("default") => *field = Some(EventType::Default),
            Some("transaction") => *field = Some(EventType::Transaction),
            Some("csp") => *field = Some(EventType::Csp),
            Some("feedback") => *field = Some(EventType::Feedback),
            Some(_) => reader.note("expected a type of event", name.map(Value::String)),
        }
        Ok(())
    }
}

impl Message {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Message, Syntax> {
        let mut message = Message::default();
        reader.object(|reader, key| match key {
            "message" => reader.text_of_any(&mut message.message),
            "formatted" => reader.text_of_any(&mut message.formatted),
            "params" => reader.any(&mut message.params),
            _ => reader.member(key, &mut message.other),
        })?;
        Ok(message)
    }

    /// Takes a message, also as its text alone; an empty text is no message.
    fn read_into(reader: &mut Reader<'_>, field: &mut Option<Message>) -> Result<(), Syntax> {
        if reader.peek() == b'{' {
            return reader.one(field, Message::read);
        }
        let mut formatted = None;
        reader.text_of_any(&mut formatted)?;
        if formatted.as_ref().is_some_and(|text| !text.is_empty()) {
            *field = Some(Message {
                formatted,
                ..Message::default()
            });
        }
        Ok(())
    }
}

impl Sdk {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Sdk, Syntax> {
        let mut sdk = Sdk::default();
        reader.object(|reader, key| match key {
            "name" => reader.text(&mut sdk.name),
            "version" => reader.text(&mut sdk.version),
            _ => reader.member(key, &mut sdk.other),
        })?;
        Ok(sdk)
    }
}

impl Encode for Event {
    fn encode(&self, out: &mut Vec<u8>) {
        let Event {
            event_id,
            ty,
            level,
            timestamp,
            platform,
            logger,
            transaction,
            culprit,
            server_name,
            release,
            dist,
            environment,
            message,
            exception,
            threads,
            stacktrace,
            template,
            request,
            user,
            tags,
            extra,
            contexts,
            breadcrumbs,
            fingerprint,
            modules,
            sdk,
            debug_meta,
            meta,
            other,
        } = self;
        Members::new(out)
            .member("event_id", event_id)
            .member("type", ty)
            .member("level", level)
            .member("timestamp", timestamp)
            .member("platform", platform)
            .member("logger", logger)
            .member("transaction", transaction)
            .member("culprit", culprit)
            .member("server_name", server_name)
            .member("release", release)
            .member("dist", dist)
            .member("environment", environment)
            .member("logentry", message)
            .values("exception", exception)
            .values("threads", threads)
            .member("stacktrace", stacktrace)
            .member("template", template)
            .member("request", request)
            .member("user", user)
            .member("tags", tags)
            .member("extra", extra)
            .member("contexts", contexts)
            .values("breadcrumbs", breadcrumbs)
            .member("fingerprint", fingerprint)
            .member("modules", modules)
            .member("sdk", sdk)
            .member("debug_meta", debug_meta)
            .member("_meta", meta)
            .all(other)
            .end();
    }
}

impl Encode for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        let Message {
            message,
            formatted,
            params,
            other,
        } = self;
        Members::new(out)
            .member("message", message)
            .member("formatted", formatted)
            .member("params", params)
            .all(other)
            .end();
    }
}

impl Encode for Sdk {
    fn encode(&self, out: &mut Vec<u8>) {
        let Sdk {
            name,
            version,
            other,
        } = self;
        Members::new(out)
            .member("name", name)
            .member("version", version)
            .all(other)
            .end();
    }
}

serialize_encoded!(Event, Message, Sdk);
deserialize_leniently!(Event, Message, Sdk);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Decodes, and checks that what is written is read again unchanged.
    fn decode(wire: &Value) -> Event {
        let event = Event::decode(wire.to_string().as_bytes()).unwrap();
        assert_eq!(Event::decode(&event.encode()).as_ref(), Ok(&event));
        event
    }

    #[test]
    fn every_shape_of_an_exception() {
        let one = json!({"type": "E", "value": "v", "stacktrace": {"frames": [{"lineno": 1}]}});
        let check = |exception: Value, count: usize| {
            let event = decode(&json!({"exception": exception}));
            assert_eq!(event.exception.len(), count, "{exception}");
            assert_eq!(event.meta, Object::new());
            let legacy = decode(&json!({"sentry.interfaces.Exception": exception}));
            assert_eq!(legacy.exception, event.exception);
        };
        check(json!({"values": [one, one]}), 2);
        check(json!({"exc_omitted": null, "values": [one]}), 1);
        check(json!([one, null, one]), 2);
        check(one.clone(), 1);
        check(json!({"values": null}), 0);
        check(json!({}), 0);
        check(json!(null), 0);
    }

    #[test]
    fn every_shape_of_a_message() {
        let check = |wire: Value, template: Option<&str>, formatted: Option<&str>| {
            let message = decode(&wire).message.unwrap_or_default();
            assert_eq!(message.message.as_deref(), template, "{wire}");
            assert_eq!(message.formatted.as_deref(), formatted, "{wire}");
        };
        check(json!({"message": "m"}), None, Some("m"));
        check(json!({"message": ""}), None, None);
        check(json!({"message": {"formatted": "m"}}), None, Some("m"));
        check(
            json!({"logentry": {"message": "%s", "params": ["m"]}}),
            Some("%s"),
            None,
        );
        let both = json!({"message": "m", "sentry.interfaces.Message": {"message": "%s"}});
        check(both, Some("%s"), Some("m"));
        let full = json!({"logentry": {"message": "%s", "formatted": "f"}, "message": "m"});
        check(full, Some("%s"), Some("f"));
        check(json!({"message": ["odd", 1]}), None, Some("[\"odd\",1]"));
    }

    #[test]
    fn what_is_converted() {
        let event = decode(&json!({
            "event_id": "9EC79C33-EC99-42AB-8353-589FCB2E04DC",
            "level": "CRITICAL",
            "release": 7,
            "timestamp": 1_795_338_000.25,
            "tags": [["a", true], ["b", null], {"key": "c", "value": 1.5}],
            "fingerprint": ["{{ default }}", 3, null, true],
            "user": {"id": 42, "plan": "gold"},
            "modules": {"flask": "3.1.3"},
            "unknown": {"kept": [1]},
            "stacktrace": [{"function": "f", "lineno": "17", "colno": 2.0, "in_app": "true",
                "pre_context": ["a", null], "vars": [1, ["k", 2]], "weird": 0}],
        }));
        assert_eq!(
            event.event_id.to_string(),
            "9ec79c33ec9942ab8353589fcb2e04dc"
        );
        assert_eq!(event.level, Level::Fatal);
        assert_eq!(event.release.as_deref(), Some("7"));
        assert_eq!(event.timestamp.unwrap().micros(), 1_795_338_000_250_000);
        assert_eq!(Value::Object(event.tags), json!({"a": "true", "c": "1.5"}));
        assert_eq!(event.fingerprint, ["{{ default }}", "3", "true"]);
        let user = event.user.unwrap();
        assert_eq!(
            (user.id, &user.other["plan"]),
            (Some(json!(42)), &json!("gold"))
        );
        assert_eq!(event.other["unknown"], json!({"kept": [1]}));
        let frame = &event.stacktrace.unwrap().frames[0];
        assert_eq!(
            (frame.lineno, frame.colno, frame.in_app),
            (Some(17), Some(2), Some(true))
        );
        assert_eq!(*frame.pre_context, ["a", ""]);
        assert_eq!(
            Value::Object(frame.vars.clone().into_inner()),
            json!({"0": 1, "k": 2})
        );
        assert_eq!(frame.other["weird"], 0);
        assert_eq!(event.meta, Object::new());
    }

    #[test]
    fn nonsense_is_noted_beside_the_data() {
        let event = decode(&json!({
            "event_id": "nope",
            "level": "awful",
            "timestamp": "yesterday",
            "type": "riddle",
            "release": {"a": 1},
            "user": "alice",
            "tags": 7,
            "request": [],
            "exception": {"values": [{"type": "E", "stacktrace": {"frames": [
                {"function": "kept", "lineno": "many", "in_app": {}, "filename": ["x"]}, 5,
            ]}}, "text"]},
            "breadcrumbs": [{"timestamp": {}}],
            "_meta": {"user": "nonsense too", "extra": {"": {"len": 9}}},
        }));
        assert_eq!(event.exception[0].ty.as_deref(), Some("E"));
        let trace = event.exception[0].stacktrace.as_ref().unwrap();
        assert_eq!(trace.frames[0].function.as_deref(), Some("kept"));
        let meta = Value::Object(event.meta);
        let noted = |path: &str| {
            let place = meta
                .pointer(path)
                .unwrap_or_else(|| panic!("{path} in {meta}"));
            assert_eq!(place["err"][0][0], "invalid_data", "{path}");
            place["val"].clone()
        };
        assert_eq!(noted("/event_id/"), "nope");
        assert_eq!(noted("/level/"), "awful");
        assert_eq!(noted("/timestamp/"), "yesterday");
        assert_eq!(noted("/type/"), "riddle");
        assert_eq!(noted("/release/"), json!({"a": 1}));
        assert_eq!(noted("/user/"), "alice");
        assert_eq!(noted("/tags/"), 7);
        assert_eq!(noted("/request/"), json!([]));
        let frames = "/exception/values/0/stacktrace/frames";
        assert_eq!(noted(&format!("{frames}/0/lineno/")), "many");
        assert_eq!(noted(&format!("{frames}/0/in_app/")), json!({}));
        assert_eq!(noted(&format!("{frames}/0/filename/")), json!(["x"]));
        assert_eq!(noted(&format!("{frames}/1/")), 5);
        assert_eq!(noted("/exception/values/1/"), "text");
        assert_eq!(noted("/breadcrumbs/values/0/timestamp/"), json!({}));
        assert_eq!(meta["extra"][""]["len"], 9);
    }

    #[test]
    fn what_is_no_event() {
        for bytes in [&b""[..], b"[]", b"null", b"{\"a\":1", b"{} x", b"\xff"] {
            assert!(Event::decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(Event::decode(b"\xEF\xBB\xBF {\"message\":\"\xff\"}\n\0").is_ok());
    }

    #[test]
    fn a_thousand_frames_are_kept_and_a_million_are_cut() {
        let frames = |count: usize| {
            format!(
                "{{\"exception\":[{{\"stacktrace\":{{\"frames\":[{}{{}}]}}}}]}}",
                "{},".repeat(count - 1)
            )
        };
        let kept = |count| {
            let event = Event::decode(frames(count).as_bytes()).unwrap();
            let trace = event.exception[0].stacktrace.as_ref().unwrap();
            (trace.frames.len(), event.meta.is_empty())
        };
        assert_eq!(kept(1_000), (1_000, true));
        assert_eq!(kept(1_000_000), (5_000, false));
    }
}
