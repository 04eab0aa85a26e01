//! Which issues may be the same as another one: a suggestion for people, with its reason.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{OptionalExtension, Transaction};

use super::Store;
use super::error::{Error, Fault};
use super::issue::one_issue;
use crate::grouping::hint::{LIKENESS_MIN, Sketch, rarity};
use crate::model::{Issue, IssueId, ProjectId};

/// Issues that are suggested.
const HINTS_MAX: usize = 3;
/// Issues that are compared with one; those that share its rarest functions come first.
const CANDIDATES_MAX: usize = 100;
/// The latest issues of one function that are compared.
const CANDIDATES_PER_FUNCTION_MAX: i64 = 40;
/// Issues that share a function are counted up to this; beyond it a function says nothing anyway.
const COUNTED_MAX: i64 = 300;

/// An issue that may be the same as another one.
#[derive(Debug, Clone, PartialEq)]
pub struct IssueHint {
    /// The other issue.
    pub issue: Issue,
    /// How alike they are, from 0 to 1.
    pub likeness: f64,
    /// What they have in common, for people.
    pub reason: String,
}

impl Store {
    /// Suggests issues of the same project that may be the same bug, the most alike first.
    ///
    /// # Errors
    ///
    /// [`super::ErrorKind::NotFound`], or if the store cannot be read.
    pub fn issue_hints(&self, issue: IssueId) -> Result<Vec<IssueHint>, Error> {
        let issue = self.issue(issue)?;
        self.read(|tx| {
            let Some((own, apart_from)) = read(tx, issue.id)? else {
                return Ok(Vec::new());
            };
            let issues: i64 = tx
                .prepare_cached(
                    "SELECT coalesce(max(issues), 0) FROM project_count WHERE project = ?",
                )?
                .query_row([issue.project], |row| row.get(0))?;
            let mut counts = Counts {
                project: issue.project,
                issues: usize::try_from(issues).unwrap_or_default(),
                of_function: HashMap::new(),
            };
            let mut hints = Vec::new();
            for id in candidates(tx, &issue, &own, &mut counts)? {
                let Some((other, other_apart_from)) = read(tx, id)? else {
                    continue;
                };
                // People have said that these two are not the same.
                if apart_from == Some(id) || other_apart_from == Some(issue.id) {
                    continue;
                }
                for number in other.numbers() {
                    counts.count(tx, number)?;
                }
                let likeness = own.likeness(&other, |number| counts.rarity(number));
                if likeness >= LIKENESS_MIN {
                    hints.push((likeness, id, own.reason(&other)));
                }
            }
            hints.sort_by(|left, right| right.0.total_cmp(&left.0).then(right.1.cmp(&left.1)));
            hints.truncate(HINTS_MAX);
            let hints = hints.into_iter().map(|(likeness, id, reason)| {
                Ok(IssueHint {
                    issue: one_issue(tx, id)?,
                    likeness,
                    reason,
                })
            });
            hints.collect()
        })
    }
}

/// How many issues of a project pass through each function.
struct Counts {
    project: ProjectId,
    issues: usize,
    of_function: HashMap<u64, usize>,
}

impl Counts {
    fn count(&mut self, tx: &Transaction<'_>, function: u64) -> Result<usize, Fault> {
        if let Some(count) = self.of_function.get(&function) {
            return Ok(*count);
        }
        let count = tx
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM sketch_function WHERE project = ? AND function = ? LIMIT ?)",
            )?
            .query_row((self.project, function as i64, COUNTED_MAX), |row| row.get(0))?;
        self.of_function.insert(function, count);
        Ok(count)
    }

    fn rarity(&self, function: u64) -> f64 {
        let count = self.of_function.get(&function).copied();
        rarity(count.unwrap_or_default(), self.issues)
    }
}

/// The issues that share a function with one; those that share a rare one first.
fn candidates(
    tx: &Transaction<'_>,
    issue: &Issue,
    own: &Sketch,
    counts: &mut Counts,
) -> Result<Vec<IssueId>, Fault> {
    let mut functions = Vec::new();
    for number in own.numbers() {
        functions.push((counts.count(tx, number)?, number));
    }
    functions.sort_unstable();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut statement = tx.prepare_cached(
        "SELECT issue FROM sketch_function WHERE project = ? AND function = ? ORDER BY issue DESC LIMIT ?",
    )?;
    for (_, number) in functions {
        let limit = CANDIDATES_PER_FUNCTION_MAX;
        let mut rows = statement.query((issue.project, number as i64, limit))?;
        while let Some(row) = rows.next()? {
            let id = IssueId(row.get(0)?);
            if id != issue.id && found.len() < CANDIDATES_MAX && seen.insert(id) {
                found.push(id);
            }
        }
    }
    Ok(found)
}

/// Reads the sketch of an issue, and the issue that people took it out of.
fn read(tx: &Transaction<'_>, issue: IssueId) -> Result<Option<(Sketch, Option<IssueId>)>, Fault> {
    let row = tx
        .prepare_cached("SELECT body, apart_from FROM sketch WHERE issue = ?")?
        .query_row([issue], |row| {
            let apart_from: Option<i64> = row.get(1)?;
            Ok((row.get::<_, String>(0)?, apart_from.map(IssueId)))
        })
        .optional()?;
    // What a later version wrote in another form gives no hints.
    Ok(row.and_then(|(body, apart_from)| Some((serde_json::from_str(&body).ok()?, apart_from))))
}

/// Writes the sketch of an issue, in place of the one that it had.
pub(super) fn write(
    tx: &Transaction<'_>,
    project: ProjectId,
    issue: IssueId,
    sketch: &Sketch,
    apart_from: Option<IssueId>,
) -> Result<(), Fault> {
    remove(tx, project, issue)?;
    let body = serde_json::to_string(sketch).unwrap_or_default();
    tx.prepare_cached("INSERT INTO sketch (issue, body, apart_from) VALUES (?, ?, ?)")?
        .execute((issue, body, apart_from))?;
    for number in sketch.numbers() {
        tx.prepare_cached(
            "INSERT OR IGNORE INTO sketch_function (project, function, issue) VALUES (?, ?, ?)",
        )?
        .execute((project, number as i64, issue))?;
    }
    Ok(())
}

/// Removes the sketch of an issue.
pub(super) fn remove(
    tx: &Transaction<'_>,
    project: ProjectId,
    issue: IssueId,
) -> Result<(), Fault> {
    let Some((sketch, _)) = read(tx, issue)? else {
        return Ok(());
    };
    for number in sketch.numbers() {
        tx.prepare_cached(
            "DELETE FROM sketch_function WHERE project = ? AND function = ? AND issue = ?",
        )?
        .execute((project, number as i64, issue))?;
    }
    tx.prepare_cached("DELETE FROM sketch WHERE issue = ?")?
        .execute([issue])?;
    Ok(())
}
