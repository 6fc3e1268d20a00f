//! The tensors of a Hugging Face folder: one safetensors file, or shards with an index.
//!
//! Knows the folder's layout and hands tensors out by name. It does not know what they are for,
//! and does not read config.json.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::safetensors::{self, Element, Entry};
use super::{FileBytes, LoadError, shape_text, shown};

/// An index names every tensor once, about 80 bytes each; the largest published ones have 8 MB.
const INDEX_BYTES_MAX: u64 = 64 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a checkpoint.
pub(crate) struct Tensors {
    /// The index, or the only file: where a missing tensor is missed.
    origin: PathBuf,
    files: Vec<(PathBuf, FileBytes)>,
    /// By name: the file's place in `files`, and what its header says.
    entries: BTreeMap<String, (usize, Entry)>,
}

/// One stored tensor.
#[derive(Clone, Copy)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) file: &'a Path,
    pub(super) dtype: Element,
    /// Outermost first.
    pub(super) dims: &'a [u64],
    pub(super) bytes: &'a [u8],
}

impl Tensor<'_> {
    /// An error about it.
    pub(super) fn wrong(&self, problem: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.file, format!("tensor {} {problem}", shown(self.name)))
    }

    /// Checks type and shape.
    pub(super) fn expect(&self, types: &[&str], dims: &[usize]) -> Result<(), LoadError> {
        if !types.contains(&self.dtype.name) {
            let (wanted, found) = (types.join(" or "), self.dtype.name);
            return Err(self.wrong(format!("has elements of type {found}, wanted {wanted}")));
        }
        if !self.dims.iter().copied().eq(dims.iter().map(|&dim| dim as u64)) {
            let wanted: Vec<u64> = dims.iter().map(|&dim| dim as u64).collect();
            let (wanted, found) = (shape_text(&wanted), shape_text(self.dims));
            return Err(self.wrong(format!("is {found}; config.json asks for {wanted}")));
        }
        Ok(())
    }
}

impl Tensors {
    /// Opens the weights of a folder; reads headers only.
    ///
    /// # Errors
    /// No weights there, or one of the files is damaged.
    pub(crate) fn open(folder: &Path) -> Result<Self, LoadError> {
        if folder.join(SINGLE).exists() {
            return Self::open_file(folder.join(SINGLE));
        }
        if folder.join(INDEX).exists() {
            return Self::sharded(folder, &folder.join(INDEX));
        }
        let named = |ending: &str| files_ending(folder, ending);
        if let [index] = named(".safetensors.index.json").as_slice() {
            return Self::sharded(folder, index);
        }
        match named(".safetensors").as_slice() {
            [] => {}
            [one] if !is_consolidated(one) => return Self::open_file(one.clone()),
            several if several.iter().any(|path| is_consolidated(path)) => {
                let problem = "holds its weights as consolidated*.safetensors, which name tensors \
                               in their author's own way; download model*.safetensors of the same \
                               repository as well";
                return Err(LoadError::new(folder, problem));
            }
            several => {
                let problem = format!(
                    "has {} safetensors files and no model.safetensors.index.json that says what \
                     is where; was the download cut off?",
                    several.len()
                );
                return Err(LoadError::new(folder, problem));
            }
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

    /// One file.
    pub(super) fn open_file(path: PathBuf) -> Result<Self, LoadError> {
        let bytes = FileBytes::map(&path)?;
        Self::single(path, bytes)
    }

    /// The weights of a checkpoint in one file.
    pub(crate) fn single(path: PathBuf, bytes: FileBytes) -> Result<Self, LoadError> {
        let entries = safetensors::parse(&path, bytes.get())?;
        let entries = entries.into_iter().map(|(name, entry)| (today(name), (0, entry))).collect();
        Ok(Self { origin: path.clone(), files: vec![(path, bytes)], entries })
    }

    fn sharded(folder: &Path, index_path: &Path) -> Result<Self, LoadError> {
        let text = super::read_small(index_path, INDEX_BYTES_MAX)?;
        let index: Index = serde_json::from_slice(&text).map_err(|e| {
            LoadError::new(index_path, format!("is not an index of safetensors shards: {e}"))
        })?;
        let mut shards: BTreeMap<&str, usize> = BTreeMap::new();
        let mut files = Vec::new();
        let mut entries = BTreeMap::new();
        for shard in index.weight_map.values() {
            if shards.contains_key(shard.as_str()) {
                continue;
            }
            let path = folder.join(shard_name(index_path, shard)?);
            let bytes = FileBytes::map(&path)?;
            for (name, entry) in safetensors::parse(&path, bytes.get())? {
                // A tensor counts where the index says; copies in other shards are not used.
                if index.weight_map.get(&name).is_some_and(|place| place == shard) {
                    entries.insert(name, (files.len(), entry));
                }
            }
            shards.insert(shard, files.len());
            files.push((path, bytes));
        }
        for (name, shard) in &index.weight_map {
            if !entries.contains_key(name) {
                let (name, shard) = (shown(name), shown(shard));
                let problem = format!("says that {shard} holds tensor {name}, but it does not");
                return Err(LoadError::new(index_path, problem));
            }
        }
        if files.is_empty() {
            return Err(LoadError::new(index_path, "weight_map is empty"));
        }
        let entries = entries.into_iter().map(|(name, entry)| (today(name), entry)).collect();
        Ok(Self { origin: index_path.to_path_buf(), files, entries })
    }

    /// A tensor, if there is one of that name.
    pub(super) fn find(&self, name: &str) -> Option<Tensor<'_>> {
        self.entries.get_key_value(name).map(|(name, at)| self.tensor(name, at))
    }

    /// As [`Tensors::find`], and it has to be there.
    pub(super) fn need(&self, name: &str) -> Result<Tensor<'_>, LoadError> {
        self.find(name).ok_or_else(|| self.missing(name))
    }

    /// The error for a tensor that is not there.
    pub(super) fn missing(&self, name: &str) -> LoadError {
        LoadError::new(&self.origin, format!("tensor {} is missing", shown(name)))
    }

    /// All tensors, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.entries.iter().map(|(name, at)| self.tensor(name, at))
    }

    /// Says that a tensor is about to be read; see [`FileBytes::reading`].
    pub(super) fn reading(&self, name: &str) {
        if let Some((file, entry)) = self.entries.get(name) {
            let bytes = &self.files[*file].1;
            bytes.reading(&bytes.get()[entry.place.clone()]);
        }
    }

    /// The index, or the only file.
    pub(super) fn origin(&self) -> &Path {
        &self.origin
    }

    fn tensor<'a>(&'a self, name: &'a str, (file, entry): &'a (usize, Entry)) -> Tensor<'a> {
        let (path, bytes) = &self.files[*file];
        let bytes = &bytes.get()[entry.place.clone()];
        Tensor { name, file: path, dtype: entry.dtype, dims: entry.shape.dims(), bytes }
    }
}

/// The first BERT checkpoints were converted from TensorFlow and kept its names for the weights of
/// a norm; `bert-base-uncased` is one.
fn today(name: String) -> String {
    for (old, new) in
        [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")]
    {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name
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

/// The files of a folder whose names end so, sorted. None if it cannot be read: whoever asks then
/// says what is missing.
fn files_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    /// A folder of a model has a few dozen files; more are no help in finding the right one.
    const FILES_MAX: usize = 4096;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    let paths = entries.map(|entry| entry.path());
    let mut named: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    named.sort();
    named
}

fn is_consolidated(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("consolidated"))
}
