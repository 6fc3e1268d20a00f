//! Arguments in the syntax of Python: see [`crate::tools::Arguments::Python`].
//!
//! Held to a schema, they come in its order, and values are JSON, but for `True`, `False` and
//! `None` where they stand alone. Otherwise they come in any order, with any literals.

use serde_json::Value;

use super::members::{Kinds, List, Member, Members, members};
use super::source::Source;
use super::{unordered, unwritable};
use crate::grammar::lark;
use crate::grammar::schema::SchemaError;

/// Names that no schema has.
const NAME: &str = "/[A-Za-z_][A-Za-z0-9_]{0,63}/";
const SEPARATOR: &str = "\", \"";
const NUMBER: &str = r"/-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][+\-]?[0-9]{1,2})?/";
const STRING: &str = concat!(
    r#"/"(?:[^"\\\x00-\x1f]|\\[nrt\\'"])*"/"#,
    " | ",
    r#"/'(?:[^'\\\x00-\x1f]|\\[nrt\\'"])*'/"#,
);

/// Arguments that a prepared schema allows.
///
/// # Errors
/// What of it cannot be written in this way.
pub(super) fn held(source: &mut Source, prepared: &Value) -> Result<String, SchemaError> {
    let all = members(prepared)?;
    let mut lists = Vec::new();
    for list in &all.lists {
        lists.push(held_list(source, &all, list)?);
    }
    Ok(source.either(&lists))
}

fn held_list(
    source: &mut Source,
    all: &Members<'_>,
    list: &List<'_>,
) -> Result<String, SchemaError> {
    if list.members.is_empty() && list.open {
        return Ok(free(source, None));
    }
    // What may follow where nothing was written yet, and where something was; from the last
    // argument to the first.
    let (mut first, mut more) = ("\"\"".to_owned(), "\"\"".to_owned());
    for member in list.members.iter().rev() {
        let value = value(source, all, member).filter(|_| is_name(member.key));
        let Some(value) = value else {
            if member.required {
                return Err(unwritable(member.key));
            }
            continue;
        };
        let item = format!("{} {value}", lark::string(&format!("{}=", member.key)));
        let begun = format!("{item} {more}");
        let behind = format!("{SEPARATOR} {item} {more}");
        let or = |written: String, left_out: &str| {
            if member.required { written } else { format!("{written} | {left_out}") }
        };
        let (begun, behind) = (or(begun, &first), or(behind, &more));
        (first, more) = (source.rule(begun), source.rule(behind));
    }
    Ok(first)
}

/// Any arguments.
pub(super) fn free(source: &mut Source, parameters: Option<&Value>) -> String {
    let value = literal(source);
    let named = parameters.and_then(|parameters| parameters.get("properties"));
    let keys = named.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key);
    let keys: Vec<&str> = keys.map(String::as_str).filter(|key| is_name(key)).collect();
    let once =
        keys.iter().map(|key| source.rule(format!("{} {value}", lark::string(&format!("{key}=")))));
    let once: Vec<String> = once.collect();
    let open =
        |parameters: &Value| parameters.get("additionalProperties") != Some(&Value::Bool(false));
    let further = parameters.is_none_or(open).then(|| {
        let names: Vec<String> = keys.iter().map(|key| lark::string(key)).collect();
        let name = if names.is_empty() {
            NAME.to_owned()
        } else {
            format!("{NAME} & ~({})", names.join(" | "))
        };
        let name = source.terminal(format!("({name}) \"=\""));
        source.rule(format!("{name} {value}"))
    });
    unordered(source, &once, further.as_deref(), SEPARATOR)
}

/// A name as Python has them.
fn is_name(key: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    key.chars().all(inside) && key.starts_with(|c: char| !c.is_ascii_digit())
}

/// A value; `None` if there is none.
fn value(source: &mut Source, all: &Members<'_>, member: &Member<'_>) -> Option<String> {
    let Kinds { null, yes, no, texts, others } = all.kinds(member);
    let words = [(null, "None"), (yes, "True"), (no, "False")];
    let words = words.into_iter().filter(|(may, _)| *may).map(|(_, word)| lark::string(word));
    let mut options: Vec<String> = words.collect();
    let json = all.json(texts.into_iter().chain(others).collect());
    options.extend(json.map(lark::json_prepared));
    (!options.is_empty()).then(|| source.either(&options))
}

/// Any literal.
fn literal(source: &mut Source) -> String {
    let string = source.terminal(STRING.to_owned());
    let number = source.terminal(NUMBER.to_owned());
    let comma = source.terminal("/, ?/".to_owned());
    let colon = source.terminal("/: ?/".to_owned());
    source.recursive("", |value| {
        let list = format!("\"[\" [{value} ({comma} {value})*] \"]\"");
        let pair = format!("{string} {colon} {value}");
        let dict = format!("\"{{\" [{pair} ({comma} {pair})*] \"}}\"");
        format!("{string} | {number} | \"True\" | \"False\" | \"None\" | {list} | {dict}")
    })
}
