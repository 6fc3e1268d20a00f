//! Parameters of the ops around attention: rotation, norms, projections, the head.
//!
//! Plain data, borrowed weights. What the numbers mean to a model is not known here.

/// Rotary position embedding: angle of pair i at position p is `p * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `[rotated / 2]` inverse frequencies.
    pub inv_freq: Vec<f32>,
    /// Multiplies cos and sin (yarn, longrope); 1 otherwise.
    pub magnitude: f32,
    /// Pairs are neighbours (2i, 2i+1) rather than halves (i, i + rotated/2).
    pub interleaved: bool,
    /// What else holds for long sequences.
    pub beyond: Option<Beyond>,
}

/// Frequencies of sequences longer than `limit`. A position counts as part of a sequence of
/// `max(prompt, position + 1)` tokens: the prompt is turned as a whole, whatever chunks it is
/// computed in, and a drawn token as long as the sequence was then.
#[derive(Debug, Clone, PartialEq)]
pub enum Beyond {
    /// longrope: other frequencies.
    Long {
        /// Sequences up to this many tokens use [`Rope::inv_freq`].
        limit: u32,
        /// As long as [`Rope::inv_freq`].
        inv_freq: Vec<f32>,
    },
    /// Dynamic NTK: the base grows with the length n of the sequence, to
    /// `theta * (factor * n / limit - (factor - 1))^(dim / (dim - 2))`.
    Dynamic {
        /// Sequences up to this many tokens use [`Rope::inv_freq`].
        limit: u32,
        /// Base.
        theta: f32,
        /// Stretching.
        factor: f32,
    },
}

/// How rows are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x)`.
    Rms,
    /// `(x - mean(x)) / deviation(x)`.
    Layer,
}

/// A norm of rows: normalised, times weight, plus bias.
#[derive(Debug)]
pub struct Norm<'a, V> {
    /// What it divides by.
    pub kind: NormKind,
    /// `[width]`.
    pub weight: &'a V,
    /// `[width]`.
    pub bias: Option<&'a V>,
    /// Added to the mean square or variance.
    pub eps: f32,
}

// By hand: a derive would ask for `V: Clone`.
impl<V> Clone for Norm<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Norm<'_, V> {}

/// How far a norm of queries or keys reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorm {
    /// Each head by itself. The weight is `[head_dim]`, shared by the heads, or
    /// `[heads * head_dim]`.
    Each,
    /// All heads together; the weight is `[heads * head_dim]`.
    Whole,
}

/// How a layer turns a fused projection row `[q heads | k heads | v heads] x head_dim` into a
/// rotated query and a cache entry.
#[derive(Debug)]
pub struct Projection<'a, V, T> {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Norm of the queries, before rotation.
    pub q_norm: Option<(HeadNorm, Norm<'a, V>)>,
    /// Norm of the keys, before rotation.
    pub k_norm: Option<(HeadNorm, Norm<'a, V>)>,
    /// This step's `[rows, rotated]` cos and sin from [`crate::Compute::rope_table`]: `rotated / 2`
    /// cosines, then as many sines. The first `rotated` elements of a head are turned, the rest
    /// stay. `None` leaves positions unrotated.
    pub rope: Option<&'a T>,
    /// Pairing, as in [`Rope::interleaved`].
    pub interleaved: bool,
}

/// How latent attention (DeepSeek's MLA, arXiv 2405.04434) fills its cache and turns its queries.
/// A key is `[latent | rope]`, shared by all heads.
#[derive(Debug)]
pub struct LatentProjection<'a, V, T> {
    /// Query heads.
    pub heads: usize,
    /// Elements of a query head that are not rotated; they stand first.
    pub plain: usize,
    /// Elements of the compressed key and value.
    pub latent: usize,
    /// Norm of the latent `[latent]`.
    pub norm: Norm<'a, V>,
    /// This step's table, `[rows, rotated]`: `rotated` elements of query heads and keys turn.
    pub rope: &'a T,
    /// Pairing, as in [`Rope::interleaved`].
    pub interleaved: bool,
}

/// Attention over a slot's pages.
#[derive(Debug)]
pub struct Attention<'a, V> {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; query head h reads key/value head `h * kv_heads / heads`.
    pub kv_heads: usize,
    /// Elements of a query and of a key.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// `true`: position i sees j <= i. `false`: it sees its whole segment, which has to hold the
    /// whole sequence.
    pub causal: bool,
    /// `Some(w)`: position i sees only positions j with i - w < j, and j < i + w when not causal.
    pub window: Option<u32>,
    /// `Some(c)`: scores become `c * tanh(score / c)`.
    pub soft_cap: Option<f32>,
    /// `[heads]`: one more score per head that takes its share of the softmax and gives nothing.
    pub sinks: Option<&'a V>,
}

// By hand: a derive would ask for `V: Clone`.
impl<V> Clone for Attention<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Attention<'_, V> {}

/// From a selected row to logits: `cap(scale * (head * x + bias))`.
#[derive(Debug)]
pub struct Head<'a, V> {
    /// `[vocab]`.
    pub bias: Option<&'a V>,
    /// Multiplies logits; 1 for most.
    pub scale: f32,
    /// `Some(c)`: logits become `c * tanh(logit / c)`.
    pub soft_cap: Option<f32>,
}

/// Which part of a row each head of a block-diagonal product reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadBlocks {
    /// Heads.
    pub heads: usize,
    /// Head h reads from column `h * x_stride` on.
    pub x_stride: usize,
    /// Head h writes from column `h * out_stride` on.
    pub out_stride: usize,
}
