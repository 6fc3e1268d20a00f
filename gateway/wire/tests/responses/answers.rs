//! Whole responses: every field in its place, and the same as what a stream makes.

use serde_json::{Value, json};
use wire::responses::{Response, Status, answer, deleted, error, item_list};
use wire::{ApiError, Call, Choice, Delta, ErrorKind, Finish, Seal, SealRef, Thought};

use crate::stream::{USAGE, stream};
use crate::{echo, head, ids};

fn whole(extra: &Value, choice: &Choice) -> String {
    let response = answer(head(), echo(extra), choice, &USAGE, &mut ids(), 9);
    String::from_utf8(response.to_bytes()).expect("UTF-8")
}

#[test]
fn every_field_in_its_place() {
    let got = whole(&json!({}), &Choice::text(0, "hi", Finish::Stop));
    let expect = concat!(
        r#"{"id":"resp_0","object":"response","created_at":7,"status":"completed","#,
        r#""background":false,"completed_at":9,"error":null,"incomplete_details":null,"#,
        r#""instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"m","#,
        r#""output":[{"id":"msg_1","status":"completed","type":"message","content":"#,
        r#"[{"type":"output_text","annotations":[],"logprobs":[],"text":"hi"}],"#,
        r#""role":"assistant"}],"parallel_tool_calls":true,"previous_response_id":null,"#,
        r#""prompt_cache_key":null,"prompt_cache_retention":null,"#,
        r#""reasoning":{"effort":null,"summary":null},"safety_identifier":null,"#,
        r#""service_tier":"default","store":true,"temperature":null,"#,
        r#""text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","#,
        r#""tools":[],"top_logprobs":0,"top_p":null,"truncation":"disabled","#,
        r#""usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"#,
        r#""cache_write_tokens":0},"output_tokens":5,"output_tokens_details":"#,
        r#"{"reasoning_tokens":2},"total_tokens":14},"user":null,"metadata":{}}"#,
    );
    assert_eq!(got, expect);
}

#[test]
fn what_was_said_is_repeated() {
    let said = json!({
        "instructions": "x", "max_output_tokens": 5, "max_tool_calls": 2, "temperature": 0.5,
        "top_p": 0.25, "parallel_tool_calls": false, "conversation": "conv_1", "store": true,
        "prompt_cache_key": "k", "safety_identifier": "s", "user": "u", "metadata": {"a": "b"},
        "reasoning": {"effort": "low", "summary": "auto"}, "tool_choice": "required",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": true}],
        "text": {"format": {"type": "json_object"}}, "background": true,
        "include": ["message.output_text.logprobs"], "top_logprobs": 3,
    });
    let got = whole(&said, &Choice::text(0, "", Finish::Length));
    let got: Value = serde_json::from_str(&got).expect("JSON");
    for (name, value) in said.as_object().expect("an object") {
        let expect = match name.as_str() {
            "include" => continue,
            "conversation" => json!({"id": "conv_1"}),
            "text" => json!({"format": {"type": "json_object"}, "verbosity": "medium"}),
            _ => value.clone(),
        };
        assert_eq!(got[name], expect, "{name}");
    }
    assert_eq!(got["status"], "incomplete");
    assert_eq!(got["completed_at"], Value::Null);
    assert_eq!(got["incomplete_details"], json!({"reason": "max_output_tokens"}));
}

#[test]
fn items_have_the_order_in_which_they_were_made() {
    let calls =
        ["a", "b"].map(|id| Call { id: id.into(), name: "f".into(), arguments: "{}".into() });
    let choice = Choice {
        thoughts: vec![Thought::of("hm"), Thought::default()],
        refusal: Some("no".into()),
        ..Choice::text(0, "hi", Finish::Length).with_calls(calls.to_vec())
    };
    let got: Value = serde_json::from_str(&whole(&json!({}), &choice)).expect("JSON");
    let items = got["output"].as_array().expect("a list");
    let kinds: Vec<String> =
        items.iter().map(|item| format!("{} {}", item["type"], item["status"])).collect();
    let expect = [
        r#""reasoning" "completed""#,
        r#""message" "completed""#,
        r#""function_call" "completed""#,
        r#""function_call" "incomplete""#,
    ];
    assert_eq!(kinds, expect);
    assert_eq!(items[1]["content"][1], json!({"type": "refusal", "refusal": "no"}));
}

#[test]
fn a_stream_comes_to_the_same() {
    let seals = [Some(Seal::Signature("s".into())), Some(Seal::Redacted("r".into()))];
    for finish in [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Refused] {
        for (text, call) in [("hi", false), ("", true), ("hi", true), ("", false)] {
            let calls = if call {
                vec![Call { id: "c".into(), name: "f".into(), arguments: "{}".into() }]
            } else {
                Vec::new()
            };
            let thoughts =
                seals.iter().map(|seal| Thought { text: "hm".into(), seal: seal.clone() });
            let choice = Choice {
                thoughts: thoughts.collect(),
                ..Choice::text(0, text, finish).with_calls(calls)
            };
            let deltas = [
                Delta::Reasoning("hm"),
                Delta::Seal(SealRef::Signature("s")),
                Delta::Reasoning("hm"),
                Delta::Seal(SealRef::Redacted("r")),
                Delta::Content(text),
                if call { Delta::CallStart { index: 0, id: "c", name: "f" } } else { Delta::None },
                if call { Delta::Arguments { index: 0, text: "{}" } } else { Delta::None },
            ];
            let (_, streamed) = stream(&json!({}), &deltas, finish);
            let response = answer(head(), echo(&json!({})), &choice, &USAGE, &mut ids(), 9);
            assert_eq!(response.to_stored().to_string(), streamed.to_string());
        }
    }
}

#[test]
fn states_without_an_answer() {
    let failed = ApiError::new(ErrorKind::Deadline, "deadline", "Too slow.");
    for (status, name) in [
        (Status::Queued, "queued"),
        (Status::InProgress, "in_progress"),
        (Status::Cancelled, "cancelled"),
        (Status::Failed(failed), "failed"),
    ] {
        let bytes = Response::bare(head(), echo(&json!({})), status).to_bytes();
        let got: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(got["status"], name);
        assert_eq!(got["output"], json!([]));
        assert_eq!(got["usage"], Value::Null);
        let error = json!({"code": "server_error", "message": "Too slow."});
        assert_eq!(got["error"], if name == "failed" { error } else { Value::Null });
    }
}

#[test]
fn little_answers() {
    let items = [json!({"id": "a"}), json!({"id": "b"})];
    assert_eq!(
        item_list(&items, true),
        br#"{"object":"list","data":[{"id":"a"},{"id":"b"}],"first_id":"a","last_id":"b","has_more":true}"#
    );
    assert_eq!(
        item_list(&[], false),
        br#"{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}"#
    );
    assert_eq!(deleted("resp_1"), br#"{"id":"resp_1","object":"response","deleted":true}"#);
    let failed = error(&ApiError::new(ErrorKind::Invalid, "bad", "No.").with_param("input[0]"));
    assert_eq!(
        String::from_utf8(failed).expect("UTF-8"),
        r#"{"error":{"message":"No.","type":"invalid_request_error","param":"input[0]","code":"bad"}}"#
    );
}
