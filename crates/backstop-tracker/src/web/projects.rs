//! Projects: the list, a new one, and how to set up a client.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Response};
use minijinja::{Value, context};
use serde::Deserialize;

use super::Failure;
use crate::app::{Tracker, now};
use crate::model::{NewProject, Project, ProjectKey, User};

/// Lists the projects, with the form for a new one.
pub(super) async fn list(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
) -> Result<Response, Failure> {
    tracker.projects_page(&user, context! {}).await
}

#[derive(Deserialize)]
pub(super) struct Wish {
    name: String,
    #[serde(default)]
    org: String,
}

/// Makes a project and goes on to its set-up.
pub(super) async fn create(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Form(wish): Form<Wish>,
) -> Result<Response, Failure> {
    let new = NewProject {
        name: wish.name.trim().to_owned(),
        organization: Some(wish.org.trim().to_owned()).filter(|org| !org.is_empty()),
        ..NewProject::default()
    };
    match tracker
        .with_store(move |store| store.create_project(&new, now()))
        .await
    {
        Ok(project) => {
            let path = format!("/{}/{}/settings/", project.organization, project.slug);
            Ok(tracker.to(&path).into_response())
        }
        Err(failure) if failure.status.is_client_error() => {
            let problem = super::sentence(&failure.detail);
            let context = context! { problem, name => &wish.name, org => &wish.org };
            let page = tracker.projects_page(&user, context).await?;
            Ok((failure.status, page).into_response())
        }
        Err(failure) => Err(failure),
    }
}

/// Shows the DSN, what to write into a program, and what mails are sent about.
pub(super) async fn settings(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Path((org, project)): Path<(String, String)>,
) -> Result<Response, Failure> {
    tracker.settings_page(&user, org, project, None).await
}

impl Tracker {
    /// Renders a project's settings, with what was wrong with a wish.
    pub(super) async fn settings_page(
        &self,
        user: &User,
        org: String,
        project: String,
        failure: Option<&Failure>,
    ) -> Result<Response, Failure> {
        let (project, rules) = self
            .with_store(move |store| {
                let project = store.project_by_slug(&org, &project)?;
                let rules = store.alert_rules(project.id)?;
                Ok((project, rules))
            })
            .await?;
        let keys = project.keys.iter().filter(|key| key.active);
        let dsns: Vec<String> = keys
            .map(|key| dsn(&self.0.public_url, &project, key))
            .collect();
        let example = dsns
            .first()
            .cloned()
            .unwrap_or_else(|| "YOUR_DSN_HERE".to_owned());
        let snippets: Vec<Value> = snippets(&example)
            .into_iter()
            .map(|(name, code)| context! { name, code })
            .collect();
        let alerts: Vec<Value> = rules
            .iter()
            .map(|rule| context! { id => rule.id, about => rule.kind.to_string(), active => rule.active })
            .collect();
        let project =
            context! { org => &project.organization, slug => &project.slug, name => &project.name };
        let problem = failure.map(|failure| super::sentence(&failure.detail));
        let context = context! { project, dsns, snippets, alerts, problem };
        Ok(self
            .page(user, "projects", "settings.html", context)?
            .into_response())
    }

    async fn projects_page(&self, user: &User, more: Value) -> Result<Response, Failure> {
        let projects = self.with_store(|store| store.projects()).await?;
        let projects: Vec<Value> = projects
            .iter()
            .map(|project| {
                context! {
                    id => project.id.0, name => &project.name, slug => &project.slug,
                    org => &project.organization,
                }
            })
            .collect();
        let context = context! { projects, ..more };
        Ok(self
            .page(user, "projects", "projects.html", context)?
            .into_response())
    }
}

/// Writes the DSN of a key: what a client needs to know.
pub(crate) fn dsn(public_url: &str, project: &Project, key: &ProjectKey) -> String {
    let (scheme, rest) = public_url.split_once("://").unwrap_or(("http", public_url));
    format!("{scheme}://{}@{rest}/{}", key.public, project.id)
}

fn snippets(dsn: &str) -> [(&'static str, String); 5] {
    [
        (
            "Rust: axum with backstop",
            format!(
                "static TRACKER: Tracker = Tracker::from_static(\"{dsn}\");\n\n\
                 let app = App::new(router).init(&TRACKER).into_router()?;\nbackstop::serve(listener, app).await?;"
            ),
        ),
        (
            "Python: sentry-sdk",
            format!("import sentry_sdk\n\nsentry_sdk.init(dsn=\"{dsn}\")"),
        ),
        (
            "Python: Flask with raven",
            format!(
                "from raven.contrib.flask import Sentry\n\nsentry = Sentry(app, dsn=\"{dsn}\")"
            ),
        ),
        (
            "Node: @sentry/node",
            format!(
                "import * as Sentry from \"@sentry/node\";\n\nSentry.init({{ dsn: \"{dsn}\" }});"
            ),
        ),
        (
            "Rust: sentry",
            format!("let _guard = sentry::init(\"{dsn}\");"),
        ),
    ]
}
