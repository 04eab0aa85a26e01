//! Which key a client sends with, in the two forms that are text:
//! the header `X-Sentry-Auth` (or `Authorization: Sentry …`) and the query.
//!
//! The others are the DSN in an envelope's header, HTTP Basic, and a segment of the path.
//! Form: <https://develop.sentry.dev/sdk/overview/#authentication>.

use std::borrow::Cow;
use std::fmt;

use crate::dsn::is_key;

/// The newest protocol version that is understood; clients send 4 to 7.
const VERSION_MAX: u32 = 8;

/// What a client says about itself when it sends.
///
/// # Example
///
/// ```
/// use backstop_protocol::Auth;
///
/// let header = "Sentry sentry_version=7, sentry_client=raven-python/6.10.0, sentry_key=a1b2";
/// let auth = Auth::from_header(header).unwrap();
/// assert_eq!(auth.public_key, "a1b2");
/// assert_eq!(auth.client.as_deref(), Some("raven-python/6.10.0"));
/// assert_eq!(Auth::from_query("x=1&sentry_key=a1b2").unwrap().public_key, "a1b2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The key of the DSN.
    pub public_key: String,
    /// Name and version of the client, as `name/version`.
    pub client: Option<String>,
    /// The protocol's version.
    pub version: Option<u32>,
}

/// A text is no authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseAuthError {
    /// There is no `sentry_key`, or the header is of another scheme.
    Missing,
    /// The key has other characters than letters, digits, `-` and `_`.
    Key,
    /// The protocol's version is no number, or newer than what is understood.
    Version,
}

impl Auth {
    /// Makes the authentication of a key alone, as a DSN, HTTP Basic or a path have it.
    ///
    /// # Errors
    ///
    /// If the text is no key.
    pub fn from_key(public_key: &str) -> Result<Auth, ParseAuthError> {
        Auth::from_pairs([(Cow::Borrowed("sentry_key"), Cow::Borrowed(public_key))].into_iter())
    }

    /// Parses the value of `X-Sentry-Auth` or `Authorization`.
    ///
    /// Order and the space after commas vary between clients.
    /// `sentry_timestamp` is ignored (clients send seconds, milliseconds and floats), and so is
    /// `sentry_secret`, which was never needed.
    ///
    /// # Errors
    ///
    /// See [`ParseAuthError`].
    pub fn from_header(value: &str) -> Result<Auth, ParseAuthError> {
        let value = value.trim();
        let scheme_len = "sentry".len();
        match value.get(..scheme_len) {
            Some(scheme) if scheme.eq_ignore_ascii_case("sentry") => {}
            _ => return Err(ParseAuthError::Missing),
        }
        let Some(rest) = value[scheme_len..].strip_prefix([' ', '\t']) else {
            // `sentry_key=…` without the scheme: some proxies and old clients do that.
            return Auth::from_pairs(header_pairs(value));
        };
        Auth::from_pairs(header_pairs(rest))
    }

    /// Parses a query: `sentry_key=…&sentry_version=7&sentry_client=…`, in any order.
    ///
    /// # Errors
    ///
    /// See [`ParseAuthError`].
    pub fn from_query(query: &str) -> Result<Auth, ParseAuthError> {
        Auth::from_pairs(query_pairs(query))
    }

    fn from_pairs<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Auth, ParseAuthError> {
        let mut auth = Auth {
            public_key: String::new(),
            client: None,
            version: None,
        };
        for (name, value) in pairs {
            match &*name {
                "sentry_key" => auth.public_key = value.into_owned(),
                "sentry_client" => auth.client = Some(value.into_owned()),
                "sentry_version" => auth.version = Some(version_of(&value)?),
                _ => {}
            }
        }
        if auth.public_key.is_empty() {
            Err(ParseAuthError::Missing)
        } else if is_key(&auth.public_key) {
            Ok(auth)
        } else {
            Err(ParseAuthError::Key)
        }
    }
}

/// Old clients write `2.0`.
fn version_of(text: &str) -> Result<u32, ParseAuthError> {
    let major = text.trim().split('.').next().unwrap_or_default();
    match major.parse() {
        Ok(version) if version <= VERSION_MAX => Ok(version),
        _ => Err(ParseAuthError::Version),
    }
}

fn header_pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split(',').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        Some((Cow::Borrowed(name.trim()), Cow::Borrowed(value)))
    })
}

/// Returns the names and values of a query, with `%XX` and `+` decoded; bytes that are not UTF-8
/// become U+FFFD.
///
/// Form: <https://url.spec.whatwg.org/#urlencoded-parsing>.
///
/// # Example
///
/// ```
/// let pairs: Vec<_> = backstop_protocol::query_pairs("a=1+2%2F%zz&&b").collect();
/// assert_eq!(pairs, [("a".into(), "1 2/%zz".into()), ("b".into(), "".into())]);
/// ```
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = |place| Some(char::from(*bytes.get(place)?).to_digit(16)? as u8);
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(*byte),
        }
        at += 1;
    }
    match String::from_utf8(decoded) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

impl fmt::Display for ParseAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseAuthError::Missing => "missing authorization information",
            ParseAuthError::Key => "bad sentry DSN public key",
            ParseAuthError::Version => "unsupported protocol version",
        })
    }
}

impl std::error::Error for ParseAuthError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send() {
        let check = |header: &str, client: Option<&str>, version: Option<u32>| {
            let auth = Auth::from_header(header).unwrap();
            assert_eq!(auth.public_key, "a1b2", "{header}");
            assert_eq!(auth.client.as_deref(), client, "{header}");
            assert_eq!(auth.version, version, "{header}");
        };
        check("Sentry sentry_key=a1b2", None, None);
        check(
            "Sentry sentry_version=4, sentry_timestamp=1795338000, sentry_key=a1b2, sentry_secret=x",
            None,
            Some(4),
        );
        check(
            "sentry sentry_timestamp=1795338000.5,sentry_client=raven-node/2.6.4,sentry_version=5,sentry_key=a1b2",
            Some("raven-node/2.6.4"),
            Some(5),
        );
        check(
            "Sentry sentry_version=2.0, sentry_key=\"a1b2\"",
            None,
            Some(2),
        );
        check("sentry_key=a1b2, sentry_version=7", None, Some(7));
    }

    #[test]
    fn what_is_refused() {
        let check = |header: &str, error| {
            assert_eq!(Auth::from_header(header), Err(error), "{header}");
        };
        check("", ParseAuthError::Missing);
        check("Bearer abc", ParseAuthError::Missing);
        check("Sentry sentry_version=7", ParseAuthError::Missing);
        check("Sentry sentry_key=a1 b2", ParseAuthError::Key);
        check(
            "Sentry sentry_key=a, sentry_version=9",
            ParseAuthError::Version,
        );
        check(
            "Sentry sentry_key=a, sentry_version=x",
            ParseAuthError::Version,
        );
        assert_eq!(Auth::from_query(""), Err(ParseAuthError::Missing));
    }

    #[test]
    fn queries() {
        let auth = Auth::from_query(
            "sentry_client=sentry.javascript.browser%2F7.120.4&sentry_version=7&sentry_key=a1b2",
        )
        .unwrap();
        assert_eq!(auth.client.unwrap(), "sentry.javascript.browser/7.120.4");
        assert_eq!(percent_decode("%e2%98%83%ff%"), "☃\u{fffd}%");
    }
}
