//! What a provider that speaks OpenAI's chat answers: whole, in a stream, or with an error. Read
//! for what is there, not for what should be: servers that call themselves compatible leave out
//! indexes, repeat names, forget the last event. What only adds to the dialect is skipped.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::calls::{self, Calls};
use crate::answer::{Answer, Call, Choice, Finish, TokenLogprob, TopLogprob, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::piece::{self, Broken, Delta, Piece, Said};
use crate::provider;
use crate::request::Thought;

/// Choices that one answer may have: a bound on what a stranger makes us remember.
const MANY: u32 = 1024;

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(default)]
    choices: Option<Vec<Part<'a>>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default)]
    error: Option<Value>,
}

/// A choice of a chunk or of a whole answer; of plain completions too.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow, alias = "message")]
    delta: Option<Turn<'a>>,
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    logprobs: Option<Value>,
    /// vLLM: the stop string or token that ended it.
    #[serde(default)]
    stop_reason: Option<Value>,
}

#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(default, borrow)]
    content: Option<Words<'a>>,
    #[serde(default, borrow)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    reasoning: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    refusal: Option<Cow<'a, str>>,
    #[serde(default)]
    tool_calls: Option<Vec<CallPart<'a>>>,
}

/// What a turn says.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    /// Mistral's models that think: thoughts and texts, each in its chunk.
    Chunks(Vec<Value>),
}

#[derive(Deserialize)]
struct CallPart<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(default, borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    arguments: Option<Value>,
    #[serde(skip)]
    _text: std::marker::PhantomData<&'a ()>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek.
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl Words<'_> {
    /// Says what is not empty, in its order. Chunks of other types, such as references, are no
    /// text.
    fn each(&self, mut say: impl FnMut(Delta<'_>)) {
        let text =
            |chunk| Value::as_str(Value::get(chunk, "text")?).filter(|text| !text.is_empty());
        let chunks = match self {
            Self::Text(text) if text.is_empty() => return,
            Self::Text(text) => return say(Delta::Content(text)),
            Self::Chunks(chunks) => chunks,
        };
        for chunk in chunks {
            match chunk.get("type").and_then(Value::as_str) {
                Some("text") => text(chunk).into_iter().for_each(|said| say(Delta::Content(said))),
                Some("thinking") => {
                    let thoughts = list(chunk, "thinking").iter().filter_map(text);
                    thoughts.for_each(|thought| say(Delta::Reasoning(thought)));
                }
                _ => {}
            }
        }
    }
}

impl CallPart<'_> {
    fn said(&self) -> calls::Said<'_> {
        let function = self.function.as_ref();
        let arguments = match function.and_then(|function| function.arguments.as_ref()) {
            None | Some(Value::Null) => Cow::Borrowed(""),
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            // Ollama once wrote the object itself.
            Some(value) => Cow::Owned(value.to_string()),
        };
        calls::Said {
            index: self.index,
            id: self.id.as_deref().filter(|id| !id.is_empty()),
            name: function.and_then(|function| function.name.as_deref()),
            arguments,
        }
    }
}

impl Tokens {
    fn usage(&self) -> Usage {
        let prompt = self.prompt_tokens_details.as_ref();
        let cached = prompt.and_then(|details| details.cached_tokens);
        let made = self.completion_tokens_details.as_ref();
        Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or_default(),
            cached_tokens: cached.or(self.prompt_cache_hit_tokens).unwrap_or_default(),
            cache_write_tokens: prompt.and_then(|d| d.cache_write_tokens).unwrap_or_default(),
            completion_tokens: self.completion_tokens.unwrap_or_default(),
            reasoning_tokens: made.and_then(|d| d.reasoning_tokens).unwrap_or_default(),
        }
    }
}

fn finish(name: &str, calls: bool) -> Finish {
    match name {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::Refused,
        // Some servers say "stop" after calls.
        _ if calls => Finish::ToolCalls,
        _ => Finish::Stop,
    }
}

/// Reads a stream of chunks.
#[derive(Debug, Default)]
pub struct Reader {
    begun: bool,
    choices: Vec<State>,
    done: bool,
}

/// What is known of one choice.
#[derive(Debug, Default)]
struct State {
    calls: Calls,
    finished: bool,
}

impl Reader {
    /// Of a new stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&mut self, index: u32) -> Result<&mut State, Broken> {
        if index >= MANY {
            return Err(Broken(format!("a choice has the number {index}")));
        }
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, State::default);
        }
        Ok(&mut self.choices[at])
    }

    /// The sender says that all is said. Some forget the reason why a choice ended.
    fn whole(&mut self, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        if self.choices.is_empty() {
            return Err(Broken("the stream has no choices".into()));
        }
        self.done = true;
        for (index, state) in (0..).zip(&mut self.choices).filter(|(_, state)| !state.finished) {
            let mut say = |delta: Delta<'_>| {
                said(Said::Piece(Piece { index, delta, ..Piece::default() }));
            };
            state.calls.end(&mut say);
            let finish = Some(finish("", !state.calls.is_empty()));
            said(Said::Piece(Piece { index, finish, ..Piece::default() }));
        }
        said(Said::Done);
        Ok(())
    }

    fn part(&mut self, part: &Part<'_>, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let index = part.index;
        let state = self.state(index)?;
        if state.finished {
            return Ok(());
        }
        let entries = part.logprobs.as_ref().map(logprobs);
        let mut logprobs = entries.as_deref().filter(|entries| !entries.is_empty());
        let mut say = |delta: Delta<'_>| {
            let logprobs = logprobs.take();
            said(Said::Piece(Piece { index, delta, logprobs, ..Piece::default() }));
        };
        if let Some(turn) = &part.delta {
            let thoughts = turn.reasoning_content.as_deref().or(turn.reasoning.as_deref());
            let some = |text: &&str| !text.is_empty();
            thoughts.filter(some).into_iter().for_each(|text| say(Delta::Reasoning(text)));
            turn.content.iter().for_each(|words| words.each(&mut say));
            let refusal = turn.refusal.as_deref().filter(some);
            refusal.into_iter().for_each(|text| say(Delta::Refusal(text)));
            for call in turn.tool_calls.iter().flatten() {
                state.calls.take(&call.said(), &mut say)?;
            }
        }
        if let Some(text) = part.text.as_deref().filter(|text| !text.is_empty()) {
            say(Delta::Content(text));
        }
        if let Some(reason) = part.finish_reason.as_deref().filter(|reason| !reason.is_empty()) {
            state.finished = true;
            state.calls.end(&mut say);
            let finish = Some(finish(reason, !state.calls.is_empty()));
            let stop = part.stop_reason.as_ref().and_then(Value::as_str);
            said(Said::Piece(Piece { index, finish, stop, ..Piece::default() }));
        }
        Ok(())
    }
}

impl piece::Reader for Reader {
    fn event(
        &mut self,
        _name: &str,
        data: &str,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        if self.done {
            return Ok(());
        }
        if data.trim() == "[DONE]" {
            return self.whole(said);
        }
        let chunk: Chunk<'_> = provider::json(data)?;
        if let Some(error) = &chunk.error {
            self.done = true;
            said(Said::Failed(provider::error_of(500, Some(error))));
            return Ok(());
        }
        if !self.begun {
            self.begun = true;
            let (id, model) = (chunk.id.as_deref(), chunk.model.as_deref());
            said(Said::Begun { id: id.unwrap_or_default(), model: model.unwrap_or_default() });
        }
        for part in chunk.choices.iter().flatten() {
            self.part(part, said)?;
        }
        if let Some(usage) = &chunk.usage {
            said(Said::Usage(usage.usage()));
        }
        Ok(())
    }

    fn end(&mut self, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        if self.done {
            return Ok(());
        }
        // Some servers forget the last event; a finish in every choice is as good.
        if !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished) {
            self.done = true;
            said(Said::Done);
            return Ok(());
        }
        Err(Broken("the stream ended in the middle of an answer".into()))
    }
}

/// Reads a whole answer, of chat or of plain completions.
///
/// # Errors
/// It is none.
pub fn read_answer(body: &[u8]) -> Result<Answer, Broken> {
    let chunk: Chunk<'_> = provider::json(provider::utf8(body)?)?;
    let parts = chunk.choices.unwrap_or_default();
    if parts.is_empty() {
        return Err(Broken("it has no choices".into()));
    }
    let choices = parts.iter().map(whole).collect::<Result<_, _>>()?;
    Ok(Answer {
        id: chunk.id.unwrap_or_default().into_owned(),
        model: chunk.model.unwrap_or_default().into_owned(),
        choices,
        usage: chunk.usage.map(|tokens| tokens.usage()),
    })
}

fn whole(part: &Part<'_>) -> Result<Choice, Broken> {
    let turn = part.delta.as_ref();
    let mut calls: Vec<Call> = Vec::new();
    let mut say = |delta: Delta<'_>| match delta {
        Delta::CallStart { id, name, .. } => {
            calls.push(Call { id: id.into(), name: name.into(), arguments: String::new() });
        }
        Delta::Arguments { text, .. } => {
            calls.last_mut().into_iter().for_each(|call| call.arguments.push_str(text));
        }
        _ => {}
    };
    let mut read = Calls::default();
    for call in turn.iter().flat_map(|turn| turn.tool_calls.iter().flatten()) {
        read.take(&call.said(), &mut say)?;
    }
    read.end(&mut say);
    let words = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let thoughts = turn.and_then(|t| t.reasoning_content.as_deref().or(t.reasoning.as_deref()));
    let (mut thoughts, mut said) = (thoughts.unwrap_or_default().to_owned(), String::new());
    match turn.and_then(|turn| turn.content.as_ref()) {
        None => said.push_str(part.text.as_deref().unwrap_or_default()),
        Some(content) => content.each(|delta| match delta {
            Delta::Reasoning(text) => thoughts.push_str(text),
            Delta::Content(text) => said.push_str(text),
            _ => {}
        }),
    }
    let reason = part.finish_reason.as_deref().unwrap_or("stop");
    Ok(Choice {
        thoughts: words(Some(&thoughts)).map(Thought::of).into_iter().collect(),
        refusal: words(turn.and_then(|turn| turn.refusal.as_deref())),
        stop: part.stop_reason.as_ref().and_then(Value::as_str).map(str::to_owned),
        logprobs: part.logprobs.as_ref().map(logprobs),
        ..Choice::text(part.index, said, finish(reason, !calls.is_empty()))
    }
    .with_calls(calls))
}

/// Log-probabilities of a choice; a provider's tokens have texts and no ids.
fn logprobs(value: &Value) -> Vec<TokenLogprob> {
    list(value, "content").iter().map(logprob_entry).collect()
}

/// One token of a text, in a chat or in a response.
pub(crate) fn logprob_entry(value: &Value) -> TokenLogprob {
    TokenLogprob {
        id: 0,
        bytes: bytes(value),
        logprob: Some(logprob(value)),
        rank: 0,
        top: list(value, "top_logprobs")
            .iter()
            .map(|top| TopLogprob { id: 0, bytes: bytes(top), logprob: logprob(top) })
            .collect(),
        hidden: false,
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn bytes(value: &Value) -> Vec<u8> {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let own = value.get("bytes").and_then(Value::as_array);
    let own: Option<Vec<u8>> = own.and_then(|all| all.iter().map(byte).collect());
    let text = || value.get("token").and_then(Value::as_str).unwrap_or_default().as_bytes();
    own.unwrap_or_else(|| text().to_vec())
}

#[expect(clippy::cast_possible_truncation, reason = "a log-probability needs no more")]
fn logprob(value: &Value) -> f32 {
    value.get("logprob").and_then(Value::as_f64).unwrap_or_default() as f32
}

/// A provider's error.
#[must_use]
pub fn read_error(status: u16, body: &[u8]) -> ApiError {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let error = value.as_ref().and_then(|value| value.get("error")).or(value.as_ref());
    let mut error = provider::error_of(status, error);
    if error.code.as_deref() == Some("insufficient_quota") {
        error.kind = ErrorKind::Quota;
    }
    error
}
