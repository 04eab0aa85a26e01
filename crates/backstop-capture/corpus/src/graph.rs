//! Values that point at each other: counted, weak, linked, in cells, behind traits.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hint::black_box;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};

use crate::witness::capture;

#[derive(Debug)]
#[allow(dead_code)]
struct Node {
    name: String,
    parent: RefCell<Weak<Node>>,
    children: RefCell<Vec<Rc<Node>>>,
    visits: Cell<u32>,
}

#[derive(Debug)]
struct List {
    value: u16,
    next: Option<Box<List>>,
}

pub fn run() {
    family("root");
    linked(4);
    walk(&[(1, 2), (1, 3), (2, 4), (3, 4), (4, 5)], 1);
    cache(&["a", "bb", "a", "ccc", "bb"]);
    observers(7);
    bank();
    sharing(vec![3, 1, 2]);
    numeric(&[1.5, -2.0, 4.25], 2);
    bits(0b1011_0010, 3);
}

#[inline(never)]
fn family(name: &str) {
    let leaf = Rc::new(Node {
        name: String::from("leaf"),
        parent: RefCell::new(Weak::new()),
        children: RefCell::new(Vec::new()),
        visits: Cell::new(1),
    });
    let root = Rc::new(Node {
        name: name.to_owned(),
        parent: RefCell::new(Weak::new()),
        children: RefCell::new(vec![Rc::clone(&leaf)]),
        visits: Cell::new(2),
    });
    *leaf.parent.borrow_mut() = Rc::downgrade(&root);
    let strong = Rc::strong_count(&leaf);
    let weak = Rc::weak_count(&root);
    let up = leaf.parent.borrow().upgrade();
    let label = up.as_ref().map(|node| node.name.as_str());
    let visits = root.visits.get() + leaf.visits.get();
    truth!("family": name, leaf, root, strong, weak, label, visits);
    capture();
    black_box((&leaf, &root, strong, weak, label, visits, &up));
}

#[inline(never)]
fn linked(length: u16) {
    let mut head: Option<Box<List>> = None;
    for value in 0..length {
        head = Some(Box::new(List { value, next: head }));
    }
    let mut sum = 0_u32;
    let mut cursor = head.as_deref();
    let mut longest = Vec::new();
    while let Some(node) = cursor {
        sum += u32::from(node.value);
        longest.push(node.value);
        cursor = node.next.as_deref();
        if node.value == 1 {
            truth!("linked": length, sum, longest, node, cursor);
            capture();
        }
        black_box(sum);
    }
    black_box((&head, &longest));
}

#[inline(never)]
fn walk(edges: &[(u8, u8)], start: u8) {
    let mut reached: BTreeSet<u8> = BTreeSet::from([start]);
    let mut waiting = VecDeque::from([start]);
    let mut order = Vec::new();
    while let Some(node) = waiting.pop_front() {
        order.push(node);
        let next: Vec<u8> = edges
            .iter()
            .filter(|(from, _)| *from == node)
            .map(|(_, to)| *to)
            .collect();
        let fresh: Vec<u8> = next.iter().copied().filter(|to| reached.insert(*to)).collect();
        waiting.extend(&fresh);
        if node == 4 {
            truth!("walk": edges, start, reached, waiting, order, node, next, fresh);
            capture();
        }
        black_box((&next, &fresh));
    }
    black_box((&order, &reached));
}

#[inline(never)]
fn cache(keys: &[&str]) {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let (mut hits, mut misses) = (0_u8, 0_u8);
    for (turn, key) in keys.iter().enumerate() {
        let slot = known.entry((*key).to_owned());
        let is_new = matches!(slot, std::collections::btree_map::Entry::Vacant(_));
        let len = *slot.or_insert_with(|| key.len());
        if is_new {
            misses += 1;
        } else {
            hits += 1;
        }
        if turn == 4 {
            truth!("cache": keys, known, hits, misses, turn, key, is_new, len);
            capture();
        }
        black_box((len, is_new));
    }
    black_box((&known, hits, misses));
}

trait Observer: Debug {
    fn notice(&mut self, value: u32) -> bool;
}

#[derive(Debug, Default)]
struct Counter {
    calls: u32,
    last: Option<u32>,
}

#[derive(Debug)]
struct Threshold(u32, Vec<u32>);

impl Observer for Counter {
    #[inline(never)]
    fn notice(&mut self, value: u32) -> bool {
        let before = self.last.replace(value);
        self.calls += 1;
        let calls = self.calls;
        truth!("Counter as corpus::graph::Observer>::notice": self, value, before, calls);
        capture();
        black_box((before, calls));
        true
    }
}

impl Observer for Threshold {
    #[inline(never)]
    fn notice(&mut self, value: u32) -> bool {
        let above = value > self.0;
        if above {
            self.1.push(value);
        }
        let kept = self.1.len();
        truth!("Threshold as corpus::graph::Observer>::notice": self, value, above, kept);
        capture();
        black_box((above, kept));
        above
    }
}

#[inline(never)]
fn observers(value: u32) {
    let mut all: Vec<Box<dyn Observer>> = vec![
        Box::new(Counter::default()),
        Box::new(Threshold(5, Vec::new())),
    ];
    let mut answers = Vec::new();
    for observer in &mut all {
        truth!("observers": answers);
        let answer = observer.notice(value);
        answers.push(answer);
    }
    let count = all.len();
    truth!("observers": value, answers, count);
    capture();
    black_box((&all, &answers, count));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cents(i64);

#[derive(Debug)]
#[allow(dead_code)]
enum Refused {
    Missing { account: &'static str },
    Short { needed: Cents, there: Cents },
}

#[inline(never)]
fn bank() {
    let mut accounts = BTreeMap::from([("ann", Cents(500)), ("bob", Cents(20))]);
    let first = transfer(&mut accounts, "ann", "bob", Cents(80));
    let second = transfer(&mut accounts, "bob", "ann", Cents(900));
    let third = transfer(&mut accounts, "eve", "ann", Cents(1));
    let richest = accounts.iter().max_by_key(|(_, cents)| **cents).map(|(name, _)| *name);
    truth!("bank": accounts, first, second, third, richest);
    capture();
    black_box((&accounts, &first, &second, &third, richest));
}

#[inline(never)]
fn transfer(
    accounts: &mut BTreeMap<&'static str, Cents>,
    from: &'static str,
    to: &'static str,
    amount: Cents,
) -> Result<Cents, Refused> {
    let there = *accounts.get(from).ok_or(Refused::Missing { account: from })?;
    let short = there < amount;
    if short {
        let refused = Refused::Short { needed: amount, there };
        truth!("transfer": accounts, from, to, amount, there, short, refused);
        capture();
        return Err(black_box(refused));
    }
    let left = Cents(there.0 - amount.0);
    accounts.insert(from, left);
    accounts.entry(to).and_modify(|cents| cents.0 += amount.0);
    black_box((short, to));
    Ok(left)
}

#[inline(never)]
fn sharing(numbers: Vec<i32>) {
    let shared = Arc::new(Mutex::new(numbers.clone()));
    let slice: Rc<[i32]> = Rc::from(numbers.as_slice());
    let words: Arc<[String]> = Arc::from(vec![String::from("x"), String::from("y")]);
    let text: Rc<str> = Rc::from("shared text");
    let callback: Rc<dyn Fn(i32) -> i32> = Rc::new(|n| n + 1);
    let object: Arc<dyn Debug + Send + Sync> = Arc::new((1_u8, "two"));
    let cells: Rc<RefCell<Vec<u8>>> = Rc::new(RefCell::new(vec![1, 2]));
    let nested = Some(Rc::new(Some(Box::new(5_u64))));
    let weak = Arc::downgrade(&shared);
    let alive = weak.upgrade().is_some();
    let next = callback(numbers[0]);
    truth!("sharing": numbers, slice, words, text, object, cells, nested, weak, alive, next);
    capture();
    black_box((&shared, &slice, &words, &text, &callback, &object, &cells, &nested, &weak));
    black_box((alive, next));
}

#[inline(never)]
fn numeric(samples: &[f64], digits: i32) {
    let count = samples.len();
    let sum: f64 = samples.iter().sum();
    let mean = sum / count as f64;
    let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
    let scale = 10_f64.powi(digits);
    let rounded: Vec<f64> = samples.iter().map(|x| (x * scale).round() / scale).collect();
    let largest = samples.iter().copied().fold(f64::MIN, f64::max);
    let single = mean as f32;
    let saturated = (largest * 1e12) as i32;
    truth!("numeric": samples, digits, count, sum, mean, variance, scale, rounded, largest, single, saturated);
    capture();
    black_box((sum, mean, variance, scale, &rounded, largest, single, saturated));
}

#[inline(never)]
fn bits(value: u32, shift: u32) {
    let left = value << shift;
    let right = value >> shift;
    let rotated = value.rotate_left(29);
    let ones = value.count_ones();
    let bytes = value.to_be_bytes();
    let wide = u128::from(value) << 100;
    let negative = -(i128::from(value) << 90);
    let narrow = value as u8 as i8;
    let checked = value.checked_sub(u32::MAX);
    let flags = [value & 1 != 0, value & 2 != 0, value & 4 != 0];
    truth!("bits": value, shift, left, right, rotated, ones, bytes, wide, negative, narrow, checked, flags);
    capture();
    black_box((left, right, rotated, ones, bytes, wide, negative, narrow, checked, flags));
}
