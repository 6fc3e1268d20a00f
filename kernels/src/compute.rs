//! The seam between a model and a device: [`Compute`] computes the ops of a decoder.
//!
//! Calls of one step are made in order from one thread. An implementation may run them at once
//! (CPU) or queue them (CUDA); nothing is read back before [`Compute::collect`]. Buffers are
//! claimed at set-up; no op allocates. Shapes are checked by asserts: a wrong shape is a bug in
//! the caller, never an input. Device trouble during a step is reported by `collect`.

use crate::format::Format;

/// Setting up failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device cannot hold it.
    #[error("out of memory: {wanted} bytes for {what}")]
    OutOfMemory {
        /// What did not fit.
        what: &'static str,
        /// Its size in bytes.
        wanted: usize,
    },
    /// The device has no kernel for this.
    #[error("not supported on this device: {0}")]
    Unsupported(String),
    /// A matrix part whose bytes do not fit its shape and format.
    #[error("matrix data has {found} bytes, its shape needs {wanted}")]
    MatrixBytes {
        /// Bytes that rows x columns in this format take.
        wanted: usize,
        /// Bytes given.
        found: usize,
    },
}

/// A step failed on the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing was lost; the step can be run again.
    #[error("step failed: {0}")]
    Step(String),
    /// The device's memory is gone and the process must set it up anew.
    #[error("device lost: {0}")]
    Lost(String),
}

/// Arithmetic of the matrix products. Sums are always kept in f32 (or exact integers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Weights widened to f32, activations f32: the numbers that the model's authors define.
    Float32,
    /// Activations rounded to bf16 for products with 16-bit weights; 8-bit integers for products
    /// with quantized weights.
    Bfloat16,
    /// Activations kept in f32 (CPU) or rounded to f16 (CUDA) for products with 16-bit weights;
    /// 8-bit integers for products with quantized weights.
    Float16,
}

/// Rows of a weight matrix `[rows, cols]`, row-major in one storage format, as files hold them.
#[derive(Debug, Clone, Copy)]
pub struct MatrixPart<'a> {
    /// Element or block format of `bytes`.
    pub format: Format,
    /// Output features.
    pub rows: usize,
    /// Input features: the same for all parts of a matrix, a multiple of the block length.
    pub cols: usize,
    /// `rows * format.row_bytes(cols)` bytes, little endian.
    pub bytes: &'a [u8],
}

/// Element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheElement {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    Bf16,
    /// 2 bytes.
    F16,
}

impl CacheElement {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Size of a paged KV cache. A page holds the keys and values of [`CacheShape::page_tokens`]
/// positions of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Decoder layers.
    pub layers: usize,
    /// Pages in the pool, shared by all slots.
    pub pages: usize,
    /// Positions in a page; 16.
    pub page_tokens: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Element type.
    pub element: CacheElement,
    /// Row slots, each with a block table.
    pub slots: usize,
    /// Entries of one block table.
    pub pages_per_slot: usize,
}

impl CacheShape {
    /// Bytes of one page: keys and values of all layers.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        2 * self.layers * self.page_tokens * self.kv_heads * self.head_dim * self.element.bytes()
    }
}

/// A stretch of one slot's positions that is computed in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The slot whose block table and history it uses.
    pub slot: u32,
    /// Position of its first token.
    pub first: u32,
    /// Tokens, at least 1.
    pub len: u32,
    /// Its first row in the step's activations.
    pub row: u32,
    /// Its (single) token is the one that this slot drew in the step before.
    pub late: bool,
}

/// Entry `index` of a slot's block table becomes `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The slot.
    pub slot: u32,
    /// Place in its table.
    pub index: u32,
    /// Page number.
    pub page: u32,
}

/// What one step works on. `tokens.len()` is the number of activation rows of every op until the
/// next `begin`.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// `[rows]` input ids, segment after segment.
    pub tokens: &'a [u32],
    /// `[segments]`, in the order of their rows.
    pub segments: &'a [Segment],
    /// Block table entries added before this step.
    pub grants: &'a [Grant],
}

/// Rotary position embedding: angle of pair i at position p is `p * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `[rotated / 2]` inverse frequencies.
    pub inv_freq: Vec<f32>,
    /// Multiplies cos and sin (yarn, longrope); 1 otherwise.
    pub magnitude: f32,
    /// Pairs are neighbours (2i, 2i+1) rather than halves (i, i + rotated/2).
    pub interleaved: bool,
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
    /// RMS norm of each query head `[head_dim]`.
    pub q_norm: Option<&'a V>,
    /// RMS norm of each key head `[head_dim]`.
    pub k_norm: Option<&'a V>,
    /// Epsilon of both.
    pub norm_eps: f32,
    /// This step's `[rows, rotated]` cos and sin from [`Compute::rope_table`]: `rotated / 2`
    /// cosines, then as many sines. `None` leaves positions unrotated.
    pub rope: Option<&'a T>,
    /// Pairing, as in [`Rope::interleaved`].
    pub interleaved: bool,
}

/// Causal attention over a slot's pages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; query head h reads key/value head `h * kv_heads / heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// `Some(w)`: position i sees only positions j with i - w < j <= i.
    pub window: Option<u32>,
    /// `Some(c)`: scores become `c * tanh(score / c)`.
    pub soft_cap: Option<f32>,
}

/// How a slot draws. See `scheduler::Sampling` for what the numbers mean; all ranges are checked
/// by the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub typical_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// Added to single logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// With the position, the only source of randomness.
    pub seed: u64,
    /// Tokens that cannot be drawn at positions below `banned_until`.
    pub banned: Vec<u32>,
    /// See `banned`; compared with the position that the drawn token will take.
    pub banned_until: u32,
}

/// A logits row to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRow {
    /// The slot whose sampler and history apply. The drawn token joins its history.
    pub slot: u32,
    /// Position that the drawn token will take.
    pub position: u32,
    /// `Some(k)`: also report log-probabilities with k alternatives.
    pub logprobs: Option<u32>,
}

/// A logits row whose next token is known (a prompt's): only its log-probabilities are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogprobRow {
    /// The slot, for the caller's book-keeping.
    pub slot: u32,
    /// Position of `token`.
    pub position: u32,
    /// The token that stands there.
    pub token: u32,
    /// Alternatives wanted.
    pub top: u32,
}

/// What a step drew, in the order of the calls. Reused between steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drawn {
    /// One per [`SampleRow`]: slot and token; `None` when the row held a NaN or +inf, or nothing
    /// could be drawn.
    pub tokens: Vec<(u32, Option<u32>)>,
    /// One per row that asked: slot, position, log-probability and rank (from 1) of the token
    /// that stands there, and the most probable tokens, best first, ties by the smaller id. A row
    /// that gave no token, or held a NaN, has an entry with rank 0, a NaN and no alternatives.
    pub logprobs: Vec<Scored>,
    /// Device time of the step in microseconds.
    pub elapsed_us: u64,
}

/// Log-probabilities of one position, over the full vocabulary, before penalties and temperature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scored {
    /// The slot.
    pub slot: u32,
    /// Position of the token.
    pub position: u32,
    /// The token drawn or given.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// 1 for the most probable.
    pub rank: u32,
    /// Alternatives.
    pub top: Vec<(u32, f32)>,
}

/// Computes the ops of a decoder on one device.
pub trait Compute {
    /// A weight matrix `[out, in]` in the device's own layout.
    type Matrix;
    /// f32 weights of one dimension (norms, biases).
    type Vector;
    /// f32 activations `[rows_max, width]`; ops use the first `Step::tokens.len()` rows.
    type Tensor;
    /// Paged keys and values with the block tables.
    type Cache;

    /// One line for people: device, instruction sets or compute capability, threads.
    fn describe(&self) -> String;

    /// Puts a matrix on the device: the parts' rows one after the other. Quantized parts stay
    /// quantized; parts may differ in format.
    ///
    /// # Errors
    /// No memory, no kernel for the format, or bytes that do not fit the shape.
    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Self::Matrix, Error>;

    /// Puts a vector on the device.
    ///
    /// # Errors
    /// No memory.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector, Error>;

    /// Claims activations, zeroed.
    ///
    /// # Errors
    /// No memory.
    fn tensor(&mut self, rows: usize, width: usize) -> Result<Self::Tensor, Error>;

    /// Claims the KV pool and the block tables.
    ///
    /// # Errors
    /// No memory.
    fn cache(&mut self, shape: CacheShape) -> Result<Self::Cache, Error>;

    /// Bytes that a loaded matrix takes on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;

    /// A slot starts: its token history becomes `tokens` (of which the first `prompt_len` are the
    /// prompt) and it draws as `sampler` says.
    fn start_slot(&mut self, slot: u32, tokens: &[u32], prompt_len: u32, sampler: &Sampler);

    /// A slot is given back.
    fn end_slot(&mut self, slot: u32);

    /// Starts a step: everything until [`Compute::end`] works on it.
    fn begin(&mut self, step: Step<'_>, cache: &mut Self::Cache);

    /// `out[r] = table[tokens[r]] * scale`; `table` is `[vocab, width]`.
    fn embed(&mut self, table: &Self::Matrix, scale: f32, out: &mut Self::Tensor);

    /// Cosines and sines of this step's positions into `out` `[rows, 2 * inv_freq.len()]`.
    fn rope_table(&mut self, rope: &Rope, out: &mut Self::Tensor);

    /// `out[r] = x[r] / rms(x[r]) * weight`.
    fn rms_norm(
        &mut self,
        x: &Self::Tensor,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    );

    /// `residual += delta; out = rms_norm(residual)` in one pass.
    fn add_rms_norm(
        &mut self,
        residual: &mut Self::Tensor,
        delta: &Self::Tensor,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    );

    /// `x += delta`.
    fn add(&mut self, x: &mut Self::Tensor, delta: &Self::Tensor);

    /// `out[r] = w * x[r] + bias`, all rows of the step.
    fn matmul(
        &mut self,
        x: &Self::Tensor,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    );

    /// Per row of `qkv` `[rows, (heads + 2 kv_heads) * head_dim]`: norms and rotates q (in place)
    /// and k, and writes k and v to the slot's pages of `layer`.
    fn project(
        &mut self,
        qkv: &mut Self::Tensor,
        how: &Projection<'_, Self::Vector, Self::Tensor>,
        cache: &mut Self::Cache,
        layer: usize,
    );

    /// `out` `[rows, heads * head_dim]` from the queries that `project` left in `qkv` and the
    /// slots' pages.
    fn attention(
        &mut self,
        qkv: &Self::Tensor,
        how: &Attention,
        cache: &Self::Cache,
        layer: usize,
        out: &mut Self::Tensor,
    );

    /// `out[r][i] = silu(gate_up[r][i]) * gate_up[r][width + i]`; `gate_up` is `[rows, 2 width]`.
    fn silu_mul(&mut self, gate_up: &Self::Tensor, out: &mut Self::Tensor);

    /// `out[i] = x[rows[i]]`: the rows that need logits, gathered.
    fn select(&mut self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor);

    /// `logits[i] = head * x[i]` for the first `rows` rows of a selected tensor.
    fn logits(
        &mut self,
        x: &Self::Tensor,
        rows: usize,
        head: &Self::Matrix,
        logits: &mut Self::Tensor,
    );

    /// Draws one token per row: row i of `logits` belongs to `rows[i]`. Results come with
    /// [`Compute::collect`]. May overwrite `logits`.
    fn sample(&mut self, logits: &mut Self::Tensor, rows: &[SampleRow]);

    /// Log-probabilities of known tokens: row i of `logits` belongs to `rows[i]`.
    fn score(&mut self, logits: &Self::Tensor, rows: &[LogprobRow]);

    /// Ends the step that `begin` started. At most two steps may be ended and not collected.
    fn end(&mut self);

    /// Waits for the oldest ended step and overwrites `out`.
    ///
    /// # Errors
    /// The device failed.
    fn collect(&mut self, out: &mut Drawn) -> Result<(), Fault>;

    /// Copies row `row` of a tensor out, for tests and for hidden states. Waits for the device.
    fn read(&mut self, x: &Self::Tensor, row: usize, out: &mut [f32]);
}
