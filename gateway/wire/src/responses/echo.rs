//! What a response repeats of its request: each parameter, in OpenAI's order, with the value that
//! holds where the caller said none. Clients print it, compare it and send it back.

use serde_json::{Map, Value, json};

use super::tools::Names;
use crate::fields::Fields;

/// The parameters of a request as its response shows them, and what its caller calls its tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Echo {
    /// Every field of a response between `status` and its end, in order. Those that the answer
    /// decides are `null` here.
    pub(super) fields: Map<String, Value>,
    pub(super) names: Names,
    /// Thoughts come with `encrypted_content`.
    pub(super) encrypted: bool,
    /// A summary of the thoughts was asked for.
    pub(super) summary: bool,
}

/// Fields of a response that its answer decides.
pub(super) const DECIDED: [&str; 6] =
    ["completed_at", "error", "incomplete_details", "model", "output", "usage"];

/// All fields and what they are where nothing was said; `null` for what the answer decides.
fn defaults() -> [(&'static str, Value); 28] {
    [
        ("background", json!(false)),
        ("completed_at", Value::Null),
        ("conversation", Value::Null),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("model", Value::Null),
        ("output", Value::Null),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("prompt_cache_retention", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("safety_identifier", Value::Null),
        ("service_tier", json!("default")),
        ("store", json!(true)),
        ("temperature", Value::Null),
        ("text", json!({"format": {"type": "text"}, "verbosity": "medium"})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_logprobs", json!(0)),
        ("top_p", Value::Null),
        ("truncation", json!("disabled")),
        ("usage", Value::Null),
        ("user", Value::Null),
        ("metadata", json!({})),
    ]
}

impl Echo {
    /// Of a request that was parsed.
    pub(super) fn of(request: Fields<'_>, names: Names, encrypted: bool) -> Self {
        let mut fields = Map::new();
        for (name, default) in defaults() {
            let said = request.get(name).filter(|_| !DECIDED.contains(&name));
            let value = match (name, said) {
                // "auto" has become what it stands for.
                ("service_tier", Some(Value::String(tier))) if tier == "flex" => json!(tier),
                ("service_tier", _) | (_, None) => default,
                ("conversation", Some(Value::String(id))) => json!({"id": id}),
                ("reasoning" | "text", Some(said)) => within(default, said),
                (_, Some(said)) => said.clone(),
            };
            fields.insert(name.to_owned(), value);
        }
        let summary = asks_for_summary(&fields);
        Self { fields, names, encrypted, summary }
    }
}

impl Echo {
    /// What a provider's response repeats, as it does: all fields but those that come before them.
    pub(super) fn given(mut fields: Map<String, Value>) -> Self {
        for name in ["output", "usage"] {
            fields.entry(name).or_insert(Value::Null);
        }
        let summary = asks_for_summary(&fields);
        Self { fields, names: Names::new(), encrypted: false, summary }
    }
}

/// By the newer or the older name.
fn asks_for_summary(fields: &Map<String, Value>) -> bool {
    let reasoning = fields.get("reasoning");
    ["summary", "generate_summary"]
        .iter()
        .any(|name| reasoning.and_then(|said| said.get(name)).is_some_and(Value::is_string))
}

/// An object with the fields that were said, among those that were not.
fn within(mut default: Value, said: &Value) -> Value {
    for (name, value) in said.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()) {
        default[name] = value.clone();
    }
    default
}
