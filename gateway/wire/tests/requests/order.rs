//! Each call has one result, before the next turn.

use serde_json::{Value, json};

use super::{chat, check};

fn says(role: &str) -> Value {
    json!({"role": role, "content": "x", "name": "n"})
}

fn calls(ids: &[&str]) -> Value {
    let call = |id: &&str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": ""}});
    let calls: Vec<Value> = ids.iter().map(call).collect();
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": ""})
}

#[test]
fn a_wrong_order_is_refused_by_path() {
    let table = [
        (vec![result("a")], "messages[0].tool_call_id"),
        (vec![says("user"), says("assistant"), result("a")], "messages[2].tool_call_id"),
        (vec![calls(&["a"]), result("b")], "messages[1].tool_call_id"),
        (vec![calls(&["a"]), result("a"), result("a")], "messages[2].tool_call_id"),
        (vec![calls(&["a"]), result("a"), says("user"), result("a")], "messages[3].tool_call_id"),
        // The id is of an earlier assistant's message, not of the nearest.
        (
            vec![calls(&["a"]), result("a"), calls(&["b"]), result("a"), result("b")],
            "messages[3].tool_call_id",
        ),
        (vec![calls(&["a", "b", "a"]), result("a"), result("b")], "messages[0].tool_calls"),
        (vec![says("user"), calls(&["a"])], "messages[1].tool_calls"),
        (vec![calls(&["a"]), says("user"), result("a")], "messages[0].tool_calls"),
        (vec![calls(&["a"]), says("assistant")], "messages[0].tool_calls"),
        (vec![calls(&["a", "b"]), result("b"), says("user")], "messages[0].tool_calls"),
        (vec![calls(&["a"]), calls(&["b"]), result("b")], "messages[0].tool_calls"),
        (vec![calls(&["a"]), says("function")], "messages[0].tool_calls"),
    ];
    for (messages, param) in table {
        check(chat(&json!({"messages": messages})), param, "invalid_value");
    }
    let long = "\u{e9}".repeat(5000);
    let error = chat(&json!({"messages": [result(&long)]})).expect_err("refused");
    assert!(error.message.len() < 400, "an id is the caller's text and may be long: {error}");
}

#[test]
fn a_right_order_is_accepted() {
    let table = [
        vec![says("user"), calls(&["a", "b"]), result("b"), result("a")],
        // Ids may be used anew in a later turn.
        vec![calls(&["a"]), result("a"), calls(&["a"]), result("a"), says("assistant")],
        vec![calls(&[""]), result(""), says("user")],
        vec![calls(&["a"]), says("system"), result("a"), says("developer"), says("user")],
        vec![says("function"), says("user"), says("function")],
        vec![says("assistant"), says("assistant"), says("user"), says("user")],
    ];
    for messages in table {
        let got = chat(&json!({"messages": messages}));
        assert!(got.is_ok(), "{got:?}");
    }
    let many: Vec<String> = (0..1024).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut messages = vec![calls(&ids)];
    messages.extend(ids.iter().rev().map(|id| result(id)));
    assert!(chat(&json!({"messages": messages})).is_ok());
}
