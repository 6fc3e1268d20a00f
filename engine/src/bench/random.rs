//! [`RandomWeights`]: a model of a known shape with weights that mean nothing.
//!
//! A format's blocks are made once, a megabyte of them, and repeated to the size of the largest
//! tensor; each tensor is a stretch of that, beginning at a block of its own. Handing one out
//! copies nothing, so loading takes the time that mapped files in memory would.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use kernels::{Format, Group};

use super::blocks::{DEVIATION, Random, fill};
use super::shapes;
use crate::model::{GenerationDefaults, ModelFiles};
use crate::open::Wordless;
use crate::spec::{LayerPart as P, ModelSpec, Need, Role};
use crate::weights::{self, LoadError, Look, TensorView, Weights};

/// Bytes made at random; the rest repeats them. Making them takes a second at most.
const POOL_BYTES: usize = 1 << 20;
/// Deviation of norm weights around one.
const NORM_DEVIATION: f32 = 0.1;

/// What the matrices of a random model are stored in. Embedding, head and routers stay bf16, as
/// in most published files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// bf16.
    Bf16,
    /// 8-bit floats with one scale a row.
    Fp8,
    /// 4-bit codes in groups of 128, as GPTQ and AWQ files have them.
    Int4,
    /// GGUF's `Q4_K`.
    Q4K,
    /// GGUF's `Q8_0`.
    Q8_0,
}

impl Stored {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Bf16, Self::Fp8, Self::Int4, Self::Q4K, Self::Q8_0];

    /// Name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int4 => "int4",
            Self::Q4K => "q4_k",
            Self::Q8_0 => "q8_0",
        }
    }

    fn format(self) -> Format {
        match self {
            Self::Bf16 => Format::Bf16,
            // The loader finds that all scales of a row are equal.
            Self::Fp8 => Format::F8E4M3(Group::G128),
            Self::Int4 => Format::U4(Group::G128),
            Self::Q4K => Format::Q4K,
            Self::Q8_0 => Format::Q8_0,
        }
    }
}

/// A model of one of [`shapes::NAMES`] with random weights.
///
/// # Errors
/// There is no such shape, or its rows are not made of whole blocks of the format.
pub fn random_model(shape: &str, stored: Stored) -> Result<ModelFiles, LoadError> {
    let path = PathBuf::from(shape);
    let unknown = || {
        let names = shapes::NAMES.join(", ");
        LoadError::new(&path, format!("is no known shape; shapes: {names}"))
    };
    let spec = shapes::spec(shape).ok_or_else(unknown)??;
    let weights = RandomWeights::new(path.clone(), &spec, stored.format())?;
    let found = weights::check(&spec, &weights)?;
    let model = Wordless {
        path,
        spec,
        weights: Arc::new(weights),
        weight_bytes: found.bytes,
        packed_bytes: found.packed,
        device_bytes: found.device,
        format: found.format,
        defaults: GenerationDefaults::default(),
        eos: Vec::new(),
        notes: Vec::new(),
        adapter_base: None,
    };
    // Prompts are random tokens: no text is ever read or made, any tokenizer will do.
    model.with_text(crate::open_demo().text)
}

/// Tensors of any role and shape.
struct RandomWeights {
    file: PathBuf,
    format: Format,
    /// In `format`.
    matrices: Repeated,
    /// In bf16; `None` when that is the format of all.
    plain: Option<Repeated>,
    norm_offset: f32,
    head_norm_offset: f32,
}

/// Random blocks, repeated.
struct Repeated {
    format: Format,
    /// Blocks before the first repeat.
    pool: usize,
    bytes: Vec<u8>,
}

impl Repeated {
    /// Enough for stretches of up to `bytes_max` bytes.
    fn new(format: Format, bytes_max: usize) -> Self {
        let size = format.block_bytes();
        // An odd number of blocks: rows of a matrix then begin in different places of the pool.
        let pool = (POOL_BYTES / size) | 1;
        let mut bytes = Vec::with_capacity((pool + 1) * size + bytes_max);
        bytes.resize(pool * size, 0);
        fill(format, &mut Random::new(1), &mut bytes);
        while bytes.len() < bytes.capacity() - size {
            let more = bytes.len().min(bytes.capacity() - bytes.len());
            bytes.extend_from_within(..more);
        }
        Self { format, pool, bytes }
    }

    fn stretch(&self, seed: u64, bytes: usize) -> &[u8] {
        let first = Random::new(seed).below(self.pool) * self.format.block_bytes();
        &self.bytes[first..first + bytes]
    }
}

impl RandomWeights {
    fn new(file: PathBuf, spec: &ModelSpec, format: Format) -> Result<Self, LoadError> {
        let mut most = [0, 0];
        for Need { role, rows, cols } in spec.tensors().into_iter().filter(is_matrix) {
            let format = stored_as(role, format);
            if !cols.is_multiple_of(format.block_len()) {
                let name = format.name();
                let problem = format!("{role:?} has rows of {cols}: not whole blocks of {name}");
                return Err(LoadError::new(&file, problem));
            }
            let most = &mut most[usize::from(format == Format::Bf16)];
            *most = (rows * format.row_bytes(cols)).max(*most);
        }
        let [coded, plain] = most;
        let head_norm = spec.layers[0].attention.qk_norm;
        Ok(Self {
            file,
            format,
            matrices: Repeated::new(format, if format == Format::Bf16 { plain } else { coded }),
            plain: (format != Format::Bf16).then(|| Repeated::new(Format::Bf16, plain)),
            norm_offset: spec.norm.offset,
            head_norm_offset: head_norm.map_or(0.0, |norm| norm.offset),
        })
    }

    /// Norms are about one, where the file keeps them relative to one about zero; the rest is
    /// small.
    fn numbers(&self, role: Role, len: usize) -> Vec<f32> {
        let (mean, deviation) = match role {
            Role::Layer(_, P::QueryNorm | P::KeyNorm) => {
                (1.0 - self.head_norm_offset, NORM_DEVIATION)
            }
            Role::Layer(_, P::LatentNorm | P::QueryDownNorm) => (1.0, NORM_DEVIATION),
            Role::EmbeddingNorm
            | Role::FinalNorm
            | Role::Layer(
                _,
                P::AttentionNorm | P::AttentionPostNorm | P::MlpNorm | P::MlpPostNorm,
            ) => (1.0 - self.norm_offset, NORM_DEVIATION),
            _ => (0.0, DEVIATION),
        };
        let mut random = Random::new(seed(role));
        (0..len).map(|_| mean + deviation * random.normal()).collect()
    }
}

fn is_matrix(need: &Need) -> bool {
    !need.role.is_vector()
}

/// The matrices that every layer multiplies with are in `format`, all others in bf16.
fn stored_as(role: Role, format: Format) -> Format {
    match role {
        Role::Layer(_, P::Router | P::SharedSwitch | P::KeyUp) => Format::Bf16,
        Role::Layer(..) | Role::Expert(..) => format,
        _ => Format::Bf16,
    }
}

/// A number for each role.
fn seed(role: Role) -> u64 {
    let (a, b, c) = match role {
        Role::Layer(layer, part) => (layer, 0, part as usize),
        Role::Expert(layer, expert, part) => (layer, expert + 1, part as usize),
        Role::Head => (1 << 20, 0, 0),
        _ => (1 << 21, 0, 0),
    };
    ((a as u64) << 32 | (b as u64) << 8 | c as u64).wrapping_add(1)
}

impl Weights for RandomWeights {
    fn look(&self, role: Role, rows: usize, cols: usize) -> Result<Look, LoadError> {
        let format = if role.is_vector() { Format::F32 } else { stored_as(role, self.format) };
        Ok(Look { format, bytes: (rows * format.row_bytes(cols)) as u64 })
    }

    fn tensor(&self, role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let Look { format, bytes } = self.look(role, rows, cols)?;
        let bytes = match &self.plain {
            _ if role.is_vector() => {
                let numbers = self.numbers(role, cols);
                Cow::Owned(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
            }
            Some(plain) if format == Format::Bf16 => {
                Cow::Borrowed(plain.stretch(seed(role), bytes as usize))
            }
            _ => Cow::Borrowed(self.matrices.stretch(seed(role), bytes as usize)),
        };
        Ok(TensorView { format, rows, cols, bytes, order: None })
    }

    fn not_plain(&self, role: Role, format: Format) -> LoadError {
        let problem = format!("{role:?} is in {}, not in plain numbers", format.name());
        LoadError::new(&self.file, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_one_shape_differ_and_fit() {
        for stored in Stored::ALL {
            let model = random_model("tiny", stored).unwrap();
            let mut seen = std::collections::BTreeSet::new();
            for Need { role, rows, cols } in model.spec.tensors() {
                let view = model.weights.tensor(role, rows, cols).unwrap();
                assert_eq!(view.bytes.len(), rows * view.format.row_bytes(cols), "{role:?}");
                let begin = view.bytes[..64].to_vec();
                assert!(seen.insert(begin), "{stored:?}: {role:?} begins like another tensor");
            }
            let norm = model.weights.vector(Role::FinalNorm, 256).unwrap();
            assert!(norm.iter().all(|weight| (0.5..1.5).contains(weight)));
        }
    }

    #[test]
    fn what_cannot_be_built_is_named() {
        let problem = random_model("llama-3.1", Stored::Bf16).err().unwrap().problem;
        assert!(problem.contains("shapes: llama-3.1-8b"), "{problem}");
    }
}
