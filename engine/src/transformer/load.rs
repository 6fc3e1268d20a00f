//! Weights by role onto the device, and the claim of all activations.
//!
//! Shapes follow from the spec alone, so a file that disagrees with its own configuration is
//! refused here by name, before anything runs. Fused matrices are laid out part after part; the
//! parts may differ in format, as they do in mixed GGUF files.

use kernels::{Compute, MatrixPart};

use super::{Layer, Linear, Transformer, Widths, Work, cache_fits, logits_rows_max};
use crate::plan::Plan;
use crate::spec::{ModelSpec, Role};
use crate::start::{Part, StartError};
use crate::weights::Weights;

/// Loads everything. See [`Transformer::load`].
pub(super) fn transformer<C: Compute>(
    compute: &mut C,
    spec: &ModelSpec,
    weights: &dyn Weights,
    plan: &Plan,
) -> Result<Transformer<C>, StartError> {
    check(spec, plan)?;
    let work = work(compute, spec, plan)?;
    let mut loader = Loader { compute, weights, spec };
    let embedding = loader.matrix(&[(Role::Embedding, spec.vocab)], spec.hidden)?;
    let layers = (0..spec.layers.len()).map(|n| loader.layer(n)).collect::<Result<Vec<_>, _>>()?;
    let final_norm = loader.vector(&[(Role::FinalNorm, spec.hidden)])?;
    let head = if spec.tied_head {
        None
    } else {
        Some(loader.matrix(&[(Role::Head, spec.vocab)], spec.hidden)?)
    };
    Ok(Transformer { spec: spec.clone(), embedding, head, final_norm, layers, work })
}

/// One set of activations and one cache serve all layers, so their shapes must be equal.
fn check(spec: &ModelSpec, plan: &Plan) -> Result<(), StartError> {
    let refuse = |problem: &str| Err(StartError::Unsupported(problem.to_owned()));
    let Some(first) = spec.layers.first() else {
        return refuse("the model has no layers");
    };
    let same = |(index, layer): (usize, &crate::spec::LayerSpec)| {
        let fits = layer.attention.heads == first.attention.heads
            && layer.attention.kv_heads == first.attention.kv_heads
            && layer.attention.head_dim == first.attention.head_dim
            && layer.mlp.width == first.mlp.width;
        (!fits).then_some(index)
    };
    if let Some(index) = spec.layers.iter().enumerate().find_map(same) {
        return refuse(&format!("layer {index} has other widths than layer 0"));
    }
    assert!(cache_fits(spec, &plan.cache), "the plan was made for another model");
    assert!(plan.step_tokens_max > 0 && plan.rows_max > 0, "an empty plan");
    Ok(())
}

/// Claims the activations for steps as long as the plan allows.
fn work<C: Compute>(compute: &mut C, spec: &ModelSpec, plan: &Plan) -> Result<Work<C>, StartError> {
    let widths = Widths::of(spec);
    let logits_rows_max = logits_rows_max(spec.vocab, plan.rows_max);
    let mut claim = |rows: usize, width: usize| {
        compute.tensor(rows, width).map_err(|error| StartError::device(Part::Activations, error))
    };
    let tokens = plan.step_tokens_max;
    Ok(Work {
        residual: claim(tokens, spec.hidden)?,
        delta: claim(tokens, spec.hidden)?,
        normed: claim(tokens, spec.hidden)?,
        qkv: claim(tokens, widths.qkv)?,
        attended: claim(tokens, widths.attended)?,
        gate_up: claim(tokens, 2 * widths.mlp)?,
        gated: claim(tokens, widths.mlp)?,
        ropes: spec
            .ropes
            .iter()
            .map(|rope| claim(tokens, 2 * rope.inv_freq.len()))
            .collect::<Result<Vec<_>, _>>()?,
        selected: claim(logits_rows_max, spec.hidden)?,
        logits: claim(logits_rows_max, spec.vocab)?,
        logits_rows_max,
    })
}

struct Loader<'a, C: Compute> {
    compute: &'a mut C,
    weights: &'a dyn Weights,
    spec: &'a ModelSpec,
}

impl<C: Compute> Loader<'_, C> {
    fn layer(&mut self, n: usize) -> Result<Layer<C>, StartError> {
        let ModelSpec { hidden, layers, .. } = self.spec;
        let (hidden, attention, mlp) = (*hidden, &layers[n].attention, &layers[n].mlp);
        let (q, kv) =
            (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        let head_norm = attention.qk_norm.then_some(attention.head_dim);
        Ok(Layer {
            attention_norm: self.vector(&[(Role::AttentionNorm(n), hidden)])?,
            qkv: self.linear(
                &[(Role::Query(n), q), (Role::Key(n), kv), (Role::Value(n), kv)],
                hidden,
                attention.qkv_bias.then_some(&[
                    (Role::QueryBias(n), q),
                    (Role::KeyBias(n), kv),
                    (Role::ValueBias(n), kv),
                ]),
            )?,
            q_norm: head_norm.map(|len| self.vector(&[(Role::QueryNorm(n), len)])).transpose()?,
            k_norm: head_norm.map(|len| self.vector(&[(Role::KeyNorm(n), len)])).transpose()?,
            out: self.linear(
                &[(Role::AttentionOut(n), hidden)],
                q,
                attention.out_bias.then_some(&[(Role::AttentionOutBias(n), hidden)]),
            )?,
            mlp_norm: self.vector(&[(Role::MlpNorm(n), hidden)])?,
            gate_up: self.linear(
                &[(Role::Gate(n), mlp.width), (Role::Up(n), mlp.width)],
                hidden,
                mlp.bias.then_some(&[(Role::GateBias(n), mlp.width), (Role::UpBias(n), mlp.width)]),
            )?,
            down: self.linear(
                &[(Role::Down(n), hidden)],
                mlp.width,
                mlp.bias.then_some(&[(Role::DownBias(n), hidden)]),
            )?,
        })
    }

    fn linear<const PARTS: usize>(
        &mut self,
        parts: &[(Role, usize); PARTS],
        cols: usize,
        bias: Option<&[(Role, usize); PARTS]>,
    ) -> Result<Linear<C>, StartError> {
        let bias = bias.map(|bias| self.vector(bias)).transpose()?;
        Ok(Linear { matrix: self.matrix(parts, cols)?, bias })
    }

    /// One matrix of these tensors' rows, one tensor after the other.
    fn matrix(&mut self, parts: &[(Role, usize)], cols: usize) -> Result<C::Matrix, StartError> {
        let parts = parts
            .iter()
            .map(|&(role, rows)| Ok(self.weights.tensor(role, rows, cols)?.part()))
            .collect::<Result<Vec<MatrixPart<'_>>, StartError>>()?;
        self.compute.load_matrix(&parts).map_err(|error| StartError::device(Part::Weights, error))
    }

    /// One vector of these tensors, one after the other.
    fn vector(&mut self, parts: &[(Role, usize)]) -> Result<C::Vector, StartError> {
        let mut values = Vec::with_capacity(parts.iter().map(|part| part.1).sum());
        for &(role, len) in parts {
            values.extend(self.weights.vector(role, len)?);
        }
        self.compute.load_vector(&values).map_err(|error| StartError::device(Part::Weights, error))
    }
}
