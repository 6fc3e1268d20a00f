//! Arguments that are held to no schema, thoughts before calls, and what large offers cost.

use serde_json::{Value, json};
use text::grammar::{Plan, Thinking};
use text::tools::{Format, Offer, Thoughts, Wanted, plan};

use crate::model::{Model, Random, models};
use crate::wanted;

fn free(model: &Model, format: &str, parameters: Option<&Value>) -> Plan {
    let tools = [Offer { name: "f", parameters, strict: false }];
    let format = Format::named(format).expect("a format");
    plan(&model.text, format, None, false, &wanted(&tools, false, true)).expect("a plan")
}

#[test]
fn free_arguments_come_in_any_order_and_once() {
    let schema = |further: bool| {
        json!({
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "additionalProperties": further,
        })
    };
    let mut random = Random::new(1);
    let model = &models()[1];
    let tagged = |pairs: &[(&str, &str)]| {
        let element =
            |(key, value): &(&str, &str)| format!("<parameter={key}>\n{value}\n</parameter>\n");
        let elements: String = pairs.iter().map(element).collect();
        format!("<tool_call>\n<function=f>\n{elements}</function>\n</tool_call>")
    };
    let python = |pairs: &[(&str, &str)]| {
        let items: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("[f({})]", items.join(", "))
    };
    for (pairs, closed, open) in [
        (&[][..], true, true),
        (&[("a", "1")], true, true),
        (&[("b", "'x'"), ("a", "[1]")], true, true),
        (&[("a", "1"), ("a", "2")], false, false),
        (&[("a", "1"), ("b", "2"), ("a", "1")], false, false),
        (&[("c", "1")], false, true),
        (&[("c", "1"), ("a", "2"), ("d", "3")], false, true),
        (&[("ab", "1")], false, true),
        (&[("a", "nothing")], false, false),
    ] {
        for (further, fits) in [(false, closed), (true, open)] {
            let schema = schema(further);
            let plan = free(model, "qwen3-coder", Some(&schema));
            assert_eq!(model.takes(&plan, &tagged(pairs), &mut random), fits, "{pairs:?}");
            let plan = free(model, "llama-pythonic", Some(&schema));
            assert_eq!(model.takes(&plan, &python(pairs), &mut random), fits, "{pairs:?}");
        }
    }
    for format in ["qwen3-coder", "llama-pythonic"] {
        let written = |pairs: &[(&str, &str)]| {
            if format == "qwen3-coder" { tagged(pairs) } else { python(pairs) }
        };
        // Any arguments of an object, none of a function without parameters.
        for (parameters, fits) in [(Some(json!({"type": "object"})), true), (None, false)] {
            let plan = free(model, format, parameters.as_ref());
            assert_eq!(model.takes(&plan, &written(&[("x", "1")]), &mut random), fits, "{format}");
            assert!(model.takes(&plan, &written(&[]), &mut random), "{format}");
        }
    }
}

#[test]
fn more_arguments_than_are_counted() {
    let model = &models()[1];
    let properties: serde_json::Map<String, Value> =
        (0..100).map(|at| (format!("p{at}"), json!({"type": "integer"}))).collect();
    let schema = json!({"properties": properties, "additionalProperties": false});
    let mut random = Random::new(2);
    let plan = free(model, "llama-pythonic", Some(&schema));
    assert!(model.takes(&plan, "[f(p99=1, p7=2)]", &mut random));
    assert!(!model.takes(&plan, "[f(p100=1)]", &mut random));
}

#[test]
fn python_literals() {
    let model = &models()[1];
    let plan = free(model, "llama-pythonic", Some(&json!({"type": "object"})));
    let mut random = Random::new(3);
    for (value, fits) in [
        ("True", true),
        ("None", true),
        ("-1.5e3", true),
        ("'it\\'s'", true),
        ("\"a\\n\\\\ü\"", true),
        ("[]", true),
        ("[1, 'a', [None]]", true),
        ("{'a': {'b': [True]}, \"c\": 1}", true),
        ("{}", true),
        ("true", false),
        ("01", false),
        ("'a", false),
        ("[1", false),
        ("{1: 2}", false),
        ("x", false),
    ] {
        assert_eq!(model.takes(&plan, &format!("[f(x={value})]"), &mut random), fits, "{value}");
    }
}

#[test]
fn thoughts_come_first() {
    let model = &models()[0];
    let format = Format::named("hermes").expect("a format");
    let marker = |spelled| text::grammar::lark::literal(&model.text, spelled);
    let thoughts = Thoughts {
        opening: marker("<think>"),
        closing: marker("</think>"),
        spelled: ("<think>", "</think>"),
        switch: None,
    };
    let tools = [Offer { name: "f", parameters: None, strict: true }];
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let mut random = Random::new(4);
    for forced in [true, false] {
        for open in [true, false] {
            let budget = Some(100);
            let wanted = Wanted { tools: &tools, forced, parallel: true, content: None, budget };
            let plan = plan(&model.text, format, Some(&thoughts), open, &wanted).expect("a plan");
            let (opening, closing) = (thoughts.opening.clone(), thoughts.closing.clone());
            assert_eq!(plan.thinking, Some(Thinking { opening, closing, open, budget }));
            let begin = if open { "" } else { "<think>" };
            let said = format!("{begin}I call <tool_call> now.</think>\n\n{call}");
            assert!(model.takes(&plan, &said.replace("<tool_call> ", ""), &mut random));
            // Thoughts that are open hold all of it; an answer that need not call may end there.
            assert_eq!(model.takes(&plan, call, &mut random), !(open && forced));
        }
    }
}

/// Names and text of callers that could be taken for Lark.
#[test]
fn names_are_literals() {
    let model = &models()[0];
    let schema = json!({
        "type": "object",
        "properties": {"a\"b\\ {index} | %json": {"type": "boolean"}},
        "required": ["a\"b\\ {index} | %json"],
        "additionalProperties": false,
    });
    let names = ["a\"b", "a\\", "{index}", "{name}", "%json {}", "<[5]>", "<|call|>", "名", "a b"];
    let mut random = Random::new(5);
    for format in ["hermes", "kimi-k2", "qwen3-coder"] {
        let format = Format::named(format).expect("a format");
        for name in names {
            let tools = [Offer { name, parameters: Some(&schema), strict: true }];
            let wanted = wanted(&tools, true, false);
            let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
            let ran = model.run(&plan, &mut random, 2000).expect("an end");
            assert!(model.text.decode(&ran, false).contains(name), "{name}");
        }
    }
}

/// An offer of `tools` strict tools with `properties` arguments each.
fn offer(tools: usize, properties: usize) -> Vec<(String, Value)> {
    let tool = |tool: usize| {
        let property = |at: usize| {
            let schema = match at % 4 {
                0 => json!({"type": "string", "description": "Some text."}),
                1 => json!({"type": "integer", "minimum": 0, "maximum": tool + at}),
                2 => json!({"enum": ["a", "b", format!("c{tool}")]}),
                _ => json!({"type": "array", "items": {"type": "string"}}),
            };
            (format!("property_{at}"), schema)
        };
        let properties: serde_json::Map<String, Value> = (0..properties).map(property).collect();
        let required: Vec<&String> = properties.keys().step_by(2).collect();
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        (format!("tool_{tool}"), schema)
    };
    (0..tools).map(tool).collect()
}

#[test]
fn large_offers_compile() {
    for name in ["hermes", "qwen3-coder", "llama-pythonic"] {
        for (tools, properties) in [(128, 20), (1, 100)] {
            let offer = offer(tools, properties);
            for strict in [true, false] {
                let tool =
                    |(name, parameters)| Offer { name, parameters: Some(parameters), strict };
                let offers: Vec<Offer<'_>> =
                    offer.iter().map(|(name, schema)| tool((name.as_str(), schema))).collect();
                let model = &models()[1];
                let format = Format::named(name).expect("a format");
                let wanted = wanted(&offers, false, true);
                let begun = std::time::Instant::now();
                let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
                let (written, compiled) = (begun.elapsed(), model.compile_anew(&plan));
                println!("{name} {tools} x {properties}, {strict}: {written:?} {compiled:?}");
            }
        }
    }
}
