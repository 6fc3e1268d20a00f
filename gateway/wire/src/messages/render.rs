//! A request as a provider of this dialect gets it: only what was said, and what the dialect
//! requires. What it has no words for is named in [`Lost`].

mod thinking;
mod turns;

use serde_json::{Map, Value, json};

use crate::claude::{self, Claude, Draws, Setting};
use crate::json::set;
use crate::lost::Lost;
use crate::request::{ChatRequest, Decoding, Form, Role, Structured, Tool, ToolChoice};

/// A request as JSON. `default_max_tokens` stands in where the caller sets no limit, which the
/// dialect requires; thoughts that are asked for come on top of it.
#[must_use]
pub fn render(request: &ChatRequest, default_max_tokens: u32, lost: &mut Lost) -> Value {
    let own = Claude::of(&request.model);
    let max_tokens = own.limit(request.decoding.max_tokens, default_max_tokens);
    let mut out = Map::new();
    set(&mut out, "model", &request.model);
    // It stands here, but depends on the thoughts.
    set(&mut out, "max_tokens", Value::Null);
    let (system, mut turns) = turns::render(&request.messages, lost);
    if let Some(system) = system {
        out.insert("system".into(), system);
    }
    let open = own.is_open(&mut turns, lost);
    let bare = claude::is_bare(&turns, |block| block["type"].as_str());
    out.insert("messages".into(), turns.into());
    let forced = tools(&mut out, request, own, lost);
    let within = (Setting { max_tokens, forced, open, bare }, default_max_tokens);
    let draws = thinking::render(&mut out, own, request.reasoning, within, lost);
    decoding(&mut out, &request.decoding, draws, lost);
    if let Some(shape) = &request.decoding.structured {
        structured(&mut out, shape, lost);
    }
    if let Some(user) = &request.user {
        set(&mut out, "metadata", json!({"user_id": user}));
    }
    losses(request, lost);
    Value::Object(out)
}

/// A field of `output_config`, which two things have a place in.
fn put_config(out: &mut Map<String, Value>, name: &str, value: impl serde::Serialize) {
    let config = out.entry("output_config").or_insert_with(|| json!({}));
    if let Some(config) = config.as_object_mut() {
        set(config, name, value);
    }
}

/// Where only some tools may be called, only those are offered: the dialect has no other way to
/// say so. Gives whether a call is forced.
fn tools(
    out: &mut Map<String, Value>,
    request: &ChatRequest,
    own: Claude,
    lost: &mut Lost,
) -> bool {
    let offered = |tool: &&Tool| match &request.tool_choice {
        ToolChoice::Allowed { names, .. } => names.contains(&tool.name),
        _ => true,
    };
    let tools: Vec<Value> = request.tools.iter().filter(offered).map(tool).collect();
    if tools.is_empty() {
        return false;
    }
    out.insert("tools".into(), tools.into());
    let forced = own.is_forced(&request.tool_choice, lost);
    let mut choice = match &request.tool_choice {
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Named(name) if forced => json!({"type": "tool", "name": name}),
        _ if forced => json!({"type": "any"}),
        _ => json!({"type": "auto"}),
    };
    if !request.parallel_tool_calls && request.tool_choice != ToolChoice::None {
        choice["disable_parallel_tool_use"] = true.into();
    }
    if choice != json!({"type": "auto"}) {
        out.insert("tool_choice".into(), choice);
    }
    forced
}

/// Anthropic takes schemas of objects only, and one is required.
fn tool(tool: &Tool) -> Value {
    let mut out = Map::new();
    set(&mut out, "name", &tool.name);
    let description = tool.value.get("function").and_then(|function| function.get("description"));
    if let Some(description) = description.filter(|text| !text.is_null()) {
        set(&mut out, "description", description);
    }
    let mut schema = tool.parameters().cloned().unwrap_or_else(|| json!({}));
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("type").or_insert_with(|| "object".into());
    }
    out.insert("input_schema".into(), schema);
    if tool.says_strict() {
        set(&mut out, "strict", true);
    }
    Value::Object(out)
}

fn decoding(out: &mut Map<String, Value>, decoding: &Decoding, draws: Draws, lost: &mut Lost) {
    let (temperature, top_p) = draws.shares(decoding, lost);
    for (name, value) in [("temperature", temperature), ("top_p", top_p)] {
        if let Some(value) = value {
            set(out, name, value);
        }
    }
    if let Some(k) = draws.top_k(decoding.top_k, lost) {
        set(out, "top_k", k);
    }
    if !decoding.stop.is_empty() {
        set(out, "stop_sequences", &decoding.stop);
    }
    if decoding.stream.is_some() {
        set(out, "stream", true);
    }
}

fn structured(out: &mut Map<String, Value>, shape: &Structured, lost: &mut Lost) {
    let Form::JsonSchema(schema) = &shape.form else {
        lost.field(&shape.field);
        return;
    };
    lost.some("response_format.json_schema.description", shape.description.as_ref());
    put_config(out, "format", json!({"type": "json_schema", "schema": schema}));
}

/// Everything else that a request may say and the dialect cannot.
fn losses(request: &ChatRequest, lost: &mut Lost) {
    let decoding = &request.decoding;
    let is = |value: Option<f64>, off: f64| value.is_none_or(|value| value == off);
    lost.of_engines(request);
    lost.extra(request, &[]);
    // A turn of the assistant at the end is always gone on with.
    let prefill = request.messages.last().is_some_and(|last| last.role == Role::Assistant);
    let template = &request.template;
    let said = [
        ("n", decoding.choices != 1),
        ("presence_penalty", !is(decoding.presence_penalty, 0.0)),
        ("frequency_penalty", !is(decoding.frequency_penalty, 0.0)),
        ("seed", decoding.seed.is_some()),
        ("logprobs", decoding.logprobs.is_some()),
        ("continue_final_message", template.continue_final_message != prefill),
        ("add_generation_prompt", !template.add_generation_prompt && !prefill),
        ("metadata", !request.metadata.is_empty()),
    ];
    for (name, _) in said.into_iter().filter(|(_, said)| *said) {
        lost.field(name);
    }
}
