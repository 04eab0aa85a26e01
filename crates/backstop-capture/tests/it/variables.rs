//! Variables by name, type and text, and the absence of values.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::CString;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, RwLock};

use backstop_capture::{Policy, State, Variable, snapshot};

/// The variables of the function that calls this.
#[inline(never)]
fn vars() -> Vec<Variable> {
    let mut policy = Policy::default();
    // A busy machine must not cost values here.
    policy.limits.time = std::time::Duration::from_secs(600);
    let frames = snapshot(&policy).resolve();
    frames
        .into_iter()
        .nth(1)
        .map(|frame| frame.vars)
        .unwrap_or_default()
}

/// Asserts that each variable is shown exactly as its `Debug` writes it.
macro_rules! same_as_debug {
    ($vars:expr, $($name:ident),+ $(,)?) => {
        $(
            let shown = find(&$vars, stringify!($name));
            assert_eq!(shown.value.to_string(), format!("{:?}", black_box(&$name)), stringify!($name));
            assert_eq!(shown.state, State::Ok, stringify!($name));
        )+
    };
}

fn find<'v>(vars: &'v [Variable], name: &str) -> &'v Variable {
    vars.iter()
        .find(|variable| variable.name == name)
        .unwrap_or_else(|| panic!("no {name} in {vars:#?}"))
}

#[test]
fn numbers_and_texts() {
    let (a, b, c, d) = (-1_i8, u64::MAX, i128::MIN, 'ß');
    let (e, f, g) = (0.1_f32, -2.5e300_f64, true);
    let unit = ();
    let text = "naïve\n";
    let owned = String::from("owned");
    let boxed: Box<str> = "boxed".into();
    let counted: Rc<str> = "counted".into();
    let atomic: Arc<str> = "atomic".into();
    let path = std::path::PathBuf::from("/a/b");
    let borrowed_path: &std::path::Path = &path;
    let vars = vars();
    same_as_debug!(
        vars,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        unit,
        text,
        owned,
        boxed,
        counted,
        atomic,
        path,
        borrowed_path
    );
}

#[test]
fn collections() {
    let list = vec![1, 2, 3];
    let slice = &list[1..];
    let array = [[1_u8, 2], [3, 4]];
    let mut deque: VecDeque<u16> = (0..5).collect();
    deque.rotate_left(2);
    deque.push_front(9);
    let map = HashMap::from([("one", 1)]);
    let set = HashSet::from([7_u64]);
    let tree: BTreeMap<u32, String> = (0..30).map(|n| (n, n.to_string())).collect();
    let sorted: BTreeSet<i32> = [3, 1, 2].into();
    let empty: Vec<String> = Vec::new();
    let nothing: HashMap<u8, u8> = HashMap::new();
    let vars = vars();
    same_as_debug!(
        vars, list, slice, array, deque, map, set, tree, sorted, empty, nothing
    );
}

#[test]
fn errors_locks_and_lazy_values() {
    let kind = std::io::Error::from(std::io::ErrorKind::NotFound);
    let system = std::io::Error::from_raw_os_error(13);
    let message =
        std::io::Read::read_exact(&mut &b"x"[..], &mut [0; 9]).expect_err("one byte is too few");
    let custom = std::io::Error::other(std::fmt::Error);
    let lazy = LazyLock::new(|| 5_u32);
    LazyLock::force(&lazy);
    let cold = LazyLock::new(|| 5_u32);
    let local = LazyCell::new(|| String::from("made"));
    LazyCell::force(&local);
    let lock = Mutex::new(vec![1_u8, 2]);
    let guard = lock.lock().expect("it is not poisoned");
    let shared = RwLock::new(String::from("read"));
    let read = shared.read().expect("it is not poisoned");
    let linked = LinkedList::from([1_u16, 2, 3]);
    let zero_at_the_end = CString::new("text").expect("it has no zero");
    let (from, to, through, full) = (3_u8.., ..5_i8, ..=6, ..);
    let vars = vars();
    same_as_debug!(
        vars,
        kind,
        system,
        message,
        custom,
        lazy,
        cold,
        local,
        guard,
        read,
        linked,
        zero_at_the_end,
        from,
        to,
        through,
        full
    );
}

#[derive(Debug)]
#[expect(dead_code, reason = "read through debug information")]
struct Item {
    name: &'static str,
    price: Option<u32>,
    parts: (u8, Box<Item2>),
}

#[derive(Debug)]
#[expect(dead_code, reason = "read through debug information")]
enum Item2 {
    Empty,
    One(String),
    Many { left: i64, right: [u8; 2] },
}

#[derive(Debug)]
struct Unit;

#[test]
fn structs_and_enums() {
    let item = Item {
        name: "x",
        price: Some(3),
        parts: (1, Box::new(Item2::One("y".to_owned()))),
    };
    let many = Item2::Many {
        left: -1,
        right: [1, 2],
    };
    let empty = Item2::Empty;
    let none: Option<Box<u8>> = None;
    let some = Some(Box::new(5_u8));
    let result: Result<u8, String> = Err("no".to_owned());
    let unit = Unit;
    let ordering = std::cmp::Ordering::Less;
    let nested = Some(Some(false));
    let cell = std::cell::RefCell::new(vec![1]);
    let shared = Arc::new(Mutex::new(5));
    let range = 3..9;
    let duration = std::time::Duration::from_millis(1500);
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let vars = vars();
    same_as_debug!(
        vars, item, many, empty, none, some, result, unit, ordering, nested, cell, range, duration,
        address
    );
    assert_eq!(
        find(&vars, "shared").value.to_string(),
        "Mutex { data: 5, poisoned: false }"
    );
    black_box(shared);
}

#[test]
fn secrets_are_not_copied() {
    let password = String::from("hunter2");
    let url = "postgres://shop:hunter2@db/shop";
    let login = [("user", "ann"), ("token", "hunter2")];
    let map = HashMap::from([("api_key", "hunter2")]);
    let body = b"user=ann&password=hunter2".to_vec();
    let part: &[u8] = &body[9..];
    let data = b"no secret".to_vec();
    let vars = vars();
    assert_eq!(find(&vars, "password").state, State::Redacted);
    assert_eq!(find(&vars, "url").state, State::Redacted);
    let text = format!("{:?}", find(&vars, "map"));
    assert!(!text.contains("hunter2"), "{text}");
    assert!(format!("{:?}", find(&vars, "login")).contains("ann"));
    assert_eq!(find(&vars, "body").state, State::Redacted);
    assert_eq!(find(&vars, "part").state, State::Redacted);
    assert_eq!(find(&vars, "data").state, State::Ok);
    black_box((password, url, login, map, part, &data));
    black_box(body);
}

#[test]
fn a_variable_that_is_not_yet_there_is_not_shown() {
    let before = 1;
    let vars = vars();
    let after = 2;
    assert_eq!(find(&vars, "before").value.to_string(), "1");
    assert!(!vars.iter().any(|variable| variable.name == "after"));
    black_box((before, after));
}

#[test]
fn shadowing_is_marked() {
    let value = 1;
    black_box(value);
    let value = "two";
    let vars = vars();
    let values: Vec<(String, bool)> = vars
        .iter()
        .filter(|variable| variable.name == "value")
        .map(|variable| (variable.value.to_string(), variable.shadowed))
        .collect();
    assert_eq!(
        values,
        [("1".to_owned(), true), ("\"two\"".to_owned(), false)]
    );
    black_box(value);
}

#[test]
fn moved_and_dropped_values_are_marked() {
    let kept = String::from("kept");
    let dropped = String::from("dropped");
    drop(dropped);
    let moved = vec![String::from("moved")];
    let holder = Some(moved);
    let maybe = Box::new(5);
    if black_box(true) {
        drop(maybe);
    }
    let maybe_not = Box::new(6);
    if black_box(false) {
        drop(maybe_not);
    }
    let shared = Rc::new(7);
    let vars = vars();
    for (name, state) in [
        ("kept", State::Ok),
        ("holder", State::Ok),
        ("maybe_not", State::Ok),
        ("shared", State::Ok),
    ] {
        assert_eq!(find(&vars, name).state, state, "{name}");
    }
    for name in ["dropped", "moved", "maybe"] {
        let variable = find(&vars, name);
        assert!(variable.state >= State::MaybeMoved, "{variable:?}");
    }
    black_box((kept, holder, shared));
}
