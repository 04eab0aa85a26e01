//! User types, generics, closures, iterators, recursion, traits, big values, errors.

use std::fmt::{self, Debug};
use std::hint::black_box;

use crate::witness::capture;

#[derive(Debug, Clone, PartialEq)]
#[allow(dead_code)]
struct Item {
    sku: String,
    price: u64,
    weight: f32,
    tags: Vec<&'static str>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
#[allow(dead_code)]
enum Kind {
    Plain,
    Sized(u8),
    Boxed {
        width: u16,
        height: u16,
        label: Option<String>,
    },
    Bundle(Vec<Item>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(dead_code)]
enum Level {
    Low = 1,
    Mid = 5,
    High = 100,
}

#[derive(Debug)]
#[allow(dead_code)]
struct Empty;

#[derive(Debug)]
#[allow(dead_code)]
struct Meters(f64);

fn item(n: u64) -> Item {
    Item {
        sku: format!("sku-{n}"),
        price: n * 100,
        weight: 0.5 * n as f32,
        tags: vec!["new", "hot"],
        kind: Kind::Boxed {
            width: 3,
            height: 4,
            label: Some("L".to_owned()),
        },
    }
}

pub fn users() {
    outer(2);
}

#[inline(never)]
fn outer(count: u64) {
    let items: Vec<Item> = (0..count).map(item).collect();
    let bundle = Item {
        kind: Kind::Bundle(items.clone()),
        ..item(9)
    };
    let level = Level::High;
    let levels = [Level::Low, Level::Mid];
    let empty = Empty;
    let meters = Meters(1.25);
    let maybe = Some(Kind::Sized(7));
    let plain = Kind::Plain;
    let result: Result<Item, Kind> = Err(Kind::Plain);
    let total = middle(&items, &bundle, level);
    truth!("outer": count, items, bundle, level, levels, empty, meters, maybe, plain, result);
    black_box((
        &items, &bundle, level, levels, &empty, &meters, &maybe, &plain, &result, total,
    ));
}

#[inline(never)]
fn middle(items: &[Item], bundle: &Item, level: Level) -> u64 {
    let first = &items[0];
    let Item { sku, price, .. } = first;
    let last = items.last();
    let doubled = price * 2;
    let mut total = 0;
    for (index, item) in items.iter().enumerate() {
        total += inner(item, index, total);
    }
    truth!("middle": items, bundle, level, first, sku, price, last, doubled);
    black_box((first, sku, price, last, doubled, bundle, level));
    total
}

#[inline(never)]
fn inner(item: &Item, index: usize, so_far: u64) -> u64 {
    let price = item.price;
    let label = match &item.kind {
        Kind::Boxed {
            width,
            height,
            label,
        } => {
            let area = u32::from(*width) * u32::from(*height);
            if index == 1 {
                truth!("inner": item, index, so_far, price, width, height, area);
                capture();
            }
            black_box((area, width, height));
            label.as_deref()
        }
        _ => None,
    };
    black_box((label, price));
    so_far + price
}

pub fn generics() {
    show(5_u8, "byte");
    show("text", "text");
    show(vec![1.5_f64], "list");
    show(Some(String::from("some")), "option");
    show(item(1), "item");
    show((1_u8, 2_u64), "pair");
    show([1_u16; 4], "array");
    show(Meters(2.0), "newtype");
    show(Box::new(Level::Mid), "box");
    show(std::collections::BTreeMap::from([(1_u8, "x")]), "map");
}

#[inline(never)]
fn show<T: Debug + 'static>(value: T, label: &'static str) -> usize {
    let text = format!("{value:?}");
    let wrapper = Wrapper {
        inner: &value,
        count: text.len(),
    };
    let len = wrapper.describe(label);
    truth!("show": value, label, text, len);
    black_box((&value, &text, label));
    len
}

#[derive(Debug)]
struct Wrapper<'a, T> {
    inner: &'a T,
    count: usize,
}

impl<T: Debug> Wrapper<'_, T> {
    #[inline(never)]
    fn describe(&self, label: &str) -> usize {
        let len = label.len() + self.count;
        let copy = self.inner;
        capture();
        black_box((len, copy));
        len
    }
}

pub fn closures() {
    let base = 10_u64;
    let name = String::from("captured");
    let list = vec![1_u64, 2, 3];
    let add = |x: u64| {
        let sum = x + base;
        let label = &name;
        truth!("closures::{closure#0}": x, sum, label, base, name);
        capture();
        black_box((sum, label));
        sum
    };
    let moved = list.clone();
    let owner = move |y: usize| {
        let picked = moved[y];
        truth!("closures::{closure#1}": y, picked, moved);
        capture();
        black_box(picked)
    };
    let boxed: Box<dyn Fn(u64) -> u64> = Box::new(move |z| {
        let shifted = z << 2;
        truth!("closures::{closure#2}": z, shifted);
        capture();
        black_box(shifted)
    });
    let one = apply(add, 5);
    let two = owner(1);
    let three = boxed(6);
    truth!("closures": base, name, list, one, two, three);
    black_box((base, &name, &list, one, two, three));
}

#[inline(never)]
fn apply<F: Fn(u64) -> u64>(function: F, argument: u64) -> u64 {
    let result = function(argument);
    black_box(result)
}

pub fn iterators() {
    let words = ["alpha", "beta", "gamma"];
    let lens: Vec<usize> = words
        .iter()
        .enumerate()
        .filter(|(index, _)| index % 2 == 0)
        .map(|(index, word)| {
            let len = word.len();
            if index == 2 {
                truth!("iterators::{closure#1}": index, word, len);
                capture();
            }
            black_box(len)
        })
        .collect();
    let total: usize = lens.iter().fold(0, |sum, len| {
        let next = sum + len;
        if next > 5 {
            truth!("iterators::{closure#2}": sum, len, next);
            capture();
        }
        black_box(next)
    });
    black_box((words, lens, total));
}

#[derive(Debug)]
struct Tree {
    value: u32,
    children: Vec<Tree>,
}

pub fn recursion() {
    let tree = grow(0, 12);
    let mut path = Vec::new();
    let depth = descend(&tree, &mut path, 0);
    black_box((tree, path, depth));
}

fn grow(value: u32, levels: u32) -> Tree {
    let children = if levels == 0 {
        Vec::new()
    } else {
        vec![grow(value + 1, levels - 1)]
    };
    Tree { value, children }
}

#[inline(never)]
fn descend(tree: &Tree, path: &mut Vec<u32>, depth: usize) -> usize {
    let value = tree.value;
    let is_leaf = tree.children.is_empty();
    path.push(value);
    let label = format!("node {value}");
    let mut deepest = depth;
    truth!("descend": value, is_leaf, depth, label);
    if is_leaf {
        capture();
    }
    for child in &tree.children {
        let below = descend(child, path, depth + 1);
        deepest = deepest.max(below);
    }
    black_box((value, is_leaf, &label));
    deepest
}

trait Shape {
    fn name(&self) -> &'static str;
    fn area(&self, scale: f64) -> f64;
}

#[derive(Debug)]
struct Circle {
    radius: f64,
}

#[derive(Debug)]
struct Square {
    side: f64,
    label: String,
}

impl Shape for Circle {
    fn name(&self) -> &'static str {
        "circle"
    }

    #[inline(never)]
    fn area(&self, scale: f64) -> f64 {
        let scaled = self.radius * scale;
        let area = scaled * scaled * 3.0;
        truth!("Circle as corpus::plain::Shape>::area": self, scale, scaled, area);
        capture();
        black_box((scaled, area)).1
    }
}

impl Shape for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    #[inline(never)]
    fn area(&self, scale: f64) -> f64 {
        let side = self.side * scale;
        let label = self.label.as_str();
        truth!("Square as corpus::plain::Shape>::area": self, scale, side, label);
        capture();
        black_box((side, label)).0
    }
}

pub fn traits() {
    let shapes: Vec<Box<dyn Shape>> = vec![
        Box::new(Circle { radius: 2.0 }),
        Box::new(Square {
            side: 3.0,
            label: "sq".to_owned(),
        }),
    ];
    let total = measure(&shapes, 1.5);
    black_box((shapes, total));
}

#[inline(never)]
fn measure(shapes: &[Box<dyn Shape>], scale: f64) -> f64 {
    let count = shapes.len();
    let mut total = 0.0;
    for shape in shapes {
        let name = shape.name();
        let area = shape.area(scale);
        total += area;
        black_box((name, area));
    }
    black_box(count);
    total
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
struct Big {
    header: [u8; 32],
    rows: [[u32; 8]; 4],
    names: [String; 3],
    inner: Inner,
    tail: u8,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
struct Inner {
    a: u8,
    b: u64,
    c: u8,
    d: Option<u16>,
    e: (u8, u32, u8),
}

pub fn big() {
    let big = Big {
        header: [7; 32],
        rows: [[1, 2, 3, 4, 5, 6, 7, 8]; 4],
        names: ["a".to_owned(), "b".to_owned(), "c".to_owned()],
        inner: Inner {
            a: 1,
            b: 2,
            c: 3,
            d: Some(4),
            e: (5, 6, 7),
        },
        tail: 255,
    };
    let boxed = Box::new(big.clone());
    let result = by_value(big.clone(), &boxed, [9; 40], 1, 2, 3, 4, 5, 6);
    truth!("big": big, boxed);
    black_box((big, boxed, result));
}

#[allow(clippy::too_many_arguments)]
#[inline(never)]
fn by_value(
    big: Big,
    other: &Big,
    array: [u64; 40],
    a: u8,
    b: u16,
    c: u32,
    d: u64,
    e: i8,
    f: i64,
) -> u64 {
    let sum = u64::from(a) + u64::from(b) + u64::from(c) + d;
    let diff = i64::from(e) - f;
    truth!("by_value": big, other, array, a, b, c, d, e, f, sum, diff);
    capture();
    black_box((&big, other, array, diff));
    sum
}

#[derive(Debug)]
struct Failure {
    #[allow(dead_code)]
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failure")
    }
}

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Failure {
        let message = error.to_string();
        capture();
        Failure { message }
    }
}

pub fn errors() {
    let result = parse("12,x,3", 2);
    black_box(result.is_err());
}

#[inline(never)]
fn parse(line: &str, factor: u64) -> Result<u64, Failure> {
    let mut total = 0;
    let parts: Vec<&str> = line.split(',').collect();
    for (column, part) in parts.iter().enumerate() {
        let number = number(part, column)?;
        total += number * factor;
        black_box(total);
    }
    black_box((&parts, line));
    Ok(total)
}

#[inline(never)]
fn number(part: &str, column: usize) -> Result<u64, Failure> {
    let trimmed = part.trim();
    let width = trimmed.len() + column;
    if column == 1 {
        truth!("number": part, column, trimmed, width);
    }
    let value: u64 = trimmed.parse()?;
    black_box((trimmed, width));
    Ok(value)
}
