//! Tools: functions, tools of a namespace, custom tools, and which of them may be called.

use serde_json::{Value, json};
use wire::responses::{self, answer};
use wire::{Call, Choice, Finish, Tool, ToolChoice, Usage, messages, openai};

use crate::{echo, forward, head, ids, parse, refused};

fn function(name: &str) -> Value {
    json!({"type": "function", "name": name, "description": "d", "strict": false,
        "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}})
}

fn tools(tools: &Value) -> Vec<Tool> {
    parse(&json!({"tools": tools})).expect("accepted").chat.tools
}

#[test]
fn a_function_as_a_chat_has_it() {
    let got = tools(&json!([function("f"), {"type": "function", "name": "g", "strict": true,
        "parameters": null, "description": null}]));
    let expect = [
        r#"{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"b":{},"a":{}}}}}"#,
        r#"{"type":"function","function":{"name":"g","strict":true}}"#,
    ];
    assert_eq!(got.iter().map(|tool| tool.value.to_string()).collect::<Vec<_>>(), expect);
    assert_eq!(got.iter().map(|tool| tool.strict).collect::<Vec<_>>(), [false, true]);
    assert!(got[1].parameters().is_none());
}

/// OpenAI holds a function to its schema if it can where nothing is said. Chat does not: there it
/// has to be said.
#[test]
fn a_function_that_can_be_strict_is() {
    let closed = json!({"type": "object", "properties": {"a": {"type": "string"}},
        "required": ["a"], "additionalProperties": false});
    let open = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    for (schema, said, expect) in [
        (&closed, Value::Null, true),
        (&open, Value::Null, false),
        (&Value::Null, Value::Null, false),
        (&closed, json!(false), false),
        (&open, json!(true), true),
    ] {
        let tool = json!({"type": "function", "name": "f", "parameters": schema, "strict": said});
        let case = tool.to_string();
        let chat = forward(&json!({"tools": [tool]})).expect("accepted").chat;
        assert_eq!(chat.tools[0].strict, expect, "{case}");
        // One that nobody called strict may be answered freely where its schema cannot be held.
        assert_eq!(chat.tools[0].says_strict(), said == true, "{case}");
        let lost = &mut wire::Lost::default();
        let there = openai::render(&chat, openai::Flavor::OpenAi, lost);
        let strict = there["tools"][0]["function"]["strict"].as_bool();
        assert_eq!(strict.unwrap_or(false), expect, "{case}");
        let there = responses::render(&chat, true, lost);
        assert_eq!(there["tools"][0]["strict"], expect, "{case}");
        // Others are told what the caller says itself.
        let there = messages::render(&chat, 100, lost);
        assert_eq!(there["tools"][0]["strict"].as_bool(), said.as_bool().filter(|said| *said));
        assert!(lost.is_empty());
    }
}

#[test]
fn tools_of_a_namespace_have_longer_names() {
    let namespace = json!([{"type": "namespace", "name": "mail", "description": "Mail.",
        "tools": [function("send"), function("read")]}, function("read")]);
    let got = tools(&namespace);
    let names: Vec<&str> = got.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["mail__send", "mail__read", "read"]);
    let about = |at: usize| got[at].value["function"]["description"].clone();
    assert_eq!((about(0), about(1)), (json!("Mail.\n\nd"), json!("d")));
    assert_eq!(got[0].value["function"]["name"], "mail__send");
    let choice = json!({"type": "function", "name": "send", "namespace": "mail"});
    let request = parse(&json!({"tools": namespace, "tool_choice": choice})).expect("accepted");
    assert_eq!(request.chat.tool_choice, ToolChoice::Named("mail__send".into()));
}

/// The answer to a request with these tools, that calls one.
fn called(offered: &Value, name: &str, arguments: &str) -> Value {
    let calls = vec![Call { id: "c".into(), name: name.into(), arguments: arguments.into() }];
    let choice = Choice::text(0, "", Finish::ToolCalls).with_calls(calls);
    let echo = echo(&json!({"tools": offered}));
    let response = answer(head(), echo, &choice, &Usage::default(), &mut ids(), 9);
    let stored = response.to_stored();
    // What was called goes back under the name that it was called by.
    let mut next = parse(&json!({"tools": offered, "previous_response_id": "r",
        "input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}))
    .expect("accepted");
    next.join(stored["output"].as_array().expect("items")).expect("joined");
    let call = &next.chat.messages[0].tool_calls[0];
    assert_eq!((call.name.as_str(), call.arguments.as_str()), (name, arguments));
    stored["output"][0].clone()
}

#[test]
fn calls_go_back_as_what_was_offered() {
    let offered = json!([{"type": "namespace", "name": "mail", "tools": [function("send")]},
        {"type": "custom", "name": "patch", "description": "d"}, function("f")]);
    assert_eq!(
        called(&offered, "f", "{}"),
        json!({"id": "fc_1", "status": "completed", "type": "function_call", "arguments": "{}",
            "call_id": "c", "name": "f"})
    );
    assert_eq!(
        called(&offered, "mail__send", "{}"),
        json!({"id": "fc_1", "status": "completed", "type": "function_call", "arguments": "{}",
            "call_id": "c", "name": "send", "namespace": "mail"})
    );
    assert_eq!(
        called(&offered, "patch", r#"{"input":"a\n\"b\""}"#),
        json!({"id": "ctc_1", "status": "completed", "type": "custom_tool_call",
            "input": "a\n\"b\"", "call_id": "c", "name": "patch"})
    );
}

#[test]
fn a_custom_tool_is_a_function_of_one_text() {
    let format = json!({"type": "grammar", "syntax": "regex", "definition": "[a-z]+"});
    let got = tools(&json!([{"type": "custom", "name": "t", "description": "d", "format": format},
        {"type": "custom", "name": "u", "format": {"type": "text"}}]));
    let expect = r#"{"type":"function","function":{"name":"t","description":"d","parameters":{"type":"object","properties":{"input":{"type":"string","pattern":"^(?:[a-z]+)$"}},"required":["input"],"additionalProperties":false},"strict":true}}"#;
    assert_eq!(got[0].value.to_string(), expect);
    assert!(got[0].strict && got[1].strict);
    let input = &got[1].parameters().expect("a schema")["properties"]["input"];
    assert_eq!(input, &json!({"type": "string"}));
}

#[test]
fn tools_are_refused_by_path() {
    let lark = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"a\""});
    let with = |name: &str, value: Value| {
        let mut tool = function("f");
        tool[name] = value;
        json!([tool])
    };
    let table = [
        (json!([{"type": "web_search"}]), "tools[0].type", "unsupported_parameter"),
        (json!([{"name": "f"}]), "tools[0].type", "missing_required_parameter"),
        (json!([{"type": "function"}]), "tools[0].name", "missing_required_parameter"),
        (json!([{"type": "function", "name": "a b"}]), "tools[0].name", "invalid_value"),
        (json!([function("f"), function("f")]), "tools[1].name", "invalid_value"),
        (
            json!([function("n__f"), {"type": "namespace", "name": "n", "tools": [function("f")]}]),
            "tools[1].tools[0].name",
            "invalid_value",
        ),
        (with("parameters", json!([])), "tools[0].parameters", "invalid_type"),
        (with("defer_loading", json!(true)), "tools[0].defer_loading", "unsupported_parameter"),
        (with("function", json!({})), "tools[0].function", "unknown_parameter"),
        (
            json!([{"type": "custom", "name": "t", "format": lark}]),
            "tools[0].format.syntax",
            "unsupported_parameter",
        ),
    ];
    for (tools, param, code) in table {
        refused(parse(&json!({"tools": tools})), param, code);
    }
}

#[test]
fn choices() {
    let f = || json!({"type": "function", "name": "f"});
    let offered = json!([function("f"), {"type": "custom", "name": "t"}]);
    let check = |choice: Value, expect: ToolChoice| {
        let request = parse(&json!({"tools": offered, "tool_choice": choice})).expect("accepted");
        assert_eq!(request.chat.tool_choice, expect);
    };
    check(json!("none"), ToolChoice::None);
    check(json!("required"), ToolChoice::Required);
    check(f(), ToolChoice::Named("f".into()));
    check(json!({"type": "custom", "name": "t"}), ToolChoice::Named("t".into()));
    check(
        json!({"type": "allowed_tools", "mode": "required", "tools": [f()]}),
        ToolChoice::Allowed { names: vec!["f".into()], required: true },
    );
    let table = [
        (json!("f"), "tool_choice", "invalid_value"),
        (json!(1), "tool_choice", "invalid_type"),
        (json!({"type": "function", "name": "g"}), "tool_choice.name", "invalid_value"),
        (json!({"type": "web_search"}), "tool_choice.type", "unsupported_parameter"),
        (
            json!({"type": "allowed_tools", "mode": "auto", "tools": [f(), {"type": "mcp"}]}),
            "tool_choice.tools[1].type",
            "unsupported_parameter",
        ),
    ];
    for (choice, param, code) in table {
        refused(parse(&json!({"tools": offered, "tool_choice": choice})), param, code);
    }
    refused(parse(&json!({"tool_choice": "required"})), "tool_choice", "invalid_value");
}

#[test]
fn what_is_passed_on_keeps_tools_of_others() {
    let lark = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"a\""});
    let search = json!({"type": "web_search", "external_web_access": false});
    let request = forward(&json!({"tool_choice": {"type": "web_search"},
        "tools": [search, {"type": "custom", "name": "t", "format": lark}]}))
    .expect("accepted");
    assert_eq!(request.chat.tools.len(), 1);
    let kept: Vec<&String> = request.chat.extra.keys().collect();
    assert_eq!(kept, ["tools[0]", "tools[1].format", "tool_choice"]);
    assert_eq!(request.chat.tool_choice, ToolChoice::Auto);
}
