//! What a request that is passed on keeps aside.

use serde_json::{Value, json};
use wire::{ApiError, ChatRequest, Effort, Limits, Lost, Reasoning, Role, ToolChoice, messages};

use crate::body;

fn forward(extra: &Value) -> Result<ChatRequest, ApiError> {
    messages::parse_forward(&body(extra), &Limits::default())
}

/// Names of what was kept.
#[track_caller]
fn kept(extra: &Value) -> (ChatRequest, Vec<String>) {
    let request = forward(extra).expect("accepted");
    let mut names: Vec<String> = request.extra.keys().cloned().collect();
    names.sort();
    let mut lost = Lost::default();
    let sent = messages::render(&request, 10, &mut lost);
    assert_eq!(sent["model"], "m");
    for name in &names {
        assert!(lost.names().any(|lost| lost == name), "{name} is lost elsewhere");
    }
    (request, names)
}

#[test]
fn what_has_no_words_is_kept_under_its_path() {
    let (request, names) = kept(&json!({
        "container": "c", "newest": 1, "metadata": {"user_id": "u", "trace": "t"},
        "system": [{"type": "text", "text": "s", "citations": [1]}],
        "messages": [{"role": "user", "content": [
            {"type": "search_result", "title": "t"},
            {"type": "text", "text": "hi", "newest": true},
            {"type": "document", "source": {"type": "url", "url": "u"}},
        ]}],
        "tools": [
            {"type": "web_search_20260318", "name": "web_search"},
            {"name": "f", "input_schema": {}, "defer_loading": true},
        ],
        "tool_choice": {"type": "tool", "name": "web_search"},
        "output_config": {"task_budget": 5, "effort": "low"},
        "context_management": {"edits": [{"type": "compact_20260112"}]},
    }));
    let expect = [
        "container",
        "context_management",
        "messages[0].content[0]",
        "messages[0].content[1].newest",
        "messages[0].content[2]",
        "metadata.trace",
        "newest",
        "output_config.task_budget",
        "system[0].citations",
        "tool_choice",
        "tools[0]",
        "tools[1].defer_loading",
    ];
    assert_eq!(names, expect);
    assert_eq!(request.extra["messages[0].content[0]"]["title"], "t");
    assert_eq!(request.messages.len(), 2);
    assert_eq!(request.tools.len(), 1);
    assert_eq!(request.tool_choice, ToolChoice::Auto);
    assert_eq!(request.user.as_deref(), Some("u"));
}

#[test]
fn a_turn_of_such_blocks_alone_is_no_turn() {
    let (request, names) = kept(&json!({"messages": [
        {"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]},
        {"role": "user", "content": "x"},
    ]}));
    assert_eq!(names, ["messages[0].content[0]"]);
    assert_eq!(request.messages[0].role, Role::User);
}

#[test]
fn what_is_wrong_is_refused_all_the_same() {
    for extra in [
        json!({"max_tokens": null}),
        json!({"temperature": 7}),
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        json!({"tools": [{"name": "f", "input_schema": {}}],
            "tool_choice": {"type": "tool", "name": "g"}}),
    ] {
        assert!(forward(&extra).is_err(), "{extra}");
    }
}

/// To a provider, a caller that says nothing of thoughts says nothing of them.
#[test]
fn silence_about_thinking_stays_silence() {
    let silent = Reasoning { include: false, seals: false, ..Reasoning::default() };
    let (request, _) = kept(&json!({}));
    assert_eq!(request.reasoning, silent);
    let (request, _) = kept(&json!({"thinking": {"type": "disabled"}}));
    assert_eq!(request.reasoning.effort, Some(Effort::None));
    let (request, names) = kept(&json!({"thinking": {"type": "between_tools"},
        "output_config": {"effort": "low"}}));
    assert_eq!(names, ["thinking"]);
    let low = Some(Effort::Low);
    assert_eq!(request.reasoning, Reasoning { effort: low, ..silent });
}
