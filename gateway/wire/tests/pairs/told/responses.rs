//! OpenAI's Responses.

use serde_json::{Value, json};

use super::{End, Said, Told, entry, sse};

pub(super) fn told(said: &Said) -> Told {
    let [read, cached, written, made, thought] = said.usage;
    let usage = json!({"input_tokens": read, "output_tokens": made, "total_tokens": read + made,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens_details": {"reasoning_tokens": thought}});
    let (status, reason) = match said.end {
        End::Stop | End::Calls => ("completed", Value::Null),
        End::Length => ("incomplete", json!({"reason": "max_output_tokens"})),
        End::Filter => ("incomplete", json!({"reason": "content_filter"})),
    };
    let response = |status: &str, output: &[Value], usage: Value| {
        json!({"id": "resp_x", "object": "response", "created_at": 1, "status": status,
            "error": null, "incomplete_details": null, "model": "gpt", "output": output, "usage": usage})
    };
    let begun = response("in_progress", &[], Value::Null);
    let mut events: Events = vec![
        ("response.created", json!({"response": begun})),
        ("response.in_progress", json!({"response": begun})),
    ];
    let mut output = Vec::new();
    thoughts(said, &mut events, &mut output);
    message(said, status, &mut events, &mut output);
    calls(said, &mut events, &mut output);
    let mut whole = response(status, &output, usage);
    whole["incomplete_details"] = reason;
    let last = if status == "completed" { "response.completed" } else { "response.incomplete" };
    events.push((last, json!({"response": whole})));
    for (at, (name, data)) in events.iter_mut().enumerate() {
        (data["type"], data["sequence_number"]) = ((*name).into(), at.into());
    }
    Told { whole: whole.to_string().into_bytes(), stream: sse(&events) }
}

/// What is said of each item, and the items.
type Events = Vec<(&'static str, Value)>;

fn thoughts(said: &Said, events: &mut Events, output: &mut Vec<Value>) {
    if said.thoughts.is_empty() {
        return;
    }
    let at = output.len();
    let empty = json!({"id": "rs_x", "type": "reasoning", "summary": []});
    let item = json!({"id": "rs_x", "type": "reasoning", "encrypted_content": "gAAAAx",
        "summary": [{"type": "summary_text", "text": said.thoughts.concat()}]});
    events.push(("response.output_item.added", json!({"output_index": at, "item": empty})));
    let place = |mut value: Value| {
        value["item_id"] = "rs_x".into();
        value["output_index"] = at.into();
        value["summary_index"] = 0.into();
        value
    };
    let part = json!({"part": {"type": "summary_text", "text": ""}});
    events.push(("response.reasoning_summary_part.added", place(part)));
    events.extend(
        said.thoughts
            .iter()
            .map(|text| ("response.reasoning_summary_text.delta", place(json!({"delta": text})))),
    );
    events.push(("response.output_item.done", json!({"output_index": at, "item": item})));
    output.push(item);
}

fn message(said: &Said, status: &str, events: &mut Events, output: &mut Vec<Value>) {
    if said.text.is_empty() && said.refusal.is_none() {
        return;
    }
    let at = output.len();
    let empty = json!({"id": "msg_x", "type": "message", "role": "assistant", "content": []});
    events.push(("response.output_item.added", json!({"output_index": at, "item": empty})));
    let (kind, field, texts) = match &said.refusal {
        Some(words) => ("refusal", "refusal", vec![*words]),
        None => ("output_text", "text", said.text.to_vec()),
    };
    for text in &texts {
        let entries: Value = if said.logprobs { json!([entry(text)]) } else { json!([]) };
        let delta = json!({"item_id": "msg_x", "output_index": at, "content_index": 0,
            "delta": text, "logprobs": entries});
        let name =
            if kind == "refusal" { "response.refusal.delta" } else { "response.output_text.delta" };
        events.push((name, delta));
    }
    let entries: Vec<Value> =
        texts.iter().filter(|_| said.logprobs).map(|text| entry(text)).collect();
    let part = json!({"type": kind, field: texts.concat(), "annotations": [], "logprobs": entries});
    let item = json!({"id": "msg_x", "type": "message", "role": "assistant", "content": [part],
        "status": status});
    events.push(("response.output_item.done", json!({"output_index": at, "item": item})));
    output.push(item);
}

fn calls(said: &Said, events: &mut Events, output: &mut Vec<Value>) {
    for (id, name, arguments) in said.calls {
        let at = output.len();
        let item = |arguments: &str| {
            json!({"id": format!("fc_{id}"), "type": "function_call",
            "call_id": id, "name": name, "arguments": arguments})
        };
        events.push(("response.output_item.added", json!({"output_index": at, "item": item("")})));
        events.extend(arguments.iter().map(|text| {
            ("response.function_call_arguments.delta", json!({"output_index": at, "delta": text}))
        }));
        let item = item(&arguments.concat());
        events.push(("response.output_item.done", json!({"output_index": at, "item": item})));
        output.push(item);
    }
}
