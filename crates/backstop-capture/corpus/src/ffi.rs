//! Frames of C between frames of Rust.

use std::hint::black_box;

use crate::witness::capture;

pub fn run() {
    let mut numbers = [3_i32, 1, 2];
    sort(&mut numbers);
    black_box(numbers);
}

#[inline(never)]
fn sort(numbers: &mut [i32]) {
    let count = numbers.len();
    let first = numbers[0];
    truth!("sort": count, first);
    // SAFETY: the slice has `count` elements of four bytes, and `compare` reads two of them.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), count, 4, Some(compare)) };
    black_box((count, first));
}

extern "C" fn compare(left: *const libc::c_void, right: *const libc::c_void) -> libc::c_int {
    use std::sync::atomic::{AtomicBool, Ordering};
    static FIRST: AtomicBool = AtomicBool::new(true);
    // SAFETY: `qsort` passes pointers to elements of the array.
    let (a, b) = unsafe { (*left.cast::<i32>(), *right.cast::<i32>()) };
    let order = a.cmp(&b);
    if FIRST.swap(false, Ordering::Relaxed) {
        truth!("compare": a, b, order);
        capture();
    }
    black_box((a, b));
    order as libc::c_int
}
