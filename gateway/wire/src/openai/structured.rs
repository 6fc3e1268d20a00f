//! The fields that hold an answer to a shape: OpenAI's `response_format`, vLLM's
//! `structured_outputs` and its older `guided_*`. A request may have one of them. Only their own
//! form is checked here; whether a schema, a pattern or a grammar can be enforced is for its
//! compiler to say.

use serde_json::Value;

use super::policy;
use crate::fields::{Fault, Fields, Parsed, bound};
use crate::limits::Limits;
use crate::request::{Form, Structured, Tag};

/// Reads a field's value; `None`: it asks for nothing.
type Read = fn(&Value, &Limits) -> Parsed<Option<Structured>>;

const FIELDS: [(&str, Read); 6] = [
    ("response_format", response_format),
    ("structured_outputs", structured_outputs),
    ("guided_json", json),
    ("guided_regex", regex),
    ("guided_choice", choice),
    ("guided_grammar", grammar),
];

/// Those of `structured_outputs`.
const FORMS: [(&str, Read); 6] = [
    ("json", json),
    ("regex", regex),
    ("choice", choice),
    ("grammar", grammar),
    ("json_object", json_object),
    ("structural_tag", structural_tag),
];

/// The shape that a request asks for.
pub(crate) fn parse(fields: Fields<'_>, limits: &Limits) -> Parsed<Option<Structured>> {
    one_of(fields, &FIELDS, limits)
}

/// Reads the one field that is there; a second one is refused.
fn one_of(
    fields: Fields<'_>,
    known: &[(&str, Read)],
    limits: &Limits,
) -> Parsed<Option<Structured>> {
    let mut found: Option<(&str, Structured)> = None;
    for (name, read) in known {
        let Some(value) = fields.get(name) else { continue };
        let read = read(value, limits).map_err(|fault| fault.under(name))?;
        let Some(mut structured) = read else { continue };
        if let Some((first, _)) = &found {
            return Err(Fault::value(name, format!("it cannot be combined with '{first}'")));
        }
        let dot = if structured.field.is_empty() { "" } else { "." };
        structured.field = format!("{name}{dot}{}", structured.field);
        found = Some((name, structured));
    }
    Ok(found.map(|(_, structured)| structured))
}

/// A shape that a field's own value says.
fn of(form: Form) -> Structured {
    Structured { form, field: String::new(), name: None, description: None, strict: None }
}

fn response_format(value: &Value, limits: &Limits) -> Parsed<Option<Structured>> {
    let fields = Fields::of(value)?;
    match fields.required_string("type")? {
        "text" => fields.only(&["type"]).map(|()| None),
        "json_object" => {
            fields.only(&["type"])?;
            Ok(Some(of(Form::JsonObject)))
        }
        "json_schema" => {
            fields.only(&["type", "json_schema"])?;
            let inner =
                fields.object("json_schema")?.ok_or_else(|| Fault::missing("json_schema"))?;
            json_schema(inner).map(Some).map_err(|fault| fault.under("json_schema"))
        }
        "structural_tag" => tags(fields, limits).map(|form| Some(of(form))),
        _ => Err(Fault::value(
            "type",
            "expected 'text', 'json_object', 'json_schema' or 'structural_tag'; other shapes go \
             into 'structured_outputs'",
        )),
    }
}

/// `strict` or not: an answer made here is valid for the schema either way. A provider is told.
fn json_schema(fields: Fields<'_>) -> Parsed<Structured> {
    fields.only(&["name", "description", "schema", "strict"])?;
    let name = fields.required_string("name")?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(letters) {
        return Err(Fault::value("name", "expected 1 to 64 of a-z, A-Z, 0-9, '_', '-'"));
    }
    fields.object("schema")?;
    let schema = fields.get("schema").ok_or_else(|| Fault::missing("schema"))?;
    Ok(Structured {
        form: Form::JsonSchema(schema.clone()),
        field: "json_schema.schema".into(),
        name: Some(name.to_owned()),
        description: fields.string("description")?.map(str::to_owned),
        strict: Some(fields.boolean("strict", false)?),
    })
}

fn structured_outputs(value: &Value, limits: &Limits) -> Parsed<Option<Structured>> {
    let fields = Fields::of(value)?;
    policy::apply(fields, &[policy::STRUCTURED])?;
    let names = FORMS.map(|(name, _)| name).join("', '");
    let none = || Fault::value("", format!("expected one of '{names}'"));
    one_of(fields, &FORMS, limits)?.ok_or_else(none).map(Some)
}

fn json(value: &Value, _: &Limits) -> Parsed<Option<Structured>> {
    Ok(Some(of(Form::JsonSchema(object(value)?))))
}

fn regex(value: &Value, limits: &Limits) -> Parsed<Option<Structured>> {
    text(value, limits.grammar_bytes_max).map(|text| Some(of(Form::Regex(text))))
}

fn grammar(value: &Value, limits: &Limits) -> Parsed<Option<Structured>> {
    text(value, limits.grammar_bytes_max).map(|text| Some(of(Form::Grammar(text))))
}

fn json_object(value: &Value, _: &Limits) -> Parsed<Option<Structured>> {
    match value {
        Value::Bool(on) => Ok(on.then(|| of(Form::JsonObject))),
        other => Err(Fault::kind("", "a boolean", other)),
    }
}

fn structural_tag(value: &Value, limits: &Limits) -> Parsed<Option<Structured>> {
    let value = object(value)?;
    let fields = Fields::of(&value)?;
    if fields.string("type")?.is_some_and(|kind| kind != "structural_tag") {
        return Err(Fault::value("type", "expected 'structural_tag'"));
    }
    tags(fields, limits).map(|form| Some(of(form)))
}

fn choice(value: &Value, limits: &Limits) -> Parsed<Option<Structured>> {
    let Value::Array(items) = value else {
        return Err(Fault::kind("", "an array of strings", value));
    };
    if items.is_empty() {
        return Err(Fault::range("", "expected at least one text", "empty_array"));
    }
    bound(items.len(), limits.choice_texts_max)?;
    let mut texts = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match item {
            Value::String(text) => texts.push(text.clone()),
            other => return Err(Fault::kind(&format!("[{index}]"), "a string", other)),
        }
    }
    within(texts.iter().map(String::len).sum(), limits.grammar_bytes_max)?;
    Ok(Some(of(Form::Choice(texts))))
}

/// An object, as itself or as its JSON in a string.
fn object(value: &Value) -> Parsed<Value> {
    let value = match value {
        Value::String(text) => serde_json::from_str(text)
            .map_err(|error| Fault::value("", format!("it is not JSON: {error}")))?,
        other => other.clone(),
    };
    Fields::of(&value)?;
    Ok(value)
}

/// A text of at least one byte.
fn text(value: &Value, bytes_max: usize) -> Parsed<String> {
    match value {
        Value::String(text) if text.is_empty() => Err(Fault::value("", "it must not be empty")),
        Value::String(text) => within(text.len(), bytes_max).map(|()| text.clone()),
        other => Err(Fault::kind("", "a string", other)),
    }
}

fn within(bytes: usize, max: usize) -> Parsed<()> {
    if bytes <= max {
        return Ok(());
    }
    let why = format!("expected at most {max} bytes, but got {bytes}");
    Err(Fault::range("", why, "string_above_max_length"))
}

/// Tags and their triggers.
fn tags(fields: Fields<'_>, limits: &Limits) -> Parsed<Form> {
    if fields.get("format").is_some() {
        return Err(Fault::unsupported("format", "use 'structures' and 'triggers'"));
    }
    fields.only(&["type", "structures", "triggers"])?;
    for name in ["structures", "triggers"] {
        let items = fields.list(name, limits.tags_max)?.ok_or_else(|| Fault::missing(name))?;
        if items.is_empty() {
            return Err(Fault::range(name, "expected at least one item", "empty_array"));
        }
    }
    let triggers =
        fields.each("triggers", limits.tags_max, |item| text(item, limits.mark_bytes_max))?;
    let mut used = vec![false; triggers.len()];
    let tags = fields.each("structures", limits.tags_max, |item| {
        let tag = tag(Fields::of(item)?, limits)?;
        let mut own = (0..triggers.len()).filter(|at| tag.begin.starts_with(&triggers[*at]));
        // With two, what follows the shorter one would depend on which is looked for first.
        let (Some(at), None) = (own.next(), own.next()) else {
            return Err(Fault::value("begin", "it must begin with exactly one of the triggers"));
        };
        used[at] = true;
        Ok(tag)
    })?;
    match used.iter().position(|used| !used) {
        Some(at) => Err(Fault::value("", "no structure begins with it").at("triggers", at)),
        None => Ok(Form::Tags(tags, triggers)),
    }
}

fn tag(fields: Fields<'_>, limits: &Limits) -> Parsed<Tag> {
    fields.only(&["begin", "schema", "end"])?;
    let get = |name| fields.get(name).ok_or_else(|| Fault::missing(name));
    let begin = text(get("begin")?, limits.mark_bytes_max).map_err(|f| f.under("begin"))?;
    let schema = object(get("schema")?).map_err(|f| f.under("schema"))?;
    let end = fields.required_string("end")?;
    within(end.len(), limits.mark_bytes_max).map_err(|f| f.under("end"))?;
    Ok(Tag { begin, schema, end: end.to_owned() })
}
