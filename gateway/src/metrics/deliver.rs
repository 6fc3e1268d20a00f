//! How alerts and the audit get out of this machine.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::register;

/// The series. Places are named as in the logs, by names that hold no secret.
#[derive(Debug)]
pub struct Deliveries {
    lag: IntGaugeVec,
    exported: IntCounterVec,
    waiting: IntGaugeVec,
    delivered: IntCounterVec,
    failures: IntCounterVec,
}

impl Deliveries {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid metric");
            register(registry, gauge.clone());
            gauge
        };
        let counter = |name, help, label| {
            let counter =
                IntCounterVec::new(Opts::new(name, help), &[label]).expect("a valid metric");
            register(registry, counter.clone());
            counter
        };
        Self {
            lag: gauge(
                "hearth_audit_export_lag_records",
                "Records of a chain of the audit that a sink has not taken yet.",
                &["sink", "chain"],
            ),
            exported: counter(
                "hearth_audit_export_records_total",
                "Records of the audit that a sink has taken.",
                "sink",
            ),
            waiting: gauge(
                "hearth_alerts_waiting",
                "Alerts on their way to a channel.",
                &["channel"],
            ),
            delivered: counter(
                "hearth_alerts_delivered_total",
                "Alerts that a channel has taken.",
                "channel",
            ),
            failures: counter(
                "hearth_delivery_failures_total",
                "Tries to hand over records or an alert that failed.",
                "place",
            ),
        }
    }

    /// So many records of a chain are to be exported.
    pub fn lag(&self, sink: &str, chain: &str, records: i64) {
        self.lag.with_label_values(&[sink, chain]).set(records);
    }

    /// A sink has taken records.
    pub fn exported(&self, sink: &str, records: usize) {
        self.exported.with_label_values(&[sink]).inc_by(records as u64);
    }

    /// So many alerts are on their way to a channel.
    pub fn waiting(&self, channel: &str, alerts: i64) {
        self.waiting.with_label_values(&[channel]).set(alerts);
    }

    /// A channel has taken an alert.
    pub fn delivered(&self, channel: &str) {
        self.delivered.with_label_values(&[channel]).inc();
    }

    /// Something was not taken by a sink or a channel.
    pub fn failed(&self, place: &str) {
        self.failures.with_label_values(&[place]).inc();
    }
}
