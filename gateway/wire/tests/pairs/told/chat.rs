//! OpenAI's chat completions; stop texts as vLLM tells them.

use serde_json::{Value, json};

use super::{End, Said, Told, entry, in_turns, sse};

pub(super) fn told(said: &Said) -> Told {
    let reason = match said.end {
        End::Stop => "stop",
        End::Calls => "tool_calls",
        End::Length => "length",
        End::Filter => "content_filter",
    };
    let [read, cached, written, made, thought] = said.usage;
    let usage = json!({"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thought}});
    let mut whole = head("chat.completion");
    whole["choices"] = json!([{"index": 0, "message": message(said), "finish_reason": reason,
        "logprobs": logprobs(said, said.text), "stop_reason": said.stop}]);
    whole["usage"] = usage.clone();
    Told { whole: whole.to_string().into_bytes(), stream: stream(said, reason, usage) }
}

fn head(kind: &str) -> Value {
    json!({"id": "chatcmpl-x", "object": kind, "created": 1, "model": "gpt"})
}

fn logprobs(said: &Said, texts: &[&str]) -> Value {
    let all: Value = texts.iter().map(|text| entry(text)).collect();
    if said.logprobs { json!({"content": all, "refusal": null}) } else { Value::Null }
}

fn message(said: &Said) -> Value {
    let silent = said.text.is_empty();
    let content = if silent { Value::Null } else { said.text.concat().into() };
    let mut message = json!({"role": "assistant", "content": content, "refusal": said.refusal});
    if !said.thoughts.is_empty() {
        message["reasoning_content"] = said.thoughts.concat().into();
    }
    if !said.calls.is_empty() {
        let call = |(id, name, arguments): &(&str, &str, [&str; 2])| {
            let function = json!({"name": name, "arguments": arguments.concat()});
            json!({"id": id, "type": "function", "function": function})
        };
        message["tool_calls"] = said.calls.iter().map(call).collect();
    }
    message
}

fn stream(said: &Said, reason: &str, usage: Value) -> Vec<u8> {
    let mut deltas = vec![(json!({"role": "assistant", "content": ""}), Value::Null)];
    let thought = |text: &&str| (json!({"reasoning_content": text}), Value::Null);
    deltas.extend(said.thoughts.iter().map(thought));
    deltas.extend(said.text.iter().map(|text| (json!({"content": text}), logprobs(said, &[text]))));
    deltas.extend(said.refusal.map(|words| (json!({"refusal": words}), Value::Null)));
    for (at, (id, name, arguments)) in said.calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        let call = json!({"index": at, "id": id, "type": "function", "function": function});
        deltas.push((json!({"tool_calls": [call]}), Value::Null));
        for text in arguments {
            let call = json!({"index": at, "function": {"arguments": text}});
            deltas.push((json!({"tool_calls": [call]}), Value::Null));
        }
    }
    let chunk = |choices: Value| {
        let mut chunk = head("chat.completion.chunk");
        chunk["choices"] = choices;
        ("", chunk)
    };
    let mut events: Vec<(&str, Value)> = deltas
        .into_iter()
        .map(|(delta, logprobs)| {
            chunk(
                json!([{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": null}]),
            )
        })
        .collect();
    let mut end = json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": reason});
    if let Some(stop) = said.stop {
        end["stop_reason"] = stop.into();
    }
    events.push(chunk(json!([end])));
    let (name, mut last) = chunk(json!([]));
    last["usage"] = usage;
    events.push((name, last));
    let mut stream = sse(&events);
    stream.extend_from_slice(b"data: [DONE]\n\n");
    stream
}

/// An answer whose choices are those of these two.
pub(super) fn both(one: &Told, two: &Told) -> Told {
    let read = |told: &Told| serde_json::from_slice::<Value>(&told.whole).expect("JSON");
    let (mut whole, mut second) = (read(one), read(two));
    second["choices"][0]["index"] = 1.into();
    whole["choices"] = json!([whole["choices"][0], second["choices"][0]]);
    whole["usage"]["completion_tokens"] = 17.into();
    // What was used is said once.
    let chunks = in_turns(&one.stream, &two.stream, "choices").into_iter();
    let (mut last, said): (Vec<Value>, Vec<Value>) =
        chunks.partition(|chunk| chunk.get("usage").is_some());
    last.truncate(1);
    last[0]["usage"] = whole["usage"].clone();
    let events: Vec<_> = said.into_iter().chain(last).map(|chunk| ("", chunk)).collect();
    let mut stream = sse(&events);
    stream.extend_from_slice(b"data: [DONE]\n\n");
    Told { whole: whole.to_string().into_bytes(), stream }
}
