//! Products of small floats (`F8E4M3`, `Nf4`, `Fp4`) with few rows, widened in registers.
//!
//! With one row, widening into memory and reading back costs more than the product (see `widen`).
//! Both ways make the same weights and add k one after the other, so a row's numbers do not
//! depend on which was taken.

use super::output::Output;
use super::wide::{Kernel, Wide, dispatch};
use super::widen::e4m3_scale;
use crate::cpu::isa::Isa;
use crate::cpu::matrix::layout::{Floats, PANEL, QUAD, VECTOR};

/// The most rows; with more, a weight is in use often enough to be widened once.
pub(super) const ROWS: usize = 4;
/// How far ahead of the codes in use to fetch, as in `bytes`.
const AHEAD: usize = 8192;
/// Sixteens of rows in a panel.
const QUARTERS: usize = QUAD / PANEL;

/// Panels of small floats by one tile of activations.
#[derive(Clone, Copy)]
pub(super) struct FusedTile {
    /// The first panel.
    pub(super) panels: *const u8,
    /// Bytes of a panel.
    pub(super) panel_bytes: usize,
    /// Blocks of k.
    pub(super) blocks: usize,
    /// What they hold.
    pub(super) floats: Floats,
    /// The tile's activations.
    pub(super) x: *const f32,
    /// Where sums begin and go.
    pub(super) out: Output,
}

/// Runs the kernel made for this tile.
///
/// # Safety
/// The pointers are to panels, and to activations of `padded` rows, of these blocks.
pub(super) unsafe fn run(isa: Isa, padded: usize, tile: FusedTile) {
    // SAFETY: the caller's promise.
    unsafe {
        match (padded, tile.floats.table.is_some()) {
            (1, false) => dispatch(isa, Sized::<1, false>(tile)),
            (1, true) => dispatch(isa, Sized::<1, true>(tile)),
            (2, false) => dispatch(isa, Sized::<2, false>(tile)),
            (2, true) => dispatch(isa, Sized::<2, true>(tile)),
            (4, false) => dispatch(isa, Sized::<4, false>(tile)),
            (4, true) => dispatch(isa, Sized::<4, true>(tile)),
            _ => unreachable!("at most {ROWS} rows"),
        }
    }
}

struct Sized<const ROWS: usize, const TABLE: bool>(FusedTile);

impl<const ROWS: usize, const TABLE: bool> Kernel for Sized<ROWS, TABLE> {
    #[inline(always)]
    unsafe fn run<S: Wide>(self, s: S) {
        let tile = self.0;
        let mut at = 0;
        while at < tile.out.panels {
            let left = tile.out.panels - at;
            // SAFETY: the caller's promise: all panels are there.
            unsafe {
                if left >= 4 && 4 * ROWS <= S::SUMS {
                    rows::<S, ROWS, 4, TABLE>(s, &tile, at);
                    at += 4;
                } else if left >= 2 && at % 2 == 0 && 2 * ROWS <= S::SUMS {
                    rows::<S, ROWS, 2, TABLE>(s, &tile, at);
                    at += 2;
                } else {
                    rows::<S, ROWS, 1, TABLE>(s, &tile, at);
                    at += 1;
                }
            }
        }
    }
}

/// `COUNT` sixteens of rows of one panel, from the `first` on.
///
/// # Safety
/// They are there.
#[allow(clippy::needless_range_loop, reason = "one index into several arrays")]
#[inline(always)]
unsafe fn rows<S: Wide, const ROWS: usize, const COUNT: usize, const TABLE: bool>(
    s: S,
    tile: &FusedTile,
    first: usize,
) {
    let Floats { block, table } = tile.floats;
    // SAFETY: the caller's promise.
    unsafe {
        let table = table.map_or(s.splat(0.0), |table| s.load(table.as_ptr()));
        let mut sums = [[s.splat(0.0); ROWS]; COUNT];
        for p in 0..COUNT {
            sums[p] = tile.out.begin(s, first + p);
        }
        let quarter = first % QUARTERS;
        let mut at = tile.panels.add(first / QUARTERS * tile.panel_bytes);
        let mut x = tile.x;
        for _ in 0..tile.blocks {
            let mut scales = [s.splat(0.0); COUNT];
            for p in 0..COUNT {
                s.prefetch(at.wrapping_add(AHEAD + p * VECTOR));
                let scale = s.load(at.add((quarter + p) * VECTOR).cast());
                scales[p] = if TABLE { scale } else { e4m3_scale(s, scale) };
            }
            let codes = at.add(Floats::SCALES + quarter * if TABLE { VECTOR } else { PANEL });
            // A cache line is a step of 8-bit floats, and 16 rows of 8 steps of 4 bits.
            for step in 0..if TABLE { block / 8 } else { block } {
                if TABLE {
                    let mut words = [s.words(0); COUNT];
                    for p in 0..COUNT {
                        let at = codes.add((step * QUARTERS + p) * VECTOR);
                        s.prefetch(at.wrapping_add(AHEAD));
                        words[p] = s.bytes(at);
                    }
                    for i in 0..8 {
                        let mut weights = [s.splat(0.0); COUNT];
                        for p in 0..COUNT {
                            let value = s.pick(table, s.shr(words[p], 4 * i));
                            weights[p] = s.mul(scales[p], value);
                        }
                        x = add_step(s, &mut sums, &weights, x);
                    }
                } else {
                    let at = codes.add(step * QUAD);
                    s.prefetch(at.wrapping_add(AHEAD));
                    let mut weights = [s.splat(0.0); COUNT];
                    for p in 0..COUNT {
                        weights[p] = s.mul(scales[p], s.load_e4m3(at.add(p * PANEL)));
                    }
                    x = add_step(s, &mut sums, &weights, x);
                }
            }
            at = at.add(tile.floats.bytes());
        }
        for p in 0..COUNT {
            tile.out.end(s, first + p, sums[p]);
        }
    }
}

/// Adds one k of weights by `ROWS` activations, and gives where the next ones are.
///
/// # Safety
/// `ROWS` activations are readable at `x`.
#[allow(clippy::needless_range_loop, reason = "one index into several arrays")]
#[inline(always)]
unsafe fn add_step<S: Wide, const ROWS: usize, const COUNT: usize>(
    s: S,
    sums: &mut [[S::F; ROWS]; COUNT],
    weights: &[S::F; COUNT],
    x: *const f32,
) -> *const f32 {
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        let x = s.splat(unsafe { *x.add(r) });
        for p in 0..COUNT {
            sums[p][r] = s.fma(weights[p], x, sums[p][r]);
        }
    }
    x.wrapping_add(ROWS)
}
