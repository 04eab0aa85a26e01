//! Files that are damaged, may not be written or are full: found, told and survived.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstop_faulty_vfs::Random;
use backstop_protocol::{Event, EventId, Timestamp};
use backstop_tracker::digest::{Digest, Incoming};
use backstop_tracker::model::{IssueQuery, NewProject, ProjectId};
use backstop_tracker::store::{ErrorKind, Store};
use serde_json::json;
use tempfile::TempDir;

use crate::scratch::Scratch;
use crate::server::Server;

const NOW: Timestamp = Timestamp::from_micros(1_795_341_600_000_000);
const PROJECT: ProjectId = ProjectId(7);
const PAGE_BYTES: usize = 4096;
/// The server looks for its store again every two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a store with some of everything, and closes it.
fn fill(directory: &Path) {
    let store = Store::open(directory).unwrap();
    let wish = NewProject {
        name: "Shop".to_owned(),
        id: Some(PROJECT),
        ..NewProject::default()
    };
    store.create_project(&wish, NOW).unwrap();
    store.create_user("ada@example.com", "Ada", NOW).unwrap();
    let digest = Digest::start(store.clone()).unwrap();
    let mut random = Random::new(7);
    let events = (0..150_u128).map(|number| {
        // Some bodies are longer than a page.
        let noise: String = (0..random.below(400))
            .map(|_| format!("{:x}", random.bits()))
            .collect();
        let event: Event = serde_json::from_value(json!({
            "event_id": EventId::from_bytes(number.to_be_bytes()),
            "user": {"id": number % 9},
            "exception": {"values": [{"type": format!("Error{}", "abcdefghij".chars().nth(number as usize % 10).unwrap()), "value": noise}]},
        }))
        .unwrap();
        let incoming = Incoming { project: PROJECT, key: None, received: NOW };
        digest.prepare(incoming, event).unwrap()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let events = events.collect();
    runtime.block_on(digest.submit(events)).unwrap();
    digest.maintain(NOW).unwrap();
}

fn copy(from: &Path) -> Scratch {
    let to = Scratch::new();
    fs::copy(from.join("backstop.db"), to.path().join("backstop.db")).unwrap();
    to
}

/// Says whether the store can be opened, and whether a check says that all is well.
fn check(directory: &Path) -> Result<bool, ErrorKind> {
    let report = Store::open(directory).and_then(|store| store.check(false));
    report
        .map(|report| report.is_clean())
        .map_err(|error| error.kind())
}

/// Returns which table or index each page belongs to; free pages belong to none.
fn owners(directory: &Path) -> BTreeMap<u64, String> {
    let connection = rusqlite::Connection::open(directory.join("backstop.db")).unwrap();
    let mut statement = connection
        .prepare("SELECT pageno, name FROM dbstat")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_page_of_garbage_is_found_wherever_it_is() {
    let sound = Scratch::new();
    fill(sound.path());
    assert_eq!(check(sound.path()), Ok(true));
    let owners = owners(sound.path());
    assert!(owners.len() > 60, "{owners:?}");
    for (page, owner) in &owners {
        let damaged = copy(sound.path());
        let file = fs::File::options()
            .write(true)
            .open(damaged.path().join("backstop.db"))
            .unwrap();
        let at = (page - 1) * PAGE_BYTES as u64;
        file.write_all_at(&[0xa5; PAGE_BYTES], at).unwrap();
        match check(damaged.path()) {
            Ok(clean) => assert!(!clean, "page {page} of {owner} is garbage and not found"),
            Err(kind) => assert_eq!(kind, ErrorKind::Corrupt, "page {page} of {owner}"),
        }
    }
}

/// SQLite has no checksums of its pages: what is held once and has no checksum of its own, such as
/// a title, may change unseen. Bodies, ids, counts and all that has an order or an index is found.
#[test]
fn a_flipped_bit_never_panics_and_is_mostly_found() {
    let sound = Scratch::new();
    fill(sound.path());
    let mut random = Random::new(1);
    let owners: Vec<_> = owners(sound.path()).into_iter().collect();
    let mut missed: BTreeMap<&str, u32> = BTreeMap::new();
    let flips = 60;
    for _ in 0..flips {
        let (page, owner) = &owners[random.below(owners.len() as u64) as usize];
        let damaged = copy(sound.path());
        let path = damaged.path().join("backstop.db");
        let mut bytes = fs::read(&path).unwrap();
        let at = (*page as usize - 1) * PAGE_BYTES + random.below(PAGE_BYTES as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        fs::write(&path, bytes).unwrap();
        if check(damaged.path()) == Ok(true) {
            *missed.entry(owner).or_default() += 1;
        }
        // Whatever was hit, reading answers or says that it cannot.
        if let Ok(store) = Store::open(damaged.path()) {
            let page = store.issues(&IssueQuery::default());
            for issue in page.map_or_else(|_| Vec::new(), |page| page.issues) {
                drop(store.tags(issue.id, 5));
                drop(store.issue_event(issue.id, backstop_tracker::model::Which::Latest));
            }
        }
    }
    let sum: u32 = missed.values().sum();
    println!("{sum} of {flips} flipped bits were not found: {missed:?}");
    // Most of a small file is room that nothing uses yet, where a bit means nothing.
    assert!(
        missed.get("event").is_none_or(|n| *n < flips / 4),
        "{missed:?}"
    );
}

#[test]
fn a_damaged_body_is_told_and_the_page_goes_on() {
    let server = Server::start();
    let project = server.project("shop");
    let id = "00112233445566778899aabbccddeeff";
    let event = json!({"event_id": id, "message": "disk full"});
    assert_eq!(server.send(&project, &event).status, 200);
    let connection = rusqlite::Connection::open(server.data.path().join("backstop.db")).unwrap();
    let changed = connection.execute("UPDATE event SET body = x'28b52ffd00'", []);
    assert_eq!(changed, Ok(1));
    let token = server.token();
    let list = server.api("/api/0/projects/acme/shop/issues/", &token);
    assert_eq!(list.json()[0]["count"], "1");
    let path = format!("/api/0/projects/acme/shop/events/{id}/");
    let answer = server.api(&path, &token);
    assert!(answer.status >= 400, "{}", answer.text());
    assert_eq!(
        server
            .send(&project, &json!({"message": "disk full"}))
            .status,
        200
    );
    let check = crate::server::backstop(&["check", "--mend"], server.data.path());
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains(id) && said.contains("damaged"), "{said}");
    let again = crate::server::backstop(&["check"], server.data.path());
    assert_eq!(again.status.code(), Some(0));
}

/// Asks until the server gives an answer with this status.
fn until_status(server: &Server, status: u16) {
    let asked = Instant::now();
    loop {
        let answer = server.get("/health", &[]);
        if answer.status == status {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "{}", answer.text());
        std::thread::yield_now();
    }
}

fn assert_refuses(server: &Server, project: &serde_json::Value) {
    let refused = server.send(project, &json!({"message": "hello"}));
    assert_eq!(refused.status, 503, "{}", refused.text());
    let seconds = refused.header("Retry-After").unwrap().parse::<u64>();
    assert!((1..=60).contains(&seconds.unwrap()));
}

#[test]
fn a_store_that_cannot_be_opened_refuses_and_is_served_once_it_can() {
    let server = Server::start();
    let project = server.project("shop");
    assert_eq!(
        server.send(&project, &json!({"message": "hello"})).status,
        200
    );
    let (_, data) = server.terminate();
    let file = data.path().join("backstop.db");
    let sound = fs::read(&file).unwrap();
    fs::write(&file, "no database ".repeat(1000)).unwrap();
    let server = Server::start_in(data, &[]);
    assert_refuses(&server, &project);
    assert_eq!(server.get("/health", &[]).status, 503);
    fs::write(&file, sound).unwrap();
    until_status(&server, 200);
    assert_eq!(
        server.send(&project, &json!({"message": "hello"})).status,
        200
    );
    let (code, data) = server.terminate();
    assert_eq!(code, Some(0));
    let report = Store::open(data.path()).unwrap().check(false).unwrap();
    assert_eq!((report.findings, report.events), (Vec::new(), 2));
}

#[test]
fn a_damaged_page_under_a_running_server_refuses_without_ending_it() {
    let server = Server::start();
    let project = server.project("shop");
    assert_eq!(
        server.send(&project, &json!({"message": "hello"})).status,
        200
    );
    let (_, data) = server.terminate();
    let path = data.path().join("backstop.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let root: u64 = connection
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'issue'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    drop(connection);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xa5; PAGE_BYTES], (root - 1) * PAGE_BYTES as u64)
        .unwrap();
    let server = Server::start_in(data, &[]);
    for _ in 0..3 {
        assert_refuses(&server, &project);
    }
    let (code, data) = server.terminate();
    assert_eq!(code, Some(0));
    let output = crate::server::backstop(&["check"], data.path());
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("restore a backup"), "{said}");
}

/// Runs the program as somebody who is not root; says why where that cannot be done.
fn as_nobody(arguments: &[&str], data: &Path) -> Option<Command> {
    const NOBODY: u32 = 65_534;
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.args(arguments).env("BACKSTOP_DATA", data);
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut probe = Command::new(env!("CARGO_BIN_EXE_backstop"));
    let reachable = probe
        .arg("--version")
        .uid(NOBODY)
        .stdout(Stdio::null())
        .status();
    match reachable {
        Ok(status) if status.success() => Some(command),
        other => {
            println!("skipped: the program cannot be run by another user ({other:?})");
            None
        }
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_refused_with_its_name() {
    let data = TempDir::new().unwrap();
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let Some(mut serve) = as_nobody(&["serve", "--listen", "127.0.0.1:0"], data.path()) else {
        return;
    };
    let output = serve.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&data.path().display().to_string()), "{said}");
    assert!(said.contains("ermission denied"), "{said}");
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_store_that_may_not_be_written_refuses_until_it_may() {
    let server = Server::start();
    let project = server.project("shop");
    let (_, data) = server.terminate();
    let mode = |mode| {
        fs::set_permissions(data.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o555);
    let Some(command) = as_nobody(&["serve", "--listen", "127.0.0.1:0"], data.path()) else {
        return;
    };
    let server = Server::start_command(command, TempDir::new().unwrap());
    assert_refuses(&server, &project);
    let Some(open_up) = open_to_all(data.path()) else {
        return;
    };
    open_up();
    until_status(&server, 200);
    assert_eq!(
        server.send(&project, &json!({"message": "hello"})).status,
        200
    );
}

fn open_to_all(directory: &Path) -> Option<impl FnOnce()> {
    let files: Vec<_> = fs::read_dir(directory)
        .ok()?
        .map(|file| file.unwrap().path())
        .collect();
    let directory = directory.to_owned();
    Some(move || {
        for file in files {
            fs::set_permissions(file, fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    })
}

/// A file system of a few megabytes; says why where none can be mounted.
struct Volume(TempDir);

impl Volume {
    fn mount(options: &str) -> Option<Volume> {
        let directory = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Volume(directory)),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                println!(
                    "skipped: no file system can be mounted here: {}",
                    said.trim()
                );
                None
            }
            Err(error) => {
                println!("skipped: no file system can be mounted here: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Left mounted it would outlive the test; lazily, because a server may still be ending.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_system_that_fills_up_refuses_and_goes_on_when_there_is_room() {
    let Some(volume) = Volume::mount("size=4m") else {
        return;
    };
    let data = TempDir::new_in(volume.path()).unwrap();
    let server = Server::start_in(data, &[]);
    let project = server.project("shop");
    let token = server.token();
    let ballast = volume.path().join("ballast");
    let mut random = Random::new(3);
    let mut answered = Vec::new();
    for time in 0..2 {
        fs::write(&ballast, vec![0; 1 << 20]).unwrap();
        let mut events = 0;
        let full = loop {
            let noise: String = (0..1500).map(|_| format!("{:x}", random.bits())).collect();
            let id = format!("{:032x}", random.bits());
            let event = json!({"event_id": id, "message": "disk", "extra": {"noise": noise}});
            let answer = server.send(&project, &event);
            if answer.status != 200 {
                break answer;
            }
            answered.push(id);
            events += 1;
            assert!(events < 2000, "4 MB take so many events");
        };
        assert_eq!(full.status, 503, "time {time}: {}", full.text());
        assert!(full.header("Retry-After").is_some());
        assert_eq!(server.get("/health", &[]).status, 503);
        let list = server.api("/api/0/projects/acme/shop/issues/", &token);
        assert_eq!(list.status, 200, "reading goes on");
        fs::remove_file(&ballast).unwrap();
        until_status(&server, 200);
    }
    let data = server.kill();
    let store = Store::open(data.path()).unwrap();
    assert_eq!(store.check(false).unwrap().findings, []);
    for id in &answered {
        let id = id.parse().unwrap();
        assert!(store.event_place(id).is_ok(), "event {id} is lost");
    }
    println!(
        "{} events were answered on a file system that was full twice",
        answered.len()
    );
}

/// Administrators make the directory before, open to all as directories are.
#[test]
fn nobody_else_can_read_the_store_or_its_backup() {
    let scratch = Scratch::new();
    let (data, target) = (scratch.path().join("data"), scratch.path().join("copy"));
    for directory in [&data, &target] {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fill(&data);
    let store = Store::open(&data).unwrap();
    store.backup(&target).unwrap();
    let mut seen = 0;
    for directory in [&data, &target] {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("backstop.db") {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "the file, its log, and the copy");
}
