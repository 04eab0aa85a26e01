//! One issue: what happened, to whom, how often, and why these events are together.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_protocol::{Event, EventId, Timestamp};
use minijinja::{Value, context};
use serde::Deserialize;
use serde_json::Value as Json;

use super::issues::{hours_before, split_title};
use super::{Failure, format};
use crate::app::{Tracker, now};
use crate::grouping::Part;
use crate::model::{Decision, Issue, IssueId, Status, StoredEvent, TagCount, User, Which};
use crate::store::{self, IssueHash, IssueHint};

const HOURS: i64 = 24;
const DAYS: i64 = 30;

/// More breadcrumbs than this are noise on a page; the JSON has all.
const BREADCRUMBS_SHOWN: usize = 100;

/// A longer table is folded.
const PAIRS_OPEN_MAX: usize = 15;

/// Contexts that the page shows elsewhere or that tell people nothing.
const CONTEXTS_HIDDEN: &[&str] = &["trace"];

/// Shows an issue with its latest event.
pub(super) async fn latest(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path(issue): Path<i64>,
) -> Result<Response, Failure> {
    show(&tracker, &user, IssueId(issue), Which::Latest).await
}

/// Shows an issue with one of its events: an id, `first`, or `latest`.
pub(super) async fn event(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path((issue, event)): Path<(i64, String)>,
) -> Result<Response, Failure> {
    show(&tracker, &user, IssueId(issue), which(&event)?).await
}

/// Gives the stored event as it is.
pub(super) async fn json(
    State(tracker): State<Tracker>,
    Path((issue, event)): Path<(i64, String)>,
) -> Result<Response, Failure> {
    let which = which(&event)?;
    let stored = tracker
        .with_store(move |store| store.issue_event(IssueId(issue), which))
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], stored.json).into_response())
}

fn which(text: &str) -> Result<Which, Failure> {
    match text {
        "first" | "oldest" => Ok(Which::First),
        "latest" => Ok(Which::Latest),
        id => id
            .parse()
            .map(Which::Id)
            .map_err(|_| Failure::not_found("event")),
    }
}

#[derive(Deserialize)]
pub(super) struct NewStatus {
    status: String,
}

/// Takes a decision of people about an issue.
pub(super) async fn decide(
    State(tracker): State<Tracker>,
    Path(issue): Path<i64>,
    Form(new): Form<NewStatus>,
) -> Result<Response, Failure> {
    let decision = match new.status.parse() {
        Ok(Status::Unresolved) => Decision::Unresolve,
        Ok(Status::Resolved) => Decision::Resolve,
        Ok(Status::Muted) => Decision::Mute {
            until: None,
            events: None,
        },
        Err(()) => {
            let detail = "an issue is unresolved, resolved or muted";
            return Err(Failure::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    tracker
        .with_store(move |store| store.decide(IssueId(issue), decision))
        .await?;
    Ok(tracker.to(&format!("/issues/{issue}/")).into_response())
}

/// Everything that the page of an issue needs from the store.
struct Found {
    issue: Issue,
    event: Option<StoredEvent>,
    before: Option<EventId>,
    after: Option<EventId>,
    day: Vec<u64>,
    month: Vec<u64>,
    tags: Vec<TagCount>,
    hashes: Vec<IssueHash>,
    hints: Vec<IssueHint>,
    project_name: String,
}

async fn show(
    tracker: &Tracker,
    user: &User,
    id: IssueId,
    which: Which,
) -> Result<Response, Failure> {
    let now = now();
    let found = tracker
        .with_store(move |store| {
            let issue = store.issue(id)?;
            let one = |which| store::optional(store.issue_event(id, which));
            let event = one(which)?;
            let (before, after) = match &event {
                Some(event) => (one(Which::Before(event.id))?, one(Which::After(event.id))?),
                None => (None, None),
            };
            Ok(Found {
                day: store.buckets(id, hours_before(now, HOURS), now, 60)?,
                month: store.buckets(id, hours_before(now, DAYS * 24), now, 24 * 60)?,
                tags: store.tags(id, 1)?,
                hashes: store.issue_hashes(id)?,
                hints: store.issue_hints(id)?,
                project_name: store.project(issue.project)?.name,
                before: before.map(|event| event.id),
                after: after.map(|event| event.id),
                issue,
                event,
            })
        })
        .await?;
    let issue = &found.issue;
    let decoded = found.event.as_ref().map(|stored| (stored, stored.event()));
    let (event, stacktrace) = match &decoded {
        Some((stored, Ok(event))) => (
            Some(event_context(tracker, id, stored, event, now)),
            stacktrace_of(event),
        ),
        Some((stored, Err(error))) => {
            tracing::error!(event = %stored.id, %error, "a stored event cannot be read");
            (None, String::new())
        }
        None => (None, String::new()),
    };
    let event_link = |to: Option<&str>, name: &str| {
        let href = to.map(|to| format!("{}/issues/{id}/events/{to}/", tracker.0.root));
        context! { name, href }
    };
    let (before, after) = (
        found.before.map(|id| id.to_string()),
        found.after.map(|id| id.to_string()),
    );
    let event_nav = vec![
        event_link(before.as_ref().map(|_| "first"), "First"),
        event_link(before.as_deref(), "Older"),
        event_link(after.as_deref(), "Newer"),
        event_link(after.as_ref().map(|_| "latest"), "Latest"),
    ];
    let (ty, value) = split_title(&issue.title);
    let context = context! {
        project => context! {
            name => &found.project_name, slug => &issue.project_slug, org => &issue.organization,
        },
        issue => context! {
            id => issue.id.0, short_id => &issue.short_id, title => &issue.title, ty, value,
            culprit => &issue.culprit,
            level => issue.level.as_str(),
            status => issue.status.as_str(),
            regressed => issue.status == Status::Unresolved && issue.regressions > 0,
            count => format::count(issue.count),
            first_seen => Value::from_safe_string(format::ago(issue.first_seen, now)),
            last_seen => Value::from_safe_string(format::ago(issue.last_seen, now)),
            spark_day => Value::from_safe_string(format::spark(&found.day, "24 hours")),
            spark_month => Value::from_safe_string(format::spark(&found.month, "30 days")),
            facts => facts(issue),
            tags => tag_bars(&found.tags),
            reason => super::sentence(&issue.reason),
            hints => found.hints.iter().map(hint_context).collect::<Vec<_>>(),
            hashes => found.hashes.iter().map(hash_context).collect::<Vec<_>>(),
        },
        title => &issue.title,
        actions => actions(issue.status),
        event, event_nav,
        stacktrace => Value::from_safe_string(stacktrace),
    };
    Ok(tracker
        .page(user, "issues", "issue.html", context)?
        .into_response())
}

fn hint_context(hint: &IssueHint) -> Value {
    let (ty, value) = split_title(&hint.issue.title);
    context! {
        id => hint.issue.id.0, short_id => &hint.issue.short_id, ty, value,
        status => hint.issue.status.as_str(),
        reason => super::sentence(&hint.reason),
        percent => (hint.likeness * 100.0).round() as u64,
    }
}

/// A hash as people read it: what it does, and the texts it was made from.
fn hash_context(hash: &IssueHash) -> Value {
    let text = hash.hash.to_string();
    let made_of: Vec<Value> = hash
        .made_of
        .iter()
        .map(|ingredient| {
            let value = match &*ingredient.name {
                "types" => ingredient.value.replace('\n', ", caused by "),
                _ => ingredient.value.clone(),
            };
            context! { name => titled(&ingredient.name), value }
        })
        .collect();
    context! {
        short => &text[..8],
        full => text,
        version => hash.version,
        decides => hash.is_primary,
        title => hash.part.map_or("Another kind", Part::title),
        purpose => hash.part.map_or("", Part::purpose),
        made_of,
    }
}

fn stacktrace_of(event: &Event) -> String {
    backstop::stacktrace::render(event, &backstop::stacktrace::Options::default())
}

fn actions(status: Status) -> Vec<Value> {
    let resolve = context! { status => "resolved", name => "Resolve", primary => true };
    let mute = context! { status => "muted", name => "Mute", primary => false };
    let reopen = context! { status => "unresolved", name => "Reopen", primary => false };
    match status {
        Status::Unresolved => vec![resolve, mute],
        Status::Resolved => vec![reopen],
        Status::Muted => vec![resolve, reopen],
    }
}

fn facts(issue: &Issue) -> Vec<Value> {
    let users = (issue.users > 0).then(|| format::count(issue.users));
    let all = [
        ("Users", users),
        ("First release", issue.first_release.clone()),
        ("Last release", issue.last_release.clone()),
        ("Platform", issue.platform.clone()),
    ];
    all.into_iter()
        .filter_map(|(key, value)| value.map(|value| context! { key, value }))
        .collect()
}

/// The most frequent value of each tag, with its share; of a tag whose values are all different,
/// such as the number of a request, how many there are.
fn tag_bars(tags: &[TagCount]) -> Vec<Value> {
    let bars = tags.iter().filter_map(|tag| {
        let top = tag.values.first()?;
        if top.count == 1 && tag.total > 1 {
            // Beyond a limit values are only counted, and may be alike.
            let more = if tag.other == 0 { "" } else { "more than " };
            let different = format!("{more}{} different values", tag.total - tag.other);
            return Some(context! { key => &tag.key, different });
        }
        let percent = (top.count * 100).checked_div(tag.total)?;
        Some(context! { key => &tag.key, value => &top.value, percent })
    });
    bars.collect()
}

fn event_context(
    tracker: &Tracker,
    issue: IssueId,
    stored: &StoredEvent,
    event: &Event,
    now: Timestamp,
) -> Value {
    let id = stored.id.to_string();
    let tags: Vec<Value> = event
        .tags
        .iter()
        .map(|(key, value)| context! { key, value => format::value(value) })
        .collect();
    // Old clients repeat the exception as a message.
    let said = event
        .exception
        .last()
        .map(|shown| shown.value.clone().unwrap_or_default());
    let message = event.message.as_ref().and_then(|message| {
        message
            .formatted
            .as_ref()
            .or(message.message.as_ref())
            .filter(|message| {
                !said
                    .as_ref()
                    .is_some_and(|said| message.contains(said.as_str()))
            })
            .cloned()
    });
    context! {
        short_id => &id[..8],
        json => format!("{}/issues/{issue}/events/{id}/json/", tracker.0.root),
        when => Value::from_safe_string(format::ago(stored.timestamp, now)),
        release => &event.release,
        environment => &event.environment,
        tags, message,
        breadcrumbs => breadcrumbs(event),
        sections => sections(event),
    }
}

fn breadcrumbs(event: &Event) -> Vec<Value> {
    event
        .breadcrumbs
        .iter()
        .rev()
        .take(BREADCRUMBS_SHOWN)
        .map(|crumb| {
            let time = crumb
                .timestamp
                .map(|time| time.to_string()[11..19].to_owned());
            let category = crumb.category.as_ref().or(crumb.ty.as_ref());
            let data = crumb.data.as_deref().map(short_pairs).unwrap_or_default();
            let message = crumb.message.as_deref().unwrap_or_default();
            let gap = if message.is_empty() || data.is_empty() {
                ""
            } else {
                " · "
            };
            context! {
                time => time.unwrap_or_default(),
                category => category.map_or("note", |category| category),
                level => crumb.level.as_deref().unwrap_or("info"),
                text => format!("{message}{gap}{data}"),
            }
        })
        .collect()
}

fn short_pairs(data: &Json) -> String {
    match data {
        Json::Object(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| match value {
                Json::String(text) => format!("{key}={text}"),
                value => format!("{key}={value}"),
            });
            pairs.collect::<Vec<_>>().join(" ")
        }
        Json::Null => String::new(),
        value => value.to_string(),
    }
}

/// The tables below the stack: request, user, contexts, extra, and what the server noted.
fn sections(event: &Event) -> Vec<Value> {
    let mut sections = Vec::new();
    let mut add = |name: &str, note: String, pairs: Vec<(String, String)>| {
        if !pairs.is_empty() {
            let pairs: Vec<Value> = pairs
                .into_iter()
                .map(|(key, value)| context! { key, value })
                .collect();
            let folded = pairs.len() > PAIRS_OPEN_MAX;
            sections.push(context! { name, note, pairs, folded });
        }
    };
    if let Some(request) = &event.request {
        let method = request.method.as_deref().unwrap_or("GET");
        let url = request.url.as_deref().unwrap_or_default();
        let mut pairs = Vec::new();
        for (name, value) in [
            ("Query", &request.query_string),
            ("Body", &request.data),
            ("Cookies", &request.cookies),
        ] {
            if let Some(value) = value.as_ref().filter(|value| !is_empty(value)) {
                pairs.push((name.to_owned(), format::value(value)));
            }
        }
        pairs.extend(pairs_of(request.headers.as_ref()));
        pairs.extend(pairs_of(request.env.as_ref()));
        if pairs.is_empty() && !url.is_empty() {
            pairs.push(("URL".to_owned(), url.to_owned()));
        }
        add("Request", format!("{method} {url}"), pairs);
    }
    if let Some(user) = &event.user {
        let mut pairs = Vec::new();
        let id = user.id.as_ref().map(format::value);
        for (name, value) in [
            ("Id", &id),
            ("E-mail", &user.email),
            ("Name", &user.username),
            ("Address", &user.ip_address),
        ] {
            pairs.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
        }
        pairs.extend(
            user.other
                .iter()
                .map(|(key, value)| (key.clone(), format::value(value))),
        );
        add("User", String::new(), pairs);
    }
    for (name, context) in &event.contexts {
        if !CONTEXTS_HIDDEN.contains(&name.as_str()) {
            let mut pairs = pairs_of(Some(context));
            pairs.retain(|(key, _)| key != "type");
            add(&titled(name), String::new(), pairs);
        }
    }
    let extra = event
        .extra
        .iter()
        .map(|(key, value)| (key.clone(), format::value(value)));
    add("Extra", String::new(), extra.collect());
    let about = [
        ("Host", event.server_name.clone()),
        ("Logger", event.logger.clone()),
        ("Distribution", event.dist.clone()),
        (
            "Client",
            event.sdk.as_ref().and_then(|sdk| {
                let name = sdk.name.as_ref()?;
                Some(format!(
                    "{name} {}",
                    sdk.version.as_deref().unwrap_or_default()
                ))
            }),
        ),
    ];
    let about = about
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    add("Sender", String::new(), about.collect());
    let modules = event
        .modules
        .iter()
        .map(|(key, value)| (key.clone(), format::value(value)));
    add("Packages", String::new(), modules.collect());
    sections
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(pairs) => pairs.is_empty(),
        Json::Bool(_) | Json::Number(_) => false,
    }
}

/// Headers and the like come as an object or as pairs.
fn pairs_of(value: Option<&Json>) -> Vec<(String, String)> {
    match value {
        Some(Json::Object(pairs)) => pairs
            .iter()
            .map(|(key, value)| (key.clone(), format::value(value)))
            .collect(),
        Some(Json::Array(items)) => items
            .iter()
            .filter_map(|item| match item.as_array()?.as_slice() {
                [Json::String(key), value] => Some((key.clone(), format::value(value))),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// `app_memory` as a heading: `App memory`.
fn titled(name: &str) -> String {
    let name = name.replace('_', " ");
    let mut letters = name.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().collect::<String>());
    first.unwrap_or_default() + letters.as_str()
}
