//! The books where several gateways share the database: what leases are short of is asked for, and
//! what lies idle is given back.

use super::account::Account;
use super::lease::{Keep, SliceKey};
use super::{Books, Need, Payer, Question, State};
use crate::{Millis, Money};

/// What is known of the others that share a database.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// There are such.
    pub(super) others: bool,
    /// Counts the moments at which there may be more money than before.
    pub(super) round: u64,
    /// Renewals, for whose sums are asked for again.
    renewals: usize,
}

/// Accounts whose sums are asked for again at a renewal, beside those that are spent of here.
const REFRESH: usize = 64;

/// Whether a gateway has what a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stock {
    /// It has, or nothing more can be had.
    Ready,
    /// More is being asked for.
    Waits,
    /// Others have what is missing, and may give it back.
    Elsewhere,
}

impl Books {
    /// Several gateways share the database from now on.
    pub(crate) fn share(&self) {
        self.lock().sharing = Some(Sharing::default());
    }

    /// There may be more money than before, and this is known of others.
    pub(crate) fn next_round(&self, others: bool) {
        if let Some(sharing) = &mut self.lock().sharing {
            (sharing.round, sharing.others) = (sharing.round + 1, others);
        }
    }

    /// Asks for what this gateway lacks for a request.
    pub(crate) fn stock(
        &self,
        payer: &Payer,
        now: Millis,
        need: Need,
        ask: impl FnMut(Question) -> bool,
    ) -> Stock {
        self.lock().stock(payer, (now, now), (need.least, need.first), ask)
    }

    /// Others go short of these. `true`: something of them lies idle here.
    pub(crate) fn wished(&self, keys: &[SliceKey]) -> bool {
        let mut state = self.lock();
        let mut idle = false;
        for key in keys {
            if let Some(account) = state.accounts.get_mut(&key.budget) {
                idle |= account.wished(key);
            }
        }
        idle
    }

    /// What each slice is to be; what is not needed is given back. `queued` runs before anything
    /// else can move money. Sums that may be old are asked for again.
    pub(crate) fn renew(
        &self,
        now: Millis,
        queued: impl FnOnce(Vec<(SliceKey, Keep)>),
        mut ask: impl FnMut(Question) -> bool,
    ) {
        let mut state = self.lock();
        let Some(sharing) = &mut state.sharing else { return };
        let others = sharing.others;
        let turn = sharing.renewals.wrapping_mul(REFRESH);
        sharing.renewals = sharing.renewals.wrapping_add(1);
        let mut keeps = Vec::new();
        let number = state.next();
        let count = state.accounts.len().max(1);
        let first = turn % count;
        for (at, account) in state.accounts.values_mut().enumerate() {
            if others {
                account.refresh((at + count - first) % count < REFRESH);
            }
            account.renew(others, now, &mut keeps);
        }
        queued(keeps);
        for account in state.accounts.values_mut().filter(|_| others) {
            account.put(number, now, &mut ask);
        }
    }

    /// This gateway was taken for lost: nothing is granted to it any more.
    pub(crate) fn void(&self) {
        self.lock().accounts.values_mut().for_each(Account::void);
    }
}

impl State {
    /// Asks for what leases are short of for so much.
    pub(super) fn stock(
        &mut self,
        payer: &Payer,
        (at, now): (Millis, Millis),
        (least, first): (Money, Money),
        mut ask: impl FnMut(Question) -> bool,
    ) -> Stock {
        let (number, latest, round) = (self.next(), self.latest(), self.round());
        let mut stock = Stock::Ready;
        self.each(payer, |account| {
            for limit in 0..account.limits() {
                let known = account.at(limit, at, latest).known;
                if account.is_soft(limit) {
                    continue;
                }
                let left = account.leased(limit, at, now);
                let Some(lease) = account.lease(limit, at) else { continue };
                if lease.is_dry(round) {
                    if left < least && lease.others > Money::ZERO && stock == Stock::Ready {
                        stock = Stock::Elsewhere;
                    }
                } else if !known || left < first {
                    lease.want(first.minus(left));
                    lease.urgent = true;
                    stock = Stock::Waits;
                } else if left < first.plus(first) {
                    // Not needed yet: the next one should not have to wait.
                    lease.want(first);
                }
            }
            account.put(number, now, &mut ask);
        });
        stock
    }
}
