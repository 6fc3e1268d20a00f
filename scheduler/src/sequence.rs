//! One choice of a request on its way: tokens known, positions computed, pages held.
//!
//! There is no prefill and no decode phase. `computed` chases the expected length: the tokens
//! known plus the one that a step in flight will draw. A sequence far behind takes large rows, one
//! that has caught up takes rows of one, and the planner treats them alike.

use crate::lookup::Lookup;
use crate::pages::Page;
use crate::prefix::Tip;
use crate::types::{PAGE_TOKENS, RequestId, Token};

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Waits for a sibling to compute the prompt that they share.
    Held,
    /// In the waiting line.
    Waiting,
    /// Has a slot and pages.
    Running,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) choice: u32,
    /// Its request's number.
    pub(crate) request: u32,
    /// Arrival, unique: smaller came earlier.
    pub(crate) order: u64,
    pub(crate) priority: u8,
    /// Its tenant's account in the line.
    pub(crate) account: u32,
    pub(crate) state: State,
    /// The choice is over: a row still in flight is computed for nobody.
    pub(crate) ended: bool,
    /// Preempted while a row is in flight: leaves its slot when that is collected.
    pub(crate) leaving: bool,
    /// The engine must be told (again) what lies in the slot.
    pub(crate) restart: bool,
    /// The engine was told that it has the slot, and must be told when it leaves.
    pub(crate) told: bool,
    /// In a step that failed; kept apart until a step with it succeeds.
    pub(crate) suspect: bool,
    /// Siblings wait for its prompt.
    pub(crate) leads: bool,
    /// Alternatives, when it computes the prompt's log-probabilities.
    pub(crate) prompt_logprobs: Option<u32>,
    pub(crate) slot: u32,
    /// Its index among the running.
    pub(crate) running_at: u32,
    /// Steps in flight that have a row of it.
    pub(crate) flights: u8,
    /// Tokens that steps in flight will draw for it, drafts not counted.
    pub(crate) pending: u8,
    /// The step in flight has drafts of it: how many tokens that draws is not known.
    pub(crate) drafting: bool,
    /// Times in a row that it failed alone or with the device.
    pub(crate) faults: u32,
    /// Prompt, then made tokens. Empty until first admitted, where nothing was made before.
    pub(crate) tokens: Vec<Token>,
    pub(crate) prompt_len: u32,
    /// Length with which it came: the prompt, and what was made of it elsewhere.
    pub(crate) given_len: u32,
    /// Length at which it ends.
    pub(crate) limit: u32,
    /// Length from which stop tokens end it.
    pub(crate) stop_from: u32,
    pub(crate) adapter: u32,
    pub(crate) stop_tokens: Box<[Token]>,
    /// Positions computed, steps in flight included. Drafts count when they were drawn.
    pub(crate) computed: u32,
    /// Positions computed by steps collected.
    pub(crate) settled: u32,
    pub(crate) table: Vec<Page>,
    /// Entries of `table` that the engine knows.
    pub(crate) granted: u32,
    /// The prefix behind the pages registered so far; `None` when it does not register.
    pub(crate) tip: Option<Tip>,
    /// Pages at the start of `table` that are registered, by itself or by others.
    pub(crate) registered: u32,
    /// Where its drafts come from; `None` until it first runs, and where nobody drafts.
    pub(crate) lookup: Option<Lookup>,
}

impl Sequence {
    /// Tokens known, plus those that steps in flight will draw.
    pub(crate) fn expected(&self) -> u32 {
        self.tokens.len() as u32 + u32::from(self.pending)
    }

    /// Positions that could be computed now. 0 when the sequence is over or leaves, when the token
    /// in flight provably is its last, or when it is not known how many are.
    pub(crate) fn behind(&self) -> u32 {
        let last_in_flight = self.pending > 0 && self.expected() >= self.limit;
        if self.ended || self.leaving || self.drafting || last_in_flight {
            return 0;
        }
        self.expected() - self.computed
    }

    /// Positions that its pages have room for.
    pub(crate) fn room(&self) -> u32 {
        (self.table.len() * PAGE_TOKENS) as u32
    }

    /// Pages that its known tokens need beyond those it has.
    pub(crate) fn pages_missing(&self) -> usize {
        self.tokens.len().div_ceil(PAGE_TOKENS).saturating_sub(self.table.len())
    }

    /// Tokens made here.
    pub(crate) fn made(&self) -> u32 {
        (self.tokens.len() as u32).saturating_sub(self.given_len)
    }

    /// Whether somebody has begun to read it elsewhere.
    pub(crate) fn resumes(&self) -> bool {
        self.given_len > self.prompt_len
    }

    /// Its place among the running: the greatest is preempted first.
    pub(crate) fn rank(&self) -> (u8, u64) {
        (self.priority, self.order)
    }
}
