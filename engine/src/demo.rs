//! The demo model, embedded: `--model demo` works from any directory with nothing but the binary.
//!
//! `models/demo/README.md` says what it is and how it was made.

use std::path::Path;

use text::{TextFiles, TextModel};

use crate::model::ModelFiles;
use crate::open::{Folder, text_error};
use crate::weights::shards::Tensors;
use crate::weights::{FileBytes, LoadError};

/// What the model's path reads as in messages and in lists of models.
const NAME: &str = "demo";

/// The demo model's files.
///
/// # Panics
/// The embedded files are broken, which the tests rule out.
#[must_use]
pub fn open_demo() -> ModelFiles {
    embedded().unwrap_or_else(|error| panic!("the embedded demo model does not open: {error}"))
}

fn embedded() -> Result<ModelFiles, LoadError> {
    let path = Path::new(NAME);
    let weights =
        FileBytes::Embedded(include_bytes!(concat!(env!("OUT_DIR"), "/model.safetensors")));
    let weights = Tensors::single(path.join("model.safetensors"), weights)?;
    let folder = Folder {
        path,
        config: include_bytes!("../models/demo/config.json"),
        generation: Some(include_bytes!("../models/demo/generation_config.json")),
        quantization: None,
    };
    let words = TextModel::from_bytes(TextFiles {
        tokenizer_json: include_bytes!("../models/demo/tokenizer.json"),
        tokenizer_config: Some(include_bytes!("../models/demo/tokenizer_config.json")),
        special_tokens_map: Some(include_bytes!("../models/demo/special_tokens_map.json")),
        ..TextFiles::default()
    });
    folder.model(weights)?.with_text(words.map_err(|error| text_error(path, &error))?)
}
