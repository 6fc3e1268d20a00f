//! A chat as a provider of this dialect gets it: only what the caller said, and nothing is kept
//! there. Thoughts travel sealed: in words a provider takes none but its own.

use serde_json::{Map, Value, json};

use crate::json::set;
use crate::lost::Lost;
use crate::openai::{effort_of, is_strict, user};
use crate::request::verbosity;
use crate::request::{
    ChatRequest, Content, Decoding, Effort, Form, Message, Part, Role, Seal, Structured, Summary,
    Thought, Tool, ToolChoice,
};

/// Writes a request. `thinks`: the model is one that thinks, so that its thoughts can be asked
/// for, as they are where somebody says how much is to be thought; one that does not refuses the
/// question. What cannot be carried is named in `lost`.
#[must_use]
pub fn render(request: &ChatRequest, thinks: bool, lost: &mut Lost) -> Value {
    let mut out = Map::new();
    set(&mut out, "model", &request.model);
    messages(&mut out, &request.messages, lost);
    tools(&mut out, request);
    let mut include = Vec::new();
    thoughts(&mut out, request, thinks, &mut include);
    decoding(&mut out, &request.decoding, &mut include, lost);
    let wish = verbosity::kept(request);
    if let Some((_, level)) = wish {
        put_text(&mut out, "verbosity", level);
    }
    if !include.is_empty() {
        set(&mut out, "include", include);
    }
    if let Some(name) = &request.user {
        set(&mut out, "user", user(name));
    }
    if !request.metadata.is_empty() {
        set(&mut out, "metadata", &request.metadata);
    }
    set(&mut out, "store", false);
    if let Some(said) = request.extra.get("truncation") {
        set(&mut out, "truncation", said);
    }
    lost.of_engines(request);
    let mut carried = vec!["truncation"];
    carried.extend(wish.map(|(field, _)| field));
    lost.extra(request, &carried);
    let template = &request.template;
    for (name, said) in [
        ("add_generation_prompt", !template.add_generation_prompt),
        ("continue_final_message", template.continue_final_message),
    ] {
        if said {
            lost.field(name);
        }
    }
    Value::Object(out)
}

/// What the application says first are the instructions, where it is one text.
fn messages(out: &mut Map<String, Value>, messages: &[Message], lost: &mut Lost) {
    let mut rest = messages;
    if let [Message { role: Role::System, content: Content::Text(text), .. }, behind @ ..] = rest
        && !behind.is_empty()
        && !text.is_empty()
    {
        set(out, "instructions", text);
        rest = behind;
    }
    let mut items = Vec::new();
    for message in rest {
        lost.some("messages.name", message.name.as_ref().filter(|_| message.role != Role::Tool));
        turn(&mut items, message, lost);
    }
    set(out, "input", items);
}

fn turn(items: &mut Vec<Value>, message: &Message, lost: &mut Lost) {
    items.extend(message.thoughts.iter().filter_map(thought));
    if message.role == Role::Tool {
        let id = message.tool_call_id.as_deref().unwrap_or_default();
        let output = content(&message.content, "input_text").unwrap_or_else(|| json!(""));
        items.push(json!({"type": "function_call_output", "call_id": id, "output": output}));
        return;
    }
    let (role, kind) = match message.role {
        Role::Assistant => (Role::Assistant, "output_text"),
        Role::Function => {
            lost.field("messages.role");
            (Role::User, "input_text")
        }
        role => (role, "input_text"),
    };
    if let Some(said) = content(&message.content, kind) {
        items.push(json!({"type": "message", "role": role.name(), "content": said}));
    }
    items.extend(message.tool_calls.iter().map(|call| {
        json!({"type": "function_call", "call_id": call.id, "name": call.name,
            "arguments": call.arguments})
    }));
}

fn thought(thought: &Thought) -> Option<Value> {
    let Some(Seal::Encrypted { id, content }) = &thought.seal else { return None };
    let words: Vec<Value> = match thought.text.as_str() {
        "" => Vec::new(),
        text => vec![json!({"type": "summary_text", "text": text})],
    };
    let item = json!({"type": "reasoning", "id": id, "summary": words,
        "encrypted_content": content});
    Some(item)
}

fn content(content: &Content, kind: &str) -> Option<Value> {
    let part = |part: &Part| match part {
        Part::Text(text) => json!({"type": kind, "text": text}),
        Part::Image(image) => {
            json!({"type": "input_image", "image_url": image.url, "detail": image.detail.name()})
        }
    };
    match content {
        Content::Absent => None,
        Content::Text(text) => Some(json!(text)),
        Content::Parts(parts) => Some(parts.iter().map(part).collect()),
    }
}

fn tools(out: &mut Map<String, Value>, request: &ChatRequest) {
    if request.tools.is_empty() {
        return;
    }
    out.insert("tools".into(), request.tools.iter().map(tool).collect());
    let named = |name: &String| json!({"type": "function", "name": name});
    let choice = match &request.tool_choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Named(name) => Some(named(name)),
        ToolChoice::Allowed { names, required } => {
            let mode = if *required { "required" } else { "auto" };
            let tools: Vec<Value> = names.iter().map(named).collect();
            Some(json!({"type": "allowed_tools", "mode": mode, "tools": tools}))
        }
    };
    if let Some(choice) = choice {
        set(out, "tool_choice", choice);
    }
    if !request.parallel_tool_calls {
        set(out, "parallel_tool_calls", false);
    }
}

/// A function without the object around it. Whether it is strict is always said, for here a
/// function is where nobody says anything.
fn tool(tool: &Tool) -> Value {
    let mut out = Map::new();
    set(&mut out, "type", "function");
    let function = tool.value.get("function").and_then(Value::as_object);
    for (name, value) in function.into_iter().flatten().filter(|(name, _)| *name != "strict") {
        out.insert(name.clone(), value.clone());
    }
    out.entry("parameters").or_insert(Value::Null);
    set(&mut out, "strict", tool.strict);
    Value::Object(out)
}

fn thoughts(
    out: &mut Map<String, Value>,
    request: &ChatRequest,
    thinks: bool,
    include: &mut Vec<&'static str>,
) {
    let asked = request.reasoning;
    let mut reasoning = Map::new();
    let effort = asked.effort.or(asked.budget.map(effort_of));
    if let Some(effort) = effort {
        set(&mut reasoning, "effort", effort.name());
    }
    if effort.map_or(thinks, |effort| effort != Effort::None) {
        include.push("reasoning.encrypted_content");
        if asked.include {
            set(&mut reasoning, "summary", asked.summary.map_or("auto", Summary::name));
        }
    }
    if !reasoning.is_empty() {
        set(out, "reasoning", reasoning);
    }
}

fn decoding(
    out: &mut Map<String, Value>,
    decoding: &Decoding,
    include: &mut Vec<&'static str>,
    lost: &mut Lost,
) {
    for (name, value) in [("temperature", decoding.temperature), ("top_p", decoding.top_p)] {
        if let Some(value) = value {
            set(out, name, value);
        }
    }
    if let Some(max) = decoding.max_tokens {
        set(out, "max_output_tokens", max);
    }
    if let Some(top) = decoding.logprobs {
        include.push("message.output_text.logprobs");
        set(out, "top_logprobs", top);
    }
    if let Some(shape) = &decoding.structured {
        structured(out, shape, lost);
    }
    if decoding.stream.is_some() {
        set(out, "stream", true);
    }
    let off = |value: Option<f64>| value.is_none_or(|value| value == 0.0);
    for (name, said) in [
        ("n", decoding.choices != 1),
        ("top_k", decoding.top_k.is_some_and(|k| k != 0)),
        ("presence_penalty", !off(decoding.presence_penalty)),
        ("frequency_penalty", !off(decoding.frequency_penalty)),
        ("seed", decoding.seed.is_some()),
        ("stop", !decoding.stop.is_empty()),
    ] {
        if said {
            lost.field(name);
        }
    }
}

fn structured(out: &mut Map<String, Value>, shape: &Structured, lost: &mut Lost) {
    let format = match &shape.form {
        Form::JsonObject => json!({"type": "json_object"}),
        Form::JsonSchema(schema) => {
            let mut format = Map::new();
            set(&mut format, "type", "json_schema");
            set(&mut format, "name", shape.name.as_deref().unwrap_or("answer"));
            if let Some(description) = &shape.description {
                set(&mut format, "description", description);
            }
            format.insert("schema".into(), schema.clone());
            set(&mut format, "strict", shape.strict.unwrap_or_else(|| is_strict(schema)));
            Value::Object(format)
        }
        _ => return lost.field(&shape.field),
    };
    put_text(out, "format", format);
}

/// A field of `text`, which two things have a place in.
fn put_text(out: &mut Map<String, Value>, name: &str, value: impl serde::Serialize) {
    let text = out.entry("text").or_insert_with(|| json!({}));
    text[name] = json!(value);
}
