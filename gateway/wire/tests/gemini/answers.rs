//! The bytes that callers read: whole answers, streams in both framings, errors, models.

use serde_json::{Value, json};
use wire::gemini::{Framing, Writer};
use wire::{
    ApiError, Call, Choice, Delta, ErrorKind, Finish, Head, Piece, Remark, Seal, SealRef, Thought,
    TokenLogprob, TopLogprob, Usage, Writer as _, gemini,
};

fn head() -> Head {
    Head { id: "r".into(), created: 7, model: "m".into(), service_tier: None }
}

fn usage() -> Usage {
    Usage {
        prompt_tokens: 9,
        cached_tokens: 4,
        completion_tokens: 5,
        reasoning_tokens: 2,
        ..Usage::default()
    }
}

const USAGE: &str = r#""usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4,"candidatesTokenCount":3,"thoughtsTokenCount":2,"totalTokenCount":14}"#;

const TAIL: &str = r#""modelVersion":"m","responseId":"r""#;

fn call(id: &str, name: &str, arguments: &str) -> Call {
    Call { id: id.into(), name: name.into(), arguments: arguments.into() }
}

fn candidate(choice: Choice) -> Value {
    let body = gemini::answer(&head(), &[choice], &usage());
    let value: Value = serde_json::from_slice(&body).expect("JSON");
    value["candidates"][0].clone()
}

#[test]
fn a_whole_answer() {
    let choice = Choice {
        thoughts: vec![
            Thought { text: "h\"m".into(), seal: Some(Seal::Signature("google.AQID".into())) },
            Thought { text: String::new(), seal: Some(Seal::Redacted("x".into())) },
        ],
        tool_calls: vec![call("c1__sig_BAUG", "f", "{\n \"b\": 1.50,\r\n \"a\": \"\\n\"}")],
        ..Choice::text(0, "t", Finish::ToolCalls)
    };
    let got = String::from_utf8(gemini::answer(&head(), &[choice], &usage())).expect("UTF-8");
    let expect = format!(
        "{{\"candidates\":[{{\"content\":{{\"parts\":[\
         {{\"text\":\"h\\\"m\",\"thought\":true,\"thoughtSignature\":\"AQID\"}},\
         {{\"text\":\"\",\"thoughtSignature\":\"aGVhcnRoLnI6eA==\"}},\
         {{\"text\":\"t\"}},\
         {{\"functionCall\":{{\"id\":\"c1\",\"name\":\"f\",\
         \"args\":{{ \"b\": 1.50, \"a\": \"\\n\"}}}},\"thoughtSignature\":\"BAUG\"}}],\
         \"role\":\"model\"}},\"finishReason\":\"STOP\",\"index\":0}}],{USAGE},{TAIL}}}"
    );
    assert_eq!(got, expect);
}

#[test]
fn how_an_answer_ends() {
    let check = |choice: Choice, expect: Value| {
        let mut got = candidate(choice);
        got.as_object_mut().expect("an object").shift_remove("index");
        assert_eq!(got, expect);
    };
    let content = |parts: Value| json!({"parts": parts, "role": "model"});
    let empty = content(json!([{"text": ""}]));
    check(
        Choice::text(0, "", Finish::Length),
        json!({"content": empty, "finishReason": "MAX_TOKENS"}),
    );
    check(
        Choice::text(0, "", Finish::Refused),
        json!({"content": empty, "finishReason": "SAFETY"}),
    );
    check(
        Choice { refusal: Some("no".into()), ..Choice::text(0, "", Finish::Stop) },
        json!({"content": empty, "finishReason": "SAFETY", "finishMessage": "no"}),
    );
    // Arguments are objects here. What is none is told in Google's own way.
    for arguments in ["{\"a\":", "[1]", "7"] {
        let calls = vec![call("1", "f", "{}"), call("2", "g", arguments)];
        check(
            Choice::text(0, "t", Finish::ToolCalls).with_calls(calls.clone()),
            json!({"content": content(json!([{"text": "t"}])),
                "finishReason": "MALFORMED_FUNCTION_CALL",
                "finishMessage": "The arguments of a call of 'g' are not a JSON object."}),
        );
        check(
            Choice::text(0, "t", Finish::Length).with_calls(calls),
            json!({"content": content(json!([{"text": "t"}])), "finishReason": "MAX_TOKENS"}),
        );
    }
    check(
        Choice::text(0, "", Finish::ToolCalls).with_calls(vec![call("1", "f", " ")]),
        json!({"content": content(json!([{"functionCall": {"id": "1", "name": "f", "args": {}}}])),
            "finishReason": "STOP"}),
    );
}

fn token(id: u32, text: &str) -> TokenLogprob {
    let top = TopLogprob { id, bytes: text.into(), logprob: -0.5 };
    TokenLogprob {
        id,
        bytes: text.into(),
        logprob: Some(-0.5),
        rank: 1,
        top: vec![top],
        hidden: false,
    }
}

#[test]
fn log_probabilities() {
    let choice =
        Choice { logprobs: Some(vec![token(3, "t")]), ..Choice::text(0, "t", Finish::Stop) };
    let one = json!({"token": "t", "tokenId": 3, "logProbability": -0.5});
    let expect = json!({"topCandidates": [{"candidates": [one]}], "chosenCandidates": [one]});
    assert_eq!(candidate(choice)["logprobsResult"], expect);
}

/// A stream of these pieces.
fn stream(framing: Framing, pieces: &[Piece<'_>], remark: &Remark<'_>) -> String {
    let mut writer = Writer::new(framing, &head(), 1);
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    pieces.iter().for_each(|piece| writer.piece(&mut out, piece));
    writer.end(&mut out, &usage(), remark);
    String::from_utf8(out).expect("UTF-8")
}

const DELTAS: [Delta<'_>; 9] = [
    Delta::Reasoning("hm"),
    Delta::Seal(SealRef::Signature("google.AQID")),
    Delta::Content("a"),
    Delta::Content(""),
    Delta::CallStart { index: 0, id: "c1__sig_BAUG", name: "f" },
    Delta::Arguments { index: 0, text: "{\"x\"" },
    Delta::CallStart { index: 1, id: "c2", name: "g" },
    // Arguments of several calls may come in turns.
    Delta::Arguments { index: 0, text: ":1}" },
    Delta::Arguments { index: 1, text: "{}" },
];

fn pieces() -> Vec<Piece<'static>> {
    let mut pieces: Vec<_> =
        DELTAS.into_iter().map(|delta| Piece { delta, ..Piece::default() }).collect();
    pieces.push(Piece { finish: Some(Finish::ToolCalls), ..Piece::default() });
    pieces
}

fn chunks() -> [String; 4] {
    let part = |part: &str| {
        format!(
            "{{\"candidates\":[{{\"content\":{{\"parts\":[{part}],\"role\":\"model\"}},\
             \"index\":0}}],{TAIL}}}"
        )
    };
    [
        part(r#"{"text":"hm","thought":true}"#),
        part(r#"{"text":"","thought":true,"thoughtSignature":"AQID"}"#),
        part(r#"{"text":"a"}"#),
        format!(
            "{{\"candidates\":[{{\"content\":{{\"parts\":[\
             {{\"functionCall\":{{\"id\":\"c1\",\"name\":\"f\",\"args\":{{\"x\":1}}}},\
             \"thoughtSignature\":\"BAUG\"}},\
             {{\"functionCall\":{{\"id\":\"c2\",\"name\":\"g\",\"args\":{{}}}}}}],\
             \"role\":\"model\"}},\"finishReason\":\"STOP\",\"index\":0}}],{USAGE},{TAIL}}}"
        ),
    ]
}

#[test]
fn a_stream_of_events() {
    let got = stream(Framing::Events, &pieces(), &Remark::default());
    let expect = chunks().map(|chunk| format!("data: {chunk}\r\n\r\n")).concat();
    assert_eq!(got, expect);
}

#[test]
fn a_stream_that_is_an_array() {
    let got = stream(Framing::Array, &pieces(), &Remark::default());
    let got: Vec<Value> = serde_json::from_str(&got).expect("an array");
    let expect = chunks().map(|chunk| serde_json::from_str::<Value>(&chunk).expect("JSON"));
    assert_eq!(got, expect);
}

/// Google's Python client takes a comment for JSON, so that a remark is a field.
#[test]
fn a_remark_is_no_comment() {
    let remark = Remark { cost_usd: Some("0.01".into()), notice: Some("n"), ..Remark::default() };
    let finish = Piece { finish: Some(Finish::Stop), ..Piece::default() };
    let got = stream(Framing::Events, &[finish], &remark);
    let expect = format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"\"}}],\
         \"role\":\"model\"}},\"finishReason\":\"STOP\",\"index\":0}}],{USAGE},{TAIL},\
         \"hearth\":{{\"cost_usd\":\"0.01\",\"notice\":\"n\"}}}}\r\n\r\n"
    );
    assert_eq!(got, expect);
}

/// The older of Google's npm packages gives up on a line that is no data.
#[test]
fn a_ping_is_a_chunk_that_says_nothing() {
    let ping = |framing| {
        let mut out = Vec::new();
        Writer::new(framing, &head(), 1).ping(&mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    let chunk = chunks()[2].replace("\"a\"", "\"\"");
    assert_eq!(ping(Framing::Events), format!("data: {chunk}\r\n\r\n"));
    assert_eq!(ping(Framing::Array), "\r\n");
}

/// Tokens whose text is held back wait for the next chunk.
#[test]
fn no_log_probability_is_lost() {
    let entries = [token(1, "a"), token(2, "b")];
    let pieces = [
        Piece { logprobs: Some(&entries[..1]), ..Piece::default() },
        Piece { delta: Delta::Content("ab"), logprobs: Some(&entries[1..]), ..Piece::default() },
        Piece { logprobs: Some(&entries[..1]), finish: Some(Finish::Stop), ..Piece::default() },
    ];
    let got = stream(Framing::Array, &pieces, &Remark::default());
    let got: Vec<Value> = serde_json::from_str(&got).expect("an array");
    let tokens = |chunk: &Value| {
        let chosen = &chunk["candidates"][0]["logprobsResult"]["chosenCandidates"];
        let ids = chosen.as_array().into_iter().flatten().map(|token| token["tokenId"].clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(got.iter().map(tokens).collect::<Vec<_>>(), [vec![1, 2], vec![1]]);
}

#[test]
fn a_stream_that_breaks_ends_with_an_error() {
    let error = ApiError::new(ErrorKind::Unavailable, "unavailable", "gone");
    let body = r#"{"error":{"code":503,"message":"gone","status":"UNAVAILABLE","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"UNAVAILABLE","domain":"hearth"}]}}"#;
    let first = &chunks()[2];
    for (framing, expect) in [
        (Framing::Events, format!("data: {first}\r\n\r\ndata: {body}\r\n\r\n")),
        (Framing::Array, format!("[{first},\r\n{body}]")),
    ] {
        let mut writer = Writer::new(framing, &head(), 1);
        let mut out = Vec::new();
        writer.piece(&mut out, &Piece { delta: Delta::Content("a"), ..Piece::default() });
        writer.error(&mut out, &error);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expect);
    }
    let mut out = Vec::new();
    Writer::new(Framing::Array, &head(), 1).error(&mut out, &error);
    assert_eq!(String::from_utf8(out).expect("UTF-8"), format!("[{body}]"));
}

#[test]
fn errors() {
    let check = |kind: ErrorKind, code: u16, status: &str| {
        let error = ApiError::new(kind, "some_code", "m").with_param("contents[0]");
        let value: Value = serde_json::from_slice(&gemini::error(&error)).expect("JSON");
        let expect = json!({"error": {"code": code, "message": "m", "status": status, "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SOME_CODE",
                "domain": "hearth"},
            {"@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "contents[0]", "description": "m"}]}]}});
        assert_eq!(value, expect);
    };
    check(ErrorKind::Invalid, 400, "INVALID_ARGUMENT");
    check(ErrorKind::Unauthorized, 401, "UNAUTHENTICATED");
    check(ErrorKind::Forbidden, 403, "PERMISSION_DENIED");
    check(ErrorKind::NotFound, 404, "NOT_FOUND");
    check(ErrorKind::Method, 405, "UNIMPLEMENTED");
    check(ErrorKind::Timeout, 408, "DEADLINE_EXCEEDED");
    check(ErrorKind::TooLarge, 413, "INVALID_ARGUMENT");
    check(ErrorKind::Overloaded, 429, "RESOURCE_EXHAUSTED");
    check(ErrorKind::Quota, 429, "RESOURCE_EXHAUSTED");
    check(ErrorKind::Internal, 500, "INTERNAL");
    check(ErrorKind::Upstream, 502, "UNAVAILABLE");
    check(ErrorKind::Unavailable, 503, "UNAVAILABLE");
    check(ErrorKind::Deadline, 504, "DEADLINE_EXCEEDED");
}

#[test]
fn models() {
    let model = gemini::model("a:b", Some(4096), 1024);
    let expect = json!({"models": [{"name": "models/a:b", "version": "a:b", "displayName": "a:b",
        "inputTokenLimit": 4096, "outputTokenLimit": 1024,
        "supportedGenerationMethods": ["generateContent", "countTokens"]}]});
    assert_eq!(gemini::models(&[model]), expect);
}
