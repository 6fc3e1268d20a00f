//! A PostgreSQL server of a test's own. It writes as durably as in production (`fsync`), since
//! tests stop it in the middle and look at what is left.

use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Guard, on_path};

/// `$1` is the folder of PostgreSQL's programs. The socket's folder is private; on 127.0.0.1
/// anybody of this machine may come in, as into any test server.
const FUNCTIONS: &str = r#"
bin=$1
prepare() {
    timeout 120 "$bin/initdb" -D "$folder/data" -U hearth -A trust -E UTF8 --locale=C -N &&
    cat >>data/postgresql.conf <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = '$folder'
max_connections = 200
shared_buffers = 16MB
max_wal_size = 128MB
min_wal_size = 32MB
fsync = on
timezone = 'UTC'
END
}
start() {
    "$bin/pg_ctl" -D "$folder/data" -l server.log -w -t 60 -o "-p $1" start
}
stop() {
    # It stops only what runs: stopped already is what was asked for.
    "$bin/pg_ctl" -D "$folder/data" status || return 0
    "$bin/pg_ctl" -D "$folder/data" -w -t 60 -m "$1" stop
}
"#;

/// A running server. Dropping it stops it and removes its files.
pub struct Postgres {
    guard: Guard,
    programs: PathBuf,
    databases: AtomicU32,
}

/// One server for all tests of this process, each with a database of its own
/// ([`Postgres::fresh`]). It ends with the process.
///
/// # Panics
/// As [`Postgres::start`].
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

impl Deref for Postgres {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.guard
    }
}

impl Postgres {
    /// Makes a server in a temporary folder and waits until it answers: about two seconds.
    ///
    /// # Panics
    /// PostgreSQL is missing, or does not start; the message holds what it said.
    #[must_use]
    pub fn start() -> Self {
        let programs = programs().expect("PostgreSQL is missing; run: tests/tools.sh services");
        let guard = Guard::start(shell(), FUNCTIONS, &[&programs]);
        Self { guard, programs, databases: AtomicU32::new(0) }
    }

    /// `postgres://hearth@127.0.0.1:PORT/DATABASE`; hearth may do everything, without a password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://hearth@127.0.0.1:{}/{database}", self.guard.port)
    }

    /// Makes an empty database.
    ///
    /// # Panics
    /// There is one of this name, or the server does not run.
    pub fn create(&self, database: &str) {
        self.query("postgres", &format!("CREATE DATABASE \"{database}\""));
    }

    /// Makes an empty database that no other test uses; returns its URL.
    ///
    /// # Panics
    /// The server does not run.
    #[must_use]
    pub fn fresh(&self) -> String {
        let database = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.create(&database);
        self.url(&database)
    }

    /// What `psql` prints for a query: a row a line, `|` between columns.
    ///
    /// # Panics
    /// It fails; the message holds what it said.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let out = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["-v", "ON_ERROR_STOP=1", "-c", sql, &self.url(database)])
            .output()
            .expect("psql runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "psql: {sql}: {said}");
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }
}

/// The folder of PostgreSQL's programs: on `$PATH`, or where Debian puts the newest. A folder that
/// holds only some of them, or links to them, is none.
fn programs() -> Option<PathBuf> {
    let linked = on_path(&["initdb"]).and_then(|initdb| initdb.canonicalize().ok());
    let first = linked.as_deref().and_then(Path::parent).map(Path::to_owned);
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut debian: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    debian.sort();
    let all = first.into_iter().chain(debian.into_iter().rev().map(|(_, bin)| bin));
    let whole = |bin: &PathBuf| ["initdb", "pg_ctl", "psql"].iter().all(|p| bin.join(p).is_file());
    all.into_iter().find(whole)
}

/// The shell for the server: PostgreSQL refuses to run as root, so root lends it Debian's user.
fn shell() -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root {
        return Command::new("sh");
    }
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
    // What root's own folder holds is neither readable nor meant for it.
    shell.env("HOME", "/").current_dir("/");
    shell
}
