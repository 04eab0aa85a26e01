//! Is everything there, and does everything agree?
//!
//! Every number is held twice on purpose (an issue's count and the sum of its buckets, a
//! project's count and the sum of its issues), so that damage shows as a difference.

use std::collections::HashSet;
use std::fmt;

use backstop_protocol::EventId;
use rusqlite::Transaction;

use super::Store;
use super::apply::Caches;
use super::error::{Error, Fault};
use super::fresh::Fresh;
use super::generation;
use super::maintain::{Body, delete_body};
use super::project_from_sql;
use crate::codec::{Codec, Dictionary};

/// More findings of one kind say nothing new.
const FINDINGS_MAX: usize = 100;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// What is wrong; empty means that all is well.
    pub findings: Vec<Finding>,
    /// Events counted over all projects.
    pub events: u64,
    /// Bodies that are kept, each of which was read.
    pub bodies: u64,
    /// Issues.
    pub issues: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in words for people.
    pub what: String,
    /// What becomes of it.
    pub remedy: Remedy,
}

/// What becomes of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// `backstop check --mend` can mend it.
    Mendable,
    /// It was mended.
    Mended,
    /// Only a backup helps.
    Restore,
}

impl CheckReport {
    /// Says whether nothing is wrong any more.
    pub fn is_clean(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.remedy == Remedy::Mended)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.remedy {
            Remedy::Mendable => "can be mended with --mend",
            Remedy::Mended => "mended",
            Remedy::Restore => "restore a backup",
        };
        write!(f, "{} ({remedy})", self.what)
    }
}

impl Store {
    /// Checks pages, references, sums and every body; mends what can be mended if `mend` is set.
    ///
    /// Reads the whole file. Without `mend` it only reads, and a server may go on writing.
    ///
    /// # Errors
    ///
    /// If the file cannot be read at all.
    pub fn check(&self, mend: bool) -> Result<CheckReport, Error> {
        if mend {
            self.mend_indexes()?;
            let mut writer = self.0.writer.lock();
            return Ok(writer.transaction(|tx, caches| {
                *caches = Caches::default();
                check(tx, true)
            })?);
        }
        // The connection is its own, because a check may run for minutes.
        let mut connection = self.0.opening.reader()?;
        let transaction = connection.transaction().map_err(Fault::from)?;
        Ok(check(&transaction, false)?)
    }

    /// An index can be made anew from its table.
    fn mend_indexes(&self) -> Result<(), Error> {
        let sound = self.read(|tx| Ok(page_findings(tx)?.is_empty()))?;
        if !sound {
            let mut writer = self.0.writer.lock();
            let connection = writer.connection();
            // A damaged table makes this fail; the check then says what is left.
            if let Err(error) = connection.execute_batch("REINDEX") {
                tracing::warn!(%error, "the indexes could not be made anew");
            }
        }
        Ok(())
    }
}

fn check(tx: &Transaction<'_>, mend: bool) -> Result<CheckReport, Fault> {
    let mut report = CheckReport::default();
    let pages = page_findings(tx)?;
    if !pages.is_empty() {
        // Sums over damaged pages would only repeat the message.
        report.findings = pages;
        return Ok(report);
    }
    for rule in RULES {
        rule.check(tx, mend, &mut report)?;
    }
    check_bodies(tx, mend, &mut report)?;
    check_ids(tx, mend, &mut report)?;
    for sum in SUMS {
        sum.check(tx, mend, &mut report)?;
    }
    let one = |sql: &str| tx.query_row(sql, [], |row| row.get::<_, u64>(0));
    report.events = one("SELECT coalesce(sum(events), 0) FROM project_count")?;
    report.bodies = one("SELECT count(*) FROM event")?;
    report.issues = one("SELECT count(*) FROM issue")?;
    Ok(report)
}

impl CheckReport {
    fn add(&mut self, mend: bool, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            let remedy = if mend {
                Remedy::Mended
            } else {
                Remedy::Mendable
            };
            self.findings.push(Finding { what, remedy });
        }
    }
}

/// What SQLite says of its pages; empty if they are sound.
fn page_findings(tx: &Transaction<'_>) -> Result<Vec<Finding>, Fault> {
    let mut statement = tx.prepare("PRAGMA integrity_check(20)")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0));
    let lines = match lines.and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(lines) => lines,
        Err(error) => vec![error.to_string()],
    };
    Ok(lines
        .into_iter()
        .filter(|line| line != "ok")
        .map(|line| {
            let of_index = line.contains("missing from index")
                || line.contains("wrong # of entries in index")
                || line.contains("non-unique entry in index");
            Finding {
                remedy: if of_index {
                    Remedy::Mendable
                } else {
                    Remedy::Restore
                },
                what: format!("damaged page: {line}"),
            }
        })
        .collect())
}

/// Something that must be true: `count` counts what breaks it.
struct Rule {
    what: &'static str,
    count: &'static str,
    /// `None` where nothing tells what was right.
    mend: Option<&'static str>,
}

impl Rule {
    fn check(
        &self,
        tx: &Transaction<'_>,
        mend: bool,
        report: &mut CheckReport,
    ) -> Result<(), Fault> {
        let rows: u64 = tx.query_row(self.count, [], |row| row.get(0))?;
        if rows > 0 {
            match self.mend {
                Some(statements) => {
                    if mend {
                        tx.execute_batch(statements)?;
                    }
                    report.add(mend, format!("{rows} {}", self.what));
                }
                None => report.findings.push(Finding {
                    what: format!("{rows} {}", self.what),
                    remedy: Remedy::Restore,
                }),
            }
        }
        Ok(())
    }
}

/// Rows that point to nothing.
const RULES: &[Rule] = &[
    Rule {
        what: "issues of no project",
        count: "SELECT count(*) FROM issue WHERE project NOT IN (SELECT id FROM project)",
        mend: Some("DELETE FROM issue WHERE project NOT IN (SELECT id FROM project)"),
    },
    Rule {
        what: "events of no issue, or of an issue of another project",
        count: "SELECT count(*) FROM event e LEFT JOIN issue i ON i.id = e.issue WHERE i.project IS NOT e.project",
        mend: Some(
            "DELETE FROM event WHERE seq IN (SELECT e.seq FROM event e LEFT JOIN issue i ON i.id = e.issue WHERE i.project IS NOT e.project)",
        ),
    },
    Rule {
        what: "group hashes of no issue",
        count: "SELECT count(*) FROM issue_hash WHERE issue NOT IN (SELECT id FROM issue)",
        mend: Some("DELETE FROM issue_hash WHERE issue NOT IN (SELECT id FROM issue)"),
    },
    Rule {
        what: "buckets of no issue",
        count: "SELECT count(*) FROM bucket WHERE issue NOT IN (SELECT id FROM issue)",
        mend: Some("DELETE FROM bucket WHERE issue NOT IN (SELECT id FROM issue)"),
    },
    Rule {
        what: "tags of no issue",
        count: "SELECT (SELECT count(*) FROM tag_key WHERE issue NOT IN (SELECT id FROM issue))
                     + (SELECT count(*) FROM tag_pack WHERE issue NOT IN (SELECT id FROM issue))",
        mend: Some(
            "DELETE FROM tag_key WHERE issue NOT IN (SELECT id FROM issue);
               DELETE FROM tag WHERE issue NOT IN (SELECT id FROM issue);
               DELETE FROM tag_pack WHERE issue NOT IN (SELECT id FROM issue)",
        ),
    },
    Rule {
        what: "alerts about no issue",
        count: "SELECT count(*) FROM outbox WHERE issue NOT IN (SELECT id FROM issue)",
        mend: Some("DELETE FROM outbox WHERE issue NOT IN (SELECT id FROM issue)"),
    },
    Rule {
        what: "issues merged into no issue",
        count: "SELECT count(*) FROM issue_merged WHERE into_issue NOT IN (SELECT id FROM issue)",
        mend: Some("DELETE FROM issue_merged WHERE into_issue NOT IN (SELECT id FROM issue)"),
    },
    Rule {
        what: "damaged rows of event ids",
        count: "SELECT count(*) FROM event_id_fresh WHERE length(ids) % 40 <> 0",
        // Those whose events are still there are noted again below.
        mend: Some("DELETE FROM event_id_fresh WHERE length(ids) % 40 <> 0"),
    },
    Rule {
        what: "sketches of no issue",
        count: "SELECT (SELECT count(*) FROM sketch WHERE issue NOT IN (SELECT id FROM issue))
                     + (SELECT count(*) FROM sketch_function WHERE issue NOT IN (SELECT issue FROM sketch))",
        mend: Some(
            "DELETE FROM sketch WHERE issue NOT IN (SELECT id FROM issue);
               DELETE FROM sketch_function WHERE issue NOT IN (SELECT issue FROM sketch)",
        ),
    },
    Rule {
        what: "issues without a group hash",
        count: "SELECT count(*) FROM issue WHERE id NOT IN (SELECT issue FROM issue_hash)",
        // Such an issue gets no events any more; what it has can still be read.
        mend: None,
    },
];

/// The condition for a pack of tags that is no list of key, value and two numbers.
macro_rules! damaged_pack {
    () => {
        "CASE WHEN NOT json_valid(body) THEN 1 WHEN json_type(body) <> 'array' THEN 1
         ELSE EXISTS (SELECT 1 FROM json_each(body) j WHERE
             CASE j.type WHEN 'array' THEN
                 coalesce(json_type(j.value, '$[0]'), '') <> 'text'
                 OR coalesce(json_type(j.value, '$[1]'), '') <> 'text'
                 OR coalesce(json_type(j.value, '$[2]'), '') <> 'integer'
                 OR coalesce(json_type(j.value, '$[3]'), '') <> 'integer'
             ELSE 1 END) END"
    };
}

/// Two ways to the same number. The order matters: each mend may rely on those before it.
const SUMS: &[Rule] = &[
    Rule {
        what: "issues whose count differs from the sum of their buckets",
        count: "SELECT count(*) FROM issue i WHERE i.events <> (SELECT coalesce(sum(n), 0) FROM bucket b WHERE b.issue = i.id)",
        // Neither number can be too large, so the larger one is right.
        mend: Some("INSERT INTO bucket (issue, start, n)
                 SELECT i.id, i.last_seen / 60000000, i.events - coalesce(sum(b.n), 0)
                 FROM issue i LEFT JOIN bucket b ON b.issue = i.id
                 GROUP BY i.id HAVING i.events > coalesce(sum(b.n), 0)
                 ON CONFLICT DO UPDATE SET n = n + excluded.n;
               UPDATE issue SET events = (SELECT coalesce(sum(n), 0) FROM bucket b WHERE b.issue = issue.id)"),
    },
    Rule {
        what: "projects whose count differs from the sum of their issues",
        count: "SELECT count(*) FROM project_count c WHERE c.events <> (SELECT coalesce(sum(events), 0) FROM issue i WHERE i.project = c.project)",
        mend: Some("UPDATE project_count SET events = (SELECT coalesce(sum(events), 0) FROM issue i WHERE i.project = project_count.project)"),
    },
    Rule {
        what: "projects whose count differs from the sum of their buckets",
        count: "SELECT count(*) FROM project_count c WHERE c.events <> (SELECT coalesce(sum(n), 0) FROM project_bucket b WHERE b.project = c.project)",
        mend: Some("DELETE FROM project_bucket;
               INSERT INTO project_bucket (project, start, n)
                 SELECT i.project, b.start, sum(b.n) FROM bucket b JOIN issue i ON i.id = b.issue GROUP BY i.project, b.start"),
    },
    Rule {
        what: "issues whose number of kept bodies is wrong",
        count: "SELECT count(*) FROM issue i WHERE i.kept <> (SELECT count(*) FROM event e WHERE e.issue = i.id)",
        mend: Some("UPDATE issue SET kept = (SELECT count(*) FROM event e WHERE e.issue = issue.id)"),
    },
    Rule {
        what: "issues with fewer events than kept bodies",
        count: "SELECT count(*) FROM issue WHERE events < kept",
        mend: None,
    },
    Rule {
        what: "wrong sum of the sizes of all bodies",
        count: "SELECT count(*) FROM statistic WHERE name = 'body_bytes' AND value <> (SELECT coalesce(sum(length(body)), 0) FROM event)",
        mend: Some("UPDATE statistic SET value = (SELECT coalesce(sum(length(body)), 0) FROM event) WHERE name = 'body_bytes'"),
    },
    Rule {
        what: "issues whose tags cannot be read",
        count: concat!("SELECT count(*) FROM tag_pack WHERE ", damaged_pack!()),
        // They are counted anew.
        mend: Some(concat!("DELETE FROM tag_pack WHERE ", damaged_pack!())),
    },
    Rule {
        what: "tags whose number of values is wrong",
        count: "SELECT count(*) FROM tag_key k WHERE k.distinct_values <> (SELECT count(*) FROM tag t WHERE t.issue = k.issue AND t.key = k.key)",
        mend: Some("UPDATE tag_key SET distinct_values = (SELECT count(*) FROM tag t WHERE t.issue = tag_key.issue AND t.key = tag_key.key)"),
    },
    Rule {
        what: "tags that more events have than their issue has",
        count: "SELECT count(*) FROM
                  (SELECT issue, key, sum(n) AS n
                   FROM (SELECT issue, key, n FROM tag_all UNION ALL SELECT issue, key, other FROM tag_key)
                   GROUP BY issue, key) t JOIN issue i ON i.id = t.issue
                WHERE i.events < t.n",
        mend: None,
    },
    Rule {
        what: "projects whose accepted events differ from their count",
        count: "SELECT count(*) FROM project_count c WHERE c.events <> (SELECT coalesce(sum(n), 0) FROM outcome o WHERE o.project = c.project AND o.reason = 'accepted')",
        mend: None,
    },
];

/// Reads every body and compares its checksum.
fn check_bodies(tx: &Transaction<'_>, mend: bool, report: &mut CheckReport) -> Result<(), Fault> {
    let dictionaries = check_dictionaries(tx, report)?;
    let mut damaged = Vec::new();
    let mut statement =
        tx.prepare("SELECT seq, id, project, number, sum, dictionary, body FROM event")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = EventId::from_bytes(row.get(1)?);
        let bytes = row.get_ref(6)?.as_blob().unwrap_or_default();
        let readable = match row.get::<_, Option<u32>>(5)? {
            Some(dictionary) => dictionaries.contains(&dictionary),
            None => true,
        };
        if !readable || Codec::sum(id, bytes) != row.get::<_, u32>(4)? {
            damaged.push(Body {
                seq: row.get(0)?,
                number: row.get(3)?,
                bytes: bytes.len() as i64,
                id,
                project: project_from_sql(row.get(2)?),
            });
        }
    }
    for body in damaged {
        report.add(
            mend,
            format!(
                "the body of event {} is damaged and will be dropped; counts stay",
                body.id
            ),
        );
        if mend {
            delete_body(tx, &body)?;
        }
    }
    Ok(())
}

/// Returns the dictionaries that are sound.
fn check_dictionaries(
    tx: &Transaction<'_>,
    report: &mut CheckReport,
) -> Result<HashSet<u32>, Fault> {
    let mut sound = HashSet::new();
    let mut statement =
        tx.prepare("SELECT id, sum, bytes FROM dictionary WHERE length(bytes) > 0")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, sum): (u32, u32) = (row.get(0)?, row.get(1)?);
        let dictionary = Dictionary::new(id, row.get(2)?);
        if dictionary.is_some_and(|dictionary| dictionary.sum() == sum) {
            sound.insert(id);
        } else {
            report.findings.push(Finding {
                what: format!(
                    "the dictionary {id} is damaged, and with it every body that needs it"
                ),
                remedy: Remedy::Restore,
            });
        }
    }
    Ok(sound)
}

/// Every kept event is found by its id.
fn check_ids(tx: &Transaction<'_>, mend: bool, report: &mut CheckReport) -> Result<(), Fault> {
    let generations = generation::Generations::read(tx)?;
    let fresh = Fresh::read(tx)?;
    let mut statement = tx.prepare("SELECT id, project, seq, issue FROM event")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = EventId::from_bytes(row.get(0)?);
        let (project, seq, issue): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let project_id = project_from_sql(project);
        let found = match fresh.find(project_id, id) {
            Some(found) => Some(found),
            None => generations.find(tx, project_id, id)?,
        };
        if found.is_none_or(|found| found.seq != seq) {
            report.add(mend, format!("event {id} is not found by its id"));
            if mend {
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO event_id_kept (id, project, issue, seq) VALUES (?, ?, ?, ?)",
                )?
                .execute((id.as_bytes(), project, issue, seq))?;
            }
        }
    }
    Ok(())
}
