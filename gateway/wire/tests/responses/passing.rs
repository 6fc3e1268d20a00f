//! Requests that go to a provider as they came while their responses are kept elsewhere, and the
//! answers to them.

use serde_json::{Value, json};
use wire::Limits;
use wire::responses::{Before, Outline, Passed, Passing, Seals, Whom};

use crate::{body, ids, refused};

/// OpenAI, of a model that thinks.
const OPENAI: Whom<'_> =
    Whom { provider: "openai", model: "gpt-6", seals: Seals::Own { thinks: true }, most: None };

fn passing(extra: &Value) -> Passing {
    Passing::parse(&body(extra), &Limits::default(), &mut ids()).expect("accepted")
}

fn sent(request: &Passing, history: &[Value], whom: Whom<'_>) -> Value {
    let bytes = request.clone().body(history, whom);
    serde_json::from_slice(&bytes).expect("JSON")
}

fn passed(extra: &Value) -> Passed {
    passing(extra).answer("resp_ours", "openai")
}

/// A response of a provider's.
fn response(status: &str) -> Value {
    let words = json!([{"type": "summary_text", "text": "hm"}]);
    json!({"id": "resp_theirs", "object": "response", "status": status, "store": false,
        "previous_response_id": null, "output": [
            {"type": "reasoning", "id": "rs_1", "summary": words, "encrypted_content": "gAAA"},
            {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "hi"}]},
        ], "of_tomorrow": {"a": 1}})
}

#[test]
fn what_says_where_it_is_kept_is_taken_out() {
    let extra = json!({"previous_response_id": "resp_1", "store": true, "of_tomorrow": [1],
        "include": ["file_search_call.results"], "max_output_tokens": 50});
    let got = sent(&passing(&extra), &[], Whom { most: Some(20), ..OPENAI });
    let expect = json!({"model": "gpt-6", "input": "hi", "store": false, "of_tomorrow": [1],
        "include": ["file_search_call.results", "reasoning.encrypted_content"],
        "max_output_tokens": 20});
    assert_eq!(got, expect);
    let plain = json!({"model": "gpt-6", "input": "hi", "store": false});
    for (more, thinks, asks) in [
        (json!({}), true, true),
        (json!({}), false, false),
        (json!({"effort": "low"}), false, true),
        (json!({"effort": "none"}), true, false),
        (json!({"summary": "auto"}), false, false),
    ] {
        let mut got = sent(
            &passing(&json!({"reasoning": more})),
            &[],
            Whom { seals: Seals::Own { thinks }, ..OPENAI },
        );
        let fields = got.as_object_mut().expect("fields");
        fields.remove("reasoning");
        assert_eq!(fields.remove("include").is_some(), asks, "{more}, {thinks}");
        assert_eq!(got, plain);
    }
}

#[test]
fn what_comes_before_is_told() {
    let theirs = |content: &str| {
        json!({"type": "reasoning", "id": "rs_1", "summary": [],
        "encrypted_content": content})
    };
    let mut whole = passed(&json!({}));
    whole.answer(response("completed").to_string().as_bytes()).expect("a response");
    let kept = whole.finished().expect("whole");
    let tagged = &kept["output"][0];
    assert_ne!(tagged["encrypted_content"], "gAAA", "it says whose it is");
    let output = json!({"type": "function_call_output", "id": "fco_1", "call_id": "c",
        "output": "1"});
    let history = [tagged.clone(), theirs("hearth1.aGk="), theirs("raw"), output];
    let request = passing(&json!({}));
    let input = |whom| sent(&request, &history, whom)["input"].take();
    let mine = input(OPENAI);
    assert_eq!(mine[0]["encrypted_content"], "gAAA");
    assert_eq!(mine[0]["summary"], tagged["summary"]);
    assert_eq!(mine[1]["encrypted_content"], "raw", "ours mean nothing there");
    assert_eq!(mine[2], json!({"type": "function_call_output", "call_id": "c", "output": "1"}));
    assert_eq!(mine[3]["content"], json!([{"type": "input_text", "text": "hi"}]));
    let others = input(Whom { provider: "azure", ..OPENAI });
    assert_eq!(others.as_array().map(Vec::len), Some(3));
    // Whoever takes thoughts in words gets those.
    let words = input(Whom { provider: "vllm", seals: Seals::Words, ..OPENAI });
    assert_eq!(words[0]["summary"][0]["text"], "hm");
    assert!(words.as_array().expect("items").iter().all(|i| i.get("encrypted_content").is_none()));
    assert_eq!(words[3]["id"], "fco_1");
    let all = input(Whom { provider: "next", seals: Seals::All, ..OPENAI });
    assert_eq!(all[0]["encrypted_content"], tagged["encrypted_content"]);
    assert_eq!(all[1]["encrypted_content"], "hearth1.aGk=");
    // One that does not think is shown none.
    let dull = input(Whom { seals: Seals::Own { thinks: false }, ..OPENAI });
    assert_eq!(dull.as_array().map(Vec::len), Some(2));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let parse = |extra: Value| Passing::parse(&body(&extra), &Limits::default(), &mut ids());
    refused(parse(json!({"store": "yes"})), "store", "invalid_type");
    let both = json!({"previous_response_id": "resp_1", "conversation": "conv_1"});
    refused(parse(both), "conversation", "invalid_value");
    refused(parse(json!({"background": true, "store": false})), "background", "invalid_value");
    refused(
        parse(json!({"input": [{"content": "hi"}]})),
        "input[0].type",
        "missing_required_parameter",
    );
}

#[test]
fn answers_say_where_they_are_kept() {
    for (status, is_whole) in
        [("completed", true), ("incomplete", true), ("failed", false), ("in_progress", false)]
    {
        let mut whole = passed(&json!({"previous_response_id": "resp_0"}));
        let got = whole.answer(response(status).to_string().as_bytes()).expect("a response");
        let got: Value = serde_json::from_slice(&got).expect("JSON");
        assert_eq!((&got["id"], &got["store"]), (&json!("resp_ours"), &json!(true)));
        assert_eq!(got["previous_response_id"], "resp_0");
        assert_eq!((&got["of_tomorrow"], got.get("conversation")), (&json!({"a": 1}), None));
        assert!(got["output"][0].get("encrypted_content").is_none());
        assert_eq!(whole.finished().is_some(), is_whole, "{status}");
        assert_eq!(whole.finished(), None, "once");
    }
    let mut asked = passed(&json!({"include": ["reasoning.encrypted_content"]}));
    let got = asked.answer(response("completed").to_string().as_bytes()).expect("a response");
    assert!(String::from_utf8_lossy(&got).contains("\"gAAA\""));
    assert!(asked.answer(b"[]").is_err() && asked.answer(b"\xff").is_err());
}

#[test]
fn events_are_left_alone_that_show_no_response() {
    let rest = concat!(
        ": a comment with \"response\"\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",",
        "\"delta\":\"\\\"response\\\":{} \\\"encrypted_content\\\"\"}\n\n",
        "data: {\"type\":\"response.mcp_call.failed\",\"response\":{\"id\":\"x\"}}\r\n\r\n",
        "data: \"response\"\n\n",
        "data: {\"type\":\"response.completed\",\"response\":7}\n\n",
        "data: half an \"response\"",
    );
    let mut stream = passed(&json!({}));
    let mut out = Vec::new();
    stream.events(rest.as_bytes(), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), rest);
    assert_eq!(stream.finished(), None);
    let shown = json!({"type": "response.completed", "sequence_number": 3,
        "response": response("completed")});
    let mut out = Vec::new();
    stream.events(format!("data:{shown}\r\n\r\n").as_bytes(), &mut out);
    let out = String::from_utf8(out).expect("UTF-8");
    assert!(out.starts_with("event: response.completed\ndata: {\"type\":"), "{out}");
    assert!(out.contains("\"id\":\"resp_ours\"") && out.contains("\"sequence_number\":3"), "{out}");
    assert!(!out.contains("gAAA") && stream.finished().is_some());
}

/// What OpenAI makes of a long conversation is sealed too, and goes back as it is.
#[test]
fn only_thoughts_are_sealed_and_unsealed() {
    let compact = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gBBB"});
    let mut whole = passed(&json!({}));
    let mut made = response("completed");
    made["output"].as_array_mut().expect("items").push(compact.clone());
    let shown = whole.answer(made.to_string().as_bytes()).expect("a response");
    let shown: Value = serde_json::from_slice(&shown).expect("JSON");
    let kept = whole.finished().expect("whole");
    assert_eq!((&shown["output"][2], &kept["output"][2]), (&compact, &compact));
    let sent = sent(&passing(&json!({})), std::slice::from_ref(&compact), OPENAI);
    assert_eq!(sent["input"][0], compact);
}

/// Some give their items no names; of those that are kept each has one.
#[test]
fn items_without_names_get_some() {
    let mut made = response("completed");
    made["output"] = json!([{"type": "function_call", "call_id": "c", "name": "f"},
        {"type": "message", "id": ""}]);
    let mut whole = passed(&json!({}));
    whole.answer(made.to_string().as_bytes()).expect("a response");
    let kept = whole.finished().expect("whole");
    assert_eq!(kept["output"][0]["id"], "fc_ours0000");
    assert_eq!(kept["output"][1]["id"], "msg_ours0001");
}

#[test]
fn seals_come_back_to_thoughts_without() {
    let bare = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    let known = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"});
    let mut request = passing(&json!({"input": [bare, {"role": "user", "content": "hi"}]}));
    request.seal(Before { history: &[], others: &[known] });
    assert_eq!(request.input[0]["encrypted_content"], "gAAA", "so it is kept");
    assert_eq!(sent(&request, &[], OPENAI)["input"][0]["encrypted_content"], "gAAA");
    let untyped = json!({"input": [{"id": "msg_1"}]});
    let request = passing(&untyped);
    assert_eq!(responses_of(&request), ["msg_1"], "a reference that does not say so");
}

fn responses_of(request: &Passing) -> Vec<&str> {
    wire::responses::references(&request.input)
}

#[test]
fn an_outline_says_what_is_kept() {
    let of = |extra: Value| Outline::of(&body(&extra)).expect("one way to read it");
    assert!(!of(json!({})).stands_alone() && of(json!({"store": false})).stands_alone());
    let alone = |more: Value| {
        let mut extra = json!({"store": false});
        extra.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        let outline = of(extra);
        (outline.stands_alone(), outline.names())
    };
    let text = json!({"type": "message", "role": "user", "content": "\"item_reference\""});
    assert_eq!(
        alone(json!({"input": [text, {"role": "user"}], "conversation": null})),
        (true, false)
    );
    for more in [
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": {"id": "conv_1"}}),
        json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"input": [{"id": "msg_1"}]}),
        json!({"input": [{"type": null, "id": "msg_1"}]}),
    ] {
        assert_eq!(alone(more.clone()), (false, true), "{more}");
    }
    for more in [
        json!({"background": true}),
        json!({"input": [{"type": "reasoning", "id": "rs_1"}]}),
        json!({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "hearth1.x"}]}),
    ] {
        assert_eq!(alone(more.clone()), (false, false), "{more}");
    }
    let sealed = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "g"});
    assert_eq!(alone(json!({"input": [sealed]})), (true, false));
    for wrong in [
        &b"[true]"[..],
        b"{\"store\":false,\"previous_response_id\":null,\"previous_response_id\":\"resp_1\"}",
        b"{\"store\":false,\"input\":[{\"type\":1}]}",
        b"{\"store\":false,\"input\":[7]}",
        b"{",
    ] {
        assert_eq!(Outline::of(wrong), None, "{}", String::from_utf8_lossy(wrong));
    }
    let escaped = br#"{"store":false,"input":[{"type":"item\u005freference","id":"msg\u005f1"}]}"#;
    assert_eq!(Outline::of(escaped).expect("read").references, ["msg_1"]);
}
