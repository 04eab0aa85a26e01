//! A small web shop that fails in each way that an application can: for real, nothing is faked.
//!
//! This is what a user of the library writes: plain axum handlers that return
//! [`backstop::Result`], one [`App`], one DSN.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::response::Html;
use axum::routing::{get, post};
use backstop::extract::Text;
use backstop::{App, Blueprint, Result, abort, http_error};
use serde::Serialize;

http_error!(
    /// The warehouse has no room for what a customer sends back.
    pub(crate) struct InsufficientStorage(507, "Not enough storage space.")
);

/// How long the shop waits for the database before it gives up.
const DATABASE_PATIENCE: Duration = Duration::from_millis(150);

/// How long the shop waits for the payment service.
const PAYMENT_PATIENCE: Duration = Duration::from_secs(2);

/// What the shop needs from the world around it.
#[derive(Debug, Clone)]
pub(crate) struct Shop {
    /// The SQLite file with the orders.
    pub(crate) database: PathBuf,
    /// The device on which invoices are printed.
    pub(crate) invoices: PathBuf,
    /// The disk with the product pictures.
    pub(crate) pictures: PathBuf,
    /// The payment service, `http://host:port`.
    pub(crate) payments: String,
    /// The stock server.
    pub(crate) stock: SocketAddr,
}

#[derive(Debug, Clone, Serialize)]
struct Order {
    number: u32,
    customer: String,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Serialize)]
struct Item {
    sku: &'static str,
    quantity: u32,
    cents: u64,
}

/// Puts the shop together, ready to be given a tracker.
pub(crate) fn create_app(shop: Shop) -> App {
    let warehouse = Blueprint::new(
        "warehouse",
        Router::new()
            .route("/returns", post(take_back))
            .route("/stock/{sku}", get(stock_of)),
    );
    let routes = Router::new()
        .route("/", get(home))
        .route("/orders/{number}", post(place_order))
        .route("/orders/{number}/invoice", get(print_invoice))
        .route("/orders/{number}/payment", post(pay))
        .route("/pictures/{sku}", get(picture))
        .route("/coupons", post(redeem_coupon))
        .route("/wishlist", post(upload_wishlist));
    App::new(routes)
        .register(warehouse, "/warehouse")
        .with_state(shop)
}

async fn home() -> Html<&'static str> {
    Html(include_str!("shop.html"))
}

/// The database server is overloaded: somebody else holds the lock.
async fn place_order(State(shop): State<Shop>, UrlPath(number): UrlPath<u32>) -> Result<String> {
    let order = order(number);
    save(&shop.database, &order)
}

fn order(number: u32) -> Order {
    let items = vec![
        Item {
            sku: "teapot",
            quantity: 1,
            cents: 2_490,
        },
        Item {
            sku: "cup",
            quantity: number % 5 + 2,
            cents: 690,
        },
    ];
    Order {
        number,
        customer: "ada".into(),
        items,
    }
}

fn save(database: &Path, order: &Order) -> Result<String> {
    let connection = rusqlite::Connection::open(database)?;
    connection.busy_timeout(DATABASE_PATIENCE)?;
    let total = order
        .items
        .iter()
        .map(|item| u64::from(item.quantity) * item.cents)
        .sum::<u64>();
    connection.execute(
        "INSERT INTO orders (number, customer, cents) VALUES (?1, ?2, ?3)",
        (order.number, &order.customer, total as i64),
    )?;
    let (number, customer) = (order.number, &order.customer);
    Ok(format!(
        "Thank you, {customer}: order {number} is {total} cents.\n"
    ))
}

/// The file system is full.
async fn print_invoice(
    State(shop): State<Shop>,
    UrlPath(number): UrlPath<u32>,
) -> Result<&'static str> {
    let order = order(number);
    let mut invoice = OpenOptions::new().write(true).open(&shop.invoices)?;
    for item in &order.items {
        writeln!(
            invoice,
            "{:>3} x {:<20} {:>8}",
            item.quantity, item.sku, item.cents
        )?;
    }
    Ok("Printed.\n")
}

/// A hard disk crashed: the read returns EIO.
async fn picture(State(shop): State<Shop>, UrlPath(sku): UrlPath<String>) -> Result<Bytes> {
    let block = sku.bytes().map(u64::from).sum::<u64>();
    Ok(read_block(&shop.pictures, block)?.into())
}

fn read_block(disk: &Path, block: u64) -> Result<Vec<u8>> {
    let mut disk = File::open(disk)?;
    let mut bytes = vec![0; 512];
    disk.seek(SeekFrom::Start(block * 512))?;
    disk.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A backend server is overloaded: it answers 503.
async fn pay(State(shop): State<Shop>, UrlPath(number): UrlPath<u32>) -> Result<String> {
    let order = order(number);
    let receipt = tokio::task::spawn_blocking(move || charge(&shop.payments, &order)).await??;
    Ok(receipt)
}

fn charge(payments: &str, order: &Order) -> Result<String> {
    let address = format!("{payments}/charges/{}", order.number);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PAYMENT_PATIENCE))
        .build()
        .into();
    let mut response = agent.post(&address).send(order.customer.as_bytes())?;
    Ok(response.body_mut().read_to_string()?)
}

/// A library fails on what it is given: a programming error that panics.
async fn redeem_coupon(mut code: Bytes) -> Result<String> {
    let percent = code.split_to(4);
    let campaign = String::from_utf8_lossy(&code).into_owned();
    Ok(format!(
        "{}: {} % off\n",
        campaign,
        String::from_utf8_lossy(&percent)
    ))
}

/// The network connection to another system fails.
async fn stock_of(State(shop): State<Shop>, UrlPath(sku): UrlPath<String>) -> Result<String> {
    let answer = ask_stock(shop.stock, &sku)?;
    if answer.is_empty() {
        abort(404)?;
    }
    Ok(answer)
}

fn ask_stock(server: SocketAddr, sku: &str) -> Result<String> {
    let mut connection = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    writeln!(connection, "STOCK {sku}")?;
    let mut answer = String::new();
    connection.take(1024).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The client may leave while its list is still being read.
async fn upload_wishlist(Text(list): Text) -> Result<String> {
    Ok(format!(
        "{} wishes
",
        list.lines().count()
    ))
}

/// An error type of the shop's own, with a code that is not in every table.
async fn take_back() -> Result<&'static str> {
    Err(InsufficientStorage)?
}
