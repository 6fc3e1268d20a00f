//! Google's `Schema`, an older cousin of JSON Schema, as JSON Schema: types in capitals,
//! `nullable`, the order of properties beside them, counts as texts.
//! Source: the type `Schema` of the Gemini API's reference.

use serde_json::{Map, Value, json};

use crate::fields::{Fault, Fields, Parsed, short};

/// Words that both have, and that mean the same.
const SAME: [&str; 9] = [
    "title",
    "description",
    "default",
    "required",
    "pattern",
    "minimum",
    "maximum",
    "additionalProperties",
    "$ref",
];

/// Counts, which may be written as texts.
const COUNTS: [&str; 6] =
    ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// Formats that only say how Google's own clients hold a value.
const OWN_FORMATS: [&str; 5] = ["int32", "int64", "float", "double", "enum"];

/// Translates a schema. Nesting is bounded by whoever parsed the text.
///
/// # Errors
/// A word that `Schema` does not have, or a value of the wrong kind, by its path.
pub(super) fn to_json_schema(value: &Value) -> Parsed<Value> {
    let fields = Fields::of(value)?;
    let mut out = Map::new();
    let kind = kind(fields)?;
    let nullable = fields.boolean("nullable", false)?;
    if let Some(kind) = &kind {
        let value = if nullable { json!([kind, "null"]) } else { json!(kind) };
        out.insert("type".into(), value);
    }
    for (name, value) in fields.entries() {
        match name {
            "type" | "nullable" | "propertyOrdering" => {}
            "properties" => {
                let properties = properties(fields).map_err(|fault| fault.under(name))?;
                out.insert(name.into(), Value::Object(properties));
            }
            "items" => {
                let items = to_json_schema(value).map_err(|fault| fault.under(name))?;
                out.insert(name.into(), items);
            }
            "anyOf" => {
                let mut any = fields.each(name, usize::MAX, to_json_schema)?;
                any.extend((nullable && kind.is_none()).then(|| json!({"type": "null"})));
                out.insert(name.into(), any.into());
            }
            "defs" | "$defs" => {
                let defs = named(fields, name).map_err(|fault| fault.under(name))?;
                out.insert("$defs".into(), Value::Object(defs));
            }
            "ref" => {
                out.insert("$ref".into(), value.clone());
            }
            "enum" => {
                let values = choices(fields, kind.as_deref(), nullable)?;
                out.insert(name.into(), values);
            }
            "format" => {
                let format = fields.string(name)?.unwrap_or_default();
                if !OWN_FORMATS.contains(&format) {
                    out.insert(name.into(), value.clone());
                }
            }
            "example" => {
                out.insert("examples".into(), json!([value]));
            }
            _ if COUNTS.contains(&name) => {
                out.insert(name.into(), count(value).map_err(|fault| fault.under(name))?);
            }
            _ if SAME.contains(&name) => {
                out.insert(name.into(), value.clone());
            }
            _ => {
                let why = "it is no word of Google's Schema; use the field for JSON Schema";
                return Err(Fault::unsupported(&short(name), why));
            }
        }
    }
    Ok(Value::Object(out))
}

/// The type, in small letters.
fn kind(fields: Fields<'_>) -> Parsed<Option<String>> {
    let Some(name) = fields.string("type")? else { return Ok(None) };
    let kind = name.to_ascii_lowercase();
    match kind.as_str() {
        "type_unspecified" => Ok(None),
        "string" | "number" | "integer" | "boolean" | "array" | "object" | "null" => Ok(Some(kind)),
        _ => Err(Fault::value("type", format!("'{}' is not a type", short(name)))),
    }
}

/// The properties, in the order that `propertyOrdering` gives them.
fn properties(fields: Fields<'_>) -> Parsed<Map<String, Value>> {
    let mut unordered = named(fields, "properties")?;
    let mut out = Map::new();
    let order = fields.list("propertyOrdering", usize::MAX)?.unwrap_or_default();
    for name in order.iter().filter_map(Value::as_str) {
        // The order of what stays behind is kept.
        if let Some((name, schema)) = unordered.shift_remove_entry(name) {
            out.insert(name, schema);
        }
    }
    out.extend(unordered);
    Ok(out)
}

fn named(fields: Fields<'_>, field: &str) -> Parsed<Map<String, Value>> {
    let mut out = Map::new();
    for (name, schema) in fields.object(field)?.iter().flat_map(|inner| inner.entries()) {
        let schema = to_json_schema(schema).map_err(|fault| fault.under(&short(name)))?;
        out.insert(name.to_owned(), schema);
    }
    Ok(out)
}

/// Values of an enumeration, which are texts whatever the type is.
fn choices(fields: Fields<'_>, kind: Option<&str>, nullable: bool) -> Parsed<Value> {
    let numbers = matches!(kind, Some("integer" | "number"));
    let mut values = fields.each("enum", usize::MAX, |value| match value {
        Value::String(text) if numbers => {
            let number = serde_json::from_str::<serde_json::Number>(text);
            number.map(Value::from).map_err(|_| Fault::value("", "expected a number"))
        }
        other => Ok(other.clone()),
    })?;
    values.extend(nullable.then_some(Value::Null));
    Ok(values.into())
}

fn count(value: &Value) -> Parsed<Value> {
    let count = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    count.map(Value::from).ok_or_else(|| Fault::kind("", "a natural number", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: &Value, expect: &Value) {
        let got = to_json_schema(schema).expect("a Schema");
        // As text: the order of keys is part of it.
        assert_eq!(got.to_string(), expect.to_string());
    }

    #[test]
    fn every_word() {
        check(
            &json!({"type": "OBJECT", "properties": {
                    "b": {"type": "INTEGER", "format": "int64", "enum": ["1", "2"]},
                    "a": {"type": "STRING", "nullable": true, "format": "date-time"},
                    "c": {"type": "ARRAY", "items": {"type": "NUMBER"}, "minItems": "1"}},
                "required": ["a"], "propertyOrdering": ["a", "b"]}),
            &json!({"type": "object", "properties": {
                    "a": {"type": ["string", "null"], "format": "date-time"},
                    "b": {"type": "integer", "enum": [1, 2]},
                    "c": {"type": "array", "items": {"type": "number"}, "minItems": 1}},
                "required": ["a"]}),
        );
        check(
            &json!({"anyOf": [{"type": "STRING"}, {"ref": "#/$defs/x"}], "nullable": true,
                "defs": {"x": {"type": "BOOLEAN", "example": true}}}),
            &json!({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/x"}, {"type": "null"}],
                "$defs": {"x": {"type": "boolean", "examples": [true]}}}),
        );
        check(
            &json!({"type": "STRING", "format": "enum", "enum": ["a"], "nullable": true}),
            &json!({"type": ["string", "null"], "enum": ["a", null]}),
        );
    }

    #[test]
    fn refusals_name_the_field() {
        let check = |schema: Value, expect: &str| {
            let fault = to_json_schema(&schema).expect_err("refused");
            assert_eq!(crate::ApiError::from(fault).param.as_deref(), Some(expect));
        };
        check(json!({"properties": {"a": {"type": "DATE"}}}), "properties.a.type");
        check(json!({"items": {"oneOf": []}}), "items.oneOf");
        check(json!({"anyOf": [{"minItems": -1}]}), "anyOf[0].minItems");
        check(json!({"type": "INTEGER", "enum": ["x"]}), "enum[0]");
    }
}
