//! A stream of chunks as OpenAI's own packages read it, and strict where they differ: an
//! independent check of what is written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What has come of one choice.
#[derive(Default)]
struct Choice {
    ended: bool,
    calls: u64,
}

/// The data of whole events, comments apart.
#[track_caller]
pub(crate) fn events(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with("\n\n"), "an event is cut: {text}");
    let events = text.split_terminator("\n\n").filter(|event| !event.starts_with(": "));
    events.map(|event| event.strip_prefix("data: ").expect("data alone"))
}

/// Reads whole events, which may end anywhere. Whether `[DONE]` came.
#[track_caller]
pub(crate) fn check(bytes: &[u8]) -> bool {
    let mut choices: BTreeMap<u64, Choice> = BTreeMap::new();
    let (mut counted, mut done, mut failed) = (false, false, false);
    let ended = |choices: &BTreeMap<u64, Choice>| {
        !choices.is_empty() && choices.values().all(|choice| choice.ended)
    };
    for data in events(bytes) {
        assert!(!done && !failed, "something follows the end: {data}");
        if data == "[DONE]" {
            assert!(ended(&choices) && counted);
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        if chunk.get("error").is_some() {
            failed = true;
            continue;
        }
        assert_eq!(chunk["object"], "chat.completion.chunk");
        let Some(choice) = chunk["choices"].get(0) else {
            assert!(!counted && chunk["usage"].is_object(), "no choice and no usage: {chunk}");
            assert!(ended(&choices), "usage before the end: {chunk}");
            counted = true;
            continue;
        };
        let index = choice["index"].as_u64().expect("a number");
        let (delta, begun) = (&choice["delta"], choices.contains_key(&index));
        assert_eq!(delta.get("role").is_some(), !begun, "the role comes first and once");
        let Choice { ended, calls } = choices.entry(index).or_default();
        assert!(!*ended && !counted, "a choice behind its end: {chunk}");
        *ended = !choice["finish_reason"].is_null();
        let Some(list) = delta.get("tool_calls") else { continue };
        assert_eq!(list.as_array().map(Vec::len), Some(1), "one call in a chunk: {chunk}");
        let call = &list[0];
        if call.get("id").is_some() {
            assert_eq!(call["index"], json!(calls), "calls are numbered");
            assert!(call["function"]["name"].is_string() && call["type"] == "function");
            *calls += 1;
        } else {
            // Clients put pieces of several calls together by their numbers.
            assert!(call["index"].as_u64().is_some_and(|at| at < *calls), "no such call: {chunk}");
            assert!(call["function"].get("name").is_none());
        }
    }
    done
}
