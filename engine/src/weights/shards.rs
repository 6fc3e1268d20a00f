//! The weights of a Hugging Face checkpoint: one safetensors file, or shards with an index.
//!
//! Knows the folder's layout and the checkpoint's tensor names. It does not read config.json.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::safetensors::{self, Entry};
use super::{FileBytes, LoadError, TensorView, Weights, names, shape_text, shown, widen};
use crate::spec::{ModelSpec, Role};

/// An index names every tensor once, about 80 bytes each; the largest published ones have 8 MB.
const INDEX_BYTES_MAX: u64 = 64 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a checkpoint.
pub struct HubWeights {
    /// The index, or the only file: where a missing tensor is missed.
    origin: PathBuf,
    files: Vec<(PathBuf, FileBytes)>,
    /// By name: the file's place in `files`, and what its header says.
    tensors: BTreeMap<String, (usize, Entry)>,
    /// `model.` or nothing.
    prefix: &'static str,
}

impl HubWeights {
    /// Opens the weights of a folder; reads headers only.
    ///
    /// # Errors
    /// No weights there, or one of the files is damaged.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        if folder.join(SINGLE).exists() {
            let path = folder.join(SINGLE);
            let bytes = FileBytes::map(&path)?;
            return Self::single(path, bytes);
        }
        if folder.join(INDEX).exists() {
            return Self::sharded(folder);
        }
        let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        let what = if pickled.iter().any(|name| folder.join(name).exists()) {
            "holds its weights as pytorch_model.bin, a format that can run code; \
             convert it to safetensors"
        } else {
            "has neither model.safetensors nor model.safetensors.index.json; \
             was the download cut off?"
        };
        Err(LoadError::new(folder, what))
    }

    /// The weights of a checkpoint in one file.
    pub(crate) fn single(path: PathBuf, bytes: FileBytes) -> Result<Self, LoadError> {
        let entries = safetensors::parse(&path, bytes.get())?;
        let tensors = entries.into_iter().map(|(name, entry)| (name, (0, entry))).collect();
        Ok(Self::new(path.clone(), vec![(path, bytes)], tensors))
    }

    fn sharded(folder: &Path) -> Result<Self, LoadError> {
        let index_path = folder.join(INDEX);
        let text = super::read_small(&index_path, INDEX_BYTES_MAX)?;
        let index: Index = serde_json::from_slice(&text).map_err(|e| {
            LoadError::new(&index_path, format!("is not an index of safetensors shards: {e}"))
        })?;
        let mut shards: BTreeMap<&str, usize> = BTreeMap::new();
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for shard in index.weight_map.values() {
            if shards.contains_key(shard.as_str()) {
                continue;
            }
            let path = folder.join(shard_name(&index_path, shard)?);
            let bytes = FileBytes::map(&path)?;
            for (name, entry) in safetensors::parse(&path, bytes.get())? {
                // A tensor counts where the index says; copies in other shards are not used.
                if index.weight_map.get(&name).is_some_and(|place| place == shard) {
                    tensors.insert(name, (files.len(), entry));
                }
            }
            shards.insert(shard, files.len());
            files.push((path, bytes));
        }
        for (name, shard) in &index.weight_map {
            if !tensors.contains_key(name) {
                let (name, shard) = (shown(name), shown(shard));
                let problem = format!("says that {shard} holds tensor {name}, but it does not");
                return Err(LoadError::new(&index_path, problem));
            }
        }
        if files.is_empty() {
            return Err(LoadError::new(&index_path, "weight_map is empty"));
        }
        Ok(Self::new(index_path, files, tensors))
    }

    fn new(
        origin: PathBuf,
        files: Vec<(PathBuf, FileBytes)>,
        tensors: BTreeMap<String, (usize, Entry)>,
    ) -> Self {
        let bare = tensors.contains_key("embed_tokens.weight");
        Self { origin, files, tensors, prefix: if bare { "" } else { "model." } }
    }

    /// Refuses tensors that no part of the model uses: computing without them would be silently
    /// wrong.
    pub(crate) fn check_unused(&self, spec: &ModelSpec) -> Result<(), LoadError> {
        let used: std::collections::BTreeSet<String> =
            spec.tensors().iter().map(|need| names::hub(need.role, self.prefix)).collect();
        let head = names::hub(Role::Head, self.prefix);
        for (name, (file, _)) in &self.tensors {
            // A tied head may be stored as a copy; rotary tables are computed from the config.
            let harmless = *name == head || name.ends_with("rotary_emb.inv_freq");
            if !harmless && !used.contains(name) {
                let (name, family) = (shown(name), spec.family);
                return Err(LoadError::new(
                    &self.files[*file].0,
                    format!("tensor {name} has no place in a {family} model with this config.json"),
                ));
            }
        }
        Ok(())
    }
}

impl Weights for HubWeights {
    fn tensor(&self, role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let name = names::hub(role, self.prefix);
        let Some((file, entry)) = self.tensors.get(&name) else {
            return Err(LoadError::new(&self.origin, format!("tensor {name} is missing")));
        };
        let (path, bytes) = &self.files[*file];
        let matrix = [rows as u64, cols as u64];
        let wanted = if role.is_vector() { &matrix[1..] } else { &matrix[..] };
        let found = entry.shape.dims();
        if found != wanted {
            let (wanted, found) = (shape_text(wanted), shape_text(found));
            let problem = format!("tensor {name} is {found}; config.json asks for {wanted}");
            return Err(LoadError::new(path, problem));
        }
        let Some(format) = entry.dtype.format else {
            let dtype = entry.dtype.name;
            let problem = format!(
                "tensor {name} has elements of type {dtype}; F32, F16 and BF16 are supported"
            );
            return Err(LoadError::new(path, problem));
        };
        Ok(TensorView { format, rows, cols, bytes: &bytes.get()[entry.place.clone()] })
    }

    fn vector(&self, role: Role, len: usize) -> Result<Vec<f32>, LoadError> {
        let view = self.tensor(role, 1, len)?;
        widen(view).ok_or_else(|| {
            let name = names::hub(role, self.prefix);
            LoadError::new(&self.origin, format!("tensor {name} cannot be widened to f32"))
        })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A shard's file name: of this folder and nothing else.
fn shard_name<'a>(index: &Path, shard: &'a str) -> Result<&'a str, LoadError> {
    let plain = shard.ends_with(".safetensors")
        && !shard.contains(['/', '\\', '\0', ':'])
        && !shard.starts_with('.');
    if plain {
        return Ok(shard);
    }
    let problem = format!("shard {} is not the name of a safetensors file here", shown(shard));
    Err(LoadError::new(index, problem))
}
