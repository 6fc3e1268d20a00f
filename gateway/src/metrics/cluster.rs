//! What a gateway sees of the cluster's nodes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use prometheus::{IntGaugeVec, Opts, Registry};

use super::gpu::{GpuReading, Series};
use super::register;

/// Series of nodes. A node's name is an address that the operator has configured or that has shown
/// the cluster's token: there are no more than the fleet takes.
pub struct Cluster {
    up: IntGaugeVec,
    available: IntGaugeVec,
    refused: IntGaugeVec,
    known: Mutex<HashSet<(String, String)>>,
    gpus: Series,
    /// By node: labels of the GPUs that are shown.
    shown: Mutex<HashMap<String, Vec<[String; 3]>>>,
}

impl Cluster {
    pub(super) fn new(registry: &Registry) -> Self {
        let add = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid metric");
            register(registry, vec.clone());
            vec
        };
        Self {
            up: add("hearth_cluster_node_up", "1: the node tells its state.", &["node"]),
            available: add(
                "hearth_cluster_node_available",
                "0: the node has failed at requests, and is left alone for a while.",
                &["node"],
            ),
            refused: add(
                "hearth_cluster_model_refused",
                "1: the node's model is not the one that is served under its name.",
                &["node", "model"],
            ),
            known: Mutex::default(),
            gpus: Series::new(registry, "hearth_node_gpu", &["node", "gpu", "uuid", "name"]),
            shown: Mutex::default(),
        }
    }

    /// A node speaks, or does not any more: then nothing is known of its GPUs.
    pub fn up(&self, node: &str, up: bool) {
        self.up.with_label_values(&[node]).set(up.into());
        if !up {
            self.gpus(node, &[]);
        }
    }

    /// A node may get requests, as far as those say that it got.
    pub fn available(&self, node: &str, may: bool) {
        self.available.with_label_values(&[node]).set(may.into());
    }

    /// What a node tells of its GPUs, in place of all that it told before.
    pub fn gpus(&self, node: &str, readings: &[GpuReading]) {
        let labels: Vec<_> = readings.iter().map(GpuReading::labels).collect();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.remove(node).unwrap_or_default();
        for [gpu, uuid, name] in before.iter().filter(|gpu| !labels.contains(gpu)) {
            self.gpus.hide(&[node, gpu, uuid, name]);
        }
        for ([gpu, uuid, name], reading) in labels.iter().zip(readings) {
            self.gpus.show(&[node, gpu, uuid, name], reading);
        }
        if !labels.is_empty() {
            shown.insert(node.to_owned(), labels);
        }
    }

    /// A node's model gets nothing, or does again; `true`: that is new.
    pub fn refused(&self, node: &str, model: &str, refused: bool) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.to_owned(), model.to_owned());
        let new = if refused { known.insert(key) } else { known.remove(&key) };
        if new {
            self.refused.with_label_values(&[node, model]).set(refused.into());
        }
        new
    }

    /// A node is known no more.
    pub fn forgotten(&self, node: &str) {
        let _ = self.up.remove_label_values(&[node]);
        let _ = self.available.remove_label_values(&[node]);
        self.gpus(node, &[]);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(name, model)| {
            if name == node {
                let _ = self.refused.remove_label_values(&[node, model]);
            }
            name != node
        });
    }
}
