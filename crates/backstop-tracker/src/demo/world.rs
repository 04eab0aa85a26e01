//! The surroundings of the shop, each broken for real, and the customer who runs into all of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::any;

/// How long the customer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the shop meets.
pub(super) struct World {
    /// A SQLite file with a lock on it.
    pub(super) database: PathBuf,
    /// A device without space.
    pub(super) invoices: PathBuf,
    /// A file whose reads return EIO.
    pub(super) pictures: PathBuf,
    /// A payment service that is overloaded.
    pub(super) payments: String,
    /// A port that nobody listens on.
    pub(super) stock: SocketAddr,
    /// Holds the lock of the database.
    _lock: rusqlite::Connection,
}

impl World {
    /// Breaks the surroundings.
    pub(super) async fn make(directory: &Path) -> Result<World> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let database = directory.join("orders.db");
        let lock = rusqlite::Connection::open(&database)?;
        lock.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (number INTEGER, customer TEXT, cents INTEGER);
             BEGIN EXCLUSIVE;",
        )
        .with_context(|| format!("cannot lock {}", database.display()))?;
        Ok(World {
            database,
            invoices: "/dev/full".into(),
            // Nothing is mapped at the beginning of a process's memory, so the kernel answers EIO.
            pictures: "/proc/self/mem".into(),
            payments: overloaded_service().await?,
            stock: closed_port()?,
            _lock: lock,
        })
    }
}

/// Starts a service that answers 503 to everything.
async fn overloaded_service() -> Result<String> {
    let answer = || async {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "30")],
            "too many payments at once\n",
        )
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(answer))).await });
    Ok(format!("http://{address}"))
}

/// Finds a port that was free a moment ago, where a connection is refused.
fn closed_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Something that was tried at the shop and is expected to fail.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// What is wrong, in the words of the documentation that the shop follows.
    pub(super) what: &'static str,
    /// The path that fails; the event is found by it.
    pub(super) path: &'static str,
    /// The server's fault, so that it is an issue; otherwise it is the client's.
    pub(super) is_ours: bool,
    /// What the customer got.
    pub(super) status: Option<u16>,
}

/// Runs into everything once.
pub(super) fn break_everything(shop: &str) -> Result<Vec<Attempt>> {
    let requests = [
        ("database overloaded", "POST", "/orders/42"),
        ("file system full", "GET", "/orders/42/invoice"),
        ("hard disk crashed", "GET", "/pictures/teapot"),
        ("backend overloaded", "POST", "/orders/42/payment"),
        ("bug in a library", "POST", "/coupons"),
        (
            "network connection failed",
            "GET",
            "/warehouse/stock/teapot",
        ),
    ];
    let mut attempts = vec![leave_early(shop)?];
    for (what, method, path) in requests {
        let answer = exchange(
            shop,
            &format!("{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n"),
        )?;
        attempts.push(Attempt {
            what,
            path,
            is_ours: true,
            status: status_of(&answer),
        });
    }
    Ok(attempts)
}

/// Announces a body, sends a part of it and hangs up.
fn leave_early(shop: &str) -> Result<Attempt> {
    let path = "/wishlist";
    let mut connection = connect(shop)?;
    write!(
        connection,
        "POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Type: text/plain\r\nContent-Length: 10000\r\n\r\n\
         a teapot\na cup\n"
    )?;
    connection.shutdown(Shutdown::Both)?;
    Ok(Attempt {
        what: "client left while sending",
        path,
        is_ours: false,
        status: None,
    })
}

fn exchange(shop: &str, head: &str) -> Result<String> {
    let mut connection = connect(shop)?;
    write!(connection, "{head}Host: shop\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn connect(shop: &str) -> Result<TcpStream> {
    let address = shop.trim_start_matches("http://");
    let connection =
        TcpStream::connect(address).with_context(|| format!("the shop at {shop} is gone"))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

fn status_of(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}
