//! A chat as Bedrock is asked for it: the body of Converse and ConverseStream.
//! Source: Bedrock's API reference, and its models' own pages for what only they know.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::turns;
use crate::claude::{self, Claude, Draws, Setting};
use crate::lost::Lost;
use crate::request::{
    ChatRequest, Decoding, Effort, Form, Reasoning, Role, Structured, Tool, ToolChoice,
};

/// Whose model it is: beyond the common fields, each has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Claude,
    Nova,
    GptOss,
    Other,
}

impl Family {
    /// By the model's id or its ARN.
    fn of(model: &str) -> Self {
        let families =
            [("claude", Self::Claude), ("amazon.nova", Self::Nova), ("gpt-oss", Self::GptOss)];
        let own = families.into_iter().find(|(part, _)| model.contains(part));
        own.map_or(Self::Other, |(_, family)| family)
    }
}

/// Writes a chat request. What cannot be carried is named in `lost`.
#[must_use]
pub fn render(request: &ChatRequest, lost: &mut Lost) -> Value {
    let family = Family::of(&request.model);
    let mut out = Map::new();
    let system = turns::system(&request.messages);
    if !system.is_empty() {
        out.insert("system".into(), system.into());
    }
    let own = Claude::of(&request.model);
    let mut turns = turns::render(&request.messages, lost);
    let open = own.is_open(&mut turns, lost);
    let bare = claude::is_bare(&turns, kind);
    out.insert("messages".into(), turns.into());
    let forced = tools(&mut out, request, own, lost);
    let (mut config, mut more) = (Map::new(), Map::new());
    if let Some(shape) = &request.decoding.structured {
        structured(&mut config, shape, lost);
    }
    let within = Setting { max_tokens: request.decoding.max_tokens, forced, open, bare };
    let draws = match family {
        Family::Claude => claude(&mut more, &mut config, (own, request.reasoning), within, lost),
        _ => thinking(&mut more, request.reasoning, family, lost),
    };
    top_k(&mut more, request.decoding.top_k, family, draws, lost);
    let inference = inference(&request.decoding, draws, lost);
    if !inference.is_empty() {
        out.insert("inferenceConfig".into(), inference.into());
    }
    for (name, fields) in [("outputConfig", config), ("additionalModelRequestFields", more)] {
        if !fields.is_empty() {
            out.insert(name.into(), fields.into());
        }
    }
    metadata(&mut out, request, lost);
    losses(request, lost);
    Value::Object(out)
}

fn losses(request: &ChatRequest, lost: &mut Lost) {
    let decoding = &request.decoding;
    let template = &request.template;
    // A turn of the assistant at the end is always gone on with.
    let open = request.messages.last().is_some_and(|last| last.role == Role::Assistant);
    let is = |value: Option<f64>, off: f64| value.is_none_or(|value| value == off);
    let said = [
        ("n", decoding.choices != 1),
        ("presence_penalty", !is(decoding.presence_penalty, 0.0)),
        ("frequency_penalty", !is(decoding.frequency_penalty, 0.0)),
        ("seed", decoding.seed.is_some()),
        ("logprobs", decoding.logprobs.is_some()),
        ("user", request.user.is_some()),
        ("continue_final_message", template.continue_final_message != open),
        ("add_generation_prompt", !template.add_generation_prompt && !open),
        ("parallel_tool_calls", !request.parallel_tool_calls && !request.tools.is_empty()),
    ];
    said.into_iter().filter(|(_, said)| *said).for_each(|(name, _)| lost.field(name));
    lost.of_engines(request);
    lost.extra(request, &[]);
}

/// What a block is: the name of its only field.
fn kind(block: &Value) -> Option<&str> {
    block.as_object()?.keys().next().map(String::as_str)
}

/// Notes, if they are such as the logs of Bedrock take.
fn metadata(out: &mut Map<String, Value>, request: &ChatRequest, lost: &mut Lost) {
    let letters = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || c.is_whitespace() || ":_@$#=/+,-.".contains(c))
            && text.len() <= 256
    };
    let fits = |(name, value): (&String, &Value)| {
        !name.is_empty() && letters(name) && value.as_str().is_some_and(letters)
    };
    match request.metadata.len() {
        0 => {}
        1..=16 if request.metadata.iter().all(fits) => {
            out.insert("requestMetadata".into(), Value::Object(request.metadata.clone()));
        }
        _ => lost.field("metadata"),
    }
}

/// Tools and the choice among them. A chat in which tools were called must name them, even where
/// none may be called any more. Gives whether a call is forced.
fn tools(
    out: &mut Map<String, Value>,
    request: &ChatRequest,
    own: Claude,
    lost: &mut Lost,
) -> bool {
    let mut specs: Vec<Value> = request.tools.iter().map(spec).collect();
    let called: BTreeSet<&str> = request
        .messages
        .iter()
        .flat_map(|message| message.tool_calls.iter().map(|call| &*call.name))
        .collect();
    match &request.tool_choice {
        ToolChoice::Auto | ToolChoice::Required | ToolChoice::Named(_) => {}
        ToolChoice::None if called.is_empty() => specs.clear(),
        ToolChoice::None => lost.field("tool_choice"),
        ToolChoice::Allowed { names, .. } => {
            let allowed = request.tools.iter().filter(|tool| names.contains(&tool.name));
            specs = allowed.map(spec).collect();
        }
    }
    if specs.is_empty() {
        specs = called.into_iter().map(empty).collect();
    }
    if specs.is_empty() {
        return false;
    }
    let mut config = Map::new();
    config.insert("tools".into(), specs.into());
    let forced = own.is_forced(&request.tool_choice, lost);
    if forced {
        let choice = match &request.tool_choice {
            ToolChoice::Named(name) => json!({"tool": {"name": name}}),
            _ => json!({"any": {}}),
        };
        config.insert("toolChoice".into(), choice);
    }
    out.insert("toolConfig".into(), config.into());
    forced
}

/// A tool of which only the name is known.
fn empty(name: &str) -> Value {
    json!({"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}})
}

fn spec(tool: &Tool) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), json!(tool.name));
    let description = tool.value.get("function").and_then(|function| function.get("description"));
    if let Some(text) = description.and_then(Value::as_str).filter(|text| !text.is_empty()) {
        out.insert("description".into(), text.into());
    }
    let none = || json!({"type": "object", "properties": {}});
    let schema = tool.parameters().cloned().unwrap_or_else(none);
    out.insert("inputSchema".into(), json!({"json": schema}));
    if tool.says_strict() {
        out.insert("strict".into(), true.into());
    }
    json!({"toolSpec": out})
}

fn inference(decoding: &Decoding, draws: Draws, lost: &mut Lost) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        out.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("maxTokens", decoding.max_tokens.map(Value::from));
    let (temperature, top_p) = draws.shares(decoding, lost);
    put("temperature", temperature.map(Value::from));
    put("topP", top_p.map(Value::from));
    put("stopSequences", (!decoding.stop.is_empty()).then(|| json!(decoding.stop)));
    out
}

fn top_k(
    out: &mut Map<String, Value>,
    k: Option<u32>,
    family: Family,
    draws: Draws,
    lost: &mut Lost,
) {
    let Some(k) = draws.top_k(k, lost) else { return };
    match family {
        Family::Claude => drop(out.insert("top_k".into(), k.into())),
        Family::Nova => drop(out.insert("inferenceConfig".into(), json!({"topK": k}))),
        Family::GptOss | Family::Other => lost.field("top_k"),
    }
}

fn structured(out: &mut Map<String, Value>, shape: &Structured, lost: &mut Lost) {
    let Form::JsonSchema(schema) = &shape.form else {
        lost.field(&shape.field);
        return;
    };
    let mut inner = Map::new();
    inner.insert("schema".into(), schema.to_string().into());
    inner.extend(shape.name.as_ref().map(|name| ("name".to_owned(), json!(name))));
    let description = shape.description.as_ref();
    inner.extend(description.map(|text| ("description".to_owned(), json!(text))));
    let format = json!({"type": "json_schema", "structure": {"jsonSchema": inner}});
    out.insert("textFormat".into(), format);
}

/// Thinking is each family's own; which ways to choose tokens are left. `more` are the fields of
/// the model. A Claude's are [`claude()`]'s.
fn thinking(
    more: &mut Map<String, Value>,
    asked: Reasoning,
    family: Family,
    lost: &mut Lost,
) -> Draws {
    let Reasoning { effort, budget, .. } = asked;
    let none = effort == Some(Effort::None) || budget == Some(0);
    let effort = effort.filter(|effort| *effort != Effort::None);
    let budget = budget.filter(|budget| *budget != 0);
    match family {
        Family::GptOss => {
            // It has three efforts, and always thinks.
            let level = effort.map(|effort| effort.clamp(Effort::Low, Effort::High).name());
            more.extend(level.map(|level| ("reasoning_effort".to_owned(), level.into())));
            lost.some("reasoning_effort", none.then_some(&none));
            lost.some("thinking_token_budget", budget.as_ref());
        }
        Family::Nova => {
            let level = effort.map(|effort| effort.clamp(Effort::Low, Effort::High).name());
            let own = match level.filter(|_| !none) {
                Some(level) => Some(json!({"type": "enabled", "maxReasoningEffort": level})),
                None if none => Some(json!({"type": "disabled"})),
                None => None,
            };
            more.extend(own.map(|own| ("reasoningConfig".to_owned(), own)));
            lost.some("thinking_token_budget", budget.as_ref());
        }
        Family::Claude | Family::Other => {
            // Most do not think at all: to ask for none is to ask for nothing.
            lost.some("reasoning_effort", effort.as_ref());
            lost.some("thinking_token_budget", budget.as_ref());
        }
    }
    Draws::Free
}

/// A Claude, by Anthropic's rules. Older ones show their thoughts without being asked to. `config`
/// are the fields of the answer.
fn claude(
    more: &mut Map<String, Value>,
    config: &mut Map<String, Value>,
    (own, asked): (Claude, Reasoning),
    within: Setting,
    lost: &mut Lost,
) -> Draws {
    let mut thinking = own.thinking(asked, within, lost);
    if own.hides() {
        thinking.show(asked.include);
    }
    more.extend(thinking.value.map(|value| ("thinking".to_owned(), value)));
    config.extend(thinking.effort.map(|effort| ("effort".to_owned(), effort.into())));
    thinking.draws
}
