//! The grouping exam: events of known bugs, and how well the groups match them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use backstop_protocol::Event;
use backstop_tracker::grouping::Grouper;
use backstop_tracker::grouping::command::{Options, run};
use backstop_tracker::grouping::hint::{LIKENESS_MIN, Sketch, rarity};
use serde::Deserialize;

/// What is known about an event.
#[derive(Deserialize)]
struct Label {
    event_id: String,
    bug: String,
    variation: String,
    tier: String,
    must: String,
}

/// Which of the labels count.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    Steady,
    Strict,
    All,
}

impl Label {
    fn counts_in(&self, block: Block) -> bool {
        match block {
            Block::Steady => self.must == "strict" && self.tier == "steady",
            Block::Strict => self.must == "strict",
            Block::All => true,
        }
    }

    fn platform(&self) -> &str {
        self.bug.split('-').next().unwrap_or_default()
    }
}

/// How well groups match bugs, over all pairs of events of one platform.
struct Score {
    precision: f64,
    recall: f64,
    split: Vec<String>,
    merged: Vec<String>,
}

impl Score {
    fn f1(&self) -> f64 {
        2.0 * self.precision * self.recall / (self.precision + self.recall)
    }
}

fn score(labels: &[&Label], groups: &HashMap<String, String>) -> Score {
    let mut cells: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for label in labels {
        // Each platform is a project of its own.
        let group = groups.get(&label.event_id).unwrap_or(&label.event_id);
        *cells
            .entry((&label.bug, format!("{} {group}", label.platform())))
            .or_default() += 1;
    }
    let mut of_bug: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut of_group: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for ((bug, group), count) in &cells {
        of_bug.entry(bug).or_default().push(*count);
        of_group.entry(group).or_default().push((bug, *count));
    }
    let pairs = |n: u64| n * n.saturating_sub(1) / 2;
    let both: u64 = cells.values().copied().map(pairs).sum();
    let same_bug: u64 = of_bug
        .values()
        .map(|counts| pairs(counts.iter().sum()))
        .sum();
    let same_group: u64 = of_group
        .values()
        .map(|bugs| pairs(bugs.iter().map(|(_, count)| count).sum()))
        .sum();
    let split = of_bug.iter().filter(|(_, counts)| counts.len() > 1);
    let merged = of_group.values().filter(|bugs| bugs.len() > 1);
    Score {
        precision: both as f64 / same_group.max(1) as f64,
        recall: both as f64 / same_bug.max(1) as f64,
        split: split
            .map(|(bug, counts)| format!("{bug} {counts:?}"))
            .collect(),
        merged: merged.map(|bugs| format!("{bugs:?}")).collect(),
    }
}

/// Groups the events below `dir` and returns labels and groups.
fn examine(dir: &Path) -> (Vec<Label>, HashMap<String, String>) {
    #[derive(Deserialize)]
    struct Answer {
        event_id: String,
        group: String,
    }
    let labels = fs::read_to_string(dir.join("labels.jsonl")).unwrap();
    let labels = labels
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let events = fs::read(dir.join("events.jsonl")).unwrap();
    let mut out = Vec::new();
    run(events.as_slice(), &mut out, Options::default()).unwrap();
    let answers = out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let groups = answers
        .map(|line| serde_json::from_slice(line).unwrap())
        .map(|answer: Answer| (answer.event_id, answer.group))
        .collect();
    (labels, groups)
}

/// Prints a line per block and platform and returns the scores.
fn table(
    labels: &[Label],
    groups: &HashMap<String, String>,
    details: bool,
) -> Vec<(Block, String, Score)> {
    let mut platforms: Vec<&str> = labels.iter().map(Label::platform).collect();
    platforms.sort_unstable();
    platforms.dedup();
    let mut rows = Vec::new();
    println!("labels  platform  events   precision  recall  F1");
    for (block, name) in [
        (Block::Steady, "steady"),
        (Block::Strict, "strict"),
        (Block::All, "all"),
    ] {
        for platform in [""].iter().chain(&platforms) {
            let of_block: Vec<&Label> = labels
                .iter()
                .filter(|label| {
                    label.counts_in(block) && (platform.is_empty() || label.platform() == *platform)
                })
                .collect();
            let score = score(&of_block, groups);
            println!(
                "{name:<7} {platform:<9} {:>6}   {:>9.4}  {:.4}  {:.4}",
                of_block.len(),
                score.precision,
                score.recall,
                score.f1()
            );
            if details && platform.is_empty() {
                for line in &score.split {
                    println!("    split  {line}");
                }
                for line in &score.merged {
                    println!("    merged {line}");
                }
            }
            rows.push((block, (*platform).to_owned(), score));
        }
    }
    for (label, group) in labels.iter().map(|label| (label, &groups[&label.event_id])) {
        if details && std::env::var("BACKSTOP_GROUPING_BUG").is_ok_and(|bug| bug == label.bug) {
            println!("{} {} {group}", label.event_id, label.variation);
        }
    }
    rows
}

/// `BACKSTOP_GROUPING` names the directory with `events.jsonl` and `labels.jsonl`.
fn exam_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("BACKSTOP_GROUPING")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/grouping"));
    if dir.join("events.jsonl").exists() {
        return Some(dir);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no grouping exam in {}",
        dir.display()
    );
    println!(
        "skipped: no grouping exam in {}; set BACKSTOP_GROUPING",
        dir.display()
    );
    None
}

/// Bugs of languages and kinds that the open exam lacks; `docs/grouping.md` describes them.
#[test]
fn other_languages_are_grouped() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grouping");
    let (labels, groups) = examine(&dir);
    for (block, platform, score) in table(&labels, &groups, true) {
        let f1_min = match (block, platform.as_str()) {
            (Block::Steady | Block::Strict, _) => 0.98,
            (Block::All, "") => 0.94,
            (Block::All, _) => continue,
        };
        assert!(
            score.f1() >= f1_min,
            "{platform}: F1 {:.4} is below {f1_min}",
            score.f1()
        );
    }
}

#[test]
fn open_exam_is_passed() {
    let Some(dir) = exam_dir() else { return };
    let (labels, groups) = examine(&dir);
    for (block, platform, score) in table(&labels, &groups, true) {
        let f1_min = match (block, platform.as_str()) {
            (Block::Steady, "") => 0.98,
            (Block::Strict, "") => 0.96,
            (Block::All, "") => 0.92,
            (Block::Strict, _) => 0.94,
            _ => continue,
        };
        assert!(
            score.f1() >= f1_min,
            "F1 {:.4} is below {f1_min}",
            score.f1()
        );
        if block == Block::Steady {
            assert!(score.precision >= 0.97, "precision {:.4}", score.precision);
        }
    }
}

/// What came of the hints of a project.
#[derive(Default)]
struct Hints {
    issues: usize,
    /// Issues for which there was an earlier one of the same bug.
    could: usize,
    right: usize,
    wrong: usize,
}

/// Takes the first event of every key as an issue, in their order, and counts what the best hint
/// to an earlier issue leads to.
fn hints_of(dir: &Path, labels: &[Label], platform: &str, key: impl Fn(&Label) -> String) -> Hints {
    let events = fs::read_to_string(dir.join("events.jsonl")).unwrap();
    let grouper = Grouper::new();
    let sketches: HashMap<String, Option<Sketch>> = events
        .lines()
        .map(|line| {
            let mut event = Event::decode(line.as_bytes()).unwrap();
            grouper.normalise(&mut event);
            (event.event_id.to_string(), Sketch::of(&event))
        })
        .collect();
    let mut seen: Vec<String> = Vec::new();
    let mut issues: Vec<(&Label, &Sketch)> = Vec::new();
    let mut counts: HashMap<u64, usize> = HashMap::new();
    let mut hints = Hints::default();
    let of_platform = labels
        .iter()
        .filter(|label| label.platform() == platform && label.must == "strict");
    for label in of_platform {
        let key = key(label);
        let Some(sketch) = sketches[&label.event_id]
            .as_ref()
            .filter(|_| !seen.contains(&key))
        else {
            continue;
        };
        seen.push(key);
        for number in sketch.numbers() {
            *counts.entry(number).or_default() += 1;
        }
        let weigh = |number| rarity(counts.get(&number).copied().unwrap_or(0), issues.len() + 1);
        let best = issues
            .iter()
            .map(|(label, other)| (sketch.likeness(other, weigh), label.bug.as_str()))
            .max_by(|left, right| left.0.total_cmp(&right.0));
        hints.issues += 1;
        hints.could += usize::from(issues.iter().any(|(other, _)| other.bug == label.bug));
        match best {
            Some((likeness, bug)) if likeness >= LIKENESS_MIN => {
                if bug == label.bug {
                    hints.right += 1;
                } else {
                    hints.wrong += 1;
                }
            }
            _ => {}
        }
        issues.push((label, sketch));
    }
    hints
}

/// Prints and returns the hints of every platform together.
fn measure_hints(dir: &Path, key: impl Fn(&Label) -> String) -> Hints {
    let (labels, _) = examine(dir);
    let mut platforms: Vec<&str> = labels.iter().map(Label::platform).collect();
    platforms.sort_unstable();
    platforms.dedup();
    let mut sum = Hints::default();
    for platform in platforms {
        let hints = hints_of(dir, &labels, platform, &key);
        sum.issues += hints.issues;
        sum.could += hints.could;
        sum.right += hints.right;
        sum.wrong += hints.wrong;
    }
    println!(
        "{} issues, {} of a bug that has an earlier issue: {} hints right, {} wrong",
        sum.issues, sum.could, sum.right, sum.wrong
    );
    sum
}

/// If every variation of a bug were an issue of its own, hints would bring most of them together;
/// between issues that are grouped rightly there are hardly any.
#[test]
fn hints_are_mostly_right() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grouping");
    for dir in [Some(own), exam_dir()].into_iter().flatten() {
        let apart = measure_hints(&dir, |label| format!("{} {}", label.bug, label.variation));
        let together = measure_hints(&dir, |label| label.bug.clone());
        let given = (apart.right + apart.wrong) as f64;
        assert!(apart.right as f64 >= 0.9 * given, "{} wrong", apart.wrong);
        assert!(apart.right as f64 >= 0.6 * apart.could as f64);
        assert!(together.wrong as f64 <= 0.1 * together.issues as f64);
    }
}
