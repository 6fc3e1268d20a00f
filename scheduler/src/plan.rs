//! What the next step computes: rows of one for sequences that have caught up, then as many
//! prompt tokens as the step's budget allows, then the batch that says so to the engine.

use crate::admit::Look;
use crate::core::{Core, FlightRow};
use crate::cost::Load;
use crate::request::sampling_of;
use crate::sequence::Sequence;
use crate::types::{Batch, Logits, Micros, PAGE_TOKENS, PageGrant, Row, RowStart};

/// Without rows that decode nobody waits for a next token, but a new request or a cancellation
/// still waits for the step: it may take this many times the target.
const PREFILL_STEP_TARGETS: Micros = 4;

/// Sequences with part of a prompt in one step that cannot be finished in it. One more long
/// prompt would only split the same budget further and hold pages for longer.
const CUTS_MAX: usize = 2;

/// A row of the next step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) sequence: u32,
    /// Positions of known tokens, the one in flight included.
    pub(crate) len: u32,
    /// Positions of drafts behind them.
    pub(crate) drafts: u32,
}

/// Buffers of planning, and what is remembered between plans.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Planned>,
    /// Running sequences more than one position behind.
    pub(crate) behind: Vec<u32>,
    /// Pages available and not promised to running sequences for tokens they already have.
    pub(crate) uncommitted: usize,
    /// The head of the line that did not fit.
    pub(crate) blocked: Option<Look>,
    /// Plans made.
    pub(crate) count: u64,
    pub(crate) load: Load,
}

impl Core {
    /// Plans the next step into `batch`. False when there is nothing to run now.
    pub(crate) fn plan(&mut self) -> bool {
        self.plan.rows.clear();
        self.plan.behind.clear();
        self.plan.load = Load::default();
        self.plan.count += 1;
        if self.suspects > 0 {
            // One step at a time, so that a failure says which rows were in it.
            if self.flights.is_empty() {
                self.make_room();
                self.plan_suspects();
            }
        } else {
            self.make_room();
            self.yield_to_urgent();
            self.plan_decode();
            self.plan_drafts();
            self.plan_prefill();
        }
        if self.plan.rows.is_empty() {
            return false;
        }
        self.write_batch();
        true
    }

    /// A row for every sequence that is one position behind; the others are noted.
    fn plan_decode(&mut self) {
        for at in 0..self.running.len() {
            let number = self.running[at];
            match self.sequences[number].behind() {
                0 => {}
                1 => {
                    self.plan_row(number, 1);
                }
                _ => self.plan.behind.push(number),
            }
        }
    }

    /// Prompt tokens: of running sequences and of new ones from the line, most urgent first. A
    /// prompt too long for this step takes half of what is left, so that short ones behind it
    /// need not wait for its end; what nobody else wants is added at last.
    fn plan_prefill(&mut self) {
        let budget = self.prefill_budget();
        self.counters.prefill_budget = budget;
        let mut behind = std::mem::take(&mut self.plan.behind);
        behind.sort_unstable_by_key(|&number| self.sequences[number].rank());
        let promised: usize = behind.iter().map(|&n| self.sequences[n].pages_missing()).sum();
        self.plan.uncommitted = self.pages.available().saturating_sub(promised);

        let (mut left, mut next, mut cuts) = (budget, 0, 0);
        let first_row = self.plan.rows.len();
        let mut admitting = true;
        while left > 0 {
            let head = if admitting { self.line.head() } else { None };
            let number = match (behind.get(next), head) {
                (Some(&n), Some((priority, _))) if self.sequences[n].priority <= priority => n,
                (_, Some((_, head))) => {
                    let whole_only = if cuts < CUTS_MAX { u32::MAX } else { left as u32 };
                    admitting = self.admit(head, whole_only);
                    if !admitting {
                        continue;
                    }
                    head
                }
                (Some(&n), None) => n,
                (None, None) => break,
            };
            next += usize::from(behind.get(next) == Some(&number));
            left = self.without_row(number, left, left == budget);
            let want = self.sequences[number].behind() as usize;
            let more = next < behind.len() || admitting && self.line.len() > 0;
            let share = if want <= left {
                want
            } else {
                cuts += 1;
                let half = (left / 2).max(self.config.prefill_tokens_min);
                if more { half.min(left) } else { left }
            };
            let share = whole_pages(&self.sequences[number], share, want);
            left -= self.plan_row(number, share) as usize;
        }
        self.plan.behind = behind;
        self.top_up(first_row, left);
    }

    /// What is left of the budget once a row's own cost, its context above all, is taken off. The
    /// first row always gets its minimum.
    fn without_row(&self, number: u32, left: usize, first: bool) -> usize {
        if self.config.target_itl_us == 0 {
            return left;
        }
        let cost = self.cost.row_in_tokens(self.sequences[number].computed);
        let least = if first { self.config.prefill_tokens_min.min(left) } else { 1 };
        left.saturating_sub(cost).max(least)
    }

    /// Spends what is left of the budget on rows that were cut.
    fn top_up(&mut self, first_row: usize, mut left: usize) {
        for at in first_row..self.plan.rows.len() {
            if left == 0 {
                return;
            }
            let Planned { sequence: number, len, .. } = self.plan.rows[at];
            let more = (self.sequences[number].behind() - len).min(left as u32);
            if more > 0 {
                let longer = self.grow(number, len + more);
                self.plan.rows[at].len = longer;
                self.plan.load.lengthen(len, longer);
                left -= (longer - len) as usize;
            }
        }
    }

    /// After a failed step its rows run apart from all others, fewer at a time with every
    /// failure, until the one that fails is alone and known.
    fn plan_suspects(&mut self) {
        let mut left = self.config.step_tokens_max;
        for at in 0..self.running.len() {
            let number = self.running[at];
            let seq = &self.sequences[number];
            if seq.suspect && self.plan.rows.len() < self.suspects_max {
                let len = (seq.behind() as usize).min(left.min(self.config.prefill_tokens_min));
                left -= self.plan_row(number, len as u32) as usize;
            }
        }
        if self.plan.rows.is_empty() {
            // None can run now (they lack pages, or only wait to leave): trust them again.
            for at in 0..self.running.len() {
                self.trust(self.running[at]);
            }
        }
    }

    /// A sequence is not suspected of having failed a step any more.
    pub(crate) fn trust(&mut self, number: u32) {
        if std::mem::take(&mut self.sequences[number].suspect) {
            self.suspects -= 1;
        }
    }

    /// Prompt tokens that fit beside the rows planned so far.
    fn prefill_budget(&self) -> usize {
        let load = &self.plan.load;
        let most = self.config.step_tokens_max - load.rows - load.drafts;
        let target = match self.config.target_itl_us {
            0 => return most,
            target if load.rows > 0 => target,
            target => target.saturating_mul(PREFILL_STEP_TARGETS),
        };
        self.cost.prefill_budget(load, target).max(self.config.prefill_tokens_min).min(most)
    }

    /// Adds a row of up to `len` positions, as many as pages can be had for. Returns how many.
    fn plan_row(&mut self, number: u32, len: u32) -> u32 {
        let len = self.grow(number, len);
        if len > 0 {
            self.plan.load.add(self.sequences[number].computed, len);
            self.plan.rows.push(Planned { sequence: number, len, drafts: 0 });
        }
        len
    }

    /// Takes pages for the next `want` positions; returns how many positions have room.
    fn grow(&mut self, number: u32, want: u32) -> u32 {
        let seq = &mut self.sequences[number];
        while seq.room() < seq.computed + want {
            let Some(page) = self.pages.take() else { break };
            seq.table.push(page);
        }
        want.min(seq.room() - seq.computed)
    }

    /// Turns the planned rows into the batch, and notes them as in flight.
    fn write_batch(&mut self) {
        let batch = &mut self.batch;
        batch.step += 1;
        batch.starts.clear();
        batch.grants.clear();
        batch.rows.clear();
        batch.tokens.clear();
        batch.ends.clear();
        batch.ends.append(&mut self.slots_ended);
        let mut flight = self.spare.pop().expect("no more than two steps are in flight");
        flight.step = batch.step;
        flight.launched_at = self.now;
        flight.load = self.plan.load;
        flight.rows.clear();
        for row in &self.plan.rows {
            let seq = &mut self.sequences[row.sequence];
            if std::mem::take(&mut seq.restart) {
                seq.told = true;
                let request = &self.requests[seq.request].request;
                batch.starts.push(RowStart {
                    slot: seq.slot,
                    tokens: seq.tokens.clone(),
                    prompt_len: seq.prompt_len,
                    sampling: sampling_of(request, seq.choice),
                    stop_tokens: request.stop_tokens.clone(),
                    stop_from: seq.stop_from,
                    adapter: seq.adapter,
                    grammar: request.grammar,
                });
            }
            flight.rows.push(write_row(batch, seq, row));
        }
        self.flights.push_back(flight);
    }
}

/// Appends a row with its grants and tokens; the sequence counts it as computed.
fn write_row(batch: &mut Batch, seq: &mut Sequence, row: &Planned) -> FlightRow {
    let &Planned { sequence, len, drafts } = row;
    for (index, page) in seq.table.iter().enumerate().skip(seq.granted as usize) {
        let (index, page) = (index as u32, page.number());
        batch.grants.push(PageGrant { slot: seq.slot, index, page });
    }
    seq.granted = seq.table.len() as u32;
    let first = seq.computed;
    let samples = first + len == seq.expected();
    let late = first as usize == seq.tokens.len();
    let logits = match seq.prompt_logprobs {
        Some(top) if first + 1 < seq.prompt_len => Logits::Prompt { top, sample: samples },
        _ if samples => Logits::Sample,
        _ => Logits::No,
    };
    let tokens_at = batch.tokens.len() as u32;
    if late {
        assert_eq!(len, 1, "one token at most is unknown");
        batch.tokens.push(0);
    } else {
        let tokens = &seq.tokens[first as usize..(first + len) as usize];
        batch.tokens.extend_from_slice(tokens);
    }
    if let Some(lookup) = seq.lookup.as_ref().filter(|_| drafts > 0) {
        let guesses = lookup.guesses(&seq.tokens, drafts as usize);
        batch.tokens.extend(guesses.map(|(token, _)| token));
    }
    seq.computed += len;
    seq.pending += u8::from(samples);
    seq.drafting = drafts > 0;
    seq.flights += 1;
    let len = len + drafts;
    batch.rows.push(Row { slot: seq.slot, first, len, tokens_at, late, drafts, logits });
    FlightRow { sequence, first, len, drafts, samples }
}

/// A cut row ends where a page ends when that costs little: later rows then start on a page.
fn whole_pages(seq: &Sequence, share: usize, want: usize) -> u32 {
    let over = (seq.computed as usize + share) % PAGE_TOKENS;
    if share < want && share >= 2 * PAGE_TOKENS { (share - over) as u32 } else { share as u32 }
}
