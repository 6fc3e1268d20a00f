//! Latent attention (DeepSeek's MLA, arXiv 2405.04434) in its absorbed form.
//!
//! The cache holds one compressed key per position for all heads. Queries are taken to the latent
//! by each head's key matrix, instead of keys out of it, and each head's value matrix is applied
//! to the attended latent: what is cached is what is read.

use kernels::{Compute, HeadBlocks, LatentProjection, Norm, NormKind};

use super::attend::At;
use super::linear::Linear;

/// Weights before the output projection.
pub(super) struct Latent<C: Compute> {
    /// To compressed queries, and their norm.
    pub(super) query_down: Option<(Linear<C>, C::Vector)>,
    pub(super) query: Linear<C>,
    pub(super) latent: Linear<C>,
    pub(super) latent_norm: C::Vector,
    /// `[heads * latent, plain]`: each head's key matrix, transposed.
    pub(super) key_up: C::Matrix,
    /// `[heads * value, latent]`.
    pub(super) value_up: C::Matrix,
}

/// Activations up to the attended values.
pub(super) struct LatentWork<C: Compute> {
    /// Compressed queries before and behind their norm.
    pub(super) low: Option<[C::Tensor; 2]>,
    /// `[rows, heads * (plain + rotated)]`.
    pub(super) queries: C::Tensor,
    /// `[rows, latent + rotated]`.
    pub(super) kv: C::Tensor,
    /// Queries against the latent: `[rows, heads * (latent + rotated)]`.
    pub(super) absorbed: C::Tensor,
    /// Attended latents: `[rows, heads * latent]`.
    pub(super) latents: C::Tensor,
}

impl<C: Compute> Latent<C> {
    pub(super) fn bytes(&self, compute: &C) -> usize {
        let down = self.query_down.as_ref().map_or(0, |(linear, _)| linear.bytes(compute));
        down + self.query.bytes(compute)
            + self.latent.bytes(compute)
            + compute.matrix_bytes(&self.key_up)
            + compute.matrix_bytes(&self.value_up)
    }

    pub(super) fn linears(&mut self) -> impl Iterator<Item = &mut Linear<C>> {
        let down = self.query_down.as_mut().map(|(linear, _)| linear);
        down.into_iter().chain([&mut self.query, &mut self.latent])
    }

    pub(super) fn run(
        &self,
        compute: &mut C,
        cache: &mut C::Cache,
        at: &At<'_, C>,
        input: &C::Tensor,
        work: &mut LatentWork<C>,
        attended: &mut C::Tensor,
    ) {
        let (heads, index) = (at.how.heads, at.index);
        let spec = at.how.latent.as_ref().expect("weights follow the spec");
        let (rope, interleaved) = at.rope.expect("checked at load: latent attention rotates");
        let rms = |weight| Norm { kind: NormKind::Rms, weight, bias: None, eps: spec.norm_eps };
        let LatentWork { low, queries, kv, absorbed, latents } = work;
        match (&self.query_down, low) {
            (Some((down, norm)), Some([low, normed])) => {
                down.apply(compute, input, low);
                compute.norm(low, &rms(norm), normed);
                self.query.apply(compute, normed, queries);
            }
            _ => self.query.apply(compute, input, queries),
        }
        self.latent.apply(compute, input, kv);
        let blocks = |x_stride, out_stride| HeadBlocks { heads, x_stride, out_stride };
        let to_latent = blocks(spec.plain + spec.rotated, spec.latent + spec.rotated);
        compute.heads_matmul(queries, &self.key_up, to_latent, absorbed);
        let projection = LatentProjection {
            heads,
            plain: spec.plain,
            latent: spec.latent,
            norm: rms(&self.latent_norm),
            rope,
            interleaved,
        };
        compute.project_latent(queries, kv, &projection, cache, index, absorbed);
        compute.attention(absorbed, &at.attention, cache, index, latents);
        let to_values = blocks(spec.latent, spec.value);
        compute.heads_matmul(latents, &self.value_up, to_values, attended);
    }
}
