//! The release binary with the demo model, as a user starts it: time from exec to ready, resident
//! memory, and how much faster a prompt is answered that was asked before.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use hearth_tests::http::request;
use hearth_tests::server::Server;
use serde_json::{Value, json};

use crate::record::median;

const STARTS: usize = 7;
/// About 1,500 tokens of the demo's vocabulary.
const SENTENCES: usize = 114;

/// Starts `hearth` several times and prints medians.
///
/// # Errors
/// The server does not answer.
pub fn run(hearth: &Path) -> anyhow::Result<Value> {
    ensure!(hearth.exists(), "{} is missing: cargo build --release -p gateway", hearth.display());
    let mut columns: [Vec<f64>; 5] = Default::default();
    let mut prompt_tokens = 0;
    for _ in 0..STARTS {
        let started = Instant::now();
        let server = Server::start_binary(hearth, &[]);
        let ready = started.elapsed().as_secs_f64();
        let idle = resident_mib(server.id())?;
        ask(&server, "Hello!")?;
        let text = "The code of the red door is 4711. ".repeat(SENTENCES);
        let (first, usage) = ask(&server, &text)?;
        let (second, _) = ask(&server, &text)?;
        prompt_tokens = usage;
        let row = [ready, idle, resident_mib(server.id())?, first / second, first];
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let [ready_s, idle_mib, used_mib, speedup, first_s] = columns.map(|mut c| median(&mut c));
    let figures = json!({
        "starts": STARTS,
        "ready_s": ready_s,
        "resident_idle_mib": idle_mib,
        "resident_used_mib": used_mib,
        "prompt_tokens": prompt_tokens,
        "first_answer_ms": first_s * 1e3,
        "second_answer_speedup": speedup,
    });
    println!("{figures:#}");
    Ok(figures)
}

/// Seconds until a one-token answer was read, and the prompt's tokens.
fn ask(server: &Server, content: &str) -> anyhow::Result<(f64, u64)> {
    let body = json!({
        "model": "demo",
        "messages": [{ "role": "user", "content": content }],
        "max_tokens": 1,
        "temperature": 0,
    });
    let started = Instant::now();
    let answer = request(&server.url, "POST", "/v1/chat/completions", &body.to_string())?;
    let took = started.elapsed().as_secs_f64();
    ensure!(answer.status == 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body)?;
    Ok((took, answer["usage"]["prompt_tokens"].as_u64().context("usage")?))
}

fn resident_mib(id: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
