//! What a text without a stack is about.
//!
//! [`value::template`] recognises data by its shape. Plain words can be data as well
//! (`no feed for amber`), and three witnesses know: the literal in the logging statement, the
//! values of the request, and the other messages of the project.

use backstop_protocol::Event;
use serde_json::Value;

use super::learn::{Learned, number};
use super::value::{cut, literal_words, template};

/// A word that is data.
const WORD: &str = "<word>";
/// Words at which a message may vary; longer messages are told apart by their beginning.
const POSITIONS_MAX: usize = 8;
/// Words of the request that are compared with a message.
const REQUEST_WORDS_MAX: usize = 64;
const REQUEST_WORD_BYTES_MAX: usize = 64;

/// Returns the template of a text, with the words that the raising or logging statement or the
/// request prove to be data; `literals` are the words of the text that the statement holds.
pub(super) fn proven_template(event: &Event, text: &str, literals: Option<&str>) -> String {
    let template = template(text);
    if let Some(literals) = literals {
        // Without a single literal the text comes from elsewhere and the line proves nothing.
        if !literals.is_empty() {
            let literals: Vec<&str> = literals.split(' ').collect();
            return replace_words(&template, |word| !literals.contains(&word));
        }
    }
    let data = request_words(event);
    if data.is_empty() {
        return template;
    }
    // A request with `state=failed` does not make every "payment failed" one with the others.
    replace_words(&template, |word| is_data_like(word) && data.contains(&word))
}

/// The templates in which one word each is left open.
pub(super) fn open_templates(template: &str) -> Vec<(String, &str)> {
    const LITERALS_MIN: usize = 3;
    if literal_words(template) < LITERALS_MIN {
        return Vec::new();
    }
    let candidates = template.split(' ').filter(|word| is_data_like(word));
    candidates
        .take(POSITIONS_MAX)
        .map(|word| {
            let at = word.as_ptr() as usize - template.as_ptr() as usize;
            (
                format!("{}{WORD}{}", &template[..at], &template[at + word.len()..]),
                word,
            )
        })
        .collect()
}

/// The number of an open template in its scope.
pub(super) fn position(scope: u64, template: &str) -> u64 {
    scope ^ number([template])
}

/// Says whether exactly one word of a template is known to be data.
pub(super) fn has_one_word(template: &str) -> bool {
    template.matches(WORD).count() == 1
}

/// Notes the words of a message and returns the open template that has been seen with several
/// words by now.
pub(super) fn learned_template(
    learned: &mut Learned,
    scope: u64,
    open: &[(String, &str)],
) -> Option<usize> {
    let mut found = None;
    for (index, (template, word)) in open.iter().enumerate() {
        if learned.note_word(position(scope, template), number([*word])) {
            found = found.or(Some(index));
        }
    }
    found
}

/// Whether a word could be a name of something: letters only, and no word of the trade.
fn is_data_like(word: &str) -> bool {
    let word = word.trim_matches(|c: char| c.is_ascii_punctuation());
    word.len() >= 3
        && word
            .chars()
            .all(|c| c.is_alphabetic() || matches!(c, '-' | '_'))
        && !COMMON.contains(&word.to_lowercase().as_str())
}

/// Words that say what happened rather than to what.
static COMMON: std::sync::LazyLock<std::collections::HashSet<&'static str>> =
    std::sync::LazyLock::new(|| {
        let lines = include_str!("data/common_words.txt").lines();
        lines
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .collect()
    });

fn replace_words(template: &str, is_data: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find(|c: char| c.is_alphabetic() || c == '<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('<') {
            // A placeholder stays whole.
            let end = rest.find('>').map_or(1, |at| at + 1);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let end = rest
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_short = word.chars().nth(1).is_none();
        out.push_str(if !is_short && is_data(word) {
            WORD
        } else {
            word
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The words that came with the request: values of the query and the body, and what the path has
/// beyond its route.
fn request_words(event: &Event) -> Vec<&str> {
    let mut words = Vec::new();
    let Some(request) = &event.request else {
        return words;
    };
    if let Some(url) = &request.url {
        let path = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        // A segment that the transaction names belongs to the route.
        let route = event.transaction.as_deref().unwrap_or_default();
        let segments = path
            .split('/')
            .skip(1)
            .filter(|segment| !segment.is_empty());
        words.extend(segments.filter(|segment| !route.contains(segment)));
    }
    if let Some(query) = &request.query_string {
        collect(query, &mut words);
    }
    if let Some(data) = &request.data {
        collect(data, &mut words);
    }
    words.retain(|word| word.len() >= 3 && word.len() <= REQUEST_WORD_BYTES_MAX);
    words
}

fn collect<'a>(value: &'a Value, words: &mut Vec<&'a str>) {
    if words.len() >= REQUEST_WORDS_MAX {
        return;
    }
    match value {
        Value::String(text) => {
            let pairs = cut(text, 1024).split('&');
            let values = pairs.map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
            words.extend(
                values
                    .flat_map(|value| value.split([',', '+', ' ']))
                    .take(REQUEST_WORDS_MAX),
            );
        }
        Value::Array(values) => match values.as_slice() {
            // A pair of key and value.
            [Value::String(_), value @ Value::String(_)] => collect(value, words),
            values => values.iter().for_each(|value| collect(value, words)),
        },
        Value::Object(map) => map.values().for_each(|value| collect(value, words)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::{Frame, Request};
    use serde_json::json;

    use super::super::statement::Statement;
    use super::*;

    #[test]
    fn words_that_are_proven_to_be_data() {
        let mut event = Event::default();
        let text = "no feed for amber at 12";
        assert_eq!(
            proven_template(&event, text, None),
            "no feed for amber at <num>"
        );
        let frame = Frame {
            context_line: Some("log(`no feed for ${name} at ${n}`)".into()),
            ..Frame::default()
        };
        let literals = Statement::of(&frame).unwrap().literal_words(text);
        assert_eq!(
            proven_template(&event, text, Some(&literals)),
            "no feed for <word> at <num>"
        );
        event.request = Some(Request {
            query_string: Some(json!("feed=amber&x=1")),
            ..Request::default()
        });
        assert_eq!(
            proven_template(&event, text, None),
            "no feed for <word> at <num>"
        );
        event.request = Some(Request {
            query_string: Some(json!("feed=amber&state=failed")),
            ..Request::default()
        });
        assert_eq!(
            proven_template(&event, "feed amber failed", None),
            "feed <word> failed"
        );
    }

    #[test]
    fn a_position_with_three_words_is_data() {
        let mut learned = Learned::default();
        let mut learn = |text: &str| {
            let open = open_templates(text);
            learned_template(&mut learned, 0, &open).map(|index| open[index].0.clone())
        };
        assert_eq!(learn("feed amber is stale"), None);
        assert_eq!(learn("feed birch is stale"), None);
        assert_eq!(
            learn("feed cedar is stale"),
            Some("feed <word> is stale".into())
        );
        // Verbs are not data, however many there are.
        assert_eq!(learn("cannot read cache entry"), None);
        assert_eq!(learn("cannot write cache entry"), None);
        assert_eq!(learn("cannot delete cache entry"), None);
    }
}
