//! What happens while the surroundings fail: refused at once, resumed by itself, nothing lost.

use std::path::Path;
use std::time::Duration;

use backstop_faulty_vfs::{Disk, Faults};
use backstop_protocol::{Event, EventId, Timestamp};
use backstop_tracker::digest::{Digest, Incoming, Stored, SubmitError};
use backstop_tracker::model::{NewProject, ProjectId};
use backstop_tracker::store::{ErrorKind, Store, StoreOptions};
use serde_json::json;

use crate::scratch::Scratch;

const NOW: Timestamp = Timestamp::from_micros(1_795_341_600_000_000);
const PROJECT: ProjectId = ProjectId(1);

fn make(directory: &Path, options: &StoreOptions) -> (Store, Digest) {
    let store = Store::open_with(directory, options).unwrap();
    if store.project(PROJECT).is_err() {
        let wish = NewProject {
            name: "Shop".to_owned(),
            ..NewProject::default()
        };
        store.create_project(&wish, NOW).unwrap();
    }
    let digest = Digest::start_with(store.clone(), Duration::ZERO).unwrap();
    (store, digest)
}

fn on_disk(disk: &Disk) -> StoreOptions {
    StoreOptions {
        vfs: Some(disk.vfs().to_owned()),
        ..StoreOptions::default()
    }
}

fn id(number: u128) -> EventId {
    EventId::from_bytes(number.to_be_bytes())
}

fn send(digest: &Digest, number: u128) -> Result<Stored, SubmitError> {
    let event: Event = serde_json::from_value(json!({
        "event_id": id(number),
        "exception": {"values": [{"type": format!("Error{}", number % 5), "value": "x".repeat(900)}]}
    }))
    .unwrap();
    let incoming = Incoming {
        project: PROJECT,
        key: None,
        received: NOW,
    };
    let prepared = digest.prepare(incoming, event)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    Ok(runtime.block_on(digest.submit(vec![prepared]))?[0])
}

#[test]
fn a_full_or_failing_disk_refuses_and_the_same_process_goes_on() {
    for faults in [
        Faults {
            full: 10_000,
            ..Faults::default()
        },
        Faults {
            write: 10_000,
            ..Faults::default()
        },
        Faults {
            sync: 10_000,
            ..Faults::default()
        },
    ] {
        let (disk, scratch) = (Disk::new(1), Scratch::new());
        let (store, digest) = make(scratch.path(), &on_disk(&disk));
        send(&digest, 1).unwrap();
        disk.set_faults(faults);
        for number in 2..5 {
            let refused = send(&digest, number).unwrap_err();
            assert!(
                matches!(refused, SubmitError::Unavailable { .. }),
                "{refused}"
            );
        }
        assert!(store.event(PROJECT, id(1)).is_ok(), "reading goes on");
        disk.set_faults(Faults::default());
        assert!(!send(&digest, 2).unwrap().duplicate);
        digest.health().unwrap();
        let report = store.check(false).unwrap();
        assert_eq!((report.findings, report.events), (Vec::new(), 2));
        let refused = "backstop_events_total{outcome=\"refused_store_unavailable\"} 3";
        assert!(digest.metrics().contains(refused));
    }
}

#[test]
fn while_the_disk_refuses_nobody_waits_for_it() {
    let (disk, scratch) = (Disk::new(1), Scratch::new());
    let (store, _) = make(scratch.path(), &on_disk(&disk));
    let digest = Digest::start_with(store, Duration::from_secs(3600)).unwrap();
    disk.set_faults(Faults {
        full: 10_000,
        ..Faults::default()
    });
    send(&digest, 1).unwrap_err();
    let operations = disk.operations();
    let SubmitError::Unavailable {
        retry_after,
        reason,
    } = send(&digest, 2).unwrap_err()
    else {
        panic!("it refuses")
    };
    assert!(retry_after > Duration::from_secs(3000));
    assert!(reason.contains("the disk is full"), "{reason}");
    assert_eq!(disk.operations(), operations, "the disk was not asked");
    assert!(digest.health().is_err());
}

#[test]
fn a_torn_end_of_the_log_is_dropped_and_a_damaged_middle_is_told() {
    let scratch = Scratch::new();
    let (store, digest) = make(scratch.path(), &StoreOptions::default());
    for number in 0..40 {
        send(&digest, number).unwrap();
    }
    // Copies of the files of a running process are what a crash leaves.
    let crash = |damage: &dyn Fn(&mut Vec<u8>)| {
        let left = Scratch::new();
        for name in ["backstop.db", "backstop.db-wal"] {
            let mut bytes = std::fs::read(scratch.path().join(name)).unwrap();
            if name.ends_with("wal") {
                damage(&mut bytes);
            }
            std::fs::write(left.path().join(name), bytes).unwrap();
        }
        let store = Store::open(left.path()).unwrap();
        let report = store.check(false).unwrap();
        assert_eq!(report.findings, []);
        let repaired = store.repaired().map(str::to_owned);
        let kept = left.path().join("backstop.db-wal.damaged").exists();
        (report.events, repaired, kept)
    };
    assert_eq!(crash(&|_| {}), (40, None, false));
    let (events, repaired, kept) = crash(&|log| log.truncate(log.len() - 5000));
    assert_eq!((events, kept), (39, false));
    assert!(repaired.unwrap().contains("never acknowledged"));
    let (events, repaired, kept) = crash(&|log| {
        let middle = log.len() / 2;
        log[middle] ^= 1;
    });
    assert!(events < 39 && kept, "{events}");
    assert!(repaired.unwrap().contains("damaged"));
    drop((store, digest));
}

#[test]
fn a_place_that_cannot_be_a_directory_is_refused_with_its_name() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = Store::open(file.join("data")).unwrap_err();
    assert!(refused.to_string().contains("file/data"), "{refused}");
    let garbage = Scratch::new();
    std::fs::write(
        garbage.path().join("backstop.db"),
        "no database ".repeat(1000),
    )
    .unwrap();
    let refused = Store::open(garbage.path()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
}
