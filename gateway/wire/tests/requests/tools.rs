//! Tools, and which of them may or must be called.

use serde_json::{Value, json};
use wire::{Limits, TokenizeInput, ToolChoice, openai};

use super::{chat, check};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn tools_are_refused_by_path() {
    let with = |tools: Value| json!({"tools": tools});
    let function = |function: Value| with(json!([{"type": "function", "function": function}]));
    let (missing, kind, value) = ("missing_required_parameter", "invalid_type", "invalid_value");
    let table = [
        (with(json!({})), "tools", kind),
        (with(json!([1])), "tools[0]", kind),
        (with(json!(vec![tool("f"); 513])), "tools", "array_above_max_length"),
        (with(json!([{"function": {"name": "f"}}])), "tools[0].type", missing),
        (with(json!([{"type": "web_search"}])), "tools[0].type", value),
        (
            with(json!([{"type": "custom", "custom": {"name": "f"}}])),
            "tools[0].type",
            "unsupported_parameter",
        ),
        (with(json!([{"type": "function", "name": "f"}])), "tools[0].name", "unknown_parameter"),
        (with(json!([{"type": "function"}])), "tools[0].function", missing),
        (function(json!({})), "tools[0].function.name", missing),
        (function(json!({"name": 1})), "tools[0].function.name", kind),
        (function(json!({"name": ""})), "tools[0].function.name", value),
        (function(json!({"name": "a b"})), "tools[0].function.name", value),
        (function(json!({"name": "a".repeat(257)})), "tools[0].function.name", value),
        (function(json!({"name": "f", "strict": 1})), "tools[0].function.strict", kind),
        (function(json!({"name": "f", "parameters": []})), "tools[0].function.parameters", kind),
        (function(json!({"name": "f", "description": 1})), "tools[0].function.description", kind),
        (
            function(json!({"name": "f", "parameter": {}})),
            "tools[0].function.parameter",
            "unknown_parameter",
        ),
        (with(json!([tool("f"), tool("g"), tool("f")])), "tools[2].function.name", value),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls", kind),
        (json!({"functions": [{"name": "f"}]}), "functions", "unsupported_parameter"),
        (json!({"function_call": "auto"}), "function_call", "unsupported_parameter"),
    ];
    for (extra, param, code) in table {
        check(chat(&extra), param, code);
    }
}

#[test]
fn a_choice_is_refused_by_path() {
    let allowed = |mode: Value, tools: Value| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}});
    let (missing, kind, value) = ("missing_required_parameter", "invalid_type", "invalid_value");
    let inside = "tool_choice.allowed_tools";
    let table = [
        (json!("maybe"), "tool_choice".to_owned(), value),
        (json!(1), "tool_choice".into(), kind),
        (json!({}), "tool_choice.type".into(), missing),
        (json!({"type": "any"}), "tool_choice.type".into(), value),
        (
            json!({"type": "custom", "custom": {"name": "f"}}),
            "tool_choice.type".into(),
            "unsupported_parameter",
        ),
        (json!({"type": "function"}), "tool_choice.function".into(), missing),
        (json!({"type": "function", "name": "f"}), "tool_choice.name".into(), "unknown_parameter"),
        (json!({"type": "function", "function": {}}), "tool_choice.function.name".into(), missing),
        (tool("h"), "tool_choice.function.name".into(), value),
        (json!({"type": "allowed_tools"}), inside.into(), missing),
        (allowed(Value::Null, json!([tool("f")])), format!("{inside}.mode"), missing),
        (allowed(json!("none"), json!([tool("f")])), format!("{inside}.mode"), value),
        (allowed(json!("auto"), Value::Null), format!("{inside}.tools"), "empty_array"),
        (allowed(json!("auto"), json!([])), format!("{inside}.tools"), "empty_array"),
        (allowed(json!("auto"), json!([{}])), format!("{inside}.tools[0].type"), missing),
        (
            allowed(json!("required"), json!([tool("g"), tool("h")])),
            format!("{inside}.tools[1].function.name"),
            value,
        ),
    ];
    for (choice, param, code) in table {
        let extra = json!({"tools": [tool("f"), tool("g")], "tool_choice": choice});
        check(chat(&extra), &param, code);
    }
    for tools in [Value::Null, json!([])] {
        for choice in [json!("required"), tool("f"), allowed(json!("auto"), json!([tool("f")]))] {
            let extra = json!({"tools": tools, "tool_choice": choice});
            check(chat(&extra), "tool_choice", value);
        }
        for choice in ["auto", "none"] {
            assert!(chat(&json!({"tools": tools, "tool_choice": choice})).is_ok());
        }
    }
}

#[test]
fn choices_are_understood() {
    let check = |choice: Value, expect: ToolChoice| {
        let extra = json!({"tools": [tool("f"), tool("g")], "tool_choice": choice});
        assert_eq!(chat(&extra).expect("accepted").tool_choice, expect);
    };
    check(Value::Null, ToolChoice::Auto);
    check(json!("auto"), ToolChoice::Auto);
    check(json!("none"), ToolChoice::None);
    check(json!("required"), ToolChoice::Required);
    check(tool("g"), ToolChoice::Named("g".into()));
    for (mode, required) in [("auto", false), ("required", true)] {
        check(
            json!({"type": "allowed_tools",
                "allowed_tools": {"mode": mode, "tools": [tool("g"), tool("f")]}}),
            ToolChoice::Allowed { names: vec!["g".into(), "f".into()], required },
        );
    }
}

#[test]
fn tools_are_kept_as_written() {
    let function = json!({"strict": true, "name": "f", "parameters": {"b": 1, "a": 2}});
    let written = json!({"function": function, "type": "function", "cache_control": {"a": 1}});
    let bare = json!({"type": "function", "function":
        {"name": "g", "parameters": null, "strict": null, "description": null}});
    let request = chat(&json!({"tools": [written, bare], "parallel_tool_calls": false, "n": 2,
        "stop": "x", "logprobs": true}))
    .expect("accepted");
    let [first, second] = &request.tools[..] else { panic!("two tools") };
    assert_eq!(first.value.to_string(), written.to_string());
    assert_eq!((first.name.as_str(), first.strict), ("f", true));
    assert_eq!(first.parameters().map(Value::to_string).as_deref(), Some(r#"{"b":1,"a":2}"#));
    assert_eq!((second.name.as_str(), second.strict), ("g", false));
    assert_eq!(second.parameters(), None);
    assert!(!request.parallel_tool_calls);
    assert!(chat(&json!({})).expect("accepted").parallel_tool_calls);
}

/// Counting the tokens of a chat in the midst of its calls is a fair question.
#[test]
fn the_tokenizer_route_takes_tools_and_open_calls() {
    let body = json!({"tools": [tool("f")], "messages": [{"role": "assistant", "tool_calls":
        [{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}]});
    let got = openai::parse_tokenize(body.to_string().as_bytes(), &Limits::default());
    let TokenizeInput::Chat { tools, messages, .. } = got.expect("accepted").input else {
        panic!("a chat")
    };
    assert_eq!((tools[0].name.as_str(), messages.len()), ("f", 1));
    let body = json!({"tools": [tool("f"), tool("f")], "messages": [{"role": "user",
        "content": ""}]});
    let got = openai::parse_tokenize(body.to_string().as_bytes(), &Limits::default());
    check(got, "tools[1].function.name", "invalid_value");
}
