//! What this gateway may spend of a window without asking, where several share a database.
//!
//! The database holds the other side of it (`crate::store::slices`): there, what was spent and all
//! that gateways were granted never exceed what a budget allows. Here, what is granted is held by
//! requests or lies idle. Both sides say the same of one moment: the place of a question in the
//! writer's queue. What is settled before it is in the ledger when the question is read, and what
//! is settled after it is counted in `since`.

use ring::digest::{SHA256, digest};

use crate::entity::Budget;
use crate::{Id, Millis, Money};

/// One window's lease.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// What is set aside for this gateway, less what it has spent of it.
    pub(super) granted: Money,
    /// What the limit allowed when it was granted. A limit that allows less since then may be used
    /// up by others: what lies idle is void.
    pub(super) basis: Money,
    /// What requests went short of since the last question.
    pub(super) gap: Money,
    /// One of them waits for it.
    pub(super) urgent: bool,
    /// Spent since the last renewal.
    pub(super) used: Money,
    /// Another gateway goes short.
    pub(super) wished: bool,
    /// The last answer was less than was asked for.
    pub(super) short: bool,
    /// The round of that answer: the next question waits for another one.
    pub(super) round: u64,
    /// What other gateways have of it.
    pub(super) others: Money,
}

/// Names a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SliceKey {
    /// The budget.
    pub(crate) budget: Id,
    /// What it counts; see [`shape`].
    pub(crate) shape: String,
    /// Which of its limits.
    pub(crate) part: i64,
    /// The window's first millisecond.
    pub(crate) start: Millis,
}

/// More money that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct More {
    /// Which limit.
    pub(crate) limit: usize,
    /// The slice.
    pub(crate) key: SliceKey,
    /// What this gateway has of it.
    pub(crate) granted: Money,
    /// What its requests hold: it is spent whatever the answer is.
    pub(crate) held: Money,
    /// What is wanted on top.
    pub(crate) gap: Money,
    /// A request waits for it.
    pub(crate) urgent: bool,
}

/// The answer to [`More`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    /// What this gateway has now.
    pub(crate) granted: Money,
    /// What the limit allows.
    pub(crate) allowed: Money,
    /// Less than was wanted.
    pub(crate) short: bool,
    /// What other gateways have.
    pub(crate) others: Money,
}

/// What a slice is to be after a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// What is above is given back.
    pub(crate) most: Money,
    /// What requests hold.
    pub(crate) held: Money,
}

impl Lease {
    /// What nobody holds, by what the limit allows now.
    pub(super) fn idle(&mut self, held: Money, allowed: Money) -> Money {
        if allowed < self.basis {
            (self.granted, self.basis) = (self.granted.min(held), allowed);
            self.short = false;
        }
        // More may be had than when it was short.
        self.short &= allowed <= self.basis;
        self.granted.minus(held)
    }

    /// Whether to ask now would be of no use: somebody did, a moment ago.
    pub(super) fn is_dry(&self, round: u64) -> bool {
        self.short && self.round == round
    }

    /// Requests go short.
    pub(super) fn want(&mut self, gap: Money) {
        self.gap = self.gap.plus(gap);
    }

    pub(super) fn answer(&mut self, answer: Granted, since: Money, round: u64) {
        let Granted { granted, allowed, short, others } = answer;
        self.granted = granted.minus(since);
        // Whoever still waits says so again.
        (self.gap, self.urgent) = (Money::ZERO, false);
        (self.basis, self.short, self.others, self.round) = (allowed, short, others, round);
    }

    /// Gives back what is not needed, and says what stays. What was spent lately is likely to be
    /// spent again.
    pub(super) fn renew(&mut self, held: Money, others: bool, over: bool) -> Keep {
        let used = std::mem::take(&mut self.used);
        let wished = std::mem::take(&mut self.wished);
        let spare = if over || wished {
            Money::ZERO
        } else if others {
            used.plus(used)
        } else {
            Money::MAX
        };
        let most = held.plus(spare).max(held);
        self.granted = self.granted.min(most);
        Keep { most: self.granted.max(Money::ZERO), held }
    }
}

/// What a budget counts, in a few letters: its scope, models, zone and windows. Slices of one
/// budget that differ in it are slices of different money.
pub(crate) fn shape(budget: &Budget) -> String {
    let limits: Vec<_> =
        budget.limits.iter().map(|limit| (limit.period.name(), limit.soft)).collect();
    let (model, zone) = (budget.model.as_deref(), budget.time_zone.as_deref());
    let text = format!("{}\n{model:?}\n{zone:?}\n{limits:?}", budget.scope);
    hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}
