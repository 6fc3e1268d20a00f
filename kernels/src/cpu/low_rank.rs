//! Low-rank additions to a matrix (LoRA, arXiv 2106.09685): `out += scale * up * (down * x)`.
//!
//! Rows are sorted by adapter, so a step of many adapters reads each one's factors once. Two runs
//! of the pool: inner products with `down` into scratch, then `up` into the output. All in f32;
//! factors are packed so that a kernel reads one stream. An inner sum is cut into [`STRETCH`]es
//! of k, whatever the rows beside it: a row gets the same bits in any batch.

use std::array::from_fn;

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::pool::Pool;
use super::tensor::{Buffer, Shared};
use crate::compute::{Error, Segment};

/// Rows of `down`, or vectors of `up`, side by side in the packed factors.
const SIDE: usize = 4;
/// Elements of k that are summed in one vector: with `SIDE` rows of `down`, 16 KiB, which stay in
/// the first-level cache while rows pass by.
const STRETCH: usize = 1024;
/// Outputs of a panel of `up`.
const PANEL: usize = SIDE * LANES;
/// Rows of a task: what a stretch of `down` or a run of `up` is used for.
const ROWS: usize = 32;
/// Rows of a tile at most: `SIDE` sums each, in registers.
const TILE: usize = 4;
/// Bytes of factors in a task at least: some microseconds of work.
const TASK_BYTES: usize = 64 << 10;
/// How far ahead of the factors in use to fetch.
const AHEAD: usize = 4096;

/// A packed addition.
#[derive(Debug)]
pub struct LowRank {
    /// `[rank / SIDE, in / 16, SIDE, 16]`, padded with zeros.
    down: Buffer,
    /// `[out / PANEL, rank, PANEL]`, padded with zeros.
    up: Buffer,
    rank: usize,
    cols: usize,
    out: usize,
    scale: f32,
}

impl LowRank {
    /// Packs `down` `[rank, in]` and `up` `[out, rank]`.
    ///
    /// # Errors
    /// No memory.
    ///
    /// # Panics
    /// Factors that do not fit the rank: a bug in the caller.
    pub(crate) fn new(down: &[f32], up: &[f32], rank: usize, scale: f32) -> Result<Self, Error> {
        assert!(rank > 0 && !down.is_empty() && !up.is_empty(), "an empty low-rank addition");
        assert!(down.len().is_multiple_of(rank) && up.len().is_multiple_of(rank), "rank {rank}");
        let (cols, out) = (down.len() / rank, up.len() / rank);
        let blocks = rank.div_ceil(SIDE);
        let claim = |len: usize| Buffer::zeroed(len.saturating_mul(4), "a low-rank addition");
        let mut packed = Self {
            down: claim(blocks * cols.next_multiple_of(LANES) * SIDE)?,
            up: claim(out.next_multiple_of(PANEL) * rank)?,
            rank,
            cols,
            out,
            scale,
        };
        let (block, to) = (packed.block(), packed.down.floats_mut());
        for (j, row) in down.chunks_exact(cols).enumerate() {
            for (k, &w) in row.iter().enumerate() {
                let vector = k / LANES * SIDE + j % SIDE;
                to[j / SIDE * block + vector * LANES + k % LANES] = w;
            }
        }
        let to = packed.up.floats_mut();
        for (o, row) in up.chunks_exact(rank).enumerate() {
            for (j, &w) in row.iter().enumerate() {
                to[(o / PANEL * rank + j) * PANEL + o % PANEL] = w;
            }
        }
        Ok(packed)
    }

    /// Elements of `SIDE` rows of `down`.
    fn block(&self) -> usize {
        self.cols.next_multiple_of(LANES) * SIDE
    }
}

/// Room for the inner products, and for rows sorted by adapter. Claimed at set-up.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// `[rows, rank]`.
    inner: Vec<f32>,
    rank: usize,
    /// Rows that have an adapter, sorted by it.
    rows: Vec<u32>,
    /// Tasks take these one by one.
    runs: Vec<Run>,
}

/// Rows of one adapter: entries of [`Scratch::rows`].
#[derive(Debug, Clone, Copy)]
struct Run {
    adapter: usize,
    first: usize,
    len: usize,
}

impl Scratch {
    /// Makes room for steps of up to `rows` rows with additions of up to this rank.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn reserve(&mut self, rows: usize, rank: usize) -> Result<(), Error> {
        let wanted = rows.saturating_mul(rank.max(self.rank));
        let bytes = wanted.saturating_mul(4);
        let missing = |_| Error::OutOfMemory { what: "low-rank products", wanted: bytes };
        let more = wanted.saturating_sub(self.inner.len());
        self.inner.try_reserve_exact(more).map_err(missing)?;
        self.inner.resize(wanted.max(self.inner.len()), 0.0);
        self.rank = rank.max(self.rank);
        self.rows.reserve_exact(rows);
        // A run has a row at least.
        self.runs.reserve_exact(rows);
        Ok(())
    }

    /// Sorts the rows of `segments` by adapter and cuts them into runs of at most [`ROWS`].
    fn plan(&mut self, segments: &[Segment], pairs: &[Option<LowRank>]) {
        self.rows.clear();
        self.runs.clear();
        for (adapter, pair) in pairs.iter().enumerate() {
            if pair.is_none() {
                continue;
            }
            let first = self.rows.len();
            for segment in segments.iter().filter(|s| s.adapter as usize == adapter + 1) {
                self.rows.extend(segment.row..segment.row + segment.len);
            }
            for first in (first..self.rows.len()).step_by(ROWS) {
                let len = ROWS.min(self.rows.len() - first);
                self.runs.push(Run { adapter, first, len });
            }
        }
    }
}

/// What a step adds to.
pub(crate) struct Call<'a> {
    pub(crate) isa: Isa,
    pub(crate) segments: &'a [Segment],
    /// Of adapter n at n - 1.
    pub(crate) pairs: &'a [Option<LowRank>],
    /// `[rows, width]`.
    pub(crate) x: &'a [f32],
    pub(crate) width: usize,
    /// The first column of the output.
    pub(crate) first: usize,
    pub(crate) out_width: usize,
}

/// `out[r] += scale * up * (down * x[r])` for all rows whose segment has an adapter with a pair.
pub(crate) fn adapt(pool: &Pool, call: &Call<'_>, scratch: &mut Scratch, out: &mut [f32]) {
    for pair in call.pairs.iter().flatten() {
        assert_eq!(pair.cols, call.width, "inputs of a low-rank addition");
        assert!(call.first + pair.out <= call.out_width, "outputs of a low-rank addition");
        assert!(pair.rank <= scratch.rank, "a rank that was not reserved");
    }
    scratch.plan(call.segments, call.pairs);
    let Scratch { inner, rank: stride, rows, runs } = scratch;
    let (stride, enough) = (*stride, pool.threads() * 4);
    let pair = |run: &Run| call.pairs[run.adapter].as_ref().expect("runs have a pair");
    let Some(rank) = runs.iter().map(|run| pair(run).rank.div_ceil(SIDE)).max() else { return };
    // Few runs are cut along the rank, too.
    let blocks = if runs.len() >= enough { rank } else { 1 };
    let (cuts, shared) = (rank.div_ceil(blocks), Shared::new(inner));
    pool.run(runs.len() * cuts, &|task, _| {
        let (run, from) = (&runs[task / cuts], task % cuts * blocks);
        let pair = pair(run);
        let to = pair.rank.div_ceil(SIDE).min(from + blocks);
        if from < to {
            let rows = &rows[run.first..][..run.len];
            let (first, inner) = (run.first, &shared);
            dispatch(call.isa, Down { call, pair, rows, first, from, to, stride, inner });
        }
    });
    let panels = runs.iter().map(|run| pair(run).out.div_ceil(PANEL)).max().unwrap_or(0);
    let each = |pair: &LowRank| TASK_BYTES.div_ceil(pair.rank * PANEL * 4);
    let each = runs.iter().map(|run| each(pair(run))).max().unwrap_or(1);
    let (cuts, inner, out) = (panels.div_ceil(each), &*inner, Shared::new(out));
    pool.run(runs.len() * cuts, &|task, _| {
        let (run, from) = (&runs[task / cuts], task % cuts * each);
        let pair = pair(run);
        let panels = from..pair.out.div_ceil(PANEL).min(from + each);
        let rows = &rows[run.first..][..run.len];
        let inner = &inner[run.first * stride..][..run.len * stride];
        dispatch(call.isa, Up { call, pair, rows, inner, stride, panels, out: &out });
    });
}

/// Inner products of some rows with blocks `from..to` of `SIDE` rows of `down`.
struct Down<'a> {
    call: &'a Call<'a>,
    pair: &'a LowRank,
    rows: &'a [u32],
    /// Where they stand in `inner`.
    first: usize,
    from: usize,
    to: usize,
    stride: usize,
    inner: &'a Shared<'a, f32>,
}

impl Kernel for Down<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        for block in self.from..self.to {
            for k in (0..self.pair.cols).step_by(STRETCH) {
                let mut row = 0;
                while row < self.rows.len() {
                    let left = self.rows.len() - row;
                    // Tiles of the size that the registers hold.
                    if S::QUERIES >= 8 && left >= TILE {
                        self.tile::<S, TILE>(s, block, k, row);
                        row += TILE;
                    } else {
                        self.tile::<S, 1>(s, block, k, row);
                        row += 1;
                    }
                }
            }
        }
    }
}

impl Down<'_> {
    /// `N` rows from `row` on by a stretch of a block.
    #[inline(always)]
    fn tile<S: Lanes, const N: usize>(&self, s: S, block: usize, k: usize, row: usize) {
        let (width, size) = (self.call.width, self.pair.block());
        let len = STRETCH.min(self.pair.cols - k);
        let weights = &self.pair.down.floats()[block * size + k * SIDE..];
        let weights = &weights[..len.next_multiple_of(LANES) * SIDE];
        let (weights, _) = weights.as_chunks::<{ SIDE * LANES }>();
        let x: [&[f32]; N] =
            from_fn(|r| &self.call.x[self.rows[row + r] as usize * width + k..][..len]);
        let mut sums = [[s.splat(0.0); SIDE]; N];
        for (i, weights) in weights[..len / LANES].iter().enumerate() {
            let x: [S::V; N] = from_fn_inline(s, &x, i);
            add_products(s, &mut sums, weights, &x);
        }
        if !len.is_multiple_of(LANES) {
            let mut rest = [s.splat(0.0); N];
            for (rest, x) in rest.iter_mut().zip(&x) {
                *rest = s.load_part(&x[len / LANES * LANES..], 0.0);
            }
            add_products(s, &mut sums, &weights[len / LANES], &rest);
        }
        for (r, sums) in sums.iter().enumerate() {
            let n = SIDE.min(self.pair.rank - block * SIDE);
            let at = (self.first + row + r) * self.stride + block * SIDE;
            // SAFETY: each row's entries of a block belong to one task.
            let inner = unsafe { self.inner.part(at, n) };
            for (inner, &sum) in inner.iter_mut().zip(sums) {
                *inner = if k == 0 { s.sum(sum) } else { *inner + s.sum(sum) };
            }
        }
    }
}

/// Vector `i` of each row.
#[inline(always)]
fn from_fn_inline<S: Lanes, const N: usize>(s: S, x: &[&[f32]; N], i: usize) -> [S::V; N] {
    let mut out = [s.splat(0.0); N];
    for (out, x) in out.iter_mut().zip(x) {
        *out = s.load(&x.as_chunks::<LANES>().0[i]);
    }
    out
}

/// One vector of k of `SIDE` rows of weights by that of `N` rows.
#[inline(always)]
fn add_products<S: Lanes, const N: usize>(
    s: S,
    sums: &mut [[S::V; SIDE]; N],
    weights: &[f32; SIDE * LANES],
    x: &[S::V; N],
) {
    for (j, weights) in weights.as_chunks::<LANES>().0.iter().enumerate() {
        s.prefetch(weights.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        let weights = s.load(weights);
        for (sums, &x) in sums.iter_mut().zip(x) {
            sums[j] = s.fma(weights, x, sums[j]);
        }
    }
}

/// Adds panels of `up` by the inner products of some rows.
struct Up<'a> {
    call: &'a Call<'a>,
    pair: &'a LowRank,
    rows: &'a [u32],
    /// `[rows, stride]`.
    inner: &'a [f32],
    stride: usize,
    panels: std::ops::Range<usize>,
    out: &'a Shared<'a, f32>,
}

impl Kernel for Up<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        for panel in self.panels.clone() {
            let mut row = 0;
            while row < self.rows.len() {
                let left = self.rows.len() - row;
                if S::QUERIES >= 8 && left >= TILE {
                    self.tile::<S, TILE>(s, panel, row);
                    row += TILE;
                } else {
                    self.tile::<S, 1>(s, panel, row);
                    row += 1;
                }
            }
        }
    }
}

impl Up<'_> {
    #[inline(always)]
    fn tile<S: Lanes, const N: usize>(&self, s: S, panel: usize, row: usize) {
        let LowRank { rank, out, scale, .. } = *self.pair;
        let weights = &self.pair.up.floats()[panel * rank * PANEL..][..rank * PANEL];
        let inner: [&[f32]; N] = from_fn(|r| &self.inner[(row + r) * self.stride..][..rank]);
        let mut sums = [[s.splat(0.0); SIDE]; N];
        for (j, weights) in weights.as_chunks::<PANEL>().0.iter().enumerate() {
            let mut x = [s.splat(0.0); N];
            for (x, inner) in x.iter_mut().zip(&inner) {
                *x = s.splat(inner[j]);
            }
            add_products(s, &mut sums, weights, &x);
        }
        let first = panel * PANEL;
        let columns = PANEL.min(out - first);
        for (r, sums) in sums.iter().enumerate() {
            let at = self.rows[row + r] as usize * self.call.out_width + self.call.first + first;
            // SAFETY: each row's panel belongs to one task.
            let out = unsafe { self.out.part(at, columns) };
            for (out, &sum) in out.chunks_mut(LANES).zip(sums) {
                let old = s.load_part(out, 0.0);
                s.store_part(out, s.fma(sum, s.splat(scale), old));
            }
        }
    }
}
