//! Tools. The internal model has functions alone, so a tool of a namespace becomes a function with
//! a longer name, and a custom tool, whose input is plain text, a function with that text as its
//! only argument. [`Names`] remembers them, and calls go back as what the caller knows.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::beyond::Beyond;
use super::policy;
use crate::fields::{Fault, Fields, Parsed, bound, short};
use crate::limits::Limits;
use crate::openai::is_strict;
use crate::request::{Tool, ToolChoice};

/// The argument of a custom tool.
const INPUT: &str = "input";

/// What a caller calls a tool whose function has another name or shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) custom: bool,
}

/// Such tools, by the name of their function.
pub(super) type Names = BTreeMap<String, Named>;

/// The name of a tool's function.
pub(super) fn joined(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}__{name}"))
}

/// A custom tool's input as the arguments of its function.
pub(super) fn custom_arguments(input: &str) -> String {
    json!({INPUT: input}).to_string()
}

/// The other way around. Arguments that were cut off are handed out as they are.
pub(super) fn custom_input(arguments: &str) -> Cow<'_, str> {
    let value: Option<Value> = serde_json::from_str(arguments).ok();
    match value.as_ref().and_then(|value| value.get(INPUT)?.as_str()) {
        Some(input) => Cow::Owned(input.to_owned()),
        None => Cow::Borrowed(arguments),
    }
}

/// Tools under way.
struct Offer<'b> {
    tools: Vec<Tool>,
    names: Names,
    seen: BTreeSet<String>,
    beyond: &'b mut Beyond,
}

/// The tools on offer.
pub(super) fn parse(
    fields: Fields<'_>,
    limits: &Limits,
    beyond: &mut Beyond,
) -> Parsed<(Vec<Tool>, Names)> {
    let (tools, names) = (Vec::new(), Names::new());
    let mut offer = Offer { tools, names, seen: BTreeSet::new(), beyond };
    let mut index = 0..;
    fields.each("tools", limits.tools_max, |value| {
        let at = format!("tools[{}]", index.next().unwrap_or(limits.tools_max));
        let fields = Fields::of(value)?;
        match fields.required_string("type")? {
            "function" | "custom" => offer.tool(fields, None, &at),
            "namespace" => offer.namespace(fields, limits, &at),
            kind => {
                let why = format!("'{}' is a tool of another server", short(kind));
                offer.beyond.value(&at, value, Fault::unsupported("type", why))
            }
        }
    })?;
    bound(offer.tools.len(), limits.tools_max).map_err(|fault| fault.under("tools"))?;
    Ok((offer.tools, offer.names))
}

impl Offer<'_> {
    /// What is said of the namespace is said with its first tool: the model reads tools alone.
    fn namespace(&mut self, fields: Fields<'_>, limits: &Limits, at: &str) -> Parsed<()> {
        self.beyond.fields(fields, at, policy::NAMESPACE)?;
        let namespace = name(fields)?;
        let mut about = fields.string("description")?;
        let mut index = 0..;
        fields.each("tools", limits.tools_max, |value| {
            let at = format!("{at}.tools[{}]", index.next().unwrap_or(limits.tools_max));
            self.tool(Fields::of(value)?, Some((namespace, about.take())), &at)
        })?;
        Ok(())
    }

    fn tool(
        &mut self,
        fields: Fields<'_>,
        namespace: Option<(&str, Option<&str>)>,
        at: &str,
    ) -> Parsed<()> {
        let (namespace, about) = namespace.unzip();
        let custom = match fields.required_string("type")? {
            "function" => false,
            "custom" => true,
            _ => return Err(Fault::value("type", "expected 'function' or 'custom'")),
        };
        let own = name(fields)?;
        let name = joined(namespace, own);
        if !self.seen.insert(name.clone()) {
            return Err(Fault::value("name", "another tool has this name"));
        }
        let description = fields.string("description")?;
        let description = match (about.flatten(), description) {
            (Some(about), Some(own)) => Some(format!("{about}\n\n{own}")),
            (about, own) => own.or(about).map(str::to_owned),
        };
        let (function, strict) = if custom {
            self.beyond.fields(fields, at, policy::CUSTOM)?;
            (self.custom(fields, &name, description, at)?, true)
        } else {
            self.beyond.fields(fields, at, policy::FUNCTION)?;
            (function(fields, &name, description)?, strict(fields)?)
        };
        if custom || namespace.is_some() {
            let namespace = namespace.map(str::to_owned);
            self.names.insert(name.clone(), Named { namespace, name: own.to_owned(), custom });
        }
        let value = json!({"type": "function", "function": function});
        self.tools.push(Tool { name, strict, value });
        Ok(())
    }

    /// Its text is held to a pattern where it has one. A grammar cannot hold a text inside of
    /// arguments.
    fn custom(
        &mut self,
        fields: Fields<'_>,
        name: &str,
        description: Option<String>,
        at: &str,
    ) -> Parsed<Map<String, Value>> {
        let mut text = json!({"type": "string"});
        if let Some(format) = fields.object("format")? {
            let pattern = pattern(format).map_err(|fault| fault.under("format"))?;
            match pattern {
                Ok(Some(pattern)) => text["pattern"] = json!(format!("^(?:{pattern})$")),
                Ok(None) => {}
                Err(fault) => {
                    let value = fields.get("format").unwrap_or(&Value::Null);
                    self.beyond.value(&format!("{at}.format"), value, fault.under("format"))?;
                }
            }
        }
        let mut out = Map::new();
        out.insert("name".into(), json!(name));
        out.extend(description.map(|text| ("description".to_owned(), json!(text))));
        let parameters = json!({"type": "object", "properties": {INPUT: text},
            "required": [INPUT], "additionalProperties": false});
        out.insert("parameters".into(), parameters);
        out.insert("strict".into(), json!(true));
        Ok(out)
    }
}

/// The pattern of a custom tool's format; inside: it cannot be honoured.
fn pattern(format: Fields<'_>) -> Parsed<Result<Option<&str>, Fault>> {
    match format.required_string("type")? {
        "text" => format.only(&["type"]).map(|()| Ok(None)),
        "grammar" => {
            format.only(&["type", "syntax", "definition"])?;
            let definition = format.required_string("definition")?;
            let why = "a grammar can hold a whole answer, not the input of a tool; use 'regex'";
            match format.required_string("syntax")? {
                "regex" => Ok(Ok(Some(definition))),
                "lark" => Ok(Err(Fault::unsupported("syntax", why))),
                _ => Err(Fault::value("syntax", "expected 'lark' or 'regex'")),
            }
        }
        _ => Err(Fault::value("type", "expected 'text' or 'grammar'")),
    }
}

fn name(fields: Fields<'_>) -> Parsed<&str> {
    let name = fields.required_string("name")?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(letters) {
        let why = "expected 1 to 128 of a-z, A-Z, 0-9, '_', '-', '.', ':'";
        return Err(Fault::value("name", why));
    }
    Ok(name)
}

/// Whether calls are held to the schema. Where nothing is said OpenAI makes it strict if it can, so
/// that one which needs no change for it is: to what a change would make of others nobody agreed.
/// [`Tool::says_strict`] tells it from one that its caller calls so.
/// Source: OpenAI's guide to function calling, on an omitted `strict`.
fn strict(fields: Fields<'_>) -> Parsed<bool> {
    let by_itself = || fields.get("parameters").is_some_and(is_strict);
    Ok(if fields.get("strict").is_some() { fields.boolean("strict", false)? } else { by_itself() })
}

/// A function as a chat has it, in the order in which it was written and without what says
/// nothing: templates print it.
fn function(
    fields: Fields<'_>,
    name: &str,
    mut description: Option<String>,
) -> Parsed<Map<String, Value>> {
    fields.object("parameters")?;
    let mut out = Map::new();
    for (key, value) in fields.entries().filter(|(_, value)| !value.is_null()) {
        let value = match key {
            "name" => json!(name),
            "description" => description.take().map_or(Value::Null, Value::String),
            "parameters" => value.clone(),
            "strict" if value == &Value::Bool(true) => value.clone(),
            _ => continue,
        };
        out.insert(key.to_owned(), value);
    }
    out.extend(description.map(|text| ("description".to_owned(), Value::String(text))));
    Ok(out)
}

/// Which tools may or must be called; each that is named must be on offer.
pub(super) fn choice(
    fields: Fields<'_>,
    tools: &[Tool],
    limits: &Limits,
    beyond: &mut Beyond,
) -> Parsed<ToolChoice> {
    let Some(value) = fields.get("tool_choice") else { return Ok(ToolChoice::Auto) };
    let read = || match value {
        Value::String(name) => match name.as_str() {
            "auto" => Ok(Ok(ToolChoice::Auto)),
            "none" => Ok(Ok(ToolChoice::None)),
            "required" if tools.is_empty() => Ok(Err(Fault::value("", "it needs 'tools'"))),
            "required" => Ok(Ok(ToolChoice::Required)),
            _ => Err(Fault::value("", "expected 'auto', 'none' or 'required'")),
        },
        Value::Object(_) => chosen(Fields::of(value)?, tools, limits),
        other => Err(Fault::kind("", "a string or an object", other)),
    };
    match read().map_err(|fault: Fault| fault.under("tool_choice"))? {
        Ok(choice) => Ok(choice),
        Err(fault) => {
            beyond.value("tool_choice", value, fault.under("tool_choice"))?;
            Ok(ToolChoice::Auto)
        }
    }
}

/// The choice that an object says; inside: it cannot be honoured.
fn chosen(
    fields: Fields<'_>,
    tools: &[Tool],
    limits: &Limits,
) -> Parsed<Result<ToolChoice, Fault>> {
    if fields.required_string("type")? != "allowed_tools" {
        return Ok(named(fields, tools)?.map(ToolChoice::Named));
    }
    fields.only(&["type", "mode", "tools"])?;
    let required = match fields.required_string("mode")? {
        "auto" => false,
        "required" => true,
        _ => return Err(Fault::value("mode", "expected 'auto' or 'required'")),
    };
    let names = fields.each("tools", limits.tools_max, |item| named(Fields::of(item)?, tools))?;
    if names.is_empty() {
        return Err(Fault::range("tools", "expected at least one tool", "empty_array"));
    }
    let names = names.into_iter().enumerate();
    let names = names.map(|(at, name)| name.map_err(|fault| fault.at("tools", at)));
    Ok(names.collect::<Result<_, _>>().map(|names| ToolChoice::Allowed { names, required }))
}

/// The function of a tool that is named; inside: it is a tool of another server.
fn named(fields: Fields<'_>, tools: &[Tool]) -> Parsed<Result<String, Fault>> {
    let kind = fields.required_string("type")?;
    if !matches!(kind, "function" | "custom") {
        let why = format!("'{}' is a tool of another server", short(kind));
        return Ok(Err(Fault::unsupported("type", why)));
    }
    fields.only(&["type", "name", "namespace"])?;
    let name = joined(fields.string("namespace")?, fields.required_string("name")?);
    if tools.iter().any(|tool| tool.name == name) {
        return Ok(Ok(name));
    }
    Err(Fault::value("name", format!("no tool has the name '{}'", short(&name))))
}
