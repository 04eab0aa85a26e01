//! Lists of issues, and what people decide about them.

use std::collections::HashSet;

use backstop_protocol::{Level, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::error::{Error, ErrorKind, Fault};
use super::project::found;
use super::{Store, project_from_sql, search};
use crate::model::{
    Cursor, Decision, Issue, IssueId, IssuePage, IssueQuery, ProjectId, Sort, Status, short_id,
};
use crate::retention::minute_of;

const LIMIT_DEFAULT: usize = 25;

/// Fewer candidates than this are read one by one, more are found while walking the list.
const CANDIDATES_READ_MAX: usize = 500;

/// A bar chart has no more bars than this.
const BUCKETS_MAX: i64 = 10_000;

impl Store {
    /// Lists issues, a page at a time.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn issues(&self, query: &IssueQuery) -> Result<IssuePage, Error> {
        let limit = match query.limit {
            0 => LIMIT_DEFAULT,
            limit => limit.min(IssueQuery::LIMIT_MAX),
        };
        self.read(|tx| {
            let candidates = search::find(tx, query)?;
            let mut places = match &candidates {
                Some(ids) if ids.len() <= CANDIDATES_READ_MAX => read_places(tx, query, ids)?,
                _ => walk_places(tx, query, candidates.as_ref(), limit)?,
            };
            places.sort_unstable_by(|left, right| right.cmp(left));
            let more = places.len() > limit;
            places.truncate(limit);
            let next = match places.last() {
                Some(&(value, issue)) if more => Some(Cursor { value, issue }),
                _ => None,
            };
            let issues = places
                .iter()
                .map(|place| one_issue(tx, IssueId(place.1)))
                .collect::<Result<_, _>>()?;
            Ok(IssuePage { issues, next })
        })
    }

    /// Finds an issue; the number of one that was merged finds the one it became part of.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn issue(&self, id: IssueId) -> Result<Issue, Error> {
        self.read(|tx| one_issue(tx, resolve_merged(tx, id)?))
    }

    /// Finds an issue by its short id, such as `SHOP-1A`, in any case of letters.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn issue_by_short_id(&self, text: &str) -> Result<Issue, Error> {
        let parsed = text.rsplit_once('-').and_then(|(slug, digits)| {
            let number = digits.chars().try_fold(0_i64, |number, digit| {
                let digit = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(digit.to_ascii_uppercase())?;
                number.checked_mul(32)?.checked_add(digit as i64)
            })?;
            Some((slug.to_lowercase(), number))
        });
        let (slug, number) = parsed.ok_or_else(no_issue)?;
        self.read(|tx| {
            let id = tx
                .prepare_cached(
                    "SELECT i.id FROM issue i JOIN project p ON p.id = i.project
                     WHERE p.slug = ? AND i.number = ? LIMIT 1",
                )?
                .query_row((slug, number), |row| row.get(0))
                .optional()?;
            one_issue(tx, IssueId(id.ok_or_else(no_issue)?))
        })
    }

    /// Writes down what people decided about an issue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn decide(&self, issue: IssueId, decision: Decision) -> Result<Issue, Error> {
        self.write_known(|tx| {
            let issue = resolve_merged(tx, issue)?;
            let (status, until, events) = match decision {
                Decision::Unresolve => (Status::Unresolved, None, None),
                Decision::Resolve => (Status::Resolved, None, None),
                Decision::Mute { until, events } => (Status::Muted, until, events),
            };
            let changed = tx
                .prepare_cached(
                    "UPDATE issue SET status = ?, mute_until = ?, mute_events = events + ? WHERE id = ?",
                )?
                .execute((
                    status.to_number(),
                    until.map(Timestamp::micros),
                    events.map(|events| i64::try_from(events).unwrap_or(i64::MAX / 2)),
                    issue,
                ))?;
            found(changed, "no such issue")?;
            one_issue(tx, issue)
        })
    }

    /// Counts events of an issue per `width` minutes, from the bucket in which `from` lies.
    ///
    /// There is a number for every bucket up to and with the one of `to`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for no width or more than 10,000 buckets.
    pub fn buckets(
        &self,
        issue: IssueId,
        from: Timestamp,
        to: Timestamp,
        width_minutes: u32,
    ) -> Result<Vec<u64>, Error> {
        const SQL: &str =
            "SELECT start, n FROM bucket WHERE issue = ? AND start >= ? AND start < ?";
        self.read(|tx| sum_buckets(tx, SQL, issue.0, from, to, width_minutes))
    }

    /// Counts events of a project per `width` minutes, as [`Store::buckets`].
    ///
    /// # Errors
    ///
    /// As [`Store::buckets`].
    pub fn project_buckets(
        &self,
        project: ProjectId,
        from: Timestamp,
        to: Timestamp,
        width_minutes: u32,
    ) -> Result<Vec<u64>, Error> {
        const SQL: &str =
            "SELECT start, n FROM project_bucket WHERE project = ? AND start >= ? AND start < ?";
        let project = super::project_to_sql(project);
        self.read(|tx| sum_buckets(tx, SQL, project, from, to, width_minutes))
    }
}

fn no_issue() -> Error {
    Error::new(ErrorKind::NotFound, "no such issue")
}

/// Follows merges; the end may be an issue that does not exist.
pub(super) fn resolve_merged(tx: &Transaction<'_>, id: IssueId) -> Result<IssueId, Fault> {
    // A merge rewrites the rows that point to what it merges, so one step is enough.
    let into = tx
        .prepare_cached("SELECT into_issue FROM issue_merged WHERE id = ?")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(into.map_or(id, IssueId))
}

pub(super) fn one_issue(tx: &Transaction<'_>, id: IssueId) -> Result<Issue, Fault> {
    let issue = tx
        .prepare_cached(
            "SELECT i.id, i.project, p.slug, o.slug, i.number, i.title, i.culprit, i.level, i.status,
                    i.mute_until, i.events, i.users, i.first_seen, i.last_seen, i.regressions,
                    i.platform, i.first_release, i.last_release, i.reason
             FROM issue i JOIN project p ON p.id = i.project JOIN organization o ON o.id = p.organization
             WHERE i.id = ?",
        )?
        .query_row([id], issue_of_row)
        .optional()?;
    issue.ok_or_else(|| no_issue().into())
}

fn issue_of_row(row: &Row<'_>) -> rusqlite::Result<Issue> {
    let project_slug: String = row.get(2)?;
    Ok(Issue {
        id: IssueId(row.get(0)?),
        project: project_from_sql(row.get(1)?),
        organization: row.get(3)?,
        short_id: short_id(&project_slug, row.get(4)?),
        project_slug,
        title: row.get(5)?,
        culprit: row.get(6)?,
        level: level_from_number(row.get(7)?),
        status: Status::from_number(row.get(8)?),
        mute_until: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_micros),
        count: row.get(10)?,
        users: row.get(11)?,
        first_seen: Timestamp::from_micros(row.get(12)?),
        last_seen: Timestamp::from_micros(row.get(13)?),
        regressions: row.get(14)?,
        platform: row.get(15)?,
        first_release: row.get(16)?,
        last_release: row.get(17)?,
        reason: row.get(18)?,
    })
}

pub(super) fn level_to_number(level: Level) -> i64 {
    match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warning => 2,
        Level::Error => 3,
        Level::Fatal => 4,
    }
}

fn level_from_number(number: i64) -> Level {
    match number {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warning,
        4 => Level::Fatal,
        _ => Level::Error,
    }
}

/// A value of the list's order and an issue's number.
type Place = (i64, i64);

fn read_places(
    tx: &Transaction<'_>,
    query: &IssueQuery,
    ids: &HashSet<i64>,
) -> Result<Vec<Place>, Fault> {
    let mut statement = tx.prepare_cached(
        "SELECT project, status, level, last_seen, first_seen, events FROM issue WHERE id = ?",
    )?;
    let mut places = Vec::new();
    for id in ids {
        let place = statement
            .query_row([id], |row| {
                let project = project_from_sql(row.get(0)?);
                let status = Status::from_number(row.get(1)?);
                let level = level_from_number(row.get(2)?);
                let value: i64 = match query.sort {
                    Sort::LastSeen => row.get(3)?,
                    Sort::FirstSeen => row.get(4)?,
                    Sort::Count => row.get(5)?,
                };
                let wanted = (query.projects.is_empty() || query.projects.contains(&project))
                    && query.status.is_none_or(|wanted| wanted == status)
                    && query.level.is_none_or(|wanted| wanted == level)
                    && query
                        .after
                        .is_none_or(|after| (value, *id) < (after.value, after.issue));
                Ok(wanted.then_some((value, *id)))
            })
            .optional()?;
        places.extend(place.flatten());
    }
    Ok(places)
}

/// Walks the index of each wanted project and status until each gave a page and one more.
fn walk_places(
    tx: &Transaction<'_>,
    query: &IssueQuery,
    candidates: Option<&HashSet<i64>>,
    limit: usize,
) -> Result<Vec<Place>, Fault> {
    let all = [Status::Unresolved, Status::Resolved, Status::Muted];
    let projects = match query.projects.is_empty() {
        true => all_projects(tx)?,
        false => query.projects.clone(),
    };
    let mut places = Vec::new();
    for project in projects {
        for status in all {
            if query.status.is_none_or(|wanted| wanted == status) {
                walk_one(tx, query, project, status, candidates, limit, &mut places)?;
            }
        }
    }
    Ok(places)
}

fn walk_one(
    tx: &Transaction<'_>,
    query: &IssueQuery,
    project: ProjectId,
    status: Status,
    candidates: Option<&HashSet<i64>>,
    limit: usize,
    places: &mut Vec<Place>,
) -> Result<(), Fault> {
    let mut statement = tx.prepare_cached(match query.sort {
        Sort::LastSeen => {
            "SELECT last_seen, id, level FROM issue INDEXED BY issue_list
             WHERE project = ? AND status = ? AND (last_seen, id) < (?, ?) ORDER BY last_seen DESC, id DESC"
        }
        Sort::FirstSeen => {
            "SELECT first_seen, id, level FROM issue INDEXED BY issue_list
             WHERE project = ? AND status = ? AND (first_seen, id) < (?, ?) ORDER BY first_seen DESC, id DESC"
        }
        Sort::Count => {
            "SELECT events, id, level FROM issue INDEXED BY issue_list
             WHERE project = ? AND status = ? AND (events, id) < (?, ?) ORDER BY events DESC, id DESC"
        }
    })?;
    let after = query
        .after
        .map_or((i64::MAX, i64::MAX), |after| (after.value, after.issue));
    let mut rows = statement.query((project, status.to_number(), after.0, after.1))?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        let place: Place = (row.get(0)?, row.get(1)?);
        let level = level_from_number(row.get(2)?);
        if query.level.is_none_or(|wanted| wanted == level)
            && candidates.is_none_or(|ids| ids.contains(&place.1))
        {
            places.push(place);
            found += 1;
        }
        if found > limit {
            break;
        }
    }
    Ok(())
}

fn all_projects(tx: &Transaction<'_>) -> Result<Vec<ProjectId>, Fault> {
    Ok(tx
        .prepare_cached("SELECT id FROM project")?
        .query_map([], |row| row.get(0).map(project_from_sql))?
        .collect::<Result<_, _>>()?)
}

fn sum_buckets(
    tx: &Transaction<'_>,
    sql: &str,
    id: i64,
    from: Timestamp,
    to: Timestamp,
    width_minutes: u32,
) -> Result<Vec<u64>, Fault> {
    let width = i64::from(width_minutes);
    if width == 0 {
        return Err(Error::new(ErrorKind::Invalid, "a bucket has at least one minute").into());
    }
    let first = minute_of(from).div_euclid(width);
    let count = minute_of(to).div_euclid(width) - first + 1;
    if count > BUCKETS_MAX {
        return Err(Error::new(ErrorKind::Invalid, "more than 10,000 buckets").into());
    }
    let mut sums = vec![0; count.max(0) as usize];
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query((id, first * width, (first + count) * width))?;
    while let Some(row) = rows.next()? {
        let at = row.get::<_, i64>(0)?.div_euclid(width) - first;
        if let Some(sum) = sums.get_mut(at as usize) {
            *sum += row.get::<_, u64>(1)?;
        }
    }
    Ok(sums)
}
