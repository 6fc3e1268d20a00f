//! Grammars: for each sequence that is held to one, where it is in it, and which tokens may come
//! next. The work is done by a few threads ([`Pool`]) while the device runs a forward pass; here
//! is what is handed to them and what becomes of it.
//!
//! A state belongs to one sequence and is either here or with a worker, so nobody waits for a
//! lock. Buffers are claimed when a sequence starts and go along with its state. It must not know
//! what a grammar says, nor whether its token was drawn on a device or before a preemption.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::SampleRow;
use scheduler::types::{RowStart, Token};
use text::grammar::{Allowed, Grammar, GrammarFault};

mod pool;

use pool::{Pool, Work};

/// All grammars and the sequences that they hold.
pub(super) struct Masks {
    grammars: BTreeMap<u64, Arc<Grammar>>,
    /// By slot.
    held: Vec<Option<Held>>,
    /// Sequences that were held so far.
    lives: u64,
    /// Made with the first grammar: most engines never see one.
    pool: Option<Pool>,
    /// u32 words of a mask over the model's logits.
    words: usize,
    /// `[masks, words]` of the step that is drawn.
    step: Vec<u32>,
}

/// A sequence that is held.
struct Held {
    /// Tells it from the one that had the slot before: a worker may still have that one's state.
    life: u64,
    /// Its state and the mask of its next token; `None` while a worker has them.
    work: Option<Box<Work>>,
    stop_tokens: Vec<Token>,
    /// Length from which a stop token ends it.
    stop_from: u32,
    /// It has ended, or failed: what is still drawn in its slot is nobody's.
    over: bool,
}

impl Masks {
    /// For a model with masks of so many words.
    pub(super) fn new(slots: usize, words: usize) -> Self {
        let held = (0..slots).map(|_| None).collect();
        let (grammars, step) = (BTreeMap::new(), Vec::new());
        Self { grammars, held, lives: 0, pool: None, words, step }
    }

    pub(super) fn set(&mut self, number: u64, grammar: Arc<Grammar>) {
        let Self { held, pool, words, step, .. } = self;
        if pool.is_none() {
            *pool = Some(Pool::new(held.len()));
            step.reserve(held.len() * *words);
        }
        self.grammars.insert(number, grammar);
    }

    /// Sequences that carry the number go on: each has its own share of the grammar.
    pub(super) fn drop(&mut self, number: u64) {
        self.grammars.remove(&number);
    }

    /// A sequence takes a slot. Where it is in its grammar follows from the tokens that it made.
    /// `forces`: tokens that must follow a draw may be told with it.
    pub(super) fn start(&mut self, start: &RowStart, forces: bool) {
        let RowStart { slot, tokens, prompt_len, stop_tokens, stop_from, grammar, .. } = start;
        self.end(*slot);
        if *grammar == 0 {
            return;
        }
        self.lives += 1;
        let place = (*slot, self.lives);
        let work = match self.grammars.get(grammar) {
            Some(grammar) => {
                let made = tokens[*prompt_len as usize..].to_vec();
                self.send(Box::new(Work::new(place, grammar, made, forces)));
                None
            }
            None => {
                let why = format!("the engine has no grammar {grammar}");
                Some(Box::new(Work::failed(place, GrammarFault(why))))
            }
        };
        self.held[*slot as usize] = Some(Held {
            life: self.lives,
            work,
            stop_tokens: stop_tokens.clone(),
            stop_from: *stop_from,
            over: false,
        });
    }

    /// A slot is given back.
    pub(super) fn end(&mut self, slot: u32) {
        self.held[slot as usize] = None;
    }

    /// Whether the next token of a slot has to be allowed by a grammar.
    pub(super) fn holds(&self, slot: u32) -> bool {
        self.held[slot as usize].as_ref().is_some_and(|held| !held.over)
    }

    /// The token that a slot drew; `None` when it failed. A stop token ends it at any length:
    /// before its time it is drawn only when the grammar leaves nothing else. Returns the tokens
    /// that must follow.
    pub(super) fn drew(&mut self, slot: u32, token: Option<Token>) -> Vec<Token> {
        let Some(held) = &mut self.held[slot as usize] else { return Vec::new() };
        let ends = |token| held.stop_tokens.contains(&token);
        let Some(token) = token.filter(|token| !held.over && !ends(*token)) else {
            held.over = true;
            return Vec::new();
        };
        let mut work = held.work.take().expect("a state whose mask was drawn under");
        work.tokens.push(token);
        // Its mask allowed the first of them alone.
        let follow = work.forced.get(1..).unwrap_or_default().to_vec();
        work.tokens.extend(&follow);
        self.send(work);
        follow
    }

    /// Gives each of these draws its mask, and waits for those that are not made yet. Slots whose
    /// sequence cannot go on are added to `failed`.
    pub(super) fn fill(&mut self, rows: &mut [SampleRow], failed: &mut Vec<(u32, String)>) {
        self.step.clear();
        for row in rows {
            let SampleRow { slot, position, .. } = *row;
            if !self.holds(slot) {
                continue;
            }
            self.wait(slot);
            let held = self.held[slot as usize].as_mut().expect("a slot that is held");
            let work = held.work.as_deref().expect("it was waited for");
            // The sampler knows of no stop tokens here: they may be all that a grammar leaves.
            let early = position < held.stop_from;
            let banned = if early { held.stop_tokens.as_slice() } else { &[] };
            match &work.allowed {
                Ok(_) if !work.forced.is_empty() => {
                    row.mask = Some(only(&mut self.step, self.words, work.forced[0]));
                }
                Ok(allowed) => {
                    let mask = (*allowed == Allowed::Only).then_some(work.mask.as_slice());
                    row.mask = append(&mut self.step, self.words, mask, banned);
                }
                Err(GrammarFault(why)) => {
                    failed.push((slot, why.clone()));
                    held.over = true;
                }
            }
        }
    }

    /// Masks of the last [`Masks::fill`].
    pub(super) fn step(&self) -> &[u32] {
        &self.step
    }

    /// Hands work to the pool. There is room for as much as there are slots; what was in hand for
    /// sequences that are gone takes some of it until it comes back.
    fn send(&mut self, work: Box<Work>) {
        while self.pool().is_full() {
            self.receive();
        }
        self.pool().send(work);
    }

    fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("made with the first grammar")
    }

    fn wait(&mut self, slot: u32) {
        while self.held[slot as usize].as_ref().is_some_and(|held| held.work.is_none()) {
            self.receive();
        }
    }

    fn receive(&mut self) {
        let work = self.pool().receive();
        if let Some(held) = &mut self.held[work.slot as usize]
            && held.life == work.life
        {
            held.work = Some(work);
        }
    }
}

/// Appends a mask of one token, and says which it is.
fn only(step: &mut Vec<u32>, words: usize, token: Token) -> u32 {
    let at = step.len();
    step.resize(at + words, 0);
    step[at + token as usize / 32] = 1 << (token % 32);
    (at / words) as u32
}

/// Appends a mask of `words` words without the `banned` tokens, and says which it is; `None` where
/// nothing is forbidden. Without `mask` all tokens may come. Tokens behind its end have a logit but
/// no text, so none of them may.
fn append(
    step: &mut Vec<u32>,
    words: usize,
    mask: Option<&[u32]>,
    banned: &[Token],
) -> Option<u32> {
    if mask.is_none() && banned.is_empty() {
        return None;
    }
    let at = step.len();
    let mask = mask.map(|mask| &mask[..mask.len().min(words)]);
    step.extend_from_slice(mask.unwrap_or_default());
    step.resize(at + words, if mask.is_none() { u32::MAX } else { 0 });
    let allowed = &mut step[at..];
    for &token in banned {
        if let Some(word) = allowed.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }
    // The grammar wins: it is complete, and only its end may come.
    if let Some(mask) = mask.filter(|_| allowed.iter().all(|word| *word == 0)) {
        allowed[..mask.len()].copy_from_slice(mask);
    }
    Some((at / words) as u32)
}

#[cfg(test)]
mod tests {
    use super::append;

    #[track_caller]
    fn check(mask: Option<&[u32]>, banned: &[u32], want: Option<[u32; 3]>) {
        let mut step = vec![7; 3];
        let got = append(&mut step, 3, mask, banned);
        assert_eq!(got, want.map(|_| 1));
        assert_eq!(step[3..], *want.as_ref().map_or(&[][..], |want| &want[..]));
    }

    #[test]
    fn stop_tokens_are_taken_out_unless_they_are_all_that_is_left() {
        check(None, &[], None);
        check(None, &[0, 33, 95], Some([!1, !2, !(1 << 31)]));
        check(Some(&[5, 6]), &[], Some([5, 6, 0]));
        check(Some(&[5, 6]), &[2, 33], Some([1, 4, 0]));
        check(Some(&[4, 2]), &[2, 33], Some([4, 2, 0]));
        check(Some(&[4, 2]), &[2, 33, 5000], Some([4, 2, 0]));
        check(Some(&[1, 2, 3, 4]), &[0], Some([0, 2, 3]));
    }
}
