//! [`Role`]: what a tensor is to its model. A weight source knows under which name its file
//! keeps it.

/// The role of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `[vocab, hidden]`.
    Embedding,
    /// `[positions, hidden]`.
    PositionEmbedding,
    /// `[types, hidden]`.
    TypeEmbedding,
    /// `[hidden]`.
    EmbeddingNorm,
    /// `[hidden]`.
    EmbeddingNormBias,
    /// `[hidden]`.
    FinalNorm,
    /// `[hidden]`.
    FinalNormBias,
    /// `[vocab, hidden]`; absent when tied.
    Head,
    /// `[vocab]`.
    HeadBias,
    /// Part of a layer.
    Layer(usize, LayerPart),
    /// Part of an expert of a layer: layer, expert.
    Expert(usize, usize, ExpertPart),
}

/// A tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerPart {
    /// `[hidden]`, before attention.
    AttentionNorm,
    /// `[hidden]`.
    AttentionNormBias,
    /// `[heads * head_dim, hidden]`, or `[.., query_rank]` where queries are compressed.
    Query,
    /// `[kv_heads * head_dim, hidden]`.
    Key,
    /// `[kv_heads * head_dim, hidden]`.
    Value,
    /// `[heads * head_dim]`.
    QueryBias,
    /// `[kv_heads * head_dim]`.
    KeyBias,
    /// `[kv_heads * head_dim]`.
    ValueBias,
    /// `[head_dim]` or `[heads * head_dim]`.
    QueryNorm,
    /// `[head_dim]` or `[kv_heads * head_dim]`.
    KeyNorm,
    /// `[query_rank, hidden]`.
    QueryDown,
    /// `[query_rank]`.
    QueryDownNorm,
    /// `[latent + rotated, hidden]`.
    Latent,
    /// `[latent]`.
    LatentNorm,
    /// `[heads * plain, latent]`, or `[heads * latent, plain]` where files keep it transposed.
    KeyUp,
    /// `[heads * value, latent]`.
    ValueUp,
    /// `[heads]`.
    Sinks,
    /// `[hidden, heads * head_dim]`.
    AttentionOut,
    /// `[hidden]`.
    AttentionOutBias,
    /// `[hidden]`, behind attention.
    AttentionPostNorm,
    /// `[hidden]`.
    AttentionPostNormBias,
    /// `[hidden]`, before the MLP.
    MlpNorm,
    /// `[hidden]`.
    MlpNormBias,
    /// `[hidden]`, behind the MLP.
    MlpPostNorm,
    /// `[hidden]`.
    MlpPostNormBias,
    /// `[width, hidden]`.
    Gate,
    /// `[width, hidden]`.
    Up,
    /// `[hidden, width]`.
    Down,
    /// `[width]`.
    GateBias,
    /// `[width]`.
    UpBias,
    /// `[hidden]`.
    DownBias,
    /// `[experts, hidden]`.
    Router,
    /// `[experts]`.
    RouterBias,
    /// `[experts]`.
    RouterCorrection,
    /// `[shared width, hidden]`.
    SharedGate,
    /// `[shared width, hidden]`.
    SharedUp,
    /// `[hidden, shared width]`.
    SharedDown,
    /// `[1, hidden]`.
    SharedSwitch,
}

/// A tensor of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExpertPart {
    /// `[width, hidden]`.
    Gate,
    /// `[width, hidden]`.
    Up,
    /// `[hidden, width]`.
    Down,
    /// `[width]`.
    GateBias,
    /// `[width]`.
    UpBias,
    /// `[hidden]`.
    DownBias,
}

impl Role {
    /// Norm weights, biases and sinks have one dimension, everything else two.
    #[must_use]
    pub fn is_vector(self) -> bool {
        use LayerPart as P;
        match self {
            Self::Embedding | Self::PositionEmbedding | Self::TypeEmbedding | Self::Head => false,
            Self::EmbeddingNorm
            | Self::EmbeddingNormBias
            | Self::FinalNorm
            | Self::FinalNormBias
            | Self::HeadBias => true,
            Self::Layer(_, part) => !matches!(
                part,
                P::Query
                    | P::Key
                    | P::Value
                    | P::QueryDown
                    | P::Latent
                    | P::KeyUp
                    | P::ValueUp
                    | P::AttentionOut
                    | P::Gate
                    | P::Up
                    | P::Down
                    | P::Router
                    | P::SharedGate
                    | P::SharedUp
                    | P::SharedDown
                    | P::SharedSwitch
            ),
            Self::Expert(_, _, part) => {
                !matches!(part, ExpertPart::Gate | ExpertPart::Up | ExpertPart::Down)
            }
        }
    }
}
