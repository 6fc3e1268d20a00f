//! Grammars: for each sequence that is held to one, where it is in it, and which tokens may come
//! next. The work is done by a few threads ([`Pool`]) while the device runs a forward pass; here
//! is what is handed to them and what becomes of it.
//!
//! A state belongs to one sequence and is either here or with a worker, so nobody waits for a
//! lock. Buffers go along with its state and are kept. It must not know what a grammar says, nor
//! whether its token was drawn on a device or before a preemption.
//!
//! Behind drafts a worker walks ahead of the state: each draw of a chain has the mask that it would
//! have alone, and a chain ends where the grammar refuses a draft, or forces what follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::SampleRow;
use scheduler::types::{RowStart, Sample, Token};
use text::grammar::{Grammar, GrammarFault};

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
    /// Its state and the masks of its next tokens; `None` while a worker has them.
    work: Option<Box<Work>>,
    /// What was drawn last has not gone to a worker: it goes with the next launch, which says
    /// which drafts come behind it.
    stale: bool,
    /// A draw was launched that needs a token of the step before it.
    awaited: bool,
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
            stale: false,
            awaited: false,
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

    /// A slot draws in the step that is launched, with these drafts behind its known token, or,
    /// `late`, behind a token that is still on the device.
    pub(super) fn draws(&mut self, slot: u32, drafts: &[Token], late: bool) {
        let Some(held) = self.held[slot as usize].as_mut().filter(|held| !held.over) else {
            return;
        };
        held.awaited = late;
        if std::mem::take(&mut held.stale) {
            let mut work = held.work.take().expect("a state that was drawn from");
            work.drafts.clear();
            work.drafts.extend_from_slice(drafts);
            self.send(work);
        }
    }

    /// The tokens that a slot drew; none when it failed. A stop token ends it at any length: before
    /// its time it is drawn only when the grammar leaves nothing else. The last of them gets the
    /// tokens that must follow it.
    pub(super) fn drew(&mut self, slot: u32, drawn: &mut [Sample]) {
        let Some(held) = &mut self.held[slot as usize] else { return };
        let ends = |sample: &Sample| held.stop_tokens.contains(&sample.token);
        let depth = drawn.len();
        let Some(last) = drawn.last_mut().filter(|last| !held.over && !ends(last)) else {
            held.over = true;
            return;
        };
        let mut work = held.work.take().expect("a state whose mask was drawn under");
        // Drawn in the last row of the chain, whose mask allowed the first of them alone.
        if work.allowed.len() == depth {
            last.forced.extend(work.forced.iter().skip(1));
        }
        work.tokens.extend(drawn.iter().map(|sample| sample.token));
        work.tokens.extend(drawn.iter().flat_map(|sample| &sample.forced));
        work.drafts.clear();
        if std::mem::take(&mut held.awaited) {
            self.send(work);
        } else {
            (held.work, held.stale) = (Some(work), true);
        }
    }

    /// Gives each of these draws its mask, and waits for those that are not made yet. Rows behind a
    /// draft that cannot be drawn are taken out, here and in `at`, which says the same of each row.
    /// Slots whose sequence cannot go on are added to `failed`.
    pub(super) fn fill(
        &mut self,
        rows: &mut Vec<SampleRow>,
        at: &mut Vec<u32>,
        failed: &mut Vec<(u32, String)>,
    ) {
        self.step.clear();
        let (mut kept, mut depth, mut follows, mut cut) = (0, 0, false, false);
        for i in 0..rows.len() {
            let mut row = rows[i];
            depth = if follows { depth + 1 } else { 0 };
            follows = row.draft.is_some();
            cut &= depth > 0;
            if cut {
                continue;
            }
            if self.holds(row.slot) {
                self.wait(row.slot);
                let draws = self.draws_known(row.slot, failed);
                row.draft = row.draft.filter(|_| depth + 1 < draws);
                row.mask = self.mask(row.slot, row.position, depth);
                cut = follows && row.draft.is_none();
            }
            (rows[kept], at[kept]) = (row, at[i]);
            kept += 1;
        }
        rows.truncate(kept);
        at.truncate(kept);
    }

    /// Draws of a slot whose masks are made; 0 when it cannot go on.
    fn draws_known(&mut self, slot: u32, failed: &mut Vec<(u32, String)>) -> usize {
        let held = self.held[slot as usize].as_mut().expect("a slot that is held");
        let work = held.work.as_deref().expect("it was waited for");
        if let Some(GrammarFault(why)) = &work.fault {
            failed.push((slot, why.clone()));
            held.over = true;
            return 0;
        }
        work.allowed.len()
    }

    /// Appends the mask of a draw to those of the step, and says which it is.
    fn mask(&mut self, slot: u32, position: u32, depth: usize) -> Option<u32> {
        let held = self.held[slot as usize].as_ref().filter(|held| !held.over)?;
        let work = held.work.as_deref().expect("it was waited for");
        if depth + 1 == work.allowed.len()
            && let Some(&forced) = work.forced.first()
        {
            return Some(only(&mut self.step, self.words, forced));
        }
        // The sampler knows of no stop tokens here: they may be all that a grammar leaves.
        let banned = if position < held.stop_from { held.stop_tokens.as_slice() } else { &[] };
        append(&mut self.step, self.words, work.mask(depth), banned)
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
