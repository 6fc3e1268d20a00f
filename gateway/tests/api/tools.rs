//! Calls, thoughts and shapes over an engine that speaks from a script: what a whole answer says,
//! that a stream says the same in order, and what is refused before a model is asked.

use serde_json::{Value, json};
use text::tools::Format;

use super::client::post;
use super::fake::{Fake, Setup};

const CHAT: &str = "/v1/chat/completions";

const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": \
                     [1, {\"b\": \"}\\\" w\u{f6}\"}]}}\n</tool_call>\n<tool_call>\n{\"name\": \
                     \"now\", \"arguments\": {}}\n</tool_call>";

fn hermes(speech: &'static str) -> Fake {
    Fake::start(Setup { speech, format: Format::named("hermes"), ..Setup::default() })
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

fn chat(extra: &Value) -> Value {
    let mut body = json!({"model": "org/fake", "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 400, "tools": [tool("add"), tool("now")]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// A choice as a stream makes it: content, thoughts, calls (name, arguments), finish.
#[derive(Debug, Default, PartialEq)]
struct Said {
    content: String,
    thoughts: String,
    calls: Vec<(String, String)>,
    finish: String,
}

fn whole(body: &Value) -> Said {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    for call in &calls {
        assert!(text(&call["id"]).len() >= 9, "{call}");
        assert_eq!(call["type"], "function");
    }
    Said {
        content: text(&message["content"]),
        thoughts: text(&message["reasoning_content"]),
        calls: calls
            .iter()
            .map(|c| (text(&c["function"]["name"]), text(&c["function"]["arguments"])))
            .collect(),
        finish: text(&choice["finish_reason"]),
    }
}

fn streamed(body: &str) -> Said {
    let mut said = Said::default();
    for event in body.split("\n\n").filter_map(|event| event.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{event}")).expect("JSON");
        for choice in chunk["choices"].as_array().expect("choices") {
            assert!(said.finish.is_empty(), "nothing follows a finish: {event}");
            let delta = &choice["delta"];
            said.content.push_str(delta["content"].as_str().unwrap_or_default());
            said.thoughts.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let at = usize::try_from(call["index"].as_u64().expect("an index")).expect("small");
                let function = &call["function"];
                if let Some(name) = function["name"].as_str() {
                    assert_eq!(at, said.calls.len(), "calls come in order: {event}");
                    assert!(call["id"].is_string(), "{event}");
                    said.calls.push((name.to_owned(), String::new()));
                } else {
                    assert!(call.get("id").is_none(), "an id comes once: {event}");
                }
                said.calls[at].1.push_str(function["arguments"].as_str().expect("arguments"));
            }
            said.finish.push_str(choice["finish_reason"].as_str().unwrap_or_default());
        }
    }
    said
}

/// Both ways; they must agree.
async fn ask(fake: &Fake, extra: &Value) -> Said {
    let mut request = chat(extra);
    let answer = post(&fake.router, CHAT, request.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let whole = whole(&answer.json());
    request["stream"] = true.into();
    let stream = post(&fake.router, CHAT, request.to_string()).await;
    assert_eq!(streamed(&stream.body), whole, "{request}");
    whole
}

#[tokio::test]
async fn calls_come_apart_from_the_text() {
    let fake = hermes(CALLS);
    let said = ask(&fake, &json!({})).await;
    assert_eq!(said.content, "Let me see.");
    let arguments = "{\"a\": [1, {\"b\": \"}\\\" w\u{f6}\"}]}".to_owned();
    assert_eq!(said.calls, [("add".to_owned(), arguments), ("now".to_owned(), "{}".to_owned())]);
    assert_eq!(said.finish, "tool_calls");
    // Without tools, or where none may be called, they are text as any other.
    let plain = ask(&fake, &json!({"tool_choice": "none"})).await;
    assert!(plain.calls.is_empty() && plain.content == CALLS, "{plain:?}");
    assert_eq!(plain.finish, "stop");
}

#[tokio::test]
async fn a_call_that_is_cut_says_so() {
    let fake = hermes(CALLS);
    let said = ask(&fake, &json!({"max_tokens": 60})).await;
    assert_eq!(said.finish, "length");
    assert_eq!(said.calls[0].0, "add");
    assert!("{\"a\": [1, {\"b\": \"}\\\" w\u{f6}\"}]}".starts_with(&said.calls[0].1), "{said:?}");
    let stopped = ask(&fake, &json!({"stop": ["\"b\""]})).await;
    assert_eq!((&*stopped.calls[0].1, &*stopped.finish), ("{\"a\": [1, {", "stop"));
}

#[tokio::test]
async fn choices_are_read_apart() {
    let fake = hermes(CALLS);
    let answer = post(&fake.router, CHAT, chat(&json!({"n": 3})).to_string()).await.json();
    let mut ids: Vec<&str> = Vec::new();
    for choice in answer["choices"].as_array().expect("choices") {
        let calls = choice["message"]["tool_calls"].as_array().expect("calls");
        ids.extend(calls.iter().map(|call| call["id"].as_str().expect("an id")));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "{answer}");
}

#[tokio::test]
async fn log_probabilities_count_every_token() {
    let fake = hermes(CALLS);
    let mut request = chat(&json!({"logprobs": true, "return_token_ids": true}));
    let answer = post(&fake.router, CHAT, request.to_string()).await.json();
    let tokens = answer["usage"]["completion_tokens"].as_u64().expect("a count");
    let entries = |value: &Value| value.as_array().map_or(0, Vec::len) as u64;
    let choice = &answer["choices"][0];
    assert_eq!(entries(&choice["logprobs"]["content"]), tokens);
    assert_eq!(entries(&choice["token_ids"]), tokens);
    request["stream"] = true.into();
    let stream = post(&fake.router, CHAT, request.to_string()).await.body;
    let (mut scored, mut ids) = (0, 0);
    for event in stream.split("\n\n").filter_map(|event| event.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{event}")).expect("JSON");
        scored += entries(&chunk["choices"][0]["logprobs"]["content"]);
        ids += entries(&chunk["choices"][0]["token_ids"]);
    }
    assert_eq!((scored, ids), (tokens, tokens));
}

#[tokio::test]
async fn what_cannot_be_held_is_refused_by_its_path() {
    let fake = hermes(CALLS);
    let strict = |parameters: Value| {
        json!({"tools": [tool("now"), {"type": "function", "function": {"name": "f",
            "strict": true, "parameters": parameters}}]})
    };
    let schema = |schema: Value| {
        json!({"response_format": {"type": "json_schema",
            "json_schema": {"name": "s", "schema": schema}}})
    };
    let root = "response_format.json_schema.schema";
    let table = [
        (
            strict(json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}})),
            "tools[1].function.parameters.properties.a",
        ),
        (schema(json!({"type": "array", "contains": {"type": "null"}})), root),
        (schema(json!({"$ref": "https://example.com/x.json"})), root),
        (schema(json!({"type": "integer", "minimum": 3, "maximum": 2})), root),
        (
            schema(json!({"anyOf": [{"type": "string"}, {"minLenght": 3}]})),
            "response_format.json_schema.schema.anyOf[1]",
        ),
        (schema(json!({"type": "string", "description": "x".repeat(1 << 20)})), root),
        (json!({"structured_outputs": {"regex": "a("}}), "structured_outputs.regex"),
        (json!({"structured_outputs": {"regex": "(?=a)b"}}), "structured_outputs.regex"),
        (json!({"structured_outputs": {"grammar": "start: ["}}), "structured_outputs.grammar"),
        (json!({"structured_outputs": {"grammar": "root ::= x"}}), "structured_outputs.grammar"),
        (json!({"reasoning_effort": "high"}), "reasoning_effort"),
        (json!({"thinking_token_budget": 5}), "thinking_token_budget"),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "x"}}}),
            "tool_choice.function.name",
        ),
        (json!({"tools": [tool("a"), tool("a")]}), "tools[1].function.name"),
        (json!({"tools": [{"type": "function", "function": {}}]}), "tools[0].function.name"),
    ];
    for (extra, param) in table {
        let answer = post(&fake.router, CHAT, chat(&extra).to_string()).await;
        let body = answer.json();
        assert_eq!(answer.status, 400, "{extra}: {body}");
        assert_eq!(body["error"]["param"], param, "{extra}: {body}");
        assert!(body["error"]["message"].as_str().is_some_and(|m| m.len() > 10), "{body}");
    }
}

#[tokio::test]
async fn models_without_a_format_are_told_the_tools() {
    let speech = "{\"tool_calls\": [{\"name\": \"add\", \"arguments\": {\"a\": 1}}]}";
    let fake = Fake::start(Setup { speech, ..Setup::default() });
    let said = ask(&fake, &json!({})).await;
    assert_eq!(said.calls, [("add".to_owned(), "{\"a\": 1}".to_owned())]);
    assert_eq!((&*said.content, &*said.finish), ("", "tool_calls"));
    let request = chat(&json!({"return_token_ids": true}));
    let prompt = post(&fake.router, CHAT, request.to_string()).await.json();
    let ids = &prompt["prompt_token_ids"];
    let shown = post(&fake.router, "/detokenize", json!({"tokens": ids}).to_string()).await.json();
    let shown = shown["prompt"].as_str().expect("a text");
    assert!(shown.contains("\"name\":\"add\"") && shown.contains("tool_calls"), "{shown}");
    // The same tokens are counted.
    let counted = json!({"messages": request["messages"], "tools": request["tools"]});
    let counted = post(&fake.router, "/tokenize", counted.to_string()).await.json();
    assert_eq!(counted["count"].as_u64(), ids.as_array().map(|ids| ids.len() as u64));
}

/// Agents offer tools that a provider runs itself in each request, and count with them: they are
/// counted as the model is asked, without.
#[tokio::test]
async fn counts_go_without_hosted_tools() {
    let fake = hermes("Hello");
    let own = json!({"name": "add", "input_schema": {"type": "object"}});
    let hosted = json!({"type": "web_search_20250305", "name": "web_search"});
    let flat = json!({"type": "function", "name": "add", "parameters": {"type": "object"}});
    let search = json!({"googleSearch": {}});
    let declared = json!({"functionDeclarations": [{"name": "add"}]});
    let turns = json!([{"role": "user", "parts": [{"text": "Hi"}]}]);
    let gemini = "/v1beta/models/org/fake:countTokens";
    let routes = [
        (
            "/v1/messages/count_tokens",
            json!({"model": "org/fake", "messages": [{"role": "user", "content": "Hi"}]}),
            [own, hosted],
        ),
        (
            "/v1/responses/input_tokens",
            json!({"model": "org/fake", "input": "Hi"}),
            [flat, json!({"type": "web_search"})],
        ),
        (gemini, json!({"contents": turns}), [declared, search]),
    ];
    for (path, mut body, [own, hosted]) in routes {
        let mut tokens = Vec::new();
        for tools in [json!([]), json!([own]), json!([own, hosted])] {
            let inner = path == gemini;
            body["tools"] = tools;
            let mut asked = body.clone();
            if inner {
                asked["model"] = json!("models/org/fake");
                asked = json!({"generateContentRequest": asked});
            }
            let got = post(&fake.router, path, asked.to_string()).await;
            assert_eq!(got.status, 200, "{path}: {}", got.body);
            let count = got.json();
            let count = count.get("input_tokens").or(count.get("totalTokens")).cloned();
            tokens.push(count.and_then(|count| count.as_u64()).expect("a count"));
        }
        let [none, one, both] = tokens[..] else { panic!("{tokens:?}") };
        assert!(none < one && one == both, "{path}: {tokens:?}");
        // What makes no sense is still refused by its name.
        body["tools"] = json!([7]);
        let got = post(&fake.router, path, body.to_string()).await;
        assert_eq!(got.status, 400, "{path}: {}", got.body);
        assert!(got.body.contains("tools"), "{path}: {}", got.body);
    }
}

/// A function of Responses that nobody calls strict is held to its schema where that can be done,
/// and is no reason to refuse where it cannot.
#[tokio::test]
async fn a_schema_that_nobody_calls_strict_is_no_hindrance() {
    let fake = Fake::start(Setup {
        speech: "Hello",
        format: Format::named("llama-pythonic"),
        ..Setup::default()
    });
    let closed = |name: &str| {
        json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name],
            "additionalProperties": false})
    };
    for (name, strict, status) in [
        ("path", json!(null), 200),
        ("path", json!(true), 200),
        // No name of an argument in that way of writing calls.
        ("file-path", json!(null), 200),
        ("file-path", json!(false), 200),
        ("file-path", json!(true), 400),
    ] {
        let mut tool = json!({"type": "function", "name": "open", "parameters": closed(name)});
        if !strict.is_null() {
            tool["strict"] = strict.clone();
        }
        let body = json!({"model": "org/fake", "input": "Hi", "tools": [tool]});
        let got = post(&fake.router, "/v1/responses", body.to_string()).await;
        assert_eq!(got.status, status, "{name} {strict}: {}", got.body);
    }
}
