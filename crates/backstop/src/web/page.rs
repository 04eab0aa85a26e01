//! Default pages: HTML, problem+json or text.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

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

impl Format {
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Problem => "application/problem+json",
            Self::Text => "text/plain; charset=utf-8",
        })
    }
}

/// Chooses the form that the client likes best: HTML unless it prefers JSON or text.
///
/// Reads `Accept` as in RFC 9110: <https://www.rfc-editor.org/rfc/rfc9110#name-accept>.
/// Of equals the one that was named more exactly wins, then HTML.
pub fn format_for(headers: &HeaderMap) -> Format {
    format_of(headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes))
}

/// The same, of the values of `Accept`.
pub(crate) fn format_of<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Format {
    let mut best = (Format::Html, 0.0, 0);
    let ranges = accept
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .take(RANGES_MAX);
    for range in ranges {
        if range == "*/*" && best.1 == 0.0 {
            best = (Format::Html, 1.0, 1);
            continue;
        }
        let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
        let Some((format, exactness)) = format_of_range(media.trim()) else {
            continue;
        };
        let quality = quality_of(parameters);
        if quality > best.1 || (quality > 0.0 && quality == best.1 && exactness > best.2) {
            best = (format, quality, exactness);
        }
        // Nothing beats what is named exactly and without reserve, as browsers name HTML first.
        if best.1 == 1.0 && best.2 == EXACTNESS_MAX {
            break;
        }
    }
    best.0
}

/// How exact a range is that names one type.
const EXACTNESS_MAX: u8 = 3;

/// What a range of media types stands for, and how exactly it says so.
fn format_of_range(media: &str) -> Option<(Format, u8)> {
    let (class, name) = media.split_once('/')?;
    let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
    let ends_in_json = name
        .len()
        .checked_sub(JSON_SUFFIX.len())
        .and_then(|start| name.get(start..))
        .is_some_and(|end| is(end, JSON_SUFFIX));
    if class == "*" && name == "*" {
        Some((Format::Html, 1))
    } else if is(class, "text") {
        match name {
            "*" => Some((Format::Html, 1)),
            name if is(name, "html") => Some((Format::Html, EXACTNESS_MAX)),
            name if is(name, "plain") => Some((Format::Text, EXACTNESS_MAX)),
            _ => ends_in_json.then_some((Format::Problem, 2)),
        }
    } else if is(class, "application") {
        match name {
            "*" => Some((Format::Problem, 1)),
            name if is(name, "xhtml+xml") => Some((Format::Html, EXACTNESS_MAX)),
            name if is(name, "json") || is(name, "problem+json") => {
                Some((Format::Problem, EXACTNESS_MAX))
            }
            _ => ends_in_json.then_some((Format::Problem, 2)),
        }
    } else {
        ends_in_json.then_some((Format::Problem, 2))
    }
}

/// How media types end that are JSON, whatever else they are.
const JSON_SUFFIX: &str = "+json";

/// The quality among the parameters of a range: 1 if there is none, 0 if it cannot be read.
fn quality_of(parameters: &str) -> f32 {
    let mut parameters = parameters.split(';').map(str::trim);
    parameters
        .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
        .map_or(Some(1.0), |text| text.parse::<f32>().ok())
        .filter(|quality| (0.0..=1.0).contains(quality))
        .unwrap_or(0.0)
}

/// More ranges than this are not read; browsers send fewer than ten.
const RANGES_MAX: usize = 32;

/// The codes that routing makes.
pub(crate) const ROUTING_CODES: [u16; 2] = [404, 405];

/// The default pages of routing errors, where nothing but the form depends on the request.
static ROUTING_PAGES: LazyLock<[[String; 3]; 2]> = LazyLock::new(|| {
    ROUTING_CODES.map(|code| {
        [Format::Html, Format::Problem, Format::Text].map(|format| {
            let error = &HttpError::new(code);
            let page = Page {
                error,
                format,
                request_id: None,
                with_detail: false,
            };
            page.body()
        })
    })
});

/// Makes the page of a routing error's response, which has no body.
#[inline(never)]
pub(crate) fn dress(response: &mut Response, format: Format, negotiates: bool) {
    let [not_found, not_allowed] = &*ROUTING_PAGES;
    let pages = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => not_allowed,
        _ => not_found,
    };
    let page: &'static str = match format {
        Format::Html => &pages[0],
        Format::Problem => &pages[1],
        Format::Text => &pages[2],
    };
    *response.body_mut() = Body::from(Bytes::from_static(page.as_bytes()));
    let headers = response.headers_mut();
    // Nearly always there is no other: then one function does for both.
    let is_first = headers.is_empty();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, format.content_type());
    if negotiates {
        // A cache must not give the page of one client to another.
        let accept = HeaderValue::from_static("accept");
        match is_first {
            true => _ = headers.insert(VARY, accept),
            false => _ = headers.append(VARY, accept),
        }
    }
}

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
    fn body(&self) -> String {
        match self.format {
            Format::Html => self.html(),
            Format::Problem => self.problem(),
            Format::Text => self.text(),
        }
    }

    /// The response: status, the error's headers, and the page in its format.
    pub(crate) fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.error.status();
        *response.headers_mut() = self.error.headers();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, self.format.content_type());
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
    let Some(first) = text.bytes().position(is_special) else {
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

/// Tells whether a byte means something else in HTML than itself.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'')
}

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
        check("Application/JSON", Format::Problem);
        check("TEXT/Plain;level=1;Q=0.5", Format::Text);
        check("application/ld+JSON;q=0.1", Format::Problem);
        check("json, text/é", Format::Html);
        check("application/json;q=0", Format::Html);
        check("application/json;q=2, text/plain;q=0.1", Format::Text);
        check("*/*;q=0.5, application/problem+json;q=0.5", Format::Problem);
        check("*/*, application/json", Format::Problem);
        check("text/plain;q=0.5,*/*", Format::Html);
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
