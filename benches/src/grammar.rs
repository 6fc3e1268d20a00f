//! What it costs to hold an answer to a schema: compiling it, and the mask of each token. Answers
//! are walked through with the longest tokens that fit, as a model would write them; each mask is
//! timed where it is used.

use std::path::Path;
use std::time::{Duration, Instant};

use hearth_tests::simulation::random::Random;
use serde_json::{Value, json};
use text::grammar::{Allowed, Answer, Grammars, Plan, lark};
use text::{TextFiles, TextModel};

/// Properties of the schema.
const PROPERTIES: usize = 100;

/// Limits from docs/structured-output.md: the mask of a token in the middle and at the 99th
/// percentile, and the first token of a new schema.
pub const MASK_P50: Duration = Duration::from_micros(60);
/// See [`MASK_P50`].
pub const MASK_P99: Duration = Duration::from_millis(1);

/// Walks `answers` answers of a schema of a hundred properties.
///
/// # Errors
/// The tokenizer cannot be read, or the grammar not be made.
pub fn run(tokenizer: Option<&Path>, answers: usize) -> anyhow::Result<Value> {
    let text = match tokenizer {
        Some(folder) => TextModel::from_dir(folder)?,
        None => made_up()?,
    };
    let end = text.eos().ok_or_else(|| anyhow::anyhow!("the tokenizer names no end token"))?;
    let start = Instant::now();
    let grammars = Grammars::new(&text, &[end])?;
    let vocabulary_ms = ms(start.elapsed());
    let schema = schema();
    let mut compiled = Vec::new();
    // Each a schema of its own: nothing is kept from the one before.
    for round in 0..5 {
        let mut schema = schema.clone();
        schema["properties"][format!("extra_{round}")] = json!({"type": "string"});
        let start = Instant::now();
        let plan = held(&schema)?;
        grammars.compile(&plan)?.start().allowed(&mut vec![0; text.vocab_size().div_ceil(32)])?;
        compiled.push(start.elapsed());
    }
    let plan = held(&schema)?;
    let grammar = grammars.compile(&plan)?;
    let start = Instant::now();
    let kept = grammars.compile(&plan)?;
    let mut words = vec![0; kept.words()];
    kept.start().allowed(&mut words)?;
    let kept_us = us(start.elapsed());

    let mut random = Random::new(7);
    let (mut masks, mut pushes) = (Vec::new(), Vec::new());
    for _ in 0..answers {
        let said = instance(&mut random).to_string();
        let mut rest = said.as_bytes();
        let mut state = grammar.start();
        while !rest.is_empty() {
            let start = Instant::now();
            let allowed = state.allowed(&mut words)?;
            masks.push(start.elapsed());
            anyhow::ensure!(allowed == Allowed::Only, "the answer is held");
            let token = longest(&text, &words, rest);
            let token = token.ok_or_else(|| anyhow::anyhow!("no token for {said}"))?;
            rest = &rest[text.token_bytes(token).len()..];
            let start = Instant::now();
            state.push(token)?;
            pushes.push(start.elapsed());
        }
    }
    masks.sort_unstable();
    pushes.sort_unstable();
    compiled.sort_unstable();
    let of = |all: &[Duration], permille: usize| us(all[(all.len() - 1) * permille / 1000]);
    Ok(json!({
        "vocabulary": text.vocab_size(),
        "properties": PROPERTIES,
        "tokens": masks.len(),
        "vocabulary_ms": vocabulary_ms,
        "new_schema_ms": ms(compiled[compiled.len() / 2]),
        "kept_schema_us": kept_us,
        "mask_us": {"p50": of(&masks, 500), "p90": of(&masks, 900), "p99": of(&masks, 990),
            "max": of(&masks, 1000)},
        "push_us": {"p50": of(&pushes, 500), "p99": of(&pushes, 990)},
    }))
}

fn held(schema: &Value) -> anyhow::Result<Plan> {
    let lark = format!("start: {}\n", lark::json(schema).map_err(|e| anyhow::anyhow!("{e}"))?);
    Ok(Plan { thinking: None, answer: Answer::Held(lark) })
}

/// The longest allowed token that the text begins with.
fn longest(text: &TextModel, words: &[u32], rest: &[u8]) -> Option<u32> {
    let fits = |id: &u32| {
        let bytes = text.token_bytes(*id);
        words[*id as usize / 32] >> (id % 32) & 1 == 1
            && !bytes.is_empty()
            && rest.starts_with(bytes)
    };
    (0..text.vocab_size() as u32).filter(fits).max_by_key(|id| text.token_bytes(*id).len())
}

/// An order with a hundred properties of all kinds.
fn schema() -> Value {
    let mut properties = serde_json::Map::new();
    for n in 0..PROPERTIES {
        let (name, of) = property(n);
        properties.insert(name, of);
    }
    let names: Vec<String> = properties.keys().cloned().collect();
    json!({"type": "object", "properties": properties, "required": names,
        "additionalProperties": false})
}

fn property(n: usize) -> (String, Value) {
    let of = match n % 8 {
        0 => json!({"type": "string"}),
        1 => json!({"type": "integer", "minimum": 0, "maximum": 100_000}),
        2 => json!({"type": "number"}),
        3 => json!({"enum": ["new", "open", "sent", "closed"]}),
        4 => json!({"type": "boolean"}),
        5 => json!({"type": "array", "items": {"type": "string"}, "maxItems": 8}),
        6 => json!({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}),
        _ => json!({"type": "object", "properties": {"street": {"type": "string"},
            "number": {"type": "integer"}}, "required": ["street", "number"],
            "additionalProperties": false}),
    };
    (format!("{}_{n}", WORDS[n % WORDS.len()]), of)
}

fn instance(random: &mut Random) -> Value {
    let mut out = serde_json::Map::new();
    for n in 0..PROPERTIES {
        let value = match n % 8 {
            0 => json!(sentence(random)),
            1 => json!(random.index(100_000)),
            2 => json!(random.index(100_000) as f64 / 8.0),
            3 => json!(["new", "open", "sent", "closed"][random.index(4)]),
            4 => json!(random.index(2) == 0),
            5 => (0..random.index(4)).map(|_| json!(sentence(random))).collect(),
            6 if random.index(2) == 0 => Value::Null,
            6 => json!(format!(
                "20{:02}-0{}-1{}",
                random.index(90) + 10,
                1 + random.index(8),
                random.index(10)
            )),
            _ => json!({"street": sentence(random), "number": random.index(200)}),
        };
        out.insert(property(n).0, value);
    }
    Value::Object(out)
}

fn sentence(random: &mut Random) -> String {
    let words = (0..1 + random.index(12)).map(|_| WORDS[random.index(WORDS.len())]);
    words.collect::<Vec<_>>().join(" ")
}

const WORDS: [&str; 16] = [
    "customer",
    "name",
    "delivery",
    "amount",
    "of",
    "the",
    "total",
    "status",
    "invoice",
    "for",
    "green",
    "warehouse",
    "number",
    "and",
    "discount",
    "region",
];

/// A byte-level vocabulary of 128k made-up words, about as long as real ones.
fn made_up() -> anyhow::Result<TextModel> {
    let mut random = Random::new(1);
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255_u8 {
        vocab.insert(stand_in(&[byte]), json!(byte));
    }
    let common = WORDS.iter().flat_map(|word| [(*word).to_owned(), format!(" {word}")]);
    let marks = ["\":", "\",", "\":\"", "\",\"", "{\"", "\"}", "},", "],", "[\"", ":[", "null"];
    let marks = marks.iter().map(|mark| (*mark).to_owned());
    for word in common.chain(marks) {
        let id = vocab.len();
        vocab.entry(stand_in(word.as_bytes())).or_insert_with(|| json!(id));
    }
    while vocab.len() < 128_000 {
        let length = 2 + random.index(9);
        let mut word: Vec<u8> = if random.index(2) == 0 { b" ".to_vec() } else { Vec::new() };
        word.extend((0..length).map(|_| LETTERS[random.index(LETTERS.len())]));
        let id = vocab.len();
        vocab.entry(stand_in(&word)).or_insert_with(|| json!(id));
    }
    let end = json!({"id": vocab.len(), "content": "<|end|>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = json!({"version": "1.0", "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    Ok(TextModel::from_bytes(TextFiles {
        tokenizer_json: tokenizer.to_string().as_bytes(),
        tokenizer_config: Some(br#"{"eos_token": "<|end|>"}"#),
        ..TextFiles::default()
    })?)
}

/// Letters as often as in prose, and what stands between words.
const LETTERS: &[u8] =
    b"eeeeeetttttaaaaooooiiiinnnnsssshhhrrrddllccuummwwffggyyppbbvk.,-_(){}[]:;\"'0123456789";

/// Bytes as byte-level vocabularies spell them (GPT-2's table).
fn stand_in(bytes: &[u8]) -> String {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let one = |byte: u8| {
        let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
        let shifted = char::from_u32(256 + before).unwrap_or_default();
        if printable(byte) { char::from(byte) } else { shifted }
    };
    bytes.iter().map(|byte| one(*byte)).collect()
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

fn us(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}
