//! Requests back to OpenAI's JSON: what a forwarded request looks like, and the other half of
//! the property that parsing loses nothing.

use serde_json::{Map, Value, json};

use crate::json::set;
use crate::request::{
    ChatRequest, CompletionRequest, Content, Decoding, Effort, Form, Message, Part, Prompt,
    Reasoning, Structured, Tag, Template, Thought, ToolChoice,
};

/// A chat request as JSON. Parsing it gives the same request.
#[must_use]
pub fn chat_to_json(request: &ChatRequest) -> Value {
    let mut out = Map::new();
    set(&mut out, "model", &request.model);
    out.insert("messages".into(), request.messages.iter().map(message).collect());
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| tool.value.clone());
        out.insert("tools".into(), tools.collect());
    }
    out.insert("tool_choice".into(), tool_choice(&request.tool_choice));
    set(&mut out, "parallel_tool_calls", request.parallel_tool_calls);
    reasoning(&mut out, request.reasoning);
    template(&mut out, &request.template);
    decoding(&mut out, &request.decoding);
    if let Some(max) = request.decoding.max_tokens {
        set(&mut out, "max_completion_tokens", max);
    }
    some(&mut out, "user", request.user.as_ref());
    if !request.metadata.is_empty() {
        set(&mut out, "metadata", &request.metadata);
    }
    if let Some(top) = request.decoding.logprobs {
        set(&mut out, "logprobs", true);
        set(&mut out, "top_logprobs", top);
    }
    Value::Object(out)
}

/// A completion request as JSON. Parsing it gives the same request.
#[must_use]
pub fn completion_to_json(request: &CompletionRequest) -> Value {
    let one = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Tokens(ids) => json!(ids),
    };
    let mut out = Map::new();
    set(&mut out, "model", &request.model);
    let prompt = match &request.prompts[..] {
        [prompt] => one(prompt),
        prompts => prompts.iter().map(one).collect(),
    };
    out.insert("prompt".into(), prompt);
    set(&mut out, "echo", request.echo);
    set(&mut out, "add_special_tokens", request.add_special_tokens);
    decoding(&mut out, &request.decoding);
    some(&mut out, "max_tokens", request.decoding.max_tokens);
    some(&mut out, "logprobs", request.decoding.logprobs);
    Value::Object(out)
}

pub(super) fn some(out: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        set(out, name, value);
    }
}

pub(super) fn message(message: &Message) -> Value {
    let mut out = Map::new();
    set(&mut out, "role", message.role.name());
    match &message.content {
        Content::Absent => {}
        Content::Text(text) => set(&mut out, "content", text),
        Content::Parts(parts) => {
            out.insert("content".into(), parts.iter().map(part).collect());
        }
    }
    some(&mut out, "name", message.name.as_ref());
    some(&mut out, "tool_call_id", message.tool_call_id.as_ref());
    some(&mut out, "reasoning_content", Thought::words(&message.thoughts));
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        out.insert("tool_calls".into(), calls.collect());
    }
    Value::Object(out)
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(image) => {
            let image_url = json!({"url": image.url, "detail": image.detail.name()});
            json!({"type": "image_url", "image_url": image_url})
        }
    }
}

pub(super) fn tool_choice(choice: &ToolChoice) -> Value {
    let named = |name: &String| json!({"type": "function", "function": {"name": name}});
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => named(name),
        ToolChoice::Allowed { names, required } => {
            let mode = if *required { "required" } else { "auto" };
            let tools: Vec<Value> = names.iter().map(named).collect();
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}})
        }
    }
}

fn reasoning(out: &mut Map<String, Value>, reasoning: Reasoning) {
    some(out, "reasoning_effort", reasoning.effort.map(Effort::name));
    some(out, "thinking_token_budget", reasoning.budget);
    set(out, "include_reasoning", reasoning.include);
}

/// Into the field that it came from: errors about it name that field.
pub(super) fn structured(out: &mut Map<String, Value>, structured: &Structured) {
    let value = match &structured.form {
        Form::JsonObject => json!(true),
        Form::JsonSchema(schema) => schema.clone(),
        Form::Regex(text) | Form::Grammar(text) => json!(text),
        Form::Choice(texts) => json!(texts),
        Form::Tags(tags, triggers) => {
            let tag = |Tag { begin, schema, end }: &Tag| json!({"begin": begin, "schema": schema, "end": end});
            let structures: Vec<Value> = tags.iter().map(tag).collect();
            json!({"type": "structural_tag", "structures": structures, "triggers": triggers})
        }
    };
    match (structured.field.split_once('.'), &structured.form) {
        (Some(("response_format", _)), _) => {
            let mut inner = Map::new();
            some(&mut inner, "name", structured.name.as_ref());
            some(&mut inner, "description", structured.description.as_ref());
            inner.insert("schema".into(), value);
            some(&mut inner, "strict", structured.strict.filter(|strict| *strict));
            set(out, "response_format", json!({"type": "json_schema", "json_schema": inner}));
        }
        (Some((outer, inner)), _) => set(out, outer, json!({inner: value})),
        (None, Form::JsonObject) => set(out, &structured.field, json!({"type": "json_object"})),
        (None, _) => set(out, &structured.field, value),
    }
}

fn template(out: &mut Map<String, Value>, template: &Template) {
    if !template.kwargs.is_empty() {
        set(out, "chat_template_kwargs", &template.kwargs);
    }
    if !template.documents.is_empty() {
        set(out, "documents", &template.documents);
    }
    set(out, "add_generation_prompt", template.add_generation_prompt);
    set(out, "continue_final_message", template.continue_final_message);
    set(out, "add_special_tokens", template.add_special_tokens);
}

fn decoding(out: &mut Map<String, Value>, decoding: &Decoding) {
    set(out, "n", decoding.choices);
    set(out, "min_tokens", decoding.min_tokens);
    some(out, "temperature", decoding.temperature);
    some(out, "top_p", decoding.top_p);
    some(out, "top_k", decoding.top_k);
    some(out, "min_p", decoding.min_p);
    some(out, "typical_p", decoding.typical_p);
    some(out, "repetition_penalty", decoding.repetition_penalty);
    some(out, "presence_penalty", decoding.presence_penalty);
    some(out, "frequency_penalty", decoding.frequency_penalty);
    some(out, "seed", decoding.seed);
    some(out, "prompt_logprobs", decoding.prompt_logprobs);
    some(out, "cache_salt", decoding.cache_salt.as_ref());
    set(out, "stop", &decoding.stop);
    set(out, "stop_token_ids", &decoding.stop_token_ids);
    set(out, "include_stop_str_in_output", decoding.include_stop);
    set(out, "skip_special_tokens", decoding.skip_special_tokens);
    set(out, "ignore_eos", decoding.ignore_eos);
    set(out, "return_token_ids", decoding.return_token_ids);
    set(out, "priority", decoding.priority);
    some(out, "service_tier", decoding.flex.then_some("flex"));
    if !decoding.logit_bias.is_empty() {
        let map = decoding.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias)));
        out.insert("logit_bias".into(), Value::Object(map.collect()));
    }
    if let Some(shape) = &decoding.structured {
        structured(out, shape);
    }
    if let Some(stream) = decoding.stream {
        set(out, "stream", true);
        let options = json!({
            "include_usage": stream.include_usage,
            "continuous_usage_stats": stream.continuous_usage,
        });
        out.insert("stream_options".into(), options);
    }
}
