//! Norms, sums, activation, rope, embedding, selection.

use super::{Numbers, assert_near, begin, cpu, isas, tensor};
use crate::compute::{Compute, MatrixPart, Rope};
use crate::cpu::isa::Isa;
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

#[test]
fn rms_norm_with_and_without_a_sum() {
    for_all(|isa, rows, width, numbers| {
        let mut cpu = cpu(isa, 2, rows, 8);
        let (x, delta) = (numbers.list(rows * width, 3.0), numbers.list(rows * width, 1.0));
        let weight = numbers.list(width, 1.0);
        let sum: Vec<f32> = x.iter().zip(&delta).map(|(a, b)| a + b).collect();
        let want = |x: &[f32]| -> Vec<f32> {
            let row = |x| reference::norm::rms_norm(x, &weight, 1e-5);
            x.chunks(width).flat_map(row).collect()
        };
        let loaded = cpu.load_vector(&weight).expect("memory");
        let (mut residual, delta) = (tensor(&mut cpu, rows, &x), tensor(&mut cpu, rows, &delta));
        let mut out = cpu.tensor(rows, width).expect("memory");
        begin(&mut cpu, rows);
        cpu.rms_norm(&residual, &loaded, 1e-5, &mut out);
        assert_near("norm", out.first(rows), &want(&x), 1e-3, 8.0);
        cpu.add_rms_norm(&mut residual, &delta, &loaded, 1e-5, &mut out);
        assert_eq!(residual.first(rows), sum);
        assert_near("sum and norm", out.first(rows), &want(&sum), 1e-3, 8.0);
        let mut other = tensor(&mut cpu, rows, &x);
        cpu.add(&mut other, &delta);
        assert_eq!(other.first(rows), sum);
    });
}

#[test]
fn a_row_gets_the_same_norm_in_any_batch() {
    let (rows, width) = (70, 1000);
    for isa in isas() {
        let x = Numbers::new(5).list(rows * width, 1.0);
        let mut cpu = cpu(isa, 3, rows, 8);
        let weight = cpu.load_vector(&vec![1.0; width]).expect("memory");
        let (all, one) = (tensor(&mut cpu, rows, &x), tensor(&mut cpu, 1, &x[..width]));
        let mut out = cpu.tensor(rows, width).expect("memory");
        let mut alone = cpu.tensor(1, width).expect("memory");
        begin(&mut cpu, rows);
        cpu.rms_norm(&all, &weight, 1e-6, &mut out);
        begin(&mut cpu, 1);
        cpu.rms_norm(&one, &weight, 1e-6, &mut alone);
        assert_eq!(out.first(1), alone.first(1));
    }
}

#[test]
fn silu_mul() {
    for_all(|isa, rows, width, numbers| {
        let mut cpu = cpu(isa, 2, rows, 8);
        let x = numbers.list(rows * 2 * width, 4.0);
        let want: Vec<f32> =
            x.chunks(2 * width).flat_map(reference::activation::silu_mul).collect();
        let gate_up = tensor(&mut cpu, rows, &x);
        let mut out = cpu.tensor(rows, width).expect("memory");
        begin(&mut cpu, rows);
        cpu.silu_mul(&gate_up, &mut out);
        assert_near("silu_mul", out.first(rows), &want, f32::MIN_POSITIVE, 4.0);
    });
}

#[test]
fn rope_table_is_exact_at_far_positions() {
    use crate::compute::{CacheElement, CacheShape, Segment, Step};
    let inv_freq: Vec<f32> = (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect();
    let rope = Rope { inv_freq, magnitude: 1.25, interleaved: false };
    let mut cpu = cpu(Isa::detect(), 2, 4, 8);
    let shape = CacheShape {
        layers: 1,
        pages: 1,
        page_tokens: 16,
        kv_heads: 1,
        head_dim: 1,
        element: CacheElement::F32,
        slots: 1,
        pages_per_slot: 1,
    };
    let mut cache = cpu.cache(shape).expect("memory");
    let mut out = cpu.tensor(2, 64).expect("memory");
    for first in [0, 17, 131_070, 1_000_000] {
        let segments = [Segment { slot: 0, first, len: 2, row: 0, late: false }];
        let step = Step { tokens: &[0, 0], segments: &segments, grants: &[] };
        cpu.begin(step, &mut cache);
        cpu.rope_table(&rope, &mut out);
        for (row, out) in out.first(2).chunks(64).enumerate() {
            for i in 0..32 {
                let angle = f64::from((first + row as u32) as f32 * rope.inv_freq[i]);
                let want = [1.25 * angle.cos(), 1.25 * angle.sin()].map(|x| x as f32);
                assert_near("cos, sin", &[out[i], out[32 + i]], &want, 1e-3, 2.0);
            }
        }
    }
}

#[test]
fn embed_and_select() {
    for isa in isas() {
        let (vocab, width) = (11, 20);
        let table = Numbers::new(9).list(vocab * width, 1.0);
        let bytes: Vec<u8> = table.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut cpu = cpu(isa, 2, 6, vocab);
        let part = MatrixPart { format: Format::F32, rows: vocab, cols: width, bytes: &bytes };
        let matrix = cpu.load_matrix(&[part]).expect("a matrix");
        let mut out = cpu.tensor(6, width).expect("memory");
        begin(&mut cpu, 3);
        cpu.step.tokens.copy_from_slice(&[7, 0, 10]);
        cpu.embed(&matrix, 0.5, &mut out);
        for (row, token) in [7, 0, 10].into_iter().enumerate() {
            let want: Vec<f32> = table[token * width..][..width].iter().map(|x| x * 0.5).collect();
            let mut got = vec![0.0; width];
            cpu.read(&out, row, &mut got);
            assert_eq!(got, want);
        }
        let mut picked = cpu.tensor(2, width).expect("memory");
        cpu.select(&out, &[2, 0], &mut picked);
        assert_eq!(picked.first(2)[..width], out.first(3)[2 * width..]);
        assert_eq!(picked.first(2)[width..], out.first(3)[..width]);
    }
}
