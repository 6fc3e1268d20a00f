//! Random requests of both routes, each one that its parser accepts.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::{
    ChatRequest, Content, Decoding, Detail, Effort, Form, Image, Message, Part, Prompt, Reasoning,
    Role, StreamOptions, Structured, Tag, Template, Thought, Tool, ToolCall, ToolChoice,
};

pub(super) fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

pub(super) fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

/// Numbers that survive JSON exactly.
fn share() -> impl Strategy<Value = f64> {
    (0..=64_u32).prop_map(|n| f64::from(n) / 64.0)
}

fn content() -> impl Strategy<Value = Content> {
    let image = (text(), 0..3_usize)
        .prop_map(|(url, detail)| Part::Image(Image { url, detail: Detail::ALL[detail] }));
    let part = prop_oneof![text().prop_map(Part::Text), image];
    prop_oneof![text().prop_map(Content::Text), vec(part, 1..4).prop_map(Content::Parts)]
}

/// A turn: one message, or calls and then their results from the last to the first.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let call = (name(), name(), text());
    let all = (0..5_usize, content(), option::of(name()), vec(call, 0..3), option::of(text()));
    all.prop_map(|(role, content, name, calls, reasoning)| {
        let roles = [Role::Developer, Role::System, Role::User, Role::Assistant, Role::Function];
        let mut said = Message::text(roles[role], "");
        said.content = content;
        said.name = name;
        match said.role {
            Role::Function => said.name = Some("f".into()),
            Role::Assistant => {
                let numbered = calls.into_iter().enumerate().map(|(at, (id, name, arguments))| {
                    ToolCall { id: format!("{id}{at}"), name, arguments }
                });
                said.tool_calls = numbered.collect();
                let words = reasoning.filter(|words| !words.is_empty());
                said.thoughts = words.map(Thought::of).into_iter().collect();
                if !said.tool_calls.is_empty() {
                    said.content = Content::Absent;
                }
            }
            _ => {}
        }
        let results: Vec<Message> = said
            .tool_calls
            .iter()
            .rev()
            .map(|call| {
                let mut result = Message::text(Role::Tool, "42");
                result.tool_call_id = Some(call.id.clone());
                result
            })
            .collect();
        std::iter::once(said).chain(results).collect()
    })
}

fn schema() -> impl Strategy<Value = Value> {
    let known = ["b", "a"];
    (name(), 0..3_usize).prop_map(move |(kind, keys)| {
        let keys: Map<String, Value> =
            known.iter().take(keys).map(|key| ((*key).into(), json!({}))).collect();
        json!({"type": kind, "properties": keys})
    })
}

fn form() -> impl Strategy<Value = Form> {
    let full = || "[a-z\u{e9}\"]{1,8}";
    let tag = (full(), schema(), text()).prop_map(|(begin, schema, end)| Tag {
        begin: format!("<{begin}"),
        schema,
        end,
    });
    prop_oneof![
        Just(Form::JsonObject),
        schema().prop_map(Form::JsonSchema),
        full().prop_map(Form::Regex),
        full().prop_map(Form::Grammar),
        vec(text(), 1..4).prop_map(Form::Choice),
        vec(tag, 1..3).prop_map(|tags| Form::Tags(tags, vec!["<".into()])),
    ]
}

/// A form, in one of the fields that can say it.
fn structured() -> impl Strategy<Value = Structured> {
    (form(), any::<bool>(), option::of((name(), option::of(text())))).prop_map(
        |(form, newer, named)| {
            let (new, old) = match form {
                Form::JsonObject => ("structured_outputs.json_object", "response_format"),
                Form::JsonSchema(_) => ("structured_outputs.json", "guided_json"),
                Form::Regex(_) => ("structured_outputs.regex", "guided_regex"),
                Form::Choice(_) => ("structured_outputs.choice", "guided_choice"),
                Form::Grammar(_) => ("structured_outputs.grammar", "guided_grammar"),
                Form::Tags(..) => ("structured_outputs.structural_tag", "response_format"),
            };
            let field = if newer { new } else { old }.to_owned();
            match (&form, named) {
                (Form::JsonSchema(_), Some((name, description))) => {
                    let field = "response_format.json_schema.schema".into();
                    Structured { form, field, name: Some(name), description, strict: Some(newer) }
                }
                _ => Structured { form, field, name: None, description: None, strict: None },
            }
        },
    )
}

fn tool() -> impl Strategy<Value = Tool> {
    (option::of(any::<bool>()), option::of(schema())).prop_map(|(strict, parameters)| {
        let function = json!({"strict": strict, "name": "", "parameters": parameters});
        let value = json!({"type": "function", "function": function});
        Tool { name: String::new(), strict: strict.unwrap_or(false), value }
    })
}

/// Tools with names of their own, and a choice among them.
fn tools() -> impl Strategy<Value = (Vec<Tool>, ToolChoice)> {
    (vec(tool(), 0..4), 0..6_usize).prop_map(|(mut tools, choice)| {
        for (at, tool) in tools.iter_mut().enumerate() {
            tool.name = format!("f{at}");
            tool.value["function"]["name"] = json!(tool.name);
        }
        let names: Vec<String> = tools.iter().map(|tool| tool.name.clone()).collect();
        let choice = match (choice, names.last()) {
            (0, _) => ToolChoice::None,
            (1, Some(_)) => ToolChoice::Required,
            (2, Some(last)) => ToolChoice::Named(last.clone()),
            (3, Some(_)) => ToolChoice::Allowed { names, required: true },
            (4, Some(last)) => ToolChoice::Allowed { names: vec![last.clone()], required: false },
            _ => ToolChoice::Auto,
        };
        (tools, choice)
    })
}

fn reasoning() -> impl Strategy<Value = Reasoning> {
    let all = (option::of(0..Effort::ALL.len()), option::of(any::<u32>()), any::<bool>());
    all.prop_map(|(effort, budget, include)| Reasoning {
        effort: effort.map(|at| Effort::ALL[at]),
        budget,
        include,
        ..Reasoning::default()
    })
}

pub(super) fn decoding() -> impl Strategy<Value = Decoding> {
    let numbers = (
        option::of(share()),
        option::of(share()),
        option::of(share()),
        option::of(any::<u32>()),
        option::of(any::<i64>()),
        option::of(1..100_u32),
        option::of(0..=20_u32),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<i8>());
    let lists = (
        vec("[a-z\u{e9}]{1,5}", 0..4),
        vec(any::<u32>(), 0..4),
        proptest::collection::btree_map(any::<u32>(), share(), 0..4),
        option::of(name()),
        option::of((any::<bool>(), any::<bool>())),
        option::of(0..=20_u32),
        option::of(structured()),
    );
    (numbers, flags, lists, 1..=128_u32).prop_map(|(numbers, flags, lists, choices)| {
        let (temperature, top_p, min_p, top_k, seed, max_tokens, logprobs) = numbers;
        let (include_stop, skip_special_tokens, ignore_eos, return_token_ids, priority) = flags;
        let (stop, stop_token_ids, bias, cache_salt, stream, prompt_logprobs, structured) = lists;
        Decoding {
            choices,
            max_tokens,
            min_tokens: max_tokens.unwrap_or(0) / 2,
            temperature,
            top_p,
            top_k,
            min_p,
            typical_p: top_p,
            repetition_penalty: min_p.map(|p| p + 0.5),
            presence_penalty: temperature.map(|t| -t),
            frequency_penalty: top_p,
            logit_bias: bias.into_iter().collect(),
            seed,
            stop,
            stop_token_ids,
            include_stop,
            skip_special_tokens,
            ignore_eos: ignore_eos && structured.is_none(),
            logprobs,
            prompt_logprobs: prompt_logprobs.filter(|_| stream.is_none()),
            return_token_ids,
            // What comes last has no other place.
            priority: if choices % 4 == 0 { 0 } else { priority },
            flex: choices % 4 == 0,
            cache_salt,
            structured,
            stream: stream.map(|(include_usage, continuous_usage)| StreamOptions {
                include_usage,
                continuous_usage,
            }),
        }
    })
}

pub(super) fn chat() -> impl Strategy<Value = ChatRequest> {
    let rest = (name(), any::<bool>(), any::<bool>(), any::<bool>(), option::of(text()));
    let all = (vec(turn(), 1..4), tools(), reasoning(), decoding(), rest);
    all.prop_map(|(turns, (tools, tool_choice), reasoning, decoding, rest)| {
        let messages = turns.concat();
        let (model, parallel_tool_calls, start, special, kwarg) = rest;
        let mut template = Template {
            add_generation_prompt: start,
            add_special_tokens: special,
            continue_final_message: !start
                && messages.last().is_some_and(|m| m.content != Content::Absent),
            ..Template::default()
        };
        let user = kwarg.clone();
        let metadata = user.iter().map(|text| ("key".to_owned(), json!(text))).collect();
        if let Some(value) = kwarg {
            template.documents.push(json!({"text": value}));
            template.kwargs.insert("key".into(), json!([value, null, 1]));
        }
        ChatRequest {
            model,
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            reasoning,
            template,
            decoding,
            user,
            metadata,
            extra: Map::new(),
        }
    })
}

pub(super) fn prompts() -> impl Strategy<Value = Vec<Prompt>> {
    prop_oneof![
        vec(text().prop_map(Prompt::Text), 1..4),
        vec(vec(any::<u32>(), 1..5).prop_map(Prompt::Tokens), 1..4),
    ]
}
