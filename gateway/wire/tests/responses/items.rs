//! Items as messages: what belongs to one turn, the order of calls and results, thoughts that come
//! back, and conversations that are joined.

use std::slice;

use serde_json::{Value, json};
use wire::responses::{self, answer};
use wire::{
    Call, Choice, Content, Detail, Finish, Image, Message, Part, Role, Seal, Thought, Usage,
};

use crate::{head, ids, parse, refused};

fn input(items: &Value) -> Value {
    json!({"input": items})
}

fn call(id: &str) -> Value {
    json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"})
}

fn output(id: &str) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": id})
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[track_caller]
fn messages(items: &Value) -> Vec<Message> {
    parse(&input(items)).expect("accepted").chat.messages
}

/// Each message in short: role, text, thoughts, calls.
fn short(messages: &[Message]) -> Vec<String> {
    let one = |message: &Message| {
        let text = match &message.content {
            Content::Absent => "-".to_owned(),
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => format!("{} parts", parts.len()),
        };
        let calls: Vec<&str> = message.tool_calls.iter().map(|call| call.id.as_str()).collect();
        let thoughts = Thought::words(&message.thoughts).unwrap_or_default();
        format!("{} {text} [{thoughts}] [{}]", message.role.name(), calls.join(","))
    };
    messages.iter().map(one).collect()
}

#[track_caller]
fn check(items: &Value, expect: &[&str]) {
    assert_eq!(short(&messages(items)), expect);
}

#[test]
fn roles_and_parts() {
    let got = messages(&json!([
        {"type": "message", "role": "developer", "content": "a"},
        {"role": "system", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "user", "id": "msg_x", "status": "completed", "content": [
            {"type": "input_text", "text": "c"},
            {"type": "input_image", "image_url": "data:x", "detail": "low"}]},
        {"role": "assistant", "phase": "final_answer", "content": [
            {"type": "output_text", "text": "d", "annotations": [], "logprobs": []}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]));
    let image = Image { url: "data:x".into(), detail: Detail::Low };
    let parts = vec![Part::Text("c".into()), Part::Image(image)];
    let expect = [
        Message::text(Role::Developer, "a"),
        Message::text(Role::System, "b"),
        Message { content: Content::Parts(parts), ..Message::text(Role::User, "") },
        Message::text(Role::Assistant, "d"),
        Message::text(Role::Assistant, "no"),
    ];
    assert_eq!(got, expect);
}

#[test]
fn a_turn_is_one_message() {
    let thought = json!({"type": "reasoning", "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}]});
    let said = json!({"role": "assistant", "content": "let me see"});
    check(
        &json!([
            user("q"),
            thought,
            said,
            call("1"),
            call("2"),
            output("2"),
            output("1"),
            thought,
            call("3"),
            output("3"),
            thought,
            said
        ]),
        &[
            "user q [] []",
            "assistant let me see [hm] [1,2]",
            "tool 2 [] []",
            "tool 1 [] []",
            "assistant - [hm] [3]",
            "tool 3 [] []",
            "assistant let me see [hm] []",
        ],
    );
    // Between calls and their results there is no other turn.
    check(
        &json!([user("q"), call("1"), said, thought, call("2"), said, output("1"), output("2")]),
        &["user q [] []", "assistant 2 parts [hm] [1,2]", "tool 1 [] []", "tool 2 [] []"],
    );
    check(
        &json!([user("q"), said, said, thought, said]),
        &[
            "user q [] []",
            "assistant let me see [] []",
            "assistant let me see [] []",
            "assistant let me see [hm] []",
        ],
    );
}

#[test]
fn calls_and_results_are_held_to_their_order() {
    let table = [
        (json!([output("1")]), "input[0].call_id"),
        (json!([call("1")]), "input[0].call_id"),
        (json!([call("1"), user("q"), output("1")]), "input[0].call_id"),
        (json!([call("1"), call("1"), output("1")]), "input[1].call_id"),
        (json!([call("1"), output("1"), output("1")]), "input[2].call_id"),
        (json!([call("1"), call("2"), output("1"), call("3")]), "input[1].call_id"),
        (
            json!([call("1"), call("2"), output("1"), {"role": "assistant", "content": "x"}]),
            "input[1].call_id",
        ),
    ];
    for (items, param) in table {
        refused(parse(&input(&items)), param, "invalid_value");
    }
    let aside = json!({"role": "developer", "content": "be quick"});
    assert_eq!(messages(&json!([call("1"), aside, output("1")])).len(), 3);
}

#[test]
fn items_are_refused_by_path() {
    let table = [
        (json!([1]), "input[0]", "invalid_type"),
        (json!([{}]), "input[0].type", "missing_required_parameter"),
        (json!([{"type": "x"}]), "input[0].type", "invalid_value"),
        (json!([{"type": "local_shell_call"}]), "input[0].type", "unsupported_parameter"),
        (json!([{"role": "king", "content": ""}]), "input[0].role", "invalid_value"),
        (json!([{"role": "user"}]), "input[0].content", "missing_required_parameter"),
        (json!([{"role": "user", "content": []}]), "input[0].content", "empty_array"),
        (json!([{"role": "user", "content": 1}]), "input[0].content", "invalid_type"),
        (json!([{"role": "user", "content": "", "x": 1}]), "input[0].x", "unknown_parameter"),
        (
            json!([{"role": "user", "content": [{"type": "input_file"}]}]),
            "input[0].content[0].type",
            "unsupported_parameter",
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]),
            "input[0].content[0].file_id",
            "unsupported_parameter",
        ),
        (
            json!([{"type": "function_call", "call_id": "c", "name": "f"}]),
            "input[0].arguments",
            "missing_required_parameter",
        ),
        (
            json!([{"type": "reasoning", "summary": [{"type": "x", "text": ""}]}]),
            "input[0].summary[0].type",
            "invalid_value",
        ),
        (
            json!([{"type": "reasoning", "encrypted_content": "hearth1.%"}]),
            "input[0].encrypted_content",
            "invalid_value",
        ),
        (json!([{"id": "msg_1"}]), "input[0].id", "item_not_found"),
    ];
    for (items, param, code) in table {
        let got = parse(&input(&items)).and_then(|mut request| {
            responses::resolve(&mut request.input, &mut |_| None)?;
            request.join(&[])
        });
        refused(got, param, code);
    }
}

#[test]
fn results_have_texts_and_parts() {
    let result = |output: Value| {
        let item = json!({"type": "function_call_output", "call_id": "1", "output": output});
        messages(&json!([call("1"), item]))[1].clone()
    };
    let text = |text: &str| json!({"type": "input_text", "text": text});
    assert_eq!(result(json!("")).content, Content::Text(String::new()));
    assert_eq!(result(json!([])).content, Content::Text(String::new()));
    assert_eq!(result(json!([text("a")])).content, Content::Text("a".into()));
    let two = ["a", "b"].map(|text| Part::Text(text.into())).to_vec();
    assert_eq!(result(json!([text("a"), text("b")])).content, Content::Parts(two));
}

#[test]
fn thoughts_come_back_without_a_store() {
    let thought = |item: Value| messages(&json!([user("q"), item]))[1].thoughts[0].clone();
    let foreign = json!({"type": "reasoning", "id": "rs_9", "encrypted_content": "gAAAA.x",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]});
    let seal = Seal::Encrypted { id: "rs_9".into(), content: "gAAAA.x".into() };
    assert_eq!(thought(foreign), Thought { text: "a\n\nb".into(), seal: Some(seal) });
    // Some clients send back only what was sealed.
    let ours = json!({"type": "reasoning", "id": "rs_1", "summary": [],
        "encrypted_content": "hearth1.aMOpbQ=="});
    assert_eq!(thought(ours), Thought::of("h\u{e9}m"));
    let silent = json!([user("q"), {"type": "reasoning", "summary": []}]);
    assert_eq!(messages(&silent).len(), 1);
}

/// Whatever a provider seals thoughts with comes back as it was, whether the conversation is kept
/// here or by the caller.
#[test]
fn seals_survive_a_turn() {
    let seals = [
        None,
        Some(Seal::Signature("sig/+=".into())),
        Some(Seal::Redacted("red".into())),
        Some(Seal::Encrypted { id: "rs_1".into(), content: "gAAAA".into() }),
        // The item has an id of ours; the provider's own goes back to it.
        Some(Seal::Encrypted { id: "rs_f3".into(), content: "gAAAA.b".into() }),
    ];
    for (seal, text) in seals.iter().flat_map(|seal| [(seal, "h\u{e9}m"), (seal, "")]) {
        let thought = Thought { text: text.into(), seal: seal.clone() };
        if thought == Thought::default() {
            continue;
        }
        let choice =
            Choice { thoughts: vec![thought.clone()], ..Choice::text(0, "a", Finish::Stop) };
        for asked in [json!({}), json!({"include": ["reasoning.encrypted_content"]})] {
            let stateless = asked.get("include").is_some();
            let echo = parse(&asked).expect("accepted").echo;
            let response = answer(head(), echo, &choice, &Usage::default(), &mut ids(), 9);
            let mut seen: Value = serde_json::from_slice(&response.to_bytes()).expect("JSON");
            let sealed = seen["output"][0].get("encrypted_content").is_some();
            assert_eq!(sealed, stateless, "only where it is asked for");
            let kept = if stateless {
                seen["output"].take()
            } else {
                response.to_stored()["output"].take()
            };
            let mut next = parse(&json!({"previous_response_id": "resp_0"})).expect("accepted");
            next.join(kept.as_array().expect("items")).expect("joined");
            assert_eq!(next.chat.messages[0].thoughts[..], *slice::from_ref(&thought), "{asked}");
        }
    }
}

#[test]
fn a_stored_response_is_shown_without_seals() {
    let seal = Some(Seal::Signature("s".into()));
    let choice = Choice {
        thoughts: vec![Thought { text: "hm".into(), seal }],
        ..Choice::text(0, "a", Finish::Stop)
    };
    let echo = parse(&json!({})).expect("accepted").echo;
    let response = answer(head(), echo, &choice, &Usage::default(), &mut ids(), 9);
    let mut stored = response.to_stored();
    responses::shown(&mut stored, &["reasoning.encrypted_content"]);
    assert_eq!(stored, response.to_stored());
    responses::shown(&mut stored, &[]);
    let seen: Value = serde_json::from_slice(&response.to_bytes()).expect("JSON");
    assert_eq!(stored.to_string(), seen.to_string());
}

#[test]
fn a_conversation_is_joined() {
    let calls = vec![Call { id: "c1".into(), name: "f".into(), arguments: "{}".into() }];
    let choice = Choice {
        thoughts: vec![Thought::of("hm")],
        ..Choice::text(0, "wait", Finish::ToolCalls).with_calls(calls)
    };
    let first = parse(&json!({"instructions": "old"})).expect("accepted");
    let echo = first.echo.clone();
    let stored = answer(head(), echo, &choice, &Usage::default(), &mut ids(), 9).to_stored();
    let history = [first.input, stored["output"].as_array().expect("items").clone()].concat();
    let next = json!({"previous_response_id": "resp_0", "instructions": "new",
        "input": [output("c1"), {"type": "item_reference", "id": "msg_7"}]});
    let mut next = parse(&next).expect("accepted");
    assert_eq!(responses::references(&next.input), ["msg_7"]);
    responses::resolve(&mut next.input, &mut |id| (id == "msg_7").then(|| user("more")))
        .expect("known");
    assert!(responses::references(&next.input).is_empty());
    next.join(&history).expect("joined");
    assert_eq!(
        short(&next.chat.messages),
        [
            "system new [] []",
            "user hi [] []",
            "assistant wait [hm] [c1]",
            "tool c1 [] []",
            "user more [] []",
        ],
    );
    let mut hasty = parse(&json!({"previous_response_id": "resp_0"})).expect("accepted");
    refused(hasty.join(&history), "input", "invalid_value");
    let mut empty = parse(&json!({"conversation": "c", "input": []})).expect("accepted");
    refused(empty.join(&[]), "input", "missing_required_parameter");
}
