//! What a provider's answers, streams and errors mean.

use serde_json::{Value, json};
use wire::gemini::{self, Reader};
use wire::{
    Answer, Broken, Call, Choice, ErrorKind, Finish, Reader as _, Said, Seal, Thought, Usage,
};

/// What a reader says, as texts.
fn read(chunks: &[Value]) -> Result<Vec<String>, Broken> {
    let mut reader = Reader::new();
    let mut out = Vec::new();
    let mut said = |said: Said<'_>| out.push(tell(&said));
    for chunk in chunks {
        reader.event("", &chunk.to_string(), &mut said)?;
    }
    reader.end(&mut said)?;
    Ok(out)
}

fn tell(said: &Said<'_>) -> String {
    match said {
        Said::Piece(piece) => {
            let tokens = piece.logprobs.map_or(0, <[_]>::len);
            let logprobs = if tokens > 0 { format!(" {tokens} tokens") } else { String::new() };
            match piece.finish {
                Some(finish) => format!("{} {finish:?}{logprobs}", piece.index),
                None => format!("{} {:?}{logprobs}", piece.index, piece.delta),
            }
        }
        Said::Usage(usage) => format!("{}+{}", usage.prompt_tokens, usage.completion_tokens),
        Said::Failed(error) => format!("failed {:?} {}", error.kind, error.message),
        other => format!("{other:?}"),
    }
}

fn chunk(parts: &Value) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}],
        "modelVersion": "gemini-3", "responseId": "R-1"})
}

fn last(parts: &Value, reason: &str) -> Value {
    let mut chunk = chunk(parts);
    chunk["candidates"][0]["finishReason"] = reason.into();
    chunk["usageMetadata"] = json!({"promptTokenCount": 9, "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2, "totalTokenCount": 14, "promptTokensDetails": []});
    chunk
}

#[test]
fn a_stream() {
    let got = read(&[
        chunk(&json!([{"text": "hm", "thought": true}])),
        // Parts and fields of kinds that are not known are skipped.
        chunk(&json!([{"text": "a", "new": 1}, {"executableCode": {"code": "1"}}, {"other": {}}])),
        json!({"usageMetadata": {"promptTokenCount": 9}, "new": []}),
        chunk(&json!([{"functionCall": {"name": "f", "args": {"x": [1, 2.50]}},
            "thoughtSignature": "AQID"}, {"functionCall": {"id": "own", "name": "g"}}])),
        last(&json!([{"text": "", "thoughtSignature": "-_8="}]), "STOP"),
    ]);
    let expect = [
        r#"Begun { id: "R-1", model: "gemini-3" }"#,
        r#"0 Reasoning("hm")"#,
        r#"0 Content("a")"#,
        "9+0",
        r#"0 CallStart { index: 0, id: "call_R-1_0__sig_AQID", name: "f" }"#,
        r#"0 Arguments { index: 0, text: "{\"x\":[1,2.5]}" }"#,
        r#"0 CallStart { index: 1, id: "own", name: "g" }"#,
        r#"0 Arguments { index: 1, text: "{}" }"#,
        r#"0 Seal(Signature("google.+/8="))"#,
        "0 ToolCalls",
        "9+5",
        "Done",
    ];
    assert_eq!(got.expect("a whole stream"), expect);
}

#[test]
fn candidates_in_turns() {
    let one = |index: u32, text: &str, reason: Value| {
        json!({"candidates": [{"index": index, "content": {"parts": [{"text": text}]},
            "finishReason": reason}]})
    };
    let null = || Value::Null;
    let whole = [one(1, "b", null()), one(0, "a", "STOP".into()), one(1, "c", "MAX_TOKENS".into())];
    let expect = [
        r#"Begun { id: "", model: "" }"#,
        r#"1 Content("b")"#,
        r#"0 Content("a")"#,
        "0 Stop",
        r#"1 Content("c")"#,
        "1 Length",
        "Done",
    ];
    assert_eq!(read(&whole).expect("whole"), expect);
    assert!(read(&whole[..2]).is_err(), "a candidate has no end");
    assert!(read(&[one(1024, "a", null())]).is_err(), "a bound on candidates");
}

#[test]
fn reasons_to_end() {
    let check = |reason: &str, expect: Option<&str>| {
        let got = read(&[last(&json!([{"text": "a"}]), reason)]);
        assert_eq!(got.as_ref().ok().map(|said| &*said[2]), expect, "{reason}");
    };
    check("STOP", Some("0 Stop"));
    check("MAX_TOKENS", Some("0 Length"));
    for reason in ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "OTHER", "NEW_ONE"] {
        check(reason, Some("0 Refused"));
    }
    // Its model wrote what cannot be passed on: another try may be better.
    for reason in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE"] {
        check(reason, None);
    }
    let mut refused = last(&json!([]), "SAFETY");
    refused["candidates"][0]["finishMessage"] = "why\u{7}".into();
    let got = read(&[refused]).expect("whole");
    assert_eq!(got[1..3], [r#"0 Refusal("why")"#, "0 Refused"]);
}

#[test]
fn a_prompt_that_is_refused() {
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 9}, "responseId": "r"});
    let got = read(std::slice::from_ref(&blocked)).expect("whole");
    let words = "The prompt was blocked (SAFETY).";
    assert_eq!(got[1..3], [format!("0 Refusal({words:?})"), "0 Refused".to_owned()]);
    let answer = gemini::read_answer(blocked.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.choices[0].finish, Finish::Refused);
    assert_eq!(answer.choices[0].refusal.as_deref(), Some(words));
}

#[test]
fn streams_that_are_cut_or_wrong() {
    assert!(read(&[]).is_err());
    assert!(read(&[chunk(&json!([{"text": "a"}]))]).is_err());
    assert!(read(&[json!([])]).is_err());
    assert!(read(&[json!({"candidates": [{"content": {"parts": [{"text": 1}]}}]})]).is_err());
    let error = json!({"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}});
    let got = read(&[chunk(&json!([{"text": "a"}])), error]).expect("an error is an end");
    assert_eq!(got.last().map(String::as_str), Some("failed Unavailable m"));
}

#[test]
fn a_whole_answer() {
    let mut body = last(
        &json!([{"text": "h", "thought": true}, {"text": "m", "thought": true},
            {"text": "a"}, {"text": "b", "thoughtSignature": "AQID"},
            {"functionCall": {"name": "f", "args": {"x": 1}}}]),
        "STOP",
    );
    let token = json!({"token": "a", "tokenId": 3, "logProbability": -0.5});
    body["candidates"][0]["logprobsResult"] = json!({"chosenCandidates": [token],
        "topCandidates": [{"candidates": [token]}]});
    // As it is sent: with line ends in it.
    let body = serde_json::to_string_pretty(&body).expect("JSON");
    let answer = gemini::read_answer(body.as_bytes()).expect("an answer");
    let logprobs = answer.choices[0].logprobs.clone().expect("asked for");
    assert_eq!((logprobs[0].id, logprobs[0].top[0].logprob), (3, -0.5));
    let signature = Some(Seal::Signature("google.AQID".into()));
    let call = Call { id: "call_R-1_0".into(), name: "f".into(), arguments: r#"{"x": 1}"#.into() };
    let expect = Answer {
        id: "R-1".into(),
        model: "gemini-3".into(),
        choices: vec![Choice {
            thoughts: vec![Thought::of("hm"), Thought { text: String::new(), seal: signature }],
            logprobs: Some(logprobs),
            ..Choice::text(0, "ab", Finish::ToolCalls).with_calls(vec![call])
        }],
        usage: Some(Usage {
            prompt_tokens: 9,
            completion_tokens: 5,
            reasoning_tokens: 2,
            ..Usage::default()
        }),
    };
    assert_eq!(answer, expect);
    for body in ["", "{}", "[]", r#"{"candidates":[]}"#, "\u{1}"] {
        assert!(gemini::read_answer(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn errors() {
    let check = |status: u16, body: &str, kind: ErrorKind, code: Option<&str>, message: &str| {
        let error = gemini::read_error(status, body.as_bytes());
        assert_eq!(error.kind, kind, "{body}");
        assert_eq!((error.code.as_deref(), &*error.message), (code, message));
    };
    let of = |code: u16, status: &str| {
        json!({"error": {"code": code, "message": "m", "status": status}}).to_string()
    };
    check(400, &of(400, "INVALID_ARGUMENT"), ErrorKind::Invalid, Some("invalid_argument"), "m");
    check(403, &of(403, "PERMISSION_DENIED"), ErrorKind::Forbidden, Some("permission_denied"), "m");
    let limited = format!("[{}]", of(429, "RESOURCE_EXHAUSTED"));
    check(429, &limited, ErrorKind::Overloaded, Some("resource_exhausted"), "m");
    check(503, &of(503, "UNAVAILABLE"), ErrorKind::Unavailable, Some("unavailable"), "m");
    check(504, &of(504, "DEADLINE_EXCEEDED"), ErrorKind::Deadline, Some("deadline_exceeded"), "m");
    check(500, &of(500, "INTERNAL"), ErrorKind::Internal, Some("internal"), "m");
    // Google calls a wrong key a wrong argument.
    let key = json!({"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID"}]}});
    let invalid = Some("api_key_invalid");
    check(400, &key.to_string(), ErrorKind::Unauthorized, invalid, "m");
    check(502, "<html>", ErrorKind::Internal, None, "status 502");
    check(404, "", ErrorKind::NotFound, None, "status 404");
    let long = json!({"error": {"message": "m\u{0}".repeat(9000)}}).to_string();
    assert!(gemini::read_error(500, long.as_bytes()).message.len() <= 2048);
}
