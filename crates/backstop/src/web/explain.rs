//! Saying which handler would run, and why.

use std::fmt;

use crate::web::handlers::{Table, Why, find};
use crate::{Error, HttpError};

/// Which handler would run for an error at a path, and what was looked for before.
///
/// Made by [`App::explain`](crate::App::explain); shown with `{}`.
#[derive(Debug, Clone)]
pub struct Explanation {
    steps: Vec<String>,
    handler: Option<(String, String)>,
    why: String,
}

impl Explanation {
    /// What the handler is registered for, such as `404` or `ConnectionError`; `None` if no
    /// handler would run.
    pub fn handler(&self) -> Option<&str> {
        self.handler.as_ref().map(|(on, _)| on.as_str())
    }

    /// The scope of that handler: `app`, or the dotted name of a blueprint.
    pub fn scope(&self) -> Option<&str> {
        self.handler.as_ref().map(|(_, scope)| scope.as_str())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        match &self.handler {
            Some((on, scope)) => write!(f, "the handler for {on} in {scope} runs: {}", self.why),
            None => write!(f, "no handler runs: {}", self.why),
        }
    }
}

/// Explains what becomes of an error, and of the 500 that is made of it if nobody handles it.
///
/// `propagates` tells that an unhandled error leaves the app instead.
pub(crate) fn explain<H: Clone>(
    scopes: &[(&str, &Table<H>)],
    error: &Error,
    propagates: bool,
    on: impl Fn(&H) -> String,
) -> Explanation {
    let mut explanation = look_up(scopes, error, &on);
    if explanation.handler.is_some() || error.code().is_some() {
        return explanation;
    }
    let as_500 = look_up(
        scopes,
        &Error::from(HttpError::internal(error.clone())),
        &on,
    );
    if as_500.handler.is_some() {
        let unhandled = if propagates {
            "the error is unhandled: it is logged and leaves the app; where errors do not \
             propagate it becomes a 500"
        } else {
            "the error is unhandled: it is logged and becomes a 500"
        };
        explanation.steps.push(unhandled.to_owned());
        explanation.steps.extend(as_500.steps);
        explanation.handler = as_500.handler;
        explanation.why = as_500.why;
    }
    explanation
}

/// Asks [`find`] itself, so that the explanation cannot differ from what happens.
fn look_up<H: Clone>(
    scopes: &[(&str, &Table<H>)],
    error: &Error,
    on: &impl Fn(&H) -> String,
) -> Explanation {
    let tables: Vec<&Table<H>> = scopes.iter().map(|(_, table)| *table).collect();
    let found = find(&tables, error);
    let code = error.code_of_kind();
    let kinds = match error.kind() {
        Some(kind) => kind.lineage().join(", "),
        None => error.kind_name().to_owned(),
    };
    let mut steps = Vec::new();
    let stops = found
        .as_ref()
        .map(|found| (found.scope, found.by_code))
        .unwrap_or((scopes.len(), false));
    if let Some(code) = code {
        for (place, (name, _)) in scopes.iter().enumerate() {
            if stops.1 && place >= stops.0 {
                break;
            }
            steps.push(format!("{code} in {name}: none"));
        }
    }
    if !stops.1 {
        for (name, _) in &scopes[..stops.0.min(scopes.len())] {
            steps.push(format!("{kinds} in {name}: none"));
        }
    }
    let why = match found.as_ref().map(|found| found.why) {
        Some(Why::Code) => "it is registered for the error's code".to_owned(),
        Some(Why::Kind) => "nothing nearer to the error's type is registered there".to_owned(),
        Some(Why::Cause) => "the error was caused by one of that type".to_owned(),
        Some(Why::Http) => "it takes every HTTP error".to_owned(),
        Some(Why::Any) => "it takes every error".to_owned(),
        None => match code {
            Some(code) => format!("the default page of {code} is shown"),
            None => "the error is unhandled: it is logged and answered as a 500".to_owned(),
        },
    };
    let handler = found.map(|found| (on(found.handler), scopes[found.scope].0.to_owned()));
    Explanation {
        steps,
        handler,
        why,
    }
}
