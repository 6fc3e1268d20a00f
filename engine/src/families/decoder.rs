//! [`Sizes`] to a plain decoder, and the limits of its numbers. The readers of both file formats
//! fill it in; the families change what differs.

use kernels::{Activation, HeadNorm, NormKind, Rope};

use crate::spec::{
    AttentionSpec, DenseSpec, EmbeddingSpec, HeadNormSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec,
    NormSpec, Order,
};

/// More than twice the widest published model (53,248 between projections, 16,384 hidden). These
/// limits are chosen so that no product of two of them overflows 64 bits.
pub(super) const HIDDEN_MAX: usize = 1 << 18;
/// Published vocabularies end at about 290,000.
pub(super) const VOCAB_MAX: usize = 1 << 24;
/// Published models have at most 128 layers or so; a thousand is absurd.
pub(super) const LAYERS_MAX: usize = 1000;
/// As many as the widest stream has pairs of elements, roughly.
pub(super) const HEADS_MAX: usize = 1 << 12;
/// Published heads end at 576.
pub(super) const HEAD_DIM_MAX: usize = 1 << 12;
/// Positions are 32-bit, and ten million is the longest published context.
pub(super) const CONTEXT_MAX: usize = 1 << 28;
/// Published layers have at most 512 experts. With [`LAYERS_MAX`] it bounds the list of tensors
/// that a configuration of a few bytes can ask for.
pub(super) const EXPERTS_MAX: usize = 1 << 12;

/// The numbers of a decoder.
pub(super) struct Sizes {
    pub(super) family: &'static str,
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) width: usize,
    pub(super) activation: Activation,
    pub(super) norm: NormSpec,
    pub(super) rope: Rope,
    pub(super) tied: bool,
}

impl Sizes {
    /// A decoder as Llama's: norms before both blocks, a gated MLP, no biases, windows or head
    /// norms. The readers have checked every number.
    pub(super) fn decoder(self) -> ModelSpec {
        assert_eq!(self.heads % self.kv_heads, 0, "checked by the readers");
        let layer = LayerSpec {
            order: Order::Pre,
            attention_norm: true,
            residual_scale: 1.0,
            attention: AttentionSpec {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: (self.head_dim as f32).sqrt().recip(),
                window: None,
                rope: Some(0),
                soft_cap: None,
                sinks: false,
                qk_norm: None,
                qkv_bias: false,
                out_bias: false,
                latent: None,
            },
            mlp: MlpSpec::Dense(DenseSpec {
                width: self.width,
                activation: self.activation,
                gated: true,
                bias: false,
            }),
        };
        ModelSpec {
            family: self.family,
            hidden: self.hidden,
            vocab: self.vocab,
            context: self.context,
            embedding: EmbeddingSpec { scale: 1.0, positions: None, types: None, norm: false },
            norm: self.norm,
            ropes: vec![self.rope],
            layers: vec![layer; self.layers],
            final_norm: true,
            head: Some(HeadSpec { tied: self.tied, bias: false, scale: 1.0, soft_cap: None }),
            causal: true,
            vision: None,
        }
    }
}

/// A norm as the residual stream's on each query and key head, with one weight for all heads.
pub(super) fn each_head(norm: &NormSpec) -> HeadNormSpec {
    HeadNormSpec {
        reach: HeadNorm::Each,
        kind: norm.kind,
        own_weights: false,
        eps: norm.eps,
        offset: norm.offset,
    }
}

/// A norm as the residual stream's on all query heads together, and on all key heads.
pub(super) fn whole(norm: &NormSpec) -> HeadNormSpec {
    HeadNormSpec { reach: HeadNorm::Whole, ..each_head(norm) }
}

/// Gives every layer a norm of queries and keys, made from the residual stream's.
pub(super) fn set_qk_norm(spec: &mut ModelSpec, made: fn(&NormSpec) -> HeadNormSpec) {
    for layer in &mut spec.layers {
        layer.attention.qk_norm = Some(made(&spec.norm));
    }
}

/// A layer norm of the residual stream.
pub(super) const fn layer_norm(eps: f32, bias: bool) -> NormSpec {
    NormSpec { kind: NormKind::Layer, eps, offset: 0.0, bias }
}
