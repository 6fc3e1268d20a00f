//! The ops on CPU: [`Cpu`] implements [`Compute`] by running each op at once over a pool of
//! threads.
//!
//! This file only joins shapes to ops: it checks them and calls the op's own file. Ops on
//! activations are written once over `lanes`; matrix products have kernels of their own. All
//! scratch is claimed by [`Cpu::new`]. It must not know a model.

mod activation;
mod attention;
mod attention_span;
mod cache;
mod candidates;
mod experts;
mod gather;
pub mod isa;
mod lanes;
mod low_rank;
mod math;
pub mod matmul;
pub mod matrix;
mod norm;
pub mod pool;
mod project;
mod project_latent;
pub mod random;
mod results;
mod rope;
mod rows;
mod sample;
mod scan;
mod score;
mod slots;
mod step;
mod tensor;
#[cfg(test)]
mod tests;

use std::time::Instant;

use cache::with_element;
pub use cache::{Cache, rounded};
pub use experts::{Experts, Routes};
use isa::Isa;
pub use low_rank::LowRank;
use matrix::Matrix;
use pool::Pool;
use results::Results;
pub use slots::DRAFTS_MAX;
use slots::Slots;
use step::Current;
use tensor::PerWorker;
pub use tensor::{Tensor, Vector};

use crate::compute::{
    Activation, Attention, CacheShape, CacheValues, Compute, Drawn, Error, Fault, Head, HeadBlocks,
    Kept, LatentProjection, LogprobRow, MatrixPart, Norm, Precision, Projection, Rope, Router,
    SampleRow, Sampler, Scored, Step, chains,
};

/// How large the steps of a [`Cpu`] are: its scratch is claimed for this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuConfig {
    /// Threads that compute, the caller included.
    pub threads: usize,
    /// Arithmetic of the matrix products.
    pub precision: Precision,
    /// Rows of a step at most.
    pub rows_max: usize,
    /// Row slots.
    pub slots: usize,
    /// Tokens of a slot at most.
    pub context_max: usize,
    /// Logits of a row; 2^19 at most.
    pub vocab: usize,
    /// Instruction sets to use; [`Isa::detect`] but in tests.
    pub isa: Isa,
}

/// A CPU as a device.
pub struct Cpu {
    config: CpuConfig,
    pool: Pool,
    step: Current,
    started: Instant,
    slots: Slots,
    results: Results,
    products: matmul::Scratch,
    routed: matmul::grouped::Scratch,
    adapters: low_rank::Scratch,
    attention: PerWorker<attention::Scratch>,
    plan: attention::Plan,
    sampling: PerWorker<sample::Scratch>,
    /// As wide as the widest matrix: a row of a table on its way to a sum.
    rows: PerWorker<Vec<f32>>,
    tokens: Vec<(u32, Option<u32>)>,
    scored: Vec<Scored>,
}

impl Cpu {
    /// Starts the threads and claims all scratch: some 4 MB per thread and 100,000 tokens
    /// of vocabulary. Loading a matrix claims what its products with `rows_max` rows need.
    #[must_use]
    pub fn new(config: CpuConfig) -> Self {
        let pool = Pool::new(config.threads);
        let workers = pool.threads();
        let vocab = config.vocab;
        Self {
            step: Current::new(config.rows_max),
            started: Instant::now(),
            slots: Slots::new(config.slots, vocab, config.context_max),
            results: Results::default(),
            products: matmul::Scratch::default(),
            routed: matmul::grouped::Scratch::default(),
            adapters: low_rank::Scratch::default(),
            attention: PerWorker::new(workers, attention::Scratch::new),
            plan: attention::Plan::new(workers, config.rows_max),
            sampling: PerWorker::new(workers, || sample::Scratch::new(vocab)),
            rows: PerWorker::new(workers, Vec::new),
            tokens: vec![(0, None); config.rows_max],
            scored: vec![Scored::default(); config.rows_max],
            pool,
            config,
        }
    }

    fn batch(&self) -> sample::Batch<'_> {
        let Self { config, pool, sampling, .. } = self;
        sample::Batch { pool, isa: config.isa, vocab: config.vocab, scratch: sampling }
    }
}

/// The step's rows of a tensor, whose width is checked.
fn rows_of(x: &Tensor, rows: usize, width: usize) -> &[f32] {
    assert_eq!(x.width(), width, "tensor width");
    x.first(rows)
}

/// As [`rows_of`], to write.
fn rows_of_mut(x: &mut Tensor, rows: usize, width: usize) -> &mut [f32] {
    assert_eq!(x.width(), width, "tensor width");
    x.first_mut(rows)
}

impl Compute for Cpu {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type Cache = Cache;
    type Experts = Experts;
    type Routes = Routes;
    type LowRank = LowRank;

    fn drafts_max(&self) -> usize {
        DRAFTS_MAX
    }

    fn describe(&self) -> String {
        let Self { config, pool, .. } = self;
        let (isa, threads) = (config.isa.name(), pool.threads());
        format!("CPU, {isa}, {threads} threads, {:?}", config.precision)
    }

    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Matrix, Error> {
        let matrix = Matrix::pack(parts, self.config.precision, self.config.isa, &self.pool)?;
        self.products.reserve(self.config.rows_max, matrix.cols())?;
        for row in self.rows.all() {
            row.resize(row.len().max(matrix.cols()), 0.0);
        }
        Ok(matrix)
    }

    fn load_experts(&mut self, matrices: Vec<Matrix>) -> Result<Experts, Error> {
        self.routed.reserve_matrices(&matrices)?;
        Ok(Experts::new(matrices))
    }

    fn load_low_rank(
        &mut self,
        down: &[f32],
        up: &[f32],
        rank: usize,
        scale: f32,
    ) -> Result<LowRank, Error> {
        self.adapters.reserve(self.config.rows_max, rank)?;
        LowRank::new(down, up, rank, scale)
    }

    fn routes(&mut self, rows: usize, top_k: usize, experts: usize) -> Result<Routes, Error> {
        self.routed.reserve_rows(rows.saturating_mul(top_k), rows)?;
        Routes::new(self.pool.threads(), rows, top_k, experts)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector, Error> {
        Vector::new(values)
    }

    fn tensor(&mut self, rows: usize, width: usize, _: Kept) -> Result<Tensor, Error> {
        Tensor::zeroed(rows, width)
    }

    fn cache(&mut self, shape: CacheShape) -> Result<Cache, Error> {
        Cache::new(shape)
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.bytes()
    }

    fn experts_bytes(&self, experts: &Experts) -> usize {
        experts.bytes()
    }

    fn start_slot(&mut self, slot: u32, tokens: &[u32], prompt_len: u32, sampler: &Sampler) {
        let changes = self.slots.start(slot, tokens, prompt_len, sampler);
        self.sampling.all().for_each(|scratch| scratch.undo.reserve(changes));
    }

    fn end_slot(&mut self, slot: u32) {
        self.slots.end(slot);
    }

    fn begin(&mut self, step: Step<'_>, cache: &mut Cache) {
        self.started = Instant::now();
        assert!(step.tokens.len() <= self.config.rows_max, "{} rows", step.tokens.len());
        cache.grant(step.grants);
        self.step.begin(&step, &self.slots);
    }

    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Tensor) {
        let tokens = &self.step.tokens;
        let out = rows_of_mut(out, tokens.len(), table.cols());
        gather::embed(&self.pool, self.config.isa, table, tokens, scale, out);
    }

    fn rope_table(&mut self, rope: &Rope, out: &mut Tensor) {
        let out = rows_of_mut(out, self.step.rows(), 2 * rope.inv_freq.len());
        rope::rope_table(&self.pool, rope, &self.step.places, out);
    }

    fn embed_add(&mut self, table: &Matrix, rows: &[u32], out: &mut Tensor) {
        assert_eq!(rows.len(), self.step.rows(), "a table row for each row");
        let out = rows_of_mut(out, rows.len(), table.cols());
        gather::embed_add(&self.pool, self.config.isa, table, rows, &self.rows, out);
    }

    fn norm(&mut self, x: &Tensor, how: &Norm<'_, Vector>, out: &mut Tensor) {
        let (rows, how) = (self.step.rows(), norm::Weights::of(how));
        let (x, out) = (rows_of(x, rows, how.width()), rows_of_mut(out, rows, how.width()));
        norm::norm(&self.pool, self.config.isa, x, how, out);
    }

    fn add_norm(
        &mut self,
        residual: &mut Tensor,
        delta: &Tensor,
        scale: f32,
        how: &Norm<'_, Vector>,
        out: &mut Tensor,
    ) {
        let (rows, how) = (self.step.rows(), norm::Weights::of(how));
        let delta = rows_of(delta, rows, how.width());
        let residual = rows_of_mut(residual, rows, how.width());
        let out = rows_of_mut(out, rows, how.width());
        norm::add_norm(&self.pool, self.config.isa, (residual, delta, scale), how, out);
    }

    fn add(&mut self, x: &mut Tensor, delta: &Tensor, scale: f32) {
        let (rows, width) = (self.step.rows(), x.width());
        let (x, delta) = (x.first_mut(rows), rows_of(delta, rows, width));
        norm::add(&self.pool, self.config.isa, (x, delta, scale), width);
    }

    fn matmul(&mut self, x: &Tensor, w: &Matrix, bias: Option<&Vector>, out: &mut Tensor) {
        let rows = self.step.rows();
        let (x, out) = (rows_of(x, rows, w.cols()), rows_of_mut(out, rows, w.rows()));
        let bias = bias.map(Vector::values);
        matmul::matmul(&self.pool, &mut self.products, x, rows, w, bias, out);
    }

    fn adapt(&mut self, x: &Tensor, pairs: &[Option<LowRank>], first: usize, out: &mut Tensor) {
        let (rows, width, out_width) = (self.step.rows(), x.width(), out.width());
        let (isa, segments, x) = (self.config.isa, &self.step.segments, x.first(rows));
        let call = low_rank::Call { isa, segments, pairs, x, width, first, out_width };
        low_rank::adapt(&self.pool, &call, &mut self.adapters, out.first_mut(rows));
    }

    fn heads_matmul(&mut self, x: &Tensor, w: &Matrix, blocks: HeadBlocks, out: &mut Tensor) {
        let rows = self.step.rows();
        let (x, width) = ((x.first(rows), x.width()), out.width());
        let out = (out.first_mut(rows), width);
        matmul::diagonal::diagonal(&self.pool, &mut self.products, x, w, blocks, out);
    }

    fn project(
        &mut self,
        qkv: &mut Tensor,
        how: &Projection<'_, Vector, Tensor>,
        cache: &mut Cache,
        layer: usize,
    ) {
        let (rows, shape) = (self.step.rows(), *cache.shape());
        let fits = (how.kv_heads, how.head_dim) == (shape.kv_heads, shape.head_dim);
        assert!(fits && shape.values == CacheValues::Own, "cache {shape:?}");
        let qkv = rows_of_mut(qkv, rows, (how.heads + 2 * how.kv_heads) * how.head_dim);
        let call = project::Call {
            isa: self.config.isa,
            places: &self.step.places,
            writer: &cache.writer(),
            layer,
        };
        let how = project::Shape::new(how, rows);
        with_element!(shape.element, T => project::project::<T>(&self.pool, &call, &how, qkv));
    }

    fn project_latent(
        &mut self,
        q: &Tensor,
        kv: &Tensor,
        how: &LatentProjection<'_, Vector, Tensor>,
        cache: &mut Cache,
        layer: usize,
        out: &mut Tensor,
    ) {
        let (rows, shape) = (self.step.rows(), *cache.shape());
        let how = project_latent::Shape::new(how, rows);
        let fits =
            (1, how.key(), how.latent) == (shape.kv_heads, shape.head_dim, shape.value_dim());
        assert!(fits && shape.values != CacheValues::Own, "cache {shape:?}");
        let q = rows_of(q, rows, how.heads * (how.plain + how.rotated));
        let kv = rows_of(kv, rows, how.key());
        let out = rows_of_mut(out, rows, how.heads * how.key());
        let call = project::Call {
            isa: self.config.isa,
            places: &self.step.places,
            writer: &cache.writer(),
            layer,
        };
        with_element!(shape.element, T => {
            project_latent::project_latent::<T>(&self.pool, &call, &how, (q, kv), out);
        });
    }

    fn attention(
        &mut self,
        q: &Tensor,
        how: &Attention<'_, Vector>,
        cache: &Cache,
        layer: usize,
        out: &mut Tensor,
    ) {
        let (rows, shape) = (self.step.rows(), cache.shape());
        let fits = (how.kv_heads, how.head_dim) == (shape.kv_heads, shape.head_dim);
        assert!(fits && how.heads * how.head_dim <= q.width(), "{how:?}, cache {shape:?}");
        let out = rows_of_mut(out, rows, how.heads * shape.value_dim());
        let call = attention::Call {
            isa: self.config.isa,
            how,
            segments: &self.step.segments,
            q: q.first(rows),
            width: q.width(),
            cache,
            layer,
        };
        attention::attention(&self.pool, &call, &self.attention, &mut self.plan, out);
    }

    fn activate(
        &mut self,
        x: &Tensor,
        f: Activation,
        gated: bool,
        copies: usize,
        out: &mut Tensor,
    ) {
        let (rows, width) = (self.step.rows() * copies, out.width());
        let x = rows_of(x, rows, if gated { 2 * width } else { width });
        let out = out.first_mut(rows);
        activation::activate(&self.pool, self.config.isa, (f, gated), x, out, width);
    }

    fn gate_rows(&mut self, x: &mut Tensor, gate: &Tensor) {
        let (rows, width) = (self.step.rows(), x.width());
        let gate = (gate.first(rows), gate.width());
        activation::gate_rows(&self.pool, self.config.isa, x.first_mut(rows), gate, width);
    }

    fn route(&mut self, logits: &Tensor, how: &Router<'_, Vector>, routes: &mut Routes) {
        let logits = rows_of(logits, self.step.rows(), routes.experts());
        experts::route(&self.pool, self.config.isa, logits, how, routes);
    }

    fn expert_matmul(
        &mut self,
        x: &Tensor,
        w: &Experts,
        bias: Option<&Vector>,
        routes: &Routes,
        spread: bool,
        out: &mut Tensor,
    ) {
        let (rows, routed) = (self.step.rows(), routes.routed());
        assert_eq!(routes.rows(), rows, "routes of this step");
        let x = rows_of(x, if spread { rows } else { routed }, w.cols());
        let (out, bias) = (rows_of_mut(out, routed, w.rows()), bias.map(Vector::values));
        let call = experts::Call { x, spread, experts: w, bias, routes };
        experts::expert_matmul(&self.pool, &mut self.routed, &call, out);
    }

    fn combine(&mut self, x: &Tensor, routes: &Routes, out: &mut Tensor) {
        let (rows, width) = (self.step.rows(), out.width());
        assert_eq!(routes.rows(), rows, "routes of this step");
        let x = rows_of(x, routes.routed(), width);
        experts::combine(&self.pool, self.config.isa, x, routes, width, out.first_mut(rows));
    }

    fn select(&mut self, x: &Tensor, rows: &[u32], out: &mut Tensor) {
        let (width, x) = (x.width(), x.first(self.step.rows()));
        gather::select(x, rows, rows_of_mut(out, rows.len(), width), width);
    }

    fn logits(
        &mut self,
        x: &Tensor,
        rows: usize,
        head: &Matrix,
        how: &Head<'_, Vector>,
        logits: &mut Tensor,
    ) {
        let x = rows_of(x, rows, head.cols());
        let logits = rows_of_mut(logits, rows, head.rows());
        let bias = how.bias.map(Vector::values);
        matmul::matmul(&self.pool, &mut self.products, x, rows, head, bias, logits);
        activation::cap(&self.pool, self.config.isa, logits, how.scale, how.soft_cap);
    }

    fn sample(&mut self, logits: &mut Tensor, rows: &[SampleRow], masks: &[u32]) {
        let logits = rows_of_mut(logits, rows.len(), self.config.vocab);
        let mut tokens = std::mem::take(&mut self.tokens);
        let mut scored = std::mem::take(&mut self.scored);
        self.batch().sample(logits, (rows, masks), &self.slots, &mut tokens, &mut scored);
        let mut at = 0;
        for chain in chains(rows) {
            let drawn = tokens[at..].iter().zip(&mut scored[at..]);
            for (row, (&(slot, token), scored)) in chain.iter().zip(drawn) {
                self.results.push_token(slot, token);
                if let Some(token) = token {
                    self.slots.drew(slot, token);
                }
                if row.logprobs.is_some() {
                    self.results.take_scored(scored);
                }
                if token.is_none() || row.draft != token {
                    break;
                }
            }
            at += chain.len();
        }
        (self.tokens, self.scored) = (tokens, scored);
    }

    fn score(&mut self, logits: &Tensor, rows: &[LogprobRow]) {
        let logits = rows_of(logits, rows.len(), self.config.vocab);
        let mut scored = std::mem::take(&mut self.scored);
        self.batch().score(logits, rows, &mut scored);
        scored[..rows.len()].iter_mut().for_each(|scored| self.results.take_scored(scored));
        self.scored = scored;
    }

    fn end(&mut self) {
        self.results.end(self.started.elapsed().as_micros() as u64);
    }

    fn collect(&mut self, out: &mut Drawn) -> Result<(), Fault> {
        self.results.collect(out);
        Ok(())
    }

    fn read(&mut self, x: &Tensor, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&x.first(row + 1)[row * x.width()..]);
    }
}
