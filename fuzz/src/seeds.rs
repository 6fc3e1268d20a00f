//! What a target begins with: bodies, streams, templates and schemas that the tests of the crates
//! are made of, read from their files at the start of a run, so that none of them is kept twice.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use text::tools::Format;
use wire::converse::Frames;

use crate::answer_kit;
use crate::models::{folder_seeds, gguf_seeds};
use crate::side::LIMIT;
use crate::texts::calls_begin;

/// What a target's inputs are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeds {
    /// Bodies of requests and of whole answers.
    Bodies,
    /// Server-sent events.
    Streams,
    /// Answers of models with calls in them.
    Calls,
    /// Chat templates.
    Templates,
    /// JSON Schemas.
    Schemas,
    /// Grammars.
    Grammars,
    /// Headers of GGUF files.
    Gguf,
    /// Headers of safetensors files.
    Safetensors,
    /// Configurations of models.
    ModelConfigs,
}

/// Writes the seeds into the folder that is the program's last argument, where the fuzzer reads
/// them a moment later.
///
/// # Panics
/// The tests' files cannot be read, or the folder cannot be written.
pub fn plant(seeds: Seeds) {
    let last = std::env::args_os().next_back().map(PathBuf::from);
    // Without one this run is about a single input.
    let Some(folder) = last.filter(|folder| folder.is_dir()) else { return };
    let all: Vec<Vec<u8>> = match seeds {
        Seeds::Bodies => bodies(),
        Seeds::Streams => streams(),
        Seeds::Calls => calls(),
        Seeds::Templates => whole("engine/text/tests/data/templates", "jinja"),
        Seeds::Schemas => schemas(),
        Seeds::Grammars => literals("engine/text"),
        Seeds::Gguf => gguf_seeds(),
        Seeds::Safetensors => folder_seeds(false),
        Seeds::ModelConfigs => folder_seeds(true),
    };
    assert!(all.len() > 5, "{seeds:?}: only {} seeds", all.len());
    for (number, seed) in all.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed).expect("a seed is written");
    }
}

/// All files of this kind in a folder of the repository and below it, in order.
fn files(folder: &str, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|its| its == kind) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn whole(folder: &str, kind: &str) -> Vec<Vec<u8>> {
    let read = |path: PathBuf| fs::read(path).expect("a file of tests");
    files(folder, kind).into_iter().map(read).collect()
}

fn texts(folder: &str, kind: &str) -> Vec<String> {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    whole(folder, kind).into_iter().map(text).collect()
}

/// The raw strings of sources.
fn literals(folder: &str) -> Vec<Vec<u8>> {
    let of = |text: &String| {
        let ends = text.split("r#\"").skip(1).filter_map(|rest| rest.split_once("\"#"));
        ends.map(|(inside, _)| inside.as_bytes().to_vec()).collect::<Vec<_>>()
    };
    texts(folder, "rs").iter().flat_map(of).collect()
}

/// What stands below each heading of the goldens.
fn sections() -> Vec<String> {
    let of = |text: &String| {
        let each = text.split("\n# ").filter_map(|part| part.split_once('\n'));
        each.map(|(_, inside)| format!("{inside}\n")).collect::<Vec<_>>()
    };
    texts("gateway/wire/tests", "txt").iter().flat_map(of).collect()
}

fn bodies() -> Vec<Vec<u8>> {
    let mut all = literals("gateway/wire");
    let bodies = sections().into_iter().filter(|text| text.starts_with('{'));
    all.extend(bodies.map(|text| text.trim().as_bytes().to_vec()));
    all
}

fn streams() -> Vec<Vec<u8>> {
    let mut all = whole("gateway/wire/tests", "sse");
    let is_stream = |text: &String| text.starts_with("data: ") || text.starts_with("event: ");
    all.extend(sections().into_iter().filter(is_stream).map(String::into_bytes));
    for framed in whole("gateway/wire/tests/converse", "bin") {
        let mut events = String::new();
        let read = Frames::new(LIMIT).push(&framed, &mut |name, data| {
            events += &format!("event: {name}\ndata: {data}\n\n");
            Ok(())
        });
        read.expect("frames");
        all.push(events.into_bytes());
    }
    all
}

/// Two calls in each format, and the same behind thoughts.
fn calls() -> Vec<Vec<u8>> {
    let arguments = json!({"s": "a\"\n", "n": -1.5e3, "e": null, "o": {"l": [true, "é"]}});
    let made = [("f", &arguments), ("any", &arguments)];
    let mut all = Vec::new();
    for (number, format) in Format::ALL.iter().enumerate() {
        let plain = answer_kit::write(format, &made);
        for text in [format!("<think>a</think>\n\n{plain}"), plain] {
            let begun = |first: u8| [&[first], text.as_bytes()].concat();
            all.extend(calls_begin(number).map(begun));
        }
    }
    all
}

fn schemas() -> Vec<Vec<u8>> {
    let cases = whole("engine/text/tests/data", "json").into_iter();
    let cases = cases.filter_map(|text| serde_json::from_slice::<Value>(&text).ok());
    let cases = cases.filter_map(|value| value.as_array().cloned()).flatten();
    cases.filter_map(|case| Some(case.get("schema")?.to_string().into_bytes())).collect()
}
