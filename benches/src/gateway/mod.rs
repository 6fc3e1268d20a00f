//! What the gateway costs in front of a provider: beside nginx as a plain proxy and beside nothing,
//! all in one run and in turns, so that what else the machine does meets all of them. Whole
//! answers, streams with a pace, streams without one, many streams at once, and memory.

mod caller;
mod mock;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::overhead::{Gateway, cpu_us};
use crate::record::median;
use caller::{Streamed, Way};

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Whole answers.
    Whole,
    /// Streams with a pace.
    Paced,
    /// Streams without one.
    Flood,
    /// Many streams at once.
    Many,
}

/// What is measured.
pub struct Options {
    /// The binary.
    pub hearth: PathBuf,
    /// An earlier one, to be measured in the same turns.
    pub before: Option<PathBuf>,
    /// The parts.
    pub cases: Vec<Case>,
    /// nginx; `None`: no ratios.
    pub nginx: Option<PathBuf>,
    /// Turns of each case; the median is reported.
    pub rounds: usize,
    /// Whole answers of a turn.
    pub requests: usize,
    /// Seconds of a turn at a fixed rate.
    pub seconds: f64,
    /// Events of a stream without a pace.
    pub flood: usize,
    /// Streams at once, in the last case.
    pub streams: usize,
}

impl Options {
    /// As it is recorded.
    #[must_use]
    pub fn full(hearth: PathBuf, rounds: usize) -> Self {
        let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from);
        let nginx = nginx.into_iter().find(|path| path.exists());
        let (requests, seconds, flood, streams) = (20_000, 5.0, 20_000, 2_000);
        let cases = Case::value_variants().to_vec();
        Self { hearth, before: None, cases, nginx, rounds, requests, seconds, flood, streams }
    }
}

/// One that is measured.
struct Peer {
    name: &'static str,
    way: Way,
    /// Its processes; none: the provider itself.
    processes: Vec<u32>,
}

impl Peer {
    fn cpu_us(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|process| cpu_us(*process)).sum()
    }

    /// Memory in MiB.
    fn memory(&self) -> f64 {
        let one = |process: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        self.processes.iter().filter_map(one).sum::<f64>() / 1024.0
    }
}

/// Measures all and returns medians.
///
/// # Errors
/// A binary is missing, or somebody does not answer.
pub fn run(options: &Options) -> anyhow::Result<Value> {
    let hearth = &options.hearth;
    ensure!(hearth.exists(), "{} is missing: cargo build --release -p gateway", hearth.display());
    let runtime = Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let provider = listener.local_addr()?.to_string();
    runtime.spawn(mock::serve(listener));
    let folder = Folder::new()?;
    let config = folder.0.join("hearth.toml");
    std::fs::write(
        &config,
        format!(
            "[providers.mock]\nkind = \"compatible\"\nbase_url = \"http://{provider}/v1\"\n\
             models = [\"*\"]\n"
        ),
    )?;
    let config = config.to_str().context("a plain path")?;
    let args = ["--model", "none", "--config", config];
    let mut gateways = vec![
        ("open", Gateway::open(hearth, &args)?),
        ("governed", Gateway::governed(hearth, &args)?),
        // Answers do not wait for the disk.
        ("everysec", Gateway::governed(hearth, &[&args[..], &["--fsync", "everysec"]].concat())?),
    ];
    if let Some(before) = &options.before {
        gateways.push(("open before", Gateway::open(before, &args)?));
        gateways.push(("governed before", Gateway::governed(before, &args)?));
    }
    let nginx = options.nginx.as_deref().map(|nginx| Nginx::start(nginx, &provider, &folder.0));
    let nginx = nginx.transpose()?;
    let chat = |address: &str, key: Option<&str>, prefix| Way {
        address: address.trim_start_matches("http://").to_owned(),
        key: key.unwrap_or("none").to_owned(),
        prefix,
        path: "/v1/chat/completions",
    };
    let mut peers =
        vec![Peer { name: "direct", way: chat(&provider, None, ""), processes: Vec::new() }];
    if let Some(nginx) = &nginx {
        let way = chat(&nginx.address, None, "");
        runtime.block_on(there(&nginx.address))?;
        peers.push(Peer { name: "nginx", way, processes: nginx.processes()? });
    }
    for (name, gateway) in &gateways {
        let way = chat(gateway.url(), gateway.key(), "mock/");
        peers.push(Peer { name, way, processes: vec![gateway.process()] });
    }
    let idle: Vec<f64> = peers.iter().map(Peer::memory).collect();
    let mut out = json!({ "rounds": options.rounds });
    for case in &options.cases {
        match case {
            Case::Whole => out["whole"] = whole(&runtime, &peers, options)?,
            Case::Paced => out["paced"] = paced(&runtime, &peers, options)?,
            Case::Flood => out["flood"] = flood(&runtime, &peers, options)?,
            Case::Many => out["many"] = many(&runtime, &peers, options)?,
        }
    }
    for (peer, idle) in peers.iter().zip(idle).filter(|(peer, _)| !peer.processes.is_empty()) {
        out["idle_mib"][peer.name] = json!(rounded(idle));
    }
    Ok(out)
}

/// Three digits behind the point.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// Waits until something listens.
async fn there(address: &str) -> anyhow::Result<()> {
    for _ in 0..200 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    anyhow::bail!("nobody listens at {address}")
}

/// Whole answers: CPU of 64 callers who never wait, and the time of an answer at 500 a second.
fn whole(runtime: &Runtime, peers: &[Peer], options: &Options) -> anyhow::Result<Value> {
    const CALLERS: usize = 64;
    const PER_SECOND: f64 = 500.0;
    let mut found = vec![[const { Vec::new() }; 4]; peers.len()];
    for round in 0..=options.rounds {
        for (peer, columns) in peers.iter().zip(&mut found) {
            let each = options.requests.div_ceil(CALLERS);
            let (before, begun) = (peer.cpu_us()?, Instant::now());
            runtime.block_on(callers(&peer.way, CALLERS, each, None))?;
            let seconds = begun.elapsed().as_secs_f64();
            let sum = (each * CALLERS) as f64;
            let cpu = (peer.cpu_us()? - before) / sum;
            let each = (options.seconds * PER_SECOND / 16.0).ceil() as usize;
            let pace = Duration::from_secs_f64(16.0 / PER_SECOND);
            let mut times = runtime.block_on(callers(&peer.way, 16, each, Some(pace)))?;
            times.sort_unstable();
            let us = |permille: usize| times[(times.len() - 1) * permille / 1000] as f64;
            // The first turn opens connections and fills caches.
            if round > 0 {
                let row = [cpu, sum / seconds, us(500), us(990)];
                columns.iter_mut().zip(row).for_each(|(column, number)| column.push(number));
            }
        }
    }
    let mut out = json!({});
    let mut base = None;
    let mut direct = [0.0; 2];
    for (peer, columns) in peers.iter().zip(found) {
        let [cpu, rate, p50, p99] = columns.map(|mut column| median(&mut column));
        if peer.name == "direct" {
            direct = [p50, p99];
        }
        if peer.name == "nginx" {
            base = Some(cpu);
        }
        out[peer.name] = json!({
            "cpu_ms_per_1000": rounded(cpu),
            "cpu_of_nginx": base.map(|base| rounded(cpu / base)),
            "per_second": rate.round(),
            "p50_us": p50, "p99_us": p99,
            "added_p50_us": p50 - direct[0], "added_p99_us": p99 - direct[1],
        });
    }
    Ok(out)
}

/// So many callers at once; microseconds of each answer.
async fn callers(
    way: &Way,
    callers: usize,
    each: usize,
    pace: Option<Duration>,
) -> anyhow::Result<Vec<u64>> {
    let mut all = JoinSet::new();
    let first = Instant::now() + Duration::from_millis(50);
    for number in 0..callers {
        let way = way.clone();
        let due = pace.map(|pace| {
            let shift = pace.mul_f64(number as f64 / callers as f64);
            (first + shift, pace)
        });
        all.spawn(async move { way.whole(each, due).await });
    }
    let mut times = Vec::new();
    while let Some(one) = all.join_next().await {
        times.extend(one??);
    }
    Ok(times)
}

/// So many streams at once, begun over a time.
async fn streams(
    way: &Way,
    (count, over): (usize, Duration),
    model: &str,
    delays: bool,
) -> anyhow::Result<Vec<Streamed>> {
    let mut all = JoinSet::new();
    for number in 0..count {
        let (way, model) = (way.clone(), model.to_owned());
        let after = over.mul_f64(number as f64 / count as f64);
        all.spawn(async move {
            tokio::time::sleep(after).await;
            way.stream(&model, delays).await
        });
    }
    let mut seen = Vec::with_capacity(count);
    while let Some(one) = all.join_next().await {
        seen.push(one??);
    }
    Ok(seen)
}

/// CPU of an event where each stream has 20 a second, passed on and translated; and how late the
/// first one came.
fn paced(runtime: &Runtime, peers: &[Peer], options: &Options) -> anyhow::Result<Value> {
    const STREAMS: usize = 200;
    let events = (options.seconds * 20.0).ceil() as usize;
    let model = format!("stream-50-{events}");
    let (mut out, mut first) = (json!({}), json!({}));
    for peer in peers.iter().filter(|peer| !peer.processes.is_empty()) {
        let translated = Way { path: "/v1/messages", ..peer.way.clone() };
        let ways = [("passed", &peer.way), ("translated", &translated)];
        for (name, way) in ways.into_iter().take(if peer.name == "nginx" { 1 } else { 2 }) {
            let (mut cpu, mut firsts) = (Vec::new(), Vec::<u64>::new());
            for _ in 0..options.rounds {
                let before = peer.cpu_us()?;
                let over = Duration::from_millis(1000);
                let seen = runtime.block_on(streams(way, (STREAMS, over), &model, true));
                let seen = seen.with_context(|| peer.name)?;
                let count: usize = seen.iter().map(|one| one.events).sum();
                ensure!(count == STREAMS * events, "{} {name}: {count} events", peer.name);
                cpu.push((peer.cpu_us()? - before) / count as f64);
                firsts.extend(seen.iter().filter_map(|one| one.delays.first()));
            }
            out[peer.name][name] = json!(rounded(median(&mut cpu)));
            firsts.sort_unstable();
            let us = |permille: usize| firsts[(firsts.len() - 1) * permille / 1000];
            first[peer.name][name] = json!({ "p50": us(500), "p99": us(990) });
        }
    }
    Ok(json!({ "streams": STREAMS, "cpu_us_per_event": out, "first_event_us": first }))
}

/// Sixteen streams without a pace.
fn flood(runtime: &Runtime, peers: &[Peer], options: &Options) -> anyhow::Result<Value> {
    const STREAMS: usize = 16;
    let model = format!("stream-0-{}", options.flood);
    let mut out = json!({});
    let mut found = vec![[const { Vec::new() }; 2]; peers.len()];
    for _ in 0..options.rounds {
        for (peer, columns) in peers.iter().zip(&mut found) {
            let (before, begun) = (peer.cpu_us()?, Instant::now());
            let at_once = (STREAMS, Duration::ZERO);
            let seen = runtime.block_on(streams(&peer.way, at_once, &model, false));
            let seen = seen.with_context(|| peer.name)?;
            let count: usize = seen.iter().map(|one| one.events).sum();
            ensure!(count == STREAMS * options.flood, "{}: {count} events", peer.name);
            columns[0].push(count as f64 / begun.elapsed().as_secs_f64());
            columns[1].push((peer.cpu_us()? - before) / count as f64);
        }
    }
    for (peer, columns) in peers.iter().zip(found) {
        let [rate, cpu] = columns.map(|mut column| median(&mut column));
        out[peer.name] =
            json!({ "events_per_second": rate.round(), "cpu_us_per_event": rounded(cpu) });
    }
    Ok(json!({ "streams": STREAMS, "events": options.flood, "peers": out }))
}

/// Many streams of 20 events a second: the delay of an event, and memory.
fn many(runtime: &Runtime, peers: &[Peer], options: &Options) -> anyhow::Result<Value> {
    let events = (options.seconds * 20.0).ceil() as usize;
    let model = format!("stream-50-{events}");
    let mut out = json!({});
    for peer in peers {
        let length = Duration::from_secs_f64(options.seconds);
        let over = Duration::from_secs(2).min(length / 4);
        let load = async {
            let way = peer.way.clone();
            let (count, model) = (options.streams, model.clone());
            let all = tokio::spawn(async move { streams(&way, (count, over), &model, true).await });
            // In the middle, when all of them run.
            tokio::time::sleep(over + (length - over) / 2).await;
            let (memory, at) = (peer.memory(), Instant::now());
            anyhow::Ok((all.await??, memory, at))
        };
        let (seen, memory, at) = runtime.block_on(load).with_context(|| peer.name)?;
        // Who lets some wait for others is faster than it is.
        let ran = seen.iter().filter(|one| one.ran(at)).count();
        ensure!(ran == options.streams, "{}: only {ran} streams at once", peer.name);
        let mut delays: Vec<u64> = seen.into_iter().flat_map(|one| one.delays).collect();
        ensure!(delays.len() == options.streams * events, "{}: {}", peer.name, delays.len());
        delays.sort_unstable();
        let ms = |permille: usize| delays[(delays.len() - 1) * permille / 1000] as f64 / 1e3;
        out[peer.name] = json!({
            "delay_p50_ms": rounded(ms(500)),
            "delay_p99_ms": rounded(ms(990)),
            "memory_mib": rounded(memory),
        });
    }
    Ok(json!({ "streams": options.streams, "peers": out }))
}

/// A folder that goes with its handle.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let name = format!("hearth-bench-gateway-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// nginx as a plain proxy: two workers, connections kept, nothing gathered.
struct Nginx {
    child: Child,
    address: String,
}

impl Nginx {
    fn start(nginx: &Path, provider: &str, folder: &Path) -> anyhow::Result<Self> {
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let place = folder.display();
        let config = format!(
            "worker_processes 2;\ndaemon off;\nmaster_process on;\npid {place}/pid;\n\
             error_log {place}/error.log;\nworker_rlimit_nofile 20000;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n access_log off;\n client_body_temp_path {place}/body;\n \
             proxy_temp_path {place}/proxy;\n fastcgi_temp_path {place}/fastcgi;\n \
             uwsgi_temp_path {place}/uwsgi;\n scgi_temp_path {place}/scgi;\n \
             keepalive_requests 1000000;\n \
             upstream provider {{ server {provider}; keepalive 256; \
             keepalive_requests 1000000; }}\n \
             server {{ listen {address} backlog=4096;\n  location / {{ \
             proxy_pass http://provider; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_buffering off; }} }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config)?;
        let child = Command::new(nginx)
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::inherit())
            .spawn()
            .context("nginx does not start")?;
        Ok(Self { child, address })
    }

    /// The master and its workers.
    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let own = self.child.id();
        let path = format!("/proc/{own}/task/{own}/children");
        let text = std::fs::read_to_string(path)?;
        let workers = text.split_whitespace().map(|word| Ok(word.parse()?));
        std::iter::once(Ok(own)).chain(workers).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked to stop, it takes its workers along; killed, it would leave them.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use hearth_tests::server::hearth;

    use super::*;

    #[test]
    fn runs_small() {
        let options = Options {
            rounds: 1,
            requests: 64,
            seconds: 1.0,
            flood: 50,
            streams: 20,
            ..Options::full(hearth().to_path_buf(), 1)
        };
        let figures = run(&options).expect("figures");
        for name in ["open", "governed"] {
            assert!(figures["whole"][name]["cpu_ms_per_1000"].as_f64() > Some(0.0), "{figures}");
            assert!(figures["many"]["peers"][name]["memory_mib"].as_f64() > Some(1.0), "{figures}");
        }
    }
}
