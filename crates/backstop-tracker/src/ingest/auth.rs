//! Which key a request was sent with, from the places where clients put it.
//!
//! `X-Sentry-Auth`, `Authorization` (Sentry's own scheme, or Basic with the key as user name),
//! the query, a segment of the path, and the DSN in an envelope's header; any of them may be the
//! only one, and those that are there must agree.

use std::borrow::Cow;

use backstop_protocol::{Auth, Dsn, ParseAuthError};
use http::{HeaderMap, header};

use super::body::decode_base64;
use super::refusal::Refusal;
use crate::model::Key;

/// What a request says about its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) key: Key,
    /// Name and version of the client, as `name/version`.
    pub(super) client: Option<String>,
}

/// Finds the sender in the request's head; `None` if it is not there.
///
/// # Errors
///
/// 400 for a key or version that cannot be, 401 if two places disagree.
pub(super) fn sender_of_head(
    headers: &HeaderMap,
    query: &str,
    path_key: Option<&str>,
) -> Result<Option<Sender>, Refusal> {
    let mut found = Vec::new();
    for value in headers.get_all("x-sentry-auth") {
        found.extend(present(Auth::from_header(&text(value)))?);
    }
    for value in headers.get_all(header::AUTHORIZATION) {
        found.extend(authorization(&text(value))?);
    }
    found.extend(present(Auth::from_query(query))?);
    if let Some(key) = path_key {
        found.push(Auth::from_key(key).map_err(refused)?);
    }
    let mut found = found.into_iter();
    let Some(first) = found.next() else {
        return Ok(None);
    };
    let mut client = first.client;
    for other in found {
        if !other.public_key.eq_ignore_ascii_case(&first.public_key) {
            return Err(disagreement());
        }
        client = client.or(other.client);
    }
    Ok(Some(Sender {
        key: key_of(&first.public_key)?,
        client,
    }))
}

/// Adds what an envelope's header says: its DSN may be the only authentication (a tunnel).
///
/// Returns the sender and the project, where the DSN names one.
///
/// # Errors
///
/// 401 if there is no key at all, or the DSN has another one than the request.
pub(super) fn sender_of_envelope(
    head: Option<Sender>,
    dsn: Option<&str>,
) -> Result<(Sender, Option<u64>), Refusal> {
    let dsn = match dsn.map(str::parse::<Dsn>) {
        None => None,
        Some(Ok(dsn)) => Some(dsn),
        // The request's own key is enough; what clients write here is for tunnels.
        Some(Err(_)) if head.is_some() => None,
        Some(Err(error)) => return Err(Refusal::bad(error.to_string())),
    };
    match (head, dsn) {
        (None, None) => Err(missing()),
        (Some(sender), None) => Ok((sender, None)),
        (None, Some(dsn)) => {
            let key = key_of(dsn.public_key())?;
            let sender = Sender { key, client: None };
            Ok((sender, Some(dsn.project())))
        }
        (Some(sender), Some(dsn)) => match key_of(dsn.public_key()) {
            Ok(key) if key == sender.key => Ok((sender, Some(dsn.project()))),
            _ => Err(disagreement()),
        },
    }
}

/// The refusal of a request that names no key.
pub(super) fn missing() -> Refusal {
    Refusal::unauthorized(ParseAuthError::Missing.to_string())
}

fn disagreement() -> Refusal {
    Refusal::unauthorized("multiple authorization information")
}

fn present(auth: Result<Auth, ParseAuthError>) -> Result<Option<Auth>, Refusal> {
    match auth {
        Ok(auth) => Ok(Some(auth)),
        Err(ParseAuthError::Missing) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: ParseAuthError) -> Refusal {
    Refusal::bad(error.to_string())
}

fn authorization(value: &str) -> Result<Option<Auth>, Refusal> {
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        // A Bearer token is for the web API, or for a proxy in between.
        return present(Auth::from_header(value));
    }
    let pair = decode_base64(rest.trim().as_bytes()).ok_or_else(missing)?;
    let pair = String::from_utf8_lossy(&pair);
    let key = pair.split(':').next().unwrap_or_default();
    if key.is_empty() {
        return Ok(None);
    }
    Auth::from_key(key).map(Some).map_err(refused)
}

fn key_of(text: &str) -> Result<Key, Refusal> {
    text.to_ascii_lowercase()
        .parse()
        .map_err(|_| refused(ParseAuthError::Key))
}

fn text(value: &http::HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const KEY: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
    const OTHER: &str = "b1b2c3d4e5f60718293a4b5c6d7e8f90";

    fn head(headers: &[(&'static str, String)], query: &str) -> Result<Option<Sender>, u16> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect();
        sender_of_head(&headers, query, None).map_err(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn every_place() {
        let sentry = format!("Sentry sentry_key={KEY}, sentry_client=a/1");
        let basic = {
            use base64::Engine as _;
            let pair = format!("{KEY}:");
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(pair)
            )
        };
        let query = format!("sentry_version=7&sentry_key={KEY}");
        let key = |sender: Result<Option<Sender>, u16>| sender.unwrap().unwrap().key.to_string();
        assert_eq!(key(head(&[("x-sentry-auth", sentry.clone())], "")), KEY);
        assert_eq!(key(head(&[("authorization", sentry.clone())], "")), KEY);
        assert_eq!(key(head(&[("authorization", basic)], "")), KEY);
        assert_eq!(key(head(&[], &query)), KEY);
        assert_eq!(key(head(&[("x-sentry-auth", sentry)], &query)), KEY);
        let path = sender_of_head(&HeaderMap::new(), "", Some(&KEY.to_uppercase()));
        assert_eq!(path.unwrap().unwrap().key.to_string(), KEY);
        let dsn = format!("http://{KEY}@localhost/42");
        let (sender, project) = sender_of_envelope(None, Some(&dsn)).unwrap();
        assert_eq!((sender.key.to_string().as_str(), project), (KEY, Some(42)));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(head(&[], ""), Ok(None));
        assert_eq!(
            head(&[("authorization", "Bearer abc".to_owned())], ""),
            Ok(None)
        );
        let sentry = format!("Sentry sentry_key={KEY}");
        let other = format!("sentry_key={OTHER}");
        assert_eq!(head(&[("x-sentry-auth", sentry)], &other), Err(401));
        assert_eq!(head(&[], "sentry_key=short"), Err(400));
        assert_eq!(
            head(&[], &format!("sentry_key={KEY}&sentry_version=99")),
            Err(400)
        );
        let status =
            |head, dsn| sender_of_envelope(head, dsn).map_err(|refusal| refusal.status().as_u16());
        assert_eq!(status(None, None).unwrap_err(), 401);
        assert_eq!(status(None, Some("nonsense")).unwrap_err(), 400);
        let sender = Sender {
            key: KEY.parse().unwrap(),
            client: None,
        };
        let dsn = format!("http://{OTHER}@localhost/42");
        assert_eq!(status(Some(sender.clone()), Some(&dsn)).unwrap_err(), 401);
        assert!(status(Some(sender), Some("nonsense")).is_ok());
    }
}
