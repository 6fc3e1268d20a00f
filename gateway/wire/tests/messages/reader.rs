//! What is made of a provider's stream.

use serde_json::{Value, json};
use wire::sse::Events;
use wire::{Broken, Delta, ErrorKind, Reader as _, Said, SealRef, Usage, messages};

/// What a stream says, in words.
pub(crate) fn heard(said: &Said<'_>) -> String {
    match said {
        Said::Begun { id, model } => format!("begun {id} {model}"),
        Said::Usage(usage) => format!("usage {usage:?}"),
        Said::Failed(error) => format!("failed {:?} {}", error.kind, error.message),
        Said::Done => "done".to_owned(),
        Said::Piece(piece) => {
            let delta = match piece.delta {
                Delta::None => String::new(),
                Delta::Content(text) => format!("text {text}"),
                Delta::Reasoning(text) => format!("thought {text}"),
                Delta::Seal(SealRef::Signature(text)) => format!("signed {text}"),
                Delta::Seal(SealRef::Redacted(data)) => format!("redacted {data}"),
                Delta::Seal(SealRef::Encrypted { id, content }) => format!("item {id} {content}"),
                Delta::Refusal(text) => format!("refusal {text}"),
                Delta::CallStart { index, id, name } => format!("call {index} {id} {name}"),
                Delta::Arguments { index, text } => format!("arguments {index} {text}"),
            };
            match (piece.finish, piece.stop) {
                (None, _) => delta,
                (Some(finish), None) => format!("{delta}!{finish:?}"),
                (Some(finish), Some(stop)) => format!("{delta}!{finish:?} {stop}"),
            }
        }
    }
}

/// Reads a stream from its bytes.
pub(crate) fn read(bytes: &[u8]) -> (Vec<String>, Result<(), Broken>) {
    let (mut events, mut reader, mut out) =
        (Events::new(1 << 20), messages::Reader::default(), vec![]);
    let mut hear = |said: Said<'_>| out.push(heard(&said));
    let read = events.push(bytes, &mut |name, data| reader.event(name, data, &mut hear));
    let end = read.and_then(|()| reader.end(&mut hear));
    (out, end)
}

/// Events with the names of their data.
fn stream(events: &[Value]) -> Vec<u8> {
    let event = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type"))
    };
    events.iter().map(event).collect::<String>().into_bytes()
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_x", "model": "claude"}})
}

fn open(index: u32, block: &Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: u32, delta: &Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn close(index: u32) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn end(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason}}),
        json!({"type": "message_stop"}),
    ]
}

/// What whole events say, between the message's start and its end.
#[track_caller]
fn check(events: &[Value], expect: &[&str]) {
    let mut all = vec![start()];
    all.extend_from_slice(events);
    all.extend(end("end_turn"));
    let (said, result) = read(&stream(&all));
    assert_eq!(result, Ok(()));
    assert_eq!(said[0], "begun msg_x claude");
    assert_eq!(said[1..said.len() - 2], *expect);
    assert_eq!(said[said.len() - 1], "done");
}

/// As Anthropic documents it, with blanks and fields that are not in its types.
const DOCUMENTED: &str = include_str!("documented.sse");

#[test]
fn documented() {
    let (said, result) = read(DOCUMENTED.as_bytes());
    assert_eq!(result, Ok(()));
    let usage = |usage: Usage| format!("usage {usage:?}");
    let first = Usage {
        prompt_tokens: 582,
        cached_tokens: 100,
        cache_write_tokens: 10,
        completion_tokens: 2,
        reasoning_tokens: 0,
    };
    // agentgateway#2977: the last event corrects the first, and keeps what it does not say.
    let last = Usage { prompt_tokens: 590, completion_tokens: 89, reasoning_tokens: 7, ..first };
    let expect = [
        "begun msg_01 claude-x".to_owned(),
        usage(first),
        "thought Let me\nsee".into(),
        "signed EqQB".into(),
        "redacted Emw=".into(),
        "text Okay".into(),
        "call 0 toolu_01 get_weather".into(),
        "arguments 0 {\"location\": \"San".into(),
        "arguments 0  Francisco\"}".into(),
        usage(last),
        "!ToolCalls".into(),
        "done".into(),
    ];
    assert_eq!(said, expect);
    // Without the events' names, the data's own counts.
    let bare: String = DOCUMENTED
        .lines()
        .filter(|l| !l.starts_with("event:") && !l.contains("not even"))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(read(bare.as_bytes()), (said, Ok(())));
}

#[test]
fn arguments_at_a_calls_start() {
    let call = |input: Value| {
        open(
            0,
            &json!({"type": "tool_use", "id": "a", "name": "f",
        "input": input}),
        )
    };
    let more = |text: &str| delta(0, &json!({"type": "input_json_delta", "partial_json": text}));
    let begun = "call 0 a f";
    check(&[call(json!({"a": 1})), close(0)], &[begun, "arguments 0 {\"a\":1}"]);
    check(&[call(json!({})), close(0)], &[begun, "arguments 0 {}"]);
    check(&[call(json!(null)), more(""), close(0)], &[begun, "arguments 0 {}"]);
    check(&[call(json!({})), more("{\"b\":2}"), close(0)], &[begun, "arguments 0 {\"b\":2}"]);
    // A block that is not closed ends with the message.
    check(&[call(json!({"a": 1}))], &[begun, "arguments 0 {\"a\":1}"]);
}

#[test]
fn blocks_that_begin_with_something() {
    check(
        &[
            open(0, &json!({"type": "thinking", "thinking": "a", "signature": "s"})),
            close(0),
            open(5, &json!({"type": "text", "text": "b"})),
            delta(5, &json!({"type": "newest", "text": "skipped"})),
            delta(5, &json!({"type": "text_delta", "text": null})),
            close(5),
            close(9),
            open(6, &json!({"newest": []})),
            delta(6, &json!({"type": "text_delta", "text": "skipped"})),
        ],
        &["thought a", "signed s", "text b"],
    );
}

/// Another Hearth's: what it did not seal is not sealed, and what it carried is itself again.
#[test]
fn our_own_signatures() {
    let signed = |signature: &str| {
        [
            open(0, &json!({"type": "thinking", "thinking": ""})),
            delta(0, &json!({"type": "signature_delta", "signature": signature})),
            close(0),
        ]
    };
    check(&signed("hearth1.words"), &[]);
    check(&signed("hearth1.item.cnNfMQ.gAAA"), &["item rs_1 gAAA"]);
}

/// bifrost#4556: some servers begin twice.
/// Writers have ended what their callers read by then.
#[test]
fn blocks_behind_the_end_are_skipped() {
    let [reason, stop] = end("end_turn");
    let text = json!({"type": "text", "text": "late"});
    let more = json!({"type": "text_delta", "text": "later"});
    let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
    let (said, ended) = read(&stream(&[
        start(),
        reason,
        open(0, &text),
        delta(0, &more),
        close(0),
        open(1, &call),
        stop,
    ]));
    assert_eq!(ended, Ok(()));
    assert_eq!(said[1..], ["!Stop", "done"]);
}

#[test]
fn a_second_start_is_skipped() {
    let mut again = start();
    again["message"]["usage"] = json!({"input_tokens": 5});
    check(&[again], &[]);
}

#[test]
fn ends() {
    let check = |delta: Value, expect: &str| {
        let delta = json!({"type": "message_delta", "delta": delta});
        let (said, result) = read(&stream(&[start(), delta, json!({"type": "message_stop"})]));
        assert_eq!(result, Ok(()));
        assert_eq!(said[1..], [expect, "done"]);
    };
    check(json!({"stop_reason": "end_turn"}), "!Stop");
    check(json!({"stop_reason": "pause_turn"}), "!Stop");
    check(json!({"stop_reason": "stop_sequence", "stop_sequence": "x"}), "!Stop x");
    check(json!({"stop_reason": "model_context_window_exceeded"}), "!Length");
    check(json!({"stop_reason": "refusal"}), "!Refused");
    check(
        json!({"stop_reason": "refusal", "stop_details": {"explanation": "no"}}),
        "refusal no!Refused",
    );
    check(json!({}), "!Stop");
}

#[test]
fn an_error_is_said_once() {
    let error = json!({"type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let (said, result) = read(&stream(&[start(), error, start(), json!({"type": "message_stop"})]));
    assert_eq!(result, Ok(()));
    let failed = format!("failed {:?} Overloaded", ErrorKind::Unavailable);
    assert_eq!(said[1..], [failed]);
}

#[test]
fn a_cut_stream_is_broken() {
    let whole = DOCUMENTED.as_bytes();
    let last = DOCUMENTED.rfind("event: message_stop").expect("an end");
    for at in (0..last + 10).step_by(7) {
        let (said, result) = read(&whole[..at]);
        assert!(result.is_err(), "cut at {at}");
        assert!(!said.contains(&"done".to_owned()));
    }
}

#[test]
fn what_is_not_of_the_dialect_is_broken() {
    let broken = |events: &[Value]| assert!(read(&stream(events)).1.is_err(), "{events:?}");
    let text = || json!({"type": "text", "text": ""});
    broken(&[start(), delta(0, &json!({"type": "text_delta", "text": "a"}))]);
    broken(&[start(), open(0, &text()), open(0, &text())]);
    broken(&[start(), json!({"type": "content_block_start"})]);
    broken(&[json!({"type": "message_start"})]);
    broken(&[json!({"type": "message_start", "message": {"usage": {"input_tokens": -1}}})]);
    let many: Vec<Value> = (0..100).map(|index| open(index, &text())).collect();
    broken(&many);
    assert!(read(b"event: message_delta\ndata: {\n\n").1.is_err());
    // Numbers that lie do not overflow.
    let most = u64::MAX;
    let lie = json!({"type": "message_start", "message": {"usage":
        {"input_tokens": most, "cache_read_input_tokens": most, "output_tokens": most}}});
    let (said, _) = read(&stream(&[lie]));
    assert!(said[1].contains(&format!("prompt_tokens: {most}")), "{said:?}");
}
