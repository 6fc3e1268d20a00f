//! Properties over many inputs: a request survives its way to a provider, a stream its way to a
//! client, wherever it is cut; and no bytes make a reader panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::sse::Events;
use wire::{
    ApiError, Delta, ErrorKind, Finish, Head, Limits, Lost, Piece, Reader as _, Remark, Said,
    SealRef, Usage, Writer as _, messages,
};

use crate::client::Client;
use crate::made::{request, text};

proptest! {
    #[test]
    fn a_request_survives(request in request()) {
        let mut lost = Lost::default();
        let body = messages::render(&request, 1, &mut lost).to_string();
        prop_assert!(lost.is_empty(), "{:?}", lost);
        let back = messages::parse(body.as_bytes(), &Limits::default());
        prop_assert_eq!(back.map_err(|e| e.message), Ok(request.clone()), "{}", body);
        // Whoever would pass it on reads the same.
        let forward = messages::parse_forward(body.as_bytes(), &Limits::default());
        prop_assert_eq!(forward.map_err(|e| e.message), Ok(request), "{}", body);
    }
}

/// A part of an answer: its kind, a text, and where it is cut.
type Segment = (usize, String, usize);

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    vec((0..7_usize, text(), 0..8_usize), 0..8)
}

/// The deltas of an answer: `(kind, call, text)`.
fn deltas(segments: &[Segment]) -> Vec<(&'static str, u32, String)> {
    let (mut out, mut calls) = (Vec::new(), 0);
    for (kind, said, at) in segments {
        let (one, two) = said.split_at(said.floor_char_boundary(*at));
        let both = |kind: &'static str, call: u32| {
            [(kind, call, one.to_owned()), (kind, call, two.to_owned())]
        };
        match kind {
            0 => out.extend(both("text", 0)),
            1 => out.extend(both("thought", 0)),
            2 => {
                out.extend(both("thought", 0));
                out.push(("signed", 0, format!("s{at}")));
            }
            3 => out.push(("signed", 0, format!("s{at}"))),
            4 => out.push(("redacted", 0, format!("d{at}"))),
            5 => out.push(("item", 0, format!("i{at}"))),
            _ => {
                out.push(("call", calls, format!("f{at}")));
                out.extend(both("arguments", calls));
                calls += 1;
            }
        }
    }
    out
}

fn delta<'a>((kind, index, text): &'a (&'static str, u32, String)) -> Delta<'a> {
    match *kind {
        "text" => Delta::Content(text),
        "thought" => Delta::Reasoning(text),
        "signed" => Delta::Seal(SealRef::Signature(text)),
        "redacted" => Delta::Seal(SealRef::Redacted(text)),
        "item" => Delta::Seal(SealRef::Encrypted { id: "rs_\u{e9}.", content: text }),
        "call" => Delta::CallStart { index: *index, id: "a", name: text },
        _ => Delta::Arguments { index: *index, text },
    }
}

/// The same told back.
fn told(delta: &Delta<'_>) -> Option<(&'static str, u32, String)> {
    Some(match *delta {
        Delta::None => return None,
        Delta::Content(text) | Delta::Refusal(text) => ("text", 0, text.to_owned()),
        Delta::Reasoning(text) => ("thought", 0, text.to_owned()),
        Delta::Seal(SealRef::Signature(text)) => ("signed", 0, text.to_owned()),
        Delta::Seal(SealRef::Redacted(text)) => ("redacted", 0, text.to_owned()),
        Delta::Seal(SealRef::Encrypted { id, content }) => {
            assert_eq!(id, "rs_\u{e9}.");
            ("item", 0, content.to_owned())
        }
        Delta::CallStart { index, id, name } => {
            assert_eq!(id, "a");
            ("call", index, name.to_owned())
        }
        Delta::Arguments { index, text } => ("arguments", index, text.to_owned()),
    })
}

/// What is said, whatever pieces it is said in. A call without arguments has none: `{}`.
fn joined(
    deltas: impl IntoIterator<Item = (&'static str, u32, String)>,
) -> Vec<(&'static str, u32, String)> {
    let mut out: Vec<(&'static str, u32, String)> = Vec::new();
    let growing = |kind: &str| matches!(kind, "text" | "thought" | "arguments");
    for (kind, index, text) in deltas {
        match out.last_mut() {
            Some(last) if last.0 == kind && last.1 == index && growing(kind) => last.2 += &text,
            _ if growing(kind) && kind != "arguments" && text.is_empty() => {}
            _ => out.push((kind, index, text)),
        }
    }
    for (_, _, text) in
        out.iter_mut().filter(|(kind, _, text)| *kind == "arguments" && text.is_empty())
    {
        *text = "{}".into();
    }
    out
}

const USAGE: Usage = Usage {
    prompt_tokens: 9,
    cached_tokens: 4,
    cache_write_tokens: 3,
    completion_tokens: 7,
    reasoning_tokens: 2,
};

const ENDS: [Finish; 4] = [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Refused];

/// The bytes of a stream, with the place behind each call of the writer.
fn written(deltas: &[(&'static str, u32, String)], finish: Finish) -> (Vec<u8>, Vec<usize>) {
    let head = Head { id: "msg_\"1".into(), created: 7, model: "m\n".into(), service_tier: None };
    let mut writer = messages::Writer::new(&head, "req_1");
    let (mut out, mut places) = (Vec::new(), Vec::new());
    let usage = Usage { completion_tokens: 0, reasoning_tokens: 0, ..USAGE };
    writer.start(&mut out, &Piece { usage: Some(usage), ..Piece::default() });
    places.push(out.len());
    for (at, one) in deltas.iter().enumerate() {
        // The end may come with the last delta.
        let last = at + 1 == deltas.len() && at % 2 == 0;
        let finish = last.then_some(finish);
        writer.piece(&mut out, &Piece { delta: delta(one), finish, ..Piece::default() });
        places.push(out.len());
        writer.ping(&mut out);
        places.push(out.len());
    }
    writer.piece(&mut out, &Piece { finish: Some(finish), ..Piece::default() });
    places.push(out.len());
    writer.end(&mut out, &USAGE, &Remark { notice: Some("n"), ..Remark::default() });
    (out, places)
}

proptest! {
    #[test]
    fn a_stream_survives_any_split(
        segments in segments(), end in 0..4_usize, cuts in vec(1..60_usize, 1..20),
    ) {
        let deltas = deltas(&segments);
        let (bytes, _) = written(&deltas, ENDS[end]);
        let (mut events, mut reader) = (Events::new(1 << 16), messages::Reader::default());
        let (mut heard, mut usage, mut finish, mut done) = (Vec::new(), None, None, false);
        let mut hear = |said: Said<'_>| match said {
            Said::Begun { id, model } => assert_eq!((id, model), ("msg_\"1", "m\n")),
            Said::Piece(piece) => {
                assert!(finish.is_none() && !done);
                heard.extend(told(&piece.delta));
                finish = piece.finish;
            }
            Said::Usage(said) => usage = Some(said),
            Said::Failed(error) => panic!("{error}"),
            Said::Done => done = true,
        };
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (one, two) = rest.split_at(rest.len().min(*cuts.next().expect("endless")));
            events.push(one, &mut |name, data| reader.event(name, data, &mut hear)).expect("read");
            rest = two;
        }
        reader.end(&mut hear).expect("whole");
        prop_assert_eq!(joined(heard), joined(deltas.clone()));
        prop_assert_eq!(usage, Some(USAGE));
        let calls = deltas.iter().any(|(kind, _, _)| *kind == "call");
        let told = if ENDS[end] == Finish::Stop && calls { Finish::ToolCalls } else { ENDS[end] };
        prop_assert_eq!(finish, Some(told));
        prop_assert!(done);
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(segments in segments(), fails in any::<prop::sample::Index>()) {
        let deltas = deltas(&segments);
        let (bytes, places) = written(&deltas, Finish::Stop);
        for place in &places {
            let client = Client::read(&bytes[..*place]);
            prop_assert!(client.message.is_some() && !client.whole);
        }
        prop_assert!(Client::read(&bytes).whole);
        // A fault in place of what follows.
        let head = Head { id: "x".into(), created: 0, model: "m".into(), service_tier: None };
        let (mut writer, mut out) = (messages::Writer::new(&head, "r"), Vec::new());
        let upto = fails.index(deltas.len() + 1);
        if !deltas.is_empty() {
            writer.start(&mut out, &Piece::default());
        }
        for one in &deltas[..upto] {
            writer.piece(&mut out, &Piece { delta: delta(one), ..Piece::default() });
        }
        writer.error(&mut out, &ApiError::new(ErrorKind::Upstream, "gone", "m"));
        let client = Client::read(&out);
        prop_assert!(client.error.is_some() && !client.whole);
    }
}

/// Names and words of the dialect, to make nonsense of.
const NAMES: [&str; 30] = [
    "type",
    "role",
    "content",
    "text",
    "thinking",
    "signature",
    "data",
    "source",
    "media_type",
    "url",
    "id",
    "name",
    "input",
    "tool_use_id",
    "is_error",
    "index",
    "delta",
    "content_block",
    "message",
    "usage",
    "input_tokens",
    "partial_json",
    "stop_reason",
    "stop_sequence",
    "keep",
    "edits",
    "budget_tokens",
    "format",
    "schema",
    "error",
];

const WORDS: [&str; 24] = [
    "user",
    "assistant",
    "system",
    "text",
    "image",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "document",
    "base64",
    "url",
    "auto",
    "any",
    "tool",
    "none",
    "enabled",
    "adaptive",
    "json_schema",
    "text_delta",
    "input_json_delta",
    "thinking_delta",
    "signature_delta",
    "message",
];

const FIELDS: [&str; 12] = [
    "system",
    "messages",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "metadata",
    "context_management",
    "stop_sequences",
    "max_tokens",
    "diagnostics",
];

const EVENTS: [&str; 8] = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
    "newest",
];

fn nonsense() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..WORDS.len()).prop_map(|at| Value::from(WORDS[at])),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let entries = vec((0..NAMES.len(), inner.clone()), 0..6);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|all| {
                let all = all.into_iter().map(|(at, value)| (NAMES[at].to_owned(), value));
                Value::Object(all.collect::<Map<_, _>>())
            }),
        ]
    })
}

fn read_all(body: &[u8]) {
    let limits = Limits::default();
    let count = |body: &[u8], limits: &Limits| messages::parse_count(body, limits, true);
    for parse in [messages::parse, count, messages::parse_forward] {
        if let Ok(request) = parse(body, &limits) {
            let mut lost = Lost::default();
            let sent = messages::render(&request, 1, &mut lost);
            assert!(sent["messages"].is_array());
        }
    }
    if let Ok(answer) = messages::read_answer(body) {
        assert_eq!(answer.choices.len(), 1);
    }
    assert!(messages::read_error(500, body).message.len() <= 2048);
}

/// Bytes that a stream of `bytes` made of itself.
fn heard(bytes: &[u8]) -> usize {
    let (mut events, mut reader, mut size) = (Events::new(1 << 16), messages::Reader::default(), 0);
    let mut hear = |said: Said<'_>| size += crate::reader::heard(&said).len();
    let read = events.push(bytes, &mut |name, data| reader.event(name, data, &mut hear));
    if read.is_ok() {
        let _cut_or_whole = reader.end(&mut hear);
    }
    size
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nonsense_makes_no_panic(
        fields in vec((0..FIELDS.len(), nonsense()), 0..4), body in nonsense(),
    ) {
        let mut request = json!({"model": "m", "max_tokens": 5,
            "messages": [{"role": "user", "content": "hi"}]});
        for (at, value) in fields {
            request[FIELDS[at]] = value;
        }
        read_all(request.to_string().as_bytes());
        read_all(body.to_string().as_bytes());
    }

    #[test]
    fn blocks_of_nonsense_make_no_panic(
        role in 0..3_usize, blocks in vec((0..WORDS.len(), nonsense()), 0..5), more in nonsense(),
    ) {
        let block = |(at, mut value): (usize, Value)| {
            if let Some(value) = value.as_object_mut() {
                value.insert("type".into(), WORDS[at].into());
            }
            value
        };
        let content: Vec<Value> = blocks.into_iter().map(block).collect();
        let body = json!({"model": "m", "max_tokens": 5, "type": "message",
            "messages": [{"role": WORDS[role], "content": content}, more], "content": content});
        read_all(body.to_string().as_bytes());
    }

    #[test]
    fn broken_bytes_make_no_panic(
        request in request(), bytes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body =
            messages::render(&request, 1, &mut Lost::default()).to_string().into_bytes();
        for (at, byte) in bytes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.index(body.len() * 2 + 1));
        read_all(&body);
    }

    #[test]
    fn broken_streams_make_no_panic(
        segments in segments(), bytes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(), wild in vec(any::<u8>(), 0..64),
    ) {
        let (mut stream, _) = written(&deltas(&segments), Finish::Length);
        for (at, byte) in bytes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.truncate(cut.index(stream.len() * 2));
        stream.extend_from_slice(&wild);
        // An event's own words, and its usage twice.
        prop_assert!(heard(&stream) <= 400 + stream.len() * 8);
    }

    #[test]
    fn events_of_nonsense_make_no_panic(
        events in vec((0..EVENTS.len(), nonsense(), option::of(0..3_u32)), 0..12),
    ) {
        let mut stream = String::new();
        for (at, mut data, index) in events {
            if let (Some(data), Some(index)) = (data.as_object_mut(), index) {
                data.insert("index".into(), index.into());
            }
            stream += &format!("event: {}\ndata: {data}\n\n", EVENTS[at]);
        }
        prop_assert!(heard(stream.as_bytes()) <= 400 + stream.len() * 16);
    }
}
