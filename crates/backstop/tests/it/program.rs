//! Whole programs for the tests of the development server: this test binary, run once more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use backstop::extract::Json;
use backstop::mail::{Admins, Mailer};
use backstop::{App, Caught, HttpError, Result};

/// Says which program this process is to be.
const VARIABLE: &str = "BACKSTOP_TEST_PROGRAM";

/// Long enough for the slowest machine; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The programs. Without the variable this is a test like any other and checks that it is unset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program() {
    let Ok(name) = std::env::var(VARIABLE) else {
        return assert!(std::env::var_os("BACKSTOP_RELOADER").is_none());
    };
    let run = app().run("127.0.0.1:0");
    let ended = match name.as_str() {
        "mails" => {
            let mailer = Mailer::directory("mails");
            let admins = Admins::new(mailer, "shop@example.com", ["ada@example.com"]);
            app().init(&admins).run("127.0.0.1:0").await
        }
        "mails-to-nobody" => {
            let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = nobody.local_addr().unwrap().port();
            drop(nobody);
            let mailer = Mailer::smtp(&format!("smtp://127.0.0.1:{port}")).unwrap();
            let admins = Admins::new(mailer, "shop@example.com", ["ada@example.com"]);
            backstop::log::init(backstop::log::Form::Text);
            app().init(&admins).run("127.0.0.1:0").await
        }
        "debug" => run.debug(true).use_reloader(false).await,
        "plain" => run.await,
        "logs" => {
            backstop::log::init(backstop::log::Form::Text);
            run.await
        }
        "reports" => {
            backstop::log::init(backstop::log::Form::Text);
            let dsn = "http://0123456789abcdef0123456789abcdef@127.0.0.1:1/1";
            let _guard = backstop::report::init(dsn).expect("a DSN");
            run.await
        }
        "external" => {
            run.debug(true)
                .use_debugger(false)
                .use_reloader(false)
                .await
        }
        "public" => app().run("0.0.0.0:0").debug(true).use_reloader(false).await,
        "reload" => {
            let is_last_good = std::env::current_exe()
                .is_ok_and(|path| path.to_string_lossy().contains("last-good"));
            if Path::new("ends-at-once").exists() && !is_last_good {
                std::process::exit(5);
            }
            run.debug(true)
                .extra_files(["settings.txt"])
                .exclude_patterns(["*.ignored.rs"])
                .build_command(["sh", "build.sh"])
                .await
        }
        other => panic!("no program {other}"),
    };
    if let Err(error) = ended {
        eprintln!("{error}");
        std::process::exit(3);
    }
}

/// A drawer with something to see in it.
#[derive(Debug)]
struct Drawer {
    label: &'static str,
    coins: Vec<u8>,
}

#[inline(never)]
fn count(drawer: &Drawer) -> Result<usize> {
    let coins: usize = drawer.label.parse()?;
    Ok(coins + drawer.coins.len())
}

async fn broken() -> Result<String> {
    let drawer = Drawer {
        label: "<script>",
        coins: vec![1, 2, 5],
    };
    Ok(count(&drawer)?.to_string())
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(300)).await;
    "at last"
}

async fn panics() {
    panic!("in the view");
}

async fn panics_and_exits() {
    struct Exit;
    impl Drop for Exit {
        fn drop(&mut self) {
            std::process::exit(4);
        }
    }
    let _exit = Exit;
    panic!("on the way out");
}

async fn panics_and_catches() -> &'static str {
    match std::panic::catch_unwind(|| panic!("in a library")) {
        Err(_) => "went on",
        Ok(()) => "went well",
    }
}

async fn panics_in_a_task() -> String {
    let task = tokio::spawn(async { panic!("in a task") });
    task.await.is_err().to_string()
}

async fn full(error: Caught<HttpError>) -> (http::StatusCode, &'static str) {
    (error.status(), "handled")
}

fn app() -> App {
    let routes = Router::new()
        .route("/", get(|| async { std::process::id().to_string() }))
        .route("/broken", get(broken))
        .route("/slow", get(slow))
        .route(
            "/upload",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route(
            "/json",
            post(|json: Json<u8>| async move { json.0.to_string() }),
        )
        .route("/panics", get(panics))
        .route("/panics/exit", get(panics_and_exits))
        .route("/panics/caught", get(panics_and_catches))
        .route("/panics/task", get(panics_in_a_task))
        .route("/handled", get(|| async { backstop::abort::<()>(507) }));
    App::new(routes).error_handler(507, full)
}

/// A program that runs, with what it prints.
pub(crate) struct Program {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
}

/// A program as a command, in a folder of its own.
pub(crate) fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "program::program", "--nocapture"])
        .env(VARIABLE, name)
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("BACKSTOP_DEBUG")
        .env_remove("FLASK_DEBUG")
        .env_remove("RUST_BACKTRACE")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

impl Program {
    /// Starts a program and waits until it listens.
    pub(crate) fn start(command: &mut Command) -> Program {
        let mut process = command.spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut program = Program {
            process,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            lines,
            said: Vec::new(),
        };
        let line = program.wait_for(" * Running on http://");
        let rest = line.split_once("http://").unwrap().1;
        program.address = rest.split(' ').next().unwrap().parse().unwrap();
        program
    }

    /// Waits until the program prints a line that begins like this.
    pub(crate) fn wait_for(&mut self, start: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("the program never said {start:?}, but {:#?}", self.said);
            };
            self.said.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// Everything that it still prints, after it has ended.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// The PIN that it prints.
    pub(crate) fn pin(&mut self) -> String {
        self.wait_for(" * Debugger PIN: ")
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub(crate) fn ask(&self, path: &str, headers: &[&str]) -> Answer {
        self.send(&request("GET", path, headers, ""))
    }

    pub(crate) fn post(&self, path: &str, headers: &[&str], form: &str) -> Answer {
        self.send(&request("POST", path, headers, form))
    }

    /// Sends bytes and reads everything that comes back.
    pub(crate) fn send(&self, bytes: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        Answer::read(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let port = self.address.port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Asked, not killed: a supervisor cleans up after itself.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal("TERM");
            let _reaped = self.process.wait();
        }
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    let has_host = headers.iter().any(|header| header.starts_with("Host:"));
    if !has_host {
        request.push_str("Host: localhost\r\n");
    }
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request + "\r\n" + body
}

/// A response, as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        // A connection that is reset after the answer has still answered.
        let _end = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Answer {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .unwrap_or(0),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }
}

/// A folder that is removed when the test ends.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("backstop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}
