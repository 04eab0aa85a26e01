//! A real axum service over a socket: one handler fails by `?`, one panics three frames deep.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::witness::capture;
#[cfg(feature = "witness")]
use crate::witness::json;

#[derive(Debug, Clone)]
struct App {
    region: String,
    prices: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Failure;

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(_: E) -> Failure {
        capture();
        Failure
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can start");
    runtime.block_on(async {
        let prices = [("book".to_owned(), 1200), ("pen".to_owned(), 150)].into();
        let app = Arc::new(App { region: "eu".to_owned(), prices });
        let router = Router::new()
            .route("/cart/{customer}", get(cart))
            .route("/order", post(place_order))
            .with_state(app);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        request(address, "GET /cart/ann HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let body = r#"{"lines":[{"item":"book","count":"two"}]}"#;
        let head = format!("POST /order HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        request(address, &head).await;
        server.abort();
    });
}

async fn request(address: std::net::SocketAddr, text: &str) {
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("the server listens");
    stream
        .write_all(text.as_bytes())
        .await
        .expect("the server reads");
    let mut answer = Vec::new();
    // The handler may panic, which ends the connection early.
    let read = stream.read_to_end(&mut answer).await;
    black_box((answer, read.is_ok()));
}

async fn cart(
    State(app): State<Arc<App>>,
    Path(customer): Path<String>,
) -> Result<String, Failure> {
    let items = load(&app, &customer).await?;
    let discount = items.len() as u64 * 5;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let total = total(&app.prices, &items, discount);
    truth!("cart": customer, items, discount);
    black_box((&customer, &items, discount));
    Ok(format!("{total}"))
}

async fn load(app: &App, customer: &str) -> Result<Vec<String>, Failure> {
    let key = format!("{}/{customer}", app.region);
    let attempts = 2_u8;
    tokio::time::sleep(Duration::from_millis(1)).await;
    black_box((&key, attempts));
    Ok(vec!["book".to_owned(), "lamp".to_owned()])
}

#[inline(never)]
fn total(prices: &BTreeMap<String, u64>, items: &[String], discount: u64) -> u64 {
    let mut sum = 0;
    for (index, item) in items.iter().enumerate() {
        sum += price(prices, item, index);
        black_box(sum);
    }
    black_box(items);
    sum - discount
}

#[inline(never)]
fn price(prices: &BTreeMap<String, u64>, item: &str, index: usize) -> u64 {
    let known = prices.len();
    let found = prices.get(item).copied();
    if index == 1 {
        truth!("price": prices, item, index, known, found);
    }
    black_box((known, item));
    found.expect("every item has a price")
}

async fn place_order(
    State(app): State<Arc<App>>,
    Json(body): Json<serde_json::Value>,
) -> Result<String, Failure> {
    let lines = body["lines"].as_array().map_or(0, Vec::len);
    let mut total = 0;
    for (index, line) in body["lines"].as_array().into_iter().flatten().enumerate() {
        let item = line["item"].as_str().unwrap_or("");
        let price = app.prices.get(item).copied().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(1)).await;
        truth!("place_order": lines, index, item, price);
        truth_as!("place_order": body = json(&body), line = json(line));
        let count: u64 = line["count"].as_str().unwrap_or("1").parse()?;
        total += price * count;
        black_box((item, price, count));
    }
    black_box(lines);
    Ok(format!("{total}"))
}
