//! Super-blocks of 256 whose groups have signed whole scales: `Q3K`, `Q6K`, `Iq4Xs`.
//!
//! Each group's best scale is searched for by itself; the super-block's is then chosen so that the
//! largest of them is the last whole number, refitted, and the whole scales are chosen again.

use super::search::{self, Levels, Table, Whole, inverse};
use super::{half, store};

const LEN: usize = 256;
/// Super-block scale and group scales are fitted to each other this often.
const ROUNDS: usize = 3;

/// A super-block before it is packed.
struct Block {
    /// As stored.
    scale: f32,
    /// By group; only the first are used where groups are long.
    groups: [i32; 16],
}

/// Groups of `len` elements with whole scales from `-reach` to `reach - 1`.
struct Shape<'a, L> {
    len: usize,
    reach: i32,
    levels: &'a L,
}

/// Values by group, divided by the largest, and their weights.
struct Values {
    size: f32,
    normal: Vec<f32>,
    weights: Vec<f32>,
}

impl<L: Levels> Shape<'_, L> {
    fn block(&self, values: &[f32]) -> Block {
        let mut best = Block { scale: 0.0, groups: [0; 16] };
        let Some(size) = search::size(values) else { return best };
        let normal = search::normal(values, size);
        let weights = normal.chunks_exact(self.len).flat_map(search::weights).collect();
        let all = Values { size, normal, weights };
        let mut wanted = [0.0; 16];
        for (wanted, (values, weights)) in wanted.iter_mut().zip(self.groups(&all)) {
            *wanted = search::scale(values, weights, self.levels);
        }
        let most = search::extreme(&wanted);
        let mut least = f32::INFINITY;
        for end in [-self.reach, self.reach - 1] {
            let mut scale = half(most / end as f32 * size).to_f32();
            for _ in 0..ROUNDS {
                let found = self.choose(&all, &wanted, scale);
                if found.0 < least {
                    least = found.0;
                    best = Block { scale, groups: found.1 };
                }
                scale = half(self.refit(&all, scale, &found.1)).to_f32();
            }
        }
        best
    }

    fn groups<'v>(&self, all: &'v Values) -> impl Iterator<Item = (&'v [f32], &'v [f32])> {
        all.normal.chunks_exact(self.len).zip(all.weights.chunks_exact(self.len))
    }

    /// The whole scales for a super-block scale, and the error that they leave.
    fn choose(&self, all: &Values, wanted: &[f32; 16], scale: f32) -> (f32, [i32; 16]) {
        let (mut groups, mut sum) = ([0; 16], 0.0);
        let unit = scale / all.size;
        for (g, (values, weights)) in self.groups(all).enumerate() {
            let near = (wanted[g] * inverse(unit)).round() as i32;
            let mut least = f32::INFINITY;
            for group in near.saturating_sub(1)..=near.saturating_add(1) {
                let group = group.clamp(-self.reach, self.reach - 1);
                let error = search::error(values, weights, self.levels, unit * group as f32);
                if error < least {
                    (least, groups[g]) = (error, group);
                }
            }
            sum += least;
        }
        (sum, groups)
    }

    /// The super-block scale that fits the codes of another.
    fn refit(&self, all: &Values, scale: f32, groups: &[i32; 16]) -> f32 {
        let (mut cross, mut square) = (0.0, 0.0);
        for ((values, weights), &group) in self.groups(all).zip(groups) {
            let inverse = inverse(scale / all.size * group as f32);
            for (value, weight) in values.iter().zip(weights) {
                let level = self.levels.level(value * inverse) * group as f32;
                cross += weight * level * value;
                square += weight * level * level;
            }
        }
        if square > 0.0 { cross / square * all.size } else { scale }
    }
}

impl Block {
    /// What a value of group `g` is multiplied by before its level is looked up.
    fn inverse(&self, g: usize) -> f32 {
        inverse(self.scale * self.groups[g] as f32)
    }
}

pub(super) fn q3_k(values: &[f32], out: &mut [u8]) {
    let levels = Whole(-4.0, 3.0);
    let block = Shape { len: 16, reach: 32, levels: &levels }.block(values);
    out.fill(0);
    for (i, value) in values.iter().enumerate() {
        let code = (levels.level(value * block.inverse(i / 16)) + 4.0) as u8;
        out[i % 32] |= (code >> 2) << (i / 32);
        out[32 + i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
    }
    for (s, &group) in block.groups.iter().enumerate() {
        let scale = (group + 32) as u8;
        out[96 + s % 8] |= (scale & 15) << (s / 8 * 4);
        out[104 + s % 4] |= (scale >> 4) << (s / 4 * 2);
    }
    store(block.scale, out, 108);
}

pub(super) fn q6_k(values: &[f32], out: &mut [u8]) {
    let levels = Whole(-32.0, 31.0);
    let block = Shape { len: 16, reach: 128, levels: &levels }.block(values);
    out.fill(0);
    for (i, value) in values.iter().enumerate() {
        let (half_of, within) = (i / 128, i % 128);
        let code = (levels.level(value * block.inverse(i / 16)) + 32.0) as u8;
        out[half_of * 64 + within % 64] |= (code & 15) << (within / 64 * 4);
        out[128 + half_of * 32 + within % 32] |= (code >> 4) << (within / 32 * 2);
    }
    for (out, &group) in out[192..208].iter_mut().zip(&block.groups) {
        *out = group as i8 as u8;
    }
    store(block.scale, out, 208);
}

pub(super) fn iq4_xs(values: &[f32], out: &mut [u8]) {
    let block = Shape { len: 32, reach: 32, levels: &Table }.block(values);
    out.fill(0);
    store(block.scale, out, 0);
    for (g, values) in values.chunks_exact(LEN / 8).enumerate() {
        let scale = (block.groups[g] + 32) as u8;
        out[4 + g / 2] |= (scale & 15) << (g % 2 * 4);
        out[2 + g / 4] |= (scale >> 4) << (g % 4 * 2);
        for (i, value) in values.iter().enumerate() {
            out[8 + 16 * g + i % 16] |= Table.code(value * block.inverse(g)) << (i / 16 * 4);
        }
    }
}
