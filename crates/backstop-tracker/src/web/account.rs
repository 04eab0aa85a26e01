//! The account of who is signed in.

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use minijinja::{Value, context};
use serde::Deserialize;

use super::{Failure, session};
use crate::app::Tracker;
use crate::model::User;
use crate::store::PASSWORD_CHARS_MIN;

/// Shows the account.
pub(super) async fn show(
    State(tracker): State<Tracker>,
    Extension(user): Extension<User>,
) -> Result<Response, Failure> {
    account_page(&tracker, &user, context! {})
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    #[serde(default)]
    old: String,
    password: String,
}

/// Sets a password, so that the next sign-in needs no link, and ends every other session.
pub(super) async fn set_password(
    State(tracker): State<Tracker>,
    Extension(mut user): Extension<User>,
    headers: HeaderMap,
    Form(new): Form<NewPassword>,
) -> Result<Response, Failure> {
    let id = user.id;
    let secret = session::cookie(&headers);
    let set = tracker
        .with_store(move |store| store.set_password(id, &new.old, &new.password, secret.as_deref()))
        .await;
    match set {
        Ok(()) => {
            user.has_password = true;
            account_page(&tracker, &user, context! { saved => true })
        }
        Err(failure) if failure.status == StatusCode::BAD_REQUEST => {
            let problem = super::sentence(&failure.detail);
            let page = account_page(&tracker, &user, context! { problem })?;
            Ok((failure.status, page).into_response())
        }
        Err(failure) => Err(failure),
    }
}

fn account_page(tracker: &Tracker, user: &User, more: Value) -> Result<Response, Failure> {
    let context = context! {
        has_password => user.has_password, chars_min => PASSWORD_CHARS_MIN, ..more,
    };
    Ok(tracker
        .page(user, "account", "account.html", context)?
        .into_response())
}
