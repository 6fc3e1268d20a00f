//! An engine without a device that believes nothing. It keeps what each position of each page
//! holds, and checks with every row that all positions before it lie in the slot's pages, that no
//! page is written that another slot reads, and that the batch keeps to its contract. The first
//! breach is noted in [`FakeEngine::violation`].
//!
//! Rows are executed at launch, as a device with one queue would, and reported at collect.

use std::collections::{BTreeMap, VecDeque};

use scheduler::{
    Batch, Config, Engine, Fault, Logits, Micros, PAGE_TOKENS, PromptLogprobs, Row, RowStart,
    Sample, StepOutput, Token,
};

use super::model;
use super::random::Random;

/// A prompt with this token breaks every step that it is part of.
pub const POISON: Token = 1_000_000;

/// How often things go wrong, out of a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultRates {
    /// A step fails.
    pub step: u64,
    /// The device loses its memory.
    pub lost: u64,
    /// The engine is gone for good.
    pub dead: u64,
    /// A row fails alone.
    pub row: u64,
    /// A step takes twenty times as long.
    pub slow: u64,
    /// No fault: a draw brings tokens along that must follow it.
    pub forced: u64,
}

/// A defect built in on purpose, to prove that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A row's keys and values are not written.
    SkipWrite,
    /// A wrong token is drawn.
    WrongToken,
    /// A page is overwritten behind the scheduler's back.
    CorruptPage,
    /// A draft is taken for drawn that is not.
    TakeDraft,
}

#[derive(Debug, Clone)]
struct Slot {
    start: RowStart,
    /// Known tokens, drawn ones included.
    tokens: Vec<Token>,
    /// `chain[i]` is the hash of the first i tokens.
    chain: Vec<u64>,
    table: Vec<u32>,
    /// The step that drew the last token.
    drawn_in: u64,
    /// False after a failed step: the slot must be started again.
    sound: bool,
    /// A row of it failed alone: so will all others.
    failed: bool,
}

impl Slot {
    /// The token that is drawn behind those known.
    fn next(&self) -> Token {
        let early = self.tokens.len() < self.start.stop_from as usize;
        let banned = if early { &self.start.stop_tokens[..] } else { &[] };
        model::draw(self.chain[self.tokens.len()], self.start.sampling.seed, banned)
    }

    fn push(&mut self, token: Token) {
        self.chain.push(model::extend(self.chain[self.tokens.len()], token));
        self.tokens.push(token);
    }
}

struct Pending {
    result: Result<StepOutput, Fault>,
    elapsed: Micros,
}

/// See the module.
pub struct FakeEngine {
    config: Config,
    depth: usize,
    /// The simulation's clock; `collect` moves it to the step's end.
    pub now: Micros,
    device_free: Micros,
    random: Random,
    /// May be set to zero when the faults are to stop.
    pub faults: FaultRates,
    pages: Vec<[u64; PAGE_TOKENS]>,
    /// Live tables that hold the page.
    users: Vec<u32>,
    slots: Vec<Option<Slot>>,
    in_flight: VecDeque<Pending>,
    /// Steps in flight that failed: all launched on top of them fail too.
    failed_in_flight: usize,
    steps: u64,
    dead: bool,
    /// The first breach of the contract.
    pub violation: Option<String>,
    /// Built in on purpose.
    pub defect: Option<Defect>,
    /// Times that the defect acted.
    pub defects: u64,
    /// Faults injected so far.
    pub faults_injected: u64,
    /// Late rows executed.
    pub late_rows: u64,
    /// Device time in nanoseconds by the top byte of the sampling seed.
    pub served: BTreeMap<u64, u64>,
    /// Longest step with rows of one in it, in microseconds, outliers left out.
    pub longest_mixed_us: Micros,
}

impl FakeEngine {
    /// An engine with empty memory.
    #[must_use]
    pub fn new(config: &Config, depth: usize, faults: FaultRates, seed: u64) -> Self {
        Self {
            config: config.clone(),
            depth,
            now: 0,
            device_free: 0,
            random: Random::new(seed),
            faults,
            pages: vec![[0; PAGE_TOKENS]; config.pages],
            users: vec![0; config.pages],
            slots: vec![None; config.rows_max],
            in_flight: VecDeque::new(),
            failed_in_flight: 0,
            steps: 0,
            dead: false,
            violation: None,
            defect: None,
            defects: 0,
            faults_injected: 0,
            late_rows: 0,
            served: BTreeMap::new(),
            longest_mixed_us: 0,
        }
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) -> bool {
        if !holds && self.violation.is_none() {
            self.violation = Some(format!("step {}: {}", self.steps, what()));
        }
        holds
    }

    fn act(&mut self, defect: Defect, permille: u64) -> bool {
        let acts = self.defect == Some(defect) && self.random.permille(permille);
        self.defects += u64::from(acts);
        acts
    }

    /// Ends, starts and grants take effect whether or not the step fails.
    fn take_slots(&mut self, batch: &Batch) {
        for &slot in &batch.ends {
            let taken = self.slots[slot as usize].is_some();
            self.check(taken, || format!("slot {slot} ended while empty"));
            self.end(slot);
        }
        for start in &batch.starts {
            let slot = start.slot as usize;
            let free = self.slots[slot].as_ref().is_none_or(|old| !old.sound);
            self.check(free, || format!("slot {slot} started while taken"));
            self.end(start.slot);
            let mut chain = vec![model::ROOT];
            for &token in &start.tokens {
                chain.push(model::extend(*chain.last().expect("a root"), token));
            }
            let (start, tokens) = (start.clone(), start.tokens.clone());
            let table = Vec::new();
            self.slots[slot] =
                Some(Slot { start, tokens, chain, table, drawn_in: 0, sound: true, failed: false });
        }
        for grant in &batch.grants {
            let known = (grant.page as usize) < self.pages.len();
            let Some(slot) = self.slots[grant.slot as usize].as_mut().filter(|_| known) else {
                self.check(false, || format!("bad grant {grant:?}"));
                continue;
            };
            let appends = slot.table.len() == grant.index as usize;
            slot.table.push(grant.page);
            self.users[grant.page as usize] += 1;
            self.check(appends, || format!("grant out of order {grant:?}"));
        }
    }

    fn end(&mut self, slot: u32) {
        if let Some(old) = self.slots[slot as usize].take() {
            for page in old.table {
                self.users[page as usize] -= 1;
            }
        }
    }

    /// Checks what can be told from the batch alone.
    fn check_batch(&mut self, batch: &Batch) {
        let mut slots: Vec<u32> = batch.rows.iter().map(|row| row.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        self.check(slots.len() == batch.rows.len(), || "two rows of a slot".to_owned());
        let tokens: usize = batch.rows.iter().map(|row| row.len as usize).sum();
        let limit = self.config.step_tokens_max;
        self.check(tokens == batch.tokens.len(), || "tokens without rows".to_owned());
        self.check(tokens <= limit, || format!("{tokens} tokens in a step of {limit}"));
        self.check(tokens > 0, || "an empty step".to_owned());
        let in_order = batch.step == self.steps;
        self.check(in_order, || format!("launched as step {}", batch.step));
    }

    /// Checks a row's inputs. False when it cannot be executed.
    fn check_row(&mut self, row: &Row, batch: &Batch) -> bool {
        let Row { slot, first, len, tokens_at, late, drafts, logits } = *row;
        let Some(state) = self.slots[slot as usize].as_ref().filter(|s| s.sound) else {
            return self.check(false, || format!("row in a slot not started: {row:?}"));
        };
        let (first, end) = (first as usize, (first + len) as usize);
        let known = end.saturating_sub(drafts as usize);
        let beyond = known > state.tokens.len() || end > state.table.len() * PAGE_TOKENS;
        if known <= first || beyond {
            return self.check(false, || format!("row beyond tokens or pages: {row:?}"));
        }
        let drafted = drafts <= self.drafts_max() && logits == Logits::Sample && !late;
        if drafts > 0 && !(drafted && known == state.tokens.len()) {
            return self.check(false, || format!("drafts not behind the last token: {row:?}"));
        }
        let given = &batch.tokens[tokens_at as usize..][..known - first];
        let fits = if late {
            let last = first + 1 == state.tokens.len() && state.drawn_in + 1 == self.steps;
            last && given == [0] && !self.in_flight.is_empty()
        } else {
            given == &state.tokens[first..known]
        };
        let held = |i: usize| self.pages[state.table[i / PAGE_TOKENS] as usize][i % PAGE_TOKENS];
        let stale = (0..first).find(|&i| held(i) != state.chain[i + 1]);
        let first_page = first / PAGE_TOKENS;
        let written = &state.table[first_page..end.div_ceil(PAGE_TOKENS)];
        let shared = written.iter().copied().find(|&page| self.users[page as usize] != 1);
        self.late_rows += u64::from(late);
        self.check(fits, || format!("wrong input tokens: {row:?}"))
            && self.check(stale.is_none(), || format!("position {stale:?} is stale: {row:?}"))
            && self.check(shared.is_none(), || format!("page {shared:?} is shared: {row:?}"))
    }

    /// Computes a row: writes its positions, draws its tokens.
    fn execute(&mut self, row: &Row, batch: &Batch, output: &mut StepOutput) {
        let skip = self.act(Defect::SkipWrite, 20);
        let fails = self.random.permille(self.faults.row);
        let slot = self.slots[row.slot as usize].as_mut().expect("checked");
        let (first, end) = (row.first as usize, (row.first + row.len) as usize);
        let known = end - row.drafts as usize;
        let drafts = &batch.tokens[row.tokens_at as usize..][known - first..end - first];
        let mut ahead = slot.chain[known];
        for i in (first..end).filter(|_| !skip) {
            if i >= known {
                ahead = model::extend(ahead, drafts[i - known]);
            }
            let page = slot.table[i / PAGE_TOKENS] as usize;
            let chain = if i < known { slot.chain[i + 1] } else { ahead };
            self.pages[page][i % PAGE_TOKENS] = chain;
        }
        if fails {
            self.faults_injected += 1;
            slot.failed = true;
            output.failed.push((row.slot, "not a number".to_owned()));
            return;
        }
        let sample = match row.logits {
            Logits::No => false,
            Logits::Sample => true,
            Logits::Prompt { top, sample } => {
                let last = end.min(slot.start.prompt_len as usize - 1);
                let entries = first + 1..=last;
                let entries = entries.map(|p| model::logprobs(slot.chain[p + 1], top)).collect();
                let part = PromptLogprobs { first: row.first + 1, entries };
                output.prompt_logprobs.push((row.slot, part));
                sample
            }
        };
        if sample {
            let knew_all = known == slot.tokens.len();
            self.draw(row.slot, drafts, output);
            self.check(knew_all, || format!("draws behind a known token: {row:?}"));
        }
    }

    /// Draws behind a slot's tokens, and behind each draft that was drawn.
    fn draw(&mut self, number: u32, drafts: &[Token], output: &mut StepOutput) {
        for ahead in 0..=drafts.len() {
            // As where a draft's logits are no numbers: the next step says so.
            if ahead > 0 && self.random.permille(20) {
                break;
            }
            let wrong = self.act(Defect::WrongToken, 20);
            let mut token = self.slots[number as usize].as_ref().expect("checked").next();
            if wrong {
                token = (token + 1) % model::VOCABULARY as Token;
            }
            if let Some(&draft) = drafts.get(ahead)
                && draft != token
                && self.act(Defect::TakeDraft, 500)
            {
                token = draft;
            }
            let slot = self.slots[number as usize].as_mut().expect("checked");
            slot.push(token);
            slot.drawn_in = self.steps;
            let chain = *slot.chain.last().expect("a root");
            let logprobs =
                slot.start.sampling.logprobs.map(|top| Box::new(model::logprobs(chain, top)));
            output.samples.push(Sample { slot: number, token, logprobs, forced: Vec::new() });
            if drafts.get(ahead) != Some(&token) {
                break;
            }
        }
        self.force(number, output);
    }

    /// As under a grammar: some of what would be drawn next must be, and comes along.
    fn force(&mut self, number: u32, output: &mut StepOutput) {
        let forces = self.faults.forced > 0 && self.random.permille(self.faults.forced);
        let count = self.random.between(1, 40);
        let slot = self.slots[number as usize].as_mut().expect("checked");
        if self.depth > 1 || slot.start.sampling.logprobs.is_some() || !forces {
            return;
        }
        let sample = output.samples.last_mut().expect("drawn before");
        for _ in 0..count {
            let token = slot.next();
            slot.push(token);
            sample.forced.push(token);
        }
    }

    /// The step fails: what its rows would have written is garbage now.
    fn scribble(&mut self, batch: &Batch) {
        for row in &batch.rows {
            let Some(slot) = self.slots[row.slot as usize].as_mut() else { continue };
            slot.sound = false;
            for i in row.first as usize..(row.first + row.len) as usize {
                if let Some(&page) = slot.table.get(i / PAGE_TOKENS) {
                    self.pages[page as usize][i % PAGE_TOKENS] = 2;
                }
            }
        }
    }

    fn forget(&mut self) {
        self.pages.fill([0; PAGE_TOKENS]);
        self.users.fill(0);
        self.slots.fill(None);
    }

    fn fault(&mut self, batch: &Batch) -> Option<Fault> {
        let poisoned = batch.rows.iter().any(|row| {
            let slot = self.slots[row.slot as usize].as_ref();
            slot.is_some_and(|slot| slot.tokens.contains(&POISON))
        });
        let FaultRates { step, lost, dead, .. } = self.faults;
        let text = |what: &str| what.to_owned();
        if self.random.permille(dead) {
            Some(Fault::Dead(text("fell off the bus")))
        } else if self.random.permille(lost) {
            Some(Fault::Lost(text("memory lost")))
        } else if poisoned || self.random.permille(step) {
            Some(Fault::Step(text("bad launch")))
        } else {
            None
        }
    }

    fn duration(&mut self, batch: &Batch) -> Micros {
        let drafts: u64 = batch.rows.iter().map(|r| u64::from(r.drafts)).sum();
        let known = batch.rows.iter().map(|r| r.len - r.drafts);
        let prefill: u64 = known.clone().filter(|&len| len > 1).map(u64::from).sum();
        let context: u64 = batch.rows.iter().map(|r| u64::from(r.first + r.len)).sum();
        let rows = batch.rows.len() as u64;
        let positions = 40 * prefill + 30 * drafts + 60 * rows;
        let usual = 1500 + positions + context / 4 + self.random.below(100);
        if prefill > 0 && known.clone().any(|len| len == 1) {
            self.longest_mixed_us = self.longest_mixed_us.max(usual);
        }
        if self.random.permille(self.faults.slow) { usual * 20 } else { usual }
    }

    fn charge(&mut self, batch: &Batch, elapsed: Micros) {
        let total: u64 = batch.rows.iter().map(|row| u64::from(row.len)).sum();
        for row in &batch.rows {
            if let Some(slot) = &self.slots[row.slot as usize] {
                let name = slot.start.sampling.seed >> 56;
                *self.served.entry(name).or_default() +=
                    elapsed * 1000 * u64::from(row.len) / total;
            }
        }
    }
}

impl Engine for FakeEngine {
    fn depth(&self) -> usize {
        self.depth
    }

    fn drafts_max(&self) -> u32 {
        self.config.drafts_max
    }

    fn launch(&mut self, batch: &Batch) {
        self.steps += 1;
        let room = self.in_flight.len() < self.depth && !self.dead;
        self.check(room, || "launched too deep, or on a dead engine".to_owned());
        self.check_batch(batch);
        self.take_slots(batch);
        let elapsed = self.duration(batch);
        self.charge(batch, elapsed);
        let fault = if self.failed_in_flight > 0 {
            Some(Fault::Step("the step before it failed".to_owned()))
        } else {
            self.fault(batch)
        };
        let mut output = StepOutput { step: batch.step, ..StepOutput::default() };
        if fault.is_some() {
            self.faults_injected += 1;
            self.failed_in_flight += 1;
            self.scribble(batch);
        } else {
            for row in &batch.rows {
                if self.slots[row.slot as usize].as_ref().is_some_and(|slot| slot.failed) {
                    output.failed.push((row.slot, "failed before".to_owned()));
                } else if self.check_row(row, batch) {
                    self.execute(row, batch, &mut output);
                }
            }
        }
        let held = self.users.iter().position(|&users| users > 0);
        if let Some(page) = held
            && self.act(Defect::CorruptPage, 20)
        {
            self.pages[page] = [3; PAGE_TOKENS];
        }
        let result = fault.map_or(Ok(output), Err);
        self.in_flight.push_back(Pending { result, elapsed });
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        let Some(Pending { result, elapsed }) = self.in_flight.pop_front() else {
            self.check(false, || "collected with nothing in flight".to_owned());
            return Err(Fault::Dead("nothing in flight".to_owned()));
        };
        self.device_free = self.now.max(self.device_free) + elapsed;
        self.now = self.device_free;
        match result {
            Ok(output) => {
                *out = output;
                out.elapsed_us = elapsed;
                Ok(())
            }
            Err(fault) => {
                self.failed_in_flight -= 1;
                self.dead |= matches!(fault, Fault::Dead(_));
                if matches!(fault, Fault::Lost(_)) {
                    self.forget();
                }
                Err(fault)
            }
        }
    }
}
