//! What `/metrics` shows: one Prometheus registry, written with atomics from the engine's thread
//! and from the handlers, rendered as text on demand.
//!
//! Names follow the meanings that vLLM made common, under `hearth_`, with real labels and plain
//! counters, so that dashboards need no guessing. No label ever holds a prompt, a key or a user.

mod cache;
mod cluster;
mod deliver;
mod families;
mod gpu;
mod model;
mod process;
mod route;

use std::sync::Arc;
use std::time::Duration;

use govern::figures::Figures;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use cache::CacheMetrics;
pub use cluster::Cluster;
pub use deliver::Deliveries;
pub use gpu::GpuReading;
pub use model::{ModelMetrics, RequestTimer};
pub use route::{Outcome, PoolMetrics, ProviderMetrics, Retry, RouteMetrics};

use cache::CacheVecs;
use gpu::Gpus;
use model::ModelVecs;
use process::Process;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds; from a handler that answers at once to an answer that takes minutes.
const HTTP_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    models: ModelVecs,
    http_requests: IntCounterVec,
    http_seconds: HistogramVec,
    connections: IntGauge,
    rates_shared: IntGaugeVec,
    process: Process,
    gpus: Gpus,
    deliveries: Deliveries,
    cluster: Cluster,
    cache: CacheVecs,
    routes: RouteMetrics,
}

impl Metrics {
    /// A fresh registry.
    ///
    /// # Panics
    /// Never in practice: two metrics of one name would be a bug in this file.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let http_requests = IntCounterVec::new(
            Opts::new("hearth_http_requests_total", "HTTP answers sent, by route and status."),
            &["route", "code"],
        )
        .expect("a valid metric");
        let http_seconds = HistogramVec::new(
            HistogramOpts::new(
                "hearth_http_request_duration_seconds",
                "From the head of a request to the last byte of its answer.",
            )
            .buckets(HTTP_BUCKETS.to_vec()),
            &["route"],
        )
        .expect("a valid metric");
        let connections = IntGauge::new("hearth_http_connections", "Connections open now.")
            .expect("a valid metric");
        // Without labels, and all the same not shown before it is set.
        let rates_shared = IntGaugeVec::new(
            Opts::new(
                "hearth_rates_shared",
                "1: rates are counted for all gateways. 0: their server does not answer.",
            ),
            &[],
        )
        .expect("a valid metric");
        let build = IntGaugeVec::new(
            Opts::new("hearth_build_info", "Always 1; the labels say what runs."),
            &["version", "target"],
        )
        .expect("a valid metric");
        build
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                concat_target(std::env::consts::ARCH, std::env::consts::OS).as_str(),
            ])
            .set(1);

        register(&registry, http_requests.clone());
        register(&registry, http_seconds.clone());
        register(&registry, connections.clone());
        register(&registry, rates_shared.clone());
        register(&registry, build);
        Arc::new(Self {
            models: ModelVecs::new(&registry),
            process: Process::new(&registry),
            gpus: Gpus::new(&registry),
            deliveries: Deliveries::new(&registry),
            cluster: Cluster::new(&registry),
            cache: CacheVecs::new(&registry),
            routes: RouteMetrics::new(&registry),
            registry,
            http_requests,
            http_seconds,
            connections,
            rates_shared,
        })
    }

    /// The metrics of one model; the same name gives the same series.
    #[must_use]
    pub fn model(&self, id: &str) -> Arc<ModelMetrics> {
        Arc::new(self.models.model(id))
    }

    /// An HTTP answer is complete. `route` is the pattern, never the path that a stranger sent.
    pub fn http_request(&self, route: &'static str, code: u16, took: Duration) {
        let mut digits = [0; 3];
        self.http_requests.with_label_values(&[route, three_digits(code, &mut digits)]).inc();
        self.http_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// What a cache of answers counts; shown from this call on.
    #[must_use]
    pub fn cache(&self) -> CacheMetrics {
        self.cache.shown()
    }

    /// How providers answer and how pools choose.
    #[must_use]
    pub fn routes(&self) -> &RouteMetrics {
        &self.routes
    }

    /// Shows how a governor keeps its books. Once.
    pub fn books(&self, figures: &Figures) {
        for collector in figures.collectors() {
            self.registry.register(collector).expect("names are unique, and there is one governor");
        }
    }

    /// What is seen of the cluster's nodes.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What the GPUs of this machine do now; none without NVIDIA's library. Takes milliseconds:
    /// not for the runtime's threads.
    #[must_use]
    pub fn gpus(&self) -> Vec<GpuReading> {
        self.gpus.read()
    }

    /// How alerts and the audit get out.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// Whether rates are counted for all gateways at the moment. Only where they should be.
    pub fn rates_shared(&self, shared: bool) {
        self.rates_shared.with_label_values::<&str>(&[]).set(shared.into());
    }

    /// Connections open now: `inc` at accept, `dec` at close.
    #[must_use]
    pub fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// Everything in Prometheus' text format. Reads the process's and the GPUs' figures first,
    /// which takes a few file reads: call it per scrape, not per request.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.refresh();
        self.gpus.refresh();
        let mut text = String::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

/// Registers a metric whose name and labels are literals of this crate.
fn register(registry: &Registry, metric: impl prometheus::core::Collector + 'static) {
    registry.register(Box::new(metric)).expect("metric names are unique and valid");
}

fn concat_target(arch: &str, os: &str) -> String {
    format!("{arch}-{os}")
}

/// A status code without an allocation; codes are 100 to 999 by HTTP's grammar.
fn three_digits(code: u16, digits: &mut [u8; 3]) -> &str {
    *digits = [code / 100 % 10, code / 10 % 10, code % 10].map(|d| b'0' + d.to_le_bytes()[0]);
    std::str::from_utf8(digits).unwrap_or("000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn render_shows_every_family_after_one_request() {
        let metrics = Metrics::new();
        metrics.http_request("/v1/models", 200, Duration::from_millis(3));
        let model = metrics.model("demo");
        model.generated(3);
        let mut timer = RequestTimer::start(model, 7, std::time::Instant::now());
        timer.token(1);
        timer.token(2);
        let usage = scheduler::types::Usage {
            prompt_tokens: 7,
            completion_tokens: 3,
            ..Default::default()
        };
        timer.end("stop", &usage);
        assert!(!metrics.render().contains("hearth_rates_shared"));
        metrics.rates_shared(false);
        let text = metrics.render();
        for line in [
            "hearth_rates_shared 0",
            "hearth_http_requests_total{code=\"200\",route=\"/v1/models\"} 1",
            "hearth_request_success_total{finished_reason=\"stop\",model=\"demo\"} 1",
            "hearth_prompt_tokens_total{model=\"demo\"} 7",
            "hearth_generation_tokens_total{model=\"demo\"} 3",
            "hearth_time_to_first_token_seconds_count{model=\"demo\"} 1",
            "hearth_inter_token_latency_seconds_count{model=\"demo\"} 2",
            "process_resident_memory_bytes",
            "hearth_build_info{",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_dropped_timer_counts_as_cancelled_once() {
        let metrics = Metrics::new();
        drop(RequestTimer::start(metrics.model("demo"), 1, std::time::Instant::now()));
        let text = metrics.render();
        let line = "hearth_request_success_total{finished_reason=\"cancelled\",model=\"demo\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
