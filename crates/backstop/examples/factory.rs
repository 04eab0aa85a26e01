//! A factory: the tracker is a static, each app is made by a function and gets its own settings.
//!
//! Run it with `cargo run -p backstop --example factory` (add `BACKSTOP_DSN=…` to report), then
//! `curl -i localhost:8000/`.

use axum::Router;
use axum::routing::get;
use backstop::mail::Admins;
use backstop::report::Tracker;
use backstop::{App, Extension, Result};

async fn index() -> Result<String> {
    Err("the shop is closed")?
}

/// An extension serves any number of apps, so it keeps nothing about any of them.
struct Trackers;

impl Extension for Trackers {
    fn init_app<S: Clone + Send + Sync + 'static>(&self, app: App<S>) -> App<S> {
        match app.config().text("DSN").map(Tracker::new) {
            Some(Ok(tracker)) => tracker.init_app(app),
            Some(Err(error)) => {
                eprintln!("errors are not reported: {error}");
                app
            }
            None => app,
        }
    }
}

fn create_app(settings: &str) -> Result<App> {
    let mut loaded = Ok(());
    let app = App::new(Router::new().route("/", get(index))).configure(|config| {
        loaded = config.load_str(settings, backstop::config::Format::Yaml);
        config.load_env("BACKSTOP");
    });
    loaded?;
    let app = app.init(&Trackers);
    Ok(match Admins::from_config(app.config())? {
        Some(admins) => app.init(&admins),
        None => app,
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    backstop::log::init(backstop::log::Form::Json);
    let app = create_app("ENVIRONMENT: staging\nMAIL_SUBJECT: Shop\n")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    axum::serve(listener, app.into_router()?).await?;
    Ok(())
}
