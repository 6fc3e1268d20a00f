//! The waiting line: who is admitted next.
//!
//! Classes first: the smallest priority that waits is served, and a blocked head blocks all that
//! comes after it, so that nothing small can starve something large. Within a class, preempted
//! sequences go first, oldest first; then tenants take turns by deficit round robin over measured
//! device time. A tenant's round is its time served divided by a quantum, and rounds are kept as
//! ordered keys, so that a turn costs a logarithm instead of a walk over all tenants. Time is
//! charged after the fact to whoever ran; keys are corrected when they come up, not when time is
//! charged, so that charging a row costs one addition.
//!
//! A tenant that comes back after a pause starts at the class's clock: neither old debt beyond
//! it is forgiven nor is idleness saved up. It knows sequence numbers, no pages and no tokens.

use std::collections::{BTreeMap, BTreeSet};

use crate::slab::Slab;

/// A turn's worth of device time in nanoseconds. Tenants may differ by about this much, and by
/// what one admission costs.
const QUANTUM_NS: u64 = 10_000_000;

/// Tenants without any sequence whose debt is still remembered. Beyond it the smallest is
/// forgiven.
const DEBTORS_MAX: usize = 4096;

/// A tenant's account within one class.
#[derive(Debug)]
struct Account {
    priority: u8,
    tenant: u64,
    served_ns: u64,
    /// Sequences alive, waiting or running.
    live: usize,
    /// Waiting sequences by arrival.
    queue: BTreeMap<u64, u32>,
    /// Its place among those with a queue.
    key: (u64, u64),
}

#[derive(Debug, Default)]
struct Class {
    /// Preempted sequences by arrival.
    resumed: BTreeMap<u64, u32>,
    /// Accounts with a queue by (round, turn).
    ready: BTreeMap<(u64, u64), u32>,
    /// Served time of the account picked last: where newcomers start.
    clock_ns: u64,
    waiting: usize,
    live: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    classes: BTreeMap<u8, Class>,
    accounts: Slab<Account>,
    by_name: BTreeMap<(u8, u64), u32>,
    /// Accounts with no sequence and served time ahead of their class's clock.
    debtors: BTreeSet<(u8, u64, u32)>,
    turns: u64,
    waiting: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            classes: BTreeMap::new(),
            accounts: Slab::new(),
            by_name: BTreeMap::new(),
            debtors: BTreeSet::new(),
            turns: 0,
            waiting: 0,
        }
    }

    /// Sequences that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Sequences that wait in a class.
    pub(crate) fn class_len(&self, priority: u8) -> usize {
        self.classes.get(&priority).map_or(0, |class| class.waiting)
    }

    /// A sequence comes to life. Returns its tenant's account.
    pub(crate) fn enter(&mut self, priority: u8, tenant: u64) -> u32 {
        self.classes.entry(priority).or_default().live += 1;
        let name = (priority, tenant);
        let number = match self.by_name.get(&name) {
            Some(&number) => number,
            None => {
                let (served_ns, live, queue) = (0, 0, BTreeMap::new());
                let new = Account { priority, tenant, served_ns, live, queue, key: (0, 0) };
                let number = self.accounts.insert(new);
                self.by_name.insert(name, number);
                number
            }
        };
        let account = &mut self.accounts[number];
        if account.live == 0 {
            self.debtors.remove(&(priority, account.served_ns, number));
        }
        account.live += 1;
        number
    }

    /// A sequence is gone; it does not wait any more.
    pub(crate) fn leave(&mut self, number: u32) {
        let account = &mut self.accounts[number];
        let priority = account.priority;
        account.live -= 1;
        if account.live == 0 {
            assert!(account.queue.is_empty(), "a dead sequence waits");
            self.debtors.insert((priority, account.served_ns, number));
        }
        let class = self.classes.get_mut(&priority).expect("the class of a live sequence");
        class.live -= 1;
        let clock = if class.live == 0 { u64::MAX } else { class.clock_ns };
        if class.live == 0 {
            self.classes.remove(&priority);
        }
        self.forgive(priority, clock);
    }

    /// Appends a sequence to its tenant's queue.
    pub(crate) fn push(&mut self, number: u32, order: u64, sequence: u32) {
        let account = &mut self.accounts[number];
        let class = self.classes.get_mut(&account.priority).expect("the class of a live sequence");
        if account.queue.is_empty() {
            account.served_ns = account.served_ns.max(class.clock_ns);
            account.key = (account.served_ns / QUANTUM_NS, self.turns);
            self.turns += 1;
            class.ready.insert(account.key, number);
        }
        account.queue.insert(order, sequence);
        class.waiting += 1;
        self.waiting += 1;
    }

    /// Puts a preempted sequence before all others of its class that arrived after it.
    pub(crate) fn push_resumed(&mut self, number: u32, order: u64, sequence: u32) {
        let priority = self.accounts[number].priority;
        let class = self.classes.get_mut(&priority).expect("the class of a live sequence");
        class.resumed.insert(order, sequence);
        class.waiting += 1;
        self.waiting += 1;
    }

    /// The next sequence to admit, with its priority.
    pub(crate) fn head(&mut self) -> Option<(u8, u32)> {
        if self.waiting == 0 {
            return None;
        }
        let (&priority, class) = self.classes.iter_mut().find(|(_, class)| class.waiting > 0)?;
        if let Some((_, &sequence)) = class.resumed.first_key_value() {
            return Some((priority, sequence));
        }
        loop {
            let (&key, &number) = class.ready.first_key_value()?;
            let account = &mut self.accounts[number];
            let round = account.served_ns / QUANTUM_NS;
            if round == key.0 {
                let (_, &sequence) = account.queue.first_key_value()?;
                return Some((priority, sequence));
            }
            class.ready.remove(&key);
            account.key = (round, self.turns);
            self.turns += 1;
            class.ready.insert(account.key, number);
        }
    }

    /// Takes a sequence out of the line: admitted or ended.
    pub(crate) fn remove(&mut self, number: u32, order: u64) {
        let account = &mut self.accounts[number];
        let class = self.classes.get_mut(&account.priority).expect("the class of a live sequence");
        class.waiting -= 1;
        self.waiting -= 1;
        if class.resumed.remove(&order).is_some() {
            return;
        }
        account.queue.remove(&order).expect("a waiting sequence is in its queue");
        if account.queue.is_empty() {
            class.ready.remove(&account.key);
        }
    }

    /// Takes the head out because it is admitted: its tenant's turn in this round is over.
    pub(crate) fn admit(&mut self, number: u32, order: u64) {
        let priority = self.accounts[number].priority;
        let class = self.classes.get_mut(&priority).expect("the class of a live sequence");
        let resumed = class.resumed.contains_key(&order);
        self.remove(number, order);
        if resumed {
            return;
        }
        let class = self.classes.get_mut(&priority).expect("the class of a live sequence");
        let account = &mut self.accounts[number];
        class.clock_ns = class.clock_ns.max(account.served_ns);
        let clock = class.clock_ns;
        if !account.queue.is_empty() {
            class.ready.remove(&account.key);
            account.key.1 = self.turns;
            self.turns += 1;
            class.ready.insert(account.key, number);
        }
        self.forgive(priority, clock);
    }

    /// Charges device time to an account.
    pub(crate) fn charge(&mut self, number: u32, nanos: u64) {
        self.accounts[number].served_ns += nanos;
    }

    /// Drops accounts without sequences whose debt the class's clock has passed.
    fn forgive(&mut self, priority: u8, clock_ns: u64) {
        while let Some(&debtor) = self.debtors.range((priority, 0, 0)..).next() {
            if debtor.0 != priority || debtor.1 > clock_ns {
                break;
            }
            self.drop_debtor(debtor);
        }
        while self.debtors.len() > DEBTORS_MAX {
            let least = *self.debtors.first().expect("more than the limit");
            self.drop_debtor(least);
        }
    }

    fn drop_debtor(&mut self, debtor: (u8, u64, u32)) {
        self.debtors.remove(&debtor);
        let account = self.accounts.remove(debtor.2);
        self.by_name.remove(&(account.priority, account.tenant));
    }

    /// Asserts that no sequence is alive and nothing is kept for one.
    pub(crate) fn check_idle(&self) {
        assert_eq!((self.waiting, self.classes.len()), (0, 0), "the line keeps dead sequences");
        assert_eq!(self.accounts.len(), 0, "the line keeps accounts of nobody");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Admits `picks` sequences of tenants that always have more, charging each what it costs.
    fn serve(line: &mut Line, cost_ms: &[u64], picks: usize) -> Vec<u64> {
        let mut order = 1000;
        let mut served = vec![0; cost_ms.len()];
        let accounts: Vec<u32> = (0..cost_ms.len()).map(|t| line.enter(0, t as u64)).collect();
        for (tenant, &account) in accounts.iter().enumerate() {
            line.push(account, order, tenant as u32);
            order += 1;
        }
        for _ in 0..picks {
            let (_, tenant) = line.head().expect("all have more");
            let account = accounts[tenant as usize];
            let first = *line.accounts[account].queue.keys().next().expect("waits");
            line.push(account, order, tenant);
            order += 1;
            line.admit(account, first);
            line.charge(account, cost_ms[tenant as usize] * 1_000_000);
            served[tenant as usize] += cost_ms[tenant as usize];
        }
        served
    }

    #[test]
    fn tenants_share_time_not_turns() {
        let served = serve(&mut Line::new(), &[1, 5, 50], 2000);
        let (least, most) = (served.iter().min().expect("3"), served.iter().max().expect("3"));
        assert!(most - least <= 60, "{served:?}");
    }

    #[test]
    fn classes_then_resumed_then_arrival() {
        let mut line = Line::new();
        let [low, high] = [line.enter(5, 1), line.enter(1, 1)];
        line.push(low, 1, 10);
        assert_eq!(line.head(), Some((5, 10)));
        line.push(high, 3, 30);
        line.push(high, 2, 20);
        assert_eq!(line.head(), Some((1, 20)));
        line.push_resumed(high, 4, 40);
        assert_eq!(line.head(), Some((1, 40)));
        line.admit(high, 4);
        line.remove(high, 2);
        assert_eq!((line.head(), line.len(), line.class_len(1)), (Some((1, 30)), 2, 1));
    }

    #[test]
    fn a_pause_saves_nothing_up() {
        let mut line = Line::new();
        serve(&mut line, &[10, 10], 100);
        let late = line.enter(0, 77);
        line.push(late, 9000, 9);
        assert!(line.accounts[late].served_ns >= 400_000_000, "starts at the clock");
    }

    #[test]
    fn debt_outlives_a_short_absence_and_idle_accounts_go() {
        let mut line = Line::new();
        let [a, b] = [line.enter(0, 1), line.enter(0, 2)];
        line.charge(a, 90_000_000);
        line.leave(a);
        assert_eq!(line.enter(0, 1), a, "still remembered");
        assert_eq!(line.accounts[a].served_ns, 90_000_000);
        line.leave(a);
        line.leave(b);
        line.check_idle();
    }
}
