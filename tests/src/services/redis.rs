//! A Redis or Valkey server of a test's own. It keeps nothing on disk: what it held is gone with a
//! stop, as in an outage.

use std::ops::Deref;
use std::process::Command;

use super::{Guard, on_path};

/// `$1` is the server's program. It says that it is ready after it has its port, so nobody else's
/// server is taken for it.
const FUNCTIONS: &str = r#"
program=$1
server=
prepare() { :; }
start() {
    [ -z "$server" ] || return 1
    # Emptied here and not by the child: what the last start said must not be read for this one.
    : >server.log
    "$program" --bind 127.0.0.1 --port "$1" --save "" --appendonly no --dir "$folder" \
        --daemonize no >>server.log 2>&1 &
    server=$!
    tries=600
    until grep -q 'Ready to accept connections' server.log; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$server"; then stop immediate; return 1; fi
        sleep 0.05
    done
}
stop() {
    [ -n "$server" ] || return 0
    case "$1" in fast) kill -TERM "$server" ;; *) kill -KILL "$server" ;; esac
    wait "$server"
    server=
}
"#;

/// A running server. Dropping it stops it.
pub struct Redis {
    guard: Guard,
}

impl Deref for Redis {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.guard
    }
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// Neither is installed, or it does not start; the message holds what it said.
    #[must_use]
    pub fn start() -> Self {
        let program = on_path(&["valkey-server", "redis-server"])
            .expect("Redis and Valkey are missing; run: tests/tools.sh services");
        Self { guard: Guard::start(Command::new("sh"), FUNCTIONS, &[&program]) }
    }

    /// `redis://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.guard.port)
    }
}
