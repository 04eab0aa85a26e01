//! The store over a disk that loses power, tears writes and fails.
//!
//! A seed decides everything: the events, the faults, the moment of the cut and what survives it.
//! `BACKSTOP_POWER_LOSS_SEEDS=20000 cargo test --release -p backstop-tracker --test it power_loss`
//! is the long form; `BACKSTOP_POWER_LOSS_FIRST=4711 BACKSTOP_POWER_LOSS_SEEDS=1` replays one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use backstop_faulty_vfs::{Disk, Faults, Random};
use backstop_protocol::{Event, EventId, Timestamp};
use backstop_tracker::digest::{Digest, Incoming, SubmitError};
use backstop_tracker::model::{Decision, IssueId, IssueQuery, Key, NewProject, ProjectId};
use backstop_tracker::store::{Error, Store, StoreOptions};
use serde_json::json;

use crate::scratch::Scratch;

/// The short form; a few seconds.
const SEEDS_DEFAULT: u64 = 500;
/// Lives of the process in one seed: each but the last ends with a power cut.
const LIVES: u64 = 3;
const STEPS_MAX: u64 = 14;
/// A store that cannot be opened over a failing disk is opened again, at most so often.
const OPENINGS_MAX: u32 = 50;

const PROJECT: ProjectId = ProjectId(7);
const KEY: Key = Key([7; 16]);

/// What the outside knows: only what was acknowledged.
#[derive(Default)]
struct World {
    now_seconds: i64,
    sent: Vec<EventId>,
    acked: BTreeMap<EventId, IssueId>,
    /// Whether somebody took issues apart, so that events may be in another one by now.
    has_split: bool,
    mailed: BTreeSet<i64>,
}

#[test]
fn nothing_acknowledged_is_lost_to_a_power_cut() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let first: u64 = number("BACKSTOP_POWER_LOSS_FIRST", 0);
    let seeds: u64 = number("BACKSTOP_POWER_LOSS_SEEDS", SEEDS_DEFAULT);
    let threads = 2;
    let totals: Vec<Totals> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let scratch = Scratch::new();
                    let mut totals = Totals::default();
                    for seed in (first + thread..first + seeds).step_by(threads as usize) {
                        run(seed, scratch.path(), &mut totals);
                    }
                    totals
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().expect("a seed failed; its number is above"))
            .collect()
    });
    let sum = |field: fn(&Totals) -> u64| totals.iter().map(field).sum::<u64>();
    println!(
        "{seeds} seeds: {} power cuts, {} events acknowledged, {} refusals, {} checks clean",
        sum(|totals| totals.cuts),
        sum(|totals| totals.acked),
        sum(|totals| totals.refused),
        sum(|totals| totals.checks)
    );
    // A simulation in which nothing happens would pass as well.
    if seeds >= SEEDS_DEFAULT {
        assert!(sum(|totals| totals.cuts) > seeds);
        assert!(sum(|totals| totals.acked) > 10 * seeds);
        assert!(sum(|totals| totals.refused) > seeds / 4);
    }
}

#[derive(Default)]
struct Totals {
    cuts: u64,
    acked: u64,
    refused: u64,
    checks: u64,
}

fn run(seed: u64, directory: &Path, totals: &mut Totals) {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let disk = Disk::new(seed);
        let mut random = Random::new(!seed);
        let mut world = World::default();
        for life in 0..LIVES {
            live(
                &disk,
                directory,
                &mut random,
                &mut world,
                life + 1 == LIVES,
                totals,
            );
            totals.cuts += u64::from(life + 1 < LIVES);
            disk.restart();
        }
        verify(&disk, directory, &world, totals);
        totals.acked += world.acked.len() as u64;
    }));
    if let Err(panic) = caught {
        eprintln!("seed {seed} failed");
        std::panic::resume_unwind(panic);
    }
}

/// One life of the process; it ends by a power cut, or in good order if it is the last.
fn live(
    disk: &Disk,
    directory: &Path,
    random: &mut Random,
    world: &mut World,
    last: bool,
    totals: &mut Totals,
) {
    let options = StoreOptions {
        vfs: Some(disk.vfs().to_owned()),
        body_bytes_max: 20_000,
        // The log is merged into the file early and often.
        log_pages_max: 1 + random.below(60) as u32,
        // A second thread would make a run differ from its replay.
        merge_log_aside: false,
        // Ids move to their generation in every life.
        fresh_ids_max: random.below(30) as usize,
    };
    if !last {
        disk.cut_power_after(random.below(300));
    }
    disk.set_faults(faults(random));
    let Some(store) = open(disk, directory, &options) else {
        return;
    };
    let Ok(digest) = Digest::start_with(store.clone(), Duration::ZERO) else {
        return;
    };
    for _ in 0..random.below(STEPS_MAX) {
        world.now_seconds += random.below(5) as i64;
        step(&store, &digest, random, world, totals);
        if !disk.has_power() {
            break;
        }
        // Faults come and go, and the same process goes on.
        disk.set_faults(faults(random));
    }
    digest.stop();
}

/// Half of the time nothing fails, otherwise one thing does, now and then or often.
fn faults(random: &mut Random) -> Faults {
    let mut faults = Faults::default();
    let parts = [20, 300, 5000][random.below(3) as usize];
    match random.below(8) {
        0 => faults.read = parts.min(300),
        1 => faults.write = parts,
        2 => faults.full = parts,
        3 => faults.sync = parts,
        _ => {}
    }
    faults
}

/// Opens the store and makes its project; `None` when the power went meanwhile.
fn open(disk: &Disk, directory: &Path, options: &StoreOptions) -> Option<Store> {
    for attempt in 0..OPENINGS_MAX {
        if attempt == OPENINGS_MAX / 2 {
            disk.set_faults(Faults::default());
        }
        let store = Store::open_with(directory, options).and_then(|store| {
            make_project(&store)?;
            Ok(store)
        });
        match store {
            Ok(store) => return Some(store),
            Err(_) if !disk.has_power() => return None,
            Err(_) => {}
        }
    }
    panic!("the store does not open over a disk that works");
}

fn make_project(store: &Store) -> Result<(), Error> {
    if store.project(PROJECT).is_ok() {
        return Ok(());
    }
    let wish = NewProject {
        name: "Shop".to_owned(),
        id: Some(PROJECT),
        key: Some(KEY),
        ..NewProject::default()
    };
    store.create_project(&wish, time(0)).map(|_| ())
}

fn step(
    store: &Store,
    digest: &Digest,
    random: &mut Random,
    world: &mut World,
    totals: &mut Totals,
) {
    let now = time(world.now_seconds);
    // What fails here was not acknowledged, so nobody relies on it.
    match random.below(11) {
        10 => regroup(store, random, world),
        0 => {
            let _ = digest.maintain(time(world.now_seconds + random.below(20) as i64 * 86_400));
        }
        1 => {
            if let Ok(page) = store.issues(&IssueQuery::default())
                && let Some(issue) = page.issues.first()
            {
                let _ = store.decide(issue.id, Decision::Resolve);
            }
        }
        2 => {
            if let Ok(alerts) = store.due_alerts(now, 5) {
                let ids: Vec<_> = alerts.iter().map(|alert| alert.id).collect();
                if store.alerts_sent(&ids).is_ok() {
                    for id in ids {
                        assert!(
                            world.mailed.insert(id),
                            "alert {id} was due after it was sent"
                        );
                    }
                }
            }
        }
        _ => {
            if let Err(error) = send(store, digest, random, world, now) {
                assert!(
                    matches!(error, SubmitError::Unavailable { .. }),
                    "an event was refused for good: {error}"
                );
                totals.refused += 1;
            }
        }
    }
}

/// Merges two issues, or takes a group out of one, as people do.
fn regroup(store: &Store, random: &mut Random, world: &mut World) {
    let Ok(page) = store.issues(&IssueQuery::default()) else {
        return;
    };
    let ids: Vec<IssueId> = page.issues.iter().map(|issue| issue.id).collect();
    let Some(first) = ids.first() else {
        return;
    };
    if random.below(2) == 0 {
        let _ = store.merge(*first, &ids[1..ids.len().min(2)]);
    } else if let Ok(groups) = store.issue_groups(*first)
        && let [picked, _, ..] = groups.as_slice()
    {
        // A cut may come between the commit and its answer, so the attempt counts.
        world.has_split = true;
        let _ = store.split(*first, &[picked.hash]);
    }
}

fn send(
    store: &Store,
    digest: &Digest,
    random: &mut Random,
    world: &mut World,
    now: Timestamp,
) -> Result<(), SubmitError> {
    let incoming = Incoming {
        project: PROJECT,
        key: Some(KEY),
        received: now,
    };
    let mut batch = Vec::new();
    for _ in 0..=random.below(12) {
        // Clients send again what was not acknowledged, and sometimes what was.
        let id = match world.sent.len() as u64 {
            count if count > 0 && random.below(4) == 0 => world.sent[random.below(count) as usize],
            count => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&random.bits().to_be_bytes());
                bytes[8..].copy_from_slice(&count.to_be_bytes());
                EventId::from_bytes(bytes)
            }
        };
        world.sent.push(id);
        batch.push(digest.prepare(incoming, event(id, random, now))?);
    }
    let ids: Vec<_> = batch.len().checked_sub(1).map_or_else(Vec::new, |last| {
        world.sent[world.sent.len() - 1 - last..].to_vec()
    });
    let stored = wait(digest.submit(batch))?;
    for (id, stored) in ids.iter().zip(stored) {
        assert_eq!(*id, stored.event_id);
        let before = world.acked.insert(*id, stored.issue);
        if let Some(issue) = before {
            assert!(stored.duplicate, "event {id} was counted twice");
            // The disk may fail, or the power go, between the commit and this question.
            let same = leads_to(store, issue, stored.issue).unwrap_or(true);
            assert!(world.has_split || same, "event {id} moved");
        }
    }
    Ok(())
}

fn event(id: EventId, random: &mut Random, now: Timestamp) -> Event {
    let function = format!("view_{}", random.below(6));
    let noise: String = (0..random.below(200))
        .map(|_| format!("{:x}", random.bits()))
        .collect();
    let mut event: Event = serde_json::from_value(json!({
        "event_id": id,
        "platform": "python",
        "user": {"id": random.below(40)},
        "exception": {"values": [{
            "type": "PaymentError",
            "value": format!("order {}", random.below(1000)),
            "stacktrace": {"frames": [
                {"module": "shop", "function": function, "in_app": true, "vars": {"noise": noise}}
            ]}
        }]}
    }))
    .expect("the value is an event");
    event.timestamp = Some(now);
    event
}

/// After the last cut everything that was acknowledged is there, and every sum agrees.
fn verify(disk: &Disk, directory: &Path, world: &World, totals: &mut Totals) {
    let options = StoreOptions {
        vfs: Some(disk.vfs().to_owned()),
        ..StoreOptions::default()
    };
    let store = open(disk, directory, &options).expect("the power is on");
    for (id, issue) in &world.acked {
        let place = store.event_place(*id);
        let place = place.unwrap_or_else(|error| panic!("event {id} is lost: {error}"));
        assert!(
            world.has_split || leads_to(&store, *issue, place.issue).expect("readable"),
            "event {id} moved"
        );
        assert!(
            store.issue(place.issue).is_ok(),
            "event {id} is in no issue"
        );
    }
    let report = store.check(false).expect("the file can be read");
    assert_eq!(report.findings, []);
    let sent: BTreeSet<_> = world.sent.iter().collect();
    assert!(
        report.events >= world.acked.len() as u64,
        "acknowledged events are not counted"
    );
    assert!(
        report.events <= sent.len() as u64,
        "events are counted twice"
    );
    for alert in store
        .due_alerts(time(i64::from(u32::MAX)), 1000)
        .expect("readable")
    {
        assert!(
            !world.mailed.contains(&alert.id),
            "alert {} would be sent twice",
            alert.id
        );
    }
    totals.checks += 1;
}

/// Says whether an issue is the other one by now.
fn leads_to(store: &Store, issue: IssueId, other: IssueId) -> Result<bool, Error> {
    Ok(issue == other || store.issue(issue)?.id == other)
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_micros((1_795_341_600 + seconds) * 1_000_000)
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs nothing")
        .block_on(future)
}
