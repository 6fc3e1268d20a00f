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
mod gather;
pub mod isa;
mod lanes;
mod math;
pub mod matmul;
pub mod matrix;
mod norm;
pub mod pool;
mod project;
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
use isa::Isa;
use matrix::Matrix;
use pool::Pool;
use results::Results;
use slots::Slots;
use step::Current;
use tensor::PerWorker;
pub use tensor::{Tensor, Vector};

use crate::compute::{
    Attention, CacheShape, Compute, Drawn, Error, Fault, LogprobRow, MatrixPart, Precision,
    Projection, Rope, SampleRow, Sampler, Scored, Step,
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
    attention: PerWorker<attention::Scratch>,
    plan: attention::Plan,
    sampling: PerWorker<sample::Scratch>,
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
            attention: PerWorker::new(workers, attention::Scratch::new),
            plan: attention::Plan::default(),
            sampling: PerWorker::new(workers, || sample::Scratch::new(vocab)),
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

    fn describe(&self) -> String {
        let Self { config, pool, .. } = self;
        let (isa, threads) = (config.isa.name(), pool.threads());
        format!("CPU, {isa}, {threads} threads, {:?}", config.precision)
    }

    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Matrix, Error> {
        let matrix = Matrix::pack(parts, self.config.precision, self.config.isa, &self.pool)?;
        self.products.reserve(self.config.rows_max, matrix.cols())?;
        Ok(matrix)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector, Error> {
        Vector::new(values)
    }

    fn tensor(&mut self, rows: usize, width: usize) -> Result<Tensor, Error> {
        Tensor::zeroed(rows, width)
    }

    fn cache(&mut self, shape: CacheShape) -> Result<Cache, Error> {
        Cache::new(shape)
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.bytes()
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
        self.step.begin(&step, |slot| self.slots.last(slot));
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

    fn rms_norm(&mut self, x: &Tensor, weight: &Vector, eps: f32, out: &mut Tensor) {
        let (rows, weight) = (self.step.rows(), weight.values());
        let (x, out) = (rows_of(x, rows, weight.len()), rows_of_mut(out, rows, weight.len()));
        norm::rms_norm(&self.pool, self.config.isa, x, weight, eps, out);
    }

    fn add_rms_norm(
        &mut self,
        residual: &mut Tensor,
        delta: &Tensor,
        weight: &Vector,
        eps: f32,
        out: &mut Tensor,
    ) {
        let (rows, weight) = (self.step.rows(), weight.values());
        let delta = rows_of(delta, rows, weight.len());
        let residual = rows_of_mut(residual, rows, weight.len());
        let out = rows_of_mut(out, rows, weight.len());
        norm::add_rms_norm(&self.pool, self.config.isa, (residual, delta), weight, eps, out);
    }

    fn add(&mut self, x: &mut Tensor, delta: &Tensor) {
        let (rows, width) = (self.step.rows(), x.width());
        let (x, delta) = (x.first_mut(rows), rows_of(delta, rows, width));
        norm::add(&self.pool, self.config.isa, x, delta, width);
    }

    fn matmul(&mut self, x: &Tensor, w: &Matrix, bias: Option<&Vector>, out: &mut Tensor) {
        let rows = self.step.rows();
        let (x, out) = (rows_of(x, rows, w.cols()), rows_of_mut(out, rows, w.rows()));
        let bias = bias.map(Vector::values);
        matmul::matmul(&self.pool, &mut self.products, x, rows, w, bias, out);
    }

    fn project(
        &mut self,
        qkv: &mut Tensor,
        how: &Projection<'_, Vector, Tensor>,
        cache: &mut Cache,
        layer: usize,
    ) {
        let rows = self.step.rows();
        let (heads, kv_heads, head_dim) = (how.heads, how.kv_heads, how.head_dim);
        let shape = cache.shape();
        assert!(shape.kv_heads == kv_heads && shape.head_dim == head_dim, "cache shape");
        let qkv = rows_of_mut(qkv, rows, (heads + 2 * kv_heads) * head_dim);
        let shape = project::Shape {
            heads,
            kv_heads,
            head_dim,
            q_norm: how.q_norm.map(Vector::values),
            k_norm: how.k_norm.map(Vector::values),
            norm_eps: how.norm_eps,
            rope: how.rope.map(|table| (table.first(rows), table.width())),
            interleaved: how.interleaved,
        };
        let (element, places) = (cache.shape().element, &self.step.places);
        let to = (&cache.writer(), layer);
        with_element!(element, T => {
            project::project::<T>(&self.pool, self.config.isa, &shape, qkv, places, to);
        });
    }

    fn attention(
        &mut self,
        qkv: &Tensor,
        how: &Attention,
        cache: &Cache,
        layer: usize,
        out: &mut Tensor,
    ) {
        let rows = self.step.rows();
        let shape = cache.shape();
        assert!(shape.kv_heads == how.kv_heads && shape.head_dim == how.head_dim, "cache shape");
        let width = (how.heads + 2 * how.kv_heads) * how.head_dim;
        let out = rows_of_mut(out, rows, how.heads * how.head_dim);
        let call = attention::Call {
            isa: self.config.isa,
            how,
            segments: &self.step.segments,
            qkv: rows_of(qkv, rows, width),
            width,
            cache,
            layer,
        };
        attention::attention(&self.pool, &call, &self.attention, &mut self.plan, out);
    }

    fn silu_mul(&mut self, gate_up: &Tensor, out: &mut Tensor) {
        let (rows, width) = (self.step.rows(), out.width());
        let (gate_up, out) = (rows_of(gate_up, rows, 2 * width), out.first_mut(rows));
        activation::silu_mul(&self.pool, self.config.isa, gate_up, out, width);
    }

    fn select(&mut self, x: &Tensor, rows: &[u32], out: &mut Tensor) {
        let (width, x) = (x.width(), x.first(self.step.rows()));
        gather::select(x, rows, rows_of_mut(out, rows.len(), width), width);
    }

    fn logits(&mut self, x: &Tensor, rows: usize, head: &Matrix, logits: &mut Tensor) {
        let x = rows_of(x, rows, head.cols());
        let logits = rows_of_mut(logits, rows, head.rows());
        matmul::matmul(&self.pool, &mut self.products, x, rows, head, None, logits);
    }

    fn sample(&mut self, logits: &mut Tensor, rows: &[SampleRow]) {
        let logits = rows_of_mut(logits, rows.len(), self.config.vocab);
        let mut tokens = std::mem::take(&mut self.tokens);
        let mut scored = std::mem::take(&mut self.scored);
        self.batch().sample(logits, rows, &self.slots, &mut tokens, &mut scored);
        for ((row, &(slot, token)), scored) in rows.iter().zip(&tokens).zip(&mut scored) {
            self.results.push_token(slot, token);
            if let Some(token) = token {
                self.slots.drew(slot, token);
            }
            if row.logprobs.is_some() {
                self.results.take_scored(scored);
            }
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
