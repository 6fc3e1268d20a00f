//! Norms, sums, activations, gates, rope, embedding, selection, logits.

use super::{Numbers, ONE_PAGE, assert_near, begin, cpu, isas, segment, tensor};
use crate::compute::{
    Activation, Beyond, Compute, Head, Kept, MatrixPart, Norm, NormKind, Rope, Sampler, Step,
};
use crate::cpu::isa::Isa;
use crate::cpu::{Cpu, Tensor, Vector};
use crate::format::Format;
use crate::reference;

/// Rows and widths: below, at and beyond a vector, not multiples, and enough for the pool.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (1, 15), (2, 16), (3, 17), (5, 64), (2, 100), (1, 896), (7, 1023), (70, 1536)];

fn for_all(check: impl Fn(Isa, usize, usize, &mut Numbers)) {
    for isa in isas() {
        for (i, (rows, width)) in SHAPES.into_iter().enumerate() {
            check(isa, rows, width, &mut Numbers::new(i as u64));
        }
    }
}

const KINDS: [(NormKind, bool); 4] = [
    (NormKind::Rms, false),
    (NormKind::Rms, true),
    (NormKind::Layer, false),
    (NormKind::Layer, true),
];

#[test]
fn norms_with_and_without_a_sum() {
    for_all(|isa, rows, width, numbers| {
        let mut cpu = cpu(isa, 2, rows, 8);
        let (x, delta) = (numbers.list(rows * width, 3.0), numbers.list(rows * width, 1.0));
        // A mean far from 0, where the variance must not cancel.
        let x: Vec<f32> = x.into_iter().map(|x| x + 20.0).collect();
        let (weight, bias) = (numbers.list(width, 1.0), numbers.list(width, 1.0));
        let [loaded, loaded_bias] = [&weight, &bias].map(|x| cpu.load_vector(x).expect("memory"));
        for ((kind, biased), scale) in KINDS.into_iter().zip([1.0, 0.22, -1.5, 1.0]) {
            let sum: Vec<f32> = x.iter().zip(&delta).map(|(a, b)| a + b * scale).collect();
            let want = |x: &[f32]| -> Vec<f32> {
                let bias = biased.then_some(&bias[..]);
                let row = |x| reference::norm::norm(kind, x, &weight, bias, 1e-5);
                x.chunks(width).flat_map(row).collect()
            };
            let bias = biased.then_some(&loaded_bias);
            let how = Norm { kind, weight: &loaded, bias, eps: 1e-5 };
            let mut residual = tensor(&mut cpu, rows, &x);
            let delta = tensor(&mut cpu, rows, &delta);
            let mut out = cpu.tensor(rows, width, Kept::Exact).expect("memory");
            begin(&mut cpu, rows);
            // A mean of 20 in f32 is off by some 1e-6, which counts beside a deviation of 3. Of
            // one element alone the deviation is 0 and eps divides.
            let least = if width == 1 { 1e3 } else { 1.0 };
            let near = |what: &str, got: &[f32], want: &[f32]| {
                assert_near(&format!("{what}, {kind:?} of {width}"), got, want, least, 64.0);
            };
            cpu.norm(&residual, &how, &mut out);
            near("norm", out.first(rows), &want(&x));
            cpu.add_norm(&mut residual, &delta, scale, &how, &mut out);
            assert_eq!(residual.first(rows), sum);
            near("sum and norm", out.first(rows), &want(&sum));
            let mut other = tensor(&mut cpu, rows, &x);
            cpu.add(&mut other, &delta, scale);
            assert_eq!(other.first(rows), sum);
        }
    });
}

/// Runs an op on many rows and on the first alone; both give that row the same bits.
fn one_row_is_the_same(
    isa: Isa,
    (width, out_width): (usize, usize),
    mut op: impl FnMut(&mut Cpu, &Vector, &Tensor, &mut Tensor),
) {
    let rows = 70;
    let x = Numbers::new(5).list(rows * width, 1.0);
    let mut cpu = cpu(isa, 3, rows, 8);
    let weight = cpu.load_vector(&vec![1.0; width]).expect("memory");
    let (all, one) = (tensor(&mut cpu, rows, &x), tensor(&mut cpu, 1, &x[..width]));
    let mut out = cpu.tensor(rows, out_width, Kept::Exact).expect("memory");
    let mut alone = cpu.tensor(1, out_width, Kept::Exact).expect("memory");
    begin(&mut cpu, rows);
    op(&mut cpu, &weight, &all, &mut out);
    begin(&mut cpu, 1);
    op(&mut cpu, &weight, &one, &mut alone);
    assert_eq!(out.first(1), alone.first(1));
}

#[test]
fn a_row_gets_the_same_bits_in_any_batch() {
    for isa in isas() {
        for (kind, _) in KINDS {
            one_row_is_the_same(isa, (1003, 1003), |cpu, weight, x, out| {
                cpu.norm(x, &Norm { kind, weight, bias: Some(weight), eps: 1e-6 }, out);
            });
        }
        for f in ACTIVATIONS {
            one_row_is_the_same(isa, (1006, 503), |cpu, _, x, out| {
                cpu.activate(x, f, true, 1, out);
            });
        }
    }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::Clamped { alpha: 1.702, limit: 7.0 },
];

#[test]
fn activations_gated_and_plain() {
    for_all(|isa, rows, width, numbers| {
        for (f, copies) in ACTIVATIONS.into_iter().zip([1, 1, 3, 2, 1, 2]) {
            for gated in [true, false] {
                if !gated && matches!(f, Activation::Clamped { .. }) {
                    continue;
                }
                let mut cpu = cpu(isa, 2, rows, 8);
                let (all, from) = (rows * copies, if gated { 2 * width } else { width });
                let x = numbers.list(all * from, 4.0);
                let row = |row: &[f32]| reference::activation::activate(f, gated, row);
                let want: Vec<f32> = x.chunks(from).flat_map(row).collect();
                let x = tensor(&mut cpu, all, &x);
                let mut out = cpu.tensor(all, width, Kept::Exact).expect("memory");
                begin(&mut cpu, rows);
                cpu.activate(&x, f, gated, copies, &mut out);
                let what = format!("{f:?}, gated {gated}, {}", isa.name());
                // The exponential multiplies the rounding of its argument by the argument: up to
                // 90, rounded once for Gelu where the multiplication is not fused, and three
                // times for its tanh form.
                let ulps = match f {
                    Activation::Relu | Activation::ReluSquared => 1.0,
                    Activation::Silu => 4.0,
                    Activation::Gelu => 48.0,
                    Activation::GeluTanh | Activation::Clamped { .. } => 128.0,
                };
                assert_near(&what, out.first(all), &want, 1e-30, ulps);
            }
        }
    });
}

#[test]
fn activations_of_what_is_no_number_or_far_out() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0, -0.0, 50.0, -50.0];
    for isa in isas() {
        for f in ACTIVATIONS.into_iter().take(5) {
            let mut cpu = cpu(isa, 1, 1, 8);
            let x = tensor(&mut cpu, 1, &x);
            let mut out = cpu.tensor(1, 9, Kept::Exact).expect("memory");
            begin(&mut cpu, 1);
            cpu.activate(&x, f, false, 1, &mut out);
            let [nan, rest @ ..] = out.first(1) else { panic!("a row") };
            assert!(nan.is_nan(), "{f:?}");
            let far =
                if f == Activation::ReluSquared { [f32::INFINITY, 2500.0] } else { [1e30, 50.0] };
            assert_eq!(rest[0], f32::INFINITY, "{f:?}");
            assert_eq!([rest[2], rest[6]], far, "{f:?}");
            assert_eq!([rest[4], rest[5]], [0.0, 0.0], "{f:?}");
            if f != Activation::Silu && f != Activation::GeluTanh {
                assert_eq!(rest[1], 0.0, "{f:?}");
            }
            assert!(rest[3].abs() < 1e-10 && rest[7].abs() < 1e-10, "{f:?} {rest:?}");
        }
    }
}

#[test]
fn rows_are_gated() {
    for_all(|isa, rows, width, numbers| {
        let mut cpu = cpu(isa, 2, rows, 8);
        let (x, gate) = (numbers.list(rows * width, 2.0), numbers.list(rows * 3, 3.0));
        let row = |(x, gate): (&[f32], &[f32])| reference::activation::gate(x, gate[0]);
        let want: Vec<f32> = x.chunks(width).zip(gate.chunks(3)).flat_map(row).collect();
        let (mut x, gate) = (tensor(&mut cpu, rows, &x), tensor(&mut cpu, rows, &gate));
        begin(&mut cpu, rows);
        cpu.gate_rows(&mut x, &gate);
        assert_near("gated rows", x.first(rows), &want, f32::MIN_POSITIVE, 4.0);
    });
}

/// Checks the table of two positions from each `first` on of a slot with a prompt of so many
/// tokens, or of one that was never started.
fn check_rope(rope: &Rope, prompt: Option<u32>, firsts: &[u32]) {
    let pairs = rope.inv_freq.len();
    let mut cpu = cpu(Isa::detect(), 2, 4, 8);
    let mut cache = cpu.cache(ONE_PAGE).expect("memory");
    let mut out = cpu.tensor(2, 2 * pairs, Kept::Exact).expect("memory");
    if let Some(prompt) = prompt {
        cpu.start_slot(0, &vec![1; prompt as usize], prompt, &Sampler::plain());
    }
    for &first in firsts {
        let segments = [segment(0, first, 2, 0)];
        cpu.begin(Step { tokens: &[0, 0], segments: &segments, grants: &[] }, &mut cache);
        cpu.rope_table(rope, &mut out);
        for (row, out) in out.first(2).chunks(2 * pairs).enumerate() {
            let position = first + row as u32;
            let sequence = prompt.unwrap_or(0).max(position + 1);
            for (i, inv_freq) in reference::rope::frequencies(rope, sequence).iter().enumerate() {
                let angle = f64::from(position as f32 * inv_freq);
                let magnitude = f64::from(rope.magnitude);
                let want = [angle.cos(), angle.sin()].map(|x| (magnitude * x) as f32);
                assert_near("cos, sin", &[out[i], out[pairs + i]], &want, 1e-3, 2.0);
            }
        }
    }
}

fn plain_rope(beyond: Option<Beyond>) -> Rope {
    let inv_freq: Vec<f32> = (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect();
    Rope { inv_freq, magnitude: 1.25, interleaved: false, beyond }
}

#[test]
fn rope_table_is_exact_at_far_positions() {
    check_rope(&plain_rope(None), None, &[0, 17, 131_070, 1_000_000]);
}

#[test]
fn long_sequences_turn_by_other_frequencies() {
    let inv_freq = (0..32).map(|i| 0.5 / (i + 1) as f32).collect();
    let long = plain_rope(Some(Beyond::Long { limit: 20, inv_freq }));
    let dynamic = plain_rope(Some(Beyond::Dynamic { limit: 20, theta: 10_000.0, factor: 4.0 }));
    for rope in [long, dynamic] {
        // A prompt within the limit and beyond it; drawn tokens that pass it; no prompt known.
        for prompt in [Some(5), Some(20), Some(21), Some(60), None] {
            check_rope(&rope, prompt, &[0, 4, 18, 19, 20, 58, 59, 100, 3000]);
        }
    }
}

#[test]
fn dynamic_frequencies_are_those_of_the_formula() {
    // Base 10000, dim 64, 4 times as long: base * 13^(64 / 62).
    let beyond = Beyond::Dynamic { limit: 100, theta: 10_000.0, factor: 4.0 };
    let got = reference::rope::frequencies(&plain_rope(Some(beyond)), 400);
    let base = 10_000.0 * 13f64.powf(64.0 / 62.0);
    let want: Vec<f32> = (0..32).map(|i| base.powf(-f64::from(i) / 32.0) as f32).collect();
    assert_near("frequencies", &got, &want, f32::MIN_POSITIVE, 4.0);
}

fn matrix_bytes(table: &[f32]) -> Vec<u8> {
    table.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn part(rows: usize, cols: usize, bytes: &[u8]) -> MatrixPart<'_> {
    MatrixPart { format: Format::F32, rows, cols, bytes, order: None }
}

#[test]
fn embed_and_select() {
    for isa in isas() {
        let (vocab, width) = (11, 20);
        let table = Numbers::new(9).list(vocab * width, 1.0);
        let mut cpu = cpu(isa, 2, 6, vocab);
        let matrix =
            cpu.load_matrix(&[part(vocab, width, &matrix_bytes(&table))]).expect("a matrix");
        let mut out = cpu.tensor(6, width, Kept::Exact).expect("memory");
        begin(&mut cpu, 3);
        cpu.step.tokens.copy_from_slice(&[7, 0, 10]);
        cpu.embed(&matrix, 0.5, &mut out);
        let row = |token: usize| &table[token * width..][..width];
        for (row_, token) in [7, 0, 10].into_iter().enumerate() {
            let want: Vec<f32> = row(token).iter().map(|x| x * 0.5).collect();
            let mut got = vec![0.0; width];
            cpu.read(&out, row_, &mut got);
            assert_eq!(got, want);
        }
        let mut picked = cpu.tensor(2, width, Kept::Exact).expect("memory");
        cpu.select(&out, &[2, 0], &mut picked);
        assert_eq!(picked.first(2)[..width], out.first(3)[2 * width..]);
        assert_eq!(picked.first(2)[width..], out.first(3)[..width]);
        let before = out.first(3).to_vec();
        cpu.embed_add(&matrix, &[1, 10, 1], &mut out);
        for (i, token) in [1, 10, 1].into_iter().enumerate() {
            let sums = before[i * width..].iter().zip(row(token)).map(|(a, b)| a + b);
            assert_eq!(out.first(3)[i * width..][..width], sums.collect::<Vec<f32>>());
        }
    }
}

#[test]
fn embed_add_on_many_rows_and_threads() {
    let (rows, width) = (100, 700);
    for isa in isas() {
        let table = Numbers::new(9).list(5 * width, 1.0);
        let mut cpu = cpu(isa, 3, rows, 8);
        let matrix = cpu.load_matrix(&[part(5, width, &matrix_bytes(&table))]).expect("a matrix");
        let x = Numbers::new(3).list(rows * width, 1.0);
        let mut out = tensor(&mut cpu, rows, &x);
        begin(&mut cpu, rows);
        let picks: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 5).collect();
        cpu.embed_add(&matrix, &picks, &mut out);
        let sum = |(i, x): (usize, &f32)| x + table[picks[i / width] as usize * width + i % width];
        let want: Vec<f32> = x.iter().enumerate().map(sum).collect();
        assert_eq!(out.first(rows), want);
    }
}

#[test]
fn logits_are_biased_scaled_and_capped() {
    for isa in isas() {
        for (rows, vocab, width) in [(1, 1, 3), (2, 37, 8), (5, 9001, 16)] {
            let mut numbers = Numbers::new(vocab as u64);
            let table = numbers.list(vocab * width, 1.0);
            let (bias, x) = (numbers.list(vocab, 2.0), numbers.list(rows * width, 1.0));
            let mut cpu = cpu(isa, 3, rows, vocab);
            let head =
                cpu.load_matrix(&[part(vocab, width, &matrix_bytes(&table))]).expect("a matrix");
            let loaded = cpu.load_vector(&bias).expect("memory");
            let x = tensor(&mut cpu, rows, &x);
            begin(&mut cpu, rows);
            let mut out = cpu.tensor(rows, vocab, Kept::Exact).expect("memory");
            let mut all = |bias, scale, soft_cap| {
                cpu.logits(&x, rows, &head, &Head { bias, scale, soft_cap }, &mut out);
                out.first(rows).to_vec()
            };
            let plain = all(None, 1.0, None);
            let biased = all(Some(&loaded), 1.0, None);
            let sums: Vec<f32> =
                plain.iter().enumerate().map(|(i, x)| x + bias[i % vocab]).collect();
            assert_near("bias", &biased, &sums, 8.0, 4.0);
            for (scale, cap) in [(0.0625, None), (1.0, Some(3.0)), (2.0, Some(30.0))] {
                let want = reference::activation::cap(&biased, scale, cap);
                assert_near("cap", &all(Some(&loaded), scale, cap), &want, 1e-6, 8.0);
            }
        }
    }
}
