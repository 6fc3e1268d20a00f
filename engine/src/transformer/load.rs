//! Weights by role onto the device, and the claim of all activations.
//!
//! Shapes follow from the spec alone, so a file that disagrees with its own configuration is
//! refused here by name, before anything runs. Fused matrices are laid out part after part; the
//! parts may differ in format, as they do in mixed GGUF files.

use kernels::{Compute, Format, Kept, MatrixPart, Precision};

use super::attend::{Attend, AttendWork, Grouped, Kind, KindWork};
use super::latent::{Latent, LatentWork};
use super::linear::{Linear, Patch};
use super::mix::{Experts, Mix, MixWork, Mlp, RoutesWork};
use super::shape::{AttentionShape, MlpShape, RoutesShape, Shapes, place};
use super::{Embedding, Layer, NormWeights, Stream, Transformer, Work, logits_rows_max};
use crate::plan::{self, Plan};
use crate::spec::{
    AttentionSpec, DenseSpec, ExpertPart as E, ExpertsSpec, LatentSpec, LayerPart as P, LayerSpec,
    MlpSpec, ModelSpec, Order, Role,
};
use crate::start::{Part, StartError};
use crate::weights::{TensorView, Weights};

mod latent_keys;
mod numbers;

/// Loads everything. See [`Transformer::load`].
pub(super) fn transformer<C: Compute>(
    compute: &mut C,
    spec: &ModelSpec,
    weights: &dyn Weights,
    plan: &Plan,
) -> Result<Transformer<C>, StartError> {
    check(spec, plan)?;
    let shapes = Shapes::of(spec);
    let work = work(compute, spec, &shapes, plan)?;
    let precision = plan.precision;
    let mut loader = Loader { compute, weights, spec, shapes: &shapes, precision };
    let embedding = loader.embedding()?;
    let layers = (0..spec.layers.len()).map(|n| loader.layer(n)).collect::<Result<Vec<_>, _>>()?;
    let final_norm = loader.norm(spec.final_norm, Role::FinalNorm, Role::FinalNormBias)?;
    let head = match spec.head {
        Some(head) if !head.tied => Some(loader.matrix(&[(Role::Head, spec.vocab)], spec.hidden)?),
        _ => None,
    };
    let head_bias = spec.head.filter(|head| head.bias);
    let head_bias =
        head_bias.map(|_| loader.vector(&[(Role::HeadBias, spec.vocab)], 0.0)).transpose()?;
    Ok(Transformer { spec: spec.clone(), embedding, head, head_bias, final_norm, layers, work })
}

/// One set of activations and one cache serve all layers, so their shapes must be equal.
fn check(spec: &ModelSpec, plan: &Plan) -> Result<(), StartError> {
    let refuse = |problem: String| Err(StartError::Unsupported(problem));
    let Some(first) = spec.layers.first() else {
        return refuse("the model has no layers".to_owned());
    };
    let first = AttentionShape::of(&first.attention);
    for (index, LayerSpec { attention, .. }) in spec.layers.iter().enumerate() {
        if AttentionShape::of(attention) != first {
            return refuse(format!("layer {index} has other attention widths than layer 0"));
        }
        if attention.latent.is_some() && attention.rope.is_none() {
            return refuse(format!("layer {index}: latent attention without rotation"));
        }
    }
    let wanted = plan::cache_shape(spec);
    let planned = &plan.cache;
    let fits = planned.layers == wanted.layers
        && planned.kv_heads == wanted.kv_heads
        && planned.head_dim == wanted.head_dim
        && planned.values == wanted.values;
    assert!(fits, "the plan was made for another model");
    assert!(plan.step_tokens_max > 0 && plan.rows_max > 0, "an empty plan");
    Ok(())
}

/// Claims the activations for steps as long as the plan allows.
fn work<C: Compute>(
    compute: &mut C,
    spec: &ModelSpec,
    shapes: &Shapes,
    plan: &Plan,
) -> Result<Work<C>, StartError> {
    let tokens = plan.step_tokens_max;
    let failed = |error| StartError::device(Part::Activations, error);
    let mut routes = Vec::new();
    let (exact, rounded) = (Kept::Exact, Kept::Rounded);
    for &RoutesShape { experts, top_k } in &shapes.routes {
        let claimed = compute.routes(tokens, top_k, experts).map_err(failed)?;
        let scores = compute.tensor(tokens, experts, exact).map_err(failed)?;
        let given = compute.tensor(tokens * top_k, spec.hidden, rounded).map_err(failed)?;
        routes.push(RoutesWork { scores, routes: claimed, given });
    }
    let mut claim =
        |rows: usize, width: usize, kept: Kept| compute.tensor(rows, width, kept).map_err(failed);
    let attend = attend_work(shapes.attention, &mut |width| claim(tokens, width, rounded))?;
    let mut mlps = Vec::new();
    for shape in &shapes.mlps {
        let [wide, narrow] = shape.claims(tokens);
        let wide = claim(wide.rows, wide.width, rounded)?;
        mlps.push([wide, claim(narrow.rows, narrow.width, rounded)?]);
    }
    let hidden = spec.hidden;
    let shared = match shapes.shared {
        true => Some([claim(tokens, hidden, rounded)?, claim(tokens, 1, rounded)?]),
        false => None,
    };
    let logits_rows_max = logits_rows_max(spec.vocab, plan.rows_max);
    let logits = match spec.head {
        Some(_) => {
            let selected = claim(logits_rows_max, hidden, rounded)?;
            Some((selected, claim(logits_rows_max, spec.vocab, exact)?))
        }
        None => None,
    };
    let normed = if residual_is_swapped(spec) { exact } else { rounded };
    Ok(Work {
        stream: Stream {
            residual: claim(tokens, hidden, exact)?,
            delta: claim(tokens, hidden, rounded)?,
            normed: claim(tokens, hidden, normed)?,
            behind: shapes.behind.then(|| claim(tokens, hidden, rounded)).transpose()?,
        },
        attend,
        ropes: shapes
            .ropes
            .iter()
            .map(|&width| claim(tokens, width, exact))
            .collect::<Result<_, _>>()?,
        mix: MixWork { mlps, routes, shared },
        positions: Vec::with_capacity(tokens),
        types: Vec::with_capacity(tokens),
        logits,
        logits_rows_max,
    })
}

/// Claims what the attention block works on; `claim` gives a tensor of a step's rows.
fn attend_work<C: Compute>(
    shape: AttentionShape,
    claim: &mut dyn FnMut(usize) -> Result<C::Tensor, StartError>,
) -> Result<AttendWork<C>, StartError> {
    let (kind, attended) = match shape {
        AttentionShape::Grouped { qkv, attended } => (KindWork::Grouped(claim(qkv)?), attended),
        AttentionShape::Latent { low, queries, kv, absorbed, latents, attended } => {
            let low = match low {
                0 => None,
                low => Some([claim(low)?, claim(low)?]),
            };
            let work = LatentWork {
                low,
                queries: claim(queries)?,
                kv: claim(kv)?,
                absorbed: claim(absorbed)?,
                latents: claim(latents)?,
            };
            (KindWork::Latent(work), attended)
        }
    };
    Ok(AttendWork { kind, attended: claim(attended)? })
}

/// Whether the residual stream and the normed one change places, so that both hold sums.
fn residual_is_swapped(spec: &ModelSpec) -> bool {
    let post = spec.layers.iter().any(|layer| layer.order == Order::Post);
    post || spec.embedding.norm || !spec.final_norm
}

struct Loader<'a, C: Compute> {
    compute: &'a mut C,
    weights: &'a dyn Weights,
    spec: &'a ModelSpec,
    shapes: &'a Shapes,
    precision: Precision,
}

/// Roles that share an input, with their rows.
type Parts<'a> = &'a [(P, usize)];

impl<C: Compute> Loader<'_, C> {
    fn embedding(&mut self) -> Result<Embedding<C>, StartError> {
        let (how, hidden) = (&self.spec.embedding, self.spec.hidden);
        let tokens = self.matrix(&[(Role::Embedding, self.spec.vocab)], hidden)?;
        let positions = how
            .positions
            .map(|positions| self.matrix(&[(Role::PositionEmbedding, positions.rows)], hidden));
        let positions = positions.transpose()?;
        let types = how.types.map(|rows| self.matrix(&[(Role::TypeEmbedding, rows)], hidden));
        let types = types.transpose()?;
        let norm = self.norm(how.norm, Role::EmbeddingNorm, Role::EmbeddingNormBias)?;
        Ok(Embedding { tokens, positions, types, norm })
    }

    fn layer(&mut self, n: usize) -> Result<Layer<C>, StartError> {
        let layer = &self.spec.layers[n];
        let (order, behind) = (layer.order, layer.order.behind());
        let mut norm =
            |stands, weight, bias| self.norm(stands, Role::Layer(n, weight), Role::Layer(n, bias));
        let first = order.before() && layer.attention_norm;
        Ok(Layer {
            attention_norm: norm(first, P::AttentionNorm, P::AttentionNormBias)?,
            attention_post: norm(behind, P::AttentionPostNorm, P::AttentionPostNormBias)?,
            mlp_norm: norm(order.before_mlp(), P::MlpNorm, P::MlpNormBias)?,
            mlp_post: norm(behind, P::MlpPostNorm, P::MlpPostNormBias)?,
            attend: self.attend(n, &layer.attention)?,
            mix: match &layer.mlp {
                MlpSpec::Dense(dense) => Mix::Dense(self.dense(n, dense)?),
                MlpSpec::Experts(experts) => Mix::Experts(Box::new(self.experts(n, experts)?)),
            },
        })
    }

    fn attend(&mut self, n: usize, how: &AttentionSpec) -> Result<Attend<C>, StartError> {
        let kind = match &how.latent {
            Some(latent) => Kind::Latent(self.latent(n, how, latent)?),
            None => Kind::Grouped(self.grouped(n, how)?),
        };
        let sinks = how.sinks.then(|| self.vector(&[(Role::Layer(n, P::Sinks), how.heads)], 0.0));
        let bias = how.out_bias.then_some(&[P::AttentionOutBias][..]);
        let out = (&[(P::AttentionOut, self.spec.hidden)][..], how.out_width());
        Ok(Attend { kind, sinks: sinks.transpose()?, out: self.linear(n, out, bias)? })
    }

    fn grouped(&mut self, n: usize, how: &AttentionSpec) -> Result<Grouped<C>, StartError> {
        let (q, kv) = (how.heads * how.head_dim, how.kv_heads * how.head_dim);
        let bias = how.qkv_bias.then_some(&[P::QueryBias, P::KeyBias, P::ValueBias][..]);
        let parts = [(P::Query, q), (P::Key, kv), (P::Value, kv)];
        let qkv = self.linear(n, (&parts, self.spec.hidden), bias)?;
        let mut norm = |part, all: usize| {
            let Some(norm) = how.qk_norm else { return Ok(None) };
            let own = norm.own_weights || norm.reach == kernels::HeadNorm::Whole;
            let len = if own { all } else { how.head_dim };
            self.vector(&[(Role::Layer(n, part), len)], norm.offset).map(Some)
        };
        Ok(Grouped { qkv, q_norm: norm(P::QueryNorm, q)?, k_norm: norm(P::KeyNorm, kv)? })
    }

    fn latent(
        &mut self,
        n: usize,
        how: &AttentionSpec,
        latent: &LatentSpec,
    ) -> Result<Latent<C>, StartError> {
        let hidden = self.spec.hidden;
        let queries = how.heads * (latent.plain + latent.rotated);
        let query_down = match latent.query_rank {
            Some(rank) => {
                let down = self.linear(n, (&[(P::QueryDown, rank)], hidden), None)?;
                Some((down, self.vector(&[(Role::Layer(n, P::QueryDownNorm), rank)], 0.0)?))
            }
            None => None,
        };
        let from = latent.query_rank.unwrap_or(hidden);
        let kv = latent.latent + latent.rotated;
        let values = (Role::Layer(n, P::ValueUp), how.heads * latent.value);
        Ok(Latent {
            query_down,
            query: self.linear(n, (&[(P::Query, queries)], from), None)?,
            latent: self.linear(n, (&[(P::Latent, kv)], hidden), None)?,
            latent_norm: self.vector(&[(Role::Layer(n, P::LatentNorm), latent.latent)], 0.0)?,
            key_up: self.key_up(n, how.heads, latent)?,
            value_up: self.matrix(&[values], latent.latent)?,
        })
    }

    fn dense(&mut self, n: usize, how: &DenseSpec) -> Result<Mlp<C>, StartError> {
        let gated = [(P::Gate, how.width), (P::Up, how.width)];
        let from = usize::from(!how.gated);
        let biases = &[P::GateBias, P::UpBias][from..];
        let first = (&gated[from..], self.spec.hidden);
        let down = (&[(P::Down, self.spec.hidden)][..], how.width);
        Ok(Mlp {
            first: self.linear(n, first, how.bias.then_some(biases))?,
            down: self.linear(n, down, how.bias.then_some(&[P::DownBias]))?,
            work: place(&self.shapes.mlps, &MlpShape::dense(how)),
        })
    }

    fn experts(&mut self, n: usize, how: &ExpertsSpec) -> Result<Experts<C>, StartError> {
        let (hidden, width) = (self.spec.hidden, how.width);
        let vector = |this: &mut Self, stands: bool, part| {
            let role = [(Role::Layer(n, part), how.count)];
            stands.then(|| this.vector(&role, 0.0)).transpose()
        };
        let shape = RoutesShape { experts: how.count, top_k: how.top_k };
        Ok(Experts {
            router: self.router(n, how)?,
            correction: vector(self, how.router.correction, P::RouterCorrection)?,
            gate_up: self.stack(n, how, &[(E::Gate, width), (E::Up, width)], hidden)?,
            gate_up_bias: self.stacked(n, how, &[(E::GateBias, width), (E::UpBias, width)])?,
            down: self.stack(n, how, &[(E::Down, hidden)], width)?,
            down_bias: self.stacked(n, how, &[(E::DownBias, hidden)])?,
            shared: self.shared(n, how)?,
            switch: match how.shared {
                Some(shared) if shared.switch => {
                    Some(self.linear(n, (&[(P::SharedSwitch, 1)], hidden), None)?)
                }
                _ => None,
            },
            work: place(&self.shapes.mlps, &MlpShape::experts(how)),
            routes: place(&self.shapes.routes, &shape),
        })
    }

    /// The router computes in float32 whatever its file holds: it is small, and a rounded score
    /// sends a row to another expert.
    fn router(&mut self, n: usize, how: &ExpertsSpec) -> Result<Linear<C>, StartError> {
        let (rows, cols) = (how.count, self.spec.hidden);
        let view = self.weights.tensor(Role::Layer(n, P::Router), rows, cols)?;
        let format = Format::F32;
        let bytes = numbers::narrow(&numbers::widen(&view)?, format);
        let part = MatrixPart { format, rows, cols, bytes: &bytes, order: None };
        let bias =
            how.router.bias.then(|| self.vector(&[(Role::Layer(n, P::RouterBias), rows)], 0.0));
        let bias = bias.transpose()?;
        let matrix = self.load(&[part])?;
        let patches = vec![Patch { part: P::Router, first: 0, rows, cols, pairs: Vec::new() }];
        Ok(Linear { matrix, bias, patches })
    }

    fn shared(&mut self, n: usize, how: &ExpertsSpec) -> Result<Option<Mlp<C>>, StartError> {
        let Some(shared) = how.shared else { return Ok(None) };
        let (hidden, width) = (self.spec.hidden, shared.width);
        let first = [(P::SharedGate, width), (P::SharedUp, width)];
        Ok(Some(Mlp {
            first: self.linear(n, (&first, hidden), None)?,
            down: self.linear(n, (&[(P::SharedDown, hidden)], width), None)?,
            work: place(&self.shapes.mlps, &MlpShape::shared(width)),
        }))
    }

    /// One matrix for each expert.
    fn stack(
        &mut self,
        n: usize,
        how: &ExpertsSpec,
        parts: &[(E, usize)],
        cols: usize,
    ) -> Result<C::Experts, StartError> {
        let mut matrices = Vec::with_capacity(how.count);
        for expert in 0..how.count {
            let roles: Vec<_> =
                parts.iter().map(|&(part, rows)| (Role::Expert(n, expert, part), rows)).collect();
            matrices.push(self.matrix(&roles, cols)?);
        }
        let loaded = self.compute.load_experts(matrices);
        loaded.map_err(|error| StartError::device(Part::Weights, error))
    }

    /// The biases of all experts, one after the other.
    fn stacked(
        &mut self,
        n: usize,
        how: &ExpertsSpec,
        parts: &[(E, usize)],
    ) -> Result<Option<C::Vector>, StartError> {
        if !how.bias {
            return Ok(None);
        }
        let experts = (0..how.count).flat_map(|expert| {
            parts.iter().map(move |&(part, len)| (Role::Expert(n, expert, part), len))
        });
        self.vector(&experts.collect::<Vec<_>>(), 0.0).map(Some)
    }

    fn norm(
        &mut self,
        stands: bool,
        weight: Role,
        bias: Role,
    ) -> Result<Option<NormWeights<C>>, StartError> {
        if !stands {
            return Ok(None);
        }
        let (hidden, spec) = (self.spec.hidden, self.spec.norm);
        let weight = self.vector(&[(weight, hidden)], spec.offset)?;
        let bias = spec.bias.then(|| self.vector(&[(bias, hidden)], 0.0)).transpose()?;
        Ok(Some(NormWeights { weight, bias }))
    }

    fn linear(
        &mut self,
        n: usize,
        (parts, cols): (Parts<'_>, usize),
        bias: Option<&[P]>,
    ) -> Result<Linear<C>, StartError> {
        let mut patches = Vec::with_capacity(parts.len());
        let mut first = 0;
        for &(part, rows) in parts {
            patches.push(Patch { part, first, rows, cols, pairs: Vec::new() });
            first += rows;
        }
        let roles = |parts: &mut dyn Iterator<Item = (P, usize)>| {
            parts.map(|(part, rows)| (Role::Layer(n, part), rows)).collect::<Vec<_>>()
        };
        let matrix = self.matrix(&roles(&mut parts.iter().copied()), cols)?;
        let bias = bias.map(|bias| {
            let mut lengths = bias.iter().zip(parts).map(|(&bias, &(_, rows))| (bias, rows));
            self.vector(&roles(&mut lengths), 0.0)
        });
        Ok(Linear { matrix, bias: bias.transpose()?, patches })
    }

    fn matrix(&mut self, parts: &[(Role, usize)], cols: usize) -> Result<C::Matrix, StartError> {
        let views = parts
            .iter()
            .map(|&(role, rows)| self.weights.tensor(role, rows, cols))
            .collect::<Result<Vec<TensorView<'_>>, _>>()?;
        self.load(&views.iter().map(TensorView::part).collect::<Vec<_>>())
    }

    fn load(&mut self, parts: &[MatrixPart<'_>]) -> Result<C::Matrix, StartError> {
        let loaded = self.compute.load_matrix(parts);
        loaded.map_err(|error| StartError::device(Part::Weights, error))
    }

    /// Vectors one after the other, each element plus `offset`.
    fn vector(&mut self, parts: &[(Role, usize)], offset: f32) -> Result<C::Vector, StartError> {
        let mut values = Vec::new();
        for &(role, len) in parts {
            values.extend(self.weights.vector(role, len)?);
        }
        if offset != 0.0 {
            values.iter_mut().for_each(|value| *value += offset);
        }
        let loaded = self.compute.load_vector(&values);
        loaded.map_err(|error| StartError::device(Part::Weights, error))
    }
}
