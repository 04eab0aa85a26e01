//! Captures taken where hardly anything may be done: in the allocator, at a thread's end, on
//! a thread that Rust did not start.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::LazyLock;

use backstop_capture::{Frame, Policy, debug_directory, doctor, snapshot, warm_up};

/// An allocator that takes a stack at each allocation, as heap profilers do.
struct Profiling;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static DEEPEST: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Profiling = Profiling;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Profiling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON.get() {
            DEPTH.set(DEPTH.get() + 1);
            DEEPEST.set(DEEPEST.get().max(DEPTH.get()));
            assert!(
                DEPTH.get() < 100,
                "a capture in the allocator starts another"
            );
            let taken = snapshot(&POLICY);
            TAKEN.set(TAKEN.get() + usize::from(!taken.is_empty()));
            DEPTH.set(DEPTH.get() - 1);
        }
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Made before it is used in the allocator, because making it allocates.
static POLICY: LazyLock<Policy> = LazyLock::new(Policy::default);

/// Runs with captures at each allocation; how many were taken and how deep they stood.
fn profiled(work: impl FnOnce()) -> (usize, usize) {
    LazyLock::force(&POLICY);
    ON.set(true);
    work();
    ON.set(false);
    (TAKEN.take(), DEEPEST.take())
}

#[test]
fn captures_in_the_allocator_do_not_recurse() {
    let (taken, deepest) = profiled(|| drop(black_box(vec![1_u8, 2, 3])));
    assert_eq!(taken, 1);
    assert_eq!(deepest, 2, "what the capture allocates is not captured");
}

#[test]
fn captures_in_the_allocator_wait_for_no_lock_of_their_own_thread() {
    let (taken, _) = profiled(|| {
        warm_up();
        black_box(doctor());
    });
    assert_eq!(taken, 0, "all allocations were the capture's own");
}

#[test]
fn directories_are_added_without_allocating_under_their_lock() {
    let (taken, _) = profiled(|| debug_directory("/nowhere"));
    assert_eq!(taken, 1, "the path is made before the lock is taken");
}

/// What is shown of a variable of the innermost frame.
fn shown(frames: &[Frame], name: &str) -> Option<String> {
    let variable = frames.first()?.vars.iter().find(|var| var.name == name)?;
    Some(variable.value.to_string())
}

#[test]
fn a_thread_that_ends_is_captured() {
    struct AtEnd(RefCell<Option<std::sync::mpsc::Sender<Option<String>>>>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let ending = black_box(5);
            let frames = snapshot(&Policy::default()).resolve();
            let sender = self.0.take().expect("it was set");
            sender
                .send(shown(&frames, "ending"))
                .expect("it is waited for");
            black_box(ending);
        }
    }
    thread_local! {
        static LAST: AtEnd = const { AtEnd(RefCell::new(None)) };
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || LAST.with(|last| last.0.replace(Some(sender))));
    assert_eq!(receiver.recv().expect("it is sent").as_deref(), Some("5"));
    thread.join().expect("it ends well");
}

#[test]
fn a_thread_of_another_language_is_captured() {
    extern "C" fn foreign(out: *mut c_void) -> *mut c_void {
        let foreign = black_box(7);
        let frames = snapshot(&Policy::default()).resolve();
        // SAFETY: it is the variable that the test passes and waits with.
        unsafe { *out.cast::<Option<String>>() = shown(&frames, "foreign") };
        black_box(foreign);
        std::ptr::null_mut()
    }
    let mut seen: Option<String> = None;
    let out = (&raw mut seen).cast();
    // SAFETY: a thread's id may be all zeros until the call sets it.
    let mut thread: libc::pthread_t = unsafe { std::mem::zeroed() };
    // SAFETY: `foreign` has the signature that is asked for and `seen` outlives the thread.
    let started = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), foreign, out) };
    assert_eq!(started, 0);
    // SAFETY: the thread was started and is joined once.
    unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    assert_eq!(seen.as_deref(), Some("7"));
}
