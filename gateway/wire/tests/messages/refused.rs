//! What is refused, with its exact path and code.

use serde_json::{Value, json};

use crate::parse;

#[track_caller]
fn check(extra: &Value, param: &str, code: &str) {
    let error = parse(extra).expect_err(param);
    assert_eq!(error.param.as_deref(), Some(param), "{error}");
    assert_eq!(error.code.as_deref(), Some(code), "{error}");
    assert!(error.message.contains(&format!("'{param}'")), "{error}");
}

const MISSING: &str = "missing_required_parameter";
const TYPE: &str = "invalid_type";
const VALUE: &str = "invalid_value";
const UNKNOWN: &str = "unknown_parameter";
const UNSUPPORTED: &str = "unsupported_parameter";

#[test]
fn fields() {
    let thinking = |thinking: Value| json!({"thinking": thinking});
    let table = [
        (json!({"model": null}), "model", MISSING),
        (json!({"messages": null}), "messages", MISSING),
        (json!({"messages": []}), "messages", "empty_array"),
        (json!({"max_tokens": null}), "max_tokens", MISSING),
        (json!({"max_tokens": 0}), "max_tokens", "integer_below_min_value"),
        (json!({"max_tokens": "5"}), "max_tokens", TYPE),
        (json!({"temperature": 1.5}), "temperature", "decimal_above_max_value"),
        (json!({"n": 2}), "n", UNKNOWN),
        (json!({"max_token": 2}), "max_token", UNKNOWN),
        (json!({"stop_sequences": [""]}), "stop_sequences[0]", VALUE),
        (json!({"metadata": {"name": "x"}}), "metadata.name", UNKNOWN),
        (json!({"container": "c"}), "container", UNSUPPORTED),
        (json!({"mcp_servers": [{}]}), "mcp_servers", UNSUPPORTED),
        (json!({"fallbacks": "default"}), "fallbacks", UNSUPPORTED),
        (json!({"speed": "fast"}), "speed", UNSUPPORTED),
        (json!({"inference_geo": "us"}), "inference_geo", UNSUPPORTED),
        (json!({"service_tier": "batch"}), "service_tier", UNSUPPORTED),
        (json!({"diagnostics": {"previous_message_id": "m"}}), "diagnostics", UNSUPPORTED),
        (thinking(json!({})), "thinking.type", MISSING),
        (thinking(json!({"type": "much"})), "thinking.type", VALUE),
        (thinking(json!({"type": "between_tools"})), "thinking.type", UNSUPPORTED),
        (thinking(json!({"type": "enabled"})), "thinking.budget_tokens", MISSING),
        (
            thinking(json!({"type": "enabled", "budget_tokens": 1023})),
            "thinking.budget_tokens",
            "integer_below_min_value",
        ),
        (
            thinking(json!({"type": "enabled", "budget_tokens": 4096})),
            "thinking.budget_tokens",
            "integer_above_max_value",
        ),
        (
            thinking(json!({"type": "adaptive", "budget_tokens": 2000})),
            "thinking.budget_tokens",
            VALUE,
        ),
        (thinking(json!({"type": "adaptive", "display": "x"})), "thinking.display", VALUE),
        (json!({"output_config": {"effort": "minimal"}}), "output_config.effort", VALUE),
        (json!({"output_config": {"task_budget": {}}}), "output_config.task_budget", UNSUPPORTED),
        (json!({"output_config": {"format": {}}}), "output_config.format.type", MISSING),
        (json!({"output_format": {"type": "json_schema"}}), "output_format.schema", MISSING),
    ];
    for (extra, param, code) in table {
        check(&extra, param, code);
    }
    let small = json!({"max_tokens": 1000,
        "thinking": {"type": "enabled", "budget_tokens": 1024}});
    check(&small, "thinking.budget_tokens", VALUE);
    let format = json!({"type": "json_schema", "schema": {}});
    let both = json!({"output_format": format, "output_config": {"format": format}});
    check(&both, "output_format", VALUE);
}

#[test]
fn context_edits_that_change_something() {
    let edit = |edit: Value| json!({"context_management": {"edits": [edit]}});
    let kind = "context_management.edits[0].type";
    check(&edit(json!({"type": "clear_tool_uses_20250919"})), kind, UNSUPPORTED);
    check(&edit(json!({"type": "compact_20260112"})), kind, UNSUPPORTED);
    let keep = "context_management.edits[0].keep";
    check(&edit(json!({"type": "clear_thinking_20251015"})), keep, UNSUPPORTED);
    let one = json!({"type": "thinking_turns", "value": 1});
    check(&edit(json!({"type": "clear_thinking_20251015", "keep": one})), keep, UNSUPPORTED);
}

#[test]
fn tools() {
    let tools = |tool: Value| json!({"tools": [tool]});
    let f = || json!({"name": "f", "input_schema": {}});
    let with = |name: &str, value: Value| {
        let mut tool = f();
        tool[name] = value;
        tools(tool)
    };
    check(&with("type", json!("web_search_20260318")), "tools[0].type", UNSUPPORTED);
    check(&with("type", json!("bash_20250124")), "tools[0].type", UNSUPPORTED);
    check(&with("input_schema", json!(null)), "tools[0].input_schema", MISSING);
    check(&with("name", json!("a b")), "tools[0].name", VALUE);
    check(&with("defer_loading", json!(true)), "tools[0].defer_loading", UNSUPPORTED);
    check(
        &with("eager_input_streaming", json!(false)),
        "tools[0].eager_input_streaming",
        UNSUPPORTED,
    );
    check(&with("input_examples", json!([{}])), "tools[0].input_examples", UNSUPPORTED);
    check(&with("allowed_callers", json!(["x"])), "tools[0].allowed_callers", UNSUPPORTED);
    check(&with("parameters", json!({})), "tools[0].parameters", UNKNOWN);
    check(&json!({"tools": [f(), f()]}), "tools[1].name", VALUE);
    let choice = |choice: Value| json!({"tools": [f()], "tool_choice": choice});
    check(&choice(json!("auto")), "tool_choice", TYPE);
    check(&choice(json!({"type": "tool"})), "tool_choice.name", MISSING);
    check(&choice(json!({"type": "tool", "name": "g"})), "tool_choice.name", VALUE);
    check(&choice(json!({"type": "function"})), "tool_choice.type", VALUE);
    check(&json!({"tool_choice": {"type": "any"}}), "tool_choice.type", VALUE);
}

#[test]
fn blocks() {
    let said = |role: &str, block: Value| json!({"messages": [{"role": role, "content": [block]}]});
    let user = |block: Value| said("user", block);
    let kind = "messages[0].content[0].type";
    for block in [
        "search_result",
        "server_tool_use",
        "web_search_tool_result",
        "container_upload",
        "mcp_tool_use",
        "compaction",
        "fallback",
        "newest",
    ] {
        check(&user(json!({"type": block})), kind, UNSUPPORTED);
    }
    check(&user(json!({"type": "thinking", "thinking": "x"})), kind, VALUE);
    check(&said("assistant", json!({"type": "tool_result"})), kind, VALUE);
    check(&said("system", json!({"type": "image"})), kind, VALUE);
    check(&said("king", json!({})), "messages[0].role", VALUE);
    check(&user(json!({})), kind, MISSING);
    check(&user(json!({"type": "text"})), "messages[0].content[0].text", MISSING);
    check(&user(json!({"type": "text", "text": ""})), "messages[0].content", "empty_array");
    check(
        &json!({"messages": [{"role": "user", "content": ""}]}),
        "messages[0].content",
        "empty_array",
    );
    check(&json!({"messages": [{"role": "user"}]}), "messages[0].content", MISSING);
    check(&json!({"system": [{"type": "image"}]}), "system[0].type", VALUE);
    let cited = json!({"type": "text", "text": "a", "citations": [{}]});
    check(&user(cited), "messages[0].content[0].citations", UNSUPPORTED);
    let image = |source: Value| user(json!({"type": "image", "source": source}));
    let source = "messages[0].content[0].source";
    check(&image(json!(null)), source, MISSING);
    check(&image(json!({"type": "file", "file_id": "f"})), &format!("{source}.type"), UNSUPPORTED);
    check(
        &image(json!({"type": "base64", "media_type": "image/tiff", "data": ""})),
        &format!("{source}.media_type"),
        VALUE,
    );
    check(&image(json!({"type": "url", "url": "u", "x": 1})), &format!("{source}.x"), UNKNOWN);
    let pdf = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBE"});
    let document = user(json!({"type": "document", "source": pdf}));
    check(&document, &format!("{source}.type"), UNSUPPORTED);
}

#[test]
fn calls_and_results() {
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
    let text = json!({"type": "text", "text": "x"});
    let chat = |calls: Value, results: Value| {
        json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": calls},
            {"role": "user", "content": results},
        ]})
    };
    let check = |calls: Value, results: Value, param: &str| {
        check(&chat(calls, results), param, VALUE);
    };
    check(json!([call("a")]), json!("x"), "messages[1]");
    check(json!([call("a"), call("b")]), json!([result("b")]), "messages[1]");
    check(json!([call("a")]), json!([result("b")]), "messages[2].content[0].tool_use_id");
    check(
        json!([call("a")]),
        json!([result("a"), result("a")]),
        "messages[2].content[1].tool_use_id",
    );
    check(json!([call("a")]), json!([text, result("a")]), "messages[2].content[1].type");
    check(json!([text, call("a"), call("a")]), json!("x"), "messages[1].content[2].id");
    check(json!([call("")]), json!("x"), "messages[1].content[0].id");
    // Whoever speaks, speaks behind all results of the turn.
    let late = json!({"messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [call("a"), call("b")]},
        {"role": "user", "content": [result("a"), text]},
        {"role": "user", "content": [result("b")]},
    ]});
    super::refused::check(&late, "messages[1]", VALUE);
    // A call at the end has no result, and thoughts alone cannot be gone on with.
    let last = |block: Value| {
        json!({"messages": [{"role": "user", "content": "x"},
        {"role": "assistant", "content": [block]}]})
    };
    super::refused::check(&last(call("a")), "messages[1]", VALUE);
    let thought = json!({"type": "thinking", "thinking": "x", "signature": "s"});
    super::refused::check(&last(thought), "messages[1]", VALUE);
    let input = json!({"type": "tool_use", "id": "a", "name": "f", "input": "{}"});
    super::refused::check(&last(input), "messages[1].content[0].input", TYPE);
}
