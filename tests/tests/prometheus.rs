//! What `deploy/` shows and alerts on, by a real Prometheus: set up as it is shipped it reads the
//! metrics of a server with keys, each panel of the dashboard finds what it asks for, and each rule
//! is sound and two of them notice what they are there for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_tests::http::open_as;
use hearth_tests::server::{Server, hearth, root};
use hearth_tests::services::Prometheus;
use serde_json::Value;

/// Longest wait for figures.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes with its handle.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hearth-prometheus-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect(name);
        path.to_str().expect("a plain path").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The text with other words in it, each of which stands there once.
fn with(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

fn shipped(path: &str) -> String {
    fs::read_to_string(root().join("deploy").join(path)).expect(path)
}

/// The first key of a server, which its banner shows.
fn first_key(server: &Server) -> String {
    let line = server.banner.iter().find(|line| line.starts_with("first key")).expect("a key");
    line.split_whitespace().last().expect("a key").to_owned()
}

/// A key that may read metrics, as the runbook has it made.
fn monitor(server: &Server, admin: &str) -> String {
    let runbook = shipped("RUNBOOK.md");
    let said = runbook.split('`').find(|part| part.starts_with("hearth admin keys create"));
    let words = said.expect("a command").split_whitespace().skip(1);
    let made = Command::new(hearth())
        .args(words)
        .args(["--json", "--url", &server.url])
        .env("HEARTH_ADMIN_KEY", admin)
        .output()
        .expect("hearth runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    made["key"].as_str().expect("a key").to_owned()
}

/// Prometheus as it is shipped, but for where the server and its key are, and in less time.
fn prometheus(folder: &Folder, server: &Server, key: &str) -> Prometheus {
    let address = server.url.trim_start_matches("http://");
    let key = folder.file("key", key);
    let text = with(
        &shipped("prometheus/prometheus.yml"),
        &[
            ("scrape_interval: 10s", "scrape_interval: 1s\n  evaluation_interval: 1s"),
            ("/run/secrets/hearth_key", &key),
            ("hearth:8080", address),
        ],
    );
    folder.file("alerts.yml", &shipped("prometheus/alerts.yml"));
    Prometheus::start(Path::new(&folder.file("prometheus.yml", &text)))
}

/// Requests to a model here, to a provider that answers, one that does not, and by nobody's key.
fn load(server: &Server, key: &str) {
    let asked: [(_, _, _, &[u16]); 5] = [
        (key, "demo", true, &[200]),
        (key, "pool", false, &[200]),
        (key, "pool", true, &[200]),
        // Nobody asks it for a while when it has failed.
        (key, "gone/m", true, &[502, 503]),
        ("nobody's", "demo", true, &[401]),
    ];
    for (key, model, stream, statuses) in asked {
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}],"max_tokens":4,
                "stream":{stream}}}"#
        );
        let path = "/v1/chat/completions";
        let got = open_as(&server.url, Some(key), "POST", path, &body).expect("sent");
        let got = got.finish().expect("an answer");
        assert!(statuses.contains(&got.status), "{model}: {} {}", got.status, got.body);
    }
}

/// What no rate was there for is none.
fn is_number(sample: &Value) -> bool {
    sample["value"][1].as_str().is_some_and(|number| number != "NaN")
}

/// The queries of the dashboard, with what Grafana puts in.
fn queries() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(&shipped("grafana/hearth.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let query = |target: &Value| target["expr"].as_str().expect("a query").to_owned();
    let own = |query: String| query.replace("$__rate_interval", "6s").replace("$model", ".*");
    targets.map(query).map(own).collect()
}

#[test]
fn all_panels_find_their_figures_and_all_rules_are_sound() {
    let folder = Folder::new();
    let far = Server::start(&[]);
    let config = format!(
        "[providers.far]\nkind = \"compatible\"\nbase_url = \"{}/v1\"\n\
         [providers.gone]\nkind = \"compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
         [pools.pool]\ntargets = [\"gone/m\", \"far/demo\"]\n",
        far.url
    );
    let config = folder.file("hearth.toml", &config);
    let data = folder.0.join("data");
    let data = data.to_str().expect("a plain path");
    let server = Server::start(&["--config", &config, "--data", data, "--cache-enabled", "true"]);
    let admin = first_key(&server);
    let key = monitor(&server, &admin);
    for (method, path, status) in
        [("GET", "/metrics", 200), ("POST", "/v1/completions", 403), ("GET", "/admin/v1/keys", 403)]
    {
        let body = r#"{"model":"demo","prompt":"Hello","max_tokens":1}"#;
        let asked = open_as(&server.url, Some(&key), method, path, body).expect("sent");
        let asked = asked.finish().expect("an answer");
        assert_eq!(asked.status, status, "{path}: {}", asked.body);
    }
    let prometheus = prometheus(&folder, &server, &key);

    // Only there with a GPU, here or at a node, with nodes, or where requests are refused.
    let elsewhere = ["gpu_", "cluster_", "request_refused_total"];
    let mut missing = queries();
    missing.retain(|query| !elsewhere.iter().any(|part| query.contains(part)));
    assert!(missing.len() > 30, "{missing:?}");
    let begun = Instant::now();
    while !missing.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nothing is found by {missing:#?}");
        load(&server, &admin);
        missing.retain(|query| !prometheus.query(query).iter().any(is_number));
    }
    // The others can be asked.
    queries().iter().for_each(|query| drop(prometheus.query(query)));

    let alerts = shipped("prometheus/alerts.yml").matches("- alert:").count();
    let rules = || {
        let mut said = prometheus.ask("rules");
        serde_json::from_value::<Vec<Value>>(said["groups"][0]["rules"].take()).expect("rules")
    };
    let is = |name: &str, state: &str| {
        rules().iter().any(|rule| rule["name"] == name && rule["state"] == state)
    };
    let all_well = || rules().iter().all(|rule| rule["health"] == "ok");
    // All that one of the providers is asked fails.
    let fails = || is("HearthProviderFails", "pending") && is("HearthDown", "inactive");
    while !(rules().len() == alerts && all_well() && fails()) {
        assert!(begun.elapsed() < 2 * PATIENCE, "{:#?}", rules());
        load(&server, &admin);
        std::thread::sleep(Duration::from_millis(250));
    }
    drop(server);
    while !is("HearthDown", "pending") {
        assert!(begun.elapsed() < 3 * PATIENCE, "{:#?}", rules());
        std::thread::sleep(Duration::from_millis(250));
    }
}
