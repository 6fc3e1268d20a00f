//! Properties over many inputs: parsing loses nothing, a stream's bytes are serde_json's, and no
//! bytes make a parser panic.

mod fuzz;
mod requests;
mod rest;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use requests::{chat, decoding, name, prompts, text};
use serde_json::{Value, json};
use wire::openai::stream::{Kind, Writer};
use wire::{
    Call, Choice, CompletionRequest, Decoding, Delta, Finish, Head, Limits, Piece, StreamOptions,
    Thought, TokenLogprob, TopLogprob, Usage, Writer as _, openai,
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
        4 => Delta::Refusal(text),
        _ => Delta::Arguments { index, text },
    }
}

const ENDS: [Finish; 4] = [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Refused];

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
        Finish::Refused => "content_filter",
    });
    let delta = match piece.delta {
        Delta::None => json!({}),
        Delta::Content(text) => json!({"content": text}),
        Delta::Reasoning(text) => json!({"reasoning_content": text}),
        Delta::Refusal(text) => json!({"refusal": text}),
        Delta::Seal(_) => unreachable!("this dialect has none"),
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
        include_usage in any::<bool>(), end in option::of(0..4_usize),
        (kind, call, id) in (0..6_usize, any::<u32>(), text()),
    ) {
        let head = Head { id: "chatcmpl-1".into(), created: 7, model, service_tier: None };
        let options = StreamOptions { include_usage, continuous_usage: false };
        let mut writer = Writer::new(Kind::Chat, &head, options, 200);
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
        let head = Head { id: "x".into(), created: 7, model: "m\"".into(), service_tier: None };
        let tool_calls: Vec<Call> = calls
            .into_iter()
            .map(|(id, name, arguments)| Call { id, name, arguments })
            .collect();
        let mut message = json!({"role": "assistant", "content": text});
        if text.is_empty() && !tool_calls.is_empty() {
            message["content"] = Value::Null;
        }
        if let Some(reasoning) = reasoning.as_ref().filter(|words| !words.is_empty()) {
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
        let choice = Choice {
            thoughts: reasoning.map(Thought::of).into_iter().collect(), tool_calls,
            logprobs: Some(entries.clone()), token_ids: Some(vec![1, 2]),
            prompt_token_ids: Some(vec![3]), prompt_logprobs: Some(entries),
            ..Choice::text(0, text, Finish::Stop)
        };
        let usage = Usage {
            prompt_tokens: 2, cached_tokens: 1, completion_tokens: 3, reasoning_tokens: 2,
            ..Usage::default()
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
