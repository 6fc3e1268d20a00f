//! What the tests of the reader share: a model with the special tokens of all formats, answers
//! written from a format's data, and readers fed in pieces.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub(crate) use hearth_tests::simulation::random::Random;
use serde_json::{Value, json};
use text::answer::{Part, Reader, Reading};
use text::grammar::lark;
use text::tools::{Arguments, Format, Layout, Thoughts};
use text::{TextFiles, TextModel};

/// Special tokens of models with these formats.
const SPECIAL: [&str; 30] = [
    "<|im_end|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|START_ACTION|>",
    "<|END_ACTION|>",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<|python_tag|>",
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "[THINK]",
    "[/THINK]",
    "<|eot|>",
];

/// How GPT-2's tokenizers spell a byte.
fn spelled(byte: u8) -> char {
    let plain = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !plain(*b)).count() as u32;
    char::from_u32(256 + before).expect("a character")
}

/// A model of bytes and special tokens. Without them all markers are text.
pub(crate) fn model(special: bool) -> &'static TextModel {
    static MODELS: [OnceLock<TextModel>; 2] = [const { OnceLock::new() }; 2];
    MODELS[usize::from(special)].get_or_init(|| {
        let bytes: BTreeMap<String, u32> =
            (0..=255).map(|byte: u8| (spelled(byte).to_string(), u32::from(byte))).collect();
        let added: Vec<Value> = SPECIAL
            .iter()
            .zip(256..)
            .filter(|_| special)
            .map(|(token, id)| {
                json!({
                    "id": id, "content": token, "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        let kind = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false, "trim_offsets": false});
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": &kind,
            "decoder": kind,
            "model": {"type": "BPE", "vocab": bytes, "merges": []},
        });
        let tokenizer = tokenizer.to_string();
        let files = TextFiles { tokenizer_json: tokenizer.as_bytes(), ..TextFiles::default() };
        TextModel::from_bytes(files).expect("a tokenizer")
    })
}

/// The smallest piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Text(char),
    Special(u32),
}

/// A stream as a model writes it.
pub(crate) fn units(model: &TextModel, spelled: &str) -> Vec<Unit> {
    let mut out = Vec::new();
    let mut rest = spelled;
    while let Some(character) = rest.chars().next() {
        let token = SPECIAL.iter().find(|token| rest.starts_with(**token));
        let known = token.and_then(|token| Some((token, model.token_id(token)?)));
        if let Some((token, id)) = known {
            out.push(Unit::Special(id));
            rest = &rest[token.len()..];
        } else {
            out.push(Unit::Text(character));
            rest = &rest[character.len_utf8()..];
        }
    }
    out
}

/// Feeds a stream that is cut at these places, too; returns the parts with neighbours merged.
pub(crate) fn read(reading: &Arc<Reading>, stream: &[Unit], cuts: &[usize]) -> Vec<Part> {
    let mut reader = Reader::new(Arc::clone(reading));
    let mut parts = Vec::new();
    let mut piece = String::new();
    let flush = |piece: &mut String, reader: &mut Reader, parts: &mut Vec<Part>| {
        let mut out = Vec::new();
        reader.text(&std::mem::take(piece), &mut out);
        parts.extend(out);
    };
    for (at, unit) in stream.iter().enumerate() {
        if cuts.contains(&at) {
            flush(&mut piece, &mut reader, &mut parts);
        }
        match unit {
            Unit::Text(character) => piece.push(*character),
            Unit::Special(id) => {
                flush(&mut piece, &mut reader, &mut parts);
                let mut out = Vec::new();
                reader.special(*id, &mut out);
                parts.extend(out);
            }
        }
    }
    flush(&mut piece, &mut reader, &mut parts);
    let mut out = Vec::new();
    reader.end(&mut out);
    parts.extend(out);
    check_order(&parts, &reader);
    merge(parts)
}

/// Parts of a call have no other parts among them; calls are numbered and all of them end.
fn check_order(parts: &[Part], reader: &Reader) {
    let mut calls = 0;
    let mut inside = None;
    for part in parts {
        match part {
            Part::Content(text) | Part::Reasoning(text) => {
                assert!(inside.is_none() && !text.is_empty(), "{parts:?}");
            }
            Part::CallStart { index, name } => {
                assert!(inside.is_none() && *index == calls && !name.is_empty(), "{parts:?}");
                inside = Some(*index);
                calls += 1;
            }
            Part::Arguments { index, text } => {
                assert!(inside == Some(*index) && !text.is_empty(), "{parts:?}");
            }
            Part::CallEnd { index } => assert!(inside.take() == Some(*index), "{parts:?}"),
        }
    }
    assert!(inside.is_none() && reader.calls() == calls, "{parts:?}");
}

fn merge(parts: Vec<Part>) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    for part in parts {
        match (out.last_mut(), &part) {
            (Some(Part::Content(last)), Part::Content(more))
            | (Some(Part::Reasoning(last)), Part::Reasoning(more))
            | (Some(Part::Arguments { text: last, .. }), Part::Arguments { text: more, .. }) => {
                last.push_str(more);
            }
            _ => out.push(part),
        }
    }
    out
}

pub(crate) fn content(text: &str) -> Vec<Part> {
    vec![Part::Content(text.to_owned())]
}

pub(crate) fn reasoning(text: &str) -> Vec<Part> {
    vec![Part::Reasoning(text.to_owned())]
}

pub(crate) fn call(index: u32, name: &str, arguments: &str) -> Vec<Part> {
    let start = Part::CallStart { index, name: name.to_owned() };
    let text = arguments.to_owned();
    let middle = (!text.is_empty()).then_some(Part::Arguments { index, text });
    [start].into_iter().chain(middle).chain([Part::CallEnd { index }]).collect()
}

/// The tools that the tests call: `f` and `g` take texts `s` and `t`, a number `n`, and JSON in
/// all other arguments; `any` has no schema.
pub(crate) fn tools() -> Vec<(String, Option<Value>)> {
    let parameters = json!({
        "type": "object",
        "properties": {
            "s": {"type": "string"},
            "t": {"type": "string"},
            "n": {"type": "number"},
            "e": {"type": ["string", "integer", "null"]},
        },
        "additionalProperties": {"type": ["object", "array", "null", "number", "boolean"]},
    });
    let tool = |name: &str| (name.to_owned(), Some(parameters.clone()));
    vec![tool("f"), tool("g"), ("any".to_owned(), None)]
}

/// What thinks in the tests, where a model is asked to.
pub(crate) fn thoughts(model: &TextModel) -> Thoughts {
    let (open, close) = ("<think>", "</think>");
    Thoughts {
        opening: lark::literal(model, open),
        closing: lark::literal(model, close),
        spelled: (open, close),
        switch: None,
    }
}

/// A reading of a format, with thoughts.
pub(crate) fn reading(special: bool, format: &'static Format, shown: bool) -> Arc<Reading> {
    let model = model(special);
    let marks = Some(thoughts(model));
    Arc::new(Reading::new(model, Some(format), tools(), marks, false, shown))
}

/// A call as a test gives it: the function, and its arguments as JSON.
pub(crate) type Call<'a> = (&'a str, &'a Value);

/// An answer in a format, from its data.
pub(crate) fn write(format: &Format, calls: &[Call<'_>]) -> String {
    let mut out = String::new();
    for (at, (name, arguments)) in calls.iter().enumerate() {
        if format.layout == Layout::Channels && at > 0 {
            out.push_str("<|call|><|start|>assistant");
        }
        out.push_str(if at == 0 { format.open } else { format.between.unwrap_or_default() });
        out.push_str(&format.before.replace("{index}", &at.to_string()));
        out.push_str(name);
        out.push_str(&format.middle.replace("{index}", &at.to_string()));
        out.push_str(&write_arguments(format, arguments));
        out.push_str(format.after);
    }
    out + format.close
}

fn write_arguments(format: &Format, arguments: &Value) -> String {
    let members = arguments.as_object().expect("an object").iter();
    match format.arguments {
        Arguments::Json => arguments.to_string(),
        Arguments::Tagged { key_open, key_close, value_close } => members
            .map(|(key, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                format!("{key_open}{key}{key_close}{text}{value_close}")
            })
            .collect(),
        Arguments::Python => {
            let pairs = members.map(|(key, value)| format!("{key}={}", python(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A literal of Python.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let text = text.replace('\\', "\\\\").replace('\'', "\\'");
            format!("'{}'", text.replace('\n', "\\n").replace('\r', "\\r"))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let key = |key: &String| python(&Value::from(key.as_str()));
            let pairs = map.iter().map(|(k, value)| format!("{}: {}", key(k), python(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Arguments as the reader gives them.
pub(crate) fn written(format: &Format, arguments: &Value) -> String {
    if format.arguments == Arguments::Json {
        return arguments.to_string();
    }
    let pairs = arguments.as_object().expect("an object").iter().map(|(key, value)| {
        let value = match format.arguments {
            Arguments::Python => spaced(value),
            _ => value.to_string(),
        };
        format!("{}: {value}", Value::from(key.as_str()))
    });
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{{}}}", pairs.join(", ")) }
}

/// JSON with a blank behind commas and colons, as literals of Python become.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(spaced).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Object(map) => {
            let pair = |key: &str, value| format!("{}: {}", Value::from(key), spaced(value));
            let pairs: Vec<String> = map.iter().map(|(key, value)| pair(key, value)).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// A stream as it is spelled.
pub(crate) fn shown(stream: &[Unit]) -> String {
    let spelled = |unit: &Unit| match unit {
        Unit::Text(character) => character.to_string(),
        Unit::Special(id) => model(true).token_text(*id),
    };
    stream.iter().map(spelled).collect()
}
