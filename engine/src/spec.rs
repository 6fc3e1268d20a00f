//! [`ModelSpec`]: what a decoder computes, as plain data.
//!
//! A family file turns a `config.json` or a GGUF header into one of these; the one transformer
//! runs any of them. Fields are what the published configurations mean, not how a file spells it.

use kernels::Rope;

/// A decoder-only model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The family's name for people: `llama`, `qwen3`, ...
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding table and of the head.
    pub vocab: usize,
    /// Longest sequence that the model was made for, in tokens.
    pub context: usize,
    /// Multiplies embeddings; 1 for most.
    pub embedding_scale: f32,
    /// Epsilon of all RMS norms.
    pub norm_eps: f32,
    /// Rotary embeddings that the layers refer to by index.
    pub ropes: Vec<Rope>,
    /// The decoder layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// The head is the embedding table.
    pub tied_head: bool,
}

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
        let need = |role, rows, cols| Need { role, rows, cols };
        let mut all = vec![need(Role::Embedding, self.vocab, self.hidden)];
        for (index, layer) in self.layers.iter().enumerate() {
            layer.tensors(index, self.hidden, &mut all);
        }
        all.push(need(Role::FinalNorm, 1, self.hidden));
        if !self.tied_head {
            all.push(need(Role::Head, self.vocab, self.hidden));
        }
        all
    }
}

impl LayerSpec {
    fn tensors(&self, at: usize, hidden: usize, all: &mut Vec<Need>) {
        let (attention, mlp) = (&self.attention, &self.mlp);
        let queries = attention.heads * attention.head_dim;
        let keys = attention.kv_heads * attention.head_dim;
        let mut add = |role, rows, cols| all.push(Need { role, rows, cols });
        add(Role::AttentionNorm(at), 1, hidden);
        add(Role::Query(at), queries, hidden);
        add(Role::Key(at), keys, hidden);
        add(Role::Value(at), keys, hidden);
        if attention.qkv_bias {
            add(Role::QueryBias(at), 1, queries);
            add(Role::KeyBias(at), 1, keys);
            add(Role::ValueBias(at), 1, keys);
        }
        if attention.qk_norm {
            add(Role::QueryNorm(at), 1, attention.head_dim);
            add(Role::KeyNorm(at), 1, attention.head_dim);
        }
        add(Role::AttentionOut(at), hidden, queries);
        if attention.out_bias {
            add(Role::AttentionOutBias(at), 1, hidden);
        }
        add(Role::MlpNorm(at), 1, hidden);
        add(Role::Gate(at), mlp.width, hidden);
        add(Role::Up(at), mlp.width, hidden);
        add(Role::Down(at), hidden, mlp.width);
        if mlp.bias {
            add(Role::GateBias(at), 1, mlp.width);
            add(Role::UpBias(at), 1, mlp.width);
            add(Role::DownBias(at), 1, hidden);
        }
    }
}

/// One decoder layer: norm, attention, add; norm, gated MLP, add.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The attention block.
    pub attention: AttentionSpec,
    /// The MLP block.
    pub mlp: MlpSpec,
}

/// Grouped-query attention with rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Multiplies scores.
    pub scale: f32,
    /// Positions seen, itself included.
    pub window: Option<u32>,
    /// Index into [`ModelSpec::ropes`]; `None` leaves positions unrotated.
    pub rope: Option<usize>,
    /// RMS norm of each query and key head.
    pub qk_norm: bool,
    /// Biases of the q, k and v projections.
    pub qkv_bias: bool,
    /// Bias of the output projection.
    pub out_bias: bool,
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpSpec {
    /// Width between the projections.
    pub width: usize,
    /// Biases of all three projections.
    pub bias: bool,
}

/// The role of a tensor. A weight source knows under which name its file format keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `[vocab, hidden]`.
    Embedding,
    /// `[hidden]`.
    FinalNorm,
    /// `[vocab, hidden]`; absent when tied.
    Head,
    /// `[hidden]`, before attention.
    AttentionNorm(usize),
    /// `[heads * head_dim, hidden]`.
    Query(usize),
    /// `[kv_heads * head_dim, hidden]`.
    Key(usize),
    /// `[kv_heads * head_dim, hidden]`.
    Value(usize),
    /// `[heads * head_dim]`.
    QueryBias(usize),
    /// `[kv_heads * head_dim]`.
    KeyBias(usize),
    /// `[kv_heads * head_dim]`.
    ValueBias(usize),
    /// `[head_dim]`.
    QueryNorm(usize),
    /// `[head_dim]`.
    KeyNorm(usize),
    /// `[hidden, heads * head_dim]`.
    AttentionOut(usize),
    /// `[hidden]`.
    AttentionOutBias(usize),
    /// `[hidden]`, before the MLP.
    MlpNorm(usize),
    /// `[width, hidden]`.
    Gate(usize),
    /// `[width, hidden]`.
    Up(usize),
    /// `[hidden, width]`.
    Down(usize),
    /// `[width]`.
    GateBias(usize),
    /// `[width]`.
    UpBias(usize),
    /// `[hidden]`.
    DownBias(usize),
}

impl Role {
    /// Norm weights and biases have one dimension, everything else two.
    #[must_use]
    pub fn is_vector(self) -> bool {
        !matches!(
            self,
            Self::Embedding
                | Self::Head
                | Self::Query(_)
                | Self::Key(_)
                | Self::Value(_)
                | Self::AttentionOut(_)
                | Self::Gate(_)
                | Self::Up(_)
                | Self::Down(_)
        )
    }
}
