//! Properties over many inputs: requests survive their own JSON, streams their own reader, however
//! they are cut; and no bytes make a parser or a reader panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::responses::{Reader, parse, parse_count, parse_forward, read_answer, render};
use wire::sse::Events;
use wire::{
    ApiError, ChatRequest, Content, Decoding, Delta, Detail, Effort, ErrorKind, Finish, Form,
    Image, Limits, Lost, Message, Part, Piece, Reader as _, Reasoning, Remark, Role, Seal, SealRef,
    StreamOptions, Structured, Template, Thought, TokenLogprob, Tool, ToolCall, ToolChoice,
    TopLogprob, Writer as _,
};

use crate::reader::{read_bytes, told};
use crate::stream::{USAGE, writer};
use crate::{checker, ids};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

fn words() -> impl Strategy<Value = String> {
    vec(any::<char>(), 1..8).prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

fn share() -> impl Strategy<Value = f64> {
    (0..=64_u32).prop_map(|n| f64::from(n) / 64.0)
}

fn image() -> impl Strategy<Value = Part> {
    (text(), 0..3_usize)
        .prop_map(|(url, detail)| Part::Image(Image { url, detail: Detail::ALL[detail] }))
}

/// One text is always a text.
fn content() -> impl Strategy<Value = Content> {
    let part = prop_oneof![text().prop_map(Part::Text), image()];
    prop_oneof![
        text().prop_map(Content::Text),
        image().prop_map(|image| Content::Parts(vec![image])),
        vec(part, 2..4).prop_map(Content::Parts)
    ]
}

fn thought() -> impl Strategy<Value = Thought> {
    (text(), name(), words()).prop_map(|(text, id, content)| Thought {
        text,
        seal: Some(Seal::Encrypted { id, content }),
    })
}

/// What somebody says, then what the assistant thinks, says and calls, with results.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let said = (0..3_usize, content());
    let calls = vec((name(), text()), 0..3);
    let answer = (vec(thought(), 0..3), option::of(text()), calls, content());
    (said, option::of(answer)).prop_map(|((role, content), answer)| {
        let role = [Role::User, Role::Developer, Role::System][role];
        let mut out = vec![Message { content, ..Message::text(role, "") }];
        let Some((thoughts, said, calls, result)) = answer else { return out };
        let calls: Vec<ToolCall> = calls
            .into_iter()
            .enumerate()
            .map(|(at, (name, arguments))| ToolCall { id: format!("call_{at}"), name, arguments })
            .collect();
        let content = said.map_or(Content::Absent, Content::Text);
        if thoughts.is_empty() && calls.is_empty() && content == Content::Absent {
            return out;
        }
        let silent = Message::text(Role::Assistant, "");
        out.push(Message { content, thoughts, tool_calls: calls.clone(), ..silent });
        out.extend(calls.into_iter().rev().map(|call| Message {
            content: result.clone(),
            tool_call_id: Some(call.id),
            ..Message::text(Role::Tool, "")
        }));
        out
    })
}

fn tools() -> impl Strategy<Value = (Vec<Tool>, ToolChoice)> {
    let tool = (any::<bool>(), option::of(words()));
    (vec(tool, 0..4), 0..6_usize).prop_map(|(tools, choice)| {
        let tool = |(at, (strict, description)): (usize, (bool, Option<String>))| {
            let name = format!("f{at}");
            let mut function = Map::new();
            function.insert("name".into(), json!(name));
            function.extend(description.map(|text| ("description".to_owned(), json!(text))));
            function.insert("parameters".into(), json!({"type": "object", "b": {}, "a": {}}));
            if strict {
                function.insert("strict".into(), json!(true));
            }
            Tool { name, strict, value: json!({"type": "function", "function": function}) }
        };
        let tools: Vec<Tool> = tools.into_iter().enumerate().map(tool).collect();
        let names: Vec<String> = tools.iter().map(|tool| tool.name.clone()).collect();
        let choice = match (choice, names.last()) {
            (0, Some(_)) => ToolChoice::None,
            (1, Some(_)) => ToolChoice::Required,
            (2, Some(last)) => ToolChoice::Named(last.clone()),
            (3, Some(_)) => ToolChoice::Allowed { names, required: true },
            (4, Some(last)) => ToolChoice::Allowed { names: vec![last.clone()], required: false },
            _ => ToolChoice::Auto,
        };
        (tools, choice)
    })
}

fn decoding() -> impl Strategy<Value = Decoding> {
    let form = prop_oneof![
        Just((Form::JsonObject, None)),
        (name(), option::of(words()))
            .prop_map(|named| (Form::JsonSchema(json!({"type": "object"})), Some(named))),
    ];
    let numbers = (option::of(share()), option::of(share()), option::of(1..100_u32));
    (numbers, option::of(0..=20_u32), option::of(form), any::<bool>()).prop_map(
        |((temperature, top_p, max_tokens), logprobs, form, stream)| {
            let structured = form.map(|(form, named)| {
                let (name, description) = named.unzip();
                let field = if name.is_some() { "text.format.schema" } else { "text.format" };
                let strict = name.is_some().then_some(false);
                let (field, description) = (field.into(), description.flatten());
                Structured { form, field, name, description, strict }
            });
            let stream = stream.then(StreamOptions::default);
            Decoding {
                temperature,
                top_p,
                max_tokens,
                logprobs,
                structured,
                stream,
                ..Decoding::default()
            }
        },
    )
}

fn chat() -> impl Strategy<Value = ChatRequest> {
    let rest = (name(), option::of(0..Effort::ALL.len()), option::of(text()));
    (vec(turn(), 1..4), tools(), decoding(), rest).prop_map(
        |(turns, (tools, tool_choice), decoding, (model, effort, user))| {
            // Two answers in a row are one turn there: somebody speaks between them.
            let messages = turns.concat();
            let parallel_tool_calls = tools.is_empty() || effort.is_some();
            let metadata = user.iter().map(|text| ("key".to_owned(), json!(text))).collect();
            let effort = effort.map(|at| Effort::ALL[at]);
            ChatRequest {
                model,
                messages,
                tools,
                tool_choice,
                parallel_tool_calls,
                reasoning: Reasoning { effort, ..Reasoning::default() },
                template: Template::default(),
                decoding,
                user,
                metadata,
                extra: Map::new(),
            }
        },
    )
}

/// A piece of a stream that owns its words.
#[derive(Debug, Clone)]
enum Word {
    Text(String, Option<Vec<TokenLogprob>>),
    Thought(String),
    Refusal(String),
    Seal(Seal),
    Call(String, Vec<String>),
}

fn entry() -> impl Strategy<Value = TokenLogprob> {
    let token = || (vec(any::<u8>(), 0..5), prop_oneof![-50_f32..0.0, Just(0.0)]);
    (token(), vec(token(), 0..3)).prop_map(|((bytes, logprob), top)| TokenLogprob {
        id: 0,
        bytes,
        logprob: Some(logprob),
        rank: 0,
        top: top.into_iter().map(|(bytes, logprob)| TopLogprob { id: 0, bytes, logprob }).collect(),
        hidden: false,
    })
}

fn word() -> impl Strategy<Value = Word> {
    let seal = prop_oneof![
        text().prop_map(Seal::Signature),
        text().prop_map(Seal::Redacted),
        // At times the id that the item gets.
        (prop_oneof!["rs_[1-3]", "rs_[a-z]{3}"], "[A-Z.]{1,9}")
            .prop_map(|(id, content)| Seal::Encrypted { id, content }),
    ];
    prop_oneof![
        (words(), option::of(vec(entry(), 1..3)))
            .prop_map(|(text, scores)| Word::Text(text, scores)),
        words().prop_map(Word::Thought),
        words().prop_map(Word::Refusal),
        seal.prop_map(Word::Seal),
        (name(), vec(words(), 0..4)).prop_map(|(name, arguments)| Word::Call(name, arguments)),
    ]
}

fn words_of_a_stream() -> impl Strategy<Value = (Vec<Word>, Finish)> {
    let ends = [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Refused];
    (vec(word(), 0..8), 0..4_usize).prop_map(move |(words, end)| {
        let calls = words.iter().any(|word| matches!(word, Word::Call(..)));
        let end = match ends[end] {
            Finish::Stop | Finish::ToolCalls if calls => Finish::ToolCalls,
            Finish::ToolCalls => Finish::Stop,
            end => end,
        };
        (words, end)
    })
}

/// Pieces of these words, each handed to `each`.
fn pieces(words: &[Word], finish: Finish, each: &mut dyn FnMut(&Piece<'_>)) {
    fn one(delta: Delta<'_>) -> Piece<'_> {
        Piece { delta, ..Piece::default() }
    }
    let mut calls = 0;
    for word in words {
        match word {
            Word::Text(text, scores) => {
                each(&Piece { logprobs: scores.as_deref(), ..one(Delta::Content(text)) });
            }
            Word::Thought(text) => each(&one(Delta::Reasoning(text))),
            Word::Refusal(text) => each(&one(Delta::Refusal(text))),
            Word::Seal(seal) => each(&one(Delta::Seal(match seal {
                Seal::Signature(text) => SealRef::Signature(text),
                Seal::Redacted(text) => SealRef::Redacted(text),
                Seal::Encrypted { id, content } => SealRef::Encrypted { id, content },
            }))),
            Word::Call(name, arguments) => {
                let index = calls;
                calls += 1;
                let id = format!("c{index}");
                each(&one(Delta::CallStart { index, id: &id, name }));
                for text in arguments {
                    each(&one(Delta::Arguments { index, text }));
                }
            }
        }
    }
    each(&Piece { finish: Some(finish), ..Piece::default() });
}

/// The stream of these words, and where each call of the writer ended.
fn written(words: &[Word], finish: Finish) -> (Vec<u8>, Vec<usize>) {
    let asked = json!({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]});
    let mut writer = writer(&asked);
    let (mut out, mut ends) = (Vec::new(), vec![0]);
    writer.start(&mut out, &Piece::default());
    ends.push(out.len());
    pieces(words, finish, &mut |piece| {
        writer.piece(&mut out, piece);
        ends.push(out.len());
    });
    writer.ping(&mut out);
    writer.end(&mut out, &USAGE, &Remark::default());
    ends.push(out.len());
    (out, ends)
}

proptest! {
    #[test]
    fn a_request_survives_its_own_json(request in chat()) {
        let mut lost = Lost::default();
        let body = render(&request, true, &mut lost).to_string();
        prop_assert!(lost.is_empty(), "{:?}", lost);
        let back = parse(body.as_bytes(), &Limits::default(), &mut ids());
        prop_assert_eq!(back.map(|back| back.chat).map_err(|e| e.message), Ok(request), "{}", body);
    }

    #[test]
    fn a_stream_survives_its_own_reader(
        (words, finish) in words_of_a_stream(), cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut expect = vec!["begun resp_0 m".to_owned()];
        pieces(&words, finish, &mut |piece| {
            expect.extend(told(&wire::Said::Piece(*piece)));
        });
        expect.extend(["usage 9 4 5 2".to_owned(), "done".to_owned()]);
        let (bytes, _) = written(&words, finish);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let got = read_bytes(&parts).expect("a whole stream");
        prop_assert_eq!(got, expect);
    }

    #[test]
    fn a_stream_is_well_nested_wherever_it_ends(
        (words, finish) in words_of_a_stream(), fail in any::<prop::sample::Index>(),
    ) {
        let (bytes, ends) = written(&words, finish);
        for end in &ends {
            let outcome = checker::read(&bytes[..*end]);
            prop_assert_eq!(outcome.last.is_some(), *end == bytes.len());
            if *end < bytes.len() {
                prop_assert!(read_bytes(&[&bytes[..*end]]).is_err(), "a cut stream is no answer");
            }
        }
        let (mut writer, mut out) = (writer(&json!({})), Vec::new());
        let stop = fail.index(words.len() + 1);
        pieces(&words[..stop], finish, &mut |piece| {
            if piece.finish.is_none() {
                writer.piece(&mut out, piece);
            }
        });
        writer.error(&mut out, &ApiError::new(ErrorKind::Internal, "x", "It broke."));
        let last = checker::read(&out).last.expect("an end");
        prop_assert_eq!(&last["status"], "failed");
        let got = read_bytes(&[&out]).expect("read");
        prop_assert_eq!(got.last().map(String::as_str), Some("failed Internal It broke."));
    }
}

/// A small generator, so that a failing round is named by its number alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % sides
    }

    /// The bytes with a few things changed.
    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut body = bytes.to_vec();
        for _ in 0..=self.roll(5) {
            let at = self.roll(body.len().max(1)).min(body.len());
            let end = (at + self.roll(24)).min(body.len());
            match self.roll(5) {
                0 => body.truncate(at),
                1 if at < body.len() => body[at] = u8::try_from(self.roll(256)).unwrap_or(0),
                2 => {
                    body.splice(at..at, PIECES[self.roll(PIECES.len())].bytes());
                }
                3 => {
                    body.drain(at..end);
                }
                _ => {
                    let copy = body[at..end].to_vec();
                    body.splice(at..at, copy);
                }
            }
        }
        body
    }
}

const PIECES: [&str; 14] = [
    "[",
    "]",
    "{",
    "}",
    "null",
    "-1",
    "1e400",
    "\"\"",
    "\\ud800",
    ",",
    ":",
    "18446744073709551616",
    "\"type\"",
    "\n\n",
];

const BODIES: [&str; 4] = [
    r#"{"model":"m","instructions":"x","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"u"}]},{"type":"reasoning","id":"r","summary":[],"encrypted_content":"hearth1.aG0=.scw=="},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"x"}]}],"tools":[{"type":"function","name":"f","parameters":{}}],"stream":true,"stream_options":{"include_obfuscation":false}}"#,
    r#"{"model":"m","input":"x","tools":[{"type":"namespace","name":"n","tools":[{"type":"custom","name":"t","format":{"type":"grammar","syntax":"regex","definition":"a"}}]},{"type":"web_search"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"custom","name":"t","namespace":"n"}]},"include":["reasoning.encrypted_content"]}"#,
    r#"{"model":"m","previous_response_id":"r","input":[{"id":"msg_1"},{"type":"compaction"}],"text":{"format":{"type":"json_schema","name":"n","schema":{}},"verbosity":"low"},"reasoning":{"effort":"low"},"metadata":{"a":"b"},"conversation":null}"#,
    r#"{"id":"r","model":"m","status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[{"type":"message","content":[{"type":"output_text","text":"a","logprobs":[{"token":"a","logprob":-1.0}]}]},{"type":"reasoning","summary":[{"text":"a"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}],"usage":{"input_tokens":1}}"#,
];

const STREAMS: [&str; 4] = [
    include_str!("goldens/text.sse"),
    include_str!("goldens/tools.sse"),
    include_str!("goldens/refusal.sse"),
    include_str!("goldens/logprobs.sse"),
];

fn rounds() -> u64 {
    let rounds = std::env::var("WIRE_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    rounds.unwrap_or(5_000)
}

#[test]
fn no_bytes_panic_a_parser() {
    let limits = Limits::default();
    for round in 1..rounds() {
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let body = BODIES[dice.roll(BODIES.len())].as_bytes();
        let body = dice.spoil(body);
        let kept = parse_forward(&body, &limits, &mut ids());
        let mut errors = vec![
            parse(&body, &limits, &mut ids()).err(),
            parse_count(&body, &limits, &mut ids(), false).err(),
            kept.as_ref().err().cloned(),
        ];
        if let Ok(mut request) = kept {
            let history: Vec<Value> = request.input.clone();
            errors.push(request.join(&history).err());
            let _ = render(&request.chat, true, &mut Lost::default());
        }
        for error in errors.into_iter().flatten() {
            assert!(!error.message.is_empty() && error.message.len() < 2000, "round {round}");
        }
        if let Err(broken) = read_answer(&body) {
            assert!(broken.0.len() < 4096, "round {round}");
        }
    }
}

#[test]
fn no_bytes_panic_a_reader() {
    for round in 1..rounds() {
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let stream = STREAMS[dice.roll(STREAMS.len())].as_bytes();
        let stream = dice.spoil(stream);
        let (mut events, mut reader) = (Events::new(1 << 16), Reader::new());
        let (mut said, mut over) = (0, 0);
        let read = events.push(&stream, &mut |name, data| {
            reader.event(name, data, &mut |piece| {
                said += told(&piece).iter().map(String::len).sum::<usize>();
                over += usize::from(matches!(piece, wire::Said::Done | wire::Said::Failed(_)));
            })
        });
        let read = read.and_then(|()| reader.end(&mut |_| {}));
        assert!(over <= 1 && said <= 4 * stream.len() + 256, "round {round}");
        assert!(over == 1 || read.is_err(), "round {round}: a stream that was cut is no answer");
    }
}
