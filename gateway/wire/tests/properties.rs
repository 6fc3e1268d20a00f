//! Properties over many inputs: parsing loses nothing, a stream's bytes are serde_json's, and no
//! bytes make a parser panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use wire::openai::answer::Head;
use wire::openai::stream::{Kind, Piece, Writer};
use wire::{
    ChatRequest, CompletionRequest, Content, Decoding, Detail, Finish, Image, Limits, Message,
    Part, Prompt, Role, StreamOptions, Template, TokenLogprob, ToolCall, ToolChoice, TopLogprob,
    Usage, openai,
};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

/// Numbers that survive JSON exactly.
fn share() -> impl Strategy<Value = f64> {
    (0..=64_u32).prop_map(|n| f64::from(n) / 64.0)
}

fn content() -> impl Strategy<Value = Content> {
    let image = (text(), 0..3_usize)
        .prop_map(|(url, detail)| Part::Image(Image { url, detail: Detail::ALL[detail] }));
    let part = prop_oneof![text().prop_map(Part::Text), image];
    prop_oneof![text().prop_map(Content::Text), vec(part, 1..4).prop_map(Content::Parts)]
}

fn message() -> impl Strategy<Value = Message> {
    let call =
        (name(), name(), text()).prop_map(|(id, name, arguments)| ToolCall { id, name, arguments });
    let all = (0..6_usize, content(), option::of(name()), vec(call, 0..3), option::of(text()));
    all.prop_map(|(role, content, name, tool_calls, reasoning)| {
        let role = Role::ALL[role];
        let mut message =
            Message { role, content, name, tool_calls, tool_call_id: None, reasoning };
        match role {
            Role::Assistant => {}
            Role::Tool => message.tool_call_id = Some("id".into()),
            Role::Function => message.name = Some("f".into()),
            _ => {}
        }
        if role != Role::Assistant {
            message.tool_calls.clear();
            message.reasoning = None;
        } else if !message.tool_calls.is_empty() {
            message.content = Content::Absent;
        }
        message
    })
}

fn decoding() -> impl Strategy<Value = Decoding> {
    let numbers = (
        option::of(share()),
        option::of(share()),
        option::of(share()),
        option::of(any::<u32>()),
        option::of(any::<i64>()),
        option::of(1..100_u32),
        option::of(0..=20_u32),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<i8>());
    let lists = (
        vec("[a-z\u{e9}]{1,5}", 0..4),
        vec(any::<u32>(), 0..4),
        proptest::collection::btree_map(any::<u32>(), share(), 0..4),
        option::of(name()),
        option::of((any::<bool>(), any::<bool>())),
        option::of(0..=20_u32),
    );
    (numbers, flags, lists, 1..=128_u32).prop_map(|(numbers, flags, lists, choices)| {
        let (temperature, top_p, min_p, top_k, seed, max_tokens, logprobs) = numbers;
        let (include_stop, skip_special_tokens, ignore_eos, return_token_ids, priority) = flags;
        let (stop, stop_token_ids, bias, cache_salt, stream, prompt_logprobs) = lists;
        Decoding {
            choices,
            max_tokens,
            min_tokens: max_tokens.unwrap_or(0) / 2,
            temperature,
            top_p,
            top_k,
            min_p,
            typical_p: top_p,
            repetition_penalty: min_p.map(|p| p + 0.5),
            presence_penalty: temperature.map(|t| -t),
            frequency_penalty: top_p,
            logit_bias: bias.into_iter().collect(),
            seed,
            stop,
            stop_token_ids,
            include_stop,
            skip_special_tokens,
            ignore_eos,
            logprobs,
            prompt_logprobs: prompt_logprobs.filter(|_| stream.is_none()),
            return_token_ids,
            priority,
            cache_salt,
            stream: stream.map(|(include_usage, continuous_usage)| StreamOptions {
                include_usage,
                continuous_usage,
            }),
        }
    })
}

fn chat() -> impl Strategy<Value = ChatRequest> {
    let rest = (name(), any::<bool>(), any::<bool>(), any::<bool>(), option::of(text()));
    (vec(message(), 1..5), decoding(), rest).prop_map(|(messages, decoding, rest)| {
        let (model, silent, start, special, kwarg) = rest;
        let mut template = Template {
            add_generation_prompt: start,
            add_special_tokens: special,
            continue_final_message: !start
                && messages.last().is_some_and(|m| m.content != Content::Absent),
            ..Template::default()
        };
        if let Some(value) = kwarg {
            template.documents.push(json!({"text": value}));
            template.kwargs.insert("key".into(), json!([value, null, 1]));
        }
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
        let tool_choice = if silent { ToolChoice::None } else { ToolChoice::Auto };
        ChatRequest { model, messages, tools: vec![tool], tool_choice, template, decoding }
    })
}

fn prompts() -> impl Strategy<Value = Vec<Prompt>> {
    prop_oneof![
        vec(text().prop_map(Prompt::Text), 1..4),
        vec(vec(any::<u32>(), 1..5).prop_map(Prompt::Tokens), 1..4),
    ]
}

fn entry() -> impl Strategy<Value = TokenLogprob> {
    // A certain token's is a whole number, 0.
    let logprob = || prop_oneof![-50_f32..0.0, Just(0.0), Just(-3.0)];
    let top = (any::<u32>(), vec(any::<u8>(), 0..5), logprob())
        .prop_map(|(id, bytes, logprob)| TopLogprob { id, bytes, logprob });
    let own = (any::<u32>(), vec(any::<u8>(), 0..5), logprob());
    (own, vec(top, 0..3)).prop_map(|((id, bytes, logprob), top)| TokenLogprob {
        id,
        bytes,
        logprob: Some(logprob),
        rank: 1,
        top,
        hidden: false,
    })
}

/// The chunk as a tree: what the writer must equal.
fn chunk(head: &Head, piece: &Piece<'_>, include_usage: bool) -> Value {
    let token = |bytes: &[u8], logprob: f32| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        // Through its shortest text, as f32 is written; Debug keeps the point of a whole number.
        let logprob: Value = serde_json::from_str(&format!("{logprob:?}")).expect("a number");
        json!({"token": text, "logprob": logprob, "bytes": bytes})
    };
    let logprobs = piece.logprobs.map(|entries| {
        let content: Vec<Value> = entries
            .iter()
            .map(|entry| {
                let mut value = token(&entry.bytes, entry.logprob.expect("set"));
                value["top_logprobs"] =
                    entry.top.iter().map(|top| token(&top.bytes, top.logprob)).collect();
                value
            })
            .collect();
        json!({"content": content, "refusal": null})
    });
    let finish = piece.finish.map(|f| if f == Finish::Stop { "stop" } else { "length" });
    let delta = if finish.is_some() && piece.text.is_empty() {
        json!({})
    } else {
        json!({"content": piece.text})
    };
    let mut choice = json!({"index": piece.index, "delta": delta, "logprobs": logprobs,
        "finish_reason": finish});
    if let Some(ids) = piece.token_ids {
        choice["token_ids"] = json!(ids);
    }
    let mut out = json!({"id": head.id, "object": "chat.completion.chunk",
        "created": head.created, "model": head.model, "choices": [choice]});
    if include_usage {
        out["usage"] = Value::Null;
    }
    out
}

proptest! {
    #[test]
    fn chat_survives_its_own_json(request in chat()) {
        let body = openai::chat_to_json(&request).to_string();
        let back = openai::parse_chat(body.as_bytes(), &Limits::default());
        prop_assert_eq!(back.map_err(|e| e.message), Ok(request), "{}", body);
    }

    #[test]
    fn completion_survives_its_own_json(
        (prompts, decoding, model, flags) in
            (prompts(), decoding(), name(), (any::<bool>(), any::<bool>()))
    ) {
        let max_tokens = decoding.max_tokens.or(Some(16));
        let decoding = Decoding { choices: 3, max_tokens, ..decoding };
        let (echo, add_special_tokens) = flags;
        let request = CompletionRequest { model, prompts, echo, add_special_tokens, decoding };
        let body = openai::completion_to_json(&request).to_string();
        let back = openai::parse_completion(body.as_bytes(), &Limits::default());
        prop_assert_eq!(back.map_err(|e| e.message), Ok(request), "{}", body);
    }

    #[test]
    fn stream_bytes_are_serde_jsons(
        text in text(), model in text(), index in 0..200_u32,
        entries in option::of(vec(entry(), 0..3)), ids in option::of(vec(any::<u32>(), 0..4)),
        include_usage in any::<bool>(), end in any::<bool>(),
    ) {
        let head = Head { id: "chatcmpl-1".into(), created: 7, model };
        let options = StreamOptions { include_usage, continuous_usage: false };
        let mut writer = Writer::new(Kind::Chat, &head, options, 1);
        let piece = Piece {
            index, text: &text, logprobs: entries.as_deref(), token_ids: ids.as_deref(),
            finish: end.then_some(Finish::Length), ..Piece::default()
        };
        let mut out = Vec::new();
        writer.piece(&mut out, &piece);
        let expect = format!("data: {}\n\n", chunk(&head, &piece, include_usage));
        prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), expect);
    }

    #[test]
    fn whole_answers_are_json(text in text(), entries in vec(entry(), 0..3)) {
        let head = Head { id: "x".into(), created: 7, model: "m\"".into() };
        let choice = wire::Choice {
            index: 0, text, finish: Finish::Stop, logprobs: Some(entries.clone()),
            token_ids: Some(vec![1, 2]), prompt_token_ids: Some(vec![3]),
            prompt_logprobs: Some(entries),
        };
        let usage = Usage { prompt_tokens: 2, cached_tokens: 1, completion_tokens: 3 };
        for body in [
            openai::answer::chat(&head, std::slice::from_ref(&choice), &usage),
            openai::answer::completion(&head, &[choice], &usage),
        ] {
            let value: Value = serde_json::from_slice(&body).expect("JSON");
            prop_assert_eq!(&value["usage"]["total_tokens"], &json!(5));
            prop_assert_eq!(serde_json::to_vec(&value).expect("JSON").len() > 10, true);
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
}

const SEEDS: [&str; 7] = [
    r#"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"\u00e9"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"stop":["a"],"logit_bias":{"1":-1.5},"stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"model":"m","prompt":[[1,2],[3]],"n":2,"logprobs":3,"echo":true,"seed":-9,"max_tokens":5}"#,
    r#"{"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"a":[{}]}}"#,
    r#"{"tokens":[1,2,3],"model":null}"#,
    r#"{"model":"m","input":["a",[1,2]],"encoding_format":"base64","dimensions":3,"truncate_prompt_tokens":-1}"#,
    r#"{"model":"m","query":"q","documents":["a",{"text":"b"}],"top_n":1,"return_documents":false}"#,
    r#"{"model":"m","text_1":["a"],"text_2":["b","c"],"truncate_prompt_tokens":8}"#,
];

const PIECES: [&str; 16] = [
    "[",
    "]",
    "{",
    "}",
    "null",
    "-1",
    "1e400",
    "5.0",
    "\"\"",
    "\\ud800",
    ",",
    ":",
    "true",
    "18446744073709551616",
    "\"type\"",
    "\u{fffd}",
];

#[test]
fn no_bytes_panic_a_parser() {
    let limits = Limits::default();
    let rounds = std::env::var("WIRE_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    for round in 1..rounds.unwrap_or(20_000_u64) {
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut body = SEEDS[dice.roll(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..=dice.roll(6) {
            let at = dice.roll(body.len().max(1)).min(body.len());
            match dice.roll(5) {
                0 => body.truncate(at),
                1 if at < body.len() => body[at] = u8::try_from(dice.roll(256)).unwrap_or(0),
                2 => {
                    let piece = PIECES[dice.roll(PIECES.len())].repeat(1 + dice.roll(3));
                    body.splice(at..at, piece.bytes());
                }
                3 => {
                    let end = (at + dice.roll(20)).min(body.len());
                    body.drain(at..end);
                }
                _ => {
                    let end = (at + dice.roll(30)).min(body.len());
                    let copy = body[at..end].to_vec();
                    body.splice(at..at, copy);
                }
            }
        }
        let errors = [
            openai::parse_chat(&body, &limits).err(),
            openai::parse_completion(&body, &limits).err(),
            openai::parse_tokenize(&body, &limits).err(),
            openai::parse_detokenize(&body).err(),
            openai::parse_embeddings(&body, &limits).err(),
            openai::parse_rerank(&body, &limits).err(),
            openai::parse_score(&body, &limits).err(),
        ];
        for error in errors.into_iter().flatten() {
            assert!(!error.message.is_empty() && error.message.len() < 2000, "round {round}");
            let shape: Value =
                serde_json::from_slice(&openai::answer::error(&error)).expect("JSON");
            assert!(shape["error"]["type"].is_string());
        }
    }
}
