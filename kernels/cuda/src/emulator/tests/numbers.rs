//! Conversions, products and integer functions against other ways to compute them.

use half::{bf16, f16};

use super::{run, shape};
use crate::emulator::Emulator;

/// Deterministic bits.
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u32 {
        // Knuth's multiplier for 64 bits; the low bits are the weak ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 32) as u32
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        f32::from_bits(self.next() >> 9 | 0x4000_0000) - 3.0
    }
}

fn converted(mode: u32, input: &[u32]) -> Vec<u32> {
    let how = shape([4, 1, 1], 256, 0);
    let count = input.len() as u32;
    let output = vec![0; input.len()];
    run(&mut Emulator::new(1), "convert", how, (count, mode), input, &output).expect("it runs")
}

/// Floats of every exponent, ties of the narrow formats among them, and what is special.
fn floats() -> Vec<u32> {
    let mut bits = Bits(7);
    let mut all: Vec<u32> = (0..200_000).map(|_| bits.next()).collect();
    for high in 0..=0xffff_u32 {
        // Values that bf16 holds, the ties between them, and one bit on both sides of a tie.
        all.extend([0, 0x8000, 0x7fff, 0x8001].map(|low| high << 16 | low));
        // The same for f16, whose values lie further apart.
        let value = f16::from_bits(high as u16).to_f32().to_bits();
        all.extend([0, 0x1000, 0x0fff, 0x1001, 0x3000].map(|low| value.wrapping_add(low)));
    }
    // Halves of the smallest f16 and around.
    all.extend(
        (-30..-20).flat_map(|e| [1.0_f32, 1.5, 1.25].map(|m| (m * 2_f32.powi(e)).to_bits())),
    );
    all
}

#[test]
fn f16_widens_exactly() {
    let all: Vec<u32> = (0..=0xffff).collect();
    for (bits, got) in all.iter().zip(converted(0, &all)) {
        let (want, got) = (f16::from_bits(*bits as u16).to_f32(), f32::from_bits(got));
        let same = want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan();
        assert!(same, "{bits:#x}: {got} instead of {want}");
    }
}

#[test]
fn floats_round_to_16_bits_as_half_rounds_them() {
    let all = floats();
    let narrow = |mode| converted(mode, &all);
    for (mode, one) in [(1, 0), (2, 0), (5, 0x3c00_u32), (6, 0x3f80)] {
        for (bits, got) in all.iter().zip(narrow(mode)) {
            let x = f32::from_bits(*bits);
            let half = mode % 2 == 1;
            let want = if half { f16::from_f32(x).to_bits() } else { bf16::from_f32(x).to_bits() };
            // `cvt` gives one NaN.
            let want = if x.is_nan() { 0x7fff } else { want };
            assert_eq!(got, u32::from(want) | one << 16, "mode {mode}, {x:e} ({bits:#x})");
        }
    }
}

/// e4m3fn by its definition: a sign, 4 bits of exponent with bias 7, 3 of mantissa; all ones is
/// NaN and there is no infinity.
fn f8(bits: u32) -> f64 {
    let (exponent, mantissa) = (bits >> 3 & 15, f64::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2_f64.powi(exponent as i32 - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

#[test]
fn f8_is_what_its_table_says() {
    let all: Vec<u32> = (0..256).collect();
    for (bits, got) in all.iter().zip(converted(3, &all)) {
        let (want, got) = (f8(*bits), f64::from(f32::from_bits(got)));
        assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan(), "{bits:#x}");
    }
}

#[test]
fn floats_round_to_the_nearest_f8() {
    let mut all: Vec<u32> = floats().into_iter().step_by(16).collect();
    // Every tie of the format.
    all.extend((0..0x7e).map(|bits| (f8(bits) as f32).midpoint(f8(bits + 1) as f32).to_bits()));
    for (bits, got) in all.iter().zip(converted(4, &all)) {
        let x = f32::from_bits(*bits);
        if x.is_nan() {
            assert_eq!(got & 0x7f, 0x7f, "NaN stays NaN");
            continue;
        }
        assert_eq!(got >> 7, bits >> 31, "{x:e} keeps its sign");
        let size = f64::from(x.abs());
        let distance = |code: u32| (f8(code) - size).abs();
        // The nearest of all finite values, the even one of two; above all of them the largest.
        let near = (0..0x7f_u32).min_by(|a, b| {
            let order = distance(*a).total_cmp(&distance(*b));
            order.then((a & 1).cmp(&(b & 1)))
        });
        let want = if size >= 448.0 { 0x7e } else { near.expect("there are some") };
        assert_eq!(got & 0x7f, want, "{x:e}");
    }
}

#[test]
fn exp2_flushes_what_is_too_small() {
    let inputs = [0.0_f32, 1.0, -1.5, 10.0, -126.0, -126.5, -200.0, 128.0, f32::NEG_INFINITY];
    let got = converted(7, &inputs.map(f32::to_bits));
    let want = [1.0, 2.0, 0.353_553_4, 1024.0, f32::MIN_POSITIVE, 0.0, 0.0, f32::INFINITY, 0.0];
    for ((x, got), want) in inputs.iter().zip(got).zip(want) {
        let got = f32::from_bits(got);
        assert!(got == want || (got - want).abs() <= want * 1e-6, "{x}: {got}");
    }
}

/// 2^-62, in which sums of the products below are counted without an error.
const UNIT: f64 = 1.0 / (1_u64 << 62) as f64;

/// The nearest float to `exact` units that has `bits` bits and is a multiple of 2^`least` units;
/// ties to even.
fn rounded(exact: i128, bits: u32, least: u32) -> f64 {
    let size = exact.unsigned_abs();
    let shift = (128 - size.leading_zeros()).saturating_sub(bits).max(least);
    let (whole, rest) = (size >> shift, size & ((1 << shift) - 1));
    let tie = (1_u128 << shift) >> 1;
    let up = shift > 0 && (rest > tie || rest == tie && whole & 1 == 1);
    let value = ((whole + u128::from(up)) << shift) as f64 * UNIT;
    if exact < 0 { -value } else { value }
}

#[test]
fn fused_products_round_once() {
    let mut bits = Bits(11);
    let count = 40_000;
    for mode in 0..2 {
        let value = |x: u32| {
            let x = x as u16;
            if mode == 0 { f16::from_bits(x).to_f64() } else { bf16::from_bits(x).to_f64() }
        };
        let narrow = |x: f64| {
            if mode == 0 { f16::from_f64(x).to_bits() } else { bf16::from_f64(x).to_bits() }
        };
        // Every finite f16 but the sign of zero; bf16 of such sizes that products fit the units.
        let operand = |x: u32| match mode {
            0 if x >> 10 & 31 == 31 => x & 0x8000 | 0x3bff,
            1 => x & 0x807f | (127 - 20 + (x >> 7) % 40) << 7,
            _ => x,
        };
        let mut input: Vec<u32> = Vec::new();
        for at in 0..count {
            let [a, b, mut c] = [(); 3].map(|()| operand(bits.next() & 0xffff));
            if at % 2 == 0 {
                // A sum that nearly cancels.
                let near = narrow(-value(a) * value(b));
                c = operand(u32::from(near));
            }
            // The other half holds the same with another sign.
            input.extend([a | (a ^ 0x8000) << 16, b | b << 16, c | (c ^ 0x8000) << 16]);
        }
        let how = shape([4, 1, 1], 256, 0);
        let output = vec![0; count];
        let choice = (count as u32, mode);
        let got = run(&mut Emulator::new(1), "fused", how, choice, &input, &output);
        for (three, got) in input.chunks_exact(3).zip(got.expect("it runs")) {
            let [a, b, c] = [0, 1, 2].map(|i| value(three[i] & 0xffff));
            let exact = (a * b / UNIT) as i128 + (c / UNIT) as i128;
            let mut want = if mode == 0 { rounded(exact, 11, 38) } else { rounded(exact, 8, 0) };
            if mode == 0 && want.abs() > 65504.0 {
                want = f64::INFINITY.copysign(want);
            }
            let halves = [value(got & 0xffff), -value(got >> 16)];
            assert!(halves == [want; 2], "{mode}: {a:e} * {b:e} + {c:e}: {halves:?}, not {want:e}");
        }
    }
}

#[test]
fn mma_is_the_product_of_plain_loops() {
    let mut bits = Bits(5);
    for (name, is_half) in [("product_bf16", false), ("product_f16", true)] {
        for repeats in [1, 3] {
            let floats: Vec<f32> = (0..256 + 128).map(|_| bits.float()).collect();
            let narrow = |x: f32| {
                if is_half { f16::from_f32(x).to_bits() } else { bf16::from_f32(x).to_bits() }
            };
            let wide = |x: u16| {
                if is_half { f16::from_bits(x).to_f64() } else { bf16::from_bits(x).to_f64() }
            };
            let operands: Vec<u16> = floats.iter().map(|x| narrow(*x)).collect();
            let (a, b) = operands.split_at(256);
            let before: Vec<f32> = (0..128).map(|_| bits.float()).collect();
            let how = shape([1, 1, 1], 32, 0);
            let got = run(
                &mut Emulator::new(2),
                name,
                how,
                (repeats, 0),
                bytemuck::cast_slice(&operands),
                bytemuck::cast_slice(&before),
            );
            for (at, got) in got.expect("it runs").into_iter().enumerate() {
                let (row, column) = (at / 8, at % 8);
                let sum = |sum: f32| {
                    let term = |k: usize| wide(a[row * 16 + k]) * wide(b[k * 8 + column]);
                    (f64::from(sum) + (0..16).map(term).sum::<f64>()) as f32
                };
                let want = (0..repeats).fold(before[at], |d, _| sum(d));
                let got = f32::from_bits(got);
                assert!((got - want).abs() <= 1e-6, "{name}, {at}: {got} instead of {want}");
            }
        }
    }
}

#[test]
fn integers_are_what_cuda_says() {
    let (x, y) = (0x81c3_0f7e_u32, 0x9234_d6a8_u32);
    let one = shape([1, 1, 1], 1, 0);
    let got = run(&mut Emulator::new(1), "integers", one, (0, 0), &[x, y], &[1; 12]);
    let got = got.expect("it runs");
    let signed = |word: u32| word.to_le_bytes().map(|byte| i32::from(byte as i8));
    let dot: i32 = signed(x).into_iter().zip(signed(y)).map(|(a, b)| a * b).sum();
    assert_eq!(got[0], 0x9281_d60f, "bytes 7, 3, 5, 1");
    assert_eq!(got[1], 0x00ff_7ea8, "the signs of bytes 0 and 4, then bytes 0 and 4");
    assert_eq!(got[2], ((u64::from(x) * u64::from(y)) >> 32) as u32);
    assert_eq!(got[3], x.count_ones() << 16 | x.leading_zeros() << 8 | (x.trailing_zeros() + 1));
    assert_eq!(got[4], (dot + 5) as u32);
    assert_eq!(got[5], y << 12 | x >> 20);
    assert_eq!(got[6], x.reverse_bits());
    let wide = u128::from(u64::from(x) << 32) * u128::from(u64::from(y) << 32);
    assert_eq!(got[7], (wide >> 64) as u32);
    assert_eq!(got[8..12], [1, y | 0xff, x, y]);
}
