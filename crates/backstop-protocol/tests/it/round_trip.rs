//! What is written is read again unchanged, whatever it holds.

use backstop_protocol::{
    Breadcrumb, Event, EventId, EventType, Exception, Frame, Lazy, Level, Mechanism, Message,
    Object, Request, Sdk, Stacktrace, Thread, Timestamp, User,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::Value;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        any::<String>(),
        Just("\0\"\\\u{feff}☃💩".to_owned())
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |float| float.is_finite())
            .prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let or_null = prop_oneof![4 => inner, 1 => Just(Value::Null)];
        prop_oneof![
            vec(or_null.clone(), 0..4).prop_map(Value::from),
            vec((text(), or_null), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Object> {
    vec((text(), value()), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

/// Fields that nobody knows; a known name would have gone to its own field.
fn other() -> impl Strategy<Value = Object> {
    vec(("x_[a-z]{1,4}", value()), 0..2).prop_map(|pairs| pairs.into_iter().collect())
}

fn frame() -> impl Strategy<Value = Frame> {
    let names = (of(text()), of(text()), of(text()), of(text()));
    let place = (of(any::<u64>()), of(any::<u64>()), of(any::<bool>()));
    let lines = (vec(text(), 0..3), of(text()), vec(text(), 0..3));
    (names, place, lines, object(), of(value()), other()).prop_map(
        |(names, place, lines, vars, data, other)| Frame {
            function: names.0,
            module: names.1,
            filename: names.2,
            instruction_addr: names.3,
            lineno: place.0,
            colno: place.1,
            in_app: place.2,
            pre_context: lines.0.into(),
            context_line: lines.1,
            post_context: lines.2.into(),
            vars: vars.into(),
            data,
            other,
            ..Frame::default()
        },
    )
}

fn stacktrace() -> impl Strategy<Value = Stacktrace> {
    (vec(frame(), 0..3), of(value()), other()).prop_map(|(frames, registers, other)| Stacktrace {
        frames,
        registers,
        other,
    })
}

fn exception() -> impl Strategy<Value = Exception> {
    let mechanism = (of(text()), of(any::<bool>()), of(any::<i64>()), other()).prop_map(
        |(ty, handled, exception_id, other)| Mechanism {
            ty,
            handled,
            exception_id,
            other,
            ..Mechanism::default()
        },
    );
    (
        of(text()),
        of(text()),
        of(stacktrace()),
        of(mechanism),
        of(value()),
        other(),
    )
        .prop_map(
            |(ty, value, stacktrace, mechanism, thread_id, other)| Exception {
                ty,
                value,
                stacktrace,
                mechanism,
                thread_id,
                other,
                ..Exception::default()
            },
        )
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn ty() -> impl Strategy<Value = EventType> {
    prop_oneof![
        Just(EventType::Error),
        Just(EventType::Default),
        Just(EventType::Transaction),
        Just(EventType::Csp),
        Just(EventType::Feedback),
    ]
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::Debug),
        Just(Level::Info),
        Just(Level::Warning),
        Just(Level::Error),
        Just(Level::Fatal),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let head = (
        any::<[u8; 16]>(),
        of(ty()),
        level(),
        of(time()),
        of(text()),
        of(text()),
    );
    let message = (of(text()), of(text()), of(value()), other()).prop_map(
        |(message, formatted, params, other)| Message {
            message,
            formatted,
            params,
            other,
        },
    );
    let thread =
        (of(value()), of(text()), of(stacktrace())).prop_map(|(id, name, stacktrace)| Thread {
            id,
            name,
            stacktrace,
            ..Thread::default()
        });
    let crumb = (of(time()), of(text()), of(value()), other()).prop_map(
        |(timestamp, message, data, other)| Breadcrumb {
            timestamp,
            message,
            data: data.map(Lazy::from),
            other,
            ..Breadcrumb::default()
        },
    );
    let request =
        (of(text()), of(value()), of(value()), other()).prop_map(|(url, headers, data, other)| {
            Request {
                url,
                headers,
                data,
                other,
                ..Request::default()
            }
        });
    let user = (of(value()), of(text()), other()).prop_map(|(id, email, other)| User {
        id,
        email,
        other,
        ..User::default()
    });
    let sdk = (of(text()), of(text()), other()).prop_map(|(name, version, other)| Sdk {
        name,
        version,
        other,
    });
    let tags = vec((text(), text().prop_map(Value::from)), 0..3)
        .prop_map(|pairs| pairs.into_iter().collect::<Object>());
    let lists = (
        vec(exception(), 0..3),
        vec(thread, 0..2),
        vec(crumb, 0..3),
        vec(text(), 0..3),
    );
    let parts = (
        of(message),
        of(request),
        of(user),
        of(sdk),
        of(stacktrace()),
    );
    let maps = (tags, object(), object(), object(), other());
    (head, lists, parts, maps).prop_map(|(head, lists, parts, maps)| Event {
        event_id: EventId::from_bytes(head.0),
        ty: head.1,
        level: head.2,
        timestamp: head.3,
        release: head.4,
        transaction: head.5,
        exception: lists.0,
        threads: lists.1,
        breadcrumbs: lists.2,
        fingerprint: lists.3,
        message: parts.0,
        request: parts.1,
        user: parts.2,
        sdk: parts.3,
        stacktrace: parts.4,
        tags: maps.0,
        extra: maps.1.into(),
        contexts: maps.2.into(),
        meta: maps.3,
        other: maps.4,
        ..Event::default()
    })
}

proptest! {
    #[test]
    fn events(event in event()) {
        let written = event.encode();
        let read = Event::decode(&written);
        prop_assert_eq!(read, Ok(event), "{}", String::from_utf8_lossy(&written));
    }

    #[test]
    fn any_text_is_an_event_or_an_error(text in any::<String>(), at in any::<prop::sample::Index>()) {
        let _ = Event::decode(text.as_bytes());
        let event = br#"{"level":"error","exception":[{"type":"E","stacktrace":{"frames":[{"lineno":1}]}}]}"#;
        // A valid event with anything in the middle.
        let at = at.index(event.len());
        let broken = [&event[..at], text.as_bytes(), &event[at..]].concat();
        if let Ok(event) = Event::decode(&broken) {
            prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
        }
    }
}
