//! A server like OpenAI's: it keeps what it is not told not to keep, knows its own items by their
//! ids alone, and refuses what the real one is known to refuse.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What it says.
pub(crate) const SAID: &str = "Hello from far.";

/// The server, and what it was asked.
pub(crate) struct Far {
    seen: Arc<Seen>,
    pub(crate) url: String,
    task: JoinHandle<()>,
}

struct Seen {
    /// What its seals begin with: no other opens them.
    seal: &'static str,
    bodies: Mutex<Vec<String>>,
}

impl Drop for Far {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Far {
    pub(crate) async fn start(seal: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let seen = Arc::new(Seen { seal, bodies: Mutex::default() });
        let router = Router::new().route("/v1/responses", post(answer));
        let router = router.with_state(Arc::clone(&seen));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("served");
        });
        Self { seen, url, task }
    }

    /// The last body, as it came.
    pub(crate) fn last_text(&self) -> String {
        let bodies = self.seen.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.last().expect("a request").clone()
    }

    /// The last of so many, once they are there.
    pub(crate) async fn last_of(&self, count: usize) -> Value {
        for _ in 0..2_000 {
            let there = self.seen.bodies.lock().unwrap_or_else(PoisonError::into_inner).len();
            if there >= count {
                return self.last();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never {count} of them");
    }

    pub(crate) fn last(&self) -> Value {
        serde_json::from_str(&self.last_text()).expect("JSON")
    }
}

fn refuse(code: &str, message: &str) -> Response {
    let error = json!({ "error": { "message": message, "type": "invalid_request_error",
        "code": code, "param": null } });
    (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/json")], error.to_string())
        .into_response()
}

/// What is wrong with a request, if anything is.
fn wrong(seen: &Seen, asked: &Value) -> Option<(&'static str, String)> {
    let includes = asked["include"]
        .as_array()
        .is_some_and(|all| all.contains(&json!("reasoning.encrypted_content")));
    if asked["store"] != false || !asked["previous_response_id"].is_null() {
        return Some(("kept", "it would keep this".to_owned()));
    }
    if !asked["conversation"].is_null() || !asked["background"].is_null() {
        return Some(("kept", "it would have to keep this".to_owned()));
    }
    if includes && !thinks(asked) {
        let why = "Encrypted content is not supported with this model.";
        return Some(("unsupported", why.to_owned()));
    }
    for item in asked["input"].as_array().into_iter().flatten() {
        let id = item["id"].as_str().unwrap_or_default();
        let sealed = item["encrypted_content"].as_str().unwrap_or_default();
        match item["type"].as_str().unwrap_or_default() {
            "item_reference" => return Some(("not_found", format!("{id} is not there"))),
            "reasoning" if sealed.is_empty() => {
                return Some(("not_found", format!("Item with id '{id}' not found.")));
            }
            "reasoning" if !sealed.starts_with(seen.seal) => {
                return Some(("invalid_encrypted_content", format!("{sealed} is not mine")));
            }
            _ => {}
        }
    }
    None
}

fn thinks(asked: &Value) -> bool {
    asked["model"].as_str().is_some_and(|model| model.starts_with("gpt-6"))
}

async fn answer(State(seen): State<Arc<Seen>>, body: Bytes) -> Response {
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    let asked: Value = serde_json::from_str(&text).expect("JSON");
    let number = {
        let mut bodies = seen.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.push(text);
        bodies.len()
    };
    if let Some((code, why)) = wrong(&seen, &asked) {
        return refuse(code, &why);
    }
    let notes = |name: &str| asked["metadata"][name] == "1";
    if notes("slow") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Some name the items of each of their answers alike, or not at all.
    let id = match notes("same") {
        true => "1".to_owned(),
        false => format!("{}{number:047x}", seen.seal),
    };
    let mut items = Vec::new();
    if thinks(&asked) {
        let mut item = json!({ "id": format!("rs_{id}"), "type": "reasoning",
            "summary": [{ "type": "summary_text", "text": "Hm." }] });
        if !asked["include"].is_null() {
            item["encrypted_content"] = json!(format!("{}+{number}==", seen.seal));
        }
        items.push(item);
    }
    items.push(json!({ "id": format!("msg_{id}"), "type": "message", "role": "assistant",
        "status": "completed", "phase": "final_answer",
        "content": [{ "type": "output_text", "text": SAID, "annotations": [], "logprobs": [] }] }));
    items.push(json!({ "id": format!("ws_{id}"), "type": "web_search_call", "status": "completed",
        "action": { "type": "search", "query": "hearth" } }));
    if notes("same") {
        items.push(json!({ "type": "function_call", "call_id": "c", "name": "f",
            "arguments": "{}", "status": "completed" }));
    }
    let whole = json!({ "id": format!("resp_{id}"), "object": "response", "created_at": 17,
        "status": "completed", "background": false, "error": null, "model": asked["model"],
        "output": items, "previous_response_id": null, "store": false, "of_tomorrow": [1],
        "usage": { "input_tokens": 9, "output_tokens": 5, "total_tokens": 14 } });
    if asked["stream"] != true {
        return ([(CONTENT_TYPE, "application/json")], whole.to_string()).into_response();
    }
    let all = events(&whole);
    let half = all.iter().position(|event| event.contains("delta")).expect("a word") + 2;
    let events = all.concat();
    let sent = if notes("cut") { &events[..all[..half].concat().len()] } else { &events[..] };
    ([(CONTENT_TYPE, "text/event-stream")], sent.to_owned()).into_response()
}

/// The events of a stream, spaced as that server's programming language spaces them.
pub(crate) fn events(whole: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |mut event: Value| {
        event["sequence_number"] = json!(all.len());
        let kind = event["type"].as_str().expect("a type").to_owned();
        let data = event.to_string().replacen("\"response\":", "\"response\": ", 1);
        all.push(format!("event: {kind}\ndata: {data}\n\n"));
    };
    let mut begun = whole.clone();
    (begun["status"], begun["output"]) = (json!("in_progress"), json!([]));
    begun["usage"] = Value::Null;
    say(json!({ "type": "response.created", "response": begun }));
    say(json!({ "type": "response.in_progress", "response": begun }));
    for (at, item) in whole["output"].as_array().expect("items").iter().enumerate() {
        let mut bare = item.clone();
        if item["type"] == "message" {
            (bare["content"], bare["status"]) = (json!([]), json!("in_progress"));
        }
        say(json!({ "type": "response.output_item.added", "output_index": at, "item": bare }));
        if item["type"] == "message" {
            let part = |kind: &str, text: &str| {
                json!({ "type": kind, "item_id": item["id"], "output_index": at,
                    "content_index": 0, "part": { "type": "output_text", "text": text } })
            };
            say(part("response.content_part.added", ""));
            for word in SAID.split_inclusive(' ') {
                say(json!({ "type": "response.output_text.delta", "item_id": item["id"],
                    "output_index": at, "content_index": 0, "delta": word, "logprobs": [] }));
            }
            say(json!({ "type": "response.output_text.done", "item_id": item["id"],
                "output_index": at, "content_index": 0, "text": SAID }));
            say(part("response.content_part.done", SAID));
        }
        say(json!({ "type": "response.output_item.done", "output_index": at, "item": item }));
    }
    say(json!({ "type": "response.completed", "response": whole }));
    all
}
