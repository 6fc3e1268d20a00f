//! Loading weights: every storage format, packed for the device and expanded again, against the
//! formats' definitions.

use std::ops::Range;

use half::f16;
use kernels::codes::{self, Scales};
use kernels::{Compute, Error, Format, Kept, MatrixPart, Precision, reference};

use super::{Bench, Numbers, Open, Outcome, PRECISIONS, config};
use crate::device::Cuda;
use crate::gpu::Gpu;
use crate::matrix::Matrix;
use crate::ops::expand::Expand;
use crate::record::Record;
use crate::tensor::{Kind, Tensor};

/// File bytes of a part: any codes, scales of ordinary size.
pub(super) fn stored(numbers: &mut Numbers, format: Format, rows: usize, cols: usize) -> Vec<u8> {
    let blocks = rows * cols / format.block_len();
    (0..blocks).flat_map(|_| block(numbers, format)).collect()
}

fn block(numbers: &mut Numbers, format: Format) -> Vec<u8> {
    use Format::{F8E4M3, F16, F32, Fp4, Iq1M, Mxfp4, Nf4, U2, U3, U4, U8};
    let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| numbers.bits() as u8).collect();
    let scale = numbers.unit() / 64.0;
    let put = |block: &mut [u8], at: usize, scale: f32| {
        block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    };
    match format {
        F32 => block.copy_from_slice(&numbers.unit().to_le_bytes()),
        F16 => put(&mut block, 0, numbers.unit()),
        Format::Bf16 => block.copy_from_slice(&half::bf16::from_f32(scale).to_le_bytes()),
        U2(_) | U3(_) | U4(_) | U8(_) => {
            block[..4].copy_from_slice(&scale.to_le_bytes());
            // Up to 256, which GPTQ's first layout has.
            block[4..8].copy_from_slice(&(numbers.bits() % 257).to_le_bytes());
        }
        F8E4M3(_) | Nf4 | Fp4 => {
            block[..4].copy_from_slice(&scale.to_le_bytes());
            for code in block[4..].iter_mut().filter(|code| **code & 0x7f == 0x7f) {
                *code ^= u8::from(matches!(format, F8E4M3(_)));
            }
        }
        Mxfp4 => block[0] = 118 + block[0] % 8,
        Iq1M => {
            // Four bits of the scale in each short.
            let bits = f16::from_f32(scale).to_bits();
            for i in 0..4 {
                block[49 + 2 * i] = block[49 + 2 * i] & 15 | ((bits >> (4 * i) & 15) << 4) as u8;
            }
        }
        _ => {
            let minimum = numbers.unit() / 64.0;
            for (at, value) in halves_at(format).iter().zip([scale, minimum]) {
                put(&mut block, *at, value);
            }
        }
    }
    block
}

/// Where a block keeps its f16 numbers.
fn halves_at(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        Format::Tq1_0 => &[52],
        Format::Tq2_0 => &[64],
        _ => &[0],
    }
}

/// The numbers of a file's rows, columns in stored order.
pub(super) fn numbers_of(format: Format, bytes: &[u8], cols: usize) -> Vec<f32> {
    let rows = bytes.chunks_exact(format.row_bytes(cols));
    let row = |bytes| {
        let mut out = vec![0.0; cols];
        reference::dequant::row(format, bytes, &mut out);
        out
    };
    rows.flat_map(row).collect()
}

/// What a weight is made of, in magnitude: what rounding scales may cost it is a share of this.
fn sizes_of(format: Format, bytes: &[u8], cols: usize) -> Vec<f32> {
    let mut sizes = numbers_of(format, bytes, cols);
    let Some(how) = codes::coding(format) else {
        return sizes;
    };
    let mut of = Scales::ZERO;
    for (i, size) in sizes.iter_mut().enumerate() {
        let (block, k) = (i / format.block_len(), i % format.block_len());
        codes::scales(format, &bytes[block * format.block_bytes()..], &mut of);
        if how.offset == codes::Offset::Minimum {
            let offset = of.offsets[k / how.group];
            *size = (*size + offset).abs() + offset.abs();
        }
    }
    sizes
}

/// A part of a case.
pub(super) struct File {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) order: Option<Vec<u32>>,
}

impl File {
    fn part(&self, cols: usize) -> MatrixPart<'_> {
        let Self { format, rows, ref bytes, ref order } = *self;
        MatrixPart { format, rows, cols, bytes, order: order.as_deref() }
    }
}

/// Files of these formats and rows.
pub(super) fn files(seed: u64, parts: &[(Format, usize)], cols: usize) -> Vec<File> {
    let mut numbers = Numbers::new(seed);
    let mut file = |&(format, rows): &(Format, usize)| {
        let bytes = stored(&mut numbers, format, rows, cols);
        File { format, rows, bytes, order: None }
    };
    parts.iter().map(&mut file).collect()
}

/// A matrix of these files.
pub(super) fn load<G: Gpu>(
    device: &mut Cuda<G>,
    files: &[File],
    cols: usize,
) -> Result<Matrix, Error> {
    let parts: Vec<MatrixPart<'_>> = files.iter().map(|file| file.part(cols)).collect();
    device.load_matrix(&parts)
}

/// Rows of a matrix, expanded; columns in stored order.
fn expanded<G: Gpu>(
    device: &mut Cuda<G>,
    matrix: &Matrix,
    rows: Range<usize>,
    kept: Kept,
) -> (Kind, Vec<f32>) {
    let cols = matrix.cols();
    let out: Tensor = device.blank(rows.len(), cols, kept);
    let expand = Expand::load(device.gpu()).expect("kernels");
    let mut record = Record::default();
    for part in &matrix.parts {
        let (from, to) = (rows.start.max(part.first), rows.end.min(part.first + part.rows));
        if from < to {
            let at = out.address + ((from - rows.start) * cols * out.kind.bytes()) as u64;
            let range = from - part.first..to - part.first;
            expand.rows(&mut record, part, cols, range, at, out.kind);
        }
    }
    record.queue(device.gpu());
    device.gpu().synchronize().expect("no fault");
    (out.kind, device.get(&out, rows.len()))
}

/// Greatest difference in units of what each weight is made of. Where numbers go through f16, one
/// below its normal numbers may be off by half of the last place.
fn worst(precision: Precision, got: &[f32], want: &[f32], sizes: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let least = if precision == Precision::Float16 { 2_f32.powi(-25) } else { 0.0 };
    let each = got.iter().zip(want).zip(sizes).map(|((got, want), size)| {
        let difference = (got - want).abs();
        let same = got == want || got.is_nan() && want.is_nan() || difference <= least;
        if same { 0.0 } else { (difference - least) / size.abs() }
    });
    each.fold(0.0, |a, b| if b.is_nan() || b > a { b } else { a })
}

/// What f16 scales may cost, and rounding to a tensor's own type.
fn limit(format: Format, kind: Kind, unit: f32) -> f32 {
    let scales = if codes::coding(format).is_some() { 1.0 / 1024.0 } else { 0.0 };
    // f16 weights under bf16 are rounded when they are loaded.
    scales + if kind == Kind::F32 && format != Format::F16 { 4.0 * f32::EPSILON } else { unit }
}

/// Rows that do and do not fill a row block.
const ROWS: [usize; 5] = [1, 5, 16, 17, 40];

fn one_format<G: Gpu>(
    devices: &mut [(Precision, f32, Cuda<G>)],
    format: Format,
    out: &mut Vec<Outcome>,
) {
    // Plain rows also of a length that no vector divides.
    let shortest = format.block_len().max(7);
    for (i, rows) in ROWS.into_iter().enumerate() {
        let (precision, unit, ref mut device) = devices[i % 3];
        let cols = shortest * [1, 3, 4, 2, 1][i];
        let files = files((rows * cols) as u64, &[(format, rows)], cols);
        let matrix = load(device, &files, cols).expect("it loads");
        let claimed = crate::matrix::matrix_bytes(format, rows, cols, precision);
        assert_eq!(matrix.bytes(), claimed, "{format:?}");
        let bytes = &files[0].bytes;
        let (want, sizes) = (numbers_of(format, bytes, cols), sizes_of(format, bytes, cols));
        for kept in [Kept::Exact, Kept::Rounded] {
            if kept == Kept::Rounded && precision == Precision::Float32 {
                continue;
            }
            let (kind, got) = expanded(device, &matrix, 0..rows, kept);
            let name = format!("load {} {rows}x{cols} as {kind:?}", format.name());
            let limit = limit(format, kind, unit);
            out.push(Outcome { name, error: worst(precision, &got, &want, &sizes), limit });
        }
    }
}

/// Neighbours that lie alike, or not; orders; rows out of the middle.
fn several_parts<G: Gpu>(open: Open<'_, G>, out: &mut Vec<Outcome>) {
    let cols = 256;
    let parts = [
        (Format::Q4_1, 5),
        (Format::Q4K, 20),
        (Format::Q5K, 9),
        (Format::F16, 3),
        (Format::Bf16, 4),
        (Format::Mxfp4, 17),
        (Format::F8E4M3(kernels::Group::G64), 6),
    ];
    let precision = Precision::Bfloat16;
    let mut device = open(config(precision, 64));
    let files = files(7, &parts, cols);
    let matrix = load(&mut device, &files, cols).expect("it loads");
    assert_eq!(matrix.parts.len(), 5, "two pairs of neighbours lie alike");
    let claimed = crate::matrix::parts_bytes(&parts, cols, precision);
    assert_eq!(matrix.bytes(), claimed);
    let all = |f: fn(Format, &[u8], usize) -> Vec<f32>| -> Vec<f32> {
        files.iter().flat_map(|file| f(file.format, &file.bytes, cols)).collect()
    };
    let (want, sizes) = (all(numbers_of), all(sizes_of));
    for rows in [0..64, 3..21, 24..26, 33..37, 7..8] {
        let (_, got) = expanded(&mut device, &matrix, rows.clone(), Kept::Exact);
        let range = rows.start * cols..rows.end * cols;
        let error = worst(precision, &got, &want[range.clone()], &sizes[range]);
        let name = format!("load parts, rows {rows:?}");
        out.push(Outcome { name, error, limit: 1.0 / 256.0 });
    }
}

/// What is odd about numbers, their format, the precision, and how they come about.
type Spoiled = (&'static str, Format, Precision, fn(&mut [u8]));

/// Numbers that decide on a layout: one scale a row, one zero point, codes of NaN, scales far
/// apart, bf16 beyond f16.
fn odd_numbers<G: Gpu>(open: Open<'_, G>, out: &mut Vec<Outcome>) {
    use kernels::Group::{G32, G64};
    let spoils: [Spoiled; 5] = [
        ("one scale a row", Format::F8E4M3(G32), Precision::Bfloat16, |bytes| {
            bytes.chunks_exact_mut(36).for_each(|block| block[..4].fill(0x3c));
        }),
        ("a code of NaN", Format::F8E4M3(G32), Precision::Bfloat16, |bytes| {
            bytes[36 * 5 + 4..36 * 6].fill(0xff);
        }),
        ("one zero point", Format::U4(G64), Precision::Float32, |bytes| {
            bytes.chunks_exact_mut(40).for_each(|block| block[4..6].copy_from_slice(&[8, 0]));
        }),
        ("a block of nothing", Format::Mxfp4, Precision::Float32, |bytes| bytes[..17].fill(0)),
        ("beyond f16", Format::Bf16, Precision::Float16, |bytes| {
            bytes[..2].copy_from_slice(&half::bf16::from_f32(1e9).to_le_bytes());
        }),
    ];
    for (what, format, precision, spoil) in spoils {
        let cols = 128;
        let mut device = open(config(precision, 64));
        let mut files = files(11, &[(format, 18)], cols);
        spoil(&mut files[0].bytes);
        let matrix = load(&mut device, &files, cols).expect("it loads");
        let bytes = &files[0].bytes;
        let (want, sizes) = (numbers_of(format, bytes, cols), sizes_of(format, bytes, cols));
        let (kind, got) = expanded(&mut device, &matrix, 0..18, Kept::Exact);
        let (error, limit) = (worst(precision, &got, &want, &sizes), limit(format, kind, 0.0));
        out.push(Outcome { name: format!("load {what}"), error, limit });
    }
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    let mut devices =
        PRECISIONS.map(|(precision, unit)| (precision, unit, open(config(precision, 64))));
    for format in Format::ALL {
        one_format(&mut devices, format, &mut out);
    }
    several_parts(open, &mut out);
    odd_numbers(open, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn numbers_are_those_of_the_file() {
        check(super::cases);
    }
}
