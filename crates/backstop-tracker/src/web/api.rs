//! The web API for programs, with Sentry's paths and field names.
//!
//! Every call needs `Authorization: Bearer TOKEN`; errors are `{"detail": "…"}`.
//! Paths and shapes follow <https://docs.sentry.io/api/>; ids are text there, and so here.

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use backstop_protocol::EventId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use crate::app::Tracker;
use crate::model::{
    ApiToken, Decision, Issue, IssueId, IssueQuery, Project, Status, StoredEvent, Which,
};
use crate::store::ErrorKind;

/// Returns the routes below `/api/0/`.
pub(super) fn router(tracker: Tracker) -> Router<Tracker> {
    Router::new()
        .route("/api/0/", get(info))
        .route("/api/0/organizations/", get(organizations))
        .route("/api/0/organizations/{org}/projects/", get(projects))
        .route(
            "/api/0/organizations/{org}/eventids/{event}/",
            get(event_place),
        )
        .route(
            "/api/0/projects/{org}/{project}/issues/",
            get(issues).put(decide_many),
        )
        .route(
            "/api/0/projects/{org}/{project}/events/{event}/",
            get(event),
        )
        .route(
            "/api/0/projects/{org}/{project}/events/{event}/json/",
            get(event_json),
        )
        .route("/api/0/issues/{issue}/", get(issue).put(decide))
        .route("/api/0/issues/{issue}/events/{which}/", get(issue_event))
        .route("/api/0/issues/{issue}/similar/", get(similar))
        .route(
            "/api/0/organizations/{org}/issues/{issue}/similar/",
            get(similar),
        )
        .route(
            "/api/0/issues/{issue}/hashes/",
            get(groups).put(split).delete(split),
        )
        .route(
            "/api/0/organizations/{org}/issues/{issue}/hashes/",
            get(groups).put(split).delete(split),
        )
        .merge(super::records::router())
        .merge(super::releases::router())
        .route_layer(from_fn_with_state(tracker, require_token))
}

pub(super) type Answer<T> = Result<T, Failure>;

async fn require_token(State(tracker): State<Tracker>, mut req: Request, next: Next) -> Response {
    let header = req
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let secret = header.and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| secret.trim().to_owned())
    });
    let Some(secret) = secret else {
        let detail = "this needs `Authorization: Bearer TOKEN`; `backstop token create` makes one";
        return unauthorized(detail);
    };
    match tracker.with_store(move |store| store.token(&secret)).await {
        Ok(Some(token)) if may(&token, req.method().is_safe()) => {
            req.extensions_mut().insert(token);
            next.run(req).await
        }
        Ok(Some(token)) => {
            let needed = if req.method().is_safe() {
                "read"
            } else {
                "write"
            };
            let detail = format!(
                "the token has only the scope {}; this needs one that ends in `:{needed}`",
                token.scopes.join(", ")
            );
            Failure::new(StatusCode::FORBIDDEN, detail).into_response()
        }
        Ok(None) => unauthorized("this token is not known"),
        Err(failure) => failure.into_response(),
    }
}

fn unauthorized(detail: &str) -> Response {
    let mut response = Failure::new(StatusCode::UNAUTHORIZED, detail).into_response();
    let challenge = HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// A scope is `thing:read`, `thing:write` or `thing:admin`; writing includes reading.
fn may(token: &ApiToken, reading: bool) -> bool {
    token.scopes.is_empty()
        || token
            .scopes
            .iter()
            .any(|scope| match scope.rsplit_once(':') {
                Some((_, "read")) => reading,
                Some((_, "write" | "admin")) => true,
                _ => false,
            })
}

async fn info(axum::Extension(token): axum::Extension<ApiToken>) -> Json<Value> {
    Json(json!({
        "version": "0",
        "auth": { "scopes": token.scopes },
        "user": Value::Null,
    }))
}

async fn organizations(State(tracker): State<Tracker>) -> Answer<Json<Value>> {
    let mut projects = tracker.with_store(|store| store.projects()).await?;
    projects.dedup_by(|a, b| a.organization == b.organization);
    let organizations = projects.iter().map(|project| {
        json!({
            "id": project.organization,
            "slug": project.organization,
            "name": project.organization,
            "dateCreated": project.created,
            "isEarlyAdopter": false,
            "require2FA": false,
            "requireEmailVerification": false,
            "features": [],
        })
    });
    Ok(Json(organizations.collect()))
}

async fn projects(State(tracker): State<Tracker>, Path(org): Path<String>) -> Answer<Json<Value>> {
    let projects = tracker.with_store(|store| store.projects()).await?;
    let of_org = projects
        .iter()
        .filter(|project| project.organization == org);
    Ok(Json(of_org.map(project_json).collect()))
}

pub(super) fn project_json(project: &Project) -> Value {
    json!({
        "id": project.id.to_string(),
        "slug": project.slug,
        "name": project.name,
        "platform": project.platform,
        "dateCreated": project.created,
        "team": Value::Null,
    })
}

async fn event_place(
    State(tracker): State<Tracker>,
    Path((org, event)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let id = event_id(&event)?;
    let (place, project) = tracker
        .with_store(move |store| {
            let place = store.event_place(id)?;
            Ok((place, store.project(place.project)?))
        })
        .await?;
    if project.organization != org {
        return Err(Failure::not_found("event"));
    }
    Ok(Json(json!({
        "organizationSlug": project.organization,
        "projectSlug": project.slug,
        "groupId": place.issue.to_string(),
        "eventId": id,
    })))
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    query: String,
    #[serde(default)]
    cursor: String,
    #[serde(default = "Listing::limit_default")]
    limit: usize,
}

impl Listing {
    fn limit_default() -> usize {
        100
    }
}

async fn issues(
    State(tracker): State<Tracker>,
    Path((org, project)): Path<(String, String)>,
    Query(listing): Query<Listing>,
) -> Answer<Response> {
    let mut query = IssueQuery::parse(&listing.query);
    if !listing.cursor.is_empty() {
        let detail = "invalid cursor: take it from the Link header of the page before";
        let cursor = listing.cursor.parse();
        query.after = Some(cursor.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, detail))?);
    }
    if !(1..=IssueQuery::LIMIT_MAX).contains(&listing.limit) {
        let detail = format!("invalid limit: expected 1 to {}", IssueQuery::LIMIT_MAX);
        return Err(Failure::new(StatusCode::BAD_REQUEST, detail));
    }
    query.limit = listing.limit;
    let here = format!(
        "{}/api/0/projects/{org}/{project}/issues/",
        tracker.0.public_url
    );
    let page = tracker
        .with_store(move |store| {
            query.projects = vec![store.project_by_slug(&org, &project)?.id];
            store.issues(&query)
        })
        .await?;
    let issues: Vec<Value> = page
        .issues
        .iter()
        .map(|issue| issue_json(&tracker, issue))
        .collect();
    let mut headers = HeaderMap::new();
    let (results, cursor) = match page.next {
        Some(cursor) => (true, cursor.to_string()),
        None => (false, String::new()),
    };
    // The form that Sentry's clients parse: https://docs.sentry.io/api/pagination/
    let link = format!(
        "<{here}?query={}&limit={}&cursor={cursor}>; rel=\"next\"; results=\"{results}\"; cursor=\"{cursor}\"",
        super::session::escape(&listing.query),
        listing.limit,
    );
    if let Ok(link) = HeaderValue::from_str(&link) {
        headers.insert(header::LINK, link);
    }
    Ok((headers, Json(issues)).into_response())
}

fn issue_json(tracker: &Tracker, issue: &Issue) -> Value {
    json!({
        "id": issue.id.to_string(),
        "shortId": issue.short_id,
        "title": issue.title,
        "culprit": issue.culprit,
        "count": issue.count.to_string(),
        "userCount": issue.users,
        "firstSeen": issue.first_seen,
        "lastSeen": issue.last_seen,
        "status": issue.status.as_str(),
        "level": issue.level,
        "platform": issue.platform,
        "reason": issue.reason,
        "project": { "slug": issue.project_slug, "id": issue.project.to_string() },
        "permalink": format!("{}/issues/{}/", tracker.0.public_url, issue.id),
    })
}

async fn issue(State(tracker): State<Tracker>, Path(issue): Path<i64>) -> Answer<Json<Value>> {
    let issue = tracker
        .with_store(move |store| store.issue(IssueId(issue)))
        .await?;
    Ok(Json(issue_json(&tracker, &issue)))
}

#[derive(Deserialize)]
struct NewStatus {
    status: String,
}

/// What to do with several issues: a status, or `"merge": 1`.
#[derive(Deserialize)]
struct Wish {
    status: Option<String>,
    merge: Option<Value>,
}

impl Wish {
    fn is_merge(&self) -> bool {
        !matches!(self.merge, None | Some(Value::Null | Value::Bool(false)))
    }
}

fn status_of(text: &str) -> Answer<Status> {
    text.parse().map_err(|()| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            format!("invalid status {text:?}: expected unresolved, resolved or muted"),
        )
    })
}

fn decision_of(status: &str) -> Answer<Decision> {
    Ok(match status_of(status)? {
        Status::Unresolved => Decision::Unresolve,
        Status::Resolved => Decision::Resolve,
        Status::Muted => Decision::Mute {
            until: None,
            events: None,
        },
    })
}

async fn decide(
    State(tracker): State<Tracker>,
    Path(issue): Path<i64>,
    Json(new): Json<NewStatus>,
) -> Answer<Json<Value>> {
    let decision = decision_of(&new.status)?;
    let issue = tracker
        .with_store(move |store| store.decide(IssueId(issue), decision))
        .await?;
    Ok(Json(issue_json(&tracker, &issue)))
}

/// `PUT …/issues/?id=1&id=2 {"status": "resolved"}`; without ids, every issue with `?status=` that
/// `?query=` finds.
/// `{"merge": 1}` merges them into the one with the most events.
async fn decide_many(
    State(tracker): State<Tracker>,
    Path((org, project)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
    Json(wish): Json<Wish>,
) -> Answer<Json<Value>> {
    let ids = super::groups::issue_ids(&pairs, "id")?;
    if wish.is_merge() {
        return merge(&tracker, org, project, ids).await;
    }
    let decision = decision_of(wish.status.as_deref().unwrap_or_default())?;
    let mut query = IssueQuery::default();
    // What is not understood would otherwise change more issues than anybody meant.
    for (key, value) in &pairs {
        match key.as_str() {
            "id" | "status" => {}
            "query" => query = IssueQuery::parse(value),
            _ => {
                let detail = format!("unknown parameter {key:?}: expected id, status or query");
                return Err(Failure::new(StatusCode::BAD_REQUEST, detail));
            }
        }
    }
    for (_, text) in pairs.iter().filter(|(key, _)| key == "status") {
        query.status = Some(status_of(text)?);
    }
    tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            query.projects = vec![project];
            query.limit = IssueQuery::LIMIT_MAX;
            if !ids.is_empty() {
                for id in ids {
                    // As in Sentry, an issue that is gone needs no decision.
                    match store.issue(id) {
                        Ok(issue) if issue.project == project => {
                            store.decide(id, decision)?;
                        }
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                return Ok(());
            }
            loop {
                let page = store.issues(&query)?;
                for issue in &page.issues {
                    store.decide(issue.id, decision)?;
                }
                match page.next {
                    Some(_) => query.after = page.next,
                    None => return Ok(()),
                }
            }
        })
        .await?;
    Ok(Json(json!({ "status": wish.status })))
}

async fn merge(
    tracker: &Tracker,
    org: String,
    project: String,
    ids: Vec<IssueId>,
) -> Answer<Json<Value>> {
    if ids.len() < 2 {
        let detail = "a merge needs at least two issues: ?id=1&id=2";
        return Err(Failure::new(StatusCode::BAD_REQUEST, detail));
    }
    let (issue, children) = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            for id in &ids {
                let issue = store.issue(*id)?;
                if issue.project != project {
                    let text = format!("{} is of another project", issue.short_id);
                    return Err(crate::store::Error::new(ErrorKind::Invalid, text));
                }
            }
            super::groups::merge_into_largest(store, &ids)
        })
        .await?;
    let children: Vec<String> = children.iter().map(IssueId::to_string).collect();
    Ok(Json(
        json!({ "merge": { "parent": issue.id.to_string(), "children": children } }),
    ))
}

#[derive(Deserialize)]
struct IssuePath {
    issue: i64,
}

/// The groups of an issue; Sentry calls each by its hash.
async fn groups(
    State(tracker): State<Tracker>,
    Path(IssuePath { issue }): Path<IssuePath>,
) -> Answer<Json<Value>> {
    let groups = tracker
        .with_store(move |store| store.issue_groups(IssueId(issue)))
        .await?;
    let groups = groups.iter().map(|group| {
        json!({
            "id": group.hash.to_string(),
            "count": group.events,
            "reason": group.reason,
            "latestEvent": {
                "id": group.latest,
                "eventID": group.latest,
                "title": group.title,
                "dateCreated": group.last_seen,
            },
        })
    });
    Ok(Json(groups.collect()))
}

/// Issues that may be the same: pairs of an issue and what speaks for it, as Sentry gives them.
async fn similar(
    State(tracker): State<Tracker>,
    Path(IssuePath { issue }): Path<IssuePath>,
) -> Answer<Json<Value>> {
    let hints = tracker
        .with_store(move |store| store.issue_hints(IssueId(issue)))
        .await?;
    let hints = hints.iter().map(|hint| {
        json!([
            issue_json(&tracker, &hint.issue),
            { "exception:stacktrace:pairs": hint.likeness, "reason": hint.reason },
        ])
    });
    Ok(Json(hints.collect()))
}

/// `PUT …/hashes/?id=HASH&id=HASH` takes groups out of an issue; the answer is the new issue.
async fn split(
    State(tracker): State<Tracker>,
    Path(IssuePath { issue }): Path<IssuePath>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Answer<Json<Value>> {
    let hashes = super::groups::hashes(&pairs, "id")?;
    let new = tracker
        .with_store(move |store| store.split(IssueId(issue), &hashes))
        .await?;
    Ok(Json(issue_json(&tracker, &new)))
}

pub(super) fn event_id(text: &str) -> Answer<EventId> {
    text.parse().map_err(|_| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            format!("invalid event id {text:?}: expected 32 hex digits"),
        )
    })
}

async fn stored(
    tracker: &Tracker,
    org: String,
    project: String,
    event: &str,
) -> Answer<StoredEvent> {
    let id = event_id(event)?;
    tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.event(project, id)
        })
        .await
}

async fn event_json(
    State(tracker): State<Tracker>,
    Path((org, project, event)): Path<(String, String, String)>,
) -> Answer<Response> {
    let id = event_id(&event)?;
    let json = match super::records::transaction(&tracker, org.clone(), project.clone(), id).await?
    {
        Some(json) => json,
        None => stored(&tracker, org, project, &event).await?.json,
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn event(
    State(tracker): State<Tracker>,
    Path((org, project, event)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    event_of_api(&stored(&tracker, org, project, &event).await?)
}

async fn issue_event(
    State(tracker): State<Tracker>,
    Path((issue, which)): Path<(i64, String)>,
) -> Answer<Json<Value>> {
    let which = match which.as_str() {
        "latest" => Which::Latest,
        "oldest" | "first" => Which::First,
        id => Which::Id(event_id(id)?),
    };
    let stored = tracker
        .with_store(move |store| store.issue_event(IssueId(issue), which))
        .await?;
    event_of_api(&stored)
}

/// An event as Sentry's API gives it: some names differ from the event schema.
fn event_of_api(stored: &StoredEvent) -> Answer<Json<Value>> {
    let event = stored.event().map_err(|error| {
        tracing::error!(event = %stored.id, %error, "a stored event cannot be read");
        Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the stored event is damaged; run `backstop check`",
        )
    })?;
    let tags: Vec<Value> = event
        .tags
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let title = event.exception.last().map(|shown| {
        let ty = shown.ty.as_deref().unwrap_or("Error");
        match &shown.value {
            Some(value) => format!("{ty}: {value}"),
            None => ty.to_owned(),
        }
    });
    let message = event
        .message
        .as_ref()
        .and_then(|message| message.formatted.clone());
    Ok(Json(json!({
        "id": stored.id,
        "eventID": stored.id,
        "groupID": stored.issue.to_string(),
        "projectID": stored.project.to_string(),
        "dateCreated": stored.timestamp,
        "dateReceived": stored.received,
        "title": title.or_else(|| message.clone()),
        "message": message,
        "platform": event.platform,
        "user": event.user,
        "tags": tags,
        "event": event,
    })))
}
