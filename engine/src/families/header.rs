//! What the families read from a GGUF header in the same way.
//!
//! Keys are those of the GGUF specification, under the architecture's name. [`Header`] remembers
//! which of them were asked for: a key that nobody asked for and that says more than "nothing of
//! the kind" is refused, because it may change the computation.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kernels::{Activation, NormKind};

use super::decoder::{
    CONTEXT_MAX, HEAD_DIM_MAX, HEADS_MAX, HIDDEN_MAX, LAYERS_MAX, Sizes, VOCAB_MAX,
};
use super::header_rope;
use crate::spec::{MlpSpec, ModelSpec, NormSpec};
use crate::weights::gguf::{Gguf, Item};
use crate::weights::{LoadError, shown};

/// Keys that say nothing about the computation of a decoder, or that another key repeats.
const HARMLESS: [&str; 8] = [
    // What a classifier's answers are called, and which row it reads.
    "classifier.output_labels",
    "classifier.pooling_type",
    "rope.scaling.finetuned",
    "tensor_data_layout",
    // How often a file was quantized or merged.
    "quantization_version",
    // Whose words the tokenizer is made of.
    "tokenizer_type",
    "embedding_length_out",
    // Which row an embedding is read from: asked for where embeddings are made.
    "pooling_type",
];

/// A header whose keys stand under the architecture's name.
pub(super) struct Header<'a> {
    gguf: &'a Gguf,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Header<'a> {
    pub(super) fn new(gguf: &'a Gguf) -> Self {
        Self { gguf, asked: RefCell::default() }
    }

    fn key(&self, name: &str) -> String {
        self.asked.borrow_mut().insert(name.to_owned());
        self.gguf.arch_key(name)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&self, name: &str, most: usize) -> Result<Option<usize>, LoadError> {
        self.gguf.count(&self.key(name), most)
    }

    /// As [`Header::count`], and it has to be there.
    pub(super) fn need(&self, name: &str, most: usize) -> Result<usize, LoadError> {
        self.gguf.need(&self.key(name), most)
    }

    /// A count for which converters also write 0, meaning none.
    pub(super) fn some(&self, name: &str, most: usize) -> Result<Option<usize>, LoadError> {
        match self.number(name, 0.0, most as f64)? {
            Some(number) if number > 0.0 => self.count(name, most),
            _ => Ok(None),
        }
    }

    /// A number between `least` and `most`.
    pub(super) fn number(
        &self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, LoadError> {
        self.gguf.number(&self.key(name), least, most)
    }

    /// A factor, 1 unless set.
    pub(super) fn factor(&self, name: &str) -> Result<f32, LoadError> {
        Ok(self.number(name, 1e-6, 1e6)?.unwrap_or(1.0) as f32)
    }

    /// A soft cap; 0 means none.
    pub(super) fn cap(&self, name: &str) -> Result<Option<f32>, LoadError> {
        Ok(self.number(name, 0.0, 1e6)?.filter(|&cap| cap > 0.0).map(|cap| cap as f32))
    }

    /// A flag that is off unless set.
    pub(super) fn flag(&self, name: &str) -> Result<bool, LoadError> {
        Ok(self.number(name, 0.0, 1.0)?.is_some_and(|flag| flag > 0.0))
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, LoadError> {
        self.gguf.text(&self.key(name))
    }

    /// A list of `len` flags.
    pub(super) fn flags(&self, name: &str, len: usize) -> Result<Option<Vec<bool>>, LoadError> {
        let flag = |item: Item<'_>| match item {
            Item::Number(number) => Some(number > 0.0),
            Item::Text(_) => None,
        };
        let flags = self.gguf.list(&self.key(name), LAYERS_MAX, "flags", flag)?;
        match &flags {
            Some(flags) if flags.len() < len => {
                let problem = format!("has {} entries for {len} layers", flags.len());
                Err(self.wrong(name, &problem))
            }
            _ => Ok(flags),
        }
    }

    /// Marks keys that the family's files have and that change nothing in it.
    pub(super) fn idle(&self, names: &[&str]) {
        self.asked.borrow_mut().extend(names.iter().map(|&name| name.to_owned()));
    }

    /// Dimensions of a tensor, outermost first.
    pub(super) fn dims(&self, tensor: &str) -> Option<&[u64]> {
        self.gguf.dims(tensor)
    }

    /// Factors of rotary frequencies.
    pub(super) fn factors(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, LoadError> {
        self.gguf.factors(name, len)
    }

    /// An error about one key.
    pub(super) fn wrong(&self, name: &str, problem: &str) -> LoadError {
        self.gguf.wrong(&self.gguf.arch_key(name), problem)
    }

    /// Refuses the keys that nobody asked for, unless they say "nothing of the kind".
    pub(super) fn refuse_unasked(&self) -> Result<(), LoadError> {
        let prefix = self.gguf.arch_key("");
        let asked = self.asked.borrow();
        for key in self.gguf.keys() {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            if asked.contains(name) || HARMLESS.contains(&name) {
                continue;
            }
            if !matches!(self.gguf.number(key, 0.0, 0.0), Ok(Some(_))) {
                let problem = "this option is not supported in files of this family";
                return Err(self.gguf.wrong(&shown(key), problem));
            }
        }
        Ok(())
    }
}

/// What an architecture does not write down.
pub(super) struct Habits {
    /// Kind of the norms, and whether they have a bias.
    pub(super) norm: (NormKind, bool),
    /// The function in the MLP.
    pub(super) activation: Activation,
    /// Rotated pairs are neighbours.
    pub(super) interleaved: bool,
    /// The borders of yarn's ramp are rounded outwards.
    pub(super) truncate: bool,
}

/// Those of most architectures.
pub(super) const HALVES: Habits = Habits {
    norm: (NormKind::Rms, false),
    activation: Activation::Silu,
    interleaved: false,
    truncate: true,
};

/// Those of `llama`, whose converters reorder the rows of q and k.
pub(super) const NEIGHBOURS: Habits = Habits { interleaved: true, ..HALVES };

/// A decoder without windows or head norms; the family changes what differs.
pub(super) fn decoder(
    header: &Header<'_>,
    family: &'static str,
    habits: &Habits,
) -> Result<ModelSpec, LoadError> {
    if header.number("attention.causal", 0.0, 1.0)? == Some(0.0) {
        let problem = "attention without a causal mask is not supported in this family";
        return Err(header.wrong("attention.causal", problem));
    }
    let mut spec = stack(header, family, habits)?;
    biases(header, &mut spec);
    Ok(spec)
}

/// As [`decoder`], without the check of the mask and without biases.
pub(super) fn stack(
    header: &Header<'_>,
    family: &'static str,
    habits: &Habits,
) -> Result<ModelSpec, LoadError> {
    let hidden = header.need("embedding_length", HIDDEN_MAX)?;
    let layers = header.need("block_count", LAYERS_MAX)?;
    let heads = header.need("attention.head_count", HEADS_MAX)?;
    let kv_heads = header.count("attention.head_count_kv", HEADS_MAX)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let problem = format!("{kv_heads} does not divide attention.head_count, {heads}");
        return Err(header.wrong("attention.head_count_kv", &problem));
    }
    let head_dim = head_dim(header, hidden, heads)?;
    let context = header.need("context_length", CONTEXT_MAX)?;
    let mut rope = header_rope::read(header, head_dim, context, habits.truncate)?;
    rope.interleaved = habits.interleaved;
    let sizes = Sizes {
        family,
        hidden,
        vocab: vocab(header, hidden)?,
        context,
        layers,
        heads,
        kv_heads,
        head_dim,
        width: header.need("feed_forward_length", HIDDEN_MAX)?,
        activation: habits.activation,
        norm: norm(header, habits.norm)?,
        rope,
        tied: header.dims("output.weight").is_none(),
    };
    let mut spec = sizes.decoder();
    if let Some(head) = &mut spec.head {
        head.bias = header.dims("output.bias").is_some();
    }
    Ok(spec)
}

fn norm(header: &Header<'_>, (kind, bias): (NormKind, bool)) -> Result<NormSpec, LoadError> {
    let key = match kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    let eps = header.number(key, 0.0, 1.0)?.ok_or_else(|| header.wrong(key, "is missing"))?;
    Ok(NormSpec { kind, eps: eps as f32, offset: 0.0, bias })
}

fn head_dim(header: &Header<'_>, hidden: usize, heads: usize) -> Result<usize, LoadError> {
    let stated = header.count("attention.key_length", HEAD_DIM_MAX)?;
    let head_dim = match stated {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) && hidden / heads <= HEAD_DIM_MAX => hidden / heads,
        None => {
            let problem = format!("{heads} heads do not share out {hidden} elements evenly");
            return Err(header.wrong("attention.head_count", &problem));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let problem = format!("heads of {head_dim} elements cannot be rotated, which needs pairs");
        return Err(header.wrong("attention.key_length", &problem));
    }
    let value = header.count("attention.value_length", HEAD_DIM_MAX)?;
    // Files with compressed keys say more elsewhere; see the family that has them.
    let compressed = header.dims("blk.0.attn_kv_a_mqa.weight").is_some();
    if !compressed && value.is_some_and(|value| value != head_dim) {
        let problem = format!("values other than the head size, {head_dim}, are not supported");
        return Err(header.wrong("attention.value_length", &problem));
    }
    Ok(head_dim)
}

/// The header need not say how many tokens there are; the embedding table always does.
fn vocab(header: &Header<'_>, hidden: usize) -> Result<usize, LoadError> {
    let rows = match header.dims("token_embd.weight") {
        Some([rows, cols]) if *cols == hidden as u64 && (1..=VOCAB_MAX as u64).contains(rows) => {
            *rows as usize
        }
        _ => {
            let problem = format!("tensor token_embd.weight with {hidden} columns is missing");
            return Err(LoadError::new(header.gguf.file(), problem));
        }
    };
    match header.count("vocab_size", VOCAB_MAX)? {
        Some(stated) if stated != rows => {
            let problem = format!("is {stated}, the embedding table has {rows} rows");
            Err(header.wrong("vocab_size", &problem))
        }
        _ => Ok(rows),
    }
}

/// Headers do not say whether there are biases; the first layer's tensors do, and the check of all
/// tensors then asks for them in every layer.
fn biases(header: &Header<'_>, spec: &mut ModelSpec) {
    let stands = |name: &str| header.dims(&format!("blk.0.{name}.bias")).is_some();
    let (qkv, out) = (stands("attn_q") || stands("attn_qkv"), stands("attn_output"));
    let mlp = stands("ffn_up");
    for layer in &mut spec.layers {
        layer.attention.qkv_bias = qkv;
        layer.attention.out_bias = out;
        if let MlpSpec::Dense(dense) = &mut layer.mlp {
            dense.bias = mlp;
        }
    }
}

/// `attention.sliding_window`, in positions.
pub(super) fn window(header: &Header<'_>) -> Result<Option<u32>, LoadError> {
    let window = header.some("attention.sliding_window", CONTEXT_MAX)?;
    Ok(window.map(|window| window as u32))
}

/// Gives the header's window to the layers that it lists, or else to those for which `usual`
/// holds.
pub(super) fn windows(
    header: &Header<'_>,
    spec: &mut ModelSpec,
    usual: impl Fn(usize) -> bool,
) -> Result<(), LoadError> {
    windows_from(header, spec, usual, |layer, every| !(layer + 1).is_multiple_of(every))
}

/// As [`windows`]; a header may give a number n instead of a list, and `counted(layer, n)` says
/// what it means.
pub(super) fn windows_from(
    header: &Header<'_>,
    spec: &mut ModelSpec,
    usual: impl Fn(usize) -> bool,
    counted: impl Fn(usize, usize) -> bool,
) -> Result<(), LoadError> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let window = window(header)?;
    let layers = spec.layers.len();
    let windowed: Vec<bool> = match header.count(PATTERN, LAYERS_MAX) {
        Ok(Some(every)) => (0..layers).map(|layer| counted(layer, every)).collect(),
        Ok(None) => (0..layers).map(usual).collect(),
        Err(_) => header.flags(PATTERN, layers)?.unwrap_or_default(),
    };
    for (layer, windowed) in spec.layers.iter_mut().zip(windowed) {
        layer.attention.window = window.filter(|_| windowed);
    }
    Ok(())
}

/// For families whose GGUF files have none.
pub(super) fn no_window(header: &Header<'_>) -> Result<(), LoadError> {
    match window(header)? {
        None => Ok(()),
        Some(_) => {
            let problem = "windows are not supported in files of this family";
            Err(header.wrong("attention.sliding_window", problem))
        }
    }
}

/// For encoders: refuses a header that does not say that it is one.
pub(super) fn encoder_only(header: &Header<'_>) -> Result<(), LoadError> {
    match header.number("attention.causal", 0.0, 1.0)? {
        Some(0.0) => Ok(()),
        _ => Err(header.wrong("attention.causal", "is not false, as it is in this family")),
    }
}

/// Rows of a table of the embedding.
pub(super) fn rows(header: &Header<'_>, tensor: &str) -> Result<usize, LoadError> {
    match header.dims(tensor) {
        Some([rows, _]) if (1..=CONTEXT_MAX as u64).contains(rows) => Ok(*rows as usize),
        _ => Err(LoadError::new(header.gguf.file(), format!("tensor {tensor} is missing"))),
    }
}

/// Rows of the table of token types, where there is one.
pub(super) fn types(header: &Header<'_>) -> Result<Option<usize>, LoadError> {
    const TABLE: &str = "token_types.weight";
    header.dims(TABLE).map(|_| rows(header, TABLE)).transpose()
}
