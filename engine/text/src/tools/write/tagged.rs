//! Arguments as elements: see [`crate::tools::Arguments::Tagged`].
//!
//! Held to a schema, they come in its order: those required once, those optional at most once.
//! Otherwise in any order. What a value is follows `values`: the reader decides by the same rule
//! whether it is text or JSON.

use serde_json::{Value, json};

use super::members::{Kinds, List, Member, Members, members};
use super::source::Source;
use super::text::{Beside, until};
use super::{unordered, unwritable};
use crate::TextModel;
use crate::grammar::lark;
use crate::grammar::schema::SchemaError;
use crate::tools::values::{ValueKind, kind_of};

/// Keys of arguments that no schema names.
const KEY: &str = "/[A-Za-z_][A-Za-z0-9_.\\-]{0,63}/";

/// What stands around key and value.
pub(super) struct Tags {
    key_open: String,
    key_close: String,
    /// As a stream.
    value_close: Vec<u8>,
    /// What closes a key as it is spelled; no key holds it.
    key_end: &'static str,
}

impl Tags {
    /// As a model spells them.
    pub(super) fn new(
        text: &TextModel,
        key_open: &str,
        key_close: &'static str,
        value_close: &str,
    ) -> Self {
        let expression = |spelled| lark::expression(&lark::literal(text, spelled));
        Self {
            key_open: expression(key_open),
            key_close: expression(key_close),
            value_close: lark::literal(text, value_close),
            key_end: key_close,
        }
    }

    /// Arguments that a prepared schema allows.
    ///
    /// # Errors
    /// What of it cannot be written in this way.
    pub(super) fn held(
        &self,
        source: &mut Source,
        parameters: Option<&Value>,
        prepared: &Value,
    ) -> Result<String, SchemaError> {
        let all = members(prepared)?;
        let mut lists = Vec::new();
        for list in &all.lists {
            lists.push(self.list(source, parameters, &all, list)?);
        }
        Ok(source.either(&lists))
    }

    fn list(
        &self,
        source: &mut Source,
        parameters: Option<&Value>,
        all: &Members<'_>,
        list: &List<'_>,
    ) -> Result<String, SchemaError> {
        if list.members.is_empty() && list.open {
            return Ok(self.free(source, parameters));
        }
        let mut elements = Vec::new();
        for member in &list.members {
            let value = self.value(source, parameters, all, member);
            match value.filter(|_| self.may_name(member.key)) {
                Some(value) => {
                    let element = self.element(&lark::string(member.key), &value);
                    let element = source.rule(element);
                    elements.push(if member.required { element } else { format!("{element}?") });
                }
                None if member.required => return Err(unwritable(member.key)),
                None => {}
            }
        }
        Ok(source.rule(elements.join(" ")))
    }

    /// Any arguments; those that the schema names are read as it says.
    pub(super) fn free(&self, source: &mut Source, parameters: Option<&Value>) -> String {
        let named = parameters.and_then(|parameters| parameters.get("properties"));
        let keys = named.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key);
        let keys: Vec<&str> = keys.map(String::as_str).filter(|key| self.may_name(key)).collect();
        let once = keys.iter().map(|key| {
            let value = self.any(source, kind_of(parameters, key));
            let element = self.element(&lark::string(key), &value);
            source.rule(element)
        });
        let once: Vec<String> = once.collect();
        let open = |parameters: &Value| {
            parameters.get("additionalProperties") != Some(&Value::Bool(false))
        };
        let further = parameters.is_none_or(open).then(|| {
            let names: Vec<String> = keys.iter().map(|key| lark::string(key)).collect();
            let key = match names.as_slice() {
                [] => KEY.to_owned(),
                names => format!("{KEY} & ~({})", names.join(" | ")),
            };
            let key = source.terminal(key);
            // An argument never has an empty key: it stands for those that have no schema.
            let value = self.any(source, kind_of(parameters, ""));
            let element = self.element(&key, &value);
            source.rule(element)
        });
        unordered(source, &once, further.as_deref(), "")
    }

    fn element(&self, key: &str, value: &str) -> String {
        format!("{} {key} {} {value}", self.key_open, self.key_close)
    }

    fn may_name(&self, key: &str) -> bool {
        !key.is_empty() && !key.contains(self.key_end)
    }

    /// A value with what closes it; `None` if there is none that can be written.
    fn value(
        &self,
        source: &mut Source,
        parameters: Option<&Value>,
        all: &Members<'_>,
        member: &Member<'_>,
    ) -> Option<String> {
        let kind = kind_of(parameters, member.key);
        let Kinds { null, yes, no, texts, mut others } = all.kinds(member);
        let mut options = Vec::new();
        if kind != ValueKind::Json {
            let beside = if kind == ValueKind::Text { Beside::Nothing } else { Beside::Json };
            let texts = texts.iter();
            options.extend(
                texts.filter_map(|schema| until(source, &self.value_close, schema, beside)),
            );
        }
        if kind != ValueKind::Text {
            others.extend(null.then(|| json!({"type": "null"})));
            let bools = [(yes, true), (no, false)].into_iter().filter(|(may, _)| *may);
            others.extend(bools.map(|(_, value)| json!({"const": value})));
            if let Some(schema) = all.json(others) {
                let json = source.rule(lark::json_prepared(schema));
                options.push(format!("{json} {}", lark::expression(&self.value_close)));
            }
        }
        (!options.is_empty()).then(|| source.either(&options))
    }

    /// Any value of this kind, with what closes it.
    fn any(&self, source: &mut Source, kind: ValueKind) -> String {
        if kind == ValueKind::Json {
            let kinds = ["null", "boolean", "number", "array", "object"];
            let json = lark::json_prepared(json!({"type": kinds}));
            let json = source.rule(json);
            let value = format!("{json} {}", lark::expression(&self.value_close));
            return source.rule(value);
        }
        let text = json!({"type": "string"});
        let value = until(source, &self.value_close, &text, Beside::Nothing);
        source.rule(value.unwrap_or_default())
    }
}
