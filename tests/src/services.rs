//! Real services that tests run: a PostgreSQL, a Redis (or Valkey) and a Prometheus of their own,
//! on loopback and a free port, in a temporary folder that goes when they go.
//!
//! A shell stands between the test and each service. It takes orders through a pipe; the pipe's
//! end, by a drop, a panic or SIGKILL of the test, is the order to stop the service and to remove
//! its folder.

pub mod postgres;
pub mod prometheus;
pub mod redis;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

pub use postgres::Postgres;
pub use prometheus::Prometheus;
pub use redis::Redis;

/// How a service ends in a test of outages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// In order: PostgreSQL rolls back what runs and writes everything down.
    Fast,
    /// As in a crash: PostgreSQL recovers from its log at the next start.
    Immediate,
}

/// The folder, then one answer per order. Each service defines `start PORT` and `stop HOW`; an
/// order's words go to its log, and it holds neither of the two pipes.
const LOOP: &str = r#"
folder=$(mktemp -d "${TMPDIR:-/tmp}/hearth-test-XXXXXX") && cd "$folder" || exit 1
echo "$folder"
while read -r order; do
    if $order </dev/null >>orders.log 2>&1; then echo done; else echo failed; fi
done
stop immediate </dev/null >>orders.log 2>&1
cd / && rm -rf "$folder"
"#;

/// A running service, and the shell that guards it: what all services have in common. Dropping it
/// stops the service and removes its files.
pub struct Guard {
    shell: Child,
    pipes: Mutex<Pipes>,
    folder: PathBuf,
    port: u16,
}

/// Gone once the shell was told to end.
struct Pipes {
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// Runs the loop with a service's functions, and starts the service on a free port. `shell` is
    /// `sh`, or what runs it as another user; `programs` are the script's arguments.
    fn start(mut shell: Command, functions: &str, programs: &[&Path]) -> Self {
        let mut shell = shell
            .args(["-c", &format!("{functions}{LOOP}"), "sh"])
            .args(programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal ends the test, whose end is the order; it must not come first.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|why| panic!("{} does not run: {why}", shell.get_program().display()));
        let orders = shell.stdin.take();
        let mut answers = BufReader::new(shell.stdout.take().expect("its pipe"));
        let mut folder = String::new();
        answers.read_line(&mut folder).expect("the shell answers");
        assert!(!folder.is_empty(), "no temporary folder: see above");
        let folder = PathBuf::from(folder.trim_end_matches('\n'));
        let mut guard =
            Self { shell, pipes: Mutex::new(Pipes { orders, answers }), folder, port: 0 };
        guard.order("prepare").unwrap_or_else(|why| panic!("{why}"));
        // Somebody else may take the port between the look and the start.
        let mut tried = String::new();
        for _ in 0..5 {
            guard.port = free_port();
            match guard.try_start() {
                Ok(()) => return guard,
                Err(why) => tried = why,
            }
        }
        panic!("{tried}");
    }

    fn try_start(&self) -> Result<(), String> {
        self.order(&format!("start {}", self.port))
    }

    /// Starts it after a stop, on the same port.
    ///
    /// # Panics
    /// It runs, or does not start.
    pub fn start_again(&self) {
        self.try_start().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Stops it, and keeps its files. Does nothing when it is stopped.
    ///
    /// # Panics
    /// It does not stop within a minute.
    pub fn stop(&self, how: Stop) {
        let how = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.order(&format!("stop {how}")).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Its temporary folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn order(&self, order: &str) -> Result<(), String> {
        let mut answer = String::new();
        {
            let mut pipes = self.pipes.lock().expect("no order panicked");
            let orders = pipes.orders.as_mut().expect("until the drop");
            writeln!(orders, "{order}").expect("the shell reads");
            pipes.answers.read_line(&mut answer).expect("the shell answers");
        }
        if answer == "done\n" {
            return Ok(());
        }
        let log = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        Err(format!("`{order}` failed:\n{}{}", log("orders.log"), log("server.log")))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(pipes) = self.pipes.get_mut() {
            pipes.orders = None;
        }
        let _ = self.shell.wait();
    }
}

/// A port on which nothing listens. It lies below those that the system gives to clients: one that
/// tries again and again to reach a stopped service would sooner or later be given its port.
fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id().wrapping_mul(61) % u32::from(COUNT)).unwrap_or(0);
    (0..COUNT)
        .map(|_| {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            FIRST + (own + step) % COUNT
        })
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

/// The first of these programs on `$PATH`.
fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    all.flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|file| file.is_file())
}
