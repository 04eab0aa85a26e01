//! What a batch of events does to the store, in one transaction.
//!
//! Applying a batch twice is the same as applying it once: an event counts only if its id is new.
//! Everything that several events of a batch change (an issue, a bucket, a tag) is added up
//! first and written once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use backstop_protocol::Timestamp;
use rusqlite::{CachedStatement, OptionalExtension, Transaction};

use super::alert::{kind_number, rules};
use super::error::{Error, Fault};
use super::fresh::Fresh;
use super::generation::{Found, Generations};
use super::issue::{level_to_number, resolve_merged};
use super::search::{self, KnownWords, Words};
use super::{Store, hint, outcome, tag};
use crate::alert::{Change, History, due};
use crate::codec::Codec;
use crate::digest::{Prepared, Stored};
use crate::grouping::{GroupHash, GroupKey};
use crate::model::{AlertKind, AlertRule, IssueId, Key, ProjectId, Status};
use crate::retention::{bucket_start, day_of, minute_of};

/// Entries of each cache; when one is full it starts anew, which costs a look-up per entry.
const CACHE_MAX: usize = 50_000;

/// Issues whose rows are remembered, a kilobyte or two each.
const ISSUES_KNOWN_MAX: usize = 4096;
/// The values of their tags, about a hundred bytes each; an issue has ten to twenty.
const TAG_VALUES_KNOWN_MAX: usize = 40_000;

/// What the writer remembers between batches, so that a known issue costs no look-up.
#[derive(Debug, Default)]
pub(super) struct Caches {
    groups: HashMap<Group, IssueId, BuildHasherDefault<Hashed>>,
    issues: HashMap<IssueId, KnownIssue>,
    tag_values: usize,
    rules: HashMap<ProjectId, Arc<[AlertRule]>>,
    generations: Option<Generations>,
    fresh: Option<Fresh>,
    next_seq: Option<i64>,
    words: KnownWords,
    frequencies: HashMap<(IssueId, u32), Frequency>,
    told: HashMap<(IssueId, i64), Option<Timestamp>>,
}

/// A project, a version of grouping, and one of its hashes.
type Group = (ProjectId, u16, GroupHash);

/// Most of a group is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut number = [0; 8];
            number[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_ne_bytes(number));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// What an issue's rows say.
#[derive(Debug)]
struct KnownIssue {
    row: IssueRow,
    tags: tag::Pack,
}

/// What is known of an issue's frequency.
#[derive(Debug, Clone, Copy)]
struct Frequency {
    /// The issue's events when they were last added up.
    events_then: i64,
    /// Their sum in the time of the rule.
    sum: i64,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// One for each event of the batch, in its order.
    pub(crate) stored: Vec<Stored>,
    /// How many alerts became due.
    pub(crate) alerts: usize,
}

impl Store {
    /// Stores a batch of events; when this returns `Ok`, it is on the disk.
    pub(crate) fn apply(&self, batch: &[Prepared]) -> Result<Applied, Error> {
        let mut writer = self.0.writer.lock();
        let ids_max = self.0.fresh_ids_max;
        Ok(writer.transaction(|tx, caches| apply(tx, caches, ids_max, batch))?)
    }
}

fn apply(
    tx: &Transaction<'_>,
    caches: &mut Caches,
    ids_max: usize,
    batch: &[Prepared],
) -> Result<Applied, Fault> {
    caches.trim();
    let Some(now) = batch.iter().map(|event| event.received).max() else {
        return Ok(Applied::default());
    };
    let mut generations = match caches.generations.take() {
        Some(generations) => generations,
        None => Generations::read(tx)?,
    };
    let mut fresh = match caches.fresh.take() {
        Some(fresh) => fresh,
        None => Fresh::read(tx)?,
    };
    generations.turn(tx, &mut fresh, now)?;
    let mut deltas = Deltas::default();
    let mut applied = Applied::default();
    let mut insert = tx.prepare_cached(INSERT_EVENT)?;
    for event in batch {
        let found = match fresh.find(event.project, event.event_id) {
            Some(found) => Some(found),
            None => generations.find(tx, event.project, event.event_id)?,
        };
        let stored = match found {
            Some(found) => Stored {
                event_id: event.event_id,
                issue: resolve_merged(tx, found.issue)?,
                new_issue: false,
                duplicate: true,
            },
            None => {
                let found = find_or_create_issue(tx, caches, event)?;
                let (stored, found) = deltas.add(tx, caches, event, found, now)?;
                insert_event(&mut insert, event, found, deltas.number_in(found.issue))?;
                fresh.insert(event.event_id, found);
                stored
            }
        };
        deltas.project(event, stored.duplicate);
        applied.stored.push(stored);
    }
    fresh.write(tx, ids_max, |id, found| generations.insert(tx, id, found))?;
    caches.generations = Some(generations);
    caches.fresh = Some(fresh);
    write_issues(tx, caches, deltas.issues, now, &mut applied)?;
    write_projects(tx, &deltas.projects, &deltas.outcomes)?;
    if deltas.body_bytes > 0 {
        tx.prepare_cached("UPDATE statistic SET value = value + ? WHERE name = 'body_bytes'")?
            .execute([deltas.body_bytes])?;
    }
    Ok(applied)
}

impl Caches {
    /// The generations are read again with the next batch.
    pub(super) fn forget_generations(&mut self) {
        self.generations = None;
    }

    /// Keeps the latest ids alone: to read them again costs much, and their round would begin anew.
    pub(super) fn forget_all_but_ids(&mut self) {
        *self = Caches {
            fresh: self.fresh.take(),
            ..Caches::default()
        };
    }

    fn trim(&mut self) {
        if self.groups.len() > CACHE_MAX {
            self.groups.clear();
        }
        if self.frequencies.len() > CACHE_MAX {
            self.frequencies.clear();
        }
        if self.told.len() > CACHE_MAX {
            self.told.clear();
        }
        if self.rules.len() > CACHE_MAX {
            self.rules.clear();
        }
        if self.issues.len() > ISSUES_KNOWN_MAX || self.tag_values > TAG_VALUES_KNOWN_MAX {
            // Half of them, whichever, so that those a little beyond the limit are not all lost.
            let mut stays = false;
            self.issues.retain(|_, _| {
                stays = !stays;
                stays
            });
            self.tag_values = self.issues.values().map(|known| known.tags.len()).sum();
        }
    }

    /// Gives out what is known of an issue; whoever changes it puts it back.
    fn take_issue(&mut self, issue: IssueId) -> Option<KnownIssue> {
        let known = self.issues.remove(&issue)?;
        self.tag_values = self.tag_values.saturating_sub(known.tags.len());
        Some(known)
    }

    fn put_issue(&mut self, issue: IssueId, known: KnownIssue) {
        self.tag_values += known.tags.len();
        self.issues.insert(issue, known);
    }
}

/// The sums of one batch.
///
/// They are written in key order: neighbours share pages, the full-text index wants rising
/// row ids, and the same events always make the same file, so that a test can replay a run.
#[derive(Debug, Default)]
struct Deltas<'a> {
    issues: BTreeMap<IssueId, IssueDelta<'a>>,
    projects: BTreeMap<(ProjectId, i64), i64>,
    outcomes: BTreeMap<(ProjectId, Option<Key>, i64, &'static str), u64>,
    body_bytes: i64,
}

impl<'a> Deltas<'a> {
    /// Adds a new event to its issue.
    fn add(
        &mut self,
        tx: &Transaction<'_>,
        caches: &mut Caches,
        event: &'a Prepared,
        (issue, created): (IssueId, bool),
        now: Timestamp,
    ) -> Result<(Stored, Found), Fault> {
        let delta = match self.issues.entry(issue) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(IssueDelta::new(tx, caches, issue, created, event)?)
            }
        };
        delta.add(event, now);
        self.body_bytes += event.body.bytes.len() as i64;
        let found = Found {
            project: event.project,
            issue,
            seq: next_seq(tx, caches)?,
        };
        let stored = Stored {
            event_id: event.event_id,
            issue,
            new_issue: created,
            duplicate: false,
        };
        Ok((stored, found))
    }

    /// The number of the event that was added last to an issue.
    fn number_in(&self, issue: IssueId) -> i64 {
        self.issues
            .get(&issue)
            .map_or(0, |delta| delta.before.events + delta.events)
    }

    fn project(&mut self, event: &Prepared, duplicate: bool) {
        let reason = if duplicate { "duplicate" } else { "accepted" };
        let key = (event.project, event.key, day_of(event.received), reason);
        *self.outcomes.entry(key).or_default() += 1;
        if !duplicate {
            let start = bucket_start(event.timestamp, event.received);
            *self.projects.entry((event.project, start)).or_default() += 1;
        }
    }
}

/// What a batch does to one issue.
#[derive(Debug)]
struct IssueDelta<'a> {
    before: IssueRow,
    /// Its packed tags before, if they are known.
    packed: Option<tag::Pack>,
    created: bool,
    events: i64,
    first_seen: i64,
    last_seen: i64,
    latest: &'a Prepared,
    buckets: BTreeMap<i64, i64>,
    tags: tag::Sums<'a>,
    words: Vec<&'a Words>,
}

/// What must be known of an issue before it can be changed.
#[derive(Debug)]
struct IssueRow {
    status: Status,
    events: i64,
    regressions: i64,
    mute_until: Option<i64>,
    mute_events: Option<i64>,
    search_docs: i64,
}

impl IssueRow {
    fn read(tx: &Transaction<'_>, issue: IssueId) -> Result<IssueRow, Fault> {
        let mut query = tx.prepare_cached(
            "SELECT status, events, regressions, mute_until, mute_events, search_docs
             FROM issue WHERE id = ?",
        )?;
        Ok(query.query_row([issue], |row| {
            Ok(IssueRow {
                status: Status::from_number(row.get(0)?),
                events: row.get(1)?,
                regressions: row.get(2)?,
                mute_until: row.get(3)?,
                mute_events: row.get(4)?,
                search_docs: row.get(5)?,
            })
        })?)
    }
}

/// The first hash to find that belongs to an issue decides; the issue then owns the hashes to keep.
fn find_or_create_issue(
    tx: &Transaction<'_>,
    caches: &mut Caches,
    event: &Prepared,
) -> Result<(IssueId, bool), Fault> {
    let mut found = None;
    for key in event.keys.iter().filter(|key| key.find) {
        found = find_group(tx, caches, event.project, key)?;
        if found.is_some() {
            break;
        }
    }
    let issue = match found {
        Some(issue) => issue,
        None => create_issue(tx, event)?,
    };
    for key in event.keys.iter().filter(|key| key.keep) {
        if find_group(tx, caches, event.project, key)?.is_none() {
            tx.prepare_cached(
                "INSERT INTO issue_hash (project, version, hash, issue, primary_hash, part, made_of)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute((
                event.project,
                key.version,
                key.hash.as_bytes(),
                issue,
                event.primary().as_bytes(),
                key.part.as_str(),
                serde_json::to_string(&key.made_of).unwrap_or_else(|_| "[]".to_owned()),
            ))?;
            caches
                .groups
                .insert((event.project, key.version, key.hash), issue);
        }
    }
    Ok((issue, found.is_none()))
}

fn find_group(
    tx: &Transaction<'_>,
    caches: &mut Caches,
    project: ProjectId,
    key: &GroupKey,
) -> Result<Option<IssueId>, Fault> {
    let group = (project, key.version, key.hash);
    if let Some(issue) = caches.groups.get(&group) {
        return Ok(Some(*issue));
    }
    let issue = tx
        .prepare_cached(
            "SELECT issue FROM issue_hash WHERE project = ? AND version = ? AND hash = ?",
        )?
        .query_row((project, key.version, key.hash.as_bytes()), |row| {
            row.get(0).map(IssueId)
        })
        .optional()?;
    if let Some(issue) = issue {
        caches.groups.insert(group, issue);
    }
    Ok(issue)
}

fn create_issue(tx: &Transaction<'_>, event: &Prepared) -> Result<IssueId, Fault> {
    let number: i64 = tx
        .prepare_cached(
            "INSERT INTO project_count (project, issues) VALUES (?, 1)
             ON CONFLICT DO UPDATE SET issues = issues + 1 RETURNING issues",
        )?
        .query_row([event.project], |row| row.get(0))?;
    let seen = event.timestamp.micros();
    let issue = next_issue(tx)?;
    tx.prepare_cached(
        "INSERT INTO issue (id, project, number, status, level, events, kept, users, first_seen, last_seen,
                            title, culprit, platform, first_release, last_release, reason)
         VALUES (?10, ?1, ?2, 0, ?3, 0, 0, 0, ?4, ?4, ?5, ?6, ?7, ?8, ?8, ?9)",
    )?
    .execute((
        event.project,
        number,
        level_to_number(event.level),
        seen,
        &event.title,
        &event.culprit,
        &event.platform,
        &event.release,
        &event.reason,
        issue,
    ))?;
    if let Some(sketch) = &event.sketch {
        hint::write(tx, event.project, issue, sketch, None)?;
    }
    Ok(issue)
}

/// An id that no issue ever had: old links to one that was merged lead to the other.
pub(super) fn next_issue(tx: &Transaction<'_>) -> Result<IssueId, Fault> {
    Ok(tx
        .prepare_cached(
            "SELECT 1 + max(coalesce((SELECT max(id) FROM issue), 0),
                            coalesce((SELECT max(id) FROM issue_merged), 0))",
        )?
        .query_row([], |row| row.get(0).map(IssueId))?)
}

impl<'a> IssueDelta<'a> {
    fn new(
        tx: &Transaction<'_>,
        caches: &mut Caches,
        issue: IssueId,
        created: bool,
        event: &'a Prepared,
    ) -> Result<IssueDelta<'a>, Fault> {
        let (before, packed) = match caches.take_issue(issue) {
            Some(known) => (known.row, Some(known.tags)),
            None => (IssueRow::read(tx, issue)?, None),
        };
        Ok(IssueDelta {
            before,
            packed,
            created,
            events: 0,
            first_seen: i64::MAX,
            last_seen: i64::MIN,
            latest: event,
            buckets: BTreeMap::new(),
            tags: tag::Sums::new(),
            words: Vec::new(),
        })
    }

    fn add(&mut self, event: &'a Prepared, now: Timestamp) {
        let seen = event.timestamp.micros();
        self.events += 1;
        self.first_seen = self.first_seen.min(seen);
        if seen >= self.last_seen {
            self.last_seen = seen;
            self.latest = event;
        }
        let start = bucket_start(event.timestamp, now);
        *self.buckets.entry(start).or_default() += 1;
        for (key, value) in event.tags.iter() {
            let tag = self.tags.entry((key, value)).or_insert((0, i64::MIN));
            tag.0 += 1;
            tag.1 = tag.1.max(seen);
        }
        self.words.push(&event.words);
    }

    /// Returns the row as [`write_issue`] leaves it.
    fn after(&self, status: Status, came_back: bool, search_docs: i64) -> IssueRow {
        let muted = status == Status::Muted;
        IssueRow {
            status,
            events: self.before.events + self.events,
            regressions: self.before.regressions + i64::from(came_back),
            mute_until: self.before.mute_until.filter(|_| muted),
            mute_events: self.before.mute_events.filter(|_| muted),
            search_docs,
        }
    }

    /// Returns the status after the batch, and whether the issue came back.
    fn status(&self, now: Timestamp) -> (Status, bool) {
        let events = self.before.events + self.events;
        match self.before.status {
            Status::Unresolved => (Status::Unresolved, false),
            Status::Resolved => (Status::Unresolved, true),
            Status::Muted => {
                let ends = self
                    .before
                    .mute_until
                    .is_some_and(|until| until <= now.micros())
                    || self.before.mute_events.is_some_and(|count| count <= events);
                match ends {
                    true => (Status::Unresolved, true),
                    false => (Status::Muted, false),
                }
            }
        }
    }
}

fn next_seq(tx: &Transaction<'_>, caches: &mut Caches) -> Result<i64, Fault> {
    let seq = match caches.next_seq {
        Some(seq) => seq,
        // An evicted event's number must not come again, or order and references would lie.
        None => tx
            .prepare_cached(
                "SELECT max(coalesce((SELECT max(seq) FROM event), 0),
                            coalesce((SELECT value FROM statistic WHERE name = 'seq_evicted'), 0)) + 1",
            )?
            .query_row([], |row| row.get(0))?,
    };
    caches.next_seq = Some(seq + 1);
    Ok(seq)
}

const INSERT_EVENT: &str =
    "INSERT INTO event (seq, id, project, issue, number, timestamp, received, dictionary, size, sum, body, group_hash)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

fn insert_event(
    insert: &mut CachedStatement<'_>,
    event: &Prepared,
    found: Found,
    number: i64,
) -> Result<(), Fault> {
    insert.execute((
        found.seq,
        event.event_id.as_bytes(),
        event.project,
        found.issue,
        number,
        event.timestamp.micros(),
        event.received.micros(),
        event.body.dictionary,
        event.body.size as i64,
        Codec::sum(event.event_id, &event.body.bytes),
        &event.body.bytes,
        event.primary().as_bytes(),
    ))?;
    Ok(())
}

fn write_issues(
    tx: &Transaction<'_>,
    caches: &mut Caches,
    issues: BTreeMap<IssueId, IssueDelta<'_>>,
    now: Timestamp,
    applied: &mut Applied,
) -> Result<(), Fault> {
    let mut buckets = tx.prepare_cached(
        "INSERT INTO bucket (issue, start, n) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET n = n + excluded.n",
    )?;
    let mut update = tx.prepare_cached(UPDATE_ISSUE)?;
    let mut tags = tag::Writing::new(tx)?;
    for (issue, mut delta) in issues {
        let mut search_docs = delta.before.search_docs;
        for words in &delta.words {
            search::index(tx, &mut caches.words, issue, &mut search_docs, words)?;
        }
        for (start, n) in &delta.buckets {
            buckets.execute((issue, start, n))?;
        }
        let packed = delta.packed.take();
        let (packed, users) = tags.add(issue, delta.created, packed, &delta.tags)?;
        let (status, came_back) = delta.status(now);
        write_issue(
            &mut update,
            issue,
            &delta,
            status,
            came_back,
            users,
            search_docs,
        )?;
        let change = Change {
            created: delta.created,
            regressed: came_back,
            status,
            now,
        };
        applied.alerts += write_alerts(tx, caches, issue, &delta, change)?;
        let known = KnownIssue {
            row: delta.after(status, came_back, search_docs),
            tags: packed,
        };
        caches.put_issue(issue, known);
    }
    Ok(())
}

const UPDATE_ISSUE: &str =
    "UPDATE issue SET status = ?2, level = ?3, events = events + ?4, kept = kept + ?4, users = users + ?5,
         first_seen = min(first_seen, ?6), last_seen = max(last_seen, ?7),
         regressions = regressions + ?8, search_docs = ?9, title = ?10, culprit = ?11,
         platform = ?12, last_release = coalesce(?13, last_release),
         mute_until = CASE ?2 WHEN 2 THEN mute_until END,
         mute_events = CASE ?2 WHEN 2 THEN mute_events END
     WHERE id = ?1";

fn write_issue(
    update: &mut CachedStatement<'_>,
    issue: IssueId,
    delta: &IssueDelta<'_>,
    status: Status,
    came_back: bool,
    users: i64,
    search_docs: i64,
) -> Result<(), Fault> {
    let latest = delta.latest;
    let changed = update.execute((
        issue,
        status.to_number(),
        level_to_number(latest.level),
        delta.events,
        users,
        delta.first_seen,
        delta.last_seen,
        i64::from(came_back),
        search_docs,
        &latest.title,
        &latest.culprit,
        &latest.platform,
        &latest.release,
    ))?;
    // What is remembered of an issue whose row is gone must not be counted to nobody.
    match changed {
        0 => Err(rusqlite::Error::QueryReturnedNoRows.into()),
        _ => Ok(()),
    }
}

fn write_alerts(
    tx: &Transaction<'_>,
    caches: &mut Caches,
    issue: IssueId,
    delta: &IssueDelta<'_>,
    change: Change,
) -> Result<usize, Fault> {
    let project = delta.latest.project;
    let rules = match caches.rules.get(&project) {
        Some(rules) => Arc::clone(rules),
        None => {
            let rules: Arc<[AlertRule]> = rules(tx, project)?.into();
            caches.rules.insert(project, Arc::clone(&rules));
            rules
        }
    };
    let events = delta.before.events + delta.events;
    let mut past = Past {
        tx,
        caches,
        issue,
        events,
        now: change.now,
    };
    let due = due(&rules, change, &mut past)?;
    for rule in &due {
        let window = match rule.kind {
            AlertKind::NewIssue => 0,
            AlertKind::Regression => delta.before.regressions + 1,
            AlertKind::Frequency { .. } => change.now.micros(),
        };
        tx.prepare_cached(
            "INSERT INTO outbox (project, issue, rule, kind, window, event, events, created, next_attempt)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) ON CONFLICT DO NOTHING",
        )?
        .execute((
            project,
            issue,
            rule.id,
            kind_number(rule.kind),
            window,
            delta.latest.event_id.as_bytes(),
            events,
            change.now.micros(),
        ))?;
        caches.told.insert((issue, rule.id), Some(change.now));
    }
    Ok(due.len())
}

/// Answers the questions of the rules, as far as possible from memory.
struct Past<'a, 'tx> {
    tx: &'a Transaction<'tx>,
    caches: &'a mut Caches,
    issue: IssueId,
    events: i64,
    now: Timestamp,
}

impl History for Past<'_, '_> {
    type Error = Fault;

    fn reaches(&mut self, events: u32, minutes: u32) -> Result<bool, Fault> {
        let wanted = i64::from(events);
        let key = (self.issue, minutes);
        if let Some(known) = self.caches.frequencies.get(&key)
            // Since the sum was taken no more can have come than the issue has grown by.
            && known.sum + (self.events - known.events_then) < wanted
        {
            return Ok(false);
        }
        let sum: i64 = self
            .tx
            .prepare_cached("SELECT coalesce(sum(n), 0) FROM bucket WHERE issue = ? AND start > ?")?
            .query_row(
                (self.issue, minute_of(self.now) - i64::from(minutes)),
                |row| row.get(0),
            )?;
        let known = Frequency {
            events_then: self.events,
            sum,
        };
        self.caches.frequencies.insert(key, known);
        Ok(sum >= wanted)
    }

    fn last_told(&mut self, rule: &AlertRule) -> Result<Option<Timestamp>, Fault> {
        let key = (self.issue, rule.id);
        if let Some(told) = self.caches.told.get(&key) {
            return Ok(*told);
        }
        let told = self
            .tx
            .prepare_cached("SELECT max(window) FROM outbox WHERE issue = ? AND rule = ?")?
            .query_row((self.issue, rule.id), |row| row.get::<_, Option<i64>>(0))?
            .map(Timestamp::from_micros);
        self.caches.told.insert(key, told);
        Ok(told)
    }
}

fn write_projects(
    tx: &Transaction<'_>,
    buckets: &BTreeMap<(ProjectId, i64), i64>,
    outcomes: &BTreeMap<(ProjectId, Option<Key>, i64, &'static str), u64>,
) -> Result<(), Fault> {
    for ((project, start), n) in buckets {
        tx.prepare_cached(
            "INSERT INTO project_bucket (project, start, n) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET n = n + excluded.n",
        )?
        .execute((project, start, n))?;
        tx.prepare_cached(
            "INSERT INTO project_count (project, events) VALUES (?, ?)
             ON CONFLICT DO UPDATE SET events = events + excluded.events",
        )?
        .execute((project, n))?;
    }
    for ((project, key, day, reason), n) in outcomes {
        outcome::count(tx, *project, *key, *day, reason, *n)?;
    }
    Ok(())
}
