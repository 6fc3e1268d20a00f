//! How the value of a tagged argument is to be read: as text, or as JSON.
//!
//! Formats with an element per argument write a string as it is and anything else as JSON, so a
//! value alone does not tell `5` from `"5"`. The schema tells where it allows only one of the two.
//! Where it allows both, text that parses as JSON of another kind than a string is JSON, and all
//! other text is a string. Writer and reader both ask here, so they never differ.

use serde_json::Value;

/// Schemas looked at for one answer. Real arguments take a few.
const STEPS_MAX: u32 = 256;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// A string, written as it is.
    Text,
    /// Written as JSON, and no string.
    Json,
    /// JSON if it parses as JSON that is no string, a string as it is otherwise.
    Either,
}

/// How the argument `key` of a tool with these parameters is read.
pub(crate) fn kind_of(parameters: Option<&Value>, key: &str) -> ValueKind {
    let Some(parameters) = parameters else { return ValueKind::Either };
    let Some(schema) = schema_of(parameters, key) else { return ValueKind::Either };
    let mut steps = STEPS_MAX;
    let kinds = Kinds::of(schema, parameters, &mut steps);
    match (kinds.text, kinds.other) {
        (true, false) => ValueKind::Text,
        (false, true) => ValueKind::Json,
        (true, true) | (false, false) => ValueKind::Either,
    }
}

/// The schema of an argument; of parameters that are a reference, the one that is meant.
fn schema_of<'a>(parameters: &'a Value, key: &str) -> Option<&'a Value> {
    let meant = parameters.get("$ref").and_then(|reference| target(reference, parameters));
    let own = |at: &'a Value| at.get("properties").and_then(|properties| properties.get(key));
    if let Some(schema) = own(parameters).or_else(|| meant.and_then(own)) {
        return Some(schema);
    }
    // A key that a pattern matches is not held to the schema of further ones.
    let further = parameters.get("additionalProperties");
    further.filter(|_| parameters.get("patternProperties").is_none())
}

/// What a reference inside the parameters points to.
fn target<'a>(reference: &Value, parameters: &'a Value) -> Option<&'a Value> {
    parameters.pointer(reference.as_str()?.strip_prefix('#')?)
}

/// Kinds of values that a schema may allow; more where it is hard to tell, never fewer.
#[derive(Clone, Copy)]
struct Kinds {
    text: bool,
    other: bool,
}

impl Kinds {
    const ALL: Self = Self { text: true, other: true };
    const NONE: Self = Self { text: false, other: false };

    fn of(schema: &Value, root: &Value, steps: &mut u32) -> Self {
        let Some(left) = steps.checked_sub(1) else { return Self::ALL };
        *steps = left;
        let Value::Object(map) = schema else {
            return if schema == &Value::Bool(false) { Self::NONE } else { Self::ALL };
        };
        let mut kinds = Self::ALL;
        let values = |list: &Value| {
            list.as_array().map_or(Self::ALL, |list| {
                list.iter().map(Self::of_value).fold(Self::NONE, Self::or)
            })
        };
        for (keyword, value) in map {
            kinds = kinds.and(match keyword.as_str() {
                "type" => Self::of_type(value),
                "const" => Self::of_value(value),
                "enum" => values(value),
                "$ref" => Self::of_reference(value, root, steps),
                "allOf" => Self::each(value, root, steps).fold(Self::ALL, Self::and),
                "anyOf" | "oneOf" => Self::each(value, root, steps).fold(Self::NONE, Self::or),
                _ => Self::ALL,
            });
        }
        // Of OpenAPI: null is allowed whatever else is said.
        kinds.other |= map.get("nullable") == Some(&Value::Bool(true));
        kinds
    }

    fn each<'a>(
        list: &'a Value,
        root: &'a Value,
        steps: &'a mut u32,
    ) -> impl Iterator<Item = Self> + 'a {
        list.as_array().into_iter().flatten().map(move |schema| Self::of(schema, root, steps))
    }

    fn of_reference(reference: &Value, root: &Value, steps: &mut u32) -> Self {
        target(reference, root).map_or(Self::ALL, |schema| Self::of(schema, root, steps))
    }

    fn of_type(value: &Value) -> Self {
        let one = |name: &Value| match name.as_str() {
            Some("string") => Self { text: true, other: false },
            Some(_) => Self { text: false, other: true },
            None => Self::ALL,
        };
        match value {
            Value::Array(names) => names.iter().map(one).fold(Self::NONE, Self::or),
            name => one(name),
        }
    }

    fn of_value(value: &Value) -> Self {
        Self { text: value.is_string(), other: !value.is_string() }
    }

    fn and(self, other: Self) -> Self {
        Self { text: self.text && other.text, other: self.other && other.other }
    }

    fn or(self, other: Self) -> Self {
        Self { text: self.text || other.text, other: self.other || other.other }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ValueKind::{Either, Json, Text};
    use super::*;

    #[test]
    fn a_schema_tells_text_from_json() {
        let parameters = |schema: Value| {
            json!({
                "properties": {"a": schema},
                "$defs": {
                    "name": {"type": "string"},
                    "size": {"enum": [1, 2]},
                    "loop": {"$ref": "#/$defs/loop"},
                },
            })
        };
        for (schema, kind) in [
            (json!({"type": "string"}), Text),
            (json!({"type": "string", "pattern": "a"}), Text),
            (json!({"enum": ["a", "b"]}), Text),
            (json!({"const": "a"}), Text),
            (json!({"$ref": "#/$defs/name", "title": "A"}), Text),
            (json!({"anyOf": [{"$ref": "#/$defs/name"}, {"const": "b"}]}), Text),
            (json!({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}), Text),
            (json!({"type": ["string", "null"], "const": "a"}), Text),
            (json!({"type": "integer"}), Json),
            (json!({"type": ["array", "null"]}), Json),
            (json!({"$ref": "#/$defs/size"}), Json),
            (json!({"oneOf": [{"type": "object"}, {"const": null}]}), Json),
            (json!({"type": ["string", "null"]}), Either),
            (json!({"type": "string", "nullable": true}), Either),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), Either),
            (json!({"enum": ["a", 1]}), Either),
            (json!({"$ref": "#/$defs/loop"}), Either),
            (json!({"$ref": "#/$defs/none"}), Either),
            (json!({"$ref": "other.json"}), Either),
            (json!({"properties": {}}), Either),
            (json!(true), Either),
            (json!(false), Either),
            (json!({}), Either),
        ] {
            assert_eq!(kind_of(Some(&parameters(schema.clone())), "a"), kind, "{schema}");
        }
    }

    #[test]
    fn arguments_beyond_the_properties() {
        assert_eq!(kind_of(None, "a"), Either);
        assert_eq!(kind_of(Some(&json!({"properties": {}})), "a"), Either);
        let further = json!({"properties": {}, "additionalProperties": {"type": "string"}});
        assert_eq!(kind_of(Some(&further), "a"), Text);
        let mut patterned = further;
        patterned["patternProperties"] = json!({"^a": {"type": "integer"}});
        assert_eq!(kind_of(Some(&patterned), "a"), Either);
        let properties = json!({"a": {"type": "integer"}});
        let meant = json!({"$ref": "#/$defs/p", "$defs": {"p": {"properties": properties}}});
        assert_eq!(kind_of(Some(&meant), "a"), Json);
    }
}
