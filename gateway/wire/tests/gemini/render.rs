//! What Google's models are asked, and what of a request is lost on the way.

use serde_json::{Value, json};
use wire::{
    Effort, Limits, Lost, Message, Reasoning, Role, Seal, Thought, ToolCall, gemini, openai,
};

/// A request of OpenAI's chat, as Google gets it, with what is lost.
fn render(model: &str, mut body: Value) -> (Value, Vec<String>) {
    body["model"] = model.into();
    if body.get("messages").is_none() {
        body["messages"] = json!([{"role": "user", "content": "q"}]);
    }
    let body = body.to_string();
    let request = openai::parse_chat_forward(body.as_bytes(), &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.message));
    let mut lost = Lost::default();
    let value = gemini::render(&request, &mut lost);
    (value, lost.names().map(str::to_owned).collect())
}

const NEW: &str = "gemini-3-flash-preview";

#[test]
fn only_what_was_said() {
    let (value, lost) = render("gemini-2.0-flash", json!({}));
    assert_eq!(value, json!({"contents": [{"role": "user", "parts": [{"text": "q"}]}]}));
    assert_eq!(lost, Vec::<String>::new());
}

#[test]
fn a_chat_with_tools() {
    let (value, lost) = render(
        NEW,
        json!({"messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "q"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "image_url", "image_url": {"url": "https://a/b.JPG?x"}}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "2__sig_AQID", "type": "function", "function": {"name": "g", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "2__sig_AQID", "content": "two"},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "user", "content": "go on"},
            {"role": "system", "content": "s"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d",
            "parameters": {"type": "object"}}}, {"type": "function", "function": {"name": "g"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    );
    let expect = json!({
        "systemInstruction": {"parts": [{"text": "d"}, {"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "q"},
                {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a/b.JPG?x"}}]},
            {"role": "model", "parts": [
                {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}},
                    "thoughtSignature": "skip_thought_signature_validator"},
                {"functionCall": {"id": "2", "name": "g", "args": {}},
                    "thoughtSignature": "AQID"}]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "2", "name": "g", "response": {"output": "two"}}},
                {"functionResponse": {"id": "1", "name": "f", "response": {"output": "one"}}}]},
            {"role": "user", "parts": [{"text": "go on"}]}],
        "tools": [{"functionDeclarations": [
            {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}},
            {"name": "g"}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {"thinkingConfig": {"includeThoughts": true}},
    });
    assert_eq!(value, expect);
    assert_eq!(lost, Vec::<String>::new());
}

/// Older models take calls without signatures.
#[test]
fn a_word_in_place_of_a_signature_only_where_one_is_wanted() {
    let messages = json!([{"role": "user", "content": "q"},
        {"role": "assistant", "content": "t", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"}]);
    let signature = |model: &str| {
        let (value, _) = render(model, json!({"messages": messages}));
        value["contents"][1]["parts"][1]["thoughtSignature"].clone()
    };
    assert_eq!(signature("gemini-2.5-pro"), Value::Null);
    assert_eq!(signature("gemma-3-27b"), Value::Null);
    for model in [NEW, "models/gemini-4-pro", "gemini-flash-latest"] {
        assert_eq!(signature(model), json!("skip_thought_signature_validator"), "{model}");
    }
}

/// A signature of somebody else's would be refused; Google's own goes back where it came from.
#[test]
fn seals() {
    let seal = |seal: Option<Seal>, text: &str| Thought { text: text.into(), seal };
    let request = |thoughts: Vec<Thought>| {
        let message = Message { thoughts, ..Message::text(Role::Assistant, "t") };
        let body = json!({"contents": [{"parts": [{"text": "q"}]}]}).to_string();
        let limits = Limits::default();
        let mut request = gemini::parse(NEW, false, body.as_bytes(), &limits).expect("a request");
        request.messages.push(message);
        request
    };
    let check = |thoughts: Vec<Thought>, parts: Value, expect: &[&str]| {
        let mut lost = Lost::default();
        let value = gemini::render(&request(thoughts), &mut lost);
        assert_eq!(value["contents"][1]["parts"], parts);
        assert_eq!(lost.names().collect::<Vec<_>>(), expect);
    };
    let google = || Some(Seal::Signature("google.AQID".into()));
    let other = || Some(Seal::Signature("EqoB".into()));
    let text = json!({"text": "t"});
    check(
        vec![seal(google(), "h"), seal(google(), "")],
        json!([{"text": "h", "thought": true, "thoughtSignature": "AQID"}, text,
            {"text": "", "thoughtSignature": "AQID"}]),
        &[],
    );
    check(
        vec![seal(other(), "h"), seal(None, "i")],
        json!([{"text": "h", "thought": true}, {"text": "i", "thought": true}, text]),
        &[],
    );
    let redacted = seal(Some(Seal::Redacted("x".into())), "");
    check(vec![redacted], json!([text]), &["messages[1].reasoning_content"]);
}

#[test]
fn decoding_and_shape() {
    let (value, lost) = render(
        "gemini-2.0-flash",
        json!({"max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "n": 2,
            "seed": 5, "stop": ["a"], "presence_penalty": 1.0, "frequency_penalty": 0.5,
            "logprobs": true, "top_logprobs": 2, "stream": true, "metadata": {"team": "a-1"},
            "response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "array"}}}}),
    );
    let expect = json!({"candidateCount": 2, "maxOutputTokens": 9, "temperature": 0.5,
        "topP": 0.25, "topK": 3, "presencePenalty": 1.0, "frequencyPenalty": 0.5, "seed": 5,
        "stopSequences": ["a"], "responseLogprobs": true, "logprobs": 2,
        "responseMimeType": "application/json", "responseJsonSchema": {"type": "array"}});
    assert_eq!(value["generationConfig"], expect);
    assert_eq!(value["labels"], json!({"team": "a-1"}));
    assert_eq!(lost, Vec::<String>::new());
    let (value, _) = render(NEW, json!({"structured_outputs": {"choice": ["a"]}}));
    let config = &value["generationConfig"];
    assert_eq!(config["responseMimeType"], "text/x.enum");
    assert_eq!(config["responseSchema"], json!({"type": "STRING", "enum": ["a"]}));
}

#[test]
fn what_is_lost_is_named() {
    let check = |body: Value, expect: &[&str]| {
        let (_, lost) = render(NEW, body);
        assert_eq!(lost, expect);
    };
    check(json!({"min_p": 0.5, "logit_bias": {"1": 2.0}}), &["logit_bias", "min_p"]);
    check(json!({"min_p": 0.0, "repetition_penalty": 1.0}), &[]);
    check(json!({"seed": 1_u64 << 40, "top_k": 0}), &["seed", "top_k"]);
    check(json!({"metadata": {"a": "Not a label"}, "user": "u"}), &["metadata", "user"]);
    check(json!({"store": true, "web_search_options": {}}), &["store", "web_search_options"]);
    check(json!({"structured_outputs": {"regex": "a"}}), &["structured_outputs.regex"]);
    check(
        json!({"tools": [{"type": "function", "function": {"name": "f"}}],
            "parallel_tool_calls": false}),
        &["parallel_tool_calls"],
    );
    check(
        json!({"messages": [{"role": "user", "name": "n", "content": "q"},
            {"role": "assistant", "content": "a", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "[1]"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"}]}),
        &["messages[0].name", "messages[1].tool_calls[0].function.arguments"],
    );
    let image = |url: &str, detail: &str| json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
    check(
        json!({"messages": [{"role": "user", "content":
            [image("https://a/b", "low"), image("data:image/png,x", "high")]}]}),
        &["messages[0].content[1].image_url", "messages[].content[].image_url.detail"],
    );
}

#[test]
fn thinking_is_a_level_or_a_budget() {
    let check = |model: &str, effort, budget, expect: Value, names: &[&str]| {
        let body = json!({"contents": [{"parts": [{"text": "q"}]}]}).to_string();
        let limits = Limits::default();
        let mut request = gemini::parse(model, false, body.as_bytes(), &limits).expect("accepted");
        request.reasoning = Reasoning { effort, budget, include: false, ..Reasoning::default() };
        let mut lost = Lost::default();
        let value = gemini::render(&request, &mut lost);
        assert_eq!(value["generationConfig"]["thinkingConfig"], expect, "{model}");
        assert_eq!(lost.names().collect::<Vec<_>>(), names, "{model}");
    };
    let high = Some(Effort::High);
    check(NEW, high, None, json!({"thinkingLevel": "HIGH"}), &[]);
    check(NEW, None, Some(5), json!({"thinkingBudget": 5}), &[]);
    check(NEW, high, Some(5), json!({"thinkingLevel": "HIGH"}), &["thinking_token_budget"]);
    check(NEW, Some(Effort::Max), None, json!({"thinkingLevel": "XHIGH"}), &[]);
    check(
        NEW,
        Some(Effort::None),
        None,
        json!({"thinkingLevel": "MINIMAL"}),
        &["reasoning_effort"],
    );
    check("gemini-3-pro", Some(Effort::Minimal), None, json!({"thinkingLevel": "LOW"}), &[]);
    check("gemini-2.5-flash", high, None, json!({"thinkingBudget": 24_576}), &[]);
    check("gemini-2.5-flash", Some(Effort::None), None, json!({"thinkingBudget": 0}), &[]);
    check("gemini-2.0-flash", high, None, Value::Null, &["reasoning_effort"]);
    check("gemini-2.0-flash", Some(Effort::None), None, Value::Null, &[]);
}

/// A call that Google made, through a client of OpenAI's chat that knows only its id, and back.
#[test]
fn a_signature_survives_a_client_that_knows_ids_alone() {
    let answer = json!({"responseId": "r", "modelVersion": NEW, "candidates": [{"content":
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}},
            "thoughtSignature": "AQIDBP+/"}]}, "finishReason": "STOP"}]});
    let answer = gemini::read_answer(answer.to_string().as_bytes()).expect("an answer");
    let call = &answer.choices[0].tool_calls[0];
    let call = ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    };
    let (value, _) = render(
        NEW,
        json!({"messages": [{"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": call.id,
                "type": "function", "function": {"name": "f", "arguments": call.arguments}}]},
            {"role": "tool", "tool_call_id": call.id, "content": "x"}]}),
    );
    let expect = json!({"functionCall": {"id": "call_r_0", "name": "f", "args": {"a": 1}},
        "thoughtSignature": "AQIDBP+/"});
    assert_eq!(value["contents"][1]["parts"][0], expect);
    assert_eq!(value["contents"][2]["parts"][0]["functionResponse"]["id"], "call_r_0");
}
