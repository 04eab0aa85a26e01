//! Crashes of Unreal Engine: a container of files, compressed as a whole.
//!
//! The engine's crash reporter sends one zlib stream. In it are a header that is only a place
//! holder, the files one after the other (number, name, length, bytes), and the header again with
//! the number of files at the very end; numbers are 32 bits, little-endian, and texts have a length
//! before them and zeros behind (`CompressedCrashFile` of the engine's `CrashReportCore`).
//! Newer engines write `CR1` first, and then the one header is true and nothing follows the files.
//! `CrashContext.runtime-xml` says what the engine knew; what Sentry's plug-in of the engine adds is
//! JSON in its `GameData/__sentry`, or MessagePack in a file named `__sentry-event`.
//! Every file is kept as an attachment; stacks are not walked.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use backstop_protocol::{Event, query_pairs};
use serde_json::{Map, Value, json};

use super::Ingest;
use super::body;
use super::caller::{project_of_path, split};
use super::envelope::{blocking, decode};
use super::event::EVENT_BYTES_MAX;
use super::minidump::{Field, event_of, is_dump};
use super::refusal::Refusal;

/// The engine writes four to ten files.
const FILES_MAX: usize = 200;
/// Elements of the context that are read; the engine writes about two hundred.
const NODES_MAX: u32 = 20_000;
/// Quotation marks in it, of which each attribute has two: the reader compares each attribute of an
/// element with all the others.
const QUOTES_MAX: usize = 4_000;
/// Values of the context are kept up to this length; the whole file is kept beside them.
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// The context with the engine's own stack as text.
const CONTEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

const CONTEXT_FILE: &str = "CrashContext.runtime-xml";
const PAYLOAD: &str = "__sentry";

pub(super) async fn unreal(
    State(ingest): State<Arc<Ingest>>,
    Path((project, key)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let project = project_of_path(&project)?;
    let caller = ingest
        .caller_of_head(&head, Some(project), Some(&key))
        .await?;
    let counted = |refusal| ingest.count_refusal(Some(&caller), refusal);
    let held = body::read(&head.headers, body, &ingest.memory).await;
    let held = decode(&head, held.map_err(counted)?).await;
    let held = held.map_err(counted)?;
    let files = blocking(move || {
        let held = body::inflate_zlib(&held)?;
        let files = files_of(&held.bytes);
        let files = files.ok_or_else(|| Refusal::bad("the crash file is broken"))?;
        Ok((files, held))
    });
    // The share of memory is kept as long as the files are.
    let (files, _held) = files.await?.map_err(counted)?;
    let mut event = event_of(&files).map_err(counted)?;
    say_what_failed(&mut event);
    let query = head.uri.query().unwrap_or_default();
    for (name, value) in query_pairs(query) {
        if name == "UserID" {
            add_user(&mut event, &value);
        }
    }
    ingest.take_crash(&caller, event, files).await
}

/// Cuts the container into what a form of a crash reporter would have had; `None` if it is none.
fn files_of(bytes: &[u8]) -> Option<Vec<Field>> {
    let mut rest = bytes.strip_prefix(b"CR1").unwrap_or(bytes);
    let is_old = rest.len() == bytes.len();
    let mut count = header_of(&mut rest)?;
    if is_old {
        let mut last = &bytes[bytes.len().checked_sub(4)?..];
        count = number(&mut last)?;
    }
    if count > FILES_MAX {
        return None;
    }
    let mut files = Vec::new();
    for _ in 0..count {
        let _number = take(&mut rest, 4)?;
        let name = text(&mut rest)?;
        let length = number(&mut rest)?;
        let content = take(&mut rest, length)?;
        add_file(&mut files, &name, content);
    }
    Some(files)
}

/// A header: the names of the directory and the file, the size of the content, the number of files.
fn header_of(rest: &mut &[u8]) -> Option<usize> {
    text(rest)?;
    text(rest)?;
    take(rest, 4)?;
    number(rest)
}

/// The engine's own words are the error's, as long as no stack says more.
fn say_what_failed(event: &mut Event) {
    let said = event.message.as_ref();
    let said = said.and_then(|message| message.formatted.clone().or(message.message.clone()));
    if let (Some(said), [only]) = (said, event.exception.as_mut_slice())
        && only.stacktrace.is_none()
        && only
            .mechanism
            .as_ref()
            .is_some_and(|mechanism| mechanism.synthetic == Some(true))
    {
        only.value = Some(said);
    }
}

fn add_file(files: &mut Vec<Field>, name: &str, content: &[u8]) {
    let is_context = name == CONTEXT_FILE
        && content.len() <= CONTEXT_BYTES_MAX
        && files.iter().all(|file| file.name != "sentry");
    if let Some(wire) = is_context.then(|| context_of(content)).flatten() {
        files.push(Field {
            name: "sentry".to_owned(),
            filename: None,
            content_type: None,
            bytes: wire.to_string().into_bytes(),
        });
    }
    let field = match name {
        // The names of the parts in a form.
        _ if name.starts_with("__sentry-") => name,
        _ if is_dump(content) => "upload_file_minidump",
        _ => "file",
    };
    files.push(Field {
        name: field.to_owned(),
        filename: Some(name.to_owned()),
        content_type: None,
        bytes: content.to_vec(),
    });
}

/// Reads what the engine knew, as members of an event.
fn context_of(xml: &[u8]) -> Option<Value> {
    if memchr::memchr2_iter(b'"', b'\'', xml).count() > QUOTES_MAX {
        return None;
    }
    let text = String::from_utf8_lossy(xml);
    let options = roxmltree::ParsingOptions {
        nodes_limit: NODES_MAX,
        ..roxmltree::ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(&text, options).ok()?;
    let values = |section: &str| -> Map<String, Value> {
        let section = document
            .root_element()
            .children()
            .find(|child| child.has_tag_name(section));
        let elements = section.into_iter().flat_map(|section| section.children());
        elements
            .filter(roxmltree::Node::is_element)
            .filter_map(|element| {
                let value = element.text()?.trim();
                let is_kept = !value.is_empty() && value.len() <= VALUE_BYTES_MAX;
                is_kept.then(|| (element.tag_name().name().to_owned(), Value::from(value)))
            })
            .collect()
    };
    let mut game = document
        .root_element()
        .children()
        .find(|child| child.has_tag_name("GameData"))
        .and_then(|game| game.children().find(|child| child.has_tag_name(PAYLOAD)))
        .and_then(|payload| payload.text())
        .filter(|payload| payload.len() <= EVENT_BYTES_MAX)
        .and_then(|payload| serde_json::from_str(payload).ok())
        .and_then(|payload: Value| match payload {
            Value::Object(payload) => Some(payload),
            _ => None,
        })
        .unwrap_or_default();
    let runtime = values("RuntimeProperties");
    let mut others = values("GameData");
    others.remove(PAYLOAD);
    let wire = &mut game;
    if let Some(message) = runtime.get("ErrorMessage") {
        let logentry = json!({ "formatted": message });
        wire.entry("logentry").or_insert(logentry);
    }
    if let Some(name) = runtime.get("UserName") {
        let user = wire.entry("user").or_insert_with(|| json!({}));
        if let Value::Object(user) = user {
            user.entry("username").or_insert_with(|| name.clone());
        }
    }
    let contexts = wire.entry("contexts").or_insert_with(|| json!({}));
    if let Value::Object(contexts) = contexts {
        for (name, section) in [
            ("unreal", runtime),
            ("game", others),
            ("engine", values("EngineData")),
        ] {
            if !section.is_empty() {
                contexts.entry(name).or_insert(Value::Object(section));
            }
        }
    }
    Some(Value::Object(game))
}

/// The reporter tells of the user in its query: `login|Epic account|machine`.
fn add_user(event: &mut Event, text: &str) {
    let mut parts = text.split('|');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    if let Some(id) = next() {
        let user = event.user.get_or_insert_default();
        user.id.get_or_insert_with(|| id.into());
    }
    for tag in ["epic_account_id", "machine_id"] {
        if let Some(value) = next() {
            event.tags.insert(tag.to_owned(), value.into());
        }
    }
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, others) = rest.split_at_checked(length)?;
    *rest = others;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 4)?.try_into().ok()?;
    usize::try_from(i32::from_le_bytes(bytes)).ok()
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = number(rest)?;
    let bytes = take(rest, length)?;
    let end = bytes.iter().rposition(|byte| *byte != 0);
    let bytes = &bytes[..end.map_or(0, |end| end + 1)];
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// Reads any bytes as a container and as a context, for the fuzz target.
pub(super) fn read_any(bytes: &[u8]) {
    if let Some(files) = files_of(bytes) {
        let _ = event_of(&files);
    }
    let _ = context_of(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_container_is_none() {
        assert!(files_of(b"").is_none());
        assert!(files_of(&[0xff; 64]).is_none());
        assert!(files_of(&[1, 0, 0, 0]).is_none());
        // No file at all is a container.
        assert_eq!(files_of(&[0; 32]).map(|files| files.len()), Some(0));
    }

    #[test]
    fn a_context_of_any_text() {
        assert_eq!(context_of(b"<x>"), None);
        assert_eq!(context_of(b"<a/>"), Some(json!({"contexts": {}})));
        let nested = "<a>".repeat(100_000);
        assert_eq!(context_of(nested.as_bytes()), None);
        let attributes: String = (0..100_000).map(|n| format!(" a{n}=''")).collect();
        assert_eq!(context_of(format!("<a{attributes}/>").as_bytes()), None);
    }
}
