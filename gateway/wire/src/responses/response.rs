//! The response: one object, which is an answer, an event's content and what is kept.

use serde_json::{Value, json};

use super::Ids;
use super::echo::Echo;
use super::output::{Body, Item, Part, Reader, State, write_logprobs};
use crate::answer::{Choice, Finish, Head, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::json::{list, put};

/// How far a response has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It has not begun.
    Queued,
    /// It is made.
    InProgress,
    /// It is whole.
    Completed,
    /// It ended too early, at a limit of tokens.
    Length,
    /// It ended too early: the model, or a filter behind it, would not go on.
    Filtered,
    /// It failed.
    Failed(ApiError),
    /// Its caller stopped it.
    Cancelled,
}

impl Status {
    fn of(finish: Finish) -> Self {
        match finish {
            Finish::Stop | Finish::ToolCalls => Self::Completed,
            Finish::Length => Self::Length,
            Finish::Refused => Self::Filtered,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Length | Self::Filtered => "incomplete",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The event that says so.
    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Queued => "response.queued",
            Self::InProgress => "response.in_progress",
            Self::Completed => "response.completed",
            Self::Length | Self::Filtered => "response.incomplete",
            Self::Failed(_) | Self::Cancelled => "response.failed",
        }
    }
}

/// A response, in whatever state.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    head: Head,
    pub(super) echo: Echo,
    pub(super) items: Vec<Item>,
    pub(super) status: Status,
    usage: Option<Usage>,
    completed: Option<u64>,
}

impl Response {
    /// One without output: of a request that waits, is under way, was stopped or failed.
    #[must_use]
    pub fn bare(head: Head, echo: Echo, status: Status) -> Self {
        Self { head, echo, items: Vec::new(), status, usage: None, completed: None }
    }

    /// It came to its natural end, at `now`, in seconds since 1970.
    pub(super) fn finish(&mut self, finish: Finish, usage: &Usage, now: u64) {
        self.status = Status::of(finish);
        self.usage = Some(*usage);
        self.completed = (self.status == Status::Completed).then_some(now);
    }

    /// As its caller reads it: JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, Reader::Caller);
        out
    }

    /// As it is kept: with seals of thoughts, which the next turn needs, asked for or not.
    /// [`shown`] makes of it what a caller reads.
    #[must_use]
    pub fn to_stored(&self) -> Value {
        let mut out = Vec::new();
        self.write(&mut out, Reader::Store);
        let read = serde_json::from_slice(&out);
        debug_assert!(read.is_ok(), "what was written can be read");
        read.unwrap_or_default()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, reader: Reader) {
        out.extend_from_slice(b"{\"id\":");
        put(out, &self.head.id);
        out.extend_from_slice(b",\"object\":\"response\",\"created_at\":");
        put(out, &self.head.created);
        out.extend_from_slice(b",\"status\":");
        put(out, self.status.name());
        for (name, value) in &self.echo.fields {
            // A response says of a conversation only where it has one.
            if name == "conversation" && value.is_null() {
                continue;
            }
            out.push(b',');
            put(out, name);
            out.push(b':');
            match (name.as_str(), &self.status) {
                ("completed_at", _) => put(out, &self.completed),
                ("model", _) => put(out, &self.head.model),
                ("output", _) => {
                    list(out, &self.items, |out, item| item.write(out, &self.echo, reader));
                }
                ("error", Status::Failed(error)) => write_error(out, error),
                ("incomplete_details", Status::Length) => {
                    out.extend_from_slice(b"{\"reason\":\"max_output_tokens\"}");
                }
                ("incomplete_details", Status::Filtered) => {
                    out.extend_from_slice(b"{\"reason\":\"content_filter\"}");
                }
                ("usage", _) => write_usage(out, self.usage.as_ref()),
                _ => put(out, value),
            }
        }
        out.push(b'}');
    }
}

/// OpenAI's codes are few; agents decide by them whether to try again.
fn write_error(out: &mut Vec<u8>, error: &ApiError) {
    let code = match (error.kind, error.code.as_deref()) {
        (_, Some("context_length_exceeded")) => "context_length_exceeded",
        (ErrorKind::Overloaded, _) => "rate_limit_exceeded",
        (ErrorKind::Quota, _) => "insufficient_quota",
        (
            ErrorKind::Unavailable
            | ErrorKind::Deadline
            | ErrorKind::Upstream
            | ErrorKind::Internal,
            _,
        ) => "server_error",
        _ => "invalid_prompt",
    };
    out.extend_from_slice(b"{\"code\":");
    put(out, code);
    out.extend_from_slice(b",\"message\":");
    put(out, &error.message);
    out.push(b'}');
}

fn write_usage(out: &mut Vec<u8>, usage: Option<&Usage>) {
    let Some(usage) = usage else { return out.extend_from_slice(b"null") };
    for (name, value) in [
        (&b"{\"input_tokens\":"[..], usage.prompt_tokens),
        (b",\"input_tokens_details\":{\"cached_tokens\":", usage.cached_tokens),
        (b",\"cache_write_tokens\":", usage.cache_write_tokens),
        (b"},\"output_tokens\":", usage.completion_tokens),
        (b",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning_tokens),
        (b"},\"total_tokens\":", usage.prompt_tokens.saturating_add(usage.completion_tokens)),
    ] {
        out.extend_from_slice(name);
        put(out, &value);
    }
    out.push(b'}');
}

/// A whole answer. A response has one choice; `ids` makes the ids of its items, `now` is when it
/// was finished, in seconds since 1970.
#[must_use]
pub fn answer(
    head: Head,
    echo: Echo,
    choice: &Choice,
    usage: &Usage,
    ids: &mut Ids<'_>,
    now: u64,
) -> Response {
    let mut response = Response::bare(head, echo, Status::InProgress);
    let bodies = bodies(choice);
    let last = bodies.len().saturating_sub(1);
    for (at, body) in bodies.into_iter().enumerate() {
        let sealed = matches!(body, Body::Thoughts { seal: Some(_), .. });
        let early = matches!(choice.finish, Finish::Length | Finish::Refused);
        let cut = early && at == last && !sealed;
        let state = if cut { State::Cut } else { State::Whole };
        let id = ids(body.prefix(&response.echo));
        response.items.push(Item { id, state, body });
    }
    response.finish(choice.finish, usage, now);
    response
}

/// The items of a choice, in their order.
fn bodies(choice: &Choice) -> Vec<Body> {
    let thoughts = choice.thoughts.iter().filter(|thought| {
        let silent = thought.text.is_empty() && thought.seal.is_none();
        !silent
    });
    let mut bodies: Vec<Body> = thoughts
        .map(|thought| Body::Thoughts { text: thought.text.clone(), seal: thought.seal.clone() })
        .collect();
    let mut parts = Vec::new();
    let nothing = choice.tool_calls.is_empty() && choice.refusal.is_none();
    // An answer that is done and says nothing is still an answer: clients look for its message.
    if !choice.text.is_empty() || (nothing && choice.finish == Finish::Stop) {
        let mut logprobs = Vec::new();
        write_logprobs(&mut logprobs, choice.logprobs.as_deref().unwrap_or_default());
        parts.push(Part::Text { text: choice.text.clone(), logprobs });
    }
    parts.extend(choice.refusal.iter().map(|text| Part::Refusal(text.clone())));
    if !parts.is_empty() {
        bodies.push(Body::Message(parts));
    }
    bodies.extend(choice.tool_calls.iter().map(|call| Body::Call {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    }));
    bodies
}

/// A response that was kept, as a caller reads it who asked for this in `include`.
pub fn shown(response: &mut Value, include: &[&str]) {
    let items = response.get_mut("output").and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(|item| shown_item(item, include));
}

/// An item that was kept, likewise.
pub fn shown_item(item: &mut Value, include: &[&str]) {
    // Of other items it is what they say.
    if item.get("type").and_then(Value::as_str) == Some("reasoning")
        && let Some(item) = item.as_object_mut()
        && !include.contains(&"reasoning.encrypted_content")
    {
        item.shift_remove("encrypted_content");
    }
}

/// The answer to `GET /v1/responses/{id}/input_items` and other lists of items.
#[must_use]
pub fn item_list(items: &[Value], has_more: bool) -> Vec<u8> {
    let id = |item: Option<&Value>| item.and_then(|item| item.get("id")).cloned();
    let (first, last) = (id(items.first()), id(items.last()));
    let body = json!({"object": "list", "data": items, "first_id": first, "last_id": last,
        "has_more": has_more});
    body.to_string().into_bytes()
}

/// The answer to `DELETE /v1/responses/{id}`.
#[must_use]
pub fn deleted(id: &str) -> Vec<u8> {
    json!({"id": id, "object": "response", "deleted": true}).to_string().into_bytes()
}

/// The answer to `POST /v1/responses/input_tokens`.
#[must_use]
pub fn count_answer(tokens: u64) -> Vec<u8> {
    json!({"object": "response.input_tokens", "input_tokens": tokens}).to_string().into_bytes()
}
