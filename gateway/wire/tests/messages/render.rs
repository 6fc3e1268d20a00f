//! What a provider of this dialect is sent.

use serde_json::{Value, json};
use wire::{
    ChatRequest, Content, Detail, Effort, Form, Image, Limits, Lost, Message, Part, Reasoning,
    Role, Seal, Structured, Thought, ToolCall, messages, openai,
};

/// A chat in OpenAI's dialect, as this one's provider gets it, and what is lost.
fn from_chat(extra: &Value) -> (Value, Vec<String>) {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let body = body.to_string();
    let request = openai::parse_chat_forward(body.as_bytes(), &Limits::default()).expect("a chat");
    sent(&request)
}

pub(super) fn sent(request: &ChatRequest) -> (Value, Vec<String>) {
    let mut lost = Lost::default();
    let value = messages::render(request, 1000, &mut lost);
    (value, lost.names().map(str::to_owned).collect())
}

/// Only `extra` is there beside the least request.
#[track_caller]
fn check(chat: &Value, extra: &Value, lost: &[&str]) {
    let mut expect = json!({"model": "m", "max_tokens": 1000,
        "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        expect[name] = value.clone();
    }
    let (value, names) = from_chat(chat);
    assert_eq!(value, expect, "{chat}");
    assert_eq!(names, lost, "{chat}");
}

#[test]
fn only_what_was_said() {
    check(&json!({}), &json!({}), &[]);
    check(
        &json!({"max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "stop": "x",
            "stream": true, "user": "u", "n": 1, "top_logprobs": 0, "presence_penalty": 0}),
        &json!({"max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "top_k": 3,
            "stop_sequences": ["x"], "stream": true, "metadata": {"user_id": "u"}}),
        &[],
    );
}

#[test]
fn what_is_lost_is_named() {
    check(
        &json!({"temperature": 1.5, "seed": 1, "n": 2, "logprobs": true, "min_p": 0.1,
            "logit_bias": {"1": 1}, "presence_penalty": 1, "metadata": {"a": "b"},
            "prediction": {"x": 1}, "response_format": {"type": "json_object"},
            "ignore_eos": false, "chat_template_kwargs": {"a": 1}}),
        &json!({}),
        &[
            "chat_template_kwargs",
            "logit_bias",
            "logprobs",
            "metadata",
            "min_p",
            "n",
            "prediction",
            "presence_penalty",
            "response_format",
            "seed",
            "temperature",
        ],
    );
}

#[test]
fn thoughts_are_asked_for() {
    let adaptive = |display: &str| json!({"type": "adaptive", "display": display});
    check(&json!({"reasoning_effort": "none"}), &json!({"thinking": {"type": "disabled"}}), &[]);
    check(
        &json!({"reasoning_effort": "high"}),
        &json!({"thinking": adaptive("summarized"), "output_config": {"effort": "high"}}),
        &[],
    );
    check(
        &json!({"reasoning_effort": "minimal", "include_reasoning": false}),
        &json!({"thinking": adaptive("omitted"), "output_config": {"effort": "low"}}),
        &[],
    );
    // A budget stays below the limit of tokens, and a model that thinks has its own temperature.
    let enabled = json!({"type": "enabled", "budget_tokens": 1999, "display": "summarized"});
    check(
        &json!({"thinking_token_budget": 5000, "max_tokens": 2000, "temperature": 0, "top_k": 2,
            "top_p": 0.5}),
        &json!({"thinking": enabled, "max_tokens": 2000}),
        &["temperature", "top_k", "top_p"],
    );
    check(&json!({"thinking_token_budget": 5}), &json!({}), &["thinking_token_budget"]);
    check(&json!({"thinking_token_budget": 0}), &json!({"thinking": {"type": "disabled"}}), &[]);
}

#[test]
fn shapes_join_the_effort() {
    let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
    check(
        &json!({"reasoning_effort": "low", "response_format": {"type": "json_schema",
            "json_schema": {"name": "n", "schema": schema}}}),
        &json!({"thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": "low",
                "format": {"type": "json_schema", "schema": schema}}}),
        &[],
    );
    check(&json!({"guided_regex": "a+"}), &json!({}), &["guided_regex"]);
}

#[test]
fn tools_and_choices() {
    let f = json!({"name": "f", "description": "d", "parameters": {"properties": {}}});
    let g = json!({"name": "g", "strict": true});
    let tools = json!([{"type": "function", "function": f}, {"type": "function", "function": g}]);
    let f = json!({"name": "f", "description": "d",
        "input_schema": {"properties": {}, "type": "object"}});
    let g = json!({"name": "g", "input_schema": {"type": "object"}, "strict": true});
    let with = |choice: Value, parallel: bool, tools_sent: Value, choice_sent: Value| {
        let chat = json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel});
        let mut extra = json!({"tools": tools_sent});
        if !choice_sent.is_null() {
            extra["tool_choice"] = choice_sent;
        }
        check(&chat, &extra, &[]);
    };
    let both = || json!([f, g]);
    let named = json!({"type": "function", "function": {"name": "g"}});
    with(json!("auto"), true, both(), json!(null));
    with(json!("auto"), false, both(), json!({"type": "auto", "disable_parallel_tool_use": true}));
    with(json!("required"), true, both(), json!({"type": "any"}));
    with(json!("none"), false, both(), json!({"type": "none"}));
    with(named.clone(), true, both(), json!({"type": "tool", "name": "g"}));
    let allowed = json!({"type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [named]}});
    with(allowed, true, json!([g]), json!({"type": "any"}));
}

#[test]
fn a_forced_call_leaves_no_budget() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let (value, lost) = from_chat(&json!({"tools": tools, "tool_choice": "required",
        "thinking_token_budget": 1024, "max_tokens": 5000}));
    assert!(value.get("thinking").is_none());
    assert_eq!(lost, ["thinking_token_budget"]);
    let named = json!({"type": "function", "function": {"name": "f"}});
    for choice in [json!("required"), named] {
        let (value, lost) = from_chat(&json!({"tools": tools, "tool_choice": choice,
            "reasoning_effort": "high", "temperature": 0.5}));
        assert_eq!((value.get("thinking"), value.get("output_config")), (None, None));
        assert_eq!(value["temperature"], 0.5);
        assert_eq!(lost, ["reasoning_effort"]);
    }
}

fn chat(turns: &Value, expect: &Value, lost: &[&str]) {
    let (value, names) = from_chat(&json!({"messages": turns}));
    let mut got = json!({"messages": value["messages"]});
    if let Some(system) = value.get("system") {
        got["system"] = system.clone();
    }
    assert_eq!(&got, expect);
    assert_eq!(names, lost);
}

#[test]
fn results_are_first_in_one_turn() {
    let call = |id: &str, arguments: &str| {
        json!({"id": id, "type": "function",
        "function": {"name": "f", "arguments": arguments}})
    };
    chat(
        &json!([
            {"role": "system", "content": "a"},
            {"role": "developer", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": ""},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}}]},
            {"role": "assistant", "content": null,
                "tool_calls": [call("a.1", "{\"z\": 1, \"a\": 2}"), call("b", "[1"), call("c", "")]},
            {"role": "tool", "tool_call_id": "b", "content": "Tool error: no"},
            {"role": "tool", "tool_call_id": "a.1", "content": ""},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "1"}]},
            {"role": "user", "content": "go on"},
        ]),
        &json!({
            "system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "x"},
                    {"type": "image", "source":
                        {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                    {"type": "image", "source": {"type": "url", "url": "https://h/i.png"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "call_a-2e1", "name": "f", "input": {"z": 1, "a": 2}},
                    {"type": "tool_use", "id": "b", "name": "f", "input": {"arguments": "[1"}},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "b", "content": "no", "is_error": true},
                    {"type": "tool_result", "tool_use_id": "call_a-2e1"},
                    {"type": "tool_result", "tool_use_id": "c", "content": "1"},
                    {"type": "text", "text": "go on"},
                ]},
            ],
        }),
        &["messages.content.image_url.detail"],
    );
}

/// Anthropic takes a system's turn behind a user's only, and nothing but the assistant's behind
/// it (pydantic-ai#6765, bifrost#5931).
#[test]
fn later_system_messages_stand_behind_the_users_turn() {
    chat(
        &json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "s"},
            {"role": "user", "content": "c"},
            {"role": "developer", "content": "t"},
        ]),
        &json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "system", "content":
                [{"type": "text", "text": "s"}, {"type": "text", "text": "t"}]},
        ]}),
        &[],
    );
    chat(
        &json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "s"},
        ]),
        &json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "s"},
        ]}),
        &["messages[2].role"],
    );
}

#[test]
fn turns_that_the_dialect_has_not() {
    chat(
        &json!([
            {"role": "user", "content": "a", "name": "bob"},
            {"role": "user", "content": ""},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": "b", "reasoning_content": "hm"},
        ]),
        &json!({"messages": [
            {"role": "user", "content":
                [{"type": "text", "text": "a"}, {"type": "text", "text": "1"}]},
            {"role": "assistant", "content": "b"},
        ]}),
        &[
            "continue_final_message",
            "messages.name",
            "messages.reasoning_content",
            "messages[2].role",
        ],
    );
}

/// bifrost#6342, litellm#38809: thoughts come back to the byte, first in their turn, and those
/// that have only a signature too.
#[test]
fn thoughts_come_back_unchanged() {
    let words = " a\u{0}\n\u{1F600}\"\\ ";
    let mut turn = Message::text(Role::Assistant, "b");
    turn.thoughts = vec![
        Thought { text: words.into(), seal: Some(Seal::Signature("s1".into())) },
        Thought { text: String::new(), seal: Some(Seal::Signature("s2".into())) },
        Thought { text: String::new(), seal: Some(Seal::Redacted("d".into())) },
    ];
    turn.tool_calls = vec![ToolCall { id: "a".into(), name: "f".into(), arguments: "{}".into() }];
    let mut request = crate::accept(&json!({}));
    let mut result = Message::text(Role::Tool, "1");
    result.tool_call_id = Some("a".into());
    request.messages.extend([turn, result]);
    let (value, lost) = sent(&request);
    assert_eq!(
        value["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": words, "signature": "s1"},
            {"type": "thinking", "thinking": "", "signature": "s2"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "b"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        ])
    );
    assert!(lost.is_empty());
}

#[test]
fn thoughts_of_others_are_lost() {
    let item = Seal::Encrypted { id: "rs_1".into(), content: "c".into() };
    for seal in [None, Some(item), Some(Seal::Signature("google.CiQ=".into()))] {
        let mut turn = Message::text(Role::Assistant, "b");
        turn.thoughts = vec![Thought { text: "hm".into(), seal }];
        let mut request = crate::accept(&json!({}));
        request.messages.extend([turn, Message::text(Role::User, "c")]);
        let (value, lost) = sent(&request);
        assert_eq!(value["messages"][1]["content"], "b");
        assert_eq!(lost, ["messages.reasoning_content"]);
    }
}

#[test]
fn an_image_outside_the_users_turn_is_lost() {
    let mut request = crate::accept(&json!({}));
    let image = Part::Image(Image { url: "u".into(), detail: Detail::Auto });
    let content = Content::Parts(vec![Part::Text("s".into()), image]);
    request.messages.insert(0, Message { content, ..Message::text(Role::System, "") });
    request.reasoning =
        Reasoning { effort: Some(Effort::Max), include: false, ..Reasoning::default() };
    request.decoding.structured = Some(Structured {
        form: Form::JsonSchema(json!({})),
        field: "response_format.json_schema.schema".into(),
        name: None,
        description: Some("d".into()),
        strict: None,
    });
    let (value, lost) = sent(&request);
    assert_eq!(value["system"], "s");
    assert_eq!(value["output_config"]["effort"], "max");
    assert_eq!(lost, ["messages.content.image_url", "response_format.json_schema.description"]);
}
