//! Requests that are accepted, and what they say.

use serde_json::{Value, json};
use wire::gemini::{self, Method};
use wire::{
    Content, Detail, Effort, Form, Image, Limits, Message, Part, Reasoning, Role, Seal, Thought,
    ToolCall, ToolChoice,
};

use super::parsed;

fn text(role: Role, text: &str) -> Message {
    Message::text(role, text)
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
}

fn result(id: &str, text: &str) -> Message {
    Message { tool_call_id: Some(id.into()), ..Message::text(Role::Tool, text) }
}

#[track_caller]
fn check_messages(contents: &Value, expect: &[Message]) {
    let request = parsed(&json!({"contents": contents}));
    assert_eq!(request.messages, expect);
}

#[test]
fn the_path_says_what_is_asked() {
    let check = |end: &str, expect| assert_eq!(gemini::route(end), expect, "{end}");
    check("gemini-3-flash:generateContent", Some(("gemini-3-flash", Method::Generate)));
    check("m:adapter:streamGenerateContent", Some(("m:adapter", Method::Stream)));
    check("org/m:countTokens", Some(("org/m", Method::Count)));
    check("m:embedContent", None);
    check(":generateContent", None);
    check("m", None);
}

#[test]
fn turns() {
    check_messages(&json!([{"parts": [{"text": "a"}]}]), &[text(Role::User, "a")]);
    // One object where a list is meant, as older documents have it.
    check_messages(&json!({"role": "user", "parts": {"text": "a"}}), &[text(Role::User, "a")]);
    let parts = vec![Part::Text("a".into()), Part::Text("b".into())];
    check_messages(
        &json!([{"parts": [{"text": "a"}, {"text": "b"}]}]),
        &[Message { content: Content::Parts(parts), ..text(Role::User, "") }],
    );
    let request = parsed(&json!({"contents": [{"parts": [{"text": "a"}]}],
        "system_instruction": {"role": "user", "parts": [{"text": "s"}]}}));
    assert_eq!(request.messages, [text(Role::System, "s"), text(Role::User, "a")]);
}

/// Google's client keeps each chunk of a stream as a content of its own, and sends it back so.
#[test]
fn a_streamed_turn_comes_back_in_pieces() {
    check_messages(
        &json!([
            {"role": "user", "parts": [{"text": "q"}]},
            {"role": "model", "parts": [{"text": "Let ", "thought": true}]},
            {"role": "model", "parts": [{"text": "me", "thought": true}]},
            {"role": "model", "parts": [{"text": "Hel"}]},
            {"role": "model", "parts": [{"text": "lo"}]},
            {"role": "model", "parts": [{"text": "", "thoughtSignature": "AQID"}]},
            {"role": "model", "parts": []},
            {"role": "user", "parts": [{"text": "r"}]},
        ]),
        &[
            text(Role::User, "q"),
            Message {
                thoughts: vec![
                    Thought::of("Let me"),
                    Thought {
                        text: String::new(),
                        seal: Some(Seal::Signature("google.AQID".into())),
                    },
                ],
                ..text(Role::Assistant, "Hello")
            },
            text(Role::User, "r"),
        ],
    );
}

/// A long answer is as many contents as it had tokens, and one message.
#[test]
fn many_pieces_are_one_message() {
    let mut contents = vec![json!({"parts": [{"text": "q"}]})];
    contents.extend(vec![json!({"role": "model", "parts": [{"text": "a"}]}); 20_000]);
    let request = parsed(&json!({"contents": contents}));
    assert_eq!(request.messages[1], text(Role::Assistant, &"a".repeat(20_000)));
    let many = vec![json!({"parts": [{"text": "q"}]}); Limits::default().messages_max + 1];
    let error = super::parse(&json!({"contents": many})).expect_err("too many messages");
    assert_eq!(error.param.as_deref(), Some("contents"));
}

#[test]
fn calls_without_ids_are_numbered_and_matched_by_name_in_order() {
    let silent = Message { content: Content::Absent, ..text(Role::Assistant, "") };
    check_messages(
        &json!([
            {"parts": [{"text": "q"}]},
            {"role": "model", "parts": [
                {"functionCall": {"name": "f", "args": {"b": 1, "a": [2.50]}}},
                {"functionCall": {"name": "g"}},
                {"functionCall": {"name": "f", "args": {}}}]},
            {"role": "function", "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "one"}}},
                {"functionResponse": {"name": "f", "response": {"output": {"x": 2}}}},
                {"functionResponse": {"name": "g", "response": {"error": "no"}}}]},
            {"role": "model", "parts": [{"functionCall": {"id": "call_3", "name": "f"}}]},
            // A text in front of the result: the result goes first.
            {"parts": [{"text": "and"},
                {"functionResponse": {"id": "call_3", "name": "f", "response": {"result": 1}}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "g"}}]},
            {"parts": [{"functionResponse": {"id": "theirs", "name": "g"}}]},
        ]),
        &[
            text(Role::User, "q"),
            Message {
                tool_calls: vec![
                    call("call_0", "f", r#"{"b":1,"a":[2.5]}"#),
                    call("call_1", "g", "{}"),
                    call("call_2", "f", "{}"),
                ],
                ..silent.clone()
            },
            result("call_0", "one"),
            result("call_2", r#"{"x":2}"#),
            result("call_1", r#"{"error":"no"}"#),
            Message { tool_calls: vec![call("call_3", "f", "{}")], ..silent.clone() },
            result("call_3", r#"{"result":1}"#),
            text(Role::User, "and"),
            // `call_3` is taken.
            Message { tool_calls: vec![call("call_4", "g", "{}")], ..silent },
            result("call_4", ""),
        ],
    );
}

/// A call's signature goes with its id, so that clients of other dialects bring it back.
#[test]
fn a_calls_signature_is_in_its_id() {
    let request = parsed(&json!({"contents": [
        {"role": "model", "parts": [
            {"functionCall": {"id": "x", "name": "f"}, "thought_signature": "-_8="},
            {"functionCall": {"id": "y", "name": "f"},
                "thoughtSignature": "skip_thought_signature_validator"}]},
        {"parts": [{"functionResponse": {"id": "y", "name": "f"}},
            {"functionResponse": {"id": "x", "name": "f"}}]}]}));
    let calls: Vec<&str> = request.messages[0].tool_calls.iter().map(|call| &*call.id).collect();
    assert_eq!(calls, ["x__sig_-_8", "y"]);
    assert_eq!(request.messages[1].tool_call_id.as_deref(), Some("y"));
    assert_eq!(request.messages[2].tool_call_id.as_deref(), Some("x__sig_-_8"));
}

#[test]
fn images() {
    let image = |url: &str, detail| Part::Image(Image { url: url.into(), detail });
    let request = parsed(&json!({
        "contents": [{"parts": [
            {"inline_data": {"mime_type": "image/png", "data": "-_8="}},
            {"fileData": {"fileUri": "https://a/b.jpg", "mimeType": "image/jpeg"},
                "mediaResolution": {"level": "MEDIA_RESOLUTION_HIGH"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
            {"parts": [{"functionResponse": {"name": "f", "response": {"output": "t"},
                "parts": [{"inlineData": {"mimeType": "image/webp", "data": "AA"}}]}}]}],
        "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}}));
    let parts = vec![
        image("data:image/png;base64,+/8=", Detail::Low),
        image("https://a/b.jpg", Detail::High),
    ];
    assert_eq!(request.messages[0].content, Content::Parts(parts));
    let parts = vec![Part::Text("t".into()), image("data:image/webp;base64,AA", Detail::Low)];
    assert_eq!(request.messages[2].content, Content::Parts(parts));
}

#[test]
fn tools_become_openais() {
    let schema = json!({"type": "object", "properties": {"B": {}, "a": {}}});
    let request = parsed(&json!({"contents": {"parts": {"text": "q"}},
    "tools": [
        {"functionDeclarations": [{"name": "f", "description": "d",
            "parameters": {"type": "OBJECT", "properties": {"x": {"type": "STRING"}}}}]},
        {"function_declarations": [{"name": "g", "parameters_json_schema": schema}]},
    ]}));
    let values: Vec<String> = request.tools.iter().map(|tool| tool.value.to_string()).collect();
    let parameters = json!({"type": "object", "properties": {"x": {"type": "string"}}});
    let expect = [
        json!({"type": "function",
            "function": {"name": "f", "description": "d", "parameters": parameters}}),
        json!({"type": "function", "function": {"name": "g", "parameters": schema}}),
    ];
    assert_eq!(values, expect.map(|value| value.to_string()));
    assert_eq!(request.tool_choice, ToolChoice::Auto);
}

#[test]
fn modes_of_calling() {
    let check = |calling: Value, expect: ToolChoice, strict: bool| {
        let declarations = json!([{"name": "f"}, {"name": "g"}]);
        let request = parsed(&json!({"contents": [{"parts": [{"text": "q"}]}],
            "tools": [{"functionDeclarations": declarations}],
            "toolConfig": {"functionCallingConfig": calling}}));
        assert_eq!(request.tool_choice, expect);
        assert!(request.tools.iter().all(|tool| tool.strict == strict));
    };
    let names = || vec!["f".to_owned(), "g".to_owned()];
    check(json!({}), ToolChoice::Auto, false);
    check(json!({"mode": "AUTO"}), ToolChoice::Auto, false);
    check(json!({"mode": "NONE"}), ToolChoice::None, false);
    check(json!({"mode": "ANY"}), ToolChoice::Required, false);
    let named = ToolChoice::Named("g".into());
    check(json!({"mode": "ANY", "allowed_function_names": ["g"]}), named, false);
    let all = ToolChoice::Allowed { names: names(), required: true };
    check(json!({"mode": "ANY", "allowedFunctionNames": ["f", "g"]}), all, false);
    check(json!({"mode": "VALIDATED"}), ToolChoice::Auto, true);
    let some = ToolChoice::Allowed { names: names(), required: false };
    check(json!({"mode": "VALIDATED", "allowedFunctionNames": ["f", "g"]}), some, true);
}

#[test]
fn generation_config() {
    let request = parsed(&json!({"contents": [{"parts": [{"text": "q"}]}],
        "generation_config": {"temperature": 1.5, "top_p": 0.5, "topK": 40.0,
            "maxOutputTokens": 7, "candidateCount": 2, "stopSequences": ["x"], "seed": -3,
            "presencePenalty": 1, "frequencyPenalty": -1.5, "responseLogprobs": true,
            "logprobs": 4, "responseModalities": ["TEXT"],
            "thinkingConfig": {"includeThoughts": true, "thinkingBudget": 0}},
        "safetySettings": [{"category": "c", "threshold": "BLOCK_NONE"}],
        "labels": {"team_name": "a"}}));
    let decoding = &request.decoding;
    assert_eq!((decoding.temperature, decoding.top_p), (Some(1.5), Some(0.5)));
    assert_eq!((decoding.top_k, decoding.max_tokens), (Some(40), Some(7)));
    assert_eq!((decoding.choices, decoding.seed), (2, Some(-3)));
    assert_eq!(decoding.stop, ["x"]);
    assert_eq!((decoding.presence_penalty, decoding.frequency_penalty), (Some(1.0), Some(-1.5)));
    assert_eq!(decoding.logprobs, Some(4));
    assert_eq!(request.reasoning, Reasoning { budget: Some(0), ..Reasoning::default() });
    // The caller's own names stay as they are.
    assert_eq!(json!(request.metadata), json!({"team_name": "a"}));
}

#[test]
fn thinking() {
    let check = |config: Value, expect: Reasoning| {
        let request = parsed(&json!({"contents": [{"parts": [{"text": "q"}]}],
            "generationConfig": {"thinkingConfig": config}}));
        assert_eq!(request.reasoning, expect);
    };
    let none = Reasoning { include: false, ..Reasoning::default() };
    check(json!(null), none);
    check(json!({"thinkingBudget": -1}), none);
    check(json!({"thinkingBudget": 512}), Reasoning { budget: Some(512), ..none });
    check(json!({"thinkingLevel": "high"}), Reasoning { effort: Some(Effort::High), ..none });
    check(json!({"thinkingLevel": "MINIMAL"}), Reasoning { effort: Some(Effort::Minimal), ..none });
}

#[test]
fn shapes() {
    let check = |config: Value, expect: Option<(Form, &str)>| {
        let request = parsed(&json!({"contents": [{"parts": [{"text": "q"}]}],
            "generationConfig": config}));
        let got = request.decoding.structured.map(|shape| (shape.form, shape.field));
        let field = |field| format!("generationConfig.{field}");
        assert_eq!(got, expect.map(|(form, name)| (form, field(name))));
    };
    check(json!({"responseMimeType": "text/plain"}), None);
    check(
        json!({"responseMimeType": "application/json"}),
        Some((Form::JsonObject, "responseMimeType")),
    );
    let integer = || Form::JsonSchema(json!({"type": "integer"}));
    check(
        json!({"responseMimeType": "application/json", "responseSchema": {"type": "INTEGER"}}),
        Some((integer(), "responseSchema")),
    );
    check(
        json!({"response_mime_type": "application/json",
            "response_json_schema": {"type": "integer"}}),
        Some((integer(), "responseJsonSchema")),
    );
    check(
        json!({"responseMimeType": "text/x.enum",
            "responseSchema": {"type": "STRING", "enum": ["a", "b"]}}),
        Some((Form::Choice(vec!["a".into(), "b".into()]), "responseSchema")),
    );
}

#[test]
fn counting() {
    let limits = Limits::default();
    let contents = json!([{"parts": [{"text": "q"}]}]);
    let plain = json!({"contents": contents}).to_string();
    let whole = json!({"generateContentRequest": {"model": "models/m", "contents": contents}});
    for body in [plain, whole.to_string()] {
        let request = gemini::parse_count("m", body.as_bytes(), &limits, false).expect("accepted");
        assert_eq!(request.messages, [text(Role::User, "q")]);
    }
    let answer = String::from_utf8(gemini::count_answer(7)).expect("UTF-8");
    let expect = r#"{"totalTokens":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}]}"#;
    assert_eq!(answer, expect);
}

/// What another provider may know is kept by its path.
#[test]
fn a_request_that_is_passed_on_keeps_what_is_not_known_here() {
    let body = json!({"contents": [{"parts": [{"text": "q"}]}],
        "cachedContent": "c", "safety_settings": [], "toolConfig": {"retrievalConfig": {}},
        "tools": [{"googleSearch": {}}], "newField": 1,
        "generationConfig": {"speechConfig": {}, "temperature": 1,
            "thinkingConfig": {"new_one": 2}}});
    let body = body.to_string();
    let limits = Limits::default();
    assert!(gemini::parse("m", true, body.as_bytes(), &limits).is_err());
    let request = gemini::parse_forward("m", true, body.as_bytes(), &limits).expect("kept");
    let mut names: Vec<&str> = request.extra.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "cachedContent",
            "generationConfig.speechConfig",
            "generationConfig.thinkingConfig.newOne",
            "newField",
            "safetySettings",
            "toolConfig.retrievalConfig",
            "tools[0].googleSearch",
        ]
    );
    assert_eq!(request.decoding.temperature, Some(1.0));
    assert!(request.decoding.stream.is_some());
}
