//! What each Claude is sent, by what its name says that it knows.

use serde_json::{Value, json};
use wire::{ChatRequest, Effort, Limits, Lost, Reasoning, Seal, Thought, messages, openai};

use super::render::sent;

fn chat_of(extra: &Value) -> ChatRequest {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    openai::parse_chat_forward(body.to_string().as_bytes(), &Limits::default()).expect("a chat")
}

/// Claude models before 4.6 refuse `adaptive`, those behind it `enabled`, and efforts that a model
/// does not know are refused too.
#[test]
fn each_claude_is_told_to_think_in_its_own_way() {
    let check = |model: &str, asked: Reasoning, thinking: Value, effort: Value, names: &[&str]| {
        let mut request = crate::accept(&json!({"max_tokens": 20_000}));
        (request.model, request.reasoning) = (model.into(), asked);
        let (value, lost) = sent(&request);
        assert_eq!(value.get("thinking").cloned().unwrap_or_default(), thinking, "{model}");
        assert_eq!(value["output_config"]["effort"], effort, "{model} {asked:?}");
        assert_eq!(lost, names, "{model} {asked:?}");
    };
    let effort = |effort| Reasoning { effort: Some(effort), ..Reasoning::default() };
    let budget = |budget| Reasoning { budget: Some(budget), ..Reasoning::default() };
    let (null, shown) = (|| Value::Null, "summarized");
    let enabled =
        |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens, "display": shown});
    let adaptive = || json!({"type": "adaptive", "display": shown});
    let off = || json!({"type": "disabled"});
    for model in ["claude-3-5-sonnet-20241022", "claude-3-opus-latest", "claude-2.1"] {
        check(model, effort(Effort::High), null(), null(), &["reasoning_effort"]);
        check(model, budget(2000), null(), null(), &["thinking_token_budget"]);
        check(model, effort(Effort::None), null(), null(), &[]);
    }
    for model in ["claude-3-7-sonnet-latest", "claude-opus-4-20250514", "claude-haiku-4-5@20251001"]
    {
        check(model, effort(Effort::Low), enabled(1024), null(), &[]);
        check(model, effort(Effort::Medium), enabled(8192), null(), &[]);
        // Room for the answer is left.
        check(model, effort(Effort::Max), enabled(16_000), null(), &[]);
        check(model, budget(2000), enabled(2000), null(), &[]);
        let both = Reasoning { budget: Some(2000), ..effort(Effort::High) };
        check(model, both, enabled(2000), null(), &["reasoning_effort"]);
        check(model, effort(Effort::None), off(), null(), &[]);
    }
    check("claude-opus-4-5", effort(Effort::Max), enabled(16_000), json!("high"), &[]);
    for model in ["claude-sonnet-4-6", "anthropic/claude-opus-4.6"] {
        check(model, effort(Effort::XHigh), adaptive(), json!("high"), &[]);
        check(model, effort(Effort::Max), adaptive(), json!("max"), &[]);
        check(model, budget(2000), enabled(2000), null(), &[]);
    }
    for model in ["claude-opus-4-8", "claude-sonnet-5", "claude-next"] {
        check(model, effort(Effort::XHigh), adaptive(), json!("xhigh"), &[]);
        check(model, budget(10_000), adaptive(), json!("medium"), &[]);
        let both = Reasoning { budget: Some(2000), ..effort(Effort::High) };
        check(model, both, adaptive(), json!("high"), &["thinking_token_budget"]);
    }
    // It does not think unasked, and Bedrock's refuses the word.
    check("claude-opus-4-7", effort(Effort::None), null(), null(), &[]);
    check("claude-sonnet-5", effort(Effort::None), off(), null(), &[]);
    check("claude-fable-5", effort(Effort::None), null(), json!("low"), &["reasoning_effort"]);
    // Others that speak the dialect take what they know.
    check("glm-4.6", effort(Effort::High), adaptive(), json!("high"), &[]);
    check("glm-4.6", budget(2000), enabled(2000), null(), &[]);
}

/// From 4.1 on they refuse a temperature beside `top_p`; clients send both, of which one is usual.
#[test]
fn a_temperature_or_a_share_of_tokens() {
    let check = |model: &str, said: [f64; 2], expect: [Value; 2], names: &[&str]| {
        let mut request = crate::accept(&json!({"temperature": said[0], "top_p": said[1]}));
        (request.model, request.reasoning) = (model.into(), Reasoning::default());
        let (value, lost) = sent(&request);
        let got = ["temperature", "top_p"].map(|name| value[name].clone());
        assert_eq!(got, expect, "{model} {said:?}");
        assert_eq!(lost, names, "{model} {said:?}");
    };
    for model in ["claude-opus-4-1", "claude-sonnet-4-5", "claude-opus-4-6"] {
        check(model, [0.5, 1.0], [json!(0.5), Value::Null], &[]);
        check(model, [1.0, 0.5], [Value::Null, json!(0.5)], &[]);
        check(model, [0.5, 0.5], [json!(0.5), Value::Null], &["top_p"]);
    }
    check("claude-sonnet-4-0", [0.5, 0.5], [json!(0.5), json!(0.5)], &[]);
    check("glm-4.6", [0.5, 0.5], [json!(0.5), json!(0.5)], &[]);
}

/// Newer ones refuse every temperature but the usual one, whether they think or not.
#[test]
fn a_new_claude_draws_as_it_likes() {
    let body = json!({"temperature": 0.5, "top_p": 0.5, "top_k": 5});
    for (model, names) in [
        ("claude-sonnet-4-6", &["top_p"][..]),
        ("claude-opus-4-7", &["temperature", "top_k", "top_p"]),
        ("claude-sonnet-5", &["temperature", "top_k", "top_p"]),
    ] {
        let mut request = crate::accept(&body);
        (request.model, request.reasoning) = (model.into(), Reasoning::default());
        assert_eq!(sent(&request).1, names, "{model}");
    }
    let mut request = crate::accept(&json!({"temperature": 1.0, "top_p": 1.0, "top_k": 0}));
    request.model = "claude-sonnet-5".into();
    let (value, lost) = sent(&request);
    assert!(value.get("temperature").is_none() && value.get("top_p").is_none(), "{value}");
    assert!(lost.is_empty());
}

/// From Opus 5.5 on, Anthropic answers 400: "thinking.type.disabled is not supported for this
/// model". Sonnet 5.5 knows less thinking, for which there is a word of its own, without `display`.
#[test]
fn thoughts_that_cannot_be_turned_off() {
    let check = |model: &str, thinking: Value, effort: Value, names: &[&str]| {
        let mut request = crate::accept(&json!({}));
        request.model = model.into();
        request.reasoning = Reasoning { effort: Some(Effort::None), ..Reasoning::default() };
        let (value, lost) = sent(&request);
        assert_eq!(value.get("thinking").cloned().unwrap_or_default(), thinking, "{model}");
        assert_eq!(value["output_config"]["effort"], effort, "{model}");
        assert_eq!(lost, names, "{model}");
    };
    let (off, between) = (json!({"type": "disabled"}), json!({"type": "between_tools"}));
    for model in ["claude-opus-5-5", "claude-opus-6", "claude-fable-5-1", "claude-mythos-preview"] {
        check(model, Value::Null, json!("low"), &["reasoning_effort"]);
    }
    for model in ["claude-sonnet-5-5", "anthropic/claude-sonnet-5.5", "claude-sonnet-6"] {
        check(model, between.clone(), Value::Null, &[]);
    }
    for model in ["claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5", "claude-opus-4-6"] {
        check(model, off.clone(), Value::Null, &[]);
    }
}

/// A forced call is refused by some; others think of it where they find out themselves how much.
#[test]
fn not_every_claude_can_be_made_to_call() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let named = json!({"type": "function", "function": {"name": "f"}});
    let check = |model: &str, forced: bool, kind: Value, names: &[&str]| {
        for (choice, word) in [(json!("required"), "any"), (named.clone(), "tool")] {
            let body = json!({"tools": tools, "tool_choice": choice, "reasoning_effort": "high"});
            let mut request = chat_of(&body);
            request.model = model.into();
            let (value, lost) = sent(&request);
            let word = if forced { json!(word) } else { Value::Null };
            assert_eq!(value["tool_choice"]["type"], word, "{model}");
            assert_eq!(value["thinking"]["type"], kind, "{model}");
            assert_eq!(value["output_config"]["effort"].is_null(), kind.is_null(), "{model}");
            assert_eq!(lost, names, "{model}");
        }
    };
    for model in ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-mythos-6"] {
        check(model, false, json!("adaptive"), &["tool_choice"]);
    }
    for model in ["claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5"] {
        check(model, true, json!("adaptive"), &[]);
    }
    for model in ["claude-opus-4-6", "claude-haiku-4-5", "glm-4.6"] {
        check(model, true, Value::Null, &["reasoning_effort"]);
    }
    // One call at a time is still one.
    let body = json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false});
    let mut request = chat_of(&body);
    request.model = "claude-opus-5-5".into();
    let one = json!({"type": "auto", "disable_parallel_tool_use": true});
    assert_eq!(sent(&request).0["tool_choice"], one);
}

/// An agent that speaks chat has no words for sealed thoughts. "Expected `thinking` or
/// `redacted_thinking`, but found `tool_use`" ended it with its second turn.
#[test]
fn a_budget_is_for_turns_that_begin_with_thoughts() {
    let call = |id: &str| {
        json!({"role": "assistant", "tool_calls": [{"id": id, "type": "function",
            "function": {"name": "f", "arguments": "{}"}}]})
    };
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "1"});
    let user = |text: &str| json!({"role": "user", "content": text});
    let check = |model: &str, turns: &[Value], sealed: Option<usize>, expect: [Value; 3]| {
        let mut request = chat_of(&json!({"messages": turns}));
        request.model = model.into();
        if let Some(at) = sealed {
            let seal = Some(Seal::Signature("c2ln".into()));
            request.messages[at].thoughts = vec![Thought { text: "hm".into(), seal }];
        }
        let asked = |effort, budget| Reasoning { effort, budget, ..Reasoning::default() };
        for (reasoning, name) in [
            (asked(Some(Effort::Medium), None), "reasoning_effort"),
            (asked(None, Some(8192)), "thinking_token_budget"),
        ] {
            request.reasoning = reasoning;
            let mut lost = Lost::default();
            let value = messages::render(&request, 9000, &mut lost);
            let [kind, effort, left] = &expect;
            let case = format!("{model} {name} {turns:?}");
            assert_eq!(&value["thinking"]["type"], kind, "{case}");
            assert_eq!(&value["output_config"]["effort"], effort, "{case}");
            // Nobody is refused for it.
            assert_eq!(lost.names().count(), 0, "{case}");
            let names: Vec<&str> = lost.of_this_turn().collect();
            assert_eq!(names, if left == true { vec![name] } else { vec![] }, "{case}");
        }
    };
    let null = || Value::Null;
    let told = || [json!("enabled"), null(), json!(false)];
    let left = || [null(), null(), json!(true)];
    let among = [user("q"), call("a"), result("a")];
    let model = "claude-sonnet-4-5";
    check(model, &[user("q")], None, told());
    check(model, &among, None, left());
    check(model, &among, Some(1), told());
    // The first of a loop has its thoughts, as models do that think once in a turn.
    let longer = [&among[..], &[call("b"), result("b")]].concat();
    check(model, &longer, Some(1), told());
    check(model, &longer, None, left());
    // A turn that is over needs none; one that the user has spoken in is another.
    let over = [&among[..], &[json!({"role": "assistant", "content": "x"}), user("r")]].concat();
    check(model, &over, None, told());
    let anew = [&among[..], &[user("r"), call("b"), result("b")]].concat();
    check(model, &anew, Some(1), left());
    check("claude-3-7-sonnet", &among, None, left());
    // One that adapts needs no thoughts in front, and a budget is an effort to it.
    let mut request = chat_of(&json!({"messages": among}));
    request.model = "claude-opus-4-6".into();
    request.reasoning = Reasoning { budget: Some(8192), ..Reasoning::default() };
    let (value, lost) = sent(&request);
    assert_eq!(value["thinking"]["type"], "adaptive");
    assert_eq!(value["output_config"]["effort"], "medium");
    assert!(lost.is_empty());
    // Of others that speak the dialect nothing is known.
    request.model = "glm-4.6".into();
    let mut lost = Lost::default();
    let value = messages::render(&request, 9000, &mut lost);
    assert_eq!(value["thinking"]["type"], "enabled");
}

/// "medium" was as much as "high" where the caller sets no limit, and left little for the answer.
#[test]
fn thoughts_come_on_top_of_the_usual_limit() {
    let check =
        |model: &str, asked: Reasoning, own: Option<u32>, max_tokens: u32, budget: Value| {
            let mut request = crate::accept(&json!({}));
            (request.model, request.reasoning) = (model.into(), asked);
            request.decoding.max_tokens = own;
            let mut lost = Lost::default();
            let value = messages::render(&request, 8192, &mut lost);
            assert_eq!(value["max_tokens"], max_tokens, "{model} {asked:?}");
            assert_eq!(value["thinking"]["budget_tokens"], budget, "{model} {asked:?}");
            assert!(lost.is_empty(), "{model} {lost:?}");
        };
    let effort = |effort| Reasoning { effort: Some(effort), ..Reasoning::default() };
    let budget = |budget| Reasoning { budget: Some(budget), ..Reasoning::default() };
    let model = "claude-sonnet-4-5";
    check(model, Reasoning::default(), None, 8192, Value::Null);
    check(model, effort(Effort::Low), None, 9216, json!(1024));
    check(model, effort(Effort::Medium), None, 16_384, json!(8192));
    check(model, effort(Effort::High), None, 32_768, json!(24_576));
    check(model, budget(10_000), None, 18_192, json!(10_000));
    check(model, budget(100_000), None, 64_000, json!(63_999));
    // What the caller or its policy says is said.
    check(model, effort(Effort::High), Some(8192), 8192, json!(6552));
    // It makes no more than this.
    check("claude-opus-4-1", effort(Effort::High), None, 32_000, json!(24_576));
    check("claude-opus-5", effort(Effort::High), None, 32_768, Value::Null);
    check("claude-opus-5", Reasoning::default(), None, 8192, Value::Null);
    // How much others make is not known.
    check("glm-4.6", budget(10_000), None, 8192, json!(8191));
    check("glm-4.6", effort(Effort::High), None, 8192, Value::Null);
}

/// "This model does not support assistant message prefill. The conversation must end with a user
/// message": those from 4.6 on. Another target may take it.
#[test]
fn not_every_claude_goes_on_with_a_turn() {
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    let body = json!({"messages": turns, "continue_final_message": true,
        "add_generation_prompt": false});
    for model in ["claude-opus-4-6", "claude-sonnet-5", "claude-opus-5-5", "claude-haiku-5-5"] {
        let mut request = chat_of(&body);
        request.model = model.into();
        let (value, lost) = sent(&request);
        assert_eq!(value["messages"], json!([turns[0]]), "{model}");
        assert_eq!(lost, ["continue_final_message"], "{model}");
    }
    for model in ["claude-opus-4-5", "claude-3-5-haiku", "glm-4.6"] {
        let mut request = chat_of(&body);
        request.model = model.into();
        let (value, lost) = sent(&request);
        assert_eq!(value["messages"], turns, "{model}");
        assert!(lost.is_empty(), "{model}");
    }
    // It has begun without thoughts, and cannot think any more.
    let mut request = chat_of(&body);
    request.model = "claude-opus-4-5".into();
    request.reasoning = Reasoning { budget: Some(2000), ..Reasoning::default() };
    let (value, lost) = sent(&request);
    assert_eq!(value.get("thinking"), None);
    assert_eq!(lost, ["thinking_token_budget"]);
}
