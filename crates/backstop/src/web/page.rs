//! Default pages: HTML, problem+json or text.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::HttpError;

/// The form of an error page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `text/html`.
    Html,
    /// `application/problem+json`, RFC 9457: <https://www.rfc-editor.org/rfc/rfc9457>.
    Problem,
    /// `text/plain`.
    Text,
}

/// Chooses the form that the client likes best: HTML unless it prefers JSON or text.
///
/// Reads `Accept` as in RFC 9110: <https://www.rfc-editor.org/rfc/rfc9110#name-accept>.
/// Of equals the one that was named more exactly wins, then HTML.
pub fn format_for(headers: &HeaderMap) -> Format {
    let mut best = (Format::Html, 0.0, 0);
    let ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .take(RANGES_MAX);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(Some(1.0), |text| text.parse::<f32>().ok())
            .filter(|quality| (0.0..=1.0).contains(quality))
            .unwrap_or(0.0);
        let (format, exactness) = match media.as_str() {
            "text/html" | "application/xhtml+xml" => (Format::Html, 3),
            "application/problem+json" | "application/json" => (Format::Problem, 3),
            "text/plain" => (Format::Text, 3),
            "text/*" | "*/*" => (Format::Html, 1),
            "application/*" => (Format::Problem, 1),
            media if media.ends_with("+json") => (Format::Problem, 2),
            _ => continue,
        };
        if quality > best.1 || (quality > 0.0 && quality == best.1 && exactness > best.2) {
            best = (format, quality, exactness);
        }
    }
    best.0
}

/// More ranges than this are not read; browsers send fewer than ten.
const RANGES_MAX: usize = 32;

/// What a default page is made of.
pub(crate) struct Page<'a> {
    pub(crate) error: &'a HttpError,
    pub(crate) format: Format,
    /// Shown so that people can name it; only on pages of errors that were logged.
    pub(crate) request_id: Option<&'a str>,
    /// Whether details for developers may be shown.
    pub(crate) with_detail: bool,
}

impl Page<'_> {
    /// The response: status, the error's headers, and the page in its format.
    pub(crate) fn response(&self) -> Response {
        let (content_type, body) = match self.format {
            Format::Html => ("text/html; charset=utf-8", self.html()),
            Format::Problem => ("application/problem+json", self.problem()),
            Format::Text => ("text/plain; charset=utf-8", self.text()),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.error.status();
        *response.headers_mut() = self.error.headers();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    fn description(&self) -> Cow<'_, str> {
        let description = self.error.public_description();
        match self.error.private_detail() {
            Some(detail) if self.with_detail => format!("{description}\n{detail}").into(),
            _ => description.into(),
        }
    }

    fn html(&self) -> String {
        let name = escape(self.error.name());
        let description = self.description();
        let mut description = escape(&description);
        if description.contains('\n') {
            description = description.replace('\n', "<br>").into();
        }
        let mut page = self.document(description.len());
        page.push_str("<!doctype html>\n<html lang=en>\n<title>");
        page.push_str(self.error.status().as_str());
        page.push(' ');
        page.push_str(&name);
        page.push_str("</title>\n<h1>");
        page.push_str(&name);
        page.push_str("</h1>\n<p>");
        page.push_str(&description);
        page.push_str("</p>\n");
        if let Some(id) = self.request_id {
            page.push_str("<p><small>Request ");
            page.push_str(&escape(id));
            page.push_str("</small></p>\n");
        }
        page
    }

    /// An empty document with room for a page of this description.
    fn document(&self, description: usize) -> String {
        const MARKUP: usize = 128;
        let id = self.request_id.map_or(0, str::len);
        String::with_capacity(MARKUP + 2 * self.error.name().len() + description + id)
    }

    fn problem(&self) -> String {
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": self.error.name(),
            "status": self.error.status().as_u16(),
            "detail": self.description(),
        });
        if let Some(id) = self.request_id {
            problem["request_id"] = id.into();
        }
        problem.to_string()
    }

    fn text(&self) -> String {
        let description = self.description();
        let mut text = self.document(description.len());
        text.push_str(self.error.status().as_str());
        text.push(' ');
        text.push_str(self.error.name());
        text.push('\n');
        if !description.is_empty() {
            text.push_str(&description);
            text.push('\n');
        }
        if let Some(id) = self.request_id {
            text.push_str("Request ");
            text.push_str(id);
            text.push('\n');
        }
        text
    }
}

/// Escapes text for HTML, in elements and in attributes.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(SPECIAL) else {
        return Cow::Borrowed(text);
    };
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(&text[..first]);
    for character in text[first..].chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// What means something else in HTML than itself.
const SPECIAL: [char; 5] = ['&', '<', '>', '"', '\''];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Format) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        assert_eq!(format_for(&headers), expected, "{accept}");
    }

    #[test]
    fn format_follows_accept() {
        assert_eq!(format_for(&HeaderMap::new()), Format::Html);
        check("*/*", Format::Html);
        check("application/json", Format::Problem);
        check("application/json, text/html;q=0.9", Format::Problem);
        check("text/html, application/json", Format::Html);
        check("text/plain", Format::Text);
        check("application/vnd.api+json", Format::Problem);
        check("image/png", Format::Html);
        check("application/json;q=0", Format::Html);
        check("application/json;q=2, text/plain;q=0.1", Format::Text);
        check("*/*;q=0.5, application/problem+json;q=0.5", Format::Problem);
        check(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            Format::Html,
        );
    }

    #[test]
    fn html_page_is_escaped() {
        let error = HttpError::new(404).description("<b>'\"&\nnext");
        let page = Page {
            error: &error,
            format: Format::Html,
            request_id: None,
            with_detail: false,
        };
        assert_eq!(
            page.html(),
            "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n\
             <p>&lt;b&gt;&#39;&#34;&amp;<br>next</p>\n"
        );
    }

    #[test]
    fn detail_is_for_developers() {
        let error = HttpError::new(400).detail("missing field");
        let mut page = Page {
            error: &error,
            format: Format::Problem,
            request_id: Some("r1"),
            with_detail: false,
        };
        assert!(!page.problem().contains("missing field"));
        page.with_detail = true;
        assert!(page.problem().contains("missing field"));
        assert!(page.problem().contains("\"request_id\":\"r1\""));
    }
}
