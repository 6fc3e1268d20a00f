//! Random requests that this dialect can say, as its parser writes them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::{
    ChatRequest, Content, Decoding, Detail, Effort, Form, Image, Message, Part, Reasoning, Role,
    Seal, StreamOptions, Structured, Template, Thought, Tool, ToolCall, ToolChoice,
};

pub(crate) fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{1,8}"
}

/// Numbers that survive JSON exactly.
fn share() -> impl Strategy<Value = f64> {
    (0..=64_u32).prop_map(|n| f64::from(n) / 64.0)
}

fn words() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("{text}."))
}

/// A text, or parts that are more than one text.
fn content(images: bool) -> impl Strategy<Value = Content> {
    let image = any::<bool>().prop_map(|inline| {
        let url = if inline { "data:image/png;base64,QUJD" } else { "https://h/i" };
        Part::Image(Image { url: url.into(), detail: Detail::Auto })
    });
    let part = prop_oneof![words().prop_map(Part::Text), image];
    let parts = vec(part, 1..4).prop_filter_map("a text alone is a text", move |parts| {
        let text = |part: &Part| matches!(part, Part::Text(_));
        let fits = (parts.len() > 1 || !text(&parts[0])) && (images || parts.iter().all(text));
        fits.then_some(Content::Parts(parts))
    });
    prop_oneof![2 => words().prop_map(Content::Text), 1 => parts]
}

fn result() -> impl Strategy<Value = Content> {
    let failed = text().prop_map(|text| Content::Text(format!("Tool error: {text}")));
    prop_oneof![text().prop_map(Content::Text), content(true), failed]
}

fn thought() -> impl Strategy<Value = Thought> {
    let signed = (text(), name())
        .prop_map(|(text, seal)| Thought { text, seal: Some(Seal::Signature(seal)) });
    let redacted =
        name().prop_map(|data| Thought { text: String::new(), seal: Some(Seal::Redacted(data)) });
    prop_oneof![signed, redacted]
}

fn arguments() -> impl Strategy<Value = String> {
    let value = prop_oneof![any::<i64>().prop_map(Value::from), text().prop_map(Value::from)];
    vec((text(), value), 0..3)
        .prop_map(|all| Value::Object(all.into_iter().collect::<Map<_, _>>()).to_string())
}

/// The assistant's turn and the one behind it.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let call = (name(), name(), arguments(), result());
    let behind = (option::of(content(true)), option::of(content(false)));
    let all = (vec(thought(), 0..3), option::of(content(false)), vec(call, 0..3), words(), behind);
    all.prop_map(|(thoughts, content, calls, words, (user, system))| {
        let mut turn = Message::text(Role::Assistant, "");
        let silent = calls.is_empty() && thoughts.is_empty();
        turn.thoughts = thoughts;
        turn.content = match content {
            None if silent => Content::Text(words.clone()),
            content => content.unwrap_or_default(),
        };
        let mut out = vec![turn];
        for (at, (id, name, arguments, content)) in calls.into_iter().enumerate() {
            let id = format!("{id}{at}");
            out[0].tool_calls.push(ToolCall { id: id.clone(), name, arguments });
            let tool_call_id = Some(id);
            out.push(Message { content, tool_call_id, ..Message::text(Role::Tool, "") });
        }
        // Results may come in any order.
        out[1..].reverse();
        let user = user.or_else(|| (out.len() == 1).then_some(Content::Text(words)));
        out.extend(user.map(|content| Message { content, ..Message::text(Role::User, "") }));
        out.extend(system.map(|content| Message { content, ..Message::text(Role::System, "") }));
        out
    })
}

fn tool() -> impl Strategy<Value = Tool> {
    (name(), option::of(text()), any::<bool>(), 0..3_usize).prop_map(
        |(name, description, strict, keys)| {
            let keys: Map<String, Value> =
                ["z", "a"].iter().take(keys).map(|key| ((*key).into(), json!({}))).collect();
            let mut function = json!({"name": name});
            if let Some(description) = description {
                function["description"] = description.into();
            }
            function["parameters"] = json!({"type": "object", "properties": keys});
            if strict {
                function["strict"] = true.into();
            }
            Tool { name, strict, value: json!({"type": "function", "function": function}) }
        },
    )
}

/// Tools with different names, and a choice of them.
fn tools() -> impl Strategy<Value = (Vec<Tool>, ToolChoice, bool)> {
    (vec(tool(), 0..3), 0..4_usize, any::<bool>()).prop_map(|(mut tools, choice, parallel)| {
        tools.dedup_by(|a, b| a.name == b.name);
        let Some(first) = tools.first() else { return (tools, ToolChoice::Auto, true) };
        let choices = [
            ToolChoice::Auto,
            ToolChoice::None,
            ToolChoice::Required,
            ToolChoice::Named(first.name.clone()),
        ];
        let parallel = parallel || choice == 1;
        (tools, choices[choice].clone(), parallel)
    })
}

/// What `"type": "disabled"` says.
const OFF: Reasoning = Reasoning {
    effort: Some(Effort::None),
    budget: None,
    include: false,
    seals: false,
    summary: None,
};

fn reasoning() -> impl Strategy<Value = Reasoning> {
    let effort = || (2..7_usize).prop_map(|at| Effort::ALL[at]);
    let free = (effort(), any::<bool>()).prop_map(|(effort, include)| Reasoning {
        effort: Some(effort),
        include,
        ..Reasoning::default()
    });
    let bound = (option::of(effort()), 1024..2000_u32, any::<bool>()).prop_map(
        |(effort, budget, include)| Reasoning {
            effort,
            budget: Some(budget),
            include,
            ..Reasoning::default()
        },
    );
    prop_oneof![Just(OFF), free, bound]
}

fn decoding() -> impl Strategy<Value = Decoding> {
    let numbers = (option::of(share()), option::of(share()), option::of(1..100_u32));
    let shape = option::of(name().prop_map(|title| json!({"type": "object", "title": title})));
    (2000..9000_u32, numbers, vec(words(), 0..3), shape, any::<bool>()).prop_map(
        |(max_tokens, (temperature, top_p, top_k), stop, shape, stream)| {
            let options = StreamOptions { include_usage: true, continuous_usage: false };
            Decoding {
                max_tokens: Some(max_tokens),
                temperature,
                top_p,
                top_k,
                stop,
                structured: shape.map(|schema| Structured {
                    form: Form::JsonSchema(schema),
                    field: "output_config.format.schema".into(),
                    name: None,
                    description: None,
                    strict: None,
                }),
                stream: stream.then_some(options),
                ..Decoding::default()
            }
        },
    )
}

pub(crate) fn request() -> impl Strategy<Value = ChatRequest> {
    let system = option::of(content(false));
    let turns = (system, content(true), vec(turn(), 0..4), option::of(content(false)));
    let rest = (name(), tools(), reasoning(), decoding(), option::of(text()));
    (turns, rest).prop_map(|((system, first, turns, prefill), rest)| {
        let (model, (tools, tool_choice, parallel), mut reasoning, mut decoding, user) = rest;
        let as_role = |role| move |content| Message { content, ..Message::text(role, "") };
        let mut messages: Vec<Message> = system.map(as_role(Role::System)).into_iter().collect();
        messages.push(as_role(Role::User)(first));
        messages.extend(turns.into_iter().flatten());
        messages.extend(prefill.map(as_role(Role::Assistant)));
        let goes_on = messages.last().is_some_and(|last| last.role == Role::Assistant);
        // What a model that thinks does not take.
        if matches!(tool_choice, ToolChoice::Required | ToolChoice::Named(_)) {
            reasoning = OFF;
        }
        if reasoning.effort != Some(Effort::None) {
            (decoding.temperature, decoding.top_k, decoding.top_p) = (None, None, None);
        }
        let template = Template {
            add_generation_prompt: !goes_on,
            continue_final_message: goes_on,
            ..Template::default()
        };
        ChatRequest {
            model,
            messages,
            tools,
            tool_choice,
            parallel_tool_calls: parallel,
            reasoning,
            template,
            decoding,
            user,
            metadata: Map::new(),
            extra: Map::new(),
        }
    })
}
