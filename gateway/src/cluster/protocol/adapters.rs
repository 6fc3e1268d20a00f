//! Adapters that come and go at a node: the requests of vLLM's callers, so that an operator says
//! the same to a node as to a gateway.

use serde::{Deserialize, Serialize};

/// Longest request to load or unload, and longest answer to one.
pub(in crate::cluster) const ADAPTER_BYTES_MAX: usize = 64 << 10;

/// Takes an adapter in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadAdapter {
    /// The base model; `None`: the node's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The adapter's own name; it is served as `base:name`.
    pub lora_name: String,
    /// Its folder below the node's folder of adapters; `None`: of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_path: Option<String>,
}

/// Lets an adapter go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnloadAdapter {
    /// The base model; `None`: the node's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The adapter's own name.
    pub lora_name: String,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterDone {
    /// `base:name`
    pub id: String,
    /// It is there now, or is not.
    pub loaded: bool,
    /// What it is, or was.
    pub fingerprint: String,
}
