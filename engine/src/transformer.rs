//! [`Transformer`]: one forward pass for every [`ModelSpec`], on every [`Compute`].
//!
//! Weights and activations are claimed when it is loaded; a step allocates nothing. Steps are
//! ragged: rows of prompts and single decode rows go through the same products, side by side.
//! It knows neither rows' owners nor why they are computed: that is the runner's business.

use kernels::{Attention, CacheShape, Compute, Projection, Step};

use crate::plan::Plan;
use crate::spec::ModelSpec;
use crate::start::StartError;
use crate::weights::Weights;

mod load;

/// Bytes of logits computed at once. Large enough that a device reads the head a few times per
/// step at most, small enough to be a detail of the memory plan for vocabularies of 2^18.
const LOGITS_BYTES_MAX: usize = 64 << 20;

/// How many rows of logits are computed at once: all rows of a step where the vocabulary is
/// small, a bounded buffer's worth where it is not.
#[must_use]
pub fn logits_rows_max(vocab: usize, rows_max: usize) -> usize {
    (LOGITS_BYTES_MAX / (4 * vocab)).clamp(16, 256).min(rows_max.max(16))
}

/// Bytes of all activations that a transformer claims for steps of `step_tokens_max` tokens.
#[must_use]
pub fn activation_bytes(spec: &ModelSpec, step_tokens_max: usize, rows_max: usize) -> u64 {
    let widths = Widths::of(spec);
    let per_token = 3 * spec.hidden
        + widths.qkv
        + widths.attended
        + 3 * widths.mlp
        + spec.ropes.iter().map(|rope| 2 * rope.inv_freq.len()).sum::<usize>();
    let per_logits_row = spec.hidden + spec.vocab;
    let logits_rows = logits_rows_max(spec.vocab, rows_max);
    4 * (step_tokens_max * per_token + logits_rows * per_logits_row) as u64
}

/// Called with the device, k and the hidden states after layer k (0: the embedding; the last:
/// after the final norm). For tests: see [`Transformer::forward`].
pub type Tap<'a, C> = &'a mut dyn FnMut(&mut C, usize, &<C as Compute>::Tensor);

/// A model on a device.
pub struct Transformer<C: Compute> {
    spec: ModelSpec,
    embedding: C::Matrix,
    /// `None`: the embedding table is the head.
    head: Option<C::Matrix>,
    final_norm: C::Vector,
    layers: Vec<Layer<C>>,
    work: Work<C>,
}

/// A projection: `matrix * x + bias`.
struct Linear<C: Compute> {
    matrix: C::Matrix,
    bias: Option<C::Vector>,
}

/// The weights of one decoder layer. Products that read the same input are one matrix.
struct Layer<C: Compute> {
    attention_norm: C::Vector,
    qkv: Linear<C>,
    q_norm: Option<C::Vector>,
    k_norm: Option<C::Vector>,
    out: Linear<C>,
    mlp_norm: C::Vector,
    gate_up: Linear<C>,
    down: Linear<C>,
}

/// Activations of one step, reused by every layer and every step.
struct Work<C: Compute> {
    residual: C::Tensor,
    /// What a block adds to the residual stream. Added together with the next norm.
    delta: C::Tensor,
    normed: C::Tensor,
    qkv: C::Tensor,
    attended: C::Tensor,
    gate_up: C::Tensor,
    gated: C::Tensor,
    /// One table of cosines and sines per rope of the spec.
    ropes: Vec<C::Tensor>,
    selected: C::Tensor,
    logits: C::Tensor,
    logits_rows_max: usize,
}

/// Widths of the activations that all layers share.
struct Widths {
    qkv: usize,
    attended: usize,
    mlp: usize,
}

impl Widths {
    fn of(spec: &ModelSpec) -> Self {
        let layer = &spec.layers[0];
        let attention = &layer.attention;
        Self {
            qkv: (attention.heads + 2 * attention.kv_heads) * attention.head_dim,
            attended: attention.heads * attention.head_dim,
            mlp: layer.mlp.width,
        }
    }
}

impl<C: Compute> Transformer<C> {
    /// Puts a model's weights on the device and claims its activations.
    ///
    /// # Errors
    /// A tensor is missing or malformed, the device cannot hold it, or the layers differ in shape
    /// in a way that one set of activations and one KV cache cannot serve.
    pub fn load(
        compute: &mut C,
        spec: &ModelSpec,
        weights: &dyn Weights,
        plan: &Plan,
    ) -> Result<Self, StartError> {
        load::transformer(compute, spec, weights, plan)
    }

    /// What it computes.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Most rows that one call of [`Transformer::logits`] takes.
    #[must_use]
    pub fn logits_rows_max(&self) -> usize {
        self.work.logits_rows_max
    }

    /// Bytes of the weights in the device's layout.
    #[must_use]
    pub fn weight_bytes(&self, compute: &C) -> usize {
        let of_layer = |layer: &Layer<C>| {
            [&layer.qkv, &layer.out, &layer.gate_up, &layer.down]
                .map(|linear| compute.matrix_bytes(&linear.matrix))
                .into_iter()
                .sum::<usize>()
        };
        compute.matrix_bytes(&self.embedding)
            + self.head.as_ref().map_or(0, |head| compute.matrix_bytes(head))
            + self.layers.iter().map(of_layer).sum::<usize>()
    }

    /// Runs all layers over the step's tokens, from `begin` on: afterwards
    /// [`Transformer::logits`] can be asked for any of its rows. The caller ends the step.
    ///
    /// A block's output is added to the residual stream by the norm that follows it, so hidden
    /// states are complete, and shown to the tap, one norm later than they are made.
    pub fn forward(
        &mut self,
        compute: &mut C,
        cache: &mut C::Cache,
        step: Step<'_>,
        mut tap: Option<Tap<'_, C>>,
    ) {
        compute.begin(step, cache);
        let Self { spec, work, .. } = self;
        let eps = spec.norm_eps;
        compute.embed(&self.embedding, spec.embedding_scale, &mut work.residual);
        for (rope, table) in spec.ropes.iter().zip(&mut work.ropes) {
            compute.rope_table(rope, table);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let norm = &layer.attention_norm;
            let Work { residual, delta, normed, .. } = work;
            if index == 0 {
                compute.rms_norm(residual, norm, eps, normed);
            } else {
                compute.add_rms_norm(residual, delta, norm, eps, normed);
            }
            if let Some(tap) = &mut tap {
                tap(compute, index, residual);
            }
            layer.attend(compute, cache, spec, index, work);
            layer.mix(compute, eps, work);
        }
        // All rows, although only some are selected: the pass is small beside one product, and
        // it adds the last block's output, which selected rows need too.
        let Work { residual, delta, normed, .. } = work;
        compute.add_rms_norm(residual, delta, &self.final_norm, eps, normed);
        if let Some(tap) = &mut tap {
            tap(compute, self.layers.len(), normed);
        }
    }

    /// Logits of these rows of the step, at most [`Transformer::logits_rows_max`] of them: row i
    /// of the result belongs to `rows[i]`. Valid until the next call.
    ///
    /// # Panics
    /// More rows than the buffer holds.
    pub fn logits(&mut self, compute: &mut C, rows: &[u32]) -> &mut C::Tensor {
        let work = &mut self.work;
        assert!(rows.len() <= work.logits_rows_max, "{} rows of logits at once", rows.len());
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        compute.select(&work.normed, rows, &mut work.selected);
        compute.logits(&work.selected, rows.len(), head, &mut work.logits);
        &mut work.logits
    }
}

impl<C: Compute> Layer<C> {
    /// The attention block: from `normed` to `delta`.
    fn attend(
        &self,
        compute: &mut C,
        cache: &mut C::Cache,
        spec: &ModelSpec,
        index: usize,
        work: &mut Work<C>,
    ) {
        let how = &spec.layers[index].attention;
        let projection = Projection {
            heads: how.heads,
            kv_heads: how.kv_heads,
            head_dim: how.head_dim,
            q_norm: self.q_norm.as_ref(),
            k_norm: self.k_norm.as_ref(),
            norm_eps: spec.norm_eps,
            rope: how.rope.map(|rope| &work.ropes[rope]),
            interleaved: how.rope.is_some_and(|rope| spec.ropes[rope].interleaved),
        };
        let attention = Attention {
            heads: how.heads,
            kv_heads: how.kv_heads,
            head_dim: how.head_dim,
            scale: how.scale,
            window: how.window,
            soft_cap: None,
        };
        self.qkv.apply(compute, &work.normed, &mut work.qkv);
        compute.project(&mut work.qkv, &projection, cache, index);
        compute.attention(&work.qkv, &attention, cache, index, &mut work.attended);
        self.out.apply(compute, &work.attended, &mut work.delta);
    }

    /// The MLP block: adds the attention block's `delta` to the stream, makes its own.
    fn mix(&self, compute: &mut C, eps: f32, work: &mut Work<C>) {
        let Work { residual, delta, normed, gate_up, gated, .. } = work;
        compute.add_rms_norm(residual, delta, &self.mlp_norm, eps, normed);
        self.gate_up.apply(compute, normed, gate_up);
        compute.silu_mul(gate_up, gated);
        self.down.apply(compute, gated, delta);
    }
}

impl<C: Compute> Linear<C> {
    fn apply(&self, compute: &mut C, x: &C::Tensor, out: &mut C::Tensor) {
        compute.matmul(x, &self.matrix, self.bias.as_ref(), out);
    }
}

/// Whether a model's layers fit one KV cache of this shape.
pub(crate) fn cache_fits(spec: &ModelSpec, cache: &CacheShape) -> bool {
    cache.layers == spec.layers.len()
        && spec.layers.iter().all(|layer| {
            layer.attention.kv_heads == cache.kv_heads && layer.attention.head_dim == cache.head_dim
        })
}
