//! An axum service whose handlers ask another one with `reqwest`: one answer is not as
//! expected and fails by `?`, one makes the code behind it panic.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::witness::capture;

#[derive(Debug)]
struct Gateway {
    http: reqwest::Client,
    upstream: SocketAddr,
    asked: AtomicU64,
}

#[derive(Debug)]
struct Failed {
    #[allow(dead_code)]
    status: StatusCode,
}

impl<E: std::error::Error> From<E> for Failed {
    #[track_caller]
    fn from(error: E) -> Failed {
        let status = StatusCode::BAD_GATEWAY;
        let reason = error.to_string();
        capture();
        black_box(&reason);
        Failed { status }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        self.status.into_response()
    }
}

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can start");
    runtime.block_on(async {
        let upstream = serve(Router::new().route("/stock/{sku}", get(stock))).await;
        let gateway = Arc::new(Gateway {
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client can be made"),
            upstream,
            asked: AtomicU64::new(0),
        });
        let router = Router::new()
            .route("/quote/{sku}/{amount}", get(quote))
            .route("/reserve/{sku}/{amount}", get(reserve))
            .with_state(gateway);
        let address = serve(router).await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client can be made");
        for path in ["quote/lamp/3", "reserve/desk/2"] {
            // The handler may panic, which ends the connection early.
            let answer = client.get(format!("http://{address}/{path}")).send().await;
            black_box(answer.is_ok());
        }
    });
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn stock(Path(sku): Path<String>) -> Response {
    if sku == "lamp" {
        return "many".into_response();
    }
    Json(serde_json::json!({"sku": sku, "shelves": [4, 0, 7]})).into_response()
}

async fn quote(
    State(gateway): State<Arc<Gateway>>,
    Path((sku, amount)): Path<(String, u32)>,
) -> Result<String, Failed> {
    let before = gateway.asked.fetch_add(1, Ordering::Relaxed);
    let answer = ask(&gateway, &sku).await?;
    let status = answer.status().as_u16();
    let body = answer.text().await?;
    let wanted = format!("{amount} of {sku}");
    truth!("quote": sku, amount, before, status, body, wanted);
    let count: u32 = body.parse()?;
    black_box((&wanted, &body, status, before, count));
    Ok(format!("{count}"))
}

async fn ask(gateway: &Gateway, sku: &str) -> Result<reqwest::Response, Failed> {
    let url = format!("http://{}/stock/{sku}", gateway.upstream);
    let timeout = std::time::Duration::from_secs(20);
    let request = gateway.http.get(&url).timeout(timeout);
    let answer = request.send().await?;
    black_box((&url, timeout));
    Ok(answer)
}

async fn reserve(
    State(gateway): State<Arc<Gateway>>,
    Path((sku, amount)): Path<(String, u32)>,
) -> Result<String, Failed> {
    let answer = ask(&gateway, &sku).await?;
    let stock: serde_json::Value = answer.json().await?;
    let shelves: Vec<u64> = stock["shelves"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    let free = shelves.iter().sum::<u64>();
    truth!("reserve": sku, amount, shelves, free);
    let shelf = pick(&shelves, u64::from(amount), &sku);
    black_box((&shelves, free, amount, &stock));
    Ok(format!("{shelf}"))
}

#[inline(never)]
fn pick(shelves: &[u64], amount: u64, sku: &str) -> usize {
    let mut left = amount;
    let label = format!("{sku} x {amount}");
    for (shelf, count) in shelves.iter().enumerate() {
        let taken = left.min(*count);
        left -= taken;
        if shelf == 1 {
            truth!("pick": shelves, amount, sku, left, label, shelf, count, taken);
            capture();
        }
        black_box((taken, left));
    }
    let next = shelves.len() + left as usize;
    black_box((&label, sku, amount));
    shelves[next] as usize
}
