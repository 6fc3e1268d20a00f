//! [`ModelSpec`]: what a model computes, as plain data.
//!
//! A family file turns a `config.json` or a GGUF header into one of these; the one transformer
//! runs any of them. Fields are what the published configurations mean, not how a file spells it.

use kernels::{Activation, HeadNorm, NormKind, Rope, RouterGroups, RouterScore};

mod needs;
mod prefix;
mod role;

pub use needs::Need;
pub use prefix::PrefixRule;
pub use role::{ExpertPart, LayerPart, Role};

/// A decoder, or an encoder.
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
    /// From ids to the residual stream.
    pub embedding: EmbeddingSpec,
    /// The norms of the residual stream: one kind for the whole model.
    pub norm: NormSpec,
    /// Rotary embeddings that the layers refer to by index.
    pub ropes: Vec<Rope>,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// A norm follows the last layer.
    pub final_norm: bool,
    /// From the residual stream to logits; `None` for models that only embed.
    pub head: Option<HeadSpec>,
    /// Positions see only what stands before them. `false`: an encoder, which sees its whole
    /// input at once.
    pub causal: bool,
    /// What the model can look at besides text; `None` until a vision family runs here.
    pub vision: Option<VisionSpec>,
}

/// Images in a prompt: how many placeholder tokens an image takes, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisionSpec {
    /// The token that stands for one row of image features.
    pub placeholder: u32,
    /// Side of a patch in pixels.
    pub patch_px: usize,
}

/// From token ids to the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingSpec {
    /// Multiplies embeddings; 1 for most.
    pub scale: f32,
    /// Learned positions are added.
    pub positions: Option<PositionSpec>,
    /// Rows of a table of token types that is added.
    pub types: Option<usize>,
    /// A norm follows.
    pub norm: bool,
}

/// A table of learned positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionSpec {
    /// Rows of the table.
    pub rows: usize,
    /// Position p uses row `p + offset`.
    pub offset: usize,
}

/// A norm of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// What it divides by.
    pub kind: NormKind,
    /// Added to the mean square or variance.
    pub eps: f32,
    /// Added to the stored weight: 1 where the file keeps weights relative to one.
    pub offset: f32,
    /// There is a bias.
    pub bias: bool,
}

/// From the residual stream to logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSpec {
    /// The head is the embedding table.
    pub tied: bool,
    /// There is a bias.
    pub bias: bool,
    /// Multiplies logits; 1 for most.
    pub scale: f32,
    /// `Some(c)`: logits become `c * tanh(logit / c)`.
    pub soft_cap: Option<f32>,
}

/// How a layer's two blocks join the residual stream x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `x += attention(norm(x)); x += mlp(norm(x))`.
    Pre,
    /// `x += norm(attention(norm(x))); x += norm(mlp(norm(x)))`.
    Sandwich,
    /// `x += norm(attention(x)); x += norm(mlp(x))`.
    After,
    /// `x = norm(x + attention(x)); x = norm(x + mlp(x))`.
    Post,
    /// `y = norm(x); x += attention(y) + mlp(y)`.
    Parallel,
}

impl Order {
    /// A norm stands before the attention block.
    #[must_use]
    pub fn before(self) -> bool {
        matches!(self, Self::Pre | Self::Sandwich | Self::Parallel)
    }

    /// A norm stands before the MLP block.
    #[must_use]
    pub fn before_mlp(self) -> bool {
        matches!(self, Self::Pre | Self::Sandwich)
    }

    /// Norms stand behind the blocks.
    #[must_use]
    pub fn behind(self) -> bool {
        matches!(self, Self::Sandwich | Self::After | Self::Post)
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// How the blocks and their norms stand.
    pub order: Order,
    /// `false`: the norm before attention is left out (the first layer of ModernBERT).
    pub attention_norm: bool,
    /// Multiplies what each block adds to the stream; 1 for most.
    pub residual_scale: f32,
    /// The attention block.
    pub attention: AttentionSpec,
    /// The MLP block.
    pub mlp: MlpSpec,
}

/// Attention of query heads over grouped key/value heads, or over one compressed key.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads, a divisor of `heads`. Ignored with `latent`.
    pub kv_heads: usize,
    /// Elements per query head (with `latent`: `plain + rotated`).
    pub head_dim: usize,
    /// Multiplies scores.
    pub scale: f32,
    /// Positions seen, itself included; in an encoder on either side.
    pub window: Option<u32>,
    /// Index into [`ModelSpec::ropes`]; `None` leaves positions unrotated.
    pub rope: Option<usize>,
    /// `Some(c)`: scores become `c * tanh(score / c)`.
    pub soft_cap: Option<f32>,
    /// Each head has one more score that takes its share of the softmax.
    pub sinks: bool,
    /// Norm of queries and keys, before rotation.
    pub qk_norm: Option<HeadNormSpec>,
    /// Biases of the q, k and v projections.
    pub qkv_bias: bool,
    /// Bias of the output projection.
    pub out_bias: bool,
    /// Keys and values are compressed (DeepSeek's MLA).
    pub latent: Option<LatentSpec>,
}

/// A norm of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNormSpec {
    /// Each head by itself, or all together.
    pub reach: HeadNorm,
    /// What it divides by.
    pub kind: NormKind,
    /// With [`HeadNorm::Each`]: every head has a weight of its own.
    pub own_weights: bool,
    /// Added to the mean square or variance.
    pub eps: f32,
    /// Added to the stored weight.
    pub offset: f32,
}

/// Compressed keys and values: `[latent | rotated]` per position, shared by all heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentSpec {
    /// Queries are compressed to so many elements too.
    pub query_rank: Option<usize>,
    /// Elements of the compressed key and value.
    pub latent: usize,
    /// Elements of a query head that are not rotated.
    pub plain: usize,
    /// Elements of a query head, and of the key, that are.
    pub rotated: usize,
    /// Elements of a value head.
    pub value: usize,
    /// Epsilon of the norms of both compressions.
    pub norm_eps: f32,
    /// The file keeps each head's key matrix as `[latent, plain]`, as its use wants it.
    pub keys_transposed: bool,
}

/// The block after attention.
#[derive(Debug, Clone, PartialEq)]
pub enum MlpSpec {
    /// One MLP for all.
    Dense(DenseSpec),
    /// Each row goes to some of many.
    Experts(ExpertsSpec),
}

/// `down(f(gate(x)) * up(x))`, or, not gated, `down(f(up(x)))`.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseSpec {
    /// Width between the projections.
    pub width: usize,
    /// The function between them.
    pub activation: Activation,
    /// There is a gate.
    pub gated: bool,
    /// Biases of all projections.
    pub bias: bool,
}

/// Gated MLPs of which a router chooses some for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// How many there are.
    pub count: usize,
    /// How many a row goes to.
    pub top_k: usize,
    /// Width between an expert's projections.
    pub width: usize,
    /// The function between them.
    pub activation: Activation,
    /// Biases of the experts' projections.
    pub bias: bool,
    /// How they are chosen.
    pub router: RouterSpec,
    /// An MLP that every row goes to as well.
    pub shared: Option<SharedSpec>,
}

/// How rows choose experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterSpec {
    /// From logits to scores.
    pub score: RouterScore,
    /// The router has a bias.
    pub bias: bool,
    /// A stored correction is added to the scores for choosing only.
    pub correction: bool,
    /// Restriction to the best groups.
    pub groups: Option<RouterGroups>,
    /// Chosen scores are divided by their sum.
    pub normalise: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

/// The shared expert; same activation as the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedSpec {
    /// Width between its projections.
    pub width: usize,
    /// Its output is multiplied by the sigmoid of a learned score of the row.
    pub switch: bool,
}

impl AttentionSpec {
    /// Key/value heads in the cache.
    #[must_use]
    pub fn cache_heads(&self) -> usize {
        if self.latent.is_some() { 1 } else { self.kv_heads }
    }

    /// Elements of a key in the cache.
    #[must_use]
    pub fn cache_dim(&self) -> usize {
        self.latent.map_or(self.head_dim, |latent| latent.latent + latent.rotated)
    }

    /// Input width of the output projection.
    #[must_use]
    pub fn out_width(&self) -> usize {
        self.heads * self.latent.map_or(self.head_dim, |latent| latent.value)
    }
}

impl MlpSpec {
    /// The dense MLP's, or each expert's, width.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.width,
            Self::Experts(experts) => experts.width,
        }
    }
}
