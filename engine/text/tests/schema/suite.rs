//! The official test suite of JSON Schema, from the folder that `HEARTH_JSON_SCHEMA_SUITE` names
//! (`tests/draft2020-12` of it; each draft has its own folder beside).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::engine::{Engine, writes};

#[derive(Default)]
struct Counts {
    accepted: usize,
    rejected: usize,
    /// Schemas that are not held to.
    refused: BTreeMap<String, usize>,
    /// Valid instances that cannot be written, by design.
    narrower: usize,
    wrong: Vec<String>,
}

/// Valid instances that are never written; a value has one spelling, and formats are held to.
const NARROWER: [&str; 12] = [
    // Without a meaning for the engine.
    "only an annotation",
    // Before 2019 siblings of a reference were ignored; here they hold.
    "maxItems ignored",
    // Formats.
    "leap second",
    "case-insensitive",
    "quoted string",
    "IPv6-address-literal",
    "ipv4 section",
    "ipv4-mapped",
    "double colons between",
    "a long valid ipv6",
    // Control characters without an escape of their own.
    "Line tabulation",
    "Non-whitespace control",
];

#[test]
#[ignore = "needs a copy of the suite"]
fn official_suite() {
    let folder = std::env::var("HEARTH_JSON_SCHEMA_SUITE").expect("HEARTH_JSON_SCHEMA_SUITE");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "json"));
    files.sort();
    assert!(!files.is_empty(), "no cases in {folder}");
    let mut counts = Counts::default();
    for file in &files {
        run(file, &mut counts);
    }
    let Counts { accepted, rejected, narrower, .. } = counts;
    println!("{accepted} accepted, {rejected} rejected, {narrower} narrower by design");
    println!("refused: {}", counts.refused.values().sum::<usize>());
    for (why, count) in &counts.refused {
        println!("  {count:4} {why}");
    }
    assert!(counts.wrong.is_empty(), "{} wrong:\n{}", counts.wrong.len(), counts.wrong.join("\n"));
}

fn run(file: &Path, counts: &mut Counts) {
    let groups: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for group in groups.as_array().unwrap() {
        let schema = &group["schema"];
        let tests = group["tests"].as_array().unwrap();
        let start = match Engine::bytes().compile(schema) {
            Ok(start) => start,
            Err(why) => {
                if why.ends_with("no value fits") && tests.iter().any(|it| it["valid"] == true) {
                    counts.wrong.push(format!("{schema}: {why}"));
                }
                *counts.refused.entry(why).or_default() += 1;
                continue;
            }
        };
        for test in tests {
            let instance = whole(ordered(schema, &test["data"]));
            let valid = test["valid"] == true;
            let what = test["description"].as_str().unwrap();
            if valid && NARROWER.iter().any(|narrower| what.contains(narrower)) {
                counts.narrower += 1;
                continue;
            }
            *(if valid { &mut counts.accepted } else { &mut counts.rejected }) += 1;
            if writes(&start, &instance.to_string()) != valid {
                counts.wrong.push(format!(
                    "{} / {} / {}: {} should be {valid}, schema {schema}",
                    file.file_name().unwrap().to_string_lossy(),
                    group["description"],
                    test["description"],
                    instance,
                ));
            }
        }
    }
}

/// The instance with its keys in the order in which the schema names them.
fn ordered(schema: &Value, instance: &Value) -> Value {
    let mut names = Vec::new();
    named(schema, &mut names);
    sort(&names, instance)
}

/// Whole numbers without a point: the engine writes one spelling of each.
fn whole(instance: Value) -> Value {
    match instance {
        Value::Number(number) => match number.as_f64() {
            Some(value) if value.fract() == 0.0 && value.abs() < 1e16 => Value::from(value as i64),
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(whole).collect(),
        Value::Object(map) => map.into_iter().map(|(key, it)| (key, whole(it))).collect(),
        other => other,
    }
}

fn named<'a>(schema: &'a Value, names: &mut Vec<&'a str>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                names.push(key);
                named(value, names);
            }
        }
        Value::Array(values) => {
            for value in values {
                if let Value::String(name) = value {
                    names.push(name);
                }
                named(value, names);
            }
        }
        _ => {}
    }
}

fn sort(names: &[&str], instance: &Value) -> Value {
    match instance {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            let place = |name: &str| names.iter().position(|it| *it == name).unwrap_or(usize::MAX);
            members.sort_by_key(|(name, _)| place(name));
            let sorted = members.into_iter().map(|(key, it)| (key.clone(), sort(names, it)));
            Value::Object(sorted.collect::<Map<_, _>>())
        }
        Value::Array(values) => values.iter().map(|value| sort(names, value)).collect(),
        other => other.clone(),
    }
}
