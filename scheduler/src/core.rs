//! The scheduler's state without the engine: who runs where, who waits, what was launched.
//! The files beside this one each teach it one thing (take commands, plan, settle, ...).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::Config;
use crate::cost::{CostModel, Load};
use crate::pages::Pages;
use crate::plan::Plan;
use crate::request::Live;
use crate::sequence::{NONE, Sequence, State};
use crate::slab::Slab;
use crate::stats::Stats;
use crate::tenants::Line;
use crate::types::{Batch, Micros, RequestId};

/// A row that was launched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlightRow {
    pub(crate) sequence: u32,
    pub(crate) first: u32,
    pub(crate) len: u32,
    /// How many of `len` are drafts.
    pub(crate) drafts: u32,
    pub(crate) samples: bool,
}

/// A step that was launched and not yet collected.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pub(crate) step: u64,
    pub(crate) launched_at: Micros,
    pub(crate) load: Load,
    pub(crate) rows: Vec<FlightRow>,
}

/// See the module.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) now: Micros,
    pub(crate) pages: Pages,
    pub(crate) line: Line,
    pub(crate) cost: CostModel,
    pub(crate) sequences: Slab<Sequence>,
    pub(crate) requests: Slab<Live>,
    pub(crate) by_id: BTreeMap<RequestId, u32>,
    pub(crate) deadlines: BTreeSet<(Micros, u32)>,
    /// Sequences with a slot, in no order.
    pub(crate) running: Vec<u32>,
    /// The same by rank: the last is preempted first.
    pub(crate) ranks: BTreeMap<(u8, u64), u32>,
    /// Sequence per slot.
    pub(crate) slots: Vec<u32>,
    pub(crate) slots_free: Vec<u32>,
    /// Slots given back since the last launch.
    pub(crate) slots_ended: Vec<u32>,
    /// Arrivals so far.
    pub(crate) orders: u64,
    /// Sequences in a failed step that have not run since.
    pub(crate) suspects: usize,
    /// Rows that a step of suspects may have.
    pub(crate) suspects_max: usize,
    pub(crate) plan: Plan,
    pub(crate) batch: Batch,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) spare: Vec<Flight>,
    /// Why the engine is gone.
    pub(crate) dead: Option<String>,
    pub(crate) counters: Stats,
}

impl Core {
    pub(crate) fn new(config: Config) -> Self {
        config.check();
        let rows = config.rows_max;
        Self {
            now: 0,
            pages: Pages::new(config.pages),
            line: Line::new(),
            cost: CostModel::new(),
            sequences: Slab::new(),
            requests: Slab::new(),
            by_id: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            running: Vec::with_capacity(rows),
            ranks: BTreeMap::new(),
            slots: vec![NONE; rows],
            // Popped from the end: slot 0 first, so that few rows lie close together.
            slots_free: (0..rows as u32).rev().collect(),
            slots_ended: Vec::with_capacity(rows),
            orders: 0,
            suspects: 0,
            suspects_max: rows,
            plan: Plan::default(),
            batch: Batch::default(),
            flights: VecDeque::with_capacity(2),
            spare: vec![Flight::default(), Flight::default()],
            dead: None,
            counters: Stats::default(),
            config,
        }
    }

    /// Gives a waiting sequence a slot. Its table and tokens are in place.
    pub(crate) fn seat(&mut self, number: u32) {
        let slot = self.slots_free.pop().expect("admission saw a free slot");
        let seq = &mut self.sequences[number];
        seq.state = State::Running;
        seq.slot = slot;
        seq.running_at = self.running.len() as u32;
        seq.restart = true;
        seq.granted = 0;
        self.slots[slot as usize] = number;
        self.running.push(number);
        self.ranks.insert(seq.rank(), number);
    }

    /// Takes slot and pages from a sequence that no step in flight writes to.
    pub(crate) fn vacate(&mut self, number: u32) {
        let seq = &mut self.sequences[number];
        assert_eq!(seq.flights, 0, "pages are freed after the steps that write them");
        self.ranks.remove(&seq.rank());
        let (slot, at) = (seq.slot, seq.running_at as usize);
        self.slots[slot as usize] = NONE;
        self.slots_free.push(slot);
        if std::mem::take(&mut seq.told) {
            self.slots_ended.push(slot);
        }
        self.pages.free_all(&mut seq.table);
        (seq.slot, seq.computed, seq.settled) = (NONE, 0, 0);
        (seq.tip, seq.registered, seq.granted) = (None, 0, 0);
        (seq.leaving, seq.restart) = (false, false);
        self.running.swap_remove(at);
        if let Some(&moved) = self.running.get(at) {
            self.sequences[moved].running_at = at as u32;
        }
    }

    /// Takes slot and pages from a running sequence and puts it back in line. It keeps its
    /// tokens; everything before them is computed again, or found in the cache.
    pub(crate) fn requeue(&mut self, number: u32) {
        self.vacate(number);
        let seq = &mut self.sequences[number];
        seq.state = State::Waiting;
        if std::mem::take(&mut seq.suspect) {
            self.suspects -= 1;
        }
        self.line.push_resumed(seq.account, seq.order, number);
        self.requests[seq.request].usage.preemptions += 1;
        self.counters.preemptions += 1;
    }

    /// A snapshot.
    pub(crate) fn stats(&self) -> Stats {
        let (free, cached) = (self.pages.free_count(), self.pages.cached_count());
        Stats {
            requests: self.requests.len(),
            running: self.running.len(),
            waiting: self.line.len(),
            in_flight: self.flights.len(),
            pages_total: self.pages.total(),
            pages_free: free,
            pages_cached: cached,
            pages_held: self.pages.total() - free - cached,
            evictions: self.pages.evictions(),
            cost: self.cost.coefficients(),
            ..self.counters
        }
    }

    /// Whether nothing is alive.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.requests.len() == 0
    }

    /// Asserts that with nothing alive nothing is kept.
    pub(crate) fn check_idle(&self) {
        assert!(self.is_idle(), "{} requests are alive", self.requests.len());
        assert_eq!(self.sequences.len(), 0, "sequences without a request");
        assert_eq!(self.slots_free.len(), self.config.rows_max, "slots leaked");
        assert!(self.by_id.is_empty() && self.deadlines.is_empty(), "names without a request");
        assert_eq!((self.running.len(), self.ranks.len(), self.suspects), (0, 0, 0));
        self.line.check_idle();
        self.pages.check_idle();
    }
}
