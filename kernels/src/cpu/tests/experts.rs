//! Routing against the plain loops; routed and block-diagonal products against products of whole
//! matrices, bit for bit: what a row gets must not depend on how rows were grouped.

use super::{Numbers, assert_near, begin, isas, tensor};
use crate::compute::{
    Compute, HeadBlocks, Kept, MatrixPart, Precision, Router, RouterGroups, RouterScore,
};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::Matrix;
use crate::cpu::{Cpu, CpuConfig, Routes, Tensor};
use crate::format::Format;
use crate::reference::experts::{Choice, route};

const PRECISIONS: [Precision; 3] = [Precision::Float32, Precision::Bfloat16, Precision::Float16];

fn cpu(isa: Isa, precision: Precision, threads: usize, rows_max: usize) -> Cpu {
    let (slots, context_max, vocab) = (1, 16, 8);
    Cpu::new(CpuConfig { threads, precision, rows_max, slots, context_max, vocab, isa })
}

pub(crate) fn plain(top_k: usize) -> Choice {
    Choice {
        top_k,
        score: RouterScore::Softmax,
        correction: None,
        groups: None,
        normalise: false,
        scale: 1.0,
    }
}

/// Routes rows of `logits` on a device.
pub(crate) fn routes_of(cpu: &mut Cpu, logits: &[f32], experts: usize, how: &Choice) -> Routes {
    let rows = logits.len() / experts;
    let mut routes = cpu.routes(rows, how.top_k, experts).expect("memory");
    let logits = tensor(cpu, rows, logits);
    let correction = how.correction.as_ref().map(|c| cpu.load_vector(c).expect("memory"));
    begin(cpu, rows);
    let router = Router {
        top_k: how.top_k,
        score: how.score,
        correction: correction.as_ref(),
        groups: how.groups,
        normalise: how.normalise,
        scale: how.scale,
    };
    cpu.route(&logits, &router, &mut routes);
    routes
}

fn check_route(isa: Isa, logits: &[f32], experts: usize, how: &Choice) {
    let mut cpu = cpu(isa, Precision::Float32, 2, logits.len() / experts);
    let routes = routes_of(&mut cpu, logits, experts, how);
    let mut places = vec![false; routes.routed()];
    for (row, logits) in logits.chunks(experts).enumerate() {
        let want = route(logits, how);
        let got: Vec<_> = routes.of_row(row).collect();
        let ids = |(expert, _, _): &(usize, f32, usize)| *expert;
        let wanted: Vec<_> = want.iter().map(|w| w.0).collect();
        assert_eq!(got.iter().map(ids).collect::<Vec<_>>(), wanted, "{how:?} row {row}");
        for (&(_, weight, place), (_, want)) in got.iter().zip(want) {
            assert_near("weight", &[weight], &[want as f32], 1e-6, 16.0);
            assert!(!std::mem::replace(&mut places[place], true), "two rows at {place}");
        }
    }
    // Sorted by expert, rows in order.
    let mut order: Vec<_> = (0..logits.len() / experts)
        .flat_map(|row| routes.of_row(row).map(move |(expert, _, place)| (place, expert, row)))
        .collect();
    order.sort_unstable();
    assert!(order.is_sorted_by_key(|&(_, expert, row)| (expert, row)));
}

#[test]
fn rows_choose_as_the_reference_does() {
    let groups = |count, kept, two_best| Some(RouterGroups { count, kept, two_best });
    let shapes = [(1, 1, 1), (3, 8, 2), (5, 8, 8), (2, 33, 4), (70, 128, 8), (9, 256, 8)];
    for (i, (rows, experts, top_k)) in shapes.into_iter().enumerate() {
        let mut numbers = Numbers::new(i as u64);
        let logits = numbers.list(rows * experts, 2.0);
        // Large enough to make many keys negative.
        let correction = numbers.list(experts, 0.5);
        let mut cases = vec![plain(top_k)];
        for score in [RouterScore::Softmax, RouterScore::Sigmoid] {
            cases.push(Choice { score, normalise: true, scale: 2.5, ..plain(top_k) });
            let corrected = Choice { score, correction: Some(correction.clone()), ..plain(top_k) };
            cases.push(corrected.clone());
            if experts % 8 == 0 && experts > 8 {
                let (one, two) = (groups(8, 3, false), groups(8, 4, true));
                cases.push(Choice { score, groups: one, normalise: true, ..plain(top_k) });
                cases.push(Choice { groups: two, scale: 16.0, ..corrected.clone() });
                cases.push(Choice { groups: groups(8, 8, true), ..corrected.clone() });
                cases.push(Choice { groups: groups(1, 1, true), ..corrected });
            }
        }
        for how in cases {
            isas().into_iter().for_each(|isa| check_route(isa, &logits, experts, &how));
        }
    }
}

#[test]
fn ties_go_to_the_smaller_number() {
    let (score, groups) =
        (RouterScore::Sigmoid, RouterGroups { count: 4, kept: 2, two_best: true });
    let grouped = Choice { score, groups: Some(groups), ..plain(3) };
    let mut logits = vec![0.5; 16];
    for isa in isas() {
        check_route(isa, &logits, 16, &plain(3));
        check_route(isa, &logits, 16, &grouped);
    }
    (logits[9], logits[15]) = (0.75, 0.75);
    let mut cpu = cpu(Isa::detect(), Precision::Float32, 1, 1);
    let routes = routes_of(&mut cpu, &logits, 16, &grouped);
    assert_eq!(routes.of_row(0).map(|e| e.0).collect::<Vec<_>>(), [9, 15, 8]);
}

#[test]
fn no_expert_of_a_group_that_was_not_kept_is_chosen_however_low_the_rest_are() {
    // Group 1 has the best sum; its others are negative and below all of group 0.
    let correction = vec![0.0, 0.0, 0.0, 0.0, 9.0, 9.0, -9.0, -9.0];
    let groups = Some(RouterGroups { count: 2, kept: 1, two_best: true });
    let how = Choice { correction: Some(correction), groups, ..plain(4) };
    let mut cpu = cpu(Isa::detect(), Precision::Float32, 1, 1);
    let routes = routes_of(&mut cpu, &[0.0; 8], 8, &how);
    assert_eq!(routes.of_row(0).map(|e| e.0).collect::<Vec<_>>(), [4, 5, 6, 7]);
}

#[test]
fn a_row_with_a_nan_gets_nan_weights_and_no_other_row_does() {
    for isa in isas() {
        for score in [RouterScore::Softmax, RouterScore::Sigmoid] {
            let mut logits = Numbers::new(4).list(3 * 24, 1.0);
            logits[24 + 17] = f32::NAN;
            let how = Choice { score, normalise: true, ..plain(2) };
            let mut cpu = cpu(isa, Precision::Float32, 1, 3);
            let routes = routes_of(&mut cpu, &logits, 24, &how);
            for row in 0..3 {
                assert!(routes.of_row(row).all(|(_, w, _)| w.is_nan() == (row == 1)), "{score:?}");
            }
            let all = vec![f32::NAN; 24];
            let routes = routes_of(&mut cpu, &all, 24, &how);
            assert!(routes.of_row(0).all(|(_, weight, _)| weight.is_nan()));
        }
    }
}

/// File bytes of plausible weights.
fn weights(numbers: &mut Numbers, format: Format, elements: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..elements / format.block_len() {
        let x = numbers.unit();
        match format {
            Format::F32 => bytes.extend(x.to_le_bytes()),
            Format::F16 => bytes.extend(half::f16::from_f32(x).to_le_bytes()),
            Format::Bf16 => bytes.extend(half::bf16::from_f32(x).to_le_bytes()),
            Format::Q8_0 => {
                bytes.extend(half::f16::from_f32(x / 64.0).to_le_bytes());
                bytes.extend((0..32).map(|_| numbers.bits() as u8));
            }
            Format::Q4K => {
                bytes.extend(half::f16::from_f32(x / 64.0).to_le_bytes());
                bytes.extend(half::f16::from_f32(x / 32.0).to_le_bytes());
                bytes.extend((0..140).map(|_| numbers.bits() as u8));
            }
            _ => unreachable!("not used here"),
        }
    }
    bytes
}

/// A matrix of parts of these formats.
pub(crate) fn matrix(
    cpu: &mut Cpu,
    numbers: &mut Numbers,
    parts: &[(Format, usize)],
    cols: usize,
) -> Matrix {
    ordered_matrix(cpu, numbers, parts, cols, None)
}

/// The same; the columns of the first part are in this order.
fn ordered_matrix(
    cpu: &mut Cpu,
    numbers: &mut Numbers,
    parts: &[(Format, usize)],
    cols: usize,
    order: Option<&[u32]>,
) -> Matrix {
    let bytes: Vec<_> = parts.iter().map(|&(f, n)| weights(numbers, f, n * cols)).collect();
    let part = |(i, bytes)| {
        let ((format, rows), order) = (parts[i], order.filter(|_| i == 0));
        let bytes: &Vec<u8> = bytes;
        MatrixPart { format, rows, cols, bytes, order }
    };
    let parts: Vec<_> = bytes.iter().enumerate().map(part).collect();
    cpu.load_matrix(&parts).expect("a matrix")
}

/// `rows` rows of a product with a whole matrix.
fn dense(cpu: &mut Cpu, x: &Tensor, rows: usize, w: &Matrix, bias: &[f32]) -> Vec<f32> {
    let bias = cpu.load_vector(bias).expect("memory");
    let mut out = cpu.tensor(rows, w.rows(), Kept::Exact).expect("memory");
    begin(cpu, rows);
    cpu.matmul(x, w, Some(&bias), &mut out);
    out.first(rows).to_vec()
}

struct Case<'a> {
    rows: usize,
    top_k: usize,
    experts: usize,
    parts: &'a [(Format, usize)],
    cols: usize,
    /// Columns of the first part are in an order, another for each expert.
    ordered: bool,
}

/// Each routed row is the row of a product with all of its expert's matrix.
fn check_products(isa: Isa, precision: Precision, threads: usize, case: &Case<'_>) {
    let &Case { rows, top_k, experts, parts, cols, ordered } = case;
    let out_width: usize = parts.iter().map(|p| p.1).sum();
    let (mut numbers, routed) = (Numbers::new(7), rows * top_k);
    let mut cpu = cpu(isa, precision, threads, routed.max(rows));
    let mut load = |parts: &[(Format, usize)], cols: usize, ordered: bool| -> Vec<Matrix> {
        let order = |expert| (0..cols as u32).rev().map(move |k| (k + expert) % cols as u32);
        (0..experts as u32)
            .map(|expert| {
                let order: Vec<u32> = order(expert).collect();
                let order = ordered.then_some(order.as_slice());
                ordered_matrix(&mut cpu, &mut numbers, parts, cols, order)
            })
            .collect()
    };
    let first = load(parts, cols, ordered);
    let second = load(&[(Format::F32, 5)], out_width, false);
    let bias = numbers.list(experts * out_width, 1.0);
    let logits = numbers.list(rows * experts, 1.0);
    let x = numbers.list(rows * cols, 1.0);
    let x = tensor(&mut cpu, rows, &x);
    let each: Vec<_> = first
        .iter()
        .zip(bias.chunks(out_width))
        .map(|(w, bias)| dense(&mut cpu, &x, rows, w, bias))
        .collect();
    let bytes: usize = first.iter().map(Matrix::bytes).sum();
    let first = cpu.load_experts(first).expect("memory");
    assert_eq!(cpu.experts_bytes(&first), bytes);
    let routes = routes_of(&mut cpu, &logits, experts, &plain(top_k));
    let bias = cpu.load_vector(&bias).expect("memory");
    let mut out = cpu.tensor(routed, out_width, Kept::Exact).expect("memory");
    begin(&mut cpu, rows);
    cpu.expert_matmul(&x, &first, Some(&bias), &routes, true, &mut out);
    for row in 0..rows {
        for (expert, _, place) in routes.of_row(row) {
            let want = &each[expert][row * out_width..][..out_width];
            let got = &out.first(routed)[place * out_width..][..out_width];
            assert_eq!(got, want, "{precision:?} {} row {row} expert {expert}", isa.name());
        }
    }
    let each: Vec<_> = second.iter().map(|w| dense(&mut cpu, &out, routed, w, &[0.0; 5])).collect();
    let second = cpu.load_experts(second).expect("memory");
    let mut down = cpu.tensor(routed, 5, Kept::Exact).expect("memory");
    let mut sum = cpu.tensor(rows, 5, Kept::Exact).expect("memory");
    begin(&mut cpu, rows);
    cpu.expert_matmul(&out, &second, None, &routes, false, &mut down);
    cpu.combine(&down, &routes, &mut sum);
    for row in 0..rows {
        let mut want = [0.0_f64; 5];
        let mut size = 0.0_f32;
        for (expert, weight, place) in routes.of_row(row) {
            let got = &down.first(routed)[place * 5..][..5];
            assert_eq!(got, &each[expert][place * 5..][..5], "row {row} expert {expert}");
            for (want, &x) in want.iter_mut().zip(got) {
                *want += f64::from(weight) * f64::from(x);
                size = size.max((weight * x).abs());
            }
        }
        let want = want.map(|x| x as f32);
        assert_near("sum", &sum.first(rows)[row * 5..][..5], &want, size, 8.0);
    }
}

#[test]
fn routed_rows_are_rows_of_whole_products() {
    use Format::{Bf16, F16, F32, Q4K, Q8_0};
    let mixed = [(Q4K, 33), (Bf16, 20), (Q8_0, 5)];
    let case = |(rows, top_k, experts), parts, cols| Case {
        rows,
        top_k,
        experts,
        parts,
        cols,
        ordered: false,
    };
    let cases = [
        case((1, 1, 1), &[(F32, 1)], 7),
        case((1, 2, 8), &[(Q8_0, 48)], 96),
        case((5, 3, 3), &[(F16, 35)], 33),
        case((3, 2, 40), &[(Bf16, 31)], 65),
        case((67, 4, 6), &[(Q4K, 130)], 256),
        case((40, 2, 5), &mixed, 512),
        case((90, 1, 2), &[(Bf16, 200)], 130),
        Case { ordered: true, ..case((9, 2, 4), &[(Q8_0, 20), (F32, 3)], 64) },
        Case { ordered: true, ..case((9, 2, 4), &mixed, 256) },
    ];
    for case in &cases {
        for precision in PRECISIONS {
            for isa in Isa::available() {
                check_products(isa, precision, 1, case);
                check_products(isa, precision, 3, case);
            }
        }
    }
}

#[test]
fn a_nan_among_the_logits_reaches_the_output_of_its_row_only() {
    let mut cpu = cpu(Isa::detect(), Precision::Float32, 1, 2);
    let mut numbers = Numbers::new(3);
    let experts = (0..4).map(|_| matrix(&mut cpu, &mut numbers, &[(Format::F32, 6)], 8)).collect();
    let experts = cpu.load_experts(experts).expect("memory");
    let mut logits = numbers.list(8, 1.0);
    logits[6] = f32::NAN;
    let routes = routes_of(&mut cpu, &logits, 4, &plain(2));
    let x = tensor(&mut cpu, 2, &numbers.list(16, 1.0));
    let (mut out, mut sum) = (
        cpu.tensor(4, 6, Kept::Exact).expect("memory"),
        cpu.tensor(2, 6, Kept::Exact).expect("memory"),
    );
    cpu.expert_matmul(&x, &experts, None, &routes, true, &mut out);
    cpu.combine(&out, &routes, &mut sum);
    let (ok, broken) = sum.first(2).split_at(6);
    assert!(ok.iter().all(|x| x.is_finite()) && broken.iter().all(|x| x.is_nan()));
}

/// Heads get the columns of a product with the whole matrix, and nothing else is written.
fn check_heads(isa: Isa, precision: Precision, rows: usize, format: Format, shape: [usize; 5]) {
    let [heads, block_in, block_out, x_gap, out_gap] = shape;
    let mut numbers = Numbers::new(9);
    let mut cpu = cpu(isa, precision, 2, rows);
    let w = matrix(&mut cpu, &mut numbers, &[(format, heads * block_out)], block_in);
    let blocks = HeadBlocks { heads, x_stride: block_in + x_gap, out_stride: block_out + out_gap };
    let (x_width, out_width) = (heads * blocks.x_stride, heads * blocks.out_stride);
    let x = numbers.list(rows * x_width, 1.0);
    let mut out = tensor(&mut cpu, rows, &vec![-7.0; rows * out_width]);
    let all = tensor(&mut cpu, rows, &x);
    begin(&mut cpu, rows);
    cpu.heads_matmul(&all, &w, blocks, &mut out);
    let out = out.first(rows).to_vec();
    for head in 0..heads {
        let part = |x: &[f32]| x[head * blocks.x_stride..][..block_in].to_vec();
        let x: Vec<f32> = x.chunks(x_width).flat_map(part).collect();
        let x = tensor(&mut cpu, rows, &x);
        let whole = dense(&mut cpu, &x, rows, &w, &vec![0.0; heads * block_out]);
        for (row, out) in out.chunks(out_width).enumerate() {
            let (got, rest) =
                out[head * blocks.out_stride..][..block_out + out_gap].split_at(block_out);
            let want = &whole[row * heads * block_out + head * block_out..][..block_out];
            assert_eq!(got, want, "{format:?} {} {shape:?} row {row} head {head}", isa.name());
            assert!(rest.iter().all(|&x| x == -7.0), "between heads");
        }
    }
}

#[test]
fn heads_are_columns_of_whole_products() {
    let shapes = [
        [1, 32, 5, 0, 0],
        [3, 32, 8, 4, 0],
        [5, 64, 24, 0, 3],
        [4, 32, 16, 8, 8],
        [3, 96, 64, 0, 0],
        [2, 64, 250, 1, 6],
    ];
    for (i, shape) in shapes.into_iter().enumerate() {
        for format in [Format::F32, Format::F16, Format::Bf16, Format::Q8_0] {
            for precision in PRECISIONS {
                let rows = [1, 3, 17, 40][i % 4];
                for isa in Isa::available() {
                    check_heads(isa, precision, rows, format, shape);
                }
            }
        }
    }
}
