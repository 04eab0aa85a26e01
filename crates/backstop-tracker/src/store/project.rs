//! Projects and the keys of their DSNs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstop_protocol::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction};

use super::error::{Error, ErrorKind, Fault};
use super::{Store, project_from_sql};
use crate::model::{AlertKind, Key, KeyOwner, NewProject, Project, ProjectId, ProjectKey};

/// The organization of people who do not think in organizations.
const ORGANIZATION_DEFAULT: &str = "main";

/// Names in URLs longer than this break mails.
const SLUG_CHARS_MAX: usize = 50;

/// A switched-off key or a changed setting counts after this time at the latest.
const KEY_KNOWN_FOR: Duration = Duration::from_secs(1);

/// Enough for every project of a big installation; beyond it the store is asked again.
const KEYS_KNOWN_MAX: usize = 10_000;

/// A storm this size is worth a second mail.
const FREQUENCY_DEFAULT: AlertKind = AlertKind::Frequency {
    events: 100,
    minutes: 60,
};

impl Store {
    /// Makes a project with one key and the usual alert rules.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Conflict`]: the number, the key or the name is taken.
    /// - [`ErrorKind::Invalid`]: a name has no letter or digit, or the number is 0.
    pub fn create_project(&self, wish: &NewProject, now: Timestamp) -> Result<Project, Error> {
        let slug = slug_of(wish.slug.as_deref().unwrap_or(&wish.name))?;
        let organization = slug_of(wish.organization.as_deref().unwrap_or(ORGANIZATION_DEFAULT))?;
        if wish.id == Some(ProjectId(0)) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a project's number is at least 1",
            ));
        }
        self.write_known(|tx| {
            refuse_taken(tx, wish, &organization, &slug)?;
            let organization_id = organization_id(tx, &organization, now)?;
            let id = match wish.id {
                Some(id) => id,
                None => next_id(tx)?,
            };
            tx.execute(
                "INSERT INTO project (id, organization, slug, name, platform, created) VALUES (?, ?, ?, ?, ?, ?)",
                (id, organization_id, &slug, &wish.name, &wish.platform, now.micros()),
            )?;
            tx.execute("INSERT INTO project_count (project) VALUES (?)", [id])?;
            insert_key(tx, id, wish.key.unwrap_or_else(Key::random), wish.secret, now)?;
            for kind in [AlertKind::NewIssue, AlertKind::Regression, FREQUENCY_DEFAULT] {
                super::alert::insert_rule(tx, id, kind)?;
            }
            one_project(tx, id)
        })
    }

    /// Lists all projects by organization and name.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn projects(&self) -> Result<Vec<Project>, Error> {
        self.read(|tx| {
            let mut projects = tx
                .prepare_cached(
                    "SELECT p.id, o.slug, p.slug, p.name, p.platform, p.settings, p.created
                     FROM project p JOIN organization o ON o.id = p.organization
                     ORDER BY o.slug, p.slug",
                )?
                .query_map([], project_of_row)?
                .collect::<Result<Vec<_>, _>>()?;
            for project in &mut projects {
                project.keys = keys(tx, project.id)?;
            }
            Ok(projects)
        })
    }

    /// Finds a project by its number.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn project(&self, id: ProjectId) -> Result<Project, Error> {
        self.read(|tx| one_project(tx, id))
    }

    /// Finds a project by the names in a URL; instead of the project's name its number will do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn project_by_slug(&self, organization: &str, project: &str) -> Result<Project, Error> {
        self.read(|tx| {
            let by_slug = tx
                .prepare_cached(
                    "SELECT p.id FROM project p JOIN organization o ON o.id = p.organization
                     WHERE o.slug = ?1 AND (p.slug = ?2 OR p.id = ?3)
                     ORDER BY p.slug = ?2 DESC LIMIT 1",
                )?
                .query_row(
                    (organization, project, project.parse().ok().map(ProjectId)),
                    |row| row.get(0),
                )
                .optional()?;
            match by_slug {
                Some(id) => one_project(tx, project_from_sql(id)),
                None => Err(no_project().into()),
            }
        })
    }

    /// Finds what a key opens; `None` if nobody has such a key.
    ///
    /// A project that another process made is seen at once; a change to a known key within
    /// a second.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn key_owner(&self, public: Key) -> Result<Option<KeyOwner>, Error> {
        if let Some(owner) = self.0.known_keys.get(public) {
            return Ok(Some(owner));
        }
        let owner = self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT k.project, k.secret, k.active, p.settings
                     FROM project_key k JOIN project p ON p.id = k.project WHERE k.public = ?",
                )?
                .query_row([public.0], |row| {
                    Ok(KeyOwner {
                        project: project_from_sql(row.get(0)?),
                        key: ProjectKey {
                            public,
                            secret: row.get::<_, Option<[u8; 16]>>(1)?.map(Key),
                            active: row.get(2)?,
                        },
                        settings: row.get(3)?,
                    })
                })
                .optional()?)
        })?;
        if let Some(owner) = &owner {
            self.0.known_keys.put(owner);
        }
        Ok(owner)
    }

    /// Adds a key to a project.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Conflict`] if the key is taken.
    pub fn add_key(
        &self,
        project: ProjectId,
        public: Option<Key>,
        now: Timestamp,
    ) -> Result<Key, Error> {
        let public = public.unwrap_or_else(Key::random);
        self.write_known(|tx| {
            one_project(tx, project)?;
            insert_key(tx, project, public, None, now)?;
            Ok(public)
        })
    }

    /// Switches a key on or off.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn set_key_active(&self, public: Key, active: bool) -> Result<(), Error> {
        self.write_known(|tx| {
            let changed = tx.execute(
                "UPDATE project_key SET active = ? WHERE public = ?",
                (active, public.0),
            )?;
            found(changed, "no such key")
        })
    }

    /// Replaces a project's settings of ingest, which are JSON text.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn set_project_settings(&self, id: ProjectId, settings: &str) -> Result<(), Error> {
        self.write_known(|tx| {
            let changed = tx.execute(
                "UPDATE project SET settings = ? WHERE id = ?",
                (settings, id),
            )?;
            found(changed, "no such project")
        })
    }

    /// Returns what grouping has learned about a project; empty if nothing.
    pub(crate) fn learned(&self, project: ProjectId) -> Result<Vec<u8>, Error> {
        self.read(|tx| {
            let learned = tx
                .prepare_cached("SELECT bytes FROM learned WHERE project = ?")?
                .query_row([project], |row| row.get(0))
                .optional()?;
            Ok(learned.unwrap_or_default())
        })
    }

    /// Replaces what grouping has learned about a project.
    pub(crate) fn set_learned(&self, project: ProjectId, bytes: &[u8]) -> Result<(), Error> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO learned (project, bytes) VALUES (?, ?)
                 ON CONFLICT DO UPDATE SET bytes = excluded.bytes",
                (project, bytes),
            )?;
            Ok(())
        })
    }
}

/// Keys that were asked for lately, because every request asks.
#[derive(Debug, Default)]
pub(super) struct KnownKeys(Mutex<HashMap<Key, (Instant, KeyOwner)>>);

impl KnownKeys {
    fn get(&self, public: Key) -> Option<KeyOwner> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, owner) = keys.get(&public)?;
        (since.elapsed() < KEY_KNOWN_FOR).then(|| owner.clone())
    }

    fn put(&self, owner: &KeyOwner) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_KNOWN_MAX {
            keys.clear();
        }
        keys.insert(owner.key.public, (Instant::now(), owner.clone()));
    }

    pub(super) fn forget(&self) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.clear();
    }
}

pub(super) fn found(changed: usize, text: &str) -> Result<(), Fault> {
    match changed {
        0 => Err(Error::new(ErrorKind::NotFound, text).into()),
        _ => Ok(()),
    }
}

fn no_project() -> Error {
    Error::new(ErrorKind::NotFound, "no such project")
}

/// Makes a name for URLs: lower-case letters, digits and single dashes.
fn slug_of(name: &str) -> Result<String, Error> {
    let mut slug = String::new();
    for letter in name.chars().flat_map(char::to_lowercase) {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= SLUG_CHARS_MAX {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    // A number alone would be taken for a project's number.
    match slug.bytes().all(|byte| byte.is_ascii_digit()) {
        true if slug.is_empty() => Err(Error::new(
            ErrorKind::Invalid,
            format!("the name {name:?} needs a letter or digit from a to z or 0 to 9"),
        )),
        true => Ok(format!("p-{slug}")),
        false => Ok(slug.to_owned()),
    }
}

fn refuse_taken(
    tx: &Transaction<'_>,
    wish: &NewProject,
    organization: &str,
    slug: &str,
) -> Result<(), Fault> {
    let taken = |text: String| Err(Error::new(ErrorKind::Conflict, text).into());
    let exists = |sql: &str, value: &dyn rusqlite::ToSql| -> rusqlite::Result<bool> {
        tx.prepare_cached(sql)?.exists([value])
    };
    if let Some(id) = wish.id
        && exists("SELECT 1 FROM project WHERE id = ?", &id)?
    {
        return taken(format!("there is already a project with the number {id}"));
    }
    if let Some(key) = wish.key
        && exists("SELECT 1 FROM project_key WHERE public = ?", &key.0)?
    {
        return taken("another project has this public key".to_owned());
    }
    let same_name = tx
        .prepare_cached(
            "SELECT 1 FROM project p JOIN organization o ON o.id = p.organization
             WHERE o.slug = ? AND p.slug = ?",
        )?
        .exists((organization, slug))?;
    if same_name {
        return taken(format!("there is already a project {organization}/{slug}"));
    }
    Ok(())
}

fn organization_id(tx: &Transaction<'_>, slug: &str, now: Timestamp) -> Result<i64, Fault> {
    tx.execute(
        "INSERT INTO organization (slug, name, created) VALUES (?1, ?1, ?2) ON CONFLICT DO NOTHING",
        (slug, now.micros()),
    )?;
    Ok(tx.query_row(
        "SELECT id FROM organization WHERE slug = ?",
        [slug],
        |row| row.get(0),
    )?)
}

/// The smallest number above all small ones: a migrated project with a huge number
/// must not push every later one behind it.
fn next_id(tx: &Transaction<'_>) -> Result<ProjectId, Fault> {
    const SMALL_MAX: i64 = 1 << 40;
    let last: i64 = tx.query_row(
        "SELECT coalesce(max(id), 0) FROM project WHERE id BETWEEN 0 AND ?",
        [SMALL_MAX],
        |row| row.get(0),
    )?;
    Ok(project_from_sql(last + 1))
}

fn insert_key(
    tx: &Transaction<'_>,
    project: ProjectId,
    public: Key,
    secret: Option<Key>,
    now: Timestamp,
) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO project_key (public, secret, project, created) VALUES (?, ?, ?, ?)",
        (public.0, secret.map(|key| key.0), project, now.micros()),
    )?;
    Ok(())
}

fn one_project(tx: &Transaction<'_>, id: ProjectId) -> Result<Project, Fault> {
    let project = tx
        .prepare_cached(
            "SELECT p.id, o.slug, p.slug, p.name, p.platform, p.settings, p.created
             FROM project p JOIN organization o ON o.id = p.organization WHERE p.id = ?",
        )?
        .query_row([id], project_of_row)
        .optional()?;
    let mut project = project.ok_or_else(no_project)?;
    project.keys = keys(tx, id)?;
    Ok(project)
}

fn project_of_row(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: project_from_sql(row.get(0)?),
        organization: row.get(1)?,
        slug: row.get(2)?,
        name: row.get(3)?,
        platform: row.get(4)?,
        settings: row.get(5)?,
        created: Timestamp::from_micros(row.get(6)?),
        keys: Vec::new(),
    })
}

fn keys(tx: &Transaction<'_>, project: ProjectId) -> Result<Vec<ProjectKey>, Fault> {
    Ok(tx
        .prepare_cached(
            "SELECT public, secret, active FROM project_key WHERE project = ? ORDER BY created, public",
        )?
        .query_map([project], |row| {
            Ok(ProjectKey {
                public: Key(row.get(0)?),
                secret: row.get::<_, Option<[u8; 16]>>(1)?.map(Key),
                active: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_urls() {
        assert_eq!(slug_of("My Shop (EU)").unwrap(), "my-shop-eu");
        assert_eq!(slug_of("Ärger & Co").unwrap(), "rger-co");
        assert_eq!(slug_of("42").unwrap(), "p-42");
        assert_eq!(slug_of("!!").unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(slug_of(&"x".repeat(99)).unwrap().len(), SLUG_CHARS_MAX);
    }
}
