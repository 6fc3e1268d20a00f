//! Inputs to steps: rows without padding, pages handed out and taken back, hidden states read.

use kernels::{Compute, Drawn, Fault, Grant, Sampler, Segment, Step};

use super::pool::Gathered;
use super::{Input, Pooler};
use crate::plan::Plan;
use crate::start::Loaded;
use crate::transformer::Transformer;

/// A model that makes one vector of each input. Owned and called by one thread.
pub struct Embedder<C: Compute> {
    compute: C,
    model: Transformer<C>,
    cache: C::Cache,
    pooler: Pooler,
    context: usize,
    step_tokens_max: usize,
    page_tokens: usize,
    free_pages: Vec<u32>,
    free_slots: Vec<u32>,
    sampler: Sampler,
    drawn: Drawn,
    work: Work,
}

/// What one step is made of.
#[derive(Debug, Default)]
struct Work {
    tokens: Vec<u32>,
    types: Vec<u32>,
    segments: Vec<Segment>,
    grants: Vec<Grant>,
    row: Vec<f32>,
}

/// An input that is being computed.
struct Running {
    /// Its place in the call.
    index: usize,
    slot: u32,
    pages: Vec<u32>,
    /// Positions computed.
    done: usize,
    /// Positions in the step that is being made.
    now: usize,
    gathered: Gathered,
}

impl<C: Compute> Embedder<C> {
    /// An embedder on a loaded model.
    #[must_use]
    pub fn new(loaded: Loaded<C>, pooler: Pooler, plan: &Plan) -> Self {
        let Loaded { compute, model, cache } = loaded;
        let row = vec![0.0; model.spec().hidden];
        Self {
            compute,
            model,
            cache,
            pooler,
            context: plan.context,
            step_tokens_max: plan.step_tokens_max,
            page_tokens: plan.cache.page_tokens,
            // Taken from the end, so page 0 comes first.
            free_pages: (0..plan.cache.pages as u32).rev().collect(),
            free_slots: (0..plan.rows_max as u32).rev().collect(),
            sampler: Sampler::greedy(),
            drawn: Drawn::default(),
            work: Work { row, ..Work::default() },
        }
    }

    /// One line for people about the device.
    #[must_use]
    pub fn describe(&self) -> String {
        self.compute.describe()
    }

    /// Tokens of one step at most.
    #[must_use]
    pub fn step_tokens_max(&self) -> usize {
        self.step_tokens_max
    }

    /// The vectors of inputs, in their order. None depends on what else is in the call.
    ///
    /// # Errors
    /// The device failed, or an input is empty, longer than the context, or holds ids that the
    /// model does not know; nothing of the call is left behind.
    pub fn embed(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>, Fault> {
        for input in inputs {
            self.check(input).map_err(Fault::Step)?;
        }
        let mut vectors = vec![Vec::new(); inputs.len()];
        let mut running: Vec<Running> = Vec::new();
        let mut next = 0;
        while next < inputs.len() || !running.is_empty() {
            self.plan(inputs, &mut next, &mut running);
            let result = self.step(inputs, &mut running);
            if let Err(fault) = result {
                running.drain(..).for_each(|one| self.give_back(one.slot, one.pages));
                return Err(fault);
            }
            let (ended, rest): (Vec<_>, Vec<_>) =
                running.into_iter().partition(|one| one.done == inputs[one.index].ids.len());
            running = rest;
            for one in ended {
                self.give_back(one.slot, one.pages);
                let vector = one.gathered.finish(&self.pooler.pooling, &self.pooler.stages);
                if vector.iter().any(|x| !x.is_finite()) {
                    running.drain(..).for_each(|one| self.give_back(one.slot, one.pages));
                    return Err(Fault::Step("a vector holds what is not a number".to_owned()));
                }
                vectors[one.index] = vector;
            }
        }
        Ok(vectors)
    }

    fn check(&self, input: &Input<'_>) -> Result<(), String> {
        let spec = self.model.spec();
        let (len, context) = (input.ids.len(), self.context);
        if len == 0 || len > context {
            return Err(format!("an input of {len} tokens; wanted 1 to {context}"));
        }
        if let Some(id) = input.ids.iter().find(|&&id| id as usize >= spec.vocab) {
            return Err(format!("token {id} of a vocabulary of {}", spec.vocab));
        }
        if !input.types.is_empty() && input.types.len() != len {
            return Err(format!("{} token types for {len} tokens", input.types.len()));
        }
        let types = spec.embedding.types.unwrap_or(0);
        match input.types.iter().find(|&&kind| types > 1 && kind as usize >= types) {
            Some(kind) => Err(format!("token type {kind} of {types}")),
            None => Ok(()),
        }
    }

    /// Fills a step: first what is under way, then further inputs as far as rows, slots and pages
    /// go. An encoder sees its whole input at once, so there an input is never cut.
    fn plan(&mut self, inputs: &[Input<'_>], next: &mut usize, running: &mut Vec<Running>) {
        let causal = self.model.spec().causal;
        let mut left = self.step_tokens_max;
        for one in running.iter_mut() {
            one.now = left.min(inputs[one.index].ids.len() - one.done);
            left -= one.now;
        }
        while let Some(input) = inputs.get(*next) {
            let len = input.ids.len();
            let pages = len.div_ceil(self.page_tokens);
            let fits = if causal { left > 0 } else { len <= left };
            if !fits || self.free_slots.is_empty() || pages > self.free_pages.len() {
                break;
            }
            let slot = self.free_slots.pop().unwrap_or_default();
            let pages = self.free_pages.split_off(self.free_pages.len() - pages);
            let now = len.min(left);
            left -= now;
            let gathered = Gathered::default();
            running.push(Running { index: *next, slot, pages, done: 0, now, gathered });
            *next += 1;
        }
        assert!(running.iter().any(|one| one.now > 0), "the plan has room for one input");
    }

    fn step(&mut self, inputs: &[Input<'_>], running: &mut [Running]) -> Result<(), Fault> {
        self.gather(inputs, running);
        let Work { tokens, types, segments, grants, .. } = &self.work;
        let step = Step { tokens, segments, grants };
        self.model.forward(&mut self.compute, &mut self.cache, step, types, None);
        self.compute.end();
        self.compute.collect(&mut self.drawn)?;
        let mut segments = self.work.segments.iter();
        for one in running.iter_mut().filter(|one| one.now > 0) {
            let input = &inputs[one.index];
            let first = segments.next().map_or(0, |segment| segment.row as usize);
            for at in 0..one.now {
                let position = one.done + at;
                if Gathered::needs(&self.pooler.pooling, position, input.ids.len()) {
                    let row = &mut self.work.row;
                    self.compute.read(self.model.hidden(), first + at, row);
                    one.gathered.add(&self.pooler.pooling, position, input.skip, row);
                }
            }
            one.done += one.now;
        }
        Ok(())
    }

    /// Puts the step's rows together.
    fn gather(&mut self, inputs: &[Input<'_>], running: &[Running]) {
        let Work { tokens, types, segments, grants, .. } = &mut self.work;
        tokens.clear();
        types.clear();
        segments.clear();
        grants.clear();
        // Models with one type or none leave no choice, whatever their tokenizer says.
        let typed = self.model.spec().embedding.types.is_some_and(|types| types > 1);
        for one in running.iter().filter(|one| one.now > 0) {
            let input = &inputs[one.index];
            let range = one.done..one.done + one.now;
            let slot = one.slot;
            if one.done == 0 {
                let len = input.ids.len() as u32;
                self.compute.start_slot(slot, input.ids, len, &self.sampler);
                let pages = (0..).zip(&one.pages);
                grants.extend(pages.map(|(index, &page)| Grant { slot, index, page }));
            }
            let (first, len) = (one.done as u32, one.now as u32);
            let row = tokens.len() as u32;
            segments.push(Segment { slot, first, len, row, late: false, adapter: 0 });
            tokens.extend_from_slice(&input.ids[range.clone()]);
            match input.types.get(range) {
                Some(known) if typed => types.extend_from_slice(known),
                _ => types.resize(tokens.len(), 0),
            }
        }
    }

    fn give_back(&mut self, slot: u32, pages: Vec<u32>) {
        self.compute.end_slot(slot);
        self.free_slots.push(slot);
        self.free_pages.extend(pages);
    }
}
