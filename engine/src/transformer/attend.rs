//! The attention block: from the normed stream to what attention adds to it.
//!
//! Two kinds: heads with keys and values of their own (grouped), here, and latent attention in
//! `latent`.

use kernels::{Attention, Compute, HeadNorm, Norm, Projection};

use super::latent::{Latent, LatentWork};
use super::linear::Linear;
use crate::spec::{AttentionSpec, HeadNormSpec, ModelSpec};

/// Weights of the block.
pub(super) struct Attend<C: Compute> {
    pub(super) kind: Kind<C>,
    pub(super) sinks: Option<C::Vector>,
    pub(super) out: Linear<C>,
}

pub(super) enum Kind<C: Compute> {
    Grouped(Grouped<C>),
    Latent(Latent<C>),
}

/// Queries, keys and values in one projection.
pub(super) struct Grouped<C: Compute> {
    pub(super) qkv: Linear<C>,
    pub(super) q_norm: Option<C::Vector>,
    pub(super) k_norm: Option<C::Vector>,
}

/// Activations of the block.
pub(super) struct AttendWork<C: Compute> {
    pub(super) kind: KindWork<C>,
    /// What the output projection reads.
    pub(super) attended: C::Tensor,
}

pub(super) enum KindWork<C: Compute> {
    Grouped(C::Tensor),
    Latent(LatentWork<C>),
}

/// A layer of a model in this step.
pub(super) struct At<'a, C: Compute> {
    pub(super) how: &'a AttentionSpec,
    pub(super) index: usize,
    /// The layer's table of cosines and sines, and whether pairs are neighbours.
    pub(super) rope: Option<(&'a C::Tensor, bool)>,
    pub(super) attention: Attention<'a, C::Vector>,
}

impl<C: Compute> Attend<C> {
    pub(super) fn bytes(&self, compute: &C) -> usize {
        let kind = match &self.kind {
            Kind::Grouped(grouped) => grouped.qkv.bytes(compute),
            Kind::Latent(latent) => latent.bytes(compute),
        };
        kind + self.out.bytes(compute)
    }

    pub(super) fn linears(&mut self) -> impl Iterator<Item = &mut Linear<C>> {
        let (grouped, latent) = match &mut self.kind {
            Kind::Grouped(grouped) => (Some(&mut grouped.qkv), None),
            Kind::Latent(latent) => (None, Some(latent.linears())),
        };
        grouped.into_iter().chain(latent.into_iter().flatten()).chain([&mut self.out])
    }

    pub(super) fn run(
        &self,
        compute: &mut C,
        cache: &mut C::Cache,
        (spec, index, ropes): (&ModelSpec, usize, &[C::Tensor]),
        input: &C::Tensor,
        work: &mut AttendWork<C>,
        delta: &mut C::Tensor,
    ) {
        let how = &spec.layers[index].attention;
        let attention = Attention {
            heads: how.heads,
            kv_heads: how.cache_heads(),
            head_dim: how.cache_dim(),
            scale: how.scale,
            causal: spec.causal,
            window: how.window,
            soft_cap: how.soft_cap,
            sinks: self.sinks.as_ref(),
        };
        let rope = how.rope.map(|rope| (&ropes[rope], spec.ropes[rope].interleaved));
        let at = At { how, index, rope, attention };
        let AttendWork { kind, attended } = work;
        match (&self.kind, kind) {
            (Kind::Grouped(grouped), KindWork::Grouped(qkv)) => {
                grouped.run(compute, cache, &at, input, qkv, attended);
            }
            (Kind::Latent(latent), KindWork::Latent(work)) => {
                latent.run(compute, cache, &at, input, work, attended);
            }
            _ => unreachable!("activations were claimed for the layers' kind"),
        }
        self.out.apply(compute, attended, delta);
    }
}

impl<C: Compute> Grouped<C> {
    fn run(
        &self,
        compute: &mut C,
        cache: &mut C::Cache,
        at: &At<'_, C>,
        input: &C::Tensor,
        qkv: &mut C::Tensor,
        attended: &mut C::Tensor,
    ) {
        let At { how, index, rope, attention } = at;
        let projection = Projection {
            heads: how.heads,
            kv_heads: how.kv_heads,
            head_dim: how.head_dim,
            q_norm: head_norm(how.qk_norm, self.q_norm.as_ref()),
            k_norm: head_norm(how.qk_norm, self.k_norm.as_ref()),
            rope: rope.map(|(table, _)| table),
            interleaved: rope.is_some_and(|(_, interleaved)| interleaved),
        };
        self.qkv.apply(compute, input, qkv);
        compute.project(qkv, &projection, cache, *index);
        compute.attention(qkv, attention, cache, *index, attended);
    }
}

fn head_norm<V>(spec: Option<HeadNormSpec>, weight: Option<&V>) -> Option<(HeadNorm, Norm<'_, V>)> {
    let (spec, weight) = (spec?, weight?);
    Some((spec.reach, Norm { kind: spec.kind, weight, bias: None, eps: spec.eps }))
}
