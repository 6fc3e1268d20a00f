//! A model on a device, driven by hand: any tokens in, all logits and hidden states out.

use engine::model::{Dtype, ModelFiles};
use engine::open::Wordless;
use engine::plan::Plan;
use engine::spec::ModelSpec;
use engine::start::{Loaded, cpu_config, load};
use engine::transformer::Tap;
use engine::weights::Weights;
use kernels::cpu::Cpu;
use kernels::{CacheElement, Compute, Drawn, Grant, Precision, Sampler, Segment, Step};
use scheduler::types::PAGE_TOKENS;

use super::{Size, plan, plan_of};

/// Tokens in one step at most.
const STEP_TOKENS: usize = 192;
const PAGES: usize = 16;

pub(crate) struct Rig<C: Compute = Cpu> {
    loaded: Loaded<C>,
    hidden: usize,
    vocab: usize,
}

/// The sizes that a rig plans for.
pub(crate) const SIZE: Size = Size { rows: 2, step_tokens: STEP_TOKENS, pages: PAGES };

impl Rig {
    pub(crate) fn new(files: &ModelFiles, dtype: Dtype) -> Self {
        let plan = plan(files, dtype, SIZE);
        Self::planned(&files.spec, files.weights.as_ref(), &plan)
    }

    /// A model that was opened without its tokenizer.
    pub(crate) fn wordless(files: &Wordless, precision: Precision, cache: CacheElement) -> Self {
        let plan = plan_of(&files.spec, files.weight_bytes, (precision, cache), SIZE);
        Self::planned(&files.spec, files.weights.as_ref(), &plan)
    }

    fn planned(spec: &ModelSpec, weights: &dyn Weights, plan: &Plan) -> Self {
        let device = Cpu::new(cpu_config(spec, plan));
        let loaded = load(device, spec, weights, plan).unwrap_or_else(|error| panic!("{error}"));
        Self::over(loaded)
    }
}

impl<C: Compute> Rig<C> {
    /// A model that is on some device already, under a plan of [`SIZE`].
    pub(crate) fn over(loaded: Loaded<C>) -> Self {
        let spec = loaded.model.spec();
        let (hidden, vocab) = (spec.hidden, spec.vocab);
        Self { loaded, hidden, vocab }
    }

    /// Logits of every position, computed in stretches of these lengths.
    pub(crate) fn logits(&mut self, tokens: &[u32], stretches: &[usize]) -> Vec<Vec<f32>> {
        self.logits_after(tokens.len(), tokens, stretches)
    }

    /// As [`Rig::logits`], of a sequence whose first `prompt` tokens were its prompt.
    pub(crate) fn logits_after(
        &mut self,
        prompt: usize,
        tokens: &[u32],
        stretches: &[usize],
    ) -> Vec<Vec<f32>> {
        assert_eq!(stretches.iter().sum::<usize>(), tokens.len(), "stretches");
        self.start(tokens, prompt);
        let mut all = Vec::with_capacity(tokens.len());
        let mut first = 0;
        for &len in stretches {
            self.step(tokens, &[], first, len, None);
            let rows: Vec<u32> = (0..len as u32).collect();
            let Loaded { compute, model, .. } = &mut self.loaded;
            for rows in rows.chunks(model.logits_rows_max()) {
                let logits = model.logits(compute, rows);
                for row in 0..rows.len() {
                    let mut values = vec![0.0; self.vocab];
                    compute.read(logits, row, &mut values);
                    all.push(values);
                }
            }
            self.end();
            first += len;
        }
        self.loaded.compute.end_slot(1);
        all
    }

    /// Hidden states of every position, flat, after 0, 1, .. layers.
    pub(crate) fn hidden(&mut self, tokens: &[u32]) -> Vec<Vec<f32>> {
        self.hidden_typed(tokens, &[])
    }

    /// As [`Rig::hidden`], with the type of each token, for models that have types.
    pub(crate) fn hidden_typed(&mut self, tokens: &[u32], types: &[u32]) -> Vec<Vec<f32>> {
        let mut states = Vec::new();
        let hidden = self.hidden;
        let mut tap = |compute: &mut C, layer: usize, x: &C::Tensor| {
            assert_eq!(layer, states.len(), "taps come in order");
            let mut flat = vec![0.0; tokens.len() * hidden];
            for (row, values) in flat.chunks_exact_mut(hidden).enumerate() {
                compute.read(x, row, values);
            }
            states.push(flat);
        };
        self.start(tokens, tokens.len());
        self.step(tokens, types, 0, tokens.len(), Some(&mut tap));
        self.end();
        self.loaded.compute.end_slot(1);
        states
    }

    fn start(&mut self, tokens: &[u32], prompt: usize) {
        self.loaded.compute.start_slot(1, tokens, prompt as u32, &Sampler::greedy());
    }

    /// One stretch of slot 1. Pages are granted as positions need them, in an order that is not
    /// that of the positions.
    fn step(
        &mut self,
        tokens: &[u32],
        types: &[u32],
        first: usize,
        len: usize,
        tap: Option<Tap<'_, C>>,
    ) {
        let held = first.div_ceil(PAGE_TOKENS);
        let needed = (first + len).div_ceil(PAGE_TOKENS);
        let grants: Vec<Grant> = (held..needed)
            .map(|index| Grant {
                slot: 1,
                index: index as u32,
                page: ((index * 7 + 3) % PAGES) as u32,
            })
            .collect();
        let (first_position, len) = (first as u32, len as u32);
        let segments =
            [Segment { slot: 1, first: first_position, len, row: 0, late: false, adapter: 0 }];
        let len = len as usize;
        let tokens = &tokens[first..first + len];
        let Loaded { compute, model, cache } = &mut self.loaded;
        let step = Step { tokens, segments: &segments, grants: &grants };
        model.forward(compute, cache, step, types, tap);
    }

    fn end(&mut self) {
        self.loaded.compute.end();
        self.loaded.compute.collect(&mut Drawn::default()).expect("a sound step");
    }
}
