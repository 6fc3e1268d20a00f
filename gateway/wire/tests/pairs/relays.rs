//! A stream that is passed on in its own dialect: the same bytes, whatever they are and however
//! they come; with `strip` nothing is missing but the usage.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use wire::relay::Relay;
use wire::{ApiError, Dialect, ErrorKind};

use crate::properties::pieces;
use crate::random::{Step, plan};
use crate::side::{In, LIMIT, well_nested};

const ALL: [Dialect; 5] =
    [Dialect::Chat, Dialect::Completions, Dialect::Responses, Dialect::Messages, Dialect::Gemini];

fn dialect(side: In) -> Dialect {
    match side {
        In::Chat => Dialect::Chat,
        In::Completions => Dialect::Completions,
        In::Responses => Dialect::Responses,
        In::Messages => Dialect::Messages,
        In::Gemini => Dialect::Gemini,
    }
}

fn passed(dialect: Dialect, strip: bool, bytes: &[u8], lengths: &[usize]) -> (Relay, Vec<u8>) {
    let (mut relay, mut out) = (Relay::new(dialect, strip, LIMIT), Vec::new());
    for piece in pieces(bytes, lengths) {
        relay.push(piece, &mut out).expect("short events");
    }
    (relay, out)
}

/// The events of a stream of chat, without what is said of usage.
fn without_usage(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let events = text.split_terminator("\n\n").filter_map(|event| {
        let Some(mut chunk) =
            event.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok())
        else {
            return Some(event.to_owned());
        };
        let empty = chunk["choices"].as_array().is_some_and(Vec::is_empty);
        let fields = chunk.as_object_mut().expect("an object");
        fields.shift_remove("usage");
        (!empty).then(|| format!("data: {chunk}"))
    });
    events.collect()
}

proptest! {
    // Each case goes through all pairs.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn the_bytes_are_the_same(plan in plan(), lengths in vec(1..300_usize, 1..9)) {
        for side in In::CHATS {
            let (bytes, end) = plan.written(side);
            let (relay, out) = passed(dialect(side), false, &bytes, &lengths);
            prop_assert_eq!(out, bytes.clone());
            prop_assert!(relay.ended() && !relay.failed());
            let usage = relay.usage().expect("said");
            prop_assert_eq!(usage.prompt_tokens, plan.usage.prompt_tokens);
            prop_assert_eq!(usage.cached_tokens, plan.usage.cached_tokens);
            prop_assert_eq!(usage.completion_tokens, plan.usage.completion_tokens);
            prop_assert_eq!(usage.reasoning_tokens, plan.usage.reasoning_tokens);
            // What is cut off is not whole, and half an event is no event.
            let (mut relay, mut out) = passed(dialect(side), false, &bytes[..end], &lengths);
            prop_assert!(!relay.ended() && bytes.starts_with(&out));
            let mut ended = out.clone();
            let events = String::from_utf8_lossy(&out).matches("data: ").count();
            relay.error(&mut out, &ApiError::new(ErrorKind::Upstream, "c", "m"));
            if side == In::Responses {
                let last = String::from_utf8_lossy(&out[ended.len()..]).into_owned();
                let head = format!("{{\"type\":\"error\",\"sequence_number\":{events},");
                prop_assert!(last.starts_with(&format!("event: error\ndata: {head}")), "{last}");
            } else {
                prop_assert!(!well_nested(side, &out));
            }
            let (mut relay, _) = passed(dialect(side), false, &bytes[..end], &lengths);
            relay.cut_short(&mut ended, &ApiError::new(ErrorKind::Quota, "c", "m"));
            prop_assert!(relay.ended());
            // Thoughts that are cut off have no signature, which is the provider's to make.
            let mut steps = plan.steps.iter().rev();
            let last = steps.find(|step| !matches!(step, Step::Text(text) if text.is_empty()));
            let thinks = matches!(last, Some(Step::Thought(_)));
            if side == In::Messages && !thinks {
                prop_assert!(well_nested(side, &ended));
            }
        }
    }

    #[test]
    fn nothing_but_usage_is_left_out(plan in plan(), lengths in vec(1..300_usize, 1..9)) {
        let (bytes, _) = plan.written(In::Chat);
        let (relay, out) = passed(Dialect::Chat, true, &bytes, &lengths);
        let text = String::from_utf8(out.clone()).expect("UTF-8");
        let chunks = text.lines().filter_map(|line| line.strip_prefix("data: {"));
        let said = chunks.map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")));
        prop_assert!(said.flatten().all(|chunk| chunk.get("usage").is_none()));
        prop_assert_eq!(without_usage(&out), without_usage(&bytes));
        let made = relay.usage().map(|usage| usage.completion_tokens);
        prop_assert_eq!(made, Some(plan.usage.completion_tokens));
    }

    #[test]
    fn random_bytes_pass_and_are_bounded(
        bytes in vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r')], 0..300),
        lengths in vec(1..50_usize, 1..5), strip in any::<bool>(), limit in 1..200_usize,
    ) {
        for dialect in ALL {
            let (mut relay, mut out) = (Relay::new(dialect, strip, limit), Vec::new());
            let mut pieces = pieces(&bytes, &lengths).into_iter();
            let read = pieces.all(|piece| relay.push(piece, &mut out).is_ok());
            prop_assert!(bytes.starts_with(&out));
            prop_assert!(!read || bytes.len() - out.len() <= limit);
        }
    }

    #[test]
    fn wild_streams_make_no_panic(
        plan in plan(), wild in vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(),
        numbers in vec(any::<u64>(), 2..4), lengths in vec(1..300_usize, 1..5),
    ) {
        for side in In::CHATS {
            let (bytes, _) = plan.written(side);
            // Numbers that no provider counts, and bytes that none sends.
            let text = String::from_utf8(bytes).expect("UTF-8");
            let of = |at: usize| format!("_tokens\":{}", numbers[at % numbers.len()]);
            let text = text.replace("_tokens\":0", &of(0)).replace("_tokens\":1", &of(1));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            let end = (at + wild.len() / 2).min(bytes.len());
            bytes.splice(at..end, wild.iter().copied());
            let (mut relay, mut out) = passed(dialect(side), false, &bytes, &lengths);
            prop_assert!(bytes.starts_with(&out));
            relay.cut_short(&mut out, &ApiError::new(ErrorKind::Quota, "c", "m"));
        }
    }
}

#[test]
fn what_a_text_says_is_no_end() {
    let check = |dialect, event: &str| {
        let (relay, out) = passed(dialect, false, event.as_bytes(), &[7]);
        assert_eq!(out, event.as_bytes());
        assert!(!relay.ended() && !relay.failed(), "{event}");
    };
    check(Dialect::Chat, "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE]\"}}]}\n\n");
    check(
        Dialect::Gemini,
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\
         \"args\":{\"finishReason\":\"x\"}}}]}}]}\n\n",
    );
    let delta =
        "data: {\"type\":\"response.output_text.delta\",\"delta\":\"response.completed\"}\n\n";
    check(Dialect::Responses, delta);
    // Nor is what a response is called by its caller a piece of it.
    let last = "data: {\"type\":\"response.completed\",\"response\":{\"metadata\":{\"a.delta\":\"1\"},\
                \"usage\":{\"output_tokens\":5}}}\n\n";
    let (relay, _) = passed(Dialect::Responses, false, last.as_bytes(), &[9]);
    assert!(relay.ended());
    assert_eq!(relay.usage().map(|usage| usage.completion_tokens), Some(5));
}

#[test]
fn counts_that_cannot_be_are_no_panic() {
    let most = u64::MAX;
    let start = format!(
        "data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"input_tokens\":5,\
         \"cache_read_input_tokens\":{most},\"cache_creation_input_tokens\":{most}}}}}}}\n\n"
    );
    let delta = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":3}}\n\n";
    let (relay, _) = passed(Dialect::Messages, false, (start + delta).as_bytes(), &[50]);
    assert_eq!(relay.usage().map(|usage| usage.completion_tokens), Some(3));
}
