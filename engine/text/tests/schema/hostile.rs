//! Schemas made to cost time or memory: each is answered at once, with a refusal or a grammar.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use text::grammar::schema::prepare;

use crate::engine::Engine;

/// For one schema, `prepare` and compiler, in a debug build. Twice what it takes alone, since tests
/// run beside each other on few cores.
const TIME_MAX: Duration = Duration::from_millis(400);

/// The fastest of some runs, so that a busy machine fails no test.
fn check(name: &str, schema: &Value) {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        // Refused or compiled: either is an answer.
        drop(Engine::bytes().compile(schema));
        fastest = fastest.min(start.elapsed());
    }
    assert!(fastest < TIME_MAX, "{name}: {fastest:?}");
}

fn members(count: usize, schema: impl Fn(usize) -> Value) -> Value {
    Value::Object((0..count).map(|at| (format!("p{at}"), schema(at))).collect::<Map<_, _>>())
}

fn nested(levels: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(json!({"type": "string"}), |inner, _| wrap(inner))
}

fn list<T: Into<Value>>(count: usize, item: impl Fn(usize) -> T) -> Value {
    (0..count).map(|at| item(at).into()).collect()
}

#[test]
fn large_schemas() {
    check("10 MB", &json!({"description": "x".repeat(10 << 20)}));
    check("100k values", &json!({"enum": list(100_000, |at| at)}));
    check("4096 texts", &json!({"enum": list(4096, |at| format!("value {at}"))}));
    check("1000 numbers", &json!({"enum": list(1000, |at| at * 7)}));
    check("500 objects", &json!({"enum": list(500, |at| json!({"a": at}))}));
    check(
        "values and a pattern",
        &json!({"enum": list(4096, |at| format!("value {at}")), "pattern": "^[a-z]+ 1.*3"}),
    );
    check(
        "values and a format",
        &json!({"enum": list(4000, |at| format!("{at}.1.1.1")), "format": "ipv4"}),
    );
    check("a long text", &json!({"const": "x".repeat(200_000)}));
    check("a long name", &json!({"properties": {"x".repeat(200_000): {}}}));
    check(
        "400 properties",
        &json!({"type": "object", "properties": members(400, |_| json!({"type": "string"}))}),
    );
    check(
        "5000 properties",
        &json!({"type": "object", "properties": members(5000, |_| json!({"type": "string"}))}),
    );
    check(
        "1000 required",
        &json!({"type": "object", "required": list(1000, |at| format!("{at}"))}),
    );
    check(
        "900 options",
        &json!({"anyOf": list(900, |at| json!({"type": "object",
        "properties": {format!("k{at}"): {"type": "string"}}, "required": [format!("k{at}")]}))}),
    );
    check(
        "300 tagged options",
        &json!({"oneOf": list(300, |at| json!({"type": "object",
        "properties": {"k": {"const": at}}, "required": ["k"]}))}),
    );
}

#[test]
fn deep_schemas() {
    check("500 objects", &nested(500, |inner| json!({"properties": {"a": inner}})));
    check(
        "60 objects",
        &nested(
            60,
            |inner| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
        ),
    );
    check("60 arrays", &nested(60, |inner| json!({"type": "array", "items": inner})));
    check("60 choices", &nested(60, |inner| json!({"anyOf": [inner, {"type": "null"}]})));
    check(
        "500 arrays of a const",
        &json!({"const": (0..500).fold(json!([]), |it, _| json!([it]))}),
    );
    for length in [100, 1000] {
        let chain = members(length, |at| match at + 1 == length {
            true => json!({"type": "string"}),
            false => json!({"type": "object", "properties": {
                "a": {"$ref": format!("#/$defs/p{}", at + 1)},
                "b": {"$ref": format!("#/$defs/p{}", at + 1)}}}),
        });
        check("a chain of references", &json!({"$ref": "#/$defs/p0", "$defs": chain}));
    }
}

/// As deep as is taken, on the stack of a test's thread.
#[test]
fn depth_fits_a_stack() {
    let next = |at: usize| json!({"$ref": format!("#/$defs/p{}", at + 1)});
    let link = |at: usize| {
        json!({"anyOf": [{"type": "null"}, {"type": "object", "properties": {"a": next(at)},
            "patternProperties": {"^x": next(at)}, "additionalProperties": next(at)}]})
    };
    for length in [120, 2000] {
        let chain = members(length + 1, |at| if at < length { link(at) } else { json!({}) });
        check("a chain of choices", &json!({"$ref": "#/$defs/p0", "$defs": chain}));
        let names = members(length + 1, |at| {
            if at < length { json!({"anyOf": [next(at), {"type": "null"}]}) } else { json!({}) }
        });
        check("names of names", &json!({"$ref": "#/$defs/p0", "$defs": names}));
        let choices = list(length, |_| json!({"anyOf": [{"minimum": 1}]}));
        check("choices in a row", &json!({"allOf": choices}));
    }
}

#[test]
fn bounds_of_any_size() {
    for count in [1_u64 << 16, 1_000_000, 1 << 40, u64::MAX] {
        check("items", &json!({"type": "array", "items": {"type": "object"}, "minItems": count}));
        check(
            "nested items",
            &json!({"type": "array", "minItems": count, "items":
            {"type": "array", "minItems": count, "items": {"type": "string"}}}),
        );
        check("properties", &json!({"type": "object", "maxProperties": count}));
        check("length", &json!({"type": "string", "minLength": count}));
        check(
            "length of a pattern",
            &json!({"type": "string", "minLength": count, "pattern": "^[a-z]+ [a-z]+$"}),
        );
        check("numbers", &json!({"type": "integer", "maximum": count, "multipleOf": 9973}));
    }
    check("tiny", &json!({"type": "number", "minimum": 1e-300, "maximum": 1e300}));
    check("steps", &json!({"type": "number", "multipleOf": 1e-300}));
    check("large steps", &json!({"type": "integer", "multipleOf": 4_294_967_295_u32}));
    let steps = [9973, 9967, 9949, 9941, 9931, 9929, 9923, 9907, 9901];
    check(
        "steps that meet",
        &json!({"type": "integer",
        "allOf": steps.map(|step| json!({"multipleOf": step}))}),
    );
}

#[test]
fn combinations() {
    check(
        "products",
        &json!({"allOf": list(8, |a| json!({"anyOf": list(10, |b| json!(
        {"properties": {format!("a{a}_{b}"): {"type": "string"}}}))}))}),
    );
    check(
        "a large product",
        &json!({"properties": members(3000, |_| json!({})),
        "anyOf": list(2000, |at| json!({"required": [format!("p{at}")]}))}),
    );
    check(
        "doubling",
        &json!({"$ref": "#/$defs/p0", "$defs": members(40, |at| match at {
            39 => json!({"type": "string"}),
            _ => { let next = json!({"$ref": format!("#/$defs/p{}", at + 1)});
                   json!({"allOf": [next, next]}) }
        })}),
    );
    let sizes = [2, 3, 5, 7, 11, 13];
    let cycles = sizes.into_iter().flat_map(|size: usize| {
        (0..size).map(move |at| {
            (
                format!("c{size}_{at}"),
                json!({"type": "object", "properties":
            {"a": {"$ref": format!("#/$defs/c{size}_{}", (at + 1) % size)}}}),
            )
        })
    });
    check(
        "cycles that meet",
        &json!({
        "allOf": sizes.map(|size| json!({"$ref": format!("#/$defs/c{size}_0")})),
        "$defs": cycles.collect::<Map<_, _>>()}),
    );
    check(
        "40 patterns of names",
        &json!({"type": "object", "patternProperties":
        list(40, |at| at).as_array().unwrap().iter()
            .map(|at| (format!("^{at}x"), json!({}))).collect::<Map<_, _>>()}),
    );
}

#[test]
fn patterns_that_explode() {
    for pattern in [
        "^(a|b|ab)*(.*a.{0,500}){3}$",
        "(a{0,100}){0,100}",
        "^((a?){50}){50}b$",
        "^(?:.*a){20}.{20}$",
        ".*a.{4000}",
        "(((((((((a*)*)*)*)*)*)*)*)*)*",
        "(x+x+)+y",
        r"^[\p{L}\p{N}]{0,1000}$",
    ] {
        check(pattern, &json!({"type": "string", "pattern": pattern}));
        check(pattern, &json!({"type": "string", "pattern": pattern, "minLength": 1000}));
        check(pattern, &json!({"enum": ["ab".repeat(2000)], "pattern": pattern}));
    }
    let primes = [2, 3, 5, 7, 11, 13, 17];
    check(
        "primes",
        &json!({"type": "string",
        "allOf": primes.map(|prime| json!({"pattern": format!("^(.{{{prime}}})+$")}))}),
    );
    check("groups", &json!({"pattern": "(".repeat(2000) + "a" + &")".repeat(2000)}));
    check("alternatives with anchors", &json!({"pattern": "(^a|b)".repeat(500)}));
}

/// A value nested deeper than a stack takes is measured without recursion.
#[test]
fn depth_costs_no_stack() {
    let deep = (0..200_000).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let schema = Value::Object([("default".to_owned(), deep)].into_iter().collect());
    let refused = prepare(&schema).unwrap_err();
    // Dropping such a value recurses.
    std::mem::forget(schema);
    assert_eq!(refused.to_string(), "the schema is larger than 262144 bytes");
}
