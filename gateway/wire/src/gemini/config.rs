//! `generationConfig`: how tokens are drawn, when an answer ends, what shape it has and how much
//! the model thinks.

use serde_json::{Value, json};

use super::part;
use super::policy::{self, Beyond};
use super::schema::to_json_schema;
use crate::fields::{Fault, Fields, Parsed};
use crate::limits::Limits;
use crate::request::{Decoding, Detail, Effort, Form, Reasoning, Structured};

/// What `generationConfig` says.
pub(super) struct Config {
    pub(super) decoding: Decoding,
    pub(super) reasoning: Reasoning,
    pub(super) detail: Detail,
}

pub(super) fn parse(request: Fields<'_>, limits: &Limits, beyond: &mut Beyond) -> Parsed<Config> {
    let Some(fields) = request.object("generationConfig")? else {
        let reasoning = Reasoning { include: false, ..Reasoning::default() };
        return Ok(Config { decoding: Decoding::default(), reasoning, detail: Detail::Auto });
    };
    let mut read = || {
        beyond.table("generationConfig", fields, policy::GENERATION)?;
        Ok(Config {
            decoding: decoding(fields, limits)?,
            reasoning: reasoning(fields, beyond)?,
            detail: part::detail(fields, "mediaResolution")?.unwrap_or_default(),
        })
    };
    read().map_err(|fault: Fault| fault.under("generationConfig"))
}

fn decoding(fields: Fields<'_>, limits: &Limits) -> Parsed<Decoding> {
    Ok(Decoding {
        choices: fields.natural("candidateCount", 1..=limits.choices_max)?.unwrap_or(1),
        max_tokens: fields.natural("maxOutputTokens", 1..=u32::MAX)?,
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("topP", 0.0..=1.0)?,
        top_k: fields.natural("topK", 1..=u32::MAX)?,
        presence_penalty: fields.number("presencePenalty", -2.0..=2.0)?,
        frequency_penalty: fields.number("frequencyPenalty", -2.0..=2.0)?,
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
        stop: fields.each("stopSequences", limits.stops_max, |value| stop(value, limits))?,
        logprobs: logprobs(fields, limits)?,
        structured: structured(fields, limits)?,
        ..Decoding::default()
    })
}

fn stop(value: &Value, limits: &Limits) -> Parsed<String> {
    match value {
        Value::String(text) if text.is_empty() => Err(Fault::value("", "it must not be empty")),
        Value::String(text) if text.len() > limits.stop_bytes_max => {
            let why = format!("expected at most {} bytes", limits.stop_bytes_max);
            Err(Fault::range("", why, "string_above_max_length"))
        }
        Value::String(text) => Ok(text.clone()),
        other => Err(Fault::kind("", "a string", other)),
    }
}

fn logprobs(fields: Fields<'_>, limits: &Limits) -> Parsed<Option<u32>> {
    let on = fields.boolean("responseLogprobs", false)?;
    match fields.natural("logprobs", 0..=limits.top_logprobs_max)? {
        Some(_) if !on => Err(Fault::value("logprobs", "it needs 'responseLogprobs': true")),
        top => Ok(on.then_some(top.unwrap_or(0))),
    }
}

/// The shape of the answer: a kind of text, and a schema in one of two languages.
fn structured(fields: Fields<'_>, limits: &Limits) -> Parsed<Option<Structured>> {
    let own = fields.get("responseSchema").map(to_json_schema).transpose();
    let own = own.map_err(|fault| fault.under("responseSchema"))?;
    fields.object("responseJsonSchema")?;
    let (schema, field) = match (own, fields.get("responseJsonSchema")) {
        (Some(_), Some(_)) => {
            let why = "it cannot be combined with 'responseSchema'";
            return Err(Fault::value("responseJsonSchema", why));
        }
        (Some(schema), None) => (Some(schema), "responseSchema"),
        (None, schema) => (schema.cloned(), "responseJsonSchema"),
    };
    let of = |form, field: &str| {
        let field = format!("generationConfig.{field}");
        Some(Structured { form, field, name: None, description: None, strict: None })
    };
    let mime = fields.string("responseMimeType")?.unwrap_or("text/plain");
    match (mime, schema) {
        ("text/plain", None) => Ok(None),
        ("text/plain", Some(_)) => {
            let why = "a schema needs 'application/json' or 'text/x.enum'";
            Err(Fault::value("responseMimeType", why))
        }
        ("application/json", None) => Ok(of(Form::JsonObject, "responseMimeType")),
        ("application/json", Some(schema)) => Ok(of(Form::JsonSchema(schema), field)),
        ("text/x.enum", schema) => {
            let texts = schema.as_ref().and_then(|schema| texts(schema, limits));
            let wrong = || Fault::value(field, "'text/x.enum' needs an 'enum' of texts");
            Ok(of(Form::Choice(texts.ok_or_else(wrong)?), field))
        }
        _ => {
            let why = "expected 'text/plain', 'application/json' or 'text/x.enum'";
            Err(Fault::value("responseMimeType", why))
        }
    }
}

/// The texts of an enumeration, at least one and no more than are allowed.
fn texts(schema: &Value, limits: &Limits) -> Option<Vec<String>> {
    let values = schema.get("enum")?.as_array()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts: Vec<String> = values.iter().map(text).collect::<Option<_>>()?;
    let bytes: usize = texts.iter().map(String::len).sum();
    let many = texts.is_empty() || texts.len() > limits.choice_texts_max;
    (!many && bytes <= limits.grammar_bytes_max).then_some(texts)
}

/// The schema of a choice.
pub(super) fn enumeration(texts: &[String]) -> Value {
    json!({"type": "STRING", "enum": texts})
}

/// Names of levels of thinking, and the effort that each is.
pub(super) const LEVELS: [(&str, Effort); 5] = [
    ("MINIMAL", Effort::Minimal),
    ("LOW", Effort::Low),
    ("MEDIUM", Effort::Medium),
    ("HIGH", Effort::High),
    ("XHIGH", Effort::XHigh),
];

/// Thoughts are shown only to whom asks for them. A budget of -1 is the model's own.
fn reasoning(fields: Fields<'_>, beyond: &mut Beyond) -> Parsed<Reasoning> {
    let inner = fields.object("thinkingConfig")?;
    let mut read = |inner: Fields<'_>| {
        beyond.table("generationConfig.thinkingConfig", inner, policy::THINKING)?;
        let budget = inner.integer("thinkingBudget", -1..=i64::from(u32::MAX))?;
        let level = inner.string("thinkingLevel")?;
        let level = level.filter(|level| *level != "THINKING_LEVEL_UNSPECIFIED");
        if budget.is_some() && level.is_some() {
            let why = "it cannot be combined with 'thinkingBudget'";
            return Err(Fault::value("thinkingLevel", why));
        }
        let effort = level.map(|level| {
            // Google's own documents have it in small letters, too.
            let known = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(level));
            let all = || LEVELS.map(|(name, _)| name).join("', '");
            let wrong = || Fault::value("thinkingLevel", format!("expected one of '{}'", all()));
            known.map(|(_, effort)| *effort).ok_or_else(wrong)
        });
        Ok(Reasoning {
            effort: effort.transpose()?,
            budget: budget.and_then(|budget| u32::try_from(budget).ok()),
            include: inner.boolean("includeThoughts", false)?,
            ..Reasoning::default()
        })
    };
    let silent = Reasoning { include: false, ..Reasoning::default() };
    let read = inner.map_or(Ok(silent), &mut read);
    read.map_err(|fault: Fault| fault.under("thinkingConfig"))
}
