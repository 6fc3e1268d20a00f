//! Products of routed rows, and their sums: `route`, `expert_matmul` of spread rows, another of
//! what that left, `combine`, in one step as a model has them.

use kernels::{Compute, Error, Format, Group, Kept, MatrixPart, Precision};

use super::super::matrix::{File, files, load, numbers_of};
use super::super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use super::{Chosen, plain, route};
use crate::device::Cuda;
use crate::gpu::Gpu;
use crate::matrix::Matrix;
use crate::ops::experts::Experts;
use crate::tensor::Kind;

/// A mixture: rows, how many of how many experts they choose, the first matrix, the second.
struct Case<'a> {
    rows: usize,
    top_k: usize,
    experts: usize,
    parts: &'a [(Format, usize)],
    cols: usize,
    second: Format,
    /// Every row chooses the last experts.
    crowded: bool,
    /// Columns are in an order, another for each expert.
    ordered: bool,
}

/// What rounding costs: of weights as they are kept, and of results as they are stored.
#[derive(Clone, Copy)]
struct Loss {
    weights: f32,
    results: f32,
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for (precision, unit) in PRECISIONS {
        for case in &shapes() {
            let mut device = open(config(precision, case.rows));
            out.extend(mixture(&mut device, (precision, unit), case));
        }
        let all = formats();
        for rows in [FEW, MANY] {
            let mut device = open(config(precision, rows));
            for case in all.iter().filter(|case| case.rows == rows) {
                out.extend(mixture(&mut device, (precision, unit), case));
            }
        }
    }
    out.push(nan_stays(open));
    out.push(refused(open));
    out
}

const BASE: Case<'_> = Case {
    rows: 1,
    top_k: 1,
    experts: 1,
    parts: &[(Format::Bf16, 16)],
    cols: 64,
    second: Format::F32,
    crowded: false,
    ordered: false,
};

/// Odd shapes; experts without rows; padded buckets; tiles that are not full.
fn shapes() -> Vec<Case<'static>> {
    use Format::{Bf16, F16, F32, Q4_0, Q4K, Q8_0};
    let mixed: &[(Format, usize)] = &[(Q4_0, 33), (Bf16, 20), (Q8_0, 11)];
    vec![
        Case { parts: &[(F32, 1)], cols: 7, ..BASE },
        Case { rows: 1, top_k: 2, experts: 8, parts: &[(Q8_0, 48)], cols: 96, ..BASE },
        Case { rows: 5, top_k: 3, experts: 3, parts: &[(F16, 35)], cols: 33, ..BASE },
        Case { rows: 3, top_k: 2, experts: 40, parts: &[(Bf16, 31)], cols: 72, ..BASE },
        Case { rows: 9, top_k: 8, experts: 16, parts: mixed, cols: 160, ..BASE },
        Case { rows: 70, top_k: 4, experts: 6, parts: mixed, cols: 96, second: Bf16, ..BASE },
        Case { rows: 35, top_k: 1, experts: 2, parts: &[(Q4K, 130)], cols: 256, ..BASE },
        Case { rows: 20, top_k: 2, experts: 64, parts: &[(Q8_0, 24)], crowded: true, ..BASE },
        Case { rows: 75, top_k: 1, experts: 3, parts: &[(Q8_0, 24)], crowded: true, ..BASE },
        Case { rows: 9, top_k: 2, experts: 4, parts: mixed, ordered: true, ..BASE },
    ]
}

/// Rows that are multiplied in small tiles, and in large ones.
const FEW: usize = 3;
const MANY: usize = 18;

/// Every layout, in small tiles and in large ones.
fn formats() -> Vec<Case<'static>> {
    use Format::{Bf16, F8E4M3, Iq2Xs, Iq4Nl, Nf4, Q2K, Q3K, Q4_0, Q4_1, Q5_1, Q6K, Q8_0, U4, U8};
    const PARTS: &[&[(Format, usize)]] = &[
        &[(Bf16, 40)],
        &[(F8E4M3(Group::G32), 40)],
        &[(F8E4M3(Group::G128), 40)],
        &[(Q3K, 40)],
        &[(Q4_0, 40)],
        &[(U4(Group::G128), 40)],
        &[(Q2K, 40)],
        &[(Q4_1, 40)],
        &[(Iq2Xs, 40)],
        &[(Iq4Nl, 40)],
        &[(Nf4, 40)],
        &[(Q6K, 40)],
        &[(Q8_0, 40)],
        &[(U8(Group::G64), 40)],
        &[(Q5_1, 40)],
    ];
    let both = |&parts: &&'static [(Format, usize)]| {
        let cols = parts[0].0.block_len().max(128);
        [
            Case { rows: FEW, top_k: 2, experts: 4, parts, cols, ..BASE },
            Case { rows: MANY, top_k: 1, experts: 1, parts, cols, ..BASE },
        ]
    };
    PARTS.iter().flat_map(both).collect()
}

/// The matrices of a case, on the device and as numbers.
struct Side {
    experts: Experts,
    /// `[out, in]` of each expert, columns in the order of the input.
    numbers: Vec<Vec<f32>>,
    formats: Vec<Format>,
}

impl Side {
    fn load<G: Gpu>(
        device: &mut Cuda<G>,
        case: &Case<'_>,
        (parts, cols, ordered): (&[(Format, usize)], usize, bool),
    ) -> Self {
        let mut matrices: Vec<Matrix> = Vec::new();
        let mut numbers = Vec::new();
        for expert in 0..case.experts {
            let mut all = files(17 + expert as u64, parts, cols);
            all.iter_mut().for_each(small_zeros);
            if ordered {
                let order = (0..cols).rev().map(|k| ((k + expert) % cols) as u32);
                all[0].order = Some(order.collect());
            }
            matrices.push(load(device, &all, cols).expect("a matrix"));
            numbers.push(all.iter().flat_map(|file| in_order(file, cols)).collect());
        }
        let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
        let experts = device.load_experts(matrices).expect("memory");
        // What they take, and a table of some bytes.
        let more = device.experts_bytes(&experts) - bytes;
        assert!((1..=4096 * parts.len()).contains(&more), "{more} bytes beside the matrices");
        Self { experts, numbers, formats: parts.iter().map(|part| part.0).collect() }
    }

    fn loss(&self, precision: Precision, unit: f32) -> Loss {
        let each = self.formats.iter().map(|format| match (format, precision) {
            (Format::F32 | Format::Bf16 | Format::F8E4M3(_), _)
            | (Format::F16, Precision::Float32 | Precision::Float16) => 0.0,
            (Format::F16, Precision::Bfloat16) => 1.0 / 256.0,
            // Levels that are no whole numbers are rounded, too.
            (Format::Nf4 | Format::Fp4, Precision::Bfloat16) => 1.0 / 200.0,
            // f16 scales.
            _ => 1.0 / 1024.0,
        });
        Loss { weights: each.fold(0.0, f32::max), results: unit }
    }
}

/// Zero points of 4-bit codes are codes, or one more: kernels rely on it.
fn small_zeros(file: &mut File) {
    if let Format::U4(_) = file.format {
        for block in file.bytes.chunks_mut(file.format.block_bytes()) {
            (block[4], block[5]) = (block[4] % 17, 0);
        }
    }
}

/// A file's numbers with columns in the order of the input.
fn in_order(file: &File, cols: usize) -> Vec<f32> {
    let stored = numbers_of(file.format, &file.bytes, cols);
    let Some(order) = &file.order else { return stored };
    let mut out = vec![0.0; stored.len()];
    for (row, stored) in out.chunks_mut(cols).zip(stored.chunks(cols)) {
        order.iter().zip(stored).for_each(|(&column, &value)| row[column as usize] = value);
    }
    out
}

fn mixture<G: Gpu>(
    device: &mut Cuda<G>,
    (precision, unit): (Precision, f32),
    case: &Case<'_>,
) -> Vec<Outcome> {
    let &Case { rows, top_k, experts, parts, cols, .. } = case;
    let (kind, routed) = (Kind::of(Kept::Rounded, precision), rows * top_k);
    let (wide, narrow) = (parts.iter().map(|p| p.1).sum(), 5);
    let first = Side::load(device, case, (parts, cols, case.ordered));
    let second = Side::load(device, case, (&[(case.second, narrow)], wide, false));
    let mut numbers = Numbers::new(7);
    let bias = numbers.list(experts * wide, 0.1);
    let on_device = device.load_vector(&bias).expect("memory");
    let mut logits = numbers.list(rows * experts, 1.0);
    if case.crowded {
        logits.chunks_mut(experts).for_each(|row| row[experts - top_k..].fill(20.0));
    }
    let values = all_rounded(kind, &numbers.list(rows * cols, 1.0));
    let x = device.put(rows, &values, Kept::Rounded);
    let mut inner = device.blank(routed, wide, Kept::Rounded);
    let mut given = device.blank(routed, narrow, Kept::Rounded);
    let mut sum = device.blank(rows, narrow, Kept::Rounded);
    let routes = route(device, (&logits, rows), &plain(top_k));
    device.expert_matmul(&x, &first.experts, Some(&on_device), &routes, true, &mut inner);
    device.expert_matmul(&inner, &second.experts, None, &routes, false, &mut given);
    device.combine(&given, &routes, &mut sum);
    device.finish();
    let chosen = Chosen::read(device, &routes, rows);
    assert!(chosen.in_order(top_k), "checked by the cases of choices");
    let [inner, given] = [&inner, &given].map(|x| device.get(x, routed));
    let sum = device.get(&sum, rows);

    let (crowded, ordered) = (case.crowded, case.ordered);
    let name = format!(
        "{rows} rows, {top_k} of {experts}, {parts:?} x {cols} {crowded} {ordered} {precision:?}"
    );
    let sources: Vec<f32> = chosen
        .sources
        .iter()
        .flat_map(|&row| values[row as usize * cols..][..cols].to_vec())
        .collect();
    let loss = first.loss(precision, unit);
    vec![
        check(
            format!("expert_matmul {name}"),
            &chosen,
            (&sources, &first),
            Some(&bias),
            &inner,
            loss,
        ),
        check(
            format!("expert_matmul, routed, {name}"),
            &chosen,
            (&inner, &second),
            None,
            &given,
            second.loss(precision, unit),
        ),
        check_sum(format!("combine {name}"), &chosen, top_k, &given, &sum, loss),
    ]
}

/// Each place's row is the product with its expert's matrix: differences in units of what may be
/// lost.
fn check(
    name: String,
    chosen: &Chosen,
    (x, side): (&[f32], &Side),
    bias: Option<&[f32]>,
    got: &[f32],
    loss: Loss,
) -> Outcome {
    let places: usize = chosen.tiles.iter().map(|tile| tile[2] as usize).sum();
    let (cols, width) = (x.len() / places, got.len() / places);
    let mut errors = Vec::with_capacity(got.len());
    for &[expert, first, places] in &chosen.tiles {
        let weights = &side.numbers[expert as usize];
        let bias = bias.map(|bias| &bias[expert as usize * width..][..width]);
        for place in first as usize..(first + places) as usize {
            let x = &x[place * cols..][..cols];
            for (o, weights) in weights.chunks(cols).enumerate() {
                let pairs = || weights.iter().zip(x).map(|(&w, &x)| (f64::from(w), f64::from(x)));
                let bias = bias.map_or(0.0, |bias| f64::from(bias[o]));
                let want = pairs().map(|(w, x)| w * x).sum::<f64>() + bias;
                // A minimum is rounded by itself: a weight is made of what its row's greatest is.
                let greatest = pairs().fold(0.0, |a: f64, (w, _)| a.max(w.abs()));
                let size = greatest * pairs().map(|(_, x)| x.abs()).sum::<f64>();
                let sums = f64::from(64.0 * f32::EPSILON + loss.weights);
                let allowed = f64::from(loss.results) * want.abs() + sums * (size + bias.abs());
                let error = (f64::from(got[place * width + o]) - want) / (allowed + 1e-7);
                errors.push(error as f32);
            }
        }
    }
    Outcome::of(name, &errors, &vec![0.0; errors.len()], 1.0, 1.0)
}

/// Rows are weighted sums of what their experts gave.
fn check_sum(
    name: String,
    chosen: &Chosen,
    top_k: usize,
    given: &[f32],
    got: &[f32],
    loss: Loss,
) -> Outcome {
    let width = given.len() / chosen.places.len();
    let mut errors = Vec::with_capacity(got.len());
    let rows = chosen.places.chunks(top_k).zip(chosen.weights.chunks(top_k));
    for ((places, weights), got) in rows.zip(got.chunks(width)) {
        for (i, &got) in got.iter().enumerate() {
            let (mut want, mut size) = (0.0, 0.0);
            for (&place, &weight) in places.iter().zip(weights) {
                let part = f64::from(weight) * f64::from(given[place as usize * width + i]);
                (want, size) = (want + part, size + part.abs());
            }
            let sums = 8.0 * f64::from(f32::EPSILON) * size;
            let allowed = f64::from(loss.results) * want.abs() + sums + 1e-7;
            errors.push(((f64::from(got) - want) / allowed) as f32);
        }
    }
    Outcome::of(name, &errors, &vec![0.0; errors.len()], 1.0, 1.0)
}

/// A NaN among the logits reaches the output of its row only.
fn nan_stays<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let mut device = open(config(Precision::Float32, 2));
    let case = Case { rows: 2, top_k: 2, experts: 4, ..BASE };
    let side = Side::load(&mut device, &case, (&[(Format::F32, 6)], 8, false));
    let mut numbers = Numbers::new(3);
    let mut logits = numbers.list(8, 1.0);
    logits[6] = f32::NAN;
    let x = device.put(2, &numbers.list(16, 1.0), Kept::Rounded);
    let (mut out, mut sum) = (device.blank(4, 6, Kept::Rounded), device.blank(2, 6, Kept::Rounded));
    let routes = route(&mut device, (&logits, 2), &plain(2));
    device.expert_matmul(&x, &side.experts, None, &routes, true, &mut out);
    device.combine(&out, &routes, &mut sum);
    device.finish();
    let lost: Vec<f32> =
        device.get(&sum, 2).iter().map(|x| f32::from(u8::from(x.is_nan()))).collect();
    let want: Vec<f32> = (0..12).map(|i| f32::from(u8::from(i >= 6))).collect();
    Outcome::of("combine, a NaN among the logits".into(), &lost, &want, 1.0, 0.0)
}

/// Experts that do not lie alike are refused by name.
fn refused<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let mut device = open(config(Precision::Bfloat16, 1));
    let bytes = vec![0; 4 * 16 * 64];
    let mut matrix = |format: Format| {
        let bytes = &bytes[..16 * format.row_bytes(64)];
        device.load_matrix(&[MatrixPart { format, rows: 16, cols: 64, bytes, order: None }])
    };
    let matrices = [Format::Bf16, Format::Q8_0].map(|format| matrix(format).expect("a matrix"));
    let joined = device.load_experts(matrices.into());
    let named = matches!(joined, Err(Error::Unsupported(text)) if text.contains("number 1"));
    let failed = f32::from(u8::from(!named));
    Outcome::of("experts in several formats are refused".into(), &[failed], &[0.0], 1.0, 0.0)
}
