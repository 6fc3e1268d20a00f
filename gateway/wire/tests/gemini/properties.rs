//! Over many inputs: a request that is rendered and parsed says the same; a stream that is written
//! and read says the same, in whatever pieces its bytes come; a stream may be cut anywhere; and
//! no bytes make anything panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::gemini::{self, Framing, Reader, Writer};
use wire::sse::Events;
use wire::{
    ApiError, ChatRequest, Content, Decoding, Delta, Detail, Effort, ErrorKind, Finish, Form, Head,
    Image, Limits, Lost, Message, Part, Piece, Reader as _, Reasoning, Remark, Role, Said, Seal,
    SealRef, StreamOptions, Structured, Template, Thought, Tool, ToolCall, ToolChoice, Usage,
    Writer as _,
};

use super::client::{self, End};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn words() -> impl Strategy<Value = String> {
    vec(any::<char>(), 1..12).prop_map(String::from_iter)
}

/// Numbers that survive JSON exactly.
fn share() -> impl Strategy<Value = f64> {
    (0..=64_u32).prop_map(|n| f64::from(n) / 64.0)
}

fn content() -> impl Strategy<Value = Content> {
    let image = prop_oneof![Just("data:image/png;base64,AAEC"), Just("https://a/b.webp?c")];
    let image = image.prop_map(|url| Part::Image(Image { url: url.into(), detail: Detail::Low }));
    let part = prop_oneof![text().prop_map(Part::Text), image];
    let parts = vec(part, 2..4).prop_map(Content::Parts);
    prop_oneof![text().prop_map(Content::Text), parts]
}

/// Thoughts as this dialect brings them back: words first, then signatures without words.
fn thoughts() -> impl Strategy<Value = Vec<Thought>> {
    let signature = || Some(Seal::Signature("google.AAEC/+8=".into()));
    let all = (vec(words(), 0..3), option::of(words()), any::<bool>());
    all.prop_map(move |(sealed, open, last)| {
        let sealed = sealed.into_iter().map(|text| Thought { text, seal: signature() });
        let last = last.then(|| Thought { text: String::new(), seal: signature() });
        sealed.chain(open.map(Thought::of)).chain(last).collect()
    })
}

/// A question, an answer, and the results of its calls from the last to the first.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let call = (any::<bool>(), 0..2_usize, any::<bool>());
    let result = prop_oneof![
        text().prop_map(Content::Text),
        words().prop_map(|text| {
            let url = "data:image/png;base64,AA==".to_owned();
            let image = Part::Image(Image { url, detail: Detail::Low });
            Content::Parts(vec![Part::Text(text), image])
        }),
    ];
    (content(), option::of(words()), thoughts(), vec(call, 0..3), result).prop_map(
        |(question, said, thoughts, calls, result)| {
            let question = Message { content: question, ..Message::text(Role::User, "") };
            let calls = calls.into_iter().enumerate().map(|(at, (signed, name, arguments))| {
                let id = format!("c{at}{}", if signed { "__sig_AAH_" } else { "" });
                let arguments = if arguments { r#"{"b":[1,2.5],"a":null}"# } else { "{}" };
                ToolCall { id, name: ["f", "g"][name].into(), arguments: arguments.into() }
            });
            let tool_calls: Vec<ToolCall> = calls.collect();
            let silent = said.is_none() && tool_calls.is_empty() && thoughts.is_empty();
            let content = match said {
                Some(text) => Content::Text(text),
                None if silent => Content::Text("a".into()),
                None => Content::Absent,
            };
            let results = tool_calls.iter().rev().map(|call| Message {
                content: result.clone(),
                tool_call_id: Some(call.id.clone()),
                ..Message::text(Role::Tool, "")
            });
            let results: Vec<Message> = results.collect();
            let answer =
                Message { content, thoughts, tool_calls, ..Message::text(Role::Assistant, "") };
            [question, answer].into_iter().chain(results).collect()
        },
    )
}

/// Tools and a choice that the modes can say.
fn tools() -> impl Strategy<Value = (Vec<Tool>, ToolChoice)> {
    let tool = (option::of(text()), option::of(Just(json!({"type": "object", "b": 1, "a": 2}))));
    (vec(tool, 0..4), any::<bool>(), 0..6_usize).prop_map(|(tools, strict, choice)| {
        let strict = (strict && choice == 0) || choice == 5;
        let tools: Vec<Tool> = tools
            .into_iter()
            .enumerate()
            .map(|(at, (description, schema))| {
                let name = format!("f{at}");
                let mut function = Map::new();
                function.insert("name".into(), json!(name));
                function.extend(description.map(|text| ("description".to_owned(), json!(text))));
                function.extend(schema.map(|schema| ("parameters".to_owned(), schema)));
                function.extend(strict.then(|| ("strict".to_owned(), json!(true))));
                Tool { name, strict, value: json!({"type": "function", "function": function}) }
            })
            .collect();
        let names: Vec<String> = tools.iter().map(|tool| tool.name.clone()).collect();
        let choice = match (choice, &names[..]) {
            (1, [_, ..]) => ToolChoice::None,
            (2, [_, ..]) => ToolChoice::Required,
            (3, [first, ..]) => ToolChoice::Named(first.clone()),
            (4, [_, _, ..]) => ToolChoice::Allowed { names, required: true },
            (5, [_, ..]) => ToolChoice::Allowed { names, required: false },
            _ => ToolChoice::Auto,
        };
        (tools, choice)
    })
}

fn structured() -> impl Strategy<Value = Structured> {
    let of = |form, field: &str| {
        let field = format!("generationConfig.{field}");
        Structured { form, field, name: None, description: None, strict: None }
    };
    let schema = Just(Form::JsonSchema(json!({"type": "object", "properties": {"b_c": {}}})));
    prop_oneof![
        Just(Form::JsonObject).prop_map(move |form| of(form, "responseMimeType")),
        schema.prop_map(move |form| of(form, "responseJsonSchema")),
        vec(text(), 1..4).prop_map(move |texts| of(Form::Choice(texts), "responseSchema")),
    ]
}

fn decoding() -> impl Strategy<Value = Decoding> {
    let numbers = (option::of(share()), option::of(share()), option::of(1..=u32::MAX));
    let more = (option::of(any::<i32>()), option::of(1..=u32::MAX), option::of(0..=20_u32));
    let rest = (vec("[a-z\u{e9}]{1,5}", 0..4), option::of(structured()), any::<bool>());
    (numbers, more, rest, 1..=8_u32).prop_map(|(numbers, more, rest, choices)| {
        let (temperature, top_p, top_k) = numbers;
        let (seed, max_tokens, logprobs) = more;
        let (stop, structured, stream) = rest;
        let usage = StreamOptions { include_usage: true, continuous_usage: false };
        Decoding {
            choices,
            max_tokens,
            temperature,
            top_p,
            top_k,
            presence_penalty: temperature.map(|t| -t),
            frequency_penalty: top_p,
            seed: seed.map(i64::from),
            stop,
            logprobs,
            structured,
            stream: stream.then_some(usage),
            ..Decoding::default()
        }
    })
}

fn reasoning() -> impl Strategy<Value = Reasoning> {
    let all = (0..3_usize, 1..6_usize, any::<u32>(), any::<bool>());
    all.prop_map(|(kind, effort, budget, include)| Reasoning {
        effort: (kind == 1).then(|| Effort::ALL[effort]),
        budget: (kind == 2).then_some(budget),
        include,
        ..Reasoning::default()
    })
}

/// Requests of this dialect's reach.
fn chat() -> impl Strategy<Value = ChatRequest> {
    let all = (option::of(content()), vec(turn(), 1..4), tools(), reasoning(), decoding());
    all.prop_map(|(system, turns, (tools, tool_choice), reasoning, decoding)| {
        let texts = |content| match content {
            Content::Parts(_) => Content::Parts(vec![Part::Text("a".into()); 2]),
            other => other,
        };
        let system = system
            .map(|content| Message { content: texts(content), ..Message::text(Role::System, "") });
        ChatRequest {
            model: "gemini-3-flash".into(),
            messages: system.into_iter().chain(turns.concat()).collect(),
            tools,
            tool_choice,
            parallel_tool_calls: true,
            reasoning,
            template: Template::default(),
            decoding,
            user: None,
            metadata: [("team".to_owned(), json!("a"))].into_iter().collect(),
            extra: Map::new(),
        }
    })
}

/// What one choice of a stream says; calls last, as this dialect has them.
#[derive(Debug, Clone, PartialEq)]
enum Say {
    Content(String),
    Reasoning(String),
    Seal(Seal),
    Call(String, String, String),
    Refusal(String),
    End(Finish),
}

fn says() -> impl Strategy<Value = Vec<Say>> {
    let said = prop_oneof![
        words().prop_map(Say::Content),
        words().prop_map(Say::Reasoning),
        Just(Say::Seal(Seal::Signature("google.AAEC/+8=".into()))),
    ];
    let call = ("[a-z]{1,4}", "[a-z]{1,4}", text())
        .prop_map(|(id, name, text)| Say::Call(id, name, json!({"a": text}).to_string()));
    (vec(said, 0..6), vec(call, 0..3), option::of("[a-z]{1,9}"), 0..3_usize).prop_map(
        |(mut says, calls, refusal, end)| {
            let finish = [Finish::Stop, Finish::Length, Finish::Refused][end];
            let finish =
                if calls.is_empty() || finish != Finish::Stop { finish } else { Finish::ToolCalls };
            let refusal = refusal.filter(|_| finish == Finish::Refused);
            says.extend(calls);
            says.extend(refusal.map(Say::Refusal));
            says.push(Say::End(finish));
            says
        },
    )
}

/// Writes what choices say, one word of each in turn; `cut` of the calls of the writer.
fn write(framing: Framing, choices: &[Vec<Say>], cut: usize, broken: bool) -> Vec<u8> {
    let head = Head { id: "r-1".into(), created: 7, model: "m".into(), service_tier: None };
    let mut writer = Writer::new(framing, &head, choices.len());
    let mut out = Vec::new();
    let most = choices.iter().map(Vec::len).max().unwrap_or(0);
    let mut calls = vec![0; choices.len()];
    let mut budget = cut;
    let error = ApiError::new(ErrorKind::Internal, "internal", "m");
    for at in 0..most {
        for (index, says) in (0_u32..).zip(choices) {
            let Some(say) = says.get(at) else { continue };
            if budget == 0 {
                if broken {
                    writer.error(&mut out, &error);
                }
                return out;
            }
            budget -= 1;
            let mut put = |delta, finish| {
                writer.piece(&mut out, &Piece { index, delta, finish, ..Piece::default() });
                writer.ping(&mut out);
            };
            match say {
                Say::Content(text) => put(Delta::Content(text), None),
                Say::Reasoning(text) => put(Delta::Reasoning(text), None),
                Say::Seal(Seal::Signature(text)) => {
                    put(Delta::Seal(SealRef::Signature(text)), None);
                }
                Say::Seal(_) => {}
                Say::Refusal(text) => put(Delta::Refusal(text), None),
                Say::Call(id, name, text) => {
                    let at = &mut calls[usize::try_from(index).expect("small")];
                    let number = *at;
                    *at += 1;
                    let cut = text.floor_char_boundary(text.len() / 2);
                    let (one, two) = text.split_at(cut);
                    put(Delta::CallStart { index: number, id, name }, None);
                    put(Delta::Arguments { index: number, text: one }, None);
                    put(Delta::Arguments { index: number, text: two }, None);
                }
                Say::End(finish) => put(Delta::None, Some(*finish)),
            }
        }
    }
    writer.end(&mut out, &Usage { prompt_tokens: 3, ..Usage::default() }, &Remark::default());
    out
}

/// Reads a stream's bytes that come in pieces of these lengths.
fn read(bytes: &[u8], pieces: &[usize], choices: usize) -> Result<Vec<Vec<Say>>, String> {
    let mut events = Events::new(1 << 20);
    let mut reader = Reader::new();
    let mut out: Vec<Vec<Say>> = vec![Vec::new(); choices];
    let mut said = |said: Said<'_>| {
        if let Said::Piece(piece) = said {
            out[usize::try_from(piece.index).expect("small")].extend(say(&piece));
        }
    };
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = pieces.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (now, later) = rest.split_at(length);
        rest = later;
        events
            .push(now, &mut |name, data| reader.event(name, data, &mut said))
            .map_err(|error| error.to_string())?;
    }
    reader.end(&mut said).map_err(|error| error.to_string())?;
    Ok(out.into_iter().map(join).collect())
}

fn say(piece: &Piece<'_>) -> Option<Say> {
    Some(match piece.delta {
        Delta::Content(text) => Say::Content(text.into()),
        Delta::Reasoning(text) => Say::Reasoning(text.into()),
        Delta::Seal(SealRef::Signature(text)) => Say::Seal(Seal::Signature(text.into())),
        Delta::Refusal(text) => Say::Refusal(text.into()),
        Delta::CallStart { id, name, .. } => Say::Call(id.into(), name.into(), String::new()),
        Delta::Arguments { text, .. } => Say::Call(String::new(), String::new(), text.into()),
        _ => Say::End(piece.finish?),
    })
}

/// Arguments to the call that they are of.
fn join(says: Vec<Say>) -> Vec<Say> {
    let mut out: Vec<Say> = Vec::new();
    for say in says {
        match (out.last_mut(), say) {
            (Some(Say::Call(_, _, all)), Say::Call(id, _, more)) if id.is_empty() => {
                all.push_str(&more);
            }
            (_, say) => out.push(say),
        }
    }
    out
}

proptest! {
    #[test]
    fn a_request_survives_its_own_json(request in chat()) {
        let mut lost = Lost::default();
        let body = gemini::render(&request, &mut lost).to_string();
        let stream = request.decoding.stream.is_some();
        let limits = Limits::default();
        let back = gemini::parse(&request.model, stream, body.as_bytes(), &limits);
        prop_assert_eq!(back.map_err(|e| e.message), Ok(request), "{}", body);
        prop_assert!(lost.is_empty(), "{:?}", lost);
    }

    #[test]
    fn a_stream_survives_any_pieces(
        choices in vec(says(), 1..4), pieces in vec(1..40_usize, 1..9),
    ) {
        let bytes = write(Framing::Events, &choices, usize::MAX, false);
        let got = read(&bytes, &pieces, choices.len());
        prop_assert_eq!(got, Ok(choices));
        prop_assert_eq!(client::check(Framing::Events, &bytes).map(|(_, end)| end), Ok(End::Whole));
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(
        choices in vec(says(), 1..4), cut in 0..12_usize, broken in any::<bool>(),
        framing in prop_oneof![Just(Framing::Events), Just(Framing::Array)], share in 0..64_usize,
    ) {
        let all: usize = choices.iter().map(Vec::len).sum();
        let bytes = write(framing, &choices, cut, broken);
        let expect = match (cut >= all, broken) {
            (true, _) => End::Whole,
            (false, true) => End::Error,
            (false, false) => End::Cut,
        };
        let (_, end) = client::check(framing, &bytes).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&end, &expect);
        if framing == Framing::Events {
            if end == End::Cut {
                prop_assert!(read(&bytes, &[7], choices.len()).is_err());
            }
            // Cut between any two bytes it is what came before, and never whole.
            let at = bytes.len() * share / 64;
            let (_, end) = client::check(framing, &bytes[..at]).map_err(TestCaseError::fail)?;
            prop_assert_eq!(end, End::Cut);
        }
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

    /// Cuts, copies and changes bytes.
    fn mutate(&mut self, body: &mut Vec<u8>) {
        for _ in 0..=self.roll(6) {
            let at = self.roll(body.len().max(1)).min(body.len());
            let end = (at + self.roll(30)).min(body.len());
            match self.roll(5) {
                0 => body.truncate(at),
                1 if at < body.len() => body[at] = u8::try_from(self.roll(256)).unwrap_or(0),
                2 => {
                    let piece = PIECES[self.roll(PIECES.len())];
                    body.splice(at..at, piece.bytes());
                }
                3 => drop(body.drain(at..end)),
                _ => {
                    let copy = body[at..end].to_vec();
                    body.splice(at..at, copy);
                }
            }
        }
    }
}

const PIECES: [&str; 14] = [
    "[", "]", "{", "}", "null", "-1", "1e400", "5.0", "\"\"", "\\ud800", ",", ":", "true", "\"_\"",
];

const SEEDS: [&str; 6] = [
    r#"{"contents":[{"role":"user","parts":[{"text":"a"},{"inline_data":{"mime_type":"image/png","data":"AA=="}}]},{"role":"model","parts":[{"text":"t","thought":true,"thoughtSignature":"AQID"},{"functionCall":{"name":"f","args":{"a":1}}}]},{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"output":"x"}}}]}],"systemInstruction":{"parts":[{"text":"s"}]}}"#,
    r#"{"contents":{"parts":{"text":"a"}},"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT","properties":{"a":{"type":"STRING","nullable":true,"enum":["1"]}},"propertyOrdering":["a"]}}]}],"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}}}"#,
    r#"{"generateContentRequest":{"contents":[{"parts":[{"text":"a"}]}],"generation_config":{"top_k":4.0,"responseMimeType":"text/x.enum","responseSchema":{"enum":["a"]},"thinkingConfig":{"thinkingLevel":"LOW"}}}}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"a","thought":true},{"text":"","thoughtSignature":"AA"},{"functionCall":{"id":"1","name":"f","args":{"x":[1]}},"thoughtSignature":"AQID"}],"role":"model"},"finishReason":"STOP","index":0,"logprobsResult":{"chosenCandidates":[{"token":"a","logProbability":-1}],"topCandidates":[{"candidates":[]}]}}],"usageMetadata":{"promptTokenCount":1},"responseId":"r"}"#,
    r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#,
    r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[{"reason":"R"}]}}]"#,
];

#[test]
fn no_bytes_panic() {
    let limits = Limits::default();
    let rounds = std::env::var("WIRE_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    for round in 1..rounds.unwrap_or(20_000_u64) {
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut body = SEEDS[dice.roll(SEEDS.len())].as_bytes().to_vec();
        dice.mutate(&mut body);
        let requests = [
            gemini::parse("m", true, &body, &limits),
            gemini::parse_forward("m", false, &body, &limits),
            gemini::parse_count("m", &body, &limits, false),
        ];
        for request in requests {
            match request {
                Ok(request) => {
                    let value = gemini::render(&request, &mut Lost::default());
                    assert!(value["contents"].is_array(), "round {round}");
                }
                Err(error) => {
                    assert!(!error.message.is_empty() && error.message.len() < 2000);
                    let shape: Value =
                        serde_json::from_slice(&gemini::error(&error)).expect("JSON");
                    assert_eq!(shape["error"]["code"], 400, "round {round}");
                }
            }
        }
        let _ = gemini::read_answer(&body);
        assert!(gemini::read_error(500, &body).message.len() <= 2048, "round {round}");
        let mut reader = Reader::new();
        let mut said = |_: Said<'_>| {};
        let data = String::from_utf8_lossy(&body);
        let _ = reader.event("", &data, &mut said).and_then(|()| reader.end(&mut said));
    }
}

/// A stream of bytes that was changed is read, refused or cut, and nothing else.
#[test]
fn no_stream_panics() {
    let says = vec![
        Say::Reasoning("h".into()),
        Say::Content("a".into()),
        Say::Call("1".into(), "f".into(), "{\"a\":1}".into()),
        Say::End(Finish::ToolCalls),
    ];
    let whole = write(Framing::Events, &[says], usize::MAX, false);
    for round in 1..4_000_u64 {
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut bytes = whole.clone();
        dice.mutate(&mut bytes);
        let _ = read(&bytes, &[1 + dice.roll(30)], 1024);
    }
}
