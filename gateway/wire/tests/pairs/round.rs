//! Requests there and back: what a provider is sent, read by the parser of its own dialect, is
//! what the caller asked, where nothing was lost on the way.

use proptest::prelude::*;
use serde_json::{Value, json};
use wire::{ChatRequest, Content, Form, Lost, Message, Part, Role, Thought, ToolChoice, converse};

use crate::asked::features;
use crate::made;
use crate::replay;
use crate::side::{In, To};

/// What somebody says in one turn, in whichever way it is written.
#[derive(Debug, Clone, PartialEq, Default)]
struct Turn {
    role: String,
    thoughts: Vec<Thought>,
    said: Vec<Part>,
    calls: Vec<(String, String, Value)>,
    result_of: Option<String>,
}

fn said(content: &Content) -> Vec<Part> {
    match content {
        Content::Absent => Vec::new(),
        Content::Text(text) => vec![Part::Text(text.clone())],
        Content::Parts(parts) => parts.clone(),
    }
}

fn texts(content: &Content) -> String {
    let parts = said(content).into_iter();
    parts.filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None }).collect()
}

fn turn(message: &Message) -> Turn {
    let role = if message.role == Role::Developer { Role::System } else { message.role };
    let call = |call: &wire::ToolCall| {
        let arguments = serde_json::from_str(&call.arguments).unwrap_or(json!(call.arguments));
        (call.id.clone(), call.name.clone(), arguments)
    };
    Turn {
        role: role.name().into(),
        thoughts: message.thoughts.clone(),
        said: said(&message.content),
        calls: message.tool_calls.iter().map(call).collect(),
        result_of: message.tool_call_id.clone(),
    }
}

impl Turn {
    fn is_silent(&self) -> bool {
        let nothing = |part: &Part| matches!(part, Part::Text(text) if text.is_empty());
        self.said.iter().all(nothing)
            && self.thoughts.is_empty()
            && self.calls.is_empty()
            && self.result_of.is_none()
    }
}

/// Neighbours of one side are one turn, and their texts one text; what says nothing is none.
fn joined(turns: impl Iterator<Item = Turn>) -> Vec<Turn> {
    let mut out: Vec<Turn> = Vec::new();
    for turn in turns.filter(|turn| !turn.is_silent()) {
        match out.last_mut() {
            Some(last) if last.role == turn.role && turn.result_of.is_none() => {
                last.thoughts.extend(turn.thoughts);
                last.said.extend(turn.said);
                last.calls.extend(turn.calls);
            }
            _ => out.push(turn),
        }
    }
    for turn in &mut out {
        let mut said: Vec<Part> = Vec::new();
        for part in turn.said.drain(..) {
            match (said.last_mut(), part) {
                (_, Part::Text(text)) if text.is_empty() => {}
                (Some(Part::Text(last)), Part::Text(text)) => last.push_str(&text),
                (_, part) => said.push(part),
            }
        }
        turn.said = said;
    }
    out
}

/// A chat as far as every dialect says it: what the application says, which some put in front of
/// all else or behind its turn, and what the others say.
fn chat(request: &ChatRequest, to: To) -> (String, Vec<Turn>) {
    let system = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
    let messages = &request.messages;
    let rules: String = messages.iter().filter(system).map(|m| texts(&m.content)).collect();
    let others = messages.iter().filter(|message| !system(message)).map(|message| {
        let mut turn = turn(message);
        if to == To::Gemini && turn.result_of.is_some() {
            // A result has one text there, and images behind it.
            turn.said.sort_by_key(|part| matches!(part, Part::Image(_)));
        }
        match to {
            // None of these takes thoughts in words, or only its own.
            To::OpenAi | To::Plain | To::Responses => turn.thoughts.clear(),
            // Words are all that arrives.
            To::Extended | To::Gemini => {
                let words = Thought::words(&turn.thoughts);
                turn.thoughts = words.map(Thought::of).into_iter().collect();
            }
            To::Messages | To::Converse => {}
        }
        turn
    });
    let mut turns = joined(others);
    if matches!(to, To::Extended | To::Gemini) {
        for turn in &mut turns {
            let words = Thought::words(&turn.thoughts);
            turn.thoughts = words.map(Thought::of).into_iter().collect();
        }
    }
    (rules, turns)
}

/// Everything else that is compared.
fn rest(request: &ChatRequest, to: To) -> Value {
    let strict = to != To::Gemini;
    let tools: Vec<Value> = request
        .tools
        .iter()
        .map(|tool| {
            let mut schema = tool.parameters().cloned().unwrap_or_else(|| json!({}));
            schema.as_object_mut().expect("an object").entry("type").or_insert("object".into());
            let text = tool.value["function"].get("description").cloned();
            json!([tool.name, text, schema, strict && tool.strict])
        })
        .collect();
    let choice = match &request.tool_choice {
        // Only those are offered there.
        ToolChoice::Allowed { required: true, .. } if to == To::Messages => ToolChoice::Required,
        // This mode holds tools to their schemas.
        ToolChoice::Auto if tools.is_empty() => ToolChoice::Auto,
        choice => choice.clone(),
    };
    let decoding = &request.decoding;
    let shape = decoding.structured.as_ref().map(|shape| match &shape.form {
        Form::JsonSchema(schema) => schema.to_string(),
        form => format!("{form:?}"),
    });
    json!({
        "tools": tools,
        "choice": format!("{choice:?}"),
        "parallel": request.parallel_tool_calls || tools.is_empty(),
        "max": decoding.max_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": decoding.top_k.filter(|k| *k != 0),
        "min_p": decoding.min_p,
        "presence": decoding.presence_penalty,
        "seed": decoding.seed,
        "stop": decoding.stop,
        "logprobs": decoding.logprobs,
        "choices": decoding.choices,
        "bias": format!("{:?}", decoding.logit_bias),
        "shape": shape,
        "stream": decoding.stream.is_some(),
        "user": request.user,
        "metadata": request.metadata,
    })
}

/// A request of this side's, to a provider and back. `false`: something was lost.
fn there_and_back(side: In, to: To, body: &Value) -> bool {
    let Ok(asked) = side.parse(body, false) else { return false };
    let mut lost = Lost::default();
    let mut sent = to.render(&asked, &mut lost);
    let reader = match to {
        To::OpenAi | To::Plain | To::Extended => In::Chat,
        To::Responses => In::Responses,
        To::Messages => In::Messages,
        To::Gemini => In::Gemini,
        To::Converse => return false,
    };
    if !lost.is_empty() {
        return false;
    }
    if to == To::Gemini && asked.decoding.stream.is_some() {
        sent["stream"] = true.into();
    }
    // A wish for a short answer becomes words where it is answered.
    let read = reader.parse(&sent, asked.extra.is_empty());
    let mut read =
        read.unwrap_or_else(|e| panic!("{side:?} {to:?}: {e} ({:?}) in {sent}", e.param));
    if asked.decoding.max_tokens.is_none() && to == To::Messages {
        // The dialect wants one.
        read.decoding.max_tokens = None;
    }
    assert_eq!(chat(&read, to), chat(&asked, to), "{side:?} {to:?}\n{body}\n{sent}");
    let (mut was, mut is) = (rest(&asked, to), rest(&read, to));
    if to == To::Messages {
        // Where only some tools may be called, only those are offered.
        if let ToolChoice::Allowed { names, .. } = &asked.tool_choice {
            let offered = |tool: &Value| names.iter().any(|name| tool[0] == name.as_str());
            was["tools"].as_array_mut().expect("tools").retain(offered);
        }
    }
    if to == To::Gemini && asked.tools.iter().any(|tool| tool.strict) {
        (was["choice"], is["choice"]) = (Value::Null, Value::Null);
    }
    assert_eq!(is, was, "{side:?} {to:?}\n{body}\n{sent}");
    // Efforts have the same names there; elsewhere they are budgets, or fewer.
    if matches!(to, To::OpenAi | To::Plain | To::Extended | To::Responses) {
        let effort = asked.reasoning.effort;
        assert!(effort.is_none() || effort == read.reasoning.effort, "{side:?} {to:?} {sent}");
    }
    true
}

#[test]
fn every_feature_that_is_carried_comes_back() {
    let features = features();
    let mut same = 0;
    for side in In::CHATS {
        for to in To::ALL {
            let cases = features.iter().filter_map(|feature| feature.of(side));
            let replayed = replay::FEATURES.iter().filter_map(|name| replay::case(side, to, name));
            for case in cases.chain(replayed) {
                same += usize::from(there_and_back(side, to, &case.with));
            }
        }
    }
    assert!(same > 500, "{same} requests came back");
}

/// A request as a caller of this dialect writes it; `None`: it cannot.
fn written(request: &ChatRequest, side: In) -> Option<Value> {
    let mut lost = Lost::default();
    let to = match side {
        In::Chat => To::Extended,
        In::Responses => To::Responses,
        In::Messages => To::Messages,
        In::Gemini => To::Gemini,
        In::Completions => return None,
    };
    let mut body = to.render(request, &mut lost);
    if side == In::Gemini && request.decoding.stream.is_some() {
        body["stream"] = true.into();
    }
    lost.is_empty().then_some(body)
}

/// Without what not every dialect can say.
fn common(mut request: ChatRequest, less: bool) -> ChatRequest {
    if less {
        request.user = None;
        request.decoding.top_k = None;
        request.decoding.stop.clear();
        request.parallel_tool_calls = true;
        request.reasoning = wire::Reasoning::default();
        if request.messages.last().is_some_and(|last| last.role == Role::Assistant) {
            request.messages.push(Message::text(Role::User, "Go on."));
            request.template = wire::Template::default();
        }
        for message in &mut request.messages {
            message.thoughts.clear();
            if message.role == Role::Tool {
                message.content = Content::Text(texts(&message.content));
            }
            if message.content == Content::Absent && message.tool_calls.is_empty() {
                message.content = Content::Text("Well.".into());
            }
        }
    }
    request
}

proptest! {
    // Each case goes through all pairs.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn random_requests_come_back(request in made::request(), less in any::<bool>()) {
        let request = common(request, less);
        for side in In::CHATS {
            let Some(body) = written(&request, side) else { continue };
            for to in To::ALL {
                let same = there_and_back(side, to, &body);
                // What all can say arrives everywhere.
                let all = less && to != To::Converse;
                prop_assert!(same || !all, "{:?} {:?} {}", side, to, body);
            }
            let chat = side.parse(&body, false).expect("it was read before");
            let sent = converse::render(&chat, &mut Lost::default());
            alternates(&sent);
        }
    }
}

/// Bedrock takes turns of user and assistant, one after the other, none of them empty.
#[track_caller]
fn alternates(sent: &Value) {
    let roles: Vec<_> = sent["messages"]
        .as_array()
        .expect("turns")
        .iter()
        .map(|turn| {
            assert!(turn["content"].as_array().is_some_and(|blocks| !blocks.is_empty()), "{turn}");
            turn["role"].clone()
        })
        .collect();
    assert!(roles.windows(2).all(|pair| pair[0] != pair[1]), "{roles:?}");
}
