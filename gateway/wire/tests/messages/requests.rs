//! What a request becomes.

use serde_json::{Value, json};
use wire::{
    Content, Effort, Form, Image, Limits, Message, Part, Role, Seal, Thought, ToolCall, ToolChoice,
    messages, openai,
};

use crate::{accept, body, turns};

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

fn parts(role: Role, parts: Vec<Part>) -> Message {
    Message { content: Content::Parts(parts), ..Message::text(role, "") }
}

fn result(id: &str, content: Content) -> Message {
    let tool_call_id = Some(id.into());
    Message { content, tool_call_id, ..Message::text(Role::Tool, "") }
}

#[test]
fn system_comes_first_and_in_between() {
    let system = |value: Value| {
        let request = accept(&json!({"system": value}));
        assert_eq!(request.messages.last(), Some(&Message::text(Role::User, "hi")));
        request.messages[..request.messages.len() - 1].to_vec()
    };
    assert_eq!(system(json!("be kind")), [Message::text(Role::System, "be kind")]);
    assert_eq!(system(json!("")), []);
    let cached = json!({"type": "ephemeral", "ttl": "1h"});
    let blocks = json!([
        {"type": "text", "text": "a", "cache_control": cached},
        {"type": "text", "text": ""},
        {"type": "text", "text": "b", "citations": null},
    ]);
    assert_eq!(system(blocks), [parts(Role::System, vec![text("a"), text("b")])]);
    // vllm#44000: Claude Code sends the role in the middle and at the end.
    let request = turns(&json!([
        {"role": "user", "content": "hi"},
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
    ]));
    let expect = [Message::text(Role::User, "hi"), Message::text(Role::System, "be brief")];
    assert_eq!(request.messages, expect);
    assert!(request.template.add_generation_prompt);
}

/// vllm#36829, llama.cpp#21793: a line that differs in each request stands in front of the prompt
/// of Claude Code, and no prefix of it is ever found again.
#[test]
fn billing_line_is_left_out() {
    let line = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;";
    let check = |system: Value, expect: &str| {
        let request = accept(&json!({"system": system}));
        assert_eq!(request.messages[0], Message::text(Role::System, expect), "{system}");
    };
    let own = json!({"type": "text", "text": "You are"});
    check(json!([{"type": "text", "text": line}, own]), "You are");
    check(json!(format!("{line}\nYou are")), "You are");
    check(
        json!("You are\nx-anthropic-billing-header: 1"),
        "You are\nx-anthropic-billing-header: 1",
    );
    let request = accept(&json!({"system": line}));
    assert_eq!(request.messages.len(), 1);
}

#[test]
fn results_become_messages_of_their_own() {
    let request = turns(&json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm ", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "eA=="},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"z": 1, "a": [true, null]}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}, "caller": {"type": "direct"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "b", "is_error": true, "content": "no net"},
            {"type": "tool_result", "tool_use_id": "a", "content": [
                {"type": "text", "text": "map:"},
                {"type": "image", "source":
                    {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
            ]},
            {"type": "text", "text": "and now?", "cache_control": {"type": "ephemeral"}},
        ]},
    ]));
    let image =
        Part::Image(Image { url: "data:image/png;base64,QUJD".into(), detail: wire::Detail::Auto });
    let mut assistant = Message::text(Role::Assistant, "I look.");
    assistant.thoughts = vec![
        Thought { text: "hm ".into(), seal: Some(Seal::Signature("c2ln".into())) },
        Thought { text: String::new(), seal: Some(Seal::Redacted("eA==".into())) },
    ];
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    assistant.tool_calls = vec![call("a", "f", r#"{"z":1,"a":[true,null]}"#), call("b", "g", "{}")];
    let expect = [
        Message::text(Role::User, "weather?"),
        assistant,
        result("b", Content::Text("Tool error: no net".into())),
        result("a", Content::Parts(vec![text("map:"), image])),
        Message::text(Role::User, "and now?"),
    ];
    assert_eq!(request.messages, expect);
}

#[test]
fn a_result_may_be_empty_or_fail_without_words() {
    let with = |content: Value| {
        let call = json!({"type": "tool_use", "id": "a", "name": "f", "input": {}});
        let mut result = json!({"type": "tool_result", "tool_use_id": "a"});
        for (name, value) in content.as_object().expect("an object") {
            result[name] = value.clone();
        }
        let request = turns(&json!([
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]));
        request.messages[2].content.clone()
    };
    let text = |text: &str| Content::Text(text.into());
    assert_eq!(with(json!({})), text(""));
    assert_eq!(with(json!({"content": []})), text(""));
    assert_eq!(with(json!({"content": null, "is_error": true})), text("Tool error: "));
    assert_eq!(
        with(json!({"content": [{"type": "document", "title": "T",
        "source": {"type": "text", "media_type": "text/plain", "data": "d"}}]})),
        text("T\nd")
    );
}

#[test]
fn turns_of_one_role_are_one_turn() {
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "1"});
    let request = turns(&json!([
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": ""}]},
        {"role": "assistant", "content": [call("1")]},
        {"role": "assistant", "content": [{"type": "text", "text": "and"}, call("2")]},
        {"role": "user", "content": [result("2")]},
        {"role": "user", "content": [result("1"), {"type": "text", "text": "c"}]},
        {"role": "assistant", "content": ""},
    ]));
    assert_eq!(request.messages[0], parts(Role::User, vec![text("a"), text("b")]));
    assert_eq!(request.messages[1].content, Content::Text("and".into()));
    assert_eq!(request.messages[1].tool_calls.len(), 2);
    assert_eq!(request.messages[4], Message::text(Role::User, "c"));
    // An empty turn at the end begins no answer.
    assert_eq!(request.messages.len(), 5);
    assert!(request.template.add_generation_prompt);
}

#[test]
fn a_last_turn_of_the_assistant_is_gone_on_with() {
    let request = turns(&json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "The answer is ("}]},
    ]));
    assert_eq!(request.messages[1], Message::text(Role::Assistant, "The answer is ("));
    assert!(request.template.continue_final_message);
    assert!(!request.template.add_generation_prompt);
}

#[test]
fn our_own_signature_is_no_seal() {
    let request = turns(&json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "x\n y", "signature": "hearth1.words"},
            {"type": "thinking", "thinking": "", "signature": "hearth1.words"},
            {"type": "thinking", "thinking": "", "signature": "EqoB"},
            {"type": "thinking", "thinking": "", "signature": "hearth1.item.cnNfMQ.gAAA="},
            {"type": "text", "text": "b"},
        ]},
        {"role": "user", "content": "c"},
    ]));
    let item = Seal::Encrypted { id: "rs_1".into(), content: "gAAA=".into() };
    let expect = [
        Thought::of("x\n y"),
        Thought { text: String::new(), seal: Some(Seal::Signature("EqoB".into())) },
        Thought { text: String::new(), seal: Some(item) },
    ];
    assert_eq!(request.messages[1].thoughts, expect);
}

#[test]
fn tools_have_one_shape() {
    let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}, "required": ["z"]});
    let request = accept(&json!({
        "tools": [
            {"input_schema": schema, "description": "d", "name": "f", "type": "custom",
                "strict": true, "cache_control": {"type": "ephemeral"},
                "eager_input_streaming": true, "defer_loading": false},
            {"name": "mcp__x-y", "input_schema": {}},
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
    }));
    let function = json!({"name": "f", "description": "d", "parameters": schema, "strict": true});
    let value = json!({"type": "function", "function": function});
    // The order of keys too.
    assert_eq!(request.tools[0].value.to_string(), value.to_string());
    assert!(request.tools[0].strict && !request.tools[1].strict);
    assert_eq!(request.tool_choice, ToolChoice::Named("f".into()));
    assert!(!request.parallel_tool_calls);
    // What templates print is what OpenAI's dialect takes.
    let value = openai::chat_to_json(&request).to_string();
    assert!(openai::parse_chat_forward(value.as_bytes(), &Limits::default()).is_ok(), "{value}");
}

#[test]
fn tool_choices() {
    let check = |choice: Value, expect: ToolChoice, parallel: bool| {
        let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
        let request = accept(&json!({"tools": tools, "tool_choice": choice}));
        assert_eq!((request.tool_choice, request.parallel_tool_calls), (expect, parallel));
    };
    check(json!(null), ToolChoice::Auto, true);
    check(json!({"type": "auto"}), ToolChoice::Auto, true);
    check(json!({"type": "auto", "disable_parallel_tool_use": true}), ToolChoice::Auto, false);
    check(json!({"type": "any"}), ToolChoice::Required, true);
    check(json!({"type": "none"}), ToolChoice::None, true);
}

#[test]
fn thinking_is_shown_to_whom_it_is_asked_by() {
    let check = |extra: Value, effort: Option<Effort>, budget: Option<u32>, include: bool| {
        let read = accept(&extra).reasoning;
        assert_eq!((read.effort, read.budget, read.include), (effort, budget, include), "{extra}");
        // A provider's seals belong to thoughts that were asked for, whether their words are shown.
        let asked = extra["thinking"]["type"].as_str().is_some_and(|kind| kind != "disabled");
        assert_eq!(read.seals, asked, "{extra}");
    };
    let high = || json!({"effort": "high"});
    let enabled = |display: Value| {
        json!({"type": "enabled", "budget_tokens": 2000,
        "display": display})
    };
    check(json!({}), Some(Effort::None), None, false);
    check(json!({"thinking": {"type": "disabled"}}), Some(Effort::None), None, false);
    check(
        json!({"thinking": {"type": "disabled"}, "output_config": high()}),
        Some(Effort::None),
        None,
        false,
    );
    check(json!({"output_config": high()}), Some(Effort::High), None, false);
    check(json!({"thinking": {"type": "adaptive"}}), None, None, true);
    check(
        json!({"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": high()}),
        Some(Effort::High),
        None,
        false,
    );
    check(json!({"thinking": enabled(json!(null))}), None, Some(2000), true);
    check(json!({"thinking": enabled(json!("summarized"))}), None, Some(2000), true);
    check(json!({"thinking": enabled(json!("omitted"))}), None, Some(2000), false);
}

#[test]
fn shapes() {
    let format = json!({"type": "json_schema", "schema": {"type": "object"}});
    let check = |extra: Value, field: &str| {
        let structured = accept(&extra).decoding.structured.expect("a shape");
        assert_eq!(structured.form, Form::JsonSchema(json!({"type": "object"})));
        assert_eq!(structured.field, field);
    };
    check(json!({"output_config": {"format": format}}), "output_config.format.schema");
    check(json!({"output_format": format}), "output_format.schema");
    assert_eq!(accept(&json!({"output_config": {"format": null}})).decoding.structured, None);
}

#[test]
fn settings() {
    let request = accept(&json!({
        "max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 5, "stream": true,
        "stop_sequences": ["\n\n", "x"], "metadata": {"user_id": "u"}, "service_tier": "auto",
        "speed": "standard", "cache_control": {"type": "ephemeral"}, "mcp_servers": [],
        "container": null, "inference_geo": null, "diagnostics": {"previous_message_id": null},
        "fallbacks": [],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }));
    let decoding = &request.decoding;
    assert_eq!(decoding.max_tokens, Some(7));
    assert_eq!((decoding.temperature, decoding.top_p), (Some(0.5), Some(0.25)));
    assert_eq!((decoding.top_k, &decoding.stop[..]), (Some(5), &["\n\n".into(), "x".into()][..]));
    assert!(decoding.stream.expect("a stream").include_usage);
    assert_eq!(request.user.as_deref(), Some("u"));
    assert!(request.extra.is_empty());
    accept(&json!({"context_management": {"edits": []}}));
}

#[test]
fn counting_needs_no_limit() {
    let mut value: Value = serde_json::from_slice(&body(&json!({"thinking":
        {"type": "enabled", "budget_tokens": 5000}})))
    .expect("JSON");
    value.as_object_mut().expect("an object").remove("max_tokens");
    let body = value.to_string().into_bytes();
    let request = messages::parse_count(&body, &Limits::default(), false).expect("counted");
    assert_eq!(request.decoding.max_tokens, None);
    let refused = messages::parse(&body, &Limits::default()).expect_err("no limit");
    assert_eq!(refused.param.as_deref(), Some("max_tokens"));
    assert_eq!(messages::count_answer(14), br#"{"input_tokens":14}"#);
}

/// Bodies of agents are large.
#[test]
fn two_megabytes() {
    let long = "word ".repeat(10_000);
    let turns: Vec<Value> = (0..40)
        .flat_map(|_| {
            [
                json!({"role": "user", "content": long}),
                json!({"role": "assistant", "content": "ok"}),
            ]
        })
        .chain([json!({"role": "user", "content": "end"})])
        .collect();
    assert_eq!(accept(&json!({"messages": turns})).messages.len(), 81);
}
