//! Properties over many inputs: parsing loses nothing, a stream's bytes are serde_json's, and no
//! bytes make a parser panic.

mod requests;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use requests::{chat, decoding, name, prompts, text};
use serde_json::{Value, json};
use wire::openai::answer::Head;
use wire::openai::stream::{Delta, Kind, Piece, Writer};
use wire::{
    Call, CompletionRequest, Decoding, Finish, Limits, StreamOptions, TokenLogprob, TopLogprob,
    Usage, openai,
};

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

fn delta<'a>(kind: usize, index: u32, id: &'a str, text: &'a str) -> Delta<'a> {
    match kind {
        0 => Delta::None,
        1 => Delta::Content(text),
        2 => Delta::Reasoning(text),
        3 => Delta::CallStart { index, id, name: text },
        _ => Delta::Arguments { index, text },
    }
}

const ENDS: [Finish; 3] = [Finish::Stop, Finish::Length, Finish::ToolCalls];

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
    let finish = piece.finish.map(|finish| match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    });
    let delta = match piece.delta {
        Delta::None => json!({}),
        Delta::Content(text) => json!({"content": text}),
        Delta::Reasoning(text) => json!({"reasoning_content": text}),
        Delta::CallStart { index, id, name } => {
            let function = json!({"name": name, "arguments": ""});
            json!({"tool_calls":
                [{"index": index, "id": id, "type": "function", "function": function}]})
        }
        Delta::Arguments { index, text } => {
            json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        }
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
        include_usage in any::<bool>(), end in option::of(0..3_usize),
        (kind, call, id) in (0..5_usize, any::<u32>(), text()),
    ) {
        let head = Head { id: "chatcmpl-1".into(), created: 7, model };
        let options = StreamOptions { include_usage, continuous_usage: false };
        let mut writer = Writer::new(Kind::Chat, &head, options, 1);
        let piece = Piece {
            index, delta: delta(kind, call, &id, &text), logprobs: entries.as_deref(),
            token_ids: ids.as_deref(), finish: end.map(|end| ENDS[end]), ..Piece::default()
        };
        let mut out = Vec::new();
        writer.piece(&mut out, &piece);
        let expect = format!("data: {}\n\n", chunk(&head, &piece, include_usage));
        prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), expect);
    }

    #[test]
    fn whole_answers_are_json(
        text in text(), entries in vec(entry(), 0..3), reasoning in option::of(text()),
        calls in vec((text(), text(), text()), 0..3),
    ) {
        let head = Head { id: "x".into(), created: 7, model: "m\"".into() };
        let tool_calls: Vec<Call> = calls
            .into_iter()
            .map(|(id, name, arguments)| Call { id, name, arguments })
            .collect();
        let mut message = json!({"role": "assistant", "content": text});
        if text.is_empty() && !tool_calls.is_empty() {
            message["content"] = Value::Null;
        }
        if let Some(reasoning) = &reasoning {
            message["reasoning_content"] = json!(reasoning);
        }
        let call = |Call { id, name, arguments }: &Call| {
            json!({"id": id, "type": "function",
                "function": {"name": name, "arguments": arguments}})
        };
        if !tool_calls.is_empty() {
            message["tool_calls"] = tool_calls.iter().map(call).collect();
        }
        message["refusal"] = Value::Null;
        let choice = wire::Choice {
            index: 0, text, reasoning, tool_calls, finish: Finish::Stop,
            logprobs: Some(entries.clone()), token_ids: Some(vec![1, 2]),
            prompt_token_ids: Some(vec![3]), prompt_logprobs: Some(entries),
        };
        let usage = Usage {
            prompt_tokens: 2, cached_tokens: 1, completion_tokens: 3, reasoning_tokens: 2,
        };
        let expect = json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2}});
        let read = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON");
        let chat = read(&openai::answer::chat(&head, std::slice::from_ref(&choice), &usage));
        // As text: the order of keys is part of it.
        prop_assert_eq!(chat["choices"][0]["message"].to_string(), message.to_string());
        prop_assert_eq!(chat["usage"].to_string(), expect.to_string());
        let plain = read(&openai::answer::completion(&head, &[choice], &usage));
        prop_assert_eq!(plain["usage"].to_string(), expect.to_string());
        prop_assert!(plain["choices"][0]["text"].is_string());
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

const SEEDS: [&str; 9] = [
    r#"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"\u00e9"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"stop":["a"],"logit_bias":{"1":-1.5},"stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","strict":true}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}}]}},"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},"reasoning":{"effort":"low","max_tokens":5}}"#,
    r#"{"model":"m","prompt":"x","structured_outputs":{"structural_tag":"{\"structures\":[{\"begin\":\"<a>\",\"schema\":{},\"end\":\"</a>\"}],\"triggers\":[\"<\"]}"},"ignore_eos":false}"#,
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
