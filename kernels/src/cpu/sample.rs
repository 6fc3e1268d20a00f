//! Draws tokens and reports log-probabilities.
//!
//! Order of a draw: bias, penalties, bans and mask; temperature; min_p; top_k; top_p; typical_p,
//! each over what the one before kept. Equal logits rank by the smaller id. The draw takes the
//! token where the running mass, in the order of ids, passes a share that is a hash of (seed,
//! position): so it is a function of these and the logits alone. Greedy draws do no arithmetic.
//!
//! A row that holds a NaN or +inf gives no token: something upstream overflowed.

use super::candidates::{Candidates, better};
use super::isa::Isa;
use super::lanes::{LANES, dispatch};
use super::pool::Pool;
use super::random::random_bits;
use super::scan::{BLOCK, Forbid, KEY_MIN, List, Masses, Maxima, Pack, VOCAB_MAX};
use super::score::{Scorer, unknown};
use super::slots::{Slot, Slots, Undo};
use super::tensor::{PerWorker, Shared};
use crate::compute::{LogprobRow, SampleRow, Sampler, Scored, mask_words};

/// Scratch of one worker.
pub(crate) struct Scratch {
    pub(crate) undo: Undo,
    /// `[vocab]`: a row as it was before its mask.
    unmasked: Vec<f32>,
    /// Lane-wise maxima of the row's blocks.
    pub(crate) blocks: Vec<[f32; LANES]>,
    /// A list of f32 to select from.
    pub(crate) values: Vec<f32>,
    /// The row, then the list that is cut, then room for cutting.
    lists: [List; 3],
    pub(crate) order: Vec<u32>,
}

impl Scratch {
    pub(crate) fn new(vocab: usize) -> Self {
        assert!(vocab <= VOCAB_MAX, "a vocabulary of {vocab}, at most {VOCAB_MAX}");
        let blocks = vocab.div_ceil(BLOCK);
        Self {
            undo: Undo::default(),
            unmasked: vec![0.0; vocab],
            blocks: vec![[0.0; LANES]; blocks],
            values: Vec::with_capacity(blocks * LANES),
            lists: std::array::from_fn(|_| List::new(vocab)),
            order: Vec::with_capacity(vocab),
        }
    }

    /// Greatest logit, its blocks' maxima kept; `None` with a NaN.
    pub(crate) fn maxima(&mut self, isa: Isa, x: &[f32]) -> Option<f32> {
        dispatch(isa, Maxima { x, blocks: &mut self.blocks })
    }

    /// First place of the greatest element, after `maxima`.
    fn first_of(&self, x: &[f32], best: f32) -> Option<u32> {
        let block = self.blocks.iter().position(|lanes| lanes.contains(&best))?;
        let at = x[block * BLOCK..].iter().position(|&logit| logit == best)?;
        Some((block * BLOCK + at) as u32)
    }

    /// The `k` greatest logits of those from `floor` on, after `maxima`: their ids in ascending
    /// order in `order`.
    ///
    /// Every lane of every block is a group; at least k elements are no smaller than the k-th
    /// greatest group maximum, so only blocks that reach it are looked at.
    pub(crate) fn top_k(&mut self, x: &[f32], k: usize, floor: f32) {
        let least = if k <= self.blocks.len() * LANES {
            self.values.clear();
            self.values.extend_from_slice(self.blocks.as_flattened());
            *self.values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        } else {
            floor
        };
        let least = least.max(floor);
        self.order.clear();
        for (block, lanes) in self.blocks.iter().enumerate() {
            if !lanes.iter().any(|&greatest| greatest >= least) {
                continue;
            }
            let from = block * BLOCK;
            let block = &x[from..x.len().min(from + BLOCK)];
            let ids = (from as u32..).zip(block).filter(|(_, logit)| **logit >= least);
            self.order.extend(ids.map(|(id, _)| id));
        }
        if self.order.len() > k {
            let pair = |id: u32| (id, x[id as usize]);
            self.order.select_nth_unstable_by(k - 1, |&a, &b| better(pair(a), pair(b)));
            self.order.truncate(k);
            self.order.sort_unstable();
        }
    }
}

/// Draws from one row of prepared logits.
fn draw(
    isa: Isa,
    x: &[f32],
    sampler: &Sampler,
    position: u32,
    scratch: &mut Scratch,
) -> Option<u32> {
    let best = scratch.maxima(isa, x).filter(|best| best.is_finite())?;
    if sampler.temperature == 0.0 {
        return scratch.first_of(x, best);
    }
    // A temperature near 0 would make this infinite, and 0 * inf a NaN.
    let sharpness = (1.0 / sampler.temperature).min(f32::MAX);
    let share = random_bits(sampler.seed, position);
    let (top_k, cuts) = (sampler.top_k as usize, sampler.top_p < 1.0 || sampler.typical_p < 1.0);
    let limited = top_k > 0 && top_k < x.len();
    if limited {
        // Where a mask leaves a few, -inf would make candidates of all the others.
        scratch.top_k(x, top_k, f32::MIN);
    }
    let Scratch { lists: [row, list, spare], order, .. } = scratch;
    let floor = sampler.min_p;
    let n = if limited {
        let n = order.len();
        list.ids[..n].copy_from_slice(order);
        // Their logits side by side; any list has room for them.
        let logits = &mut row.keys[..n];
        logits.iter_mut().zip(&*order).for_each(|(logit, &id)| *logit = x[id as usize]);
        let (keys, masses) = (&mut list.keys, &mut list.masses);
        dispatch(isa, Masses { x: logits, best, sharpness, floor, keys, masses });
        n
    } else {
        let (keys, masses) = (&mut row.keys, &mut row.masses);
        let total = dispatch(isa, Masses { x, best, sharpness, floor, keys, masses });
        let (keys, masses) = (&mut row.keys[..x.len()], &mut row.masses[..x.len()]);
        if !cuts {
            return Some(Candidates { isa, keys, masses, spare, order }.draw(share) as u32);
        }
        // Tokens below this mass sum to less than what top_p leaves out: no cut needs them.
        let rest = (1.0 - f64::from(sampler.top_p)) * total / x.len() as f64;
        let mass = (0.99 * rest).max(1.0) as f32;
        let n = dispatch(isa, Pack { keys, masses, least: KEY_MIN, end: 1.0, mass, to: list });
        let (keys, masses) = (&mut list.keys[..n], &mut list.masses[..n]);
        if sampler.top_p < 1.0 {
            let target = f64::from(sampler.top_p) * total;
            Candidates { isa, keys, masses, spare, order }.cut(target);
        }
        n
    };
    let (keys, masses) = (&mut list.keys[..n], &mut list.masses[..n]);
    let mut kept = Candidates { isa, keys, masses, spare, order };
    if limited && sampler.top_p < 1.0 {
        kept.cut(f64::from(sampler.top_p) * kept.total());
    }
    if sampler.typical_p < 1.0 {
        kept.typical_keys();
        kept.cut(f64::from(sampler.typical_p) * kept.total());
    }
    Some(list.ids[kept.draw(share)])
}

/// Draws tokens and writes the log-probabilities that were asked for.
pub(crate) struct Batch<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) isa: Isa,
    pub(crate) vocab: usize,
    pub(crate) scratch: &'a PerWorker<Scratch>,
}

impl Batch<'_> {
    /// Row i of `logits` belongs to `rows[i]`; results to `tokens[i]` and `scored[i]`, where it
    /// drew. The rows of a chain draw one after the other, until one draws something else than
    /// its draft: that is rarely far, and what is behind it need not be walked through.
    pub(crate) fn sample(
        &self,
        logits: &mut [f32],
        (rows, masks): (&[SampleRow], &[u32]),
        slots: &Slots,
        tokens: &mut [(u32, Option<u32>)],
        scored: &mut [Scored],
    ) {
        let (logits, tokens) = (Shared::new(logits), Shared::new(tokens));
        let scored = Shared::new(scored);
        self.pool.run(rows.len(), &|first, worker| {
            if first > 0 && rows[first - 1].draft.is_some() {
                return; // Its chain's.
            }
            // SAFETY: the scratch is the worker's.
            let scratch = unsafe { self.scratch.of(worker) };
            for i in first.. {
                let row = &rows[i];
                // SAFETY: row i belongs to this task alone, and so do its results.
                let (x, token, scored) = unsafe {
                    let x = logits.part(i * self.vocab, self.vocab);
                    (x, &mut tokens.part(i, 1)[0], &mut scored.part(i, 1)[0])
                };
                let words = mask_words(self.vocab);
                let mask = row.mask.map(|mask| &masks[mask as usize * words..][..words]);
                let (slot, ahead) = (slots.get(row.slot), &rows[first..i]);
                let drawn = self.one(x, (row, mask), (slot, ahead), scratch, scored);
                *token = (row.slot, drawn);
                if drawn.is_none() || drawn != row.draft {
                    return;
                }
            }
        });
    }

    /// Draws from one row, behind the drafts of the rows `ahead` of it.
    fn one(
        &self,
        x: &mut [f32],
        (row, mask): (&SampleRow, Option<&[u32]>),
        (slot, ahead): (&Slot, &[SampleRow]),
        scratch: &mut Scratch,
        scored: &mut Scored,
    ) -> Option<u32> {
        let scorer = row.logprobs.map(|top| Scorer::new(self.isa, x, top, scratch, scored));
        let mut undo = std::mem::take(&mut scratch.undo);
        slot.prepare(x, row.position, ahead, &mut undo);
        if let Some(allowed) = mask {
            if scorer.is_some() {
                scratch.unmasked.copy_from_slice(x);
            }
            dispatch(self.isa, Forbid { x, allowed });
        }
        let token = draw(self.isa, x, slot.sampler(), row.position, scratch);
        if let Some(scorer) = scorer {
            if mask.is_some() {
                x.copy_from_slice(&scratch.unmasked);
            }
            undo.restore(x);
            (scored.slot, scored.position) = (row.slot, row.position);
            match (token, scorer) {
                (Some(token), Some(scorer)) => scorer.about(x, token, scored),
                _ => unknown(scored),
            }
        }
        undo.forget();
        scratch.undo = undo;
        token
    }

    /// Row i of `logits` belongs to `rows[i]`; results to `scored[i]`.
    pub(crate) fn score(&self, logits: &[f32], rows: &[LogprobRow], scored: &mut [Scored]) {
        let scored = Shared::new(scored);
        self.pool.run(rows.len(), &|i, worker| {
            let row = &rows[i];
            let x = &logits[i * self.vocab..][..self.vocab];
            // SAFETY: the results of row i belong to task i alone, and so does the scratch.
            let (scored, scratch) = unsafe { (&mut scored.part(i, 1)[0], self.scratch.of(worker)) };
            (scored.slot, scored.position) = (row.slot, row.position);
            match Scorer::new(self.isa, x, row.top, scratch, scored) {
                Some(scorer) => scorer.about(x, row.token, scored),
                None => unknown(scored),
            }
        });
    }
}
