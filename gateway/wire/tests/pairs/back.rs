//! The way back: thoughts go to whoever asks for them, and tools have the names that their caller
//! knows.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wire::{Back, ChatRequest, Choice, Delta, Dialect, Lost, Piece, Thought, TokenLogprob};

use crate::asked::{offered, plain, with};
use crate::replay;
use crate::side::{From, In, To};
use crate::told::told;
use crate::via::{Heard, Via, client};

/// A request on its way to a provider: what is sent, and the way back.
fn sent(side: In, to: To, body: &Value) -> (Value, ChatRequest, Back) {
    let mut chat = side.parse(body, false).expect("sound");
    chat.model = to.model().into();
    let back = Back::of(&mut chat, to.dialect());
    let mut lost = Lost::default();
    let value = to.render(&chat, &mut lost);
    assert!(lost.is_empty(), "{side:?} {to:?} {lost:?}");
    (value, chat, back)
}

/// What a caller's client reads of an answer, streamed and whole; `None`: there is none such.
fn read(from: From, to: In, back: &Back, feature: &str) -> Option<[Heard; 2]> {
    let told = told(from, feature)?;
    let mut via = Via::new(from, to).on(back.clone());
    via.push(&told.stream).expect("sound");
    let (ended, _, out) = via.end();
    ended.expect("whole");
    let mut answer = from.read(&told.whole).expect("sound");
    back.choices(&mut answer.choices);
    let whole = to.write(&answer.choices, &answer.usage.unwrap_or_default());
    Some([client(to, &out), Heard::of(&to.from().read(&whole).expect("sound"))])
}

/// A caller of Messages that had not asked for thoughts got them.
#[test]
fn thoughts_go_to_whoever_asks_for_them() {
    let thinking = |value: Value| json!({"thinking": value});
    let config = |value: Value| json!({"generationConfig": {"thinkingConfig": value}});
    let budget = |display: &str| {
        thinking(json!({"type": "enabled", "budget_tokens": 1024, "display": display}))
    };
    // Words are shown; or seals alone are there to come back; or neither.
    for (side, fields, words, seals) in [
        (In::Chat, json!({}), true, false),
        (In::Chat, json!({"include_reasoning": false}), false, false),
        (In::Responses, json!({}), true, true),
        (In::Messages, json!({}), false, false),
        (In::Messages, thinking(json!({"type": "disabled"})), false, false),
        (In::Messages, thinking(json!({"type": "adaptive"})), true, true),
        (In::Messages, budget("summarized"), true, true),
        (In::Messages, budget("omitted"), false, true),
        (In::Gemini, json!({}), false, true),
        (In::Gemini, config(json!({"thinkingBudget": 1024})), false, true),
        (In::Gemini, config(json!({"includeThoughts": true})), true, true),
    ] {
        let mut chat = side.parse(&with(plain(side), &fields), false).expect("sound");
        for from in From::ALL {
            let back = Back::of(&mut chat, Dialect::Chat);
            let both = read(from, side, &back, "thoughts and text").expect("all think");
            for heard in both {
                let case = format!("{from:?} {side:?} {fields}");
                let shown = if words { "Let me see." } else { "" };
                assert_eq!((&*heard.words(), &*heard.text), (shown, "Hello."), "{case}");
                let sealed = heard.thoughts.iter().filter(|thought| thought.seal.is_some());
                let made = usize::from(seals && from != From::Chat);
                assert_eq!(sealed.count(), made, "{case}");
                assert_eq!(heard.thoughts.len(), made.max(usize::from(words)), "{case}");
            }
        }
    }
}

/// Thoughts that nobody sees come back to who had them: a caller of Google's dialect that bounds
/// them asks for none to be shown.
#[test]
fn seals_come_back_though_no_words_are_shown() {
    for (to, from, seal) in
        [(To::Messages, From::Messages, "c2lnbmVk"), (To::Responses, From::Responses, "gAAAAx")]
    {
        let mut chat = In::Gemini.parse(&plain(In::Gemini), false).expect("sound");
        let back = Back::of(&mut chat, to.dialect());
        let told = told(from, "thoughts and text").expect("it thinks");
        let mut answer = from.read(&told.whole).expect("sound");
        back.choices(&mut answer.choices);
        let body = In::Gemini.write(&answer.choices, &answer.usage.unwrap_or_default());
        let text = String::from_utf8(body.clone()).expect("UTF-8");
        assert!(!text.contains("\"thought\":"), "{text}");
        let (sent, _, _) = sent(In::Gemini, to, &replay::request(In::Gemini, &body));
        let text = sent.to_string();
        assert!(text.contains(seal) && !text.contains("Let me see."), "{to:?} {text}");
    }
}

/// Bedrock's older ones cannot be asked to leave the words out, and refuse a signature without
/// them: "blocks in the latest assistant message cannot be modified".
#[test]
fn no_seal_comes_back_that_is_of_hidden_words() {
    for (model, seals) in [
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", false),
        ("anthropic.claude-opus-4-6-v1", false),
        ("anthropic.claude-opus-4-7", true),
        ("global.anthropic.claude-opus-5", true),
    ] {
        for side in [In::Gemini, In::Messages] {
            let thinking = json!({"type": "enabled", "budget_tokens": 1024, "display": "omitted"});
            let body = match side {
                In::Messages => with(plain(side), &json!({"thinking": thinking})),
                _ => plain(side),
            };
            let mut chat = side.parse(&body, false).expect("sound");
            chat.model = model.into();
            let back = Back::of(&mut chat, Dialect::Converse);
            let both = read(From::Converse, side, &back, "thoughts and text").expect("it thinks");
            for heard in both {
                assert_eq!(heard.thoughts.iter().any(|one| one.seal.is_some()), seals, "{model}");
                assert_eq!((&*heard.words(), &*heard.text), ("", "Hello."), "{model}");
            }
        }
    }
}

/// Engines tell the tokens of thoughts too; a caller that sees no thoughts sees none of them.
#[test]
fn tokens_of_hidden_thoughts_are_hidden() {
    let token = |text: &str| TokenLogprob {
        id: 1,
        bytes: text.as_bytes().to_vec(),
        logprob: Some(-0.5),
        rank: 1,
        top: Vec::new(),
        hidden: false,
    };
    let body = with(plain(In::Chat), &json!({"include_reasoning": false}));
    let mut chat = In::Chat.parse(&body, false).expect("sound");
    let hides = Back::of(&mut chat, Dialect::Chat);
    let mut chat = In::Chat.parse(&plain(In::Chat), false).expect("sound");
    let shows = Back::of(&mut chat, Dialect::Chat);
    let tokens = [token("Hm"), token("."), token("Hel"), token("lo.")];
    let piece = Piece {
        delta: Delta::Reasoning("Hm."),
        logprobs: Some(&tokens[..2]),
        token_ids: Some(&[7, 8]),
        ..Piece::default()
    };
    assert!(hides.piece(&piece).says_nothing());
    assert!(shows.piece(&piece).logprobs.is_some() && shows.piece(&piece).token_ids.is_some());
    let check = |back: &Back, text: &str, told: &[TokenLogprob], expect: Option<usize>| {
        let ids = (0..).take(told.len()).collect();
        let mut choices = [Choice {
            thoughts: vec![Thought::of("Hm.")],
            logprobs: Some(told.to_vec()),
            token_ids: Some(ids),
            ..Choice::text(0, text, wire::Finish::Stop)
        }];
        back.choices(&mut choices);
        let [choice] = &choices;
        let from = expect.map(|kept| told.len() - kept);
        assert_eq!(choice.logprobs.as_deref(), from.map(|from| &told[from..]), "{text}");
        let first = choice.token_ids.as_ref().map(|ids| ids.first().copied());
        let expect =
            expect.map(|kept| (kept > 0).then(|| u32::try_from(told.len() - kept).expect("few")));
        assert_eq!(first, expect, "{text}");
    };
    check(&shows, "Hello.", &tokens, Some(4));
    check(&hides, "Hello.", &tokens, Some(2));
    check(&hides, "Hello.", &tokens[2..], Some(2));
    check(&hides, "", &tokens[..2], Some(0));
    // Which of them are the text's cannot be seen.
    check(&hides, "hello.", &tokens, None);
    check(&hides, "lo", &tokens, None);
    check(&hides, "Hm.Hello. And", &tokens, None);
}

/// Which letters and lengths a provider takes in the name of a tool.
fn takes(to: To, name: &str) -> bool {
    let (most, more) = match to {
        To::Messages => (128, "_-"),
        To::Gemini => (64, "_-."),
        _ => (64, "_-"),
    };
    name.len() <= most && name.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// All names of tools in a request as it is sent.
fn names(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get("name").and_then(Value::as_str).map(str::to_owned));
            let allowed = fields.get("allowedFunctionNames").and_then(Value::as_array);
            let allowed = allowed.into_iter().flatten().filter_map(Value::as_str);
            out.extend(allowed.map(str::to_owned));
            fields.values().for_each(|value| names(value, out));
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, out)),
        _ => {}
    }
}

/// Names of MCP's tools were refused by providers that take shorter ones, or fewer letters.
#[test]
fn names_that_a_provider_refuses_are_replaced() {
    let long = format!("mcp__{}__read", "files".repeat(15));
    let own = ["files.read", "plain", &long];
    for side in In::CHATS {
        for to in To::ALL {
            let at = In::CHATS.iter().position(|other| *other == side).expect("one of them");
            let body = with(plain(side), &offered(&own, false)[at]);
            let (value, chat, back) = sent(side, to, &body);
            let mut said = BTreeSet::new();
            names(&value, &mut said);
            assert_eq!(said.len(), 3, "{side:?} {to:?} {value}");
            assert!(said.iter().all(|name| takes(to, name)), "{side:?} {to:?} {said:?}");
            // What is taken stays.
            let kept: Vec<&str> = own.into_iter().filter(|name| takes(to, name)).collect();
            assert!(kept.iter().all(|name| said.contains(*name)), "{side:?} {to:?} {said:?}");
            // They are told by the caller's names.
            let calls: Vec<String> = chat.tools.iter().map(|tool| tool.name.clone()).collect();
            let mut choices = [calls_of(&calls)];
            back.choices(&mut choices);
            let told: Vec<&str> = choices[0].tool_calls.iter().map(|call| &*call.name).collect();
            assert_eq!(told, own, "{side:?} {to:?}");
            // Calls of earlier turns, and their results, have the same new names.
            let answer = side.write(&choices, &wire::Usage::default());
            let next = with(replay::request(side, &answer), &offered(&own, false)[at]);
            let (value, _, _) = sent(side, to, &next);
            let mut again = BTreeSet::new();
            names(&value, &mut again);
            assert_eq!(again, said, "{side:?} {to:?} {value}");
        }
    }
}

fn calls_of(names: &[String]) -> Choice {
    let call = |(at, name): (usize, &String)| wire::Call {
        id: format!("call_{at}"),
        name: name.clone(),
        arguments: "{}".into(),
    };
    let calls = names.iter().enumerate().map(call).collect();
    Choice::text(0, "", wire::Finish::ToolCalls).with_calls(calls)
}

/// In a stream and in a whole answer alike.
#[test]
fn a_call_is_told_by_its_callers_name() {
    let tool = json!({"type": "function", "function": {"name": "files.look"}});
    let body = with(
        plain(In::Chat),
        &json!({"tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "files.look"}}}),
    );
    for from in From::ALL {
        let mut chat = In::Chat.parse(&body, false).expect("sound");
        let back = Back::of(&mut chat, Dialect::Converse);
        let new = chat.tools[0].name.clone();
        assert_eq!(chat.tool_choice, wire::ToolChoice::Named(new.clone()));
        assert_eq!(chat.tools[0].value["function"]["name"], *new);
        let told = told(from, "a call").expect("all call");
        let swap = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            text.replace("\"look\"", &format!("\"{new}\"")).into_bytes()
        };
        // Frames of Bedrock have a checksum.
        if from != From::Converse {
            let mut via = Via::new(from, In::Chat).on(back.clone());
            via.push(&swap(&told.stream)).expect("sound");
            let (ended, _, out) = via.end();
            ended.expect("whole");
            assert_eq!(client(In::Chat, &out).calls[0].1, "files.look", "{from:?}");
        }
        let mut answer = from.read(&swap(&told.whole)).expect("sound");
        back.choices(&mut answer.choices);
        assert_eq!(answer.choices[0].tool_calls[0].name, "files.look", "{from:?}");
    }
}
