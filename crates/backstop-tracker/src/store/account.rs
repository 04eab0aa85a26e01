//! People, their sign-in, and the tokens of the web API.
//!
//! Passwords are kept as argon2id; links, sessions and tokens are random and kept as SHA-256.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use backstop_protocol::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction};
use sha2::{Digest as _, Sha256};

use super::Store;
use super::error::{Error, ErrorKind, Fault};
use super::project::found;
use crate::model::{ApiToken, Secret, User, UserId};

/// Argon2 reads all of it, so a longer one is an attack.
const PASSWORD_BYTES_MAX: usize = 1024;
pub(crate) const PASSWORD_CHARS_MIN: usize = 8;

/// A verifier for addresses that nobody has, so that a wrong address takes as long as a wrong password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

const USER_COLUMNS: &str = "SELECT id, email, name, password IS NOT NULL, created FROM user";

impl Store {
    /// Adds a user, or finds the one with this address.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is no mail address.
    pub fn create_user(&self, email: &str, name: &str, now: Timestamp) -> Result<User, Error> {
        let email = email.trim();
        // The parser of the mailer: an address that it refuses would never get a mail.
        if let Err(error) = email.parse::<lettre::Address>() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{email:?} is no mail address: {error}"),
            ));
        }
        self.write(|tx| {
            tx.execute(
                "INSERT INTO user (email, name, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (email, name, now.micros()),
            )?;
            one_user(tx, "WHERE email = ?", email)
        })
    }

    /// Lists all users by address.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn users(&self) -> Result<Vec<User>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached(&format!("{USER_COLUMNS} ORDER BY email"))?
                .query_map([], user_of_row)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// Sets a user's password and ends what could sign in without it: every session but `session`,
    /// and every sign-in link. Takes a tenth of a second on purpose.
    ///
    /// `old` is the password so far; it is not looked at if there was none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is too short or too long or the old one is wrong,
    /// [`ErrorKind::NotFound`].
    pub fn set_password(
        &self,
        user: UserId,
        old: &str,
        password: &str,
        session: Option<&str>,
    ) -> Result<(), Error> {
        if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "a password has at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes"
                ),
            ));
        }
        let old_hash = self.read(|tx| {
            let hash = tx
                .prepare_cached("SELECT password FROM user WHERE id = ?")?
                .query_row([user.0], |row| row.get::<_, Option<String>>(0))
                .optional()?;
            hash.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such user").into())
        })?;
        if let Some(old_hash) = &old_hash
            && !is_right(old_hash, old)
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the old password is not right",
            ));
        }
        let hash = Argon2::default()
            .hash_password(password.as_bytes())
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
            .to_string();
        let kept = session.map(hash_of);
        self.write(|tx| {
            // Compared again: two changes at the same time must not both know the old one.
            let changed = tx.execute(
                "UPDATE user SET password = ? WHERE id = ? AND password IS ?",
                (&hash, user.0, &old_hash),
            )?;
            found(changed, "the password was changed at the same time")?;
            tx.execute(
                "DELETE FROM web_session WHERE user = ? AND hash IS NOT ?",
                (user.0, kept),
            )?;
            tx.execute("DELETE FROM sign_in_link WHERE user = ?", [user.0])?;
            Ok(())
        })
    }

    /// Takes a user's password away, so that who has forgotten it can set a new one, and ends
    /// every session of theirs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn forget_password(&self, user: UserId) -> Result<(), Error> {
        self.write(|tx| {
            let changed = tx.execute("UPDATE user SET password = NULL WHERE id = ?", [user.0])?;
            found(changed, "no such user")?;
            tx.execute("DELETE FROM web_session WHERE user = ?", [user.0])?;
            Ok(())
        })
    }

    /// Returns the user if the password is right; takes as long if it is not.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn check_password(&self, email: &str, password: &str) -> Result<Option<User>, Error> {
        let email = email.trim();
        let known = self.read(|tx| {
            Ok(tx
                .prepare_cached("SELECT id, password FROM user WHERE email = ?")?
                .query_row([email], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
                })
                .optional()?)
        })?;
        let (user, hash) = match known {
            Some((user, Some(hash))) => (Some(user), hash),
            _ => (None, NOBODY.to_owned()),
        };
        let right = is_right(&hash, password);
        match user {
            Some(user) if right => self.read(|tx| one_user(tx, "WHERE id = ?", user).map(Some)),
            _ => Ok(None),
        }
    }

    /// Makes the secret of a link that signs a user in once, until `expires`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn create_sign_in_link(&self, user: UserId, expires: Timestamp) -> Result<Secret, Error> {
        let secret = Secret::random();
        self.write(|tx| {
            one_user(tx, "WHERE id = ?", user.0)?;
            tx.execute(
                "INSERT INTO sign_in_link (hash, user, expires) VALUES (?, ?, ?)",
                (hash_of(secret.expose()), user.0, expires.micros()),
            )?;
            Ok(secret.clone())
        })
    }

    /// Uses a link up and starts a session; `None` if the link was used, is too old or never was.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn use_sign_in_link(
        &self,
        secret: &str,
        now: Timestamp,
        session_expires: Timestamp,
    ) -> Result<Option<(User, Secret)>, Error> {
        self.write(|tx| {
            tx.execute(
                "DELETE FROM sign_in_link WHERE expires <= ?",
                [now.micros()],
            )?;
            let user = tx
                .prepare_cached("DELETE FROM sign_in_link WHERE hash = ? RETURNING user")?
                .query_row([hash_of(secret)], |row| row.get::<_, i64>(0))
                .optional()?;
            let Some(user) = user else {
                return Ok(None);
            };
            let session = insert_session(tx, UserId(user), now, session_expires)?;
            Ok(Some((one_user(tx, "WHERE id = ?", user)?, session)))
        })
    }

    /// Starts a session of a user who has just shown who they are.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn create_session(
        &self,
        user: UserId,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Secret, Error> {
        self.write(|tx| insert_session(tx, user, now, expires))
    }

    /// Returns whose session it is, if it still runs.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn session_user(&self, secret: &str, now: Timestamp) -> Result<Option<User>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached(
                    "SELECT u.id, u.email, u.name, u.password IS NOT NULL, u.created
                     FROM web_session s JOIN user u ON u.id = s.user
                     WHERE s.hash = ? AND s.expires > ?",
                )?
                .query_row((hash_of(secret), now.micros()), user_of_row)
                .optional()?)
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn end_session(&self, secret: &str) -> Result<(), Error> {
        self.write(|tx| {
            tx.execute("DELETE FROM web_session WHERE hash = ?", [hash_of(secret)])?;
            Ok(())
        })
    }

    /// Makes a token of the web API; no scopes means that it may do everything.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn create_token(
        &self,
        name: &str,
        scopes: &[String],
        now: Timestamp,
    ) -> Result<Secret, Error> {
        let secret = Secret::random();
        self.write(|tx| {
            tx.execute(
                "INSERT INTO api_token (hash, name, scopes, created) VALUES (?, ?, ?, ?)",
                (
                    hash_of(secret.expose()),
                    name,
                    scopes.join(" "),
                    now.micros(),
                ),
            )?;
            Ok(secret.clone())
        })
    }

    /// Returns the token that this secret is, if there is one.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn token(&self, secret: &str) -> Result<Option<ApiToken>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached("SELECT id, name, scopes, created FROM api_token WHERE hash = ?")?
                .query_row([hash_of(secret)], token_of_row)
                .optional()?)
        })
    }

    /// Lists the tokens of the web API.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn tokens(&self) -> Result<Vec<ApiToken>, Error> {
        self.read(|tx| {
            Ok(tx
                .prepare_cached("SELECT id, name, scopes, created FROM api_token ORDER BY id")?
                .query_map([], token_of_row)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// Takes a token back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub fn delete_token(&self, id: i64) -> Result<(), Error> {
        self.write(|tx| {
            let changed = tx.execute("DELETE FROM api_token WHERE id = ?", [id])?;
            found(changed, "no such token")
        })
    }
}

/// Says whether a password is the one of this hash.
fn is_right(hash: &str, password: &str) -> bool {
    password.len() <= PASSWORD_BYTES_MAX
        && PasswordHash::new(hash).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        })
}

/// Random secrets of 256 bits need no slow hash.
fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn insert_session(
    tx: &Transaction<'_>,
    user: UserId,
    now: Timestamp,
    expires: Timestamp,
) -> Result<Secret, Fault> {
    let secret = Secret::random();
    tx.execute("DELETE FROM web_session WHERE expires <= ?", [now.micros()])?;
    tx.execute(
        "INSERT INTO web_session (hash, user, created, expires) VALUES (?, ?, ?, ?)",
        (
            hash_of(secret.expose()),
            user.0,
            now.micros(),
            expires.micros(),
        ),
    )?;
    Ok(secret)
}

fn one_user(
    tx: &Transaction<'_>,
    condition: &'static str,
    value: impl rusqlite::ToSql,
) -> Result<User, Fault> {
    let user = tx
        .prepare_cached(&format!("{USER_COLUMNS} {condition}"))?
        .query_row([value], user_of_row)
        .optional()?;
    user.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such user").into())
}

fn user_of_row(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: UserId(row.get(0)?),
        email: row.get(1)?,
        name: row.get(2)?,
        has_password: row.get(3)?,
        created: Timestamp::from_micros(row.get(4)?),
    })
}

fn token_of_row(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    let scopes: String = row.get(2)?;
    Ok(ApiToken {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        created: Timestamp::from_micros(row.get(3)?),
    })
}
