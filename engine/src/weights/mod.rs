//! Where tensors come from: files mapped into memory, read by role.
//!
//! A source checks a tensor's place, type and size against its file before it hands out bytes;
//! nothing in a file can make it panic or allocate more than the file's own size. Sources know
//! file formats and tensor names; they do not know what a family computes.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use kernels::{Format, MatrixPart, Precision};

use crate::spec::{LayerPart, ModelSpec, Need, Role};

pub(crate) mod containers;
pub mod gguf;
mod gguf_header;
mod gguf_split;
mod gguf_value;
pub(crate) mod gguf_weights;
pub(crate) mod hub;
mod map;
mod matrix;
pub(crate) mod names;
mod plain;
pub mod safetensors;
pub(crate) mod shards;
mod source;

pub(crate) use map::{FileBytes, read_small};
pub use source::{Pick, Slab, Source};

/// A file cannot be loaded. Says which file, which tensor or offset, what was wanted and found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct LoadError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, and what to do where that is known.
    pub problem: String,
}

impl LoadError {
    /// An error about `file`.
    pub fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_path_buf(), problem: problem.into() }
    }
}

/// A tensor as the device takes it: row-major, `rows * format.row_bytes(cols)` bytes. A vector has
/// one row. Borrowed from the mapped file where it lies there like that; owned where a container
/// had to be transcoded.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// Element or block format.
    pub format: Format,
    /// Rows (output features).
    pub rows: usize,
    /// Columns (input features).
    pub cols: usize,
    /// The data, little endian.
    pub bytes: Cow<'a, [u8]>,
    /// Stored column j belongs to input element `order[j]` (GPTQ's act-order).
    pub order: Option<Vec<u32>>,
}

impl TensorView<'_> {
    /// The same data as a part of a device matrix.
    #[must_use]
    pub fn part(&self) -> MatrixPart<'_> {
        let Self { format, rows, cols, bytes, order } = self;
        let (format, rows, cols) = (*format, *rows, *cols);
        MatrixPart { format, rows, cols, bytes, order: order.as_deref() }
    }
}

/// What a tensor is, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The format that [`Weights::tensor`] will hand out.
    pub format: Format,
    /// Bytes that its share of the files takes.
    pub bytes: u64,
}

/// Tensors by role.
pub trait Weights {
    /// Looks up the tensor that plays `role` and checks its shape and type; reads no data.
    ///
    /// # Errors
    /// It is missing, has another shape, or a type that is not supported.
    fn look(&self, role: Role, rows: usize, cols: usize) -> Result<Look, LoadError>;

    /// The tensor that plays `role`, with exactly this shape (`rows` is 1 for vectors).
    ///
    /// # Errors
    /// As [`Weights::look`], or its data makes no sense.
    fn tensor(&self, role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError>;

    /// A vector widened to f32.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    fn vector(&self, role: Role, len: usize) -> Result<Vec<f32>, LoadError> {
        let view = self.tensor(role, 1, len)?;
        widen(&view).ok_or_else(|| self.not_plain(role, view.format))
    }

    /// The error for a vector that is stored in blocks.
    fn not_plain(&self, role: Role, format: Format) -> LoadError;
}

/// Whether a stored shape, outermost dimension first, is the wanted one. Heads may be kept apart:
/// norms as `[heads, dim]`, matrices as `[heads, rows, cols]`.
fn fits(stored: &[u64], wanted: &[u64]) -> bool {
    let product = |dims: &[u64]| dims.iter().try_fold(1_u64, |all, &dim| all.checked_mul(dim));
    match (stored, wanted) {
        (heads, [len]) => product(heads) == Some(*len),
        ([heads @ .., last], [rows, cols]) => last == cols && product(heads) == Some(*rows),
        _ => stored == wanted,
    }
}

/// Bytes that weights take on a GPU, by the arithmetic that they are loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceBytes {
    float32: u64,
    bfloat16: u64,
    float16: u64,
}

impl DeviceBytes {
    /// For products in `precision`.
    #[must_use]
    pub fn of(self, precision: Precision) -> u64 {
        match precision {
            Precision::Float32 => self.float32,
            Precision::Bfloat16 => self.bfloat16,
            Precision::Float16 => self.float16,
        }
    }

    fn add(&mut self, need: &Need, format: Format) {
        let bytes = |precision| crate::cuda::weight_bytes(need, format, precision);
        self.float32 = self.float32.saturating_add(bytes(Precision::Float32));
        self.bfloat16 = self.bfloat16.saturating_add(bytes(Precision::Bfloat16));
        self.float16 = self.float16.saturating_add(bytes(Precision::Float16));
    }
}

/// What checking all of a model's tensors found.
pub(crate) struct Found {
    /// Bytes of the tensors that the model uses.
    pub(crate) bytes: u64,
    /// Bytes that they take on a CPU, packed for its products.
    pub(crate) packed: u64,
    /// Bytes that they take on a GPU.
    pub(crate) device: DeviceBytes,
    /// The format that most of those bytes are in.
    pub(crate) format: Format,
}

/// Looks every tensor of `spec` up, so that a missing or misshapen one is reported before
/// anything is loaded. Reads no data.
pub(crate) fn check(spec: &ModelSpec, weights: &dyn Weights) -> Result<Found, LoadError> {
    let mut by_format: Vec<(Format, u64)> = Vec::new();
    let (mut packed, mut device) = (0_u64, DeviceBytes::default());
    for need in spec.tensors() {
        let Look { format, bytes } = weights.look(need.role, need.rows, need.cols)?;
        packed = packed.saturating_add(packed_bytes(&need, format));
        device.add(&need, format);
        match by_format.iter_mut().find(|(known, _)| *known == format) {
            Some((_, sum)) => *sum += bytes,
            None => by_format.push((format, bytes)),
        }
    }
    let bytes = by_format.iter().map(|(_, sum)| sum).sum();
    let format = by_format.iter().max_by_key(|(_, sum)| *sum).map_or(Format::F32, |most| most.0);
    Ok(Found { bytes, packed, device, format })
}

/// Loaded as f32 whatever the file holds, or at most so.
pub(crate) fn is_wide(role: Role) -> bool {
    matches!(role, Role::Layer(_, LayerPart::Router | LayerPart::KeyUp))
}

/// Vectors and routers are widened; so are key matrices of latent attention, at most to f32.
fn packed_bytes(need: &Need, format: Format) -> u64 {
    let wide = is_wide(need.role);
    let bytes = match need.role {
        role if role.is_vector() => 4 * need.cols,
        _ if wide => kernels::cpu::matrix::packed_bytes(Format::F32, need.rows, need.cols),
        _ => kernels::cpu::matrix::packed_bytes(format, need.rows, need.cols),
    };
    bytes as u64
}

/// Plain elements as f32; `None` for quantized formats.
pub(crate) fn widen(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let halves = || view.bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    Some(match view.format {
        Format::F32 => {
            let words = view.bytes.chunks_exact(4);
            words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
        Format::F16 => halves().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect(),
        Format::Bf16 => halves().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect(),
        _ => return None,
    })
}

/// What to tell the operator about tensors that a family's files hold beside the model.
fn spare_note(names: &[&str]) -> Option<String> {
    let first = names.first()?;
    let (count, first) = (names.len(), shown(first));
    Some(format!("{count} tensors beside the model are not used, such as {first}"))
}

/// A shape for people: `384 x 64`.
pub(crate) fn shape_text(dims: &[u64]) -> String {
    if dims.is_empty() {
        return "a single number".to_owned();
    }
    dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

/// A name out of a file, made safe to print: control characters escaped, cut at 80 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars().take(80) {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    if text.chars().nth(80).is_some() {
        out.push_str("...");
    }
    out
}

/// Refuses tensors whose bytes overlap: `(start, end, name)` in any order.
pub(crate) fn check_overlap(
    file: &Path,
    mut places: Vec<(u64, u64, &str)>,
) -> Result<(), LoadError> {
    places.retain(|(start, end, _)| start < end);
    places.sort_unstable();
    for pair in places.windows(2) {
        let ((_, end, first), (start, _, second)) = (pair[0], pair[1]);
        if start < end {
            let (first, second) = (shown(first), shown(second));
            let problem = format!("tensors {first} and {second} overlap; the file is damaged");
            return Err(LoadError::new(file, problem));
        }
    }
    Ok(())
}
