//! What a request says, and the exact path and code of what is refused.

use serde_json::{Value, json};
use wire::responses::{self, count_answer};
use wire::{Content, Decoding, Effort, Form, Limits, Role, StreamOptions, Structured, ToolChoice};

use crate::{body, forward, ids, parse, refused};

#[test]
fn a_text_is_enough() {
    let request = parse(&json!({})).expect("accepted");
    assert_eq!(request.chat.model, "m");
    assert_eq!(request.chat.decoding, Decoding::default());
    assert_eq!(request.chat.tool_choice, ToolChoice::Auto);
    let [message] = &request.chat.messages[..] else { panic!("one message") };
    assert_eq!((message.role, &message.content), (Role::User, &Content::Text("hi".into())));
    assert!(request.keeping.store && !request.keeping.background && !request.is_open());
    let item = json!({"role": "user", "content": [{"type": "input_text", "text": "hi"}],
        "type": "message", "id": "msg_1", "status": "completed"});
    assert_eq!(request.input, [item]);
}

#[test]
fn instructions_come_first() {
    let request = parse(&json!({"instructions": "be brief"})).expect("accepted");
    assert_eq!(request.chat.messages[0].role, Role::System);
    assert_eq!(request.chat.messages[0].content, Content::Text("be brief".into()));
    assert_eq!(request.input.len(), 1, "they are no item: the next response has its own");
    let silent = parse(&json!({"instructions": ""})).expect("accepted");
    assert_eq!(silent.chat.messages.len(), 1);
}

#[test]
fn what_is_said_is_honoured() {
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    let request = parse(&json!({
        "temperature": 0.5, "top_p": 0.25, "max_output_tokens": 9, "top_logprobs": 3,
        "include": ["message.output_text.logprobs", "file_search_call.results"],
        "reasoning": {"effort": "xhigh", "summary": "auto", "generate_summary": null},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true,
            "description": "d"}, "verbosity": "medium"},
        "stream": true, "stream_options": {"include_obfuscation": false}, "store": false,
        "metadata": {"k": "v"}, "safety_identifier": "s", "parallel_tool_calls": false,
    }))
    .expect("accepted");
    let shape = Structured {
        form: Form::JsonSchema(schema),
        field: "text.format.schema".into(),
        name: Some("n".into()),
        description: Some("d".into()),
        strict: Some(true),
    };
    let expect = Decoding {
        temperature: Some(0.5),
        top_p: Some(0.25),
        max_tokens: Some(9),
        logprobs: Some(3),
        structured: Some(shape),
        stream: Some(StreamOptions::default()),
        ..Decoding::default()
    };
    assert_eq!(request.chat.decoding, expect);
    assert_eq!(request.chat.reasoning.effort, Some(Effort::XHigh));
    assert_eq!(request.chat.user.as_deref(), Some("s"));
    assert_eq!(request.chat.metadata["k"], "v");
    assert!(!request.keeping.store && !request.chat.parallel_tool_calls);
}

#[test]
fn fields_are_refused_by_name() {
    let long = "x".repeat(513);
    let table = [
        (json!({"model": null}), "model", "missing_required_parameter"),
        (json!({"input": null}), "input", "missing_required_parameter"),
        (json!({"input": []}), "input", "missing_required_parameter"),
        (json!({"input": 3}), "input", "invalid_type"),
        (json!({"temperature": 2.1}), "temperature", "decimal_above_max_value"),
        (json!({"max_output_tokens": 0}), "max_output_tokens", "integer_below_min_value"),
        (json!({"max_tokens": 5}), "max_tokens", "unsupported_parameter"),
        (json!({"max_output_token": 5}), "max_output_token", "unknown_parameter"),
        (json!({"top_k": 5}), "top_k", "unknown_parameter"),
        (json!({"top_logprobs": 5}), "top_logprobs", "invalid_value"),
        (json!({"stream_options": {}}), "stream_options", "invalid_value"),
        (json!({"truncation": "some"}), "truncation", "invalid_value"),
        (json!({"truncation": 5}), "truncation", "invalid_type"),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt", "unsupported_parameter"),
        (json!({"service_tier": "priority"}), "service_tier", "unsupported_parameter"),
        (json!({"service_tier": 5}), "service_tier", "invalid_type"),
        (json!({"include": ["x"]}), "include[0]", "invalid_value"),
        (json!({"include": [5]}), "include[0]", "invalid_type"),
        (json!({"reasoning": {"effort": "some"}}), "reasoning.effort", "invalid_value"),
        (json!({"reasoning": {"summary": "long"}}), "reasoning.summary", "unsupported_parameter"),
        (json!({"text": {"verbosity": "lower"}}), "text.verbosity", "invalid_value"),
        (json!({"text": {"format": {"type": "x"}}}), "text.format.type", "invalid_value"),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n"}}}),
            "text.format.schema",
            "missing_required_parameter",
        ),
        (json!({"conversation": {"x": 1}}), "conversation.x", "unknown_parameter"),
        (
            json!({"conversation": "c", "previous_response_id": "r"}),
            "conversation",
            "invalid_value",
        ),
        (json!({"background": true, "store": false}), "background", "invalid_value"),
        (json!({"metadata": {"k": 1}}), "metadata.k", "invalid_type"),
        (json!({"metadata": {"k": long}}), "metadata", "string_above_max_length"),
    ];
    for (extra, param, code) in table {
        refused(parse(&extra), param, code);
    }
}

#[test]
fn what_changes_nothing_passes() {
    let extra = json!({"user": "u", "prompt_cache_key": "k", "prompt_cache_retention": "24h",
        "client_metadata": {"turn": "1"}, "truncation": "disabled", "service_tier": "auto",
        "max_tool_calls": 3, "text": {"format": {"type": "text"}}, "context_management": [],
        "reasoning": null, "tools": null, "temperature": null});
    let request = parse(&extra).expect("accepted");
    assert_eq!(request.chat.decoding, Decoding::default());
    assert_eq!(request.chat.user.as_deref(), Some("u"));
}

#[test]
fn a_word_that_nobody_knows_is_refused_also_beside_what_is_passed_on() {
    let hosted = json!({"truncation": "some", "tools": [{"type": "web_search"}]});
    refused(forward(&hosted), "truncation", "invalid_value");
}

#[test]
fn what_is_passed_on_keeps_what_it_cannot_say() {
    let extra = json!({"truncation": "auto", "top_k": 5, "text": {"verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "detailed"}, "include": ["x"],
        "input": [{"role": "user", "content": "hi", "mood": "good"},
            {"type": "web_search_call", "id": "ws_1"}, {"type": "news"}]});
    let chat = forward(&extra).expect("accepted").chat;
    let kept: Vec<(&str, String)> =
        chat.extra.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
    let expect = [
        ("top_k", json!(5)),
        ("include[0]", json!("x")),
        ("truncation", json!("auto")),
        ("text.verbosity", json!("low")),
        ("input[0].mood", json!("good")),
        ("input[1]", json!({"type": "web_search_call", "id": "ws_1"})),
        ("input[2]", json!({"type": "news", "id": "item_2"})),
    ];
    assert_eq!(kept, expect.map(|(name, value)| (name, value.to_string())));
    assert_eq!(chat.messages.len(), 1);
    assert_eq!(chat.reasoning.effort, Some(Effort::Low));
    refused(forward(&json!({"temperature": "hot"})), "temperature", "invalid_type");
}

#[test]
fn a_request_that_goes_on_waits_for_the_rest() {
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "42"});
    for extra in [
        json!({"previous_response_id": "resp_1", "input": [output]}),
        json!({"conversation": {"id": "conv_1"}, "input": [output]}),
        json!({"conversation": "conv_1", "input": []}),
    ] {
        let request = parse(&extra).expect("accepted");
        assert!(request.is_open());
        assert_eq!(request.chat.messages.len(), request.input.len());
    }
    refused(parse(&json!({"input": [output]})), "input[0].call_id", "invalid_value");
}

#[test]
fn counting_takes_what_makes_a_prompt() {
    let count =
        |extra: Value| responses::parse_count(&body(&extra), &Limits::default(), &mut ids(), false);
    let request = count(json!({"instructions": "x", "tools": [], "reasoning": {"effort": "low"}}));
    assert_eq!(request.expect("accepted").chat.messages.len(), 2);
    refused(count(json!({"stream": true})), "stream", "unknown_parameter");
    refused(count(json!({"personality": "friendly"})), "personality", "unsupported_parameter");
    assert_eq!(count_answer(5), br#"{"object":"response.input_tokens","input_tokens":5}"#);
}

/// Codex says it with every request to a model of some names.
#[test]
fn a_wish_for_less_or_more_is_said_to_the_model() {
    let first = |extra: Value| {
        let chat = parse(&extra).expect("accepted").chat;
        (chat.messages.len(), chat.messages[0].content.clone())
    };
    let short = "Keep your answers short: say what is needed, and no more.";
    let low = || json!({"verbosity": "low"});
    assert_eq!(first(json!({"text": low()})), (2, Content::Text(short.into())));
    let said = json!({"text": low(), "instructions": "Be kind."});
    assert_eq!(first(said), (2, Content::Text(format!("Be kind.\n\n{short}"))));
    let long = json!({"text": {"verbosity": "high"}});
    assert!(matches!(first(long).1, Content::Text(text) if text.starts_with("Answer at length")));
    assert_eq!(first(json!({"text": {"verbosity": "medium"}})), first(json!({})));
    // Read to be passed on and answered here after all: it is said then, once.
    let hosted = json!({"text": low(), "truncation": "auto", "tools": [{"type": "web_search"}]});
    let mut here = forward(&hosted).expect("accepted");
    assert_eq!((here.chat.messages.len(), here.truncates), (1, true));
    here.here();
    assert_eq!(here.chat.messages.len(), 2);
    assert_eq!(here.chat.messages[0].content, Content::Text(short.into()));
    let mut open = hosted;
    open["previous_response_id"] = json!("r");
    let mut open = forward(&open).expect("accepted");
    open.here();
    open.join(&[json!({"type": "message", "role": "user", "content": "a"})]).expect("sound");
    let texts: Vec<Content> = open.chat.messages.into_iter().map(|m| m.content).collect();
    assert_eq!((texts.len(), &texts[0]), (3, &Content::Text(short.into())));
    // With what it goes on with it is said once.
    let mut open = parse(&json!({"text": low(), "previous_response_id": "r"})).expect("accepted");
    open.join(&[json!({"type": "message", "role": "user", "content": "a"})]).expect("sound");
    let texts: Vec<Content> = open.chat.messages.into_iter().map(|m| m.content).collect();
    assert_eq!(texts[0], Content::Text(short.into()));
    assert_eq!(texts.len(), 3);
}
