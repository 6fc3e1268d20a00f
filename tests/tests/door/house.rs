//! A governed server in a folder of its own, and the way to ask it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hearth_tests::http::Answer;
use hearth_tests::server::Server;
use serde_json::{Value, json};

pub(super) const JSON: (&str, &str) = ("content-type", "application/json");

/// One exchange. Not by `hearth_tests::http`, which writes all of a header in small letters: a
/// cookie would not survive that.
pub(super) fn exchange(url: &str, headers: &[(&str, &str)], line: &str, body: &str) -> Answer {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\
         content-length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let name_small = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        format!("{}:{value}", name.to_ascii_lowercase())
    };
    Answer {
        status: status.parse().expect("a number"),
        headers: lines.map(name_small).collect(),
        body: body.to_owned(),
    }
}

pub(super) fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|why| panic!("{why}: {answer:?}"))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A folder that goes with its handle.
pub(super) struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-door-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    pub(super) fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_owned()
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).expect("written");
        self.at(name)
    }
}

/// A governed server and its first key.
pub(super) struct House {
    pub(super) server: Server,
    pub(super) folder: Folder,
    pub(super) root: String,
}

impl House {
    pub(super) fn new() -> Self {
        let folder = Folder::new();
        let server = Server::start(&["--data", &folder.at("data")]);
        let line = server.banner.iter().find(|line| line.starts_with("first key"));
        let root = line.and_then(|line| line.split_whitespace().last()).expect("a first key");
        let root = root.to_owned();
        Self { server, folder, root }
    }

    /// The same with a file that says who may sign in. The first server has to be gone before: one
    /// process at a time has the database.
    pub(super) fn with_signin(self, file: &str) -> Self {
        let Self { server, folder, root } = self;
        drop(server);
        let file = folder.write("signin.toml", file);
        let server = Server::start(&["--data", &folder.at("data"), "--signin", &file]);
        Self { server, folder, root }
    }

    pub(super) fn ask(&self, headers: &[(&str, &str)], line: &str, body: &str) -> Answer {
        exchange(&self.server.url, headers, line, body)
    }

    /// Asks with a key or a token.
    pub(super) fn ask_as(&self, key: &str, line: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {key}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(&[JSON, ("authorization", &bearer)], line, &body)
    }

    /// What the first key asks, which has to work.
    pub(super) fn admin(&self, line: &str, body: &Value) -> Value {
        let answer = self.ask_as(&self.root, line, body);
        assert!(answer.status < 300, "{line}: {answer:?}");
        parsed(&answer)
    }

    /// Makes a thing; its id.
    pub(super) fn make(&self, what: &str, body: &Value) -> String {
        text(&self.admin(&format!("POST /admin/v1/{what}"), body)["id"])
    }

    /// A key of a project, with these grants.
    pub(super) fn key(&self, project: &str, grants: &Value) -> String {
        let key = json!({ "label": "test", "project": project, "grants": grants });
        text(&self.admin("POST /admin/v1/keys", &key)["key"])
    }
}
