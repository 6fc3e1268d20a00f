//! GGUF files, versions 2 and 3, little endian: keys and tensors by name.
//!
//! Source: the GGUF specification (ggml, `docs/gguf.md`). Everything is checked once when the
//! file is opened; lookups afterwards cannot leave the file. The parser does not know families:
//! they ask it for keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::Format;

use super::gguf_header::{self, Header, Tensor};
use super::gguf_split as split;
use super::gguf_value::{Cursor, Value};
use super::matrix::{Opened, Stored};
use super::{FileBytes, LoadError, TensorView, check_overlap, shape_text, shown, widen};

/// An opened model: one file, or all parts of a split one.
pub struct Gguf {
    /// The first part, which has the keys.
    path: PathBuf,
    files: Vec<(PathBuf, FileBytes)>,
    arch: String,
    values: BTreeMap<String, Value>,
    /// By name: the place in `files`, and what the header says.
    tensors: BTreeMap<String, (usize, Tensor)>,
}

impl Gguf {
    /// Maps a file, or all parts of a split model given any of them, and checks the headers.
    ///
    /// # Errors
    /// Not a GGUF file, another version or byte order, a missing part, tensors of a type that is
    /// not supported, or anything that does not fit the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let wrong = |problem: String| LoadError::new(path, problem);
        let (bytes, header) = map(path)?;
        let Some((number, count)) = split::part(&header).map_err(wrong)? else {
            return Self::join(vec![(path.to_path_buf(), bytes, header)]);
        };
        drop(bytes);
        let paths = split::paths(path, number, count).map_err(wrong)?;
        let mut parts = Vec::new();
        for (wanted, path) in (0..).zip(paths) {
            let (bytes, header) = map(&path)?;
            let found = split::part(&header).map_err(|problem| LoadError::new(&path, problem))?;
            if found != Some((wanted, count)) {
                let problem = format!("is not part {} of {count}, as its name says", wanted + 1);
                return Err(LoadError::new(&path, problem));
            }
            parts.push((path, bytes, header));
        }
        Self::join(parts)
    }

    fn join(parts: Vec<(PathBuf, FileBytes, Header)>) -> Result<Self, LoadError> {
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        let (mut keys, mut stated) = (None, None);
        for (path, bytes, header) in parts {
            let wrong = |problem: String| LoadError::new(&path, problem);
            if files.is_empty() {
                stated = split::tensor_count(&header).map_err(wrong)?;
            }
            for (name, tensor) in header.tensors {
                if tensors.contains_key(&name) {
                    return Err(wrong(format!("tensor {} stands in two parts", shown(&name))));
                }
                tensors.insert(name, (files.len(), tensor));
            }
            keys.get_or_insert_with(|| (path.clone(), header.values));
            files.push((path, bytes));
        }
        let (path, values) = keys.unwrap_or_default();
        let mut gguf = Self { path, files, arch: String::new(), values, tensors };
        gguf.arch = gguf.text("general.architecture")?.unwrap_or_default().to_owned();
        if ["clip", "mmproj"].contains(&gguf.arch.as_str()) {
            let problem = "is the part of a model that sees images (mmproj), which is not \
                           supported; give the file of the language model";
            return Err(LoadError::new(&gguf.path, problem));
        }
        let found = gguf.tensors.len() as u64;
        match stated.filter(|&stated| stated != found && gguf.files.len() > 1) {
            None => Ok(gguf),
            Some(stated) => {
                let problem = format!("says {stated}, but all parts have {found} tensors");
                Err(gguf.wrong("split.tensors.count", &problem))
            }
        }
    }

    /// The part that has the keys.
    fn bytes(&self) -> &[u8] {
        self.files.first().map_or(&[], |(_, bytes)| bytes.get())
    }

    /// Where the file is; of several, the first.
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
        let found = found.describe(self.bytes());
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
        let text = std::str::from_utf8(&self.bytes()[place.clone()]);
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
        let bytes = self.bytes();
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

    /// Names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Says that bytes of a tensor are about to be read; see [`FileBytes::reading`].
    pub(super) fn reading(&self, name: &str, bytes: &[u8]) {
        if let Some((file, _)) = self.tensors.get(name) {
            self.files[*file].1.reading(bytes);
        }
    }

    /// Dimensions of a tensor, outermost first.
    pub(crate) fn dims(&self, name: &str) -> Option<&[u64]> {
        self.tensors.get(name).map(|(_, tensor)| tensor.dims.as_slice())
    }

    /// A tensor of `count` positive plain numbers (factors of rotary frequencies).
    pub(crate) fn factors(&self, name: &str, count: usize) -> Result<Option<Vec<f32>>, LoadError> {
        if !self.tensors.contains_key(name) {
            return Ok(None);
        }
        let view = Opened::Stored(self.stored(name, &[count as u64])?)
            .view(std::slice::from_ref(&(0..count)), 1)?;
        let factors = widen(&view).unwrap_or_default();
        if factors.len() != count || factors.iter().any(|f| !f.is_finite() || *f < 1e-6) {
            let problem = format!("tensor {name} does not hold {count} positive plain numbers");
            return Err(LoadError::new(&self.path, problem));
        }
        Ok(Some(factors))
    }

    /// A tensor of exactly these dimensions: of a stack all rows, of a vector a row per element.
    pub(super) fn stored(&self, name: &str, wanted: &[u64]) -> Result<Stored<'_>, LoadError> {
        let Some((file, tensor)) = self.tensors.get(name) else {
            return Err(LoadError::new(&self.path, format!("tensor {name} is missing")));
        };
        let (path, bytes) = &self.files[*file];
        let wrong = |problem: String| Err(LoadError::new(path, format!("tensor {name} {problem}")));
        if !super::fits(&tensor.dims, wanted) {
            let (wanted, found) = (shape_text(wanted), shape_text(&tensor.dims));
            return wrong(format!("is {found}; the header asks for {wanted}"));
        }
        let (rows, cols) = match wanted {
            [stack @ .., cols] if wanted.len() > 1 => (stack.iter().product::<u64>(), *cols),
            other => (other.iter().product(), 1),
        };
        // Blocks run along rows, and a vector has rows of one element.
        if cols == 1 && tensor.format.is_quantized() {
            let format = tensor.format.name();
            return wrong(format!("is a vector in {format}, wanted plain numbers"));
        }
        let bytes = &bytes.get()[tensor.place.clone()];
        let (rows, cols) = (rows as usize, cols as usize);
        Ok(Stored { format: tensor.format, bytes, rows, cols, transposed: false })
    }
}

/// For writing another file of it.
impl Gguf {
    /// All keys in their order, each with its type and value as they are spelled.
    pub(crate) fn raw_keys(&self) -> Result<Vec<(String, Vec<u8>)>, LoadError> {
        let wrong = |problem: String| LoadError::new(&self.path, problem);
        // Magic number, version, number of tensors.
        let mut cursor = Cursor { bytes: self.bytes(), at: 16 };
        let mut keys = Vec::new();
        for _ in 0..cursor.u64().map_err(wrong)? {
            let key = cursor.text().map_err(wrong)?.to_owned();
            let start = cursor.at;
            cursor.value().map_err(wrong)?;
            keys.push((key, self.bytes()[start..cursor.at].to_vec()));
        }
        Ok(keys)
    }

    /// All tensors: name, dimensions (outermost first), format.
    pub(crate) fn all_tensors(&self) -> impl Iterator<Item = (&str, &[u64], Format)> {
        let tensors = self.tensors.iter();
        tensors.map(|(name, (_, tensor))| (name.as_str(), tensor.dims.as_slice(), tensor.format))
    }

    /// A tensor with all of its rows, whatever it is for.
    pub(crate) fn whole(&self, name: &str) -> Result<TensorView<'_>, LoadError> {
        let Some((file, tensor)) = self.tensors.get(name) else {
            return Err(LoadError::new(&self.path, format!("tensor {name} is missing")));
        };
        let bytes = &self.files[*file].1.get()[tensor.place.clone()];
        let cols = tensor.dims.last().map_or(1, |&cols| cols as usize);
        let rows = bytes.len() / tensor.format.row_bytes(cols).max(1);
        let (format, bytes) = (tensor.format, Cow::Borrowed(bytes));
        Ok(TensorView { format, rows, cols, bytes, order: None })
    }
}

fn map(path: &Path) -> Result<(FileBytes, Header), LoadError> {
    let bytes = FileBytes::map(path)?;
    let header =
        gguf_header::parse(bytes.get()).map_err(|problem| LoadError::new(path, problem))?;
    let places = header
        .tensors
        .iter()
        .map(|(name, tensor)| (tensor.place.start as u64, tensor.place.end as u64, name.as_str()));
    check_overlap(path, places.collect())?;
    Ok((bytes, header))
}

/// One entry of a list.
pub(crate) enum Item<'a> {
    Number(f64),
    Text(&'a str),
}
