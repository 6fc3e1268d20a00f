//! Cases as data: what may be written for a schema, and what not.

use serde_json::Value;

use crate::engine::{Engine, writes};

#[test]
fn schemas_hold() {
    let text = include_str!("../data/schema_cases.json");
    let cases: Value = serde_json::from_str(text).unwrap();
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let what = &case["what"];
        let start = match Engine::bytes().compile(&case["schema"]) {
            Ok(start) => start,
            Err(why) => {
                wrong.push(format!("{what}: {why}"));
                continue;
            }
        };
        for (list, holds) in [("accepts", true), ("rejects", false)] {
            for instance in case[list].as_array().unwrap() {
                if writes(&start, &instance.to_string()) != holds {
                    wrong.push(format!("{what}: {instance} in '{list}'"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// One text has one spelling, so none passes by its key's schema.
#[test]
fn keys_have_one_spelling() {
    let schema = serde_json::json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let start = Engine::bytes().compile(&schema).unwrap();
    for (text, holds) in [
        (r#"{"a":1}"#, true),
        (r#"{"b":"x"}"#, true),
        (r#"{"\u0061":"x"}"#, false),
        (r#"{"a":1,"a":"x"}"#, false),
        (r#"{"b\/":1}"#, false),
        (r#"{"b\"":1}"#, true),
    ] {
        assert_eq!(writes(&start, text), holds, "{text}");
    }
}
