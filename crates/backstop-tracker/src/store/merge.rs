//! Merging issues and taking them apart by hand.
//!
//! A merge moves everything of an issue to another one, its group hashes included, so that later
//! events follow. A split picks some of an issue's groups out and gives their stored events an
//! issue of their own. Both keep every sum that `backstop check` checks.

use std::collections::{BTreeMap, BTreeSet};

use backstop_protocol::{Event, EventId, Level, Timestamp};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Transaction};

use super::error::{Error, ErrorKind, Fault};
use super::event::{EVENT_COLUMNS, EventRow, event_of_row};
use super::issue::{level_to_number, one_issue, resolve_merged};
use super::search::{self, WORDS_MAX};
use super::{Store, apply, generation, hint, tag};
use crate::digest::words;
use crate::grouping::hint::Sketch;
use crate::grouping::{GroupHash, Grouper, Grouping, Ingredient, Part};
use crate::model::{Issue, IssueId};
use crate::retention::minute_of;
use crate::tags::Tags;

/// Issues that people merge at once.
const MERGE_MAX: usize = 100;
/// Groups that people take out at once, and that a page lists.
const GROUPS_MAX: usize = 100;
/// Hashes that a page lists; an issue of many groups has many.
const HASHES_MAX: usize = 60;
/// Events whose bodies are read in one transaction, so that a long split never holds one open.
const PAGE_ROWS: i64 = 200;
/// A split is tried again when bodies were thinned out meanwhile.
const TRIES_MAX: usize = 3;
/// A reason is a sentence; after many merges the rest of it says nothing new.
const REASON_BYTES_MAX: usize = 1000;
/// Joins the reasons of issues that people merged.
const MERGED_WITH: &str = "; merged by hand with ";

/// A group hash that an issue owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueHash {
    /// The hash.
    pub hash: GroupHash,
    /// The version of the algorithm that made it.
    pub version: u16,
    /// What kind of hash it is; `None` if this program does not know it.
    pub part: Option<Part>,
    /// What it was made from.
    pub made_of: Vec<Ingredient>,
    /// Whether events are in the issue because of it; the others only find events that look
    /// different.
    pub is_primary: bool,
}

/// The stored events of an issue that have one primary hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueGroup {
    /// The hash by which [`Store::split`] picks the group.
    pub hash: GroupHash,
    /// How many events with a stored body it has.
    pub events: u64,
    /// Its latest event.
    pub latest: EventId,
    /// When that happened.
    pub last_seen: Timestamp,
    /// The headline of its latest event.
    pub title: String,
    /// Why its events are together, for people.
    pub reason: String,
}

impl Store {
    /// Merges issues into another one of the same project and returns it.
    ///
    /// Their ids lead to it from now on, and so do later events of theirs.
    /// The status of the other one stays as it is.
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
            let into = resolve_merged(tx, into)?;
            for other in others {
                let into = one_issue(tx, into)?;
                let other = one_issue(tx, resolve_merged(tx, *other)?)?;
                if other.project != into.project {
                    return Err(invalid(format!(
                        "{} and {} are of different projects",
                        into.short_id, other.short_id
                    ))
                    .into());
                }
                if other.id != into.id {
                    merge_one(tx, &into, &other)?;
                }
            }
            one_issue(tx, into)
        })
    }

    /// Lists the groups that the stored events of an issue are in, largest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or if the store cannot be read.
    pub fn issue_groups(&self, issue: IssueId) -> Result<Vec<IssueGroup>, Error> {
        let issue = self.issue(issue)?;
        let found: Vec<(GroupHash, u64, i64)> = self.read(|tx| {
            let mut statement = tx.prepare_cached(
                "SELECT group_hash, count(*), max(seq) FROM event WHERE issue = ?
                 GROUP BY group_hash ORDER BY count(*) DESC, max(seq) DESC LIMIT ?",
            )?;
            let rows = statement.query_map((issue.id, GROUPS_MAX as i64), |row| {
                Ok((hash_of_row(row.get(0)?), row.get(1)?, row.get(2)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let grouper = self.grouper_of(&issue)?;
        let mut groups = Vec::new();
        for (hash, events, seq) in found {
            let row = self.read(|tx| {
                let sql = format!("{EVENT_COLUMNS} WHERE e.seq = ?");
                Ok(tx.prepare_cached(&sql)?.query_row([seq], event_of_row)?)
            })?;
            let grouping = self
                .group_again(&grouper, &row)
                .map(|(_, grouping)| grouping);
            let (title, reason) = grouping.map_or_else(
                || (issue.title.clone(), String::new()),
                |grouping| (grouping.title, grouping.reason),
            );
            groups.push(IssueGroup {
                hash,
                events,
                latest: row.id,
                last_seen: row.timestamp,
                title,
                reason,
            });
        }
        Ok(groups)
    }

    /// Lists the group hashes that an issue owns, those that decide first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or if the store cannot be read.
    pub fn issue_hashes(&self, issue: IssueId) -> Result<Vec<IssueHash>, Error> {
        let issue = self.issue(issue)?.id;
        self.read(|tx| {
            let mut statement = tx.prepare_cached(
                "SELECT hash, version, part, made_of, hash IS primary_hash, primary_hash FROM issue_hash WHERE issue = ?
                 ORDER BY primary_hash, version DESC, hash LIMIT ?",
            )?;
            let rows = statement.query_map((issue, HASHES_MAX as i64), |row| {
                let hash = IssueHash {
                    hash: GroupHash::from_bytes(row.get(0)?),
                    version: row.get(1)?,
                    part: Part::of_name(row.get_ref(2)?.as_str()?),
                    // What a later version wrote is shown without it.
                    made_of: serde_json::from_str(row.get_ref(3)?.as_str()?).unwrap_or_default(),
                    is_primary: row.get(4)?,
                };
                Ok((row.get(5)?, hash))
            })?;
            let mut hashes: Vec<(Option<[u8; 16]>, IssueHash)> =
                rows.collect::<Result<_, _>>()?;
            hashes.sort_by_key(|(primary, hash)| (*primary, !hash.is_primary, hash.part));
            Ok(hashes.into_iter().map(|(_, hash)| hash).collect())
        })
    }

    /// Takes groups out of an issue and returns the new issue that has them.
    ///
    /// Events whose bodies were thinned out stay counted where they were.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotFound`].
    /// - [`ErrorKind::Invalid`] if the issue has none of the groups, or no others.
    /// - [`ErrorKind::Busy`] if its bodies are being thinned out right now.
    pub fn split(&self, issue: IssueId, groups: &[GroupHash]) -> Result<Issue, Error> {
        if groups.len() > GROUPS_MAX {
            return Err(invalid(format!(
                "at most {GROUPS_MAX} groups can be taken out at once"
            )));
        }
        let issue = self.issue(issue)?;
        let grouper = self.grouper_of(&issue)?;
        for _ in 0..TRIES_MAX {
            let mut parted = Parted::new(groups);
            loop {
                let rows = self.read(|tx| page(tx, issue.id, parted.last))?;
                if !self.part(&rows, &grouper, &mut parted) {
                    break;
                }
            }
            let new = self.write_moving(|tx| {
                // Events that came meanwhile are few; they are parted before anything is moved.
                while self.part(&page(tx, issue.id, parted.last)?, &grouper, &mut parted) {}
                if !parted.is_whole(tx, issue.id)? {
                    return Ok(None);
                }
                let issue = one_issue(tx, issue.id)?;
                if parted.moved.events.is_empty() || parted.staying.events.is_empty() {
                    let text = if parted.moved.events.is_empty() {
                        "none of these groups"
                    } else {
                        "no other groups"
                    };
                    return Err(invalid(format!("{} has {text}", issue.short_id)).into());
                }
                split(tx, &issue, &parted).map(Some)
            })?;
            if let Some(new) = new {
                return Ok(new);
            }
        }
        let text = format!(
            "bodies of {} are being thinned out; try again",
            issue.short_id
        );
        Err(Error::new(ErrorKind::Busy, text))
    }

    /// Notes of stored events on which side they are; says whether there may be more.
    fn part(&self, rows: &[PageRow], grouper: &Grouper, parted: &mut Parted<'_>) -> bool {
        for (seq, hash, row) in rows {
            let grouped = self.group_again(grouper, row);
            parted.add(*seq, *hash, row, grouped);
        }
        rows.len() as i64 == PAGE_ROWS
    }

    /// Returns a grouper that groups as events of an issue's project are grouped now.
    fn grouper_of(&self, issue: &Issue) -> Result<Grouper, Error> {
        let learned = self.learned(issue.project)?;
        let settings = self.project(issue.project)?.settings;
        let grouper = Grouper::restore(&learned).with_settings(&settings, issue.last_seen);
        // Settings that are not understood group by default when events come in, too.
        Ok(grouper.unwrap_or_else(|_| Grouper::restore(&learned)))
    }

    /// Groups a stored event again; a damaged body stays where it is, and `backstop check`
    /// reports it.
    fn group_again(&self, grouper: &Grouper, row: &EventRow) -> Option<(Event, Grouping)> {
        let stored = self.unpack(row).ok()?;
        let mut event = Event::decode(&stored.json).ok()?;
        grouper.normalise(&mut event);
        let grouping = grouper.group(&event);
        Some((event, grouping))
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

/// Events from before hashes were written down count as one group.
fn hash_of_row(bytes: Option<[u8; 16]>) -> GroupHash {
    GroupHash::from_bytes(bytes.unwrap_or_default())
}

/// Moves all that an issue has; the table of merged issues remembers its id.
fn merge_one(tx: &Transaction<'_>, into: &Issue, other: &Issue) -> Result<(), Fault> {
    let both = (into.id, other.id);
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
    tag::merge(tx, into.id, other.id)?;
    // An alert that is due must still go out where both issues have one for the same reason.
    tx.execute(
        "UPDATE outbox SET issue = ?1, window =
             CASE WHEN EXISTS (SELECT 1 FROM outbox o WHERE o.issue = ?1 AND o.rule = outbox.rule AND o.window = outbox.window)
             THEN -id ELSE window END
         WHERE issue = ?2",
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
    tx.execute("DELETE FROM bucket WHERE issue = ?", [other.id])?;
    hint::remove(tx, other.project, other.id)?;
    // What an issue says of itself is what its latest event says.
    if other.last_seen > into.last_seen {
        tx.execute(
            "UPDATE issue SET (title, culprit, level, platform, last_release) =
                 (SELECT title, culprit, level, platform, coalesce(last_release, issue.last_release)
                  FROM issue o WHERE o.id = ?2)
             WHERE id = ?1",
            both,
        )?;
    }
    tx.execute(
        "UPDATE issue SET
             events = issue.events + o.events, kept = issue.kept + o.kept,
             users = max(issue.users, o.users,
                 coalesce((SELECT distinct_values FROM tag_key WHERE issue = ?1 AND key = 'user'), 0)),
             regressions = max(issue.regressions, o.regressions),
             mute_events = issue.mute_events + o.events,
             first_release = CASE WHEN o.first_seen < issue.first_seen THEN o.first_release ELSE issue.first_release END,
             first_seen = min(issue.first_seen, o.first_seen),
             last_seen = max(issue.last_seen, o.last_seen),
             reason = ?3
         FROM (SELECT * FROM issue WHERE id = ?2) AS o WHERE issue.id = ?1",
        (into.id, other.id, joined_reason(&into.reason, &other.reason)),
    )?;
    tx.execute("DELETE FROM issue WHERE id = ?", [other.id])?;
    Ok(())
}

fn joined_reason(own: &str, other: &str) -> String {
    let mut reasons: Vec<&str> = own.split(MERGED_WITH).collect();
    for reason in other.split(MERGED_WITH) {
        let length: usize = reasons.iter().map(|reason| reason.len()).sum();
        if !reasons.contains(&reason) && length + reason.len() <= REASON_BYTES_MAX {
            reasons.push(reason);
        }
    }
    reasons.join(MERGED_WITH)
}

type PageRow = (i64, GroupHash, EventRow);

fn page(tx: &Transaction<'_>, issue: IssueId, after: i64) -> Result<Vec<PageRow>, Fault> {
    let sql = format!(
        "{} WHERE e.issue = ? AND e.seq > ? ORDER BY e.seq LIMIT ?",
        EVENT_COLUMNS.replace(" FROM", ", e.group_hash FROM")
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map((issue, after, PAGE_ROWS), |row| {
        Ok((row.get(9)?, hash_of_row(row.get(10)?), event_of_row(row)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The stored events of an issue, sorted into those that leave it and those that stay.
struct Parted<'g> {
    groups: &'g [GroupHash],
    /// The last event that was looked at.
    last: i64,
    moved: Side,
    staying: Side,
}

/// What is known of the events of one side.
#[derive(Default)]
struct Side {
    events: Vec<PartedEvent>,
    hashes: BTreeSet<GroupHash>,
    tags: BTreeMap<(String, String), (i64, i64)>,
    words: BTreeSet<String>,
    first_release: Option<String>,
    reasons: BTreeSet<String>,
    sketch: Option<Sketch>,
    latest: Option<Latest>,
}

struct PartedEvent {
    seq: i64,
    id: EventId,
    timestamp: Timestamp,
}

/// What an issue says of itself.
struct Latest {
    title: String,
    culprit: String,
    reason: String,
    level: Level,
    platform: Option<String>,
    release: Option<String>,
}

impl<'g> Parted<'g> {
    fn new(groups: &'g [GroupHash]) -> Parted<'g> {
        Parted {
            groups,
            last: 0,
            moved: Side::default(),
            staying: Side::default(),
        }
    }

    fn add(
        &mut self,
        seq: i64,
        hash: GroupHash,
        row: &EventRow,
        grouped: Option<(Event, Grouping)>,
    ) {
        self.last = seq;
        let side = if grouped.is_some() && self.groups.contains(&hash) {
            &mut self.moved
        } else {
            &mut self.staying
        };
        side.hashes.insert(hash);
        side.events.push(PartedEvent {
            seq,
            id: row.id,
            timestamp: row.timestamp,
        });
        if let Some((event, grouping)) = grouped {
            side.add(row.timestamp, event, grouping);
        }
    }

    /// Says whether all the events that were looked at are still there.
    fn is_whole(&self, tx: &Transaction<'_>, issue: IssueId) -> Result<bool, Fault> {
        let kept: usize = tx.query_row(
            "SELECT count(*) FROM event WHERE issue = ? AND seq <= ?",
            (issue, self.last),
            |row| row.get(0),
        )?;
        Ok(kept == self.moved.events.len() + self.staying.events.len())
    }
}

impl Side {
    fn add(&mut self, timestamp: Timestamp, event: Event, grouping: Grouping) {
        let tags = Tags::of(&event);
        let words = words(&event, &grouping, &tags);
        self.words.extend(words.iter().map(str::to_owned));
        for (key, value) in tags.iter() {
            let tag = (key.to_owned(), value.to_owned());
            let sum = self.tags.entry(tag).or_insert((0, i64::MIN));
            sum.0 += 1;
            sum.1 = sum.1.max(timestamp.micros());
        }
        if self.events.len() == 1 {
            self.first_release.clone_from(&event.release);
        }
        self.reasons.insert(grouping.reason.clone());
        self.sketch = Sketch::of(&event).or(self.sketch.take());
        self.latest = Some(Latest {
            title: grouping.title,
            culprit: grouping.culprit,
            reason: grouping.reason,
            level: event.level,
            platform: event.platform,
            release: event.release,
        });
    }

    fn tag_sums(&self) -> tag::Sums<'_> {
        let sums = self.tags.iter();
        sums.map(|((key, value), sum)| ((key.as_str(), value.as_str()), *sum))
            .collect()
    }

    fn first_seen(&self) -> Option<i64> {
        self.events.iter().map(|e| e.timestamp.micros()).min()
    }

    fn last_seen(&self) -> Option<i64> {
        self.events.iter().map(|e| e.timestamp.micros()).max()
    }
}

/// Makes the new issue and moves to it what its events brought.
fn split(tx: &Transaction<'_>, issue: &Issue, parted: &Parted<'_>) -> Result<Issue, Fault> {
    let new = create_issue(tx, issue, &parted.moved)?;
    move_events(tx, issue.id, new, &parted.moved)?;
    move_hashes(tx, issue, new, parted)?;
    // Where every event's body is there, what stays is written anew and is exact.
    let stayed = parted.staying.events.len() as u64;
    let is_complete = stayed + parted.moved.events.len() as u64 == issue.count;
    if is_complete {
        rewrite_tags(tx, issue.id, &parted.staying)?;
        rewrite_words(tx, issue.id, &parted.staying)?;
        tx.execute(
            "UPDATE issue SET first_seen = ?2, last_seen = ?3, first_release = ?4 WHERE id = ?1",
            (
                issue.id,
                parted.staying.first_seen(),
                parted.staying.last_seen(),
                &parted.staying.first_release,
            ),
        )?;
    } else {
        take_tags(tx, issue.id, &parted.moved)?;
    }
    rewrite_tags(tx, new, &parted.moved)?;
    rewrite_words(tx, new, &parted.moved)?;
    if let Some(sketch) = &parted.moved.sketch {
        hint::write(tx, issue.project, new, sketch, Some(issue.id))?;
    }
    if let Some(sketch) = &parted.staying.sketch {
        hint::write(tx, issue.project, issue.id, sketch, None)?;
    }
    if let Some(latest) = &parted.staying.latest {
        tx.execute(
            "UPDATE issue SET title = ?2, culprit = ?3, level = ?4, platform = ?5, last_release = ?6, reason = ?7
             WHERE id = ?1",
            (
                issue.id,
                &latest.title,
                &latest.culprit,
                level_to_number(latest.level),
                &latest.platform,
                &latest.release,
                remaining_reason(&issue.reason, parted),
            ),
        )?;
    }
    let moved = parted.moved.events.len() as i64;
    tx.execute(
        "UPDATE issue SET events = events - ?2, kept = kept - ?2, mute_events = mute_events - ?2 WHERE id = ?1",
        (issue.id, moved),
    )?;
    one_issue(tx, new)
}

/// The reasons of an issue without those that only the moved events had.
fn remaining_reason(reason: &str, parted: &Parted<'_>) -> String {
    let (moved, staying) = (&parted.moved.reasons, &parted.staying.reasons);
    let mut rest = reason
        .split(MERGED_WITH)
        .filter(|reason| staying.contains(*reason) || !moved.contains(*reason))
        .peekable();
    if rest.peek().is_some() {
        return rest.collect::<Vec<_>>().join(MERGED_WITH);
    }
    let latest = parted.staying.latest.as_ref();
    latest.map_or_else(|| reason.to_owned(), |latest| latest.reason.clone())
}

fn create_issue(tx: &Transaction<'_>, from: &Issue, moved: &Side) -> Result<IssueId, Fault> {
    let number: i64 = tx.query_row(
        "INSERT INTO project_count (project, issues) VALUES (?, 1)
         ON CONFLICT DO UPDATE SET issues = issues + 1 RETURNING issues",
        [from.project],
        |row| row.get(0),
    )?;
    let latest = moved.latest.as_ref();
    let events = moved.events.len() as i64;
    let issue = apply::next_issue(tx)?;
    tx.execute(
        "INSERT INTO issue (id, project, number, status, level, events, kept, users, first_seen, last_seen,
                            title, culprit, platform, first_release, last_release, reason)
         VALUES (?13, ?1, ?2, 0, ?3, ?4, ?4, 0, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        (
            from.project,
            number,
            level_to_number(latest.map_or(Level::Error, |latest| latest.level)),
            events,
            moved.first_seen(),
            moved.last_seen(),
            latest.map_or(from.title.as_str(), |latest| &latest.title),
            latest.map_or(from.culprit.as_str(), |latest| &latest.culprit),
            latest.and_then(|latest| latest.platform.as_ref()),
            &moved.first_release,
            latest.and_then(|latest| latest.release.as_ref()),
            latest.map_or(String::new(), |latest| {
                format!("{}; split off by hand", latest.reason)
            }),
            issue,
        ),
    )?;
    Ok(issue)
}

/// Moves events, the ids by which they are found, and their counts.
fn move_events(
    tx: &Transaction<'_>,
    old: IssueId,
    new: IssueId,
    moved: &Side,
) -> Result<(), Fault> {
    let generations = generation::Generations::read(tx)?;
    for (index, event) in moved.events.iter().enumerate() {
        tx.prepare_cached("UPDATE event SET issue = ?, number = ? WHERE seq = ?")?
            .execute((new, index as i64 + 1, event.seq))?;
        generations.move_to(tx, event.id, event.seq, new)?;
        move_count(tx, old, new, minute_of(event.timestamp))?;
    }
    tx.execute("DELETE FROM bucket WHERE issue = ? AND n <= 0", [old])?;
    Ok(())
}

/// Moves one event's count: from the bucket in which its minute lies, which may be an hour or a
/// day by now, else from any.
fn move_count(tx: &Transaction<'_>, old: IssueId, new: IssueId, minute: i64) -> Result<(), Fault> {
    const BEFORE: &str = "SELECT start FROM bucket WHERE issue = ? AND start <= ? AND n > 0 ORDER BY start DESC LIMIT 1";
    const AFTER: &str =
        "SELECT start FROM bucket WHERE issue = ? AND start > ? AND n > 0 ORDER BY start LIMIT 1";
    for sql in [BEFORE, AFTER] {
        let start: Option<i64> = tx
            .prepare_cached(sql)?
            .query_row((old, minute), |row| row.get(0))
            .optional()?;
        let Some(start) = start else {
            continue;
        };
        tx.prepare_cached("UPDATE bucket SET n = n - 1 WHERE issue = ? AND start = ?")?
            .execute((old, start))?;
        tx.prepare_cached(
            "INSERT INTO bucket (issue, start, n) VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
        )?
        .execute((new, start))?;
        return Ok(());
    }
    Ok(())
}

/// Moves the picked hashes and those that came with them, but none by which an event that
/// stays was grouped.
fn move_hashes(
    tx: &Transaction<'_>,
    issue: &Issue,
    new: IssueId,
    parted: &Parted<'_>,
) -> Result<(), Fault> {
    for hash in &parted.moved.hashes {
        let hash = hash.as_bytes();
        let brought: Vec<(Value, [u8; 16])> = tx
            .prepare_cached(
                "SELECT version, hash FROM issue_hash WHERE issue = ?1 AND (hash = ?2 OR primary_hash = ?2)",
            )?
            .query_map((issue.id, hash), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (version, brought) in brought {
            if !parted
                .staying
                .hashes
                .contains(&GroupHash::from_bytes(brought))
            {
                tx.prepare_cached(
                    "UPDATE issue_hash SET issue = ? WHERE project = ? AND version = ? AND hash = ?",
                )?
                .execute((new, issue.project, version, brought))?;
            }
        }
    }
    for owner in [issue.id, new] {
        let owns: bool = tx
            .prepare_cached("SELECT 1 FROM issue_hash WHERE issue = ?")?
            .exists([owner])?;
        if !owns {
            let text =
                "these events have no group hash of their own, so later ones could not follow";
            return Err(invalid(text.to_owned()).into());
        }
    }
    Ok(())
}

fn rewrite_tags(tx: &Transaction<'_>, issue: IssueId, side: &Side) -> Result<(), Fault> {
    tag::forget(tx, issue)?;
    let (_, users) = tag::Writing::new(tx)?.add(issue, true, None, &side.tag_sums())?;
    tx.execute("UPDATE issue SET users = ? WHERE id = ?", (users, issue))?;
    Ok(())
}

/// Takes the tags of moved events away from an issue that has events without bodies.
fn take_tags(tx: &Transaction<'_>, issue: IssueId, moved: &Side) -> Result<(), Fault> {
    let gone = tag::take(tx, issue, &moved.tag_sums())?;
    tx.execute(
        "UPDATE issue SET users = max(0, users - ?) WHERE id = ?",
        (gone as i64, issue),
    )?;
    Ok(())
}

/// Indexes the words of an issue anew, also those of the issues that were merged into it.
fn rewrite_words(tx: &Transaction<'_>, issue: IssueId, side: &Side) -> Result<(), Fault> {
    let merged: Vec<IssueId> = tx
        .prepare_cached("SELECT id FROM issue_merged WHERE into_issue = ?")?
        .query_map([issue], |row| row.get(0).map(IssueId))?
        .collect::<Result<_, _>>()?;
    for id in merged.into_iter().chain([issue]) {
        search::forget(tx, id)?;
    }
    let words: Vec<&str> = side.words.iter().map(String::as_str).collect();
    let mut docs = 0;
    for words in words.chunks(WORDS_MAX) {
        search::insert(tx, issue, &mut docs, &words.join(" "))?;
    }
    tx.execute(
        "UPDATE issue SET search_docs = ? WHERE id = ?",
        (docs, issue),
    )?;
    Ok(())
}
