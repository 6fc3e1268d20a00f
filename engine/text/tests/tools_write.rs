//! Tool formats as grammars: for every format what a model may write, what it may not, and that
//! whatever it draws is read as calls of the tools on offer.

use serde_json::{Value, json};
use text::grammar::{Answer, lark};
use text::tools::{Arguments, Content, Format, Layout, Offer, Wanted, WriteError, plan};

#[path = "tools_write/drawn.rs"]
mod drawn;
#[path = "tools_write/loose.rs"]
mod loose;
#[path = "tools_write/model.rs"]
mod model;
#[path = "tools_write/signs.rs"]
mod signs;

use model::{Model, Random, models};

/// Formats, one call of `get_weather(city="Paris", days=3)`, and that with one of `now()`, both as
/// models of the format write them.
const CALLS: [(&str, &str, &str); 15] = [
    (
        "hermes",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": ARGS}\n</tool_call>",
        "\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
    ),
    (
        "qwen3-coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n\
         <parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        "\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
    ),
    (
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n\
         <arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "\n<tool_call>now\n</tool_call>",
    ),
    (
        "kimi-k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0\
         <|tool_call_argument_begin|>ARGS<|tool_call_end|>",
        "<|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>",
    ),
    (
        "deepseek-v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n\
         ARGS\n```<｜tool▁call▁end｜>",
        "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>",
    ),
    (
        "deepseek-v31",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>ARGS<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    ),
    (
        "mistral",
        "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": ARGS}",
        ", {\"name\": \"now\", \"arguments\": {}}",
    ),
    ("mistral-v11", "[TOOL_CALLS]get_weather[ARGS]ARGS", "[TOOL_CALLS]now[ARGS]{}"),
    (
        "command-r7b",
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \
         \"parameters\": ARGS}",
        ",\n    {\"tool_call_id\": \"1\", \"tool_name\": \"now\", \"parameters\": {}}",
    ),
    (
        "command-r",
        "Action: ```json\n[\n    {\n        \"tool_name\": \"get_weather\",\n        \
         \"parameters\": ARGS\n    }",
        ",\n    {\n        \"tool_name\": \"now\",\n        \"parameters\": {}\n    }",
    ),
    (
        "phi4-mini",
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": ARGS}",
        ", {\"name\": \"now\", \"arguments\": {}}",
    ),
    (
        "granite",
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": ARGS}",
        ", {\"name\": \"now\", \"arguments\": {}}",
    ),
    ("llama-pythonic", "[get_weather(city=\"Paris\", days=3)", ", now()"),
    (
        "llama-json",
        "{\"name\": \"get_weather\", \"parameters\": ARGS}",
        "; {\"name\": \"now\", \"parameters\": {}}",
    ),
    (
        "generic",
        "{\"tool_calls\": [{\"name\": \"get_weather\", \"arguments\": ARGS}",
        ", {\"name\": \"now\", \"arguments\": {}}",
    ),
];

fn weather() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
        },
        "required": ["city"],
        "additionalProperties": false,
    })
}

fn nothing() -> Value {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn offers<'a>(weather: &'a Value, nothing: &'a Value, strict: bool) -> [Offer<'a>; 2] {
    [
        Offer { name: "get_weather", parameters: Some(weather), strict },
        Offer { name: "now", parameters: Some(nothing), strict },
    ]
}

fn wanted<'a>(tools: &'a [Offer<'a>], forced: bool, parallel: bool) -> Wanted<'a> {
    Wanted { tools, forced, parallel, content: None, budget: None }
}

/// All formats with the models that can write them: gpt-oss has no spelling without its tokens.
fn formats() -> impl Iterator<Item = (&'static Format, &'static Model)> {
    let pairs = Format::ALL.iter().flat_map(|format| models().iter().map(move |m| (*format, m)));
    pairs.filter(|(format, model)| {
        format.layout == Layout::Plain || model.text.token_id("<|channel|>").is_some()
    })
}

/// One call of `get_weather`, and that with one of `now`.
fn calls(format: &Format, arguments: &str) -> (String, Option<String>) {
    if format.layout == Layout::Channels {
        let head = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>";
        return (format!("{head}{arguments}"), None);
    }
    let (_, first, second) = CALLS.iter().find(|(name, ..)| *name == format.name).expect("a case");
    let first = first.replace("ARGS}", &format!("{arguments}}}")).replace("ARGS", "\u{1}");
    // `[ARGS]` is a token of Mistral's.
    let first = first.replace("[\u{1}]", "[ARGS]").replace('\u{1}', arguments);
    let two = format!("{first}{second}{}", format.close);
    (format!("{first}{}", format.close), Some(two))
}

#[test]
fn every_format_writes_calls() {
    let (weather, nothing) = (weather(), nothing());
    let mut random = Random::new(1);
    for (format, model) in formats() {
        let (one, two) = calls(format, "{\"city\": \"Paris\", \"days\": 3}");
        for strict in [true, false] {
            let tools = offers(&weather, &nothing, strict);
            for forced in [true, false] {
                let of = |parallel| {
                    let wanted = wanted(&tools, forced, parallel);
                    plan(&model.text, format, None, false, &wanted).expect("a plan")
                };
                let (single, several) = (of(false), of(true));
                let name = format.name;
                for plan in [&single, &several] {
                    for _ in 0..5 {
                        let taken = model.taken(plan, &one, &mut random);
                        assert!(taken.is_ok(), "{name}: {one}: {taken:?}");
                    }
                }
                if let Some(two) = &two {
                    let taken = model.taken(&several, two, &mut random);
                    assert!(taken.is_ok(), "{name}: {two}: {taken:?}");
                    assert!(!model.takes(&single, two, &mut random), "{name}: {two}");
                }
                // gpt-oss answers on a channel; text beside it is none of its messages.
                let free = "Hm, <tool is no call.";
                assert_eq!(model.takes(&several, free, &mut random), !forced, "{name}");
                let unknown = one.replace("get_weather", "get_whether");
                // Where an opening names its tool, other names are text.
                let text = !forced && format.openings[0].contains("{name}");
                assert_eq!(model.takes(&several, &unknown, &mut random), text, "{name}");
                let begun = format!("Well. {one}");
                let may = !forced;
                assert_eq!(model.takes(&several, &begun, &mut random), may, "{name}: {begun}");
                let more = format!("{one} And more.");
                let after_start = !format.at_start || forced;
                if after_start {
                    assert!(!model.takes(&several, &more, &mut random), "{name}: {more}");
                }
            }
        }
    }
}

/// Arguments of `get_weather` in the format's own way; `None` for the city that cannot be there.
fn arguments(format: &Format, city: &str, days: &str) -> String {
    let (one, _) = calls(format, &format!("{{\"city\": {}, \"days\": {days}}}", json!(city)));
    match format.arguments {
        Arguments::Json => one,
        Arguments::Tagged { value_close, .. } => one
            .replace("Paris", city)
            .replace(&format!("3{value_close}"), &format!("{days}{value_close}")),
        Arguments::Python => {
            one.replace("\"Paris\"", &json!(city).to_string()).replace("=3", &format!("={days}"))
        }
    }
}

#[test]
fn values_are_held_to_the_schema() {
    let (weather, nothing) = (weather(), nothing());
    let mut random = Random::new(2);
    for (format, model) in formats() {
        for (strict, forced) in [(true, false), (false, true), (true, true), (false, false)] {
            let tools = offers(&weather, &nothing, strict);
            let wanted = wanted(&tools, forced, true);
            let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
            let held = strict || forced;
            for (city, days, fits) in [
                ("Paris", "3", true),
                ("", "0", true),
                ("null", "-7", true),
                ("5", "5", true),
                ("{\"a\": [1, \"}]\"]}", "12", true),
                ("Zürich, 名古屋 😀", "1", true),
                ("'quotes\" and \\ back\\n\\\\slashes\\'", "1", true),
                ("two\nlines\n\n\nand </parameter, </arg_valu", "1", true),
                ("))}]>", "1", true),
                ("Paris", "[[1], {}]", !held),
                ("Paris", "3.5", !held),
            ] {
                let said = arguments(format, city, days);
                let taken = model.taken(&plan, &said, &mut random);
                assert_eq!(taken.is_ok(), fits, "{} {held}: {said}: {taken:?}", format.name);
            }
        }
    }
}

#[test]
fn arguments_that_are_required_come() {
    let (weather, nothing) = (weather(), nothing());
    let mut random = Random::new(3);
    let short = |format: &Format| match format.arguments {
        Arguments::Json => calls(format, "{}").0,
        Arguments::Tagged { key_open, value_close, .. } => {
            let (one, _) = calls(format, "");
            let (from, to) = (one.find(key_open), one.rfind(value_close));
            let (from, to) = (from.expect("a key"), to.expect("a value") + value_close.len());
            format!("{}{}", &one[..from], &one[to..])
        }
        Arguments::Python => "[get_weather()]".to_owned(),
    };
    let optional = |format: &Format| match format.arguments {
        Arguments::Json => calls(format, "{\"city\": \"Paris\"}").0,
        Arguments::Tagged { key_open, value_close, .. } => {
            let (one, _) = calls(format, "");
            let (from, to) = (one.rfind(key_open), one.rfind(value_close));
            let (from, to) = (from.expect("a key"), to.expect("a value") + value_close.len());
            format!("{}{}", &one[..from], &one[to..])
        }
        Arguments::Python => "[get_weather(city=\"Paris\")]".to_owned(),
    };
    for (format, model) in formats() {
        for strict in [true, false] {
            let tools = offers(&weather, &nothing, strict);
            let wanted = wanted(&tools, false, true);
            let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
            let (short, optional) = (short(format), optional(format));
            assert_eq!(model.takes(&plan, &short, &mut random), !strict, "{}", format.name);
            let taken = model.taken(&plan, &optional, &mut random);
            assert!(taken.is_ok(), "{}: {optional}: {taken:?}", format.name);
        }
    }
}

#[test]
fn a_strict_tool_that_cannot_be_held_is_named() {
    let (good, bad) = (weather(), json!({"type": "object", "contains": true}));
    let (text, format) = (&models()[0].text, Format::named("hermes").expect("a format"));
    for (parameters, keyword) in
        [(bad, "contains"), (json!({"type": "array"}), "type"), (json!({"type": "strin"}), "type")]
    {
        let of = |strict, forced| {
            let tools = [
                Offer { name: "a", parameters: Some(&good), strict: true },
                Offer { name: "b", parameters: Some(&parameters), strict },
            ];
            plan(text, format, None, false, &wanted(&tools, forced, true)).map(drop)
        };
        match of(true, false) {
            Err(WriteError::Schema { tool: 1, error }) => {
                assert_eq!(error.keyword.as_deref(), Some(keyword), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(of(false, true), Ok(()));
        assert_eq!(of(false, false), Ok(()));
    }
    let wanted = wanted(&[], true, true);
    assert!(matches!(plan(text, format, None, false, &wanted), Err(WriteError::Invalid(_))));
}

#[test]
fn content_stands_beside_calls() {
    let (weather, nothing) = (weather(), nothing());
    let tools = offers(&weather, &nothing, true);
    let schema = json!({
        "type": "object",
        "properties": {"nap": {"type": "integer"}, "tool": {"type": "string"}},
        "required": ["nap"],
        "additionalProperties": false,
    });
    let expression = || Content::Expression(lark::json(&schema).expect("a schema"));
    let grammar = || Content::Grammar("start: A b\nA: \"yes\" | \"{\"\nb: \" sir\"?\n".to_owned());
    let mut random = Random::new(4);
    for (format, model) in formats().filter(|(format, _)| format.layout == Layout::Plain) {
        let (one, _) = calls(format, "{\"city\": \"Paris\"}");
        for (content, fits, wrong) in [
            (expression(), "{\"nap\": 3, \"tool\": \"x\"}", "{\"tool\": 3}"),
            (grammar(), "yes sir", "no"),
            (grammar(), "{", "{\""),
        ] {
            for (offered, forced) in [(true, true), (true, false), (false, false)] {
                let tools = if offered { &tools[..] } else { &[] };
                let content = Some(content.clone());
                let wanted = Wanted { tools, forced, parallel: false, content, budget: None };
                let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
                let name = format.name;
                assert!(matches!(plan.answer, Answer::Held(_)), "{name}");
                let taken = model.taken(&plan, fits, &mut random);
                assert_eq!(taken.is_ok(), !forced, "{name}: {fits}: {taken:?}");
                assert!(!model.takes(&plan, wrong, &mut random), "{name}: {wrong}");
                let taken = model.taken(&plan, &one, &mut random);
                assert_eq!(taken.is_ok(), offered, "{name}: {one}: {taken:?}");
            }
        }
    }
}

#[test]
fn tags_hold_their_schemas() {
    let model = &models()[1];
    let number = json!({"type": "integer"});
    let list = json!({"type": "array", "items": {"type": "boolean"}});
    let of = |triggers: &[&str]| {
        let tags = vec![
            ("<fn=a>".to_owned(), number.clone(), "</fn>".to_owned()),
            ("<fn=b>".to_owned(), list.clone(), "</fn>".to_owned()),
        ];
        let triggers = triggers.iter().map(ToString::to_string).collect();
        let content = Some(Content::Tags { tags, triggers });
        let wanted = Wanted { tools: &[], forced: false, parallel: true, content, budget: None };
        plan(&model.text, Format::generic(), None, false, &wanted)
    };
    let plan = of(&["<fn="]).expect("a plan");
    let mut random = Random::new(5);
    for (said, fits) in [
        ("text only", true),
        ("so <fn=a>5</fn>, and <fn=b>[true]</fn>.", true),
        ("<fn=a>[true]</fn>", false),
        ("<fn=c>5</fn>", false),
        ("<fn=a>5", false),
    ] {
        assert_eq!(model.takes(&plan, said, &mut random), fits, "{said}");
    }
    for triggers in [&["<fn=a"][..], &[""], &[]] {
        assert!(matches!(of(triggers), Err(WriteError::Invalid(_))), "{triggers:?}");
    }
}

#[test]
fn channels_are_held_from_the_start() {
    let (weather, nothing) = (weather(), nothing());
    let tools = offers(&weather, &nothing, true);
    let (model, format) = (&models()[0], Format::named("harmony").expect("a format"));
    let of = |forced, content, budget| {
        let wanted = Wanted { tools: &tools, forced, parallel: true, content, budget };
        let plan = plan(&model.text, format, None, false, &wanted).expect("a plan");
        assert!(plan.thinking.is_none());
        plan
    };
    let schema = json!({"type": "object"});
    let json = Content::Expression(lark::json(&schema).expect("a schema"));
    let (auto, forced) = (of(false, None, None), of(true, None, None));
    let (content, budget) = (of(false, Some(json), None), of(false, None, Some(4)));
    let call = "<|channel|>commentary to=functions.get_weather";
    let next = "<|end|><|start|>assistant";
    let think = |thought: &str| format!("<|channel|>analysis<|message|>{thought}{next}");
    let end = "<|message|>{\"city\": \"Paris\"}";
    let role = format!(" to=functions.get_weather<|channel|>commentary json{end}");
    let mut random = Random::new(6);
    for (said, plans) in [
        (format!("{call} <|constrain|>json{end}"), [true, true, true, true]),
        (format!("{call}<|constrain|>json{end}"), [true, true, true, true]),
        (format!("{call} json{end}"), [true, true, true, true]),
        (format!("{call}{end}"), [true, true, true, true]),
        (format!("{call} xml{end}"), [false, false, false, false]),
        (format!("{call}<|message|>{{}}"), [false, false, false, false]),
        (format!("{}{call}{end}", think("hm")), [true, true, true, true]),
        (format!("{}{call}{end}", think("hm, hm, hm")), [true, true, true, false]),
        (format!("{}{role}", think("hm")), [true, true, true, true]),
        (role, [true, false, false, false]),
        (
            format!("<|channel|>commentary<|message|>I look.{next}{call}{end}"),
            [true, true, true, true],
        ),
        (format!("{}{}{call}{end}", think("a"), think("b")), [true, true, true, false]),
        ("<|channel|>final<|message|>{\"a\": 1}".to_owned(), [true, false, true, true]),
        ("<|channel|>final<|message|>Hello.".to_owned(), [true, false, false, true]),
        (
            format!("{}<|channel|>final <|constrain|>json<|message|>{{}}", think("")),
            [true, false, true, true],
        ),
    ] {
        for (plan, fits) in [&auto, &forced, &content, &budget].into_iter().zip(plans) {
            let taken = model.taken(plan, &said, &mut random);
            assert_eq!(taken.is_ok(), fits, "{said}: {taken:?}: {plan:?}");
        }
    }
    assert!(matches!(auto.answer, Answer::Opened { .. }));
}
