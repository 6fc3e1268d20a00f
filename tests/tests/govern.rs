//! Governance through the real binary: from the first start to a team with a budget, a key, a
//! refusal at the limit and the line of the audit that proves it; and what a killed process owes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use hearth_tests::http::{Answer, open_as};
use hearth_tests::server::Server;
use serde_json::{Value, json};

/// A deployment: its folder, its server, its first key.
struct House {
    folder: PathBuf,
    server: Server,
    root: String,
}

impl House {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-govern-{name}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let server = start(&folder);
        let line = server.banner.iter().find(|line| line.starts_with("first key"));
        let root = line.and_then(|line| line.split_whitespace().last()).expect("a first key");
        let root = root.to_owned();
        Self { folder, server, root }
    }

    fn ask(&self, key: &str, line: &str, body: &Value) -> Answer {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let stream = open_as(&self.server.url, Some(key), method, path, &body).expect("sent");
        stream.finish().expect("an answer")
    }

    /// What an administrator asks, which has to work.
    fn admin(&self, line: &str, body: &Value) -> Value {
        let answer = self.ask(&self.root, line, body);
        assert!(answer.status < 300, "{line}: {} {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).expect("json")
    }

    /// A team with a project and a key; the ids of team and key, and the key.
    fn team(&self, name: &str) -> (String, String, String) {
        let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
        let team = id(&self.admin("POST /admin/v1/teams", &json!({ "name": name })));
        let project = json!({ "team": team, "name": "bots" });
        let project = id(&self.admin("POST /admin/v1/projects", &project));
        let key = json!({ "label": "ci", "project": project });
        let key = self.admin("POST /admin/v1/keys", &key);
        (team, id(&key), key["key"].as_str().expect("the key itself").to_owned())
    }

    /// Tokens of prompts cost a micro-dollar each, those of answers ten.
    fn prices(&self) {
        let models = json!([{ "model": "*", "input": 1_000_000, "output": 10_000_000 }]);
        self.admin("POST /admin/v1/prices", &json!({ "name": "first", "models": models }));
    }

    fn ledger(&self) -> Vec<Value> {
        let page = self.admin("GET /admin/v1/ledger?limit=200", &Value::Null);
        page["data"].as_array().expect("lines").clone()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start(folder: &std::path::Path) -> Server {
    Server::start(&["--data", folder.to_str().expect("a plain path")])
}

fn chat(max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": "demo", "max_tokens": max_tokens, "stream": stream, "ignore_eos": true,
        "stream_options": if stream { json!({ "include_usage": true }) } else { Value::Null },
        "messages": [{ "role": "user", "content": "Tell me about the sea." }],
    })
}

fn price(input: &Value, output: &Value) -> i64 {
    input.as_i64().expect("tokens") * 1_000 + output.as_i64().expect("tokens") * 10_000
}

#[test]
fn from_the_first_start_to_a_refusal_and_its_proof() {
    let house = House::new("story");
    let unknown = house.ask("hk-000000000000-nobody", "GET /v1/models", &Value::Null);
    assert_eq!(unknown.status, 401);
    assert!(unknown.body.contains("invalid_api_key"), "{}", unknown.body);
    house.prices();
    let (team, key_id, key) = house.team("research");
    // 300 micro-dollars: some short answers.
    let budget = json!({
        "name": "research", "scope": format!("team:{team}"),
        "limits": [{ "period": "month", "usd": "0.0003" }],
    });
    house.admin("POST /admin/v1/budgets", &budget);
    let (mut spent, mut answers) = (0, 0);
    let refused = loop {
        let answer = house.ask(&key, "POST /v1/chat/completions", &chat(8, false));
        if answer.status != 200 {
            break answer;
        }
        let body: Value = serde_json::from_str(&answer.body).expect("json");
        let cost = price(&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]);
        let shown: f64 = answer.header("x-hearth-cost").expect("a cost").parse().expect("dollars");
        assert!((shown * 1e9 - cost as f64).abs() < 0.5, "{shown} {cost}");
        spent += cost;
        let left = answer.header("x-hearth-budget-remaining").expect("what is left");
        let left: f64 = left.parse().expect("dollars");
        assert!((left * 1e9 - (300_000 - spent) as f64).abs() < 0.5, "{left} {spent}");
        answers += 1;
        assert!(answers < 20, "a limit that never comes");
    };
    assert!(answers >= 1 && spent <= 300_000, "{answers} {spent}");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let error: Value = serde_json::from_str(&refused.body).expect("json");
    assert_eq!(error["error"]["code"], "insufficient_quota");
    let message = error["error"]["message"].as_str().expect("words");
    assert!(message.contains("research") && message.contains("month"), "{message}");
    let ledger = house.ledger();
    let sum: i64 = ledger.iter().map(|line| line["cost"].as_i64().expect("nano")).sum();
    assert_eq!((ledger.len(), sum), (answers, spent), "the ledger is what the answers said");
    let audit = house.admin("GET /admin/v1/audit?kind=refusal", &Value::Null);
    let line = audit["data"][0].to_string();
    assert!(line.contains("insufficient_quota") && line.contains(&key_id), "{line}");
    let verified = house.admin("GET /admin/v1/audit/verify", &Value::Null);
    assert!(verified.get("broken").is_none_or(Value::is_null), "{verified}");
    // Their own usage is theirs to see; the administrators' routes are not.
    let usage = house.ask(&key, "GET /v1/usage", &Value::Null);
    assert_eq!(usage.status, 200, "{}", usage.body);
    assert_eq!(house.ask(&key, "GET /admin/v1/keys", &Value::Null).status, 403);
    let revoke = format!("POST /admin/v1/keys/{key_id}/revoke");
    house.admin(&revoke, &json!({}));
    assert_eq!(house.ask(&key, "GET /v1/models", &Value::Null).status, 401);
}

#[test]
fn a_stream_ends_with_the_last_token_that_is_paid_for() {
    let house = House::new("stop");
    house.prices();
    let (team, _, key) = house.team("small");
    let whole = house.ask(&key, "POST /v1/chat/completions", &chat(1, false));
    let whole: Value = serde_json::from_str(&whole.body).expect("json");
    let input = whole["usage"]["prompt_tokens"].as_i64().expect("tokens");
    // The prompt and 100 tokens, less a nano-dollar: 99 tokens.
    let limit = input * 1_000 + 100 * 10_000 - 1;
    let budget = json!({
        "name": "small", "scope": format!("team:{team}"),
        "limits": [{ "period": "total", "nano_usd": limit + price(&json!(input), &json!(1)) }],
    });
    house.admin("POST /admin/v1/budgets", &budget);
    let body = chat(400, true).to_string();
    let mut stream = open_as(&house.server.url, Some(&key), "POST", "/v1/chat/completions", &body)
        .expect("sent");
    assert_eq!(stream.status, 200);
    let mut last = Value::Null;
    let mut finish = Value::Null;
    while let Some(event) = stream.event().expect("an event") {
        if event == "[DONE]" {
            break;
        }
        last = serde_json::from_str(&event).expect("json");
        if last["choices"][0]["finish_reason"].is_string() {
            finish = last["choices"][0]["finish_reason"].clone();
        }
    }
    assert_eq!(finish, "length");
    assert_eq!(last["usage"]["completion_tokens"], 99, "{last}");
    assert!(last["hearth"]["notice"].as_str().expect("a notice").contains("budget"), "{last}");
    let line = house.ledger().remove(0);
    assert_eq!((&line["outcome"], &line["tokens"]["output"]), (&json!("budget_stop"), &json!(99)));
}

#[test]
fn a_killed_process_settles_what_it_had_handed_out() {
    let mut house = House::new("kill");
    house.prices();
    let (_, _, key) = house.team("unlucky");
    let body = chat(2_000, true).to_string();
    let mut stream = open_as(&house.server.url, Some(&key), "POST", "/v1/chat/completions", &body)
        .expect("sent");
    let mut seen = 0;
    while seen < 40 {
        let event = stream.event().expect("an event").expect("more to come");
        let event: Value = serde_json::from_str(&event).expect("json");
        seen += i64::from(
            event["choices"][0]["delta"]["content"].as_str().is_some_and(|t| !t.is_empty()),
        );
    }
    let id = house.server.id().to_string();
    let killed = std::process::Command::new("kill").args(["-9", &id]).status();
    assert!(killed.expect("kill runs").success());
    house.server.wait();
    house.server = start(&house.folder);
    let ledger = house.ledger();
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0]["outcome"], "recovered");
    let output = ledger[0]["tokens"]["output"].as_i64().expect("tokens");
    assert!((seen..2_000).contains(&output), "{seen} were seen, {output} are paid for");
    let cost = price(&ledger[0]["tokens"]["input"], &ledger[0]["tokens"]["output"]);
    assert_eq!(ledger[0]["cost"], json!(cost));
    let verified = house.admin("GET /admin/v1/audit/verify", &Value::Null);
    assert!(verified.get("broken").is_none_or(Value::is_null), "{verified}");
}
