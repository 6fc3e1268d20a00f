//! Which tensors a spec asks its files for, with their shapes.

use kernels::HeadNorm;

use super::{
    AttentionSpec, DenseSpec, ExpertPart, ExpertsSpec, LatentSpec, LayerPart as P, LayerSpec,
    MlpSpec, ModelSpec, Role,
};

/// A tensor that a spec asks its files for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// What it is.
    pub role: Role,
    /// Rows; 1 for vectors.
    pub rows: usize,
    /// Columns; the length of a vector.
    pub cols: usize,
}

impl ModelSpec {
    /// Every tensor that the model computes with, embedding first, head last.
    #[must_use]
    pub fn tensors(&self) -> Vec<Need> {
        let hidden = self.hidden;
        let mut all = Vec::new();
        let mut add = |role, rows, cols| all.push(Need { role, rows, cols });
        add(Role::Embedding, self.vocab, hidden);
        if let Some(positions) = self.embedding.positions {
            add(Role::PositionEmbedding, positions.rows, hidden);
        }
        if let Some(types) = self.embedding.types {
            add(Role::TypeEmbedding, types, hidden);
        }
        if self.embedding.norm {
            add(Role::EmbeddingNorm, 1, hidden);
            if self.norm.bias {
                add(Role::EmbeddingNormBias, 1, hidden);
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            layer.tensors(self, index, &mut all);
        }
        let mut add = |role, rows, cols| all.push(Need { role, rows, cols });
        if self.final_norm {
            add(Role::FinalNorm, 1, hidden);
            if self.norm.bias {
                add(Role::FinalNormBias, 1, hidden);
            }
        }
        if let Some(head) = self.head {
            if !head.tied {
                add(Role::Head, self.vocab, hidden);
            }
            if head.bias {
                add(Role::HeadBias, 1, self.vocab);
            }
        }
        all
    }
}

impl LayerSpec {
    fn tensors(&self, model: &ModelSpec, at: usize, all: &mut Vec<Need>) {
        let hidden = model.hidden;
        let mut norm = |stands: bool, weight, bias| {
            if stands {
                all.push(Need { role: Role::Layer(at, weight), rows: 1, cols: hidden });
                if model.norm.bias {
                    all.push(Need { role: Role::Layer(at, bias), rows: 1, cols: hidden });
                }
            }
        };
        let (order, behind) = (self.order, self.order.behind());
        let first = order.before() && self.attention_norm;
        norm(first, P::AttentionNorm, P::AttentionNormBias);
        norm(behind, P::AttentionPostNorm, P::AttentionPostNormBias);
        norm(order.before_mlp(), P::MlpNorm, P::MlpNormBias);
        norm(behind, P::MlpPostNorm, P::MlpPostNormBias);
        let mut add = |part, rows, cols| all.push(Need { role: Role::Layer(at, part), rows, cols });
        self.attention.tensors(hidden, &mut add);
        match &self.mlp {
            MlpSpec::Dense(dense) => dense.tensors(hidden, &mut add),
            MlpSpec::Experts(experts) => experts.tensors(hidden, at, all),
        }
    }
}

impl AttentionSpec {
    fn tensors(&self, hidden: usize, add: &mut dyn FnMut(P, usize, usize)) {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match &self.latent {
            Some(latent) => latent.tensors(hidden, self.heads, add),
            None => {
                add(P::Query, queries, hidden);
                add(P::Key, keys, hidden);
                add(P::Value, keys, hidden);
            }
        }
        if self.qkv_bias {
            add(P::QueryBias, 1, queries);
            add(P::KeyBias, 1, keys);
            add(P::ValueBias, 1, keys);
        }
        if let Some(norm) = self.qk_norm {
            let own = norm.own_weights || norm.reach == HeadNorm::Whole;
            add(P::QueryNorm, 1, if own { queries } else { self.head_dim });
            add(P::KeyNorm, 1, if own { keys } else { self.head_dim });
        }
        if self.sinks {
            add(P::Sinks, 1, self.heads);
        }
        add(P::AttentionOut, hidden, self.out_width());
        if self.out_bias {
            add(P::AttentionOutBias, 1, hidden);
        }
    }
}

impl LatentSpec {
    fn tensors(&self, hidden: usize, heads: usize, add: &mut dyn FnMut(P, usize, usize)) {
        let queries = heads * (self.plain + self.rotated);
        match self.query_rank {
            Some(rank) => {
                add(P::QueryDown, rank, hidden);
                add(P::QueryDownNorm, 1, rank);
                add(P::Query, queries, rank);
            }
            None => add(P::Query, queries, hidden),
        }
        add(P::Latent, self.latent + self.rotated, hidden);
        add(P::LatentNorm, 1, self.latent);
        if self.keys_transposed {
            add(P::KeyUp, heads * self.latent, self.plain);
        } else {
            add(P::KeyUp, heads * self.plain, self.latent);
        }
        add(P::ValueUp, heads * self.value, self.latent);
    }
}

impl DenseSpec {
    fn tensors(&self, hidden: usize, add: &mut dyn FnMut(P, usize, usize)) {
        if self.gated {
            add(P::Gate, self.width, hidden);
        }
        add(P::Up, self.width, hidden);
        add(P::Down, hidden, self.width);
        if self.bias {
            if self.gated {
                add(P::GateBias, 1, self.width);
            }
            add(P::UpBias, 1, self.width);
            add(P::DownBias, 1, hidden);
        }
    }
}

impl ExpertsSpec {
    fn tensors(&self, hidden: usize, at: usize, all: &mut Vec<Need>) {
        let mut add = |part, rows, cols| all.push(Need { role: Role::Layer(at, part), rows, cols });
        add(P::Router, self.count, hidden);
        if self.router.bias {
            add(P::RouterBias, 1, self.count);
        }
        if self.router.correction {
            add(P::RouterCorrection, 1, self.count);
        }
        if let Some(shared) = self.shared {
            add(P::SharedGate, shared.width, hidden);
            add(P::SharedUp, shared.width, hidden);
            add(P::SharedDown, hidden, shared.width);
            if shared.switch {
                add(P::SharedSwitch, 1, hidden);
            }
        }
        let width = self.width;
        for expert in 0..self.count {
            let mut add = |part, rows, cols| {
                all.push(Need { role: Role::Expert(at, expert, part), rows, cols });
            };
            add(ExpertPart::Gate, width, hidden);
            add(ExpertPart::Up, width, hidden);
            add(ExpertPart::Down, hidden, width);
            if self.bias {
                add(ExpertPart::GateBias, 1, width);
                add(ExpertPart::UpBias, 1, width);
                add(ExpertPart::DownBias, 1, hidden);
            }
        }
    }
}
