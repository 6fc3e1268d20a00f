//! A provider's stream on its way to a caller who speaks the same dialect: passed on as it was
//! written, event by event, and only looked at: what was used, whether it came to its end, and how
//! it could be ended now. No event is parsed that says nothing of these.
//!
//! Half an event is never passed on: what is under way when a stream is cut is left out, and the
//! caller is told that it was cut.

/// A text that is looked for in every event: prepared once.
macro_rules! text {
    ($text:literal) => {{
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new($text));
        &*FINDER
    }};
}

mod announced;
mod choices;
mod look;
mod numbers;
mod strip;
mod whole;

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Usage;
use crate::dialect::Dialect;
use crate::error::ApiError;
use crate::piece::Broken;
use choices::Choices;
pub(crate) use look::data;
use look::{Block, look};
use numbers::Numbers;
pub use whole::{Whole, whole};

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
    /// Something of the answer has come, and not only what announces it.
    carries: bool,
    choices: Choices,
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
            carries: false,
            choices: Choices::new(1),
            ended: false,
            failed: false,
            block: None,
            head: None,
        }
    }

    /// Of an answer with so many choices: it is over when all of them are.
    #[must_use]
    pub fn with_choices(self, choices: u32) -> Self {
        Self { choices: Choices::new(choices), ..self }
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
            self.carries = self.carries || announced::carries(self.dialect, data(event));
            self.choices.begin(look.about);
            self.ended |= look.ends || self.choices.finish(&look.finished);
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

    /// Events so far, comments apart.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Something of the answer has come, its end or a failure, and not only what announces it.
    #[must_use]
    pub fn carries(&self) -> bool {
        self.carries
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

    /// Nothing is missing where the provider's body ends here.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.ended || self.choices.are_those_that_came()
    }

    /// The provider has said that the answer is over: all choices that were asked for.
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
                let end =
                    |index| json!({"index": index, delta: nothing, "finish_reason": "length"});
                let ends: Vec<Value> = self.choices.open().map(end).collect();
                if !ends.is_empty() {
                    chunk["choices"] = ends.into();
                    event(out, "", &chunk);
                }
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
                let end = |index| {
                    json!({"index": index, "finishReason": "MAX_TOKENS",
                        "content": {"role": "model", "parts": []}})
                };
                let ends: Vec<Value> = self.choices.open().map(end).collect();
                if !ends.is_empty() {
                    event(out, "", &json!({"candidates": ends}));
                }
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

pub(crate) fn event(out: &mut Vec<u8>, name: &str, data: &Value) {
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
pub(crate) fn boundary(bytes: &[u8], from: usize) -> Option<usize> {
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

    /// The first choice's end looked like that of the answer, and the rest was cut off after it.
    #[test]
    fn one_of_several_choices_is_not_the_answer() {
        let chat = |index: u32, reason: &str| {
            format!(
                "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":{reason}}}],\
                 \"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":2}}}}\n\n"
            )
        };
        let google = |index: u32, reason: &str| {
            let index = if index == 0 { String::new() } else { format!("\"index\":{index},") };
            format!("data: {{\"candidates\":[{{{index}\"finishReason\":{reason}}}]}}\n\n")
        };
        let push = |relay: &mut Relay, event: &str| {
            relay.push(event.as_bytes(), &mut Vec::new()).expect("short");
            relay.ended()
        };
        for (dialect, event) in [
            (Dialect::Chat, &chat as &dyn Fn(u32, &str) -> String),
            (Dialect::Completions, &chat),
            (Dialect::Gemini, &google),
        ] {
            let mut relay = Relay::new(dialect, false, 1 << 16).with_choices(2);
            for not in
                [event(1, "null"), event(1, "\"stop\""), event(1, "\"stop\""), event(0, "null")]
            {
                assert!(!push(&mut relay, &not), "{dialect:?} {not}");
            }
            // Some servers say it in every chunk, and mean nothing by it.
            assert!(!push(&mut relay, &event(0, "\"\"")), "{dialect:?}");
            assert!(push(&mut relay, &event(0, "\"length\"")), "{dialect:?}");
            // One that nobody asked for more of is over at once.
            let mut relay = Relay::new(dialect, false, 1 << 16);
            assert!(push(&mut relay, &event(0, "\"stop\"")), "{dialect:?}");
        }
        // The dialect's own word ends all.
        let mut relay = Relay::new(Dialect::Chat, false, 1 << 16).with_choices(2);
        assert!(push(&mut relay, "data: [DONE]\n\n"));
        let mut relay = Relay::new(Dialect::Gemini, false, 1 << 16).with_choices(2);
        assert!(push(&mut relay, "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n"));
    }

    #[test]
    fn all_choices_under_way_are_cut_short() {
        let ended = |dialect, event: &str, choices: u32| {
            let mut relay = Relay::new(dialect, false, 1 << 16).with_choices(choices);
            relay.push(event.as_bytes(), &mut Vec::new()).expect("short");
            let mut out = Vec::new();
            relay.cut_short(&mut out, &ApiError::new(crate::ErrorKind::Quota, "c", "m"));
            assert!(relay.ended());
            let out = String::from_utf8(out).expect("UTF-8");
            let numbers = out.split("\"index\":").skip(1).filter_map(|rest| rest.chars().next());
            numbers.collect::<String>()
        };
        let chat =
            "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let google = "data: {\"candidates\":[{\"index\":1,\"finishReason\":\"STOP\"}]}\n\n";
        for (dialect, event) in [(Dialect::Chat, chat), (Dialect::Gemini, google)] {
            assert_eq!(ended(dialect, event, 3), "02");
            assert_eq!(ended(dialect, "data: {}\n\n", 1), "0");
            assert_eq!(ended(dialect, event, 1), "", "it has ended");
        }
    }

    #[test]
    fn a_comment_is_no_event() {
        let begun = |text: &str| {
            let (relay, out) = relay(Dialect::Chat, false, &[text.as_bytes()]);
            assert_eq!(out, text);
            (relay.events(), relay.carries())
        };
        let comments = ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n";
        assert_eq!(begun(comments), (0, false));
        let role =
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        assert_eq!(begun(&format!("{comments}{role}")), (1, false));
        assert_eq!(begun(&format!("{comments}{role}{CHAT}")), (5, true));
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
