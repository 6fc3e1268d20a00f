//! GGUF files, versions 2 and 3, little endian: keys and tensors by name.
//!
//! Source: the GGUF specification (ggml, `docs/gguf.md`). Everything is checked once when the
//! file is opened; lookups afterwards cannot leave the file. The parser does not know families:
//! they ask it for keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::gguf_header::{self, Header, Tensor};
use super::gguf_value::{Cursor, Value};
use super::{FileBytes, LoadError, TensorView, Weights, check_overlap, names, shape_text, shown};
use crate::spec::{ModelSpec, Role};

/// An opened file.
pub struct Gguf {
    path: PathBuf,
    bytes: FileBytes,
    arch: String,
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

impl Gguf {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// Not a GGUF file, another version or byte order, one part of a split model, tensors of a
    /// type that is not supported, or anything that does not fit the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let bytes = FileBytes::map(path)?;
        let header =
            gguf_header::parse(bytes.get()).map_err(|problem| LoadError::new(path, problem))?;
        let places = header.tensors.iter().map(|(name, tensor)| {
            (tensor.place.start as u64, tensor.place.end as u64, name.as_str())
        });
        check_overlap(path, places.collect())?;
        let (path, Header { values, tensors }) = (path.to_path_buf(), header);
        let mut gguf = Self { path, bytes, arch: String::new(), values, tensors };
        gguf.arch = gguf.text("general.architecture")?.unwrap_or_default().to_owned();
        let parts = gguf.number("split.count", 0.0, f64::MAX)?.unwrap_or(0.0);
        if parts > 1.0 {
            let problem = "one part of a split model; merge the parts with llama-gguf-split";
            return Err(gguf.wrong("split.count", problem));
        }
        Ok(gguf)
    }

    /// Where the file is.
    pub(crate) fn file(&self) -> &Path {
        &self.path
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A key under the architecture's name.
    pub(crate) fn arch_key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// An error about one key.
    pub(crate) fn wrong(&self, key: &str, problem: &str) -> LoadError {
        LoadError::new(&self.path, format!("{key}: {problem}"))
    }

    fn not(&self, key: &str, wanted: &str, found: &Value) -> LoadError {
        let found = found.describe(self.bytes.get());
        self.wrong(key, &format!("wanted {wanted}, found {found}"))
    }

    /// A whole number from 1 to `most`.
    pub(crate) fn count(&self, key: &str, most: usize) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match value.whole().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.not(key, &format!("a whole number from 1 to {most}"), value)),
        }
    }

    /// As [`Gguf::count`], and it has to be there.
    pub(crate) fn need(&self, key: &str, most: usize) -> Result<usize, LoadError> {
        self.count(key, most)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A number or flag between `least` and `most`, both included.
    pub(crate) fn number(
        &self,
        key: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match value.number() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.not(key, &format!("a number from {least:e} to {most:e}"), value)),
        }
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let Value::Text(place) = value else { return Err(self.not(key, "a string", value)) };
        let text = std::str::from_utf8(&self.bytes.get()[place.clone()]);
        text.map(Some).map_err(|_| self.wrong(key, "is not UTF-8"))
    }

    /// As [`Gguf::text`], and it has to be there.
    pub(crate) fn need_text(&self, key: &str) -> Result<&str, LoadError> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A list of at most `most` values, each turned into a `T`; `wanted` is for messages.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        most: usize,
        wanted: &str,
        item: impl Fn(Item<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let Value::Array { kind, count, place } = value else {
            return Err(self.not(key, &format!("a list of {wanted}"), value));
        };
        if *count > most {
            let problem = format!("has {count} entries, more than the {most} that are possible");
            return Err(self.wrong(key, &problem));
        }
        let bytes = self.bytes.get();
        let mut cursor = Cursor { bytes: &bytes[..place.end], at: place.start };
        let mut out = Vec::with_capacity(*count);
        for (index, element) in cursor.elements(*kind, *count).enumerate() {
            let element = element.map_err(|problem| self.wrong(key, &problem))?;
            let found = match &element {
                Value::Text(place) => std::str::from_utf8(&bytes[place.clone()])
                    .ok()
                    .and_then(|text| item(Item::Text(text))),
                other => other.number().and_then(|number| item(Item::Number(number))),
            };
            out.push(found.ok_or_else(|| {
                let element = element.describe(bytes);
                self.wrong(key, &format!("entry {index} is {element}, wanted {wanted}"))
            })?);
        }
        Ok(Some(out))
    }

    /// Dimensions of the tensor that plays a role, outermost first.
    pub(crate) fn shape(&self, role: Role) -> Option<&[u64]> {
        self.tensors.get(&names::gguf(role)).map(|tensor| tensor.dims.as_slice())
    }

    /// What `rope_freqs.weight` divides each of `count` rotary frequencies by.
    pub(crate) fn rope_factors(&self, count: usize) -> Result<Option<Vec<f32>>, LoadError> {
        const NAME: &str = "rope_freqs.weight";
        if !self.tensors.contains_key(NAME) {
            return Ok(None);
        }
        let view = self.named(NAME, &[count as u64])?;
        let factors = super::widen(view).unwrap_or_default();
        if factors.len() != count || factors.iter().any(|f| !f.is_finite() || *f < 1e-6) {
            let problem = format!("tensor {NAME} does not hold {count} positive plain numbers");
            return Err(LoadError::new(&self.path, problem));
        }
        Ok(Some(factors))
    }

    /// Refuses tensors that no part of the model uses: computing without them would be silently
    /// wrong.
    pub(crate) fn check_unused(&self, spec: &ModelSpec) -> Result<(), LoadError> {
        let used: std::collections::BTreeSet<String> =
            spec.tensors().iter().map(|need| names::gguf(need.role)).collect();
        for name in self.tensors.keys() {
            // Old converters stored rotary tables; they follow from the header.
            let harmless = name == "rope_freqs.weight" || name.ends_with("attn_rot_embd.weight");
            if !harmless && !used.contains(name) {
                let (name, family) = (shown(name), spec.family);
                let problem = format!("tensor {name} has no place in a {family} model");
                return Err(LoadError::new(&self.path, problem));
            }
        }
        Ok(())
    }

    fn named(&self, name: &str, wanted: &[u64]) -> Result<TensorView<'_>, LoadError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(LoadError::new(&self.path, format!("tensor {name} is missing")));
        };
        if tensor.dims != wanted {
            let (wanted, found) = (shape_text(wanted), shape_text(&tensor.dims));
            let problem = format!("tensor {name} is {found}; the header asks for {wanted}");
            return Err(LoadError::new(&self.path, problem));
        }
        let cols = wanted.last().map_or(1, |&cols| cols as usize);
        let rows = wanted.iter().rev().skip(1).product::<u64>() as usize;
        let bytes = &self.bytes.get()[tensor.place.clone()];
        Ok(TensorView { format: tensor.format, rows, cols, bytes })
    }
}

/// One entry of a list.
pub(crate) enum Item<'a> {
    Number(f64),
    Text(&'a str),
}

impl Weights for Gguf {
    fn tensor(&self, role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let wanted = [rows as u64, cols as u64];
        let wanted = if role.is_vector() { &wanted[1..] } else { &wanted[..] };
        self.named(&names::gguf(role), wanted)
    }

    fn vector(&self, role: Role, len: usize) -> Result<Vec<f32>, LoadError> {
        let view = self.tensor(role, 1, len)?;
        super::widen(view).ok_or_else(|| {
            let name = names::gguf(role);
            let format = super::format_name(view.format);
            let problem = format!("tensor {name} is a vector in {format}, wanted plain numbers");
            LoadError::new(&self.path, problem)
        })
    }
}
