//! The account of who is signed in.

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minijinja::context;
use serde::Deserialize;

use super::Failure;
use crate::app::Tracker;
use crate::model::User;

/// Shows the account.
pub(super) async fn show(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
) -> Result<Response, Failure> {
    Ok(tracker
        .page(&user, "account", "account.html", context! {})?
        .into_response())
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    password: String,
}

/// Sets a password, so that the next sign-in needs no link.
pub(super) async fn set_password(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
    Form(new): Form<NewPassword>,
) -> Result<Response, Failure> {
    let id = user.id;
    let set = tracker
        .with_store(move |store| store.set_password(id, &new.password))
        .await;
    match set {
        Ok(()) => {
            let page =
                tracker.page(&user, "account", "account.html", context! { saved => true })?;
            Ok(page.into_response())
        }
        Err(failure) if failure.status == StatusCode::BAD_REQUEST => {
            let problem = super::sentence(&failure.detail);
            let page = tracker.page(&user, "account", "account.html", context! { problem })?;
            Ok((failure.status, page).into_response())
        }
        Err(failure) => Err(failure),
    }
}
