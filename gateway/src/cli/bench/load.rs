//! Makes the requests and takes the times.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cli::exit::{self, Failure};
use crate::cli::http::{Connection, events};

/// Short common words: most tokenizers make one token of each.
const WORDS: &[&str] = &[
    "the", "and", "for", "that", "with", "this", "from", "have", "not", "are", "was", "but", "one",
    "all", "time", "water", "house", "light", "stone", "river", "green", "small", "long", "good",
];

/// What to send.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) connection: Connection,
    pub(super) model: String,
    pub(super) rate: Option<f64>,
    pub(super) concurrency: usize,
    pub(super) requests: u32,
    pub(super) input_words: u32,
    pub(super) output_tokens: u32,
    pub(super) natural: bool,
    pub(super) seed: u64,
}

/// What one caller saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// From the moment the request was due to the first token.
    pub(super) first: Duration,
    /// Between one piece of the answer and the next.
    pub(super) gaps: Vec<Duration>,
    /// From the moment the request was due to the end.
    pub(super) whole: Duration,
    pub(super) prompt_tokens: u64,
    pub(super) output_tokens: u64,
}

pub(super) type Outcome = Result<Seen, Failure>;

impl Load {
    /// Sends everything and waits for all answers. Also says how long it took.
    pub(super) async fn run(&self) -> (Vec<Outcome>, Duration) {
        let places = Arc::new(Semaphore::new(self.concurrency));
        let mut random = Random(self.seed);
        let start = Instant::now();
        let mut offset = Duration::ZERO;
        let mut tasks = Vec::new();
        for _ in 0..self.requests {
            let body = self.body(&mut random);
            // A place may come late; the request was due when the plan says so all the same.
            let mut due = None;
            if let Some(rate) = self.rate {
                due = Some(start + offset);
                tokio::time::sleep_until((start + offset).into()).await;
                offset += Duration::from_secs_f64(random.exponential() / rate);
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let (due, connection) = (due.unwrap_or_else(Instant::now), self.connection.clone());
            tasks.push(tokio::spawn(async move {
                let _place = place;
                ask(&connection, &body, due).await
            }));
        }
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            let outcome = task.await;
            outcomes.push(outcome.unwrap_or_else(|e| Err(exit::internal(e.to_string()))));
        }
        (outcomes, start.elapsed())
    }

    fn body(&self, random: &mut Random) -> Value {
        let words = (0..self.input_words).map(|_| WORDS[random.below(WORDS.len())]);
        let prompt = words.collect::<Vec<_>>().join(" ");
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.output_tokens,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if !self.natural {
            body["ignore_eos"] = json!(true);
        }
        body
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "model": self.model,
            "rate": self.rate,
            "concurrency": self.concurrency,
            "requests": self.requests,
            "input_words": self.input_words,
            "output_tokens": self.output_tokens,
            "natural": self.natural,
            "seed": self.seed,
        })
    }
}

async fn ask(connection: &Connection, body: &Value, due: Instant) -> Outcome {
    let mut events = pin!(events(connection.chat(body).await?));
    let mut seen = Seen::default();
    let mut before: Option<Instant> = None;
    while let Some(event) = events.try_next().await? {
        if let Some(problem) = event["error"]["message"].as_str() {
            return Err(exit::unavailable(problem));
        }
        if let Some(usage) = event["usage"].as_object() {
            let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
            seen.prompt_tokens = count("prompt_tokens");
            seen.output_tokens = count("completion_tokens");
        }
        let delta = &event["choices"][0]["delta"];
        let text = ["content", "reasoning_content"].iter().find_map(|key| delta[key].as_str());
        if text.is_some_and(|text| !text.is_empty()) {
            let now = Instant::now();
            match before.replace(now) {
                None => seen.first = now - due,
                Some(before) => seen.gaps.push(now - before),
            }
        }
    }
    seen.whole = due.elapsed();
    if before.is_none() {
        return Err(exit::unavailable("the answer held no text"));
    }
    Ok(seen)
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to scatter requests.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n as u64)).unwrap_or(0)
    }

    /// Exponentially distributed with mean 1: the time between arrivals of a Poisson process.
    #[allow(clippy::cast_precision_loss, reason = "53 random bits are what an f64 holds")]
    fn exponential(&mut self) -> f64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        -(1.0 - uniform).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_mean_that_was_asked_for() {
        let mut random = Random(7);
        let n = 20_000;
        let mean = (0..n).map(|_| random.exponential()).sum::<f64>() / f64::from(n);
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
    }
}
