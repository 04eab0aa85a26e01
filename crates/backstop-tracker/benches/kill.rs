//! Kills a server under load, again and again, and counts what is left.
//!
//! `cargo bench -p backstop-tracker --bench kill -- --rounds 200` is the long form.
//! Every event that was answered with 200 must be stored, once; every sum must agree; no mail
//! may be written twice, and no issue be told of twice. Exits with 1 and says what is wrong
//! otherwise.
//!
//! `--fill` also fills the file system and frees it again all the time; give it a small one of its
//! own with `BACKSTOP_BENCH_DIR`.

mod support;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstop_tracker::store::Store;

use support::event::{self, Body};
use support::server::{Server, create_project, directory};

const ROUNDS_DEFAULT: usize = 5;
const CONNECTIONS: u64 = 16;
/// The server lives so long under load, at random between these.
const LIFE_MS: std::ops::Range<u64> = 30..700;

/// What the senders know.
#[derive(Default)]
struct Sent {
    acked: Mutex<Vec<String>>,
    unanswered: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments
        .iter()
        .position(|argument| argument == "--rounds")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(ROUNDS_DEFAULT);
    let data = directory("kill");
    create_project(&data);
    let filling = arguments.iter().any(|argument| argument == "--fill");
    let filler = filling.then(|| Filler::start(data.with_extension("ballast")));
    let bodies = Arc::new(event::bodies(6_000, 40, 3));
    let sent = Arc::new(Sent::default());
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64);
    let mut random = Random(seed);
    println!("seed {seed}, data in {}", data.display());
    for round in 0..rounds {
        let mut server = Server::backstop(&data);
        let ended = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let (bodies, sent, ended) =
                    (Arc::clone(&bodies), Arc::clone(&sent), Arc::clone(&ended));
                let address = server.address.clone();
                let run = seed ^ (round as u64) << 20 ^ connection << 8;
                std::thread::spawn(move || send(&address, run, &bodies, &sent, &ended))
            })
            .collect();
        let life = LIFE_MS.start + random.next() % (LIFE_MS.end - LIFE_MS.start);
        std::thread::sleep(Duration::from_millis(life));
        server.kill();
        ended.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().expect("a sender does not panic");
        }
        if (round + 1) % 20 == 0 {
            println!(
                "{} kills, {} answered",
                round + 1,
                sent.acked.lock().unwrap().len()
            );
        }
    }
    if let Some(filler) = filler {
        println!("the file system was full {} times", filler.stop());
    }
    // A last life without a kill lets the mails that were due go out.
    let mut server = Server::backstop(&data);
    std::thread::sleep(Duration::from_secs(3));
    server.kill();
    let wrong = verify(&data, &sent);
    if wrong.is_empty() {
        println!("nothing was lost in {rounds} kills");
        // The directory is of use only if something is wrong.
        let _ = std::fs::remove_dir_all(&data);
    } else {
        wrong.iter().for_each(|what| println!("WRONG: {what}"));
        std::process::exit(1);
    }
}

/// Sends until the server is gone; half of the first events are ones that got no answer before.
fn send(address: &str, run: u64, bodies: &[Body], sent: &Sent, ended: &AtomicBool) {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return;
    };
    let mut answers = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let mut request = Vec::new();
    for number in 0.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let again = if number % 4 == 1 {
            sent.unanswered.lock().unwrap().pop()
        } else {
            None
        };
        let id = again.unwrap_or_else(|| event::id(run, number));
        let body = &bodies[(run as usize).wrapping_add(number as usize * 7) % bodies.len()];
        body.request(&id, &mut request);
        let status = match stream.write_all(&request) {
            Ok(()) => status(&mut answers),
            Err(_) => None,
        };
        match status {
            Some(200) => sent.acked.lock().unwrap().push(id),
            // It may be stored nevertheless, from an earlier time that got no answer.
            Some(_) => sent.refused.lock().unwrap().push(id),
            None => return sent.unanswered.lock().unwrap().push(id),
        }
    }
}

/// Reads an answer whole; `None` if it was cut off.
fn status(answers: &mut BufReader<TcpStream>) -> Option<u16> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if status.is_none() {
            status = line.split(' ').nth(1)?.parse().ok();
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body).ok()?;
    status
}

/// Fills the file system to the last byte and frees it, again and again.
struct Filler {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Filler {
    const FULL_FOR: Duration = Duration::from_millis(150);
    const FREE_FOR: Duration = Duration::from_millis(400);

    fn start(ballast: PathBuf) -> Filler {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let block = vec![0; 1 << 16];
            let mut times = 0;
            while !until.load(Ordering::Relaxed) {
                let mut file = File::create(&ballast).expect("a name needs no room");
                // Half a block less room each time, down to nothing.
                let mut len = block.len();
                while len > 0 {
                    if file.write_all(&block[..len]).is_err() {
                        len /= 2;
                    }
                }
                times += 1;
                std::thread::sleep(Filler::FULL_FOR);
                std::fs::remove_file(&ballast).expect("the file was made above");
                drop(file);
                std::thread::sleep(Filler::FREE_FOR);
            }
            times
        });
        Filler { ended, thread }
    }

    fn stop(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the filler does not panic")
    }
}

fn verify(data: &Path, sent: &Sent) -> Vec<String> {
    let mut wrong = Vec::new();
    let store = Store::open(data).expect("the store opens after the last kill");
    let report = store.check(false).expect("the store can be read");
    wrong.extend(report.findings.iter().map(ToString::to_string));
    let acked = sent.acked.lock().unwrap();
    let unique: HashSet<&String> = acked.iter().collect();
    let lost = unique
        .iter()
        .filter(|id| store.event_place(id.parse().expect("an id")).is_err())
        .count();
    if lost > 0 {
        wrong.push(format!("{lost} events that were answered are lost"));
    }
    let unanswered = sent.unanswered.lock().unwrap();
    let refused = sent.refused.lock().unwrap();
    let sent: HashSet<&String> = acked.iter().chain(&*unanswered).chain(&*refused).collect();
    let is_stored = |id: &&&String| store.event_place(id.parse().expect("an id")).is_ok();
    let stored = sent.iter().filter(is_stored).count() as u64;
    if report.events != stored {
        wrong.push(format!(
            "{} events are counted, and {stored} of those that were sent are stored",
            report.events
        ));
    }
    println!(
        "{} answered, {} without an answer, {} refused; {} stored in {} issues; {} lost",
        unique.len(),
        unanswered.len(),
        refused.len(),
        report.events,
        report.issues,
        lost
    );
    let (mails, twice) = mails(&data.join("mail"));
    println!("{mails} mails");
    wrong.extend(twice);
    wrong
}

/// Counts the mails; says which came twice, and which issue came in two.
fn mails(directory: &Path) -> (usize, Vec<String>) {
    let mut told: HashMap<String, usize> = HashMap::new();
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut count = 0;
    // A kill may leave a hidden file that was being written; it is no mail yet.
    let is_mail = |file: &std::fs::DirEntry| file.path().extension() == Some("eml".as_ref());
    for file in files.filter(is_mail) {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let header = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::to_owned)
        };
        if let Some(id) = header("Message-ID: ") {
            count += 1;
            *told.entry(id).or_default() += 1;
        }
        // Every alert of this load is about a new issue, so none may be in two mails.
        for (_, issue) in text.lines().filter_map(|line| line.split_once("/issues/")) {
            *told.entry(format!("about issue {issue}")).or_default() += 1;
        }
    }
    let twice = told
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(id, count)| format!("the mail {id} was written {count} times"))
        .collect();
    (count, twice)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
