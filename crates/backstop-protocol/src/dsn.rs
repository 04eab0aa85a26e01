//! The DSN: the URL that names tracker, project and public key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a client sends to: `https://KEY@HOST[:PORT][/PREFIX]/PROJECT`.
///
/// Old forms are understood: a secret after the key, a transport before the scheme
/// (`sync+https://`, as raven has it), options in a query.
/// Written (also by `Debug`) without the secret, which nothing needs.
///
/// # Example
///
/// ```
/// use backstop_protocol::Dsn;
///
/// let dsn: Dsn = "https://a1b2:s3cret@errors.example:8443/sentry/42?timeout=3".parse().unwrap();
/// assert_eq!(dsn.public_key(), "a1b2");
/// assert_eq!(dsn.project(), 42);
/// assert_eq!(dsn.envelope_url(), "https://errors.example:8443/sentry/api/42/envelope/");
/// assert_eq!(dsn.to_string(), "https://a1b2@errors.example:8443/sentry/42");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Dsn {
    https: bool,
    public_key: String,
    host: String,
    port: Option<u16>,
    prefix: String,
    project: u64,
}

/// A text is not a DSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseDsnError {
    /// It does not begin with `http://` or `https://`.
    Scheme,
    /// No public key stands before an `@`, or it has other characters than letters, digits,
    /// `-` and `_`.
    PublicKey,
    /// There is no host.
    Host,
    /// The port is no number up to 65535.
    Port,
    /// The path does not end in a project id, which is a number.
    Project,
}

impl Dsn {
    /// Makes a DSN; `prefix` is the path below which the tracker lives, usually empty.
    ///
    /// # Errors
    ///
    /// As for parsing the text.
    pub fn new(
        https: bool,
        public_key: &str,
        authority: &str,
        prefix: &str,
        project: u64,
    ) -> Result<Dsn, ParseDsnError> {
        let scheme = if https { "https" } else { "http" };
        let prefix = prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{scheme}://{public_key}@{authority}{slash}{prefix}/{project}").parse()
    }

    /// Says whether the tracker is reached with TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Returns the public key.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Returns the host, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, by default the scheme's.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Returns the path below which the tracker lives: empty, or beginning with a slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the project's id.
    pub fn project(&self) -> u64 {
        self.project
    }

    /// Returns the URL to which envelopes are posted.
    pub fn envelope_url(&self) -> String {
        format!("{}/api/{}/envelope/", self.origin(), self.project)
    }

    fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let (host, prefix) = (&self.host, &self.prefix);
        match self.port {
            Some(port) => format!("{scheme}://{host}:{port}{prefix}"),
            None => format!("{scheme}://{host}{prefix}"),
        }
    }
}

impl FromStr for Dsn {
    type Err = ParseDsnError;

    fn from_str(text: &str) -> Result<Dsn, ParseDsnError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(ParseDsnError::Scheme)?;
        let scheme = scheme.rsplit('+').next().unwrap_or(scheme);
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(ParseDsnError::Scheme),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or(rest);
        let (keys, place) = rest.split_once('@').ok_or(ParseDsnError::PublicKey)?;
        let public_key = keys.split(':').next().unwrap_or(keys);
        if !is_key(public_key) {
            return Err(ParseDsnError::PublicKey);
        }
        let (authority, path) = place.split_once('/').ok_or(ParseDsnError::Project)?;
        let (host, port) = split_port(authority)?;
        let path = path.trim_end_matches('/');
        let (prefix, project) = path.rsplit_once('/').unwrap_or(("", path));
        if project.is_empty() || !project.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseDsnError::Project);
        }
        let prefix = prefix.trim_matches('/');
        Ok(Dsn {
            https,
            public_key: public_key.to_owned(),
            host: host.to_owned(),
            port,
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("/{prefix}")
            },
            project: project.parse().map_err(|_| ParseDsnError::Project)?,
        })
    }
}

/// Keys are 32 hex digits today; self-hosted trackers have had others.
pub(crate) fn is_key(text: &str) -> bool {
    const KEY_BYTES_MAX: usize = 64; // twice the longest one known
    (1..=KEY_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), ParseDsnError> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or(ParseDsnError::Host)? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'\\' | b'"');
    if host.is_empty() || host == "[]" || !host.bytes().all(plain) {
        return Err(ParseDsnError::Host);
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse().map_err(|_| ParseDsnError::Port)?;
            Ok((host, Some(port)))
        }
        _ => Err(ParseDsnError::Port),
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}@{}", self.public_key, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}/{}", self.prefix, self.project)
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

impl fmt::Display for ParseDsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseDsnError::Scheme => "a DSN begins with http:// or https://",
            ParseDsnError::PublicKey => "a DSN has a public key before an @",
            ParseDsnError::Host => "a DSN has a host after the @",
            ParseDsnError::Port => "the port in a DSN is a number up to 65535",
            ParseDsnError::Project => "a DSN ends in /PROJECT, a number",
        })
    }
}

impl std::error::Error for ParseDsnError {}

impl Serialize for Dsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dsn, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dsn_is() {
        let check = |text: &str, written: &str, url: &str| {
            let dsn: Dsn = text.parse().unwrap();
            assert_eq!(dsn.to_string(), written, "{text}");
            assert_eq!(dsn.envelope_url(), url, "{text}");
            assert_eq!(written.parse(), Ok(dsn), "{text}");
        };
        check(
            "http://k@localhost/1",
            "http://k@localhost/1",
            "http://localhost/api/1/envelope/",
        );
        check(
            "sync+https://k:secret@o1.ingest.sentry.io:443/a/b/4507000000000001/?verify_ssl=0",
            "https://k@o1.ingest.sentry.io:443/a/b/4507000000000001",
            "https://o1.ingest.sentry.io:443/a/b/api/4507000000000001/envelope/",
        );
        check(
            " HTTP://k@[::1]:9000/7 ",
            "http://k@[::1]:9000/7",
            "http://[::1]:9000/api/7/envelope/",
        );
    }

    #[test]
    fn what_no_dsn_is() {
        let check = |text: &str, error| assert_eq!(text.parse::<Dsn>(), Err(error), "{text}");
        check("", ParseDsnError::Scheme);
        check("ftp://k@host/1", ParseDsnError::Scheme);
        check("http://host/1", ParseDsnError::PublicKey);
        check("http://:s@host/1", ParseDsnError::PublicKey);
        check("http://k\"@host/1", ParseDsnError::PublicKey);
        check("http://k@/1", ParseDsnError::Host);
        check("http://k@[::1/1", ParseDsnError::Host);
        check("http://k@ho st/1", ParseDsnError::Host);
        check("http://k@host:x/1", ParseDsnError::Port);
        check("http://k@host:65536/1", ParseDsnError::Port);
        check("http://k@host", ParseDsnError::Project);
        check("http://k@host/", ParseDsnError::Project);
        check("http://k@host/shop", ParseDsnError::Project);
        check("http://k@host/-1", ParseDsnError::Project);
        check("http://k@host/99999999999999999999", ParseDsnError::Project);
    }

    #[test]
    fn the_secret_is_never_written() {
        let dsn: Dsn = "http://k:hush@host/1".parse().unwrap();
        assert!(!format!("{dsn} {dsn:?}").contains("hush"));
    }

    #[test]
    fn a_dsn_is_made_of_its_parts() {
        let dsn = Dsn::new(false, "k", "127.0.0.1:8000", "/errors/", 3).unwrap();
        assert_eq!(dsn.to_string(), "http://k@127.0.0.1:8000/errors/3");
        assert_eq!((dsn.port(), dsn.prefix()), (8000, "/errors"));
    }
}
