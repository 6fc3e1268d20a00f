//! A device that computes nothing. It checks the shapes of every call and draws the tokens that
//! a script says, so tests and benches see the runner's own work alone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::spec::{AttentionSpec, LayerSpec, MlpSpec, ModelSpec, Role};
use engine::weights::{LoadError, TensorView, Weights};
use kernels::compute::Scored;
use kernels::{
    Attention, CacheShape, Compute, Drawn, Error, Fault, Format, LogprobRow, MatrixPart,
    Projection, Rope, SampleRow, Sampler, Step,
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

/// The token that is drawn at a position.
pub(crate) fn drawn_at(slot: u32, position: u32) -> u32 {
    (slot * 31 + position * 7) % 64
}

/// Rows and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape(usize, usize);

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

    fn describe(&self) -> String {
        "fake".to_owned()
    }

    fn load_matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Shape, Error> {
        assert!(parts.iter().all(|part| part.cols == parts[0].cols), "columns");
        self.claim("matrix", 1000)?;
        Ok(Shape(parts.iter().map(|part| part.rows).sum(), parts[0].cols))
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<usize, Error> {
        Ok(values.len())
    }

    fn tensor(&mut self, rows: usize, width: usize) -> Result<Shape, Error> {
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

    fn rms_norm(&mut self, x: &Shape, weight: &usize, _eps: f32, out: &mut Shape) {
        self.fits(&[(*x, *weight), (*out, *weight)]);
    }

    fn add_rms_norm(
        &mut self,
        residual: &mut Shape,
        delta: &Shape,
        weight: &usize,
        _eps: f32,
        out: &mut Shape,
    ) {
        self.fits(&[(*residual, *weight), (*delta, *weight), (*out, *weight)]);
    }

    fn add(&mut self, x: &mut Shape, delta: &Shape) {
        self.fits(&[(*x, delta.1)]);
    }

    fn matmul(&mut self, x: &Shape, w: &Shape, bias: Option<&usize>, out: &mut Shape) {
        self.fits(&[(*x, w.1), (*out, w.0)]);
        assert!(bias.is_none_or(|len| *len == w.0), "bias");
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

    fn attention(
        &mut self,
        qkv: &Shape,
        how: &Attention,
        _cache: &CacheShape,
        _layer: usize,
        out: &mut Shape,
    ) {
        let width = how.heads * how.head_dim;
        self.fits(&[(*qkv, width + 2 * how.kv_heads * how.head_dim), (*out, width)]);
    }

    fn silu_mul(&mut self, gate_up: &Shape, out: &mut Shape) {
        self.fits(&[(*gate_up, 2 * out.1)]);
    }

    fn select(&mut self, x: &Shape, rows: &[u32], out: &mut Shape) {
        assert!(rows.len() <= out.0 && x.1 == out.1, "selection");
        assert!(rows.iter().all(|row| (*row as usize) < self.rows), "selected rows");
    }

    fn logits(&mut self, x: &Shape, rows: usize, head: &Shape, logits: &mut Shape) {
        assert!(rows <= x.0 && rows <= logits.0, "rows of logits");
        assert_eq!((x.1, logits.1), (head.1, head.0), "shape of the head");
    }

    fn sample(&mut self, _logits: &mut Shape, rows: &[SampleRow]) {
        let mut script = self.script.borrow_mut();
        for row in rows {
            let token = drawn_at(row.slot, row.position);
            let broken = script.broken.contains(&row.slot);
            self.current.tokens.push((row.slot, (!broken).then_some(token)));
            if let Some(top) = row.logprobs {
                self.current.logprobs.push(scored(row.slot, row.position, token, top));
            }
        }
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

    fn end(&mut self) {
        let mut next = self.spare.pop().expect("at most two steps in flight");
        next.tokens.clear();
        next.logprobs.clear();
        self.ended.push_back(std::mem::replace(&mut self.current, next));
    }

    fn collect(&mut self, out: &mut Drawn) -> Result<(), Fault> {
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
        let rows = spec.vocab.max(4 * spec.layers[0].mlp.width).max(4 * spec.hidden);
        let cols = spec.hidden.max(spec.layers[0].mlp.width);
        Self { zeros: vec![0; 4 * rows * cols] }
    }
}

impl Weights for NoWeights {
    fn tensor(&self, _role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let bytes = &self.zeros[..4 * rows * cols];
        Ok(TensorView { format: Format::F32, rows, cols, bytes })
    }

    fn vector(&self, _role: Role, len: usize) -> Result<Vec<f32>, LoadError> {
        Ok(vec![0.0; len])
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
        qk_norm: true,
        qkv_bias: true,
        out_bias: true,
    };
    let layer = LayerSpec { attention, mlp: MlpSpec { width: 48, bias: true } };
    ModelSpec {
        family: "fake",
        hidden: 24,
        vocab: 64,
        context: 4096,
        embedding_scale: 1.0,
        norm_eps: 1e-5,
        ropes: vec![Rope { inv_freq: vec![1.0; 4], magnitude: 1.0, interleaved: false }],
        layers: vec![layer; layers],
        tied_head: true,
    }
}
