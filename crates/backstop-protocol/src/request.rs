//! The HTTP request during which an event happened.

use serde::Serialize;
use serde_json::Value;

use crate::Object;
use crate::json::{Reader, Syntax};
use crate::lenient::deserialize_leniently;

/// The HTTP request during which an event happened.
///
/// Schema: <https://develop.sentry.dev/sdk/event-payloads/request/>.
/// Clients send query, cookies and headers as text, objects or lists of pairs; they are kept as sent.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Request {
    /// The full address without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The query, as text, object or pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_string: Option<Value>,
    /// The fragment of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<String>,
    /// The headers, as object or pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Value>,
    /// The cookies, as text, object or pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookies: Option<Value>,
    /// The body, in any form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The server's environment variables for the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
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

deserialize_leniently!(Request);
