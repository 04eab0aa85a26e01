//! The web API of what is kept beside issues: an event's files and feedback, sessions, monitors,
//! and what became of everything that was sent.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use backstop_protocol::{EventId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::api::{Answer, event_id};
use crate::app::{Tracker, now};
use crate::ingest::command::date_of;
use crate::model::{Outcome, Project};
use crate::record::{Attachment, Feedback, Monitor, ReleaseHealth, Run};

/// What is shown if nobody says from when on.
const DAYS_DEFAULT: i64 = 14;
const DAYS_MAX: i64 = 90;

pub(super) fn router() -> Router<Tracker> {
    Router::new()
        .route(
            "/api/0/projects/{org}/{project}/events/{event}/attachments/",
            get(attachments),
        )
        .route(
            "/api/0/projects/{org}/{project}/events/{event}/attachments/{attachment}/",
            get(attachment),
        )
        .route(
            "/api/0/projects/{org}/{project}/user-feedback/",
            get(feedback),
        )
        .route("/api/0/projects/{org}/{project}/outcomes/", get(outcomes))
        .route("/api/0/projects/{org}/{project}/sessions/", get(sessions))
        .route("/api/0/projects/{org}/{project}/monitors/", get(monitors))
        .route(
            "/api/0/projects/{org}/{project}/monitors/{monitor}/checkins/",
            get(check_ins),
        )
        .route("/api/0/organizations/{org}/monitors/", get(monitors_of_all))
        .route("/api/0/organizations/{org}/repos/", get(nothing))
}

/// Repositories are not kept; clients go on with an empty list.
async fn nothing() -> Json<Value> {
    Json(json!([]))
}

async fn attachments(
    State(tracker): State<Tracker>,
    Path((org, project, event)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    let id = event_id(&event)?;
    let attachments = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.attachments(project, id)
        })
        .await?;
    Ok(Json(attachments.iter().map(attachment_json).collect()))
}

fn attachment_json(attachment: &Attachment) -> Value {
    json!({
        "id": attachment.id.to_string(),
        "event_id": attachment.event,
        "type": attachment.attachment_type.as_deref().unwrap_or("event.attachment"),
        "name": attachment.filename,
        "mimetype": attachment.content_type.as_deref().unwrap_or("application/octet-stream"),
        "size": attachment.size,
        "sha1": attachment.sha1,
        "dateCreated": attachment.created,
        "headers": { "Content-Type": attachment.content_type },
    })
}

#[derive(Deserialize)]
struct Download {
    download: Option<String>,
}

async fn attachment(
    State(tracker): State<Tracker>,
    Path((org, project, event, attachment)): Path<(String, String, String, i64)>,
    Query(download): Query<Download>,
) -> Answer<Response> {
    let id = event_id(&event)?;
    let found = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.attachment(project, id, attachment)
        })
        .await?;
    let Some((attachment, bytes)) = found else {
        return Err(Failure::not_found("attachment"));
    };
    if download.download.is_none() {
        return Ok(Json(attachment_json(&attachment)).into_response());
    }
    // A file of strangers is saved, never shown: a browser must not run what is in it.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes).into_response())
}

#[derive(Deserialize)]
struct OfEvent {
    event: Option<String>,
}

async fn feedback(
    State(tracker): State<Tracker>,
    Path((org, project)): Path<(String, String)>,
    Query(of): Query<OfEvent>,
) -> Answer<Json<Value>> {
    let event = of.event.as_deref().map(event_id).transpose()?;
    let all = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            let all = store.feedback(project, event)?;
            // Feedback may come before its event, so the issue is looked up when it is asked for.
            Ok(all
                .into_iter()
                .map(|feedback| {
                    let place = feedback
                        .event
                        .and_then(|event| store.event_place(event).ok());
                    (feedback, place.map(|place| place.issue.to_string()))
                })
                .collect::<Vec<_>>())
        })
        .await?;
    let all = all
        .iter()
        .map(|(feedback, issue)| feedback_json(feedback, issue.as_deref()));
    Ok(Json(all.collect()))
}

fn feedback_json(feedback: &Feedback, issue: Option<&str>) -> Value {
    json!({
        "id": feedback.id,
        "eventID": feedback.event,
        "name": feedback.name,
        "email": feedback.email,
        "comments": feedback.message,
        "url": feedback.url,
        "dateCreated": feedback.received,
        "event": { "eventID": feedback.event },
        "issue": issue.map(|id| json!({ "id": id })),
    })
}

#[derive(Deserialize)]
struct Since {
    days: Option<i64>,
}

impl Since {
    fn start(&self) -> Timestamp {
        let days = self.days.unwrap_or(DAYS_DEFAULT).clamp(0, DAYS_MAX);
        Timestamp::from_micros(now().micros() - days * 86_400_000_000)
    }
}

async fn outcomes(
    State(tracker): State<Tracker>,
    Path((org, project)): Path<(String, String)>,
    Query(since): Query<Since>,
) -> Answer<Json<Value>> {
    // What was counted in the last second is not written yet.
    tracker.0.ingest.flush().await;
    let start = since.start();
    let outcomes = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.outcomes(Some(project), start)
        })
        .await?;
    let outcome = |outcome: &Outcome| {
        json!({
            "date": date_of(outcome.day),
            "reason": outcome.reason,
            "key": outcome.key.map(|key| key.to_string()),
            "quantity": outcome.count,
        })
    };
    Ok(Json(outcomes.iter().map(outcome).collect()))
}

async fn sessions(
    State(tracker): State<Tracker>,
    Path((org, project)): Path<(String, String)>,
    Query(since): Query<Since>,
) -> Answer<Json<Value>> {
    let start = since.start();
    let health = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.release_health(project, start)
        })
        .await?;
    Ok(Json(health.iter().map(health_json).collect()))
}

fn health_json(health: &ReleaseHealth) -> Value {
    json!({
        "date": date_of(health.day),
        "release": health.release,
        "environment": health.environment,
        "sessions": health.sessions,
        "errored": health.errored,
        "unhandled": health.unhandled,
        "abnormal": health.abnormal,
        "crashed": health.crashed,
        "crashFreeRate": health.crash_free(),
    })
}

async fn monitors(
    State(tracker): State<Tracker>,
    Path((org, project)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let (project, monitors) = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?;
            let monitors = store.monitors(Some(project.id))?;
            Ok((project, monitors))
        })
        .await?;
    let monitors = monitors
        .iter()
        .map(|monitor| monitor_json(monitor, &project));
    Ok(Json(monitors.collect()))
}

async fn monitors_of_all(
    State(tracker): State<Tracker>,
    Path(org): Path<String>,
) -> Answer<Json<Value>> {
    let (projects, monitors) = tracker
        .with_store(|store| Ok((store.projects()?, store.monitors(None)?)))
        .await?;
    let monitors = monitors.iter().filter_map(|monitor| {
        let project = projects
            .iter()
            .find(|project| project.id == monitor.project && project.organization == org)?;
        Some(monitor_json(monitor, project))
    });
    Ok(Json(monitors.collect()))
}

fn monitor_json(monitor: &Monitor, project: &Project) -> Value {
    let config = monitor.config.as_deref().unwrap_or("{}");
    json!({
        "id": format!("{}-{}", project.id, monitor.slug),
        "slug": monitor.slug,
        "name": monitor.slug,
        "status": "active",
        "type": "cron_job",
        "config": serde_json::from_str::<Value>(config).unwrap_or_default(),
        "dateCreated": monitor.created,
        "lastCheckIn": monitor.updated,
        "lastStatus": monitor.status,
        "project": super::api::project_json(project),
    })
}

async fn check_ins(
    State(tracker): State<Tracker>,
    Path((org, project, monitor)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    let runs = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.runs(project, &monitor)
        })
        .await?;
    let run = |run: &Run| {
        json!({
            "id": run.id,
            "status": run.status,
            // Milliseconds, as Sentry's API has it.
            "duration": run.duration.map(|seconds| (seconds * 1000.0).round()),
            "environment": run.environment,
            "dateCreated": run.started,
            "dateUpdated": run.updated,
        })
    };
    Ok(Json(runs.iter().map(run).collect()))
}

/// Returns a performance record in the event schema, if there is one of this id.
pub(super) async fn transaction(
    tracker: &Tracker,
    org: String,
    project: String,
    id: EventId,
) -> Answer<Option<Vec<u8>>> {
    tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?.id;
            store.transaction_record(project, id)
        })
        .await
}
