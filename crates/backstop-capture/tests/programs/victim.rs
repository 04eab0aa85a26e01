//! A library that calls back from two frames deep, built in every way that debug information
//! can be kept.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::hint::black_box;

#[derive(Debug)]
#[allow(dead_code)]
struct Order {
    id: u64,
    lines: Vec<String>,
    note: Option<Box<str>>,
}

type Callback = extern "C" fn(*mut c_void);

#[unsafe(no_mangle)]
pub extern "C" fn victim(callback: Callback, data: *mut c_void) -> u64 {
    outer(black_box(7), callback, data)
}

#[inline(never)]
fn outer(seed: u64, callback: Callback, data: *mut c_void) -> u64 {
    let order = Order {
        id: seed,
        lines: vec!["a".to_owned(), "b c".to_owned()],
        note: Some("hello".into()),
    };
    let table: BTreeMap<u64, &str> = [(1, "one"), (2, "two")].into();
    let object: Box<dyn std::fmt::Debug> = Box::new(Order {
        id: 9,
        lines: Vec::new(),
        note: None,
    });
    let sum = inner(&order, 1.5, callback, data);
    black_box((&order, &table, &object));
    sum
}

#[inline(never)]
fn inner(order: &Order, factor: f64, callback: Callback, data: *mut c_void) -> u64 {
    let count = black_box(order).lines.len() as u64 + 40;
    callback(data);
    black_box((factor, count));
    count
}
