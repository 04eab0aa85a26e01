//! One variable of every everyday type.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::OsString;
use std::hint::black_box;
use std::num::{NonZeroU32, Wrapping};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use smallvec::SmallVec;

use crate::witness::capture;
#[cfg(feature = "witness")]
use crate::witness::json;

pub fn run() {
    numbers(3);
    texts("argument");
    owners();
    cells();
    library();
    times();
    daily();
}

#[inline(never)]
fn numbers(count: i32) {
    let a_i8 = -8_i8;
    let a_u8 = 200_u8;
    let a_i16 = -1600_i16;
    let a_u16 = 65_000_u16;
    let a_i32 = i32::MIN;
    let a_u32 = u32::MAX;
    let a_i64 = -(1_i64 << 40);
    let a_u64 = u64::MAX - 1;
    let a_i128 = i128::MIN + count as i128;
    let a_u128 = u128::MAX - 5;
    let a_usize = usize::MAX / 3;
    let a_isize = -1_isize;
    let a_f32 = 0.1_f32 * count as f32;
    let a_f64 = 1e300_f64;
    let not_a_number = f64::NAN;
    let infinite = f32::NEG_INFINITY;
    let zero = -0.0_f64;
    let yes = count == 3;
    let letter = 'ß';
    let emoji = '🦀';
    let unit = ();
    let pair = (1_u8, "two");
    let nested = ((1_u8, 2_u64), [3_u16; 3]);
    let one = (5_u64,);
    let wrapping = Wrapping(7_u8);
    let non_zero = NonZeroU32::new(9);
    let no_non_zero = NonZeroU32::new(0);
    let grid = [[1_u8, 2, 3], [4, 5, 6]];
    let empty_array: [u64; 0] = [];
    let range = 3..9;
    let inclusive = 1..=count;
    let ordering = 1.cmp(&count);
    let function: fn(&str) = texts;
    truth!("numbers": count, a_i8, a_u8, a_i16, a_u16, a_i32, a_u32, a_i64, a_u64, a_i128, a_u128, a_usize, a_isize,
        a_f32, a_f64, not_a_number, infinite, zero, yes, letter, emoji, unit, pair, nested, one, wrapping, non_zero,
        no_non_zero, grid, empty_array, range, inclusive, ordering);
    capture();
    black_box((a_i8, a_u8, a_i16, a_u16, a_i32, a_u32, a_i64, a_u64));
    black_box((a_i128, a_u128, a_usize, a_isize, a_f32, a_f64, yes, letter));
    black_box((
        emoji,
        unit,
        pair,
        nested,
        one,
        wrapping,
        non_zero,
        grid,
        empty_array,
        range,
        inclusive,
        ordering,
    ));
    black_box((not_a_number, infinite, zero, no_non_zero, function));
}

#[inline(never)]
fn texts(argument: &str) {
    let literal = "literal";
    let owned = format!("{argument}!");
    let empty = String::new();
    let spare = String::with_capacity(100);
    let unicode = "naïve 🦀 \"quoted\"\n\ttab\\";
    let part = &owned[2..5];
    let boxed: Box<str> = literal.into();
    let counted: Rc<str> = literal.into();
    let atomic: Arc<str> = literal.into();
    let borrowed_cow: Cow<'_, str> = Cow::Borrowed(literal);
    let owned_cow: Cow<'_, str> = Cow::Owned(owned.clone());
    let path = PathBuf::from("/a/b c");
    let borrowed_path: &Path = Path::new("x/y");
    let os = OsString::from("os");
    let boxed_path: Box<Path> = path.clone().into_boxed_path();
    let bytes = b"bytes\x00\xff";
    let byte_slice: &[u8] = &bytes[1..3];
    let some = Some(owned.clone());
    let none: Option<String> = None;
    let fine: Result<String, u8> = Ok("fine".to_owned());
    let wrong: Result<u64, String> = Err("wrong".to_owned());
    let maybe_reference = Some(literal);
    let double = &&owned;
    truth!("texts": argument, literal, owned, empty, spare, unicode, part, boxed, counted, atomic, borrowed_cow, owned_cow,
        path, borrowed_path, os, boxed_path, bytes, byte_slice, some, none, fine, wrong, maybe_reference, double);
    capture();
    black_box((
        literal,
        &owned,
        &empty,
        &spare,
        unicode,
        part,
        &boxed,
        &counted,
        &atomic,
        &borrowed_cow,
    ));
    black_box((
        &owned_cow,
        &path,
        borrowed_path,
        &os,
        &boxed_path,
        bytes,
        byte_slice,
        &some,
        &none,
    ));
    black_box((&fine, &wrong, maybe_reference, double));
}

#[inline(never)]
fn owners() {
    let boxed = Box::new(5_u32);
    let nested_box = Box::new(Box::new("deep"));
    let boxed_slice: Box<[u16]> = vec![1, 2, 3].into_boxed_slice();
    let counted = Rc::new(vec![1, 2]);
    let counted_again = Rc::clone(&counted);
    let atomic = Arc::new(("a", 1));
    let counted_slice: Rc<[u8]> = Rc::from(&[1_u8, 2][..]);
    let option_box = Some(Box::new(9_i64));
    let no_box: Option<Box<i64>> = None;
    let result: Result<Box<u8>, ()> = Ok(Box::new(3));
    let list = vec![String::from("a"), String::from("b")];
    let reference = &list;
    let unique = &mut vec![1_u8];
    let raw: *const u32 = &*boxed;
    truth!("owners": boxed, nested_box, boxed_slice, counted, counted_again, atomic, counted_slice, option_box, no_box,
        result, list, reference, unique);
    capture();
    black_box((
        &boxed,
        &nested_box,
        &boxed_slice,
        &counted,
        &counted_again,
        &atomic,
        &counted_slice,
    ));
    black_box((&option_box, &no_box, &result, &list, reference, unique, raw));
}

#[inline(never)]
fn cells() {
    let cell = Cell::new(5_u8);
    let ref_cell = RefCell::new(String::from("in"));
    let borrowed = RefCell::new(1_u8);
    let guard = borrowed.borrow_mut();
    let mutex = Mutex::new(vec![1_u8]);
    let lock = RwLock::new(5_u64);
    let shared = Arc::new(Mutex::new(String::from("shared")));
    let once: OnceCell<u32> = OnceCell::from(4);
    let empty_once: OnceCell<u32> = OnceCell::new();
    let once_lock: OnceLock<String> = OnceLock::from(String::from("x"));
    let empty_lock: OnceLock<String> = OnceLock::new();
    let flag = AtomicBool::new(true);
    let counter = AtomicI64::new(-7);
    truth!("cells": cell, ref_cell, borrowed, once, empty_once, once_lock, empty_lock, flag, counter);
    capture();
    drop(guard);
    black_box((
        &cell,
        &ref_cell,
        &borrowed,
        &mutex,
        &lock,
        &shared,
        &once,
        &empty_once,
        &once_lock,
        &empty_lock,
        &flag,
        &counter,
    ));
}

#[inline(never)]
fn library() {
    let value = serde_json::json!(null);
    let number = serde_json::json!(1);
    let negative = serde_json::json!(-1);
    let float = serde_json::json!(1.5);
    let text = serde_json::json!("text");
    let array = serde_json::json!([1, "a", null]);
    let object = serde_json::json!({"a": 1});
    let small: SmallVec<[u8; 4]> = SmallVec::from_slice(&[1, 2]);
    let spilled: SmallVec<[u8; 2]> = SmallVec::from_slice(&[1, 2, 3]);
    let status = http::StatusCode::NOT_FOUND;
    let method = http::Method::POST;
    let bytes = bytes::Bytes::from_static(b"by\"tes\x01");
    let url = url::Url::parse("https://shop.test:8443/a?b=c#d").expect("a good URL");
    let index: indexmap::IndexMap<&str, u8> = [("x", 1), ("y", 2)].into_iter().collect();
    truth!("library": small, spilled, status, method, bytes, index);
    truth_as!("library": value = json(&value), number = json(&number), negative = json(&negative), float = json(&float),
        text = json(&text), array = json(&array), object = json(&object), url = format!("{:?}", url.as_str()));
    capture();
    black_box((
        &value, &number, &negative, &float, &text, &array, &object, &small, &spilled, &status,
        &method, &bytes, &url, &index,
    ));
}

#[inline(never)]
fn times() {
    let second = Duration::from_secs(1);
    let millis = Duration::from_millis(1500);
    let nanos = Duration::from_nanos(7);
    let timestamp = jiff::Timestamp::from_second(1_700_000_000).expect("a good time");
    let date = jiff::civil::date(2026, 2, 28);
    let date_time = jiff::civil::date(2026, 2, 28).at(12, 30, 5, 0);
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    truth!("times": second, millis, nanos, timestamp, date, date_time, epoch);
    capture();
    black_box((
        &second, &millis, &nanos, &timestamp, &date, &date_time, &epoch,
    ));
}

#[inline(never)]
fn daily() {
    let v4 = std::net::Ipv4Addr::LOCALHOST;
    let v6 = std::net::Ipv6Addr::LOCALHOST;
    let ip = std::net::IpAddr::from(v4);
    let socket: std::net::SocketAddr = "10.0.0.1:80".parse().expect("a good address");
    let socket6: std::net::SocketAddr = "[::1]:81".parse().expect("a good address");
    let parse_error = "x".parse::<u8>().expect_err("no number");
    let io_error = std::io::Error::from_raw_os_error(2);
    let io_kind = std::io::ErrorKind::NotFound;
    let layout = std::alloc::Layout::new::<u64>();
    let boxed_error: Box<dyn std::error::Error> = Box::new(parse_error.clone());
    let printer: Box<dyn std::fmt::Debug> = Box::new(vec![1_u8]);
    let borrowed: &dyn std::fmt::Debug = &5_u16;
    truth!("daily": v4, v6, ip, socket, socket6, parse_error, io_kind, printer, borrowed, boxed_error);
    capture();
    black_box((
        &v4,
        &v6,
        &ip,
        &socket,
        &socket6,
        &parse_error,
        &io_error,
        &io_kind,
        &layout,
        &boxed_error,
        &printer,
        borrowed,
    ));
}
