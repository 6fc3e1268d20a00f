//! A device that computes nothing. It checks the shapes of every call and draws the tokens that
//! a script says, so tests and benches see the runner's own work alone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::spec::{
    AttentionSpec, DenseSpec, EmbeddingSpec, HeadNormSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec,
    NormSpec, Order, Role,
};
use engine::weights::{LoadError, Look, TensorView, Weights};
use kernels::compute::Scored;
use kernels::{
    Activation, Attention, CacheShape, Compute, Drawn, Error, Fault, Format, Head, HeadBlocks,
    HeadNorm, Kept, LatentProjection, LogprobRow, MatrixPart, Norm, NormKind, Projection, Rope,
    Router, SampleRow, Sampler, Step,
};

/// What the device does, shared with the test that drives it.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Slots whose logits are not numbers.
    pub(crate) broken: Vec<u32>,
    /// What the next calls of `collect` report, `None` for success.
    pub(crate) faults: VecDeque<Option<Fault>>,
    /// Slots given back.
    pub(crate) ended: Vec<u32>,
    /// Slots started: slot, tokens, prompt length, sampler. Kept only when `record` is set.
    pub(crate) started: Vec<(u32, Vec<u32>, u32, Sampler)>,
    /// Rows sampled in each call of `sample`. Kept only when `record` is set.
    pub(crate) sampled: Vec<Vec<SampleRow>>,
    /// Rows scored in each call of `score`. Kept only when `record` is set.
    pub(crate) scored: Vec<Vec<LogprobRow>>,
    /// Page grants of all steps: slot, index, page. Kept only when `record` is set.
    pub(crate) granted: Vec<(u32, u32, u32)>,
    /// Calls that begin, flush and end steps, that draw and collect, in order. Kept only when
    /// `record` is set.
    pub(crate) calls: Vec<&'static str>,
    /// What the device has no memory for, if anything: `matrix`, `tensor` or `cache`.
    pub(crate) full_for: Option<&'static str>,
    /// Whether the lists above grow.
    pub(crate) record: bool,
}

/// The device.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    /// See [`Script`].
    pub(crate) script: Rc<RefCell<Script>>,
    rows: usize,
    current: Drawn,
    ended: VecDeque<Drawn>,
    spare: Vec<Drawn>,
}

/// The token that is drawn at a position, unless its mask forbids it: then the next that it allows.
pub(crate) fn drawn_at(slot: u32, position: u32) -> u32 {
    (slot * 31 + position * 7) % 64
}

/// Rows and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape(usize, usize);

impl Script {
    fn call(&mut self, name: &'static str) {
        if self.record {
            self.calls.push(name);
        }
    }
}

impl Fake {
    /// A device that follows `script`.
    pub(crate) fn new(script: Rc<RefCell<Script>>) -> Self {
        let spare = vec![Drawn::default(); 3];
        Self { script, spare, ..Self::default() }
    }

    fn claim(&self, what: &'static str, wanted: usize) -> Result<(), Error> {
        if self.script.borrow().full_for == Some(what) {
            return Err(Error::OutOfMemory { what, wanted });
        }
        Ok(())
    }

    fn fits(&self, tensors: &[(Shape, usize)]) {
        for (Shape(rows, width), expected) in tensors {
            assert!(self.rows <= *rows, "{} rows in a tensor of {rows}", self.rows);
            assert_eq!(width, expected, "width");
        }
    }
}

impl Compute for Fake {
    type Matrix = Shape;
    type Vector = usize;
    type Tensor = Shape;
    type Cache = CacheShape;
    type Experts = Vec<Shape>;
    type Routes = Shape;
    type LowRank = Shape;

    fn drafts_max(&self) -> usize {
        15
    }

    fn describe(&self) -> String {
        "fake".to_owned()
    }

    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Shape, Error> {
        assert!(parts.iter().all(|part| part.cols == parts[0].cols), "columns");
        self.claim("matrix", 1000)?;
        Ok(Shape(parts.iter().map(|part| part.rows).sum(), parts[0].cols))
    }

    fn load_experts(&mut self, matrices: Vec<Shape>) -> Result<Vec<Shape>, Error> {
        assert!(matrices.iter().all(|matrix| *matrix == matrices[0]), "experts of one shape");
        Ok(matrices)
    }

    fn load_low_rank(
        &mut self,
        down: &[f32],
        up: &[f32],
        rank: usize,
        _scale: f32,
    ) -> Result<Shape, Error> {
        self.claim("adapter", 4 * (down.len() + up.len()))?;
        Ok(Shape(up.len() / rank, down.len() / rank))
    }

    fn routes(&mut self, rows: usize, top_k: usize, _experts: usize) -> Result<Shape, Error> {
        Ok(Shape(rows, top_k))
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<usize, Error> {
        Ok(values.len())
    }

    fn tensor(&mut self, rows: usize, width: usize, _: Kept) -> Result<Shape, Error> {
        self.claim("tensor", 4 * rows * width)?;
        Ok(Shape(rows, width))
    }

    fn cache(&mut self, shape: CacheShape) -> Result<CacheShape, Error> {
        self.claim("cache", shape.pages * shape.page_bytes())?;
        Ok(shape)
    }

    fn matrix_bytes(&self, matrix: &Shape) -> usize {
        matrix.0 * matrix.1
    }

    fn experts_bytes(&self, experts: &Vec<Shape>) -> usize {
        experts.iter().map(|matrix| matrix.0 * matrix.1).sum()
    }

    fn start_slot(&mut self, slot: u32, tokens: &[u32], prompt_len: u32, sampler: &Sampler) {
        let mut script = self.script.borrow_mut();
        if script.record {
            script.started.push((slot, tokens.to_vec(), prompt_len, sampler.clone()));
        }
    }

    fn end_slot(&mut self, slot: u32) {
        let mut script = self.script.borrow_mut();
        if script.record {
            script.ended.push(slot);
        }
    }

    fn begin(&mut self, step: Step<'_>, cache: &mut CacheShape) {
        self.rows = step.tokens.len();
        let mut next = 0;
        for segment in step.segments {
            assert!((segment.slot as usize) < cache.slots, "slot");
            assert_eq!(segment.row, next, "segments lie one after the other");
            next += segment.len;
        }
        assert_eq!(next as usize, self.rows, "segments cover all tokens");
        let mut script = self.script.borrow_mut();
        if script.record {
            let grants = step.grants.iter().map(|grant| (grant.slot, grant.index, grant.page));
            script.granted.extend(grants);
        }
    }

    fn embed(&mut self, table: &Shape, _scale: f32, out: &mut Shape) {
        self.fits(&[(*out, table.1)]);
    }

    fn rope_table(&mut self, rope: &Rope, out: &mut Shape) {
        self.fits(&[(*out, 2 * rope.inv_freq.len())]);
    }

    fn embed_add(&mut self, table: &Shape, rows: &[u32], out: &mut Shape) {
        self.fits(&[(*out, table.1)]);
        assert_eq!(rows.len(), self.rows, "an index for each row");
        assert!(rows.iter().all(|row| (*row as usize) < table.0), "rows of a table");
    }

    fn norm(&mut self, x: &Shape, how: &Norm<'_, usize>, out: &mut Shape) {
        self.fits(&[(*x, *how.weight), (*out, *how.weight)]);
        assert!(how.bias.is_none_or(|len| len == how.weight), "bias");
    }

    fn add_norm(
        &mut self,
        residual: &mut Shape,
        delta: &Shape,
        _scale: f32,
        how: &Norm<'_, usize>,
        out: &mut Shape,
    ) {
        self.fits(&[(*residual, *how.weight), (*delta, *how.weight), (*out, *how.weight)]);
    }

    fn add(&mut self, x: &mut Shape, delta: &Shape, _scale: f32) {
        self.fits(&[(*x, delta.1)]);
    }

    fn matmul(&mut self, x: &Shape, w: &Shape, bias: Option<&usize>, out: &mut Shape) {
        self.fits(&[(*x, w.1), (*out, w.0)]);
        assert!(bias.is_none_or(|len| *len == w.0), "bias");
    }

    fn adapt(&mut self, x: &Shape, pairs: &[Option<Shape>], first: usize, out: &mut Shape) {
        for Shape(rows, cols) in pairs.iter().flatten() {
            self.fits(&[(*x, *cols)]);
            assert!(first + rows <= out.1, "columns of an adapter");
        }
    }

    fn heads_matmul(&mut self, x: &Shape, w: &Shape, blocks: HeadBlocks, out: &mut Shape) {
        self.fits(&[(*x, x.1), (*out, out.1)]);
        let HeadBlocks { heads, x_stride, out_stride } = blocks;
        assert!(w.0.is_multiple_of(heads) && w.1 <= x_stride && w.0 / heads <= out_stride, "heads");
    }

    fn project(
        &mut self,
        qkv: &mut Shape,
        how: &Projection<'_, usize, Shape>,
        cache: &mut CacheShape,
        layer: usize,
    ) {
        self.fits(&[(*qkv, (how.heads + 2 * how.kv_heads) * how.head_dim)]);
        assert!(layer < cache.layers, "layer");
        assert_eq!((how.kv_heads, how.head_dim), (cache.kv_heads, cache.head_dim), "heads");
    }

    fn project_latent(
        &mut self,
        q: &Shape,
        kv: &Shape,
        how: &LatentProjection<'_, usize, Shape>,
        cache: &mut CacheShape,
        layer: usize,
        out: &mut Shape,
    ) {
        let rotated = how.rope.1;
        self.fits(&[
            (*q, how.heads * (how.plain + rotated)),
            (*kv, how.latent + rotated),
            (*out, how.heads * (how.latent + rotated)),
        ]);
        assert!(layer < cache.layers, "layer");
        assert_eq!((1, how.latent + rotated), (cache.kv_heads, cache.head_dim), "heads");
    }

    fn attention(
        &mut self,
        q: &Shape,
        how: &Attention<'_, usize>,
        cache: &CacheShape,
        _layer: usize,
        out: &mut Shape,
    ) {
        self.fits(&[(*q, q.1), (*out, how.heads * cache.value_dim())]);
        assert!(how.heads * how.head_dim <= q.1, "queries");
        assert!(how.sinks.is_none_or(|len| *len == how.heads), "sinks");
    }

    fn activate(&mut self, x: &Shape, _f: Activation, gated: bool, copies: usize, out: &mut Shape) {
        assert!(self.rows * copies <= x.0 && self.rows * copies <= out.0, "rows");
        assert_eq!(x.1, if gated { 2 * out.1 } else { out.1 }, "width");
    }

    fn gate_rows(&mut self, x: &mut Shape, gate: &Shape) {
        self.fits(&[(*x, x.1), (*gate, 1)]);
    }

    fn route(&mut self, logits: &Shape, how: &Router<'_, usize>, routes: &mut Shape) {
        self.fits(&[(*logits, logits.1)]);
        assert_eq!(how.top_k, routes.1, "experts of a row");
        assert!(how.correction.is_none_or(|len| *len == logits.1), "correction");
    }

    fn expert_matmul(
        &mut self,
        x: &Shape,
        w: &Vec<Shape>,
        bias: Option<&usize>,
        routes: &Shape,
        spread: bool,
        out: &mut Shape,
    ) {
        let copies = self.rows * routes.1;
        assert!(x.0 >= if spread { self.rows } else { copies } && out.0 >= copies, "rows");
        assert_eq!((x.1, out.1), (w[0].1, w[0].0), "shape of an expert");
        assert!(bias.is_none_or(|len| *len == w.len() * w[0].0), "bias");
    }

    fn combine(&mut self, x: &Shape, routes: &Shape, out: &mut Shape) {
        assert!(x.0 >= self.rows * routes.1, "rows");
        self.fits(&[(*out, x.1)]);
    }

    fn select(&mut self, x: &Shape, rows: &[u32], out: &mut Shape) {
        assert!(rows.len() <= out.0 && x.1 == out.1, "selection");
        assert!(rows.iter().all(|row| (*row as usize) < self.rows), "selected rows");
    }

    fn logits(
        &mut self,
        x: &Shape,
        rows: usize,
        head: &Shape,
        how: &Head<'_, usize>,
        logits: &mut Shape,
    ) {
        assert!(how.bias.is_none_or(|len| *len == head.0), "bias of the head");
        assert!(rows <= x.0 && rows <= logits.0, "rows of logits");
        assert_eq!((x.1, logits.1), (head.1, head.0), "shape of the head");
    }

    fn sample(&mut self, logits: &mut Shape, rows: &[SampleRow], masks: &[u32]) {
        let words = kernels::mask_words(logits.1);
        assert!(masks.len().is_multiple_of(words), "masks of {words} words");
        let mut script = self.script.borrow_mut();
        let (mut follows, mut over) = (false, false);
        for row in rows {
            over &= follows;
            follows = row.draft.is_some();
            if over {
                continue;
            }
            let masked = row.mask.is_none_or(|mask| (mask as usize) < masks.len() / words);
            assert!(masked, "no such mask: {row:?}");
            let first = drawn_at(row.slot, row.position);
            let vocab = logits.1 as u32;
            let allowed = |token: &u32| {
                let word = |mask: u32| masks[mask as usize * words + *token as usize / 32];
                row.mask.is_none_or(|mask| word(mask) >> (token % 32) & 1 == 1)
            };
            let token = (0..vocab).map(|i| (first + i) % vocab).find(allowed);
            let broken = script.broken.contains(&row.slot);
            let token = token.filter(|_| !broken);
            self.current.tokens.push((row.slot, token));
            over = token != row.draft;
            if let Some(top) = row.logprobs {
                self.current.logprobs.push(scored(row.slot, row.position, first, top));
            }
        }
        script.call("sample");
        if script.record {
            script.sampled.push(rows.to_vec());
        }
    }

    fn score(&mut self, _logits: &Shape, rows: &[LogprobRow]) {
        let mut script = self.script.borrow_mut();
        for row in rows {
            let mut scored = scored(row.slot, row.position, row.token, row.top);
            if script.broken.contains(&row.slot) {
                scored.logprob = f32::NAN;
            }
            self.current.logprobs.push(scored);
        }
        if script.record {
            script.scored.push(rows.to_vec());
        }
    }

    fn flush(&mut self) {
        self.script.borrow_mut().call("flush");
    }

    fn end(&mut self) {
        self.script.borrow_mut().call("end");
        let mut next = self.spare.pop().expect("at most two steps in flight");
        next.tokens.clear();
        next.logprobs.clear();
        self.ended.push_back(std::mem::replace(&mut self.current, next));
    }

    fn collect(&mut self, out: &mut Drawn) -> Result<(), Fault> {
        self.script.borrow_mut().call("collect");
        let mut drawn = self.ended.pop_front().expect("a step to collect");
        drawn.elapsed_us = 7;
        std::mem::swap(out, &mut drawn);
        self.spare.push(drawn);
        self.script.borrow_mut().faults.pop_front().flatten().map_or(Ok(()), Err)
    }

    fn read(&mut self, _x: &Shape, _row: usize, out: &mut [f32]) {
        out.fill(0.0);
    }
}

fn scored(slot: u32, position: u32, token: u32, top: u32) -> Scored {
    let top = (0..top).map(|n| (n, -(n as f32))).collect();
    Scored { slot, position, token, logprob: -0.5, rank: 2, top }
}

/// Weights of any shape, all zero.
#[derive(Debug, Default)]
pub(crate) struct NoWeights {
    zeros: Vec<u8>,
}

impl NoWeights {
    /// Enough zeros for this model.
    pub(crate) fn of(spec: &ModelSpec) -> Self {
        let width = spec.layers[0].mlp.width();
        let rows = spec.vocab.max(4 * width).max(4 * spec.hidden);
        let cols = spec.hidden.max(width);
        Self { zeros: vec![0; 4 * rows * cols] }
    }
}

impl Weights for NoWeights {
    fn look(&self, _role: Role, rows: usize, cols: usize) -> Result<Look, LoadError> {
        Ok(Look { format: Format::F32, bytes: 4 * (rows * cols) as u64 })
    }

    fn tensor(&self, _role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let bytes = self.zeros[..4 * rows * cols].into();
        Ok(TensorView { format: Format::F32, rows, cols, bytes, order: None })
    }

    fn vector(&self, _role: Role, len: usize) -> Result<Vec<f32>, LoadError> {
        Ok(vec![0.0; len])
    }

    fn not_plain(&self, role: Role, _format: Format) -> LoadError {
        unreachable!("all of them are plain: {role:?}")
    }
}

/// A small Llama of this many layers.
pub(crate) fn small_spec(layers: usize) -> ModelSpec {
    let attention = AttentionSpec {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        scale: 1.0,
        window: None,
        rope: Some(0),
        soft_cap: None,
        sinks: false,
        qk_norm: Some(HeadNormSpec {
            reach: HeadNorm::Each,
            kind: NormKind::Rms,
            own_weights: false,
            eps: 1e-5,
            offset: 0.0,
        }),
        qkv_bias: true,
        out_bias: true,
        latent: None,
    };
    let mlp = DenseSpec { width: 48, activation: Activation::Silu, gated: true, bias: true };
    let layer = LayerSpec {
        order: Order::Pre,
        attention_norm: true,
        residual_scale: 1.0,
        attention,
        mlp: MlpSpec::Dense(mlp),
    };
    let rope = Rope { inv_freq: vec![1.0; 4], magnitude: 1.0, interleaved: false, beyond: None };
    ModelSpec {
        family: "fake",
        hidden: 24,
        vocab: 64,
        context: 4096,
        embedding: EmbeddingSpec { scale: 1.0, positions: None, types: None, norm: false },
        norm: NormSpec { kind: NormKind::Rms, eps: 1e-5, offset: 0.0, bias: false },
        ropes: vec![rope],
        layers: vec![layer; layers],
        final_norm: true,
        head: Some(HeadSpec { tied: true, bias: false, scale: 1.0, soft_cap: None }),
        causal: true,
        vision: None,
    }
}
