//! Answers drawn at random, by what grammars allow and by what formats say, are read as they were
//! meant.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use text::answer::{Part, Reading};
use text::grammar::{Allowed, Grammar, Grammars};
use text::tools::{Format, Layout, Offer, Wanted, plan};

mod answer_kit;

use answer_kit::{
    Random, Unit, call, content, model, read, reading, reasoning, shown, units, write, written,
};

/// A model that is held to a format and draws anything else at random writes calls that are read
/// as such, with arguments that are JSON of the schema.
#[test]
fn what_grammars_allow_is_read() {
    let text = model(true);
    let ends = [text.token_id("<|im_end|>").expect("an end")];
    let grammars = Grammars::new(text, &ends).expect("grammars");
    let parameters = json!({
        "type": "object",
        "properties": {
            "s": {"type": "string", "maxLength": 8},
            "n": {"type": "integer", "minimum": 0, "maximum": 99},
            "e": {"enum": ["a", 1, null]},
        },
        "required": ["s", "n"],
        "additionalProperties": false,
    });
    let offer = Offer { name: "f", parameters: Some(&parameters), strict: true };
    let tools = vec![("f".to_owned(), Some(parameters.clone()))];
    for format in Format::ALL {
        let wanted =
            Wanted { tools: &[offer], forced: true, parallel: true, content: None, budget: None };
        let plan = plan(text, format, None, false, &wanted).expect("a plan");
        let grammar = grammars.compile(&plan).expect("a grammar");
        let reading = Arc::new(Reading::new(text, Some(format), tools.clone(), None, false, true));
        for seed in 0..40 {
            let stream = draw(&grammar, ends[0], &mut Random::new(seed));
            let parts = read(&reading, &stream, &[]);
            let shown = shown(&stream);
            let mut calls = 0;
            for part in &parts {
                match part {
                    Part::Arguments { text, .. } => {
                        let value: Value = serde_json::from_str(text).expect(&shown);
                        assert!(value["s"].is_string() && value["n"].is_u64(), "{shown}: {text}");
                    }
                    Part::CallStart { name, .. } => {
                        assert_eq!(name, "f", "{shown}");
                        calls += 1;
                    }
                    Part::CallEnd { .. } => {}
                    Part::Content(_) | Part::Reasoning(_) => {
                        assert_eq!(format.layout, Layout::Channels, "{}: {shown}", format.name);
                    }
                }
            }
            assert!(calls > 0, "{}: {shown}", format.name);
        }
    }
}

/// Draws allowed tokens until the end.
fn draw(grammar: &Arc<Grammar>, end: u32, random: &mut Random) -> Vec<Unit> {
    let text = model(true);
    let mut state = grammar.start();
    let mut words = vec![0; text.vocab_size().div_ceil(32)];
    let mut bytes = Vec::new();
    let mut out = Vec::new();
    loop {
        let all = 0..text.vocab_size() as u32;
        let may: Vec<u32> = match state.allowed(&mut words).expect("a mask") {
            Allowed::Any => all.collect(),
            Allowed::Only => all.filter(|t| words[*t as usize / 32] >> (t % 32) & 1 == 1).collect(),
        };
        // Long texts tell no more than short ones.
        let special = may.iter().copied().find(|token| text.is_special(*token));
        let token = special.filter(|_| random.index(3) == 0);
        let token = token.unwrap_or_else(|| random.pick(&may));
        state.push(token).expect("an allowed token");
        if !text.is_special(token) {
            bytes.extend_from_slice(text.token_bytes(token));
            continue;
        }
        let said = String::from_utf8_lossy(&std::mem::take(&mut bytes)).into_owned();
        out.extend(said.chars().map(Unit::Text));
        if token == end {
            return out;
        }
        out.push(Unit::Special(token));
    }
}

/// JSON values for arguments, with texts that look like markers.
fn value() -> impl Strategy<Value = Value> {
    let text =
        "([a-z \\n\"'\\\\{}\\[\\](),<>=/é😀]|</parameter|<tool_call>|</arg_value>?|\\]\\)){0,12}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,3}", inner), 0..4)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn arguments() -> impl Strategy<Value = Value> {
    let text = value().prop_map(|value| match value {
        Value::String(text) => Value::from(text),
        other => Value::from(other.to_string()),
    });
    let other = value().prop_map(|value| match value {
        Value::String(text) => json!([text]),
        other => other,
    });
    let texts = prop::collection::vec((prop::sample::select(vec!["s", "t"]), text), 0..3);
    let others = prop::collection::vec((prop::sample::select(vec!["o", "l", "m"]), other), 0..3);
    (texts, others).prop_map(|(texts, others)| {
        let pairs = texts.into_iter().chain(others);
        Value::from(pairs.map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any calls, behind thoughts and content or not, cut anywhere, are read back.
    #[test]
    fn what_is_written_is_read(
        at in 0..Format::ALL.len(),
        all in prop::collection::vec((prop::sample::select(vec!["f", "g"]), arguments()), 1..4),
        lead in "[a-z][a-z ,.]{0,8}[a-z]",
        thinks in any::<bool>(),
        special in any::<bool>(),
        cuts in prop::collection::vec(0..2000usize, 0..40),
    ) {
        let format = Format::ALL[at];
        let calls: Vec<_> = all.iter().map(|(name, arguments)| (*name, arguments)).collect();
        let plain = format.layout == Layout::Plain;
        let mut stream = write(format, &calls);
        let mut expect = Vec::new();
        if plain && !format.at_start {
            stream = format!("{lead}\n\n{stream}");
            expect.extend(content(&lead));
        }
        if plain && thinks {
            stream = format!("<think>{lead}</think>\n\n{stream}");
            expect.splice(0..0, reasoning(&lead));
        }
        for (index, (name, arguments)) in (0..).zip(&calls) {
            expect.extend(call(index, name, &written(format, arguments)));
        }
        let reading = reading(special, format, false);
        let stream = units(model(special), &stream);
        prop_assert_eq!(&read(&reading, &stream, &cuts), &expect);
        prop_assert_eq!(&read(&reading, &stream, &[]), &expect);
    }
}
