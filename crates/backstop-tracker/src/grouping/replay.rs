//! What another way of grouping would change, before it is switched on.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use backstop_protocol::Event;
use serde::{Serialize, Serializer};

use super::command::Issues;
use super::{GroupHash, Grouper};
use crate::model::IssueId;

/// Groups stored events again and notes how that differs from the issues that they are in.
#[derive(Debug)]
pub struct Replay {
    grouper: Grouper,
    issues: Issues,
    events: u64,
    counts: BTreeMap<(IssueId, GroupHash), u64>,
    titles: HashMap<GroupHash, String>,
}

/// How issues would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The events that were grouped again.
    pub events: u64,
    /// The issues that they are in.
    pub issues: usize,
    /// The groups that they would be in.
    pub groups: usize,
    /// Groups that would take in several issues.
    pub merges: Vec<Merge>,
    /// Issues whose events would be in several groups.
    pub splits: Vec<Split>,
}

/// Several issues would become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merge {
    /// The headline of the group.
    pub title: String,
    /// The issues and how many of their events the group would have.
    #[serde(serialize_with = "issue_numbers")]
    pub issues: Vec<(IssueId, u64)>,
}

/// One issue would become several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Split {
    /// The issue.
    #[serde(serialize_with = "issue_number")]
    pub issue: IssueId,
    /// The headlines of the groups and how many events each would have.
    pub groups: Vec<(String, u64)>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn issue_number<S: Serializer>(issue: &IssueId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(issue.0)
}

fn issue_numbers<S: Serializer>(
    issues: &[(IssueId, u64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(issues.iter().map(|(issue, events)| (issue.0, events)))
}

impl Replay {
    /// Begins with a grouper that has learned nothing, so that it learns along the way.
    pub fn new(grouper: Grouper) -> Replay {
        Replay {
            grouper,
            issues: Issues::default(),
            events: 0,
            counts: BTreeMap::new(),
            titles: HashMap::new(),
        }
    }

    /// Groups one stored event that is in `issue`; events come in the order of their arrival.
    pub fn add(&mut self, issue: IssueId, mut event: Event) {
        self.grouper.normalise(&mut event);
        let grouping = self.grouper.group(&event);
        let group = self.issues.assign(&grouping);
        self.events += 1;
        *self.counts.entry((issue, group)).or_default() += 1;
        self.titles.entry(group).or_insert(grouping.title);
    }

    /// Returns what would change.
    pub fn changes(self) -> Changes {
        let mut of_issue: BTreeMap<IssueId, Vec<(GroupHash, u64)>> = BTreeMap::new();
        let mut of_group: BTreeMap<GroupHash, Vec<(IssueId, u64)>> = BTreeMap::new();
        for ((issue, group), count) in &self.counts {
            of_issue.entry(*issue).or_default().push((*group, *count));
            of_group.entry(*group).or_default().push((*issue, *count));
        }
        let title = |group: &GroupHash| self.titles.get(group).cloned().unwrap_or_default();
        let largest_first = |left: u64, right: u64| right.cmp(&left);
        let (issues, groups) = (of_issue.len(), of_group.len());
        let mut merges: Vec<Merge> = of_group
            .into_iter()
            .filter(|(_, issues)| issues.len() > 1)
            .map(|(group, mut issues)| {
                issues.sort_by(|left, right| largest_first(left.1, right.1));
                Merge {
                    title: title(&group),
                    issues,
                }
            })
            .collect();
        let mut splits: Vec<Split> = of_issue
            .into_iter()
            .filter(|(_, groups)| groups.len() > 1)
            .map(|(issue, mut groups)| {
                groups.sort_by(|left, right| largest_first(left.1, right.1));
                let groups = groups
                    .iter()
                    .map(|(group, count)| (title(group), *count))
                    .collect();
                Split { issue, groups }
            })
            .collect();
        let size = |parts: &mut dyn Iterator<Item = u64>| parts.sum::<u64>();
        merges.sort_by_key(|merge| std::cmp::Reverse(size(&mut merge.issues.iter().map(|i| i.1))));
        splits.sort_by_key(|split| std::cmp::Reverse(size(&mut split.groups.iter().map(|g| g.1))));
        Changes {
            events: self.events,
            issues,
            groups,
            merges,
            splits,
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} stored events in {} issues would be in {} groups",
            self.events, self.issues, self.groups
        )?;
        if self.merges.is_empty() && self.splits.is_empty() {
            return writeln!(f, "nothing would merge or split");
        }
        for merge in &self.merges {
            writeln!(
                f,
                "\n{} issues would merge into “{}”:",
                merge.issues.len(),
                merge.title
            )?;
            for (issue, events) in &merge.issues {
                writeln!(f, "  issue {} with {events} events", issue.0)?;
            }
        }
        for split in &self.splits {
            writeln!(
                f,
                "\nissue {} would split into {}:",
                split.issue.0,
                split.groups.len()
            )?;
            for (title, events) in &split.groups {
                writeln!(f, "  {events} events “{title}”")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(ty: &str, function: &str) -> Event {
        let event = json!({"platform": "python", "exception": [{"type": ty, "stacktrace": {
            "frames": [{"module": "shop", "function": function}],
        }}]});
        Event::decode(event.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn merges_and_splits_are_shown() {
        let mut replay = Replay::new(Grouper::new());
        replay.add(IssueId(1), event("KeyError", "total"));
        replay.add(IssueId(1), event("KeyError", "weight"));
        replay.add(IssueId(2), event("KeyError", "total"));
        replay.add(IssueId(2), event("KeyError", "total"));
        let text = replay.changes().to_string();
        assert_eq!(
            text,
            "4 stored events in 2 issues would be in 2 groups\n\
             \n2 issues would merge into “KeyError”:\n  issue 2 with 2 events\n  issue 1 with 1 events\n\
             \nissue 1 would split into 2:\n  1 events “KeyError”\n  1 events “KeyError”\n"
        );
        let mut replay = Replay::new(Grouper::new());
        replay.add(IssueId(1), event("KeyError", "total"));
        let text = replay.changes().to_string();
        assert!(text.ends_with("nothing would merge or split\n"), "{text}");
    }
}
