//! The HTTP request during which an event happened.

use serde_json::Value;

use crate::Object;
use crate::encode::{Encode, Members, serialize_encoded};
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;

/// The HTTP request during which an event happened.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/request/>.
/// Clients send query, cookies and headers as text, objects or lists of pairs; they are kept as sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// The full address without the query.
    pub url: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// The query, as text, object or pairs.
    pub query_string: Option<Value>,
    /// The fragment of the address.
    pub fragment: Option<String>,
    /// The headers, as object or pairs.
    pub headers: Option<Value>,
    /// The cookies, as text, object or pairs.
    pub cookies: Option<Value>,
    /// The body, in any form.
    pub data: Option<Value>,
    /// The server's environment variables for the request.
    pub env: Option<Value>,
    /// Fields that this version does not know.
    pub other: Object,
}

impl Request {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Request, Syntax> {
        let mut request = Request::default();
        reader.object(|reader, key| match key {
            "url" => reader.text(&mut request.url),
            "method" => reader.text(&mut request.method),
            "query_string" => reader.any(&mut request.query_string),
            "fragment" => reader.text(&mut request.fragment),
            "headers" => reader.any(&mut request.headers),
            "cookies" => reader.any(&mut request.cookies),
            "data" => reader.any(&mut request.data),
            "env" => reader.any(&mut request.env),
            _ => reader.member(key, &mut request.other),
        })?;
        Ok(request)
    }
}

impl Encode for Request {
    fn encode(&self, out: &mut Vec<u8>) {
        let Request {
            url,
            method,
            query_string,
            fragment,
            headers,
            cookies,
            data,
            env,
            other,
        } = self;
        Members::new(out)
            .member("url", url)
            .member("method", method)
            .member("query_string", query_string)
            .member("fragment", fragment)
            .member("headers", headers)
            .member("cookies", cookies)
            .member("data", data)
            .member("env", env)
            .all(other)
            .end();
    }
}

serialize_encoded!(Request);
deserialize_leniently!(Request);
