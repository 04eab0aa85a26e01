//! Error pages of the user's own: templates by name, `404.html` before `error.html`.

use std::path::Path;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use minijinja::{Environment, context};

use crate::log;
use crate::web::page::Page;
use crate::web::scope::SetupError;
use crate::{Error, Failure};

/// A directory with more files is no directory of error pages.
const TEMPLATES_MAX: usize = 256;

/// The templates that replace the HTML of default pages.
///
/// A template sees `code`, `name`, `description`, `request_id` (of errors that were logged),
/// `detail` (in debug mode), `method` and `path`; everything is escaped in `.html` files.
#[derive(Debug, Clone)]
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    pub(crate) fn new() -> Self {
        Self(Environment::new())
    }

    /// Adds a template; a later one of the same name replaces an earlier one.
    pub(crate) fn add(&mut self, name: String, source: String) -> Result<(), SetupError> {
        self.0
            .add_template_owned(name, source)
            .map_err(|error| SetupError::Template(format!("{error:#}")))
    }

    /// Adds the files of a directory whose names end in `.html`.
    pub(crate) fn add_directory(&mut self, path: &Path) -> Result<(), SetupError> {
        let unreadable = |error: std::io::Error| {
            SetupError::Template(format!(
                "cannot read templates in {}: {error}",
                path.display()
            ))
        };
        let entries = std::fs::read_dir(path).map_err(unreadable)?;
        for entry in entries.take(TEMPLATES_MAX) {
            let path = entry.map_err(unreadable)?.path();
            let is_page = path
                .extension()
                .is_some_and(|extension| extension == "html");
            let name = path.file_name().and_then(|name| name.to_str());
            if let (true, Some(name)) = (is_page, name) {
                let source = std::fs::read_to_string(&path).map_err(unreadable)?;
                self.add(name.to_owned(), source)?;
            }
        }
        Ok(())
    }

    /// The page, if there is a template for it. One that fails is logged, and the built-in page
    /// is shown.
    pub(crate) fn response(&self, page: &Page<'_>, failure: &Failure) -> Option<Response> {
        let code = page.error.status().as_u16();
        let template = self
            .0
            .get_template(&format!("{code}.html"))
            .or_else(|_| self.0.get_template("error.html"))
            .ok()?;
        let html = template.render(context! {
            code,
            name => page.error.name(),
            description => page.error.public_description(),
            request_id => page.request_id,
            detail => page.error.private_detail().filter(|_| page.with_detail),
            method => failure.method().as_str(),
            path => failure.path(),
        });
        match html {
            Ok(html) => {
                let mut response = page.response();
                *response.body_mut() = Body::from(html);
                let html = HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, html);
                Some(response)
            }
            Err(error) => {
                log::failed("an error page's template failed", &Error::from(error));
                None
            }
        }
    }
}
