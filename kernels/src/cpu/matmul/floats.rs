//! Products in floating point: f32, f16 or bf16 by f32, or pairs of bf16 by pairs of bf16.
//!
//! A panel, or half of one, by one tile of rows: a step's weight vectors and one broadcast
//! activation at a time, sums in registers. Each sum adds its steps of k one after the other,
//! whatever the tile. 16-bit weights are widened in registers; quantized ones before, a stretch of
//! k at a time (see `widen`).

use std::array::from_fn;

use super::output::Output;
use super::wide::{Kernel, Wide, dispatch, dispatch_pairs};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::layout::{PANEL, VECTOR};

/// How far ahead of the weights in use to fetch, as in `bytes`.
const AHEAD: usize = 8192;

/// Panels of vectors by one tile of activations.
#[derive(Clone, Copy)]
pub(super) struct FloatsTile {
    /// First vector of the first panel.
    pub(super) panels: *const u8,
    /// From panel to panel, in bytes.
    pub(super) panel_bytes: usize,
    /// The weights come from memory: no tile has used them before.
    pub(super) cold: bool,
    /// Steps of k: words of activations of a row.
    pub(super) steps: usize,
    /// The tile's words, from the first of these steps.
    pub(super) x: *const u32,
    /// Where sums begin and go.
    pub(super) out: Output,
}

/// What a panel's vectors hold; the kernels' `W`.
pub(super) const F32: usize = 0;
/// 16 halves a step.
pub(super) const F16: usize = 1;
/// Two steps a vector: low and high words.
pub(super) const BF16: usize = 2;
/// Two k a step, activations too.
pub(super) const PAIRS: usize = 3;

/// Bytes of `steps` steps of a panel of these weights; `steps` is even for [`BF16`].
pub(super) const fn bytes_of(weights: usize, steps: usize) -> usize {
    match weights {
        F16 | BF16 => steps * VECTOR,
        _ => steps * 2 * VECTOR,
    }
}

/// Runs the kernel made for these weights and this tile.
///
/// # Safety
/// The pointers are to panels and to words of `padded` rows, with these steps.
pub(super) unsafe fn run(isa: Isa, weights: usize, padded: usize, tile: FloatsTile) {
    macro_rules! sizes {
        ($($rows:literal)*) => {
            match (padded, weights) {$(
                // SAFETY: the caller's promise.
                ($rows, F32) => unsafe { dispatch(isa, Sized::<$rows, F32>(tile)) },
                // SAFETY: the caller's promise.
                ($rows, F16) => unsafe { dispatch(isa, Sized::<$rows, F16>(tile)) },
                // SAFETY: the caller's promise.
                ($rows, BF16) => unsafe { dispatch(isa, Sized::<$rows, BF16>(tile)) },
                // SAFETY: the caller's promise.
                ($rows, PAIRS) => unsafe { dispatch_pairs(isa, Sized::<$rows, PAIRS>(tile)) },
            )*
                _ => unreachable!("tiles have padded sizes"),
            }
        };
    }
    sizes!(1 2 4 6 8 12);
}

struct Sized<const ROWS: usize, const W: usize>(FloatsTile);

impl<const ROWS: usize, const W: usize> Kernel for Sized<ROWS, W> {
    #[inline(always)]
    unsafe fn run<S: Wide>(self, s: S) {
        if ROWS > S::FLOAT_ROWS {
            unreachable!("tiles are cut for the instruction set");
        }
        let tile = self.0;
        let mut panel = 0;
        while panel < tile.out.panels {
            let left = tile.out.panels - panel;
            // SAFETY: the caller's promise: all panels are there.
            unsafe {
                if left >= 2 && 2 * ROWS <= S::SUMS {
                    panels::<S, ROWS, 2, W>(s, &tile, panel);
                    panel += 2;
                } else {
                    panels::<S, ROWS, 1, W>(s, &tile, panel);
                    panel += 1;
                }
            }
        }
    }
}

/// # Safety
/// `COUNT` panels from `first` on are there.
#[allow(clippy::needless_range_loop, reason = "one index into several arrays")]
#[inline(always)]
unsafe fn panels<S: Wide, const ROWS: usize, const COUNT: usize, const W: usize>(
    s: S,
    tile: &FloatsTile,
    first: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums: [[S::F; ROWS]; COUNT] = [[s.splat(0.0); ROWS]; COUNT];
        let mut at = [tile.panels; COUNT];
        for p in 0..COUNT {
            sums[p] = tile.out.begin(s, first + p);
            let (panel, half) = ((first + p) / 2, (first + p) % 2);
            let vector = if W == F16 { VECTOR / 2 } else { VECTOR };
            at[p] = tile.panels.add(panel * tile.panel_bytes + half * vector);
        }
        let mut step = 0;
        while step < tile.steps {
            let mut weights = [s.words(0); COUNT];
            let mut floats = [s.splat(0.0); COUNT];
            for p in 0..COUNT {
                let at = at[p].add(bytes_of(W, step));
                if tile.cold {
                    s.prefetch(at.wrapping_add(AHEAD));
                }
                match W {
                    F32 => floats[p] = s.load(at.cast()),
                    F16 => floats[p] = s.load_f16(at),
                    BF16 => {
                        weights[p] = s.bytes(at);
                        floats[p] = s.float(s.shl(weights[p], 16));
                    }
                    _ => weights[p] = s.bytes(at),
                }
            }
            let x = tile.x.add(step * ROWS);
            if W == PAIRS {
                for r in 0..ROWS {
                    let x = s.words(*x.add(r));
                    for p in 0..COUNT {
                        sums[p][r] = s.dot_pairs(sums[p][r], weights[p], x);
                    }
                }
                step += 1;
                continue;
            }
            add_step(s, &mut sums, &floats, x);
            step += 1;
            if W == BF16 && step < tile.steps {
                for p in 0..COUNT {
                    floats[p] = s.float(s.and(weights[p], 0xffff_0000));
                }
                add_step(s, &mut sums, &floats, x.add(ROWS));
                step += 1;
            }
        }
        for p in 0..COUNT {
            tile.out.end(s, first + p, sums[p]);
        }
    }
}

/// Adds one k of `COUNT` panels by `ROWS` activations.
///
/// # Safety
/// `ROWS` words are readable at `x`.
#[allow(clippy::needless_range_loop, reason = "one index into several arrays")]
#[inline(always)]
unsafe fn add_step<S: Wide, const ROWS: usize, const COUNT: usize>(
    s: S,
    sums: &mut [[S::F; ROWS]; COUNT],
    weights: &[S::F; COUNT],
    x: *const u32,
) {
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        let x = s.splat(unsafe { x.add(r).cast::<f32>().read() });
        for p in 0..COUNT {
            sums[p][r] = s.fma(weights[p], x, sums[p][r]);
        }
    }
}

/// Rows x k of weights as f32, for one task: on its stack, small enough for the first-level cache.
#[repr(align(64))]
pub(super) struct Widened(pub(super) [[f32; PANEL]; Widened::PANELS * Widened::STEPS]);

impl Widened {
    /// Panels at a time.
    pub(super) const PANELS: usize = 4;
    /// Elements of k at a time: a multiple of the group.
    pub(super) const STEPS: usize = 128;

    pub(super) fn zeroed() -> Self {
        Self(from_fn(|_| [0.0; PANEL]))
    }
}
