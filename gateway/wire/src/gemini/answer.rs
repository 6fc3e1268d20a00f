//! Whole answers, models and errors as Google's JSON. Written straight into bytes, with
//! `serde_json` for strings and numbers.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::seal;
use crate::answer::{Call, Choice, Finish, Head, TokenLogprob, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::json::{list, put};
use crate::piece::SealRef;
use crate::request::Seal;

/// Stands for a probability of zero: JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// A whole answer.
#[must_use]
pub fn answer(head: &Head, choices: &[Choice], usage: &Usage) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + choices.iter().map(|c| c.text.len()).sum::<usize>());
    out.extend_from_slice(b"{\"candidates\":");
    list(&mut out, choices, |out, choice| {
        let mut parts = Parts::open(out);
        for thought in &choice.thoughts {
            let signature = thought.seal.as_ref().map(|seal| seal::write(as_ref(seal)));
            parts.thought(&thought.text, signature.as_deref());
        }
        if !choice.text.is_empty() {
            parts.text(&choice.text, false, None);
        }
        let ending = Ending::of(choice.finish, choice.refusal.as_deref(), &choice.tool_calls);
        parts.calls(&ending, &choice.tool_calls);
        parts.close();
        ending.write(out, choice.index);
        logprobs(out, choice.logprobs.as_deref().unwrap_or_default());
        out.push(b'}');
    });
    tail(&mut out, head, Some(usage));
    out.push(b'}');
    out
}

/// `,"usageMetadata":..,"modelVersion":..,"responseId":..`
pub(super) fn tail(out: &mut Vec<u8>, head: &Head, usage: Option<&Usage>) {
    if let Some(usage) = usage {
        out.extend_from_slice(b",\"usageMetadata\":");
        write_usage(out, usage);
    }
    out.extend_from_slice(b",\"modelVersion\":");
    put(out, &head.model);
    out.extend_from_slice(b",\"responseId\":");
    put(out, &head.id);
}

fn as_ref(seal: &Seal) -> SealRef<'_> {
    match seal {
        Seal::Signature(text) => SealRef::Signature(text),
        Seal::Redacted(text) => SealRef::Redacted(text),
        Seal::Encrypted { id, content } => SealRef::Encrypted { id, content },
    }
}

/// The content of a candidate that is being written: `{"content":{"parts":[..],"role":"model"}`.
/// It has at least one part, or Google's own clients drop the turn from their history.
pub(super) struct Parts<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Parts<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"content\":{\"parts\":[");
        Self { out, empty: true }
    }

    fn comma(&mut self) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
    }

    /// A text or a thought.
    pub(super) fn text(&mut self, text: &str, thought: bool, signature: Option<&str>) {
        self.comma();
        self.out.extend_from_slice(b"{\"text\":");
        put(self.out, text);
        if thought {
            self.out.extend_from_slice(b",\"thought\":true");
        }
        self.signature(signature);
    }

    /// A thought. A signature alone stands on an empty text, as Google's own do: whoever asks for
    /// no thoughts sees none, and brings it back.
    fn thought(&mut self, text: &str, signature: Option<&str>) {
        self.text(text, !text.is_empty(), signature);
    }

    fn signature(&mut self, signature: Option<&str>) {
        if let Some(signature) = signature {
            self.out.extend_from_slice(b",\"thoughtSignature\":");
            put(self.out, signature);
        }
        self.out.push(b'}');
    }

    /// Calls, unless their answer ends without them.
    pub(super) fn calls(&mut self, ending: &Ending<'_>, calls: &[Call]) {
        for (call, args) in calls.iter().zip(&ending.args) {
            let (id, signature) = seal::split(&call.id);
            self.comma();
            self.out.extend_from_slice(b"{\"functionCall\":{\"id\":");
            put(self.out, id);
            self.out.extend_from_slice(b",\"name\":");
            put(self.out, &call.name);
            self.out.extend_from_slice(b",\"args\":");
            self.out.extend_from_slice(args.as_bytes());
            self.out.push(b'}');
            self.signature(signature.as_deref());
        }
    }

    pub(super) fn close(mut self) {
        if self.empty {
            self.text("", false, None);
        }
        self.out.extend_from_slice(b"],\"role\":\"model\"}");
    }
}

/// How a candidate ends. Arguments are objects here: of an answer whose arguments are none no call
/// is told, and the reason is the one that Google has for it.
pub(super) struct Ending<'c> {
    reason: &'static str,
    message: Option<Cow<'c, str>>,
    /// Of all calls, or of none.
    args: Vec<Cow<'c, str>>,
}

impl<'c> Ending<'c> {
    pub(super) fn of(finish: Finish, refusal: Option<&'c str>, calls: &'c [Call]) -> Self {
        let refusal = refusal.filter(|words| !words.is_empty());
        let args: Option<Vec<_>> = calls.iter().map(|call| object(&call.arguments)).collect();
        let (reason, message) = match finish {
            _ if refusal.is_some() => ("SAFETY", refusal.map(Cow::from)),
            Finish::Refused => ("SAFETY", None),
            Finish::Length => ("MAX_TOKENS", None),
            Finish::Stop | Finish::ToolCalls if args.is_none() => {
                let wrong = calls.iter().find(|call| object(&call.arguments).is_none());
                let name = wrong.map_or("", |call| &call.name);
                let message = format!("The arguments of a call of '{name}' are not a JSON object.");
                ("MALFORMED_FUNCTION_CALL", Some(message.into()))
            }
            Finish::Stop | Finish::ToolCalls => ("STOP", None),
        };
        Self { reason, message, args: args.unwrap_or_default() }
    }

    /// `,"finishReason":..,"index":..`
    pub(super) fn write(&self, out: &mut Vec<u8>, index: u32) {
        out.extend_from_slice(b",\"finishReason\":");
        put(out, self.reason);
        if let Some(message) = &self.message {
            out.extend_from_slice(b",\"finishMessage\":");
            put(out, message);
        }
        out.extend_from_slice(b",\"index\":");
        put(out, &index);
    }
}

/// Arguments as a JSON object in one line, its numbers as they were written.
fn object(arguments: &str) -> Option<Cow<'_, str>> {
    let text = arguments.trim();
    if text.is_empty() {
        return Some("{}".into());
    }
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    if !raw.get().starts_with('{') {
        return None;
    }
    // Inside of strings JSON has no bare line ends.
    let lines = raw.get().contains(['\n', '\r']);
    Some(if lines { raw.get().replace(['\n', '\r'], "").into() } else { raw.get().into() })
}

/// `,"logprobsResult":{..}`, or nothing where there are none.
pub(super) fn logprobs(out: &mut Vec<u8>, entries: &[TokenLogprob]) {
    fn token(out: &mut Vec<u8>, id: u32, bytes: &[u8], logprob: f32) {
        out.extend_from_slice(b"{\"token\":");
        put(out, &*String::from_utf8_lossy(bytes));
        out.extend_from_slice(b",\"tokenId\":");
        put(out, &id);
        out.extend_from_slice(b",\"logProbability\":");
        put(out, &if logprob.is_finite() { logprob.max(LOGPROB_MIN) } else { LOGPROB_MIN });
        out.push(b'}');
    }
    if entries.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"logprobsResult\":{\"topCandidates\":");
    list(out, entries, |out, entry| {
        out.extend_from_slice(b"{\"candidates\":");
        list(out, &entry.top, |out, top| token(out, top.id, &top.bytes, top.logprob));
        out.push(b'}');
    });
    out.extend_from_slice(b",\"chosenCandidates\":");
    list(out, entries, |out, entry| {
        token(out, entry.id, &entry.bytes, entry.logprob.unwrap_or(LOGPROB_MIN));
    });
    out.push(b'}');
}

/// Thoughts are counted beside the candidates here, and what is zero is left out.
pub(super) fn write_usage(out: &mut Vec<u8>, usage: &Usage) {
    out.extend_from_slice(b"{\"promptTokenCount\":");
    put(out, &usage.prompt_tokens);
    if usage.cached_tokens > 0 {
        out.extend_from_slice(b",\"cachedContentTokenCount\":");
        put(out, &usage.cached_tokens);
    }
    out.extend_from_slice(b",\"candidatesTokenCount\":");
    put(out, &usage.completion_tokens.saturating_sub(usage.reasoning_tokens));
    if usage.reasoning_tokens > 0 {
        out.extend_from_slice(b",\"thoughtsTokenCount\":");
        put(out, &usage.reasoning_tokens);
    }
    out.extend_from_slice(b",\"totalTokenCount\":");
    put(out, &usage.prompt_tokens.saturating_add(usage.completion_tokens));
    out.push(b'}');
}

/// One model of the list, or the answer to `GET /v1beta/models/NAME`. `context` is in tokens, and
/// missing where nobody knows.
#[must_use]
pub fn model(id: &str, context: Option<usize>, output: usize) -> Value {
    let mut card = json!({
        "name": format!("models/{id}"),
        "version": id,
        "displayName": id,
        "outputTokenLimit": output,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    });
    if let Some(context) = context {
        card["inputTokenLimit"] = context.into();
    }
    card
}

/// The list of models, all on one page.
#[must_use]
pub fn models(models: &[Value]) -> Value {
    json!({"models": models})
}

/// `{"error":{"code":..,"message":..,"status":..,"details":[..]}}`. The code is the HTTP status
/// that Google has for such a failure.
#[must_use]
pub fn error(error: &ApiError) -> Vec<u8> {
    let (code, status) = match error.kind {
        ErrorKind::Invalid => (400, "INVALID_ARGUMENT"),
        ErrorKind::Unauthorized => (401, "UNAUTHENTICATED"),
        ErrorKind::Forbidden => (403, "PERMISSION_DENIED"),
        ErrorKind::NotFound => (404, "NOT_FOUND"),
        ErrorKind::Method => (405, "UNIMPLEMENTED"),
        ErrorKind::TooLarge => (413, "INVALID_ARGUMENT"),
        ErrorKind::Timeout => (408, "DEADLINE_EXCEEDED"),
        ErrorKind::Overloaded | ErrorKind::Quota => (429, "RESOURCE_EXHAUSTED"),
        ErrorKind::Upstream => (502, "UNAVAILABLE"),
        ErrorKind::Unavailable => (503, "UNAVAILABLE"),
        ErrorKind::Deadline => (504, "DEADLINE_EXCEEDED"),
        ErrorKind::Internal => (500, "INTERNAL"),
    };
    let mut body = json!({"code": code, "message": error.message, "status": status});
    let mut details = Vec::new();
    if let Some(code) = &error.code {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": code.to_ascii_uppercase(),
            "domain": "hearth",
        }));
    }
    if let Some(param) = &error.param {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": param, "description": error.message}],
        }));
    }
    if !details.is_empty() {
        body["details"] = details.into();
    }
    json!({"error": body}).to_string().into_bytes()
}
