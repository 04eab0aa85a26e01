//! Compares what is captured with a debugger and with the programs' own `{:?}`.
//!
//! Run in this directory: `cargo run --bin report [BUILD …]`; it needs `gdb` and writes
//! `docs/capture.md` of the repository with the tables it prints; rows of builds that were not
//! asked for stay there as they are. With `values` among the
//! arguments no debugger is started and nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A way of building: its name in the tables, the profile for the libraries, and what the
/// compiler is told besides for the program itself.
struct Build {
    name: &'static str,
    profile: &'static str,
    flags: &'static [&'static str],
}

/// Builds, in the order of the tables. Those of one profile share the compiled libraries.
const BUILDS: [Build; 9] = [
    Build { name: "dev", profile: "dev", flags: &[] },
    Build { name: "dev, DWARF 5", profile: "dev", flags: &["-Cdwarf-version=5"] },
    Build { name: "opt-level 1", profile: "release", flags: &["-Copt-level=1"] },
    Build { name: "release", profile: "release", flags: &[] },
    Build { name: "frame pointers", profile: "release", flags: &["-Cforce-frame-pointers=yes"] },
    Build { name: "LTO thin", profile: "lto", flags: &["-Clto=thin"] },
    Build { name: "LTO fat", profile: "lto", flags: &[] },
    Build { name: "packed", profile: "packed", flags: &[] },
    Build {
        name: "packed, DWARF 5",
        profile: "packed",
        flags: &["-Cdwarf-version=5", "-Clink-arg=-Wl,--compress-debug-sections=zlib"],
    },
];
/// gdb fails on some optimised programs; what it said before counts.
const GDB_SECONDS: &str = "240";

fn main() {
    let (options, asked): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument == "values");
    let with_gdb = options.is_empty();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let truth_run = build(&root, &BUILDS[0], true);
    let names = programs(&truth_run);
    let truth: BTreeMap<&str, Run> = names
        .iter()
        .map(|name| (name.as_str(), run(&truth_run, name)))
        .collect();
    let mut tables = Tables {
        programs: names.len(),
        ..Tables::default()
    };
    for kind in &BUILDS {
        let profile = kind.name;
        if !asked.is_empty() && !asked.iter().any(|name| name == profile) {
            continue;
        }
        let is_truth = profile == "dev";
        let program = if is_truth {
            truth_run.clone()
        } else {
            build(&root, kind, false)
        };
        for name in &names {
            let plain = run(&program, name);
            // Where gdb fails the program ends early; its own run has everything.
            if with_gdb {
                let (captured, debugger) = run_in_gdb(&root, &program, name);
                tables.compare_with_gdb(profile, name, &captured, &debugger);
            }
            let truth = &truth[name.as_str()];
            // The witness's own run, because hash tables have another order in every process.
            let plain = if is_truth { truth } else { &plain };
            tables.compare_with_truth(profile, name, plain, truth, truth);
        }
        eprintln!("{profile}: done");
    }
    let path = root.join("../../../docs/capture.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let parts = old.split_once(BEGIN).and_then(|(before, rest)| {
        let (written, after) = rest.split_once(END)?;
        Some((before, written, after))
    });
    let text = tables.text(parts.map_or("", |(_, written, _)| written));
    println!("{text}\n### Every difference\n");
    for note in &tables.notes {
        println!("- `{}`", note.replace('`', "'"));
    }
    if let Some((before, _, after)) = parts.filter(|_| with_gdb)
        && let Err(error) = std::fs::write(&path, format!("{before}{BEGIN}\n{text}{END}{after}"))
    {
        eprintln!("{}: {error}", path.display());
    }
}

const BEGIN: &str = "<!-- tables begin -->";
const END: &str = "<!-- tables end -->";

/// Builds the programs and puts them aside, because the next build has the same place.
fn build(root: &Path, kind: &Build, witness: bool) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut command = Command::new("cargo");
    command
        .args(["rustc", "--quiet", "--bin", "corpus", "--profile", kind.profile])
        .current_dir(root)
        // As an application is built: without the flags of this repository.
        .env("RUSTFLAGS", "")
        .env("CARGO_TARGET_DIR", &target);
    if witness {
        command.args(["--features", "witness"]);
    }
    let status = command.arg("--").args(kind.flags).status();
    let built = status.is_ok_and(|status| status.success());
    assert!(built, "{} does not build", kind.name);
    let directory = match kind.profile {
        "dev" => "debug",
        profile => profile,
    };
    let directory = target.join(directory);
    let kept = directory.join(kind.name.replace([',', ' '], "-"));
    let copy = |from: &str, to: &Path| std::fs::copy(directory.join(from), to);
    copy("corpus", &kept).expect("the program was built");
    let package = PathBuf::from(format!("{}.dwp", kept.display()));
    // Only a packed build has one.
    if copy("corpus.dwp", &package).is_err() {
        let _ = std::fs::remove_file(&package);
    }
    kept
}

fn programs(program: &Path) -> Vec<String> {
    let output = Command::new(program)
        .output()
        .expect("the corpus can be run");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What one run printed.
#[derive(Default)]
struct Run {
    frames: BTreeMap<(u32, u32), Frame>,
    vars: Vec<Var>,
    truth: BTreeMap<(String, String), BTreeSet<String>>,
    gone: BTreeSet<(String, String)>,
}

struct Frame {
    function: String,
    in_app: bool,
    is_async: bool,
}

struct Var {
    frame: (u32, u32),
    name: String,
    line: String,
    shadowed: bool,
    state: String,
    origin: String,
    raw: String,
    text: String,
}

fn run(program: &Path, name: &str) -> Run {
    let output = Command::new(program)
        .arg(name)
        .output()
        .expect("the corpus can be run");
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Run {
    let mut run = Run::default();
    for line in text.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let frame = |at: usize| {
            Some((
                parts.get(at)?.parse().ok()?,
                parts.get(at + 1)?.parse().ok()?,
            ))
        };
        match parts.as_slice() {
            ["FRAME", _, _, function, _, in_app, _, is_async] => {
                let Some(key) = frame(1) else { continue };
                run.frames.insert(
                    key,
                    Frame {
                        function: (*function).to_owned(),
                        in_app: *in_app == "true",
                        is_async: *is_async == "true",
                    },
                );
            }
            [
                "VAR",
                _,
                _,
                name,
                line,
                shadowed,
                state,
                origin,
                raw,
                text @ ..,
            ] => {
                let Some(frame) = frame(1) else { continue };
                run.vars.push(Var {
                    frame,
                    name: (*name).to_owned(),
                    line: (*line).to_owned(),
                    shadowed: *shadowed == "true",
                    state: (*state).to_owned(),
                    origin: (*origin).to_owned(),
                    raw: (*raw).to_owned(),
                    text: text.join("\t"),
                });
            }
            ["TRUTH", function, name, text @ ..] => {
                run.truth
                    .entry(((*function).to_owned(), (*name).to_owned()))
                    .or_default()
                    .insert(text.join("\t"));
            }
            ["GONE", function, name] => {
                run.gone
                    .insert(((*function).to_owned(), (*name).to_owned()));
            }
            _ => {}
        }
    }
    run
}

/// gdb's value of a variable: its state and its first bytes.
type Debugger = BTreeMap<(u32, u32, String, String), Vec<(String, String)>>;

fn run_in_gdb(root: &Path, program: &Path, name: &str) -> (Run, Debugger) {
    let output = Command::new("timeout")
        .args([GDB_SECONDS, "gdb", "-q", "-nx", "-batch", "-x"])
        .arg(root.join("gdb.py"))
        .arg("--args")
        .arg(program)
        .arg(name)
        .output()
        .expect("gdb can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut debugger = Debugger::new();
    for line in text.lines() {
        if let ["GVAR", capture, frame, name, line, state, raw] =
            line.split('\t').collect::<Vec<_>>().as_slice()
        {
            let (Ok(capture), Ok(frame)) = (capture.parse(), frame.parse()) else {
                continue;
            };
            let key = (capture, frame, (*name).to_owned(), (*line).to_owned());
            debugger
                .entry(key)
                .or_default()
                .push(((*state).to_owned(), (*raw).to_owned()));
        }
    }
    (parse(&text), debugger)
}

#[derive(Default)]
struct Tables {
    programs: usize,
    gdb: BTreeMap<String, Gdb>,
    truth: BTreeMap<String, Truth>,
    notes: BTreeSet<String>,
}

#[derive(Default)]
struct Gdb {
    listed: u32,
    real: u32,
    same: u32,
    differ: u32,
    lost: u32,
    recovered: u32,
    missing: u32,
    marked: u32,
    filled: u32,
    more: u32,
}

#[derive(Default)]
struct Truth {
    values: BTreeSet<String>,
    equal: BTreeSet<String>,
    shown: BTreeSet<String>,
    wrong: BTreeSet<String>,
    moved: BTreeSet<String>,
    async_values: BTreeSet<String>,
    async_shown: BTreeSet<String>,
    async_located: BTreeSet<String>,
    states: BTreeMap<String, u32>,
}

impl Tables {
    fn compare_with_gdb(&mut self, profile: &str, program: &str, run: &Run, debugger: &Debugger) {
        let row = self.gdb.entry(profile.to_owned()).or_default();
        let mut seen = BTreeSet::new();
        for var in &run.vars {
            let key = (var.frame.0, var.frame.1, var.name.clone(), var.line.clone());
            // The capturing function itself goes on after the debugger stopped.
            let outside =
                var.frame.1 > 0 && run.frames.get(&var.frame).is_some_and(|frame| frame.in_app);
            if !outside || !seen.insert(key.clone()) {
                continue;
            }
            let has_value = !var.raw.is_empty() || matches!(var.text.as_str(), "()" | "[]");
            let Some(values) = debugger.get(&key) else {
                row.more += u32::from(has_value);
                continue;
            };
            row.listed += 1;
            // The innermost of several declarations on one line is the one that counts.
            let real = values.iter().find(|(state, _)| state == "real");
            let Some((_, raw)) = real else {
                row.more += u32::from(has_value);
                continue;
            };
            row.real += 1;
            if var.state == "RegisterLost" || var.text.contains("<register not recoverable>") {
                row.lost += 1;
            } else if var.origin == "Caller" {
                // gdb shows what a callee left in the register.
                row.recovered += 1;
            } else if matches!(var.state.as_str(), "Stale") {
                row.marked += 1;
            } else if values.iter().any(|(_, raw)| is_same(&var.raw, raw)) {
                // gdb takes bytes that a location does not describe to be 0.
                let has_hole = var.origin != "Memory" && var.text.contains("<optimised out>");
                let column = if has_hole { &mut row.filled } else { &mut row.same };
                *column += 1;
            } else if var.raw.is_empty() && !raw.is_empty() {
                row.missing += 1;
                self.notes.insert(format!(
                    "gdb only: {profile} {program} {} {} {}",
                    function(run, var),
                    var.name,
                    var.state
                ));
            } else {
                row.differ += 1;
                self.notes.insert(format!(
                    "differs from gdb: {profile} {program} {} {}: {} and {raw}",
                    function(run, var),
                    var.name,
                    var.raw
                ));
            }
        }
    }

    fn compare_with_truth(
        &mut self,
        profile: &str,
        program: &str,
        run: &Run,
        truth: &Run,
        dev: &Run,
    ) {
        let row = self.truth.entry(profile.to_owned()).or_default();
        let in_app = |var: &&Var| run.frames.get(&var.frame).is_some_and(|frame| frame.in_app);
        for ((label, name), texts) in &truth.truth {
            let key = format!("{program} {label} {name}");
            // What the dev build's stack does not hold when something fails is nobody's to show.
            let on_stack = |run: &Run| run.vars.iter().any(|var| is_of(run, var, label, name));
            if !on_stack(dev) {
                continue;
            }
            row.values.insert(key.clone());
            let is_async = dev
                .vars
                .iter()
                .any(|var| is_of(dev, var, label, name) && dev.frames[&var.frame].is_async);
            if is_async {
                row.async_values.insert(key.clone());
            }
            for var in run
                .vars
                .iter()
                .filter(in_app)
                .filter(|var| is_of(run, var, label, name) && !var.shadowed)
            {
                let right = texts.contains(&var.text);
                if right {
                    row.equal.insert(key.clone());
                }
                if right
                    && matches!(
                        var.state.as_str(),
                        "Ok" | "MaybeMoved" | "Truncated" | "Partial"
                    )
                {
                    row.shown.insert(key.clone());
                    if is_async {
                        row.async_shown.insert(key.clone());
                        if var.origin != "Coroutine" {
                            row.async_located.insert(key.clone());
                        }
                    }
                }
                if !right && var.state == "Ok" {
                    row.wrong.insert(key.clone());
                    let text: String = var.text.chars().take(80).collect();
                    let own: String = texts
                        .iter()
                        .next()
                        .map(|text| text.chars().take(80).collect())
                        .unwrap_or_default();
                    self.notes.insert(format!(
                        "other text: {profile} {key} ({}): {text} and {own}",
                        var.origin
                    ));
                }
            }
        }
        for key in row
            .values
            .iter()
            .filter(|key| key.starts_with(&format!("{program} ")) && !row.shown.contains(*key))
        {
            let found = run
                .vars
                .iter()
                .filter(in_app)
                .filter(|var| key.ends_with(&format!(" {}", var.name)));
            let states: BTreeSet<&str> = found.map(|var| var.state.as_str()).collect();
            self.notes
                .insert(format!("not shown: {profile} {key}: {states:?}"));
        }
        for (label, name) in &truth.gone {
            for var in run
                .vars
                .iter()
                .filter(in_app)
                .filter(|var| is_of(run, var, label, name))
            {
                if var.state == "Ok" {
                    row.moved.insert(format!("{program} {label} {name}"));
                    self.notes.insert(format!(
                        "moved but ok: {profile} {program} {label} {name}: {}",
                        var.text
                    ));
                }
            }
        }
        for var in run.vars.iter().filter(in_app) {
            *row.states.entry(var.state.clone()).or_default() += 1;
        }
    }

    /// The tables, with what was written of other builds before.
    fn text(&self, written: &str) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, written);
        out
    }

    fn write(&self, out: &mut String, written: &str) -> std::fmt::Result {
        writeln!(
            out,
            "\n### In-app variables of {} programs against gdb, stopped at the same instruction\n",
            self.programs
        )?;
        writeln!(
            out,
            "| build | both list | gdb has the whole value | same bytes | other bytes | register lost | recovered from a call | marked stale | partly there, 0 in gdb | gdb only | only here |"
        )?;
        writeln!(
            out,
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        for Build { name: profile, .. } in BUILDS {
            let Some(row) = self.gdb.get(profile) else {
                keep(out, written, "### In-app", &format!("| {profile} |"))?;
                continue;
            };
            writeln!(
                out,
                "| {profile} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.listed,
                row.real,
                row.same,
                row.differ,
                row.lost,
                row.recovered,
                row.marked,
                row.filled,
                row.missing,
                row.more
            )?;
        }
        writeln!(
            out,
            "\n### Values against the programs' own `{{:?}}` (written by the dev build)\n"
        )?;
        writeln!(
            out,
            "| build | values | shown with the same text | ok with another text | moved or dropped but ok | async values | async shown | of these by location alone |"
        )?;
        writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for Build { name: profile, .. } in BUILDS {
            let Some(row) = self.truth.get(profile) else {
                keep(out, written, "### Values", &format!("| {profile} |"))?;
                continue;
            };
            writeln!(
                out,
                "| {profile} | {} | {} ({}) | {} | {} | {} | {} ({}) | {} |",
                row.values.len(),
                row.shown.len(),
                percent(row.shown.len(), row.values.len()),
                row.wrong.len(),
                row.moved.len(),
                row.async_values.len(),
                row.async_shown.len(),
                percent(row.async_shown.len(), row.async_values.len()),
                row.async_located.len(),
            )?;
        }
        writeln!(out, "\n### States of all in-app variables\n")?;
        for Build { name: profile, .. } in BUILDS {
            let Some(row) = self.truth.get(profile) else {
                keep(out, written, "### States", &format!("- {profile}:"))?;
                continue;
            };
            let states: Vec<String> = row
                .states
                .iter()
                .map(|(state, count)| format!("{state} {count}"))
                .collect();
            writeln!(out, "- {profile}: {}", states.join(", "))?;
        }
        Ok(())
    }
}

/// Writes a row again that was in a table before.
fn keep(out: &mut String, written: &str, table: &str, row: &str) -> std::fmt::Result {
    let (_, rows) = written.split_once(table).unwrap_or_default();
    let end = rows.find("\n###").unwrap_or(rows.len());
    match rows[..end].lines().find(|line| line.starts_with(row)) {
        Some(line) => writeln!(out, "{line}"),
        None => Ok(()),
    }
}

/// gdb leaves out the bytes that an enum's variant does not use.
fn is_same(captured: &str, debugger: &str) -> bool {
    captured == debugger || !debugger.is_empty() && captured.starts_with(debugger)
}

fn is_of(run: &Run, var: &Var, label: &str, name: &str) -> bool {
    var.name == name
        && run
            .frames
            .get(&var.frame)
            .is_some_and(|frame| frame.function.ends_with(&format!("::{label}")))
}

fn function<'r>(run: &'r Run, var: &Var) -> &'r str {
    run.frames
        .get(&var.frame)
        .map_or("?", |frame| frame.function.as_str())
}

fn percent(part: usize, whole: usize) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.1} %", part as f64 * 100.0 / whole as f64)
    }
}
