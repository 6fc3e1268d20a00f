//! Requests as a provider gets them.

use serde_json::{Map, Value, json};
use wire::responses::render;
use wire::{
    ChatRequest, Decoding, Form, Limits, Lost, Message, Role, Seal, StreamOptions, Structured,
    Thought, ToolCall, openai,
};

use crate::parse;

fn chat(messages: Vec<Message>) -> ChatRequest {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let chat = openai::parse_chat(body.to_string().as_bytes(), &Limits::default());
    ChatRequest { messages, ..chat.expect("accepted") }
}

fn rendered(request: &ChatRequest, thinks: bool) -> (Value, Vec<String>) {
    let mut lost = Lost::default();
    let value = render(request, thinks, &mut lost);
    (value, lost.names().map(str::to_owned).collect())
}

#[test]
fn only_what_was_said() {
    let (value, lost) = rendered(&chat(vec![Message::text(Role::User, "hi")]), false);
    let expect =
        r#"{"model":"m","input":[{"type":"message","role":"user","content":"hi"}],"store":false}"#;
    assert_eq!(value.to_string(), expect);
    assert!(lost.is_empty());
}

#[test]
fn a_conversation() {
    let mut turn = Message::text(Role::Assistant, "let me see");
    let seal = Seal::Encrypted { id: "rs_1".into(), content: "gAAAA".into() };
    turn.thoughts = vec![Thought { text: "hm".into(), seal: Some(seal) }, Thought::of("mine")];
    turn.tool_calls = vec![ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() }];
    let mut result = Message::text(Role::Tool, "42");
    result.tool_call_id = Some("c".into());
    let messages = vec![
        Message::text(Role::System, "be brief"),
        Message::text(Role::User, "hi"),
        Message::text(Role::Developer, "now"),
        turn,
        result,
    ];
    let (value, lost) = rendered(&chat(messages), true);
    assert_eq!(value["instructions"], "be brief");
    let expect = json!([
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "developer", "content": "now"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "gAAAA"},
        {"type": "message", "role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]);
    assert_eq!(value["input"], expect);
    assert_eq!(value["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!(value["reasoning"], json!({"summary": "auto"}));
    assert!(lost.is_empty(), "{lost:?}");
}

/// A summary that was asked for in detail came back short.
#[test]
fn a_summary_is_as_long_as_was_asked() {
    for (asked, sent) in [
        (json!({"summary": "auto"}), "auto"),
        (json!({"summary": "concise"}), "concise"),
        (json!({"summary": "detailed"}), "detailed"),
        (json!({"summary": null, "generate_summary": "detailed"}), "detailed"),
        (json!({"effort": "low"}), "auto"),
    ] {
        let request = parse(&json!({"reasoning": asked})).expect("accepted");
        let (value, lost) = rendered(&request.chat, true);
        assert_eq!(value["reasoning"]["summary"], sent, "{asked}");
        assert!(lost.is_empty());
    }
}

/// A function of which nothing is said is strict there, and with most schemas refused for it.
#[test]
fn a_tool_says_whether_it_is_strict() {
    let f = json!({"type": "function", "function": {"name": "f", "parameters": {"a": 1}}});
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [f],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": false});
    let chat = openai::parse_chat(body.to_string().as_bytes(), &Limits::default());
    let (value, _) = rendered(&chat.expect("accepted"), false);
    let expect = r#"[{"type":"function","name":"f","parameters":{"a":1},"strict":false}]"#;
    assert_eq!(value["tools"].to_string(), expect);
    assert_eq!(value["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!(value["parallel_tool_calls"], false);
}

#[test]
fn what_cannot_be_carried_is_named() {
    let mut request = chat(vec![Message::text(Role::User, "hi")]);
    let shape = |form, field: &str| Structured {
        form,
        field: field.into(),
        name: None,
        description: None,
        strict: None,
    };
    request.messages[0].name = Some("eve".into());
    request.template.continue_final_message = true;
    request.decoding = Decoding {
        choices: 2,
        top_k: Some(5),
        seed: Some(1),
        stop: vec!["x".into()],
        min_p: Some(0.5),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(0.0),
        structured: Some(shape(Form::Regex("a".into()), "guided_regex")),
        stream: Some(StreamOptions::default()),
        ..Decoding::default()
    };
    request.extra = Map::from_iter([("tools[3]".to_owned(), json!({}))]);
    let (value, lost) = rendered(&request, false);
    let expect = [
        "continue_final_message",
        "guided_regex",
        "messages.name",
        "min_p",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "tools[3]",
        "top_k",
    ];
    assert_eq!(lost, expect);
    assert_eq!(value["stream"], true);
    assert!(parse(&value).is_ok(), "the rest is whole");
}
