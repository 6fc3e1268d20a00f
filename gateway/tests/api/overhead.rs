//! What the gateway itself costs: from the first byte written by a client to the engine's first
//! launch, over a real socket. Not run by default: `cargo test --release -p gateway --test api --
//! --ignored --nocapture overhead`. A small round runs always, so that it cannot rot.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fake::{Fake, SPEECH, Setup, text_model};
use super::lifecycle::{http, listen, until};

/// Sorted microseconds from write to launch.
async fn launches(rounds: usize, body: &str) -> Vec<u128> {
    let fake = Fake::start(Setup::default());
    let socket = listen(&fake, gateway::server::Options::default()).await;
    let mut client = TcpStream::connect(socket.address).await.expect("connected");
    client.set_nodelay(true).expect("a socket");
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        fake.idle().await;
        let start = Instant::now();
        client.write_all(http(body).as_bytes()).await.expect("sent");
        until(&mut client, "\"finish_reason\"").await;
        let launched = fake.launched.lock().expect("the time").expect("a launch");
        took.push(launched.saturating_duration_since(start).as_micros());
    }
    took.sort_unstable();
    took
}

fn body() -> String {
    let messages = json!([
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Which of the two rivers is longer, and by how much?"},
    ]);
    json!({"model": "org/fake", "messages": messages, "max_tokens": 1}).to_string()
}

#[tokio::test]
async fn a_small_round() {
    assert_eq!(launches(3, &body()).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn overhead() {
    let took = launches(5_000, &body()).await;
    let at = |share: usize| took[took.len() * share / 1000];
    println!("write to launch, us: p50 {} p90 {} p99 {}", at(500), at(900), at(990));
}

/// Tokens that the usage of each stream claims, characters of text that came, events, and time.
async fn flood(streams: usize, tokens: usize) -> (u64, usize, usize, Duration) {
    let fake = Fake::start(Setup { endless: true, rows: streams, ..Setup::default() });
    let socket = listen(&fake, gateway::server::Options::default()).await;
    let request = json!({"model": "org/fake", "prompt": "a", "max_tokens": tokens, "stream": true,
        "stream_options": {"include_usage": true}});
    let start = Instant::now();
    let tasks = (0..streams).map(|_| {
        let (address, request) = (socket.address, request.to_string());
        tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.expect("connected");
            let head = http(&request).replace("chat/completions", "completions");
            client.write_all(head.as_bytes()).await.expect("sent");
            until(&mut client, "[DONE]").await
        })
    });
    let mut bodies = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        bodies.push(task.await.expect("streamed"));
    }
    let took = start.elapsed();
    let (mut claimed, mut chars, mut events) = (0, 0, 0);
    for line in bodies.iter().flat_map(|body| body.lines()) {
        let Some(data) = line.strip_prefix("data: {") else { continue };
        let chunk: Value = serde_json::from_str(&format!("{{{data}")).expect("JSON");
        events += 1;
        claimed += chunk["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        chars += chunk["choices"][0]["text"].as_str().map_or(0, |text| text.chars().count());
    }
    (claimed, chars, events, took)
}

/// A rate of streams that lost something would mean nothing.
#[track_caller]
fn check_whole(streams: usize, tokens: usize, claimed: u64, chars: usize) {
    assert_eq!(usize::try_from(claimed).expect("small"), streams * tokens);
    // Tokens of the speech are words; each one after it is a dot.
    let speech = text_model().encode(SPEECH, false).expect("text").len();
    assert_eq!(chars, streams * (tokens - speech + SPEECH.chars().count()));
}

#[tokio::test]
async fn a_small_flood() {
    let (claimed, chars, _, _) = flood(3, 200).await;
    check_whole(3, 200, claimed, chars);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn overhead_flood() {
    for _ in 0..5 {
        let (claimed, chars, events, took) = flood(16, 4000).await;
        check_whole(16, 4000, claimed, chars);
        let rate = |n: f64| n / took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let (tokens, writes) = (rate(claimed as f64), rate(events as f64));
        println!(
            "{claimed} tokens, {chars} chars, {events} events in {took:?}: \
                  {tokens:.0} tokens/s, {writes:.0} events/s"
        );
    }
}
