//! The seam between a model and a device: [`Compute`] computes the ops of a decoder.
//!
//! Calls of one step are made in order from one thread. An implementation may run them at once
//! (CPU) or queue them (CUDA); nothing is read back before [`Compute::collect`]. Buffers are
//! claimed at set-up; no op allocates. Shapes are checked by asserts: a wrong shape is a bug in
//! the caller, never an input. Device trouble during a step is reported by `collect`.

mod attention;
mod memory;
mod mlp;
mod sampling;
mod step;

pub use attention::{
    Attention, Beyond, Head, HeadBlocks, HeadNorm, LatentProjection, Norm, NormKind, Projection,
    Rope,
};
pub use memory::{
    CacheElement, CacheShape, CacheValues, Error, Fault, Kept, MatrixPart, Precision,
};
pub use mlp::{Activation, Router, RouterGroups, RouterScore};
pub use sampling::{Drawn, LogprobRow, SampleRow, Sampler, Scored, chains, mask_words};
pub use step::{Grant, Segment, Step};

/// Computes the ops of a decoder on one device.
pub trait Compute {
    /// A weight matrix `[out, in]` in the device's own layout.
    type Matrix;
    /// f32 weights of one dimension (norms, biases).
    type Vector;
    /// Activations `[rows_max, width]`; ops use the first `Step::tokens.len()` rows.
    type Tensor;
    /// Paged keys and values with the block tables.
    type Cache;
    /// The matrices of all experts of a layer, of one shape.
    type Experts;
    /// Which rows go to which experts, with what weight.
    type Routes;
    /// A low-rank addition to a matrix.
    type LowRank;

    /// Drafts that a chain of draws may have (see [`SampleRow::draft`]); 0: each slot draws once in
    /// a step.
    fn drafts_max(&self) -> usize;

    /// One line for people: device, instruction sets or compute capability, threads.
    fn describe(&self) -> String;

    /// Puts a matrix on the device: the parts' rows one after the other. Quantized parts stay
    /// quantized; parts may differ in format.
    ///
    /// # Errors
    /// No memory, no kernel for the format, or bytes that do not fit the shape.
    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Self::Matrix, Error>;

    /// Joins the matrices of a layer's experts, all `[out, in]`, in the order of the experts.
    ///
    /// # Errors
    /// No memory.
    fn load_experts(&mut self, matrices: Vec<Self::Matrix>) -> Result<Self::Experts, Error>;

    /// Puts a low-rank addition `scale * up * (down * x)` on the device: `down` is `[rank, in]`,
    /// `up` `[out, rank]`, row-major.
    ///
    /// # Errors
    /// No memory.
    fn load_low_rank(
        &mut self,
        down: &[f32],
        up: &[f32],
        rank: usize,
        scale: f32,
    ) -> Result<Self::LowRank, Error>;

    /// Claims routes for steps of up to `rows` rows that choose `top_k` of `experts`.
    ///
    /// # Errors
    /// No memory.
    fn routes(&mut self, rows: usize, top_k: usize, experts: usize) -> Result<Self::Routes, Error>;

    /// Puts a vector on the device.
    ///
    /// # Errors
    /// No memory.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector, Error>;

    /// Claims activations, zeroed.
    ///
    /// # Errors
    /// No memory.
    fn tensor(&mut self, rows: usize, width: usize, kept: Kept) -> Result<Self::Tensor, Error>;

    /// Claims the KV pool and the block tables.
    ///
    /// # Errors
    /// No memory.
    fn cache(&mut self, shape: CacheShape) -> Result<Self::Cache, Error>;

    /// Bytes that a loaded matrix takes on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;

    /// Bytes that the matrices of a layer's experts take on the device.
    fn experts_bytes(&self, experts: &Self::Experts) -> usize;

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

    /// `out[r] += table[rows[r]]`: learned positions and token types, one index per row.
    fn embed_add(&mut self, table: &Self::Matrix, rows: &[u32], out: &mut Self::Tensor);

    /// `out[r] = norm(x[r])`.
    fn norm(&mut self, x: &Self::Tensor, how: &Norm<'_, Self::Vector>, out: &mut Self::Tensor);

    /// `residual += scale * delta; out = norm(residual)` in one pass.
    fn add_norm(
        &mut self,
        residual: &mut Self::Tensor,
        delta: &Self::Tensor,
        scale: f32,
        how: &Norm<'_, Self::Vector>,
        out: &mut Self::Tensor,
    );

    /// `x += scale * delta`.
    fn add(&mut self, x: &mut Self::Tensor, delta: &Self::Tensor, scale: f32);

    /// `out[r] = w * x[r] + bias`, all rows of the step.
    fn matmul(
        &mut self,
        x: &Self::Tensor,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    );

    /// `out[r] += low_rank(x[r])` into the columns from `first` on, for rows whose segment has
    /// adapter n and `pairs[n - 1]` is there.
    fn adapt(
        &mut self,
        x: &Self::Tensor,
        pairs: &[Option<Self::LowRank>],
        first: usize,
        out: &mut Self::Tensor,
    );

    /// Block-diagonal product: head h of `out[r]` is block h of `w` by head h of `x[r]`. `w` is
    /// `[heads * block_out, block_in]`.
    fn heads_matmul(
        &mut self,
        x: &Self::Tensor,
        w: &Self::Matrix,
        blocks: HeadBlocks,
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

    /// Latent attention, per row: norms the latent of `kv` `[rows, latent + rotated]`, rotates
    /// its rest and writes both to the slot's pages of `layer`; rotates the last `rotated`
    /// elements of each head of `q` `[rows, heads * (plain + rotated)]` into the last `rotated`
    /// of each head of `out` `[rows, heads * (latent + rotated)]`, whose first `latent` come from
    /// [`Compute::heads_matmul`].
    fn project_latent(
        &mut self,
        q: &Self::Tensor,
        kv: &Self::Tensor,
        how: &LatentProjection<'_, Self::Vector, Self::Tensor>,
        cache: &mut Self::Cache,
        layer: usize,
        out: &mut Self::Tensor,
    );

    /// `out` `[rows, heads * value_dim]` from queries, which are the first `heads * head_dim`
    /// columns of `q`, and the slots' pages.
    fn attention(
        &mut self,
        q: &Self::Tensor,
        how: &Attention<'_, Self::Vector>,
        cache: &Self::Cache,
        layer: usize,
        out: &mut Self::Tensor,
    );

    /// `out[r][i] = f(x[r][i])`, or, gated, `f(x[r][i]) * x[r][width + i]` for `x` of twice the
    /// width, over `copies` rows for each row of the step (routed rows have `top_k`).
    fn activate(
        &mut self,
        x: &Self::Tensor,
        f: Activation,
        gated: bool,
        copies: usize,
        out: &mut Self::Tensor,
    );

    /// `x[r] *= sigmoid(gate[r][0])`.
    fn gate_rows(&mut self, x: &mut Self::Tensor, gate: &Self::Tensor);

    /// Every row of `logits` `[rows, experts]` chooses its experts.
    fn route(
        &mut self,
        logits: &Self::Tensor,
        how: &Router<'_, Self::Vector>,
        routes: &mut Self::Routes,
    );

    /// Products of rows with their experts' matrices. `spread`: `x` is `[rows, in]` and each row
    /// goes to its `top_k` experts; otherwise `x` is `[rows * top_k, in]` as another call left
    /// it. `out` is `[rows * top_k, out]` in an order that is the device's own business; `bias`
    /// is `[experts * out]`.
    fn expert_matmul(
        &mut self,
        x: &Self::Tensor,
        w: &Self::Experts,
        bias: Option<&Self::Vector>,
        routes: &Self::Routes,
        spread: bool,
        out: &mut Self::Tensor,
    );

    /// `out[r]` = the weighted sum of row r's experts in `x` `[rows * top_k, width]`, in the
    /// order in which they were chosen.
    fn combine(&mut self, x: &Self::Tensor, routes: &Self::Routes, out: &mut Self::Tensor);

    /// `out[i] = x[rows[i]]`: the rows that need logits, gathered.
    fn select(&mut self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor);

    /// `logits[i]` = the head's of `x[i]`, for the first `rows` rows of a selected tensor.
    fn logits(
        &mut self,
        x: &Self::Tensor,
        rows: usize,
        head: &Self::Matrix,
        how: &Head<'_, Self::Vector>,
        logits: &mut Self::Tensor,
    );

    /// Draws one token per row, as far as the rows' drafts are drawn: row i of `logits` belongs to
    /// `rows[i]`. Results come with
    /// [`Compute::collect`]. May overwrite `logits`.
    ///
    /// `masks` is `[n, mask_words(vocab)]`, as many tokens as logits; a row names its mask. A
    /// token whose bit is 0 cannot be drawn, as if it were banned. Log-probabilities are those
    /// before the mask.
    fn sample(&mut self, logits: &mut Self::Tensor, rows: &[SampleRow], masks: &[u32]);

    /// Log-probabilities of known tokens: row i of `logits` belongs to `rows[i]`.
    fn score(&mut self, logits: &Self::Tensor, rows: &[LogprobRow]);

    /// Starts what the step has recorded so far; more of it follows. A device that computes at once
    /// has nothing to do.
    fn flush(&mut self) {}

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
