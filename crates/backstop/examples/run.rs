//! The development server with debugger and reloader, set up by a file.
//!
//! ```text
//! cargo run -p backstop --example run
//! ```
//!
//! Then open <http://127.0.0.1:5000/orders/7>: the debug page shows the error, its cause, the
//! source, and after the PIN from the terminal the variables.
//! Change this file while it runs: the program is rebuilt, and until it builds again the last
//! good build answers.

use std::fmt;
use std::io;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use backstop::{App, Result, RunError};

/// An order as the shop knows it.
#[derive(Debug)]
struct Order {
    id: u32,
    customer: String,
    lines: Vec<(String, u32)>,
}

/// An order could not be loaded.
#[derive(Debug)]
struct LoadError {
    order: u32,
    source: io::Error,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot load order {}", self.order)
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn store(order: &Order) -> Result<(), LoadError> {
    let address = format!("127.0.0.1:{}", order.id);
    std::net::TcpStream::connect(&address)
        .map(drop)
        .map_err(|source| LoadError {
            order: order.id,
            source,
        })
}

async fn show(Path(id): Path<u32>) -> Result<String> {
    let order = Order {
        id,
        customer: "Ada Lovelace".to_owned(),
        lines: vec![("tea".to_owned(), 450), ("cake".to_owned(), 320)],
    };
    let password = "not to be seen".to_owned();
    let total: u32 = order.lines.iter().map(|(_, cents)| cents).sum();
    store(&order)?;
    Ok(format!(
        "{} pays {total} ({})",
        order.customer,
        password.len()
    ))
}

async fn bug() -> String {
    let shelves: Vec<&str> = vec!["tea", "cake"];
    let wanted = shelves.len() + 1;
    shelves[wanted].to_owned()
}

fn create_app(config: &str) -> App {
    let routes = Router::new()
        .route("/", get(|| async { "Try /orders/7 and /bug\n" }))
        .route("/orders/{id}", get(show))
        .route("/bug", get(bug));
    App::new(routes).configure(|settings| {
        // A program without the file runs with the defaults.
        if let Err(error) = settings.load_file(config) {
            eprintln!("{error}");
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), RunError> {
    let app = create_app(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/config.yaml"));
    let debug = app.config().debug();
    // Disable the built-in debugger if an external debugger is requested.
    let use_debugger = debug && !app.config().flag("DEBUG_WITH_LLDB");
    app.run(())
        .debug(debug)
        .use_debugger(use_debugger)
        .use_reloader(use_debugger)
        .await
}
