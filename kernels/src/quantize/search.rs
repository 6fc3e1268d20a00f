//! Searches for the scale of a group of values whose codes stand for evenly spaced levels or for
//! those of a table.
//!
//! A group is handed over divided by the largest value of its block, so that squares stay in
//! range whatever the values are.

use std::array;

use crate::format::grids::IQ4_LEVELS;

/// Candidates to either side of a scale, and how far they are apart where levels have distance 1:
/// from one and a half levels below the range of codes to three above it. Beyond that, too many
/// values are cut or too many codes lie idle.
const BELOW: f32 = 1.5;
const STEP: f32 = 0.15;
const STEPS: usize = 30;
/// Codes and scale are fitted to each other this often; more changes next to nothing.
const ROUNDS: usize = 3;
/// Values that are summed side by side, so that a compiler can use vectors; groups have a
/// multiple.
const LANES: usize = 8;

/// The numbers that codes stand for, before scaling.
pub(super) trait Levels {
    /// The level nearest to a value.
    fn level(&self, value: f32) -> f32;
    /// The lowest and the highest level.
    fn ends(&self) -> [f32; 2];
    /// How many distances of levels lie between zero and the lowest, roughly.
    fn reach(&self) -> f32;
}

/// All whole numbers from the first to the second.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) f32, pub(super) f32);

/// The nearest whole number, ties to even. Only for values far below 2^22, which a clamp sees to.
pub(super) fn whole(value: f32) -> f32 {
    const BIG: f32 = 12_582_912.0;
    (value + BIG) - BIG
}

impl Levels for Whole {
    fn level(&self, value: f32) -> f32 {
        whole(value.clamp(self.0, self.1))
    }

    fn ends(&self) -> [f32; 2] {
        [self.0, self.1]
    }

    fn reach(&self) -> f32 {
        self.0.abs().max(self.1)
    }
}

/// The levels of `IQ4_LEVELS`.
pub(super) struct Table;

/// Codes by value in steps of a half, from -128 on. The middle of two levels is a whole or a half
/// number, so every step lies nearest to one level.
const NEAREST: [u8; 512] = {
    let mut out = [0; 512];
    let (mut step, mut code) = (0, 0);
    while step < 512 {
        // Twice the step's middle, and twice that of two levels: all in quarters.
        let at = 2 * (step as i32 - 256) + 1;
        while code < 15 && at > 2 * (IQ4_LEVELS[code] as i32 + IQ4_LEVELS[code + 1] as i32) {
            code += 1;
        }
        out[step] = code as u8;
        step += 1;
    }
    out
};

impl Table {
    /// The code of the level nearest to a value.
    pub(super) fn code(&self, value: f32) -> u8 {
        NEAREST[((value.clamp(-127.0, 127.0) + 128.0) * 2.0) as usize]
    }
}

impl Levels for Table {
    fn level(&self, value: f32) -> f32 {
        f32::from(IQ4_LEVELS[usize::from(self.code(value))])
    }

    fn ends(&self) -> [f32; 2] {
        [f32::from(IQ4_LEVELS[0]), f32::from(IQ4_LEVELS[15])]
    }

    fn reach(&self) -> f32 {
        8.0
    }
}

/// How much the square of each value's error counts: see the module above.
pub(super) fn weights(values: &[f32]) -> Vec<f32> {
    let mean = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    values.iter().map(|v| v * v + mean).collect()
}

/// The largest absolute value; `None` where all are so small that any scale in half precision
/// makes them zero.
pub(super) fn size(values: &[f32]) -> Option<f32> {
    let size = values.iter().fold(0_f32, |size, v| size.max(v.abs()));
    // A quarter of the smallest half.
    (size > 2_f32.powi(-26)).then_some(size)
}

/// Values divided by `size`.
pub(super) fn normal(values: &[f32], size: f32) -> Vec<f32> {
    values.iter().map(|value| value / size).collect()
}

/// The value that is largest without its sign.
pub(super) fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, &v| if v.abs() > most.abs() { v } else { most })
}

/// `1 / value`, 0 for 0.
pub(super) fn inverse(value: f32) -> f32 {
    if value == 0.0 || !value.recip().is_finite() { 0.0 } else { value.recip() }
}

fn total<const N: usize>(
    values: &[f32],
    weights: &[f32],
    terms: impl Fn(f32, f32) -> [f32; N],
) -> [f32; N] {
    let mut sums = [[0.0; LANES]; N];
    for (values, weights) in values.chunks_exact(LANES).zip(weights.chunks_exact(LANES)) {
        for lane in 0..LANES {
            let terms = terms(values[lane], weights[lane]);
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    array::from_fn(|n| sums[n].iter().sum())
}

/// The best scale for values as `scale * level`, by least squares; it may be negative.
pub(super) fn scale(values: &[f32], weights: &[f32], levels: &impl Levels) -> f32 {
    let most = extreme(values);
    if most == 0.0 {
        return 0.0;
    }
    let fit = |inverse: f32| {
        let [cross, square] = total(values, weights, |value, weight| {
            let level = levels.level(inverse * value);
            [weight * level * value, weight * level * level]
        });
        if square > 0.0 { (cross * cross / square, cross / square) } else { (0.0, 0.0) }
    };
    let mut best = (0.0, 0.0);
    let reach = levels.reach();
    for end in levels.ends().into_iter().filter(|&end| end != 0.0) {
        for step in 0..=STEPS {
            let stretch = (reach - BELOW + step as f32 * STEP) / reach;
            let found = fit(end * stretch / most);
            if found.0 > best.0 {
                best = found;
            }
        }
    }
    for _ in 0..ROUNDS {
        let found = fit(inverse(best.1));
        if found.0 > best.0 {
            best = found;
        }
    }
    best.1
}

/// The weighted squares of what is left of values as `scale * level`.
pub(super) fn error(values: &[f32], weights: &[f32], levels: &impl Levels, scale: f32) -> f32 {
    let inverse = inverse(scale);
    let [error] = total(values, weights, |value, weight| {
        let left = value - scale * levels.level(inverse * value);
        [weight * left * left]
    });
    error
}

/// The best scale and shift for values as `scale * code + shift`, codes from 0 to `top`. With
/// `below` the shift is not positive.
pub(super) fn line(values: &[f32], weights: &[f32], top: f32, below: bool) -> [f32; 2] {
    let mut low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if below {
        low = low.min(0.0);
    }
    if high <= low {
        return [0.0, low];
    }
    let mut best = (f32::INFINITY, [0.0, low]);
    let mut consider = |scale: f32, shift: f32| {
        let found = refit(values, weights, top, below, [scale, shift]);
        let error = line_error(values, weights, top, found);
        if error < best.0 {
            best = (error, found);
        }
        best.1
    };
    for step in 0..=STEPS {
        let stretch = top - BELOW + step as f32 * STEP;
        if stretch > 0.0 {
            consider((high - low) / stretch, low);
        }
    }
    let [mut scale, mut shift] = consider((high - low) / top, low);
    for _ in 0..ROUNDS {
        [scale, shift] = consider(scale, shift);
    }
    [scale, shift]
}

/// Scale and shift that fit the codes of another scale and shift.
fn refit(values: &[f32], weights: &[f32], top: f32, below: bool, line: [f32; 2]) -> [f32; 2] {
    let inverse = inverse(line[0]);
    let [w, wx, wq, wqq, wqx] = total(values, weights, |value, weight| {
        let code = whole(((value - line[1]) * inverse).clamp(0.0, top));
        let weighted = weight * code;
        [weight, weight * value, weighted, weighted * code, weighted * value]
    });
    let determinant = w * wqq - wq * wq;
    if determinant <= 0.0 {
        return line;
    }
    let scale = (w * wqx - wx * wq) / determinant;
    let shift = (wqq * wx - wq * wqx) / determinant;
    match below && shift > 0.0 {
        true if wqq > 0.0 => [wqx / wqq, 0.0],
        true => line,
        false => [scale, shift],
    }
}

/// As [`error`], for a line.
pub(super) fn line_error(values: &[f32], weights: &[f32], top: f32, line: [f32; 2]) -> f32 {
    let inverse = inverse(line[0]);
    let [error] = total(values, weights, |value, weight| {
        let code = whole(((value - line[1]) * inverse).clamp(0.0, top));
        let left = value - line[0] * code - line[1];
        [weight * left * left]
    });
    error
}
