//! Frames by position: exactly these functions at exactly these lines.

use backstop_capture::{Frame, InApp, Policy, Role, Snapshot, Values, snapshot};

#[inline(never)]
fn inner(policy: &Policy) -> (Snapshot, u32) {
    (snapshot(policy), line!())
}

#[inline(always)]
fn inlined(policy: &Policy) -> (Snapshot, [u32; 2]) {
    let (snapshot, line) = inner(policy);
    (snapshot, [line, line!() - 1])
}

#[test]
fn functions_files_and_lines() {
    let (snapshot, lines) = inlined(&Policy::default());
    let here = line!() - 1;
    let frames = snapshot.resolve();
    let expected = [
        ("it::stack::inner", lines[0], false),
        ("it::stack::inlined", lines[1], true),
        ("it::stack::functions_files_and_lines", here, false),
    ];
    for (frame, (function, line, inlined)) in frames.iter().zip(expected) {
        assert_eq!(frame.function.as_deref(), Some(function));
        assert_eq!(
            (frame.line, frame.inlined),
            (Some(line), inlined),
            "{function}"
        );
        assert!(
            frame
                .file
                .as_deref()
                .is_some_and(|file| file.ends_with("tests/it/stack.rs"))
        );
        assert_eq!(frame.module.as_deref(), Some("it::stack"));
        assert_eq!(frame.crate_name.as_deref(), Some("it"));
        assert!(frame.in_app && frame.role == Role::Plain);
    }
    let std: Vec<&Frame> = frames
        .iter()
        .filter(|frame| frame.crate_name.as_deref() == Some("std"))
        .collect();
    assert!(!std.is_empty() && std.iter().all(|frame| !frame.in_app));
}

#[test]
fn policy_decides() {
    let take = |values| {
        let policy = Policy {
            values,
            in_app: InApp::new(|_| false),
            ..Policy::default()
        };
        inner(&policy).0
    };
    assert!(take(Values::Off).is_empty());
    let frames = take(Values::Addresses).resolve();
    assert!(
        frames.len() > 3
            && frames
                .iter()
                .all(|frame| frame.vars.is_empty() && !frame.in_app)
    );
    assert!(
        take(Values::InApp)
            .resolve()
            .iter()
            .all(|frame| frame.vars.is_empty())
    );
    assert!(
        take(Values::All)
            .resolve()
            .iter()
            .any(|frame| !frame.vars.is_empty())
    );
}

#[test]
fn a_snapshot_is_resolved_on_another_thread() {
    let (snapshot, _) = inner(&Policy::default());
    let elsewhere = snapshot.clone();
    let frames = std::thread::spawn(move || elsewhere.resolve())
        .join()
        .expect("resolving does not panic");
    assert_eq!(frames, snapshot.resolve());
    assert_eq!(frames[0].address, snapshot.addresses()[0]);
}

#[test]
fn a_capture_inside_a_capture_is_empty() {
    let policy = Policy {
        in_app: InApp::new(|_| {
            assert!(snapshot(&Policy::default()).is_empty());
            true
        }),
        ..Policy::default()
    };
    assert!(!inner(&policy).0.is_empty());
}

#[test]
fn a_panic_inside_a_capture_is_contained() {
    let policy = Policy {
        in_app: InApp::new(|_| panic!("a predicate of the user")),
        ..Policy::default()
    };
    let snapshot = inner(&policy).0;
    assert!(!snapshot.addresses().is_empty(), "the stack itself is kept");
    assert!(
        !inner(&Policy::default()).0.is_empty(),
        "the next capture works"
    );
}

#[test]
fn recursion_is_bounded() {
    fn down(depth: u32, policy: &Policy) -> Snapshot {
        let snapshot = if depth == 0 {
            inner(policy).0
        } else {
            down(depth - 1, policy)
        };
        std::hint::black_box(snapshot)
    }
    let policy = Policy::default();
    let frames = down(1000, &policy).addresses().len();
    assert!(
        frames <= policy.limits.frames && frames >= policy.limits.frames - 1,
        "{frames}"
    );
}

/// Set for the child process of the test below.
const CHILD: &str = "BACKSTOP_CAPTURE_TEST_CHILD";

#[test]
fn a_panic_inside_a_capture_inside_a_panic_hook_is_contained() {
    if std::env::var_os(CHILD).is_some() {
        std::panic::set_hook(Box::new(|_| {
            let policy = Policy {
                in_app: InApp::new(|_| panic!("a predicate of the user")),
                ..Policy::default()
            };
            let taken = snapshot(&policy).addresses().len();
            let mut patient = Policy::default();
            patient.limits.time = std::time::Duration::from_secs(600);
            let shown = snapshot(&patient)
                .resolve()
                .iter()
                .filter(|frame| !frame.vars.is_empty())
                .count();
            println!("taken {} shown {}", taken > 0, shown > 0);
        }));
        let caught = std::panic::catch_unwind(|| {
            let answer = std::hint::black_box(42);
            panic!("{answer}");
        });
        println!("caught {}", caught.is_err());
        return;
    }
    let child =
        std::process::Command::new(std::env::current_exe().expect("this program has a path"))
            .args([
                "--exact",
                "--nocapture",
                "stack::a_panic_inside_a_capture_inside_a_panic_hook_is_contained",
            ])
            .env(CHILD, "1")
            .output()
            .expect("the program can be run again");
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}");
    assert!(
        text.contains("taken true shown true") && text.contains("caught true"),
        "{text}"
    );
}

#[test]
fn captures_of_one_place_are_limited() {
    let mut policy = Policy::default();
    policy.limits.per_place_per_second = 0;
    let frames = inner(&policy).0.resolve();
    assert!(frames[0].vars.is_empty());
    assert_eq!(
        frames[0].vars_missing,
        Some(backstop_capture::VarsMissing::RateLimit)
    );
}
