//! Merging issues and taking them apart by hand.
//!
//! A merge moves everything of an issue to another one, its group hashes included, so that later
//! events follow. A split groups the stored events of an issue again, picks some of the groups
//! out and gives them an issue of their own. Both keep every sum that `backstop check` checks.

use std::collections::{BTreeMap, HashSet};

use backstop_protocol::{Event, EventId, Timestamp};
use rusqlite::{OptionalExtension, Transaction};

use super::error::{Error, ErrorKind, Fault};
use super::event::{EVENT_COLUMNS, EventRow, event_of_row};
use super::issue::{one_issue, resolve_merged};
use super::search::{self, KnownWords};
use super::{Store, apply};
use crate::digest::{tags, words};
use crate::grouping::{GroupHash, Grouper, Grouping};
use crate::model::{Issue, IssueId, ProjectId};
use crate::retention::minute_of;

/// Stored events of one issue that are looked at for a split; the bodies of more are thinned out.
const EVENTS_MAX: usize = 20_000;
/// Issues that people merge at once.
const MERGE_MAX: usize = 100;

/// The stored events of an issue that would be together without the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueGroup {
    /// The hash by which [`Store::split`] picks the group.
    pub hash: GroupHash,
    /// The headline of its latest event.
    pub title: String,
    /// Why its events are together, for people.
    pub reason: String,
    /// How many events with a stored body it has.
    pub events: u64,
    /// Its latest event.
    pub latest: EventId,
}

/// A stored event that was grouped again.
struct Regrouped {
    seq: i64,
    id: EventId,
    timestamp: Timestamp,
    grouping: Grouping,
    tags: Vec<(String, String)>,
    words: Vec<String>,
    platform: Option<String>,
    release: Option<String>,
}

impl Store {
    /// Merges issues into another one of the same project and returns it.
    ///
    /// Their ids lead to it from now on, and so do later events of theirs.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotFound`].
    /// - [`ErrorKind::Invalid`] if an issue is of another project, or if there are too many.
    pub fn merge(&self, into: IssueId, others: &[IssueId]) -> Result<Issue, Error> {
        if others.len() > MERGE_MAX {
            return Err(invalid(format!(
                "at most {MERGE_MAX} issues can be merged at once"
            )));
        }
        self.write_known(|tx| {
            let into = one_issue(tx, resolve_merged(tx, into)?)?;
            for other in others {
                let other = one_issue(tx, resolve_merged(tx, *other)?)?;
                if other.project != into.project {
                    return Err(invalid(format!(
                        "{} and {} are of different projects",
                        into.short_id, other.short_id
                    ))
                    .into());
                }
                if other.id != into.id {
                    merge_one(tx, into.id, &other)?;
                }
            }
            one_issue(tx, into.id)
        })
    }

    /// Lists the groups that the stored events of an issue are in, largest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or if the store cannot be read.
    pub fn issue_groups(&self, issue: IssueId) -> Result<Vec<IssueGroup>, Error> {
        let issue = self.issue(issue)?;
        let mut groups: BTreeMap<GroupHash, IssueGroup> = BTreeMap::new();
        for event in self.regroup(&issue)? {
            let hash = event.grouping.primary();
            let group = groups.entry(hash).or_insert_with(|| IssueGroup {
                hash,
                title: String::new(),
                reason: String::new(),
                events: 0,
                latest: event.id,
            });
            group.events += 1;
            group.title = event.grouping.title;
            group.reason = event.grouping.reason;
            group.latest = event.id;
        }
        let mut groups: Vec<IssueGroup> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.events));
        Ok(groups)
    }

    /// Takes groups out of an issue and returns the new issue that has them.
    ///
    /// Events whose bodies were thinned out stay counted where they were.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotFound`].
    /// - [`ErrorKind::Invalid`] if the issue has none of the groups, or no others.
    pub fn split(&self, issue: IssueId, groups: &[GroupHash]) -> Result<Issue, Error> {
        let issue = self.issue(issue)?;
        let (moved, staying): (Vec<Regrouped>, Vec<Regrouped>) = self
            .regroup(&issue)?
            .into_iter()
            .partition(|event| groups.contains(&event.grouping.primary()));
        if moved.is_empty() || staying.is_empty() {
            let text = if moved.is_empty() {
                "none of these groups"
            } else {
                "no other groups"
            };
            return Err(invalid(format!("{} has {text}", issue.short_id)));
        }
        self.write_known(|tx| {
            let new = create_issue(tx, issue.project, &moved)?;
            let count = move_events(tx, issue.id, new, &moved)?;
            move_hashes(tx, &issue, new, &moved, &staying)?;
            move_tags(tx, issue.id, new, &moved)?;
            let mut docs = 0;
            let mut known = KnownWords::default();
            for event in &moved {
                search::index(tx, &mut known, new, &mut docs, &event.words)?;
            }
            tx.execute(
                "UPDATE issue SET events = ?2, kept = ?2, search_docs = ?3 WHERE id = ?1",
                (new, count, docs),
            )?;
            tx.execute(
                "UPDATE issue SET events = events - ?2, kept = kept - ?2 WHERE id = ?1",
                (issue.id, count),
            )?;
            one_issue(tx, new)
        })
    }

    /// Groups the stored events of an issue again, in the order of their arrival.
    fn regroup(&self, issue: &Issue) -> Result<Vec<Regrouped>, Error> {
        let settings = self.project(issue.project)?.settings;
        let restored =
            || -> Result<Grouper, Error> { Ok(Grouper::restore(&self.learned(issue.project)?)) };
        // Settings that are not understood group by default when events come in, too.
        let grouper = match restored()?.with_settings(&settings, issue.last_seen) {
            Ok(grouper) => grouper,
            Err(_) => restored()?,
        };
        let rows: Vec<(i64, EventRow)> = self.read(|tx| {
            let sql = format!("{EVENT_COLUMNS} WHERE e.issue = ? ORDER BY e.seq LIMIT ?");
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map((issue.id, EVENTS_MAX as i64), |row| {
                Ok((row.get(9)?, event_of_row(row)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let mut events = Vec::new();
        for (seq, row) in &rows {
            // A damaged body stays where it is; `backstop check` reports it.
            let Ok(stored) = self.unpack(row) else {
                continue;
            };
            let Ok(mut event) = Event::decode(&stored.json) else {
                continue;
            };
            grouper.normalise(&mut event);
            let grouping = grouper.group(&event);
            let tags = tags(&event);
            events.push(Regrouped {
                seq: *seq,
                id: stored.id,
                timestamp: stored.timestamp,
                words: words(&event, &grouping, &tags),
                grouping,
                tags,
                platform: event.platform,
                release: event.release,
            });
        }
        Ok(events)
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

/// Moves all that an issue has; the table of merged issues remembers its id.
fn merge_one(tx: &Transaction<'_>, into: IssueId, other: &Issue) -> Result<(), Fault> {
    let both = (into, other.id);
    tx.execute(
        "UPDATE event SET issue = ?1, number = number + (SELECT events FROM issue WHERE id = ?1) WHERE issue = ?2",
        both,
    )?;
    tx.execute("UPDATE issue_hash SET issue = ?1 WHERE issue = ?2", both)?;
    tx.execute(
        "INSERT INTO bucket (issue, start, n) SELECT ?1, start, n FROM bucket WHERE issue = ?2
         ON CONFLICT DO UPDATE SET n = n + excluded.n",
        both,
    )?;
    tx.execute(
        "INSERT INTO tag (issue, key, value, n, last_seen)
         SELECT ?1, key, value, n, last_seen FROM tag WHERE issue = ?2
         ON CONFLICT DO UPDATE SET n = n + excluded.n, last_seen = max(last_seen, excluded.last_seen)",
        both,
    )?;
    tx.execute(
        "INSERT INTO tag_key (issue, key, distinct_values, other)
         SELECT ?1, key, distinct_values, other FROM tag_key WHERE issue = ?2
         ON CONFLICT DO UPDATE SET other = other + excluded.other",
        both,
    )?;
    tx.execute(
        "UPDATE OR IGNORE outbox SET issue = ?1 WHERE issue = ?2",
        both,
    )?;
    tx.execute(
        "UPDATE issue_merged SET into_issue = ?1 WHERE into_issue = ?2",
        both,
    )?;
    tx.execute(
        "INSERT INTO issue_merged (into_issue, id) VALUES (?1, ?2)",
        both,
    )?;
    for table in ["bucket", "tag", "tag_key", "outbox"] {
        tx.execute(&format!("DELETE FROM {table} WHERE issue = ?"), [other.id])?;
    }
    count_tag_values(tx, into)?;
    tx.execute(
        "UPDATE issue SET
             events = issue.events + o.events, kept = issue.kept + o.kept,
             users = max(issue.users, o.users,
                 coalesce((SELECT distinct_values FROM tag_key WHERE issue = ?1 AND key = 'user'), 0)),
             first_release = CASE WHEN o.first_seen < issue.first_seen THEN o.first_release ELSE issue.first_release END,
             last_release = CASE WHEN o.last_seen > issue.last_seen THEN o.last_release ELSE issue.last_release END,
             first_seen = min(issue.first_seen, o.first_seen),
             last_seen = max(issue.last_seen, o.last_seen),
             reason = issue.reason || '; merged by hand with ' || o.reason
         FROM (SELECT * FROM issue WHERE id = ?2) AS o WHERE issue.id = ?1",
        both,
    )?;
    tx.execute("DELETE FROM issue WHERE id = ?", [other.id])?;
    Ok(())
}

fn count_tag_values(tx: &Transaction<'_>, issue: IssueId) -> Result<(), Fault> {
    tx.execute(
        "UPDATE tag_key SET distinct_values =
             (SELECT count(*) FROM tag t WHERE t.issue = tag_key.issue AND t.key = tag_key.key)
         WHERE issue = ?",
        [issue],
    )?;
    Ok(())
}

fn create_issue(
    tx: &Transaction<'_>,
    project: ProjectId,
    moved: &[Regrouped],
) -> Result<IssueId, Fault> {
    let number: i64 = tx.query_row(
        "INSERT INTO project_count (project, issues) VALUES (?, 1)
         ON CONFLICT DO UPDATE SET issues = issues + 1 RETURNING issues",
        [project],
        |row| row.get(0),
    )?;
    let seen = || moved.iter().map(|event| event.timestamp.micros());
    let (first, latest) = (&moved[0], &moved[moved.len() - 1]);
    tx.execute(
        "INSERT INTO issue (project, number, status, level, events, kept, users, first_seen, last_seen,
                            title, culprit, platform, first_release, last_release, reason)
         VALUES (?, ?, 0, 3, 0, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            project,
            number,
            seen().min(),
            seen().max(),
            &latest.grouping.title,
            &latest.grouping.culprit,
            &latest.platform,
            &first.release,
            &latest.release,
            format!("{}; split off by hand", latest.grouping.reason),
        ),
    )?;
    Ok(IssueId(tx.last_insert_rowid()))
}

/// Moves events and their counts; returns how many were still there.
fn move_events(
    tx: &Transaction<'_>,
    old: IssueId,
    new: IssueId,
    moved: &[Regrouped],
) -> Result<i64, Fault> {
    let mut count = 0;
    for event in moved {
        let number = count + 1;
        let changed = tx
            .prepare_cached("UPDATE event SET issue = ?, number = ? WHERE seq = ? AND issue = ?")?
            .execute((new, number, event.seq, old))?;
        if changed == 1 {
            count = number;
            move_count(tx, old, new, minute_of(event.timestamp))?;
        }
    }
    tx.execute("DELETE FROM bucket WHERE issue = ? AND n <= 0", [old])?;
    Ok(count)
}

/// Moves one event's count: from the bucket in which its minute lies, which may be an hour or a
/// day by now, else from any.
fn move_count(tx: &Transaction<'_>, old: IssueId, new: IssueId, minute: i64) -> Result<(), Fault> {
    let start: Option<i64> = tx
        .prepare_cached(
            "SELECT start FROM bucket WHERE issue = ? AND n > 0 ORDER BY start > ?, abs(start - ?) LIMIT 1",
        )?
        .query_row((old, minute, minute), |row| row.get(0))
        .optional()?;
    let Some(start) = start else {
        return Ok(());
    };
    tx.prepare_cached("UPDATE bucket SET n = n - 1 WHERE issue = ? AND start = ?")?
        .execute((old, start))?;
    tx.prepare_cached(
        "INSERT INTO bucket (issue, start, n) VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
    )?
    .execute((new, start))?;
    Ok(())
}

/// Moves the hashes that only moved events have. Both issues own at least their primary ones.
fn move_hashes(
    tx: &Transaction<'_>,
    issue: &Issue,
    new: IssueId,
    moved: &[Regrouped],
    staying: &[Regrouped],
) -> Result<(), Fault> {
    let keys = |events: &[Regrouped]| -> HashSet<(u16, GroupHash)> {
        let keys = events.iter().flat_map(|event| &event.grouping.keys);
        keys.filter(|key| key.keep)
            .map(|key| (key.version, key.hash))
            .collect()
    };
    let stays = keys(staying);
    let own = |events: &[Regrouped], owner: IssueId, keys: HashSet<(u16, GroupHash)>| {
        let primary = events
            .iter()
            .map(|e| (e.grouping.version, e.grouping.primary()));
        for (version, hash) in keys.into_iter().chain(primary) {
            tx.prepare_cached(
                "INSERT INTO issue_hash (project, version, hash, issue) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET issue = ?4 WHERE issue = ?5",
            )?
            .execute((issue.project, version, hash.as_bytes(), owner, issue.id))?;
        }
        Ok::<(), Fault>(())
    };
    own(staying, issue.id, HashSet::new())?;
    own(
        moved,
        new,
        keys(moved).difference(&stays).copied().collect(),
    )
}

fn move_tags(
    tx: &Transaction<'_>,
    old: IssueId,
    new: IssueId,
    moved: &[Regrouped],
) -> Result<(), Fault> {
    let mut sums: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
    for event in moved {
        for (key, value) in &event.tags {
            let sum = sums.entry((key, value)).or_insert((0, i64::MIN));
            sum.0 += 1;
            sum.1 = sum.1.max(event.timestamp.micros());
        }
    }
    for ((key, value), (n, _)) in &sums {
        let told_apart = tx
            .prepare_cached(
                "UPDATE tag SET n = n - ?1 WHERE issue = ?2 AND key = ?3 AND value = ?4",
            )?
            .execute((n, old, key, value))?;
        if told_apart == 0 {
            tx.prepare_cached(
                "UPDATE tag_key SET other = max(0, other - ?1) WHERE issue = ?2 AND key = ?3",
            )?
            .execute((n, old, key))?;
        }
    }
    let gone = tx.execute(
        "DELETE FROM tag WHERE issue = ? AND key = 'user' AND n <= 0",
        [old],
    )?;
    tx.execute("DELETE FROM tag WHERE issue = ? AND n <= 0", [old])?;
    count_tag_values(tx, old)?;
    tx.execute(
        "UPDATE issue SET users = max(0, users - ?) WHERE id = ?",
        (gone as i64, old),
    )?;
    let users = apply::write_tags(tx, new, &sums)?;
    tx.execute("UPDATE issue SET users = ? WHERE id = ?", (users, new))?;
    Ok(())
}
