//! Streams that follow no format, or almost one: whatever comes, a reader gives the same parts for
//! every cut, loses nothing that is not a format's own, makes nothing up, and holds no more than
//! what it was given. One test per format, by seed; HEARTH_FUZZ_RUNS says how many.

mod answer_kit;

use std::sync::Arc;

use answer_kit::{Random, Unit, model, read, reading, units, write};
use hearth_tests::memory::{Counting, peak_of};
use serde_json::{Value, json};
use text::answer::{Part, Reader, Reading};
use text::tools::Format;

/// Runs of each format.
const RUNS: u64 = 1000;

/// What a reader may hold beside its stream: buffers that grew, and the parts of one piece.
const SLACK: usize = 16 << 10;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pieces that streams are made of.
const PIECES: [&str; 40] = [
    " ",
    "\n",
    "a",
    "f",
    "g",
    "é😀",
    "\"",
    "\\",
    "'",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    ";",
    ":",
    "=",
    "<",
    ">",
    "0",
    "-1.5e3",
    "null",
    "True",
    "name",
    "\"name\": \"f\"",
    "\"arguments\": {",
    "\"parameters\": ",
    "\\u00e9",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|eot|>",
    "<parameter=",
    "<arg_key>",
    " to=functions.",
    "```",
    "\u{0}",
];

/// A value for arguments.
fn value(random: &mut Random, depth: usize) -> Value {
    match random.index(if depth == 0 { 4 } else { 6 }) {
        0 => Value::Null,
        1 => json!(random.index(1000)),
        2 => json!(-1.5),
        3 => {
            let pieces = random.index(6);
            Value::from((0..pieces).map(|_| random.pick(&PIECES)).collect::<String>())
        }
        4 => (0..random.index(4)).map(|_| value(random, depth - 1)).collect(),
        _ => object(random, depth - 1),
    }
}

fn object(random: &mut Random, depth: usize) -> Value {
    let keys = ["s", "t", "n", "e", "o", "l"];
    let members = random.index(4);
    let pairs = (0..members).map(|_| (random.pick(&keys).to_owned(), value(random, depth)));
    Value::Object(pairs.collect())
}

/// An answer with calls, written as the format says.
fn answer(format: &Format, random: &mut Random) -> String {
    let made: Vec<Value> = (0..=random.index(3)).map(|_| object(random, 2)).collect();
    let names = ["f", "g", "any", "unknown"];
    let calls: Vec<_> = made.iter().map(|value| (random.pick(&names), value)).collect();
    let lead = random.pick(&["", "", " \n", "text ", "<think>a\n</think>\n\n"]);
    format!("{lead}{}", write(format, &calls))
}

/// One change somewhere.
fn mutate(stream: &mut Vec<Unit>, format: &Format, special: bool, random: &mut Random) {
    let at = random.index(stream.len() + 1);
    let length = random.index(12).min(stream.len() - at);
    match random.index(6) {
        0 => stream.truncate(at),
        1 => {
            stream.drain(at..at + length);
        }
        2 => {
            let piece = stream[at..at + length].to_vec();
            stream.splice(at..at, piece);
        }
        3 => {
            let own = [format.open, format.before, format.middle, format.after, format.close];
            let piece = random.pick(&own);
            stream.splice(at..at, units(model(special), piece));
        }
        4 => stream.insert(at, Unit::Special(random.index(290) as u32)),
        _ => {
            let piece = random.pick(&PIECES);
            stream.splice(at..at, units(model(special), piece));
        }
    }
}

/// Bytes of a stream, special tokens as they are spelled.
fn bytes(stream: &[Unit], special: bool) -> usize {
    let of = |unit: &Unit| match unit {
        Unit::Text(character) => character.len_utf8(),
        Unit::Special(id) => model(special).token_text(*id).len(),
    };
    stream.iter().map(of).sum()
}

/// Text of all parts, in bytes.
fn given(parts: &[Part]) -> usize {
    let of = |part: &Part| match part {
        Part::Content(text) | Part::Reasoning(text) | Part::Arguments { text, .. } => text.len(),
        Part::CallStart { name, .. } => name.len(),
        Part::CallEnd { .. } => 0,
    };
    parts.iter().map(of).sum()
}

/// Feeds a reader and drops the parts at once; the most that was held, in bytes.
fn peak(reading: &Arc<Reading>, stream: &[Unit]) -> usize {
    let mut reader = Reader::new(Arc::clone(reading));
    let read = || {
        for unit in stream {
            let mut out = Vec::new();
            match unit {
                Unit::Text(character) => reader.text(character.encode_utf8(&mut [0; 4]), &mut out),
                Unit::Special(id) => reader.special(*id, &mut out),
            }
        }
        reader.end(&mut Vec::new());
    };
    peak_of(read).1
}

fn fuzz(name: &str) {
    let format = Format::named(name).expect(name);
    let runs = std::env::var("HEARTH_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok());
    let readings: Vec<Arc<Reading>> = [(false, false), (false, true), (true, false), (true, true)]
        .map(|(special, shown)| reading(special, format, shown))
        .to_vec();
    let mut calls = 0;
    let runs: u64 = runs.unwrap_or(RUNS);
    for seed in 0..runs {
        let mut random = Random::new(seed);
        let special = random.index(2) == 1;
        let reading = &readings[2 * usize::from(special) + random.index(2)];
        let mut stream = match random.index(4) {
            0 => Vec::new(),
            _ => units(model(special), &answer(format, &mut random)),
        };
        if stream.is_empty() {
            let pieces: String = (0..random.index(40)).map(|_| random.pick(&PIECES)).collect();
            stream = units(model(special), &pieces);
        }
        for _ in 0..random.index(5) {
            mutate(&mut stream, format, special, &mut random);
        }
        let parts = read(reading, &stream, &[]);
        let each: Vec<usize> = (0..stream.len()).collect();
        assert_eq!(read(reading, &stream, &each), parts, "{name}, seed {seed}: {stream:?}");
        let cuts: Vec<usize> = each.into_iter().filter(|_| random.index(5) == 0).collect();
        assert_eq!(read(reading, &stream, &cuts), parts, "{name}, seed {seed}: {stream:?}");
        let (size, made) = (bytes(&stream, special), given(&parts));
        assert!(made <= 6 * size, "{name}, seed {seed}: {made} bytes from {size}: {stream:?}");
        let held = peak(reading, &stream);
        assert!(held <= 16 * size + SLACK, "{name}, seed {seed}: {held} bytes held of {size}");
        calls += u64::from(parts.iter().any(|part| matches!(part, Part::CallEnd { .. })));
    }
    assert!(calls > runs / 4 && calls < runs, "{name}: calls in {calls} of {runs} streams");
}

macro_rules! fuzzed {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            fuzz($name);
        })*

        #[test]
        fn all_formats_are_fuzzed() {
            assert_eq!([$($name),*].len(), Format::ALL.len());
        }
    };
}

fuzzed! {
    command_r "command-r"
    command_r7b "command-r7b"
    deepseek_v3 "deepseek-v3"
    deepseek_v31 "deepseek-v31"
    generic "generic"
    glm "glm"
    granite "granite"
    harmony "harmony"
    hermes "hermes"
    kimi_k2 "kimi-k2"
    llama_json "llama-json"
    llama_pythonic "llama-pythonic"
    mistral "mistral"
    mistral_v11 "mistral-v11"
    phi4_mini "phi4-mini"
    qwen3_coder "qwen3-coder"
}

/// What is not held back does not add up: a long answer takes no more memory than a short one.
#[test]
fn long_answers_are_not_kept() {
    let long = "word \\\" }] <tool ".repeat(20_000);
    let call = json!({"s": long, "n": 1});
    for format in Format::ALL.iter().filter(|format| format.name != "llama-pythonic") {
        for stream in [long.clone(), write(format, &[("f", &call)])] {
            let reading = reading(true, format, false);
            let held = peak(&reading, &units(model(true), &stream));
            assert!(held <= SLACK, "{}: {held} bytes held", format.name);
        }
    }
}

/// Time grows with the length, not with its square: what fails is not read again and again.
#[test]
fn hostile_answers_take_linear_time() {
    let pieces = [
        "<tool_call>",
        "<tool_call>\n{\"arguments\": ",
        "{",
        "[f(",
        "<",
        "\n",
        "<tool_call>\n<function=",
        "[TOOL_CALLS]",
        "{\"tool_calls\": [",
        "f",
        "<tool_call>f\n<arg_key>",
        "<|channel|>",
        "to=functions.",
        "<tool_call>\n<function=any>\n<parameter=x>\n",
    ];
    for format in Format::ALL {
        for special in [true, false] {
            let reading = reading(special, format, false);
            for piece in pieces {
                let stream = units(model(special), &piece.repeat(20_000 / piece.len()));
                let start = std::time::Instant::now();
                read(&reading, &stream, &[]);
                let took = start.elapsed();
                assert!(took.as_secs() < 2, "{}: {piece} took {took:?}", format.name);
            }
        }
    }
}
