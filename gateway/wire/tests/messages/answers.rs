//! Whole answers, models and errors, written and read.

use serde_json::{Value, json};
use wire::{
    ApiError, Broken, Call, Choice, ErrorKind, Finish, Head, Seal, Thought, Usage, messages,
};

fn head() -> Head {
    Head { id: "msg_1".into(), created: 7, model: "m".into(), service_tier: None }
}

const USAGE: Usage = Usage {
    prompt_tokens: 100,
    cached_tokens: 60,
    cache_write_tokens: 10,
    completion_tokens: 9,
    reasoning_tokens: 4,
};

fn answer(choice: Choice) -> Value {
    let bytes = messages::answer(&head(), &[choice], &USAGE);
    serde_json::from_slice(&bytes).expect("JSON")
}

fn full() -> Choice {
    let call = |id: &str, arguments: &str| Call {
        id: id.into(),
        name: "f".into(),
        arguments: arguments.into(),
    };
    Choice {
        thoughts: vec![
            Thought::of("hm"),
            Thought { text: String::new(), seal: Some(Seal::Signature("s".into())) },
            Thought { text: String::new(), seal: Some(Seal::Redacted("d".into())) },
            Thought::default(),
        ],
        ..Choice::text(0, "t\"", Finish::ToolCalls).with_calls(vec![
            call("a", "{ \"z\": 1, \"a\": {} }"),
            call("b", ""),
            call("c", "{\"cut"),
            call("d", "[]"),
        ])
    }
}

#[test]
fn a_message() {
    let expect = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "hearth1.words"},
            {"type": "thinking", "thinking": "", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "t\""},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"z": 1, "a": {}}},
            {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"arguments": "{\"cut"}},
            {"type": "tool_use", "id": "d", "name": "f", "input": {"arguments": "[]"}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null, "stop_details": null,
        "usage": {"input_tokens": 30, "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 60, "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4}},
    });
    assert_eq!(answer(full()), expect);
}

#[test]
fn ends() {
    let check = |finish: Finish, stop: Option<&str>, reason: &str| {
        let choice = Choice { stop: stop.map(str::to_owned), ..Choice::text(0, "", finish) };
        let value = answer(choice);
        assert_eq!(value["content"], json!([]));
        assert_eq!(value["stop_reason"], reason);
        assert_eq!(value["stop_sequence"], json!(stop));
    };
    check(Finish::Stop, None, "end_turn");
    check(Finish::Stop, Some("x"), "stop_sequence");
    check(Finish::Length, None, "max_tokens");
    check(Finish::ToolCalls, None, "tool_use");
    let refused = Choice { refusal: Some("no".into()), ..Choice::text(0, "I", Finish::Refused) };
    let value = answer(refused);
    assert_eq!(value["stop_reason"], "refusal");
    assert_eq!(value["stop_details"]["type"], "refusal");
    assert_eq!(value["content"][1], json!({"type": "text", "text": "no"}));
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let bytes = messages::answer(&head(), &[full()], &USAGE);
    let read = messages::read_answer(&bytes).expect("an answer");
    assert_eq!((&*read.id, &*read.model, read.usage), ("msg_1", "m", Some(USAGE)));
    let mut expect = full();
    expect.thoughts.pop();
    expect.tool_calls[1].arguments = "{}".into();
    expect.tool_calls[2].arguments = json!({"arguments": "{\"cut"}).to_string();
    expect.tool_calls[3].arguments = json!({"arguments": "[]"}).to_string();
    assert_eq!(read.choices, [expect]);
}

#[test]
fn a_providers_answer() {
    let read = |value: Value| messages::read_answer(value.to_string().as_bytes());
    let message = |extra: Value| {
        let mut value = json!({"type": "message", "id": "msg_x", "model": "claude", "content": [
            {"type": "text", "text": "a", "citations": [{"newest": 1}]},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "newest", "text": "skipped", "input": 5},
            {"type": "text", "text": "b"},
        ]});
        for (name, item) in extra.as_object().expect("an object") {
            value[name] = item.clone();
        }
        read(value).expect("an answer")
    };
    let check = |reason: Value, finish: Finish| {
        let answer = message(json!({"stop_reason": reason, "newest": {}}));
        assert_eq!(answer.choices, [Choice::text(0, "ab", finish)]);
        assert_eq!(answer.usage, None);
    };
    check(json!("end_turn"), Finish::Stop);
    check(json!("pause_turn"), Finish::Stop);
    check(json!("newest"), Finish::Stop);
    check(json!(null), Finish::Stop);
    check(json!("max_tokens"), Finish::Length);
    check(json!("model_context_window_exceeded"), Finish::Length);
    let stopped = message(json!({"stop_reason": "stop_sequence", "stop_sequence": "x"}));
    assert_eq!(stopped.choices[0].stop.as_deref(), Some("x"));
    let details = json!({"type": "refusal", "category": null, "explanation": "no"});
    let refused = message(json!({"stop_reason": "refusal", "stop_details": details}));
    assert_eq!(refused.choices[0].finish, Finish::Refused);
    assert_eq!(refused.choices[0].refusal.as_deref(), Some("no"));
    // What a provider does not say of its tokens is none.
    let usage = message(json!({"usage": {"input_tokens": 3, "output_tokens": 2,
        "cache_read_input_tokens": null}}));
    let expect = Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() };
    assert_eq!(usage.usage, Some(expect));
    let broken = |value: Value| assert!(matches!(read(value), Err(Broken(_))));
    broken(json!({"type": "error", "error": {}}));
    broken(json!({"type": "message"}));
    broken(json!({"type": "message", "content": "x"}));
    broken(json!([]));
}

#[test]
fn errors() {
    let check = |kind: ErrorKind, code: &'static str, name: &str| {
        let error = ApiError::new(kind, code, "m");
        let body: Value = serde_json::from_slice(&messages::error(&error, "req_1")).expect("JSON");
        let expect = json!({"type": "error", "request_id": "req_1",
            "error": {"type": name, "message": "m", "details": {"error_code": code}}});
        assert_eq!(body, expect);
    };
    check(ErrorKind::Invalid, "invalid_type", "invalid_request_error");
    check(ErrorKind::Method, "x", "invalid_request_error");
    check(ErrorKind::Unauthorized, "invalid_api_key", "authentication_error");
    check(ErrorKind::Forbidden, "x", "permission_error");
    check(ErrorKind::NotFound, "model_not_found", "not_found_error");
    check(ErrorKind::TooLarge, "x", "request_too_large");
    check(ErrorKind::Timeout, "x", "timeout_error");
    check(ErrorKind::Deadline, "x", "timeout_error");
    check(ErrorKind::Overloaded, "requests_per_minute", "rate_limit_error");
    check(ErrorKind::Overloaded, "overloaded", "overloaded_error");
    check(ErrorKind::Unavailable, "unavailable", "overloaded_error");
    check(ErrorKind::Quota, "insufficient_quota", "billing_error");
    check(ErrorKind::Internal, "x", "api_error");
    check(ErrorKind::Upstream, "x", "api_error");
}

#[test]
fn a_providers_errors() {
    let check = |status: u16, body: &str, kind: ErrorKind, code: Option<&str>, message: &str| {
        let error = messages::read_error(status, body.as_bytes());
        assert_eq!((error.kind, error.code.as_deref()), (kind, code), "{body}");
        assert_eq!(error.message, message);
    };
    let body = |kind: &str| {
        json!({"type": "error", "error": {"type": kind, "message": "m\u{1b}"}}).to_string()
    };
    let named = |kind: &str, expect: ErrorKind| check(418, &body(kind), expect, Some(kind), "m");
    named("invalid_request_error", ErrorKind::Invalid);
    named("authentication_error", ErrorKind::Unauthorized);
    named("permission_error", ErrorKind::Forbidden);
    named("not_found_error", ErrorKind::NotFound);
    named("request_too_large", ErrorKind::TooLarge);
    named("rate_limit_error", ErrorKind::Overloaded);
    named("timeout_error", ErrorKind::Deadline);
    named("overloaded_error", ErrorKind::Unavailable);
    named("billing_error", ErrorKind::Quota);
    check(429, &body("newest"), ErrorKind::Overloaded, Some("newest"), "m");
    let coded = json!({"error": {"type": "rate_limit_error", "message": "m",
        "details": {"error_code": "ramp_limit_exceeded"}}});
    let code = Some("ramp_limit_exceeded");
    check(429, &coded.to_string(), ErrorKind::Overloaded, code, "m");
    check(529, "<html>", ErrorKind::Unavailable, None, "status 529");
    check(401, "{}", ErrorKind::Unauthorized, None, "status 401");
    let long = json!({"error": {"message": "x".repeat(5000)}}).to_string();
    assert_eq!(messages::read_error(400, long.as_bytes()).message.len(), 2048);
}

#[test]
fn models() {
    let one = messages::model_answer("m", 1_709_164_800, Some(4096));
    assert_eq!(one["created_at"], "2024-02-29T00:00:00Z");
    assert_eq!((&one["type"], &one["display_name"]), (&json!("model"), &json!("m")));
    let two = messages::model_answer("n", 0, None);
    let list = messages::models_answer(&[one.clone(), two.clone()], false);
    let expect = json!({"data": [one, two], "has_more": false, "first_id": "m", "last_id": "n"});
    assert_eq!(list, expect);
    let none = messages::models_answer(&[], false);
    assert_eq!(none, json!({"data": [], "has_more": false, "first_id": null, "last_id": null}));
}
