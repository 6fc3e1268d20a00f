//! Tools on offer, which of them may be called, and calls of earlier turns.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fields::{Fault, Fields, Parsed, short};
use crate::limits::Limits;
use crate::request::{Tool, ToolCall, ToolChoice};

/// The tools on offer, checked and kept as they were written.
pub(crate) fn parse(fields: Fields<'_>, limits: &Limits) -> Parsed<Vec<Tool>> {
    let mut names = BTreeSet::new();
    fields.each("tools", limits.tools_max, |value| {
        let function = function(value, &["type", "function", "cache_control"])?;
        let read = || {
            function.only(&["name", "description", "parameters", "strict"])?;
            function.string("description")?;
            function.object("parameters")?;
            let name = function.required_string("name")?;
            let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
            if name.is_empty() || name.len() > 256 || !name.bytes().all(letters) {
                let why = "expected 1 to 256 of a-z, A-Z, 0-9, '_', '-', '.', ':'";
                return Err(Fault::value("name", why));
            }
            Ok((name, function.boolean("strict", false)?))
        };
        let twice = || Fault::value("name", "another tool has this name");
        let checked =
            read().and_then(
                |(name, strict)| {
                    if names.insert(name) { Ok((name, strict)) } else { Err(twice()) }
                },
            );
        let (name, strict) = checked.map_err(|fault| fault.under("function"))?;
        Ok(Tool { name: name.to_owned(), strict, value: value.clone() })
    })
}

/// Which tools may or must be called; each that is named must be on offer.
pub(crate) fn choice(fields: Fields<'_>, tools: &[Tool], limits: &Limits) -> Parsed<ToolChoice> {
    let Some(value) = fields.get("tool_choice") else { return Ok(ToolChoice::Auto) };
    let on_offer = || match tools {
        [] => Err(Fault::value("", "it needs 'tools'")),
        _ => Ok(()),
    };
    let choice = match value {
        Value::String(name) => match name.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => on_offer().map(|()| ToolChoice::Required),
            _ => Err(Fault::value("", "expected 'auto', 'none' or 'required'")),
        },
        Value::Object(_) => on_offer().and_then(|()| choice_object(value, tools, limits)),
        other => Err(Fault::kind("", "a string or an object", other)),
    };
    choice.map_err(|fault| fault.under("tool_choice"))
}

fn choice_object(value: &Value, tools: &[Tool], limits: &Limits) -> Parsed<ToolChoice> {
    let fields = Fields::of(value)?;
    if fields.required_string("type")? != "allowed_tools" {
        return named(value, tools).map(ToolChoice::Named);
    }
    fields.only(&["type", "allowed_tools"])?;
    let inner = fields.object("allowed_tools")?.ok_or_else(|| Fault::missing("allowed_tools"))?;
    let read = || {
        inner.only(&["mode", "tools"])?;
        let required = match inner.required_string("mode")? {
            "auto" => false,
            "required" => true,
            _ => return Err(Fault::value("mode", "expected 'auto' or 'required'")),
        };
        let names = inner.each("tools", limits.tools_max, |item| named(item, tools))?;
        if names.is_empty() {
            return Err(Fault::range("tools", "expected at least one tool", "empty_array"));
        }
        Ok(ToolChoice::Allowed { names, required })
    };
    read().map_err(|fault: Fault| fault.under("allowed_tools"))
}

/// `{"type":"function","function":{"name":..}}` of a tool that is on offer.
fn named(value: &Value, tools: &[Tool]) -> Parsed<String> {
    let function = function(value, &["type", "function"])?;
    let read = || {
        function.only(&["name"])?;
        let name = function.required_string("name")?;
        if tools.iter().any(|tool| tool.name == name) {
            return Ok(name.to_owned());
        }
        Err(Fault::value("name", format!("no tool has the name '{}'", short(name))))
    };
    read().map_err(|fault: Fault| fault.under("function"))
}

/// The function of an object whose type must say that it is one.
fn function<'a>(value: &'a Value, known: &[&str]) -> Parsed<Fields<'a>> {
    let fields = Fields::of(value)?;
    fields.required_string("type")?;
    only_function(fields)?;
    fields.only(known)?;
    fields.object("function")?.ok_or_else(|| Fault::missing("function"))
}

/// A call of an earlier turn.
pub(crate) fn call(fields: Fields<'_>) -> Parsed<ToolCall> {
    only_function(fields)?;
    fields.only(&["id", "type", "function", "index"])?;
    let function = fields.object("function")?.ok_or_else(|| Fault::missing("function"))?;
    let id = fields.required_string("id")?.to_owned();
    let read = || {
        function.only(&["name", "arguments"])?;
        let name = function.required_string("name")?.to_owned();
        let arguments = function.required_string("arguments")?.to_owned();
        Ok(ToolCall { id, name, arguments })
    };
    read().map_err(|fault: Fault| fault.under("function"))
}

fn only_function(fields: Fields<'_>) -> Parsed<()> {
    match fields.string("type")? {
        None | Some("function") => Ok(()),
        Some("custom") => Err(Fault::unsupported("type", "only 'function' tools are available")),
        Some(_) => Err(Fault::value("type", "expected 'function'")),
    }
}
