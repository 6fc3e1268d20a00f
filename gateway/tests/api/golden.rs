//! Answers against files in `tests/goldens`: the request, then what came back. With
//! `UPDATE_GOLDENS=1` the files are written anew; read the difference before you keep it.

use std::path::Path;

use serde_json::{Value, json};

use super::client::{get, post};
use super::fake::{Fake, Setup};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// A chat of one message with further fields.
fn chat(extra: &Value) -> Value {
    merged(json!({"model": "org/fake", "messages": [{"role": "user", "content": "Hi"}]}), extra)
}

fn completion(extra: &Value) -> Value {
    merged(json!({"model": "org/fake", "prompt": "Hello", "max_tokens": 4}), extra)
}

fn merged(mut base: Value, extra: &Value) -> Value {
    for (name, value) in extra.as_object().expect("an object") {
        base[name] = value.clone();
    }
    base
}

/// Takes out what is new in each run.
fn steady(mut value: Value) -> Value {
    if value.get("choices").is_some() {
        value["id"] = "ID".into();
        value["created"] = 0.into();
    }
    value
}

/// A stream's events, those of one choice that only differ in when its tokens came joined.
fn events(body: &str) -> String {
    let mut joined: Vec<Value> = Vec::new();
    let mut rest = Vec::new();
    for event in body.split_terminator("\n\n") {
        let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {event:?}"));
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            rest.push(data);
            continue;
        };
        let chunk = steady(chunk);
        let choice = &chunk["choices"][0];
        let twin =
            joined.iter_mut().rev().find(|old| old["choices"][0]["index"] == choice["index"]);
        match twin {
            Some(old) if is_text(&old["choices"][0]) && is_text(choice) => join(old, &chunk),
            _ => joined.push(chunk),
        }
    }
    // Choices run side by side; within one the order stands.
    joined.sort_by_key(|chunk| chunk["choices"][0]["index"].as_u64().unwrap_or(u64::MAX));
    let lines = joined.iter().map(Value::to_string).chain(rest.into_iter().map(str::to_owned));
    lines.map(|line| format!("data: {line}\n\n")).collect()
}

fn is_text(choice: &Value) -> bool {
    let delta = &choice["delta"];
    (delta["content"].is_string() && delta["role"].is_null()) || choice["text"].is_string()
}

fn join(old: &mut Value, new: &Value) {
    let (choice, next) = (&mut old["choices"][0], &new["choices"][0]);
    append(&mut choice["delta"]["content"], &next["delta"]["content"]);
    append(&mut choice["text"], &next["text"]);
    append(&mut choice["token_ids"], &next["token_ids"]);
    for list in ["content", "tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        append(&mut choice["logprobs"][list], &next["logprobs"][list]);
    }
    choice["finish_reason"] = next["finish_reason"].clone();
    // Looking at a field with an index has made it.
    for part in ["delta", "logprobs"] {
        if let Some(map) = choice[part].as_object_mut() {
            map.retain(|name, value| !value.is_null() || name == "refusal");
        }
    }
    if let Some(map) = choice.as_object_mut() {
        map.retain(|name, value| {
            !value.is_null() || ["logprobs", "finish_reason"].contains(&name.as_str())
        });
        for part in ["delta", "logprobs"] {
            if map.get(part).is_some_and(|v| v.as_object().is_some_and(serde_json::Map::is_empty)) {
                if part == "delta" {
                    map.shift_remove(part);
                } else {
                    map.insert(part.into(), Value::Null);
                }
            }
        }
    }
    if new.get("usage").is_some() {
        old["usage"] = new["usage"].clone();
    }
}

fn append(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::String(old), Value::String(new)) => old.push_str(new),
        (Value::Array(old), Value::Array(new)) => old.extend(new.iter().cloned()),
        _ => {}
    }
}

async fn check(fake: &Fake, name: &str, path: &str, request: &Value) {
    let answer = post(&fake.router, path, request.to_string()).await;
    let body = match serde_json::from_str::<Value>(&answer.body) {
        Ok(value) => steady(value).to_string() + "\n",
        Err(_) => events(&answer.body),
    };
    compare(name, &format!("POST {path}\n{request}\n\n{}\n{body}", answer.status));
}

fn compare(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.txt"));
    if std::env::var("UPDATE_GOLDENS").is_ok() {
        std::fs::write(&path, got).expect("the golden is written");
        return;
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expect == got, "{name} differs\n--- golden\n{expect}\n--- got\n{got}");
}

#[tokio::test]
async fn chats() {
    let fake = Fake::start(Setup::default());
    let usage = json!({"include_usage": true});
    let table = [
        ("chat", json!({})),
        ("chat_length", json!({"max_tokens": 2})),
        ("chat_n", json!({"n": 3, "max_completion_tokens": 3})),
        ("chat_logprobs", json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 4})),
        ("chat_stop_string", json!({"stop": ["rld, o"]})),
        ("chat_stop_kept", json!({"stop": "one", "include_stop_str_in_output": true})),
        ("chat_stop_token", json!({"stop_token_ids": [44], "return_token_ids": true})),
        ("chat_prompt_logprobs", json!({"prompt_logprobs": 1, "max_tokens": 1})),
        ("chat_bare", json!({"add_generation_prompt": false, "max_tokens": 1})),
        ("stream", json!({"stream": true})),
        ("stream_usage", json!({"stream": true, "stream_options": usage, "max_tokens": 3})),
        ("stream_n", json!({"stream": true, "n": 2, "max_tokens": 1})),
        (
            "stream_logprobs",
            json!({"stream": true, "logprobs": true, "top_logprobs": 1, "stop": ["two"]}),
        ),
        (
            "stream_ids",
            json!({"stream": true, "return_token_ids": true, "max_tokens": 2,
                "cache_salt": "mine", "stream_options": {"continuous_usage_stats": true}}),
        ),
    ];
    for (name, extra) in table {
        fake.idle().await;
        check(&fake, name, CHAT, &chat(&extra)).await;
    }
}

#[tokio::test]
async fn completions() {
    let fake = Fake::start(Setup::default());
    let table = [
        ("completion", json!({})),
        ("completion_default_length", json!({"max_tokens": null})),
        ("completion_echo", json!({"echo": true})),
        ("completion_tokens", json!({"prompt": [72, 105], "return_token_ids": true})),
        ("completion_prompts", json!({"prompt": ["a", "b"], "n": 2, "max_tokens": 1})),
        ("completion_logprobs", json!({"logprobs": 2, "prompt": "a"})),
        (
            "completion_scores",
            json!({"echo": true, "logprobs": 1, "max_tokens": 0, "prompt": "Hello one"}),
        ),
        (
            "completion_echo_scored",
            json!({"echo": true, "logprobs": 0, "max_tokens": 2, "prompt": "Hello one"}),
        ),
        ("completion_stream", json!({"stream": true, "max_tokens": 2})),
        (
            "completion_stream_echo",
            json!({"stream": true, "echo": true, "logprobs": 1, "max_tokens": 1}),
        ),
    ];
    for (name, extra) in table {
        fake.idle().await;
        check(&fake, name, COMPLETION, &completion(&extra)).await;
    }
}

#[tokio::test]
async fn tokens_and_models() {
    let fake = Fake::start(Setup::default());
    let messages = json!([{"role": "user", "content": "Hi"}]);
    check(&fake, "tokenize", "/tokenize", &json!({"prompt": "Hello", "return_token_strs": true}))
        .await;
    check(&fake, "tokenize_chat", "/v1/tokenize", &json!({"messages": messages})).await;
    check(&fake, "detokenize", "/detokenize", &json!({"tokens": [72, 105, 257]})).await;
    for path in ["/v1/models", "/v1/models/org/fake", "/", "/health", "/ready"] {
        let answer = get(&fake.router, path).await;
        let name = path.replace('/', "_");
        compare(
            &format!("get{name}"),
            &format!("GET {path}\n\n{}\n{}", answer.status, answer.body),
        );
    }
    let metrics = get(&fake.router, "/metrics").await;
    assert!(metrics.body.contains("hearth_http_requests_total"), "{}", metrics.body);
}
