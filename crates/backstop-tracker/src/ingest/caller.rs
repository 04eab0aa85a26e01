//! Who sends: the project that a key opens, what the project wants, and where the request is from.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request};
use backstop_protocol::Timestamp;
use http::request::Parts;
use http::{HeaderMap, header};

use super::Ingest;
use super::auth::{self, Sender};
use super::outcome::Fate;
use super::refusal::Refusal;
use super::settings::Settings;
use crate::model::{Key, KeyOwner, ProjectId};

/// A key that was switched off, or settings that were changed, count after this time.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Keys that are remembered; more are read again.
const KNOWN_MAX: usize = 10_000;

/// A request whose key opens its project.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) project: ProjectId,
    pub(super) key: Key,
    pub(super) settings: Arc<Settings>,
    /// Name and version of the client, as `name/version`.
    pub(super) client: Option<String>,
    /// The client's HTTP library, or the browser.
    pub(super) agent: String,
    pub(super) peer: Option<IpAddr>,
    pub(super) received: Timestamp,
}

/// What a key opens, read at most once a second.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<Key, Known>>);

#[derive(Debug, Clone)]
struct Known {
    owner: KeyOwner,
    settings: Arc<Settings>,
    until: Instant,
}

impl Keys {
    fn get(&self, key: Key) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&key)
            .filter(|known| known.until > Instant::now())
            .cloned()
    }

    fn put(&self, owner: KeyOwner) -> Known {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        // Settings that did not change are not parsed again.
        let settings = match all.get(&owner.key.public) {
            Some(old) if old.owner.settings == owner.settings => Arc::clone(&old.settings),
            _ => Settings::of_project(&owner.settings),
        };
        let known = Known {
            settings,
            until: Instant::now() + KNOWN_FOR,
            owner,
        };
        all.insert(known.owner.key.public, known.clone());
        known
    }
}

impl Ingest {
    /// Finds what a sender may write to. `project` is the one that the request names.
    ///
    /// # Errors
    ///
    /// 403 if the key opens nothing, is switched off, or opens another project.
    pub(super) async fn caller(
        &self,
        head: &Parts,
        sender: Sender,
        project: Option<u64>,
    ) -> Result<Caller, Refusal> {
        let known = match self.keys.get(sender.key) {
            Some(known) => known,
            None => self.read_key(sender.key).await?,
        };
        if !known.owner.key.active {
            return Err(Refusal::forbidden("the key is disabled"));
        }
        if project.is_some_and(|project| ProjectId(project) != known.owner.project) {
            return Err(Refusal::forbidden("the key belongs to another project"));
        }
        let caller = Caller {
            project: known.owner.project,
            key: sender.key,
            client: sender.client,
            agent: text_of(&head.headers, header::USER_AGENT).to_owned(),
            peer: peer_of(head).filter(|_| !known.settings.scrub.ip_addresses),
            settings: known.settings,
            received: super::now(),
        };
        if !is_allowed_origin(&head.headers, &caller.settings.origins) {
            self.count(&caller, &Fate::Filtered("origin"), 1);
            return Err(Refusal::forbidden("the origin is not allowed"));
        }
        Ok(caller)
    }

    async fn read_key(&self, key: Key) -> Result<Known, Refusal> {
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || store.key_owner(key)).await;
        match found {
            Ok(Ok(Some(owner))) => Ok(self.keys.put(owner)),
            Ok(Ok(None)) => Err(Refusal::forbidden("no project has this key")),
            Ok(Err(error)) => {
                tracing::error!(error = format!("{error:#}"), "a key cannot be looked up");
                Err(Refusal::busy("the store cannot be read now"))
            }
            Err(_) => Err(Refusal::busy("the server is ending")),
        }
    }

    /// Counts what became of something that a caller sent.
    pub(super) fn count(&self, caller: &Caller, fate: &Fate, n: u64) {
        let place = (caller.project, caller.key);
        self.outcomes.count(place, caller.received, fate, n);
    }

    /// Authenticates a request by its head alone.
    pub(super) async fn caller_of_head(
        &self,
        head: &Parts,
        project: Option<u64>,
        path_key: Option<&str>,
    ) -> Result<Caller, Refusal> {
        let query = head.uri.query().unwrap_or_default();
        let sender = auth::sender_of_head(&head.headers, query, path_key)?;
        let sender = sender.ok_or_else(auth::missing)?;
        self.caller(head, sender, project).await
    }
}

/// Reads a project's number in a path.
pub(super) fn project_of_path(text: &str) -> Result<u64, Refusal> {
    text.parse()
        .map_err(|_| Refusal::bad("invalid project path parameter"))
}

/// Splits a request, so that its head can be looked at while its body is read.
pub(super) fn split(request: Request) -> (Parts, axum::body::Body) {
    request.into_parts()
}

pub(super) fn text_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Where a request comes from: a proxy in front is believed if it is on this machine or in a
/// private network, because then nobody else can have written the header it adds to.
fn peer_of(head: &Parts) -> Option<IpAddr> {
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|peer| peer.0.ip().to_canonical());
    if peer.is_some_and(|peer| !is_private(peer)) {
        return peer;
    }
    // The nearest proxy writes last; further ones on the way are private as well.
    let forwarded = head.headers.get_all("x-forwarded-for").iter();
    let mut hops: Vec<IpAddr> = forwarded
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|hop| address_of(hop.trim()))
        .collect();
    hops.reverse();
    let first_outside = hops.iter().find(|hop| !is_private(**hop));
    first_outside.or(hops.last()).copied().or(peer)
}

/// Some proxies add the port.
fn address_of(text: &str) -> Option<IpAddr> {
    text.parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Says whether a browser's page may send; what is no browser names no origin.
fn is_allowed_origin(headers: &HeaderMap, allowed: &[String]) -> bool {
    let origin = text_of(headers, header::ORIGIN);
    if allowed.is_empty() || origin.is_empty() || origin == "null" {
        return true;
    }
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    allowed.iter().any(|pattern| {
        let of = if pattern.contains("://") {
            origin
        } else {
            host
        };
        super::filter::glob(pattern, of)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request};

    #[test]
    fn where_a_request_comes_from() {
        let check = |peer: Option<&str>, forwarded: &str, expected: Option<&str>| {
            let (mut head, ()) = Request::new(()).into_parts();
            if let Some(peer) = peer {
                let socket = SocketAddr::new(peer.parse().unwrap(), 1);
                head.extensions.insert(ConnectInfo(socket));
            }
            if !forwarded.is_empty() {
                let value = HeaderValue::from_str(forwarded).unwrap();
                head.headers.insert("x-forwarded-for", value);
            }
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(peer_of(&head), expected, "{peer:?} {forwarded}");
        };
        check(None, "", None);
        check(Some("203.0.113.9"), "", Some("203.0.113.9"));
        check(Some("203.0.113.9"), "198.51.100.1", Some("203.0.113.9"));
        check(
            Some("127.0.0.1"),
            "198.51.100.1, 10.0.0.2",
            Some("198.51.100.1"),
        );
        check(
            Some("::1"),
            "1.2.3.4, 198.51.100.1:55",
            Some("198.51.100.1"),
        );
        check(Some("10.0.0.1"), "192.168.1.7", Some("192.168.1.7"));
        check(Some("127.0.0.1"), "nonsense", Some("127.0.0.1"));
        check(Some("::ffff:203.0.113.9"), "", Some("203.0.113.9"));
    }

    #[test]
    fn origins() {
        let check = |origin: &str, allowed: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(is_allowed_origin(&headers, &allowed), expected, "{origin}");
        };
        check("https://shop.example", &[], true);
        check("https://shop.example", &["https://shop.example"], true);
        check("https://a.shop.example", &["*.shop.example"], true);
        check("https://evil.example", &["*.shop.example"], false);
    }
}
