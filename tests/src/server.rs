//! A `hearth serve` process that ends with its handle.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The `hearth` binary of this build, built when a single test is run without it.
///
/// # Panics
/// It cannot be built.
pub fn hearth() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let out = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "-p", "gateway", "--bin", "hearth"])
            .current_dir(root())
            .status()
            .expect("cargo runs");
        assert!(out.success(), "the binary builds");
        // This test lies in TARGET/debug/deps.
        let exe = std::env::current_exe().expect("own path");
        let folder = exe.parent().and_then(Path::parent).expect("target folder");
        folder.join("hearth")
    })
}

/// A running server. Dropping it kills the process.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`, or with `https`.
    pub url: String,
    /// What it printed until it listened.
    pub banner: Vec<String>,
}

impl Server {
    /// Starts `hearth serve --listen 127.0.0.1:0 ARGS` and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready; the message holds what it printed.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        Self::start_binary(hearth(), args)
    }

    /// As [`Server::start`], with another build of the binary.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_binary(binary: &Path, args: &[&str]) -> Self {
        Self::start_command(binary, &[&["serve", "--listen", "127.0.0.1:0"], args].concat())
    }

    /// Starts a command of the binary that serves until it is ended, and waits until it is ready.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_command(binary: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(binary)
            .args(args)
            .env_remove("HEARTH_API_KEY")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hearth starts");
        let (send, lines) = mpsc::channel();
        forward(child.stdout.take().expect("stdout"), send.clone());
        forward(child.stderr.take().expect("stderr"), send);
        let mut banner = Vec::new();
        let mut url = String::new();
        loop {
            let Ok(line) = lines.recv_timeout(START) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("hearth did not become ready:\n{}", banner.join("\n"));
            };
            // Lines of the log name other addresses.
            let address = line.split(' ').find(|word| word.contains("://127.0.0.1:"));
            if let Some(found) = address.filter(|_| url.is_empty() && line.starts_with("listen")) {
                url = found.trim_end_matches('/').to_owned();
            }
            let ready = line.starts_with("ready");
            banner.push(line);
            if ready && !url.is_empty() {
                return Self { child, url, banner };
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal: `STOP`, `CONT`, `KILL`.
    ///
    /// # Panics
    /// It is gone.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "SIG{name}");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// The process cannot be waited for.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("process ends").code()
    }
}

fn forward(from: impl std::io::Read + Send + 'static, to: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            // The receiver goes away once the server is ready; the pipe must still be drained.
            let _ = to.send(line);
        }
    });
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
