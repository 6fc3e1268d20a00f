//! [`Cuda`]: joins shapes to ops. Calls between `begin` and `end` are recorded; `end` sends what
//! the step needs up in one copy and queues the work, as a graph when the same step was seen
//! before. A step that is flushed on the way is two such pieces.
//!
//! Device memory is claimed when tensors, weights and the cache are; ops claim nothing. At most
//! two steps are under way, each with a payload, results and marks of its own.

use kernels::{
    Activation, Attention, CacheShape, Compute, Drawn, Error, Fault, Head, HeadBlocks, Kept,
    LatentProjection, LogprobRow, MatrixPart, Norm, Precision, Projection, Rope, Router, SampleRow,
    Sampler, Segment, Step,
};

use crate::arch::Arch;
use crate::gpu::{Gpu, Mark, Pinned};
use crate::matrix::Matrix;
use crate::ops::cache::Cache;
use crate::ops::experts::{Experts, Routes};
use crate::ops::low_rank::LowRank;
use crate::ops::{Rows, activation, attention, experts, gather, low_rank, matmul, norm, project};
use crate::ops::{rope, sample};
use crate::record::{Graphs, Record};
use crate::step::{Payload, bucket};
use crate::tensor::{Kind, Tensor, Vector};
use crate::upload::Upload;

mod begin;
mod memory;

pub use memory::{Memory, memory, rounded_rows};

/// How large the steps of a [`Cuda`] are: its scratch is claimed for this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaConfig {
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
    /// Widest input of a product.
    pub width_max: usize,
    /// Widest result of attention: query heads times the elements of a value.
    pub attended_max: usize,
    /// Whether steps that come again are replayed as graphs.
    pub graphs: bool,
}

/// Steps that may be under way, and one that is being recorded.
const RING: usize = 3;

/// Buffers of a step.
struct Turn {
    /// Rows, segments, lists.
    step: Payload,
    /// Slots that start.
    starts: Payload,
    /// Marks of its beginning and end.
    marks: [Mark; 2],
}

/// A GPU as a device.
pub struct Cuda<G: Gpu> {
    gpu: G,
    config: CudaConfig,
    upload: Upload,
    ops: Ops,
    turns: Vec<Turn>,
    /// The turn that is being recorded, or will be next.
    turn: usize,
    /// Turns that were ended and not collected, oldest first.
    ended: std::collections::VecDeque<usize>,
    /// Whether the current turn's buffers are in use already.
    open: bool,
    /// Whether a first part of the current step is queued already.
    flushed: bool,
    /// Slots that start: never the same twice, so never a graph.
    before: Record,
    record: Record,
    graphs: Graphs<G>,
    rows: Rows,
    segments: Vec<Segment>,
    /// Where a row is copied out to.
    read: Pinned,
}

/// All ops.
struct Ops {
    norm: norm::Norms,
    gather: gather::Gather,
    rope: rope::Ropes,
    matmul: matmul::Matmul,
    project: project::Project,
    attention: attention::Attend,
    activation: activation::Activations,
    experts: experts::Mixture,
    low_rank: low_rank::Adapters,
    sample: sample::Sampling,
}

impl<G: Gpu> Cuda<G> {
    /// Finds every kernel and claims all scratch.
    ///
    /// # Errors
    /// The device is too old, has no memory, or there are no kernels for it.
    pub fn new(mut gpu: G, config: CudaConfig) -> Result<Self, Error> {
        let properties = gpu.properties().clone();
        let arch = Arch::of(&properties).ok_or_else(|| {
            let (name, capability) = (&properties.name, properties.capability);
            let (major, minor) = (capability / 10, capability % 10);
            Error::Unsupported(format!(
                "{name} has compute capability {major}.{minor}; 8.0 is the least"
            ))
        })?;
        let gpu_ref = &mut gpu;
        let ops = Ops {
            norm: norm::Norms::load(gpu_ref)?,
            gather: gather::Gather::load(gpu_ref)?,
            rope: rope::Ropes::load(gpu_ref)?,
            matmul: matmul::Matmul::new(gpu_ref, arch, &config)?,
            project: project::Project::load(gpu_ref)?,
            attention: attention::Attend::new(gpu_ref, arch, &config)?,
            activation: activation::Activations::load(gpu_ref)?,
            experts: experts::Mixture::new(gpu_ref, &config)?,
            low_rank: low_rank::Adapters::new(gpu_ref, &config)?,
            sample: sample::Sampling::new(gpu_ref, &config, RING)?,
        };
        let upload = Upload::new(gpu_ref)?;
        let read = gpu_ref.pinned(4 * config.width_max.max(config.vocab))?;
        let turns = memory::turns(gpu_ref, &config)?;
        Ok(Self {
            upload,
            ops,
            turns,
            turn: 0,
            ended: std::collections::VecDeque::with_capacity(RING),
            open: false,
            flushed: false,
            before: Record::default(),
            record: Record::default(),
            graphs: Graphs::new(config.graphs),
            rows: begin::no_rows(),
            segments: Vec::with_capacity(config.rows_max),
            read,
            gpu,
            config,
        })
    }

    /// Graphs made so far.
    #[must_use]
    pub fn graphs(&self) -> usize {
        self.graphs.len()
    }

    /// The device below, for measurements.
    pub fn gpu(&mut self) -> &mut G {
        &mut self.gpu
    }

    /// Rows of a buffer with room for `rows` rows and those that rounding adds.
    fn rounded(&self, rows: usize) -> usize {
        let steps = rows.div_ceil(self.config.rows_max).max(1);
        // A buffer of a step's rows, or of some copies of each.
        if rows.is_multiple_of(self.config.rows_max) {
            steps * bucket(self.config.rows_max)
        } else {
            bucket(rows)
        }
    }
}

impl<G: Gpu> Compute for Cuda<G> {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type Cache = Cache;
    type Experts = Experts;
    type Routes = Routes;
    type LowRank = LowRank;

    fn drafts_max(&self) -> usize {
        // Every row of a step draws in a block of its own, at once.
        0
    }

    fn describe(&self) -> String {
        let properties = self.gpu.properties();
        let (major, minor) = (properties.capability / 10, properties.capability % 10);
        let (name, precision) = (&properties.name, self.config.precision);
        let units = properties.multiprocessors;
        format!("{name}, compute capability {major}.{minor}, {units} SMs, {precision:?}")
    }

    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Matrix, Error> {
        Matrix::load(&mut self.gpu, &mut self.upload, parts, self.config.precision)
    }

    fn load_experts(&mut self, matrices: Vec<Matrix>) -> Result<Experts, Error> {
        Experts::new(&mut self.gpu, &mut self.upload, matrices)
    }

    fn load_low_rank(
        &mut self,
        down: &[f32],
        up: &[f32],
        rank: usize,
        scale: f32,
    ) -> Result<LowRank, Error> {
        let Self { gpu, upload, ops, .. } = self;
        ops.low_rank.load_pair(gpu, upload, (down, up), rank, scale)
    }

    fn routes(&mut self, rows: usize, top_k: usize, experts: usize) -> Result<Routes, Error> {
        let rows = self.rounded(rows);
        Routes::new(&mut self.gpu, rows, top_k, experts)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector, Error> {
        let Self { gpu, upload, .. } = self;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let address = gpu.claim("a vector", bytes.len().max(4))?;
        upload.send(gpu, address, (bytes.len(), 4), |from, part| {
            part.copy_from_slice(&bytes[from..from + part.len()]);
        })?;
        upload.finish(gpu)?;
        Ok(Vector { address, len: values.len() })
    }

    fn tensor(&mut self, rows: usize, width: usize, kept: Kept) -> Result<Tensor, Error> {
        let kind = Kind::of(kept, self.config.precision);
        let rows = self.rounded(rows);
        let bytes = memory::tensor_bytes(rows, width, kind);
        let address = self.gpu.claim("activations", bytes)?;
        self.gpu.fill(address, bytes, 0);
        Ok(Tensor { address, rows, width, kind })
    }

    fn cache(&mut self, shape: CacheShape) -> Result<Cache, Error> {
        Cache::new(&mut self.gpu, shape)
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.bytes()
    }

    fn experts_bytes(&self, experts: &Experts) -> usize {
        experts.bytes()
    }

    fn start_slot(&mut self, slot: u32, tokens: &[u32], prompt_len: u32, sampler: &Sampler) {
        self.open_turn();
        let needed = sample::start_bytes(tokens, sampler);
        if self.turns[self.turn].starts.room() < needed {
            self.flush_starts();
        }
        let starts = &mut self.turns[self.turn].starts;
        let before = (&mut self.before, starts);
        self.ops.sample.start(before, slot, tokens, prompt_len, sampler);
    }

    fn end_slot(&mut self, slot: u32) {
        self.ops.sample.end(slot);
    }

    fn begin(&mut self, step: Step<'_>, cache: &mut Cache) {
        self.open_turn();
        self.begin_step(&step, cache);
    }

    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Tensor) {
        let last = self.ops.sample.last();
        self.ops.gather.embed(&mut self.record, &self.rows, last, (table, scale), out);
    }

    fn rope_table(&mut self, rope: &Rope, out: &mut Tensor) {
        let payload = &mut self.turns[self.turn].step;
        self.ops.rope.table(&mut self.record, payload, &self.rows, rope, out);
    }

    fn embed_add(&mut self, table: &Matrix, rows: &[u32], out: &mut Tensor) {
        let payload = &mut self.turns[self.turn].step;
        let list = payload.list(rows, self.rows.rows, 0);
        self.ops.gather.embed_add(&mut self.record, self.rows.rows, list, table, out);
    }

    fn norm(&mut self, x: &Tensor, how: &Norm<'_, Vector>, out: &mut Tensor) {
        self.ops.norm.norm(&mut self.record, self.rows.rows, x, None, how, out);
    }

    fn add_norm(
        &mut self,
        residual: &mut Tensor,
        delta: &Tensor,
        scale: f32,
        how: &Norm<'_, Vector>,
        out: &mut Tensor,
    ) {
        let delta = Some((delta, scale));
        self.ops.norm.norm(&mut self.record, self.rows.rows, residual, delta, how, out);
    }

    fn add(&mut self, x: &mut Tensor, delta: &Tensor, scale: f32) {
        self.ops.norm.add(&mut self.record, self.rows.rows, x, delta, scale);
    }

    fn matmul(&mut self, x: &Tensor, w: &Matrix, bias: Option<&Vector>, out: &mut Tensor) {
        let Self { gpu, ops, record, rows, .. } = self;
        let call = matmul::Call { rows: rows.rows, x, w, bias, out, finish: matmul::Finish::NONE };
        ops.matmul.matmul(gpu, record, &call);
    }

    fn adapt(&mut self, x: &Tensor, pairs: &[Option<LowRank>], first: usize, out: &mut Tensor) {
        if self.segments.iter().all(|segment| segment.adapter == 0) {
            return;
        }
        let payload = &mut self.turns[self.turn].step;
        self.ops.low_rank.adapt((&mut self.record, payload), &self.rows, (x, pairs), first, out);
    }

    fn heads_matmul(&mut self, x: &Tensor, w: &Matrix, blocks: HeadBlocks, out: &mut Tensor) {
        let Self { gpu, ops, record, rows, .. } = self;
        ops.matmul.heads(gpu, record, rows.rows, (x, w, blocks), out);
    }

    fn project(
        &mut self,
        qkv: &mut Tensor,
        how: &Projection<'_, Vector, Tensor>,
        cache: &mut Cache,
        layer: usize,
    ) {
        self.ops.project.project(&mut self.record, &self.rows, qkv, how, cache, layer);
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
        let Self { ops, record, rows, .. } = self;
        ops.project.project_latent(record, rows, (q, kv), how, (cache, layer), out);
    }

    fn attention(
        &mut self,
        q: &Tensor,
        how: &Attention<'_, Vector>,
        cache: &Cache,
        layer: usize,
        out: &mut Tensor,
    ) {
        let Self { ops, record, rows, segments, turns, turn, .. } = self;
        let payload = &mut turns[*turn].step;
        let call = attention::Call { rows, segments, q, how, cache, layer, out };
        ops.attention.attention(record, payload, &call);
    }

    fn activate(
        &mut self,
        x: &Tensor,
        f: Activation,
        gated: bool,
        copies: usize,
        out: &mut Tensor,
    ) {
        let rows = self.rows.rows * copies;
        self.ops.activation.activate(&mut self.record, rows, (x, f, gated), out);
    }

    fn gate_rows(&mut self, x: &mut Tensor, gate: &Tensor) {
        self.ops.activation.gate_rows(&mut self.record, self.rows.rows, x, gate);
    }

    fn route(&mut self, logits: &Tensor, how: &Router<'_, Vector>, routes: &mut Routes) {
        self.ops.experts.route(&mut self.record, &self.rows, logits, how, routes);
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
        let call = experts::Call { x, w, bias, routes, spread, out };
        self.ops.experts.matmul(&mut self.record, self.rows.rows, &call);
    }

    fn combine(&mut self, x: &Tensor, routes: &Routes, out: &mut Tensor) {
        self.ops.experts.combine(&mut self.record, self.rows.rows, x, routes, out);
    }

    fn select(&mut self, x: &Tensor, rows: &[u32], out: &mut Tensor) {
        let room = bucket(rows.len());
        let list = self.turns[self.turn].step.list(rows, room, 0);
        self.ops.gather.select(&mut self.record, room, list, x, out);
    }

    fn logits(
        &mut self,
        x: &Tensor,
        rows: usize,
        head: &Matrix,
        how: &Head<'_, Vector>,
        logits: &mut Tensor,
    ) {
        let Self { gpu, ops, record, .. } = self;
        let finish = matmul::Finish { scale: how.scale, soft_cap: how.soft_cap };
        let call =
            matmul::Call { rows: bucket(rows), x, w: head, bias: how.bias, out: logits, finish };
        ops.matmul.matmul(gpu, record, &call);
    }

    fn sample(&mut self, logits: &mut Tensor, rows: &[SampleRow], masks: &[u32]) {
        assert!(rows.iter().all(|row| row.draft.is_none()), "a device that takes no drafts");
        let Self { ops, record, turns, turn, .. } = self;
        ops.sample.sample(record, (&mut turns[*turn].step, *turn), logits, (rows, masks));
    }

    fn score(&mut self, logits: &Tensor, rows: &[LogprobRow]) {
        let Self { ops, record, turns, turn, .. } = self;
        ops.sample.score(record, (&mut turns[*turn].step, *turn), logits, rows);
    }

    fn flush(&mut self) {
        self.flush_step();
    }

    fn end(&mut self) {
        self.end_step();
    }

    fn collect(&mut self, out: &mut Drawn) -> Result<(), Fault> {
        let turn = self.ended.pop_front().expect("a step that was ended");
        let [start, end] = self.turns[turn].marks;
        self.gpu.wait(end)?;
        self.ops.sample.collect(turn, out);
        out.elapsed_us = self.gpu.elapsed_us(start, end);
        Ok(())
    }

    fn read(&mut self, x: &Tensor, row: usize, out: &mut [f32]) {
        self.read_row(x, row, out);
    }
}
