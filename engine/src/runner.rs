//! [`Runner`]: batches from the scheduler become calls of a [`Compute`]; what a device drew
//! becomes step outputs. It keeps per slot only what a batch does not repeat: the prompt (for the
//! one prompt token that stands behind each stretch of it), the wish for log-probabilities, and
//! where a sequence is in its grammar (`masks`).
//!
//! All buffers are claimed at start and reused. Nothing here allocates per step, except for the
//! log-probabilities that rows ask for. It knows no request and reads no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kernels::{
    Compute, Drawn, Fault as DeviceFault, Grant, LogprobRow, SampleRow, Sampler, Segment, Step,
    chains, mask_words,
};
use scheduler::types::{
    Batch, Engine, Fault, Logits, PageGrant, Row, RowStart, Sampling, StepOutput, Token,
};
use text::grammar::Grammar;

use crate::adapter::{Adapter, AdapterError};
use crate::plan::Plan;
use crate::start::{Loaded, StartError};

mod masks;
mod output;

use masks::Masks;

/// A model that runs batches on one device. Owned and called by one thread.
pub struct Runner<C: Compute> {
    /// `None` once a device was lost and did not come back.
    on: Option<Loaded<C>>,
    recovery: Option<Recovery<C>>,
    depth: usize,
    slots: Vec<Slot>,
    /// What one call of `begin` needs, in the device's words.
    segments: Vec<Segment>,
    grants: Vec<Grant>,
    /// The sampler of the row that starts: one buffer for all of them.
    sampler: Sampler,
    masks: Masks,
    in_flight: VecDeque<Asked>,
    /// The youngest step in flight has not drawn yet: its masks depend on tokens of the step
    /// before it. Its forward pass runs meanwhile. That is one step at most, and only until the one
    /// before is collected: what is behind it could not even begin without its tokens.
    open: bool,
    /// Records not in use: `depth` of them when idle.
    spare: Vec<Asked>,
    drawn: Drawn,
    /// Steps in flight that were launched on top of one that failed.
    tainted: usize,
    /// Steps in flight on a device that is gone.
    orphans: usize,
}

const LOADED: &str = "a device that was not lost for good";

/// Sets a device up anew, with the weights on it.
pub type Rebuild<C> = Box<dyn FnMut() -> Result<Loaded<C>, StartError> + Send>;

/// Times that a device is set up anew. One that is lost again and again is broken.
const REBUILDS_MAX: u32 = 8;

/// How a device that was lost comes back.
struct Recovery<C: Compute> {
    rebuild: Rebuild<C>,
    times: u32,
    /// By number: adapters went with the device's memory.
    adapters: BTreeMap<u32, Arc<Adapter>>,
}

/// What the runner keeps of the sequence in a slot.
#[derive(Debug, Clone, Default)]
struct Slot {
    prompt: Vec<Token>,
    /// Alternatives wanted for each drawn token.
    logprobs: Option<u32>,
    /// The sequence's adapter; 0 is none.
    adapter: u32,
}

/// What a step in flight was asked for.
#[derive(Debug, Default)]
struct Asked {
    step: u64,
    samples: Vec<SampleRow>,
    /// Activation rows of `samples`.
    sample_at: Vec<u32>,
    scores: Vec<LogprobRow>,
    /// Activation rows of `scores`.
    score_at: Vec<u32>,
    /// Slots whose grammar gave up, and why.
    failed: Vec<(u32, String)>,
}

impl<C: Compute> Runner<C> {
    /// A runner with `depth` steps in flight at most: 1 where a launch computes (CPU), 2 where it
    /// only queues work.
    ///
    /// # Panics
    /// `depth` is neither 1 nor 2: a [`Compute`] holds at most two steps.
    #[must_use]
    pub fn new(on: Loaded<C>, plan: &Plan, depth: usize) -> Self {
        assert!((1..=2).contains(&depth), "depth {depth}");
        let asked = || Asked {
            samples: Vec::with_capacity(plan.step_tokens_max),
            sample_at: Vec::with_capacity(plan.step_tokens_max),
            ..Asked::default()
        };
        let words = mask_words(on.model.spec().vocab);
        Self {
            on: Some(on),
            recovery: None,
            depth,
            slots: vec![Slot::default(); plan.rows_max],
            segments: Vec::with_capacity(plan.rows_max),
            grants: Vec::with_capacity(plan.rows_max),
            sampler: Sampler::greedy(),
            masks: Masks::new(plan.rows_max, words),
            in_flight: VecDeque::with_capacity(depth),
            open: false,
            spare: (0..depth).map(|_| asked()).collect(),
            drawn: Drawn::default(),
            tainted: 0,
            orphans: 0,
        }
    }

    /// Where the device's memory can be lost: what sets it up anew. Without it such a fault is
    /// the engine's end.
    #[must_use]
    pub fn with_recovery(self, rebuild: Rebuild<C>) -> Self {
        let recovery = Recovery { rebuild, times: 0, adapters: BTreeMap::new() };
        Self { recovery: Some(recovery), ..self }
    }

    /// One line for people about the device.
    #[must_use]
    pub fn describe(&self) -> String {
        self.loaded().compute.describe()
    }

    /// Bytes of the weights in the device's layout.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let Loaded { compute, model, .. } = self.loaded();
        model.weight_bytes(compute)
    }

    /// The device, for measurements.
    pub fn compute(&mut self) -> &mut C {
        &mut self.loaded_mut().compute
    }

    fn loaded(&self) -> &Loaded<C> {
        self.on.as_ref().expect(LOADED)
    }

    fn loaded_mut(&mut self) -> &mut Loaded<C> {
        self.on.as_mut().expect(LOADED)
    }

    /// Puts an adapter on the device under `number`, from 1. Sequences that carry the number use
    /// it from the next step on.
    ///
    /// # Errors
    /// It does not fit the model or the device; nothing of it stays then.
    pub fn set_adapter(&mut self, number: u32, adapter: &Arc<Adapter>) -> Result<(), AdapterError> {
        let Loaded { compute, model, .. } = self.loaded_mut();
        model.set_adapter(compute, number, adapter)?;
        if let Some(recovery) = &mut self.recovery {
            recovery.adapters.insert(number, Arc::clone(adapter));
        }
        Ok(())
    }

    /// Lets an adapter go. No sequence may carry its number any more.
    pub fn drop_adapter(&mut self, number: u32) {
        self.loaded_mut().model.drop_adapter(number);
        if let Some(recovery) = &mut self.recovery {
            recovery.adapters.remove(&number);
        }
    }

    /// Makes a grammar known under `number`, from 1: sequences that carry it make only tokens that
    /// it allows.
    ///
    /// # Panics
    /// The number is 0, which says that there is none.
    pub fn set_grammar(&mut self, number: u64, grammar: Arc<Grammar>) {
        assert!(number > 0, "a grammar without a number");
        self.masks.set(number, grammar);
    }

    /// Lets a grammar go. Sequences that started with it keep it to their end.
    pub fn drop_grammar(&mut self, number: u64) {
        self.masks.drop(number);
    }

    /// After the device's memory was lost: what the scheduler is told. Everything in flight is
    /// gone with it.
    fn lost(&mut self, text: String) -> Fault {
        self.open = false;
        let Some(recovery) = &mut self.recovery else {
            return Fault::Dead(text);
        };
        recovery.times += 1;
        if recovery.times > REBUILDS_MAX {
            return Fault::Dead(format!("{text} (lost {REBUILDS_MAX} times before)"));
        }
        // The old device gives its memory back before the new one claims it.
        self.on = None;
        let mut rebuilt = match (recovery.rebuild)() {
            Ok(loaded) => loaded,
            Err(error) => return Fault::Dead(format!("{text}; not set up again: {error}")),
        };
        for (&number, adapter) in &recovery.adapters {
            let Loaded { compute, model, .. } = &mut rebuilt;
            if let Err(error) = model.set_adapter(compute, number, adapter) {
                return Fault::Dead(format!("{text}; adapter not set up again: {error}"));
            }
        }
        self.on = Some(rebuilt);
        Fault::Lost(text)
    }

    /// A sequence takes a slot.
    fn start(&mut self, start: &RowStart) {
        let RowStart { slot, tokens, prompt_len, sampling, stop_tokens, stop_from, .. } = start;
        self.masks.start(start, self.depth == 1 && takes_forced(sampling));
        let kept = &mut self.slots[*slot as usize];
        kept.prompt.clear();
        kept.prompt.extend_from_slice(&tokens[..*prompt_len as usize]);
        kept.logprobs = sampling.logprobs;
        kept.adapter = start.adapter;
        fill_sampler(&mut self.sampler, sampling);
        self.sampler.banned.clear();
        // Of a sequence with a grammar the mask bans them.
        if !self.masks.holds(*slot) {
            self.sampler.banned.extend_from_slice(stop_tokens);
        }
        self.sampler.banned_until = *stop_from;
        let Self { on, sampler, .. } = self;
        let compute = &mut on.as_mut().expect(LOADED).compute;
        compute.start_slot(*slot, tokens, *prompt_len, sampler);
    }

    /// Translates the rows into segments, and their wishes for logits into `asked`. Whether a mask
    /// of these draws needs a token that is still on the device.
    fn plan_rows(&mut self, batch: &Batch, asked: &mut Asked) -> bool {
        self.segments.clear();
        let mut waits = false;
        for row in &batch.rows {
            let Row { slot, first, len, tokens_at, late, drafts, logits } = *row;
            let kept = &self.slots[slot as usize];
            let adapter = kept.adapter;
            self.segments.push(Segment { slot, first, len, row: tokens_at, late, adapter });
            let draws = match logits {
                Logits::No => false,
                Logits::Sample => true,
                Logits::Prompt { top, sample } => {
                    asked.score_prompt(row, &kept.prompt, top);
                    sample
                }
            };
            if draws {
                let from = (tokens_at + len - drafts) as usize;
                let drafts = &batch.tokens[from..from + drafts as usize];
                asked.draw(row, drafts, kept.logprobs);
                self.masks.draws(slot, drafts, late);
                waits |= late && self.masks.holds(slot);
            }
        }
        waits
    }

    /// Asks the device for the logits of all rows that want them, a bounded number at a time, and
    /// ends the step. Masks that are not made yet are waited for.
    fn draw(&mut self, asked: &mut Asked) {
        self.masks.fill(&mut asked.samples, &mut asked.sample_at, &mut asked.failed);
        let Self { on, masks, .. } = self;
        let Loaded { compute, model, .. } = on.as_mut().expect(LOADED);
        let chunk = model.logits_rows_max();
        let (mut from, end) = (0, asked.samples.len());
        while from < end {
            // A chain is not cut: whether its later rows draw is known behind the earlier ones.
            let mut to = end.min(from + chunk);
            while to < end && asked.samples[to - 1].draft.is_some() {
                to -= 1;
            }
            let logits = model.logits(compute, &asked.sample_at[from..to]);
            compute.sample(logits, &asked.samples[from..to], masks.step());
            from = to;
        }
        let scores = asked.score_at.chunks(chunk).zip(asked.scores.chunks(chunk));
        for (at, rows) in scores {
            let logits = model.logits(compute, at);
            compute.score(logits, rows);
        }
        compute.end();
    }

    /// Waits for a step's results and puts them into `out`.
    fn take_in(&mut self, asked: &mut Asked, out: &mut StepOutput) -> Result<(), Fault> {
        if self.orphans > 0 {
            self.orphans -= 1;
            return Err(Fault::Step("the device was lost before".to_owned()));
        }
        let Self { on, drawn, .. } = self;
        match on.as_mut().expect(LOADED).compute.collect(drawn) {
            Ok(()) if self.tainted > 0 => {
                self.tainted -= 1;
                Err(Fault::Step("the step before it failed".to_owned()))
            }
            Ok(()) => {
                output::fill(asked, &mut self.drawn, out);
                self.advance(asked, out);
                Ok(())
            }
            Err(DeviceFault::Step(text)) => {
                self.tainted = self.in_flight.len();
                Err(Fault::Step(text))
            }
            Err(DeviceFault::Lost(text)) => {
                (self.orphans, self.tainted) = (self.in_flight.len(), 0);
                Err(self.lost(text))
            }
        }
    }

    /// Moves grammars on by what was drawn. Rows that failed have no sample.
    fn advance(&mut self, asked: &Asked, out: &mut StepOutput) {
        let mut samples = &mut out.samples[..];
        for chain in chains(&asked.samples) {
            let slot = chain[0].slot;
            let count = samples.iter().take_while(|sample| sample.slot == slot).count();
            let (drawn, rest) = samples.split_at_mut(count);
            self.masks.drew(slot, drawn);
            samples = rest;
        }
    }

    /// Ends the step whose draw is open, now that the step before it is known.
    fn close(&mut self, before: &Result<(), Fault>) {
        let mut asked = self.in_flight.pop_back().expect("the step that is open");
        if before.is_ok() {
            self.draw(&mut asked);
        } else {
            // Its tokens would be drawn from nothing: it is not asked for any, and fails too.
            self.loaded_mut().compute.end();
            self.tainted = self.in_flight.len() + 1;
        }
        self.in_flight.push_back(asked);
    }
}

impl<C: Compute> Engine for Runner<C> {
    fn depth(&self) -> usize {
        self.depth
    }

    fn drafts_max(&self) -> u32 {
        let Loaded { compute, model, .. } = self.loaded();
        // A chain's logits are made at once, with those of the known token before it.
        compute.drafts_max().min(model.logits_rows_max() - 1) as u32
    }

    fn launch(&mut self, batch: &Batch) {
        let mut asked = self.spare.pop().expect("no more than `depth` steps in flight");
        asked.clear(batch.step);
        for &slot in &batch.ends {
            self.loaded_mut().compute.end_slot(slot);
            self.masks.end(slot);
        }
        for start in &batch.starts {
            self.start(start);
        }
        let waits = self.plan_rows(batch, &mut asked);
        self.grants.clear();
        self.grants.extend(batch.grants.iter().map(|&grant| {
            let PageGrant { slot, index, page } = grant;
            Grant { slot, index, page }
        }));
        let step = Step { tokens: &batch.tokens, segments: &self.segments, grants: &self.grants };
        let Loaded { compute, model, cache } = self.on.as_mut().expect(LOADED);
        if batch.rows.is_empty() {
            // Slots and grants only: the device takes note of them, there is nothing to compute.
            compute.begin(step, cache);
            compute.end();
        } else {
            model.forward(compute, cache, step, &[], None);
            if waits {
                compute.flush();
                self.open = true;
            } else {
                self.draw(&mut asked);
            }
        }
        self.in_flight.push_back(asked);
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        let mut asked = self.in_flight.pop_front().expect("a step in flight");
        let result = self.take_in(&mut asked, out);
        self.spare.push(asked);
        if std::mem::take(&mut self.open) {
            self.close(&result);
        }
        result
    }
}

impl Asked {
    fn clear(&mut self, step: u64) {
        self.step = step;
        self.samples.clear();
        self.sample_at.clear();
        self.scores.clear();
        self.score_at.clear();
        self.failed.clear();
    }

    /// A draw behind a row's last known token, and one behind each of its drafts.
    fn draw(&mut self, row: &Row, drafts: &[Token], logprobs: Option<u32>) {
        let Row { slot, first, len, tokens_at, .. } = *row;
        let known = len - drafts.len() as u32;
        for ahead in 0..=drafts.len() {
            let (position, draft) = (first + known + ahead as u32, drafts.get(ahead).copied());
            self.samples.push(SampleRow { slot, position, draft, logprobs, mask: None });
            self.sample_at.push(tokens_at + known + ahead as u32 - 1);
        }
    }

    /// Position p predicts the token at p + 1, so the first token of a prompt is predicted by
    /// none, and the last position of a stretch predicts a token behind it.
    fn score_prompt(&mut self, row: &Row, prompt: &[Token], top: u32) {
        let end = (row.first + row.len).min(prompt.len() as u32 - 1);
        for before in row.first..end {
            let position = before + 1;
            let token = prompt[position as usize];
            self.scores.push(LogprobRow { slot: row.slot, position, token, top });
            self.score_at.push(row.tokens_at + before - row.first);
        }
    }
}

/// Whether tokens may join a sequence without a draw: the device counts what it drew for
/// penalties, and reports what it drew. With two steps in flight the next draw is under way.
fn takes_forced(sampling: &Sampling) -> bool {
    let Sampling { repetition_penalty, presence_penalty, frequency_penalty, logprobs, .. } =
        sampling;
    (*repetition_penalty, *presence_penalty, *frequency_penalty) == (1.0, 0.0, 0.0)
        && logprobs.is_none()
}

/// Copies the numbers over; lists keep their memory.
fn fill_sampler(sampler: &mut Sampler, from: &Sampling) {
    let Sampling {
        temperature,
        top_p,
        top_k,
        min_p,
        typical_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        logit_bias,
        seed,
        logprobs: _,
    } = from;
    sampler.temperature = *temperature;
    sampler.top_p = *top_p;
    sampler.top_k = *top_k;
    sampler.min_p = *min_p;
    sampler.typical_p = *typical_p;
    sampler.repetition_penalty = *repetition_penalty;
    sampler.presence_penalty = *presence_penalty;
    sampler.frequency_penalty = *frequency_penalty;
    sampler.logit_bias.clear();
    sampler.logit_bias.extend_from_slice(logit_bias);
    sampler.seed = *seed;
}
