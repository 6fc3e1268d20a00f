//! What Google answers as a provider: whole, in a stream (asked for with `alt=sse`), or with an
//! error. Parts of kinds that are not known here are skipped; an answer whose model failed to write
//! a call is broken, and may be tried again.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::chunk::{Candidate, Chunk, Feedback, Logprobs, Part, Tokens};
use super::seal;
use crate::answer::{Answer, Call, Choice, Finish};
use crate::error::{ApiError, ErrorKind};
use crate::piece::{self, Broken, Delta, Piece, Said, SealRef};
use crate::provider;
use crate::request::{Seal, Thought};

/// Candidates and calls that one answer may have: a bound on what a stranger makes us remember.
const MANY: u32 = 1024;

/// Bytes of an answer's id that go into the ids of its calls.
const ID_BYTES_MAX: usize = 40;

/// Why a candidate ended.
///
/// # Errors
/// Its model wrote a call that is none.
fn finish(reason: &str, message: Option<&str>, calls: bool) -> Result<Finish, Broken> {
    match reason {
        "STOP" if calls => Ok(Finish::ToolCalls),
        "STOP" => Ok(Finish::Stop),
        "MAX_TOKENS" => Ok(Finish::Length),
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE" => {
            let why = provider::words(message.unwrap_or_default(), 512);
            Err(Broken(format!("its model failed ({reason}) {why}")))
        }
        // SAFETY, RECITATION, BLOCKLIST and more: for whatever reason, it would not go on.
        _ => Ok(Finish::Refused),
    }
}

/// Reads a stream of chunks.
#[derive(Debug, Default)]
pub struct Reader {
    begun: bool,
    /// Goes into the ids of calls that have none.
    id: String,
    choices: Vec<State>,
    done: bool,
}

/// What is known of one candidate.
#[derive(Debug, Default)]
struct State {
    calls: u32,
    finished: bool,
}

impl Reader {
    /// Of a new stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn begin(&mut self, chunk: &Chunk<'_>, said: &mut dyn FnMut(Said<'_>)) {
        if !std::mem::replace(&mut self.begun, true) {
            let id = chunk.response_id.as_deref().unwrap_or_default();
            self.id = letters(id);
            said(Said::Begun { id, model: chunk.model_version.as_deref().unwrap_or_default() });
        }
    }

    fn candidate(
        &mut self,
        candidate: Candidate<'_>,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        let index = candidate.index;
        if index >= MANY {
            return Err(Broken(format!("a candidate has the number {index}")));
        }
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, State::default);
        }
        let state = &mut self.choices[at];
        if state.finished {
            return Ok(());
        }
        let entries = candidate.logprobs_result.map(Logprobs::entries).unwrap_or_default();
        let mut logprobs = Some(&entries[..]).filter(|entries| !entries.is_empty());
        let mut say = |delta: Delta<'_>| {
            let logprobs = logprobs.take();
            said(Said::Piece(Piece { index, delta, logprobs, ..Piece::default() }));
        };
        for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
            state.part(part, &self.id, &mut say)?;
        }
        if let Some(reason) = candidate.finish_reason.as_deref() {
            let message = candidate.finish_message.as_deref();
            let finish = finish(reason, message, state.calls > 0)?;
            state.finished = true;
            if let Some(words) = refusal(finish, message) {
                say(Delta::Refusal(&words));
            }
            let finish = Some(finish);
            said(Said::Piece(Piece { index, finish, logprobs, ..Piece::default() }));
        } else if logprobs.is_some() {
            said(Said::Piece(Piece { index, logprobs, ..Piece::default() }));
        }
        Ok(())
    }

    /// The prompt was refused: there is no candidate, however many were asked for.
    fn blocked(&mut self, feedback: &Feedback, said: &mut dyn FnMut(Said<'_>)) -> bool {
        let Some(words) = feedback.words().filter(|_| self.choices.is_empty()) else {
            return false;
        };
        self.choices.push(State { calls: 0, finished: true });
        said(Said::Piece(Piece { delta: Delta::Refusal(&words), ..Piece::default() }));
        said(Said::Piece(Piece { finish: Some(Finish::Refused), ..Piece::default() }));
        true
    }
}

impl Feedback {
    /// Why a prompt was refused.
    fn words(&self) -> Option<String> {
        let reason = self.block_reason.as_deref().filter(|r| *r != "BLOCK_REASON_UNSPECIFIED")?;
        let more = self.block_reason_message.as_deref().unwrap_or_default();
        let text = format!("The prompt was blocked ({reason}). {more}");
        Some(provider::words(text.trim(), 2 << 10))
    }
}

/// Google's words on why a candidate ended, where it was refused.
fn refusal(finish: Finish, message: Option<&str>) -> Option<String> {
    let words = provider::words(message.filter(|_| finish == Finish::Refused)?, 2 << 10);
    (!words.is_empty()).then_some(words)
}

/// What of an id may stand in the id of a call, in every dialect.
fn letters(id: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "_-".contains(*c);
    id.chars().filter(fits).take(ID_BYTES_MAX).collect()
}

impl State {
    fn part(
        &mut self,
        part: Part<'_>,
        answer: &str,
        say: &mut dyn FnMut(Delta<'_>),
    ) -> Result<(), Broken> {
        let signature = part.thought_signature.as_deref().filter(|text| !text.is_empty());
        if let Some(call) = part.function_call {
            let index = self.calls;
            if index >= MANY {
                return Err(Broken("too many calls".into()));
            }
            self.calls += 1;
            let own = call.id.filter(|id| !id.is_empty());
            let id = own.unwrap_or_else(|| match answer {
                "" => format!("call_{index}"),
                answer => format!("call_{answer}_{index}"),
            });
            let id = signature.map_or_else(|| id.clone(), |signature| seal::join(&id, signature));
            let name = call.name.unwrap_or_default();
            say(Delta::CallStart { index, id: &id, name: &name });
            say(Delta::Arguments { index, text: &arguments(call.args) });
            return Ok(());
        }
        if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            say(match part.thought {
                Some(true) => Delta::Reasoning(&text),
                _ => Delta::Content(&text),
            });
        }
        if let Some(signature) = signature {
            say(Delta::Seal(SealRef::Signature(&seal::mark(signature))));
        }
        Ok(())
    }
}

/// Arguments in one line: what is told as text should not look like a document.
fn arguments(args: Option<&RawValue>) -> Cow<'_, str> {
    match args.map_or("{}", RawValue::get) {
        "null" => "{}".into(),
        text if text.contains(['\n', '\r']) => {
            // Line ends are white space here: inside of strings JSON has no bare ones.
            text.lines().map(str::trim_start).collect::<String>().into()
        }
        text => text.into(),
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
        let chunk: Chunk<'_> = provider::json(data)?;
        if let Some(error) = &chunk.error {
            self.done = true;
            said(Said::Failed(of_error(500, error)));
            return Ok(());
        }
        self.begin(&chunk, said);
        let blocked = chunk.prompt_feedback.as_ref().is_some_and(|why| self.blocked(why, said));
        let usage = chunk.usage_metadata.as_ref().map(Tokens::usage);
        for candidate in chunk.candidates.unwrap_or_default() {
            self.candidate(candidate, said)?;
        }
        if let Some(usage) = usage {
            said(Said::Usage(usage));
        }
        if blocked {
            self.done = true;
            said(Said::Done);
        }
        Ok(())
    }

    /// There is no last event: a stream is whole when each candidate has its reason to end.
    fn end(&mut self, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        if !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished) {
            said(Said::Done);
            return Ok(());
        }
        Err(Broken("the stream ended in the middle of an answer".into()))
    }
}

/// Reads a whole answer.
///
/// # Errors
/// It is none, or its model failed.
pub fn read_answer(body: &[u8]) -> Result<Answer, Broken> {
    let chunk: Chunk<'_> = provider::json(provider::utf8(body)?)?;
    let id = chunk.response_id.unwrap_or_default();
    let stem = letters(&id);
    let usage = chunk.usage_metadata.map(|tokens| tokens.usage());
    let mut choices = Vec::new();
    for candidate in chunk.candidates.unwrap_or_default() {
        choices.push(whole(candidate, &stem)?);
    }
    if choices.is_empty() {
        let words = chunk.prompt_feedback.and_then(|feedback| feedback.words());
        let words = words.ok_or_else(|| Broken("it has no candidates".into()))?;
        let refused = Choice::text(0, "", Finish::Refused);
        choices.push(Choice { refusal: Some(words), ..refused });
    }
    Ok(Answer { id, model: chunk.model_version.unwrap_or_default(), choices, usage })
}

fn whole(candidate: Candidate<'_>, stem: &str) -> Result<Choice, Broken> {
    let mut state = State::default();
    let mut text = String::new();
    let mut thoughts: Vec<Thought> = Vec::new();
    let mut calls: Vec<Call> = Vec::new();
    // The last of the thoughts may still grow.
    let mut open = false;
    for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
        state.part(part, stem, &mut |delta| match delta {
            Delta::Content(more) => {
                text.push_str(more);
                open = false;
            }
            Delta::Reasoning(more) => {
                if !std::mem::replace(&mut open, true) {
                    thoughts.push(Thought::default());
                }
                thoughts.last_mut().into_iter().for_each(|last| last.text.push_str(more));
            }
            Delta::Seal(SealRef::Signature(signature)) => {
                if !std::mem::replace(&mut open, false) {
                    thoughts.push(Thought::default());
                }
                let seal = Some(Seal::Signature(signature.to_owned()));
                thoughts.last_mut().into_iter().for_each(|last| last.seal = seal.clone());
            }
            Delta::CallStart { id, name, .. } => {
                calls.push(Call { id: id.into(), name: name.into(), arguments: String::new() });
            }
            Delta::Arguments { text, .. } => {
                calls.last_mut().into_iter().for_each(|call| call.arguments.push_str(text));
            }
            _ => {}
        })?;
    }
    let message = candidate.finish_message.as_deref();
    let reason = candidate.finish_reason.as_deref();
    // What says nothing of its end is what a whole answer is taken for.
    let finish = finish(reason.unwrap_or("STOP"), message, !calls.is_empty())?;
    Ok(Choice {
        thoughts,
        tool_calls: calls,
        refusal: refusal(finish, message),
        logprobs: candidate.logprobs_result.map(Logprobs::entries),
        ..Choice::text(candidate.index, text, finish)
    })
}

/// A provider's error.
#[must_use]
pub fn read_error(status: u16, body: &[u8]) -> ApiError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    // Of a stream it is the first item of an array.
    let value = value.get(0).unwrap_or(&value);
    of_error(status, value.get("error").unwrap_or(value))
}

fn of_error(status: u16, error: &Value) -> ApiError {
    let code = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let mut out = provider::error_of(code.unwrap_or(status), Some(error));
    let name = error.get("status").and_then(Value::as_str);
    out.kind = match name.unwrap_or_default() {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => ErrorKind::Invalid,
        "UNAUTHENTICATED" => ErrorKind::Unauthorized,
        "PERMISSION_DENIED" => ErrorKind::Forbidden,
        "NOT_FOUND" => ErrorKind::NotFound,
        "RESOURCE_EXHAUSTED" => ErrorKind::Overloaded,
        "UNAVAILABLE" => ErrorKind::Unavailable,
        "DEADLINE_EXCEEDED" => ErrorKind::Deadline,
        "INTERNAL" | "UNKNOWN" | "DATA_LOSS" | "ABORTED" | "CANCELLED" => ErrorKind::Internal,
        _ => out.kind,
    };
    let details = error.get("details").and_then(Value::as_array).into_iter().flatten();
    let reasons: Vec<&str> = details.filter_map(|detail| detail.get("reason")?.as_str()).collect();
    // Google calls a wrong key a wrong argument.
    if reasons.contains(&"API_KEY_INVALID") {
        out.kind = ErrorKind::Unauthorized;
    }
    let code = reasons.first().copied().or(name);
    out.code = code.map(|code| provider::words(code, 128).to_ascii_lowercase().into());
    out
}
