//! Draws and log-probabilities: `ops/sample.cu` and `ops/score.cu`.
//!
//! Slots live on the device: a draw joins its slot's state there, so the next step is queued
//! before this one's tokens are known here. What a step drew comes back in one copy.

use bytemuck::{Pod, Zeroable};
use kernels::compute::Scored;
use kernels::{Drawn, Error, LogprobRow, SampleRow, Sampler};

use super::{blocks, kernel};
use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Kernel};
use crate::record::Record;
use crate::step::{Payload, bucket};
use crate::tensor::{Kind, Tensor};

mod masks;
mod results;
mod slots;
#[cfg(test)]
mod tests;

use masks::Masks;
use results::Results;
use slots::Slots;

/// `ROW_THREADS` of row.cuh.
const THREADS: u32 = 512;
/// Largest vocabulary: more could overflow a sum of masses.
const VOCAB_MAX: usize = 1 << 19;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SampleArgs {
    logits: Address,
    count: Address,
    rows: Address,
    samplers: Address,
    bias: Address,
    banned: Address,
    counts: Address,
    last: Address,
    masks: Address,
    results: Address,
    vocab: u32,
    counts_stride: u32,
    mask_words: u32,
    pad: u32,
}

/// `struct SampleRow` of sample.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Draw {
    slot: u32,
    position: u32,
    keep: u32,
    result: u32,
    mask: u32,
}

/// `NO_MASK` of sample.cu.
const NO_MASK: u32 = u32::MAX;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ScoreArgs {
    logits: Address,
    count: Address,
    rows: Address,
    results: Address,
    vocab: u32,
    drawn: u32,
}

/// `struct ScoreRow` of score.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Ask {
    row: u32,
    token: u32,
    top: u32,
    result: u32,
}

/// Slots, kernels, and the results of the steps under way.
pub(crate) struct Sampling {
    sample: Kernel,
    score: Kernel,
    slots: Slots,
    turns: Vec<Turn>,
    vocab: usize,
    /// Steps begun.
    step: u64,
    /// Rows of the current call that ask for a score.
    asks: Vec<Ask>,
    spare: Vec<Scored>,
}

/// What a step under way has of its own.
struct Turn {
    masks: Masks,
    results: Results,
}

/// Device memory that is claimed: state of slots (mostly 2 bytes for each token of the vocabulary),
/// a mask for each, and results, which have room for 128 alternatives of every row.
pub(crate) fn bytes(config: &CudaConfig) -> usize {
    slots::bytes(config) + masks::bytes(config) + results::bytes(config)
}

/// Payload that the start of a slot takes at most.
pub(crate) fn start_bytes(tokens: &[u32], sampler: &Sampler) -> usize {
    slots::start_bytes(tokens, sampler)
}

/// Payload that any start takes at most.
pub(crate) fn start_bytes_max(config: &CudaConfig) -> usize {
    slots::start_bytes_max(config)
}

impl Sampling {
    pub(crate) fn new<G: Gpu>(
        gpu: &mut G,
        config: &CudaConfig,
        ring: usize,
    ) -> Result<Self, Error> {
        let vocab = config.vocab;
        assert!((1..=VOCAB_MAX).contains(&vocab), "a vocabulary of {vocab}, {VOCAB_MAX} at most");
        // One place on the device for all turns: masks come when the step before has run, and a
        // step's results are copied before the next one runs. What a step records must not depend
        // on its turn, or no graph would fit the next.
        let results_at = gpu.claim("results of a step", results::bytes(config))?;
        let masks_at = gpu.claim("masks of a step", masks::bytes(config))?;
        let turn = |_| -> Result<Turn, Error> {
            let masks = Masks::new(gpu, config, masks_at)?;
            Ok(Turn { masks, results: Results::new(gpu, config, results_at)? })
        };
        let turns = (0..ring).map(turn).collect::<Result<_, _>>()?;
        Ok(Self {
            turns,
            sample: kernel::<SampleArgs, G>(gpu, "sample.cu", "sample_rows")?,
            score: kernel::<ScoreArgs, G>(gpu, "score.cu", "score_rows")?,
            slots: Slots::new(gpu, config)?,
            vocab,
            step: 0,
            asks: Vec::with_capacity(config.rows_max),
            spare: Vec::new(),
        })
    }

    /// Address of `[slots]` u32: the token that each slot drew last; 0 before its first.
    pub(crate) fn last(&self) -> Address {
        self.slots.last
    }

    /// Tokens of a slot's prompt; 0 for a slot that was not started.
    pub(crate) fn prompt_len(&self, slot: u32) -> u32 {
        self.slots.prompt_len(slot)
    }

    /// A turn is used anew.
    pub(crate) fn begin(&mut self, turn: usize) {
        self.step += 1;
        let Turn { masks, results } = &mut self.turns[turn];
        masks.clear();
        results.clear();
    }

    /// A slot starts: see [`kernels::Compute::start_slot`].
    pub(crate) fn start(
        &mut self,
        before: (&mut Record, &mut Payload),
        slot: u32,
        tokens: &[u32],
        prompt_len: u32,
        sampler: &Sampler,
    ) {
        self.slots.start(before, slot, tokens, prompt_len, sampler);
    }

    /// A slot is given back.
    pub(crate) fn end(&mut self, slot: u32) {
        self.slots.end(slot);
    }

    /// Draws one token per row of logits; see [`kernels::Compute::sample`] for the masks.
    pub(crate) fn sample(
        &mut self,
        record: &mut Record,
        (payload, turn): (&mut Payload, usize),
        logits: &Tensor,
        (rows, allowed): (&[SampleRow], &[u32]),
    ) {
        let logits = self.logits(logits, rows.len());
        let Turn { masks, results } = &mut self.turns[turn];
        let room = bucket(rows.len());
        let count = payload.number(rows.len());
        let none = Draw { slot: 0, position: 0, keep: 0, result: 0, mask: NO_MASK };
        let (list, draws) = payload.claim(room, none);
        for (draw, row) in draws.iter_mut().zip(rows) {
            self.slots.draws(row.slot, self.step);
            let (slot, position) = (row.slot, row.position);
            let keep = u32::from(row.logprobs.is_some());
            let mask = row.mask.map_or(NO_MASK, |mask| masks.push(allowed, mask));
            *draw = Draw { slot, position, keep, result: results.token(slot), mask };
        }
        self.asks.clear();
        for (i, (draw, row)) in draws.iter().zip(rows).enumerate() {
            let Some(top) = row.logprobs else { continue };
            let top = (top as usize).min(self.vocab);
            let result = results.score(row.slot, row.position, top);
            self.asks.push(Ask { row: i as u32, token: draw.result, top: top as u32, result });
        }
        let args = SampleArgs {
            logits,
            count,
            rows: list,
            samplers: self.slots.samplers,
            bias: self.slots.bias,
            banned: self.slots.banned,
            counts: self.slots.counts,
            last: self.slots.last,
            masks: masks.device(),
            results: results.device(),
            vocab: self.vocab as u32,
            counts_stride: self.slots.counts_stride() as u32,
            mask_words: masks.words() as u32,
            pad: 0,
        };
        record.launch(self.sample, blocks(room, THREADS), &args);
        self.launch_scores(record, (payload, turn), logits, true);
    }

    /// Log-probabilities of known tokens, one per row of logits.
    pub(crate) fn score(
        &mut self,
        record: &mut Record,
        (payload, turn): (&mut Payload, usize),
        logits: &Tensor,
        rows: &[LogprobRow],
    ) {
        let logits = self.logits(logits, rows.len());
        let results = &mut self.turns[turn].results;
        self.asks.clear();
        for (i, row) in rows.iter().enumerate() {
            let LogprobRow { slot, position, token, top } = *row;
            assert!((token as usize) < self.vocab, "token {token} of {}", self.vocab);
            let top = (top as usize).min(self.vocab);
            let result = results.score(slot, position, top);
            self.asks.push(Ask { row: i as u32, token, top: top as u32, result });
        }
        self.launch_scores(record, (payload, turn), logits, false);
    }

    /// Scores what `asks` lists.
    fn launch_scores(
        &self,
        record: &mut Record,
        (payload, turn): (&mut Payload, usize),
        logits: Address,
        drawn: bool,
    ) {
        if self.asks.is_empty() {
            return;
        }
        let room = bucket(self.asks.len());
        let count = payload.number(self.asks.len());
        let rows = payload.list(&self.asks, room, Ask { row: 0, token: 0, top: 0, result: 0 });
        let args = ScoreArgs {
            logits,
            count,
            rows,
            results: self.turns[turn].results.device(),
            vocab: self.vocab as u32,
            drawn: u32::from(drawn),
        };
        record.launch(self.score, blocks(room, THREADS), &args);
    }

    fn logits(&self, logits: &Tensor, rows: usize) -> Address {
        assert_eq!(logits.kind, Kind::F32, "logits are exact");
        logits.of(rows, self.vocab).address
    }

    /// Queues the copy of the step's masks.
    pub(crate) fn upload<G: Gpu>(&self, gpu: &mut G, turn: usize) {
        self.turns[turn].masks.upload(gpu);
    }

    /// Queues the copy of what the step drew.
    pub(crate) fn download<G: Gpu>(&mut self, gpu: &mut G, turn: usize) {
        self.turns[turn].results.download(gpu);
    }

    /// Reads what a step drew, once its copy has arrived.
    pub(crate) fn collect(&mut self, turn: usize, out: &mut Drawn) {
        self.turns[turn].results.read(out, &mut self.spare);
    }
}
