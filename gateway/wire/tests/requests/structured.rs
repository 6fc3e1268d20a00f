//! The fields that hold an answer to a shape.

use serde_json::{Value, json};
use wire::{ApiError, Form, Structured, Tag};

use super::{chat, check, completion};

const MISSING: &str = "missing_required_parameter";
const KIND: &str = "invalid_type";
const VALUE: &str = "invalid_value";
const UNKNOWN: &str = "unknown_parameter";
const UNSUPPORTED: &str = "unsupported_parameter";
const LONG: &str = "string_above_max_length";

fn tags() -> Value {
    json!({"type": "structural_tag", "triggers": ["<f"], "structures": [
        {"begin": "<f=a>", "schema": {"type": "object"}, "end": "</f>"},
        {"begin": "<f=b>", "schema": {}, "end": ""},
    ]})
}

/// Both routes must answer alike.
fn refused(extra: &Value, param: &str, code: &str) {
    check(chat(extra), param, code);
    check(completion(extra), param, code);
}

fn accepted(extra: &Value) -> Option<Structured> {
    let got = chat(extra).expect("accepted").decoding.structured;
    assert_eq!(completion(extra).expect("accepted").decoding.structured, got);
    got
}

#[test]
fn a_response_format_is_refused_by_path() {
    let schema = |inner: Value| json!({"type": "json_schema", "json_schema": inner});
    let inside = |field: &str| format!("response_format.json_schema.{field}");
    let table = [
        (json!("json_object"), "response_format".to_owned(), KIND),
        (json!({}), "response_format.type".into(), MISSING),
        (json!({"type": "regex"}), "response_format.type".into(), VALUE),
        (json!({"type": "text", "schema": {}}), "response_format.schema".into(), UNKNOWN),
        (json!({"type": "json_object", "schema": {}}), "response_format.schema".into(), UNKNOWN),
        (json!({"type": "json_schema"}), "response_format.json_schema".into(), MISSING),
        (json!({"type": "json_schema", "schema": {}}), "response_format.schema".into(), UNKNOWN),
        (schema(json!({"schema": {}})), inside("name"), MISSING),
        (schema(json!({"name": "", "schema": {}})), inside("name"), VALUE),
        (schema(json!({"name": "a b", "schema": {}})), inside("name"), VALUE),
        (schema(json!({"name": "a".repeat(65), "schema": {}})), inside("name"), VALUE),
        (schema(json!({"name": "a"})), inside("schema"), MISSING),
        (schema(json!({"name": "a", "schema": "{}"})), inside("schema"), KIND),
        (schema(json!({"name": "a", "schema": {}, "strict": "yes"})), inside("strict"), KIND),
        (schema(json!({"name": "a", "schema": {}, "description": 1})), inside("description"), KIND),
        (schema(json!({"name": "a", "schema": {}, "title": "t"})), inside("title"), UNKNOWN),
    ];
    for (format, param, code) in table {
        refused(&json!({"response_format": format}), &param, code);
    }
}

#[test]
fn structured_outputs_are_refused_by_path() {
    let many = vec!["x"; 1001];
    let table = [
        (json!([]), "", KIND),
        (json!({}), "", VALUE),
        (json!({"json": null, "json_object": false}), "", VALUE),
        (json!({"json": 1}), ".json", KIND),
        (json!({"json": "{"}), ".json", VALUE),
        (json!({"json": "[1]"}), ".json", KIND),
        (json!({"json": format!("{}1", "[".repeat(9999))}), ".json", VALUE),
        (json!({"regex": 1}), ".regex", KIND),
        (json!({"regex": ""}), ".regex", VALUE),
        (json!({"regex": "a".repeat((64 << 10) + 1)}), ".regex", LONG),
        (json!({"grammar": {}}), ".grammar", KIND),
        (json!({"grammar": ""}), ".grammar", VALUE),
        (json!({"grammar": "a".repeat((64 << 10) + 1)}), ".grammar", LONG),
        (json!({"choice": "a"}), ".choice", KIND),
        (json!({"choice": []}), ".choice", "empty_array"),
        (json!({"choice": ["a", 1]}), ".choice[1]", KIND),
        (json!({"choice": many}), ".choice", "array_above_max_length"),
        (json!({"choice": ["a".repeat(40_000), "b".repeat(40_000)]}), ".choice", LONG),
        (json!({"json_object": "yes"}), ".json_object", KIND),
        (json!({"structural_tag": 1}), ".structural_tag", KIND),
        (json!({"structural_tag": "<"}), ".structural_tag", VALUE),
        (json!({"structural_tag": {"type": "tag"}}), ".structural_tag.type", VALUE),
        (json!({"regex": "a", "whitespace_pattern": " "}), ".whitespace_pattern", UNSUPPORTED),
        (
            json!({"json": {}, "disable_any_whitespace": true}),
            ".disable_any_whitespace",
            UNSUPPORTED,
        ),
        (
            json!({"json": {}, "disable_additional_properties": true}),
            ".disable_additional_properties",
            UNSUPPORTED,
        ),
        (json!({"json": {}, "disable_fallback": 1}), ".disable_fallback", UNSUPPORTED),
        (json!({"json": {}, "backend": "outlines"}), ".backend", UNSUPPORTED),
        (json!({"jsn": {}}), ".jsn", UNKNOWN),
        (json!({"json": {}, "regex": "a"}), ".regex", VALUE),
        (json!({"choice": ["a"], "grammar": "g"}), ".grammar", VALUE),
    ];
    for (outputs, field, code) in table {
        refused(
            &json!({"structured_outputs": outputs}),
            &format!("structured_outputs{field}"),
            code,
        );
    }
}

#[test]
fn tags_are_refused_by_path() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = tags();
        change(&mut value);
        value
    };
    let long = "<f".to_owned() + &"x".repeat(1023);
    let empty = "empty_array";
    let table: [(Value, &str, &str); 19] = [
        (with(&|v| v["format"] = json!({"type": "tag"})), "format", UNSUPPORTED),
        (with(&|v| v["formats"] = json!(1)), "formats", UNKNOWN),
        (with(&|v| v["structures"] = Value::Null), "structures", MISSING),
        (with(&|v| v["triggers"] = Value::Null), "triggers", MISSING),
        (with(&|v| v["structures"] = json!([])), "structures", empty),
        (with(&|v| v["triggers"] = json!([])), "triggers", empty),
        (with(&|v| v["triggers"] = json!(["<f", ""])), "triggers[1]", VALUE),
        (with(&|v| v["triggers"] = json!(["<f", "<g"])), "triggers[1]", VALUE),
        (with(&|v| v["triggers"] = json!(["<f=a"])), "structures[1].begin", VALUE),
        (with(&|v| v["triggers"] = json!(["<f", "<f=b"])), "structures[1].begin", VALUE),
        (with(&|v| v["triggers"] = json!(["<f", "<f"])), "structures[0].begin", VALUE),
        (with(&|v| v["structures"][1] = json!(1)), "structures[1]", KIND),
        (with(&|v| v["structures"][1]["begin"] = json!("")), "structures[1].begin", VALUE),
        (with(&|v| v["structures"][1]["begin"] = json!(long)), "structures[1].begin", LONG),
        (with(&|v| v["structures"][1]["end"] = json!(long)), "structures[1].end", LONG),
        (with(&|v| v["structures"][1]["end"] = Value::Null), "structures[1].end", MISSING),
        (with(&|v| v["structures"][1]["schema"] = Value::Null), "structures[1].schema", MISSING),
        (with(&|v| v["structures"][1]["schema"] = json!(1)), "structures[1].schema", KIND),
        (with(&|v| v["structures"][1]["kind"] = json!(1)), "structures[1].kind", UNKNOWN),
    ];
    for (value, field, code) in table {
        refused(&json!({"response_format": value}), &format!("response_format.{field}"), code);
        let outer = "structured_outputs.structural_tag";
        let outputs = json!({"structural_tag": value.to_string()});
        refused(&json!({"structured_outputs": outputs}), &format!("{outer}.{field}"), code);
    }
}

#[test]
fn older_and_foreign_fields_are_refused_by_name() {
    let table = [
        (json!({"guided_json": []}), "guided_json", KIND),
        (json!({"guided_json": "x"}), "guided_json", VALUE),
        (json!({"guided_regex": ""}), "guided_regex", VALUE),
        (json!({"guided_choice": [1]}), "guided_choice[0]", KIND),
        (json!({"guided_grammar": 1}), "guided_grammar", KIND),
        (json!({"guided_decoding_backend": "outlines"}), "guided_decoding_backend", UNSUPPORTED),
        (json!({"guided_whitespace_pattern": ""}), "guided_whitespace_pattern", UNSUPPORTED),
        (json!({"json_schema": {}}), "json_schema", UNSUPPORTED),
        (json!({"grammar": "g"}), "grammar", UNSUPPORTED),
        (json!({"regex": "a"}), "regex", UNSUPPORTED),
        (json!({"ebnf": "g"}), "ebnf", UNSUPPORTED),
        (json!({"structural_tag": "{}"}), "structural_tag", UNSUPPORTED),
    ];
    for (extra, param, code) in table {
        refused(&extra, param, code);
    }
    let error: ApiError = chat(&json!({"grammar": "g"})).expect_err("refused");
    assert!(error.message.contains("'structured_outputs'"), "{error}");
}

#[test]
fn a_second_shape_is_refused_by_name() {
    let fields = [
        ("response_format", json!({"type": "json_object"})),
        ("structured_outputs", json!({"regex": "a"})),
        ("guided_json", json!({})),
        ("guided_regex", json!("a")),
        ("guided_choice", json!(["a"])),
        ("guided_grammar", json!("g")),
    ];
    for (at, (first, one)) in fields.iter().enumerate() {
        for (second, other) in &fields[at + 1..] {
            // Whichever stands first in the body.
            for body in [json!({*first: one, *second: other}), json!({*second: other, *first: one})]
            {
                refused(&body, second, VALUE);
                let error = chat(&body).expect_err("refused");
                assert!(error.message.contains(&format!("'{first}'")), "{error}");
            }
        }
        let endless = json!({*first: one, "ignore_eos": true});
        refused(&endless, "ignore_eos", UNSUPPORTED);
        assert!(accepted(&json!({*first: one, "ignore_eos": false, "stop": "x"})).is_some());
    }
}

#[test]
fn shapes_are_understood() {
    let check = |extra: Value, form: Form, field: &str| {
        let expect =
            Structured { form, field: field.into(), name: None, description: None, strict: None };
        assert_eq!(accepted(&extra), Some(expect), "{extra}");
    };
    let outputs = |inner: Value| json!({"structured_outputs": inner});
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    let object = || Form::JsonObject;
    check(json!({"response_format": {"type": "json_object"}}), object(), "response_format");
    check(outputs(json!({"json_object": true})), object(), "structured_outputs.json_object");
    for json in [schema.clone(), json!(schema.to_string())] {
        let form = || Form::JsonSchema(schema.clone());
        check(outputs(json!({"json": json})), form(), "structured_outputs.json");
        check(json!({"guided_json": json}), form(), "guided_json");
    }
    for (extra, field) in [
        (outputs(json!({"regex": "a+"})), "structured_outputs.regex"),
        (json!({"guided_regex": "a+", "guided_decoding_backend": "auto"}), "guided_regex"),
    ] {
        check(extra, Form::Regex("a+".into()), field);
    }
    for (extra, field) in [
        (outputs(json!({"grammar": "start: \"a\""})), "structured_outputs.grammar"),
        (json!({"guided_grammar": "start: \"a\""}), "guided_grammar"),
    ] {
        check(extra, Form::Grammar("start: \"a\"".into()), field);
    }
    let most: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    for (extra, field) in [
        (outputs(json!({"choice": most})), "structured_outputs.choice"),
        (json!({"guided_choice": most}), "guided_choice"),
    ] {
        check(extra, Form::Choice(most.clone()), field);
    }
    let tag = |begin: &str, schema: Value, end: &str| Tag {
        begin: begin.into(),
        schema,
        end: end.into(),
    };
    let both = vec![tag("<f=a>", json!({"type": "object"}), "</f>"), tag("<f=b>", json!({}), "")];
    let form = || Form::Tags(both.clone(), vec!["<f".into()]);
    check(json!({"response_format": tags()}), form(), "response_format");
    for value in [tags(), json!(tags().to_string())] {
        let field = "structured_outputs.structural_tag";
        check(outputs(json!({"structural_tag": value})), form(), field);
    }
}

#[test]
fn a_named_schema_keeps_its_name_and_order() {
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    let inner = json!({"name": "a-B_9", "description": "d", "schema": schema, "strict": true});
    let format = json!({"type": "json_schema", "json_schema": inner});
    let got = accepted(&json!({"response_format": format})).expect("a shape");
    assert_eq!(got.field, "response_format.json_schema.schema");
    assert_eq!((got.name.as_deref(), got.description.as_deref()), (Some("a-B_9"), Some("d")));
    assert_eq!(got.strict, Some(true));
    let Form::JsonSchema(kept) = got.form else { panic!("a schema") };
    assert_eq!(kept.to_string(), schema.to_string());
}

#[test]
fn nothing_and_neutral_values_ask_for_no_shape() {
    assert_eq!(accepted(&json!({"response_format": {"type": "text"}})), None);
    assert_eq!(accepted(&json!({"response_format": null, "structured_outputs": null})), None);
    let neutral = json!({"response_format": {"type": "text"}, "structured_outputs": {
        "json": null, "regex": "a", "json_object": false, "whitespace_pattern": null,
        "disable_any_whitespace": false, "disable_additional_properties": false,
        "disable_fallback": true, "backend": "guidance"}});
    assert_eq!(accepted(&neutral).map(|got| got.form), Some(Form::Regex("a".into())));
}
