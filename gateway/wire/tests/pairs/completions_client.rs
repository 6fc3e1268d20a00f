//! A stream of plain completions as OpenAI's own packages read it, and strict where they differ: an
//! independent check of what is written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::chat_client::events;

/// Reads whole events, which may end anywhere. Whether `[DONE]` came.
#[track_caller]
pub(crate) fn check(bytes: &[u8]) -> bool {
    // Those that have begun, and whether they have ended.
    let mut choices: BTreeMap<u64, bool> = BTreeMap::new();
    let (mut counted, mut done, mut failed) = (false, false, false);
    for data in events(bytes) {
        assert!(!done && !failed, "something follows the end: {data}");
        let all = !choices.is_empty() && choices.values().all(|ended| *ended);
        if data == "[DONE]" {
            assert!(all && counted, "it ends before its choices and their count");
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        if chunk.get("error").is_some() {
            failed = true;
            continue;
        }
        assert_eq!(chunk["object"], "text_completion");
        let Some(choice) = chunk["choices"].get(0) else {
            assert!(all && !counted && chunk["usage"].is_object(), "usage, once: {chunk}");
            counted = true;
            continue;
        };
        assert!(choice["text"].is_string() && choice.get("delta").is_none(), "{chunk}");
        let ended = choices.entry(choice["index"].as_u64().expect("a number")).or_default();
        assert!(!*ended && !counted, "a choice behind its end: {chunk}");
        *ended = !choice["finish_reason"].is_null();
    }
    done
}

/// The same body, whole or a stream, with log-probabilities as chat has them: lists side by side
/// become a list of tokens.
pub(crate) fn scores_of_chat(body: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(body).expect("UTF-8");
    let lines = text.split_inclusive('\n').map(|line| {
        let (mark, data) = line.split_at(if line.starts_with("data: {") { 6 } else { 0 });
        match serde_json::from_str::<Value>(data) {
            Ok(mut value) if value.is_object() => {
                let end = if line.ends_with('\n') { "\n" } else { "" };
                value["choices"].as_array_mut().into_iter().flatten().for_each(scored);
                format!("{mark}{value}{end}")
            }
            _ => line.to_owned(),
        }
    });
    lines.collect::<String>().into_bytes()
}

fn scored(choice: &mut Value) {
    let own = &choice["logprobs"];
    let Some(tokens) = own["tokens"].as_array() else { return };
    let each = tokens.iter().zip(own["token_logprobs"].as_array().expect("as many"));
    let content: Value =
        each.map(|(token, score)| json!({"token": token, "logprob": score})).collect();
    choice["logprobs"] = json!({ "content": content });
}
