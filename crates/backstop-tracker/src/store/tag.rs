//! How often the values of each tag occurred in an issue.
//!
//! The values that an issue met first are together in one row, its pack: an event then costs one
//! small row instead of one for each of its tags. Values beyond are rows of their own. A key that
//! has such rows gets no more packed values, so a value is in one place only.

use std::collections::{BTreeMap, BTreeSet};

use backstop_protocol::Timestamp;
use rusqlite::{CachedStatement, OptionalExtension, Transaction};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::{Error, Fault};
use super::issue::resolve_merged;
use crate::model::{IssueId, TagCount, TagValue};

/// Values of one tag that an issue tells apart; the others are counted together.
const VALUES_MAX: i64 = 1000;
/// Tags of one issue; clients that make up tag names fill no disk.
const KEYS_MAX: i64 = 200;
/// Values in one pack; it is read and written with every event.
const PACKED_MAX: usize = 64;
/// Packed values of one tag, so that the users of an issue leave room for its other tags.
const PACKED_PER_KEY_MAX: usize = 8;
/// Bytes of the keys and values in one pack, so that it fits into a page of the file.
const PACKED_BYTES_MAX: usize = 2048;
/// The tag whose values are the users that an issue met.
const USER: &str = "user";

/// Events, and when the last of them was, by key and value.
pub(super) type Sums<'a> = BTreeMap<(&'a str, &'a str), (i64, i64)>;

/// The values that are kept together.
#[derive(Debug, Default)]
pub(super) struct Pack {
    /// When any of them was last seen.
    seen: i64,
    values: Vec<Packed>,
    /// Whether the table has a row of it.
    has_row: bool,
}

/// A key, one of its values, its events, and how long before [`Pack::seen`] the last one was.
#[derive(Debug, Serialize, Deserialize)]
struct Packed(Box<str>, Box<str>, i64, i64);

impl Store {
    /// Returns the tags of an issue with their most frequent values.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn tags(&self, issue: IssueId, values_per_tag: usize) -> Result<Vec<TagCount>, Error> {
        self.read(|tx| {
            let issue = resolve_merged(tx, issue)?;
            let mut keys = tx.prepare_cached(
                "SELECT key, sum(n), sum(other) FROM
                     (SELECT key, n, 0 AS other FROM tag_all WHERE issue = ?1
                      UNION ALL SELECT key, 0, other FROM tag_key WHERE issue = ?1)
                 GROUP BY key ORDER BY key",
            )?;
            let mut values = tx.prepare_cached(
                "SELECT value, n, last_seen FROM tag_all WHERE issue = ? AND key = ?
                 ORDER BY n DESC, value LIMIT ?",
            )?;
            let mut tags = Vec::new();
            let mut rows = keys.query([issue])?;
            while let Some(row) = rows.next()? {
                let (key, told_apart, other): (String, u64, u64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                let values = values.query_map((issue, &key, values_per_tag as i64), |row| {
                    Ok(TagValue {
                        value: row.get(0)?,
                        count: row.get(1)?,
                        last_seen: Timestamp::from_micros(row.get(2)?),
                    })
                })?;
                tags.push(TagCount {
                    values: values.collect::<Result<_, _>>()?,
                    total: told_apart + other,
                    key,
                    other,
                });
            }
            Ok(tags)
        })
    }
}

/// Adds to tags, issue by issue.
pub(super) struct Writing<'tx> {
    tx: &'tx Transaction<'tx>,
    update: CachedStatement<'tx>,
    json: Vec<u8>,
}

impl<'tx> Writing<'tx> {
    pub(super) fn new(tx: &'tx Transaction<'tx>) -> Result<Writing<'tx>, Fault> {
        let update =
            tx.prepare_cached("UPDATE tag_pack SET seen = ?2, body = ?3 WHERE issue = ?1")?;
        Ok(Writing {
            tx,
            update,
            json: Vec::new(),
        })
    }

    /// Adds to the tags of an issue; returns how many users are new.
    ///
    /// `pack` is what this returned the last time, if nothing else changed the issue's tags since.
    /// An issue that was just created has none yet.
    pub(super) fn add(
        &mut self,
        issue: IssueId,
        created: bool,
        pack: Option<Pack>,
        sums: &Sums<'_>,
    ) -> Result<(Pack, i64), Fault> {
        let mut apart = Apart {
            tx: self.tx,
            issue,
            keys: created.then_some(0),
        };
        let mut pack = match pack {
            Some(pack) => pack,
            None if created => Pack::default(),
            None => match read(self.tx, issue)? {
                Some((seen, body)) => Pack::parse(seen, &body, issue),
                None => apart.pack()?,
            },
        };
        let mut users = 0;
        for (&(key, value), &(n, seen)) in sums {
            if pack.add(key, value, n, seen) {
                continue;
            }
            let is_new = match pack.fits(key, value) && !apart.has(key)? {
                true => {
                    let room = pack.has(key) || apart.has_room_for_a_key(&pack)?;
                    if room {
                        pack.insert(key, value, n, seen);
                    }
                    room
                }
                false => apart.add(&pack, key, value, n, seen)?,
            };
            users += i64::from(is_new && key == USER);
        }
        self.write(issue, &mut pack)?;
        Ok((pack, users))
    }

    fn write(&mut self, issue: IssueId, pack: &mut Pack) -> Result<(), Fault> {
        self.json.clear();
        serde_json::to_writer(&mut self.json, &pack.values).expect("texts and numbers, to memory");
        let body = str::from_utf8(&self.json).expect("JSON is text");
        if pack.has_row && self.update.execute((issue, pack.seen, body))? > 0 {
            return Ok(());
        }
        // One may be left of an issue that was lost to damage.
        self.tx
            .prepare_cached("INSERT OR REPLACE INTO tag_pack (issue, seen, body) VALUES (?, ?, ?)")?
            .execute((issue, pack.seen, body))?;
        pack.has_row = true;
        Ok(())
    }
}

/// Removes all tags of an issue.
pub(super) fn forget(tx: &Transaction<'_>, issue: IssueId) -> Result<(), Fault> {
    for table in ["tag", "tag_key", "tag_pack"] {
        tx.execute(&format!("DELETE FROM {table} WHERE issue = ?"), [issue])?;
    }
    Ok(())
}

/// Adds the tags of an issue to those of another one.
pub(super) fn merge(tx: &Transaction<'_>, into: IssueId, other: IssueId) -> Result<(), Fault> {
    unpack(tx, into)?;
    unpack(tx, other)?;
    let both = (into, other);
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
    forget(tx, other)?;
    count_values(tx, into)
}

/// Takes tags away from an issue; returns how many users it has no more.
pub(super) fn take(tx: &Transaction<'_>, issue: IssueId, sums: &Sums<'_>) -> Result<usize, Fault> {
    unpack(tx, issue)?;
    for ((key, value), (n, _)) in sums {
        let told_apart = tx
            .prepare_cached("UPDATE tag SET n = n - ? WHERE issue = ? AND key = ? AND value = ?")?
            .execute((n, issue, key, value))?;
        if told_apart == 0 {
            tx.prepare_cached(
                "UPDATE tag_key SET other = max(0, other - ?) WHERE issue = ? AND key = ?",
            )?
            .execute((n, issue, key))?;
        }
    }
    let gone = tx.execute(
        "DELETE FROM tag WHERE issue = ? AND key = ? AND n <= 0",
        (issue, USER),
    )?;
    tx.execute("DELETE FROM tag WHERE issue = ? AND n <= 0", [issue])?;
    count_values(tx, issue)?;
    Ok(gone)
}

/// Makes rows of a pack, for statements over all tags of an issue; its next event packs them again.
fn unpack(tx: &Transaction<'_>, issue: IssueId) -> Result<(), Fault> {
    let Some((seen, body)) = read(tx, issue)? else {
        return Ok(());
    };
    tx.execute("DELETE FROM tag_pack WHERE issue = ?", [issue])?;
    let pack = Pack::parse(seen, &body, issue);
    for Packed(key, value, n, before) in &pack.values {
        insert_row(tx, issue, key, value, *n, seen.saturating_sub(*before))?;
    }
    Ok(())
}

fn insert_row(
    tx: &Transaction<'_>,
    issue: IssueId,
    key: &str,
    value: &str,
    n: i64,
    seen: i64,
) -> Result<(), Fault> {
    tx.prepare_cached("INSERT INTO tag (issue, key, value, n, last_seen) VALUES (?, ?, ?, ?, ?)")?
        .execute((issue, key, value, n, seen))?;
    count_key(tx, issue, key, 1, 0)
}

/// Adds to the values of a key that have rows, and to the events whose value found no room.
fn count_key(
    tx: &Transaction<'_>,
    issue: IssueId,
    key: &str,
    values: i64,
    other: i64,
) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO tag_key (issue, key, distinct_values, other) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET distinct_values = distinct_values + excluded.distinct_values,
                                   other = other + excluded.other",
    )?
    .execute((issue, key, values, other))?;
    Ok(())
}

fn count_values(tx: &Transaction<'_>, issue: IssueId) -> Result<(), Fault> {
    tx.execute(
        "UPDATE tag_key SET distinct_values =
             (SELECT count(*) FROM tag t WHERE t.issue = tag_key.issue AND t.key = tag_key.key)
         WHERE issue = ?",
        [issue],
    )?;
    Ok(())
}

fn read(tx: &Transaction<'_>, issue: IssueId) -> Result<Option<(i64, String)>, Fault> {
    Ok(tx
        .prepare_cached("SELECT seen, body FROM tag_pack WHERE issue = ?")?
        .query_row([issue], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

impl Pack {
    /// Says how many values it has.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    fn parse(seen: i64, body: &str, issue: IssueId) -> Pack {
        let values = serde_json::from_str(body).unwrap_or_else(|error| {
            // `check` finds it, too. The event is worth more than the counts of its tags; those of
            // its users who come again count once more.
            tracing::error!(%issue, %error, "the tags of an issue are damaged; they are counted anew");
            Vec::new()
        });
        Pack {
            seen,
            values,
            has_row: true,
        }
    }

    /// Adds to a value; false if it is not here.
    fn add(&mut self, key: &str, value: &str, n: i64, seen: i64) -> bool {
        let Some(at) = self
            .values
            .iter()
            .position(|v| &*v.0 == key && &*v.1 == value)
        else {
            return false;
        };
        self.see(seen);
        let packed = &mut self.values[at];
        packed.2 += n;
        packed.3 = packed.3.min(self.seen.saturating_sub(seen));
        true
    }

    fn insert(&mut self, key: &str, value: &str, n: i64, seen: i64) {
        self.see(seen);
        let before = self.seen.saturating_sub(seen);
        self.values
            .push(Packed(key.into(), value.into(), n, before));
    }

    /// Notes a time that may be later than all before.
    fn see(&mut self, seen: i64) {
        if self.values.is_empty() {
            self.seen = seen;
        }
        let later = seen.saturating_sub(self.seen);
        if later > 0 {
            self.seen = seen;
            for packed in &mut self.values {
                packed.3 = packed.3.saturating_add(later);
            }
        }
    }

    fn has(&self, key: &str) -> bool {
        self.values.iter().any(|packed| &*packed.0 == key)
    }

    fn of_key(&self, key: &str) -> usize {
        self.values
            .iter()
            .filter(|packed| &*packed.0 == key)
            .count()
    }

    fn keys(&self) -> BTreeSet<&str> {
        self.values.iter().map(|packed| &*packed.0).collect()
    }

    fn fits(&self, key: &str, value: &str) -> bool {
        let bytes = |key: &str, value: &str| key.len() + value.len();
        let used: usize = self.values.iter().map(|v| bytes(&v.0, &v.1)).sum();
        self.values.len() < PACKED_MAX
            && self.of_key(key) < PACKED_PER_KEY_MAX
            && used + bytes(key, value) <= PACKED_BYTES_MAX
            // SQLite's JSON ends a text there.
            && !key.contains('\0')
            && !value.contains('\0')
    }
}

/// The values of an issue that are not in its pack.
struct Apart<'a> {
    tx: &'a Transaction<'a>,
    issue: IssueId,
    /// How many keys have rows, once it is known.
    keys: Option<i64>,
}

impl Apart<'_> {
    fn keys(&mut self) -> Result<i64, Fault> {
        if let Some(keys) = self.keys {
            return Ok(keys);
        }
        let keys = self
            .tx
            .prepare_cached("SELECT count(*) FROM tag_key WHERE issue = ?")?
            .query_row([self.issue], |row| row.get(0))?;
        self.keys = Some(keys);
        Ok(keys)
    }

    fn has(&mut self, key: &str) -> Result<bool, Fault> {
        Ok(self.keys()? > 0 && self.values(key)?.is_some())
    }

    fn values(&self, key: &str) -> Result<Option<i64>, Fault> {
        Ok(self
            .tx
            .prepare_cached("SELECT distinct_values FROM tag_key WHERE issue = ? AND key = ?")?
            .query_row((self.issue, key), |row| row.get(0))
            .optional()?)
    }

    /// Says whether the issue may have one more key.
    fn has_room_for_a_key(&mut self, pack: &Pack) -> Result<bool, Fault> {
        let packed = pack.keys();
        if self.keys()? + (packed.len() as i64) < KEYS_MAX {
            return Ok(true);
        }
        // Some may have been counted twice.
        let mut all: BTreeSet<String> = packed.into_iter().map(str::to_owned).collect();
        let mut keys = self
            .tx
            .prepare_cached("SELECT key FROM tag_key WHERE issue = ?")?;
        for key in keys.query_map([self.issue], |row| row.get(0))? {
            all.insert(key?);
        }
        Ok((all.len() as i64) < KEYS_MAX)
    }

    /// Adds to a value that is not in the pack; says whether it is new and was given room.
    fn add(
        &mut self,
        pack: &Pack,
        key: &str,
        value: &str,
        n: i64,
        seen: i64,
    ) -> Result<bool, Fault> {
        let known = self
            .tx
            .prepare_cached(
                "UPDATE tag SET n = n + ?, last_seen = max(last_seen, ?)
                 WHERE issue = ? AND key = ? AND value = ?",
            )?
            .execute((n, seen, self.issue, key, value))?;
        if known > 0 {
            return Ok(false);
        }
        let values = self.values(key)?;
        if values.is_none() && !pack.has(key) && !self.has_room_for_a_key(pack)? {
            return Ok(false);
        }
        self.keys = None;
        let values = values.unwrap_or_default() + pack.of_key(key) as i64;
        if values >= VALUES_MAX {
            count_key(self.tx, self.issue, key, 0, n)?;
            return Ok(false);
        }
        insert_row(self.tx, self.issue, key, value, n, seen)?;
        Ok(true)
    }

    /// Packs what has rows: of an issue from before there were packs, or after a merge.
    fn pack(&mut self) -> Result<Pack, Fault> {
        let mut pack = Pack::default();
        let mut rows = self.tx.prepare_cached(
            "SELECT key, value, n, last_seen FROM
                 (SELECT *, row_number() OVER (PARTITION BY key ORDER BY n DESC) AS place
                  FROM tag WHERE issue = ?)
             WHERE place <= ? ORDER BY n DESC LIMIT ?",
        )?;
        let limits = (PACKED_PER_KEY_MAX as i64, PACKED_MAX as i64);
        let rows = rows.query_map((self.issue, limits.0, limits.1), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        let rows: Vec<(String, String, i64, i64)> = rows.collect::<Result<_, _>>()?;
        for (key, value, n, seen) in rows {
            if !pack.fits(&key, &value) {
                continue;
            }
            pack.insert(&key, &value, n, seen);
            self.tx
                .prepare_cached("DELETE FROM tag WHERE issue = ? AND key = ? AND value = ?")?
                .execute((self.issue, &key, &value))?;
            count_key(self.tx, self.issue, &key, -1, 0)?;
        }
        self.tx
            .prepare_cached(
                "DELETE FROM tag_key WHERE issue = ? AND distinct_values = 0 AND other = 0",
            )?
            .execute([self.issue])?;
        self.keys = None;
        Ok(pack)
    }
}
