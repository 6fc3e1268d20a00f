//! What a node tells of itself: all of it at first, then what has changed. What a node does not
//! have (GPUs, adapters) has no field.

use serde::{Deserialize, Serialize};

use crate::metrics::GpuReading;

/// Adapters of one node, over all of its models.
pub(in crate::cluster) const ADAPTERS_MAX: usize = 4096;

/// What a node tells of itself, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All of it; the first line, and again when models come or go.
    Snapshot(Snapshot),
    /// What has changed since the version before.
    Delta(Delta),
    /// Nothing has: it is alive, at this version.
    Beat(u64),
}

/// All of a node's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Counts up by one with each change.
    pub version: u64,
    /// It takes no requests any more.
    pub draining: bool,
    /// What it serves.
    pub models: Vec<Served>,
    /// What it serves that reads and does not write; not told to gateways of version 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<ServedReader>,
    /// What its GPUs do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuReading>,
}

/// A model that a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// What it is: nodes that tell the same one give the same answers.
    pub fingerprint: String,
    /// What it has to do.
    pub load: Load,
    /// Hashes of the pages that it holds, for itself and for its adapters.
    pub pages: Vec<u64>,
    /// What is served beside it by the same engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<Adapter>,
}

/// A low-rank adapter of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Its name, without its base's.
    pub name: String,
    /// What it is, on the base that it is for.
    pub fingerprint: String,
}

/// What changed since the version before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// The version now: one more than before.
    pub version: u64,
    /// It takes no requests any more.
    pub draining: bool,
    /// Models of which anything has changed.
    pub models: Vec<Changed>,
    /// What models that read and do not write have to do now, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<(String, ReadLoad)>,
    /// What its GPUs do, where that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<GpuReading>>,
}

/// What changed of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// What it has to do now.
    pub load: Load,
    /// Pages that it holds now.
    pub added: Vec<u64>,
    /// Pages that it has given up.
    pub removed: Vec<u64>,
    /// All pages, in place of what was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<u64>>,
}

/// What a model has to do, and how fast it does it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Requests that it has, running and waiting, of all gateways.
    pub open: u32,
    /// Requests that it takes at once; more are refused.
    pub open_max: u32,
    /// Sequences that it computes at once.
    pub rows: u32,
    /// Sequences computed now.
    pub running: u32,
    /// Sequences that wait.
    pub waiting: u32,
    /// Pages of its cache.
    pub pages_total: u32,
    /// Of these, with nothing in them.
    pub pages_free: u32,
    /// Device time of a request, as measured; 0: not known yet.
    pub us_per_request: u64,
    /// Device time of a prompt's thousand tokens, as measured; 0: not known yet.
    pub us_per_kilotoken: u64,
    /// What each sequence that is computed adds to a step.
    pub us_per_row: u64,
}

/// A model that a node serves and that reads and does not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedReader {
    /// Its name.
    pub name: String,
    /// What it is: nodes that tell the same one give the same answers.
    pub fingerprint: String,
    /// What it has to do.
    pub load: ReadLoad,
}

/// What such a model has to do, and how fast it does it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadLoad {
    /// Requests that it has, of all gateways.
    pub open: u32,
    /// Requests that it takes at once; more are refused.
    pub open_max: u32,
    /// Of those open, the ones of which something is computed already.
    pub running: u32,
    /// Tokens that are not computed yet.
    pub tokens: u64,
    /// Device time of a token, as measured; 0: not known yet.
    pub ns_per_token: u64,
}
