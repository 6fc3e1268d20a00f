//! What providers say: in streams and whole, as they should and as some do.

use serde_json::{Value, json};
use wire::responses::{Reader, read_answer};
use wire::sse::Events;
use wire::{Broken, Delta, ErrorKind, Finish, Reader as _, Said, Seal, SealRef, Thought};

/// What a stream says, in words.
pub(crate) fn told(said: &Said<'_>) -> Vec<String> {
    let piece = match said {
        Said::Begun { id, model } => return vec![format!("begun {id} {model}")],
        Said::Usage(usage) => {
            let (read, cached) = (usage.prompt_tokens, usage.cached_tokens);
            let (made, thought) = (usage.completion_tokens, usage.reasoning_tokens);
            return vec![format!("usage {read} {cached} {made} {thought}")];
        }
        Said::Failed(error) => return vec![format!("failed {:?} {error}", error.kind)],
        Said::Done => return vec!["done".into()],
        Said::Piece(piece) => piece,
    };
    let delta = match piece.delta {
        Delta::None => None,
        Delta::Content(text) => Some(format!("text {text}")),
        Delta::Reasoning(text) => Some(format!("thought {text}")),
        Delta::Refusal(text) => Some(format!("refusal {text}")),
        Delta::Seal(SealRef::Signature(text)) => Some(format!("signature {text}")),
        Delta::Seal(SealRef::Redacted(text)) => Some(format!("redacted {text}")),
        Delta::Seal(SealRef::Encrypted { id, content }) => {
            Some(format!("encrypted {id} {content}"))
        }
        Delta::CallStart { index, id, name } => Some(format!("call {index} {id} {name}")),
        Delta::Arguments { index, text } => Some(format!("arguments {index} {text}")),
    };
    let scores = piece.logprobs.map(|entries| format!("{} scores", entries.len()));
    let finish = piece.finish.map(|finish| format!("finish {finish:?}"));
    delta.into_iter().chain(scores).chain(finish).collect()
}

pub(crate) fn read_bytes(pieces: &[&[u8]]) -> Result<Vec<String>, Broken> {
    let (mut events, mut reader, mut out) = (Events::new(1 << 20), Reader::new(), Vec::new());
    for piece in pieces {
        events.push(piece, &mut |name, data| {
            reader.event(name, data, &mut |said| out.extend(told(&said)))
        })?;
    }
    reader.end(&mut |said| out.extend(told(&said)))?;
    Ok(out)
}

/// Events without names: their data says what they are.
fn read(events: &[Value]) -> Result<Vec<String>, Broken> {
    let bytes: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    read_bytes(&[bytes.as_bytes()])
}

fn created() -> Value {
    json!({"type": "response.created", "response": {"id": "r", "model": "m-1"}})
}

fn ended(response: &Value) -> Value {
    let status = response["status"].as_str().expect("a status").to_owned();
    json!({"type": format!("response.{status}"), "response": response})
}

fn done(at: u64, item: &Value) -> Value {
    json!({"type": "response.output_item.done", "output_index": at, "item": item})
}

const TOKENS: &str = r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}"#;

fn tokens() -> Value {
    serde_json::from_str(TOKENS).expect("JSON")
}

#[test]
fn a_whole_stream() {
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAA",
        "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]});
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f",
        "arguments": "{}"});
    let mut begun = call.clone();
    begun["arguments"] = json!("");
    let got = read(&[
        created(),
        json!({"type": "response.in_progress", "response": {"id": "r", "model": "m-1"}}),
        json!({"type": "response.output_item.added", "output_index": 0,
            "item": {"type": "reasoning", "id": "rs_1", "summary": []}}),
        json!({"type": "response.reasoning_summary_part.added", "output_index": 0,
            "summary_index": 0, "part": {"type": "summary_text", "text": ""}}),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "a"}),
        json!({"type": "response.reasoning_summary_part.added", "output_index": 0,
            "summary_index": 1}),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "b"}),
        done(0, &reasoning),
        json!({"type": "response.output_item.added", "output_index": 1,
            "item": {"type": "message", "id": "msg_1", "content": []}}),
        json!({"type": "response.output_text.delta", "output_index": 1, "delta": "Hi",
            "logprobs": [{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]}),
        json!({"type": "response.output_text.delta", "output_index": 1, "delta": "",
            "logprobs": []}),
        json!({"type": "response.refusal.delta", "output_index": 1, "delta": "no"}),
        done(1, &json!({"type": "message", "content": [{"type": "output_text", "text": "Hi"}]})),
        json!({"type": "response.output_item.added", "output_index": 2, "item": begun}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"}),
        done(2, &call),
        ended(&json!({"status": "completed", "output": [], "usage": tokens()})),
        json!({"type": "response.output_text.delta", "delta": "after the end"}),
    ]);
    let expect = [
        "begun r m-1",
        "thought a",
        "thought \n\n",
        "thought b",
        "encrypted rs_1 gAAAA",
        "text Hi",
        "1 scores",
        "refusal no",
        "call 0 c f",
        "arguments 0 {}",
        "finish ToolCalls",
        "usage 9 4 5 2",
        "done",
    ];
    assert_eq!(got.expect("read"), expect);
}

#[test]
fn ends() {
    let check = |response: Value, expect: &[&str]| {
        assert_eq!(read(&[ended(&response)]).expect("read")[1..], *expect, "{response}");
    };
    check(json!({"status": "completed"}), &["finish Stop", "done"]);
    let cut =
        |reason: &str| json!({"status": "incomplete", "incomplete_details": {"reason": reason}});
    check(cut("max_output_tokens"), &["finish Length", "done"]);
    check(cut("content_filter"), &["finish Refused", "done"]);
    check(cut("something new"), &["finish Length", "done"]);
    let failed = |code: &str| json!({"status": "failed", "error": {"code": code, "message": "x"}});
    check(failed("server_error"), &["failed Internal x"]);
    check(failed("rate_limit_exceeded"), &["failed Overloaded x"]);
    check(failed("insufficient_quota"), &["failed Quota x"]);
    check(failed("invalid_prompt"), &["failed Invalid x"]);
    for event in [
        json!({"type": "error", "code": "server_error", "message": "x", "param": null}),
        json!({"type": "error", "error": {"code": "server_error", "message": "x"}}),
    ] {
        assert_eq!(read(&[event]).expect("read"), ["failed Internal x"]);
    }
}

#[test]
fn a_stream_that_was_cut_is_broken() {
    assert!(read(&[]).is_err());
    assert!(read(&[created()]).is_err());
    let item = json!({"type": "message", "content": [{"type": "output_text", "text": "Hi"}]});
    assert!(read(&[created(), done(0, &item)]).is_err());
    assert!(read_bytes(&[b"data: {\"type\":\n\n"]).is_err());
    assert!(read(&[done(0, &json!({"type": "function_call"}))]).is_err());
}

/// litellm#22102 again, from the other side; and providers that stream nothing but the end.
#[test]
fn what_was_not_streamed_is_taken_from_the_item() {
    let text = json!({"type": "message", "content": [{"type": "output_text", "text": "Hi"}]});
    let call = json!({"type": "function_call", "id": "fc_1", "name": "f", "arguments": "{}"});
    let thought =
        json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]});
    let items = [thought, text, call];
    let expect = ["thought hm", "text Hi", "call 0 fc_1 f", "arguments 0 {}"];
    let mut events: Vec<Value> =
        (0..).zip(items.clone()).map(|(at, item)| done(at, &item)).collect();
    events.push(ended(&json!({"status": "completed", "output": items})));
    let got = read(&events).expect("read");
    assert_eq!(got[..4], expect, "said once");
    assert_eq!(got[4..], ["begun  ", "finish ToolCalls", "done"]);
    let got = read(&events[3..]).expect("read");
    assert_eq!(got[1..5], expect);
    let begins_with_a_delta = [
        json!({"type": "response.output_text.delta", "delta": "Hi", "output_index": 0}),
        json!({"type": "response.function_call_arguments.delta", "delta": "{}", "output_index": 1}),
        done(1, &items[2]),
        ended(&json!({"status": "completed"})),
    ];
    let got = read(&begins_with_a_delta).expect("read");
    assert_eq!(got[..3], ["text Hi", "call 0 fc_1 f", "arguments 0 {}"]);
}

#[test]
fn what_is_new_is_skipped() {
    let got = read(&[
        created(),
        json!({"type": "response.web_search_call.searching", "item_id": "ws_1"}),
        json!({"type": "response.audio.delta", "delta": {"an": "object"}}),
        json!({"no": "type"}),
        done(0, &json!({"type": "web_search_call", "content": 5, "summary": {}})),
        done(1, &json!({"type": "message", "content": [{"type": "output_video", "text": 5}]})),
        json!({"type": "response.output_item.added"}),
        ended(&json!({"status": "completed", "usage": null, "error": null})),
    ]);
    assert_eq!(got.expect("read"), ["begun r m-1", "finish Stop", "done"]);
    assert_eq!(
        read_bytes(&[b"data: [DONE]\n\n"]),
        Err(Broken("the stream ended in the middle of an answer".into()))
    );
}

#[test]
fn items_are_bounded() {
    let item = |at: u64| {
        json!({"type": "response.output_item.added", "output_index": at,
        "item": {"type": "message"}})
    };
    let events: Vec<Value> = (0..2000).map(item).collect();
    assert!(read(&events).is_err());
}

#[test]
fn a_whole_answer() {
    let body = json!({
        "id": "r", "object": "response", "model": "m-1", "status": "completed", "error": null,
        "output": [
            {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAA", "summary":
                [{"type": "summary_text", "text": "hm"}]},
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content":
                "hearth1.aG0=.scw=="},
            {"type": "reasoning", "id": "rs_3", "summary": []},
            {"type": "web_search_call", "id": "ws_1"},
            {"type": "message", "id": "msg_1", "role": "assistant", "content": [
                {"type": "output_text", "text": "a", "annotations": [],
                    "logprobs": [{"token": "a", "bytes": [97], "logprob": -1.0}]},
                {"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        ],
        "usage": tokens(),
    });
    let answer = read_answer(body.to_string().as_bytes()).expect("read");
    assert_eq!((answer.id.as_str(), answer.model.as_str()), ("r", "m-1"));
    let [choice] = &answer.choices[..] else { panic!("one") };
    let sealed = |text: &str, seal| Thought { text: text.into(), seal: Some(seal) };
    let expect = [
        sealed("hm", Seal::Encrypted { id: "rs_1".into(), content: "gAAAA".into() }),
        sealed("hm", Seal::Signature("s".into())),
    ];
    assert_eq!(choice.thoughts, expect);
    assert_eq!((choice.text.as_str(), choice.refusal.as_deref()), ("a", Some("no")));
    assert_eq!(choice.tool_calls[0].id, "c");
    assert_eq!(choice.finish, Finish::ToolCalls);
    assert_eq!(choice.logprobs.as_ref().expect("scores")[0].bytes, b"a");
    assert_eq!(answer.usage.expect("usage").cached_tokens, 4);
    for broken in [
        json!({}),
        json!({"output": 5}),
        json!({"output": [], "status": "failed", "error": {"code": "x", "message": "no"}}),
    ] {
        assert!(read_answer(broken.to_string().as_bytes()).is_err());
    }
}

#[test]
fn an_error() {
    let body = json!({"error": {"message": "slow\u{7} down", "type": "requests", "param": null,
        "code": "rate_limit_exceeded"}});
    let error = wire::openai::read_error(429, body.to_string().as_bytes());
    assert_eq!(error.kind, ErrorKind::Overloaded);
    assert_eq!(error.message, "slow down");
    assert_eq!(error.code.as_deref(), Some("rate_limit_exceeded"));
}
