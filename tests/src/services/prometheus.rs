//! A Prometheus of a test's own, by a configuration of the test's.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Guard, on_path};
use crate::http::request;

/// `$1` is the program, `$2` its configuration. It says that it is ready when it has its port.
const FUNCTIONS: &str = r#"
program=$1
config=$2
server=
prepare() { :; }
start() {
    [ -z "$server" ] || return 1
    : >server.log
    "$program" --config.file "$config" --storage.tsdb.path "$folder/data" \
        --web.listen-address "127.0.0.1:$1" >>server.log 2>&1 &
    server=$!
    tries=600
    until grep -q 'Server is ready to receive web requests' server.log; do
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
pub struct Prometheus {
    guard: Guard,
}

impl Deref for Prometheus {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.guard
    }
}

impl Prometheus {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// It is not installed, or does not start; the message holds what it said.
    #[must_use]
    pub fn start(config: &Path) -> Self {
        let program =
            on_path(&["prometheus"]).expect("Prometheus is missing; run: tests/tools.sh services");
        Self { guard: Guard::start(Command::new("sh"), FUNCTIONS, &[&program, config]) }
    }

    /// What a query finds now.
    ///
    /// # Panics
    /// The query makes no sense.
    #[must_use]
    pub fn query(&self, query: &str) -> Vec<Value> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let encoded: String = query
            .bytes()
            .map(|byte| match plain(byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02x}"),
            })
            .collect();
        let found = self.ask(&format!("query?query={encoded}"));
        found["result"].as_array().unwrap_or_else(|| panic!("{query}: {found}")).clone()
    }

    /// The data behind a path of its interface.
    ///
    /// # Panics
    /// It does not answer well.
    #[must_use]
    pub fn ask(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:{}", self.guard.port);
        let got = request(&url, "GET", &format!("/api/v1/{path}"), "").expect("an answer");
        assert_eq!(got.status, 200, "{path}: {}", got.body);
        let mut said: Value = serde_json::from_str(&got.body).expect("JSON");
        said["data"].take()
    }
}
