//! Tools, structured output and reasoning from outside: packages from PyPI and npm drive the real
//! binary unchanged, and what grammars hold answers at least as well as the model does when free.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use hearth_tests::fixtures;
use hearth_tests::http::request;
use hearth_tests::server::{Server, root};
use serde_json::{Value, json};

/// Runs a client script, which prints how many of its cases failed.
fn run(program: &Path, script: &str, server: &Server) {
    let out = Command::new(program)
        .arg(root().join("tests/clients").join(script))
        .args([&server.url, "test-key"])
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    println!("{script}:\n{text}");
    assert!(out.status.success() && text.contains(", 0 failed"), "{text}\n{errors}");
}

#[test]
fn client_packages_work_unchanged() {
    let python = root().join("tests/.venv/bin/python");
    let packages = root().join("tests/clients/node/node_modules/package.installed.json");
    assert!(python.exists(), "no Python clients: run `make test` (or tests/tools.sh python)");
    assert!(packages.exists(), "no Node.js clients: run `make test` (or tests/tools.sh node)");
    let server = Server::start(&["--model", "demo", "--api-key", "test-key"]);
    run(&python, "tools_client.py", &server);
    run(&python, "frameworks_client.py", &server);
    run(Path::new("node"), "node/client.mjs", &server);
}

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let answer = request(&server.url, "POST", path, &body.to_string()).expect("answer");
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

/// An expression that would break an answer in its middle is refused before it begins, wherever it
/// stands.
#[test]
fn expressions_that_explode_are_refused_by_name() {
    let server = Server::start(&["--model", "demo"]);
    let exploding = "(.{0,50}a.{0,50}){10}";
    let schema = json!({"type": "object", "properties": {"a": {"type": "string",
        "pattern": format!("^{exploding}$")}}});
    let tool = json!({"type": "function", "function": {"name": "f", "strict": true,
        "parameters": schema}});
    let named = json!({"name": "s", "schema": schema});
    let cases = [
        (json!({"guided_regex": exploding}), "guided_regex"),
        (json!({"structured_outputs": {"regex": exploding}}), "structured_outputs.regex"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": named}}),
            "response_format.json_schema.schema",
        ),
        (json!({"tools": [tool]}), "tools"),
    ];
    for (fields, param) in cases {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "model": "demo"});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let url = "/v1/chat/completions";
        let answer = request(&server.url, "POST", url, &body.to_string()).expect("answer");
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!((answer.status, said["error"]["param"].as_str()), (400, Some(param)), "{said}");
        assert!(said["error"]["message"].as_str().expect("why").contains("too complex"), "{said}");
    }
    post(
        &server,
        "/v1/chat/completions",
        &json!({"model": "demo", "max_tokens": 20,
        "messages": [{"role": "user", "content": "Hi"}], "guided_regex": "(x+x+)+y"}),
    );
}

/// The text that the model writes by itself, from the prompt as its template renders it.
fn free(server: &Server, item: &Value) -> String {
    let mut prompt = json!({ "model": "demo", "messages": item["messages"] });
    if item["tools"].is_array() {
        prompt["tools"] = item["tools"].clone();
    }
    let tokens = post(server, "/tokenize", &prompt)["tokens"].clone();
    let body = json!({ "model": "demo", "prompt": tokens, "temperature": 0,
        "max_tokens": item["max_tokens"], "skip_special_tokens": false });
    let answer = post(server, "/v1/completions", &body);
    let text = answer["choices"][0]["text"].as_str().expect("text");
    text.trim_end_matches("<|im_end|>").to_owned()
}

/// The calls in a free text; `None`: one is no JSON.
fn free_calls(text: &str) -> Option<Value> {
    let calls = text.split("<tool_call>\n").skip(1).filter_map(|rest| {
        let (call, _) = rest.split_once("\n</tool_call>")?;
        Some(serde_json::from_str::<Value>(call).ok())
    });
    calls.collect::<Option<Vec<_>>>().map(Value::Array)
}

/// The choice of an answer held to the tools or to JSON.
fn held(server: &Server, item: &Value) -> Value {
    let mut body = json!({ "model": "demo", "messages": item["messages"], "temperature": 0,
        "max_tokens": item["max_tokens"] });
    if item["tools"].is_array() {
        body["tools"] = item["tools"].clone();
        body["tool_choice"] = json!("auto");
    } else if item["expected"].is_array() {
        body["structured_outputs"] = json!({ "json": { "type": "array" } });
    } else {
        body["response_format"] = json!({ "type": "json_object" });
    }
    post(server, "/v1/chat/completions", &body)["choices"][0].take()
}

/// The calls of a held answer, as `eval.jsonl` writes them. Each is well-formed.
fn held_calls(item: &Value, choice: &Value) -> Value {
    let offered: BTreeSet<_> = item["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tool| tool["function"]["name"].as_str())
        .collect();
    let calls = choice["message"]["tool_calls"].as_array();
    let calls = calls.into_iter().flatten().map(|call| {
        let function = &call["function"];
        let name = function["name"].as_str().expect("a name");
        assert!(offered.contains(name), "{name} is none of {offered:?}");
        let text = function["arguments"].as_str().expect("arguments");
        let arguments: Value = serde_json::from_str(text).expect("arguments are JSON");
        assert!(arguments.is_object(), "{choice}");
        json!({ "name": name, "arguments": arguments })
    });
    calls.collect()
}

#[test]
fn a_grammar_does_not_make_answers_worse() {
    let lines = fixtures::packed(&root().join("tests/data/eval.jsonl")).expect("eval.jsonl");
    let lines = String::from_utf8(lines).expect("UTF-8");
    let items = lines.lines().map(|line| serde_json::from_str(line).expect("an item"));
    let server = Server::start(&["--model", "demo"]);
    let (mut free_right, mut held_right, mut calls, mut texts) = (0, 0, 0, 0);
    for item in items {
        let item: Value = item;
        let expected = &item["expected"];
        let (free, held) = match item["match"].as_str() {
            Some("tool_call") => {
                let choice = held(&server, &item);
                let made = held_calls(&item, &choice);
                let number = made.as_array().map_or(0, Vec::len);
                let finish = if number > 0 { "tool_calls" } else { "stop" };
                assert_eq!(choice["finish_reason"], finish, "{choice}");
                calls += number;
                (free_calls(&free(&server, &item)), made)
            }
            Some("json") => {
                let choice = held(&server, &item);
                let text = choice["message"]["content"].as_str().expect("content");
                texts += 1;
                let held = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
                (serde_json::from_str(&free(&server, &item)).ok(), held)
            }
            _ => continue,
        };
        free_right += u32::from(free.as_ref() == Some(expected));
        held_right += u32::from(held == *expected);
        if held != *expected {
            println!("{}: {held}, expected {expected}", item["id"]);
        }
    }
    println!("free {free_right}, held {held_right}; {calls} calls, {texts} JSON texts well-formed");
    assert!(calls >= 12 && texts == 10, "the cases are there: {calls} calls, {texts} JSON texts");
    assert!(held_right >= free_right, "held {held_right}, free {free_right}");
}
