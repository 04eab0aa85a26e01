//! The real program on a real socket, for tests that act as its users do.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A server of its own directory; it is killed when the test ends.
pub(crate) struct Server {
    child: Child,
    log: Option<std::thread::JoinHandle<String>>,
    pub(crate) url: String,
    pub(crate) data: TempDir,
}

/// What an HTTP call gave.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Runs the program with arguments and returns what it printed.
pub(crate) fn backstop(arguments: &[&str], data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(arguments)
        .env("BACKSTOP_DATA", data)
        .output()
        .expect("the program can be started")
}

/// Runs the program, which must succeed, and returns its output without the last line break.
pub(crate) fn says(arguments: &[&str], data: &Path) -> String {
    let output = backstop(arguments, data);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim_end()
        .to_owned()
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_with(&[])
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Server {
        Server::start_in(TempDir::new().expect("a temporary directory"), arguments)
    }

    pub(crate) fn start_in(data: TempDir, arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("BACKSTOP_DATA", data.path());
        Server::start_command(command, data)
    }

    pub(crate) fn start_command(mut command: Command, data: TempDir) -> Server {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout is piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("the program prints");
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            let mut error = String::new();
            let mut log = child.stderr.take().expect("stderr is piped");
            let _ = log.read_to_string(&mut error);
            panic!("the server did not start: {error}");
        };
        // The log must be emptied, or the server would wait for its reader.
        let mut log = child.stderr.take().expect("stderr is piped");
        let log = std::thread::spawn(move || {
            let mut lines = Vec::new();
            log.read_to_end(&mut lines).expect("the log can be read");
            String::from_utf8_lossy(&lines).into_owned()
        });
        Server {
            url: url.to_owned(),
            child,
            log: Some(log),
            data,
        }
    }

    /// Ends the server and returns what it has logged.
    pub(crate) fn log_at_end(mut self) -> String {
        let log = self.log.take().expect("the log is read once");
        self.terminate();
        log.join().expect("the log was read")
    }

    /// The most memory that the server had so far, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("Linux tells of a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("a number")
            * 1024
    }

    /// Makes a project and returns what `--json` says of it.
    pub(crate) fn project(&self, name: &str) -> Value {
        let text = says(
            &["project", "create", name, "--org", "acme", "--json"],
            self.data.path(),
        );
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) fn token(&self) -> String {
        says(&["token", "create"], self.data.path())
    }

    /// Asks for a path, with headers.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = agent().get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call().expect("an answer"))
    }

    /// Asks the web API with a token.
    pub(crate) fn api(&self, path: &str, token: &str) -> Answer {
        self.get(path, &[("Authorization", &format!("Bearer {token}"))])
    }

    /// Sends JSON to a path of the web API with a token.
    pub(crate) fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        let request = agent()
            .put(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json");
        answer(request.send(body.to_string()).expect("an answer"))
    }

    /// Sends a body to a path, with headers.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = agent().post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body).expect("an answer"))
    }

    /// Sends an event by the store endpoint and returns the answer.
    pub(crate) fn send(&self, project: &Value, event: &Value) -> Answer {
        let (id, key) = (
            project["id"].as_str().expect("an id"),
            project["key"].as_str().expect("a key"),
        );
        let auth = format!("Sentry sentry_version=7, sentry_key={key}, sentry_client=test/1");
        let body = serde_json::to_vec(event).expect("JSON");
        self.post(
            &format!("/api/{id}/store/"),
            &[("X-Sentry-Auth", &auth)],
            &body,
        )
    }

    /// Asks the server to end, as a process manager does, and returns its exit code and directory.
    pub(crate) fn terminate(mut self) -> (Option<i32>, TempDir) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(killed.success());
        let status = self.child.wait().expect("the server ends");
        let data = std::mem::replace(&mut self.data, TempDir::new().expect("a directory"));
        (status.code(), data)
    }
}

impl Server {
    /// Kills the server, as a crash does, and returns its directory.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("the server ends");
        std::mem::replace(&mut self.data, TempDir::new().expect("a directory"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either may fail because the server has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into()
}

fn answer(response: http::Response<ureq::Body>) -> Answer {
    let (parts, mut body) = response.into_parts();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.read_to_vec().expect("a body"),
    }
}
