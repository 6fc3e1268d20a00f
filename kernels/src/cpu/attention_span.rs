//! One span of attention: an online softmax of some queries over consecutive pages.
//!
//! Page after page, and within a page tile after tile of up to [`Lanes::QUERIES`] queries: 16
//! scores per query (lanes are keys), the running best score, then the weighted values (lanes are
//! dimensions). Keys and values of the page stay in the first-level cache for all tiles. Values
//! that the cache has in its keys are turned once per page, before the tiles.
//!
//! Invariant: a query's numbers go through the same operations in the same order whatever tile
//! and block it is in, so results do not depend on them. A page that a tile's queries see only
//! partly is done query by query, and positions that a query may not see are never touched: they
//! may hold anything, NaN included.

use std::ops::Range;

use super::attention::HEAD_DIM_MAX;
use super::cache::Element;
use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::{exp, exp_one, tanh};
use super::tensor::Vector;
use crate::compute::{Attention, CacheValues};

/// From a turned value to the next: an odd number of cache lines, so that the 16 do not fall into
/// the same places of a cache.
pub(crate) const VALUE_STRIDE: usize = HEAD_DIM_MAX + LANES;

/// A query with its running softmax. Aligned, as a vector across two cache lines costs twice.
#[repr(C, align(64))]
pub(crate) struct Query {
    /// Sums of e^(score - best), per position within the page.
    mass: [f32; LANES],
    q: *const f32,
    /// Positions `from..to` are seen.
    from: usize,
    to: usize,
    /// Whether this span held any of them.
    pub(crate) seen: bool,
    /// Greatest score so far.
    pub(crate) best: f32,
}

// SAFETY: `q` points to the activations, which outlive the op and are only read by it.
unsafe impl Send for Query {}

impl Query {
    /// A query that sees these positions.
    pub(crate) fn new(q: &[f32], seen: Range<usize>) -> Self {
        Self {
            q: q.as_ptr(),
            from: seen.start,
            to: seen.end,
            seen: false,
            best: f32::NEG_INFINITY,
            mass: [0.0; LANES],
        }
    }

    /// Sum of e^(score - best), in one fixed order.
    pub(crate) fn mass_sum(&self) -> f32 {
        let mut n = LANES / 2;
        let mut sums = self.mass;
        while n > 0 {
            for i in 0..n {
                sums[i] += sums[i + n];
            }
            n /= 2;
        }
        sums[0]
    }

    /// Which positions of a page this query sees.
    fn on_page(&self, page: usize) -> (usize, usize) {
        let base = page * LANES;
        let clip = |position: usize| position.clamp(base, base + LANES) - base;
        (clip(self.from), clip(self.to))
    }
}

/// The pages `pages` of a slot, for `queries`.
pub(crate) struct Span<'a, P> {
    pub(crate) how: &'a Attention<'a, Vector>,
    /// Elements of a value.
    pub(crate) value_dim: usize,
    pub(crate) pages: Range<usize>,
    /// Keys and values of page i of the slot; no values where they are the keys' first elements.
    pub(crate) page: P,
    /// `[16, VALUE_STRIDE]`: room for those.
    pub(crate) turned: &'a mut [f32],
    pub(crate) queries: &'a mut [Query],
    /// `[queries, value_dim rounded up]`: overwritten with the weighted sums of values.
    pub(crate) sums: &'a mut [[f32; LANES]],
}

/// Runs a span on an instruction set.
pub(crate) fn run_span<'a, T: Element, P>(isa: Isa, span: Span<'a, P>, values: CacheValues)
where
    P: Fn(usize) -> (&'a [[T; LANES]], &'a [T]),
{
    let element = std::marker::PhantomData::<T>;
    match values {
        CacheValues::Own => dispatch(isa, Own { span, element }),
        CacheValues::InKeys { .. } => dispatch(isa, InKeys { span, element }),
    }
}

/// A span whose values lie beside the keys.
struct Own<'a, T, P> {
    span: Span<'a, P>,
    element: std::marker::PhantomData<T>,
}

impl<'a, T: Element, P> Kernel for Own<'a, T, P>
where
    P: Fn(usize) -> (&'a [[T; LANES]], &'a [T]),
{
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Span { how, value_dim, pages, page, queries, sums, .. } = self.span;
        sums.fill([0.0; LANES]);
        assert_eq!(sums.len(), queries.len() * value_dim.div_ceil(LANES), "scratch size");
        for index in pages.clone() {
            let (keys, values) = page(index);
            let next = (index + 1 < pages.end).then(|| {
                let (keys, values) = page(index + 1);
                [keys.as_ptr().cast(), values.as_ptr().cast()]
            });
            let stride = value_dim;
            Page { how, index, keys, values, value_dim, stride, next }.tiles(s, queries, sums);
        }
    }
}

/// A span whose values are the keys' first elements.
struct InKeys<'a, T, P> {
    span: Span<'a, P>,
    element: std::marker::PhantomData<T>,
}

impl<'a, T: Element, P> Kernel for InKeys<'a, T, P>
where
    P: Fn(usize) -> (&'a [[T; LANES]], &'a [T]),
{
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Span { how, value_dim, pages, page, turned, queries, sums } = self.span;
        sums.fill([0.0; LANES]);
        assert_eq!(sums.len(), queries.len() * value_dim.div_ceil(LANES), "scratch size");
        for index in pages.clone() {
            let (keys, _) = page(index);
            let next = (index + 1 < pages.end).then(|| [page(index + 1).0.as_ptr().cast(); 2]);
            turn(s, &keys[..value_dim], turned);
            let (values, stride) = (&*turned, VALUE_STRIDE);
            Page { how, index, keys, values, value_dim, stride, next }.tiles(s, queries, sums);
        }
    }
}

/// The values `[16, VALUE_STRIDE]` of a page out of its keys `[value_dim][16]`.
#[inline(always)]
fn turn<S: Lanes, T: Element>(s: S, keys: &[[T; LANES]], turned: &mut [f32]) {
    for (i, keys) in keys.chunks(LANES).enumerate() {
        let mut rows = [s.splat(0.0); LANES];
        for (row, key) in rows.iter_mut().zip(keys) {
            *row = T::load(s, key);
        }
        let columns = s.transpose(rows);
        for (t, column) in columns.into_iter().enumerate() {
            let at = t * VALUE_STRIDE + i * LANES;
            s.store_part(&mut turned[at..at + LANES], column);
        }
    }
}

/// One page of one kv head: keys of T, values of U.
struct Page<'a, T, U> {
    how: &'a Attention<'a, Vector>,
    index: usize,
    /// `[head_dim]` of 16 positions.
    keys: &'a [[T; LANES]],
    /// `[16, stride]`.
    values: &'a [U],
    value_dim: usize,
    stride: usize,
    /// Keys and values of the page after this one, which the first tile asks for: pages lie
    /// anywhere, so the processor cannot guess, and a page takes less time than the memory's
    /// latency per line.
    next: Option<[*const u8; 2]>,
}

impl<T: Element, U: Element> Page<'_, T, U> {
    /// All queries, a tile at a time.
    #[inline(always)]
    fn tiles<S: Lanes>(mut self, s: S, queries: &mut [Query], sums: &mut [[f32; LANES]]) {
        let per_query = self.value_dim.div_ceil(LANES);
        let (mut queries, mut sums) = (queries, sums);
        while !queries.is_empty() {
            let most = queries.len().min(S::QUERIES);
            // 8, 4, 2 or 1: the largest that is left.
            let n = 1 << most.ilog2();
            let (tile, rest) = queries.split_at_mut(n);
            let (tile_sums, rest_sums) = sums.split_at_mut(n * per_query);
            match n {
                8 if S::QUERIES >= 8 => self.tile::<S, 8, 2>(s, tile, tile_sums),
                4 if S::QUERIES >= 4 => self.tile::<S, 4, 4>(s, tile, tile_sums),
                2 if S::QUERIES >= 2 => self.tile::<S, 2, 4>(s, tile, tile_sums),
                _ => self.tile::<S, 1, 4>(s, tile, tile_sums),
            }
            (queries, sums) = (rest, rest_sums);
            self.next = None;
        }
    }

    /// N queries; C vectors of a value at once.
    #[inline(always)]
    fn tile<S: Lanes, const N: usize, const C: usize>(
        &self,
        s: S,
        queries: &mut [Query],
        sums: &mut [[f32; LANES]],
    ) {
        let queries: &mut [Query; N] = queries.try_into().expect("N queries");
        if queries.iter().all(|q| q.on_page(self.index) == (0, LANES)) {
            self.attend::<S, N, C>(s, queries, 0, LANES, sums);
            return;
        }
        let per_query = sums.len() / N;
        for (query, sums) in queries.iter_mut().zip(sums.chunks_exact_mut(per_query)) {
            let (from, to) = query.on_page(self.index);
            if from < to {
                self.attend::<S, 1, 4>(s, std::array::from_mut(query), from, to, sums);
            }
        }
    }

    /// Positions `from..to` of the page join the softmax of N queries.
    #[inline(always)]
    fn attend<S: Lanes, const N: usize, const C: usize>(
        &self,
        s: S,
        queries: &mut [Query; N],
        from: usize,
        to: usize,
        sums: &mut [[f32; LANES]],
    ) {
        let per_query = sums.len() / N;
        let scores = self.scores(s, queries);
        let seen = s.range(from, to);
        let mut weights = [[0.0; LANES]; N];
        for j in 0..N {
            let mut score = s.mul(scores[j], s.splat(self.how.scale));
            if let Some(cap) = self.how.soft_cap {
                score = s.mul(s.splat(cap), tanh(s, s.div(score, s.splat(cap))));
            }
            let score = s.select(seen, score, s.splat(f32::NEG_INFINITY));
            let query = &mut queries[j];
            query.seen = true;
            let greatest = s.greatest(score);
            let mut mass = s.load(&query.mass);
            if greatest > query.best {
                // With an unchanged best score the factor is 1 and this would change no bit.
                let factor = s.splat(exp_one(s, query.best - greatest));
                query.best = greatest;
                mass = s.mul(mass, factor);
                for sum in &mut sums[j * per_query..(j + 1) * per_query] {
                    let scaled = s.mul(s.load(sum), factor);
                    s.store(sum, scaled);
                }
            }
            let weight = exp(s, s.sub(score, s.splat(query.best)));
            s.store(&mut query.mass, s.add(mass, weight));
            s.store(&mut weights[j], weight);
        }
        self.weigh::<S, N, C>(s, &weights, from, to, sums);
    }

    /// Dot products with all 16 keys: even and odd dimensions in two chains.
    #[inline(always)]
    fn scores<S: Lanes, const N: usize>(&self, s: S, queries: &[Query; N]) -> [S::V; N] {
        let q: [*const f32; N] = std::array::from_fn(|j| queries[j].q);
        let (mut even, mut odd) = ([s.splat(0.0); N], [s.splat(0.0); N]);
        let (pairs, last) = self.keys.as_chunks::<2>();
        for (i, pair) in pairs.iter().enumerate() {
            if let Some(next) = self.next {
                // As many bytes as this round reads, of keys and of values.
                for line in (0..size_of_val(pair)).step_by(64) {
                    let at = i * size_of_val(pair) + line;
                    s.prefetch(next[0].wrapping_add(at));
                    s.prefetch(next[1].wrapping_add(at));
                }
            }
            let (k0, k1) = (T::load(s, &pair[0]), T::load(s, &pair[1]));
            for j in 0..N {
                // SAFETY: a query has head_dim elements, as many as there are key rows.
                let (q0, q1) = unsafe { (*q[j].add(2 * i), *q[j].add(2 * i + 1)) };
                even[j] = s.fma(s.splat(q0), k0, even[j]);
                odd[j] = s.fma(s.splat(q1), k1, odd[j]);
            }
        }
        if let [key] = last {
            let key = T::load(s, key);
            for j in 0..N {
                // SAFETY: as above; this is the last dimension of an odd head size.
                let q = unsafe { *q[j].add(2 * pairs.len()) };
                even[j] = s.fma(s.splat(q), key, even[j]);
            }
        }
        for j in 0..N {
            even[j] = s.add(even[j], odd[j]);
        }
        even
    }

    /// `sums += weight * value` over positions `from..to`, in order, C vectors at once.
    #[inline(always)]
    fn weigh<S: Lanes, const N: usize, const C: usize>(
        &self,
        s: S,
        weights: &[[f32; LANES]; N],
        from: usize,
        to: usize,
        sums: &mut [[f32; LANES]],
    ) {
        let per_query = sums.len() / N;
        let whole = self.value_dim / LANES;
        let mut at = 0;
        while at + C <= whole {
            self.columns::<S, N, C>(s, weights, from, to, sums, at);
            at += C;
        }
        while at < whole {
            self.columns::<S, N, 1>(s, weights, from, to, sums, at);
            at += 1;
        }
        if at < per_query {
            // The last value_dim % 16 dimensions.
            let mut part = [0.0; LANES];
            for (t, value) in self.values_of(from, to) {
                let value = &value[at * LANES..];
                part.iter_mut().zip(value).for_each(|(p, v)| *p = v.wide());
                let value = s.load(&part);
                for j in 0..N {
                    let sum = &mut sums[j * per_query + at];
                    let added = s.fma(s.splat(weights[j][t]), value, s.load(sum));
                    s.store(sum, added);
                }
            }
        }
    }

    /// Positions `from..to` of the page with their values.
    #[inline(always)]
    fn values_of(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, &[U])> {
        let values = self.values[from * self.stride..to * self.stride].chunks_exact(self.stride);
        // The remainder changes nothing and spares a check of each weight.
        (from..to).map(|t| t % LANES).zip(values)
    }

    /// C vectors of dimensions from vector `at` on.
    #[inline(always)]
    fn columns<S: Lanes, const N: usize, const C: usize>(
        &self,
        s: S,
        weights: &[[f32; LANES]; N],
        from: usize,
        to: usize,
        sums: &mut [[f32; LANES]],
        at: usize,
    ) {
        let per_query = sums.len() / N;
        // Loops, as a closure that is not inlined is compiled without the instruction set.
        let mut total = [[s.splat(0.0); C]; N];
        for (j, total) in total.iter_mut().enumerate() {
            for (c, total) in total.iter_mut().enumerate() {
                *total = s.load(&sums[j * per_query + at + c]);
            }
        }
        for (t, value) in self.values_of(from, to) {
            let value = value[at * LANES..][..C * LANES].as_chunks().0;
            for c in 0..C {
                let v = U::load(s, &value[c]);
                for j in 0..N {
                    total[j][c] = s.fma(s.splat(weights[j][t]), v, total[j][c]);
                }
            }
        }
        for (j, total) in total.iter().enumerate() {
            for (c, total) in total.iter().enumerate() {
                s.store(&mut sums[j * per_query + at + c], *total);
            }
        }
    }
}
