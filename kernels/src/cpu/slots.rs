//! What is kept per row slot between steps: how it draws, what it drew last, and, when a penalty
//! is on, which tokens it has seen.

use crate::compute::{SampleRow, Sampler};

/// Drafts of a chain of draws: with the draw before them they fill sixteen rows of logits, which
/// every buffer of logits has.
pub const DRAFTS_MAX: usize = 15;

/// A token that stands in a slot's prompt or output.
#[derive(Debug, Clone, Copy)]
struct Seen {
    token: u32,
    /// Times it stands in the output.
    output: u32,
}

/// Tokens of one slot: a list to walk and an index to count in.
#[derive(Debug)]
struct History {
    seen: Vec<Seen>,
    /// `[vocab]`: place in `seen` plus one; 0 where a token is not seen.
    places: Vec<u32>,
}

impl History {
    fn new(vocab: usize, tokens_max: usize) -> Self {
        Self { seen: Vec::with_capacity(tokens_max.min(vocab)), places: vec![0; vocab] }
    }

    fn clear(&mut self) {
        for seen in self.seen.drain(..) {
            self.places[seen.token as usize] = 0;
        }
    }

    fn count(&mut self, token: u32, output: bool) {
        let Some(place) = self.places.get_mut(token as usize) else {
            return; // No logit, no penalty.
        };
        if *place == 0 {
            self.seen.push(Seen { token, output: 0 });
            *place = self.seen.len() as u32;
        }
        self.seen[*place as usize - 1].output += u32::from(output);
    }

    /// Times that a token stands in the output.
    fn output(&self, token: u32) -> u32 {
        match self.places.get(token as usize) {
            Some(0) | None => 0,
            Some(&place) => self.seen[place as usize - 1].output,
        }
    }
}

impl Sampler {
    /// The logit of a token of the prompt or the output, which stands in the output so often.
    fn penalized(&self, x: f32, output: u32) -> f32 {
        let repetition = self.repetition_penalty;
        let x = if x > 0.0 { x / repetition } else { x * repetition };
        let presence = if output > 0 { self.presence_penalty } else { 0.0 };
        x - presence - self.frequency_penalty * output as f32
    }
}

/// One slot.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    sampler: Option<Sampler>,
    history: Option<History>,
    /// Drawn last.
    last: u32,
    prompt_len: u32,
}

/// Undoes what [`Slot::prepare`] did to a row.
#[derive(Debug, Default)]
pub(crate) struct Undo(Vec<(u32, f32)>);

impl Undo {
    /// Puts the row's own logits back.
    pub(crate) fn restore(&mut self, logits: &mut [f32]) {
        for (token, logit) in self.0.drain(..).rev() {
            logits[token as usize] = logit;
        }
    }

    /// Claims room for as many changes, so that no draw has to.
    pub(crate) fn reserve(&mut self, changes: usize) {
        self.0.reserve(changes);
    }

    /// Forgets; the row stays as it is.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    fn set(&mut self, logits: &mut [f32], token: u32, value: impl FnOnce(f32) -> f32) {
        if let Some(logit) = logits.get_mut(token as usize) {
            self.0.push((token, *logit));
            // A NaN must not hide behind a ban.
            *logit = if logit.is_nan() { *logit } else { value(*logit) };
        }
    }
}

impl Slot {
    /// The sampler that the slot was started with.
    ///
    /// # Panics
    /// The slot was not started.
    pub(crate) fn sampler(&self) -> &Sampler {
        self.sampler.as_ref().expect("a draw from a slot that was not started")
    }

    /// Logits that [`Slot::prepare`] changes at most, while the slot has up to `context` tokens.
    fn changes_max(&self, context: usize) -> usize {
        let sampler = self.sampler();
        let seen = if self.history.is_some() { context } else { 0 };
        sampler.logit_bias.len() + seen + DRAFTS_MAX + sampler.banned.len()
    }

    /// Bias, then penalties, then bans for a draw at `position`; changes only the logits that
    /// they name. The drafts of the rows `ahead` count as drawn.
    pub(crate) fn prepare(
        &self,
        logits: &mut [f32],
        position: u32,
        ahead: &[SampleRow],
        undo: &mut Undo,
    ) {
        let sampler = self.sampler();
        for &(token, bias) in &sampler.logit_bias {
            undo.set(logits, token, |x| x + bias);
        }
        if let Some(history) = &self.history {
            let mut drafted = [(0, 0.0); DRAFTS_MAX];
            let drafts = ahead.iter().filter_map(|row| row.draft);
            for (at, token) in drafts.clone().enumerate() {
                let more = drafts.clone().filter(|other| *other == token).count() as u32;
                let logit = logits.get(token as usize).copied().unwrap_or_default();
                drafted[at] = (token, sampler.penalized(logit, history.output(token) + more));
            }
            for seen in &history.seen {
                undo.set(logits, seen.token, |x| sampler.penalized(x, seen.output));
            }
            for &(token, logit) in &drafted[..ahead.len()] {
                undo.set(logits, token, |_| logit);
            }
        }
        if position < sampler.banned_until {
            for &token in &sampler.banned {
                undo.set(logits, token, |_| f32::NEG_INFINITY);
            }
        }
    }
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    vocab: usize,
    context_max: usize,
    /// Histories of slots that were given back: later ones need no new memory.
    spare: Vec<History>,
}

impl Slots {
    pub(crate) fn new(slots: usize, vocab: usize, context_max: usize) -> Self {
        let slots = std::iter::repeat_with(Slot::default).take(slots).collect();
        Self { slots, vocab, context_max, spare: Vec::new() }
    }

    pub(crate) fn get(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    /// Token that a slot drew last; 0 before its first.
    pub(crate) fn last(&self, slot: u32) -> u32 {
        self.get(slot).last
    }

    /// Tokens of a slot's prompt; 0 for a slot that was not started.
    pub(crate) fn prompt_len(&self, slot: u32) -> u32 {
        self.get(slot).prompt_len
    }

    /// Starts a slot; returns the logits that its draws change at most.
    pub(crate) fn start(
        &mut self,
        slot: u32,
        tokens: &[u32],
        prompt_len: u32,
        sampler: &Sampler,
    ) -> usize {
        self.end(slot);
        let state = &mut self.slots[slot as usize];
        state.sampler = Some(sampler.clone());
        state.prompt_len = prompt_len;
        let penalized = sampler.repetition_penalty != 1.0
            || sampler.presence_penalty != 0.0
            || sampler.frequency_penalty != 0.0;
        if penalized {
            let fresh = || History::new(self.vocab, self.context_max);
            let mut history = self.spare.pop().unwrap_or_else(fresh);
            for (i, &token) in tokens.iter().enumerate() {
                history.count(token, i >= prompt_len as usize);
            }
            state.history = Some(history);
        }
        state.changes_max(self.context_max.min(self.vocab))
    }

    pub(crate) fn end(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.sampler = None;
        (state.last, state.prompt_len) = (0, 0);
        if let Some(mut history) = state.history.take() {
            history.clear();
            self.spare.push(history);
        }
    }

    /// The slot drew `token`.
    pub(crate) fn drew(&mut self, slot: u32, token: u32) {
        let state = &mut self.slots[slot as usize];
        state.last = token;
        if let Some(history) = &mut state.history {
            history.count(token, true);
        }
    }
}
