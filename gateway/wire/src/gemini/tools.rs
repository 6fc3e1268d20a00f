//! Functions on offer, and which of them may or must be called.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::policy::{self, Beyond};
use super::schema::to_json_schema;
use crate::fields::{Fault, Fields, Parsed, bound, short};
use crate::limits::Limits;
use crate::request::{Tool, ToolChoice};

/// Tools and the choice among them.
pub(super) fn parse(
    fields: Fields<'_>,
    limits: &Limits,
    beyond: &mut Beyond,
) -> Parsed<(Vec<Tool>, ToolChoice)> {
    let mut tools = Vec::new();
    let mut at = 0;
    fields.each("tools", limits.tools_max, |value| {
        let group = Fields::of(value)?;
        beyond.table(&format!("tools[{at}]"), group, policy::TOOL)?;
        at += 1;
        tools.extend(group.each("functionDeclarations", limits.tools_max, declaration)?);
        Ok(())
    })?;
    bound(tools.len(), limits.tools_max).map_err(|fault| fault.under("tools"))?;
    let mut names = BTreeSet::new();
    if let Some(twice) = tools.iter().find(|tool| !names.insert(&tool.name)) {
        let why = format!("two functions have the name '{}'", short(&twice.name));
        return Err(Fault::value("tools", why));
    }
    let config = fields.object("toolConfig")?;
    let choice = config.map(|config| choose(config, &mut tools, limits, beyond)).transpose();
    Ok((tools, choice.map_err(|fault| fault.under("toolConfig"))?.unwrap_or_default()))
}

/// A function as the tool that OpenAI's dialect would have it: templates print that.
fn declaration(value: &Value) -> Parsed<Tool> {
    let fields = Fields::of(value)?;
    Beyond::Refused.table("", fields, policy::DECLARATION)?;
    let name = fields.required_string("name")?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(letters) {
        let why = "expected 1 to 256 of a-z, A-Z, 0-9, '_', '-', '.', ':'";
        return Err(Fault::value("name", why));
    }
    let mut function = Map::new();
    function.insert("name".into(), name.into());
    if let Some(description) = fields.string("description")? {
        function.insert("description".into(), description.into());
    }
    let own = fields.get("parameters").map(to_json_schema).transpose();
    let own = own.map_err(|fault| fault.under("parameters"))?;
    fields.object("parametersJsonSchema")?;
    let schema = match (own, fields.get("parametersJsonSchema")) {
        (Some(_), Some(_)) => {
            let why = "it cannot be combined with 'parameters'";
            return Err(Fault::value("parametersJsonSchema", why));
        }
        (own, schema) => own.or(schema.cloned()),
    };
    function.extend(schema.map(|schema| ("parameters".to_owned(), schema)));
    let value = json!({"type": "function", "function": function});
    Ok(Tool { name: name.to_owned(), strict: false, value })
}

/// The mode, with the functions that it is limited to. `VALIDATED` makes the tools strict.
fn choose(
    config: Fields<'_>,
    tools: &mut [Tool],
    limits: &Limits,
    beyond: &mut Beyond,
) -> Parsed<ToolChoice> {
    beyond.table("toolConfig", config, policy::TOOL_CONFIG)?;
    let Some(calling) = config.object("functionCallingConfig")? else {
        return Ok(ToolChoice::Auto);
    };
    let path = "toolConfig.functionCallingConfig";
    let mut read = |beyond: &mut Beyond| {
        beyond.table(path, calling, policy::CALLING)?;
        let names = calling.each("allowedFunctionNames", limits.tools_max, |value| {
            let name = value.as_str().ok_or_else(|| Fault::kind("", "a string", value))?;
            if tools.iter().any(|tool| tool.name == name) {
                return Ok(name.to_owned());
            }
            Err(Fault::value("", format!("no function has the name '{}'", short(name))))
        })?;
        match (calling.string("mode")?.unwrap_or("AUTO"), &names[..]) {
            ("AUTO" | "MODE_UNSPECIFIED", []) => Ok(ToolChoice::Auto),
            ("NONE", []) => Ok(ToolChoice::None),
            ("ANY" | "VALIDATED", _) if tools.is_empty() => {
                Err(Fault::value("mode", "it needs functions in 'tools'"))
            }
            ("ANY", []) => Ok(ToolChoice::Required),
            ("ANY", [name]) => Ok(ToolChoice::Named(name.clone())),
            ("ANY", _) => Ok(ToolChoice::Allowed { names, required: true }),
            ("VALIDATED", _) => {
                tools.iter_mut().for_each(hold);
                Ok(match names[..] {
                    [] => ToolChoice::Auto,
                    _ => ToolChoice::Allowed { names, required: false },
                })
            }
            ("AUTO" | "MODE_UNSPECIFIED" | "NONE", _) => {
                let why = "it needs the mode 'ANY' or 'VALIDATED'";
                Err(Fault::value("allowedFunctionNames", why))
            }
            _ => Err(Fault::value("mode", "expected 'AUTO', 'ANY', 'NONE' or 'VALIDATED'")),
        }
    };
    read(beyond).map_err(|fault| fault.under("functionCallingConfig"))
}

/// The arguments must be valid.
fn hold(tool: &mut Tool) {
    tool.strict = true;
    tool.value["function"]["strict"] = true.into();
}
