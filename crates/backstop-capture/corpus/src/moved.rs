//! Values that are moved, dropped, moved on one path only, or not yet there.

use std::hint::black_box;
use std::rc::Rc;

use crate::witness::capture;

pub fn run() {
    dropped();
    moved(true, false);
    partly();
    looped();
    late(3);
    by_argument(vec![1, 2, 3], String::from("stays"));
}

#[inline(never)]
fn dropped() {
    let kept = String::from("kept");
    let gone = String::from("gone");
    drop(gone);
    let list = vec![1_u8, 2, 3];
    drop(list);
    let reused = vec![9_u8, 9, 9];
    let boxed = Box::new([1_u64; 4]);
    drop(boxed);
    let counted = Rc::new(5);
    let clone = Rc::clone(&counted);
    drop(counted);
    truth!("dropped": kept, reused, clone);
    gone!("dropped": gone, list, boxed, counted);
    capture();
    black_box((&kept, &reused, &clone));
}

#[inline(never)]
fn moved(first: bool, second: bool) {
    let a = String::from("a");
    let b = String::from("b");
    let c = vec![String::from("c")];
    let d = Some(Box::new(4_u8));
    if black_box(first) {
        black_box(a);
    }
    if black_box(second) {
        black_box(b.clone());
        drop(b);
        return;
    }
    let e = c;
    let f = d;
    truth!("moved": first, second, b, e, f);
    gone!("moved": a, c, d);
    capture();
    black_box((&b, &e, &f));
}

#[derive(Debug)]
struct Two {
    left: String,
    right: Vec<u8>,
}

#[inline(never)]
fn partly() {
    let two = Two {
        left: String::from("left"),
        right: vec![1],
    };
    let whole = Two {
        left: String::from("whole"),
        right: vec![2],
    };
    let left = two.left;
    truth!("partly": whole, left);
    gone!("partly": two);
    capture();
    black_box((&whole, &left, &two.right));
}

#[inline(never)]
fn looped() {
    let mut carried = String::new();
    for round in 0..3_u8 {
        let fresh = format!("round {round}");
        if round == 2 {
            truth!("looped": carried, round, fresh);
            capture();
        }
        carried = fresh;
    }
    black_box(&carried);
}

#[inline(never)]
fn late(count: u8) {
    let early = String::from("early");
    let assigned_later: String;
    truth!("late": count, early);
    gone!("late": assigned_later_not_shown);
    capture();
    assigned_later = format!("{early}{count}");
    black_box(&assigned_later);
}

#[inline(never)]
fn by_argument(list: Vec<u32>, text: String) {
    let len = list.len();
    consume(list, len);
    black_box(&text);
}

#[inline(never)]
fn consume(list: Vec<u32>, len: usize) {
    let sum: u32 = list.iter().sum();
    truth!("consume": list, len, sum);
    gone!("by_argument": list);
    capture();
    black_box((&list, sum));
}
