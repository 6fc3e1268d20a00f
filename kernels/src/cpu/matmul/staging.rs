//! Activations made ready for a product: 8-bit codes, f32, or pairs of bf16, in tiles.
//!
//! A tile is as many rows as a kernel keeps sums of in registers. Inside a tile the rows are
//! interleaved by step of k, so a kernel reads one stream. A tile is padded to a size that a
//! kernel exists for; padding rows hold old numbers, and their sums are thrown away.
//! A row's codes depend on that row only.

use half::bf16;

use super::wide::{Kernel, Wide, dispatch};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::Memory;
use crate::cpu::matrix::layout::GROUP;
use crate::cpu::pool::Pool;

/// Sizes of tiles that kernels exist for.
const SIZES: [usize; 7] = [1, 2, 4, 6, 8, 12, 16];
/// Below this an absolute maximum counts as zero: its reciprocal would overflow.
const TINY: f32 = 1e-30;

/// 32 activations of one row: `scale * code`. One cache line holds all that a kernel wants.
#[repr(C, align(64))]
pub(super) struct Block {
    /// Four codes to a word, in -127..=127.
    pub(super) codes: [u32; 8],
    /// Greatest absolute value / 127.
    pub(super) scale: f32,
    /// scale * sum of codes.
    pub(super) sum: f32,
    /// Minus the sum of codes.
    pub(super) negated: i32,
    /// `sum` of each half.
    pub(super) half_sums: [f32; 2],
    /// `negated` of each half.
    pub(super) half_negated: [i32; 2],
    /// Sum of codes.
    pub(super) total: f32,
}

/// How `rows` rows are cut into tiles of at most `max`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    rows: usize,
    max: usize,
}

/// One tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// Its first row.
    pub(super) first: usize,
    /// Its rows.
    pub(super) rows: usize,
    /// Rows with padding: one of [`SIZES`].
    pub(super) padded: usize,
}

impl Tiles {
    pub(super) fn new(rows: usize, max: usize) -> Self {
        Self { rows, max }
    }

    pub(super) fn rows(self) -> usize {
        self.rows
    }

    pub(super) fn count(self) -> usize {
        self.rows.div_ceil(self.max)
    }

    /// Rows with the padding of the last tile.
    pub(super) fn padded(self) -> usize {
        let last = self.get(self.count() - 1);
        last.first + last.padded
    }

    pub(super) fn get(self, tile: usize) -> Tile {
        let first = tile * self.max;
        let rows = self.max.min(self.rows - first);
        let padded = SIZES.into_iter().find(|&s| s >= rows).expect("tiles have at most 16 rows");
        Tile { first, rows, padded }
    }
}

/// What a kernel's activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`Block`]s of 32.
    Bytes,
    /// f32.
    Floats,
    /// f32 that are bf16.
    Rounded,
    /// Two bf16 to a word.
    Pairs,
}

impl Kind {
    /// Bytes of one step of one row, and steps of a row.
    pub(super) fn steps(self, cols: usize) -> (usize, usize) {
        match self {
            Self::Bytes => (size_of::<Block>(), cols / GROUP),
            Self::Floats | Self::Rounded => (4, cols),
            Self::Pairs => (4, cols.div_ceil(2)),
        }
    }
}

/// Bytes that hold any kind of activations.
pub(super) fn bytes_for(rows: usize, cols: usize) -> Option<usize> {
    rows.checked_next_multiple_of(48)?
        .checked_mul(cols.checked_next_multiple_of(GROUP)?)?
        .checked_mul(4)
}

/// Activations to be staged for a product.
#[derive(Clone, Copy)]
pub(super) struct Staging<'a> {
    /// `[rows, cols]`.
    pub(super) x: &'a [f32],
    pub(super) cols: usize,
    /// Which element of a row comes at each place; `None`: as they come.
    pub(super) order: Option<&'a [u32]>,
    pub(super) kind: Kind,
    pub(super) tiles: Tiles,
}

impl Staging<'_> {
    /// Writes all rows to `out`, which has [`bytes_for`] them.
    pub(super) fn run(&self, pool: &Pool, isa: Isa, out: &mut Memory) {
        let &Self { x, cols, order, kind, tiles } = self;
        assert!(bytes_for(tiles.rows, cols).is_some_and(|bytes| bytes <= out.len()), "scratch");
        let out = Target(out.as_mut_ptr());
        let (step, steps) = kind.steps(cols);
        // A few thousand elements at least per task, or waking a thread costs more than it saves.
        let rows_per_task = (8192 / cols).clamp(1, 16);
        pool.run(tiles.rows.div_ceil(rows_per_task), &|task, _| {
            for row in task * rows_per_task..tiles.rows.min((task + 1) * rows_per_task) {
                let tile = tiles.get(row / tiles.max);
                let out = out.at((tile.first * steps + row - tile.first) * step);
                let x = &x[row * cols..][..cols];
                // SAFETY: offsets stay inside `bytes_for`; each row has places of its own.
                unsafe { dispatch(isa, StageRow { x, order, kind, stride: tile.padded, out }) };
            }
        });
    }
}

/// Where staged activations go.
#[derive(Clone, Copy)]
pub(super) struct Target(pub(super) *mut u8);

// SAFETY: only an address; `stage` says who writes where.
unsafe impl Sync for Target {}

impl Target {
    pub(super) fn at(self, byte: usize) -> *mut u8 {
        self.0.wrapping_add(byte)
    }
}

/// Stages one row; its steps lie `stride` apart.
pub(super) struct StageRow<'a> {
    pub(super) x: &'a [f32],
    /// As in [`Staging`]; every entry is below the row's length.
    pub(super) order: Option<&'a [u32]>,
    pub(super) kind: Kind,
    pub(super) stride: usize,
    pub(super) out: *mut u8,
}

impl Kernel for StageRow<'_> {
    /// Plain code, compiled per instruction set.
    #[inline(always)]
    unsafe fn run<S: Wide>(self, _: S) {
        // SAFETY: the caller sized the target for `steps` steps of `stride`.
        unsafe {
            match (self.kind, self.order) {
                (Kind::Bytes, None) => {
                    for (g, x) in self.x.as_chunks::<GROUP>().0.iter().enumerate() {
                        self.block(g, x);
                    }
                }
                (Kind::Bytes, Some(order)) => {
                    for (g, order) in order.as_chunks::<GROUP>().0.iter().enumerate() {
                        self.block(g, &order.map(|k| self.x[k as usize]));
                    }
                }
                (_, None) => self.words(|k| self.x[k]),
                (_, Some(order)) => self.words(|k| self.x[order[k] as usize]),
            }
        }
    }
}

impl StageRow<'_> {
    /// # Safety
    /// The target has room for block `g`.
    #[inline(always)]
    unsafe fn block(&self, g: usize, x: &[f32; GROUP]) {
        // SAFETY: the caller's promise.
        unsafe { self.out.cast::<Block>().add(g * self.stride).write(quantize(x)) }
    }

    /// # Safety
    /// The target has room for the row.
    #[inline(always)]
    unsafe fn words(&self, x: impl Fn(usize) -> f32) {
        let (_, steps) = self.kind.steps(self.x.len());
        let words = self.out.cast::<u32>();
        let pair = |k: usize| {
            let high = if 2 * k + 1 < self.x.len() { bits(x(2 * k + 1)) } else { 0 };
            u32::from(bits(x(2 * k))) | u32::from(high) << 16
        };
        for k in 0..steps {
            let word = match self.kind {
                Kind::Rounded => u32::from(bits(x(k))) << 16,
                Kind::Pairs => pair(k),
                _ => x(k).to_bits(),
            };
            // SAFETY: the caller's promise.
            unsafe { words.add(k * self.stride).write(word) };
        }
    }
}

#[inline(always)]
fn bits(x: f32) -> u16 {
    bf16::from_f32(x).to_bits()
}

/// Nearest codes, ties to even; the same on every instruction set. A row with a NaN gets a NaN
/// scale, so the NaN reaches the output.
#[inline(always)]
fn quantize(x: &[f32; GROUP]) -> Block {
    // Magnitudes of f32 order like their bits, and a NaN is above all.
    let greatest = x.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
    let greatest = f32::from_bits(greatest);
    let (scale, inverse) =
        if greatest < TINY { (0.0, 0.0) } else { (greatest / 127.0, 127.0 / greatest) };
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let codes: [i8; GROUP] = std::array::from_fn(|i| {
        (x[i] * inverse + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i8
    });
    let sum = |codes: &[i8]| codes.iter().map(|&c| i32::from(c)).sum::<i32>();
    let halves = [sum(&codes[..GROUP / 2]), sum(&codes[GROUP / 2..])];
    let all = halves[0] + halves[1];
    let word = |j: usize| {
        let four = &codes[4 * j..4 * j + 4];
        u32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8])
    };
    Block {
        codes: std::array::from_fn(word),
        scale,
        sum: scale * all as f32,
        negated: -all,
        half_sums: [scale * halves[0] as f32, scale * halves[1] as f32],
        half_negated: [-halves[0], -halves[1]],
        total: all as f32,
    }
}

/// The activations that a product with quantized weights sees, for tests: `x` rounded to codes.
#[cfg(test)]
pub(super) fn rounded(x: &[f32]) -> Vec<f32> {
    let blocks = x.as_chunks::<GROUP>().0.iter().map(quantize);
    blocks
        .flat_map(|b| {
            let codes = b.codes.into_iter().flat_map(u32::to_le_bytes);
            codes.map(move |c| f32::from(c as i8) * b.scale).collect::<Vec<_>>()
        })
        .collect()
}
