//! What models write and what their makers and callers hand over as text: calls in every format,
//! chat templates, schemas and grammars.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use text::answer::{Part, Reading};
use text::grammar::{ebnf, lark, schema};
use text::tools::Format;
use text::{ChatInput, StopStrings, TextFiles, TextModel};

use crate::answer_kit::{model, read, reading, units};
use crate::{pieces, rolls};

/// The readings of an answer: of each format, with and without tokens of its own for its markers,
/// with and without showing the others.
fn readings() -> &'static [(bool, Arc<Reading>)] {
    static ALL: OnceLock<Vec<(bool, Arc<Reading>)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let of = |format: &&'static Format| {
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(special, shown)| (special, reading(special, format, shown)))
        };
        Format::ALL.iter().flat_map(of).collect()
    })
}

/// Answers with calls, by all formats: the first byte says which, see [`calls_begin`].
pub fn calls(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else { return };
    let all = readings();
    let (special, reading) = &all[usize::from(*which) % all.len()];
    let text = String::from_utf8_lossy(text);
    let stream = units(model(*special), &text);
    let parts = read(reading, &stream, &[]);
    let each: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(read(reading, &stream, &each), parts);
    let mut roll = rolls(bytes);
    let cuts: Vec<usize> = each.into_iter().filter(|_| roll(5) == 0).collect();
    assert_eq!(read(reading, &stream, &cuts), parts);
    let of = |part: &Part| match part {
        Part::Content(text) | Part::Reasoning(text) | Part::Arguments { text, .. } => text.len(),
        Part::CallStart { name, .. } => name.len(),
        Part::CallEnd { .. } => 0,
    };
    let made: usize = parts.iter().map(of).sum();
    assert!(made <= 6 * text.len(), "{made} bytes of {}", text.len());
}

/// The first byte of an answer in the format with this number.
pub(crate) fn calls_begin(format: usize) -> impl Iterator<Item = u8> {
    (0..4).map(move |way| u8::try_from(4 * format + way).expect("there are few formats"))
}

/// Chat templates: compiled, and rendered where that works.
pub fn template(bytes: &[u8]) {
    const TINY: &str = r#"{"version": "1.0", "model": {"type": "WordLevel",
        "vocab": {"<s>": 0, "</s>": 1, "a": 2}, "unk_token": "a"}}"#;
    let source = String::from_utf8_lossy(bytes);
    let files = TextFiles {
        tokenizer_json: TINY.as_bytes(),
        chat_template: Some(&source),
        ..TextFiles::default()
    };
    let Ok(model) = TextModel::from_bytes(files) else { return };
    let call = json!({"id": "abcdefgh1", "type": "function",
        "function": {"name": "f", "arguments": {"a": [1, "x"]}}});
    let messages = vec![
        json!({"role": "system", "content": "s"}),
        json!({"role": "user", "content": "hi"}),
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "abcdefgh1", "name": "f", "content": "7"}),
    ];
    let chat = ChatInput { messages, add_generation_prompt: true, ..ChatInput::default() };
    let _ = model.render_chat(&chat);
}

/// Schemas that answers are held to: prepared for the compiler or refused in words.
pub fn schema(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let prepared = schema::prepare(&value);
    assert_eq!(prepared.is_ok(), lark::json(&value).is_ok());
    if let Err(why) = prepared {
        assert!(!why.to_string().is_empty());
    }
}

/// Grammars in EBNF; and stop strings, which the lines of the text are.
pub fn grammar(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    if let Ok(lark) = ebnf::to_lark(source) {
        assert!(ebnf::is_ebnf(source) && lark.contains("start:"), "{source:?} is {lark:?}");
    }
    let (text, stops) = source.split_once('\n').unwrap_or((source, "a"));
    let stops: Vec<String> = stops.lines().take(4).map(str::to_owned).collect();
    let cut = |pieces: &[&str]| {
        let mut watch = StopStrings::new(stops.clone());
        let mut out = String::new();
        for piece in pieces {
            out.push_str(watch.push(piece).emit);
        }
        out
    };
    let letters: Vec<&str> = text.split_inclusive(|_| true).collect();
    assert_eq!(cut(&[text]), cut(&letters));
    // Cuts within a character are the detokenizer's to mend.
    let some = pieces(bytes).len() % 7 + 1;
    let words: Vec<String> = letters.chunks(some).map(<[&str]>::concat).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(cut(&[text]), cut(&words));
}
