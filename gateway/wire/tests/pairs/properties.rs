//! Random answers through every pair, in any pieces: the same arrives, well nested at every cut,
//! and what is cut off never looks whole.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use wire::{Broken, Finish, Usage};

use crate::random::{Plan, arguments, cut, plan, whole};
use crate::side::{From, In, well_nested};
use crate::via::{Heard, Via, client};

/// Bytes in pieces of these lengths, again and again.
pub(crate) fn pieces<'b>(mut bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let (mut out, mut lengths) = (Vec::new(), lengths.iter().cycle());
    while !bytes.is_empty() {
        let (one, two) = bytes.split_at(bytes.len().min(*lengths.next().expect("endless")));
        out.push(one);
        bytes = two;
    }
    out
}

/// Every pair, when so much of a plan's answer has come.
fn cut_off(plan: &Plan, at: prop::sample::Index) -> Vec<(In, Via)> {
    let of = |from| {
        let bytes = plan.sent(from);
        In::ALL.map(|caller| {
            let mut via = Via::new(from, caller);
            via.push(&bytes[..at.index(bytes.len())]).expect("sound");
            (caller, via)
        })
    };
    From::ALL.into_iter().flat_map(of).collect()
}

/// What must arrive of a plan.
fn expect(plan: &Plan, heard: &Heard, usage: Option<Usage>) -> Result<(), TestCaseError> {
    prop_assert_eq!(heard.words(), plan.words());
    prop_assert_eq!(&heard.text, &plan.text());
    let calls = heard.calls.iter().map(|(id, name, text)| (id.clone(), name.clone(), whole(text)));
    prop_assert_eq!(calls.collect::<Vec<_>>(), plan.calls());
    prop_assert_eq!(heard.finish, Some(plan.finish));
    prop_assert_eq!(heard.usage, usage);
    prop_assert!(heard.whole && heard.failed.is_none() && !heard.mixed);
    Ok(())
}

proptest! {
    // Each case goes through all pairs.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn the_same_arrives_in_any_pieces(plan in plan(), lengths in vec(1..400_usize, 1..9)) {
        for from in From::ALL {
            let bytes = plan.sent(from);
            for caller in In::CHATS {
                let mut via = Via::new(from, caller);
                for piece in pieces(&bytes, &lengths) {
                    via.push(piece).expect("sound");
                    prop_assert!(!well_nested(caller, &via.out), "it ends too early");
                }
                let (ended, _, out) = via.end();
                prop_assert_eq!(ended, Ok(()));
                prop_assert!(well_nested(caller, &out));
                expect(&plan, &client(caller, &out), Some(plan.counted(from, caller)))?;
            }
            // A text has no place for thoughts and calls.
            let mut via = Via::new(from, In::Completions);
            for piece in pieces(&bytes, &lengths) {
                via.push(piece).expect("sound");
            }
            let (_, _, out) = via.end();
            prop_assert!(well_nested(In::Completions, &out));
            let read = client(In::Completions, &out);
            let end = if plan.finish == Finish::ToolCalls { Finish::Stop } else { plan.finish };
            prop_assert_eq!((read.text, read.finish), (plan.text(), Some(end)));
        }
    }

    #[test]
    fn what_is_cut_off_is_not_whole(plan in plan(), at in any::<prop::sample::Index>()) {
        for (caller, via) in cut_off(&plan, at) {
            let (ended, heard, out) = via.end();
            prop_assert_eq!(well_nested(caller, &out), ended.is_ok());
            if ended.is_ok() {
                // Only the count of its tokens was cut off.
                expect(&plan, &heard, heard.usage)?;
            }
        }
    }

    /// As where the money for an answer is used up, at whatever point.
    #[test]
    fn what_is_ended_here_is_well_nested(plan in plan(), at in any::<prop::sample::Index>()) {
        for (caller, via) in cut_off(&plan, at) {
            let (heard, out) = via.cut_short();
            prop_assert!(well_nested(caller, &out));
            let read = client(caller, &out);
            prop_assert_eq!(&read.text, &heard.text);
            let chats = caller != In::Completions;
            // Google's dialect has no word for half a call.
            let halves = !matches!(caller, In::Completions | In::Gemini);
            prop_assert!(!halves || read.calls.len() == heard.calls.len());
            let mut both = read.calls.iter().zip(&heard.calls);
            prop_assert!(both.all(|(read, heard)| (&read.0, &read.1) == (&heard.0, &heard.1)));
            let of_provider = heard.finish.map(|finish| match finish {
                Finish::ToolCalls if !chats => Finish::Stop,
                finish => finish,
            });
            prop_assert_eq!(read.finish, of_provider.or(Some(Finish::Length)));
        }
    }

    #[test]
    fn calls_that_mix_arrive_one_after_the_other(
        calls in vec((arguments(), vec(0..9_usize, 0..3)), 1..5), order in vec(0..5_usize, 0..20),
        lengths in vec(1..400_usize, 1..5),
    ) {
        let (stream, sent) = mixed(&calls, &order);
        for caller in In::CHATS {
            let mut via = Via::new(From::Chat, caller);
            for piece in pieces(&stream, &lengths) {
                via.push(piece).expect("sound");
                prop_assert!(!well_nested(caller, &via.out));
            }
            let (ended, heard, out) = via.end();
            prop_assert_eq!(ended, Ok(()));
            prop_assert!(!heard.mixed && well_nested(caller, &out));
            prop_assert_eq!(client(caller, &out).calls, sent.clone());
        }
    }

    #[test]
    fn calls_that_are_no_json_are_whole_or_refused(
        calls in vec(("[{}a\"]{0,6}", vec(0..4_usize, 0..3)), 1..4), order in vec(0..4_usize, 0..12),
    ) {
        let (stream, sent) = mixed(&calls, &order);
        // Google's dialect has objects alone.
        for caller in [In::Chat, In::Responses, In::Messages] {
            let mut via = Via::new(From::Chat, caller);
            let read = via.push(&stream);
            prop_assert!(!via.heard.mixed);
            match read {
                Ok(()) => {
                    let (_, heard, _) = via.end();
                    prop_assert_eq!(heard.calls, sent.clone());
                }
                Err(Broken(why)) => prop_assert_eq!(why, "more of a call that is over"),
            }
        }
    }

    #[test]
    fn random_bytes_make_no_panic(
        plan in plan(), wild in vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(),
        lengths in vec(1..90_usize, 1..5),
    ) {
        for from in From::ALL {
            let mut bytes = plan.sent(from);
            let at = at.index(bytes.len() + 1);
            let end = (at + wild.len() / 2).min(bytes.len());
            bytes.splice(at..end, wild.iter().copied());
            for caller in In::ALL {
                let mut via = Via::new(from, caller);
                // A writer ends what its caller reads, whatever has come.
                let sound = pieces(&bytes, &lengths).iter().all(|piece| via.push(piece).is_ok());
                prop_assert!(via.out.len() <= 40_000 + 60 * bytes.len());
                let (ended, _, out) = via.end();
                let read = catch_unwind(AssertUnwindSafe(|| well_nested(caller, &out)));
                prop_assert_eq!(read.ok(), Some(sound && ended.is_ok()));
            }
        }
    }
}

/// A provider's stream in which pieces of calls come in turns, and the calls.
fn mixed(
    calls: &[(String, Vec<usize>)],
    order: &[usize],
) -> (Vec<u8>, Vec<(String, String, String)>) {
    let mut waiting: Vec<Vec<serde_json::Value>> = Vec::new();
    for (at, (text, cuts)) in calls.iter().enumerate() {
        let function = json!({"name": format!("f{at}"), "arguments": ""});
        let mut all = vec![json!({"index": at, "id": format!("c{at}"), "function": function})];
        let more = |text: String| json!({"index": at, "function": {"arguments": text}});
        all.extend(cut(text, cuts).into_iter().map(more));
        all.reverse();
        waiting.push(all);
    }
    let (mut stream, mut begun) = (String::new(), Vec::new());
    let rest = (0..calls.len()).flat_map(|at| std::iter::repeat_n(at, waiting[at].len()));
    let rest: Vec<usize> = rest.collect();
    for at in order.iter().copied().chain(rest) {
        let Some(piece) = waiting.get_mut(at).and_then(Vec::pop) else { continue };
        if piece.get("id").is_some() {
            begun.push(at);
        }
        let choice = json!({"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": null});
        stream += &format!("data: {}\n\n", json!({"id": "x", "choices": [choice]}));
    }
    let end = json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"});
    stream += &format!("data: {}\n\ndata: [DONE]\n\n", json!({"id": "x", "choices": [end]}));
    let sent =
        begun.into_iter().map(|at| (format!("c{at}"), format!("f{at}"), calls[at].0.clone()));
    (stream.into_bytes(), sent.collect())
}
