//! Codes of file rows into the bit planes of a panel.
//!
//! Loading a model is mostly this, so it is compiled per instruction set, and once more for each of
//! the formats that most files are in: with the format known, taking a block apart is a few vector
//! instructions.

use super::super::coding::Codes;
use super::super::layout::{GROUP, PANEL, VECTOR};
use crate::Format;
use crate::codes::blocks;
use crate::cpu::isa::Isa;
use crate::cpu::lanes::{Kernel, Lanes, dispatch};

/// Formats with code of their own.
const COMMON: [Format; 8] = [
    Format::Q4_0,
    Format::Q8_0,
    Format::Q2K,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Mxfp4,
];

/// Rows of a panel, as a file holds them.
pub(super) struct Rows<'a> {
    pub(super) format: Format,
    pub(super) cols: usize,
    /// Rows that are there, one after the other.
    pub(super) bytes: &'a [u8],
}

/// Fills the codes of a panel.
pub(super) fn codes(isa: Isa, rows: Rows<'_>, coded: &Codes, panel: &mut [u8]) {
    macro_rules! common {
        ($($at:literal => $bits:literal),*) => {
            match (COMMON.iter().position(|&f| f == rows.format), coded.group_bytes / VECTOR) {
                $((Some($at), _) => {
                    dispatch(isa, Job::<_, $bits> { take: Common::<$at>, rows, coded, panel });
                })*
                // A third bit that eight codes share is kept with the scales.
                (_, 2) => dispatch(isa, Job::<_, 2> { take: Any(rows.format), rows, coded, panel }),
                (_, 3) => dispatch(isa, Job::<_, 3> { take: Any(rows.format), rows, coded, panel }),
                (_, 4) => dispatch(isa, Job::<_, 4> { take: Any(rows.format), rows, coded, panel }),
                (_, 5) => dispatch(isa, Job::<_, 5> { take: Any(rows.format), rows, coded, panel }),
                (_, 6) => dispatch(isa, Job::<_, 6> { take: Any(rows.format), rows, coded, panel }),
                _ => dispatch(isa, Job::<_, 8> { take: Any(rows.format), rows, coded, panel }),
            }
        };
    }
    common!(0 => 4, 1 => 8, 2 => 2, 3 => 3, 4 => 4, 5 => 5, 6 => 6, 7 => 4);
}

/// Takes a group's codes out of a block.
trait Take: Copy {
    fn codes(self, block: &[u8], group: usize) -> [u8; GROUP];
}

/// A format that the compiler knows.
#[derive(Clone, Copy)]
struct Common<const F: usize>;

impl<const F: usize> Take for Common<F> {
    #[inline(always)]
    fn codes(self, block: &[u8], group: usize) -> [u8; GROUP] {
        blocks::codes(COMMON[F], block, group)
    }
}

/// Any other.
#[derive(Clone, Copy)]
struct Any(Format);

impl Take for Any {
    #[inline(always)]
    fn codes(self, block: &[u8], group: usize) -> [u8; GROUP] {
        blocks::codes(self.0, block, group)
    }
}

struct Job<'a, T, const BITS: usize> {
    take: T,
    rows: Rows<'a>,
    coded: &'a Codes,
    panel: &'a mut [u8],
}

/// One 64-byte vector: 4 codes of each of the 16 rows.
type Words = [u32; PANEL];

impl<T: Take, const BITS: usize> Kernel for Job<'_, T, BITS> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, _: S) {
        let Self { take, rows, coded, panel } = self;
        let (block_bytes, groups) = (rows.format.block_bytes(), rows.format.block_len() / GROUP);
        let row_bytes = rows.format.row_bytes(rows.cols);
        for g in 0..rows.cols / GROUP {
            let out = &mut panel[coded.codes_at(g)..][..BITS * VECTOR];
            let at = g / groups * block_bytes;
            let mut vectors: [Words; 8] = [[0; PANEL]; 8];
            for (r, row) in rows.bytes.chunks_exact(row_bytes).enumerate() {
                let codes = take.codes(&row[at..at + block_bytes], g % groups);
                for (vector, four) in vectors.iter_mut().zip(codes.as_chunks::<4>().0) {
                    vector[r % PANEL] = u32::from_le_bytes(*four);
                }
            }
            planes::<BITS>(&vectors, out);
        }
    }
}

/// Splits codes into their bit planes: 8 bits are one plane; fewer are made of planes of 4, 2 and
/// 1, lowest bits in the widest.
#[inline(always)]
fn planes<const BITS: usize>(vectors: &[Words; 8], out: &mut [u8]) {
    let (mut out, mut shift) = (out, 0);
    for plane in [8, 4, 2, 1] {
        if BITS & plane == 0 {
            continue;
        }
        let (here, rest) = out.split_at_mut(plane * VECTOR);
        let mask = 0x0101_0101 * ((1_u32 << plane) - 1);
        for (v, vector) in here.chunks_exact_mut(VECTOR).enumerate() {
            for (lane, word) in vector.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let mut packed = 0;
                // Vectors that share these bytes: v, v + plane, ... for nibbles; neighbours else.
                for i in 0..8 / plane {
                    let j = if plane == 4 { v + 4 * i } else { 8 / plane * v + i };
                    packed |= (vectors[j][lane] >> shift & mask) << (plane * i);
                }
                *word = packed.to_le_bytes();
            }
        }
        (out, shift) = (rest, shift + plane);
    }
}
