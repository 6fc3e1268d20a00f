//! Answers held to a grammar: a model that draws any allowed token writes what the plan says, and
//! every way of cutting a text into tokens is taken alike.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hearth_tests::simulation::random::Random;
use serde_json::{Value, json};
use text::TextModel;
use text::grammar::{Allowed, Answer, Grammar, Grammars, Plan, State, Thinking, ebnf, lark};

mod common;

fn demo() -> &'static (Arc<TextModel>, Grammars) {
    static DEMO: OnceLock<(Arc<TextModel>, Grammars)> = OnceLock::new();
    DEMO.get_or_init(|| {
        let text = Arc::new(common::demo());
        let ends = ["<|im_end|>", "<|end_of_text|>"].map(|t| text.token_id(t).expect("an end"));
        let grammars = Grammars::new(&text, &ends).expect("grammars");
        (text, grammars)
    })
}

fn ends() -> Vec<u32> {
    let (text, _) = demo();
    ["<|im_end|>", "<|end_of_text|>"].map(|t| text.token_id(t).expect("an end")).to_vec()
}

/// All tokens that may come.
fn allowed(state: &mut State) -> Vec<u32> {
    let size = demo().0.vocab_size();
    let mut words = vec![0; size.div_ceil(32)];
    let all = 0..size as u32;
    match state.allowed(&mut words).expect("a mask") {
        Allowed::Any => all.collect(),
        Allowed::Only => all.filter(|t| words[*t as usize / 32] >> (t % 32) & 1 == 1).collect(),
    }
}

fn held(lark: impl Into<String>) -> Plan {
    Plan { thinking: None, answer: Answer::Held(lark.into()) }
}

/// Draws any allowed token until an end token; `None` where `most` tokens were not enough.
fn run(plan: &Plan, random: &mut Random, most: usize) -> Option<String> {
    let (text, grammars) = demo();
    let mut state = grammars.compile(plan).expect("a grammar").start();
    let mut tokens = Vec::new();
    for _ in 0..most {
        let may = allowed(&mut state);
        let token = may[random.index(may.len())];
        state.push(token).expect("an allowed token");
        if ends().contains(&token) {
            return Some(text.decode(&tokens, false));
        }
        tokens.push(token);
    }
    None
}

/// Feeds a text cut into tokens at random; how much of it was taken.
fn takes(plan: &Plan, said: &str, random: &mut Random) -> bool {
    let (text, grammars) = demo();
    let mut state = grammars.compile(plan).expect("a grammar").start();
    let mut rest = said.as_bytes();
    while !rest.is_empty() {
        let may = allowed(&mut state);
        let fits: Vec<u32> = may
            .into_iter()
            .filter(|t| !text.token_bytes(*t).is_empty() && rest.starts_with(text.token_bytes(*t)))
            .collect();
        if fits.is_empty() {
            return false;
        }
        let token = fits[random.index(fits.len())];
        state.push(token).expect("an allowed token");
        rest = &rest[text.token_bytes(token).len()..];
    }
    allowed(&mut state).iter().any(|t| ends().contains(t))
}

#[test]
fn what_is_held_is_valid_json() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b\"c", "ü"]}, "maxItems": 3},
        },
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let plan = held(format!("start: {}\n", lark::json(&schema).expect("a schema")));
    for seed in 0..100 {
        let said = run(&plan, &mut Random::new(seed), 400).expect("an end");
        let value: Value = serde_json::from_str(&said).expect(&said);
        assert!(value["name"].is_string(), "{said}");
        assert!((0..=150).contains(&value["age"].as_i64().expect(&said)), "{said}");
    }
}

#[test]
fn white_space_is_bounded() {
    let plan = held(format!("start: {}\n", lark::json_object()));
    let mut random = Random::new(1);
    for (said, fits) in [
        ("{}", true),
        ("{ }", true),
        ("{\"a\": 1,\n  \"b\": [1, 2]\n}", true),
        ("{\n\t\"a\":1}", true),
        ("{  }", false),
        ("{\n\n}", false),
        ("{\n                                                 }", false),
        ("[]", false),
    ] {
        assert_eq!(takes(&plan, said, &mut random), fits, "{said}");
    }
}

#[test]
fn texts_and_expressions() {
    let mut random = Random::new(2);
    let plan = held(lark::choice(&["yes", "no \"no\"", "名"]));
    for said in ["yes", "no \"no\"", "名"] {
        assert!(takes(&plan, said, &mut random), "{said}");
    }
    assert!(!takes(&plan, "ye", &mut random));
    let plan = held(lark::regex(r"[a-c]{2}/\d+"));
    assert!(takes(&plan, "ab/17", &mut random));
    assert!(!takes(&plan, "ab17", &mut random));
}

#[test]
fn ebnf_holds_as_it_is_written() {
    let sums = "root ::= sum\nsum ::= term ((\"+\" | \"-\") term){0,3}\n\
                term ::= [1-9] [0-9]* | \"(\" sum \")\" # nested";
    let plan = held(ebnf::to_lark(sums).expect("sound"));
    let mut random = Random::new(6);
    for (said, fits) in [
        ("1", true),
        ("12+(3-40)", true),
        ("((7))", true),
        ("1+1+1+1", true),
        ("1+1+1+1+1", false),
        ("01", false),
        ("(1", false),
        ("", false),
    ] {
        assert_eq!(takes(&plan, said, &mut random), fits, "{said}");
    }
}

#[test]
fn what_is_opened_is_held_from_there() {
    let opening = b"<tool_call>".to_vec();
    let object = lark::json_object();
    let lark = format!("start: \"<tool_call>\\n\" {object} \"\\n</tool_call>\"\n");
    let plan = |at_start| Plan {
        thinking: None,
        answer: Answer::Opened {
            openings: vec![opening.clone()],
            at_start,
            lark: lark.clone(),
            again: false,
        },
    };
    let mut random = Random::new(3);
    for _ in 0..20 {
        for (said, anywhere, at_start) in [
            ("just text <tool", true, true),
            ("<tool_call>\n{}\n</tool_call>", true, true),
            ("\n<tool_call>\n{}\n</tool_call>", true, true),
            ("hm <tool_call>\n{\"a\":1}\n</tool_call>", true, true),
            ("hm <tool_call> {}", false, true),
            ("<tool_call> {}", false, false),
            ("<tool_call>\n{}\n</tool_call>.", false, false),
            ("<<tool_call>\n[]", false, true),
        ] {
            assert_eq!(takes(&plan(false), said, &mut random), anywhere, "{said}");
            assert_eq!(takes(&plan(true), said, &mut random), at_start, "{said}");
        }
    }
}

#[test]
fn thoughts_come_before_what_is_held() {
    let thinking = |open, budget| Plan {
        thinking: Some(Thinking {
            opening: b"<think>".to_vec(),
            closing: b"</think>".to_vec(),
            open,
            budget,
        }),
        answer: Answer::Held(lark::choice(&["yes", "<no>"])),
    };
    let mut random = Random::new(4);
    for _ in 0..20 {
        for (said, closed, open) in [
            ("yes", true, false),
            ("<no>", true, false),
            ("<think>hm</think>yes", true, true),
            ("<think>hm</think>\n\n<no>", true, true),
            ("<think>hm</think>\n\n\nyes", false, false),
            ("<think>hm</think>maybe", false, false),
            ("<think>hm", false, false),
            ("hm</thin</think>yes", false, true),
        ] {
            assert_eq!(takes(&thinking(false, None), said, &mut random), closed, "{said}");
            assert_eq!(takes(&thinking(true, None), said, &mut random), open, "{said}");
        }
    }
    for seed in 0..20 {
        let said = run(&thinking(true, Some(5)), &mut Random::new(seed), 40).expect("an end");
        let after = said.rsplit("</think>").next().unwrap_or_default().trim_start();
        assert!(said.contains("</think>") && ["yes", "<no>"].contains(&after), "{said}");
    }
}

#[test]
fn a_state_is_a_function_of_its_tokens() {
    let plan = held(format!("start: {}\n", lark::json_object()));
    let grammar = demo().1.compile(&plan).expect("a grammar");
    let mut random = Random::new(5);
    let (mut state, mut tokens) = (grammar.start(), Vec::new());
    for _ in 0..60 {
        let may = allowed(&mut state);
        let mut again = grammar.start();
        tokens.iter().for_each(|token| again.push(*token).expect("as before"));
        assert_eq!(allowed(&mut again), may);
        let token = may[random.index(may.len())];
        state.push(token).expect("an allowed token");
        tokens.push(token);
    }
}

#[test]
fn a_grammar_in_which_something_went_wrong_is_made_anew() {
    let (text, grammars) = demo();
    let plan = held(lark::choice(&["left", "right"]));
    let first = grammars.compile(&plan).expect("a grammar");
    assert!(Arc::ptr_eq(&first, &grammars.compile(&plan).expect("the same")));
    let wrong = text.encode("x", false).expect("a token")[0];
    assert!(first.start().push(wrong).is_err());
    let second = grammars.compile(&plan).expect("a grammar");
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(takes(&plan, "left", &mut Random::new(7)));
}

#[test]
fn grammars_that_have_no_answer_are_refused() {
    let (_, grammars) = demo();
    for lark in ["start: [", "start: nothing", "start: /(/", ""] {
        assert!(grammars.compile(&held(lark)).is_err(), "{lark}");
    }
}

/// Grammars that would take for ever, or all memory, if nothing bounded them.
fn hostile() -> Vec<(&'static str, String)> {
    let deep = format!("start: {}\"a\"{}\n", "(".repeat(20_000), ")".repeat(20_000));
    let many: String = (0..20_000).map(|n| format!(" | \"w{n}x\"")).collect();
    vec![
        ("nested repetition", lark::regex("((a{0,100}){0,100}){0,100}")),
        ("large repetition", lark::regex("[a-z]{0,1000000}")),
        ("products", lark::regex("(.*a.{20}){5}")),
        ("intersections", "start: /(?s:.*a.{18})/ & /(?s:.*b.{17})/\n".to_owned()),
        ("complement", "START: ~/(.*a.{14})/\nstart: START\n".to_owned()),
        ("ambiguity", "start: a\na: a a | \"x\" | \"\"\n".to_owned()),
        ("more ambiguity", "start: a a a a a a a a\na: /x*/ | /[xy]*/ a | a /[xz]*/\n".to_owned()),
        ("repetition of nothing", "start: (\"\"){1,1000000}\n".to_owned()),
        ("a large count", "start: (\"ab\" | \"cd\"){1,1000000}\n".to_owned()),
        ("depth", deep),
        ("many words", format!("start: W\nW: \"a\"{many}\n")),
        ("left recursion", "start: start \"a\" | start start\n".to_owned()),
        ("no answer", "start: \"a\" start\n".to_owned()),
        ("unknown token", "start: <[99999999]>\n".to_owned()),
        ("unicode classes", lark::regex(r"(\p{L}\p{N}){0,500}\w{0,500}")),
    ]
}

#[test]
fn hostile_grammars_are_bounded() {
    let (_, grammars) = demo();
    let most = Duration::from_secs(1);
    for (name, lark) in hostile() {
        let start = Instant::now();
        let compiled = grammars.compile(&held(lark));
        assert!(start.elapsed() < most, "{name}: {:?} to compile", start.elapsed());
        if let Ok(grammar) = compiled {
            let longest = longest_mask(&grammar, 200);
            assert!(longest < most, "{name}: {longest:?} for a mask");
            assert!(grammar.bytes() < 256 << 20, "{name}: {} bytes", grammar.bytes());
        }
    }
}

/// Walks at random; the longest time for one token.
fn longest_mask(grammar: &Arc<Grammar>, tokens: usize) -> Duration {
    let mut state = grammar.start();
    let mut random = Random::new(9);
    let mut words = vec![0; grammar.words()];
    let mut longest = Duration::ZERO;
    for _ in 0..tokens {
        let start = Instant::now();
        if state.allowed(&mut words).is_err() {
            break;
        }
        let bit = |t: &u32| words[*t as usize / 32] >> (t % 32) & 1 == 1;
        let may: Vec<u32> = (0..words.len() as u32 * 32).filter(bit).collect();
        let token = may[random.index(may.len())];
        let ended = state.push(token).is_err() || ends().contains(&token);
        longest = longest.max(start.elapsed());
        if ended {
            break;
        }
    }
    longest
}

/// Patterns whose automaton grows with each token would break an answer in its middle.
#[test]
fn patterns_that_would_break_an_answer_are_refused() {
    let (_, grammars) = demo();
    let exploding = [
        "(.{0,50}a.{0,50}){10}",
        "(a|b|ab)*(.*a.{0,500}){3}",
        "(a{0,100}){0,100}",
        "(a.{0,99}b.{0,99}c.{0,99}){0,99}",
        "(.*a.{20}|.*b.{19}|.*c.{18}|.*d.{17}|.*e.{16})*",
    ];
    for pattern in exploding {
        let refused = grammars.compile(&held(lark::regex(pattern))).map(drop).unwrap_err();
        assert!(refused.to_string().contains("too complex"), "{pattern}: {refused}");
    }
    // Behind so many members that no walk comes so far.
    let far = |pattern: &str| {
        let member = |at| (format!("p{at}"), json!({"type": "string", "maxLength": 40}));
        let mut members: serde_json::Map<String, Value> = (0..60).map(member).collect();
        members.insert("last".to_owned(), json!({"type": "string", "pattern": pattern}));
        let names: Vec<String> = members.keys().cloned().collect();
        let schema = json!({"type": "object", "properties": members, "required": names});
        grammars.compile(&held(format!("start: {}", lark::json(&schema).expect("a schema"))))
    };
    for pattern in ["^(.{0,50}a.{0,50}){10}$", "^(a|b|ab)*(.*a.{0,500}){3}$"] {
        let refused = far(pattern).map(drop).unwrap_err().to_string();
        assert!(refused.contains("the pattern '") && refused.contains("too complex"), "{refused}");
    }
    assert!(far("^[a-z]{3,400}$").is_ok());
}

/// What makes other engines take exponential time is no more than text here.
#[test]
fn patterns_that_only_look_dangerous_are_held() {
    for pattern in [
        "(x+x+)+y",
        "(a|aa)+",
        "([a-zA-Z]+)*",
        "(((((((((a*)*)*)*)*)*)*)*)*)*",
        "(a|b)*a(a|b){300}",
        "(a?){1000}a{1000}",
        ".*a.{4000}",
        r"[\p{L}\p{N}]{0,1000}",
    ] {
        println!("{pattern}");
        // One after the other on the same lexers, whose states grow.
        for seed in 0..24 {
            run(&held(lark::regex(pattern)), &mut Random::new(seed), 300);
        }
    }
}

/// Large, and none of them grows.
#[test]
fn schemas_of_common_use_pass_the_trial() {
    let (_, grammars) = demo();
    let members = |count: usize, schema: &dyn Fn(usize) -> Value| {
        let all: serde_json::Map<_, _> = (0..count).map(|n| (format!("m{n}"), schema(n))).collect();
        let names: Vec<String> = all.keys().cloned().collect();
        json!({"type": "object", "properties": all, "required": names})
    };
    let formats = ["date-time", "email", "uuid", "ipv4", "ipv6", "uri", "duration", "hostname"];
    let words: Vec<String> = (0..2000).map(|n| format!("value {n} of many")).collect();
    let options: Vec<Value> = (0..100)
        .map(|n| {
            json!({"type": "object", "required": ["kind", "text"], "properties": {
                "kind": {"const": format!("kind_{n}")}, "text": {"type": "string"}}})
        })
        .collect();
    for (name, schema) in [
        (
            "patterns",
            members(
                200,
                &|n| json!({"type": "string", "pattern": format!("^[A-Z]{{2}}\\d{{6}}-{n}$")}),
            ),
        ),
        (
            "letters",
            members(
                20,
                &|n| json!({"type": "string", "pattern": format!("^\\p{{L}}{{1,{}}}$", 100 + n)}),
            ),
        ),
        ("formats", members(40, &|n| json!({"type": "string", "format": formats[n % 8]}))),
        (
            "lengths",
            members(60, &|n| json!({"type": "string", "minLength": n, "maxLength": 1000 + n})),
        ),
        (
            "numbers",
            members(60, &|n| json!({"type": "number", "minimum": n, "maximum": 100_000 + n})),
        ),
        ("words", json!({"type": "array", "items": {"enum": words}})),
        ("options", json!({"type": "array", "items": {"anyOf": options}})),
        (
            "lists",
            json!({"type": "array", "maxItems": 500, "items": members(30, &|_| json!({"type": "string"}))}),
        ),
    ] {
        let start = Instant::now();
        let plan = held(format!("start: {}", lark::json(&schema).expect("a schema")));
        let compiled = grammars.compile(&plan).map(drop);
        println!("{name}: {:?}", start.elapsed());
        assert!(compiled.is_ok(), "{name}: {compiled:?}");
    }
}
