//! Debug information in every form it can have, found and read, or missed with a clear word.
//!
//! Each test compiles a library with other flags, loads it, and lets it call back.

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use backstop_capture::{Frame, InApp, Origin, Policy, State, VarsMissing, snapshot};

/// A directory of its own for each test, removed at its end.
struct Workshop(PathBuf);

impl Drop for Workshop {
    fn drop(&mut self) {
        // What is left behind lies in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Workshop {
    fn open(name: &str) -> Workshop {
        let directory = format!("backstop-forms-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).expect("there is room for files");
        Workshop(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Compiles the library as `name`.
    fn compile(&self, name: &str, flags: &[&str]) -> PathBuf {
        self.compile_from(Path::new(SOURCE), name, flags)
    }

    fn compile_from(&self, source: &Path, name: &str, flags: &[&str]) -> PathBuf {
        let library = self.path(name);
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc
            .args([
                "--edition=2024",
                "--crate-name=victim",
                "--crate-type=cdylib",
            ])
            .arg("-Clink-arg=-Wl,--build-id")
            .arg(source)
            .arg("-o")
            .arg(&library)
            .args(flags);
        run(&mut rustc);
        library
    }

    fn objcopy(&self, arguments: &[&str]) {
        run(Command::new("objcopy").args(arguments).current_dir(&self.0));
    }
}

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/victim.rs");

fn run(command: &mut Command) {
    let output = command.output().expect("the tool is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// The library's own frames as they are when it calls back, `inner` first.
fn frames_of(library: &Path) -> Vec<Frame> {
    // It stays loaded for ever.
    frames_from(library, load(library))
}

/// Loads a library that was compiled for this test.
fn load(library: &Path) -> *mut c_void {
    let path = CString::new(library.as_os_str().as_encoded_bytes()).expect("no zero in it");
    // SAFETY: the path ends with a zero, and what the library does at start is known.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{}", library.display());
    handle
}

/// The frames of a library that is loaded.
fn frames_from(library: &Path, handle: *mut c_void) -> Vec<Frame> {
    extern "C" fn take(data: *mut c_void) {
        let mut policy = Policy {
            in_app: InApp::new(|_| true),
            ..Policy::default()
        };
        // A busy machine must not cost values here.
        policy.limits.time = std::time::Duration::from_secs(600);
        policy.limits.per_place_per_second = 1000;
        // SAFETY: it is the vector that `frames_of` passes, which nobody else uses meanwhile.
        let frames = unsafe { &mut *data.cast::<Vec<Frame>>() };
        *frames = snapshot(&policy).resolve();
    }
    // SAFETY: the handle is of a library that is loaded.
    let symbol = unsafe { libc::dlsym(handle, c"victim".as_ptr()) };
    assert!(!symbol.is_null());
    type Victim = extern "C" fn(extern "C" fn(*mut c_void), *mut c_void) -> u64;
    // SAFETY: the library's source declares the function so.
    let victim: Victim = unsafe { std::mem::transmute(symbol) };
    let mut frames: Vec<Frame> = Vec::new();
    assert_eq!(victim(take, (&raw mut frames).cast()), 42);
    let name = library
        .file_name()
        .expect("it has a name")
        .to_string_lossy();
    frames.retain(|frame| {
        let image = frame.image.as_deref().unwrap_or("");
        image.ends_with(&*name)
    });
    frames
}

fn function<'f>(frames: &'f [Frame], name: &str) -> &'f Frame {
    frames
        .iter()
        .find(|frame| frame.function.as_deref() == Some(name))
        .unwrap_or_else(|| panic!("no {name} in {frames:#?}"))
}

/// The text of a variable, with its state where that is not `ok`.
fn shown(frame: &Frame, name: &str) -> String {
    let variable = frame.vars.iter().find(|variable| variable.name == name);
    let variable = variable.unwrap_or_else(|| panic!("no {name} in {frame:#?}"));
    match variable.state {
        State::Ok => variable.value.to_string(),
        state => format!("{} ({state:?})", variable.value),
    }
}

const ORDER: &str = r#"Order { id: 7, lines: ["a", "b c"], note: Some("hello") }"#;

/// Everything there is to see, names, lines and values.
fn assert_complete(library: &Path) {
    let frames = frames_of(library);
    let (inner, outer) = (
        function(&frames, "victim::inner"),
        function(&frames, "victim::outer"),
    );
    for (frame, line) in [(inner, 44), (outer, 36)] {
        assert!(
            frame
                .file
                .as_deref()
                .is_some_and(|file| file.ends_with("programs/victim.rs"))
        );
        assert_eq!(frame.line, Some(line), "{}", library.display());
    }
    assert_eq!(shown(inner, "order"), ORDER);
    assert_eq!(shown(inner, "factor"), "1.5");
    assert_eq!(shown(inner, "count"), "42");
    assert_eq!(shown(outer, "seed"), "7");
    assert_eq!(shown(outer, "order"), ORDER);
    assert_eq!(shown(outer, "table"), r#"{1: "one", 2: "two"}"#);
    assert_eq!(
        shown(outer, "object"),
        "Order { id: 9, lines: [], note: None }"
    );
}

/// Names and lines, no values, and the reason.
fn assert_lines_only(library: &Path) {
    let frames = frames_of(library);
    let inner = function(&frames, "victim::inner");
    assert_eq!(inner.line, Some(44));
    assert!(inner.vars.is_empty());
    assert_eq!(inner.vars_missing, Some(VarsMissing::NoDebugInfo));
}

#[test]
fn both_versions_whole_and_packed() {
    let workshop = Workshop::open("versions");
    for version in ["-Cdwarf-version=4", "-Cdwarf-version=5"] {
        let number = &version[version.len() - 1..];
        let whole = workshop.compile(&format!("whole{number}.so"), &["-g", version]);
        assert_complete(&whole);
        let packed = ["-g", version, "-Csplit-debuginfo=packed"];
        let packed = workshop.compile(&format!("packed{number}.so"), &packed);
        assert!(workshop.path(&format!("packed{number}.so.dwp")).exists());
        assert_complete(&packed);
    }
}

#[test]
fn optimised_code_of_both_versions() {
    let workshop = Workshop::open("optimised");
    for version in ["-Cdwarf-version=4", "-Cdwarf-version=5"] {
        let name = format!("optimised{}.so", &version[version.len() - 1..]);
        let library = workshop.compile(&name, &["-g", "-O", version]);
        let frames = frames_of(&library);
        let (inner, outer) = (
            function(&frames, "victim::inner"),
            function(&frames, "victim::outer"),
        );
        // Its register is overwritten and the debug information says only what it held on
        // entry: the code of `outer` says what that was.
        assert_eq!(shown(inner, "order"), ORDER);
        let order = inner.vars.iter().find(|variable| variable.name == "order");
        assert_eq!(order.map(|order| order.origin), Some(Origin::Caller));
        assert_eq!(shown(inner, "count"), "42");
        // The call is known not to unwind, so nothing says what unwinding would drop.
        assert_eq!(shown(outer, "order"), format!("{ORDER} (MaybeMoved)"));
    }
}

#[test]
fn compressed_sections() {
    let workshop = Workshop::open("compressed");
    for kind in ["zlib", "zstd"] {
        let link = format!("-Clink-arg=-Wl,--compress-debug-sections={kind}");
        let packed = "-Csplit-debuginfo=packed";
        let flags = ["-g", "-Cdwarf-version=5", packed, &link];
        let name = format!("{kind}.so");
        let library = workshop.compile(&name, &flags);
        let compress = format!("--compress-debug-sections={kind}");
        let package = format!("{name}.dwp");
        let before = std::fs::metadata(workshop.path(&package))
            .expect("it is there")
            .len();
        workshop.objcopy(&[&compress, &package]);
        let after = std::fs::metadata(workshop.path(&package))
            .expect("it is there")
            .len();
        assert!(after < before, "{kind}: {after} of {before}");
        assert_complete(&library);
    }
}

#[test]
fn without_its_package_or_with_another_build_s() {
    let workshop = Workshop::open("packages");
    for version in ["-Cdwarf-version=4", "-Cdwarf-version=5"] {
        let number = &version[version.len() - 1..];
        let (missing, mixed) = (format!("missing{number}.so"), format!("mixed{number}.so"));
        let packed = ["-g", version, "-Csplit-debuginfo=packed"];
        let alone = workshop.compile(&missing, &packed);
        let package = workshop.path(&format!("{missing}.dwp"));
        std::fs::rename(&package, workshop.path("aside")).expect("both are ours");
        assert_lines_only(&alone);
        let other = [
            "-g",
            version,
            "-Csplit-debuginfo=packed",
            "-Cmetadata=other",
            "-O",
        ];
        workshop.compile("other.so", &other);
        let library = workshop.compile(&mixed, &packed);
        let package = workshop.path(&format!("{mixed}.dwp"));
        std::fs::rename(workshop.path("other.so.dwp"), package).expect("both are ours");
        assert_lines_only(&library);
    }
}

#[test]
fn stripped_with_a_link() {
    let workshop = Workshop::open("link");
    let library = workshop.compile("linked.so", &["-g"]);
    workshop.objcopy(&["--only-keep-debug", "linked.so", "linked.so.debug"]);
    workshop.objcopy(&[
        "--strip-all",
        "--add-gnu-debuglink=linked.so.debug",
        "linked.so",
    ]);
    assert_complete(&library);

    // The same name from another build is not believed.
    workshop.compile("other.so", &["-g", "-Cmetadata=other", "-O"]);
    let library = workshop.compile("refused.so", &["-g"]);
    workshop.objcopy(&["--only-keep-debug", "other.so", "refused.so.debug"]);
    workshop.objcopy(&[
        "--strip-all",
        "--add-gnu-debuglink=refused.so.debug",
        "refused.so",
    ]);
    let frames = frames_of(&library);
    assert!(!frames.is_empty());
    assert!(
        frames
            .iter()
            .all(|frame| frame.line.is_none() && frame.vars.is_empty())
    );
}

#[test]
fn stripped_with_a_directory_of_build_ids() {
    let workshop = Workshop::open("ids");
    backstop_capture::debug_directory(workshop.path("debug"));
    let id = "-Clink-arg=-Wl,--build-id=0x0123456789abcdef";
    let library = workshop.compile("by-id.so", &["-g", id]);
    std::fs::create_dir_all(workshop.path("debug/.build-id/01")).expect("it is ours");
    let kept = "debug/.build-id/01/23456789abcdef.debug";
    workshop.objcopy(&["--only-keep-debug", "by-id.so", kept]);
    workshop.objcopy(&["--strip-all", "by-id.so"]);
    assert_complete(&library);
}

#[test]
fn line_tables_only_and_nothing_at_all() {
    let workshop = Workshop::open("less");
    let lines = workshop.compile("lines.so", &["-Cdebuginfo=line-tables-only"]);
    assert_lines_only(&lines);
    let bare = workshop.compile("bare.so", &["-Cdebuginfo=0"]);
    workshop.objcopy(&["--strip-all", "bare.so"]);
    let frames = frames_of(&bare);
    assert!(frames.len() >= 2, "addresses are there: {frames:#?}");
    assert!(
        frames
            .iter()
            .all(|frame| frame.address > 0 && frame.line.is_none())
    );
    assert!(
        frames
            .iter()
            .all(|frame| frame.vars_missing == Some(VarsMissing::NoDebugInfo))
    );
}

#[test]
fn another_build_is_loaded_at_the_same_place() {
    // Of the same size to the byte, so that only the contents tell the two apart.
    let workshop = Workshop::open("again");
    let first = std::fs::read_to_string(SOURCE).expect("it is here");
    let second = format!(
        "\n{}",
        first.replace("hello", "HELLO").replace("inner", "later")
    );
    let sources = [
        ("victim::inner", 44, "hello", first),
        ("victim::later", 45, "HELLO", second),
    ];
    for flags in [&["-g"][..], &["-g", "-Clink-arg=-Wl,--build-id=none"]] {
        for (name, line, note, text) in sources.iter().cycle().take(6) {
            let source = workshop.path("victim.rs");
            std::fs::write(&source, text).expect("it is ours");
            let library = workshop.compile_from(&source, "again.so", flags);
            let handle = load(&library);
            let frames = frames_from(&library, handle);
            let frame = function(&frames, name);
            assert_eq!(frame.line, Some(*line));
            assert_eq!(shown(frame, "order"), ORDER.replace("hello", note));
            assert_eq!(shown(function(&frames, "victim::outer"), "seed"), "7");
            // SAFETY: nothing of the library is used any more.
            assert_eq!(unsafe { libc::dlclose(handle) }, 0);
        }
    }
}

#[test]
fn a_moved_value_is_marked_wherever_the_optimiser_left_it() {
    let workshop = Workshop::open("moved");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/moved.rs");
    let symbols = "-Csymbol-mangling-version=v0";
    for (name, flags) in [
        ("moved-dev.so", &["-g"][..]),
        ("moved.so", &["-g", "-O"]),
        ("moved-newer-dev.so", &["-g", symbols]),
        ("moved-newer.so", &["-g", "-O", symbols]),
    ] {
        let library = workshop.compile_from(Path::new(source), name, flags);
        let frames = frames_of(&library);
        let frame = frames
            .iter()
            .find(|frame| frame.vars.iter().any(|variable| variable.name == "e"))
            .unwrap_or_else(|| panic!("no frame has it: {frames:#?}"));
        let state = |name: &str| {
            let variable = frame.vars.iter().find(|variable| variable.name == name);
            variable.map(|variable| variable.state)
        };
        for gone in ["a", "c", "d"] {
            assert!(
                state(gone).is_none_or(|state| state >= State::MaybeMoved),
                "{name} {gone}: {:?}",
                state(gone)
            );
        }
        assert_eq!(
            state("b"),
            Some(State::Ok),
            "{name}: nothing else is marked"
        );
    }
}
