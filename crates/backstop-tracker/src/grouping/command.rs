//! `backstop group`: groups events from a file, without a server.

use std::collections::HashMap;
use std::io::{BufRead, Write};

use anyhow::Context;
use backstop_protocol::Event;
use serde::Serialize;

use super::replay::{Changes, Replay};
use super::{GroupHash, Grouper, Ingredient, Part, Rules, VERSION};
use crate::model::ProjectId;
use crate::store::Store;

/// How `backstop group` groups and what it writes.
#[derive(Debug, Default)]
pub struct Options {
    /// Adds title, reason and hashes to every line.
    pub explain: bool,
    /// The version of the algorithm; `None` means the newest.
    pub version: Option<u16>,
    /// The project's rules.
    pub rules: Rules,
}

impl Options {
    fn grouper(self) -> anyhow::Result<Grouper> {
        let grouper = Grouper::new().with_rules(self.rules);
        Ok(grouper.with_version(self.version.unwrap_or(VERSION))?)
    }
}

/// Groups one event payload per input line and writes one JSON line for each:
/// `{"event_id":…,"group":…}`, where `group` is the hash that stands for the issue.
///
/// What is learned and which hash belongs to which group is kept for the run.
///
/// # Errors
///
/// - A line is no event.
/// - Reading or writing fails.
pub fn run(reader: impl BufRead, mut writer: impl Write, options: Options) -> anyhow::Result<()> {
    let explain = options.explain;
    let grouper = options.grouper()?;
    let mut issues = Issues::default();
    for (index, line) in reader.lines().enumerate() {
        let line = line.context("cannot read the events")?;
        if line.trim().is_empty() {
            continue;
        }
        let mut event = Event::decode(line.as_bytes())
            .with_context(|| format!("line {} is not an event", index + 1))?;
        grouper.normalise(&mut event);
        let grouping = if explain {
            grouper.explain(&event)
        } else {
            grouper.group(&event)
        };
        let group = issues.assign(&grouping);
        let answer = Answer {
            event_id: event.event_id.to_string(),
            group: group.to_string(),
            version: explain.then_some(grouping.version),
            title: explain.then_some(&grouping.title),
            reason: explain.then_some(&grouping.reason),
            hashes: grouping
                .keys
                .iter()
                .filter(|_| explain)
                .map(|key| AnswerHash {
                    hash: key.hash.to_string(),
                    part: key.part,
                    made_of: &key.made_of,
                })
                .collect(),
        };
        serde_json::to_writer(&mut writer, &answer)?;
        writer.write_all(b"\n").context("cannot write the groups")?;
    }
    writer.flush().context("cannot write the groups")
}

/// Groups the stored events of a project again, with another version or other rules, and returns
/// which issues that would merge and split. Nothing is changed.
///
/// # Errors
///
/// - The store cannot be read.
/// - There is no such version.
pub fn replay(store: &Store, project: ProjectId, options: Options) -> anyhow::Result<Changes> {
    let mut replay = Replay::new(options.grouper()?);
    store
        .each_event(project, |issue, event| replay.add(issue, event))
        .context("cannot read the stored events")?;
    Ok(replay.changes())
}

#[derive(Serialize)]
struct Answer<'a> {
    event_id: String,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<AnswerHash<'a>>,
}

#[derive(Serialize)]
struct AnswerHash<'a> {
    hash: String,
    part: Part,
    made_of: &'a [Ingredient],
}

/// Which hash belongs to which issue, in memory: what the store does with a table.
/// An issue is named by the primary hash of its first event.
#[derive(Debug, Default)]
pub struct Issues(HashMap<GroupHash, GroupHash>);

impl Issues {
    /// Returns the issue of an event and gives it the hashes to keep.
    pub fn assign(&mut self, grouping: &super::Grouping) -> GroupHash {
        let issue = grouping.find().find_map(|hash| self.0.get(&hash).copied());
        let issue = issue.unwrap_or_else(|| grouping.primary());
        for hash in grouping.keep() {
            self.0.entry(hash).or_insert(issue);
        }
        issue
    }
}
