//! What a project sends mails about, as people wish.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Failure;
use crate::app::Tracker;
use crate::model::{AlertKind, User};
use crate::store::Store;

#[derive(Deserialize)]
pub(super) struct Wish {
    about: About,
    #[serde(default)]
    events: String,
    #[serde(default)]
    minutes: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum About {
    NewIssue,
    Regression,
    Frequency,
}

/// Adds an alert to a project.
pub(super) async fn add(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path(path): Path<(String, String)>,
    Form(wish): Form<Wish>,
) -> Result<Response, Failure> {
    let change = |kind| {
        let (org, project) = path.clone();
        tracker.with_store(move |store: &Store| {
            let project = store.project_by_slug(&org, &project)?;
            store.add_alert_rule(project.id, kind).map(|_| ())
        })
    };
    let done = match wish.kind() {
        Ok(kind) => change(kind).await,
        Err(failure) => Err(failure),
    };
    tracker.back_to_settings(&user, path, done).await
}

#[derive(Deserialize)]
pub(super) struct Which {
    id: i64,
}

/// Removes an alert of a project.
pub(super) async fn remove(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path(path): Path<(String, String)>,
    Form(which): Form<Which>,
) -> Result<Response, Failure> {
    let (org, project) = path.clone();
    let done = tracker
        .with_store(move |store| {
            let project = store.project_by_slug(&org, &project)?;
            store.delete_alert_rule(project.id, which.id)
        })
        .await;
    tracker.back_to_settings(&user, path, done).await
}

impl Wish {
    fn kind(&self) -> Result<AlertKind, Failure> {
        let number = |what: &str, text: &str| {
            text.trim().parse().map_err(|_| {
                let detail = format!("the number of {what} is not a number: {text:?}");
                Failure::new(StatusCode::BAD_REQUEST, detail)
            })
        };
        Ok(match self.about {
            About::NewIssue => AlertKind::NewIssue,
            About::Regression => AlertKind::Regression,
            About::Frequency => AlertKind::Frequency {
                events: number("events", &self.events)?,
                minutes: number("minutes", &self.minutes)?,
            },
        })
    }
}

impl Tracker {
    /// Goes back to the settings, or shows them with what was wrong.
    async fn back_to_settings(
        &self,
        user: &User,
        (org, project): (String, String),
        done: Result<(), Failure>,
    ) -> Result<Response, Failure> {
        match done {
            Ok(()) => Ok(self
                .to(&format!("/{org}/{project}/settings/"))
                .into_response()),
            Err(failure) if failure.status.is_client_error() => {
                let page = self.settings_page(user, org, project, Some(&failure));
                Ok((failure.status, page.await?).into_response())
            }
            Err(failure) => Err(failure),
        }
    }
}
