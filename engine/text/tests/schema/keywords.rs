//! What is refused, where, and in which words; and schemas that no value meets.

use serde_json::{Value, json};
use text::grammar::schema::prepare;

use crate::engine::Engine;

/// A schema is refused in these words, by `prepare` alone.
fn check(schema: &Value, words: &str) {
    let error = prepare(schema).map(|_| ()).expect_err(&schema.to_string());
    assert_eq!(error.to_string(), words, "{schema}");
}

/// Within a property: every refusal has its path.
#[expect(clippy::needless_pass_by_value, reason = "a table of literals")]
fn check_in_a(keywords: Value, words: &str) {
    check(&json!({"type": "object", "properties": {"a": keywords}}), words);
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    for name in ["if", "then", "else", "contains", "minContains", "maxContains", "dependencies"] {
        check_in_a(json!({name: {}}), &format!("'{name}' at properties.a cannot be enforced"));
    }
    for (name, value) in [
        ("not", json!({"type": "string"})),
        ("uniqueItems", json!(true)),
        ("dependentRequired", json!({"a": ["b"]})),
        ("dependentSchemas", json!({"a": {}})),
        ("unevaluatedItems", json!(false)),
        ("unevaluatedProperties", json!({"type": "string"})),
        ("$dynamicRef", json!("#a")),
    ] {
        check(&json!({name: value}), &format!("'{name}' cannot be enforced"));
    }
    check(
        &json!({"anyOf": [{}, {"items": {"format": "unknown"}}]}),
        "'format' at anyOf[1].items 'unknown' cannot be enforced",
    );
    check(
        &json!({"propertyNames": {"pattern": "^a"}}),
        "'propertyNames' can be held to the names of an 'enum' only",
    );
}

#[test]
fn unknown_keywords_are_refused() {
    for (name, near) in [
        ("minLenght", "minLength"),
        ("propertys", "properties"),
        ("additionalproperties", "additionalProperties"),
        ("Enum", "enum"),
        ("oneof", "oneOf"),
    ] {
        let words = format!("'{name}' at properties.a is not a keyword; did you mean '{near}'?");
        check_in_a(json!({name: 1}), &words);
    }
    check(
        &json!({"propertyOrdering": []}),
        "'propertyOrdering' is not a keyword; names beginning with 'x-' are ignored",
    );
    check(
        &json!({"nullable": true}),
        "'nullable' is not JSON Schema; let 'type' hold \"null\" instead",
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    for (schema, words) in [
        (json!({"type": "text"}), "'type' must name types of JSON Schema"),
        (json!({"type": []}), "'type' must be a string or an array of strings"),
        (json!({"minimum": "1"}), "'minimum' must be a number"),
        (json!({"multipleOf": 0}), "'multipleOf' must be above 0"),
        (json!({"minItems": -1}), "'minItems' must be a whole number, not negative"),
        (json!({"maxLength": 1.5}), "'maxLength' must be a whole number, not negative"),
        (json!({"required": true}), "'required' must be an array of strings"),
        (json!({"properties": []}), "'properties' must be an object of schemas"),
        (json!({"anyOf": []}), "'anyOf' must be an array of schemas, at least one"),
        (json!({"enum": {}}), "'enum' must be an array"),
        (json!({"pattern": 1}), "'pattern' must be a string"),
        (json!([]), "the schema must be an object or a boolean"),
        (json!({"items": 1}), "the schema at items must be an object or a boolean"),
        (
            json!({"type": "integer", "format": "date"}),
            "'format' is one of strings, which are not allowed here",
        ),
        (
            json!({"type": "string", "format": "int32"}),
            "'format' is one of numbers, which are not allowed here",
        ),
        (
            json!({"additionalItems": false}),
            "'additionalItems' has no effect without an array of 'items'",
        ),
    ] {
        check(&schema, words);
    }
}

#[test]
fn drafts_and_references() {
    let new = "https://json-schema.org/draft/2020-12/schema";
    let old = "http://json-schema.org/draft-07/schema#";
    for (schema, words) in [
        (
            json!({"$schema": "http://x"}),
            "'$schema' names a draft that is not known here: 2020-12 to draft 4 are",
        ),
        (json!({"$schema": new, "items": [{}]}), "'items' must be a schema in this draft"),
        (
            json!({"$schema": old, "prefixItems": [{}]}),
            "'prefixItems' is not a keyword of this draft",
        ),
        (
            json!({"$schema": new, "minimum": 1, "exclusiveMinimum": true}),
            "'exclusiveMinimum' must be a number",
        ),
        (
            json!({"items": {"$id": "x"}}),
            "'$id' at items can be honoured at the schema's root only",
        ),
        (json!({"$ref": "http://x/y"}), "'$ref' points outside of the schema: 'http://x/y'"),
        (json!({"$ref": "other.json#/a"}), "'$ref' points outside of the schema: 'other.json#/a'"),
        (
            json!({"items": {"$ref": "#/$defs/x"}}),
            "'$ref' at items points at no schema: '#/$defs/x'",
        ),
        (json!({"$ref": "#/type", "type": "object"}), "'$ref' points at no schema: '#/type'"),
        (json!({"$ref": "#nowhere"}), "'$ref' points at no schema: '#nowhere'"),
        (json!({"$ref": "#"}), "'$ref' leads back to itself before it says anything"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {
            "a": {"anyOf": [{"$ref": "#/$defs/b"}, {}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            "'$ref' at $defs.a leads back to itself before it says anything",
        ),
    ] {
        check(&schema, words);
    }
    let named = json!({"$id": "http://x/y", "$ref": "http://x/y#/$defs/a",
        "$defs": {"a": {"type": "null"}}});
    assert_eq!(prepare(&named).unwrap(), json!({"type": "null"}));
}

#[test]
fn patterns() {
    for (pattern, why) in [
        ("a(?=b)", "has a look-ahead that is not at its start"),
        ("(?!a)", "has '(?!', which cannot be enforced"),
        ("(?<=a)b", "has a look-behind, which cannot be enforced"),
        (r"(a)\1", "has a back reference, which cannot be enforced"),
        (r"\bword\b", "has a word boundary, which cannot be enforced"),
        ("(?i)a", "has a '(?' that ECMA 262 does not know"),
        (r"a\Z", "has '\\Z', which ECMA 262 does not know"),
        ("a^b", "has an anchor inside, which cannot be enforced"),
        ("(^a)*", "has an anchor that is repeated"),
        ("(a", "has a '(' without its ')'"),
        ("a)", "has a ')' without its '('"),
        ("[a", "has a '[' without its ']'"),
        ("[b-a]", "has a range that is out of order"),
        ("*a", "has a '*' with nothing to repeat"),
        ("a{3,2}", "has a repetition whose counts are out of order"),
        ("a{6000}", "has a repetition whose count is more than can be held to: at most 5000"),
        (
            "((a{99}){99}){99}",
            "has repetitions whose size is more than can be held to: at most 20000",
        ),
        (r"\p{Script=Greek}", "has '\\p{Script=Greek}', which is not known here"),
    ] {
        check_in_a(json!({"pattern": pattern}), &format!("'pattern' at properties.a {why}"));
    }
    check(
        &json!({"patternProperties": {"^a": {}, "b$": {}}}),
        "'patternProperties' has patterns that one name may both match, which cannot be enforced",
    );
}

#[test]
fn options_must_exclude_each_other() {
    let why = "cannot be enforced: options 0 and 1 are not seen to exclude each other (use \
               'anyOf', or give each a required property with a 'const' of its own)";
    for options in [
        json!([{"type": "string"}, {"minLength": 2}]),
        json!([{"type": "integer"}, {"type": "number"}]),
        json!([{"pattern": "^a", "type": "string"}, {"pattern": "b$", "type": "string"}]),
        json!([{"type": "object", "properties": {"k": {"const": "a"}}},
            {"type": "object", "properties": {"k": {"const": "b"}}}]),
    ] {
        check_in_a(json!({"oneOf": options}), &format!("'oneOf' at properties.a {why}"));
    }
}

#[test]
fn contradictions_are_found() {
    let nothing = "the schema contradicts itself: no value fits";
    for (schema, words) in [
        (json!(false), nothing),
        (json!({"not": {}}), nothing),
        (
            json!({"minimum": 3, "maximum": 2}),
            "'minimum' leaves no number with the rest of the schema",
        ),
        (
            json!({"type": "integer", "minimum": 1.2, "maximum": 1.8}),
            "'minimum' leaves no number with the rest of the schema",
        ),
        (
            json!({"exclusiveMinimum": 2, "maximum": 2}),
            "'exclusiveMinimum' leaves no number with the rest of the schema",
        ),
        (
            json!({"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 13}),
            "'minimum' leaves no number with the rest of the schema",
        ),
        (
            json!({"minLength": 3, "maxLength": 2}),
            "'minLength' is above what the rest of the schema allows",
        ),
        (json!({"minItems": 3, "maxItems": 2}), "'minItems' is above 'maxItems'"),
        (
            json!({"maxProperties": 1, "required": ["a", "b"]}),
            "'maxProperties' is below the number of properties that must be there",
        ),
        (json!({"enum": []}), "'enum' is empty"),
        (json!({"type": "string", "enum": [1, null]}), "'enum' has no value that fits the rest"),
        (json!({"type": "object", "enum": [[1]]}), "'enum' has no value that fits the rest"),
        (json!({"const": 5, "maximum": 4}), "'const' has no value that fits the rest"),
        (
            json!({"required": ["b"], "properties": {"a": {}}, "additionalProperties": false}),
            "'required' names 'b', which the rest of the schema forbids",
        ),
        (
            json!({"type": "object", "required": ["b"], "properties": {"b": false}}),
            "'required' names 'b', which the rest of the schema forbids",
        ),
        (json!({"allOf": [{"type": "string"}, {"type": "integer"}]}), nothing),
        (json!({"type": "string", "allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}]}), nothing),
        (json!({"type": "string", "pattern": "^[a-z]{3}$", "minLength": 4}), nothing),
        (json!({"enum": ["a"], "pattern": "^b"}), nothing),
        (json!({"type": "array", "minItems": 2, "prefixItems": [{}, false]}), nothing),
        (
            json!({"type": "object", "required": ["x"], "properties":
            {"x": {"allOf": [{"type": "string"}, {"type": "null"}]}}}),
            "the schema at properties.x contradicts itself: no value fits",
        ),
        (
            json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object",
            "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}}}),
            "the schema at $defs.n requires itself without end: no finite value fits",
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {"$ref": "#"}}),
            "the schema requires itself without end: no finite value fits",
        ),
    ] {
        check(&schema, words);
    }
}

/// Nothing of the caller's schema reaches the compiler but what was understood.
#[test]
fn the_compiler_gets_its_own_keywords_alone() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://x/", "title": "t",
        "x-guidance": {"lenient": true, "coerce_one_of": true}, "type": "object",
        "properties": {
            "x-guidance": {"type": "string", "x-guidance": {}},
            "n": {"type": ["integer", "null"], "format": "int32", "default": 3},
        },
        "required": ["n"], "additionalProperties": false,
    });
    let written = json!({
        "type": "object",
        "properties": {
            "x-guidance": {"type": "string"},
            "n": {"anyOf": [
                {"type": "null"},
                {"type": "integer", "minimum": -2_147_483_648_i64, "maximum": 2_147_483_647},
            ]},
        },
        "additionalProperties": false,
        "required": ["n"],
    });
    assert_eq!(prepare(&schema).unwrap().to_string(), written.to_string());
    assert_eq!(prepare(&json!(true)).unwrap(), json!({}));
}

/// What `prepare` cannot see the compiler finds.
#[test]
fn the_compiler_refuses_the_rest() {
    let schema = json!({"type": "string", "format": "ipv4", "pattern": "^x"});
    let why = Engine::bytes().compile(&schema).map(|_| ()).unwrap_err();
    assert!(why.contains("Unsatisfiable") || why.contains("empty"), "{why}");
}
