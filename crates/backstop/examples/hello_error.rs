//! The smallest service whose errors are looked after.
//!
//! Run it with `cargo run -p backstop --example hello_error`, then:
//!
//! - `curl localhost:8000/` says hello.
//! - `curl localhost:8000/file` answers a 500 that tells nothing; the log tells everything: route,
//!   request id, chain and the line of the `?`.
//! - `curl localhost:8000/panic` is answered as well.
//! - `curl -H 'Accept: application/json' localhost:8000/nothing` answers problem+json.

use axum::Router;
use axum::routing::get;
use backstop::Result;

async fn file() -> Result<String> {
    Ok(std::fs::read_to_string("/no/such/file")?)
}

async fn panics() -> String {
    let numbers: Vec<u32> = Vec::new();
    format!("the first number is {}", numbers[0])
}

#[tokio::main]
async fn main() -> Result<()> {
    backstop::log::init(backstop::log::Form::Text);
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/file", get(file))
        .route("/panic", get(panics));
    let router = backstop::init_app(router);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    println!("http://{}", listener.local_addr()?);
    backstop::serve(listener, router).await?;
    Ok(())
}
