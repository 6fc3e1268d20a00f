//! What a provider that speaks Responses answers: whole or in a stream. Items of kinds that the
//! internal model has no word for, and events that only add to others, are skipped; what a
//! provider forgets to stream is taken from the item when it is done.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::seal;
use crate::answer::{Answer, Call, Choice, Finish, TokenLogprob, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::openai::read_logprob;
use crate::piece::{self, Broken, Delta, Piece, Said, SealRef};
use crate::provider;
use crate::request::{Seal, Thought};

/// Items that one answer may have: a bound on what a stranger makes us remember.
const ITEMS_MAX: usize = 1024;

/// An event of which there are many.
#[derive(Deserialize)]
struct Little<'a> {
    #[serde(default)]
    output_index: u64,
    #[serde(default, borrow)]
    delta: Option<Cow<'a, str>>,
    #[serde(default)]
    logprobs: Option<Vec<Value>>,
}

/// Where an event's kind stands if it has no name.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

/// Reads a stream of events.
#[derive(Debug, Default)]
pub struct Reader {
    begun: bool,
    done: bool,
    /// What was said of each item, by its place in the output.
    items: BTreeMap<u64, Spoken>,
    calls: u32,
}

#[derive(Debug, Default, Clone, Copy)]
struct Spoken {
    /// Its number, where it is a call that has begun.
    call: Option<u32>,
    /// Something of its content came.
    begun: bool,
    /// All of it came.
    done: bool,
}

impl Reader {
    /// Of a new stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn spoken(&mut self, index: u64) -> Result<&mut Spoken, Broken> {
        if self.items.len() >= ITEMS_MAX && !self.items.contains_key(&index) {
            return Err(Broken("too many items".into()));
        }
        Ok(self.items.entry(index).or_default())
    }

    fn begin(&mut self, response: &Value, said: &mut dyn FnMut(Said<'_>)) {
        if !self.begun {
            self.begun = true;
            said(Said::Begun { id: text(response, "id"), model: text(response, "model") });
        }
    }

    /// More of an item's content.
    fn more(
        &mut self,
        data: &str,
        said: &mut dyn FnMut(Said<'_>),
        delta: for<'d> fn(&'d str) -> Delta<'d>,
    ) -> Result<(), Broken> {
        let event: Little<'_> = provider::json(data)?;
        let Some(text) = event.delta.as_deref() else { return Ok(()) };
        self.spoken(event.output_index)?.begun = true;
        let entries: Vec<TokenLogprob> =
            event.logprobs.iter().flatten().map(read_logprob).collect();
        let logprobs = (!entries.is_empty()).then_some(&entries[..]);
        if !text.is_empty() {
            said(Said::Piece(Piece { delta: delta(text), logprobs, ..Piece::default() }));
        } else if logprobs.is_some() {
            said(Said::Piece(Piece { logprobs, ..Piece::default() }));
        }
        Ok(())
    }

    fn arguments(&mut self, data: &str, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let event: Little<'_> = provider::json(data)?;
        let spoken = self.spoken(event.output_index)?;
        // Of a call that has not begun all comes with the item.
        let (Some(index), Some(text)) = (spoken.call, event.delta.as_deref()) else {
            return Ok(());
        };
        if !text.is_empty() {
            spoken.begun = true;
            say(said, Delta::Arguments { index, text });
        }
        Ok(())
    }

    /// A summary has parts, and nothing between them.
    fn summary_part(&mut self, data: &str, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let event: Value = provider::json(data)?;
        if event.get("summary_index").and_then(Value::as_u64).is_some_and(|index| index > 0) {
            say(said, Delta::Reasoning(SUMMARY_BREAK));
        }
        Ok(())
    }

    fn begin_call(
        &mut self,
        index: u64,
        item: &Value,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<u32, Broken> {
        if let Some(call) = self.spoken(index)?.call {
            return Ok(call);
        }
        let name = text(item, "name");
        if name.is_empty() {
            return Err(Broken("a call without a name".into()));
        }
        let call = self.calls;
        self.calls += 1;
        say(said, Delta::CallStart { index: call, id: call_id(item), name });
        self.spoken(index)?.call = Some(call);
        Ok(call)
    }

    fn added(&mut self, data: &str, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let event: Value = provider::json(data)?;
        let index = event.get("output_index").and_then(Value::as_u64).unwrap_or_default();
        let item = event.get("item").unwrap_or(&Value::Null);
        self.spoken(index)?;
        if text(item, "type") == "function_call" {
            self.begin_call(index, item, said)?;
        }
        Ok(())
    }

    /// An item is whole: what was not said of it is said now.
    fn done(
        &mut self,
        index: u64,
        item: &Value,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        let spoken = self.spoken(index)?;
        if std::mem::replace(&mut spoken.done, true) {
            return Ok(());
        }
        let quiet = !spoken.begun;
        match text(item, "type") {
            "message" if quiet => {
                for part in parts(item, "content") {
                    let entries = logprobs(part);
                    let logprobs = (!entries.is_empty()).then_some(&entries[..]);
                    let delta = match text(part, "type") {
                        "output_text" => Delta::Content(text(part, "text")),
                        "refusal" => Delta::Refusal(text(part, "refusal")),
                        _ => continue,
                    };
                    if !matches!(delta, Delta::Content("") | Delta::Refusal("")) {
                        said(Said::Piece(Piece { delta, logprobs, ..Piece::default() }));
                    }
                }
            }
            "function_call" => {
                let call = self.begin_call(index, item, said)?;
                let arguments = text(item, "arguments");
                if quiet && !arguments.is_empty() {
                    say(said, Delta::Arguments { index: call, text: arguments });
                }
            }
            "reasoning" => {
                let thought = thought(item);
                if quiet && !thought.text.is_empty() {
                    say(said, Delta::Reasoning(&thought.text));
                }
                if let Some(seal) = &thought.seal {
                    say(said, Delta::Seal(lent(seal)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The response came to its end.
    fn ended(&mut self, data: &str, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let event: Value = provider::json(data)?;
        let response = event.get("response").unwrap_or(&Value::Null);
        self.begin(response, said);
        // Some providers stream nothing of an item, or leave its end out.
        for (index, item) in (0..).zip(parts(response, "output")) {
            self.done(index, item, said)?;
        }
        if let Some(error) = failure(response) {
            said(Said::Failed(error));
        } else {
            let finish = Some(finish(response, self.calls > 0));
            said(Said::Piece(Piece { finish, ..Piece::default() }));
            if let Some(usage) = usage(response) {
                said(Said::Usage(usage));
            }
            said(Said::Done);
        }
        self.done = true;
        Ok(())
    }
}

/// Between parts of a summary.
const SUMMARY_BREAK: &str = "\n\n";

impl piece::Reader for Reader {
    fn event(
        &mut self,
        name: &str,
        data: &str,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        if self.done || data.trim() == "[DONE]" {
            return Ok(());
        }
        let kind = match name {
            "" => provider::json::<Kind<'_>>(data)?.kind.unwrap_or_default(),
            name => Cow::Borrowed(name),
        };
        match &*kind {
            "response.output_text.delta" => self.more(data, said, |text| Delta::Content(text)),
            "response.refusal.delta" => self.more(data, said, |text| Delta::Refusal(text)),
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                self.more(data, said, |text| Delta::Reasoning(text))
            }
            "response.reasoning_summary_part.added" => self.summary_part(data, said),
            "response.function_call_arguments.delta" => self.arguments(data, said),
            "response.output_item.added" => self.added(data, said),
            "response.output_item.done" => {
                let event: Value = provider::json(data)?;
                let index = event.get("output_index").and_then(Value::as_u64).unwrap_or_default();
                self.done(index, event.get("item").unwrap_or(&Value::Null), said)
            }
            "response.created" | "response.queued" | "response.in_progress" => {
                let event: Value = provider::json(data)?;
                self.begin(event.get("response").unwrap_or(&Value::Null), said);
                Ok(())
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.ended(data, said)
            }
            "error" => {
                let event: Value = provider::json(data)?;
                self.done = true;
                said(Said::Failed(kinder(event.get("error").unwrap_or(&event))));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, _said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        if self.done {
            return Ok(());
        }
        Err(Broken("the stream ended in the middle of an answer".into()))
    }
}

/// Reads a whole answer.
///
/// # Errors
/// It is none, or it failed.
pub fn read_answer(body: &[u8]) -> Result<Answer, Broken> {
    let response: Value = provider::json(provider::utf8(body)?)?;
    if response.get("output").is_none_or(|output| !output.is_array()) {
        return Err(Broken("it has no output".into()));
    }
    if let Some(error) = failure(&response) {
        return Err(Broken(error.message));
    }
    let mut choice = Choice::text(0, "", Finish::Stop);
    let mut entries = Vec::new();
    for item in parts(&response, "output") {
        match text(item, "type") {
            "message" => {
                for part in parts(item, "content") {
                    match text(part, "type") {
                        "output_text" => {
                            choice.text.push_str(text(part, "text"));
                            entries.extend(logprobs(part));
                        }
                        "refusal" => {
                            let refusal = choice.refusal.get_or_insert_default();
                            refusal.push_str(text(part, "refusal"));
                        }
                        _ => {}
                    }
                }
            }
            "function_call" => choice.tool_calls.push(Call {
                id: call_id(item).to_owned(),
                name: text(item, "name").to_owned(),
                arguments: text(item, "arguments").to_owned(),
            }),
            "reasoning" => choice.thoughts.push(thought(item)),
            _ => {}
        }
    }
    choice.thoughts.retain(|thought| *thought != Thought::default());
    choice.finish = finish(&response, !choice.tool_calls.is_empty());
    choice.logprobs = (!entries.is_empty()).then_some(entries);
    Ok(Answer {
        id: text(&response, "id").to_owned(),
        model: text(&response, "model").to_owned(),
        choices: vec![choice],
        usage: usage(&response),
    })
}

fn say(said: &mut dyn FnMut(Said<'_>), delta: Delta<'_>) {
    said(Said::Piece(Piece { delta, ..Piece::default() }));
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn parts<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn logprobs(part: &Value) -> Vec<TokenLogprob> {
    parts(part, "logprobs").iter().map(read_logprob).collect()
}

fn call_id(item: &Value) -> &str {
    Some(text(item, "call_id")).filter(|id| !id.is_empty()).unwrap_or(text(item, "id"))
}

/// Thoughts in words or, where there are none, their summary.
pub(super) fn words(item: &Value) -> String {
    let words = |name: &str, between: &str| {
        let words: Vec<&str> = parts(item, name).iter().map(|part| text(part, "text")).collect();
        words.join(between)
    };
    let shown = Some(words("content", "")).filter(|words| !words.is_empty());
    shown.unwrap_or_else(|| words("summary", SUMMARY_BREAK))
}

fn thought(item: &Value) -> Thought {
    let shown = words(item);
    match text(item, "encrypted_content") {
        "" => Thought::of(shown),
        sealed => {
            let plain = Thought::of(&*shown);
            seal::open(text(item, "id"), sealed, shown).unwrap_or(plain)
        }
    }
}

fn lent(seal: &Seal) -> SealRef<'_> {
    match seal {
        Seal::Signature(text) => SealRef::Signature(text),
        Seal::Redacted(text) => SealRef::Redacted(text),
        Seal::Encrypted { id, content } => SealRef::Encrypted { id, content },
    }
}

fn finish(response: &Value, calls: bool) -> Finish {
    let reason = response.get("incomplete_details").map(|details| text(details, "reason"));
    match (text(response, "status"), reason) {
        ("incomplete", Some("content_filter")) => Finish::Refused,
        ("incomplete", _) => Finish::Length,
        _ if calls => Finish::ToolCalls,
        _ => Finish::Stop,
    }
}

fn usage(response: &Value) -> Option<Usage> {
    let usage = response.get("usage").filter(|usage| usage.is_object())?;
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
    let detail = |of: &str, name: &str| usage.get(of).and_then(|all| number(all, name));
    Some(Usage {
        prompt_tokens: number(usage, "input_tokens").unwrap_or_default(),
        cached_tokens: detail("input_tokens_details", "cached_tokens").unwrap_or_default(),
        cache_write_tokens: detail("input_tokens_details", "cache_write_tokens")
            .unwrap_or_default(),
        completion_tokens: number(usage, "output_tokens").unwrap_or_default(),
        reasoning_tokens: detail("output_tokens_details", "reasoning_tokens").unwrap_or_default(),
    })
}

/// What a response says of its failure, if it has failed.
fn failure(response: &Value) -> Option<ApiError> {
    let failed = matches!(text(response, "status"), "failed" | "cancelled");
    let error = response.get("error").filter(|error| !error.is_null());
    (failed || error.is_some()).then(|| kinder(error.unwrap_or(&Value::Null)))
}

/// An error in a stream has no status, but a code.
fn kinder(error: &Value) -> ApiError {
    let mut read = provider::error_of(500, Some(error));
    read.kind = match read.code.as_deref() {
        Some("rate_limit_exceeded" | "rate_limit_error") => ErrorKind::Overloaded,
        Some("insufficient_quota") => ErrorKind::Quota,
        Some("server_is_overloaded" | "slow_down") => ErrorKind::Unavailable,
        Some(code) if code.starts_with("invalid") || code == "context_length_exceeded" => {
            ErrorKind::Invalid
        }
        _ => read.kind,
    };
    read
}
