//! JSON as Google's own parsers take it: keys in `camelCase` or `snake_case`, one object where a
//! list is meant, whole numbers with a point. All of it is brought to one form before the request
//! is read, so that nothing behind has to know. What is the caller's own (arguments, results,
//! JSON Schemas) is not touched.

use serde_json::{Map, Number, Value};

use crate::fields::{Fault, Parsed};

/// Fields whose values are the caller's own words.
const OWN: [&str; 9] = [
    "args",
    "response",
    "parametersJsonSchema",
    "responseJsonSchema",
    "labels",
    "default",
    "example",
    "enum",
    "partMetadata",
];

/// Fields whose values are maps from the caller's own names.
const NAMED: [&str; 3] = ["properties", "defs", "$defs"];

/// Fields that are lists, and may be written as their only item.
const LISTS: [&str; 4] = ["contents", "parts", "tools", "functionDeclarations"];

/// Brings a request to the one form. Nesting is bounded by whoever parsed the text.
///
/// # Errors
/// A field is there in both spellings.
pub(super) fn normalize(value: &mut Value) -> Parsed<()> {
    match value {
        Value::Object(map) => object(map),
        Value::Array(items) => items.iter_mut().try_for_each(normalize),
        Value::Number(number) => {
            whole(number);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn object(map: &mut Map<String, Value>) -> Parsed<()> {
    if map.keys().any(|key| key.contains('_')) {
        for (key, value) in std::mem::take(map) {
            let name = camel(&key);
            if map.contains_key(&name) {
                return Err(Fault::value(&name, "it is there in two spellings"));
            }
            map.insert(name, value);
        }
    }
    for (name, value) in map {
        let name = name.as_str();
        if OWN.contains(&name) {
            continue;
        }
        if LISTS.contains(&name) && value.is_object() {
            *value = Value::Array(vec![value.take()]);
        }
        match value {
            Value::Object(named) if NAMED.contains(&name) => {
                named.values_mut().try_for_each(normalize)
            }
            value => normalize(value),
        }
        .map_err(|fault| fault.under(name))?;
    }
    Ok(())
}

/// `max_output_tokens` as `maxOutputTokens`. A leading underscore is part of a name.
fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        if c == '_' && !out.is_empty() {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// `40.0` is 40: Google's own client writes `topK` that way.
fn whole(number: &mut Number) {
    let exact = 2_f64.powi(53);
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return };
    if float.fract() == 0.0 && float.abs() < exact {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
        let integer = float as i64;
        *number = integer.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_form() {
        let check = |mut from: Value, expect: Value| {
            normalize(&mut from).expect("one spelling each");
            assert_eq!(from, expect);
        };
        check(json!({"top_k": 40.0, "top_p": 0.5}), json!({"topK": 40, "topP": 0.5}));
        check(
            json!({"contents": {"parts": {"inline_data": {"mime_type": "a_b"}}}}),
            json!({"contents": [{"parts": [{"inlineData": {"mimeType": "a_b"}}]}]}),
        );
        check(
            json!({"function_call": {"args": {"a_b": 1.0, "tools": {}}}}),
            json!({"functionCall": {"args": {"a_b": 1.0, "tools": {}}}}),
        );
        check(
            json!({"properties": {"a_b": {"any_of": []}, "parts": {"min_items": 1}}}),
            json!({"properties": {"a_b": {"anyOf": []}, "parts": {"minItems": 1}}}),
        );
        check(json!({"_private_name": 1e300}), json!({"_privateName": 1e300}));
        assert!(normalize(&mut json!({"topK": 1, "top_k": 1})).is_err());
    }
}
