//! Tokens that may be drawn: lists in the order of their ids, cuts by mass, and the draw.
//!
//! Why without a sort: of 150,000 tokens a cut keeps the best few, and a sort spends its time on
//! the order of the others. A cut halves a range of keys until some hundred tokens are left in
//! it, and sorts those. Cut-away tokens stay in the list with no mass.

use std::cmp::Ordering;

use super::isa::Isa;
use super::lanes::dispatch;
use super::scan::{Above, BLOCK, Center, Drop, KEY_MIN, List, Pack};

/// Tokens left in a range of keys when a cut stops halving it and sorts.
const SORT_FROM: usize = 256;
/// A range of f32 keys cannot be halved more often.
const HALVINGS: usize = 64;
/// A range with less than this part of the list is packed before it is halved on.
const PACK_PART: usize = 8;

/// The order of candidates: greater values first, then smaller ids. Zeros of both signs are equal.
pub(crate) fn better(a: (u32, f32), b: (u32, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Candidates, side by side. Keys order them (greater first, then the smaller id) and lie within
/// -32..=0, or are -inf for those without mass.
pub(crate) struct Candidates<'a> {
    pub(crate) isa: Isa,
    pub(crate) keys: &'a mut [f32],
    pub(crate) masses: &'a mut [f32],
    /// Scratch for as many.
    pub(crate) spare: &'a mut List,
    pub(crate) order: &'a mut Vec<u32>,
}

/// A range of keys `low..high` within which a cut lies.
struct Bracket {
    low: f32,
    high: f32,
    /// Elements within.
    count: usize,
    /// Mass from `high` on.
    sure: f64,
}

impl Bracket {
    /// Halves the range until it holds `most` elements at most.
    fn narrow(&mut self, list: (&[f32], &[f32]), target: f64, most: usize, isa: Isa) {
        let (keys, masses) = list;
        // The list may hold elements above the range; they are part of `sure`.
        let (beyond, mut above) = dispatch(isa, Above { keys, masses, least: self.high });
        let offset = self.sure - beyond;
        for _ in 0..HALVINGS {
            let middle = self.low + (self.high - self.low) / 2.0;
            if self.count <= most || middle <= self.low || middle >= self.high {
                break;
            }
            let (mass, count) = dispatch(isa, Above { keys, masses, least: middle });
            if offset + mass >= target {
                self.low = middle;
                self.count = count - above;
            } else {
                self.count -= count - above;
                (self.high, self.sure, above) = (middle, offset + mass, count);
            }
        }
    }
}

impl Candidates<'_> {
    fn above(&self, least: f32) -> (f64, usize) {
        dispatch(self.isa, Above { keys: self.keys, masses: self.masses, least })
    }

    /// Sum of all masses.
    pub(crate) fn total(&self) -> f64 {
        self.above(KEY_MIN).0
    }

    /// Keeps the smallest set of best candidates whose masses sum to `target` or more; all when
    /// nothing less does.
    pub(crate) fn cut(&mut self, target: f64) {
        let (mass, count) = self.above(KEY_MIN);
        if mass < target {
            return;
        }
        // Below `high` lies what may be needed, from `low` on what surely suffices.
        let mut bracket = Bracket { low: KEY_MIN, high: 1.0, count, sure: 0.0 };
        let most = SORT_FROM.max(self.keys.len() / PACK_PART);
        bracket.narrow((self.keys, self.masses), target, most, self.isa);
        let Self { isa, keys, masses, spare, order } = self;
        let (least, end) = (bracket.low, bracket.high);
        let n = dispatch(*isa, Pack { keys, masses, least, end, mass: 0.0, to: spare });
        let list = (&spare.keys[..n], &spare.masses[..n]);
        bracket.narrow(list, target, SORT_FROM, *isa);
        let (keys, masses) = list;
        let within = |key: f32| key >= bracket.low && key < bracket.high;
        order.clear();
        order.extend((0..n as u32).filter(|&i| within(keys[i as usize])));
        let pair = |i: u32| (i, keys[i as usize]);
        // Places are in the order of ids.
        order.sort_unstable_by(|&a, &b| better(pair(a), pair(b)));
        let (mut sum, mut last) = (bracket.sure, None);
        for &i in &**order {
            if sum >= target && last.is_some() {
                break;
            }
            sum += f64::from(masses[i as usize]);
            last = Some(spare.ids[i as usize] as usize);
        }
        if let Some(last) = last {
            self.drop_after(last);
        }
    }

    /// Keeps `last` and what stands before it in the order.
    fn drop_after(&mut self, last: usize) {
        let least = self.keys[last];
        let (keys, later_keys) = self.keys.split_at_mut(last + 1);
        let (masses, later_masses) = self.masses.split_at_mut(last + 1);
        dispatch(self.isa, Drop { keys, masses, least });
        let least = least.next_up();
        dispatch(self.isa, Drop { keys: later_keys, masses: later_masses, least });
    }

    /// Keys become how typical a candidate is: minus the distance of its information from the
    /// entropy. With p = e^z / Z, -ln p - H is the mean of z minus z.
    pub(crate) fn typical_keys(&mut self) {
        dispatch(self.isa, Center { keys: self.keys, masses: self.masses });
    }

    /// Place of the candidate where the running sum of masses passes `share / 2^64` of all.
    pub(crate) fn draw(&self, share: u64) -> usize {
        // Masses are whole numbers, so this is exact: a u64 holds their sum.
        let total = self.total() as u64;
        let target = ((u128::from(share) * u128::from(total)) >> 64) as f64;
        let mut sum = 0.0;
        for (block, masses) in self.masses.chunks(BLOCK).enumerate() {
            let keys = &self.keys[block * BLOCK..][..masses.len()];
            let (mass, _) = dispatch(self.isa, Above { keys, masses, least: KEY_MIN });
            if sum + mass <= target {
                sum += mass;
                continue;
            }
            for (i, &mass) in masses.iter().enumerate() {
                sum += f64::from(mass);
                if sum > target {
                    return block * BLOCK + i;
                }
            }
        }
        unreachable!("the target is below the total mass")
    }
}
