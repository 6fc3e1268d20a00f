//! Whole answers, models and errors as OpenAI's JSON. Written straight into bytes, with
//! `serde_json` for strings and numbers: no tree is built for something that is sent once.

use serde_json::{Value, json};

use crate::answer::{Call, Choice, Finish, Head, TokenLogprob, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::json::{list, put};
use crate::request::Thought;

/// Stands for a probability of zero: JSON has no infinity, and OpenAI writes this.
const LOGPROB_MIN: f32 = -9999.0;

impl Head {
    /// `{"id":..,"object":..,"created":..,"model":..` and no closing brace; behind it the service tier,
    /// where there is one to tell.
    pub(crate) fn open(&self, out: &mut Vec<u8>, object: &str) {
        out.extend_from_slice(b"{\"id\":");
        put(out, &self.id);
        out.extend_from_slice(b",\"object\":");
        put(out, object);
        out.extend_from_slice(b",\"created\":");
        put(out, &self.created);
        out.extend_from_slice(b",\"model\":");
        put(out, &self.model);
        if let Some(tier) = self.service_tier {
            out.extend_from_slice(b",\"service_tier\":");
            put(out, tier);
        }
    }
}

/// A chat's answer.
#[must_use]
pub fn chat(head: &Head, choices: &[Choice], usage: &Usage) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + choices.iter().map(|c| c.text.len()).sum::<usize>());
    head.open(&mut out, "chat.completion");
    out.extend_from_slice(b",\"choices\":");
    list(&mut out, choices, |out, choice| {
        out.extend_from_slice(b"{\"index\":");
        put(out, &choice.index);
        out.extend_from_slice(b",\"message\":");
        message(out, choice);
        out.extend_from_slice(b",\"logprobs\":");
        chat_logprobs(out, choice.logprobs.as_deref());
        out.extend_from_slice(b",\"finish_reason\":");
        put(out, finish_name(choice.finish));
        token_ids(out, "token_ids", choice.token_ids.as_deref());
        out.push(b'}');
    });
    out.extend_from_slice(b",\"usage\":");
    write_usage(&mut out, usage);
    // All choices of a chat have one prompt.
    if let Some(first) = choices.first() {
        token_ids(&mut out, "prompt_token_ids", first.prompt_token_ids.as_deref());
        prompt_logprobs(&mut out, first.prompt_logprobs.as_deref());
    }
    out.push(b'}');
    out
}

/// The turn that a choice is. A turn that only calls tools has no content.
fn message(out: &mut Vec<u8>, choice: &Choice) {
    let silent =
        choice.text.is_empty() && (!choice.tool_calls.is_empty() || choice.refusal.is_some());
    out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":");
    put(out, &(!silent).then_some(&choice.text));
    if let Some(reasoning) = Thought::words(&choice.thoughts) {
        out.extend_from_slice(b",\"reasoning_content\":");
        put(out, &reasoning);
    }
    if !choice.tool_calls.is_empty() {
        out.extend_from_slice(b",\"tool_calls\":");
        list(out, &choice.tool_calls, |out, Call { id, name, arguments }| {
            out.push(b'{');
            call_head(out, id, name);
            put(out, arguments);
            out.extend_from_slice(b"}}");
        });
    }
    out.extend_from_slice(b",\"refusal\":");
    put(out, &choice.refusal);
    out.push(b'}');
}

/// `"id":..,"type":"function","function":{"name":..,"arguments":` and no arguments.
pub(crate) fn call_head(out: &mut Vec<u8>, id: &str, name: &str) {
    out.extend_from_slice(b"\"id\":");
    put(out, id);
    out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
    put(out, name);
    out.extend_from_slice(b",\"arguments\":");
}

/// A plain completion's answer. A refusal's words are its text: there is no other place for them.
#[must_use]
pub fn completion(head: &Head, choices: &[Choice], usage: &Usage) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + choices.iter().map(|c| c.text.len()).sum::<usize>());
    head.open(&mut out, "text_completion");
    out.extend_from_slice(b",\"choices\":");
    list(&mut out, choices, |out, choice| {
        out.extend_from_slice(b"{\"index\":");
        put(out, &choice.index);
        out.extend_from_slice(b",\"text\":");
        match &choice.refusal {
            None => put(out, &choice.text),
            Some(refusal) => put(out, &format!("{}{refusal}", choice.text)),
        }
        out.extend_from_slice(b",\"logprobs\":");
        legacy_logprobs(out, choice.logprobs.as_deref(), &mut 0);
        out.extend_from_slice(b",\"finish_reason\":");
        put(out, finish_of_text(choice.finish));
        token_ids(out, "token_ids", choice.token_ids.as_deref());
        token_ids(out, "prompt_token_ids", choice.prompt_token_ids.as_deref());
        prompt_logprobs(out, choice.prompt_logprobs.as_deref());
        out.push(b'}');
    });
    out.extend_from_slice(b",\"usage\":");
    write_usage(&mut out, usage);
    out.push(b'}');
    out
}

/// One model of the list. `task` is what it does: `generate`, `embed` or `rerank`.
#[must_use]
pub fn model(id: &str, created: u64, context: usize, task: &str) -> Value {
    json!({
        "id": id,
        "object": "model",
        "created": created,
        "owned_by": "hearth",
        "max_model_len": context,
        "task": task,
    })
}

/// The list of models.
#[must_use]
pub fn models(models: &[Value]) -> Value {
    json!({"object": "list", "data": models})
}

/// `{"error":{...}}`.
#[must_use]
pub fn error(error: &ApiError) -> Vec<u8> {
    let kind = match error.kind {
        ErrorKind::Overloaded => "rate_limit_error",
        ErrorKind::Quota => "insufficient_quota",
        ErrorKind::Unavailable
        | ErrorKind::Deadline
        | ErrorKind::Upstream
        | ErrorKind::Internal => "server_error",
        _ => "invalid_request_error",
    };
    let body = json!({
        "message": error.message,
        "type": kind,
        "param": error.param,
        "code": error.code,
    });
    json!({"error": body}).to_string().into_bytes()
}

/// The name of a finish.
#[must_use]
pub fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::Refused => "content_filter",
    }
}

/// The same of a plain completion, which has no word for calls, and no place.
pub(crate) fn finish_of_text(finish: Finish) -> &'static str {
    match finish {
        Finish::ToolCalls => finish_name(Finish::Stop),
        finish => finish_name(finish),
    }
}

pub(crate) fn write_usage(out: &mut Vec<u8>, usage: &Usage) {
    out.extend_from_slice(b"{\"prompt_tokens\":");
    put(out, &usage.prompt_tokens);
    out.extend_from_slice(b",\"completion_tokens\":");
    put(out, &usage.completion_tokens);
    out.extend_from_slice(b",\"total_tokens\":");
    put(out, &usage.prompt_tokens.saturating_add(usage.completion_tokens));
    out.extend_from_slice(b",\"prompt_tokens_details\":{\"cached_tokens\":");
    put(out, &usage.cached_tokens);
    // Our own cache costs nothing to write to: only of a provider's is there something to say.
    if usage.cache_write_tokens > 0 {
        out.extend_from_slice(b",\"cache_write_tokens\":");
        put(out, &usage.cache_write_tokens);
    }
    out.extend_from_slice(b"},\"completion_tokens_details\":{\"reasoning_tokens\":");
    put(out, &usage.reasoning_tokens);
    out.extend_from_slice(b"}}");
}

/// `,"name":[..]`, or nothing: the field is not there where it was not asked for.
pub(crate) fn token_ids(out: &mut Vec<u8>, name: &str, ids: Option<&[u32]>) {
    let Some(ids) = ids else { return };
    out.push(b',');
    put(out, name);
    out.push(b':');
    put(out, ids);
}

/// A token as text; what is not UTF-8 on its own is U+FFFD, and `bytes` tells the truth.
fn put_token(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, &*String::from_utf8_lossy(bytes));
}

fn put_logprob(out: &mut Vec<u8>, logprob: f32) {
    put(out, &if logprob.is_finite() { logprob.max(LOGPROB_MIN) } else { LOGPROB_MIN });
}

/// `{"content":[...],"refusal":null}` or `null`.
pub(crate) fn chat_logprobs(out: &mut Vec<u8>, entries: Option<&[TokenLogprob]>) {
    let Some(entries) = entries else {
        out.extend_from_slice(b"null");
        return;
    };
    out.extend_from_slice(b"{\"content\":");
    list(out, entries, logprob_entry);
    out.extend_from_slice(b",\"refusal\":null}");
}

/// One token of a chat's or a response's text.
pub(crate) fn logprob_entry(out: &mut Vec<u8>, entry: &TokenLogprob) {
    fn token(out: &mut Vec<u8>, bytes: &[u8], logprob: f32) {
        out.extend_from_slice(b"{\"token\":");
        put_token(out, bytes);
        out.extend_from_slice(b",\"logprob\":");
        put_logprob(out, logprob);
        out.extend_from_slice(b",\"bytes\":");
        put(out, bytes);
    }
    token(out, &entry.bytes, entry.logprob.unwrap_or(LOGPROB_MIN));
    out.extend_from_slice(b",\"top_logprobs\":");
    list(out, &entry.top, |out, top| {
        token(out, &top.bytes, top.logprob);
        out.push(b'}');
    });
    out.push(b'}');
}

/// The legacy form: four lists side by side. `offset` is where the first token starts in the
/// text, in characters, and is moved behind the last one.
pub(crate) fn legacy_logprobs(
    out: &mut Vec<u8>,
    entries: Option<&[TokenLogprob]>,
    offset: &mut usize,
) {
    let Some(entries) = entries else {
        out.extend_from_slice(b"null");
        return;
    };
    out.extend_from_slice(b"{\"tokens\":");
    list(out, entries, |out, entry| put_token(out, &entry.bytes));
    out.extend_from_slice(b",\"token_logprobs\":");
    list(out, entries, |out, entry| match entry.logprob {
        Some(logprob) => put_logprob(out, logprob),
        None => out.extend_from_slice(b"null"),
    });
    out.extend_from_slice(b",\"top_logprobs\":");
    list(out, entries, legacy_top);
    out.extend_from_slice(b",\"text_offset\":");
    list(out, entries, |out, entry| {
        put(out, offset);
        *offset += entry.chars();
    });
    out.push(b'}');
}

/// A map from token text to log-probability: the most probable ones and the token itself. Of two
/// tokens with one text, which a map cannot hold, the more probable stays.
fn legacy_top(out: &mut Vec<u8>, entry: &TokenLogprob) {
    let Some(own) = entry.logprob else {
        out.extend_from_slice(b"null");
        return;
    };
    let mut seen: Vec<String> = Vec::with_capacity(entry.top.len() + 1);
    let all = entry.top.iter().map(|top| (&top.bytes, top.logprob));
    out.push(b'{');
    for (bytes, logprob) in all.chain([(&entry.bytes, own)]) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if seen.contains(&text) {
            continue;
        }
        if !seen.is_empty() {
            out.push(b',');
        }
        put(out, &text);
        out.push(b':');
        put_logprob(out, logprob);
        seen.push(text);
    }
    out.push(b'}');
}

/// `,"prompt_logprobs":[null,{"ID":{"logprob":..,"rank":..,"decoded_token":..}},..]` as vLLM
/// writes it, or nothing.
fn prompt_logprobs(out: &mut Vec<u8>, entries: Option<&[TokenLogprob]>) {
    let Some(entries) = entries else { return };
    out.extend_from_slice(b",\"prompt_logprobs\":");
    list(out, entries, |out, entry| {
        let Some(own) = entry.logprob else {
            out.extend_from_slice(b"null");
            return;
        };
        let mut all = vec![(entry.id, entry.rank, own, &entry.bytes)];
        let others = (1..).zip(&entry.top).filter(|(_, top)| top.id != entry.id);
        all.extend(others.map(|(rank, top)| (top.id, rank, top.logprob, &top.bytes)));
        out.push(b'{');
        for (at, (id, rank, logprob, bytes)) in all.into_iter().enumerate() {
            out.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
            put(out, &id);
            out.extend_from_slice(b"\":{\"logprob\":");
            put_logprob(out, logprob);
            out.extend_from_slice(b",\"rank\":");
            put(out, &rank);
            out.extend_from_slice(b",\"decoded_token\":");
            put_token(out, bytes);
            out.push(b'}');
        }
        out.push(b'}');
    });
}
