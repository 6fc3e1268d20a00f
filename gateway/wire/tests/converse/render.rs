//! What Bedrock's models are asked, and what of a request is lost on the way.

use serde_json::{Value, json};
use wire::{ChatRequest, Effort, Limits, Lost, Reasoning, Seal, Thought, converse, openai};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-20250514-v1:0";
/// One that finds out itself how much it thinks.
const ADAPTIVE: &str = "anthropic.claude-opus-4-6-v1";

fn request(model: &str, mut body: Value) -> ChatRequest {
    body["model"] = model.into();
    if body.get("messages").is_none() {
        body["messages"] = json!([{"role": "user", "content": "q"}]);
    }
    openai::parse_chat_forward(body.to_string().as_bytes(), &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.message))
}

fn write(request: &ChatRequest) -> (Value, Vec<String>) {
    let mut lost = Lost::default();
    let value = converse::render(request, &mut lost);
    (value, lost.names().map(str::to_owned).collect())
}

fn render(model: &str, body: Value) -> (Value, Vec<String>) {
    write(&request(model, body))
}

#[test]
fn only_what_was_said() {
    let (value, lost) = render(CLAUDE, json!({}));
    assert_eq!(value, json!({"messages": [{"role": "user", "content": [{"text": "q"}]}]}));
    assert_eq!(lost, Vec::<String>::new());
}

#[test]
fn a_chat_with_tools() {
    let long = "x".repeat(65);
    let (value, lost) = render(
        CLAUDE,
        json!({"messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": " "},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AA=="}}]},
            {"role": "user", "content": "r"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1__sig_AQID", "type": "function",
                    "function": {"name": "f", "arguments": "{\"b\":1,\"a\":2}"}},
                {"id": long, "type": "function", "function": {"name": "g", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "1__sig_AQID", "content": "one"},
            {"role": "tool", "tool_call_id": long, "content": ""},
            {"role": "user", "content": "go on"},
            {"role": "developer", "content": "d"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d",
            "strict": true, "parameters": {"type": "object", "b": 1, "a": 2}}},
            {"type": "function", "function": {"name": "g", "description": ""}}],
        "tool_choice": "required"}),
    );
    let expect = json!({
        "system": [{"text": "s"}, {"text": "d"}],
        "messages": [
            {"role": "user", "content": [{"text": "q"},
                {"image": {"format": "jpeg", "source": {"bytes": "AA=="}}}, {"text": "r"}]},
            {"role": "assistant", "content": [
                {"toolUse": {"toolUseId": "1", "name": "f", "input": {"b": 1, "a": 2}}},
                {"toolUse": {"toolUseId": "call_0", "name": "g", "input": {}}}]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "1", "content": [{"text": "one"}]}},
                {"toolResult": {"toolUseId": "call_0", "content": []}},
                {"text": "go on"}]}],
        "toolConfig": {
            "tools": [
                {"toolSpec": {"name": "f", "description": "d",
                    "inputSchema": {"json": {"type": "object", "b": 1, "a": 2}}, "strict": true}},
                {"toolSpec": {"name": "g",
                    "inputSchema": {"json": {"type": "object", "properties": {}}}}}],
            "toolChoice": {"any": {}}}});
    // As text: the order of keys is part of it.
    assert_eq!(value.to_string(), expect.to_string());
    assert_eq!(lost, Vec::<String>::new());
}

#[test]
fn choices_among_tools() {
    let check = |choice: Value, history: bool, expect: Value, names: &[&str]| {
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        let mut body = json!({"tools": [tool("f"), tool("g")], "tool_choice": choice});
        if history {
            body["messages"] = json!([{"role": "user", "content": "q"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "1",
                    "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "x"}]);
        }
        let (value, lost) = render(CLAUDE, body);
        let config = &value["toolConfig"];
        let tools = config["tools"].as_array().into_iter().flatten();
        let offered: Vec<&Value> = tools.map(|tool| &tool["toolSpec"]["name"]).collect();
        assert_eq!(json!([offered, config["toolChoice"]]), expect);
        assert_eq!(lost, names);
    };
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let allowed = |mode: &str| {
        json!({"type": "allowed_tools",
            "allowed_tools": {"mode": mode, "tools": [function("g")]}})
    };
    check("auto".into(), false, json!([["f", "g"], null]), &[]);
    check(function("g"), false, json!([["f", "g"], {"tool": {"name": "g"}}]), &[]);
    check(allowed("auto"), false, json!([["g"], null]), &[]);
    check(allowed("required"), false, json!([["g"], {"any": {}}]), &[]);
    check("none".into(), false, json!([[], null]), &[]);
    // A chat in which tools were called must name them.
    check("none".into(), true, json!([["f", "g"], null]), &["tool_choice"]);
}

#[test]
fn tools_that_were_called_are_named_even_where_none_is_offered() {
    let body = json!({"messages": [{"role": "user", "content": "q"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
            "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"}]});
    let (value, _) = render(CLAUDE, body);
    let spec = json!({"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}});
    assert_eq!(value["toolConfig"], json!({"tools": [spec]}));
}

#[test]
fn thoughts() {
    let mut chat = request(
        CLAUDE,
        json!({"messages": [{"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]}),
    );
    let thought = |text: &str, seal| Thought { text: text.into(), seal };
    chat.messages[1].thoughts = vec![
        thought("hm", Some(Seal::Signature("Eqo=".into()))),
        thought("", Some(Seal::Redacted("UkVE".into()))),
    ];
    let (value, lost) = write(&chat);
    let expect = json!([
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Eqo="}}},
        {"reasoningContent": {"redactedContent": "UkVE"}}, {"text": "a"}]);
    assert_eq!(value["messages"][1]["content"], expect);
    assert_eq!(lost, Vec::<String>::new());
    let encrypted = Seal::Encrypted { id: "i".into(), content: "c".into() };
    for seal in [None, Some(Seal::Signature("google.AQID".into())), Some(encrypted)] {
        chat.messages[1].thoughts = vec![thought("hm", seal)];
        let (value, lost) = write(&chat);
        assert_eq!(value["messages"][1]["content"], json!([{"text": "a"}]));
        assert_eq!(lost, ["messages[1].reasoning_content"]);
    }
}

#[test]
fn decoding_and_shape() {
    let (value, lost) = render(
        CLAUDE,
        json!({"max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 3,
            "stop": ["a"], "stream": true, "metadata": {"team": "a b"},
            "response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"type": "array"}}}}),
    );
    let expect = json!({
        "messages": [{"role": "user", "content": [{"text": "q"}]}],
        "inferenceConfig":
            {"maxTokens": 9, "temperature": 0.5, "topP": 0.25, "stopSequences": ["a"]},
        "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema":
            {"schema": "{\"type\":\"array\"}", "name": "n", "description": "d"}}}},
        "additionalModelRequestFields": {"top_k": 3},
        "requestMetadata": {"team": "a b"}});
    assert_eq!(value, expect);
    assert_eq!(lost, Vec::<String>::new());
    let (value, _) = render("amazon.nova-pro-v1:0", json!({"top_k": 3}));
    let fields = json!({"inferenceConfig": {"topK": 3}});
    assert_eq!(value["additionalModelRequestFields"], fields);
}

#[test]
fn what_is_lost_is_named() {
    let check = |body: Value, expect: &[&str]| {
        let (_, lost) = render("meta.llama3-70b-instruct-v1:0", body);
        assert_eq!(lost, expect);
    };
    check(json!({"n": 2, "seed": 1, "logprobs": true}), &["logprobs", "n", "seed"]);
    check(json!({"temperature": 1.5, "top_k": 3}), &["temperature", "top_k"]);
    check(json!({"presence_penalty": 0.0, "frequency_penalty": 1.0}), &["frequency_penalty"]);
    check(json!({"user": "u", "metadata": {"a": "é"}}), &["metadata", "user"]);
    check(json!({"reasoning_effort": "low"}), &["reasoning_effort"]);
    check(json!({"reasoning_effort": "none"}), &[]);
    check(json!({"response_format": {"type": "json_object"}}), &["response_format"]);
    check(json!({"store": true, "min_p": 0.5}), &["min_p", "store"]);
    check(
        json!({"tools": [{"type": "function", "function": {"name": "f"}}],
            "parallel_tool_calls": false}),
        &["parallel_tool_calls"],
    );
    let url = json!({"type": "image_url", "image_url": {"url": "https://a/b.png"}});
    check(
        json!({"messages": [{"role": "user", "name": "n", "content": [url]}]}),
        &["messages[0].content[0].image_url", "messages[0].name"],
    );
}

#[test]
fn thinking_is_each_familys_own() {
    let check = |model: &str, effort, budget, more: Value, level: Value, names: &[&str]| {
        let mut chat = request(model, json!({}));
        chat.reasoning = Reasoning { effort, budget, ..Reasoning::default() };
        let (value, lost) = write(&chat);
        let fields = value.get("additionalModelRequestFields").cloned().unwrap_or_default();
        assert_eq!(fields, more, "{model}");
        assert_eq!(value["outputConfig"]["effort"], level, "{model}");
        assert_eq!(lost, names, "{model}");
    };
    let thinking = |kind: Value| json!({"thinking": kind});
    let (high, none) = (Some(Effort::High), Some(Effort::None));
    let null = || Value::Null;
    check(CLAUDE, None, None, null(), null(), &[]);
    check(CLAUDE, none, None, thinking(json!({"type": "disabled"})), null(), &[]);
    check(CLAUDE, None, Some(0), thinking(json!({"type": "disabled"})), null(), &[]);
    // Those before 4.6 know budgets alone.
    let enabled = |tokens: u32| thinking(json!({"type": "enabled", "budget_tokens": tokens}));
    check(CLAUDE, high, None, enabled(24_576), null(), &[]);
    check(CLAUDE, Some(Effort::Minimal), None, enabled(1024), null(), &[]);
    check(CLAUDE, None, Some(2048), enabled(2048), null(), &[]);
    let adaptive = || thinking(json!({"type": "adaptive"}));
    check(ADAPTIVE, high, None, adaptive(), json!("high"), &[]);
    check(ADAPTIVE, Some(Effort::Minimal), None, adaptive(), json!("low"), &[]);
    check(ADAPTIVE, None, Some(2048), enabled(2048), null(), &[]);
    let old = "anthropic.claude-3-5-sonnet-20241022-v2:0";
    check(old, high, None, null(), null(), &["reasoning_effort"]);
    check(old, none, None, null(), null(), &[]);
    // It would show none unasked.
    let shown = thinking(json!({"type": "adaptive", "display": "summarized"}));
    check("global.anthropic.claude-opus-5", high, None, shown, json!("high"), &[]);
    let oss = "openai.gpt-oss-120b-1:0";
    check(oss, high, None, json!({"reasoning_effort": "high"}), null(), &[]);
    check(oss, none, Some(5), null(), null(), &["reasoning_effort", "thinking_token_budget"]);
    let nova = "amazon.nova-2-lite-v1:0";
    let config = json!({"type": "enabled", "maxReasoningEffort": "high"});
    check(nova, high, None, json!({"reasoningConfig": config}), null(), &[]);
}

/// Anthropic's rules for thoughts hold on Bedrock too.
#[test]
fn what_a_claude_that_thinks_does_not_take() {
    let check = |body: Value, thinking: Value, inference: Value, names: &[&str]| {
        let (value, lost) = render(CLAUDE, body.clone());
        let fields = value.get("additionalModelRequestFields").cloned().unwrap_or_default();
        assert_eq!(fields, thinking, "{body}");
        let config = value.get("inferenceConfig").cloned().unwrap_or_default();
        assert_eq!(config, inference, "{body}");
        assert_eq!(lost, names, "{body}");
    };
    let enabled = |tokens: u32| json!({"thinking": {"type": "enabled", "budget_tokens": tokens}});
    check(
        json!({"reasoning_effort": "high", "temperature": 0.5, "top_p": 0.5, "top_k": 3}),
        enabled(24_576),
        Value::Null,
        &["temperature", "top_k", "top_p"],
    );
    check(
        json!({"reasoning_effort": "high", "temperature": 1, "top_p": 0.96875}),
        enabled(24_576),
        json!({"topP": 0.96875}),
        &[],
    );
    check(
        json!({"reasoning_effort": "none", "temperature": 0.5, "top_p": 0.5}),
        json!({"thinking": {"type": "disabled"}}),
        json!({"temperature": 0.5, "topP": 0.5}),
        &[],
    );
    check(
        json!({"thinking_token_budget": 5000, "max_tokens": 2000}),
        enabled(1999),
        json!({"maxTokens": 2000}),
        &[],
    );
    let small = &["thinking_token_budget"];
    check(json!({"thinking_token_budget": 5}), Value::Null, Value::Null, small);
    check(
        json!({"thinking_token_budget": 5000, "max_tokens": 1024}),
        Value::Null,
        json!({"maxTokens": 1024}),
        small,
    );
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for choice in [json!("required"), tools[0].clone()] {
        check(
            json!({"tools": tools, "tool_choice": choice, "temperature": 0.5,
                "reasoning_effort": "high", "thinking_token_budget": 2048}),
            Value::Null,
            json!({"temperature": 0.5}),
            &["reasoning_effort", "thinking_token_budget"],
        );
    }
}

/// What Anthropic's new models refuse, Bedrock's refuse too.
#[test]
fn what_a_new_claude_does_not_take() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let forced = json!({"tools": tools, "tool_choice": "required", "reasoning_effort": "high"});
    let (value, lost) = render("global.anthropic.claude-opus-5-5", forced.clone());
    assert_eq!(value["toolConfig"].get("toolChoice"), None);
    assert_eq!(value["additionalModelRequestFields"]["thinking"]["type"], "adaptive");
    assert_eq!(lost, ["tool_choice"]);
    let (value, lost) = render("global.anthropic.claude-sonnet-5", forced);
    assert_eq!(value["toolConfig"]["toolChoice"], json!({"any": {}}));
    assert_eq!(value["additionalModelRequestFields"]["thinking"]["type"], "adaptive");
    assert!(lost.is_empty());
    let (value, lost) = render("anthropic.claude-sonnet-5-5", json!({"reasoning_effort": "none"}));
    let fields = &value["additionalModelRequestFields"];
    assert_eq!(fields["thinking"], json!({"type": "between_tools"}));
    assert!(lost.is_empty());
    let (value, lost) = render("anthropic.claude-opus-5-5", json!({"reasoning_effort": "none"}));
    assert_eq!(value.get("additionalModelRequestFields"), None);
    assert_eq!(
        (&value["outputConfig"]["effort"], &lost[..]),
        (&json!("low"), &["reasoning_effort".to_owned()][..])
    );
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
        {"role": "system", "content": "s"}]);
    let (value, lost) = render(ADAPTIVE, json!({"messages": turns}));
    assert_eq!(value["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(lost, ["continue_final_message"]);
}

/// As [`wire::messages`] has it.
#[test]
fn a_budget_is_for_turns_that_begin_with_thoughts() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let turns = json!([{"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "1"}]);
    let check = |seal: Option<Seal>, thinks: bool| {
        let mut chat = request(CLAUDE, json!({"messages": turns, "reasoning_effort": "high"}));
        chat.messages[1].thoughts = vec![Thought { text: "hm".into(), seal }];
        let mut lost = Lost::default();
        let value = converse::render(&chat, &mut lost);
        let thinking = value.pointer("/additionalModelRequestFields/thinking");
        assert_eq!(thinking.is_some(), thinks, "{value}");
        let left: Vec<&str> = lost.of_this_turn().collect();
        assert_eq!(left, if thinks { vec![] } else { vec!["reasoning_effort"] });
        assert!(lost.names().all(|name| name.ends_with("reasoning_content")), "{lost:?}");
    };
    check(Some(Seal::Signature("c2ln".into())), true);
    check(Some(Seal::Redacted("ZGF0YQ".into())), true);
    check(Some(Seal::Signature("google.CiQ=".into())), false);
    check(None, false);
}
