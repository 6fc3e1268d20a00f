//! Products of quantized weights with 8-bit activations.
//!
//! Per group of 32 k: exact integer sums (8 byte dot products a row), then one multiply-add by
//! weight scale x activation scale into f32. A tile's sums stay in registers while the panel's
//! groups stream by, unpacked once a tile. Order of additions: groups of k, one after the other,
//! whatever the tile, so a row's numbers do not depend on the rows beside it.

use super::codes::{CODINGS, Coded, Scales};
use super::output::Output;
use super::staging::Block;
use super::wide::{Kernel, Wide, dispatch};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::coding::{Codes, Minimum};
use crate::cpu::matrix::layout::{GROUPS, VECTOR};

/// How far ahead of the codes in use to fetch, when they come from memory: about the latency of
/// memory times what one core streams.
const AHEAD: usize = 8192;

/// Panels of weights by one tile of activations over some groups of k.
#[derive(Clone, Copy)]
pub(super) struct BytesTile {
    /// The first panel.
    pub(super) panels: *const u8,
    /// Bytes of a panel.
    pub(super) panel_bytes: usize,
    /// How codes and scales lie in it.
    pub(super) codes: Codes,
    /// Groups of k, from the first of a super-block.
    pub(super) groups: (usize, usize),
    /// The weights come from memory: no tile has used them before.
    pub(super) cold: bool,
    /// The tile's blocks, from group 0.
    pub(super) x: *const Block,
    /// Where sums begin and go.
    pub(super) out: Output,
}

/// Runs the kernel made for this coding and tile.
///
/// # Safety
/// The pointers are to panels of these codes, and to blocks of `padded` rows, with these groups.
pub(super) unsafe fn run(isa: Isa, padded: usize, tile: BytesTile) {
    macro_rules! codings {
        ($($id:literal)*) => {
            match CODINGS.iter().position(|&c| c == tile.codes.coding) {
                // SAFETY: the caller's promise.
                $(Some($id) => unsafe { sized::<$id>(isa, padded, tile) },)*
                _ => unreachable!("all codings are listed"),
            }
        };
    }
    codings!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// # Safety
/// As [`run`].
unsafe fn sized<const C: usize>(isa: Isa, padded: usize, tile: BytesTile) {
    macro_rules! sizes {
        ($($rows:literal)*) => {
            match padded {
                // SAFETY: the caller's promise.
                $($rows => unsafe { dispatch(isa, Sized::<C, $rows>(tile)) },)*
                _ => unreachable!("tiles have padded sizes"),
            }
        };
    }
    sizes!(1 2 4 6 8 12 16);
}

struct Sized<const C: usize, const ROWS: usize>(BytesTile);

impl<const C: usize, const ROWS: usize> Kernel for Sized<C, ROWS> {
    #[inline(always)]
    unsafe fn run<S: Wide>(self, s: S) {
        if ROWS > S::BYTE_ROWS {
            unreachable!("tiles are cut for the instruction set");
        }
        let tile = self.0;
        let codes = &tile.codes;
        for panel in 0..tile.out.panels {
            // SAFETY: the caller's promise: all panels are there.
            unsafe {
                let start = tile.panels.add(panel * tile.panel_bytes);
                let mut sums: [S::F; ROWS] = tile.out.begin(s, panel);
                for first in (tile.groups.0..tile.groups.1).step_by(GROUPS) {
                    let block = start.add(first / GROUPS * codes.super_bytes());
                    if tile.cold {
                        fetch(s, block, codes.scale_bytes);
                    }
                    for g in 0..GROUPS.min(tile.groups.1 - first) {
                        if tile.cold {
                            let at = codes.scale_bytes + g * codes.group_bytes;
                            fetch(s, block.add(at), codes.group_bytes);
                        }
                        let scales = Coded::<C>::scales(s, codes, block, g);
                        let weights = Coded::<C>::unpack(s, codes, block, g);
                        let x = tile.x.add((first + g) * ROWS);
                        for (r, sum) in sums.iter_mut().enumerate() {
                            *sum = group::<S, C>(s, &weights, scales, &*x.add(r), *sum);
                        }
                    }
                }
                tile.out.end(s, panel, sums);
            }
        }
    }
}

/// Fetches the `bytes` that will be in use when these are done with.
#[inline(always)]
fn fetch<S: Wide>(s: S, at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(VECTOR) {
        s.prefetch(at.wrapping_add(AHEAD + line));
    }
}

/// `sum` and one group's products.
#[inline(always)]
fn group<S: Wide, const C: usize>(
    s: S,
    weights: &[S::I; 8],
    scales: Scales<S>,
    x: &Block,
    sum: S::F,
) -> S::F {
    let mut sum = sum;
    if Coded::<C>::HALVES {
        let mut low = Coded::<C>::start(s, x.half_negated[0]);
        let mut high = Coded::<C>::start(s, x.half_negated[1]);
        for j in 0..4 {
            low = Coded::<C>::dot(s, low, weights[j], s.words(x.codes[j]));
            high = Coded::<C>::dot(s, high, weights[j + 4], s.words(x.codes[j + 4]));
        }
        let both = s.mul(s.number(low), scales.scale[0]);
        let both = s.fma(s.number(high), scales.scale[1], both);
        sum = s.fma(both, s.splat(x.scale), sum);
        if Coded::<C>::MINIMUM == Minimum::Subtracted {
            sum = s.fnma(scales.minimum[0], s.splat(x.half_sums[0]), sum);
            sum = s.fnma(scales.minimum[1], s.splat(x.half_sums[1]), sum);
        }
        return sum;
    }
    let mut whole = Coded::<C>::start(s, x.negated);
    for (&w, &x) in weights.iter().zip(&x.codes) {
        whole = Coded::<C>::dot(s, whole, w, s.words(x));
    }
    let scale = s.mul(scales.scale[0], s.splat(x.scale));
    let mut whole = s.number(whole);
    if Coded::<C>::MINIMUM == Minimum::Zero {
        whole = s.fnma(scales.minimum[0], s.splat(x.total), whole);
    }
    sum = s.fma(whole, scale, sum);
    match Coded::<C>::MINIMUM {
        Minimum::None | Minimum::Zero => sum,
        Minimum::Added => s.fma(scales.minimum[0], s.splat(x.sum), sum),
        Minimum::Subtracted => s.fnma(scales.minimum[0], s.splat(x.sum), sum),
    }
}
