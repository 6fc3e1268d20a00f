//! What a provider's answers, streams and errors mean.

use proptest::prelude::*;
use serde_json::{Value, json};
use wire::converse::{self, Frames, Reader};
use wire::{
    Broken, Call, Choice, Delta, ErrorKind, Finish, Piece, Reader as _, Said, Seal, Thought, Usage,
};

use super::frames::{STREAM, event};

fn tell(said: &Said<'_>) -> String {
    match said {
        Said::Piece(Piece { finish: Some(finish), .. }) => format!("{finish:?}"),
        Said::Piece(Piece { delta, .. }) => format!("{delta:?}"),
        Said::Usage(usage) => format!("{usage:?}"),
        Said::Failed(error) => {
            format!("{:?} {} {}", error.kind, error.code.as_deref().unwrap_or("-"), error.message)
        }
        other => format!("{other:?}"),
    }
}

fn read(bytes: &[u8]) -> Result<Vec<String>, Broken> {
    let mut frames = Frames::new(1 << 20);
    let mut reader = Reader::new();
    let mut out = Vec::new();
    let mut said = |said: Said<'_>| out.push(tell(&said));
    frames.push(bytes, &mut |name, data| reader.event(name, data, &mut said))?;
    reader.end(&mut said)?;
    Ok(out)
}

fn stream(events: &[(&str, Value)]) -> Vec<u8> {
    events.iter().flat_map(|(name, data)| event(name, &data.to_string())).collect()
}

#[test]
fn a_stream() {
    let usage = Usage {
        prompt_tokens: 13,
        cached_tokens: 4,
        cache_write_tokens: 2,
        completion_tokens: 5,
        reasoning_tokens: 0,
    };
    let expect = [
        r#"Begun { id: "", model: "" }"#.to_owned(),
        r#"Reasoning("hm")"#.into(),
        r#"Seal(Signature("EqoB="))"#.into(),
        r#"Seal(Redacted("UkVE"))"#.into(),
        r#"Content("Grüße")"#.into(),
        r#"CallStart { index: 0, id: "tooluse_1", name: "f" }"#.into(),
        r#"Arguments { index: 0, text: "{\"a\":" }"#.into(),
        r#"Arguments { index: 0, text: " 1}" }"#.into(),
        r#"CallStart { index: 1, id: "tooluse_2", name: "g" }"#.into(),
        r#"Arguments { index: 1, text: "{}" }"#.into(),
        "ToolCalls".into(),
        format!("{usage:?}"),
        "Done".into(),
    ];
    assert_eq!(read(STREAM).expect("a stream"), expect);
}

#[test]
fn what_is_not_known_is_skipped() {
    let bytes = stream(&[
        ("messageStart", json!({"role": "assistant"})),
        ("initial-response", json!({})),
        ("contentBlockStart", json!({"contentBlockIndex": 0, "start": {"image": {}}})),
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"citation": {}}})),
        (
            "contentBlockStart",
            json!({"contentBlockIndex": 1, "start":
            {"toolUse": {"toolUseId": "s", "name": "web", "type": "server_tool_use"}}}),
        ),
        (
            "contentBlockDelta",
            json!({"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{}"}}}),
        ),
        ("contentBlockStop", json!({"contentBlockIndex": 1})),
        ("contentBlockDelta", json!({"contentBlockIndex": 2, "delta": {"text": "a", "new": 1}})),
        ("messageStop", json!({"stopReason": "end_turn", "additionalModelResponseFields": {}})),
    ]);
    let got = read(&bytes).expect("whole, but for its count");
    assert_eq!(got[1..], [r#"Content("a")"#, "Stop", "Done"]);
}

#[test]
fn calls_come_one_after_the_other() {
    let call = |id: &str| {
        let start = json!({"toolUse": {"toolUseId": id, "name": "f"}});
        ("contentBlockStart", json!({"contentBlockIndex": 4, "start": start}))
    };
    let stop = ("contentBlockStop", json!({"contentBlockIndex": 4}));
    let end = ("messageStop", json!({"stopReason": "tool_use"}));
    // The end of the first was lost.
    let got = read(&stream(&[call("a"), call("b"), stop, end])).expect("whole");
    let begun = |index, id| format!(r#"CallStart {{ index: {index}, id: "{id}", name: "f" }}"#);
    let nothing = |index| format!(r#"Arguments {{ index: {index}, text: "{{}}" }}"#);
    assert_eq!(got[1..5], [begun(0, "a"), nothing(0), begun(1, "b"), nothing(1)]);
    let other =
        json!({"contentBlockIndex": 5, "start": {"toolUse": {"toolUseId": "c", "name": "g"}}});
    let more = json!({"contentBlockIndex": 4, "delta": {"toolUse": {"input": "{}"}}});
    let events = [call("a"), ("contentBlockStart", other), ("contentBlockDelta", more)];
    assert_eq!(read(&stream(&events)), Err(Broken("more of a call that is over".into())));
}

/// Writers have ended what their callers read by then.
#[test]
fn blocks_behind_the_end_are_skipped() {
    let call = json!({"toolUse": {"toolUseId": "t", "name": "f"}});
    let bytes = stream(&[
        ("messageStop", json!({"stopReason": "end_turn"})),
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "late"}})),
        ("contentBlockStart", json!({"contentBlockIndex": 1, "start": call})),
        ("contentBlockStop", json!({"contentBlockIndex": 1})),
        ("metadata", json!({})),
    ]);
    assert_eq!(read(&bytes).expect("whole")[1..], ["Stop", "Done"]);
}

#[test]
fn reasons_to_end() {
    let check = |reason: &str, expect: Option<&str>| {
        let bytes = stream(&[("messageStop", json!({"stopReason": reason}))]);
        let got = read(&bytes);
        assert_eq!(got.as_ref().ok().map(|said| &*said[1]), expect, "{reason}");
    };
    check("end_turn", Some("Stop"));
    check("stop_sequence", Some("Stop"));
    check("tool_use", Some("ToolCalls"));
    check("max_tokens", Some("Length"));
    check("model_context_window_exceeded", Some("Length"));
    check("guardrail_intervened", Some("Refused"));
    check("content_filtered", Some("Refused"));
    check("refusal", Some("Refused"));
    check("malformed_tool_use", None);
    check("malformed_model_output", None);
}

#[test]
fn a_stream_that_is_cut_or_fails() {
    assert!(read(b"").is_err());
    let ends = event("messageStop", r#"{"stopReason":"tool_use"}"#);
    let at = STREAM.windows(ends.len()).position(|part| part == ends).expect("its end");
    for cut in [1, 40, 700, at, at + ends.len() - 1] {
        assert!(read(&STREAM[..cut]).is_err(), "cut at {cut}");
    }
    let text = ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "a"}}));
    for (name, kind) in [
        ("throttlingException", ErrorKind::Overloaded),
        ("validationException", ErrorKind::Invalid),
        ("modelStreamErrorException", ErrorKind::Internal),
        ("serviceUnavailableException", ErrorKind::Unavailable),
        ("someNewException", ErrorKind::Internal),
    ] {
        let got = read(&stream(&[text.clone(), (name, json!({"message": "m"}))]));
        let expect = format!("{kind:?} {name} m");
        assert_eq!(got.expect("an error is an end").last(), Some(&expect));
    }
    assert!(read(&stream(&[("contentBlockDelta", json!({"delta": []}))])).is_err());
    let long = "x".repeat(600 << 10);
    let signature = || {
        let delta = json!({"contentBlockIndex": 0, "delta":
            {"reasoningContent": {"signature": long}}});
        ("contentBlockDelta", delta)
    };
    assert!(read(&stream(&[signature(), signature()])).is_err(), "a bound on signatures");
}

#[test]
fn a_whole_answer() {
    let body = json!({"output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Eqo="}}},
            {"reasoningContent": {"redactedContent": "UkVE"}},
            {"text": "a"}, {"citationsContent": {}}, {"text": "b"},
            {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"b": 1, "a": 2.50}}},
            {"toolUse": {"toolUseId": "s", "name": "web", "type": "server_tool_use"}}]}},
        "stopReason": "tool_use", "metrics": {"latencyMs": 3},
        "usage": {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12}});
    let answer = converse::read_answer(body.to_string().as_bytes()).expect("an answer");
    let seal = |text: &str, seal| Thought { text: text.into(), seal: Some(seal) };
    let call = Call { id: "t1".into(), name: "f".into(), arguments: r#"{"b":1,"a":2.5}"#.into() };
    let expect = Choice {
        thoughts: vec![
            seal("hm", Seal::Signature("Eqo=".into())),
            seal("", Seal::Redacted("UkVE".into())),
        ],
        ..Choice::text(0, "ab", Finish::ToolCalls).with_calls(vec![call])
    };
    assert_eq!(answer.choices, [expect]);
    let usage = answer.usage.expect("said");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 5));
    for body in [
        "",
        "{}",
        r#"{"output":{}}"#,
        r#"{"output":{"message":{"content":[]}},"stopReason":"malformed_tool_use"}"#,
    ] {
        assert!(converse::read_answer(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn errors() {
    let check = |status: u16, name: Option<&str>, body: &str, kind: ErrorKind, code: &str| {
        let error = converse::read_error(status, name, body.as_bytes());
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)));
        assert_eq!(error.message, "m");
    };
    let m = r#"{"message":"m"}"#;
    let url = Some("ThrottlingException:http://internal.amazon.com/");
    check(429, url, m, ErrorKind::Overloaded, "ThrottlingException");
    let big = r#"{"Message":"m"}"#;
    check(400, Some("ValidationException"), big, ErrorKind::Invalid, "ValidationException");
    let typed = r#"{"__type":"com.amazon#AccessDeniedException","message":"m"}"#;
    check(403, None, typed, ErrorKind::Forbidden, "AccessDeniedException");
    let expired = Some("ExpiredTokenException");
    check(403, expired, m, ErrorKind::Unauthorized, "ExpiredTokenException");
    check(429, Some("ModelNotReadyException"), m, ErrorKind::Unavailable, "ModelNotReadyException");
    check(408, Some("ModelTimeoutException"), m, ErrorKind::Deadline, "ModelTimeoutException");
    check(424, Some("ModelErrorException"), m, ErrorKind::Internal, "ModelErrorException");
    check(
        404,
        Some("ResourceNotFoundException"),
        m,
        ErrorKind::NotFound,
        "ResourceNotFoundException",
    );
    let error = converse::read_error(502, None, b"<html>");
    assert_eq!((error.kind, error.code), (ErrorKind::Internal, None));
}

proptest! {
    /// Whatever the events are, and in whatever order, calls are begun before their arguments.
    #[test]
    fn arguments_belong_to_calls(order in proptest::collection::vec(0..18_usize, 0..40)) {
        let mut all = Vec::new();
        Frames::new(1 << 16).push(STREAM, &mut |name, data| {
            all.push((name.to_owned(), data.to_owned()));
            Ok(())
        }).expect("frames");
        let mut reader = Reader::new();
        let mut begun = 0;
        let mut said = |said: Said<'_>| {
            if let Said::Piece(piece) = said {
                match piece.delta {
                    Delta::CallStart { index, .. } => {
                        assert_eq!(index, begun);
                        begun += 1;
                    }
                    Delta::Arguments { index, .. } => assert!(index < begun),
                    _ => {}
                }
            }
        };
        for at in order {
            let (name, data) = &all[at];
            let _ = reader.event(name, data, &mut said);
        }
        let _ = reader.end(&mut said);
    }

    #[test]
    fn no_payload_panics(name in 0..6_usize, data in "[\\[\\]{}\":,a-zA-Z0-9]{0,60}") {
        let names = ["contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop",
            "metadata", "xException"];
        let _ = Reader::new().event(names[name], &data, &mut |_| {});
        let _ = converse::read_answer(data.as_bytes());
        prop_assert!(converse::read_error(500, Some(&data), data.as_bytes()).message.len() <= 2048);
    }
}
