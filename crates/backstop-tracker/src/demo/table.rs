//! What became of every failure: found in the store, the log and the mails, never assumed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use backstop_protocol::{Event, Timestamp};
use serde_json::{Value, json};

use super::world::Attempt;
use crate::model::{IssueQuery, ProjectId, Which};
use crate::store::{Store, optional};

/// One failure and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    what: &'static str,
    is_ours: bool,
    status: Option<u16>,
    issue: Option<Seen>,
    logged: bool,
    mail: Option<PathBuf>,
}

/// The issue of a failure.
#[derive(Debug, Clone)]
struct Seen {
    short_id: String,
    title: String,
    events: u64,
    frames: usize,
    variables: usize,
}

impl Row {
    /// Says whether all that there will be is there: an issue with its mail, or the line in the log.
    pub(super) fn has_arrived(&self) -> bool {
        match self.is_ours {
            true => self.issue.is_some() && self.mail.is_some(),
            false => self.logged,
        }
    }

    /// Says whether the failure is where it belongs: ours in an issue with frames, variables and one
    /// mail, the client's in the log and nowhere else.
    pub(super) fn is_fine(&self) -> bool {
        match &self.issue {
            Some(issue) => {
                self.is_ours && issue.frames > 0 && issue.variables > 0 && self.mail.is_some()
            }
            None => !self.is_ours && self.logged && self.mail.is_none(),
        }
    }

    /// Says whether the stack or its variables could not be read.
    pub(super) fn is_bare(&self) -> bool {
        self.issue
            .as_ref()
            .is_some_and(|issue| issue.frames == 0 || issue.variables == 0)
    }
}

/// Looks up every failure; an issue counts if something was added to it since the given moment.
pub(super) fn rows(
    store: &Store,
    project: ProjectId,
    since: Timestamp,
    attempts: &[Attempt],
    log: &[String],
    mails: &Path,
) -> Result<Vec<Row>> {
    let query = IssueQuery {
        projects: vec![project],
        limit: IssueQuery::LIMIT_MAX,
        ..IssueQuery::default()
    };
    let mut issues = Vec::new();
    for issue in store.issues(&query)?.issues {
        if issue.last_seen < since {
            continue;
        }
        if let Some(stored) = optional(store.issue_event(issue.id, Which::Latest))? {
            issues.push((issue, stored.event()?));
        }
    }
    let mut rows = Vec::new();
    for attempt in attempts {
        let path = attempt.path;
        let issue = issues.iter().find(|(_, event)| {
            let url = event
                .request
                .as_ref()
                .and_then(|request| request.url.as_deref());
            url.is_some_and(|url| {
                url.split(['?', '#'])
                    .next()
                    .is_some_and(|url| url.ends_with(path))
            })
        });
        rows.push(Row {
            what: attempt.what,
            is_ours: attempt.is_ours,
            status: attempt.status,
            mail: match issue {
                Some((issue, _)) => mail_of(mails, issue.id.0)?,
                None => None,
            },
            logged: log.iter().any(|line| line.contains(path)),
            issue: issue.map(|(issue, event)| Seen {
                short_id: issue.short_id.clone(),
                title: issue.title.clone(),
                events: issue.count,
                frames: frames(event).count(),
                variables: frames(event).map(|frame| frame.vars.len()).sum(),
            }),
        });
    }
    Ok(rows)
}

fn frames(event: &Event) -> impl Iterator<Item = &backstop_protocol::Frame> {
    let stacks = event
        .exception
        .iter()
        .filter_map(|exception| exception.stacktrace.as_ref());
    stacks.flat_map(|stack| &stack.frames)
}

/// The mail about an issue: its file ends in the mail's id.
fn mail_of(mails: &Path, issue: i64) -> Result<Option<PathBuf>> {
    if !mails.exists() {
        return Ok(None);
    }
    let ending = format!("-issue-{issue}.eml");
    for entry in std::fs::read_dir(mails)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().ends_with(&ending))
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

const HEADINGS: [&str; 7] = [
    "failure",
    "answer",
    "issue",
    "events",
    "frames",
    "variables",
    "mail",
];

/// Writes the table; with links that a terminal opens if it is one.
pub(super) fn text(rows: &[Row], is_terminal: bool) -> String {
    let cells: Vec<[String; 7]> = rows
        .iter()
        .map(|row| {
            let answer = row
                .status
                .map_or_else(|| "none".into(), |status| status.to_string());
            let (issue, events, frames, variables) = match &row.issue {
                Some(seen) => (
                    format!("{}  {}", seen.short_id, shortened(&seen.title)),
                    seen.events.to_string(),
                    seen.frames.to_string(),
                    seen.variables.to_string(),
                ),
                None if row.logged => (
                    "a line in the log".into(),
                    "0".into(),
                    "-".into(),
                    "-".into(),
                ),
                None => ("MISSING".into(), "0".into(), "-".into(), "-".into()),
            };
            let mail = row
                .mail
                .as_ref()
                .map_or_else(|| "-".into(), |mail| mail.display().to_string());
            [
                row.what.into(),
                answer,
                issue,
                events,
                frames,
                variables,
                mail,
            ]
        })
        .collect();
    let width = |column: usize| {
        let cells = cells.iter().map(|cells| cells[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String], mail: Option<&Path>| {
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let is_number = matches!(column, 3..=5);
            let last = column + 1 == cells.len();
            // Writing into a String cannot fail.
            let _ = match (mail, is_number, last) {
                (Some(mail), _, true) if is_terminal => {
                    let target = std::fs::canonicalize(mail).unwrap_or_else(|_| mail.to_owned());
                    writeln!(
                        text,
                        "\x1b]8;;file://{}\x1b\\{cell}\x1b]8;;\x1b\\",
                        target.display()
                    )
                }
                (_, _, true) => writeln!(text, "{cell}"),
                (_, true, _) => write!(text, "{pad}{cell}  "),
                (_, false, _) => write!(text, "{cell}{pad}  "),
            };
        }
    };
    line(&HEADINGS.map(str::to_owned), None);
    for (cells, row) in cells.iter().zip(rows) {
        line(cells, row.mail.as_deref());
    }
    text
}

fn shortened(title: &str) -> String {
    const CHARS_MAX: usize = 58;
    if title.chars().count() <= CHARS_MAX {
        return title.to_owned();
    }
    title.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}

/// Writes the table as a list of objects.
pub(super) fn json(rows: &[Row]) -> Value {
    rows.iter()
        .map(|row| {
            json!({
                "failure": row.what,
                "answer": row.status,
                "issue": row.issue.as_ref().map(|seen| &seen.short_id),
                "title": row.issue.as_ref().map(|seen| &seen.title),
                "events": row.issue.as_ref().map_or(0, |seen| seen.events),
                "frames": row.issue.as_ref().map_or(0, |seen| seen.frames),
                "variables": row.issue.as_ref().map_or(0, |seen| seen.variables),
                "mail": row.mail,
                "fine": row.is_fine(),
            })
        })
        .collect()
}
