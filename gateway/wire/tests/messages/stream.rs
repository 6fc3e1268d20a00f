//! Streams, byte by byte.

use serde_json::json;
use wire::{
    ApiError, Delta, ErrorKind, Finish, Head, Piece, Remark, SealRef, Usage, Writer as _, messages,
};

use crate::client::Client;

fn writer() -> messages::Writer {
    let head = Head { id: "msg_1".into(), created: 7, model: "m".into(), service_tier: None };
    messages::Writer::new(&head, "req_1")
}

fn piece(delta: Delta<'_>) -> Piece<'_> {
    Piece { delta, ..Piece::default() }
}

const PROMPT: Usage = Usage {
    prompt_tokens: 12,
    cached_tokens: 8,
    cache_write_tokens: 0,
    completion_tokens: 0,
    reasoning_tokens: 0,
};

const ALL: Usage = Usage { completion_tokens: 5, reasoning_tokens: 2, ..PROMPT };

/// A stream of these deltas that ends so.
fn stream(deltas: &[Delta<'_>], finish: Finish, stop: Option<&str>) -> Vec<u8> {
    let (mut writer, mut out) = (writer(), Vec::new());
    writer.start(&mut out, &Piece { usage: Some(PROMPT), ..Piece::default() });
    for delta in deltas {
        writer.piece(&mut out, &piece(*delta));
    }
    writer.piece(&mut out, &Piece { finish: Some(finish), stop, ..Piece::default() });
    writer.end(&mut out, &ALL, &Remark::default());
    out
}

const GOLDEN: &str = include_str!("written.sse");

#[test]
fn golden() {
    let deltas = [
        Delta::Reasoning("h"),
        Delta::Reasoning("m\n"),
        Delta::Content("Let \"me"),
        Delta::CallStart { index: 0, id: "toolu_1", name: "f" },
        Delta::Arguments { index: 0, text: "{\"a\":" },
        Delta::Arguments { index: 0, text: "1}" },
        Delta::CallStart { index: 1, id: "toolu_2", name: "g" },
    ];
    let out = stream(&deltas, Finish::ToolCalls, None);
    assert_eq!(String::from_utf8(out.clone()).expect("UTF-8"), GOLDEN);
    assert!(Client::read(&out).whole);
}

/// Blocks of a stream, as a client puts them together.
#[track_caller]
fn blocks(deltas: &[Delta<'_>], expect: &serde_json::Value) {
    let client = Client::read(&stream(deltas, Finish::Stop, None));
    assert!(client.whole);
    assert_eq!(&client.message.expect("a message")["content"], expect);
}

/// litellm#29286: empty text opens no block, so that a turn of calls alone begins at 0.
#[test]
fn nothing_is_opened_for_nothing() {
    let call = Delta::CallStart { index: 0, id: "a", name: "f" };
    let one = json!({"type": "tool_use", "id": "a", "name": "f", "input": {}});
    let empty = [Delta::Content(""), Delta::Reasoning(""), Delta::None, Delta::Refusal("")];
    blocks(&empty, &json!([]));
    blocks(
        &[empty[0], empty[1], call, Delta::Arguments { index: 0, text: "" }, empty[0]],
        &json!([one]),
    );
}

/// litellm#38809: thoughts that have only a signature are a block too; each seal is its own.
#[test]
fn seals() {
    let item = SealRef::Encrypted { id: "rs_1", content: "gAAA" };
    blocks(
        &[
            Delta::Reasoning("a"),
            Delta::Seal(SealRef::Signature("s1")),
            Delta::Seal(SealRef::Signature("s2")),
            Delta::Reasoning("b"),
            Delta::Seal(SealRef::Redacted("d")),
            Delta::Reasoning("c"),
            Delta::Seal(item),
            Delta::Content("t"),
        ],
        &json!([
            {"type": "thinking", "thinking": "a", "signature": "s1"},
            {"type": "thinking", "thinking": "", "signature": "s2"},
            {"type": "thinking", "thinking": "b", "signature": "hearth1.words"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "thinking", "thinking": "c", "signature": "hearth1.item.cnNfMQ.gAAA"},
            {"type": "text", "text": "t"},
        ]),
    );
}

#[test]
fn ends() {
    let check = |finish: Finish, stop: Option<&str>, reason: &str| {
        let client = Client::read(&stream(&[Delta::Content("a")], finish, stop));
        let message = client.message.expect("a message");
        assert_eq!(
            (&message["stop_reason"], &message["stop_sequence"]),
            (&json!(reason), &json!(stop))
        );
        assert_eq!(message["stop_details"].is_object(), finish == Finish::Refused);
    };
    check(Finish::Stop, None, "end_turn");
    check(Finish::Stop, Some("x"), "stop_sequence");
    check(Finish::Length, None, "max_tokens");
    check(Finish::Refused, None, "refusal");
    blocks(&[Delta::Content("a"), Delta::Refusal("b")], &json!([{"type": "text", "text": "ab"}]));
}

/// The arguments of a call are on their way as soon as they are made (bifrost#2048).
#[test]
fn arguments_come_promptly() {
    let (mut writer, mut out) = (writer(), Vec::new());
    writer.start(&mut out, &Piece::default());
    writer.piece(&mut out, &piece(Delta::CallStart { index: 0, id: "a", name: "f" }));
    for text in ["{", "\"a", "\":1}"] {
        out.clear();
        writer.piece(&mut out, &piece(Delta::Arguments { index: 0, text }));
        let out = String::from_utf8(out.clone()).expect("UTF-8");
        assert_eq!(out.matches("input_json_delta").count(), 1);
    }
}

/// bifrost#4556: there is one `message_start`.
#[test]
fn one_start() {
    let (mut writer, mut out) = (writer(), Vec::new());
    writer.ping(&mut out);
    for index in 0..3 {
        writer.start(&mut out, &Piece { index, ..Piece::default() });
        writer.piece(&mut out, &Piece { index, ..piece(Delta::Content("x")) });
    }
    writer.ping(&mut out);
    let client = Client::read(&out);
    assert_eq!(client.pings, 2);
    let content = &client.message.expect("a message")["content"];
    assert_eq!(content, &json!([{"type": "text", "text": "x"}]));
}

#[test]
fn a_broken_stream_has_no_end() {
    let (mut writer, mut out) = (writer(), Vec::new());
    writer.start(&mut out, &Piece::default());
    writer.piece(&mut out, &piece(Delta::Content("x")));
    writer.error(&mut out, &ApiError::new(ErrorKind::Internal, "engine_error", "gone"));
    let length = out.len();
    writer.piece(&mut out, &piece(Delta::Content("x")));
    writer.ping(&mut out);
    writer.end(&mut out, &ALL, &Remark::default());
    assert_eq!(out.len(), length);
    let client = Client::read(&out);
    assert!(!client.whole);
    let error = client.error.expect("an error");
    assert_eq!(
        (&error["error"]["type"], &error["request_id"]),
        (&json!("api_error"), &json!("req_1"))
    );
}

/// litellm#13373: a client told of a block that is closed says "Content block not found".
#[test]
fn calls_that_overlap_break_the_stream() {
    let (mut writer, mut out) = (writer(), Vec::new());
    writer.start(&mut out, &Piece::default());
    for index in 0..2 {
        writer.piece(&mut out, &piece(Delta::CallStart { index, id: "a", name: "f" }));
    }
    let late = Delta::Arguments { index: 0, text: "{}" };
    writer.piece(&mut out, &Piece { finish: Some(Finish::Stop), ..piece(late) });
    writer.end(&mut out, &ALL, &Remark::default());
    let client = Client::read(&out);
    assert!(!client.whole);
    assert_eq!(
        client.error.expect("an error")["error"]["details"]["error_code"],
        "calls_interleaved"
    );
}

#[test]
fn a_remark_is_a_comment_before_the_end() {
    let (mut writer, mut out) = (writer(), Vec::new());
    writer.start(&mut out, &Piece::default());
    let remark =
        Remark { cost_usd: Some("0.1".into()), notice: Some("budget"), ..Remark::default() };
    writer.end(&mut out, &ALL, &remark);
    let text = String::from_utf8(out.clone()).expect("UTF-8");
    let comment = ": hearth {\"cost_usd\":\"0.1\",\"notice\":\"budget\"}\n\nevent: message_stop\n";
    assert!(text.contains(comment), "{text}");
    assert!(Client::read(&out).whole);
}

/// What one writer begins another ends, in the same blocks.
#[test]
fn the_rest_of_a_stream() {
    for (open, events) in [(true, 0), (false, 1)] {
        let (mut writer, mut out) = (writer(), Vec::new());
        writer.start(&mut out, &Piece::default());
        writer.piece(&mut out, &piece(Delta::Content("One, ")));
        if !open {
            writer.piece(&mut out, &Piece { finish: Some(Finish::Stop), ..Piece::default() });
        }
        let mut rest = messages::Writer::rest(1, open, "req_1");
        rest.remark(&mut out, &Remark { continued_by: Some("demo"), ..Remark::default() });
        rest.piece(&mut out, &piece(Delta::Content("two.")));
        rest.piece(&mut out, &Piece { finish: Some(Finish::Stop), ..Piece::default() });
        rest.end(&mut out, &ALL, &Remark::default());
        let text = String::from_utf8(out.clone()).expect("UTF-8");
        assert!(text.contains(": hearth {\"continued_by\":\"demo\"}\n\n"), "{text}");
        assert_eq!(text.matches("event: content_block_start").count(), 1 + events, "{text}");
        assert!(Client::read(&out).whole, "{text}");
    }
}
