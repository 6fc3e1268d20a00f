//! Passes over a row of logits, or over a list of candidates, sixteen at a time.
//!
//! Masses: a token's weight e^z (z <= 0, the best token has z = 0) is rounded to a multiple of
//! 2^-34 and kept as the whole number [`MASS_ONE`] * e^z. Sums of up to 2^19 of them are exact in
//! f64, so they do not depend on the order of the additions, and a draw or a cut comes out the
//! same however the row is walked. Tokens below e^-24 of the best have no mass.

use super::lanes::{Kernel, LANES, Lanes};
use super::math::exp;

/// Mass of the most probable token: 2^34.
pub(crate) const MASS_ONE: f32 = 17_179_869_184.0;
/// Tokens with mass have keys above this.
pub(crate) const KEY_MIN: f32 = -32.0;
/// Largest vocabulary: more could make a sum of masses inexact.
pub(crate) const VOCAB_MAX: usize = 1 << 19;
/// Elements of a block; its 16 lane-wise maxima are stored.
pub(crate) const BLOCK: usize = 32 * LANES;

/// Greatest element of a row, lane by lane and block by block.
pub(crate) struct Maxima<'a> {
    pub(crate) x: &'a [f32],
    /// `[blocks]`: lane l holds the greatest of the elements l, l + 16, ... of its block.
    pub(crate) blocks: &'a mut [[f32; LANES]],
}

impl Kernel for Maxima<'_> {
    /// The greatest element; `None` when the row holds a NaN.
    type Out = Option<f32>;
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) -> Option<f32> {
        let low = s.splat(f32::NEG_INFINITY);
        let (mut greatest, mut nan) = (low, 0);
        for (x, block) in self.x.chunks(BLOCK).zip(self.blocks) {
            let (pairs, rest) = x.as_chunks::<{ 2 * LANES }>();
            let (mut even, mut odd) = (low, low);
            for pair in pairs {
                let (two, _) = pair.as_chunks::<LANES>();
                let (a, b) = (s.load(&two[0]), s.load(&two[1]));
                nan |= s.bits(s.unordered(a, b));
                even = s.max(even, a);
                odd = s.max(odd, b);
            }
            for part in rest.chunks(LANES) {
                let a = s.load_part(part, f32::NEG_INFINITY);
                nan |= s.bits(s.unordered(a, a));
                even = s.max(even, a);
            }
            let both = s.max(even, odd);
            greatest = s.max(greatest, both);
            s.store(block, both);
        }
        (nan == 0).then(|| s.greatest(greatest))
    }
}

/// Logits whose bit is 0 become -inf. A NaN stays: it must not hide behind a mask.
pub(crate) struct Forbid<'a> {
    pub(crate) x: &'a mut [f32],
    /// Bit i % 32 of word i / 32 is logit i.
    pub(crate) allowed: &'a [u32],
}

impl Kernel for Forbid<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        assert_eq!(self.x.len().div_ceil(32), self.allowed.len(), "words of a mask");
        let low = s.splat(f32::NEG_INFINITY);
        for (x, &word) in self.x.chunks_mut(2 * LANES).zip(self.allowed) {
            if word == u32::MAX {
                continue;
            }
            for (i, x) in x.chunks_mut(LANES).enumerate() {
                let v = s.load_part(x, 0.0);
                let nothing = s.select(s.unordered(v, v), v, low);
                let allowed = s.lanes((word >> (LANES * i)) as u16);
                s.store_part(x, s.select(allowed, v, nothing));
            }
        }
    }
}

/// Sum of e^(x - best), in f64.
pub(crate) struct ExpSum<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) best: f32,
}

impl Kernel for ExpSum<'_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) -> f64 {
        let (vectors, rest) = self.x.as_chunks::<LANES>();
        let best = s.splat(self.best);
        let mut sums = s.sums();
        for v in vectors {
            sums = s.accumulate(sums, exp(s, s.sub(s.load(v), best)));
        }
        let last = s.load_part(rest, f32::NEG_INFINITY);
        s.total(s.accumulate(sums, exp(s, s.sub(last, best))))
    }
}

/// Keys z = (x - best) * sharpness and masses of a row; both lists have room for a whole vector
/// more than the row.
pub(crate) struct Masses<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) best: f32,
    /// One over the temperature.
    pub(crate) sharpness: f32,
    /// Weights below have no mass.
    pub(crate) floor: f32,
    pub(crate) keys: &'a mut [f32],
    pub(crate) masses: &'a mut [f32],
}

impl Kernel for Masses<'_> {
    /// Total mass.
    type Out = f64;
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) -> f64 {
        let (keys, _) = self.keys.as_chunks_mut::<LANES>();
        let (masses, _) = self.masses.as_chunks_mut::<LANES>();
        let (vectors, rest) = self.x.as_chunks::<LANES>();
        assert!(keys.len() > vectors.len() && masses.len() > vectors.len(), "room for the rest");
        let mut sums = s.sums();
        let low = s.splat(f32::NEG_INFINITY);
        for i in 0..=vectors.len() {
            let x = match vectors.get(i) {
                Some(v) => s.load(v),
                None => s.load_part(rest, f32::NEG_INFINITY),
            };
            let z = s.mul(s.sub(x, s.splat(self.best)), s.splat(self.sharpness));
            let weight = exp(s, z);
            let mass = s.round(s.mul(weight, s.splat(MASS_ONE)));
            let mass = s.select(s.ge(weight, s.splat(self.floor)), mass, s.splat(0.0));
            s.store(&mut masses[i], mass);
            s.store(&mut keys[i], s.select(s.ge(mass, s.splat(1.0)), z, low));
            sums = s.accumulate(sums, mass);
        }
        s.total(sums)
    }
}

/// A list of candidates side by side, with room for a vector more than it will hold.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) ids: Vec<u32>,
    pub(crate) keys: Vec<f32>,
    pub(crate) masses: Vec<f32>,
}

impl List {
    /// Room for `len` candidates.
    pub(crate) fn new(len: usize) -> Self {
        let room = len + 2 * LANES;
        Self { ids: vec![0; room], keys: vec![0.0; room], masses: vec![0.0; room] }
    }
}

/// The elements with a key within `least..end` and a mass of at least `mass`, packed into `to`
/// with their places as ids.
pub(crate) struct Pack<'a> {
    pub(crate) keys: &'a [f32],
    pub(crate) masses: &'a [f32],
    pub(crate) least: f32,
    pub(crate) end: f32,
    pub(crate) mass: f32,
    pub(crate) to: &'a mut List,
}

impl Kernel for Pack<'_> {
    /// How many.
    type Out = usize;
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) -> usize {
        let Self { keys, masses, least, end, mass, to } = self;
        assert_eq!(keys.len(), masses.len(), "lists of one length");
        let mut n = 0;
        for (i, (keys, masses)) in keys.chunks(LANES).zip(masses.chunks(LANES)).enumerate() {
            // Lanes past the end hold NaN, which is never chosen.
            let (key, m) = (s.load_part(keys, f32::NAN), s.load_part(masses, f32::NAN));
            let above = s.bits(s.ge(key, s.splat(least))) & !s.bits(s.ge(key, s.splat(end)));
            let chosen = above & s.bits(s.ge(m, s.splat(mass)));
            if chosen == 0 {
                continue;
            }
            let room = "room for a vector";
            s.compress(to.keys[n..].first_chunk_mut().expect(room), chosen, key);
            s.compress(to.masses[n..].first_chunk_mut().expect(room), chosen, m);
            let ids = to.ids[n..].first_chunk_mut().expect(room);
            s.compress_ids(ids, chosen, (i * LANES) as u32);
            n += chosen.count_ones() as usize;
        }
        n
    }
}

/// The mean of the keys, weighted by mass, becomes the measure: keys turn into minus their
/// distance from it. Those without mass stay at -inf.
pub(crate) struct Center<'a> {
    pub(crate) keys: &'a mut [f32],
    pub(crate) masses: &'a [f32],
}

impl Kernel for Center<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { keys, masses } = self;
        let (zero, least) = (s.splat(0.0), s.splat(KEY_MIN));
        let (mut sums, mut total) = (s.sums(), s.sums());
        for (keys, masses) in keys.chunks(LANES).zip(masses.chunks(LANES)) {
            let (key, mass) = (s.load_part(keys, 0.0), s.load_part(masses, 0.0));
            let product = s.select(s.ge(key, least), s.mul(key, mass), zero);
            sums = s.accumulate(sums, product);
            total = s.accumulate(total, mass);
        }
        let mean = s.splat((s.total(sums) / s.total(total)) as f32);
        for keys in keys.chunks_mut(LANES) {
            let key = s.load_part(keys, f32::NEG_INFINITY);
            let distance = s.min(s.sub(mean, key), s.sub(key, mean));
            s.store_part(keys, s.select(s.ge(key, least), distance, key));
        }
    }
}

/// Mass and number of the elements with a key of at least `least`.
pub(crate) struct Above<'a> {
    pub(crate) keys: &'a [f32],
    pub(crate) masses: &'a [f32],
    pub(crate) least: f32,
}

impl Kernel for Above<'_> {
    type Out = (f64, usize);
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) -> (f64, usize) {
        let (keys, keys_rest) = self.keys.as_chunks::<LANES>();
        let (masses, masses_rest) = self.masses.as_chunks::<LANES>();
        let (zero, least) = (s.splat(0.0), s.splat(self.least));
        let (mut sums, mut count) = (s.sums(), 0);
        for (key, mass) in keys.iter().zip(masses) {
            let above = s.ge(s.load(key), least);
            count += s.bits(above).count_ones() as usize;
            sums = s.accumulate(sums, s.select(above, s.load(mass), zero));
        }
        let above = s.ge(s.load_part(keys_rest, f32::NAN), least);
        count += s.bits(above).count_ones() as usize;
        sums = s.accumulate(sums, s.select(above, s.load_part(masses_rest, 0.0), zero));
        (s.total(sums), count)
    }
}

/// Takes mass and key from the elements with a key below `least`.
pub(crate) struct Drop<'a> {
    pub(crate) keys: &'a mut [f32],
    pub(crate) masses: &'a mut [f32],
    pub(crate) least: f32,
}

impl Kernel for Drop<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let (zero, low) = (s.splat(0.0), s.splat(f32::NEG_INFINITY));
        for (keys, masses) in self.keys.chunks_mut(LANES).zip(self.masses.chunks_mut(LANES)) {
            let key = s.load_part(keys, f32::NAN);
            let kept = s.ge(key, s.splat(self.least));
            s.store_part(keys, s.select(kept, key, low));
            let mass = s.load_part(masses, 0.0);
            s.store_part(masses, s.select(kept, mass, zero));
        }
    }
}

/// How many elements are greater than `x[at]`, or equal and before it.
pub(crate) struct Rank<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) at: usize,
}

impl Kernel for Rank<'_> {
    type Out = usize;
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) -> usize {
        let value = self.x[self.at];
        // "Greater" is "at least the next f32".
        count(s, &self.x[..self.at], value) + count(s, &self.x[self.at + 1..], value.next_up())
    }
}

/// Elements that are at least `least`.
#[inline(always)]
fn count<S: Lanes>(s: S, x: &[f32], least: f32) -> usize {
    let mut n = 0;
    for part in x.chunks(LANES) {
        n += s.bits(s.ge(s.load_part(part, f32::NAN), s.splat(least))).count_ones() as usize;
    }
    n
}
