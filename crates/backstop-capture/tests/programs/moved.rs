//! A library whose values are moved from one variable to another before it calls back.

use std::ffi::c_void;
use std::hint::black_box;

// Unlike `extern "C"` this may unwind, so there is a landing pad that says what is alive.
type Callback = extern "C-unwind" fn(*mut c_void);

#[unsafe(no_mangle)]
pub extern "C" fn victim(callback: Callback, data: *mut c_void) -> u64 {
    moved(true, false, callback, data);
    42
}

#[inline(never)]
fn moved(first: bool, second: bool, callback: Callback, data: *mut c_void) {
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
    callback(data);
    black_box((&b, &e, &f));
}
