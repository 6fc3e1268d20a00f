//! Google's generateContent.

use serde_json::{Value, json};

use super::{End, Said, Told, in_turns, sse};

pub(super) fn told(said: &Said) -> Told {
    let [read, cached, _, made, thought] = said.usage;
    let usage = json!({"promptTokenCount": read, "cachedContentTokenCount": cached,
        "candidatesTokenCount": made - thought, "thoughtsTokenCount": thought,
        "totalTokenCount": read + made});
    let reason = match said.end {
        _ if said.refusal.is_some() => "SAFETY",
        End::Stop | End::Calls => "STOP",
        End::Length => "MAX_TOKENS",
        End::Filter => "SAFETY",
    };
    let scores = |texts: &[&str]| {
        let all: Vec<Value> = texts
            .iter()
            .map(|text| json!({"token": text, "tokenId": 1, "logProbability": -0.5}))
            .collect();
        let top: Vec<Value> = all.iter().map(|one| json!({"candidates": [one]})).collect();
        json!({"chosenCandidates": all, "topCandidates": top})
    };
    let (mut chunks, mut parts) = (Vec::new(), Vec::new());
    for (at, text) in said.thoughts.iter().enumerate() {
        let mut part = json!({"text": text, "thought": true});
        if at + 1 == said.thoughts.len() {
            part["thoughtSignature"] = "c2lnbmVk".into();
        }
        chunks.push(json!({"content": {"role": "model", "parts": [part]}, "index": 0}));
        parts.push(part);
    }
    for text in said.text {
        let part = json!({"text": text});
        let mut chunk = json!({"content": {"role": "model", "parts": [part]}, "index": 0});
        if said.logprobs {
            chunk["logprobsResult"] = scores(&[text]);
        }
        chunks.push(chunk);
        parts.push(part);
    }
    for (id, name, arguments) in said.calls {
        let args: Value = serde_json::from_str(&arguments.concat()).expect("JSON");
        let part = json!({"functionCall": {"id": id, "name": name, "args": args}});
        chunks.push(json!({"content": {"role": "model", "parts": [part]}, "index": 0}));
        parts.push(part);
    }
    let mut last = json!({"index": 0, "finishReason": reason});
    let mut whole =
        json!({"content": {"role": "model", "parts": parts}, "index": 0, "finishReason": reason});
    if let Some(words) = said.refusal {
        last["finishMessage"] = words.into();
        whole["finishMessage"] = words.into();
    }
    if said.logprobs {
        whole["logprobsResult"] = scores(said.text);
    }
    chunks.push(last);
    let body = |candidate: &Value, usage: &Value| json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini", "responseId": "x"});
    let early = json!({"promptTokenCount": read});
    let count = chunks.len();
    let events: Vec<(&str, Value)> = chunks
        .iter()
        .enumerate()
        .map(|(at, chunk)| ("", body(chunk, if at + 1 == count { &usage } else { &early })))
        .collect();
    Told { whole: body(&whole, &usage).to_string().into_bytes(), stream: sse(&events) }
}

/// An answer whose candidates are those of these two. What was used is known at the end, of all.
pub(super) fn both(one: &Told, two: &Told) -> Told {
    let read = |told: &Told| serde_json::from_slice::<Value>(&told.whole).expect("JSON");
    let (mut whole, mut second) = (read(one), read(two));
    second["candidates"][0]["index"] = 1.into();
    // The first has no number, which means 0.
    let first = whole["candidates"][0].as_object_mut().expect("an object");
    first.shift_remove("index");
    whole["candidates"] = json!([whole["candidates"][0], second["candidates"][0]]);
    whole["usageMetadata"]["candidatesTokenCount"] = 10.into();
    let mut chunks = in_turns(&one.stream, &two.stream, "candidates");
    let early = chunks[0]["usageMetadata"].clone();
    for chunk in &mut chunks {
        chunk["usageMetadata"] = early.clone();
        let candidate = chunk["candidates"][0].as_object_mut().expect("an object");
        if candidate["index"] == 0 {
            candidate.shift_remove("index");
        }
    }
    chunks.last_mut().expect("chunks")["usageMetadata"] = whole["usageMetadata"].clone();
    let events: Vec<_> = chunks.into_iter().map(|chunk| ("", chunk)).collect();
    Told { whole: whole.to_string().into_bytes(), stream: sse(&events) }
}
