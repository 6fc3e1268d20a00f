//! Codes of file rows into tiles, in the order in which lanes of a warp read them: the drawing at
//! the head of [`super`].

use kernels::codes::{self, GROUP};

use super::known::{self, Job, Take};
use super::rows::{Row, RowBlock, Rows};
use super::size::{self, BLOCK, TILE};
use super::{Codes, threads};

/// Writes whole row blocks from `first` on.
pub(super) fn fill(rows: &Rows<'_>, how: &Codes, first: usize, out: &mut [u8]) {
    let (tiles, _) = size::of_row(how, rows.cols);
    threads::fill(out, tiles * TILE, |share, out| {
        for (i, out) in out.chunks_exact_mut(tiles * TILE).enumerate() {
            let rows = &rows.block(first + share + i);
            if how.bits == 4 {
                known::dispatch(rows, Tiles::<4> { rows, out });
            } else {
                known::dispatch(rows, Tiles::<8> { rows, out });
            }
        }
    });
}

/// The tiles of a row block, of codes of so many bits.
struct Tiles<'a, const BITS: usize> {
    rows: &'a RowBlock<'a>,
    out: &'a mut [u8],
}

impl<const BITS: usize> Job for Tiles<'_, BITS> {
    fn run<T: Take>(self, take: T) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { wide(self, take) };
        }
        pack(self, take);
    }
}

/// [`pack`] in wider vectors.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn wide<T: Take, const BITS: usize>(tiles: Tiles<'_, BITS>, take: T) {
    pack(tiles, take);
}

#[inline(always)]
fn pack<T: Take, const BITS: usize>(tiles: Tiles<'_, BITS>, take: T) {
    let Tiles { rows, out } = tiles;
    // Pairs of rows one by one: two streams of a file, and what is written stays near.
    for g in 0..BLOCK / 2 {
        let [low, high] = [&rows[g], &rows[g + BLOCK / 2]];
        for (tile, out) in out.chunks_exact_mut(TILE).enumerate() {
            // The 64 bytes that the lanes 4 g..4 g + 4 own.
            let out = &mut out[64 * g..][..64];
            if BITS == 4 {
                let low = [group(take, low, 2 * tile), group(take, low, 2 * tile + 1)];
                let high = [group(take, high, 2 * tile), group(take, high, 2 * tile + 1)];
                nibbles(low, high, out);
            } else {
                bytes(group(take, low, tile), group(take, high, tile), out);
            }
        }
    }
}

/// Codes of group `group` of a row; 0 where there is none.
#[inline(always)]
fn group<T: Take>(take: T, row: &Option<Row<'_>>, group: usize) -> [u8; GROUP] {
    let Some(row) = row else { return [0; GROUP] };
    let format = take.of(row);
    let (groups, bytes) = (format.block_len() / GROUP, format.block_bytes());
    let at = group / groups * bytes;
    match row.bytes.get(at..at + bytes) {
        Some(block) => codes::codes(format, block, group % groups),
        None => [0; GROUP],
    }
}

/// 64 codes of rows g and g + 8: four k of both are a word, word s of lane t is for k
/// 16 s + 4 t.
#[inline(always)]
fn nibbles(low: [[u8; GROUP]; 2], high: [[u8; GROUP]; 2], out: &mut [u8]) {
    let mut words = [0_u32; 16];
    for half in 0..2 {
        let fours = low[half].as_chunks::<4>().0.iter().zip(high[half].as_chunks::<4>().0);
        for (word, (low, high)) in words[8 * half..].iter_mut().zip(fours) {
            let both = u32::from_le_bytes(*low) | u32::from_le_bytes(*high) << 4;
            // Nibbles j and j + 4 are neighbours in k: the middle bytes change places.
            *word = both & 0xff00_00ff | (both & 0xff00) << 8 | both >> 8 & 0xff00;
        }
    }
    for t in 0..4 {
        for s in 0..4 {
            let word = words[4 * s + t].to_le_bytes();
            out[16 * t + 4 * s..][..4].copy_from_slice(&word);
        }
    }
}

/// 32 codes of rows g and g + 8: words 2 s and 2 s + 1 of lane t are for k 16 s + 4 t, two k of
/// either row in each.
#[inline(always)]
fn bytes(low: [u8; GROUP], high: [u8; GROUP], out: &mut [u8]) {
    let fours = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<4>().0);
    for (i, ([a, b, c, d], [e, f, g, h])) in fours.enumerate() {
        let (s, t) = (i / 4, i % 4);
        out[16 * t + 8 * s..][..8].copy_from_slice(&[*a, *b, *e, *f, *c, *d, *g, *h]);
    }
}
