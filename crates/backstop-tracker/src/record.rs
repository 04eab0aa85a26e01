//! What the tracker keeps beside events: sessions, check-ins, attachments, feedback, transactions.

use backstop_protocol::{EventId, Timestamp};

use crate::model::ProjectId;

/// Something to be written; a batch of them is one transaction.
#[derive(Debug, Clone)]
pub enum Record {
    /// News of one session.
    Session(SessionUpdate),
    /// Sessions that the client counted itself.
    Sessions(SessionCounts),
    /// A sign of life of a job.
    CheckIn(CheckIn),
    /// A file that belongs to an event.
    Attachment(NewAttachment),
    /// What a user wrote.
    Feedback(Feedback),
    /// A performance record.
    Transaction(TransactionRecord),
}

/// How a session goes; a later one is never better than an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SessionStatus {
    /// It goes on.
    #[default]
    Ok,
    /// It ended well.
    Exited,
    /// It met errors that were handled.
    Errored,
    /// It met an error that nobody handled, and went on.
    Unhandled,
    /// It ended without a word.
    Abnormal,
    /// The program fell.
    Crashed,
}

/// News of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUpdate {
    /// The project.
    pub project: ProjectId,
    /// The session's id.
    pub sid: EventId,
    /// The version of the program.
    pub release: String,
    /// Where it runs.
    pub environment: String,
    /// How it goes.
    pub status: SessionStatus,
    /// Errors so far.
    pub errors: u64,
    /// When it began.
    pub started: Timestamp,
    /// When this was sent.
    pub received: Timestamp,
}

/// Sessions that the client counted itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCounts {
    /// The project.
    pub project: ProjectId,
    /// The version of the program.
    pub release: String,
    /// Where it runs.
    pub environment: String,
    /// When they began.
    pub started: Timestamp,
    /// How many ended well.
    pub exited: u64,
    /// How many met errors.
    pub errored: u64,
    /// How many met errors that nobody handled.
    pub unhandled: u64,
    /// How many ended without a word.
    pub abnormal: u64,
    /// How many fell.
    pub crashed: u64,
}

/// How the sessions of a release went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseHealth {
    /// The version of the program.
    pub release: String,
    /// Where it runs.
    pub environment: String,
    /// Days since 1970.
    pub day: i64,
    /// All sessions.
    pub sessions: u64,
    /// Those with errors that were handled.
    pub errored: u64,
    /// Those with errors that nobody handled.
    pub unhandled: u64,
    /// Those that ended without a word.
    pub abnormal: u64,
    /// Those that fell.
    pub crashed: u64,
}

impl ReleaseHealth {
    /// Returns the share of sessions that did not fall, from 0 to 1; `None` without sessions.
    pub fn crash_free(&self) -> Option<f64> {
        let crashed = self.crashed.min(self.sessions);
        (self.sessions > 0).then(|| 1.0 - crashed as f64 / self.sessions as f64)
    }
}

/// A sign of life of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckIn {
    /// The project.
    pub project: ProjectId,
    /// The job's name.
    pub monitor: String,
    /// The run's id; the same at its beginning and its end. Nil means the latest run.
    pub id: EventId,
    /// `in_progress`, `ok`, `error`.
    pub status: String,
    /// How long it took, in seconds.
    pub duration: Option<f64>,
    /// Where it runs.
    pub environment: Option<String>,
    /// The job's schedule as JSON text, which makes the monitor or changes it.
    pub config: Option<String>,
    /// When this was sent.
    pub received: Timestamp,
}

/// A job that gives signs of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// The project.
    pub project: ProjectId,
    /// Its name.
    pub slug: String,
    /// Its schedule as JSON text.
    pub config: Option<String>,
    /// The status of the latest check-in.
    pub status: String,
    /// When it was first heard of.
    pub created: Timestamp,
    /// The latest check-in.
    pub updated: Timestamp,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: EventId,
    /// `in_progress`, `ok`, `error`.
    pub status: String,
    /// How long it took, in seconds.
    pub duration: Option<f64>,
    /// Where it ran.
    pub environment: Option<String>,
    /// Its first check-in.
    pub started: Timestamp,
    /// Its latest check-in.
    pub updated: Timestamp,
}

/// A file that belongs to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttachment {
    /// The project.
    pub project: ProjectId,
    /// The event, which may arrive later.
    pub event: EventId,
    /// Its name.
    pub filename: String,
    /// Its media type, as the client says.
    pub content_type: Option<String>,
    /// `event.attachment`, `event.minidump`, …
    pub attachment_type: Option<String>,
    /// When it arrived.
    pub received: Timestamp,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A stored file, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its number.
    pub id: i64,
    /// The event.
    pub event: EventId,
    /// Its name.
    pub filename: String,
    /// Its media type, as the client said.
    pub content_type: Option<String>,
    /// `event.attachment`, `event.minidump`, …
    pub attachment_type: Option<String>,
    /// SHA-1 of its content, in hex.
    pub sha1: String,
    /// Bytes.
    pub size: u64,
    /// When it arrived.
    pub created: Timestamp,
}

/// What a user wrote about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The project.
    pub project: ProjectId,
    /// Its own id.
    pub id: EventId,
    /// The event that it is about.
    pub event: Option<EventId>,
    /// The user's name.
    pub name: Option<String>,
    /// The user's address.
    pub email: Option<String>,
    /// The text.
    pub message: String,
    /// The page.
    pub url: Option<String>,
    /// When it arrived.
    pub received: Timestamp,
}

/// A performance record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    /// The project.
    pub project: ProjectId,
    /// Its id.
    pub event: EventId,
    /// Its name.
    pub name: String,
    /// When it arrived.
    pub received: Timestamp,
    /// The event as JSON text.
    pub json: Vec<u8>,
}

/// What a client said of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its name.
    pub version: String,
    /// When it was first heard of.
    pub created: Timestamp,
    /// JSON text: the fields that the client gave.
    pub body: String,
}

/// A file that is put together of uploaded pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// The organization's name in URLs.
    pub organization: String,
    /// SHA-1 of the whole.
    pub sha1: [u8; 20],
    /// SHA-1 of the pieces, in order.
    pub chunks: Vec<[u8; 20]>,
    /// `bundle` or `debug_file`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its debug id, where the client said one.
    pub debug_id: Option<String>,
    /// The release it belongs to.
    pub release: Option<String>,
    /// The build of the release.
    pub dist: Option<String>,
    /// When it was put together.
    pub created: Timestamp,
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assembly {
    /// It is there.
    Done,
    /// These pieces are missing.
    Missing(Vec<[u8; 20]>),
    /// The file cannot be taken, and why.
    Refused(&'static str),
}

/// What a file of a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// JavaScript as it runs.
    Source,
    /// A source map.
    Map,
}

/// How the content of a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Stored,
    /// Raw deflate.
    Deflate,
    /// Zstandard.
    Zstd,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFile {
    /// What it is.
    pub kind: FileKind,
    /// Its address; `~/` stands for any host.
    pub url: String,
    /// Its debug id: 32 or more small hex digits.
    pub debug_id: Option<String>,
    /// Where its source map is.
    pub map_url: Option<String>,
    /// How it is packed.
    pub packing: Packing,
    /// Its content.
    pub body: Vec<u8>,
}
