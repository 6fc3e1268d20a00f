//! What parsers accept, and the exact path and code of what they refuse.

mod order;
mod reasoning;
mod structured;
mod tools;

use serde_json::{Value, json};
use wire::{
    ApiError, ChatRequest, Content, Limits, Part, Prompt, Role, Thought, ToolChoice, openai,
};

fn chat(extra: &Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    openai::parse_chat(body.to_string().as_bytes(), &Limits::default())
}

fn completion(extra: &Value) -> Result<wire::CompletionRequest, ApiError> {
    let mut body = json!({"model": "m", "prompt": "hi"});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    openai::parse_completion(body.to_string().as_bytes(), &Limits::default())
}

#[track_caller]
fn check<T: std::fmt::Debug>(got: Result<T, ApiError>, param: &str, code: &str) {
    let error = got.expect_err(param);
    assert_eq!(error.param.as_deref(), Some(param), "{error}");
    assert_eq!(error.code.as_deref(), Some(code), "{error}");
    assert!(error.message.contains(&format!("'{param}'")), "{error}");
}

#[test]
fn messages_are_refused_by_path() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let table = [
        (json!({"messages": null}), "messages", "missing_required_parameter"),
        (json!({"model": null}), "model", "missing_required_parameter"),
        (json!({"model": 5}), "model", "invalid_type"),
        (json!({"messages": []}), "messages", "empty_array"),
        (json!({"messages": {}}), "messages", "invalid_type"),
        (json!({"messages": [1]}), "messages[0]", "invalid_type"),
        (
            json!({"messages": [{"role": "king", "content": ""}]}),
            "messages[0].role",
            "invalid_value",
        ),
        (json!({"messages": [{"content": ""}]}), "messages[0].role", "missing_required_parameter"),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
            "missing_required_parameter",
        ),
        (user(json!(3)), "messages[0].content", "invalid_type"),
        (user(json!([])), "messages[0].content", "empty_array"),
        (user(json!([{}])), "messages[0].content[0].type", "missing_required_parameter"),
        (
            user(json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}])),
            "messages[0].content[1].image_url.url",
            "missing_required_parameter",
        ),
        (user(json!([{"type": "text", "text": 1}])), "messages[0].content[0].text", "invalid_type"),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages[0].tool_call_id",
            "missing_required_parameter",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function":
                {"name": "f", "arguments": {}}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
            "invalid_type",
        ),
    ];
    for (extra, param, code) in table {
        check(chat(&extra), param, code);
    }
}

#[test]
fn options_are_refused_by_name() {
    let many = |n: usize| vec!["x"; n];
    let table = [
        (json!({"max_tokens": 0}), "max_tokens", "integer_below_min_value"),
        (json!({"max_tokens": 5.0}), "max_tokens", "invalid_type"),
        (json!({"max_tokens": "5"}), "max_tokens", "invalid_type"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_tokens", "invalid_value"),
        (json!({"min_tokens": 9, "max_tokens": 2}), "min_tokens", "invalid_value"),
        (json!({"temperature": 2.1}), "temperature", "decimal_above_max_value"),
        (json!({"temperature": -0.1}), "temperature", "decimal_below_min_value"),
        (json!({"top_p": true}), "top_p", "invalid_type"),
        (json!({"n": 0}), "n", "integer_below_min_value"),
        (json!({"n": 129}), "n", "integer_above_max_value"),
        (json!({"best_of": 2}), "best_of", "unsupported_parameter"),
        (json!({"seed": u64::MAX}), "seed", "integer_above_max_value"),
        (json!({"stop": ["a", ""]}), "stop[1]", "invalid_value"),
        (json!({"stop": many(17)}), "stop", "array_above_max_length"),
        (json!({"stop": 1}), "stop", "invalid_type"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias", "invalid_value"),
        (json!({"logit_bias": {"7": 101}}), "logit_bias.7", "decimal_above_max_value"),
        (json!({"logit_bias": {"7": 1, "07": 2}}), "logit_bias", "invalid_value"),
        (json!({"top_logprobs": 3}), "top_logprobs", "invalid_value"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", "integer_above_max_value"),
        (json!({"stream_options": {}}), "stream_options", "invalid_value"),
        (
            json!({"stream": true, "stream_options": {"include_usag": true}}),
            "stream_options.include_usag",
            "unknown_parameter",
        ),
        (json!({"stream": true, "prompt_logprobs": 1}), "prompt_logprobs", "unsupported_parameter"),
    ];
    for (extra, param, code) in table {
        check(chat(&extra), param, code);
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let table = [
        (json!({"modalities": ["text", "audio"]}), "modalities", "unsupported_parameter"),
        (json!({"store": true}), "store", "unsupported_parameter"),
        (json!({"chat_template": "x"}), "chat_template", "unsupported_parameter"),
        (json!({"echo": true}), "echo", "unsupported_parameter"),
        (json!({"user": 7}), "user", "invalid_type"),
        (json!({"temprature": 1}), "temprature", "unknown_parameter"),
        (json!({"prompt": "x"}), "prompt", "unknown_parameter"),
        (
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
            "invalid_value",
        ),
        (json!({"documents": ["x"]}), "documents[0]", "invalid_type"),
        (json!({"cache_salt": ""}), "cache_salt", "invalid_value"),
        (json!({"priority": 1000}), "priority", "integer_above_max_value"),
    ];
    for (extra, param, code) in table {
        check(chat(&extra), param, code);
    }
}

#[test]
fn completion_refuses_by_name() {
    let table = [
        (json!({"prompt": null}), "prompt", "missing_required_parameter"),
        (json!({"prompt": []}), "prompt", "empty_array"),
        (json!({"prompt": [[]]}), "prompt[0]", "empty_array"),
        (json!({"prompt": [1, "a"]}), "prompt[1]", "invalid_type"),
        (json!({"prompt": ["a", 1]}), "prompt[1]", "invalid_type"),
        (json!({"prompt": [[1], [2, -3]]}), "prompt[1][1]", "integer_below_min_value"),
        (json!({"prompt": [[1], [2.0]]}), "prompt[1][0]", "invalid_type"),
        (json!({"prompt": vec!["x"; 300]}), "prompt", "array_above_max_length"),
        (json!({"prompt": vec!["x"; 100], "n": 2}), "n", "integer_above_max_value"),
        (json!({"suffix": "x"}), "suffix", "unsupported_parameter"),
        (json!({"best_of": 3, "n": 2}), "best_of", "unsupported_parameter"),
        (json!({"logprobs": true}), "logprobs", "invalid_type"),
        (json!({"max_tokens": 0}), "max_tokens", "integer_below_min_value"),
        (json!({"messages": []}), "messages", "unknown_parameter"),
    ];
    for (extra, param, code) in table {
        check(completion(&extra), param, code);
    }
}

#[test]
fn neutral_and_advisory_fields_pass() {
    let extra = json!({
        "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
        "prompt_cache_key": "k", "safety_identifier": "s", "parallel_tool_calls": true,
        "verbosity": "medium", "modalities": ["text"], "response_format": {"type": "text"},
        "audio": null, "functions": null, "reasoning_effort": null, "best_of": 1,
        "temperature": null, "stop": null, "logit_bias": null, "top_logprobs": null,
        "suffix_is_unknown_but": null
    });
    check(chat(&extra), "suffix_is_unknown_but", "unknown_parameter");
    for tier in ["priority", "scale", "Flex", ""] {
        check(chat(&json!({"service_tier": tier})), "service_tier", "unsupported_parameter");
    }
    let both = json!({"service_tier": "flex", "priority": 3});
    check(chat(&both), "priority", "unsupported_parameter");
    let flex = json!({"service_tier": "flex", "priority": 0});
    assert!(chat(&flex).expect("accepted").decoding.flex);
    assert!(completion(&flex).expect("accepted").decoding.flex);
    let mut extra = extra;
    extra.as_object_mut().expect("an object").shift_remove("suffix_is_unknown_but");
    let request = chat(&extra).expect("accepted");
    assert_eq!(request.decoding, wire::Decoding::default());
    assert!(completion(&json!({"suffix": "", "best_of": 2, "n": 2})).is_ok());
    let scored = completion(&json!({"echo": true, "max_tokens": 0})).expect("scores only");
    assert_eq!(scored.decoding.max_tokens, Some(0));
}

/// In words to the model, where it is answered here; as it is, where it is passed on.
#[test]
fn a_short_answer_is_asked_for() {
    let body = json!({"model": "m", "verbosity": "low", "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]});
    let request = chat(&body).expect("accepted");
    let said = "Be kind.\n\nKeep your answers short: say what is needed, and no more.";
    assert_eq!(request.messages[0].content, Content::Text(said.into()));
    assert_eq!(request.messages.len(), 2);
    check(chat(&json!({"verbosity": "lower"})), "verbosity", "invalid_value");
    let bytes = body.to_string().into_bytes();
    let passed = openai::parse_chat_forward(&bytes, &Limits::default()).expect("accepted");
    assert_eq!(passed.messages[0].content, Content::Text("Be kind.".into()));
    assert_eq!(passed.extra["verbosity"], "low");
}

#[test]
fn a_replayed_answer_is_accepted() {
    let request = chat(&json!({
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}],
        "tool_choice": "none",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"},
                {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": "q", "name": "eve"},
            {"role": "assistant", "content": null, "refusal": null, "audio": null,
             "function_call": null, "annotations": [], "reasoning": "hm", "tool_calls":
             [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "assistant", "content": null, "refusal": "no"}
        ]
    }))
    .expect("accepted");
    assert_eq!(request.tool_choice, ToolChoice::None);
    assert_eq!(
        request.messages[0].content,
        Content::Parts(["a", "b"].map(|text| Part::Text(text.into())).to_vec())
    );
    assert_eq!(request.messages[2].role, Role::Assistant);
    assert_eq!(Thought::words(&request.messages[2].thoughts).as_deref(), Some("hm"));
    assert_eq!(request.messages[2].tool_calls[0].arguments, "{");
    assert_eq!(request.messages[4].content, Content::Text("no".into()));
    let kept = request.tools[0].parameters().map(Value::to_string);
    assert_eq!(
        kept.as_deref(),
        Some(r#"{"b":1,"a":2}"#),
        "templates print tools in their own order"
    );
}

#[test]
fn the_four_kinds_of_prompt() {
    let check = |prompt: Value, expect: Vec<Prompt>| {
        assert_eq!(completion(&json!({"prompt": prompt})).expect("accepted").prompts, expect);
    };
    let text = |s: &str| Prompt::Text(s.into());
    check(json!("a"), vec![text("a")]);
    check(json!(["a", "b"]), vec![text("a"), text("b")]);
    check(json!([1, 2]), vec![Prompt::Tokens(vec![1, 2])]);
    check(json!([[1], [2, 3]]), vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
}

#[test]
fn bytes_that_are_no_request() {
    let check = |body: &[u8], code: &str, says: &str| {
        let error = openai::parse_chat(body, &Limits::default()).expect_err(says);
        assert_eq!(error.code.as_deref(), Some(code), "{error}");
        assert!(error.message.contains(says), "{error}");
        assert_eq!(error.param, None);
    };
    check(b"", "invalid_json", "empty");
    check(b"{\"model\":", "invalid_json", "line 1 column");
    check(b"{} x", "invalid_json", "trailing");
    check(b"{\"a\": \"\xff\"}", "invalid_utf8", "offset 7");
    check(b"[1]", "invalid_type", "expected an object");
    check("[".repeat(100_000).as_bytes(), "invalid_json", "recursion");
    check(b"{\"seed\": 1e999}", "invalid_json", "out of range");
    check(br#"{"model": "\ud800"}"#, "invalid_json", "escape");
}

#[test]
fn tokenizer_routes() {
    let limits = Limits::default();
    let check = |body: Value, param: Option<&str>| {
        let got = openai::parse_tokenize(body.to_string().as_bytes(), &limits);
        assert_eq!(got.err().and_then(|e| e.param).as_deref(), param, "{body}");
    };
    let messages = json!([{"role": "user", "content": "x"}]);
    check(json!({"prompt": "x"}), None);
    check(json!({"messages": messages, "return_token_strs": true}), None);
    check(json!({"messages": messages, "prompt": "x"}), Some("prompt"));
    check(json!({}), Some("prompt"));
    check(json!({"prompt": "x", "tools": []}), Some("tools"));
    let got = openai::parse_detokenize(br#"{"tokens": [1, 2.0]}"#);
    assert_eq!(got.err().and_then(|e| e.param).as_deref(), Some("tokens[1]"));
}
