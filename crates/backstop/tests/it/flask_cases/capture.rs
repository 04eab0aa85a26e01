//! What a case notes while it runs: events in order, log records, signals.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Everything that happened, shared by the functions of one app.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) events: Vec<String>,
    pub(crate) signals: Vec<String>,
    pub(crate) logs: Vec<Record>,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) logger: &'static str,
    pub(crate) level: String,
    pub(crate) message: String,
    /// Class and text of the error.
    pub(crate) error: Option<(String, String)>,
}

impl Notes {
    pub(crate) fn event(&self, event: String) {
        self.with(|inner| inner.events.push(event));
    }

    pub(crate) fn signal(&self, class: &str) {
        self.with(|inner| {
            inner.signals.push(class.to_owned());
            inner.events.push(format!("signal:{class}"));
        });
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&mut Inner) -> T) -> T {
        read(&mut self.0.lock().expect("no test panics while it notes"))
    }

    pub(crate) fn take(&self) -> Inner {
        self.with(std::mem::take)
    }
}

/// Notes the records of the library and of the case's own logger.
pub(crate) struct Recorder(pub Notes);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let logger = match metadata.target() {
            "backstop" | "case" => "app",
            "backstop::server" => "server",
            _ => return,
        };
        let level = metadata.level().as_str().to_owned();
        if metadata.target() != "case" && level == "DEBUG" {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let error = fields
            .kind
            .map(|kind| (kind, fields.error.unwrap_or_default()));
        self.0.with(|inner| {
            if logger == "app" {
                inner.events.push(format!("log:{level}"));
            }
            inner.logs.push(Record {
                logger,
                level,
                message: fields.message,
                error,
            });
        });
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    kind: Option<String>,
    error: Option<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            "error" => self.error = Some(text),
            "error_kind" => self.kind = Some(text),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            "error" => self.error = Some(value.to_owned()),
            "error_kind" => self.kind = Some(value.to_owned()),
            _ => {}
        }
    }
}
