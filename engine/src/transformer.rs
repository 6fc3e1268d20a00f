//! [`Transformer`]: one forward pass for every [`ModelSpec`], on every [`Compute`].
//!
//! Weights and activations are claimed when it is loaded; a step allocates nothing. Steps are
//! ragged: rows of prompts and single decode rows go through the same products, side by side.
//! It knows neither rows' owners nor why they are computed: that is the runner's business.

use kernels::{Compute, Head, Norm, Step};

use crate::adapter::{Adapter, AdapterError};
use crate::plan::Plan;
use crate::spec::{ModelSpec, NormSpec, Order};
use crate::start::StartError;
use crate::weights::Weights;

mod attend;
mod latent;
mod linear;
mod load;
mod mix;
mod shape;

use attend::{Attend, AttendWork};
use linear::Linear;
use mix::{Mix, MixWork};
pub use shape::Elements;
use shape::Shapes;

/// Bytes of logits computed at once. Large enough that a device reads the head a few times per
/// step at most, small enough to be a detail of the memory plan for vocabularies of 2^18.
const LOGITS_BYTES_MAX: usize = 64 << 20;

/// How many rows of logits are computed at once: all rows of a step where the vocabulary is
/// small, a bounded buffer's worth where it is not.
#[must_use]
pub fn logits_rows_max(vocab: usize, rows_max: usize) -> usize {
    (LOGITS_BYTES_MAX / (4 * vocab)).clamp(16, 256).min(rows_max.max(16))
}

/// All activations that a transformer claims for steps of `step_tokens_max` tokens.
#[must_use]
pub fn activations(spec: &ModelSpec, step_tokens_max: usize, rows_max: usize) -> Elements {
    let mut elements = Shapes::of(spec).elements(step_tokens_max);
    if spec.head.is_some() {
        let rows = logits_rows_max(spec.vocab, rows_max);
        elements.rounded += rows * spec.hidden;
        elements.exact += rows * spec.vocab;
    }
    elements
}

/// The widest input of a product, and what attention writes in all its heads.
#[must_use]
pub fn widths(spec: &ModelSpec) -> (usize, usize) {
    let shapes = Shapes::of(spec);
    (shapes.width_max(), shapes.attended())
}

/// Bytes of all activations where every element is an f32.
#[must_use]
pub fn activation_bytes(spec: &ModelSpec, step_tokens_max: usize, rows_max: usize) -> u64 {
    let Elements { exact, rounded } = activations(spec, step_tokens_max, rows_max);
    4 * (exact + rounded) as u64
}

/// Called with the device, k and the hidden states after layer k (0: the embedding; the last:
/// after the final norm). For tests: see [`Transformer::forward`].
pub type Tap<'a, C> = &'a mut dyn FnMut(&mut C, usize, &<C as Compute>::Tensor);

/// A model on a device.
pub struct Transformer<C: Compute> {
    spec: ModelSpec,
    embedding: Embedding<C>,
    /// `None`: the embedding table is the head, or there is none.
    head: Option<C::Matrix>,
    head_bias: Option<C::Vector>,
    final_norm: Option<NormWeights<C>>,
    layers: Vec<Layer<C>>,
    work: Work<C>,
}

/// From ids to the residual stream.
struct Embedding<C: Compute> {
    tokens: C::Matrix,
    positions: Option<C::Matrix>,
    types: Option<C::Matrix>,
    norm: Option<NormWeights<C>>,
}

/// The weights of one norm.
struct NormWeights<C: Compute> {
    weight: C::Vector,
    bias: Option<C::Vector>,
}

impl<C: Compute> NormWeights<C> {
    fn how(&self, spec: NormSpec) -> Norm<'_, C::Vector> {
        Norm { kind: spec.kind, weight: &self.weight, bias: self.bias.as_ref(), eps: spec.eps }
    }
}

/// The weights of one layer. Which norms it has follows from its order.
struct Layer<C: Compute> {
    attention_norm: Option<NormWeights<C>>,
    attention_post: Option<NormWeights<C>>,
    mlp_norm: Option<NormWeights<C>>,
    mlp_post: Option<NormWeights<C>>,
    attend: Attend<C>,
    mix: Mix<C>,
}

/// Activations of one step, reused by every layer and every step.
struct Work<C: Compute> {
    stream: Stream<C>,
    attend: AttendWork<C>,
    mix: MixWork<C>,
    /// One table of cosines and sines per rope of the spec.
    ropes: Vec<C::Tensor>,
    /// Rows of the position and type tables, of each row of the step.
    positions: Vec<u32>,
    types: Vec<u32>,
    /// Selected rows and their logits; `None` without a head.
    logits: Option<(C::Tensor, C::Tensor)>,
    logits_rows_max: usize,
}

/// The residual stream and what is added to it.
struct Stream<C: Compute> {
    residual: C::Tensor,
    /// What a block adds to the residual stream. Added together with the next norm.
    delta: C::Tensor,
    normed: C::Tensor,
    /// A block's output behind its norm; `None` where no layer has one.
    behind: Option<C::Tensor>,
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
        let of = |matrix: &Option<C::Matrix>| {
            matrix.as_ref().map_or(0, |matrix| compute.matrix_bytes(matrix))
        };
        let Embedding { tokens, positions, types, .. } = &self.embedding;
        let layers = self.layers.iter();
        compute.matrix_bytes(tokens)
            + of(positions)
            + of(types)
            + of(&self.head)
            + layers.map(|l| l.attend.bytes(compute) + l.mix.bytes(compute)).sum::<usize>()
    }

    /// Puts a low-rank adapter beside the weights under `number`, from 1; rows of segments with
    /// that number are computed with it from the next step on. Nothing may run under the number.
    ///
    /// # Errors
    /// It changes parts that the model does not have, or the device cannot hold it; nothing of it
    /// stays then.
    pub fn set_adapter(
        &mut self,
        compute: &mut C,
        number: u32,
        adapter: &Adapter,
    ) -> Result<(), AdapterError> {
        let mut result = Ok(());
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for linear in layer.linears() {
                result = result.and_then(|()| linear.patch(compute, number, adapter, index));
            }
        }
        if result.is_err() {
            self.drop_adapter(number);
        }
        result
    }

    /// Lets an adapter go. Nothing may run under the number.
    pub fn drop_adapter(&mut self, number: u32) {
        for layer in &mut self.layers {
            layer.linears().for_each(|linear| linear.unpatch(number));
        }
    }

    /// Runs all layers over the step's tokens, from `begin` on: afterwards
    /// [`Transformer::logits`] can be asked for any of its rows. The caller ends the step.
    /// `types` is the token type of each row, for models that have a table of them.
    ///
    /// A block's output is added to the residual stream by the norm that follows it, so hidden
    /// states are complete, and shown to the tap, one norm later than they are made.
    pub fn forward(
        &mut self,
        compute: &mut C,
        cache: &mut C::Cache,
        step: Step<'_>,
        types: &[u32],
        mut tap: Option<Tap<'_, C>>,
    ) {
        compute.begin(step, cache);
        self.embed(compute, step, types);
        let Self { spec, work, .. } = self;
        for (rope, table) in spec.ropes.iter().zip(&mut work.ropes) {
            compute.rope_table(rope, table);
        }
        // What the layer before has left to be added, and its scale.
        let mut pending = None;
        for (index, layer) in self.layers.iter().enumerate() {
            layer.enter(compute, spec, index, &mut work.stream, pending.take());
            if let Some(tap) = &mut tap {
                tap(compute, index, &work.stream.residual);
            }
            pending = layer.run(compute, cache, spec, index, work);
        }
        let Stream { residual, delta, normed, .. } = &mut work.stream;
        match (&self.final_norm, pending) {
            (Some(norm), Some(scale)) => {
                compute.add_norm(residual, delta, scale, &norm.how(spec.norm), normed);
            }
            (Some(norm), None) => compute.norm(residual, &norm.how(spec.norm), normed),
            (None, pending) => {
                if let Some(scale) = pending {
                    compute.add(residual, delta, scale);
                }
                std::mem::swap(residual, normed);
            }
        }
        if let Some(tap) = &mut tap {
            tap(compute, self.layers.len(), &work.stream.normed);
        }
    }

    /// The residual stream of the step's tokens.
    fn embed(&mut self, compute: &mut C, step: Step<'_>, types: &[u32]) {
        let Self { spec, work, embedding, .. } = self;
        let Work { stream, positions, .. } = work;
        compute.embed(&embedding.tokens, spec.embedding.scale, &mut stream.residual);
        if let (Some(table), Some(how)) = (&embedding.positions, spec.embedding.positions) {
            positions.clear();
            for segment in step.segments {
                let first = segment.first + how.offset as u32;
                positions.extend(first..first + segment.len);
            }
            compute.embed_add(table, positions, &mut stream.residual);
        }
        if let Some(table) = &embedding.types {
            let known = types.iter().copied().chain(std::iter::repeat(0));
            work.types.clear();
            work.types.extend(known.take(step.tokens.len()));
            compute.embed_add(table, &work.types, &mut stream.residual);
        }
        if let Some(norm) = &embedding.norm {
            compute.norm(&stream.residual, &norm.how(spec.norm), &mut stream.normed);
            std::mem::swap(&mut stream.residual, &mut stream.normed);
        }
    }

    /// What the last [`Transformer::forward`] left: the hidden states behind the final norm.
    #[must_use]
    pub fn hidden(&self) -> &C::Tensor {
        &self.work.stream.normed
    }

    /// Logits of these rows of the step, at most [`Transformer::logits_rows_max`] of them: row i
    /// of the result belongs to `rows[i]`. Valid until the next call.
    ///
    /// # Panics
    /// More rows than the buffer holds, or a model without a head.
    pub fn logits(&mut self, compute: &mut C, rows: &[u32]) -> &mut C::Tensor {
        let work = &mut self.work;
        assert!(rows.len() <= work.logits_rows_max, "{} rows of logits at once", rows.len());
        let spec = self.spec.head.as_ref().expect("a model with a head");
        let (selected, logits) = work.logits.as_mut().expect("claimed with the head");
        let matrix = self.head.as_ref().unwrap_or(&self.embedding.tokens);
        let how =
            Head { bias: self.head_bias.as_ref(), scale: spec.scale, soft_cap: spec.soft_cap };
        compute.select(&work.stream.normed, rows, selected);
        compute.logits(selected, rows.len(), matrix, &how, logits);
        logits
    }
}

impl<C: Compute> Layer<C> {
    fn linears(&mut self) -> impl Iterator<Item = &mut Linear<C>> {
        self.attend.linears().chain(self.mix.linears())
    }

    /// Adds what the layer before left, and makes `normed` for attention where a norm stands
    /// before it.
    fn enter(
        &self,
        compute: &mut C,
        spec: &ModelSpec,
        index: usize,
        stream: &mut Stream<C>,
        pending: Option<f32>,
    ) {
        let Stream { residual, delta, normed, .. } = stream;
        let norm = self.attention_norm.as_ref().map(|norm| norm.how(spec.norm));
        debug_assert!(index > 0 || pending.is_none(), "nothing stands before the first layer");
        match (norm, pending) {
            (Some(norm), Some(scale)) => compute.add_norm(residual, delta, scale, &norm, normed),
            (Some(norm), None) => compute.norm(residual, &norm, normed),
            (None, Some(scale)) => compute.add(residual, delta, scale),
            (None, None) => {}
        }
    }

    /// Both blocks. `Some(scale)`: `delta` is left to be added.
    fn run(
        &self,
        compute: &mut C,
        cache: &mut C::Cache,
        spec: &ModelSpec,
        index: usize,
        work: &mut Work<C>,
    ) -> Option<f32> {
        let layer = &spec.layers[index];
        let (order, scale) = (layer.order, layer.residual_scale);
        let Work { stream, attend, mix, ropes, .. } = work;
        let Stream { residual, delta, normed, behind } = stream;
        let norm = |norm| required(norm, spec);

        let input = if self.attention_norm.is_some() { &*normed } else { &*residual };
        self.attend.run(compute, cache, (spec, index, ropes), input, attend, delta);
        if let (Order::Sandwich | Order::After, Some(behind)) = (order, &mut *behind) {
            compute.norm(delta, &norm(&self.attention_post), behind);
            std::mem::swap(delta, behind);
        }
        match order {
            Order::Pre | Order::Sandwich => {
                let norm = norm(&self.mlp_norm);
                compute.add_norm(residual, delta, scale, &norm, normed);
            }
            Order::After | Order::Parallel => compute.add(residual, delta, scale),
            Order::Post => {
                let norm = norm(&self.attention_post);
                compute.add_norm(residual, delta, scale, &norm, normed);
                std::mem::swap(residual, normed);
            }
        }

        let input = if matches!(order, Order::After | Order::Post) { &*residual } else { &*normed };
        self.mix.run(compute, spec, index, input, mix, delta);
        match (order, behind) {
            (Order::Sandwich | Order::After, Some(behind)) => {
                compute.norm(delta, &norm(&self.mlp_post), behind);
                std::mem::swap(delta, behind);
            }
            (Order::Post, _) => {
                let norm = norm(&self.mlp_post);
                compute.add_norm(residual, delta, scale, &norm, normed);
                std::mem::swap(residual, normed);
                return None;
            }
            _ => {}
        }
        Some(scale)
    }
}

/// A norm that the layer's order has.
fn required<'a, C: Compute>(
    norm: &'a Option<NormWeights<C>>,
    spec: &ModelSpec,
) -> Norm<'a, C::Vector> {
    norm.as_ref().expect("loaded by the same order").how(spec.norm)
}
