//! What governing costs a request: the release binary with the demo model, once as it stands and
//! once with keys, a policy, prices, a budget, journal and audit, both in one run and in turns, so
//! that what else the machine does meets both.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use hearth_tests::http::{Answer, open_as};
use hearth_tests::server::Server;
use serde_json::{Value, json};

use crate::record::median;

/// Tokens of the answers, and callers at once.
const CASES: [(u32, usize); 4] = [(1, 1), (1, 8), (16, 1), (16, 8)];

/// What is measured.
pub struct Options {
    /// The binary.
    pub hearth: PathBuf,
    /// Turns of each case; the median is reported.
    pub rounds: usize,
    /// Requests of each turn.
    pub requests: usize,
}

/// A server, and the key that it wants.
pub(crate) struct Gateway {
    server: Server,
    key: Option<String>,
    folder: Option<PathBuf>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Asked to stop, one that counts what it runs (`make profile`) writes that down.
        if !std::thread::panicking() {
            self.server.signal("TERM");
            self.server.wait();
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Measures both and prints medians.
///
/// # Errors
/// The binary is missing, or a server does not answer.
pub fn run(options: &Options) -> anyhow::Result<Value> {
    let Options { hearth, rounds, requests } = options;
    ensure!(hearth.exists(), "{} is missing: cargo build --release -p gateway", hearth.display());
    let gateways = [Gateway::open(hearth, &[])?, Gateway::governed(hearth, &[])?];
    let mut cases = Vec::new();
    for (tokens, callers) in CASES {
        for gateway in &gateways {
            turn(gateway, tokens, callers, *requests)?;
        }
        let mut columns: [Vec<f64>; 4] = Default::default();
        for _ in 0..*rounds {
            for (at, gateway) in gateways.iter().enumerate() {
                let (cpu_us, p50_ms) = turn(gateway, tokens, callers, *requests)?;
                columns[2 * at].push(cpu_us);
                columns[2 * at + 1].push(p50_ms);
            }
        }
        let [open_us, open_ms, governed_us, governed_ms] = columns.map(|mut c| median(&mut c));
        cases.push(json!({
            "tokens": tokens,
            "callers": callers,
            "cpu_us_open": open_us,
            "cpu_us_governed": governed_us,
            "cpu_more_percent": (governed_us / open_us - 1.0) * 100.0,
            "p50_ms_open": open_ms,
            "p50_ms_governed": governed_ms,
        }));
    }
    Ok(json!({ "rounds": rounds, "requests": requests, "overhead": cases }))
}

impl Gateway {
    pub(crate) fn open(hearth: &Path, args: &[&str]) -> anyhow::Result<Self> {
        Ok(Self { server: Server::start_binary(hearth, args), key: None, folder: None })
    }

    /// With all that a request can meet: a policy of its team, prices, budgets of two scopes.
    pub(crate) fn governed(hearth: &Path, args: &[&str]) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-overhead-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let data = folder.to_str().context("a plain path")?;
        let server = Server::start_binary(hearth, &[args, &["--data", data]].concat());
        let line = server.banner.iter().find(|line| line.starts_with("first key"));
        let root = line.and_then(|line| line.split_whitespace().last()).context("a first key")?;
        let (root, folder) = (root.to_owned(), Some(folder));
        let mut gateway = Self { server, key: Some(root), folder };
        let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
        let policy = json!({ "models": ["demo*", "mock/*"], "max_tokens": 100_000,
            "rates": [{ "requests_per_minute": 10_000_000 }] });
        let team = gateway.admin("teams", &json!({ "name": "bench", "policy": policy }))?;
        let team = id(&team);
        let project = gateway.admin("projects", &json!({ "name": "bench", "team": team }))?;
        let models = json!([{ "model": "*", "input": 150_000, "output": 600_000 }]);
        gateway.admin("prices", &json!({ "name": "bench", "models": models }))?;
        for (name, scope) in [("team", format!("team:{team}")), ("all", "everything".to_owned())] {
            let limits = json!([{ "period": "month", "usd": "1000000" }]);
            let budget = json!({ "name": name, "scope": scope, "limits": limits });
            gateway.admin("budgets", &budget)?;
        }
        let key = json!({ "label": "bench", "project": id(&project) });
        let key = gateway.admin("keys", &key)?;
        gateway.key = Some(key["key"].as_str().context("a key")?.to_owned());
        Ok(gateway)
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> &str {
        &self.server.url
    }

    /// The key that it wants.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.server.id()
    }

    fn admin(&self, things: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.post(&format!("/admin/v1/{things}"), body)?;
        ensure!(answer.status == 201, "{things}: {}", answer.body);
        Ok(serde_json::from_str(&answer.body)?)
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let Self { server, key, .. } = self;
        let stream = open_as(&server.url, key.as_deref(), "POST", path, &body.to_string())?;
        Ok(stream.finish()?)
    }
}

/// CPU time per request in microseconds, and the median time of an answer in milliseconds.
fn turn(
    gateway: &Gateway,
    tokens: u32,
    callers: usize,
    requests: usize,
) -> anyhow::Result<(f64, f64)> {
    let body = json!({
        "model": "demo", "max_tokens": tokens, "ignore_eos": true, "temperature": 0,
        "messages": [{ "role": "user", "content": "Hello!" }],
    });
    let before = cpu_us(gateway.server.id())?;
    let times = Mutex::new(Vec::with_capacity(requests));
    std::thread::scope(|scope| {
        let caller = || {
            for _ in 0..requests.div_ceil(callers) {
                let begun = Instant::now();
                let answer = gateway.post("/v1/chat/completions", &body)?;
                ensure!(answer.status == 200, "{}", answer.body);
                let took = begun.elapsed().as_secs_f64() * 1e3;
                times.lock().map_err(|_| anyhow::anyhow!("a caller failed"))?.push(took);
            }
            Ok(())
        };
        let all: Vec<_> = (0..callers).map(|_| scope.spawn(caller)).collect();
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a caller failed"))?)
    })?;
    let used = cpu_us(gateway.server.id())? - before;
    let mut times = times.into_inner().map_err(|_| anyhow::anyhow!("a caller failed"))?;
    Ok((used / times.len() as f64, median(&mut times)))
}

/// CPU time of all threads of a process, in microseconds.
pub(crate) fn cpu_us(process: u32) -> anyhow::Result<f64> {
    let mut sum_ns = 0.0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end while it is looked at.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split(' ').next().context("nanoseconds")?;
        sum_ns += first.parse::<f64>()?;
    }
    Ok(sum_ns / 1e3)
}

#[cfg(test)]
mod tests {
    use hearth_tests::server::hearth;

    use super::*;

    #[test]
    fn runs_small() {
        let options = Options { hearth: hearth().to_path_buf(), rounds: 1, requests: 2 };
        let figures = run(&options).expect("figures");
        let cases = figures["overhead"].as_array().expect("a list");
        assert_eq!(cases.len(), CASES.len());
        for case in cases {
            assert!(case["cpu_us_governed"].as_f64() > Some(0.0), "{case}");
        }
    }
}
