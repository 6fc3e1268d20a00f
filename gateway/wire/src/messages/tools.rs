//! Tools on offer and which of them may be called.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::aside::Aside;
use super::policy;
use crate::fields::{Fault, Fields, Parsed, short};
use crate::limits::Limits;
use crate::request::{Tool, ToolChoice};

/// The tools on offer, in OpenAI's shape, as templates print them.
pub(super) fn parse(fields: Fields<'_>, limits: &Limits, aside: &mut Aside) -> Parsed<Vec<Tool>> {
    let mut names = BTreeSet::new();
    let mut at = 0;
    let tools = fields.each("tools", limits.tools_max, |value| {
        let path = format!("tools[{at}]");
        at += 1;
        let tool = Fields::of(value)?;
        if let Some(kind) = tool.string("type")?.filter(|kind| *kind != "custom") {
            let why = format!("'{}' is run by a provider, not by this server", short(kind));
            let fault = Fault::unsupported("type", why);
            return aside.whole(|| path, value, fault).map(|()| None);
        }
        aside.fields(|| path, tool, policy::TOOL)?;
        let name = name(tool)?;
        if !names.insert(name) {
            return Err(Fault::value("name", "another tool has this name"));
        }
        one(tool, name).map(Some)
    })?;
    Ok(tools.into_iter().flatten().collect())
}

fn name<'a>(tool: Fields<'a>) -> Parsed<&'a str> {
    let name = tool.required_string("name")?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(letters) {
        let why = "expected 1 to 256 of a-z, A-Z, 0-9, '_', '-', '.', ':'";
        return Err(Fault::value("name", why));
    }
    Ok(name)
}

/// What the caller says of it in one order, whichever it was written in, so that prompts with the
/// same tools have the same prefix; the schema keeps the order of its keys.
fn one(tool: Fields<'_>, name: &str) -> Parsed<Tool> {
    tool.object("input_schema")?;
    let schema = tool.get("input_schema").ok_or_else(|| Fault::missing("input_schema"))?;
    let strict = tool.boolean("strict", false)?;
    let mut function = Map::new();
    function.insert("name".into(), name.into());
    if let Some(description) = tool.string("description")? {
        function.insert("description".into(), description.into());
    }
    function.insert("parameters".into(), schema.clone());
    if strict {
        function.insert("strict".into(), true.into());
    }
    let mut value = Map::new();
    value.insert("type".into(), "function".into());
    value.insert("function".into(), function.into());
    Ok(Tool { name: name.to_owned(), strict, value: value.into() })
}

/// Which tools may or must be called, and whether a turn may hold several calls.
pub(super) fn choice(
    fields: Fields<'_>,
    tools: &[Tool],
    aside: &mut Aside,
) -> Parsed<(ToolChoice, bool)> {
    let Some(choice) = fields.object("tool_choice")? else { return Ok((ToolChoice::Auto, true)) };
    let mut read = || {
        aside.fields(|| "tool_choice".into(), choice, policy::TOOL_CHOICE)?;
        let parallel = !choice.boolean("disable_parallel_tool_use", false)?;
        let choice = match choice.required_string("type")? {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "any" if !tools.is_empty() => ToolChoice::Required,
            "any" => return Err(Fault::value("type", "it needs 'tools'")),
            "tool" => named(choice, tools)?,
            _ => {
                let why = "expected 'auto', 'any', 'tool' or 'none'";
                return Err(Fault::value("type", why));
            }
        };
        Ok((choice, parallel))
    };
    match read() {
        Ok(read) => Ok(read),
        // It may mean one of the tools that were put aside.
        Err(_) if aside.has("tools[") => {
            let value = fields.get("tool_choice").unwrap_or(&Value::Null);
            let unmeant = Fault::value("tool_choice", "it means no tool");
            aside.whole(|| "tool_choice".into(), value, unmeant)?;
            Ok((ToolChoice::Auto, true))
        }
        Err(fault) => Err(fault.under("tool_choice")),
    }
}

fn named(choice: Fields<'_>, tools: &[Tool]) -> Parsed<ToolChoice> {
    let name = choice.required_string("name")?;
    if tools.iter().any(|tool| tool.name == name) {
        return Ok(ToolChoice::Named(name.to_owned()));
    }
    Err(Fault::value("name", format!("no tool has the name '{}'", short(name))))
}
