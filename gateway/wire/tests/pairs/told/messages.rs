//! Anthropic's Messages.

use serde_json::{Value, json};

use super::{End, Said, Told, sse};

pub(super) fn told(said: &Said) -> Told {
    let [read, cached, written, made, thought] = said.usage;
    let usage = |made: u64| {
        json!({"input_tokens": read - cached - written, "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": written, "output_tokens": made,
            "output_tokens_details": {"thinking_tokens": thought}})
    };
    let reason = match said.end {
        _ if said.refusal.is_some() => "refusal",
        End::Stop if said.stop.is_some() => "stop_sequence",
        End::Stop => "end_turn",
        End::Calls => "tool_use",
        End::Length => "max_tokens",
        End::Filter => "refusal",
    };
    let details = said.refusal.map(|words| json!({"type": "refusal", "explanation": words}));
    let end = json!({"stop_reason": reason, "stop_sequence": said.stop, "stop_details": details});
    let blocks = blocks(said);
    let content: Value = blocks.iter().map(|(_, whole, _)| whole.clone()).collect();
    let message = |content: Value, end: &Value, usage: Value| {
        let mut message = json!({"id": "msg_x", "type": "message", "role": "assistant",
            "model": "claude", "content": content, "usage": usage});
        for (name, value) in end.as_object().expect("an object") {
            message[name] = value.clone();
        }
        message
    };
    let open = json!({"stop_reason": null, "stop_sequence": null});
    let mut events =
        vec![("message_start", json!({"message": message(json!([]), &open, usage(1))}))];
    for (at, (empty, _, deltas)) in blocks.iter().enumerate() {
        events.push(("content_block_start", json!({"index": at, "content_block": empty})));
        events.push(("ping", json!({})));
        let more = |delta: &Value| ("content_block_delta", json!({"index": at, "delta": delta}));
        events.extend(deltas.iter().map(more));
        events.push(("content_block_stop", json!({"index": at})));
    }
    events.push(("message_delta", json!({"delta": end, "usage": usage(made)})));
    events.push(("message_stop", json!({})));
    events.iter_mut().for_each(|(name, data)| data["type"] = (*name).into());
    let whole = message(content, &end, usage(made));
    Told { whole: whole.to_string().into_bytes(), stream: sse(&events) }
}

/// Each block, empty and whole, and what is said of it.
fn blocks(said: &Said) -> Vec<(Value, Value, Vec<Value>)> {
    let mut blocks = Vec::new();
    if !said.thoughts.is_empty() {
        let block = |text: &str, signature: &str| json!({"type": "thinking", "thinking": text, "signature": signature});
        let more = |text: &&str| json!({"type": "thinking_delta", "thinking": text});
        let mut deltas: Vec<Value> = said.thoughts.iter().map(more).collect();
        deltas.push(json!({"type": "signature_delta", "signature": "c2lnbmVk"}));
        blocks.push((block("", ""), block(&said.thoughts.concat(), "c2lnbmVk"), deltas));
    }
    if !said.text.is_empty() {
        let block = |text: &str| json!({"type": "text", "text": text});
        let deltas = said.text.iter().map(|text| json!({"type": "text_delta", "text": text}));
        blocks.push((block(""), block(&said.text.concat()), deltas.collect()));
    }
    for (id, name, arguments) in said.calls {
        let input: Value = serde_json::from_str(&arguments.concat()).expect("JSON");
        let block =
            |input: Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
        let more = |text: &&str| json!({"type": "input_json_delta", "partial_json": text});
        blocks.push((block(json!({})), block(input), arguments.iter().map(more).collect()));
    }
    blocks
}
