//! A validator of the keywords that the random schemas use, straight from the specification.

use serde_json::{Map, Value};

/// Whether a value meets a schema; references lead into `root`.
pub(crate) fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema == &Value::Bool(true) };
    keywords.iter().all(|(name, asked)| holds(root, keywords, name, asked, value))
}

fn all<'a>(asked: &'a Value, root: &'a Value, value: &'a Value) -> impl Iterator<Item = bool> + 'a {
    asked.as_array().unwrap().iter().map(move |schema| valid(root, schema, value))
}

fn holds(
    root: &Value,
    keywords: &Map<String, Value>,
    name: &str,
    asked: &Value,
    value: &Value,
) -> bool {
    match name {
        "$defs" => true,
        "$ref" => {
            let target = root.pointer(asked.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
            valid(root, target, value)
        }
        "anyOf" => all(asked, root, value).any(|it| it),
        "allOf" => all(asked, root, value).all(|it| it),
        "oneOf" => all(asked, root, value).filter(|it| *it).count() == 1,
        "enum" => asked.as_array().unwrap().iter().any(|one| equal(one, value)),
        "const" => equal(asked, value),
        "type" => match asked {
            Value::Array(types) => types.iter().any(|it| is(it.as_str().unwrap(), value)),
            one => is(one.as_str().unwrap(), value),
        },
        _ => match value {
            Value::Number(number) => number_holds(name, asked, number.as_f64().unwrap()),
            Value::String(text) => text_holds(name, asked, text),
            Value::Array(items) => array_holds(root, keywords, name, asked, items),
            Value::Object(members) => object_holds(root, keywords, name, asked, members),
            _ => true,
        },
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        _ => a == b,
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "integer" => value.as_f64().is_some_and(|value| value.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name}"),
    }
}

fn number_holds(name: &str, asked: &Value, value: f64) -> bool {
    let asked = || asked.as_f64().unwrap();
    match name {
        "minimum" => value >= asked(),
        "maximum" => value <= asked(),
        "exclusiveMinimum" => value > asked(),
        "multipleOf" => value % asked() == 0.0,
        _ => true,
    }
}

fn text_holds(name: &str, asked: &Value, text: &str) -> bool {
    let length = text.chars().count() as u64;
    match name {
        "minLength" => length >= asked.as_u64().unwrap(),
        "maxLength" => length <= asked.as_u64().unwrap(),
        "pattern" => matches(asked.as_str().unwrap(), text),
        _ => true,
    }
}

/// The patterns of the random schemas, by hand.
fn matches(pattern: &str, text: &str) -> bool {
    let count = text.chars().count();
    match pattern {
        "^[a-c]{1,4}$" => (1..=4).contains(&count) && text.chars().all(|c| "abc".contains(c)),
        "^x" => text.starts_with('x'),
        "\\d{2}" => text.as_bytes().windows(2).any(|two| two.iter().all(u8::is_ascii_digit)),
        "^[^\"\\\\]{0,6}$" => count <= 6 && !text.contains(['"', '\\']),
        "^(ab|b)+c?$" => {
            let body = text.strip_suffix('c').unwrap_or(text);
            !body.is_empty() && body.replace("ab", "b").chars().all(|c| c == 'b')
        }
        "^p_" => text.starts_with("p_"),
        _ => panic!("{pattern}"),
    }
}

fn array_holds(
    root: &Value,
    keywords: &Map<String, Value>,
    name: &str,
    asked: &Value,
    items: &[Value],
) -> bool {
    let prefix = keywords.get("prefixItems").and_then(Value::as_array);
    match name {
        "minItems" => items.len() as u64 >= asked.as_u64().unwrap(),
        "maxItems" => items.len() as u64 <= asked.as_u64().unwrap(),
        "prefixItems" => {
            let pairs = prefix.unwrap().iter().zip(items);
            pairs.into_iter().all(|(schema, item)| valid(root, schema, item))
        }
        "items" => {
            let rest = items.iter().skip(prefix.map_or(0, Vec::len));
            rest.into_iter().all(|item| valid(root, asked, item))
        }
        _ => true,
    }
}

fn object_holds(
    root: &Value,
    keywords: &Map<String, Value>,
    name: &str,
    asked: &Value,
    members: &Map<String, Value>,
) -> bool {
    let schemas = |name: &str| keywords.get(name).and_then(Value::as_object);
    let named = |key: &str| schemas("properties").is_some_and(|map| map.contains_key(key));
    let patterned = |key: &str| {
        schemas("patternProperties").is_some_and(|map| map.keys().any(|it| matches(it, key)))
    };
    match name {
        "required" => {
            asked.as_array().unwrap().iter().all(|it| members.contains_key(it.as_str().unwrap()))
        }
        "minProperties" => members.len() as u64 >= asked.as_u64().unwrap(),
        "properties" => schemas(name)
            .unwrap()
            .iter()
            .all(|(key, schema)| members.get(key).is_none_or(|it| valid(root, schema, it))),
        "patternProperties" => members.iter().all(|(key, value)| {
            let all = schemas(name).unwrap().iter();
            all.filter(|(pattern, _)| matches(pattern, key)).all(|(_, it)| valid(root, it, value))
        }),
        "additionalProperties" => members
            .iter()
            .all(|(key, value)| named(key) || patterned(key) || valid(root, asked, value)),
        _ => true,
    }
}
