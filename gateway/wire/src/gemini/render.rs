//! A chat as Google's models are asked for it: the body of `generateContent` and
//! `streamGenerateContent`. The model's name goes into the path.

use serde_json::{Map, Value, json};

use super::config::{LEVELS, enumeration};
use super::turns;
use crate::lost::Lost;
use crate::request::{
    ChatRequest, Content, Decoding, Detail, Effort, Form, Message, Part, Reasoning, Role,
    Structured, Tool, ToolChoice,
};

/// What a model's name says of the model. A name that says nothing is that of a new one.
#[derive(Debug, Clone, Copy)]
struct Family {
    /// It thinks: it may be asked to show its thoughts.
    thinks: bool,
    /// How much it thinks is a level, where the older ones have a budget.
    levels: bool,
    /// Its least level is the second one.
    heavy: bool,
    /// It refuses calls without a signature.
    signs: bool,
}

impl Family {
    fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or_default();
        let gemini = name.starts_with("gemini-");
        let older = ["gemini-1.", "gemini-2."].iter().any(|start| name.starts_with(start));
        let oldest = ["gemini-1.", "gemini-2.0"].iter().any(|start| name.starts_with(start));
        Self {
            thinks: gemini && !oldest,
            levels: !older,
            heavy: name.contains("-pro"),
            signs: gemini && !older,
        }
    }
}

/// Writes a chat request. What cannot be carried is named in `lost`. Instructions in the middle of
/// a chat are put with those in front of it: there is one place for them.
#[must_use]
pub fn render(request: &ChatRequest, lost: &mut Lost) -> Value {
    let family = Family::of(&request.model);
    let mut out = Map::new();
    let system = turns::system(&request.messages, lost);
    if !system.is_empty() {
        out.insert("systemInstruction".into(), json!({"parts": system}));
    }
    let contents = turns::render(&request.messages, family.signs, lost);
    out.insert("contents".into(), contents.into());
    tools(&mut out, request, lost);
    let mut config = decoding(&request.decoding, lost);
    if let Some(shape) = &request.decoding.structured {
        structured(&mut config, shape, lost);
    }
    let thinking = thinking(request.reasoning, family, lost);
    if !thinking.is_empty() {
        config.insert("thinkingConfig".into(), thinking.into());
    }
    if let Some(level) = resolution(&request.messages, lost) {
        config.insert("mediaResolution".into(), level.into());
    }
    if !config.is_empty() {
        out.insert("generationConfig".into(), config.into());
    }
    labels(&mut out, request, lost);
    lost.some("user", request.user.as_ref());
    let template = &request.template;
    if template.continue_final_message || !template.add_generation_prompt {
        lost.field("continue_final_message");
    }
    lost.of_engines(request);
    lost.extra(request, &[]);
    Value::Object(out)
}

/// What labels may be, so that a request is not refused for its notes.
fn labels(out: &mut Map<String, Value>, request: &ChatRequest, lost: &mut Lost) {
    let letters = |text: &str| {
        text.len() <= 63
            && text.chars().all(|c| c.is_lowercase() || c.is_numeric() || "_-".contains(c))
    };
    let fits = |(name, value): (&String, &Value)| {
        name.starts_with(char::is_lowercase) && letters(name) && value.as_str().is_some_and(letters)
    };
    match request.metadata.len() {
        0 => {}
        1..=64 if request.metadata.iter().all(fits) => {
            out.insert("labels".into(), Value::Object(request.metadata.clone()));
        }
        _ => lost.field("metadata"),
    }
}

fn tools(out: &mut Map<String, Value>, request: &ChatRequest, lost: &mut Lost) {
    if request.tools.is_empty() {
        return;
    }
    let declarations: Vec<Value> = request.tools.iter().map(declaration).collect();
    out.insert("tools".into(), json!([{"functionDeclarations": declarations}]));
    let strict = request.tools.iter().any(Tool::says_strict);
    let (mode, names) = match &request.tool_choice {
        ToolChoice::Auto if strict => ("VALIDATED", &[][..]),
        ToolChoice::Auto => ("AUTO", &[][..]),
        ToolChoice::None => ("NONE", &[][..]),
        // Calls are valid in this mode, whether the tools are strict or not.
        ToolChoice::Required => ("ANY", &[][..]),
        ToolChoice::Named(name) => ("ANY", std::slice::from_ref(name)),
        ToolChoice::Allowed { names, required: true } => ("ANY", &names[..]),
        ToolChoice::Allowed { names, required: false } => ("VALIDATED", &names[..]),
    };
    if mode != "AUTO" {
        let mut calling = Map::new();
        calling.insert("mode".into(), mode.into());
        if !names.is_empty() {
            calling.insert("allowedFunctionNames".into(), json!(names));
        }
        out.insert("toolConfig".into(), json!({"functionCallingConfig": calling}));
    }
    if !request.parallel_tool_calls {
        lost.field("parallel_tool_calls");
    }
}

fn declaration(tool: &Tool) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), json!(tool.name));
    let description = tool.value.get("function").and_then(|function| function.get("description"));
    if let Some(description) = description.filter(|description| !description.is_null()) {
        out.insert("description".into(), description.clone());
    }
    if let Some(schema) = tool.parameters() {
        out.insert("parametersJsonSchema".into(), schema.clone());
    }
    Value::Object(out)
}

fn decoding(decoding: &Decoding, lost: &mut Lost) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        out.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("candidateCount", (decoding.choices != 1).then(|| decoding.choices.into()));
    put("maxOutputTokens", decoding.max_tokens.map(Value::from));
    put("temperature", decoding.temperature.map(Value::from));
    put("topP", decoding.top_p.map(Value::from));
    // 0 keeps all, which cannot be said here.
    put("topK", decoding.top_k.filter(|k| *k != 0).map(Value::from));
    put("presencePenalty", decoding.presence_penalty.map(Value::from));
    put("frequencyPenalty", decoding.frequency_penalty.map(Value::from));
    let seed = decoding.seed.and_then(|seed| i32::try_from(seed).ok());
    put("seed", seed.map(Value::from));
    put("stopSequences", (!decoding.stop.is_empty()).then(|| json!(decoding.stop)));
    put("responseLogprobs", decoding.logprobs.map(|_| true.into()));
    put("logprobs", decoding.logprobs.filter(|top| *top != 0).map(Value::from));
    lost.some("top_k", decoding.top_k.filter(|k| *k == 0).as_ref());
    lost.some("seed", decoding.seed.filter(|_| seed.is_none()).as_ref());
    out
}

fn structured(out: &mut Map<String, Value>, shape: &Structured, lost: &mut Lost) {
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    lost.some("response_format.json_schema.description", shape.description.as_ref());
    match &shape.form {
        Form::JsonObject => {
            put("responseMimeType", "application/json".into());
        }
        Form::JsonSchema(schema) => {
            put("responseMimeType", "application/json".into());
            put("responseJsonSchema", schema.clone());
        }
        Form::Choice(texts) => {
            put("responseMimeType", "text/x.enum".into());
            put("responseSchema", enumeration(texts));
        }
        Form::Regex(_) | Form::Grammar(_) | Form::Tags(..) => lost.field(&shape.field),
    }
}

/// Newer models know levels, older ones a budget. Of the two a model takes one.
fn thinking(reasoning: Reasoning, family: Family, lost: &mut Lost) -> Map<String, Value> {
    let Reasoning { effort, budget, include, .. } = reasoning;
    let mut out = Map::new();
    let level = |effort: Effort| {
        let least = if family.heavy { Effort::Low } else { Effort::Minimal };
        let known = LEVELS.iter().find(|(_, known)| *known >= effort.max(least));
        known.or(LEVELS.last()).map(|(name, _)| Value::from(*name))
    };
    // As Google's own translation of OpenAI's dialect has it.
    let tokens = |effort: Effort| match effort {
        Effort::None => 0,
        Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 8_192,
        Effort::High | Effort::XHigh | Effort::Max => 24_576,
    };
    match (effort, budget) {
        (Some(effort), budget) if family.levels => {
            out.extend(level(effort).map(|level| ("thinkingLevel".to_owned(), level)));
            lost.some("thinking_token_budget", budget.as_ref());
            if effort == Effort::None {
                // The least that there is, which is not nothing.
                lost.field("reasoning_effort");
            }
        }
        (effort, Some(budget)) => {
            out.insert("thinkingBudget".into(), budget.into());
            lost.some("reasoning_effort", effort.as_ref());
        }
        (Some(effort), None) if family.thinks => {
            out.insert("thinkingBudget".into(), tokens(effort).into());
        }
        (Some(Effort::None), None) | (None, None) => {}
        (Some(_), None) => lost.field("reasoning_effort"),
    }
    if include && family.thinks {
        out.insert("includeThoughts".into(), true.into());
    }
    out
}

/// How closely images are looked at: one word for all of them.
fn resolution(messages: &[Message], lost: &mut Lost) -> Option<&'static str> {
    let parts = messages.iter().filter(|message| message.role != Role::Assistant);
    let parts = parts.filter_map(|message| match &message.content {
        Content::Parts(parts) => Some(parts),
        _ => None,
    });
    let mut details = parts.flatten().filter_map(|part| match part {
        Part::Image(image) => Some(image.detail),
        Part::Text(_) => None,
    });
    let first = details.next()?;
    if details.any(|detail| detail != first) {
        lost.field("messages[].content[].image_url.detail");
        return None;
    }
    match first {
        Detail::Auto => None,
        Detail::Low => Some("MEDIA_RESOLUTION_LOW"),
        Detail::High => Some("MEDIA_RESOLUTION_HIGH"),
    }
}
