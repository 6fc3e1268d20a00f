//! [`Decoder`]: a decoder whose layers differ at most in their window, and the limits of its
//! numbers. The readers of both file formats fill it in; the families adjust it.

use kernels::Rope;

use crate::spec::{AttentionSpec, LayerSpec, MlpSpec, ModelSpec};

/// More than twice the widest published model (53,248 between projections, 16,384 hidden). These
/// limits are chosen so that no product of two of them overflows 64 bits.
pub(super) const HIDDEN_MAX: usize = 1 << 18;
/// Published vocabularies end at about 262,000.
pub(super) const VOCAB_MAX: usize = 1 << 24;
/// Published models have at most 128 layers or so; a thousand is absurd.
pub(super) const LAYERS_MAX: usize = 1000;
/// As many as the widest stream has pairs of elements, roughly.
pub(super) const HEADS_MAX: usize = 1 << 12;
/// Published heads end at 576.
pub(super) const HEAD_DIM_MAX: usize = 1 << 12;
/// Positions are 32-bit, and ten million is the longest published context.
pub(super) const CONTEXT_MAX: usize = 1 << 28;

/// The numbers of one decoder.
pub(super) struct Decoder {
    pub(super) family: &'static str,
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) width: usize,
    pub(super) norm_eps: f32,
    pub(super) rope: Rope,
    /// One per layer.
    pub(super) windows: Vec<Option<u32>>,
    pub(super) qk_norm: bool,
    pub(super) qkv_bias: bool,
    pub(super) out_bias: bool,
    pub(super) mlp_bias: bool,
    pub(super) tied_head: bool,
}

impl Decoder {
    /// The spec. The readers have checked every number.
    pub(super) fn build(self) -> ModelSpec {
        assert_eq!(self.windows.len(), self.layers, "one window per layer");
        assert_eq!(self.heads % self.kv_heads, 0, "checked by the readers");
        let layer = |window: &Option<u32>| LayerSpec {
            attention: AttentionSpec {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: (self.head_dim as f32).sqrt().recip(),
                window: *window,
                rope: Some(0),
                qk_norm: self.qk_norm,
                qkv_bias: self.qkv_bias,
                out_bias: self.out_bias,
            },
            mlp: MlpSpec { width: self.width, bias: self.mlp_bias },
        };
        ModelSpec {
            family: self.family,
            hidden: self.hidden,
            vocab: self.vocab,
            context: self.context,
            embedding_scale: 1.0,
            norm_eps: self.norm_eps,
            layers: self.windows.iter().map(layer).collect(),
            ropes: vec![self.rope],
            tied_head: self.tied_head,
        }
    }
}
