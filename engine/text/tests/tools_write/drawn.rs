//! Whatever a model draws ends, and is read as calls whose arguments follow their schemas.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use text::answer::{Part, Reader, Reading};
use text::tools::{Arguments, Format, Layout, Offer, Wanted, plan};

use crate::model::{Model, Random};
use crate::{formats, nothing};

/// Draws of each format by each of the two models.
const SEEDS: u64 = 100;

/// Parameters of all kinds whose values are short.
fn bounded() -> Value {
    json!({
        "type": "object",
        "properties": {
            "text": {"type": "string", "maxLength": 6},
            "word": {"enum": ["a", "b\n\"c\"", "</parameter>", "null", "名"]},
            "code": {"type": "string", "pattern": "^[a-f]{2}-[0-9]$"},
            "part": {"type": "string", "pattern": "[xy]/", "maxLength": 4},
            "id": {"type": "string", "format": "uuid"},
            "count": {"type": "integer", "minimum": -5, "maximum": 120},
            "flag": {"type": "boolean"},
            "maybe": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]},
            "mixed": {"enum": ["5", "x", 5, null, false]},
            "place": {"$ref": "#/$defs/place"},
            "places": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 2},
        },
        "required": ["text", "count", "maybe", "places"],
        "additionalProperties": false,
        "$defs": {
            "place": {
                "type": "object",
                "properties": {
                    "x": {"type": "integer", "minimum": 0, "maximum": 9},
                    "y": {"type": ["boolean", "null"]},
                },
                "required": ["x"],
                "additionalProperties": false,
            },
        },
    })
}

/// Whether a value follows its schema above.
fn fits(key: &str, value: &Value) -> bool {
    let short = |most| value.as_str().is_some_and(|text| text.chars().count() <= most);
    let place = |value: &Value| {
        let x = value["x"].as_i64().is_some_and(|x| (0..=9).contains(&x));
        let y = value.get("y").is_none_or(|y| y.is_boolean() || y.is_null());
        x && y
            && value.as_object().is_some_and(|map| map.keys().all(|key| key == "x" || key == "y"))
    };
    match key {
        "text" => short(6),
        "word" => ["a", "b\n\"c\"", "</parameter>", "null", "名"].iter().any(|word| value == word),
        "code" => value.as_str().is_some_and(|code| code.len() == 4 && &code[2..3] == "-"),
        "part" => {
            short(4) && value.as_str().is_some_and(|it| it.contains("x/") || it.contains("y/"))
        }
        "id" => value.as_str().is_some_and(|id| id.len() == 36 && id.split('-').count() == 5),
        // `-0` is an integer.
        "count" => {
            value.as_f64().is_some_and(|it| (-5.0..=120.0).contains(&it) && it.fract() == 0.0)
        }
        "flag" => value.is_boolean(),
        "maybe" => value.is_null() || short(4),
        "mixed" => [json!("5"), json!("x"), json!(5), json!(null), json!(false)].contains(value),
        "place" => place(value),
        "places" => value.as_array().is_some_and(|list| list.len() <= 2 && list.iter().all(place)),
        _ => false,
    }
}

/// The calls of an answer, by the reader; all else that is in it.
fn read(
    model: &Model,
    format: &'static Format,
    tools: &[Offer<'_>],
    tokens: &[u32],
) -> (Vec<(String, String)>, String) {
    let tools = tools.iter().map(|tool| (tool.name.to_owned(), tool.parameters.cloned()));
    let reading = Reading::new(&model.text, Some(format), tools.collect(), None, false, false);
    let mut reader = Reader::new(Arc::new(reading));
    let (mut parts, mut bytes) = (Vec::new(), Vec::new());
    for &token in tokens {
        if model.text.is_special(token) {
            let text = String::from_utf8(std::mem::take(&mut bytes)).expect("UTF-8");
            reader.text(&text, &mut parts);
            reader.special(token, &mut parts);
        } else {
            bytes.extend(model.text.token_bytes(token));
        }
    }
    reader.text(&String::from_utf8(bytes).expect("UTF-8"), &mut parts);
    reader.end(&mut parts);
    let (mut calls, mut rest) = (BTreeMap::new(), String::new());
    for part in parts {
        match part {
            Part::CallStart { index, name } => {
                calls.insert(index, (name, String::new()));
            }
            Part::Arguments { index, text } => {
                calls.get_mut(&index).expect("a call").1 += &text;
            }
            Part::CallEnd { .. } => {}
            Part::Content(text) | Part::Reasoning(text) => rest += &text,
        }
    }
    (calls.into_values().collect(), rest)
}

#[test]
fn uniform_draws_end_in_valid_calls() {
    let (bounded, nothing) = (bounded(), nothing());
    let tools = [
        Offer { name: "do_it", parameters: Some(&bounded), strict: true },
        Offer { name: "now", parameters: Some(&nothing), strict: true },
        Offer { name: "do", parameters: None, strict: true },
    ];
    for (format, model) in formats() {
        // Thoughts and preambles of gpt-oss are free text without a budget.
        let channels = format.layout == Layout::Channels;
        let budget = channels.then_some(0);
        let wanted = Wanted { tools: &tools, forced: true, parallel: true, content: None, budget };
        let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
        let mut seen = Map::new();
        for seed in 0..SEEDS {
            let ran = model.run(&plan, &mut Random::new(seed), 20_000);
            let tokens = ran.unwrap_or_else(|| panic!("{} {seed}", format.name));
            let said = model.text.decode(&tokens, false);
            let (calls, rest) = read(model, format, &tools, &tokens);
            assert!(channels || rest.is_empty(), "{}: {said}: {rest}", format.name);
            assert!(!calls.is_empty(), "{}: {said}", format.name);
            for (name, arguments) in calls {
                let read: Map<String, Value> =
                    serde_json::from_str(&arguments).unwrap_or_else(|error| {
                        panic!("{}: {said}: {arguments}: {error}", format.name)
                    });
                assert!(tools.iter().any(|tool| tool.name == name), "{}: {said}", format.name);
                let required = ["text", "count", "maybe", "places"];
                let all = required.iter().all(|key| read.contains_key(*key));
                assert!(if name == "do_it" { all } else { read.is_empty() }, "{said}: {arguments}");
                for (key, value) in read {
                    assert!(fits(&key, &value), "{}: {said}: {key}: {value}", format.name);
                    seen.insert(key, value);
                }
            }
        }
        // Every argument was drawn; a word that ends a value is left out of those of its format.
        assert_eq!(seen.len(), 11, "{}: {seen:?}", format.name);
    }
}

#[test]
fn text_and_json_are_told_apart() {
    let schemas = json!({
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "integer"}]},
        "text": {"type": "string"},
        "list": {"type": ["array", "boolean"]},
    });
    let parameters = json!({"type": "object", "properties": schemas});
    let tools = |strict| [Offer { name: "f", parameters: Some(&parameters), strict }];
    let mut random = Random::new(1);
    let tagged = |format: &Format| matches!(format.arguments, Arguments::Tagged { .. });
    for (format, model) in formats().filter(|(format, _)| tagged(format)) {
        let Arguments::Tagged { key_open, key_close, value_close } = format.arguments else {
            continue;
        };
        for (key, said, meant, strict) in [
            ("either", "null", json!(null), true),
            ("either", "12", json!(12), true),
            ("either", "nullable", json!("nullable"), true),
            ("either", "falsey", json!("falsey"), true),
            ("either", "x\n{}", json!("x\n{}"), true),
            ("either", "", json!(""), true),
            ("either", "\"quoted\"", json!("\"quoted\""), true),
            ("either", "true", json!(true), false),
            ("either", "[1]", json!([1]), false),
            ("either", "1.5", json!(1.5), false),
            ("text", "null", json!("null"), true),
            ("text", "12", json!("12"), true),
            ("text", "[", json!("["), true),
            ("text", "\n a \n", json!("\n a \n"), true),
            ("list", "[1, \"a\"]", json!([1, "a"]), true),
            ("list", "true", json!(true), true),
            ("list", "null", json!(null), false),
            ("list", "{}", json!({}), false),
        ] {
            let element = format!("{key_open}{key}{key_close}{said}{value_close}");
            let call = format!("{}f{}{element}{}", format.before, format.middle, format.after);
            for held in [true, false] {
                let tools = tools(held);
                let wanted = Wanted {
                    tools: &tools,
                    forced: false,
                    parallel: true,
                    content: None,
                    budget: None,
                };
                let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
                let taken = model.taken(&plan, &call, &mut random);
                assert_eq!(taken.is_ok(), strict || !held, "{call}: {held}: {taken:?}");
                if let Ok(tokens) = taken {
                    let (calls, rest) = read(model, format, &tools, &tokens);
                    assert_eq!(rest, "");
                    let read: Value = serde_json::from_str(&calls[0].1)
                        .unwrap_or_else(|error| panic!("{call}: {calls:?}: {error}"));
                    assert_eq!(read, json!({key: meant}), "{call}");
                }
            }
        }
    }
}
