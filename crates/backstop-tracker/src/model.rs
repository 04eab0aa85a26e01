//! What the tracker keeps: projects, issues, events, alerts, people.
//!
//! Plain data that the store reads and writes and every other part of the tracker shows.

use std::fmt;
use std::str::FromStr;

use backstop_protocol::{DecodeError, Event, EventId, Level, Timestamp};

/// The number of a project, as in its DSN; any 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(pub u64);

/// The number of an issue, unique over all projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssueId(pub i64);

/// The number of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub i64);

/// A key of a DSN: 16 bytes, written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

/// A text is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseKeyError(());

/// What a DSN points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its number.
    pub id: ProjectId,
    /// The organization's name in URLs.
    pub organization: String,
    /// Its name in URLs, unique within the organization.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// The language, where somebody said.
    pub platform: Option<String>,
    /// Settings of ingest as JSON text; `{}` means the defaults.
    pub settings: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its keys, oldest first.
    pub keys: Vec<ProjectKey>,
}

/// A key with which clients send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectKey {
    /// The user name of the DSN.
    pub public: Key,
    /// The password of the DSN, which only old clients send.
    pub secret: Option<Key>,
    /// A switched-off key is refused.
    pub active: bool,
}

/// The wish for a project; what is `None` is chosen by the store.
#[derive(Debug, Clone, Default)]
pub struct NewProject {
    /// Its name for people.
    pub name: String,
    /// Its name in URLs.
    pub slug: Option<String>,
    /// The organization's name in URLs; made if it is not there.
    pub organization: Option<String>,
    /// The language.
    pub platform: Option<String>,
    /// Its number, for people who bring their DSN.
    pub id: Option<ProjectId>,
    /// The public key, for people who bring their DSN.
    pub key: Option<Key>,
    /// The secret key, for people who bring their DSN.
    pub secret: Option<Key>,
}

/// What a project key opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// The project.
    pub project: ProjectId,
    /// The key.
    pub key: ProjectKey,
    /// The project's settings of ingest as JSON text.
    pub settings: String,
}

/// Somebody who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their number.
    pub id: UserId,
    /// Their address, where alerts go.
    pub email: String,
    /// Their name.
    pub name: String,
    /// Whether they have chosen a password.
    pub has_password: bool,
    /// When they were added.
    pub created: Timestamp,
}

/// A secret that is shown once; the store keeps only its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A token of the web API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub name: String,
    /// What it may do, such as `event:read`; empty means everything.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
}

/// What people decided about an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// It needs work.
    #[default]
    Unresolved,
    /// It is thought to be mended; another event is a regression.
    Resolved,
    /// Nobody wants to hear of it.
    Muted,
}

/// A decision of people about an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Reopen it.
    Unresolve,
    /// It is mended.
    Resolve,
    /// Be silent about it, for ever or until something happens.
    Mute {
        /// Until this time.
        until: Option<Timestamp>,
        /// Until this many more events.
        events: Option<u64>,
    },
}

/// One or more groups of events that people treat as one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Its number.
    pub id: IssueId,
    /// The project.
    pub project: ProjectId,
    /// The project's name in URLs.
    pub project_slug: String,
    /// The organization's name in URLs.
    pub organization: String,
    /// Its name for people, such as `SHOP-1A`.
    pub short_id: String,
    /// The error in a line.
    pub title: String,
    /// Where it happens.
    pub culprit: String,
    /// How bad the latest event was.
    pub level: Level,
    /// What people decided.
    pub status: Status,
    /// When a mute ends.
    pub mute_until: Option<Timestamp>,
    /// How many events there were.
    pub count: u64,
    /// How many users met it; a lower bound where there are more than the store tells apart.
    pub users: u64,
    /// The first event.
    pub first_seen: Timestamp,
    /// The latest event.
    pub last_seen: Timestamp,
    /// How often it came back after it was resolved.
    pub regressions: u64,
    /// The language of the sender.
    pub platform: Option<String>,
    /// The release of the first event.
    pub first_release: Option<String>,
    /// The release of the latest event that named one.
    pub last_release: Option<String>,
    /// Why its events are together.
    pub reason: String,
}

/// The order of an issue list; each is descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sort {
    /// The latest event.
    #[default]
    LastSeen,
    /// The first event.
    FirstSeen,
    /// The number of events.
    Count,
}

/// Which issues to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssueQuery {
    /// Only of these projects; empty means all.
    pub projects: Vec<ProjectId>,
    /// Only with this status.
    pub status: Option<Status>,
    /// Only of this level.
    pub level: Option<Level>,
    /// Only with an event that has each of these tags.
    pub tags: Vec<(String, String)>,
    /// Only with events that have each of these words, or words that begin so.
    pub text: String,
    /// The order.
    pub sort: Sort,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many; the store cuts it to [`IssueQuery::LIMIT_MAX`], and 0 means 25.
    pub limit: usize,
}

/// A place in an issue list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub(crate) value: i64,
    pub(crate) issue: i64,
}

/// A text is not a place in an issue list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseCursorError(());

/// One page of an issue list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuePage {
    /// The issues.
    pub issues: Vec<Issue>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// Which event of an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The oldest whose body is kept.
    First,
    /// The latest.
    Latest,
    /// The one after this.
    After(EventId),
    /// The one before this.
    Before(EventId),
    /// This one.
    Id(EventId),
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its id.
    pub id: EventId,
    /// The project.
    pub project: ProjectId,
    /// The issue it belongs to.
    pub issue: IssueId,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it arrived.
    pub received: Timestamp,
    /// The event as JSON text, in the event schema.
    pub json: Vec<u8>,
}

/// One line of an issue's list of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLine {
    /// Its id.
    pub id: EventId,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it arrived.
    pub received: Timestamp,
}

/// Where an event is, even after its body was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    /// The project.
    pub project: ProjectId,
    /// The issue.
    pub issue: IssueId,
}

/// How often the values of one tag occurred in an issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagCount {
    /// The tag.
    pub key: String,
    /// All events that had it.
    pub total: u64,
    /// The most frequent values, most frequent first.
    pub values: Vec<TagValue>,
    /// Events with values that are not told apart any more.
    pub other: u64,
}

/// A value of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagValue {
    /// The value.
    pub value: String,
    /// Events with it.
    pub count: u64,
    /// The latest of them.
    pub last_seen: Timestamp,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertKind {
    /// An issue that was not there before.
    NewIssue,
    /// An event on a resolved issue.
    Regression,
    /// So many events in so much time.
    Frequency {
        /// At least this many events …
        events: u32,
        /// … in this many minutes.
        minutes: u32,
    },
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlertKind::NewIssue => f.write_str("a new issue"),
            AlertKind::Regression => f.write_str("an issue that comes back after it was resolved"),
            AlertKind::Frequency { events, minutes } => {
                write!(f, "{events} events of an issue within {minutes} minutes")
            }
        }
    }
}

/// When people want to be told about a project's issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertRule {
    /// Its number.
    pub id: i64,
    /// The project.
    pub project: ProjectId,
    /// What it waits for.
    pub kind: AlertKind,
    /// A rule that is switched off tells nothing.
    pub active: bool,
}

/// A message that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub kind: AlertKind,
    /// The issue, as it is now.
    pub issue: Issue,
    /// The event that caused it.
    pub event: EventId,
    /// How many events the issue had then.
    pub count: u64,
    /// When it became due.
    pub created: Timestamp,
    /// How often sending failed so far.
    pub attempts: u32,
    /// The Message-ID of the mail that it belongs to, once that was planned.
    pub mail: Option<String>,
}

/// One line of the account of what became of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The project.
    pub project: ProjectId,
    /// The key, where one was known.
    pub key: Option<Key>,
    /// Days since 1970.
    pub day: i64,
    /// What became of them, in the words of ingest.
    pub reason: String,
    /// How many.
    pub count: u64,
}

impl Key {
    /// Makes a new random key.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness, where nothing could be secret.
    pub fn random() -> Key {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        Key(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A debug print ends up in logs, and a key lets its reader send.
        f.write_str("Key(…)")
    }
}

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Key, ParseKeyError> {
        let digits = text.as_bytes();
        let mut bytes = [0; 16];
        if digits.len() != 32 {
            return Err(ParseKeyError(()));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(ParseKeyError(()));
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Key(bytes))
    }
}

impl fmt::Display for ParseKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key has 32 hex digits")
    }
}

impl std::error::Error for ParseKeyError {}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for IssueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Secret {
    /// Makes a new random secret of 256 bits, written as 64 hex digits.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness, where nothing could be secret.
    pub fn random() -> Secret {
        use fmt::Write as _;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        let mut text = String::with_capacity(64);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes every text");
        }
        Secret(text)
    }

    /// Returns the secret itself, to show it once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Status {
    /// Returns the status's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Unresolved => "unresolved",
            Status::Resolved => "resolved",
            Status::Muted => "muted",
        }
    }
}

impl FromStr for Status {
    type Err = ();

    /// Reads a status; `ignored` and `archived` are Sentry's names of `muted`.
    fn from_str(text: &str) -> Result<Status, ()> {
        match text {
            "unresolved" => Ok(Status::Unresolved),
            "resolved" => Ok(Status::Resolved),
            "muted" | "ignored" | "archived" => Ok(Status::Muted),
            _ => Err(()),
        }
    }
}

impl IssueQuery {
    /// More on one page is a page nobody reads.
    pub const LIMIT_MAX: usize = 250;

    /// Reads what people type: `is:unresolved level:error environment:production some words`.
    ///
    /// `key:value` is a tag, with the value in double quotes if it has spaces;
    /// everything else is text. Nothing is an error, because people search for code.
    pub fn parse(text: &str) -> IssueQuery {
        let mut query = IssueQuery::default();
        let mut words = Vec::new();
        for term in terms(text) {
            match term.split_once(':') {
                Some(("is", value)) if value.parse::<Status>().is_ok() => {
                    query.status = value.parse().ok();
                }
                Some(("level", value)) if value.parse::<Level>().is_ok() => {
                    query.level = value.parse().ok();
                }
                Some((key, value))
                    if is_tag_key(key)
                        && !value.is_empty()
                        && !value.starts_with(':')
                        && !value.starts_with("//") =>
                {
                    let value = value.trim_matches('"');
                    query.tags.push((key.to_owned(), value.to_owned()));
                }
                _ => words.push(term),
            }
        }
        query.text = words.join(" ");
        query
    }
}

/// Splits at spaces outside double quotes.
fn terms(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|letter: char| {
        quoted ^= letter == '"';
        !quoted && letter.is_whitespace()
    })
    .filter(|term| !term.is_empty())
    .collect()
}

fn is_tag_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-'))
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.value, self.issue)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Cursor, ParseCursorError> {
        let (value, issue) = text.split_once('_').ok_or(ParseCursorError(()))?;
        match (value.parse(), issue.parse()) {
            (Ok(value), Ok(issue)) => Ok(Cursor { value, issue }),
            _ => Err(ParseCursorError(())),
        }
    }
}

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor comes from the page before")
    }
}

impl std::error::Error for ParseCursorError {}

impl StoredEvent {
    /// Reads the stored JSON text.
    ///
    /// # Errors
    ///
    /// If the text is not an event, which only a damaged store can cause.
    pub fn event(&self) -> Result<Event, DecodeError> {
        Event::decode(&self.json)
    }
}

/// Writes the short id of an issue: the project's name and the number in base 32.
///
/// The digits leave out `I`, `L`, `O` and `U`, so that they can be read out loud.
pub(crate) fn short_id(project_slug: &str, number: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut digits = Vec::new();
    let mut rest = number;
    loop {
        digits.push(char::from(DIGITS[(rest % 32) as usize]));
        rest /= 32;
        if rest == 0 {
            break;
        }
    }
    let digits: String = digits.into_iter().rev().collect();
    format!("{}-{digits}", project_slug.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_read_as_base_32() {
        assert_eq!(short_id("shop", 1), "SHOP-1");
        assert_eq!(short_id("shop", 31), "SHOP-Z");
        assert_eq!(short_id("my-shop", 32), "MY-SHOP-10");
    }

    #[test]
    fn a_search_is_split_into_filters_and_text() {
        let query = IssueQuery::parse(
            r#"is:muted level:warning environment:"on stage" Refused http://x std::io"#,
        );
        assert_eq!(query.status, Some(Status::Muted));
        assert_eq!(query.level, Some(Level::Warning));
        assert_eq!(
            query.tags,
            [("environment".to_owned(), "on stage".to_owned())]
        );
        assert_eq!(query.text, "Refused http://x std::io");
        assert_eq!(IssueQuery::parse("is:odd : \"").text, ": \"");
    }

    #[test]
    fn keys_and_cursors_survive_a_round_trip() {
        let key = Key::random();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("0123".parse::<Key>().is_err());
        assert!("g".repeat(32).parse::<Key>().is_err());
        let cursor = Cursor {
            value: -5,
            issue: 7,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!("7".parse::<Cursor>().is_err());
    }
}
