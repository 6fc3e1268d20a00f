//! `POST /v1/responses` and its `/input_tokens`, from bytes to [`Request`].
//! Source: OpenAI's API reference.

use serde_json::{Map, Value};

use super::beyond::Beyond;
use super::echo::Echo;
use super::keeping::Keeping;
use super::{Ids, items, policy, tools};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;
use crate::openai::flex;
use crate::openai::policy::Rule;
use crate::request::verbosity::Verbosity;
use crate::request::{
    ChatRequest, Decoding, Effort, Form, Message, Reasoning, Role, StreamOptions, Structured,
    Summary, Template,
};

/// Pairs of `metadata`, and characters of a key and of a value, as OpenAI documents them.
const METADATA_MAX: (usize, usize, usize) = (16, 64, 512);

/// A request and what belongs to it beside the chat.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked of the model. Where the request goes on with something that is kept
    /// elsewhere ([`Request::is_open`]), its messages are the request's own alone, until
    /// [`Request::join`].
    pub chat: ChatRequest,
    /// Where it and its response are kept.
    pub keeping: Keeping,
    /// `instructions`: the first message, of this response alone.
    pub instructions: Option<String>,
    /// The input as it is kept and listed: each item has a kind and an id.
    pub input: Vec<Value>,
    /// What the response repeats.
    pub echo: Echo,
    /// A conversation that is too long for the model is cut, not refused; where it is made here.
    pub truncates: bool,
    /// How long the answer is to be, where it is made here.
    verbosity: Option<Verbosity>,
    /// It is: no provider is told what it wishes.
    here: bool,
    /// What cannot be honoured is refused.
    strict: bool,
    /// Of what it goes on with, what means nothing here and was left out: another has made it.
    pub left_out: Vec<String>,
}

/// Parses a request that is answered here. `ids` makes the ids of items that have none.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits, ids: &mut Ids<'_>) -> Result<Request, ApiError> {
    read(body, policy::CREATE, limits, ids, Beyond::refused())
}

/// Parses a request that is to be passed on in another dialect: what cannot be honoured here may
/// be there, so it is kept in [`ChatRequest::extra`], under its path, instead of refused.
///
/// # Errors
/// The first field that is missing or wrong, by its path.
pub fn parse_forward(body: &[u8], limits: &Limits, ids: &mut Ids<'_>) -> Result<Request, ApiError> {
    let mut request = read(body, policy::CREATE, limits, ids, Beyond::kept())?;
    request.repeats_what_holds();
    Ok(request)
}

/// Parses a request whose tokens are only counted.
/// `forward`: what cannot be honoured here is kept in [`ChatRequest::extra`], by its path.
///
/// # Errors
/// As [`parse`].
pub fn parse_count(
    body: &[u8],
    limits: &Limits,
    ids: &mut Ids<'_>,
    forward: bool,
) -> Result<Request, ApiError> {
    let beyond = if forward { Beyond::kept() } else { Beyond::refused() };
    read(body, policy::COUNT, limits, ids, beyond)
}

fn read(
    body: &[u8],
    table: &[(&str, Rule)],
    limits: &Limits,
    ids: &mut Ids<'_>,
    mut beyond: Beyond,
) -> Result<Request, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    let strict = beyond.is_strict();
    beyond.fields(fields, "", table)?;
    let mut request = request(fields, limits, ids, &mut beyond)?;
    request.strict = strict;
    if request.is_open() {
        request.chat.messages = request.messages(&[], false, (None, &mut beyond))?;
        request.chat.extra = beyond.into_kept();
    } else {
        request.chat.extra = beyond.into_kept();
        request.join(&[])?;
    }
    Ok(request)
}

impl Request {
    /// It goes on with something that is kept elsewhere: an earlier response, a conversation, or
    /// items that it refers to.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keeping.goes_on() || !items::references(&self.input).is_empty()
    }

    /// One that was read to be passed on is answered here after all: what was kept for others is
    /// honoured.
    pub fn here(&mut self) {
        self.here = true;
        if let Some(wish) = self.verbosity.filter(|_| !self.is_open()) {
            wish.say(&mut self.chat.messages);
        }
        self.repeats_what_holds();
    }

    /// No other dialect has words for the tier and for being cut: there it is served as any.
    fn repeats_what_holds(&mut self) {
        let tier = if self.here && self.chat.decoding.flex { "flex" } else { "default" };
        let truncation = if self.here && self.truncates { "auto" } else { "disabled" };
        for (name, value) in [("service_tier", tier), ("truncation", truncation)] {
            self.echo.fields.insert(name.to_owned(), value.into());
        }
    }

    /// Makes the chat whole: instructions, items of earlier requests and responses, then its own,
    /// in which all references are resolved.
    ///
    /// # Errors
    /// A call without a result, a result without a call, an item that cannot be honoured, or
    /// nothing at all.
    pub fn join(&mut self, history: &[Value]) -> Result<(), ApiError> {
        let mut beyond = if self.strict { Beyond::refused() } else { Beyond::kept() };
        // Its caller has no other past.
        let mut past = self.here.then(Beyond::kept);
        let messages = self.messages(history, true, (past.as_mut(), &mut beyond))?;
        let left_out = past.map(Beyond::into_kept).unwrap_or_default();
        self.left_out = left_out.into_iter().map(|(name, value)| named(&name, &value)).collect();
        if messages.is_empty() {
            return Err(Fault::missing("input").into());
        }
        self.chat.messages = messages;
        self.chat.extra.extend(beyond.into_kept());
        Ok(())
    }

    fn messages(
        &self,
        history: &[Value],
        whole: bool,
        beyond: (Option<&mut Beyond>, &mut Beyond),
    ) -> Parsed<Vec<Message>> {
        let said = self.instructions.as_deref().filter(|text| !text.is_empty());
        let first = said.map(|text| Message::text(Role::System, text)).into_iter();
        let rest = items::messages(history, &self.input, whole, beyond)?;
        let mut messages: Vec<Message> = first.chain(rest).collect();
        if let Some(wish) = self.verbosity.filter(|_| self.here && !messages.is_empty()) {
            wish.say(&mut messages);
        }
        Ok(messages)
    }
}

/// What was left out of earlier items, by its kind: callers know no places among them.
fn named(path: &str, value: &Value) -> String {
    let place = |part: &str| part.split('[').next().unwrap_or_default().to_owned();
    let path: Vec<String> = path.split('.').map(place).collect();
    match (&path[..], value.get("type").and_then(Value::as_str)) {
        ([list], Some(kind)) => format!("{list}.{kind}"),
        _ => path.join("."),
    }
}

fn request(
    fields: Fields<'_>,
    limits: &Limits,
    ids: &mut Ids<'_>,
    beyond: &mut Beyond,
) -> Parsed<Request> {
    let (tools, names) = tools::parse(fields, limits, beyond)?;
    let tool_choice = tools::choice(fields, &tools, limits, beyond)?;
    let include = include(fields, beyond)?;
    fields.natural("max_tool_calls", 0..=u32::MAX)?;
    let chat = ChatRequest {
        model: fields.required_string("model")?.to_owned(),
        messages: Vec::new(),
        tools,
        tool_choice,
        parallel_tool_calls: fields.boolean("parallel_tool_calls", true)?,
        reasoning: reasoning(fields, beyond)?,
        template: Template::default(),
        decoding: decoding(fields, include.logprobs, limits, beyond)?,
        user: fields.string("user")?.or(fields.string("safety_identifier")?).map(str::to_owned),
        metadata: metadata(fields)?,
        extra: Map::new(),
    };
    Ok(Request {
        chat,
        keeping: Keeping::read(fields)?,
        instructions: fields.string("instructions")?.map(str::to_owned),
        input: items::normalise(fields, limits, ids)?,
        echo: Echo::of(fields, names, include.encrypted),
        truncates: truncates(fields, beyond)?,
        verbosity: verbosity(fields, beyond)?,
        here: beyond.is_strict(),
        strict: true,
        left_out: Vec::new(),
    })
}

/// What the response shows beside the answer.
#[derive(Default)]
struct Include {
    logprobs: bool,
    encrypted: bool,
}

fn include(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<Include> {
    let mut include = Include::default();
    let mut index = 0..;
    fields.each("include", 64, |value| {
        let at = format!("include[{}]", index.next().unwrap_or(64));
        match value.as_str() {
            Some("reasoning.encrypted_content") => include.encrypted = true,
            Some("message.output_text.logprobs") => include.logprobs = true,
            Some(known) if policy::INCLUDES_NOTHING.contains(&known) => {}
            Some(_) => {
                let fault = Fault::value("", "there is nothing of this name to include");
                beyond.value(&at, value, fault)?;
            }
            None => return Err(Fault::kind("", "a string", value)),
        }
        Ok(())
    })?;
    Ok(include)
}

fn reasoning(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<Reasoning> {
    let Some(inner) = fields.object("reasoning")? else { return Ok(Reasoning::default()) };
    let mut read = || {
        beyond.fields(inner, "reasoning", policy::REASONING)?;
        let effort = inner.string("effort")?.map(|name| {
            let known = Effort::ALL.into_iter().find(|effort| effort.name() == name);
            let all = || Effort::ALL.map(Effort::name).join("', '");
            known.ok_or_else(|| Fault::value("effort", format!("expected one of '{}'", all())))
        });
        // Checked with the fields; the second is what the first was called once.
        let said = inner.string("summary")?.or(inner.string("generate_summary")?);
        let summary = said.and_then(|name| Summary::ALL.into_iter().find(|own| own.name() == name));
        Ok(Reasoning { effort: effort.transpose()?, summary, ..Reasoning::default() })
    };
    read().map_err(|fault: Fault| fault.under("reasoning"))
}

fn decoding(
    fields: Fields<'_>,
    logprobs: bool,
    limits: &Limits,
    beyond: &mut Beyond,
) -> Parsed<Decoding> {
    let top = fields.natural("top_logprobs", 0..=limits.top_logprobs_max)?.unwrap_or(0);
    if top > 0 && !logprobs {
        let why = "it needs 'message.output_text.logprobs' in 'include'";
        return Err(Fault::value("top_logprobs", why));
    }
    Ok(Decoding {
        max_tokens: fields.natural("max_output_tokens", 1..=u32::MAX)?,
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        logprobs: logprobs.then_some(top),
        structured: structured(fields, beyond)?,
        stream: stream(fields, beyond)?,
        flex: flex(fields)?,
        ..Decoding::default()
    })
}

fn stream(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<Option<StreamOptions>> {
    let on = fields.boolean("stream", false)?;
    if let Some(options) = fields.object("stream_options")? {
        if !on {
            return Err(Fault::value("stream_options", "it is only allowed with 'stream': true"));
        }
        let held = beyond.fields(options, "stream_options", policy::STREAM);
        held.map_err(|fault| fault.under("stream_options"))?;
    }
    Ok(on.then(StreamOptions::default))
}

fn structured(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<Option<Structured>> {
    let Some(text) = fields.object("text")? else { return Ok(None) };
    let mut read = || {
        beyond.fields(text, "text", policy::TEXT)?;
        let Some(format) = text.object("format")? else { return Ok(None) };
        shape(format, beyond).map_err(|fault| fault.under("format"))
    };
    read().map_err(|fault: Fault| fault.under("text"))
}

/// Kept also for who has a word for it.
fn truncates(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<bool> {
    match fields.string("truncation")? {
        None | Some("disabled") => Ok(false),
        Some("auto") => {
            beyond.keep("truncation", "auto".into());
            Ok(true)
        }
        Some(_) => Err(Fault::value("truncation", "expected 'auto' or 'disabled'")),
    }
}

/// Kept also for a provider that has the word.
fn verbosity(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<Option<Verbosity>> {
    let Some(text) = fields.object("text")? else { return Ok(None) };
    let wish = Verbosity::of(text).map_err(|fault| fault.under("text"))?;
    if let Some(wish) = wish {
        beyond.keep("text.verbosity", wish.name().into());
    }
    Ok(wish)
}

fn shape(format: Fields<'_>, beyond: &mut Beyond) -> Parsed<Option<Structured>> {
    let kind = format.required_string("type")?;
    let table = if kind == "json_schema" { policy::SCHEMA } else { policy::FORMAT };
    beyond.fields(format, "text.format", table)?;
    let name = match kind {
        "text" => return Ok(None),
        "json_object" => {
            let (form, field) = (Form::JsonObject, "text.format".to_owned());
            return Ok(Some(Structured {
                form,
                field,
                name: None,
                description: None,
                strict: None,
            }));
        }
        "json_schema" => format.required_string("name")?,
        _ => {
            return Err(Fault::value("type", "expected 'text', 'json_object' or 'json_schema'"));
        }
    };
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(letters) {
        return Err(Fault::value("name", "expected 1 to 64 of a-z, A-Z, 0-9, '_', '-'"));
    }
    format.object("schema")?;
    let schema = format.get("schema").ok_or_else(|| Fault::missing("schema"))?;
    Ok(Some(Structured {
        form: Form::JsonSchema(schema.clone()),
        field: "text.format.schema".into(),
        name: Some(name.to_owned()),
        description: format.string("description")?.map(str::to_owned),
        strict: Some(format.boolean("strict", false)?),
    }))
}

/// Texts under names. They are kept with the response, so they are bounded.
pub(super) fn metadata(fields: Fields<'_>) -> Parsed<Map<String, Value>> {
    let (pairs, key_max, text_max) = METADATA_MAX;
    let metadata = fields.map("metadata")?;
    let long = |why: String| Fault::range("metadata", why, "string_above_max_length");
    if metadata.len() > pairs {
        let why = format!("expected at most {pairs} pairs, but got {}", metadata.len());
        return Err(Fault::range("metadata", why, "object_above_max_properties"));
    }
    for (key, value) in &metadata {
        if key.chars().count() > key_max {
            return Err(long(format!("a key has at most {key_max} characters")));
        }
        match value {
            Value::String(text) if text.chars().count() <= text_max => {}
            Value::String(_) => {
                return Err(long(format!("a value has at most {text_max} characters")));
            }
            other => return Err(Fault::kind(key, "a string", other).under("metadata")),
        }
    }
    Ok(metadata)
}
