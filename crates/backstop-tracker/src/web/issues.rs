//! The list of issues, of all projects or of one.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use backstop_protocol::Timestamp;
use minijinja::{Value, context};
use serde::Deserialize;

use super::{Failure, format};
use crate::app::{Tracker, now};
use crate::model::{Issue, IssueQuery, Project, Sort, Status, User};

/// An issue is called new for this long after its first event.
const NEW_SECONDS: i64 = 24 * 3_600;

/// The history beside each issue.
const HOURS: i64 = 24;

#[derive(Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    status: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    sort: String,
    #[serde(default)]
    after: String,
}

/// Lists the issues of all projects.
pub(super) async fn all(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Query(filter): Query<Filter>,
) -> Result<Response, Failure> {
    list(&tracker, &user, None, &filter).await
}

/// Lists the issues of one project.
pub(super) async fn of_project(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path((org, project)): Path<(String, String)>,
    Query(filter): Query<Filter>,
) -> Result<Response, Failure> {
    let project = tracker
        .with_store(move |store| store.project_by_slug(&org, &project))
        .await?;
    list(&tracker, &user, Some(project), &filter).await
}

async fn list(
    tracker: &Tracker,
    user: &User,
    project: Option<Project>,
    filter: &Filter,
) -> Result<Response, Failure> {
    let status = match filter.status.as_str() {
        "all" => None,
        text => Some(text.parse().unwrap_or(Status::Unresolved)),
    };
    let mut query = IssueQuery::parse(&filter.query);
    query.status = query.status.or(status);
    query.sort = sort_of(&filter.sort);
    query.after = filter.after.parse().ok();
    query.projects = project.iter().map(|project| project.id).collect();
    let now = now();
    let (page, histories, waiting) = tracker
        .with_store(move |store| {
            let page = store.issues(&query)?;
            let day = |issue: &Issue| store.buckets(issue.id, hours_before(now, HOURS), now, 60);
            let histories = page.issues.iter().map(day).collect::<Result<Vec<_>, _>>()?;
            let nothing_yet = page.issues.is_empty() && {
                let any = IssueQuery {
                    projects: query.projects,
                    limit: 1,
                    ..IssueQuery::default()
                };
                store.issues(&any)?.issues.is_empty()
            };
            let waiting = if nothing_yet {
                store.projects()?.into_iter().next()
            } else {
                None
            };
            Ok((page, histories, waiting))
        })
        .await?;

    let status = status.map_or("all", Status::as_str);
    let link = |status: &str, sort: &str, after: &str| {
        let mut link = format!("?status={status}");
        for (name, value) in [
            ("query", filter.query.as_str()),
            ("sort", sort),
            ("after", after),
        ] {
            if !value.is_empty() {
                link.push_str(&format!("&{name}={}", super::session::escape(value)));
            }
        }
        link
    };
    let tabs = [
        ("unresolved", "Unresolved"),
        ("muted", "Muted"),
        ("resolved", "Resolved"),
        ("all", "All"),
    ];
    let tabs: Vec<Value> = tabs
        .into_iter()
        .map(|(value, name)| {
            context! { name, href => link(value, &filter.sort, ""), current => value == status }
        })
        .collect();
    let sorts = [
        ("last", "Last seen"),
        ("first", "First seen"),
        ("count", "Most events"),
    ];
    let sorts: Vec<Value> = sorts
        .into_iter()
        .map(|(value, name)| {
            context! { value, name, current => sort_of(value) == sort_of(&filter.sort) }
        })
        .collect();
    let issues: Vec<Value> = page
        .issues
        .iter()
        .zip(&histories)
        .map(|(issue, history)| row(issue, history, now))
        .collect();
    let context = context! {
        issues, tabs, sorts, status,
        query => &filter.query,
        next => page.next.map(|cursor| link(status, &filter.sort, &cursor.to_string())),
        waiting => waiting.map(|project| {
            format!("{}/{}/{}/settings/", tracker.0.root, project.organization, project.slug)
        }),
        project => project.map(|project| {
            context! { name => &project.name, slug => &project.slug, org => &project.organization }
        }),
    };
    Ok(tracker
        .page(user, "issues", "issues.html", context)?
        .into_response())
}

/// The beginning of the oldest of so many hours, of which the last is not over yet.
pub(super) fn hours_before(now: Timestamp, hours: i64) -> Timestamp {
    let hour = now.seconds().div_euclid(3_600) + 1 - hours;
    Timestamp::from_micros(hour * 3_600_000_000)
}

fn sort_of(text: &str) -> Sort {
    match text {
        "first" => Sort::FirstSeen,
        "count" => Sort::Count,
        _ => Sort::LastSeen,
    }
}

fn row(issue: &Issue, history: &[u64], now: Timestamp) -> Value {
    let (ty, value) = split_title(&issue.title);
    context! {
        id => issue.id.0,
        short_id => &issue.short_id,
        ty, value,
        culprit => &issue.culprit,
        level => issue.level.as_str(),
        status => issue.status.as_str(),
        regressed => issue.status == Status::Unresolved && issue.regressions > 0,
        is_new => now.seconds() - issue.first_seen.seconds() < NEW_SECONDS,
        count => format::count(issue.count),
        first_seen => Value::from_safe_string(format::ago(issue.first_seen, now)),
        last_seen => Value::from_safe_string(format::ago(issue.last_seen, now)),
        spark => Value::from_safe_string(format::spark(history, "24 hours")),
    }
}

/// Splits `Type: message` for display; a title without a type is all type.
pub(super) fn split_title(title: &str) -> (&str, &str) {
    match title.split_once(": ") {
        Some((ty, value)) if !ty.contains(' ') => (ty, value),
        _ => (title, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_has_a_type_only_if_it_looks_like_one() {
        assert_eq!(split_title("KeyError: 'sku: x'"), ("KeyError", "'sku: x'"));
        assert_eq!(
            split_title("could not reach host: refused"),
            ("could not reach host: refused", "")
        );
    }
}
