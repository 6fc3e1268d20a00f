//! What others' bug reports teach about pairs of dialects. Each test names what went wrong there.

use serde_json::{Value, json};
use wire::openai::stream::{Kind, Writer as ChatWriter};
use wire::{Delta, Finish, Lost, Piece, Remark, Seal, StreamOptions, Thought, Usage, Writer as _};

use crate::asked::{features, offered, plain, with};
use crate::replay;
use crate::requests::asked;
use crate::side::{From, In, To, well_nested};
use crate::told::{FEATURES, told};
use crate::via::{Heard, Via, client, streamed, whole};

/// A provider's stream of chat with these deltas.
fn chat(deltas: &[Value], reason: &str) -> Vec<u8> {
    let chunk = |delta: &Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        format!("data: {}\n\n", json!({"id": "x", "model": "m", "choices": [choice]}))
    };
    let mut out: String = deltas.iter().map(|delta| chunk(delta, Value::Null)).collect();
    out += &chunk(&json!({}), reason.into());
    (out + "data: [DONE]\n\n").into_bytes()
}

/// Events of Messages.
fn messages(events: &[Value]) -> Vec<u8> {
    let event = |data: &Value| {
        format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a kind"))
    };
    events.iter().map(event).collect::<String>().into_bytes()
}

/// litellm#30043, vllm#44576: no stable way from Claude Code to an engine.
#[test]
fn claude_code_reaches_an_engine() {
    let cached = json!({"type": "ephemeral"});
    let body = json!({
        "model": "m", "max_tokens": 32000, "stream": true,
        "system": [{"type": "text", "text": "You are a coder.", "cache_control": cached}],
        "tools": [{"name": "Bash", "description": "Runs.", "input_schema": {"type": "object",
            "properties": {"command": {"type": "string"}}, "required": ["command"]}}],
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
        "metadata": {"user_id": "user_1"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Go", "cache_control": cached}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "hearth1.words"},
                {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                "content": "a", "is_error": false}, {"type": "text", "text": "On"}]},
            {"role": "system", "content": "Be brief."}],
    });
    let (sent, lost) = asked(In::Messages, To::Extended, &body).expect("sound");
    assert!(lost.is_empty(), "{lost:?}");
    let chat = In::Chat.parse(&sent, true).expect("an engine takes it");
    let roles: Vec<&str> = chat.messages.iter().map(|message| message.role.name()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "user", "system"]);
    assert_eq!(sent["messages"][2]["reasoning_content"], "Hm.");
    assert_eq!(sent["user"], "user_1");
}

/// litellm#29286: an empty list of calls became an empty call, and the text vanished.
#[test]
fn an_empty_list_of_calls_is_no_call() {
    let deltas = [
        json!({"role": "assistant", "content": "", "tool_calls": []}),
        json!({"content": "Hel", "tool_calls": []}),
        json!({"content": "lo.", "tool_calls": null}),
    ];
    for to in In::ALL {
        let (_, out) = streamed(From::Chat, to, &chat(&deltas, "stop"));
        let read = client(to, &out);
        assert_eq!((&*read.text, read.calls.len(), read.finish), ("Hello.", 0, Some(Finish::Stop)));
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains("tool") || to == In::Responses, "{text}");
        assert!(!text.contains("input_json_delta") && !text.contains("function_call\""));
    }
}

/// Some servers forget the reason why a choice ended, or the last event; none forgets both.
#[test]
fn an_end_that_is_half_forgotten_is_one() {
    let call = json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}});
    for (delta, finish) in [
        (json!({"content": "Hello."}), Finish::Stop),
        (json!({"tool_calls": [call]}), Finish::ToolCalls),
    ] {
        let text = String::from_utf8(chat(&[delta], "stop")).expect("UTF-8");
        let events: Vec<&str> = text.split_inclusive("\n\n").collect();
        let [said, reason, done] = events[..] else { panic!("three events") };
        for to in In::ALL {
            for stream in [format!("{said}{done}"), format!("{said}{reason}")] {
                let (heard, out) = streamed(From::Chat, to, stream.as_bytes());
                assert_eq!(heard.finish, Some(finish));
                assert!(well_nested(to, &out), "{to:?} {stream}");
            }
            for stream in [said, done] {
                let mut via = Via::new(From::Chat, to);
                let read = via.push(stream.as_bytes());
                assert!(read.is_err() || via.end().0.is_err(), "{to:?} {stream}");
            }
        }
    }
}

/// litellm#22102 (a stream that begins with a delta), #37852 (an item is closed that was never
/// opened, under a wrong id), #13373 ("content block not found"): strict clients read every
/// stream, at every event.
#[test]
fn every_stream_is_well_nested_at_every_byte_of_the_provider() {
    for (from, to, feature) in all() {
        let Some(told) = told(from, feature) else { continue };
        let mut via = Via::new(from, to);
        let mut before = 0;
        for byte in told.stream.chunks(1) {
            via.push(byte).expect("sound");
            if via.out.len() > before {
                before = via.out.len();
                assert!(!well_nested(to, &via.out), "{from:?} {to:?} {feature}");
            }
        }
        let (_, _, out) = via.end();
        assert!(well_nested(to, &out), "{from:?} {to:?} {feature}");
        if to == In::Responses {
            ids_have_prefixes(&out);
        }
    }
}

fn all() -> impl Iterator<Item = (From, In, &'static str)> {
    let pairs = From::ALL.into_iter().flat_map(|from| In::ALL.map(|to| (from, to)));
    pairs.flat_map(|(from, to)| FEATURES.map(|feature| (from, to, feature)))
}

fn ids_have_prefixes(stream: &[u8]) {
    let text = std::str::from_utf8(stream).expect("UTF-8");
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(data).expect("JSON");
        let item = &event["item"];
        let prefix = match item["type"].as_str() {
            Some("message") => "msg_",
            Some("function_call") => "fc_",
            Some("reasoning") => "rs_",
            _ => continue,
        };
        assert!(item["id"].as_str().is_some_and(|id| id.starts_with(prefix)), "{item}");
    }
}

/// litellm PR#38809: thoughts of a signature alone were dropped.
#[test]
fn thoughts_of_a_signature_alone_arrive() {
    let stream = messages(&[
        json!({"type": "message_start", "message": {"id": "m", "model": "c", "content": []}}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "signature_delta", "signature": "c2ln"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}),
        json!({"type": "message_stop"}),
    ]);
    let alone = Thought { text: String::new(), seal: Some(Seal::Signature("c2ln".into())) };
    for to in [In::Responses, In::Messages, In::Gemini] {
        let (heard, out) = streamed(From::Messages, to, &stream);
        assert_eq!(heard.thoughts, std::slice::from_ref(&alone));
        let read = client(to, &out);
        assert_eq!(read.thoughts.len(), 1, "{to:?}");
        assert!(read.thoughts[0].seal.is_some(), "{to:?}");
    }
}

/// vllm#44000: a message of the role `system` within `messages` was refused.
#[test]
fn the_system_may_speak_in_the_middle() {
    let feature = features().into_iter().find(|f| f.name == "system message in the middle");
    let case = feature.expect("there is one").of(In::Messages).expect("it can be said");
    for to in To::ALL {
        let (sent, lost) = asked(In::Messages, to, &case.with).expect("sound");
        assert!(lost.is_empty() && sent.to_string().contains("Be brief."), "{to:?} {sent}");
    }
}

/// bifrost#3511: tools of OpenAI's shape broke on their way to Anthropic.
#[test]
fn tools_have_the_shape_of_their_dialect() {
    let feature = features().into_iter().find(|f| f.name == "parallel calls and their results");
    let case = feature.expect("there is one").of(In::Chat).expect("it can be said");
    let (sent, lost) = asked(In::Chat, To::Messages, &case.with).expect("sound");
    assert!(lost.is_empty());
    assert_eq!(sent["tools"][0]["input_schema"]["type"], "object");
    assert!(sent["tools"][0].get("function").is_none());
    let uses = sent["messages"][1]["content"].as_array().expect("blocks");
    assert!(uses.iter().all(|block| block["type"] == "tool_use" && block["input"].is_object()));
    let results = sent["messages"][2]["content"].as_array().expect("blocks");
    assert!(results.iter().all(|block| block["type"] == "tool_result"));
    assert_eq!((uses.len(), results.len()), (2, 2));
}

/// bifrost#2048 (arguments were held back and came in a burst), Kong#12680 and #14425 (streams
/// were held back): what has come is passed on at once.
#[test]
fn nothing_is_held_back() {
    for (from, to, feature) in all() {
        let Some(told) = told(from, feature) else { continue };
        let mut via = Via::new(from, to);
        let mut before = via.heard.clone();
        for byte in told.stream.chunks(1) {
            via.push(byte).expect("sound");
            if via.heard == before {
                continue;
            }
            before = via.heard.clone();
            let read = so_far(to, &via.out);
            // A text has no place for thoughts and calls.
            if to != In::Completions {
                assert_eq!(read.words(), via.heard.words(), "{from:?} {to:?} {feature}");
            }
            // A refusal is a text in some dialects, and in Google's comes with the end.
            if via.heard.refusal.is_empty() {
                assert_eq!(read.text, via.heard.text, "{from:?} {to:?} {feature}");
            }
            // Google has no word for half a call.
            if !matches!(to, In::Gemini | In::Completions) {
                let calls = |heard: &Heard| heard.calls.clone();
                assert_eq!(calls(&read), calls(&via.heard), "{from:?} {to:?} {feature}");
            }
        }
    }
}

/// What a client has of a stream under way.
fn so_far(side: In, bytes: &[u8]) -> Heard {
    let (mut frames, mut reader, mut heard) =
        (side.from().frames(), side.from().reader(), Heard::default());
    let mut each = |name: &str, data: &str| reader.event(name, data, &mut |said| heard.said(&said));
    frames.push(bytes, &mut each).expect("sound");
    heard
}

/// bifrost#6342 (replayed thoughts were restructured), #5887 (thoughts were lost on turn two): what
/// a provider thought comes back to it as it was, whatever its caller speaks.
#[test]
fn thoughts_come_back_as_they_were() {
    let block = json!({"type": "thinking", "thinking": " a\n\"b\"\u{e9} ", "signature": "c2ln+/="});
    let body = json!({"type": "message", "id": "m", "model": "c", "stop_reason": "tool_use",
        "content": [block, {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": 1, "a": 2}}]});
    for side in [In::Responses, In::Messages, In::Gemini] {
        let (_, answer) = whole(From::Messages, side, body.to_string().as_bytes());
        let next = with(replay::request(side, &answer), &tools_of(side));
        let (sent, lost) = asked(side, To::Messages, &next).expect("sound");
        assert!(lost.is_empty(), "{side:?} {lost:?}");
        let turn = &sent["messages"][1]["content"];
        assert_eq!(turn[0].to_string(), block.to_string(), "{side:?}");
        assert_eq!(turn[1].to_string(), body["content"][1].to_string(), "{side:?}");
    }
    // Of the others too.
    for (to, seal) in
        [(To::Responses, "gAAAAx"), (To::Gemini, "c2lnbmVk"), (To::Converse, "c2lnbmVk")]
    {
        for side in [In::Responses, In::Messages, In::Gemini] {
            let case = replay::case(side, to, "thoughts, its own").expect("it thinks");
            let (sent, lost) = asked(side, to, &case.with).expect("sound");
            let text = sent.to_string();
            assert!(
                lost.is_empty() && text.contains(seal) && text.contains("Let me see."),
                "{text}"
            );
        }
    }
}

fn tools_of(side: In) -> Value {
    let at = In::CHATS.iter().position(|other| *other == side).expect("one of them");
    offered(&["f"], false)[at].clone()
}

/// Google refuses a call that comes back without its signature, for which no other dialect has a
/// word: it travels in the call's id.
#[test]
fn a_signed_call_comes_back_signed() {
    let part = json!({"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}},
        "thoughtSignature": "c2lnbmVk"});
    let body = json!({"responseId": "x", "candidates": [{"index": 0, "finishReason": "STOP",
        "content": {"role": "model", "parts": [part]}}]});
    for side in In::CHATS {
        let (_, answer) = whole(From::Gemini, side, body.to_string().as_bytes());
        let next = with(replay::request(side, &answer), &tools_of(side));
        let (sent, lost) = asked(side, To::Gemini, &next).expect("sound");
        assert!(lost.is_empty(), "{side:?} {lost:?}");
        assert_eq!(sent["contents"][1]["parts"][0], part, "{side:?}");
        assert_eq!(sent["contents"][2]["parts"][0]["functionResponse"]["id"], "c1", "{side:?}");
        // Another provider bounds ids, and has no use for it.
        let (sent, _) = asked(side, To::Converse, &next).expect("sound");
        assert!(!sent.to_string().contains("__sig_"), "{side:?} {sent}");
    }
}

/// bifrost#6132, #6457: the bound on new tokens was dropped.
#[test]
fn the_bound_on_new_tokens_arrives() {
    let feature = features().into_iter().find(|feature| feature.name == "most new tokens");
    let feature = feature.expect("there is one");
    for side in In::ALL {
        let case = feature.of(side).expect("all can say it");
        for to in To::ALL {
            let (sent, lost) = asked(side, to, &case.with).expect("sound");
            assert!(
                lost.is_empty() && sent.to_string().contains(":1500"),
                "{side:?} {to:?} {sent}"
            );
        }
    }
}

/// bifrost#2347: tools in a random order made every prompt a new one.
#[test]
fn tools_keep_their_order() {
    let names = ["zeta", "alpha", "mid", "beta", "omega", "b1", "a9"];
    for (side, fields) in In::CHATS.into_iter().zip(offered(&names, false)) {
        let body = with(plain(side), &fields);
        for to in To::ALL {
            let (sent, _) = asked(side, to, &body).expect("sound");
            let text = sent.to_string();
            let places = names.map(|name| text.find(&format!("\"name\":\"{name}\"")));
            assert!(places.is_sorted() && places[0].is_some(), "{side:?} {to:?} {text}");
            assert_eq!(sent, asked(side, to, &body).expect("sound").0);
        }
    }
}

/// bifrost#4556: two `message_start`.
#[test]
fn a_message_begins_once() {
    let told = told(From::Messages, "text").expect("it speaks");
    let text = String::from_utf8(told.stream).expect("UTF-8");
    let (start, rest) = text.split_once("\n\n").expect("events");
    let twice = format!("{start}\n\n{start}\n\n{rest}");
    for to in In::ALL {
        let (_, out) = streamed(From::Messages, to, twice.as_bytes());
        assert!(well_nested(to, &out));
        assert_eq!(client(to, &out).text, "Hello.");
    }
}

/// agentgateway#2760: calls were missing from telemetry where the formats differ: what is heard on
/// the way is what the caller gets.
#[test]
fn what_is_heard_on_the_way_is_what_arrives() {
    for from in From::ALL {
        let told = told(from, "two calls").expect("all call");
        for to in In::CHATS {
            let (heard, out) = streamed(from, to, &told.stream);
            assert_eq!(heard.calls, client(to, &out).calls, "{from:?} {to:?}");
            let (answer, body) = whole(from, to, &told.whole);
            let read = to.from().read(&body).expect("sound");
            assert_eq!(answer.choices[0].tool_calls, read.choices[0].tool_calls);
        }
    }
}

/// A provider that makes more choices than it was asked for: the others are not mixed with it.
#[test]
fn one_choice_was_asked_for() {
    let say = |index, text, finish| Piece {
        index,
        delta: Delta::Content(text),
        finish,
        ..Piece::default()
    };
    for to in In::ALL {
        let (mut writer, mut out) = (to.writer(1), Vec::new());
        writer.start(&mut out, &Piece::default());
        writer.piece(&mut out, &say(0, "a", None));
        writer.piece(&mut out, &say(1, "x", None));
        writer.piece(&mut out, &say(1, "y", Some(Finish::Length)));
        writer.piece(&mut out, &say(0, "b", Some(Finish::Stop)));
        writer.end(&mut out, &Usage::default(), &Remark::default());
        assert!(well_nested(to, &out), "{to:?}");
        let heard = client(to, &out);
        assert_eq!((&*heard.text, heard.finish), ("ab", Some(Finish::Stop)), "{to:?}");
    }
}

/// apfel#100, cline#8518, opencode#42918: usage was sent unasked, or in a form of its own.
#[test]
fn usage_is_there_when_asked_for() {
    let usage = Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() };
    for include_usage in [false, true] {
        let options = StreamOptions { include_usage, continuous_usage: false };
        let mut writer = ChatWriter::new(Kind::Chat, &In::Chat.head(), options, 1);
        let mut out = Vec::new();
        // What a provider has said of the prompt by then is for other dialects.
        writer.start(&mut out, &Piece { usage: Some(usage), ..Piece::default() });
        writer.piece(&mut out, &Piece { finish: Some(Finish::Stop), ..Piece::default() });
        writer.end(&mut out, &usage, &Remark::default());
        let text = String::from_utf8(out).expect("UTF-8");
        let chunks: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        let (last, others) = chunks.split_last().expect("chunks");
        assert!(others.iter().all(|chunk| {
            chunk.get("usage").is_some() == include_usage && !chunk["usage"].is_object()
        }));
        assert_eq!(last["usage"].is_object(), include_usage, "{text}");
        assert_eq!(last["choices"] == json!([]), include_usage);
        assert_eq!((&last["id"], &last["model"]), (&json!("chatcmpl-1"), &json!("m")));
    }
}

/// Calls that a provider of blocks mixes are passed on as they are, or the stream fails: no caller
/// runs half a call.
#[test]
fn blocks_that_mix_are_never_half_a_call() {
    let call = |index: u32| {
        json!({"type": "content_block_start", "index": index, "content_block":
            {"type": "tool_use", "id": format!("t{index}"), "name": "f", "input": {}}})
    };
    let more = |index: u32, text: &str| {
        json!({"type": "content_block_delta", "index": index,
            "delta": {"type": "input_json_delta", "partial_json": text}})
    };
    let stop = |index: u32| json!({"type": "content_block_stop", "index": index});
    let stream = messages(&[
        json!({"type": "message_start", "message": {"id": "m", "model": "c"}}),
        call(0),
        more(0, "{\"a\":"),
        call(1),
        more(1, "{\"b\":"),
        more(0, "1}"),
        more(1, "2}"),
        stop(0),
        stop(1),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}),
        json!({"type": "message_stop"}),
    ]);
    for to in In::CHATS {
        let mut via = Via::new(From::Messages, to);
        via.push(&stream).expect("sound");
        let (_, _, out) = via.end();
        let text = String::from_utf8(out.clone()).expect("UTF-8");
        if text.contains("calls_interleaved") || text.contains("response.failed") {
            let read = so_far(to, &out);
            assert!(!read.whole && read.failed.is_some(), "{to:?} {text}");
        } else {
            let calls = client_mixed(to, &out);
            assert_eq!(calls, ["{\"a\":1}", "{\"b\":2}"], "{to:?} {text}");
        }
    }
}

/// Arguments of all calls, by their numbers.
fn client_mixed(side: In, bytes: &[u8]) -> Vec<String> {
    so_far(side, bytes).calls.into_iter().map(|(_, _, arguments)| arguments).collect()
}

/// What plain completions can say, and nobody who chats.
const BEYOND: [&str; 6] = [
    "several prompts",
    "a prompt of tokens",
    "that, with log-probabilities",
    "no answer",
    "text behind the answer",
    "the best of more",
];

/// A field that a provider has no word for is named, or the request says the same without it.
#[test]
fn nothing_is_lost_without_a_name() {
    let features = features();
    for side in In::ALL {
        for feature in &features {
            let Some(case) = feature.of(side) else { continue };
            for to in To::ALL {
                let (without, before) = asked(side, to, &case.without).expect("sound");
                let (sent, lost) = match asked(side, to, &case.with) {
                    Ok(asked) => asked,
                    Err(why) => {
                        let refused = side == In::Completions && BEYOND.contains(&feature.name);
                        assert!(refused, "{to:?} {}: {why}", feature.name);
                        continue;
                    }
                };
                // Some of it is said without words, or needs nobody to be told.
                let same = [
                    "text",
                    "a list of one prompt",
                    "the prompt in front of the answer",
                    "tool choice: auto",
                    "stream",
                ];
                let unsaid = same.contains(&feature.name);
                let said = unsaid || sent != without || lost != before;
                assert!(said, "{side:?} {to:?} {}", feature.name);
                assert_eq!(before, Lost::default());
            }
        }
    }
}
