//! A factory: the tracker is a static, each app is made by a function and gets its own settings.
//!
//! Run it with `cargo run -p backstop --example factory` (add `BACKSTOP_DSN=…` to report), then
//! `curl -i localhost:8000/`.

use axum::Router;
use axum::routing::get;
use backstop::mail::Admins;
use backstop::report::Tracker;
use backstop::{App, Result};

async fn index() -> Result<String> {
    Err("the shop is closed")?
}

/// One tracker serves any number of apps: each app's settings name its DSN.
static TRACKER: Tracker = Tracker::from_settings();

fn create_app(settings: &str) -> Result<App> {
    let mut loaded = Ok(());
    let app = App::new(Router::new().route("/", get(index))).configure(|config| {
        loaded = config.load_str(settings, backstop::config::Format::Yaml);
        config.load_env("BACKSTOP");
    });
    loaded?;
    let app = TRACKER.init_app(app);
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
    backstop::serve(listener, app.into_router()?).await?;
    Ok(())
}
