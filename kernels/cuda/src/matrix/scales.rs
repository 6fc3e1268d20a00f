//! Scales and offsets of file rows into pairs of f16: the drawing at the head of [`super`].

use std::sync::atomic::{AtomicU32, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;
use kernels::codes::{self, GROUP, Scales};
use kernels::{Error, Format};

use super::known::{self, Job, Take};
use super::rows::{Row, RowBlock, Rows};
use super::size::{self, BLOCK};
use super::{Codes, Offset, check, threads};

/// A scale may lose so much of itself as f16: no more than bf16 keeps of a weight.
const LOSS: f32 = 1.0 / 512.0;
/// Above this f16 loses less than [`LOSS`] of a number.
const KEPT: f32 = 1.0 / 65536.0;

/// What is known of all scales of some rows.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// None is larger, those that are no finite number aside.
    most: f32,
    /// The one zero point of all.
    zero: Option<u16>,
}

/// Finds the factor, and whether one zero point serves all rows: then it is the bias.
///
/// # Errors
/// A zero point beyond what is computed with.
pub(super) fn refine(rows: &Rows<'_>, how: Codes) -> Result<Codes, Error> {
    let shares = threads::fold(rows.len, rows.bytes(), |range| {
        let mut all: Option<Found> = None;
        for row in range.filter_map(|row| rows.get(row)) {
            let found = of_row(row, how.offset == Offset::Zero)?;
            all = Some(all.map_or(found, |all| all.and(found)));
        }
        Ok(all)
    });
    let mut all: Option<Found> = None;
    for found in shares {
        all = found?.map(|found| all.map_or(found, |all| all.and(found))).or(all);
    }
    let Found { most, zero } = all.expect("a matrix has rows");
    let refined = Codes { factor: factor(most), ..how };
    Ok(match zero {
        Some(zero) => Codes { offset: Offset::None, bias: f32::from(zero), ..refined },
        None => refined,
    })
}

impl Found {
    fn and(self, other: Self) -> Self {
        let zero = self.zero.filter(|_| self.zero == other.zero);
        Self { most: self.most.max(other.most), zero }
    }
}

fn of_row(row: Row<'_>, zeros: bool) -> Result<Found, Error> {
    let bound = |most: f32, block| {
        let bound = codes::bound(row.format, block);
        if bound.is_finite() { most.max(bound) } else { most }
    };
    let most = row.blocks().fold(0.0, bound);
    let mut found = Found { most, zero: None };
    if zeros {
        let zero = |block: &[u8]| u16::from_le_bytes([block[4], block[5]]);
        let first = zero(row.bytes);
        for block in row.blocks() {
            check::zero_point(row.format, zero(block))?;
        }
        found.zero = Some(first).filter(|_| row.blocks().all(|block| zero(block) == first));
    }
    Ok(found)
}

/// The power of two by which `most` becomes 2^14..2^15, a power of two below f16's largest.
fn factor(most: f32) -> f32 {
    if most == 0.0 {
        return 1.0;
    }
    // Of numbers below f32's normal ones the exponent is no better than this.
    let exponent = (most.to_bits() >> 23) as i32 - 127;
    2_f32.powi((exponent - 14).clamp(-126, 127))
}

/// The smallest scale that f16 could not hold beside the largest.
#[derive(Debug)]
pub(super) struct Lost(AtomicU32);

impl Lost {
    pub(super) fn none() -> Self {
        Self(AtomicU32::new(f32::INFINITY.to_bits()))
    }

    /// Bits of positive numbers are in the order of the numbers.
    fn add(&self, scale: f32) {
        self.0.fetch_min(scale.abs().to_bits(), Ordering::Relaxed);
    }

    /// # Errors
    /// There is one.
    pub(super) fn check(&self, how: &Codes) -> Result<(), Error> {
        let least = f32::from_bits(self.0.load(Ordering::Relaxed));
        if least.is_infinite() {
            return Ok(());
        }
        let most = how.factor * 32768.0;
        Err(Error::Unsupported(format!(
            "scales from {least:e} to about {most:e} in one matrix: more than 16-bit floats span"
        )))
    }
}

/// Writes the scales of whole row blocks from `first` on.
pub(super) fn fill(rows: &Rows<'_>, how: &Codes, lost: &Lost, first: usize, out: &mut [u8]) {
    let (_, groups) = size::of_row(how, rows.cols);
    let floats = groups * BLOCK / 2 * size::entries(how);
    threads::fill(out, 2 * floats, |share, out| {
        let mut numbers = vec![0.0_f32; floats];
        let mut halves = vec![f16::ZERO; floats];
        for (i, out) in out.chunks_exact_mut(2 * floats).enumerate() {
            let rows = &rows.block(first + share + i);
            numbers.fill(0.0);
            known::dispatch(rows, Numbers { rows, how, out: &mut numbers });
            if numbers.iter().any(|&x| x != 0.0 && x.abs() < KEPT) {
                small(rows, how, lost, &mut numbers);
            }
            halves.convert_from_f32_slice(&numbers);
            out.copy_from_slice(bytemuck::cast_slice(&halves));
        }
    });
}

/// The numbers of a row block, in the order of their pairs.
struct Numbers<'a> {
    rows: &'a RowBlock<'a>,
    how: &'a Codes,
    out: &'a mut [f32],
}

/// Where the scale of row `r` of a block is for group `group`, and how far its offset.
fn place(how: &Codes, r: usize, group: usize) -> usize {
    (group * BLOCK / 2 + r % (BLOCK / 2)) * size::entries(how) + r / (BLOCK / 2)
}

impl Job for Numbers<'_> {
    #[inline(always)]
    fn run<T: Take>(self, take: T) {
        let Self { rows, how, out } = self;
        let inverse = 1.0 / how.factor;
        let of_offset = if how.offset == Offset::Minimum { inverse } else { 1.0 };
        let mut block_scales = Scales::ZERO;
        for (r, row) in rows.iter().enumerate() {
            let Some(row) = row else { continue };
            let format = take.of(row);
            let groups = format.block_len() / how.group;
            // `Tq1_0` and `Tq2_0` have one scale where kernels want two.
            let repeated = usize::from(matches!(format, Format::Tq1_0 | Format::Tq2_0));
            for (b, block) in row.bytes.chunks_exact(format.block_bytes()).enumerate() {
                codes::scales(format, block, &mut block_scales);
                for group in 0..groups {
                    let (at, from) = (place(how, r, b * groups + group), group >> repeated);
                    out[at] = block_scales.scales[from] * inverse;
                    if how.offset != Offset::None {
                        out[at + 2] = block_scales.offsets[from] * of_offset;
                    }
                }
            }
        }
    }
}

/// Some numbers are small beside the largest. Most often f16 holds them still, or nothing is
/// multiplied by them; what is lost is noted.
fn small(rows: &RowBlock<'_>, how: &Codes, lost: &Lost, numbers: &mut [f32]) {
    let loss = |x: f32| (f16::from_f32(x).to_f32() - x).abs();
    for (r, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let groups =
            row.bytes.len() / row.format.block_bytes() * row.format.block_len() / how.group;
        for group in 0..groups {
            let at = place(how, r, group);
            let scale = numbers[at];
            if loss(scale) > LOSS * scale.abs() {
                if silent(row, how, group) {
                    // As MXFP4 writes blocks of nothing.
                    numbers[at] = 0.0;
                } else {
                    lost.add(scale * how.factor);
                }
            }
            if how.offset == Offset::Minimum {
                let offset = numbers[at + 2];
                if loss(offset) > LOSS * offset.abs().max(scale.abs()) {
                    lost.add(offset * how.factor);
                }
            }
        }
    }
}

/// Whether all values of a group are 0, so that its scale says nothing.
fn silent(row: &Row<'_>, how: &Codes, group: usize) -> bool {
    let format = row.format;
    let (len, bytes) = (format.block_len(), format.block_bytes());
    let zero = |k: usize| {
        let block = &row.bytes[k / len * bytes..][..bytes];
        let code = codes::codes(format, block, k % len / GROUP)[k % GROUP];
        let value = how.table.map_or(f32::from(code), |table| table[usize::from(code)]);
        value == how.bias
    };
    how.offset != Offset::Zero && (group * how.group..(group + 1) * how.group).all(zero)
}
