//! `POST /v1/load_lora_adapter` and `POST /v1/unload_lora_adapter`, with vLLM's names.

use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;

/// A request to load or unload an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterRequest {
    /// The base model; `None`: the first one.
    pub model: Option<String>,
    /// The adapter's own name; it is served as `base:name`.
    pub name: String,
    /// Its folder below the server's folder of adapters; `None`: of the same name.
    pub path: Option<String>,
    /// The node that is meant, of those that serve the model; `None`: all of them.
    pub node: Option<String>,
}

/// Parses a request to load an adapter.
///
/// # Errors
/// The first field that is missing, unknown or wrong, by its path.
pub fn parse_load_adapter(body: &[u8]) -> Result<AdapterRequest, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    fields.only(&["model", "lora_name", "lora_path", "node"])?;
    Ok(adapter(fields)?)
}

/// Parses a request to unload an adapter.
///
/// # Errors
/// The first field that is missing, unknown or wrong, by its path.
pub fn parse_unload_adapter(body: &[u8]) -> Result<AdapterRequest, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    fields.only(&["model", "lora_name", "node"])?;
    Ok(adapter(fields)?)
}

fn adapter(fields: Fields<'_>) -> Parsed<AdapterRequest> {
    let text = |name| Ok::<_, Fault>(fields.string(name)?.map(str::to_owned));
    Ok(AdapterRequest {
        model: text("model")?,
        name: text("lora_name")?.ok_or_else(|| Fault::missing("lora_name"))?,
        path: text("lora_path")?,
        node: text("node")?,
    })
}
