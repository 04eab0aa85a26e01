//! Collections: empty, small, large, nested, wrapped around.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hint::black_box;

use crate::witness::capture;

pub fn run() {
    lists(4);
    trees(40);
    hashes();
    nested();
}

#[inline(never)]
fn lists(len: usize) {
    let numbers: Vec<u64> = (0..len as u64).collect();
    let empty: Vec<u64> = Vec::new();
    let zero_sized = vec![(); len];
    let texts: Vec<&str> = vec!["a"; len];
    let options = vec![Some(1_u8), None, Some(3)];
    let pairs = vec![(1_u8, 'a'), (2, 'b')];
    let slice = &numbers[1..3];
    let mut deque: VecDeque<u32> = (0..6).collect();
    deque.rotate_left(4);
    let mut wrapped: VecDeque<u8> = VecDeque::with_capacity(4);
    wrapped.extend([1, 2, 3, 4]);
    wrapped.pop_front();
    wrapped.pop_front();
    wrapped.extend([5, 6]);
    let empty_deque: VecDeque<u8> = VecDeque::new();
    let heap = BinaryHeap::from(vec![1, 5, 2]);
    let matrix = vec![vec![1.0_f64, 0.0], vec![0.0, 1.0]];
    let bools = [true, false, true];
    truth!("lists": len, numbers, empty, zero_sized, texts, options, pairs, slice, deque, wrapped, empty_deque, heap, matrix, bools);
    capture();
    black_box((
        &numbers,
        &empty,
        &zero_sized,
        &texts,
        &options,
        &pairs,
        slice,
        &deque,
        &wrapped,
        &empty_deque,
        &heap,
    ));
    black_box((&matrix, bools));
}

#[inline(never)]
fn trees(len: u32) {
    let small: BTreeMap<&str, u8> = [("b", 2), ("a", 1)].into();
    let two_levels: BTreeMap<u32, String> = (0..len).map(|n| (n, format!("<{n}>"))).collect();
    let empty: BTreeMap<u8, u8> = BTreeMap::new();
    let set: BTreeSet<char> = "hello".chars().collect();
    let large_set: BTreeSet<u16> = (0..50).rev().collect();
    let of_sets: BTreeMap<u8, BTreeSet<u8>> = [(1, [1, 2].into()), (2, [].into())].into();
    truth!("trees": len, small, two_levels, empty, set, large_set, of_sets);
    capture();
    black_box((&small, &two_levels, &empty, &set, &large_set, &of_sets));
}

#[inline(never)]
fn hashes() {
    let one: HashMap<String, u8> = [("key".to_owned(), 1)].into();
    let empty: HashMap<u8, u8> = HashMap::new();
    let set: HashSet<u64> = [7].into();
    let empty_set: HashSet<String> = HashSet::new();
    let many: HashMap<u32, u32> = (0..20).map(|n| (n, n * n)).collect();
    let of_lists: HashMap<&str, Vec<u8>> = [("list", vec![1, 2])].into();
    truth!("hashes": one, empty, set, empty_set, of_lists);
    capture();
    black_box((&one, &empty, &set, &empty_set, &many, &of_lists));
}

#[inline(never)]
fn nested() {
    let list_of_maps = vec![BTreeMap::from([(1_u8, vec!["x"])]), BTreeMap::new()];
    let option_list: Option<Vec<Option<Box<str>>>> = Some(vec![Some("a".into()), None]);
    let result: Result<BTreeMap<u8, (u8, String)>, String> = Ok([(1, (2, "t".to_owned()))].into());
    let deep = vec![vec![vec![vec![1_u8]]]];
    truth!("nested": list_of_maps, option_list, result, deep);
    capture();
    black_box((&list_of_maps, &option_list, &result, &deep));
}
