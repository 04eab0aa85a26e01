//! An HTTP error of your own: 507, with a description and a handler that uses the state.
//!
//! Run it with `cargo run -p backstop --example insufficient_storage`, then
//! `curl -i -X POST localhost:8000/upload`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use backstop::{App, Caught, Result, http_error};

http_error! {
    /// The disk is full.
    pub struct InsufficientStorage(507, "Not enough storage space.");
}

struct Disk {
    name: &'static str,
    free: u64,
}

impl Disk {
    fn reserve(&self, bytes: u64) -> Result<(), InsufficientStorage> {
        if bytes > self.free {
            return Err(InsufficientStorage);
        }
        Ok(())
    }
}

async fn upload(State(disk): State<Arc<Disk>>) -> Result<&'static str> {
    disk.reserve(4096)?;
    Ok("stored\n")
}

async fn full(
    e: Caught<InsufficientStorage>,
    State(disk): State<Arc<Disk>>,
) -> (StatusCode, String) {
    let text = format!(
        "{} {} has {} bytes left.\n",
        e.description(),
        disk.name,
        disk.free
    );
    (e.status(), text)
}

#[tokio::main]
async fn main() -> Result<()> {
    let disk = Arc::new(Disk {
        name: "/srv/uploads",
        free: 1024,
    });
    let app: App = App::new(Router::new().route("/upload", post(upload)))
        .error_handler_for(full)
        .with_state(disk);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    backstop::serve(listener, app.into_router()?).await?;
    Ok(())
}
