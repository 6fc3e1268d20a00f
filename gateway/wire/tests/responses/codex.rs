//! Requests in the shapes that Codex CLI sends (0.169): what it needs of a server of its own.

use serde_json::{Value, json};
use wire::{Content, Role, Thought};

use crate::{forward, parse, refused};

fn message(role: &str, texts: &[&str]) -> Value {
    let parts: Vec<Value> =
        texts.iter().map(|text| json!({"type": "input_text", "text": text})).collect();
    json!({"type": "message", "id": format!("msg_{role}"), "role": role, "content": parts})
}

/// Its second turn to a model that it does not know.
fn turn() -> Value {
    let run = json!({"type": "function", "name": "exec_command", "description": "Runs.",
        "strict": false, "parameters": {"type": "object", "properties":
            {"cmd": {"type": "string"}}, "required": ["cmd"], "additionalProperties": false}});
    let close = json!({"type": "function", "name": "close_agent", "strict": false,
        "parameters": {"type": "object", "properties": {}}});
    json!({
        "stream": true,
        "input": [
            message("developer", &["You help."]),
            message("developer", &["Skills.", "Permissions."]),
            message("user", &["Where we are."]),
            message("user", &["say hello"]),
            {"type": "reasoning", "id": "rs_1", "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}],
                "encrypted_content": "hearth1.aG0="},
            {"type": "message", "status": "completed", "id": "msg_1", "role": "assistant",
                "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
            {"type": "function_call", "status": "completed", "id": "fc_1",
                "name": "exec_command", "arguments": "{\"cmd\":\"ls\"}", "call_id": "call_1"},
            {"type": "function_call", "status": "completed", "id": "fc_2", "name": "close_agent",
                "namespace": "agents", "arguments": "{}", "call_id": "call_2"},
            {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "a.txt"},
            {"type": "function_call_output", "id": "fco_2", "call_id": "call_2", "output": "ok"},
        ],
        "tools": [run, {"type": "namespace", "name": "agents", "description": "Agents.",
            "tools": [close]}],
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {"effort": "high", "summary": "auto"},
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a1",
        "client_metadata": {"turn_id": "01a2"},
    })
}

#[test]
fn its_turn_is_accepted() {
    let request = parse(&turn()).expect("accepted");
    let names: Vec<&str> = request.chat.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["exec_command", "agents__close_agent"]);
    let messages = &request.chat.messages;
    assert_eq!(messages.len(), 7);
    assert_eq!(messages[0].content, Content::Text("You help.".into()));
    let said = &messages[4];
    assert_eq!((said.role, &said.thoughts[..]), (Role::Assistant, &[Thought::of("hm")][..]));
    assert_eq!(said.tool_calls[1].name, "agents__close_agent");
    assert!(request.chat.extra.is_empty());
}

/// It offers a search that a server runs unless `web_search` is `disabled` in its configuration.
#[test]
fn its_search_is_refused_by_name_or_kept() {
    let mut turn = turn();
    let tools = turn["tools"].as_array_mut().expect("a list");
    tools.push(json!({"type": "web_search", "external_web_access": false}));
    refused(parse(&turn), "tools[2].type", "unsupported_parameter");
    let kept = forward(&turn).expect("accepted").chat.extra;
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["tools[2]"]);
}
