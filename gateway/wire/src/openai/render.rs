//! Requests back to OpenAI's JSON: what a forwarded request looks like, and the other half of
//! the property that parsing loses nothing.

use serde_json::{Map, Value, json};

use crate::request::{
    ChatRequest, CompletionRequest, Content, Decoding, Message, Part, Prompt, Template, ToolChoice,
};

/// A chat request as JSON. Parsing it gives the same request.
#[must_use]
pub fn chat_to_json(request: &ChatRequest) -> Value {
    let mut out = Map::new();
    put(&mut out, "model", &request.model);
    out.insert("messages".into(), request.messages.iter().map(message).collect());
    if !request.tools.is_empty() {
        put(&mut out, "tools", &request.tools);
    }
    if request.tool_choice == ToolChoice::None {
        put(&mut out, "tool_choice", "none");
    }
    template(&mut out, &request.template);
    decoding(&mut out, &request.decoding);
    if let Some(max) = request.decoding.max_tokens {
        put(&mut out, "max_completion_tokens", max);
    }
    if let Some(top) = request.decoding.logprobs {
        put(&mut out, "logprobs", true);
        put(&mut out, "top_logprobs", top);
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
    put(&mut out, "model", &request.model);
    let prompt = match &request.prompts[..] {
        [prompt] => one(prompt),
        prompts => prompts.iter().map(one).collect(),
    };
    out.insert("prompt".into(), prompt);
    put(&mut out, "echo", request.echo);
    put(&mut out, "add_special_tokens", request.add_special_tokens);
    decoding(&mut out, &request.decoding);
    some(&mut out, "max_tokens", request.decoding.max_tokens);
    some(&mut out, "logprobs", request.decoding.logprobs);
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, name: &str, value: impl serde::Serialize) {
    out.insert(name.into(), json!(value));
}

fn some(out: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        put(out, name, value);
    }
}

fn message(message: &Message) -> Value {
    let mut out = Map::new();
    put(&mut out, "role", message.role.name());
    match &message.content {
        Content::Absent => {}
        Content::Text(text) => put(&mut out, "content", text),
        Content::Parts(parts) => {
            out.insert("content".into(), parts.iter().map(part).collect());
        }
    }
    some(&mut out, "name", message.name.as_ref());
    some(&mut out, "tool_call_id", message.tool_call_id.as_ref());
    some(&mut out, "reasoning_content", message.reasoning.as_ref());
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

fn template(out: &mut Map<String, Value>, template: &Template) {
    if !template.kwargs.is_empty() {
        put(out, "chat_template_kwargs", &template.kwargs);
    }
    if !template.documents.is_empty() {
        put(out, "documents", &template.documents);
    }
    put(out, "add_generation_prompt", template.add_generation_prompt);
    put(out, "continue_final_message", template.continue_final_message);
    put(out, "add_special_tokens", template.add_special_tokens);
}

fn decoding(out: &mut Map<String, Value>, decoding: &Decoding) {
    put(out, "n", decoding.choices);
    put(out, "min_tokens", decoding.min_tokens);
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
    put(out, "stop", &decoding.stop);
    put(out, "stop_token_ids", &decoding.stop_token_ids);
    put(out, "include_stop_str_in_output", decoding.include_stop);
    put(out, "skip_special_tokens", decoding.skip_special_tokens);
    put(out, "ignore_eos", decoding.ignore_eos);
    put(out, "return_token_ids", decoding.return_token_ids);
    put(out, "priority", decoding.priority);
    if !decoding.logit_bias.is_empty() {
        let map = decoding.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias)));
        out.insert("logit_bias".into(), Value::Object(map.collect()));
    }
    if let Some(stream) = decoding.stream {
        put(out, "stream", true);
        let options = json!({
            "include_usage": stream.include_usage,
            "continuous_usage_stats": stream.continuous_usage,
        });
        out.insert("stream_options".into(), options);
    }
}
