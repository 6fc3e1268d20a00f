//! Super-blocks of 256 whose groups have whole scales and minima without sign: `Q2K`, `Q4K`,
//! `Q5K`. A value is `scale * s * code - minimum * m` with two numbers for all groups.
//!
//! As in `signed`: each group is fitted by itself, then the super-block's two numbers, then the
//! whole ones again.

use super::search::{self, inverse, whole};
use super::{half, store};
use crate::Format;

/// Super-block and groups are fitted to each other this often.
const ROUNDS: usize = 3;

/// A super-block before it is packed.
struct Block {
    /// Scale and minimum as stored.
    units: [f32; 2],
    /// Whole scale and minimum by group; only the first are used where groups are long.
    groups: [[u8; 2]; 16],
    top: f32,
}

/// Groups of `len` elements, codes up to `top`, whole scales and minima up to `most`.
struct Shape {
    len: usize,
    top: f32,
    most: f32,
}

/// Values by group, divided by the largest, and their weights.
struct Values {
    size: f32,
    normal: Vec<f32>,
    weights: Vec<f32>,
}

impl Shape {
    fn block(&self, values: &[f32]) -> Block {
        let mut best = Block { units: [0.0; 2], groups: [[0; 2]; 16], top: self.top };
        let Some(size) = search::size(values) else { return best };
        let normal = search::normal(values, size);
        let weights = normal.chunks_exact(self.len).flat_map(search::weights).collect();
        let all = Values { size, normal, weights };
        let mut wanted = [[0.0; 2]; 16];
        for (wanted, (values, weights)) in wanted.iter_mut().zip(self.groups(&all)) {
            let [scale, shift] = search::line(values, weights, self.top, true);
            *wanted = [scale, -shift];
        }
        let largest = |n: usize| wanted.iter().map(|wanted| wanted[n]).fold(0.0, f32::max);
        let stored = |unit: f32| half(unit * size).to_f32();
        let mut units = [0, 1].map(|n| stored(largest(n) / self.most));
        let mut least = f32::INFINITY;
        for _ in 0..ROUNDS {
            let found = self.choose(&all, &wanted, units);
            if found.0 < least {
                least = found.0;
                best = Block { units, groups: found.1, top: self.top };
            }
            units = self.refit(&all, units, &found.1).map(stored);
        }
        best
    }

    fn groups<'v>(&self, all: &'v Values) -> impl Iterator<Item = (&'v [f32], &'v [f32])> {
        all.normal.chunks_exact(self.len).zip(all.weights.chunks_exact(self.len))
    }

    /// The whole numbers for the super-block's two, and the error that they leave.
    fn choose(
        &self,
        all: &Values,
        wanted: &[[f32; 2]; 16],
        units: [f32; 2],
    ) -> (f32, [[u8; 2]; 16]) {
        let (mut groups, mut sum) = ([[0; 2]; 16], 0.0);
        let units = units.map(|unit| unit / all.size);
        for (g, (values, weights)) in self.groups(all).enumerate() {
            let near = [0, 1].map(|n| whole((wanted[g][n] * inverse(units[n])).min(self.most)));
            let mut least = f32::INFINITY;
            for step in 0..9 {
                let [scale, minimum] =
                    [near[0] + (step / 3 - 1) as f32, near[1] + (step % 3 - 1) as f32]
                        .map(|number| number.clamp(0.0, self.most));
                let line = [units[0] * scale, -units[1] * minimum];
                let error = search::line_error(values, weights, self.top, line);
                if error < least {
                    (least, groups[g]) = (error, [scale as u8, minimum as u8]);
                }
            }
            sum += least;
        }
        (sum, groups)
    }

    /// The super-block's two numbers that fit the codes of two others, divided by the size.
    fn refit(&self, all: &Values, units: [f32; 2], groups: &[[u8; 2]; 16]) -> [f32; 2] {
        let units = units.map(|unit| unit / all.size);
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for ((values, weights), group) in self.groups(all).zip(groups) {
            let [scale, minimum] = group.map(f32::from);
            let inverse = inverse(units[0] * scale);
            for (value, weight) in values.iter().zip(weights) {
                let code = ((value + units[1] * minimum) * inverse).clamp(0.0, self.top);
                let (a, b) = (scale * whole(code), -minimum);
                aa += weight * a * a;
                ab += weight * a * b;
                bb += weight * b * b;
                ax += weight * a * value;
                bx += weight * b * value;
            }
        }
        let determinant = aa * bb - ab * ab;
        if determinant <= f32::EPSILON * aa * bb {
            return if aa > 0.0 { [ax / aa, units[1]] } else { units };
        }
        [(ax * bb - bx * ab) / determinant, (aa * bx - ab * ax) / determinant]
    }
}

impl Block {
    fn code(&self, g: usize, value: f32) -> u8 {
        let [scale, minimum] = self.groups[g].map(f32::from);
        let shifted = value + self.units[1] * minimum;
        whole((shifted * inverse(self.units[0] * scale)).clamp(0.0, self.top)) as u8
    }
}

pub(super) fn q2_k(values: &[f32], out: &mut [u8]) {
    let block = Shape { len: 16, top: 3.0, most: 15.0 }.block(values);
    out.fill(0);
    for (out, [scale, minimum]) in out.iter_mut().zip(block.groups) {
        *out = scale | minimum << 4;
    }
    for (i, &value) in values.iter().enumerate() {
        out[16 + i / 128 * 32 + i % 32] |= block.code(i / 16, value) << (i % 128 / 32 * 2);
    }
    store(block.units[0], out, 80);
    store(block.units[1], out, 82);
}

pub(super) fn q45_k(format: Format, values: &[f32], out: &mut [u8]) {
    let (top, codes_at) = if format == Format::Q4K { (15.0, 16) } else { (31.0, 48) };
    let block = Shape { len: 32, top, most: 63.0 }.block(values);
    out.fill(0);
    store(block.units[0], out, 0);
    store(block.units[1], out, 2);
    for (g, [scale, minimum]) in block.groups.into_iter().take(8).enumerate() {
        if g < 4 {
            out[4 + g] |= scale;
            out[8 + g] |= minimum;
        } else {
            out[8 + g] |= scale & 15 | (minimum & 15) << 4;
            out[g] |= scale >> 4 << 6;
            out[4 + g] |= minimum >> 4 << 6;
        }
    }
    for (i, &value) in values.iter().enumerate() {
        let (g, code) = (i / 32, block.code(i / 32, value));
        out[codes_at + g / 2 * 32 + i % 32] |= (code & 15) << (g % 2 * 4);
        if format == Format::Q5K {
            out[16 + i % 32] |= (code >> 4) << g;
        }
    }
}
