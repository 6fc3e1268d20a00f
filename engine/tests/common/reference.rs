//! Stored outputs of the oracle (Hugging Face transformers in float32) for one fixture.

use std::path::{Path, PathBuf};

use hearth_tests::fixtures;
use serde::Deserialize;

use super::tensors::Tensors;

/// A fixture: a model and what it must compute.
pub(crate) struct Reference {
    pub(crate) name: String,
    /// What to open: a folder or a GGUF file.
    pub(crate) model: PathBuf,
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) tensors: Tensors,
}

/// One prompt with 32 greedy tokens after it.
#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) input_ids: Vec<u32>,
    /// Entry i is about token i + 1.
    pub(crate) prompt_logprobs: Vec<f32>,
    pub(crate) greedy_ids: Vec<u32>,
    pub(crate) steps: Vec<Greedy>,
    /// From here on two tokens may be too close to tell apart.
    pub(crate) first_close_step: usize,
}

/// One greedy step.
#[derive(Deserialize)]
pub(crate) struct Greedy {
    pub(crate) token: u32,
    /// Best minus second logit.
    pub(crate) margin: f32,
    pub(crate) top_ids: Vec<u32>,
    pub(crate) top_logprobs: Vec<f32>,
}

#[derive(Deserialize)]
struct Stored {
    prompts: Vec<Prompt>,
}

impl Reference {
    /// A folder with `config.json`, weights and the stored outputs.
    pub(crate) fn folder(name: &str) -> Self {
        let folder = fixtures::reference(name);
        Self::read(name, &folder, &folder.join("reference"))
    }

    /// A GGUF file with the stored outputs beside it.
    pub(crate) fn gguf(model: &Path) -> Self {
        let name = model.file_stem().unwrap().to_str().unwrap();
        let stem = model.with_extension("reference");
        Self::read(name, model, &stem)
    }

    /// All GGUF files, by name.
    pub(crate) fn all_gguf() -> Vec<Self> {
        let folder = fixtures::reference("gguf_llama");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|ext| ext == "gguf")).collect();
        files.sort();
        assert!(!files.is_empty(), "no GGUF fixtures");
        files.iter().map(|file| Self::gguf(file)).collect()
    }

    fn read(name: &str, model: &Path, stem: &Path) -> Self {
        let with = |extension: &str| {
            let mut path = stem.as_os_str().to_owned();
            path.push(extension);
            PathBuf::from(path)
        };
        let json = std::fs::read(with(".json")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let stored: Stored = serde_json::from_slice(&json).expect("a reference");
        Self {
            name: name.to_owned(),
            model: model.to_path_buf(),
            prompts: stored.prompts,
            tensors: Tensors::read(&with(".safetensors")),
        }
    }
}
