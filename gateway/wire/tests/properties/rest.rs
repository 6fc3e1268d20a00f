//! What a glance at a body must leave alone.

use serde_json::Value;

/// A body without what a gateway writes into it.
pub(crate) fn rest(body: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    let fields = value.as_object_mut()?;
    for own in ["model", "stream_options", "max_tokens", "max_completion_tokens"] {
        fields.remove(own);
    }
    for name in ["max_output_tokens", "generationConfig", "generation_config"] {
        fields.remove(name);
    }
    Some(value)
}
