//! Which groups an issue is made of; merging issues and taking them apart, as people wish.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minijinja::{Value, context};
use serde::Deserialize;

use super::{Failure, format};
use crate::app::{Tracker, now};
use crate::grouping::GroupHash;
use crate::model::{Issue, IssueId, User};
use crate::store::{self, IssueGroup, Store};

/// Shows the groups of an issue, with the forms to take some out and to merge another in.
pub(super) async fn show(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path(issue): Path<i64>,
) -> Result<Response, Failure> {
    tracker.groups_page(&user, IssueId(issue), None).await
}

#[derive(Deserialize)]
pub(super) struct Other {
    issue: String,
}

/// Merges an issue, by its short id or number, into this one.
pub(super) async fn merge(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path(issue): Path<i64>,
    Form(other): Form<Other>,
) -> Result<Response, Failure> {
    let id = IssueId(issue);
    let merged = tracker
        .with_store(move |store| {
            let text = other.issue.trim();
            let other = match text.parse() {
                Ok(number) => store.issue(IssueId(number))?,
                Err(_) => store.issue_by_short_id(text)?,
            };
            store.merge(id, &[other.id])
        })
        .await;
    match merged {
        Ok(issue) => Ok(tracker
            .to(&format!("/issues/{}/", issue.id))
            .into_response()),
        Err(failure) if failure.status.is_client_error() => {
            tracker.groups_page(&user, id, Some(failure)).await
        }
        Err(failure) => Err(failure),
    }
}

/// Merges the issues that were picked in a list into the one with the most events.
pub(super) async fn merge_picked(
    State(tracker): State<Tracker>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let ids = issue_ids(&pairs, "issue")?;
    if ids.len() < 2 {
        let detail = "pick at least two issues to merge";
        return Err(Failure::new(StatusCode::BAD_REQUEST, detail));
    }
    let issue = tracker
        .with_store(move |store| merge_into_largest(store, &ids).map(|(issue, _)| issue))
        .await?;
    Ok(tracker
        .to(&format!("/issues/{}/", issue.id))
        .into_response())
}

/// Takes the picked groups out of an issue and goes to the new one.
pub(super) async fn split(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path(issue): Path<i64>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let hashes = hashes(&pairs, "hash")?;
    let id = IssueId(issue);
    match tracker
        .with_store(move |store| store.split(id, &hashes))
        .await
    {
        Ok(new) => Ok(tracker.to(&format!("/issues/{}/", new.id)).into_response()),
        Err(failure) if failure.status == StatusCode::BAD_REQUEST => {
            tracker.groups_page(&user, id, Some(failure)).await
        }
        Err(failure) => Err(failure),
    }
}

/// Merges issues into the one with the most events; returns it and those that it took in.
pub(super) fn merge_into_largest(
    store: &Store,
    ids: &[IssueId],
) -> Result<(Issue, Vec<IssueId>), store::Error> {
    let mut issues = ids
        .iter()
        .map(|id| store.issue(*id))
        .collect::<Result<Vec<_>, _>>()?;
    // Of equals the older one stays, because links to it have been around for longer.
    issues.sort_by_key(|issue| (std::cmp::Reverse(issue.count), issue.id));
    issues.dedup_by_key(|issue| issue.id);
    let others: Vec<IssueId> = issues[1..].iter().map(|issue| issue.id).collect();
    Ok((store.merge(issues[0].id, &others)?, others))
}

/// Reads the values of one name as numbers of issues.
pub(super) fn issue_ids(pairs: &[(String, String)], name: &str) -> Result<Vec<IssueId>, Failure> {
    let values = pairs.iter().filter(|(key, _)| key == name);
    values
        .map(|(_, id)| id.parse().map(IssueId))
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "an issue's id is a number"))
}

/// Reads the values of one name as group hashes.
pub(super) fn hashes(pairs: &[(String, String)], name: &str) -> Result<Vec<GroupHash>, Failure> {
    let values = pairs.iter().filter(|(key, _)| key == name);
    values
        .map(|(_, hash)| hash.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "a group hash has 32 hex digits"))
}

impl Tracker {
    async fn groups_page(
        &self,
        user: &User,
        id: IssueId,
        failure: Option<Failure>,
    ) -> Result<Response, Failure> {
        let (issue, project_name, groups) = self
            .with_store(move |store| {
                let issue = store.issue(id)?;
                let groups = store.issue_groups(issue.id)?;
                let project_name = store.project(issue.project)?.name;
                Ok((issue, project_name, groups))
            })
            .await?;
        let now = now();
        let kept: u64 = groups.iter().map(|group| group.events).sum();
        let rows: Vec<Value> = groups.iter().map(|group| row(group, now)).collect();
        let context = context! {
            project => context! {
                name => &project_name, slug => &issue.project_slug, org => &issue.organization,
            },
            issue => context! {
                id => issue.id.0, short_id => &issue.short_id, title => &issue.title,
            },
            groups => rows,
            without_body => (issue.count > kept).then(|| format::count(issue.count - kept)),
            problem => failure.as_ref().map(|failure| super::sentence(&failure.detail)),
        };
        let page = self.page(user, "issues", "groups.html", context)?;
        let status = failure.map_or(StatusCode::OK, |failure| failure.status);
        Ok((status, page).into_response())
    }
}

fn row(group: &IssueGroup, now: backstop_protocol::Timestamp) -> Value {
    let (ty, value) = super::issues::split_title(&group.title);
    let hash = group.hash.to_string();
    context! {
        short_hash => &hash[..8],
        hash, ty, value,
        reason => if group.reason.is_empty() { String::new() } else { super::sentence(&group.reason) },
        count => format::count(group.events),
        latest => group.latest.to_string(),
        last_seen => Value::from_safe_string(format::ago(group.last_seen, now)),
    }
}
