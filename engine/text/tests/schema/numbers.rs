//! Bounds of numbers: whatever can be written lies within, at every kind of end.

use llguidance::Matcher;
use serde_json::{Value, json};

use crate::engine::{Engine, writes};

/// Ends on both sides of zero, whole and not, near each other and far.
const ENDS: [f64; 15] = [
    -1000.0, -12.5, -2.0, -1.0, -0.75, -0.5, -0.001, 0.0, 0.001, 0.5, 0.75, 1.0, 2.0, 12.5, 1000.0,
];

/// Spellings at and around the ends.
fn candidates() -> Vec<(String, f64)> {
    let mut texts = vec!["0.0".to_owned(), "-0".to_owned(), "-0.0".to_owned()];
    for end in ENDS {
        for near in [end, end + 0.0001, end - 0.0001, end + 1.0, end - 1.0, end * 10.0] {
            texts.push(format!("{near}"));
            texts.push(format!("{near:.4}"));
        }
    }
    let number = |text: String| {
        let value = text.parse().unwrap();
        (text, value)
    };
    texts.into_iter().map(number).collect()
}

fn start(schema: &Value) -> Option<Matcher> {
    match Engine::bytes().compile(schema) {
        Ok(start) => Some(start),
        Err(why) if why.contains("leaves no number") => None,
        Err(why) => panic!("{schema}: {why}"),
    }
}

#[test]
fn what_is_written_lies_within() {
    let candidates = candidates();
    for (low, high) in ENDS.iter().flat_map(|low| ENDS.iter().map(move |high| (*low, *high))) {
        for (open_low, open_high) in [(false, false), (true, false), (false, true), (true, true)] {
            let name =
                |open, closed: &str, opened: &str| if open { opened } else { closed }.to_owned();
            let schema = json!({"type": "number",
                name(open_low, "minimum", "exclusiveMinimum"): low,
                name(open_high, "maximum", "exclusiveMaximum"): high});
            let within = |value: f64| {
                (value > low || (value == low && !open_low))
                    && (value < high || (value == high && !open_high))
            };
            let Some(start) = start(&schema) else {
                assert!(!candidates.iter().any(|(_, value)| within(*value)), "{schema}");
                continue;
            };
            let mut written = 0;
            for (text, value) in &candidates {
                let writes = writes(&start, text);
                assert!(!writes || within(*value), "{schema}: {text}");
                // The shortest spelling of what is within can be written.
                let shortest = value.to_string() == *text && !text.starts_with("-0");
                assert!(writes || !within(*value) || !shortest || text == "0", "{schema}: {text}");
                written += usize::from(writes);
            }
            assert!(written > 0, "{schema}");
        }
    }
}

#[test]
fn one_end() {
    let candidates = candidates();
    for end in ENDS {
        for (name, within) in [
            ("minimum", (|value, end| value >= end) as fn(f64, f64) -> bool),
            ("maximum", |value, end| value <= end),
            ("exclusiveMinimum", |value, end| value > end),
            ("exclusiveMaximum", |value, end| value < end),
        ] {
            for kind in ["number", "integer"] {
                let start = start(&json!({"type": kind, name: end})).unwrap();
                for (text, value) in &candidates {
                    let whole = kind == "number" || value.fract() == 0.0;
                    let fits = within(*value, end) && whole;
                    assert!(!writes(&start, text) || fits, "{kind} {name} {end}: {text}");
                }
            }
        }
    }
}

#[test]
fn integers_and_steps() {
    for (low, high) in
        (-25..25).step_by(3).flat_map(|low| (low..30).step_by(7).map(move |it| (low, it)))
    {
        for step in [1, 3, 7, 10] {
            let schema =
                json!({"type": "integer", "minimum": low, "maximum": high, "multipleOf": step});
            let start = start(&schema);
            for value in -40..40 {
                let fits = (low..=high).contains(&value) && value % step == 0;
                let writes = start.as_ref().is_some_and(|it| writes(it, &value.to_string()));
                assert_eq!(writes, fits, "{schema}: {value}");
            }
        }
    }
}

/// Bounds that a float does not hold move inwards.
#[test]
fn large_integers() {
    for (schema, value, holds) in [
        (json!({"maximum": 9_007_199_254_740_993_i64}), "9007199254740992", true),
        (json!({"maximum": 9_007_199_254_740_993_i64}), "9007199254740994", false),
        (json!({"minimum": 9_007_199_254_740_993_i64, "maximum": 1e17}), "9007199254740992", false),
        (json!({"minimum": i64::MIN, "maximum": i64::MAX}), "-9223372036854775808", false),
        (json!({"minimum": i64::MIN, "maximum": i64::MAX}), "-9223372036854774784", true),
        (json!({"minimum": i64::MIN, "maximum": i64::MAX}), "9223372036854775808", false),
        (json!({"minimum": 0, "maximum": u64::MAX}), "18446744073709551616", false),
        (json!({"minimum": -1e300}), "-5", true),
        (json!({"const": 9_007_199_254_740_992_i64}), "9007199254740992", true),
        (json!({"enum": [1_000_000_000_000_000_000_i64]}), "1000000000000000000", true),
    ] {
        let mut schema = schema;
        schema["type"] = json!("integer");
        assert_eq!(writes(&start(&schema).unwrap(), value), holds, "{schema}: {value}");
    }
    for schema in [json!({"const": 9_007_199_254_740_993_i64}), json!({"const": u64::MAX})] {
        let why = Engine::bytes().compile(&schema).map(|_| ()).unwrap_err();
        assert_eq!(why, "'const' has a number with too many digits to be held to");
    }
}
