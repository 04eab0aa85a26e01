//! Values of libraries that web applications use daily.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use chrono::TimeZone;
use smallvec::{SmallVec, smallvec};

use crate::witness::capture;

pub fn run() {
    chronology(1_700_000_000);
    ticks();
    identity("0194f2a0-7c3e-7b3a-9c41-5a4d7e8f9012");
    small(3);
    web();
    addresses();
    standard();
}

#[inline(never)]
fn chronology(second: i64) {
    let utc = chrono::Utc.timestamp_opt(second, 250_000_000).unwrap();
    let naive = utc.naive_utc();
    let day = naive.date();
    let time = naive.time();
    let east = chrono::FixedOffset::east_opt(5 * 3600 + 1800).expect("a good offset");
    let fixed = utc.with_timezone(&east);
    let long = chrono::TimeDelta::seconds(90_061);
    let weekday = chrono::Weekday::Fri;
    let month = chrono::Month::May;
    let early = chrono::NaiveDate::from_ymd_opt(1969, 2, 28).expect("a good date");
    let leap = chrono::NaiveDate::from_ymd_opt(2024, 12, 31).expect("a good date");
    let maybe = Some(day);
    truth!("chronology": second, utc, naive, day, time, east, fixed, long, weekday, month, early, leap, maybe);
    capture();
    black_box((utc, naive, day, time, east, fixed, long, weekday, month, early, leap, maybe));
}

#[inline(never)]
fn ticks() {
    let stamp = jiff::Timestamp::new(1_700_000_000, 5_000_000).expect("a good time");
    let before = jiff::Timestamp::new(-7, -500).expect("a good time");
    let date = jiff::civil::date(2024, 2, 29);
    let time = jiff::civil::time(23, 59, 58, 1);
    let both = date.to_datetime(time);
    let zoned = stamp.to_zoned(jiff::tz::TimeZone::UTC);
    let length = jiff::SignedDuration::new(-5, -250_000_000);
    let offset = jiff::tz::offset(-3);
    truth!("ticks": stamp, before, date, time, both, length, offset);
    capture();
    black_box((stamp, before, date, time, both, &zoned, length, offset));
}

#[inline(never)]
fn identity(text: &str) {
    let id = uuid::Uuid::parse_str(text).expect("a good id");
    let nil = uuid::Uuid::nil();
    let several = vec![id, nil];
    let url = url::Url::parse("https://shop.test/a?b=c").expect("a good URL");
    let address = url.as_str().to_owned();
    let known: Option<uuid::Uuid> = Some(id);
    truth!("identity": text, id, nil, several, address, known);
    truth_as!("identity": url = format!("{:?}", url.as_str()));
    capture();
    black_box((id, nil, &several, &url, &address, known));
}

#[inline(never)]
fn small(count: usize) {
    let inside: SmallVec<[u16; 8]> = smallvec![7; count];
    let outside: SmallVec<[u16; 2]> = smallvec![9; count];
    let none: SmallVec<[String; 2]> = SmallVec::new();
    let texts: SmallVec<[String; 1]> = smallvec![String::from("a"), String::from("b")];
    let bytes = bytes::Bytes::from(vec![1_u8, 2, b'x']);
    let mut growing = bytes::BytesMut::with_capacity(32);
    growing.extend_from_slice(b"grow");
    let part = bytes.slice(1..);
    let table: indexmap::IndexMap<String, Vec<u8>> = [("k".to_owned(), vec![1, 2])].into();
    let set: indexmap::IndexSet<u8> = [3, 1, 2].into();
    truth!("small": count, inside, outside, none, texts, bytes, growing, part, table, set);
    capture();
    black_box((&inside, &outside, &none, &texts, &bytes, &growing, &part, &table, &set));
}

#[inline(never)]
fn web() {
    let status = http::StatusCode::IM_A_TEAPOT;
    let method = http::Method::DELETE;
    let version = http::Version::HTTP_11;
    let slice: Rc<[u8]> = Rc::from(vec![1_u8, 2, 3]);
    let words: Arc<[&str]> = Arc::from(vec!["a", "b"]);
    let boxed: Box<dyn std::any::Any> = Box::new(5_u8);
    let text: Box<dyn std::fmt::Display> = Box::new(String::from("shown"));
    let numbers: Box<dyn std::fmt::Debug> = Box::new(std::collections::BTreeSet::from([2_u8, 1]));
    let shared: Arc<dyn std::fmt::Debug + Send + Sync> = Arc::new(Some(4_i32));
    let error: Box<dyn std::error::Error + Send + Sync> = Box::from("a text as an error");
    let object = serde_json::json!({"ok": true, "list": [1, "two", null]});
    truth!("web": status, method, slice, words, numbers, shared, error);
    truth_as!("web": object = crate::witness::json(&object), text = r#""shown""#);
    capture();
    black_box((&status, &method, version, &slice, &words, &boxed, &text, &numbers, &shared, &error, &object));
}

#[inline(never)]
fn addresses() {
    let whole: http::Uri = "https://shop.test:81/a?b=c".parse().expect("a good address");
    let path: http::Uri = "/only?q=1".parse().expect("a good address");
    let bare: http::Uri = "ftp://x.test".parse().expect("a good address");
    let star: http::Uri = "*".parse().expect("a good address");
    let place: http::uri::Authority = "shop.test:80".parse().expect("a good address");
    let login: http::uri::Authority = "ann:hunter2@shop.test".parse().expect("a good address");
    let standard = http::header::WWW_AUTHENTICATE;
    let custom = http::HeaderName::from_static("x-own");
    let version = http::Version::HTTP_2;
    let headers = http::HeaderMap::from_iter([(http::header::COOKIE, http::HeaderValue::from_static("a=b"))]);
    let later = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
    let mutex = tokio::sync::Mutex::new(5_u8);
    truth!("addresses": whole, path, bare, star, place, standard, custom, version, mutex);
    truth_as!("addresses": later = "1970-01-01T00:00:00+00:00");
    capture();
    black_box((&whole, &path, &bare, &star, &place, &login, &standard, &custom, version, &headers, &later, &mutex));
}

#[inline(never)]
fn standard() {
    let kind = std::io::Error::from(std::io::ErrorKind::NotFound);
    let system = std::fs::read_to_string("/nowhere").expect_err("there is no such file");
    let message = std::io::Read::read_exact(&mut &b"x"[..], &mut [0; 9]).expect_err("it is short");
    let custom = std::io::Error::other(std::fmt::Error);
    let lazy = std::sync::LazyLock::new(|| 5_u32);
    std::sync::LazyLock::force(&lazy);
    let cold = std::sync::LazyLock::new(|| 5_u32);
    let local = std::cell::LazyCell::new(|| String::from("made"));
    std::cell::LazyCell::force(&local);
    let lock = std::sync::Mutex::new(vec![1_u8, 2]);
    let guard = lock.lock().expect("it is not poisoned");
    let shared = std::sync::RwLock::new(String::from("read"));
    let read = shared.read().expect("it is not poisoned");
    let linked: std::collections::LinkedList<u16> = [1, 2, 3].into();
    let none: std::collections::LinkedList<u16> = [].into();
    let c_text = std::ffi::CString::new("zero at the end").expect("no zero inside");
    let (from, to, through, full) = (3_u8.., ..5_i8, ..=6, ..);
    let now = std::time::Instant::now();
    let today = std::time::SystemTime::now();
    truth!("standard": kind, system, message, custom, lazy, cold, local, guard, read, linked, none, c_text, from, to, through, full);
    capture();
    black_box((&kind, &system, &message, &custom, &lazy, &cold, &local, &guard, &read, &linked, &none, &c_text));
    black_box((&from, to, through, full, now, today));
}
