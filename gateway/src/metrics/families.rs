//! Families of series that share our prefix and some labels.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::register;

/// Makes families and registers them.
pub(super) struct Families<'a> {
    registry: &'a Registry,
    /// Labels that all of them have, before their own.
    shared: &'a [&'a str],
}

impl<'a> Families<'a> {
    pub(super) fn new(registry: &'a Registry, shared: &'a [&'a str]) -> Self {
        Self { registry, shared }
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("hearth_{name}"), help)
    }

    fn labels(&self, own: &[&'a str]) -> Vec<&'a str> {
        [self.shared, own].concat()
    }

    fn add<T: Collector + Clone + 'static>(&self, metric: prometheus::Result<T>) -> T {
        let metric = metric.expect("a valid metric");
        register(self.registry, metric.clone());
        metric
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGaugeVec {
        self.gauge2(name, &[], help)
    }

    pub(super) fn gauge2(&self, name: &str, own: &[&'a str], help: &str) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Self::opts(name, help), &self.labels(own)))
    }

    pub(super) fn ratio(&self, name: &str, help: &str) -> GaugeVec {
        self.add(GaugeVec::new(Self::opts(name, help), self.shared))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounterVec {
        self.counter2(name, &[], help)
    }

    pub(super) fn counter2(&self, name: &str, own: &[&'a str], help: &str) -> IntCounterVec {
        self.add(IntCounterVec::new(Self::opts(name, help), &self.labels(own)))
    }

    /// A sum that has parts of one.
    pub(super) fn sum(&self, name: &str, help: &str) -> CounterVec {
        self.add(CounterVec::new(Self::opts(name, help), self.shared))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(format!("hearth_{name}"), help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, self.shared))
    }
}
