//! A provider's stream on its way to a caller who speaks the same dialect: passed on as it was
//! written, event by event, and only looked at: what was used, whether it came to its end, and how
//! it could be ended now. No event is parsed that says nothing of these.
//!
//! Half an event is never passed on: what is under way when a stream is cut is left out, and the
//! caller is told that it was cut.

mod numbers;
mod strip;
mod whole;

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::answer::Usage;
use crate::dialect::Dialect;
use crate::error::ApiError;
use crate::piece::Broken;
use numbers::Numbers;
pub use whole::{Whole, whole};

/// A text that is looked for in every event: prepared once.
macro_rules! text {
    ($text:literal) => {{
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new($text));
        &*FINDER
    }};
}

/// One stream.
#[derive(Debug)]
pub struct Relay {
    dialect: Dialect,
    /// The caller did not ask for the usage that the provider was asked for.
    strip: bool,
    /// Bytes of the event under way.
    held: Vec<u8>,
    /// Of these, already searched for an end.
    searched: usize,
    limit: usize,
    usage: Option<Usage>,
    /// The provider says that it served the request as a batch.
    flex: bool,
    /// Events that carry something of the answer: about one per token.
    pieces: u64,
    /// Events so far, as Responses numbers them.
    events: u64,
    ended: bool,
    failed: bool,
    /// The content block that is open, and the next one's number (Messages).
    block: Option<u64>,
    /// `"id":..,"object":..,"created":..,"model":..` of the first chunk (chat).
    head: Option<Value>,
}

impl Relay {
    /// Of a dialect; with `strip`, the usage at its end is left out. An event has at most `limit`
    /// bytes.
    #[must_use]
    pub fn new(dialect: Dialect, strip: bool, limit: usize) -> Self {
        Self {
            dialect,
            strip: strip && matches!(dialect, Dialect::Chat | Dialect::Completions),
            held: Vec::new(),
            searched: 0,
            limit,
            usage: None,
            flex: false,
            pieces: 0,
            events: 0,
            ended: false,
            failed: false,
            block: None,
            head: None,
        }
    }

    /// Takes bytes of the provider, and writes what may be passed on.
    ///
    /// # Errors
    /// An event is too long.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(end) = boundary(&self.held, self.searched.max(from)) {
            let event = &self.held[from..end];
            let look = look(self.dialect, event);
            if let Some(usage) = &look.usage {
                self.usage = Some(merge(self.dialect, self.usage, usage));
                self.flex = look.flex;
            }
            self.pieces += u64::from(look.piece);
            self.events += u64::from(!data(event).is_empty());
            self.ended |= look.ends;
            self.failed |= look.fails;
            match look.block {
                Some(Block::Opened(index)) => self.block = Some(index),
                Some(Block::Closed) => self.block = None,
                None => {}
            }
            if self.head.is_none() && self.strip_or_close() {
                self.head = head(event);
            }
            if !self.strip || look.usage.is_none() {
                pass(event, self.strip, out);
            } else if !look.only_usage {
                strip::without_usage(event, out);
            }
            (from, self.searched) = (end, end);
        }
        self.held.drain(..from);
        // An end may stand across two pieces.
        self.searched = self.held.len().saturating_sub(3);
        if self.held.len() > self.limit {
            return Err(Broken(format!("an event of more than {} bytes", self.limit)));
        }
        Ok(())
    }

    fn strip_or_close(&self) -> bool {
        matches!(self.dialect, Dialect::Chat | Dialect::Completions)
    }

    /// What was used, as far as the provider has said.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The provider says, with the usage, that it served the request as a batch.
    #[must_use]
    pub fn flex(&self) -> bool {
        self.flex
    }

    /// Events that carry something of the answer so far: about one per token.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// The provider has said that the answer is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The provider has said that it failed. The caller has read that too.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Ends the stream here as if the bound on new tokens had been met. Where the dialect cannot
    /// do that in the middle, the caller is told by an error.
    pub fn cut_short(&mut self, out: &mut Vec<u8>, notice: &ApiError) {
        match self.dialect {
            Dialect::Chat | Dialect::Completions => {
                let mut chunk = self.head.clone().unwrap_or_else(|| json!({}));
                let delta = if self.dialect == Dialect::Chat { "delta" } else { "text" };
                let nothing = if self.dialect == Dialect::Chat { json!({}) } else { json!("") };
                chunk["choices"] = json!([{"index": 0, delta: nothing, "finish_reason": "length"}]);
                event(out, "", &chunk);
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            Dialect::Messages => {
                if let Some(index) = self.block.take() {
                    let stop = json!({"type": "content_block_stop", "index": index});
                    event(out, "content_block_stop", &stop);
                }
                let delta = json!({"type": "message_delta",
                    "delta": {"stop_reason": "max_tokens", "stop_sequence": null},
                    "usage": {"output_tokens": self.pieces}});
                event(out, "message_delta", &delta);
                event(out, "message_stop", &json!({"type": "message_stop"}));
            }
            Dialect::Gemini => {
                let candidate = json!({"index": 0, "finishReason": "MAX_TOKENS",
                    "content": {"role": "model", "parts": []}});
                event(out, "", &json!({"candidates": [candidate]}));
            }
            _ => self.error(out, notice),
        }
        self.ended = true;
    }

    /// Says that the stream broke.
    pub fn error(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        match self.dialect {
            Dialect::Messages => {
                let body = json!({"type": "api_error", "message": error.message});
                event(out, "error", &json!({"type": "error", "error": body}));
            }
            Dialect::Responses => {
                let body = json!({"type": "error", "sequence_number": self.events,
                    "code": error.code, "message": error.message, "param": error.param});
                event(out, "error", &body);
            }
            Dialect::Gemini => {
                let body = json!({"code": 500, "message": error.message, "status": "INTERNAL"});
                event(out, "", &json!({"error": body}));
            }
            _ => {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(&crate::openai::answer::error(error));
                out.extend_from_slice(b"\n\n");
            }
        }
        self.failed = true;
    }
}

fn event(out: &mut Vec<u8>, name: &str, data: &Value) {
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Behind the empty line that ends the first event.
fn boundary(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(next) = memchr2(b'\n', b'\r', &bytes[at..]) {
        at += next;
        let rest = &bytes[at..];
        for end in [&b"\n\n"[..], b"\r\n\r\n", b"\r\r", b"\n\r\n"] {
            if rest.starts_with(end) {
                return Some(at + end.len());
            }
        }
        at += 1;
    }
    None
}

/// Passes an event on; without `"usage":null` where the caller did not ask for usage.
fn pass(event: &[u8], strip: bool, out: &mut Vec<u8>) {
    let null = text!(b",\"usage\":null");
    match strip.then(|| null.find(event)).flatten() {
        Some(at) => {
            out.extend_from_slice(&event[..at]);
            out.extend_from_slice(&event[at + null.needle().len()..]);
        }
        None => out.extend_from_slice(event),
    }
}

fn has(bytes: &[u8], what: &Finder<'_>) -> bool {
    what.find(bytes).is_some()
}

/// What one event says.
#[derive(Default)]
struct Look<'a> {
    usage: Option<Numbers<'a>>,
    flex: bool,
    only_usage: bool,
    piece: bool,
    ends: bool,
    fails: bool,
    block: Option<Block>,
}

enum Block {
    Opened(u64),
    Closed,
}

/// The fields that a look reads, of any dialect.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    usage: Option<Numbers<'a>>,
    #[serde(rename = "usageMetadata", borrow)]
    usage_metadata: Option<Numbers<'a>>,
    choices: Option<Vec<IgnoredAny>>,
    candidates: Option<Vec<Candidate>>,
    #[serde(borrow)]
    message: Option<Inner<'a>>,
    #[serde(borrow)]
    response: Option<Inner<'a>>,
    index: Option<u64>,
    error: Option<Value>,
    service_tier: Option<Value>,
}

#[derive(Deserialize)]
struct Candidate {
    #[serde(rename = "finishReason")]
    reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    usage: Option<Numbers<'a>>,
    service_tier: Option<Value>,
}

fn look(dialect: Dialect, event: &[u8]) -> Look<'_> {
    let data = data(event);
    let mut look = Look::default();
    match dialect {
        Dialect::Chat | Dialect::Completions => {
            // In a text it says nothing.
            look.ends = data.trim_ascii() == b"[DONE]"
                || has(data, text!(b"\"finish_reason\":\""))
                || has(data, text!(b"\"finish_reason\": \""));
            // The last one, of usage alone, has none.
            look.piece = has(data, text!(b"\"delta\"")) || has(data, text!(b"\"text\""));
            if !has(data, text!(b"\"usage\":{"))
                && !has(data, text!(b"\"usage\": {"))
                && !has(data, text!(b"\"error\""))
            {
                return look;
            }
            let Some(fields) = fields(data) else { return look };
            look.only_usage = fields.choices.is_some_and(|choices| choices.is_empty());
            look.flex = is_flex(fields.service_tier.as_ref());
            look.usage = fields.usage;
            look.fails = fields.error.is_some_and(|error| !error.is_null());
        }
        Dialect::Messages => {
            look.piece = has(data, text!(b"\"content_block_delta\""));
            if look.piece {
                return look;
            }
            look.ends = has(data, text!(b"\"message_stop\""));
            look.fails =
                has(data, text!(b"\"type\":\"error\"")) || has(data, text!(b"\"type\": \"error\""));
            let Some(fields) = fields(data) else { return look };
            if has(data, text!(b"\"content_block_start\"")) {
                look.block = fields.index.map(Block::Opened);
            } else if has(data, text!(b"\"content_block_stop\"")) {
                look.block = Some(Block::Closed);
            }
            look.usage = fields.message.and_then(|message| message.usage).or(fields.usage);
        }
        Dialect::Responses => {
            // Only what begins or ends has a response, in which any name may stand.
            look.piece = has(data, text!(b".delta\"")) && !has(data, text!(b"\"response\":{"));
            if look.piece {
                return look;
            }
            look.ends = has(data, text!(b"\"response.completed\""))
                || has(data, text!(b"\"response.incomplete\""));
            look.fails =
                has(data, text!(b"\"response.failed\"")) || has(data, text!(b"\"type\":\"error\""));
            if look.ends || look.fails {
                let response = fields(data).and_then(|fields| fields.response);
                let tier = response.as_ref().and_then(|response| response.service_tier.as_ref());
                look.flex = is_flex(tier);
                look.usage = response.and_then(|response| response.usage);
            }
        }
        _ => {
            let Some(fields) = fields(data) else { return look };
            let candidates = fields.candidates.unwrap_or_default();
            look.piece = !candidates.is_empty();
            look.ends = candidates.iter().any(|candidate| candidate.reason.is_some());
            look.usage = fields.usage_metadata;
            look.fails = fields.error.is_some();
        }
    }
    look
}

/// The data of an event with one line of it, which all providers write.
fn data(event: &[u8]) -> &[u8] {
    match text!(b"data:").find(event) {
        Some(at) => &event[at + 5..],
        None => &[],
    }
}

fn fields(data: &[u8]) -> Option<Fields<'_>> {
    serde_json::from_slice(data.trim_ascii()).ok()
}

/// The head of a chunk: what an event of our own needs to be one of the same stream.
fn head(event: &[u8]) -> Option<Value> {
    let whole: Value = serde_json::from_slice(data(event).trim_ascii()).ok()?;
    let keep = ["id", "object", "created", "model"];
    let kept =
        keep.into_iter().filter_map(|name| Some((name.to_owned(), whole.get(name)?.clone())));
    Some(Value::Object(kept.collect()))
}

/// Usage in a dialect's own words, as ours.
#[must_use]
pub fn usage(dialect: Dialect, value: &Value) -> Usage {
    let said = Numbers::deserialize(value).unwrap_or_default();
    merge(dialect, None, &said)
}

fn is_flex(tier: Option<&Value>) -> bool {
    tier.and_then(Value::as_str) == Some("flex")
}

/// What an event says, over what was known: some say only a part.
fn merge(dialect: Dialect, before: Option<Usage>, said: &Numbers<'_>) -> Usage {
    let before = before.unwrap_or_default();
    let number = |path: &[&str]| said.at(path);
    match dialect {
        Dialect::Messages => {
            let read = number(&["cache_read_input_tokens"]).unwrap_or(before.cached_tokens);
            let write =
                number(&["cache_creation_input_tokens"]).unwrap_or(before.cache_write_tokens);
            let apart = before.cached_tokens.saturating_add(before.cache_write_tokens);
            let fresh_before = before.prompt_tokens.saturating_sub(apart);
            let fresh = number(&["input_tokens"]).unwrap_or(fresh_before);
            Usage {
                prompt_tokens: fresh.saturating_add(read).saturating_add(write),
                cached_tokens: read,
                cache_write_tokens: write,
                completion_tokens: number(&["output_tokens"]).unwrap_or(before.completion_tokens),
                reasoning_tokens: number(&["output_tokens_details", "thinking_tokens"])
                    .unwrap_or(before.reasoning_tokens),
            }
        }
        Dialect::Responses => Usage {
            prompt_tokens: number(&["input_tokens"]).unwrap_or_default(),
            cached_tokens: number(&["input_tokens_details", "cached_tokens"]).unwrap_or_default(),
            cache_write_tokens: number(&["input_tokens_details", "cache_write_tokens"])
                .unwrap_or_default(),
            completion_tokens: number(&["output_tokens"]).unwrap_or_default(),
            reasoning_tokens: number(&["output_tokens_details", "reasoning_tokens"])
                .unwrap_or_default(),
        },
        Dialect::Gemini => {
            let thoughts = number(&["thoughtsTokenCount"]).unwrap_or(before.reasoning_tokens);
            let spoken = number(&["candidatesTokenCount"]);
            let said_before = before.completion_tokens - before.reasoning_tokens;
            Usage {
                prompt_tokens: number(&["promptTokenCount"]).unwrap_or(before.prompt_tokens),
                cached_tokens: number(&["cachedContentTokenCount"]).unwrap_or(before.cached_tokens),
                cache_write_tokens: 0,
                completion_tokens: spoken.unwrap_or(said_before).saturating_add(thoughts),
                reasoning_tokens: thoughts,
            }
        }
        Dialect::Embeddings | Dialect::Rerank | Dialect::Score => {
            // Nothing is made, so that some say the sum alone.
            let prompt = number(&["prompt_tokens"]).or(number(&["total_tokens"]));
            Usage { prompt_tokens: prompt.unwrap_or_default(), ..Usage::default() }
        }
        _ => {
            let cached = number(&["prompt_tokens_details", "cached_tokens"]);
            Usage {
                prompt_tokens: number(&["prompt_tokens"]).unwrap_or_default(),
                cached_tokens: cached.or(number(&["prompt_cache_hit_tokens"])).unwrap_or_default(),
                cache_write_tokens: number(&["prompt_tokens_details", "cache_write_tokens"])
                    .unwrap_or_default(),
                completion_tokens: number(&["completion_tokens"]).unwrap_or_default(),
                reasoning_tokens: number(&["completion_tokens_details", "reasoning_tokens"])
                    .unwrap_or_default(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = concat!(
        "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"a\"},\"new\":1}],\"usage\":null}\n\n",
        ": ping\r\n\r\n",
        "data: {\"id\":\"x\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n"
    );

    fn relay(dialect: Dialect, strip: bool, pieces: &[&[u8]]) -> (Relay, String) {
        let mut relay = Relay::new(dialect, strip, 1 << 16);
        let mut out = Vec::new();
        for piece in pieces {
            relay.push(piece, &mut out).expect("short events");
        }
        (relay, String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn passed_on_as_it_was_in_any_pieces() {
        for at in 0..CHAT.len() {
            let (one, two) = CHAT.as_bytes().split_at(at);
            let (relay, out) = relay(Dialect::Chat, false, &[one, two]);
            assert_eq!(out, CHAT, "cut at {at}");
            assert!(relay.ended() && !relay.failed());
            assert_eq!(relay.usage().map(|u| (u.prompt_tokens, u.completion_tokens)), Some((3, 2)));
            assert_eq!(relay.pieces(), 2);
        }
        let single: Vec<&[u8]> = CHAT.as_bytes().chunks(1).collect();
        assert_eq!(relay(Dialect::Chat, false, &single).1, CHAT);
    }

    #[test]
    fn how_it_was_served_is_told_with_the_usage() {
        let told = |text: &str| relay(Dialect::Chat, false, &[text.as_bytes()]).0.flex();
        let usage = "\"usage\":{\"prompt_tokens\":3}";
        assert!(told(&format!("data: {{\"choices\":[],\"service_tier\":\"flex\",{usage}}}\n\n")));
        for not in [
            format!("data: {{\"choices\":[],\"service_tier\":\"default\",{usage}}}\n\n"),
            format!(
                "data: {{\"choices\":[],\"metadata\":{{\"service_tier\":\"flex\"}},{usage}}}\n\n"
            ),
            "data: {\"choices\":[{}],\"service_tier\":\"flex\"}\n\n".to_owned(),
        ] {
            assert!(!told(&not), "{not}");
        }
        let whole = |tier: &str| {
            let end = format!(
                "data: {{\"type\":\"response.completed\",\"response\":{{\"metadata\":\
                 {{\"service_tier\":\"flex\"}},\"service_tier\":\"{tier}\",{usage}}}}}\n\n"
            );
            relay(Dialect::Responses, false, &[end.as_bytes()]).0.flex()
        };
        assert!(whole("flex") && !whole("default"));
    }

    #[test]
    fn usage_that_nobody_asked_for_is_left_out() {
        let (relay, out) = relay(Dialect::Chat, true, &[CHAT.as_bytes()]);
        assert!(!out.contains("usage") && out.ends_with("data: [DONE]\n\n"), "{out}");
        assert_eq!(relay.usage().map(|usage| usage.completion_tokens), Some(2));
        // LiteLLM's last chunk has a choice beside it, and others tell it with the end.
        let beside = CHAT.replace("[],", "[{\"delta\":{}}],");
        let (relay, out) = self::relay(Dialect::Chat, true, &[beside.as_bytes()]);
        assert!(!out.contains("usage") && out.contains("[{\"delta\":{}}]}\n\n"), "{out}");
        assert_eq!(relay.usage().map(|usage| usage.completion_tokens), Some(2));
    }

    #[test]
    fn half_an_event_is_no_event() {
        let (mut relay, out) = relay(Dialect::Chat, false, &[&CHAT.as_bytes()[..90]]);
        assert_eq!(out.matches("data:").count(), 1, "{out}");
        assert!(!relay.ended());
        let mut rest = Vec::new();
        relay.error(&mut rest, &ApiError::new(crate::ErrorKind::Upstream, "c", "m"));
        assert!(String::from_utf8_lossy(&rest).starts_with("data: {\"error\":"));
    }

    #[test]
    fn messages_end_well_nested() {
        let stream = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":7}}}\n\n",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1}\n\n",
        );
        let (mut relay, _) = relay(Dialect::Messages, false, &[stream.as_bytes()]);
        let usage = relay.usage().expect("said");
        assert_eq!((usage.prompt_tokens, usage.cached_tokens), (12, 7));
        let mut out = Vec::new();
        relay.cut_short(&mut out, &ApiError::new(crate::ErrorKind::Quota, "c", "m"));
        let out = String::from_utf8(out).expect("UTF-8");
        let order: Vec<_> = out.lines().filter(|line| line.starts_with("event")).collect();
        let expect = ["event: content_block_stop", "event: message_delta", "event: message_stop"];
        assert_eq!(order, expect);
        assert!(out.contains("\"index\":1"));
    }

    #[test]
    fn bounded() {
        let mut relay = Relay::new(Dialect::Chat, false, 100);
        assert!(relay.push(&[b'x'; 101], &mut Vec::new()).is_err());
    }
}
