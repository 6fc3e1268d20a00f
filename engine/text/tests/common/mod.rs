//! What the tests of this crate share: where the data lies, and a tokenizer to hang templates on.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use text::{TextFiles, TextModel};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of this crate's own test data, which may be kept packed.
pub(crate) fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    fs::read(&path)
        .or_else(|_| hearth_tests::fixtures::packed(&path))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A model's folder among this crate's own test data.
pub(crate) fn folder(name: &str) -> TextModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/folders").join(name);
    TextModel::from_dir(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// The ids in a JSON list.
pub(crate) fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The lines of a JSONL file.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// The demo model of the repository.
pub(crate) fn demo() -> TextModel {
    TextModel::from_dir(&root().join("engine/models/demo")).expect("the demo model loads")
}

/// A tokenizer of one word, for tests that only render.
pub(crate) const TINY: &str = r#"{
    "version": "1.0",
    "model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "a": 2}, "unk_token": "a"}
}"#;

/// A model with this template, and `<s>` and `</s>` as its special tokens.
pub(crate) fn with_template(source: &str) -> Result<TextModel, text::TextError> {
    let mut model = TextModel::from_bytes(TextFiles {
        tokenizer_json: TINY.as_bytes(),
        tokenizer_config: Some(br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#),
        ..TextFiles::default()
    })?;
    model.set_chat_template(source)?;
    Ok(model)
}
