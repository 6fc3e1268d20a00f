//! Schemas drawn from a seed.

pub(crate) use hearth_tests::simulation::random::Random;
use serde_json::{Map, Value, json};

fn chance(random: &mut Random, of: usize) -> bool {
    random.index(of) == 0
}

const NAMES: [&str; 6] = ["a", "b", "ab", "x y", "é", "q\"q"];
const TEXTS: [&str; 5] = ["red", "green", "", "a\"b\\c", "😀\n"];
const PATTERNS: [&str; 5] = ["^[a-c]{1,4}$", "^x", "\\d{2}", "^[^\"\\\\]{0,6}$", "^(ab|b)+c?$"];

/// A schema with definitions that may refer to each other, and to themselves where that can end.
pub(crate) fn schema(random: &mut Random) -> Value {
    let mut root = node(random, 3);
    let definitions: Map<String, Value> = (0..DEFINITIONS)
        .map(|at| {
            let end = scalar(random);
            let more = object(random, 1);
            (format!("d{at}"), json!({"anyOf": [more, end]}))
        })
        .collect();
    root["$defs"] = Value::Object(definitions);
    root
}

const DEFINITIONS: usize = 3;

fn reference(random: &mut Random) -> Value {
    json!({"$ref": format!("#/$defs/d{}", random.index(DEFINITIONS))})
}

fn node(random: &mut Random, depth: usize) -> Value {
    if depth == 0 {
        return if chance(random, 4) { reference(random) } else { scalar(random) };
    }
    match random.index(10) {
        0..=2 => object(random, depth),
        3..=4 => array(random, depth),
        5 => {
            let count = 1 + random.index(3);
            let options: Vec<Value> = (0..count).map(|_| node(random, depth - 1)).collect();
            json!({"anyOf": options})
        }
        6 => tagged(random, depth),
        7 => narrowed(random, depth),
        8 => reference(random),
        _ => scalar(random),
    }
}

fn scalar(random: &mut Random) -> Value {
    match random.index(8) {
        0 => json!({"type": "null"}),
        1 => json!({"type": "boolean"}),
        2 => {
            let low = random.index(200) as i64 - 100;
            json!({"type": "integer", "minimum": low, "maximum": low + random.index(50) as i64})
        }
        3 => {
            let low = random.index(800) as f64 / 8.0 - 50.0;
            json!({"type": "number", "exclusiveMinimum": low,
                "maximum": low + (1 + random.index(40)) as f64 / 8.0})
        }
        4 => {
            let min = random.index(4);
            json!({"type": "string", "minLength": min, "maxLength": min + random.index(6)})
        }
        5 => {
            let pattern = PATTERNS[random.index(PATTERNS.len())];
            json!({"type": "string", "pattern": pattern, "maxLength": 12})
        }
        6 => {
            let count = 1 + random.index(3);
            let mut values: Vec<Value> =
                (0..count).map(|_| json!(TEXTS[random.index(TEXTS.len())])).collect();
            values.push(json!(random.index(9)));
            values.push(json!([random.index(9), {"k": null}]));
            json!({"enum": values})
        }
        _ => json!({"type": "integer", "minimum": 0, "maximum": 500,
            "multipleOf": 1 + random.index(9)}),
    }
}

fn object(random: &mut Random, depth: usize) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for name in NAMES {
        if chance(random, 2) {
            continue;
        }
        properties.insert(name.to_owned(), node(random, depth - 1));
        // What refers to itself must be able to end.
        if chance(random, 2) {
            required.push(name);
        }
    }
    let mut object = json!({"type": "object", "properties": properties, "required": required});
    match random.index(4) {
        0 => object["additionalProperties"] = scalar(random),
        1 => {
            object["patternProperties"] = json!({"^p_": scalar(random)});
            object["additionalProperties"] = json!(false);
        }
        2 => {
            object["additionalProperties"] = json!(false);
            if required.len() < properties.len() && chance(random, 2) {
                object["minProperties"] = json!(required.len() + 1);
            }
        }
        _ => object["additionalProperties"] = json!(false),
    }
    object
}

fn array(random: &mut Random, depth: usize) -> Value {
    let min = random.index(3);
    let mut array = json!({"type": "array", "minItems": min, "maxItems": min + random.index(3)});
    array["items"] = node(random, depth - 1);
    if chance(random, 3) {
        array["prefixItems"] = json!([node(random, depth - 1), scalar(random)]);
    }
    array
}

/// Options that exclude each other by a tag.
fn tagged(random: &mut Random, depth: usize) -> Value {
    let options: Vec<Value> = (0..2 + random.index(2))
        .map(|at| {
            let mut option = object(random, depth);
            option["properties"]["kind"] = json!({"const": format!("k{at}")});
            option["required"].as_array_mut().unwrap().push(json!("kind"));
            option.as_object_mut().unwrap().remove("minProperties");
            option
        })
        .collect();
    json!({"oneOf": options})
}

/// Schemas that hold together.
fn narrowed(random: &mut Random, depth: usize) -> Value {
    match random.index(3) {
        0 => {
            let mut base = node(random, depth - 1);
            if !base.as_object().unwrap().contains_key("anyOf") {
                base["anyOf"] = json!([{"type": ["string", "object"]}, {"maximum": 20}]);
            }
            base
        }
        1 => json!({"allOf": [object(random, depth), {"required": [NAMES[random.index(6)]]}]}),
        _ => {
            let mut narrowed = reference(random);
            narrowed["maxLength"] = json!(5);
            narrowed["type"] = json!(["string", "object", "integer", "null"]);
            narrowed
        }
    }
}
