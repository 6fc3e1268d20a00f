//! Streams as bytes, and what others got wrong. With `UPDATE_GOLDENS=1` the files in `goldens` are
//! written anew; read the difference before you keep it.

use std::path::Path;

use serde_json::{Value, json};
use wire::responses::{Writer, answer};
use wire::{
    ApiError, Choice, Delta, ErrorKind, Finish, Piece, Remark, SealRef, Thought, TokenLogprob,
    TopLogprob, Usage, Writer as _,
};

use crate::checker::{self, Outcome};
use crate::{echo, head, ids};

pub(crate) const USAGE: Usage = Usage {
    prompt_tokens: 9,
    cached_tokens: 4,
    cache_write_tokens: 0,
    completion_tokens: 5,
    reasoning_tokens: 2,
};

pub(crate) fn writer(extra: &Value) -> Writer {
    Writer::new(head(), echo(extra), Box::new(ids()), Box::new(|| 9))
}

fn piece(delta: Delta<'_>) -> Piece<'_> {
    Piece { delta, ..Piece::default() }
}

/// A whole stream of these deltas, and what is kept of it.
pub(crate) fn stream(extra: &Value, deltas: &[Delta<'_>], finish: Finish) -> (Vec<u8>, Value) {
    let mut writer = writer(extra);
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    for delta in deltas {
        writer.piece(&mut out, &piece(*delta));
    }
    writer.piece(&mut out, &Piece { finish: Some(finish), ..Piece::default() });
    assert!(writer.finished().is_none());
    writer.end(&mut out, &USAGE, &Remark::default());
    (out, writer.finished().expect("it has ended"))
}

fn read(extra: &Value, deltas: &[Delta<'_>], finish: Finish) -> Outcome {
    checker::read(&stream(extra, deltas, finish).0)
}

#[track_caller]
fn golden(name: &str, got: &[u8]) {
    let got = std::str::from_utf8(got).expect("UTF-8");
    checker::read(got.as_bytes());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/responses/goldens");
    let path = folder.join(format!("{name}.sse"));
    if std::env::var("UPDATE_GOLDENS").is_ok() {
        std::fs::write(&path, got).expect("the golden is written");
        return;
    }
    let expect = std::fs::read_to_string(&path).expect("the golden is there");
    assert!(expect == got, "{name} differs\n--- golden\n{expect}\n--- got\n{got}");
}

#[test]
fn a_text() {
    let extra = json!({"instructions": "be brief", "temperature": 0.5, "metadata": {"k": "v"},
        "stream": true, "user": "u", "reasoning": {"effort": "low"}, "store": false});
    let deltas = [Delta::Content("Hel"), Delta::Content("lo \"you\"")];
    golden("text", &stream(&extra, &deltas, Finish::Stop).0);
}

#[test]
fn thoughts_a_text_and_calls() {
    let tools = json!([
        {"type": "function", "name": "f", "parameters": {"type": "object"}},
        {"type": "namespace", "name": "n", "description": "N.", "tools":
            [{"type": "function", "name": "g"}]},
        {"type": "custom", "name": "t"}]);
    let extra = json!({"tools": tools, "include": ["reasoning.encrypted_content"]});
    let deltas = [
        Delta::Reasoning("h"),
        Delta::Reasoning("m"),
        Delta::Content("Let me see."),
        Delta::CallStart { index: 0, id: "call_a", name: "f" },
        Delta::Arguments { index: 0, text: "{\"a\"" },
        Delta::Arguments { index: 0, text: ":1}" },
        Delta::CallStart { index: 1, id: "call_b", name: "n__g" },
        Delta::Arguments { index: 1, text: "{}" },
        Delta::CallStart { index: 2, id: "call_c", name: "t" },
        Delta::Arguments { index: 2, text: "{\"input\": \"x" },
        Delta::Arguments { index: 2, text: "\\ny\"}" },
    ];
    golden("tools", &stream(&extra, &deltas, Finish::ToolCalls).0);
}

/// Codex and others show summaries alone: where one is asked for, the thoughts are theirs.
#[test]
fn thoughts_are_their_own_summary() {
    let deltas = [Delta::Reasoning("h"), Delta::Reasoning("m"), Delta::Content("Hi.")];
    for asked in [json!({"summary": "auto"}), json!({"generate_summary": "concise"})] {
        let extra = json!({"reasoning": asked, "include": ["reasoning.encrypted_content"]});
        let (out, kept) = stream(&extra, &deltas, Finish::Stop);
        let names: Vec<String> = checker::read(&out).names;
        let of = |name: &str| format!("response.reasoning_summary_{name}");
        let expect = ["part.added", "text.delta", "text.delta", "text.done", "part.done"].map(of);
        assert_eq!(names[3..8], expect, "{asked}");
        let words = json!([{"type": "summary_text", "text": "hm"}]);
        assert_eq!(
            (&kept["output"][0]["summary"], &kept["output"][0]["content"]),
            (&words, &json!([]))
        );
        let choice =
            Choice { thoughts: vec![Thought::of("hm")], ..Choice::text(0, "Hi.", Finish::Stop) };
        let whole = answer(head(), echo(&extra), &choice, &USAGE, &mut ids(), 9);
        assert_eq!(whole.to_stored(), kept);
        // It comes back as what it was.
        let mut body = extra.clone();
        body["input"] = json!([kept["output"][0], {"role": "user", "content": "Go on"}]);
        let read = crate::parse(&body).expect("accepted").chat;
        assert_eq!(read.messages[0].thoughts, [Thought::of("hm")]);
    }
}

#[test]
fn a_refusal_that_is_cut_off() {
    let deltas = [Delta::Content("I"), Delta::Refusal("I will"), Delta::Refusal(" not")];
    golden("refusal", &stream(&json!({}), &deltas, Finish::Refused).0);
}

#[test]
fn log_probabilities() {
    let top = TopLogprob { id: 2, bytes: b"b".to_vec(), logprob: -2.0 };
    let entry = |text: &str| TokenLogprob {
        id: 1,
        bytes: text.into(),
        logprob: Some(-0.5),
        rank: 1,
        top: vec![top.clone()],
        hidden: false,
    };
    let mut writer = writer(&json!({"include": ["message.output_text.logprobs"]}));
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    // Of a thought, of half a character, of the text with the other half, and of an end.
    for (delta, text) in [
        (Delta::Reasoning("hm"), "hm"),
        (Delta::None, "x"),
        (Delta::Content("a"), "a"),
        (Delta::None, ""),
    ] {
        let logprobs = [entry(text)];
        writer.piece(&mut out, &Piece { delta, logprobs: Some(&logprobs), ..Piece::default() });
    }
    writer.piece(&mut out, &Piece { finish: Some(Finish::Stop), ..Piece::default() });
    writer.end(&mut out, &USAGE, &Remark::default());
    golden("logprobs", &out);
    let last = checker::read(&out).last.expect("an end");
    let entries = last["output"][1]["content"][0]["logprobs"].as_array().expect("a list");
    let tokens: Vec<&Value> = entries.iter().map(|entry| &entry["token"]).collect();
    assert_eq!(tokens, ["x", "a", ""]);
}

#[test]
fn a_broken_stream() {
    let mut writer = writer(&json!({}));
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    writer.piece(&mut out, &piece(Delta::Content("Hel")));
    writer.piece(&mut out, &piece(Delta::CallStart { index: 0, id: "c", name: "f" }));
    writer.piece(&mut out, &piece(Delta::Arguments { index: 0, text: "{\"a" }));
    writer.ping(&mut out);
    writer.error(&mut out, &ApiError::new(ErrorKind::Unavailable, "lost", "The GPU is gone."));
    golden("failed", &out);
    let end = out.len();
    writer.end(&mut out, &USAGE, &Remark::default());
    writer.piece(&mut out, &piece(Delta::Content("lo")));
    assert_eq!(out.len(), end, "nothing follows");
    let kept = writer.finished().expect("it has ended");
    assert_eq!(kept["status"], "failed");
    assert_eq!(kept["output"][1]["status"], "incomplete");
}

/// litellm#22102: a stream that began with a delta broke Codex.
#[test]
fn an_item_is_added_before_its_first_delta() {
    let names = read(&json!({}), &[Delta::Content("a")], Finish::Stop).names;
    let expect = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(names, expect.map(|name| format!("response.{name}")));
}

/// litellm#37852: an item that was never opened was closed, under an id with a wrong prefix.
#[test]
fn a_turn_that_only_calls_opens_no_message() {
    let deltas = [
        Delta::Content(""),
        Delta::CallStart { index: 0, id: "c", name: "f" },
        Delta::Arguments { index: 0, text: "" },
        Delta::Arguments { index: 0, text: "{}" },
    ];
    let outcome = read(&json!({}), &deltas, Finish::ToolCalls);
    let last = outcome.last.expect("an end");
    assert_eq!(last["output"].as_array().expect("a list").len(), 1);
    assert_eq!(last["output"][0]["id"], "fc_1");
    let added = outcome.names.iter().filter(|name| *name == "response.output_item.added").count();
    assert_eq!(added, 1);
}

/// An agent runs what is called done: of two calls the first one is, when the second begins.
#[test]
fn calls_are_done_as_they_end() {
    let start = |index| Delta::CallStart { index, id: ["a", "b"][index as usize], name: "f" };
    let names = read(&json!({}), &[start(0), start(1)], Finish::ToolCalls).names;
    let at = |name: &str, nth: usize| {
        let mut all = names.iter().enumerate().filter(|(_, other)| *other == name);
        all.nth(nth).expect("it is there").0
    };
    assert!(at("response.output_item.done", 0) < at("response.output_item.added", 1));
}

/// bifrost#2048: arguments were kept back and came in one burst.
#[test]
fn arguments_are_streamed_as_they_come() {
    let mut writer = writer(&json!({}));
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    writer.piece(&mut out, &piece(Delta::CallStart { index: 0, id: "c", name: "f" }));
    for text in ["{", "\"a\"", ":1}"] {
        out.clear();
        writer.piece(&mut out, &piece(Delta::Arguments { index: 0, text }));
        let event = String::from_utf8(out.clone()).expect("UTF-8");
        let expect = format!("\"delta\":{}}}\n\n", json!(text));
        assert!(event.ends_with(&expect), "{event}");
    }
}

/// litellm PR#38809: thoughts that are only sealed were dropped.
#[test]
fn thoughts_without_words_are_an_item() {
    let deltas = [
        Delta::Seal(SealRef::Redacted("r")),
        Delta::Reasoning("hm"),
        Delta::Seal(SealRef::Signature("s")),
        Delta::Seal(SealRef::Encrypted { id: "rs_9", content: "gAAAA" }),
        Delta::Content("a"),
    ];
    let extra = json!({"include": ["reasoning.encrypted_content"]});
    let last = read(&extra, &deltas, Finish::Stop).last.expect("an end");
    let sealed: Vec<&Value> = (0..3).map(|at| &last["output"][at]["encrypted_content"]).collect();
    assert_eq!(sealed, ["hearth1..rcg==", "hearth1.aG0=.scw==", "hearth1..ecnNfOQ==.gAAAA"]);
    let (_, kept) = stream(&json!({}), &deltas, Finish::Stop);
    assert_eq!(kept["output"][1]["encrypted_content"], "hearth1.aG0=.scw==");
}

#[test]
fn an_answer_that_says_nothing_is_a_message() {
    let last = read(&json!({}), &[Delta::Reasoning("hm")], Finish::Stop).last.expect("an end");
    assert_eq!(last["output"][1]["content"][0]["text"], "");
    let last = read(&json!({}), &[Delta::Reasoning("hm")], Finish::Length).last.expect("an end");
    assert_eq!(last["output"].as_array().expect("a list").len(), 1);
    assert_eq!(last["output"][0]["status"], "incomplete");
}

#[test]
fn a_stream_that_never_began_fails_in_its_own_order() {
    let mut writer = writer(&json!({}));
    let mut out = Vec::new();
    let error = ApiError::new(ErrorKind::Overloaded, "overloaded", "Try later.");
    writer.error(&mut out, &error);
    let outcome = checker::read(&out);
    assert_eq!(outcome.names.len(), 3);
    assert_eq!(outcome.last.expect("an end")["error"]["code"], "rate_limit_exceeded");
}

#[test]
fn a_remark_is_a_comment() {
    let mut writer = writer(&json!({}));
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    writer.piece(&mut out, &Piece { finish: Some(Finish::Length), ..Piece::default() });
    let remark = Remark { cost_usd: Some("0.1".into()), ..Remark::default() };
    writer.end(&mut out, &USAGE, &remark);
    let text = String::from_utf8(out.clone()).expect("UTF-8");
    assert!(text.contains("\n\n: hearth {\"cost_usd\":\"0.1\"}\n\nevent: response.incomplete\n"));
    checker::read(&out);
}
