//! Flask's recorded behaviour around errors, case by case: each set-up becomes a real app.
//!
//! The file is `BACKSTOP_FLASK_CASES`, by default the shared one beside the repository.
//! A case is left out only if it is marked `python_only`, or is listed with its id and the reason
//! in COMPATIBILITY.md.

mod build;
mod capture;
mod compare;
mod config;
mod errors;
mod mail;
mod plan;
mod run;
mod texts;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde_json::Value;

/// Modes that need more of the library than this test drives.
const MODES_OF_LATER: &[&str] = &["debugger", "reloader"];

#[test]
fn flask_cases() {
    let Some(cases) = read_cases() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "the recorded cases are missing"
        );
        println!("flask_cases: the recorded cases are missing, nothing was tested");
        return;
    };
    let listed = listed_differences();
    let wanted = std::env::var("BACKSTOP_FLASK_CASE").ok();
    let mut passed = 0;
    let mut failed = Vec::new();
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases["cases"].as_array().expect("cases are a list") {
        let id = case["id"].as_str().expect("a case has an id");
        let mode = case["mode"].as_str().unwrap_or_default();
        if wanted.as_deref().is_some_and(|wanted| !id.contains(wanted)) {
            continue;
        }
        let reason = if case.get("python_only").is_some() {
            Some("python_only".to_owned())
        } else if MODES_OF_LATER.contains(&mode) {
            Some(format!("mode {mode}"))
        } else {
            listed
                .get(id)
                .map(|_| "listed in COMPATIBILITY.md".to_owned())
        };
        if let Some(reason) = reason {
            *skipped.entry(reason).or_default() += 1;
            continue;
        }
        match run::run(case, &cases["about"]) {
            Ok(()) => passed += 1,
            Err(why) => failed.push((id.to_owned(), why)),
        }
    }
    for (id, why) in &failed {
        println!("{id}: {why}");
    }
    let total: usize = skipped.values().sum();
    println!(
        "{passed} passed, {} failed, {total} skipped {skipped:?}",
        failed.len()
    );
    let ids: Vec<&String> = failed.iter().map(|(id, _)| id).collect();
    assert!(ids.is_empty(), "failed: {ids:?}");
}

fn read_cases() -> Option<Value> {
    let path = std::env::var_os("BACKSTOP_FLASK_CASES").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/flask_cases.json"
            ))
        },
        PathBuf::from,
    );
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).expect("the recorded cases are JSON"))
}

/// The ids in COMPATIBILITY.md, each in backticks in the table's last column.
fn listed_differences() -> HashMap<String, ()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../COMPATIBILITY.md");
    let text = std::fs::read_to_string(path).expect("COMPATIBILITY.md is there");
    text.lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(|line| line.trim_end_matches('|').rsplit('|').next())
        .flat_map(|ids| ids.split('`').skip(1).step_by(2))
        .map(|id| (id.to_owned(), ()))
        .collect()
}
