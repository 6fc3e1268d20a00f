//! Who gets a slot and pages, and who has to give them up.
//!
//! A sequence is admitted when the pool holds all its known tokens beside what running ones were
//! promised, plus a watermark: admitting on hope would only preempt it a moment later. When rows
//! that run need pages and there are none, the least urgent, latest arrival gives up its own.
//! The first in that order is never preempted for lack of pages, so something always finishes.

use crate::core::Core;
use crate::sequence::Sequence;
use crate::types::{PAGE_TOKENS, Token};

/// Plans after which a head that did not fit is looked up in the prefix cache again.
const LOOK_AGAIN: u64 = 16;

/// Tokens that a row reserves memory for beyond those it knows. Callers that leave `max_tokens` at
/// the context's length seldom make more.
const RESERVE_MAX: usize = 4096;

/// Rows that more urgent requests may take from less urgent ones in one plan.
const YIELDS_MAX: usize = 16;

/// What a waiting sequence needs, when it was last looked up in the prefix cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    sequence: u32,
    /// Pages that it would take from those available.
    pages: usize,
    /// Tokens that it would compute.
    tokens: usize,
    /// The plan that looks again.
    good_until: u64,
}

impl Core {
    /// Gives the head of the line a slot and the pages of its cached prefix. False when it does
    /// not fit now, or has more than `tokens_max` tokens to compute.
    pub(crate) fn admit(&mut self, number: u32, tokens_max: u32) -> bool {
        if self.slots_free.is_empty() {
            return false;
        }
        let alone = self.running.is_empty();
        let reserve = if alone { 0 } else { self.config.watermark_pages };
        let room = self.plan.uncommitted.saturating_sub(reserve);
        let fits =
            |look: &Look| (alone || look.pages <= room) && look.tokens <= tokens_max as usize;
        // What did not fit at the last look is not looked at again for a while: a look costs time
        // in proportion to the prompt. What does fit is: the cache may have lost pages since.
        let look = self.last_look(number);
        if !fits(&look) {
            return false;
        }
        let look = self.look(number);
        if !fits(&look) {
            return false;
        }
        self.plan.blocked = None;
        self.plan.uncommitted = self.plan.uncommitted.saturating_sub(look.pages);
        self.bring_in(number);
        true
    }

    /// What the sequence would take if it were admitted now.
    fn look(&mut self, number: u32) -> Look {
        let seq = &self.sequences[number];
        let request = &self.requests[seq.request].request;
        let tokens = known_tokens(seq, &request.prompt);
        let usable = &tokens[..self.cacheable(seq)];
        let (found, unheld) = self.pages.count_prefix(request.salt, usable);
        let look = Look {
            sequence: number,
            pages: tokens.len().div_ceil(PAGE_TOKENS) - found + unheld,
            tokens: tokens.len() - found * PAGE_TOKENS,
            good_until: self.plan.count + LOOK_AGAIN,
        };
        self.plan.blocked = Some(look);
        look
    }

    /// The last look at a sequence, or a new one when that is too old.
    fn last_look(&mut self, number: u32) -> Look {
        match self.plan.blocked {
            Some(look) if look.sequence == number && self.plan.count < look.good_until => look,
            _ => self.look(number),
        }
    }

    /// Tokens at the start that may come from the cache. The last known token is always computed,
    /// since the next is drawn from it; and so is every position whose log-probabilities are
    /// wanted and not yet reported.
    fn cacheable(&self, seq: &Sequence) -> usize {
        if !self.config.prefix_cache {
            return 0;
        }
        let live = &self.requests[seq.request];
        let known = known_tokens(seq, &live.request.prompt).len();
        match seq.prompt_logprobs {
            Some(_) => (live.logprobs_next as usize).min(known) - 1,
            None => known - 1,
        }
    }

    /// Moves a sequence from the line into a slot.
    fn bring_in(&mut self, number: u32) {
        let cacheable = self.cacheable(&self.sequences[number]);
        let seq = &mut self.sequences[number];
        let live = &mut self.requests[seq.request];
        if seq.tokens.is_empty() {
            seq.tokens = match live.request.choices {
                1 => std::mem::take(&mut live.request.prompt),
                _ => live.request.prompt.clone(),
            };
        }
        // Room for what it will make, so that rows need no memory while they run.
        let more = (seq.limit as usize).saturating_sub(seq.tokens.len()).min(RESERVE_MAX);
        seq.tokens.reserve_exact(more);
        seq.table.reserve_exact((seq.tokens.len() + more).div_ceil(PAGE_TOKENS));
        if self.config.prefix_cache {
            let (salt, usable) = (live.request.salt, &seq.tokens[..cacheable]);
            seq.tip = Some(self.pages.take_prefix(salt, usable, &mut seq.table));
        }
        seq.registered = seq.table.len() as u32;
        seq.computed = seq.room();
        seq.settled = seq.computed;
        self.counters.prefix_tokens_queried += cacheable as u64;
        self.counters.prefix_tokens_hit += u64::from(seq.computed);
        if live.first_run.is_none() {
            live.first_run = Some(self.now);
            // Of the prompt, and no more than it could have by itself: its last token is computed.
            let whole = (seq.prompt_len - 1) / PAGE_TOKENS as u32 * PAGE_TOKENS as u32;
            live.usage.cached_tokens = seq.computed.min(whole);
        }
        self.line.admit(seq.account, seq.order);
        self.seat(number);
    }

    /// Makes sure that rows can grow by a page each, by preempting from the tail. Pages of rows
    /// in flight come back when these are collected, so some rows may sit out one step.
    pub(crate) fn make_room(&mut self) {
        if self.pages.available() >= self.running.len() {
            return;
        }
        let wants = |seq: &Sequence| seq.behind() > 0 && seq.computed == seq.room();
        let (mut needs, mut alive) = (0, 0);
        for &number in &self.running {
            let seq = &self.sequences[number];
            needs += usize::from(wants(seq));
            alive += usize::from(!seq.ended && !seq.leaving);
        }
        let (mut coming, mut below) = (0, (u8::MAX, u64::MAX));
        while needs > self.pages.available() + coming {
            let Some((&rank, &victim)) = self.ranks.range(..below).next_back() else { return };
            below = rank;
            let seq = &self.sequences[victim];
            if seq.ended || seq.leaving {
                coming += seq.table.len();
                continue;
            }
            if alive == 1 {
                return;
            }
            alive -= 1;
            needs -= usize::from(wants(seq));
            coming += if seq.flights > 0 { seq.table.len() } else { 0 };
            self.preempt(victim);
        }
    }

    /// Takes rows and pages from less urgent sequences when the head of the line lacks them.
    pub(crate) fn yield_to_urgent(&mut self) {
        let Some((priority, head)) = self.line.head() else { return };
        let tail = self.ranks.last_key_value();
        if tail.is_none_or(|(rank, _)| rank.0 <= priority) {
            return;
        }
        let missing = |&number: &u32| self.sequences[number].pages_missing();
        let promised: usize = self.running.iter().map(missing).sum();
        let pages = self.last_look(head).pages + self.config.watermark_pages + promised;
        let slots = self.line.class_len(priority).min(YIELDS_MAX);
        let (mut pages_coming, mut slots_coming) = (0, 0);
        let mut below = (u8::MAX, u64::MAX);
        while self.slots_free.len() + slots_coming < slots
            || self.pages.available() + pages_coming < pages
        {
            let Some((&rank, &victim)) = self.ranks.range(..below).next_back() else { return };
            if rank.0 <= priority {
                return;
            }
            below = rank;
            let seq = &self.sequences[victim];
            let stays = !seq.ended && !seq.leaving;
            if seq.flights > 0 {
                pages_coming += seq.table.len();
                slots_coming += 1;
            }
            if stays {
                self.preempt(victim);
            }
        }
    }

    /// Puts a running sequence back in line, now or when its row in flight is collected.
    fn preempt(&mut self, number: u32) {
        if self.sequences[number].flights > 0 {
            self.sequences[number].leaving = true;
        } else {
            self.requeue(number);
        }
    }
}

/// The tokens of a sequence: its own once it ran, its request's prompt before.
fn known_tokens<'a>(seq: &'a Sequence, prompt: &'a [Token]) -> &'a [Token] {
    if seq.tokens.is_empty() { prompt } else { &seq.tokens }
}
