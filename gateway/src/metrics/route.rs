//! How providers answer and how pools choose. A provider's series begin when a request is sent and
//! end with the last byte of its answer; what never left this process is not among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use govern::Money;
use prometheus::{
    Counter, CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry,
};
use wire::Usage;

use super::families::Families;
use super::model::{FIRST_TOKEN, REQUEST};

/// Models of providers that have series of their own. Callers may name as many as they like where
/// a provider takes any name: those that come later share the series of `other`.
const OWN_MAX: u32 = 256;

/// Bytes of a name that is shown.
const NAME_MAX: usize = 128;

/// Nano-dollars of a dollar.
const NANO: f64 = 1e9;

/// The families of providers and pools.
#[derive(Debug, Clone)]
pub struct RouteMetrics(Arc<Vecs>);

#[derive(Debug)]
struct Vecs {
    own: AtomicU32,
    requests: IntCounterVec,
    running: IntGaugeVec,
    available: IntGaugeVec,
    first: HistogramVec,
    whole: HistogramVec,
    tokens: IntCounterVec,
    cost: CounterVec,
    answers: IntCounterVec,
    unanswered: IntCounterVec,
    retries: IntCounterVec,
    mirrored: IntCounterVec,
    overflows: IntGaugeVec,
}

/// How a request to a provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came to its end.
    Answered,
    /// The request is at fault, by the provider's word.
    Refused,
    /// The provider has enough to do.
    Busy,
    /// No good answer began, or a whole one broke off.
    Failed,
    /// A stream broke off behind its first event.
    Broken,
    /// Nobody wanted the rest of it: the caller left, another was faster, a budget was used up.
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Answered, Self::Refused, Self::Busy, Self::Failed, Self::Broken, Self::Cancelled];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a pool asks once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The ones before have come to nothing.
    Again,
    /// One of them takes long.
    Hedge,
    /// A stream broke, and somebody else goes on with it.
    Continue,
    /// It would have, but has tried again too often of late.
    Denied,
}

impl Retry {
    const ALL: [Self; 4] = [Self::Again, Self::Hedge, Self::Continue, Self::Denied];

    fn name(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Hedge => "hedge",
            Self::Continue => "continue",
            Self::Denied => "denied",
        }
    }
}

impl RouteMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let f = Families::new(registry, &["provider", "model"]);
        let pools = Families::new(registry, &["pool"]);
        Self(Arc::new(Vecs {
            own: AtomicU32::new(0),
            requests: f.counter2(
                "provider_requests_total",
                &["outcome"],
                "Requests sent to a provider, by how they ended: answered, refused, busy, failed, \
                 broken, cancelled.",
            ),
            running: f.gauge("provider_requests_running", "Requests that a provider answers now."),
            available: f.gauge(
                "provider_available",
                "1: it may be asked. 0: it has failed, or asked for a pause.",
            ),
            first: f.histogram(
                "provider_time_to_first_event_seconds",
                "Streams: from the request to the first event.",
                FIRST_TOKEN,
            ),
            whole: f.histogram(
                "provider_request_duration_seconds",
                "From the request to the last byte of an answer that came to its end.",
                REQUEST,
            ),
            tokens: f.counter2(
                "provider_tokens_total",
                &["kind"],
                "Tokens by the provider's word: input, of these cache_read and cache_write; \
                 output, of these reasoning.",
            ),
            cost: f.sum(
                "provider_cost_usd_total",
                "What its answers have cost, by the price sheet. The ledger has it exactly.",
            ),
            answers: pools.counter2(
                "pool_answers_total",
                &["target", "arm", "reason"],
                "Requests that a pool had answered: by whom, in which arm of an experiment, and \
                 why that one was first.",
            ),
            unanswered: pools.counter(
                "pool_unanswered_total",
                "Requests that a pool found nobody for, or whose last try failed.",
            ),
            retries: pools.counter2(
                "pool_retries_total",
                &["kind"],
                "Tries behind the first: again, hedge, continue; denied: too many of late.",
            ),
            mirrored: pools.counter("pool_mirrored_total", "Requests of which a copy was sent."),
            overflows: pools
                .gauge("pool_overflows", "1: its own targets are too busy, and others answer."),
        }))
    }

    /// A provider's model, from now on.
    #[must_use]
    pub fn provider(&self, provider: &str, model: &str) -> ProviderMetrics {
        let vecs = &self.0;
        let fits = model.len() <= NAME_MAX;
        let own = fits && vecs.own.fetch_add(1, Ordering::Relaxed) < OWN_MAX;
        let labels = [provider, if own { model } else { "other" }];
        let [one, two] = labels;
        let kind = |kind| vecs.tokens.with_label_values(&[one, two, kind]);
        ProviderMetrics {
            requests: Outcome::ALL.map(|o| vecs.requests.with_label_values(&[one, two, o.name()])),
            running: vecs.running.with_label_values(&labels),
            available: own.then(|| vecs.available.with_label_values(&labels)),
            first: vecs.first.with_label_values(&labels),
            whole: vecs.whole.with_label_values(&labels),
            tokens: ["input", "cache_read", "cache_write", "output", "reasoning"].map(kind),
            cost: vecs.cost.with_label_values(&labels),
        }
    }

    /// A pool of the configuration.
    #[must_use]
    pub fn pool(&self, name: &str) -> PoolMetrics {
        let vecs = &self.0;
        PoolMetrics {
            name: name.to_owned(),
            unanswered: vecs.unanswered.with_label_values(&[name]),
            retries: Retry::ALL.map(|kind| vecs.retries.with_label_values(&[name, kind.name()])),
            mirrored: vecs.mirrored.with_label_values(&[name]),
            overflows: vecs.overflows.with_label_values(&[name]),
            vecs: self.clone(),
        }
    }
}

/// The series of one model of a provider.
#[derive(Debug)]
pub struct ProviderMetrics {
    requests: [IntCounter; 6],
    running: IntGauge,
    /// Many together are neither.
    available: Option<IntGauge>,
    first: Histogram,
    whole: Histogram,
    tokens: [IntCounter; 5],
    cost: Counter,
}

impl ProviderMetrics {
    /// Whether it may be asked.
    pub fn available(&self, may: bool) {
        self.available.iter().for_each(|gauge| gauge.set(may.into()));
    }

    /// A request goes out.
    pub fn sent(&self) {
        self.running.inc();
    }

    /// A stream has begun, after so long.
    pub fn first_event(&self, took: Duration) {
        self.first.observe(took.as_secs_f64());
    }

    /// A request is over; `took` is looked at where it came to its end.
    pub fn over(&self, outcome: Outcome, took: Duration) {
        self.running.dec();
        self.requests[outcome as usize].inc();
        if outcome == Outcome::Answered {
            self.whole.observe(took.as_secs_f64());
        }
    }

    /// What an answer has used and cost.
    pub fn used(&self, usage: &Usage, cost: Money) {
        let Usage {
            prompt_tokens,
            cached_tokens,
            cache_write_tokens,
            completion_tokens,
            reasoning_tokens,
        } = *usage;
        let all =
            [prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens];
        self.tokens.iter().zip(all).for_each(|(counter, tokens)| counter.inc_by(tokens));
        // Below 2^53 nano-dollars each, and no cent is paid by this.
        #[expect(clippy::cast_precision_loss, reason = "a figure for graphs")]
        self.cost.inc_by(cost.0.max(0) as f64 / NANO);
    }
}

/// The series of one pool.
pub struct PoolMetrics {
    name: String,
    unanswered: IntCounter,
    retries: [IntCounter; 4],
    mirrored: IntCounter,
    overflows: IntGauge,
    vecs: RouteMetrics,
}

impl PoolMetrics {
    /// A target has answered.
    pub fn answered(&self, target: &str, arm: &str, reason: &str) {
        self.vecs.0.answers.with_label_values(&[&*self.name, target, arm, reason]).inc();
    }

    /// Nobody has.
    pub fn unanswered(&self) {
        self.unanswered.inc();
    }

    /// Somebody is asked once more, or is not.
    pub fn retry(&self, kind: Retry) {
        self.retries[kind as usize].inc();
    }

    /// A copy is sent.
    pub fn mirrored(&self) {
        self.mirrored.inc();
    }

    /// Whether others answer for its own targets.
    pub fn overflows(&self, does: bool) {
        self.overflows.set(does.into());
    }
}
