//! A model on the CPU, driven by hand: any tokens in, all logits and hidden states out.

use engine::model::{Dtype, ModelFiles};
use engine::start::{Loaded, cpu_config, load};
use engine::transformer::Tap;
use kernels::cpu::Cpu;
use kernels::{Compute, Drawn, Grant, Sampler, Segment, Step};
use scheduler::types::PAGE_TOKENS;

use super::{Size, plan};

/// Tokens in one step at most.
const STEP_TOKENS: usize = 192;
const PAGES: usize = 16;

pub(crate) struct Rig {
    loaded: Loaded<Cpu>,
    hidden: usize,
    vocab: usize,
}

impl Rig {
    pub(crate) fn new(files: &ModelFiles, dtype: Dtype) -> Self {
        let plan = plan(files, dtype, Size { rows: 2, step_tokens: STEP_TOKENS, pages: PAGES });
        let device = Cpu::new(cpu_config(&files.spec, &plan));
        let loaded = load(device, &files.spec, files.weights.as_ref(), &plan)
            .unwrap_or_else(|error| panic!("{error}"));
        Self { loaded, hidden: files.spec.hidden, vocab: files.spec.vocab }
    }

    /// Logits of every position, computed in stretches of these lengths.
    pub(crate) fn logits(&mut self, tokens: &[u32], stretches: &[usize]) -> Vec<Vec<f32>> {
        assert_eq!(stretches.iter().sum::<usize>(), tokens.len(), "stretches");
        self.start(tokens);
        let mut all = Vec::with_capacity(tokens.len());
        let mut first = 0;
        for &len in stretches {
            self.step(tokens, first, len, None);
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
        let mut states = Vec::new();
        let hidden = self.hidden;
        let mut tap = |compute: &mut Cpu, layer: usize, x: &<Cpu as Compute>::Tensor| {
            assert_eq!(layer, states.len(), "taps come in order");
            let mut flat = vec![0.0; tokens.len() * hidden];
            for (row, values) in flat.chunks_exact_mut(hidden).enumerate() {
                compute.read(x, row, values);
            }
            states.push(flat);
        };
        self.start(tokens);
        self.step(tokens, 0, tokens.len(), Some(&mut tap));
        self.end();
        self.loaded.compute.end_slot(1);
        states
    }

    fn start(&mut self, tokens: &[u32]) {
        let greedy = Sampler {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            banned: Vec::new(),
            banned_until: 0,
        };
        self.loaded.compute.start_slot(1, tokens, tokens.len() as u32, &greedy);
    }

    /// One stretch of slot 1. Pages are granted as positions need them, in an order that is not
    /// that of the positions.
    fn step(&mut self, tokens: &[u32], first: usize, len: usize, tap: Option<Tap<'_, Cpu>>) {
        let held = first.div_ceil(PAGE_TOKENS);
        let needed = (first + len).div_ceil(PAGE_TOKENS);
        let grants: Vec<Grant> = (held..needed)
            .map(|index| Grant {
                slot: 1,
                index: index as u32,
                page: ((index * 7 + 3) % PAGES) as u32,
            })
            .collect();
        let segments =
            [Segment { slot: 1, first: first as u32, len: len as u32, row: 0, late: false }];
        let tokens = &tokens[first..first + len];
        let Loaded { compute, model, cache } = &mut self.loaded;
        model.forward(compute, cache, Step { tokens, segments: &segments, grants: &grants }, tap);
    }

    fn end(&mut self) {
        self.loaded.compute.end();
        self.loaded.compute.collect(&mut Drawn::default()).expect("a sound step");
    }
}
