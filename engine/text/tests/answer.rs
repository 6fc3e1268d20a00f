//! Answers read from streams: content, thoughts and calls of every format, the same however the
//! stream is cut.

use std::sync::Arc;

use serde_json::{Value, json};
use text::answer::{Part, Reading};
use text::tools::{Format, Layout};

mod answer_kit;

use answer_kit::{
    Random, Unit, call, content, model, read, reading, reasoning, shown, thoughts, tools, units,
    write, written,
};

fn format(name: &str) -> &'static Format {
    Format::named(name).expect(name)
}

/// Reads a stream whole, character by character, cut in two everywhere and at random.
fn read_all(reading: &Arc<Reading>, stream: &[Unit]) -> Vec<Part> {
    let whole = read(reading, stream, &[]);
    let each: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(read(reading, stream, &each), whole, "character by character: {stream:?}");
    for at in 1..stream.len() {
        assert_eq!(read(reading, stream, &[at]), whole, "cut at {at}: {stream:?}");
    }
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let cuts: Vec<usize> = each.iter().copied().filter(|_| random.index(4) == 0).collect();
        assert_eq!(read(reading, stream, &cuts), whole, "cut at {cuts:?}: {stream:?}");
    }
    whole
}

/// A stream of a format with special tokens leads to these parts; with markers of text, too.
fn check(name: &str, stream: &str, expect: &[Vec<Part>]) {
    for special in [true, false] {
        let reading = reading(special, format(name), false);
        let parts = read_all(&reading, &units(model(special), stream));
        assert_eq!(parts, expect.concat(), "{name}, special tokens: {special}: {stream}");
    }
}

/// The same for a stream that only comes with special tokens.
fn check_special(name: &str, shown: bool, stream: &str, expect: &[Vec<Part>]) {
    let reading = reading(true, format(name), shown);
    let parts = read_all(&reading, &units(model(true), stream));
    assert_eq!(parts, expect.concat(), "{name}: {stream}");
}

/// What models write, word for word.
#[test]
fn calls_as_models_write_them() {
    let one = call(0, "f", r#"{"s": "x"}"#);
    for (name, stream) in [
        ("hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"x\"}}\n</tool_call>"),
        (
            "qwen3-coder",
            "<tool_call>\n<function=f>\n<parameter=s>\nx\n</parameter>\n</function>\n</tool_call>",
        ),
        ("glm", "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>x</arg_value>\n</tool_call>"),
        ("llama-json", "{\"name\": \"f\", \"parameters\": {\"s\": \"x\"}}"),
        ("llama-pythonic", "[f(s='x')]"),
        ("mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"s\": \"x\"}}]"),
        ("mistral-v11", "[TOOL_CALLS]f[ARGS]{\"s\": \"x\"}"),
        (
            "deepseek-v3",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n\
             {\"s\": \"x\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "deepseek-v31",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"x\"}\
             <｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "kimi-k2",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0\
             <|tool_call_argument_begin|>{\"s\": \"x\"}<|tool_call_end|>\
             <|tool_calls_section_end|>",
        ),
        ("granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"s\": \"x\"}}]"),
        (
            "phi4-mini",
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"s\": \"x\"}}]<|/tool_call|>",
        ),
        (
            "command-r",
            "Action: ```json\n[\n    {\n        \"tool_name\": \"f\",\n        \
             \"parameters\": {\"s\": \"x\"}\n    }\n]\n```",
        ),
        (
            "command-r7b",
            "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"f\", \
             \"parameters\": {\"s\": \"x\"}}\n]<|END_ACTION|>",
        ),
        ("generic", "{\"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"s\": \"x\"}}]}"),
        (
            "harmony",
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"s\": \"x\"}<|call|>",
        ),
    ] {
        check(name, stream, std::slice::from_ref(&one));
    }
    assert_eq!(Format::ALL.len(), 16, "a format lacks an example");
}

/// Arguments with everything that could be taken for an end.
fn hard() -> Value {
    json!({
        "s": "}]\"')>\n\\</tool_call> {\"a\": [\\n",
        "n": -1.5,
        "o": {"a": {"b": [[], {}, null, true, "}\"]"]}},
        "t": "é😀\t</arg_value</parameter>\n",
        "l": [1, "x", [2]],
    })
}

#[test]
fn every_format_in_every_cut() {
    let (hard, empty) = (hard(), json!({}));
    let thought = "<think>\n\nI call.\n\nNow.\n</think>\n\n";
    for format in Format::ALL.iter().filter(|format| format.layout == Layout::Plain) {
        let name = format.name;
        let first = call(0, "f", &written(format, &hard));
        let one = write(format, &[("f", &hard)]);
        check(name, &one, std::slice::from_ref(&first));
        check(name, &format!("\n \n{one}\n"), std::slice::from_ref(&first));
        let two = write(format, &[("f", &hard), ("g", &empty)]);
        let both = [first.clone(), call(1, "g", "{}")];
        check(name, &two, &both);
        let three = write(format, &[("g", &empty), ("unknown.name-1", &empty), ("g", &empty)]);
        let all = [call(0, "g", "{}"), call(1, "unknown.name-1", "{}"), call(2, "g", "{}")];
        check(name, &three, &all);
        let after = [reasoning("I call.\n\nNow."), both.concat()];
        check(name, &format!("{thought}{two}"), &after);
        let text = format!("Let me see:\n\n{two}");
        if format.at_start {
            check(name, &text, &[content(&text)]);
        } else {
            check(name, &text, &[content("Let me see:"), both.concat()]);
            let text = format!("Let me see: {one}\n\nDone.\n");
            check(name, &text, &[content("Let me see:"), first, content("Done.\n")]);
        }
    }
}

/// An answer that ends anywhere: what came of the arguments is a beginning of them, and before
/// there are any all is content.
#[test]
fn answers_cut_off_anywhere() {
    let (hard, empty) = (hard(), json!({}));
    for format in Format::ALL {
        let reading = reading(true, format, true);
        let whole =
            units(model(true), &write(format, &[("f", &hard), ("g", &empty), ("f", &hard)]));
        let full = written(format, &hard);
        for end in 0..whole.len() {
            let stream = &whole[..end];
            let parts = read(&reading, stream, &[]);
            let each: Vec<usize> = (0..end).collect();
            assert_eq!(read(&reading, stream, &each), parts, "{}: {stream:?}", format.name);
            let begins = matches!(parts.first(), None | Some(Part::CallStart { .. }));
            if !begins && format.layout == Layout::Plain {
                assert_eq!(parts, content(&shown(stream)), "{}", format.name);
            }
            for part in &parts {
                if let Part::Arguments { index, text } = part {
                    let full = if *index == 1 { "{}" } else { &full };
                    assert!(full.starts_with(text), "{}: {text} of {full}", format.name);
                }
            }
        }
    }
}

#[test]
fn json_may_be_written_with_any_white_space_and_order() {
    let one = || [call(0, "f", "{\"s\":\"x\"}")];
    for stream in [
        "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"x\"}}</tool_call>",
        "<tool_call>\n\n{\n  \"name\" : \"f\",\n  \"arguments\" : {\"s\":\"x\"}\n}\n</tool_call>",
        "<tool_call>\n{\"arguments\": {\"s\":\"x\"}, \"name\": \"f\"}\n</tool_call>",
        "<tool_call>\n{\"parameters\": {\"s\":\"x\"}, \"name\": \"f\"}\n</tool_call>",
        "<tool_call>\n{\"name\": \"\\u0066\", \"arguments\": {\"s\":\"x\"}}\n</tool_call>",
    ] {
        check("hermes", stream, &one());
    }
    for stream in [
        "{\"name\":\"f\",\"parameters\":{\"s\":\"x\"}}",
        " { \"parameters\" : {\"s\":\"x\"} , \"name\" : \"f\" } ",
        "{\"name\": \"f\", \"arguments\": {\"s\":\"x\"}}",
    ] {
        check("llama-json", stream, &one());
    }
    let both = [call(0, "f", "{}"), call(1, "g", "\"{\\\"a\\\": 1}\"")];
    let lists = "{ \"tool_calls\":[ {\"name\": \"f\"} ,\n{\"name\": \"g\", \
                 \"arguments\": \"{\\\"a\\\": 1}\"} ] }";
    check("generic", lists, &both);
    let numbered =
        "<|START_ACTION|>[{\"tool_name\": \"f\", \"tool_call_id\": \"1\"}]<|END_ACTION|>";
    check("command-r7b", numbered, &[call(0, "f", "{}")]);
}

#[test]
fn json_that_is_no_call_is_content() {
    for stream in [
        "{\"age\": 5, \"name\": \"f\"}",
        "{\"name\": 5}",
        "{\"name\": \"\", \"parameters\": {}}",
        "{\"name\": \"f\", \"name\": \"g\", \"parameters\": {}}",
        "{\"name\": \"f\", \"age\": 5}",
        "{\"parameters\": {\"a\": [1, 2]}, \"age\": 5}",
        "{}",
        "{\"name\": \"Bob",
        "[1]",
        "{",
    ] {
        check("llama-json", stream, &[content(stream)]);
        let tagged = format!("<tool_call>\n{stream}\n</tool_call>");
        check("hermes", &tagged, &[content(&tagged)]);
    }
    check("generic", "{\"tool_calls\": []}", &[content("{\"tool_calls\": []}")]);
    check("generic", "{\"tool\": []}", &[content("{\"tool\": []}")]);
}

#[test]
fn what_follows_no_format_is_content() {
    let one = call(0, "f", "{\"s\": \"x\"}");
    let half = call(0, "f", "{\"s\": \"x\"");
    let said = |text: &str| [one.clone(), content(text)];
    // A call that has no arguments yet, and a call behind it.
    let call_of = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"x\"}}\n</tool_call>";
    for lead in ["<tool_call>", "<tool_call>\n", "<tool_", "<<tool_call>\n{\"na", "< <tool_call>{"]
    {
        let expect = [content(lead.trim_end()), one.clone()];
        check("hermes", &format!("{lead}{call_of}"), &expect);
    }
    // Behind complete arguments.
    check("hermes", &call_of.replace("}}", "}, \"b\": 1}"), &said(", \"b\": 1}\n</tool_call>"));
    check("hermes", &call_of.replace("\n</", " </x"), &said("</xtool_call>"));
    check("granite", "<|tool_call|>[{\"name\": \"f\"}, x]", &[call(0, "f", "{}"), content(", x]")]);
    let cut = "<|tool_call|>[{\"name\": \"f\"}, {\"name\": \"g";
    check("granite", cut, &[call(0, "f", "{}"), content(", {\"name\": \"g")]);
    check("granite", "<|tool_call|>[{\"name\": \"f\"}, ", &[call(0, "f", "{}")]);
    check("mistral-v11", "[TOOL_CALLS]f[ARGS]{\"s\": \"x\"} and so", &said("and so"));
    // Within arguments.
    let element = "<tool_call>\n<function=f>\n<parameter=s>\nx\n</parameter>\n";
    check("qwen3-coder", &format!("{element}<x"), &[half.clone(), content("<x")]);
    check("qwen3-coder", &format!("{element}</func"), std::slice::from_ref(&half));
    check("llama-pythonic", "[f(s='x', t=oh)]", &[half.clone(), content("t=oh)]")]);
    check("llama-pythonic", "[f(s='x', 5)]", &[half.clone(), content("5)]")]);
    check_special(
        "hermes",
        true,
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"x\"<|eot|>}\n",
        &[half, content("<|eot|>}\n")],
    );
}

#[test]
fn calls_begin_only_where_a_format_has_them() {
    let text = "See: {\"name\": \"f\", \"parameters\": {}}";
    check("llama-json", text, &[content(text)]);
    for text in ["[g](https://x.y)", "[h(s='x')]", "[f (s='x')]", "x [f(s='x')]", "[1, 2]", "["] {
        check("llama-pythonic", text, &[content(text)]);
    }
    let two = call(0, "f", "{}").into_iter().chain(call(1, "h", "{\"a\": null}"));
    check("llama-pythonic", "[f(), h(a=None)]", &[two.collect()]);
    check_special(
        "llama-json",
        false,
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}",
        &[call(0, "f", "{}")],
    );
    // Text that looks like a special token is none.
    let reading = reading(true, format("mistral-v11"), false);
    let stream: Vec<Unit> = "[TOOL_CALLS]f[ARGS]{}".chars().map(Unit::Text).collect();
    assert_eq!(read_all(&reading, &stream), content("[TOOL_CALLS]f[ARGS]{}"));
}

#[test]
fn tagged_values_become_json() {
    let call_of = |tool: &str, key: &str, value: &str| {
        format!(
            "<tool_call>\n<function={tool}>\n<parameter={key}>\n{value}\n</parameter>\n\
             </function>\n</tool_call>"
        )
    };
    for (tool, key, value, expect) in [
        ("f", "s", "5", r#""5""#),
        ("f", "s", "", r#""""#),
        ("f", "s", " \n ", r#"" \n ""#),
        ("f", "s", "</parameter>", r#""</parameter>""#),
        ("f", "n", " 5\n", "5"),
        ("f", "l", "[1,\n 2]", "[1,\n 2]"),
        ("f", "l", "", "null"),
        ("f", "e", "5", "5"),
        ("f", "e", " null ", "null"),
        ("f", "e", "\"5\"", r#""\"5\"""#),
        ("f", "e", " a\nb", r#"" a\nb""#),
        ("any", "x", "{\"a\": 1}", "{\"a\": 1}"),
        ("any", "x", "{\"a\": 1", r#""{\"a\": 1""#),
        ("h", "a \"b\"", "True", r#""True""#),
    ] {
        let expect = format!("{{{}: {expect}}}", Value::from(key));
        check("qwen3-coder", &call_of(tool, key, value), &[call(0, tool, &expect)]);
    }
}

#[test]
fn white_space_beside_calls_and_thoughts_is_dropped() {
    let one = call(0, "g", "{}");
    let call_of = "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
    check("hermes", &format!(" \n{call_of} \n"), std::slice::from_ref(&one));
    check("hermes", &format!("  a \n b\n\n{call_of}"), &[content("  a \n b"), one.clone()]);
    check("hermes", " a \n", &[content(" a \n")]);
    check("hermes", " \n", &[content(" \n")]);
    check("hermes", "<think>a</think>\n\n b \n", &[reasoning("a"), content("b \n")]);
    check("hermes", "<think>a</think>\n\n", &[reasoning("a")]);
    check("hermes", &format!("<think>\n</think>\n{call_of}"), &[one]);
    check("hermes", "", &[]);
}

#[test]
fn thoughts_stand_at_the_start() {
    let two = [reasoning("a\n\nb"), content("c")];
    check("hermes", "\n <think>\n\na\n\nb\n\n</think>\n\nc", &two);
    check("hermes", "c <think>a</think>", &[content("c <think>a</think>")]);
    check("hermes", "<think>a</think>b<think>", &[reasoning("a"), content("b<think>")]);
    check("hermes", "<think>a</thin", &[reasoning("a</thin")]);
    check("hermes", "<think>a<think>\n", &[reasoning("a<think>")]);
    check("hermes", " <thi", &[content(" <thi")]);
    check("hermes", " <thin>", &[content(" <thin>")]);
    check_special("hermes", true, "<think>a<|eot|>\n</think>", &[reasoning("a<|eot|>")]);
    check_special("hermes", false, "<think>a<|eot|>\n</think>", &[reasoning("a")]);
    let model = model(true);
    let marks = Some(thoughts(model));
    let open = Arc::new(Reading::new(model, None, tools(), marks, true, false));
    let parts = read_all(&open, &units(model, "\na\n</think>\n\nb \n"));
    assert_eq!(parts, [reasoning("a"), content("b \n")].concat());
    assert_eq!(read_all(&open, &units(model, "a\n\nb\n")), reasoning("a\n\nb"));
}

#[test]
fn tokens_of_thoughts_are_told() {
    let reading = reading(false, format("hermes"), false);
    let mut reader = text::answer::Reader::new(reading);
    let mut told = Vec::new();
    for piece in ["<thi", "nk>", "a", "b</thin", "k>", "c"] {
        told.push(reader.is_thinking());
        reader.text(piece, &mut Vec::new());
    }
    assert_eq!(told, [false, false, true, true, true, false]);
}

#[test]
fn without_anything_to_look_for_text_passes_at_once() {
    for shown in [false, true] {
        let reading = Arc::new(Reading::new(model(true), None, Vec::new(), None, false, shown));
        let mut reader = text::answer::Reader::new(reading);
        for piece in [" \n", "<tool_call>", "a ", ""] {
            let mut now = Vec::new();
            reader.text(piece, &mut now);
            assert_eq!(now, if piece.is_empty() { Vec::new() } else { content(piece) });
        }
        let mut parts = Vec::new();
        reader.special(model(true).token_id("<|eot|>").expect("a token"), &mut parts);
        let expect = if shown { content("<|eot|>") } else { Vec::new() };
        reader.end(&mut parts);
        assert_eq!(parts, expect);
    }
}

/// Messages of gpt-oss.
#[test]
fn channels() {
    let think = "<|channel|>analysis<|message|>a\nb<|end|><|start|>assistant";
    let name = "harmony";
    let one = || call(0, "f", "{\"a\": 1}");
    for (stream, expect) in [
        ("<|channel|>final<|message|> c\n<|return|>".to_owned(), vec![content(" c\n")]),
        (format!("{think}<|channel|>final<|message|>c"), vec![reasoning("a\nb"), content("c")]),
        (
            format!("{think}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{\"a\": 1}}<|call|>"),
            vec![reasoning("a\nb"), one()],
        ),
        (
            format!("{think} to=functions.f<|channel|>commentary json<|message|> {{\"a\": 1}}\n<|call|>"),
            vec![reasoning("a\nb"), one()],
        ),
        (
            " to=functions.f<|channel|>commentary<|message|>{\"a\": 1}".to_owned(),
            vec![one()],
        ),
        (
            "<|channel|>commentary<|message|>I call.<|end|><|start|>assistant<|channel|>\
             commentary to=functions.f<|message|>{\"a\": 1}<|call|>"
                .to_owned(),
            vec![content("I call."), one()],
        ),
        (
            "<|channel|>analysis to=functions.f code<|message|><|call|>".to_owned(),
            vec![call(0, "f", "{}")],
        ),
        (format!("{think}{think}"), vec![reasoning("a\nb\n\na\nb")]),
        (" to=functions and more".to_owned(), vec![content(" to=functions and more")]),
        ("the answer goes on<|return|>".to_owned(), vec![content("the answer goes on")]),
        (" to=functions.f".to_owned(), vec![content(" to=functions.f")]),
        ("<|start|>functions.f to=assistant<|channel|>commentary<|message|>x<|end|>".to_owned(), vec![content("x")]),
        ("<|channel|>final".to_owned(), vec![]),
        ("<|message|>x<|message|>y<|end|>z".to_owned(), vec![content("xyz")]),
        (
            "<|channel|>commentary to=functions.f<|message|>{\"a\": 1}<|start|>assistant<|channel|>\
             commentary to=functions.g<|message|>{}"
                .to_owned(),
            vec![one(), call(1, "g", "{}")],
        ),
    ] {
        check(name, &stream, &expect);
    }
    let broken = "<|channel|>commentary to=functions.f<|message|>{\"a\": 1<|eot|>}";
    check_special(name, false, broken, &[call(0, "f", "{\"a\": 1"), content("}")]);
    let model = model(true);
    let open = Reading::new(model, Some(format(name)), tools(), None, true, false);
    assert_eq!(read_all(&Arc::new(open), &units(model, "a<|end|>")), reasoning("a"));
}
