//! A chat in OpenAI's JSON as a provider gets it: only what the caller said, in the words that
//! this provider knows.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::render::{message, some, structured, tool_choice};
use super::strict::is_strict;
use crate::json::set;
use crate::lost::Lost;
use crate::request::verbosity;
use crate::request::{
    ChatRequest, Content, Decoding, Effort, Form, Part, Role, Structured, Template, ToolChoice,
};

/// Which of the fields beside the common ones a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// OpenAI's own reference and no more.
    OpenAi,
    /// The part of it that everybody knows, under the older names.
    Plain,
    /// That, and what vLLM and SGLang add: `top_k`, `min_p`, thoughts in messages, ...
    Extended,
}

/// Stop strings that OpenAI takes.
const STOPS_MAX: usize = 4;

/// The longest `user` that OpenAI takes.
const USER_CHARS_MAX: usize = 64;

/// Writes a chat request. What cannot be carried is named in `lost`.
#[must_use]
pub fn render(request: &ChatRequest, flavor: Flavor, lost: &mut Lost) -> Value {
    let mut out = Map::new();
    set(&mut out, "model", &request.model);
    let turns = request.messages.iter().enumerate().map(|(at, turn)| {
        let mut value = message(turn);
        let fields = value.as_object_mut().expect("a message is an object");
        if flavor != Flavor::Extended {
            fields.shift_remove("reasoning_content");
        }
        if flavor != Flavor::OpenAi && turn.role == Role::Developer {
            fields.insert("role".into(), Role::System.name().into());
        }
        if turn.role == Role::Tool && has_image(&turn.content) {
            lost.field(format!("messages[{at}].content"));
        }
        // Of thoughts alone nothing is left to say.
        if !fields.contains_key("content") && !fields.contains_key("tool_calls") {
            fields.insert("content".into(), "".into());
        }
        value
    });
    out.insert("messages".into(), turns.collect());
    tools(&mut out, request, flavor);
    thoughts(&mut out, request, flavor, lost);
    template(&request.template, flavor, &mut out, lost);
    decoding(&request.decoding, flavor, &mut out, lost);
    some(&mut out, "user", request.user.as_deref().map(user).as_ref());
    match (request.metadata.is_empty(), flavor) {
        (true, _) => {}
        (false, Flavor::OpenAi) => set(&mut out, "metadata", &request.metadata),
        (false, _) => lost.field("metadata"),
    }
    let wish = verbosity::kept(request).filter(|_| flavor == Flavor::OpenAi);
    some(&mut out, "verbosity", wish.map(|(_, level)| level));
    lost.extra(request, wish.map(|(field, _)| field).as_slice());
    Value::Object(out)
}

/// A caller's name for its user, as OpenAI and others take it. Claude Code's is JSON, and longer:
/// it has a name that is always the same, and says nothing.
pub(crate) fn user(user: &str) -> Cow<'_, str> {
    if user.chars().count() <= USER_CHARS_MAX {
        return user.into();
    }
    let digest = Sha256::digest(user);
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn has_image(content: &Content) -> bool {
    matches!(content, Content::Parts(parts) if parts.iter().any(|p| matches!(p, Part::Image(_))))
}

fn tools(out: &mut Map<String, Value>, request: &ChatRequest, flavor: Flavor) {
    if request.tools.is_empty() {
        return;
    }
    let tools = request.tools.iter().map(|tool| {
        let mut value = tool.value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove("cache_control");
        }
        // Responses holds some to their schemas unsaid.
        if tool.strict && flavor == Flavor::OpenAi {
            value["function"]["strict"] = true.into();
        }
        value
    });
    out.insert("tools".into(), tools.collect());
    match &request.tool_choice {
        ToolChoice::Auto => {}
        choice => {
            out.insert("tool_choice".into(), tool_choice(choice));
        }
    }
    if !request.parallel_tool_calls {
        set(out, "parallel_tool_calls", false);
    }
}

fn thoughts(out: &mut Map<String, Value>, request: &ChatRequest, flavor: Flavor, lost: &mut Lost) {
    let reasoning = request.reasoning;
    some(out, "reasoning_effort", reasoning.effort.map(Effort::name));
    if flavor == Flavor::Extended {
        some(out, "thinking_token_budget", reasoning.budget);
    } else if reasoning.effort.is_none() {
        // A bound in tokens is an effort in other words, where that is all there is.
        some(out, "reasoning_effort", reasoning.budget.map(|budget| effort_of(budget).name()));
    } else {
        lost.some("thinking_token_budget", reasoning.budget.as_ref());
    }
}

/// What a bound on thoughts means as an effort.
pub(crate) fn effort_of(budget: u32) -> Effort {
    match budget {
        0 => Effort::None,
        1..=2_048 => Effort::Low,
        2_049..=16_384 => Effort::Medium,
        _ => Effort::High,
    }
}

fn template(template: &Template, flavor: Flavor, out: &mut Map<String, Value>, lost: &mut Lost) {
    let plain = Template::default();
    let Template { kwargs, documents, .. } = template;
    if flavor != Flavor::Extended {
        let said = [
            ("chat_template_kwargs", !kwargs.is_empty()),
            ("documents", !documents.is_empty()),
            ("continue_final_message", template.continue_final_message),
            ("add_special_tokens", template.add_special_tokens),
        ];
        said.into_iter().filter(|(_, said)| *said).for_each(|(name, _)| lost.field(name));
        return;
    }
    if !kwargs.is_empty() {
        set(out, "chat_template_kwargs", kwargs);
    }
    if !documents.is_empty() {
        set(out, "documents", documents);
    }
    for (name, own, usual) in [
        ("add_generation_prompt", template.add_generation_prompt, plain.add_generation_prompt),
        ("continue_final_message", template.continue_final_message, plain.continue_final_message),
        ("add_special_tokens", template.add_special_tokens, plain.add_special_tokens),
    ] {
        if own != usual {
            set(out, name, own);
        }
    }
}

fn decoding(decoding: &Decoding, flavor: Flavor, out: &mut Map<String, Value>, lost: &mut Lost) {
    let max = if flavor == Flavor::OpenAi { "max_completion_tokens" } else { "max_tokens" };
    some(out, max, decoding.max_tokens);
    some(out, "n", Some(decoding.choices).filter(|n| *n != 1));
    some(out, "temperature", decoding.temperature);
    some(out, "top_p", decoding.top_p);
    some(out, "presence_penalty", decoding.presence_penalty);
    some(out, "frequency_penalty", decoding.frequency_penalty);
    some(out, "seed", decoding.seed);
    match decoding.stop.len() {
        0 => {}
        many if many > STOPS_MAX && flavor != Flavor::Extended => lost.field("stop"),
        _ => set(out, "stop", &decoding.stop),
    }
    if let Some(top) = decoding.logprobs {
        set(out, "logprobs", true);
        some(out, "top_logprobs", Some(top).filter(|top| *top > 0));
    }
    extras(decoding, flavor, out, lost);
    match &decoding.structured {
        None => {}
        Some(shape) => match &shape.form {
            Form::JsonObject => set(out, "response_format", json!({"type": "json_object"})),
            Form::JsonSchema(schema) => {
                let mut inner = Map::new();
                set(&mut inner, "name", shape.name.as_deref().unwrap_or("answer"));
                some(&mut inner, "description", shape.description.as_ref());
                inner.insert("schema".into(), schema.clone());
                let strict = shape.strict.unwrap_or_else(|| is_strict(schema));
                set(&mut inner, "strict", strict);
                set(out, "response_format", json!({"type": "json_schema", "json_schema": inner}));
            }
            Form::Choice(texts) if flavor == Flavor::Extended && is_googles(shape) => {
                set(out, "structured_outputs", json!({"choice": texts}));
            }
            _ if flavor == Flavor::Extended => structured(out, shape),
            _ => lost.field(&shape.field),
        },
    }
    if decoding.stream.is_some() {
        set(out, "stream", true);
        // Always: what was used must be known, whether the caller asks or not.
        set(out, "stream_options", json!({"include_usage": true}));
    }
}

/// Its field is of Google's dialect, not of chat.
fn is_googles(shape: &Structured) -> bool {
    shape.field.starts_with("generationConfig.")
}

/// What only engines know.
fn extras(decoding: &Decoding, flavor: Flavor, out: &mut Map<String, Value>, lost: &mut Lost) {
    let usual = Decoding::default();
    let mut own = Map::new();
    some(&mut own, "top_k", decoding.top_k);
    some(&mut own, "min_p", decoding.min_p);
    some(&mut own, "typical_p", decoding.typical_p);
    some(&mut own, "repetition_penalty", decoding.repetition_penalty);
    some(&mut own, "prompt_logprobs", decoding.prompt_logprobs);
    some(&mut own, "cache_salt", decoding.cache_salt.as_ref());
    some(&mut own, "min_tokens", Some(decoding.min_tokens).filter(|n| *n != 0));
    some(&mut own, "priority", Some(decoding.priority).filter(|n| *n != 0));
    if !decoding.stop_token_ids.is_empty() {
        set(&mut own, "stop_token_ids", &decoding.stop_token_ids);
    }
    for (name, said, usual) in [
        ("include_stop_str_in_output", decoding.include_stop, usual.include_stop),
        ("skip_special_tokens", decoding.skip_special_tokens, usual.skip_special_tokens),
        ("ignore_eos", decoding.ignore_eos, usual.ignore_eos),
        ("return_token_ids", decoding.return_token_ids, usual.return_token_ids),
    ] {
        if said != usual {
            set(&mut own, name, said);
        }
    }
    if flavor == Flavor::Extended {
        out.extend(own);
    } else {
        own.keys().for_each(|name| lost.field(name));
    }
    match (decoding.flex, flavor) {
        (true, Flavor::OpenAi) => set(out, "service_tier", "flex"),
        (true, _) => lost.field("service_tier"),
        (false, _) => {}
    }
    if !decoding.logit_bias.is_empty() {
        let map = decoding.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias)));
        out.insert("logit_bias".into(), Value::Object(map.collect()));
    }
}
