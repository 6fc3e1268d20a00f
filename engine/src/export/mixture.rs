//! [`Mixture`]: which tensors of a file get which format. The mapping is one table, with the
//! figures of llama.cpp's `llama-quantize`, so that files of a name are of the same size and make
//! the same errors here and there.

use kernels::Format;

/// A mixture by its name: one format for most tensors, others for those that suffer most.
#[derive(Debug)]
pub struct Mixture {
    /// As people write it.
    pub name: &'static str,
    /// Most matrices.
    pub base: Format,
    /// `general.file_type`.
    pub(super) number: u32,
    /// Exceptions; the first that holds counts.
    rules: &'static [Rule],
}

/// Tensors of this kind, if this holds, get this format.
type Rule = (Part, When, Format);

/// Kinds of tensors that some mixture treats by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Values, or queries, keys and values in one.
    Value,
    /// Keys.
    Key,
    /// The output of attention.
    Out,
    /// The second projection of the MLP, experts included.
    Down,
}

/// A condition on the layer or the model.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// The first and the last eighth of the layers, and every third between.
    More,
    /// The first so many layers.
    First(usize),
    /// The first of so many parts of the layers.
    Part(usize),
    /// Four or more query heads share a key.
    Grouped,
}

use Format::{Bf16, F16, F32, Iq4Nl, Iq4Xs, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use Part::{Down, Out, Value};
use When::{Always, First, Grouped, More};

const fn plain(name: &'static str, base: Format, number: u32) -> Mixture {
    Mixture { name, base, number, rules: &[] }
}

const fn mixed(name: &'static str, base: Format, number: u32, rules: &'static [Rule]) -> Mixture {
    Mixture { name, base, number, rules }
}

const IQ4: &[Rule] = &[(Value, Grouped, Q5K), (Down, When::Part(8), Q5K)];

/// All mixtures, best known first.
pub static MIXTURES: [Mixture; 18] = [
    plain("q8_0", Q8_0, 7),
    plain("q4_0", Q4_0, 2),
    plain("q4_1", Q4_1, 3),
    plain("q5_0", Q5_0, 8),
    plain("q5_1", Q5_1, 9),
    mixed(
        "q2_k",
        Q2K,
        10,
        &[(Value, Grouped, Q4K), (Value, Always, Q3K), (Down, Always, Q3K), (Out, Always, Q3K)],
    ),
    plain("q3_k_s", Q3K, 11),
    mixed(
        "q3_k_m",
        Q3K,
        12,
        &[
            (Value, First(2), Q5K),
            (Value, Always, Q4K),
            (Down, When::Part(16), Q5K),
            (Down, Always, Q4K),
            (Out, Always, Q4K),
        ],
    ),
    mixed("q4_k_s", Q4K, 14, &[(Value, First(4), Q5K), (Down, When::Part(8), Q5K)]),
    mixed("q4_k_m", Q4K, 15, &[(Value, More, Q6K), (Down, More, Q6K)]),
    plain("q5_k_s", Q5K, 16),
    mixed("q5_k_m", Q5K, 17, &[(Value, More, Q6K), (Down, More, Q6K)]),
    plain("q6_k", Q6K, 18),
    mixed("iq4_nl", Iq4Nl, 25, IQ4),
    mixed("iq4_xs", Iq4Xs, 30, IQ4),
    plain("f16", F16, 1),
    plain("bf16", Bf16, 32),
    plain("f32", F32, 0),
];

/// What the choice for a tensor depends on besides its name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Model {
    pub(super) layers: usize,
    /// Query heads to a key/value head.
    pub(super) group: usize,
    /// 0 without experts.
    pub(super) experts: usize,
    /// The head is the embedding table.
    pub(super) tied: bool,
}

impl Mixture {
    /// The mixture of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        MIXTURES.iter().find(|mixture| mixture.name == name)
    }

    /// The format for a tensor by its name in GGUF and its dimensions, outermost first.
    pub(super) fn format(&self, name: &str, dims: &[u64], model: &Model) -> Format {
        let (&[_, .., cols], true) = (dims, is_matrix(name)) else { return F32 };
        if !self.base.is_quantized() {
            return self.base;
        }
        fitting(self.wanted(name, model), cols)
    }

    fn wanted(&self, name: &str, model: &Model) -> Format {
        if name == "output.weight" || (model.tied && name == "token_embd.weight") {
            return if self.base == Q8_0 { Q8_0 } else { Q6K };
        }
        let Some(part) = Part::of(name) else { return self.base };
        let layer = layer(name);
        let rule = self.rules.iter().find(|(of, when, _)| *of == part && when.holds(layer, model));
        let format = rule.map_or(self.base, |rule| rule.2);
        match part {
            // With eight experts attention is so small a share that it costs nothing.
            Value | Part::Key if model.experts == 8 => Q8_0,
            Out if model.experts == 8 && matches!(self.base, Q2K | Q3K | Q4K | Iq4Nl | Iq4Xs) => {
                Q5K
            }
            // Models of 70 billion parameters have eight query heads to a value.
            Value if model.layers == 80 && matches!(format, Q3K | Q4K) => Q5K,
            _ => format,
        }
    }
}

impl Part {
    fn of(name: &str) -> Option<Self> {
        let holds = |part: &str| name.contains(part);
        Some(match () {
            () if holds("attn_v.weight") || holds("attn_qkv.weight") => Self::Value,
            () if holds("attn_k.weight") => Self::Key,
            () if holds("attn_output.weight") => Self::Out,
            () if holds("ffn_down") => Self::Down,
            () => return None,
        })
    }
}

impl When {
    fn holds(self, layer: usize, model: &Model) -> bool {
        let (layers, eighth) = (model.layers, model.layers / 8);
        match self {
            Self::Always => true,
            Self::More => layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2,
            Self::First(count) => layer < count,
            Self::Part(parts) => layer < layers / parts,
            Self::Grouped => model.group >= 4,
        }
    }
}

/// Norms, biases, routers and tables of positions stay as they are.
fn is_matrix(name: &str) -> bool {
    let kept = ["_norm.weight", "ffn_gate_inp", "position_embd.", "token_types.", "rope_"];
    name.ends_with(".weight") && !kept.iter().any(|part| name.contains(part))
}

fn layer(name: &str) -> usize {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The format itself, or one of shorter blocks for rows that its blocks do not fill.
fn fitting(format: Format, cols: u64) -> Format {
    let fits = |format: Format| cols.is_multiple_of(format.block_len() as u64);
    let shorter = match format {
        _ if fits(format) => format,
        Q2K | Q3K => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        Iq4Xs => Iq4Nl,
        other => other,
    };
    if fits(shorter) { shorter } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mixture: &str, name: &str, cols: u64, model: &Model, expect: Format) {
        let mixture = Mixture::by_name(mixture).expect("a mixture");
        assert_eq!(mixture.format(name, &[64, cols], model), expect, "{} {name}", mixture.name);
    }

    #[test]
    fn mixtures_are_those_of_llama_cpp() {
        let model = Model { layers: 32, group: 1, experts: 0, tied: false };
        let plain = |name: &str, tensor: &str, expect| check(name, tensor, 4096, &model, expect);
        // The first and last eighth, and every third between.
        for (layer, more) in [(0, true), (3, true), (4, false), (6, true), (9, true), (27, true)]
            .into_iter()
            .chain([(8, false), (26, false), (28, true), (31, true)])
        {
            let expect = if more { Q6K } else { Q4K };
            plain("q4_k_m", &format!("blk.{layer}.ffn_down.weight"), expect);
            plain("q4_k_m", &format!("blk.{layer}.attn_v.weight"), expect);
        }
        plain("q4_k_m", "output.weight", Q6K);
        plain("q8_0", "output.weight", Q8_0);
        plain("q4_k_m", "token_embd.weight", Q4K);
        plain("q4_k_m", "blk.3.attn_norm.weight", F32);
        plain("q4_k_m", "blk.3.ffn_gate_inp.weight", F32);
        plain("q4_k_m", "blk.3.attn_q.bias", F32);
        plain("q4_k_s", "blk.3.attn_v.weight", Q5K);
        plain("q4_k_s", "blk.4.attn_v.weight", Q4K);
        plain("q2_k", "blk.4.attn_v.weight", Q3K);
        plain("q3_k_m", "blk.1.ffn_down.weight", Q5K);
        plain("q3_k_m", "blk.2.ffn_down.weight", Q4K);
        plain("bf16", "blk.2.ffn_down.weight", Bf16);
        let tied = Model { tied: true, ..model };
        check("q4_k_m", "token_embd.weight", 4096, &tied, Q6K);
        let grouped = Model { group: 4, ..model };
        check("q2_k", "blk.4.attn_v.weight", 4096, &grouped, Q4K);
        check("iq4_xs", "blk.9.attn_v.weight", 4096, &grouped, Q5K);
        let eight = Model { experts: 8, ..model };
        check("q4_k_m", "blk.9.attn_k.weight", 4096, &eight, Q8_0);
        check("q4_k_m", "blk.9.attn_output.weight", 4096, &eight, Q5K);
    }

    #[test]
    fn short_rows_take_short_blocks() {
        let model = Model { layers: 32, group: 1, experts: 0, tied: false };
        let cases = [("q4_k_s", Q5_0), ("q5_k_s", Q5_1), ("q6_k", Q8_0), ("iq4_xs", Iq4Nl)];
        for (name, expect) in cases.into_iter().chain([("q3_k_s", Q4_0), ("q8_0", Q8_0)]) {
            check(name, "blk.9.ffn_up.weight", 704, &model, expect);
            check(name, "blk.9.ffn_up.weight", 720, &model, F16);
        }
    }
}
