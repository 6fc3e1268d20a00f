//! What a provider of OpenAI's chat is sent, and what is read of its answers, where providers
//! differ from OpenAI's own reference.

use serde_json::{Value, json};
use wire::openai::{self, Flavor};
use wire::{
    ChatRequest, Delta, Glance, Limits, Lost, Reader as _, Said, gemini, messages, responses,
};

/// A request to OpenAI, of which nothing is lost: to its chat, and to its responses.
fn sent(request: &ChatRequest) -> [Value; 2] {
    let mut lost = Lost::default();
    let sent = [
        openai::render(request, Flavor::OpenAi, &mut lost),
        responses::render(request, false, &mut lost),
    ];
    assert!(lost.is_empty(), "{lost:?}");
    sent
}

fn from_chat(extra: &Value) -> ChatRequest {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    let read = openai::parse_chat_forward(body.to_string().as_bytes(), &Limits::default());
    read.unwrap_or_else(|error| panic!("{}", error.message))
}

fn from_messages(extra: &Value) -> ChatRequest {
    let mut body = json!({"model": "m", "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    let read = messages::parse_forward(body.to_string().as_bytes(), &Limits::default());
    read.unwrap_or_else(|error| panic!("{}", error.message))
}

/// Mistral's models that think answer in chunks.
#[test]
fn content_in_chunks_is_thoughts_and_text() {
    let thinking = json!({"type": "thinking", "closed": true, "thinking": [
        {"type": "text", "text": "h"}, {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "m"}]});
    let chunks = json!([thinking, {"type": "text", "text": "a\n"},
        {"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "b"}]);
    let body = json!({"choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": chunks}}]});
    let answer = openai::read_answer(body.to_string().as_bytes()).expect("an answer");
    let [thought] = &answer.choices[0].thoughts[..] else { panic!("one thought") };
    assert_eq!((thought.text.as_str(), answer.choices[0].text.as_str()), ("hm", "a\nb"));

    let mut reader = openai::Reader::new();
    let mut heard = Vec::new();
    for content in [json!([thinking]), json!([]), chunks, json!("c")] {
        let event = json!({"choices": [{"index": 0, "delta": {"content": content}}]});
        let mut said = |said: Said<'_>| match said {
            Said::Piece(piece) => heard.push(match piece.delta {
                Delta::Reasoning(text) => format!("thought {text}"),
                Delta::Content(text) => text.to_owned(),
                other => panic!("{other:?}"),
            }),
            Said::Begun { .. } => {}
            other => panic!("{other:?}"),
        };
        reader.event("", &event.to_string(), &mut said).expect("a chunk");
    }
    let thoughts = ["thought h", "thought m"];
    assert_eq!(heard, [&thoughts[..], &thoughts[..], &["a\n", "b", "c"][..]].concat());
}

/// OpenAI refuses a strict schema that is open or leaves something optional at any level.
#[test]
fn strict_is_not_invented() {
    let check = |request: &ChatRequest, expect: bool| {
        let [chat, response] = sent(request);
        assert_eq!(chat["response_format"]["json_schema"]["strict"], expect, "{chat}");
        assert_eq!(response["text"]["format"]["strict"], expect, "{response}");
    };
    let schema = |required: &[&str]| {
        let inner = json!({"type": "object", "properties": {"b": {"type": "string"}},
            "required": required, "additionalProperties": false});
        json!({"type": "object", "properties": {"a": inner}, "required": ["a"],
            "additionalProperties": false})
    };
    let (closed, optional) = (schema(&["b"]), schema(&[]));
    // The caller's own word counts, whatever the schema.
    for own in [&closed, &optional] {
        for (strict, expect) in [(json!(true), true), (json!(false), false), (Value::Null, false)] {
            let inner = json!({"name": "n", "schema": own, "strict": strict});
            let format = json!({"type": "json_schema", "json_schema": inner});
            check(&from_chat(&json!({"response_format": format})), expect);
        }
    }
    for (own, expect) in [(&closed, true), (&optional, false)] {
        let format = json!({"type": "json_schema", "schema": own});
        check(&from_messages(&json!({"output_config": {"format": format}})), expect);
        let config = json!({"responseMimeType": "application/json", "responseJsonSchema": own});
        let body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "generationConfig": config});
        let read =
            gemini::parse_forward("m", false, body.to_string().as_bytes(), &Limits::default());
        check(&read.expect("a request"), expect);
    }
}

/// Claude Code's user is JSON, and longer than OpenAI takes: it has another name, always the same.
#[test]
fn a_long_user_has_a_short_name() {
    let named = |user: String| {
        let request = from_messages(&json!({"metadata": {"user_id": user}}));
        let plain = openai::render(&request, Flavor::Extended, &mut Lost::default());
        let [one, other] = sent(&request).map(|sent| sent["user"].clone());
        assert!(one == other && plain["user"] == one, "{one} {other} {plain}");
        one.as_str().expect("a name").to_owned()
    };
    let short = "ü".repeat(64);
    assert_eq!(named(short.clone()), short);
    let [one, again, other] = ["a", "a", "b"].map(|end| named(short.clone() + end));
    assert!(one == again && one != other && one.len() == 64, "{one} {other}");
}

/// Where both sides speak it, what only they know passes as it was written.
#[test]
fn tools_and_parts_of_openais_own_pass() {
    let body = json!({"model": "m", "n": 1,
        "tools": [{"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}}],
        "tool_choice": {"type": "custom", "custom": {"name": "sql"}},
        "messages": [
            {"role": "user", "mood": "good", "content": [
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD"}},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}]},
            {"role": "assistant", "audio": {"id": "a"}, "tool_calls": [
                {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "1"}]});
    let bytes = body.to_string().into_bytes();
    let glance = Glance::of(&bytes).expect("it can be looked at");
    assert_eq!((glance.files, &glance.tools[..]), (2, &["sql".to_owned()][..]));
    let sent = glance.rewrite(&bytes, "theirs", false, None);
    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
    let mut expect = body;
    expect["model"] = "theirs".into();
    assert_eq!(sent, expect);
    // To a model here, and in any other dialect, they are refused by name.
    for read in [openai::parse_chat, openai::parse_chat_forward] {
        let error = read(&bytes, &Limits::default()).expect_err("it has no words for them");
        assert_eq!(error.param.as_deref(), Some("messages[0].mood"));
    }
}
