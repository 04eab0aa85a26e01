//! A server that is killed under load: what was answered is stored, once, and every sum agrees.
//!
//! The long form is `cargo bench -p backstop-tracker --bench kill -- --rounds 200`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use backstop_faulty_vfs::Random;
use backstop_protocol::{EventId, Timestamp};
use backstop_tracker::store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Server;

const ROUNDS: u64 = 4;
const SENDERS: u64 = 4;
/// Different errors, so that mails are under way when the server is killed.
const ERRORS: u64 = 30;

/// What the senders know.
#[derive(Default)]
struct Sent {
    answered: Mutex<BTreeSet<EventId>>,
    unanswered: Mutex<BTreeSet<EventId>>,
}

#[test]
fn nothing_answered_is_lost_when_the_server_is_killed() {
    let mut random = Random::new(20_261_122);
    let server = Server::start();
    let project = server.project("shop");
    let sent = Arc::new(Sent::default());
    let mut data = server.kill();
    for round in 0..ROUNDS {
        let server = Server::start_in(data, &[]);
        let (tell, told) = channel();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (url, project, sent, tell) = (
                    server.url.clone(),
                    project.clone(),
                    Arc::clone(&sent),
                    tell.clone(),
                );
                let random = Random::new(round << 8 | sender);
                std::thread::spawn(move || send(&url, &project, random, &sent, &tell))
            })
            .collect();
        drop(tell);
        // The moment is a number of answers rather than a time.
        wait_for(&told, 1 + random.below(60));
        data = server.kill();
        for sender in senders {
            sender.join().expect("a sender does not panic");
        }
    }
    let data = send_mails(Server::start_in(data, &[]));
    verify(data.path(), &sent);
}

fn wait_for(told: &Receiver<()>, answers: u64) {
    for _ in 0..answers {
        told.recv().expect("the server answers until it is killed");
    }
}

/// Sends until the server is gone; now and then an event that was sent before.
fn send(url: &str, project: &Value, mut random: Random, sent: &Sent, tell: &Sender<()>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let url = format!("{url}/api/{}/store/", project["id"].as_str().unwrap());
    let auth = format!(
        "Sentry sentry_version=7, sentry_key={}",
        project["key"].as_str().unwrap()
    );
    loop {
        let again = sent.unanswered.lock().unwrap().first().copied();
        let id = match again.filter(|_| random.below(4) == 0) {
            Some(id) => id,
            None => {
                let high = u128::from(random.bits());
                EventId::from_bytes((high << 64 | u128::from(random.bits())).to_be_bytes())
            }
        };
        let error = random.below(ERRORS);
        let event = json!({
            "event_id": id,
            "exception": {"values": [{"type": format!("Error{}", letter(error)), "value": "broken", "stacktrace": {"frames": [
                {"module": "shop", "function": format!("view_{}", letter(error)), "in_app": true}
            ]}}]},
        });
        // Until it is answered nobody knows; also when the answer is lost on the way.
        sent.unanswered.lock().unwrap().insert(id);
        let answer = agent
            .post(&url)
            .header("X-Sentry-Auth", &auth)
            .send(event.to_string());
        let Ok(answer) = answer else { return };
        assert_eq!(answer.status(), 200);
        // The first line has arrived; what the body says is of no interest.
        sent.answered.lock().unwrap().insert(id);
        sent.unanswered.lock().unwrap().remove(&id);
        if tell.send(()).is_err() {
            return;
        }
    }
}

/// A name that grouping does not take for a number.
fn letter(number: u64) -> String {
    let letters = [number / 26, number % 26].map(|n| char::from(b'a' + n as u8));
    letters.iter().collect()
}

/// Lets the server run until no mail is due any more.
fn send_mails(server: Server) -> TempDir {
    let store = Store::open(server.data.path()).unwrap();
    let far = Timestamp::from_micros(i64::MAX);
    while !store.due_alerts(far, 1).unwrap().is_empty() {
        // Each question makes the server work a little, so that this ends soon.
        assert_eq!(server.get("/health", &[]).status, 200);
    }
    drop(store);
    server.kill()
}

fn verify(data: &Path, sent: &Sent) {
    let store = Store::open(data).unwrap();
    let report = store.check(false).unwrap();
    assert_eq!(report.findings, []);
    let (answered, unanswered) = (
        sent.answered.lock().unwrap(),
        sent.unanswered.lock().unwrap(),
    );
    for id in answered.iter() {
        assert!(store.event_place(*id).is_ok(), "event {id} is lost");
    }
    let least = answered.len() as u64;
    let most = least + unanswered.len() as u64;
    assert!(
        (least..=most).contains(&report.events),
        "{} events are counted, {least} to {most} can be",
        report.events
    );
    let mut subjects: BTreeMap<String, u64> = BTreeMap::new();
    for file in std::fs::read_dir(data.join("mail")).unwrap() {
        let path = file.unwrap().path();
        // A kill may leave a hidden file that was being written; it is no mail yet.
        if path.extension() != Some("eml".as_ref()) {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        for issue in text.lines().filter_map(|line| line.split_once("/issues/")) {
            *subjects.entry(issue.1.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(
        subjects.len() as u64,
        report.issues,
        "every new issue is told"
    );
    assert!(
        subjects.values().all(|mails| *mails == 1),
        "an issue is told twice: {subjects:?}"
    );
}
