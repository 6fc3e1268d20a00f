//! The real binary with a configuration of its own, which can be killed and started again.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::world::Folder;

/// A running server. Dropping it kills the process.
pub(crate) struct House {
    child: Child,
    url: String,
    key: String,
    client: reqwest::Client,
}

impl House {
    /// Starts it on the data of the folder. Its log goes to `log` there.
    pub(crate) fn start(folder: &Folder, config: &str, env: &[(&str, &str)]) -> Self {
        let file = folder.file("hearth.toml");
        std::fs::write(&file, config).expect("written");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.file("log"))
            .expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1"])
            .args(["--config", &file, "--data", &folder.file("data"), "--gateway", "gateway-1"])
            .args(["--log-level", "info,gateway=trace,lettre=trace,reqwest=trace,rustls=debug"])
            .env_clear()
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("hearth starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut key = None;
        let url = loop {
            let line = lines.next().and_then(Result::ok);
            let Some(line) = line else {
                panic!(
                    "no server: {}",
                    std::fs::read_to_string(folder.file("log")).unwrap_or_default()
                );
            };
            if let Some(line) = line.strip_prefix("first key ") {
                key = Some(line.trim().to_owned());
            }
            if let Some((_, found)) =
                line.split_once("ready in").and_then(|_| line.split_once("http://"))
            {
                break format!("http://{}", found.trim());
            }
        };
        // The pipe must be drained, or the server would wait.
        std::thread::spawn(move || lines.for_each(drop));
        match &key {
            Some(key) => std::fs::write(folder.file("key"), key).expect("written"),
            None => key = std::fs::read_to_string(folder.file("key")).ok(),
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
        let client = client.build().expect("a client");
        Self { child, url, key: key.expect("a first key"), client }
    }

    pub(crate) async fn ask(&self, line: &str, body: &Value) -> Value {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let request = self
            .client
            .request(method.parse().expect("a method"), format!("{}{path}", self.url))
            .bearer_auth(&self.key);
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a text");
        assert!(status < 300, "{line}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    /// A price, and a soft budget that the first answer goes beyond.
    pub(crate) async fn budget(&self) {
        let models = json!([{ "model": "*", "input": 1_000_000, "output": 10_000_000 }]);
        self.ask("POST /admin/v1/prices", &json!({ "name": "first", "models": models })).await;
        let budget = json!({
            "name": "research", "scope": "everything",
            "limits": [{ "period": "month", "usd": "0.000001", "soft": true }],
        });
        self.ask("POST /admin/v1/budgets", &budget).await;
    }

    /// A short answer of the demo model.
    pub(crate) async fn chat(&self) {
        let body = json!({
            "model": "demo", "max_tokens": 2, "messages": [{ "role": "user", "content": "Hello!" }],
        });
        self.ask("POST /v1/chat/completions", &body).await;
    }

    /// The number of the audit's last record, if all of it is whole.
    pub(crate) async fn head(&self) -> i64 {
        let answer = self.ask("GET /admin/v1/audit/verify", &Value::Null).await;
        answer["summary"]["heads"][0]["number"].as_i64().unwrap_or_else(|| panic!("{answer}"))
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority and a certificate of it for `localhost` and 127.0.0.1, in files `ca.pem`,
/// `cert.pem` and `key.pem`.
pub(crate) fn certificates(folder: &Folder) {
    std::fs::write(folder.0.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        .expect("written");
    for line in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
         -keyout ca.key -out ca.pem -subj /CN=authority",
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
         -keyout key.pem -out csr.pem -subj /CN=localhost",
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
         -out cert.pem",
    ] {
        let made = Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(&folder.0)
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl runs").success(), "{line}");
    }
}

/// Nothing that was logged holds any of these.
#[track_caller]
pub(crate) fn logged_nothing_of(folder: &Folder, secrets: &[&str]) {
    let log = std::fs::read_to_string(folder.file("log")).expect("a log");
    assert!(log.contains("answered"), "nothing was logged at all");
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
