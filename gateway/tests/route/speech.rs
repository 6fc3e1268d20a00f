//! What the provider says in its dialects: `Hello from WORD`, a token at a time.

use serde_json::{Value, json};

use crate::amazon;
use crate::upstream::{Seen, Step};

/// A provider's dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tongue {
    Chat,
    Messages,
    Gemini,
    Responses,
    Completions,
    /// Its streams are frames of bytes.
    Converse,
}

impl Tongue {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            _ if path.ends_with("/messages") => Self::Messages,
            _ if path.ends_with("/responses") => Self::Responses,
            _ if path.ends_with("/converse") || path.ends_with("/converse-stream") => {
                Self::Converse
            }
            _ if path.contains("enerateContent") => Self::Gemini,
            _ if path.ends_with("/completions") && !path.ends_with("/chat/completions") => {
                Self::Completions
            }
            _ => Self::Chat,
        }
    }
}

/// The tokens of an answer.
fn tokens(word: &str) -> [String; 3] {
    ["Hello".to_owned(), " from".to_owned(), format!(" {word}")]
}

/// A whole answer.
pub(crate) fn whole(tongue: Tongue, word: &str) -> Value {
    let text = tokens(word).concat();
    match tongue {
        Tongue::Chat => json!({
            "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{ "index": 0, "finish_reason": "stop",
                "message": { "role": "assistant", "content": text } }],
            "usage": { "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14 },
        }),
        Tongue::Messages => json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [{ "type": "text", "text": text }],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": { "input_tokens": 11, "output_tokens": 3 },
        }),
        Tongue::Gemini => gemini(&text, true),
        Tongue::Converse => amazon::whole(&text),
        Tongue::Responses => response("completed", &text),
        Tongue::Completions => json!({
            "id": "c1", "object": "text_completion", "created": 1, "model": "m",
            "choices": [{ "index": 0, "finish_reason": "stop", "text": text }],
            "usage": { "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14 },
        }),
    }
}

fn gemini(text: &str, last: bool) -> Value {
    let mut candidate =
        json!({ "index": 0, "content": { "role": "model", "parts": [{ "text": text }] } });
    let mut usage = json!({ "promptTokenCount": 11 });
    if last {
        candidate["finishReason"] = "STOP".into();
        usage["candidatesTokenCount"] = 3.into();
    }
    json!({ "candidates": [candidate], "usageMetadata": usage, "responseId": "g1",
        "modelVersion": "m" })
}

fn response(status: &str, text: &str) -> Value {
    let item = json!({ "type": "message", "id": "msg_1", "status": status, "role": "assistant",
        "content": [{ "type": "output_text", "text": text, "annotations": [] }] });
    let output = if text.is_empty() { json!([]) } else { json!([item]) };
    json!({ "id": "resp_1", "object": "response", "created_at": 1, "model": "m",
        "status": status, "error": null, "output": output,
        "usage": { "input_tokens": 11, "output_tokens": 3, "total_tokens": 14 } })
}

/// The events of a stream whose dialect is text. The first token is in one of the first four, the
/// second one in the event behind it.
pub(crate) fn events(tongue: Tongue, word: &str) -> Vec<String> {
    let tokens = tokens(word);
    let mut events = Vec::new();
    match tongue {
        Tongue::Chat => {
            let mut chunk = |delta: Value, finish: Value| {
                let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
                let chunk = json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1,
                    "model": "m", "choices": [choice] });
                events.push(format!("data: {chunk}\n\n"));
            };
            chunk(json!({ "role": "assistant", "content": "" }), Value::Null);
            tokens.iter().for_each(|token| chunk(json!({ "content": token }), Value::Null));
            chunk(json!({}), json!("stop"));
            let usage = json!({ "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14 });
            let last = json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1,
                "model": "m", "choices": [], "usage": usage });
            events.push(format!("data: {last}\n\n"));
            events.push("data: [DONE]\n\n".to_owned());
        }
        Tongue::Completions => {
            let mut chunk = |choices: Value, usage: Value| {
                let chunk = json!({ "id": "c1", "object": "text_completion", "created": 1,
                    "model": "m", "choices": choices, "usage": usage });
                events.push(format!("data: {chunk}\n\n"));
            };
            for (at, token) in tokens.iter().enumerate() {
                let finish = if at == 2 { json!("stop") } else { Value::Null };
                let choice = json!({ "index": 0, "text": token, "finish_reason": finish });
                chunk(json!([choice]), Value::Null);
            }
            let usage = json!({ "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14 });
            chunk(json!([]), usage);
            events.push("data: [DONE]\n\n".to_owned());
        }
        Tongue::Messages => {
            let mut event = |data: Value| events.push(named(&data));
            let mut message = whole(tongue, word);
            message["content"] = json!([]);
            message["stop_reason"] = Value::Null;
            event(json!({ "type": "message_start", "message": message }));
            event(json!({ "type": "content_block_start", "index": 0,
                "content_block": { "type": "text", "text": "" } }));
            for token in &tokens {
                event(json!({ "type": "content_block_delta", "index": 0,
                    "delta": { "type": "text_delta", "text": token } }));
            }
            event(json!({ "type": "content_block_stop", "index": 0 }));
            event(json!({ "type": "message_delta",
                "delta": { "stop_reason": "end_turn", "stop_sequence": null },
                "usage": { "output_tokens": 3 } }));
            event(json!({ "type": "message_stop" }));
        }
        Tongue::Gemini => {
            for (at, token) in tokens.iter().enumerate() {
                events.push(format!("data: {}\n\n", gemini(token, at == 2)));
            }
        }
        Tongue::Responses => response_events(&tokens, &mut events),
        Tongue::Converse => unreachable!("its events are no text: see `pieces`"),
    }
    events
}

/// The events of a stream in any dialect, as they go over the wire.
pub(crate) fn pieces(tongue: Tongue, word: &str) -> Vec<Vec<u8>> {
    match tongue {
        Tongue::Converse => amazon::frames(&tokens(word)),
        _ => events(tongue, word).into_iter().map(String::into_bytes).collect(),
    }
}

/// An event of this data, whatever it is.
pub(crate) fn event_of(tongue: Tongue, data: &[u8]) -> Vec<u8> {
    match tongue {
        Tongue::Converse => amazon::event("contentBlockDelta", data),
        _ => [&b"data: "[..], data, b"\n\n"].concat(),
    }
}

/// A response, item and part announced and ended.
fn response_events(tokens: &[String; 3], events: &mut Vec<String>) {
    let mut event = |data: Value| events.push(named(&data));
    event(json!({ "type": "response.created", "sequence_number": 0,
        "response": response("in_progress", "") }));
    let place = |name: &str, value: Value| {
        let mut place = json!({ "item_id": "msg_1", "output_index": 0,
            "content_index": 0 });
        place[name] = value;
        place
    };
    let item = |status: &str, text: &str| json!({ "output_index": 0, "item": response(status, text)["output"][0] });
    let part = |text: &str| {
        place("part", json!({ "type": "output_text", "text": text, "annotations": [] }))
    };
    let whole = tokens.concat();
    let mut begun = item("in_progress", "x");
    begun["item"]["content"] = json!([]);
    let mut all = vec![("response.output_item.added", begun)];
    all.push(("response.content_part.added", part("")));
    let delta = "response.output_text.delta";
    all.extend(tokens.iter().map(|token| (delta, place("delta", token.as_str().into()))));
    all.push(("response.output_text.done", place("text", whole.as_str().into())));
    all.push(("response.content_part.done", part(&whole)));
    all.push(("response.output_item.done", item("completed", &whole)));
    let end = response("completed", &whole);
    all.push(("response.completed", json!({ "response": end })));
    for (number, (kind, mut data)) in (1..).zip(all) {
        (data["type"], data["sequence_number"]) = (kind.into(), number.into());
        event(data);
    }
}

fn named(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a type"))
}

/// Events up to the second token.
pub(crate) fn half(tongue: Tongue, word: &str) -> Vec<u8> {
    let pieces = pieces(tongue, word);
    let has_it = |piece: &Vec<u8>| piece.windows(5).any(|five| five == b" from");
    let at = pieces.iter().position(has_it).expect("a second token");
    pieces[..=at].concat()
}

/// An error in a stream, or in the place of a whole answer.
pub(crate) fn failure(tongue: Tongue) -> Value {
    let words = "the fault of a test";
    match tongue {
        Tongue::Chat | Tongue::Completions => {
            json!({ "error": { "message": words, "type": "server_error" } })
        }
        Tongue::Messages => {
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": words } })
        }
        Tongue::Gemini => {
            json!({ "error": { "code": 503, "message": words, "status": "UNAVAILABLE" } })
        }
        Tongue::Responses => {
            json!({ "type": "error", "code": "server_error", "message": words, "param": null,
                "error": { "message": words } })
        }
        Tongue::Converse => json!({ "message": words }),
    }
}

pub(crate) fn failure_event(tongue: Tongue) -> Vec<u8> {
    let data = failure(tongue);
    match tongue {
        Tongue::Converse => amazon::exception("modelStreamErrorException", "the fault of a test"),
        _ if data["type"].is_string() => named(&data).into_bytes(),
        _ => event_of(tongue, data.to_string().as_bytes()),
    }
}

/// The head of a whole answer of this length.
pub(crate) fn head(status: u16, more: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {length}\
         \r\n\r\n"
    )
    .into_bytes()
}

/// A whole answer.
pub(crate) fn answer(status: u16, more: &str, body: &[u8]) -> Vec<Step> {
    vec![Step::Bytes([&head(status, more, body.len()), body].concat())]
}

/// The head of a stream whose dialect is text.
pub(crate) fn stream_head() -> Step {
    head_of("text/event-stream")
}

/// The head of a stream in the dialect that was asked for.
pub(crate) fn opening(seen: &Seen) -> Step {
    match seen.tongue() {
        Tongue::Converse => head_of("application/vnd.amazon.eventstream"),
        _ => stream_head(),
    }
}

fn head_of(kind: &str) -> Step {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    Step::Bytes(head.into())
}

/// A piece of a stream.
pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let length = format!("{:x}\r\n", bytes.len());
    Step::Bytes([length.as_bytes(), bytes, b"\r\n"].concat())
}

/// The end of a stream.
pub(crate) fn end() -> Step {
    Step::Bytes(b"0\r\n\r\n".into())
}

/// What a provider answers that is well.
pub(crate) fn good(seen: &Seen, word: &str) -> Vec<Step> {
    if !seen.streams() {
        return answer(200, "", whole(seen.tongue(), word).to_string().as_bytes());
    }
    let mut steps = vec![opening(seen)];
    steps.extend(pieces(seen.tongue(), word).iter().map(chunk));
    steps.push(end());
    steps
}
