//! Inbound filters: events that a project does not want, and by which rule.

use backstop_protocol::Event;
use serde_json::Value;

use super::settings::Settings;

/// Globs match in time that is linear in the text for each star; a message is cut before that.
const TEXT_BYTES_MAX: usize = 1000;

/// Says which rule an event falls under, in the words of the outcomes.
pub(super) fn filtered_by(event: &Event, settings: &Settings, agent: &str) -> Option<&'static str> {
    let filter = &settings.filter;
    let any = |globs: &[String], text: Option<&str>| {
        text.is_some_and(|text| globs.iter().any(|pattern| glob(pattern, text)))
    };
    if any(&filter.releases, event.release.as_deref()) {
        return Some("release");
    }
    if any(&filter.environments, event.environment.as_deref()) {
        return Some("environment");
    }
    if !filter.errors.is_empty() && is_unwanted_error(event, &filter.errors) {
        return Some("error_message");
    }
    if filter.browser_extensions && is_of_extension(event) {
        return Some("browser_extensions");
    }
    if filter.crawlers && is_crawler(user_agent(event).unwrap_or(agent)) {
        return Some("web_crawlers");
    }
    if filter.localhost && is_localhost(event) {
        return Some("localhost");
    }
    None
}

fn is_unwanted_error(event: &Event, globs: &[String]) -> bool {
    let matches = |text: &str| globs.iter().any(|pattern| glob(pattern, text));
    let of_exception = event.exception.iter().any(|exception| {
        let ty = exception.ty.as_deref().unwrap_or_default();
        let value = exception.value.as_deref().unwrap_or_default();
        matches(ty) || matches(value) || matches(&format!("{ty}: {}", cut(value)))
    });
    let message = event.message.as_ref();
    let text = message.and_then(|message| {
        let text = message.formatted.as_deref();
        text.or(message.message.as_deref())
    });
    of_exception || text.is_some_and(matches)
}

/// Extensions run inside other people's pages, so their faults arrive as the pages' own.
fn is_of_extension(event: &Event) -> bool {
    const SCHEMES: [&str; 7] = [
        "chrome-extension://",
        "moz-extension://",
        "safari-extension://",
        "safari-web-extension://",
        "ms-browser-extension://",
        "resource://",
        "webkit-masked-url://",
    ];
    const SAYINGS: [&str; 6] = [
        "top.GLOBALS",
        "originalCreateNotification",
        "canvas.contentDocument",
        "MyApp_RemoveAllHighlights",
        "http://tt.epicplay.com",
        "Can't find variable: ZiteReader",
    ];
    let Some(exception) = event.exception.last() else {
        return false;
    };
    let value = exception.value.as_deref().unwrap_or_default();
    let place = exception
        .stacktrace
        .as_ref()
        .and_then(|stacktrace| stacktrace.frames.last())
        .and_then(|frame| frame.abs_path.as_deref().or(frame.filename.as_deref()))
        .unwrap_or_default();
    SCHEMES.iter().any(|scheme| place.starts_with(scheme))
        || SAYINGS.iter().any(|saying| value.contains(saying))
}

fn is_crawler(agent: &str) -> bool {
    const CRAWLERS: [&str; 14] = [
        "googlebot",
        "bingbot",
        "yandexbot",
        "baiduspider",
        "duckduckbot",
        "slurp",
        "applebot",
        "twitterbot",
        "facebookexternalhit",
        "slackbot",
        "mediapartners-google",
        "ahrefsbot",
        "semrushbot",
        "crawler",
    ];
    let agent = cut(agent).to_ascii_lowercase();
    CRAWLERS.iter().any(|crawler| agent.contains(crawler))
}

fn is_localhost(event: &Event) -> bool {
    let request = event.request.as_ref();
    let Some(url) = request.and_then(|request| request.url.as_deref()) else {
        return false;
    };
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or(host);
    let host = host.rsplit('@').next().unwrap_or(host);
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    url.starts_with("file:")
        || matches!(name, "localhost" | "127.0.0.1" | "0.0.0.0" | "::1")
        || name.ends_with(".localhost")
        || name.ends_with(".local")
}

/// Returns the browser that met the error, as the request's headers have it.
pub(super) fn user_agent(event: &Event) -> Option<&str> {
    match event.request.as_ref()?.headers.as_ref()? {
        Value::Object(headers) => headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
            .and_then(|(_, value)| value.as_str()),
        Value::Array(pairs) => pairs
            .iter()
            .find_map(|pair| match pair.as_array()?.as_slice() {
                [name, value] if name.as_str()?.eq_ignore_ascii_case("user-agent") => {
                    value.as_str()
                }
                _ => None,
            }),
        _ => None,
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Says whether a pattern with `*` and `?` matches a whole text, ignoring the case of ASCII.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), cut(text).as_bytes());
    let (mut at, mut place) = (0, 0);
    // Where to go on if the last star has to take one byte more.
    let mut star = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, place));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[place]) => {
                at += 1;
                place += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    at = after;
                    place = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn globs() {
        for (pattern, text) in [
            ("shop@1.*", "shop@1.4.2"),
            ("*", ""),
            ("", ""),
            ("a?c", "abc"),
            ("A*C", "abbc"),
            ("*Error: *gone*", "IoError: it is gone now"),
            ("**", "x"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("", "a"),
            ("a*b", "abc"),
            ("?", ""),
            ("b*", "ab"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
        let stars = "*a".repeat(50);
        assert!(!glob(&stars, &"b".repeat(100_000)));
    }

    #[test]
    fn every_filter() {
        let check = |filter: Value, event: Value, expected: Option<&str>| {
            let settings = Settings::parse(&json!({"filter": filter}).to_string()).unwrap();
            let event = Event::decode(event.to_string().as_bytes()).unwrap();
            assert_eq!(filtered_by(&event, &settings, "curl"), expected, "{filter}");
        };
        let error = json!({
            "release": "shop@1.4.2",
            "environment": "staging",
            "exception": [{"type": "IoError", "value": "it is gone", "stacktrace": {"frames": [
                {"abs_path": "chrome-extension://abc/x.js"}]}}],
            "request": {"url": "http://localhost:3000/", "headers": {"User-Agent": "Googlebot/2.1"}},
        });
        check(json!({}), error.clone(), None);
        check(
            json!({"releases": ["shop@1.*"]}),
            error.clone(),
            Some("release"),
        );
        check(json!({"releases": ["shop@2.*"]}), error.clone(), None);
        check(
            json!({"environments": ["stag*"]}),
            error.clone(),
            Some("environment"),
        );
        check(
            json!({"errors": ["IoError"]}),
            error.clone(),
            Some("error_message"),
        );
        check(
            json!({"errors": ["*: it is gone"]}),
            error.clone(),
            Some("error_message"),
        );
        check(json!({"errors": ["Other*"]}), error.clone(), None);
        check(
            json!({"browser_extensions": true}),
            error.clone(),
            Some("browser_extensions"),
        );
        check(
            json!({"crawlers": true}),
            error.clone(),
            Some("web_crawlers"),
        );
        check(json!({"localhost": true}), error, Some("localhost"));
        let plain = json!({"request": {"url": "https://shop.example/localhost"}, "message": "m"});
        check(
            json!({"browser_extensions": true, "crawlers": true, "localhost": true}),
            plain.clone(),
            None,
        );
        check(json!({"errors": ["m"]}), plain, Some("error_message"));
    }
}
