//! Whether OpenAI takes a schema as strict. Where the caller's dialect has no such word, strict is
//! said only of a schema that is surely taken, for any other is refused with the whole request.
//! Source: "Supported schemas" in OpenAI's guide to structured outputs.

use serde_json::{Map, Value};

/// Words that a strict schema may have. The guide has more, which not every model takes.
const WORDS: [&str; 21] = [
    "$schema",
    "$defs",
    "definitions",
    "$ref",
    "title",
    "description",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "anyOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Whether the schema keeps the rules: an object at the root, and at every level each object is
/// closed and requires all of its properties. Nesting is bounded by whoever parsed the text.
pub(crate) fn is_strict(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "object")
        && schema.get("anyOf").is_none()
        && level(schema)
}

/// One level and all below it.
fn level(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else { return false };
    if let Some(place) = fields.get("$ref") {
        // It stays within the schema, and nothing may stand beside it.
        return fields.len() == 1 && place.as_str().is_some_and(|place| place.starts_with('#'));
    }
    let known = fields.keys().all(|name| WORDS.contains(&name.as_str()));
    let typed = fields.contains_key("type") || fields.contains_key("anyOf");
    known && typed && (!is_object(fields) || is_closed(fields)) && below(fields)
}

fn is_object(fields: &Map<String, Value>) -> bool {
    fields.contains_key("properties")
        || fields.get("type").is_some_and(|kind| match kind {
            Value::Array(kinds) => kinds.iter().any(|kind| kind == "object"),
            kind => kind == "object",
        })
}

fn is_closed(fields: &Map<String, Value>) -> bool {
    let required = fields.get("required").and_then(Value::as_array);
    let required = required.map(Vec::as_slice).unwrap_or_default();
    let properties = fields.get("properties").and_then(Value::as_object);
    let all_required = |all: &Map<String, Value>| {
        all.keys().all(|name| required.iter().any(|own| own == name.as_str()))
    };
    let known = |name: &Value| {
        name.as_str().is_some_and(|name| properties.is_some_and(|all| all.contains_key(name)))
    };
    fields.get("additionalProperties") == Some(&Value::Bool(false))
        && properties.is_none_or(all_required)
        && required.iter().all(known)
}

fn below(fields: &Map<String, Value>) -> bool {
    let named = ["properties", "$defs", "definitions"].into_iter().all(|name| {
        fields
            .get(name)
            .is_none_or(|all| all.as_object().is_some_and(|schemas| schemas.values().all(level)))
    });
    let any = fields.get("anyOf");
    let any = any.is_none_or(|any| any.as_array().is_some_and(|all| all.iter().all(level)));
    named && any && fields.get("items").is_none_or(level)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_level_is_closed_and_requires_all() {
        let check = |inner: Value, expect: bool| {
            let schema = json!({"type": "object", "properties": {"a": inner}, "required": ["a"],
                "additionalProperties": false});
            assert_eq!(is_strict(&schema), expect, "{inner}");
        };
        let closed = || {
            json!({"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"],
                "additionalProperties": false})
        };
        let mut optional = closed();
        optional["required"] = json!([]);
        let mut open = closed();
        open.as_object_mut().expect("an object").remove("additionalProperties");
        for (schema, expect) in [(closed(), true), (optional, false), (open, false)] {
            check(json!({"anyOf": [{"type": "null"}, schema]}), expect);
            check(json!({"type": ["array", "null"], "items": schema}), expect);
            check(json!({"type": "string", "$defs": {"d": schema}}), expect);
            check(schema, expect);
        }
        // What is required cannot come: no object is valid.
        let mut unknown = closed();
        unknown["required"] = json!(["b", "c"]);
        check(unknown, false);
        check(json!({"type": "object", "required": ["b"], "additionalProperties": false}), false);
        check(json!({"type": ["object", "null"]}), false);
        check(json!({"$ref": "#"}), true);
        check(json!({"$ref": "#", "description": "d"}), false);
        check(json!({"$ref": "https://example.com/s.json"}), false);
        check(json!({"$ref": 1}), false);
        check(json!({"allOf": [closed()]}), false);
        check(json!({"type": "string", "minLength": 1}), false);
        check(json!({}), false);
        check(json!(true), false);
    }

    #[test]
    fn the_root_is_an_object() {
        assert!(!is_strict(&json!({"type": "array", "items": {"type": "string"}})));
        assert!(!is_strict(&json!({"type": "object", "additionalProperties": false, "anyOf": []})));
        assert!(is_strict(&json!({"type": "object", "additionalProperties": false})));
    }
}
