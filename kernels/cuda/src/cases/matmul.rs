//! Matrix products: every layout of weights by few and by many rows, in every precision.

use kernels::{Compute, Format, Group, Head, HeadBlocks, Kept, Precision};

use super::matrix::{File, files, load, numbers_of};
use super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::{Cuda, CudaConfig};
use crate::gpu::Gpu;
use crate::tensor::{Kind, Vector};

/// One format for each kernel, and what shares kernels but not sizes.
const FORMATS: [Format; 21] = [
    Format::F32,
    Format::F16,
    Format::Bf16,
    Format::F8E4M3(Group::G32),
    Format::F8E4M3(Group::G64),
    Format::F8E4M3(Group::G128),
    Format::Q4_0,
    Format::U4(Group::G32),
    Format::U4(Group::G64),
    Format::U4(Group::G128),
    Format::Q3K,
    Format::Q4_1,
    Format::Q2K,
    Format::Q4K,
    Format::Iq4Nl,
    Format::Iq2S,
    Format::Nf4,
    Format::Q8_0,
    Format::U8(Group::G128),
    Format::Q6K,
    Format::Q5_1,
];
/// Rows: each number of columns of an mma, full and not, and more than few.
const ROWS: [usize; 11] = [1, 2, 5, 8, 9, 16, 17, 33, 64, 100, 130];
/// Outputs: less than a row block, odd, more than a tile.
const OUTPUTS: [usize; 7] = [1, 5, 16, 17, 40, 130, 272];
/// Inputs: odd multiples of most formats' blocks.
const COLS: [usize; 6] = [32, 96, 160, 416, 1056, 256];
/// Products of a case at most: the reference takes a while for more.
const WORK: usize = 1 << 19;
/// Rows of the largest step, and its widest row.
const MOST: (usize, usize) = (130, 1056);

/// Rows from which on weights are expanded, at the earliest.
const FEW: usize = 16;
/// e4m3 with a scale a row: the weights that e4m3 is multiplied by.
const ONE_SCALE: &str = "one scale a row";

fn device_config(precision: Precision) -> CudaConfig {
    CudaConfig { width_max: MOST.1, ..config(precision, MOST.0) }
}

/// One product.
struct Case<'a> {
    name: String,
    rows: usize,
    cols: usize,
    files: &'a [File],
    /// Of x and of the result.
    kept: [Kept; 2],
    bias: bool,
    finish: Option<(f32, f32)>,
}

/// `out[r][o] = sum of w[o][k] * x[r][k]`, in f64.
fn multiply(x: &[f32], w: &[f32], cols: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| -> f64 {
        x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
    };
    let row = |x| w.chunks_exact(cols).map(move |w| dot(x, w) as f32);
    x.chunks_exact(cols).flat_map(row).collect()
}

/// Weights of some files as numbers, columns where x has them.
fn weights(files: &[File], cols: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for file in files {
        let stored = numbers_of(file.format, &file.bytes, cols);
        for row in stored.chunks_exact(cols) {
            let start = all.len();
            all.extend_from_slice(row);
            for (j, &to) in file.order.iter().flatten().enumerate() {
                all[start + to as usize] = row[j];
            }
        }
    }
    all
}

/// Where an error of 1 is the largest result: f16 scales are off by 2^-11 of themselves at most,
/// and with them a minimum that is taken off a larger sum. x is rounded alike here and there.
/// 16-bit numbers round the result, the entries of some tables, weights that are expanded, and
/// weights of other types.
fn limit(files: &[File], rows: usize, (precision, unit): (Precision, f32), out: Kind) -> f32 {
    let scales = files.iter().any(|file| file.format.is_quantized());
    let weights = files.iter().any(|file| match file.format {
        _ if precision == Precision::Float32 => false,
        Format::Nf4 | Format::U4(_) => true,
        Format::F16 => precision == Precision::Bfloat16,
        format => format.is_quantized() && rows > FEW,
    });
    // Zero points up to 256, which no real 4-bit code has, cost them one more.
    let zeros = weights && files.iter().any(|file| matches!(file.format, Format::U4(_)));
    // A library's results are rounded once before and once after bias and scale.
    let results = if out == Kind::F32 { 0 } else { 1 + usize::from(rows > FEW) };
    let rounded = results + usize::from(weights) + usize::from(zeros);
    // A sum of a thousand products in f32.
    32.0 * f32::EPSILON + if scales { 1.0 / 512.0 } else { 0.0 } + rounded as f32 * unit
}

/// x as it is multiplied: by f32 weights as it is.
fn operands(files: &[File], precision: Precision, x: Vec<f32>) -> Vec<f32> {
    let exact = files.iter().all(|file| file.format == Format::F32);
    if exact { x } else { all_rounded(Kind::of(Kept::Rounded, precision), &x) }
}

fn most(of: &[f32]) -> f32 {
    of.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()))
}

/// x as e4m3fn with a scale for each row, as numbers again.
fn as_f8(x: &[f32], cols: usize) -> Vec<f32> {
    // A scale of 1, then the codes in the order of their numbers.
    let block: Vec<u8> = 1.0_f32.to_le_bytes().into_iter().chain(0..128).collect();
    let numbers = numbers_of(Format::F8E4M3(Group::G128), &block, 128);
    let nearest = |x: f32| {
        let above = numbers[..127].partition_point(|&number| number < x.abs()).min(126);
        let below = above.saturating_sub(1);
        let (up, down) = (numbers[above] - x.abs(), x.abs() - numbers[below]);
        let even = if below % 2 == 0 { below } else { above };
        let code = if up == down {
            even
        } else if up < down {
            above
        } else {
            below
        };
        numbers[code].copysign(x)
    };
    let row = |row: &[f32]| -> Vec<f32> {
        let scale = most(row) / 448.0;
        row.iter().map(|x| nearest(x * (1.0 / scale)) * scale).collect()
    };
    x.chunks_exact(cols).flat_map(row).collect()
}

fn run<G: Gpu>(device: &mut Cuda<G>, how: (Precision, f32), case: &Case<'_>) -> Outcome {
    let &Case { ref name, rows, cols, files, kept, bias, finish } = case;
    let precision = how.0;
    let matrix = load(device, files, cols).expect("it loads");
    let outputs = matrix.rows();
    let mut numbers = Numbers::new((rows * cols + outputs) as u64);
    let x = all_rounded(Kind::of(kept[0], precision), &numbers.list(rows * cols, 1.0));
    let biases = if bias { numbers.list(outputs, 1.0) } else { vec![0.0; outputs] };
    let vector: Option<Vector> = bias.then(|| device.load_vector(&biases).expect("memory"));

    let from = device.put(rows, &x, kept[0]);
    let mut out = device.blank(rows, outputs, kept[1]);
    device.begin_rows(rows);
    match finish {
        Some((scale, cap)) => {
            let how = Head { bias: vector.as_ref(), scale, soft_cap: Some(cap) };
            device.logits(&from, rows, &matrix, &how, &mut out);
        }
        None => device.matmul(&from, &matrix, vector.as_ref(), &mut out),
    }
    device.finish();

    let got = device.get(&out, rows);
    let limit = limit(files, rows, how, out.kind);
    let name = format!("matmul {name} {rows}x{cols}x{outputs} {precision:?}");
    let outcome = |x: &[f32]| {
        let w = weights(files, cols);
        let mut want = multiply(x, &w, cols);
        want.iter_mut().enumerate().for_each(|(i, want)| *want += biases[i % outputs]);
        // An error of a sum is as large as sums are, capped or not: where there are few of them,
        // twice what is usual for numbers of these sizes.
        let norm = |all: &[f32]| all.iter().map(|x| x * x).sum::<f32>().sqrt();
        let usual = norm(x) * norm(&w) / ((rows * outputs * cols) as f32).sqrt();
        let size = most(&want).max(2.0 * usual);
        if let Some((scale, cap)) = finish {
            want.iter_mut().for_each(|want| *want = cap * (scale * *want / cap).tanh());
        }
        Outcome::of(name.clone(), &got, &want, size, limit)
    };
    let plain = outcome(&operands(files, precision, x.clone()));
    if plain.passed() || !name.contains(ONE_SCALE) {
        return plain;
    }
    // Where a device multiplies e4m3, x may have become that.
    outcome(&as_f8(&x, cols))
}

/// Every layout by every number of rows; outputs and inputs take turns.
fn layouts<G: Gpu>(
    device: &mut Cuda<G>,
    how: (Precision, f32),
    (formats, rows): (&[Format], &[usize]),
    out: &mut Vec<Outcome>,
) {
    // Each format meets other sizes.
    let mut turn = formats[0].block_bytes();
    for &format in formats {
        for &rows in rows {
            turn += 1;
            let (block, outputs) = (format.block_len(), OUTPUTS[turn % OUTPUTS.len()]);
            let cols = COLS[turn % COLS.len()].next_multiple_of(block).min(MOST.1 / block * block);
            let most = (WORK / rows / outputs).next_multiple_of(block);
            let cols = cols.min(most);
            let files = files(turn as u64, &[(format, outputs)], cols);
            // Now and then x has to be rounded first, or the result is not.
            let kept = match turn % 3 {
                0 => [Kept::Rounded, Kept::Rounded],
                1 => [Kept::Rounded, Kept::Exact],
                _ => [Kept::Exact, Kept::Rounded],
            };
            let finish = (turn % 4 == 0).then_some((0.5, 30.0));
            let name = format.name().to_owned();
            let bias = turn % 2 == 0;
            let case = Case { name, rows, cols, files: &files, kept, bias, finish };
            out.push(run(device, how, &case));
        }
    }
}

/// Parts of several layouts, an order of columns, one scale a row, rows of odd lengths.
fn odd_matrices<G: Gpu>(device: &mut Cuda<G>, how: (Precision, f32), out: &mut Vec<Outcome>) {
    let parts = [
        (Format::Q4_1, 21),
        (Format::Q4K, 20),
        (Format::Q8_0, 3),
        (Format::F32, 2),
        (Format::Bf16, 5),
        (Format::F8E4M3(Group::G64), 7),
    ];
    let kept = [Kept::Rounded, Kept::Rounded];
    let mut check = |name: &str, rows, cols, files: &[File]| {
        let name = name.to_owned();
        let case = Case { name, rows, cols, files, kept, bias: true, finish: None };
        out.push(run(device, how, &case));
    };
    for rows in [3, 12, 130] {
        check("parts", rows, 256, &files(5, &parts, 256));
        let mut ordered =
            files(6, &[(Format::U4(Group::G32), 19), (Format::U8(Group::G32), 6)], 96);
        ordered.push(files(7, &[(Format::U4(Group::G32), 9)], 96).remove(0));
        for file in &mut ordered[..2] {
            // 35 and 96 have no common factor.
            file.order = Some((0..96).map(|j| (j * 35 + 11) % 96).collect());
        }
        check("order", rows, 96, &ordered);
        let mut whole = files(8, &[(Format::F8E4M3(Group::G32), 48)], 96);
        for row in whole[0].bytes.chunks_exact_mut(3 * 36) {
            let scale = [row[0], row[1], row[2], 0x3c];
            row.chunks_exact_mut(36).for_each(|block| block[..4].copy_from_slice(&scale));
        }
        check(ONE_SCALE, rows, 96, &whole);
        check("odd rows of bf16", rows, 37, &files(9, &[(Format::Bf16, 18)], 37));
        check("half odd rows of bf16", rows, 44, &files(9, &[(Format::Bf16, 18)], 44));
    }
}

/// Formats and rows of the parts of a matrix.
type Parts = &'static [(Format, usize)];
/// Parts, heads, inputs of a head.
const HEADS: [(Parts, usize, usize); 7] = [
    (&[(Format::Bf16, 3 * 24)], 3, 40),
    (&[(Format::F32, 2 * 7)], 2, 13),
    (&[(Format::Q8_0, 4 * 16)], 4, 64),
    (&[(Format::Q4K, 3 * 10)], 3, 256),
    (&[(Format::F8E4M3(Group::G32), 2 * 9)], 2, 96),
    (&[(Format::Bf16, 20), (Format::Q4_0, 25), (Format::F32, 15)], 4, 64),
    (&[(Format::U4(Group::G32), 2 * 32)], 2, 32),
];

fn heads<G: Gpu>(device: &mut Cuda<G>, how: (Precision, f32), out: &mut Vec<Outcome>) {
    let (precision, unit) = how;
    for (turn, (parts, heads, cols)) in HEADS.into_iter().enumerate() {
        for rows in [1, 9, 70] {
            let mut files = files(turn as u64, parts, cols);
            if turn == 6 {
                files[0].order = Some((0..32).rev().collect());
            }
            let matrix = load(device, &files, cols).expect("it loads");
            let outputs = matrix.rows() / heads;
            let blocks = HeadBlocks { heads, x_stride: cols + 8, out_stride: outputs + 3 };
            let (x_width, out_width) = (heads * blocks.x_stride, heads * blocks.out_stride);
            let kept = if turn % 2 == 0 { Kept::Rounded } else { Kept::Exact };
            let kind = Kind::of(kept, precision);
            let x = all_rounded(kind, &Numbers::new(rows as u64).list(rows * x_width, 1.0));
            let from = device.put(rows, &x, kept);
            let mut to = device.blank(rows, out_width, Kept::Rounded);
            device.begin_rows(rows);
            device.heads_matmul(&from, &matrix, blocks, &mut to);
            device.finish();

            // What lies between the heads stays as it was: NaN.
            let mut want = vec![f32::NAN; rows * out_width];
            let (x, w) = (operands(&files, precision, x), weights(&files, cols));
            for head in 0..heads {
                let from = head * blocks.x_stride;
                let inputs = |x: &[f32]| x[from..from + cols].to_vec();
                let part: Vec<f32> = x.chunks_exact(x_width).flat_map(inputs).collect();
                let w = &w[head * outputs * cols..(head + 1) * outputs * cols];
                for (i, sums) in multiply(&part, w, cols).chunks_exact(outputs).enumerate() {
                    let at = i * out_width + head * blocks.out_stride;
                    want[at..at + outputs].copy_from_slice(sums);
                }
            }
            let limit = limit(&files, rows, (precision, unit), to.kind);
            let name = format!("heads_matmul {heads} of {parts:?} {rows}x{cols} {precision:?}");
            out.push(Outcome::of(name, &device.get(&to, rows), &want, most(&want), limit));
        }
    }
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for how in PRECISIONS {
        // In f32 there is one kernel for up to 8 rows and one for more.
        let rows = if how.0 == Precision::Float32 { &[1, 5, 9, 100][..] } else { &ROWS };
        // A device keeps what was loaded.
        for formats in FORMATS.chunks(5) {
            layouts(&mut open(device_config(how.0)), how, (formats, rows), &mut out);
        }
        let device = &mut open(device_config(how.0));
        odd_matrices(device, how, &mut out);
        heads(device, how, &mut out);
    }
    out
}

#[cfg(test)]
mod library;

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;
    use crate::emulator::Emulator;

    #[test]
    fn products_are_the_references() {
        check(cases);
    }

    /// Later cards multiply more rows as few, and e4m3; most have the vendor's library.
    #[test]
    fn with_a_library() {
        let formats = [Format::Bf16, Format::F16, Format::F32, Format::Q4_0, Format::Q4K];
        let mut out = Vec::new();
        for (capability, precision) in [(89, 1), (90, 2)] {
            let (precision, unit) = PRECISIONS[precision];
            let gpu = library::WithLibrary::new(Emulator::with(capability, 4, 5));
            let device = &mut Cuda::new(gpu, device_config(precision)).expect("a device");
            layouts(device, (precision, unit), (&formats, &[9, 33, 100, 130]), &mut out);
            odd_matrices(device, (precision, unit), &mut out);
            heads(device, (precision, unit), &mut out);
            assert!(device.gpu().products() > 20, "the library was asked");
            let f8 = device.gpu().f8_products();
            assert!(f8 > 0, "e4m3 was multiplied by e4m3");
        }
        let failed: Vec<_> = out.iter().filter(|outcome| !outcome.passed()).collect();
        assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), out.len());
    }
}
