//! Amazon Bedrock's Converse, and the frames of its streams.

use serde_json::{Value, json};

use super::{End, Said, Told};
use crate::frame::frame;

pub(super) fn told(said: &Said) -> Told {
    let [read, cached, written, made, _] = said.usage;
    let usage = json!({"inputTokens": read - cached - written, "outputTokens": made,
        "totalTokens": read + made, "cacheReadInputTokens": cached, "cacheWriteInputTokens": written});
    let reason = match said.end {
        End::Stop => "end_turn",
        End::Calls => "tool_use",
        End::Length => "max_tokens",
        End::Filter => "content_filtered",
    };
    let blocks = blocks(said);
    let mut stream = event("messageStart", &json!({"role": "assistant"}));
    for (at, (_, start, deltas)) in blocks.iter().enumerate() {
        if let Some(start) = start {
            stream.extend(event(
                "contentBlockStart",
                &json!({"contentBlockIndex": at, "start": start}),
            ));
        }
        for delta in deltas {
            stream.extend(event(
                "contentBlockDelta",
                &json!({"contentBlockIndex": at, "delta": delta}),
            ));
        }
        stream.extend(event("contentBlockStop", &json!({"contentBlockIndex": at})));
    }
    stream.extend(event("messageStop", &json!({"stopReason": reason})));
    stream.extend(event("metadata", &json!({"usage": usage, "metrics": {"latencyMs": 1}})));
    let content: Value = blocks.iter().map(|(whole, _, _)| whole.clone()).collect();
    let whole = json!({"output": {"message": {"role": "assistant", "content": content}},
        "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 1}});
    Told { whole: whole.to_string().into_bytes(), stream }
}

/// Each block, how it begins, and what is said of it.
fn blocks(said: &Said) -> Vec<(Value, Option<Value>, Vec<Value>)> {
    let mut blocks = Vec::new();
    if !said.thoughts.is_empty() {
        let inner = json!({"text": said.thoughts.concat(), "signature": "c2lnbmVk"});
        let more = |text: &&str| json!({"reasoningContent": {"text": text}});
        let mut deltas: Vec<Value> = said.thoughts.iter().map(more).collect();
        deltas.push(json!({"reasoningContent": {"signature": "c2lnbmVk"}}));
        blocks.push((json!({"reasoningContent": {"reasoningText": inner}}), None, deltas));
    }
    if !said.text.is_empty() {
        let deltas = said.text.iter().map(|text| json!({"text": text})).collect();
        blocks.push((json!({"text": said.text.concat()}), None, deltas));
    }
    for (id, name, arguments) in said.calls {
        let input: Value = serde_json::from_str(&arguments.concat()).expect("JSON");
        let call = json!({"toolUse": {"toolUseId": id, "name": name, "input": input}});
        let start = json!({"toolUse": {"toolUseId": id, "name": name}});
        let deltas = arguments.iter().map(|text| json!({"toolUse": {"input": text}})).collect();
        blocks.push((call, Some(start), deltas));
    }
    blocks
}

/// An event of a stream.
fn event(name: &str, payload: &Value) -> Vec<u8> {
    frame(name, payload.to_string().as_bytes())
}
