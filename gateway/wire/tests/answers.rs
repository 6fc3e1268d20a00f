//! The bytes that clients read: whole chats with calls and thoughts, and their streams.

use wire::openai::answer;
use wire::openai::stream::{Kind, Writer};
use wire::{
    Call, Choice, Delta, Finish, Head, Piece, Remark, StreamOptions, Thought, Usage, Writer as _,
};

fn head() -> Head {
    Head { id: "i".into(), created: 7, model: "m".into(), service_tier: None }
}

fn call(id: &str, name: &str, arguments: &str) -> Call {
    Call { id: id.into(), name: name.into(), arguments: arguments.into() }
}

/// The message of a chat's only choice.
#[track_caller]
fn check_message(text: &str, reasoning: Option<&str>, tool_calls: Vec<Call>, expect: &str) {
    let thoughts = reasoning.map(Thought::of).into_iter().collect();
    let choice = Choice { thoughts, tool_calls, ..Choice::text(0, text, Finish::ToolCalls) };
    let usage = Usage {
        prompt_tokens: 9,
        cached_tokens: 4,
        completion_tokens: 5,
        reasoning_tokens: 2,
        ..Usage::default()
    };
    let got = String::from_utf8(answer::chat(&head(), &[choice], &usage)).expect("UTF-8");
    let expect = format!(
        "{{\"id\":\"i\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\",\"choices\":\
         [{{\"index\":0,\"message\":{expect},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}}],\
         \"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":5,\"total_tokens\":14,\
         \"prompt_tokens_details\":{{\"cached_tokens\":4}},\
         \"completion_tokens_details\":{{\"reasoning_tokens\":2}}}}}}"
    );
    assert_eq!(got, expect);
}

#[test]
fn a_message_says_what_there_is() {
    check_message("", None, vec![], r#"{"role":"assistant","content":"","refusal":null}"#);
    check_message(
        "",
        Some("h\"m"),
        vec![call("c1", "f", r#"{"a":1}"#), call("c2", "g", "")],
        r#"{"role":"assistant","content":null,"reasoning_content":"h\"m","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":""}}],"refusal":null}"#,
    );
    check_message(
        "x",
        None,
        vec![call("c", "f", "{}")],
        r#"{"role":"assistant","content":"x","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}],"refusal":null}"#,
    );
}

/// Each event's choice, as a client reads it.
fn choices(kind: Kind, pieces: &[Piece<'_>]) -> Vec<String> {
    let mut writer = Writer::new(kind, &head(), StreamOptions::default(), 1);
    let mut out = Vec::new();
    writer.start(&mut out, &Piece::default());
    pieces.iter().for_each(|piece| writer.piece(&mut out, piece));
    writer.end(&mut out, &Usage::default(), &Remark::default());
    let text = String::from_utf8(out).expect("UTF-8");
    let events = text.strip_suffix("data: [DONE]\n\n").expect("an end").split_terminator("\n\n");
    let choice = |event: &str| {
        let (_, choice) = event.split_once("\"choices\":[").expect("choices");
        choice.strip_suffix("]}").expect("one choice").to_owned()
    };
    events.map(choice).collect()
}

#[test]
fn a_stream_of_thoughts_text_and_calls() {
    let deltas = [
        Delta::Reasoning("hm"),
        Delta::Content("a"),
        Delta::CallStart { index: 0, id: "c1", name: "f" },
        Delta::Arguments { index: 0, text: "{\"" },
        Delta::Arguments { index: 0, text: "}" },
        Delta::CallStart { index: 1, id: "c2", name: "g" },
    ];
    let mut pieces = deltas.map(|delta| Piece { delta, ..Piece::default() }).to_vec();
    pieces.push(Piece { finish: Some(Finish::ToolCalls), ..Piece::default() });
    let expect = [
        r#"{"role":"assistant","content":""}"#,
        r#"{"reasoning_content":"hm"}"#,
        r#"{"content":"a"}"#,
        r#"{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\""}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"g","arguments":""}}]}"#,
        "{}",
    ];
    let got = choices(Kind::Chat, &pieces);
    assert_eq!(got.len(), expect.len());
    for (at, (got, delta)) in got.iter().zip(expect).enumerate() {
        let finish = if at == pieces.len() { "\"tool_calls\"" } else { "null" };
        let expect = format!(
            "{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}"
        );
        assert_eq!(got, &expect);
    }
}

#[test]
fn plain_completions_stream_text_alone() {
    let pieces = [
        Piece { delta: Delta::Content("a"), ..Piece::default() },
        Piece { finish: Some(Finish::Stop), ..Piece::default() },
    ];
    let expect = [
        r#"{"index":0,"text":"a","logprobs":null,"finish_reason":null}"#,
        r#"{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}"#,
    ];
    assert_eq!(choices(Kind::Completion, &pieces), expect);
}
