//! What one event of a stream that is passed on says, as far as anybody here has to know it. No
//! event is parsed that says nothing of that.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::is_flex;
use super::numbers::Numbers;
use crate::dialect::Dialect;

/// What one event says.
#[derive(Default)]
pub(super) struct Look<'a> {
    pub(super) usage: Option<Numbers<'a>>,
    pub(super) flex: bool,
    pub(super) only_usage: bool,
    pub(super) piece: bool,
    /// The last event, by its name.
    pub(super) ends: bool,
    /// Choices that it is about, a bit for each of the first 64 (Gemini).
    pub(super) about: u64,
    /// Choices that end.
    pub(super) finished: Vec<u32>,
    pub(super) fails: bool,
    pub(super) block: Option<Block>,
}

/// What becomes of a content block (Messages).
pub(super) enum Block {
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
    #[serde(borrow)]
    choices: Option<Vec<Part<'a>>>,
    #[serde(borrow)]
    candidates: Option<Vec<Part<'a>>>,
    #[serde(rename = "promptFeedback")]
    feedback: Option<Feedback>,
    #[serde(borrow)]
    message: Option<Inner<'a>>,
    #[serde(borrow)]
    response: Option<Inner<'a>>,
    index: Option<u64>,
    error: Option<Value>,
    service_tier: Option<Value>,
}

/// What an event says of a choice. Raw, so that nothing in it makes an event unreadable.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    #[serde(borrow, alias = "finishReason")]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Feedback {
    #[serde(rename = "blockReason")]
    reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    usage: Option<Numbers<'a>>,
    service_tier: Option<Value>,
}

/// Looks at an event.
pub(super) fn look(dialect: Dialect, event: &[u8]) -> Look<'_> {
    let data = data(event);
    let mut look = Look::default();
    match dialect {
        Dialect::Chat | Dialect::Completions => return look_at_chunk(data),
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
            look.piece = fields.candidates.as_ref().is_some_and(|all| !all.is_empty());
            look.finished = finished(fields.candidates.as_deref());
            let all = fields.candidates.iter().flatten();
            look.about = all
                .filter_map(|part| 1_u64.checked_shl(number(part)))
                .fold(0, |all, one| all | one);
            // A prompt that is refused has no candidates.
            look.ends = fields.feedback.is_some_and(|feedback| feedback.reason.is_some());
            look.usage = fields.usage_metadata;
            look.fails = fields.error.is_some();
        }
    }
    look
}

/// One of chat or of plain completions.
fn look_at_chunk(data: &[u8]) -> Look<'_> {
    let mut look = Look::default();
    // In a text it says nothing.
    let finishes =
        has(data, text!(b"\"finish_reason\":\"")) || has(data, text!(b"\"finish_reason\": \""));
    look.ends = data.trim_ascii() == b"[DONE]";
    // The last one, of usage alone, has none.
    look.piece = has(data, text!(b"\"delta\"")) || has(data, text!(b"\"text\""));
    if !finishes
        && !has(data, text!(b"\"usage\":{"))
        && !has(data, text!(b"\"usage\": {"))
        && !has(data, text!(b"\"error\""))
    {
        return look;
    }
    let Some(fields) = fields(data) else {
        // It cannot be read, and is most likely of the only choice.
        look.finished.extend(finishes.then_some(0));
        return look;
    };
    look.only_usage = fields.choices.as_ref().is_some_and(Vec::is_empty);
    look.finished = finished(fields.choices.as_deref());
    look.flex = is_flex(fields.service_tier.as_ref());
    look.usage = fields.usage;
    look.fails = fields.error.is_some_and(|error| !error.is_null());
    look
}

/// Those of these choices that end.
fn finished(choices: Option<&[Part<'_>]>) -> Vec<u32> {
    let ends = |part: &&Part<'_>| {
        part.finish_reason.is_some_and(|reason| !matches!(reason.get(), "null" | "\"\""))
    };
    choices.unwrap_or_default().iter().filter(ends).map(number).collect()
}

/// One without a number is the first.
fn number(part: &Part<'_>) -> u32 {
    part.index.and_then(|index| index.get().parse().ok()).unwrap_or(0)
}

/// The data of an event with one line of it, which all providers write.
pub(crate) fn data(event: &[u8]) -> &[u8] {
    match text!(b"data:").find(event) {
        Some(at) => &event[at + 5..],
        None => &[],
    }
}

fn fields(data: &[u8]) -> Option<Fields<'_>> {
    serde_json::from_slice(data.trim_ascii()).ok()
}

fn has(bytes: &[u8], what: &Finder<'_>) -> bool {
    what.find(bytes).is_some()
}
