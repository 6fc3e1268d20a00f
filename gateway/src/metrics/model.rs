//! Metrics of one model: what its engine's thread reports once per step, and what one request's
//! [`RequestTimer`] measures at the gateway's side of the seam.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry,
};
use scheduler::Stats;
use scheduler::types::{Refusal, Usage};

use super::families::Families;

/// Seconds to the first token: prefix hits answer in a millisecond, a queue takes a minute.
pub(super) const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
/// Seconds between tokens.
const INTER_TOKEN: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.5,
];
/// Seconds of whole requests and of their phases.
pub(super) const REQUEST: &[f64] = &[
    0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
    50.0, 60.0, 120.0, 240.0, 480.0,
];
/// Seconds of one step of the engine.
const STEP: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Tokens of a request, or of a step.
const TOKENS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
    16384.0, 32768.0, 65536.0, 131_072.0, 262_144.0,
];

/// The families with a `model` label.
pub(super) struct ModelVecs {
    running: IntGaugeVec,
    waiting: IntGaugeVec,
    cache_usage: GaugeVec,
    pages: IntGaugeVec,
    prefix_queries: IntCounterVec,
    prefix_hits: IntCounterVec,
    evictions: IntCounterVec,
    preemptions: IntCounterVec,
    step_faults: IntCounterVec,
    drafted: IntCounterVec,
    accepted: IntCounterVec,
    prompt_tokens: IntCounterVec,
    generation_tokens: IntCounterVec,
    success: IntCounterVec,
    refused: IntCounterVec,
    held: IntCounterVec,
    resumed: IntCounterVec,
    spreads: SpreadVecs,
}

/// Of these, the histograms.
struct SpreadVecs {
    first_token: HistogramVec,
    inter_token: HistogramVec,
    e2e: HistogramVec,
    queue: HistogramVec,
    prefill: HistogramVec,
    decode: HistogramVec,
    request_prompt: HistogramVec,
    request_generation: HistogramVec,
    step: HistogramVec,
    step_tokens: HistogramVec,
    compile: HistogramVec,
}

impl ModelVecs {
    pub(super) fn new(registry: &Registry) -> Self {
        let f = Families::new(registry, &["model"]);
        Self {
            running: f.gauge("num_requests_running", "Sequences that are computed now."),
            waiting: f.gauge("num_requests_waiting", "Sequences that wait for a place."),
            cache_usage: f.ratio(
                "kv_cache_usage_ratio",
                "Share of KV pages that running requests hold, 0 to 1.",
            ),
            pages: f.gauge2("kv_cache_pages", &["state"], "KV pages: total, free, cached."),
            prefix_queries: f.counter(
                "prefix_cache_queries_total",
                "Prompt tokens looked up in the prefix cache.",
            ),
            prefix_hits: f.counter(
                "prefix_cache_hits_total",
                "Prompt tokens whose keys and values were found in the prefix cache.",
            ),
            evictions: f
                .counter("kv_cache_evictions_total", "Cached KV pages given up for new ones."),
            preemptions: f.counter("preemptions_total", "Sequences that lost their KV pages."),
            step_faults: f.counter("engine_step_faults_total", "Steps that failed."),
            drafted: f.counter(
                "speculation_drafted_tokens_total",
                "Tokens that were guessed ahead and computed.",
            ),
            accepted: f.counter(
                "speculation_accepted_tokens_total",
                "Tokens guessed ahead that the answer then had.",
            ),
            prompt_tokens: f.counter("prompt_tokens_total", "Prompt tokens of ended requests."),
            generation_tokens: f.counter("generation_tokens_total", "Tokens made."),
            success: f.counter2(
                "request_success_total",
                &["finished_reason"],
                "Requests that ran to an end, by why the first choice ended.",
            ),
            refused: f.counter2(
                "request_refused_total",
                &["reason"],
                "Requests that were not served, or not to their end.",
            ),
            held: f.counter2(
                "grammar_requests_total",
                &["grammar"],
                "Requests held to a grammar, by where it came from: new, kept, refused.",
            ),
            resumed: f.counter(
                "cluster_resumes_total",
                "Requests that went on at another node because theirs was lost.",
            ),
            spreads: SpreadVecs::new(&f),
        }
    }

    pub(super) fn model(&self, id: &str) -> ModelMetrics {
        let one = &[id];
        ModelMetrics {
            running: self.running.with_label_values(one),
            waiting: self.waiting.with_label_values(one),
            cache_usage: self.cache_usage.with_label_values(one),
            pages_total: self.pages.with_label_values(&[id, "total"]),
            pages_free: self.pages.with_label_values(&[id, "free"]),
            pages_cached: self.pages.with_label_values(&[id, "cached"]),
            prefix_queries: self.prefix_queries.with_label_values(one),
            prefix_hits: self.prefix_hits.with_label_values(one),
            evictions: self.evictions.with_label_values(one),
            preemptions: self.preemptions.with_label_values(one),
            resumed: self.resumed.with_label_values(one),
            step_faults: self.step_faults.with_label_values(one),
            drafted: self.drafted.with_label_values(one),
            accepted: self.accepted.with_label_values(one),
            prompt_tokens: self.prompt_tokens.with_label_values(one),
            generation_tokens: self.generation_tokens.with_label_values(one),
            success: self.success.clone(),
            refused: self.refused.clone(),
            held: self.held.clone(),
            compile: self.spreads.compile.with_label_values(one),
            first_token: self.spreads.first_token.with_label_values(one),
            inter_token: self.spreads.inter_token.with_label_values(one),
            e2e: self.spreads.e2e.with_label_values(one),
            queue: self.spreads.queue.with_label_values(one),
            prefill: self.spreads.prefill.with_label_values(one),
            decode: self.spreads.decode.with_label_values(one),
            request_prompt: self.spreads.request_prompt.with_label_values(one),
            request_generation: self.spreads.request_generation.with_label_values(one),
            step: self.spreads.step.with_label_values(one),
            step_tokens: self.spreads.step_tokens.with_label_values(one),
            id: id.to_owned(),
        }
    }
}

impl SpreadVecs {
    fn new(f: &Families<'_>) -> Self {
        Self {
            first_token: f.histogram(
                "time_to_first_token_seconds",
                "From the request's arrival to its first token.",
                FIRST_TOKEN,
            ),
            inter_token: f.histogram(
                "inter_token_latency_seconds",
                "Between two tokens of a request.",
                INTER_TOKEN,
            ),
            e2e: f.histogram(
                "e2e_request_latency_seconds",
                "From the request's arrival to its last token.",
                REQUEST,
            ),
            queue: f.histogram("request_queue_time_seconds", "In the waiting line.", REQUEST),
            prefill: f.histogram(
                "request_prefill_time_seconds",
                "From the first step to the first token.",
                REQUEST,
            ),
            decode: f.histogram(
                "request_decode_time_seconds",
                "From the first token to the end.",
                REQUEST,
            ),
            request_prompt: f.histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS),
            request_generation: f.histogram(
                "request_generation_tokens",
                "Tokens made for a request, over all choices.",
                TOKENS,
            ),
            step: f.histogram(
                "engine_step_duration_seconds",
                "Time that the device worked on a step.",
                STEP,
            ),
            step_tokens: f.histogram(
                "iteration_tokens",
                "Tokens computed in a step, prompt and decode.",
                TOKENS,
            ),
            compile: f.histogram(
                "grammar_compile_seconds",
                "To compile a grammar that was not kept from before.",
                STEP,
            ),
        }
    }
}

/// One model's series, resolved once so that a token costs one atomic add.
pub struct ModelMetrics {
    id: String,
    running: IntGauge,
    waiting: IntGauge,
    cache_usage: Gauge,
    pages_total: IntGauge,
    pages_free: IntGauge,
    pages_cached: IntGauge,
    prefix_queries: IntCounter,
    prefix_hits: IntCounter,
    evictions: IntCounter,
    preemptions: IntCounter,
    step_faults: IntCounter,
    drafted: IntCounter,
    accepted: IntCounter,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
    success: IntCounterVec,
    refused: IntCounterVec,
    held: IntCounterVec,
    resumed: IntCounter,
    compile: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    e2e: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    request_prompt: Histogram,
    request_generation: Histogram,
    step: Histogram,
    step_tokens: Histogram,
}

impl ModelMetrics {
    /// Takes over a scheduler's state. `before` is the state reported last, so that counters grow
    /// by the difference.
    pub fn stats(&self, before: &Stats, now: &Stats) {
        self.running.set(gauge(now.running));
        self.waiting.set(gauge(now.waiting));
        self.pages_total.set(gauge(now.pages_total));
        self.pages_free.set(gauge(now.pages_free));
        self.pages_cached.set(gauge(now.pages_cached));
        self.cache_usage.set(ratio(now.pages_held, now.pages_total));
        let grow = |counter: &IntCounter, before: u64, now: u64| {
            counter.inc_by(now.saturating_sub(before));
        };
        grow(&self.prefix_queries, before.prefix_tokens_queried, now.prefix_tokens_queried);
        grow(&self.prefix_hits, before.prefix_tokens_hit, now.prefix_tokens_hit);
        grow(&self.evictions, before.evictions, now.evictions);
        grow(&self.preemptions, before.preemptions, now.preemptions);
        grow(&self.step_faults, before.step_faults, now.step_faults);
        grow(&self.drafted, before.tokens_drafted, now.tokens_drafted);
        grow(&self.accepted, before.tokens_accepted, now.tokens_accepted);
    }

    /// A step of this many tokens, prompt and decode, was launched.
    pub fn launched(&self, tokens: usize) {
        self.step_tokens.observe(f64::from(u32::try_from(tokens).unwrap_or(u32::MAX)));
    }

    /// A step was collected; the device worked on it for this long.
    pub fn collected(&self, device: Duration) {
        self.step.observe(device.as_secs_f64());
    }

    /// This many tokens were made.
    pub fn generated(&self, tokens: u64) {
        self.generation_tokens.inc_by(tokens);
    }

    /// A request's grammar was there from before.
    pub fn grammar_kept(&self) {
        self.held.with_label_values(&[self.id.as_str(), "kept"]).inc();
    }

    /// A request's grammar was compiled, or could not be.
    pub fn grammar_compiled(&self, took: Duration, refused: bool) {
        let from = if refused { "refused" } else { "new" };
        self.held.with_label_values(&[self.id.as_str(), from]).inc();
        self.compile.observe(took.as_secs_f64());
    }

    /// A request goes on at another node.
    pub fn resumed(&self) {
        self.resumed.inc();
    }

    /// A request was refused; `reason` is one of a few words.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[self.id.as_str(), reason]).inc();
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a share of pages needs no 53 bits")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn micros(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

/// Measures one request from its arrival. Ends exactly once: by [`RequestTimer::end`], by
/// [`RequestTimer::refused`], or, when it is dropped before, as cancelled by its caller.
pub struct RequestTimer {
    model: Arc<ModelMetrics>,
    arrived: Instant,
    last_token: Option<Instant>,
    prompt_tokens: u32,
    tokens: u32,
    ended: bool,
}

impl RequestTimer {
    /// A request for this model arrived at `arrived`, with a prompt of this many tokens.
    #[must_use]
    pub fn start(model: Arc<ModelMetrics>, prompt_tokens: u32, arrived: Instant) -> Self {
        Self { model, arrived, last_token: None, prompt_tokens, tokens: 0, ended: false }
    }

    /// `n` tokens came out together. Their distance to the tokens before is shared between them,
    /// so that the histogram counts tokens and not writes.
    pub fn token(&mut self, n: u32) {
        let now = Instant::now();
        self.tokens = self.tokens.saturating_add(n);
        match self.last_token.replace(now) {
            None => self.model.first_token.observe((now - self.arrived).as_secs_f64()),
            Some(before) => {
                let each = (now - before).as_secs_f64() / f64::from(n.max(1));
                (0..n).for_each(|_| self.model.inter_token.observe(each));
            }
        }
    }

    /// The request ran to an end. `reason` is `stop`, `length` or `cancelled`.
    pub fn end(&mut self, reason: &'static str, usage: &Usage) {
        if !self.close(reason, usage) {
            return;
        }
        self.model.e2e.observe(self.arrived.elapsed().as_secs_f64());
        self.model.queue.observe(micros(usage.queue_us));
        self.model.prefill.observe(micros(usage.prefill_us));
        self.model.decode.observe(micros(usage.decode_us));
    }

    /// The request was refused, or broke off.
    pub fn refused(&mut self, refusal: &Refusal, usage: &Usage) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.model.prompt_tokens.inc_by(u64::from(usage.prompt_tokens));
        self.model.refused(reason(refusal));
    }

    fn close(&mut self, reason: &'static str, usage: &Usage) -> bool {
        if std::mem::replace(&mut self.ended, true) {
            return false;
        }
        let model = &self.model;
        model.success.with_label_values(&[model.id.as_str(), reason]).inc();
        model.prompt_tokens.inc_by(u64::from(usage.prompt_tokens));
        model.request_prompt.observe(f64::from(usage.prompt_tokens));
        model.request_generation.observe(f64::from(usage.completion_tokens));
        true
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.tokens,
            ..Usage::default()
        };
        self.close("cancelled", &usage);
    }
}

/// The label of a refusal.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Invalid(..) => "invalid",
        Refusal::TooLong { .. } => "too_long",
        Refusal::Overloaded => "overloaded",
        Refusal::Deadline => "deadline",
        Refusal::Engine(_) => "engine",
    }
}
