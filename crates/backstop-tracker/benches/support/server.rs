//! A server as a process of its own, and what it costs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program that was built with this bench.
const BACKSTOP: &str = env!("CARGO_BIN_EXE_backstop");

/// A process that answers on an address; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    /// Starts `backstop serve` on a free port.
    pub(crate) fn backstop(data: &Path) -> Server {
        Server::backstop_by(Path::new(BACKSTOP), data)
    }

    /// Starts `backstop serve` of any build.
    pub(crate) fn backstop_by(program: &Path, data: &Path) -> Server {
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("RUST_LOG", "warn");
        Server::start(command)
    }

    /// Starts a program that prints `listening on http://ADDRESS`.
    pub(crate) fn start(mut command: Command) -> Server {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        let address = line
            .split_once("http://")
            .unwrap_or_else(|| panic!("the server says {line:?} instead of its address"))
            .1
            .to_owned();
        Server { child, address }
    }

    /// Returns the processor time used so far, in microseconds.
    pub(crate) fn cpu_micros(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat
            .rsplit_once(") ")
            .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        let ticks = |field: usize| {
            fields
                .get(field)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        // Linux counts these in hundredths of a second on every platform.
        (ticks(11) + ticks(12)) * 10_000_u64
    }

    /// Returns the proportional set size in bytes.
    pub(crate) fn pss_bytes(&self) -> u64 {
        let rollup = self.proc("smaps_rollup");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the project that the events are sent to.
pub(crate) fn create_project(data: &Path) {
    create_project_by(Path::new(BACKSTOP), data);
}

/// The same by any build, because each reads its own stores.
pub(crate) fn create_project_by(program: &Path, data: &Path) {
    use super::event::{KEY, PROJECT};
    let done = Command::new(program)
        .args([
            "project",
            "create",
            "shop",
            "--id",
            &PROJECT.to_string(),
            "--key",
            KEY,
            "--data",
        ])
        .arg(data)
        .stdout(Stdio::null())
        .status()
        .expect("the program can be started");
    assert!(done.success(), "the project was not made");
}

/// A new directory below `BACKSTOP_BENCH_DIR`, or the system's temporary directory.
pub(crate) fn directory(name: &str) -> PathBuf {
    let parent =
        std::env::var_os("BACKSTOP_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = parent.join(format!("backstop-{name}-{}", std::process::id()));
    // A run before may have been interrupted under the same number.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the directory can be made");
    path
}

/// Returns the bytes of all files in a directory.
pub(crate) fn size_of(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files
        // Room that is kept back and given up when it is needed.
        .filter(|file| file.file_name() != "backstop.reserve")
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
