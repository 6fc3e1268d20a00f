//! How far rows that decode guess ahead. A draft is a position like any other to the device: it
//! costs what the cost model says, and brings a token as often as guesses of its kind have held.
//! It is added while the tokens expected of it come cheaper than those of the step without it. So
//! drafts appear where a step is paid for by the weights that it reads, and vanish where
//! positions are, or where guesses fail; a sequence whose guesses begin to hold drafts again.
//!
//! Drafts take nothing from others: no page that a row needs, no prompt token that a step must
//! hold, and no time beyond the target between two tokens.

use crate::core::Core;
use crate::cost::Load;
use crate::lookup::Lookup;

/// A draft is not thought to cost less than this share of what a token of the step costs: it is
/// drawn, checked and told like any other, beside the device's time.
const COST_MIN: f64 = 1.0 / 16.0;

/// Where decoding alone breaks the target, drafts may add this share of a step.
const STRETCH: f64 = 1.0 / 8.0;

/// Tokens that few answers are longer than: a lookup is made for the prompt and so many more.
const ANSWER: usize = 2048;

/// What the step brings and costs with the drafts added so far.
struct Worth {
    /// Tokens expected.
    tokens: f64,
    /// Microseconds.
    time: f64,
    /// Of one draft.
    draft: f64,
    /// Time that it may take.
    time_max: f64,
}

impl Core {
    /// Adds drafts to the rows planned so far, which decode.
    pub(crate) fn plan_drafts(&mut self) {
        if self.config.drafts_max == 0 || self.plan.rows.is_empty() {
            return;
        }
        let mut worth = self.worth(&self.plan.load);
        let taken = self.plan.load.rows + self.config.prefill_tokens_min;
        let mut room = self.config.step_tokens_max.saturating_sub(taken) as u32;
        for at in 0..self.plan.rows.len() {
            let row = self.plan.rows[at];
            let wanted = self.wanted(row.sequence, room, &mut worth);
            let drafts = self.grow_spare(row.sequence, wanted);
            self.plan.rows[at].drafts = drafts;
            self.plan.load.draft(drafts);
            room -= drafts;
        }
    }

    fn worth(&self, load: &Load) -> Worth {
        let (tokens, time) = (load.rows as f64, self.cost.predict(load));
        let target = self.config.target_itl_us as f64;
        let time_max = match load.rows {
            // Nobody else waits for its next token.
            1 => f64::INFINITY,
            _ if target == 0.0 => f64::INFINITY,
            _ => target.max(time * (1.0 + STRETCH)),
        };
        let draft = self.cost.draft_us().max(time / tokens * COST_MIN);
        Worth { tokens, time, draft, time_max }
    }

    /// Drafts that are worth their cost in a row of one, at most `room`.
    fn wanted(&self, number: u32, room: u32, worth: &mut Worth) -> u32 {
        let seq = &self.sequences[number];
        let known = seq.tokens.len() as u32;
        let Some(lookup) = seq.lookup.as_ref().filter(|_| seq.computed < known) else { return 0 };
        // Behind the last draft one more token is drawn.
        let most = (seq.limit.saturating_sub(known + 1)).min(self.config.drafts_max).min(room);
        let (mut drafts, mut odds) = (0, 1.0);
        for (token, holds) in lookup.guesses(&seq.tokens, most as usize) {
            odds *= f64::from(holds);
            // Nothing is drawn behind a stop token, and the row before draws that one itself.
            if !worth.takes(odds) || seq.stop_tokens.contains(&token) {
                break;
            }
            drafts += 1;
        }
        drafts
    }

    /// Room for drafts behind the next position, from pages that nobody needs. Returns how many
    /// fit.
    fn grow_spare(&mut self, number: u32, drafts: u32) -> u32 {
        let spare = self.pages.available().saturating_sub(self.running.len());
        let seq = &mut self.sequences[number];
        for _ in 0..spare {
            if seq.room() > seq.computed + drafts {
                break;
            }
            let Some(page) = self.pages.take() else { break };
            seq.table.push(page);
        }
        drafts.min(seq.room() - seq.computed - 1)
    }

    /// A sequence's lookup takes in what it says.
    pub(crate) fn look_up(&mut self, number: u32) {
        if self.config.drafts_max > 0 {
            let seq = &mut self.sequences[number];
            let length = (seq.limit as usize).min(seq.tokens.len() + ANSWER);
            seq.lookup.get_or_insert_with(|| Lookup::new(length)).read(&seq.tokens);
        }
    }
}

impl Worth {
    /// Takes a draft that holds this often, if that is worth it.
    fn takes(&mut self, odds: f64) -> bool {
        let pays = odds * self.time > self.draft * self.tokens;
        if !pays || self.time + self.draft > self.time_max {
            return false;
        }
        self.tokens += odds;
        self.time += self.draft;
        true
    }
}
